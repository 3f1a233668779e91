//! What a database holds and needs, as recorded with a dump: settings, roles, extensions, collations, tables and their rows.
//!
//! Read in the very transaction whose snapshot the dump uses, so that rows counted here are rows dumped there.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use super::connect::{Database, query_error, quote_ident, run};
use super::dump_archive::Blocks;
use super::table_needs::Need;
use crate::error::{Context, Error, Result};

/// How a database was made and is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: String,
    /// Encoding, such as `UTF8`.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Locale provider: `c` for the C library, `i` for ICU, `b` for the built-in one.
    pub provider: String,
    /// Locale of ICU or of the built-in provider.
    pub locale: Option<String>,
    /// Version of the collation the database was made with, where the provider has versions.
    pub collation_version: Option<String>,
    /// Most connections, -1 for no limit.
    pub connection_limit: i64,
    /// Comment.
    pub comment: Option<String>,
    /// Whether privileges differ from the default.
    pub has_acl: bool,
    /// Privileges, when they differ from the default.
    pub acl: Vec<Grant>,
    /// Settings of the database, and of roles in it.
    pub settings: Vec<Setting>,
}

/// A privilege on the database, or on a schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The role; none for PUBLIC.
    pub grantee: Option<String>,
    /// `CONNECT`, `CREATE` or `TEMPORARY`; `USAGE` or `CREATE` on a schema.
    pub privilege: String,
    /// With grant option.
    pub grantable: bool,
}

impl Grant {
    /// The end of the statement that gives it: `TO "role" WITH GRANT OPTION`.
    pub fn to(&self) -> String {
        let to = self.grantee.as_deref().map_or_else(|| "PUBLIC".to_string(), quote_ident);
        format!("TO {to}{}", if self.grantable { " WITH GRANT OPTION" } else { "" })
    }
}

/// A setting of the database, or of a role in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The role; none for every role.
    pub role: Option<String>,
    /// Name.
    pub name: String,
    /// Value as stored: lists are quoted already.
    pub value: String,
}

/// An extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Name.
    pub name: String,
    /// Version installed.
    pub version: String,
}

/// A collation of the server that columns use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collation {
    /// Name in `pg_catalog`.
    pub name: String,
    /// Version, where the provider has versions.
    pub version: Option<String>,
}

/// A schema of a dump of some tables, which does not make its schemas itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Name.
    pub name: String,
    /// Owner.
    pub owner: String,
    /// Privileges, when they differ from the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<Grant>,
}

/// A table, partition, materialized view or foreign table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Its oid in the source, as the dump's list of contents names it.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `pg_class.relkind`: r table, p partitioned, m materialized view, f foreign.
    pub kind: String,
    /// Whether it belongs to an extension.
    #[serde(default)]
    pub of_extension: bool,
    /// Rows at the dump's snapshot; none where they are not in the dump as rows.
    #[serde(default)]
    pub rows: Option<u64>,
    /// Sum of its rows' hashes, in text form; none where it was not taken.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// When it comes back in a restore (`postgres::tiers`); none: with the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The table it is a partition of, by oid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_of: Option<u32>,
    /// The tables it inherits from otherwise, by oid: its rows are theirs, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherits: Vec<u32>,
    /// Its indexes, keys and triggers: oid of the catalog each stands in, and its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<[u32; 2]>,
    /// Its foreign keys: oid of the constraint, and of the table it points at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<[u32; 2]>,
}

impl TableRecord {
    /// `"schema"."name"`.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }
    /// The tables whose rows its own are, too, by oid.
    pub fn parents(&self) -> impl Iterator<Item = u32> + '_ {
        self.partition_of.into_iter().chain(self.inherits.iter().copied())
    }
    /// Whether its rows are in the dump and can be counted again after a restore.
    pub fn countable(&self) -> bool {
        self.kind == "r" && !self.of_extension
    }
}

/// Everything recorded with a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Format of this document: 1.
    pub version: u32,
    /// `server_version_num` of the source.
    pub server_version: u32,
    /// The database itself.
    pub database: Properties,
    /// Roles that own something or are named in privileges, policies and settings.
    pub roles: Vec<String>,
    /// Extensions.
    pub extensions: Vec<Extension>,
    /// Collations of the server that are used.
    pub collations: Vec<Collation>,
    /// Tablespaces besides the default.
    pub tablespaces: Vec<String>,
    /// Tables.
    pub tables: Vec<TableRecord>,
    /// Large objects.
    pub large_objects: u64,
    /// Tiers whose tables alone have rows in the dump; empty: all have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_tiers: Vec<String>,
    /// Schemas of the tables, when only some tables are in the dump.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<Schema>,
    /// What the tables need besides themselves, when only some are in the dump; their definitions are in an archive beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Where the rows of each table lie in the dump, so that one can be read without the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
}

