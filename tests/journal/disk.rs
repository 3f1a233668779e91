//! Full and failing disks: nothing half written stays, nothing is acknowledged that is not durable.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use breakglass::journal::{FileJournal, Journal, verify};
use breakglass::model::Seq;

use super::helper;
use super::{append, filled, note};

/// Mounts a small file system of memory; false when this process may not.
fn mount_tmpfs(at: &Path, size: &str) -> bool {
    let size = format!("size={size}");
    Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().is_ok_and(|o| o.status.success())
}

pub fn bind_read_only(at: &Path) -> bool {
    let mount = |args: &[&str]| Command::new("mount").args(args).arg(at).output().is_ok_and(|o| o.status.success());
    if !mount(&["--bind", at.to_str().unwrap()]) {
        return false;
    }
    let done = mount(&["-o", "remount,bind,ro"]);
    if !done {
        unmount(at);
    }
    done
}

/// A process another test has just forked holds this one's files until it runs its program: so long the disk is busy.
pub fn unmount(at: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let said = Command::new("umount").arg(at).output().unwrap();
        if said.status.success() {
            return;
        }
        let why = String::from_utf8_lossy(&said.stderr);
        assert!(why.contains("busy") && Instant::now() < deadline, "{why}");
        std::thread::yield_now();
    }
}

/// What the helper said about each attempt.
fn attempts(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap().lines().map(str::to_string).collect()
}

#[test]
fn a_full_disk_takes_nothing_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    if !mount_tmpfs(&disk, "64k") {
        eprintln!("not allowed to mount: the file size limit stands in for the full disk (next test)");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        let mut journal = filled(&disk, 2);
        let big = "x".repeat(9_000);
        let error = loop {
            let head = journal.head().unwrap();
            let before = std::fs::read(disk.join("journal.jsonl")).unwrap();
            match journal.append_if(&head, note(&big)) {
                Ok(_) => {}
                Err(e) => {
                    assert_eq!(std::fs::read(disk.join("journal.jsonl")).unwrap(), before, "taken back");
                    assert_eq!(journal.head().unwrap(), head);
                    break e;
                }
            }
        };
        assert!(
            error.to_string().contains("No space left") && error.to_string().contains("nothing of it was kept"),
            "{error}"
        );
        assert!(verify(&disk, &[]).unwrap().ok());
        let n = journal.head().unwrap().seq.0;
        assert_eq!(append(&mut journal, note("small")).seq, Seq(n + 1), "what still fits is recorded");
        assert!(verify(&disk, &[]).unwrap().ok());
    });
    unmount(&disk);
    result.unwrap();
}

#[test]
fn a_write_cut_short_by_a_limit_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let incident = dir.path().join("i");
    std::fs::create_dir(&incident).unwrap();
    let mut journal = filled(&incident, 2);
    let task = helper::command(&["try", incident.to_str().unwrap(), "20", log.to_str().unwrap()]);
    // 12 blocks of 512 bytes; the signal is ignored, so the write itself reports it after a part was written.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 12; exec \"$@\"", "sh"]).arg(task.get_program()).args(task.get_args());
    for (k, v) in task.get_envs() {
        shell.env(k, v.unwrap());
    }
    assert!(shell.output().unwrap().status.success());
    let said = attempts(&log);
    let ok = said.iter().filter(|l| l.starts_with("ok")).count();
    assert!(
        ok > 0 && said[ok..].iter().all(|l| l.starts_with("error") && l.contains("nothing of it was kept")),
        "{said:?}"
    );
    assert_eq!(said.len(), 20);
    assert!(verify(&incident, &[]).unwrap().ok(), "no torn line is left");
    assert_eq!(journal.head().unwrap().seq, Seq(2 + ok as u64), "what was acknowledged is there, and nothing else");
}

#[test]
fn a_journal_on_a_read_only_disk_is_read_and_not_written() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let root = rustix::process::geteuid().is_root();
    if root && !bind_read_only(dir.path()) {
        eprintln!("root, and not allowed to mount: nothing is read-only here");
        return;
    }
    let mode = |m| std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(m)).ok();
    if !root {
        std::fs::set_permissions(dir.path().join("journal.jsonl"), std::os::unix::fs::PermissionsExt::from_mode(0o400))
            .unwrap();
        mode(0o500);
    }
    let result = std::panic::catch_unwind(|| {
        let mut journal = FileJournal::open(dir.path()).unwrap();
        let head = journal.head().unwrap();
        assert_eq!((head.seq, journal.read_from(Seq(1)).unwrap().len()), (Seq(3), 3));
        assert!(verify(dir.path(), &[]).unwrap().ok());
        let error = journal.append_if(&head, note("x")).unwrap_err();
        assert_eq!(error.kind.exit_code(), 3);
        assert!(error.to_string().contains("cannot write the journal"), "{error}");
        assert_eq!(journal.head().unwrap(), head);
    });
    if root {
        unmount(dir.path());
    } else {
        mode(0o700);
    }
    result.unwrap();
}

/// Compiles a library that makes the n-th call of fdatasync, and every fsync if so asked, fail with EIO.
fn failing_sync(dir: &Path) -> std::path::PathBuf {
    let source = dir.join("sync.c");
    let code = r#"
        #include <errno.h>
        #include <stdlib.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static int calls;
        int fdatasync(int fd) {
            const char *at = getenv("FAIL_FDATASYNC_AT");
            if (at && ++calls == atoi(at)) { errno = EIO; return -1; }
            return syscall(SYS_fdatasync, fd);
        }
        int fsync(int fd) {
            if (getenv("FAIL_FSYNC")) { errno = EIO; return -1; }
            return syscall(SYS_fsync, fd);
        }
    "#;
    std::fs::write(&source, code).unwrap();
    let library = dir.join("sync.so");
    let done = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(done.success(), "the C compiler that links Rust programs");
    library
}

#[test]
#[cfg(target_os = "linux")]
fn a_failed_fsync_is_never_taken_for_success() {
    let dir = tempfile::tempdir().unwrap();
    let library = failing_sync(dir.path());
    let log = dir.path().join("log");
    for (all, incident) in [(false, dir.path().join("once")), (true, dir.path().join("twice"))] {
        std::fs::create_dir(&incident).unwrap();
        filled(&incident, 2);
        let mut task = helper::command(&["try", incident.to_str().unwrap(), "4", log.to_str().unwrap()]);
        task.env("LD_PRELOAD", &library).env("FAIL_FDATASYNC_AT", "2");
        if all {
            task.env("FAIL_FSYNC", "1");
        }
        assert!(task.status().unwrap().success());
        let said = attempts(&log);
        let records = FileJournal::open(&incident).unwrap().read_from(Seq(1)).unwrap();
        assert!(verify(&incident, &[]).unwrap().ok());
        if all {
            // Not acknowledged, though it stands there: whoever asked reads again and sees it.
            assert!(said[1].starts_with("error") && said[1].contains("record 4 stands in the file"), "{said:?}");
            assert_eq!((said[0].as_str(), said[2].as_str(), said[3].as_str()), ("ok 3", "ok 5", "ok 6"));
        } else {
            assert_eq!(said, ["ok 3", "ok 4", "ok 5", "ok 6"], "written again and synced");
        }
        assert_eq!(records.len(), 6, "each exactly once");
    }
}
