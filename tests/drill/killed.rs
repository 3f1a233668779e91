//! A drill killed while its sandbox is made: nothing of it is left, and nobody has to do anything for that.
//!
//! Three parts of the set-up by default; `BREAKGLASS_SOAK=1` kills at fifty instants of all of them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::sandbox::{Place, until};

/// What the set-up says when it comes to a part of it.
const PARTS: [&str; 5] = ["making", "taking", "starting", "loading", "ready"];

/// Processes whose command line names the place or that are in it.
fn processes(place: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if line.contains(place.to_str().unwrap()) || cwd.starts_with(place) {
            found.push(format!("{}: {line}", entry.path().display()));
        }
    }
    found
}

/// Starts a drill and reads what it says up to the line that begins with this part of the set-up.
fn until_it_says(part: &str, place: &Place, home: &Path) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut drill = Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .args(["drill", "--unattended"])
        .env("TMPDIR", &place.0)
        .env("HOME", home)
        .env("BREAKGLASS_HOME", home.join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(drill.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|l| l.starts_with(part)), "{part} was not reached");
    (drill, lines)
}

#[test]
fn a_set_up_killed_at_any_moment_leaves_nothing() {
    let rounds = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 50 } else { 3 };
    for round in 0..rounds {
        let part = PARTS[round % PARTS.len()];
        let place = Place::new(&format!("killed{round}"));
        let home = tempfile::tempdir().unwrap();
        let (mut drill, _lines) = until_it_says(part, &place, home.path());
        assert_eq!(std::fs::read_dir(&place.0).unwrap().count(), 1);
        let mut random = [0u8; 2];
        getrandom::fill(&mut random).unwrap();
        // Once it is ready an incident will be opened, and then somebody may come back.
        let most = if part == "ready" { 100 } else { 1500 };
        let after = Duration::from_millis(u64::from(u16::from_le_bytes(random)) % most);
        std::thread::sleep(after);
        drill.kill().unwrap();
        drill.wait().unwrap();
        until(&format!("the end of a drill killed {after:?} after it said {part:?}"), || {
            std::fs::read_dir(&place.0).unwrap().count() == 0 && processes(&place.0).is_empty()
        });
    }
}

#[test]
fn a_set_up_that_is_stopped_stops_at_once() {
    for (part, signal, code) in [("making", Signal::INT, 130), ("loading", Signal::TERM, 143)] {
        let place = Place::new(&format!("stopped{part}"));
        let home = tempfile::tempdir().unwrap();
        let (mut drill, lines) = until_it_says(part, &place, home.path());
        kill_process(Pid::from_raw(drill.id() as i32).unwrap(), signal).unwrap();
        let said: Vec<String> = lines.collect();
        assert_eq!(drill.wait().unwrap().code(), Some(code), "{said:?}");
        let after = said.iter().position(|l| l.starts_with("stopping")).expect("it says that it stops");
        // What it was told not to do is not gone on with: nothing of the set-up is said any more.
        assert!(!said[after..].iter().any(|l| PARTS.iter().any(|p| l.starts_with(p))), "{said:?}");
        until(&format!("the end of a drill stopped after it said {part:?}"), || {
            std::fs::read_dir(&place.0).unwrap().count() == 0 && processes(&place.0).is_empty()
        });
    }
}
