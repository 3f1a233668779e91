//! Killed, or refused by the disk, at every system call that matters: the repository is as before or as after, never
//! between, and a re-run completes. Needs strace, which injects the faults; says so loudly where there is none.

use std::io::Cursor;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use breakglass::backup::base::{restore_base, store_base};
use breakglass::backup::catalog::Catalog;
use breakglass::backup::container::{Expect, ObjectType, verify};
use breakglass::backup::repository::Repository;
use breakglass::backup::wal::{Archived, Fetched, Segment, WalName, archive, fetch};

use super::base::{files, stream};
use super::faults::strace;
use super::wal::{SYSTEM, segment, write_segment};
use super::{passphrase, repository};

/// The program's `wal archive` under strace with these options.
fn archive_under(options: &[String], dir: &Path, path: &Path) -> ExitStatus {
    Command::new("strace")
        .args(options)
        .arg(env!("CARGO_BIN_EXE_breakglass"))
        .args(["wal", "archive", "--repository"])
        .arg(dir.join("repo"))
        .arg(path)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

fn inject(call: &str, fault: &str, n: usize, trace: &Path) -> Vec<String> {
    let (trace, inject) =
        (format!("trace={call}"), [trace.display().to_string(), format!("inject={call}:{fault}:when={n}")]);
    ["-f", "-qq", "-o", &inject[0], "-e", &trace, "-e", &inject[1]].map(String::from).to_vec()
}

#[test]
fn archive_is_before_or_after_at_every_fault() {
    if !strace() {
        return;
    }
    let mut killed = 0;
    // Every point of the calls that change the disk; of the many openings a sample, unless there is time.
    let openings = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 1 } else { 5 };
    for (call, fault, step) in [
        ("write", "signal=KILL", 1),
        ("fsync", "signal=KILL", 1),
        ("renameat2", "signal=KILL", 1),
        ("mkdir", "signal=KILL", 1),
        ("openat", "signal=KILL", openings),
        ("write", "error=ENOSPC", 1),
        ("fsync", "error=EIO", 1),
        ("renameat2", "error=EIO", 1),
        ("mkdir", "error=EDQUOT", 1),
    ] {
        for n in (1..).step_by(step) {
            assert!(n <= 200, "{call} {fault} never ends");
            let dir = tempfile::tempdir().unwrap();
            let (repo, unlocked, _) = repository(dir.path());
            let s = segment(1, 5);
            let path = write_segment(dir.path(), s, SYSTEM, 1);
            let status = archive_under(&inject(call, fault, n, &dir.path().join("trace")), dir.path(), &path);
            let object = WalName::Segment(s).object();
            let there = repo.store().open(&object).unwrap();
            if status.success() {
                assert!(there.is_some(), "{call} {fault} {n}: acknowledged and not there");
            }
            if let Some(input) = there {
                let expect = Expect { object: ObjectType::WalSegment, repository: repo.id(), name: &object };
                verify(input, unlocked.identities(), &expect).unwrap();
            }
            let url = format!("file://{}/repo", dir.path().display());
            archive(&url, &path, None)
                .unwrap_or_else(|e| panic!("{call} {fault} {n}: a re-run does not complete: {e}"));
            let dest = dir.path().join("out");
            assert_eq!(fetch(&unlocked, &s.to_string(), &dest).unwrap(), Fetched::Restored);
            assert!(std::fs::read(&dest).unwrap() == std::fs::read(&path).unwrap());
            killed += usize::from(status.signal() == Some(9));
            if status.success() {
                break; // past the last such call
            }
        }
    }
    assert!(killed >= 20, "only {killed} runs were killed");
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path());
    let s = segment(1, 5);
    let path = write_segment(dir.path(), s, SYSTEM, 1);
    let trace = dir.path().join("trace");
    let options = ["-f", "-y", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=write,fsync,renameat2,exit_group"]
        .map(String::from);
    assert!(archive_under(&options, dir.path(), &path).success());
    let text = std::fs::read_to_string(&trace).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let object = dir.path().join("repo").join(WalName::Segment(s).object());
    let temporary = format!("/.tmp-{}", object.file_name().unwrap().to_str().unwrap());
    let position = |what: &str, pick: &dyn Fn(&str) -> bool| {
        lines.iter().rposition(|l| pick(l)).unwrap_or_else(|| panic!("no {what} in\n{text}"))
    };
    let written = position("write", &|l| l.contains(" write(") && l.contains(&temporary));
    let synced = position("fsync of the file", &|l| l.contains(" fsync(") && l.contains(&temporary));
    let renamed = position("rename", &|l| l.contains("renameat2(") && l.contains(&temporary));
    let folders: Vec<usize> = ["repo/wal/00000001/00000000", "repo/wal/00000001", "repo/wal", "repo"]
        .map(|folder| {
            let folder = format!("<{}>", dir.path().join(folder).display());
            position(&folder, &|l| l.contains(" fsync(") && l.contains(&folder))
        })
        .to_vec();
    let exit = position("exit", &|l| l.contains("exit_group(0"));
    assert!(written < synced && synced < renamed, "{text}");
    assert!(folders.iter().all(|&f| renamed < f && f < exit), "{text}");
    // Archived again after a death between rename and fsync: the folders are made durable then, too.
    assert!(archive_under(&options, dir.path(), &path).success());
    let text = std::fs::read_to_string(&trace).unwrap();
    let folder = format!("<{}>", object.parent().unwrap().display());
    assert!(text.lines().any(|l| l.contains(" fsync(") && l.contains(&folder)), "{text}");
}

