//! Undoing a partial recovery: rows that came back go again, rows put back get the values they had, as far as nobody
//! touched them since.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use super::catalog::{foreign_keys, triggers};
use super::rows::{count, equal, execute, list, pipe_back, together};
use super::under;
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::postgres::connect::{query_error, quote_ident, run};
use crate::recovery::tables::user_tables;

/// Name of the record in its folder.
pub const RECORD: &str = "partial.json";

/// Name of what was undone of it, beside it.
const UNDONE: &str = "undone.json";

/// What a partial recovery did; enough to undo it. Written before its transaction commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format: 1.
    pub v: u32,
    /// When.
    pub at: Time,
    /// `pg_control_system().system_identifier` of the live cluster.
    pub system_identifier: String,
    /// Its database.
    pub database: String,
    /// The transaction (64 bits, as text); its low 32 bits are the mark on its rows.
    pub transaction: String,
    /// Tables, in the order they were written.
    pub tables: Vec<RecordedTable>,
    /// Constraints made again on tables that had stayed: table (quoted) and name.
    #[serde(default)]
    pub constraints: Vec<(String, String)>,
    /// Every table made again, the partitioned ones above partitions, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<Made>,
    /// Partitions made again and put back: the table above (quoted), and the partition (quoted).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under: Vec<(String, String)>,
    /// Schemas made again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<String>,
}

/// A table that was made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Quoted.
    pub sql: String,
    /// Its OID; a table of this name with another one was made by somebody else.
    #[serde(default)]
    pub oid: Option<u32>,
}

/// One table of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedTable {
    /// `schema.table`.
    pub table: String,
    /// Quoted.
    pub sql: String,
    /// Its OID.
    #[serde(default)]
    pub oid: Option<u32>,
    /// Made again.
    pub recreated: bool,
    /// Rows inserted.
    pub brought_back: u64,
    /// Rows changed.
    pub put_back: u64,
    /// Columns in the file of former rows.
    pub columns: Vec<String>,
    /// Those that can be written.
    pub writable: Vec<String>,
    /// Key columns.
    pub key: Vec<String>,
    /// File in the record's folder with the changed rows as they were before, in COPY's text format.
    #[serde(default)]
    pub old_rows: Option<String>,
}

/// What undoing did with one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// `schema.table`.
    pub table: String,
    /// Rows taken out again.
    pub removed: u64,
    /// Rows put back to what they were before.
    pub restored: u64,
    /// Rows left as they are: changed or deleted since, or referenced by rows written since.
    pub kept: u64,
    /// The table itself was dropped again.
    pub dropped: bool,
    /// The table was gone already: there was nothing to take out.
    #[serde(default)]
    pub gone: bool,
}

/// One undoing, as kept beside the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undoing {
    /// When.
    pub at: Time,
    /// Its transaction (64 bits, as text); it counts when that committed.
    pub transaction: String,
    /// What it did.
    pub tables: Vec<Undone>,
}

impl Undoing {
    /// Whether it changed anything.
    pub fn changed(&self) -> bool {
        self.tables.iter().any(|t| t.removed + t.restored > 0 || t.dropped)
    }
}

/// What undoing did now, and what was undone before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Now (or would do).
    pub now: Undoing,
    /// Before, oldest first.
    pub before: Vec<Undoing>,
}

impl Record {
    /// A record of the transaction that is open on this connection.
    ///
    /// # Errors
    /// The query fails.
    pub async fn begin(live: &mut PgConnection, at: Time) -> Result<Self> {
        let sql = "SELECT pg_catalog.pg_current_xact_id()::text, (SELECT system_identifier FROM pg_catalog.pg_control_system())::text, \
                   pg_catalog.current_database()::text";
        let (transaction, system_identifier, database): (String, String, String) =
            sqlx::query_as(sql).fetch_one(&mut *live).await.map_err(|e| query_error(sql, &e))?;
        Ok(Self {
            v: 1,
            at,
            system_identifier,
            database,
            transaction,
            tables: Vec::new(),
            constraints: Vec::new(),
            made: Vec::new(),
            under: Vec::new(),
            schemas: Vec::new(),
        })
    }

