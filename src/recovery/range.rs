//! What can be recovered to, from the repository alone; and the way to one target. A target that cannot be reached is
//! refused here, before anything is touched.

mod base;
mod broken;
pub mod reach;
pub mod tablespace;

use std::collections::BTreeMap;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::archive::Archive;
use super::commits::{Commit, LogArchive, RestorePoint};
use super::watch::{Phase, Watch, check_cancel};
use crate::backup::catalog::{BackupKind, Damage, Manifest};
use crate::backup::wal::range::Branch;
use crate::backup::wal::{Continuity, Depth, Hole, Segment, WalName};
use crate::error::{Error, ErrorKind, Result};
use crate::model::target::RecoveryTarget;
use crate::model::{CleanText, Time};
use crate::postgres::wal::{Reader, Tail};
use crate::postgres::{FindPrograms, Lsn};
use base::{first_whole, none_whole, with_passed};
use broken::Log;

pub use base::{Base, Found, Look, PassedOver};
pub use reach::{Reach, range, ranges, ranges_from, ranges_of};

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
    /// Timeline to follow: the one on which it stops.
    pub timeline: u32,
    /// Timeline that was asked for, on which a recovery can be moved forward.
    pub along: u32,
    /// Where to stop.
    pub stop: Stop,
    /// The commit that is the first not to be replayed, when known.
    pub first_lost: Option<Commit>,
    /// End of the unbroken log.
    pub log_end: Lsn,
    /// Newer base backups that are damaged.
    pub passed_over: Vec<PassedOver>,
    /// How closely the files of the base backup were looked at.
    pub looked: Look,
    /// When every byte of the base backup was last read and right, where that is on record.
    pub verified_at: Option<Time>,
    /// That the base backup was found damaged before, and not right since: it was named all the same, or read anew.
    pub damaged: Option<Damage>,
    /// That the list of backups ends before what was seen of it from here, or is another one: a newer base backup may be missing from it.
    pub rolled_back: Option<Error>,
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

