//! Columns that only the shadow has: their values would be left behind without a word.

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

/// Of the columns that only the shadow has, how many of the rows to be brought back have a value there; of all rows when the
/// live database is only looked at.
///
/// # Errors
/// A query fails.
pub async fn count_values(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    s: &mut Staged,
    audit: bool,
) -> Result<()> {
    let computed = super::catalog::generated(shadow, &s.shadow.sql).await?;
    let gone: Vec<String> = s.gone.iter().filter(|c| !computed.contains(c)).cloned().collect();
    if gone.is_empty() || (!audit && s.part.lost + s.part.damaged == 0) {
        return Ok(());
    }
    let each: Vec<String> = gone.iter().map(|c| format!("count(t.{})", quote_ident(c))).collect();
    let sql = format!("SELECT ARRAY[{}]::int8[] FROM ONLY {} t", each.join(", "), s.shadow.sql);
    let all: Vec<i64> = sqlx::query_scalar(&sql).fetch_one(&mut *shadow).await.map_err(|e| query_error(&sql, &e))?;
    let mut counts: Vec<u64> = all.into_iter().map(|n| u64::try_from(n).unwrap_or(0)).collect();
    // Without a key it is not known which rows of the shadow they are: all count.
    if !audit && !s.shadow.key.is_empty() && counts.iter().any(|n| *n > 0) {
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
    s.part.lost_columns = gone.into_iter().zip(counts).filter(|(_, n)| *n > 0).collect();
    Ok(())
}

/// Refuses to bring rows back without values that they had.
///
/// # Errors
/// Refused.
pub fn refuse(tables: &[Staged]) -> Result<()> {
    let Some(s) = tables.iter().find(|s| !s.part.lost_columns.is_empty()) else { return Ok(()) };
    let each: Vec<String> = s.part.lost_columns.iter().map(|(c, n)| format!("{c} ({n} rows)")).collect();
    let first = s.part.lost_columns.first().map_or("", |(c, _)| c.as_str());
    let new = if s.new.is_empty() { "none".into() } else { s.new.join(", ") };
    Err(Error::refused(format!(
        "rows of {} would come back without values that they had: {}",
        s.live.name,
        each.join(", ")
    ))
    .why(format!("the live table has no such column; columns that only it has: {new}"))
    .hint(format!("renamed since: --column {first}={}", s.new.first().map_or("NEW", String::as_str)))
    .hint(format!("not wanted any more: --without-column {first}"))
    .hint("the values stay in the recovered instance; nothing was changed"))
}
