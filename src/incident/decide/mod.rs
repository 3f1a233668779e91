//! What is allowed, and what then has happened. One file per command family; nothing else says no.

mod breach;
mod failover;
mod incident;
mod people;
mod run;
mod step;

use std::fmt;
use std::time::Duration;

use crate::model::event::Event;
use crate::model::{Actor, Scenario};

use super::{Command, Now, State};

/// Limits that come from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A `destroy` needs a verified backup younger than this.
    pub backup_max_age: Duration,
    /// A preview (identity seen) older than this must be repeated.
    pub preview_max_age: Duration,
    /// `destroy` needs another person's approval.
    pub second_person: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            backup_max_age: Duration::from_secs(24 * 3600),
            preview_max_age: Duration::from_secs(15 * 60),
            second_person: false,
        }
    }
}

/// What a decision knows besides the state.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The scenario in the incident's plan.json.
    pub scenario: &'a Scenario,
    /// The present.
    pub now: &'a Now,
    /// Who asks.
    pub actor: &'a Actor,
    /// Limits.
    pub policy: &'a Policy,
}

/// Why a command is not allowed, and how to go on anyway if there is a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One sentence: what is refused and why.
    pub why: String,
    /// What to do next, or the override.
    pub hint: String,
    /// The gate that can be waived, if that is the override.
    pub gate: Option<&'static str>,
}

impl Refusal {
    fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { why: why.into(), hint: hint.into(), gate: None }
    }
    fn gate(gate: &'static str, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { why: why.into(), hint: hint.into(), gate: Some(gate) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// Events of one command.
pub type Decision = Result<Vec<Event>, Refusal>;

/// Decides a command. `state` is `None` before the first record.
///
/// An empty list means the command is already true and nothing is to be recorded.
pub fn decide(state: Option<&State>, command: &Command, ctx: Context<'_>) -> Decision {
    let Some(state) = state else {
        return match command {
            Command::Open { .. } => incident::open(command, ctx),
            _ => Err(Refusal::new("This incident has no first record", "open it first")),
        };
    };
    if state.read_only {
        return Err(Refusal::new(
            "The journal holds records of a newer version of breakglass, so it is open read-only",
            "use the newer version to write to it",
        ));
    }
    match command {
        Command::Open { .. } => Err(Refusal::new(format!("Incident {} is already open", state.id), "resume it")),
        Command::StartStep { .. }
        | Command::FinishStep { .. }
        | Command::SkipStep { .. }
        | Command::ReopenStep { .. }
        | Command::Tick { .. } => step::decide(state, command, ctx),
        Command::RequestRun(_)
        | Command::StartRun { .. }
        | Command::FinishRun { .. }
        | Command::WithdrawRun { .. }
        | Command::CancelRun { .. }
        | Command::LoseRun { .. }
        | Command::ResolveRun { .. }
        | Command::Approve { .. } => run::decide(state, command, ctx),
        Command::Tell { .. }
        | Command::Acknowledge { .. }
        | Command::Snooze { .. }
        | Command::Escalate { .. }
        | Command::Answer { .. }
        | Command::Assign { .. }
        | Command::SetCodename { .. }
        | Command::LiftCodename
        | Command::SetLocalOnly { .. }
        | Command::Rotate { .. }
        | Command::TickAfterwards { .. } => people::decide(state, command, ctx),
        _ => incident::decide(state, command, ctx),
    }
}

/// Refuses changes to a closed incident.
fn must_be_open(state: &State) -> Result<(), Refusal> {
    if state.closed.is_some() {
        return Err(Refusal::new(
            format!("Incident {} is closed", state.id),
            "add a note if something must be put right; a note is still possible",
        ));
    }
    Ok(())
}

/// Refuses an empty reason.
fn must_say(text: &str, what: &str) -> Result<(), Refusal> {
    if text.trim().is_empty() { Err(Refusal::new(format!("{what} is empty"), "say it in a few words")) } else { Ok(()) }
}
