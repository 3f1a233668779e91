//! `pitr check`: whether a moment can be recovered to, before anything is touched; or whether a partial recovery brought
//! everything back, seen in the live database itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::along::{Along, of_cluster, passed_over_json, source, warnings};
use super::contain::writes_off;
use super::moment::{Moment, moment};
use super::offered::remembered;
use super::pitr_partial::{audit, renamed};
use super::pitr_partial_said::{not_back, taken_for_the_same};
use super::target::{Follow, parse_args};
use super::{Action, Ctx, Done, Preview, Spec, backend, pitr_tail, reach};
use crate::backup::catalog::{Damage, READ};
use crate::config::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::model::event::{Check as Seen, Event, Verdict};
use crate::model::plan::Risk;
use crate::model::target::{Loss, RecoveryTarget};
use crate::model::{CleanText, format_clock, parse_duration};
use crate::recovery::backend::{Goal, Way};
use crate::recovery::partial::Part;
use crate::recovery::range::{Look, Route};
use crate::recovery::tables::user_tables;
use crate::recovery::verify::constraints::check_constraints;
use crate::recovery::{health, verify};

/// The action `pitr check`.
pub struct Check;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// Whether it can be recovered to just before this: time:…Z, lsn:0/5A2F118, xid:73114, name:…, latest
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["tables", "to_after"])]
    to: Option<String>,
    /// Whether it can be recovered to just after this
    #[arg(long, value_name = "MOMENT", conflicts_with = "tables")]
    to_after: Option<String>,
    #[command(flatten)]
    along: Along,
    /// Also read every byte of the base backup and of the log; takes as long as reading them does
    #[arg(long, conflicts_with = "tables")]
    deep: bool,
    /// Table that was brought back, schema.table or table; as often as needed
    #[arg(long = "table", value_name = "TABLE", required_unless_present_any = ["to", "to_after"])]
    tables: Vec<String>,
    /// Folder of the recovered instance it was brought back from; the incident's by default
    #[arg(long, value_name = "DIR", requires = "tables")]
    shadow: Option<PathBuf>,
    /// Column that was renamed since: its name in the recovered instance, and the one in the live database
    #[arg(long = "column", value_name = "OLD=NEW", value_parser = renamed, requires = "tables")]
    columns: Vec<(String, String)>,
    /// Column of the recovered instance that the live table has no more and whose values are not wanted; as often as needed
    #[arg(long = "without-column", value_name = "COLUMN", requires = "tables")]
    without_columns: Vec<String>,
    /// What was left out because of newer rows, and views, were looked at: they do not count as missing
    #[arg(long, requires = "tables")]
    accept_left_out: bool,
    /// How long health must be good
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "3s")]
    good_for: Duration,
    /// How long to wait for good health
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    wait: Duration,
    /// Longest time for one statement
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30m")]
    statement_timeout: Duration,
}

impl Action for Check {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr check",
            about: "Check whether a moment can be reached (--to), or the live database after a partial recovery",
            risk: Risk::Read,
            fallback: "Count the rows of the table in both databases, and look for foreign keys that point nowhere.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("check"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            if let Some(given) = args.moment() {
                let (to, after) = moment(&given)?;
                let side = if after { "after" } else { "before" };
                let read = if args.deep { ", and reads every byte that it needs" } else { "" };
                let line =
                    format!("asks {} whether it can recover to just {side} {to}{read}", ctx.settings.backend.word());
                return Ok(Preview { lines: vec![line], ..Preview::default() });
            }
            let lines =
                vec![format!("compares {} of {} with the shadow", args.tables.join(", "), reach::database(ctx)?)];
            Ok(Preview { lines, ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            match args.moment() {
                Some(given) => reachable(ctx, &given, &args).await,
                None if args.along.given() => {
                    Err(Error::usage("--timeline and --backup belong to --to").hint("leave them out"))
                }
                None => check(ctx, &args).await,
            }
        })
    }
}

