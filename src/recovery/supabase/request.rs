//! The record of a restore that was asked for, in the state directory: written and durable before the request leaves, so that
//! whoever comes after a crash follows it and never asks again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::journal::files::{create_dir, write_atomic};
use crate::journal::lock::FileLock;
use crate::model::Time;
use crate::model::target::RecoveryTarget;

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
        self.shorten();
        true
    }

    fn shorten(&mut self) {
        let surplus = self.seen.len().saturating_sub(KEPT);
        self.seen.drain(..surplus);
    }

    /// Takes over what somebody else noted of the same request.
    fn join(&mut self, other: Self) {
        self.seen_restoring |= other.seen_restoring;
        self.seen_away |= other.seen_away;
        let news: Vec<Noted> = other.seen.into_iter().filter(|n| !self.seen.contains(n)).collect();
        self.seen.extend(news);
        self.seen.sort_by_key(|n| n.at);
        self.shorten();
    }

    /// What it means for whoever wants to ask to recover to `target`, which is the second `unix` where that is known already.
    pub fn stands(&self, target: &RecoveryTarget, unix: Option<i64>) -> Stands {
        let same = unix.map_or_else(|| target.to_string() == self.target, |u| u == self.unix);
        match self.stage {
            s if s.is_open() && same => Stands::Followed,
            s if s.is_open() => Stands::InTheWay,
            Stage::Failed => Stands::InTheWay,
            // Done is done: asking for the very same once more is a decision of its own.
            Stage::Restored if same && unix.is_some() => Stands::Followed,
            _ => Stands::Aside,
        }
    }

    /// The command that follows it, as long as something may still be going on.
    pub fn to_follow(&self) -> Option<String> {
        let to = match self.target.as_str() {
            "latest" => "latest".to_string(),
            // Whole seconds, and "before": this leads to the same second, however it was asked for.
            _ => format!("time:{}", self.second().plus(Duration::from_secs(1))),
        };
        self.stage.is_open().then(|| format!("to follow that one: breakglass pitr restore --to {to} --into place"))
    }
}

/// What an earlier request means for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It is the same: that one is followed, nothing is sent.
    Followed,
    /// Nothing is asked, unless a person gives a reason.
    InTheWay,
    /// Nothing.
    Aside,
}

fn form(request: &Request) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(request).state(|| "the record of a request cannot be written".into())
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
        write_atomic(&self.file(), &form(request)?)
    }

    /// Where an earlier record is kept once another takes its place.
    fn aside(&self, old: &Request) -> PathBuf {
        let (stamp, rest) = (old.requested_at.compact(), old.requested_at.micros().rem_euclid(60_000_000));
        self.folder.join(format!("supabase-{}-{stamp}-{rest:08}.json", self.project))
    }

    /// Keeps a copy of an earlier record, whose place another is about to take.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_aside(&self, old: &Request) -> Result<()> {
        write_atomic(&self.aside(old), &form(old)?)
    }

    /// Makes an earlier record the last one again.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_back(&self, old: &Request) -> Result<()> {
        self.save(old)?;
        let _ = std::fs::remove_file(self.aside(old));
        Ok(())
    }

    /// Keeps what was seen of a request, together with what others who follow it noted meanwhile. When the record is about
    /// another request by now, that one is given back and nothing is written. `patience` as for [`Records::lock`].
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn keep(&self, request: &mut Request, patience: Duration) -> Result<Option<Request>> {
        let _held = self.lock(patience)?;
        match self.load()? {
            Some(other) if (other.requested_at, other.unix) != (request.requested_at, request.unix) => {
                return Ok(Some(other));
            }
            Some(same) => request.join(same),
            // Whoever moved it away while it is followed would be asked to ask again: it is written once more.
            None => {}
        }
        self.save(request).map(|()| None)
    }
}
