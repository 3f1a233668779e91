//! The drill of a lost region: a primary here, a streaming standby there, a door before both as a name service would be, and a
//! line between them. The near region is lost at a moment from a seed in this process's memory. It comes back by itself when
//! nobody can use that: right after the standby was promoted, and takes writes again unless it was fenced.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row;

use super::door::{Door, PORT};
use super::leftovers;
use super::random::Choices;
use super::release::Window;
use super::scratch::{self, Facts};
use super::server::{self, Server};
use super::service::{Link, Service, now};
use super::shop::{DATABASE, SUPERUSER};
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::postgres::instance::socket_path;
use crate::postgres::{Instance, Programs, Stop, user};
use crate::process::UnixUser;
use crate::recovery::failover::Sample;

/// File name of the log of what happened to the regions, the secret plan first.
pub const REGIONS: &str = "regions.jsonl";
/// File name of the watcher's log.
pub const WATCH: &str = "watch.jsonl";
/// File names of the servers' own logs.
pub const SERVER_LOGS: [&str; 2] = ["near-server.log", "far-server.log"];
/// The variant in which the line between the regions is clogged before the loss.
pub const LAGGING: &str = "lagging";

/// How often the primary is sampled, as monitoring would.
const SAMPLE: Duration = Duration::from_millis(500);
/// How often the watcher looks.
const WATCHED: Duration = Duration::from_millis(40);
/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// What really happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum RegionLine {
    /// What was decided, from which seed.
    Plan {
        /// The secret seed in hexadecimal.
        seed: String,
        /// When it was armed.
        armed: Time,
        /// The line is clogged for this long before the loss.
        lag_ms: u64,
        /// The region comes back this long after the standby was promoted.
        back_ms: u64,
    },
    /// The line between the regions is clogged.
    Clogged {
        /// When.
        at: Time,
    },
    /// The near region is gone.
    Lost {
        /// When its last process was killed.
        at: Time,
    },
    /// The near region was fenced.
    Fenced {
        /// When.
        at: Time,
    },
    /// The near region is there again.
    Back {
        /// When.
        at: Time,
        /// Whether its server was kept from starting.
        kept_off: bool,
    },
    /// Traffic was sent to another server.
    Routed {
        /// When.
        at: Time,
        /// `near` or `far`.
        to: String,
    },
}

/// What the watcher saw, whenever that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchLine {
    /// When.
    pub at: Time,
    /// Whether the near server takes writes.
    pub near: bool,
    /// Whether the far server takes writes.
    pub far: bool,
}

/// Where the door to the database is.
pub fn door_dir(scratch: &Path) -> PathBuf {
    scratch.join("door")
}
/// Where the near end of the line between the regions is.
fn line_dir(scratch: &Path) -> PathBuf {
    scratch.join("line")
}
/// Root of the far cluster.
pub fn far_root(scratch: &Path) -> PathBuf {
    scratch.join("far")
}
/// The database as the application uses it: through the door.
pub fn door(scratch: &Path, user: &str) -> Server {
    let socket = door_dir(scratch).display().to_string();
    Server { socket, port: PORT, user: user.into(), database: DATABASE.into() }
}

/// Makes the far cluster out of the near one. It streams as soon as the line is there.
///
/// # Errors
/// A program fails or it does not start.
pub fn make_far(
    dir: &Path,
    near: &Instance,
    server_user: Option<&UnixUser>,
    settings: &[(String, String)],
) -> Result<()> {
    for place in [door_dir(dir), line_dir(dir)] {
        user::own_dir(&place, server_user)?;
    }
    let far = Instance::new(near.programs.clone(), &far_root(dir), server_user.cloned())?;
    far.make_dirs()?;
    user::own_dir(&far.layout.data, server_user)?;
    let mut copy = near.programs.command("pg_basebackup", server_user);
    copy.arg("-D").arg(&far.layout.data).args(["-X", "stream", "-c", "fast", "-h"]).arg(&near.layout.sockets);
    copy.args(["-p", &near.port.to_string(), "-U", SUPERUSER]);
    let out = copy.output().target(|| "cannot run pg_basebackup".into())?;
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr).trim().to_string();
        return Err(Error::target("the standby cannot be made").why(why));
    }
    let mut all = settings.to_vec();
    let line = format!("host={} port={PORT} user={SUPERUSER} application_name=far", line_dir(dir).display());
    all.push(("primary_conninfo".into(), line));
    far.configure(&all, None)?;
    user::own_file(&far.layout.data.join("standby.signal"), "", server_user)?;
    far.start(START)
}

struct Inner {
    log: Vec<RegionLine>,
    watch: Vec<WatchLine>,
    sample: Option<Sample>,
    choices: Choices,
    back_after: Duration,
}

/// Both regions, as the umpire has them in its hand.
pub struct Region {
    near: Instance,
    far: Instance,
    door: Arc<Door>,
    line: Arc<Door>,
    lagging: bool,
    inner: Mutex<Inner>,
    armed: AtomicBool,
    lost: AtomicBool,
    fenced: AtomicBool,
}

