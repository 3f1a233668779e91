//! Comparing two databases: what they consist of, and every row. Each side is read in one snapshot.

pub mod objects;
pub mod ranges;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use self::ranges::{Range, Terms};
use super::tables::{Column, Table, only_named, user_tables};
use super::verify::fingerprint::row_hash;
use super::watch::{Phase, Watch, check_cancel};
use crate::error::Result;
use crate::postgres::connect::{describe, query_error, quote_ident, run, sqlstate};

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only these tables, with what belongs to them; everything when empty.
    pub tables: Vec<String>,
    /// Categories to leave out, see [`objects::CATEGORIES`] and `rows`.
    pub skip: Vec<String>,
    /// Compare rows by their text, also between physical copies.
    pub text: bool,
}

/// How rows were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// By the server's hash of the record: physical copies. Columns of types whose equal values may be other bytes go by text.
    Record,
    /// By the hash of the columns' text: any two copies, also of different versions.
    Text,
}

/// One table on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableResult {
    /// `schema.table`.
    pub table: String,
    /// Whether all rows are equal; none when it could not be found out.
    pub equal: Option<bool>,
    /// Rows in the source.
    pub source_rows: u64,
    /// Rows in the shadow.
    pub shadow_rows: u64,
    /// Sum of the row hashes in the source, as text.
    pub source_fingerprint: String,
    /// Sum of the row hashes in the shadow, as text.
    pub shadow_fingerprint: String,
    /// How.
    pub form: Form,
    /// Where they differ, by primary key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
    /// Why nothing more is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Something that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// `columns`, `indexes`, `privileges`, ….
    pub category: String,
    /// Its name.
    pub name: String,
    /// As it is in the source; none when it is not there.
    pub source: Option<String>,
    /// As it is in the shadow; none when it is not there.
    pub shadow: Option<String>,
}

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Nothing differs, and everything could be compared.
    pub equal: bool,
    /// Rows.
    pub tables: Vec<TableResult>,
    /// Everything else.
    pub differences: Vec<Difference>,
    /// Categories that could not be read on one side, with the reason: what is in them is not called equal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// How many things of each category were compared.
    pub compared: BTreeMap<String, u64>,
    /// What has rows on either side that were not compared, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<String>,
}

