//! What the archive holds: per timeline from where to where, with every hole; and whether a recovery can run through.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::super::catalog::Manifest;
use super::super::container::{Expect, Header, ObjectType, SEALED_FOR, check_ends, check_stored_for, verify};
use super::super::damage::is_damage;
use super::super::repository::{Repository, Unlocked, of_object};
use super::super::stamp::Stamp;
use super::fetch::read;
use super::name::{DEFAULT_SEGMENT_SIZE, Segment, WalName, parse_lsn};
use super::received::{self, Received};
use crate::error::{Error, Result};
use crate::model::Time;

/// Segments that are missing, or one that is there and damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// First segment that cannot be used.
    pub first: String,
    /// Last segment that cannot be used.
    pub last: String,
    /// The next one that is there, if any.
    pub next: Option<String>,
    /// What is wrong.
    pub why: String,
}

/// What the archive holds of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineStatus {
    /// The timeline.
    pub timeline: u32,
    /// First segment.
    pub first: String,
    /// Last segment.
    pub last: String,
    /// How many there are.
    pub segments: u64,
    /// Their size as stored.
    pub stored_bytes: u64,
    /// When the last one was archived, by its header, which is not authenticated without the key.
    pub last_archived_at: Option<Time>,
    /// What is missing between the first and the last.
    pub holes: Vec<Hole>,
}

/// What the archive holds, by names alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalStatus {
    /// The cluster, as text, once known.
    pub system_identifier: Option<String>,
    /// Bytes per segment.
    pub segment_size: u32,
    /// Per timeline, in order.
    pub timelines: Vec<TimelineStatus>,
    /// Timelines whose history is archived.
    pub histories: Vec<u32>,
    /// How far `wal receive` is, by its own word.
    pub received: Option<Received>,
}

/// Lists the archive. Needs no secret.
pub fn status(repository: &Repository) -> Result<WalStatus> {
    let cluster = repository.cluster()?;
    let segment_size = cluster.and_then(|c| c.wal_segment_size).unwrap_or(DEFAULT_SEGMENT_SIZE);
    let mut all: Vec<(Segment, u64)> = Vec::new();
    let mut histories = Vec::new();
    for entry in repository.store().list("wal/")? {
        match WalName::from_object(&entry.name) {
            Some(WalName::Segment(s)) => all.push((s, entry.size)),
            Some(WalName::History(t)) => histories.push(t),
            _ => {}
        }
    }
    all.sort_unstable();
    let mut timelines = Vec::new();
    for group in all.chunk_by(|a, b| a.0.timeline == b.0.timeline) {
        let (Some((first, _)), Some((last, _))) = (group.first(), group.last()) else { continue };
        let holes = group
            .windows(2)
            .filter_map(|pair| {
                let (a, b) = (pair[0].0.number(segment_size), pair[1].0.number(segment_size));
                (b > a + 1).then(|| missing(first.timeline, a + 1, b - 1, Some(pair[1].0), segment_size))
            })
            .collect();
        timelines.push(TimelineStatus {
            timeline: first.timeline,
            first: first.to_string(),
            last: last.to_string(),
            segments: group.len() as u64,
            stored_bytes: group.iter().map(|(_, size)| size).sum(),
            last_archived_at: archived_at(repository, last),
            holes,
        });
    }
    Ok(WalStatus {
        system_identifier: cluster.map(|c| c.system_identifier.to_string()),
        segment_size,
        timelines,
        histories,
        received: received::state(repository)?,
    })
}

fn archived_at(repository: &Repository, segment: &Segment) -> Option<Time> {
    let mut input = repository.store().open(&WalName::Segment(*segment).object()).ok()??;
    Header::read(&mut input).ok().map(|h| h.spec.created_at)
}

fn missing(timeline: u32, first: u64, last: u64, next: Option<Segment>, size: u32) -> Hole {
    Hole {
        first: Segment::from_number(timeline, first, size).to_string(),
        last: Segment::from_number(timeline, last, size).to_string(),
        next: next.map(|s| s.to_string()),
        why: "missing from the archive".into(),
    }
}

