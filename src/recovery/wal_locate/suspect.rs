//! A transaction that took something away, and how people read it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::lsn_text;
use crate::model::target::{Candidate, Loss, RecoveryTarget};
use crate::model::{CleanText, Time};
use crate::postgres::Lsn;

/// Suspects that did the same to the same tables no further apart than this are one act: the batches of a deletion, say.
const APART: Duration = Duration::from_secs(600);

/// Whether two suspects that did the same are close enough to be one act.
pub fn same_act(a: Time, b: Time) -> bool {
    a.since(b).max(b.since(a)) <= APART
}

/// What was done to one table (or database).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Rows were deleted or updated.
    Rows,
    /// Emptied by TRUNCATE.
    Truncate,
    /// Emptied by TRUNCATE and filled again in the same transaction.
    Replaced,
    /// Dropped.
    DropTable,
    /// The whole database was dropped.
    DropDatabase,
}

/// One deed on one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// What.
    pub deed: Deed,
    /// `schema.table` (the root of a partitioned one); `file 1663/5/16384` when no name is known.
    pub table: String,
    /// Rows deleted.
    #[serde(default)]
    pub deleted: u64,
    /// Rows updated.
    #[serde(default)]
    pub updated: u64,
    /// Rows inserted, in the new storage of a replaced table.
    #[serde(default)]
    pub inserted: u64,
    /// Rows the table had by the last estimate of the planner; none when never analysed or not known.
    #[serde(default)]
    pub of: Option<u64>,
    /// Partitions touched, when more than the table itself.
    #[serde(default)]
    pub parts: u32,
    /// Names of the partitions touched, when `table` is a partitioned one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<String>,
}

/// What became of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Committed.
    Committed,
    /// Rolled back: nothing of it remains.
    RolledBack,
    /// Prepared and not yet decided at the end of the log that was read.
    Prepared,
    /// No end in the log that was read: still running, or lost in a crash.
    Open,
}

/// A destructive transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Top-level transaction id.
    pub xid: u32,
    /// OID of its database; 0 when the log does not say.
    pub database_oid: u32,
    /// Name of its database, when known.
    #[serde(default)]
    pub database: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Time of its end by the server's clock; of the newest commit known when it is open.
    pub at: Time,
    /// Timeline of its end.
    pub timeline: u32,
    /// Its first record.
    #[serde(with = "lsn_text")]
    pub begun: Lsn,
    /// Its last record: the commit, the rollback, or as far as it was read.
    #[serde(with = "lsn_text")]
    pub end: Lsn,
    /// Stopping before this record keeps all it took away.
    #[serde(with = "lsn_text")]
    pub target: Lsn,
    /// Name of the prepared transaction.
    #[serde(default)]
    pub gid: Option<String>,
    /// Schemas dropped.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// What it did, the worst first.
    pub acts: Vec<Act>,
    /// Tables it built anew without taking a row away (ALTER TABLE, VACUUM FULL, CLUSTER).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<String>,
    /// Its beginning is not in the log that was read: rows are a lower bound.
    #[serde(default)]
    pub began_earlier: bool,
    /// Segment of its end.
    pub segment: String,
    /// Number of the target among the commits of that segment (commits before it in the segment).
    pub commits_before: u64,
    /// Other transactions that were open at the target and committed later: lost although they may have written before.
    #[serde(default)]
    pub open_at_target: u32,
    /// What restoring to the target loses, by the log that was read.
    #[serde(skip)]
    pub loses: Loss,
}