/// Compares two databases. `physical` says that one is a file copy of the other's cluster.
///
/// # Errors
/// A connection or a query fails, a table named does not exist, or stopped on request. A difference is no error.
pub async fn compare(
    source: &mut PgConnection,
    shadow: &mut PgConnection,
    physical: bool,
    options: &Options,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Compared> {
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL xmloption = content";
    let (a, b) = tokio::join!(run(source, snapshot), run(shadow, snapshot));
    a?;
    b?;
    let mut out = Compared {
        equal: true,
        tables: Vec::new(),
        differences: Vec::new(),
        unread: Vec::new(),
        compared: BTreeMap::new(),
        not_compared: Vec::new(),
    };
    let sides = (user_tables(source).await?, user_tables(shadow).await?);
    let wanted = wanted(&sides, options)?;
    let only = (!options.tables.is_empty()).then(|| with_families(&wanted, &options.tables));
    for (category, sql) in objects::CATEGORIES {
        if options.skip.iter().any(|s| s == category) || (only.is_some() && !objects::OF_TABLES.contains(category)) {
            continue;
        }
        check_cancel(cancel, "the comparison is not complete")?;
        let only = only.as_deref();
        let (here, there) = tokio::join!(listed(source, sql, only), listed(shadow, sql, only));
        let (here, there) = match (here?, there?) {
            (Ok(here), Ok(there)) => (here, there),
            (Err(why), _) => {
                out.unread.push(format!("{category} cannot be read in the source: {why}"));
                continue;
            }
            (_, Err(why)) => {
                out.unread.push(format!("{category} cannot be read in the shadow: {why}"));
                continue;
            }
        };
        out.compared.insert((*category).to_string(), here.len().max(there.len()) as u64);
        out.differences.extend(objects::differences(category, &here, &there));
    }
    if !options.skip.iter().any(|s| s == "rows") {
        let text = options.text || !physical;
        rows((source, &sides.0), (shadow, &sides.1), &wanted, text, watch, cancel, &mut out).await?;
        if options.tables.is_empty() {
            out.not_compared = objects::without_rows(source, shadow).await?;
        }
    }
    run(source, "ROLLBACK").await?;
    run(shadow, "ROLLBACK").await?;
    out.equal = out.differences.is_empty() && out.unread.is_empty() && out.tables.iter().all(|t| t.equal == Some(true));
    Ok(out)
}

/// The tables to compare, as either side has them.
fn wanted((here, there): &(Vec<Table>, Vec<Table>), options: &Options) -> Result<Vec<Table>> {
    let mut all: Vec<&Table> = here.iter().collect();
    all.extend(there.iter().filter(|t| !here.iter().any(|h| h.name == t.name)));
    only_named(all.into_iter().cloned().collect(), &options.tables)
}

/// The names of these tables, with those of the partitioned tables that were named by a person.
fn with_families(wanted: &[Table], named: &[String]) -> Vec<String> {
    let by_person =
        |name: &String| named.iter().any(|n| n == name || name.split_once('.').is_some_and(|(_, s)| s == n));
    let families = wanted.iter().map(|t| &t.family).filter(|f| by_person(f));
    let all: BTreeSet<&String> = wanted.iter().map(|t| &t.name).chain(families).collect();
    all.into_iter().cloned().collect()
}

async fn rows(
    (source, here): (&mut PgConnection, &[Table]),
    (shadow, there): (&mut PgConnection, &[Table]),
    wanted: &[Table],
    text: bool,
    watch: &dyn Watch,
    cancel: &CancellationToken,
    out: &mut Compared,
) -> Result<()> {
    let total: u64 = wanted.iter().filter_map(|t| u64::try_from(t.estimate).ok()).sum();
    let mut done = 0u64;
    for t in wanted {
        check_cancel(cancel, "the comparison is not complete")?;
        watch.phase(&Phase {
            name: "rows",
            done,
            total: Some(total.max(done)),
            unit: "rows",
            text: t.name.clone(),
            ..Phase::default()
        });
        let pair = (here.iter().find(|h| h.name == t.name), there.iter().find(|s| s.name == t.name));
        let result = match pair {
            (Some(a), Some(b)) => one_table(source, shadow, a, b, text, cancel).await?,
            (Some(a), None) => one_side(source, a, true).await?,
            (_, _) => one_side(shadow, t, false).await?,
        };
        done += u64::try_from(t.estimate).unwrap_or(0);
        if result.equal != Some(true) {
            watch.line(&result.line());
        }
        out.tables.push(result);
    }
    out.compared.insert("tables".into(), wanted.len() as u64);
    Ok(())
}

fn empty(name: &str, form: Form) -> TableResult {
    TableResult {
        table: name.to_string(),
        equal: None,
        source_rows: 0,
        shadow_rows: 0,
        source_fingerprint: String::new(),
        shadow_fingerprint: String::new(),
        form,
        ranges: Vec::new(),
        note: None,
    }
}

impl TableResult {
    /// One line for people.
    pub fn line(&self) -> String {
        let verdict = match self.equal {
            Some(true) => "equal",
            Some(false) => "DIFFERS",
            None => "not compared",
        };
        let mut out = format!("{verdict:<13} {}: {} rows, {} rows", self.table, self.source_rows, self.shadow_rows);
        for r in self.ranges.iter().take(3) {
            out.push_str(&format!("; {}", r.line()));
        }
        if self.ranges.len() > 3 {
            out.push_str(&format!("; {} more ranges", self.ranges.len() - 3));
        }
        if let Some(n) = &self.note {
            out.push_str(&format!("; {n}"));
        }
        out
    }
}

/// A table that the other side does not have: its rows are counted all the same.
async fn one_side(c: &mut PgConnection, t: &Table, source: bool) -> Result<TableResult> {
    let mut out = TableResult { equal: Some(false), ..empty(&t.name, Form::Text) };
    let place = if source { "only in the source" } else { "only in the shadow" };
    out.note = Some(place.into());
    match sum(c, t, &text_hash(t.columns.iter())).await? {
        Ok(seen) if source => (out.source_rows, out.source_fingerprint) = seen,
        Ok(seen) => (out.shadow_rows, out.shadow_fingerprint) = seen,
        Err(why) => out.note = Some(format!("{place}, and cannot be read there: {why}")),
    }
    Ok(out)
}

/// SQL: the hash of a row's text in these columns.
fn text_hash<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    let columns: Vec<String> = columns.map(|c| format!("t.{}", quote_ident(&c.name))).collect();
    format!("pg_catalog.hashtextextended(ROW({})::text, 0)", columns.join(", "))
}

