//! What keeps two rows from standing beside each other: unique indexes and exclusion constraints, those on expressions and of
//! some rows only, too.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::Staged;
use super::rows::{self, execute, shown, texts};
use crate::error::{Context, Result};
use crate::postgres::connect::query_error;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Name of the constraint, or of the index where it belongs to none.
    pub name: String,
    /// It is an exclusion constraint.
    pub excludes: bool,
    /// Checked at the end of a transaction, perhaps: `ON CONFLICT` cannot use it.
    pub deferrable: bool,
    /// What is compared, as SQL over the columns of the table.
    expressions: Vec<String>,
    /// With which operator each, as `OPERATOR(schema.name)`.
    operators: Vec<String>,
    /// Of which rows; all without one.
    predicate: Option<String>,
    /// Nulls are equal to each other.
    nulls_equal: bool,
    /// The columns that it reads.
    columns: Vec<String>,
}

/// Those of a table.
///
/// # Errors
/// The query fails.
pub async fn rules(c: &mut PgConnection, table_sql: &str) -> Result<Vec<Rule>> {
    // Equality of an index is what its own operator class calls so; the column of newer servers about nulls is read as a document.
    let sql = "SELECT coalesce(k.conname, x.relname)::text AS name, coalesce(k.contype = 'x', false) AS excludes, \
        NOT i.indimmediate OR coalesce(k.condeferrable, false) AS deferrable, \
        ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, g::int4, false) \
              FROM generate_series(1, i.indnkeyatts) g ORDER BY g) AS expressions, \
        ARRAY(SELECT 'OPERATOR(' || pg_catalog.quote_ident(n.nspname) || '.' || o.oprname || ')' \
              FROM unnest(i.indclass::oid[]) WITH ORDINALITY u(class, place) JOIN pg_catalog.pg_opclass oc ON oc.oid = u.class \
              JOIN pg_catalog.pg_operator o ON o.oid = coalesce(k.conexclop[place::int4], (SELECT a.amopopr FROM pg_catalog.pg_amop a \
                   WHERE a.amopfamily = oc.opcfamily AND a.amoplefttype = oc.opcintype AND a.amoprighttype = oc.opcintype \
                   AND a.amopmethod = oc.opcmethod AND a.amopstrategy = 3)) \
              JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE place <= i.indnkeyatts ORDER BY place) AS operators, \
        pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS predicate, \
        coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false) AS nulls_equal, \
        ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum > 0 \
              AND (a.attnum = ANY (i.indkey::int2[]) OR EXISTS (SELECT FROM pg_catalog.pg_depend d \
                   WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum \
                   AND (d.classid, d.objid) IN (('pg_catalog.pg_class'::regclass, i.indexrelid), \
                                                ('pg_catalog.pg_constraint'::regclass, k.oid))))) AS columns \
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
        LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x') AND k.conrelid = i.indrelid \
        WHERE i.indrelid = $1::text::regclass AND (i.indisunique OR k.contype = 'x') AND i.indisready ORDER BY i.indisprimary, 1";
    let what = || format!("cannot read what is unique in {table_sql}");
    let found = sqlx::query(sql).bind(table_sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let mut out = Vec::with_capacity(found.len());
    for row in found {
        let rule = Rule {
            name: row.try_get("name").target(what)?,
            excludes: row.try_get("excludes").target(what)?,
            deferrable: row.try_get("deferrable").target(what)?,
            expressions: row.try_get("expressions").target(what)?,
            operators: row.try_get("operators").target(what)?,
            predicate: row.try_get("predicate").target(what)?,
            nulls_equal: row.try_get("nulls_equal").target(what)?,
            columns: row.try_get("columns").target(what)?,
        };
        if rule.expressions.len() == rule.operators.len() && !rule.expressions.is_empty() {
            out.push(rule);
        }
    }
    Ok(out)
}

impl Rule {
    /// Whether it can be asked of rows that have these columns only.
    pub fn fits(&self, columns: &[String]) -> bool {
        self.columns.iter().all(|c| columns.contains(c))
    }

    /// Whether it holds the same rows apart, whatever it is called.
    pub fn same(&self, other: &Self) -> bool {
        let of =
            |r: &Self| (r.excludes, r.expressions.clone(), r.operators.clone(), r.predicate.clone(), r.nulls_equal);
        of(self) == of(other)
    }

    /// What of these rows it compares, with where each is and its `names`.
    fn side(&self, from: &str, names: &str) -> String {
        let each: Vec<String> =
            self.expressions.iter().enumerate().map(|(n, e)| format!("({e}) AS breakglass_e{n}")).collect();
        let of = self.predicate.as_ref().map_or_else(|| "true".to_string(), |p| format!("({p})"));
        format!("(SELECT t.ctid AS place, {names} AS k, {} FROM {from} t WHERE {of})", each.join(", "))
    }

    /// `a` and `b` cannot stand beside each other.
    fn clash(&self) -> String {
        let each = self.operators.iter().enumerate().map(|(n, op)| {
            let (a, b) = (format!("a.breakglass_e{n}"), format!("b.breakglass_e{n}"));
            match self.nulls_equal {
                true => format!("({a} {op} {b} OR ({a} IS NULL AND {b} IS NULL))"),
                false => format!("{a} {op} {b}"),
            }
        });
        each.collect::<Vec<_>>().join(" AND ")
    }
}

/// How many rows that are in the way are named.
const NAMED: usize = 3;

/// Takes out of the staged rows those that a row of the live table keeps out, and says so; how many. Of those that keep each
/// other out by a rule that came since, one stays.
///
/// # Errors
/// A query fails.
pub(super) async fn take_out(live: &mut PgConnection, s: &mut Staged) -> Result<u64> {
    let mut all = 0;
    let rules: Vec<Rule> = s.rules.iter().filter(|r| r.fits(&s.columns)).cloned().collect();
    for rule in &rules {
        let what = rule.expressions.join(", ");
        let staged = rule.side(&s.lost_stage, &texts("t", s.naming()));
        let standing = rule.side(&format!("ONLY {}", s.live.sql), &texts("t", &s.live.key));
        let mut why = format!("a newer row has their {what}");
        if rule.excludes {
            let in_the_way = match s.live.key.is_empty() {
                true => rows::Shown::default(),
                false => {
                    let sql = format!("SELECT DISTINCT b.k FROM {staged} a JOIN {standing} b ON {}", rule.clash());
                    shown(live, &sql).await?
                }
            };
            let words = |k: &Vec<Option<String>>| k.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
            let mut names: Vec<String> = in_the_way.keys.iter().take(NAMED).map(words).collect();
            if in_the_way.rows > NAMED as u64 {
                names.push("…".into());
            }
            let names = if names.is_empty() { String::new() } else { format!("; in the way: {}", names.join("; ")) };
            why = format!("a newer row is in the way of their {what} ({}{names})", rule.name);
        }
        let delete = |other: &str, more: &str| {
            format!(
                "DELETE FROM {} t WHERE t.ctid IN (SELECT a.place FROM {staged} a JOIN {other} b ON {}{more}) RETURNING {} AS k",
                s.lost_stage,
                rule.clash(),
                texts("t", s.naming())
            )
        };
        let (newer, twice) = (delete(&standing, ""), delete(&staged, " AND a.place > b.place"));
        let out = shown(live, &newer).await?;
        all += out.rows;
        s.part.newer_kept += out.rows;
        s.leave(why, out, true);
        if !s.old_rules.iter().any(|old| old.same(rule)) {
            let out = shown(live, &twice).await?;
            all += out.rows;
            s.leave(format!("another returning row has their {what}"), out, true);
        }
    }
    Ok(all)
}

/// Keeps others from writing where a constraint is checked late, and takes out what they wrote since: such a table takes no
/// `ON CONFLICT`. How many went; none where it is not so.
///
/// # Errors
/// A query fails, or somebody writes there for longer than was to be waited.
pub(super) async fn hold(live: &mut PgConnection, s: &mut Staged) -> Result<Option<u64>> {
    if s.part.recreated || !s.rules.iter().any(|r| r.deferrable) {
        return Ok(None);
    }
    execute(live, &format!("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE", s.live.sql)).await?;
    take_out(live, s).await.map(Some)
}
