//! `failover rebuild|back`: the old primary becomes the standby of the new one, and the way home without loss.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as _, Command, ValueEnum};
use futures::future::BoxFuture;
use serde_json::json;

use super::contain::service_command;
use super::failover::primary;
use super::failover_promote::send_to;
use super::target::{Follow, blocking, database_name, expected, instances_dir, now, parse_args, seen};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::model::parse_duration;
use crate::model::plan::Risk;
use crate::model::target::{Identity, Loss};
use crate::postgres::{Control, Database, Instance, identity};
use crate::recovery::failover::{close_local, instance_on, promote_standby, prove_closed, standing, wait_streaming};
use crate::recovery::health::wait_healthy;
use crate::recovery::promote::local_instance;
use crate::recovery::rebuild::{self, Orphans};
use crate::recovery::watch::check_cancel;

/// How long a server may take to start; a command of the service to end.
const LIMIT: Duration = Duration::from_secs(300);

/// How the old primary gets the state of the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// pg_rewind, and a new base backup where that is impossible
    Auto,
    /// pg_rewind or nothing
    Rewind,
    /// A new base backup; the old files are kept beside it
    BaseBackup,
}

#[derive(Debug, Clone, clap::Args)]
struct RebuildArgs {
    /// Data directory of the old primary, on this machine; from the configuration by default
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How
    #[arg(long, value_enum, default_value = "auto")]
    method: Method,
    /// Folder for the rows that only the old primary had; below the incident's
    #[arg(long, value_name = "DIR", default_value = "old-primary")]
    out: PathBuf,
}

/// `failover rebuild`.
pub struct Rebuild;

