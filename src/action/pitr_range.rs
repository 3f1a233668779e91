//! `pitr range`: what can be recovered to, from the repository alone. Reads only.

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::target::parse_args;
use super::{Action, Ctx, Done, Preview, Spec, along, backend};
use crate::error::{Error, Result};
use crate::model::Time;
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::postgres::Lsn;
use crate::recovery::backend::{Reachable, Recovery};
use crate::recovery::range::tablespace::InTheWay;

/// The action `pitr range`.
pub struct Range;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// Only this timeline; by default every one, the newest last
    #[arg(long, value_name = "N")]
    timeline: Option<u32>,
}

impl Action for Range {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr range",
            about: "Show what can be recovered to: earliest, latest, holes",
            risk: Risk::Read,
            fallback: "Look for the oldest base backup and the first missing segment after it.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("range"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let _: Args = parse_args(self.arguments(), args)?;
            let line = match ctx.settings.backend {
                crate::config::Backend::Native => {
                    format!("reads the repository {}", ctx.settings.repository.clone().unwrap_or_default())
                }
                other => format!("asks {}", other.word()),
            };
            Ok(Preview { lines: vec![line], ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let recovery = backend::recovery(ctx).await?;
            let all = recovery.range(args.timeline).await?;
            for r in &all {
                show(ctx, r);
            }
            let stranger = if recovery.abilities().beside { along::stranger(ctx, &recovery).await } else { None };
            let rolled_back = all.last().and_then(|r| r.rolled_back.as_ref());
            let problems: Vec<&Error> = stranger.iter().chain(rolled_back).collect();
            for p in &problems {
                ctx.out.line(&format!("PROBLEM   {}", p.sentence()));
            }
            let Some(reach) = all.last() else { return Ok(Done::check_failed("nothing is archived")) };
            let said = |t: Option<Time>| t.map_or("nothing".to_string(), |t| t.to_string());
            let latest = reach.latest;
            let mut json = document(reach);
            json["timelines"] = all.iter().map(document).collect();
            json["backend"] = recovery.backend().word().into();
            json["abilities"] = serde_json::to_value(recovery.abilities()).unwrap_or_default();
            json["rolled_back"] = rolled_back.is_some().into();
            json["problems"] = problems.iter().map(|p| p.sentence()).collect();
            limits(ctx, &*recovery);
            let fact = fact(reach);
            let mut done = match (reach.earliest, reach.holes.is_empty()) {
                (None, _) if reach.timeline.is_none() => Done::check_failed("no moment can be recovered to"),
                (None, _) => Done::check_failed("nothing can be recovered to: there is no base backup"),
                (Some(_), false) => Done::check_failed("the log has holes"),
                (Some(e), true) if !reach.tablespaces.is_empty() => Done::check_failed(format!(
                    "{} to {}, and not all of it: the log creates a tablespace",
                    e.date_hms(),
                    said(latest)
                )),
                (Some(_), true) if reach.undamaged_from().is_none() => Done::check_failed(
                    "only DAMAGED base backups lead there: take a new one now (breakglass backup create --physical)",
                ),
                (Some(e), true) if reach.undamaged_from() > Some(e) => Done::ok(format!(
                    "{} to {}; before that, from {} on, only from a DAMAGED base backup",
                    said(reach.undamaged_from()),
                    said(latest),
                    e.date_hms()
                )),
                (Some(e), true) => Done::ok(format!("{} to {}", e.date_hms(), said(latest))),
            };
            if !problems.is_empty() {
                let what: Vec<&str> = problems.iter().map(|p| p.what.as_str()).collect();
                done = Done::check_failed(format!("{}; by what is there: {}", what.join("; "), done.summary));
            }
            Ok(done.fact(fact).json(json))
        })
    }
}

/// What somebody else's recovery cannot do, so that nobody finds out in the middle.
fn limits(ctx: &Ctx, recovery: &dyn Recovery) {
    if recovery.backend() == crate::config::Backend::Native {
        return;
    }
    for c in recovery.abilities().cannot {
        ctx.out.line(&format!("cannot    {}: {}; instead: {}", c.what, c.why, c.instead));
    }
}

