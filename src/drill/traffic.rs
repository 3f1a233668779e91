//! Live traffic: several writers place orders through the service, each numbering its own without gaps, and log what they know.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::logs::{Known, OrderLine};
use super::random::Choices;
use super::service::{Fate, Link, NewOrder, Placed, Receipt, Service, now};
use super::shop::Scale;
use crate::model::Time;

/// How the traffic is shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    /// Writers.
    pub writers: u32,
    /// Orders a second of each writer, at most.
    pub per_second: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { writers: 4, per_second: 8 }
    }
}

/// After a failure a writer waits this long: long enough not to spin, short enough to be back at once.
const RETRY: Duration = Duration::from_millis(100);
/// Orders packed at once by the good bulk job, and how often.
const PACK: (i64, Duration) = (60, Duration::from_secs(4));

/// The running traffic.
pub struct Traffic {
    ledger: Arc<Ledger>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the writers know.
#[derive(Default)]
pub struct Ledger {
    lines: Mutex<Vec<OrderLine>>,
    paused: AtomicBool,
    resumed: Notify,
    /// Writers inside an order right now.
    active: AtomicU64,
    quiet: Notify,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Vec<OrderLine>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A copy of all lines.
    pub fn lines(&self) -> Vec<OrderLine> {
        self.lock().clone()
    }
    /// Lines so far.
    pub fn len(&self) -> usize {
        self.lock().len()
    }
    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
    /// Whether the writers are held back.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }
    /// Lets the writers go on.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::SeqCst);
        self.resumed.notify_waiters();
    }
    /// Holds the writers back and waits until none is inside an order: the ledger is complete then.
    /// A writer whose last commit is unknown counts as inside until it could ask, or `patience` is over.
    /// Returns whether the ledger is complete.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.paused.store(true, Ordering::SeqCst);
        let quiet = async {
            loop {
                let quiet = self.quiet.notified();
                tokio::pin!(quiet);
                quiet.as_mut().enable();
                if self.active.load(Ordering::SeqCst) == 0 {
                    return;
                }
                quiet.await;
            }
        };
        tokio::time::timeout(patience, quiet).await.is_ok()
    }
    async fn enter(&self) {
        loop {
            // Enter first, look second: a drain that saw nobody inside has then certainly been seen here.
            self.active.fetch_add(1, Ordering::SeqCst);
            let resumed = self.resumed.notified();
            tokio::pin!(resumed);
            resumed.as_mut().enable();
            if !self.is_paused() {
                return;
            }
            self.leave();
            resumed.await;
        }
    }
    fn leave(&self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
        self.quiet.notify_waiters();
    }
}

impl Traffic {
    /// Starts the writers and the good bulk job. `seed` decides what is ordered, not when.
    pub fn start(service: &Arc<Service>, shape: Shape, scale: Scale, seed: u64) -> Self {
        let ledger = Arc::new(Ledger::default());
        let mut tasks: Vec<JoinHandle<()>> = (1..=shape.writers)
            .map(|writer| {
                let writer = Writer {
                    service: service.clone(),
                    ledger: ledger.clone(),
                    writer,
                    scale,
                    choices: Choices::plain(seed, u64::from(writer)),
                    pause: Duration::from_micros(1_000_000 / u64::from(shape.per_second.max(1))),
                };
                tokio::spawn(writer.run())
            })
            .collect();
        tasks.push(tokio::spawn(pack(service.clone(), ledger.clone())));
        Self { ledger, tasks }
    }
    /// What the writers know.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
    /// Ends the traffic; an order in flight is cut off.
    pub fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Writer {
    service: Arc<Service>,
    ledger: Arc<Ledger>,
    writer: u32,
    scale: Scale,
    choices: Choices,
    pause: Duration,
}

impl Writer {
    async fn run(mut self) {
        let mut link = Link::default();
        let mut n = 1;
        loop {
            let order = self.order(n);
            self.ledger.enter().await;
            let wait = if self.settle(&mut link, &order).await {
                n += 1;
                // Between half and one and a half of the pause, so that the writers do not march in step.
                self.pause.mul_f64(0.5 + self.choices.below(1000) as f64 / 1000.0)
            } else {
                RETRY
            };
            self.ledger.leave();
            tokio::time::sleep(wait).await;
        }
    }