/// How closely [`check_continuity`] looks at each segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// It is there.
    Names,
    /// It begins and ends as the object it should be: finds what was cut, for two small requests.
    Ends,
    /// Its stored bytes match its own checksum: finds rot.
    Stored,
    /// Every byte authenticates: finds rot and intent.
    Full,
}

/// How far a recovery can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Continuity {
    /// Last segment of the unbroken run; none when even the first is missing.
    pub last: Option<String>,
    /// What breaks the run although there is more after it, or `upto` was not reached.
    pub hole: Option<Hole>,
}

/// A timeline of a recovery's path: it is followed until `ends_at`, where the next one branches off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// The timeline.
    pub timeline: u32,
    /// Where it was left; none for the last one.
    pub ends_at: Option<u64>,
}

/// The timelines that lead to `timeline`, oldest first, by its history file.
///
/// # Errors
/// When the history is damaged, or is missing for a timeline above 1.
pub fn path_to(unlocked: &Unlocked, timeline: u32) -> Result<Vec<Branch>> {
    path_by(timeline, &mut |name| read(unlocked, name))
}

/// As [`path_to`], from any archive.
///
/// # Errors
/// As [`path_to`], and what reading says.
pub fn path_by(timeline: u32, read: &mut dyn FnMut(&WalName) -> Result<Option<Vec<u8>>>) -> Result<Vec<Branch>> {
    let mut path = Vec::new();
    if timeline > 1 {
        let name = WalName::History(timeline);
        let bytes = read(&name)?.ok_or_else(|| {
            Error::check(format!("{name} is not in the archive"))
                .why(format!("without it nobody knows where timeline {timeline} branched off"))
        })?;
        path = parse_history(&String::from_utf8_lossy(&bytes))
            .ok_or_else(|| Error::check(format!("{name} is not a timeline history")))?;
    }
    path.push(Branch { timeline, ends_at: None });
    Ok(path)
}

/// The timelines before one, oldest first, by the lines of its history file: a timeline, the position it was left at, a reason.
///
/// A recovery that ended before the timeline it was to follow had begun leaves a line with an earlier position than the line above it:
/// PostgreSQL names the timeline it was told to follow, not the one it was on (`writeTimeLineHistory` in xlog.c). Of the timelines
/// above only what lies before that position led here; one of which nothing does is left out.
pub fn parse_history(text: &str) -> Option<Vec<Branch>> {
    let mut path: Vec<(u32, u64)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        let timeline = words.next()?.parse().ok()?;
        let ends_at = parse_lsn(words.next()?)?;
        if path.last().is_some_and(|(before, _)| *before >= timeline) {
            return None;
        }
        let begins_at = path.last().map_or(0, |(_, end)| *end);
        path.iter_mut().for_each(|(_, end)| *end = ends_at.min(*end));
        // The server reads an empty stretch as one, too: it may come to be on a timeline that was promoted at once.
        if ends_at >= begins_at {
            path.push((timeline, ends_at));
        }
    }
    Some(path.into_iter().map(|(timeline, end)| Branch { timeline, ends_at: Some(end) }).collect())
}

/// Whether a base backup leads along this path: it was complete before the path left its timeline. One of a timeline that branched
/// off elsewhere does not.
pub fn leads_along(path: &[Branch], backup: &Manifest) -> bool {
    let end = backup.stop_lsn.as_deref().or(backup.start_lsn.as_deref()).and_then(parse_lsn);
    let on = |b: &Branch| Some(b.timeline) == backup.timeline && b.ends_at.is_none_or(|left| end <= Some(left));
    end.is_some() && path.iter().any(on)
}

/// Whether the archive holds, without a gap, everything from `start` (a segment's name) along the way to `timeline`,
/// up to segment `upto` or as far as it goes.
///
/// PostgreSQL takes the first segment it cannot read for the end of its log and promotes there; only a look at the whole
/// run beforehand tells an end from a hole. `progress` is told the number of segments looked at; an error from it stops.
///
/// # Errors
/// A usage failure for a name that is no segment; a missing or damaged history; a repository that cannot be read. Holes
/// and damaged segments are not errors but the answer.
pub fn check_continuity(
    unlocked: &Unlocked,
    start: &str,
    timeline: u32,
    upto: Option<&str>,
    depth: Depth,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Continuity> {
    Way::list(unlocked, timeline)?.check(unlocked, start, upto, depth, progress)
}

/// The names of everything archived, read once.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    segment_size: u32,
    /// Whole segments by timeline: number and bytes as stored.
    whole: BTreeMap<u32, BTreeMap<u64, u64>>,
    /// Segments of which the beginning is there.
    begun: BTreeMap<u32, Vec<(u64, u64)>>,
    histories: BTreeSet<u32>,
    /// Stamps of whole segments, where the place tells them.
    stamps: HashMap<Segment, Stamp>,
}

