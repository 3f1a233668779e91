//! Incidents, workers and what survives them. Real workers: the program's own executable.

mod carried;
mod console;
mod damage;
mod flood;
mod full_disk;
mod local_only;
mod output;
mod restore;
mod sql;
mod store;
mod worker;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use breakglass::action::output::Ring;
use breakglass::config::{Secrets, Settings};
use breakglass::error::Result;
use breakglass::incident::{Command, Policy, Run, RunRequest};
use breakglass::model::event::Kind;
use breakglass::model::plan::{Plan, Risk, Scenario, Source, Step};
use breakglass::model::{RunId, StepId};
use breakglass::runtime::{self, Follower, Incident, Job, Opening, Store, SubmitError};

/// The program under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_breakglass"))
}

/// Waits for a condition; fails after a minute, far beyond any delay of a loaded machine.
pub fn until<T>(what: &str, mut ok: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = ok() {
            return found;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Exists and is no zombie.
pub fn running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| s.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

pub fn kill_9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

pub fn plan() -> Plan {
    let step = |id: &str| Step {
        id: StepId::new(id),
        title: id.into(),
        line: 1,
        phase: None,
        text: String::new(),
        items: vec![],
        blocks: vec![],
        estimate_s: None,
        condition: None,
        expected: Default::default(),
        links: Default::default(),
        source: Source::default(),
    };
    let scenario = Scenario {
        slug: "test-scenario".into(),
        title: "Test".into(),
        steps: vec![step("s1"), step("s2")],
        ..Scenario::default()
    };
    Plan { title: "Plan".into(), file: "plan.md".into(), scenarios: vec![scenario], ..Plan::default() }
}

pub fn opening() -> Opening {
    Opening {
        kind: Kind::Drill,
        plan: plan(),
        documents: vec![("docs/plan.md".into(), b"# Plan\n".to_vec())],
        scenario: "test-scenario".into(),
        rto_ms: Some(60_000),
        rpo_ms: None,
        target: None,
        expect: Default::default(),
        policy: Policy::default(),
    }
}

/// A state directory of its own with one open incident.
pub struct Desk {
    pub home: tempfile::TempDir,
    pub store: Store,
    pub incident: Incident,
    pub job: Job,
    pub secrets: Secrets,
    pub program: PathBuf,
}

impl Desk {
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("bg-runtime").tempdir().unwrap();
        let store = Store::at(home.path());
        let incident = store.create(opening()).unwrap();
        let job = Job { settings: Settings::default(), ..Job::default() };
        Self { home, store, incident, job, secrets: Secrets::default(), program: program() }
    }

    pub fn request(&self, code: &str, args: &[&str]) -> RunRequest {
        RunRequest {
            step: Some(StepId::new("s1")),
            block_line: None,
            action: "shell".into(),
            shown: code.into(),
            args: args.iter().map(|a| (*a).to_string()).collect(),
            risk: Risk::Change,
            confirmed: None,
        }
    }

    pub fn try_shell(&mut self, code: &str, args: &[&str]) -> Result<(RunId, Result<u32>), SubmitError> {
        let request = self.request(code, args);
        self.job.code = Some(code.to_string());
        runtime::start_run(&mut self.incident, request, &self.job, &self.secrets, &self.program)
    }

    /// Starts a block; returns the run and the worker's process id.
    pub fn shell(&mut self, code: &str) -> (RunId, u32) {
        let (run, started) = self.try_shell(code, &[]).unwrap();
        (run, started.unwrap())
    }

    /// Runs a block to its end and returns it with its output.
    pub fn ran(&mut self, code: &str, args: &[&str]) -> (Run, String) {
        let (run, started) = self.try_shell(code, args).unwrap();
        started.unwrap();
        let ended = self.ended(run);
        let output = self.output(run);
        (ended, output)
    }

    pub fn run(&mut self, run: RunId) -> Run {
        self.incident.refresh().unwrap();
        self.incident.state().unwrap().runs[&run].clone()
    }

    pub fn ended(&mut self, run: RunId) -> Run {
        until("the run ends", || Some(self.run(run)).filter(|r| r.ended.is_some()))
    }

    /// Waits until the run's output has a line that begins so, and returns the rest of it.
    pub fn line(&self, run: RunId, begin: &str) -> String {
        let path = self.incident.run_dir(run).join("output.log");
        until(&format!("a line {begin:?}"), || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.lines().find_map(|l| l.strip_prefix(begin).map(str::to_string))
        })
    }

    pub fn output(&self, run: RunId) -> String {
        std::fs::read_to_string(self.incident.run_dir(run).join("output.log")).unwrap()
    }

    pub fn cancel(&mut self, run: RunId) {
        self.incident.submit(Command::CancelRun { run }).unwrap();
    }

    pub fn health(&mut self, run: RunId, grace: Duration) -> Option<runtime::RunHealth> {
        runtime::look(&mut self.incident, grace).unwrap().into_iter().find(|(r, _)| *r == run).map(|(_, h)| h)
    }
}

impl Drop for Desk {
    /// Nothing a failed test started may outlive it.
    fn drop(&mut self) {
        let Ok(runs) = std::fs::read_dir(self.incident.dir().join("runs")) else { return };
        for run in runs.flatten() {
            for lock in ["worker.lock", "children.lock"] {
                for pid in breakglass::process::locks::holders(&run.path().join(lock)) {
                    kill_9(pid);
                }
            }
        }
    }
}

pub fn lines(ring: &Ring) -> Vec<String> {
    ring.iter().map(ToString::to_string).collect()
}

pub fn followed(dir: &Path) -> Follower {
    let mut f = Follower::new(dir);
    f.catch_up().unwrap();
    f
}