impl Suspect {
    /// Rows deleted or updated, over all tables.
    pub fn rows(&self) -> u64 {
        self.acts.iter().map(|a| a.deleted + a.updated).sum()
    }
    /// What it did to which tables, without figures: the same for the batches of one act.
    pub fn deeds(&self) -> String {
        let mut all: Vec<String> = self.acts.iter().map(|a| format!("{:?} {}", a.deed, a.table)).collect();
        all.sort();
        format!("{} {}", self.database_oid, all.join(", "))
    }
    /// Whether something is gone by it, and not only changed.
    pub fn took_away(&self) -> bool {
        self.acts.iter().any(|a| a.deed != Deed::Rows || a.deleted > 0)
    }
    /// All that several transactions of one act did, as the first of them with the others' rows added; none of none. What took
    /// rows away comes first.
    pub fn joined(all: &[Self]) -> Option<Self> {
        let mut one = all.first()?.clone();
        for other in all.iter().skip(1) {
            for act in &other.acts {
                match one.acts.iter_mut().find(|a| a.deed == act.deed && a.table == act.table) {
                    Some(a) => {
                        a.deleted += act.deleted;
                        a.updated += act.updated;
                        a.inserted += act.inserted;
                        let more: Vec<String> =
                            act.partitions.iter().filter(|p| !a.partitions.contains(p)).cloned().collect();
                        // Of other partitions the rows come on top.
                        a.of = if more.len() == act.partitions.len() && !more.is_empty() {
                            a.of.zip(act.of).map(|(x, y)| x + y)
                        } else {
                            a.of.max(act.of)
                        };
                        a.partitions.extend(more);
                        a.parts = a.parts.max(act.parts);
                    }
                    None => one.acts.push(act.clone()),
                }
            }
            one.rewritten
                .extend(other.rewritten.iter().filter(|t| !one.rewritten.contains(t)).cloned().collect::<Vec<_>>());
            one.schemas.extend(other.schemas.iter().cloned());
            one.began_earlier |= other.began_earlier;
        }
        one.acts.sort_by_key(|a| (a.deed == Deed::Rows, std::cmp::Reverse((a.deleted, a.updated))));
        Some(one)
    }
    /// Tables, each once.
    pub fn tables(&self) -> Vec<String> {
        let mut tables: Vec<String> = Vec::new();
        for act in self.acts.iter().filter(|a| a.deed != Deed::DropDatabase) {
            let name = CleanText::line(act.table.as_bytes()).to_string();
            if !tables.contains(&name) {
                tables.push(name);
            }
        }
        tables
    }
    /// What it did, for people: `DROP TABLE public.orders in shop`.
    pub fn what(&self) -> String {
        let mut parts: Vec<String> = self.schemas.iter().map(|s| format!("DROP SCHEMA {s}")).collect();
        for act in self.acts.iter().take(4) {
            parts.push(act.words());
        }
        if self.acts.len() > 4 {
            parts.push(format!("and {} more", self.acts.len() - 4));
        }
        let mut text = parts.join(", ");
        if self.acts.iter().all(|a| a.deed != Deed::DropDatabase) {
            match &self.database {
                Some(name) => text.push_str(&format!(" in database {name}")),
                None if self.database_oid != 0 => {
                    text.push_str(&format!(" in the database with OID {}", self.database_oid));
                }
                None => {}
            }
        }
        if let Some(gid) = &self.gid {
            text.push_str(&format!(" (prepared as {gid:?})"));
        }
        match self.outcome {
            Outcome::Committed => {}
            Outcome::RolledBack => text.push_str(", rolled back"),
            Outcome::Prepared => text.push_str(", prepared and not yet decided"),
            Outcome::Open => text.push_str(", still open where the log ends"),
        }
        if self.began_earlier {
            text.push_str(", begun before the log that was read");
        }
        CleanText::line(text.as_bytes()).to_string()
    }
    /// The form the console and `--json` show.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            target: RecoveryTarget::Lsn(self.target.to_string()),
            at: self.at,
            xid: Some(self.xid.to_string()),
            lsn: Some(self.end.to_string()),
            tables: self.tables(),
            rows: self.rows(),
            what: self.what(),
            loses: self.loses.clone(),
        }
    }
}

impl Act {
    fn words(&self) -> String {
        let of = |n: u64| match self.of {
            Some(of) if of >= n => format!("{n} of about {of} rows"),
            _ if n == 1 => "1 row".into(),
            _ => format!("{n} rows"),
        };
        let about = || self.of.map_or(String::new(), |n| format!(" (about {n} rows)"));
        let (table, of_whole) = self.place();
        let mut text = match self.deed {
            Deed::Rows => {
                let mut parts = Vec::new();
                if self.deleted > 0 {
                    parts.push(format!("DELETE {}", of(self.deleted)));
                }
                if self.updated > 0 {
                    parts.push(format!("UPDATE {}", of(self.updated)));
                }
                let mut text = format!("{} of {table}", parts.join(" and "));
                if self.inserted > 0 {
                    text.push_str(&format!(" beside {} inserted", self.inserted));
                }
                text
            }
            Deed::Truncate => format!("TRUNCATE {table}{}", about()),
            Deed::Replaced => format!("TRUNCATE {table}{}, replaced by {} rows", about(), self.inserted),
            Deed::DropTable => format!("DROP TABLE {table}{}", about()),
            Deed::DropDatabase => format!("DROP DATABASE {}", self.table),
        };
        text.push_str(&of_whole);
        text
    }
    /// The table, or the partitions of it that were touched and whose they are: the rows are theirs alone.
    fn place(&self) -> (String, String) {
        let whole = &self.table;
        match self.partitions.as_slice() {
            [] if self.parts > 1 => (whole.clone(), format!(" ({} partitions)", self.parts)),
            [] => (whole.clone(), String::new()),
            [one] => (one.clone(), format!(", a partition of {whole}")),
            [first, rest @ ..] if rest.len() < 3 => {
                (format!("{first} and {}", rest.join(" and ")), format!(", partitions of {whole}"))
            }
            many => (format!("{} partitions of {whole}", many.len()), String::new()),
        }
    }
}
