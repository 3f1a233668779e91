//! What lies in the places of the archived segments, as far as it says so itself, and as far as it is what was read before: what cannot
//! be used, and the last point before it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::archive::Archive;
use super::range::tablespace::InTheWay;
use super::wal_index::{Exchanged, Index};
use crate::backup::catalog::BackupKind;
use crate::backup::repository::{Repository, Unlocked};
use crate::backup::wal::look::look;
use crate::backup::wal::range::leads_along;
use crate::backup::wal::{Hole, Listing, Segment};
use crate::error::Result;
use crate::model::Time;
use crate::postgres::Lsn;

/// The last point before a segment that the index knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Before {
    /// Its commit.
    pub lsn: String,
    /// Its transaction.
    pub xid: u32,
    /// When it committed.
    pub at: Time,
}

/// What was seen of them.
#[derive(Debug, Clone, Default)]
pub struct Segments {
    /// Those that cannot be used, by timeline and position; those in a row that are so for one reason as one.
    pub unusable: Vec<Hole>,
    /// Those that are other objects than the ones that were read.
    pub exchanged: Vec<Exchanged>,
    /// How many were not looked at, because the time was over: the oldest.
    pub left: u64,
    /// The first tablespace made behind the newest base backup, as far as the index knows.
    pub tablespace: Option<InTheWay>,
    /// By the first name of a stretch of either: the last point before it.
    pub before: BTreeMap<String, Before>,
}

impl Segments {
    /// Longest time for it: whoever asks for the status wants an answer.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// Lines and names of one kind that are shown.
    const MOST: usize = 20;

    /// Looks. Without the key, what was read before is not known.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn look(repository: &Repository, unlocked: Option<&Unlocked>) -> Result<Self> {
        let listing = Listing::read(repository)?;
        let index = unlocked.map_or_else(|| Ok(Index::default()), |u| Index::of(u, &listing))?;
        let identities = unlocked.map_or(&[][..], Unlocked::identities);
        let sure = |segment, bytes, stamp| index.is_sure(segment, bytes, stamp);
        let seen = look(repository, identities, &listing, &sure, Self::PATIENCE)?;
        let mut unusable = seen.unusable;
        let mut damaged = index.damaged();
        damaged.sort_unstable();
        let known = |name: &String| unusable.iter().any(|h| h.first <= *name && *name <= h.last);
        let read: Vec<(String, &str)> = damaged.iter().map(|(s, why)| (s.to_string(), *why)).collect();
        let read: Vec<_> = read.into_iter().filter(|(name, _)| !known(name)).collect();
        let hole = |(name, why): (String, &str)| Hole { first: name.clone(), last: name, next: None, why: why.into() };
        unusable.extend(read.into_iter().map(hole));
        let firsts = unusable.iter().filter_map(|h| Segment::parse(&h.first));
        let before = before(&index, &listing, &firsts.chain(index.exchanged.iter().map(|e| e.segment)).collect());
        // A catalog or a history that cannot be read is told by those who need it.
        let tablespace = unlocked.and_then(|u| tablespace(u, &index, &listing).ok()?);
        Ok(Self { unusable, exchanged: index.exchanged, left: seen.left, tablespace, before })
    }

    /// The last point before a segment, for people.
    fn last_good(&self, segment: &str) -> String {
        match self.before.get(segment) {
            Some(b) => format!(
                "the last point before it is transaction {} of {}: --to-after lsn:{} keeps it and all before it",
                b.xid, b.at, b.lsn
            ),
            None => {
                "the last point before it is not in the index: breakglass wal index, then breakglass pitr range".into()
            }
        }
    }

    /// What cannot be used, one sentence each, with the last point before it.
    pub fn unusable_sentences(&self) -> Vec<String> {
        let one = |h: &Hole| {
            let name = if h.first == h.last { h.first.clone() } else { format!("{} to {}", h.first, h.last) };
            format!("{name}: {}; {}", h.why, self.last_good(&h.first))
        };
        let mut out: Vec<String> = self.unusable.iter().take(Self::MOST).map(one).collect();
        let more = self.unusable.len().saturating_sub(Self::MOST);
        if more > 0 {
            out.push(format!("{more} stretches more: breakglass wal status --json has them all"));
        }
        out
    }

    /// Those that are other objects than the ones that were read, in one sentence.
    pub fn exchanged_sentence(&self) -> Option<String> {
        let names: Vec<String> = self.exchanged.iter().take(Self::MOST).map(Exchanged::what).collect();
        let more = self.exchanged.len().saturating_sub(names.len());
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let first = self.exchanged.first()?.segment.to_string();
        Some(format!(
            "{}{more}: nobody of ours writes a segment twice; breakglass wal index reads what lies there now, and a copy of the \
             repository has what lay there; {}",
            names.join(", "),
            self.last_good(&first)
        ))
    }

    /// For people: what cannot be used, what that means, and what was not looked at.
    pub fn lines(&self) -> Vec<String> {
        let mut out: Vec<String> = self.unusable_sentences().iter().map(|s| format!("  UNUSABLE {s}")).collect();
        if !self.unusable.is_empty() {
            out.push(format!("  {MEANS}: {MEND}"));
        }
        out.extend(self.tablespace.iter().map(|t| format!("  ENDS AT {}", t.sentence())));
        out.extend(self.not_looked_at().map(|l| format!("  {l}")));
        out
    }

    /// That some were not looked at.
    pub fn not_looked_at(&self) -> Option<String> {
        let (left, patience) = (self.left, Self::PATIENCE.as_secs());
        (left > 0).then(|| format!("{left} segments, the oldest, were not looked at: {patience} s were over"))
    }
}

