//! Partial recovery: tables, or the lost rows of tables, out of the shadow into the live database, without touching rows
//! written since. One transaction; what it did is noted before it commits, so that it can be undone.
//!
//! Rows are staged in temporary tables of the live session first. The preview ends there and rolls back.

mod along;
pub mod apply;
pub mod catalog;
pub mod columns;
pub mod fill;
pub mod labels;
pub mod open;
mod place;
pub mod recreate;
pub mod rows;
pub mod rules;
pub mod sequences;
mod settle;
pub mod since;
mod trial;
pub mod under;
pub mod undo;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use self::catalog::{ForeignKey, foreign_keys};
use self::columns::{Again, Columns};
use self::fill::Fill;
use self::labels::Names;
use self::recreate::Schema;
use self::rows::{Pair, execute, keys, list, load, pipe, readable, rows_by, stage_lost, texts};
use self::rules::Rule;
use self::since::Since;
use self::under::Missing;
use super::tables::{Table, only_named, user_tables};
use super::watch::{Phase, Watch, check_cancel};
use crate::error::{Error, Result};
use crate::postgres::connect::{query_error, run};
use crate::postgres::{Database, Programs};

/// What to bring back.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Tables, `schema.table` or `table`.
    pub tables: Vec<String>,
    /// Rows that the shadow has and the live table has not.
    pub lost: bool,
    /// Rows that one of these transactions wrote last: their former values. Empty for none.
    pub damaged_by: Vec<u32>,
    /// Also lost rows of tables that reference the returning ones and would have been deleted with them.
    pub with_children: bool,
    /// SQL condition on the shadow's rows `t`.
    pub condition: Option<String>,
    /// Let the triggers of users fire.
    pub fire_triggers: bool,
    /// Columns that have another name in the live database: the shadow's name, and the live one.
    pub columns: Vec<(String, String)>,
    /// Columns of the shadow that are left out on purpose.
    pub without_columns: Vec<String>,
    /// Columns to be filled in rows that stand, where they are empty: their names in the live database.
    pub fill: Vec<String>,
    /// Columns whose values the damage changed, as known from before, of each table.
    pub damage: BTreeMap<String, Vec<String>>,
    /// Only look whether everything is back: what would be refused is noted instead.
    pub audit: bool,
}

/// Rows that do not come back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Why.
    pub why: String,
    /// How many.
    pub rows: u64,
    /// The keys of some.
    pub keys: Vec<String>,
    /// SQL that shows those in the shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// They are not back for certain; otherwise it cannot be told.
    pub certain: bool,
}

/// What is or was done with one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// `schema.table`.
    pub table: String,
    /// Quoted for SQL.
    #[serde(default)]
    pub sql: String,
    /// The table is gone in the live database and is made again.
    pub recreated: bool,
    /// The table that stands, quoted, below which it is put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
    /// Why it is here without being named: what its rows are needed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Rows to bring back (preview), rows brought back (afterwards).
    pub lost: u64,
    /// Rows to put back to their former values, or put back.
    pub damaged: u64,
    /// Rows left out because a row written since has the same unique value.
    pub newer_kept: u64,
    /// Rows left out because a row they reference exists nowhere any more.
    pub blocked: u64,
    /// Triggers of users that do not fire.
    pub silent_triggers: Vec<String>,
    /// Columns that only one side has: left at their default, or not brought back.
    pub other_columns: Vec<String>,
    /// Foreign keys of other tables that went with the table and are made again.
    pub foreign_keys: Vec<String>,
    /// A few of the keys.
    pub examples: Vec<String>,
    /// Rows that do not come back, by reason.
    #[serde(default)]
    pub left: Vec<Left>,
    /// Rows that were changed since and are taken for the same rows.
    #[serde(default)]
    pub changed_since: u64,
    /// Columns that only the shadow has, with the number of rows that have a value there.
    #[serde(default)]
    pub lost_columns: Vec<(String, u64)>,
    /// How those are made again, empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub again: Vec<Again>,
    /// Columns that were made again since, with the number of rows that are empty there and have a value in the shadow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty_columns: Vec<(String, u64)>,
    /// Whether rows can be paired: there is a primary key.
    #[serde(default)]
    pub paired: bool,
    /// Columns that are or were filled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fill: Vec<String>,
    /// Rows whose empty values are or were filled.
    #[serde(default)]
    pub filled: u64,
    /// Columns whose values the damage changed.
    #[serde(default)]
    pub damage: Vec<String>,
    /// Views that went with the table and are not made again.
    #[serde(default)]
    pub views: Vec<String>,
}

