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

impl Phase {
    /// A phase measured in bytes, with its rate and the time left.
    pub fn bytes(name: &'static str, done: u64, total: Option<u64>, begun: std::time::Instant) -> Self {
        let mut phase = Self::counted(name, done, total.unwrap_or(0), "bytes", "", begun);
        phase.total = total;
        phase.text = match phase.rate {
            Some(r) => format!("{:.1} MB, {:.0} MB/s", done as f64 / 1e6, r as f64 / 1e6),
            None => format!("{:.1} MB", done as f64 / 1e6),
        };
        phase
    }

    /// A phase of which `done` of `total` are done.
    pub fn counted(
        name: &'static str,
        done: u64,
        total: u64,
        unit: &'static str,
        text: &str,
        begun: std::time::Instant,
    ) -> Self {
        let seconds = begun.elapsed().as_secs_f64();
        let rate = if seconds > 0.2 { Some((done as f64 / seconds) as u64) } else { None };
        let eta_ms = match rate {
            Some(_) if done > 0 && total > 0 => {
                Some((seconds * 1000.0 * total.saturating_sub(done) as f64 / done as f64) as u64)
            }
            _ => None,
        };
        Self { name, done, total: Some(total), unit, text: text.to_string(), rate, eta_ms }
    }
}
