//! The worker: a process of its own that runs one action and outlives the screen.
//!
//! `RunRequested` (console) → spawn → `RunStarted` (worker) → `RunFinished` (worker). A worker starts only while its request
//! still stands, so a withdrawn request never runs, and a run that has started once never starts again.

use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::request::{Job, Request, VERSION};
use super::{Incident, SubmitError};
use crate::action::carried::Carried;
use crate::action::output::{LOG_LIMIT, OutputLog, RunStatusFile};
use crate::action::{Action, Ctx, Done, Output, Registry};
use crate::config::{Secrets, Settings};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::incident::{Command, Policy, RunRequest, RunStatus, State};
use crate::journal::{files, lock::host_name};
use crate::model::event::{Event, Outcome};
use crate::model::plan::Risk;
use crate::model::{Actor, Redactor, RunId, Secret, likely_secret, parse_duration, url_password};
use crate::process::detach::{self, Handshake};
use crate::process::locks::{RunLocks, children_lock};
use crate::process::signals::{Signals, Stop};

/// Name of the log of a run.
pub const OUTPUT_FILE: &str = "output.log";
/// Name of the file that says how far a run is.
pub const PROGRESS_FILE: &str = "progress.json";

/// How long a console waits for its worker to get ready.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// How often progress.json is written at most, and the journal looked at when no notification comes.
const TEND_EVERY: Duration = Duration::from_millis(200);
/// How long an action may take to react to a cancel before it is dropped and its processes killed.
const CANCEL_GRACE: Duration = Duration::from_secs(30);
/// How long a worker tries to record its end (a full disk may be freed).
const FINISH_PATIENCE: Duration = Duration::from_secs(3600);

/// Requests a run and starts its worker. Returns the run, and why its worker could not be started if so (the request is then
/// withdrawn). `program` is our own executable (see [`detach::own_executable`]).
///
/// # Errors
/// Refused by the gates, or the journal failed: then nothing was requested.
pub fn start_run(
    incident: &mut Incident,
    mut request: RunRequest,
    job: &Job,
    secrets: &Secrets,
    program: &Path,
) -> Result<(RunId, Result<u32>), SubmitError> {
    let redactor = Redactor::new(secrets.values());
    request.shown = redactor.redact(&request.shown);
    let run = incident
        .submit(Command::RequestRun(request))?
        .run()
        .ok_or_else(|| Error::state("a requested run has no record"))?;
    let started = start(incident, run, job, secrets, program);
    Ok((run, started))
}

/// Starts the worker of a requested run and waits until it is ready. Returns its process id.
///
/// # Errors
/// The worker could not be started; the request is withdrawn then, unless it had started all the same.
pub fn start(incident: &mut Incident, run: RunId, job: &Job, secrets: &Secrets, program: &Path) -> Result<u32> {
    match spawn(incident, run, job, secrets, program) {
        Ok(pid) => Ok(pid),
        Err(e) => {
            let reason = format!("its worker could not be started: {}", crate::model::CleanText::text(&e.to_string()));
            // If it did start after all, the withdrawal is refused and the journal tells what became of it.
            let _ = incident.submit(Command::WithdrawRun { run, reason });
            Err(e)
        }
    }
}

fn spawn(incident: &Incident, run: RunId, job: &Job, secrets: &Secrets, program: &Path) -> Result<u32> {
    let (action, args, confirmed) = requested(incident, run)?;
    let request = Request {
        v: VERSION,
        program: env!("CARGO_PKG_VERSION").to_string(),
        incident: incident.id().clone(),
        incident_dir: std::path::absolute(incident.dir())
            .state(|| "the incident's folder has no absolute path".into())?,
        run,
        action,
        args,
        code: job.code.clone(),
        confirmed,
        settings: job.settings.clone(),
        output_limit: job.output_limit.unwrap_or(LOG_LIMIT),
    };
    let path = request.write(&incident.run_dir(run))?;
    let path = std::path::absolute(path).state(|| "the request has no absolute path".into())?;
    let args: [OsString; 3] = ["worker".into(), "--request".into(), path.into()];
    detach::spawn_detached(program, &args, &secrets.to_pipe(), READY_DEADLINE)
}

/// What the journal says was asked for.
fn requested(incident: &Incident, run: RunId) -> Result<(String, Vec<String>, Option<String>)> {
    let record = incident.records().iter().find(|r| r.seq.0 == run.0);
    record
        .and_then(|r| {
            r.events.iter().find_map(|e| match e {
                Event::RunRequested { action, args, confirmed, .. } => {
                    Some((action.clone(), args.clone(), confirmed.clone()))
                }
                _ => None,
            })
        })
        .ok_or_else(|| Error::state(format!("the journal holds no request for run {run}")))
}

