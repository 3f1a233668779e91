//! What can be recovered to, per timeline, from the catalog, the names of what is archived, and the index of the log.

use std::collections::BTreeMap;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::broken::Log;
use super::tablespace::InTheWay;
use super::{start_of, stop_of, usable};
use crate::backup::catalog::Manifest;
use crate::backup::repository::Unlocked;
use crate::backup::side_by_side;
use crate::backup::wal::{Continuity, Depth, Hole, Listing, Segment, Way};
use crate::error::{ErrorKind, Result};
use crate::model::Time;
use crate::postgres::{FindPrograms, Lsn};
use crate::recovery::archive::Archive;
use crate::recovery::commits::{Commit, LogArchive};
use crate::recovery::wal_index::{self, Exchanged, Index};
use crate::recovery::watch::Unwatched;

/// What can be recovered to on one timeline.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The timeline.
    pub timeline: u32,
    /// Base backups, oldest first.
    pub backups: Vec<Manifest>,
    /// From here on: the oldest base backup is consistent.
    pub earliest: Option<Time>,
    /// The position of that.
    pub earliest_lsn: Option<Lsn>,
    /// Newest commit in the archive that an unbroken log leads to.
    pub latest: Option<Commit>,
    /// Last segment of the unbroken log from the newest base backup.
    pub last_segment: Option<String>,
    /// Where that log ends.
    pub end_lsn: Option<Lsn>,
    /// What breaks the log.
    pub holes: Vec<Hole>,
    /// Tablespaces made on the way, which no recovery goes past, by position.
    pub tablespaces: Vec<InTheWay>,
    /// Segments on the way that the index does not know yet, or not all that is asked of it now.
    pub unread: u64,
    /// Segments on the way that were touched since they were read, and are the same objects still.
    pub touched: u64,
    /// Segments on the way that are other objects than those that were read.
    pub exchanged: Vec<Exchanged>,
    /// Every segment on the way that was read was last read to its last byte then, or later.
    pub read_since: Option<Time>,
}

/// What can be recovered to. `timeline` is the newest when not given.
///
/// # Errors
/// The repository cannot be read, or a history is damaged. That nothing can be recovered is an answer, not an error.
pub fn range(unlocked: &Unlocked, programs: &dyn FindPrograms, timeline: Option<u32>, scratch: &Path) -> Result<Reach> {
    let known = Known::of(unlocked)?;
    let newest = known.listing.timelines().last().copied().unwrap_or(1);
    reach(unlocked, programs, timeline.unwrap_or(newest), &known, scratch)
}

/// As [`ranges`], with base backups that are known already; `only` names one timeline, which need not be archived.
///
/// # Errors
/// As [`range`].
pub fn ranges_from(
    unlocked: &Unlocked,
    backups: Vec<Manifest>,
    programs: &dyn FindPrograms,
    only: Option<u32>,
    scratch: &Path,
) -> Result<Vec<Reach>> {
    let known = Known::with(unlocked, backups)?;
    match only {
        Some(timeline) => Ok(vec![reach(unlocked, programs, timeline, &known, scratch)?]),
        None => every(unlocked, known, programs, None, scratch),
    }
}

/// As [`range`], for every timeline of the archive, the oldest first.
///
/// # Errors
/// As [`range`].
pub fn ranges(unlocked: &Unlocked, programs: &dyn FindPrograms, scratch: &Path) -> Result<Vec<Reach>> {
    every(unlocked, Known::of(unlocked)?, programs, None, scratch)
}

/// As [`ranges`] of an archive that has no index: the newest commits are looked for in the log itself. `only` names one timeline.
///
/// # Errors
/// As [`range`].
pub fn ranges_of(
    archive: &dyn Archive,
    programs: &dyn FindPrograms,
    only: Option<u32>,
    scratch: &Path,
) -> Result<Vec<Reach>> {
    let known = Known { index: Index::default(), backups: archive.backups()?, listing: archive.listing()? };
    every(archive, known, programs, only, scratch)
}

fn every(
    archive: &dyn Archive,
    known: Known,
    programs: &dyn FindPrograms,
    only: Option<u32>,
    scratch: &Path,
) -> Result<Vec<Reach>> {
    let mut all = known.listing.timelines();
    if all.is_empty() {
        all.insert(1);
    }
    all.retain(|t| only.is_none_or(|o| o == *t));
    all.into_iter().map(|t| reach(archive, programs, t, &known, scratch)).collect()
}

/// What a range is made from, read once.
struct Known {
    index: Index,
    backups: Vec<Manifest>,
    listing: Listing,
}

impl Known {
    fn of(unlocked: &Unlocked) -> Result<Self> {
        Self::with(unlocked, unlocked.backups()?)
    }

    fn with(unlocked: &Unlocked, backups: Vec<Manifest>) -> Result<Self> {
        let listing = unlocked.listing()?;
        Ok(Self { index: Index::of(unlocked, &listing)?, backups, listing })
    }
}

