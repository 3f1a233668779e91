//! The judge of a drill with a breach: from the intruder's log, the writers' log, the evidence as it lies on disk and the live
//! database. Nothing here asks the actions that did it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use sqlx::{PgConnection, Row};

use super::breach::{INTRUDER, IntruderLine, SECRETS};
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
    /// When the intruder began.
    pub at: Option<Time>,
}

/// Judges by the logs in `folder`, the evidence below `incident`, and the live database. `restored` is what the recovery claims.
///
/// # Errors
/// When a log cannot be read or the database does not answer.
pub async fn judge(folder: &Path, incident: &Path, live: &Server, restored: Option<Time>) -> Result<Judgement> {
    let writers: Vec<OrderLine> = read(&folder.join(WRITERS))?;
    let log: Vec<IntruderLine> = read(&folder.join(INTRUDER))?;
    let planned = log.iter().find_map(|l| match l {
        IntruderLine::Plan { stolen, back_door, function, .. } => Some((stolen, back_door, function)),
        _ => None,
    });
    let Some((stolen, back_door, function)) = planned else {
        return Err(Error::check("the drill cannot be judged").why("nobody broke in"));
    };
    let mut conn = live.connect("judge").await?;
    let mut checks = Vec::new();
    let mut check = |name: &str, good: bool, detail: String| {
        let verdict = if good { Verdict::Passed } else { Verdict::Failed };
        checks.push(Check { name: name.into(), verdict, detail });
    };
    let sessions: Vec<(Time, i32)> = log
        .iter()
        .filter_map(|l| if let IntruderLine::Session { at, pid, .. } = l { Some((*at, *pid)) } else { None })
        .collect();
    let began = sessions.iter().map(|s| s.0).min();
    let cut = log.iter().find_map(|l| if let IntruderLine::Cut { at } = l { Some(*at) } else { None });
    // The first digest of a row is its good one.
    let mut rows: BTreeMap<(String, Vec<String>), HashMap<i64, String>> = BTreeMap::new();
    for line in &log {
        if let IntruderLine::Changed { table, columns, rows: changed, .. } = line {
            let known = rows.entry((table.clone(), columns.clone())).or_default();
            for (id, digest) in changed {
                known.entry(*id).or_insert_with(|| digest.clone());
            }
        }
    }
    let touched: usize = rows.values().map(HashMap::len).sum();
    check(
        "the fault was real",
        touched > 0 && !sessions.is_empty(),
        format!("{touched} rows, {} sessions", sessions.len()),
    );

    let seized = activity(incident);
    let seen = sessions
        .iter()
        .filter(|s| seized.as_ref().is_some_and(|text| text.contains(&format!("\"pid\":{},", s.1))))
        .count();
    check(
        "the sessions are in the evidence",
        seen > 0,
        match &seized {
            Some(_) => format!("{seen} of {} sessions, as they were before they were cut", sessions.len()),
            None => "no sessions were written down".into(),
        },
    );
    check("the sessions were cut", cut.is_some(), cut.map_or("never".into(), |t| format!("{} UTC", t.hms())));
    let mut open: HashMap<&str, (Time, bool)> = HashMap::new();
    for line in &log {
        if let IntruderLine::Login { at, role, let_in } = line {
            open.insert(role.as_str(), (*at, *let_in));
        }
    }
    let inside: Vec<&str> = open.iter().filter(|(_, (_, in_))| *in_).map(|(role, _)| *role).collect();
    check(
        "nobody comes back in",
        cut.is_some() && !open.is_empty() && inside.is_empty(),
        if inside.is_empty() {
            format!("{} ways tried and refused", open.len())
        } else {
            format!("let in: {}", inside.join(", "))
        },
    );
    let (mut missing, mut other) = (0, 0);
    for ((table, columns), known) in &rows {
        let sql = format!("SELECT id, {} FROM {table} t", digest_sql("t", columns));
        let found = sqlx::query(&sql).fetch_all(&mut conn).await.target(|| format!("the judge cannot read {table}"))?;
        let there: HashMap<i64, String> = found.iter().map(|r| (r.get(0), r.get(1))).collect();
        for (id, digest) in known {
            match there.get(id) {
                None => missing += 1,
                Some(now) if now != digest => other += 1,
                Some(_) => {}
            }
        }
    }
    check(
        "every row is as it was",
        missing + other == 0,
        format!("of {touched} rows {missing} are missing, {other} differ"),
    );
    let left = left_behind(&mut conn, stolen, back_door, function).await?;
    check(
        "nothing is left behind",
        left.is_empty(),
        if left.is_empty() { "no role, membership, function or trigger".into() } else { left.join(", ") },
    );
    let (lost, orders) = orders(&mut conn, &writers).await?;
    check("no order of the traffic is lost or changed", lost == 0, format!("{orders} orders, {lost} lost or changed"));
    let rotated = |word: &str| {
        log.iter().any(
            |l| matches!(l, IntruderLine::Rotated { at, secret } if secret == word && cut.is_some_and(|c| *at > c)),
        )
    };
    let stale: Vec<&str> = SECRETS.iter().filter(|(_, word)| !rotated(word)).map(|(name, _)| *name).collect();
    check(
        "every secret is new",
        stale.is_empty(),
        match stale.is_empty() {
            true => format!("{} replaced after the sessions were cut", SECRETS.len()),
            false => format!("still valid: {}", stale.join(", ")),
        },
    );
    check("service was said to be restored", restored.is_some(), restored.map_or("never".into(), |t| t.hms()));
    Ok(Judgement { checks, at: began })
}

