//! What the catalog says about tables whose rows are brought back: foreign keys, triggers, views.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::error::{Context, Result};
use crate::postgres::connect::{query_error, quote_ident};

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// Its name.
    pub name: String,
    /// Referencing table, `schema.table`.
    pub child: String,
    /// Quoted for SQL.
    pub child_sql: String,
    /// Referencing columns.
    pub cols: Vec<String>,
    /// Referenced table, `schema.table`; may be partitioned.
    pub parent: String,
    /// Quoted for SQL.
    pub parent_sql: String,
    /// Referenced columns, in the order of `cols`.
    pub parent_cols: Vec<String>,
    /// Whether deleting a referenced row deletes the referencing ones.
    pub cascades: bool,
    /// As `pg_get_constraintdef` writes it.
    pub definition: String,
}

/// All foreign keys between user tables. Those that a partitioned referenced table repeats for its partitions are left out:
/// a row may be in any of them.
///
/// # Errors
/// The query fails.
pub async fn foreign_keys(c: &mut PgConnection) -> Result<Vec<ForeignKey>> {
    let sql = "SELECT k.conname::text AS name, cn.nspname::text AS cschema, ct.relname::text AS ctab, \
        pn.nspname::text AS pschema, pt.relname::text AS ptab, k.confdeltype::text AS del, \
        pg_catalog.pg_get_constraintdef(k.oid) AS def, \
        ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, place) \
              JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY place) AS cols, \
        ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, place) \
              JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY place) AS pcols \
        FROM pg_catalog.pg_constraint k \
        JOIN pg_catalog.pg_class ct ON ct.oid = k.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = ct.relnamespace \
        JOIN pg_catalog.pg_class pt ON pt.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = pt.relnamespace \
        WHERE k.contype = 'f' AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint above \
              WHERE above.oid = k.conparentid AND above.conrelid = k.conrelid) ORDER BY 2, 3, 1";
    let what = || "cannot read the foreign keys".to_string();
    let mut out = Vec::new();
    for row in sqlx::query(sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))? {
        let get = |column: &str| -> Result<String> { row.try_get(column).target(what) };
        let (cs, ct, ps, pt) = (get("cschema")?, get("ctab")?, get("pschema")?, get("ptab")?);
        out.push(ForeignKey {
            name: get("name")?,
            child: format!("{cs}.{ct}"),
            child_sql: format!("{}.{}", quote_ident(&cs), quote_ident(&ct)),
            cols: row.try_get("cols").target(what)?,
            parent: format!("{ps}.{pt}"),
            parent_sql: format!("{}.{}", quote_ident(&ps), quote_ident(&pt)),
            parent_cols: row.try_get("pcols").target(what)?,
            cascades: get("del")? == "c",
            definition: get("def")?,
        });
    }
    Ok(out)
}

/// Triggers of users that would fire for a new or changed row: name, and whether they fire on a replica, too.
///
/// # Errors
/// The query fails.
pub async fn triggers(c: &mut PgConnection, table_sql: &str) -> Result<Vec<(String, bool)>> {
    let sql = "SELECT tgname::text, tgenabled = 'A' FROM pg_catalog.pg_trigger \
               WHERE tgrelid = $1::text::regclass AND NOT tgisinternal AND tgenabled IN ('O', 'A') ORDER BY 1";
    sqlx::query_as(sql).bind(table_sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))
}

/// Columns the server computes itself.
///
/// # Errors
/// The query fails.
pub async fn generated(c: &mut PgConnection, table_sql: &str) -> Result<Vec<String>> {
    let sql = "SELECT attname::text FROM pg_catalog.pg_attribute \
               WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated <> ''";
    sqlx::query_scalar(sql).bind(table_sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))
}

/// The table on top of the one that a partition belongs to, quoted; of any other table itself. What a column is, is said there.
///
/// # Errors
/// The query fails.
pub async fn top(c: &mut PgConnection, table_sql: &str) -> Result<String> {
    let sql = "SELECT coalesce((SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) \
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.oid = pg_catalog.pg_partition_root($1::text::regclass)), $1::text)";
    sqlx::query_scalar(sql).bind(table_sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))
}

/// Views of the shadow that read the table, directly or through other views, and that the live database does not have.
///
/// # Errors
/// A query fails.
pub async fn lost_views(live: &mut PgConnection, shadow: &mut PgConnection, table: u32) -> Result<Vec<String>> {
    let sql = "WITH RECURSIVE up AS (SELECT $1::int8::oid AS oid \
               UNION SELECT relid::oid FROM pg_catalog.pg_partition_ancestors($1::int8::oid::regclass)), \
        read AS (SELECT oid FROM up UNION SELECT r.ev_class FROM read JOIN pg_catalog.pg_depend d \
               ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = read.oid AND d.classid = 'pg_catalog.pg_rewrite'::regclass \
               JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid) \
        SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) FROM read \
        JOIN pg_catalog.pg_class c ON c.oid = read.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('v', 'm') ORDER BY 1";
    let views: Vec<String> = sqlx::query_scalar(sql)
        .bind(i64::from(table))
        .fetch_all(&mut *shadow)
        .await
        .map_err(|e| query_error(sql, &e))?;
    let sql = "SELECT v FROM unnest($1::text[]) v WHERE pg_catalog.to_regclass(v) IS NULL ORDER BY 1";
    sqlx::query_scalar(sql).bind(views).fetch_all(&mut *live).await.map_err(|e| query_error(sql, &e))
}
