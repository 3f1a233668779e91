//! `pitr locate`: find the moment, with what restoring to it would lose. Reads only.

use std::time::Duration;

use clap::{Args as _, Command};
use futures::future::BoxFuture;

use super::log_suspects::{Place, Searched, look};
use super::offered::{Offered, asked, in_order, remember};
use super::target::{Follow, blocking, now, parse_args, scratch, seen, unlock};
use super::{Action, Ctx, Done, Preview, Spec, reach};
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY};
use crate::error::{Error, ErrorKind, Result};
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::target::{Candidate, Identity, Loss, RecoveryTarget};
use crate::model::{Time, format_clock, parse_duration};
use crate::postgres::Database;
use crate::recovery::Located;
use crate::recovery::backend::known_damage;
use crate::recovery::exposure;
use crate::recovery::locate::{LocateOptions, locate};
use crate::recovery::range::{Ask, Base, Reach, range, route};
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
    /// A transaction that marks so many rows is a suspect. Default: ten times what is usual; in the log 100, and 1 % of a table
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
            let (at, id) = match answers(ctx).await {
                Ok(found) => found,
                Err(e) if e.kind == ErrorKind::Refused || !opens_repository(ctx) => return Err(e),
                Err(e) => {
                    let lines = vec![format!("reads the archived log alone: {e}")];
                    return Ok(Preview { lines, ..Preview::default() });
                }
            };
            let facts = vec![Event::TargetSeen { role: "source".into(), identity: id.clone() }];
            Ok(Preview { lines: vec![format!("reads every table of {at} once")], target: Some(id), facts })
        })
    }
    fn run<'a>(&'a self, ctx: &'a Ctx, args: &'a [String]) -> BoxFuture<'a, Result<Done>> {
        Box::pin(async move {
            let args: Search = parse_args(self.arguments(), args)?;
            match answers(ctx).await {
                Ok((_, id)) => with_server(ctx, &args, id).await,
                Err(e) if e.kind == ErrorKind::Refused || !opens_repository(ctx) => Err(e),
                Err(e) => from_archive(ctx, &args, &e).await,
            }
        })
    }
}

/// The damaged server, when it answers.
async fn answers(ctx: &Ctx) -> Result<(Database, Identity)> {
    let at = reach::source(ctx)?;
    let (_, id) = seen(ctx, &at).await?;
    Ok((at, id))
}

