//! Finding the moment: which transactions did the damage, from the marks on rows, commit times and the audit log.
//!
//! A row carries the id of the transaction that wrote it (`xmin`), and the server knows when that one committed. A faulty
//! release shows as transactions that mark many rows at once. Deleted rows carry no mark that can be read: those are found
//! in the log only.

pub mod audit;
pub mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use self::group::Group;
use super::pages::{self, Damaged};
use super::tables::{
    Transaction, commit_times, into_transactions, marks, only_named, require_commit_times, user_tables,
};
use super::watch::{Phase, Watch, check_cancel};
use crate::error::{Context, Result};
use crate::model::Time;
use crate::model::target::{Candidate, Loss, RecoveryTarget};
use crate::postgres::connect::{Database, query_error, run};

/// Where to look.
#[derive(Debug, Clone)]
pub struct LocateOptions {
    /// Suspects committed at or after this.
    pub since: Time,
    /// Suspects committed before this; none for now.
    pub until: Option<Time>,
    /// Only these tables; all when empty.
    pub tables: Vec<String>,
    /// A transaction that marks at least so many rows is a suspect; none: ten times what is usual here, at least 20.
    pub min_rows: Option<u64>,
    /// Longest time for one table.
    pub statement_timeout: Duration,
}

impl LocateOptions {
    /// Everything since `since`, five minutes a table.
    pub fn since(since: Time) -> Self {
        Self { since, until: None, tables: Vec::new(), min_rows: None, statement_timeout: Duration::from_secs(300) }
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Located {
    /// Best first, one for each group.
    pub candidates: Vec<Candidate>,
    /// The groups behind the candidates, in the same order.
    pub groups: Vec<Group>,
    /// Transactions seen on rows in the window.
    pub transactions: usize,
    /// From how many rows on a transaction was a suspect.
    pub threshold: u64,
    /// Tables that could not be read, with the reason: what they hold is not in the figures.
    pub unread: BTreeMap<String, String>,
    /// Of those, tables with pages that fail their checksum.
    pub damaged: Vec<Damaged>,
    /// Last commit of the cluster, when the server knows.
    pub last_commit: Option<Time>,
    /// Other databases of the cluster: a recovery rewinds them, too.
    pub other_databases: Vec<String>,
}

/// Looks for the transactions that did the damage. Reads only, waits for no lock longer than two seconds.
///
/// # Errors
/// Not reachable, no commit times recorded, a named table does not exist, or stopped on request.
pub async fn locate(
    at: &Database,
    options: &LocateOptions,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Located> {
    let mut c = at.connect_read_only(Duration::from_secs(2), options.statement_timeout).await?;
    require_commit_times(&mut c).await?;
    run(&mut c, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let all = user_tables(&mut c).await?;
    let trail = audit::find_trail(&all);
    let named = only_named(all.clone(), &options.tables)?;

    let mut found = Vec::new();
    let mut unread = BTreeMap::new();
    // The loss counts every table; the suspects only those named.
    for (i, table) in all.iter().enumerate() {
        check_cancel(cancel, "the moment was not found")?;
        watch.phase(&Phase {
            name: "tables",
            done: i as u64,
            total: Some(all.len() as u64),
            unit: "tables",
            text: table.name.clone(),
            ..Phase::default()
        });
        match marks(&mut c, table, options.since).await? {
            Ok(rows) => found.extend(rows.into_iter().map(|(xid, n, at)| (table.family.clone(), xid, n, at))),
            Err(why) => {
                watch.line(&format!("{}: not read, {why}", table.name));
                unread.insert(table.name.clone(), why);
            }
        }
    }
    let transactions = into_transactions(found);
    let keys = match &trail {
        Some(t) => audit::read_trail(&mut c, t, options.since).await?,
        None => audit::Keys::default(),
    };
    let families: BTreeSet<String> = named.iter().map(|t| t.family.clone()).collect();
    let trail_name = trail.as_ref().map(|t| t.table.family.clone());
    let threshold = group::threshold(&transactions, trail_name.as_deref(), options.min_rows);
    let mut groups = group::suspects(
        &transactions,
        &keys,
        &group::Rules { threshold, until: options.until, families: &families, trail: trail_name.as_deref() },
    );
    for g in &mut groups {
        resolve_top_xids(&mut c, g, &keys).await?;
    }
    let last_commit = last_commit(&mut c).await?;
    let mut candidates = Vec::new();
    for g in &groups {
        check_cancel(cancel, "the moment was not found")?;
        let loss = loss_of(&mut c, g, &transactions, last_commit).await?;
        if let Some(candidate) = candidate(g, loss) {
            candidates.push(candidate);
        }
    }
    let sql =
        "SELECT datname::text FROM pg_catalog.pg_database WHERE datname <> current_database() AND NOT datistemplate";
    let other_databases = sqlx::query_scalar(sql).fetch_all(&mut c).await.map_err(|e| query_error(sql, &e))?;
    run(&mut c, "ROLLBACK").await?;
    let mut damaged = Vec::new();
    for table in all.iter().filter(|t| unread.contains_key(&t.name)) {
        check_cancel(cancel, "the moment was not found")?;
        // A table that cannot be read for another reason is in `unread` with it.
        damaged.extend(pages::look(&mut c, table).await.ok().flatten());
    }
    watch.phase(&Phase {
        name: "tables",
        done: all.len() as u64,
        total: Some(all.len() as u64),
        unit: "tables",
        ..Phase::default()
    });
    Ok(Located {
        candidates,
        groups,
        transactions: transactions.len(),
        threshold,
        unread,
        damaged,
        last_commit,
        other_databases,
    })
}

/// The group a chosen target belongs to: the one whose transactions include that id.
pub fn group_of<'a>(located: &'a Located, target: &RecoveryTarget) -> Option<&'a Group> {
    let RecoveryTarget::Xid(x) = target else { return None };
    let x: u32 = x.parse().ok()?;
    located.groups.iter().find(|g| g.suspects.iter().any(|t| t.xids.contains(&x)))
}

/// Commit time of the newest transaction of the cluster; none where the server records no commit times.
///
/// # Errors
/// The query fails.
pub async fn last_commit(c: &mut PgConnection) -> Result<Option<Time>> {
    if !commit_times(c).await? {
        return Ok(None);
    }
    let sql = "SELECT (extract(epoch FROM timestamp) * 1000000)::int8 AS at FROM pg_catalog.pg_last_committed_xact()";
    let row = sqlx::query(sql).fetch_optional(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let at =
        row.map(|r| r.try_get::<Option<i64>, _>("at")).transpose().target(|| "cannot read the last commit".into())?;
    Ok(at.flatten().map(Time::from_micros))
}

/// A recovery target must be a top-level id: the id of a subtransaction would never match and everything would be
/// replayed. Parents get their ids before their children and carry the same commit time.
async fn resolve_top_xids(c: &mut PgConnection, g: &mut Group, keys: &audit::Keys) -> Result<()> {
    for t in &mut g.suspects {
        if let Some(top) = t.xids.iter().find_map(|x| keys.top_of.get(x)).copied() {
            if t.xids.first() != Some(&top) {
                t.xids.retain(|x| *x != top);
                t.xids.insert(0, top);
            }
            continue;
        }
        let Some(lowest) = t.xids.first().copied() else { continue };
        let sql = format!(
            "SELECT min(x) FROM generate_series(greatest({lowest}::int8 - 4000, 3), {lowest}::int8 - 1) x \
             WHERE pg_catalog.pg_xact_commit_timestamp(x::text::xid) = pg_catalog.pg_xact_commit_timestamp('{lowest}'::xid)"
        );
        let top: Option<i64> = sqlx::query_scalar(&sql).fetch_one(&mut *c).await.map_err(|e| query_error(&sql, &e))?;
        if let Some(top) = top.and_then(|x| u32::try_from(x).ok()) {
            t.xids.insert(0, top);
        }
    }
    Ok(())
}

/// What restoring to just before the group would lose: all that committed at or after its first transaction and is not
/// of the group.
async fn loss_of(
    c: &mut PgConnection,
    g: &Group,
    transactions: &[Transaction],
    last_commit: Option<Time>,
) -> Result<Loss> {
    let Some(moment) = g.moment() else { return Ok(Loss::default()) };
    let bad: BTreeSet<Time> = g.suspects.iter().map(|t| t.at).collect();
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = 0u64;
    for t in transactions.iter().filter(|t| t.at >= moment && !bad.contains(&t.at)) {
        seen += 1;
        for (table, n) in &t.rows {
            *rows.entry(table.clone()).or_default() += n;
        }
    }
    // Also those whose rows were overwritten since, and those of other databases: every id from a good way before the
    // moment (a long transaction gets its id early) up to now. Ids with one commit time are one transaction.
    let sql = "SELECT count(DISTINCT t.at) FROM ( \
                 SELECT pg_catalog.pg_xact_commit_timestamp((x % 4294967296)::text::xid) AS at \
                 FROM pg_catalog.generate_series(greatest($1::int8 - 200000, 3), $2::int8 - 1) x \
                 WHERE x % 4294967296 >= 3) t \
               WHERE t.at >= pg_catalog.to_timestamp($3::numeric / 1000000)";
    let next = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8";
    let next: i64 = sqlx::query_scalar(next).fetch_one(&mut *c).await.map_err(|e| query_error(next, &e))?;
    let first = g.suspects.iter().filter_map(|t| t.xids.first()).min().copied().unwrap_or(3);
    let first = (next / 0x1_0000_0000) * 0x1_0000_0000 + i64::from(first);
    let first = if first > next { first - 0x1_0000_0000 } else { first };
    let all: i64 = sqlx::query_scalar(sql)
        .bind(first)
        .bind(next)
        .bind(moment.micros())
        .fetch_one(&mut *c)
        .await
        .map_err(|e| query_error(sql, &e))?;
    let all = u64::try_from(all).unwrap_or(0).saturating_sub(bad.iter().filter(|t| **t >= moment).count() as u64);
    let window = last_commit.map_or(Duration::ZERO, |t| t.since(moment));
    Ok(Loss {
        window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
        transactions: Some(all.max(seen)),
        rows,
        at_most: false,
    })
}

fn candidate(g: &Group, loses: Loss) -> Option<Candidate> {
    // The earliest commit decides; of those with one time the lowest id.
    let first = g.suspects.iter().min_by_key(|t| (t.at, t.xids.first().copied()))?;
    let xid = first.xids.first()?.to_string();
    let rows = g.rows();
    Some(Candidate {
        target: RecoveryTarget::Xid(xid.clone()),
        at: first.at,
        xid: Some(xid),
        lsn: None,
        tables: rows.keys().cloned().collect(),
        rows: rows.values().sum(),
        what: g.describe(),
        loses,
    })
}