    /// Places one order; true when its number is used up, false when the same number is tried again.
    async fn settle(&mut self, link: &mut Link, order: &NewOrder) -> bool {
        let before = now();
        match self.service.place(link, order).await {
            Placed::Committed(receipt) => {
                self.note(Known::Committed, order, receipt, before);
                true
            }
            Placed::Closed => false,
            Placed::Failed(e) => {
                tracing::debug!(writer = self.writer, n = order.n, "order failed: {e}");
                false
            }
            Placed::Unknown(receipt, e) => {
                tracing::debug!(writer = self.writer, n = order.n, "commit unknown: {e}");
                self.ask(order, receipt, before).await
            }
        }
    }

    /// Asks until the database says whether the commit happened, or the service has left that database.
    async fn ask(&mut self, order: &NewOrder, receipt: Receipt, before: Time) -> bool {
        let mut link = Link::default();
        loop {
            match self.service.look_up(&mut link, &receipt, self.writer, order.n).await {
                Ok(Fate::Committed(found)) => {
                    self.note(Known::Committed, order, found, before);
                    return true;
                }
                Ok(Fate::NotCommitted) => return false,
                Ok(Fate::NobodyKnows) => {
                    self.note(Known::Unknown, order, receipt, before);
                    return true;
                }
                Ok(Fate::Open) => {}
                Err(e) => {
                    tracing::debug!(writer = self.writer, n = order.n, "cannot ask: {e}");
                    link.close();
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn note(&self, known: Known, order: &NewOrder, receipt: Receipt, before: Time) {
        let line = OrderLine {
            writer: order.writer,
            n: order.n,
            known,
            generation: receipt.generation,
            order: receipt.order,
            total_cents: receipt.total_cents,
            address: receipt.address,
            xid: receipt.xid,
            lsn_before: receipt.lsn_before,
            lsn_after: receipt.lsn_after,
            committed: receipt.committed,
            before,
            after: now(),
        };
        self.ledger.lock().push(line);
    }

    fn order(&mut self, n: u64) -> NewOrder {
        const CHANNELS: [&str; 4] = ["web", "app", "phone", "partner"];
        const STREETS: [&str; 6] =
            ["Harbour Lane", "Mill Road", "Orchard Row", "Station Square", "Garden Street", "Bridge Road"];
        const CITIES: [&str; 5] = ["Ashford", "Brookfield", "Castleton", "Dunmore", "Eastport"];
        let c = &mut self.choices;
        let pick = |c: &mut Choices, of: u64| i64::try_from(1 + c.below(of)).unwrap_or(1);
        NewOrder {
            writer: self.writer,
            n,
            customer: pick(c, self.scale.customers),
            product: pick(c, self.scale.products),
            quantity: i32::try_from(1 + c.below(4)).unwrap_or(1),
            channel: c.one(&CHANNELS).copied().unwrap_or("web"),
            address: format!(
                "{} {}, {} {}",
                c.between(1, 240),
                c.one(&STREETS).copied().unwrap_or_default(),
                c.between(10_000, 99_999),
                c.one(&CITIES).copied().unwrap_or_default()
            ),
        }
    }
}

/// Bulk work that is right: whoever looks for "many rows in one transaction" must tell it from the damage.
async fn pack(service: Arc<Service>, ledger: Arc<Ledger>) {
    let mut link = Link::default();
    loop {
        tokio::time::sleep(PACK.1).await;
        ledger.enter().await;
        if let Err(e) = service.pack(&mut link, PACK.0).await {
            tracing::debug!("packing failed: {e}");
        }
        ledger.leave();
    }
}
