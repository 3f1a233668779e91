//! How the server's archiving is doing: what waits, what fails, what holds the log back, and when the disk is full of it.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::shadow::free_space;
use crate::backup::seen::{option_in, stores_nothing};
use crate::backup::wal::{Received, WalStatus};
use crate::error::{Context, Result};
use crate::model::{Time, format_clock};
use crate::postgres::Lsn;
use crate::postgres::connect::query_error;

/// A replication slot and the log it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Name.
    pub name: String,
    /// Whether somebody reads from it now.
    pub active: bool,
    /// Bytes of log kept for it.
    pub retained_bytes: u64,
    /// `reserved`, `extended`, `unreserved`, `lost`; none on servers that do not say.
    pub wal_status: Option<String>,
}

/// The live side of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerWal {
    /// `archive_mode`.
    pub archive_mode: String,
    /// Whether anything archives: `archive_command` or `archive_library` is set.
    pub archiver: bool,
    /// Whether that stores nothing, and nobody receives the log either.
    pub stores_nothing: bool,
    /// The key that `archive_command` archives for, when it names one.
    pub key_id: Option<String>,
    /// Where `archive_command` archives to, when it is ours.
    #[serde(skip)]
    pub archives_to: Option<String>,
    /// The server is a standby: its position is what it received.
    pub in_recovery: bool,
    /// Timeline.
    pub timeline: u32,
    /// Position of the log.
    pub lsn: String,
    /// Bytes from the end of what the repository holds to the server's position; none when it holds nothing of this timeline.
    pub lag_bytes: Option<u64>,
    /// Finished segments that wait for the archiver; none when the role may not look.
    pub waiting_segments: Option<u64>,
    /// Attempts that failed since the statistics began.
    pub failed_count: u64,
    /// What failed last, and when, if nothing was archived since.
    pub failing: Option<(String, Time)>,
    /// Last archived and when.
    pub last_archived: Option<(String, Time)>,
    /// Size of `pg_wal`; none when the role may not look.
    pub wal_bytes: Option<u64>,
    /// Log written per second: the larger of right now and on average.
    pub bytes_per_s: u64,
    /// Free bytes where `pg_wal` is; none when the server is on another machine or its folder may not be known.
    pub free_bytes: Option<u64>,
    /// Milliseconds until the disk is full if nothing is archived or removed any more, at the present pace.
    pub full_in_ms: Option<u64>,
    /// `max_slot_wal_keep_size` in MB; -1 is no limit.
    pub slot_limit_mb: i64,
    /// Slots.
    pub slots: Vec<Slot>,
}

impl ServerWal {
    /// What is wrong, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.archive_mode == "off" {
            out.push("archive_mode is off: nothing is archived".to_string());
        } else if !self.archiver && !self.in_recovery {
            out.push(
                "archive_mode is on and archive_command is empty: nothing is archived (breakglass doctor prints what to set)".into(),
            );
        }
        if self.stores_nothing && !self.in_recovery && self.archive_mode != "off" {
            out.push(
                "archive_command says yes to every segment and stores none: the server removes its log, and nothing is kept (breakglass doctor \
                 prints what to set)"
                    .into(),
            );
        }
        if let Some((segment, at)) = &self.failing {
            out.push(format!("archiving fails, last with {segment} at {at}, {} times so far", self.failed_count));
        }
        for s in &self.slots {
            if s.wal_status.as_deref() == Some("lost") {
                out.push(format!("slot {:?} has lost the log it needs", s.name));
            }
        }
        out
    }

    /// What stands behind it, for people.
    pub fn lines(&self) -> Vec<String> {
        let mb = |n: u64| format!("{} MB", n.div_ceil(1_000_000));
        let mut out =
            vec![format!("server: timeline {}, {}, archive_mode {}", self.timeline, self.lsn, self.archive_mode)];
        if let Some((segment, at)) = &self.last_archived {
            out.push(format!("  last archived {segment} at {at}"));
        }
        if let Some(lag) = self.lag_bytes {
            let waiting = self.waiting_segments.map_or(String::new(), |n| format!(", {n} segments wait"));
            out.push(format!("  {} behind the server{waiting}", mb(lag)));
        }
        if let Some(wal) = self.wal_bytes {
            let mut line = format!("  pg_wal {}, {} per minute", mb(wal), mb(self.bytes_per_s * 60));
            if let (Some(free), Some(ms)) = (self.free_bytes, self.full_in_ms) {
                let left = format_clock(Duration::from_millis(ms));
                line.push_str(&format!(", {} free: full in {left} if archiving stops", mb(free)));
            } else if let Some(free) = self.free_bytes {
                line.push_str(&format!(", {} free", mb(free)));
            }
            out.push(line);
        }
        for s in &self.slots {
            let unlimited = self.slot_limit_mb < 0 && !s.active;
            let state = if s.active { "active" } else { "nobody reads it" };
            let limit = if unlimited { "; without a limit (max_slot_wal_keep_size) it can fill the disk" } else { "" };
            out.push(format!("  slot {:?} keeps {}, {state}{limit}", s.name, mb(s.retained_bytes)));
        }
        out
    }
}

