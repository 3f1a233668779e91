//! What a database consists of besides rows, as names with definitions.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgConnection;

use super::{Difference, Readable};
use crate::error::Result;
use crate::postgres::connect::{describe, query_error, sqlstate};
use crate::postgres::table_needs::some_of;
use crate::recovery::verify::sequences::FEEDS;

/// Categories and the query that lists each: name and definition, and of what belongs to tables ([`OF_TABLES`]) their names as
/// `tables`. Schemas of users only, nothing that an extension brought. `TABLES_OF_SEQUENCE` stands for the names of the tables that the
/// sequence `c` feeds.
pub const CATEGORIES: &[(&str, &str)] = &[
    ("extensions", "SELECT extname::text, 'version ' || extversion FROM pg_extension"),
    (
        "schemas",
        "SELECT nspname::text, 'owner ' || pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' \
         AND nspname <> 'information_schema'",
    ),
    (
        "types",
        "SELECT n.nspname || '.' || t.typname, \
         CASE t.typtype WHEN 'e' THEN (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid) \
         WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod) || coalesce(' default ' || t.typdefault, '') || CASE WHEN t.typnotnull THEN ' not null' ELSE '' END \
           || coalesce((SELECT string_agg(' ' || pg_get_constraintdef(oid), '' ORDER BY conname) FROM pg_constraint WHERE contypid = t.oid), '') \
         WHEN 'c' THEN (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) \
         ELSE t.typtype::text END \
         FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
         WHERE t.typtype IN ('e', 'd', 'c', 'r') AND (t.typrelid = 0 OR (SELECT relkind FROM pg_class WHERE oid = t.typrelid) = 'c') \
         AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')",
    ),
    (
        "relations",
        "SELECT n.nspname || '.' || c.relname, concat_ws(' ', c.relkind, c.relpersistence, pg_get_partkeydef(c.oid), \
         pg_get_expr(c.relpartbound, c.oid), CASE WHEN c.relrowsecurity THEN 'row security' END, \
         CASE WHEN c.relforcerowsecurity THEN 'forced' END, c.reloptions::text), ARRAY[n.nspname || '.' || c.relname] AS tables \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') \
         AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')",
    ),
    (
        "columns",
        "SELECT n.nspname || '.' || c.relname || '.' || a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), \
         CASE WHEN a.attnotnull THEN 'not null' END, 'default ' || pg_get_expr(f.adbin, f.adrelid), \
         'identity ' || nullif(a.attidentity::text, ''), 'generated ' || nullif(a.attgenerated::text, ''), \
         'collate ' || (SELECT l.collname FROM pg_collation l WHERE l.oid = a.attcollation AND l.collname <> 'default')), ARRAY[n.nspname || '.' || c.relname] AS tables \
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped \
         AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')",
    ),
    (
        "constraints",
        "SELECT n.nspname || '.' || c.relname || '.' || k.conname, pg_get_constraintdef(k.oid) || CASE WHEN k.convalidated THEN '' ELSE ' (not validated)' END, \
         ARRAY[n.nspname || '.' || c.relname] AS tables \
         FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype <> 'n' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'",
    ),
    (
        "indexes",
        "SELECT n.nspname || '.' || c.relname, pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' (invalid)' END \
         || CASE WHEN i.indisprimary THEN ' (primary)' ELSE '' END || CASE WHEN i.indisclustered THEN ' (clustered)' ELSE '' END \
         || CASE WHEN i.indisreplident THEN ' (replica identity)' ELSE '' END, \
         ARRAY(SELECT tn.nspname || '.' || t.relname FROM pg_class t JOIN pg_namespace tn ON tn.oid = t.relnamespace WHERE t.oid = i.indrelid) AS tables \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'",
    ),
    (
        "sequences",
        "SELECT n.nspname || '.' || c.relname, concat_ws(' ', format_type(s.seqtypid, NULL), 'by', s.seqincrement, 'from', s.seqmin, 'to', s.seqmax, \
         CASE WHEN s.seqcycle THEN 'cycle' END, 'stands at ' || pg_sequence_last_value(c.oid)), TABLES_OF_SEQUENCE AS tables \
         FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'",
    ),
    (
        "views",
        "SELECT n.nspname || '.' || c.relname, pg_get_viewdef(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('v', 'm') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')",
    ),
    (
        "functions",
        "SELECT n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', \
         CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) ELSE p.prokind::text END \
         FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
         WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')",
    ),
    (
        "triggers",
        "SELECT n.nspname || '.' || c.relname || '.' || t.tgname, pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text, ARRAY[n.nspname || '.' || c.relname] AS tables \
         FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE NOT t.tgisinternal AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'",
    ),
    (
        "policies",
        "SELECT schemaname || '.' || tablename || '.' || policyname, concat_ws(' ', permissive, roles::text, cmd, qual, with_check), \
         ARRAY[schemaname || '.' || tablename] AS tables FROM pg_policies",
    ),
    (
        "roles",
        "SELECT rolname::text, concat_ws(' ', CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolinherit THEN 'inherit' END, \
         CASE WHEN rolcreaterole THEN 'createrole' END, CASE WHEN rolcreatedb THEN 'createdb' END, CASE WHEN rolcanlogin THEN 'login' END, \
         CASE WHEN rolreplication THEN 'replication' END, CASE WHEN rolbypassrls THEN 'bypassrls' END, 'limit ' || rolconnlimit, \
         'until ' || rolvaliduntil, 'settings ' || rolconfig::text, 'member of ' || (SELECT string_agg(DISTINCT g.rolname \
         || CASE WHEN m.admin_option THEN '*' ELSE '' END, ', ') FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)) \
         FROM pg_roles r WHERE rolname NOT LIKE 'pg\\_%'",
    ),
    (
        "settings",
        "SELECT coalesce(r.rolname, '(all)')::text, s.setconfig::text FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole \
         WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
    ),
    (
        "privileges",
        // No list of privileges means the built-in ones: written out, so that both spellings are equal.
        "SELECT o.what, 'owner ' || pg_get_userbyid(o.owner) || coalesce((SELECT string_agg(' ' || coalesce(nullif(g.rolname, ''), 'public') || '=' || x.p, '' ORDER BY g.rolname, x.p) \
         FROM (SELECT a.grantee, string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ',' ORDER BY a.privilege_type) AS p \
               FROM aclexplode(o.acl) a GROUP BY a.grantee) x LEFT JOIN pg_roles g ON g.oid = x.grantee), ''), o.tables \
         FROM ( \
         SELECT n.nspname || '.' || c.relname AS what, c.relowner AS owner, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner)) AS acl, \
           CASE c.relkind WHEN 'S' THEN TABLES_OF_SEQUENCE ELSE ARRAY[n.nspname || '.' || c.relname] END AS tables \
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         UNION ALL SELECT n.nspname || '.' || c.relname || '.' || a.attname, c.relowner, a.attacl, ARRAY[n.nspname || '.' || c.relname] FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
           JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.attacl IS NOT NULL AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         UNION ALL SELECT 'schema ' || nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner)), NULL FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' \
         UNION ALL SELECT n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)), NULL \
           FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         UNION ALL SELECT 'type ' || n.nspname || '.' || t.typname, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner)), NULL FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
           WHERE t.typtype IN ('e', 'd', 'r') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         UNION ALL SELECT 'the database', datdba, coalesce(datacl, acldefault('d', datdba)), NULL FROM pg_database WHERE datname = current_database() \
         UNION ALL SELECT 'default ' || d.defaclobjtype::text || coalesce(' in ' || n.nspname, '') || ' of ' || pg_get_userbyid(d.defaclrole), d.defaclrole, d.defaclacl, NULL \
           FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace \
         ) o",
    ),
];

