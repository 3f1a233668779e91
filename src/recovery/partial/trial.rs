//! What would refuse the staged rows is met before anything is written: constraints that came since, functions that are gone,
//! references that lead nowhere. The rows are tried on an empty temporary table with the same constraints: nothing is written into
//! the live one, and nobody waits.

use sqlx::postgres::PgConnection;

use super::along::orphan;
use super::fill;
use super::recreate::Schema;
use super::rows::{equal, list, shown, texts};
use super::{Definitions, Plan, Staged};
use crate::error::{Error, Result};
use crate::postgres::connect::{describe, query_error, quote_ident, quote_literal, run, sqlstate};
use crate::postgres::instance::shell_quote;

/// What the constraint is called that keeps a trial's rows within their partition.
const BOUNDS: &str = "breakglass_bounds";

/// Tries everything that is staged.
///
/// # Errors
/// Refused with what refuses it, and what to do; a query fails.
pub(super) async fn all(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    definitions: &Definitions,
    plan: &Plan,
) -> Result<()> {
    functions(live, shadow, definitions, plan).await?;
    for (n, s) in plan.tables.iter().enumerate() {
        if !s.part.recreated && s.part.lost + s.part.damaged + s.part.filled > 0 {
            rows(live, shadow, s, n).await?;
        }
    }
    references(live, plan).await?;
    rest(live, plan, &plan.schema).await
}

/// Functions that triggers of tables made again call.
async fn functions(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    definitions: &Definitions,
    plan: &Plan,
) -> Result<()> {
    let made = plan.missing.all();
    if made.is_empty() {
        return Ok(());
    }
    let sql = "SELECT p.oid::regprocedure::text, pg_catalog.string_agg(DISTINCT t.tgname || ' of ' || n.nspname || '.' || c.relname, ', ') \
               FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid \
               JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE NOT t.tgisinternal AND t.tgrelid IN (SELECT m::regclass::oid FROM unnest($1::text[]) m) GROUP BY p.oid ORDER BY 1";
    let used: Vec<(String, String)> =
        sqlx::query_as(sql).bind(&made).fetch_all(&mut *shadow).await.map_err(|e| query_error(sql, &e))?;
    let names: Vec<&String> = used.iter().map(|(f, _)| f).collect();
    let sql = "SELECT f FROM unnest($1::text[]) f WHERE pg_catalog.to_regprocedure(f) IS NULL";
    let gone: Vec<String> =
        sqlx::query_scalar(sql).bind(&names).fetch_all(&mut *live).await.map_err(|e| query_error(sql, &e))?;
    let Some(first) = gone.first() else { return Ok(()) };
    let of = used.iter().filter(|(f, _)| gone.contains(f)).map(|(f, by)| format!("{f} (trigger {by})"));
    let d = &definitions.shadow;
    let words = ["psql", "-h", d.host(), "-p", &d.port().to_string(), "-U", d.user(), "-d", d.name(), "-XAtc"];
    let ask = format!("SELECT pg_get_functiondef({}::regprocedure)", quote_literal(first));
    let ask: Vec<String> = words.iter().copied().chain([ask.as_str()]).map(shell_quote).collect();
    Err(Error::refused(format!("{} cannot be made again as it was", plan.names_of_made()))
        .why(format!(
            "functions that their triggers call are gone in the live database: {}",
            of.collect::<Vec<_>>().join("; ")
        ))
        .hint(format!("make it again first, as it was: {} | psql LIVE; then the same again", ask.join(" "))))
}

