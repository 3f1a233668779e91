//! The shop's web front as a drill of a bad release sees it: releases, a pipeline that deploys by itself, flags, maintenance
//! mode, customers who send real requests over the loopback interface, and a log of each that nobody else writes.
//!
//! What the bad release does, when it comes and with which flag follows from a seed in this process's memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::random::Choices;
use super::release::Window;
use super::service::{Health, Link, NewOrder, Placed, Service, now};
use super::shop::{GOOD_RELEASE, Scale};
use crate::error::{Context, Error, Result};
use crate::model::Time;

/// File name of the customers' log.
pub const REQUESTS: &str = "requests.jsonl";
/// File name of the log of releases, flags and switches, the secret plan first.
pub const RELEASES: &str = "releases.jsonl";
/// Customers are numbered from here, as writers of their orders.
pub const FIRST_CUSTOMER: u32 = 1_001;

/// Customers at the same time.
const CUSTOMERS: u32 = 4;
/// A customer waits this long between two requests.
const PAUSE: Duration = Duration::from_millis(60);
/// How often the pipeline looks whether there is something to deploy.
const PIPELINE: Duration = Duration::from_secs(2);
/// Health is judged by the requests of this time.
const RECENT: Duration = Duration::from_secs(4);
/// A share of failing requests, in percent, from which on health is degraded, and from which on it is down.
const LIMITS: (usize, usize) = (2, 60);
/// The release before the good one.
const OLD_RELEASE: &str = "2026.11.1";
/// The release that is not good.
const NEW_RELEASE: &str = "2026.11.4";
/// Flags of the shop; the bad release switches one of them on.
const FLAGS: [&str; 4] = ["express_checkout", "gift_cards", "live_stock", "one_page_cart"];

/// One request of a customer, as the customer saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLine {
    /// Customer.
    pub customer: u32,
    /// Number of the order asked for; used again until it is taken.
    pub n: u64,
    /// When the answer came.
    pub at: Time,
    /// HTTP status; none when there was no answer.
    pub status: Option<u16>,
}

/// What really happened to the releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum ReleaseLine {
    /// What was decided, from which seed.
    Plan {
        /// The secret seed in hexadecimal.
        seed: String,
        /// When it was armed.
        armed: Time,
        /// The bad release.
        release: String,
        /// The flag it switches on.
        flag: String,
        /// Requests of the bad release that fail, in percent, while the flag is on.
        with_flag: u64,
        /// The same with the flag off.
        without_flag: u64,
        /// Requests of a good release that fail, in percent, while the flag is on.
        left_behind: u64,
    },
    /// A release went into service.
    Deployed {
        /// When.
        at: Time,
        /// Which.
        release: String,
        /// By the pipeline itself.
        pipeline: bool,
    },
    /// A flag was switched.
    Flag {
        /// When.
        at: Time,
        /// Which.
        flag: String,
        /// To.
        on: bool,
    },
    /// Maintenance mode was switched.
    Maintenance {
        /// When.
        at: Time,
        /// To.
        on: bool,
    },
    /// Automatic deploys were switched.
    Autodeploy {
        /// When.
        at: Time,
        /// To.
        on: bool,
    },
}

struct Release {
    name: &'static str,
    deployed: Option<Time>,
    requests: u64,
    failed: u64,
    flags: Vec<String>,
}

struct Fault {
    flag: &'static str,
    with_flag: u64,
    without_flag: u64,
    left_behind: u64,
}

struct Inner {
    /// Newest first.
    releases: Vec<Release>,
    current: &'static str,
    /// What the pipeline deploys.
    head: &'static str,
    autodeploy: bool,
    maintenance: bool,
    flags: BTreeMap<&'static str, bool>,
    fault: Option<Fault>,
    dice: Choices,
    recent: VecDeque<(Instant, bool)>,
    log: Vec<ReleaseLine>,
}

/// The web front.
pub struct Storefront {
    service: Arc<Service>,
    scale: Scale,
    inner: Mutex<Inner>,
    requests: Mutex<Vec<RequestLine>>,
    links: Vec<tokio::sync::Mutex<Link>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    armed: std::sync::atomic::AtomicBool,
}

/// An answer to a request: status and body.
pub type Answer = (u16, Value);

