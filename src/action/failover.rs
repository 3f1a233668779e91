//! `failover confirm|standby|fence`: is the region really gone, what would be lost, and the old primary closed for good.

use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;
use serde_json::json;

use super::contain::{service_command, shown};
use super::target::{expected, parse_args};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::config::Connection;
use crate::config::settings::DATABASE_PASSWORD;
use crate::error::{Error, Result};
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::{format_clock, parse_duration};
use crate::postgres::{Database, Lsn, identity};
use crate::process::{ChildSpec, RunOptions, capture};
use crate::recovery::failover::{Lag, Sample, Standing, close_local, instance_on, lag, prove_closed, standing};
use crate::recovery::health;

/// How long a configured command may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long one look from outside may take.
const LOOK: Duration = Duration::from_secs(20);

fn of(ctx: &Ctx, connection: &Connection) -> Database {
    Database::of(connection, ctx.secrets.get(DATABASE_PASSWORD).cloned())
}

/// The standby of the settings.
///
/// # Errors
/// Config when none is set.
pub(super) fn standby(ctx: &Ctx) -> Result<Database> {
    let there = ctx.settings.failover.standby.as_ref();
    there.map(|c| of(ctx, c)).ok_or_else(|| {
        Error::config("no standby is configured").hint("set standby in the section [failover] of breakglass.toml")
    })
}

/// The old primary by its own address.
///
/// # Errors
/// Config when neither it nor a target is set.
pub(super) fn primary(ctx: &Ctx) -> Result<Database> {
    match &ctx.settings.failover.primary {
        Some(c) => Ok(of(ctx, c)),
        None => reach::source(ctx),
    }
}

/// The last sample of the primary, when a command is configured that knows it.
///
/// # Errors
/// The command fails or prints something else.
async fn sample(ctx: &Ctx) -> Result<Option<Sample>> {
    let Some((program, args)) = ctx.settings.failover.monitor.split_first() else { return Ok(None) };
    let spec = ChildSpec::new(program).args(args).inherit_env();
    let options = RunOptions { timeout: Some(LOOK), cancel: ctx.cancel.clone(), ..RunOptions::default() };
    let captured = capture(&spec, &options).await?;
    let text = captured.text();
    captured.ok(&spec)?;
    Sample::read(&text).map(Some)
}

/// `failover confirm`.
pub struct Confirm;

impl Action for Confirm {
    fn spec(&self) -> Spec {
        Spec {
            name: "failover confirm",
            about: "Look from outside, from several places, whether the service and its primary are really gone",
            risk: Risk::Read,
            fallback: "From two machines that are not in the region: curl the service, pg_isready the primary; open the \
                       provider's status page.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("confirm")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let places = &ctx.settings.failover.outside;
            let mut lines: Vec<String> = places.iter().map(|p| format!("runs {}", shown(p))).collect();
            lines.extend(ctx.settings.service.health_url.iter().map(|u| format!("asks {u}")));
            lines.push(format!("knocks at {}", primary(ctx)?));
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(confirm(ctx))
    }
}

async fn confirm(ctx: &Ctx) -> Result<Done> {
    let mut findings = Vec::new();
    let (mut asked, mut reached) = (0, 0);
    let mut note = |name: String, there: bool, detail: String| {
        let line = format!("{name:<28} {}  {detail}", if there { "REACHED" } else { "gone   " });
        ctx.out.line(line.trim_end());
        findings.push(line.trim_end().to_string());
        asked += 1;
        reached += u32::from(there);
    };
    for (i, place) in ctx.settings.failover.outside.iter().enumerate() {
        let Some((program, args)) = place.split_first() else { continue };
        let spec = ChildSpec::new(program).args(args).inherit_env();
        let options = RunOptions { timeout: Some(LOOK), cancel: ctx.cancel.clone(), ..RunOptions::default() };
        let seen = capture(&spec, &options).await?;
        let said = seen.complaint().lines().next().unwrap_or_default().trim().to_string();
        let name = args.last().filter(|a| !a.starts_with('-')).cloned().unwrap_or_else(|| (i + 1).to_string());
        note(format!("service from {name}"), seen.end.success(), said);
    }
    let mut facts = Vec::new();
    if let Some(url) = &ctx.settings.service.health_url {
        let seen = health::ask(url).await?;
        note("service, its health page".into(), seen.healthy, seen.describe());
        facts.push(Event::HealthSeen { healthy: seen.healthy, components: seen.components });
    }
    let at = primary(ctx)?;
    match at.connect_within(Duration::from_secs(5)).await {
        Ok(mut c) => {
            let id = identity(&mut c, &at).await?;
            let detail = format!("{at}{}", if id.in_recovery { ", in recovery" } else { "" });
            note("primary by its own address".into(), !id.in_recovery, detail);
        }
        Err(e) => note("primary by its own address".into(), false, e.why),
    }
    if let Ok(at) = standby(ctx) {
        match at.connect_within(Duration::from_secs(5)).await {
            Ok(mut c) => {
                let s = standing(&mut c, &at).await?;
                let word = if s.receiving { "still receives log: the primary lives" } else { "receives nothing" };
                note("primary, seen by its standby".into(), s.receiving, word.into());
                facts.push(Event::TargetSeen { role: "standby".into(), identity: s.identity });
            }
            Err(e) => ctx.out.line(&format!("the standby does not answer: {e}")),
        }
    }
    let json = json!({"asked": asked, "reached": reached, "findings": findings});
    let done = match reached {
        0 => Done::ok(format!("gone, seen from {asked} places")),
        n => Done::check_failed(format!("reached from {n} of {asked} places: it is not simply gone")),
    };
    Ok(Done { facts, ..done.json(json) })
}

/// `failover standby`.
pub struct Standby;

impl Action for Standby {
    fn spec(&self) -> Spec {
        Spec {
            name: "failover standby",
            about: "How far the standby is, and what promoting it would lose by the last sample of the primary",
            risk: Risk::Read,
            fallback: "On the standby: SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn(), \
                       pg_last_xact_replay_timestamp(); compare with the last position monitoring knows of the primary.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("standby")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let mut lines = vec![format!("connects to {} and reads", standby(ctx)?)];
            if !ctx.settings.failover.monitor.is_empty() {
                lines.push(format!("runs {}", shown(&ctx.settings.failover.monitor)));
            }
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let seen = look(ctx).await?;
            seen.lines().iter().for_each(|l| ctx.out.line(l));
            let json = json!({
                "identity": seen.standing.identity, "received": seen.standing.received.to_string(),
                "last_commit": seen.standing.last_commit, "sample": seen.sample,
                "behind_bytes": seen.lag.map(|l| l.bytes),
                "behind_ms": seen.lag.and_then(|l| l.time).map(|t| t.as_millis() as u64),
            });
            let done = match seen.standing.identity.in_recovery {
                true => Done::ok(seen.loses()),
                false => Done::check_failed("it is no standby: it takes writes already"),
            };
            let mut done = done.fact(seen.fact());
            done.facts.extend(seen.exposure());
            Ok(done.json(json))
        })
    }
}

