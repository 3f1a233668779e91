//! Killed at the calls that matter while a dump is made, restored, cleaned up or its key rotated: the catalog is as before
//! or as after, the target too, and a re-run completes. A sample by default; every point with BREAKGLASS_SOAK=1.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use breakglass::backup::catalog::Catalog;
use breakglass::backup::repository::Repository;
use breakglass::model::Secret;

use super::faults::{NEW, old_backups, strace, traced};
use super::logical::{cluster, json, program, text, url};
use super::{NOBODY, passphrase, repository};

/// How far apart the points are; every one in a soak.
fn step(usual: usize) -> usize {
    if std::env::var_os("BREAKGLASS_SOAK").is_some() { 1 } else { usual }
}

/// The program, killed when one of its threads makes this call for the n-th time.
fn killed(dir: &Path, url: &str, more: &[(&str, &str)], call: &str, n: usize, args: &[&str]) -> ExitStatus {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={n}"));
    traced(dir, url, more, &["-o", "/dev/null", "-e", &trace, "-e", &inject], args)
}

fn unlocked(dir: &Path) -> breakglass::backup::repository::Unlocked {
    Repository::open(dir.join("repo").to_str().unwrap()).unwrap().unlock(&passphrase()).unwrap()
}

#[test]
fn a_dump_exists_wholly_or_not_at_all() {
    if !strace() {
        return;
    }
    let c = cluster();
    c.sql("postgres", "create database kill1");
    c.sql("kill1", "create table t as select n, md5(n::text) as x from generate_series(1, 20000) n");
    let url = url(&c, "kill1");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d);
    let (mut kills, mut before) = (0, 0);
    for (call, apart) in [("fsync", 4), ("renameat2", 1)] {
        for n in (1..).step_by(step(apart)) {
            let status = killed(d, &url, &[], call, n, &["backup", "create", "--logical"]);
            let catalog = Catalog::load(&unlocked(d)).unwrap();
            let now = catalog.backups.len();
            assert!(now == before || now == before + 1, "{call} {n}: {before} then {now}");
            if now > before {
                json(d, &url, 0, &["backup", "verify", &catalog.backups[now - 1].manifest.id]);
            }
            before = now;
            if status.success() {
                break;
            }
            kills += usize::from(status.signal() == Some(9));
            assert!(n < 100, "{call} never ends");
        }
    }
    assert!(kills >= 4, "only {kills} were killed");
    json(d, &url, 0, &["backup", "create", "--logical"]);
    json(d, &url, 0, &["backup", "verify", "--all"]);
}

