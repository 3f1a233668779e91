//! The judge of a drill with a lost region: from the writers' log, the umpire's log of the regions, the watcher's log, the
//! servers' own logs and the database behind the door. Nothing here asks the actions that did it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use sqlx::Row;

use super::logs::{Known, OrderLine, WRITERS, read};
use super::region::{REGIONS, RegionLine, SERVER_LOGS, WATCH, WatchLine};
use super::server::Server;
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::model::event::{Check, Verdict};

/// What the judge found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Each check.
    pub checks: Vec<Check>,
    /// When the region was lost.
    pub at: Option<Time>,
}

/// What the recovery says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claim {
    /// When service was said to be restored.
    pub restored: Option<Time>,
    /// Orders it says are lost; none when it counted none.
    pub lost_orders: Option<u64>,
}

/// Everything that is judged by, so that it can be made up in a test.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Writers' log.
    pub writers: Vec<OrderLine>,
    /// Log of the regions.
    pub regions: Vec<RegionLine>,
    /// Watcher's log.
    pub watch: Vec<WatchLine>,
    /// Servers' logs, near and far.
    pub logs: [String; 2],
    /// Orders behind the door at the end, by writer and number.
    pub stored: HashSet<(u32, u64)>,
    /// Standbys that stream at the end.
    pub streaming: i64,
    /// Why the database behind the door could not be read, when it could not.
    pub unreachable: Option<String>,
}