/// The standby as it stands against the last sample.
pub(super) struct Seen {
    pub(super) standing: Standing,
    pub(super) sample: Option<Sample>,
    pub(super) lag: Option<Lag>,
}

/// Looks at the standby; who it is must be who is expected.
///
/// # Errors
/// It does not answer, or is another cluster.
pub(super) async fn look(ctx: &Ctx) -> Result<Seen> {
    let at = standby(ctx)?;
    let mut c = at.connect().await?;
    let standing = standing(&mut c, &at).await?;
    expected(ctx, &standing.identity, false)?;
    let sample = match sample(ctx).await {
        Ok(sample) => sample,
        Err(e) => {
            ctx.out.line(&format!("the last sample is not known: {e}"));
            None
        }
    };
    let lag = sample.as_ref().map(|s| lag(s, &standing));
    Ok(Seen { standing, sample, lag })
}

impl Seen {
    /// What promoting it loses, one sentence.
    pub(super) fn loses(&self) -> String {
        match self.lag {
            None => "what promoting it loses is not known: there is no sample of the primary".into(),
            Some(Lag { bytes: 0, .. }) => "it has everything of the last sample of the primary".into(),
            Some(Lag { bytes, time: Some(t) }) => {
                format!("promoting it loses the last {} ({bytes} bytes of log)", format_clock(t))
            }
            Some(Lag { bytes, time: None }) => format!("promoting it loses the last {bytes} bytes of log"),
        }
    }
    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let s = &self.standing;
        let commit = s.last_commit.map_or("unknown".into(), |t| format!("{} UTC", t.date_hms()));
        let mut lines = vec![
            format!("standby      {} at {}:{}", s.identity.database, s.identity.host, s.identity.port),
            format!("received     {}, replayed {}, last commit {commit}", s.received, s.replayed),
            format!(
                "receiver     {}",
                if s.receiving { "receives log: the primary lives" } else { "receives nothing" }
            ),
        ];
        if let Some(sample) = &self.sample {
            lines.push(format!("last sample  {} at {} UTC", sample.primary_lsn, sample.at.date_hms()));
        }
        lines.push(format!("loss         {}", self.loses()));
        lines
    }
    /// What would be lost, as of the last sample of the primary.
    fn exposure(&self) -> Option<Event> {
        let (sample, time) = (self.sample.as_ref()?, self.lag.and_then(|l| l.time)?);
        Some(Event::ExposureSampled {
            exposure_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            at_most: false,
            lsn: Some(sample.primary_lsn.clone()),
            last_commit: sample.last_commit,
            source: format!("last sample of the primary, {} UTC, against its standby", sample.at.hms()),
        })
    }
    /// As a fact.
    pub(super) fn fact(&self) -> Event {
        let text = |l: Lsn| l.to_string();
        Event::StandbySeen {
            identity: self.standing.identity.clone(),
            received: text(self.standing.received),
            replayed: text(self.standing.replayed),
            last_commit: self.standing.last_commit,
            behind_bytes: self.lag.map(|l| l.bytes),
            behind_ms: self.lag.and_then(|l| l.time).map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
            sampled_at: self.sample.as_ref().map(|s| s.at),
        }
    }
}