/// The whole life of a worker. Must be called before the process has opened a file or started a thread. Returns its exit code.
///
/// # Errors
/// What kept it from starting; the console has been told.
pub fn worker_main(registry: &Registry, request: &Path) -> Result<u8> {
    let handshake = detach::detach()?;
    match Worker::prepare(&handshake, registry, request) {
        Ok(worker) => {
            handshake.ready()?;
            worker.work()
        }
        Err(e) => {
            handshake.failed(&e);
            Err(e)
        }
    }
}

struct Worker {
    request: Request,
    run_dir: PathBuf,
    action: Arc<dyn Action>,
    secrets: Secrets,
    incident: Incident,
    locks: RunLocks,
    limits: Limits,
}

/// What the plan says about the block that is run.
#[derive(Debug, Default)]
struct Limits {
    timeout: Option<(String, Duration)>,
    expect: Option<String>,
    risk: Option<Risk>,
}

impl Limits {
    fn of(incident: &Incident, run: RunId) -> Self {
        let Some(run) = incident.state().ok().and_then(|s| s.runs.get(&run)) else { return Self::default() };
        let blocks = incident.scenario().steps.iter().flat_map(|s| &s.blocks);
        let block = blocks.into_iter().find(|b| Some(b.line) == run.block_line);
        let said = |name: &str| block.and_then(|b| b.attrs.get(name)).cloned();
        Self {
            timeout: said("timeout").and_then(|t| parse_duration(&t).ok().map(|d| (t, d))),
            expect: said("expect"),
            risk: Some(run.risk),
        }
    }

    /// The arguments a shell or SQL block runs with: those of the request, and what the plan says.
    fn block_args(&self, args: &[String], shell: bool) -> Vec<String> {
        let mut all = args.to_vec();
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value
                && !args.iter().any(|a| a == name || a.starts_with(&format!("{name}=")))
            {
                all.push(format!("{name}={value}"));
            }
        };
        add("--timeout", self.timeout.as_ref().map(|(text, _)| text.as_str()));
        add("--risk", self.risk.map(Risk::word));
        if shell {
            add("--expect", self.expect.as_deref());
        }
        all
    }
}

/// In an incident that is local only, no repository elsewhere is read or written.
fn kept_here(settings: Settings, state: &State) -> Settings {
    if state.people.local_only { settings.kept_here() } else { settings }
}

/// What is run must be what the journal says was asked for.
fn check_against_journal(request: &Request, incident: &Incident, secrets: &Secrets) -> Result<()> {
    let journaled = requested(incident, request.run)?;
    let mut same = journaled == (request.action.clone(), request.args.clone(), request.confirmed.clone());
    if let Some(code) = &request.code {
        let shown = incident.state()?.runs.get(&request.run).map(|r| r.shown.clone());
        same &= shown == Some(Redactor::new(secrets.values()).redact(code));
    }
    if same {
        return Ok(());
    }
    Err(Error::refused(format!("the request of run {} is not the one in the journal", request.run))
        .hint("It was changed after it was made; request the run again."))
}

impl Worker {
    fn prepare(handshake: &Handshake, registry: &Registry, path: &Path) -> Result<Self> {
        let secrets = Secrets::from_pipe(&handshake.read_secrets()?)
            .map_err(|e| Error::state("the secrets cannot be read").why(e))?;
        let request = Request::read(path)?;
        let action = registry
            .get(&request.action)
            .ok_or_else(|| Error::state(format!("this program knows no action {:?}", request.action)))?;
        let incident = Incident::open(&request.incident_dir, Policy::default())?.acting_as(Actor::new("breakglass"));
        // Settings come from the request, but what is run is what the journal says.
        check_against_journal(&request, &incident, &secrets)?;
        let limits = Limits::of(&incident, request.run);
        let run_dir = incident.run_dir(request.run);
        let locks = RunLocks::take(&run_dir)?;
        Ok(Self { request, run_dir, action, secrets, incident, locks, limits })
    }

