//! Staged rows into their tables, in the same transaction, referenced tables first.

use std::path::Path;

use sqlx::postgres::PgConnection;

use super::catalog;
use super::rows::{count, equal, execute, list, pipe_file};
use super::undo::{Record, RecordedTable};
use super::{Part, Plan, Staged, keys_of, orphan, written_by};
use crate::error::Result;
use crate::model::Time;
use crate::postgres::connect::{query_error, quote_ident, run, sqlstate};

/// Brings the staged rows back, notes in `folder` what undoing needs (durable before the commit), and commits.
///
/// `damaged_by` are the transactions whose marks a row must still bear to be put back: a row changed meanwhile is left alone.
///
/// # Errors
/// A statement fails, or the record cannot be written: then nothing was changed.
pub async fn apply(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    plan: &Plan,
    damaged_by: &[u32],
    folder: &Path,
    now: Time,
) -> Result<(Record, Vec<Part>)> {
    let mut parts = Vec::new();
    let mut record = Record::begin(live, now).await?;
    std::fs::create_dir_all(folder)
        .map_err(|e| crate::error::Error::target(format!("cannot make the folder {:?}", folder.display())).why(e))?;
    run(live, "SET CONSTRAINTS ALL DEFERRED").await?;
    let order = order(plan);
    let mut muted = Vec::new();
    for at in &order {
        let s = &plan.tables[*at];
        if plan.fire_triggers || s.part.recreated {
            continue;
        }
        for (name, always) in catalog::triggers(live, &s.live.sql).await? {
            run(live, &format!("ALTER TABLE {} DISABLE TRIGGER {}", s.live.sql, quote_ident(&name))).await?;
            muted.push((s.live.sql.clone(), name, always));
        }
    }
    for (n, at) in order.iter().enumerate() {
        let s = &plan.tables[*at];
        let mut part = s.part.clone();
        let waiting = order[n..]
            .iter()
            .any(|a| a != at && keys_of(plan, s).iter().any(|k| k.parent == plan.tables[*a].live.name));
        (part.lost, part.damaged) = (0, 0);
        let staged = s.part.lost;
        if staged > 0 {
            if !waiting {
                part.blocked += drop_orphans(live, plan, s).await?;
            }
            let sql = format!(
                "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} s ON CONFLICT DO NOTHING",
                s.live.sql,
                names(&s.writable),
                list("s", &s.writable),
                s.lost_stage
            );
            part.lost = execute(live, &sql).await?;
            part.newer_kept = (s.part.newer_kept + staged).saturating_sub(part.lost + part.blocked - s.part.blocked);
        }
        let mut old_rows = None;
        if s.part.damaged > 0 {
            let file = format!("before-{n}.copy");
            let marked = written_by("t", damaged_by);
            let key = equal("t", &s.shadow.key, "s", &s.shadow.key);
            // Locked first: what is noted is what is then overwritten.
            let lock = format!(
                "SELECT count(*) FROM (SELECT 1 FROM ONLY {} t JOIN {} s ON {key} WHERE {marked} FOR NO KEY UPDATE OF t) l",
                s.live.sql, s.old_stage
            );
            count(live, &lock).await?;
            let query = format!(
                "SELECT {} FROM ONLY {} t JOIN {} s ON {key} WHERE {marked}",
                list("t", &s.columns),
                s.live.sql,
                s.old_stage
            );
            pipe_file(live, &query, &folder.join(&file)).await?;
            let set: Vec<String> = s
                .writable
                .iter()
                .filter(|c| !s.shadow.key.contains(c))
                .map(|c| format!("{0} = s.{0}", quote_ident(c)))
                .collect();
            if !set.is_empty() {
                let sql = format!(
                    "UPDATE ONLY {} t SET {} FROM {} s WHERE {key} AND {marked}",
                    s.live.sql,
                    set.join(", "),
                    s.old_stage
                );
                part.damaged = execute(live, &sql).await?;
            }
            old_rows = Some(file);
        }
        record.tables.push(RecordedTable {
            table: s.live.name.clone(),
            sql: s.live.sql.clone(),
            recreated: part.recreated,
            brought_back: part.lost,
            put_back: part.damaged,
            columns: s.columns.clone(),
            writable: s.writable.clone(),
            key: s.shadow.key.clone(),
            old_rows,
        });
        parts.push(part);
    }
    run(live, "SET CONSTRAINTS ALL IMMEDIATE").await?;
    run(live, &plan.schema.after).await?;
    run(live, "SET search_path = pg_catalog").await?;
    for k in &plan.lost_keys {
        let sql = format!("ALTER TABLE {} ADD CONSTRAINT {} {}", k.child_sql, quote_ident(&k.name), k.definition);
        let there =
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conrelid = $1::text::regclass AND conname = $2)";
        let there: bool = sqlx::query_scalar(there)
            .bind(&k.child_sql)
            .bind(&k.name)
            .fetch_one(&mut *live)
            .await
            .map_err(|e| query_error(there, &e))?;
        if !there {
            run(live, &sql).await?;
            record.constraints.push((k.child_sql.clone(), k.name.clone()));
        }
    }
    for (table, name, always) in muted {
        let how = if always { "ENABLE ALWAYS TRIGGER" } else { "ENABLE TRIGGER" };
        run(live, &format!("ALTER TABLE {table} {how} {}", quote_ident(&name))).await?;
    }
    for s in &plan.tables {
        raise_sequences(live, shadow, s).await?;
    }
    record.save(folder)?;
    run(live, "COMMIT").await?;
    Ok((record, parts))
}

