//! The user tables of a database, and transactions as they are seen through the marks on rows.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::postgres::connect::{query_error, quote_ident, run, sqlstate};
use crate::postgres::table_needs;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Type as `format_type` writes it.
    pub ty: String,
    /// `pg_type.typtype`: `b` base, `e` enum, `d` domain, …; `n` where the collation takes different texts for equal.
    pub kind: String,
    /// May not be null.
    pub not_null: bool,
}

/// A table with rows of its own (partitions are listed, their parents are not).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// OID.
    pub oid: u32,
    /// `schema.table` for people; a partition carries its own name.
    pub name: String,
    /// Name of the partitioned table it belongs to, else its own.
    pub family: String,
    /// Quoted for SQL.
    pub sql: String,
    /// File it is stored in; changes when the table is rewritten.
    pub filenode: u32,
    /// Estimated rows; below zero when never analysed.
    pub estimate: i64,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Names of the primary key's columns, in order; empty without one.
    pub key: Vec<String>,
}

/// The table of that name on the other side, when this one was dropped there and made again: it is another one by number, and
/// what is in it may be the same.
pub fn made_again<'t>(table: &Table, ours: &[Table], theirs: &'t [Table]) -> Option<&'t Table> {
    let there = |all: &[Table], oid: u32| all.iter().any(|t| t.oid == oid);
    let other = theirs.iter().find(|t| t.name == table.name && !there(ours, t.oid))?;
    (!there(theirs, table.oid)).then_some(other)
}

/// All permanent user tables, by name. Extensions' own tables are left out.
///
/// # Errors
/// A query fails.
pub async fn user_tables(c: &mut PgConnection) -> Result<Vec<Table>> {
    let sql = "SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, \
        coalesce(pg_relation_filenode(c.oid), 0)::int8 AS filenode, c.reltuples::int8 AS estimate, \
        coalesce((SELECT rn.nspname || '.' || rc.relname FROM pg_catalog.pg_class rc \
                  JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace \
                  WHERE rc.oid = pg_catalog.pg_partition_root(c.oid)), n.nspname || '.' || c.relname)::text AS family, \
        ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a \
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS names, \
        ARRAY(SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a \
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS types, \
        ARRAY(SELECT CASE WHEN l.collisdeterministic IS FALSE THEN 'n' ELSE t.typtype::text END \
              FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
              LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS kinds, \
        ARRAY(SELECT a.attnotnull FROM pg_catalog.pg_attribute a \
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS not_null, \
        ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place) \
              JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum \
              WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid ORDER BY k.place) AS key \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
          AND n.nspname NOT LIKE 'pg\\_%' \
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
                          AND d.objid = c.oid AND d.deptype = 'e') \
        ORDER BY 2, 3";
    let rows = sqlx::query(sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let what = || "cannot read the list of tables".to_string();
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let schema: String = row.try_get("schema").target(what)?;
        let name: String = row.try_get("name").target(what)?;
        let names: Vec<String> = row.try_get("names").target(what)?;
        let types: Vec<String> = row.try_get("types").target(what)?;
        let kinds: Vec<String> = row.try_get("kinds").target(what)?;
        let not_null: Vec<bool> = row.try_get("not_null").target(what)?;
        let columns = names
            .into_iter()
            .zip(types)
            .zip(kinds)
            .zip(not_null)
            .map(|(((name, ty), kind), not_null)| Column { name, ty, kind, not_null })
            .collect();
        let number =
            |column: &str| -> Result<u32> { u32::try_from(row.try_get::<i64, _>(column).target(what)?).target(what) };
        out.push(Table {
            oid: number("oid")?,
            sql: format!("{}.{}", quote_ident(&schema), quote_ident(&name)),
            name: format!("{schema}.{name}"),
            family: row.try_get("family").target(what)?,
            filenode: number("filenode")?,
            estimate: row.try_get("estimate").target(what)?,
            columns,
            key: row.try_get("key").target(what)?,
        });
    }
    Ok(out)
}

