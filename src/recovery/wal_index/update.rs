//! Reading the segments that the index does not know yet, in the order of the log, a crash away from nothing lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, sync_channel};

use tokio_util::sync::CancellationToken;

use super::{CHUNK, Entry, FOLDER, Index, Known, There, keep_names};
use crate::backup::container::{ObjectId, hex};
use crate::backup::repository::Unlocked;
use crate::backup::wal::fetch::read_segment;
use crate::backup::wal::range::reason;
use crate::backup::wal::{Listing, Segment};
use crate::error::{ErrorKind, Result};
use crate::model::Time;
use crate::postgres::wal::{Reader, Record, Tail};
use crate::recovery::range::tablespace::Made;
use crate::recovery::wal_locate::{NameMap, Rules, Tracker};
use crate::recovery::watch::{Phase, Watch, check_cancel};

/// How far back a transaction that is still open is read again, in segments: its rows before that are not counted.
const READ_AGAIN: u64 = 64;
/// Segments after which what was read is stored.
const STORE_EVERY: u64 = 64;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Updated {
    /// Segments that were read and are known now.
    pub segments: u64,
    /// Segments that cannot be read, with the reason.
    pub damaged: Vec<String>,
    /// Segments known in all.
    pub known: u64,
}

/// First and last segment of what is to be read.
type Stretch = (u64, u64);
/// A segment's number and its bytes, or why there are none.
type Taken = (u64, Result<Option<(Vec<u8>, ObjectId)>>);

/// Reads every archived segment that `index` does not know, and keeps what it says. Stopped or killed, what was stored stays
/// and the next one goes on. `names` is what is known of names; it comes back with what the log taught, and is kept, too.
///
/// # Errors
/// The repository cannot be read or written, or stopped on request. A damaged segment is an entry, not an error.
pub fn update(
    unlocked: &Unlocked,
    index: &mut Index,
    names: NameMap,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<(Updated, NameMap)> {
    let listing = Listing::read(unlocked.repository())?;
    let size = listing.segment_size();
    index.confirm(unlocked.repository(), &listing)?;
    let mut work = Work {
        unlocked,
        index,
        size,
        names,
        watch,
        cancel,
        done: Updated::default(),
        dirty: BTreeSet::new(),
        taught: false,
        total: 0,
    };
    let mut all: BTreeMap<u32, There> = BTreeMap::new();
    for (segment, bytes, stamp) in listing.segments() {
        all.entry(segment.timeline).or_default().insert(segment.number(size), (bytes, stamp));
    }
    let all: Vec<(u32, There)> = all.into_iter().collect();
    work.forget(&all)?;
    let stretches: Vec<Vec<Stretch>> = all.iter().map(|(t, there)| work.unknown(*t, there)).collect();
    work.total = stretches.iter().flatten().map(|(first, last)| last - first + 1).sum();
    for ((timeline, there), stretches) in all.iter().zip(stretches) {
        for (first, last) in stretches {
            work.stretch(*timeline, there, first, last)?;
        }
        work.store(*timeline, there)?;
    }
    work.done.known = work.index.len() as u64;
    Ok((work.done, work.names))
}

struct Work<'a> {
    unlocked: &'a Unlocked,
    index: &'a mut Index,
    size: u32,
    names: NameMap,
    watch: &'a dyn Watch,
    cancel: &'a CancellationToken,
    done: Updated,
    dirty: BTreeSet<u64>,
    taught: bool,
    total: u64,
}

