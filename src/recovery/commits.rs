//! Commits in the archived log: where each one is and when it was, read by `pg_waldump` from segments taken out of the
//! repository. Order is position, never time.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::archive::Archive;
use crate::backup::catalog::Manifest;
use crate::backup::wal::range::{Branch, leads_along};
use crate::backup::wal::{Segment, WalName};
use crate::error::{Context, Error, Result};
use crate::model::{CleanText, Time};
use crate::postgres::{FindPrograms, Lsn};

/// Segments that are opened side by side.
const SIDE_BY_SIDE: usize = 4;

/// A committed transaction as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Position of its commit record: recovery stopped before this does not have it.
    pub lsn: Lsn,
    /// Its top-level id.
    pub xid: u32,
    /// Ids of its subtransactions.
    pub subxids: Vec<u32>,
    /// The time in the record; may go back by milliseconds from one record to the next.
    pub at: Time,
}

impl Commit {
    /// Whether this id is the transaction's or one of its subtransactions'.
    pub fn is(&self, xid: u32) -> bool {
        self.xid == xid || self.subxids.contains(&xid)
    }
}

/// A named restore point in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// Position of its record.
    pub lsn: Lsn,
    /// Its name.
    pub name: String,
}

/// What was read from a piece of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// Commits in the order of the log.
    pub commits: Vec<Commit>,
    /// Restore points in the order of the log.
    pub points: Vec<RestorePoint>,
}

/// Parses one line of `pg_waldump` (versions 12 to 18) run with `TZ=UTC`; `None` for everything that is no commit.
pub fn parse_commit(line: &str) -> Option<Commit> {
    let (head, desc) = line.split_once(", desc: ")?;
    let (kind, rest) = desc.split_once(' ')?;
    let (xid, rest) = match kind {
        "COMMIT" => (word_after(head, " tx:")?.parse().ok()?, rest),
        // The record itself carries no id: it stands before the colon.
        "COMMIT_PREPARED" => {
            let (xid, rest) = rest.split_once(": ")?;
            (xid.trim().parse().ok()?, rest)
        }
        _ => return None,
    };
    let when = rest.split(';').next()?.trim();
    let when = when.strip_suffix(" UTC")?.replacen(' ', "T", 1) + "Z";
    let subxids = rest
        .split("; ")
        .find_map(|part| part.strip_prefix("subxacts: "))
        .map(|ids| ids.split_whitespace().filter_map(|x| x.trim_end_matches(';').parse().ok()).collect())
        .unwrap_or_default();
    Some(Commit { lsn: lsn_of(head)?, xid, subxids, at: Time::parse(&when).ok()? })
}

/// Parses a `RESTORE_POINT` line.
pub fn parse_point(line: &str) -> Option<RestorePoint> {
    let (head, desc) = line.split_once(", desc: ")?;
    Some(RestorePoint { lsn: lsn_of(head)?, name: desc.strip_prefix("RESTORE_POINT ")?.to_string() })
}

fn word_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(key)?;
    rest.trim_start().split([',', ' ']).next()
}

fn lsn_of(head: &str) -> Option<Lsn> {
    word_after(head, "lsn:")?.parse().ok()
}

/// The archived log along the way to one timeline.
pub struct LogArchive<'a> {
    archive: &'a dyn Archive,
    programs: &'a dyn FindPrograms,
    path: Vec<Branch>,
    segment_bytes: u64,
}

impl<'a> LogArchive<'a> {
    /// Opens the archive along the history of `timeline`.
    ///
    /// # Errors
    /// The timeline's history is missing or damaged.
    pub fn open(archive: &'a dyn Archive, programs: &'a dyn FindPrograms, timeline: u32) -> Result<Self> {
        let path = archive.path_to(timeline)?;
        let segment_bytes = u64::from(archive.segment_bytes()?);
        Ok(Self { archive, programs, path, segment_bytes })
    }
    /// Bytes per segment.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }
    /// Whether a base backup leads along the way.
    pub fn leads_from(&self, m: &Manifest) -> bool {
        leads_along(&self.path, m)
    }
    /// The timeline that a position lies on, and where it was left; none for the end of the last one.
    pub fn on(&self, lsn: Lsn) -> Option<Branch> {
        self.path.iter().find(|b| b.ends_at.is_none_or(|end| lsn.0 < end)).copied()
    }
    /// The timeline that holds the segment of this number on the way.
    pub fn owner(&self, number: u64) -> u32 {
        let mut owner = self.path.first().map_or(1, |b| b.timeline);
        for pair in self.path.windows(2) {
            if pair[0].ends_at.is_some_and(|end| number >= end / self.segment_bytes) {
                owner = pair[1].timeline;
            }
        }
        owner
    }
    /// Number of the segment that holds a position.
    pub fn number(&self, lsn: Lsn) -> u64 {
        lsn.0 / self.segment_bytes
    }
    /// Name of a segment on the way.
    pub fn name(&self, number: u64) -> String {
        Lsn(number * self.segment_bytes).segment(self.owner(number), self.segment_bytes)
    }