/// Judges by the logs in `folder` and the database behind the door.
///
/// # Errors
/// When a log cannot be read or the database does not answer.
pub async fn judge(folder: &Path, live: &Server, claim: Claim) -> Result<Judgement> {
    // A door that leads nowhere is a finding like any other: what the logs tell is weighed all the same.
    let (stored, streaming, unreachable) = match behind(live).await {
        Ok((stored, streaming)) => (stored, streaming, None),
        Err(e) => (HashSet::new(), 0, Some(e.to_string())),
    };
    let text = |name: &str| {
        let bytes = std::fs::read(folder.join(name)).state(|| format!("the judge cannot read {name}"))?;
        Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    weigh(
        &Evidence {
            writers: read(&folder.join(WRITERS))?,
            regions: read(&folder.join(REGIONS))?,
            watch: read(&folder.join(WATCH))?,
            logs: [text(SERVER_LOGS[0])?, text(SERVER_LOGS[1])?],
            stored,
            streaming,
            unreachable,
        },
        claim,
    )
}

/// Orders in the database behind the door, by writer and number, and how many standbys stream from it.
async fn behind(live: &Server) -> Result<(HashSet<(u32, u64)>, i64)> {
    let what = || "the judge cannot read the database behind the door".to_string();
    let mut conn = live.connect("judge").await?;
    let rows =
        sqlx::query("SELECT writer, n FROM orders WHERE writer IS NOT NULL").fetch_all(&mut conn).await.target(what)?;
    let number = |r: &sqlx::postgres::PgRow| {
        Some((u32::try_from(r.get::<i32, _>(0)).ok()?, u64::try_from(r.get::<i64, _>(1)).ok()?))
    };
    let streaming = sqlx::query_scalar("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
        .fetch_one(&mut conn)
        .await
        .target(what)?;
    Ok((rows.iter().filter_map(number).collect(), streaming))
}

/// The judgement from what was read: pure.
///
/// # Errors
/// Check when no region was ever lost.
pub fn weigh(e: &Evidence, claim: Claim) -> Result<Judgement> {
    let at = |want: fn(&RegionLine) -> Option<Time>| e.regions.iter().find_map(want);
    let Some(lost_at) = at(|l| if let RegionLine::Lost { at } = l { Some(*at) } else { None }) else {
        return Err(Error::check("the drill cannot be judged").why("no region was lost"));
    };
    let fenced_at = at(|l| if let RegionLine::Fenced { at } = l { Some(*at) } else { None });
    let mut checks = Vec::new();
    let mut check = |name: &str, good: bool, detail: String| {
        let verdict = if good { Verdict::Passed } else { Verdict::Failed };
        checks.push(Check { name: name.into(), verdict, detail });
    };
    let before = e.writers.iter().filter(|l| l.known == Known::Committed && l.after < lost_at).count();
    let door = e.unreachable.clone();
    check("the door leads to a database", door.is_none(), door.unwrap_or_else(|| "it answers".into()));
    check("the fault was real", before > 0, format!("lost at {} UTC after {before} orders", lost_at.hms()));

    // Twice, independently: what the watcher saw from outside, and what the servers wrote of themselves.
    let seen: Vec<&WatchLine> = e.watch.iter().filter(|w| w.near && w.far).collect();
    let near = writable(&e.logs[0], Some(lost_at));
    let far = writable(&e.logs[1], None);
    let overlap = near.iter().flat_map(|n| far.iter().map(move |f| (n.0.max(f.0), n.1.min(f.1)))).find(|(a, b)| a < b);
    check(
        "never two primaries",
        seen.is_empty() && overlap.is_none(),
        match (seen.first(), overlap) {
            (Some(w), _) => format!("BOTH took writes at {} UTC, as the watcher saw", w.at.hms()),
            (None, Some((from, _))) => format!("BOTH took writes from {} UTC on, by their own logs", from.hms()),
            (None, None) => format!("{} changes seen, never both", e.watch.len()),
        },
    );
    let promoted = far.iter().map(|f| f.0).min();
    check(
        "fenced before promoted",
        fenced_at.zip(promoted).is_some_and(|(f, p)| f < p),
        match (fenced_at, promoted) {
            (Some(f), Some(p)) => format!("fenced {}, promoted {} UTC", f.hms(), p.hms()),
            (None, Some(p)) => format!("never fenced, promoted {} UTC", p.hms()),
            (_, None) => "the standby was never promoted".into(),
        },
    );
    let mut missing: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let (mut lost, mut later, mut unknown) = (0_u64, 0_u64, 0_u64);
    for line in &e.writers {
        let there = e.stored.contains(&(line.writer, line.n));
        match (line.known, there) {
            (Known::Committed, false) if line.generation == 0 => {
                lost += 1;
                missing.entry(line.writer).or_default().push(line.n);
            }
            (Known::Committed, false) => later += 1,
            (Known::Unknown, false) => unknown += 1,
            _ => {}
        }
    }
    let after = e.writers.iter().filter(|l| l.known == Known::Committed && l.generation > 0).count();
    check(
        "orders since the failover are there",
        later == 0 && after > 0,
        format!("{after} orders since then, {later} missing"),
    );
    // What was lost is the end of the first server's log and nothing in between.
    let holes = missing.iter().filter(|(writer, lost)| {
        let first = lost.iter().min().copied().unwrap_or(0);
        let kept = |l: &&OrderLine| l.writer == **writer && l.generation == 0 && l.n > first;
        e.writers.iter().filter(kept).any(|l| l.known == Known::Committed && e.stored.contains(&(l.writer, l.n)))
    });
    let holes = holes.count();
    check("only the end is lost", holes == 0, format!("{lost} orders lost, {holes} writers with a hole"));
    let claimed = claim.lost_orders.unwrap_or(0);
    check(
        "the loss reported is the loss",
        (lost..=lost + unknown).contains(&claimed),
        format!("reported {claimed}, lost {lost}, outcome unknown of {unknown} more"),
    );
    check("a standby streams again", e.streaming > 0, format!("{} stream", e.streaming));
    let served =
        claim.restored.map(|t| e.writers.iter().filter(|l| l.known == Known::Committed && l.before > t).count());
    check(
        "restored when it says so",
        served.is_some_and(|n| n > 0),
        match (served, claim.restored) {
            (Some(n), Some(t)) => format!("{n} orders since {} UTC", t.hms()),
            _ => "service was never said to be restored".into(),
        },
    );
    Ok(Judgement { checks, at: Some(lost_at) })
}

/// When a server took writes, by its own log. A promotion counts from its request on, and a server that was killed has not
/// written that itself.
pub fn writable(log: &str, killed: Option<Time>) -> Vec<(Time, Time)> {
    let end_of_time = Time::from_micros(i64::MAX);
    let mut spans: Vec<(Time, Time)> = Vec::new();
    let mut open: Option<Time> = None;
    for line in log.lines() {
        let mut words = line.splitn(3, ' ');
        let Some((day, clock)) = words.next().zip(words.next()) else { continue };
        let Ok(at) = Time::parse(&format!("{day}T{clock}Z")) else { continue };
        let begins = line.contains("database system is ready to accept connections")
            || line.contains("received promote request");
        let starts_anew = line.contains("database system was ") || line.contains("starting PostgreSQL");
        if let Some(from) = open
            && (starts_anew || line.contains("database system is shut down"))
        {
            // Without a last word of its own it was killed.
            let end = killed.filter(|k| starts_anew && *k >= from && *k <= at).unwrap_or(at);
            spans.push((from, end));
            open = None;
        }
        if begins {
            open.get_or_insert(at);
        }
    }
    if let Some(from) = open {
        spans.push((from, killed.filter(|k| *k >= from).unwrap_or(end_of_time)));
    }
    spans
}
