//! Unlogged tables: their rows are in no log and in no base backup, so a recovered instance has them empty.

use sqlx::postgres::PgConnection;

use super::check;
use crate::error::Result;
use crate::model::event::{Check, Verdict};
use crate::postgres::connect::{query_error, quote_ident, sqlstate};

/// SQL: schema and name of every unlogged table with rows of its own.
const UNLOGGED: &str = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' \
    ORDER BY 1, 2";

/// The unlogged tables of a database, schema and name.
///
/// # Errors
/// The query fails.
pub async fn unlogged(c: &mut PgConnection) -> Result<Vec<(String, String)>> {
    sqlx::query_as(UNLOGGED).fetch_all(c).await.map_err(|e| query_error(UNLOGGED, &e))
}

/// That what is in the recovered instance's unlogged tables is gone, with the rows that the source has; none without such tables.
///
/// # Errors
/// A query fails; that a table of the source cannot be read is said.
pub async fn check_unlogged(shadow: &mut PgConnection, source: Option<&mut PgConnection>) -> Result<Option<Check>> {
    let tables = unlogged(shadow).await?;
    if tables.is_empty() {
        return Ok(None);
    }
    let mut said = Vec::new();
    let mut source = source;
    for (schema, name) in &tables {
        let rows = match &mut source {
            Some(c) => count(c, schema, name).await?,
            None => None,
        };
        let rows = rows.map_or_else(String::new, |n| format!(" ({n} rows in the source)"));
        said.push(format!("{schema}.{name}{rows}"));
    }
    let detail = format!("not in any log, so they are empty once this is open: {}; fill them again", said.join(", "));
    Ok(Some(check("unlogged tables", Verdict::NotAvailable, detail)))
}

/// How many rows a table has; none where it is not there or cannot be read.
async fn count(c: &mut PgConnection, schema: &str, name: &str) -> Result<Option<i64>> {
    let sql = format!("SELECT count(*) FROM ONLY {}.{}", quote_ident(schema), quote_ident(name));
    match sqlx::query_scalar(&sql).fetch_one(c).await {
        Ok(n) => Ok(Some(n)),
        Err(e) if sqlstate(&e).is_some() => Ok(None),
        Err(e) => Err(query_error(&sql, &e)),
    }
}