impl Listing {
    /// Reads it.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn read(repository: &Repository) -> Result<Self> {
        let segment_size = repository.cluster()?.and_then(|c| c.wal_segment_size).unwrap_or(DEFAULT_SEGMENT_SIZE);
        let entries = repository.store().list("wal/")?;
        let named = || entries.iter().filter_map(|e| Some((WalName::from_object(&e.name)?, e)));
        let stamps = named().filter_map(|(name, e)| match name {
            WalName::Segment(s) => Some((s, e.stamp?)),
            _ => None,
        });
        Ok(Self { stamps: stamps.collect(), ..Self::of(segment_size, named().map(|(name, e)| (name, e.size))) })
    }

    /// Every whole segment with its bytes as stored and its stamp, by timeline and position.
    pub fn segments(&self) -> impl Iterator<Item = (Segment, u64, Option<Stamp>)> {
        let size = self.segment_size;
        let all = self.whole.iter().flat_map(move |(timeline, numbers)| {
            numbers.iter().map(move |(number, bytes)| (Segment::from_number(*timeline, *number, size), *bytes))
        });
        all.map(|(s, bytes)| (s, bytes, self.stamps.get(&s).copied()))
    }

    /// Bytes of a segment of the log.
    pub fn segment_size(&self) -> u32 {
        self.segment_size
    }

    /// From names and sizes, wherever they come from.
    pub fn of(segment_size: u32, files: impl IntoIterator<Item = (WalName, u64)>) -> Self {
        let mut all = Self { segment_size, ..Self::default() };
        for (name, bytes) in files {
            match name {
                WalName::Segment(s) => {
                    all.whole.entry(s.timeline).or_default().insert(s.number(segment_size), bytes);
                }
                WalName::Partial(s) => {
                    all.begun.entry(s.timeline).or_default().push((s.number(segment_size), bytes));
                }
                WalName::History(t) => {
                    all.histories.insert(t);
                }
                WalName::Backup(..) => {}
            }
        }
        all
    }

    /// Every timeline there is something of, the oldest first.
    pub fn timelines(&self) -> BTreeSet<u32> {
        self.whole.keys().chain(self.begun.keys()).chain(&self.histories).copied().collect()
    }
}

/// The segments on the way to a timeline, listed once: what is asked of them costs nothing more.
#[derive(Debug, Clone)]
pub struct Way {
    segment_size: u32,
    there: Vec<(Branch, BTreeMap<u64, u64>)>,
    /// Segments of which the beginning is there, at the end of a timeline: timeline and number.
    begun: BTreeSet<(u32, u64)>,
}

impl Way {
    /// Lists them.
    ///
    /// # Errors
    /// A missing or damaged history; a repository that cannot be read.
    pub fn list(unlocked: &Unlocked, timeline: u32) -> Result<Self> {
        Self::of(unlocked, &Listing::read(unlocked.repository())?, timeline)
    }

    /// As [`Way::list`], from a listing that was made before.
    ///
    /// # Errors
    /// A missing or damaged history.
    pub fn of(unlocked: &Unlocked, listing: &Listing, timeline: u32) -> Result<Self> {
        Ok(Self::along(path_to(unlocked, timeline)?, listing))
    }

    /// The segments of a listing along a path.
    pub fn along(path: Vec<Branch>, listing: &Listing) -> Self {
        let segment_size = listing.segment_size;
        let mut there = Vec::new();
        let mut begun = BTreeSet::new();
        for branch in path {
            let mut numbers = listing.whole.get(&branch.timeline).cloned().unwrap_or_default();
            let last = numbers.last_key_value().map(|(n, _)| *n);
            for (number, bytes) in listing.begun.get(&branch.timeline).into_iter().flatten() {
                // Anywhere else it is left over, or what it is the beginning of is a hole.
                if last.is_none_or(|last| *number == last + 1) {
                    numbers.insert(*number, *bytes);
                    begun.insert((branch.timeline, *number));
                }
            }
            there.push((branch, numbers));
        }
        Self { segment_size, there, begun }
    }

