//! The life of a run: request, start, finish, cancel, refusals of the worker.

use std::time::Duration;

use breakglass::config::Connection;
use breakglass::config::settings::DATABASE_PASSWORD;
use breakglass::incident::{Command, RunStatus};
use breakglass::model::event::Outcome;
use breakglass::model::plan::Risk;
use breakglass::model::{Digest, Secret};
use breakglass::plan::digest as digest_of;
use breakglass::process::RunLiveness;
use breakglass::process::locks::probe;
use breakglass::runtime::{self, RunHealth, follow::Follower};

use super::{Desk, followed, lines, program, running, until};

#[test]
fn a_run_goes_from_request_to_finish() {
    let mut d = Desk::new();
    let (run, output) = d.ran("echo one; echo two >&2; echo three; exit 3", &[]);
    assert_eq!(output, "one\ntwo\nthree\n");
    assert_eq!((run.status, run.exit_code), (RunStatus::Finished(Outcome::Failed), Some(3)));
    assert_eq!(run.summary, "exit code 3");
    assert_eq!((run.output.bytes, run.output.lines, run.output.dropped_lines), (14, 3, 0));
    assert_eq!(run.output.sha256, Some(digest_of(output.as_bytes())));
    assert!(run.worker.is_some() && run.started.is_some());
    let f = followed(&d.incident.run_dir(run.id));
    assert_eq!(lines(f.ring()), ["one", "two", "three"]);
    assert_eq!((f.status().lines, f.status().bytes), (3, 14));
    assert!(d.health(run.id, Duration::ZERO).is_none(), "an ended run is not looked at");
    until("the locks are free", || (probe(&d.incident.run_dir(run.id)).unwrap() == RunLiveness::Gone).then_some(()));
}

#[test]
fn a_good_end_and_an_expectation() {
    let mut d = Desk::new();
    assert_eq!(d.ran("true", &[]).0.status, RunStatus::Finished(Outcome::Succeeded));
    let (run, _) = d.ran("echo accepting connections", &["--expect", "accepting conn"]);
    assert_eq!(run.status, RunStatus::Finished(Outcome::Succeeded));
    let (run, _) = d.ran("echo no response", &["--expect", "accepting conn"]);
    assert_eq!((run.status, run.exit_code), (RunStatus::Finished(Outcome::Failed), Some(1)));
    assert!(run.summary.contains("accepting conn"), "{}", run.summary);
    let (run, _) = d.ran("sleep 600", &["--timeout", "100ms"]);
    assert_eq!(run.status, RunStatus::Finished(Outcome::Failed));
    assert!(run.summary.contains("time limit"), "{}", run.summary);
}

#[test]
fn the_attributes_of_the_plan_hold_for_a_block() {
    let mut opening = super::opening();
    let block = |line: u32, attrs: &[(&str, &str)]| breakglass::model::Block {
        line,
        attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..Default::default()
    };
    opening.plan.scenarios[0].steps[0].blocks =
        vec![block(10, &[("timeout", "150ms")]), block(20, &[("expect", "well")])];
    let mut d = Desk::new();
    d.incident = d.store.create(opening).unwrap();
    for (line, code, outcome, why) in [
        (10, "sleep 600", Outcome::Failed, "time limit"),
        (20, "echo all is bad", Outcome::Failed, "\"well\""),
        (20, "echo all is well", Outcome::Succeeded, "exit code 0"),
        (30, "echo all is bad", Outcome::Succeeded, "exit code 0"),
    ] {
        let mut request = d.request(code, &[]);
        request.block_line = Some(line);
        d.job.code = Some(code.into());
        let (run, started) = runtime::start_run(&mut d.incident, request, &d.job, &d.secrets, &d.program).unwrap();
        started.unwrap();
        let ended = d.ended(run);
        assert_eq!(ended.status, RunStatus::Finished(outcome), "{code}: {}", ended.summary);
        assert!(ended.summary.contains(why), "{code}: {}", ended.summary);
    }
}

#[test]
fn a_worker_belongs_to_itself_and_its_children_hold_the_lock() {
    let mut d = Desk::new();
    let (run, pid) =
        d.shell("echo pid $$; ls -l /proc/self/fd >/dev/null; read -r _ < \"$PWD/never\" 2>/dev/null; sleep 600");
    let child: u32 = d.line(run, "pid ").parse().unwrap();
    let sid = |pid: u32| {
        rustix::process::getsid(rustix::process::Pid::from_raw(pid as i32)).unwrap().as_raw_nonzero().get() as u32
    };
    let pgid = |pid: u32| {
        rustix::process::getpgid(rustix::process::Pid::from_raw(pid as i32)).unwrap().as_raw_nonzero().get() as u32
    };
    assert_eq!((sid(pid), sid(child)), (pid, pid), "a session of its own, and no terminal with it");
    assert_eq!((pgid(pid), pgid(child)), (pid, child), "each child leads a group");
    for fd in 0..3 {
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap().to_str(), Some("/dev/null"));
    }
    let dir = d.incident.run_dir(run);
    let holds = |pid: u32, lock: &str| breakglass::process::locks::holders(&dir.join(lock)).contains(&pid);
    assert!(holds(pid, "worker.lock") && holds(pid, "children.lock"));
    assert!(!holds(child, "worker.lock") && holds(child, "children.lock"));
    assert_eq!(d.health(run, Duration::ZERO), Some(RunHealth::Running));
    d.cancel(run);
    assert_eq!(d.ended(run).status, RunStatus::Finished(Outcome::Cancelled));
    until("worker and child are gone", || (!running(pid) && !running(child)).then_some(()));
}