/// What a segment that cannot be used means.
const MEANS: &str = "no moment whose way leads over them can be recovered";
/// What to do about it.
pub const MEND: &str = "put them back from a copy, or take a base backup now (breakglass backup create --physical)";

/// The first tablespace that the index knows behind the newest base backup, on the way to the newest timeline.
fn tablespace(unlocked: &Unlocked, index: &Index, listing: &Listing) -> Result<Option<InTheWay>> {
    let newest = listing.timelines().last().copied().unwrap_or(1);
    let path = unlocked.path_to(newest)?;
    let way = unlocked.way(listing, newest)?;
    let backups = unlocked.backups()?;
    let physical = backups.iter().filter(|m| m.kind == BackupKind::Physical && leads_along(&path, m));
    let start = physical.filter_map(|m| m.start_lsn.as_ref()?.parse::<Lsn>().ok()).max();
    let (Some(start), Some(end)) = (start, way.end()) else { return Ok(None) };
    let known = (start.0 / u64::from(listing.segment_size())..=end).filter_map(|n| way.segment(n));
    let mut made = known.filter_map(|(s, bytes)| index.tablespaces(s, bytes)).flatten().filter(|m| m.at() >= start);
    Ok(made.next().map(|m| InTheWay { made: m.clone(), until: None }))
}

/// Of each of these segments, the newest commit before it on its timeline that the index knows.
fn before(index: &Index, listing: &Listing, segments: &BTreeSet<Segment>) -> BTreeMap<String, Before> {
    let mut out = BTreeMap::new();
    let mut last: Option<(u32, Before)> = None;
    for (segment, bytes, _) in listing.segments() {
        last = last.filter(|(timeline, _)| *timeline == segment.timeline);
        if segments.contains(&segment) {
            out.extend(last.clone().map(|(_, before)| (segment.to_string(), before)));
        }
        let known = index.read(segment, bytes);
        if let Some((i, lsn, at)) = known.and_then(|i| Some((i, i.last_commit_lsn?, i.last_commit?))) {
            last = Some((segment.timeline, Before { lsn: lsn.to_string(), xid: i.last_commit_xid, at }));
        }
    }
    out
}
