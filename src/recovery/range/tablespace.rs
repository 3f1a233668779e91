//! Tablespaces that the log makes on the way: a recovered instance would make them where the source has its own and write into its
//! files, so a recovery ends before the first. Found before anything is touched: in the index, and in the log where that knows nothing.

use serde::{Deserialize, Serialize};

use super::broken::Log;
use super::{Stop, start_of, stop_of};
use crate::backup::catalog::Manifest;
use crate::backup::wal::WalName;
use crate::error::{Error, ErrorKind, Result};
use crate::model::target::RecoveryTarget;
use crate::model::{CleanText, Time};
use crate::postgres::Lsn;
use crate::postgres::wal::record::rmgr;
use crate::postgres::wal::{Layout, Reader, Record, Tail};
use crate::recovery::commits::Commit;
use crate::recovery::wal_index::Index;

/// A tablespace that is made in the log: at replay at once, whatever becomes of the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Position of its record.
    pub lsn: String,
    /// Folder it is made in.
    pub place: String,
}

impl Made {
    /// What this record makes, if it is such a one.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        // XLOG_TBLSPC_CREATE: the number of the tablespace, and its folder with a zero at its end.
        if record.rmgr != rmgr::TABLESPACE || record.info & 0xF0 != 0 {
            return None;
        }
        let mut layout = Layout::default();
        layout.read(record).ok()?;
        let place = layout.main(record).get(4..)?.split(|b| *b == 0).next()?;
        Some(Self { lsn: record.lsn.to_string(), place: CleanText::line(place).to_string() })
    }

    /// Position of its record; the beginning of the log for one that cannot be understood.
    pub fn at(&self) -> Lsn {
        self.lsn.parse().unwrap_or_default()
    }
}

/// One that is in the way of moments behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InTheWay {
    /// It.
    #[serde(flatten)]
    pub made: Made,
    /// The base backup that begins behind it, and when that was complete: moments from there on can be recovered. None when there is
    /// none.
    pub until: Option<(String, Time)>,
}

impl InTheWay {
    /// In a sentence, for people.
    pub fn sentence(&self) -> String {
        let Made { lsn, place } = &self.made;
        let until = match &self.until {
            Some((id, at)) => format!("no moment from there to {at} can be recovered, when base backup {id} was complete"),
            None => "no moment from there on can be recovered: move its tables into pg_default, drop it, and take a new base backup".into(),
        };
        format!(
            "the log creates a tablespace at {lsn}, in {place:?}: {until}; the last moment before it is --to lsn:{lsn}"
        )
    }
}

/// The first of them on a stretch of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stretch {
    /// It, if any.
    pub first: Option<Made>,
    /// Segments before it, or in all, that nobody read.
    pub unread: u64,
}

impl Log<'_> {
    /// The first tablespace made from `from` on, up to the segment `last`. Reads at most so many segments that the index does not know;
    /// `step` is told each number, and may stop it. What cannot be read is left to those who need it.
    ///
    /// # Errors
    /// The archive cannot be read, or stopped.
    pub fn tablespace(
        &self,
        index: &Index,
        from: Lsn,
        last: u64,
        most: u64,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Stretch> {
        let first = self.archive.number(from);
        let (mut out, mut read) = (Stretch::default(), 0);
        // The reader, and the timeline of what it read last.
        let mut reading: Option<(Reader, u32)> = None;
        for number in first..=last {
            let Some((segment, bytes)) = self.way.segment(number) else { break };
            let begun = self.way.is_begun(number);
            if let Some(known) = index.tablespaces(segment, bytes).filter(|_| !begun) {
                out.first = known.iter().find(|m| m.at() >= from).cloned();
                reading = None;
            } else if read >= most {
                out.unread += 1;
                reading = None;
            } else {
                step(number)?;
                read += 1;
                reading = reading.filter(|(_, timeline)| *timeline == segment.timeline);
                // What begins in one segment and ends in the next counts there.
                let begin = if reading.is_none() && number > first { number - 1 } else { number };
                let (mut reader, _) = reading.take().unwrap_or_default();
                let mut whole = true;
                for n in begin..=number {
                    let Some((s, _)) = self.way.segment(n).filter(|(s, _)| s.timeline == segment.timeline) else {
                        continue;
                    };
                    let bytes = match self.way.is_begun(n) {
                        true => self.store.beginning(s),
                        false => self.store.read(&WalName::Segment(s)),
                    };
                    let bytes = match bytes {
                        Ok(Some(bytes)) => bytes,
                        Err(e) if !matches!(e.kind, ErrorKind::Check | ErrorKind::Usage) => return Err(e),
                        _ => {
                            whole = false;
                            continue;
                        }
                    };
                    let done = reader.segment(&s.to_string(), &bytes, Tail::MayEnd, |r| {
                        if out.first.is_none() && r.lsn >= from {
                            out.first = Made::of(r);
                        }
                        Ok(())
                    });
                    whole &= done.is_ok();
                }
                if whole {
                    reading = Some((reader, segment.timeline));
                }
            }
            if out.first.is_some() {
                break;
            }
        }
        Ok(out)
    }

    /// The first commit behind a position, not behind the segment `last`; none where it cannot be told.
    pub fn first_behind(&self, lsn: Lsn, last: u64) -> Option<Commit> {
        for number in self.archive.number(lsn)..=last {
            let piece = self.archive.read(number, number, self.scratch).ok()?;
            if let Some(c) = piece.commits.into_iter().find(|c| c.lsn > lsn) {
                return Some(c);
            }
        }
        None
    }
}

