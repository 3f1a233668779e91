//! Partitions that are gone while the table above them stands: made again as they were and put back under it, in the same
//! transaction, before their rows come.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;

use super::Definitions;
use super::recreate::{Entry, dumped, entries, make as make_by};
use crate::error::{Error, Result};
use crate::postgres::connect::{query_error, run};
use crate::recovery::tables::Table;

/// A partition, and the table that stands above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Under {
    /// `schema.table`.
    pub name: String,
    /// Quoted.
    pub sql: String,
    /// Quoted.
    pub above: String,
}

/// What is made again.
#[derive(Debug, Clone, Default)]
pub struct Missing {
    /// Tables with everything above them, quoted.
    pub alone: Vec<String>,
    /// Those that come to be below a table that stands, quoted; the ones right below it, too.
    pub below: Vec<String>,
    /// Those right below it.
    pub tops: Vec<Under>,
    /// Of every one of `below`, by its name: the table that stands.
    standing: BTreeMap<String, String>,
}

/// A table of the shadow: its name, quoted, and its name for people, and the same of the table right above it.
type Row = (String, String, Option<String>);

impl Missing {
    /// Which tables have to be made: these and, of partitions, all above them that do not stand.
    ///
    /// # Errors
    /// A query fails.
    pub async fn find(live: &mut PgConnection, shadow: &mut PgConnection, gone: &[&Table]) -> Result<Self> {
        let oids: Vec<i64> = gone.iter().map(|t| i64::from(t.oid)).collect();
        let quoted = "pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)";
        let sql = format!(
            "WITH all_of AS (SELECT DISTINCT a.relid FROM unnest($1::int8[]) x, LATERAL (SELECT x::oid::regclass AS relid \
             UNION SELECT relid FROM pg_catalog.pg_partition_ancestors(x::oid::regclass)) a) \
             SELECT {quoted}, n.nspname || '.' || c.relname, \
             (SELECT {} FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class p ON p.oid = h.inhparent \
              JOIN pg_catalog.pg_namespace m ON m.oid = p.relnamespace WHERE h.inhrelid = c.oid AND c.relispartition) \
             FROM all_of JOIN pg_catalog.pg_class c ON c.oid = relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1",
            quoted.replace("n.", "m.").replace("c.", "p.")
        );
        let rows: Vec<Row> =
            sqlx::query_as(&sql).bind(oids).fetch_all(&mut *shadow).await.map_err(|e| query_error(&sql, &e))?;
        let names: Vec<&str> = rows.iter().map(|(sql, ..)| sql.as_str()).collect();
        let there = "SELECT t FROM unnest($1::text[]) t WHERE pg_catalog.to_regclass(t) IS NOT NULL";
        let standing: Vec<String> =
            sqlx::query_scalar(there).bind(names).fetch_all(&mut *live).await.map_err(|e| query_error(there, &e))?;
        let mut out = Self::default();
        for (sql, name, above) in rows.iter().filter(|(sql, ..)| !standing.contains(sql)) {
            let mut up = above.as_ref();
            while let Some((.., next)) = rows.iter().find(|(sql, ..)| Some(sql) == up && !standing.contains(sql)) {
                up = next.as_ref();
            }
            let Some(stands) = up else {
                out.alone.push(sql.clone());
                continue;
            };
            out.below.push(sql.clone());
            out.standing.insert(name.clone(), stands.clone());
            if above.as_ref() == Some(stands) {
                out.tops.push(Under { name: name.clone(), sql: sql.clone(), above: stands.clone() });
            }
        }
        Ok(out)
    }

    /// The standing table, quoted, below which this one comes to be.
    pub fn stands_above(&self, name: &str) -> Option<&String> {
        self.standing.get(name)
    }

    /// All that is made, quoted.
    pub fn all(&self) -> Vec<String> {
        self.alone.iter().chain(&self.below).cloned().collect()
    }
}

