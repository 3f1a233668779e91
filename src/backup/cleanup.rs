//! Giving up what retention no longer needs. First a plan, which can be shown; then the catalog says that a backup is gone;
//! only then do its objects go. Killed in between, the next cleanup goes on.

use std::collections::BTreeSet;

use serde::Serialize;

use super::catalog::{self, Catalog, Change, Damage, GIVEN_UP, manifest_name};
use super::copies;
use super::damage::{self, is_damage};
use super::dates;
use super::part::check_ends;
use super::repository::{Repository, Unlocked};
use super::retention::{self, Policy, Verdict};
use super::wal::{DEFAULT_SEGMENT_SIZE, Segment, WalName};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Time;

/// Objects of a backup that no entry of the catalog names may belong to one that is being made: they are left alone so
/// long, by the time in the backup's id.
pub const IN_PROGRESS_MICROS: i64 = 48 * 3_600_000_000;

/// An object that may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// Name in the repository.
    pub name: String,
    /// Bytes as stored.
    pub bytes: u64,
    /// Why.
    pub why: String,
}

/// What a cleanup would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Every backup of the catalog, oldest first.
    pub backups: Vec<Verdict>,
    /// Objects that go, in this order, after the entries of their backups.
    pub objects: Vec<Removal>,
    /// Why the log is kept as it is, or from where on.
    pub log: String,
}

impl Plan {
    /// Bytes that become free.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|o| o.bytes).sum()
    }
    /// Backups that go.
    pub fn removed(&self) -> impl Iterator<Item = &Verdict> {
        self.backups.iter().filter(|v| !v.keep)
    }
}

/// Finds what may go by a catalog that was read, with what was found from this machine ([`super::damage::load`]); the damaged
/// backups `give_up` go, too. `copies` are other places of the repository: what one of them has whole is not given up.
///
/// # Errors
/// The catalog is damaged, or the repository cannot be listed: nothing is removed on the word of a damaged catalog. Usage when
/// there is no such backup; refused when it is whole, or a copy has it whole.
pub fn plan(
    unlocked: &Unlocked,
    mut catalog: Catalog,
    policy: Policy,
    now: Time,
    give_up: &[String],
    copies: &[String],
) -> Result<Plan> {
    let store = unlocked.repository().store();
    catalog.unbroken()?;
    let mut given_up = Vec::with_capacity(give_up.len());
    for id in give_up {
        // By a cleanup that was interrupted: the catalog says so, and what is left of it goes below.
        if !catalog.removed.contains(id) {
            given_up.push(giving_up(unlocked, &catalog, id, copies, now)?);
        }
    }
    // The others are judged as if it were gone: it stands for nothing any more.
    catalog.backups.retain(|b| !give_up.contains(&b.manifest.id));
    catalog.lost.retain(|l| !give_up.contains(&l.backup));
    let mut verdicts = retention::judge(&catalog.backups, policy, now);
    let judged = verdicts.len();
    verdicts.extend(given_up);
    let kept: BTreeSet<&str> = verdicts.iter().filter(|v| v.keep).map(|v| v.backup.as_str()).collect();
    let known: BTreeSet<&str> = verdicts.iter().map(|v| v.backup.as_str()).collect();
    let mut objects = Vec::new();
    for entry in store.list("backups/")? {
        let Some(id) = entry.name.split('/').nth(1) else { continue };
        let why = if kept.contains(id) || catalog.lost.iter().any(|l| l.backup == id) {
            continue;
        } else if known.contains(id) {
            "of a backup that goes"
        } else if catalog.removed.contains(id) {
            "left by an interrupted cleanup"
        } else if started(id).is_some_and(|t| now.micros().saturating_sub(t.micros()) > IN_PROGRESS_MICROS) {
            "left by a backup that was never finished"
        } else {
            continue;
        };
        objects.push(Removal { name: entry.name, bytes: entry.size, why: why.into() });
    }
    for entry in store.leftovers()? {
        objects.push(Removal { name: entry.name, bytes: entry.size, why: "left by a writer that died".into() });
    }
    let needed = retention::log_needed(&catalog.backups, &verdicts[..judged]);
    let lost: Vec<&str> = catalog.lost.iter().map(|l| l.backup.as_str()).collect();
    let log = if !lost.is_empty() {
        format!(
            "the log is kept whole: only the damaged manifest of {} says what it is needed for; put it back, or give it up (--give-up ID)",
            lost.join(", ")
        )
    } else if needed.is_empty() {
        "the log is kept whole: no base backup says what it is needed for".to_string()
    } else {
        let size = unlocked.repository().cluster()?.and_then(|c| c.wal_segment_size).unwrap_or(DEFAULT_SEGMENT_SIZE);
        let mut first_kept: Option<String> = None;
        for entry in store.list("wal/")? {
            let Some(segment) = segment_of(&entry.name) else { continue };
            // A backup of an earlier timeline may be recovered along a later one. Of a timeline before every kept backup
            // nothing is needed; it is kept like the rest all the same, because a backup of it may be on its way.
            let along = needed.iter().filter(|(t, _)| *t <= segment.timeline).map(|(_, lsn)| *lsn).min();
            let Some(from) = along.or(needed.iter().map(|(_, lsn)| *lsn).min()) else { continue };
            if segment.number(size) < Segment::at(segment.timeline, from, size).number(size) {
                objects.push(Removal {
                    name: entry.name,
                    bytes: entry.size,
                    why: "log from before every kept base backup".into(),
                });
            } else if first_kept.is_none() {
                first_kept = Some(segment.to_string());
            }
        }
        format!("the log is kept from {}", first_kept.as_deref().unwrap_or("its beginning"))
    };
    verdicts.extend(catalog.lost.iter().map(|l| Verdict {
        backup: l.backup.clone(),
        keep: true,
        why: "it is damaged: put it back from a copy, or give it up (backup cleanup --give-up ID)".into(),
    }));
    Ok(Plan { backups: verdicts, objects, log })
}

