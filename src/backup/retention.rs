//! Which backups to keep: pure, so that what a cleanup would do can be shown and tested.

use std::collections::BTreeMap;

use serde::Serialize;

use super::catalog::{Backup, BackupKind, Manifest, RESTORED};
use super::dates;
use crate::model::Time;

pub use crate::config::settings::Retention as Policy;

/// What becomes of a backup, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The backup.
    pub backup: String,
    /// Whether it stays.
    pub keep: bool,
    /// Why.
    pub why: String,
}

/// Backups that can stand for one another: kind, database, part.
pub(super) type Group<'b> = (&'b str, Option<&'b str>, Option<&'b str>);

/// The group of a backup.
pub(super) fn group(m: &Manifest) -> Group<'_> {
    (m.kind.word(), m.database.as_deref(), m.part.as_deref())
}

const DAY_MICROS: i64 = 86_400_000_000;

/// Judges every backup, in their order. The newest verified one of each kind and database always stays, and which one that is the
/// catalog's order says, not a date; where none is verified, nothing of it goes: what stands is all there is, and looking at it may
/// show that it is right. A dump of a part is a kind of its own: it never stands for the whole. One that was found damaged stands for no
/// other; one whose bytes are right and that a restore test complained of stays while nothing newer is verified. What has a date
/// that cannot be right stays, too.
pub fn judge(backups: &[Backup], policy: Policy, now: Time) -> Vec<Verdict> {
    let mut groups: BTreeMap<Group<'_>, Vec<usize>> = BTreeMap::new();
    for (i, b) in backups.iter().enumerate() {
        groups.entry(group(&b.manifest)).or_default().push(i);
    }
    let mut verdicts: Vec<Verdict> =
        backups.iter().map(|b| Verdict { backup: b.manifest.id.clone(), keep: false, why: String::new() }).collect();
    let doubts = dates::doubts(backups, now);
    for mut group in groups.into_values() {
        // Newest first.
        group.reverse();
        let last_good = group.iter().copied().find(|i| backups[*i].verified_at.is_some());
        let mut reasons: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        // Those whose dates say how old they are.
        let mut dated = Vec::with_capacity(group.len());
        for &i in &group {
            match doubts.get(backups[i].manifest.id.as_str()) {
                None => dated.push(i),
                Some(why) => reasons.entry(i).or_default().push(format!("its age is in doubt: {why}")),
            }
        }
        match policy {
            Policy::Days(days) => {
                for &i in &dated {
                    let age = now.micros().saturating_sub(backups[i].manifest.finished_at.micros());
                    if age < i64::from(days) * DAY_MICROS {
                        reasons.entry(i).or_default().push(format!("younger than {days} days"));
                    }
                }
            }
            Policy::Generations { daily, weekly, monthly, yearly } => {
                for (word, count, period) in [
                    ("daily", daily, day as fn(Time) -> String),
                    ("weekly", weekly, week),
                    ("monthly", monthly, month),
                    ("yearly", yearly, year),
                ] {
                    for (p, i) in generation(backups, &dated, count, period) {
                        reasons.entry(i).or_default().push(format!("{word} of {p}"));
                    }
                }
            }
        }
        for &i in &group {
            let m = &backups[i].manifest;
            let part = m.part.as_ref().map_or_else(String::new, |p| format!(", {p} only"));
            let of = match &m.database {
                Some(database) => format!("({} of {database:?}{part})", m.kind.word()),
                None => format!("({}{part})", m.kind.word()),
            };
            let stays = match last_good {
                Some(good) if good == i => format!("the newest verified one {of}"),
                Some(good) if good < i && !expendable(&backups[i]) && backups[i].damaged.is_some() => {
                    "its bytes are right, and nothing newer is verified".to_string()
                }
                Some(_) => continue,
                None => format!("none {of} is verified, so none of them goes"),
            };
            reasons.entry(i).or_default().push(stays);
        }
        for i in group {
            let why = reasons.remove(&i);
            verdicts[i].keep = why.is_some();
            verdicts[i].why = match (why, policy) {
                (Some(why), _) => why.join(", "),
                (None, Policy::Days(days)) => format!("older than {days} days"),
                (None, Policy::Generations { .. }) => "no generation needs it".into(),
            };
            if let Some(damage) = backups[i].damage() {
                verdicts[i].why.push_str(&format!("; {damage}"));
            }
        }
    }
    verdicts
}

/// Whether bytes of it are known to be damaged. A restore test that failed says less: it may be the test that was wrong.
fn expendable(b: &Backup) -> bool {
    b.damaged.as_ref().is_some_and(|d| d.how != RESTORED)
}

/// Of as many periods as are wanted the newest that is not damaged, with its period, of those at `newest_first`; and where a restore
/// test complained of a newer one, that one as well.
fn generation(
    backups: &[Backup],
    newest_first: &[usize],
    count: u32,
    period: fn(Time) -> String,
) -> Vec<(String, usize)> {
    let (mut chosen, mut beside) = (Vec::<(String, usize)>::new(), Vec::new());
    for &i in newest_first {
        let p = period(backups[i].manifest.finished_at);
        let known = chosen.iter().position(|(known, _)| *known == p);
        match known {
            Some(at) => {
                let newer = &backups[chosen[at].1];
                if newer.damaged.is_some() && backups[i].damaged.is_none() {
                    if !expendable(newer) {
                        beside.push(chosen[at].clone());
                    }
                    chosen[at].1 = i;
                }
            }
            None if chosen.len() < count as usize => chosen.push((p, i)),
            None => break,
        }
    }
    chosen.extend(beside);
    chosen
}

fn day(t: Time) -> String {
    t.date_hms().chars().take(10).collect()
}
fn month(t: Time) -> String {
    t.date_hms().chars().take(7).collect()
}
fn year(t: Time) -> String {
    t.date_hms().chars().take(4).collect()
}
fn week(t: Time) -> String {
    // 1970-01-01 was a Thursday.
    let monday = t.micros().div_euclid(DAY_MICROS) - (t.micros().div_euclid(DAY_MICROS) + 3).rem_euclid(7);
    format!("week from {}", day(Time::from_micros(monday * DAY_MICROS)))
}

/// The first log position that a kept base backup needs, per timeline it may be recovered along; what is before may go.
///
/// A backup of an earlier timeline can be recovered along a later one too, so it holds the later one's log as well.
pub fn log_needed(backups: &[Backup], verdicts: &[Verdict]) -> Vec<(u32, u64)> {
    let mut needed: Vec<(u32, u64)> = backups
        .iter()
        .zip(verdicts)
        .filter(|(b, v)| v.keep && b.manifest.kind == BackupKind::Physical)
        .filter_map(|(b, _)| {
            let start = b.manifest.start_lsn.as_deref().and_then(super::wal::parse_lsn)?;
            Some((b.manifest.timeline?, start))
        })
        .collect();
    needed.sort_unstable();
    needed
}
