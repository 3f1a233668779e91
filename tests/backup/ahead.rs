//! `wal archive` as a server calls it: what it stores ahead of being asked is durable, believed only as far as it is checked,
//! and a kill at any point loses nothing that was acknowledged.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use breakglass::backup::container::{Expect, ObjectType, verify};
use breakglass::backup::repository::{Repository, Unlocked};
use breakglass::backup::wal::{Archived, Fetched, Segment, WalName, archive_into, fetch};
use breakglass::backup::wal_service::{ServeOptions, Service};

use super::crash::stored_durably;
use super::faults::strace;
use super::wal::{SYSTEM, object_path, segment, segment_bytes, write_segment};
use super::{PASSPHRASE, repository};

/// Segments `first..first + count` in `<dir>/pg_wal`, each marked as ready.
fn ready(dir: &Path, first: u64, count: u64) -> Vec<(Segment, PathBuf)> {
    let status = dir.join("pg_wal/archive_status");
    std::fs::create_dir_all(&status).unwrap();
    (first..first + count)
        .map(|n| {
            let s = segment(1, n);
            std::fs::write(status.join(format!("{s}.ready")), "").unwrap();
            (s, write_segment(dir, s, SYSTEM, n))
        })
        .collect()
}

/// The program as the server runs it; its notes lie in `<dir>/tmp`.
fn archive(dir: &Path, path: &Path) -> Command {
    std::fs::create_dir_all(dir.join("tmp")).unwrap();
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(["wal", "archive", "--repository"]).arg(dir.join("repo")).arg(path).env_clear();
    c.env("TMPDIR", dir.join("tmp")).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
    c
}

fn code(dir: &Path, path: &Path) -> i32 {
    archive(dir, path).status().unwrap().code().unwrap()
}

fn notes(dir: &Path) -> PathBuf {
    dir.join("tmp").join(format!("breakglass-archive-{}", rustix::process::geteuid().as_raw()))
}

fn note_names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(notes(dir)) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn whole(unlocked: &Unlocked, s: Segment) -> bool {
    let object = WalName::Segment(s).object();
    let Some(input) = unlocked.repository().store().open(&object).unwrap() else { return false };
    let expect = Expect { object: ObjectType::WalSegment, repository: unlocked.repository().id(), name: &object };
    verify(input, unlocked.identities(), &expect).unwrap();
    true
}

/// What comes back is what was there.
fn comes_back(unlocked: &Unlocked, dir: &Path, s: Segment, path: &Path) {
    let dest = dir.join("back");
    assert_eq!(fetch(unlocked, &s.to_string(), &dest).unwrap(), Fetched::Restored);
    assert!(std::fs::read(&dest).unwrap() == std::fs::read(path).unwrap(), "{s} differs");
}

/// How often something is tried that a slow machine may leave out: none is begun ahead any more after some time.
const TRIES: usize = 20;

#[test]
fn one_call_stores_the_next_ones_and_the_calls_for_those_see_it() {
    let seen = (0..TRIES).any(|_| some_were_stored_ahead());
    assert!(seen, "nothing was stored ahead in {TRIES} calls");
}

/// One call and those for what it stored ahead; whether that was anything.
fn some_were_stored_ahead() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (_, unlocked, _) = repository(d);
    let all = ready(d, 5, 20);
    // Waiting before it, and nothing that is no segment, is none of its business.
    std::fs::write(d.join("pg_wal/archive_status/000000010000000000000004.ready"), "").unwrap();
    std::fs::write(d.join("pg_wal/archive_status/00000002.history.ready"), "").unwrap();
    std::fs::write(d.join("pg_wal/archive_status/000000010000000000000030.done"), "").unwrap();
    assert_eq!(code(d, &all[0].1), 0);
    let there: Vec<bool> = all.iter().map(|(s, _)| whole(&unlocked, *s)).collect();
    assert!(there[0], "its own is there: {there:?}");
    if !there[1] {
        return false;
    }
    let first_missing = there.iter().position(|t| !t).unwrap();
    assert!(first_missing <= 16 && there[first_missing..].iter().all(|t| !t), "in order: {there:?}");
    // A note for each that was stored ahead, none for its own.
    assert_eq!(note_names(d).len(), first_missing - 1);
    assert!(note_names(d)[0].ends_with(&all[1].0.to_string()));
    for (i, (_, path)) in all.iter().enumerate().skip(1).take(first_missing - 1) {
        let stored = object_path(d, all[i].0);
        let before = std::fs::metadata(&stored).unwrap().modified().unwrap();
        assert_eq!(code(d, path), 0);
        assert_eq!(std::fs::metadata(&stored).unwrap().modified().unwrap(), before, "not stored again");
    }
    assert!(note_names(d).is_empty(), "each was used up");
    for (_, path) in &all[first_missing..] {
        assert_eq!(code(d, path), 0);
    }
    for (s, path) in &all {
        comes_back(&unlocked, d, *s, path);
    }
    true
}

