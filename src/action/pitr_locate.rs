//! `pitr locate`: find the moment, with what restoring to it would lose. Reads only.

use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::target::{Follow, blocking, now, parse_args, scratch, seen, unlock};
use super::{Action, Ctx, Done, Preview, Spec, log_suspects, reach};
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY};
use crate::error::{Context as _, ErrorKind, Result};
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::target::{Candidate, Loss, RecoveryTarget};
use crate::model::{Time, format_clock, parse_duration};
use crate::recovery::Located;
use crate::recovery::exposure;
use crate::recovery::locate::{LocateOptions, locate};
use crate::recovery::range::{Ask, Reach, range, route};
use crate::recovery::tables::commit_times;

/// How far back a search goes when nothing says otherwise.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3600);

/// The action `pitr locate`.
pub struct Locate;

/// Where to look for suspects.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Search {
    /// Look at what was committed since then: a time with a zone, or how long ago (2h). Default: 24 hours, or what can be recovered
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Suspects committed before this time only
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    pub until: Option<Time>,
    /// Only this table; may be given several times
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// A transaction that marks so many rows is a suspect. Default: ten times what is usual
    #[arg(long, value_name = "N")]
    pub min_rows: Option<u64>,
    /// Only what took something away: rows deleted, tables emptied or dropped, by the archived log
    #[arg(long)]
    pub deleted: bool,
    /// Longest time for one table
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5m")]
    pub statement_timeout: Duration,
}

/// What a search found, and since when it looked.
pub struct Found {
    /// What was found.
    pub located: Located,
    /// Since when.
    pub since: Time,
    /// What can be recovered to, when the repository could be read.
    pub reach: Option<Reach>,
}

impl Action for Locate {
    fn spec(&self) -> Spec {
        Spec {
            name: "pitr locate",
            about: "Find the transactions that did the damage, and what going back before them loses",
            risk: Risk::Read,
            fallback: "Group the rows of a damaged table by xmin and look at pg_xact_commit_timestamp(xmin), or choose a time \
                       from the deploy log.",
        }
    }
    fn arguments(&self) -> Command {
        Search::augment_args(Command::new("locate"))
    }
    fn preview<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Preview>> {
        Box::pin(async move {
            let _: Search = parse_args(self.arguments(), args)?;
            let at = reach::source(ctx)?;
            let (_, id) = seen(ctx, &at).await?;
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: id.clone() }];
            Ok(Preview { lines: vec![format!("reads every table of {at} once")], target: Some(id), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: Search = parse_args(self.arguments(), args)?;
            let at = reach::source(ctx)?;
            let (_, id) = seen(ctx, &at).await?;
            let (mut found, unknown) = match search(ctx, &args).await {
                // A dropped table is in no catalog; the log may still know it.
                Err(e) if e.kind == ErrorKind::Usage && !args.tables.is_empty() => {
                    let mut found = search(ctx, &Search { tables: Vec::new(), ..args.clone() }).await?;
                    found.located.candidates.clear();
                    found.located.groups.clear();
                    (found, Some(e))
                }
                other => (other?, None),
            };
            if args.deleted {
                // Rows that are still there cannot tell of rows that are not.
                found.located.candidates.clear();
                found.located.groups.clear();
            }
            check_reach(ctx, &mut found, id.timeline).await?;
            let whole = whole_log(ctx, &found).await;
            remember(ctx, &found, whole.is_some())?;
            let known: Vec<u32> = found.located.groups.iter().flat_map(|g| g.xids()).collect();
            let from_log = log_suspects::look(ctx, &args, found.since, found.reach.as_ref(), id.timeline, &known).await;
            found.located.candidates.extend(from_log.candidates);
            // A page that fails its checksum is damage for certain, a large transaction only a suspect.
            found.located.candidates.splice(0..0, whole);
            if let Some(e) = unknown.filter(|_| found.located.candidates.is_empty()) {
                return Err(e);
            }
            for note in &from_log.notes {
                ctx.out.line(note);
            }
            let mut done = report(ctx, &found, args.deleted);
            done.facts.insert(0, Event::TargetSeen { role: "source".into(), identity: id });
            Ok(done)
        })
    }
}