/// SQL that pairs the rows of a table with values of some of its columns, handed over as one array of texts a column.
#[derive(Debug, Clone)]
pub struct ByValues {
    /// What goes into `unnest(…)`.
    pub arrays: String,
    /// Names of its columns.
    pub names: String,
    /// The condition on the rows, the table being `t` and the values `k`.
    pub condition: String,
}

impl ByValues {
    /// Of these columns, as this table has them.
    pub fn of(table: &Table, columns: &[String]) -> Self {
        let each = |f: &dyn Fn(usize, &String) -> String, between| {
            columns.iter().enumerate().map(|(i, c)| f(i, c)).collect::<Vec<_>>().join(between)
        };
        let ty = |name: &String| table.columns.iter().find(|c| c.name == *name).map_or("text", |c| c.ty.as_str());
        Self {
            arrays: each(&|i, c| format!("${}::text[]::{}[]", i + 1, ty(c)), ", "),
            names: each(&|i, _| format!("k{i}"), ", "),
            condition: each(&|i, c| format!("t.{} = k.k{i}", quote_ident(c)), " AND "),
        }
    }

    /// The array of one column out of rows of values.
    pub fn column(rows: &[Vec<String>], at: usize) -> Vec<String> {
        rows.iter().map(|row| row.get(at).cloned().unwrap_or_default()).collect()
    }
}

/// Keeps the tables a person named, `schema.table` or just `table`; all when none is named.
///
/// # Errors
/// A name fits no table.
pub fn only_named(tables: Vec<Table>, wanted: &[String]) -> Result<Vec<Table>> {
    if wanted.is_empty() {
        return Ok(tables);
    }
    let fits = |t: &Table, w: &str| {
        let plain = unquoted(w);
        [&t.name, &t.family]
            .iter()
            .any(|n| *n == w || n.split_once('.').is_some_and(|(_, short)| short == w) || plain.as_ref() == Some(*n))
            || t.sql == w
            || plain.as_ref().is_some_and(|p| !p.is_empty() && t.sql.ends_with(&format!(".{}", quote_ident(p))))
    };
    for w in wanted {
        if !tables.iter().any(|t| fits(t, w)) {
            return Err(
                Error::usage(format!("there is no table {w:?}")).hint(format!("there are {}", some_of(&tables)))
            );
        }
    }
    Ok(tables.into_iter().filter(|t| wanted.iter().any(|w| fits(t, w))).collect())
}

/// A name as SQL writes it, `"a ""b".c`: its parts with a point between them; none where nothing is in quotes, or they do not match.
fn unquoted(name: &str) -> Option<String> {
    if !name.contains('"') {
        return None;
    }
    let (mut out, mut within) = (String::new(), false);
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if within && chars.peek() == Some(&'"') => {
                chars.next();
                out.push('"');
            }
            '"' => within = !within,
            // What stands without quotes is folded, as SQL folds it.
            c if !within => out.extend(c.to_lowercase()),
            c => out.push(c),
        }
    }
    (!within).then_some(out)
}

/// The names of some tables for people, partitions under the table they belong to.
fn some_of(tables: &[Table]) -> String {
    let mut seen = BTreeSet::new();
    let all = tables.iter().map(|t| t.family.as_str()).filter(|n| seen.insert(*n));
    let word = |n: &str| if n.chars().any(char::is_control) { format!("{n:?}") } else { n.to_string() };
    table_needs::some_of(&all.map(word).collect::<Vec<_>>())
}

/// A committed transaction as its marks on rows show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its own id and those of its subtransactions that are seen on rows, ascending.
    pub xids: Vec<u32>,
    /// Commit time.
    pub at: Time,
    /// Rows that still carry its mark, per table (partitions under their parent).
    pub rows: BTreeMap<String, u64>,
}

impl Transaction {
    /// All rows.
    pub fn total(&self) -> u64 {
        self.rows.values().sum()
    }
}

