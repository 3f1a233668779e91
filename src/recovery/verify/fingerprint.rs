//! Fingerprints: every row of the source that the shadow must hold is there, byte for byte.
//!
//! Sums of row hashes, never XOR (which cancels equal rows in pairs). The shadow is a physical copy of the same history, so a
//! row that nobody changed since has the same place and the same hash on both sides.

use futures::TryStreamExt;
use futures::future::BoxFuture;
use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::{Boundary, check};
use crate::error::{Context, Result};
use crate::model::event::{Check, Verdict};
use crate::postgres::connect::{describe, query_error, quote_ident, sqlstate};
use crate::recovery::pages::{self, Damaged};
use crate::recovery::tables::{Column, Table};
use crate::recovery::watch::check_cancel;

/// Types whose values are equal exactly when they are the same bytes, so that a record's hash may take them as they are.
/// Numbers like 1.0 and 1.00 hash alike and floats have two zeros: those go by their text. Of `character(n)` every value is filled
/// up to the same length; `bpchar` without one may differ in blanks at its end, which the hash leaves out.
const RECORD_HASH: [&str; 15] = [
    "smallint",
    "integer",
    "bigint",
    "boolean",
    "text",
    "character varying",
    "character",
    "uuid",
    "date",
    "bytea",
    "oid",
    "name",
    "timestamp with time zone",
    "timestamp without time zone",
    "inet",
];

/// Result for one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableResult {
    /// The check.
    pub check: Check,
    /// Rows in the shadow.
    pub rows: u64,
    /// Rows of the shadow that the source changed or deleted since.
    pub changed_since: u64,
    /// Pages of the source that fail their checksum, when the shadow can be read where they are.
    pub healed: Option<Damaged>,
}

/// One side of a comparison.
pub struct Side<'a> {
    /// Connection.
    pub c: &'a mut PgConnection,
    /// The table as that side knows it.
    pub table: &'a Table,
}

/// Whether a column's values may be hashed as they are.
fn as_it_is(column: &Column) -> bool {
    // A length or a precision changes nothing, wherever it stands: `timestamp(3) with time zone`. Arrays keep their brackets.
    let ty = match (column.ty.find('('), column.ty.find(')')) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &column.ty[..from], &column.ty[to + 1..]),
        _ => column.ty.clone(),
    };
    column.kind == "b" && RECORD_HASH.contains(&ty.as_str())
}

/// The SQL expression that hashes a row of alias `t`, on copies of one cluster's files: columns as they are where equal values are
/// the same bytes, else by their text. Written `t.*` where that does: a table may have a column named `t`.
pub fn row_hash(table: &Table) -> String {
    if table.columns.iter().all(as_it_is) {
        return "pg_catalog.hash_record_extended(t.*, 0)".into();
    }
    let each = table.columns.iter().map(|c| {
        let name = format!("t.{}", quote_ident(&c.name));
        if as_it_is(c) { name } else { format!("({name})::text COLLATE \"C\"") }
    });
    format!("pg_catalog.hash_record_extended(ROW({}), 0)", each.collect::<Vec<_>>().join(", "))
}

