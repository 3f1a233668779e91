//! The clean-up job with a wrong condition: it takes payments away, by deleting most of them or by emptying the
//! table, while orders keep coming. How and when follows from a seed in this process's memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Connection, Row};

use super::logs::digest_sql;
use super::random::Choices;
use super::release::Window;
use super::service::{AFTER, Service, now};
use super::shop::SUPERUSER;
use crate::error::{Context, Result};
use crate::model::Time;

/// File name of the job's log.
pub const DELETIONS: &str = "deletions.jsonl";
/// The table it takes from.
pub const TABLE: &str = "payments";

/// How rows were taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// DELETE with a condition that is too wide.
    Rows,
    /// TRUNCATE.
    Truncate,
    /// DROP TABLE.
    Drop,
}

impl Way {
    /// By the name of a variant.
    pub fn of(variant: &str) -> Option<Self> {
        match variant {
            "rows" => Some(Self::Rows),
            "truncate" => Some(Self::Truncate),
            "drop" => Some(Self::Drop),
            _ => None,
        }
    }
}

/// One line of the job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum DeletionLine {
    /// What was decided, from which seed.
    Plan {
        /// The secret seed in hexadecimal.
        seed: String,
        /// When it was armed.
        armed: Time,
        /// How.
        way: Way,
        /// Statement.
        statement: String,
    },
    /// It happened.
    Deleted {
        /// Transaction, as text.
        xid: String,
        /// Commit time by the server's clock.
        committed: Option<Time>,
        /// Constraints of the table before it.
        constraints: Vec<String>,
        /// Row id and digest of each row taken away.
        rows: Vec<(i64, String)>,
    },
}

/// The job: armed at most once.
pub struct Deleter {
    choices: Mutex<Choices>,
    sealed: Arc<Mutex<Vec<DeletionLine>>>,
    armed: AtomicBool,
    way: Option<Way>,
}

/// Columns the digest is taken of.
pub fn columns() -> Vec<String> {
    ["order_id", "amount_cents", "method", "reference"].map(String::from).to_vec()
}

/// The constraints of the table, by name and definition.
pub const CONSTRAINTS: &str = "SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
     WHERE conrelid = to_regclass('public.payments') ORDER BY 1";

impl Deleter {
    /// Draws the seed. With `way` the way is given and not drawn.
    ///
    /// # Errors
    /// State when the operating system gives no random bytes.
    pub fn new(way: Option<Way>) -> Result<Self> {
        let armed = AtomicBool::new(false);
        Ok(Self { choices: Mutex::new(Choices::secret()?), sealed: Arc::default(), armed, way })
    }
    /// It runs at a random moment of the window. A second call does nothing.
    pub fn arm(&self, service: &Arc<Service>, window: Window) {
        if self.armed.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut c = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        let drawn = c.one(&[Way::Rows, Way::Rows, Way::Truncate, Way::Drop]).copied().unwrap_or(Way::Rows);
        let way = self.way.unwrap_or(drawn);
        let statement = match way {
            Way::Rows => {
                let (modulus, rest) = (c.between(3, 5), c.below(3));
                format!("DELETE FROM {TABLE} WHERE order_id % {modulus} <> {rest}")
            }
            Way::Truncate => format!("TRUNCATE {TABLE}"),
            Way::Drop => format!("DROP TABLE {TABLE}"),
        };
        let delay = Duration::from_millis(c.between(window.from_ms, window.to_ms.max(window.from_ms)));
        let line = DeletionLine::Plan { seed: c.open(), armed: now(), way, statement: statement.clone() };
        drop(c);
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        service.release.deploy();
        let (service, sealed) = (service.clone(), self.sealed.clone());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            for _ in 0..50 {
                match delete(&service, way, &statement, &sealed).await {
                    Ok(()) => return,
                    Err(e) => tracing::debug!("the job failed: {e}"),
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    /// Whether it was armed.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }
    /// Opens the log. For the judge only.
    pub fn open(&self) -> Vec<DeletionLine> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn delete(service: &Service, way: Way, statement: &str, sealed: &Mutex<Vec<DeletionLine>>) -> Result<()> {
    let what = || "the job failed".to_string();
    let server = service.server().await.with_user(SUPERUSER);
    let mut conn = server.connect("cleanup").await?;
    let constraints: Vec<String> = sqlx::query_scalar(CONSTRAINTS).fetch_all(&mut conn).await.target(what)?;
    let mut tx = conn.begin().await.target(what)?;
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *tx).await.target(what)?;
    let digest = digest_sql("t", &columns());
    let taken = match way {
        Way::Rows => sqlx::query(&format!("{} RETURNING id, {}", statement.replace("payments", "payments t"), digest))
            .fetch_all(&mut *tx)
            .await
            .target(what)?,
        Way::Truncate | Way::Drop => {
            sqlx::query(&format!("LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE"))
                .execute(&mut *tx)
                .await
                .target(what)?;
            let rows =
                sqlx::query(&format!("SELECT id, {digest} FROM {TABLE} t")).fetch_all(&mut *tx).await.target(what)?;
            sqlx::query(statement).execute(&mut *tx).await.target(what)?;
            rows
        }
    };
    let xid: String = sqlx::query_scalar("SELECT pg_current_xact_id()::text").fetch_one(&mut *tx).await.target(what)?;
    let rows: Vec<(i64, String)> = taken.iter().map(|r| (r.get(0), r.get(1))).collect();
    tx.commit().await.target(what)?;
    let after = sqlx::query(AFTER).bind(&xid).fetch_one(&mut conn).await.target(what)?;
    let committed = after.get::<Option<String>, _>("at").and_then(|t| Time::parse(&t).ok());
    let line = DeletionLine::Deleted { xid, committed, constraints, rows };
    sealed.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    Ok(())
}
