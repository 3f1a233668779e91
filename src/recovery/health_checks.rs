//! The checks of health that a team configures: addresses, queries, disks. Each gives one component, and says in one sentence
//! what was seen when it is not well.

use std::path::Path;

use sqlx::postgres::PgConnection;

use super::health::{fetch, is_good, understand};
use crate::config::health::{DiskCheck, Expectation, SqlCheck, UrlCheck};
use crate::error::{Error, Result};
use crate::model::CleanText;
use crate::postgres::connect::{query_error, run};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The component.
    pub name: String,
    /// Its status: `operational`, or what is wrong in a word or two.
    pub status: String,
    /// What was seen, as one sentence; may be empty when all is well.
    pub detail: String,
}

impl Found {
    /// All well.
    pub fn good(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), status: "operational".into(), detail: detail.into() }
    }
    /// Not well.
    pub fn bad(name: &str, status: &str, detail: impl AsRef<str>) -> Self {
        let detail = CleanText::line(detail.as_ref().replace('\n', " ").as_bytes()).to_string();
        Self { name: name.into(), status: status.into(), detail }
    }
    /// Whether it is well.
    pub fn is_good(&self) -> bool {
        is_good(&self.status)
    }
}

/// What stands at a path of a JSON document: members joined by dots, elements of a list by their number from 0.
fn at_path<'v>(value: &'v serde_json::Value, path: &str) -> Option<&'v serde_json::Value> {
    path.split('.').try_fold(value, |v, part| match v {
        serde_json::Value::Array(all) => all.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

/// Asks an address. One that does not answer is down, which is no error.
///
/// # Errors
/// Config when the address cannot be used.
pub async fn url(check: &UrlCheck) -> Result<Found> {
    let name = &check.name;
    let (status, body) = match fetch(&check.url, &format!("health.url {name:?}")).await? {
        Ok(answer) => answer,
        Err(why) => return Ok(Found::bad(name, "down", why)),
    };
    let right = check.status.map_or((200..300).contains(&status), |wanted| wanted == status);
    if !right {
        let wanted = check.status.map_or("2xx".to_string(), |s| s.to_string());
        return Ok(Found::bad(name, "down", format!("answered with status {status}, {wanted} is expected")));
    }
    let Some(path) = &check.path else {
        if !(200..300).contains(&status) {
            return Ok(Found::good(name, format!("status {status}, as expected")));
        }
        let said = understand(status, &body);
        return Ok(if said.healthy { Found::good(name, "") } else { Found::bad(name, "degraded", said.describe()) });
    };
    let Ok(document) = serde_json::from_str::<serde_json::Value>(&body) else {
        return Ok(Found::bad(name, "unexpected", "the answer is not JSON"));
    };
    let word = match at_path(&document, path) {
        Some(serde_json::Value::String(s)) => s.clone(),
        Some(v @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_))) => v.to_string(),
        Some(_) => return Ok(Found::bad(name, "unexpected", format!("at {path} stands no single value"))),
        None => return Ok(Found::bad(name, "unexpected", format!("the answer has nothing at {path}"))),
    };
    let well = check.is.as_ref().map_or_else(|| is_good(&word), |is| *is == word);
    let shown: String = CleanText::line(word.as_bytes()).as_str().chars().take(80).collect();
    Ok(match well {
        true => Found::good(name, ""),
        false => Found::bad(name, "degraded", format!("{path} is {shown:?}")),
    })
}

/// Asks a query of a connection that reads only, with the search path its role has.
///
/// # Errors
/// The connection is gone.
pub async fn sql(c: &mut PgConnection, check: &SqlCheck) -> Result<Found> {
    let expect = match check.expect.as_deref().map(Expectation::parse) {
        None => Expectation::True,
        Some(Ok(expect)) => expect,
        Some(Err(e)) => return Err(Error::config(format!("health.sql {:?}: expect: {e}", check.name))),
    };
    run(c, "RESET search_path; RESET row_security").await?;
    let query = check.query.trim().trim_end_matches(';');
    // As a table of one column, so that a number, a truth and a text all come as text; the line end closes a comment.
    let wrapped = format!("SELECT health.seen::text FROM (\n{query}\n) AS health(seen) LIMIT 2");
    let answer: std::result::Result<Vec<Option<String>>, _> = sqlx::query_scalar(&wrapped).fetch_all(&mut *c).await;
    let rows = match answer {
        Ok(rows) => rows,
        Err(e) => return Ok(Found::bad(&check.name, "failed", query_error(query, &e).why)),
    };
    let seen = match rows.as_slice() {
        [] => return Ok(Found::bad(&check.name, "unexpected", format!("no row, {expect} is expected"))),
        [one] => one.as_deref(),
        _ => return Ok(Found::bad(&check.name, "unexpected", "more than one row; one is expected")),
    };
    if expect.fits(seen) {
        return Ok(Found::good(&check.name, ""));
    }
    let shown: String = CleanText::line(seen.unwrap_or("NULL").as_bytes()).as_str().chars().take(80).collect();
    Ok(Found::bad(&check.name, "unexpected", format!("{shown:?}, {expect} is expected")))
}

/// Looks at the room on a disk.
pub fn disk(check: &DiskCheck) -> Found {
    let shown = check.path.display();
    let stat = match rustix::fs::statvfs(Path::new(&check.path)) {
        Ok(stat) => stat,
        Err(e) => return Found::bad(&check.name, "missing", format!("{shown} cannot be looked at: {e}")),
    };
    // As `df` counts: of what is not kept back for root.
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let used = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
    let whole = used.saturating_add(free);
    let percent = free.saturating_mul(100) / whole.max(1);
    let wanted = match (check.bytes, check.percent) {
        (Some(bytes), _) => (free < bytes).then(|| megabytes(bytes)),
        (None, Some(p)) => (percent < u64::from(p)).then(|| format!("{p} %")),
        (None, None) => None,
    };
    let seen = format!("{} free of {} ({percent} %) at {shown}", megabytes(free), megabytes(whole));
    match wanted {
        None => Found::good(&check.name, seen),
        Some(wanted) => Found::bad(&check.name, "low", format!("{seen}; at least {wanted} are wanted")),
    }
}

fn megabytes(bytes: u64) -> String {
    match bytes / 1_000_000 {
        mb if mb >= 10_000 => format!("{} GB", mb / 1000),
        mb => format!("{mb} MB"),
    }
}
