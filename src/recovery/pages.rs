//! Pages that fail their checksum: which of a table's cannot be read, and what around them still can.
//!
//! The server refuses such a page by SQLSTATE XX001 and names its number. Ranges of `ctid` (PostgreSQL 14 and later read only
//! the pages of a range) go around it, so that all damaged pages of a table are named after as many queries as there are.
//! Only reading from disk finds them: a page that the server still holds in memory is not looked at again.

use sqlx::postgres::PgConnection;

use super::tables::Table;
use crate::error::Result;
use crate::model::Time;
use crate::postgres::connect::{describe, query_error, run, sqlstate};

/// SQLSTATE `data_corrupted`.
pub const DATA_CORRUPTED: &str = "XX001";
/// So many damaged pages of one table are named; with more the table is lost as a whole.
const MOST: usize = 1000;

/// A table with damaged pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// `schema.table`.
    pub table: String,
    /// Numbers of the damaged pages, ascending.
    pub pages: Vec<u64>,
    /// Pages the table has.
    pub of: u64,
    /// Rows that stood on them, by what a page of this table holds on average.
    pub rows: u64,
    /// Whether there may be more than these.
    pub more: bool,
}

impl Damaged {
    /// `public.orders: pages 12, 13 of 1200, about 40 rows`.
    pub fn describe(&self) -> String {
        let shown: Vec<String> = self.pages.iter().take(12).map(u64::to_string).collect();
        let cut =
            if self.pages.len() > shown.len() { format!(", … ({} in all)", self.pages.len()) } else { String::new() };
        let word = if self.pages.len() == 1 { "page" } else { "pages" };
        let more = if self.more { ", and perhaps more" } else { "" };
        format!("{}: {word} {}{cut} of {}{more}, about {} rows", self.table, shown.join(", "), self.of, self.rows)
    }

    /// SQL conditions on `ctid`, one for each stretch of pages that can be read.
    pub fn around(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut from = 0;
        for page in self.pages.iter().copied().chain([self.of.max(self.pages.last().map_or(0, |p| p + 1))]) {
            if page > from {
                out.push(stretch(from, Some(page)));
            }
            from = page + 1;
        }
        if !self.more {
            // What is appended meanwhile.
            let end = self.of.max(self.pages.last().map_or(0, |p| p + 1));
            out.push(stretch(end, None));
        }
        out
    }
}

fn stretch(from: u64, to: Option<u64>) -> String {
    let to = to.map_or_else(String::new, |to| format!(" AND ctid < '({to},0)'::pg_catalog.tid"));
    format!("ctid >= '({from},0)'::pg_catalog.tid{to}")
}

/// The damaged pages of a table; none when every page can be read. Must not run inside a transaction: a page that cannot be
/// read would end it.
///
/// # Errors
/// The table cannot be read for another reason.
pub async fn look(c: &mut PgConnection, table: &Table) -> Result<Option<Damaged>> {
    by_ranges(c, true).await?;
    let found = walk(c, table).await;
    by_ranges(c, false).await?;
    found
}

/// Whether the connection reads a table in the order of its pages and only the ranges asked for. Left to itself the planner may
/// read all of a large one in parallel, and meets the damaged page it should go around.
///
/// # Errors
/// The connection is gone.
pub async fn by_ranges(c: &mut PgConnection, on: bool) -> Result<()> {
    run(
        c,
        match on {
            true => "SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off; SET enable_seqscan = off",
            false => "RESET max_parallel_workers_per_gather; RESET synchronize_seqscans; RESET enable_seqscan",
        },
    )
    .await
}

/// The pages of a table that cannot be read, when the server counted any in this database. What it has not met yet is missing:
/// [`found_more`] after a query that failed.
///
/// # Errors
/// A query fails.
pub async fn unreadable(c: &mut PgConnection, table: &Table) -> Result<Option<Damaged>> {
    match counted(c).await? {
        Some((1.., _)) => look(c, table).await,
        _ => Ok(None),
    }
}

/// After a query over a table failed: looks again, and tells whether more of its pages cannot be read than were known. Then
/// the query is worth another try around them. A page is found on disk only when it left the server's memory.
///
/// # Errors
/// The table cannot be read for another reason.
pub async fn found_more(c: &mut PgConnection, table: &Table, known: &mut Option<Damaged>) -> Result<bool> {
    let now = look(c, table).await?;
    let count = |d: &Option<Damaged>| d.as_ref().map_or(0, |d| d.pages.len());
    let more = count(&now) > count(known);
    if more {
        *known = now;
    }
    Ok(more)
}

/// SQL conditions that together cover what can be read of a table.
pub fn readable(damaged: Option<&Damaged>) -> Vec<String> {
    damaged.map_or_else(|| vec!["true".to_string()], Damaged::around)
}

async fn walk(c: &mut PgConnection, table: &Table) -> Result<Option<Damaged>> {
    let sql = format!(
        "SELECT pg_catalog.pg_relation_size({0}::oid::regclass) / pg_catalog.current_setting('block_size')::int8, \
         greatest(0, c.reltuples)::int8, greatest(1, c.relpages)::int8 FROM pg_catalog.pg_class c WHERE c.oid = {0}",
        table.oid
    );
    let (of, rows, pages): (i64, i64, i64) =
        sqlx::query_as(&sql).fetch_one(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
    let mut found: Vec<u64> = Vec::new();
    let (mut from, mut more) = (0u64, false);
    loop {
        let sql = format!("SELECT count(*) FROM ONLY {} WHERE {}", table.sql, stretch(from, None));
        match sqlx::query(&sql).fetch_one(&mut *c).await {
            Ok(_) => break,
            Err(e) if sqlstate(&e).as_deref() == Some(DATA_CORRUPTED) => {
                // A server before 14 reads all pages for every range, and meets the first one again.
                match number(&describe(&e)) {
                    Some(page) if page >= from && found.len() < MOST => {
                        found.push(page);
                        from = page + 1;
                    }
                    _ if found.is_empty() => return Err(query_error(&sql, &e)),
                    _ => {
                        more = true;
                        break;
                    }
                }
            }
            Err(e) => return Err(query_error(&sql, &e)),
        }
    }
    let each = u64::try_from(rows / pages.max(1)).unwrap_or(0).max(1);
    Ok((!found.is_empty()).then(|| Damaged {
        table: table.name.clone(),
        rows: each * found.len() as u64,
        pages: found,
        of: u64::try_from(of).unwrap_or(0),
        more,
    }))
}

/// The first number of `invalid page in block 12 of relation base/5/16400`, in whichever language the server speaks.
fn number(message: &str) -> Option<u64> {
    message.split(|c: char| !c.is_ascii_digit()).find(|w| !w.is_empty())?.parse().ok()
}

/// Checksum failures the server counted in this database, and when the last one was; none without checksums.
///
/// # Errors
/// The query fails.
pub async fn counted(c: &mut PgConnection) -> Result<Option<(u64, Option<Time>)>> {
    let sql = "SELECT checksum_failures, (extract(epoch FROM checksum_last_failure) * 1000000)::int8 \
               FROM pg_catalog.pg_stat_database WHERE datname = pg_catalog.current_database()";
    let (n, at): (Option<i64>, Option<i64>) =
        sqlx::query_as(sql).fetch_one(c).await.map_err(|e| query_error(sql, &e))?;
    Ok(n.map(|n| (u64::try_from(n).unwrap_or(0), at.map(Time::from_micros))))
}