    /// Reads commits and restore points of the segments `first..=last`, which must be there. Costs some ten milliseconds a
    /// segment; the plain log lies in a scratch folder of mode 0700 meanwhile.
    ///
    /// # Errors
    /// A segment is missing or damaged, or `pg_waldump` cannot be run.
    pub fn read(&self, first: u64, last: u64, scratch: &Path) -> Result<Piece> {
        let mut out = Piece::default();
        let mut from = first;
        while from <= last {
            let timeline = self.owner(from);
            let mut to = from;
            while to < last && self.owner(to + 1) == timeline {
                to += 1;
            }
            self.read_one_timeline(timeline, from, to, scratch, &mut out)?;
            from = to + 1;
        }
        Ok(out)
    }

    fn read_one_timeline(&self, timeline: u32, first: u64, last: u64, scratch: &Path, out: &mut Piece) -> Result<()> {
        let dir = tempfile::Builder::new()
            .prefix("wal-")
            .tempdir_in(scratch)
            .target(|| format!("cannot make a scratch folder in {:?}", scratch.display()))?;
        let size = u32::try_from(self.segment_bytes).unwrap_or(u32::MAX);
        let copy = |number: u64| -> Result<bool> {
            let segment = Segment::from_number(timeline, number, size);
            let Some(bytes) = self.archive.read(&WalName::Segment(segment))? else { return Ok(false) };
            let file = dir.path().join(segment.to_string());
            std::fs::write(&file, &bytes).target(|| format!("cannot write {:?}", file.display()))?;
            Ok(true)
        };
        let next = AtomicU64::new(first);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(SIDE_BY_SIDE);
        let work = || -> Result<bool> {
            let mut one_more = false;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > last + 1 {
                    return Ok(one_more);
                }
                // One more, where it exists: a record may cross the border.
                match copy(number) {
                    Ok(true) => one_more |= number > last,
                    Ok(false) if number <= last => {
                        let segment = Segment::from_number(timeline, number, size);
                        return Err(Error::check(format!("segment {segment} is not in the archive")));
                    }
                    Err(e) if number <= last => return Err(e),
                    _ => {}
                }
            }
        };
        let one_more = std::thread::scope(|scope| -> Result<bool> {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut one_more = work();
            for other in others {
                let done = other.join().map_err(|_| Error::state("a thread that opens segments broke off"))?;
                one_more = one_more.and_then(|a| done.map(|b| a | b));
            }
            one_more
        })?;
        let copied = last + 1 + u64::from(one_more);
        let mut c = self.programs.programs()?.command("pg_waldump", None);
        c.arg("-p").arg(dir.path()).args(["-r", "Transaction", "-r", "XLOG", "-t", &timeline.to_string(), "-s"]);
        c.arg(Lsn(first * self.segment_bytes).to_string());
        // With an end it does not look for a file that is not there: it would wait five seconds for it.
        c.arg("-e").arg(Lsn(copied * self.segment_bytes).to_string());
        let run = c.output().target(|| "cannot run pg_waldump".to_string())?;
        let words = CleanText::line(run.stderr.trim_ascii()).to_string();
        // The end of the last file is where it stops; it calls that an error.
        let usual = ["could not find file", "error in WAL record", "could not find a valid record"];
        if !run.status.success() && !usual.iter().any(|u| words.contains(u)) {
            return Err(Error::target("pg_waldump failed").why(words));
        }
        let end = Lsn((last + 1) * self.segment_bytes);
        for line in String::from_utf8_lossy(&run.stdout).lines() {
            if let Some(c) = parse_commit(line) {
                if c.lsn < end {
                    out.commits.push(c);
                }
            } else if let Some(p) = parse_point(line)
                && p.lsn < end
            {
                out.points.push(p);
            }
        }
        Ok(())
    }

    /// Walks back from segment `last` to `first`, a few segments at a time, until `visit` returns true. Pieces come newest
    /// first; inside a piece the order is the log's.
    ///
    /// # Errors
    /// As [`LogArchive::read`], or what `visit` says.
    pub fn walk_back(
        &self,
        first: u64,
        last: u64,
        scratch: &Path,
        visit: &mut dyn FnMut(&Piece, u64) -> Result<bool>,
    ) -> Result<()> {
        let mut end = last;
        // What is looked for is mostly near the end: more at a time only once it is not.
        let mut step: u64 = 2;
        loop {
            let begin = end.saturating_sub(step - 1).max(first);
            if visit(&self.read(begin, end, scratch)?, begin)? || begin == first {
                return Ok(());
            }
            end = begin - 1;
            step = (step * 2).min(16);
        }
    }
}