/// A table with its staging tables.
#[derive(Debug, Clone)]
pub struct Staged {
    live: Table,
    shadow: Table,
    /// Columns of the staging tables.
    columns: Vec<String>,
    /// Their names in the shadow, in the same order.
    from: Vec<String>,
    /// Columns that only the live table has.
    new: Vec<String>,
    /// Columns that only the shadow has, and that nobody left out on purpose.
    gone: Vec<String>,
    /// Those that can be written.
    writable: Vec<String>,
    lost_stage: String,
    old_stage: String,
    /// Columns that only the shadow has, with the number of rows to be brought back that have a value there.
    without: Vec<(String, u64)>,
    fill: Fill,
    /// Where its columns are altered, quoted: it, or the table on top of it.
    top: String,
    /// What keeps rows apart, live and in the shadow.
    rules: Vec<Rule>,
    old_rules: Vec<Rule>,
    part: Part,
}

/// Everything staged, ready to be applied in the same transaction.
#[derive(Debug, Clone)]
pub struct Plan {
    tables: Vec<Staged>,
    keys: Vec<ForeignKey>,
    schema: Schema,
    /// Tables made again, with the partitioned ones above them.
    missing: Missing,
    /// Schemas made for them.
    schemas: Vec<String>,
    /// Foreign keys of tables that stay to tables made again.
    lost_keys: Vec<ForeignKey>,
    labels: Names,
    options: Options,
}

impl Staged {
    /// The columns by which a row is named.
    fn naming(&self) -> &[String] {
        if self.shadow.key.is_empty() { &self.columns } else { &self.shadow.key }
    }
}

impl Plan {
    /// What it will do, table by table.
    pub fn parts(&self) -> Vec<Part> {
        self.tables.iter().map(|t| t.part.clone()).collect()
    }
    /// The tables that are made again, for people.
    fn names_of_made(&self) -> String {
        let made = self.tables.iter().filter(|t| t.part.recreated).map(|t| t.live.name.as_str());
        made.collect::<Vec<_>>().join(", ")
    }
    /// A value that does not fit its staging table, told by what it is about.
    fn explain(&self, e: Error) -> Error {
        let of = |s: &&Staged| {
            [&s.lost_stage, &s.old_stage, &s.fill.stage].iter().any(|n| e.what.contains(&format!("COPY {n} ")))
        };
        let Some(s) = self.tables.iter().find(of) else { return e };
        if let Some(known) = self.labels.explain(&s.live.name, &e.why) {
            return known;
        }
        let about = ["invalid input", "value for domain", "out of range", "too long", "overflow", "no partition of"];
        if !about.iter().any(|a| e.why.contains(a)) {
            return e;
        }
        Error::refused(format!("rows of {} do not fit the live table as it is now", s.live.name)).why(e.why).hint(
            "leave out what does not fit: --where 'CONDITION'; or change the column's type back, then the same again",
        )
    }
    /// Whether there is anything to do.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|t| t.part.lost + t.part.damaged + t.part.filled == 0 && !t.part.recreated)
    }
}

/// Where the definitions of tables that are gone come from.
#[derive(Debug, Clone)]
pub struct Definitions {
    /// Programs of the shadow's version.
    pub programs: Programs,
    /// The shadow.
    pub shadow: Database,
}

