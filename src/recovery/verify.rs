//! Whether the recovered instance is what it should be. Nothing is promoted that was not checked.

pub mod constraints;
pub mod fingerprint;
pub mod indexes;
pub mod sequences;
pub mod unlogged;

use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::pages::{self, Damaged};
use super::tables::{Table, made_again, user_tables};
use super::watch::{Phase, Watch, check_cancel};
use crate::error::{Error, Result};
use crate::incident::moment::DAMAGE_GONE;
use crate::model::Time;
use crate::model::event::{Check, Verdict};
use crate::postgres::connect::{Database, query_error, run};

/// What to verify.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The recovered database.
    pub shadow: Database,
    /// The damaged one, to compare with; none when it is gone.
    pub source: Option<Database>,
    /// Transactions that must not be in the recovered database.
    pub suspects: Vec<u32>,
    /// Longest time for one statement.
    pub statement_timeout: Duration,
}

/// A check with its verdict.
pub fn check(name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Check {
    Check { name: name.into(), verdict, detail: detail.into() }
}

/// Whether no check failed. One that was not available does not count as failed, and never as passed either.
pub fn passed(checks: &[Check]) -> bool {
    checks.iter().all(|c| c.verdict != Verdict::Failed) && checks.iter().any(|c| c.verdict == Verdict::Passed)
}

/// Runs every check. Reads only; waits for no lock longer than two seconds: a paused recovery may hold the lock of a
/// transaction it stopped in.
///
/// # Errors
/// The shadow cannot be reached, or stopped on request. What is wrong with the data is a check that failed, not an error.
pub fn verify<'a>(
    options: &'a VerifyOptions,
    watch: &'a dyn Watch,
    cancel: &'a CancellationToken,
) -> BoxFuture<'a, Result<Vec<Check>>> {
    Box::pin(all_checks(options, watch, cancel))
}

async fn all_checks(options: &VerifyOptions, watch: &dyn Watch, cancel: &CancellationToken) -> Result<Vec<Check>> {
    let mut shadow = open(&options.shadow, options.statement_timeout).await?;
    let tables = user_tables(&mut shadow).await?;
    let mut checks = Vec::new();
    let mut add = |c: Check| {
        watch.line(&line(&c));
        checks.push(c);
    };
    add(state(&mut shadow).await?);
    if tables.is_empty() {
        let detail = format!("there is no table in {:?}: nothing of it could be verified", options.shadow.name());
        // What is empty in the source as well may be so; else it is the wrong database that was looked at, or nothing came back.
        let meant = match &options.source {
            Some(source) => match open(source, options.statement_timeout).await {
                Ok(mut c) => user_tables(&mut c).await?.is_empty(),
                Err(_) => false,
            },
            None => false,
        };
        add(check("tables", if meant { Verdict::NotAvailable } else { Verdict::Failed }, detail));
    }
    let mut gone = damage_gone(&mut shadow, &options.suspects).await?;

    let mut live = None;
    match &options.source {
        None => {
            add(check("rows", Verdict::NotAvailable, "there is no source to compare with"));
            add(check("fingerprints", Verdict::NotAvailable, "there is no source to compare with"));
        }
        Some(source) => match open(source, options.statement_timeout).await {
            Err(e) => {
                let why = format!("the source cannot be reached: {}", e.why);
                add(check("rows", Verdict::NotAvailable, why.clone()));
                add(check("fingerprints", Verdict::NotAvailable, why));
            }
            Ok(mut source) => {
                let (compared, healed) = compare(&mut source, &mut shadow, &tables, watch, cancel).await?;
                if !healed.is_empty() && options.suspects.is_empty() {
                    let pages: Vec<String> = healed.iter().map(Damaged::describe).collect();
                    let detail =
                        format!("what is damaged on disk in the source can be read here: {}", pages.join("; "));
                    gone = check(DAMAGE_GONE, Verdict::Passed, detail);
                }
                compared.into_iter().for_each(&mut add);
                live = Some(source);
            }
        },
    }
    add(gone);
    unlogged::check_unlogged(&mut shadow, live.as_mut()).await?.into_iter().for_each(&mut add);
    step(watch, cancel, "checksums")?;
    add(checksums(&mut shadow).await?);
    step(watch, cancel, "constraints")?;
    add(constraints::check_constraints(&mut shadow, &tables, cancel).await?);
    step(watch, cancel, "indexes")?;
    add(indexes::check_indexes(&mut shadow, watch, cancel).await?);
    step(watch, cancel, "sequences")?;
    add(sequences::check_sequences(&mut shadow).await?);
    Ok(checks)
}

/// `passed       rows: 5 tables, …`: one line for people.
pub fn line(c: &Check) -> String {
    let verdict = match c.verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "FAILED",
        Verdict::NotAvailable => "not checked",
    };
    format!("{verdict:<13} {}: {}", c.name, c.detail)
}

