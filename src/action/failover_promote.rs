//! `failover promote|route|verify`: the standby takes over, traffic goes there, and writes are proved to arrive.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;
use serde_json::json;

use super::contain::{service_command, shown};
use super::failover::{look, primary, standby};
use super::target::{Follow, expected, parse_args};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Error, Result};
use crate::model::event::{Check, Event, Verdict};
use crate::model::plan::Risk;
use crate::model::target::{Identity, Loss};
use crate::model::{format_clock, parse_duration};
use crate::postgres::{Database, identity};
use crate::recovery::failover::{promote_standby, prove_closed, write_probe};
use crate::recovery::health::wait_healthy;

/// How long a command that points traffic elsewhere may take.
const LIMIT: Duration = Duration::from_secs(300);

/// `failover promote`.
pub struct Promote;

impl Action for Promote {
    fn spec(&self) -> Spec {
        Spec {
            name: "failover promote",
            about: "Promote the standby; what it does not have is lost",
            risk: Risk::Destroy,
            fallback: "Prove first that the old primary takes no writes. On the standby: SELECT pg_promote(true, 60).",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("promote")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let seen = look(ctx).await?;
            let mut lines = seen.lines();
            if seen.standing.receiving {
                lines.push("WARNING: it still receives log, so the old primary lives and takes writes".into());
            }
            let fenced = ctx.incident.as_ref().and_then(|s| s.facts.fenced.as_ref());
            match fenced {
                Some((proof, _)) => lines.extend(proof.iter().map(|p| format!("fence        {p}"))),
                None => lines.push("WARNING: the old primary is not proved to be fenced".into()),
            }
            lines.push("opens a new timeline; there is no way back from here, only forward".into());
            let target = Some(seen.standing.identity.clone());
            Ok(Preview { lines, target, facts: vec![seen.fact()] })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(promote(ctx))
    }
}

async fn promote(ctx: &Ctx) -> Result<Done> {
    let at = standby(ctx)?;
    let before = look(ctx).await?;
    before.lines().iter().for_each(|l| ctx.out.line(l));
    // Seen again now, not believed from minutes ago: a region comes back when nobody looks.
    let state = ctx.incident.as_ref();
    let proved = state.is_some_and(|s| s.facts.fenced.is_some());
    let old = primary(ctx)?;
    let closed = prove_closed(&old, Duration::ZERO, &ctx.cancel).await;
    match (&closed, proved || state.is_none()) {
        (Ok(proof), _) => proof.iter().for_each(|p| ctx.out.line(&format!("still: {p}"))),
        (Err(e), true) => {
            return Err(Error::refused("the old primary is not closed any more").why(e).hint("fence it again"));
        }
        // The gate was waived with a reason; the record says so.
        (Err(e), false) => ctx.out.line(&format!("WARNING: not fenced: {e}")),
    }
    let mut c = at.connect().await?;
    let now = promote_standby(&mut c, &at).await?;
    expected(ctx, &now, false)?;
    ctx.out.line(&format!("promoted: timeline {}, it takes writes", now.timeline));
    let loss = Loss {
        window_ms: before.lag.and_then(|l| l.time).map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        transactions: None,
        rows: BTreeMap::new(),
        at_most: false,
    };
    let kept = ctx
        .settings
        .failover
        .old_data
        .as_ref()
        .map_or_else(|| format!("{}:{}", old.host(), old.port()), |d| d.display().to_string());
    let summary =
        format!("{} runs on {}:{}, timeline {}; {}", now.database, now.host, now.port, now.timeline, before.loses());
    let json = json!({"identity": now, "loss": loss, "kept": kept});
    let done = Done::ok(summary)
        .fact(before.fact())
        .fact(Event::TargetSeen { role: "source".into(), identity: now.clone() })
        .fact(Event::Promoted { identity: now, kept });
    // By the sample; what only the old primary had is counted when it is there again.
    let done = if before.lag.is_some() { done.fact(Event::LossMeasured { loss }) } else { done };
    Ok(done.json(json))
}

/// `failover route`.
pub struct Route;

/// Where traffic has to go: to what was promoted in this incident, else to the standby of the settings.
fn destination(ctx: &Ctx) -> Result<Database> {
    match ctx.incident.as_ref().and_then(|s| s.facts.promoted.as_ref()) {
        Some(_) => reach::database(ctx),
        None => standby(ctx),
    }
}

/// Points the service at a database and lets writes in.
///
/// # Errors
/// No command is configured, or it fails.
pub(super) async fn send_to(ctx: &Ctx, to: &Database) -> Result<()> {
    let service = &ctx.settings.service;
    if service.switch.is_empty() {
        return Err(Error::config("no command is configured that points traffic elsewhere: service.switch")
            .hint(format!("point name service, load balancer and poolers at {} by hand", to.url())));
    }
    for argv in [&service.switch, &service.resume].into_iter().filter(|a| !a.is_empty()) {
        service_command(ctx, &super::pitr_promote::filled(argv, to), LIMIT).await?;
    }
    Ok(())
}

impl Action for Route {
    fn spec(&self) -> Spec {
        Spec {
            name: "failover route",
            about: "Send the traffic to the new primary: names, load balancer, poolers",
            risk: Risk::Change,
            fallback: "Change name or load balancer at the provider, then reload poolers and restart what keeps connections.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("route")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let to = destination(ctx)?;
            let argv = super::pitr_promote::filled(&ctx.settings.service.switch, &to);
            let lines = vec![format!("runs {}", shown(&argv)), format!("traffic goes to {to}")];
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let to = destination(ctx)?;
            let mut c = to.connect().await?;
            let id = identity(&mut c, &to).await?;
            expected(ctx, &id, false)?;
            if id.in_recovery {
                return Err(Error::refused(format!("{to} is in recovery: it takes no writes")).hint("promote it first"));
            }
            send_to(ctx, &to).await?;
            let json = json!({"to": to.url(), "identity": id});
            Ok(Done::ok(format!("traffic goes to {}:{}", to.host(), to.port())).json(json))
        })
    }
}

