//! `breakglass health`: what the service says of itself, who the database is, and what would be lost right now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Command;
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::postgres::PgConnection;

use super::target::{blocking, now};
use super::{Action, Ctx, Done, Preview, Spec, backend, reach};
use crate::backup::catalog::{Backup, Catalog};
use crate::backup::dates;
use crate::backup::repository::{Repository, Unlocked};
use crate::backup::spool::{disk_full, mounted_read_only};
use crate::backup::wal::Hole;
use crate::backup::{anchor, pinned};
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY, Settings};
use crate::config::{Backend, Secrets};
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::{Time, format_clock};
use crate::recovery::backend::newest_backup;
use crate::recovery::health_checks::{self, Found};
use crate::recovery::range::tablespace::InTheWay;
use crate::recovery::segments::Segments;
use crate::recovery::{exposure, health};

/// The action.
pub struct Health;

impl Action for Health {
    fn spec(&self) -> Spec {
        Spec {
            name: "health",
            about: "Ask service and database how they are; exit 1 when something is not well",
            risk: Risk::Read,
            fallback: "Open the service's health page; connect with psql and look at pg_stat_activity and pg_stat_archiver.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("health")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let mut lines = Vec::new();
            if let Some(url) = &ctx.settings.service.health_url {
                lines.push(format!("asks {url}"));
            }
            if let Some(c) = &ctx.settings.database {
                lines.push(format!("connects to {c} and reads"));
            }
            let more = &ctx.settings.health;
            lines.extend(more.urls.iter().map(|u| format!("asks {}", u.url)));
            lines.extend(more.sql.iter().map(|q| format!("asks the database, read-only: {}", q.query.trim())));
            lines.extend(more.disks.iter().map(|d| format!("looks at the room on {}", d.path.display())));
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(check(ctx))
    }
}

/// How the backups are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// In our repository.
    Repository,
    /// By asking whoever makes them.
    Backend,
    /// Not at all, although there is a place for them, or limits; why.
    Unable(&'static str),
    /// Not at all: nothing is configured that could be looked at.
    Nothing,
}

/// How the backups are looked at, by what is configured.
pub fn look_at_backups(settings: &Settings, secrets: &Secrets) -> Looked {
    let key = [REPOSITORY_KEY, REPOSITORY_IDENTITY].iter().any(|name| secrets.get(name).is_some());
    let limits = settings.health.backup_max_age_s.is_some() || settings.health.proven_max_age_s.is_some();
    match settings.backend {
        Backend::Native if settings.repository.is_some() && key => Looked::Repository,
        Backend::Native if settings.repository.is_none() && !limits => Looked::Nothing,
        Backend::Native if settings.repository.is_none() => {
            Looked::Unable("no repository is configured (BACKUP_DIR, or repository.url)")
        }
        // What nobody looks at is not well: a scheduler that lacks the key would find everything in order for ever.
        Backend::Native => Looked::Unable(
            "the backups were not looked at: the repository's key is not set here (BACKUP_ENCRYPTION_KEY or BACKUP_IDENTITY_FILE)",
        ),
        _ => Looked::Backend,
    }
}

/// The same, from the shell and the scheduler. Within an incident it is the service that is asked about, again and again, and
/// opening a repository takes its time.
fn backups(ctx: &Ctx) -> Looked {
    if ctx.incident.is_some() { Looked::Nothing } else { look_at_backups(&ctx.settings, &ctx.secrets) }
}

/// The backups of whoever makes them where we do not: how many, how old the newest is, and what breaks their log. That one was
/// ever restored nobody but a repository of ours knows.
async fn elsewhere(ctx: &Ctx) -> (Vec<Found>, Ages) {
    let mut ages = Ages::default();
    let asked = async {
        let recovery = backend::recovery(ctx).await?;
        recovery.range(None).await
    };
    let ranges = match asked.await {
        Ok(ranges) => ranges,
        Err(e) => return (vec![Found::bad("repository", "down", e.what + ": " + &e.why)], ages),
    };
    let ids: BTreeSet<&str> = ranges.iter().flat_map(|r| &r.backups).map(|b| b.id.as_str()).collect();
    let mut out = vec![Found::good("repository", format!("{} backups", ids.len()))];
    out.push(match newest_backup(&ranges) {
        Some((at, id)) => {
            let age = now().since(at);
            ages.backup = Some(age);
            aged(ctx, &format!("{id}, {} old", format_clock(age)), age)
        }
        None => Found::bad("backup", "missing", format!("{} names none with a time", ctx.settings.backend.word())),
    });
    out.extend(broken_log(ranges.iter().flat_map(|r| &r.holes)));
    if ctx.settings.health.proven_max_age_s.is_some() {
        let why = format!("whether a backup was ever restored is not known of {}", ctx.settings.backend.word());
        out.push(Found::bad("proven", "not asked", why));
    }
    (out, ages)
}

/// How old the newest backup may be.
fn backup_limit(ctx: &Ctx) -> Duration {
    Duration::from_secs(ctx.settings.health.backup_max_age_s.unwrap_or(ctx.settings.policy.backup_max_age_s))
}

/// All holes of the log in one: a component has one sentence.
fn broken_log<'h>(holes: impl IntoIterator<Item = &'h Hole>) -> Option<Found> {
    let all: Vec<String> = holes.into_iter().map(|h| format!("{} to {}: {}", h.first, h.last, h.why)).collect();
    (!all.is_empty()).then(|| Found::bad("log", "hole", all.join("; ")))
}