/// Reads a trace of `write,fsync,rename,renameat2` made with `-f -y`: every object that was stored below `repository` had its
/// bytes synced before it got its name, and its folder afterwards. Returns the objects' names.
pub fn stored_durably(text: &str, repository: &Path) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let root = repository.display().to_string();
    let mut stored = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let renames = line.contains("renameat2(") || line.contains(" rename(");
        // A call of several threads is shown in two halves; its names stand in the first.
        if !renames || line.contains(" resumed>") || !line.contains(&root) {
            continue;
        }
        let names: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        let [from, to] = names[..] else { panic!("{line}") };
        if !from.contains("/.tmp-") {
            continue;
        }
        let synced = lines[..at].iter().rposition(|l| l.contains(" fsync(") && l.contains(from));
        let written = lines.iter().rposition(|l| l.contains(" write(") && l.contains(from));
        assert!(written.is_some_and(|w| synced.is_some_and(|s| w < s)), "{to} was named before it was durable\n{text}");
        let folder = format!("<{}>", Path::new(to).parent().unwrap().display());
        let after = lines[at..].iter().any(|l| l.contains(" fsync(") && l.contains(&folder));
        assert!(after, "the folder of {to} was not made durable\n{text}");
        stored.push(to.to_string());
    }
    stored
}