/// Looks for suspects in the damaged database. The window begins where recovery can begin, when that is known.
///
/// # Errors
/// As [`locate`].
pub async fn search(ctx: &Ctx, args: &Search) -> Result<Found> {
    let span = match range_now(ctx, None).await {
        // Where recovery can begin decides which rows are suspect at all: without it the first load of the data would be.
        Err(e) if args.since.is_none() => {
            return Err(e.hint("to search the rows alone, say from when: breakglass pitr locate --since 2h"));
        }
        other => other.ok().flatten(),
    };
    let back = now().minus(LOOK_BACK);
    let since = match &args.since {
        Some(text) => match parse_duration(text) {
            Ok(ago) => now().minus(ago),
            Err(_) => Time::parse(text).map_err(crate::error::Error::usage)?,
        },
        None => span.as_ref().and_then(|r| r.earliest).map_or(back, |e| e.max(back)),
    };
    let options = LocateOptions {
        since,
        until: args.until,
        tables: args.tables.clone(),
        min_rows: args.min_rows,
        statement_timeout: args.statement_timeout,
    };
    let source = reach::source(ctx)?;
    if span.is_some() {
        let mut c = source.connect_read_only(Duration::from_secs(2), Duration::from_secs(30)).await?;
        if !commit_times(&mut c).await? {
            ctx.out.line(
                "the server records no commit times (track_commit_timestamp is off): its rows cannot tell when they were \
                 written, and the archived log alone is searched",
            );
            return Ok(Found { located: Located::default(), since, reach: span });
        }
    }
    let located = locate(&source, &options, &*Follow::new(ctx), &ctx.cancel).await?;
    Ok(Found { located, since, reach: span })
}

/// What can be recovered to; none when no repository or no passphrase is configured, which others say where it matters.
///
/// # Errors
/// There is one and it cannot be read, or the disk for scratch files is full.
pub async fn range_now(ctx: &Ctx, timeline: Option<u32>) -> Result<Option<Reach>> {
    let opens = [REPOSITORY_KEY, REPOSITORY_IDENTITY].iter().any(|k| ctx.secrets.get(k).is_some());
    if ctx.settings.repository.is_none() || !opens {
        return Ok(None);
    }
    let ctx = ctx.clone();
    blocking(move || {
        let (unlocked, _) = unlock(&ctx)?;
        range(&unlocked, &reach::programs_when_needed(&ctx), timeline, &scratch(&ctx)).map(Some)
    })
    .await
}

/// Looks the candidates up in the archived log: there the order of commits is exact. The earliest suspect of the log is the
/// target, and a candidate that cannot be reached says so.
///
/// # Errors
/// It could not be looked at. That a moment cannot be reached is an answer, not an error.
async fn check_reach(ctx: &Ctx, found: &mut Found, timeline: u32) -> Result<()> {
    let work = ctx.clone();
    let Ok((unlocked, _)) = blocking(move || unlock(&work)).await else {
        ctx.out.line("whether the archive reaches these moments is not known: no repository, or no passphrase");
        return Ok(());
    };
    for (candidate, group) in found.located.candidates.iter_mut().zip(&found.located.groups) {
        let (work, target, suspects) = (ctx.clone(), candidate.target.clone(), group.xids());
        let (follow, unlocked) = (Follow::new(ctx), unlocked.clone());
        let way = blocking(move || {
            let scratch = scratch(&work);
            let ask = Ask { suspects: &suspects, timeline: Some(timeline), ..Ask::to(&target, &scratch) };
            route(&unlocked, &reach::programs(&work, None)?, &ask, &*follow, &work.cancel)
        })
        .await;
        match way {
            Ok(way) => {
                if let Some(first) = way.first_lost {
                    candidate.lsn = Some(first.lsn.to_string());
                    candidate.at = first.at;
                    candidate.xid = Some(first.xid.to_string());
                    candidate.target = RecoveryTarget::Xid(first.xid.to_string());
                }
            }
            Err(e) if matches!(e.kind, ErrorKind::Refused | ErrorKind::Check) => {
                ctx.out.line(&format!("{}: {}; {}", candidate.target, e.what, e.why));
            }
            Err(e) => return Err(e.hint("the order of the suspects is not known without the log; none is offered")),
        }
    }
    Ok(())
}

