//! Parts of objects without the rest: the right bytes or none, from a folder and from a bucket, and few of them fetched.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use breakglass::backup::catalog::Catalog;
use breakglass::backup::container::{Compression, Expect, ObjectType, Ranged, Spec, Writer};
use breakglass::backup::part::affected;
use breakglass::backup::repository::{Repository, Unlocked};
use breakglass::backup::store::{Access, Existing, Store};
use breakglass::model::Time;

use super::container::sample;
use super::logical::{cluster, json, program, text, url};
use super::{NOBODY, PASSPHRASE, repository};
use crate::support::bucket::{ACCESS_KEY, Bucket, Fault, SECRET_KEY};

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n.max(1)
    }
}

/// Half noise, half text, so that some frames are stored as they are.
fn content(size: usize) -> Vec<u8> {
    let mut bytes = sample(size, size as u64);
    for (i, b) in bytes.iter_mut().enumerate().skip(size / 3).take(size / 3) {
        *b = b"the same words again and again "[i % 31];
    }
    bytes
}

fn put(u: &Unlocked, name: &str, bytes: &[u8], chunk: u32, frame: u32, compression: Compression) {
    let mut spec = Spec::new(ObjectType::Files, u.repository().id(), name, Time::from_micros(0));
    (spec.chunk_size, spec.frame_size, spec.compression) = (chunk, frame, compression);
    let upload = u.repository().store().create(name, Access::Group).unwrap();
    let mut writer = Writer::new(upload, &spec, &[u.repository().recipient()]).unwrap();
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    writer.finish().unwrap().0.commit(Existing::Keep).unwrap();
}

fn open(u: &Unlocked, name: &str) -> breakglass::error::Result<Ranged> {
    let expect = Expect { object: ObjectType::Files, repository: u.repository().id(), name };
    Ranged::open(u.repository().store(), u.identities(), &expect).map(|o| o.expect("it is there"))
}

#[test]
fn every_range_is_the_same_as_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (_, u, _) = repository(dir.path());
    let mut dice = Dice(7);
    let sizes = [0, 1, 4095, 4096, 4097, 16384, 70_000, 300_001];
    for (i, size) in sizes.into_iter().enumerate() {
        for (k, (chunk, frame, compression)) in [
            (4096, 4096, Compression::Zstd),
            (4096, 16384, Compression::Zstd),
            (65536, 4096, Compression::Zstd),
            (8192, 8192, Compression::None),
        ]
        .into_iter()
        .enumerate()
        {
            let (name, bytes) = (format!("files/{i}-{k}.bgo"), content(size));
            put(&u, &name, &bytes, chunk, frame, compression);
            let mut object = open(&u, &name).unwrap();
            assert_eq!(object.plain_len(), size as u64);
            assert!(!object.written_by_holder(), "made for the public key, as anybody could");
            let size = size as u64;
            let mut ranges = vec![0..size, 0..1, size.saturating_sub(1)..size, size..size + 10, 0..u64::MAX];
            ranges.extend((0..12).map(|_| {
                let from = dice.below(size + 1);
                from..from + dice.below(size - from + 1)
            }));
            for range in ranges {
                let mut got = Vec::new();
                object.reader(range.clone()).read_to_end(&mut got).unwrap();
                let (from, to) = (range.start.min(size) as usize, range.end.min(size) as usize);
                assert!(got == bytes[from..to], "{name} {range:?}");
            }
        }
    }
    let expect = Expect { object: ObjectType::Files, repository: u.repository().id(), name: "files/none.bgo" };
    assert!(Ranged::open(u.repository().store(), u.identities(), &expect).unwrap().is_none());
}