/// Compares one table: the rows that must be unchanged, as one sum; if that differs, row by row.
///
/// # Errors
/// A connection fails or somebody asked to stop; a table that cannot be read now is a check that was not available.
pub async fn compare_table(
    source: Side<'_>,
    shadow: Side<'_>,
    boundary: &Boundary,
    cancel: &CancellationToken,
) -> Result<TableResult> {
    let (theirs, ours) = (source.table, shadow.table);
    let name = format!("fingerprint {}", ours.name);
    let result = |verdict, detail: String, rows, changed_since| {
        Ok(TableResult { check: check(name.clone(), verdict, detail), rows, changed_since, healed: None })
    };
    if theirs.columns != ours.columns {
        return result(Verdict::NotAvailable, "its columns were changed after the moment".into(), 0, 0);
    }
    let hash = &*row_hash(ours);
    let (theirs_sum, ours_sum) =
        tokio::join!(sum(source.c, theirs, hash, Some(boundary), ""), sum(shadow.c, ours, hash, None, ""));
    let (theirs_sum, ours_sum) = (theirs_sum?, ours_sum?);
    if let (Err(unread), Ok((all, _))) = (&theirs_sum, &ours_sum)
        && unread.damaged
        && let Some(damaged) = pages::look(source.c, theirs).await?
    {
        return around(source, shadow, hash, boundary, (damaged, *all)).await;
    }
    let ((old, old_sum), (all, all_sum)) = match (theirs_sum, ours_sum) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(e), _) => return result(Verdict::NotAvailable, format!("cannot be read in the source: {}", e.why), 0, 0),
        (_, Err(e)) if e.damaged => {
            return result(Verdict::Failed, format!("cannot be read in the shadow: {}", e.why), 0, 0);
        }
        (_, Err(e)) => {
            let why = format!(
                "cannot be read in the shadow: {}; a recovery paused in a change of this table holds its lock",
                e.why
            );
            return result(Verdict::NotAvailable, why, 0, 0);
        }
    };
    if (old, &old_sum) == (all, &all_sum) {
        return result(Verdict::Passed, format!("{all} rows equal, none changed since"), all, 0);
    }
    if old > all {
        let detail = format!("{old} rows from before the moment in the source, only {all} in the shadow");
        return result(Verdict::Failed, detail, all, 0);
    }
    let place = if theirs.filenode == ours.filenode && theirs.filenode != 0 {
        "t.ctid::text".to_string()
    } else if ours.key.is_empty() {
        let why = "the table was rewritten since and has no primary key to pair its rows by";
        return result(Verdict::NotAvailable, why.into(), all, 0);
    } else {
        let key: Vec<String> = ours.key.iter().map(|k| format!("t.{}::text", quote_ident(k))).collect();
        format!("ROW({})::text", key.join(", "))
    };
    let difference = row_by_row(source, shadow, &Terms { place: &place, hash, boundary }, cancel).await?;
    if difference.bad == 0 {
        let detail = format!("{} rows equal, {} changed or deleted since", difference.same, all - difference.same);
        return result(Verdict::Passed, detail, all, all - difference.same);
    }
    let detail = format!(
        "{} rows from before the moment differ or are missing in the shadow, such as {}",
        difference.bad,
        difference.examples.join(" ")
    );
    result(Verdict::Failed, detail, all, all.saturating_sub(difference.same))
}

/// Compares what stands around pages of the source that fail their checksum: places are the same on both sides.
async fn around(
    source: Side<'_>,
    shadow: Side<'_>,
    hash: &str,
    boundary: &Boundary,
    (damaged, all): (Damaged, u64),
) -> Result<TableResult> {
    let same_places = source.table.filenode == shadow.table.filenode && source.table.filenode != 0;
    let (mut rows, mut equal) = (0, same_places && !damaged.more);
    let mut unread = None;
    pages::by_ranges(source.c, true).await?;
    for stretch in damaged.around().iter().take_while(|_| same_places) {
        let theirs = sum(source.c, source.table, hash, Some(boundary), stretch).await?;
        let ours = sum(shadow.c, shadow.table, hash, None, stretch).await?;
        match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => {
                equal &= theirs == ours;
                rows += theirs.0;
            }
            (Err(e), _) => unread = Some(format!("more of it cannot be read: {}", e.why)),
            (_, Err(e)) => unread = Some(format!("here some cannot be read: {}", e.why)),
        }
    }
    pages::by_ranges(source.c, false).await?;
    let (verdict, others) = match (unread, equal) {
        (Some(why), _) => (Verdict::NotAvailable, why),
        (None, true) => (Verdict::Passed, format!("the {rows} rows on the other pages are equal")),
        (None, false) => (Verdict::NotAvailable, "the other pages were written since and are not compared".to_string()),
    };
    let name = format!("fingerprint {}", shadow.table.name);
    let detail = format!("in the source damaged: {}; here all {all} rows can be read, {others}", damaged.describe());
    Ok(TableResult { check: check(name, verdict, detail), rows: all, changed_since: 0, healed: Some(damaged) })
}

/// Why a table cannot be read, and whether because a page of it is damaged.
struct Unread {
    why: String,
    damaged: bool,
}

