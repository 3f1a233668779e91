//! `pitr restore --into place`: whoever runs the database for us is asked to restore it in place, once, and followed to a verdict.

use std::sync::Arc;
use std::time::Duration;

use super::target::{Follow, now};
use super::{Ctx, Done, Preview, backend};
use crate::error::{Context, Error, Result};
use crate::journal::files::{create_dir, write_atomic};
use crate::journal::record::sha256_hex;
use crate::model::event::{Check, Event, Kind, Outcome, Verdict};
use crate::model::target::{Identity, Loss, RecoveryTarget};
use crate::model::{Digest, Time, format_clock};
use crate::recovery::backend::{Goal, Order, Patience, Recovery, Verdict as Became, Way};
use crate::recovery::supabase::{Ending, InPlace, Outcome as Restored};

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The target.
    pub to: RecoveryTarget,
    /// After it, not before.
    pub after: bool,
    /// Why to ask once more.
    pub again: Option<String>,
    /// How long to follow it.
    pub deadline: Option<Duration>,
}

impl Wanted {
    fn goal(&self, patience: Patience) -> Goal {
        Goal { after: self.after, patience, again: self.again.clone(), ..Goal::to(self.to.clone()) }
    }
}

/// The project as a target: what is typed to confirm is its reference.
fn identity(ctx: &Ctx, way: &InPlace) -> Identity {
    let host = ctx.settings.database.as_ref().map_or_else(|| ctx.settings.supabase.api_url.clone(), |d| d.host.clone());
    Identity {
        system_identifier: String::new(),
        database: way.project_ref.clone(),
        host,
        port: ctx.settings.database.as_ref().map_or(443, |d| d.port),
        version_num: 0,
        in_recovery: false,
        timeline: way.before.timeline.unwrap_or_default(),
        data_directory: None,
        other_databases: Vec::new(),
    }
}

/// What will happen, said plainly.
fn lines(way: &InPlace) -> Vec<String> {
    let at = |s: i64| Time::from_micros(s.saturating_mul(1_000_000));
    if let Some(r) = &way.resumes {
        return vec![format!(
            "follows the restore to {} that was asked for at {}; asks for nothing",
            at(r.unix),
            r.requested_at
        )];
    }
    let mut all = vec![
        format!("OVERWRITES project {} ({}) IN PLACE", way.project_ref, way.name),
        format!("everything committed after {} is gone for good, in all of its databases", at(way.unix)),
        "the project is down meanwhile; there is no way back but another restore, and no promise of that".to_string(),
    ];
    if let Some((earliest, latest)) = way.window {
        all.push(format!("reachable: {} to {}", at(earliest), at(latest)));
    }
    if let RecoveryTarget::Time(t) = &way.target {
        all.push(format!("asked for by whole seconds: up to and with {}, for the target {t}", at(way.unix)));
    }
    all.push(match way.before.newest {
        Some(newest) => {
            format!("the newest row is of {newest}: {} of work are lost", format_clock(newest.since(at(way.unix))))
        }
        None => {
            "how much work is lost is not known: supabase.newest is not set, or the database does not answer".into()
        }
    });
    all.extend(way.warnings.iter().cloned());
    all.push("files of Storage do not come back; dump what must not be lost first".into());
    if let Some(reason) = &way.again {
        all.push(format!("ASKS AGAIN although an earlier request is on record: {reason}"));
    }
    all.push(format!("to confirm, type the project's reference: {}", way.project_ref));
    all
}

async fn ready(ctx: &Ctx, recovery: &dyn Recovery, goal: &Goal, follow: &Arc<Follow>) -> Result<InPlace> {
    match recovery.preflight(goal, follow.clone(), &ctx.cancel).await? {
        Way::InPlace(way) => Ok(*way),
        Way::Beside(_) => Err(Error::state("it builds beside and was asked to work in place")),
    }
}

/// What it would do; reads only.
///
/// # Errors
/// Refused when it cannot be done.
pub async fn preview(ctx: &Ctx, wanted: &Wanted) -> Result<Preview> {
    let way = ready(ctx, &*backend::recovery(ctx).await?, &wanted.goal(Patience::Warn), &Follow::new(ctx)).await?;
    expected(ctx, &identity(ctx, &way))?;
    let target = identity(ctx, &way);
    let fact = Event::TargetSeen { role: "source".into(), identity: target.clone() };
    Ok(Preview { lines: lines(&way), target: Some(target), facts: vec![fact] })
}

fn expected(ctx: &Ctx, id: &Identity) -> Result<()> {
    // A project says neither its host nor its cluster; what can be expected of it is its reference.
    let said = ctx.settings.expect.get("project_ref").filter(|want| **want != id.database);
    match said {
        Some(want) => Err(Error::refused(format!("the project is {}, but {want:?} is expected", id.database))
            .why("this is another project than the one the configuration names in target.expect")
            .hint("nothing was touched; put supabase.project_ref or target.expect right in breakglass.toml")),
        None => Ok(()),
    }
}

