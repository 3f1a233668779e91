//! Values of enums that bear another name now. A recovered instance is a copy of the files, so a value has one number in both:
//! while rows are staged, and inside the transaction alone, it bears the name that it has there.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgConnection;

use crate::error::{Error, Result};
use crate::postgres::connect::{query_error, quote_literal, run};

/// A value of an enum.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    /// Number of the value.
    oid: i64,
    /// Number of the type.
    of: i64,
    /// The type, quoted.
    ty: String,
    name: String,
}

/// A value, its name now and in the recovered instance. None there: a newer value that has the name another one had.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Renamed {
    of: i64,
    ty: String,
    now: String,
    then: Option<String>,
    /// What it is called in between.
    between: String,
}

/// The values that were renamed since.
#[derive(Debug, Clone, Default)]
pub struct Names {
    all: Vec<Renamed>,
    /// Types whose values bear the names that they have in the recovered instance, while rows are staged.
    types: BTreeSet<i64>,
    /// Types whose values could not be renamed, with the server's reason.
    refused: BTreeMap<i64, String>,
}

/// The types of a table's columns, with what they are made of.
///
/// # Errors
/// The query fails.
pub async fn types_of(c: &mut PgConnection, table: u32) -> Result<Vec<i64>> {
    let sql = "WITH RECURSIVE used AS (SELECT atttypid AS oid FROM pg_catalog.pg_attribute \
               WHERE attrelid = $1::int8::oid AND attnum > 0 AND NOT attisdropped \
               UNION SELECT x.oid FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.oid, LATERAL ( \
                   SELECT t.typelem AS oid UNION ALL SELECT t.typbasetype \
                   UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid \
                   UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                             WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0) x WHERE x.oid <> 0) \
               SELECT oid::int8 FROM used";
    sqlx::query_scalar(sql).bind(i64::from(table)).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))
}

async fn labels(c: &mut PgConnection) -> Result<Vec<Label>> {
    let sql = "SELECT e.oid::int8, t.oid::int8, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname), \
               e.enumlabel::text FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid \
               JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace ORDER BY 2, e.enumsortorder";
    let rows: Vec<(i64, i64, String, String)> =
        sqlx::query_as(sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    Ok(rows.into_iter().map(|(oid, of, ty, name)| Label { oid, of, ty, name }).collect())
}

impl Names {
    /// Which were renamed.
    ///
    /// # Errors
    /// A query fails.
    pub async fn find(live: &mut PgConnection, shadow: &mut PgConnection) -> Result<Self> {
        let (here, there) = (labels(live).await?, labels(shadow).await?);
        let then = |l: &Label| there.iter().find(|t| (t.oid, t.of) == (l.oid, l.of)).map(|t| t.name.clone());
        let mut all = Vec::new();
        for l in &here {
            let was = then(l);
            let taken = || here.iter().any(|o| o.of == l.of && then(o).as_ref() == Some(&l.name));
            if was.as_ref().map_or_else(taken, |was| *was != l.name) {
                let between = format!("breakglass {}", l.oid);
                all.push(Renamed { of: l.of, ty: l.ty.clone(), now: l.name.clone(), then: was, between });
            }
        }
        Ok(Self { all, ..Self::default() })
    }

    /// Gives the values of these types the names that they have in the recovered instance. Where that is not allowed they keep
    /// theirs, and [`Names::explain`] says so once a value does not fit.
    ///
    /// # Errors
    /// The connection fails.
    pub async fn use_for(&mut self, live: &mut PgConnection, types: &[i64]) -> Result<()> {
        for of in types.iter().filter(|t| self.all.iter().any(|r| r.of == **t)) {
            if self.types.contains(of) || self.refused.contains_key(of) {
                continue;
            }
            run(live, "SAVEPOINT labels").await?;
            let result = rename(live, &self.all, &[*of].into(), |r| r.now.clone(), then).await;
            match result {
                Ok(()) => {
                    self.types.insert(*of);
                }
                Err(e) => {
                    run(live, "ROLLBACK TO SAVEPOINT labels").await?;
                    self.refused.insert(*of, e.why);
                }
            }
            run(live, "RELEASE SAVEPOINT labels").await?;
        }
        Ok(())
    }

    /// Gives the names of the recovered instance to those that had them while rows were staged.
    ///
    /// # Errors
    /// A statement fails.
    pub async fn as_then(&self, live: &mut PgConnection) -> Result<()> {
        rename(live, &self.all, &self.types, |r| r.now.clone(), then).await
    }

    /// Gives them the names back that they have now.
    ///
    /// # Errors
    /// A statement fails.
    pub async fn as_now(&self, live: &mut PgConnection) -> Result<()> {
        rename(live, &self.all, &self.types, then, |r| r.now.clone()).await
    }

    /// What a value that a type does not take is about, and the statement that helps; none when it is about something else.
    pub fn explain(&self, table: &str, why: &str) -> Option<Error> {
        let (_, rest) = why.split_once("invalid input value for enum ")?;
        let (ty, rest) = rest.split_once(": \"")?;
        let (label, _) = rest.rsplit_once('"')?;
        let e =
            Error::refused(format!("rows of {table} have a value that its type does not know any more: \"{label}\""));
        let renamed = self.all.iter().find(|r| r.then.as_deref() == Some(label));
        Some(match (renamed, renamed.and_then(|r| self.refused.get(&r.of))) {
            (Some(r), Some(no)) => e
                .why(format!("value {label:?} of type {} is called {:?} now; {no}", r.ty, r.now))
                .hint(format!(
                    "as the owner of the type: ALTER TYPE {} RENAME VALUE {} TO {}; then the same again, then the other way round",
                    r.ty,
                    quote_literal(&r.now),
                    quote_literal(label)
                )),
            _ => e
                .why(format!("type {ty} is another one than in the recovered instance, or a value of it was removed"))
                .hint(format!("ALTER TYPE {ty} ADD VALUE {}; then the same again", quote_literal(label)))
                .hint("or leave those rows out: --where 'CONDITION'"),
        })
    }
}

fn then(r: &Renamed) -> String {
    r.then.clone().unwrap_or_else(|| r.between.clone())
}

/// By a name in between: two values may have changed theirs for each other's.
async fn rename(
    live: &mut PgConnection,
    all: &[Renamed],
    types: &BTreeSet<i64>,
    from: impl Fn(&Renamed) -> String,
    to: impl Fn(&Renamed) -> String,
) -> Result<()> {
    let one = |ty: &str, old: &str, new: &str| {
        format!("ALTER TYPE {ty} RENAME VALUE {} TO {}", quote_literal(old), quote_literal(new))
    };
    for r in all.iter().filter(|r| types.contains(&r.of) && from(r) != r.between) {
        run(live, &one(&r.ty, &from(r), &r.between)).await?;
    }
    for r in all.iter().filter(|r| types.contains(&r.of) && to(r) != r.between) {
        run(live, &one(&r.ty, &r.between, &to(r))).await?;
    }
    Ok(())
}
