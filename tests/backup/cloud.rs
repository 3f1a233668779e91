//! A repository in a bucket: everything that works in a folder, against an S3 service that misbehaves.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use breakglass::backup::base::{store_base, verify_backup};
use breakglass::backup::catalog::Catalog;
use breakglass::backup::repository::{InitOptions, Repository, Unlocked};
use breakglass::backup::store::{Access, Committed, Existing, open_place};
use breakglass::backup::wal::{Archived, Fetched, archive, fetch, status};

use super::base::{files, stream};
use super::container::sample;
use super::wal::{SYSTEM, segment, write_segment};
use super::{CHEAP, passphrase};
use crate::support::bucket::{Bucket, Fault};

/// A new repository in a bucket of its own.
fn repository(bucket: &Bucket, dir: &Path) -> (Unlocked, String) {
    let url = bucket.url(dir, "team/repo");
    let made = Repository::init(&url, &passphrase(), &InitOptions { kdf: CHEAP, ..InitOptions::default() }).unwrap();
    (made.unlock(&passphrase()).unwrap(), url)
}

#[test]
fn objects_of_every_size() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let place = open_place(&bucket.url(dir.path(), "a/b"), true).unwrap();
    // Around the first window, a part, and where parts begin.
    for size in [0usize, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 8 << 20, (17 << 20) + 1] {
        let name = format!("wal/{size}.bgo");
        let bytes = sample(size, size as u64);
        assert_eq!(place.put(&name, Access::Group, &bytes, Existing::Keep).unwrap(), Committed::Stored);
        assert_eq!(bucket.get(&format!("a/b/{name}")).unwrap().len(), size);
        assert_eq!(place.size(&name).unwrap(), Some(size as u64));
        assert!(place.get(&name, 1 << 30).unwrap().unwrap() == bytes, "{size} bytes come back");
        // Other content never takes its place, however large it is.
        let other = sample(size + 1, 7);
        assert_eq!(place.put(&name, Access::Group, &other, Existing::Keep).unwrap(), Committed::Kept);
        assert!(bucket.get(&format!("a/b/{name}")).unwrap() == bytes);
    }
    assert_eq!(bucket.unfinished(), 0, "what was not taken leaves no parts");
    assert_eq!(place.list("wal/").unwrap().len(), 7);
    assert_eq!(place.list("").unwrap().len(), 7);
    assert!(place.list("wal/12").unwrap().is_empty(), "a folder, not the beginning of a name");
    assert!(place.get("wal/none.bgo", 10).unwrap().is_none());
    assert_eq!(place.size("wal/none.bgo").unwrap(), None);
    // An upload that is given up leaves nothing.
    let mut upload = place.create("wal/dropped.bgo", Access::Group).unwrap();
    std::io::copy(&mut Cursor::new(sample(18 << 20, 3)), &mut upload).unwrap();
    assert_eq!(bucket.unfinished(), 1);
    drop(upload);
    assert_eq!(bucket.unfinished(), 0);
    assert!(place.size("wal/dropped.bgo").unwrap().is_none());
}