/// Asks, once, and follows it to a verdict.
///
/// # Errors
/// Refused before anything was asked; declined; or it cannot be followed.
pub async fn run(ctx: &Ctx, wanted: &Wanted) -> Result<Done> {
    if ctx.incident.as_ref().is_some_and(|s| s.kind == Kind::Drill) {
        return Err(Error::refused("a drill never overwrites a hosted database")
            .why("what is committed there is real")
            .hint("to exercise it, restore a backup into a new project in the dashboard; in earnest, open a real incident"));
    }
    let mut ctx = ctx.clone();
    if let Some(deadline) = wanted.deadline {
        let mut settings = (*ctx.settings).clone();
        settings.supabase.deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        ctx.settings = settings.into();
    }
    let ctx = &ctx;
    let recovery = backend::recovery(ctx).await?;
    let follow = Follow::new(ctx);
    let way = ready(ctx, &*recovery, &wanted.goal(Patience::Wait), &follow).await?;
    let id = identity(ctx, &way);
    expected(ctx, &id)?;
    // Following destroys nothing more, but whoever reads the record shall see who said yes.
    if ctx.confirmed.as_deref() != Some(way.project_ref.as_str()) {
        return Err(Error::refused(format!("overwriting project {} was not confirmed", way.project_ref))
            .why("its reference has to be typed: everything committed after the moment is gone for good")
            .hint(format!("--confirm {} once you are sure", way.project_ref)));
    }
    lines(&way).iter().filter(|l| !l.starts_with("to confirm")).for_each(|l| ctx.out.line(l));
    let mut facts = vec![Event::TargetSeen { role: "source".into(), identity: id }];
    if let Some(reason) = &way.again {
        facts.push(Event::GateWaived { gate: "repeat".into(), reason: reason.clone(), step: None });
    }
    let started = recovery.start(&Order::InPlace(Box::new(way)), follow.clone(), &ctx.cancel).await?;
    let Became::InPlace(outcome) = recovery.follow(started, follow, &ctx.cancel).await? else {
        return Err(Error::state("it was asked for in place and is said to stand beside"));
    };
    ended(ctx, *outcome, facts)
}

fn ended(ctx: &Ctx, o: Restored, mut facts: Vec<Event>) -> Result<Done> {
    for c in &o.checks {
        let mark = match c.verdict {
            Verdict::Passed => "✓",
            Verdict::Failed => "✗",
            Verdict::NotAvailable => "?",
        };
        ctx.out.line(&format!("{mark} {:<13} {}", c.name, c.detail));
    }
    let passed = o.ending == Ending::Restored;
    // How it ended is worth more than the packet about it.
    let packet = o.packet.as_ref().and_then(|text| match write_packet(ctx, &o.request.project_ref, text) {
        Ok(written) => Some(written),
        Err(e) => {
            ctx.out.line(&format!("no packet for Supabase's support: {}: {}", e.what, e.why));
            None
        }
    });
    if let Some((file, fact)) = &packet {
        ctx.out.line(&format!("packet for Supabase's support: {file}"));
        facts.extend(fact.clone());
    }
    for line in &o.next {
        ctx.out.line(line);
    }
    let loss = loss(&o);
    if passed && !o.checks.is_empty() {
        facts.push(Event::ServiceVerified { passed, checks: o.checks.clone() });
        match &loss {
            Some(loss) => facts.push(Event::LossMeasured { loss: loss.clone() }),
            None => ctx.out.line("the loss is not measured: it needs supabase.newest, asked before and after"),
        }
    }
    let json = serde_json::json!({
        "backend": "supabase", "summary": o.summary, "ending": word(o.ending), "project_ref": o.request.project_ref,
        "recovery_time_target_unix": o.request.unix, "requested_at": o.request.requested_at,
        "seen": o.request.seen, "checks": o.checks, "loss": loss, "packet": packet.map(|(file, _)| file), "next": o.next,
    });
    let (outcome, exit_code) = if passed { (Outcome::Succeeded, 0) } else { (Outcome::Failed, 3) };
    Ok(Done { outcome, exit_code, summary: o.summary, facts, json })
}

fn word(ending: Ending) -> &'static str {
    match ending {
        Ending::Restored => "restored",
        Ending::Failed => "failed",
        Ending::NoSign => "no_sign",
        Ending::Stuck => "stuck",
    }
}

/// What was lost, by the newest row before and after.
fn loss(o: &Restored) -> Option<Loss> {
    let passed = |c: &Check| c.name == "newest row" && c.verdict == Verdict::Passed;
    o.checks.iter().any(passed).then_some(())?;
    let (before, after) = o.request.before.newest.zip(o.after.newest)?;
    let window_ms = u64::try_from(before.since(after).as_millis()).unwrap_or(u64::MAX);
    Some(Loss { window_ms, transactions: None, rows: Default::default(), at_most: true })
}

/// Writes the packet: beside the incident's evidence, else beside the record of the request.
fn write_packet(ctx: &Ctx, project: &str, text: &str) -> Result<(String, Option<Event>)> {
    let name = format!("supabase-{project}-{}.md", now().compact());
    let folder = match (&ctx.incident_dir, &ctx.settings.requests) {
        (Some(incident), _) => incident.join("evidence"),
        (None, Some(requests)) => requests.clone(),
        (None, None) => std::env::current_dir().state(|| "there is no folder for the packet".into())?,
    };
    create_dir(&folder)?;
    let file = folder.join(&name);
    write_atomic(&file, text.as_bytes())?;
    let sha256 = Digest::new(sha256_hex(text.as_bytes()));
    let fact = ctx.incident_dir.is_some().then_some(Event::EvidenceAdded { file: name, sha256 });
    Ok((file.display().to_string(), fact))
}