fn aged(ctx: &Ctx, detail: &str, age: Duration) -> Found {
    let limit = backup_limit(ctx);
    if age <= limit {
        return Found::good("backup", detail);
    }
    let whose = match ctx.settings.health.backup_max_age_s {
        Some(_) => "",
        None => " (policy.backup_max_age, 24h unless set; health.backup_max_age is not set)",
    };
    Found::bad("backup", "too old", format!("{detail}; {} at most are wanted{whose}", format_clock(limit)))
}

/// What the dates in a catalog say of clocks: one that stands wrong now is not well; that one was wrong once is said.
fn clocks(catalog: &Catalog, newest: Option<&Backup>, at: Time) -> Option<Found> {
    if let Some(behind) = dates::behind(catalog, at) {
        return Some(Found::bad("clock", "behind the catalog", behind));
    }
    // The newest one's is said where it is named.
    let others = catalog.backups.iter().filter(|b| newest.is_none_or(|n| n.manifest.id != b.manifest.id));
    let others: Vec<Backup> = others.cloned().collect();
    let lines = dates::doubt_lines(&others, at);
    (!lines.is_empty()).then(|| Found::good("clock", format!("{}; cleanup removes none of these", lines.join("; "))))
}

/// The repository, its newest verified backup, the last one that was restored, and the chain of its catalog when that was
/// rolled back; and the ages of the two backups.
fn repository(ctx: &Ctx, identity: Option<&(String, String)>) -> (Vec<Found>, Ages) {
    let mut ages = Ages::default();
    let down = |e: &Error| vec![Found::bad("repository", "down", e.what.clone() + ": " + &e.why)];
    let (unlocked, catalog) = match reach::unlocked(ctx).and_then(|u| Ok((reach::catalog(ctx, &u)?, u))) {
        Ok((catalog, unlocked)) => (unlocked, catalog),
        Err(e) => return (down(&e), ages),
    };
    // What cannot be understood is in doubt already.
    let other = || unlocked.wrong_cluster(&catalog, false).ok().flatten();
    let mut out = match unlocked.repository().doubt().cloned().or_else(other) {
        Some(e) => vec![Found::bad("repository", "damaged", e.sentence())],
        None => strangers(ctx, unlocked.repository(), identity.map(|i| i.0.as_str())),
    };
    if out.iter().all(|f| f.name != "repository") {
        out.push(Found::good("repository", format!("{} backups", catalog.backups.len())));
    }
    let heads = ctx.settings.catalog_heads.as_ref();
    if let Some(e) = anchor::went_on(heads, &unlocked, &catalog, &mut |line| ctx.out.line(line)) {
        let status = if catalog.damage().is_some() { "damaged" } else { "rolled back" };
        out.push(Found::bad("catalog", status, e.what));
    }
    let health = &ctx.settings.health;
    let damaged = catalog.damaged_lines();
    if !damaged.is_empty() {
        out.push(Found::bad("backups", "damaged", damaged.join("; ")));
    }
    match crate::backup::wal::status(unlocked.repository()) {
        Ok(log) => out.extend(broken_log(log.timelines.iter().flat_map(|t| &t.holes))),
        Err(e) => out.push(Found::bad("log", "unknown", e.what)),
    }
    out.push(segments(unlocked.repository(), &unlocked));
    let (system, database) = (identity.map(|i| i.0.as_str()), identity.map(|i| i.1.as_str()));
    let (newest, at) = (catalog.newest_verified(system, database), now());
    out.extend(clocks(&catalog, newest, at));
    let doubt = newest.and_then(|b| dates::doubt(b, at));
    out.push(match newest {
        Some(b) if doubt.is_some() => {
            let why = doubt.unwrap_or_default();
            let what = format!("{}, verified, is the newest one, and how old it is is not known: {why}", b.manifest.id);
            Found::bad("backup", "age in doubt", what + "; take another one (breakglass backup create)")
        }
        None => Found::bad("backup", "missing", format!("no verified backup{}", of_database(database))),
        Some(b) => {
            let age = at.since(b.manifest.finished_at);
            ages.backup = Some(age);
            aged(ctx, &format!("{}, verified, {} old", b.manifest.id, format_clock(age)), age)
        }
    });
    let proven = catalog.last_proven(system, database);
    if let Some((b, tested)) = proven.filter(|(_, tested)| dates::before(at, *tested)) {
        let why = format!("{} was restored and right on {}, which is after now", b.manifest.id, tested.date_hms());
        out.push(Found::bad("proven", "age in doubt", why + ": a clock is or was wrong"));
        return (out, ages);
    }
    let proven = proven.map(|(b, tested)| (b.manifest.id.clone(), at.since(tested)));
    ages.proven = proven.as_ref().map(|(_, age)| *age);
    let detail = |(id, age): &(String, Duration)| format!("{id} was restored and right {} ago", format_clock(*age));
    match (&proven, health.proven_max_age_s.map(Duration::from_secs)) {
        (None, Some(_)) => {
            let of = of_database(database);
            let why = format!("no backup{of} was ever restored and looked at (breakglass backup verify --deep)");
            out.push(Found::bad("proven", "missing", why));
        }
        (Some(p), Some(limit)) if p.1 > limit => {
            let wanted =
                format!("{}; every {} is wanted (breakglass backup verify --deep)", detail(p), format_clock(limit));
            out.push(Found::bad("proven", "too old", wanted));
        }
        (Some(p), _) => out.push(Found::good("proven", detail(p))),
        (None, None) => {}
    }
    (out, ages)
}

