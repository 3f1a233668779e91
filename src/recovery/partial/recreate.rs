//! A table that is gone is made again as the shadow has it, with what `pg_dump` knows of it.

use sqlx::postgres::PgConnection;

use crate::error::{Context, Error, Result};
use crate::model::CleanText;
use crate::postgres::connect::{query_error, quote_ident, run};
use crate::postgres::{Database, Programs};
use crate::recovery::tables::Table;

/// What makes the tables, before and after their rows.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Tables, their own sequences, defaults, privileges.
    pub before: String,
    /// Indexes, constraints, triggers.
    pub after: String,
}

/// Asks `pg_dump` for the tables' definitions.
///
/// # Errors
/// It cannot be run or fails; its last words are the reason.
pub fn schema(programs: &Programs, shadow: &Database, tables: &[String]) -> Result<Schema> {
    let dump = |section: &str| -> Result<String> {
        let mut c = programs.command("pg_dump", None);
        c.args(["--schema-only", "--section", section, "--lock-wait-timeout=5000"]);
        for t in tables {
            c.arg("--table").arg(t);
        }
        for (name, value) in shadow.tool_env() {
            c.env(name, value.expose());
        }
        let out = c.output().target(|| "cannot run pg_dump".to_string())?;
        if !out.status.success() {
            return Err(Error::target("pg_dump cannot read the tables in the shadow")
                .why(CleanText::line(out.stderr.trim_ascii())));
        }
        let text = String::from_utf8(out.stdout).target(|| "pg_dump wrote something else than text".into())?;
        // psql's own commands, and what would end the transaction's pinned settings.
        let lines = text.lines().filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"));
        Ok(lines
            .filter(|l| !l.starts_with("SET ") && !l.contains("set_config('search_path'"))
            .collect::<Vec<_>>()
            .join("\n"))
    };
    Ok(Schema { before: dump("pre-data")?, after: dump("post-data")? })
}

/// The tables and, for partitions, everything above them, as patterns for `pg_dump`.
///
/// # Errors
/// The query fails.
pub async fn with_ancestors(shadow: &mut PgConnection, tables: &[&Table]) -> Result<Vec<String>> {
    let oids: Vec<i64> = tables.iter().map(|t| i64::from(t.oid)).collect();
    let sql = "SELECT DISTINCT n.nspname::text, c.relname::text FROM unnest($1::int8[]) x, \
               LATERAL (SELECT x::oid::regclass AS relid UNION SELECT relid FROM pg_catalog.pg_partition_ancestors(x::oid::regclass)) a \
               JOIN pg_catalog.pg_class c ON c.oid = a.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2";
    let rows: Vec<(String, String)> =
        sqlx::query_as(sql).bind(oids).fetch_all(&mut *shadow).await.map_err(|e| query_error(sql, &e))?;
    Ok(rows.iter().map(|(s, t)| format!("{}.{}", quote_ident(s), quote_ident(t))).collect())
}

/// Makes the schemas of the tables where they are gone, too; those it made.
///
/// # Errors
/// A query fails.
pub async fn schemas(live: &mut PgConnection, shadow: &mut PgConnection, tables: &[&Table]) -> Result<Vec<String>> {
    let oids: Vec<i64> = tables.iter().map(|t| i64::from(t.oid)).collect();
    let sql = "SELECT DISTINCT n.nspname::text, pg_catalog.pg_get_userbyid(n.nspowner)::text FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::int8[]::oid[])";
    let rows: Vec<(String, String)> =
        sqlx::query_as(sql).bind(oids).fetch_all(&mut *shadow).await.map_err(|e| query_error(sql, &e))?;
    let mut made = Vec::new();
    for (name, owner) in rows {
        let there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
        let there: bool =
            sqlx::query_scalar(there).bind(&name).fetch_one(&mut *live).await.map_err(|e| query_error(there, &e))?;
        if !there {
            run(live, &format!("CREATE SCHEMA {} AUTHORIZATION {}", quote_ident(&name), quote_ident(&owner))).await?;
            made.push(name);
        }
    }
    Ok(made)
}