#[test]
fn a_repository_works_as_in_a_folder() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let (unlocked, url) = repository(&bucket, dir.path());
    let again =
        Repository::init(&url, &passphrase(), &InitOptions { kdf: CHEAP, ..InitOptions::default() }).unwrap_err();
    assert_eq!(again.kind, breakglass::error::ErrorKind::Refused, "{again}");
    let bytes = stream(&files(1));
    let manifest = store_base(&unlocked, &mut &bytes[..], None, &mut |_| Ok(())).unwrap().commit().unwrap();
    for n in [5, 6, 7] {
        let path = write_segment(dir.path(), segment(1, n), SYSTEM, n);
        assert_eq!(archive(&url, &path, None).unwrap(), Archived::Stored);
        assert_eq!(archive(&url, &path, None).unwrap(), Archived::AlreadyThere);
    }
    let other = write_segment(dir.path(), segment(1, 6), SYSTEM, 99);
    assert_eq!(archive(&url, &other, None).unwrap_err().kind, breakglass::error::ErrorKind::Refused);
    let path = write_segment(dir.path(), segment(1, 6), SYSTEM, 6);
    let dest = dir.path().join("back");
    assert_eq!(fetch(&unlocked, &segment(1, 6).to_string(), &dest).unwrap(), Fetched::Restored);
    assert_eq!(std::fs::read(&dest).unwrap(), std::fs::read(&path).unwrap());
    assert_eq!(fetch(&unlocked, &segment(1, 8).to_string(), &dest).unwrap(), Fetched::NotInArchive);
    verify_backup(&unlocked, &manifest.id, &mut |_| Ok(())).unwrap();
    assert_eq!(Catalog::load(&unlocked).unwrap().backups[0].manifest.id, manifest.id);
    // A hole, and rot, are found as in a folder.
    let key = bucket.keys().into_iter().find(|k| k.contains(&segment(1, 6).to_string())).unwrap();
    let good = bucket.get(&key).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    bucket.set(&key, bad);
    assert_eq!(archive(&url, &path, None).unwrap(), Archived::Repaired);
    bucket.remove(&key);
    assert_eq!(status(unlocked.repository()).unwrap().timelines[0].holes.len(), 1);
    assert!(fetch(&unlocked, &segment(1, 6).to_string(), &dest).is_err(), "a hole stops a recovery");
}

/// Refuses every so many requests in turn with each fault.
fn now_and_then(bucket: &Bucket, faults: &'static [Fault]) -> Arc<AtomicUsize> {
    let struck = Arc::new(AtomicUsize::new(0));
    let count = struck.clone();
    bucket.rule(move |seen| {
        // Never twice in a row, so that the next try gets through.
        (seen.number % 3 == 0).then(|| faults[count.fetch_add(1, Ordering::SeqCst) % faults.len()])
    });
    struck
}

#[test]
fn a_service_that_fails_now_and_then_changes_nothing() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let faults = &[
        Fault::Refuse(500),
        Fault::Refuse(503),
        Fault::DoAndRefuse(500),
        Fault::DoAndCut,
        Fault::CutRequest(1000),
        Fault::CutAnswer(100),
    ];
    let struck = now_and_then(&bucket, faults);
    let (unlocked, url) = repository(&bucket, dir.path());
    let bytes = stream(&files(1));
    let manifest = store_base(&unlocked, &mut &bytes[..], None, &mut |_| Ok(())).unwrap().commit().unwrap();
    let path = write_segment(dir.path(), segment(1, 5), SYSTEM, 5);
    assert_eq!(archive(&url, &path, None).unwrap(), Archived::Stored);
    let path = write_segment(dir.path(), segment(1, 6), SYSTEM, 6);
    assert_eq!(archive(&url, &path, None).unwrap(), Archived::Stored);
    let dest = dir.path().join("back");
    assert_eq!(fetch(&unlocked, &segment(1, 6).to_string(), &dest).unwrap(), Fetched::Restored);
    verify_backup(&unlocked, &manifest.id, &mut |_| Ok(())).unwrap();
    // Large objects: parts, the request that joins them, and windows of reading.
    let place = unlocked.repository().store();
    let large = sample(22 << 20, 1);
    for n in 0..2 {
        let name = format!("backups/x/large-{n}.bgo");
        assert_eq!(place.put(&name, Access::Group, &large, Existing::Keep).unwrap(), Committed::Stored);
        assert!(place.get(&name, 1 << 30).unwrap().unwrap() == large);
        assert_eq!(place.put(&name, Access::Group, &large[1..], Existing::Keep).unwrap(), Committed::Kept);
    }
    bucket.calm();
    assert!(struck.load(Ordering::SeqCst) > 15, "{struck:?} faults struck");
    assert_eq!(Catalog::load(&unlocked).unwrap().head.seq, 2, "no entry was written twice");
}