#[test]
fn a_killed_restore_leaves_the_old_database_or_the_new_one() {
    if !strace() {
        return;
    }
    let c = cluster();
    c.sql("postgres", "create database kill2");
    c.sql("kill2", "create table t as select n from generate_series(1, 2000) n; create table u as select 1 as one");
    let url = url(&c, "kill2");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d);
    let made = json(d, &url, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    c.sql("kill2", "insert into t values (0)");
    let args = ["backup", "restore", id, "--into", "kill2", "--overwrite", "--confirm", "kill2", "--jobs", "1"];
    let (mut kills, mut finished) = (0, false);
    for n in (1..).step_by(step(9)) {
        let status = killed(d, &url, &[], "sendto", n, &args);
        let rows = c.sql("kill2", "select count(*) from t");
        let kept = c.sql("postgres", "select count(*) from pg_database where datname like 'kill2_before_%'");
        match kept.as_str() {
            "0" => assert_eq!(rows, "2001", "killed at message {n}: the old one as it was"),
            _ => {
                assert_eq!(rows, "2000", "killed at message {n}: the new one, whole");
                finished = true;
            }
        }
        kills += usize::from(status.signal() == Some(9));
        if finished {
            break;
        }
        assert!(!status.success() && n < 400, "{n}: {status:?}");
    }
    assert!(kills >= 3, "only {kills} were killed");
    // What killed ones left is removed by the next one, which completes.
    let out = program(d, &url, &[], &["backup", "restore", id, "--into", "kill2_again"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let left = "select count(*) from pg_database d where datname like 'breakglass\\_restoring%' and not exists (select from \
                pg_locks l where l.locktype = 'advisory' and l.database is not null and l.pid <> pg_backend_pid())";
    assert_eq!(c.sql("postgres", left), "0");
    assert_eq!(c.sql("kill2_again", "select count(*) from t"), "2000");
}

#[test]
fn a_killed_cleanup_is_finished_by_the_next() {
    if !strace() {
        return;
    }
    let mut kills = 0;
    for (call, apart) in [("unlink", 2), ("renameat2", 1)] {
        for n in (1..).step_by(step(apart)) {
            let dir = tempfile::tempdir().unwrap();
            let d = dir.path();
            let u = old_backups(d);
            let status = killed(d, NOBODY, &[], call, n, &["backup", "cleanup"]);
            // Whatever the catalog still lists is whole.
            let left = Catalog::load(&u).unwrap().backups.len();
            assert!((1..=4).contains(&left));
            json(d, NOBODY, 0, &["backup", "verify", "--all"]);
            json(d, NOBODY, 0, &["backup", "cleanup"]);
            assert_eq!(Catalog::load(&u).unwrap().backups.len(), 1, "the last one stays");
            assert_eq!(std::fs::read_dir(d.join("repo/backups")).unwrap().count(), 1, "{call} {n}");
            if status.success() {
                break;
            }
            kills += usize::from(status.signal() == Some(9));
            assert!(n < 60, "{call} never ends");
        }
    }
    assert!(kills >= 4, "only {kills} were killed");
}

#[test]
fn a_killed_rotation_opens_with_the_old_key_or_the_new_one() {
    if !strace() {
        return;
    }
    let mut kills = 0;
    for call in ["fsync", "rename", "renameat2", "write"] {
        for n in (1..).step_by(step(2)) {
            let dir = tempfile::tempdir().unwrap();
            let d = dir.path();
            repository(d);
            let new = [("BACKUP_NEW_ENCRYPTION_KEY", NEW)];
            let args = ["backup", "rotate-key", "--new-key-pair", "--new-recipient", "safe.key"];
            let status = killed(d, NOBODY, &new, call, n, &args);
            let repo = Repository::open(d.join("repo").to_str().unwrap()).unwrap();
            let opens = [passphrase(), Secret::new(NEW)].map(|key| repo.unlock(&key).is_ok());
            assert!(opens[0] != opens[1], "{call} {n}: {opens:?}");
            // The same command, with the same variables, comes to its end whatever was done by then.
            let again = program(d, NOBODY, &new, &args);
            assert_eq!(again.status.code(), Some(0), "{call} {n}: {}", text(&again));
            assert_eq!(text(&again).contains("already, by an earlier run"), opens[1], "{call} {n}: {}", text(&again));
            assert!(text(&again).contains("set BACKUP_ENCRYPTION_KEY to the new one"), "{}", text(&again));
            let with_new = [("BACKUP_ENCRYPTION_KEY", NEW)];
            assert_eq!(program(d, NOBODY, &with_new, &["backup", "list"]).status.code(), Some(0));
            let opened = Repository::open(d.join("repo").to_str().unwrap()).unwrap();
            let unlocked = opened.unlock(&Secret::new(NEW)).unwrap();
            assert_eq!(unlocked.identities().last().unwrap().public(), opened.public_key(), "{call} {n}");
            assert_eq!(opened.key_file().unwrap().recipients(), 1, "{call} {n}");
            let safe = [("BACKUP_ENCRYPTION_KEY", ""), ("BACKUP_IDENTITY_FILE", "safe.key")];
            assert_eq!(program(d, NOBODY, &safe, &["backup", "list"]).status.code(), Some(0), "{call} {n}");
            if status.success() {
                break;
            }
            kills += usize::from(status.signal() == Some(9));
            assert!(n < 60, "{call} never ends");
        }
    }
    assert!(kills >= 4, "only {kills} were killed");
}
