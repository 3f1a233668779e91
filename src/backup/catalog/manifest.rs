//! What a backup is and consists of: the document that every backup has, and that the catalog names by its digest.

use serde::{Deserialize, Serialize};

use super::MAX_DOCUMENT;
use crate::backup::container::{ObjectType, Summary, hex};
use crate::backup::repository::{SUFFIX, Unlocked, of_object};
use crate::error::{Error, Result};
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
    /// Tables whose rows were counted when a dump was taken, to be compared after each restore; none when that is not on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// When it was begun.
    pub started_at: Time,
    /// When its last byte was stored.
    pub finished_at: Time,
    /// What it consists of.
    pub objects: Vec<ObjectRecord>,
}

impl Manifest {
    /// Whether a database or cluster comes back whole from it.
    pub fn is_whole(&self) -> bool {
        matches!(self.kind, BackupKind::Physical | BackupKind::Logical) && self.part.is_none()
    }
    /// That a dump holds no table, so that a restore of it has no rows to be compared.
    pub fn without_rows(&self) -> Option<&'static str> {
        let none = self.kind == BackupKind::Logical && self.tables == Some(0);
        none.then_some("no table: no rows to compare")
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

/// Name of a backup's manifest in the repository.
pub fn manifest_name(backup: &str) -> String {
    format!("backups/{backup}/manifest{SUFFIX}")
}

/// Reads the manifest of a backup; of this digest, when one is given.
pub(super) fn read(unlocked: &Unlocked, id: &str, digest: Option<&str>) -> Result<Manifest> {
    let name = manifest_name(id);
    let (bytes, summary) = unlocked
        .read_own(ObjectType::Manifest, &name, MAX_DOCUMENT)?
        .ok_or_else(|| Error::check(format!("the manifest of backup {id:?} is missing")).why(&name))?;
    if digest.is_some_and(|digest| hex(&summary.stored_sha256) != digest) {
        return Err(Error::check(format!("the manifest of backup {id:?} is not the one the catalog names")));
    }
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|e| of_object(Error::check("cannot be understood").why(e), &name))?;
    if manifest.version != 1 || manifest.id != id {
        return Err(Error::check(format!("{name:?} is the manifest of {:?}", manifest.id)));
    }
    Ok(manifest)
}
