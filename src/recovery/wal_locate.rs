//! Finding the moment in the write-ahead log: which transaction deleted, changed, emptied or dropped, and the exact
//! position just before it.

pub mod archive;
pub mod catalog;
pub mod classify;
pub mod index;
pub mod names;
pub mod snapshot;
pub mod source;
pub mod suspect;
pub mod tracker;
pub mod xact;

use std::collections::HashMap;

use crate::error::Result;
use crate::model::Time;
use crate::model::target::Candidate;
use crate::postgres::Lsn;
use crate::postgres::wal::{Reader, Stop, Tail};

pub use index::{Activity, Overview, RestorePoint, SegmentIndex};
pub use names::{NameMap, Relation};
pub use source::Segment;
pub use suspect::{Act, Deed, Outcome, Suspect, same_act};
pub use tracker::{PerMinute, Tracker};

/// When a transaction is a suspect, and which are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Rows deleted or updated in one table from which on it is one …
    pub min_rows: u64,
    /// … unless they are less than this share of the table, in percent of the planner's estimate.
    pub percent: u32,
    /// Deleted rows from which on an emptied small table is one.
    pub whole_table: u64,
    /// Also those rolled back.
    pub rolled_back: bool,
    /// Only ends at or after this time.
    pub since: Option<Time>,
    /// Only ends at or before this time.
    pub until: Option<Time>,
    /// Only those that touch one of these tables, `schema.table` or `table`; all when empty.
    pub tables: Vec<String>,
    /// Only those in this database.
    pub database: Option<String>,
    /// Also count rows changed per minute and table.
    pub per_minute: bool,
    /// Transactions to be told of whatever they did, each with the number of the act that it belongs to.
    pub asked: HashMap<u32, usize>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            min_rows: 100,
            percent: 1,
            whole_table: 20,
            rolled_back: false,
            since: None,
            until: None,
            tables: Vec::new(),
            database: None,
            per_minute: false,
            asked: HashMap::new(),
        }
    }
}

impl Rules {
    fn in_window(&self, at: Time) -> bool {
        self.since.is_none_or(|t| at >= t) && self.until.is_none_or(|t| at <= t)
    }
    fn wants(&self, s: &Suspect) -> bool {
        // A dropped database took every table of its own along.
        let dropped = |wanted: &str| s.acts.iter().any(|a| a.deed == Deed::DropDatabase && a.table == wanted);
        if let Some(name) = &self.database
            && s.database.as_deref() != Some(name.as_str())
            && !dropped(name)
        {
            return false;
        }
        if self.tables.is_empty() {
            return true;
        }
        s.acts.iter().any(|a| {
            let bare = a.table.split_once('.').map_or(a.table.as_str(), |(_, t)| t);
            a.deed == Deed::DropDatabase || self.tables.iter().any(|wanted| *wanted == a.table || wanted == bare)
        })
    }
}

/// Where the log that was read ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOfLog {
    /// Position.
    pub at: Lsn,
    /// How that is seen, in words.
    pub why: String,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Committed suspects in the order of their ends.
    pub suspects: Vec<Suspect>,
    /// Those committed that were asked for, with the number of their act, in the order of their ends; suspects or not.
    pub asked: Vec<(usize, Suspect)>,
    /// Suspects rolled back, when asked for.
    pub rolled_back: Vec<Suspect>,
    /// Suspects without an end in the log that was read.
    pub open: Vec<Suspect>,
    /// Commits in the log that was read.
    pub commits: u64,
    /// Latest commit time.
    pub last_commit: Option<Time>,
    /// First record read.
    pub first_lsn: Option<Lsn>,
    /// Last record read.
    pub last_lsn: Option<Lsn>,
    /// Rows changed per minute and file, when asked for.
    pub per_minute: PerMinute,
    /// One index per segment read.
    pub indexes: Vec<SegmentIndex>,
    /// Where the log ends, when it does within what was read.
    pub end: Option<EndOfLog>,
}

impl Report {
    /// The committed suspects as the console and `--json` show them.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.suspects.iter().map(Suspect::candidate).collect()
    }
}

/// Reads segments in order and finds the suspects. `names` is what is known of names; it comes back with what the log
/// taught. Begin one long transaction earlier than the window wanted, else the first rows are not counted
/// ([`SegmentIndex::resume_lsn`] says where).
///
/// # Errors
/// A segment cannot be had, or cannot be read: the error names segment and position.
pub fn locate<I>(segments: I, names: NameMap, rules: Rules) -> Result<(Report, NameMap)>
where
    I: IntoIterator<Item = Result<Segment>>,
{
    let mut reader = Reader::new();
    let mut tracker = Tracker::new(rules, names);
    let mut indexes = Vec::new();
    let mut end = None;
    for segment in segments {
        let segment = segment?;
        let tail = if segment.may_end { Tail::MayEnd } else { Tail::Whole };
        tracker.begin_segment(&segment.name);
        let stop = reader.segment(&segment.name, &segment.bytes, tail, |r| tracker.record(r))?;
        indexes.push(tracker.end_segment(stop != Stop::Full));
        if let Stop::End { at, why } = stop {
            end = Some(EndOfLog { at, why });
            break;
        }
    }
    let (mut report, names) = tracker.finish();
    report.indexes = indexes;
    report.end = end.or_else(|| {
        let at = reader.pending()?;
        Some(EndOfLog { at, why: "the record that begins here goes on in a segment that was not given".into() })
    });
    Ok((report, names))
}