async fn with_server(ctx: &Ctx, args: &Search, id: Identity) -> Result<Done> {
    let (mut found, unknown) = match search(ctx, args).await {
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
    let damaged = check_reach(ctx, &mut found, id.timeline).await?;
    let mut offered = in_log(ctx, args, &found, Some(&id)).await;
    // A page that fails its checksum is damage for certain, a large transaction only a suspect.
    let whole = whole_log(ctx, &found).await.map(|candidate| Offered { candidate, xids: Vec::new() });
    offered.all.splice(0..0, whole);
    if let Some(e) = unknown.filter(|_| offered.all.is_empty()) {
        return Err(e);
    }
    remember(ctx, &offered.all)?;
    let mut done = report(ctx, &found, &offered, args.deleted);
    let one = |(backup, why): &(String, String)| serde_json::json!({"backup": backup, "why": why});
    done.json["backups_damaged"] = damaged.iter().map(one).collect();
    done.facts.insert(0, Event::TargetSeen { role: "source".into(), identity: id });
    Ok(done)
}

/// The server is gone: what the archive knows by itself.
async fn from_archive(ctx: &Ctx, args: &Search, gone: &Error) -> Result<Done> {
    let Some(span) = range_now(ctx, None).await? else { return Err(Error::target(&gone.what).why(&gone.why)) };
    ctx.out.line(&format!("the archived log alone is searched: {gone}"));
    ctx.out.line(
        "not known without the server: what it wrote after the archived log ends, and which rows still bear a mark",
    );
    warn_of_holes(ctx, &span);
    let last = span.latest.as_ref().map_or_else(now, |c| c.at);
    let found = Found { located: Located::default(), since: since(args, &span, last)?, reach: Some(span) };
    let offered = in_log(ctx, args, &found, None).await;
    remember(ctx, &offered.all)?;
    Ok(report(ctx, &found, &offered, args.deleted))
}

/// What is offered, and how far the log was searched for it.
struct InLog {
    all: Vec<Offered>,
    /// None when it was not searched.
    searched: Option<Searched>,
}

/// Joins what was found in rows with what the log says. Why that could not be searched is told.
async fn in_log(ctx: &Ctx, args: &Search, found: &Found, live: Option<&Identity>) -> InLog {
    let Some(reach) = &found.reach else {
        return InLog { all: in_order(&found.located, None, args.deleted), searched: None };
    };
    let timeline = live.map_or(reach.timeline, |id| id.timeline);
    let place = Place { since: found.since, reach, timeline, live };
    match look(ctx, args, place, asked(&found.located)).await {
        Ok(log) => {
            log.notes.iter().for_each(|n| ctx.out.line(n));
            let searched = Some(log.searched.clone());
            InLog { all: in_order(&found.located, Some(log), args.deleted), searched }
        }
        Err(e) => {
            ctx.out.line(&format!("the archived log was not searched: {}; {}", e.what, e.why));
            InLog { all: in_order(&found.located, None, args.deleted), searched: None }
        }
    }
}

/// Since when is looked: as a person says, else from where recovery can begin, at most a day before `last`.
fn since(args: &Search, span: &Reach, last: Time) -> Result<Time> {
    match &args.since {
        Some(text) => said_since(text),
        None => {
            let back = last.minus(LOOK_BACK);
            Ok(span.earliest.map_or(back, |e| e.max(back)))
        }
    }
}

fn said_since(text: &str) -> Result<Time> {
    match parse_duration(text) {
        Ok(ago) => Ok(now().minus(ago)),
        Err(_) => Time::parse(text).map_err(Error::usage),
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
    let since = match (&args.since, &span) {
        (Some(text), _) => said_since(text)?,
        (None, Some(span)) => since(args, span, now())?,
        (None, None) => now().minus(LOOK_BACK),
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

/// Whether a repository is configured, and what opens it.
fn opens_repository(ctx: &Ctx) -> bool {
    let opens = [REPOSITORY_KEY, REPOSITORY_IDENTITY].iter().any(|k| ctx.secrets.get(k).is_some());
    ctx.settings.repository.is_some() && opens
}

/// What can be recovered to; none when no repository or no passphrase is configured, which others say where it matters.
///
/// # Errors
/// There is one and it cannot be read, or the disk for scratch files is full.
pub async fn range_now(ctx: &Ctx, timeline: Option<u32>) -> Result<Option<Reach>> {
    if !opens_repository(ctx) {
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
/// target, and a candidate that cannot be reached says so. What breaks the way there is said first; base backups on record as damaged
/// are returned, with what is wrong with them.
///
/// # Errors
/// It could not be looked at. That a moment cannot be reached is an answer, not an error.
async fn check_reach(ctx: &Ctx, found: &mut Found, timeline: u32) -> Result<Vec<(String, String)>> {
    let work = ctx.clone();
    let Ok((unlocked, _)) = blocking(move || unlock(&work)).await else {
        ctx.out.line("whether the archive reaches these moments is not known: no repository, or no passphrase");
        return Ok(Vec::new());
    };
    // A base backup that was found damaged leads nowhere, as for a restore.
    let (work, opened) = (ctx.clone(), unlocked.clone());
    let known = blocking(move || Ok(known_damage(&reach::catalog(&work, &opened)?))).await?;
    let on_way = |id: &String| found.reach.as_ref().is_some_and(|r| r.backups.iter().any(|m| m.id == *id));
    let damaged: Vec<(String, String)> = known.clone().into_iter().filter(|(id, _)| on_way(id)).collect();
    for (id, why) in &damaged {
        ctx.out.line(&format!(
            "WARNING: base backup {id} is damaged ({why}); moments that only it leads to cannot be recovered to: breakglass pitr check"
        ));
    }
    found.reach.iter().for_each(|r| warn_of_holes(ctx, r));
    let base = Base { known, ..Base::ANY };
    for (candidate, group) in found.located.candidates.iter_mut().zip(&found.located.groups) {
        let (work, target, suspects) = (ctx.clone(), candidate.target.clone(), group.xids());
        let (follow, unlocked, base) = (Follow::new(ctx), unlocked.clone(), base.clone());
        let way = blocking(move || {
            let scratch = scratch(&work);
            let ask = Ask { suspects: &suspects, timeline: Some(timeline), base: &base, ..Ask::to(&target, &scratch) };
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
    Ok(damaged)
}

fn warn_of_holes(ctx: &Ctx, reach: &Reach) {
    for hole in &reach.holes {
        ctx.out.line(&format!("WARNING: the log is broken at {} to {}: {}", hole.first, hole.last, hole.why));
    }
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

fn report(ctx: &Ctx, found: &Found, offered: &InLog, deleted: bool) -> Done {
    let located = &found.located;
    let candidates: Vec<&Candidate> = offered.all.iter().map(|o| &o.candidate).collect();
    for (i, c) in candidates.iter().enumerate() {
        match c.target {
            RecoveryTarget::Latest => ctx.out.line(&format!("{}. all that is archived, up to {}", i + 1, c.at)),
            // Other commands are told the transaction.
            _ => {
                let xid = c.xid.as_ref().filter(|_| !matches!(c.target, RecoveryTarget::Xid(_)));
                let xid = xid.map_or_else(String::new, |x| format!(", transaction {x}"));
                ctx.out.line(&format!("{}. before {} at {}{xid}", i + 1, c.target, c.at));
            }
        }
        ctx.out.line(&format!("   {}", c.what));
        // Of what was taken away the rows alone are brought back, and what came after stays.
        let word = if deleted { "not in a copy of then, and stays in the live database:" } else { "loses" };
        ctx.out.line(&format!("   {word} {}", loss_line(c)));
    }
    if !located.other_databases.is_empty() && !candidates.is_empty() {
        let others = located.other_databases.join(", ");
        ctx.out.line(&match deleted {
            true => {
                format!("a copy of then is of the whole server, with database {others}; only rows come back out of it")
            }
            false => format!("a restore is of the whole server: database {others} goes back with it"),
        });
    }
    for (table, why) in &located.unread {
        ctx.out.line(&format!("not in the figures: {table}, {why}"));
    }
    let searched = offered.searched.as_ref();
    // Rows that are still there were asked, or the log alone.
    let by_rows = !deleted && located.threshold > 0;
    let threshold = if by_rows { located.threshold } else { searched.map_or(0, |s| s.least) };
    let json = serde_json::json!({
        "candidates": candidates, "threshold_rows": threshold, "since": found.since,
        "other_databases": located.other_databases, "unread": located.unread,
        "log_searched_to": searched.and_then(|s| s.to).map(|(lsn, _)| lsn.to_string()),
        "log_searched_whole": searched.is_some_and(|s| s.left().is_none()),
        "log_gaps": searched.map(|s| &s.gaps), "log_threshold_rows": searched.map(|s| s.least),
        "smaller": searched.map(|s| s.smaller),
    });
    let mut facts = Vec::new();
    if let Some(r) = &found.reach {
        facts.push(range_fact(r));
    }
    facts.push(Event::MomentsFound { candidates: candidates.iter().map(|c| (*c).clone()).collect() });
    let mut done = match candidates.first() {
        Some(c) if c.target == RecoveryTarget::Latest => Done::ok(c.what.clone()),
        Some(c) => {
            let hole = searched.and_then(Searched::hole).map_or_else(String::new, |h| format!("; {h}"));
            Done::ok(format!("before {} at {}: {}{hole}", c.target, c.at.hms(), c.what))
        }
        None => {
            let small = searched.and_then(Searched::passed_over).is_some();
            let nothing = if small { "nothing large" } else { "nothing" };
            let fewer = (by_rows && threshold > 1) || small;
            let widen =
                if fewer { "widen the search with --since or --min-rows 1" } else { "widen the search with --since" };
            let (line, summary) = match searched.map(|s| (s.to, s.left())) {
                None => (
                    format!("nothing stands out in the rows, and the log was not searched; {widen}"),
                    "no suspect transaction was found in the rows; the log was not searched".to_string(),
                ),
                Some((_, None)) => (
                    format!("{nothing} in the rows and {nothing} in the log; {widen}"),
                    "no suspect transaction was found".into(),
                ),
                Some((Some((lsn, _)), Some(left))) => (
                    format!("{nothing} in the rows, and {nothing} in the archived log up to {lsn}; {left}; or {widen}"),
                    format!("no suspect transaction was found in the archived log up to {lsn}; {left}"),
                ),
                Some((None, Some(left))) => (
                    format!("nothing stands out in the rows, and no log could be searched: {left}"),
                    format!("no suspect transaction was found, and no log could be searched: {left}"),
                ),
            };
            ctx.out.line(&line);
            Done::check_failed(summary)
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
        // Rows alone tell neither what was deleted since nor what was changed twice; the log does.
        let how = if c.lsn.is_some() { "inserted, updated or deleted" } else { "written" };
        text.push_str(&format!("; rows {how} since: {}", rows.join(", ")));
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