/// Every object of a backup: its bytes durable, then named, then its folders durable; objects before the manifest, the manifest
/// before the entry that makes the backup exist, all before a word of success.
#[test]
fn a_backup_is_acknowledged_when_all_of_it_is_durable() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content".repeat(1000)).unwrap();
    let trace = d.join("trace");
    let status = super::alone_in(
        Command::new("strace")
            .args(["-f", "-y", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=write,fsync,renameat2,rename"])
            .arg(env!("CARGO_BIN_EXE_breakglass"))
            .args(["backup", "create", "--files", "data"]),
        d,
        "repo",
    )
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .status()
    .unwrap();
    assert!(status.success());
    let text = std::fs::read_to_string(&trace).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let first = |what: &str, pick: &dyn Fn(&str) -> bool| {
        lines.iter().position(|l| pick(l)).unwrap_or_else(|| panic!("no {what} in\n{text}"))
    };
    let said = first("word of success", &|l| l.contains(" write(1<") && l.contains("backup "));
    let stored = breakglass::backup::store::open_place(d.join("repo").to_str().unwrap(), true).unwrap();
    let mut durable = Vec::new();
    for entry in stored.list("").unwrap() {
        if !entry.name.starts_with("backups/") && entry.name != "catalog/00000001.bgo" {
            continue;
        }
        let path = d.join("repo").join(&entry.name);
        let (folder, file) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
        let temporary = format!("{}/.tmp-{file}-", folder.display());
        let of = |call: &'static str| {
            let temporary = temporary.clone();
            move |l: &str| l.contains(call) && l.contains(&temporary)
        };
        let last_write = lines.iter().rposition(|l| of(" write(")(l)).unwrap();
        let synced = first("fsync of the file", &of(" fsync("));
        let named = first("rename", &of("renameat2("));
        assert!(last_write < synced && synced < named, "{}: {text}", entry.name);
        // Its folder and all above it, up to the repository's.
        let folders = folder.ancestors().take_while(|f| f.starts_with(d.join("repo")));
        let folders = folders.map(|folder| {
            let shown = format!("<{}>", folder.display());
            let after = |l: &str| l.contains(" fsync(") && l.contains(&shown);
            named + lines[named..].iter().position(|l| after(l)).unwrap_or_else(|| panic!("{shown}: {text}"))
        });
        durable.push((entry.name.clone(), named, folders.max().unwrap()));
    }
    let rank = |name: &str| usize::from(name.contains("manifest")) + 2 * usize::from(name.starts_with("catalog/"));
    for (name, named, done) in &durable {
        assert!(*done < said, "{name} is durable only after the word of success: {text}");
        for (other, _, before) in durable.iter().filter(|(o, ..)| rank(o) < rank(name)) {
            assert!(before < named, "{name} is named before {other} is durable: {text}");
        }
    }
    assert_eq!(durable.len(), 5, "three objects, manifest, entry: {durable:?}");
}

const CHILD: &str = "BREAKGLASS_TEST_BACKUP_CHILD";

/// Not a test by itself: the process that is killed while it stores a base backup.
#[test]
fn child_stores_a_base_backup() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let url = format!("file://{}/repo", dir.display());
    let unlocked = Repository::open(&url).unwrap().unlock(&passphrase()).unwrap();
    let tar = stream(&files(1));
    store_base(&unlocked, &mut Cursor::new(tar), None, &mut |_| Ok(())).unwrap().commit().unwrap();
}

#[test]
fn a_base_backup_exists_wholly_or_not_at_all() {
    if !strace() {
        return;
    }
    let mut outcomes = [0, 0];
    for call in ["fsync", "renameat2"] {
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let (_, unlocked, _) = repository(dir.path());
            let status = Command::new("strace")
                .args(inject(call, "signal=KILL", n, &dir.path().join("trace")))
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "backup::crash::child_stores_a_base_backup", "--test-threads=1"])
                .env(CHILD, dir.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            let catalog = Catalog::load(&unlocked).unwrap();
            outcomes[usize::from(!catalog.backups.is_empty())] += 1;
            for backup in &catalog.backups {
                let dest = dir.path().join("data");
                restore_base(&unlocked, &backup.manifest.id, &dest, &Default::default(), &mut |_| Ok(())).unwrap();
            }
            if status.success() {
                assert_eq!(catalog.backups.len(), 1);
                assert!(n > 3, "{call} was never injected");
                break;
            }
            // A second one beside what the killed one left.
            let tar = stream(&files(2));
            store_base(&unlocked, &mut Cursor::new(tar), None, &mut |_| Ok(())).unwrap().commit().unwrap();
            assert_eq!(Catalog::load(&unlocked).unwrap().backups.len(), catalog.backups.len() + 1);
        }
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "before and after were both seen: {outcomes:?}");
}

#[test]
fn archiving_at_the_same_time_stores_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, url) = repository(dir.path());
    let all: Vec<Segment> = (1..4).map(|n| segment(1, n)).collect();
    for s in &all {
        write_segment(dir.path(), *s, SYSTEM, 1);
    }
    let stored = std::sync::Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for s in &all {
                    let path = dir.path().join("pg_wal").join(s.to_string());
                    if archive(&url, &path, None).unwrap() == Archived::Stored {
                        *stored.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    assert_eq!(*stored.lock().unwrap(), 3);
    for s in &all {
        assert_eq!(fetch(&unlocked, &s.to_string(), &dir.path().join("o")).unwrap(), Fetched::Restored);
    }
}
