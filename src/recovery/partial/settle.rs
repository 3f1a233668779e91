//! What of the staged rows cannot come back is taken out and named; what remains is counted.

use sqlx::postgres::PgConnection;

use super::along::{keys_of, orphan};
use super::rows::{count, equal, execute, keys, shown, texts};
use super::{Plan, catalog, fill, rules};
use crate::error::Result;

/// Takes out what cannot be brought back and counts what remains.
///
/// # Errors
/// A query fails.
pub(super) async fn settle(live: &mut PgConnection, shadow: &mut PgConnection, plan: &mut Plan) -> Result<()> {
    for s in &plan.tables {
        if !s.shadow.key.is_empty() {
            let key = &s.shadow.key;
            let sql = format!(
                "DELETE FROM {0} a USING {0} b WHERE a.ctid > b.ctid AND {1}",
                s.lost_stage,
                equal("a", key, "b", key)
            );
            execute(live, &sql).await?;
        }
    }
    for s in &mut plan.tables {
        if s.part.recreated {
            continue;
        }
        s.rules = rules::rules(live, &s.live.sql).await?;
        s.old_rules = rules::rules(shadow, &s.shadow.sql).await?;
        rules::take_out(live, s).await?;
    }
    loop {
        let mut removed = 0;
        for at in 0..plan.tables.len() {
            for k in keys_of(plan, &plan.tables[at]) {
                let without = orphan(plan, &k, true);
                let s = &mut plan.tables[at];
                for stage in [s.lost_stage.clone(), s.old_stage.clone()] {
                    let key = texts("s", s.naming());
                    let out =
                        shown(live, &format!("DELETE FROM {stage} s WHERE {without} RETURNING {key} AS k")).await?;
                    s.part.blocked += out.rows;
                    removed += out.rows;
                    let why = format!("the row of {} that their {} references is nowhere", k.parent, k.cols.join(", "));
                    s.leave(why, out, true);
                }
            }
        }
        if removed == 0 {
            break;
        }
    }
    for s in &mut plan.tables {
        fill::settle(live, s).await?;
    }
    for at in 0..plan.tables.len() {
        let s = plan.tables[at].clone();
        let mut part = s.part.clone();
        part.lost = count(live, &format!("SELECT count(*) FROM {}", s.lost_stage)).await?;
        part.damaged = count(live, &format!("SELECT count(*) FROM {}", s.old_stage)).await?;
        if !plan.options.fire_triggers {
            part.silent_triggers =
                catalog::triggers(live, &s.live.sql).await?.into_iter().map(|(name, _)| name).collect();
        }
        let back =
            plan.lost_keys.iter().filter(|k| part.recreated && [&s.live.name, &s.live.family].contains(&&k.parent));
        part.foreign_keys = back.map(|k| format!("{} of {}", k.name, k.child)).collect();
        if !s.shadow.key.is_empty() {
            let sql = format!("SELECT {} FROM {} s ORDER BY 1 LIMIT 3", texts("s", &s.shadow.key), s.lost_stage);
            part.examples = keys(live, &sql).await?.iter().map(|k| k.join(", ")).collect();
        }
        plan.tables[at].part = part;
    }
    Ok(())
}
