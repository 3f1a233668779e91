//! `breakglass contain`: stop the bleeding. Writes off, the faulty release stopped, the log switched and archived.
//!
//! In this order: the release first, so that nothing is in flight; then writes off for everybody; then the sessions of the
//! application end, so that the new default holds; then the log is switched and its arrival in the archive waited for.

use std::time::{Duration, Instant};

use clap::{Args as _, Command};
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::target::{Follow, parse_args};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::model::format_clock;
use crate::model::plan::Risk;
use crate::postgres::connect::{query_error, quote_ident, run};
use crate::process::{ChildSpec, RunOptions, capture};
use crate::recovery::exposure;
use crate::recovery::watch::{Phase, Watch as _, check_cancel};

/// How long the last segment may take to arrive in the archive.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(120);
/// How long the release's stop command may take.
const STOP_PATIENCE: Duration = Duration::from_secs(120);

/// The action.
pub struct Contain;

#[derive(Debug, Clone, Copy, clap::Args)]
struct Args {
    /// Stop what does the damage, but let everybody else go on writing
    #[arg(long)]
    keep_writes: bool,
}

impl Action for Contain {
    fn spec(&self) -> Spec {
        Spec {
            name: "contain",
            about: "Stop the bleeding: the faulty release stopped, writes off, the log switched and archived",
            risk: Risk::Change,
            fallback: "Stop the release; ALTER DATABASE … SET default_transaction_read_only = on; end its sessions with \
                       pg_terminate_backend; SELECT pg_switch_wal() and wait for pg_stat_archiver.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("contain"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let at = reach::database(ctx)?;
            let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(10)).await?;
            let identity = crate::postgres::identity(&mut c, &at).await?;
            let sessions = sessions(&mut c, &ctx.settings.service.roles).await?;
            let stop = &ctx.settings.service.release_stop;
            let mut lines = vec![
                match stop.is_empty() {
                    true => {
                        "no stop command is configured (service.release_stop): stop the release yourself first".into()
                    }
                    false => format!("runs {}", shown(stop)),
                },
                "switches the log and waits until the last segment is archived".into(),
            ];
            if args.keep_writes {
                lines.push(match writes_off(&mut c).await? {
                    false => "writes stay on, no session ends".into(),
                    true => format!("turns writes of {:?} on again, which a containment turned off", identity.database),
                });
            } else {
                lines.insert(1, format!("makes every new transaction of {:?} read-only", identity.database));
                lines.insert(2, format!("ends {sessions} sessions of the application"));
                lines.push("undo: breakglass contain --keep-writes".into());
            }
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: identity.clone() }];
            Ok(Preview { lines, target: Some(identity), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { contain(ctx, parse_args(self.arguments(), args)?).await })
    }
}

async fn contain(ctx: &Ctx, args: Args) -> Result<Done> {
    let at = reach::database(ctx)?;
    let mut c = at.connect().await?;
    let identity = crate::postgres::identity(&mut c, &at).await?;
    super::target::expected(ctx, &identity, true)?;
    let mut done = Vec::new();
    let mut say = |text: String| {
        ctx.out.line(&text);
        done.push(text);
    };
    let stop = &ctx.settings.service.release_stop;
    if stop.is_empty() {
        say("no stop command is configured: the release was not stopped by us".into());
    } else {
        service_command(ctx, stop, STOP_PATIENCE).await?;
        say(format!("release stopped: {}", shown(stop)));
    }
    check_cancel(&ctx.cancel, "the release is stopped, writes are as they were")?;
    let database = quote_ident(&identity.database);
    let was_off = writes_off(&mut c).await?;
    let writes = match (args.keep_writes, was_off) {
        (false, _) => "writes are off",
        (true, true) => "writes are on again",
        (true, false) => "writes stay on",
    };
    if args.keep_writes {
        if was_off {
            run(&mut c, "SET default_transaction_read_only = off").await?;
            run(&mut c, &format!("ALTER DATABASE {database} RESET default_transaction_read_only")).await?;
        }
        say(writes.into());
    } else {
        // A second containment finds itself read-only by the first.
        run(&mut c, "SET default_transaction_read_only = off").await?;
        run(&mut c, &format!("ALTER DATABASE {database} SET default_transaction_read_only = on")).await?;
        let ended = end_sessions(&mut c, &ctx.settings.service.roles).await?;
        say(format!("writes off: new transactions of {:?} are read-only, {ended} sessions ended", identity.database));
        ctx.out.line("to turn them on again: breakglass contain --keep-writes");
    }
    let lsn = switch(&mut c).await?;
    let archived = wait_archived(ctx, &mut c, &lsn).await;
    let mut facts = vec![Event::TargetSeen { role: "source".into(), identity }];
    if let Ok(Some(e)) = exposure::measure(&mut c, &exposure::held_in(&ctx.settings)).await {
        facts.push(e.fact());
    }
    let (summary, archived_lsn) = match &archived {
        Ok(segment) => {
            say(format!("log archived up to {lsn} (segment {segment})"));
            match super::contain_chain::broken(ctx, &mut c, segment).await {
                None => (format!("{writes}, everything committed until {lsn} can be recovered"), Some(lsn.clone())),
                // Stored by the server's word, and no recovery gets there.
                Some(why) => {
                    say(format!("WARNING: {why}"));
                    (format!("{writes}, {}", super::contain_chain::leads_not(&lsn, &why)), None)
                }
            }
        }
        Err(e) => {
            // The bleeding is stopped all the same; the responder has to know that the tail is not safe yet.
            say(format!("the log up to {lsn} is not archived: {}", e.why));
            (format!("{writes}, but the log up to {lsn} is not archived: the loss may grow"), None)
        }
    };
    let recoverable = archived_lsn.is_some();
    facts.push(Event::BleedingStopped { done: done.clone(), archived_lsn });
    let document = json!({
        "done": done, "lsn": lsn, "archived": archived.is_ok(), "recoverable": recoverable,
    });
    Ok(Done { facts, ..Done::ok(summary).json(document) })
}

