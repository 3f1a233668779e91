//! Suspects out of the archived log, beside those that rows still show: rows deleted, tables emptied, tables and databases
//! dropped leave no row that could tell.

use std::collections::{BTreeMap, HashSet};

use super::pitr_locate::{Search, range_now};
use super::target::{blocking, unlock};
use super::{Ctx, reach};
use crate::error::{Error, Result};
use crate::model::Time;
use crate::model::target::Candidate;
use crate::postgres::Lsn;
use crate::recovery::range::Reach;
use crate::recovery::wal_index;
use crate::recovery::wal_locate::{self, Deed, NameMap, Report, Rules, Suspect, archive, snapshot};
use crate::recovery::watch::check_cancel;

/// What the log said.
#[derive(Debug, Default)]
pub struct FromLog {
    /// The worst first.
    pub candidates: Vec<Candidate>,
    /// What is to be said beside them.
    pub notes: Vec<String>,
}

/// Looks in the archived log for what took something away since `since`. `known` are transactions found elsewhere. Never
/// fails: why it could not look is a note.
pub async fn look(
    ctx: &Ctx,
    args: &Search,
    since: Time,
    reach: Option<&Reach>,
    timeline: u32,
    known: &[u32],
) -> FromLog {
    let Some(reach) = reach else { return FromLog::default() };
    match read(ctx, args, since, reach, timeline).await {
        Ok((report, mut notes)) => {
            let known: HashSet<u32> = known.iter().copied().collect();
            let mut suspects: Vec<&Suspect> = report.suspects.iter().filter(|s| !known.contains(&s.xid)).collect();
            suspects.retain(|s| !args.deleted || s.acts.iter().any(took_away));
            suspects.sort_by_key(|s| std::cmp::Reverse((weight(s, args.deleted), s.end)));
            notes.extend(report.open.iter().map(|s| format!("not over yet: transaction {}, {}", s.xid, s.what())));
            FromLog { candidates: suspects.into_iter().map(Suspect::candidate).collect(), notes }
        }
        Err(e) => FromLog {
            notes: vec![format!("the archived log was not searched: {}; {}", e.what, e.why)],
            ..FromLog::default()
        },
    }
}

/// What took something away since `since`, by the archived log, the worst first; and what is to be said beside it.
///
/// # Errors
/// The log cannot be read.
pub async fn taken_away(
    ctx: &Ctx,
    args: &Search,
    since: Time,
    reach: &Reach,
    timeline: u32,
) -> Result<(Vec<Suspect>, Vec<String>)> {
    let (mut report, mut notes) = read(ctx, args, since, reach, timeline).await?;
    report.suspects.retain(|s| s.acts.iter().any(took_away));
    report.suspects.sort_by_key(|s| std::cmp::Reverse((weight(s, true), s.end)));
    notes.extend(report.open.iter().map(|s| format!("not over yet: transaction {}, {}", s.xid, s.what())));
    Ok((report.suspects, notes))
}

/// Rows per table that these transactions took away, by the archived log. Why it could not look is a note.
pub async fn gone(ctx: &Ctx, since: Time, timeline: u32, xids: &[u32]) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    let args = Search { min_rows: Some(1), ..Search::default() };
    let found = async {
        let reach =
            range_now(ctx, Some(timeline)).await?.ok_or_else(|| Error::config("no repository is configured"))?;
        read(ctx, &args, since, &reach, timeline).await
    };
    match found.await {
        Ok((report, notes)) => {
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

/// Whether something is gone, and not only changed.
fn took_away(act: &wal_locate::Act) -> bool {
    act.deed != Deed::Rows || act.deleted > 0
}

/// What takes most comes first; among equals what touched most rows, or `deleted` most.
fn weight(s: &Suspect, deleted: bool) -> (u8, u64) {
    let worst = s.acts.iter().map(|a| match a.deed {
        Deed::DropDatabase => 3,
        Deed::DropTable => 2,
        Deed::Truncate | Deed::Replaced => 1,
        Deed::Rows => 0,
    });
    let rows = if deleted { s.acts.iter().map(|a| a.deleted).sum() } else { s.rows() };
    (worst.max().unwrap_or(0), rows)
}

async fn read(ctx: &Ctx, args: &Search, since: Time, reach: &Reach, timeline: u32) -> Result<(Report, Vec<String>)> {
    let mut notes = Vec::new();
    // The repository keeps the names of what is long dropped, the server knows what is there, the log what it saw made.
    let work = ctx.clone();
    let kept = blocking(move || wal_index::names(&unlock(&work)?.0)).await;
    let mut names: NameMap = kept.unwrap_or_default();
    if let Err(e) = snapshot::update(&mut names, &reach::source(ctx)?).await {
        notes.push(format!("some tables may show as numbers: {}; {}", e.what, e.why));
    }
    // From a base backup on, so that transactions that began before the window are counted in full.
    let before = reach.backups.iter().rev().find(|m| m.finished_at <= since).or(reach.backups.first());
    let from: Option<Lsn> = before.and_then(|m| m.start_lsn.as_ref()?.parse().ok());
    let rules = Rules {
        since: Some(since),
        until: args.until,
        tables: args.tables.clone(),
        min_rows: args.min_rows.unwrap_or(Rules::default().min_rows),
        ..Rules::default()
    };
    let work = ctx.clone();
    let (report, _) = blocking(move || {
        let (unlocked, _) = unlock(&work)?;
        let segments = archive::in_repository(&unlocked, timeline, from)?.map(|s| {
            check_cancel(&work.cancel, "the log was not read to its end")?;
            s
        });
        wal_locate::locate(segments, names, rules)
    })
    .await?;
    match (report.last_lsn, report.last_commit) {
        (Some(lsn), Some(at)) => notes.push(format!(
            "the archived log was read up to {lsn}, last commit {at}; what was deleted or dropped later is not in the archive yet"
        )),
        _ => notes.push("the archive holds no log to search".into()),
    }
    Ok((report, notes))
}
