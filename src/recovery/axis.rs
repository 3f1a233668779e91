//! The log as an axis of time: commits per interval, backups, gaps, suspects; and what a moment on it costs. Made from the
//! index of the log, so that moving along it reads nothing.

use std::time::Duration;

use super::commits::LogArchive;
use super::predict::{Prediction, Throughput};
use super::range::{newest_timeline, start_of, stop_of, usable};
use super::wal_index::{self, Index};
use super::wal_locate::Activity;
use super::watch::Unwatched;
use crate::backup::repository::Unlocked;
use crate::backup::wal::Way;
use crate::error::Result;
use crate::model::Time;
use crate::postgres::{FindPrograms, Lsn};
use crate::recovery::archive::Archive;

/// A base backup on the axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupMark {
    /// When it was complete: from here on it can be recovered from.
    pub at: Time,
    /// Where its log begins.
    pub start: Lsn,
    /// Its bytes.
    pub bytes: u64,
}

/// The axis of one timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Axis {
    /// First and last moment on it; none without a commit or a backup.
    pub span: Option<(Time, Time)>,
    /// Commits per interval.
    pub activity: Activity,
    /// Base backups, oldest first.
    pub backups: Vec<BackupMark>,
    /// Stretches between these times whose log is missing, damaged or not read yet.
    pub gaps: Vec<(Time, Time)>,
    /// Destructive transactions.
    pub suspects: Vec<Time>,
    /// Which position the log had at a time, one for each segment.
    pub places: Vec<(Time, Lsn)>,
    /// What earlier recoveries took.
    pub throughput: Throughput,
    /// Segments that are not read yet.
    pub unread: u64,
}

/// What going back to a moment costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// From the moment to the last commit.
    pub window: Duration,
    /// Commits in it, by intervals: about so many.
    pub transactions: u64,
    /// How long the recovery takes; none when the moment cannot be reached.
    pub takes: Option<Prediction>,
    /// Why it cannot be reached.
    pub unreachable: Option<&'static str>,
}

impl Axis {
    /// What going back to just before `at` costs.
    pub fn cost(&self, at: Time) -> Cost {
        let last = self.span.map_or(at, |(_, last)| last);
        let backup = self.backups.iter().rev().find(|b| b.at <= at);
        let gap = backup.and_then(|b| self.gaps.iter().find(|(from, to)| *to > b.at && *from < at));
        let unreachable = match (backup, gap) {
            (None, _) => Some("before the first base backup"),
            (_, Some(_)) => Some("log before it is missing or not read"),
            _ => None,
        };
        let takes = backup.filter(|_| unreachable.is_none()).map(|b| {
            let log = self.position(at).map_or(0, |lsn| lsn.0.saturating_sub(b.start.0));
            self.throughput.predict(b.bytes, log, false)
        });
        Cost { window: last.since(at), transactions: self.commits_from(at), takes, unreachable }
    }

    /// Commits at or after a time; of the interval it lies in, the part that remains.
    fn commits_from(&self, at: Time) -> u64 {
        let width = i64::from(self.activity.seconds.max(1)) * 1_000_000;
        let part = |(i, n): (usize, &u32)| {
            let begin = self.activity.begin(i).micros();
            let left = (begin.saturating_add(width) - at.micros()).clamp(0, width);
            // Rounded up: a commit too many frightens nobody.
            u64::try_from((i128::from(*n) * i128::from(left) + i128::from(width) - 1) / i128::from(width)).unwrap_or(0)
        };
        self.activity.commits.iter().enumerate().map(part).sum()
    }

    /// About where the log was at a time.
    fn position(&self, at: Time) -> Option<Lsn> {
        let after = self.places.partition_point(|(t, _)| *t <= at);
        let (before, next) = (self.places.get(after.checked_sub(1)?)?, self.places.get(after));
        let Some(next) = next else { return Some(before.1) };
        let span = i128::from(next.0.micros() - before.0.micros()).max(1);
        let into = i128::from(at.micros() - before.0.micros());
        let grown = i128::from(next.1.0.saturating_sub(before.1.0)) * into / span;
        Some(Lsn(before.1.0.saturating_add(u64::try_from(grown).unwrap_or(0))))
    }

    /// Column of a time on an axis so wide; none when it is not on it.
    pub fn column(&self, at: Time, width: usize) -> Option<usize> {
        let (first, last) = self.span?;
        if at < first || at > last || width == 0 {
            return None;
        }
        let span = i128::from(last.micros() - first.micros()).max(1);
        let place = i128::from(at.micros() - first.micros()) * (width as i128 - 1) / span;
        usize::try_from(place).ok()
    }

