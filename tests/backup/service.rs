//! The fetch service: what recovery gets from it, and that every doubt stops recovery instead of ending it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use breakglass::backup::wal::{Fetched, archive};
use breakglass::backup::wal_service::{MAX_SOCKET_PATH, ServeOptions, Service, fetch_from};
use breakglass::error::ErrorKind;

use super::repository;
use super::wal::{SYSTEM, object_path, segment, write_segment};

/// Exit status of `wal fetch --socket`.
fn program(socket: &Path, name: &str, dest: &Path) -> i32 {
    Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .args(["wal", "fetch", "--socket"])
        .arg(socket)
        .arg(name)
        .arg(dest)
        .env_clear()
        .current_dir("/")
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .code()
        .unwrap()
}

/// Through the socket, and as files that are moved.
fn both_ways(dir: &Path) -> [ServeOptions; 2] {
    [ServeOptions::default(), ServeOptions { data: Some(dir.to_path_buf()), ..ServeOptions::default() }]
}

/// Where segments wait for whoever asks at this socket.
fn waiting(socket: &Path) -> PathBuf {
    PathBuf::from(format!("{}.d", socket.display()))
}

#[test]
fn serves_in_any_order_and_opens_ahead() {
    for way in 0..2 {
        serves(way);
    }
}

fn serves(way: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, url) = repository(dir.path());
    let content = |n: u64| std::fs::read(dir.path().join("pg_wal").join(segment(1, n).to_string())).unwrap();
    for n in 1..=8 {
        archive(&url, &write_segment(dir.path(), segment(1, n), SYSTEM, n), None).unwrap();
    }
    let socket = dir.path().join("s");
    // What one that was killed left behind.
    std::fs::create_dir(waiting(&socket)).unwrap();
    std::fs::write(waiting(&socket).join("000000010000000000000001-0"), "cut").unwrap();
    if way == 0 {
        std::fs::remove_dir_all(waiting(&socket)).unwrap();
    }
    let service = Service::start(unlocked, &socket, &both_ways(dir.path())[way]).unwrap();
    assert_eq!(waiting(&socket).exists(), way == 1);
    let dest = dir.path().join("RECOVERYXLOG");
    let mut sum = 0;
    for n in [1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 1, 8] {
        assert_eq!(fetch_from(&socket, &segment(1, n).to_string(), &dest).unwrap(), Fetched::Restored);
        assert!(std::fs::read(&dest).unwrap() == content(n));
        sum += 1 << 20;
    }
    assert_eq!(program(&socket, &segment(1, 5).to_string(), &dest), 0);
    assert_eq!(fetch_from(&socket, &segment(1, 9).to_string(), &dest).unwrap(), Fetched::NotInArchive);
    assert_eq!(program(&socket, &segment(1, 9).to_string(), &dest), 1);
    if way == 1 {
        // Whoever cannot move files, as one of another version, gets the bytes.
        let mut old = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        std::io::Write::write_all(&mut old, format!("fetch {}\n", segment(1, 4)).as_bytes()).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut old, &mut answer).unwrap();
        assert!(answer.starts_with(b"ok 1048576 ") && answer.ends_with(&content(4)));
        sum += 1 << 20;
    }
    assert_eq!(program(&socket, "00000002.history", &dest), 1);
    // What was not there when it was looked for ahead is found once it is.
    archive(&url, &write_segment(dir.path(), segment(1, 9), SYSTEM, 9), None).unwrap();
    assert_eq!(fetch_from(&socket, &segment(1, 9).to_string(), &dest).unwrap(), Fetched::Restored);
    let deadline = Instant::now() + Duration::from_secs(20);
    while service.served().files < 14 + way as u64 {
        assert!(Instant::now() < deadline, "{:?}", service.served());
        std::thread::yield_now();
    }
    let served = service.served();
    assert_eq!(served.bytes, sum + 2 * (1 << 20));
    assert_eq!(served.last_segment, Some(segment(1, 9).to_string()));
    assert_eq!(served.failed, None);
    // A second one on the same socket is refused; one that was left behind is not.
    let (_, other, _) = repository(&dir.path().join("other"));
    assert_eq!(Service::start(other.clone(), &socket, &ServeOptions::default()).err().unwrap().kind, ErrorKind::State);
    drop(service);
    assert!(!waiting(&socket).exists());
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    drop(Service::start(other, &socket, &ServeOptions::default()).unwrap());
    assert!(!socket.exists());
}