/// Where to stop so that no tablespace is made on the way: as asked for, or, where nothing was committed in between, before the first
/// tablespace is.
///
/// # Errors
/// Refused, with the last moment before it, when something was committed behind it that belongs to what is asked for.
pub(super) fn stop_before(
    log: &Log<'_>,
    (target, stop): (&RecoveryTarget, Stop),
    backup: &Manifest,
    first_lost: Option<&Commit>,
    last: u64,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Stop> {
    let Some(start) = start_of(backup) else { return Ok(stop) };
    // An index that cannot be read is no reason to refuse: the log is read instead.
    let index = log.store.index().unwrap_or_default();
    let Some(made) = log.tablespace(&index, start, last, u64::MAX, step)?.first else { return Ok(stop) };
    // What is replayed lies before this.
    let end = match &stop {
        Stop::Lsn(lsn) => *lsn,
        Stop::After(lsn) => Lsn(lsn.0.saturating_add(1)),
        Stop::Time(_) | Stop::Including(_) => first_lost.map_or(Lsn(u64::MAX), |c| c.lsn),
        Stop::End => Lsn(u64::MAX),
    };
    if made.at() >= end {
        return Ok(stop);
    }
    let behind = stop_of(backup).is_none_or(|consistent| made.at() < consistent);
    let next = log.first_behind(made.at(), last);
    let nothing_between = next.as_ref().is_some_and(|c| c.lsn >= end);
    if matches!(stop, Stop::Lsn(_) | Stop::Time(_)) && nothing_between && !behind {
        return Ok(Stop::Lsn(made.at()));
    }
    Err(refused(log, target, backup, &made, next.as_ref().filter(|_| !behind), behind))
}

fn refused(
    log: &Log<'_>,
    target: &RecoveryTarget,
    backup: &Manifest,
    made: &Made,
    next: Option<&Commit>,
    behind: bool,
) -> Error {
    let (lsn, place) = (&made.lsn, &made.place);
    let mut e = Error::refused(format!("cannot recover to {target}")).why(format!(
        "the log creates a tablespace on the way to it, at {lsn}, in {place:?}: its files are the source's, and the recovered instance \
         would write into them"
    ));
    e = match (behind, next) {
        (true, _) => e.hint(format!(
            "base backup {} is not complete before that: no moment it leads to can be recovered",
            backup.id
        )),
        (false, Some(c)) => e.hint(format!(
            "the last moment before the tablespace was made: --to lsn:{lsn}, which is --to time:{}",
            c.at
        )),
        (false, None) => e.hint(format!("the last moment before the tablespace was made: --to lsn:{lsn}")),
    };
    if let Some(later) = log.backups.iter().find(|m| start_of(m).is_some_and(|s| s > made.at())) {
        e = e.hint(format!(
            "base backup {} begins behind it: for moments after {}, name it with --backup",
            later.id, later.finished_at
        ));
    }
    e.hint("for moments still to come: move its tables into pg_default, drop it, and take a new base backup").hint(format!(
        "for this one, without that server: by hand on a machine where nothing of the source lies in {place:?}: breakglass backup restore {} \
         --into DIR; an empty {place:?} of the server's user; restore_command = 'breakglass wal fetch %f %p', recovery_target_…, \
         recovery.signal",
        backup.id
    ))
}