fn step(watch: &dyn Watch, cancel: &CancellationToken, name: &'static str) -> Result<()> {
    check_cancel(cancel, "the shadow is not verified")?;
    watch.phase(&Phase { name, ..Phase::default() });
    Ok(())
}

/// Connects with everything pinned that changes how a value looks as text.
///
/// # Errors
/// Not reachable.
pub async fn open(at: &Database, statement: Duration) -> Result<PgConnection> {
    let mut c = at.connect_read_only(Duration::from_secs(2), statement).await?;
    run(
        &mut c,
        "SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET xmlbinary = 'base64'; \
         SET lc_monetary = 'C'; SET client_encoding = 'UTF8'; SET synchronize_seqscans = off",
    )
    .await?;
    Ok(c)
}

async fn state(c: &mut PgConnection) -> Result<Check> {
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), \
               CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_get_wal_replay_pause_state() ELSE '' END, \
               coalesce((CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() END)::text, '')";
    let (recovering, pause, lsn): (bool, String, String) =
        sqlx::query_as(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    Ok(match (recovering, pause.as_str()) {
        (true, "paused") => check("recovery", Verdict::Passed, format!("paused at {lsn}, before its target")),
        (true, other) => check("recovery", Verdict::Failed, format!("still replaying at {lsn} ({other})")),
        (false, _) => check("recovery", Verdict::Passed, "ended, the instance is open"),
    })
}

/// Every page read so far had the checksum it was written with, as the recovered server itself counts.
async fn checksums(c: &mut PgConnection) -> Result<Check> {
    const NAME: &str = "checksums";
    Ok(match pages::counted(c).await? {
        None => check(NAME, Verdict::NotAvailable, "the cluster was made without checksums of its pages"),
        Some((0, _)) => check(NAME, Verdict::Passed, "no page of those read had a wrong one"),
        Some((n, _)) => check(NAME, Verdict::Failed, format!("{n} pages were read whose checksum was wrong")),
    })
}

async fn damage_gone(c: &mut PgConnection, suspects: &[u32]) -> Result<Check> {
    const NAME: &str = DAMAGE_GONE;
    if suspects.is_empty() {
        return Ok(check(
            NAME,
            Verdict::NotAvailable,
            "no suspect transactions are known: look at the records yourself",
        ));
    }
    if !super::tables::commit_times(c).await? {
        return Ok(check(NAME, Verdict::NotAvailable, "the shadow does not record commit times"));
    }
    let there = committed_here(c, suspects).await?;
    Ok(if there.is_empty() {
        check(NAME, Verdict::Passed, format!("none of {} suspect transaction ids was replayed", suspects.len()))
    } else {
        let shown: Vec<String> = there.iter().take(5).map(u32::to_string).collect();
        check(
            NAME,
            Verdict::Failed,
            format!(
                "{} suspect transactions were replayed: {}; choose an earlier moment",
                there.len(),
                shown.join(", ")
            ),
        )
    })
}

/// Which of these transactions committed in this database.
///
/// # Errors
/// The query fails, or no commit times are recorded.
pub async fn committed_here(c: &mut PgConnection, xids: &[u32]) -> Result<Vec<u32>> {
    let list: Vec<i64> = xids.iter().map(|x| i64::from(*x)).collect();
    let sql = "SELECT x FROM unnest($1::int8[]) x WHERE pg_catalog.pg_xact_commit_timestamp(x::text::xid) IS NOT NULL";
    let rows: Vec<i64> =
        sqlx::query_scalar(sql).bind(list).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    Ok(rows.into_iter().filter_map(|x| u32::try_from(x).ok()).collect())
}

/// Which rows of the source the shadow must hold: those written by transactions that the shadow replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary {
    /// Committed before this: replayed for certain.
    pub certain: Time,
    /// Committed later and replayed all the same: order is position in the log, times differ from it by milliseconds.
    pub also: Vec<u32>,
}

impl Boundary {
    /// The condition on `xmin`, for SQL.
    pub fn sql(&self) -> String {
        let list = if self.also.is_empty() {
            String::new()
        } else {
            let ids: Vec<String> = self.also.iter().map(u32::to_string).collect();
            format!(" OR xmin::text = ANY ('{{{}}}')", ids.join(","))
        };
        format!(
            "(coalesce(pg_catalog.pg_xact_commit_timestamp(xmin), '-infinity') < \
             pg_catalog.to_timestamp({}::numeric / 1000000){list})",
            self.certain.micros()
        )
    }