/// `failover fence`.
pub struct Fence;

#[derive(Debug, Clone, clap::Args)]
struct FenceArgs {
    /// It cannot be proved from here, and you made sure yourself that it takes no writes: say how
    #[arg(long, value_name = "REASON")]
    proved_by: Option<String>,
    /// How long its door must stay shut
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "3s")]
    hold: Duration,
}

impl Action for Fence {
    fn spec(&self) -> Spec {
        Spec {
            name: "failover fence",
            about: "Close the old primary so that it takes no write again, also when its region comes back, and prove it",
            risk: Risk::Destroy,
            fallback: "Stop the server and touch standby.signal in its data directory, or cut power and network at the \
                       provider; then try to connect: it must be refused.",
        }
    }
    fn arguments(&self) -> Command {
        FenceArgs::augment_args(Command::new("fence"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: FenceArgs = parse_args(self.arguments(), args)?;
            let at = primary(ctx)?;
            let mut lines = Vec::new();
            let fence = &ctx.settings.failover.fence;
            match fence.is_empty() {
                true => lines.push("no command is configured that closes it (failover.fence)".into()),
                false => lines.push(format!("runs {}", shown(fence))),
            }
            if let Some(data) = &ctx.settings.failover.old_data {
                lines.push(format!("stops the server on {} and marks it: it can only start read-only", data.display()));
            }
            match &args.proved_by {
                Some(reason) => lines.push(format!("believes you that it takes no writes: {reason}")),
                None => lines.push(format!("knocks at {at} for {} s: it must be refused", args.hold.as_secs())),
            }
            // The old primary is gone, as a rule: the cluster it belongs to is seen on its standby.
            let mut facts = Vec::new();
            let target = match at.connect_within(Duration::from_secs(5)).await {
                Ok(mut c) => {
                    lines.push("it ANSWERS at this moment: whoever uses it is cut off".into());
                    Some(("source", identity(&mut c, &at).await?))
                }
                Err(_) => match standby(ctx) {
                    Ok(there) => Some(("standby", identity(&mut there.connect().await?, &there).await?)),
                    Err(_) => None,
                },
            };
            if let Some((role, id)) = &target {
                expected(ctx, id, false)?;
                facts.push(Event::TargetSeen { role: (*role).into(), identity: id.clone() });
            }
            Ok(Preview { lines, target: target.map(|(_, id)| id), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { fence(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

async fn fence(ctx: &Ctx, args: &FenceArgs) -> Result<Done> {
    let at = primary(ctx)?;
    let settings = &ctx.settings.failover;
    if settings.fence.is_empty() && settings.old_data.is_none() && args.proved_by.is_none() {
        return Err(Error::config("there is no way from here to close the old primary")
            .hint("set fence in the section [failover] of breakglass.toml: the command that cuts its power or network")
            .hint("or close it by hand and say how: --proved-by REASON"));
    }
    // Whoever answers at its address must be the cluster that is meant, before anything is cut.
    if let Ok(mut c) = at.connect_within(Duration::from_secs(5)).await {
        expected(ctx, &identity(&mut c, &at).await?, false)?;
    }
    let mut done = Vec::new();
    if !settings.fence.is_empty() {
        service_command(ctx, &settings.fence, LIMIT).await?;
        done.push(format!("ran {}", shown(&settings.fence)));
    }
    if let Some(data) = settings.old_data.clone().filter(|d| d.join("PG_VERSION").is_file()) {
        done.extend(super::target::blocking(move || close_local(&instance_on(&data)?)).await?);
    }
    done.iter().for_each(|d| ctx.out.line(d));
    let proof = match &args.proved_by {
        Some(reason) => vec![format!("not proved from here; by a person: {reason}")],
        None => prove_closed(&at, args.hold, &ctx.cancel).await.map_err(|e| {
            e.hint("nothing may be promoted while it may take writes")
                .hint("close it at the provider and fence again, or say how it was closed: --proved-by REASON")
        })?,
    };
    proof.iter().for_each(|p| ctx.out.line(&format!("proof: {p}")));
    let json = json!({"done": done, "proof": proof});
    let mut facts = Vec::new();
    if let Some(reason) = &args.proved_by {
        facts.push(Event::GateWaived { gate: "fence".into(), reason: reason.clone(), step: None });
    }
    facts.push(Event::OldPrimaryFenced { done, proof: proof.clone() });
    let summary = match &args.proved_by {
        Some(_) => "the old primary counts as fenced, on a person's word".to_string(),
        None => "the old primary is fenced, and it is proved".to_string(),
    };
    Ok(Done { facts, ..Done::ok(summary).json(json) })
}