/// Rows of a table that stands.
async fn rows(live: &mut PgConnection, shadow: &mut PgConnection, s: &Staged, n: usize) -> Result<()> {
    let bounds = "SELECT pg_catalog.pg_get_partition_constraintdef($1::text::regclass)";
    let mut bound: Vec<Option<String>> = Vec::new();
    for (c, table) in [(&mut *live, &s.live.sql), (&mut *shadow, &s.shadow.sql)] {
        bound.push(sqlx::query_scalar(bounds).bind(table).fetch_one(c).await.map_err(|e| query_error(bounds, &e))?);
    }
    let bound = if bound.first() == bound.last() { None } else { bound.into_iter().next().flatten() };
    if bound.is_none() && !news(live, shadow, s).await? {
        return Ok(());
    }
    let table = format!("breakglass_try_{n}");
    let sql = format!(
        "CREATE TEMPORARY TABLE {table} (LIKE {} INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED) ON COMMIT DROP",
        s.live.sql
    );
    run(live, &sql).await?;
    let table = format!("pg_temp.{table}");
    // A column that numbers itself does so there, and not here.
    let numbered =
        "SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = $1::text::regclass AND attidentity <> ''";
    let numbered: Vec<String> = sqlx::query_scalar(numbered)
        .bind(&s.live.sql)
        .fetch_all(&mut *live)
        .await
        .map_err(|e| query_error(numbered, &e))?;
    for c in numbered.iter().filter(|c| !s.writable.contains(c)) {
        run(live, &format!("ALTER TABLE {table} ALTER COLUMN {} DROP NOT NULL", quote_ident(c))).await?;
    }
    if let Some(bound) = &bound {
        run(live, &format!("ALTER TABLE {table} ADD CONSTRAINT {BOUNDS} CHECK ({bound})")).await?;
    }
    let computed = super::catalog::generated(live, &s.live.sql).await?;
    let new: Vec<String> = s.new.iter().filter(|c| !computed.contains(c)).cloned().collect();
    let into = |columns: &[String]| columns.iter().map(|c| quote_ident(c)).collect::<Vec<_>>().join(", ");
    let all = [s.writable.clone(), new.clone()].concat();
    let also = if new.is_empty() { String::new() } else { format!(", {}", list("t", &new)) };
    let mut tries =
        vec![(into(&s.writable), format!("SELECT {} FROM {} s", list("s", &s.writable), s.lost_stage), s.part.lost)];
    if s.part.damaged > 0 {
        let key = equal("t", &s.shadow.key, "s", &s.shadow.key);
        let from = format!("ONLY {} t JOIN {} s ON {key}", s.live.sql, s.old_stage);
        tries.push((into(&all), format!("SELECT {}{also} FROM {from}", list("s", &s.writable)), s.part.damaged));
    }
    if s.part.filled > 0 {
        let each: Vec<String> = s
            .writable
            .iter()
            .map(|c| match s.fill.columns.contains(c) {
                true => format!("coalesce(t.{0}, s.{0})", quote_ident(c)),
                false => format!("t.{}", quote_ident(c)),
            })
            .collect();
        tries.push((into(&all), format!("SELECT {}{also} FROM {}", each.join(", "), fill::pairs(s)), s.part.filled));
    }
    for (columns, from, n) in tries.into_iter().filter(|(columns, _, n)| *n > 0 && !columns.is_empty()) {
        let sql = format!("INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE {from}");
        if let Err(e) = sqlx::query(&sql).execute(&mut *live).await {
            return Err(refusal(s, n, &e));
        }
    }
    Ok(())
}

/// Whether the live table asks for something that the shadow's did not.
async fn news(live: &mut PgConnection, shadow: &mut PgConnection, s: &Staged) -> Result<bool> {
    let may_be_null = |c: &str| {
        let at = s.columns.iter().position(|x| x == c);
        let old = at.and_then(|at| s.from.get(at)).and_then(|old| s.shadow.columns.iter().find(|x| x.name == *old));
        old.is_none_or(|old| !old.not_null)
    };
    if s.live.columns.iter().any(|c| c.not_null && may_be_null(&c.name)) {
        return Ok(true);
    }
    let sql = "SELECT ARRAY(SELECT conname || ' ' || convalidated || ' ' || pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint \
               WHERE conrelid = $1::text::regclass AND contype = 'c' ORDER BY 1)";
    let mut checks: Vec<Vec<String>> = Vec::new();
    for (c, table) in [(&mut *live, &s.live.sql), (&mut *shadow, &s.shadow.sql)] {
        checks.push(sqlx::query_scalar(sql).bind(table).fetch_one(c).await.map_err(|e| query_error(sql, &e))?);
    }
    let not_valid = |c: &String| c.contains(" NOT VALID");
    Ok(checks[0].iter().any(|c| not_valid(c) || !checks[1].contains(c)) || !s.fill.columns.is_empty())
}

