//! `pitr range`: what can be recovered to, from the repository alone. Reads only.

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::pitr_locate::range_fact;
use super::target::{blocking, parse_args, scratch, unlock};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::Result;
use crate::model::plan::Risk;
use crate::recovery::range::range;

/// The action `pitr range`.
pub struct Range;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// Timeline; the newest by default
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
            let reach = blocking(move || {
                let (unlocked, _) = unlock(&work)?;
                range(&unlocked, &reach::programs(&work, None)?, args.timeline, &scratch(&work))
            })
            .await?;
            let said = |t: Option<crate::model::Time>| t.map_or("nothing".to_string(), |t| t.to_string());
            let latest = reach.latest.as_ref().map(|c| c.at);
            ctx.out.line(&format!("timeline  {}", reach.timeline));
            ctx.out.line(&format!("earliest  {}", said(reach.earliest)));
            ctx.out.line(&format!("latest    {}", said(latest)));
            for b in &reach.backups {
                let from = b.start_lsn.clone().unwrap_or_default();
                ctx.out.line(&format!("backup    {} from {from}, complete at {}", b.id, b.finished_at));
            }
            for h in &reach.holes {
                ctx.out.line(&format!("HOLE      {} to {}: {}", h.first, h.last, h.why));
            }
            let json = serde_json::json!({
                "timeline": reach.timeline, "earliest": reach.earliest, "latest": latest, "last_segment": reach.last_segment,
                "backups": reach.backups.iter().map(|b| b.id.clone()).collect::<Vec<_>>(), "holes": reach.holes,
            });
            let fact = range_fact(&reach);
            let done = match (reach.earliest, reach.holes.is_empty()) {
                (None, _) => Done::check_failed("nothing can be recovered to: there is no base backup"),
                (Some(_), false) => Done::check_failed("the log has holes"),
                (Some(e), true) => Done::ok(format!("{} to {}", e.date_hms(), said(latest))),
            };
            Ok(done.fact(fact).json(json))
        })
    }
}