impl Work<'_> {
    /// Entries and objects of segments that retention has taken away go, too.
    fn forget(&mut self, all: &[(u32, There)]) -> Result<()> {
        let there = |t: u32, n: u64| all.iter().any(|(x, m)| *x == t && m.contains_key(&n));
        let size = self.size;
        self.index.entries.retain(|s, _| there(s.timeline, s.number(size)));
        let store = self.unlocked.repository().store();
        for entry in store.list(FOLDER)? {
            let mut words = entry.name.trim_start_matches(FOLDER).trim_end_matches(super::SUFFIX).split('/');
            let number = |w: Option<&str>| w.and_then(|w| u64::from_str_radix(w, 16).ok());
            let (Some(timeline), Some(chunk)) = (number(words.next()), number(words.next())) else { continue };
            let used = |(t, m): &(u32, There)| {
                u64::from(*t) == timeline && m.range(chunk * CHUNK..(chunk + 1) * CHUNK).next().is_some()
            };
            if !all.iter().any(used) && self.keeps() {
                store.delete(&entry.name)?;
            }
        }
        Ok(())
    }

    /// Unbroken stretches of segments that are to be read: first and last of each.
    fn unknown(&self, timeline: u32, there: &There) -> Vec<Stretch> {
        let mut out: Vec<Stretch> = Vec::new();
        for (number, (bytes, stamp)) in there {
            let known = self.index.entries.get(&Segment::from_number(timeline, *number, self.size));
            // What was damaged may have been mended; what was touched may have been written into.
            let complete = |e: &Entry| matches!(e.known, Known::Read(_)) && e.tablespaces.is_some();
            if known.is_some_and(|e| e.is_of(*bytes, *stamp) && complete(e)) {
                continue;
            }
            match out.last_mut() {
                Some((_, last)) if *last + 1 == *number => *last = *number,
                _ => out.push((*number, *number)),
            }
        }
        out
    }

    /// Where reading must begin so that what ends in `first` is counted in full.
    fn begin(&self, timeline: u32, there: &There, first: u64) -> u64 {
        let Some(before) = first.checked_sub(1) else { return first };
        let Some((bytes, _)) = there.get(&before) else { return first };
        let Some(index) = self.index.read(Segment::from_number(timeline, before, self.size), *bytes) else {
            return first;
        };
        let mut begin = (index.resume_lsn.0 / u64::from(self.size)).clamp(first.saturating_sub(READ_AGAIN), before);
        // Not over a hole.
        if let Some(gap) = (begin..before).rev().find(|n| !there.contains_key(n)) {
            begin = gap + 1;
        }
        begin
    }

    fn stretch(&mut self, timeline: u32, there: &There, first: u64, last: u64) -> Result<()> {
        let mut first = first;
        let mut begin = self.begin(timeline, there, first);
        while first <= last {
            match self.read(timeline, there, begin, first, last)? {
                // One that was whole when its entry was made: what is wrong now is found before it is used.
                Some(damaged) if damaged < first => begin = first,
                Some(damaged) => (begin, first) = (damaged + 1, damaged + 1),
                None => break,
            }
        }
        Ok(())
    }

    /// Reads on until the end or a segment that cannot be read, whose number it returns.
    fn read(&mut self, timeline: u32, there: &There, begin: u64, first: u64, last: u64) -> Result<Option<u64>> {
        let (size, unlocked) = (self.size, self.unlocked);
        let mut reader = Reader::new();
        let mut tracker = Tracker::new(Rules::default(), std::mem::take(&mut self.names));
        let mut damaged = None;
        let result = std::thread::scope(|scope| {
            let (sender, receiver): (_, Receiver<Taken>) = sync_channel(2);
            scope.spawn(move || {
                for number in begin..=last {
                    let taken = read_segment(unlocked, Segment::from_number(timeline, number, size));
                    // Only fails when nobody reads on.
                    if sender.send((number, taken)).is_err() {
                        return;
                    }
                }
            });
            for (number, taken) in receiver {
                check_cancel(self.cancel, "the index is as far as it was stored")?;
                let segment = Segment::from_number(timeline, number, size);
                let name = segment.to_string();
                let (bytes, stamp) = there.get(&number).copied().unwrap_or((0, None));
                let object = taken.as_ref().ok().and_then(Option::as_ref).map(|(_, id)| hex(id));
                tracker.begin_segment(&name);
                let mut tablespaces = Vec::new();
                let each = |r: &Record<'_>| {
                    tablespaces.extend(Made::of(r));
                    tracker.record(r)
                };
                let known = match taken {
                    Ok(Some((bytes, _))) => match reader.segment(&name, &bytes, Tail::Whole, each) {
                        Ok(_) => Known::Read(Box::new(tracker.end_segment(false))),
                        Err(damage) => Known::Damaged(damage.why),
                    },
                    Ok(None) => Known::Damaged("vanished while it was read".into()),
                    Err(e) if matches!(e.kind, ErrorKind::Check | ErrorKind::Usage) => Known::Damaged(reason(&e)),
                    Err(e) => return Err(e),
                };
                let bad = matches!(known, Known::Damaged(_));
                if number >= first {
                    match &known {
                        Known::Damaged(why) => self.done.damaged.push(format!("{name}: {why}")),
                        Known::Read(_) => self.done.segments += 1,
                    }
                    let read_at = Some(Time::from_system(std::time::SystemTime::now()));
                    let tablespaces = Some(tablespaces);
                    self.index.set(segment, Entry { bytes, object, stamp, read_at, tablespaces, known });
                    self.dirty.insert(number / CHUNK);
                    self.taught = true;
                    let done = self.done.segments + self.done.damaged.len() as u64;
                    self.watch.phase(&Phase {
                        name: "log index",
                        done,
                        total: Some(self.total),
                        unit: "segments",
                        ..Phase::default()
                    });
                    if done.is_multiple_of(STORE_EVERY) {
                        self.store_with(timeline, there, tracker.names())?;
                    }
                }
                if bad {
                    damaged = Some(number);
                    return Ok(());
                }
            }
            Ok(())
        });
        self.names = tracker.finish().1;
        if result.is_err() {
            // Stopped or not, what was read stays; the reason to stop is what counts.
            let _ = self.store(timeline, there);
        }
        result?;
        Ok(damaged)
    }

    /// Whether what is read is kept in the repository; else it is known to whoever reads now.
    fn keeps(&self) -> bool {
        !self.unlocked.repository().is_looked_at()
    }

    fn store_with(&mut self, timeline: u32, there: &There, names: &NameMap) -> Result<()> {
        if !self.keeps() {
            return Ok(());
        }
        // Names first: an entry says that what its segment teaches is known.
        if std::mem::take(&mut self.taught) {
            keep_names(self.unlocked, names)?;
        }
        for chunk in std::mem::take(&mut self.dirty) {
            self.index.store(self.unlocked, timeline, chunk, self.size, there)?;
        }
        Ok(())
    }

    fn store(&mut self, timeline: u32, there: &There) -> Result<()> {
        let names = std::mem::take(&mut self.names);
        let result = self.store_with(timeline, there, &names);
        self.names = names;
        result
    }
}
