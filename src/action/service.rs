//! `breakglass service …`: what a bad release asks for. Releases compared, maintenance mode, automatic deploys, roll back,
//! flags, and a look whether it helped.
//!
//! Everything goes through commands of the configuration (section `[service]`), run without a shell: how a team deploys is
//! its own affair. The one thing asked of them is the report of `releases`, see [`Report`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Args as _, Command, ValueEnum};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::contain::{service_command, shown};
use super::target::{Follow, parse_args};
use super::{Action, Ctx, Done, Preview, Spec};
use crate::error::{Error, Result};
use crate::model::event::{Check, Event, Verdict};
use crate::model::parse_duration;
use crate::model::plan::Risk;
use crate::process::{ChildSpec, RunOptions, capture};
use crate::recovery::{health, watch::check_cancel};

/// How long one of the configured commands may take.
const LIMIT: Duration = Duration::from_secs(120);
/// From this share of failing requests on, in percent, a release is a suspect.
const SUSPECT_PERCENT: u64 = 1;

/// What the command `service.releases` prints: one JSON document. Members that are not known are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the release in service.
    pub current: String,
    /// Whether a pipeline deploys by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autodeploy: Option<bool>,
    /// Whether maintenance mode is on.
    #[serde(default)]
    pub maintenance: bool,
    /// Flags and whether they are on.
    #[serde(default)]
    pub flags: BTreeMap<String, bool>,
    /// Newest first.
    #[serde(default)]
    pub releases: Vec<Release>,
}

/// A release as the team's tooling knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// When it last went into service, RFC 3339.
    #[serde(default)]
    pub deployed: Option<String>,
    /// Requests it has answered.
    #[serde(default)]
    pub requests: u64,
    /// Of those, with 5xx or not at all.
    #[serde(default)]
    pub failed: u64,
    /// Flags that were switched on with it.
    #[serde(default)]
    pub flags: Vec<String>,
}

impl Release {
    /// Failing requests in percent, rounded down; none before the first request.
    pub fn failing(&self) -> Option<u64> {
        self.failed.saturating_mul(100).checked_div(self.requests)
    }
    /// Whether so many requests fail that it cannot be called good.
    pub fn is_suspect(&self) -> bool {
        self.failed > 0 && self.failing().is_some_and(|p| p >= SUSPECT_PERCENT)
    }
}

impl Report {
    /// Reads what the command printed.
    ///
    /// # Errors
    /// Config when it is not the document that is asked for.
    pub fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| {
            Error::config("the command service.releases did not print a report of releases")
                .why(e)
                .hint("it prints one JSON document; docs/formats.md says which")
        })
    }
    /// The release to go back to: the newest one before the current that was in service and is no suspect.
    pub fn good(&self) -> Option<&Release> {
        let at = self.releases.iter().position(|r| r.name == self.current)?;
        self.releases.iter().skip(at + 1).find(|r| !r.is_suspect() && r.deployed.is_some())
    }
    /// Flags that came with a suspect and are still on.
    pub fn suspect_flags(&self) -> Vec<String> {
        let on = |f: &&String| self.flags.get(*f).copied().unwrap_or(false);
        let mut flags: Vec<String> =
            self.releases.iter().filter(|r| r.is_suspect()).flat_map(|r| r.flags.iter().filter(on)).cloned().collect();
        flags.sort();
        flags.dedup();
        flags
    }
    /// For people, one line each.
    pub fn lines(&self) -> Vec<String> {
        let mut out: Vec<String> = self
            .releases
            .iter()
            .map(|r| {
                let mark = if r.name == self.current { "→" } else { " " };
                let since = r.deployed.as_deref().unwrap_or("never in service");
                let failing = match r.failing() {
                    Some(p) => format!("{} of {} requests failed ({p} %)", r.failed, r.requests),
                    None => "no requests".into(),
                };
                let flags = if r.flags.is_empty() { String::new() } else { format!("  flags: {}", r.flags.join(", ")) };
                format!("{mark} {:<14} {since}  {failing}{flags}", r.name)
            })
            .collect();
        let on: Vec<&str> = self.flags.iter().filter(|(_, on)| **on).map(|(f, _)| f.as_str()).collect();
        out.push(format!("flags on: {}", if on.is_empty() { "none".into() } else { on.join(", ") }));
        if let Some(auto) = self.autodeploy {
            out.push(format!("automatic deploys are {}", word(auto)));
        }
        out.push(format!("maintenance mode is {}", word(self.maintenance)));
        match self.good() {
            Some(r) => out.push(format!("to go back to: {}", r.name)),
            None => out.push("no earlier release is known to be good".into()),
        }
        out
    }
}

fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Asks the configured command.
async fn report(ctx: &Ctx) -> Result<Report> {
    let argv = &ctx.settings.service.releases;
    let Some((program, args)) = argv.split_first() else { return Err(not_set("releases")) };
    let spec = ChildSpec::new(program).args(args).inherit_env();
    let options = RunOptions { timeout: Some(LIMIT), cancel: ctx.cancel.clone(), ..RunOptions::default() };
    let captured = capture(&spec, &options).await?;
    let text = captured.text();
    captured.ok(&spec)?;
    Report::read(&text)
}

fn not_set(name: &str) -> Error {
    Error::config(format!("no command is configured for this: service.{name}"))
        .hint(format!("set {name} in the section [service] of breakglass.toml, or do it by hand"))
}

/// The command of the configuration with its words in braces replaced.
fn filled(argv: &[String], name: &str, values: &[(&str, &str)]) -> Result<Vec<String>> {
    if argv.is_empty() {
        return Err(not_set(name));
    }
    let fill = |w: &String| values.iter().fold(w.clone(), |w, (key, value)| w.replace(&format!("{{{key}}}"), value));
    Ok(argv.iter().map(fill).collect())
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// On
    On,
    /// Off
    Off,
}

impl Switch {
    fn word(self) -> &'static str {
        word(self == Self::On)
    }
}

/// `service releases`.
pub struct Releases;

impl Action for Releases {
    fn spec(&self) -> Spec {
        Spec {
            name: "service releases",
            about: "Compare the releases: which is in service, since when, how many of its requests fail",
            risk: Risk::Read,
            fallback: "Open the list of deploys and the error rate beside each other; look what changed last.",
        }
    }
    fn arguments(&self) -> Command {
        Command::new("releases")
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        let lines = vec![format!("runs {}", shown(&ctx.settings.service.releases))];
        Box::pin(async move { Ok(Preview { lines, ..Preview::default() }) })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let seen = report(ctx).await?;
            let findings = seen.lines();
            findings.iter().for_each(|l| ctx.out.line(l));
            let current = seen.releases.iter().find(|r| r.name == seen.current);
            let failing = current.and_then(Release::failing).unwrap_or(0);
            let summary = match seen.good() {
                Some(good) => format!("{} fails {failing} % of its requests; {} was good", seen.current, good.name),
                None => format!("{} fails {failing} % of its requests; no good release is known", seen.current),
            };
            let json = serde_json::to_value(&seen).unwrap_or_default();
            Ok(Done::ok(summary).json(json).fact(Event::DamageAssessed { findings, rows: BTreeMap::new() }))
        })
    }
}

#[derive(Debug, clap::Args)]
struct MaintenanceArgs {
    /// On or off
    #[arg(value_enum)]
    state: Switch,
    /// How long health must be good after maintenance is off
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "3s")]
    good_for: Duration,
    /// How long to wait for good health
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    wait: Duration,
}

/// `service maintenance on|off`.
pub struct Maintenance;

impl Action for Maintenance {
    fn spec(&self) -> Spec {
        Spec {
            name: "service maintenance",
            about: "Show customers a page that says so; off again, and wait until health is good",
            risk: Risk::Change,
            fallback: "Switch it in the load balancer or with the application's own flag.",
        }
    }
    fn arguments(&self) -> Command {
        MaintenanceArgs::augment_args(Command::new("maintenance"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: MaintenanceArgs = parse_args(self.arguments(), args)?;
            let argv = filled(&ctx.settings.service.maintenance, "maintenance", &[("state", args.state.word())])?;
            let lines = vec![format!("runs {}", shown(&argv)), "undo: the same with the other word".into()];
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: MaintenanceArgs = parse_args(self.arguments(), args)?;
            let argv = filled(&ctx.settings.service.maintenance, "maintenance", &[("state", args.state.word())])?;
            service_command(ctx, &argv, LIMIT).await?;
            let summary = format!("maintenance mode is {}", args.state.word());
            if args.state == Switch::On {
                let done = vec![summary.clone()];
                return Ok(Done::ok(summary).fact(Event::BleedingStopped { done, archived_lsn: None }));
            }
            let Some(url) = &ctx.settings.service.health_url else { return Ok(Done::ok(summary)) };
            let seen = health::wait_healthy(url, args.good_for, args.wait, &*Follow::new(ctx), &ctx.cancel).await?;
            ctx.out.line(&seen.describe());
            let fact = Event::HealthSeen { healthy: seen.healthy, components: seen.components.clone() };
            Ok(match seen.healthy {
                true => Done::ok(format!("{summary}, the service is healthy")),
                false => Done::check_failed(format!("{summary}, but the service is not healthy: {}", seen.describe())),
            }
            .fact(fact))
        })
    }
}

