//! The WAL archive: idempotent, refusing, durable; fetching tells "not there" from "damaged".

use std::path::{Path, PathBuf};

use breakglass::backup::repository::Repository;
use breakglass::backup::wal::{Archived, Fetched, Segment, WalName, archive, fetch};
use breakglass::error::ErrorKind;

use super::container::sample;
use super::repository;

pub const SYSTEM: u64 = 7_300_000_000_000_000_001;

/// A file that looks like a 1 MiB WAL segment of cluster [`SYSTEM`].
pub fn segment_bytes(segment: Segment, system: u64, seed: u64) -> Vec<u8> {
    let mut bytes = sample(1 << 20, seed);
    bytes[0..2].copy_from_slice(&0xD110u16.to_ne_bytes());
    bytes[2..4].copy_from_slice(&0x0002u16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&segment.timeline.to_ne_bytes());
    bytes[8..16].copy_from_slice(&segment.start_lsn(1 << 20).to_ne_bytes());
    bytes[24..32].copy_from_slice(&system.to_ne_bytes());
    bytes[32..36].copy_from_slice(&(1u32 << 20).to_ne_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_ne_bytes());
    bytes
}

pub fn segment(timeline: u32, number: u64) -> Segment {
    Segment::from_number(timeline, number, 1 << 20)
}

/// Writes a segment into `<dir>/pg_wal` and gives its path.
pub fn write_segment(dir: &Path, s: Segment, system: u64, seed: u64) -> PathBuf {
    let folder = dir.join("pg_wal");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(s.to_string());
    std::fs::write(&path, segment_bytes(s, system, seed)).unwrap();
    path
}

/// Where the object of a segment is on disk.
pub fn object_path(dir: &Path, s: Segment) -> PathBuf {
    dir.join("repo").join(WalName::Segment(s).object())
}

#[test]
fn archive_is_idempotent_and_refuses_other_content() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, url) = repository(dir.path());
    let s = segment(1, 5);
    let path = write_segment(dir.path(), s, SYSTEM, 1);
    assert_eq!(archive(&url, &path, None).unwrap(), Archived::Stored);
    let before = std::fs::read(object_path(dir.path(), s)).unwrap();
    assert_eq!(archive(&url, &path, None).unwrap(), Archived::AlreadyThere);
    // Other content under the name: refused, and what is there stays.
    let other = write_segment(dir.path(), s, SYSTEM, 2);
    let error = archive(&url, &other, None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert_eq!(std::fs::read(object_path(dir.path(), s)).unwrap(), before);
    // Rot in the archive while the file is still there: mended.
    let mut rotten = before.clone();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    std::fs::write(object_path(dir.path(), s), rotten).unwrap();
    let path = write_segment(dir.path(), s, SYSTEM, 1);
    assert_eq!(archive(&url, &path, None).unwrap(), Archived::Repaired);
    let dest = dir.path().join("RECOVERYXLOG");
    assert_eq!(fetch(&unlocked, &s.to_string(), &dest).unwrap(), Fetched::Restored);
    assert_eq!(std::fs::read(&dest).unwrap(), std::fs::read(&path).unwrap());
}

#[test]
fn archive_checks_the_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, _, url) = repository(dir.path());
    let s = segment(2, 9);
    let refuse = |bytes: &[u8], name: &str, kind: ErrorKind| {
        let path = dir.path().join("x");
        std::fs::write(&path, bytes).unwrap();
        let error = archive(&url, &path, Some(name)).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    };
    let good = segment_bytes(s, SYSTEM, 3);
    let edit = |at: usize, with: &[u8]| {
        let mut b = good.clone();
        b[at..at + with.len()].copy_from_slice(with);
        b
    };
    refuse(&good[..good.len() - 1], &s.to_string(), ErrorKind::Check);
    refuse(&good[..20], &s.to_string(), ErrorKind::Check);
    refuse(&[], &s.to_string(), ErrorKind::Check);
    refuse(&vec![0; 1 << 20], &s.to_string(), ErrorKind::Check);
    refuse(&edit(2, &[0, 0]), &s.to_string(), ErrorKind::Check);
    refuse(&edit(4, &3u32.to_ne_bytes()), &s.to_string(), ErrorKind::Check);
    refuse(&good, &segment(2, 10).to_string(), ErrorKind::Check);
    refuse(&good, "base.tar", ErrorKind::Usage);
    refuse(&good, "../../etc/passwd", ErrorKind::Usage);
    assert!(repository.store().list("wal/00000002/").unwrap().is_empty(), "nothing was stored");
    // A page of the timeline before is what a promotion leaves at the start of a segment.
    let path = dir.path().join("y");
    std::fs::write(&path, edit(4, &1u32.to_ne_bytes())).unwrap();
    assert_eq!(archive(&url, &path, Some(&s.to_string())).unwrap(), Archived::Stored);
    // From now on the repository is this cluster's.
    assert_eq!(repository.cluster().unwrap().unwrap().system_identifier, SYSTEM);
    refuse(&segment_bytes(segment(2, 10), SYSTEM + 1, 3), &segment(2, 10).to_string(), ErrorKind::Refused);
    // A relative repository cannot work in an archive command.
    assert_eq!(archive("repo", &path, Some(&s.to_string())).unwrap_err().kind, ErrorKind::Usage);
}