/// Makes the partitions, with their indexes, and puts them back under what stands; SQL that is left for after their rows: what is none
/// of an index, such as triggers and foreign keys of their own.
///
/// # Errors
/// They cannot be made. Refused when they do not fit below what stands, with the way that works.
pub(super) async fn make(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    definitions: &Definitions,
    missing: &Missing,
) -> Result<String> {
    if missing.tops.is_empty() {
        return Ok(String::new());
    }
    let schema = dumped(definitions.clone(), missing.below.clone()).await?;
    let tops: Vec<&str> = missing.tops.iter().map(|t| t.name.as_str()).collect();
    let own = indexes(shadow, &tops).await?;
    let (before, after) = (entries(&schema.before), entries(&schema.after));
    let of = |e: &Entry<'_>, names: &[String]| names.iter().any(|n| *n == format!("{}.{}", e.schema, e.name));
    let names: Vec<String> = tops.iter().map(|t| (*t).to_string()).collect();
    let is_attach = |e: &&Entry<'_>| e.kind == "TABLE ATTACH" && of(e, &names);
    let is_index = |e: &&Entry<'_>| ["CONSTRAINT", "INDEX", "INDEX ATTACH"].contains(&e.kind);
    // Where the partition goes under what stands, the server finds its indexes that belong to those there.
    let by_itself = |e: &&Entry<'_>| e.kind == "INDEX ATTACH" && of(e, &own);
    let text = |all: Vec<&Entry<'_>>| all.iter().map(|e| e.sql).collect::<Vec<_>>().join("\n");
    let made = [
        text(before.iter().filter(|e| !is_attach(e)).collect()),
        text(after.iter().filter(|e| is_index(e) && !by_itself(e)).collect()),
    ];
    for sql in made {
        make_by(live, &sql).await?;
    }
    for attach in before.iter().filter(is_attach) {
        let name = format!("{}.{}", attach.schema, attach.name);
        let Some(top) = missing.tops.iter().find(|t| t.name == name) else { continue };
        if let Err(e) = run(live, attach.sql).await {
            return Err(does_not_fit(top, shadow, definitions, e).await);
        }
    }
    Ok(text(after.iter().filter(|e| !is_index(e)).collect()))
}

/// The indexes of these tables, `schema.index`.
async fn indexes(shadow: &mut PgConnection, tables: &[&str]) -> Result<Vec<String>> {
    let sql = "SELECT m.nspname || '.' || x.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
               JOIN pg_catalog.pg_namespace m ON m.oid = x.relnamespace JOIN pg_catalog.pg_class c ON c.oid = i.indrelid \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname = ANY ($1::text[])";
    sqlx::query_scalar(sql).bind(tables).fetch_all(&mut *shadow).await.map_err(|e| query_error(sql, &e))
}

/// That a partition does not go under the table above it any more, and how its rows get there all the same.
async fn does_not_fit(top: &Under, shadow: &mut PgConnection, definitions: &Definitions, e: Error) -> Error {
    // Somebody writes there for longer than was to be waited: that is no misfit.
    if e.why.contains("lock timeout") {
        return e;
    }
    let sql = "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) FROM pg_catalog.pg_attribute \
               WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
    let columns: Option<String> = sqlx::query_scalar(sql).bind(&top.sql).fetch_one(&mut *shadow).await.ok().flatten();
    let columns = columns.unwrap_or_else(|| "…".into());
    let at = &definitions.shadow;
    Error::refused(format!("{} cannot be put back under {}", top.name, top.above))
        .why(e.why)
        .hint(format!(
            "put {} right first (its columns as they were; no other partition for those values, and no rows of them in its default \
             partition), then try again",
            top.above
        ))
        .hint(format!(
            "or bring the rows back through the table above it, into whichever partition takes them: psql -h {} -p {} -U {} -d {} -c \
             'COPY (SELECT {columns} FROM {}) TO STDOUT' | psql LIVE -c 'COPY {} ({columns}) FROM STDIN'",
            at.host(),
            at.port(),
            at.user(),
            at.name(),
            top.sql,
            top.above
        ))
}

/// Takes a partition out from under a table, when it is there.
///
/// # Errors
/// A query fails; rows reference it.
pub(super) async fn detach(live: &mut PgConnection, above: &str, partition: &str) -> Result<()> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhrelid = pg_catalog.to_regclass($1)::oid \
               AND inhparent = pg_catalog.to_regclass($2)::oid)";
    let there: bool = sqlx::query_scalar(sql)
        .bind(partition)
        .bind(above)
        .fetch_one(&mut *live)
        .await
        .map_err(|e| query_error(sql, &e))?;
    match there {
        true => run(live, &format!("ALTER TABLE {above} DETACH PARTITION {partition}")).await,
        false => Ok(()),
    }
}