/// Of what a backup is asked for.
fn of_database(database: Option<&str>) -> String {
    database.map_or_else(String::new, |d| format!(" of database {d:?} or its cluster as a whole"))
}

/// What lies in the places of the archived segments: a segment that cannot be used, or that is not the one that was read, is a hole
/// that no name shows.
fn segments(repository: &Repository, unlocked: &Unlocked) -> Found {
    match Segments::look(repository, Some(unlocked)) {
        Err(e) => Found::bad("segments", "unknown", e.what + ": " + &e.why),
        Ok(seen) => match (seen.unusable_sentences(), seen.exchanged_sentence()) {
            (unusable, _) if !unusable.is_empty() => Found::bad("segments", "unusable", unusable.join("; ")),
            (_, Some(exchanged)) => Found::bad("segments", "exchanged", exchanged),
            _ if seen.tablespace.is_some() => {
                let all: Vec<String> = seen.tablespace.iter().map(InTheWay::sentence).collect();
                Found::bad("segments", "tablespace", all.join("; "))
            }
            _ => Found::good("segments", seen.not_looked_at().unwrap_or_default()),
        },
    }
}

/// That a repository is of another cluster than the one that is watched: whatever else is well in it, nothing of it helps here.
fn of_another(repository: &Repository, system: Option<&str>) -> Option<Found> {
    let system = system?;
    match repository.cluster() {
        Ok(Some(cluster)) if cluster.system_identifier.to_string() != system => {
            let why = format!(
                "{} holds the backups and the log of system {}, the database is system {system}: name the right one (BACKUP_DIR, \
                 repository.url)",
                repository.store().url(),
                cluster.system_identifier
            );
            Some(Found::bad("repository", "of another cluster", why))
        }
        Ok(_) => None,
        Err(e) => Some(Found::bad("repository", "unknown", format!("{}: {}", e.what, e.why))),
    }
}

