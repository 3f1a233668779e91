//! The catalog: which backups there are, as a chain of entries that only a holder of the repository's secret can write.
//!
//! Each entry names the digest of the one before, so none can be changed, removed from the middle or reordered unseen.
//! What a chain cannot show by itself is a cut tail: keep its [`Head`] elsewhere and compare with [`Catalog::holds`].
//! An entry is stored under the next number only if nobody else took that number; that one step is what makes a backup
//! exist. A crash before it leaves objects that no entry names, and the catalog as it was.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::container::{ObjectType, Summary, hex};
use super::repository::{SUFFIX, Unlocked, now, of_object};
use super::store::Committed;
use crate::error::{Context, Error, Result};
use crate::model::Time;

/// What sort of backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    /// A base backup of a whole cluster.
    Physical,
    /// A dump of a database.
    Logical,
    /// A dump of a database's definitions.
    SchemaOnly,
    /// Files and configuration.
    Files,
}

/// One object of a backup, with what it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Name in the repository.
    pub name: String,
    /// Bytes before compression and encryption.
    pub plain_bytes: u64,
    /// SHA-256 of those.
    pub plain_sha256: String,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// SHA-256 over core, chunks and content tag as stored.
    pub stored_sha256: String,
}

impl Manifest {
    /// Whether a database or cluster comes back whole from it.
    pub fn is_whole(&self) -> bool {
        matches!(self.kind, BackupKind::Physical | BackupKind::Logical) && self.part.is_none()
    }
    /// The record of one of its objects.
    ///
    /// # Errors
    /// A check failure when it has none of that name.
    pub fn object(&self, name: &str) -> Result<&ObjectRecord> {
        self.objects
            .iter()
            .find(|o| o.name == name)
            .ok_or_else(|| Error::check(format!("backup {:?} has no object {name:?}", self.id)))
    }
    /// Plain bytes of all its objects.
    pub fn plain_bytes(&self) -> u64 {
        self.objects.iter().map(|o| o.plain_bytes).sum()
    }
    /// Bytes of all its objects as stored.
    pub fn stored_bytes(&self) -> u64 {
        self.objects.iter().map(|o| o.stored_bytes).sum()
    }
}

impl BackupKind {
    /// The word for it in ids and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
            Self::SchemaOnly => "schema",
            Self::Files => "files",
        }
    }
    /// What its objects are.
    pub fn object_type(self) -> ObjectType {
        match self {
            Self::Physical => ObjectType::BaseBackup,
            Self::Logical | Self::SchemaOnly => ObjectType::LogicalDump,
            Self::Files => ObjectType::Files,
        }
    }
}

impl ObjectRecord {
    /// The record of an object just written.
    pub fn new(name: &str, summary: &Summary) -> Self {
        Self {
            name: name.into(),
            plain_bytes: summary.plain_len,
            plain_sha256: hex(&summary.plain_sha256),
            stored_bytes: summary.stored_len,
            stored_sha256: hex(&summary.stored_sha256),
        }
    }
    /// Checks an object that was read whole.
    pub fn check(&self, summary: &Summary) -> Result<()> {
        let now = Self { stored_bytes: self.stored_bytes, ..Self::new(&self.name, summary) };
        // A re-wrap of the keys changes the stored length and nothing else.
        if now == *self {
            return Ok(());
        }
        Err(Error::check(format!("object {:?} is not the one its manifest names", self.name))
            .why("an object of another time or backup was put in its place"))
    }
}

/// What a backup is and consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this document: 1.
    pub version: u32,
    /// Such as `20261120T1330Z-physical-7f3a`.
    pub id: String,
    /// What sort.
    pub kind: BackupKind,
    /// What its maker called it.
    #[serde(default)]
    pub label: Option<String>,
    /// System identifier of the cluster, as text.
    #[serde(default)]
    pub system_identifier: Option<String>,
    /// PostgreSQL's version, such as `15` or `15.14`.
    #[serde(default)]
    pub postgres_version: Option<String>,
    /// Timeline it was taken on.
    #[serde(default)]
    pub timeline: Option<u32>,
    /// First log position recovery needs.
    #[serde(default)]
    pub start_lsn: Option<String>,
    /// Log position from which it is consistent.
    #[serde(default)]
    pub stop_lsn: Option<String>,
    /// Bytes per WAL segment of the cluster.
    #[serde(default)]
    pub wal_segment_size: Option<u32>,
    /// Name of the database, of a dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Version of the `pg_dump` that made it: `pg_restore` must not be older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump_version: Option<String>,
    /// What of the database alone has rows in it, such as `tier critical`; none when it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// When it was begun.
    pub started_at: Time,
    /// When its last byte was stored.
    pub finished_at: Time,
    /// What it consists of.
    pub objects: Vec<ObjectRecord>,
}

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
    /// A backup is given up; its objects may go.
    Removed {
        /// Its id.
        backup: String,
        /// Why.
        reason: String,
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
    /// When every byte was last read and found right.
    #[serde(default)]
    pub verified_at: Option<Time>,
    /// How it was verified then.
    #[serde(default)]
    pub verified_how: Option<String>,
    /// When it was last restored and found right: proof that it can be.
    #[serde(default)]
    pub proven_at: Option<Time>,
}

