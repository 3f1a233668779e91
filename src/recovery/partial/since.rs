//! Rows whose key is live and that are not back all the same: another row was written under the key since, or a damaged row was
//! changed since and still bears what the damage wrote.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;

use super::rows::{self, Shown, load, rows_by};
use super::{Left, Options, Staged, fill};
use crate::error::Result;
use crate::postgres::connect::{query_error, quote_ident, quote_literal, run};

/// How many rows changed since are looked at one by one, at most, of each table.
pub const MOST: usize = 200_000;

/// Rows of both sides with one key that are not the same version.
#[derive(Debug, Default)]
pub struct Since {
    /// Key, and where the live row is (`ctid`).
    pub rows: Vec<(Vec<String>, String)>,
    /// Those beyond [`MOST`].
    pub more: u64,
}

impl Since {
    /// One more.
    pub fn push(&mut self, key: Vec<String>, place: String) {
        if self.rows.len() < MOST { self.rows.push((key, place)) } else { self.more += 1 }
    }
}

/// Columns whose values the damage changed, seen on the rows that nobody changed since.
///
/// # Errors
/// A query fails.
pub async fn damaged_columns(live: &mut PgConnection, s: &Staged) -> Result<Vec<String>> {
    let others: Vec<&String> = s.columns.iter().filter(|c| !s.shadow.key.contains(c)).collect();
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let each: Vec<String> = others.iter().map(|c| format!("coalesce(bool_or({}), false)", differs(c))).collect();
    let sql = format!(
        "SELECT ARRAY[{}] FROM ONLY {} t JOIN {} s ON {}",
        each.join(", "),
        s.live.sql,
        s.old_stage,
        rows::equal("t", &s.shadow.key, "s", &s.shadow.key)
    );
    let found: Vec<bool> = sqlx::query_scalar(&sql).fetch_one(&mut *live).await.map_err(|e| query_error(&sql, &e))?;
    Ok(others.into_iter().zip(found).filter(|(_, d)| *d).map(|(c, _)| c.clone()).collect())
}

fn differs(column: &str) -> String {
    format!("t.{0}::text IS DISTINCT FROM s.{0}::text", quote_ident(column))
}

/// Names those of `since` that are not back. Rows that were merely changed since are newer rows and stay.
///
/// # Errors
/// A query fails.
pub async fn look(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    s: &mut Staged,
    n: usize,
    since: Since,
    options: &Options,
) -> Result<()> {
    if s.shadow.key.is_empty() || s.part.recreated {
        return Ok(());
    }
    let mut damage = options.damage.get(&s.live.name).cloned().unwrap_or_default();
    if !options.damaged_by.is_empty() {
        damage.extend(damaged_columns(live, s).await?);
    }
    damage.sort();
    damage.dedup();
    damage.retain(|c| s.columns.contains(c) && !s.fill.has(c));
    s.part.damage.clone_from(&damage);
    let mut rows = since.rows;
    let written_new = inserted(live, &s.live.sql, &rows).await?;
    if let Some(new) = &written_new {
        // Nothing tells of these whether somebody else wrote them anew before they were changed.
        s.part.changed_since = if options.lost { (rows.len() - new.len()) as u64 } else { 0 };
        if damage.is_empty() {
            rows.retain(|(_, place)| new.contains(place));
        }
    }
    if since.more > 0 && (!damage.is_empty() || options.lost) {
        let why = "changed since, too many to look at each".to_string();
        s.part.left.push(Left { why, rows: since.more, certain: false, ..Left::default() });
    }
    if rows.is_empty() {
        return Ok(());
    }
    let was = format!("breakglass_was_{n}");
    let sql = format!(
        "CREATE TEMPORARY TABLE {was} ON COMMIT DROP AS SELECT {} FROM ONLY {} t WITH NO DATA; \
         CREATE TEMPORARY TABLE {was}_new (place tid) ON COMMIT DROP",
        rows::list("t", &s.columns),
        s.live.sql
    );
    run(live, &sql).await?;
    let was = format!("pg_temp.{was}");
    let keys: Vec<Vec<String>> = rows.into_iter().map(|(key, _)| key).collect();
    for batch in keys.chunks(rows::BATCH) {
        let values = rows_by(shadow, &s.shadow, &s.shadow.key, batch, &s.from).await?;
        load(live, &was, &s.columns, &values).await?;
    }
    if let Some(new) = &written_new {
        let places: Vec<Vec<Option<String>>> = new.iter().map(|p| vec![Some(p.clone())]).collect();
        load(live, &format!("{was}_new"), &["place".to_string()], &places).await?;
    }
    let any = |columns: &[String]| columns.iter().map(|c| differs(c)).collect::<Vec<_>>().join(" OR ");
    let key = &s.shadow.key.clone();
    let pairs = format!("FROM ONLY {} t JOIN {was} s ON {}", s.live.sql, rows::equal("t", key, "s", key));
    let new = format!("t.ctid IN (SELECT place FROM {was}_new)");
    let others = fill::telling(s);
    let mut kinds = Vec::new();
    if !others.is_empty() {
        let another = if written_new.is_some() { format!("{new} AND ({})", any(&others)) } else { any(&others) };
        fill::without_others(live, s, &was, &another).await?;
    }
    if !others.is_empty() && options.lost {
        match &written_new {
            Some(_) => kinds.push((
                format!("{new} AND ({})", any(&others)),
                "another row was written under their key since".to_string(),
                true,
            )),
            None => kinds.push((
                format!("({})", any(&others)),
                "changed since, or another row under their key; which of both shows only with the extension pageinspect"
                    .to_string(),
                false,
            )),
        }
    }
    if !damage.is_empty() {
        let why = format!("changed since, and still not as before in what the damage wrote ({})", damage.join(", "));
        kinds.push((format!("NOT {new} AND ({})", any(&damage)), why, true));
    }
    for (condition, why, certain) in kinds {
        let k = rows::texts("t", key);
        let shown = rows::shown(live, &format!("SELECT {k} AS k {pairs} WHERE {condition}")).await?;
        s.leave(why, shown, certain);
    }
    Ok(())
}