    /// Where the log of the segment of this number ends: at its end, or, when only its beginning is there, where that ends.
    ///
    /// # Errors
    /// The beginning cannot be read.
    pub fn end_lsn(&self, number: u64, beginning: &mut dyn FnMut(Segment) -> Result<Option<Vec<u8>>>) -> Result<u64> {
        let full = (number + 1) * u64::from(self.segment_size);
        match self.segment(number).filter(|_| self.is_begun(number)) {
            Some((segment, _)) => {
                let bytes = beginning(segment)?;
                Ok(bytes.and_then(|b| received::valid_end(segment, &b)).unwrap_or(full - u64::from(self.segment_size)))
            }
            None => Ok(full),
        }
    }

    /// Whether of the segment of this number only the beginning is there.
    pub fn is_begun(&self, number: u64) -> bool {
        let owner = self.owner(number).and_then(|i| self.there.get(i));
        owner.is_some_and(|(branch, _)| self.begun.contains(&(branch.timeline, number)))
    }

    /// Where the timeline of this place in the path begins, as a segment's number.
    fn branch_start(&self, i: usize) -> u64 {
        match i.checked_sub(1).and_then(|i| self.there.get(i)?.0.ends_at) {
            Some(lsn) => lsn / u64::from(self.segment_size),
            None => 0,
        }
    }

    /// The last segment that any timeline of the path has, as far as the path runs along it.
    pub fn end(&self) -> Option<u64> {
        let last = |(branch, numbers): &(Branch, BTreeMap<u64, u64>)| match branch.ends_at {
            Some(lsn) => numbers.range(..=lsn / u64::from(self.segment_size)).next_back().map(|(n, _)| *n),
            None => numbers.last_key_value().map(|(n, _)| *n),
        };
        self.there.iter().filter_map(last).max()
    }

    /// The newest timeline that has begun by this segment: its copy counts.
    fn owner(&self, number: u64) -> Option<usize> {
        let i = (0..self.there.len()).rev().find(|&i| self.branch_start(i) <= number)?;
        let begins_here = i > 0 && self.branch_start(i) == number;
        // Just promoted, nothing archived yet: the old timeline's copy goes up to the branch.
        Some(if begins_here && self.there[i].1.is_empty() { i - 1 } else { i })
    }

    /// The segment of this number on the way and its bytes as stored; `None` when it is not there.
    pub fn segment(&self, number: u64) -> Option<(Segment, u64)> {
        let (branch, numbers) = self.there.get(self.owner(number)?)?;
        let bytes = *numbers.get(&number)?;
        Some((Segment::from_number(branch.timeline, number, self.segment_size), bytes))
    }

    /// The segment after this one, when it is there and of the same timeline, by its place in the path.
    fn after(&self, number: u64, timeline: usize) -> Option<Segment> {
        let same = self.owner(number + 1) == Some(timeline);
        self.segment(number + 1).filter(|_| same).map(|(segment, _)| segment)
    }

