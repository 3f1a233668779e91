//! Undoing a partial recovery: rows that came back go again, rows put back get the values they had, as far as nobody
//! touched them since.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use super::catalog::{foreign_keys, triggers};
use super::rows::{count, equal, execute, pipe_back};
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::postgres::connect::{query_error, quote_ident, run};

/// Name of the record in its folder.
pub const RECORD: &str = "partial.json";

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
}

/// One table of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedTable {
    /// `schema.table`.
    pub table: String,
    /// Quoted.
    pub sql: String,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// `schema.table`.
    pub table: String,
    /// Rows taken out again.
    pub removed: u64,
    /// Rows put back to what they were before.
    pub restored: u64,
    /// Rows left as they are: changed since, or referenced by rows written since.
    pub kept: u64,
    /// The table itself was dropped again.
    pub dropped: bool,
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
        Ok(Self { v: 1, at, system_identifier, database, transaction, tables: Vec::new(), constraints: Vec::new() })
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

/// Undoes a partial recovery in one transaction. Rows changed since, and rows that later ones reference, stay.
///
/// # Errors
/// Refused when it is another database or the transaction never committed; a statement fails: then nothing was changed.
pub async fn undo(live: &mut PgConnection, record: &Record, folder: &Path) -> Result<Vec<Undone>> {
    run(live, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL xmloption = content").await?;
    let result = undo_in(live, record, folder).await;
    match &result {
        Ok(_) => run(live, "COMMIT").await?,
        Err(_) => run(live, "ROLLBACK").await?,
    }
    result
}

async fn undo_in(live: &mut PgConnection, record: &Record, folder: &Path) -> Result<Vec<Undone>> {
    let now = Record::begin(live, record.at).await?;
    if (&now.system_identifier, &now.database) != (&record.system_identifier, &record.database) {
        return Err(Error::refused(format!(
            "this is database {:?} of cluster {}",
            now.database, now.system_identifier
        ))
        .why(format!("the rows were brought back into {:?} of cluster {}", record.database, record.system_identifier))
        .hint("set DATABASE_URL to that database"));
    }
    let sql = "SELECT pg_catalog.pg_xact_status($1::text::xid8)";
    let status: Option<String> = sqlx::query_scalar(sql)
        .bind(&record.transaction)
        .fetch_one(&mut *live)
        .await
        .map_err(|e| query_error(sql, &e))?;
    if status.as_deref() == Some("aborted") {
        return Err(Error::refused("there is nothing to undo")
            .why(format!("transaction {} did not commit: nothing was brought back", record.transaction))
            .hint("run the partial recovery again"));
    }
    let mark = record.mark()?;
    let mine = |alias: &str| format!("{alias}.xmin::text = '{mark}'");
    let keys = foreign_keys(live).await?;
    for (table, name) in &record.constraints {
        run(live, &format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {}", quote_ident(name))).await?;
    }
    let mut muted = Vec::new();
    for t in record.tables.iter().filter(|t| !t.recreated) {
        for (name, always) in triggers(live, &t.sql).await? {
            run(live, &format!("ALTER TABLE {} DISABLE TRIGGER {}", t.sql, quote_ident(&name))).await?;
            muted.push((t.sql.clone(), name, always));
        }
    }
    let mut out = Vec::new();
    for (n, t) in record.tables.iter().enumerate().rev() {
        let mut done = Undone { table: t.table.clone(), ..Undone::default() };
        let all = format!("SELECT count(*) FROM ONLY {} t WHERE", t.sql);
        if t.recreated {
            let later = count(live, &format!("{all} NOT ({})", mine("t"))).await?;
            if later > 0 {
                return Err(Error::refused(format!("{} was made again and has {later} rows written since", t.table))
                    .why("dropping it would lose them")
                    .hint("save them first, then drop the table by hand"));
            }
            done.removed = count(live, &format!("{all} true")).await?;
            run(live, &format!("DROP TABLE {}", t.sql)).await?;
            done.dropped = true;
            out.push(done);
            continue;
        }
        if let Some(file) = &t.old_rows {
            let stage = format!("breakglass_undo_{n}");
            let columns: Vec<String> = t.columns.iter().map(|c| format!("t.{}", quote_ident(c))).collect();
            let sql = format!(
                "CREATE TEMPORARY TABLE {stage} ON COMMIT DROP AS SELECT {} FROM ONLY {} t WITH NO DATA",
                columns.join(", "),
                t.sql
            );
            run(live, &sql).await?;
            pipe_back(live, &folder.join(file), &format!("pg_temp.{stage}"), &t.columns).await?;
            let set: Vec<String> = t
                .writable
                .iter()
                .filter(|c| !t.key.contains(c))
                .map(|c| format!("{0} = s.{0}", quote_ident(c)))
                .collect();
            let sql = format!(
                "UPDATE ONLY {} t SET {} FROM pg_temp.{stage} s WHERE {} AND {}",
                t.sql,
                set.join(", "),
                equal("t", &t.key, "s", &t.key),
                mine("t")
            );
            done.restored = execute(live, &sql).await?;
        }
        let mut free = String::new();
        for k in keys.iter().filter(|k| k.parent == t.table) {
            let pairs = equal("c", &k.cols, "t", &k.parent_cols);
            // Of a table that refers to itself, rows that came back with this one go with it.
            let own = if k.child == t.table { format!(" AND NOT ({})", mine("c")) } else { String::new() };
            free.push_str(&format!(" AND NOT EXISTS (SELECT FROM {} c WHERE {pairs}{own})", k.child_sql));
        }
        done.removed = execute(live, &format!("DELETE FROM ONLY {} t WHERE {}{free}", t.sql, mine("t"))).await?;
        done.kept = (t.brought_back + t.put_back).saturating_sub(done.removed + done.restored);
        out.push(done);
    }
    run(live, "SET CONSTRAINTS ALL IMMEDIATE").await?;
    for (table, name, always) in muted {
        let how = if always { "ENABLE ALWAYS TRIGGER" } else { "ENABLE TRIGGER" };
        run(live, &format!("ALTER TABLE {table} {how} {}", quote_ident(&name))).await?;
    }
    Ok(out)
}