impl Storefront {
    /// A front before the service, with its releases up to the good one.
    ///
    /// # Errors
    /// State when the operating system gives no random bytes.
    pub fn new(service: Arc<Service>, scale: Scale) -> Result<Arc<Self>> {
        let old = |name, hours: i64| Release {
            name,
            deployed: Some(Time::from_micros(now().micros() - hours * 3_600_000_000)),
            requests: 40_000,
            failed: 3,
            flags: Vec::new(),
        };
        Ok(Arc::new(Self {
            service,
            scale,
            inner: Mutex::new(Inner {
                releases: vec![old(GOOD_RELEASE, 70), old(OLD_RELEASE, 240)],
                current: GOOD_RELEASE,
                head: GOOD_RELEASE,
                autodeploy: true,
                maintenance: false,
                flags: FLAGS.iter().map(|f| (*f, false)).collect(),
                fault: None,
                dice: Choices::secret()?,
                recent: VecDeque::new(),
                log: Vec::new(),
            }),
            requests: Mutex::default(),
            links: (0..CUSTOMERS).map(|_| tokio::sync::Mutex::default()).collect(),
            tasks: Mutex::default(),
            armed: std::sync::atomic::AtomicBool::new(false),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets customers in at this address, and starts the pipeline.
    ///
    /// # Errors
    /// State when no HTTP client can be made.
    pub fn open(self: &Arc<Self>, url: &str) -> Result<()> {
        let client = client()?;
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for place in 0..CUSTOMERS {
            tasks.push(tokio::spawn(self.clone().customer(FIRST_CUSTOMER + place, url.to_string(), client.clone())));
        }
        let front = self.clone();
        tasks.push(tokio::spawn(async move {
            loop {
                tokio::time::sleep(PIPELINE).await;
                let mut inner = front.lock();
                if inner.autodeploy && inner.head != inner.current {
                    let head = inner.head;
                    inner.deploy(head, true);
                }
            }
        }));
        Ok(())
    }

    /// Ends customers and pipeline.
    pub fn stop(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// The bad release is merged at a random moment of the window; the pipeline does the rest. A second call does nothing.
    pub fn arm(self: &Arc<Self>, window: Window) {
        if self.armed.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        let delay = {
            let mut inner = self.lock();
            let flag = inner.dice.one(&FLAGS).copied().unwrap_or(FLAGS[0]);
            let fault = Fault {
                flag,
                with_flag: inner.dice.between(45, 97),
                without_flag: inner.dice.between(10, 40),
                left_behind: inner.dice.between(15, 35),
            };
            let line = ReleaseLine::Plan {
                seed: inner.dice.open(),
                armed: now(),
                release: NEW_RELEASE.into(),
                flag: flag.into(),
                with_flag: fault.with_flag,
                without_flag: fault.without_flag,
                left_behind: fault.left_behind,
            };
            inner.log.push(line);
            inner.fault = Some(fault);
            Duration::from_millis(inner.dice.between(window.from_ms, window.to_ms.max(window.from_ms)))
        };
        let front = self.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let mut inner = front.lock();
            let flag = inner.fault.as_ref().map(|f| f.flag.to_string());
            let flags = flag.into_iter().collect();
            inner.releases.insert(0, Release { name: NEW_RELEASE, deployed: None, requests: 0, failed: 0, flags });
            inner.head = NEW_RELEASE;
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
    /// Whether the bad release was ordered.
    pub fn is_armed(&self) -> bool {
        self.armed.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Answers a request: of a customer, or from inside, past the maintenance page and without an order.
    pub async fn answer(&self, customer: Option<(u32, u64)>) -> Answer {
        let failing = {
            let mut inner = self.lock();
            if inner.maintenance && customer.is_some() {
                return (503, json!({"status": "maintenance"}));
            }
            let failing = inner.fails();
            let current = inner.current;
            if customer.is_some()
                && let Some(r) = inner.releases.iter_mut().find(|r| r.name == current)
            {
                r.requests += 1;
                r.failed += u64::from(failing);
            }
            if customer.is_some() {
                inner.recent.push_back((Instant::now(), !failing));
            }
            failing
        };
        if failing {
            return (500, json!({"status": "error", "error": "internal server error"}));
        }
        let Some((writer, n)) = customer else {
            return match self.service.server().await.connect("probe").await {
                Ok(_) => (200, json!({"status": "ok"})),
                Err(e) => (503, json!({"status": "error", "error": e.to_string()})),
            };
        };
        let place = usize::try_from(writer.saturating_sub(FIRST_CUSTOMER)).unwrap_or(usize::MAX);
        let Some(link) = self.links.get(place) else { return (400, json!({"status": "error"})) };
        let mut link = link.lock().await;
        let pick = |of: u64| i64::try_from(1 + (n * 31 + u64::from(writer)) % of.max(1)).unwrap_or(1);
        let order = NewOrder {
            writer,
            n,
            customer: pick(self.scale.customers),
            product: pick(self.scale.products),
            quantity: 1,
            channel: "web",
            address: format!("{} Harbour Lane, 10115 Ashford", 1 + n % 200),
        };
        match self.service.place(&mut link, &order).await {
            Placed::Committed(receipt) => (200, json!({"status": "ok", "order": receipt.order})),
            Placed::Closed => (503, json!({"status": "maintenance"})),
            // One order, one number: an answer that is not known is asked for again under the same number by nobody.
            Placed::Unknown(..) => (504, json!({"status": "error", "error": "outcome unknown"})),
            Placed::Failed(e) => (500, json!({"status": "error", "error": e.to_string()})),
        }
    }

    async fn customer(self: Arc<Self>, customer: u32, url: String, client: reqwest::Client) {
        let mut n = 1;
        loop {
            let sent = client.get(format!("{url}?customer={customer}&n={n}")).send().await;
            let status = sent.ok().map(|r| r.status().as_u16());
            let line = RequestLine { customer, n, at: now(), status };
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            // An unknown outcome uses the number up as well: nothing may be ordered twice.
            if matches!(status, Some(200 | 504) | None) {
                n += 1;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Adds what the front knows to the service's health.
    pub fn overlay(&self, health: &mut Health) {
        let mut inner = self.lock();
        while inner.recent.front().is_some_and(|(at, _)| at.elapsed() > RECENT) {
            inner.recent.pop_front();
        }
        let (all, bad) = (inner.recent.len(), inner.recent.iter().filter(|(_, good)| !good).count());
        let percent = (bad * 100).checked_div(all).unwrap_or(0);
        let status = match percent {
            _ if inner.maintenance => "maintenance",
            p if p >= LIMITS.1 && all >= 10 => "down",
            p if p >= LIMITS.0 && all >= 10 => "degraded",
            _ => "operational",
        };
        health.components.insert("checkout".into(), status.into());
        if status == "degraded" || status == "down" {
            let detail = format!("{percent} % of the requests of the last {} s fail with 5xx", RECENT.as_secs());
            health.details.insert("checkout".into(), detail);
        }
        if inner.maintenance {
            health.maintenance = true;
            health.details.insert("checkout".into(), "maintenance page is on".into());
        }
        health.release = inner.current.into();
        for worst in ["down", "maintenance", "degraded"] {
            if health.components.values().any(|s| s == worst) {
                health.status = worst.into();
                health.healthy = false;
                return;
            }
        }
    }

    /// What the settings of the drill call: `releases`, `maintenance on`, `autodeploy off`, `rollback NAME`, `flag NAME off`.
    ///
    /// # Errors
    /// Usage when the words are none of these.
    pub fn obey(&self, words: &[String]) -> Result<Value> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut inner = self.lock();
        let at = now();
        match words.as_slice() {
            ["releases"] => return serde_json::to_value(inner.report()).state(|| "cannot word the releases".into()),
            ["maintenance", state] => {
                let on = on(state)?;
                inner.maintenance = on;
                inner.recent.clear();
                inner.log.push(ReleaseLine::Maintenance { at, on });
            }
            ["autodeploy", state] => {
                let on = on(state)?;
                inner.autodeploy = on;
                inner.log.push(ReleaseLine::Autodeploy { at, on });
            }
            ["rollback", name] => {
                let known = inner.releases.iter().find(|r| r.name == *name && r.deployed.is_some()).map(|r| r.name);
                let name = known.ok_or_else(|| Error::usage(format!("no release {name:?} was ever in service")))?;
                inner.deploy(name, false);
            }
            ["flag", name, state] => {
                let on = on(state)?;
                let Some((flag, value)) = inner.flags.iter_mut().find(|(f, _)| *f == name) else {
                    return Err(Error::usage(format!("there is no flag {name:?}")));
                };
                *value = on;
                let flag = (*flag).to_string();
                inner.log.push(ReleaseLine::Flag { at, flag, on });
            }
            _ => return Err(Error::usage(format!("the shop does not understand {:?}", words.join(" ")))),
        }
        Ok(Value::Null)
    }

    /// Opens both logs. For the judge only.
    pub fn logs(&self) -> (Vec<RequestLine>, Vec<ReleaseLine>) {
        (self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone(), self.lock().log.clone())
    }
}

impl Inner {
    fn deploy(&mut self, name: &'static str, pipeline: bool) {
        let at = now();
        self.current = name;
        let mut switched = Vec::new();
        if let Some(r) = self.releases.iter_mut().find(|r| r.name == name) {
            r.deployed = Some(at);
            switched.clone_from(&r.flags);
        }
        self.log.push(ReleaseLine::Deployed { at, release: name.into(), pipeline });
        for flag in switched {
            if let Some((name, value)) = self.flags.iter_mut().find(|(f, _)| ***f == *flag) {
                *value = true;
                self.log.push(ReleaseLine::Flag { at, flag: (*name).to_string(), on: true });
            }
        }
    }
    /// Whether the next request fails.
    fn fails(&mut self) -> bool {
        let Some(fault) = &self.fault else { return false };
        let flag = self.flags.get(fault.flag).copied().unwrap_or(false);
        let percent = match (self.current == NEW_RELEASE, flag) {
            (true, true) => fault.with_flag,
            (true, false) => fault.without_flag,
            (false, true) => fault.left_behind,
            (false, false) => 0,
        };
        percent > 0 && self.dice.below(100) < percent
    }
    fn report(&self) -> Value {
        let releases: Vec<Value> = self
            .releases
            .iter()
            .map(|r| {
                json!({"name": r.name, "deployed": r.deployed.map(|t| t.to_string()), "requests": r.requests,
                       "failed": r.failed, "flags": r.flags})
            })
            .collect();
        json!({"current": self.current, "autodeploy": self.autodeploy, "maintenance": self.maintenance,
               "flags": self.flags, "releases": releases})
    }
}

fn on(word: &str) -> Result<bool> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Error::usage(format!("{word:?} is neither on nor off"))),
    }
}

/// A client for the loopback interface, without a proxy.
pub(super) fn client() -> Result<reqwest::Client> {
    // An error only says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .state(|| "no HTTP client can be made".into())
}