#[test]
fn damage_never_gives_another_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (_, u, _) = repository(dir.path());
    let bytes = content(60_000);
    put(&u, "files/it.bgo", &bytes, 4096, 4096, Compression::Zstd);
    put(&u, "files/other.bgo", &content(60_001), 4096, 4096, Compression::Zstd);
    let store: Arc<dyn Store> = u.repository().store().clone();
    let path = dir.path().join("repo/files/it.bgo");
    let good = std::fs::read(&path).unwrap();
    let (mut refused, mut right) = (0, 0);
    let mut look = |what: &str, damaged: Vec<u8>| {
        std::fs::write(&path, damaged).unwrap();
        for range in [0..500u64, 30_000..30_100, 59_990..60_000] {
            let mut got = Vec::new();
            let read = open(&u, "files/it.bgo").map_err(std::io::Error::other);
            match read.and_then(|mut o| o.reader(range.clone()).read_to_end(&mut got)) {
                Ok(_) => {
                    assert!(got == bytes[range.start as usize..range.end as usize], "{what} {range:?}");
                    right += 1;
                }
                Err(_) => refused += 1,
            }
        }
    };
    // A bit of every so many bytes, all of the beginning and the end.
    for at in (0..good.len()).filter(|i| *i < 400 || i % 97 == 0 || i + 600 > good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        look(&format!("bit of byte {at}"), bad);
    }
    for cut in (0..good.len()).step_by(997).chain([good.len() - 1, good.len() - 80, good.len() - 81]) {
        look(&format!("cut at {cut}"), good[..cut].to_vec());
    }
    look("a byte more", [&good[..], b"x"].concat());
    // Two chunks of a place each other; another object's.
    let sealed = 4096 + 16;
    let begin = good.len() - 80 - (good.len() - 80) / sealed * sealed;
    let mut swapped = good.clone();
    swapped.copy_within(begin + sealed..begin + 2 * sealed, begin);
    look("a chunk in another's place", swapped);
    assert!(refused > 1000 && right > 500, "{refused} refused, {right} untouched by the damage");
    std::fs::copy(dir.path().join("repo/files/other.bgo"), &path).unwrap();
    assert!(open(&u, "files/it.bgo").is_err(), "another object under its name");
    drop(store);
}

/// The program against a bucket, with the bytes that the bucket sent for it.
fn fetched(dir: &Path, bucket: &Bucket, database: &str, args: &[&str]) -> (usize, serde_json::Value) {
    let before = bucket.sent();
    let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.arg("--json").args(args).env_clear().env("HOME", dir).env("BREAKGLASS_HOME", dir.join("state"));
    c.env("BACKUP_DIR", bucket.url_with("team", "")).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE);
    c.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY).env("DATABASE_URL", database);
    let out = c.current_dir(dir).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out));
    (bucket.sent() - before, serde_json::from_slice(&out.stdout).unwrap())
}

