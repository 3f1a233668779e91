//! Stopping the bleeding at the database: writes off, the application's sessions ended, the log archived up to now.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::watch::{Phase, Watch, check_cancel};
use crate::error::{Error, Result};
use crate::postgres::Lsn;
use crate::postgres::connect::{query_error, quote_ident, run};

/// Makes new transactions of a database read-only, for everybody who does not ask otherwise. Sessions that are open keep
/// what they have: end them next.
///
/// # Errors
/// The statement fails.
pub async fn writes_off(c: &mut PgConnection, database: &str) -> Result<()> {
    run(c, &format!("ALTER DATABASE {} SET default_transaction_read_only = on", quote_ident(database))).await
}

/// Takes [`writes_off`] back.
///
/// # Errors
/// The statement fails.
pub async fn writes_on(c: &mut PgConnection, database: &str) -> Result<()> {
    run(c, &format!("ALTER DATABASE {} RESET default_transaction_read_only", quote_ident(database))).await
}

/// Ends the sessions of `roles` (of everybody but us when empty) in the connected database and waits until those that were
/// open at the start are gone. Returns how many.
///
/// # Errors
/// A query fails, or sessions are still there after `limit`.
pub async fn end_sessions(c: &mut PgConnection, roles: &[String], limit: Duration) -> Result<u64> {
    let list = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() \
                AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend' \
                AND application_name <> 'breakglass' AND (cardinality($1::text[]) = 0 OR usename::text = ANY ($1))";
    let pids: Vec<i32> =
        sqlx::query_scalar(list).bind(roles.to_vec()).fetch_all(&mut *c).await.map_err(|e| query_error(list, &e))?;
    let kill = "SELECT pg_catalog.pg_terminate_backend(p) FROM unnest($1::int4[]) p";
    sqlx::query(kill).bind(&pids).execute(&mut *c).await.map_err(|e| query_error(kill, &e))?;
    let left = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE pid = ANY ($1) AND backend_type = 'client backend'";
    let deadline = Instant::now() + limit;
    loop {
        let n: i64 =
            sqlx::query_scalar(left).bind(&pids).fetch_one(&mut *c).await.map_err(|e| query_error(left, &e))?;
        if n == 0 {
            return Ok(pids.len() as u64);
        }
        if Instant::now() > deadline {
            return Err(Error::target(format!("{n} sessions do not end")).hint("look at pg_stat_activity and end them by hand"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What became of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Everything up to here is archived.
    pub lsn: Lsn,
    /// The last segment.
    pub segment: String,
}

/// Switches to a new segment and waits until the one before is archived.
///
/// # Errors
/// Archiving is off, or the segment is not archived after `limit`: the error says what the archiver's last failure was.
pub async fn archive_now(
    c: &mut PgConnection,
    limit: Duration,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Archived> {
    let mode = "SELECT pg_catalog.current_setting('archive_mode')";
    let mode: String = sqlx::query_scalar(mode).fetch_one(&mut *c).await.map_err(|e| query_error(mode, &e))?;
    if mode == "off" {
        return Err(Error::target("the server archives nothing (archive_mode is off)")
            .hint("only what is in a backup can be recovered"));
    }
    // The switch's end lies in the segment it closes. Where nothing was written since the last one, it is that one's end.
    let sql = "SELECT l::text, pg_catalog.pg_walfile_name(l) FROM (SELECT pg_catalog.pg_switch_wal() AS l OFFSET 0) s";
    let (lsn, segment): (String, String) =
        sqlx::query_as(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let sql = "SELECT coalesce(last_archived_wal, ''), coalesce(last_failed_wal, ''), \
               coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) FROM pg_catalog.pg_stat_archiver";
    let began = Instant::now();
    loop {
        check_cancel(cancel, "the log is not known to be archived")?;
        let (last, failed, failing): (String, String, bool) =
            sqlx::query_as(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
        // A history or backup file's name sorts with the segment it belongs to.
        if last.get(..24).is_some_and(|l| l >= segment.as_str()) {
            let lsn = lsn.parse().unwrap_or_default();
            return Ok(Archived { lsn, segment });
        }
        watch.phase(&Phase { name: "archive", text: format!("waiting for {segment}, last is {last}"), ..Phase::default() });
        if began.elapsed() > limit {
            let mut e = Error::target(format!("segment {segment} is not archived after {} s", limit.as_secs()));
            e = if failing {
                e.why(format!("the archiver fails with {failed}; the server's log says why"))
            } else {
                e.why(format!("the last archived is {last:?}"))
            };
            return Err(e.hint("go on: what is not archived counts as loss until the archive works again"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
