//! Indexes, by amcheck: every row of the table is found through each B-tree, and the tree is in order.

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::check;
use crate::error::{Context, Result};
use crate::model::event::{Check, Verdict};
use crate::postgres::connect::{describe, query_error, quote_ident, run, sqlstate};
use crate::recovery::watch::{Phase, Watch, check_cancel};

/// Checks the B-tree indexes of user tables and the heaps below them.
///
/// The extension must be in the database, or be installable and the instance open: then it is created inside a transaction
/// that is rolled back. In recovery without the extension the check is not available.
///
/// # Errors
/// The connection fails or somebody asked to stop.
pub async fn check_indexes(c: &mut PgConnection, watch: &dyn Watch, cancel: &CancellationToken) -> Result<Check> {
    const NAME: &str = "amcheck";
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), \
               (SELECT n.nspname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
                WHERE e.extname = 'amcheck'), \
               EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck')";
    let (recovering, schema, available): (bool, Option<String>, bool) =
        sqlx::query_as(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    match (schema, recovering, available) {
        (Some(schema), _, _) => run_all(c, &schema, false, watch, cancel).await,
        (None, _, false) => Ok(check(NAME, Verdict::NotAvailable, "the extension is not installed on this machine")),
        (None, true, true) => Ok(check(
            NAME,
            Verdict::NotAvailable,
            "the extension is not in this database and cannot be created during recovery; run it once the instance is open",
        )),
        (None, false, true) => {
            run(c, "BEGIN READ WRITE").await?;
            let created = run(c, "CREATE EXTENSION amcheck SCHEMA pg_catalog").await;
            let result = match created {
                Ok(()) => run_all(c, "pg_catalog", true, watch, cancel).await,
                Err(e) => Ok(check(NAME, Verdict::NotAvailable, format!("cannot create the extension: {}", e.why))),
            };
            run(c, "ROLLBACK").await?;
            result
        }
    }
}

async fn run_all(
    c: &mut PgConnection,
    schema: &str,
    inside: bool,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Check> {
    const NAME: &str = "amcheck";
    let list = "SELECT i.indexrelid::int8 AS oid, n.nspname || '.' || x.relname AS name \
                FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
                JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace JOIN pg_catalog.pg_am a ON a.oid = x.relam \
                WHERE a.amname = 'btree' AND x.relkind = 'i' AND x.relpersistence = 'p' AND i.indisvalid AND i.indisready \
                  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 2";
    let rows = sqlx::query(list).fetch_all(&mut *c).await.map_err(|e| query_error(list, &e))?;
    let function = format!("{}.bt_index_check", quote_ident(schema));
    let (mut bad, mut unread) = (Vec::new(), Vec::new());
    for (i, row) in rows.iter().enumerate() {
        check_cancel(cancel, "the indexes are not checked")?;
        let oid: i64 = row.try_get("oid").target(|| "cannot read the list of indexes".into())?;
        let name: String = row.try_get("name").target(|| "cannot read the list of indexes".into())?;
        watch.phase(&Phase {
            name: "indexes",
            done: i as u64,
            total: Some(rows.len() as u64),
            unit: "indexes",
            text: name.clone(),
            ..Phase::default()
        });
        // Outside a transaction a savepoint is an error, and not needed.
        let save = if inside { "SAVEPOINT amcheck; " } else { "" };
        let sql = format!("{save}SELECT {function}({oid}::oid::regclass, true)");
        match sqlx::Executor::execute(&mut *c, sqlx::raw_sql(&sql)).await {
            Ok(_) => {}
            Err(e) => {
                match sqlstate(&e).as_deref() {
                    // data_corrupted, index_corrupted
                    Some("XX001" | "XX002") => bad.push(format!("{name}: {}", describe(&e))),
                    Some(_) => unread.push(format!("{name}: {}", describe(&e))),
                    None => return Err(query_error(&sql, &e)),
                }
                if inside {
                    run(c, "ROLLBACK TO SAVEPOINT amcheck").await?;
                }
            }
        }
    }
    Ok(if !bad.is_empty() {
        check(NAME, Verdict::Failed, bad.join("; "))
    } else if !unread.is_empty() {
        check(NAME, Verdict::NotAvailable, format!("{} of {} indexes: {}", unread.len(), rows.len(), unread.join("; ")))
    } else {
        check(NAME, Verdict::Passed, format!("{} indexes in order, every row found through each", rows.len()))
    })
}
