//! How long a recovery will take, before it is begun: from what earlier ones took in the same place.
//!
//! A recovery takes a fixed time and one that grows with the bytes, for the files and for the log each. What the last runs of a
//! size took in the middle is expected of that size, and of sizes between two what lies between them; what was never measured is
//! assumed, and said to be.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shadow::Shadow;
use crate::error::{Context, Result};
use crate::model::Time;

/// Name of the file beside the instances it is about.
const FILE: &str = "throughput.json";
/// Runs that are kept: older ones were of another machine or another size of the database.
const KEPT: usize = 20;
/// Runs of one size that count, the last ones: a disk that had a bad hour is forgotten after as many good ones.
const COUNT: usize = 5;
/// How long it is watched that nothing moves any more at the end of the log, in milliseconds ([`super::replay`]).
const STILL_MS: u64 = 3000;

/// What a recovery took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When it was done.
    pub at: Time,
    /// Bytes of the base backup.
    pub bytes: u64,
    /// Milliseconds for them.
    pub files_ms: u64,
    /// Bytes of log that were replayed.
    pub log_bytes: u64,
    /// Milliseconds for them, with the start of the server.
    pub replay_ms: u64,
}

/// What was measured in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throughput {
    /// Version of this form.
    v: u32,
    /// Runs, oldest first.
    runs: Vec<Run>,
}

/// How long a recovery is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// For the files.
    pub files: Duration,
    /// For the log.
    pub replay: Duration,
    /// Runs it rests on; none: it is assumed.
    pub runs: usize,
}

impl Prediction {
    /// In all.
    pub fn total(&self) -> Duration {
        self.files + self.replay
    }
}

/// A fixed part in milliseconds and milliseconds per gigabyte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Line {
    fixed: u64,
    per_gb: u64,
}

/// Until something was measured: an ordinary disk and one core (backups of 1.7 GB and 1.2 GB of log took less).
const FILES: Line = Line { fixed: 300, per_gb: 4000 };
const REPLAY: Line = Line { fixed: 1500, per_gb: 8000 };

const GB: u128 = 1_000_000_000;

impl Line {
    fn at(self, bytes: u64) -> Duration {
        let grown = u128::from(self.per_gb) * u128::from(bytes) / GB;
        Duration::from_millis(self.fixed.saturating_add(u64::try_from(grown).unwrap_or(u64::MAX)))
    }

    /// Through one measured point: the assumed fixed part, as far as it fits in, and the rest grows.
    fn through(p: Point, assumed: Self) -> Self {
        let fixed = assumed.fixed.min(p.ms * 6 / 10);
        match p.bytes {
            0 => Self { fixed, per_gb: assumed.per_gb },
            bytes => Self { fixed, per_gb: per_gb(p.ms - fixed, bytes) },
        }
    }
}

fn per_gb(ms: u64, bytes: u64) -> u64 {
    u64::try_from((u128::from(ms) * GB).div_ceil(u128::from(bytes.max(1)))).unwrap_or(u64::MAX)
}

/// What runs of about one size took in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    bytes: u64,
    ms: u64,
}

/// One point for each size that was measured, smallest first; more bytes never take less. `runs`: oldest first.
fn points(runs: &[(u64, u64)]) -> Vec<Point> {
    let mut sorted: Vec<(u64, usize, u64)> = runs.iter().enumerate().map(|(i, (b, ms))| (*b, i, *ms)).collect();
    sorted.sort_unstable();
    let mut sizes: Vec<Vec<(u64, usize, u64)>> = Vec::new();
    for run in sorted {
        match sizes.last_mut() {
            // A fifth more bytes is still the same size: the same database some days on.
            Some(size) if size.first().is_some_and(|f| run.0 <= f.0 + f.0 / 5) => size.push(run),
            _ => sizes.push(vec![run]),
        }
    }
    let mut out: Vec<Point> = Vec::new();
    for mut size in sizes {
        size.sort_unstable_by_key(|r| std::cmp::Reverse(r.1));
        size.truncate(COUNT);
        let middle = |mut all: Vec<u64>| {
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or(0)
        };
        let mut point =
            Point { bytes: middle(size.iter().map(|r| r.0).collect()), ms: middle(size.iter().map(|r| r.2).collect()) };
        // A smaller one that took longer says nothing of how it grows: both are one.
        while let Some(before) = out.pop_if(|before| before.ms >= point.ms) {
            point = Point { bytes: before.bytes.midpoint(point.bytes), ms: before.ms.midpoint(point.ms) };
        }
        out.push(point);
    }
    out
}

