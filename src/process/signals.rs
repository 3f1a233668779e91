//! Signals that ask this process to end, as values for a tokio loop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Context, Result};

/// A request to end, as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: the system or a person with `kill`.
    Terminate,
    /// SIGINT: Ctrl-C outside raw mode.
    Interrupt,
    /// SIGHUP: the terminal is gone.
    Hangup,
}

impl Stop {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }
    /// The exit code a shell would report for it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Hangup => 129,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Listens for TERM, INT and HUP; from its creation on they no longer end the process by themselves.
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Starts listening. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// State when the system refuses a handler.
    pub fn listen() -> Result<Self> {
        let on = |kind: SignalKind| signal(kind).state(|| "cannot listen for signals".into());
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            hup: on(SignalKind::hangup())?,
        })
    }

    /// The next request to end. Cancel-safe.
    pub async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.term.recv() => Stop::Terminate,
            _ = self.int.recv() => Stop::Interrupt,
            _ = self.hup.recv() => Stop::Hangup,
        }
    }
}
