//! Sequences: none may hand out a value that is already taken.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::check;
use crate::error::{Context, Result};
use crate::model::event::{Check, Verdict};
use crate::postgres::connect::{describe, query_error, quote_ident, sqlstate};

/// SQL: which sequence (`seq`) feeds which column (`tab`, `num`): owned by it (serial, identity), or named in its default.
pub const FEEDS: &str = "SELECT d.objid AS seq, d.refobjid AS tab, d.refobjsubid AS num FROM pg_catalog.pg_depend d \
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass \
      AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0 \
    UNION \
    SELECT d.refobjid, f.adrelid, f.adnum FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid \
    WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass";

/// Compares every sequence that belongs to or feeds a whole-number column with the largest value there.
///
/// # Errors
/// The connection fails.
pub async fn check_sequences(c: &mut PgConnection) -> Result<Check> {
    let sql = format!(
        "SELECT DISTINCT sn.nspname::text AS sschema, s.relname::text AS seq, n.nspname::text AS schema, \
        t.relname::text AS tab, a.attname::text AS col, q.seqincrement > 0 AS up \
        FROM pg_catalog.pg_class s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace \
        JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid \
        JOIN ({FEEDS}) u ON u.seq = s.oid \
        JOIN pg_catalog.pg_class t ON t.oid = u.tab JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace \
        JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.num \
        WHERE s.relkind = 'S' AND t.relkind IN ('r', 'p') AND a.atttypid IN (20, 21, 23) \
          AND sn.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, 3, 4, 5"
    );
    let what = || "cannot read the sequences".to_string();
    let rows = sqlx::query(&sql).fetch_all(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
    let (mut behind, mut unread) = (Vec::new(), Vec::new());
    for row in &rows {
        let get = |column: &str| -> Result<String> { row.try_get(column).target(what) };
        let up: bool = row.try_get("up").target(what)?;
        let (sequence, table) = (
            format!("{}.{}", quote_ident(&get("sschema")?), quote_ident(&get("seq")?)),
            format!("{}.{}", quote_ident(&get("schema")?), quote_ident(&get("tab")?)),
        );
        let edge = if up { "max" } else { "min" };
        let sql = format!(
            "SELECT s.last_value, s.is_called, (SELECT {edge}({}) FROM {table})::int8 FROM {sequence} s",
            quote_ident(&get("col")?)
        );
        let name = format!("{}.{}", get("sschema")?, get("seq")?);
        match sqlx::query_as::<_, (i64, bool, Option<i64>)>(&sql).fetch_one(&mut *c).await {
            Ok((last, called, Some(edge))) => {
                // A value not yet called is the next one handed out.
                let taken = if up {
                    last < edge || (last == edge && !called)
                } else {
                    last > edge || (last == edge && !called)
                };
                if taken {
                    behind.push(format!("{name} stands at {last}, the column is at {edge}"));
                }
            }
            Ok((_, _, None)) => {}
            Err(e) if sqlstate(&e).is_some() => unread.push(format!("{name}: {}", describe(&e))),
            Err(e) => return Err(query_error(&sql, &e)),
        }
    }
    Ok(if !behind.is_empty() {
        check("sequences", Verdict::Failed, behind.join("; "))
    } else if !unread.is_empty() {
        check("sequences", Verdict::NotAvailable, unread.join("; "))
    } else {
        check("sequences", Verdict::Passed, format!("{} are at or past the largest value of their column", rows.len()))
    })
}
