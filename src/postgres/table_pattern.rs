//! Names of tables with `*` and `?`, resolved to the tables they mean. Unlike those of `pg_dump --table`, patterns know no
//! character classes and no alternatives.

use sqlx::postgres::PgConnection;

use super::connect::{query_error, quote_ident, run};
use crate::error::{Error, Result};

/// A table, view or sequence that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its oid.
    pub oid: u32,
    /// Nobody named it: it holds rows of one that was named, as partition or child of it.
    pub along: bool,
    schema: String,
    name: String,
}

impl Chosen {
    /// A relation that is known by its oid.
    ///
    /// # Errors
    /// There is none of it; the query fails.
    pub async fn of(c: &mut PgConnection, oid: u32) -> Result<Self> {
        let sql = "SELECT n.nspname::text, k.relname::text FROM pg_catalog.pg_class k \
                   JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace WHERE k.oid = $1::int8::oid";
        let (schema, name): (String, String) =
            sqlx::query_as(sql).bind(i64::from(oid)).fetch_one(c).await.map_err(|e| query_error(sql, &e))?;
        Ok(Self { oid, along: false, schema, name })
    }
    /// Its schema.
    pub fn schema(&self) -> &str {
        &self.schema
    }
    /// `"schema"."name"`, which is also a pattern that means nothing else.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }
}

/// Schema, when one is named, and name of a pattern, as regular expressions. Letters outside double quotes are folded to lower
/// case, `*` is any text, `?` any one character, the first dot outside quotes ends the schema.
pub fn expressions(pattern: &str) -> (Option<String>, String) {
    let literal = |part: &mut String, c: char| {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' {
            part.push('\\');
        }
        part.push(c);
    };
    let (mut schema, mut part, mut quoted) = (None, String::new(), false);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                literal(&mut part, '"');
            }
            '"' => quoted = !quoted,
            c if quoted => literal(&mut part, c),
            '.' if schema.is_none() => schema = Some(std::mem::take(&mut part)),
            '*' => part.push_str(".*"),
            '?' => part.push('.'),
            c => c.to_lowercase().for_each(|c| literal(&mut part, c)),
        }
    }
    (schema.map(|s| format!("^({s})$")), format!("^({part})$"))
}

/// The tables, views and sequences that any of the patterns means, with all partitions of a partitioned table and all that inherits
/// from one. Names without a
/// schema are looked for where a session of this role would find them.
///
/// # Errors
/// Usage when one of them means none; a query fails.
pub async fn resolve(c: &mut PgConnection, patterns: &[String]) -> Result<Vec<Chosen>> {
    let sql = "WITH RECURSIVE named AS (SELECT k.oid FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace \
               WHERE k.relkind IN ('r', 'p', 'S', 'v', 'm', 'f') AND k.relpersistence <> 't' AND k.relname ~ $1 \
                 AND CASE WHEN $2::text IS NULL THEN pg_catalog.pg_table_is_visible(k.oid) ELSE n.nspname ~ $2 END), \
               whole AS (SELECT oid FROM named UNION SELECT i.inhrelid FROM whole w JOIN pg_catalog.pg_inherits i ON i.inhparent = w.oid) \
               SELECT k.oid::int8, k.oid NOT IN (SELECT oid FROM named), n.nspname::text, k.relname::text FROM whole \
               JOIN pg_catalog.pg_class k USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace \
               WHERE k.relpersistence <> 't' ORDER BY k.oid";
    run(c, "SELECT pg_catalog.set_config('search_path', reset_val, false) FROM pg_catalog.pg_settings WHERE name = 'search_path'")
        .await?;
    let mut found: Vec<Chosen> = Vec::new();
    let mut nothing: Vec<String> = Vec::new();
    for pattern in patterns {
        let (schema, name) = expressions(pattern);
        let rows: Vec<(i64, bool, String, String)> =
            sqlx::query_as(sql).bind(name).bind(schema).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))?;
        if rows.is_empty() {
            nothing.push(format!("{pattern:?}"));
        }
        for (oid, along, schema, name) in rows {
            found.push(Chosen { oid: u32::try_from(oid).unwrap_or(0), along, schema, name });
        }
    }
    run(c, "SET search_path = pg_catalog").await?;
    // One that another pattern names was named.
    found.sort_by_key(|k| (k.oid, k.along));
    found.dedup_by_key(|k| k.oid);
    // Not even when others mean some: what was asked for would be missing from the backup, and nobody would know.
    if !nothing.is_empty() {
        return Err(Error::usage(format!("no table is called {}", nothing.join(" or ")))
            .why("no matching tables were found in the database, and nothing was stored")
            .hint("A pattern is NAME or SCHEMA.NAME, where * is any text and ? any one character; every other sign means itself.")
            .hint("Capitals, dots, * and ? of a name itself go between double quotes: '\"Orders\"'."));
    }
    Ok(found)
}
