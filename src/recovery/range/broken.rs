//! A log that is broken, in words: which segments, positions and times cannot be replayed, and the last point before them.

use std::collections::BTreeMap;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::reach::newest_commit;
use super::stop_of;
use crate::backup::catalog::Manifest;
use crate::backup::container::{OTHER_KEY, SEALED_FOR};
use crate::backup::wal::{Continuity, Depth, Hole, Segment, Way};
use crate::error::Result;
use crate::model::Time;
use crate::postgres::Lsn;
use crate::recovery::archive::Archive;
use crate::recovery::commits::{Commit, LogArchive};
use crate::recovery::wal_index::Index;
use crate::recovery::watch::{Phase, Watch, check_cancel};

/// Segments behind a hole that are looked at for the first commit there.
const FAR: u64 = 16;

/// Whose log it is, and where to look.
pub(super) struct Log<'a> {
    pub store: &'a dyn Archive,
    pub archive: &'a LogArchive<'a>,
    pub way: &'a Way,
    pub backups: &'a [Manifest],
    pub scratch: &'a Path,
}

impl Log<'_> {
    /// The number of a segment of this name.
    pub fn number(&self, name: &str) -> Option<u64> {
        Lsn::of_segment(name, self.archive.segment_bytes()).map(|(_, lsn)| self.archive.number(lsn))
    }

    /// Segments of these stretches that are there and cannot be read, each looked at to its last byte.
    ///
    /// # Errors
    /// The archive cannot be read, or stopped on request.
    pub fn damaged(
        &self,
        stretches: &[(u64, u64)],
        watch: &dyn Watch,
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<u64, String>> {
        let mut out = BTreeMap::new();
        let all = stretches.iter().flat_map(|(first, last)| *first..=*last);
        for (done, number) in (0..).zip(all) {
            check_cancel(cancel, "nothing was touched")?;
            watch.phase(&Phase { name: "log check", done, unit: "segments", ..Phase::default() });
            let Some((segment, _)) = self.way.segment(number).filter(|_| !out.contains_key(&number)) else { continue };
            if let Some(why) = self.store.inspect(segment, self.way.is_begun(number), Depth::Full)? {
                out.insert(number, why);
            }
        }
        Ok(out)
    }

    /// What is missing between two positions and two times, and what to do: the last point before it, where there is one.
    /// Whatever cannot be found out is left out, it is no reason to say less of the rest.
    pub fn describe(&self, hole: &Hole, c: &Continuity) -> (String, Vec<String>) {
        let segments = match hole.first == hole.last {
            true => format!("segment {}", hole.first),
            false => format!("segments {} to {}", hole.first, hole.last),
        };
        let bytes = self.archive.segment_bytes();
        let (first, last) = (self.number(&hole.first), self.number(&hole.last));
        let positions = match (first, last) {
            (Some(first), Some(last)) => format!("{} to {}", Lsn(first * bytes), Lsn((last + 1) * bytes)),
            _ => "at unknown positions".to_string(),
        };
        let index = self.store.index().unwrap_or_default();
        let before = first.and_then(|first| self.before(first, &index));
        let after = last.and_then(|last| self.after(last, &index));
        let times = match (&before, after) {
            (Some(b), Some(a)) => format!(", between {} and {a}", b.at),
            (Some(b), None) => format!(", after {}", b.at),
            (None, Some(a)) => format!(", before {a}"),
            (None, None) => String::new(),
        };
        let mut hints = vec![match &c.last {
            Some(last) => format!("the last good segment is {last}: choose a moment before its end"),
            None => "not even the first segment after the base backup can be used".to_string(),
        }];
        let consistent = |c: &Commit| self.backups.iter().filter_map(stop_of).any(|stop| stop <= c.lsn);
        match before.filter(consistent) {
            Some(b) => hints.push(format!(
                "the last point before it is transaction {} of {}: --to-after lsn:{} keeps it and all before it",
                b.xid, b.at, b.lsn
            )),
            None => {
                hints.push("no transaction between the base backup and it can be told: breakglass pitr range".into())
            }
        }
        if hole.why.starts_with(SEALED_FOR) {
            hints.push(OTHER_KEY.into());
        }
        if let Some(later) = self.backups.iter().find(|m| self.begins(m) > last) {
            hints.push(format!("base backup {} leads to moments after {}", later.id, later.finished_at));
        }
        (format!("{segments} ({positions}{times}): {}", hole.why), hints)
    }

    fn begins(&self, m: &Manifest) -> Option<u64> {
        super::start_of(m).map(|lsn| self.archive.number(lsn))
    }

    /// The last commit before a segment, on the way from a base backup.
    fn before(&self, hole: u64, index: &Index) -> Option<Commit> {
        let first = self.backups.iter().filter_map(|m| self.begins(m)).filter(|n| *n < hole).min()?;
        newest_commit(self.archive, self.way, index, first, hole - 1, self.scratch).ok()?
    }

    /// The time of the first commit behind a segment.
    fn after(&self, hole: u64, index: &Index) -> Option<Time> {
        for number in (hole + 1..=self.way.end()?).take(usize::try_from(FAR).ok()?) {
            let (segment, bytes): (Segment, u64) = self.way.segment(number)?;
            let first = match index.read(segment, bytes) {
                Some(known) => known.first_commit,
                None => self.archive.read(number, number, self.scratch).ok()?.commits.first().map(|c| c.at),
            };
            if first.is_some() {
                return first;
            }
        }
        None
    }
}