/// Pins what [`super::verify::open`] does not and begins the one transaction, in which everything happens.
///
/// # Errors
/// The statements fail.
pub async fn begin(live: &mut PgConnection, shadow: &mut PgConnection) -> Result<()> {
    run(shadow, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL xmloption = content").await?;
    run(live, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL xmloption = content").await
}

/// Stages everything in the transaction begun. Nothing of the live database is changed but by making again, in this
/// transaction, the tables that are gone.
///
/// # Errors
/// A table is unknown, cannot be read in the shadow now, cannot be made again, or a query fails. Refused when rows would come
/// back without values of columns that only the shadow has.
pub async fn prepare(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    definitions: &Definitions,
    options: &Options,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Plan> {
    if options.tables.is_empty() {
        return Err(Error::usage("no table is named").hint("say which with --table, as often as needed"));
    }
    let there = user_tables(shadow).await?;
    let wanted = match only_named(there.clone(), &options.tables) {
        Ok(found) => found,
        Err(e) => return Err(unlogged(shadow, &options.tables, e).await?),
    };
    for t in &wanted {
        readable(shadow, t).await?;
    }
    let here = user_tables(live).await?;
    let gone: Vec<&Table> = wanted.iter().filter(|t| !here.iter().any(|h| h.name == t.name)).collect();
    let mut plan = Plan {
        tables: Vec::new(),
        keys: Vec::new(),
        schema: Schema::default(),
        missing: Missing::default(),
        schemas: Vec::new(),
        lost_keys: Vec::new(),
        labels: Names::find(live, shadow).await?,
        options: options.clone(),
    };
    let old_keys = foreign_keys(shadow).await?;
    if !gone.is_empty() {
        place::free(live, &gone).await?;
        for t in &gone {
            let types = labels::types_of(shadow, t.oid).await?;
            plan.labels.use_for(live, &types).await?;
        }
        plan.schemas = recreate::schemas(live, shadow, &gone).await?;
        plan.missing = Missing::find(live, shadow, &gone).await?;
        if !plan.missing.alone.is_empty() {
            plan.schema = recreate::dumped(definitions.clone(), plan.missing.alone.clone()).await?;
            recreate::make(live, &plan.schema.before).await?;
        }
        let after = under::make(live, shadow, definitions, &plan.missing).await?;
        plan.schema.after.push_str(&after);
        run(live, "SET search_path = pg_catalog").await?;
    }
    let here = user_tables(live).await?;
    // A partition may be gone while the table above it stands.
    let whole = |g: &Table, name: &str| g.family == name && plan.missing.stands_above(&g.name).is_none();
    let is_gone = |name: &str| gone.iter().any(|g| g.name == name || whole(g, name));
    let in_gone = |name: &str| gone.iter().any(|g| g.name == name || g.family == name);
    let mut keys = foreign_keys(live).await?;
    let stands = |k: &ForeignKey| keys.iter().any(|l| (&l.child, &l.name) == (&k.child, &k.name));
    let mut lost_keys: Vec<ForeignKey> =
        old_keys.iter().filter(|k| in_gone(&k.parent) && !stands(k)).cloned().collect();
    lost_keys.retain(|k| !is_gone(&k.child) && here.iter().any(|h| h.name == k.child || h.family == k.child));
    keys.extend(old_keys.iter().filter(|k| is_gone(&k.child) && !stands(k)).cloned().collect::<Vec<_>>());
    let recreated: Vec<bool> = wanted.iter().map(|t| is_gone(&t.name)).collect();
    (plan.keys, plan.lost_keys) = (keys, lost_keys);

    let wanted: Vec<(&Table, bool)> = wanted.iter().zip(recreated).collect();
    let staged = stage_all(live, shadow, &mut plan, (&here, &there), &wanted, watch, cancel).await;
    staged.map_err(|e| plan.explain(e))?;
    settle::settle(live, shadow, &mut plan).await?;
    for s in &mut plan.tables {
        columns::count_values(live, shadow, s).await?;
    }
    plan.labels.as_now(live).await?;
    let mut named = BTreeSet::new();
    for s in &mut plan.tables {
        let views = catalog::lost_views(live, shadow, s.shadow.oid).await?;
        s.part.views = views.into_iter().filter(|v| named.insert(v.clone())).collect();
    }
    if !options.audit {
        fill::known(&plan.tables, options)?;
        columns::refuse(&plan.tables)?;
        trial::all(live, shadow, definitions, &plan).await?;
    }
    Ok(plan)
}

/// Stages the named tables, and what comes along.
async fn stage_all(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    plan: &mut Plan,
    (here, there): (&[Table], &[Table]),
    wanted: &[(&Table, bool)],
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<()> {
    let options = plan.options.clone();
    for (t, recreated) in wanted {
        check_cancel(cancel, "nothing was changed")?;
        let at = stage(live, plan, here, t, None).await?;
        plan.tables[at].part.recreated = *recreated;
        plan.tables[at].part.under = plan.missing.stands_above(&t.name).cloned();
        fill::stage(live, shadow, &mut plan.tables[at], at, &options).await?;
        let since = stage_rows(live, shadow, &mut plan.tables[at], &options, watch, cancel).await?;
        since::look(live, shadow, &mut plan.tables[at], at, since, &options).await?;
    }
    along::close(live, shadow, plan, here, there, options.with_children, cancel).await
}

/// That a table was named whose rows are in no log.
async fn unlogged(shadow: &mut PgConnection, names: &[String], e: Error) -> Result<Error> {
    let sql = "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relpersistence = 'u' AND c.relkind = 'r' AND (c.relname = ANY ($1) OR n.nspname || '.' || c.relname = ANY ($1)) LIMIT 1";
    let found: Option<String> =
        sqlx::query_scalar(sql).bind(names).fetch_optional(&mut *shadow).await.map_err(|e| query_error(sql, &e))?;
    Ok(match found {
        Some(t) => Error::usage(format!("{t} is an unlogged table"))
            .why("its rows are written into no log, so that it comes out of every recovery empty")
            .hint("its rows can only come from a dump (backup create --logical), or from where they came from")
            .hint("leave it out, and name the others with --table"),
        None => e,
    })
}

/// Makes the staging tables of a table; its place in the plan.
async fn stage(
    live: &mut PgConnection,
    plan: &mut Plan,
    here: &[Table],
    shadow: &Table,
    because: Option<String>,
) -> Result<usize> {
    if let Some(at) = plan.tables.iter().position(|s| s.shadow.name == shadow.name) {
        return Ok(at);
    }
    let Some(table) = here.iter().find(|h| h.name == shadow.name) else {
        return Err(Error::refused(format!("{} is needed and is gone in the live database", shadow.name))
            .why(because.unwrap_or_default())
            .hint(format!("bring it back in the same go: --table {}", shadow.name)));
    };
    let paired = Columns::pair(table, shadow, &plan.options);
    let columns = paired.live;
    if let Some(k) = shadow.key.iter().find(|k| !columns.contains(k)) {
        return Err(Error::refused(format!("the rows of {} cannot be paired", shadow.name))
            .why(format!("column {k:?} of its primary key is gone in the live database"))
            .hint("add the column again, or bring the rows back by hand from the shadow"));
    }
    let types = labels::types_of(live, table.oid).await?;
    plan.labels.use_for(live, &types).await?;
    let computed = catalog::generated(live, &table.sql).await?;
    let n = plan.tables.len();
    let staged = Staged {
        writable: columns.iter().filter(|c| !computed.contains(c)).cloned().collect(),
        lost_stage: format!("pg_temp.breakglass_lost_{n}"),
        old_stage: format!("pg_temp.breakglass_old_{n}"),
        part: Part {
            table: shadow.name.clone(),
            sql: shadow.sql.clone(),
            because,
            paired: !shadow.key.is_empty(),
            other_columns: paired.new.iter().chain(&paired.gone).chain(&paired.left_out).cloned().collect(),
            ..Part::default()
        },
        live: table.clone(),
        shadow: shadow.clone(),
        columns,
        from: paired.shadow,
        new: paired.new,
        gone: paired.gone,
        without: Vec::new(),
        fill: Fill::default(),
        top: catalog::top(live, &table.sql).await?,
        rules: Vec::new(),
        old_rules: Vec::new(),
    };
    for s in [&staged.lost_stage, &staged.old_stage] {
        let table = s.trim_start_matches("pg_temp.");
        let sql = format!(
            "CREATE TEMPORARY TABLE {table} ON COMMIT DROP AS SELECT {} FROM ONLY {} t WITH NO DATA",
            list("t", &staged.columns),
            staged.live.sql
        );
        run(live, &sql).await?;
    }
    plan.tables.push(staged);
    Ok(n)
}

/// Fills the staging tables of a named table; rows of both sides that are not the same version.
async fn stage_rows(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    s: &mut Staged,
    options: &Options,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Since> {
    let condition = options.condition.as_ref().map_or_else(|| "true".to_string(), |c| format!("({c}\n)"));
    let all = format!("SELECT {} FROM ONLY {} t WHERE {condition}", list("t", &s.from), s.shadow.sql);
    let pair = Pair { live: &s.live, shadow: &s.shadow, columns: &s.columns, from: &s.from };
    let total = u64::try_from(s.shadow.estimate).ok();
    let mut check = |n: u64| {
        let text = s.shadow.name.clone();
        watch.phase(&Phase { name: "compare", done: n, total, unit: "rows", text, ..Phase::default() });
        check_cancel(cancel, "nothing was changed")
    };
    check(0)?;
    let mut since = Since::default();
    let by_key = !s.part.recreated && !s.shadow.key.is_empty();
    if options.lost || s.part.recreated {
        if s.part.recreated {
            pipe(shadow, &all, live, &s.lost_stage, &s.columns).await?;
        } else if s.shadow.key.is_empty() {
            // Without a key, equal rows are paired off one by one; what remains is lost.
            pipe(shadow, &all, live, &s.lost_stage, &s.columns).await?;
            let numbered = |from: &str, place: &str| {
                format!(
                    "SELECT {place}ROW({0})::text AS r, row_number() OVER (PARTITION BY ROW({0})::text) AS n FROM {from} t",
                    list("t", &s.columns)
                )
            };
            let sql = format!(
                "DELETE FROM {} WHERE ctid IN (SELECT a.place FROM ({}) a JOIN ({}) b ON a.r = b.r AND a.n = b.n)",
                s.lost_stage,
                numbered(&s.lost_stage, "t.ctid AS place, "),
                numbered(&format!("ONLY {}", s.live.sql), "")
            );
            execute(live, &sql).await?;
        }
    }
    if by_key && (options.lost || !options.damaged_by.is_empty()) {
        let stage = options.lost.then_some(s.lost_stage.as_str());
        since = stage_lost(live, shadow, &pair, stage, (&condition, &options.damaged_by), &mut check).await?;
    }
    if !options.damaged_by.is_empty() && !s.part.recreated {
        if s.shadow.key.is_empty() && options.audit {
            return Ok(since);
        }
        if s.shadow.key.is_empty() {
            return Err(Error::refused(format!(
                "damaged rows of {} cannot be paired with their former values",
                s.shadow.name
            ))
            .why("the table has no primary key")
            .hint("bring back what is lost only: --rows lost"));
        }
        let sql = format!(
            "SELECT {} FROM ONLY {} t WHERE {}",
            texts("t", &s.shadow.key),
            s.live.sql,
            written_by("t", &options.damaged_by)
        );
        let marked = keys(live, &sql).await?;
        let rows = rows_by(shadow, &s.shadow, &s.shadow.key, &marked, &s.from).await?;
        load(live, &s.old_stage, &s.columns, &rows).await?;
    }
    Ok(since)
}

/// SQL: the last writer of a row is one of these transactions.
fn written_by(alias: &str, xids: &[u32]) -> String {
    let ids: Vec<String> = xids.iter().map(u32::to_string).collect();
    format!("{alias}.xmin::text = ANY ('{{{}}}')", ids.join(","))
}
