//! `breach suspects|isolate|trace|rotate`: who is inside, locked out, what they did, and every secret they could have read.

use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::PgConnection;

use super::contain::{service_command, shown};
use super::offered::remember_acts;
use super::pitr_locate::{range_fact, range_now};
use super::target::{Follow, now, parse_args, seen};
use super::{Action, Ctx, Done, Preview, Spec, contain_chain, reach};
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::target::{Candidate, Loss, RecoveryTarget};
use crate::model::{Plan, Time};
use crate::plan::secrets::{SecretRow, table};
use crate::postgres::connect::{query_error, quote_ident, run as sql};
use crate::recovery::archived::archive_now;
use crate::recovery::intruder::{Act, acts, marks, suspects, trail_name};
use crate::recovery::locate::last_commit;

/// How long a configured command may take.
const LIMIT: Duration = Duration::from_secs(300);

/// From when on something counts as new: the earliest moment that can be recovered to, else a day.
async fn from(ctx: &Ctx) -> Result<(Time, Option<Event>)> {
    let span = range_now(ctx, None).await?;
    let day = now().minus(Duration::from_secs(24 * 3600));
    let fact = span.as_ref().map(range_fact);
    Ok((span.and_then(|s| s.earliest).map_or(day, |e| e.max(day)), fact))
}

#[derive(Debug, Clone, Default, clap::Args)]
struct RoleArgs {
    /// Role; the suspects found before by default; as often as needed
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
}

/// The roles that are meant.
fn roles(ctx: &Ctx, args: &RoleArgs) -> Result<Vec<String>> {
    let known = ctx.incident.as_ref().map(|s| s.facts.intruders.clone()).unwrap_or_default();
    let wanted = if args.roles.is_empty() { known } else { args.roles.clone() };
    if wanted.is_empty() {
        return Err(Error::usage("which roles are the intruder's is not known")
            .hint("find them with breakglass breach suspects, or name them with --role"));
    }
    Ok(wanted)
}

/// `breach suspects`.
pub struct Suspects;

impl Action for Suspects {
    fn spec(&self) -> Spec {
        Spec {
            name: "breach suspects",
            about: "Roles that are not the application's and that changed rows, or were made or changed lately",
            risk: Risk::Read,
            fallback: "SELECT rolname, pg_xact_commit_timestamp(xmin) FROM pg_authid; pg_stat_activity by usename; the audit log.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("suspects")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            Ok(Preview { lines: vec![format!("reads {}", reach::database(ctx)?)], ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let (mut c, id) = seen(ctx, &reach::database(ctx)?).await?;
            let (since, _) = from(ctx).await?;
            let found = suspects(&mut c, since, &ctx.settings.service.roles).await?;
            ctx.out.line(&format!("since {} UTC, the earliest moment that can be recovered to:", since.date_hms()));
            let findings: Vec<String> = found.iter().map(|s| s.why()).collect();
            findings.iter().for_each(|f| ctx.out.line(f));
            let roles: Vec<String> = found.iter().map(|s| s.role.clone()).collect();
            let json = json!({"since": since, "roles": roles, "findings": findings});
            let done = match roles.is_empty() {
                true => Done::check_failed("no role stands out"),
                false => Done::ok(format!("suspect: {}", roles.join(", "))),
            };
            Ok(done
                .fact(Event::TargetSeen { role: "source".into(), identity: id })
                .fact(Event::IntrudersSuspected { roles, findings })
                .json(json))
        })
    }
}

/// `breach isolate`.
pub struct Isolate;

async fn count(c: &mut PgConnection, roles: &[String]) -> Result<i64> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usename = ANY ($1)";
    sqlx::query_scalar(sql).bind(roles).fetch_one(c).await.map_err(|e| query_error(sql, &e))
}

