//! The one door: every change of an incident is a command that is decided on the state at the head and appended to it.

use std::fmt;

use super::Incident;
use crate::action::carried::Carried;
use crate::error::Error;
use crate::incident::{Command, Context, Refusal, decide};
use crate::journal::{Append, Draft, Journal};
use crate::model::{Record, RunId, Seq, Time};

/// How often a command is decided anew because somebody else wrote first. Every conflict means that another writer got
/// through, so reaching this takes a writer that floods the journal.
const MAX_CONFLICTS: usize = 1000;

/// A command that was accepted.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The durable record; none when the command was already true and nothing had to be recorded.
    pub record: Option<Record>,
    /// The journal's head afterwards.
    pub seq: Seq,
}

impl Submitted {
    /// The run that was requested, for a request.
    pub fn run(&self) -> Option<RunId> {
        self.record.as_ref().map(|r| RunId(r.seq.0))
    }
}

/// Why a command was not recorded.
#[derive(Debug, Clone)]
pub enum SubmitError {
    /// It is not allowed; says how to go on.
    Refused(Refusal),
    /// The journal failed.
    Failed(Error),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(r) => r.fmt(f),
            Self::Failed(e) => e.fmt(f),
        }
    }
}

impl From<SubmitError> for Error {
    fn from(e: SubmitError) -> Self {
        match e {
            SubmitError::Refused(r) if r.hint.is_empty() => Error::refused(r.why),
            SubmitError::Refused(r) => Error::refused(r.why).hint(r.hint),
            SubmitError::Failed(e) => e,
        }
    }
}

impl From<Error> for SubmitError {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

impl Incident {
    /// Submits a command as happening now.
    ///
    /// # Errors
    /// Refused, or the journal failed (then nothing was acknowledged; the next look shows what is there).
    pub fn submit(&mut self, command: Command) -> Result<Submitted, SubmitError> {
        self.submit_at(command, None)
    }

    /// Submits a command that happened at the time stated (a back-dated note); none for now.
    ///
    /// # Errors
    /// As [`Incident::submit`].
    pub fn submit_at(&mut self, command: Command, occurred_at: Option<Time>) -> Result<Submitted, SubmitError> {
        self.refresh()?;
        for _ in 0..MAX_CONFLICTS {
            let now = self.now();
            let context = Context { scenario: &self.scenario, now: &now, actor: &self.actor, policy: &self.policy };
            let events = decide(self.state.as_deref(), &command, context).map_err(SubmitError::Refused)?;
            if events.is_empty() {
                return Ok(Submitted { record: None, seq: self.head.seq });
            }
            let draft = Draft { command: command.name().to_string(), occurred_at, actor: self.actor.clone(), events };
            match self.journal.append_if(&self.head, draft)? {
                Append::Appended(record) => {
                    self.take(record.clone());
                    self.follow_plan();
                    if matches!(command, Command::Close { .. }) {
                        // What blocks exported may hold secrets; it has served its purpose.
                        Carried::forget(&self.dir);
                    }
                    return Ok(Submitted { seq: record.seq, record: Some(record) });
                }
                Append::Conflict(_) => {
                    self.refresh()?;
                }
            }
        }
        Err(SubmitError::Failed(Error::state("the journal is written so fast by others that a command found no place")))
    }
}