/// What so many bytes are expected to take.
fn expected(runs: &[(u64, u64)], bytes: u64, assumed: Line) -> Duration {
    let points = points(runs);
    let above = points.iter().position(|p| p.bytes >= bytes).unwrap_or(points.len());
    // The two it lies between, else the nearest two.
    let pair = above.clamp(1, points.len().saturating_sub(1).max(1));
    match (points.get(pair - 1), points.get(pair)) {
        (Some(a), Some(b)) => {
            let slope = per_gb(b.ms - a.ms, b.bytes - a.bytes);
            let part = |bytes: u64| Line { fixed: 0, per_gb: slope }.at(bytes);
            let known = Duration::from_millis(a.ms);
            match bytes.checked_sub(a.bytes) {
                Some(more) => known + part(more),
                // Smaller than anything measured: as it grows from there on, and never less than its share.
                None => known
                    .saturating_sub(part(a.bytes - bytes))
                    .max(Line { fixed: 0, per_gb: per_gb(a.ms, a.bytes) }.at(bytes)),
            }
        }
        (Some(one), None) => Line::through(*one, assumed).at(bytes),
        (None, _) => assumed.at(bytes),
    }
}

impl Throughput {
    /// What was measured in this folder; nothing when it cannot be read.
    pub fn load(dir: &Path) -> Self {
        let read = || serde_json::from_slice::<Self>(&std::fs::read(dir.join(FILE)).ok()?).ok();
        read().filter(|t| t.v == 1).unwrap_or_default()
    }

    /// With these runs.
    pub fn of(runs: Vec<Run>) -> Self {
        Self { v: 1, runs }
    }

    /// Runs measured.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How long a recovery will take that restores so many bytes and replays so many; `to_end` when it goes to the end of the log.
    pub fn predict(&self, bytes: u64, log_bytes: u64, to_end: bool) -> Prediction {
        let files: Vec<(u64, u64)> = self.runs.iter().map(|r| (r.bytes, r.files_ms)).collect();
        let replay: Vec<(u64, u64)> = self.runs.iter().map(|r| (r.log_bytes, r.replay_ms)).collect();
        let still = Duration::from_millis(if to_end { STILL_MS } else { 0 });
        Prediction {
            files: expected(&files, bytes, FILES),
            replay: expected(&replay, log_bytes, REPLAY) + still,
            runs: self.runs.len(),
        }
    }
}

/// Keeps what a recovery took, beside its folder.
///
/// # Errors
/// It cannot be written there; nothing depends on it.
pub fn remember(shadow: &Shadow, log_bytes: u64, to_end: bool, now: Time) -> Result<()> {
    let Some(dir) = shadow.root.parent() else { return Ok(()) };
    let mut known = Throughput::load(dir);
    known.v = 1;
    known.runs.push(Run {
        at: now,
        bytes: shadow.bytes,
        files_ms: shadow.files_ms,
        log_bytes,
        replay_ms: shadow.replay_ms.saturating_sub(if to_end { STILL_MS } else { 0 }),
    });
    let surplus = known.runs.len().saturating_sub(KEPT);
    known.runs.drain(..surplus);
    let text = serde_json::to_string(&known).state(|| "writing what a recovery took".into())?;
    crate::postgres::user::own_file(&dir.join(FILE), &text, None)
}
