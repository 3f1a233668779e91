//! The judge: from the writers' log, the injector's log and the recovered database alone, whether the recovery was right.
//!
//! Nothing here asks the recovery what it did, except for the two claims it must stand by: the moment it went back to, and
//! the loss it reported. `tests/checker.py` judges the same with no code in common.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::logs::{INJECTOR, InjectorLine, Known, OrderLine, WRITERS, digest_sql, read};
use super::server::Server;
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::model::event::{Check, Verdict};
use crate::model::target::RecoveryTarget;
use crate::postgres::Lsn;

/// Commit times are taken before the commit record is written, so two commits within this time may stand in the log the
/// other way round (measured: up to 2.9 ms with 32 clients).
const CLOCK_SLACK_US: i64 = 10_000;

/// What the recovery says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The moment it went back to: just before this.
    pub target: RecoveryTarget,
    /// Orders it reported as lost; none when it reported nothing.
    pub lost_orders: Option<u64>,
    /// Which database is in service, counted from 0, as the umpire knows; none: the last one that took an order.
    pub generation: Option<u32>,
}

/// What the judge found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Each check.
    pub checks: Vec<Check>,
    /// Commit time of the first damage.
    pub injected_at: Option<Time>,
    /// Transaction of the first damage.
    pub injected_xid: Option<String>,
    /// Rows damaged in all.
    pub damaged_rows: u64,
    /// Orders that were acknowledged and are not there.
    pub lost_orders: u64,
    /// Of those, orders that were committed before the first damage: an earlier moment than necessary was chosen.
    pub needless: u64,
}

impl Judgement {
    /// Whether no check failed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|c| c.verdict == Verdict::Passed)
    }
}

/// On which side of the chosen moment a commit lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
    /// Too close for the logs to tell.
    Near,
}

/// Where a commit lies in the log: after the first position, before the second (none: unknown).
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Lsn,
    to: Option<Lsn>,
    at: Option<Time>,
}

/// The chosen moment in terms of the logs.
pub(super) enum Moment {
    Between(Lsn, Lsn),
    At(Time),
    End,
    Unknown,
}

impl Moment {
    fn side(&self, span: &Span) -> Side {
        match self {
            Self::Between(from, to) => match span.to {
                Some(end) if end <= *from => Side::Before,
                _ if span.from >= *to => Side::After,
                _ => Side::Near,
            },
            Self::At(t) => match span.at {
                Some(at) if at.micros() < t.micros() - CLOCK_SLACK_US => Side::Before,
                Some(at) if at.micros() > t.micros() + CLOCK_SLACK_US => Side::After,
                _ => Side::Near,
            },
            Self::End => Side::Before,
            Self::Unknown => Side::Near,
        }
    }
}

pub(super) struct Logs {
    pub(super) orders: Vec<OrderLine>,
    pub(super) damage: Vec<InjectorLine>,
}

/// An order of the traffic as the recovered database has it.
pub(super) struct Found {
    order: i64,
    total_cents: i64,
    address: String,
}

/// Judges. `dir` holds both logs, `recovered` is the database the service runs on now; no order may be in flight.
///
/// # Errors
/// The logs cannot be read or the database does not answer. What is wrong with the recovery is in the checks instead.
pub async fn judge(dir: &Path, recovered: &Server, claim: &Claim) -> Result<Judgement> {
    let logs = Logs { orders: read(&dir.join(WRITERS))?, damage: read(&dir.join(INJECTOR))? };
    let mut conn = recovered.connect("judge").await?;
    judge_on(&mut conn, &logs, claim).await
}