#[test]
fn it_ends_although_its_folder_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, _) = repository(dir.path());
    let folder = dir.path().join("sockets");
    std::fs::create_dir(&folder).unwrap();
    let service = Service::start(unlocked, &folder.join("s"), &ServeOptions::default()).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(service);
        ended.send(()).unwrap();
    });
    end.recv_timeout(std::time::Duration::from_secs(60)).expect("it waits for ever");
}

#[test]
fn every_doubt_stops_recovery() {
    for way in 0..2 {
        doubts(way);
    }
}

fn doubts(way: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, url) = repository(dir.path());
    for n in [1, 2, 4] {
        archive(&url, &write_segment(dir.path(), segment(1, n), SYSTEM, n), None).unwrap();
    }
    let damaged = object_path(dir.path(), segment(1, 2));
    let mut bytes = std::fs::read(&damaged).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 8;
    std::fs::write(&damaged, bytes).unwrap();
    let socket = dir.path().join("s");
    let dest = dir.path().join("RECOVERYXLOG");
    let service = Service::start(unlocked, &socket, &both_ways(dir.path())[way]).unwrap();
    assert_eq!(program(&socket, &segment(1, 1).to_string(), &dest), 0);
    std::fs::remove_file(&dest).unwrap();
    assert_eq!(program(&socket, &segment(1, 2).to_string(), &dest), 200, "damaged");
    assert_eq!(program(&socket, &segment(1, 3).to_string(), &dest), 200, "a hole");
    assert_eq!(program(&socket, "not-a-name", &dest), 200, "a name that is none");
    assert_eq!(program(&socket, &segment(1, 1).to_string(), &dir.path().join("no/folder/x")), 200, "nowhere to write");
    assert!(service.served().failed.unwrap().to_string().contains(&segment(1, 2).to_string()));
    drop(service);
    assert_eq!(program(&socket, &segment(1, 1).to_string(), &dest), 200, "the worker is gone");
    assert_eq!(program(&PathBuf::from("--bogus"), &segment(1, 1).to_string(), &dest), 200, "a wrong command line");
    assert!(!dest.exists(), "nothing was put in place");
    assert!(
        std::fs::read_dir(dir.path()).unwrap().all(|e| !e
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("breakglass-"))
    );
    // Without the service: by the key, which must be right.
    let by_key = |key: Option<&str>| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(["wal", "fetch", "--repository", &url]).arg(segment(1, 1).to_string()).arg(&dest).env_clear();
        if let Some(key) = key {
            c.env("BACKUP_ENCRYPTION_KEY", key);
        }
        c.current_dir("/").stderr(Stdio::null()).status().unwrap().code().unwrap()
    };
    assert_eq!(by_key(None), 200);
    assert_eq!(by_key(Some("wrong wrong wrong wrong wrong wrong wrong")), 200);
    assert_eq!(by_key(Some(super::PASSPHRASE)), 0);
}

#[test]
fn a_socket_path_that_is_too_long_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, _) = repository(dir.path());
    let mut path = dir.path().join("x");
    while path.as_os_str().len() <= MAX_SOCKET_PATH {
        path.as_mut_os_string().push("x");
    }
    let error = Service::start(unlocked.clone(), &path, &ServeOptions::default()).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Usage);
    let mut text = path.into_os_string().into_string().unwrap();
    text.pop();
    Service::start(unlocked, Path::new(&text), &ServeOptions::default()).unwrap();
}
