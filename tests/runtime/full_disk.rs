//! A disk that is full when a run prints and when it ends: what could not be written is never said to be recorded.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use breakglass::incident::RunStatus;
use breakglass::journal::verify;
use breakglass::model::event::{Event, Outcome};
use breakglass::plan::digest as digest_of;
use breakglass::runtime::{self, RunHealth};

use super::{Desk, kill_9, running, until};

const ROOM: &str = "BREAKGLASS_TEST_ROOM";

/// The test proper, in a process for which the temporary folder is a small disk of its own.
#[test]
#[ignore = "run by another test on a small disk"]
fn inside() {
    let Some(room) = std::env::var_os(ROOM).map(PathBuf::from) else { return };
    printed_and_ended_on_a_full_disk(&room);
    died_before_the_end_was_recorded(&room);
}

#[test]
fn an_end_is_recorded_or_not_claimed() {
    let room = tempfile::tempdir().unwrap();
    let disk = room.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs -o size=600k tmpfs \"$TMPDIR\" && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::full_disk::inside", "--ignored", "--nocapture", "--test-threads=1"])
        .env("TMPDIR", &disk)
        .env(ROOM, room.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    if said.contains("Operation not permitted") || said.contains("must be superuser") {
        eprintln!("not allowed to mount: this case is not tested here");
        return;
    }
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
}

/// Takes every byte the disk still gives.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

/// Starts a block that waits for `go`, prints more than fits, and leaves `printed` when it is done.
fn start(d: &mut Desk, room: &Path, name: &str) -> (breakglass::model::RunId, u32, PathBuf, PathBuf) {
    let (go, printed) = (room.join(format!("{name}-go")), room.join(format!("{name}-printed")));
    let code = format!(
        "echo begun; while [ ! -e '{}' ]; do sleep 0.01; done; \
         for i in $(seq 1 4000); do echo \"line $i of an output that does not fit on the disk\"; done; touch '{}'",
        go.display(),
        printed.display()
    );
    let (run, worker) = d.shell(&code);
    d.line(run, "begun");
    (run, worker, go, printed)
}

fn finishes(d: &mut Desk) -> usize {
    d.incident.refresh().unwrap();
    let events = d.incident.records().iter().flat_map(|r| &r.events);
    events.filter(|e| matches!(e, Event::RunFinished { .. })).count()
}

/// While its end cannot be recorded a run goes on, whatever anybody looks at.
fn stays_open(d: &mut Desk, run: breakglass::model::RunId, worker: u32) {
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        assert_eq!(d.health(run, Duration::ZERO), Some(RunHealth::Running));
        assert_eq!((d.run(run).status, finishes(d)), (RunStatus::Running, 0));
        assert!(verify(d.incident.dir(), &[]).unwrap().ok());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(running(worker));
}

fn printed_and_ended_on_a_full_disk(room: &Path) {
    let mut d = Desk::new();
    let (run, worker, go, printed) = start(&mut d, room, "first");
    // The journal's own last block may have room for one more record.
    let filler = fill(d.home.path());
    let mut notes = 0;
    while d.incident.submit(breakglass::incident::Command::Note { text: "x".repeat(300) }).is_ok() {
        notes += 1;
        assert!(notes < 100);
    }
    std::fs::write(&go, b"").unwrap();
    until("everything is printed", || printed.exists().then_some(()));
    stays_open(&mut d, run, worker);
    std::fs::remove_file(filler).unwrap();
    let ended = d.ended(run);
    assert_eq!(ended.status, RunStatus::Finished(Outcome::Succeeded));
    assert!(ended.summary.contains("could not be kept whole"), "{}", ended.summary);
    assert!(ended.output.dropped_lines > 0);
    // What the journal says the log holds is what it holds.
    let log = std::fs::read(d.incident.run_dir(run).join("output.log")).unwrap();
    assert_eq!((ended.output.bytes, ended.output.sha256), (log.len() as u64, Some(digest_of(&log))));
    // Everything is counted; bash adds a line when it cannot keep its variables.
    assert!(ended.output.lines + ended.output.dropped_lines >= 4001);
    assert!(verify(d.incident.dir(), &[]).unwrap().ok());
}

fn died_before_the_end_was_recorded(room: &Path) {
    let mut d = Desk::new();
    let (run, worker, go, printed) = start(&mut d, room, "second");
    let filler = fill(d.home.path());
    while d.incident.submit(breakglass::incident::Command::Note { text: "x".repeat(300) }).is_ok() {}
    std::fs::write(&go, b"").unwrap();
    until("everything is printed", || printed.exists().then_some(()));
    stays_open(&mut d, run, worker);
    kill_9(worker);
    until("the worker is gone", || (!running(worker)).then_some(()));
    // That its outcome is unknown cannot be recorded either: said as an error, never as an end.
    until("nobody can record what became of it", || match runtime::look(&mut d.incident, Duration::ZERO) {
        Err(e) if e.to_string().contains("cannot be recorded") => Some(()),
        Err(e) => panic!("{e}"),
        Ok(found) => (!found.iter().any(|(_, h)| *h == RunHealth::Running)).then(|| panic!("{found:?}")),
    });
    assert_eq!((d.run(run).status, finishes(&mut d)), (RunStatus::Running, 0));
    std::fs::remove_file(filler).unwrap();
    assert_eq!(d.health(run, Duration::ZERO), Some(RunHealth::Unknown));
    assert_eq!((d.run(run).status, finishes(&mut d)), (RunStatus::Unknown, 0));
    assert!(verify(d.incident.dir(), &[]).unwrap().ok());
}