/// The end of the log as a moment, when pages are damaged on disk: a recovery rebuilds them, and nothing need be lost.
async fn whole_log(ctx: &Ctx, found: &Found) -> Option<Candidate> {
    let damaged = &found.located.damaged;
    damaged.first()?;
    let mut c =
        reach::source(ctx).ok()?.connect_read_only(Duration::from_secs(2), Duration::from_secs(10)).await.ok()?;
    let behind = exposure::measure(&mut c, &exposure::held_in(&ctx.settings)).await.ok().flatten();
    let pages: usize = damaged.iter().map(|d| d.pages.len()).sum();
    let (word, they) = if pages == 1 { ("page is", "it") } else { ("pages are", "them") };
    let tables: Vec<String> = damaged.iter().map(|d| d.describe()).collect();
    Some(Candidate {
        target: RecoveryTarget::Latest,
        at: found
            .reach
            .as_ref()
            .and_then(|r| r.latest.as_ref())
            .map(|c| c.at)
            .or(found.located.last_commit)
            .unwrap_or_else(now),
        xid: None,
        lsn: None,
        tables: damaged.iter().map(|d| d.table.clone()).collect(),
        rows: damaged.iter().map(|d| d.rows).sum(),
        what: format!(
            "{pages} {word} damaged on disk ({}); the log does not hold that damage: recovered to its end, backup and log \
             make {they} again",
            tables.join("; ")
        ),
        loses: Loss {
            window_ms: behind.as_ref().map_or(0, |e| u64::try_from(e.exposure.as_millis()).unwrap_or(u64::MAX)),
            at_most: behind.is_none_or(|e| e.at_most),
            ..Loss::default()
        },
    })
}

/// Name of the file in the incident's folder that says which transactions belong to each moment offered.
const MOMENTS: &str = "moments.json";

/// Keeps the transactions of every act, so that the restore need not look for them again.
fn remember(ctx: &Ctx, found: &Found, whole: bool) -> Result<()> {
    let Some(dir) = &ctx.incident_dir else { return Ok(()) };
    let acts = found.located.candidates.iter().zip(&found.located.groups).map(|(c, g)| (c.target.clone(), g.xids()));
    let end = whole.then(|| (RecoveryTarget::Latest, Vec::new()));
    let list: Vec<(RecoveryTarget, Vec<u32>)> = end.into_iter().chain(acts).collect();
    let text = serde_json::to_string(&list).state(|| "cannot keep the suspects".into())?;
    crate::postgres::user::own_file(&dir.join(MOMENTS), &text, None)
}

/// Keeps the transactions of one act that was found otherwise.
///
/// # Errors
/// The file cannot be written.
pub fn remember_acts(ctx: &Ctx, target: &RecoveryTarget, xids: &[u32]) -> Result<()> {
    let Some(dir) = &ctx.incident_dir else { return Ok(()) };
    let text = serde_json::to_string(&[(target, xids)]).state(|| "cannot keep the suspects".into())?;
    crate::postgres::user::own_file(&dir.join(MOMENTS), &text, None)
}

