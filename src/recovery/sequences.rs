//! Where the sequences of the damaged cluster stood, so that its successor gives out no number a second time: the rows that
//! came after the moment are salvaged under the ids they had.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use crate::error::{Context, Result};
use crate::model::event::{Check, Verdict};
use crate::postgres::connect::{describe, query_error, quote_ident, quote_literal};
use crate::postgres::{Database, user};
use crate::process::UnixUser;

/// Name of the file in the shadow's folder.
const RECORD: &str = "sequences.json";

/// Numbers a server may have reserved in its log beyond the one it shows: SEQ_LOG_VALS of PostgreSQL's sequence.c.
const AHEAD: i64 = 32;

/// One sequence of the damaged cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Database it is in.
    pub database: String,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Last number given out, as text (may exceed 2^53).
    pub last: String,
}

/// Where all sequences stood that had given out a number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// One per sequence.
    pub marks: Vec<Mark>,
    /// Databases that could not be asked, with the reason.
    pub unread: Vec<String>,
}

impl Marks {
    /// Keeps them beside the shadow.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, root: &Path, owner: Option<&UnixUser>) -> Result<()> {
        let text = serde_json::to_string_pretty(self).state(|| "cannot write where the sequences stood".into())?;
        user::own_file(&root.join(RECORD), &text, owner)
    }

    /// Those kept beside the shadow; none when nobody could ask.
    pub fn load(root: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(root.join(RECORD)).ok()?).ok()
    }
}

/// Longest wait for a lock of the damaged cluster, and for one answer: it may hold a stuck session.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Asks every database of the cluster.
///
/// # Errors
/// The database that was named cannot be asked. Others are listed in [`Marks::unread`].
pub async fn read(source: &Database) -> Result<Marks> {
    let mut c = source.connect().await?;
    let sql =
        "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn AND datname <> 'template0' ORDER BY 1";
    let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut c).await.map_err(|e| query_error(sql, &e))?;
    let mut all = Marks::default();
    for name in names {
        let found = if name == source.name() {
            Ok(read_one(&mut c, &name).await?)
        } else {
            match source.with_name(&name).connect_read_only(PATIENCE.0, PATIENCE.1).await {
                Ok(mut other) => read_one(&mut other, &name).await,
                Err(e) => Err(e),
            }
        };
        match found {
            Ok(marks) => all.marks.extend(marks),
            Err(e) => all.unread.push(format!("{name}: {}", e.why)),
        }
    }
    Ok(all)
}

async fn read_one(c: &mut PgConnection, database: &str) -> Result<Vec<Mark>> {
    // Null for a sequence that gave out nothing, and for one the role may not read.
    let sql = "SELECT schemaname::text, sequencename::text, last_value::text FROM pg_catalog.pg_sequences \
               WHERE last_value IS NOT NULL ORDER BY 1, 2";
    let rows: Vec<(String, String, String)> =
        sqlx::query_as(sql).fetch_all(c).await.map_err(|e| query_error(sql, &e))?;
    let mark = |(schema, name, last)| Mark { database: database.to_string(), schema, name, last };
    Ok(rows.into_iter().map(mark).collect())
}

/// One sequence here, compared with where it stood there.
struct Here {
    last: Option<i64>,
    least: i64,
    most: i64,
    step: i64,
    cycles: bool,
}

impl Here {
    async fn read(c: &mut PgConnection, mark: &Mark) -> Result<Option<Self>> {
        let sql = "SELECT last_value, min_value, max_value, increment_by, cycle FROM pg_catalog.pg_sequences \
                   WHERE schemaname = $1 AND sequencename = $2";
        let row: Option<(Option<i64>, i64, i64, i64, bool)> = sqlx::query_as(sql)
            .bind(&mark.schema)
            .bind(&mark.name)
            .fetch_optional(c)
            .await
            .map_err(|e| query_error(sql, &e))?;
        Ok(row.map(|(last, least, most, step, cycles)| Self { last, least, most, step, cycles }))
    }