fn reach(
    store: &dyn Archive,
    programs: &dyn FindPrograms,
    timeline: u32,
    known: &Known,
    scratch: &Path,
) -> Result<Reach> {
    let archive = LogArchive::open(store, programs, timeline)?;
    let way = store.way(&known.listing, timeline)?;
    let backups = usable(known.backups.clone(), &archive);
    let mut reach = Reach {
        timeline,
        earliest: backups.first().map(|m| m.finished_at),
        earliest_lsn: backups.first().and_then(stop_of),
        backups,
        latest: None,
        last_segment: None,
        end_lsn: None,
        holes: Vec::new(),
        tablespaces: Vec::new(),
        unread: 0,
        touched: 0,
        exchanged: Vec::new(),
        read_since: None,
    };
    let backups = reach.backups.clone();
    let size = known.listing.segment_size();
    let log = Log { store, archive: &archive, way: &way, backups: &backups, scratch };
    // Segments that turned out to be damaged.
    let mut bad: BTreeMap<u64, String> = BTreeMap::new();
    // Backups share most of the log that follows them: each stretch is looked at once.
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    let read = |n: &u64| way.is_begun(*n) || way.segment(*n).is_some_and(|(s, b)| known.index.get(s, b).is_some());
    let complete =
        |n: &u64| way.is_begun(*n) || way.segment(*n).is_some_and(|(s, b)| known.index.tablespaces(s, b).is_some());
    for m in &backups {
        let Some(start) = start_of(m) else { continue };
        let first = archive.number(start);
        if let Some((_, last)) = stretches.iter().find(|(f, l)| (*f..=*l).contains(&first)) {
            reach.last_segment = Some(archive.name(*last));
            continue;
        }
        let (c, last, newest) = loop {
            let (c, last) = stretch(&log, &known.index, &mut bad, first)?;
            let newest = match last {
                Some(last) => newest_commit(&archive, &way, &known.index, first, last, scratch),
                None => Ok(None),
            };
            match newest {
                Ok(newest) => break (c, last, newest),
                // Once one of those that nobody read is damaged, all of them are looked at.
                Err(e) if matches!(e.kind, ErrorKind::Check | ErrorKind::Usage) => {
                    let before = bad.len();
                    let unread: Vec<(u64, u64)> =
                        last.into_iter().flat_map(|l| first..=l).filter(|n| !read(n)).map(|n| (n, n)).collect();
                    bad.extend(log.damaged(&unread, &Unwatched, &CancellationToken::new())?);
                    if bad.len() == before {
                        return Err(e);
                    }
                }
                Err(e) => return Err(e),
            }
        };
        // What comes behind it counts for the backups there; what is bad there is told all the same, once.
        let seen = !reach.holes.is_empty();
        let mut from = c.hole.as_ref().filter(|_| !seen).and_then(|h| log.number(&h.last));
        note(&mut reach.holes, c.hole, &log);
        while let Some(next) = from.map(|h| h + 1).filter(|n| way.end().is_some_and(|end| *n <= end)) {
            let (c, _) = stretch(&log, &known.index, &mut bad, next)?;
            from = c.hole.as_ref().and_then(|h| log.number(&h.last));
            note(&mut reach.holes, c.hole, &log);
        }
        let Some(last) = last else { continue };
        stretches.push((first, last));
        reach.last_segment = c.last;
        let newest = match in_the_way(&log, &known.index, start, last, &mut reach.tablespaces)? {
            Some(made) => before(&log, &known.index, first, made)?,
            None => newest,
        };
        reach.latest = newest.or(reach.latest);
        reach.end_lsn = Some(Lsn(way.end_lsn(last, &mut |s| store.beginning(s))?));
        reach.unread += (first..=last).filter(|n| !read(n) || !complete(n)).count() as u64;
        for (segment, _) in (first..=last).filter(|n| !way.is_begun(*n)).filter_map(|n| way.segment(n)) {
            reach.touched += u64::from(known.index.touched.contains(&segment));
            let read_at = known.index.read_at(segment);
            reach.read_since = reach.read_since.into_iter().chain(read_at).min();
        }
    }
    let on_way = |s: Segment| way.segment(archive.number(Lsn(s.start_lsn(size)))).is_some_and(|(own, _)| own == s);
    reach.exchanged = known.index.exchanged.iter().filter(|e| on_way(e.segment)).copied().collect();
    Ok(reach)
}

/// Segments without an entry in the index that are read for tablespaces, at most, so as to say what can be recovered to: what is left
/// is told as not in the index.
const READ_FOR_TABLESPACES: u64 = 16;

/// Notes the tablespaces that are made on a stretch of the log; returns the position of the one behind which no base backup begins.
fn in_the_way(log: &Log<'_>, index: &Index, start: Lsn, last: u64, out: &mut Vec<InTheWay>) -> Result<Option<Lsn>> {
    let mut from = start;
    while let Some(made) = log.tablespace(index, from, last, READ_FOR_TABLESPACES, &mut |_| Ok(()))?.first {
        let at = made.at();
        let behind = |m: &&Manifest| start_of(m).is_some_and(|s| s > at);
        let next = log.backups.iter().filter(behind).min_by_key(|m| start_of(m));
        out.push(InTheWay { made, until: next.map(|m| (m.id.clone(), m.finished_at)) });
        match next.and_then(start_of) {
            Some(start) => from = start,
            None => return Ok(Some(at)),
        }
    }
    Ok(None)
}

