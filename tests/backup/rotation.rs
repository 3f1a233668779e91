//! A rotation that is told to stop once it has begun: it is finished, and says what is to be done. `--read-only`: nothing that
//! changes a repository runs.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use breakglass::backup::repository::{InitOptions, Repository};
use breakglass::model::Secret;
use rustix::process::{Pid, Signal, kill_process};

use super::faults::NEW;
use super::logical::{json, program, text};
use super::{CHEAP, NOBODY, PASSPHRASE, passphrase, repository};
use crate::support::bucket::{ACCESS_KEY, Bucket, SECRET_KEY, credentials};
use crate::support::cluster::LIMIT;

fn until(what: &AtomicBool, never: &str) {
    let deadline = Instant::now() + LIMIT;
    while !what.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "{never}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_rotation_that_has_begun_is_finished_whatever_it_is_told() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let file = credentials(d, "credentials", ACCESS_KEY, SECRET_KEY);
    let url = bucket.url_with("team", &format!("&credentials={file}&timeout=10m"));
    Repository::init(&url, &passphrase(), &InitOptions { kdf: CHEAP, ..InitOptions::default() }).unwrap();
    // The key file is another one by then, and the answer for `repository.json` comes when the signal was heard.
    let (reached, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (there, go) = (reached.clone(), heard.clone());
    bucket.rule(move |request| {
        if request.method == "PUT" && request.key.ends_with("repository.json") {
            there.store(true, Ordering::SeqCst);
            until(&go, "the signal is never heard");
        }
        None
    });
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(["backup", "rotate-key", "--new-key-pair"])
        .env_clear()
        .env("HOME", d)
        .env("BREAKGLASS_HOME", d.join("state"));
    c.env("BACKUP_DIR", &url).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE).env("BACKUP_NEW_ENCRYPTION_KEY", NEW);
    c.current_dir(d).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = c.spawn().unwrap();
    until(&reached, "it never writes repository.json");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("finished first") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    heard.store(true, Ordering::SeqCst);
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{said}");
    for says in ["set BACKUP_ENCRYPTION_KEY to the new one everywhere", "objects are written for the new key"] {
        assert!(said.contains(says), "{says:?} is not in {said}");
    }
    bucket.calm();
    let repository = Repository::open(&url).unwrap();
    assert!(repository.unlock(&passphrase()).is_err());
    let unlocked = repository.unlock(&Secret::new(NEW)).unwrap();
    assert_eq!(unlocked.identities().last().unwrap().public(), repository.public_key());
}

#[test]
fn nothing_that_changes_a_repository_runs_with_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    std::fs::write(d.join("000000010000000000000001"), "").unwrap();
    let id = json(d, NOBODY, 0, &["backup", "create", "--files", "data"])["id"].as_str().unwrap().to_string();
    let tree = || {
        let sums = "find repo other state/catalogs -type f ! -name .reserve 2>/dev/null | sort | xargs sha256sum";
        text(&Command::new("sh").args(["-c", sums]).current_dir(d).output().unwrap())
    };
    let repo = d.join("repo").display().to_string();
    let new = [("BACKUP_NEW_ENCRYPTION_KEY", NEW)];
    let before = tree();
    let refused: &[&[&str]] = &[
        &["backup", "init", "--repository", "other"],
        &["backup", "create", "--files", "data"],
        &["backup", "cleanup"],
        &["backup", "cleanup", "--give-up", &id],
        &["backup", "copy", "--to", "other"],
        &["backup", "rotate-key"],
        &["backup", "rotate-key", "--new-key-pair", "--new-recipient", "safe.key"],
        &["backup", "verify", "--accept-catalog"],
        &["wal", "archive", "--repository", &repo, "000000010000000000000001"],
        &["wal", "index"],
        &["wal", "receive"],
    ];
    for args in refused {
        for place in [0, args.len()] {
            let mut all = args.to_vec();
            all.insert(place, "--read-only");
            let out = program(d, NOBODY, &new, &all);
            assert_eq!(out.status.code(), Some(4), "{all:?}: {}", text(&out));
            assert!(text(&out).contains("with --read-only"), "{all:?}: {}", text(&out));
        }
        assert_eq!(tree(), before, "{args:?}");
    }
    for args in [
        &["backup", "list"][..],
        &["backup", "verify", "--all"],
        &["backup", "verify", "--deep"],
        &["backup", "cleanup", "--dry-run"],
        &["wal", "status"],
        &["doctor"],
    ] {
        let mut all = args.to_vec();
        all.push("--read-only");
        let out = program(d, NOBODY, &new, &all);
        assert!(args[0] != "backup" || out.status.code() == Some(0), "{all:?}: {}", text(&out));
        assert_eq!(tree(), before, "{args:?}");
    }
    assert!(!d.join("safe.key").exists() && !d.join("other").exists());
}

#[test]
fn a_scratch_folder_without_room_is_not_held_against_the_backup() {
    if !crate::bad_input::can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::create_dir(d.join("small")).unwrap();
    std::fs::write(d.join("data/file"), "content".repeat(500_000)).unwrap();
    let id = json(d, NOBODY, 0, &["backup", "create", "--files", "data"])["id"].as_str().unwrap().to_string();
    let script = "mount -t tmpfs -o size=1m tmpfs small || exit 99; \"$1\" backup verify --deep --scratch small 2>&1";
    let mut c = Command::new("unshare");
    c.args(["-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_breakglass")]).env_clear();
    c.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", d).env("BREAKGLASS_HOME", d.join("state"));
    c.env("BACKUP_DIR", d.join("repo")).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE).current_dir(d);
    let out = c.output().unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(3), "{said}");
    for says in ["could not be tried", &id, "No space left", "is right", "--scratch"] {
        assert!(said.contains(says), "{says:?} is not in {said}");
    }
    assert!(!said.contains("NOT RESTORABLE"), "{said}");
    json(d, NOBODY, 0, &["backup", "list"]);
}
