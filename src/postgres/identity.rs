//! Who a database is, asked of it on the very connection that will be used.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::connect::{Database, query_error};
use crate::error::{Context, Result};
use crate::model::Time;
use crate::model::target::Identity;

/// Asks the server behind `c` who it is. `at` says how it was reached; all else is the server's own word.
///
/// # Errors
/// The query fails.
pub async fn identity(c: &mut PgConnection, at: &Database) -> Result<Identity> {
    // In production the control file's timeline lags behind a promotion until the next checkpoint; the log's own does not.
    // In recovery the newest of checkpoint and minimum recovery point is where replay has got to.
    let sql = "SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier, \
               pg_catalog.current_database()::text AS database, \
               pg_catalog.current_setting('server_version_num')::int4 AS version_num, \
               r.in_recovery, \
               CASE WHEN r.in_recovery THEN \
                 (SELECT greatest(k.timeline_id, m.min_recovery_end_timeline)::int8 \
                  FROM pg_catalog.pg_control_checkpoint() k, pg_catalog.pg_control_recovery() m) \
               ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int8 \
               END AS timeline, \
               (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory') AS data_directory, \
               ARRAY(SELECT datname::text FROM pg_catalog.pg_database \
                     WHERE datname <> pg_catalog.current_database() AND NOT datistemplate ORDER BY 1) AS others \
               FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery OFFSET 0) r";
    let row = sqlx::query(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let read = || "cannot read the identity of the server".to_string();
    Ok(Identity {
        system_identifier: row.try_get("system_identifier").target(read)?,
        database: row.try_get("database").target(read)?,
        host: at.host().to_string(),
        port: at.port(),
        version_num: u32::try_from(row.try_get::<i32, _>("version_num").target(read)?).target(read)?,
        in_recovery: row.try_get("in_recovery").target(read)?,
        timeline: u32::try_from(row.try_get::<i64, _>("timeline").target(read)?).target(read)?,
        data_directory: row.try_get("data_directory").target(read)?,
        other_databases: row.try_get("others").target(read)?,
    })
}

/// Whether two identities are the same server and database: system identifier and database name. Host and port are how
/// it was reached, and may differ.
pub fn same(a: &Identity, b: &Identity) -> bool {
    a.system_identifier == b.system_identifier && a.database == b.database
}

/// Tablespaces of the cluster beside its own two.
///
/// # Errors
/// The query fails.
pub async fn more_tablespaces(c: &mut PgConnection) -> Result<Vec<String>> {
    let sql = "SELECT spcname::text FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(c).await.map_err(|e| query_error(sql, &e))
}

/// What the server's clock says.
///
/// # Errors
/// The query fails.
pub async fn clock(c: &mut PgConnection) -> Result<Time> {
    let sql = "SELECT (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::int8";
    sqlx::query_scalar(sql).fetch_one(c).await.map(Time::from_micros).map_err(|e| query_error(sql, &e))
}
