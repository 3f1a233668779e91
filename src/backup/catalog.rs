//! The catalog: which backups there are, as a chain of entries that only a holder of the repository's secret can write.
//!
//! Each entry names the digest of the one before, so none can be changed, removed from the middle or reordered unseen.
//! What a chain cannot show by itself is a cut tail: keep its [`Head`] elsewhere and compare with [`Catalog::holds`].
//! An entry is stored under the next number only if nobody else took that number; that one step is what makes a backup
//! exist. A crash before it leaves objects that no entry names, and the catalog as it was.

mod append;
mod choose;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::container::{ObjectType, hex};
use super::damage;
use super::dates;
pub use super::kept::GivenUp;
use super::kept::Kept;
use super::repository::{SUFFIX, Unlocked, now};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Time;

pub use append::{accept, add, append, check_writable};
pub use manifest::{BackupKind, Manifest, ObjectRecord, manifest_name};

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// A backup is complete.
    Added {
        /// Its id.
        backup: String,
        /// Digest of its manifest as stored.
        manifest_sha256: String,
    },
    /// A backup was found to be right.
    Verified {
        /// Its id.
        backup: String,
        /// How: `read` when every byte was read, `restored` when it was started as a server.
        how: String,
    },
    /// A backup was found to be damaged. A later [`Change::Verified`] says otherwise, unless it looked at less.
    Damaged {
        /// Its id.
        backup: String,
        /// How it was looked at, as in [`Change::Verified`].
        how: String,
        /// What is wrong.
        why: String,
    },
    /// A backup is given up; its objects may go.
    Removed {
        /// Its id.
        backup: String,
        /// Why.
        reason: String,
    },
    /// Somebody knows that entries are missing or damaged, or that the catalog was rolled back, and goes on from what is there.
    Accepted {
        /// First and last number of each stretch.
        entries: Vec<[u64; 2]>,
        /// The head that had been seen, where the catalog does not go through it any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead_of: Option<Head>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    version: u32,
    seq: u64,
    prev: String,
    at: Time,
    #[serde(flatten)]
    change: Change,
}

/// Where the chain ends; kept outside the repository it shows a cut tail or a rewritten chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last entry, 0 when there is none.
    pub seq: u64,
    /// Its digest.
    pub sha256: String,
}

/// A backup of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// What it is.
    pub manifest: Manifest,
    /// When every byte was last read and found right; none when it was found damaged since.
    #[serde(default)]
    pub verified_at: Option<Time>,
    /// How it was verified then.
    #[serde(default)]
    pub verified_how: Option<String>,
    /// When it was last restored and found right: proof that it can be; none when it was found damaged since.
    #[serde(default)]
    pub proven_at: Option<Time>,
    /// That it was found damaged, and not right since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<Damage>,
    /// The date of an earlier entry, where the one that made this a backup is dated before that: a clock was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dated_back: Option<Time>,
}

/// That a backup was found damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// When.
    pub at: Time,
    /// How it was looked at: `read` or `restored`.
    pub how: String,
    /// What is wrong.
    pub why: String,
}

impl Damage {
    /// One phrase.
    pub fn describe(&self) -> String {
        let word = if self.how == RESTORED { "NOT RESTORABLE" } else { "DAMAGED" };
        format!("{word}, found {}: {}", self.at.date_hms(), self.why)
    }
    /// Whether having looked in this way and found all right shows that it is gone: what reading cannot see, reading does not
    /// clear.
    pub fn cleared_by(&self, how: &str) -> bool {
        self.how != RESTORED || how == RESTORED
    }
}

impl Backup {
    /// That it was found damaged, in a phrase.
    pub fn damage(&self) -> Option<String> {
        self.damaged.as_ref().map(Damage::describe)
    }
}

/// The catalog as read: every entry that counts authenticated, the chain checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// Oldest first.
    pub backups: Vec<Backup>,
    /// Where the chain ends.
    pub head: Head,
    /// Ids of backups that were given up.
    pub removed: BTreeSet<String>,
    /// Those of them that were given up by hand, damaged.
    pub given_up: BTreeMap<String, GivenUp>,
    /// Backups whose manifest is missing or damaged.
    pub lost: Vec<Lost>,
    /// Entries that are missing or damaged.
    pub broken: Vec<Broken>,
    /// Files in the catalog's folder whose names are no entry's: passed over.
    pub strays: Vec<String>,
    /// That somebody knew of such entries, or of a catalog that was rolled back, and went on; oldest first.
    pub accepted: Vec<Accepted>,
    /// Date of the last entry that could be read.
    pub last_at: Option<Time>,
    chain: BTreeMap<u64, String>,
    /// Digests of manifests by the ids of their backups, as entered.
    manifests: BTreeMap<String, String>,
    /// Number of the entry that last said of a backup whether it is right, by its id.
    judged: BTreeMap<String, u64>,
}

