//! Columns that only the shadow has: their values would be left behind without a word.

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use super::rows::{self, keys, rows_by};
use super::{Options, Staged};
use crate::error::{Error, Result};
use crate::postgres::connect::{query_error, quote_ident, run};
use crate::recovery::tables::Table;

/// Which columns travel: those of the live table with the shadow's name of each, and those that only one side has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Live, in order.
    pub live: Vec<String>,
    /// In the shadow, in the same order.
    pub shadow: Vec<String>,
    /// Live only.
    pub new: Vec<String>,
    /// Shadow only, and not left out on purpose.
    pub gone: Vec<String>,
    /// Shadow only, left out on purpose.
    pub left_out: Vec<String>,
}

impl Columns {
    /// Pairs them by name, and as the person said.
    pub fn pair(live: &Table, shadow: &Table, options: &Options) -> Self {
        let names = |t: &Table| t.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        let (ours, theirs) = (names(live), names(shadow));
        let mut out = Self::default();
        for c in &ours {
            let renamed = || {
                let old = options.columns.iter().find(|(_, new)| new == c).map(|(old, _)| old)?;
                (theirs.contains(old) && !ours.contains(old)).then_some(old)
            };
            match if theirs.contains(c) { Some(c) } else { renamed() } {
                Some(old) => {
                    out.live.push(c.clone());
                    out.shadow.push(old.clone());
                }
                None => out.new.push(c.clone()),
            }
        }
        let rest = theirs.into_iter().filter(|c| !out.shadow.contains(c));
        (out.left_out, out.gone) = rest.partition(|c| options.without_columns.contains(c));
        out
    }
}

/// How many rows have values in the columns that only the shadow has: all rows there, and those that are to be brought back.
///
/// # Errors
/// A query fails.
pub async fn count_values(live: &mut PgConnection, shadow: &mut PgConnection, s: &mut Staged) -> Result<()> {
    let computed = super::catalog::generated(shadow, &s.shadow.sql).await?;
    let gone: Vec<String> = s.gone.iter().filter(|c| !computed.contains(c)).cloned().collect();
    if gone.is_empty() {
        return Ok(());
    }
    let each: Vec<String> = gone.iter().map(|c| format!("count(t.{})", quote_ident(c))).collect();
    let sql = format!("SELECT ARRAY[{}]::int8[] FROM ONLY {} t", each.join(", "), s.shadow.sql);
    let all: Vec<i64> = sqlx::query_scalar(&sql).fetch_one(&mut *shadow).await.map_err(|e| query_error(&sql, &e))?;
    let all: Vec<u64> = all.into_iter().map(|n| u64::try_from(n).unwrap_or(0)).collect();
    let with =
        |counts: Vec<u64>| -> Vec<(String, u64)> { gone.iter().cloned().zip(counts).filter(|(_, n)| *n > 0).collect() };
    s.part.lost_columns = with(all.clone());
    let missing: Vec<String> = s.part.lost_columns.iter().map(|(c, _)| c.clone()).collect();
    s.part.again = again(live, shadow, s, &missing).await?;
    if s.part.lost + s.part.damaged == 0 || missing.is_empty() {
        return Ok(());
    }
    // Without a key it is not known which rows of the shadow they are: all count.
    let mut counts = all;
    if !s.shadow.key.is_empty() {
        counts = vec![0; gone.len()];
        let key = rows::texts("s", &s.shadow.key);
        let staged = format!("SELECT {key} FROM {} s UNION ALL SELECT {key} FROM {} s", s.lost_stage, s.old_stage);
        run(live, &format!("DECLARE breakglass_staged NO SCROLL CURSOR FOR {staged}")).await?;
        loop {
            let batch = keys(live, &format!("FETCH {} FROM breakglass_staged", rows::BATCH)).await?;
            if batch.is_empty() {
                break;
            }
            for row in rows_by(shadow, &s.shadow, &s.shadow.key, &batch, &gone).await? {
                counts.iter_mut().zip(row).for_each(|(n, value)| *n += u64::from(value.is_some()));
            }
        }
        run(live, "CLOSE breakglass_staged").await?;
    }
    s.without = with(counts);
    Ok(())
}

/// A column of the shadow: name, type, collation when it is not the type's own, default, whether null is not allowed, and the type it
/// is made of: its name, its kind, and the values of an enum as SQL writes them.
type Column = (String, String, Option<String>, Option<String>, bool, String, String, Option<String>);