    /// Whether a number would be given out here that was given out there.
    fn behind(&self, there: i64) -> bool {
        match self.last {
            // Nothing given out here yet.
            None => true,
            Some(here) if self.step > 0 => here < there,
            Some(here) => here > there,
        }
    }
}

/// What [`advance`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advanced {
    /// Sequences set, each with from where to where, for people.
    pub moved: Vec<String>,
    /// Sequences that could not be, with the reason.
    pub left: Vec<String>,
}

/// Sets every sequence of the new primary that stands lower than its mark past it. Run before anybody writes. A sequence that
/// was made after the moment is not there and needs nothing.
///
/// # Errors
/// A database of the new primary cannot be reached or asked.
pub async fn advance(at: &Database, marks: &Marks) -> Result<Advanced> {
    let mut out = Advanced::default();
    let mut open: Option<(String, PgConnection)> = None;
    for mark in &marks.marks {
        let Ok(there) = mark.last.parse::<i64>() else { continue };
        if open.as_ref().is_none_or(|(name, _)| *name != mark.database) {
            let name = mark.database.clone();
            match at.with_name(&name).connect().await {
                Ok(c) => open = Some((name, c)),
                // A database made after the moment.
                Err(_) if !exists(at, &name).await? => continue,
                Err(e) => return Err(e),
            }
        }
        let Some((_, c)) = &mut open else { continue };
        let Some(here) = Here::read(c, mark).await? else { continue };
        if !here.behind(there) {
            continue;
        }
        let name = format!("{}.{} in {}", mark.schema, mark.name, mark.database);
        if here.cycles {
            out.left.push(format!("{name} gives its numbers out in turns"));
            continue;
        }
        let to = there.saturating_add(here.step.saturating_mul(AHEAD)).clamp(here.least, here.most);
        let sequence = format!("{}.{}", quote_ident(&mark.schema), quote_ident(&mark.name));
        let sql = format!("SELECT pg_catalog.setval({}::regclass, {to})", quote_literal(&sequence));
        match sqlx::query(&sql).execute(&mut *c).await {
            Ok(_) => {
                let from = here.last.map_or_else(|| "its start".to_string(), |n| n.to_string());
                out.moved.push(format!("{name} from {from} to {to}"));
            }
            Err(e) => out.left.push(format!("{name}: {}", describe(&e))),
        }
    }
    Ok(out)
}

async fn exists(at: &Database, database: &str) -> Result<bool> {
    let mut c = at.connect().await?;
    let sql = "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = $1";
    let n: i64 = sqlx::query_scalar(sql).bind(database).fetch_one(&mut c).await.map_err(|e| query_error(sql, &e))?;
    Ok(n > 0)
}

/// Whether this database would give out a number that its damaged predecessor gave out already. A recovered instance that is
/// not promoted yet always would; what will be done about it is said.
///
/// # Errors
/// A query fails.
pub async fn check(c: &mut PgConnection, database: &str, marks: Option<&Marks>) -> Result<Check> {
    let of = |verdict, detail: String| Check { name: "ids given out before".into(), verdict, detail };
    let Some(marks) = marks else {
        return Ok(of(Verdict::NotAvailable, "where the damaged cluster's sequences stood is not known".into()));
    };
    let sql = "SELECT pg_catalog.pg_is_in_recovery()";
    let standing: bool = sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let (mut behind, mut seen) = (Vec::new(), 0);
    for mark in marks.marks.iter().filter(|m| m.database == database) {
        let (Ok(there), Some(here)) = (mark.last.parse::<i64>(), Here::read(c, mark).await?) else { continue };
        seen += 1;
        if here.behind(there) && !here.cycles {
            let at = here.last.map_or_else(|| "its start".to_string(), |n| n.to_string());
            behind.push(format!("{}.{} stands at {at}, stood at {there}", mark.schema, mark.name));
        }
    }
    Ok(if behind.is_empty() {
        of(Verdict::Passed, format!("{seen} sequences are at or past where the damaged cluster's stood"))
    } else if standing {
        of(Verdict::Passed, format!("promotion sets {} sequences past them: {}", behind.len(), behind.join("; ")))
    } else {
        of(Verdict::Failed, behind.join("; "))
    })
}
