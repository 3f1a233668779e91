//! Deaths: of the worker, of its children, of the console between request and spawn; replaced programs, foreign files.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use breakglass::incident::{Command, RunStatus};
use breakglass::model::event::Outcome;
use breakglass::process::RunLiveness;
use breakglass::process::locks::{holders, probe, stop_orphans};
use breakglass::runtime::{self, Request, RunHealth};

use super::worker::executable;
use super::{Desk, kill_9, program, running, until};

#[test]
fn a_dead_worker_with_living_children_is_never_retried() {
    let mut d = Desk::new();
    let (run, pid) = d.shell("echo pid $$; sleep 600");
    let child: u32 = d.line(run, "pid ").parse().unwrap();
    kill_9(pid);
    // The lock is free once its last thread is gone, which may be a moment after the process looks dead.
    let orphans = until("the worker is seen as died", || match d.health(run, Duration::ZERO) {
        Some(RunHealth::WorkerDied(orphans)) => Some(orphans),
        _ => None,
    });
    assert!(running(child));
    assert!(orphans.iter().any(|o| o.pid == child && o.command.contains("bash")), "{orphans:?}");
    // Nothing was recorded: the run is still running as far as the journal says, and blocks a retry.
    assert_eq!(d.run(run).status, RunStatus::Running);
    assert!(d.try_shell("echo no", &[]).unwrap_err().to_string().contains("still going on"));
    // The worker's own request started again by hand does nothing: its children hold the lock.
    assert!(stop_orphans(&d.incident.run_dir(run)).unwrap());
    until("the child is gone", || (!running(child)).then_some(()));
    assert_eq!(d.health(run, Duration::ZERO), Some(RunHealth::Unknown));
    assert_eq!(d.run(run).status, RunStatus::Unknown);
    assert!(d.try_shell("echo no", &[]).unwrap_err().to_string().contains("unknown"));
    d.incident
        .submit(Command::ResolveRun {
            run,
            outcome: Outcome::Failed,
            reason: "looked at the table: nothing written".into(),
        })
        .unwrap();
    assert_eq!(d.ran("echo yes", &[]).0.status, RunStatus::Finished(Outcome::Succeeded));
}

#[test]
fn both_dead_is_outcome_unknown() {
    let mut d = Desk::new();
    let (run, pid) = d.shell("echo pid $$; sleep 600");
    let child: u32 = d.line(run, "pid ").parse().unwrap();
    let dir = d.incident.run_dir(run);
    kill_9(pid);
    for orphan in holders(&dir.join("children.lock")) {
        kill_9(orphan);
    }
    until("both are gone", || (probe(&dir).unwrap() == RunLiveness::Gone).then_some(()));
    assert!(!running(child));
    assert_eq!(d.health(run, Duration::ZERO), Some(RunHealth::Unknown));
    // Looking again records nothing more.
    let head = d.incident.head().clone();
    assert_eq!(d.health(run, Duration::ZERO), Some(RunHealth::Unknown));
    assert_eq!(*d.incident.head(), head);
}

#[test]
fn a_job_left_in_the_background_is_reported_and_holds_the_lock() {
    let mut d = Desk::new();
    let (run, output) = d.ran("sleep 600 & echo pid $!", &[]);
    let job: u32 = output.lines().find_map(|l| l.strip_prefix("pid ")).unwrap().parse().unwrap();
    assert_eq!(run.status, RunStatus::Finished(Outcome::Succeeded));
    assert!(output.contains("goes on"), "{output}");
    let dir = d.incident.run_dir(run.id);
    until("the worker is gone", || (probe(&dir).unwrap() != RunLiveness::Running).then_some(()));
    assert_eq!(probe(&dir).unwrap(), RunLiveness::WorkerDied);
    assert!(holders(&dir.join("children.lock")).contains(&job));
    kill_9(job);
}

