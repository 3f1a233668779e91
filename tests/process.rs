//! Children: how they start, how their output is read, how they end. Real processes only.

use std::time::{Duration, Instant};

use breakglass::process::{ChildSpec, Ending, RunOptions, Stream, capture, capture_blocking, group, run, user};

fn sh(script: &str) -> ChildSpec {
    ChildSpec::new("sh").arg("-c").arg(script)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits for a condition; fails after 20 s.
fn until(what: &str, mut ok: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !ok() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn output_and_exit_code_come_back() {
    let out = capture_blocking(&sh("echo out; echo err >&2; exit 3"), Duration::from_secs(10)).unwrap();
    assert_eq!((out.text().as_str(), out.stderr.as_slice()), ("out\n", b"err\n".as_slice()));
    assert_eq!((out.end.code, out.end.ending, out.end.signal), (3, Ending::Exited, None));
    let e = out.ok(&sh("")).unwrap_err();
    assert_eq!(e.kind.exit_code(), 3);
    assert!(e.to_string().contains("exit code 3") && e.to_string().contains("err"), "{e}");
}

#[test]
fn a_missing_program_is_named() {
    let e = capture_blocking(&ChildSpec::new("no-such-program-here"), Duration::from_secs(5)).unwrap_err();
    assert!(e.what.contains("no-such-program-here") && !e.hints.is_empty(), "{e}");
}

#[test]
fn merged_output_keeps_the_order_of_writing() {
    let mut got = Vec::new();
    let options = RunOptions { merge: true, ..RunOptions::default() };
    let script = "i=0; while [ $i -lt 200 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    runtime().block_on(run(&sh(script), &options, |_, b| got.extend_from_slice(b))).unwrap();
    let want: String = (0..200).map(|i| format!("o{i}\ne{i}\n")).collect();
    assert_eq!(String::from_utf8(got).unwrap(), want);
}

#[test]
fn a_megabyte_goes_through_stdin_and_back() {
    let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let out = capture_blocking(&ChildSpec::new("cat").stdin(data.clone()), Duration::from_secs(20)).unwrap();
    assert!(out.stdout == data && out.end.success());
}

#[test]
fn a_child_that_does_not_read_its_stdin_is_no_error() {
    let out = capture_blocking(&sh("exit 0").stdin(vec![b'x'; 1_000_000]), Duration::from_secs(20)).unwrap();
    assert!(out.end.success());
}

#[test]
fn exit_ends_it_even_when_a_grandchild_keeps_the_pipe() {
    let options = RunOptions::default();
    let started = Instant::now();
    let out = runtime().block_on(capture(&sh("sleep 600 & echo $!"), &options)).unwrap();
    // The bound is the grandchild's ten minutes, far away from any scheduling delay.
    assert!(started.elapsed() < Duration::from_secs(300));
    assert!(out.end.success() && out.end.left_behind);
    let pid: u32 = out.text().trim().parse().unwrap();
    assert!(group::process_alive(pid));
    let pgid = rustix::process::getpgid(rustix::process::Pid::from_raw(pid as i32)).unwrap().as_raw_nonzero().get();
    group::kill(pgid as u32);
    until("the grandchild is gone", || !running(pid));
}

/// Exists and is no zombie (in a container nobody may reap what was left behind).
fn running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| s.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

#[test]
fn cancel_ends_the_whole_group_with_term() {
    let options = RunOptions::default();
    let cancel = options.cancel.clone();
    let mut seen = Vec::new();
    let end = runtime()
        // The sleeper tells its own id: what a shell has forked and not yet executed would swallow the TERM in its parent's trap.
        .block_on(run(&sh("trap 'echo bye; exit 7' TERM; sh -c 'echo $$; exec sleep 600' & wait"), &options, |s, b| {
            assert_eq!(s, Stream::Out);
            seen.extend_from_slice(b);
            cancel.cancel();
        }))
        .unwrap();
    assert_eq!((end.ending, end.code, end.killed), (Ending::Cancelled, 7, false));
    let text = String::from_utf8(seen).unwrap();
    assert!(text.ends_with("bye\n"), "{text:?}");
    let pid: u32 = text.lines().next().unwrap().parse().unwrap();
    until("the sleeper is gone", || !running(pid));
}

/// In a container the first process often reaps nobody: what is dead must not be taken for alive.
#[test]
#[cfg(target_os = "linux")]
fn the_dead_that_nobody_reaps_are_not_left_behind() {
    // Its child dies in our group and stays a zombie; it leaves the group itself and lives on.
    let orphaner = "import os, time
if os.fork() == 0: os._exit(0)
os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
os.setsid(); print(os.getpid(), flush=True); os.close(1); os.close(2); time.sleep(600)";
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().display();
    let script = format!("python3 -c '{orphaner}' >{file} 2>&1 & until [ -s {file} ]; do sleep 0.02; done; cat {file}");
    let options = RunOptions { timeout: Some(Duration::from_secs(60)), ..RunOptions::default() };
    let out = runtime().block_on(capture(&sh(&script), &options)).unwrap();
    let pid: u32 = out.text().trim().parse().unwrap();
    let dead = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let left = out.end.left_behind;
    group::kill(pid);
    until("the parent is gone", || !running(pid));
    assert!(!dead.trim().is_empty(), "its child is there as a zombie");
    assert!(!left, "a zombie was taken for a process");
}

#[test]
fn who_ignores_term_is_killed() {
    let options = RunOptions { grace: Duration::from_millis(200), ..RunOptions::default() };
    let cancel = options.cancel.clone();
    let end = runtime()
        .block_on(run(&sh("trap '' TERM; echo on; while :; do sleep 0.05; done"), &options, |_, _| cancel.cancel()))
        .unwrap();
    assert_eq!((end.ending, end.signal, end.killed), (Ending::Cancelled, Some(9), true));
}

#[test]
fn the_time_limit_ends_it() {
    let options = RunOptions { timeout: Some(Duration::from_millis(100)), ..RunOptions::default() };
    let end = runtime().block_on(run(&sh("sleep 600"), &options, |_, _| {})).unwrap();
    assert_eq!((end.ending, end.signal), (Ending::TimedOut, Some(15)));
    assert!(!end.success());
}

#[test]
fn dropping_the_wait_kills_the_group() {
    let pid = std::cell::Cell::new(0u32);
    runtime().block_on(async {
        let options = RunOptions::default();
        let spec = sh("echo $$; sleep 600");
        let child = run(&spec, &options, |_, b| pid.set(String::from_utf8_lossy(b).trim().parse().unwrap()));
        tokio::pin!(child);
        while pid.get() == 0 {
            tokio::select! {
                _ = &mut child => panic!("ended by itself"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    });
    until("the group is gone", || !running(pid.get()));
}

#[test]
fn the_environment_is_stated() {
    let out = capture_blocking(&ChildSpec::new("env").env("GIVEN", "yes"), Duration::from_secs(10)).unwrap().text();
    assert!(out.lines().any(|l| l == "GIVEN=yes"));
    // Cargo sets a dozen CARGO_* variables for this very process.
    assert!(!out.contains("CARGO"), "{out}");
    let spec = ChildSpec::new("env").inherit_env().env_remove("CARGO_MANIFEST_DIR");
    let out = capture_blocking(&spec, Duration::from_secs(10)).unwrap().text();
    assert!(out.contains("CARGO_PKG_NAME=") && !out.contains("CARGO_MANIFEST_DIR="));
}

#[test]
fn a_child_leads_its_own_group_and_has_no_terminal() {
    let out = capture_blocking(&sh("echo $$; ps -o pgid= -p $$; ls -l /proc/$$/fd/0"), Duration::from_secs(10))
        .unwrap()
        .text();
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    assert_eq!(lines[0], lines[1], "{out}");
    assert!(lines[2].ends_with("/dev/null"), "{out}");
}

#[test]
fn as_root_a_child_can_run_as_an_unprivileged_user() {
    let Some(who) = user::unprivileged().unwrap() else { return assert!(!user::is_root()) };
    let spec = sh("id -u; id -g; id -G; pwd; echo $HOME $USER").user(Some(who.clone()));
    let out = capture_blocking(&spec, Duration::from_secs(10)).unwrap();
    let text = out.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[1]), (who.uid.to_string().as_str(), who.gid.to_string().as_str()), "{text}");
    let mut groups: Vec<u32> = lines[2].split(' ').map(|g| g.parse().unwrap()).collect();
    groups.sort_unstable();
    let mut want = who.groups.clone();
    want.push(who.gid);
    want.sort_unstable();
    assert_eq!(groups, want);
    assert_eq!(lines[3], "/");
    assert_eq!(lines[4], format!("{} {}", who.home.display(), who.name));
}

#[test]
fn an_unknown_user_is_named() {
    let e = user::lookup("nobody-of-that-name").unwrap_err();
    assert!(e.what.contains("nobody-of-that-name"));
    let me = user::lookup(&user::current_name()).unwrap();
    assert_eq!(me.uid, user::current_uid());
}

#[test]
fn shown_commands_are_quoted() {
    assert_eq!(sh("echo 'a b'").arg("").shown(), r"sh -c 'echo '\''a b'\''' ''");
}
