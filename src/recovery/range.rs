//! What can be recovered to, from the repository alone; and the way to one target. A target that cannot be reached is
//! refused here, before anything is touched.

pub mod reach;

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::archive::Archive;
use super::commits::{Commit, LogArchive, RestorePoint};
use super::watch::{Phase, Watch, check_cancel};
use crate::backup::catalog::{BackupKind, Manifest};
use crate::backup::wal::{Continuity, Depth, Hole, Way};
use crate::error::{Error, Result};
use crate::model::Time;
use crate::model::target::RecoveryTarget;
use crate::postgres::{FindPrograms, Lsn};

pub use reach::{Reach, range, ranges, ranges_of};

/// Where recovery is told to stop: before it, unless a person asked for the rare other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Before the record at this position.
    Lsn(Lsn),
    /// After the record at this position.
    After(Lsn),
    /// Before the first commit with this time or a later one.
    Time(Time),
    /// Before the first commit with a later time than this.
    Including(Time),
    /// At the end of the archived log.
    End,
}

/// The way to a target: which base backup, along which timeline, where to stop.
#[derive(Debug, Clone)]
pub struct Route {
    /// The target as it was asked for.
    pub target: RecoveryTarget,
    /// Base backup to begin with.
    pub backup: Manifest,
    /// Timeline to follow.
    pub timeline: u32,
    /// Where to stop.
    pub stop: Stop,
    /// The commit that is the first not to be replayed, when known.
    pub first_lost: Option<Commit>,
    /// End of the unbroken log.
    pub log_end: Lsn,
}

impl Route {
    /// Whether it leads to after its target instead of before it.
    pub fn after(&self) -> bool {
        matches!(self.stop, Stop::After(_) | Stop::Including(_))
    }
}

/// The newest timeline of the archive.
///
/// # Errors
/// The repository cannot be read.
pub fn newest_timeline(archive: &dyn Archive) -> Result<u32> {
    Ok(archive.listing()?.timelines().last().copied().unwrap_or(1))
}

/// Physical backups whose timeline leads to the log archive's, oldest first.
pub(super) fn usable(backups: Vec<Manifest>, archive: &LogArchive<'_>, timeline: u32) -> Vec<Manifest> {
    let mut out: Vec<Manifest> = backups
        .into_iter()
        .filter(|m| m.kind == BackupKind::Physical && m.timeline.is_some_and(|t| t <= timeline))
        .filter(|m| start_of(m).is_some_and(|lsn| Some(archive.owner(archive.number(lsn))) >= m.timeline))
        .collect();
    out.sort_by_key(|m| (stop_of(m), m.started_at));
    out
}

pub(super) fn start_of(m: &Manifest) -> Option<Lsn> {
    m.start_lsn.as_ref()?.parse().ok()
}
pub(super) fn stop_of(m: &Manifest) -> Option<Lsn> {
    m.stop_lsn.as_ref()?.parse().ok()
}