/// Physical backups that lead along the log archive's way, oldest first.
pub(super) fn usable(backups: Vec<Manifest>, archive: &LogArchive<'_>) -> Vec<Manifest> {
    let mut out: Vec<Manifest> = backups
        .into_iter()
        .filter(|m| m.kind == BackupKind::Physical && start_of(m).is_some() && archive.leads_from(m))
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

/// How far the log runs from a backup, and the number of the last segment of that run. What is known to be damaged ends it.
fn run_from(
    log: &Log<'_>,
    damaged: &BTreeMap<u64, String>,
    m: &Manifest,
    upto: Option<u64>,
    depth: Depth,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(Continuity, Option<u64>)> {
    let archive = log.archive;
    let Some(start) = start_of(m) else {
        return Err(Error::check(format!("backup {:?} does not say where its log begins", m.id)));
    };
    let upto = upto.map(|n| archive.name(n));
    let first = archive.name(archive.number(start));
    let size = u32::try_from(archive.segment_bytes()).unwrap_or(u32::MAX);
    let mut inspect = |segment: Segment, begun| match damaged.get(&segment.number(size)) {
        Some(why) => Ok(Some(why.clone())),
        None => log.store.inspect(segment, begun, depth),
    };
    let c = log.way.check_by(&first, upto.as_deref(), &mut inspect, step)?;
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
    // Before anything is read.
    match ask.target {
        RecoveryTarget::Lsn(text) => drop(position(text)?),
        RecoveryTarget::Xid(text) => drop(transaction(text)?),
        _ => {}
    }
    let timeline = match ask.timeline {
        Some(t) => t,
        None => newest_timeline(store)?,
    };
    let archive = LogArchive::open(store, programs, timeline)?;
    let way = store.way(&store.listing()?, timeline)?;
    let backups = usable(store.backups()?, &archive);
    let Some(oldest) = backups.first() else {
        return Err(Error::refused(format!("cannot recover to {}", ask.target))
            .why(format!("the repository has no base backup that leads to timeline {timeline}"))
            .hint("restore a logical backup instead: breakglass backup list"));
    };
    let log = Log { store, archive: &archive, way: &way, backups: &backups, scratch: ask.scratch };
    // Segments that turn out to be damaged while the target is looked for: what does not need them still works.
    let mut damaged = BTreeMap::new();
    let (ends, log_end, found) = loop {
        // From the oldest backup on, or from the first one behind a hole.
        let mut ends = Vec::new();
        for m in &backups {
            ends.push(run_from(&log, &damaged, m, None, Depth::Names, &mut |_| Ok(()))?);
        }
        let runs = runs(&archive, &backups, &ends);
        let Some((_, last)) = runs.first().copied() else {
            return Err(unreachable(ask.target, &log, &ends, "the log that the base backups need is not there"));
        };
        let searched = way
            .end_lsn(last, &mut |s| store.beginning(s))
            .and_then(|end| Ok((Lsn(end), find(&log, ask, &runs, Lsn(end), &ends, watch, cancel)?)));
        match searched {
            Ok((log_end, found)) => break (ends, log_end, found),
            // A key that does not open it is as bad as damage.
            Err(e) if matches!(e.kind, ErrorKind::Check | ErrorKind::Usage) => {
                let before = damaged.len();
                damaged.extend(log.damaged(&runs, watch, cancel)?);
                if damaged.len() == before {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
    };

    // The newest backup that is consistent before the stop.
    let fits = |m: &Manifest| match &found.stop {
        Stop::Lsn(lsn) | Stop::After(lsn) => stop_of(m).is_some_and(|s| s <= *lsn),
        Stop::Time(t) | Stop::Including(t) => m.finished_at <= *t,
        Stop::End => true,
    };
    let cannot = || Error::refused(format!("cannot recover to {}", ask.target));
    if !backups.iter().any(fits) {
        return Err(cannot()
            .why(format!("it is before the oldest base backup was complete, {}", oldest.finished_at))
            .hint(format!("the earliest point is time:{}", oldest.finished_at)));
    }
    let fitting = backups.iter().zip(&ends).rev().filter(|(m, _)| fits(m) && ask.base.allows(m));
    let (chosen, passed_over) = first_whole(store, fitting, ask.base, ask.found, watch, cancel)?;
    let Some((backup, (c, _))) = chosen else {
        return Err(none_whole(cannot(), ask.base, &backups, &passed_over));
    };
    // A recovery stops at a record: the one it stops before has to be there, too.
    let goal = match &found.stop {
        Stop::Lsn(lsn) | Stop::After(lsn) => Some(archive.number(*lsn)),
        Stop::Time(_) | Stop::Including(_) => found.first_lost.as_ref().map(|c| archive.number(c.lsn)),
        Stop::End => None,
    };
    let refused = |c: &Continuity, hole: &Hole| {
        let (what, hints) = log.describe(hole, c);
        let error = hints.into_iter().fold(cannot().why(format!("the log is broken at {what}")), Error::hint);
        with_passed(error, &passed_over)
    };
    if let (Stop::End, Some(hole)) = (&found.stop, &c.hole) {
        return Err(refused(c, hole));
    }
    let mut step = |n: u64| {
        check_cancel(cancel, "nothing was touched")?;
        watch.phase(&Phase { name: "log check", done: n, unit: "segments", ..Phase::default() });
        Ok(())
    };
    let mut check = |goal| -> Result<()> {
        let depth = if ask.base.look == Look::Everything { Depth::Full } else { Depth::Stored };
        let (checked, reached) = run_from(&log, &damaged, backup, goal, depth, &mut step)?;
        // What is missing behind the end is the end.
        if let Some(hole) = checked.hole.as_ref().filter(|h| log.number(&h.first) <= way.end()) {
            return Err(refused(&checked, hole));
        }
        if goal.is_some_and(|g| reached.is_none_or(|r| r < g)) {
            return Err(unreachable(ask.target, &log, &ends, "the log ends before it"));
        }
        Ok(())
    };
    check(goal)?;
    if let (RecoveryTarget::Lsn(_), Stop::Lsn(lsn) | Stop::After(lsn)) = (ask.target, &found.stop) {
        let last = stops_in(&log, *lsn)?;
        if goal.is_some_and(|g| last > g) {
            check(Some(last))?;
        }
    }
    // Refused before anything is touched, where the server would refuse it in the middle.
    let end = goal.or(ends.iter().filter_map(|(_, last)| *last).max()).unwrap_or_default();
    let asked = (ask.target, found.stop);
    let stop = tablespace::stop_before(&log, asked, backup, found.first_lost.as_ref(), end, &mut step)?;
    let follow = match &found.first_lost {
        Some(c) => ends_on(&log, backup, c, timeline)?,
        None => timeline,
    };
    Ok(Route {
        target: ask.target.clone(),
        backup: backup.clone(),
        timeline: follow,
        along: timeline,
        stop,
        first_lost: found.first_lost,
        log_end,
        looked: if store.looks_into_backups() { ask.base.look } else { Look::Nothing },
        passed_over,
        verified_at: None,
        damaged: None,
        rolled_back: None,
    })
}

/// The timeline to follow so as to stop before this commit: the one that it lies on, where the archive holds that one's own log as
/// far. Following a later one stops at the same record, but what is promoted there would have a history in which it branched off from
/// a timeline that had not begun yet.
fn ends_on(log: &Log<'_>, backup: &Manifest, first_lost: &Commit, followed: u32) -> Result<u32> {
    let archive = log.archive;
    let Some(Branch { timeline, ends_at: Some(left) }) = archive.on(first_lost.lsn) else { return Ok(followed) };
    let own = log.store.way(&log.store.listing()?, timeline)?;
    let first = start_of(backup).map_or(0, |lsn| archive.number(lsn));
    // The record may go on in the next one.
    let last = (archive.number(first_lost.lsn) + 1).min(archive.number(Lsn(left)));
    for number in first..=last {
        let there = own.segment(number).filter(|_| !own.is_begun(number)).map(|(s, _)| s);
        let Some(segment) = there else { return Ok(followed) };
        // The others were looked at on the way.
        let other = log.way.segment(number).is_none_or(|(s, _)| s != segment);
        if other && log.store.inspect(segment, false, Depth::Stored)?.is_some() {
            return Ok(followed);
        }
    }
    Ok(timeline)
}

fn position(text: &str) -> Result<Lsn> {
    text.parse().map_err(Error::usage)
}

fn transaction(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::usage(format!("{text:?} is not a transaction id")))
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
    /// Which base backups may be begun with.
    pub base: &'a Base,
    /// Takes those that are found damaged, whatever comes of it.
    pub found: Option<&'a Found>,
}

static ANY: Base = Base::ANY;

impl<'a> Ask<'a> {
    /// To just before this, along the newest timeline, from any base backup.
    pub fn to(target: &'a RecoveryTarget, scratch: &'a Path) -> Self {
        Self { target, suspects: &[], timeline: None, scratch, after: false, base: &ANY, found: None }
    }
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

/// The segment in which the first record ends that begins at or behind a position. A recovery stops nowhere else.
fn stops_in(log: &Log<'_>, lsn: Lsn) -> Result<u64> {
    let first = log.archive.number(lsn);
    let (mut reader, mut number) = (Reader::new(), first);
    while let Some((segment, _)) = log.way.segment(number) {
        let bytes = match log.way.is_begun(number) {
            true => log.store.beginning(segment),
            false => log.store.read(&WalName::Segment(segment)),
        };
        let bytes = match bytes {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            // It is needed: whoever checks it says what is wrong with it.
            Err(e) if matches!(e.kind, ErrorKind::Check | ErrorKind::Usage) => return Ok(number),
            Err(e) => return Err(e),
        };
        let mut found = false;
        let read = reader.segment(&segment.to_string(), &bytes, Tail::MayEnd, |r| {
            found |= r.lsn >= lsn;
            Ok(())
        });
        // A log of a version that is not read here is left to the server.
        if found || read.is_err() {
            return Ok(if found { number } else { first });
        }
        number += 1;
    }
    Ok(number)
}

/// The restore points that the log has, the newest first, in a sentence.
fn names_there(newest_first: &[String]) -> String {
    const SHOWN: usize = 5;
    if newest_first.is_empty() {
        return "there is no restore point in it; pg_create_restore_point makes one".into();
    }
    let shown: Vec<String> =
        newest_first.iter().take(SHOWN).map(|n| format!("{:?}", CleanText::line(n.as_bytes()).as_str())).collect();
    let more = newest_first.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} older ones") } else { String::new() };
    format!("the restore points in it, the newest first: {}{more}", shown.join(", "))
}

/// Finds the target in the log, walking back from its end.
fn find(
    log: &Log<'_>,
    ask: &Ask<'_>,
    runs: &[(u64, u64)],
    log_end: Lsn,
    ends: &Ends,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<FoundStop> {
    let archive = log.archive;
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
            let lsn = position(text)?;
            // Behind a hole there may be more of it: then that is what keeps anybody from getting there.
            let broken = log.backups.iter().zip(ends).rev().find(|(m, _)| stop_of(m).is_some_and(|s| s <= lsn));
            let broken = broken.is_some_and(|(_, (c, _))| c.hole.is_some());
            if lsn > log_end && !(broken && log.way.end().is_some_and(|end| archive.number(lsn) <= end)) {
                return Err(unreachable(ask.target, log, ends, "it is beyond the end of the archived log"));
            }
            Ok(FoundStop { stop: at(lsn), first_lost: None })
        }
        RecoveryTarget::Xid(text) => {
            let wanted = transaction(text)?;
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
                _ => Err(unreachable(ask.target, log, ends, "its commit is not in the archived log")
                    .hint("a transaction that was rolled back, or that is not archived yet, has no commit there")),
            }
        }
        RecoveryTarget::Name(name) => {
            let mut found = None;
            let mut others: Vec<String> = Vec::new();
            look(&mut |_, points| {
                found = points.iter().rev().find(|p| p.name == *name).map(|p| p.lsn);
                others.extend(points.iter().rev().map(|p| p.name.clone()));
                found.is_some()
            })?;
            match found {
                Some(lsn) => Ok(FoundStop { stop: at(lsn), first_lost: None }),
                None => {
                    let e = unreachable(ask.target, log, ends, "no restore point of this name is in the archived log");
                    Err(e.hint(names_there(&others)))
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
                    let mut e = unreachable(ask.target, log, ends, "no commit at or after it is in the archived log");
                    if let Some(c) = last_commit {
                        e = e.hint(format!("the last commit there is at {}", c.at));
                        e = with_end(e, log, ask, ends, watch, cancel)?;
                    }
                    Err(e)
                }
            }
        }
    }
}

/// Offers the end of the log where that can be recovered to: nothing is offered that would be refused in its turn. Else says what
/// breaks the log before its end, if that was not said yet.
fn with_end(
    e: Error,
    log: &Log<'_>,
    ask: &Ask<'_>,
    ends: &Ends,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Error> {
    let allowed = log.backups.iter().zip(ends).rev().filter(|(m, _)| ask.base.allows(m));
    let (chosen, passed) = first_whole(log.store, allowed, ask.base, ask.found, watch, cancel)?;
    let e = with_passed(e, &passed);
    let Some((m, (c, _))) = chosen else { return Ok(e) };
    if c.hole.is_some() {
        return Ok(e);
    }
    let mut step = |n: u64| {
        check_cancel(cancel, "nothing was touched")?;
        watch.phase(&Phase { name: "log check", done: n, unit: "segments", ..Phase::default() });
        Ok(())
    };
    let (c, _) = run_from(log, &BTreeMap::new(), m, None, Depth::Stored, &mut step)?;
    Ok(match &c.hole {
        None => e.hint("to recover all that is archived: --to latest"),
        Some(hole) => {
            let (what, hints) = log.describe(hole, &c);
            hints.into_iter().fold(e.hint(format!("before that the log is broken at {what}")), Error::hint)
        }
    })
}

fn unreachable(target: &RecoveryTarget, log: &Log<'_>, ends: &Ends, why: &str) -> Error {
    let mut e = Error::refused(format!("cannot recover to {target}")).why(why);
    if let Some(number) = ends.iter().filter_map(|(_, last)| *last).max() {
        e = e.hint(format!("the unbroken log ends with segment {}", log.archive.name(number)));
    }
    // The newest first: what is behind it was looked for in vain.
    if let Some((c, hole)) = ends.iter().rev().find_map(|(c, _)| Some((c, c.hole.as_ref()?))) {
        let (what, hints) = log.describe(hole, c);
        e = e.hint(format!("the log is broken at {what}"));
        e = hints.into_iter().fold(e, Error::hint);
    }
    e
}