/// What became of a file or its object since the note was written.
#[derive(Debug, Clone, Copy)]
enum Since {
    OtherFile,
    Damaged,
    Gone,
    AnotherObject,
}

#[test]
fn a_note_is_never_believed_over_the_file_or_the_repository() {
    let mut open = vec![Since::AnotherObject, Since::Gone, Since::Damaged, Since::OtherFile];
    for _ in 0..TRIES {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let (_, unlocked, _) = repository(d);
        let all = ready(d, 5, 6);
        assert_eq!(code(d, &all[0].1), 0);
        let names = note_names(d);
        let mut meant = Vec::new();
        for (s, path) in all[1..].iter().filter(|(s, _)| names.iter().any(|n| n.ends_with(&s.to_string()))) {
            let Some(since) = open.pop() else { break };
            meant.push(*s);
            let object = object_path(d, *s);
            match since {
                // Of the same size: refused, and what is stored stays.
                Since::OtherFile => {
                    let right = std::fs::read(path).unwrap();
                    std::fs::write(path, segment_bytes(*s, SYSTEM, 99)).unwrap();
                    assert_eq!(code(d, path), 4);
                    std::fs::write(path, right).unwrap();
                }
                // In the repository: mended.
                Since::Damaged => {
                    let mut bytes = std::fs::read(&object).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    std::fs::write(&object, bytes).unwrap();
                }
                // Stored again.
                Since::Gone => std::fs::remove_file(&object).unwrap(),
                Since::AnotherObject => {
                    std::fs::copy(object_path(d, all[0].0), &object).unwrap();
                }
            }
        }
        for (s, path) in &all[1..] {
            assert_eq!(code(d, path), 0, "{s}");
            comes_back(&unlocked, d, *s, path);
        }
        assert!(note_names(d).is_empty(), "{meant:?}");
        if open.is_empty() {
            return;
        }
    }
    panic!("{open:?} were not tried in {TRIES} calls");
}

#[test]
fn notes_that_others_could_have_written_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (_, unlocked, _) = repository(d);
    let all = ready(d, 5, 3);
    std::fs::create_dir_all(notes(d)).unwrap();
    std::fs::set_permissions(notes(d), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(code(d, &all[0].1), 0);
    assert!(note_names(d).is_empty());
    for (s, path) in &all {
        assert_eq!(code(d, path), 0);
        comes_back(&unlocked, d, *s, path);
    }
}

#[test]
fn one_that_cannot_be_stored_ahead_is_told_by_its_own_call() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (_, unlocked, _) = repository(d);
    let all = ready(d, 5, 3);
    std::fs::write(&all[1].1, vec![0u8; 1 << 20]).unwrap();
    assert_eq!(code(d, &all[0].1), 0);
    assert!(whole(&unlocked, all[0].0) && !whole(&unlocked, all[1].0));
    assert_eq!(code(d, &all[1].1), 1);
}

#[test]
fn what_is_stored_ahead_is_durable_before_the_call_ends() {
    if !strace() {
        return;
    }
    assert!((0..TRIES).any(|_| notes_come_last()), "nothing was stored ahead in {TRIES} calls");
}

/// One call under strace; whether it wrote any note.
fn notes_come_last() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d);
    let all = ready(d, 5, 6);
    let trace = d.join("trace");
    std::fs::create_dir_all(d.join("tmp")).unwrap();
    let status = Command::new("strace")
        .args(["-f", "-y", "-qq", "-o", trace.to_str().unwrap()])
        .args(["-e", "trace=write,fsync,rename,renameat2,exit_group"])
        .arg(env!("CARGO_BIN_EXE_breakglass"))
        .args(["wal", "archive", "--repository"])
        .arg(d.join("repo"))
        .arg(&all[0].1)
        .env_clear()
        .env("TMPDIR", d.join("tmp"))
        .current_dir("/")
        .status()
        .unwrap();
    assert!(status.success());
    let text = std::fs::read_to_string(&trace).unwrap();
    let stored = stored_durably(&text, &d.join("repo"));
    let durable = |s: Segment| stored.iter().any(|n| n.ends_with(&format!("{s}.bgo")));
    assert!(durable(all[0].0), "{stored:?}");
    // Nobody is told that one is stored before it is durable.
    let lines: Vec<&str> = text.lines().collect();
    let mut notes = 0;
    for (s, _) in &all[1..] {
        let note = lines.iter().position(|l| {
            l.contains("rename(") && l.contains("/tmp/breakglass-archive-") && l.contains(&s.to_string())
        });
        let Some(note) = note else { continue };
        notes += 1;
        assert!(durable(*s), "{s} in {stored:?}");
        let renamed = lines.iter().position(|l| l.contains("renameat2(") && l.contains(&format!("{s}.bgo"))).unwrap();
        let thread = |l: &str| l.split_whitespace().next().unwrap().to_string();
        let of_it = thread(lines[renamed]);
        let folders = lines[renamed..note].iter().filter(|l| thread(l) == of_it && l.contains(" fsync(")).count();
        assert!(folders >= 4, "{s}: {folders} folders between its rename and its note\n{text}");
    }
    notes > 0
}

