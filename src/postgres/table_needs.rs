//! What chosen tables need besides themselves and `pg_dump --table` leaves out: types, functions, collations, extensions, sequences
//! that belong to no chosen table, and relations that they are made from.
//!
//! PostgreSQL records it in `pg_depend`. What stands in the body of a function as text is not recorded, and not found here: such
//! functions are named ([`Need::body`]). Of a body that PostgreSQL keeps parsed (`BEGIN ATOMIC`) it is recorded.

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use super::connect::query_error;
use crate::error::{Context, Result};

/// One thing that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Oid of the catalog it is in.
    pub class: u32,
    /// Its oid there.
    pub oid: u32,
    /// What it is, as PostgreSQL describes it, such as `type shop.mood`.
    pub what: String,
    /// Its schema, when it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// `pg_class.relkind`, of a relation: those are dumped by being chosen, and not with the definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A function or procedure whose body is text: what it calls is not followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub body: bool,
}

impl Need {
    /// Whether it is a sequence, which can be dumped with the tables.
    pub fn is_sequence(&self) -> bool {
        self.kind.as_deref() == Some("S")
    }
    /// Whether it is another table or view.
    pub fn is_relation(&self) -> bool {
        self.kind.is_some() && !self.is_sequence()
    }
}

/// Follows what is recorded from the chosen tables and what is part of them (defaults, constraints but foreign keys, triggers, rules,
/// policies, indexes, statistics). Objects of `initdb` (below 16384, `FirstNormalObjectId`) are everywhere. A member of an extension
/// stands for its extension; another relation is not followed.
const SQL: &str = "
WITH RECURSIVE need(class, oid) AS (
  SELECT 'pg_class'::regclass::oid, o::oid FROM unnest($1::int8[]) o
  UNION
  SELECT x.class, x.oid FROM need n CROSS JOIN LATERAL (
    SELECT d.refclassid AS class, d.refobjid AS oid FROM pg_depend d
    WHERE d.classid = n.class AND d.objid = n.oid AND d.refobjid >= 16384 AND d.deptype IN ('n', 'a', 'i', 'e')
      AND (d.deptype = 'e' OR NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = n.class AND e.objid = n.oid AND e.deptype = 'e'))
    UNION ALL
    SELECT d.classid, d.objid FROM pg_depend d
    WHERE d.refclassid = n.class AND d.refobjid = n.oid AND d.deptype IN ('a', 'i')
      AND (d.classid IN ('pg_attrdef'::regclass, 'pg_trigger'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass,
                         'pg_statistic_ext'::regclass)
        OR d.classid = 'pg_constraint'::regclass AND EXISTS (SELECT FROM pg_constraint f WHERE f.oid = d.objid AND f.contype <> 'f')
        OR d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class i WHERE i.oid = d.objid AND i.relkind IN ('i', 'I')))
  ) x
  WHERE n.class NOT IN ('pg_namespace'::regclass, 'pg_extension'::regclass)
    AND (n.class <> 'pg_class'::regclass OR n.oid = ANY ($1::int8[])
         OR EXISTS (SELECT FROM pg_class k WHERE k.oid = n.oid AND k.relkind IN ('i', 'I', 'c')))
)
SELECT coalesce(json_agg(json_build_object('class', n.class::int8, 'oid', n.oid::int8, 'what', pg_describe_object(n.class, n.oid, 0),
  'schema', (pg_identify_object(n.class, n.oid, 0)).schema, 'kind', k.relkind, 'body', p.oid IS NOT NULL
    AND to_jsonb(p) ->> 'prosqlbody' IS NULL AND l.lanname NOT IN ('internal', 'c')) ORDER BY n.class, n.oid), '[]')::text
FROM need n
LEFT JOIN pg_class k ON n.class = 'pg_class'::regclass AND k.oid = n.oid
LEFT JOIN pg_type t ON n.class = 'pg_type'::regclass AND t.oid = n.oid
LEFT JOIN pg_proc p ON n.class = 'pg_proc'::regclass AND p.oid = n.oid AND p.prokind <> 'a'
LEFT JOIN pg_language l ON l.oid = p.prolang
WHERE n.class NOT IN ('pg_attrdef'::regclass, 'pg_constraint'::regclass, 'pg_trigger'::regclass, 'pg_rewrite'::regclass,
    'pg_policy'::regclass, 'pg_statistic_ext'::regclass, 'pg_namespace'::regclass)
  AND NOT (n.class = 'pg_class'::regclass AND (n.oid = ANY ($1::int8[]) OR k.relkind IN ('i', 'I', 'c', 't')))
  AND (t.oid IS NULL OR t.typtype <> 'm' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
    AND NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = t.typrelid AND r.relkind <> 'c'))
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = n.class AND e.objid = n.oid AND e.deptype = 'e')";

/// What tables of these oids need.
///
/// # Errors
/// The query fails.
pub async fn needs(c: &mut PgConnection, tables: &[u32]) -> Result<Vec<Need>> {
    let oids: Vec<i64> = tables.iter().map(|o| i64::from(*o)).collect();
    let text: String = sqlx::query_scalar(SQL).bind(&oids).fetch_one(c).await.map_err(|e| query_error(SQL, &e))?;
    serde_json::from_str(&text).state(|| "the server's answer cannot be understood".into())
}

/// Most names that are shown of many.
const MOST: usize = 10;

/// The first of these names, and how many more there are.
pub fn some_of<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(MOST).map(AsRef::as_ref).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What to say of functions whose bodies were not followed; none when there is none.
pub fn not_followed(needs: &[Need]) -> Option<String> {
    let all: Vec<&str> = needs.iter().filter(|n| n.body).map(|n| n.what.as_str()).collect();
    all.first()?;
    Some(format!(
        "NOTE: what stands in the body of {} is not followed: a table, type or function that is named there comes back only if \
         it was chosen, too",
        some_of(&all)
    ))
}
