//! What a long command ends with that was told to stop: the signal's own code, whatever it was at and whatever did not answer.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use breakglass::backup::repository::{InitOptions, Repository};
use rustix::process::{Pid, Signal, kill_process};

use crate::backup::{CHEAP, NOBODY, PASSPHRASE, passphrase};
use crate::support::bucket::{ACCESS_KEY, Bucket, Fault, SECRET_KEY, credentials};
use crate::support::cluster::LIMIT;

/// A command, what it asks the service for when that falls silent, the signal it gets then, and its code.
type Row<'r> = (&'r [&'r str], &'r str, Signal, i32);

#[test]
fn told_to_stop_every_long_command_ends_with_the_signals_code() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content".repeat(500)).unwrap();
    let file = credentials(d, "credentials", ACCESS_KEY, SECRET_KEY);
    // A request waits for its answer until the service ends, which it does when everybody has been told to stop.
    let more = format!("&credentials={file}&timeout=10m&patience=1s");
    let endpoint = bucket.url_with("PREFIX", &more);
    let place = |prefix: &str| endpoint.replace("PREFIX", prefix);
    Repository::init(&place("first"), &passphrase(), &InitOptions { kdf: CHEAP, ..InitOptions::default() }).unwrap();
    let command = |prefix: &str, args: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(args).env_clear().env("HOME", d).env("BREAKGLASS_HOME", d.join(format!("state-{prefix}")));
        c.env("BACKUP_DIR", place(prefix)).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE).env("DATABASE_URL", NOBODY);
        c.env("BACKUP_NEW_ENCRYPTION_KEY", "another passphrase, thirty-two characters and more");
        c.current_dir(d).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        c
    };
    let made = command("first", &["backup", "create", "--files", "data"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let keys = bucket.keys();
    let id = keys.iter().find_map(|k| k.strip_prefix("first/backups/")?.split('/').next()).unwrap();
    let rows: &[Row<'_>] = &[
        (&["backup", "verify"], "files.tar", Signal::TERM, 143),
        (&["backup", "verify"], "files.tar", Signal::INT, 130),
        (&["backup", "verify"], "files.tar", Signal::HUP, 129),
        (&["backup", "verify", "--deep"], "files.tar", Signal::TERM, 143),
        (&["backup", "restore", id, "--into", "out"], "files.tar", Signal::TERM, 143),
        (&["backup", "restore", id, "--into", "out"], "files.tar", Signal::INT, 130),
        (&["backup", "create", "--files", "data"], "files.tar", Signal::TERM, 143),
        (&["backup", "copy", "--to", "copied"], "files.tar", Signal::TERM, 143),
        (&["backup", "cleanup"], "catalog/", Signal::TERM, 143),
        (&["backup", "list"], "catalog/", Signal::TERM, 143),
        (&["backup", "rotate-key"], "keys/", Signal::TERM, 143),
        (&["backup", "rotate-key", "--new-key-pair"], "catalog/", Signal::INT, 130),
        (&["wal", "index"], "index/names", Signal::TERM, 143),
        (&["wal", "status"], "wal/cluster", Signal::TERM, 143),
        (&["pitr", "range"], "catalog/", Signal::TERM, 143),
        (&["health"], "catalog/", Signal::TERM, 143),
        (&["doctor"], "catalog/", Signal::TERM, 143),
    ];
    // Each has a repository of its own, in which the service falls silent at its place.
    let all = bucket.copy();
    let reached: Arc<Vec<AtomicBool>> = Arc::new(rows.iter().map(|_| AtomicBool::new(false)).collect());
    for (n, _) in rows.iter().enumerate() {
        for (key, bytes) in &all {
            bucket.set(&key.replacen("first/", &format!("row{n}/"), 1), bytes.clone());
        }
    }
    let (seen, silent): (_, Vec<String>) = (reached.clone(), rows.iter().map(|r| r.1.to_string()).collect());
    bucket.rule(move |request| {
        let (row, name) = request.key.strip_prefix("row")?.split_once('/')?;
        let n: usize = row.parse().ok()?;
        name.contains(silent.get(n)?.as_str()).then(|| {
            seen[n].store(true, Ordering::SeqCst);
            Fault::Silence
        })
    });
    let children: Vec<_> =
        rows.iter().enumerate().map(|(n, row)| command(&format!("row{n}"), row.0).spawn().unwrap()).collect();
    let ended: Vec<_> = children
        .into_iter()
        .enumerate()
        .map(|(n, mut child)| {
            let deadline = Instant::now() + LIMIT;
            while !reached[n].load(Ordering::SeqCst) && child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "{:?} never gets there", rows[n].0);
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = kill_process(Pid::from_child(&child), rows[n].2);
            child
        })
        .collect();
    drop(bucket);
    for (n, child) in ended.into_iter().enumerate() {
        let (send, out) = std::sync::mpsc::channel();
        let pid = Pid::from_child(&child);
        std::thread::spawn(move || send.send(child.wait_with_output().unwrap()));
        let out = out.recv_timeout(LIMIT).unwrap_or_else(|_| {
            let _ = kill_process(pid, Signal::KILL);
            panic!("{:?} does not end when it is told to", rows[n].0)
        });
        // As a shell shows it: what has nothing to put in order is ended by the signal itself.
        let code = out.status.code().or(out.status.signal().map(|s| 128 + s));
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(code, Some(rows[n].3), "{:?} {:?}: {said}", rows[n].0, rows[n].2);
        assert!(!said.contains("panicked"), "{said}");
        if rows[n].0.contains(&"rotate-key") {
            assert!(out.status.code().is_some() && said.contains("nothing was changed"), "{:?}: {said}", out.status);
        }
    }
}
