//! `breach clean|verify|reopen`: what the intruder left in the catalogue is taken away, shown to be gone, and the doors open.

use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;
use serde_json::json;
use sqlx::PgConnection;

use super::breach::maintenance;
use super::target::{Follow, blocking, database_name, parse_args, seen, shadow};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Error, Result};
use crate::model::event::{Check, Event, Verdict};
use crate::model::parse_duration;
use crate::model::plan::Risk;
use crate::model::target::Loss;
use crate::postgres::connect::{query_error, run as sql};
use crate::recovery::health::wait_healthy;
use crate::recovery::intruder::{Leftover, leftovers, marks, objects, trail_name};
use crate::recovery::tables::user_tables;
use crate::recovery::verify;
use crate::recovery::verify::constraints::check_constraints;

/// Differences of the live catalogue from the clean copy.
async fn compare(ctx: &Ctx, live: &mut PgConnection) -> Result<Vec<Leftover>> {
    let work = ctx.clone();
    let s = blocking(move || shadow(&work, None)).await?;
    let mut there = s.database(&database_name(ctx))?.connect().await?;
    let clean = objects(&mut there).await?;
    Ok(leftovers(&objects(live).await?, &clean))
}

/// `breach clean`.
pub struct Clean;

impl Action for Clean {
    fn spec(&self) -> Spec {
        Spec {
            name: "breach clean",
            about: "Take away roles, memberships, functions, triggers and extensions that the clean copy does not have",
            risk: Risk::Change,
            fallback: "Compare pg_authid, pg_auth_members, pg_proc, pg_trigger and pg_extension with the clean copy; DROP what is new.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("clean")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let (mut c, id) = seen(ctx, &reach::database(ctx)?).await?;
            let found = compare(ctx, &mut c).await?;
            let mut lines: Vec<String> = found.iter().map(line).collect();
            if lines.is_empty() {
                lines.push("the catalogue is as it was: nothing to take away".into());
            }
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: id.clone() }];
            Ok(Preview { lines, target: Some(id), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(clean(ctx))
    }
}

fn line(l: &Leftover) -> String {
    match &l.cure {
        Some(cure) => format!("{}  →  {cure}", l.what),
        None => format!("{}  →  by hand", l.what),
    }
}

async fn clean(ctx: &Ctx) -> Result<Done> {
    let (mut c, id) = seen(ctx, &reach::database(ctx)?).await?;
    let found = compare(ctx, &mut c).await?;
    sql(&mut c, "SET lock_timeout = '10s'").await?;
    sql(&mut c, "BEGIN").await?;
    let mut gone = Vec::new();
    for l in &found {
        let Some(cure) = &l.cure else { continue };
        sql(&mut c, cure).await.map_err(|e| e.hint("nothing was taken away"))?;
        ctx.out.line(&format!("{}: {cure}", l.what));
        gone.push(l.what.clone());
    }
    sql(&mut c, "COMMIT").await?;
    let left: Vec<String> = compare(ctx, &mut c).await?.iter().map(|l| l.what.clone()).collect();
    left.iter().for_each(|l| ctx.out.line(&format!("LEFT, to be decided by a person: {l}")));
    let json = json!({"taken_away": gone, "left": left});
    let done = match left.is_empty() {
        true => Done::ok(format!("{} things taken away, the catalogue is as it was", gone.len())),
        false => Done::check_failed(format!("{} taken away, {} left: {}", gone.len(), left.len(), left.join(", "))),
    };
    Ok(done.fact(Event::TargetSeen { role: "source".into(), identity: id }).json(json))
}

/// `breach verify`.
pub struct Verify;

impl Action for Verify {
    fn spec(&self) -> Spec {
        Spec {
            name: "breach verify",
            about: "Nothing of the intruder is left: catalogue, sessions, logins, rows, constraints, evidence",
            risk: Risk::Read,
            fallback: "Compare the catalogue with the clean copy; look at pg_stat_activity, pg_roles and pg_hba_file_rules.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("verify")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            Ok(Preview {
                lines: vec![format!("compares {} with the clean copy", reach::database(ctx)?)],
                ..Preview::default()
            })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(check(ctx))
    }
}

