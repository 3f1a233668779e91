//! A table that is gone is made again as the shadow has it, with what `pg_dump` knows of it.

use sqlx::postgres::PgConnection;

use super::Definitions;
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

/// As [`schema`], off the loop.
///
/// # Errors
/// As [`schema`].
pub async fn dumped(from: Definitions, tables: Vec<String>) -> Result<Schema> {
    let work = move || schema(&from.programs, &from.shadow, &tables);
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::state("the work broke off").why(e))?
}

/// One object of a definition that `pg_dump` wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is: `TABLE`, `INDEX`, `TABLE ATTACH`, …
    pub kind: &'a str,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What makes it.
    pub sql: &'a str,
}

/// The objects of such a definition, in order: each begins with a comment that says what it is.
pub fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut heads = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        let said = line.trim_end().strip_prefix("-- Name: ").and_then(|l| l.rsplit_once("; Type: "));
        if let Some((name, (kind, rest))) = said.and_then(|(name, rest)| Some((name, rest.split_once("; Schema: ")?))) {
            let schema = rest.split_once("; Owner: ").map_or(rest, |(schema, _)| schema);
            heads.push((at, end, Entry { kind, schema, name, sql: "" }));
        }
        at = end;
    }
    let ends: Vec<usize> = heads.iter().skip(1).map(|(at, ..)| *at).chain([text.len()]).collect();
    let each = heads.into_iter().zip(ends);
    each.map(|((_, from, entry), to)| Entry { sql: text.get(from..to).unwrap_or_default(), ..entry }).collect()
}

/// Makes tables by such a definition.
///
/// # Errors
/// They cannot be made.
pub async fn make(live: &mut PgConnection, definition: &str) -> Result<()> {
    run(live, definition).await.map_err(|e| {
        e.why("a table that is gone cannot be made again as it was")
            .hint("make what it needs first (types, functions, roles), or bring the other tables back with it")
    })
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