/// Whether new transactions of the database are read-only, as a containment leaves them, whatever this session is.
pub(super) async fn writes_off(c: &mut PgConnection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
               WHERE d.datname = current_database() AND s.setrole = 0 AND 'default_transaction_read_only=on' = ANY (s.setconfig))";
    sqlx::query_scalar(sql).fetch_one(c).await.map_err(|e| query_error(sql, &e))
}

const APPLICATION_SESSIONS: &str = "backend_type = 'client backend' AND datname = current_database() \
     AND pid <> pg_backend_pid() AND (cardinality($1::text[]) = 0 OR usename = ANY ($1::text[]))";

async fn sessions(c: &mut PgConnection, roles: &[String]) -> Result<i64> {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {APPLICATION_SESSIONS}");
    sqlx::query_scalar(&sql).bind(roles).fetch_one(c).await.map_err(|e| query_error(&sql, &e))
}

/// Ends the application's sessions and waits until they are gone.
async fn end_sessions(c: &mut PgConnection, roles: &[String]) -> Result<i64> {
    let sql = format!(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {APPLICATION_SESSIONS}"
    );
    let ended: i64 =
        sqlx::query_scalar(&sql).bind(roles).fetch_one(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
    let begun = Instant::now();
    loop {
        // New sessions may come back at once; they are read-only. Only writers from before matter.
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE {APPLICATION_SESSIONS} AND backend_xid IS NOT NULL");
        let left: i64 =
            sqlx::query_scalar(&sql).bind(roles).fetch_one(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
        if left == 0 {
            return Ok(ended);
        }
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(Error::target(format!("{left} sessions of the application still write after 30 s"))
                .why("they were told to end and did not")
                .hint("look at pg_stat_activity; stop the application's hosts"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Switches the log and returns the position everything until now lies before.
async fn switch(c: &mut PgConnection) -> Result<String> {
    let sql = "SELECT pg_switch_wal()::text AS lsn";
    sqlx::query_scalar(sql).fetch_one(c).await.map_err(|e| query_error(sql, &e))
}

/// Waits until the segment holding `lsn` is archived; returns its name.
async fn wait_archived(ctx: &Ctx, c: &mut PgConnection, lsn: &str) -> Result<String> {
    let begun = Instant::now();
    let follow = Follow::new(ctx);
    // An archived name may be a history or backup label file; those sort in between and are not segments.
    let sql = "SELECT s.name, coalesce(left(a.last_archived_wal, 24) >= s.name AND a.last_archived_wal ~ '^[0-9A-F]{24}$', false) AS there, \
               current_setting('archive_mode') = 'off' AS off, \
               CASE WHEN a.last_failed_time > coalesce(a.last_archived_time, '-infinity') THEN a.last_failed_wal END AS failed \
               FROM pg_stat_archiver a, (SELECT pg_walfile_name($1::text::pg_lsn) AS name) s";
    loop {
        check_cancel(&ctx.cancel, "the log may not be archived yet; the rest is done")?;
        let row = sqlx::query(sql).bind(lsn).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
        let name: String = row.get("name");
        if row.get("there") {
            return Ok(name);
        }
        let not = || Error::target(format!("segment {name} is not archived"));
        if row.get("off") {
            return Err(not().why("archive_mode is off"));
        }
        if begun.elapsed() > ARCHIVE_PATIENCE {
            let failed: Option<String> = row.get("failed");
            return Err(not().why(match failed {
                Some(f) => format!("the archiver fails at {f}; its error is in the server's log"),
                None => format!("not archived after {} s", ARCHIVE_PATIENCE.as_secs()),
            }));
        }
        let left = format_clock(ARCHIVE_PATIENCE.saturating_sub(begun.elapsed()));
        let text = format!("waiting until segment {name} is archived, at most {left} more");
        follow.phase(&Phase { name: "archive", text, ..Phase::default() });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs one of the service's configured commands without a shell; its output goes to the run's.
pub(super) async fn service_command(ctx: &Ctx, argv: &[String], limit: Duration) -> Result<()> {
    let Some((program, args)) = argv.split_first() else { return Ok(()) };
    let mut spec = ChildSpec::new(program).args(args).inherit_env();
    if let Some(lock) = &ctx.children_lock {
        spec = spec.pass_fd(std::os::fd::AsFd::as_fd(&**lock));
    }
    let options = RunOptions { timeout: Some(limit), cancel: ctx.cancel.clone(), ..RunOptions::default() };
    let captured = capture(&spec, &options).await?;
    let text = captured.text();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        ctx.out.line(line);
    }
    captured.ok(&spec).map(|_| ())
}

/// A command as a person would type it.
pub(super) fn shown(argv: &[String]) -> String {
    argv.iter().map(|w| crate::process::spawn::quoted(w.as_ref())).collect::<Vec<_>>().join(" ")
}
