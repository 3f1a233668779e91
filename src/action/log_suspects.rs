//! Suspects out of the log, beside those that rows still show: rows deleted, tables emptied, tables and databases dropped
//! leave no row that could tell.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use super::pitr_locate::{Search, range_now};
use super::target::{blocking, unlock};
use super::{Ctx, reach};
use crate::backup::repository::Unlocked;
use crate::error::{Error, Result};
use crate::model::Time;
use crate::model::target::Identity;
use crate::postgres::Lsn;
use crate::recovery::promote::local_instance;
use crate::recovery::range::Reach;
use crate::recovery::wal_index;
use crate::recovery::wal_locate::{self, Deed, Gap, NameMap, Report, Rules, Smaller, Suspect, archive, snapshot};
use crate::recovery::watch::check_cancel;

/// What brings the rest of the log into the archive while the server goes on.
pub const ARCHIVE_THE_REST: &str = "breakglass contain --keep-writes archives it, then search again";

/// Where to search: since when, and in whose log.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Since when.
    pub since: Time,
    /// What can be recovered to.
    pub reach: &'a Reach,
    /// Timeline of the log.
    pub timeline: u32,
    /// The live server; none when it does not answer.
    pub live: Option<&'a Identity>,
}

/// What the log said.
#[derive(Debug)]
pub struct FromLog {
    /// Suspects, the worst first.
    pub suspects: Vec<Suspect>,
    /// By number of the act that was asked for: what its transactions did, in the order of the log.
    pub asked: HashMap<usize, Vec<Suspect>>,
    /// How far it was searched.
    pub searched: Searched,
    /// What is to be said beside them.
    pub notes: Vec<String>,
}

/// How far the log was searched.
#[derive(Debug, Clone, Default)]
pub struct Searched {
    /// Last record, and time of the last commit; none when there was no log.
    pub to: Option<(Lsn, Option<Time>)>,
    /// From here on it was read in the server's own folder, and is not in the archive.
    pub own_from: Option<Lsn>,
    /// Where the live server stood; none when it was not asked.
    pub live: Option<Lsn>,
    /// Stretches in which what was looked for may lie and that could not be read.
    pub gaps: Vec<Gap>,
    /// Rows of a transaction from which on it was looked for.
    pub least: u64,
    /// The same for people: rows and share.
    pub measure: String,
    /// Those that deleted fewer.
    pub smaller: Smaller,
}

impl Searched {
    /// Whether anything committed at or after `since` can be in what was searched.
    pub fn any(&self, since: Time) -> bool {
        self.to.is_some_and(|(_, at)| self.own_from.is_some() || at.is_some_and(|at| at >= since))
    }
    /// What was not searched, and what to do about it; none when all was.
    pub fn left(&self) -> Option<String> {
        let both: Vec<String> = [self.hole(), self.tail()].into_iter().flatten().collect();
        (!both.is_empty()).then(|| both.join("; "))
    }
    /// That the log has holes; none when it has none.
    pub fn hole(&self) -> Option<String> {
        let first = self.gaps.first()?;
        let (segment, more) = (&first.segment, self.gaps.len() - 1);
        let and = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(format!(
            "the log has a hole at {segment}{and}, and what lies in the hole is not known (breakglass wal status)"
        ))
    }
    /// Deletions that were seen and are not shown, and how to see them; none when there were none.
    pub fn passed_over(&self) -> Option<String> {
        let Smaller { transactions, deleted } = self.smaller;
        let (word, each) = match transactions {
            0 => return None,
            1 => ("transaction", "which is less"),
            _ => ("transactions", "each of them less"),
        };
        let rows = if deleted == 1 { "row" } else { "rows" };
        let measure = &self.measure;
        Some(format!(
            "{transactions} {word} deleted {deleted} {rows} in all, {each} than {measure}, and not shown: --min-rows 1 shows such"
        ))
    }
    fn tail(&self) -> Option<String> {
        let rest = match (self.to, self.live) {
            (Some(_), None) => {
                return Some("what was written after that is not in the archive, and was not searched".into());
            }
            (Some(_), Some(_)) if self.own_from.is_some() => return None,
            (Some(_), Some(live)) => format!("what came after, up to {live}, is not archived yet and was not searched"),
            (None, None) => return Some("what the server wrote is not in the archive, and was not searched".into()),
            (None, Some(_)) => "what the server has written is not archived yet and was not searched".into(),
        };
        Some(format!("{rest}: {ARCHIVE_THE_REST}"))
    }
    fn note(&self) -> String {
        let Some((lsn, at)) = self.to else {
            return format!("the archive holds no log to search; {}", self.tail().unwrap_or_default());
        };
        let commit = at.map_or_else(|| "no commit in it".into(), |at| format!("last commit {at}"));
        match (self.own_from, self.tail()) {
            (Some(from), _) => format!(
                "the archived log was read up to {from}, and what the server has written since in its own folder up to {lsn}, {commit}"
            ),
            (None, left) => {
                format!("the archived log was read up to {lsn}, {commit}; {}", left.unwrap_or_default())
            }
        }
    }
    /// What is to be known of a suspect whose end is not in the archive.
    pub fn not_archived(&self, s: &Suspect) -> Option<&'static str> {
        self.own_from.filter(|from| s.end >= *from).map(
            |_| "not in the archive yet: breakglass contain --keep-writes archives it, before anything is restored",
        )
    }
}