/// Whose a repository is that should be ours: another cluster's, or sealed for somebody who is not pinned.
fn strangers(ctx: &Ctx, repository: &Repository, system: Option<&str>) -> Vec<Found> {
    let unnamed = pinned::stranger(&ctx.settings.recipients, repository);
    let unnamed = unnamed.map(|e| Found::bad("recipients", "not named", e.sentence()));
    of_another(repository, system).into_iter().chain(unnamed).collect()
}

/// A repository whose key is not here: whether it is there, and whose it is.
fn without_key(ctx: &Ctx, system: Option<&str>) -> Vec<Found> {
    match reach::repository(ctx) {
        Ok(repository) => {
            let strangers = strangers(ctx, &repository, system);
            // The component has one status.
            let whose = strangers.iter().any(|f| f.name == "repository");
            let there = Found::good("repository", "it is there; what is in it takes its key");
            (!whose).then_some(there).into_iter().chain(strangers).collect()
        }
        Err(e) => vec![Found::bad("repository", "down", e.sentence())],
    }
}

/// How old the newest verified backup is, and how long ago one was last restored.
#[derive(Debug, Clone, Copy, Default)]
struct Ages {
    backup: Option<Duration>,
    proven: Option<Duration>,
}

/// What was seen so far.
struct Seen<'c> {
    ctx: &'c Ctx,
    healthy: bool,
    components: BTreeMap<String, String>,
    details: BTreeMap<String, String>,
}

impl Seen<'_> {
    fn line(&self, name: &str, text: &str) {
        self.ctx.out.line(&format!("{name:<12} {text}"));
    }

    fn add(&mut self, found: Found) {
        let gap = if found.detail.is_empty() { "" } else { "  " };
        self.line(&found.name, &format!("{}{gap}{}", found.status, found.detail));
        if !found.is_good() {
            self.healthy = false;
            self.details.insert(found.name.clone(), found.detail);
        }
        self.components.insert(found.name, found.status);
    }

    /// One sentence of what is not well.
    fn complaint(&self) -> String {
        let bad = self.components.iter().filter(|(_, status)| !health::is_good(status));
        let bad: Vec<String> = bad
            .map(|(name, status)| match self.details.get(name) {
                Some(d) => format!("{name} {status} ({d})"),
                None => format!("{name} {status}"),
            })
            .collect();
        bad.join(", ")
    }
}

