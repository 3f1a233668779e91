//! `pitr verify`: whether the recovered instance is what it should be, and what exactly is lost by it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::target::{Follow, parse_args, recovered, which_shadow, with_tables};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::error::{Error, Result};
use crate::model::event::{Check, Event, Verdict};
use crate::model::parse_duration;
use crate::model::plan::Risk;
use crate::postgres::Database;
use crate::recovery::loss::{Later, measure};
use crate::recovery::partial::open;
use crate::recovery::sequences::{self, Marks};
use crate::recovery::shadow::Shadow;
use crate::recovery::verify::{self, VerifyOptions};

/// The action `pitr verify`.
pub struct Verify;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// Folder of the recovered instance; the incident's by default
    #[arg(long, value_name = "DIR")]
    shadow: Option<PathBuf>,
    /// End the isolated shadow's recovery first, when the change it stands before keeps tables locked there; the loss is not
    /// measured then
    #[arg(long)]
    open_shadow: bool,
    /// Longest time for one statement
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30m")]
    statement_timeout: Duration,
}

impl Action for Verify {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr verify",
            about: "Verify the recovered instance against the damaged one",
            risk: Risk::Read,
            fallback: "Compare counts and a few known records by hand; run the foreign key queries and pg_amcheck.",
        }
    }
    fn arguments(&self) -> Command {
        Args::augment_args(Command::new("verify"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let args: Args = parse_args(self.arguments(), args)?;
            let s = which_shadow(ctx, args.shadow.as_deref()).await?;
            let line =
                format!("reads every table of the instance in {}, and of the damaged database", s.root.display());
            Ok(Preview { lines: vec![line], ..Preview::default() })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move { run(ctx, &parse_args(self.arguments(), args)?).await })
    }
}

async fn run(ctx: &Ctx, args: &Args) -> Result<Done> {
    let s = which_shadow(ctx, args.shadow.as_deref()).await?;
    let (at, in_place) = recovered(ctx, &s).await?;
    if args.open_shadow && !in_place {
        let recovery = super::backend::recovery_of(ctx, s.backend).await?;
        open::open(&s, at.name(), super::backend::origin(&*recovery)?).await?;
        ctx.out.line("the isolated shadow is open; it cannot be moved forward any more");
    }
    let source = match reach::replaced(ctx) {
        Ok(_) if went_apart(ctx, &s) => {
            ctx.out.line("not compared: it stands behind the moment from which what is in service went its own way");
            None
        }
        Ok(d) if !in_place => d.connect().await.is_ok().then_some(d),
        _ => None,
    };
    // Where the sequences of the damaged cluster stand, as long as it can be asked.
    if let Some(source) = &source
        && let Ok(marks) = sequences::read(source).await
    {
        marks.keep(&s.root, s.user()?.as_ref())?;
    }
    let follow = Follow::new(ctx);
    let options = VerifyOptions {
        shadow: at.clone(),
        source: source.clone(),
        suspects: s.suspects.clone(),
        statement_timeout: args.statement_timeout,
    };
    let mut checks = verify::verify(&options, &*follow, &ctx.cancel).await?;
    let mut c = verify::open(&at, args.statement_timeout).await?;
    let mut ids = sequences::check(&mut c, at.name(), Marks::load(&s.root).as_ref()).await?;
    if args.open_shadow && !in_place && ids.verdict == Verdict::Failed {
        // What was opened to be read gives out no number; only a promotion moves its sequences.
        ids.verdict = Verdict::NotAvailable;
        ids.detail = format!("it was opened to be read, not to be put into service: {}", ids.detail);
    }
    ctx.out.line(&verify::line(&ids));
    checks.push(ids);
    if ctx.settings.database.is_none() {
        checks.extend(others(ctx, &at, &options, &follow).await?);
    }
    let passed = verify::passed(&checks);
    let count = |v: Verdict| checks.iter().filter(|c| c.verdict == v).count();
    let mut summary = format!("{} checks passed", count(Verdict::Passed));
    if count(Verdict::NotAvailable) > 0 {
        summary.push_str(&format!(", {} not checked", count(Verdict::NotAvailable)));
    }
    if !passed {
        let bad: Vec<&str> = checks.iter().filter(|c| c.verdict == Verdict::Failed).map(|c| c.name.as_str()).collect();
        summary = format!("{} FAILED: {}", bad.len(), bad.join(", "));
    }
    let mut facts = vec![Event::ShadowVerified { passed, checks: checks.clone() }];
    let mut loss = None;
    let mut written_since = std::collections::BTreeMap::new();
    if args.open_shadow && source.is_some() {
        ctx.out.line("no loss to measure: this copy was opened, so that rows are brought back out of it; nothing goes back as a whole");
    } else if let Some(source) = source {
        match measured(ctx, &source, &at, &s, &follow).await {
            Ok(later) => {
                ctx.out.line(&loss_text(&later));
                facts.push(Event::LossMeasured { loss: later.loss.clone() });
                written_since = changed(&later).into_iter().map(|(t, n)| (t.to_string(), n)).collect();
                loss = Some(later.loss);
            }
            Err(e) if ctx.cancel.is_cancelled() => return Err(e),
            Err(e) => ctx.out.line(&format!("the loss is not measured: {e}")),
        }
    }
    let json = serde_json::json!({"passed": passed, "checks": checks, "loss": loss, "written_since": written_since});
    let mut done = if passed { Done::ok(summary) } else { Done::check_failed(summary) };
    done.facts = facts;
    Ok(done.json(json))
}

