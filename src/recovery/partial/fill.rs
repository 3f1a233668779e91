//! Values of columns that were dropped and made again: they are empty in rows that stand. They are missed, and put back into those
//! rows on request.

use sqlx::postgres::PgConnection;

use super::rows::{count, equal, execute, list, pipe};
use super::{Options, Staged};
use crate::error::{Error, Result};
use crate::postgres::connect::{query_error, quote_ident, run};

/// What is filled of a table, and where it is staged.
#[derive(Debug, Clone, Default)]
pub struct Fill {
    /// Columns to be filled where they are empty.
    pub columns: Vec<String>,
    /// Columns that were made again since.
    pub made_again: Vec<String>,
    /// Staged rows with values of the columns to be filled.
    pub stage: String,
    /// Keys of the rows with values of columns made again, with a mark for each of these.
    marks: String,
}

impl Fill {
    /// Whether a column's values are another matter than whether its row is the same one.
    pub fn has(&self, column: &String) -> bool {
        self.columns.contains(column) || self.made_again.contains(column)
    }

    /// The staging tables in use.
    fn stages(&self) -> Vec<&str> {
        [(&self.columns, &self.stage), (&self.made_again, &self.marks)]
            .into_iter()
            .filter(|(columns, _)| !columns.is_empty())
            .map(|(_, stage)| stage.as_str())
            .collect()
    }
}

/// SQL: the row `t` has no value where `s`, of the staged ones, has one.
pub fn empty(columns: &[String]) -> String {
    let each = columns.iter().map(|c| format!("(t.{0} IS NULL AND s.{0} IS NOT NULL)", quote_ident(c)));
    format!("({})", each.collect::<Vec<_>>().join(" OR "))
}

/// Columns that the live table has under another number: dropped and made again.
async fn made_again(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    s: &Staged,
    options: &Options,
) -> Result<Vec<String>> {
    // A table that was made again has other numbers anyway.
    if s.live.oid != s.shadow.oid || s.part.recreated {
        return Ok(Vec::new());
    }
    let sql = "SELECT attname::text, attnum::int4 FROM pg_catalog.pg_attribute WHERE attrelid = $1::int8::oid AND attnum > 0 \
               AND NOT attisdropped";
    let mut numbers: Vec<Vec<(String, i32)>> = Vec::new();
    for c in [&mut *live, &mut *shadow] {
        let oid = i64::from(s.live.oid);
        numbers.push(sqlx::query_as(sql).bind(oid).fetch_all(c).await.map_err(|e| query_error(sql, &e))?);
    }
    let number = |side: usize, name: &String| numbers[side].iter().find(|(n, _)| n == name).map(|(_, n)| *n);
    let pairs = s.columns.iter().zip(&s.from);
    let other = pairs.filter(|(here, there)| number(0, here) != number(1, there));
    let other = other.filter(|(here, there)| s.writable.contains(here) && !s.shadow.key.contains(there));
    Ok(other.map(|(here, _)| here.clone()).filter(|c| !options.without_columns.contains(c)).collect())
}

