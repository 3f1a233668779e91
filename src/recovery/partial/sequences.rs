//! Sequences of tables whose rows came back: none may give out a number a second time.

use sqlx::postgres::PgConnection;

use crate::error::Result;
use crate::postgres::connect::{query_error, quote_ident, quote_literal};
use crate::recovery::verify::sequences::FEEDS;

/// A sequence, and a column that it feeds: schema, name, the column's table (quoted), the column when it holds whole numbers.
type Fed = (String, String, String, Option<String>);

/// Moves every sequence that feeds a table, or a table it is a partition of, past what is there and past where it stood in the
/// shadow. It is only ever moved on, which a rollback need not undo.
///
/// # Errors
/// A query fails.
pub async fn raise(live: &mut PgConnection, shadow: &mut PgConnection, table_sql: &str) -> Result<()> {
    // A number column of the top one is asked: it holds the rows of all its partitions.
    let sql = format!(
        "SELECT DISTINCT sn.nspname::text, s.relname::text, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.relname), \
         CASE WHEN a.atttypid IN (20, 21, 23) THEN pg_catalog.quote_ident(a.attname) END \
         FROM (SELECT $1::text::regclass AS relid UNION SELECT relid FROM pg_catalog.pg_partition_ancestors($1::text::regclass)) r \
         JOIN ({FEEDS}) u ON u.tab = r.relid JOIN pg_catalog.pg_class s ON s.oid = u.seq AND s.relkind = 'S' \
         JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace JOIN pg_catalog.pg_class t ON t.oid = u.tab \
         JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = u.tab AND a.attnum = u.num ORDER BY 1, 2, 3"
    );
    let fed: Vec<Fed> =
        sqlx::query_as(&sql).bind(table_sql).fetch_all(&mut *live).await.map_err(|e| query_error(&sql, &e))?;
    // Null where it gave out nothing, where it may not be read, and, without a row, where there is none.
    let last = "SELECT last_value FROM pg_catalog.pg_sequences WHERE schemaname = $1 AND sequencename = $2";
    for (schema, name, table, column) in fed {
        let there: Option<Option<i64>> = sqlx::query_scalar(last)
            .bind(&schema)
            .bind(&name)
            .fetch_optional(&mut *shadow)
            .await
            .map_err(|e| query_error(last, &e))?;
        let sequence = format!("{}.{}", quote_ident(&schema), quote_ident(&name));
        let edge = |f: &str| match &column {
            Some(c) => format!("(SELECT {f}({c})::int8 FROM {table})"),
            None => "NULL::int8".to_string(),
        };
        let move_on = format!(
            "SELECT pg_catalog.setval({0}, m, true) FROM {sequence} q, pg_catalog.pg_sequence d, LATERAL (SELECT \
             CASE WHEN d.seqincrement > 0 THEN greatest({1}, $1::int8) ELSE least({2}, $1::int8) END AS m) x \
             WHERE d.seqrelid = {0}::regclass AND NOT d.seqcycle AND m BETWEEN d.seqmin AND d.seqmax \
             AND (CASE WHEN d.seqincrement > 0 THEN m > q.last_value ELSE m < q.last_value END \
                  OR (m = q.last_value AND NOT q.is_called))",
            quote_literal(&sequence),
            edge("max"),
            edge("min"),
        );
        sqlx::query(&move_on).bind(there.flatten()).execute(&mut *live).await.map_err(|e| query_error(&move_on, &e))?;
    }
    Ok(())
}
