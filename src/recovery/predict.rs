//! How long a recovery will take, before it is begun: from what earlier ones took in the same place.
//!
//! A recovery takes a fixed time and one that grows with the bytes, for the files and for the log each. Both are fitted to the
//! runs that were measured; what was never measured is assumed, and said to be.

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

    /// Fitted to measured pairs of bytes and milliseconds, by least squares; neither part is ever negative.
    fn fit(pairs: &[(u64, u64)], assumed: Self) -> Self {
        let Some(least) = pairs.iter().map(|(_, ms)| *ms).min() else { return assumed };
        let n = pairs.len() as i128;
        let (mut x, mut y, mut xx, mut xy) = (0i128, 0i128, 0i128, 0i128);
        for (bytes, ms) in pairs {
            // In megabytes, so that the squares stay in range.
            let (b, m) = (i128::from(*bytes / 1_000_000), i128::from(*ms));
            (x, y, xx, xy) = (x + b, y + m, xx + b * b, xy + b * m);
        }
        let spread = n * xx - x * x;
        // Sizes that hardly differ say nothing of how it grows: less than a tenth of their mean.
        if spread * 100 > x * x && spread > 0 {
            let per_gb = (n * xy - x * y) * 1000 / spread;
            let fixed = (y - per_gb * x / 1000) / n;
            if per_gb >= 0 && fixed >= 0 {
                return Self {
                    fixed: u64::try_from(fixed).unwrap_or(0).min(least),
                    per_gb: u64::try_from(per_gb).unwrap_or(u64::MAX),
                };
            }
        }
        // One size: the assumed fixed part, as far as it fits into the quickest run, and the rest grows.
        let fixed = assumed.fixed.min(least * 6 / 10);
        let rest = (y - n * i128::from(fixed)).max(0);
        let per_gb = if x > 0 { u64::try_from(rest * 1000 / x).unwrap_or(u64::MAX) } else { assumed.per_gb };
        Self { fixed, per_gb }
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
            files: Line::fit(&files, FILES).at(bytes),
            replay: Line::fit(&replay, REPLAY).at(log_bytes) + still,
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