impl Args {
    fn moment(&self) -> Option<Moment> {
        let given = Moment { to: self.to.clone(), to_after: self.to_after.clone() };
        (given.to.is_some() || given.to_after.is_some()).then_some(given)
    }
}

/// Whether a moment can be recovered to; nothing is touched.
async fn reachable(ctx: &Ctx, given: &Moment, args: &Args) -> Result<Done> {
    let (target, after) = moment(given)?;
    let said = target.to_string();
    let (backend, way) = match way(ctx, args, (&target, after)).await {
        Ok(found) => found,
        Err(e) if matches!(e.kind, ErrorKind::Refused | ErrorKind::Check) => {
            ctx.out.line(&format!("✗ {e}"));
            let json = serde_json::json!({"reachable": false, "target": said, "error": e.to_json()["error"]});
            return Ok(Done::check_failed(format!("{}: {}", e.what, e.why)).json(json));
        }
        Err(e) => return Err(e),
    };
    let mut json = serde_json::json!({"reachable": true, "target": said, "backend": backend.word()});
    // The latest is the end of what was archived, and not of what was written.
    let behind = match &way {
        Way::Beside(r) if target == RecoveryTarget::Latest => {
            let recovery = backend::recovery(ctx).await?;
            Some(pitr_tail::behind(ctx, &*recovery, (r.timeline, r.log_end)).await)
        }
        _ => None,
    };
    let lines = match &way {
        Way::Beside(r) => {
            json["backup"] = r.backup.id.clone().into();
            json["timeline"] = r.timeline.into();
            json["every_byte_read"] = (r.looked == Look::Everything).into();
            json["log_every_byte_read"] = (r.looked != Look::Nothing).into();
            json["backup_last_read"] = serde_json::to_value(r.verified_at).unwrap_or_default();
            json["passed_over"] = passed_over_json(r);
            json["rolled_back"] = r.rolled_back.is_some().into();
            json["backup_damaged"] = serde_json::to_value(still_damaged(r)).unwrap_or_default();
            let mut lines = warnings(r);
            lines.extend(still_damaged(r).map(|d| {
                format!(
                    "WARNING: base backup {} is on record as {}; what follows does not show that it can be restored: \
                     breakglass backup verify --deep {}",
                    r.backup.id,
                    CleanText::line(d.describe().as_bytes()),
                    r.backup.id
                )
            }));
            lines.push(format!(
                "✓ from backup {} of {}, along the log of timeline {} to {}",
                r.backup.id,
                r.backup.finished_at,
                r.timeline,
                r.first_lost.as_ref().map_or(r.log_end, |c| c.lsn)
            ));
            lines.push(how_sure(r));
            if let Some(b) = &behind {
                json["behind"] = b.document();
                lines.push(format!("  {}", b.line));
            }
            lines
        }
        Way::InPlace(w) => vec![match &w.resumes {
            Some(r) => format!("✓ it was asked for at {} already, and is followed", r.requested_at),
            None => format!("✓ project {} can be asked for it; IN PLACE, over what is there", w.project_ref),
        }],
    };
    for line in lines {
        ctx.out.line(&line);
    }
    let text = match &way {
        Way::Beside(r) if still_damaged(r).is_some() => {
            format!(
                "{said} can be recovered to by the log, but only from a base backup that was found damaged: {}",
                r.backup.id
            )
        }
        _ => format!("{said} can be recovered to"),
    };
    let rolled_back = match &way {
        Way::Beside(r) => r.rolled_back.as_ref(),
        Way::InPlace(_) => None,
    };
    let done = match rolled_back {
        Some(e) => Done::check_failed(format!("{text}, but {}", e.what)),
        None => Done::ok(text),
    };
    Ok(done.json(json))
}

