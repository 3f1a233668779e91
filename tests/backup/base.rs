//! Base backups without a server: streams that are cut or lie, objects that rot or are swapped, folders left clean.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use breakglass::backup::base::manifest::{Algorithm, PgManifest, Sum};
use breakglass::backup::base::{RestoreOptions, restore_base, store_base, verify_backup};
use breakglass::backup::catalog::{Catalog, Manifest};
use breakglass::backup::container::hex;
use breakglass::backup::repository::Unlocked;
use breakglass::backup::wal::archive;
use breakglass::error::{Error, ErrorKind};
use sha2::{Digest, Sha256};

use super::container::sample;
use super::repository;
use super::wal::{SYSTEM, segment, write_segment};

type Files = BTreeMap<String, Vec<u8>>;

/// Files of a cluster small enough for hundreds of rounds; the log needed is segments 5 and 6 of 1 MiB.
pub fn files(seed: u64) -> BTreeMap<String, Vec<u8>> {
    let mut control = sample(8192, seed);
    control[..8].copy_from_slice(&SYSTEM.to_ne_bytes());
    [
        ("PG_VERSION", b"15\n".to_vec()),
        (
            "backup_label",
            b"START WAL LOCATION: 0/500028 (file 000000010000000000000005)\nLABEL: of the test\n".to_vec(),
        ),
        ("base/1/1259", sample(90_000, seed + 1)),
        ("base/1/empty", Vec::new()),
        ("base/5/16384", sample(200_000, seed + 2)),
        ("global/pg_control", control),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v))
    .collect()
}

fn algorithm_name(a: Algorithm) -> &'static str {
    match a {
        Algorithm::Crc32c => "CRC32C",
        Algorithm::Sha224 => "SHA224",
        Algorithm::Sha256 => "SHA256",
        Algorithm::Sha384 => "SHA384",
        Algorithm::Sha512 => "SHA512",
    }
}

/// A manifest as PostgreSQL writes it.
fn pg_manifest(files: &BTreeMap<String, Vec<u8>>, algorithm: Option<Algorithm>) -> Vec<u8> {
    let lines: Vec<String> = files
        .iter()
        .map(|(path, bytes)| {
            let sum = algorithm.map_or(String::new(), |a| {
                let mut sum = Sum::new(a);
                sum.update(bytes);
                format!(", \"Checksum-Algorithm\": \"{}\", \"Checksum\": \"{}\"", algorithm_name(a), sum.finish())
            });
            format!(
                "{{ \"Path\": \"{path}\", \"Size\": {}, \"Last-Modified\": \"2026-11-20 14:01:07 GMT\"{sum} }}",
                bytes.len()
            )
        })
        .collect();
    let mut text = format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": 1, \
         \"Start-LSN\": \"0/500028\", \"End-LSN\": \"0/600100\" }}\n],\n",
        lines.join(",\n")
    );
    let sum = hex(&Sha256::digest(text.as_bytes()));
    text.push_str(&format!("\"Manifest-Checksum\": \"{sum}\"}}\n"));
    text.into_bytes()
}

fn tar_of(files: &BTreeMap<String, Vec<u8>>, manifest: Option<Vec<u8>>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let folder = |tar: &mut tar::Builder<Vec<u8>>, path: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o700);
        tar.append_data(&mut header, path, std::io::empty()).unwrap();
    };
    for path in ["base", "base/1", "base/5", "global", "pg_wal"] {
        folder(&mut tar, path);
    }
    let mut all = files.clone();
    if let Some(manifest) = manifest {
        all.insert("zz-manifest".into(), manifest);
    }
    for (path, bytes) in &all {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        let path = if path == "zz-manifest" { "backup_manifest" } else { path };
        tar.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The stream of a backup of these files.
pub fn stream(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    tar_of(files, Some(pg_manifest(files, Some(Algorithm::Crc32c))))
}

fn store(unlocked: &Unlocked, tar: &[u8]) -> Result<Manifest, Error> {
    store_base(unlocked, &mut Cursor::new(tar), None, &mut |_| Ok(())).and_then(|pending| pending.commit())
}

fn restore(unlocked: &Unlocked, id: &str, dest: &Path, threads: usize) -> Result<Manifest, Error> {
    restore_base(unlocked, id, dest, &RestoreOptions { owner: None, threads }, &mut |_| Ok(()))
}

fn folder_files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut stack = vec![root.to_path_buf()];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                stack.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        folder_files(&dir.join("repo/backups")).into_keys().map(|n| dir.join("repo/backups").join(n)).collect();
    all.sort();
    all
}