/// Why the server did not take the rows, and what to do.
fn refusal(s: &Staged, n: u64, e: &sqlx::Error) -> Error {
    let details = e.as_database_error().and_then(|d| d.try_downcast_ref::<sqlx::postgres::PgDatabaseError>());
    let (constraint, column) = details.map_or((None, None), |d| (d.constraint(), d.column()));
    let (table, sql) = (&s.live.name, &s.top);
    let said = describe(e);
    match (sqlstate(e).as_deref(), constraint, column) {
        (Some("23502"), _, Some(c)) if s.columns.iter().any(|x| x == c) => Error::refused(format!(
            "rows of {table} have no value in column {c:?}, which takes no null any more"
        ))
        .why(said)
        .hint(format!("leave them out: --where '{} IS NOT NULL'", quote_ident(c)))
        .hint(format!(
            "or let it take null for the while: ALTER TABLE {sql} ALTER COLUMN {} DROP NOT NULL; then the same again",
            quote_ident(c)
        )),
        (Some("23502"), _, Some(c)) => {
            let name = quote_ident(c);
            Error::refused(format!("rows of {table} have no value for column {c:?}, which came since"))
                .why(format!("it takes no null and has no default; {n} rows are concerned"))
                .hint(format!(
                    "give it a value for them for the while: ALTER TABLE {sql} ALTER COLUMN {name} SET DEFAULT VALUE; then the same \
                     again, then ALTER TABLE {sql} ALTER COLUMN {name} DROP DEFAULT;"
                ))
        }
        (Some("23514"), Some(BOUNDS), _) => {
            Error::refused(format!("rows of {table} are not within its bounds as a partition any more"))
                .why(said)
                .hint("leave them out: --where 'CONDITION'; or bring them back by hand through the table above it")
        }
        (Some("23514"), Some(c), _) => {
            let name = quote_ident(c);
            Error::refused(format!("rows of {table} do not meet its check constraint {c:?}"))
                .why(format!("{said}; it is the first of {n} that were tried"))
                .hint("leave out those that do not meet it: --where 'CONDITION'")
                .hint(format!(
                    "or take it away for the while (as it is: \\d {table}): ALTER TABLE {sql} DROP CONSTRAINT {name}; then the same again; \
                     then add it NOT VALID"
                ))
        }
        _ => Error::refused(format!("the live table {table} does not take the rows"))
            .why(said)
            .hint("leave out what it does not take: --where 'CONDITION'; or change it, then the same again"),
    }
}

/// Foreign keys of tables that stay: made again, they hold what is there.
async fn references(live: &mut PgConnection, plan: &Plan) -> Result<()> {
    for k in plan.lost_keys.iter().filter(|k| !k.definition.ends_with("NOT VALID")) {
        let lost = orphan(plan, k, true);
        let found = format!("SELECT DISTINCT {} AS k FROM {} s WHERE {lost}", texts("s", &k.cols), k.child_sql);
        let found = shown(live, &found).await?;
        if found.rows == 0 {
            continue;
        }
        let rows = super::rows::count(live, &format!("SELECT count(*) FROM {} s WHERE {lost}", k.child_sql)).await?;
        let words = |v: &Vec<Option<String>>| v.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
        let mut values: Vec<String> = found.keys.iter().map(words).collect();
        if found.rows > values.len() as u64 {
            values.push("…".into());
        }
        return Err(Error::refused(format!("foreign key {:?} of {} cannot be made again", k.name, k.child))
            .why(format!(
                "{rows} rows of {} reference rows of {} that are nowhere, by their {}: {}",
                k.child,
                k.parent,
                k.cols.join(", "),
                values.join("; ")
            ))
            .hint(format!(
                "delete those rows of {} or give them another {}, then the same again",
                k.child,
                k.cols.join(", ")
            )));
    }
    Ok(())
}

/// What is made after the rows, on the empty tables.
async fn rest(live: &mut PgConnection, plan: &Plan, schema: &Schema) -> Result<()> {
    if schema.after.trim().is_empty() {
        return Ok(());
    }
    run(live, "SAVEPOINT trial").await?;
    plan.labels.as_then(live).await?;
    if let Err(e) = run(live, &schema.after).await {
        // Somebody writes there for longer than was to be waited: that is no refusal.
        if e.why.contains("lock timeout") {
            return Err(e);
        }
        return Err(Error::refused(format!("{} cannot be made again as it was", plan.names_of_made()))
            .why(e.why)
            .hint("make what it needs first (functions, tables, types), or bring the other tables back with it"));
    }
    run(live, "ROLLBACK TO SAVEPOINT trial; RELEASE SAVEPOINT trial; SET search_path = pg_catalog").await
}
