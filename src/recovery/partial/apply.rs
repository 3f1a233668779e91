//! Staged rows into their tables, in the same transaction, referenced tables first.

use std::path::Path;

use sqlx::postgres::PgConnection;

use super::along::{keys_of, orphan};
use super::catalog;
use super::catalog::ForeignKey;
use super::fill;
use super::rows::{count, equal, execute, list, pipe_file, shown, texts, together};
use super::undo::{Made, Record, RecordedTable};
use super::{Part, Plan, Staged, rules, sequences, written_by};
use crate::error::{Context, Result};
use crate::model::Time;
use crate::postgres::connect::{query_error, quote_ident, run};

/// Brings the staged rows back, notes in `folder` what undoing needs (durable before the commit), and commits.
///
/// A row must still bear the mark of a damaging transaction to be put back: one that was changed meanwhile is left alone.
///
/// # Errors
/// A statement fails, or the record cannot be written: then nothing was changed.
pub async fn apply(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    plan: &Plan,
    folder: &Path,
    now: Time,
) -> Result<(Record, Vec<Part>)> {
    let what = || format!("cannot make the folder {:?}", folder.display());
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).target(what)?;
    }
    std::fs::create_dir(folder).target(what)?;
    let written = write(live, shadow, plan, folder, now).await;
    if written.is_err() {
        // It is ours, and nothing can be undone with it. What failed first is what counts.
        let _ = std::fs::remove_dir_all(folder);
    }
    let done = written?;
    // From here on the record stays: whether the commit happened is asked of the server.
    run(live, "COMMIT").await?;
    Ok(done)
}

/// All of it but the commit.
async fn write(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    plan: &Plan,
    folder: &Path,
    now: Time,
) -> Result<(Record, Vec<Part>)> {
    let mut parts = Vec::new();
    let mut record = Record::begin(live, now).await?;
    run(live, "SET CONSTRAINTS ALL DEFERRED").await?;
    let order = order(plan);
    let mut muted = Vec::new();
    for at in order.iter().flatten() {
        let s = &plan.tables[*at];
        if plan.options.fire_triggers {
            continue;
        }
        for (name, always) in catalog::triggers(live, &s.live.sql).await? {
            run(live, &format!("ALTER TABLE {} DISABLE TRIGGER {}", s.live.sql, quote_ident(&name))).await?;
            muted.push((s.live.sql.clone(), name, always));
        }
    }
    let mut inserted = Vec::new();
    for group in &order {
        inserted.extend(insert(live, plan, group).await?);
    }
    for (n, Inserted { table: s, came, blocked, named }) in inserted.into_iter().enumerate() {
        let s = &s;
        let mut part = s.part.clone();
        let staged = s.part.lost;
        (part.lost, part.damaged, part.filled) = (came, 0, 0);
        part.blocked += blocked;
        let skipped = staged.saturating_sub(came + blocked + named);
        part.newer_kept += skipped;
        if skipped > 0 && !s.shadow.key.is_empty() {
            let key = &s.shadow.key;
            let sql = format!(
                "SELECT {} AS k FROM {} s WHERE NOT EXISTS (SELECT FROM ONLY {} t WHERE {})",
                texts("s", key),
                s.lost_stage,
                s.live.sql,
                equal("t", key, "s", key)
            );
            let mut s = s.clone();
            s.leave("a newer row has a unique value of theirs".into(), shown(live, &sql).await?, true);
            part.left.clone_from(&s.part.left);
        }
        let file = format!("before-{n}.copy");
        let (put_back, filled) = overwrite(live, plan, s, &folder.join(&file)).await?;
        let old_rows = (s.part.damaged + s.part.filled > 0).then_some(file);
        (part.damaged, part.filled) = (put_back, filled);
        record.tables.push(RecordedTable {
            table: s.live.name.clone(),
            sql: s.live.sql.clone(),
            oid: Some(oid(live, &s.live.sql).await?),
            recreated: part.recreated,
            brought_back: part.lost,
            put_back: part.damaged + part.filled,
            columns: s.columns.clone(),
            writable: s.writable.clone(),
            key: s.shadow.key.clone(),
            old_rows,
        });
        parts.push(part);
    }
    run(live, "SET CONSTRAINTS ALL IMMEDIATE").await?;
    plan.labels.as_then(live).await?;
    run(live, &plan.schema.after).await?;
    plan.labels.as_now(live).await?;
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
        sequences::raise(live, shadow, &s.live.sql).await?;
    }
    for sql in plan.missing.all() {
        record.made.push(Made { oid: Some(oid(live, &sql).await?), sql });
    }
    record.under = plan.missing.tops.iter().map(|t| (t.above.clone(), t.sql.clone())).collect();
    record.schemas.clone_from(&plan.schemas);
    record.save(folder)?;
    Ok((record, parts))
}

async fn oid(live: &mut PgConnection, table_sql: &str) -> Result<u32> {
    let sql = "SELECT $1::text::regclass::oid::int8";
    let n: i64 =
        sqlx::query_scalar(sql).bind(table_sql).fetch_one(&mut *live).await.map_err(|e| query_error(sql, &e))?;
    u32::try_from(n).target(|| format!("cannot read the number of {table_sql}"))
}