fn names(columns: &[String]) -> String {
    columns.iter().map(|c| quote_ident(c)).collect::<Vec<_>>().join(", ")
}

/// Rows whose referenced row was not brought back after all: another session was quicker with a unique value.
async fn drop_orphans(live: &mut PgConnection, plan: &Plan, s: &Staged) -> Result<u64> {
    let mut gone = 0;
    for k in keys_of(plan, s) {
        // Of the table itself the staged rows count: they come in one statement.
        let own = k.parent == s.live.name;
        gone += execute(live, &format!("DELETE FROM {} s WHERE {}", s.lost_stage, orphan(plan, &k, own))).await?;
    }
    Ok(gone)
}

/// Referenced tables before referencing ones; in a circle, as they come (deferrable keys then still hold at the end).
pub(super) fn order(plan: &Plan) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    let needs = |at: usize, out: &[usize]| {
        keys_of(plan, &plan.tables[at]).iter().any(|k| {
            plan.tables
                .iter()
                .enumerate()
                .any(|(p, t)| p != at && !out.contains(&p) && (t.live.name == k.parent || t.live.family == k.parent))
        })
    };
    while out.len() < plan.tables.len() {
        let left: Vec<usize> = (0..plan.tables.len()).filter(|i| !out.contains(i)).collect();
        let next = left.iter().copied().find(|i| !needs(*i, &out)).unwrap_or(left[0]);
        out.push(next);
    }
    out
}

/// A sequence must not hand out a value that came back. It is only ever moved on, which a rollback need not undo.
async fn raise_sequences(live: &mut PgConnection, shadow: &mut PgConnection, s: &Staged) -> Result<()> {
    for (sequence, column) in catalog::sequences(live, &s.live.sql).await? {
        let sql = format!("SELECT last_value FROM {sequence}");
        // A table made again gets its sequence's place, too; elsewhere the shadow's sequence may not exist.
        let before: Option<i64> = if s.part.recreated {
            match sqlx::query_scalar(&sql).fetch_one(&mut *shadow).await {
                Ok(n) => Some(n),
                Err(e) if sqlstate(&e).is_some() => None,
                Err(e) => return Err(query_error(&sql, &e)),
            }
        } else {
            None
        };
        let move_on = format!(
            "SELECT pg_catalog.setval({}, m, true) FROM (SELECT greatest((SELECT max({column})::int8 FROM {}), $1::int8) AS m) x, \
             {sequence} q, pg_catalog.pg_sequence d WHERE d.seqrelid = {0}::regclass AND d.seqincrement > 0 AND m <= d.seqmax \
             AND (m > q.last_value OR (m = q.last_value AND NOT q.is_called))",
            crate::postgres::connect::quote_literal(&sequence),
            s.live.sql
        );
        sqlx::query(&move_on).bind(before).execute(&mut *live).await.map_err(|e| query_error(&move_on, &e))?;
    }
    Ok(())
}