#[test]
fn what_goes_in_comes_out_for_every_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, _) = repository(dir.path());
    let files = files(1);
    use Algorithm::{Crc32c, Sha224, Sha384, Sha512};
    for (n, algorithm) in
        [None, Some(Crc32c), Some(Sha224), Some(Algorithm::Sha256), Some(Sha384), Some(Sha512)].into_iter().enumerate()
    {
        let pg = pg_manifest(&files, algorithm);
        PgManifest::parse(&pg).unwrap();
        let mut steps = Vec::new();
        let tar = tar_of(&files, Some(pg.clone()));
        let pending = store_base(&unlocked, &mut Cursor::new(&tar), Some("label"), &mut |n| {
            steps.push(n);
            Ok(())
        })
        .unwrap();
        let manifest = pending.commit().unwrap();
        assert!(steps.is_sorted() && steps.last() == Some(&(tar.len() as u64)));
        assert_eq!(manifest.objects[0].plain_sha256, hex(&Sha256::digest(&tar)));
        assert_eq!(manifest.label.as_deref(), Some("label"));
        assert_eq!((manifest.start_lsn.as_deref(), manifest.stop_lsn.as_deref()), (Some("0/500028"), Some("0/600100")));
        let dest = dir.path().join(format!("data{n}"));
        restore(&unlocked, &manifest.id, &dest, 1 + n % 3).unwrap();
        let mut got = folder_files(&dest);
        assert_eq!(got.remove("backup_manifest"), Some(pg));
        assert!(got == files);
        assert!(dest.join("pg_wal").is_dir());
        assert_eq!(Catalog::load(&unlocked).unwrap().backups.len(), n + 1);
    }
}

#[test]
fn a_stream_that_is_cut_or_lies_is_no_backup() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, unlocked, _) = repository(dir.path());
    let files = files(1);
    let whole = stream(&files);
    let refuse = |tar: &[u8], what: &str, kind: ErrorKind| {
        let error = store(&unlocked, tar).unwrap_err();
        assert_eq!(error.kind, kind, "{what}: {error}");
        assert!(repository.store().list("backups/").unwrap().is_empty(), "{what}: objects left");
    };
    for at in [0, 100, 512, 5000, whole.len() / 2, whole.len() - 1024 - 700] {
        refuse(&whole[..at], "cut", ErrorKind::Check);
    }
    refuse(&tar_of(&files, None), "no manifest", ErrorKind::Check);
    let with = |change: &dyn Fn(&mut Files)| {
        let mut other = files.clone();
        change(&mut other);
        tar_of(&other, Some(pg_manifest(&files, Some(Algorithm::Crc32c))))
    };
    refuse(&with(&|f| f.get_mut("base/1/1259").unwrap()[7] ^= 1), "changed", ErrorKind::Check);
    refuse(&with(&|f| f.get_mut("base/1/1259").unwrap().push(0)), "longer", ErrorKind::Check);
    refuse(&with(&|f| drop(f.remove("base/1/empty"))), "missing", ErrorKind::Check);
    refuse(&with(&|f| drop(f.insert("base/1/more".into(), vec![1]))), "not in the manifest", ErrorKind::Check);
    refuse(&with(&|f| drop(f.remove("backup_label"))), "no label", ErrorKind::Check);
    let mut pg = pg_manifest(&files, Some(Algorithm::Crc32c));
    pg[60] ^= 1;
    refuse(&tar_of(&files, Some(pg)), "manifest changed", ErrorKind::Check);

    // A second tablespace, a path that climbs out, a device.
    let odd = |kind: tar::EntryType, path: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(0);
        header.as_ustar_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        if kind == tar::EntryType::Symlink {
            header.set_link_name("/srv/other").unwrap();
        }
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
        let mut bytes = tar.into_inner().unwrap();
        bytes.truncate(512);
        bytes.extend_from_slice(&whole);
        bytes
    };
    refuse(&odd(tar::EntryType::Symlink, "pg_tblspc/16400"), "tablespace", ErrorKind::Refused);
    refuse(&odd(tar::EntryType::Symlink, "base/link"), "link", ErrorKind::Check);
    refuse(&odd(tar::EntryType::Regular, "../outside"), "climbing", ErrorKind::Check);
    refuse(&odd(tar::EntryType::Regular, "/etc/absolute"), "absolute", ErrorKind::Check);
    refuse(&odd(tar::EntryType::Block, "dev"), "device", ErrorKind::Check);

    // The caller stops it, or the source fails: the same.
    let stop = store_base(&unlocked, &mut Cursor::new(&whole), None, &mut |n| {
        if n > 100_000 { Err(Error::interrupted("stopped")) } else { Ok(()) }
    });
    assert_eq!(stop.err().unwrap().kind, ErrorKind::Interrupted);
    // A pending backup that is dropped leaves nothing either.
    drop(store_base(&unlocked, &mut Cursor::new(&whole), None, &mut |_| Ok(())).unwrap());
    assert!(repository.store().list("backups/").unwrap().is_empty());
    let hidden = std::fs::read_dir(dir.path().join("repo/backups")).unwrap();
    assert!(
        hidden.flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap()).next().is_none(),
        "temporary files left"
    );

    // Another cluster's backup does not belong here.
    let mut other = files.clone();
    store(&unlocked, &whole).unwrap();
    other.get_mut("global/pg_control").unwrap()[0] ^= 1;
    assert_eq!(store(&unlocked, &stream(&other)).unwrap_err().kind, ErrorKind::Refused);
}