/// The catalog as read: every entry authenticated, the chain checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// Oldest first.
    pub backups: Vec<Backup>,
    /// Where the chain ends.
    pub head: Head,
    /// Ids of backups that were given up.
    pub removed: BTreeSet<String>,
    chain: Vec<String>,
}

/// A backup while the chain is read: its entry's number, its manifest's digest, when and how it was last verified, and when it
/// was last restored.
type Live = (u64, String, Option<(Time, String)>, Option<Time>);

/// How a backup was verified when it was restored and looked at ([`Change::Verified`]).
pub const RESTORED: &str = "restored";

const FOLDER: &str = "catalog/";
const MAX_DOCUMENT: u64 = 64 << 20;
const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn entry_name(seq: u64) -> String {
    format!("{FOLDER}{seq:08}{SUFFIX}")
}

/// Name of a backup's manifest in the repository.
pub fn manifest_name(backup: &str) -> String {
    format!("backups/{backup}/manifest{SUFFIX}")
}

impl Catalog {
    /// Reads and checks the whole chain and the manifests of the backups that are in it.
    ///
    /// # Errors
    /// A check failure when an entry is missing, changed, out of its chain, or not written by a holder of the secret.
    pub fn load(unlocked: &Unlocked) -> Result<Self> {
        let names: Vec<String> = unlocked.repository().store().list(FOLDER)?.into_iter().map(|e| e.name).collect();
        let mut chain = Vec::new();
        let mut live: BTreeMap<String, Live> = BTreeMap::new();
        let mut removed = BTreeSet::new();
        for (i, name) in names.iter().enumerate() {
            let seq = i as u64 + 1;
            if *name != entry_name(seq) {
                return Err(Error::check(format!("catalog entry {seq} is missing")).why(format!("{name:?} is there")));
            }
        }
        let read = read_all(unlocked, &names, |name| {
            unlocked
                .read_own(ObjectType::CatalogEntry, name, MAX_DOCUMENT)?
                .ok_or_else(|| Error::target(format!("{name:?} vanished while the catalog was read")))
        })?;
        for (i, (bytes, summary)) in read.into_iter().enumerate() {
            let seq = i as u64 + 1;
            let entry: Entry = serde_json::from_slice(&bytes)
                .map_err(|e| Error::check(format!("catalog entry {seq} cannot be understood")).why(e))?;
            let prev = chain.last().map_or(NONE, String::as_str);
            if entry.version != 1 || entry.seq != seq || entry.prev != prev {
                return Err(Error::check(format!("catalog entry {seq} does not follow entry {}", seq - 1))
                    .why("an entry was replaced, or the chain was put together from two"));
            }
            match entry.change {
                Change::Added { backup, manifest_sha256 } => {
                    live.insert(backup, (seq, manifest_sha256, None, None));
                }
                Change::Verified { backup, how } => {
                    if let Some(b) = live.get_mut(&backup) {
                        if how == RESTORED {
                            b.3 = Some(entry.at);
                        }
                        b.2 = Some((entry.at, how));
                    }
                }
                Change::Removed { backup, .. } => {
                    live.remove(&backup);
                    removed.insert(backup);
                }
            }
            chain.push(hex(&summary.stored_sha256));
        }
        let live: Vec<(String, Live)> = live.into_iter().collect();
        let manifests = read_all(unlocked, &live, |(id, (_, digest, ..))| read_manifest(unlocked, id, digest))?;
        let mut backups = Vec::with_capacity(live.len());
        for ((_, (seq, _, verified, proven_at)), manifest) in live.into_iter().zip(manifests) {
            let (verified_at, verified_how) = verified.unzip();
            backups.push((seq, Backup { manifest, verified_at, verified_how, proven_at }));
        }
        backups.sort_by_key(|(seq, _)| *seq);
        let head = Head { seq: chain.len() as u64, sha256: chain.last().cloned().unwrap_or_else(|| NONE.to_string()) };
        Ok(Self { backups: backups.into_iter().map(|(_, b)| b).collect(), head, removed, chain })
    }

