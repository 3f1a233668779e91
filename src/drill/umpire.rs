//! The umpire: one detached process that owns service, traffic and injector, and the secret of the drill.
//!
//! It is started by the console but does not belong to it: it has a session of its own, an empty environment, and goes on
//! when the console is killed. It ends when it is told to, when its scratch directory is gone, when who made it died before
//! there was an incident to come back to, or when nobody has asked it anything for hours; in the last two cases it clears the
//! drill away.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Mutex, Notify};

use super::breach::{self, Intruder};
use super::control::{Answer, Ask, Control, Status};
use super::deletion::{self, Deleter, Way};
use super::leftovers;
use super::logs;
use super::pages::{self, Rot};
use super::region::Region;
use super::release::Injector;
use super::scratch::{self, Facts, Scratch};
use super::server::Server;
use super::service::{Health, Service};
use super::session;
use super::shop::APP_ROLE;
use super::storefront::{self, Storefront};
use super::traffic::Traffic;
use crate::error::{Context, Error, Result};
use crate::process::detach;

/// How long the umpire may take until it is ready.
const READY: Duration = Duration::from_secs(30);
/// How long a writer may still be inside an order when the traffic is drained.
const PATIENCE: Duration = Duration::from_secs(20);
/// A request line longer than this is not from us.
const LINE_LIMIT: u64 = 64 * 1024;

struct Umpire {
    dir: PathBuf,
    service: Arc<Service>,
    traffic: Traffic,
    injector: Mutex<Injector>,
    /// The job that deletes, in a drill of that.
    deleter: Option<Deleter>,
    /// What rots, in a drill of damaged pages.
    rot: Option<Rot>,
    /// The intruder, in a drill of a breach.
    intruder: Option<Arc<Intruder>>,
    /// Both regions, in a drill of a lost one.
    region: Option<Arc<Region>>,
    /// The shop's web front, in a drill of a bad release.
    front: Option<Arc<Storefront>>,
    health_url: String,
    judged: AtomicBool,
    end: Notify,
    started: Instant,
    /// Milliseconds after `started` at which somebody last asked something.
    asked: AtomicU64,
}

/// Starts the umpire of a scratch directory whose `sandbox.json` is written, and returns its process id. Blocks until it is ready.
///
/// # Errors
/// What the umpire said when it could not start.
pub fn spawn(program: &Path, dir: &Path) -> Result<u32> {
    let args: Vec<OsString> = ["sandbox".into(), "--dir".into(), dir.into(), "serve".into()].into();
    detach::spawn_detached_clean(program, &args, READY)
}

/// Starts the guard of a scratch directory (see [`leftovers::guard`]) and returns when it watches.
///
/// # Errors
/// It could not be started.
pub fn spawn_guard(program: &Path, dir: &Path) -> Result<u32> {
    let args: Vec<OsString> = ["sandbox".into(), "--dir".into(), dir.into(), "guard".into()].into();
    detach::spawn_detached_clean(program, &args, READY)
}

/// The umpire's whole life. The first thing this process does.
///
/// # Errors
/// The scratch directory cannot be used, or its database does not answer. The console is told, too.
pub fn serve(dir: &Path) -> Result<()> {
    // Nobody of our user may read the seed out of our memory or a core dump. (root still can; a drill is no exam.)
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .state(|| "cannot close the umpire's memory to others".into())?;
    let handshake = detach::detach()?;
    let begun = || -> Result<(tokio::runtime::Runtime, Scratch, Facts, Begun)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .state(|| "cannot start the umpire's runtime".into())?;
        let alive = Scratch::join(dir)?;
        let facts = scratch::read_facts(dir)?;
        let begun = runtime.block_on(begin(dir, &facts))?;
        Ok((runtime, alive, facts, begun))
    };
    match begun() {
        Ok((runtime, alive, facts, begun)) => {
            handshake.ready()?;
            let orphaned = runtime.block_on(run(begun, &facts));
            drop(runtime);
            drop(alive);
            if orphaned && !facts.keep {
                leftovers::remove(dir)?;
            }
            Ok(())
        }
        Err(e) => {
            handshake.failed(&e);
            Err(e)
        }
    }
}

struct Begun {
    umpire: Arc<Umpire>,
    http: TcpListener,
    control: UnixListener,
}

