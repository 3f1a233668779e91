//! What an action touches, as seen live, and what can be recovered to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Time;

/// A database as identified on a live connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `pg_control_system().system_identifier`, as text (exceeds 2^53).
    pub system_identifier: String,
    /// `current_database()`.
    pub database: String,
    /// Host name, address or socket directory that was connected to.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `server_version_num`, such as 150020.
    pub version_num: u32,
    /// Whether the server is in recovery.
    pub in_recovery: bool,
    /// Timeline of the server.
    pub timeline: u32,
    /// Data directory if the role may see it; evidence only.
    #[serde(default)]
    pub data_directory: Option<String>,
    /// Other databases of the cluster (a PITR rewinds all of them).
    #[serde(default)]
    pub other_databases: Vec<String>,
}

/// Where recovery stops. Always *before* the named point unless `after` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by", content = "value")]
pub enum RecoveryTarget {
    /// Before the first commit later than this time.
    Time(Time),
    /// Before the record at this position, such as `0/5A2F118`.
    Lsn(String),
    /// Before the commit of this transaction (top-level xid, as text).
    Xid(String),
    /// Before the named restore point.
    Name(String),
    /// All that is archived.
    Latest,
}

impl RecoveryTarget {
    /// Where a recovery stands that stopped there, for people: `before xid:73114`, or after it, `at the end of the archive`.
    pub fn stop(&self, after: bool) -> String {
        match (self, after) {
            (Self::Latest, _) => "at the end of the archive".into(),
            (target, true) => format!("after {target}"),
            (target, false) => format!("before {target}"),
        }
    }
    /// How far a recovery replays the log, for people: `to its end`, `up to just before xid:73114`.
    pub fn until(&self, after: bool) -> String {
        match self {
            Self::Latest => "to its end".into(),
            target => format!("up to just {}", target.stop(after)),
        }
    }
}

impl fmt::Display for RecoveryTarget {
    /// The form `--to` takes: `time:2026-…Z`, `lsn:0/5A2F118`, `xid:73114`, `name:x`, `latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(t) => write!(f, "time:{t}"),
            Self::Lsn(l) => write!(f, "lsn:{l}"),
            Self::Xid(x) => write!(f, "xid:{x}"),
            Self::Name(n) => write!(f, "name:{n}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

impl std::str::FromStr for RecoveryTarget {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let (key, value) = match text.split_once(':') {
            Some((k @ ("time" | "lsn" | "xid" | "name"), v)) => (k, v),
            _ if text.contains('/') && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'/') => ("lsn", text),
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => ("xid", text),
            _ => ("time", text),
        };
        match key {
            "lsn" => {
                let ok = value
                    .split_once('/')
                    .is_some_and(|(a, b)| u32::from_str_radix(a, 16).is_ok() && u32::from_str_radix(b, 16).is_ok());
                if ok {
                    Ok(Self::Lsn(value.to_uppercase()))
                } else {
                    Err(format!("{value:?} is not an LSN such as 0/5A2F118"))
                }
            }
            "xid" => match value.parse::<u32>() {
                Ok(x) if x >= 3 => Ok(Self::Xid(x.to_string())),
                _ => Err(format!("{value:?} is not a transaction id (a number from 3 to 4294967295)")),
            },
            "name" if value.is_empty() => Err("a restore point needs a name".into()),
            "name" => Ok(Self::Name(value.into())),
            _ => Time::parse(value).map(Self::Time),
        }
    }
}

/// A destructive moment found, with what restoring to just before it would lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Restore to just before this.
    pub target: RecoveryTarget,
    /// Commit time of the suspect transaction.
    pub at: Time,
    /// Its transaction id, as text.
    #[serde(default)]
    pub xid: Option<String>,
    /// Its commit position, when known.
    #[serde(default)]
    pub lsn: Option<String>,
    /// Tables touched, `schema.table`.
    pub tables: Vec<String>,
    /// Rows still carrying its mark.
    pub rows: u64,
    /// What it did, for people.
    pub what: String,
    /// What else would be lost.
    pub loses: Loss,
}

/// What is or would be lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// From the moment to the last commit, in milliseconds.
    pub window_ms: u64,
    /// Transactions committed at or after the moment, the suspects excluded; none when unknown.
    pub transactions: Option<u64>,
    /// Rows per table that others wrote after the moment: inserted, updated or deleted where the log says so; else as far as is
    /// known.
    #[serde(default)]
    pub rows: std::collections::BTreeMap<String, u64>,
    /// Whether the figures are upper bounds.
    #[serde(default)]
    pub at_most: bool,
}

impl Loss {
    /// With what an earlier recovery has lost already. Its window lies within this one.
    #[must_use]
    pub fn and(mut self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier else { return self };
        for (table, n) in &earlier.rows {
            *self.rows.entry(table.clone()).or_default() += n;
        }
        self.transactions = self.transactions.zip(earlier.transactions).map(|(a, b)| a + b);
        self.at_most |= earlier.at_most;
        self
    }
}
