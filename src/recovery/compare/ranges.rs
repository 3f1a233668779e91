//! Where two tables differ: the key space is cut again and again down to pieces that can be listed. A large table is read once
//! more for that, cut at keys of a sample; what is left of it is small enough for its index.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::model::CleanText;
use crate::postgres::connect::{query_error, quote_ident, quote_literal};
use crate::recovery::tables::Table;
use crate::recovery::watch::check_cancel;

/// Into how many pieces a range is cut.
const PIECES: u64 = 16;
/// Rows from which on a table is first cut at the keys of a sample.
const LARGE: u64 = 10_000;
/// Into how many pieces, and by how many rows of a sample.
const BUCKETS: u64 = 256;
const SAMPLE: u64 = 20_000;
/// Types of keys that a sample's may cut, beside those that are compared as text.
const CUT: [&str; 8] = [
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "uuid",
    "date",
    "timestamp with time zone",
    "timestamp without time zone",
];
/// Rows that are listed one by one.
const LISTED: u64 = 2000;
/// How many pieces are listed before the rest is told as a whole.
const MOST: usize = 64;

/// A stretch of keys, each of which differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First key, its columns in order; none: from the beginning on.
    pub from: Option<Vec<String>>,
    /// Last key; none: to the end.
    pub to: Option<Vec<String>>,
    /// Rows that only the source has.
    pub only_source: u64,
    /// Rows that only the shadow has.
    pub only_shadow: u64,
    /// Rows that both have, with other values.
    pub different: u64,
    /// The range was not looked at row by row: some of its rows differ.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub coarse: bool,
}

impl Range {
    /// For people.
    pub fn line(&self) -> String {
        let key = |k: &Option<Vec<String>>| {
            let text = k.as_ref().map_or("…".to_string(), |k| k.join(", "));
            CleanText::line(text.as_bytes()).to_string()
        };
        let place =
            if self.from == self.to { key(&self.from) } else { format!("{} to {}", key(&self.from), key(&self.to)) };
        if self.coarse {
            return format!("{place}: some of {} and {} rows", self.only_source, self.only_shadow);
        }
        let parts = [
            (self.different, "different"),
            (self.only_source, "only in the source"),
            (self.only_shadow, "only in the shadow"),
        ];
        let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        format!("{place}: {}", parts.join(", "))
    }
}

/// What a row is told by.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// SQL: hash of a row `t`.
    pub hash: &'a str,
    /// Key columns.
    pub key: &'a [String],
}

/// One side.
pub type Side<'a> = (&'a mut PgConnection, &'a Table);

type Key = Vec<String>;

/// A piece of the key space: after one key, or from it on, up to another, or only to before it.
#[derive(Debug, Clone, Default)]
struct Piece {
    after: Option<Key>,
    from_it_on: bool,
    upto: Option<Key>,
    before_it: bool,
    rows: (u64, u64),
}

/// Finds the differing keys, in order.
///
/// # Errors
/// A query fails, or stopped on request.
pub async fn localise(
    source: Side<'_>,
    shadow: Side<'_>,
    terms: &Terms<'_>,
    rows: (u64, u64),
    cancel: &CancellationToken,
) -> Result<Vec<Range>> {
    let (ca, a) = source;
    let (cb, b) = shadow;
    let whole = Piece { rows, ..Piece::default() };
    let mut todo = match at_once(&mut *ca, a, &mut *cb, b, terms, &whole).await? {
        Some(pieces) => pieces,
        None => vec![whole],
    };
    let mut out = Found { ranges: Vec::new(), open: false };
    let mut listed = 0;
    while let Some(piece) = todo.pop() {
        check_cancel(cancel, "the comparison is not complete")?;
        if piece.rows.0.max(piece.rows.1) <= LISTED {
            listed += 1;
            let (one, two) = tokio::join!(list(&mut *ca, a, terms, &piece), list(&mut *cb, b, terms, &piece));
            out.add(&one?, &two?);
            continue;
        }
        if listed >= MOST {
            out.ranges.push(Range {
                from: piece.after,
                to: piece.upto,
                only_source: piece.rows.0,
                only_shadow: piece.rows.1,
                different: 0,
                coarse: true,
            });
            out.open = false;
            continue;
        }
        let borders = if piece.rows.0 >= piece.rows.1 {
            borders(&mut *ca, a, terms, &piece).await?
        } else {
            borders(&mut *cb, b, terms, &piece).await?
        };
        let mut pieces = Vec::new();
        let (mut after, mut from_it_on) = (piece.after.clone(), piece.from_it_on);
        let inner = borders.into_iter().map(|k| (Some(k), false));
        for (upto, before_it) in inner.chain([(piece.upto.clone(), piece.before_it)]) {
            let p = Piece { after: after.clone(), from_it_on, upto: upto.clone(), before_it, rows: (0, 0) };
            let (one, two) = tokio::join!(sum(&mut *ca, a, terms, &p), sum(&mut *cb, b, terms, &p));
            let (one, two) = (one?, two?);
            if one != two {
                pieces.push(Piece { rows: (one.0, two.0), ..p });
            }
            (after, from_it_on) = (upto, false);
        }
        todo.extend(pieces.into_iter().rev());
    }
    Ok(out.ranges)
}