/// Everything that was written down about sessions, at whichever time.
fn activity(incident: &Path) -> Option<String> {
    let folders = std::fs::read_dir(incident.join("evidence")).ok()?.flatten().map(|e| e.path());
    let texts: Vec<String> = folders.filter_map(|f| std::fs::read_to_string(f.join("activity.json")).ok()).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

async fn left_behind(c: &mut PgConnection, stolen: &str, back_door: &str, function: &str) -> Result<Vec<String>> {
    let sql = "SELECT 'role ' || rolname FROM pg_roles WHERE rolname = $2 \
               UNION ALL SELECT 'member of ' || $1 FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE r.rolname = $1 \
               UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname = $3 \
               UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname = $3 \
               UNION ALL SELECT 'session of ' || usename FROM pg_stat_activity WHERE usename IN ($1, $2)";
    let query = sqlx::query_scalar(sql).bind(stolen).bind(back_door).bind(function);
    query.fetch_all(c).await.target(|| "the judge cannot read the catalogue".into())
}

/// Orders of the traffic that are lost or changed, and all of them.
async fn orders(c: &mut PgConnection, writers: &[OrderLine]) -> Result<(usize, usize)> {
    let what = || "the judge cannot read the orders".to_string();
    let sql = "SELECT o.writer, o.n, o.total_cents, count(p.id) FROM orders o LEFT JOIN payments p ON p.order_id = o.id \
               WHERE o.writer IS NOT NULL GROUP BY 1, 2, 3";
    let rows = sqlx::query(sql).fetch_all(c).await.target(what)?;
    let stored: HashMap<(i32, i64), (i64, i64)> =
        rows.iter().map(|r| ((r.get(0), r.get(1)), (r.get(2), r.get(3)))).collect();
    let committed: Vec<&OrderLine> = writers.iter().filter(|l| l.known == Known::Committed).collect();
    let wrong = committed.iter().filter(|l| {
        let key = (i32::try_from(l.writer).unwrap_or(-1), i64::try_from(l.n).unwrap_or(-1));
        stored.get(&key).is_none_or(|(total, payments)| *total != l.total_cents || *payments != 1)
    });
    Ok((wrong.count(), committed.len()))
}