/// As [`plan`], and nothing is trusted unseen: where one backup of a kind and database goes, those that stay are looked at
/// first, as far as their beginnings and ends tell ([`check_ends`]). One that is damaged stands for no other, and the plan is made
/// anew without it. `seen` is told each that was looked at, and what is wrong with it.
///
/// # Errors
/// As [`plan`]; the repository cannot be read.
pub fn plan_looking(
    unlocked: &Unlocked,
    mut catalog: Catalog,
    policy: Policy,
    now: Time,
    give_up: &[String],
    copies: &[String],
    seen: &mut dyn FnMut(&str, Option<&Error>) -> Result<()>,
) -> Result<Plan> {
    let mut looked: BTreeSet<String> = BTreeSet::new();
    loop {
        let plan = plan(unlocked, catalog.clone(), policy, now, give_up, copies)?;
        let goes = |id: &str| plan.removed().any(|v| v.backup == id);
        let poorer: BTreeSet<retention::Group<'_>> =
            catalog.backups.iter().filter(|b| goes(&b.manifest.id)).map(|b| retention::group(&b.manifest)).collect();
        let mut found: Vec<(usize, Damage)> = Vec::new();
        for (i, b) in catalog.backups.iter().enumerate() {
            let (id, m) = (&b.manifest.id, &b.manifest);
            if b.damaged.is_some() || goes(id) || !poorer.contains(&retention::group(m)) || !looked.insert(id.clone()) {
                continue;
            }
            match check_ends(unlocked, m) {
                Ok(()) => seen(id, None)?,
                Err(e) if is_damage(&e) => {
                    seen(id, Some(&e))?;
                    found.push((i, Damage { at: now, how: catalog::READ.into(), why: damage::reason(&e) }));
                }
                Err(e) => return Err(e),
            }
        }
        if found.is_empty() {
            return Ok(plan);
        }
        for (i, d) in found {
            if let Some(b) = catalog.backups.get_mut(i) {
                (b.verified_at, b.verified_how, b.proven_at, b.damaged) = (None, None, None, Some(d));
            }
        }
    }
}

/// What is said of a damaged backup that somebody gives up.
fn giving_up(unlocked: &Unlocked, catalog: &Catalog, id: &str, copies: &[String], now: Time) -> Result<Verdict> {
    let (objects, why) = match catalog.lost.iter().find(|l| l.backup == id) {
        Some(lost) => (vec![manifest_name(id)], lost.why.clone()),
        None => {
            let backup = catalog.find(id)?;
            let damaged = copies::damaged(unlocked, catalog, &backup.manifest)?;
            // What it takes the key to see, or a restore, or what is missing of its log.
            let age = || dates::doubt(backup, now).map(|why| format!("its age is in doubt: {why}"));
            if let (true, Some(found)) = (damaged.is_empty(), backup.damage().or_else(age)) {
                return Ok(Verdict { backup: id.to_string(), keep: false, why: format!("{GIVEN_UP}, {found}") });
            }
            let why = damaged.iter().map(|(_, why)| why.clone()).collect::<Vec<_>>().join("; ");
            (damaged.into_iter().map(|(name, _)| name).collect(), why)
        }
    };
    let giving = || Error::refused(format!("giving up backup {id:?}"));
    if objects.is_empty() {
        return Err(giving()
            .why("its manifest and the checksums of its objects are right")
            .hint("Leave --give-up out: retention says when it goes.")
            .hint("breakglass backup verify reads it with the key."));
    }
    for place in copies {
        if !Repository::exists(place)? {
            return Err(giving()
                .why(format!("the copy in {place:?}, which may have it whole, is not there now"))
                .hint("Is its disk mounted? Then this command again.")
                .hint("If that copy is gone: --even-if-copied."));
        }
        if copies::has_whole(unlocked, catalog, place, &objects)? {
            return Err(giving()
                .why(format!("the copy in {place:?} has whole what is damaged here: {}", objects.join(", ")))
                .hint("Put the files of these names back from there.")
                .hint("To give it up all the same: --even-if-copied; that place keeps it until `backup copy --remove-given-up`."));
        }
    }
    Ok(Verdict { backup: id.to_string(), keep: false, why: format!("{GIVEN_UP}, damaged: {why}") })
}