    /// Writes it into `folder`, durable.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).state(|| "cannot write the record".into())?;
        crate::postgres::user::own_file(&folder.join(RECORD), &text, None)?;
        let what = || format!("cannot write into {:?}", folder.display());
        std::fs::File::open(folder).and_then(|d| d.sync_all()).target(what)
    }

    /// Reads it.
    ///
    /// # Errors
    /// There is none, or it is not one.
    pub fn load(folder: &Path) -> Result<Self> {
        let file = folder.join(RECORD);
        let text = std::fs::read_to_string(&file)
            .map_err(|e| Error::usage(format!("there is no partial recovery in {:?}", folder.display())).why(e))?;
        serde_json::from_str(&text).state(|| format!("cannot understand {:?}", file.display()))
    }

    /// The mark of its transaction on rows.
    fn mark(&self) -> Result<u32> {
        let n: u64 = self.transaction.parse().state(|| format!("{:?} is no transaction id", self.transaction))?;
        u32::try_from(n % (1 << 32)).state(|| "transaction id".into())
    }
}

/// Undoes a partial recovery in one transaction. Rows changed since, and rows that later ones reference, stay. `dry` does it
/// and rolls it back: so it says, and refuses, what the real one would.
///
/// # Errors
/// Refused when it is another database, the transaction never committed, or a table made again has newer rows or something
/// that hangs on it; a statement fails: then nothing was changed.
pub async fn undo(live: &mut PgConnection, record: &Record, folder: &Path, now: Time, dry: bool) -> Result<Outcome> {
    run(live, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL xmloption = content").await?;
    let result = undo_in(live, record, folder, now).await;
    match &result {
        Ok(done) if !dry && done.now.changed() => {
            let mut all = done.before.clone();
            all.push(done.now.clone());
            save_undone(folder, &all)?;
            run(live, "COMMIT").await?;
        }
        _ => run(live, "ROLLBACK").await?,
    }
    result
}

fn save_undone(folder: &Path, all: &[Undoing]) -> Result<()> {
    let text = serde_json::to_string_pretty(all).state(|| "cannot write what was undone".into())?;
    crate::postgres::user::own_file(&folder.join(UNDONE), &text, None)?;
    let what = || format!("cannot write into {:?}", folder.display());
    std::fs::File::open(folder).and_then(|d| d.sync_all()).target(what)
}

/// What was undone before and committed.
async fn undone_before(live: &mut PgConnection, folder: &Path) -> Result<Vec<Undoing>> {
    let file = folder.join(UNDONE);
    let Ok(text) = std::fs::read_to_string(&file) else { return Ok(Vec::new()) };
    let all: Vec<Undoing> = serde_json::from_str(&text).state(|| format!("cannot understand {:?}", file.display()))?;
    let mut out = Vec::new();
    for one in all {
        if status(live, &one.transaction).await?.as_deref() != Some("aborted") {
            out.push(one);
        }
    }
    Ok(out)
}

async fn status(live: &mut PgConnection, transaction: &str) -> Result<Option<String>> {
    let sql = "SELECT pg_catalog.pg_xact_status($1::text::xid8)";
    sqlx::query_scalar(sql).bind(transaction).fetch_one(&mut *live).await.map_err(|e| query_error(sql, &e))
}

/// Whether the table stands that was written to then, not another one of its name.
async fn stands(live: &mut PgConnection, table_sql: &str, oid: Option<u32>) -> Result<bool> {
    let sql = "SELECT coalesce(pg_catalog.to_regclass($1)::oid::int8 = coalesce($2, pg_catalog.to_regclass($1)::oid::int8), false)";
    sqlx::query_scalar(sql)
        .bind(table_sql)
        .bind(oid.map(i64::from))
        .fetch_one(&mut *live)
        .await
        .map_err(|e| query_error(sql, &e))
}

async fn undo_in(live: &mut PgConnection, record: &Record, folder: &Path, at: Time) -> Result<Outcome> {
    let now = Record::begin(live, at).await?;
    if (&now.system_identifier, &now.database) != (&record.system_identifier, &record.database) {
        return Err(Error::refused(format!(
            "this is database {:?} of cluster {}",
            now.database, now.system_identifier
        ))
        .why(format!("the rows were brought back into {:?} of cluster {}", record.database, record.system_identifier))
        .hint("set DATABASE_URL to that database"));
    }
    if status(live, &record.transaction).await?.as_deref() == Some("aborted") {
        return Err(Error::refused("there is nothing to undo")
            .why(format!("transaction {} did not commit: nothing was brought back", record.transaction))
            .hint("run the partial recovery again"));
    }
    let before = undone_before(live, folder).await?;
    if before.is_empty() {
        // The last one first: a partition's goes with that of the table above it.
        for (table, name) in record.constraints.iter().rev() {
            let name = quote_ident(name);
            run(live, &format!("ALTER TABLE IF EXISTS {table} DROP CONSTRAINT IF EXISTS {name}")).await?;
        }
    }
    let (mut staying, mut gone) = (Vec::new(), Vec::new());
    for (n, t) in record.tables.iter().enumerate().filter(|(_, t)| !t.recreated) {
        if stands(live, &t.sql, t.oid).await? {
            staying.push((n, t));
        } else {
            gone.push(Undone { table: t.table.clone(), gone: true, ..Undone::default() });
        }
    }
    let mut muted = Vec::new();
    for (_, t) in &staying {
        for (name, always) in triggers(live, &t.sql).await? {
            run(live, &format!("ALTER TABLE {} DISABLE TRIGGER {}", t.sql, quote_ident(&name))).await?;
            muted.push((t.sql.clone(), name, always));
        }
    }
    // Rows that reference those of a partition go before it does; what only its rows referenced goes after it, with the rest.
    let first = match record.under.is_empty() {
        true => vec![0; staying.len()],
        false => take_out(live, &staying, record.mark()?).await?,
    };
    let mut tables = drop_made(live, record).await?;
    tables.extend(gone);
    let mut done = Vec::new();
    for (n, t) in &staying {
        let restored = restore(live, record, folder, *n, t).await?;
        done.push(Undone { table: t.table.clone(), restored, ..Undone::default() });
    }
    let removed = take_out(live, &staying, record.mark()?).await?;
    for ((u, (_, t)), removed) in done.iter_mut().zip(&staying).zip(first.into_iter().zip(removed)) {
        u.removed = removed.0 + removed.1;
        let earlier = before.iter().flat_map(|b| &b.tables).filter(|b| b.table == u.table);
        let earlier: u64 = earlier.map(|b| b.removed + b.restored).sum();
        u.kept = (t.brought_back + t.put_back).saturating_sub(u.removed + u.restored + earlier);
    }
    tables.extend(done);
    run(live, "SET CONSTRAINTS ALL IMMEDIATE").await?;
    for (table, name, always) in muted {
        let how = if always { "ENABLE ALWAYS TRIGGER" } else { "ENABLE TRIGGER" };
        run(live, &format!("ALTER TABLE {table} {how} {}", quote_ident(&name))).await?;
    }
    Ok(Outcome { now: Undoing { at, transaction: now.transaction, tables }, before })
}

/// Drops all that was made again and still stands, in one go.
async fn drop_made(live: &mut PgConnection, record: &Record) -> Result<Vec<Undone>> {
    let recreated: Vec<&RecordedTable> = record.tables.iter().filter(|t| t.recreated).collect();
    let mut made = record.made.clone();
    if made.is_empty() {
        made = recreated.iter().map(|t| Made { sql: t.sql.clone(), oid: t.oid }).collect();
    }
    let mut standing = Vec::new();
    for m in made {
        if stands(live, &m.sql, m.oid).await? {
            standing.push(m.sql);
        }
    }
    let mut out = Vec::new();
    for t in &recreated {
        let there = stands(live, &t.sql, t.oid).await?;
        out.push(Undone { table: t.table.clone(), dropped: there, gone: !there, ..Undone::default() });
    }
    if standing.is_empty() {
        return Ok(out);
    }
    // Nobody writes another row between the count and the drop.
    run(live, &format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", standing.join(", "))).await?;
    // With the partitions that were added since: they would go with the table above them.
    let sql = "SELECT DISTINCT c.oid::regclass::text, pg_catalog.format('%s.%s', n.nspname, c.relname) FROM unnest($1::text[]) m, \
               LATERAL (SELECT m::regclass::oid AS relid UNION SELECT relid FROM pg_catalog.pg_partition_tree(m::regclass)) p \
               JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind = 'r' ORDER BY 2";
    let leaves: Vec<(String, String)> =
        sqlx::query_as(sql).bind(&standing).fetch_all(&mut *live).await.map_err(|e| query_error(sql, &e))?;
    let mark = record.mark()?;
    for (sql, name) in leaves {
        let all = count(live, &format!("SELECT count(*) FROM ONLY {sql} t")).await?;
        let later = count(live, &format!("SELECT count(*) FROM ONLY {sql} t WHERE t.xmin::text <> '{mark}'")).await?;
        if later > 0 {
            return Err(Error::refused(format!("{name} was made again and has {later} rows written since"))
                .why("dropping it would lose them; nothing was undone")
                .hint(
                    "save them, and delete them there or drop the table by hand; then undo again, which does the rest",
                ));
        }
        if let Some(u) = out.iter_mut().find(|u| u.table == name) {
            u.removed = all;
        }
    }
    let hangs = |e: Error| {
        Error::refused("what was made again cannot be dropped again")
            .why(format!("something that was made since hangs on it: {}", e.why))
            .hint("drop that by hand; then undo again")
    };
    for (above, partition) in record.under.iter().filter(|(_, p)| standing.contains(p)) {
        under::detach(live, above, partition).await.map_err(hangs)?;
    }
    run(live, &format!("DROP TABLE {}", standing.join(", "))).await.map_err(hangs)?;
    for schema in &record.schemas {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.to_regnamespace($1)) \
                   OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.to_regnamespace($1)) \
                   OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.to_regnamespace($1))";
        let name = quote_ident(schema);
        let used: bool =
            sqlx::query_scalar(sql).bind(&name).fetch_one(&mut *live).await.map_err(|e| query_error(sql, &e))?;
        if !used {
            run(live, &format!("DROP SCHEMA IF EXISTS {name}")).await.map_err(hangs)?;
        }
    }
    Ok(out)
}