#[test]
fn one_file_of_a_large_backup() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir_all(d.join("data/sub")).unwrap();
    for (name, size) in
        [("a-large", 9 << 20), ("m-small", 3000), ("sub/in", 5000), ("sub/empty", 0), ("z-large", 9 << 20)]
    {
        let mut noise = vec![0u8; size];
        getrandom::fill(&mut noise).unwrap();
        std::fs::write(d.join("data").join(name), noise).unwrap();
    }
    std::os::unix::fs::symlink("m-small", d.join("data/link")).unwrap();
    // Links before, between and behind files; one whose target needs a header of its own, one that leads out.
    let long = "../".repeat(50) + "nowhere";
    for (name, target) in [("sub/aa", "in"), ("sub/fine", long.as_str()), ("sub/zz", "/etc/hostname")] {
        std::os::unix::fs::symlink(target, d.join("data").join(name)).unwrap();
    }
    let (_, made) = fetched(d, &bucket, NOBODY, &["backup", "create", "--files", "data"]);
    let id = made["id"].as_str().unwrap();
    let stored = bucket.keys().iter().filter(|k| k.contains(id)).map(|k| bucket.get(k).unwrap().len()).max().unwrap();
    assert!(stored > 18 << 20);
    let restore = |into: &str, files: &[&str]| {
        let mut args = vec!["backup", "restore", id, "--into", into];
        files.iter().for_each(|f| args.extend(["--file", f]));
        fetched(d, &bucket, NOBODY, &args)
    };
    let (sent, said) = restore("some", &["data/m-small", "data/sub/"]);
    assert!(sent * 4 < stored, "{sent} of {stored} bytes were sent");
    println!("one small file and a folder: {sent} of {stored} bytes");
    assert!(said["fetched_bytes"].as_u64().unwrap() as usize <= sent, "{said}");
    assert_eq!((&said["parity"]["same"], &said["parity"]["bytes"]), (&3.into(), &8000.into()), "{said}");
    for name in ["m-small", "sub/in", "sub/empty"] {
        let there = std::fs::read(d.join("some/data").join(name)).unwrap();
        assert!(there == std::fs::read(d.join("data").join(name)).unwrap(), "{name}");
    }
    assert!(!d.join("some/data/a-large").exists());
    for (name, target) in [("sub/aa", "in"), ("sub/fine", long.as_str()), ("sub/zz", "/etc/hostname")] {
        assert_eq!(std::fs::read_link(d.join("some/data").join(name)).unwrap(), Path::new(target), "{name}");
    }
    assert_eq!(said["parity"]["others"], 4, "a folder and its links: {said}");
    let (sent, _) = restore("large", &["data/z-large"]);
    assert!(sent < stored * 2 / 3 && sent > 9 << 20, "{sent} of {stored}");
    // Damage elsewhere does not matter to it; its own does, and leaves nothing.
    let key = bucket.keys().into_iter().find(|k| k.contains(id) && k.contains("files.tar")).unwrap();
    let good = bucket.get(&key).unwrap();
    let mut bad = good.clone();
    bad[4 << 20] ^= 1;
    bucket.set(&key, bad.clone());
    restore("again", &["data/z-large"]);
    let run = |args: &[&str]| {
        let mut all = vec!["backup", "restore", id, "--into"];
        all.extend_from_slice(args);
        let place = bucket.url_with("team", "");
        let env =
            [("BACKUP_DIR", place.as_str()), ("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
        let out = program(d, NOBODY, &env, &all);
        (out.status.code().unwrap(), text(&out))
    };
    let place = bucket.url_with("team", "");
    let env =
        [("BACKUP_DIR", place.as_str()), ("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    let out = program(d, NOBODY, &env, &["backup", "verify", id]);
    assert!(text(&out).contains("affected: file data/a-large; 4 can still be restored"), "{}", text(&out));
    // A service that stops answering meanwhile loses nothing: then nothing is said of it.
    let at = bucket.url(d, "team") + "&patience=100ms";
    let unlocked = Repository::open(&at).unwrap().unlock(&super::passphrase()).unwrap();
    let manifest = Catalog::load(&unlocked).unwrap().find(id).unwrap().manifest.clone();
    let (asked, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (count, limit) = (asked.clone(), last.clone());
    bucket.rule(move |s| {
        let nth = s.key.contains("files.tar").then(|| count.fetch_add(1, Ordering::SeqCst))?;
        (nth >= limit.load(Ordering::SeqCst)).then_some(Fault::Refuse(403))
    });
    let seen = affected(&unlocked, &manifest).unwrap();
    assert_eq!((seen.lost, seen.readable), (vec!["data/a-large".to_string()], 4));
    last.store(asked.swap(0, Ordering::SeqCst) - 1, Ordering::SeqCst);
    assert_eq!(affected(&unlocked, &manifest), None);
    assert!(asked.load(Ordering::SeqCst) > last.load(Ordering::SeqCst), "the last request was refused");
    bucket.calm();
    let (code, said) = run(&["never", "--file", "data/a-large"]);
    assert!(code == 1 && said.contains("does not authenticate") && !d.join("never").exists(), "{code}: {said}");
    let left = |d: &Path| {
        std::fs::read_dir(d).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().contains("restoring"))
    };
    assert!(!left(d), "nothing half restored is left");
    bucket.set(&key, good);
    for (args, code, says) in [
        (["never", "--file", "m-small"], 2, "Paths begin with the name of a folder that was stored: data"),
        (["never", "--file", "data/link"], 2, "is a link"),
        (["never", "--file", "data/link/"], 2, "is a link"),
        (["some", "--file", "data/m-small"], 4, "it is there"),
        (["never", "--table", "orders"], 2, "--table with backup"),
        (["never", "--schema", "public"], 2, "whole or by --file"),
        (["never", "--tier", "critical"], 2, "whole or by --file"),
    ] {
        let (got, said) = run(&args);
        assert!(got == code && said.contains(says), "{args:?}: {got}: {said}");
    }
    let (code, said) = run(&["never", "--overwrite", "--confirm", "never"]);
    assert!(code == 2 && said.contains("--overwrite with backup") && !d.join("never").exists(), "{code}: {said}");
}

#[test]
fn one_table_of_a_large_dump() {
    let c = cluster();
    c.sql("postgres", "create database rangeddb");
    c.sql(
        "rangeddb",
        "create table big as select n, md5(n || 'a') || md5(n || 'b') || md5(n || 'c') as x from generate_series(1, 160000) n; \
         create table little (id int primary key, t text); \
         insert into little select n, 'row ' || n from generate_series(1, 700) n; \
         create table empty (id int); \
         create sequence s; select setval('s', 42); \
         select lo_from_bytea(0, 'a large object');",
    );
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let at = url(&c, "rangeddb");
    let (_, made) = fetched(d, &bucket, &at, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let key = bucket.keys().into_iter().find(|k| k.contains(id) && k.contains("database.dump")).unwrap();
    let stored = bucket.get(&key).unwrap().len();
    assert!(stored > 6 << 20, "{stored}");
    let (sent, done) = fetched(
        d,
        &bucket,
        &at,
        &["backup", "restore", id, "--into", "ranged_one", "--table", "little", "--table", "empty"],
    );
    assert!(sent * 2 < stored, "{sent} of {stored} bytes were sent");
    println!("one small table: {sent} of {stored} bytes");
    assert_eq!((&done["restored"]["tables"], &done["restored"]["rows"]), (&2.into(), &700.into()), "{done}");
    assert_eq!(c.sql("ranged_one", "select count(*) || ' ' || max(t) from little"), "700 row 99");
    assert_eq!(c.sql("ranged_one", "select count(*) || ' ' || (select last_value from s) from big"), "0 42");
    // The large one, in a folder as in the bucket, by several processes.
    let (_, done) =
        fetched(d, &bucket, &at, &["backup", "restore", id, "--into", "ranged_two", "--table", "big", "-j", "3"]);
    assert_eq!(done["restored"]["rows"], 160_000, "{done}");
    let sum = "select sum(hashtextextended(t::text, 0)::numeric) from big t";
    assert_eq!(c.sql("ranged_two", sum), c.sql("rangeddb", sum));
    // A bit of the other table's rows: not read. One of its own: nothing is made.
    let good = bucket.get(&key).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    bucket.set(&key, bad);
    fetched(d, &bucket, &at, &["backup", "restore", id, "--into", "ranged_three", "--table", "little"]);
    let place = bucket.url_with("team", "");
    let env =
        [("BACKUP_DIR", place.as_str()), ("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    // Verifying says which table it is, and that the others can be had.
    let out = program(d, &at, &env, &["backup", "verify"]);
    let said = text(&out);
    assert!(
        out.status.code() == Some(1) && said.contains("affected: table public.big; 2 can still be restored"),
        "{said}"
    );
    let out = program(d, &at, &env, &["--json", "backup", "verify"]);
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(said["backups"][0]["affected"], serde_json::json!({"lost": ["public.big"], "readable": 2}), "{said}");
    let out = program(d, &at, &env, &["backup", "restore", id, "--into", "ranged_never", "--table", "big"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert_eq!(c.sql("postgres", "select count(*) from pg_database where datname = 'ranged_never'"), "0");
    bucket.set(&key, good);
    // Everything awkward about names, in a folder.
    c.sql("postgres", "create database rangedodd");
    c.sql("rangedodd", "create schema \"S p\"; create table \"S p\".\"t\"\"x; -- y\" as select 1 as one; create table plain as select 2 as two");
    let odd = url(&c, "rangedodd");
    // This cluster has its repository in the bucket: a second one is meant.
    assert_eq!(program(d, &odd, &[], &["backup", "init"]).status.code(), Some(0));
    let made = json(d, &odd, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let done = json(d, &odd, 0, &["backup", "restore", id, "--into", "rangedodd_two", "--schema", "S p"]);
    assert_eq!(done["restored"]["rows"], 1, "{done}");
    assert_eq!(c.sql("rangedodd_two", "select one from \"S p\".\"t\"\"x; -- y\""), "1");
}
