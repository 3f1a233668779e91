//! The two logs a drill is judged from: what the writers know was committed, and what the injector damaged.
//!
//! `writers.jsonl` holds one [`OrderLine`] a line; `injector.jsonl` one [`InjectorLine`] a line, the plan first.
//! Positions are PostgreSQL's `X/Y` text, times UTC. A commit's own position lies between `lsn_before` (read inside the
//! transaction) and `lsn_after` (read after it), because the server tells no client the position of its commit.

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::model::Time;

/// File name of the writers' log.
pub const WRITERS: &str = "writers.jsonl";
/// File name of the injector's log.
pub const INJECTOR: &str = "injector.jsonl";

/// What a writer knows about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// The server acknowledged the commit, or the row was found after a lost connection.
    Committed,
    /// The connection was lost in the commit and the database could not be asked again.
    Unknown,
}

/// One order of the traffic: one transaction with a row in orders, one in payments, one in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// Writer, from 1.
    pub writer: u32,
    /// Number of the order for this writer, from 1 without gaps.
    pub n: u64,
    /// What is known.
    pub known: Known,
    /// Which database of the service it went to: 0 the first, one more with each switch.
    pub generation: u32,
    /// `orders.id`.
    pub order: i64,
    /// Total in cents.
    pub total_cents: i64,
    /// Address it is sent to.
    pub address: String,
    /// Transaction, as text.
    pub xid: String,
    /// Position inside the transaction.
    pub lsn_before: String,
    /// Position after the commit; none when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn_after: Option<String>,
    /// Commit time by the server's clock; none when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Time>,
    /// The writer's clock before the transaction.
    pub before: Time,
    /// The writer's clock after it.
    pub after: Time,
}

/// One line of the injector's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum InjectorLine {
    /// What was decided, from which seed.
    Plan {
        /// The secret seed in hexadecimal.
        seed: String,
        /// When the damage was armed.
        armed: Time,
        /// The faulty release.
        release: String,
        /// What it does to which rows, for people.
        what: String,
        /// Condition on orders, in SQL.
        predicate: String,
    },
    /// One committed transaction of the faulty release, per table.
    Damage {
        /// From 1.
        batch: u32,
        /// `public.orders`, `public.customers`.
        table: String,
        /// The digest is taken of these columns, in this order, joined by `|`.
        columns: Vec<String>,
        /// Transaction, as text.
        xid: String,
        /// Position inside the transaction.
        lsn_before: String,
        /// Position after the commit; none when the connection was lost in the commit.
        lsn_after: Option<String>,
        /// Commit time by the server's clock.
        committed: Option<Time>,
        /// Which database of the service, as in [`OrderLine`].
        generation: u32,
        /// Row id, digest of the old values, digest of the new ones.
        rows: Vec<(i64, String, String)>,
    },
}

/// The SQL expression of a digest over columns: the first 32 hexadecimal digits of SHA-256 over the text forms joined by `|`.
///
/// `md5()` would be shorter but is refused by servers whose OpenSSL runs in FIPS mode.
pub fn digest_sql(alias: &str, columns: &[String]) -> String {
    let joined: Vec<String> = columns.iter().map(|c| format!("{alias}.{c}::text")).collect();
    format!("left(encode(sha256(convert_to({}, 'UTF8')), 'hex'), 32)", joined.join(" || '|' || "))
}

/// Writes a log, 0600, whole or not at all.
///
/// # Errors
/// `State` when the file cannot be written.
pub fn write<T: Serialize>(path: &Path, lines: &[T]) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let part = path.with_extension("part");
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part).state(what)?;
    let mut out = BufWriter::new(file);
    for line in lines {
        serde_json::to_writer(&mut out, line).state(what)?;
        out.write_all(b"\n").state(what)?;
    }
    let file = out.into_inner().map_err(|e| Error::state(what()).why(e.error()))?;
    file.sync_all().state(what)?;
    fs::rename(&part, path).state(what)
}

/// Reads a log.
///
/// # Errors
/// `State` when the file cannot be read or a line is not understood; the line is named.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let file = fs::File::open(path).state(|| format!("cannot read {}", path.display()))?;
    let mut all = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let what = || format!("cannot read {} line {}", path.display(), i + 1);
        all.push(serde_json::from_str(&line.state(what)?).state(what)?);
    }
    Ok(all)
}