impl Region {
    /// Opens door and line, begins to sample and to watch.
    ///
    /// # Errors
    /// State when a socket cannot be made or there is no randomness; target when the server programs are gone.
    pub fn open(dir: &Path, facts: &Facts) -> Result<Arc<Self>> {
        let programs = Programs::at(&facts.bin_dir).ok_or_else(|| Error::target("the server programs are gone"))?;
        let owner = user::for_server(facts.run_as.as_deref())?;
        let near = Instance::new(programs.clone(), &scratch::cluster(dir), owner.clone())?;
        let far = Instance::new(programs, &far_root(dir), owner)?;
        let to_near = || Some(socket_path(&near.layout.sockets, near.port));
        let region = Arc::new(Self {
            door: Door::open(&door_dir(dir), to_near())?,
            line: Door::open(&line_dir(dir), to_near())?,
            near,
            far,
            lagging: facts.variant.as_deref() == Some(LAGGING),
            inner: Mutex::new(Inner {
                log: Vec::new(),
                watch: Vec::new(),
                sample: None,
                choices: Choices::secret()?,
                back_after: Duration::ZERO,
            }),
            armed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            fenced: AtomicBool::new(false),
        });
        tokio::spawn(region.clone().sample());
        tokio::spawn(region.clone().watch());
        Ok(region)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn note(&self, line: RegionLine) {
        self.lock().log.push(line);
    }
    fn server(instance: &Instance) -> Server {
        let socket = instance.layout.sockets.display().to_string();
        Server { socket, port: instance.port, user: SUPERUSER.into(), database: DATABASE.into() }
    }

    /// The near region is lost at a random moment of the window. A second call does nothing.
    pub fn arm(self: &Arc<Self>, service: &Arc<Service>, window: Window) {
        if self.armed.swap(true, Ordering::SeqCst) {
            return;
        }
        service.release.deploy();
        let (delay, lag) = {
            let mut inner = self.lock();
            let delay = inner.choices.between(window.from_ms, window.to_ms.max(window.from_ms));
            let lag_ms = if self.lagging { inner.choices.between(4_000, 9_000) } else { 0 };
            let back_ms = inner.choices.between(300, 2_000);
            inner.back_after = Duration::from_millis(back_ms);
            let line = RegionLine::Plan { seed: inner.choices.open(), armed: now(), lag_ms, back_ms };
            inner.log.push(line);
            (Duration::from_millis(delay), Duration::from_millis(lag_ms))
        };
        let region = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            region.wait_streaming().await;
            if !lag.is_zero() {
                region.note(RegionLine::Clogged { at: now() });
                region.line.stall(true);
                tokio::time::sleep(lag).await;
            }
            region.lose().await;
        });
    }
    /// Whether it was armed.
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }

    /// Until the standby has caught up once: before that there is nothing to fail over to.
    async fn wait_streaming(&self) {
        let begun = Instant::now();
        while begun.elapsed() < START {
            if let Ok(mut c) = Self::server(&self.near).connect("umpire").await {
                let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
                if sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut c).await.is_ok_and(|n| n > 0) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn lose(&self) {
        self.door.point(None);
        self.line.point(None);
        self.kill().await;
        self.lost.store(true, Ordering::SeqCst);
        self.note(RegionLine::Lost { at: now() });
    }

    /// Every process of the near region, at once and without a word.
    async fn kill(&self) {
        let near = self.near.clone();
        let _ = tokio::task::spawn_blocking(move || {
            let until = Instant::now() + Duration::from_secs(10);
            while near.is_running() && Instant::now() < until {
                let inside = leftovers::inside(&near.layout.data);
                if inside.is_empty() {
                    // Not on Linux: an immediate stop is the hardest there is.
                    let _ = near.stop(Stop::Immediate, Duration::from_secs(10));
                }
                inside.iter().for_each(leftovers::kill);
                std::thread::sleep(Duration::from_millis(20));
            }
        })
        .await;
    }

    async fn sample(self: Arc<Self>) {
        let mut link = Link::default();
        let near = Self::server(&self.near);
        let sql = "SELECT pg_current_wal_lsn()::text AS lsn, (extract(epoch FROM (pg_last_committed_xact()).timestamp) * 1000000)::int8 AS at";
        while !self.lost.load(Ordering::SeqCst) {
            let row = match link.open(&near, 0, "monitor").await {
                Ok(c) => sqlx::query(sql).fetch_one(c).await.ok(),
                Err(_) => None,
            };
            match row {
                Some(row) => {
                    let last_commit = row.get::<Option<i64>, _>("at").map(Time::from_micros);
                    self.lock().sample = Some(Sample { at: now(), primary_lsn: row.get("lsn"), last_commit });
                }
                None => link.close(),
            }
            tokio::time::sleep(SAMPLE).await;
        }
    }

    /// Looks at near, far and near again: when both ends of the look find the near one writable, it was so at the far one's
    /// moment, too.
    async fn watch(self: Arc<Self>) {
        let (mut near, mut far) = (Link::default(), Link::default());
        let (near_at, far_at) = (Self::server(&self.near), Self::server(&self.far));
        let mut seen = (false, false);
        let mut promoted = false;
        loop {
            let first = writable(&mut near, &near_at).await;
            let there = writable(&mut far, &far_at).await;
            let both = first && there && writable(&mut near, &near_at).await;
            let now_seen = if both { (true, true) } else { (first && !there, there) };
            if now_seen != seen {
                seen = now_seen;
                self.lock().watch.push(WatchLine { at: now(), near: seen.0, far: seen.1 });
            }
            if seen.1 && !promoted && self.lost.load(Ordering::SeqCst) {
                promoted = true;
                tokio::spawn(self.clone().come_back());
            }
            tokio::time::sleep(WATCHED).await;
        }
    }

    /// The region is there again, in the middle of the failover, and starts what it always started.
    async fn come_back(self: Arc<Self>) {
        let after = self.lock().back_after;
        tokio::time::sleep(after).await;
        let kept_off = self.fenced.load(Ordering::SeqCst);
        self.note(RegionLine::Back { at: now(), kept_off });
        if !kept_off {
            let near = self.near.clone();
            let _ = tokio::task::spawn_blocking(move || near.start(START)).await;
        }
    }

    /// Sends the traffic to the near or far server.
    ///
    /// # Errors
    /// Refused when it is neither, or in recovery; target when it does not answer.
    pub async fn route(&self, service: &Service, to: &Server) -> Result<u32> {
        let (name, instance) = match to.socket {
            ref s if Path::new(s) == self.near.layout.sockets => ("near", &self.near),
            ref s if Path::new(s) == self.far.layout.sockets => ("far", &self.far),
            _ => return Err(Error::refused(format!("{} is in neither region of this drill", to.socket))),
        };
        let mut c = Self::server(instance).connect("door").await?;
        if server::identify(&mut c).await?.1 {
            return Err(
                Error::refused(format!("the database in {} is still in recovery", to.socket)).hint("promote it first")
            );
        }
        let socket = socket_path(&instance.layout.sockets, instance.port);
        let generation = service.moved(|| self.door.point(Some(socket))).await;
        self.note(RegionLine::Routed { at: now(), to: name.into() });
        Ok(generation)
    }

    /// What the settings of the drill call: `fence`, `sample`, `look FROM`, `maintenance on`.
    ///
    /// # Errors
    /// Usage when the words are none of these; target when the service is not reached.
    pub async fn obey(&self, service: &Service, words: &[String]) -> Result<Value> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["fence"] => {
                self.fenced.store(true, Ordering::SeqCst);
                self.kill().await;
                self.note(RegionLine::Fenced { at: now() });
                Ok(Value::from("power and network of the near region are off, its server is kept from starting"))
            }
            ["sample"] => {
                let sample = self.lock().sample.clone();
                let sample = sample.ok_or_else(|| Error::target("nothing was ever sampled"))?;
                serde_json::to_value(sample).state(|| "cannot word the sample".into())
            }
            ["look", place] => {
                let mut link = Link::default();
                let open = link.open(&service.server().await, 0, "outside").await.map(drop);
                open.map(|()| Value::from(format!("answers {place}")))
                    .map_err(|e| Error::target(format!("no answer from the shop, seen from {place}")).why(e.why))
            }
            ["maintenance", state @ ("on" | "off")] => {
                service.maintenance(*state == "on").await;
                Ok(Value::Null)
            }
            _ => Err(Error::usage(format!("this drill does not know {:?}", words.join(" ")))),
        }
    }

    /// Opens the logs. For the judge only. A region that is not fenced and not yet back comes back before that: what is not
    /// closed does come back some day.
    pub async fn open_logs(self: &Arc<Self>, into: &Path) -> Result<()> {
        let begun = Instant::now();
        let waiting = |inner: &Inner| {
            let back = inner.log.iter().any(|l| matches!(l, RegionLine::Back { .. }));
            inner.watch.iter().any(|w| w.far) && !back
        };
        while waiting(&self.lock()) && begun.elapsed() < START {
            tokio::time::sleep(WATCHED).await;
        }
        // The watcher gets a look at what came back.
        tokio::time::sleep(WATCHED * 5).await;
        let (log, watch) = {
            let inner = self.lock();
            (inner.log.clone(), inner.watch.clone())
        };
        super::logs::write(&into.join(REGIONS), &log)?;
        super::logs::write(&into.join(WATCH), &watch)?;
        for (instance, name) in [&self.near, &self.far].into_iter().zip(SERVER_LOGS) {
            let text = std::fs::read(&instance.layout.log)
                .state(|| format!("cannot read {}", instance.layout.log.display()))?;
            crate::journal::files::write_atomic(&into.join(name), &text)?;
        }
        Ok(())
    }
}

async fn writable(link: &mut Link, at: &Server) -> bool {
    let asked = async {
        let c = link.open(at, 0, "watcher").await.ok()?;
        sqlx::query_scalar::<_, bool>("SELECT NOT pg_is_in_recovery()").fetch_one(c).await.ok()
    };
    match tokio::time::timeout(Duration::from_secs(2), asked).await {
        Ok(Some(yes)) => yes,
        _ => {
            link.close();
            false
        }
    }
}
