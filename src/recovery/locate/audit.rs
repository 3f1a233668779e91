//! The audit log: a table of the application's own that says who changed what, in the same transaction.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::error::{Context, Result};
use crate::model::{CleanText, Time};
use crate::postgres::connect::{query_error, quote_ident};
use crate::recovery::tables::Table;

/// Columns that say who, as applications name them.
const WHO: [&str; 19] = [
    "actor",
    "username",
    "user_name",
    "changed_by",
    "modified_by",
    "updated_by",
    "created_by",
    "performed_by",
    "application",
    "application_name",
    "app",
    "release",
    "version",
    "source",
    "job",
    "origin",
    "client",
    "service",
    "author",
];
/// Columns that count the rows of a statement.
const ROWS: [&str; 5] = ["rows", "row_count", "rowcount", "rows_affected", "affected_rows"];
/// Columns that hold the transaction's id.
const XID: [&str; 5] = ["xid", "txid", "tx_id", "transaction_id", "xact_id"];
/// What the table's name has in it.
const NAMES: [&str; 5] = ["audit", "history", "changelog", "change_log", "activity"];

/// A table that is an audit log, and its telling columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    /// The table.
    pub table: Table,
    /// Columns that say who, at least one.
    pub who: Vec<String>,
    /// Column that counts rows.
    pub rows: Option<String>,
    /// Column with the transaction's id.
    pub xid: Option<String>,
}

/// What the audit log knows of transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Who did it, and the rows it says were changed, by the id on the log's own row.
    pub by_xid: BTreeMap<u32, (String, u64)>,
    /// Id of the whole transaction, where the log's row was written by a subtransaction.
    pub top_of: BTreeMap<u32, u32>,
}

/// The audit log among the tables: by name, with at least one column that says who. The one with most such columns wins.
pub fn find_trail(tables: &[Table]) -> Option<Trail> {
    let mut best: Option<Trail> = None;
    for t in tables {
        let short = t.family.rsplit('.').next().unwrap_or_default().to_lowercase();
        if !NAMES.iter().any(|n| short.contains(n)) {
            continue;
        }
        let textual = |ty: &str| ty.starts_with("text") || ty.starts_with("character") || ty == "name";
        let whole = |ty: &str| matches!(ty, "smallint" | "integer" | "bigint");
        let pick = |names: &[&str], fits: &dyn Fn(&str) -> bool| {
            t.columns
                .iter()
                .find(|c| names.contains(&c.name.to_lowercase().as_str()) && fits(&c.ty))
                .map(|c| c.name.clone())
        };
        let who: Vec<String> = t
            .columns
            .iter()
            .filter(|c| WHO.contains(&c.name.to_lowercase().as_str()) && textual(&c.ty))
            .map(|c| c.name.clone())
            .collect();
        if who.is_empty() || best.as_ref().is_some_and(|b| b.who.len() >= who.len()) {
            continue;
        }
        best = Some(Trail {
            table: t.clone(),
            rows: pick(&ROWS, &whole),
            xid: pick(&XID, &|ty| textual(ty) || whole(ty) || matches!(ty, "xid" | "xid8" | "numeric")),
            who,
        });
    }
    best
}

/// Reads what the audit log says of every transaction since `since`.
///
/// # Errors
/// The query fails.
pub async fn read_trail(c: &mut PgConnection, trail: &Trail, since: Time) -> Result<Keys> {
    let who: Vec<String> = trail
        .who
        .iter()
        .map(|w| format!("'{}=' || coalesce({}::text, '-')", w.replace('\'', "''"), quote_ident(w)))
        .collect();
    let rows = trail.rows.as_ref().map_or("count(*)".to_string(), |r| format!("coalesce(sum({}), 0)", quote_ident(r)));
    let top = trail.xid.as_ref().map_or("NULL::text".to_string(), |x| format!("min({}::text)", quote_ident(x)));
    let sql = format!(
        "SELECT g.x::text::int8 AS xid, g.who, g.n::int8 AS n, g.top FROM ( \
           SELECT xmin AS x, min({}) AS who, {rows} AS n, {top} AS top FROM ONLY {} GROUP BY xmin) g, \
         LATERAL (SELECT pg_catalog.pg_xact_commit_timestamp(g.x) AS at OFFSET 0) t \
         WHERE t.at >= pg_catalog.to_timestamp({}::numeric / 1000000)",
        who.join(" || ', ' || "),
        trail.table.sql,
        since.micros()
    );
    let what = || format!("cannot read the audit log {}", trail.table.name);
    let mut keys = Keys::default();
    for row in sqlx::query(&sql).fetch_all(&mut *c).await.map_err(|e| query_error(&sql, &e))? {
        let xid = u32::try_from(row.try_get::<i64, _>("xid").target(what)?).target(what)?;
        let who: String = row.try_get("who").target(what)?;
        let n = u64::try_from(row.try_get::<i64, _>("n").target(what)?).unwrap_or(0);
        keys.by_xid.insert(xid, (CleanText::line(who.as_bytes()).to_string(), n));
        let top: Option<String> = row.try_get("top").target(what)?;
        if let Some(full) = top.and_then(|t| t.parse::<u64>().ok()) {
            // The application records the 64-bit form; the log and recovery use its lower half.
            let top = u32::try_from(full & 0xFFFF_FFFF).unwrap_or(xid);
            if top != xid {
                keys.top_of.insert(xid, top);
            }
        }
    }
    Ok(keys)
}
