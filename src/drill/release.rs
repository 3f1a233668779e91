//! The faulty release: it rewrites totals and addresses of a large share of the orders, in several batches, while good
//! orders keep coming. Only values change, never counts.
//!
//! What it does, to which rows and when follows from a seed that exists in this process's memory alone, as does its log
//! until the drill is judged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::logs::{InjectorLine, digest_sql};
use super::random::Choices;
use super::service::{AFTER, BAD_RELEASE, Link, Service, now};
use crate::error::{Context, Result};
use crate::model::Time;

/// Name the faulty job gives itself on its connection.
pub const APPLICATION: &str = "storefront-release";
/// After the large batches it keeps damaging a little until it is stopped: one batch of 1 in this many rows.
const TRICKLE_SHARE: u64 = 151;
/// A failed batch is tried again after this.
const RETRY: Duration = Duration::from_millis(200);

/// When damage may begin after it was armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Window {
    /// Not before.
    pub from_ms: u64,
    /// Not after.
    pub to_ms: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { from_ms: 3_000, to_ms: 12_000 }
    }
}

/// What was drawn from the seed.
struct Scheme {
    delay: Duration,
    predicate: String,
    total: &'static str,
    order_address: Option<&'static str>,
    customer_address: Option<&'static str>,
    /// One remainder of `id % batches.len()` a batch.
    batches: Vec<u64>,
    gaps: Vec<Duration>,
    trickle: Vec<u64>,
}

/// The injector: armed at most once.
pub struct Injector {
    choices: Choices,
    sealed: Arc<Mutex<Vec<InjectorLine>>>,
    armed: bool,
}

impl Injector {
    /// Draws the seed.
    ///
    /// # Errors
    /// `State` when the operating system gives no random bytes.
    pub fn new() -> Result<Self> {
        Ok(Self { choices: Choices::secret()?, sealed: Arc::default(), armed: false })
    }