#[test]
fn a_console_killed_between_request_and_spawn_leaves_a_request_that_is_withdrawn() {
    let mut d = Desk::new();
    let marker = d.home.path().join("marker");
    let code = format!("touch '{}'", marker.display());
    let run = d.incident.submit(Command::RequestRun(d.request(&code, &[]))).unwrap().run().unwrap();
    // Not at once: another console may be starting it right now.
    assert_eq!(d.health(run, Duration::from_secs(3600)), Some(RunHealth::Starting));
    assert_eq!(d.run(run).status, RunStatus::Requested);
    assert_eq!(d.health(run, Duration::ZERO), None);
    assert_eq!(d.run(run).status, RunStatus::Withdrawn);
    // A worker that comes late is told no, and its block never runs.
    d.job.code = Some(code);
    let _ = runtime::start(&mut d.incident, run, &d.job, &d.secrets, &d.program);
    until("the late worker is gone", || (probe(&d.incident.run_dir(run)).unwrap() == RunLiveness::Gone).then_some(()));
    assert_eq!(d.run(run).status, RunStatus::Withdrawn);
    assert!(!marker.exists());
}

#[test]
fn of_start_and_withdrawal_exactly_one_wins() {
    for round in 0..12 {
        let mut d = Desk::new();
        let marker = d.home.path().join("marker");
        let code = format!("echo x >> '{}'", marker.display());
        let run = d.incident.submit(Command::RequestRun(d.request(&code, &[]))).unwrap().run().unwrap();
        d.job.code = Some(code);
        let dir = d.incident.dir().to_path_buf();
        let other = std::thread::spawn(move || {
            let mut second = runtime::Incident::open(&dir, Default::default()).unwrap();
            std::thread::sleep(Duration::from_millis(round * 2));
            second.submit(Command::WithdrawRun { run, reason: "changed my mind".into() }).is_ok()
        });
        let _ = runtime::start(&mut d.incident, run, &d.job, &d.secrets, &d.program);
        let withdrawn = other.join().unwrap();
        let ended = d.ended(run);
        until("the worker is gone", || {
            (probe(&d.incident.run_dir(run)).unwrap() != RunLiveness::Running).then_some(())
        });
        let written = std::fs::read_to_string(&marker).unwrap_or_default();
        match ended.status {
            RunStatus::Withdrawn => assert!(withdrawn && written.is_empty(), "round {round}"),
            RunStatus::Finished(Outcome::Succeeded) => assert!(!withdrawn && written == "x\n", "round {round}"),
            other => panic!("round {round}: {other:?}"),
        }
    }
}

#[test]
fn a_worker_never_runs_twice() {
    let mut d = Desk::new();
    let marker = d.home.path().join("marker");
    let (run, _) = d.ran(&format!("echo x >> '{}'", marker.display()), &[]);
    until("the worker is gone", || (probe(&d.incident.run_dir(run.id)).unwrap() == RunLiveness::Gone).then_some(()));
    let again = std::process::Command::new(program())
        .args(["worker", "--request"])
        .arg(d.incident.run_dir(run.id).join("request.json"))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut c| {
            use std::io::Write;
            c.stdin.take().unwrap().write_all(b"{}")?;
            c.wait()
        })
        .unwrap();
    assert_eq!(again.code(), Some(4));
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), "x\n");
    assert_eq!(d.run(run.id), run);
}

#[test]
fn foreign_files_of_the_console_are_not_kept_open() {
    let mut d = Desk::new();
    let fifo = d.home.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = d.home.path().join("start");
    // As a shell with `| tee` or an ssh session would have left them: open, and not close-on-exec.
    executable(
        &script,
        &format!("#!/bin/sh\nexec 7>'{}' 9>&7\nexec '{}' \"$@\"\n", fifo.display(), program().display()),
    );
    // Opened without waiting for a writer.
    let mut reader = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(&fifo)
        .unwrap();
    d.program = script;
    let (run, pid) = d.shell("echo on; sleep 600");
    d.line(run, "on");
    // End of file, although worker and child are alive: nobody holds the writing end. A held one would say "would block".
    assert!(running(pid));
    assert_eq!(reader.read(&mut [0u8; 8]).unwrap(), 0);
    d.cancel(run);
    d.ended(run);
}