    /// The moment that is `by` columns from `at`, on the axis.
    pub fn moved(&self, at: Time, by: i64, width: usize) -> Time {
        let Some((first, last)) = self.span else { return at };
        let step = ((last.micros() - first.micros()) / (width as i64 - 1).max(1)).max(1_000_000);
        Time::from_micros(at.micros().saturating_add(step * by).clamp(first.micros(), last.micros()))
    }

    /// Commits in each column, an interval's spread over the columns it covers.
    pub fn bars(&self, width: usize) -> Vec<u64> {
        let mut out = vec![0u64; width];
        let Some((first, last)) = self.span.filter(|_| width > 0) else { return out };
        let (first, width) = (i128::from(first.micros()), width as i128);
        let span = (i128::from(last.micros()) - first).max(1);
        let interval = i128::from(self.activity.seconds.max(1)) * 1_000_000;
        for (i, n) in self.activity.commits.iter().enumerate() {
            // In units of a column's share of a microsecond, so that nothing is rounded before the end.
            let from = (i128::from(self.activity.begin(i).micros()) - first) * width;
            let to = from + interval * width;
            let columns = (from / span).clamp(0, width - 1)..=((to - 1) / span).clamp(0, width - 1);
            for column in columns {
                let covered = (to.min((column + 1) * span) - from.max(column * span)).max(0);
                // In thousandths of a commit: a quiet interval shows, too.
                let share = i128::from(*n) * 1000 * covered / (interval * width);
                if let Some(bar) = usize::try_from(column).ok().and_then(|c| out.get_mut(c)) {
                    *bar += u64::try_from(share).unwrap_or(0);
                }
            }
        }
        out.into_iter().map(|n| n.div_ceil(1000)).collect()
    }
}

/// Reads what the index does not know yet, keeps it, and makes the axis of the newest timeline.
///
/// # Errors
/// The repository cannot be read, or stopped on request. That the index cannot be written is none.
pub fn build(
    unlocked: &Unlocked,
    programs: &dyn FindPrograms,
    index: &mut Index,
    throughput: Throughput,
    cancel: &tokio_util::sync::CancellationToken,
) -> Result<Axis> {
    // Whoever may not write the repository sees what others indexed.
    if let Err(e) = wal_index::update(unlocked, index, wal_index::names(unlocked)?, &Unwatched, cancel)
        && e.kind == crate::error::ErrorKind::Interrupted
    {
        return Err(e);
    }
    let timeline = newest_timeline(unlocked)?;
    let archive = LogArchive::open(unlocked, programs, timeline)?;
    let way = Way::list(unlocked, timeline)?;
    let mut axis = Axis { throughput, ..Axis::default() };
    for m in usable(unlocked.backups()?, &archive) {
        let (Some(start), Some(_)) = (start_of(&m), stop_of(&m)) else { continue };
        let bytes = m.objects.iter().map(|o| o.plain_bytes).sum();
        axis.backups.push(BackupMark { at: m.finished_at, start, bytes });
    }
    let first = axis.backups.iter().map(|b| archive.number(b.start)).min().unwrap_or(0);
    let (mut last_seen, mut gap): (Option<Time>, bool) = (axis.backups.first().map(|b| b.at), false);
    let mut last_commit: Option<Time> = None;
    for number in first..=way.end().unwrap_or(0) {
        let known = way.segment(number).and_then(|(s, bytes)| index.read(s, bytes));
        let Some(known) = known else {
            // The unfinished one is read when it is finished.
            if !way.is_begun(number) {
                gap = true;
            }
            axis.unread += 1;
            continue;
        };
        if let Some(at) = known.first_commit {
            if std::mem::take(&mut gap) {
                axis.gaps.push((last_seen.unwrap_or(at), at));
            }
            axis.places.push((at, known.first_lsn));
        }
        last_seen = known.latest_commit.max(last_seen);
        last_commit = last_commit.max(known.latest_commit);
        axis.activity.merge(&known.activity);
        axis.suspects.extend(known.suspects.iter().map(|s| s.at));
    }
    axis.places.sort_unstable();
    let begin = axis.backups.first().map(|b| b.at).into_iter().chain(axis.places.first().map(|(t, _)| *t)).min();
    let end = last_commit.max(axis.backups.last().map(|b| b.at));
    axis.span = begin.zip(end).filter(|(a, b)| a <= b);
    Ok(axis)
}