type Readable<T> = std::result::Result<T, Unread>;

/// Rows and the sum of their hashes, as text: a sum may exceed 64 bits, and the server adds them up in 128. `stretch` is a
/// condition on `ctid`, or nothing.
async fn sum(
    c: &mut PgConnection,
    table: &Table,
    hash: &str,
    boundary: Option<&Boundary>,
    stretch: &str,
) -> Result<Readable<(u64, String)>> {
    let mut condition = boundary.map_or_else(|| "true".to_string(), Boundary::sql);
    if !stretch.is_empty() {
        condition = format!("{condition} AND {stretch}");
    }
    let sql = format!("SELECT count(*), coalesce(sum({hash}), 0)::text FROM ONLY {} t WHERE {condition}", table.sql);
    match sqlx::query_as::<_, (i64, String)>(&sql).fetch_one(&mut *c).await {
        Ok((n, sum)) => Ok(Ok((u64::try_from(n).unwrap_or(0), sum))),
        Err(e) if sqlstate(&e).is_some() => {
            let damaged = sqlstate(&e).as_deref() == Some(pages::DATA_CORRUPTED);
            Ok(Err(Unread { why: describe(&e), damaged }))
        }
        Err(e) => Err(query_error(&sql, &e)),
    }
}

/// What identifies a row, its hash, and which rows count.
struct Terms<'a> {
    place: &'a str,
    hash: &'a str,
    boundary: &'a Boundary,
}

struct Difference {
    same: u64,
    bad: u64,
    examples: Vec<String>,
}

/// Walks both tables in the order of their rows' places and finds each old row of the source in the shadow. Holds one row
/// of each in memory, whatever the size.
fn row_by_row<'a>(
    source: Side<'a>,
    shadow: Side<'a>,
    terms: &'a Terms<'a>,
    cancel: &'a CancellationToken,
) -> BoxFuture<'a, Result<Difference>> {
    Box::pin(walk(source, shadow, terms, cancel))
}

async fn walk(source: Side<'_>, shadow: Side<'_>, terms: &Terms<'_>, cancel: &CancellationToken) -> Result<Difference> {
    let (theirs, ours) = (source.table, shadow.table);
    let Terms { place, hash, boundary } = terms;
    let sql = |table: &Table, condition: String| {
        format!(
            "SELECT place COLLATE \"C\" AS place, hash FROM (SELECT {place} AS place, {hash}::int8 AS hash FROM ONLY {} t \
             WHERE {condition}) r ORDER BY 1",
            table.sql
        )
    };
    let (left_sql, right_sql) = (sql(theirs, boundary.sql()), sql(ours, "true".into()));
    let mut left = sqlx::query(&left_sql).fetch(source.c);
    let mut right = sqlx::query(&right_sql).fetch(shadow.c);
    let what = || format!("cannot compare {}", ours.name);
    let read = |row: &sqlx::postgres::PgRow| -> Result<(String, i64)> {
        Ok((row.try_get(0).target(what)?, row.try_get(1).target(what)?))
    };
    let mut out = Difference { same: 0, bad: 0, examples: Vec::new() };
    let mut other = right.try_next().await.map_err(|e| query_error(&right_sql, &e))?.map(|r| read(&r)).transpose()?;
    let mut n = 0u64;
    while let Some(row) = left.try_next().await.map_err(|e| query_error(&left_sql, &e))? {
        let (place, hash) = read(&row)?;
        n += 1;
        if n.is_multiple_of(4096) {
            check_cancel(cancel, "the shadow is not verified")?;
        }
        while other.as_ref().is_some_and(|(p, _)| p.as_bytes() < place.as_bytes()) {
            other = right.try_next().await.map_err(|e| query_error(&right_sql, &e))?.map(|r| read(&r)).transpose()?;
        }
        if other.as_ref().is_some_and(|(p, h)| *p == place && *h == hash) {
            out.same += 1;
        } else {
            out.bad += 1;
            if out.examples.len() < 3 {
                out.examples.push(crate::model::CleanText::line(place.as_bytes()).to_string());
            }
        }
    }
    Ok(out)
}
