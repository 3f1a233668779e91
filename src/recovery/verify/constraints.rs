//! Constraints, asked of the rows themselves and not of an index that may be wrong: foreign keys, checks, not null, keys.

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::check;
use crate::error::{Context, Result};
use crate::model::event::{Check, Verdict};
use crate::postgres::connect::{describe, query_error, quote_ident, run, sqlstate};
use crate::recovery::tables::Table;
use crate::recovery::watch::check_cancel;

/// Checks every validated constraint of the tables.
///
/// # Errors
/// The connection fails or somebody asked to stop.
pub async fn check_constraints(c: &mut PgConnection, tables: &[Table], cancel: &CancellationToken) -> Result<Check> {
    run(c, "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off").await?;
    let result = all(c, tables, cancel).await;
    run(c, "RESET enable_indexscan; RESET enable_indexonlyscan; RESET enable_bitmapscan").await?;
    result
}

async fn all(c: &mut PgConnection, tables: &[Table], cancel: &CancellationToken) -> Result<Check> {
    let mut questions: Vec<(String, String)> = Vec::new();
    for t in tables {
        let nulls: Vec<String> =
            t.columns.iter().filter(|c| c.not_null).map(|c| format!("{} IS NULL", quote_ident(&c.name))).collect();
        if !nulls.is_empty() {
            questions.push((
                format!("not null of {}", t.name),
                format!("SELECT count(*) FROM ONLY {} WHERE {}", t.sql, nulls.join(" OR ")),
            ));
        }
    }
    questions.extend(from_catalog(c).await?);
    let total = questions.len();
    let (mut broken, mut unread) = (Vec::new(), Vec::new());
    for (name, sql) in questions {
        check_cancel(cancel, "the constraints are not checked")?;
        match sqlx::query_scalar::<_, i64>(&sql).fetch_one(&mut *c).await {
            Ok(0) => {}
            Ok(n) => broken.push(format!("{name}: {n} rows")),
            Err(e) if sqlstate(&e).is_some() => unread.push(format!("{name}: {}", describe(&e))),
            Err(e) => return Err(query_error(&sql, &e)),
        }
    }
    Ok(if !broken.is_empty() {
        check("constraints", Verdict::Failed, broken.join("; "))
    } else if !unread.is_empty() {
        check(
            "constraints",
            Verdict::NotAvailable,
            format!("{} of {total} not checked: {}", unread.len(), unread.join("; ")),
        )
    } else {
        check(
            "constraints",
            Verdict::Passed,
            format!("{total} hold on every row (foreign keys, checks, not null, keys)"),
        )
    })
}

async fn from_catalog(c: &mut PgConnection) -> Result<Vec<(String, String)>> {
    // Inherited copies on partitions are checked on the partition; a parent has no rows of its own.
    let sql = "SELECT k.contype::text AS kind, k.conname::text AS name, n.nspname::text AS schema, t.relname::text AS tab, \
        pg_catalog.pg_get_constraintdef(k.oid) AS def, coalesce(fn.nspname, '')::text AS fschema, \
        coalesce(f.relname, '')::text AS ftab, coalesce(k.confmatchtype, ' ')::text AS match, \
        ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, place) \
              JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY place) AS cols, \
        ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, place) \
              JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY place) AS fcols \
        FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class t ON t.oid = k.conrelid \
        JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace \
        LEFT JOIN pg_catalog.pg_class f ON f.oid = k.confrelid LEFT JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace \
        WHERE k.contype IN ('f', 'c', 'p', 'u') AND k.convalidated AND t.relkind = 'r' AND t.relpersistence = 'p' \
          AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%' \
        ORDER BY 3, 4, 2";
    let what = || "cannot read the constraints".to_string();
    let mut out = Vec::new();
    for row in sqlx::query(sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))? {
        let get = |column: &str| -> Result<String> { row.try_get(column).target(what) };
        let (schema, tab) = (get("schema")?, get("tab")?);
        let table = format!("{}.{}", quote_ident(&schema), quote_ident(&tab));
        let cols: Vec<String> = row.try_get("cols").target(what)?;
        let fcols: Vec<String> = row.try_get("fcols").target(what)?;
        let quoted = |alias: &str, names: &[String]| -> Vec<String> {
            names.iter().map(|n| format!("{alias}.{}", quote_ident(n))).collect()
        };
        let name = format!("{} of {schema}.{tab}", get("name")?);
        let mine = quoted("t", &cols);
        let set = mine.iter().map(|m| format!("{m} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
        let question = match get("kind")?.as_str() {
            "f" => {
                // The referenced table may be partitioned: no ONLY there. MATCH SIMPLE asks nothing when a column is null.
                let pairs: Vec<String> =
                    mine.iter().zip(quoted("f", &fcols)).map(|(m, f)| format!("{m} = {f}")).collect();
                let parent = format!("{}.{}", quote_ident(&get("fschema")?), quote_ident(&get("ftab")?));
                format!(
                    "SELECT count(*) FROM ONLY {table} t WHERE {set} AND NOT EXISTS (SELECT FROM {parent} f WHERE {})",
                    pairs.join(" AND ")
                )
            }
            "c" => {
                let def = get("def")?;
                let Some(condition) = def.strip_prefix("CHECK ").map(|d| d.trim_end_matches(" NO INHERIT")) else {
                    continue;
                };
                format!("SELECT count(*) FROM ONLY {table} WHERE NOT {condition}")
            }
            _ => format!(
                "SELECT count(*) FROM (SELECT FROM ONLY {table} t WHERE {set} GROUP BY {} HAVING count(*) > 1) d",
                mine.join(", ")
            ),
        };
        out.push((name, question));
    }
    Ok(out)
}