/// Looks in the log for what took something away or changed many rows since then. `asked` are transactions to be told of whatever
/// they did, with the number of their act; they are not among the suspects.
///
/// # Errors
/// The log cannot be read.
pub async fn look(ctx: &Ctx, args: &Search, place: Place<'_>, asked: HashMap<u32, usize>) -> Result<FromLog> {
    let (mut report, searched, mut notes) = read(ctx, args, place, asked).await?;
    let mut by_act: HashMap<usize, Vec<Suspect>> = HashMap::new();
    let ends: HashSet<Lsn> = report.asked.iter().map(|(_, s)| s.end).collect();
    report.suspects.retain(|s| !ends.contains(&s.end));
    for (act, s) in report.asked {
        by_act.entry(act).or_default().push(s);
    }
    let mut suspects = report.suspects;
    suspects.retain(|s| !args.deleted || s.took_away());
    suspects.sort_by_key(|s| std::cmp::Reverse((weight(s, args.deleted), s.end)));
    notes.extend(report.open.iter().map(|s| format!("not over yet: transaction {}, {}", s.xid, s.what())));
    Ok(FromLog { suspects, asked: by_act, searched, notes })
}

/// Rows per table that these transactions took away, by the archived log. Why it could not look is a note.
pub async fn gone(ctx: &Ctx, since: Time, timeline: u32, xids: &[u32]) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    let args = Search { min_rows: Some(1), ..Search::default() };
    let found = async {
        let reach =
            range_now(ctx, Some(timeline)).await?.ok_or_else(|| Error::config("no repository is configured"))?;
        let place = Place { since, reach: &reach, timeline, live: None };
        read(ctx, &args, place, HashMap::new()).await
    };
    match found.await {
        Ok((report, _, notes)) => {
            notes.iter().for_each(|n| ctx.out.line(n));
            for act in report.suspects.iter().filter(|s| xids.contains(&s.xid)).flat_map(|s| &s.acts) {
                let taken = if act.deed == Deed::Rows { act.deleted } else { act.of.unwrap_or(act.deleted) };
                if taken > 0 {
                    *out.entry(act.table.clone()).or_default() += taken;
                }
            }
        }
        Err(e) => ctx.out.line(&format!("the archived log was not searched for deleted rows: {e}")),
    }
    out
}

/// What takes most comes first; among equals what touched most rows, or `deleted` most.
pub fn weight(s: &Suspect, deleted: bool) -> (u8, u64) {
    let worst = s.acts.iter().map(|a| match a.deed {
        Deed::DropDatabase => 3,
        Deed::DropTable => 2,
        Deed::Truncate | Deed::Replaced => 1,
        Deed::Rows => 0,
    });
    let rows = if deleted { s.acts.iter().map(|a| a.deleted).sum() } else { s.rows() };
    (worst.max().unwrap_or(0), rows)
}