    /// Asks both servers. The border is taken wide (ten seconds), and every transaction within is asked for by its id.
    ///
    /// # Errors
    /// A query fails, or one of them records no commit times.
    pub async fn between(source: &mut PgConnection, shadow: &mut PgConnection) -> Result<Self> {
        let Some(reached) = super::locate::last_commit(shadow).await? else {
            return Err(Error::target("the shadow knows no last commit").why("it holds no commit times"));
        };
        let certain = reached.minus(Duration::from_secs(10));
        let sql = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8";
        let next: i64 = sqlx::query_scalar(sql).fetch_one(&mut *shadow).await.map_err(|e| query_error(sql, &e))?;
        let own: i64 = sqlx::query_scalar(sql).fetch_one(&mut *source).await.map_err(|e| query_error(sql, &e))?;
        let sql = "SELECT x % 4294967296 FROM pg_catalog.generate_series(greatest($1::int8 - 200000, 3), \
                   least($1::int8 + 200000, $2::int8 - 1)) x WHERE x % 4294967296 >= 3 \
                   AND pg_catalog.pg_xact_commit_timestamp((x % 4294967296)::text::xid) \
                       >= pg_catalog.to_timestamp($3::numeric / 1000000)";
        let near: Vec<i64> = sqlx::query_scalar(sql)
            .bind(next)
            .bind(own)
            .bind(certain.micros())
            .fetch_all(&mut *source)
            .await
            .map_err(|e| query_error(sql, &e))?;
        let near: Vec<u32> = near.into_iter().filter_map(|x| u32::try_from(x).ok()).collect();
        let also = committed_here(shadow, &near).await?;
        Ok(Self { certain, also })
    }
}

async fn compare(
    source: &mut PgConnection,
    shadow: &mut PgConnection,
    tables: &[Table],
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<(Vec<Check>, Vec<Damaged>)> {
    let theirs = user_tables(source).await?;
    let (mut out, mut healed) = (Vec::new(), Vec::new());
    let names = |all: &[Table], other: &[Table], again: bool| -> Vec<String> {
        let gone = all.iter().filter(|t| !other.iter().any(|s| s.oid == t.oid));
        gone.filter(|t| made_again(t, all, other).is_some() == again).map(|t| t.name.clone()).collect()
    };
    let (missing, gone) = (names(&theirs, tables, false), names(tables, &theirs, false));
    let again = names(tables, &theirs, true);
    if !missing.is_empty() {
        out.push(check(
            "tables",
            Verdict::NotAvailable,
            format!("only in the source, created after the moment or missing: {}", missing.join(", ")),
        ));
    }
    if !gone.is_empty() {
        out.push(check("tables", Verdict::Passed, format!("back again, dropped in the source: {}", gone.join(", "))));
    }
    if !again.is_empty() {
        out.push(check(
            "tables",
            Verdict::Passed,
            format!("dropped in the source and made again there since: {}", again.join(", ")),
        ));
    }
    let both = super::tables::commit_times(source).await? && super::tables::commit_times(shadow).await?;
    if !both {
        let why = "no commit times are recorded, so rows from before the moment cannot be told from later ones";
        out.push(check("fingerprints", Verdict::NotAvailable, why));
        return Ok((out, healed));
    }
    let boundary = Boundary::between(source, shadow).await?;
    let (mut rows, mut since, mut compared) = (0u64, 0u64, 0usize);
    let pairs: Vec<(&Table, &Table)> =
        tables.iter().filter_map(|t| theirs.iter().find(|s| s.oid == t.oid).map(|s| (s, t))).collect();
    for (i, (theirs, ours)) in pairs.iter().enumerate() {
        check_cancel(cancel, "the shadow is not verified")?;
        watch.phase(&Phase {
            name: "fingerprints",
            done: i as u64,
            total: Some(pairs.len() as u64),
            unit: "tables",
            text: ours.name.clone(),
            ..Phase::default()
        });
        let result = fingerprint::compare_table(
            fingerprint::Side { c: &mut *source, table: theirs },
            fingerprint::Side { c: &mut *shadow, table: ours },
            &boundary,
            cancel,
        )
        .await?;
        compared += usize::from(result.check.verdict != Verdict::NotAvailable);
        rows += result.rows;
        since += result.changed_since;
        out.push(result.check);
        healed.extend(result.healed);
    }
    let bad = out.iter().any(|c| c.verdict == Verdict::Failed);
    // What could not be read says nothing of its rows.
    let verdict = match (bad, compared) {
        (true, _) => Verdict::Failed,
        (false, 0) if !pairs.is_empty() => Verdict::NotAvailable,
        _ => Verdict::Passed,
    };
    let detail = match (compared, pairs.len()) {
        (0, n) if n > 0 => format!("none of the {n} tables that both have could be compared; below is why"),
        (some, n) if some < n => format!(
            "{rows} rows in {some} of {n} tables of the shadow, the others could not be compared; {since} of them changed or \
             deleted in the source since"
        ),
        (_, n) => {
            format!("{rows} rows in {n} tables of the shadow; {since} of them changed or deleted in the source since")
        }
    };
    out.insert(0, check("rows", verdict, detail));
    Ok((out, healed))
}