async fn judge_on(conn: &mut PgConnection, logs: &Logs, claim: &Claim) -> Result<Judgement> {
    let found = traffic_rows(conn).await?;
    let moment = moment(logs, &claim.target)?;
    let first = first_damage(logs)?;
    let mut checks = vec![moment_check(&moment, claim)];
    checks.push(no_damage(conn, logs).await?);
    let (rows, check) = damaged_rows(conn, logs, &found).await?;
    checks.push(check);
    checks.push(before(logs, &found, &moment)?);
    checks.push(after(logs, &found, &moment)?);
    checks.push(dense(logs, &found));
    let last = logs.last(claim);
    checks.push(since_switch(logs, &found, last));
    checks.extend(between(logs, &found, last));
    checks.push(known(logs, &found));
    checks.push(paid(conn).await?);
    let (lost, check) = loss(logs, &found, claim, last);
    checks.push(check);
    let mut needless = 0;
    if let Some((span, _)) = &first {
        let damage = Moment::Between(span.from, span.to.unwrap_or(span.from));
        for line in logs.first_generation().filter(|l| l.known == Known::Committed && !found.contains_key(&key(l))) {
            needless += u64::from(damage.side(&span_of(line)?) == Side::Before);
        }
    }
    Ok(Judgement {
        checks,
        injected_at: first.as_ref().and_then(|(s, _)| s.at),
        injected_xid: first.map(|(_, xid)| xid),
        damaged_rows: rows,
        lost_orders: lost,
        needless,
    })
}

impl Logs {
    /// The database in service: with two promotions in one drill not the second, but the third.
    pub(super) fn last(&self, claim: &Claim) -> u32 {
        let took = self.orders.iter().map(|l| l.generation).max().unwrap_or(0);
        claim.generation.unwrap_or(took).max(1)
    }
    fn first_generation(&self) -> impl Iterator<Item = &OrderLine> {
        self.orders.iter().filter(|l| l.generation == 0)
    }
}

fn key(line: &OrderLine) -> (u32, u64) {
    (line.writer, line.n)
}

fn lsn(text: &str) -> Result<Lsn> {
    text.parse().map_err(|e| Error::state(format!("{text:?} in a drill's log is not a position")).why(e))
}

fn span(before: &str, after: Option<&String>, at: Option<Time>) -> Result<Span> {
    Ok(Span { from: lsn(before)?, to: after.map(|t| lsn(t)).transpose()?, at })
}

fn span_of(line: &OrderLine) -> Result<Span> {
    span(&line.lsn_before, line.lsn_after.as_ref(), line.committed)
}

/// The earliest damage in the log that is known to be committed, with its transaction.
fn first_damage(logs: &Logs) -> Result<Option<(Span, String)>> {
    let mut first: Option<(Span, String)> = None;
    for line in &logs.damage {
        if let InjectorLine::Damage { xid, lsn_before, lsn_after, committed, .. } = line {
            let span = span(lsn_before, lsn_after.as_ref(), *committed)?;
            if span.to.is_some() && first.as_ref().is_none_or(|(f, _)| span.from < f.from) {
                first = Some((span, xid.clone()));
            }
        }
    }
    Ok(first)
}

pub(super) fn moment(logs: &Logs, target: &RecoveryTarget) -> Result<Moment> {
    Ok(match target {
        RecoveryTarget::Lsn(l) => Moment::Between(lsn(l)?, lsn(l)?),
        RecoveryTarget::Time(t) => Moment::At(*t),
        RecoveryTarget::Latest => Moment::End,
        RecoveryTarget::Name(_) => Moment::Unknown,
        RecoveryTarget::Xid(x) => {
            let damage = logs.damage.iter().find_map(|line| match line {
                InjectorLine::Damage { xid, lsn_before, lsn_after, committed, generation: 0, .. } if xid == x => {
                    Some(span(lsn_before, lsn_after.as_ref(), *committed))
                }
                _ => None,
            });
            let order = || logs.first_generation().find(|l| l.xid == *x).map(span_of);
            match damage.or_else(order).transpose()? {
                Some(Span { from, to: Some(to), .. }) => Moment::Between(from, to),
                _ => Moment::Unknown,
            }
        }
    })
}

pub(super) fn check(name: &str, passed: bool, detail: String) -> Check {
    Check { name: name.into(), verdict: if passed { Verdict::Passed } else { Verdict::Failed }, detail }
}

