//! What every drill has, with a person or without: the alarm, the incident it opens, settings to come back to, the judgement.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::judge;
use super::judge_breach;
use super::judge_deletion;
use super::judge_pages;
use super::judge_region;
use super::judge_release;
use super::sandbox::Sandbox;
use super::scratch;
use super::server::Server;
use crate::config::{Config, Secrets, Settings};
use crate::error::{Error, Result};
use crate::incident::{Command, State};
use crate::model::event::{Check, Event, Kind, Verdict};
use crate::model::target::Loss;
use crate::model::{Plan, Time};
use crate::runtime::{Incident, Opening, Store, policy};

/// How long the damage may take to show in the service's health after it was injected.
const ALARM: Duration = Duration::from_secs(180);

/// Slug of the first scenario: wrong rows.
pub const CORRUPTION: &str = "database-corruption";
/// Slug of the scenario with a bad release.
pub const RELEASE: &str = "application-failure";
/// Slug of the scenario with deleted data.
pub const DELETION: &str = "data-deletion";
/// Slug of the scenario with a lost region.
pub const REGION: &str = "regional-outage";
/// Slug of the scenario with somebody inside.
pub const BREACH: &str = "security-breach";
/// Variants of a drill, by scenario and name, and what each is.
pub const VARIANTS: &[(&str, &str, &str)] = &[
    (CORRUPTION, super::pages::VARIANT, "pages on disk are damaged, and fail their checksum when they are read"),
    (DELETION, "rows", "DELETE with a condition that is too wide"),
    (DELETION, "truncate", "TRUNCATE"),
    (DELETION, "drop", "DROP TABLE"),
    (REGION, super::region::LAGGING, "the line to the standby is clogged before the loss"),
];
/// Scenarios that have a drill, by slug, and what happens in each.
pub const DRILLS: &[(&str, &str)] = &[
    (CORRUPTION, "a faulty release rewrites rows while good orders keep coming"),
    (DELETION, "a clean-up job takes payments away: rows deleted, the table emptied or dropped"),
    (REGION, "the region with the primary database is killed; a standby in another region streams from it"),
    (BREACH, "a stolen role with live sessions changes data and makes itself a second way in"),
    (RELEASE, "a bad release of the shop's web front answers 5xx, and a pipeline puts it out again"),
];

/// Objectives of a sandbox when nobody gave others: minutes, so that they can be missed.
pub const RTO_MS: u64 = 5 * 60 * 1000;
/// See [`RTO_MS`].
pub const RPO_MS: u64 = 5 * 60 * 1000;

/// What is drilled.
pub struct Exercise {
    /// The plan.
    pub plan: Plan,
    /// Its documents.
    pub documents: Vec<(String, Vec<u8>)>,
    /// Slug of the scenario.
    pub scenario: String,
    /// Objective of the sandbox in milliseconds.
    pub rto_ms: u64,
    /// Objective of the sandbox in milliseconds.
    pub rpo_ms: u64,
    /// The responder arrives this much later.
    pub delay: Duration,
}