/// Which of the rows were inserted as they stand, not updated: the header of a row tells (`HEAP_UPDATED`, 0x2000, of
/// PostgreSQL's htup_details.h). None when the server has no `pageinspect`, which is made and taken back within the transaction.
async fn inserted(
    live: &mut PgConnection,
    table_sql: &str,
    rows: &[(Vec<String>, String)],
) -> Result<Option<BTreeSet<String>>> {
    if rows.is_empty() {
        return Ok(Some(BTreeSet::new()));
    }
    run(live, "SAVEPOINT pages").await?;
    let found = pages(live, table_sql, rows).await;
    run(live, "ROLLBACK TO SAVEPOINT pages; RELEASE SAVEPOINT pages").await?;
    Ok(found.ok())
}

async fn pages(live: &mut PgConnection, table_sql: &str, rows: &[(Vec<String>, String)]) -> Result<BTreeSet<String>> {
    let sql = "SELECT n.nspname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
               WHERE e.extname = 'pageinspect'";
    let schema: Option<String> =
        sqlx::query_scalar(sql).fetch_optional(&mut *live).await.map_err(|e| query_error(sql, &e))?;
    let schema = match schema {
        Some(name) => quote_ident(&name),
        None => {
            run(live, "CREATE EXTENSION pageinspect SCHEMA pg_catalog").await?;
            "pg_catalog".into()
        }
    };
    let sql = format!(
        "SELECT i.t_ctid_text FROM (SELECT DISTINCT split_part(btrim(p, '()'), ',', 1)::int8 AS block FROM unnest($1::text[]) p) b, \
         LATERAL (SELECT '(' || b.block || ',' || h.lp || ')' AS t_ctid_text FROM {schema}.heap_page_items( \
         {schema}.get_raw_page({}, b.block::int4)) h WHERE h.t_infomask & 8192 = 0) i WHERE i.t_ctid_text = ANY ($1::text[])",
        quote_literal(table_sql)
    );
    let places: Vec<&str> = rows.iter().map(|(_, p)| p.as_str()).collect();
    let found: Vec<String> =
        sqlx::query_scalar(&sql).bind(&places).fetch_all(&mut *live).await.map_err(|e| query_error(&sql, &e))?;
    Ok(found.into_iter().collect())
}

impl Staged {
    /// Notes rows that do not come back.
    pub(super) fn leave(&mut self, why: String, shown: Shown, certain: bool) {
        if shown.rows == 0 {
            return;
        }
        let key = &self.shadow.key;
        let columns: Vec<String> = key.iter().map(|c| quote_ident(c)).collect();
        let literal = |k: &Vec<Option<String>>| {
            let each: Vec<String> = k.iter().map(|v| quote_literal(v.as_deref().unwrap_or_default())).collect();
            format!("({})", each.join(", "))
        };
        let query = (!key.is_empty()).then(|| {
            let values: Vec<String> = shown.keys.iter().map(literal).collect();
            format!("SELECT * FROM {} WHERE ({}) IN ({})", self.shadow.sql, columns.join(", "), values.join(", "))
        });
        let words =
            |k: &Vec<Option<String>>| k.iter().map(|v| v.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(", ");
        let keys = shown.keys.iter().map(words).collect();
        self.part.left.push(Left { why, rows: shown.rows, keys, query, certain });
    }
}