    /// Deploys the faulty release; its damage begins at a random moment within the window. A second call does nothing.
    pub fn arm(&mut self, service: &Arc<Service>, window: Window) {
        if self.armed {
            return;
        }
        self.armed = true;
        let scheme = draw(&mut self.choices, window);
        push(
            &self.sealed,
            InjectorLine::Plan {
                seed: self.choices.open(),
                armed: now(),
                release: BAD_RELEASE.into(),
                what: scheme.what(),
                predicate: scheme.predicate.clone(),
            },
        );
        service.release.deploy();
        tokio::spawn(run(service.clone(), scheme, self.sealed.clone()));
    }
    /// Whether it was armed.
    pub fn is_armed(&self) -> bool {
        self.armed
    }
    /// Opens the log. For the judge only.
    pub fn open(&self) -> Vec<InjectorLine> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn push(sealed: &Mutex<Vec<InjectorLine>>, line: InjectorLine) -> usize {
    let mut lines = sealed.lock().unwrap_or_else(PoisonError::into_inner);
    lines.push(line);
    lines.len() - 1
}

fn draw(c: &mut Choices, window: Window) -> Scheme {
    // Each condition holds for a fifth to two thirds of the orders and for old and recent ones alike.
    let mut regions = ["north", "south", "east", "west", "overseas"];
    let mut channels = ["web", "app", "phone", "partner"];
    c.shuffle(&mut regions);
    c.shuffle(&mut channels);
    let modulus = c.between(7, 29);
    let below = c.between(modulus.div_ceil(4), modulus * 6 / 10);
    let predicate = match c.below(5) {
        0 => format!("region IN ('{}', '{}')", regions[0], regions[1]),
        1 => format!("channel IN ('{}', '{}')", channels[0], channels[1]),
        2 => format!("customer_id % {modulus} < {below}"),
        3 => format!("product_id % {modulus} < {below}"),
        _ => format!("(region = '{}' OR channel = '{}')", regions[0], channels[0]),
    };
    // Every expression changes every total: all are above zero and none is its own tenth, half or surcharge.
    let total = c
        .one(&[
            "(total_cents + 9) / 10",
            "total_cents * 10",
            "total_cents * 119 / 100 + 1",
            "total_cents / 2",
            "total_cents + quantity * 100",
        ])
        .copied()
        .unwrap_or("total_cents * 10");
    let addresses = ["split_part(address, ',', 1)", "'undefined, ' || address", "reverse(address)", "'see invoice'"];
    let tables = c.below(3);
    let order_address = (tables != 1).then(|| c.one(&addresses).copied().unwrap_or("'see invoice'"));
    let customer_address = (tables != 0).then(|| c.one(&addresses).copied().unwrap_or("'see invoice'"));
    let count = c.between(3, 7);
    let mut batches: Vec<u64> = (0..count).collect();
    c.shuffle(&mut batches);
    let gaps = batches.iter().map(|_| Duration::from_millis(c.between(250, 1200))).collect();
    let trickle = (0..TRICKLE_SHARE).map(|_| c.below(TRICKLE_SHARE)).collect();
    let delay = Duration::from_millis(c.between(window.from_ms, window.to_ms.max(window.from_ms)));
    Scheme { delay, predicate, total, order_address, customer_address, batches, gaps, trickle }
}

impl Scheme {
    fn what(&self) -> String {
        let mut what = format!("orders.total_cents = {}", self.total);
        if let Some(a) = self.order_address {
            what += &format!(", orders.address = {a}");
        }
        if let Some(a) = self.customer_address {
            what += &format!(", customers.address = {a}");
        }
        what
    }
}

async fn run(service: Arc<Service>, scheme: Scheme, sealed: Arc<Mutex<Vec<InjectorLine>>>) {
    tokio::time::sleep(scheme.delay).await;
    let mut link = Link::default();
    let large = scheme.batches.len() as u64;
    let plan = scheme.batches.iter().zip(&scheme.gaps).map(|(r, gap)| (large, *r, *gap)).chain(
        // Slowly, so that a drill left alone for an hour does not fill the injector's log.
        scheme.trickle.iter().map(|r| (TRICKLE_SHARE, *r, Duration::from_secs(3))),
    );
    for (batch, (modulus, remainder, gap)) in plan.enumerate() {
        let number = u32::try_from(batch + 1).unwrap_or(u32::MAX);
        loop {
            if !service.release.enter() {
                return;
            }
            let done = damage(&service, &mut link, &scheme, number, modulus, remainder, &sealed).await;
            service.release.leave();
            match done {
                Ok(()) => break,
                Err(e) => {
                    tracing::debug!("batch {number}: {e}");
                    link.close();
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        tokio::time::sleep(gap).await;
    }
}

async fn damage(
    service: &Service,
    link: &mut Link,
    scheme: &Scheme,
    batch: u32,
    modulus: u64,
    remainder: u64,
    sealed: &Mutex<Vec<InjectorLine>>,
) -> Result<()> {
    let what = || "a batch of the release failed".to_string();
    let generation = service.generation();
    let server = service.server().await;
    let conn = link.open(&server, generation, APPLICATION).await?;
    let mut tx = conn.begin().await.target(what)?;
    sqlx::query("SELECT set_config('shop.release', $1, true)")
        .bind(BAD_RELEASE)
        .execute(&mut *tx)
        .await
        .target(what)?;
    let rows = format!("{} AND id % {modulus} = {remainder}", scheme.predicate);
    let mut tables = Vec::new();
    let (columns, set) = match scheme.order_address {
        Some(address) => {
            (vec!["total_cents", "address"], format!("total_cents = {}, address = {address}", scheme.total))
        }
        None => (vec!["total_cents"], format!("total_cents = {}", scheme.total)),
    };
    tables.push(("orders", columns.clone(), rewrite(&mut tx, "orders", &columns, &set, &rows).await?));
    if let Some(address) = scheme.customer_address {
        let rows = format!("id % {} = {}", modulus * 2, remainder);
        let columns = vec!["address"];
        let set = format!("address = {address}");
        tables.push(("customers", columns.clone(), rewrite(&mut tx, "customers", &columns, &set, &rows).await?));
    }
    let row = sqlx::query("SELECT pg_current_xact_id_if_assigned()::text, pg_current_wal_insert_lsn()::text")
        .fetch_one(&mut *tx)
        .await
        .target(what)?;
    let (Some(xid), lsn_before) = (row.get::<Option<String>, _>(0), row.get::<String, _>(1)) else {
        return Ok(()); // no row met the condition: nothing was written
    };
    if service.release.is_stopped() {
        return tx.rollback().await.target(what);
    }
    // Logged before the commit: a commit whose answer is lost must not be missing from the log.
    let mut places = Vec::new();
    for (table, columns, rows) in tables {
        places.push(push(
            sealed,
            InjectorLine::Damage {
                batch,
                table: format!("public.{table}"),
                columns: columns.into_iter().map(str::to_string).collect(),
                xid: xid.clone(),
                lsn_before: lsn_before.clone(),
                lsn_after: None,
                committed: None,
                generation,
                rows,
            },
        ));
    }
    tx.commit().await.target(what)?;
    let row = sqlx::query(AFTER).bind(&xid).fetch_one(conn).await.target(what)?;
    let lsn: String = row.get("lsn");
    let at = row.get::<Option<String>, _>("at").and_then(|t| Time::parse(&t).ok());
    let mut lines = sealed.lock().unwrap_or_else(PoisonError::into_inner);
    for place in places {
        if let Some(InjectorLine::Damage { lsn_after, committed, .. }) = lines.get_mut(place) {
            *lsn_after = Some(lsn.clone());
            *committed = at;
        }
    }
    Ok(())
}

/// Changes the rows and returns id, digest before and digest after of each.
async fn rewrite(
    conn: &mut PgConnection,
    table: &str,
    columns: &[&str],
    set: &str,
    rows: &str,
) -> Result<Vec<(i64, String, String)>> {
    let what = || format!("cannot rewrite {table}");
    let columns: Vec<String> = columns.iter().map(|c| (*c).to_string()).collect();
    let digest = digest_sql("t", &columns);
    // Locked in the order of the key and weakly enough that payments for these orders can still be made.
    let old = sqlx::query(&format!("SELECT id, {digest} FROM {table} t WHERE {rows} ORDER BY id FOR NO KEY UPDATE"))
        .fetch_all(&mut *conn)
        .await
        .target(what)?;
    let ids: Vec<i64> = old.iter().map(|r| r.get(0)).collect();
    let new = sqlx::query(&format!("UPDATE {table} t SET {set} WHERE id = ANY($1) RETURNING id, {digest}"))
        .bind(&ids)
        .fetch_all(&mut *conn)
        .await
        .target(what)?;
    let mut after: std::collections::HashMap<i64, String> = new.iter().map(|r| (r.get(0), r.get(1))).collect();
    let pairs = old.iter().filter_map(|r| after.remove(&r.get(0)).map(|new| (r.get(0), r.get(1), new)));
    // A row damaged before may come out as it was: rewritten, but nothing in it is different.
    Ok(pairs.filter(|(_, before, after): &(i64, String, String)| before != after).collect())
}
