//! Exposure: the age of the oldest commit that could not be recovered right now.
//!
//! Everything up to the end of the last archived segment can be recovered. A commit behind it is at most as old as the
//! moment that segment was last written. An idle server writes log without losing anything, so without a commit behind that
//! moment the exposure is zero.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::locate::last_commit;
use super::unheld::{Unheld, unheld};
use crate::backup::repository::Repository;
use crate::backup::wal::received::{self, Received};
use crate::config::{Backend, Settings};
use crate::error::Result;
use crate::model::Time;
use crate::model::event::Event;
use crate::postgres::Lsn;
use crate::postgres::connect::query_error;

/// Exposure of a server at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// Age of the oldest commit that could not be recovered.
    pub exposure: Duration,
    /// Whether that is an upper bound.
    pub at_most: bool,
    /// Position of the log.
    pub lsn: String,
    /// Last commit, where commit times are recorded.
    pub last_commit: Option<Time>,
    /// How it was measured.
    pub source: String,
    /// Last error of the archiver, if its last attempt failed.
    pub failing: Option<String>,
    /// What the server believes archived and the repository does not hold.
    pub unheld: Option<Unheld>,
}

impl Exposure {
    /// As a fact.
    pub fn fact(&self) -> Event {
        Event::ExposureSampled {
            exposure_ms: u64::try_from(self.exposure.as_millis()).unwrap_or(u64::MAX),
            at_most: self.at_most,
            lsn: Some(self.lsn.clone()),
            last_commit: self.last_commit,
            source: self.source.clone(),
        }
    }
}

/// How far `wal receive` is, by what lies in this repository; none when nothing receives, or it cannot be read.
pub fn received_in(repository: Option<&String>) -> Option<Received> {
    received::state(&Repository::open(repository?).ok()?).ok()?
}

/// What the configured repository says.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// How far the log is received, when it is.
    pub received: Option<Received>,
    /// The repository that the log is archived to, when it is ours and opens.
    pub repository: Option<Repository>,
}

/// What is asked of the repository of these settings.
pub fn held_in(settings: &Settings) -> Held {
    held_at(settings.repository.as_ref(), settings.backend == Backend::Native)
}

/// As [`held_in`]; `native`: the log is archived there, and not by another tool elsewhere.
pub fn held_at(url: Option<&String>, native: bool) -> Held {
    let repository = url.and_then(|url| Repository::open(url).ok());
    let received = repository.as_ref().and_then(|r| received::state(r).ok()?);
    Held { received, repository: repository.filter(|_| native) }
}

/// Measures it, by the end of what is archived and, where the repository does not hold that, of what it holds. None when the server is in recovery, or neither
/// archives nor has its log received, or nothing was archived yet and commits bear no times: then there is nothing to measure it
/// by. Never zero where nothing archives (`archive_command` empty).
///
/// # Errors
/// The query fails.
pub async fn measure(c: &mut PgConnection, held: &Held) -> Result<Option<Exposure>> {
    // The time a segment's file was last written needs pg_monitor; without it the time of archiving stands in.
    let sql = "SELECT current_setting('archive_mode') <> 'off' AND NOT pg_is_in_recovery() AS archives, \
               coalesce(current_setting('archive_command', true), '') <> '' \
                 OR coalesce(current_setting('archive_library', true), '') <> '' AS archiver, \
               CASE WHEN pg_is_in_recovery() THEN '' ELSE pg_current_wal_lsn()::text END AS lsn, \
               (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS now_us, \
               (extract(epoch FROM a.last_archived_time) * 1000000)::int8 AS archived_us, \
               a.last_archived_wal, \
               CASE WHEN a.last_failed_time > coalesce(a.last_archived_time, '-infinity') \
                    THEN a.last_failed_wal END AS failing, \
               CASE WHEN has_function_privilege('pg_catalog.pg_ls_waldir()', 'EXECUTE') THEN \
                 (SELECT (extract(epoch FROM w.modification) * 1000000)::int8 FROM pg_ls_waldir() w \
                  WHERE w.name = a.last_archived_wal) END AS written_us \
               FROM pg_stat_archiver a";
    let row = sqlx::query(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let received = match &held.received {
        Some(r) if is_of(c, r).await => Some(r),
        _ => None,
    };
    let lsn: String = row.get("lsn");
    if lsn.is_empty() || !(row.get::<bool, _>("archives") || received.is_some()) {
        return Ok(None);
    }
    let now = Time::from_micros(row.get::<i64, _>("now_us"));
    let time = |name: &str| row.get::<Option<i64>, _>(name).map(Time::from_micros);
    let last = last_commit(c).await?;
    let (since, source) = match (time("written_us"), time("archived_us")) {
        (Some(t), _) => (Some(t), "end of the last archived segment"),
        (None, Some(t)) => (Some(t), "time of the last archiving"),
        (None, None) => (None, "nothing is archived yet"),
    };
    // A repository that cannot be asked does not change what the server says.
    let unheld = match &held.repository {
        Some(repository) => unheld(c, repository).await.ok().flatten(),
        None => None,
    };
    let (since, source) = match &unheld {
        Some(u) if u.held_at.is_some() => (u.held_at, "end of what the repository holds"),
        Some(_) => (None, "the repository holds nothing of this log"),
        None => (since, source),
    };
    let exposure = match (since, last) {
        (Some(s), Some(l)) if l <= s && unheld.is_none() => Duration::ZERO,
        (Some(s), _) => now.since(s),
        // Nothing was ever archived: everything would be lost, and since when is not known from here.
        (None, Some(l)) => now.since(l),
        (None, None) if received.is_none() && unheld.is_none() => return Ok(None),
        (None, None) => Duration::ZERO,
    };
    // A zero that is only true until the next commit, because nothing archives, would be no comfort but a trap.
    if exposure.is_zero() && received.is_none() && !row.get::<bool, _>("archiver") {
        return Ok(None);
    }
    let mut found = Exposure {
        at_most: since.is_some() && !exposure.is_zero() && unheld.is_none(),
        exposure,
        last_commit: last,
        source: source.into(),
        failing: row.get("failing"),
        unheld,
        lsn,
    };
    if let Some((exposure, source)) = received.and_then(|r| by_received(r, &found, now))
        && (exposure <= found.exposure || !row.get::<bool, _>("archives"))
    {
        found = Exposure { at_most: !exposure.is_zero(), exposure, source: source.into(), ..found };
    }
    Ok(Some(found))
}

/// Whether it is this server's log that is received. A role that may not know is not told what may be another's.
async fn is_of(c: &mut PgConnection, r: &Received) -> bool {
    let sql = "SELECT system_identifier::text FROM pg_control_system()";
    let id: std::result::Result<String, _> = sqlx::query_scalar(sql).fetch_one(c).await;
    id.is_ok_and(|id| id == r.system_identifier)
}

fn by_received(r: &Received, now: &Exposure, at: Time) -> Option<(Duration, &'static str)> {
    let (end, lsn): (Lsn, Lsn) = (r.end_lsn.parse().ok()?, now.lsn.parse().ok()?);
    let covered = r.covered_at.filter(|t| now.last_commit.is_some_and(|l| l <= *t));
    if lsn <= end || covered.is_some() {
        return Some((Duration::ZERO, "end of the received log"));
    }
    Some((at.since(r.covered_at?), "time up to which the log is received"))
}