/// Rows that were put back get the values they had, as far as they still bear the mark.
async fn restore(live: &mut PgConnection, record: &Record, folder: &Path, n: usize, t: &RecordedTable) -> Result<u64> {
    let Some(file) = &t.old_rows else { return Ok(0) };
    let stage = format!("breakglass_undo_{n}");
    let sql = format!(
        "CREATE TEMPORARY TABLE {stage} ON COMMIT DROP AS SELECT {} FROM ONLY {} t WITH NO DATA",
        list("t", &t.columns),
        t.sql
    );
    run(live, &sql).await?;
    pipe_back(live, &folder.join(file), &format!("pg_temp.{stage}"), &t.columns).await?;
    let set: Vec<String> =
        t.writable.iter().filter(|c| !t.key.contains(c)).map(|c| format!("{0} = s.{0}", quote_ident(c))).collect();
    let sql = format!(
        "UPDATE ONLY {} t SET {} FROM pg_temp.{stage} s WHERE {} AND t.xmin::text = '{}'",
        t.sql,
        set.join(", "),
        equal("t", &t.key, "s", &t.key),
        record.mark()?
    );
    execute(live, &sql).await
}

/// Deletes the rows that bear the mark and that nothing references but rows that go, too; how many of each table.
async fn take_out(live: &mut PgConnection, staying: &[(usize, &RecordedTable)], mark: u32) -> Result<Vec<u64>> {
    if staying.is_empty() {
        return Ok(Vec::new());
    }
    let fresh = "DROP TABLE IF EXISTS pg_temp.breakglass_go; CREATE TEMPORARY TABLE breakglass_go (rel oid, place tid) ON COMMIT DROP";
    run(live, fresh).await?;
    for (_, t) in staying {
        let mine = format!("FROM ONLY {} t WHERE t.xmin::text = '{mark}'", t.sql);
        // Locked: nobody changes them, or writes a row that references them, from here on.
        count(live, &format!("SELECT count(*) FROM (SELECT 1 {mine} FOR UPDATE) l")).await?;
        execute(live, &format!("INSERT INTO pg_temp.breakglass_go SELECT t.tableoid, t.ctid {mine}")).await?;
    }
    run(live, "CREATE INDEX ON pg_temp.breakglass_go (rel, place); ANALYZE pg_temp.breakglass_go").await?;
    let keys = foreign_keys(live).await?;
    let here = user_tables(live).await?;
    loop {
        let mut freed = 0;
        for (_, t) in staying {
            let family = here.iter().find(|h| h.name == t.table).map(|h| h.family.as_str());
            for k in keys.iter().filter(|k| k.parent == t.table || Some(k.parent.as_str()) == family) {
                let sql = format!(
                    "DELETE FROM pg_temp.breakglass_go g USING ONLY {} t WHERE g.rel = t.tableoid AND g.place = t.ctid \
                     AND EXISTS (SELECT FROM {} c WHERE {} AND NOT EXISTS \
                     (SELECT FROM pg_temp.breakglass_go x WHERE x.rel = c.tableoid AND x.place = c.ctid))",
                    t.sql,
                    k.child_sql,
                    equal("c", &k.cols, "t", &k.parent_cols)
                );
                freed += execute(live, &sql).await?;
            }
        }
        if freed == 0 {
            break;
        }
    }
    // As one statement: rows may reference each other in a circle.
    let statements: Vec<String> = staying
        .iter()
        .map(|(_, t)| {
            format!(
                "DELETE FROM ONLY {} t USING pg_temp.breakglass_go g WHERE g.rel = t.tableoid AND g.place = t.ctid",
                t.sql
            )
        })
        .collect();
    together(live, &statements).await
}
