//! `pitr range`: what can be recovered to, from the repository alone. Reads only.

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::pitr_locate::range_fact;
use super::target::{blocking, parse_args, scratch, unlock};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::Result;
use crate::model::Time;
use crate::model::plan::Risk;
use crate::postgres::Lsn;
use crate::recovery::range::{Reach, range, ranges};

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
            let repository = ctx.settings.repository.clone().unwrap_or_default();
            Ok(Preview { lines: vec![format!("reads the repository {repository}")], ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let work = ctx.clone();
            let all = blocking(move || {
                let (unlocked, _) = unlock(&work)?;
                let (programs, scratch) = (reach::programs_when_needed(&work), scratch(&work));
                match args.timeline {
                    Some(t) => range(&unlocked, &programs, Some(t), &scratch).map(|r| vec![r]),
                    None => ranges(&unlocked, &programs, &scratch),
                }
            })
            .await?;
            for r in &all {
                show(ctx, r);
            }
            let Some(reach) = all.last() else { return Ok(Done::check_failed("nothing is archived")) };
            let said = |t: Option<Time>| t.map_or("nothing".to_string(), |t| t.to_string());
            let latest = reach.latest.as_ref().map(|c| c.at);
            let mut json = document(reach);
            json["timelines"] = all.iter().map(document).collect();
            let fact = range_fact(reach);
            let done = match (reach.earliest, reach.holes.is_empty()) {
                (None, _) => Done::check_failed("nothing can be recovered to: there is no base backup"),
                (Some(_), false) => Done::check_failed("the log has holes"),
                (Some(e), true) => Done::ok(format!("{} to {}", e.date_hms(), said(latest))),
            };
            Ok(done.fact(fact).json(json))
        })
    }
}

fn show(ctx: &Ctx, r: &Reach) {
    let at = |t: Option<Time>, lsn: Option<Lsn>| match (t, lsn) {
        (Some(t), Some(lsn)) => format!("{t} at {lsn}"),
        (Some(t), None) => t.to_string(),
        (None, _) => "nothing".to_string(),
    };
    let latest = r.latest.as_ref();
    ctx.out.line(&format!("timeline  {}", r.timeline));
    ctx.out.line(&format!("earliest  {}", at(r.earliest, r.earliest_lsn)));
    ctx.out.line(&format!("latest    {}", at(latest.map(|c| c.at), latest.map(|c| c.lsn))));
    for b in &r.backups {
        let from = b.start_lsn.clone().unwrap_or_default();
        ctx.out.line(&format!("backup    {} from {from}, complete at {}", b.id, b.finished_at));
    }
    for h in &r.holes {
        ctx.out.line(&format!("HOLE      {} to {}: {}", h.first, h.last, h.why));
    }
    if r.unread > 0 {
        let what = format!("{} segments are not in the index: breakglass wal index reads them once", r.unread);
        ctx.out.line(&format!("index     {what}"));
    }
}

fn document(r: &Reach) -> serde_json::Value {
    serde_json::json!({
        "timeline": r.timeline, "earliest": r.earliest, "earliest_lsn": r.earliest_lsn.map(|l| l.to_string()),
        "latest": r.latest.as_ref().map(|c| c.at), "latest_lsn": r.latest.as_ref().map(|c| c.lsn.to_string()),
        "last_segment": r.last_segment, "end_lsn": r.end_lsn.map(|l| l.to_string()),
        "backups": r.backups.iter().map(|b| b.id.clone()).collect::<Vec<_>>(), "holes": r.holes,
        "segments_not_indexed": r.unread,
    })
}
