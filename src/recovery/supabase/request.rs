//! The record of a restore that was asked for, in the state directory: written and durable before the request leaves, so that
//! whoever comes after a crash follows it and never asks again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::journal::files::{create_dir, write_atomic};
use crate::journal::lock::FileLock;
use crate::model::Time;

/// What was seen is kept up to so many lines.
const KEPT: usize = 1000;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// About to be sent; when nothing more was written, nobody knows whether it was.
    Intended,
    /// It was accepted.
    Accepted,
    /// It was sent, and the answer was lost or says nothing.
    Unclear,
    /// A definite no: nothing was done.
    Declined,
    /// The database was restored, by the evidence.
    Restored,
    /// It said that the restore failed.
    Failed,
    /// A person asked to go on without knowing what became of it.
    GivenUp,
}

impl Stage {
    /// Whether something may still be going on.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Intended | Self::Accepted | Self::Unclear)
    }
}

/// What was seen of the database itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Glimpse {
    /// When its server was started, in its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Its timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// Time of the newest row, by the configured query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Time>,
}

/// Something that was seen, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// When.
    pub at: Time,
    /// What.
    pub what: String,
}

/// A restore that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Version of this form.
    pub v: u32,
    /// The project.
    pub project_ref: String,
    /// The target as a person gave it.
    pub target: String,
    /// The second that was asked for; everything committed later is gone.
    pub unix: i64,
    /// When it was asked for.
    pub requested_at: Time,
    /// How far it is.
    pub stage: Stage,
    /// What was seen before.
    pub before: Glimpse,
    /// Its status was seen to be RESTORING since.
    #[serde(default)]
    pub seen_restoring: bool,
    /// Its status was seen to be another than healthy since.
    #[serde(default)]
    pub seen_away: bool,
    /// The answer, and what was seen since, oldest first.
    #[serde(default)]
    pub seen: Vec<Noted>,
    /// When it was restored, by the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<Time>,
    /// What that rests on, or why it is not so.
    #[serde(default)]
    pub verdict: Vec<String>,
}

impl Request {
    /// The second that was asked for.
    pub fn second(&self) -> Time {
        Time::from_micros(self.unix.saturating_mul(1_000_000))
    }

    /// Notes what was seen, unless it was the last thing seen.
    pub fn note(&mut self, at: Time, what: impl Into<String>) -> bool {
        let what = what.into();
        if self.seen.last().is_some_and(|n| n.what == what) {
            return false;
        }
        self.seen.push(Noted { at, what });
        let surplus = self.seen.len().saturating_sub(KEPT);
        self.seen.drain(..surplus);
        true
    }
}

/// The place of a project's record.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
    project: String,
}

impl Records {
    /// In this folder.
    pub fn new(folder: &Path, project: &str) -> Self {
        Self { folder: folder.to_path_buf(), project: project.to_string() }
    }

    /// The record's file.
    pub fn file(&self) -> PathBuf {
        self.folder.join(format!("supabase-{}.json", self.project))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps everybody else from asking, from looking at the record to writing the answer. `patience` is how long another may.
    ///
    /// # Errors
    /// Another process holds it, who is named; or the folder cannot be made.
    pub fn lock(&self, patience: Duration) -> Result<FileLock> {
        create_dir(&self.folder)?;
        FileLock::acquire(
            self.folder.join(format!("supabase-{}.lock", self.project)),
            patience,
            "asking Supabase for a restore",
        )
    }

    /// What was asked for last; none when nothing was.
    ///
    /// # Errors
    /// There is a record and it cannot be read: then nobody knows whether a restore is going on.
    pub fn load(&self) -> Result<Option<Request>> {
        let file = self.file();
        let what = || format!("the record of an earlier request, {:?}, cannot be read", file.display());
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::state(what()).why(e)),
        };
        let known: Request = serde_json::from_slice(&text).map_err(|e| {
            Error::state(what())
                .why(e)
                .hint("look in Supabase's dashboard whether a restore is going on; when none is, move that file away")
        })?;
        match known.v {
            1 => Ok(Some(known)),
            v => Err(Error::refused(what()).why(format!("it has form {v}, of a newer program"))),
        }
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, request: &Request) -> Result<()> {
        create_dir(&self.folder)?;
        let text = serde_json::to_vec_pretty(request).state(|| "the record of a request cannot be written".into())?;
        write_atomic(&self.file(), &text)
    }

    /// Moves an earlier record out of the way; it is kept.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn set_aside(&self, old: &Request) -> Result<()> {
        let stamp = old.requested_at.compact();
        let kept = self.folder.join(format!("supabase-{}-{stamp}.json", self.project));
        std::fs::rename(self.file(), &kept)
            .and_then(|()| crate::journal::files::sync_dir(&self.folder))
            .state(|| format!("the record of the earlier request cannot be kept as {:?}", kept.display()))
    }
}