impl Action for Rebuild {
    fn spec(&self) -> Spec {
        Spec {
            name: "failover rebuild",
            about: "Write out what only the old primary had, then make it a standby of the new one",
            risk: Risk::Destroy,
            fallback: "On the old primary, stopped: keep a copy of its pg_wal; pg_rewind --target-pgdata=… \
                       --source-server=… --write-recovery-conf, or a new pg_basebackup; start it; look at pg_stat_replication.",
        }
    }
    fn arguments(&self) -> Command {
        RebuildArgs::augment_args(Command::new("rebuild"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: RebuildArgs = parse_args(self.arguments(), args)?;
            let old = old_instance(ctx, &args)?;
            let to = reach::database(ctx)?;
            let (_, id) = seen(ctx, &to).await?;
            let data = old.layout.data.display();
            let mut lines = vec![format!("writes what only {data} has into {}", args.out.display())];
            lines.push(match args.method {
                Method::BaseBackup => format!("moves {data} aside and takes a new base backup of {to}"),
                _ => format!("takes {data} back to where both went apart: what only it has is gone from it then"),
            });
            if Control::read(&old.programs, &old.layout.data, old.user.as_ref()).is_ok_and(|c| !c.checksums) {
                lines.push(
                    "it has no checksums: pg_rewind works only if wal_log_hints was on, else a base backup".into(),
                );
            }
            lines.push(format!("starts it as a standby of {to}"));
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: id.clone() }];
            Ok(Preview { lines, target: Some(id), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { rebuild(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

fn old_instance(ctx: &Ctx, args: &RebuildArgs) -> Result<Instance> {
    let data = args.data.clone().or_else(|| ctx.settings.failover.old_data.clone()).ok_or_else(|| {
        Error::config("where the old primary's data directory is, is not known").hint(
            "run this on its machine with --data DIR, or set old_data in the section [failover] of breakglass.toml",
        )
    })?;
    instance_on(&data)
}

async fn rebuild(ctx: &Ctx, args: &RebuildArgs) -> Result<Done> {
    let old = old_instance(ctx, args)?;
    let new = reach::database(ctx)?;
    let (mut c, id) = seen(ctx, &new).await?;
    if id.in_recovery {
        return Err(Error::refused(format!("{new} is no primary")).hint("promote it first"));
    }
    if id.data_directory.as_deref() == old.layout.data.to_str() {
        return Err(Error::refused(format!("{} is the primary itself", old.layout.data.display())));
    }
    let control = Control::read(&old.programs, &old.layout.data, old.user.as_ref())?;
    if control.system_identifier != id.system_identifier {
        return Err(Error::refused(format!("{} is cluster {}", old.layout.data.display(), control.system_identifier))
            .why(format!("the primary is {}", id.system_identifier))
            .hint("nothing was touched"));
    }
    let stopped = old.clone();
    for line in blocking(move || close_local(&stopped)).await? {
        ctx.out.line(&line);
    }
    let mut facts = Vec::new();
    let orphans = orphans(ctx, args, &old, &mut c, &id).await;
    let orphans = match orphans {
        Ok(o) => o,
        Err(e) if args.method == Method::BaseBackup => {
            ctx.out.line(&format!("what only the old primary had cannot be read: {e}"));
            None
        }
        Err(e) => return Err(e.hint("its files are unchanged; --method base-backup keeps them beside the new ones")),
    };
    if let Some((orphans, folder)) = &orphans {
        facts.extend(measured(ctx, orphans, folder));
    }
    check_cancel(&ctx.cancel, "the old primary is fenced, its files are unchanged")?;
    let how = bring(ctx, args, &old, &new).await?;
    let started = old.clone();
    blocking(move || started.start(LIMIT)).await?;
    let at = primary(ctx)?;
    let there = follows(ctx, &at, &mut c).await?;
    facts.push(Event::StandbyRebuilt { identity: there.clone(), how: how.into() });
    let transactions = orphans.as_ref().map(|(o, _)| o.transactions);
    let json = json!({
        "how": how, "identity": there, "transactions": transactions,
        "rows": orphans.as_ref().map(|(o, _)| &o.new), "changed": orphans.as_ref().map(|(o, _)| &o.changed),
    });
    let lost = match transactions {
        Some(0) => "it had nothing of its own".to_string(),
        Some(n) => format!("{n} transactions that only it had are written out"),
        None => "what only it had is in the files kept beside it".to_string(),
    };
    let done = Done::ok(format!("the old primary follows as a standby ({how}); {lost}"));
    Ok(Done { facts, ..done.json(json) })
}

/// What only the old primary had, and the folder it was written to.
async fn orphans(
    ctx: &Ctx,
    args: &RebuildArgs,
    old: &Instance,
    c: &mut sqlx::PgConnection,
    new: &Identity,
) -> Result<Option<(Orphans, PathBuf)>> {
    if ctx.incident.as_ref().is_some_and(|s| s.facts.rebuilt.is_some()) {
        return Ok(None);
    }
    let fork = rebuild::fork_of(c, new.timeline).await?;
    ctx.out.line(&format!("both went apart at {}, on timeline {}", fork.lsn, fork.timeline));
    let reader = old.clone();
    let apart = blocking(move || rebuild::apart_after(&reader, fork)).await?;
    ctx.out.line(&format!("only the old primary has {} transactions", apart.commits.len()));
    let folder = match &ctx.incident_dir {
        Some(dir) => dir.join(&args.out),
        None => std::path::absolute(&args.out).map_err(|e| Error::usage("--out is not a folder").why(e))?,
    };
    let out = rebuild::write_orphans(old, &database_name(ctx), &room(ctx, old), &apart, &folder).await?;
    for (table, n) in &out.new {
        ctx.out.line(&format!("{table}: {n} rows, written to {}", folder.display()));
    }
    Ok(Some((out, folder)))
}

/// The loss, counted.
fn measured(ctx: &Ctx, orphans: &Orphans, folder: &std::path::Path) -> Vec<Event> {
    let standby = ctx.incident.as_ref().and_then(|s| s.facts.standby.as_ref()).and_then(|s| s.last_commit);
    let window = orphans.last.zip(standby).map_or(Duration::ZERO, |(last, had)| last.since(had));
    let loss = Loss {
        window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
        transactions: Some(orphans.transactions),
        rows: orphans.new.clone(),
        at_most: false,
    };
    let mut facts = vec![Event::LossMeasured { loss }];
    if !orphans.files.is_empty() {
        let mut rows = orphans.new.clone();
        for (table, n) in &orphans.changed {
            *rows.entry(table.clone()).or_default() += n;
        }
        let folder = folder.display().to_string();
        facts.push(Event::SalvageWritten { folder, rows, files: orphans.files.clone() });
    }
    facts
}

/// Where the old primary is opened for reading.
fn room(ctx: &Ctx, old: &Instance) -> PathBuf {
    let beside = || old.layout.data.parent().unwrap_or(&old.layout.data).join("breakglass");
    instances_dir(ctx, None).unwrap_or_else(|_| beside()).join("old")
}

async fn bring(ctx: &Ctx, args: &RebuildArgs, old: &Instance, new: &Database) -> Result<&'static str> {
    if args.method != Method::BaseBackup {
        rebuild::settle(old, &room(ctx, old)).await?;
        match rebuild::rewind(old, new, &mut |l| ctx.out.line(l)).await {
            Ok(()) => return Ok("pg_rewind"),
            Err(e) if args.method == Method::Rewind => return Err(e),
            Err(e) => ctx.out.line(&format!("{e}: a new base backup is taken instead")),
        }
    }
    let stamp = format!("before-{}", now().compact());
    let kept = rebuild::base_backup(old, new, &stamp).await?;
    ctx.out.line(&format!("its old files are kept in {}", kept.display()));
    Ok("base backup")
}

/// Sees that it is a standby and streams.
async fn follows(ctx: &Ctx, at: &Database, primary: &mut sqlx::PgConnection) -> Result<Identity> {
    let streaming = wait_streaming(primary, 1, &ctx.cancel).await?;
    let mut c = at.connect().await?;
    let id = identity(&mut c, at).await?;
    expected(ctx, &id, false)?;
    if !id.in_recovery {
        return Err(Error::target(format!("{at} takes writes")).why("it must be a standby").hint("fence it at once"));
    }
    if streaming == 0 {
        return Err(Error::target("the standby does not stream").hint("look at its log: the connection or its rules"));
    }
    ctx.out.line(&format!("{at} streams"));
    Ok(id)
}

#[derive(Debug, Clone, clap::Args)]
struct BackArgs {
    /// How long health must be good afterwards
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "3s")]
    good_for: Duration,
    /// Wait at most this long for good health
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    wait: Duration,
}

/// `failover back`.
pub struct Back;

impl Action for Back {
    fn spec(&self) -> Spec {
        Spec {
            name: "failover back",
            about: "Go home without loss: stop writes, wait for the standby, stop the primary, promote, route, follow",
            risk: Risk::Destroy,
            fallback: "Stop writes; stop the primary cleanly; compare its last checkpoint with what the standby received; touch \
                       standby.signal on it; SELECT pg_promote() on the standby; send traffic there; start the other one.",
        }
    }
    fn arguments(&self) -> Command {
        BackArgs::augment_args(Command::new("back"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let from = reach::database(ctx)?;
            let to = primary(ctx)?;
            let (_, id) = seen(ctx, &from).await?;
            let mut c = to.connect().await?;
            let s = standing(&mut c, &to).await?;
            let mut lines = vec![
                format!(
                    "{to} has received up to {}, {}",
                    s.received,
                    if s.receiving { "streaming" } else { "NOT STREAMING" }
                ),
                "writes stop for some seconds; none is lost".into(),
                format!("stops {from} cleanly, waits until {to} has everything, promotes it"),
                "sends the traffic there; the other one follows as the standby".into(),
            ];
            if local_instance(&id).is_none() {
                lines.push("the primary does not run on this machine: it cannot be stopped from here".into());
            }
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: id.clone() }];
            Ok(Preview { lines, target: Some(id), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { back(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

async fn back(ctx: &Ctx, args: &BackArgs) -> Result<Done> {
    let (from, to) = (reach::database(ctx)?, primary(ctx)?);
    let (c, id) = seen(ctx, &from).await?;
    drop(c);
    let elsewhere = || Error::target("the present primary does not run on this machine").hint("run this where it runs");
    let there = id.data_directory.clone().filter(|_| local_instance(&id).is_some()).ok_or_else(elsewhere)?;
    let leaving = instance_on(&PathBuf::from(there))?;
    let mut standby = to.connect().await?;
    let before = standing(&mut standby, &to).await?;
    expected(ctx, &before.identity, false)?;
    if !before.identity.in_recovery || !before.receiving {
        return Err(Error::refused(format!("{to} does not stream from the present primary"))
            .why("going there would lose what it does not have")
            .hint("rebuild it first (failover rebuild)"));
    }
    let maintenance = |word: &str| -> Vec<String> {
        ctx.settings.service.maintenance.iter().map(|w| w.replace("{state}", word)).collect()
    };
    service_command(ctx, &maintenance("on"), LIMIT).await?;
    ctx.out.line("writes are off");
    let result = swap(ctx, &leaving, &from, &to, &mut standby).await;
    let lifted = service_command(ctx, &maintenance("off"), LIMIT).await;
    let now = result?;
    lifted?;
    ctx.out.line("writes are on");
    let follower = leaving.clone();
    rebuild::follow(&leaving, &to)?;
    blocking(move || follower.start(LIMIT)).await?;
    let streaming = wait_streaming(&mut standby, 1, &ctx.cancel).await?;
    let mut facts = vec![
        Event::TargetSeen { role: "source".into(), identity: now.clone() },
        Event::Promoted { identity: now.clone(), kept: leaving.layout.data.display().to_string() },
    ];
    let mut healthy = true;
    if let Some(url) = &ctx.settings.service.health_url {
        let seen = wait_healthy(url, args.good_for, args.wait, &*Follow::new(ctx), &ctx.cancel).await?;
        ctx.out.line(&seen.describe());
        healthy = seen.healthy;
        facts.push(Event::HealthSeen { healthy, components: seen.components });
    }
    let mut follower = from.connect().await?;
    let follows = identity(&mut follower, &from).await?;
    facts.push(Event::StandbyRebuilt { identity: follows, how: "switchover".into() });
    let json = json!({"identity": now, "streaming": streaming, "healthy": healthy});
    let summary =
        format!("{} is home on {}:{}, timeline {}, nothing is lost", now.database, now.host, now.port, now.timeline);
    let done = match (healthy, streaming) {
        (true, 1..) => Done::ok(summary),
        (true, _) => Done::check_failed(format!("{summary}; the other one does not stream yet")),
        (false, _) => Done::check_failed(format!("{summary}; health is not good yet")),
    };
    Ok(Done { facts, ..done.json(json) })
}

/// Stops the one, proves that the other has everything, promotes it, sends the traffic there.
async fn swap(
    ctx: &Ctx,
    leaving: &Instance,
    from: &Database,
    to: &Database,
    standby: &mut sqlx::PgConnection,
) -> Result<Identity> {
    // A clean stop waits until its standby has received the last checkpoint; marked first, so that it cannot come back.
    let stopped = leaving.clone();
    for line in blocking(move || close_local(&stopped)).await? {
        ctx.out.line(&line);
    }
    let has_all = async {
        let control = Control::read(&leaving.programs, &leaving.layout.data, leaving.user.as_ref())?;
        if control.state != "shut down" {
            return Err(Error::target("the present primary did not stop cleanly").why(control.state));
        }
        let seen = standing(standby, to).await?;
        match seen.received > control.checkpoint {
            true => Ok((control.checkpoint, seen.received)),
            false => Err(Error::check("the standby does not have everything")
                .why(format!("the last checkpoint is at {}, it received up to {}", control.checkpoint, seen.received))),
        }
    }
    .await;
    match has_all {
        Ok((last, received)) => ctx.out.line(&format!("{to} has everything: {received}, the last record is at {last}")),
        Err(e) => {
            // Nothing was promoted: the one that was stopped is still the right one.
            let _ = std::fs::remove_file(leaving.layout.data.join("standby.signal"));
            let again = leaving.clone();
            blocking(move || again.start(LIMIT)).await?;
            return Err(e.hint("the primary was started again; traffic stays where it is"));
        }
    }
    for proof in prove_closed(from, Duration::from_secs(1), &ctx.cancel).await? {
        ctx.out.line(&format!("proof: {proof}"));
    }
    let now = promote_standby(standby, to).await?;
    ctx.out.line(&format!("promoted: timeline {}", now.timeline));
    send_to(ctx, to).await?;
    ctx.out.line(&format!("traffic goes to {to}"));
    Ok(now)
}