/// Opens the transaction a dump is taken in, and gives the name of its snapshot. The connection must stay open meanwhile.
///
/// # Errors
/// Not reachable.
pub async fn begin_snapshot(at: &Database) -> Result<(PgConnection, String)> {
    let mut c = at.connect().await?;
    run(
        &mut c,
        "SET lock_timeout = '60s'; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
         SET TimeZone = 'UTC'; SET search_path = pg_catalog; SET row_security = off; \
         BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    )
    .await?;
    let sql = "SELECT pg_catalog.pg_export_snapshot()";
    let snapshot: String = sqlx::query_scalar(sql).fetch_one(&mut c).await.map_err(|e| query_error(sql, &e))?;
    Ok((c, snapshot))
}

async fn json<T: DeserializeOwned>(c: &mut PgConnection, sql: &str) -> Result<T> {
    let text: String = sqlx::query_scalar(sql).fetch_one(c).await.map_err(|e| query_error(sql, &e))?;
    serde_json::from_str(&text).state(|| "the server's answer cannot be understood".into())
}

/// All but the rows' counts.
///
/// # Errors
/// A query fails.
pub async fn inventory(c: &mut PgConnection) -> Result<Inventory> {
    // Columns that not every version has are read through the row's JSON form.
    let database = json(
        c,
        "SELECT json_build_object('name', d.datname, 'owner', pg_get_userbyid(d.datdba), \
         'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype, \
         'provider', coalesce(to_jsonb(d)->>'datlocprovider', 'c'), \
         'locale', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'), \
         'collation_version', to_jsonb(d)->>'datcollversion', 'connection_limit', d.datconnlimit, \
         'comment', shobj_description(d.oid, 'pg_database'), 'has_acl', d.datacl IS NOT NULL, \
         'acl', (SELECT coalesce(json_agg(json_build_object('grantee', CASE WHEN a.grantee <> 0 THEN \
            pg_get_userbyid(a.grantee) END, 'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]') \
            FROM aclexplode(d.datacl) a), \
         'settings', (SELECT coalesce(json_agg(json_build_object('role', CASE WHEN s.setrole <> 0 THEN \
            pg_get_userbyid(s.setrole) END, 'name', split_part(v, '=', 1), 'value', substr(v, strpos(v, '=') + 1))), '[]') \
            FROM pg_db_role_setting s, unnest(s.setconfig) v WHERE s.setdatabase = d.oid))::text \
         FROM pg_database d WHERE d.datname = current_database()",
    )
    .await?;
    let roles = json(
        c,
        "SELECT coalesce(json_agg(name ORDER BY name), '[]')::text FROM ( \
         SELECT r.rolname AS name FROM pg_shdepend d JOIN pg_roles r ON d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid \
           WHERE d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
              OR (d.classid = 'pg_database'::regclass AND d.objid = (SELECT oid FROM pg_database WHERE datname = current_database())) \
         UNION SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid >= 16384 \
         UNION SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE oid >= 16384 \
         UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE oid >= 16384 \
         UNION SELECT pg_get_userbyid(typowner) FROM pg_type WHERE oid >= 16384 \
         UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database() \
         UNION SELECT pg_get_userbyid(s.setrole) FROM pg_db_role_setting s WHERE s.setrole <> 0 \
           AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())) r",
    )
    .await?;
    let extensions = json(
        c,
        "SELECT coalesce(json_agg(json_build_object('name', extname, 'version', extversion) ORDER BY extname), '[]')::text \
         FROM pg_extension WHERE extname <> 'plpgsql'",
    )
    .await?;
    let collations = json(
        c,
        "SELECT coalesce(json_agg(json_build_object('name', l.collname, 'version', pg_collation_actual_version(l.oid)) \
           ORDER BY l.collname), '[]')::text \
         FROM pg_collation l WHERE l.oid >= 12000 AND l.collnamespace = 'pg_catalog'::regnamespace AND EXISTS ( \
           SELECT FROM pg_attribute a JOIN pg_class k ON k.oid = a.attrelid \
           WHERE a.attcollation = l.oid AND k.oid >= 16384)",
    )
    .await?;
    let tablespaces = json(
        c,
        "SELECT coalesce(json_agg(DISTINCT t.spcname), '[]')::text FROM pg_class k JOIN pg_tablespace t ON t.oid = k.reltablespace \
         WHERE k.oid >= 16384 AND t.spcname NOT IN ('pg_default', 'pg_global')",
    )
    .await?;
    let tables = json(
        c,
        "SELECT coalesce(json_agg(json_build_object('oid', k.oid::int8, 'schema', n.nspname, 'name', k.relname, \
           'kind', k.relkind, 'of_extension', EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
           AND d.objid = k.oid AND d.deptype = 'e'), \
           'partition_of', CASE WHEN k.relispartition THEN (SELECT i.inhparent::int8 FROM pg_inherits i \
             WHERE i.inhrelid = k.oid LIMIT 1) END, \
           'inherits', (SELECT coalesce(json_agg(i.inhparent::int8 ORDER BY i.inhseqno), '[]') FROM pg_inherits i \
             WHERE i.inhrelid = k.oid AND NOT k.relispartition), \
           'parts', (SELECT coalesce(json_agg(json_build_array(p.catalog, p.oid)), '[]') FROM ( \
             SELECT 'pg_class'::regclass::oid::int8 AS catalog, x.indexrelid::int8 AS oid FROM pg_index x \
               WHERE x.indrelid = k.oid \
             UNION ALL SELECT 'pg_constraint'::regclass::oid::int8, c.oid::int8 FROM pg_constraint c \
               WHERE c.conrelid = k.oid AND c.contype IN ('p', 'u', 'x') \
             UNION ALL SELECT 'pg_trigger'::regclass::oid::int8, g.oid::int8 FROM pg_trigger g \
               WHERE g.tgrelid = k.oid AND NOT g.tgisinternal) p), \
           'references', (SELECT coalesce(json_agg(json_build_array(c.oid::int8, c.confrelid::int8)), '[]') \
             FROM pg_constraint c WHERE c.conrelid = k.oid AND c.contype = 'f')) ORDER BY n.nspname, k.relname), '[]')::text \
         FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace \
         WHERE k.relkind IN ('r', 'p', 'm', 'f') AND k.relpersistence <> 't' AND n.nspname !~ '^pg_' \
           AND n.nspname <> 'information_schema'",
    )
    .await?;
    let sql = "SELECT count(*), current_setting('server_version_num')::int8 FROM pg_largeobject_metadata";
    let (large, version): (i64, i64) = sqlx::query_as(sql).fetch_one(c).await.map_err(|e| query_error(sql, &e))?;
    Ok(Inventory {
        version: 1,
        server_version: u32::try_from(version).unwrap_or(0),
        database,
        roles,
        extensions,
        collations,
        tablespaces,
        tables,
        large_objects: u64::try_from(large).unwrap_or(0),
        only_tiers: Vec::new(),
        needs: Vec::new(),
        schemas: Vec::new(),
        blocks: None,
    })
}

