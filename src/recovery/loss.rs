//! What was lost, measured: rows and transactions that the damaged cluster has and the recovered one has not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::TryStreamExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::locate::last_commit;
use super::pages::{by_ranges, found_more, readable, unreadable};
use super::tables::{ByValues, Table, made_again, user_tables};
use super::verify::Boundary;
use super::watch::{Phase, Watch, check_cancel};
use crate::error::{Context, Result};
use crate::model::Time;
use crate::model::target::Loss;
use crate::postgres::connect::{query_error, quote_ident};
use crate::postgres::user;
use crate::process::UnixUser;

/// What came after the moment, measured while the shadow still stood there; kept as `later.json` in the shadow's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Later {
    /// The measured loss: rows that the shadow does not have, per table.
    pub loss: Loss,
    /// Rows that the shadow has and that were changed after the moment, per table: their keys.
    pub changed: BTreeMap<String, BTreeSet<String>>,
    /// Rows that came after the moment and were then damaged, per table: their keys. They count as lost.
    #[serde(default)]
    pub damaged: BTreeMap<String, BTreeSet<String>>,
    /// Rows committed before this are in the shadow.
    pub certain: Time,
    /// So are those of these transactions.
    pub also: Vec<u32>,
    /// Transactions whose rows are damage.
    pub suspects: Vec<u32>,
}

const FILE: &str = "later.json";

impl Later {
    /// The border between what the shadow has and what came later.
    pub fn boundary(&self) -> Boundary {
        Boundary { certain: self.certain, also: self.also.clone() }
    }
    /// Reads the record in a shadow's folder.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn load(root: &Path) -> Result<Self> {
        let file = root.join(FILE);
        let text = std::fs::read_to_string(&file)
            .target(|| format!("cannot read {:?}", file.display()))
            .map_err(|e| e.hint("measure first: breakglass pitr verify"))?;
        serde_json::from_str(&text).state(|| format!("cannot understand {:?}", file.display()))
    }
    /// Writes it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, root: &Path, owner: Option<&UnixUser>) -> Result<()> {
        let text = serde_json::to_string(self).state(|| "cannot write what came later".into())?;
        user::own_file(&root.join(FILE), &text, owner)
    }
}

/// SQL: rows of `t` that came after the border and whose last writer is no suspect, or is one.
fn later_condition(boundary: &Boundary, suspects: &[u32], by_suspects: bool) -> String {
    let ids: Vec<String> = suspects.iter().map(u32::to_string).collect();
    let not = if by_suspects { "" } else { "NOT " };
    format!("NOT {} AND {not}xmin::text = ANY ('{{{}}}')", boundary.sql(), ids.join(","))
}

/// SQL: the primary key of a row of `t` as one text; none without a key.
pub fn key_text(table: &Table) -> Option<String> {
    if table.key.is_empty() {
        return None;
    }
    let parts: Vec<String> = table.key.iter().map(|k| format!("t.{}::text", quote_ident(k))).collect();
    Some(format!("ARRAY[{}]", parts.join(", ")))
}

/// Measures against a shadow that stands at the moment. A row counts as lost when the shadow has none of its key; without a
/// primary key every later row counts, and the figures are upper bounds.
///
/// # Errors
/// A query fails, commit times are missing, or stopped on request.
pub fn measure<'a>(
    source: &'a mut PgConnection,
    shadow: &'a mut PgConnection,
    suspects: &'a [u32],
    moment: Option<Time>,
    watch: &'a dyn Watch,
    cancel: &'a CancellationToken,
) -> BoxFuture<'a, Result<Later>> {
    Box::pin(measure_all(source, shadow, suspects, moment, watch, cancel))
}