/// An error unless the server records commit times: without them no row tells when it was written.
///
/// # Errors
/// `track_commit_timestamp` is off, or the query fails.
pub async fn require_commit_times(c: &mut PgConnection) -> Result<()> {
    if commit_times(c).await? {
        return Ok(());
    }
    Err(Error::target("the server does not record commit times (track_commit_timestamp is off)")
        .why("without them no row tells when it was written")
        .hint(
            "the archived log knows it all the same, with BACKUP_DIR and its key: breakglass assess --deleted for what is gone, \
             breakglass pitr locate for the moment",
        )
        .hint("without an archive choose the moment from deploy times and application logs: pitr restore --to 2026-11-20T14:01:07Z")
        .hint("for the next time: set track_commit_timestamp = on and restart the server"))
}

/// Whether the server records commit times.
///
/// # Errors
/// The query fails.
pub async fn commit_times(c: &mut PgConnection) -> Result<bool> {
    let sql = "SELECT pg_catalog.current_setting('track_commit_timestamp') = 'on'";
    sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))
}

/// The transactions of one table whose rows still show them and that committed at or after `since`: id, rows, time.
/// `Err(reason)` inside when the table cannot be read now (locked, no permission): known to the caller, not fatal.
///
/// Must run inside a transaction: it uses a savepoint.
///
/// # Errors
/// The connection fails.
pub async fn marks(
    c: &mut PgConnection,
    table: &Table,
    since: Time,
) -> Result<std::result::Result<Vec<(u32, u64, Time)>, String>> {
    // Grouped first: the commit time is then looked up once a transaction, not once a row.
    let sql = format!(
        "SELECT g.x::text::int8 AS xid, g.n, (extract(epoch FROM t.at) * 1000000)::int8 AS at \
         FROM (SELECT xmin AS x, count(*) AS n FROM ONLY {} GROUP BY xmin) g, \
         LATERAL (SELECT pg_catalog.pg_xact_commit_timestamp(g.x) AS at OFFSET 0) t \
         WHERE t.at >= pg_catalog.to_timestamp({}::numeric / 1000000)",
        table.sql,
        since.micros()
    );
    run(c, "SAVEPOINT marks").await?;
    match sqlx::query(&sql).fetch_all(&mut *c).await {
        Ok(rows) => {
            run(c, "RELEASE SAVEPOINT marks").await?;
            let what = || format!("cannot read the transactions of {}", table.name);
            let mut out = Vec::with_capacity(rows.len());
            for row in rows {
                let xid = u32::try_from(row.try_get::<i64, _>("xid").target(what)?).target(what)?;
                let n = u64::try_from(row.try_get::<i64, _>("n").target(what)?).target(what)?;
                out.push((xid, n, Time::from_micros(row.try_get("at").target(what)?)));
            }
            Ok(Ok(out))
        }
        Err(e) if sqlstate(&e).is_some() => {
            run(c, "ROLLBACK TO SAVEPOINT marks").await?;
            Ok(Err(crate::postgres::connect::describe(&e)))
        }
        Err(e) => Err(query_error(&sql, &e)),
    }
}

/// Joins the marks of all tables into transactions, earliest first. Ids with one commit time are one transaction: a
/// subtransaction carries its parent's time, to the microsecond.
pub fn into_transactions(marks: impl IntoIterator<Item = (String, u32, u64, Time)>) -> Vec<Transaction> {
    let mut by_time: BTreeMap<Time, Transaction> = BTreeMap::new();
    for (table, xid, rows, at) in marks {
        let t = by_time.entry(at).or_insert_with(|| Transaction { xids: Vec::new(), at, rows: BTreeMap::new() });
        if !t.xids.contains(&xid) {
            t.xids.push(xid);
        }
        *t.rows.entry(table).or_default() += rows;
    }
    by_time
        .into_values()
        .map(|mut t| {
            t.xids.sort_unstable();
            t
        })
        .collect()
}
