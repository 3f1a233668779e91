//! Rows from the shadow into staging tables of the live session. Values travel as text, with everything pinned that
//! changes how a value looks.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::since::Since;
use crate::error::{Context, Error, Result};
use crate::postgres::connect::{query_error, quote_ident, run, sqlstate};
use crate::recovery::tables::{ByValues, Table};

/// Keys or rows as text, columns in order.
pub type Values = Vec<Vec<Option<String>>>;

/// How many rows travel at once.
pub const BATCH: usize = 5000;

/// `t."a", t."b"`.
pub fn list(alias: &str, columns: &[String]) -> String {
    columns.iter().map(|c| format!("{alias}.{}", quote_ident(c))).collect::<Vec<_>>().join(", ")
}

/// `a."x" = b."p" AND …`.
pub fn equal(left: &str, lcols: &[String], right: &str, rcols: &[String]) -> String {
    let pairs = lcols.iter().zip(rcols);
    pairs
        .map(|(l, r)| format!("{left}.{} = {right}.{}", quote_ident(l), quote_ident(r)))
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// SQL: `cols` of `alias` as one array of texts.
pub fn texts(alias: &str, columns: &[String]) -> String {
    let each: Vec<String> = columns.iter().map(|c| format!("{alias}.{}::text", quote_ident(c))).collect();
    format!("ARRAY[{}]::text[]", each.join(", "))
}

/// Refuses when the shadow holds the table locked: paused before the commit of a change of it, it keeps that
/// transaction's lock for as long as it pauses.
///
/// # Errors
/// Refused when locked; the query fails.
pub async fn readable(shadow: &mut PgConnection, table: &Table) -> Result<()> {
    let sql = format!("SELECT FROM ONLY {} LIMIT 1", table.sql);
    match sqlx::query(&sql).fetch_optional(&mut *shadow).await {
        Ok(_) => Ok(()),
        Err(e) if sqlstate(&e).as_deref() == Some("55P03") => {
            Err(Error::refused(format!("{} cannot be read in the shadow", table.name))
                .why("it stands just before the commit of a change of this table and holds that transaction's lock")
                .hint("open the isolated shadow, which rolls that change back there: add --open-shadow")
                .hint("an opened shadow cannot be moved forward any more; build another one when that is needed"))
        }
        Err(e) => Err(query_error(&sql, &e)),
    }
}

/// Rows of `table` whose columns `by` have one of these values; `columns` of each.
///
/// # Errors
/// The query fails.
pub async fn rows_by(
    c: &mut PgConnection,
    table: &Table,
    by: &[String],
    keys: &[Vec<String>],
    columns: &[String],
) -> Result<Values> {
    let mut out = Vec::new();
    let values = ByValues::of(table, by);
    let sql = format!(
        "SELECT {} FROM unnest({}) k({}) JOIN ONLY {} t ON {}",
        texts("t", columns),
        values.arrays,
        values.names,
        table.sql,
        values.condition
    );
    for batch in keys.chunks(BATCH) {
        let mut query = sqlx::query_scalar::<_, Vec<Option<String>>>(&sql);
        for i in 0..by.len() {
            query = query.bind(ByValues::column(batch, i));
        }
        out.extend(query.fetch_all(&mut *c).await.map_err(|e| query_error(&sql, &e))?);
    }
    Ok(out)
}

/// Appends rows to a staging table.
///
/// # Errors
/// A value does not fit the live table's type, or the connection fails.
pub async fn load(live: &mut PgConnection, stage: &str, columns: &[String], rows: &Values) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = copy_in(stage, columns);
    let mut to = live.copy_in_raw(&sql).await.map_err(|e| query_error(&sql, &e))?;
    for batch in rows.chunks(1000) {
        let mut text = String::new();
        for row in batch {
            for (i, value) in row.iter().enumerate() {
                if i > 0 {
                    text.push('\t');
                }
                copy_value(&mut text, value.as_deref());
            }
            text.push('\n');
        }
        to.send(text.into_bytes()).await.map_err(|e| query_error(&sql, &e))?;
    }
    to.finish().await.map_err(|e| query_error(&sql, &e))?;
    Ok(())
}

fn copy_in(stage: &str, columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|c| quote_ident(c)).collect();
    format!("COPY {stage} ({}) FROM STDIN", names.join(", "))
}

