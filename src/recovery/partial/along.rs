//! What comes along: rows that the returning ones reference, and on request those that were deleted with them.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::catalog::ForeignKey;
use super::rows::{self, equal, keys, load, readable, rows_by, texts};
use super::{Plan, Staged, stage};
use crate::error::Result;
use crate::postgres::connect::quote_ident;
use crate::recovery::loss::keys_there;
use crate::recovery::tables::Table;
use crate::recovery::watch::check_cancel;

/// SQL: `row` (an alias of a staging table) references a row that is neither live nor staged.
pub(super) fn orphan(plan: &Plan, k: &ForeignKey, stages: bool) -> String {
    let set: Vec<String> = k.cols.iter().map(|c| format!("s.{} IS NOT NULL", quote_ident(c))).collect();
    let mut sql = format!(
        "{} AND NOT EXISTS (SELECT FROM {} p WHERE {})",
        set.join(" AND "),
        k.parent_sql,
        equal("p", &k.parent_cols, "s", &k.cols)
    );
    if stages {
        for p in plan.tables.iter().filter(|p| p.live.name == k.parent || p.live.family == k.parent) {
            if k.parent_cols.iter().all(|c| p.columns.contains(c)) {
                sql.push_str(&format!(
                    " AND NOT EXISTS (SELECT FROM {} p WHERE {})",
                    p.lost_stage,
                    equal("p", &k.parent_cols, "s", &k.cols)
                ));
            }
        }
    }
    sql
}

/// The foreign keys that the rows of a staged table must obey.
pub(super) fn keys_of(plan: &Plan, table: &Staged) -> Vec<ForeignKey> {
    let fits = |k: &&ForeignKey| k.child == table.live.name && k.cols.iter().all(|c| table.columns.contains(c));
    plan.keys.iter().filter(fits).cloned().collect()
}

/// Stages what the staged rows reference and what is gone, too; on request what referenced them. Until nothing is added.
pub(super) async fn close(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    plan: &mut Plan,
    here: &[Table],
    there: &[Table],
    with_children: bool,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut asked: BTreeSet<String> = BTreeSet::new();
    loop {
        check_cancel(cancel, "nothing was changed")?;
        let mut added = false;
        for at in 0..plan.tables.len() {
            for k in keys_of(plan, &plan.tables[at]) {
                let Some(parent) = there.iter().find(|t| t.name == k.parent) else { continue };
                let mut missing = BTreeSet::new();
                for stage in [&plan.tables[at].lost_stage, &plan.tables[at].old_stage] {
                    let what = texts("s", &k.cols);
                    let sql = format!("SELECT DISTINCT {what} FROM {stage} s WHERE {}", orphan(plan, &k, true));
                    missing.extend(keys(live, &sql).await?);
                }
                // Asked once: what the shadow does not have either stays missing.
                let new: Vec<Vec<String>> =
                    missing.into_iter().filter(|m| asked.insert(format!("{} {} {m:?}", k.child, k.name))).collect();
                if new.is_empty() {
                    continue;
                }
                readable(shadow, parent).await?;
                let why = format!("rows of {} reference them ({})", k.child, k.name);
                let p = stage(live, plan, here, parent, Some(why)).await?;
                let rows = rows_by(shadow, parent, &k.parent_cols, &new, &plan.tables[p].from).await?;
                added |= !rows.is_empty();
                load(live, &plan.tables[p].lost_stage, &plan.tables[p].columns, &rows).await?;
            }
        }
        if with_children {
            added |= children(live, shadow, plan, here, there, &mut asked).await?;
        }
        if !added {
            return Ok(());
        }
    }
}

/// Lost rows of tables whose foreign key deletes them with the staged ones.
async fn children(
    live: &mut PgConnection,
    shadow: &mut PgConnection,
    plan: &mut Plan,
    here: &[Table],
    there: &[Table],
    asked: &mut BTreeSet<String>,
) -> Result<bool> {
    let mut added = false;
    for k in plan.keys.clone().iter().filter(|k| k.cascades) {
        let Some(child) = there.iter().find(|t| t.name == k.child && !t.key.is_empty()) else { continue };
        let mut parents = BTreeSet::new();
        for p in plan.tables.iter().filter(|p| p.live.name == k.parent || p.live.family == k.parent) {
            let sql = format!("SELECT DISTINCT {} FROM {} s", texts("s", &k.parent_cols), p.lost_stage);
            parents.extend(keys(live, &sql).await?);
        }
        let new: Vec<Vec<String>> =
            parents.into_iter().filter(|m| asked.insert(format!("below {} {} {m:?}", k.child, k.name))).collect();
        if new.is_empty() {
            continue;
        }
        readable(shadow, child).await?;
        let found = rows_by(shadow, child, &k.cols, &new, &child.key).await?;
        let found: Vec<Vec<String>> = found.into_iter().map(|k| k.into_iter().flatten().collect()).collect();
        let why = format!("they were deleted with rows of {} ({})", k.parent, k.name);
        let at = stage(live, plan, here, child, Some(why)).await?;
        let s = plan.tables[at].clone();
        let mut missing = Vec::new();
        for batch in found.chunks(rows::BATCH) {
            let probe = Table { key: child.key.clone(), ..s.live.clone() };
            let present: BTreeSet<usize> = keys_there(live, &probe, batch).await?.into_iter().collect();
            missing.extend(batch.iter().enumerate().filter(|(i, _)| !present.contains(i)).map(|(_, k)| k.clone()));
        }
        let values = rows_by(shadow, child, &child.key, &missing, &s.from).await?;
        added |= !values.is_empty();
        load(live, &s.lost_stage, &s.columns, &values).await?;
    }
    Ok(added)
}