/// Stages what is to be filled, and finds out what is empty. `n` numbers the table.
///
/// # Errors
/// A query fails. Refused when nothing tells which row had which values; wrong use when a column cannot be written.
pub(super) async fn stage(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    s: &mut Staged,
    n: usize,
    options: &Options,
) -> Result<()> {
    let asked: Vec<String> = s.columns.iter().filter(|c| options.fill.contains(c)).cloned().collect();
    let made_again = made_again(live, shadow, s, options).await?;
    if s.part.recreated || (asked.is_empty() && made_again.is_empty()) {
        return Ok(());
    }
    if s.shadow.key.is_empty() {
        if let Some(c) = asked.first().filter(|_| !options.audit) {
            return Err(Error::refused(format!(
                "values of column {c:?} cannot be put back into rows of {}",
                s.live.name
            ))
            .why("the table has no primary key: nothing tells which row had which value")
            .hint("see them in the recovered instance, and put them back by hand"));
        }
        return by_count(live, shadow, s, &made_again).await;
    }
    if let Some(c) = asked.iter().find(|c| !s.writable.contains(c) || s.shadow.key.contains(c)) {
        return Err(Error::usage(format!("column {c:?} of {} cannot be filled", s.live.name))
            .why("it is part of the primary key, or the server computes it")
            .hint("leave it out of --fill-column"));
    }
    s.fill = Fill {
        columns: asked,
        made_again,
        stage: format!("pg_temp.breakglass_fill_{n}"),
        marks: format!("pg_temp.breakglass_marks_{n}"),
    };
    let name = |stage: &str| stage.trim_start_matches("pg_temp.").to_string();
    let of = |live: &[String]| -> Vec<String> {
        let there = live.iter().filter_map(|c| s.columns.iter().position(|x| x == c)).filter_map(|at| s.from.get(at));
        there.map(|c| format!("t.{} IS NOT NULL", quote_ident(c))).collect()
    };
    if !s.fill.columns.is_empty() {
        let make = format!(
            "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM ONLY {} t WITH NO DATA",
            name(&s.fill.stage),
            list("t", &s.columns),
            s.live.sql
        );
        run(live, &make).await?;
        let condition = options.condition.as_ref().map_or_else(|| "true".to_string(), |c| format!("({c}\n)"));
        let rows = format!(
            "SELECT {} FROM ONLY {} t WHERE ({}) AND {condition}",
            list("t", &s.from),
            s.shadow.sql,
            of(&s.fill.columns).join(" OR ")
        );
        pipe(shadow, &rows, live, &s.fill.stage, &s.columns).await?;
    }
    if !s.fill.made_again.is_empty() {
        let flags: Vec<String> = s.fill.made_again.iter().map(|c| format!("false AS {}", quote_ident(c))).collect();
        let make = format!(
            "CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {}, {} FROM ONLY {} t WITH NO DATA",
            name(&s.fill.marks),
            list("t", &s.shadow.key),
            flags.join(", "),
            s.live.sql
        );
        run(live, &make).await?;
        let has = of(&s.fill.made_again);
        let values: Vec<String> = has.iter().map(|h| format!("nullif({h}, false)")).collect();
        let rows = format!(
            "SELECT {}, {} FROM ONLY {} t WHERE {}",
            list("t", &s.shadow.key),
            values.join(", "),
            s.shadow.sql,
            has.join(" OR ")
        );
        let columns = [s.shadow.key.clone(), s.fill.made_again.clone()].concat();
        pipe(shadow, &rows, live, &s.fill.marks, &columns).await?;
    }
    Ok(())
}

/// Without a key: how many values more the shadow has.
async fn by_count(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    s: &mut Staged,
    columns: &[String],
) -> Result<()> {
    for c in columns {
        let Some(old) = s.columns.iter().position(|x| x == c).and_then(|at| s.from.get(at)) else { continue };
        let values = |c: &str, table: &str| format!("SELECT count(t.{}) FROM ONLY {table} t", quote_ident(c));
        let here = count(live, &values(c, &s.live.sql)).await?;
        let there = count(shadow, &values(old, &s.shadow.sql)).await?;
        if there > here {
            s.part.empty_columns.push((c.clone(), there - here));
        }
    }
    Ok(())
}

/// Takes out of what is staged the rows that another row took the key of. `others` is SQL about the live row `t` and the old
/// one in `was`, paired by `key`.
///
/// # Errors
/// A query fails.
pub(super) async fn without_others(live: &mut PgConnection, s: &Staged, was: &str, others: &str) -> Result<()> {
    let key = &s.shadow.key;
    for stage in s.fill.stages() {
        let sql = format!(
            "DELETE FROM {stage} f USING ONLY {} t, {was} s WHERE {} AND {} AND ({others})",
            s.live.sql,
            equal("t", key, "s", key),
            equal("f", key, "s", key)
        );
        execute(live, &sql).await?;
    }
    Ok(())
}