async fn read(
    ctx: &Ctx,
    args: &Search,
    place: Place<'_>,
    asked: HashMap<u32, usize>,
) -> Result<(Report, Searched, Vec<String>)> {
    let mut notes = Vec::new();
    let mut searched = Searched::default();
    // The repository keeps the names of what is long dropped, the server knows what is there, the log what it saw made.
    let work = ctx.clone();
    let kept = blocking(move || wal_index::names(&unlock(&work)?.0)).await;
    let mut names: NameMap = kept.unwrap_or_default();
    let learnt = match reach::source(ctx) {
        Ok(source) => snapshot::update(&mut names, &source).await,
        Err(e) => Err(e),
    };
    match learnt {
        Ok(lsn) => searched.live = Some(lsn),
        Err(e) => notes.push(format!("some tables may show as numbers: {}; {}", e.what, e.why)),
    }
    // From a base backup on, so that transactions that began before the window are counted in full.
    let backups = &place.reach.backups;
    let before = backups.iter().rev().find(|m| m.finished_at <= place.since).or(backups.first());
    let from: Option<Lsn> = before.and_then(|m| m.start_lsn.as_ref()?.parse().ok());
    let rules = Rules {
        since: Some(place.since),
        until: args.until,
        tables: args.tables.clone(),
        asked,
        ..args.min_rows.map_or_else(Rules::default, Rules::at_least)
    };
    (searched.least, searched.measure) = (rules.min_rows, rules.measure());
    let timeline = place.timeline;
    let live = place.live.cloned();
    let work = ctx.clone();
    let (report, own_from) = blocking(move || {
        let (unlocked, _) = unlock(&work)?;
        let system = unlocked.repository().cluster()?.map(|c| c.system_identifier);
        let rules = Rules { system, ..rules };
        if let Some(pg_wal) = own_log(live.as_ref())
            && let Some(found) = with_own(&work, &unlocked, (timeline, from), &pg_wal, (&names, &rules))?
        {
            return Ok(found);
        }
        let segments = archive::in_repository(&unlocked, timeline, from)?.map(|s| not_stopped(&work, s));
        Ok((wal_locate::locate(segments, names, rules)?.0, None))
    })
    .await?;
    searched.to = report.last_lsn.map(|lsn| (lsn, report.last_commit));
    searched.own_from = own_from;
    searched.smaller = report.smaller;
    let until = args.until;
    searched.gaps = report.gaps.iter().filter(|g| g.concerns(place.since, until)).cloned().collect();
    notes.extend(searched.gaps.iter().map(|g| format!("WARNING: {}", g.describe())));
    notes.push(searched.note());
    notes.extend(searched.passed_over());
    Ok((report, searched, notes))
}

fn not_stopped(ctx: &Ctx, next: Result<wal_locate::Segment>) -> Result<wal_locate::Segment> {
    check_cancel(&ctx.cancel, "the log was not read to its end")?;
    next
}

/// Where the live server on this machine writes its log, when we may read there.
fn own_log(live: Option<&Identity>) -> Option<PathBuf> {
    let folder = local_instance(live?)?.layout.data.join("pg_wal");
    std::fs::read_dir(&folder).is_ok().then_some(folder)
}

/// The archive and what is not in it yet. None when the server's own files cannot be used: then the archive is what there is.
fn with_own(
    ctx: &Ctx,
    unlocked: &Unlocked,
    (timeline, from): (u32, Option<Lsn>),
    pg_wal: &std::path::Path,
    (names, rules): (&NameMap, &Rules),
) -> Result<Option<(Report, Option<Lsn>)>> {
    let Some((segments, own_from)) = archive::and_own(unlocked, timeline, from, pg_wal)? else { return Ok(None) };
    let read = wal_locate::locate(segments.map(|s| not_stopped(ctx, s)), names.clone(), rules.clone());
    check_cancel(&ctx.cancel, "the log was not read to its end")?;
    // What the server is just writing may not be whole yet.
    let whole = |r: &Report| r.gaps.iter().all(|g| g.from < own_from);
    Ok(read.ok().filter(|(r, _)| whole(r)).map(|(report, _)| (report, Some(own_from))))
}