#[test]
fn damage_to_a_backup_is_found_and_restores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, _) = repository(dir.path());
    let first = store(&unlocked, &stream(&files(1))).unwrap();
    let second = store(&unlocked, &stream(&files(50))).unwrap();
    let places = dir.path().join("places");
    std::fs::create_dir(&places).unwrap();
    let fails = |what: &str| {
        for threads in [1, 2] {
            let error = restore(&unlocked, &first.id, &places.join("data"), threads).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Check, "{what}: {error}");
            assert_eq!(std::fs::read_dir(&places).unwrap().count(), 0, "{what}: something was left");
        }
        let error = verify_backup(&unlocked, &first.id, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Check, "{what}: {error}");
    };
    let all = objects(dir.path());
    assert_eq!(all.len(), 6);
    let (mine, theirs): (Vec<_>, Vec<_>) = all.iter().partition(|p| p.to_string_lossy().contains(&first.id));
    let mut state = 7usize;
    for (mine, theirs) in mine.iter().zip(&theirs) {
        let name = mine.file_name().unwrap().to_string_lossy();
        let good = std::fs::read(mine).unwrap();
        let rounds = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 200 } else { 6 };
        for _ in 0..rounds {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut bad = good.clone();
            let at = (state >> 33) % bad.len();
            bad[at] ^= 1 << (state % 8);
            std::fs::write(mine, &bad).unwrap();
            fails(&format!("{name}: bit in byte {at}"));
            std::fs::write(mine, &good[..at]).unwrap();
            fails(&format!("{name}: cut at {at}"));
        }
        std::fs::copy(theirs, mine).unwrap();
        fails(&format!("{name}: of another backup"));
        std::fs::remove_file(mine).unwrap();
        fails(&format!("{name}: missing"));
        std::fs::write(mine, &good).unwrap();
    }
    restore(&unlocked, &first.id, &places.join("data"), 2).unwrap();
    restore(&unlocked, &second.id, &places.join("other"), 1).unwrap();
    assert_eq!(
        restore(&unlocked, "20200101T0000Z-physical-000000", &places.join("x"), 1).unwrap_err().kind,
        ErrorKind::Usage
    );
}

#[test]
fn verifying_needs_the_log_up_to_consistency() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, url) = repository(dir.path());
    let manifest = store(&unlocked, &stream(&files(1))).unwrap();
    let verify = || verify_backup(&unlocked, &manifest.id, &mut |_| Ok(()));
    assert!(verify().unwrap_err().to_string().contains("cannot become consistent"));
    for n in [5, 6] {
        archive(&url, &write_segment(dir.path(), segment(1, n), SYSTEM, n), None).unwrap();
    }
    let verified = verify().unwrap();
    assert_eq!(verified.wal.unwrap().last, Some(segment(1, 6).to_string()));
    let catalog = Catalog::load(&unlocked).unwrap();
    let backup = catalog.find(&manifest.id).unwrap();
    assert!(backup.verified_at.is_some() && backup.verified_how.as_deref() == Some("read"));
    let path = super::wal::object_path(dir.path(), segment(1, 6));
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 1000;
    bytes[at] ^= 16;
    std::fs::write(&path, bytes).unwrap();
    let error = verify().unwrap_err();
    assert!(error.to_string().contains(&segment(1, 6).to_string()), "{error}");
    assert_eq!(Catalog::load(&unlocked).unwrap().head.seq, 2, "a failed verification is not recorded as one");
}

#[test]
fn a_source_that_fails_in_the_middle_leaves_nothing() {
    struct Broken(Cursor<Vec<u8>>);
    impl Read for Broken {
        fn read(&mut self, b: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() > 150_000 {
                Err(std::io::Error::other("the connection was lost"))
            } else {
                self.0.read(b)
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (repository, unlocked, _) = repository(dir.path());
    let mut source = Broken(Cursor::new(stream(&files(1))));
    let error = store_base(&unlocked, &mut source, None, &mut |_| Ok(())).err().unwrap();
    assert!(error.to_string().contains("the connection was lost"), "{error}");
    assert!(repository.store().list("backups/").unwrap().is_empty());
}

#[test]
fn what_a_killed_restore_left_goes_and_a_running_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, _) = repository(dir.path());
    let manifest = store(&unlocked, &stream(&files(1))).unwrap();
    let places = dir.path().join("places");
    let make = |name: &str| {
        std::fs::create_dir_all(places.join(name).join("base/1")).unwrap();
        std::fs::File::open(places.join(name)).unwrap()
    };
    drop(make(".data.restoring-0000"));
    let running = make(".data.restoring-1111");
    running.lock().unwrap();
    drop(make(".other.restoring-2222"));
    // While a restore runs, its folder is held.
    let mut seen = false;
    restore_base(&unlocked, &manifest.id, &places.join("data"), &RestoreOptions::default(), &mut |_| {
        for entry in std::fs::read_dir(&places).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with(".data.restoring-") && !name.ends_with("1111") {
                assert!(std::fs::File::open(&path).unwrap().try_lock().is_err(), "{name} is not held");
                seen = true;
            }
        }
        Ok(())
    })
    .unwrap();
    assert!(seen);
    let mut names: Vec<String> =
        std::fs::read_dir(&places).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [".data.restoring-1111", ".other.restoring-2222", "data"]);
}
