//! Killed at any system call whatever, drawn at random, while a backup is made, restored, cleaned up or its key rotated: the
//! catalog is as before or as after, the target too, and a re-run completes. A few points by default; 50 of each with
//! BREAKGLASS_SOAK=1. Those where something is made durable or named are in `killed`, one by one.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use breakglass::backup::catalog::{BackupKind, Catalog};
use breakglass::backup::repository::{Repository, Unlocked};
use breakglass::model::Secret;

use super::faults::{NEW, old_backups, strace, traced};
use super::logical::{cluster, json, program, text, url};
use super::{NOBODY, PASSPHRASE, passphrase, repository};

fn points() -> usize {
    if std::env::var_os("BREAKGLASS_SOAK").is_some() { 50 } else { 2 }
}

/// That kills still hit in this round: a program that ends before each of them would be killed at for ever.
fn bounded(round: usize, kills: usize) {
    assert!(round < 40 * points(), "only {kills} kills in {round} rounds");
}

/// A number below `n`, another one every time; what was drawn stands in the message of a failure.
fn draw(n: u64) -> u64 {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % n.max(1)
}

/// How many system calls the busiest thread of a run makes that nothing befalls.
fn calls(dir: &Path, url: &str, more: &[(&str, &str)], args: &[&str]) -> u64 {
    let trace = dir.join("trace");
    let options = ["-o", trace.to_str().unwrap()];
    assert!(traced(dir, url, more, &options, args).success(), "{args:?}");
    let mut by_thread: BTreeMap<String, u64> = BTreeMap::new();
    for line in String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).lines() {
        *by_thread.entry(line.split(' ').next().unwrap_or("").to_string()).or_default() += 1;
    }
    by_thread.into_values().max().unwrap()
}

/// Killed at the n-th system call of any of its threads. `true` when it was, and not one of its children.
fn killed(dir: &Path, url: &str, more: &[(&str, &str)], n: u64, args: &[&str]) -> (bool, bool) {
    let inject = format!("inject=all:signal=KILL:when={}", n + 1);
    let status = traced(dir, url, more, &["-o", "/dev/null", "-e", &inject], args);
    (status.signal() == Some(9), status.success())
}

fn open(dir: &Path, key: &Secret) -> Option<Unlocked> {
    Repository::open(dir.join("repo").to_str().unwrap()).unwrap().unlock(key).ok()
}

#[test]
fn backups_exist_wholly_or_not_at_all() {
    if !strace() {
        return;
    }
    let c = cluster();
    c.sql("postgres", "create database rk1");
    c.sql("rk1", "create table t as select n, md5(n::text) as x from generate_series(1, 5000) n");
    let url = url(&c, "rk1");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content".repeat(100_000)).unwrap();
    let kinds: [&[&str]; 2] = [&["backup", "create", "--logical"], &["backup", "create", "--files", "data"]];
    let most = kinds.map(|args| calls(d, &url, &[], args));
    let (mut kills, mut before) = (0, Catalog::load(&open(d, &passphrase()).unwrap()).unwrap().backups.len());
    for round in 0.. {
        if kills >= points() {
            break;
        }
        bounded(round, kills);
        let kind = usize::try_from(draw(2)).unwrap();
        let n = draw(most[kind]);
        let (died, done) = killed(d, &url, &[], n, kinds[kind]);
        let catalog = Catalog::load(&open(d, &passphrase()).unwrap()).unwrap();
        let now = catalog.backups.len();
        assert!(now == before || now == before + 1, "{:?} at call {n}: {before} then {now}", kinds[kind]);
        assert!(!done || now == before + 1, "{:?} at call {n}: acknowledged and not there", kinds[kind]);
        if now > before {
            json(d, &url, 0, &["backup", "verify", &catalog.backups[now - 1].manifest.id]);
        }
        before = now;
        kills += usize::from(died);
    }
    for args in kinds {
        json(d, &url, 0, args);
    }
    json(d, &url, 0, &["backup", "verify", "--all"]);
    println!("create: {kills} kills at random calls of {most:?}, {before} backups in the catalog");
}

