//! The shop's service: takes orders, answers for its health, and can be told what a plan tells a real one:
//! stop the release, go into maintenance, use another database.

mod health;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};
use tokio::sync::{Mutex, Notify, RwLock};

use super::server::{self, Server};
use super::shop::{GOOD_RELEASE, SUPERUSER};
use crate::error::{Context, Error, Result};
use crate::model::Time;
use health::{BILLING_SAMPLE, Probe};

pub use health::Health;

/// A statement of the service that takes longer than this is given up and its connection dropped.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// An order as a customer sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    /// Writer.
    pub writer: u32,
    /// Dense number of this writer.
    pub n: u64,
    /// Customer.
    pub customer: i64,
    /// Product.
    pub product: i64,
    /// How many.
    pub quantity: i32,
    /// `web`, `app`, …
    pub channel: &'static str,
    /// Where it is sent.
    pub address: String,
}

/// What the database answered about an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Which database, counted from 0.
    pub generation: u32,
    /// `orders.id`.
    pub order: i64,
    /// Total in cents.
    pub total_cents: i64,
    /// Address as stored.
    pub address: String,
    /// Transaction.
    pub xid: String,
    /// Position inside the transaction.
    pub lsn_before: String,
    /// Position after it, once it is known to be committed.
    pub lsn_after: Option<String>,
    /// Commit time by the server's clock.
    pub committed: Option<Time>,
}

/// How placing an order ended.
#[derive(Debug)]
pub enum Placed {
    /// Acknowledged by the server.
    Committed(Receipt),
    /// The service is in maintenance: nothing was sent.
    Closed,
    /// Certainly not committed.
    Failed(Error),
    /// The connection was lost while committing.
    Unknown(Receipt, Error),
}

/// What became of an order whose commit was not acknowledged.
#[derive(Debug)]
pub enum Fate {
    /// It is there.
    Committed(Receipt),
    /// It is not there and will not come.
    NotCommitted,
    /// The server is still at it: ask again.
    Open,
    /// The service has left that database.
    NobodyKnows,
}

/// A connection of somebody who works through the service; replaced when the service uses another database.
#[derive(Default)]
pub struct Link {
    conn: Option<PgConnection>,
    generation: u32,
}

struct Open {
    server: Server,
    maintenance: bool,
}

/// The faulty release as the service sees it.
#[derive(Default)]
pub struct ReleaseGate {
    /// Deployed: half of the service's processes carry its name.
    deployed: AtomicBool,
    /// Stopped by somebody; never starts again.
    stopped: AtomicBool,
    /// A batch of it is under way.
    busy: AtomicBool,
    idle: Notify,
}

/// The service.
pub struct Service {
    /// Read: an order is in flight. Write: none is.
    open: RwLock<Open>,
    generation: AtomicU32,
    system_identifier: String,
    stride: i64,
    started: Instant,
    last_order_ms: AtomicI64,
    orders: AtomicU64,
    /// Since when every order fails, and why the first did.
    failing: std::sync::Mutex<Option<(Instant, String)>>,
    /// Whether the traffic is held back by the umpire, so that silence is no symptom.
    pub held: AtomicBool,
    /// The faulty release.
    pub release: ReleaseGate,
    probe: Mutex<Probe>,
}

/// The release that is not good.
pub const BAD_RELEASE: &str = "2026.11.3";

const PLACE: &str = "
WITH o AS (
    INSERT INTO orders (customer_id, product_id, quantity, total_cents, status, channel, region, address, details, writer, n)
    SELECT c.id, p.id, $3, p.price_cents * $3, 'paid', $4, c.region, $5, jsonb_build_object('cart', $6::int * 1000000 + $7::bigint), $6, $7
    FROM customers c, products p WHERE c.id = $1 AND p.id = $2
    RETURNING id, total_cents, address
), paid AS (
    INSERT INTO payments (order_id, amount_cents, method, reference, writer, n)
    SELECT id, total_cents, 'card', 'W' || $6 || '-' || $7, $6, $7 FROM o
), noted AS (
    INSERT INTO audit_log (actor, release, action, object, rows, details, writer, n)
    SELECT current_setting('application_name'), $8, 'insert', 'public.orders', 1, jsonb_build_object('order', id), $6, $7 FROM o
)
SELECT id, total_cents, address, pg_current_xact_id()::text AS xid, pg_current_wal_insert_lsn()::text AS lsn FROM o";

