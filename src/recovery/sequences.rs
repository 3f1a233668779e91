//! Where the sequences of the damaged cluster stood, so that its successor gives out no number a second time: the rows that
//! came after the moment are salvaged under the ids they had.

use std::collections::BTreeMap;
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

/// What could not be asked where it stood. It may have given out any number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Database.
    pub database: String,
    /// Schema and name of the sequence; none for all sequences of the database.
    pub sequence: Option<(String, String)>,
    /// Why, for people.
    pub why: String,
}

/// Where all sequences stood that had given out a number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// One per sequence.
    pub marks: Vec<Mark>,
    /// What could not be asked. Some of it may be in `marks` as well: as an earlier look saw it.
    pub unread: Vec<Unread>,
}

impl Marks {
    /// Keeps them beside the shadow, with what an earlier look saw of those that cannot be read now; returns them with that.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(mut self, root: &Path, owner: Option<&UnixUser>) -> Result<Self> {
        let before = Self::load(root).unwrap_or_default();
        let unread = |m: &Mark| self.unread.iter().any(|u| u.is_of(m));
        let known = |m: &Mark| self.marks.iter().any(|n| n.same(m));
        let more: Vec<Mark> = before.marks.into_iter().filter(|m| unread(m) && !known(m)).collect();
        self.marks.extend(more);
        let text = serde_json::to_string_pretty(&self).state(|| "cannot write where the sequences stood".into())?;
        user::own_file(&root.join(RECORD), &text, owner)?;
        Ok(self)
    }

    /// Those kept beside the shadow; none when nobody could ask.
    pub fn load(root: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(root.join(RECORD)).ok()?).ok()
    }

    /// What is not known, for people, one sentence for each database and reason: while a role that may read it can still be named.
    pub fn warnings(&self) -> Vec<String> {
        let of = |((database, why), names): ((&str, &str), Vec<String>)| {
            format!(
                "NOT KNOWN where {} of {database:?} stand ({why}): ids given out already may be given out again; say it with a URL \
                 whose role may read them: the owner's, a superuser's, or one with GRANT pg_read_all_data",
                listed(&names)
            )
        };
        self.by_reason().into_iter().map(of).collect()
    }

    /// The names of what is unread, by database and reason; no name for all sequences of a database.
    fn by_reason(&self) -> BTreeMap<(&str, &str), Vec<String>> {
        let mut out: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for u in &self.unread {
            let names = out.entry((&u.database, &u.why)).or_default();
            names.extend(u.sequence.as_ref().map(|(schema, name)| format!("{schema}.{name}")));
        }
        out
    }
}

impl Mark {
    fn same(&self, other: &Self) -> bool {
        (&self.database, &self.schema, &self.name) == (&other.database, &other.schema, &other.name)
    }
}

impl Unread {
    fn is_of(&self, m: &Mark) -> bool {
        let named = |(schema, name): &(String, String)| *schema == m.schema && *name == m.name;
        self.database == m.database && self.sequence.as_ref().is_none_or(named)
    }
}

/// Names that are shown; the record beside the shadow has all.
const SHOWN: usize = 20;

/// `the sequences a, b and 3 more`; `all sequences` without a name.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "all sequences".into(),
        n if n > SHOWN => format!(
            "the sequences {shown} and {} more ({RECORD} in the recovered instance's folder has all)",
            n - SHOWN
        ),
        _ => format!("the sequences {shown}"),
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
            Ok(found) => {
                all.marks.extend(found.marks);
                all.unread.extend(found.unread);
            }
            Err(e) => all.unread.push(Unread { database: name, sequence: None, why: e.why }),
        }
    }
    Ok(all)
}

/// SQL: the sequences of this database, whether this role may read each, and its last number if so. The server's own view shows
/// null for one that gave out nothing and for one that may not be read.
const SEQUENCES: &str = "SELECT n.nspname::text AS schema, c.relname::text AS name, r.may, \
        CASE WHEN r.may AND NOT (c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery()) \
             THEN pg_catalog.pg_sequence_last_value(c.oid) END AS last, \
        s.seqmin AS least, s.seqmax AS most, s.seqincrement AS step, s.seqcycle AS cycles \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid, \
    LATERAL (SELECT pg_catalog.has_sequence_privilege(c.oid, 'SELECT, USAGE') AS may) r \
    WHERE c.relkind = 'S' AND c.relpersistence <> 't'";

async fn read_one(c: &mut PgConnection, database: &str) -> Result<Marks> {
    let sql = format!("SELECT schema, name, may, last::text, current_user::text FROM ({SEQUENCES}) q ORDER BY 1, 2");
    let rows: Vec<(String, String, bool, Option<String>, String)> =
        sqlx::query_as(&sql).fetch_all(c).await.map_err(|e| query_error(&sql, &e))?;
    let mut out = Marks::default();
    for (schema, name, may, last, role) in rows {
        let database = database.to_string();
        match (may, last) {
            (true, Some(last)) => out.marks.push(Mark { database, schema, name, last }),
            (true, None) => {}
            (false, _) => {
                let why = format!("role {role:?} may not read them");
                out.unread.push(Unread { database, sequence: Some((schema, name)), why });
            }
        }
    }
    Ok(out)
}

