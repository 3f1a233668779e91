//! The moments that a search offers, the likeliest first: what rows bear the mark of, set right by what the log says.
//!
//! Rows that are there tell nothing of rows that are not: a transaction that deleted shows by its harmless part alone, and a table
//! that was built anew makes every row look freshly written. Where the log was searched, it has the last word.

use std::collections::{BTreeSet, HashMap};

use super::Ctx;
use super::log_suspects::{FromLog, weight};
use crate::error::{Context as _, Result};
use crate::model::target::{Candidate, RecoveryTarget};
use crate::recovery::Located;
use crate::recovery::locate::group::Group;
use crate::recovery::wal_locate::Suspect;

/// A moment, and the transactions of the act before which it lies.
#[derive(Debug, Clone)]
pub struct Offered {
    /// The moment.
    pub candidate: Candidate,
    /// The transactions.
    pub xids: Vec<u32>,
}

/// What comes before what: the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Something is gone.
    TookAway,
    /// Rows bear its mark.
    Marked,
    /// The log alone knows it, and nothing is gone.
    LogAlone,
    /// Tables were built anew, and little else.
    BuiltAnew,
}

/// The transactions of every act, to ask the log about.
pub fn asked(located: &Located) -> HashMap<u32, usize> {
    let acts = located.groups.iter().enumerate();
    acts.flat_map(|(n, g)| g.xids().into_iter().map(move |x| (x, n))).collect()
}

/// Joins what rows show with what the log says, the likeliest first.
pub fn in_order(located: &Located, log: Option<FromLog>, deleted: bool) -> Vec<Offered> {
    let mut all = Vec::new();
    let mut acts = log.as_ref().map(|l| l.asked.clone()).unwrap_or_default();
    for (n, (candidate, group)) in located.candidates.iter().zip(&located.groups).enumerate() {
        let told = acts.remove(&n).unwrap_or_default();
        let (rank, weight, mut candidate) = told_by_log(candidate, group, &told, located.threshold, deleted);
        if let Some(note) = told.first().and_then(|s| log.as_ref()?.searched.not_archived(s)) {
            candidate.what.push_str(&format!("; {note}"));
        }
        all.push((rank, weight, Offered { candidate, xids: group.xids() }));
    }
    for s in log.iter().flat_map(|l| &l.suspects) {
        let mut candidate = s.candidate();
        if let Some(note) = log.as_ref().and_then(|l| l.searched.not_archived(s)) {
            candidate.what.push_str(&format!("; {note}"));
        }
        let rank = if s.took_away() { Rank::TookAway } else { Rank::LogAlone };
        all.push((rank, weight(s, deleted), Offered { candidate, xids: vec![s.xid] }));
    }
    // Stable: what rows bear the mark of stays in its order.
    all.sort_by_key(|(rank, weight, _)| match rank {
        Rank::TookAway => (*rank, std::cmp::Reverse(*weight)),
        _ => (*rank, std::cmp::Reverse((0, 0))),
    });
    all.into_iter().map(|(_, _, offered)| offered).collect()
}

fn told_by_log(
    candidate: &Candidate,
    group: &Group,
    told: &[Suspect],
    threshold: u64,
    deleted: bool,
) -> (Rank, (u8, u64), Candidate) {
    let mut out = candidate.clone();
    let (Some(first), Some(act)) = (told.first(), Suspect::joined(told)) else {
        return (Rank::Marked, (0, 0), out);
    };
    out.loses = first.loses.clone();
    out.lsn.get_or_insert_with(|| first.end.to_string());
    if act.took_away() {
        let tables: BTreeSet<String> = act.tables().into_iter().chain(out.tables).collect();
        out.tables = tables.into_iter().collect();
        out.rows = act.rows();
        out.what = format!("{}; {}", act.what(), group.describe());
        return (Rank::TookAway, weight(&act, deleted), out);
    }
    let rows = group.rows();
    let anew: Vec<&String> = rows.keys().filter(|t| act.rewritten.contains(t)).collect();
    if anew.is_empty() {
        return (Rank::Marked, (0, 0), out);
    }
    let names = anew.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(", ");
    let written: u64 = rows.iter().filter(|(t, _)| !act.rewritten.contains(t)).map(|(_, n)| n).sum();
    let changed = act.rows();
    out.rows = written.max(changed);
    if written.max(changed) >= threshold {
        out.what.push_str(&format!("; of these, {names} was built anew as a whole, as by ALTER TABLE"));
        return (Rank::Marked, (0, 0), out);
    }
    out.what = format!(
        "built anew as a whole, as by ALTER TABLE: {names}; no row of it was deleted, and every row bears its mark whether it \
         changed or not ({})",
        group.describe()
    );
    (Rank::BuiltAnew, (0, 0), out)
}

/// Name of the file in the incident's folder that says which transactions belong to each moment offered.
const MOMENTS: &str = "moments.json";

/// Keeps the transactions of every act, so that the restore need not look for them again.
///
/// # Errors
/// The file cannot be written.
pub fn remember(ctx: &Ctx, offered: &[Offered]) -> Result<()> {
    let list: Vec<(RecoveryTarget, Vec<u32>)> =
        offered.iter().map(|o| (o.candidate.target.clone(), o.xids.clone())).collect();
    keep(ctx, &list)
}

/// Keeps the transactions of one act that was found otherwise.
///
/// # Errors
/// The file cannot be written.
pub fn remember_acts(ctx: &Ctx, target: &RecoveryTarget, xids: &[u32]) -> Result<()> {
    keep(ctx, &[(target.clone(), xids.to_vec())])
}

fn keep(ctx: &Ctx, list: &[(RecoveryTarget, Vec<u32>)]) -> Result<()> {
    let Some(dir) = &ctx.incident_dir else { return Ok(()) };
    let text = serde_json::to_string(list).state(|| "cannot keep the suspects".into())?;
    crate::postgres::user::own_file(&dir.join(MOMENTS), &text, None)
}

/// The moments offered last, with the transactions of each.
fn offered_last(ctx: &Ctx) -> Option<Vec<(RecoveryTarget, Vec<u32>)>> {
    let text = std::fs::read_to_string(ctx.incident_dir.as_ref()?.join(MOMENTS)).ok()?;
    serde_json::from_str(&text).ok()
}

/// The transactions of the act before which this target lies, as they were found last; none when it is another target.
pub fn remembered(ctx: &Ctx, target: &RecoveryTarget) -> Option<Vec<u32>> {
    offered_last(ctx)?.into_iter().find(|(t, _)| t == target).map(|(_, xids)| xids)
}

/// The transactions of the first suspect act found last: what must not be in a recovery to a moment of a person's own either.
pub fn first_remembered(ctx: &Ctx) -> Vec<u32> {
    // A recovery to the end of the log is offered where no transaction did it.
    let mut list = offered_last(ctx).unwrap_or_default().into_iter();
    list.find(|(t, _)| *t != RecoveryTarget::Latest).map(|(_, xids)| xids).unwrap_or_default()
}