async fn check(ctx: &Ctx) -> Result<Done> {
    let (mut c, id) = seen(ctx, &reach::database(ctx)?).await?;
    let mut checks = Vec::new();
    let mut note = |name: &str, verdict: Verdict, detail: String| {
        let mark = match verdict {
            Verdict::Passed => "✓",
            Verdict::Failed => "✗",
            Verdict::NotAvailable => "?",
        };
        ctx.out.line(&format!("{mark} {name:<12} {detail}"));
        checks.push(Check { name: name.into(), verdict, detail });
    };
    let word = |good: bool| if good { Verdict::Passed } else { Verdict::Failed };
    let left: Vec<String> = compare(ctx, &mut c).await?.iter().map(|l| l.what.clone()).collect();
    let detail = if left.is_empty() { "as in the clean copy".into() } else { left.join(", ") };
    note("catalogue", word(left.is_empty()), detail);
    let state = ctx.incident.as_ref();
    let roles = state.map(|s| s.facts.intruders.clone()).unwrap_or_default();
    let query = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usename = ANY ($1)";
    let sessions: i64 =
        sqlx::query_scalar(query).bind(&roles).fetch_one(&mut c).await.map_err(|e| query_error(query, &e))?;
    note("sessions", word(sessions == 0), format!("{sessions} of {}", roles.join(", ")));
    let query = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolcanlogin AND rolname = ANY ($1)";
    let open: Vec<String> =
        sqlx::query_scalar(query).bind(&roles).fetch_all(&mut c).await.map_err(|e| query_error(query, &e))?;
    let detail =
        if open.is_empty() { "no suspect can log in".into() } else { format!("can log in: {}", open.join(", ")) };
    note("logins", word(open.is_empty()), detail);
    let query = "SELECT coalesce(string_agg(format('%s %s %s %s', type, database, user_name, auth_method), '; '), '') \
                 FROM pg_catalog.pg_hba_file_rules WHERE error IS NOT NULL OR (type <> 'local' AND auth_method = 'trust')";
    match sqlx::query_scalar::<_, String>(query).fetch_one(&mut c).await {
        Ok(open) if open.is_empty() => {
            note("rules", Verdict::Passed, "nobody is let in from elsewhere without a secret".into())
        }
        Ok(open) => note("rules", Verdict::Failed, open),
        Err(e) => note("rules", Verdict::NotAvailable, crate::postgres::connect::describe(&e)),
    }
    let xids = super::offered::first_remembered(ctx);
    let trail = trail_name(&mut c).await?;
    let rows = marks(&mut c, &xids, trail.as_deref()).await?;
    let total: u64 = rows.values().sum();
    let detail: Vec<String> = rows.iter().map(|(t, n)| format!("{t} {n}")).collect();
    let detail = if total == 0 { "no row is as the intruder wrote it".into() } else { detail.join(", ") };
    note("rows", word(total == 0), detail);
    let mut v = verify::open(&reach::database(ctx)?, Duration::from_secs(1800)).await?;
    let tables = user_tables(&mut v).await?;
    let constraints = check_constraints(&mut v, &tables, &ctx.cancel).await?;
    note(&constraints.name, constraints.verdict, constraints.detail);
    match state.and_then(|s| s.facts.evidence_after_isolation) {
        Some(false) => note("evidence", Verdict::Passed, "sealed before isolation".into()),
        Some(true) => {
            note("evidence", Verdict::NotAvailable, "sealed only after isolation: the sessions are not in it".into())
        }
        None => note("evidence", Verdict::NotAvailable, "none was collected".into()),
    }
    let bad: Vec<&str> = checks.iter().filter(|c| c.verdict == Verdict::Failed).map(|c| c.name.as_str()).collect();
    let passed = bad.is_empty();
    let done = match passed {
        true => Done::ok("nothing of the intruder is left"),
        false => Done::check_failed(format!("not as it should be: {}", bad.join(", "))),
    };
    let json = json!({"passed": passed, "checks": checks});
    // Nothing went back in time; rows of the intruder were put back one by one.
    let loss = Loss { window_ms: 0, transactions: Some(0), rows: Default::default(), at_most: false };
    Ok(done
        .fact(Event::TargetSeen { role: "source".into(), identity: id })
        .fact(Event::ServiceVerified { passed, checks })
        .fact(Event::LossMeasured { loss })
        .json(json))
}

#[derive(Debug, Clone, clap::Args)]
struct ReopenArgs {
    /// How long health must be good
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "3s")]
    good_for: Duration,
    /// Wait at most this long for good health
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    wait: Duration,
}

/// `breach reopen`.
pub struct Reopen;

impl Action for Reopen {
    fn spec(&self) -> Spec {
        Spec {
            name: "breach reopen",
            about: "Maintenance mode off, and wait until the service is healthy; refused while old secrets are valid",
            risk: Risk::Change,
            fallback: "Only after every secret was rotated and nothing of the intruder is left: switch maintenance mode off.",
        }
    }
    fn arguments(&self) -> Command {
        ReopenArgs::augment_args(Command::new("reopen"))
    }
    fn preview<'a>(&'a self, _: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async { Ok(Preview { lines: vec!["switches maintenance mode off".into()], ..Preview::default() }) })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: ReopenArgs = parse_args(self.arguments(), args)?;
            maintenance(ctx, "off").await?;
            let url = ctx.settings.service.health_url.as_ref().ok_or_else(|| {
                Error::config("no health URL is configured").hint("look yourself, and mark the service as restored")
            })?;
            let seen = wait_healthy(url, args.good_for, args.wait, &*Follow::new(ctx), &ctx.cancel).await?;
            ctx.out.line(&seen.describe());
            let fact = Event::HealthSeen { healthy: seen.healthy, components: seen.components.clone() };
            let done = match seen.healthy {
                true => Done::ok("the doors are open, the service is healthy"),
                false => Done::check_failed(format!("the service is not healthy: {}", seen.describe())),
            };
            Ok(done.fact(fact))
        })
    }
}