    /// As [`check_continuity`].
    ///
    /// # Errors
    /// As [`check_continuity`].
    pub fn check(
        &self,
        unlocked: &Unlocked,
        start: &str,
        upto: Option<&str>,
        depth: Depth,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Continuity> {
        self.check_by(start, upto, &mut |segment, begun| inspect(unlocked, segment, begun, depth), progress)
    }

    /// As [`Way::check`]; `inspect` says what is wrong with a segment that is there, and is told whether only its beginning is.
    ///
    /// # Errors
    /// As [`Way::check`].
    pub fn check_by(
        &self,
        start: &str,
        upto: Option<&str>,
        inspect: &mut dyn FnMut(Segment, bool) -> Result<Option<String>>,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Continuity> {
        let size = self.segment_size;
        let bad = |name: &str| Error::usage(format!("{name:?} is not the name of a WAL segment"));
        let first = Segment::parse(start).ok_or_else(|| bad(start))?.number(size);
        let upto = upto.map(|u| Segment::parse(u).map(|s| s.number(size)).ok_or_else(|| bad(u))).transpose()?;
        let mut answer = Continuity { last: None, hole: None };
        let Some(goal) = upto.or(self.end()) else {
            return Ok(answer);
        };
        let mut last = None;
        for (looked, number) in (first..=goal).enumerate() {
            let Some(i) = self.owner(number) else { break };
            let Some((branch, numbers)) = self.there.get(i) else { break };
            let segment = Segment::from_number(branch.timeline, number, size);
            if !numbers.contains_key(&number) {
                let next = numbers.range(number..).next().map(|(n, _)| *n);
                let end = next.map_or(goal, |n| n - 1);
                let next = next.map(|n| Segment::from_number(branch.timeline, n, size));
                answer.hole = Some(missing(branch.timeline, number, end.max(number), next, size));
                break;
            }
            let begun = self.begun.contains(&(branch.timeline, number));
            if let Some(error) = inspect(segment, begun)? {
                // Those that follow and are bad for the same reason belong to it, also behind what was asked about.
                let mut end = number;
                while let Some(more) = self.after(end, i)
                    && inspect(more, self.begun.contains(&(branch.timeline, end + 1)))?.as_ref() == Some(&error)
                {
                    end += 1;
                }
                let next = numbers.range(end + 1..).next();
                let next = next.map(|(n, _)| Segment::from_number(branch.timeline, *n, size));
                answer.hole = Some(Hole {
                    first: segment.to_string(),
                    last: Segment::from_number(branch.timeline, end, size).to_string(),
                    next: next.map(|s| s.to_string()),
                    why: error,
                });
                break;
            }
            last = Some(segment);
            progress(looked as u64 + 1)?;
        }
        answer.last = last.map(|s| s.to_string());
        Ok(answer)
    }
}

/// What is wrong with a segment of which everything, or only the beginning, is there.
///
/// # Errors
/// The repository cannot be read.
pub fn inspect(unlocked: &Unlocked, segment: Segment, begun: bool, depth: Depth) -> Result<Option<String>> {
    match begun {
        true if matches!(depth, Depth::Names | Depth::Ends) => Ok(None),
        true => match received::read(unlocked, segment) {
            Ok(Some(_)) => Ok(None),
            // One in which no record has ended yet is whole all the same.
            Ok(None) if received::is_there(unlocked.repository(), segment)? => Ok(None),
            Ok(None) => Ok(Some("vanished while it was checked".to_string())),
            Err(e) if is_damage(&e) => Ok(Some(reason(&e))),
            Err(e) => Err(e),
        },
        false => look(unlocked, segment, depth),
    }
}

/// Why a segment cannot be used, for people. A key that does not open it is as bad as damage: recovery could not read it either;
/// said of all that are sealed for the same one alike, whatever their names.
pub fn reason(e: &Error) -> String {
    match e.why.as_str() {
        "" => e.what.clone(),
        why if why.starts_with(SEALED_FOR) => why.to_string(),
        why => format!("{}: {why}", e.what),
    }
}

/// What is wrong with a segment, if anything.
fn look(unlocked: &Unlocked, segment: Segment, depth: Depth) -> Result<Option<String>> {
    let repository = unlocked.repository();
    let name = WalName::Segment(segment).object();
    let expect = Expect { object: ObjectType::WalSegment, repository: repository.id(), name: &name };
    let open = || repository.store().open(&name);
    const GONE: &str = "vanished while it was checked";
    let result = match depth {
        Depth::Names => Ok(()),
        Depth::Ends => check_ends(repository.store(), unlocked.identities(), &expect),
        Depth::Full => match open()? {
            Some(input) => verify(input, unlocked.identities(), &expect).map(|_| ()),
            None => return Ok(Some(GONE.into())),
        },
        Depth::Stored => match open()? {
            Some(input) => check_stored_for(input, unlocked.identities(), &expect),
            None => return Ok(Some(GONE.into())),
        },
    };
    match result {
        Ok(()) => Ok(None),
        Err(e) if is_damage(&e) => Ok(Some(reason(&e))),
        Err(e) => Err(of_object(e, &name)),
    }
}