async fn measure_all(
    source: &mut PgConnection,
    shadow: &mut PgConnection,
    suspects: &[u32],
    moment: Option<Time>,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Later> {
    super::tables::require_commit_times(source).await?;
    let boundary = Boundary::between(source, shadow).await?;
    let ours = user_tables(shadow).await?;
    let mut out = Later {
        loss: Loss::default(),
        changed: BTreeMap::new(),
        damaged: BTreeMap::new(),
        certain: boundary.certain,
        also: boundary.also.clone(),
        suspects: suspects.to_vec(),
    };
    let tables = user_tables(source).await?;
    for (i, table) in tables.iter().enumerate() {
        check_cancel(cancel, "the loss is not measured")?;
        watch.phase(&Phase {
            name: "loss",
            done: i as u64,
            total: Some(tables.len() as u64),
            unit: "tables",
            text: table.name.clone(),
            ..Phase::default()
        });
        let known = ours.iter().find(|t| t.oid == table.oid);
        let again = made_again(table, &tables, &ours);
        // Around pages that cannot be read; what stood on them can only be older than the shadow where that has all the log.
        let mut damaged = unreadable(source, table).await?;
        let found = loop {
            let parts = readable(damaged.as_ref());
            by_ranges(source, damaged.is_some()).await?;
            let found = match again.filter(|a| a.key.is_empty() || a.key != table.key) {
                Some(again) => of_keyless(source, shadow, (table, again), &parts).await,
                None => of_table(source, shadow, (table, known.or(again)), (&boundary, suspects), &parts).await,
            };
            match found {
                Err(e) if !found_more(source, table, &mut damaged).await? => return Err(e),
                Err(_) => check_cancel(cancel, "the loss is not measured")?,
                Ok(found) => break found,
            }
        };
        if let Some(d) = &damaged {
            watch.line(&format!("damaged on disk, so not in the figures: {}", d.describe()));
        }
        if found.lost > 0 {
            out.loss.at_most |= found.at_most;
            *out.loss.rows.entry(table.family.clone()).or_default() += found.lost;
        }
        if !found.changed.is_empty() {
            out.changed.insert(table.name.clone(), found.changed);
        }
        if !found.damaged.is_empty() {
            out.damaged.insert(table.name.clone(), found.damaged);
        }
    }
    by_ranges(source, false).await?;
    let last = last_commit(source).await?;
    let begin = match moment {
        Some(m) => Some(m),
        None => last_commit(shadow).await?,
    };
    if let (Some(last), Some(begin)) = (last, begin) {
        out.loss.window_ms = u64::try_from(last.since(begin).as_millis()).unwrap_or(u64::MAX);
    }
    out.loss.transactions = Some(transactions(source, shadow, &boundary, suspects).await?);
    Ok(out)
}

/// What is lost of one table.
#[derive(Default)]
struct OfTable {
    lost: u64,
    at_most: bool,
    changed: BTreeSet<String>,
    damaged: BTreeSet<String>,
}

/// What is lost of a table that was made again and whose rows have no keys to tell them apart: those it has more.
async fn of_keyless(
    source: &mut PgConnection,
    shadow: &mut PgConnection,
    (table, again): (&Table, &Table),
    parts: &[String],
) -> Result<OfTable> {
    let here = count(source, table, "true", parts).await?;
    let there = count(shadow, again, "true", &["true".to_string()]).await?;
    Ok(OfTable { lost: here.saturating_sub(there), at_most: true, ..OfTable::default() })
}

async fn of_table(
    source: &mut PgConnection,
    shadow: &mut PgConnection,
    (table, known): (&Table, Option<&Table>),
    (boundary, suspects): (&Boundary, &[u32]),
    parts: &[String],
) -> Result<OfTable> {
    let condition = later_condition(boundary, suspects, false);
    let Some(known_keys) = known.filter(|k| !k.key.is_empty() && k.key == table.key) else {
        // A table that the shadow does not have at all is lost exactly.
        let lost = count(source, table, &condition, parts).await?;
        return Ok(OfTable { lost, at_most: known.is_some(), ..OfTable::default() });
    };
    let (new, changed) = split(source, shadow, (table, known_keys), &condition, parts).await?;
    let mut out = OfTable { lost: new.len() as u64, changed, ..OfTable::default() };
    // A row of good traffic that a suspect changed afterwards bears the suspect's mark. Where the suspects changed rows
    // that the shadow has, those it does not have are such rows; where they only made new ones, these are their own.
    let by_suspects = later_condition(boundary, suspects, true);
    let (fresh, overwritten) = split(source, shadow, (table, known_keys), &by_suspects, parts).await?;
    if !overwritten.is_empty() && !fresh.is_empty() {
        out.lost += fresh.len() as u64;
        out.damaged = fresh;
    }
    Ok(out)
}

/// Committed transactions that the shadow does not have, suspects excluded; those of all databases of the cluster.
async fn transactions(
    source: &mut PgConnection,
    shadow: &mut PgConnection,
    boundary: &Boundary,
    suspects: &[u32],
) -> Result<u64> {
    let next = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8";
    let from: i64 = sqlx::query_scalar(next).fetch_one(&mut *shadow).await.map_err(|e| query_error(next, &e))?;
    let to: i64 = sqlx::query_scalar(next).fetch_one(&mut *source).await.map_err(|e| query_error(next, &e))?;
    let list = |ids: &[u32]| ids.iter().map(|x| i64::from(*x)).collect::<Vec<_>>();
    // A subtransaction has its parent's commit time: one time is one transaction.
    let sql = "SELECT count(DISTINCT at) FROM (SELECT x % 4294967296 AS x, \
                 pg_catalog.pg_xact_commit_timestamp((x % 4294967296)::text::xid) AS at \
                 FROM pg_catalog.generate_series(greatest($1::int8 - 200000, 3), $2::int8 - 1) x \
                 WHERE x % 4294967296 >= 3) t \
               WHERE at >= pg_catalog.to_timestamp($3::numeric / 1000000) AND x <> ALL ($4::int8[]) AND x <> ALL ($5::int8[])";
    let n: i64 = sqlx::query_scalar(sql)
        .bind(from)
        .bind(to)
        .bind(boundary.certain.micros())
        .bind(list(&boundary.also))
        .bind(list(suspects))
        .fetch_one(&mut *source)
        .await
        .map_err(|e| query_error(sql, &e))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

async fn count(c: &mut PgConnection, table: &Table, condition: &str, parts: &[String]) -> Result<u64> {
    let mut all = 0;
    for part in parts {
        let sql = format!("SELECT count(*) FROM ONLY {} t WHERE {condition} AND {part}", table.sql);
        let n: i64 = sqlx::query_scalar(&sql).fetch_one(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
        all += u64::try_from(n).unwrap_or(0);
    }
    Ok(all)
}

/// The keys of the rows that meet the condition, in these parts of the table: those the shadow does not have, and those it has.
async fn split(
    source: &mut PgConnection,
    shadow: &mut PgConnection,
    (table, known): (&Table, &Table),
    condition: &str,
    parts: &[String],
) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut new, mut old) = (BTreeSet::new(), BTreeSet::new());
    for part in parts {
        let (more, there) = split_part(source, shadow, (table, known), &format!("{condition} AND {part}")).await?;
        new.extend(more);
        old.extend(there);
    }
    Ok((new, old))
}

async fn split_part(
    source: &mut PgConnection,
    shadow: &mut PgConnection,
    (table, known): (&Table, &Table),
    condition: &str,
) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let key = key_text(table).unwrap_or_else(|| "NULL::text[]".into());
    let sql = format!("SELECT {key} FROM ONLY {} t WHERE {condition}", table.sql);
    let mut rows = sqlx::query(&sql).fetch(&mut *source);
    let (mut new, mut old) = (BTreeSet::new(), BTreeSet::new());
    let mut batch: Vec<Vec<String>> = Vec::new();
    loop {
        let row = rows.try_next().await.map_err(|e| query_error(&sql, &e))?;
        let end = row.is_none();
        if let Some(row) = row {
            batch.push(row.try_get(0).target(|| format!("cannot read the keys of {}", table.name))?);
        }
        if batch.len() >= 5000 || (end && !batch.is_empty()) {
            let there: BTreeSet<usize> = keys_there(shadow, known, &batch).await?.into_iter().collect();
            for (i, k) in batch.iter().enumerate() {
                if there.contains(&i) {
                    old.insert(join_key(k))
                } else {
                    new.insert(join_key(k))
                };
            }
            batch.clear();
        }
        if end {
            return Ok((new, old));
        }
    }
}

/// A key as one text, different for different keys.
pub fn join_key(parts: &[String]) -> String {
    serde_json::to_string(parts).unwrap_or_default()
}

/// Which of these keys the table has, by their position. Uses the primary key's index.
///
/// # Errors
/// The query fails.
pub async fn keys_there(c: &mut PgConnection, table: &Table, keys: &[Vec<String>]) -> Result<Vec<usize>> {
    let by = ByValues::of(table, &table.key);
    let sql = format!(
        "SELECT k.place FROM unnest({}) WITH ORDINALITY k({}, place) WHERE EXISTS (SELECT FROM ONLY {} t WHERE {})",
        by.arrays, by.names, table.sql, by.condition
    );
    let mut query = sqlx::query_scalar::<_, i64>(&sql);
    for i in 0..table.key.len() {
        query = query.bind(ByValues::column(keys, i));
    }
    let rows = query.fetch_all(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
    Ok(rows.into_iter().filter_map(|n| usize::try_from(n - 1).ok()).collect())
}
