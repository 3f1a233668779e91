//! What is kept of a segment once it was read: enough for ranges, the time axis and the suspects without reading it again.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::names::lsn_text;
use super::suspect::{Suspect, same_act};
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::postgres::Lsn;

/// Most intervals an index keeps; with more, intervals are joined in pairs.
const INTERVALS: usize = 64;

/// Commits per interval of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Length of an interval in seconds.
    pub seconds: u32,
    /// First interval, in whole intervals since 1970.
    pub first: i64,
    /// Commits in each, from the first on.
    pub commits: Vec<u32>,
}

impl Activity {
    /// Counts a commit.
    pub fn add(&mut self, at: Time) {
        self.add_many(at.micros().div_euclid(1_000_000), 1, 1);
    }
    /// Takes in what another segment counted.
    pub fn merge(&mut self, other: &Self) {
        let seconds = other.seconds.max(1);
        for (i, n) in other.commits.iter().enumerate() {
            self.add_many((other.first + i as i64) * i64::from(seconds), *n, seconds);
        }
    }
    /// Begin of interval `i`.
    pub fn begin(&self, i: usize) -> Time {
        Time::from_micros((self.first + i as i64) * i64::from(self.seconds.max(1)) * 1_000_000)
    }

    fn add_many(&mut self, second: i64, n: u32, width: u32) {
        if n == 0 {
            return;
        }
        self.seconds = self.seconds.max(1);
        while self.seconds < width {
            self.widen();
        }
        loop {
            let slot = second.div_euclid(i64::from(self.seconds));
            if self.commits.is_empty() {
                self.first = slot;
            }
            let last = self.first + self.commits.len() as i64;
            // The server's clock may step; what would make the axis absurd widens it.
            if (slot.max(last) - slot.min(self.first)) as u64 > INTERVALS as u64 {
                self.widen();
                continue;
            }
            while slot < self.first {
                self.commits.insert(0, 0);
                self.first -= 1;
            }
            let at = (slot - self.first) as usize;
            if at >= self.commits.len() {
                self.commits.resize(at + 1, 0);
            }
            if let Some(c) = self.commits.get_mut(at) {
                *c = c.saturating_add(n);
            }
            return;
        }
    }

    fn widen(&mut self) {
        let first = self.first.div_euclid(2);
        let mut commits: Vec<u32> = Vec::new();
        for (i, n) in self.commits.iter().enumerate() {
            let at = ((self.first + i as i64).div_euclid(2) - first) as usize;
            if at >= commits.len() {
                commits.resize(at + 1, 0);
            }
            if let Some(c) = commits.get_mut(at) {
                *c = c.saturating_add(*n);
            }
        }
        self.first = first;
        self.commits = commits;
        self.seconds = self.seconds.saturating_mul(2);
    }
}

/// A named restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Name.
    pub name: String,
    /// Its record.
    #[serde(with = "lsn_text")]
    pub lsn: Lsn,
    /// When.
    pub at: Time,
}

/// What a segment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentIndex {
    /// Version of this form.
    pub v: u32,
    /// Name of the segment.
    pub segment: String,
    /// Timeline of its last page.
    pub timeline: u32,
    /// First record that ends in it; a record that crosses into it counts here.
    #[serde(with = "lsn_text")]
    pub first_lsn: Lsn,
    /// Last record that ends in it.
    #[serde(with = "lsn_text")]
    pub last_lsn: Lsn,
    /// Position up to which its records reach.
    #[serde(with = "lsn_text")]
    pub end_lsn: Lsn,
    /// Whether the log ends in it (so far).
    #[serde(default)]
    pub ends: bool,
    /// Records.
    pub records: u64,
    /// Commits.
    pub commits: u64,
    /// Rollbacks that were logged.
    pub rollbacks: u64,
    /// Time of the first commit, in log order.
    pub first_commit: Option<Time>,
    /// Time of the last commit, in log order.
    pub last_commit: Option<Time>,
    /// Latest commit time; later than `last_commit` where clocks and log disagree.
    pub latest_commit: Option<Time>,
    /// Position of the last commit record; none in an index written before this was kept.
    #[serde(default, with = "lsn_text::optional")]
    pub last_commit_lsn: Option<Lsn>,
    /// Transaction id of the last commit; 0 when there is none.
    #[serde(default)]
    pub last_commit_xid: u32,
    /// Commits per interval.
    pub activity: Activity,
    /// Named restore points.
    #[serde(default)]
    pub restore_points: Vec<RestorePoint>,
    /// Suspects whose end is in it.
    #[serde(default)]
    pub suspects: Vec<Suspect>,
    /// Oldest record of a transaction still open at its end: to read on with full counts, begin at that segment.
    #[serde(with = "lsn_text")]
    pub resume_lsn: Lsn,
}