async fn check(ctx: &Ctx) -> Result<Done> {
    let settings = &ctx.settings;
    let nothing = settings.service.health_url.is_none() && settings.database.is_none() && settings.health.is_empty();
    if nothing && backups(ctx) == Looked::Nothing {
        return Err(Error::config("nothing to look at: neither a health URL nor a database is configured")
            .hint("set service.health_url and target.url in breakglass.toml, or DATABASE_URL")
            .hint("health.url, health.sql and health.disk add checks of your own (docs/formats.md)"));
    }
    if !settings.health.sql.is_empty() && settings.database.is_none() {
        return Err(Error::config("health.sql has queries, and no database is configured")
            .hint("set target.url in breakglass.toml, or DATABASE_URL"));
    }
    let mut seen = Seen { ctx, healthy: true, components: BTreeMap::new(), details: BTreeMap::new() };
    if let Some(url) = &settings.service.health_url {
        let said = health::ask(url).await?;
        seen.healthy &= said.healthy;
        for (name, status) in &said.components {
            let detail = said.details.get(name).map(|d| format!("  {d}")).unwrap_or_default();
            seen.line(name, &format!("{status}{detail}"));
        }
        seen.components = said.components;
        seen.details = said.details;
    }
    // All at once: together they take no longer than the slowest.
    for found in futures::future::join_all(settings.health.urls.iter().map(health_checks::url)).await {
        seen.add(found?);
    }
    let mut facts = Vec::new();
    let sample = if settings.database.is_some() { database(ctx, &mut seen, &mut facts).await? } else { None };
    for disk in &settings.health.disks {
        seen.add(health_checks::disk(disk));
    }
    // Where the backups go, also where nobody asked for it: archiving stops there first.
    let place =
        settings.repository.as_deref().filter(|_| settings.backend == Backend::Native && ctx.incident.is_none());
    if let Some(why) = place.and_then(disk_full) {
        seen.add(Found::bad(
            "room",
            "disk full",
            format!("{why}; breakglass backup cleanup --dry-run says what may go"),
        ));
    }
    if let Some(why) = place.filter(|_| !settings.read_only).and_then(mounted_read_only) {
        seen.add(Found::bad("room", "read-only", format!("{why}; see why (dmesg), then mount -o remount,rw")));
    }
    let mut ages = Ages::default();
    // Seen just now; where the database does not answer, what is configured.
    let seen_now = facts.iter().find_map(|f| match f {
        Event::TargetSeen { identity, .. } => Some((identity.system_identifier.clone(), identity.database.clone())),
        _ => None,
    });
    let expected = || {
        let of = |key: &str| settings.expect.get(key).cloned();
        let database = of("database").or_else(|| reach::database(ctx).ok().map(|d| d.name().into()));
        Some((of("system_identifier")?, database?))
    };
    let identity = seen_now.or_else(expected);
    match backups(ctx) {
        Looked::Repository => {
            let work = ctx.clone();
            let (found, known) = blocking(move || Ok(repository(&work, identity.as_ref()))).await?;
            found.into_iter().for_each(|f| seen.add(f));
            ages = known;
        }
        Looked::Backend => {
            let (found, known) = elsewhere(ctx).await;
            found.into_iter().for_each(|f| seen.add(f));
            ages = known;
        }
        looked => {
            if let Looked::Unable(why) = looked {
                seen.add(Found::bad("backup", "not asked", why));
            }
            // Whose it is stands outside of what the key opens, and is asked wherever it can be: not within an incident.
            if settings.repository.is_some() && settings.backend == Backend::Native && ctx.incident.is_none() {
                let (work, system) = (ctx.clone(), identity.map(|i| i.0));
                let found = blocking(move || Ok(without_key(&work, system.as_deref()))).await?;
                found.into_iter().for_each(|f| seen.add(f));
            }
        }
    }
    let asked = settings.service.health_url.is_some() || !settings.health.urls.is_empty();
    let ms = |d: Option<Duration>| d.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let document = json!({
        "healthy": seen.healthy,
        "service_asked": asked,
        "components": seen.components,
        "details": seen.details,
        "exposure_ms": ms(sample.as_ref().map(|e| e.exposure)),
        "exposure_at_most": sample.as_ref().map(|e| e.at_most),
        "backup_age_ms": ms(ages.backup),
        "proven_age_ms": ms(ages.proven),
    });
    let done = match seen.healthy {
        true if !asked => Done::ok(format!("what was looked at is well; {}", health::NO_CHECK)),
        true => Done::ok("healthy"),
        false => Done::check_failed(format!("not healthy: {}", seen.complaint())),
    };
    facts.push(Event::HealthSeen { healthy: seen.healthy, components: seen.components });
    Ok(Done { facts, ..done.json(document) })
}