/// The position now and the commit time of a transaction.
pub(super) const AFTER: &str = "
SELECT pg_current_wal_insert_lsn()::text AS lsn,
       to_char(pg_xact_commit_timestamp($1::text::xid8::xid) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS at";

// A transaction number beyond the counter was lost in a crash before it reached the disk: aborted. Payments are never
// changed after they were made, so their xmin is the order's own transaction.
const FIND: &str = "
SELECT CASE WHEN $1::text::xid8 < pg_snapshot_xmax(pg_current_snapshot()) THEN pg_xact_status($1::text::xid8) ELSE 'aborted' END AS status,
       pg_current_wal_insert_lsn()::text AS lsn,
       (SELECT to_char(pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
        FROM payments WHERE writer = $2 AND n = $3) AS at,
       EXISTS (SELECT FROM payments WHERE writer = $2 AND n = $3) AS found";

const PACK: &str = "
UPDATE orders SET status = 'packed' WHERE id IN (
    SELECT id FROM orders WHERE status = 'paid' AND placed_at > now() - interval '1 hour' ORDER BY id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)";

impl Service {
    /// A service on this database, which must have had no traffic yet.
    ///
    /// # Errors
    /// `Target` when the database does not answer, `State` when there was traffic.
    pub async fn start(server: Server, orders_loaded: u64) -> Result<Arc<Self>> {
        let mut conn = server.connect("storefront").await?;
        let (system_identifier, _) = server::identify(&mut conn).await?;
        let row = sqlx::query("SELECT EXISTS (SELECT FROM orders WHERE writer IS NOT NULL)")
            .fetch_one(&mut conn)
            .await
            .target(|| "cannot look at the shop".into())?;
        let _ = conn.close().await;
        if row.get(0) {
            return Err(Error::state("this sandbox had an umpire before").why("what its writers knew ended with it"));
        }
        Ok(Arc::new(Self {
            open: RwLock::new(Open { server, maintenance: false }),
            generation: AtomicU32::new(0),
            system_identifier,
            stride: i64::try_from((orders_loaded / 10 / BILLING_SAMPLE).max(1)).unwrap_or(1),
            started: Instant::now(),
            last_order_ms: AtomicI64::new(0),
            orders: AtomicU64::new(0),
            failing: std::sync::Mutex::default(),
            held: AtomicBool::new(false),
            release: ReleaseGate::default(),
            probe: Mutex::new(Probe::default()),
        }))
    }

    /// Which database is in use, counted from 0.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }
    /// Orders taken so far.
    pub fn orders_taken(&self) -> u64 {
        self.orders.load(Ordering::Relaxed)
    }
    /// The database in use.
    pub async fn server(&self) -> Server {
        self.open.read().await.server.clone()
    }
    /// Whether orders are refused.
    pub async fn in_maintenance(&self) -> bool {
        self.open.read().await.maintenance
    }
    /// The release a process of the service carries: after a deployment every second one has the new one.
    pub fn release_of(&self, writer: u32) -> &'static str {
        if self.release.is_running() && writer.is_multiple_of(2) { BAD_RELEASE } else { GOOD_RELEASE }
    }

    /// Takes an order: one transaction with the order, its payment and its audit row.
    pub async fn place(&self, link: &mut Link, order: &NewOrder) -> Placed {
        let open = self.open.read().await;
        if open.maintenance {
            return Placed::Closed;
        }
        let generation = self.generation();
        let placed = self.place_in(link, &open.server, generation, order).await;
        match &placed {
            Placed::Committed(_) => {
                self.orders.fetch_add(1, Ordering::Relaxed);
                self.hear();
                self.note_failing(None);
            }
            Placed::Closed => {}
            Placed::Failed(e) => {
                self.note_failing(Some(e));
                link.conn = None;
            }
            Placed::Unknown(..) => link.conn = None,
        }
        placed
    }

    /// An order failed, or one was taken, or nothing that failed before counts any more.
    fn note_failing(&self, error: Option<&Error>) {
        let mut failing = self.failing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match error {
            None => *failing = None,
            Some(e) => {
                failing.get_or_insert_with(|| (Instant::now(), e.to_string()));
            }
        }
    }

    /// Silence is counted from now on.
    pub fn hear(&self) {
        let ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.last_order_ms.store(ms, Ordering::Relaxed);
    }

    async fn place_in(&self, link: &mut Link, server: &Server, generation: u32, order: &NewOrder) -> Placed {
        let conn = match link.open(server, generation, &format!("storefront-{}", order.writer)).await {
            Ok(conn) => conn,
            Err(e) => return Placed::Failed(e),
        };
        let started = tokio::time::timeout(STATEMENT_TIMEOUT, async {
            let mut tx = conn.begin().await?;
            let row = sqlx::query(PLACE)
                .bind(order.customer)
                .bind(order.product)
                .bind(order.quantity)
                .bind(order.channel)
                .bind(&order.address)
                .bind(i32::try_from(order.writer).unwrap_or(i32::MAX))
                .bind(i64::try_from(order.n).unwrap_or(i64::MAX))
                .bind(self.release_of(order.writer))
                .fetch_one(&mut *tx)
                .await?;
            Ok::<_, sqlx::Error>((tx, receipt(&row, generation)))
        });
        let (tx, mut receipt) = match started.await {
            Ok(Ok(started)) => started,
            Ok(Err(e)) => return Placed::Failed(Error::target("the database refused an order").why(e)),
            Err(_) => return Placed::Failed(Error::target("the database took too long to take an order")),
        };
        // Once COMMIT is sent only the server knows the outcome: a limit of its own keeps "unknown" apart from "failed".
        match tokio::time::timeout(STATEMENT_TIMEOUT, tx.commit()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Placed::Unknown(receipt, Error::target("the connection was lost in a commit").why(e)),
            Err(_) => return Placed::Unknown(receipt, Error::target("a commit took too long")),
        }
        // Committed whatever happens now; without an answer only its exact position and time are missing.
        let after = sqlx::query(AFTER).bind(&receipt.xid).fetch_one(&mut *conn);
        if let Ok(Ok(row)) = tokio::time::timeout(STATEMENT_TIMEOUT, after).await {
            receipt.lsn_after = row.get("lsn");
            receipt.committed = row.get::<Option<String>, _>("at").and_then(|t| Time::parse(&t).ok());
        }
        Placed::Committed(receipt)
    }

    /// What became of an order whose commit is unknown, asked in the database it was sent to. `link` is kept for this alone.
    ///
    /// # Errors
    /// `Target` when the database does not answer.
    pub async fn look_up(&self, link: &mut Link, sent: &Receipt, writer: u32, n: u64) -> Result<Fate> {
        let open = self.open.read().await;
        let generation = self.generation();
        if generation != sent.generation {
            return Ok(Fate::NobodyKnows);
        }
        // As the superuser: containment may have taken the application's login away.
        let server = open.server.with_user(SUPERUSER);
        let conn = link.open(&server, generation, &format!("ledger-{writer}")).await?;
        let asked = sqlx::query(FIND)
            .bind(&sent.xid)
            .bind(i32::try_from(writer).unwrap_or(i32::MAX))
            .bind(i64::try_from(n).unwrap_or(i64::MAX))
            .fetch_one(conn);
        let what = || "cannot look for an order".to_string();
        let row = match tokio::time::timeout(STATEMENT_TIMEOUT, asked).await {
            Ok(row) => row.target(what)?,
            Err(_) => return Err(Error::target(what()).why("no answer in time")),
        };
        let status: Option<String> = row.get("status");
        Ok(match status.as_deref() {
            Some("in progress") => Fate::Open,
            Some("committed") if row.get("found") => Fate::Committed(Receipt {
                lsn_after: row.get("lsn"),
                committed: row.get::<Option<String>, _>("at").and_then(|t| Time::parse(&t).ok()),
                ..sent.clone()
            }),
            _ => Fate::NotCommitted,
        })
    }

    /// Good work in bulk: marks up to `limit` paid orders as packed. Returns how many; none in maintenance.
    ///
    /// # Errors
    /// `Target` when the database does not answer.
    pub async fn pack(&self, link: &mut Link, limit: i64) -> Result<u64> {
        let open = self.open.read().await;
        if open.maintenance {
            return Ok(0);
        }
        let conn = link.open(&open.server, self.generation(), "fulfilment").await?;
        let done = sqlx::query(PACK).bind(limit).execute(conn).await.target(|| "cannot pack orders".into());
        if done.is_err() {
            link.conn = None;
        }
        Ok(done?.rows_affected())
    }

    /// Refuses orders from now on (or takes them again); returns when no order is in flight.
    pub async fn maintenance(&self, on: bool) {
        self.open.write().await.maintenance = on;
        self.note_failing(None);
        // Nobody could order meanwhile: that silence is no symptom.
        self.hear();
        self.forget_health().await;
    }

    /// Uses another database, after the orders in flight have ended. It must be the same cluster in another place:
    /// a physical copy keeps its system identifier, so nothing but a recovered sandbox can be meant.
    ///
    /// # Errors
    /// `Target` when it does not answer, `Refused` when it is another cluster or still in recovery.
    pub async fn switch(&self, server: Server) -> Result<u32> {
        let mut conn = server.connect("storefront").await?;
        let (system_identifier, in_recovery) = server::identify(&mut conn).await?;
        let _ = conn.close().await;
        if system_identifier != self.system_identifier {
            return Err(Error::refused(format!("the database in {} is not this sandbox's", server.socket))
                .why(format!(
                    "its system identifier is {system_identifier}, the sandbox has {}",
                    self.system_identifier
                ))
                .hint("a drill cannot be pointed at another cluster; recover the sandbox's own backup"));
        }
        if in_recovery {
            return Err(Error::refused(format!("the database in {} is still in recovery", server.socket))
                .hint("promote it first"));
        }
        let mut open = self.open.write().await;
        if open.server == server {
            // Told again what it does already: it is no other database.
            return Ok(self.generation());
        }
        open.server = server;
        self.note_failing(None);
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        drop(open);
        self.forget_health().await;
        Ok(generation)
    }

    /// What is behind the database's address changes, by `change`, while no order is in flight. Counts as another database.
    pub async fn moved(&self, change: impl FnOnce()) -> u32 {
        let open = self.open.write().await;
        change();
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        drop(open);
        self.forget_health().await;
        generation
    }
}

impl ReleaseGate {
    /// Deploys the new release, once.
    pub fn deploy(&self) {
        self.deployed.store(true, Ordering::Release);
    }
    /// Whether it is deployed and not stopped.
    pub fn is_running(&self) -> bool {
        self.deployed.load(Ordering::Acquire) && !self.is_stopped()
    }
    /// Whether somebody stopped it.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
    /// Marks a batch as under way; false when the release is stopped.
    pub(super) fn enter(&self) -> bool {
        self.busy.store(true, Ordering::SeqCst);
        if self.stopped.load(Ordering::SeqCst) {
            self.leave();
            return false;
        }
        true
    }
    pub(super) fn leave(&self) {
        self.busy.store(false, Ordering::SeqCst);
        self.idle.notify_waiters();
    }
    /// Stops it for good and waits until no batch of it is under way. A batch not yet committed is rolled back.
    pub async fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if !self.busy.load(Ordering::SeqCst) {
                return;
            }
            idle.await;
        }
    }
}

impl Link {
    /// The connection to this generation's database, opened when there is none.
    pub(super) async fn open(
        &mut self,
        server: &Server,
        generation: u32,
        application: &str,
    ) -> Result<&mut PgConnection> {
        if self.generation != generation {
            self.conn = None;
        }
        self.generation = generation;
        if self.conn.is_none() {
            self.conn = Some(server.connect(application).await?);
        }
        self.conn.as_mut().ok_or_else(|| Error::state("a connection was closed while it was opened"))
    }
    /// Drops the connection.
    pub fn close(&mut self) {
        self.conn = None;
    }
}

fn receipt(row: &PgRow, generation: u32) -> Receipt {
    Receipt {
        generation,
        order: row.get("id"),
        total_cents: row.get("total_cents"),
        address: row.get("address"),
        xid: row.get("xid"),
        lsn_before: row.get("lsn"),
        lsn_after: None,
        committed: None,
    }
}

/// The clock of this process.
pub(super) fn now() -> Time {
    Time::from_system(SystemTime::now())
}