/// Nobody said which database is meant: the others of the instance are looked at as well, by themselves.
async fn others(ctx: &Ctx, at: &Database, options: &VerifyOptions, follow: &Follow) -> Result<Vec<Check>> {
    ctx.out.line(&format!(
        "{:?} was looked at as the largest database that has tables; if another is meant, name it: DATABASE_URL",
        at.name()
    ));
    let mut out = Vec::new();
    for name in with_tables(at).await?.into_iter().filter(|n| n != at.name()) {
        ctx.out.line(&format!("database {name:?}:"));
        let options = VerifyOptions { shadow: at.with_name(&name), source: None, ..options.clone() };
        let checks = verify::verify(&options, follow, &ctx.cancel).await?;
        // What is of the whole instance was said.
        let own = checks.into_iter().filter(|c| ["constraints", "indexes", "sequences"].contains(&c.name.as_str()));
        out.extend(own.map(|c| Check { name: format!("{} of {name}", c.name), ..c }));
    }
    Ok(out)
}

/// Whether it was recovered further than what was promoted before: from there on the two have no common history to compare.
fn went_apart(ctx: &Ctx, s: &Shadow) -> bool {
    let facts = ctx.incident.as_ref().map(|i| &i.facts);
    let fork = facts.filter(|f| f.promoted.is_some() && !f.shadow_promoted).and_then(|f| f.promoted_reached);
    fork.is_some_and(|fork| s.reached_time.is_none_or(|reached| reached > fork))
}

/// `lost: 0:41, 26 transactions; rows: public.orders 25`: what a recovery loses, for people.
pub fn loss_text(later: &Later) -> String {
    let rows: Vec<String> = later.loss.rows.iter().map(|(t, n)| format!("{t} {n}")).collect();
    let at_most = if later.loss.at_most { "at most " } else { "" };
    format!(
        "lost: {at_most}{}, {} transactions; rows the recovered database does not have: {}",
        crate::model::format_clock(Duration::from_millis(later.loss.window_ms)),
        later.loss.transactions.unwrap_or(0),
        if rows.is_empty() { "none".to_string() } else { rows.join(", ") }
    ) + &match changed(later).as_slice() {
        [] => String::new(),
        some => {
            let each: Vec<String> = some.iter().map(|(t, n)| format!("{t} {n}")).collect();
            format!(
                "; rows it has as they were before, written since or new under a key that was free again: {}",
                each.join(", ")
            )
        }
    }
}

/// How many rows of each table the recovered database has under the same key, and not as they were written last.
fn changed(later: &Later) -> Vec<(&str, usize)> {
    later.changed.iter().map(|(t, keys)| (t.as_str(), keys.len())).collect()
}

/// Measures what came after the moment, while the shadow still stands there, and keeps it beside the shadow: after the
/// promotion new rows take the keys of the lost ones.
///
/// # Errors
/// The shadow was opened or promoted already, or a query fails.
pub async fn measured(ctx: &Ctx, source: &Database, at: &Database, s: &Shadow, follow: &Follow) -> Result<Later> {
    let limit = Duration::from_secs(1800);
    let mut there = verify::open(at, limit).await?;
    let standing: bool = sqlx::query_scalar("SELECT pg_catalog.pg_is_in_recovery()")
        .fetch_one(&mut there)
        .await
        .map_err(|e| crate::postgres::connect::query_error("pg_is_in_recovery", &e))?;
    if !standing {
        return Err(Error::target("the recovered instance is open already, and takes changes of its own")
            .why("rows written to it since would be taken for old ones"));
    }
    let mut here = verify::open(source, limit).await?;
    let later = measure(&mut here, &mut there, &s.suspects, s.moment, follow, &ctx.cancel).await?;
    later.save(&s.root, s.user()?.as_ref())?;
    Ok(later)
}
