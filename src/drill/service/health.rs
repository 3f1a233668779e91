//! How the service is: its database, its billing, its orders.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::{BAD_RELEASE, Link, STATEMENT_TIMEOUT, Service};
use crate::drill::server::Server;
use crate::drill::shop::GOOD_RELEASE;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::connect::{describe, sqlstate};
use crate::recovery::pages::DATA_CORRUPTED;

/// A health answer younger than this is given again.
const HEALTH_CACHE: Duration = Duration::from_millis(300);
/// Without an order for this long the component `orders` is not operational.
const ORDER_SILENCE: Duration = Duration::from_secs(15);
/// SQLSTATE of a query that was given up for another one (deadlock_detected).
const DEADLOCK: &str = "40P01";
/// Orders that failed for this long without one that was taken make the component `orders` degraded.
const FAILING: Duration = Duration::from_secs(2);
/// Wrong totals are reported when they have been seen for this long: monitoring is never as quick as the damage.
const ALARM_LAG: Duration = Duration::from_secs(5);
/// Reading the billing of more orders than about this many would make the health check heavy.
pub(super) const BILLING_SAMPLE: u64 = 3_000;

// Orders of the last day, thinned to a bounded number: what was charged must be what was paid.
const BILLING: &str = "
SELECT count(*), count(*) FILTER (WHERE o.total_cents IS DISTINCT FROM p.paid)
FROM orders o
LEFT JOIN LATERAL (SELECT sum(amount_cents)::bigint AS paid FROM payments WHERE order_id = o.id) p ON true
WHERE o.placed_at > now() - interval '1 day' AND o.id % $1 = 0 AND o.status IN ('paid', 'packed', 'shipped')";

#[derive(Default)]
pub(super) struct Probe {
    link: Link,
    last: Option<(Instant, Health)>,
    wrong_since: Option<Instant>,
}

/// Health as `/api/health` answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `operational`, `degraded`, `maintenance` or `down`: the worst of the components.
    pub status: String,
    /// Whether every component is operational.
    pub healthy: bool,
    /// Component → status.
    pub components: BTreeMap<String, String>,
    /// Component → one sentence, where there is something to say.
    pub details: BTreeMap<String, String>,
    /// Whether orders are refused.
    pub maintenance: bool,
    /// Name of the newest release in service.
    pub release: String,
    /// Orders taken so far.
    pub orders_taken: u64,
    /// Database in use.
    pub database: Server,
}

impl Service {
    pub(super) async fn forget_health(&self) {
        self.probe.lock().await.last = None;
    }

    /// Health, looked at now or less than 300 ms ago.
    pub async fn health(&self) -> Health {
        let mut probe = self.probe.lock().await;
        if let Some((at, health)) = &probe.last
            && at.elapsed() < HEALTH_CACHE
        {
            return health.clone();
        }
        let (server, maintenance) = {
            let open = self.open.read().await;
            (open.server.clone(), open.maintenance)
        };
        let billing = tokio::time::timeout(STATEMENT_TIMEOUT, self.billing(&mut probe.link, &server))
            .await
            .unwrap_or_else(|_| Err(Error::target("the database took too long to answer")));
        if billing.is_err() {
            probe.link.conn = None;
        }
        match &billing {
            Ok((_, 0)) => probe.wrong_since = None,
            Ok(_) => {
                probe.wrong_since.get_or_insert_with(Instant::now);
            }
            Err(_) => {}
        }
        let alarm = probe.wrong_since.is_some_and(|since| since.elapsed() >= ALARM_LAG);
        let health = self.word(server, maintenance, billing, alarm);
        probe.last = Some((Instant::now(), health.clone()));
        health
    }

    async fn billing(&self, link: &mut Link, server: &Server) -> Result<(i64, i64)> {
        let conn = link.open(server, self.generation(), "health").await?;
        let mut row = sqlx::query(BILLING).bind(self.stride).fetch_one(&mut *conn).await;
        // That a table was being changed at this moment says nothing of its rows: it is looked at once more.
        if row.as_ref().is_err_and(|e| sqlstate(e).as_deref() == Some(DEADLOCK)) {
            row = sqlx::query(BILLING).bind(self.stride).fetch_one(&mut *conn).await;
        }
        let what = || "cannot compare orders with payments".to_string();
        match row {
            Ok(row) => Ok((row.get(0), row.get(1))),
            Err(e) if sqlstate(&e).as_deref() == Some(DATA_CORRUPTED) => Err(Error::check(what()).why(describe(&e))),
            Err(e) => Err(e).target(what),
        }
    }

    fn word(&self, server: Server, maintenance: bool, billing: Result<(i64, i64)>, alarm: bool) -> Health {
        let mut components = BTreeMap::new();
        let mut details = BTreeMap::new();
        let mut say = |name: &str, status: &str, detail: String| {
            components.insert(name.to_string(), status.to_string());
            if !detail.is_empty() {
                details.insert(name.to_string(), detail);
            }
        };
        match billing {
            Ok((seen, wrong)) => {
                say("database", "operational", String::new());
                let detail = format!("{wrong} of {seen} recent orders disagree with their payments");
                match alarm {
                    true => say("billing", "degraded", detail),
                    false => say("billing", "operational", String::new()),
                }
            }
            // The server answers, and says which of its pages it cannot read.
            Err(e) if e.kind == ErrorKind::Check => {
                say("database", "degraded", e.why.clone());
                say("billing", "down", "cannot be read".into());
            }
            Err(e) => {
                say("database", "down", e.to_string());
                say("billing", "down", "cannot be read".into());
            }
        }
        let now = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let silence = u64::try_from(now - self.last_order_ms.load(Ordering::Relaxed)).unwrap_or(0);
        if maintenance {
            say("orders", "maintenance", "writes are off".into());
        } else if silence > ORDER_SILENCE.as_millis() as u64 && !self.held.load(Ordering::Relaxed) {
            say("orders", "down", format!("no order for {} s", silence / 1000));
        } else {
            let failing = self.failing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let held = self.held.load(Ordering::Relaxed);
            match failing.as_ref().filter(|(since, _)| !held && since.elapsed() >= FAILING) {
                Some((_, why)) => say("orders", "degraded", format!("no order is taken: {why}")),
                None => say("orders", "operational", String::new()),
            }
        }
        let status = ["down", "maintenance", "degraded"]
            .into_iter()
            .find(|s| components.values().any(|c| c == s))
            .unwrap_or("operational");
        Health {
            status: status.into(),
            healthy: status == "operational",
            components,
            details,
            maintenance,
            release: if self.release.is_running() { BAD_RELEASE } else { GOOD_RELEASE }.into(),
            orders_taken: self.orders_taken(),
            database: server,
        }
    }
}