#[derive(Debug, clap::Args)]
struct AutodeployArgs {
    /// On or off
    #[arg(value_enum)]
    state: Switch,
}

/// `service autodeploy on|off`.
pub struct Autodeploy;

impl Action for Autodeploy {
    fn spec(&self) -> Spec {
        Spec {
            name: "service autodeploy",
            about: "Stop the pipeline from deploying by itself, or let it again",
            risk: Risk::Change,
            fallback: "Disable the pipeline, or lock the branch it deploys from.",
        }
    }
    fn arguments(&self) -> Command {
        AutodeployArgs::augment_args(Command::new("autodeploy"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: AutodeployArgs = parse_args(self.arguments(), args)?;
            let argv = filled(&ctx.settings.service.autodeploy, "autodeploy", &[("state", args.state.word())])?;
            Ok(Preview { lines: vec![format!("runs {}", shown(&argv))], ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: AutodeployArgs = parse_args(self.arguments(), args)?;
            let argv = filled(&ctx.settings.service.autodeploy, "autodeploy", &[("state", args.state.word())])?;
            service_command(ctx, &argv, LIMIT).await?;
            Ok(Done::ok(format!("automatic deploys are {}", args.state.word())))
        })
    }
}

#[derive(Debug, clap::Args)]
struct RollbackArgs {
    /// Release to go back to; the newest earlier one that was good by default
    #[arg(long, value_name = "RELEASE")]
    to: Option<String>,
}

/// `service rollback`.
pub struct Rollback;

impl Rollback {
    async fn choose(&self, ctx: &Ctx, args: &[String]) -> Result<(Report, String)> {
        let args: RollbackArgs = parse_args(self.arguments(), args)?;
        let seen = report(ctx).await?;
        let to = match args.to {
            Some(named) if seen.releases.is_empty() || seen.releases.iter().any(|r| r.name == named) => named,
            Some(named) => {
                let known: Vec<&str> = seen.releases.iter().map(|r| r.name.as_str()).collect();
                return Err(Error::usage(format!("there is no release {named:?}"))
                    .hint(format!("releases: {}", known.join(", "))));
            }
            None => seen.good().map(|r| r.name.clone()).ok_or_else(|| {
                Error::check(format!("no release before {} is known to be good", seen.current))
                    .hint("look at breakglass service releases, and name one with --to")
            })?,
        };
        Ok((seen, to))
    }
}

impl Action for Rollback {
    fn spec(&self) -> Spec {
        Spec {
            name: "service rollback",
            about: "Put the last good release back into service",
            risk: Risk::Change,
            fallback: "Deploy the build of the last good release again; do not build anew.",
        }
    }
    fn arguments(&self) -> Command {
        RollbackArgs::augment_args(Command::new("rollback"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let (seen, to) = self.choose(ctx, args).await?;
            let mut lines = vec![format!("in service is {}, {to} takes its place", seen.current)];
            if seen.autodeploy == Some(true) {
                lines.push("automatic deploys are ON: the pipeline will bring the bad release back".into());
            }
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let (seen, to) = self.choose(ctx, args).await?;
            if seen.autodeploy == Some(true) {
                ctx.out.line("warning: automatic deploys are on, the pipeline may bring the bad release back");
            }
            let argv = filled(&ctx.settings.service.rollback, "rollback", &[("release", &to)])?;
            service_command(ctx, &argv, LIMIT).await?;
            let now = report(ctx).await?;
            if now.current != to {
                return Ok(Done::check_failed(format!("{} is in service, not {to}", now.current)));
            }
            Ok(Done::ok(format!("{to} is in service again instead of {}", seen.current)))
        })
    }
}

#[derive(Debug, clap::Args)]
struct FlagArgs {
    /// On or off
    #[arg(value_enum)]
    state: Switch,
    /// The flag; as often as needed
    #[arg(long = "name", value_name = "FLAG", required_unless_present = "suspects")]
    names: Vec<String>,
    /// All flags that came with a failing release and are still on
    #[arg(long, conflicts_with = "names")]
    suspects: bool,
}

/// `service flag`.
pub struct Flag;

impl Action for Flag {
    fn spec(&self) -> Spec {
        Spec {
            name: "service flag",
            about: "Switch a feature flag",
            risk: Risk::Change,
            fallback: "Switch it where the flags are kept; it is not part of the release.",
        }
    }
    fn arguments(&self) -> Command {
        FlagArgs::augment_args(Command::new("flag"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: FlagArgs = parse_args(self.arguments(), args)?;
            let names = if args.suspects { report(ctx).await?.suspect_flags() } else { args.names };
            let lines = names.iter().map(|f| format!("switches {f} {}", args.state.word())).collect();
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: FlagArgs = parse_args(self.arguments(), args)?;
            let names = if args.suspects { report(ctx).await?.suspect_flags() } else { args.names };
            for name in &names {
                check_cancel(&ctx.cancel, "not every flag is switched")?;
                let values = [("flag", name.as_str()), ("state", args.state.word())];
                service_command(ctx, &filled(&ctx.settings.service.flag, "flag", &values)?, LIMIT).await?;
            }
            Ok(Done::ok(match names.is_empty() {
                true => "no flag of a failing release is on".into(),
                false => format!("{} {}", names.join(", "), args.state.word()),
            }))
        })
    }
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// Requests to send
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    requests: u32,
    /// Time over which they are spread: a pipeline or a second instance gets the time to spoil it
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    over: Duration,
}

/// `service verify`.
pub struct Verify;

impl Action for Verify {
    fn spec(&self) -> Spec {
        Spec {
            name: "service verify",
            about: "Send real requests past the maintenance page; every one must succeed",
            risk: Risk::Read,
            fallback: "Send what failed before with curl, several times, and read the answers.",
        }
    }
    fn arguments(&self) -> Command {
        VerifyArgs::augment_args(Command::new("verify"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: VerifyArgs = parse_args(self.arguments(), args)?;
            let url = ctx.settings.service.probe_url.clone().ok_or_else(|| not_set("probe_url"))?;
            let lines = vec![format!("sends {} requests to {url} within {} s", args.requests, args.over.as_secs())];
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { verify(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

async fn verify(ctx: &Ctx, args: &VerifyArgs) -> Result<Done> {
    let url = ctx.settings.service.probe_url.clone().ok_or_else(|| not_set("probe_url"))?;
    let before = report(ctx).await?;
    let pause = args.over / args.requests.max(1);
    let (mut failed, mut example, begun) = (0_u32, String::new(), Instant::now());
    for n in 0..args.requests {
        check_cancel(&ctx.cancel, "the service was not verified")?;
        let answer = health::ask(&url).await?;
        if !answer.healthy {
            failed += 1;
            example = answer.describe();
        }
        let due = pause * (n + 1);
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
    }
    let after = report(ctx).await?;
    let check = |name: &str, good: bool, detail: String| Check {
        name: name.into(),
        verdict: if good { Verdict::Passed } else { Verdict::Failed },
        detail,
    };
    let suspects = after.suspect_flags();
    let current = after.releases.iter().find(|r| r.name == after.current);
    let checks = vec![
        check(
            "requests",
            failed == 0,
            match failed {
                0 => format!("all of {} succeeded", args.requests),
                n => format!("{n} of {} failed: {example}", args.requests),
            },
        ),
        check(
            "release",
            before.current == after.current && !current.is_some_and(Release::is_suspect),
            match before.current == after.current {
                true => format!("{} is in service", after.current),
                false => format!("{} was replaced by {} meanwhile", before.current, after.current),
            },
        ),
        check(
            "automatic deploys",
            after.autodeploy != Some(true),
            match after.autodeploy {
                Some(true) => "on: the bad release will come back".into(),
                Some(false) => "off".into(),
                None => "there is no pipeline".into(),
            },
        ),
        check(
            "flags",
            suspects.is_empty(),
            match suspects.is_empty() {
                true => "none of a failing release is on".into(),
                false => format!("still on: {}", suspects.join(", ")),
            },
        ),
    ];
    for c in &checks {
        let mark = if c.verdict == Verdict::Passed { "✓" } else { "✗" };
        ctx.out.line(&format!("{mark} {:<18} {}", c.name, c.detail));
    }
    let bad: Vec<&str> = checks.iter().filter(|c| c.verdict == Verdict::Failed).map(|c| c.name.as_str()).collect();
    let passed = bad.is_empty();
    let done = match passed {
        true => Done::ok(format!("{} answers every request", after.current)),
        false => Done::check_failed(format!("not as it should be: {}", bad.join(", "))),
    };
    let json = serde_json::json!({"passed": passed, "checks": checks, "release": after.current});
    Ok(done.json(json).fact(Event::ServiceVerified { passed, checks }))
}