async fn begin(dir: &Path, facts: &Facts) -> Result<Begun> {
    // Before anything else: the service reaches its database through the door.
    let region = match facts.scenario == session::REGION {
        true => Some(Region::open(dir, facts)?),
        false => None,
    };
    let service = Service::start(facts.server.clone(), facts.scale.orders).await?;
    let http =
        TcpListener::bind(("127.0.0.1", 0)).await.state(|| "cannot open a port on the loopback interface".into())?;
    let port = http.local_addr().state(|| "cannot read our own port".into())?.port();
    let socket = scratch::control_socket(dir);
    let _ = fs::remove_file(&socket);
    let control = UnixListener::bind(&socket).state(|| format!("cannot open {}", socket.display()))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
        .state(|| "cannot close the umpire's socket".into())?;
    let traffic = Traffic::start(&service, facts.shape, facts.scale, u64::from(facts.seed));
    let front = match facts.scenario == session::RELEASE {
        true => Some(Storefront::new(service.clone(), facts.scale)?),
        false => None,
    };
    let deleter = match facts.scenario == session::DELETION {
        true => Some(Deleter::new(facts.variant.as_deref().and_then(Way::of))?),
        false => None,
    };
    let umpire = Arc::new(Umpire {
        deleter,
        rot: match facts.variant.as_deref() == Some(pages::VARIANT) {
            true => Some(Rot::new(dir)?),
            false => None,
        },
        intruder: match facts.scenario == session::BREACH {
            true => Some(Intruder::new(scratch::read_passphrase(dir)?)?),
            false => None,
        },
        region,
        dir: dir.to_path_buf(),
        front,
        service,
        traffic,
        injector: Mutex::new(Injector::new()?),
        health_url: format!("http://127.0.0.1:{port}/api/health"),
        judged: AtomicBool::new(false),
        end: Notify::new(),
        started: Instant::now(),
        asked: AtomicU64::new(0),
    });
    Ok(Begun { umpire, http, control })
}

/// Serves until the end; true when it ended because nobody asked anything any more.
async fn run(begun: Begun, facts: &Facts) -> bool {
    let Begun { umpire, http, control } = begun;
    let app = Router::new()
        .route("/api/health", get(health))
        .route("/api/checkout", get(checkout))
        .route("/internal/checkout", get(checkout))
        .with_state(umpire.clone());
    let web = tokio::spawn(async move { axum::serve(http, app).await });
    if let Some(front) = &umpire.front
        && let Err(e) = front.open(&umpire.health_url.replace("/api/health", "/api/checkout"))
    {
        tracing::error!("no customers: {e}");
    }
    let asked = tokio::spawn(listen(umpire.clone(), control));
    // Somebody looks at the service's health all the time, as monitoring would.
    let monitor = tokio::spawn({
        let service = umpire.service.clone();
        async move {
            loop {
                service.health().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    });
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminated = async {
        match term.as_mut() {
            Some(term) => term.recv().await,
            None => std::future::pending().await,
        }
    };
    let orphaned = tokio::select! {
        () = umpire.end.notified() => false,
        _ = terminated => false,
        orphaned = watch(&umpire, facts) => orphaned,
    };
    umpire.traffic.stop();
    if let Some(front) = &umpire.front {
        front.stop();
    }
    web.abort();
    monitor.abort();
    asked.abort();
    let _ = fs::remove_file(scratch::control_socket(&umpire.dir));
    orphaned
}

/// Ends with false when the scratch directory is gone or another one is in its place, with true when nobody asks any more, or
/// who made it died before there was an incident to come back to.
async fn watch(umpire: &Umpire, facts: &Facts) -> bool {
    let limit = Duration::from_secs(facts.orphan_after_s);
    let identity = |dir: &Path| fs::metadata(dir).map(|m| (m.dev(), m.ino())).ok();
    let ours = identity(&umpire.dir);
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if ours.is_none() || identity(&umpire.dir) != ours {
            return false;
        }
        let quiet =
            umpire.started.elapsed().saturating_sub(Duration::from_millis(umpire.asked.load(Ordering::Relaxed)));
        let unopened = || !scratch::is_opened(&umpire.dir) && facts.maker.as_ref().is_some_and(|m| !m.is_alive());
        if quiet > limit || unopened() {
            return true;
        }
    }
}

async fn health(State(umpire): State<Arc<Umpire>>) -> impl IntoResponse {
    umpire.note_asked();
    let health: Health = umpire.health().await;
    let code = if health.status != "down" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(health))
}

async fn checkout(
    State(umpire): State<Arc<Umpire>>,
    Query(query): Query<std::collections::BTreeMap<String, u64>>,
) -> impl IntoResponse {
    let customer = query.get("customer").and_then(|c| u32::try_from(*c).ok()).zip(query.get("n").copied());
    let (status, body) = match &umpire.front {
        Some(front) => front.answer(customer).await,
        None => (404, Value::Null),
    };
    (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(body))
}