async fn one_table(
    source: &mut PgConnection,
    shadow: &mut PgConnection,
    a: &Table,
    b: &Table,
    text: bool,
    cancel: &CancellationToken,
) -> Result<TableResult> {
    // The record hash knows nothing of names and casts: only where both sides are the same to the last column.
    let record = !text && a.oid == b.oid && a.columns == b.columns;
    let (form, hash) = if record {
        (Form::Record, row_hash(a))
    } else {
        let common = a.columns.iter().filter(|c| b.columns.iter().any(|d| d.name == c.name));
        (Form::Text, text_hash(common))
    };
    let mut out = empty(&a.name, form);
    let (one, two) = tokio::join!(sum(source, a, &hash), sum(shadow, b, &hash));
    let (one, two) = match (one?, two?) {
        (Ok(one), Ok(two)) => (one, two),
        (Err(why), _) => return Ok(TableResult { note: Some(format!("cannot be read in the source: {why}")), ..out }),
        (_, Err(why)) => return Ok(TableResult { note: Some(format!("cannot be read in the shadow: {why}")), ..out }),
    };
    out.equal = Some(one == two);
    let names = |t: &Table| t.columns.iter().map(|c| c.name.clone()).collect::<BTreeSet<_>>();
    if names(a) != names(b) {
        let common: Vec<String> = names(a).intersection(&names(b)).cloned().collect();
        out.note = Some(format!("compared in the columns that both have: {}", common.join(", ")));
    }
    (out.source_rows, out.source_fingerprint) = one;
    (out.shadow_rows, out.shadow_fingerprint) = two;
    if out.equal == Some(true) {
        return Ok(out);
    }
    if a.key.is_empty() || a.key != b.key {
        let no_key = "no common primary key: the differing rows cannot be named".to_string();
        out.note = Some(out.note.map_or(no_key.clone(), |n| format!("{n}; {no_key}")));
        return Ok(out);
    }
    let terms = Terms { hash: &hash, key: &a.key };
    let rows = (out.source_rows, out.shadow_rows);
    out.ranges = ranges::localise((source, a), (shadow, b), &terms, rows, cancel).await?;
    Ok(out)
}

/// Names and definitions of one category. A definition waits for the lock of its table, which a person may hold.
async fn listed(
    c: &mut PgConnection,
    sql: &str,
    only: Option<&[String]>,
) -> Result<Readable<BTreeMap<String, String>>> {
    run(c, "SAVEPOINT listed").await?;
    match objects::list(c, sql, only).await? {
        Ok(found) => {
            run(c, "RELEASE SAVEPOINT listed").await?;
            Ok(Ok(found))
        }
        Err(why) => {
            run(c, "ROLLBACK TO SAVEPOINT listed").await?;
            Ok(Err(why))
        }
    }
}

/// What was read, or why the server did not let it be read.
pub type Readable<T> = std::result::Result<T, String>;

/// Rows and the sum of their hashes, as text: a sum may exceed 64 bits. The server adds them up in 128 bits.
async fn sum(c: &mut PgConnection, table: &Table, hash: &str) -> Result<Readable<(u64, String)>> {
    let sql = format!("SELECT count(*), coalesce(sum({hash}), 0)::text FROM ONLY {} t", table.sql);
    run(c, "SAVEPOINT one").await?;
    match sqlx::query_as::<_, (i64, String)>(&sql).fetch_one(&mut *c).await {
        Ok((n, sum)) => {
            run(c, "RELEASE SAVEPOINT one").await?;
            Ok(Ok((u64::try_from(n).unwrap_or(0), sum)))
        }
        Err(e) if sqlstate(&e).is_some() => {
            run(c, "ROLLBACK TO SAVEPOINT one").await?;
            Ok(Err(describe(&e)))
        }
        Err(e) => Err(query_error(&sql, &e)),
    }
}
