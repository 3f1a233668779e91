//! Something else that has the name of a table that is gone: said with what it is and how to move it out of the way.

use sqlx::postgres::PgConnection;

use crate::error::{Error, Result};
use crate::postgres::connect::{query_error, quote_ident};
use crate::recovery::tables::Table;

/// Refuses where the name of one of these tables is taken.
///
/// # Errors
/// Refused; the query fails.
pub(super) async fn free(live: &mut PgConnection, gone: &[&Table]) -> Result<()> {
    let names: Vec<&str> = gone.iter().map(|t| t.sql.as_str()).collect();
    let sql = "SELECT t, c.relkind::text, c.relpersistence::text, c.relname::text FROM unnest($1::text[]) t \
               JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(t) LIMIT 1";
    let found: Option<(String, String, String, String)> =
        sqlx::query_as(sql).bind(&names).fetch_optional(&mut *live).await.map_err(|e| query_error(sql, &e))?;
    let Some((at, kind, persistence, name)) = found else { return Ok(()) };
    let table = gone.iter().find(|t| t.sql == at).map_or(at.as_str(), |t| t.name.as_str());
    let (what, alter) = match kind.as_str() {
        "v" => ("a view", "VIEW"),
        "m" => ("a materialized view", "MATERIALIZED VIEW"),
        "f" => ("a foreign table", "FOREIGN TABLE"),
        "S" => ("a sequence", "SEQUENCE"),
        "i" | "I" => ("an index", "INDEX"),
        "c" => ("a type", "TYPE"),
        "p" => ("a partitioned table", "TABLE"),
        _ if persistence == "u" => ("an unlogged table", "TABLE"),
        _ => ("a table of an extension", "TABLE"),
    };
    let e = Error::refused(format!("{table} cannot come back: {what} has its name in the live database"))
        .why("what stands there is not the table that is lost");
    let e = match what {
        "an unlogged table" => {
            e.hint(format!("it counts once it is logged: ALTER TABLE {at} SET LOGGED; then the same again"))
        }
        _ => e,
    };
    Err(e.hint(format!(
        "move it out of the way: ALTER {alter} {at} RENAME TO {}; then the same again",
        quote_ident(&format!("{name}_since"))
    )))
}