/// Those of these schemas that every new database lacks.
///
/// # Errors
/// The query fails.
pub async fn schemas(c: &mut PgConnection, names: &[String]) -> Result<Vec<Schema>> {
    let sql = "SELECT coalesce(json_agg(json_build_object('name', n.nspname, 'owner', pg_get_userbyid(n.nspowner), \
           'acl', (SELECT coalesce(json_agg(json_build_object('grantee', CASE WHEN a.grantee <> 0 THEN \
             pg_get_userbyid(a.grantee) END, 'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]') \
             FROM aclexplode(n.nspacl) a WHERE a.grantee <> n.nspowner)) ORDER BY n.nspname), '[]')::text \
         FROM pg_namespace n WHERE n.nspname = ANY ($1) AND n.nspname NOT IN ('public', 'pg_catalog', 'information_schema')";
    let text: String = sqlx::query_scalar(sql).bind(names).fetch_one(c).await.map_err(|e| query_error(sql, &e))?;
    serde_json::from_str(&text).state(|| "the server's answer cannot be understood".into())
}

/// Settings under which a row's text form, and with it a fingerprint, is the same everywhere.
const PINNED: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
                      SET extra_float_digits = 1; SET bytea_output = 'hex'; SET xmlbinary = 'base64'; \
                      SET lc_monetary = 'C'; SET row_security = off; SET statement_timeout = 0";

/// Counts the rows of every table that is `wanted` and whose rows are in a dump, and with `fingerprints` sums their hashes, too. `progress` is told
/// tables done and in all.
///
/// # Errors
/// A query fails, or `progress` says to stop.
pub async fn count_rows(
    c: &mut PgConnection,
    tables: &mut [TableRecord],
    fingerprints: bool,
    wanted: impl Fn(&TableRecord) -> bool,
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let all = tables.len();
    pin(c).await?;
    for (i, table) in tables.iter_mut().enumerate() {
        progress(i, all)?;
        if table.countable() && wanted(table) {
            let (rows, sum) = measure(c, table, fingerprints).await?;
            (table.rows, table.fingerprint) = (Some(rows), sum);
        }
    }
    progress(all, all)
}

/// Prepares a connection for [`measure`].
///
/// # Errors
/// A setting is refused.
pub async fn pin(c: &mut PgConnection) -> Result<()> {
    run(c, PINNED).await
}

/// SQL that hashes a row of alias `t` by its text. Written `t.*`: a table may have a column of that name.
pub const ROW_TEXT_HASH: &str = "pg_catalog.hashtextextended((t.*)::text COLLATE \"C\", 0)";

/// Rows of one table, children not included, and the sum of their hashes where that is wanted. A sum, never XOR: equal rows
/// would cancel each other. Over the text form: enums and references hash by numbers that a dump does not keep.
///
/// # Errors
/// The query fails.
pub async fn measure(c: &mut PgConnection, table: &TableRecord, fingerprint: bool) -> Result<(u64, Option<String>)> {
    let sum = match fingerprint {
        true => format!("coalesce(sum({ROW_TEXT_HASH}::numeric), 0)::text"),
        false => "NULL::text".to_string(),
    };
    let sql = format!("SELECT count(*), {sum} FROM ONLY {} AS t", table.sql());
    let (rows, sum): (i64, Option<String>) =
        sqlx::query_as(&sql).fetch_one(c).await.map_err(|e| query_error(&sql, &e))?;
    Ok((u64::try_from(rows).map_err(|e| Error::state("a count below zero").why(e))?, sum))
}