/// How far `wal receive` is, for people. `server` is the server's position now, when it can be asked.
pub fn received_line(r: &Received, server: Option<Lsn>, now: Time) -> String {
    let mut line = format!("received to {} through slot {:?}, last {} ago", r.end_lsn, r.slot, ago(r.at, now));
    let end: Option<Lsn> = r.end_lsn.parse().ok();
    match (server.zip(end), r.covered_at) {
        (Some((server, end)), _) if server <= end => line.push_str(": nothing is exposed"),
        (_, Some(at)) => line.push_str(&format!(": exposed is what was committed in the last {}", ago(at, now))),
        (_, None) => line.push_str(": exposure not known yet"),
    }
    line
}

/// How long a receiver may be silent before that is a problem.
const SILENT: Duration = Duration::from_secs(60);

/// A receiver that has not been heard of, as a problem.
pub fn silent(r: &Received, now: Time) -> Option<String> {
    let since = now.since(r.at);
    (since > SILENT).then(|| format!("wal receive (slot {:?}) was last heard of {} ago", r.slot, ago(r.at, now)))
}

fn ago(at: Time, now: Time) -> String {
    format_clock(now.since(at))
}

/// Asks the server; takes about a second, because the pace of the log is measured.
///
/// # Errors
/// A query fails.
pub async fn ask(c: &mut PgConnection, archive: &WalStatus) -> Result<ServerWal> {
    let place = "CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) \
                 ELSE pg_current_wal_lsn() END";
    let may = |function: &str| format!("has_function_privilege('pg_catalog.{function}', 'EXECUTE')");
    let sql = format!(
        "SELECT current_setting('archive_mode') AS mode, \
         coalesce(current_setting('archive_command', true), '') AS command, \
         coalesce(current_setting('archive_library', true), '') AS library, pg_is_in_recovery() AS standby, ({place})::text AS lsn, \
         (CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())::int8 \
         ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8 END) AS timeline, a.failed_count, a.last_failed_wal, \
         (extract(epoch FROM a.last_failed_time) * 1000000)::int8 AS failed_us, a.last_archived_wal, \
         (extract(epoch FROM a.last_archived_time) * 1000000)::int8 AS archived_us, \
         {} AS may_ls, {} AS may_status, \
         (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS data, \
         coalesce((SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), -1) AS slot_limit \
         FROM pg_stat_archiver a",
        may("pg_ls_waldir()"),
        may("pg_ls_archive_statusdir()")
    );
    let what = || "cannot read how archiving is doing".to_string();
    let row = sqlx::query(&sql).fetch_one(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
    let lsn_text: String = row.try_get("lsn").target(what)?;
    let lsn: Lsn = lsn_text.parse().unwrap_or_default();
    let time = |name: &str| row.try_get::<Option<i64>, _>(name).ok().flatten().map(Time::from_micros);
    let pair = |name: &str, at: &str| row.try_get::<Option<String>, _>(name).ok().flatten().zip(time(at));
    let last_archived = pair("last_archived_wal", "archived_us");
    let failing = pair("last_failed_wal", "failed_us")
        .filter(|(_, at)| last_archived.as_ref().is_none_or(|(_, archived)| at > archived));
    let timeline = u32::try_from(row.try_get::<i64, _>("timeline").target(what)?).unwrap_or(1);
    let wal_bytes = if row.try_get("may_ls").unwrap_or(false) {
        one(c, "SELECT coalesce(sum(size), 0)::int8 FROM pg_ls_waldir()").await?
    } else {
        None
    };
    let waiting_segments = if row.try_get("may_status").unwrap_or(false) {
        one(c, "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'").await?
    } else {
        None
    };
    // On average since the statistics began; servers before 14 do not count it.
    let average = "SELECT (wal_bytes / greatest(extract(epoch FROM clock_timestamp() - stats_reset), 1))::int8 \
                   FROM pg_stat_wal";
    let average = one(c, average).await.unwrap_or(None).unwrap_or(0);
    let began = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let again = format!("SELECT ({place})::text");
    let later: String = sqlx::query_scalar(&again).fetch_one(&mut *c).await.map_err(|e| query_error(&again, &e))?;
    let later: Lsn = later.parse().unwrap_or(lsn);
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(1000).max(1);
    let bytes_per_s = (later.0.saturating_sub(lsn.0) * 1000 / took).max(average);
    let data: Option<String> = row.try_get("data").ok().flatten();
    let free_bytes =
        data.as_deref().map(|d| Path::new(d).join("pg_wal")).filter(|p| p.is_dir()).and_then(|p| free_space(&p).ok());
    let slots = "SELECT slot_name::text AS name, active, \
                 greatest(coalesce(pg_wal_lsn_diff($1::text::pg_lsn, restart_lsn), 0), 0)::int8 AS kept, \
                 (to_jsonb(s) ->> 'wal_status') AS status FROM pg_replication_slots s ORDER BY 1";
    let rows = sqlx::query(slots).bind(&lsn_text).fetch_all(&mut *c).await.map_err(|e| query_error(slots, &e))?;
    let mut all = Vec::new();
    for s in rows {
        all.push(Slot {
            name: s.try_get("name").target(what)?,
            active: s.try_get("active").target(what)?,
            retained_bytes: u64::try_from(s.try_get::<i64, _>("kept").target(what)?).unwrap_or(0),
            wal_status: s.try_get("status").target(what)?,
        });
    }
    let size = u64::from(archive.segment_size);
    let held = archive.timelines.iter().find(|t| t.timeline == timeline);
    let end = held.and_then(|t| Lsn::of_segment(&t.last, size)).map(|(_, l)| l.0 + size);
    let command: String = row.try_get("command").target(what)?;
    let library: String = row.try_get("library").target(what)?;
    let ours = |option: &str| option_in(&command, option).filter(|_| command.contains("wal archive"));
    Ok(ServerWal {
        archive_mode: row.try_get("mode").target(what)?,
        archiver: !(command.is_empty() && library.is_empty()),
        // What is received is kept all the same.
        stores_nothing: library.is_empty() && stores_nothing(&command) && archive.received.is_none(),
        key_id: ours("--key-id"),
        archives_to: ours("--repository"),
        in_recovery: row.try_get("standby").target(what)?,
        timeline,
        lag_bytes: end.map(|e| lsn.0.saturating_sub(e)),
        lsn: lsn_text,
        waiting_segments,
        failed_count: u64::try_from(row.try_get::<i64, _>("failed_count").target(what)?).unwrap_or(0),
        failing,
        last_archived,
        wal_bytes,
        bytes_per_s,
        full_in_ms: free_bytes.filter(|_| bytes_per_s > 0).map(|f| f / bytes_per_s * 1000),
        free_bytes,
        slot_limit_mb: row.try_get("slot_limit").target(what)?,
        slots: all,
    })
}

async fn one(c: &mut PgConnection, sql: &str) -> Result<Option<u64>> {
    let n: Option<i64> = sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    Ok(n.and_then(|n| u64::try_from(n).ok()))
}
