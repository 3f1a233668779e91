//! The name map's entries as the live server knows them now.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::names::{NameMap, Relation};
use crate::error::{Context, Result};
use crate::postgres::connect::query_error;
use crate::postgres::wal::RelFile;
use crate::postgres::{Database, Lsn};

const LOCK: Duration = Duration::from_secs(2);
const STATEMENT: Duration = Duration::from_secs(30);

/// Adds all databases of the server behind `at` to the map; a connection to each is needed, because a catalog is seen from
/// inside alone. Databases that refuse connections are named but not looked into. Returns the position the entries hold from.
///
/// # Errors
/// The server cannot be reached, or a query fails in a database that could be reached.
pub async fn update(map: &mut NameMap, at: &Database) -> Result<Lsn> {
    let mut c = at.connect_read_only(LOCK, STATEMENT).await?;
    let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() \
               END::text AS lsn";
    let row = one(&mut c, sql).await?;
    let lsn: Lsn = get::<String>(&row, "lsn")?.parse().target(|| "the server's log position".into())?;
    let sql =
        "SELECT oid::int8 AS oid, datname::text AS name, datallowconn AND datconnlimit <> -2 AS open FROM pg_database";
    let mut names = Vec::new();
    for row in all(&mut c, sql).await? {
        let name: String = get(&row, "name")?;
        map.learn_database(lsn, number(&row, "oid")?, &name);
        if get::<bool>(&row, "open")? {
            names.push(name);
        }
    }
    drop(c);
    for name in names {
        let mut c = at.with_name(&name).connect_read_only(LOCK, STATEMENT).await?;
        one_database(map, &mut c, lsn).await?;
    }
    map.note_snapshot(lsn);
    Ok(lsn)
}

async fn one_database(map: &mut NameMap, c: &mut PgConnection, lsn: Lsn) -> Result<()> {
    let sql = "SELECT d.oid::int8 AS oid, d.dattablespace::int8 AS tablespace FROM pg_database d \
               WHERE d.datname = current_database()";
    let row = one(c, sql).await?;
    let (database, default_space) = (number(&row, "oid")?, number(&row, "tablespace")?);
    for row in all(c, "SELECT oid::int8 AS oid, nspname::text AS name FROM pg_namespace").await? {
        map.learn_schema(lsn, database, number(&row, "oid")?, &get::<String>(&row, "name")?);
    }
    // Mapped catalogs have no file in pg_class; shared ones belong to no database.
    let sql = "SELECT c.oid::int8 AS oid, pg_relation_filenode(c.oid)::int8 AS file, c.reltablespace::int8 AS tablespace, \
               c.relisshared AS shared, c.relnamespace::int8 AS schema_oid, n.nspname::text AS schema, \
               c.relname::text AS name, c.relkind::text AS kind, c.relpersistence::text AS persistence, \
               c.reltuples::int8 AS rows, \
               CASE WHEN c.relispartition THEN (SELECT rn.nspname || '.' || r.relname FROM pg_class r \
                 JOIN pg_namespace rn ON rn.oid = r.relnamespace WHERE r.oid = pg_partition_root(c.oid)) END AS root \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'm', 'i', 'S', 't') AND pg_relation_filenode(c.oid) IS NOT NULL";
    for row in all(c, sql).await? {
        let space = number(&row, "tablespace")?;
        let file = RelFile {
            tablespace: if space == 0 { default_space } else { space },
            database: if get::<bool>(&row, "shared")? { 0 } else { database },
            file: number(&row, "file")?,
        };
        let letter = |name: &str| get::<String>(&row, name).map(|t| t.chars().next().unwrap_or('?'));
        let relation = Relation {
            oid: number(&row, "oid")?,
            schema_oid: number(&row, "schema_oid")?,
            schema: Some(get(&row, "schema")?),
            name: get(&row, "name")?,
            kind: letter("kind")?,
            persistence: letter("persistence")?,
            root: get(&row, "root")?,
            // −1 (0 before version 14) means never analysed.
            rows: u64::try_from(get::<i64>(&row, "rows")?).ok().filter(|r| *r > 0),
        };
        map.learn(lsn, file, relation);
    }
    Ok(())
}

async fn one(c: &mut PgConnection, sql: &str) -> Result<PgRow> {
    sqlx::query(sql).fetch_one(c).await.map_err(|e| query_error(sql, &e))
}

async fn all(c: &mut PgConnection, sql: &str) -> Result<Vec<PgRow>> {
    sqlx::query(sql).fetch_all(c).await.map_err(|e| query_error(sql, &e))
}

fn get<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(row: &'r PgRow, name: &str) -> Result<T> {
    row.try_get(name).target(|| format!("reading {name:?} of the catalog"))
}

fn number(row: &PgRow, name: &str) -> Result<u32> {
    u32::try_from(get::<i64>(row, name)?).target(|| format!("reading {name:?} of the catalog"))
}