/// As a restore finds it, with the same checks.
async fn way(ctx: &Ctx, args: &Args, to: (&RecoveryTarget, bool)) -> Result<(Backend, Way)> {
    let recovery = backend::recovery(ctx).await?;
    let kind = recovery.backend();
    let beside = recovery.abilities().beside;
    if !beside && (args.along.given() || args.deep) {
        return Err(
            Error::usage(format!("{} takes no --timeline, --backup or --deep", kind.word())).hint("leave them out")
        );
    }
    let source = if beside { source(ctx).await? } else { None };
    if let Some(id) = &source {
        of_cluster(&recovery, id).await?;
    }
    let goal = args.along.goal(ctx, source.as_ref(), to, remembered(ctx, to.0).unwrap_or_default());
    let mut goal = Goal { records: true, ..goal };
    if args.deep {
        goal.base.look = Look::Everything;
    }
    Ok((kind, recovery.preflight(&goal, Follow::new(ctx), &ctx.cancel).await?))
}

/// What is on record of the base backup and was not refuted now: reading every byte does not clear what a restore showed.
fn still_damaged(way: &Route) -> Option<&Damage> {
    let read = way.looked == Look::Everything;
    way.damaged.as_ref().filter(|d| !(read && d.cleared_by(READ)))
}

/// What of the way was read, and what is taken on trust.
fn how_sure(way: &Route) -> String {
    let id = &way.backup.id;
    let verify = format!("breakglass backup verify {id}");
    let mb = way.backup.plain_bytes() / 1_000_000;
    let last = match (&way.damaged, way.verified_at) {
        (Some(d), _) => format!("looked at last, and not right, on {}", d.at.date_hms()),
        (None, Some(t)) => format!("read last, and right, on {}", t.date_hms()),
        (None, None) => "it was never read since it was made".to_string(),
    };
    match way.looked {
        Look::Everything => format!("  every byte of the backup ({mb} MB) and of the log was read"),
        Look::Ends => format!(
            "  the log was read; of the backup its objects are there and end as they should, its {mb} MB were not read \
             now: {last}; to read it: the same with --deep, or {verify}"
        ),
        Look::Nothing => format!("  the log was read; the files of the backup were not looked at: {verify}"),
    }
}