fn wanted() -> usize {
    if std::env::var_os("BREAKGLASS_SOAK").is_some() { 100 } else { 6 }
}

/// Starts the program and kills it after a random part of `usual`; whether it was killed, else how it ended.
fn killed_at(mut c: Command, usual: Duration, random: &mut u64) -> Result<(), i32> {
    let mut child = c.spawn().unwrap();
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let part = (*random >> 33) % 1000;
    std::thread::sleep(usual * u32::try_from(part).unwrap() / 1000);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    if status.signal() == Some(9) { Ok(()) } else { Err(status.code().unwrap()) }
}

#[test]
fn a_kill_of_archive_at_a_random_point_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (_, unlocked, _) = repository(d);
    let mut random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {random}");
    let (mut kills, mut next) = (0, 1);
    let mut acknowledged: Vec<Segment> = Vec::new();
    let began = Instant::now();
    let first = ready(d, next, 4);
    assert_eq!(code(d, &first[0].1), 0);
    let usual = began.elapsed();
    next += 4;
    for round in 0.. {
        assert!(round < 40 * wanted(), "only {kills} kills in {round} rounds");
        // As the server does it: one after the other, again until it is acknowledged.
        let burst = ready(d, next, 4);
        next += 4;
        for (s, path) in &burst {
            loop {
                match killed_at(archive(d, path), usual, &mut random) {
                    Ok(()) => kills += 1,
                    Err(0) => break,
                    Err(other) => panic!("{s} ended with {other}"),
                }
                // Those a moment ago; all of them in the end.
                let last = acknowledged.iter().rev().take(4);
                assert!(last.into_iter().all(|a| whole(&unlocked, *a)), "an acknowledged one is gone");
                if kills % 3 == 2 {
                    // It gets through now and then.
                    assert_eq!(code(d, path), 0);
                    break;
                }
            }
            acknowledged.push(*s);
            assert!(whole(&unlocked, *s), "{s} was acknowledged");
        }
        if kills >= wanted() {
            break;
        }
    }
    for s in acknowledged {
        comes_back(&unlocked, d, s, &d.join("pg_wal").join(s.to_string()));
    }
    println!("{kills} kills of archive");
}

#[test]
fn a_kill_of_fetch_at_a_random_point_leaves_the_file_whole_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (_, unlocked, url) = repository(d);
    let all: Vec<(Segment, PathBuf)> = ready(d, 5, 3);
    let repo = Repository::open(&url).unwrap();
    for (s, path) in &all {
        assert_eq!(archive_into(&repo, path, &WalName::Segment(*s)).unwrap(), Archived::Stored);
    }
    let socket = d.join("wal.sock");
    let _service = Service::start(unlocked, &socket, &ServeOptions::default()).unwrap();
    let dest = d.join("RECOVERYXLOG");
    let fetching = |round: usize| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(["wal", "fetch"]);
        // With the key, and from a worker.
        match round % 2 {
            0 => c.arg("--repository").arg(d.join("repo")),
            _ => c.arg("--socket").arg(&socket),
        };
        c.arg(all[round % 3].0.to_string()).arg(&dest).env_clear().env("BACKUP_ENCRYPTION_KEY", PASSPHRASE);
        c.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        c
    };
    let began = Instant::now();
    assert!(fetching(0).status().unwrap().success());
    let usual = began.elapsed();
    let mut random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {random}");
    let (mut kills, mut whole) = (0, 0);
    for round in 0.. {
        assert!(round < 40 * wanted(), "only {kills} kills in {round} rounds");
        let _ = std::fs::remove_file(&dest);
        let ended = killed_at(fetching(round), usual, &mut random);
        assert!(matches!(ended, Ok(()) | Err(0)), "{ended:?}");
        let right = std::fs::read(&all[round % 3].1).unwrap();
        match std::fs::read(&dest) {
            Ok(bytes) => {
                assert!(bytes == right, "round {round}: a part of the file");
                whole += 1;
            }
            Err(_) => assert_eq!(ended, Ok(()), "round {round}: acknowledged and not there"),
        }
        kills += usize::from(ended.is_ok());
        if kills >= wanted() {
            break;
        }
    }
    // What killed ones left does not keep the next one from its work.
    let _ = std::fs::remove_file(&dest);
    assert!(fetching(1).status().unwrap().success());
    println!("{kills} kills of fetch, {whole} files were whole");
}
