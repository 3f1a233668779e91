//! The server's configuration files as it reads them itself: Debian keeps them outside the data directory, where no base
//! backup finds them.

use sqlx::postgres::PgConnection;

use super::connect::query_error;
use crate::error::Result;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationFile {
    /// Absolute path on the server.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// postgresql.conf and everything it includes, pg_hba.conf and pg_ident.conf.
///
/// # Errors
/// Target, when the role may not read them (it must be a superuser, or in `pg_read_server_files` and `pg_read_all_settings`).
pub async fn configuration(c: &mut PgConnection) -> Result<Vec<ConfigurationFile>> {
    let sql = "SELECT DISTINCT f.path, pg_catalog.pg_read_binary_file(f.path) FROM (\
               SELECT setting AS path FROM pg_catalog.pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file') \
               UNION SELECT sourcefile FROM pg_catalog.pg_file_settings) f WHERE f.path <> '' ORDER BY 1";
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(sql).fetch_all(c).await.map_err(|e| query_error(sql, &e))?;
    Ok(rows.into_iter().map(|(path, bytes)| ConfigurationFile { path, bytes }).collect())
}