/// Does what a plan says. `progress` is told objects removed and in all.
///
/// On a full disk even the word that a backup is given up has no room: the repository's reserve is let go for it, and made again
/// at the end.
///
/// # Errors
/// Storing or removing fails; what was removed until then was said to be gone before.
pub fn execute(unlocked: &Unlocked, plan: &Plan, progress: &mut dyn FnMut(usize, usize) -> Result<()>) -> Result<()> {
    let store = unlocked.repository().store();
    let (leftovers, objects): (Vec<&Removal>, Vec<&Removal>) = plan
        .objects
        .iter()
        .partition(|o| o.name.rsplit('/').next().is_some_and(|n| n.is_empty() || n.starts_with('.')));
    let (mut done, all) = (0, plan.objects.len());
    // They belong to nobody, and make room.
    for object in leftovers {
        progress(done, all)?;
        store.remove_leftover(&object.name)?;
        done += 1;
    }
    let mut let_go: Vec<&str> = Vec::new();
    for verdict in plan.removed() {
        let change = Change::Removed { backup: verdict.backup.clone(), reason: verdict.why.clone() };
        let mut said = catalog::append(unlocked, &change);
        if let Some(full) = said.as_ref().err().filter(|e| no_room(e)) {
            match store.release_reserve() {
                Ok(true) => said = catalog::append(unlocked, &change),
                Ok(false) => {}
                // That the disk is full is what has to be known.
                Err(reserve) => said = Err(full.clone().why(format!("and its reserve cannot be let go: {reserve}"))),
            }
        }
        match said {
            // Another cleanup was quicker.
            Err(e) if e.kind == ErrorKind::Usage => {}
            other => other.map(|_| ())?,
        }
        let_go.push(&verdict.backup);
        // At once: the next entry may need the room.
        let folder = format!("backups/{}/", verdict.backup);
        for object in objects.iter().filter(|o| o.name.starts_with(&folder)) {
            progress(done, all).map_err(|e| already(e, &let_go))?;
            store.delete(&object.name)?;
            done += 1;
        }
    }
    let gone: BTreeSet<String> = plan.removed().map(|v| format!("backups/{}/", v.backup)).collect();
    for object in objects {
        if gone.iter().any(|folder| object.name.starts_with(folder.as_str())) {
            continue;
        }
        progress(done, all).map_err(|e| already(e, &let_go))?;
        store.delete(&object.name)?;
        done += 1;
    }
    // Still no room for it: the next cleanup tries again.
    let _ = store.keep_reserve();
    progress(all, all)
}

/// Says with what stopped a cleanup which backups the catalog names no more, although objects of theirs may be left.
fn already(e: Error, let_go: &[&str]) -> Error {
    match let_go {
        [] => e,
        [id] => e.why(format!("backup {id} was let go already: no list names it any more, and the next cleanup removes the rest of it")),
        ids => e.why(format!(
            "backups {} were let go already: no list names them any more, and the next cleanup removes the rest of them",
            ids.join(", ")
        )),
    }
}

/// Whether something failed because the disk, or what its owner may use of it, is full.
fn no_room(e: &Error) -> bool {
    use rustix::io::Errno;
    // The number is part of what every error of the system says of itself.
    e.kind == ErrorKind::Target
        && [Errno::NOSPC, Errno::DQUOT].iter().any(|n| e.why.contains(&format!("(os error {})", n.raw_os_error())))
}

/// The segment that an object of the log is, or stands for. Histories stay: they are tiny, and without one a timeline
/// cannot be told from another.
fn segment_of(object: &str) -> Option<Segment> {
    match WalName::from_object(object)? {
        WalName::Segment(s) | WalName::Partial(s) | WalName::Backup(s, _) => Some(s),
        WalName::History(_) => None,
    }
}

/// When a backup was begun, by its id (`20261120T1330Z-…`).
fn started(id: &str) -> Option<Time> {
    let s = id.get(..14)?;
    let digits = s.bytes().enumerate().all(|(i, b)| match i {
        8 => b == b'T',
        13 => b == b'Z',
        _ => b.is_ascii_digit(),
    });
    if !digits {
        return None;
    }
    Time::parse(&format!("{}-{}-{}T{}:{}:00Z", &s[..4], &s[4..6], &s[6..8], &s[9..11], &s[11..13])).ok()
}