    fn work(mut self) -> Result<u8> {
        let run = self.request.run;
        self.incident.refresh()?;
        if self.incident.state()?.runs.get(&run).is_some_and(|r| r.cancel_requested && r.status == RunStatus::Requested)
        {
            self.incident.submit(Command::WithdrawRun { run, reason: "cancelled before it started".into() })?;
            return Ok(ErrorKind::Interrupted.exit_code());
        }
        // From here on the run counts as running. A request that was withdrawn meanwhile is refused here.
        self.incident.submit(Command::StartRun {
            run,
            pid: std::process::id(),
            host: host_name(),
            program: env!("CARGO_PKG_VERSION").to_string(),
        })?;
        let began = Instant::now();
        let redactor = redactor(&self.secrets, &self.request.incident_dir);
        let log_path = self.run_dir.join(OUTPUT_FILE);
        let (out, ended) =
            match OutputLog::create(&log_path, files::file_mode(&log_path), redactor, self.request.output_limit) {
                Ok(out) => {
                    let out = Arc::new(out);
                    let ended = self.act(out.clone());
                    (Some(out), ended)
                }
                Err(e) => (None, Err(e)),
            };
        let done = match ended {
            Ok(done) => done,
            Err(e) => {
                if let Some(out) = &out {
                    out.line(&e.to_string());
                }
                failed(&e)
            }
        };
        let shown = |text: &str| match &out {
            Some(out) => out.redact(text).to_string(),
            None => crate::model::CleanText::text(text).to_string(),
        };
        let mut summary = shown(&done.summary);
        let output = out.as_ref().map(|o| o.seal()).unwrap_or_default();
        if let Some(why) = out.as_ref().and_then(|o| o.lost()) {
            summary.push_str(&format!("; its output could not be kept whole: {why}"));
        }
        if let Some(status) = out.as_ref().and_then(|o| o.changed()) {
            write_progress(&self.run_dir, &status);
        }
        let code = done.exit_code;
        self.finish(Command::FinishRun {
            run,
            outcome: done.outcome,
            exit_code: code,
            summary,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            output,
            facts: done.facts,
        })?;
        self.locks.release();
        Ok(u8::try_from(code).unwrap_or(1))
    }

