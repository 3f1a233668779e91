//! What `pg_controldata` says about a data directory, without starting its server.

use std::path::Path;
use std::str::FromStr;

use super::Lsn;
use super::programs::Programs;
use crate::error::{Context, Error, Result};
use crate::model::CleanText;
use crate::process::UnixUser;

/// The part of `pg_control` that recovery needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Database system identifier, as text (exceeds 2^53).
    pub system_identifier: String,
    /// Cluster state as the program words it: `in production`, `shut down`, `in archive recovery`, ….
    pub state: String,
    /// Position of the latest checkpoint record.
    pub checkpoint: Lsn,
    /// Where replay of the latest checkpoint begins.
    pub redo: Lsn,
    /// Timeline of the latest checkpoint.
    pub timeline: u32,
    /// Recovery must reach at least this far to be consistent; zero when not in recovery.
    pub minimum_recovery: Lsn,
    /// `minimal`, `replica` or `logical`.
    pub wal_level: String,
    /// Setting of the source; a recovering server must not go below.
    pub max_connections: u32,
    /// As `max_connections`.
    pub max_worker_processes: u32,
    /// As `max_connections`.
    pub max_wal_senders: u32,
    /// As `max_connections`.
    pub max_prepared_transactions: u32,
    /// As `max_connections`.
    pub max_locks_per_transaction: u32,
    /// Whether commit times are recorded.
    pub track_commit_timestamp: bool,
    /// Size of a log segment in bytes.
    pub segment_bytes: u64,
    /// Whether data pages carry checksums.
    pub checksums: bool,
}

impl Control {
    /// Reads the control file of a data directory.
    ///
    /// # Errors
    /// The program fails (no such directory, wrong version, no permission) or a field is missing.
    pub fn read(programs: &Programs, data: &Path, user: Option<&UnixUser>) -> Result<Self> {
        let out = programs
            .command("pg_controldata", user)
            .arg("-D")
            .arg(data)
            .output()
            .target(|| "cannot run pg_controldata".to_string())?;
        if !out.status.success() {
            return Err(Error::target(format!("pg_controldata cannot read {:?}", data.display()))
                .why(CleanText::line(out.stderr.trim_ascii())));
        }
        Self::parse(&String::from_utf8_lossy(&out.stdout))
    }

    /// Parses the program's output in the C locale.
    ///
    /// # Errors
    /// A field is missing or is not of its kind.
    pub fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| -> Result<&str> {
            text.lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::trim))
                .ok_or_else(|| Error::target("pg_controldata says something unknown").why(format!("no field {name:?}")))
        };
        fn read<T: FromStr>(name: &str, value: &str) -> Result<T> {
            value
                .parse()
                .map_err(|_| Error::target("pg_controldata says something unknown").why(format!("{name} is {value:?}")))
        }
        let number = |name: &str| -> Result<u32> { read(name, field(name)?) };
        let lsn = |name: &str| -> Result<Lsn> { read(name, field(name)?) };
        Ok(Self {
            system_identifier: field("Database system identifier")?.to_string(),
            state: field("Database cluster state")?.to_string(),
            checkpoint: lsn("Latest checkpoint location")?,
            redo: lsn("Latest checkpoint's REDO location")?,
            timeline: number("Latest checkpoint's TimeLineID")?,
            minimum_recovery: lsn("Minimum recovery ending location")?,
            wal_level: field("wal_level setting")?.to_string(),
            max_connections: number("max_connections setting")?,
            max_worker_processes: number("max_worker_processes setting")?,
            max_wal_senders: number("max_wal_senders setting")?,
            max_prepared_transactions: number("max_prepared_xacts setting")?,
            max_locks_per_transaction: number("max_locks_per_xact setting")?,
            track_commit_timestamp: field("track_commit_timestamp setting")? == "on",
            segment_bytes: read("Bytes per WAL segment", field("Bytes per WAL segment")?)?,
            checksums: field("Data page checksum version")? != "0",
        })
    }
}
