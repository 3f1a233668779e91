//! `journal verify`: whether a journal is as it was written, and if not, at which record it stops being so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context, Result};
use crate::model::{Digest, IncidentId, Seq, Time};

use super::file::{JOURNAL_FILE, LOCK_FILE, whole_lines};
use super::record::{self, Decoded};
use super::{Anchor, FileLock, Head};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// The incident, as its first record says, else as its folder is named.
    pub incident: Option<IncidentId>,
    /// Records that verify, from the first on, without a gap.
    pub records: u64,
    /// The last of them.
    pub head: Head,
    /// Records of this copy whose content is withheld: their place in the chain verifies, their content cannot be checked.
    pub withheld: Vec<Seq>,
    /// The newest anchor the journal agrees with; without one, a cut tail would not show.
    pub anchor_held_against: Option<Anchor>,
    /// Worth knowing, but no proof of anything: clocks that went back, what a newer version wrote.
    pub notices: Vec<String>,
    /// The first thing that is wrong.
    pub problem: Option<Problem>,
}

/// What is wrong with a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Number of the record, from 1.
    pub record: u64,
    /// What is wrong, as a clause about the record.
    pub why: String,
}

impl Report {
    /// Whether everything held.
    pub fn ok(&self) -> bool {
        self.problem.is_none()
    }

    /// The result in sentences, the verdict first.
    pub fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        match &self.problem {
            None => out.push(format!("{} records verified, head {}", self.records, self.head)),
            Some(p) => {
                out.push(format!("damaged: record {} {}", p.record, p.why));
                out.push(format!("{} records before the damage verified, up to {}", self.records, self.head));
            }
        }
        match &self.anchor_held_against {
            Some(a) => {
                out.push(format!("held against the anchor of record {} written at {} ({})", a.seq, a.at, a.why));
                if self.records > a.seq.0 {
                    out.push(format!(
                        "{} newer than that anchor: among those a cut or rewritten tail would not show",
                        count(self.records - a.seq.0, "record is", "records are")
                    ));
                }
            }
            None => {
                out.push("held against no anchor: a cut tail, or a journal rewritten as a whole, would not show".into())
            }
        }
        if !self.withheld.is_empty() {
            let numbers: Vec<String> = self.withheld.iter().map(ToString::to_string).collect();
            out.push(format!(
                "{} withheld from this copy ({}): the content cannot be checked here",
                count(self.withheld.len() as u64, "record is", "records are"),
                numbers.join(", ")
            ));
        }
        out.extend(self.notices.iter().cloned());
        out
    }
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Verifies the journal of an incident directory, or a journal file, and holds it against anchors of the same incident.
///
/// # Errors
/// Of kind state, when there is no journal or it cannot be read. Damage is no error but in the report.
pub fn verify(dir: &Path, anchors: &[Anchor]) -> Result<Report> {
    let file = if dir.is_dir() { dir.join(JOURNAL_FILE) } else { dir.to_path_buf() };
    let what = || format!("cannot read the journal {file:?}");
    let mut bytes = std::fs::read(&file).state(what)?;
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        // Somebody may be writing this very moment: look again while nobody can. A lock that cannot be had changes nothing.
        let lock = file.with_file_name(LOCK_FILE);
        if lock.exists()
            && let Ok(_held) = FileLock::acquire(lock, Duration::from_secs(2), "verifying the journal")
        {
            bytes = std::fs::read(&file).state(what)?;
        }
    }
    let mut report = Report {
        file,
        incident: None,
        records: 0,
        head: Head::empty(),
        withheld: Vec::new(),
        anchor_held_against: None,
        notices: Vec::new(),
        problem: None,
    };
    let hashes = chain(&bytes, &mut report);
    if report.incident.is_none() {
        // Damage to the first record must not keep the anchors from being found.
        let folder = report.file.canonicalize().ok();
        let name = folder.as_ref().and_then(|f| f.parent()).and_then(|d| d.file_name()).and_then(|n| n.to_str());
        report.incident = name.map(IncidentId::new);
    }
    hold_against(anchors, &hashes, &mut report);
    Ok(report)
}

/// Follows the chain as far as it holds; returns the hash of every record that does.
fn chain(bytes: &[u8], report: &mut Report) -> Vec<Digest> {
    let (lines, rest) = whole_lines(bytes);
    let mut hashes = Vec::with_capacity(lines.len());
    let mut last_time: Option<(Seq, Time)> = None;
    for line in lines {
        let number = report.records + 1;
        let decoded = record::decode(line).and_then(|decoded| {
            let (seq, prev) = match &decoded {
                Decoded::Record(line) => (line.record.seq, &line.record.prev),
                Decoded::Withheld { seq, prev, .. } => (*seq, prev),
            };
            record::follows(&report.head, seq, prev)?;
            Ok(decoded)
        });
        report.head = match decoded {
            Err(why) => {
                report.problem = Some(Problem { record: number, why });
                return hashes;
            }
            Ok(Decoded::Withheld { seq, hash, .. }) => {
                report.withheld.push(seq);
                Head { seq, hash }
            }
            Ok(Decoded::Record(line)) => {
                notice(&line, &mut last_time, report);
                Head::after(&line.record)
            }
        };
        report.records = number;
        hashes.push(report.head.hash.clone());
    }
    if !rest.is_empty() {
        report.problem = Some(Problem {
            record: report.records + 1,
            why: format!("is torn: {} bytes that are no whole line; the next append moves them aside", rest.len()),
        });
    }
    hashes
}

fn notice(line: &record::Line, last_time: &mut Option<(Seq, Time)>, report: &mut Report) {
    let record = &line.record;
    if let Some(crate::model::Event::IncidentOpened { id, .. }) = record.events.first() {
        report.incident.get_or_insert_with(|| id.clone());
    }
    if let Some(future) = &line.future {
        report.notices.push(format!("record {} holds {future}, which this version does not know", record.seq));
    }
    if let Some((seq, before)) = *last_time
        && record.recorded_at < before
    {
        report.notices.push(format!(
            "the clock went back by {} ms between records {seq} and {}",
            before.diff_ms(record.recorded_at),
            record.seq
        ));
    }
    *last_time = Some((record.seq, record.recorded_at));
}

fn hold_against(anchors: &[Anchor], hashes: &[Digest], report: &mut Report) {
    let mut anchors: Vec<&Anchor> = anchors.iter().filter(|a| a.seq.0 > 0).collect();
    anchors.sort_by_key(|a| a.seq);
    for anchor in anchors {
        let stands = usize::try_from(anchor.seq.0 - 1).ok().and_then(|i| hashes.get(i));
        let why = match stands {
            Some(hash) if *hash == anchor.hash => {
                report.anchor_held_against = Some(anchor.clone());
                continue;
            }
            Some(_) => format!("is not the one anchored at {} ({})", anchor.at, anchor.why),
            None if report.problem.is_some() => return, // the damage explains why it is not reached
            None => {
                let missing = report.records + 1;
                report.problem = Some(Problem {
                    record: missing,
                    why: format!(
                        "is missing: the journal ends before it, but an anchor of {} ({}) knows record {}",
                        anchor.at, anchor.why, anchor.seq
                    ),
                });
                return;
            }
        };
        // An anchor below the damage tells of something earlier, and so the more important.
        report.problem = Some(Problem { record: anchor.seq.0, why });
        return;
    }
}