/// The first few of many, for a detail.
pub(super) fn some<T: std::fmt::Debug>(of: &[T]) -> String {
    let shown: Vec<String> = of.iter().take(5).map(|x| format!("{x:?}")).collect();
    let more = if of.len() > 5 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

pub(super) fn moment_check(moment: &Moment, claim: &Claim) -> Check {
    let known = !matches!(moment, Moment::Unknown);
    let detail = if known { "known to the logs" } else { "in neither log, so what it should keep cannot be told" };
    check("moment", known, format!("{}: {detail}", claim.target))
}

/// Every order of the traffic that is there.
pub(super) async fn traffic_rows(conn: &mut PgConnection) -> Result<HashMap<(u32, u64), Found>> {
    let rows = sqlx::query("SELECT writer, n, id, total_cents, address FROM orders WHERE writer IS NOT NULL")
        .fetch_all(conn)
        .await
        .target(|| "the judge cannot read the orders".into())?;
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(rows
        .iter()
        .map(|r| {
            let key = (u32::try_from(r.get::<i32, _>(0)).unwrap_or(0), number(r.get(1)));
            (key, Found { order: r.get(2), total_cents: r.get(3), address: r.get(4) })
        })
        .collect())
}

/// The faulty release has left nothing in the audit log, and did nothing after the switch.
async fn no_damage(conn: &mut PgConnection, logs: &Logs) -> Result<Check> {
    let row = sqlx::query("SELECT count(*) FROM audit_log WHERE actor = $1")
        .bind(super::release::APPLICATION)
        .fetch_one(conn)
        .await
        .target(|| "the judge cannot read the audit log".into())?;
    let left: i64 = row.get(0);
    let later =
        logs.damage.iter().filter(|l| matches!(l, InjectorLine::Damage { generation, .. } if *generation > 0)).count();
    let detail = format!("{left} changes of the faulty release in the recovered database, {later} after the switch");
    Ok(check("none of the damage is there", left == 0 && later == 0, detail))
}

/// Every damaged row has its old values again; rows of lost orders are not counted.
async fn damaged_rows(
    conn: &mut PgConnection,
    logs: &Logs,
    found: &HashMap<(u32, u64), Found>,
) -> Result<(u64, Check)> {
    // The first damage of a row is the one whose old values are the good ones.
    let mut good: BTreeMap<(&str, &[String]), BTreeMap<i64, &str>> = BTreeMap::new();
    let mut seen: HashSet<(&str, i64)> = HashSet::new();
    for line in &logs.damage {
        if let InjectorLine::Damage { table, columns, rows, lsn_after: Some(_), generation: 0, .. } = line {
            for (id, old, _) in rows {
                if seen.insert((table, *id)) {
                    good.entry((table, columns)).or_default().insert(*id, old);
                }
            }
        }
    }
    // Numbers are given out again after going back: an order that was lost may have left its id to another one.
    let lost: BTreeSet<i64> =
        logs.first_generation().filter(|l| !found.contains_key(&key(l))).map(|l| l.order).collect();
    let (mut right, mut wrong, mut gone) = (0u64, Vec::new(), 0u64);
    for ((table, columns), rows) in &good {
        let ids: Vec<i64> = rows.keys().copied().collect();
        // The table's name comes from our own log; it is checked all the same, because it becomes SQL.
        if !matches!(*table, "public.orders" | "public.customers") {
            return Err(Error::state(format!("the injector's log names a table {table:?}")));
        }
        let sql = format!("SELECT id, {} FROM {table} t WHERE id = ANY($1)", digest_sql("t", columns));
        let now = sqlx::query(&sql)
            .bind(&ids)
            .fetch_all(&mut *conn)
            .await
            .target(|| format!("the judge cannot read {table}"))?;
        let now: HashMap<i64, String> = now.iter().map(|r| (r.get(0), r.get(1))).collect();
        for (id, old) in rows {
            if *table == "public.orders" && lost.contains(id) {
                gone += 1;
            } else if now.get(id).is_some_and(|d| d == old) {
                right += 1;
            } else {
                wrong.push((table.to_string(), *id));
            }
        }
    }
    let detail = if wrong.is_empty() {
        format!("{right} rows have their old values again; {gone} belonged to orders made after the moment")
    } else {
        format!("{} rows are wrong: {}", wrong.len(), some(&wrong))
    };
    let any = right > 0;
    let detail = if any || !wrong.is_empty() { detail } else { "the injector damaged nothing".into() };
    Ok((seen.len() as u64, check("damaged rows are right again", wrong.is_empty() && any, detail)))
}

fn same(line: &OrderLine, found: &Found) -> bool {
    found.order == line.order && found.total_cents == line.total_cents && found.address == line.address
}

/// Every order committed before the moment is there, as the customer was told.
pub(super) fn before(logs: &Logs, found: &HashMap<(u32, u64), Found>, moment: &Moment) -> Result<Check> {
    let (mut expected, mut wrong) = (0, Vec::new());
    for line in logs.first_generation().filter(|l| l.known == Known::Committed) {
        if moment.side(&span_of(line)?) == Side::Before {
            expected += 1;
            if !found.get(&key(line)).is_some_and(|f| same(line, f)) {
                wrong.push(key(line));
            }
        }
    }
    let detail = if wrong.is_empty() {
        format!("{expected} orders")
    } else {
        format!("{} of {expected} missing or changed (writer, number): {}", wrong.len(), some(&wrong))
    };
    Ok(check("every order before the moment is there", wrong.is_empty(), detail))
}

/// No order committed after the moment is there: the loss is where it was said to be.
pub(super) fn after(logs: &Logs, found: &HashMap<(u32, u64), Found>, moment: &Moment) -> Result<Check> {
    let (mut expected, mut wrong) = (0, Vec::new());
    for line in logs.first_generation() {
        if moment.side(&span_of(line)?) == Side::After {
            expected += 1;
            if found.contains_key(&key(line)) {
                wrong.push(key(line));
            }
        }
    }
    let detail = if wrong.is_empty() {
        format!("{expected} orders after it are gone")
    } else {
        format!("{} of {expected} are there (writer, number): {}", wrong.len(), some(&wrong))
    };
    Ok(check("no order after the moment is there", wrong.is_empty(), detail))
}

/// Of each writer's orders on the first database, what is there is everything up to some number and nothing after it.
pub(super) fn dense(logs: &Logs, found: &HashMap<(u32, u64), Found>) -> Check {
    let mut by_writer: BTreeMap<u32, Vec<(u64, bool)>> = BTreeMap::new();
    for line in logs.first_generation().filter(|l| l.known == Known::Committed) {
        by_writer.entry(line.writer).or_default().push((line.n, found.contains_key(&key(line))));
    }
    let mut broken = Vec::new();
    let mut last = Vec::new();
    for (writer, mut numbers) in by_writer {
        numbers.sort_unstable();
        let there = numbers.iter().take_while(|(_, there)| *there).count();
        if numbers[there..].iter().any(|(_, there)| *there) {
            broken.push(writer);
        }
        last.push(format!("writer {writer} up to {}", numbers[..there].last().map_or(0, |(n, _)| *n)));
    }
    let detail =
        if broken.is_empty() { last.join(", ") } else { format!("gaps in what is left of writers {}", some(&broken)) };
    check("each writer's orders end at one point", broken.is_empty(), detail)
}

/// Every order since the last switch is there.
pub(super) fn since_switch(logs: &Logs, found: &HashMap<(u32, u64), Found>, last: u32) -> Check {
    let later: Vec<&OrderLine> =
        logs.orders.iter().filter(|l| l.generation >= last && l.known == Known::Committed).collect();
    let wrong: Vec<(u32, u64)> =
        later.iter().filter(|l| !found.get(&key(l)).is_some_and(|f| same(l, f))).map(|l| key(l)).collect();
    let detail = if wrong.is_empty() {
        format!("{} orders", later.len())
    } else {
        format!("{} of {} missing or changed (writer, number): {}", wrong.len(), later.len(), some(&wrong))
    };
    check("every order since the switch is there", wrong.is_empty(), detail)
}

/// Orders taken by a recovered database that was itself given up for an earlier moment: they are lost, and none of them may
/// have come back by half. None when there was one promotion only.
pub(super) fn between(logs: &Logs, found: &HashMap<(u32, u64), Found>, last: u32) -> Option<Check> {
    if last < 2 {
        return None;
    }
    let taken: Vec<&OrderLine> = logs.orders.iter().filter(|l| (1..last).contains(&l.generation)).collect();
    let there = taken.iter().filter(|l| found.contains_key(&key(l))).count();
    let changed: Vec<(u32, u64)> =
        taken.iter().filter(|l| found.get(&key(l)).is_some_and(|f| !same(l, f))).map(|l| key(l)).collect();
    let mut detail = format!("{} orders of a database that was given up, {there} of them there", taken.len());
    if !changed.is_empty() {
        detail.push_str(&format!(", changed: {}", some(&changed)));
    }
    Some(check(
        "what was given up is given up as a whole",
        changed.is_empty() && (there == 0 || there == taken.len()),
        detail,
    ))
}

/// Nothing is there that no writer sent.
pub(super) fn known(logs: &Logs, found: &HashMap<(u32, u64), Found>) -> Check {
    let sent: HashSet<(u32, u64)> = logs.orders.iter().map(key).collect();
    let mut strange: Vec<(u32, u64)> = found.keys().filter(|k| !sent.contains(k)).copied().collect();
    strange.sort_unstable();
    let detail =
        if strange.is_empty() { format!("{} orders", found.len()) } else { format!("nobody sent {}", some(&strange)) };
    check("every order there was sent by a writer", strange.is_empty(), detail)
}

/// Each order of the traffic has exactly its payment and its audit row: transactions are whole.
pub(super) async fn paid(conn: &mut PgConnection) -> Result<Check> {
    let sql = "
        SELECT count(*) FILTER (WHERE p.id IS NULL OR p.order_id IS DISTINCT FROM o.id OR p.amount_cents IS DISTINCT FROM o.total_cents),
               count(*) FILTER (WHERE a.writer IS NULL)
        FROM (SELECT * FROM orders WHERE writer IS NOT NULL) o
        FULL JOIN (SELECT * FROM payments WHERE writer IS NOT NULL) p USING (writer, n)
        LEFT JOIN (SELECT writer, n FROM audit_log WHERE writer IS NOT NULL) a USING (writer, n)";
    let row = sqlx::query(sql).fetch_one(conn).await.target(|| "the judge cannot read the payments".into())?;
    let (unpaid, unlogged): (i64, i64) = (row.get(0), row.get(1));
    let detail = format!("{unpaid} without their payment, {unlogged} without their audit row");
    Ok(check("orders, payments and audit log agree", unpaid == 0 && unlogged == 0, detail))
}

/// The loss that was reported is the loss.
pub(super) fn loss(logs: &Logs, found: &HashMap<(u32, u64), Found>, claim: &Claim, last: u32) -> (u64, Check) {
    let gone = |known: Known| {
        let before = logs.orders.iter().filter(|l| l.generation < last);
        before.filter(|l| l.known == known && !found.contains_key(&key(l))).count() as u64
    };
    let (lost, unknown) = (gone(Known::Committed), gone(Known::Unknown));
    let unsure = if unknown == 0 { String::new() } else { format!(", and {unknown} whose commit nobody knows") };
    let name = "the loss reported is the loss";
    let check = match claim.lost_orders {
        None => check(name, false, format!("no loss was reported; {lost} orders are lost{unsure}")),
        Some(said) => {
            check(name, (lost..=lost + unknown).contains(&said), format!("{said} orders reported, {lost} lost{unsure}"))
        }
    };
    (lost, check)
}
