//! How a long recovery tells how far it is, and is told to stop.

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// How far one phase is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Phase {
    /// `files`, `replay`, `tables`, ….
    pub name: &'static str,
    /// Done so far, in `unit`.
    pub done: u64,
    /// In all, when known.
    pub total: Option<u64>,
    /// `bytes`, `ms` (of replayed time), `rows`, ….
    pub unit: &'static str,
    /// For people.
    pub text: String,
    /// Per second, when measured.
    pub rate: Option<u64>,
    /// Milliseconds until this phase is done, when known.
    pub eta_ms: Option<u64>,
}

/// Whoever follows a recovery.
pub trait Watch: Send + Sync {
    /// One line for people.
    fn line(&self, text: &str);
    /// How far it is. Called often.
    fn phase(&self, phase: &Phase);
}

/// Nobody follows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn line(&self, _: &str) {}
    fn phase(&self, _: &Phase) {}
}

/// An error when somebody asked to stop. `what` says what is then not done.
///
/// # Errors
/// Interrupted.
pub fn check_cancel(cancel: &CancellationToken, what: &str) -> Result<()> {
    if cancel.is_cancelled() { Err(Error::interrupted(format!("stopped on request: {what}"))) } else { Ok(()) }
}