    /// Runs the action until it ends or, once cancelled, has had its time.
    fn act(&mut self, out: Arc<OutputLog>) -> Result<Done> {
        let cancel = CancellationToken::new();
        let overdue = Arc::new(AtomicBool::new(false));
        let tender = Tender::start(&self.request, &self.run_dir, out.clone(), cancel.clone())?;
        let ctx = Ctx {
            settings: Arc::new(kept_here(self.request.settings.clone(), self.incident.state()?)),
            secrets: Arc::new(self.secrets.clone()),
            incident: Some(Arc::new(self.incident.state()?.clone())),
            incident_dir: Some(self.request.incident_dir.clone()),
            run_dir: Some(self.run_dir.clone()),
            children_lock: children_lock(),
            out,
            cancel: cancel.clone(),
            code: self.request.code.clone(),
            confirmed: self.request.confirmed.clone(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .state(|| "the asynchronous runtime cannot be started".into())?;
        let block = matches!(self.request.action.as_str(), "shell" | "sql");
        let args = if block {
            self.limits.block_args(&self.request.args, self.request.action == "shell")
        } else {
            self.request.args.clone()
        };
        // Blocks watch their limit themselves.
        let limit = self.limits.timeout.clone().filter(|_| !block);
        let ended = runtime.block_on(async {
            let signals = Signals::listen()?;
            tokio::spawn(obey_signals(signals, cancel.clone()));
            let action = AssertUnwindSafe(self.action.run(&ctx, &args)).catch_unwind();
            if let Some((_, limit)) = &limit {
                tokio::spawn(cancel_after(*limit, cancel.clone(), overdue.clone()));
            }
            tokio::select! {
                ended = action => ended.unwrap_or_else(|panic| Err(broken(panic.as_ref()))),
                () = too_late(&cancel) => {
                    Err(Error::interrupted("cancelled; the action did not react and was stopped"))
                }
            }
        });
        // A blocking task that hangs must not keep the end from being recorded.
        runtime.shutdown_timeout(Duration::from_secs(1));
        tender.stop();
        match ended {
            Err(_) | Ok(Done { outcome: Outcome::Cancelled, .. }) if overdue.load(Ordering::Acquire) => {
                let text = limit.map(|(text, _)| text).unwrap_or_default();
                Err(Error::target(format!("stopped after its time limit of {text}")))
            }
            // What a cancelled action fails with is a consequence of the cancel.
            Err(e) if cancel.is_cancelled() && e.kind != ErrorKind::Refused => Ok(Done {
                outcome: Outcome::Cancelled,
                exit_code: i32::from(ErrorKind::Interrupted.exit_code()),
                ..Done::ok(format!("cancelled: {}", e.what))
            }),
            other => other,
        }
    }

    /// Records the end; insists when the disk is full, because an end that is not recorded reads as "outcome unknown".
    fn finish(&mut self, command: Command) -> Result<()> {
        let deadline = Instant::now() + FINISH_PATIENCE;
        loop {
            match self.incident.submit(command.clone()) {
                Ok(_) => return Ok(()),
                Err(SubmitError::Refused(r)) => return Err(SubmitError::Refused(r).into()),
                Err(SubmitError::Failed(e)) if Instant::now() >= deadline => return Err(e),
                Err(SubmitError::Failed(e)) => {
                    tracing::warn!(error = %e, "the end of a run cannot be recorded yet");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
    }
}

/// Ends when the action was cancelled and its grace has passed.
async fn too_late(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(CANCEL_GRACE).await;
}

/// Cancels when the plan's time limit has passed, and leaves word that this was why.
async fn cancel_after(limit: Duration, cancel: CancellationToken, overdue: Arc<AtomicBool>) {
    tokio::time::sleep(limit).await;
    if !cancel.is_cancelled() {
        overdue.store(true, Ordering::Release);
        cancel.cancel();
    }
}

/// TERM (the machine goes down) cancels; the loss of a terminal means nothing to us.
async fn obey_signals(mut signals: Signals, cancel: CancellationToken) {
    loop {
        if signals.next().await != Stop::Hangup {
            cancel.cancel();
        }
    }
}

/// How an error ends a run.
fn failed(e: &Error) -> Done {
    let outcome = match e.kind {
        ErrorKind::Refused => Outcome::Refused,
        ErrorKind::Interrupted => Outcome::Cancelled,
        _ => Outcome::Failed,
    };
    let summary = if e.why.is_empty() { e.what.clone() } else { format!("{}: {}", e.what, e.why) };
    Done { outcome, exit_code: i32::from(e.kind.exit_code()), ..Done::ok(summary) }
}

fn broken(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Error::state("the action broke; this is a bug in breakglass").why(text)
}

/// Shortest value that is taken for a secret because of its variable's name alone. Shorter ones ("true", "none") would
/// black out half of the output.
const GUESSED_MIN: usize = 8;

/// Knows the secrets of the request, and everything in our environment or exported by earlier blocks whose name says that it is one.
fn redactor(secrets: &Secrets, incident_dir: &Path) -> Redactor {
    let mut redactor = Redactor::new(secrets.values());
    // Variables of somebody else's making are refused when a block wants them; here they only cannot help.
    let carried = Carried::load(incident_dir).unwrap_or_default().set;
    let exported = carried.into_iter().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
    let own = std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
    for (name, value) in own.chain(exported) {
        if likely_secret(&name) && value.len() >= GUESSED_MIN {
            redactor.add(&Secret::new(value));
        } else if let Some(password) = url_password(&value) {
            redactor.add(&Secret::new(password));
        }
    }
    redactor
}

fn write_progress(run_dir: &Path, status: &RunStatusFile) {
    let path = run_dir.join(PROGRESS_FILE);
    let temporary = run_dir.join(".progress.tmp");
    let Ok(json) = serde_json::to_vec(status) else { return };
    // Not synced: after a crash the output log tells. A full disk costs progress, not the action.
    if std::fs::write(&temporary, json).is_ok() {
        use std::os::unix::fs::PermissionsExt;
        let mode = files::file_mode(&path);
        let _ = std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode));
        let _ = std::fs::rename(&temporary, &path);
    }
}

/// A thread that obeys a cancel in the journal and writes progress.json, whatever the action does with its own threads.
struct Tender {
    stop: Arc<AtomicBool>,
    wake: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Tender {
    fn start(request: &Request, run_dir: &Path, out: Arc<OutputLog>, cancel: CancellationToken) -> Result<Self> {
        let mut incident = Incident::open(&request.incident_dir, Policy::default())?;
        let (run, run_dir) = (request.run, run_dir.to_path_buf());
        let stop = Arc::new(AtomicBool::new(false));
        let (wake, woken) = mpsc::channel();
        let thread = {
            let (stop, wake) = (stop.clone(), wake.clone());
            std::thread::Builder::new().name("tender".into()).spawn(move || {
                let changed = Arc::new(AtomicBool::new(true));
                let watch = {
                    let changed = changed.clone();
                    incident.watch(move || {
                        changed.store(true, Ordering::Release);
                        let _ = wake.send(());
                    })
                };
                let mut written = Instant::now() - TEND_EVERY;
                while !stop.load(Ordering::Acquire) {
                    if changed.swap(false, Ordering::AcqRel)
                        && incident.refresh().is_ok()
                        && asked_to_stop(&incident, run)
                    {
                        cancel.cancel();
                    }
                    if written.elapsed() >= TEND_EVERY
                        && let Some(status) = out.changed()
                    {
                        write_progress(&run_dir, &status);
                        written = Instant::now();
                    }
                    let _ = woken.recv_timeout(TEND_EVERY);
                }
                drop(watch);
            })
        }
        .state(|| "cannot start a thread".into())?;
        Ok(Self { stop, wake, thread: Some(thread) })
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn asked_to_stop(incident: &Incident, run: RunId) -> bool {
    let asked = |state: &State| state.runs.get(&run).is_some_and(|r| r.cancel_requested);
    incident.state().is_ok_and(asked)
}

/// The settings a worker was given, for whoever looks at a run later.
///
/// # Errors
/// State when the request cannot be read.
pub fn settings_of(incident: &Incident, run: RunId) -> Result<Settings> {
    Ok(Request::read(&incident.run_dir(run).join(super::request::REQUEST_FILE))?.settings)
}
