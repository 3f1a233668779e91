//! The whole drill through the real program, unattended: what README promises, judged by a program that shares nothing with us.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Runs the program with an empty environment, so that nothing of the machine leaks in.
fn drill(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .arg("drill")
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("BREAKGLASS_HOME", home)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The scratch directory a drill said it made.
fn scratch(output: &Output) -> PathBuf {
    let all = text(output);
    let at = all.find("making a private PostgreSQL").unwrap_or_else(|| panic!("no sandbox was made:\n{all}"));
    let line = all[at..].lines().next().unwrap();
    PathBuf::from(line.rsplit(" in ").next().unwrap().trim())
}

/// Processes whose command line or working directory names the directory.
fn processes_of(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid.bytes().all(|b| b.is_ascii_digit()) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if line.contains(dir.to_str().unwrap()) || cwd.starts_with(dir) {
                found.push(format!("{pid}: {line}"));
            }
        }
    }
    found
}

fn nothing_left(dir: &Path) {
    let begun = Instant::now();
    // The kernel needs a moment to take back what was just ended.
    while begun.elapsed() < Duration::from_secs(10) && (!processes_of(dir).is_empty() || dir.exists()) {
        std::thread::yield_now();
    }
    assert_eq!(processes_of(dir), Vec::<String>::new(), "processes are left");
    assert!(!dir.exists(), "{dir:?} is left");
}

/// Removes a kept sandbox the way its owner would: the program's own clean-up of one directory.
struct Kept(PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = breakglass::drill::leftovers::remove(&self.0);
    }
}

#[test]
fn a_drill_recovers_the_database_and_an_independent_checker_agrees() {
    let home = tempfile::tempdir().unwrap();
    let report = home.path().join("report");
    let output = drill(home.path(), &["--unattended", "--keep", "--report", report.to_str().unwrap()]);
    let dir = scratch(&output);
    let kept = Kept(dir.clone());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));

    let json = find(&report, "json");
    let document: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let events: Vec<Value> = document["journal"]["lines"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|l| serde_json::from_str::<Value>(l.as_str().unwrap()).unwrap()["events"].as_array().unwrap().clone())
        .collect();
    let last = |kind: &str| events.iter().rfind(|e| e["type"] == kind).unwrap_or_else(|| panic!("no {kind}")).clone();
    let identity = &last("promoted")["identity"];
    let conninfo = format!(
        "host={} port={} user=postgres dbname={}",
        identity["host"].as_str().unwrap(),
        identity["port"],
        identity["database"].as_str().unwrap()
    );
    let checker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checker.py");
    let lines = std::fs::read_to_string(&checker).unwrap().lines().count();
    assert!(lines <= 60, "the checker has {lines} lines, it must stay small enough to be read at once");
    let judged = Command::new("python3").arg(&checker).arg(&report).arg(&json).arg(&conninfo).output().unwrap();
    assert!(judged.status.success(), "the checker disagrees:\n{}\n{}", text(&judged), text(&output));

    // The same checker must be able to say no: a report that claims another loss is wrong.
    let lie = home.path().join("lie.json");
    let mut changed = document.clone();
    for line in changed["journal"]["lines"].as_array_mut().unwrap() {
        let mut record: Value = serde_json::from_str(line.as_str().unwrap()).unwrap();
        for event in record["events"].as_array_mut().unwrap() {
            if event["type"] == "loss_measured" {
                let orders = &mut event["loss"]["rows"]["public.orders"];
                *orders = Value::from(orders.as_u64().unwrap_or(0) + 1000);
            }
        }
        *line = Value::String(record.to_string());
    }
    std::fs::write(&lie, changed.to_string()).unwrap();
    let judged = Command::new("python3").arg(&checker).arg(&report).arg(&lie).arg(&conninfo).output().unwrap();
    assert_eq!(judged.status.code(), Some(1), "the checker believes a wrong loss: {}", text(&judged));

    // The journal verifies by itself and against the head in the report.
    let incidents: Vec<_> = std::fs::read_dir(home.path().join("incidents")).unwrap().flatten().collect();
    assert_eq!(incidents.len(), 1);
    let verified = Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .args(["journal", "verify"])
        .arg(incidents[0].path())
        .env("BREAKGLASS_HOME", home.path())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", text(&verified));
    for kind in ["md", "html", "csv"] {
        assert!(std::fs::metadata(find(&report, kind)).unwrap().len() > 1000, "{kind} is empty");
    }

    // No secret of the sandbox is anywhere it must not be.
    let passphrase = breakglass::drill::scratch::read_passphrase(&dir).unwrap();
    for place in [home.path().to_path_buf(), report.clone()] {
        for file in all_files(&place) {
            let bytes = std::fs::read(&file).unwrap();
            let found = bytes.windows(passphrase.expose().len()).any(|w| w == passphrase.expose().as_bytes());
            assert!(!found, "the passphrase is in {}", file.display());
        }
    }
    drop(kept);
    nothing_left(&dir);
}

#[test]
fn a_drill_that_comes_too_late_fails_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let output = drill(home.path(), &["--unattended", "--rto", "5s", "--delay", "6s"]);
    let all = text(&output);
    assert_eq!(output.status.code(), Some(1), "{all}");
    assert!(all.contains("missed") && all.contains("RTO"), "{all}");
    assert!(all.contains("FAILED"), "{all}");
    nothing_left(&scratch(&output));
}

fn find(dir: &Path, extension: &str) -> PathBuf {
    std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == extension))
        .unwrap_or_else(|| panic!("no {extension} in {dir:?}"))
}

fn all_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(all_files(&path));
        } else if path.is_file() {
            out.push(path);
        }
    }
    out
}