#[derive(Debug, Clone, clap::Args)]
struct VerifyArgs {
    /// How long health must be good
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "3s")]
    good_for: Duration,
    /// Wait at most this long for good health
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    wait: Duration,
}

/// `failover verify`.
pub struct Verify;

impl Action for Verify {
    fn spec(&self) -> Spec {
        Spec {
            name: "failover verify",
            about: "Writes arrive at the new primary through the same door as customers, and nowhere else",
            risk: Risk::Read,
            fallback: "Place an order from outside and look for it in the new primary; try to connect to the old one: refused.",
        }
    }
    fn arguments(&self) -> Command {
        VerifyArgs::augment_args(Command::new("verify"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let door = reach::source(ctx)?;
            let lines = vec![
                format!("commits a transaction that changes no table through {door}"),
                format!("knocks at {}", primary(ctx)?),
            ];
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { verify(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

/// Who answers at the customers' door, after it took a write.
async fn through(door: &Database) -> Result<(Identity, String)> {
    let mut c = door.connect().await?;
    let xid = write_probe(&mut c).await?;
    Ok((identity(&mut c, door).await?, xid))
}

async fn verify(ctx: &Ctx, args: &VerifyArgs) -> Result<Done> {
    let state = ctx.incident.as_ref();
    let promoted = state.and_then(|s| s.facts.promoted.as_ref()).map(|(id, ..)| id.clone());
    let mut checks = Vec::new();
    let mut check = |name: &str, verdict: Verdict, detail: String| {
        let mark = match verdict {
            Verdict::Passed => "✓",
            Verdict::Failed => "✗",
            Verdict::NotAvailable => "?",
        };
        ctx.out.line(&format!("{mark} {name:<14} {detail}"));
        checks.push(Check { name: name.into(), verdict, detail });
    };
    let word = |good: bool| if good { Verdict::Passed } else { Verdict::Failed };
    let same = |a: &Identity, b: &Identity| {
        a.system_identifier == b.system_identifier && a.timeline == b.timeline && a.data_directory == b.data_directory
    };
    match through(&reach::source(ctx)?).await {
        Ok((id, xid)) => {
            let right = promoted.as_ref().is_none_or(|p| same(p, &id)) && !id.in_recovery;
            let there = id.data_directory.clone().unwrap_or_else(|| format!("{}:{}", id.host, id.port));
            check("door", word(right), format!("leads to {there}, timeline {}", id.timeline));
            check("writes", Verdict::Passed, format!("transaction {xid} was committed through it"));
        }
        Err(e) => check("writes", Verdict::Failed, e.to_string()),
    }
    let old = primary(ctx)?;
    let moved = promoted.as_ref().is_none_or(|p| p.host != old.host() || p.port != old.port());
    if moved {
        match prove_closed(&old, Duration::from_secs(1), &ctx.cancel).await {
            Ok(proof) => check("one primary", Verdict::Passed, proof.join("; ")),
            Err(e) => check("one primary", Verdict::Failed, format!("the old one is not closed: {e}")),
        }
    }
    if let Some(state) = state {
        match (&state.facts.loss, state.rpo) {
            (Some(loss), Some(rpo)) => {
                let lost = Duration::from_millis(loss.window_ms);
                check("loss", word(lost <= rpo), format!("{} of {}", format_clock(lost), format_clock(rpo)));
            }
            (None, Some(_)) => {
                check("loss", Verdict::NotAvailable, "not known yet: no sample of the old primary".into())
            }
            _ => {}
        }
    }
    let mut facts = Vec::new();
    if let Some(url) = &ctx.settings.service.health_url {
        let seen = wait_healthy(url, args.good_for, args.wait, &*Follow::new(ctx), &ctx.cancel).await?;
        check("service", word(seen.healthy), seen.describe());
        facts.push(Event::HealthSeen { healthy: seen.healthy, components: seen.components });
    }
    let bad: Vec<&str> = checks.iter().filter(|c| c.verdict == Verdict::Failed).map(|c| c.name.as_str()).collect();
    let passed = bad.is_empty();
    let done = match passed {
        true => Done::ok("writes arrive at the new primary, and nowhere else"),
        false => Done::check_failed(format!("not as it should be: {}", bad.join(", "))),
    };
    let json = json!({"passed": passed, "checks": checks});
    facts.insert(0, Event::ServiceVerified { passed, checks });
    Ok(Done { facts, ..done.json(json) })
}