/// The transactions of the act before which this target lies, as they were found last; none when it is another target.
pub fn remembered(ctx: &Ctx, target: &RecoveryTarget) -> Option<Vec<u32>> {
    let text = std::fs::read_to_string(ctx.incident_dir.as_ref()?.join(MOMENTS)).ok()?;
    let list: Vec<(RecoveryTarget, Vec<u32>)> = serde_json::from_str(&text).ok()?;
    list.into_iter().find(|(t, _)| t == target).map(|(_, xids)| xids)
}

/// The transactions of the first suspect act found last: what must not be in a recovery to a moment of a person's own either.
pub fn first_remembered(ctx: &Ctx) -> Vec<u32> {
    let read = || {
        let text = std::fs::read_to_string(ctx.incident_dir.as_ref()?.join(MOMENTS)).ok()?;
        serde_json::from_str::<Vec<(RecoveryTarget, Vec<u32>)>>(&text).ok()
    };
    // A recovery to the end of the log is offered where no transaction did it.
    let first = |list: Vec<(RecoveryTarget, Vec<u32>)>| list.into_iter().find(|(t, _)| *t != RecoveryTarget::Latest);
    read().and_then(first).map(|(_, xids)| xids).unwrap_or_default()
}

fn report(ctx: &Ctx, found: &Found, deleted: bool) -> Done {
    let located = &found.located;
    for (i, c) in located.candidates.iter().enumerate() {
        match c.target {
            RecoveryTarget::Latest => ctx.out.line(&format!("{}. all that is archived, up to {}", i + 1, c.at)),
            _ => ctx.out.line(&format!("{}. before {} at {}", i + 1, c.target, c.at)),
        }
        ctx.out.line(&format!("   {}", c.what));
        // Of what was taken away the rows alone are brought back, and what came after stays.
        let word = if deleted { "not in a copy of then, and stays in the live database:" } else { "loses" };
        ctx.out.line(&format!("   {word} {}", loss_line(c)));
    }
    if !located.other_databases.is_empty() && !located.candidates.is_empty() {
        ctx.out.line(&format!("rewound as well: {}", located.other_databases.join(", ")));
    }
    for (table, why) in &located.unread {
        ctx.out.line(&format!("not in the figures: {table}, {why}"));
    }
    let json = serde_json::json!({
        "candidates": located.candidates, "threshold_rows": located.threshold, "since": found.since,
        "other_databases": located.other_databases, "unread": located.unread,
    });
    let mut facts = Vec::new();
    if let Some(r) = &found.reach {
        facts.push(range_fact(r));
    }
    facts.push(Event::MomentsFound { candidates: located.candidates.clone() });
    let mut done = match located.candidates.first() {
        Some(c) if c.target == RecoveryTarget::Latest => Done::ok(c.what.clone()),
        Some(c) => Done::ok(format!("before {} at {}: {}", c.target, c.at.hms(), c.what)),
        None => {
            ctx.out.line("nothing in the rows and nothing in the archived log; widen the search with --since, --min-rows or --table");
            Done::check_failed("no suspect transaction was found")
        }
    };
    done.facts = facts;
    done.json(json)
}

/// What a candidate would lose, for people.
pub fn loss_line(c: &Candidate) -> String {
    let mut text = format_clock(Duration::from_millis(c.loses.window_ms));
    if let Some(n) = c.loses.transactions {
        text.push_str(&format!(", {n} transactions"));
    }
    if !c.loses.rows.is_empty() {
        let rows: Vec<String> = c.loses.rows.iter().map(|(t, n)| format!("{t} {n}")).collect();
        text.push_str(&format!("; rows written since: {}", rows.join(", ")));
    }
    text
}

/// The range as a fact.
pub fn range_fact(r: &Reach) -> Event {
    Event::RangeSeen {
        earliest: r.earliest,
        latest: r.latest.as_ref().map(|c| c.at),
        holes: r.holes.iter().map(|h| format!("{} to {}: {}", h.first, h.last, h.why)).collect(),
    }
}