fn fact(r: &Reachable) -> Event {
    Event::RangeSeen {
        earliest: r.earliest,
        latest: r.latest,
        holes: r
            .holes
            .iter()
            .map(|h| format!("{} to {}: {}", h.first, h.last, h.why))
            .chain(r.tablespaces.iter().map(InTheWay::sentence))
            .collect(),
    }
}

fn show(ctx: &Ctx, r: &Reachable) {
    let at = |t: Option<Time>, lsn: Option<Lsn>| match (t, lsn) {
        (Some(t), Some(lsn)) => format!("{t} at {lsn}"),
        (Some(t), None) => t.to_string(),
        (None, _) => "nothing".to_string(),
    };
    if let Some(timeline) = r.timeline {
        ctx.out.line(&format!("timeline  {timeline}"));
    }
    let rests = match (r.earliest, r.undamaged_from()) {
        (Some(_), None) => "; DAMAGED: every base backup that leads there was found damaged".to_string(),
        (Some(e), Some(from)) if from > e => format!("; DAMAGED: from an undamaged base backup only from {from} on"),
        _ => String::new(),
    };
    ctx.out.line(&format!("earliest  {}{rests}", at(r.earliest, r.earliest_lsn)));
    ctx.out.line(&format!("latest    {}", at(r.latest, r.latest_lsn)));
    for b in &r.backups {
        let from = b.from.as_ref().map_or_else(String::new, |f| format!(" from {f},"));
        let complete = b.finished_at.map_or_else(|| "its time is not told".to_string(), |t| format!("complete at {t}"));
        let damaged = b.damaged.as_ref().map_or_else(String::new, |d| format!("; {d}"));
        ctx.out.line(&format!("backup    {}{from} {complete}{damaged}", b.id));
    }
    for h in &r.holes {
        ctx.out.line(&format!("HOLE      {} to {}: {}", h.first, h.last, h.why));
    }
    for t in &r.tablespaces {
        ctx.out.line(&format!("ENDS AT   {}", t.sentence()));
    }
    if let Some(unread) = r.unread.filter(|n| *n > 0) {
        let what = format!(
            "{unread} segments are not in the index, so damage inside them is not known, nor every tablespace made in them: breakglass \
             wal index reads them once"
        );
        ctx.out.line(&format!("index     {what}"));
    }
    if let Some(touched) = r.touched.filter(|n| *n > 0) {
        ctx.out.line(&format!(
            "touched   {touched} segments were written, moved or copied since they were read, and are the same objects still: breakglass \
             wal index reads them again"
        ));
    }
    if let Some(at) = r.read_since {
        ctx.out.line(&format!(
            "read      every byte of the log last on {} or later; what was flipped in it since shows when it is read: breakglass backup \
             verify --all, or pitr check for what one moment needs",
            at.date_hms()
        ));
    }
    for note in &r.notes {
        ctx.out.line(&format!("note      {note}"));
    }
}

fn document(r: &Reachable) -> serde_json::Value {
    serde_json::json!({
        "timeline": r.timeline, "earliest": r.earliest, "earliest_lsn": r.earliest_lsn.map(|l| l.to_string()),
        "latest": r.latest, "latest_lsn": r.latest_lsn.map(|l| l.to_string()),
        "last_segment": r.last_segment, "end_lsn": r.end_lsn.map(|l| l.to_string()),
        "backups": r.backups.iter().map(|b| b.id.clone()).collect::<Vec<_>>(), "holes": r.holes,
        "tablespaces": r.tablespaces, "earliest_undamaged": r.undamaged_from(),
        "backups_damaged": r.backups.iter()
            .filter_map(|b| Some(serde_json::json!({"backup": b.id, "why": b.damaged.as_ref()?}))).collect::<Vec<_>>(),
        "segments_not_indexed": r.unread, "segments_touched": r.touched, "log_last_read": r.read_since, "notes": r.notes,
    })
}