#[test]
fn the_executable_may_be_replaced_while_a_run_goes_on() {
    let mut d = Desk::new();
    let copy = d.home.path().join("breakglass");
    std::fs::copy(program(), &copy).unwrap();
    d.program = copy.clone();
    let (run, _) = d.shell(
        "echo on; while [ ! -e \"$HOME_OF_TEST/replaced\" ] && [ ! -e replaced ]; do sleep 0.02; done; /proc/$PPID/exe --version",
    );
    d.line(run, "on");
    // An upgrade: the name now means something that is no program.
    let new = d.home.path().join("new");
    executable(&new, "not a program");
    std::fs::rename(&new, &copy).unwrap();
    let cwd = std::env::current_dir().unwrap().join("replaced");
    std::fs::write(&cwd, b"").unwrap();
    let ended = d.ended(run);
    std::fs::remove_file(&cwd).unwrap();
    assert_eq!(ended.status, RunStatus::Finished(Outcome::Succeeded), "{}", d.output(run));
    assert!(d.output(run).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn our_own_executable_is_found_even_when_its_name_is_gone() {
    assert_eq!(breakglass::process::detach::own_executable().unwrap().to_str(), Some("/proc/self/exe"));
}

/// Kills the worker, its children or both at random moments. Whatever the moment: nothing runs twice, the journal verifies,
/// and the run ends as finished, or is seen as died or unknown.
#[test]
fn killed_at_any_moment() {
    let rounds = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 200 } else { 12 };
    for round in 0..rounds {
        let mut d = Desk::new();
        let marker = d.home.path().join("marker");
        let code = format!(
            "echo begin >> '{0}'; for i in 1 2 3 4 5; do echo $i; sleep 0.01; done; echo end >> '{0}'",
            marker.display()
        );
        let run = d.incident.submit(Command::RequestRun(d.request(&code, &[]))).unwrap().run().unwrap();
        d.job.code = Some(code);
        let dir = d.incident.run_dir(run);
        let killer = {
            let dir = dir.clone();
            let mut random = [0u8; 2];
            getrandom::fill(&mut random).unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(u64::from(u16::from_le_bytes(random)) * 2));
                let mut victims = holders(&dir.join("worker.lock"));
                if round % 2 == 0 {
                    victims.extend(holders(&dir.join("children.lock")));
                }
                victims.into_iter().for_each(kill_9);
            })
        };
        let started = runtime::start(&mut d.incident, run, &d.job, &d.secrets, &d.program);
        killer.join().unwrap();
        until("nothing is left running", || {
            matches!(probe(&dir).unwrap(), RunLiveness::Gone | RunLiveness::NeverStarted).then_some(())
        });
        let _ = d.health(run, Duration::ZERO);
        let status = d.run(run).status;
        let written = std::fs::read_to_string(&marker).unwrap_or_default();
        match status {
            RunStatus::Finished(Outcome::Succeeded) => assert_eq!(written, "begin\nend\n"),
            RunStatus::Finished(_) | RunStatus::Unknown => assert!("begin\nend\n".starts_with(&written), "{written:?}"),
            RunStatus::Withdrawn => assert_eq!(written, "", "round {round}: withdrawn and yet run ({started:?})"),
            other => panic!("round {round}: {other:?}"),
        }
        let fresh = runtime::Incident::open(d.incident.dir(), Default::default()).unwrap();
        assert_eq!(fresh.state().unwrap(), d.incident.state().unwrap());
    }
}

#[test]
fn a_request_carries_its_settings_and_no_secret() {
    let mut d = Desk::new();
    d.job.settings.target = Some("shop @ test".into());
    let (run, _) = d.ran("true", &[]);
    let r = Request::read(&d.incident.run_dir(run.id).join("request.json")).unwrap();
    assert_eq!((r.v, r.settings.target.as_deref(), r.run), (1, Some("shop @ test"), run.id));
}
