//! Append-only, hash-chained log behind a small trait.
//!
//! One record is one line and holds all events of one command; the format is in `docs/formats.md`, "Journal". The one
//! primitive is [`Journal::append_if`]: read to the head, decide, append on the condition that the head is still the
//! same, and on a conflict decide again. One executor per step, several responders and no lost update follow from it.

pub mod anchors;
pub mod clock;
pub mod file;
pub mod files;
pub mod lock;
pub mod record;
pub mod verify;
pub mod watch;

use std::fmt;

use crate::error::Result;
use crate::model::{Actor, Digest, Event, Record, Seq, Time};

pub use anchors::{Anchor, Anchors};
pub use clock::{Clock, Reading};
pub use file::FileJournal;
pub use lock::FileLock;
pub use record::Line;
pub use verify::{Problem, Report, verify};
pub use watch::Watch;

/// Where a journal ends: its last record. Equal heads mean equal journals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of the last record; 0 when there is none.
    pub seq: Seq,
    /// Hash of the last record; 64 zeros when there is none.
    pub hash: Digest,
}

impl Head {
    /// The head of an empty journal.
    pub fn empty() -> Self {
        Self { seq: Seq(0), hash: Digest::new("0".repeat(64)) }
    }
    /// The head a journal has right after this record.
    pub fn after(record: &Record) -> Self {
        Self { seq: record.seq, hash: record.hash.clone() }
    }
}

impl fmt::Display for Head {
    /// `12:4f2a…` with all 64 digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl std::str::FromStr for Head {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is not a journal head such as 12:4f2a… (a number, a colon, 64 hexadecimal digits)");
        let (seq, hash) = text.trim().split_once(':').ok_or_else(bad)?;
        let seq: u64 = seq.parse().map_err(|_| bad())?;
        let hash = hash.to_lowercase();
        if !record::is_digest(&hash) {
            return Err(bad());
        }
        Ok(Self { seq: Seq(seq), hash: Digest::new(hash) })
    }
}

/// What a command wants to append; position, clock readings and hashes are the journal's own business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Name of the command that was decided.
    pub command: String,
    /// When it happened, if the actor states another time than now. Without it the record says the same time twice, which is
    /// how a reader knows that its uptime may be used for durations.
    pub occurred_at: Option<Time>,
    /// Who.
    pub actor: Actor,
    /// What happened; not empty.
    pub events: Vec<Event>,
}

/// What became of [`Journal::append_if`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Append {
    /// The record is durable.
    Appended(Record),
    /// Somebody else appended first; nothing was written. The journal's head is now this one: read up to it and decide again.
    Conflict(Head),
}

/// An append-only log of records.
pub trait Journal {
    /// The head now, after looking for what others have appended.
    fn head(&mut self) -> Result<Head>;

    /// All records from `seq` (counted from 1) to the head, each verified against its hash and the one before.
    fn read_from(&mut self, seq: Seq) -> Result<Vec<Record>>;

    /// Appends one record if the head is still `expected`, and returns when it is durable.
    ///
    /// An error means that nothing was acknowledged: read again before deciding what to do.
    fn append_if(&mut self, expected: &Head, draft: Draft) -> Result<Append>;

    /// The records after `head`, or nothing when the journal does not contain `head` any more.
    ///
    /// The latter is rare and legal: a reader may see a line that its writer took back because the disk was full. Fold
    /// again from the first record then.
    fn read_after(&mut self, head: &Head) -> Result<Option<Vec<Record>>> {
        if head.seq == Seq(0) {
            return self.read_from(Seq(1)).map(Some);
        }
        let mut records = self.read_from(head.seq)?;
        if records.first().is_none_or(|r| r.hash != head.hash) {
            return Ok(None);
        }
        records.remove(0);
        Ok(Some(records))
    }
}
