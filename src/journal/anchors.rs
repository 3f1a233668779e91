//! Heads of journals, kept outside them: `<state>/anchors.jsonl`.
//!
//! A chain of hashes shows every change inside it, but neither a cut tail nor a journal rewritten as a whole. A head
//! written down elsewhere shows both. Copies in exports and in the backup repository serve the same purpose.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::model::{Digest, IncidentId, Seq, Time};

use super::{FileLock, Head, files, lock};

/// Name of the file in the state directory.
pub const ANCHOR_FILE: &str = "anchors.jsonl";

/// A head that was written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Whose head.
    pub incident: IncidentId,
    /// Number of the record.
    pub seq: Seq,
    /// Its hash.
    pub hash: Digest,
    /// When it was written down.
    pub at: Time,
    /// `open`, `close`, `periodic`, `export`, or where the person has it from.
    pub why: String,
}

impl Anchor {
    /// An anchor somebody holds on paper or in an export, in the form `12:4f2a…` (see [`Head`]).
    ///
    /// # Errors
    /// Says what the form is.
    pub fn given(incident: IncidentId, text: &str, at: Time) -> Result<Self, String> {
        let head: Head = text.parse()?;
        Ok(Self { incident, seq: head.seq, hash: head.hash, at, why: "given".into() })
    }
}

/// The anchors of a state directory.
#[derive(Debug, Clone)]
pub struct Anchors {
    path: PathBuf,
}

impl Anchors {
    /// The anchors in this state directory.
    pub fn new(state_dir: impl AsRef<Path>) -> Self {
        Self { path: state_dir.as_ref().join(ANCHOR_FILE) }
    }

    /// The anchors of the state directory an incident's directory is in (`<state>/incidents/<id>`), if it is in one.
    pub fn beside(incident_dir: &Path) -> Option<Self> {
        let dir = incident_dir.canonicalize().ok()?;
        let incidents = dir.parent()?;
        if incidents.file_name()? != "incidents" {
            return None;
        }
        incidents.parent().map(Self::new)
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a head down, durably.
    ///
    /// # Errors
    /// Of kind state: the lock's holder does not let go, or the disk does not take it.
    pub fn write(&self, incident: &IncidentId, head: &Head, at: Time, why: &str) -> Result<()> {
        let what = || format!("cannot write an anchor to {:?}", self.path);
        let anchor = Anchor { incident: incident.clone(), seq: head.seq, hash: head.hash.clone(), at, why: why.into() };
        let mut line = serde_json::to_vec(&anchor).state(what)?;
        line.push(b'\n');
        let _held = FileLock::acquire(self.path.with_extension("lock"), lock::DEADLINE, "writing an anchor")?;
        let (file, created) = files::open_or_create(&self.path).state(what)?;
        let end = file.metadata().state(what)?.len();
        let mut last = [b'\n'];
        if end > 0 {
            file.read_exact_at(&mut last, end - 1).state(what)?;
        }
        if last != [b'\n'] {
            line.insert(0, b'\n'); // leaves a torn line behind on its own
        }
        let written = file.write_all_at(&line, end).and_then(|()| file.sync_all());
        if let Err(e) = written {
            let _ = file.set_len(end);
            return Err(Error::state(what()).why(e));
        }
        if created {
            files::sync_dir(self.path.parent().unwrap_or(Path::new("."))).state(what)?;
        }
        Ok(())
    }

    /// The anchors of one incident in the order they were written. Lines that are no anchors are passed over.
    ///
    /// # Errors
    /// Of kind state, when the file exists and cannot be read.
    pub fn of(&self, incident: &IncidentId) -> Result<Vec<Anchor>> {
        let mut bytes = Vec::new();
        match File::open(&self.path).and_then(|mut f| f.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::state(format!("cannot read the anchors {:?}", self.path)).why(e)),
        }
        Ok(bytes
            .split(|b| *b == b'\n')
            .filter_map(|line| serde_json::from_slice::<Anchor>(line).ok())
            .filter(|a| a.incident == *incident)
            .collect())
    }
}
