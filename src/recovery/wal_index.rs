//! What was read of the archived segments, kept in the repository: so the range, the time axis and the suspects are there at
//! once, and names of tables that are in no catalog any more.
//!
//! The archiving side holds no secret, so it cannot write this; whoever holds one does: `wal index`, a backup, a search. Every
//! object is written by a holder of the repository's key and authenticates. An entry counts for a segment only as long as
//! that one is the object it was; what changed inside of it is found by whoever reads it, before a recovery begins, never here.

pub mod confirm;
pub mod update;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::range::tablespace::Made;
use super::wal_locate::{NameMap, SegmentIndex};
use crate::backup::container::ObjectType;
use crate::backup::repository::{SUFFIX, Unlocked};
use crate::backup::stamp::Stamp;
use crate::backup::wal::Segment;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::Time;

pub use confirm::{Exchanged, was_read};
pub use update::{Updated, update};

/// Folder of the index in the repository.
pub const FOLDER: &str = "index/";
/// Segments that share an object: adding one rewrites no more than their entries.
pub const CHUNK: u64 = 256;
/// Bytes an object of the index may have.
const LIMIT: u64 = 256 << 20;

/// What reading a segment came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// It was read to its end.
    Read(Box<SegmentIndex>),
    /// It cannot be read, in words.
    Damaged(String),
}

/// What is known of one segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its bytes as stored when it was read.
    pub bytes: u64,
    /// The object that was read, as it names itself ([`crate::backup::container::Header::id`]), in hexadecimal; none in entries of
    /// programs before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Its stamp before it was read, where its place tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
    /// When it was last read to its last byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<Time>,
    /// The tablespaces it makes, in order; none in entries of programs before, whose segments are read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespaces: Option<Vec<Made>>,
    /// What was found.
    pub known: Known,
}

#[derive(Serialize, Deserialize)]
struct Chunk {
    v: u32,
    entries: BTreeMap<String, Entry>,
}

/// The index of a repository.
#[derive(Debug, Clone, Default)]
pub struct Index {
    entries: HashMap<Segment, Entry>,
    /// Segments that were touched since they were read, and are still the objects that they were.
    pub touched: HashSet<Segment>,
    /// Segments that are other objects than those that were read; they count as not read.
    pub exchanged: Vec<Exchanged>,
    /// Objects of the index that cannot be used, in words; their segments count as not read.
    pub problems: Vec<String>,
}

/// Segments of one timeline: number to bytes as stored and stamp.
type There = BTreeMap<u64, (u64, Option<Stamp>)>;

fn chunk_name(timeline: u32, chunk: u64) -> String {
    format!("{FOLDER}{timeline:08X}/{chunk:08X}{SUFFIX}")
}

const NAMES: &str = "index/names.bgo";

impl Index {
    /// Reads the whole index.
    ///
    /// # Errors
    /// The repository cannot be read. A damaged object of the index is none: its segments are to be read again.
    pub fn load(unlocked: &Unlocked) -> Result<Self> {
        let mut index = Self::default();
        for entry in unlocked.repository().store().list(FOLDER)? {
            if entry.name == NAMES || !entry.name.ends_with(SUFFIX) {
                continue;
            }
            match read_chunk(unlocked, &entry.name) {
                Ok(chunk) => index.take(chunk),
                Err(e) if e.kind == ErrorKind::Check => index.problems.push(e.to_string()),
                Err(e) => return Err(e),
            }
        }
        Ok(index)
    }

    fn take(&mut self, chunk: Chunk) {
        let known = chunk.entries.into_iter().filter_map(|(name, e)| Some((Segment::parse(&name)?, e)));
        self.entries.extend(known);
    }

    /// What is known of a segment that is stored with so many bytes.
    pub fn get(&self, segment: Segment, bytes: u64) -> Option<&Known> {
        self.entries.get(&segment).filter(|e| e.bytes == bytes).map(|e| &e.known)
    }

    /// The index of a segment that was read.
    pub fn read(&self, segment: Segment, bytes: u64) -> Option<&SegmentIndex> {
        match self.get(segment, bytes) {
            Some(Known::Read(index)) => Some(index),
            _ => None,
        }
    }

    /// The tablespaces that a segment makes; none where that is not known.
    pub fn tablespaces(&self, segment: Segment, bytes: u64) -> Option<&[Made]> {
        let entry = self.entries.get(&segment).filter(|e| e.bytes == bytes && matches!(e.known, Known::Read(_)))?;
        entry.tablespaces.as_deref()
    }

    /// The indexes of all segments that were read, by timeline and position.
    pub fn in_order(&self) -> impl Iterator<Item = &SegmentIndex> {
        let mut all: Vec<(&Segment, &Entry)> = self.entries.iter().collect();
        all.sort_by_key(|(s, _)| **s);
        all.into_iter().filter_map(|(_, e)| match &e.known {
            Known::Read(index) => Some(&**index),
            Known::Damaged(_) => None,
        })
    }

    /// How many segments it knows.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn set(&mut self, segment: Segment, entry: Entry) {
        self.touched.remove(&segment);
        self.exchanged.retain(|e| e.segment != segment);
        self.entries.insert(segment, entry);
    }

    /// Writes the entries of one chunk that belong to segments in `kept`.
    fn store(&self, unlocked: &Unlocked, timeline: u32, chunk: u64, size: u32, kept: &There) -> Result<()> {
        let entries: BTreeMap<String, Entry> = kept
            .range(chunk * CHUNK..(chunk + 1) * CHUNK)
            .filter_map(|(number, _)| {
                let segment = Segment::from_number(timeline, *number, size);
                Some((segment.to_string(), self.entries.get(&segment)?.clone()))
            })
            .collect();
        let bytes = serde_json::to_vec(&Chunk { v: 1, entries }).state(|| "writing the index of the log".into())?;
        unlocked.replace_own(ObjectType::WalIndex, &chunk_name(timeline, chunk), &bytes)
    }
}

fn read_chunk(unlocked: &Unlocked, name: &str) -> Result<Chunk> {
    let Some((bytes, _)) = unlocked.read_own(ObjectType::WalIndex, name, LIMIT)? else {
        return Ok(Chunk { v: 1, entries: BTreeMap::new() });
    };
    let what = || format!("object {name:?} of the index cannot be understood");
    let chunk: Chunk = serde_json::from_slice(&bytes).map_err(|e| Error::check(what()).why(e))?;
    if chunk.v != 1 {
        return Err(Error::check(what()).why(format!("it is of version {}, this program knows 1", chunk.v)));
    }
    Ok(chunk)
}

/// The name map as it was kept last; an empty one when there is none or it cannot be used.
///
/// # Errors
/// The repository cannot be read.
pub fn names(unlocked: &Unlocked) -> Result<NameMap> {
    match unlocked.read_own(ObjectType::NameMap, NAMES, LIMIT) {
        Ok(Some((bytes, _))) => Ok(NameMap::from_bytes(&bytes).unwrap_or_default()),
        Ok(None) => Ok(NameMap::new()),
        Err(e) if e.kind == ErrorKind::Check => Ok(NameMap::new()),
        Err(e) => Err(e),
    }
}

/// Keeps the name map.
///
/// # Errors
/// It cannot be stored.
pub fn keep_names(unlocked: &Unlocked, names: &NameMap) -> Result<()> {
    unlocked.replace_own(ObjectType::NameMap, NAMES, &names.to_bytes()?)
}
