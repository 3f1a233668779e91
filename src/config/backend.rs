//! Who recovers: our own repository, another tool, or whoever runs the database for us.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who recovers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Our own repository.
    #[default]
    Native,
    /// An existing installation of pgBackRest.
    PgBackRest,
    /// Supabase, by its Management API.
    Supabase,
}

impl Backend {
    /// As in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::PgBackRest => "pgbackrest",
            Self::Supabase => "supabase",
        }
    }

    /// From the word in the configuration.
    ///
    /// # Errors
    /// Another word; the message lists those there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        [Self::Native, Self::PgBackRest, Self::Supabase]
            .into_iter()
            .find(|b| b.word() == text)
            .ok_or_else(|| format!("{text:?} is not one of native, pgbackrest, supabase"))
    }
}

/// An installation of pgBackRest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PgBackRestSettings {
    /// Its stanza.
    pub stanza: Option<String>,
    /// Its configuration file; its own default when not given.
    pub config: Option<PathBuf>,
    /// The program; looked for on PATH when not given.
    pub program: Option<PathBuf>,
    /// Number of the repository, from 1, which is the default.
    pub repo: Option<u32>,
}

/// A project of Supabase. Durations are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SupabaseSettings {
    /// The project: 20 lower-case letters.
    pub project_ref: Option<String>,
    /// Base URL of the Management API.
    pub api_url: String,
    /// Plain http to this very machine is allowed (for tests and rehearsals).
    pub allow_loopback_http: bool,
    /// SQL that gives the time of the newest row, as one value.
    pub newest: Option<String>,
    /// Between two looks.
    pub poll_ms: u64,
    /// How long one request may take.
    pub timeout_ms: u64,
    /// How long to wait for the window to reach the target, and for signs of a request whose answer was lost.
    pub settle_ms: u64,
    /// After this the restore counts as stuck.
    pub deadline_ms: u64,
}

impl Default for SupabaseSettings {
    fn default() -> Self {
        Self {
            project_ref: None,
            api_url: "https://api.supabase.com".into(),
            allow_loopback_http: false,
            newest: None,
            poll_ms: 5_000,
            timeout_ms: 30_000,
            settle_ms: 180_000,
            deadline_ms: 2 * 3_600_000,
        }
    }
}