#[test]
fn a_restore_is_there_whole_or_not_at_all() {
    if !strace() {
        return;
    }
    let c = cluster();
    c.sql("postgres", "create database rk2");
    c.sql("rk2", "create table t as select n from generate_series(1, 3000) n; create index on t (n)");
    let url = url(&c, "rk2");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content".repeat(100_000)).unwrap();
    let dump = json(d, &url, 0, &["backup", "create", "--logical"])["id"].as_str().unwrap().to_string();
    let files = json(d, &url, 0, &["backup", "create", "--files", "data"])["id"].as_str().unwrap().to_string();
    let most = [
        calls(d, &url, &[], &["backup", "restore", &dump, "--into", "rk2_counted"]),
        calls(d, &url, &[], &["backup", "restore", &files, "--into", "counted"]),
    ];
    let (mut kills, mut whole) = (0, 0);
    for turn in 0.. {
        if kills >= points() {
            break;
        }
        bounded(turn, kills);
        let into = format!("rk2_{turn}");
        let kind = usize::try_from(draw(2)).unwrap();
        let n = draw(most[kind]);
        let id = [&dump, &files][kind];
        let (died, done) = killed(d, &url, &[], n, &["backup", "restore", id, "--into", &into]);
        let there = match kind {
            0 => c.sql("postgres", &format!("select count(*) from pg_database where datname = '{into}'")) == "1",
            _ => d.join(&into).exists(),
        };
        assert!(!done || there, "{into} at call {n}: acknowledged and not there");
        if there && kind == 0 {
            assert_eq!(
                c.sql(
                    &into,
                    "select count(*) || ' ' || (select count(*) from pg_indexes where tablename = 't') from t"
                ),
                "3000 1"
            );
        } else if there {
            let same =
                std::fs::read(d.join(&into).join("data/file")).unwrap() == std::fs::read(d.join("data/file")).unwrap();
            assert!(same, "{into} at call {n}");
        }
        whole += usize::from(there);
        kills += usize::from(died);
        if there && kind == 0 {
            c.sql("postgres", &format!("drop database {into}"));
        }
    }
    // What killed ones left is removed by the next one, which completes.
    let out = program(d, &url, &[], &["backup", "restore", &dump, "--into", "rk2_last"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert_eq!(c.sql("rk2_last", "select count(*) from t"), "3000");
    json(d, &url, 0, &["backup", "restore", &files, "--into", "last"]);
    println!("restore: {kills} kills at random calls of {most:?}, {whole} were there already");
}

#[test]
fn a_cleanup_is_finished_by_the_next() {
    if !strace() {
        return;
    }
    let first = tempfile::tempdir().unwrap();
    old_backups(first.path());
    let most = calls(first.path(), NOBODY, &[], &["backup", "cleanup"]);
    let mut kills = 0;
    for round in 0.. {
        if kills >= points() {
            break;
        }
        bounded(round, kills);
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        old_backups(d);
        let n = draw(most);
        let (died, done) = killed(d, NOBODY, &[], n, &["backup", "cleanup"]);
        let left = Catalog::load(&open(d, &passphrase()).unwrap()).unwrap().backups.len();
        assert!((1..=4).contains(&left) && (!done || left == 1), "call {n}: {left} are left");
        json(d, NOBODY, 0, &["backup", "verify", "--all"]);
        json(d, NOBODY, 0, &["backup", "cleanup"]);
        assert_eq!(Catalog::load(&open(d, &passphrase()).unwrap()).unwrap().backups.len(), 1, "call {n}");
        assert_eq!(std::fs::read_dir(d.join("repo/backups")).unwrap().count(), 1, "call {n}");
        kills += usize::from(died);
    }
    println!("cleanup: {kills} kills at random calls of {most}");
}

#[test]
fn a_rotation_leaves_the_old_key_or_the_new_one() {
    if !strace() {
        return;
    }
    let new = [("BACKUP_NEW_ENCRYPTION_KEY", NEW)];
    let args = ["backup", "rotate-key", "--new-key-pair"];
    let first = tempfile::tempdir().unwrap();
    repository(first.path());
    let most = calls(first.path(), NOBODY, &new, &args);
    let mut kills = 0;
    for round in 0.. {
        if kills >= points() {
            break;
        }
        bounded(round, kills);
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        let (_, u, _) = repository(d);
        u.write_own(BackupKind::Files.object_type(), "backups/x/data.bgo", b"from before").unwrap();
        let n = draw(most);
        let (died, done) = killed(d, NOBODY, &new, n, &args);
        let opens = [passphrase(), Secret::new(NEW)].map(|key| open(d, &key).is_some());
        assert!(opens[0] != opens[1] && (!done || opens[1]), "call {n}: {opens:?}");
        let key = [("BACKUP_ENCRYPTION_KEY", if opens[0] { PASSPHRASE } else { NEW }), new[0]];
        let again = program(d, NOBODY, &key, &["backup", "rotate-key"]);
        let nothing_left = again.status.code() == Some(2) && opens[1] && text(&again).contains("has already");
        assert!(nothing_left || again.status.code() == Some(0), "call {n}: {}", text(&again));
        let u = open(d, &Secret::new(NEW)).unwrap();
        let (bytes, _) = u.read_own(BackupKind::Files.object_type(), "backups/x/data.bgo", 100).unwrap().unwrap();
        assert_eq!(bytes, b"from before", "old backups stay readable");
        kills += usize::from(died);
    }
    println!("rotate-key: {kills} kills at random calls of {most}");
}