/// One value in PostgreSQL's text format of COPY.
fn copy_value(out: &mut String, value: Option<&str>) {
    let Some(value) = value else { return out.push_str("\\N") };
    for ch in value.chars() {
        match ch {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            other => out.push(other),
        }
    }
}

/// Streams all rows that a query of one side gives into a staging table of the other.
///
/// # Errors
/// The query or the load fails.
pub async fn pipe(
    from: &mut PgConnection,
    query: &str,
    to: &mut PgConnection,
    stage: &str,
    columns: &[String],
) -> Result<()> {
    let out_sql = format!("COPY ({query}) TO STDOUT");
    let in_sql = copy_in(stage, columns);
    let mut input = from.copy_out_raw(&out_sql).await.map_err(|e| query_error(&out_sql, &e))?;
    let mut output = to.copy_in_raw(&in_sql).await.map_err(|e| query_error(&in_sql, &e))?;
    while let Some(bytes) = input.try_next().await.map_err(|e| query_error(&out_sql, &e))? {
        output.send(bytes).await.map_err(|e| query_error(&in_sql, &e))?;
    }
    output.finish().await.map_err(|e| query_error(&in_sql, &e))?;
    Ok(())
}

/// Texts that a query gives, one array of them a row.
///
/// # Errors
/// The query fails.
pub async fn keys(c: &mut PgConnection, sql: &str) -> Result<Vec<Vec<String>>> {
    let rows = sqlx::query(sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    rows.iter().map(|r| r.try_get(0).target(|| "cannot read keys".to_string())).collect()
}

/// A count.
///
/// # Errors
/// The query fails.
pub async fn count(c: &mut PgConnection, sql: &str) -> Result<u64> {
    let n: i64 = sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

/// Runs one statement and says how many rows it touched.
///
/// # Errors
/// It fails.
pub async fn execute(c: &mut PgConnection, sql: &str) -> Result<u64> {
    Ok(sqlx::query(sql).execute(&mut *c).await.map_err(|e| query_error(sql, &e))?.rows_affected())
}

/// Runs several statements that change rows as one, so that constraints are held at the end of all of them; rows of each.
///
/// # Errors
/// It fails.
pub async fn together(c: &mut PgConnection, statements: &[String]) -> Result<Vec<u64>> {
    let each = statements.iter().enumerate();
    let with: Vec<String> = each.clone().map(|(n, s)| format!("s{n} AS ({s} RETURNING 1)")).collect();
    let counts: Vec<String> = each.map(|(n, _)| format!("(SELECT count(*) FROM s{n})")).collect();
    let sql = format!("WITH {} SELECT ARRAY[{}]::int8[]", with.join(", "), counts.join(", "));
    let rows: Vec<i64> = sqlx::query_scalar(&sql).fetch_one(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
    Ok(rows.into_iter().map(|n| u64::try_from(n).unwrap_or(0)).collect())
}

/// Some rows by their key, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// How many.
    pub rows: u64,
    /// The keys of the first.
    pub keys: Vec<Vec<Option<String>>>,
}

/// How many keys are shown.
const SHOWN: usize = 20;

/// Runs a statement that gives one array of texts `k` a row; how many, and the first of them.
///
/// # Errors
/// It fails.
pub async fn shown(c: &mut PgConnection, statement: &str) -> Result<Shown> {
    let sql = format!(
        "WITH d AS ({statement}) SELECT count(*), coalesce(pg_catalog.json_agg(k ORDER BY n) FILTER (WHERE n <= {SHOWN}), '[]')::text \
         FROM (SELECT k, row_number() OVER (ORDER BY length(k::text), k) AS n FROM d) x"
    );
    let (rows, keys): (i64, String) =
        sqlx::query_as(&sql).fetch_one(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
    let keys = serde_json::from_str(&keys).target(|| "cannot read keys".to_string())?;
    Ok(Shown { rows: u64::try_from(rows).unwrap_or(0), keys })
}

/// Keys of the shadow's table that the live one does not have, found batch by batch through its index, and their rows
/// appended to the staging table, when there is one. Returns rows of both that are not the same version, but for those that
/// `scope`'s transactions wrote; its first part is the condition on the shadow's rows.
///
/// # Errors
/// A query fails, or `check` says stop.
pub async fn stage_lost(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    pair: &Pair<'_>,
    stage: Option<&str>,
    scope: (&str, &[u32]),
    check: &mut (dyn FnMut(u64) -> Result<()> + Send),
) -> Result<Since> {
    let key = &pair.shadow.key;
    let declare = format!(
        "DECLARE breakglass_keys NO SCROLL CURSOR FOR SELECT {} || t.xmin::text FROM ONLY {} t WHERE {}",
        texts("t", key),
        pair.shadow.sql,
        scope.0
    );
    run(shadow, &declare).await?;
    let fetch = format!("FETCH {BATCH} FROM breakglass_keys");
    let (mut seen, mut since) = (0u64, Since::default());
    let damage: Vec<String> = scope.1.iter().map(u32::to_string).collect();
    loop {
        let batch = keys(shadow, &fetch).await?;
        if batch.is_empty() {
            break;
        }
        seen += batch.len() as u64;
        check(seen)?;
        let there = versions(live, pair, &batch).await?;
        let mut missing = Vec::new();
        for (i, mut k) in batch.into_iter().enumerate() {
            let was = k.pop().unwrap_or_default();
            match there.get(&i) {
                None => missing.push(k),
                Some((now, _)) if *now == was || damage.contains(now) => {}
                Some((_, place)) => since.push(k, place.clone()),
            }
        }
        if let Some(stage) = stage {
            let rows = rows_by(shadow, pair.shadow, key, &missing, pair.from).await?;
            load(live, stage, pair.columns, &rows).await?;
        }
    }
    run(shadow, "CLOSE breakglass_keys").await?;
    Ok(since)
}

/// The live rows with these keys, by place in the batch: who wrote them, and where they are. An element behind the key is not
/// looked at.
async fn versions(
    live: &mut PgConnection,
    pair: &Pair<'_>,
    batch: &[Vec<String>],
) -> Result<BTreeMap<usize, (String, String)>> {
    // The live table is asked by the shadow's key, whatever its own is now.
    let key = &pair.shadow.key;
    let by = ByValues::of(pair.live, key);
    let sql = format!(
        "SELECT k.place, t.xmin::text, t.ctid::text FROM unnest({}) WITH ORDINALITY k({}, place) JOIN ONLY {} t ON {}",
        by.arrays, by.names, pair.live.sql, by.condition
    );
    let mut query = sqlx::query_as::<_, (i64, String, String)>(&sql);
    for i in 0..key.len() {
        query = query.bind(ByValues::column(batch, i));
    }
    let rows = query.fetch_all(&mut *live).await.map_err(|e| query_error(&sql, &e))?;
    Ok(rows.into_iter().filter_map(|(n, x, place)| Some((usize::try_from(n - 1).ok()?, (x, place)))).collect())
}

/// One table as both sides know it.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Live.
    pub live: &'a Table,
    /// In the shadow.
    pub shadow: &'a Table,
    /// Columns that both have, in the live table's order.
    pub columns: &'a [String],
    /// Their names in the shadow.
    pub from: &'a [String],
}

/// Writes the rows of a query into a new file of mode 0600, durable, in COPY's text format.
///
/// # Errors
/// The query fails, or the file cannot be written.
pub async fn pipe_file(c: &mut PgConnection, query: &str, file: &std::path::Path) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let what = || format!("cannot write {:?}", file.display());
    let mut to = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).target(what)?;
    let sql = format!("COPY ({query}) TO STDOUT");
    let mut from = c.copy_out_raw(&sql).await.map_err(|e| query_error(&sql, &e))?;
    while let Some(bytes) = from.try_next().await.map_err(|e| query_error(&sql, &e))? {
        to.write_all(&bytes).target(what)?;
    }
    to.sync_all().target(what)
}

/// Loads such a file into a table.
///
/// # Errors
/// The file cannot be read, or the load fails.
pub async fn pipe_back(c: &mut PgConnection, file: &std::path::Path, stage: &str, columns: &[String]) -> Result<()> {
    use std::io::Read;
    let what = || format!("cannot read {:?}", file.display());
    let mut from = std::fs::File::open(file).target(what)?;
    let sql = copy_in(stage, columns);
    let mut to = c.copy_in_raw(&sql).await.map_err(|e| query_error(&sql, &e))?;
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        match from.read(&mut buffer).target(what)? {
            0 => break,
            n => to.send(buffer[..n].to_vec()).await.map_err(|e| query_error(&sql, &e))?,
        };
    }
    to.finish().await.map_err(|e| query_error(&sql, &e))?;
    Ok(())
}