/// A backup that the catalog names and whose manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Its id.
    pub backup: String,
    /// What is wrong.
    pub why: String,
}

/// That somebody who holds the key knew what is missing, and went on from what is there ([`Change::Accepted`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// Number of the entry that says so.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// First and last number of each stretch that is missing or damaged.
    pub entries: Vec<[u64; 2]>,
    /// The head that had been seen before a catalog that was rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<Head>,
}

impl Accepted {
    /// One phrase.
    pub fn describe(&self) -> String {
        let mut of: Vec<String> = self
            .entries
            .iter()
            .map(
                |[first, last]| {
                    if first == last { format!("entry {first}") } else { format!("entries {first} to {last}") }
                },
            )
            .collect();
        of.extend(
            self.instead_of.iter().map(|head| format!("the end that was seen before, {}:{}", head.seq, head.sha256)),
        );
        format!("entry {}: accepted on {} that {} is lost", self.seq, self.at.date_hms(), of.join(", "))
    }
}

/// Entries of the chain that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// What is wrong.
    pub why: String,
    /// Whether somebody who holds the key wrote down that he knows of it ([`Change::Accepted`]).
    pub accepted: bool,
    /// Whether it is the medium that does not give it: it may be whole, and nothing says that somebody changed it.
    pub unreadable: bool,
}

impl Broken {
    fn new(first: u64, last: u64, why: String) -> Self {
        Self { first, last, why, accepted: false, unreadable: false }
    }
    /// One phrase.
    pub fn describe(&self) -> String {
        match self.last.saturating_sub(self.first) {
            0 => format!("entry {}: {}", self.first, self.why),
            _ => format!("entries {} to {}: {}", self.first, self.last, self.why),
        }
    }
}

/// A backup while the chain is read: its entry's number, its manifest's digest, when and how it was last verified, when it was
/// last restored, or that it was found damaged, and the number of the entry that said so.
#[derive(Clone, Default)]
struct Live {
    seq: u64,
    digest: String,
    verified: Option<(Time, String)>,
    proven: Option<Time>,
    damaged: Option<Damage>,
    judged: u64,
    dated_back: Option<Time>,
}

impl Live {
    fn right(&mut self, seq: u64, at: Time, how: String) {
        if self.damaged.as_ref().is_some_and(|d| !d.cleared_by(&how)) {
            return;
        }
        if how == RESTORED {
            self.proven = Some(at);
        }
        (self.damaged, self.verified, self.judged) = (None, Some((at, how)), seq);
    }
    fn damaged(&mut self, seq: u64, damage: Damage) {
        (self.damaged, self.verified, self.proven, self.judged) = (Some(damage), None, None, seq);
    }
}

/// How a backup was verified when every byte was read ([`Change::Verified`]).
pub const READ: &str = "read";
/// How the reason of a backup that was damaged and given up by hand begins ([`Change::Removed`]).
pub const GIVEN_UP: &str = "given up by hand";
/// How a backup was verified when it was restored and looked at ([`Change::Verified`]).
pub const RESTORED: &str = "restored";

const FOLDER: &str = "catalog/";
const MAX_DOCUMENT: u64 = 64 << 20;
const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn entry_name(seq: u64) -> String {
    format!("{FOLDER}{seq:08}{SUFFIX}")
}

/// Number of the entry of this name.
pub(crate) fn seq_of(name: &str) -> Option<u64> {
    let seq = name.strip_prefix(FOLDER)?.strip_suffix(SUFFIX)?.parse().ok()?;
    (seq > 0 && entry_name(seq) == name).then_some(seq)
}

