//! Which backups to keep: pure, so that what a cleanup would do can be shown and tested.

use std::collections::BTreeMap;

use serde::Serialize;

use super::catalog::{Backup, BackupKind, Manifest};
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

/// Judges every backup, in their order. The newest verified one of each kind and database always stays; where none is
/// verified, the newest does. A dump of a part is a kind of its own: it never stands for the whole. One that was found damaged
/// stands for another only where there is no other.
pub fn judge(backups: &[Backup], policy: Policy, now: Time) -> Vec<Verdict> {
    let mut groups: BTreeMap<Group<'_>, Vec<usize>> = BTreeMap::new();
    for (i, b) in backups.iter().enumerate() {
        groups.entry(group(&b.manifest)).or_default().push(i);
    }
    let mut verdicts: Vec<Verdict> =
        backups.iter().map(|b| Verdict { backup: b.manifest.id.clone(), keep: false, why: String::new() }).collect();
    for mut group in groups.into_values() {
        // Newest first.
        group.sort_by_key(|i| std::cmp::Reverse(backups[*i].manifest.finished_at));
        let last_good = group.iter().copied().find(|i| backups[*i].verified_at.is_some());
        let usable = || group.iter().copied().find(|i| backups[*i].damaged.is_none());
        let never = last_good.or_else(usable).or(group.first().copied());
        let mut reasons: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        match policy {
            Policy::Days(days) => {
                for &i in &group {
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
                    // Newest first, and of each period the newest that is not damaged.
                    let mut chosen: Vec<(String, usize)> = Vec::new();
                    for &i in &group {
                        let p = period(backups[i].manifest.finished_at);
                        let known = chosen.iter().position(|(known, _)| *known == p);
                        match known {
                            Some(at) => {
                                if backups[chosen[at].1].damaged.is_some() && backups[i].damaged.is_none() {
                                    chosen[at].1 = i;
                                }
                            }
                            None if chosen.len() < count as usize => chosen.push((p, i)),
                            None => break,
                        }
                    }
                    for (p, i) in chosen {
                        reasons.entry(i).or_default().push(format!("{word} of {p}"));
                    }
                }
            }
        }
        if let Some(i) = never {
            let what = match (last_good, &backups[i].damaged) {
                (Some(_), _) => "the newest verified one",
                (None, None) => "the newest one; none is verified",
                (None, Some(_)) => "the newest one; all are damaged",
            };
            let kind = backups[i].manifest.kind.word();
            let part = backups[i].manifest.part.as_ref().map_or_else(String::new, |p| format!(", {p} only"));
            reasons.entry(i).or_default().push(match &backups[i].manifest.database {
                Some(database) => format!("{what} ({kind} of {database:?}{part})"),
                None => format!("{what} ({kind}{part})"),
            });
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