    /// The backup of this id.
    ///
    /// # Errors
    /// A usage failure that lists what there is.
    pub fn find(&self, id: &str) -> Result<&Backup> {
        self.backups.iter().find(|b| b.manifest.id == id).ok_or_else(|| {
            let ids: Vec<&str> = self.backups.iter().map(|b| b.manifest.id.as_str()).collect();
            Error::usage(format!("no backup {id:?} in the catalog")).hint(if ids.is_empty() {
                "The catalog is empty.".to_string()
            } else {
                format!("There are: {}", ids.join(", "))
            })
        })
    }

    /// The backup that was restored and found right last, and when.
    pub fn last_proven(&self) -> Option<(&Backup, Time)> {
        self.backups.iter().filter_map(|b| Some((b, b.proven_at?))).max_by_key(|(_, at)| *at)
    }

    /// The newest backup that holds a whole database or cluster and was verified; where there is none of a database at all, of
    /// files.
    pub fn newest_verified(&self) -> Option<&Backup> {
        let files_only = self.backups.iter().all(|b| b.manifest.kind == BackupKind::Files);
        let counts = |b: &&Backup| b.verified_at.is_some() && (files_only || b.manifest.is_whole());
        self.backups.iter().filter(counts).max_by_key(|b| b.manifest.finished_at)
    }

    /// The newest backup of a kind.
    pub fn newest(&self, kind: BackupKind) -> Option<&Backup> {
        self.backups.iter().rev().find(|b| b.manifest.kind == kind)
    }

    /// Whether the chain goes through a head that was kept elsewhere; `false` means that it was cut or rewritten.
    pub fn holds(&self, head: &Head) -> bool {
        match usize::try_from(head.seq) {
            Ok(0) => head.sha256 == NONE,
            Ok(n) => self.chain.get(n - 1) == Some(&head.sha256),
            Err(_) => false,
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

fn read_manifest(unlocked: &Unlocked, id: &str, digest: &str) -> Result<Manifest> {
    let name = manifest_name(id);
    let (bytes, summary) = unlocked
        .read_own(ObjectType::Manifest, &name, MAX_DOCUMENT)?
        .ok_or_else(|| Error::check(format!("the manifest of backup {id:?} is missing")).why(&name))?;
    if hex(&summary.stored_sha256) != digest {
        return Err(Error::check(format!("the manifest of backup {id:?} is not the one the catalog names")));
    }
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|e| of_object(Error::check("cannot be understood").why(e), &name))?;
    if manifest.version != 1 || manifest.id != id {
        return Err(Error::check(format!("{name:?} is the manifest of {:?}", manifest.id)));
    }
    Ok(manifest)
}

/// Stores a finished backup's manifest and then its entry. Before this returns the backup does not exist; after, it does.
pub fn add(unlocked: &Unlocked, manifest: &Manifest) -> Result<Head> {
    let name = manifest_name(&manifest.id);
    let bytes = serde_json::to_vec(manifest).state(|| "writing a manifest".into())?;
    let (committed, summary) = unlocked.write_own(ObjectType::Manifest, &name, &bytes)?;
    if committed == Committed::Kept {
        return Err(Error::refused(format!("adding backup {:?}", manifest.id)).why("a backup of this id exists"));
    }
    append(unlocked, &Change::Added { backup: manifest.id.clone(), manifest_sha256: hex(&summary.stored_sha256) })
}

/// Appends an entry. When somebody else appends at the same time, the chain is read again and the next number tried.
pub fn append(unlocked: &Unlocked, change: &Change) -> Result<Head> {
    for _ in 0..100 {
        let catalog = Catalog::load(unlocked)?;
        // What follows another place has no word of its own.
        if matches!(change, Change::Verified { .. }) && unlocked.repository().is_copy()? {
            return Ok(catalog.head);
        }
        if let Change::Verified { backup, .. } | Change::Removed { backup, .. } = change {
            catalog.find(backup)?;
        }
        let seq = catalog.head.seq + 1;
        let entry = Entry { version: 1, seq, prev: catalog.head.sha256, at: now(), change: change.clone() };
        let bytes = serde_json::to_vec(&entry).state(|| "writing a catalog entry".into())?;
        let (committed, summary) = unlocked.write_own(ObjectType::CatalogEntry, &entry_name(seq), &bytes)?;
        if committed == Committed::Stored {
            return Ok(Head { seq, sha256: hex(&summary.stored_sha256) });
        }
    }
    Err(Error::target("the catalog is being written by others without a pause").hint("Try again."))
}