/// The last commit before a position, from the segment `first` on.
fn before(log: &Log<'_>, index: &Index, first: u64, lsn: Lsn) -> Result<Option<Commit>> {
    let number = log.archive.number(lsn);
    // Of a segment that was only begun nothing is said here.
    let own = log.archive.read(number, number, log.scratch).ok();
    match own.and_then(|piece| piece.commits.into_iter().rfind(|c| c.lsn < lsn)) {
        None if number > first => newest_commit(log.archive, log.way, index, first, number - 1, log.scratch),
        own => Ok(own),
    }
}

/// Keeps a hole, once.
fn note(holes: &mut Vec<Hole>, hole: Option<Hole>, log: &Log<'_>) {
    let ends = |h: &Hole| log.number(&h.first).zip(log.number(&h.last));
    let Some(hole) = hole else { return };
    let inside = |h: &Hole| {
        ends(h).zip(ends(&hole)).is_some_and(|((first, last), (a, b))| first <= a && b <= last) || *h == hole
    };
    if !holes.iter().any(inside) {
        holes.push(hole);
        holes.sort_by_key(|h| log.number(&h.first));
    }
}

/// How far the log runs from a segment on: to what is missing, to what the index knows to be damaged, to what nobody read yet and
/// was cut. Segments that were found so are kept in `bad`.
fn stretch(
    log: &Log<'_>,
    index: &Index,
    bad: &mut BTreeMap<u64, String>,
    first: u64,
) -> Result<(Continuity, Option<u64>)> {
    let (archive, way) = (log.archive, log.way);
    let mut names = |segment, begun| log.store.inspect(segment, begun, Depth::Names);
    let mut c = way.check_by(&archive.name(first), None, &mut names, &mut |_| Ok(()))?;
    let numbered = |name: &String| Lsn::of_segment(name, archive.segment_bytes()).map(|(_, l)| archive.number(l));
    let mut last = c.last.as_ref().and_then(numbered);
    let mut unread = Vec::new();
    for number in last.into_iter().flat_map(|last| first..=last).filter(|n| !way.is_begun(*n)) {
        let Some((segment, bytes)) = way.segment(number) else { continue };
        match index.get(segment, bytes) {
            Some(wal_index::Known::Damaged(why)) => drop(bad.insert(number, why.clone())),
            Some(wal_index::Known::Read(_)) => {}
            None => unread.push((number, segment)),
        }
    }
    bad.extend(cut(log.store, &unread)?);
    // What is damaged ends the log as surely as what is missing.
    let found = last.and_then(|last| bad.range(first..=last).next());
    if let Some((number, why)) = found {
        let name = |n: u64| way.segment(n).map_or_else(|| archive.name(n), |(s, _)| s.to_string());
        let mut end = *number;
        while bad.get(&(end + 1)) == Some(why) {
            end += 1;
        }
        let next = way.segment(end + 1).map(|(s, _)| s.to_string());
        last = number.checked_sub(1).filter(|n| *n >= first);
        c.last = last.map(|n| archive.name(n));
        c.hole = Some(Hole { first: name(*number), last: name(end), next, why: why.clone() });
    }
    Ok((c, last))
}

/// Which of these segments were cut: their ends tell.
fn cut(store: &dyn Archive, segments: &[(u64, Segment)]) -> Result<BTreeMap<u64, String>> {
    let look = |(number, segment): &(u64, Segment)| Ok((*number, store.inspect(*segment, false, Depth::Ends)?));
    let found = side_by_side(store.at_once(), segments, &look)?;
    Ok(found.into_iter().filter_map(|(number, why)| Some((number, why?))).collect())
}

/// The last commit of a stretch: from the index where it knows the segment, else from the log.
pub(super) fn newest_commit(
    archive: &LogArchive<'_>,
    way: &Way,
    index: &Index,
    first: u64,
    last: u64,
    scratch: &Path,
) -> Result<Option<Commit>> {
    let known = |n: u64| way.segment(n).and_then(|(s, bytes)| index.read(s, bytes));
    let mut end = last;
    loop {
        match known(end) {
            Some(i) if i.commits == 0 => {}
            Some(i) if i.last_commit_lsn.is_some() => {
                let (lsn, at) = (i.last_commit_lsn.unwrap_or_default(), i.last_commit.unwrap_or_default());
                return Ok(Some(Commit { lsn, xid: i.last_commit_xid, subxids: Vec::new(), at }));
            }
            _ => {
                let mut begin = end;
                while begin > first && known(begin - 1).is_none() {
                    begin -= 1;
                }
                let mut newest = None;
                archive.walk_back(begin, end, scratch, &mut |piece, _| {
                    newest = piece.commits.last().cloned();
                    Ok(newest.is_some())
                })?;
                if newest.is_some() {
                    return Ok(newest);
                }
                end = begin;
            }
        }
        if end == first {
            return Ok(None);
        }
        end -= 1;
    }
}
