//! The judge of a drill with a bad release: from the customers' log, the log of the releases, requests of its own and the
//! database, whether the service was really put right. Nothing here asks the actions that did it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sqlx::Row;

use super::logs::read;
use super::server::Server;
use super::storefront::{FIRST_CUSTOMER, RELEASES, REQUESTS, ReleaseLine, RequestLine, client};
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::model::event::{Check, Verdict};

/// Requests the judge sends itself.
const PROBES: u32 = 30;

/// What the judge found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Each check.
    pub checks: Vec<Check>,
    /// When the first request failed.
    pub began: Option<Time>,
    /// When the last one failed.
    pub ended: Option<Time>,
    /// Orders that were acknowledged and are not there.
    pub lost: u64,
}

/// Judges by the logs in `folder`, the database, and requests to `probe`. `restored` is what the recovery claims.
///
/// # Errors
/// When a log cannot be read or the database does not answer.
pub async fn judge(folder: &Path, server: &Server, probe: &str, restored: Option<Time>) -> Result<Judgement> {
    let requests: Vec<RequestLine> = read(&folder.join(REQUESTS))?;
    let releases: Vec<ReleaseLine> = read(&folder.join(RELEASES))?;
    let mut conn = server.connect("judge").await?;
    let rows = sqlx::query("SELECT writer, n, count(*) FROM orders WHERE writer >= $1 GROUP BY writer, n")
        .bind(i32::try_from(FIRST_CUSTOMER).unwrap_or(i32::MAX))
        .fetch_all(&mut conn)
        .await
        .target(|| "cannot read the customers' orders".into())?;
    let stored: BTreeMap<(u32, u64), i64> = rows
        .iter()
        .map(|r| {
            let (writer, n): (i32, i64) = (r.get(0), r.get(1));
            ((u32::try_from(writer).unwrap_or(0), u64::try_from(n).unwrap_or(0)), r.get(2))
        })
        .collect();
    let mut refused = 0;
    let client = client()?;
    for _ in 0..PROBES {
        let answer = client.get(probe).send().await;
        refused += u32::from(!answer.is_ok_and(|a| a.status().as_u16() == 200));
    }
    weigh(&requests, &releases, &stored, refused, restored)
}

/// The judgement from what was read: pure, so that it can be tried on made-up logs.
///
/// # Errors
/// Check when the log of the releases has no plan.
pub fn weigh(
    requests: &[RequestLine],
    releases: &[ReleaseLine],
    stored: &BTreeMap<(u32, u64), i64>,
    refused: u32,
    restored: Option<Time>,
) -> Result<Judgement> {
    let planned = releases.iter().find_map(|l| match l {
        ReleaseLine::Plan { release, flag, .. } => Some((release.clone(), flag.clone())),
        _ => None,
    });
    let Some((bad, bad_flag)) = planned else {
        return Err(Error::check("the drill cannot be judged").why("no bad release was ever ordered"));
    };
    let failed: Vec<&RequestLine> = requests.iter().filter(|r| r.status != Some(200)).collect();
    let began = requests.iter().filter(|r| r.status == Some(500)).map(|r| r.at).min();
    let ended = failed.iter().map(|r| r.at).max();
    let mut checks = Vec::new();
    let mut check = |name: &str, good: bool, detail: String| {
        let verdict = if good { Verdict::Passed } else { Verdict::Failed };
        checks.push(Check { name: name.into(), verdict, detail });
    };
    let deployed: Vec<(Time, &str)> = releases
        .iter()
        .filter_map(|l| match l {
            ReleaseLine::Deployed { at, release, .. } => Some((*at, release.as_str())),
            _ => None,
        })
        .collect();
    let times = deployed.iter().filter(|(_, r)| *r == bad).count();
    check("the fault was real", times > 0 && began.is_some(), format!("{} failing requests", failed.len()));
    check(
        "a good release is in service",
        deployed.last().is_some_and(|(_, r)| *r != bad),
        match deployed.last() {
            Some((at, r)) => format!("{r} since {}", at.hms()),
            None => "nothing was deployed".into(),
        },
    );
    check("the bad release came only once", times <= 1, format!("{times} times in service"));
    let last_on = |want: fn(&ReleaseLine) -> Option<bool>, first: bool| {
        releases.iter().filter_map(want).next_back().unwrap_or(first)
    };
    let auto = last_on(|l| if let ReleaseLine::Autodeploy { on, .. } = l { Some(*on) } else { None }, true);
    check("automatic deploys are stopped", !auto, if auto { "on" } else { "off" }.into());
    let flag = releases.iter().rev().find_map(|l| match l {
        ReleaseLine::Flag { flag, on, .. } if *flag == bad_flag => Some(*on),
        _ => None,
    });
    check(
        "the release's flag is off",
        flag == Some(false),
        format!("{bad_flag} is {}", if flag == Some(true) { "on" } else { "off" }),
    );
    let closed = last_on(|l| if let ReleaseLine::Maintenance { on, .. } = l { Some(*on) } else { None }, false);
    check("customers are let in", !closed, format!("maintenance is {}", if closed { "on" } else { "off" }));
    check("the judge's own requests", refused == 0, format!("{refused} of {PROBES} failed"));
    let after = restored.map(|t| requests.iter().filter(|r| r.at > t).collect::<Vec<_>>());
    match (&after, restored) {
        (Some(after), Some(t)) => {
            let bad = after.iter().filter(|r| r.status != Some(200)).count();
            let detail = format!("{bad} of {} requests failed after {}", after.len(), t.hms());
            check("restored when it says so", bad == 0 && !after.is_empty(), detail);
        }
        _ => check("restored when it says so", false, "service was never said to be restored".into()),
    }
    let taken: BTreeSet<(u32, u64)> =
        requests.iter().filter(|r| r.status == Some(200)).map(|r| (r.customer, r.n)).collect();
    let lost = taken.iter().filter(|k| !stored.contains_key(k)).count();
    let twice = stored.values().filter(|n| **n > 1).count();
    check(
        "no order is lost",
        lost == 0 && twice == 0,
        format!("of {} acknowledged orders {lost} are missing, {twice} are there twice", taken.len()),
    );
    Ok(Judgement { checks, began, ended, lost: u64::try_from(lost).unwrap_or(u64::MAX) })
}