/// The statements that make columns again as the shadow has them, with the types they need; of other kinds of types their names.
async fn again(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    s: &Staged,
    columns: &[String],
) -> Result<Vec<Again>> {
    let sql = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), CASE WHEN a.attcollation <> t.typcollation THEN \
        (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname) FROM pg_catalog.pg_collation c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation) END, \
        pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attnotnull, pg_catalog.format_type(b.oid, NULL), b.typtype::text, \
        (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) \
         FROM pg_catalog.pg_enum e WHERE e.enumtypid = b.oid) \
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
        JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem ELSE t.oid END \
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
        WHERE a.attrelid = $1::text::regclass AND a.attname = ANY ($2) ORDER BY a.attnum";
    let found: Vec<Column> = sqlx::query_as(sql)
        .bind(&s.shadow.sql)
        .bind(columns)
        .fetch_all(&mut *shadow)
        .await
        .map_err(|e| query_error(sql, &e))?;
    let mut out: Vec<Again> = Vec::new();
    for (column, ty, collation, default, not_null, base, kind, labels) in found {
        let there = "SELECT pg_catalog.to_regtype($1) IS NOT NULL";
        let stands: bool =
            sqlx::query_scalar(there).bind(&base).fetch_one(&mut *live).await.map_err(|e| query_error(there, &e))?;
        let known = out.iter().any(|a| a.ty.as_ref() == Some(&base) || a.needs.as_ref() == Some(&base));
        let (mut make, mut needs) = (String::new(), None);
        match (stands || known, kind.as_str()) {
            (true, _) => {}
            (false, "e") => make = format!("CREATE TYPE {base} AS ENUM ({});", labels.unwrap_or_default()),
            (false, _) => needs = Some(base.clone()),
        }
        let collation = collation.map(|c| format!(" COLLATE {c}")).unwrap_or_default();
        let (table, name) = (&s.top, quote_ident(&column));
        let mut then = Vec::new();
        // A sequence may have gone with the column.
        if let Some(d) = default.filter(|d| !d.contains("nextval(")) {
            then.push(format!("ALTER COLUMN {name} SET DEFAULT {d}"));
        }
        if not_null {
            then.push(format!("ALTER COLUMN {name} SET NOT NULL"));
        }
        out.push(Again {
            column,
            ty: (!make.is_empty()).then_some(base),
            make_type: make,
            needs,
            add: format!("ALTER TABLE {table} ADD COLUMN {name} {ty}{collation};"),
            afterwards: if then.is_empty() {
                String::new()
            } else {
                format!("ALTER TABLE {table} {};", then.join(", "))
            },
        });
    }
    Ok(out)
}

/// How a column that is gone is made again, empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// The column.
    pub column: String,
    /// The type that is made with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ty: Option<String>,
    /// The statement that makes its type; empty when that stands.
    pub make_type: String,
    /// A type that is gone and no enum: it has to be made again by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// The statement that makes it.
    pub add: String,
    /// The statement for when its values are back: its default, and that it takes no null. May be empty.
    pub afterwards: String,
}

/// Refuses to bring rows back without values that they had.
///
/// # Errors
/// Refused.
pub fn refuse(tables: &[Staged]) -> Result<()> {
    let Some(s) = tables.iter().find(|s| !s.without.is_empty()) else { return Ok(()) };
    let each: Vec<String> = s.without.iter().map(|(c, n)| format!("{c} ({n} rows)")).collect();
    let first = s.without.first().map_or("", |(c, _)| c.as_str());
    let new = if s.new.is_empty() { "none".into() } else { s.new.join(", ") };
    let e = Error::refused(format!(
        "rows of {} would come back without values that they had: {}",
        s.live.name,
        each.join(", ")
    ))
    .why(format!("the live table has no such column; columns that only it has: {new}"))
    .hint(format!("renamed since: --column {first}={}", s.new.first().map_or("NEW", String::as_str)))
    .hint(format!("not wanted any more: --without-column {first}"));
    let add = s.part.again.iter().filter(|a| s.without.iter().any(|(c, _)| *c == a.column));
    let add: Vec<String> = add.map(Again::statements).collect();
    Err(e
        .hint(format!("dropped by the damage: {} then the same again", add.join(" ")))
        .hint("the values stay in the recovered instance; nothing was changed"))
}

impl Again {
    /// What makes it, with its type.
    pub fn statements(&self) -> String {
        match &self.needs {
            Some(ty) => format!("make type {ty} again as it was, then {}", self.add),
            None if self.make_type.is_empty() => self.add.clone(),
            None => format!("{} {}", self.make_type, self.add),
        }
    }
}