/// Counts what is filled, and what stays empty.
///
/// # Errors
/// A query fails.
pub(super) async fn settle(live: &mut PgConnection, s: &mut Staged) -> Result<()> {
    let key = &s.shadow.key;
    let same = equal("t", key, "s", key);
    if !s.fill.columns.is_empty() {
        // Damaged rows come back whole.
        let sql = format!(
            "DELETE FROM {0} s WHERE EXISTS (SELECT FROM {1} t WHERE {same}) \
             OR NOT EXISTS (SELECT FROM ONLY {2} t WHERE {same} AND {3})",
            s.fill.stage,
            s.old_stage,
            s.live.sql,
            empty(&s.fill.columns)
        );
        execute(live, &sql).await?;
        s.part.filled = count(live, &format!("SELECT count(*) FROM {}", s.fill.stage)).await?;
        s.part.fill.clone_from(&s.fill.columns);
    }
    for c in &s.fill.made_again {
        let name = quote_ident(c);
        let mut sql = format!(
            "SELECT count(*) FROM {} s JOIN ONLY {} t ON {same} WHERE {} AND NOT EXISTS (SELECT FROM {} o WHERE {})",
            s.fill.marks,
            s.live.sql,
            empty(std::slice::from_ref(c)),
            s.old_stage,
            equal("o", key, "s", key)
        );
        if s.fill.columns.contains(c) {
            sql.push_str(&format!(
                " AND NOT EXISTS (SELECT FROM {} f WHERE {} AND f.{name} IS NOT NULL)",
                s.fill.stage,
                equal("f", key, "s", key)
            ));
        }
        let n = count(live, &sql).await?;
        if n > 0 {
            s.part.empty_columns.push((c.clone(), n));
        }
    }
    Ok(())
}

/// The rows that are to be filled, `t`, with their values, `s`.
pub fn pairs(s: &Staged) -> String {
    let key = &s.shadow.key;
    format!(
        "ONLY {} t JOIN {} s ON {} WHERE {}",
        s.live.sql,
        s.fill.stage,
        equal("t", key, "s", key),
        empty(&s.fill.columns)
    )
}

/// Fills them; how many.
///
/// # Errors
/// The statement fails.
pub(super) async fn apply(live: &mut PgConnection, s: &Staged) -> Result<u64> {
    let set: Vec<String> =
        s.fill.columns.iter().map(|c| format!("{0} = coalesce(t.{0}, s.{0})", quote_ident(c))).collect();
    let sql = format!(
        "UPDATE ONLY {} t SET {} FROM {} s WHERE {} AND {}",
        s.live.sql,
        set.join(", "),
        s.fill.stage,
        equal("t", &s.shadow.key, "s", &s.shadow.key),
        empty(&s.fill.columns)
    );
    execute(live, &sql).await
}

/// That every column to be filled is there.
///
/// # Errors
/// Wrong use when one is nowhere.
pub(super) fn known(tables: &[Staged], options: &Options) -> Result<()> {
    for c in &options.fill {
        let has = |s: &&Staged| s.part.because.is_none() && s.columns.contains(c);
        if !options.audit && !tables.iter().any(|s| has(&s)) {
            let names: Vec<&str> = tables.iter().map(|s| s.live.name.as_str()).collect();
            return Err(Error::usage(format!("there is no column {c:?} to be filled"))
                .why(format!(
                    "it has to stand in the live database and in the recovered instance, in one of {}",
                    names.join(", ")
                ))
                .hint(
                    "a column that was dropped is made again first: the same without --fill-column names the statement",
                ));
        }
    }
    Ok(())
}

/// Columns of the shadow by which a row is told from another one under its key.
pub(super) fn telling(s: &Staged) -> Vec<String> {
    s.columns.iter().filter(|c| !s.shadow.key.contains(c) && !s.fill.has(c)).cloned().collect()
}

/// Keeps the rows to be filled as they are, and no other is filled: what is noted is what is then overwritten.
///
/// # Errors
/// The query fails.
pub(super) async fn lock(live: &mut PgConnection, s: &Staged) -> Result<()> {
    let sql = format!(
        "WITH l AS MATERIALIZED (SELECT s.ctid AS place FROM {} FOR NO KEY UPDATE OF t) \
         DELETE FROM {} x WHERE NOT EXISTS (SELECT FROM l WHERE l.place = x.ctid)",
        pairs(s),
        s.fill.stage
    );
    execute(live, &sql).await?;
    Ok(())
}