/// Waits until the service itself says that something is wrong. Returns what it says.
///
/// # Errors
/// `Check` when no alarm came, `Interrupted` when somebody stopped it.
pub fn wait_for_alarm(sandbox: &Sandbox, stopped: &dyn Fn() -> bool) -> Result<String> {
    let begun = Instant::now();
    loop {
        let health = sandbox.control().status()?.health;
        if !health.healthy {
            // Where the database itself does not answer, what cannot be read because of that says nothing.
            let worst = health.details.get("database").or_else(|| health.details.values().next());
            return Ok(worst.unwrap_or(&health.status).clone());
        }
        if stopped() {
            return Err(Error::interrupted("the drill was stopped before the alarm"));
        }
        if begun.elapsed() > ALARM {
            return Err(Error::check("no alarm came: the service stayed healthy although the faulty release is out"));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Opens the incident of a drill and records what it was prepared with.
///
/// # Errors
/// As [`Store::create`].
pub fn open(store: &Store, sandbox: &Sandbox, exercise: &Exercise, alarm: &str) -> Result<Incident> {
    let settings = sandbox.settings();
    let at = Time::from_system(std::time::SystemTime::now());
    let mut incident = store.create(Opening {
        kind: Kind::Drill,
        plan: exercise.plan.clone(),
        documents: exercise.documents.clone(),
        scenario: exercise.scenario.clone(),
        rto_ms: Some(exercise.rto_ms),
        rpo_ms: Some(exercise.rpo_ms),
        target: settings.target.clone(),
        expect: settings.expect.clone(),
        policy: policy(&settings),
    })?;
    let facts = sandbox.facts();
    incident.submit(Command::Observe {
        facts: vec![Event::DrillPrepared {
            scratch: sandbox.dir().display().to_string(),
            size: facts.size,
            setup_ms: u64::try_from(sandbox.setup().as_millis()).unwrap_or(u64::MAX),
            bytes: facts.bytes,
        }],
    })?;
    scratch::note_opened(sandbox.dir())?;
    let at = at.min(incident.now().time);
    incident.submit(Command::SetImpact { at, source: format!("alarm: {alarm}") })?;
    Ok(incident)
}

/// Opens the umpire's logs and judges the recovery by them. The judgement is the last event.
///
/// # Errors
/// Only when the journal's folder cannot be written; whatever else fails is a failed check.
pub fn judged(sandbox: &Sandbox, incident: &Incident, tokio: &tokio::runtime::Runtime) -> Result<Vec<Event>> {
    let folder = judge_folder(incident.dir());
    crate::journal::files::create_dir(&folder)?;
    let state = incident.state()?;
    let failed = |name: &str, why: String| {
        let checks = vec![Check { name: name.into(), verdict: Verdict::Failed, detail: why }];
        vec![Event::DrillJudged { passed: false, checks, injected_at: None }]
    };
    let given_up = state.facts.promoted.is_none();
    let by_its_own = match sandbox.facts().scenario.as_str() {
        DELETION => Some(judged_deletion(sandbox, state, &folder, tokio)),
        BREACH => Some(judged_breach(sandbox, state, incident.dir(), &folder, tokio)),
        REGION => Some(judged_region(sandbox, state, &folder, tokio)),
        RELEASE => Some(judged_release(sandbox, state, &folder, tokio)),
        _ => None,
    };
    if let Some(judged) = by_its_own {
        return Ok(judged.unwrap_or_else(|e| failed("judgement", e.to_string())));
    }
    if let Err(e) = sandbox.control().judge(&folder, given_up) {
        return Ok(failed("the umpire's logs", e.to_string()));
    }
    let (Some((identity, _, _)), Some((target, _, _))) = (&state.facts.promoted, &state.facts.chosen) else {
        return Ok(failed(
            "recovery",
            "the drill was closed before anything was recovered and put into service".into(),
        ));
    };
    let recovered = Server { socket: identity.host.clone(), port: identity.port, ..sandbox.facts().server.clone() };
    let recovered = recovered.with_user(super::shop::SUPERUSER);
    let lost_orders = state
        .facts
        .loss
        .as_ref()
        .map(|l| l.rows.iter().find(|(table, _)| table.ends_with("orders")).map_or(0, |(_, n)| *n));
    let generation = sandbox.control().status().ok().map(|s| s.generation);
    let claim = judge::Claim { target: target.clone(), lost_orders, generation };
    if sandbox.facts().variant.as_deref() == Some(super::pages::VARIANT) {
        return Ok(match tokio.block_on(judge_pages::judge(&folder, &recovered, &claim)) {
            Ok(j) => vec![recorded(j.checks, j.at)],
            Err(e) => failed("judgement", e.to_string()),
        });
    }
    Ok(match tokio.block_on(judge::judge(&folder, &recovered, &claim)) {
        Ok(j) => vec![Event::DrillJudged { passed: j.passed(), checks: j.checks.clone(), injected_at: j.injected_at }],
        Err(e) => failed("judgement", e.to_string()),
    })
}

fn judged_deletion(
    sandbox: &Sandbox,
    state: &State,
    folder: &Path,
    tokio: &tokio::runtime::Runtime,
) -> Result<Vec<Event>> {
    sandbox.control().judge(folder, true)?;
    let live = sandbox.facts().server.with_user(super::shop::SUPERUSER);
    let restored = state.restored.as_ref().map(|r| r.at);
    let j = tokio.block_on(judge_deletion::judge(folder, &live, restored))?;
    Ok(vec![recorded(j.checks, j.at)])
}

fn judged_breach(
    sandbox: &Sandbox,
    state: &State,
    incident: &Path,
    folder: &Path,
    tokio: &tokio::runtime::Runtime,
) -> Result<Vec<Event>> {
    sandbox.control().judge(folder, true)?;
    let live = sandbox.facts().server.with_user(super::shop::SUPERUSER);
    let restored = state.restored.as_ref().map(|r| r.at);
    let j = tokio.block_on(judge_breach::judge(folder, incident, &live, restored))?;
    Ok(vec![recorded(j.checks, j.at)])
}

fn judged_region(
    sandbox: &Sandbox,
    state: &State,
    folder: &Path,
    tokio: &tokio::runtime::Runtime,
) -> Result<Vec<Event>> {
    sandbox.control().judge(folder, true)?;
    let door = sandbox.facts().server.with_user(super::shop::SUPERUSER);
    let lost = state.facts.loss.as_ref().and_then(|l| l.rows.get("public.orders")).copied();
    let claim = judge_region::Claim { restored: state.restored.as_ref().map(|r| r.at), lost_orders: lost };
    let j = tokio.block_on(judge_region::judge(folder, &door, claim))?;
    Ok(vec![recorded(j.checks, j.at)])
}

fn judged_release(
    sandbox: &Sandbox,
    state: &State,
    folder: &Path,
    tokio: &tokio::runtime::Runtime,
) -> Result<Vec<Event>> {
    sandbox.control().judge(folder, true)?;
    let server = sandbox.facts().server.with_user(super::shop::SUPERUSER);
    let probe = sandbox.settings().service.probe_url.unwrap_or_default();
    let restored = state.restored.as_ref().map(|r| r.at);
    let j = tokio.block_on(judge_release::judge(folder, &server, &probe, restored))?;
    // Nothing went back in time: what is lost is what customers were promised and is not there.
    let window_ms = if j.lost == 0 { 0 } else { j.began.zip(j.ended).map_or(0, |(a, b)| b.diff_ms(a).unsigned_abs()) };
    let rows = if j.lost == 0 { BTreeMap::new() } else { BTreeMap::from([("public.orders".to_string(), j.lost)]) };
    let loss = Loss { window_ms, transactions: Some(j.lost), rows, at_most: false };
    Ok(vec![Event::LossMeasured { loss }, recorded(j.checks, j.began)])
}

/// A judgement as it is recorded: passed when every check is.
fn recorded(checks: Vec<Check>, injected_at: Option<Time>) -> Event {
    Event::DrillJudged { passed: checks.iter().all(|c| c.verdict == Verdict::Passed), checks, injected_at }
}

/// A small runtime for previews and judging.
///
/// # Errors
/// State when the system gives none.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Error::state("the asynchronous runtime cannot be started").why(e))
}

/// Where the judge's logs of an incident are.
pub fn judge_folder(incident_dir: &Path) -> std::path::PathBuf {
    incident_dir.join("evidence").join("judge")
}

/// Settings and secrets under which an incident's actions run: a drill's come from its sandbox, never from the configuration.
///
/// # Errors
/// State or target when the sandbox of a drill is gone.
pub fn settings_for(state: &State, config: &Config) -> Result<(Settings, Secrets)> {
    match (state.kind, &state.facts.drill) {
        (Kind::Real, _) => Ok((config.settings.clone(), config.secrets.clone())),
        (Kind::Drill, Some((scratch, ..))) => {
            let sandbox = Sandbox::join(Path::new(scratch))?;
            Ok((sandbox.settings(), sandbox.secrets()?))
        }
        (Kind::Drill, None) => Err(Error::state(format!("the drill {} has no sandbox", state.id))
            .hint("close it; `breakglass drill` makes a new one")),
    }
}