#[test]
fn history_and_labels_are_archived_too() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, url) = repository(dir.path());
    for name in ["00000002.history", "000000010000000000000005.00000028.backup"] {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("text of {name}\n")).unwrap();
        assert_eq!(archive(&url, &path, None).unwrap(), Archived::Stored);
        assert_eq!(archive(&url, &path, None).unwrap(), Archived::AlreadyThere);
        let dest = dir.path().join("out");
        assert_eq!(fetch(&unlocked, name, &dest).unwrap(), Fetched::Restored);
        assert_eq!(std::fs::read_to_string(&dest).unwrap(), format!("text of {name}\n"));
        std::fs::write(&path, "other\n").unwrap();
        assert_eq!(archive(&url, &path, None).unwrap_err().kind, ErrorKind::Refused);
    }
    let dest = dir.path().join("none");
    assert_eq!(fetch(&unlocked, "00000003.history", &dest).unwrap(), Fetched::NotInArchive);
    assert!(!dest.exists());
}

#[test]
fn a_hole_or_damage_is_never_the_end_of_the_wal() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, url) = repository(dir.path());
    for n in [5, 6, 8] {
        archive(&url, &write_segment(dir.path(), segment(1, n), SYSTEM, n), None).unwrap();
    }
    let dest = dir.path().join("out");
    let get = |n| fetch(&unlocked, &segment(1, n).to_string(), &dest);
    assert_eq!(get(4).unwrap(), Fetched::NotInArchive);
    assert_eq!(get(9).unwrap(), Fetched::NotInArchive);
    assert_eq!(get(7).unwrap_err().kind, ErrorKind::Check);
    // Objects swapped between names.
    let (a, b) = (object_path(dir.path(), segment(1, 5)), object_path(dir.path(), segment(1, 6)));
    std::fs::rename(&a, dir.path().join("t")).unwrap();
    std::fs::rename(&b, &a).unwrap();
    std::fs::rename(dir.path().join("t"), &b).unwrap();
    for n in [5, 6] {
        let error = get(n).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Check);
        assert!(error.to_string().contains("swapped"), "{error}");
    }
    assert!(!dest.exists(), "nothing was released");
}

#[test]
fn a_wrong_passphrase_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, url) = repository(dir.path());
    let repository = Repository::open(&url).unwrap();
    let wrong = breakglass::model::Secret::new("another passphrase of at least thirty-two characters");
    let error = repository.unlock(&wrong).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Usage);
    assert!(error.what.contains("passphrase"), "{error}");
    let short = breakglass::model::Secret::new("short");
    let error = Repository::init(&format!("{url}-2"), &short, &Default::default()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Usage);
    assert_eq!(Repository::init(&url, &super::passphrase(), &Default::default()).unwrap_err().kind, ErrorKind::Refused);
}

#[test]
fn what_a_killed_writer_left_is_swept_and_what_is_being_written_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, url) = repository(dir.path());
    let s = segment(1, 5);
    let object = object_path(dir.path(), s);
    let folder = object.parent().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let file_name = object.file_name().unwrap().to_str().unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let make = |name: String| {
        let file = std::fs::File::create(folder.join(&name)).unwrap();
        file.set_modified(old).unwrap();
        (folder.join(name), file)
    };
    let (left, closed) = make(format!(".tmp-{file_name}-1-aa"));
    drop(closed);
    let (written, held) = make(format!(".tmp-{file_name}-2-bb"));
    held.lock().unwrap();
    let (foreign, closed) = make(".tmp-000000010000000000000006.bgo-3-cc".into());
    drop(closed);
    let (young, file) = make(format!(".tmp-{file_name}-4-dd"));
    file.set_modified(std::time::SystemTime::now()).unwrap();
    drop(file);
    archive(&url, &write_segment(dir.path(), s, SYSTEM, 1), None).unwrap();
    assert!(!left.exists(), "nobody writes it any more");
    assert!(written.exists() && foreign.exists() && young.exists());
}