/// How far the log runs from a backup, and the number of the last segment of that run.
fn run_from(
    store: &dyn Archive,
    archive: &LogArchive<'_>,
    way: &Way,
    m: &Manifest,
    upto: Option<u64>,
    depth: Depth,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(Continuity, Option<u64>)> {
    let Some(start) = start_of(m) else {
        return Err(Error::check(format!("backup {:?} does not say where its log begins", m.id)));
    };
    let upto = upto.map(|n| archive.name(n));
    let first = archive.name(archive.number(start));
    let mut inspect = |segment, begun| store.inspect(segment, begun, depth);
    let c = way.check_by(&first, upto.as_deref(), &mut inspect, step)?;
    let last =
        c.last.as_ref().and_then(|name| Lsn::of_segment(name, archive.segment_bytes())).map(|(_, l)| archive.number(l));
    Ok((c, last))
}

/// Finds the way to a target and checks that it can be gone: a base backup before it, every segment from there to it
/// present and undamaged, the target itself in the log.
///
/// `suspects` are transactions that must not be replayed: with several, the earliest commit in the log decides, whatever
/// their times say.
///
/// # Errors
/// Refused, with the last good point, when the target cannot be reached.
pub fn route(
    store: &dyn Archive,
    programs: &dyn FindPrograms,
    ask: &Ask<'_>,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Route> {
    let timeline = match ask.timeline {
        Some(t) => t,
        None => newest_timeline(store)?,
    };
    let archive = LogArchive::open(store, programs, timeline)?;
    let way = store.way(&store.listing()?, timeline)?;
    let backups = usable(store.backups()?, &archive, timeline);
    let Some(oldest) = backups.first() else {
        return Err(Error::refused(format!("cannot recover to {}", ask.target))
            .why(format!("the repository has no base backup that leads to timeline {timeline}"))
            .hint("restore a logical backup instead: breakglass backup list"));
    };
    // From the oldest backup on, or from the first one behind a hole.
    let mut quiet = |_: u64| Ok(());
    let mut ends = Vec::new();
    for m in &backups {
        ends.push(run_from(store, &archive, &way, m, None, Depth::Names, &mut quiet)?);
    }
    let runs = runs(&archive, &backups, &ends);
    let Some((_, last)) = runs.first().copied() else {
        return Err(unreachable(ask.target, &archive, &ends, "not even the log of the base backups is archived"));
    };
    let log_end = Lsn(way.end_lsn(last, &mut |s| store.beginning(s))?);
    let found = find(&archive, ask, &runs, log_end, &ends, watch, cancel)?;

    // The newest backup that is consistent before the stop.
    let fits = |m: &Manifest| match &found.stop {
        Stop::Lsn(lsn) | Stop::After(lsn) => stop_of(m).is_some_and(|s| s <= *lsn),
        Stop::Time(t) | Stop::Including(t) => m.finished_at <= *t,
        Stop::End => true,
    };
    let Some((backup, (c, _))) = backups.iter().zip(&ends).rev().find(|(m, _)| fits(m)) else {
        return Err(Error::refused(format!("cannot recover to {}", ask.target))
            .why(format!("it is before the oldest base backup was complete, {}", oldest.finished_at))
            .hint(format!("the earliest point is time:{}", oldest.finished_at)));
    };
    let goal = match &found.stop {
        Stop::Lsn(lsn) => Some(archive.number(Lsn(lsn.0.saturating_sub(1)))),
        Stop::After(lsn) => Some(archive.number(*lsn)),
        Stop::Time(_) | Stop::Including(_) => found.first_lost.as_ref().map(|c| archive.number(c.lsn)),
        Stop::End => None,
    };
    if let (Stop::End, Some(hole)) = (&found.stop, &c.hole) {
        return Err(hole_error(ask.target, hole, c));
    }
    let mut step = |n: u64| {
        check_cancel(cancel, "nothing was touched")?;
        watch.phase(&Phase { name: "log check", done: n, unit: "segments", ..Phase::default() });
        Ok(())
    };
    let (checked, reached) = run_from(store, &archive, &way, backup, goal, Depth::Stored, &mut step)?;
    if let Some(hole) = &checked.hole {
        return Err(hole_error(ask.target, hole, &checked));
    }
    if goal.is_some_and(|g| reached.is_none_or(|r| r < g)) {
        return Err(unreachable(ask.target, &archive, &ends, "the log ends before it"));
    }
    Ok(Route {
        target: ask.target.clone(),
        backup: backup.clone(),
        timeline,
        stop: found.stop,
        first_lost: found.first_lost,
        log_end,
    })
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The target.
    pub target: &'a RecoveryTarget,
    /// Transactions that must not be replayed.
    pub suspects: &'a [u32],
    /// Timeline; none for the newest.
    pub timeline: Option<u32>,
    /// Folder for scratch files.
    pub scratch: &'a Path,
    /// Stop after the target instead of before it.
    pub after: bool,
}

struct FoundStop {
    stop: Stop,
    first_lost: Option<Commit>,
}

type Ends = [(Continuity, Option<u64>)];

/// Unbroken stretches of the log that a base backup leads into, newest first: first and last segment of each.
fn runs(archive: &LogArchive<'_>, backups: &[Manifest], ends: &Ends) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (m, (_, last)) in backups.iter().zip(ends) {
        let (Some(first), Some(last)) = (start_of(m).map(|l| archive.number(l)), *last) else { continue };
        match out.iter_mut().find(|(_, l)| *l == last) {
            Some(run) => run.0 = run.0.min(first),
            None => out.push((first, last)),
        }
    }
    out.sort_by_key(|(_, last)| std::cmp::Reverse(*last));
    out
}