async fn listen(umpire: Arc<Umpire>, control: UnixListener) {
    loop {
        match control.accept().await {
            Ok((stream, _)) => {
                let umpire = umpire.clone();
                tokio::spawn(async move { umpire.answer(stream).await });
            }
            // Out of file numbers, say: the next one may work.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

impl Umpire {
    fn note_asked(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked.store(ms, Ordering::Relaxed);
    }

    async fn answer(&self, stream: UnixStream) {
        use tokio::io::AsyncReadExt;
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        if BufReader::new(read.take(LINE_LIMIT)).read_line(&mut line).await.is_err() || line.is_empty() {
            return;
        }
        self.note_asked();
        let (result, end) = match serde_json::from_str::<Ask>(&line) {
            Ok(Ask::Shutdown) => (Ok(Value::Null), true),
            Ok(ask) => (self.obey(ask).await, false),
            Err(e) => (Err(Error::usage("the umpire does not understand the request").why(e)), false),
        };
        let mut bytes = serde_json::to_vec(&Answer::from(result)).unwrap_or_default();
        bytes.push(b'\n');
        let _ = write.write_all(&bytes).await;
        let _ = write.shutdown().await;
        if end {
            self.end.notify_one();
        }
    }

    async fn obey(&self, ask: Ask) -> Result<Value> {
        match ask {
            Ask::Status => {
                let status = self.status().await;
                serde_json::to_value(status).state(|| "cannot word the status".into())
            }
            Ask::Inject { window } => {
                match (&self.front, &self.deleter, &self.region) {
                    (Some(front), ..) => front.arm(window),
                    (_, Some(deleter), _) => deleter.arm(&self.service, window),
                    (.., Some(region)) => region.arm(&self.service, window),
                    (None, None, None) if self.intruder.is_some() => {
                        self.intruder.iter().for_each(|i| i.arm(&self.service, window));
                    }
                    (None, None, None) => match &self.rot {
                        Some(rot) => rot.arm(&self.service, window),
                        None => self.injector.lock().await.arm(&self.service, window),
                    },
                }
                Ok(Value::Null)
            }
            Ask::Contain => {
                self.service.maintenance(true).await;
                self.service.release.stop().await;
                Ok(Value::Null)
            }
            Ask::StopRelease => {
                self.service.release.stop().await;
                Ok(Value::Null)
            }
            Ask::Maintenance { on } => {
                self.service.maintenance(on).await;
                Ok(Value::Null)
            }
            Ask::Switch { server } => {
                let generation = match &self.region {
                    Some(region) => region.route(&self.service, &server).await?,
                    None => self.service.switch(server.with_user(APP_ROLE)).await?,
                };
                Ok(Value::from(generation))
            }
            Ask::Drain => {
                self.service.held.store(true, Ordering::Relaxed);
                Ok(Value::Bool(self.traffic.ledger().drain(PATIENCE).await))
            }
            Ask::Resume => {
                self.service.hear();
                self.traffic.ledger().resume();
                self.service.held.store(false, Ordering::Relaxed);
                Ok(Value::Null)
            }
            Ask::Judge { into, given_up } => self.judge(&into, given_up).await,
            Ask::Tell { words } => match (&self.front, &self.region, &self.intruder) {
                (Some(front), ..) => front.obey(&words),
                (_, Some(region), _) => region.obey(&self.service, &words).await,
                (.., Some(intruder)) => intruder.obey(&self.service, &words).await,
                (None, None, None) => Err(Error::usage(format!("this drill does not know {:?}", words.join(" ")))),
            },
            Ask::Shutdown => Ok(Value::Null),
        }
    }

    async fn health(&self) -> Health {
        let mut health = self.service.health().await;
        if let Some(front) = &self.front {
            front.overlay(&mut health);
        }
        health
    }

    async fn status(&self) -> Status {
        Status {
            pid: std::process::id(),
            health_url: self.health_url.clone(),
            armed: self.injector.lock().await.is_armed()
                || self.front.as_ref().is_some_and(|f| f.is_armed())
                || self.intruder.as_ref().is_some_and(|i| i.is_armed())
                || self.region.as_ref().is_some_and(|r| r.is_armed())
                || self.rot.as_ref().is_some_and(Rot::is_armed)
                || self.deleter.as_ref().is_some_and(Deleter::is_armed),
            release_stopped: self.service.release.is_stopped(),
            judged: self.judged.load(Ordering::Relaxed),
            generation: self.service.generation(),
            held: self.traffic.ledger().is_paused(),
            health: self.health().await,
        }
    }

    async fn judge(&self, into: &Path, given_up: bool) -> Result<Value> {
        if self.service.generation() == 0 && !given_up {
            return Err(Error::refused("the drill cannot be judged yet")
                .why("the service still runs on its first database")
                .hint("promote the recovered database, or close the drill as given up"));
        }
        // Whoever says at once that service is back is judged by the customers who come after that.
        if let Some(front) = &self.front {
            let (before, begun) = (front.logs().0.len(), std::time::Instant::now());
            while front.logs().0.len() < before + 10 && begun.elapsed() < PATIENCE {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        // What the faulty release does after this moment is not in the log, so it must not do anything.
        self.service.release.stop().await;
        self.service.held.store(true, Ordering::Relaxed);
        let complete = self.traffic.ledger().drain(PATIENCE).await;
        logs::write(&into.join(logs::WRITERS), &self.traffic.ledger().lines())?;
        if let Some(front) = &self.front {
            front.stop();
            let (requests, releases) = front.logs();
            logs::write(&into.join(storefront::REQUESTS), &requests)?;
            logs::write(&into.join(storefront::RELEASES), &releases)?;
            self.judged.store(true, Ordering::Relaxed);
            return Ok(Value::Bool(complete));
        }
        if let Some(intruder) = &self.intruder {
            logs::write(&into.join(breach::INTRUDER), &intruder.open())?;
            self.judged.store(true, Ordering::Relaxed);
            return Ok(Value::Bool(complete));
        }
        if let Some(region) = &self.region {
            region.open_logs(into).await?;
            self.judged.store(true, Ordering::Relaxed);
            return Ok(Value::Bool(complete));
        }
        if let Some(deleter) = &self.deleter {
            logs::write(&into.join(deletion::DELETIONS), &deleter.open())?;
            self.judged.store(true, Ordering::Relaxed);
            return Ok(Value::Bool(complete));
        }
        if let Some(rot) = &self.rot {
            logs::write(&into.join(pages::PAGES), &rot.open())?;
            self.judged.store(true, Ordering::Relaxed);
            return Ok(Value::Bool(complete));
        }
        logs::write(&into.join(logs::INJECTOR), &self.injector.lock().await.open())?;
        self.judged.store(true, Ordering::Relaxed);
        Ok(Value::Bool(complete))
    }
}

/// `breakglass sandbox`: the umpire itself, and the commands a drill's settings name for containment and promotion. Hidden.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Scratch directory of the drill
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub what: What,
}

/// What `breakglass sandbox` can do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum What {
    /// Run the drill's service, traffic and faulty release
    Serve,
    /// Clear the drill away when nobody is alive in it any more
    Guard,
    /// Refuse orders, wait for those in flight, stop the release
    Contain,
    /// Take orders again
    Resume,
    /// Use another database
    Switch {
        /// Directory of its unix socket
        #[arg(long)]
        host: String,
        /// Port
        #[arg(long)]
        port: u16,
        /// Database
        #[arg(long)]
        database: String,
    },
    /// Something that only the drill of one scenario has; prints the answer
    Tell {
        /// Words
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Stop what does the damage; orders go on
    StopRelease,
    /// Print how the umpire stands
    Status,
    /// End a kept drill: its processes and its files
    Remove,
}

/// Runs `breakglass sandbox`; returns one line for people.
///
/// # Errors
/// As the umpire says.
pub fn umpire_main(args: &Args) -> Result<String> {
    let control = Control::new(&args.dir);
    match &args.what {
        What::Serve => serve(&args.dir).map(|()| String::new()),
        What::Guard => {
            detach::detach()?.ready()?;
            leftovers::guard(&args.dir);
            Ok(String::new())
        }
        What::Contain => control.contain().map(|()| "writes are off, the release is stopped".into()),
        What::Resume => control.maintenance(false).map(|()| "orders are taken again".into()),
        What::Switch { host, port, database } => {
            let server =
                Server { socket: host.clone(), port: *port, user: APP_ROLE.into(), database: database.clone() };
            control.switch(&server).map(|()| format!("the service uses {database} in {host}"))
        }
        What::Tell { words } => match control.tell(words)? {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text),
            answer => serde_json::to_string_pretty(&answer).state(|| "cannot word the answer".into()),
        },
        What::StopRelease => control.stop_release().map(|()| "what did the damage is stopped".into()),
        What::Status => {
            let status = control.status()?;
            serde_json::to_string_pretty(&status).state(|| "cannot word the status".into())
        }
        What::Remove => leftovers::remove(&args.dir).map(|()| format!("{} is removed", args.dir.display())),
    }
}
