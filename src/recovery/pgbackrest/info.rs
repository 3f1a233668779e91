//! What `pgbackrest info --output=json` says of a stanza.

use serde::Deserialize;

use super::Installation;
use crate::backup::catalog::{BackupKind, Manifest, ObjectRecord};
use crate::error::{Context, Error, Result};
use crate::model::{CleanText, Time};
use crate::postgres::Lsn;

/// A stanza. Members that are not needed are not read.
#[derive(Debug, Clone, Deserialize)]
pub struct Stanza {
    name: String,
    #[serde(default)]
    archive: Vec<ArchiveRange>,
    #[serde(default)]
    backup: Vec<Backup>,
    #[serde(default)]
    db: Vec<Db>,
    #[serde(default)]
    repo: Vec<Repo>,
    status: Status,
}

#[derive(Debug, Clone, Deserialize)]
struct Status {
    code: i64,
    message: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Repo {
    status: Status,
}

#[derive(Debug, Clone, Deserialize)]
struct Db {
    id: u64,
    #[serde(rename = "system-id")]
    system_id: u64,
    version: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Of {
    id: u64,
}

/// The log of one installation of the cluster, by its first and last segment.
#[derive(Debug, Clone, Deserialize)]
pub struct ArchiveRange {
    database: Of,
    id: String,
    min: Option<String>,
    max: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Pair {
    start: String,
    stop: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Seconds {
    start: i64,
    stop: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct Sizes {
    size: u64,
    #[serde(default)]
    repository: Stored,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Stored {
    /// Not given for every kind of repository.
    #[serde(default)]
    size: Option<u64>,
}

/// A backup.
#[derive(Debug, Clone, Deserialize)]
pub struct Backup {
    label: String,
    #[serde(rename = "type")]
    kind: String,
    /// Pages of it were damaged when it was taken.
    #[serde(default)]
    error: Option<bool>,
    database: Of,
    archive: Option<Pair>,
    lsn: Option<Pair>,
    timestamp: Seconds,
    info: Sizes,
}

/// Status codes of a stanza with which there is something to read: all well, and no backup yet.
const READABLE: [i64; 2] = [0, 2];

impl Stanza {
    /// Asks for it.
    ///
    /// # Errors
    /// Config: it has no such stanza; target: the repository cannot be read. Both end with exit code 0 there.
    pub(super) fn read(it: &Installation) -> Result<Self> {
        let repo = format!("--repo={}", it.repo);
        let out = it.ask(&["info", "--output=json", &repo])?;
        // With a wrong passphrase it quotes what it could not read, as it is.
        let text = String::from_utf8_lossy(&out).replace(char::is_control, " ");
        let all: Vec<Self> =
            serde_json::from_str(&text).target(|| "what pgbackrest info says cannot be understood".to_string())?;
        let missing = |why: &str| {
            Error::config(format!("pgBackRest has no stanza {:?}", it.stanza))
                .why(CleanText::line(why.as_bytes()))
                .hint("put pgbackrest.stanza right in breakglass.toml; pgbackrest info lists them")
        };
        let stanza = all.into_iter().find(|s| s.name == it.stanza).ok_or_else(|| missing("it does not list it"))?;
        let why = stanza.repo.iter().find(|r| r.status.code != 0).map_or(&stanza.status.message, |r| &r.status.message);
        match stanza.status.code {
            code if READABLE.contains(&code) => Ok(stanza),
            1 | 3 => Err(missing(why)),
            _ => Err(Error::target(format!("the repository of stanza {:?} cannot be read", it.stanza))
                .why(CleanText::line(why.as_bytes()))
                .hint("look at it as the user PostgreSQL runs as: pgbackrest info, pgbackrest check")),
        }
    }

    /// The cluster's, of its newest incarnation.
    pub(super) fn system_identifier(&self) -> Option<String> {
        self.newest().map(|d| d.system_id.to_string())
    }

    fn newest(&self) -> Option<&Db> {
        self.db.iter().max_by_key(|d| d.id)
    }

    /// Backups of the newest incarnation, oldest first.
    pub(super) fn backups(&self) -> impl Iterator<Item = &Backup> {
        let id = self.newest().map(|d| d.id);
        self.backup.iter().filter(move |b| Some(b.database.id) == id)
    }

    /// Folder of the log of the newest incarnation.
    pub(super) fn archive_id(&self) -> Option<&str> {
        let id = self.newest()?.id;
        self.archive.iter().find(|a| a.database.id == id).map(|a| a.id.as_str())
    }

    /// Last segment by its own word.
    pub(super) fn last_segment(&self) -> Option<&str> {
        let id = self.newest()?.id;
        self.archive.iter().find(|a| a.database.id == id && a.min.is_some())?.max.as_deref()
    }

    /// Bytes per segment: not told, but a backup's first segment and position fit one size only.
    pub(super) fn segment_bytes(&self) -> Option<u32> {
        let b = self.backups().find(|b| b.archive.is_some() && b.lsn.is_some())?;
        let (name, lsn) = (&b.archive.as_ref()?.start, &b.lsn.as_ref()?.start);
        let lsn: Lsn = lsn.parse().ok()?;
        (20..=30).map(|n| 1u32 << n).find(|size| {
            Lsn::of_segment(name, u64::from(*size)).is_some_and(|(_, at)| {
                lsn.0 >= at.0 && lsn.0 - at.0 < u64::from(*size) && lsn.segment(1, u64::from(*size))[8..] == name[8..]
            })
        })
    }

    /// The backups in the form everything else works with.
    pub(super) fn manifests(&self, segment_bytes: u32) -> Vec<Manifest> {
        let db = self.newest();
        self.backups().filter_map(|b| b.manifest(db, segment_bytes)).collect()
    }
}

impl Backup {
    fn manifest(&self, db: Option<&Db>, segment_bytes: u32) -> Option<Manifest> {
        let (archive, lsn) = (self.archive.as_ref()?, self.lsn.as_ref()?);
        let seconds = |s: i64| Time::from_micros(s.saturating_mul(1_000_000));
        Some(Manifest {
            version: 1,
            id: self.label.clone(),
            kind: BackupKind::Physical,
            label: Some(self.kind.clone()),
            system_identifier: db.map(|d| d.system_id.to_string()),
            postgres_version: db.map(|d| d.version.clone()),
            timeline: u32::from_str_radix(archive.start.get(..8)?, 16).ok(),
            start_lsn: Some(lsn.start.clone()),
            stop_lsn: Some(lsn.stop.clone()),
            wal_segment_size: Some(segment_bytes),
            database: None,
            part: None,
            tables: None,
            dump_version: None,
            started_at: seconds(self.timestamp.start),
            // Told in whole seconds, cut off: before the next one begins it is complete.
            finished_at: seconds(self.timestamp.stop.saturating_add(1)),
            objects: vec![ObjectRecord {
                name: self.label.clone(),
                plain_bytes: self.info.size,
                plain_sha256: String::new(),
                stored_bytes: self.info.repository.size.unwrap_or_default(),
                stored_sha256: String::new(),
            }],
        })
    }

    /// Its name.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Whether pages of it were damaged when it was taken.
    pub(super) fn has_damaged_pages(&self) -> bool {
        self.error == Some(true)
    }

    /// First and last segment it needs to become consistent.
    pub(super) fn log(&self) -> Option<(&str, &str)> {
        self.archive.as_ref().map(|a| (a.start.as_str(), a.stop.as_str()))
    }

    pub(super) fn describe(&self) -> String {
        let at = Time::from_micros(self.timestamp.stop.saturating_mul(1_000_000));
        let log = self.lsn.as_ref().map_or_else(String::new, |l| format!(", {} to {}", l.start, l.stop));
        let bad = if self.has_damaged_pages() { ", DAMAGED PAGES when it was taken" } else { "" };
        let stored = self.info.repository.size.map_or_else(String::new, |s| format!(" in {} MB", s / 1_000_000));
        let (size, kind) = (self.info.size / 1_000_000, &self.kind);
        CleanText::line(format!("{}  {kind}, {size} MB{stored}{log}, complete at {at}{bad}", self.label).as_bytes())
            .to_string()
    }

    pub(super) fn document(&self) -> serde_json::Value {
        let at = |s: i64| Time::from_micros(s.saturating_mul(1_000_000));
        serde_json::json!({
            "id": self.label, "type": self.kind, "started_at": at(self.timestamp.start),
            "finished_at": at(self.timestamp.stop), "bytes": self.info.size, "stored_bytes": self.info.repository.size,
            "start_lsn": self.lsn.as_ref().map(|l| &l.start), "stop_lsn": self.lsn.as_ref().map(|l| &l.stop),
            "first_segment": self.archive.as_ref().map(|a| &a.start),
            "last_segment": self.archive.as_ref().map(|a| &a.stop), "damaged_pages": self.has_damaged_pages(),
        })
    }
}
