//! File locks: exclusion between processes, the deadline that names the holder, stopped and killed holders, read-only files.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use breakglass::journal::{FileLock, files};
use rustix::process::Signal;

use super::helper::Helper;
use super::until;

#[test]
fn a_lock_excludes_and_is_freed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.lock");
    assert!(!FileLock::is_held(&path).unwrap(), "a missing file is held by nobody");
    let held = FileLock::acquire(&path, Duration::ZERO, "first").unwrap();
    assert!(FileLock::is_held(&path).unwrap());
    assert!(FileLock::try_acquire(&path, "second").unwrap().is_none());
    let holder = FileLock::holder(&path).unwrap();
    assert!(
        holder.as_str().starts_with(&format!("pid {} on ", std::process::id())) && holder.as_str().ends_with("(first)"),
        "{holder}"
    );
    drop(held);
    assert!(!FileLock::is_held(&path).unwrap());
    assert_eq!(FileLock::holder(&path), None);
    assert!(FileLock::try_acquire(&path, "second").unwrap().is_some());
}

#[test]
fn a_lock_given_away_outlives_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("children.lock");
    let file = FileLock::acquire(&path, Duration::ZERO, "children").unwrap().into_file().unwrap();
    let heir = file.try_clone().unwrap();
    drop(file);
    assert!(FileLock::is_held(&path).unwrap(), "an heir still has it");
    drop(heir);
    assert!(!FileLock::is_held(&path).unwrap());
}

#[test]
fn a_stopped_holder_is_named_after_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.lock");
    let helper = Helper::start(&["hold", path.to_str().unwrap()]);
    until("the helper holds the lock", || FileLock::holder(&path).is_some());
    helper.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", helper.pid());
    if std::path::Path::new(&stat).exists() {
        until("it is stopped", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
    }
    let error = FileLock::acquire(&path, Duration::from_millis(50), "waiting").unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("pid {} on ", helper.pid())), "{text}");
    assert!(text.contains("(holding it for a test)"), "{text}");
    if cfg!(target_os = "linux") {
        assert!(text.contains(&format!("kill -CONT {}", helper.pid())), "{text}");
    }
    assert_eq!(error.kind.exit_code(), 3);
    helper.signal(Signal::CONT);
    helper.finish();
    FileLock::acquire(&path, Duration::from_secs(10), "after").unwrap();
}

#[test]
fn a_killed_holder_frees_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.lock");
    let helper = Helper::start(&["hold", path.to_str().unwrap()]);
    until("the helper holds the lock", || FileLock::holder(&path).is_some());
    assert!(FileLock::is_held(&path).unwrap());
    helper.kill();
    FileLock::acquire(&path, Duration::from_secs(10), "after").unwrap();
}

#[test]
fn a_deleted_lock_file_lets_nobody_share() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.lock");
    let first = FileLock::acquire(&path, Duration::ZERO, "first").unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let waiting = {
        let path = path.clone();
        std::thread::spawn(move || {
            let held = FileLock::acquire(&path, Duration::from_secs(20), "second").unwrap();
            send.send(()).unwrap();
            let other = FileLock::try_acquire(&path, "third").unwrap();
            assert!(other.is_none(), "what the second holds is the file others find");
            drop(held);
        })
    };
    // The second waits on the file that is about to lose its name, or finds none: either way it ends with the new one.
    std::fs::remove_file(&path).unwrap();
    drop(first);
    receive.recv_timeout(Duration::from_secs(20)).unwrap();
    waiting.join().unwrap();
}

#[test]
fn a_lock_works_where_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let sealed = dir.path().join("sealed");
    std::fs::create_dir(&sealed).unwrap();
    let path = sealed.join("x.lock");
    std::fs::write(&path, "").unwrap();
    // Root is kept out by a read-only file system, everybody else by the access mode.
    let mounted = rustix::process::geteuid().is_root() && super::disk::bind_read_only(&sealed);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).ok();
    {
        let held = FileLock::acquire(&path, Duration::ZERO, "reading").unwrap();
        assert!(FileLock::is_held(&path).unwrap());
        assert_eq!(std::fs::read(&path).unwrap().is_empty(), mounted || !rustix::process::geteuid().is_root());
        drop(held);
        assert!(!FileLock::is_held(&path).unwrap());
        if mounted {
            let error = FileLock::acquire(sealed.join("new.lock"), Duration::ZERO, "x").unwrap_err();
            assert!(error.to_string().contains("new.lock"), "{error}");
        }
    }
    if mounted {
        super::disk::unmount(&sealed);
    }
}

#[test]
fn files_are_private_unless_the_folder_is_shared() {
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o7777;
    let dir = tempfile::tempdir().unwrap();
    let private = dir.path().join("a/b");
    files::create_dir(&private).unwrap();
    assert_eq!(mode(&private), 0o700);
    files::write_atomic(&private.join("f"), b"x").unwrap();
    assert_eq!(mode(&private.join("f")), 0o600);
    super::filled(&private, 1);
    assert_eq!((mode(&private.join("journal.jsonl")), mode(&private.join("journal.lock"))), (0o600, 0o600));

    let shared = dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o2770)).unwrap();
    let below = shared.join("incidents/i");
    files::create_dir(&below).unwrap();
    assert_eq!(mode(&below), 0o2770);
    super::filled(&below, 1);
    files::write_atomic(&below.join("f"), b"x").unwrap();
    for name in ["journal.jsonl", "journal.lock", "f"] {
        assert_eq!(mode(&below.join(name)), 0o660, "{name}");
    }
}
