//! Memory for building indexes while a dump is loaded: with the server's default a large one is sorted on disk.

use sqlx::postgres::PgConnection;

use crate::error::Result;
use crate::postgres::connect::{query_error, quote_ident, run};

/// More than this hardly helps a sort.
const MOST_KIB: i64 = 1 << 20;

/// What one of `jobs` sessions may take, in KiB: all of them together half of the server's shared buffers, which are the only
/// measure of its memory that it tells. None when it has as much already.
pub(super) fn share(shared_buffers_kib: i64, has_kib: i64, jobs: usize) -> Option<i64> {
    let jobs = i64::try_from(jobs.max(1)).unwrap_or(i64::MAX);
    let share = (shared_buffers_kib / 2 / jobs).min(MOST_KIB);
    (share > has_kib).then_some(share)
}

/// Gives the sessions in the unfinished database `name` more memory for maintenance, as a setting of that database: it works
/// through a pooler as well, and is gone with the database when the restore fails. Says whether there is something to take back.
///
/// # Errors
/// The server does not tell its settings.
pub(super) async fn lend(c: &mut PgConnection, name: &str, jobs: usize) -> Result<bool> {
    let sql = "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')) / 1024, \
               pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) / 1024";
    let (buffers, has): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let Some(share) = share(buffers, has, jobs) else { return Ok(false) };
    let sql = format!("ALTER DATABASE {} SET maintenance_work_mem TO '{share}kB'", quote_ident(name));
    // Where it may not be given, the load only takes longer.
    Ok(run(c, &sql).await.is_ok())
}

/// Takes it back, before the settings that were dumped are put in place.
///
/// # Errors
/// The server refuses.
pub(super) async fn take_back(c: &mut PgConnection, name: &str) -> Result<()> {
    run(c, &format!("ALTER DATABASE {} RESET maintenance_work_mem", quote_ident(name))).await
}
