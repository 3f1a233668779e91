//! Health of the service in front of the database, as the service itself tells it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::model::{CleanText, format_clock};
use crate::provider::{http, innermost};

use super::watch::{Phase, Watch, check_cancel};

/// How long the service may take to answer.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// What to say where nobody asks the service itself.
pub const NO_CHECK: &str = "no health check of the service is configured (service.health_url)";
/// An answer longer than this is no health report.
const MAX_ANSWER: usize = 1 << 20;

/// What the service says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// All well.
    pub healthy: bool,
    /// Component to status, as the service words it.
    pub components: BTreeMap<String, String>,
    /// Component to one sentence, where the service gives one.
    pub details: BTreeMap<String, String>,
}

impl Health {
    /// The components that are not well, as [`Health::describe`] words them.
    fn unwell(&self) -> String {
        let mut bad = self.clone();
        bad.components.retain(|_, status| !is_good(status));
        if bad.components.is_empty() { "a good answer".into() } else { bad.describe() }
    }

    /// One line: `billing degraded: …; database operational`.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = self
            .components
            .iter()
            .map(|(name, status)| match self.details.get(name) {
                Some(d) if !d.is_empty() => format!("{name} {status} ({d})"),
                _ => format!("{name} {status}"),
            })
            .collect();
        if parts.is_empty() { "no component reported".into() } else { parts.join("; ") }
    }
}

/// The members of a health report that are understood; everything else is ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    status: Option<String>,
    healthy: Option<bool>,
    components: BTreeMap<String, serde_json::Value>,
    details: BTreeMap<String, serde_json::Value>,
}

/// Words with which services say that a component is well.
const GOOD: [&str; 8] = ["operational", "ok", "up", "healthy", "pass", "good", "green", "true"];

/// Whether a component's status, as the service words it, is good news.
pub fn is_good(word: &str) -> bool {
    GOOD.contains(&word.to_lowercase().as_str())
}

/// Reads an answer: its HTTP status and body. Without JSON the status alone decides.
pub fn understand(status: u16, body: &str) -> Health {
    let answered = (200..300).contains(&status);
    let report: Report = serde_json::from_str(body).unwrap_or_default();
    let word = |v: &serde_json::Value| -> String {
        let text = match v {
            serde_json::Value::String(s) => s.clone(),
            serde_json::Value::Object(o) => match o.get("status") {
                Some(serde_json::Value::String(s)) => s.clone(),
                _ => v.to_string(),
            },
            other => other.to_string(),
        };
        CleanText::text(&text).to_string()
    };
    let mut components: BTreeMap<String, String> =
        report.components.iter().map(|(k, v)| (CleanText::text(k).to_string(), word(v))).collect();
    let details = report
        .details
        .iter()
        .map(|(k, v)| (CleanText::text(k).to_string(), word(v)))
        .filter(|(_, v)| !v.is_empty())
        .collect();
    let said = report.healthy.unwrap_or_else(|| report.status.as_deref().is_none_or(is_good));
    let healthy = answered && said && components.values().all(|s| is_good(s));
    if !answered {
        components.insert("http".into(), status.to_string());
    } else if components.is_empty() {
        let status = report.status.unwrap_or_else(|| "operational".into());
        components.insert("service".into(), CleanText::text(&status).to_string());
    }
    Health { healthy, components, details }
}

/// Asks the service. A service that does not answer is reported as down, not as an error.
///
/// # Errors
/// Config when the URL cannot be used.
pub async fn ask(url: &str) -> Result<Health> {
    Ok(match fetch(url, "service.health_url").await? {
        Ok((status, body)) => understand(status, &body),
        Err(why) => Health {
            healthy: false,
            components: BTreeMap::from([("service".to_string(), "down".to_string())]),
            details: BTreeMap::from([("service".to_string(), CleanText::text(&why).to_string())]),
        },
    })
}

/// The answer of an address, its status and body; or why there is none.
///
/// # Errors
/// Config when the URL cannot be used; `key` is where it is configured.
pub async fn fetch(url: &str, key: &str) -> Result<std::result::Result<(u16, String), String>> {
    let client = client()?;
    let url = reqwest::Url::parse(url).map_err(|e| {
        Error::config(format!("the health URL {url:?} cannot be used")).why(e).hint(format!("put it right in {key}"))
    })?;
    let mut response = match client.get(url).send().await {
        Ok(r) => r,
        Err(e) => return Ok(Err(innermost(e))),
    };
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while body.len() < MAX_ANSWER {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(e) => return Ok(Err(innermost(e))),
        }
    }
    Ok(Ok((status, String::from_utf8_lossy(&body).into_owned())))
}

/// Asks until the service has been well for `hold` without a break, or `limit` is over. Returns the last answer. `watch` is told
/// what is waited for, and for how long at most.
///
/// # Errors
/// Config when the URL cannot be used, interrupted on request.
pub async fn wait_healthy(
    url: &str,
    hold: Duration,
    limit: Duration,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Health> {
    let begun = Instant::now();
    let mut well_since: Option<Instant> = None;
    loop {
        check_cancel(cancel, "the service was not seen healthy")?;
        let health = ask(url).await?;
        let text = if health.healthy {
            let well = well_since.get_or_insert_with(Instant::now).elapsed();
            if well >= hold {
                return Ok(health);
            }
            format!("well for {} of {}", format_clock(well), format_clock(hold))
        } else {
            well_since = None;
            if begun.elapsed() >= limit {
                return Ok(health);
            }
            let left = format_clock(limit.saturating_sub(begun.elapsed()));
            format!("waiting for the service, at most {left} more: {}", health.unwell())
        };
        watch.phase(&Phase { name: "health", text, ..Phase::default() });
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn client() -> Result<reqwest::Client> {
    http().timeout(TIMEOUT).build().map_err(|e| Error::state("no HTTP client can be made").why(e))
}