/// A key column as it is ordered: text by its bytes, because two machines may sort words differently.
fn ordered(table: &Table, name: &str) -> String {
    let ty = table.columns.iter().find(|c| c.name == name).map_or("", |c| c.ty.as_str());
    let base = ty.split('(').next().unwrap_or(ty).trim_end();
    let quoted = format!("t.{}", quote_ident(name));
    if matches!(base, "text" | "character varying" | "character" | "name") {
        format!("{quoted}::text COLLATE \"C\"")
    } else {
        quoted
    }
}

fn order(table: &Table, terms: &Terms<'_>) -> String {
    terms.key.iter().map(|k| ordered(table, k)).collect::<Vec<_>>().join(", ")
}

fn texts(terms: &Terms<'_>) -> String {
    let each: Vec<String> = terms.key.iter().map(|k| format!("t.{}::text", quote_ident(k))).collect();
    format!("ARRAY[{}]::text[]", each.join(", "))
}

fn condition(table: &Table, terms: &Terms<'_>, piece: &Piece) -> String {
    let value = |key: &Key| {
        let each = terms.key.iter().zip(key).map(|(name, text)| {
            let ty = table.columns.iter().find(|c| c.name == *name).map_or("text", |c| c.ty.as_str());
            if ordered(table, name).ends_with("\"C\"") {
                format!("{}::text", quote_literal(text))
            } else {
                format!("{}::{ty}", quote_literal(text))
            }
        });
        each.collect::<Vec<_>>().join(", ")
    };
    let order = order(table, terms);
    let mut parts = vec!["true".to_string()];
    if let Some(k) = &piece.after {
        let sign = if piece.from_it_on { ">=" } else { ">" };
        parts.push(format!("ROW({order}) {sign} ROW({})", value(k)));
    }
    if let Some(k) = &piece.upto {
        let sign = if piece.before_it { "<" } else { "<=" };
        parts.push(format!("ROW({order}) {sign} ROW({})", value(k)));
    }
    parts.join(" AND ")
}

/// The pieces of a large table that differ, last first, by reading either side once; none when it is not large or its key has
/// several columns.
async fn at_once(
    ca: &mut PgConnection,
    a: &Table,
    cb: &mut PgConnection,
    b: &Table,
    terms: &Terms<'_>,
    whole: &Piece,
) -> Result<Option<Vec<Piece>>> {
    let cut = |name: &String| {
        let ty = a.columns.iter().find(|c| c.name == *name).map_or("", |c| c.ty.as_str());
        ordered(a, name).ends_with("\"C\"") || CUT.contains(&ty.split('(').next().unwrap_or(ty).trim_end())
    };
    if whole.rows.0.max(whole.rows.1) <= LARGE || terms.key.len() != 1 || !terms.key.iter().all(cut) {
        return Ok(None);
    }
    let borders = if whole.rows.0 >= whole.rows.1 {
        sampled(&mut *ca, a, terms, whole.rows.0).await?
    } else {
        sampled(&mut *cb, b, terms, whole.rows.1).await?
    };
    if borders.len() < 2 {
        return Ok(None);
    }
    let (one, two) = tokio::join!(sums(&mut *ca, a, terms, &borders), sums(&mut *cb, b, terms, &borders));
    let (one, two) = (one?, two?);
    let nothing = (0, "0".to_string());
    let mut pieces = Vec::new();
    // Bucket 0 is what lies before the first border, bucket n begins with the n-th.
    for bucket in (0..=borders.len()).rev() {
        let (left, right) = (one.get(&bucket).unwrap_or(&nothing), two.get(&bucket).unwrap_or(&nothing));
        if left != right {
            pieces.push(Piece {
                after: bucket.checked_sub(1).and_then(|i| borders.get(i)).cloned(),
                from_it_on: true,
                upto: borders.get(bucket).cloned(),
                before_it: true,
                rows: (left.0, right.0),
            });
        }
    }
    Ok(Some(pieces))
}

/// Keys that cut a table into pieces of about the same size, in order, each once.
async fn sampled(c: &mut PgConnection, table: &Table, terms: &Terms<'_>, rows: u64) -> Result<Vec<Key>> {
    // In hundredths of a percent, at least one.
    let share = (SAMPLE * 10_000 / rows.max(1)).clamp(1, 10_000);
    let sql = format!(
        "SELECT k FROM (SELECT {} AS k, row_number() OVER w AS n, count(*) OVER () AS all_rows \
         FROM ONLY {} t TABLESAMPLE SYSTEM ({}.{:02}) WINDOW w AS (ORDER BY {})) r \
         WHERE n % greatest(all_rows / {BUCKETS}, 1) = 0 ORDER BY n",
        texts(terms),
        table.sql,
        share / 100,
        share % 100,
        order(table, terms)
    );
    sqlx::query_scalar(&sql).persistent(false).fetch_all(c).await.map_err(|e| query_error(&sql, &e))
}