async fn check(ctx: &Ctx, args: &Args) -> Result<Done> {
    let mut words = vec!["--dry-run".to_string()];
    words.extend(args.shadow.iter().flat_map(|s| ["--shadow".to_string(), s.display().to_string()]));
    words.extend(args.tables.iter().flat_map(|t| ["--table".to_string(), t.clone()]));
    words.extend(args.columns.iter().flat_map(|(old, new)| ["--column".to_string(), format!("{old}={new}")]));
    words.extend(args.without_columns.iter().flat_map(|c| ["--without-column".to_string(), c.clone()]));
    let (parts, there) = audit(ctx, &words).await?;
    let sum = |f: fn(&Part) -> u64| parts.iter().map(f).sum::<u64>();
    let (lost, damaged) = (sum(|p| p.lost), sum(|p| p.damaged));
    let rows_left = |certain| parts.iter().flat_map(|p| &p.left).filter(|l| l.certain == certain).map(|l| l.rows).sum();
    let (left_out, unsure): (u64, u64) = (rows_left(true), rows_left(false));
    let columns: usize = parts.iter().map(|p| p.lost_columns.len()).sum();
    let empty: usize = parts.iter().map(|p| p.empty_columns.len()).sum();
    let views: Vec<&str> = parts.iter().flat_map(|p| &p.views).map(String::as_str).collect();
    for p in &parts {
        let lines = not_back(p, &there).into_iter().chain(taken_for_the_same(p));
        lines.for_each(|l| ctx.out.line(&format!("{}: {l}", p.table)));
    }
    let missing = lost + damaged;
    let seen = |name: &str, good: bool, detail: String| Seen {
        name: name.into(),
        verdict: if good { Verdict::Passed } else { Verdict::Failed },
        detail,
    };
    let damaged = if damaged > 0 { format!(", {damaged} as the damage left them") } else { String::new() };
    let mut checks =
        vec![seen("lost rows", missing == 0, format!("{lost} of {} still missing{damaged}", args.tables.join(", ")))];
    let accepted = if args.accept_left_out { ", accepted" } else { ": look at them, then --accept-left-out" };
    if left_out > 0 {
        checks.push(seen(
            "left out",
            args.accept_left_out,
            format!("{left_out} rows are not back, named above{accepted}"),
        ));
    }
    if !views.is_empty() {
        checks.push(seen("views", args.accept_left_out, format!("gone: {}{accepted}", views.join(", "))));
    }
    if empty > 0 {
        let way = "bring them back with breakglass pitr partial --fill-column NAME, or --without-column NAME";
        let detail = format!("{empty} were made again and are empty where there were values, named above; {way}");
        checks.push(seen("columns", false, detail));
    }
    if columns > 0 {
        let way = "say what became of them: --column OLD=NEW or --without-column NAME";
        checks.push(seen(
            "columns",
            false,
            format!("{columns} are in the recovered instance only, named above; {way}"),
        ));
    }
    if unsure > 0 {
        let detail = format!("of {unsure} rows changed since it cannot be told whether they are the same ones");
        checks.push(Seen { name: "changed since".into(), verdict: Verdict::NotAvailable, detail });
    }
    let mut c = verify::open(&reach::database(ctx)?, args.statement_timeout).await?;
    let tables = user_tables(&mut c).await?;
    checks.push(check_constraints(&mut c, &tables, &ctx.cancel).await?);
    let mut facts = Vec::new();
    // Whoever waits for the service to be well with writes off waits in vain.
    let off = writes_off(&mut c).await?;
    if off {
        let why = "off since the containment; to turn them on again: breakglass contain --keep-writes";
        checks.push(seen("writes", false, why.into()));
    }
    if let Some(url) = &ctx.settings.service.health_url {
        let wait = if off { Duration::ZERO } else { args.wait };
        ctx.out.line(&format!("waiting until {url} has been well for {}", format_clock(args.good_for)));
        let health = health::wait_healthy(url, args.good_for, wait, &*Follow::new(ctx), &ctx.cancel).await?;
        checks.push(seen("health", health.healthy, health.describe()));
        facts.push(Event::HealthSeen { healthy: health.healthy, components: health.components });
    }
    for c in &checks {
        let mark = match c.verdict {
            Verdict::Passed => "✓",
            Verdict::Failed => "✗",
            Verdict::NotAvailable => "?",
        };
        ctx.out.line(&format!("{mark} {:<12} {}", c.name, c.detail));
    }
    let bad: Vec<&str> = checks.iter().filter(|c| c.verdict == Verdict::Failed).map(|c| c.name.as_str()).collect();
    let passed = bad.is_empty();
    let back = match (left_out > 0 || !views.is_empty(), unsure > 0) {
        (false, false) => "everything that was lost is back",
        (true, _) => "what can be brought back is back, what was left out was accepted",
        (false, true) => "no row is missing, but not of all can be told that they are the same ones",
    };
    let done = match passed {
        true if ctx.settings.service.health_url.is_none() => {
            Done::ok(format!("{back}; whether the service is well is not known: {}", health::NO_CHECK))
        }
        true => Done::ok(format!("{back}, and the service is well")),
        false => Done::check_failed(format!("not as it should be: {}", bad.join(", "))),
    };
    // Nothing went back in time, so no transaction is given up: what is lost is what could not be brought back.
    let rows = (missing + left_out > 0).then(|| (args.tables.join(", "), missing + left_out)).into_iter().collect();
    let json = serde_json::json!({"passed": passed, "checks": checks, "missing": missing, "left_out": left_out, "tables": parts});
    facts.insert(0, Event::ServiceVerified { passed, checks });
    facts.push(Event::LossMeasured { loss: Loss { window_ms: 0, transactions: Some(0), rows, at_most: false } });
    Ok(Done { facts, ..done.json(json) })
}