/// Finds the target in the log, walking back from its end.
fn find(
    archive: &LogArchive<'_>,
    ask: &Ask<'_>,
    runs: &[(u64, u64)],
    log_end: Lsn,
    ends: &Ends,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<FoundStop> {
    let newest = runs.iter().map(|(_, last)| *last).max().unwrap_or(0);
    let look = |visit: &mut dyn FnMut(&[Commit], &[RestorePoint]) -> bool| -> Result<()> {
        for (first, last) in runs {
            let mut found = false;
            archive.walk_back(*first, *last, ask.scratch, &mut |piece, begin| {
                check_cancel(cancel, "nothing was touched")?;
                watch.phase(&Phase {
                    name: "log search",
                    done: newest - begin + 1,
                    unit: "segments",
                    ..Phase::default()
                });
                found = visit(&piece.commits, &piece.points);
                Ok(found)
            })?;
            if found {
                break;
            }
        }
        Ok(())
    };
    let at = |lsn| if ask.after { Stop::After(lsn) } else { Stop::Lsn(lsn) };
    match ask.target {
        RecoveryTarget::Latest => Ok(FoundStop { stop: Stop::End, first_lost: None }),
        RecoveryTarget::Lsn(text) => {
            let lsn: Lsn = text.parse().map_err(Error::usage)?;
            if lsn > log_end {
                return Err(unreachable(ask.target, archive, ends, "it is beyond the end of the archived log"));
            }
            Ok(FoundStop { stop: at(lsn), first_lost: None })
        }
        RecoveryTarget::Xid(text) => {
            let wanted: u32 = text.parse().map_err(|_| Error::usage(format!("{text:?} is not a transaction id")))?;
            let mut open: Vec<u32> = ask.suspects.to_vec();
            open.push(wanted);
            let mut earliest: Option<Commit> = None;
            let mut seen = false;
            let (mut later, mut next): (Option<Commit>, Option<Commit>) = (None, None);
            look(&mut |commits, _| {
                for c in commits.iter().rev() {
                    let following = later.replace(c.clone());
                    if c.is(wanted) {
                        next = following;
                    }
                    if open.iter().any(|x| c.is(*x)) {
                        seen |= c.is(wanted);
                        open.retain(|x| !c.is(*x));
                        earliest = Some(c.clone());
                    }
                }
                open.is_empty()
            })?;
            match (earliest, seen) {
                (Some(c), true) if ask.after => Ok(FoundStop { stop: Stop::After(c.lsn), first_lost: next }),
                (Some(c), true) => Ok(FoundStop { stop: Stop::Lsn(c.lsn), first_lost: Some(c) }),
                _ => Err(unreachable(ask.target, archive, ends, "its commit is not in the archived log")
                    .hint("a transaction that was rolled back, or that is not archived yet, has no commit there")),
            }
        }
        RecoveryTarget::Name(name) => {
            let mut found = None;
            look(&mut |_, points| {
                found = points.iter().rev().find(|p| p.name == *name).map(|p| p.lsn);
                found.is_some()
            })?;
            match found {
                Some(lsn) => Ok(FoundStop { stop: at(lsn), first_lost: None }),
                None => {
                    Err(unreachable(ask.target, archive, ends, "no restore point of this name is in the archived log"))
                }
            }
        }
        RecoveryTarget::Time(t) => {
            // The first commit at or after the time, in the order of the log. Times go back by milliseconds only, so a
            // piece that lies wholly ten seconds before ends the search.
            let mut first_lost: Option<Commit> = None;
            let mut last_commit: Option<Commit> = None;
            look(&mut |commits, _| {
                if last_commit.is_none() {
                    last_commit = commits.last().cloned();
                }
                if let Some(c) = commits.iter().find(|c| if ask.after { c.at > *t } else { c.at >= *t }) {
                    first_lost = Some(c.clone());
                }
                commits.first().is_some_and(|c| c.at < t.minus(std::time::Duration::from_secs(10)))
            })?;
            match first_lost {
                Some(c) => {
                    let stop = if ask.after { Stop::Including(*t) } else { Stop::Time(*t) };
                    Ok(FoundStop { stop, first_lost: Some(c) })
                }
                None => {
                    let mut e =
                        unreachable(ask.target, archive, ends, "no commit at or after it is in the archived log");
                    if let Some(c) = last_commit {
                        e = e.hint(format!("the last commit there is at {}", c.at));
                        e = e.hint("to recover all that is archived: --to latest");
                    }
                    Err(e)
                }
            }
        }
    }
}

fn hole_error(target: &RecoveryTarget, hole: &Hole, c: &Continuity) -> Error {
    let segments =
        if hole.first == hole.last { hole.first.clone() } else { format!("{} to {}", hole.first, hole.last) };
    Error::refused(format!("cannot recover to {target}"))
        .why(format!("the log is broken at segment {segments}: {}", hole.why))
        .hint(match &c.last {
            Some(last) => format!("the last good segment is {last}: choose a moment before its end"),
            None => "not even the first segment after the base backup is there".to_string(),
        })
}

fn unreachable(target: &RecoveryTarget, archive: &LogArchive<'_>, ends: &Ends, why: &str) -> Error {
    let mut e = Error::refused(format!("cannot recover to {target}")).why(why);
    if let Some(number) = ends.iter().filter_map(|(_, last)| *last).max() {
        e = e.hint(format!("the unbroken log ends with segment {}", archive.name(number)));
    }
    for (c, _) in ends {
        if let Some(h) = &c.hole {
            e = e.hint(format!("segments {} to {} cannot be used: {}", h.first, h.last, h.why));
            break;
        }
    }
    e
}
