//! A console as a process of its own: killed while its run goes on, or when its terminal goes away.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use breakglass::incident::RunStatus;
use breakglass::model::RunId;
use breakglass::model::event::Outcome;
use breakglass::runtime::{self, Incident, Job, RunHealth};

use super::{Desk, followed, lines, program, running, until};

const DIR: &str = "BREAKGLASS_TEST_INCIDENT";

/// Not a test by itself: the console process. Starts a run in the incident and waits to be killed.
#[test]
#[ignore = "run by other tests as a second process"]
fn console() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut incident = Incident::open(dir.as_ref(), Default::default()).unwrap();
    let code = "echo first; while [ ! -e \"$GO\" ]; do sleep 0.01; done; echo last; trap - HUP";
    let job = Job { code: Some(code.into()), ..Job::default() };
    let request = breakglass::incident::RunRequest {
        step: None,
        block_line: None,
        action: "shell".into(),
        shown: code.into(),
        args: vec![],
        risk: breakglass::model::Risk::Change,
        confirmed: None,
    };
    runtime::start_run(&mut incident, request, &job, &Default::default(), &program()).unwrap().1.unwrap();
    loop {
        std::thread::park();
    }
}

/// Not a test by itself: a process that holds a run's locks, with one child that stays and one that does not.
#[test]
#[ignore = "run by another test as a second process"]
fn holder() {
    use breakglass::process::{ChildSpec, RunOptions, run};
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = std::path::PathBuf::from(dir);
    let _locks = breakglass::process::locks::RunLocks::take(&dir).unwrap();
    let child = |name: &str| {
        ChildSpec::new("sh").arg("-c").arg(format!("echo $$ > '{}'; exec sleep 600", dir.join(name).display()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = RunOptions::default();
    let (kept, inherited) = (child("kept").stays(), child("inherited"));
    let _ =
        runtime.block_on(async { tokio::join!(run(&kept, &options, |_, _| {}), run(&inherited, &options, |_, _| {})) });
}

#[test]
fn a_server_meant_to_stay_does_not_hold_the_lock() {
    use breakglass::process::locks::holders;
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::console::holder", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let holder = Console(child);
    let pid = |name: &str| -> u32 {
        until(name, || std::fs::read_to_string(dir.path().join(name)).ok()?.trim().parse().ok())
    };
    let (kept, inherited) = (pid("kept"), pid("inherited"));
    let children = holders(&dir.path().join("children.lock"));
    assert!(children.contains(&inherited) && children.contains(&holder.0.id()), "{children:?}");
    assert!(!children.contains(&kept), "{children:?}");
    assert_eq!(holders(&dir.path().join("worker.lock")), [holder.0.id()]);
    drop(holder);
    super::kill_9(kept);
    super::kill_9(inherited);
}

struct Console(Child);

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(d: &Desk, go: &std::path::Path) -> Console {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::console::console", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, d.incident.dir())
        .env("GO", go)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    Console(child)
}

/// The first run the console started, once its block has begun.
fn begun(d: &mut Desk) -> (RunId, u32) {
    let (run, pid) = until("the console starts a run", || {
        d.incident.refresh().unwrap();
        let run = d.incident.state().unwrap().runs.values().find(|r| r.status == RunStatus::Running)?;
        Some((run.id, run.worker.as_ref()?.0))
    });
    assert_eq!(d.line(run, "first"), "");
    (run, pid)
}

#[test]
fn a_run_outlives_the_console_that_was_killed() {
    use rustix::process::{Pid, Signal, kill_process_group};
    for signal in [Signal::KILL, Signal::HUP, Signal::INT] {
        let mut d = Desk::new();
        let go = d.home.path().join("go");
        let mut console = start(&d, &go);
        let (run, worker) = begun(&mut d);
        // The whole group of the console, as a closed terminal or Ctrl-C would.
        kill_process_group(Pid::from_child(&console.0), signal).unwrap();
        if ignores(console.0.id(), signal) {
            // Started in the background of a script, INT is ignored from the beginning: the console goes on.
            console.0.kill().unwrap();
        }
        console.0.wait().unwrap();
        assert!(running(worker));
        // Another console finds the same run, running, with its output and its clock.
        let started = d.run(run).started;
        let mut again = Incident::open(d.incident.dir(), Default::default()).unwrap();
        assert_eq!(runtime::look(&mut again, Duration::ZERO).unwrap(), [(run, RunHealth::Running)]);
        assert_eq!(lines(followed(&again.run_dir(run)).ring()), ["first"]);
        assert_eq!(again.state().unwrap().runs[&run].started, started);
        std::fs::write(&go, b"").unwrap();
        assert_eq!(d.ended(run).status, RunStatus::Finished(Outcome::Succeeded));
        assert_eq!(d.output(run), "first\nlast\n");
    }
}

/// Whether a process ignores a signal: bit n - 1 of SigIgn in /proc/PID/status (proc(5)).
fn ignores(pid: u32, signal: rustix::process::Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask =
        status.lines().find_map(|l| l.strip_prefix("SigIgn:")).and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    mask.is_some_and(|m| m & (1 << (signal.as_raw() - 1)) != 0)
}

/// Kills the console at random moments while it requests and starts a run. Nothing is lost and nothing runs twice: afterwards
/// the request is withdrawn, or the run is alive and can be finished.
#[test]
fn a_console_killed_at_any_moment() {
    let rounds = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 200 } else { 10 };
    for round in 0..rounds {
        let mut d = Desk::new();
        let go = d.home.path().join("go");
        std::fs::write(&go, b"").unwrap();
        let mut console = start(&d, &go);
        let mut random = [0u8; 2];
        getrandom::fill(&mut random).unwrap();
        // A console takes some 20 to 100 ms to get there.
        std::thread::sleep(Duration::from_micros(u64::from(u16::from_le_bytes(random)) * 2));
        console.0.kill().unwrap();
        console.0.wait().unwrap();
        d.incident.refresh().unwrap();
        let before = d.incident.records().to_vec();
        let runs: Vec<RunId> = d.incident.state().unwrap().runs.keys().copied().collect();
        assert!(runs.len() <= 1);
        for run in runs {
            let ended = until("the run is settled", || {
                let _ = runtime::look(&mut d.incident, Duration::ZERO).unwrap();
                let r = d.run(run);
                (!matches!(r.status, RunStatus::Requested | RunStatus::Running)).then_some(r)
            });
            match ended.status {
                RunStatus::Withdrawn => assert!(ended.started.is_none(), "round {round}"),
                RunStatus::Finished(Outcome::Succeeded) => assert_eq!(d.output(run), "first\nlast\n"),
                other => panic!("round {round}: {other:?}"),
            }
        }
        assert!(d.incident.records().starts_with(&before), "round {round}: an event was lost");
    }
}