#[test]
fn cancel_is_an_event_that_the_worker_obeys() {
    let mut d = Desk::new();
    let (run, _) = d.shell("trap 'echo cleaning up; exit 9' TERM; echo on; while :; do sleep 0.05; done");
    d.line(run, "on");
    d.cancel(run);
    let ended = d.ended(run);
    assert_eq!((ended.status, ended.exit_code), (RunStatus::Finished(Outcome::Cancelled), Some(9)));
    assert!(ended.cancel_requested);
    assert!(d.output(run).contains("cleaning up\n"));
}

#[test]
fn secrets_reach_the_tool_and_nothing_else() {
    let secret = "correct horse/battery&staple";
    let mut d = Desk::new();
    d.secrets.set(DATABASE_PASSWORD, Secret::new(secret));
    d.job.settings.database = Some(Connection {
        host: "/run/nowhere".into(),
        port: 5433,
        user: "amy".into(),
        database: "shop".into(),
        sslmode: None,
    });
    let code = "echo seen ${#PGPASSWORD} $PGHOST:$PGPORT/$PGDATABASE as $PGUSER; echo $PGPASSWORD; echo $DATABASE_URL\n\
                for c in correct ' horse' /battery '&staple'; do printf '%s' \"$c\"; sleep 0.02; done; echo\n\
                printf 'correct ho\\033[31mrse/battery&staple\\n'; cat /proc/$PPID/cmdline | tr '\\0' ' '; echo; echo on; sleep 600";
    let (run, pid) = d.shell(code);
    d.line(run, "on");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains(secret), "the worker's own environment shows it");
    d.cancel(run);
    d.ended(run);
    let output = d.output(run);
    assert!(output.starts_with("seen 28 /run/nowhere:5433/shop as amy\n•••\npostgres://amy:•••@/shop"), "{output}");
    assert_eq!(output.lines().nth(3), Some("•••"), "in pieces\n{output}");
    assert_eq!(output.lines().nth(4), Some("•••"), "torn apart by an escape sequence\n{output}");
    assert!(output.contains(" worker --request "), "{output}");
    for file in walk(d.home.path()) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(secret) && !text.contains("correct%20horse"), "{file:?} holds it:\n{text}");
    }
}

#[test]
fn a_secret_that_a_block_exports_is_kept_out_of_the_next_ones_output() {
    let mut d = Desk::new();
    d.ran("export API_TOKEN=abcd-efgh-1234 PLAIN=abcdefgh URL=https://amy:opensesame@example.org/x", &[]);
    let (_, output) = d.ran("echo $API_TOKEN $PLAIN $URL", &[]);
    assert_eq!(output, "••• abcdefgh https://amy:•••@example.org/x\n");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for e in std::fs::read_dir(dir).unwrap().flatten() {
        if e.path().is_dir() { out.extend(walk(&e.path())) } else { out.push(e.path()) }
    }
    out
}

#[test]
fn files_and_folders_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let mut d = Desk::new();
    d.ran("export A=1; echo x", &[]);
    for e in walk(d.home.path()) {
        let mode = std::fs::metadata(&e).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{e:?} is {mode:o}");
    }
    let dir = std::fs::metadata(d.incident.dir()).unwrap().permissions().mode() & 0o777;
    assert_eq!(dir, 0o700);
}

#[test]
fn a_worker_that_cannot_start_withdraws_the_request() {
    let mut d = Desk::new();
    d.program = "/no/such/program".into();
    let (run, started) = d.try_shell("echo no", &[]).unwrap();
    assert!(started.is_err());
    let r = d.run(run);
    assert_eq!(r.status, RunStatus::Withdrawn);
    assert!(r.summary.contains("could not be started"), "{}", r.summary);

    // One that ends without a word.
    d.program = "/bin/false".into();
    let (run, started) = d.try_shell("echo no", &[]).unwrap();
    assert!(started.unwrap_err().what.contains("before it was ready"));
    assert_eq!(d.run(run).status, RunStatus::Withdrawn);

    // One that says why.
    d.program = program();
    let mut request = d.request("echo no", &[]);
    request.action = "no such action".into();
    let (run, started) = runtime::start_run(&mut d.incident, request, &d.job, &d.secrets, &d.program).unwrap();
    assert!(started.unwrap_err().what.contains("no such action"));
    assert_eq!(d.run(run).status, RunStatus::Withdrawn);
    assert!(!d.incident.run_dir(run).join("output.log").exists());
}

