//! Whether what the index knows is known of what lies in the archive now: by what its objects say of themselves, and only where the
//! place says that something was touched since.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{CHUNK, Entry, Index, Known};
use crate::backup::container::{Fetched, ObjectId, head, hex};
use crate::backup::damage::is_damage;
use crate::backup::repository::{Repository, Unlocked};
use crate::backup::side_by_side;
use crate::backup::stamp::Stamp;
use crate::backup::store::Store;
use crate::backup::wal::{Listing, Segment, WalName};
use crate::error::Result;
use crate::model::Time;

/// A segment that is another object than the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchanged {
    /// The segment.
    pub segment: Segment,
    /// When the other one was read.
    pub read_at: Option<Time>,
}

impl Exchanged {
    /// In a sentence.
    pub fn what(&self) -> String {
        let when = self.read_at.map_or(String::new(), |t| format!(" on {}", t.date_hms()));
        format!("{} is another object than the one that was read{when}", self.segment)
    }
}

impl Entry {
    /// Whether the object that lies there now was read, and nobody touched it since.
    pub(super) fn is_of(&self, bytes: u64, stamp: Option<Stamp>) -> bool {
        self.bytes == bytes && self.object.is_some() && (stamp.is_none() || self.stamp == stamp)
    }

    fn is_read(&self) -> bool {
        matches!(self.known, Known::Read(_))
    }
}

/// What there is of an object: its id, or that it says none.
fn id_of(store: &Arc<dyn Store>, segment: Segment, bytes: u64) -> Result<Option<ObjectId>> {
    match head(store, &WalName::Segment(segment).object(), bytes, &mut Fetched::default()) {
        Ok(header) => Ok(Some(header.id())),
        Err(e) if is_damage(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

impl Index {
    /// Reads the whole index, and keeps of it what is known of the segments that lie there now.
    ///
    /// # Errors
    /// As [`Index::load`].
    pub fn of(unlocked: &Unlocked, listing: &Listing) -> Result<Self> {
        let mut index = Self::load(unlocked)?;
        index.confirm(unlocked.repository(), listing)?;
        Ok(index)
    }

    /// Forgets what is known of segments that are other objects by now, and notes which. Of those that were only touched since (moved
    /// with a copy of the repository, given to somebody else, or written into) what is known stays: they are
    /// [`Index::touched`] until they are read again.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn confirm(&mut self, repository: &Repository, listing: &Listing) -> Result<()> {
        let store = repository.store();
        let doubtful: Vec<(Segment, u64)> = listing
            .segments()
            .filter(|(s, bytes, stamp)| self.entries.get(s).is_some_and(|e| !e.is_of(*bytes, *stamp)))
            .map(|(s, bytes, _)| (s, bytes))
            .collect();
        let found = side_by_side(store.at_once(), &doubtful, &|(s, bytes)| Ok((*s, id_of(store, *s, *bytes)?)))?;
        let found: HashMap<Segment, Option<ObjectId>> = found.into_iter().collect();
        for (segment, bytes) in doubtful {
            let Some(entry) = self.entries.get(&segment) else { continue };
            let now = found.get(&segment).copied().flatten().map(|id| hex(&id));
            let same = entry.bytes == bytes && (entry.object.is_none() || entry.object == now);
            if same {
                self.touched.insert(segment);
                continue;
            }
            // What is no object any more, or was cut, says so itself.
            if now.is_some() && now != entry.object && entry.object.is_some() && entry.is_read() {
                self.exchanged.push(Exchanged { segment, read_at: entry.read_at });
            }
            self.entries.remove(&segment);
        }
        self.exchanged.sort_by_key(|e| e.segment);
        Ok(())
    }

    /// Whether a segment with these bytes and this stamp was read, was right, and nobody touched it since.
    pub fn is_sure(&self, segment: Segment, bytes: u64, stamp: Option<Stamp>) -> bool {
        stamp.is_some() && self.entries.get(&segment).is_some_and(|e| e.is_of(bytes, stamp) && e.is_read())
    }

    /// Segments that were read and are damaged, with the reason.
    pub fn damaged(&self) -> Vec<(Segment, &str)> {
        let all = self.entries.iter().filter_map(|(segment, entry)| match &entry.known {
            Known::Damaged(why) => Some((*segment, why.as_str())),
            Known::Read(_) => None,
        });
        all.collect()
    }

    /// When a segment was last read to its last byte and right.
    pub fn read_at(&self, segment: Segment) -> Option<Time> {
        self.entries.get(&segment).filter(|e| e.is_read())?.read_at
    }
}

/// Writes down that these segments were read to their last byte and were right, where the index knows them. `listing` was made before
/// they were read.
///
/// # Errors
/// The repository cannot be read or written.
pub fn was_read(unlocked: &Unlocked, listing: &Listing, segments: &BTreeSet<Segment>, at: Time) -> Result<()> {
    let mut index = Index::of(unlocked, listing)?;
    let size = listing.segment_size();
    let mut dirty: BTreeSet<(u32, u64)> = BTreeSet::new();
    for (segment, bytes, stamp) in listing.segments().filter(|(s, ..)| segments.contains(s)) {
        let Some(entry) = index.entries.get_mut(&segment).filter(|e| e.bytes == bytes && e.object.is_some()) else {
            continue;
        };
        if entry.is_read() {
            (entry.read_at, entry.stamp) = (Some(at), stamp);
            dirty.insert((segment.timeline, segment.number(size) / CHUNK));
        }
    }
    for (timeline, chunk) in dirty {
        let there = listing.segments().filter(|(s, ..)| s.timeline == timeline);
        let there = there.map(|(s, bytes, stamp)| (s.number(size), (bytes, stamp))).collect();
        index.store(unlocked, timeline, chunk, size, &there)?;
    }
    Ok(())
}