impl SegmentIndex {
    /// As a JSON document.
    ///
    /// # Errors
    /// It cannot be written as JSON, which would be a defect.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).state(|| format!("writing the index of {}", self.segment))
    }
    /// Reads one back.
    ///
    /// # Errors
    /// Not such a document, or one of a newer version: then the segment is to be read again.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let what = || "reading the index of a segment".to_string();
        let index: Self = serde_json::from_slice(bytes).target(what)?;
        if index.v != 1 {
            return Err(Error::target(what()).why(format!("it is of version {}, this program knows 1", index.v)));
        }
        Ok(index)
    }
}

/// A stretch of the log by its indexes alone: what the time axis shows, without a segment being read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// First record.
    pub first_lsn: Option<Lsn>,
    /// Where the last record ends.
    pub end_lsn: Option<Lsn>,
    /// First commit in log order.
    pub first_commit: Option<Time>,
    /// Latest commit time.
    pub last_commit: Option<Time>,
    /// Commits.
    pub commits: u64,
    /// Commits per interval.
    pub activity: Activity,
    /// Suspects with what restoring to each loses, as far as indexes tell: time and transactions, not rows.
    pub suspects: Vec<Suspect>,
    /// Named restore points.
    pub restore_points: Vec<RestorePoint>,
    /// Segments of the stretch that have no index yet, first and last: there the times are not known.
    pub unknown: Vec<(Lsn, Lsn)>,
}

/// Joins the indexes of consecutive segments, given in the order of the log. Segments without an index show as unknown.
pub fn overview(indexes: &[SegmentIndex], segment_bytes: u64) -> Overview {
    let mut all = Overview::default();
    let mut next: Option<u64> = None;
    let mut before = Vec::new();
    for index in indexes {
        let start = Lsn::of_segment(index.segment.trim_end_matches(".partial"), segment_bytes).map(|(_, l)| l.0);
        if let (Some(start), Some(next)) = (start, next)
            && start > next
        {
            all.unknown.push((Lsn(next), Lsn(start)));
        }
        next = start.map(|s| s + segment_bytes).or(next);
        for suspect in &index.suspects {
            before.push(all.commits + suspect.commits_before);
            all.suspects.push(suspect.clone());
        }
        if index.records > 0 {
            all.first_lsn.get_or_insert(index.first_lsn);
            all.end_lsn = Some(index.end_lsn);
        }
        if all.first_commit.is_none() {
            all.first_commit = index.first_commit;
        }
        all.last_commit = all.last_commit.max(index.latest_commit);
        all.commits += index.commits;
        all.activity.merge(&index.activity);
        all.restore_points.extend(index.restore_points.iter().cloned());
    }
    // As a reading of the log counts it: what is of the same act is no loss.
    let mut acts: HashMap<String, (Time, u64)> = HashMap::new();
    for (suspect, before) in all.suspects.iter_mut().zip(before).rev() {
        let (from, of_the_act) = acts.entry(suspect.deeds()).or_insert((suspect.at, 0));
        if !same_act(suspect.at, *from) {
            *of_the_act = 0;
        }
        *from = suspect.at;
        *of_the_act += 1;
        let window = all.last_commit.map_or(0, |t| t.since(suspect.at).as_millis());
        suspect.loses.window_ms = u64::try_from(window).unwrap_or(u64::MAX);
        suspect.loses.transactions = Some((all.commits - before).saturating_sub(*of_the_act));
        suspect.loses.at_most = !all.unknown.is_empty();
    }
    all
}