/// Who the database is, what would be lost with it right now, and the team's own queries.
async fn database(ctx: &Ctx, seen: &mut Seen<'_>, facts: &mut Vec<Event>) -> Result<Option<exposure::Exposure>> {
    let at = reach::database(ctx)?;
    let (identity, exposed, mut c) = match look(ctx, &at).await {
        Ok(looked) => looked,
        Err(e) => {
            seen.healthy = false;
            seen.line("postgresql", &e.to_string());
            seen.components.insert("postgresql".into(), "down".into());
            seen.details.insert("postgresql".into(), e.to_string());
            for check in &ctx.settings.health.sql {
                seen.add(Found::bad(&check.name, "not asked", "the database does not answer"));
            }
            return Ok(None);
        }
    };
    seen.line(
        "postgresql",
        &format!(
            "{} on {}:{}, system {}, timeline {}{}",
            identity.database,
            identity.host,
            identity.port,
            identity.system_identifier,
            identity.timeline,
            if identity.in_recovery { ", in recovery" } else { "" }
        ),
    );
    seen.components.insert("postgresql".into(), "operational".into());
    // Well or not, it is not the one that is meant.
    if let Some(differs) = dates::differs(now(), crate::postgres::clock(&mut c).await?) {
        seen.add(Found::bad("clock", "differs", differs));
    }
    if let Err(e) = super::target::expected(ctx, &identity, at.host() == identity.host) {
        seen.add(Found::bad("identity", "unexpected", e.what));
    }
    facts.push(Event::TargetSeen { role: "source".into(), identity });
    if let Some(e) = &exposed {
        let bound = if e.at_most { "≤ " } else { "" };
        let shown = format!("{bound}{} ({})", format_clock(e.exposure), e.source);
        match ctx.settings.health.exposure_max_s.map(Duration::from_secs) {
            None => seen.line("exposure", &shown),
            Some(limit) if e.exposure > limit => {
                let why = format!("{shown}; {} at most are wanted", format_clock(limit));
                seen.add(Found::bad("exposure", "too long", why));
            }
            Some(_) => seen.add(Found::good("exposure", shown)),
        }
        if let Some(gap) = &e.unheld {
            seen.healthy = false;
            seen.components.insert("archiving".into(), "the end of the archive is gone".into());
            seen.line("archiving", &format!("{}; {}", gap.what(), gap.advice()));
        } else if let Some(wal) = &e.failing {
            seen.healthy = false;
            seen.components.insert("archiving".into(), format!("failing at {wal}"));
            seen.line("archiving", &format!("failing at {wal}"));
        }
        facts.push(e.fact());
    } else if ctx.settings.health.exposure_max_s.is_some() {
        let why = "it cannot be measured: the server archives nothing, or is a standby";
        seen.add(Found::bad("exposure", "unknown", why));
    }
    for check in &ctx.settings.health.sql {
        seen.add(health_checks::sql(&mut c, check).await?);
    }
    Ok(exposed)
}

async fn look(
    ctx: &Ctx,
    at: &crate::postgres::Database,
) -> Result<(crate::model::target::Identity, Option<exposure::Exposure>, PgConnection)> {
    let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(10)).await?;
    let identity = crate::postgres::identity(&mut c, at).await?;
    let exposed = exposure::measure(&mut c, &exposure::held_in(&ctx.settings)).await?;
    Ok((identity, exposed, c))
}