#[test]
fn a_request_of_a_newer_program_or_changed_afterwards_is_refused() {
    for (from, to, why) in [
        ("\"v\": 1", "\"v\": 2", "does not know its format 2"),
        ("\"--expect\"", "\"--cwd\"", "not the one in the journal"),
        ("echo no", "echo yes", "not the one in the journal"),
    ] {
        let mut d = Desk::new();
        let request = d.request("echo no", &["--expect", "/tmp"]);
        let run = d.incident.submit(Command::RequestRun(request)).unwrap().run().unwrap();
        // The worker's program changes the request before the real one reads it.
        let script = d.home.path().join("tamper");
        let path = d.incident.run_dir(run).join("request.json");
        let text =
            format!("#!/bin/sh\nsed -i 's/{from}/{to}/' '{}'\nexec '{}' \"$@\"\n", path.display(), program().display());
        executable(&script, &text);
        d.job.code = Some("echo no".into());
        let e = runtime::start(&mut d.incident, run, &d.job, &d.secrets, &script).unwrap_err();
        assert_eq!(e.kind.exit_code(), 4, "{e}");
        assert!(e.to_string().contains(why), "{e}");
        assert_eq!(d.run(run).status, RunStatus::Withdrawn);
    }
}

pub fn executable(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn two_changing_runs_never_go_at_once_and_reading_ones_may() {
    let mut d = Desk::new();
    let (run, _) = d.shell("echo on; sleep 600");
    d.line(run, "on");
    let e = d.try_shell("echo no", &[]).unwrap_err();
    assert!(e.to_string().contains("still going on"), "{e}");
    let mut request = d.request("echo yes", &["--risk", "read"]);
    request.risk = Risk::Read;
    d.job.code = Some("echo yes".into());
    let (second, started) = runtime::start_run(&mut d.incident, request, &d.job, &d.secrets, &d.program).unwrap();
    started.unwrap();
    assert_eq!(d.ended(second).status, RunStatus::Finished(Outcome::Succeeded));
    d.cancel(run);
    d.ended(run);
}

#[test]
fn a_console_that_comes_back_sees_the_same_run_and_its_output() {
    let mut d = Desk::new();
    let (run, _) = d.shell("echo first; echo on; while [ ! -e go ]; do sleep 0.02; done; echo last");
    d.line(run, "on");
    let dir = d.incident.dir().to_path_buf();
    // Another console: nothing but the folder.
    let mut again = breakglass::runtime::Incident::open(&dir, Default::default()).unwrap();
    assert_eq!(runtime::look(&mut again, Duration::ZERO).unwrap(), [(run, RunHealth::Running)]);
    let mut f = Follower::new(&again.run_dir(run));
    f.catch_up().unwrap();
    assert_eq!(lines(f.ring()), ["first", "on"]);
    assert_eq!(again.state().unwrap().runs[&run].started, d.run(run).started);
    again.submit(Command::CancelRun { run }).unwrap();
    assert_eq!(d.ended(run).status, RunStatus::Finished(Outcome::Cancelled));
}

#[test]
fn a_finish_waits_for_a_journal_that_is_locked() {
    let mut d = Desk::new();
    let (run, pid) =
        d.shell("echo on; while [ ! -e '/proc/self/cwd/none' ]; do [ -e \"$GO\" ] && exit 0; sleep 0.01; done");
    // Without GO the block ends only by cancel; what is tested is that its end is not lost while the lock is held.
    d.line(run, "on");
    d.cancel(run);
    let lock =
        breakglass::journal::FileLock::acquire(d.incident.dir().join("journal.lock"), Duration::from_secs(5), "a test")
            .unwrap();
    until("the output is sealed", || {
        breakglass::process::locks::holders(&d.incident.run_dir(run).join("output.log")).contains(&pid).then_some(())
    });
    assert_eq!(probe(&d.incident.run_dir(run)).unwrap(), RunLiveness::Running);
    drop(lock);
    assert_eq!(d.ended(run).status, RunStatus::Finished(Outcome::Cancelled));
}

#[test]
fn the_journal_of_a_run_verifies() {
    let mut d = Desk::new();
    d.ran("echo x", &[]);
    d.incident.submit(Command::Note { text: "after".into() }).unwrap();
    let head: Digest = d.incident.head().hash.clone();
    let mut fresh = breakglass::runtime::Incident::open(d.incident.dir(), Default::default()).unwrap();
    assert_eq!(fresh.head().hash, head);
    assert!(!fresh.refresh().unwrap());
    assert_eq!(fresh.state().unwrap(), d.incident.state().unwrap());
}
