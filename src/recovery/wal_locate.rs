//! Finding the moment in the write-ahead log: which transaction deleted, changed, emptied or dropped, and the exact
//! position just before it.

pub mod archive;
pub mod catalog;
pub mod classify;
pub mod gap;
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

pub use gap::{Gap, Smaller};
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
    /// … unless they are less than this share of the table, in percent of the planner's estimate. With 0, the rows of all its
    /// tables count together.
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
    /// System identifier of the cluster, when known: a segment of another one is a gap.
    pub system: Option<u64>,
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
            system: None,
        }
    }
}

impl Rules {
    /// Every transaction that deleted or updated so many rows, of whatever tables and whatever share of them.
    pub fn at_least(rows: u64) -> Self {
        Self { min_rows: rows.max(1), percent: 0, whole_table: rows.max(1), ..Self::default() }
    }
    /// From how much on a transaction is a suspect, for people.
    pub fn measure(&self) -> String {
        match self.percent {
            0 => format!("{} rows", self.min_rows),
            percent => format!("{} rows and {percent} % of a table", self.min_rows),
        }
    }
    fn in_window(&self, at: Time) -> bool {
        self.since.is_none_or(|t| at >= t) && self.until.is_none_or(|t| at <= t)
    }
    fn wants(&self, s: &Suspect) -> bool {
        self.wants_acts(s.database.as_deref(), &s.acts)
    }
    fn wants_acts(&self, database: Option<&str>, acts: &[Act]) -> bool {
        // A dropped database took every table of its own along.
        let dropped = |wanted: &str| acts.iter().any(|a| a.deed == Deed::DropDatabase && a.table == wanted);
        if let Some(name) = &self.database
            && database != Some(name.as_str())
            && !dropped(name)
        {
            return false;
        }
        if self.tables.is_empty() {
            return true;
        }
        let is = |name: &String| {
            let bare = name.split_once('.').map_or(name.as_str(), |(_, t)| t);
            self.tables.iter().any(|wanted| wanted == name || wanted == bare)
        };
        acts.iter().any(|a| a.deed == Deed::DropDatabase || is(&a.table) || a.partitions.iter().any(is))
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
    /// Stretches that could not be read, in order; what lies in them is in no figure.
    pub gaps: Vec<Gap>,
    /// Transactions that deleted rows, and fewer than make a suspect.
    pub smaller: Smaller,
}

impl Report {
    /// The committed suspects as the console and `--json` show them.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.suspects.iter().map(Suspect::candidate).collect()
    }
}

/// Reads segments in order and finds the suspects. `names` is what is known of names; it comes back with what the log
/// taught. Begin one long transaction earlier than the window wanted, else the first rows are not counted
/// ([`SegmentIndex::resume_lsn`] says where). What is missing or damaged is a gap, behind which the reading goes on.
///
/// # Errors
/// The store of the segments fails.
pub fn locate<I>(segments: I, names: NameMap, rules: Rules) -> Result<(Report, NameMap)>
where
    I: IntoIterator<Item = Result<Segment>>,
{
    let mut system = rules.system;
    let mut reader = reader_of(system);
    let mut tracker = Tracker::new(rules, names);
    let mut indexes = Vec::new();
    let mut end = None;
    // Where the next segment begins; none where the one before could not be read.
    let mut next: Option<Lsn> = None;
    for segment in segments {
        let segment = segment?;
        let size = reader.segment_bytes();
        if let Some(missing) = next.take().filter(|n| *n != segment.start) {
            let timeline = segment.name.get(..8).and_then(|t| u32::from_str_radix(t, 16).ok()).unwrap_or(1);
            tracker.gap(missing.segment(timeline, size), missing, "it is missing".into());
            reader = reader_of(system);
        }
        tracker.begin_segment(&segment.name);
        let mut read = read_one(&mut reader, &mut tracker, &segment);
        if let Err((at, why)) = &read
            && *at < segment.start
        {
            // A record that began in the segment before; nothing of this one was read yet.
            tracker.gap(segment.name.clone(), *at, why.clone());
            reader = reader_of(system);
            read = read_one(&mut reader, &mut tracker, &segment);
        }
        system = system.or(reader.system_identifier());
        match read {
            Ok(stop) => {
                next = Some(Lsn(segment.start.0 + reader.segment_bytes()));
                indexes.push(tracker.end_segment(stop != Stop::Full));
                if let Stop::End { at, why } = stop {
                    end = Some(EndOfLog { at, why });
                    break;
                }
            }
            Err((at, why)) => {
                tracker.end_segment(false);
                tracker.gap(segment.name.clone(), at, why);
                reader = reader_of(system);
            }
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

fn reader_of(system: Option<u64>) -> Reader {
    system.map_or_else(Reader::new, Reader::of_system)
}

/// Reads one segment, or says from where on it cannot be read and why.
fn read_one(reader: &mut Reader, tracker: &mut Tracker, segment: &Segment) -> Result<Stop, (Lsn, String)> {
    if let Some(why) = &segment.unreadable {
        return Err((segment.start, why.clone()));
    }
    let tail = if segment.may_end { Tail::MayEnd } else { Tail::Whole };
    let read = reader.segment(&segment.name, &segment.bytes, tail, |r| tracker.record(r));
    read.map_err(|d| (d.lsn, d.why))
}