/// One sequence here, compared with where it stood there.
struct Here {
    may: bool,
    last: Option<i64>,
    least: i64,
    most: i64,
    step: i64,
    cycles: bool,
}

impl Here {
    async fn read(c: &mut PgConnection, schema: &str, name: &str) -> Result<Option<Self>> {
        let sql = format!(
            "SELECT may, last, least, most, step, cycles FROM ({SEQUENCES}) q WHERE q.schema = $1 AND q.name = $2"
        );
        let row: Option<(bool, Option<i64>, i64, i64, i64, bool)> =
            sqlx::query_as(&sql).bind(schema).bind(name).fetch_optional(c).await.map_err(|e| query_error(&sql, &e))?;
        Ok(row.map(|(may, last, least, most, step, cycles)| Self { may, last, least, most, step, cycles }))
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
        let Some(here) = Here::read(c, &mark.schema, &mark.name).await? else { continue };
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
    out.left.extend(unknown(at, marks).await?);
    Ok(out)
}

/// What nobody knows of the sequences that this new primary has, and how to find it out: for people, one sentence for each database
/// and reason.
///
/// # Errors
/// A database of the new primary cannot be reached or asked.
pub async fn unknown(at: &Database, marks: &Marks) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for ((database, why), names) in marks.by_reason() {
        if !exists(at, database).await? {
            continue;
        }
        let mut c = at.with_name(database).connect().await?;
        let here: Vec<&Unread> = marks.unread.iter().filter(|u| u.database == database && u.why == why).collect();
        let here = those_here(&mut c, &here).await?;
        if !names.is_empty() && here.is_empty() {
            continue;
        }
        let known = marks.marks.iter().filter(|m| here.iter().any(|u| u.is_of(m)));
        let known: Vec<String> = known.map(|m| format!("{}.{} at {}", m.schema, m.name, m.last)).collect();
        let known = match known.as_slice() {
            [] => String::new(),
            some => format!("; an earlier look saw {}, and they may have given out more since", some.join(", ")),
        };
        let one = here.iter().find_map(|u| u.sequence.clone());
        let one =
            one.map_or("\"schema\".\"name\"".to_string(), |(s, n)| format!("{}.{}", quote_ident(&s), quote_ident(&n)));
        let names: Vec<String> =
            here.iter().filter_map(|u| u.sequence.as_ref()).map(|(s, n)| format!("{s}.{n}")).collect();
        out.push(format!(
            "where {} of {database} stood in the damaged cluster could not be read ({why}){known}. Ask there, as a role that may: \
             SELECT last_value FROM {one}; then here, before anybody writes: SELECT setval({}, NUMBER) with that number or a higher \
             one, for each",
            listed(&names),
            quote_literal(&one)
        ));
    }
    Ok(out)
}

/// Those of these that are in this database; one that stands for all of it is.
async fn those_here<'u>(c: &mut PgConnection, unread: &[&'u Unread]) -> Result<Vec<&'u Unread>> {
    let mut out = Vec::new();
    for u in unread {
        let there = match &u.sequence {
            Some((schema, name)) => Here::read(c, schema, name).await?.is_some(),
            None => true,
        };
        if there {
            out.push(*u);
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
    let unread: Vec<&Unread> = marks.unread.iter().filter(|u| u.database == database).collect();
    let unread = those_here(c, &unread).await?;
    let mut not_here = Vec::new();
    for mark in marks.marks.iter().filter(|m| m.database == database && !unread.iter().any(|u| u.is_of(m))) {
        let here = Here::read(c, &mark.schema, &mark.name).await?;
        let (Ok(there), Some(here)) = (mark.last.parse::<i64>(), here) else { continue };
        if !here.may {
            not_here.push(format!("{}.{}", mark.schema, mark.name));
            continue;
        }
        seen += 1;
        if here.behind(there) && !here.cycles {
            let at = here.last.map_or_else(|| "its start".to_string(), |n| n.to_string());
            behind.push(format!("{}.{} stands at {at}, stood at {there}", mark.schema, mark.name));
        }
    }
    let moved = format!("promotion sets {} sequences past them: {}", behind.len(), behind.join("; "));
    let mut open: Vec<String> = Marks { unread: unread.into_iter().cloned().collect(), ..Marks::default() }.warnings();
    if !not_here.is_empty() {
        open.push(format!("where {} stand here may not be read", listed(&not_here)));
    }
    Ok(if !behind.is_empty() && !standing {
        of(Verdict::Failed, behind.join("; "))
    } else if !open.is_empty() {
        if !behind.is_empty() {
            open.push(moved);
        }
        of(Verdict::NotAvailable, open.join("; "))
    } else if !behind.is_empty() {
        of(Verdict::Passed, moved)
    } else {
        of(Verdict::Passed, format!("{seen} sequences are at or past where the damaged cluster's stood"))
    })
}
