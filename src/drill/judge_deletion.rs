//! The judge of a drill with deleted data: from the job's log, the writers' log and the live database, whether everything
//! came back and nothing newer was touched. Nothing here asks the actions that did it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use sqlx::Row;

use super::deletion::{CONSTRAINTS, DELETIONS, DeletionLine, columns};
use super::logs::{Known, OrderLine, WRITERS, digest_sql, read};
use super::server::Server;
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::model::event::{Check, Verdict};

/// What the judge found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Each check.
    pub checks: Vec<Check>,
    /// When it was deleted.
    pub at: Option<Time>,
}

/// Judges by the logs in `folder` and the live database. `restored` is what the recovery claims.
///
/// # Errors
/// When a log cannot be read or the database does not answer.
pub async fn judge(folder: &Path, live: &Server, restored: Option<Time>) -> Result<Judgement> {
    let writers: Vec<OrderLine> = read(&folder.join(WRITERS))?;
    let log: Vec<DeletionLine> = read(&folder.join(DELETIONS))?;
    let deleted = log.into_iter().find_map(|l| match l {
        DeletionLine::Deleted { committed, constraints, rows, .. } => Some((committed, constraints, rows)),
        DeletionLine::Plan { .. } => None,
    });
    let Some((at, constraints, rows)) = deleted else {
        return Err(Error::check("the drill cannot be judged").why("nothing was deleted"));
    };
    let what = || "the judge cannot read the live database".to_string();
    let mut conn = live.connect("judge").await?;
    let mut checks = Vec::new();
    let mut check = |name: &str, good: bool, detail: String| {
        let verdict = if good { Verdict::Passed } else { Verdict::Failed };
        checks.push(Check { name: name.into(), verdict, detail });
    };
    check("the fault was real", !rows.is_empty(), format!("{} rows taken away", rows.len()));
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('public.payments') IS NOT NULL")
        .fetch_one(&mut conn)
        .await
        .target(what)?;
    if !exists {
        check("the table is there", false, "payments does not exist".into());
        return Ok(Judgement { checks, at });
    }
    let sql = format!("SELECT id, {}, writer, n FROM payments t", digest_sql("t", &columns()));
    let found = sqlx::query(&sql).fetch_all(&mut conn).await.target(what)?;
    let there: HashMap<i64, String> = found.iter().map(|r| (r.get(0), r.get(1))).collect();
    let (mut missing, mut other) = (0, 0);
    for (id, digest) in &rows {
        match there.get(id) {
            None => missing += 1,
            Some(seen) if seen != digest => other += 1,
            Some(_) => {}
        }
    }
    check(
        "what was lost is back as it was",
        missing + other == 0,
        format!("of {} rows {missing} are missing, {other} differ", rows.len()),
    );
    let paid: HashSet<(i32, i64)> =
        found.iter().filter_map(|r| Some((r.get::<Option<i32>, _>(2)?, r.get::<Option<i64>, _>(3)?))).collect();
    let orders = sqlx::query("SELECT writer, n, total_cents FROM orders WHERE writer IS NOT NULL")
        .fetch_all(&mut conn)
        .await
        .target(what)?;
    let orders: HashMap<(i32, i64), i64> = orders.iter().map(|r| ((r.get(0), r.get(1)), r.get(2))).collect();
    let (mut lost, mut changed, mut unpaid, mut newer) = (0, 0, 0, 0);
    for line in writers.iter().filter(|l| l.known == Known::Committed) {
        let key = (i32::try_from(line.writer).unwrap_or(-1), i64::try_from(line.n).unwrap_or(-1));
        newer += u32::from(line.committed.zip(at).is_some_and(|(c, at)| c > at));
        match orders.get(&key) {
            None => lost += 1,
            Some(total) if *total != line.total_cents => changed += 1,
            Some(_) => {}
        }
        unpaid += u32::from(!paid.contains(&key));
    }
    check(
        "no order of the traffic is lost or changed",
        lost + changed == 0,
        format!("{} orders, {newer} of them newer than the deletion; {lost} lost, {changed} changed", writers.len()),
    );
    check("every order has its payment", unpaid == 0, format!("{unpaid} without"));
    let orphans: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM payments p WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = p.order_id)",
    )
    .fetch_one(&mut conn)
    .await
    .target(what)?;
    check("no payment points nowhere", orphans == 0, format!("{orphans} do"));
    let now: Vec<String> = sqlx::query_scalar(CONSTRAINTS).fetch_all(&mut conn).await.target(what)?;
    check("constraints are as before", now == constraints, format!("{} of {}", now.len(), constraints.len()));
    check("service was said to be restored", restored.is_some(), restored.map_or("never".into(), |t| t.hms()));
    Ok(Judgement { checks, at })
}