/// Count and sum of each piece between the borders.
async fn sums(
    c: &mut PgConnection,
    table: &Table,
    terms: &Terms<'_>,
    borders: &[Key],
) -> Result<BTreeMap<usize, (u64, String)>> {
    let name = terms.key.first().map_or("", String::as_str);
    let key = ordered(table, name);
    let ty = match key.ends_with("\"C\"") {
        true => "text",
        false => table.columns.iter().find(|c| c.name == name).map_or("text", |c| c.ty.as_str()),
    };
    let values: Vec<String> = borders.iter().flatten().map(|k| quote_literal(k)).collect();
    let sql = format!(
        "SELECT width_bucket({key}, ARRAY[{}]::{ty}[]), count(*), coalesce(sum({}), 0)::text FROM ONLY {} t GROUP BY 1",
        values.join(", "),
        terms.hash,
        table.sql
    );
    let all: Vec<(i32, i64, String)> =
        sqlx::query_as(&sql).persistent(false).fetch_all(c).await.map_err(|e| query_error(&sql, &e))?;
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(all.into_iter().map(|(bucket, n, sum)| (usize::try_from(bucket).unwrap_or(0), (number(n), sum))).collect())
}

async fn sum(c: &mut PgConnection, table: &Table, terms: &Terms<'_>, piece: &Piece) -> Result<(u64, String)> {
    let sql = format!(
        "SELECT count(*), coalesce(sum({}), 0)::text FROM ONLY {} t WHERE {}",
        terms.hash,
        table.sql,
        condition(table, terms, piece)
    );
    let (n, sum): (i64, String) =
        sqlx::query_as(&sql).persistent(false).fetch_one(c).await.map_err(|e| query_error(&sql, &e))?;
    Ok((u64::try_from(n).unwrap_or(0), sum))
}

async fn borders(c: &mut PgConnection, table: &Table, terms: &Terms<'_>, piece: &Piece) -> Result<Vec<Key>> {
    let step = (piece.rows.0.max(piece.rows.1) / PIECES).max(1);
    let sql = format!(
        "SELECT k FROM (SELECT {} AS k, row_number() OVER (ORDER BY {}) AS n FROM ONLY {} t WHERE {}) r \
         WHERE n % {step} = 0 ORDER BY n LIMIT {}",
        texts(terms),
        order(table, terms),
        table.sql,
        condition(table, terms, piece),
        PIECES - 1
    );
    sqlx::query_scalar(&sql).persistent(false).fetch_all(c).await.map_err(|e| query_error(&sql, &e))
}

async fn list(c: &mut PgConnection, table: &Table, terms: &Terms<'_>, piece: &Piece) -> Result<Vec<(Key, i64)>> {
    let sql = format!(
        "SELECT {}, {}::int8 FROM ONLY {} t WHERE {} ORDER BY {}",
        texts(terms),
        terms.hash,
        table.sql,
        condition(table, terms, piece),
        order(table, terms)
    );
    sqlx::query_as(&sql).persistent(false).fetch_all(c).await.map_err(|e| query_error(&sql, &e))
}

struct Found {
    ranges: Vec<Range>,
    /// The last key seen differs: the next one, if it does, belongs to the same range.
    open: bool,
}

impl Found {
    /// Walks two ordered lists of one piece.
    fn add(&mut self, one: &[(Key, i64)], two: &[(Key, i64)]) {
        let left: BTreeMap<&Key, i64> = one.iter().map(|(k, h)| (k, *h)).collect();
        let right: BTreeMap<&Key, i64> = two.iter().map(|(k, h)| (k, *h)).collect();
        let mut there = two.iter().peekable();
        for (key, hash) in one {
            // What only the shadow has before this key.
            while let Some((k, _)) = there.next_if(|(k, _)| k != key && !left.contains_key(k)) {
                self.differs(k, |r| r.only_shadow += 1);
            }
            match right.get(key) {
                None => self.differs(key, |r| r.only_source += 1),
                Some(h) => {
                    there.next_if(|(k, _)| k == key);
                    if h == hash {
                        self.open = false;
                    } else {
                        self.differs(key, |r| r.different += 1);
                    }
                }
            }
        }
        for (k, _) in there.filter(|(k, _)| !left.contains_key(k)) {
            self.differs(k, |r| r.only_shadow += 1);
        }
    }

    fn differs(&mut self, key: &Key, count: impl FnOnce(&mut Range)) {
        if !self.open || self.ranges.is_empty() {
            let range = Range {
                from: Some(key.clone()),
                to: None,
                only_source: 0,
                only_shadow: 0,
                different: 0,
                coarse: false,
            };
            self.ranges.push(range);
        }
        self.open = true;
        if let Some(last) = self.ranges.last_mut() {
            last.to = Some(key.clone());
            count(last);
        }
    }
}
