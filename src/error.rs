//! The one error type: what failed, why, and what to do next. Its kind decides the exit code.
//!
//! `model` and `incident` do not use it: they are pure and return their own small types.

use std::fmt;

/// What sort of failure this is; the process exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The thing that was checked is not as it should be: verification failed, objective missed.
    Check,
    /// The command line, an environment variable or a plan cannot be used as given.
    Usage,
    /// The configuration file cannot be used as given.
    Config,
    /// A database, service, repository or program failed or cannot be reached.
    Target,
    /// Our own state directory or an internal invariant failed.
    State,
    /// Refused for safety; every refusal names its override.
    Refused,
    /// A person or a signal stopped it.
    Interrupted,
}

impl ErrorKind {
    /// The process exit code of this kind (see `docs/formats.md`, "Exit codes").
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Check => 1,
            Self::Usage | Self::Config => 2,
            Self::Target | Self::State => 3,
            Self::Refused => 4,
            Self::Interrupted => 130,
        }
    }

    /// The name used in `--json` output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Usage => "usage",
            Self::Config => "config",
            Self::Target => "target",
            Self::State => "state",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A failure as a person reads it. `what` quotes the offending value; `hints` say what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// What failed, with the value quoted; a clause without a final period.
    pub what: String,
    /// Why it failed, innermost cause last; may be empty.
    pub why: String,
    /// What to do next, one sentence each.
    pub hints: Vec<String>,
}

/// The result type of everything that touches the world.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` saying what failed.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), why: String::new(), hints: Vec::new() }
    }
    /// Exit code 1: the thing checked is not as it should be.
    pub fn check(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Check, what)
    }
    /// Exit code 2: wrong use of the command line or of a plan.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }
    /// Exit code 2: the configuration cannot be used.
    pub fn config(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, what)
    }
    /// Exit code 3: a target or service failed.
    pub fn target(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Target, what)
    }
    /// Exit code 3: our own state directory or an invariant failed.
    pub fn state(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::State, what)
    }
    /// Exit code 4: refused for safety. Add the override as a hint.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, what)
    }
    /// Exit code 130: stopped by a person or a signal.
    pub fn interrupted(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Interrupted, what)
    }
    /// Adds the reason.
    #[must_use]
    pub fn why(mut self, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        if self.why.is_empty() {
            self.why = why;
        } else {
            self.why = format!("{}: {why}", self.why);
        }
        self
    }
    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
    /// All of it in one line.
    pub fn sentence(&self) -> String {
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        let hints = if self.hints.is_empty() { String::new() } else { format!("; {}", self.hints.join(" ")) };
        format!("{}{why}{hints}", self.what)
    }
    /// The error as one JSON object, for `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"error": {"kind": self.kind.name(), "what": self.what, "why": self.why, "hints": self.hints}})
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        for hint in &self.hints {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds what failed to an error of another library.
pub trait Context<T> {
    /// A target failure (exit 3) with the cause as its reason.
    fn target(self, what: impl FnOnce() -> String) -> Result<T>;
    /// A failure of our own state directory (exit 3) with the cause as its reason.
    fn state(self, what: impl FnOnce() -> String) -> Result<T>;
    /// A usage failure (exit 2) with the cause as its reason.
    fn usage(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn target(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::target(what()).why(e))
    }
    fn state(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::state(what()).why(e))
    }
    fn usage(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::usage(what()).why(e))
    }
}