/// Categories of what belongs to tables.
pub const OF_TABLES: [&str; 8] =
    ["relations", "columns", "constraints", "indexes", "sequences", "triggers", "policies", "privileges"];

/// Names and definitions of one category; with `only` of what belongs to one of these tables (`schema.table`).
///
/// # Errors
/// The connection fails; that the server does not answer the query, as while a table is locked, is said inside.
pub async fn list(
    c: &mut PgConnection,
    sql: &str,
    only: Option<&[String]>,
) -> Result<Readable<BTreeMap<String, String>>> {
    let fed = format!(
        "ARRAY(SELECT tn.nspname || '.' || t.relname FROM ({FEEDS}) u JOIN pg_class t ON t.oid = u.tab \
         JOIN pg_namespace tn ON tn.oid = t.relnamespace WHERE u.seq = c.oid)"
    );
    let sql = sql.replace("TABLES_OF_SEQUENCE", &fed);
    let of = only.map_or("", |_| " WHERE q.tables && $1::text[]");
    let cast = format!("SELECT name::text, coalesce(def, '')::text FROM ({sql}) q(name, def){of}");
    let mut query = sqlx::query_as(&cast);
    if let Some(tables) = only {
        query = query.bind(tables);
    }
    let rows: Vec<(String, String)> = match query.fetch_all(c).await {
        Ok(rows) => rows,
        Err(e) if sqlstate(&e).is_some() => return Ok(Err(describe(&e))),
        Err(e) => return Err(query_error(&sql, &e)),
    };
    Ok(Ok(rows.into_iter().collect()))
}

/// Relations of somebody's whose rows are not compared, by what they are; the others are `user_tables`.
const WITHOUT_ROWS: &str = "SELECT q.what, q.name FROM (SELECT CASE \
      WHEN EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid \
        AND d.deptype = 'e') THEN 'tables of extensions' \
      WHEN c.relkind = 'm' THEN 'materialized views' WHEN c.relkind = 'f' THEN 'foreign tables' \
      WHEN c.relpersistence = 'u' THEN 'unlogged tables' END::text AS what, (n.nspname || '.' || c.relname)::text AS name \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'm', 'f') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' \
      AND n.nspname NOT LIKE 'pg\\_%' \
    UNION ALL SELECT 'large objects', count(*)::text FROM pg_catalog.pg_largeobject_metadata HAVING count(*) > 0) q \
    WHERE q.what IS NOT NULL";

/// What either side has besides the tables that are compared row by row, for people.
///
/// # Errors
/// The query fails.
pub async fn without_rows(source: &mut PgConnection, shadow: &mut PgConnection) -> Result<Vec<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for c in [source, shadow] {
        let rows: Vec<(String, String)> =
            sqlx::query_as(WITHOUT_ROWS).fetch_all(c).await.map_err(|e| query_error(WITHOUT_ROWS, &e))?;
        rows.into_iter().for_each(|(what, name)| {
            all.entry(what).or_default().insert(name);
        });
    }
    let shown = |(what, names): (String, BTreeSet<String>)| {
        format!("{what} ({})", some_of(&names.into_iter().collect::<Vec<_>>()))
    };
    Ok(all.into_iter().map(shown).collect())
}

/// What is not the same.
pub fn differences(
    category: &str,
    source: &BTreeMap<String, String>,
    shadow: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let names: BTreeSet<&String> = source.keys().chain(shadow.keys()).collect();
    let differs = names.into_iter().filter(|n| source.get(*n) != shadow.get(*n));
    differs
        .map(|n| Difference {
            category: category.to_string(),
            name: n.clone(),
            source: source.get(n).cloned(),
            shadow: shadow.get(n).cloned(),
        })
        .collect()
}