impl Action for Isolate {
    fn spec(&self) -> Spec {
        Spec {
            name: "breach isolate",
            about: "Service off, the suspects cannot log in, their sessions end, the log is archived",
            risk: Risk::Change,
            fallback: "ALTER ROLE … NOLOGIN; then SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '…'; \
                       SELECT pg_switch_wal().",
        }
    }
    fn arguments(&self) -> Command {
        RoleArgs::augment_args(Command::new("isolate"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let roles = roles(ctx, &parse_args(self.arguments(), args)?)?;
            let (mut c, id) = seen(ctx, &reach::database(ctx)?).await?;
            let sessions = count(&mut c, &roles).await?;
            let mut lines = Vec::new();
            match ctx.incident.as_ref().and_then(|s| s.facts.evidence_after_isolation) {
                Some(_) => {}
                None => {
                    lines.push("WARNING: no evidence was collected; what the sessions know is lost with them".into())
                }
            }
            let stop = &ctx.settings.service.maintenance;
            if !stop.is_empty() {
                lines.push("switches maintenance mode on".into());
            }
            lines.push(format!("takes the login of {}", roles.join(", ")));
            lines.push(format!("ends {sessions} sessions"));
            lines.push("switches the log and waits until it is archived".into());
            lines.push("undo: ALTER ROLE … LOGIN, only after the password was changed".into());
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: id.clone() }];
            Ok(Preview { lines, target: Some(id), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { isolate(ctx, &roles(ctx, &parse_args(self.arguments(), args)?)?).await })
    }
}

async fn isolate(ctx: &Ctx, roles: &[String]) -> Result<Done> {
    let (mut c, id) = seen(ctx, &reach::database(ctx)?).await?;
    maintenance(ctx, "on").await?;
    for role in roles {
        // First no new session, then the old ones: the other way round they come back in between.
        sql(&mut c, &format!("ALTER ROLE {} NOLOGIN", quote_ident(role))).await?;
        ctx.out.line(&format!("{role} cannot log in"));
    }
    let mut ended = 0_i64;
    let begun = std::time::Instant::now();
    loop {
        let end = "SELECT count(*) FILTER (WHERE pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity \
                   WHERE usename = ANY ($1)";
        let n: i64 = sqlx::query_scalar(end).bind(roles).fetch_one(&mut c).await.map_err(|e| query_error(end, &e))?;
        ended = ended.max(n);
        let left = count(&mut c, roles).await?;
        if left == 0 {
            break;
        }
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(
                Error::target(format!("{left} sessions do not end")).hint("stop their hosts, then isolate again")
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ctx.out.line(&format!("{ended} sessions ended, none is left"));
    let mut done = vec![format!("locked out: {}", roles.join(", ")), format!("{ended} sessions ended")];
    let archived = archive_now(&mut c, Duration::from_secs(120), &*Follow::new(ctx), &ctx.cancel).await;
    let mut summary = format!("{} locked out, {ended} sessions ended", roles.join(", "));
    let stored = archived.as_ref().ok().map(|a| a.lsn.to_string());
    let archived_lsn = match archived {
        Ok(a) => {
            done.push(format!("log archived up to {}", a.lsn));
            ctx.out.line(&format!("log archived up to {}", a.lsn));
            match contain_chain::broken(ctx, &mut c, &a.segment).await {
                None => Some(a.lsn.to_string()),
                // Stored by the server's word, and no recovery gets there.
                Some(why) => {
                    ctx.out.line(&format!("WARNING: {why}"));
                    done.push(format!("WARNING: {why}"));
                    summary.push_str(&format!(", {}", contain_chain::leads_not(&a.lsn.to_string(), &why)));
                    None
                }
            }
        }
        Err(e) => {
            ctx.out.line(&format!("the log is not archived: {e}"));
            summary.push_str(", but the log is not archived: what happened last may be lost");
            None
        }
    };
    let sessions = u64::try_from(ended).unwrap_or(0);
    let json = json!({
        "roles": roles, "sessions": sessions, "archived": stored, "recoverable": archived_lsn.is_some(),
    });
    Ok(Done::ok(summary)
        .fact(Event::TargetSeen { role: "source".into(), identity: id })
        .fact(Event::IntrudersIsolated { roles: roles.to_vec(), sessions })
        .fact(Event::BleedingStopped { done, archived_lsn })
        .json(json))
}

/// Switches maintenance mode, where a command for it is configured.
pub(super) async fn maintenance(ctx: &Ctx, word: &str) -> Result<()> {
    let argv: Vec<String> = ctx.settings.service.maintenance.iter().map(|w| w.replace("{state}", word)).collect();
    if argv.is_empty() {
        return Ok(());
    }
    service_command(ctx, &argv, LIMIT).await?;
    ctx.out.line(&format!("maintenance mode is {word}"));
    Ok(())
}

/// `breach trace`.
pub struct Trace;

impl Action for Trace {
    fn spec(&self) -> Spec {
        Spec {
            name: "breach trace",
            about: "What the suspects did: their transactions, tables and objects; the moment before the first of them",
            risk: Risk::Read,
            fallback: "Rows of the audit log by actor, xmin of pg_authid, pg_proc and pg_trigger with pg_xact_commit_timestamp; then \
                       breakglass pitr locate.",
        }
    }
    fn arguments(&self) -> Command {
        RoleArgs::augment_args(Command::new("trace"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let roles = roles(ctx, &parse_args(self.arguments(), args)?)?;
            let lines = vec![format!("reads what {} did in {}", roles.join(", "), reach::database(ctx)?)];
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { trace(ctx, &roles(ctx, &parse_args(self.arguments(), args)?)?).await })
    }
}

async fn trace(ctx: &Ctx, roles: &[String]) -> Result<Done> {
    let (mut c, id) = seen(ctx, &reach::database(ctx)?).await?;
    let (since, range) = from(ctx).await?;
    let mut acts = acts(&mut c, since, roles).await?;
    // Taking their login changed their roles, too: that was us, and says nothing of when they were made.
    if let Some(ours) = isolated_from(ctx) {
        acts.retain(|a| a.at < ours || !a.what.split(", ").all(|what| what.starts_with("role ")));
    }
    let last = last_commit(&mut c).await?.unwrap_or_else(now);
    let Some(first) = acts.first() else {
        return Ok(Done::check_failed(format!(
            "nothing was done by {} since {} UTC",
            roles.join(", "),
            since.date_hms()
        )));
    };
    let xids: Vec<u32> = acts.iter().map(|a| a.xid).collect();
    let trail = trail_name(&mut c).await?;
    let mut rows = marks(&mut c, &xids, trail.as_deref()).await?;
    // Rows that are gone leave no mark; the log knows them.
    for (table, gone) in super::log_suspects::gone(ctx, since, id.timeline, &xids).await {
        *rows.entry(table).or_default() += gone;
    }
    for act in acts.iter().filter(|a| a.what != "rows, by the audit log") {
        ctx.out.line(&format!("{} UTC  transaction {}: {}", act.at.hms(), act.xid, act.what));
    }
    for line in roles.iter().filter_map(|role| birth(ctx, role, &acts)) {
        ctx.out.line(&line);
    }
    for (table, n) in &rows {
        ctx.out.line(&format!("{table}: {n} rows"));
    }
    let target = RecoveryTarget::Xid(first.xid.to_string());
    let tables: Vec<String> = rows.keys().cloned().collect();
    let what = format!("{} transactions of {}", acts.len(), roles.join(", "));
    remember_acts(ctx, &target, &xids)?;
    let candidate = Candidate {
        target: target.clone(),
        at: first.at,
        xid: Some(first.xid.to_string()),
        lsn: None,
        tables: tables.clone(),
        rows: rows.values().sum(),
        what: what.clone(),
        loses: Loss {
            window_ms: u64::try_from(last.since(first.at).as_millis()).unwrap_or(u64::MAX),
            at_most: true,
            ..Loss::default()
        },
    };
    let findings: Vec<String> = acts.iter().map(|a| format!("{} {}: {}", a.at.hms(), a.xid, a.what)).collect();
    let json = json!({"roles": roles, "xids": xids, "rows": rows, "first": first.at, "target": target.to_string()});
    let facts = [Event::TargetSeen { role: "source".into(), identity: id }]
        .into_iter()
        .chain(range)
        .chain([Event::DamageAssessed { findings, rows }, Event::MomentsFound { candidates: vec![candidate] }]);
    let summary = format!("{what}, the first at {} UTC; touched: {}", first.at.hms(), tables.join(", "));
    Ok(Done { facts: facts.collect(), ..Done::ok(summary).json(json) })
}

/// What is known of when a role was made, where its own row does not say it any more: our lock-out wrote that anew.
fn birth(ctx: &Ctx, role: &str, acts: &[Act]) -> Option<String> {
    let own = format!("role {role}");
    if acts.iter().any(|a| a.what.split(", ").any(|what| what == own)) {
        return None;
    }
    let findings = &ctx.incident.as_ref()?.facts.intruder_findings;
    let seen = findings.iter().find(|f| f.split_whitespace().next() == Some(role));
    let at = seen.map(|f| f.split(", ").find_map(|part| part.split_once("made or changed at ")).map(|(_, at)| at));
    Some(match at {
        Some(Some(at)) => {
            format!("role {role}: made or changed at {at}, as breach suspects saw it before the lock-out")
        }
        Some(None) => {
            format!("role {role}: is older than what can be recovered, as breach suspects saw it before the lock-out")
        }
        None => format!("role {role}: not known when it was made: the lock-out changed it, and nobody looked before"),
    })
}

/// When we began to lock them out, as far as the incident knows.
fn isolated_from(ctx: &Ctx) -> Option<Time> {
    let runs = &ctx.incident.as_ref()?.runs;
    runs.values().filter(|r| r.action == "breach isolate").map(|r| r.requested.recorded).min()
}

fn plan_of(ctx: &Ctx) -> Option<Plan> {
    let (state, dir) = (ctx.incident.as_ref()?, ctx.incident_dir.as_ref()?);
    let text = std::fs::read_to_string(dir.join("plan").join(state.plan.as_str()).join("plan.json")).ok()?;
    serde_json::from_str(&text).ok()
}

/// Every secret that is known of: the plan's table, then what only the configuration has.
fn secrets(ctx: &Ctx) -> Vec<SecretRow> {
    let mut all = plan_of(ctx).map(|p| table(&p)).unwrap_or_default();
    for name in ctx.settings.breach.rotate.keys() {
        if !all.iter().any(|s| s.name == *name) {
            all.push(SecretRow { name: name.clone(), ..SecretRow::default() });
        }
    }
    all
}

/// `breach rotate`.
pub struct Rotate;

impl Action for Rotate {
    fn spec(&self) -> Spec {
        Spec {
            name: "breach rotate",
            about: "Replace every secret of the plan's table; what has no command is named, to be done by hand",
            risk: Risk::Change,
            fallback: "Work through the table of secrets of the plan from top to bottom; mind the impact.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("rotate")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let mut lines = Vec::new();
            for s in secrets(ctx) {
                let how = match ctx.settings.breach.rotate.get(&s.name) {
                    Some(argv) => format!("runs {}", shown(argv)),
                    None => format!("BY HAND: {}", s.how),
                };
                lines.push(format!("{}: {how}", s.name));
                if !s.impact.is_empty() {
                    lines.push(format!("  impact: {}", s.impact));
                }
            }
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let all = secrets(ctx);
            if all.is_empty() {
                return Err(Error::config("no secret is known of")
                    .hint("write a table of secrets into the plan (docs/plans.md)"));
            }
            let (mut done, mut left) = (Vec::new(), Vec::new());
            for s in &all {
                let impact = if s.impact.is_empty() { "impact not stated" } else { &s.impact };
                match ctx.settings.breach.rotate.get(&s.name) {
                    Some(argv) => match service_command(ctx, argv, LIMIT).await {
                        Ok(()) => {
                            ctx.out.line(&format!("{}: rotated ({impact})", s.name));
                            done.push(s.name.clone());
                        }
                        Err(e) => {
                            ctx.out.line(&format!("{}: NOT rotated: {e}", s.name));
                            left.push(s.name.clone());
                        }
                    },
                    None => {
                        ctx.out.line(&format!("{}: by hand: {} ({impact})", s.name, s.how));
                        left.push(s.name.clone());
                    }
                }
            }
            let json = json!({"done": done, "left": left});
            let summary = match left.is_empty() {
                true => format!("all {} secrets are rotated", done.len()),
                false => format!("{} rotated, still to do: {}", done.len(), left.join(", ")),
            };
            let result = if left.is_empty() { Done::ok(summary) } else { Done::check_failed(summary) };
            let at = now();
            let mut facts: Vec<Event> = done.into_iter().map(|secret| Event::SecretRotated { secret, at }).collect();
            facts.push(Event::RotationEnded { left });
            Ok(Done { facts, ..result.json(json) })
        })
    }
}