impl Catalog {
    /// Reads the whole chain and the manifests of the backups that are in it. What is damaged or missing does not take the rest
    /// along: it is named in [`Catalog::lost`] and [`Catalog::broken`]. Where the chain is broken, backups whose manifest is whole
    /// and that no entry names are taken in: the entry that named them may be the damaged one.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn load(unlocked: &Unlocked) -> Result<Self> {
        let store = unlocked.repository().store();
        let (mut broken, mut strays) = (Vec::new(), Vec::new());
        let mut present: Vec<(u64, String)> = Vec::new();
        for entry in store.list(FOLDER)? {
            match seq_of(&entry.name) {
                Some(seq) => present.push((seq, entry.name)),
                None => strays.push(entry.name),
            }
        }
        present.sort();
        let mut next = 1;
        for (seq, _) in &present {
            if *seq > next {
                broken.push(Broken::new(next, seq - 1, "missing".into()));
            }
            next = seq + 1;
        }
        let read = read_all(unlocked, &present, |(_, name)| {
            or_damage(unlocked.read_own(ObjectType::CatalogEntry, name, MAX_DOCUMENT).and_then(|found| {
                found.ok_or_else(|| Error::target(format!("{name:?} vanished while the catalog was read")))
            }))
        })?;
        let mut chain: BTreeMap<u64, String> = BTreeMap::new();
        let mut live: BTreeMap<String, Live> = BTreeMap::new();
        let (mut removed, mut accepted) = (BTreeSet::new(), Vec::<Accepted>::new());
        let mut copy: Option<bool> = None;
        // Dates after now are no measure of those that follow.
        let (until, mut latest, mut last_at) = (dates::not_after(now()), None::<Time>, None);
        let mut given_up: BTreeMap<String, GivenUp> = BTreeMap::new();
        let mut kept: Option<BTreeMap<String, u64>> = None;
        for ((seq, _), read) in present.iter().zip(read) {
            let seq = *seq;
            let understood = read.and_then(|(bytes, summary)| {
                let entry: Entry =
                    serde_json::from_slice(&bytes).map_err(|e| Error::check("it cannot be understood").why(e))?;
                if entry.version != 1 || entry.seq != seq {
                    return Err(Error::check("another entry was put in its place"));
                }
                Ok((entry, summary))
            });
            let (entry, summary) = match understood {
                Ok(read) => read,
                Err(e) => {
                    let unreadable = damage::is_unreadable(&e);
                    broken.push(Broken { unreadable, ..Broken::new(seq, seq, e.to_string()) });
                    continue;
                }
            };
            let before = if seq == 1 { Some(NONE) } else { chain.get(&(seq - 1)).map(String::as_str) };
            if before.is_some_and(|prev| prev != entry.prev) {
                let why =
                    format!("it does not follow entry {}: one was replaced, or two chains were put together", seq - 1);
                broken.push(Broken::new(seq, seq, why));
            }
            match entry.change {
                Change::Added { backup, manifest_sha256 } => {
                    let dated_back = latest.filter(|latest| dates::before(entry.at, *latest));
                    live.insert(backup, Live { seq, digest: manifest_sha256, dated_back, ..Live::default() });
                }
                Change::Verified { backup, how } => {
                    if let Some(b) = live.get_mut(&backup) {
                        b.right(seq, entry.at, how);
                    }
                }
                Change::Damaged { backup, how, mut why } => {
                    let of_copy = match copy {
                        Some(known) => known,
                        None => unlocked.repository().is_copy()?,
                    };
                    copy = Some(of_copy);
                    if of_copy {
                        why = format!("in the place that this is a copy of: {why}");
                    }
                    if let Some(b) = live.get_mut(&backup) {
                        b.damaged(seq, Damage { at: entry.at, how, why });
                    }
                }
                Change::Removed { backup, reason } => {
                    let by_hand = reason.starts_with(GIVEN_UP);
                    if by_hand && kept.is_none() {
                        kept = Some(or_damage(Kept::read(&**store))?.unwrap_or_default().0);
                    }
                    let stays = by_hand && kept.as_ref().and_then(|k| k.get(&backup)) == Some(&seq);
                    // Damaged elsewhere and whole here.
                    if let (true, Some(b)) = (stays, live.get_mut(&backup)) {
                        b.damaged = None;
                    } else {
                        let manifest = live.remove(&backup).map(|b| b.digest);
                        if by_hand {
                            given_up.insert(backup.clone(), GivenUp { seq, manifest });
                        }
                        removed.insert(backup);
                    }
                }
                Change::Accepted { mut entries, instead_of } => {
                    // Files that are no entries were once accepted as entry 0; they are none that could be lost.
                    entries.retain(|[first, _]| *first > 0);
                    if !entries.is_empty() || instead_of.is_some() {
                        accepted.push(Accepted { seq, at: entry.at, entries, instead_of });
                    }
                }
            }
            chain.insert(seq, hex(&summary.stored_sha256));
            latest = latest.max((entry.at <= until).then_some(entry.at));
            last_at = Some(entry.at);
        }
        for b in &mut broken {
            // One that was damaged may be missing by now, and join others that are: what counts is that each is known.
            let known = |n| accepted.iter().flat_map(|a| &a.entries).any(|[first, last]| (*first..=*last).contains(&n));
            b.accepted = (b.first..=b.last).all(known);
        }
        let live: Vec<(String, Live)> = live.into_iter().collect();
        let manifests =
            read_all(unlocked, &live, |(id, live)| or_damage(manifest::read(unlocked, id, Some(&live.digest))))?;
        let (mut backups, mut lost) = (Vec::with_capacity(live.len()), Vec::new());
        for ((id, l), manifest) in live.iter().cloned().zip(manifests) {
            let (verified_at, verified_how) = l.verified.unzip();
            let (proven_at, damaged, dated_back) = (l.proven, l.damaged, l.dated_back);
            match manifest {
                Ok(manifest) => {
                    let found = Backup { manifest, verified_at, verified_how, proven_at, damaged, dated_back };
                    backups.push((l.seq, found));
                }
                Err(e) => lost.push((l.seq, Lost { backup: id, why: e.to_string() })),
            }
        }
        if let Some(first) = broken.iter().map(|b| b.first).min() {
            for entry in store.list("backups/")? {
                let Some(id) = entry.name.split('/').nth(1).filter(|id| manifest_name(id) == entry.name) else {
                    continue;
                };
                if removed.contains(id) || live.iter().any(|(known, _)| known == id) {
                    continue;
                }
                if let Ok(manifest) = manifest::read(unlocked, id, None) {
                    let found = Backup {
                        manifest,
                        verified_at: None,
                        verified_how: None,
                        proven_at: None,
                        damaged: None,
                        dated_back: None,
                    };
                    backups.push((first, found));
                }
            }
        }
        backups.sort_by_key(|(seq, _)| *seq);
        lost.sort_by_key(|(seq, _)| *seq);
        let seq = present.last().map_or(0, |(seq, _)| *seq);
        let head = Head { seq, sha256: chain.get(&seq).cloned().unwrap_or_else(|| NONE.to_string()) };
        Ok(Self {
            backups: backups.into_iter().map(|(_, b)| b).collect(),
            head,
            removed,
            given_up,
            lost: lost.into_iter().map(|(_, l)| l).collect(),
            broken,
            strays,
            accepted,
            last_at,
            chain,
            judged: live.iter().map(|(id, l)| (id.clone(), l.judged)).collect(),
            manifests: live.into_iter().map(|(id, l)| (id, l.digest)).collect(),
        })
    }

    /// Number of the entry that last said of a backup whether it is right; 0 when none did.
    pub(super) fn judged(&self, id: &str) -> u64 {
        self.judged.get(id).copied().unwrap_or(0)
    }

    /// One sentence for each backup that was found damaged, and for each whose manifest is.
    pub fn damaged_lines(&self) -> Vec<String> {
        let found = self.backups.iter().filter_map(|b| Some(format!("{}  {}", b.manifest.id, b.damage()?)));
        found.chain(self.lost_lines()).collect()
    }

    /// Name and digest, as stored, of each entry that could be read, and of each manifest that they name.
    pub fn documents(&self) -> impl Iterator<Item = (String, String)> {
        let entries = self.chain.iter().map(|(seq, digest)| (entry_name(*seq), digest.clone()));
        entries.chain(self.manifests.iter().map(|(id, digest)| (manifest_name(id), digest.clone())))
    }

    /// What to say of entries that are missing or damaged and that nobody said he knows of.
    pub fn damage(&self) -> Option<Error> {
        let open: Vec<String> = self.broken.iter().filter(|b| !b.accepted).map(Broken::describe).collect();
        (!open.is_empty()).then(|| {
            Error::check(format!("the catalog is damaged: {}", open.join("; ")))
                .why("what stood there is not known: a backup may be missing here, or be listed although it was given up")
                .hint("Put the files of the folder `catalog` back from a copy of the repository.")
                .hint("If there is none: breakglass backup verify --accept-catalog writes down that they are lost, and goes on.")
        })
    }

    /// One sentence for each file that lies among the entries and is none.
    pub fn stray_lines(&self) -> Vec<String> {
        let one = |name: &String| {
            format!(
                "{name:?} is no entry of the catalog and was passed over; whoever put it there (a tool that synchronises folders?) should \
                 keep out of the repository, and it can be removed"
            )
        };
        self.strays.iter().map(one).collect()
    }

    /// That nothing is missing from the chain: before anything is written on its word.
    ///
    /// # Errors
    /// Refused, with [`Catalog::damage`].
    pub fn unbroken(&self) -> Result<()> {
        match self.damage() {
            Some(e) => Err(Error { kind: ErrorKind::Refused, ..e }),
            None => Ok(()),
        }
    }

    /// Names and reasons of the entries that are missing, damaged or not given by the medium, and that nobody accepted. `None` when
    /// one that is whole does not follow the one before: no damage does that.
    pub(super) fn lacking(&self) -> Option<Vec<(String, String)>> {
        let mut names = Vec::new();
        for b in self.broken.iter().filter(|b| !b.accepted) {
            if self.chain.contains_key(&b.first) {
                return None;
            }
            // A stretch can be long: it goes by its first.
            names.push((entry_name(b.first), if b.first == b.last { b.why.clone() } else { b.describe() }));
        }
        Some(names)
    }

    /// Digest of an entry, if it could be read.
    pub(super) fn digest(&self, seq: u64) -> Option<&str> {
        self.chain.get(&seq).map(String::as_str)
    }

    /// The manifest of a backup that was given up here, as another place has it.
    ///
    /// # Errors
    /// Check when that is missing, damaged or another one; the place cannot be read.
    pub(super) fn manifest_of_given_up(&self, place: &Unlocked, id: &str) -> Result<Manifest> {
        manifest::read(place, id, self.given_up.get(id).and_then(|g| g.manifest.as_deref()))
    }

    /// One sentence for each backup whose manifest is missing or damaged.
    pub fn lost_lines(&self) -> Vec<String> {
        self.lost.iter().map(|l| format!("{}  DAMAGED: {}", l.backup, l.why)).collect()
    }

    /// The backup of this id.
    ///
    /// # Errors
    /// A usage failure that lists what there is.
    pub fn find(&self, id: &str) -> Result<&Backup> {
        if let Some(lost) = self.lost.iter().find(|l| l.backup == id) {
            return Err(Error::check(format!("backup {id:?} is damaged"))
                .why(&lost.why)
                .hint("Put its manifest back from a copy of the repository, or take another backup.")
                .hint(format!("If there is no other: breakglass backup cleanup --give-up {id} gives it up.")));
        }
        self.backups.iter().find(|b| b.manifest.id == id).ok_or_else(|| {
            let ids: Vec<&str> = self.backups.iter().map(|b| b.manifest.id.as_str()).collect();
            Error::usage(format!("no backup {id:?} in the catalog")).hint(if ids.is_empty() {
                "The catalog is empty.".to_string()
            } else {
                format!("There are: {}", ids.join(", "))
            })
        })
    }

    /// Whether the chain goes through a head that was kept elsewhere; `false` means that it was cut or rewritten.
    pub fn holds(&self, head: &Head) -> bool {
        match head.seq {
            0 => head.sha256 == NONE,
            n => self.chain.get(&n).map_or(NONE, String::as_str) == head.sha256,
        }
    }
}

/// Reads something for each item, several at once where that is quicker; in their order, or the first failure.
fn read_all<I: Sync, T: Send>(
    unlocked: &Unlocked,
    items: &[I],
    read: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = unlocked.repository().store().at_once().min(items.len());
    if threads < 2 {
        return items.iter().map(read).collect();
    }
    let share = items.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let read = &read;
        let parts: Vec<_> = items
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(read).collect::<Result<Vec<T>>>()))
            .collect();
        let mut all = Vec::with_capacity(items.len());
        for part in parts {
            all.extend(part.join().unwrap_or_else(|_| Err(Error::state("a thread that read the catalog broke")))?);
        }
        Ok(all)
    })
}

/// Damage as a value: it concerns one document, every other failure concerns the repository.
fn or_damage<T>(read: Result<T>) -> Result<std::result::Result<T, Error>> {
    match read {
        Err(e) if damage::is_damage(&e) => Ok(Err(e)),
        Err(e) => Err(e),
        Ok(value) => Ok(Ok(value)),
    }
}