/// Puts damaged rows back and fills what is empty, after noting those rows in `file` as they are; how many of each.
async fn overwrite(live: &mut PgConnection, plan: &Plan, s: &Staged, file: &Path) -> Result<(u64, u64)> {
    let marked = written_by("t", &plan.options.damaged_by);
    let key = equal("t", &s.shadow.key, "s", &s.shadow.key);
    let (mut old, mut done) = (Vec::new(), (0, 0));
    // Locked first: what is noted is what is then overwritten.
    if s.part.damaged > 0 {
        let rows = format!("ONLY {} t JOIN {} s ON {key} WHERE {marked}", s.live.sql, s.old_stage);
        count(live, &format!("SELECT count(*) FROM (SELECT 1 FROM {rows} FOR NO KEY UPDATE OF t) l")).await?;
        old.push(format!("SELECT {} FROM {rows}", list("t", &s.columns)));
    }
    if s.part.filled > 0 {
        fill::lock(live, s).await?;
        old.push(format!("SELECT {} FROM {}", list("t", &s.columns), fill::pairs(s)));
    }
    if old.is_empty() {
        return Ok(done);
    }
    pipe_file(live, &old.join(" UNION ALL "), file).await?;
    let set: Vec<String> = s
        .writable
        .iter()
        .filter(|c| !s.shadow.key.contains(c))
        .map(|c| format!("{0} = s.{0}", quote_ident(c)))
        .collect();
    if s.part.damaged > 0 && !set.is_empty() {
        let (table, set) = (&s.live.sql, set.join(", "));
        let sql = format!("UPDATE ONLY {table} t SET {set} FROM {} s WHERE {key} AND {marked}", s.old_stage);
        done.0 = execute(live, &sql).await?;
    }
    if s.part.filled > 0 {
        done.1 = fill::apply(live, s).await?;
    }
    Ok(done)
}

/// What inserting did with one table.
struct Inserted {
    /// The table, with what it left out meanwhile.
    table: Staged,
    /// Rows that came.
    came: u64,
    /// Rows that lost the row they reference meanwhile.
    blocked: u64,
    /// Rows that were left out meanwhile and are named.
    named: u64,
}

/// Inserts the staged rows of tables that wait for nobody but each other. In one statement: foreign keys are held at its end, also
/// those in a circle that cannot be deferred.
async fn insert(live: &mut PgConnection, plan: &Plan, group: &[usize]) -> Result<Vec<Inserted>> {
    let mut out: Vec<Inserted> = Vec::new();
    let mut statements = Vec::new();
    for at in group {
        let mut s = plan.tables[*at].clone();
        let (mut blocked, mut named) = (0, 0);
        if s.part.lost > 0 {
            let held = rules::hold(live, &mut s).await?;
            named = held.unwrap_or(0);
            blocked = drop_orphans(live, plan, &s, group).await?;
            // Nobody else writes into what is held or was just made.
            let quietly = if held.is_some() || s.part.recreated { "" } else { " ON CONFLICT DO NOTHING" };
            statements.push(format!(
                "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} s{quietly}",
                s.live.sql,
                names(&s.writable),
                list("s", &s.writable),
                s.lost_stage
            ));
        }
        out.push(Inserted { table: s, came: 0, blocked, named });
    }
    let came = match &statements[..] {
        [] => Vec::new(),
        [one] => vec![execute(live, one).await?],
        all => together(live, all).await?,
    };
    let with_rows = out.iter_mut().filter(|i| i.table.part.lost > 0);
    with_rows.zip(came).for_each(|(i, came)| i.came = came);
    Ok(out)
}

fn names(columns: &[String]) -> String {
    columns.iter().map(|c| quote_ident(c)).collect::<Vec<_>>().join(", ")
}

/// Rows whose referenced row was not brought back after all: another session was quicker with a unique value.
async fn drop_orphans(live: &mut PgConnection, plan: &Plan, s: &Staged, group: &[usize]) -> Result<u64> {
    let mut gone = 0;
    for k in keys_of(plan, s) {
        // Of tables that come in the same statement the staged rows count.
        let own = group.iter().any(|at| holds(&plan.tables[*at], &k));
        gone += execute(live, &format!("DELETE FROM {} s WHERE {}", s.lost_stage, orphan(plan, &k, own))).await?;
    }
    Ok(gone)
}

/// Whether a foreign key leads to this table, or to the partitioned one it belongs to.
fn holds(s: &Staged, k: &ForeignKey) -> bool {
    s.live.name == k.parent || s.live.family == k.parent
}

/// Referenced tables before referencing ones. Tables that reference each other in a circle are one group.
fn order(plan: &Plan) -> Vec<Vec<usize>> {
    let mut out: Vec<Vec<usize>> = Vec::new();
    let mut left: Vec<usize> = (0..plan.tables.len()).collect();
    while !left.is_empty() {
        // All that must be there for a table, directly or not; of the smallest such set every member needs every other.
        let with_needs = |at: usize| {
            let mut all = vec![at];
            let mut n = 0;
            while let Some(i) = all.get(n).copied() {
                let keys = keys_of(plan, &plan.tables[i]);
                let more: Vec<usize> = left
                    .iter()
                    .copied()
                    .filter(|p| !all.contains(p) && keys.iter().any(|k| holds(&plan.tables[*p], k)))
                    .collect();
                all.extend(more);
                n += 1;
            }
            all
        };
        let mut group = left.iter().map(|at| with_needs(*at)).min_by_key(Vec::len).unwrap_or_default();
        group.sort_unstable();
        left.retain(|i| !group.contains(i));
        out.push(group);
    }
    out
}
