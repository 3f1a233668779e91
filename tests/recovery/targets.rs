//! Targets of every kind through the real program: where the shadow then stands, and what is said when it cannot.

use std::collections::BTreeMap;
use std::process::Command;

use breakglass::model::target::RecoveryTarget;
use breakglass::postgres::running::running_in;
use breakglass::recovery::shadow::Shadow;

use super::shop::{now, rows, script};
use crate::support::archived::{Archived, PASSPHRASE, said};
use crate::support::cluster::{Cluster, Scratch, programs, psql, server_user};

/// Runs the program against a cluster and its repository; exit code, and everything it said.
fn go(a: &Archived, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    said(a.command(args).envs(env.iter().copied()))
}

#[test]
fn names_sub_transactions_after_and_on_to_a_later_moment() {
    let a = Archived::start("targets");
    let db = a.cluster.database("postgres");
    script(&db, "create table t (n int)");
    a.base_backup();
    script(
        &db,
        "insert into t values (1); select pg_create_restore_point('before release'); insert into t values (2);",
    );
    let sub = script(
        &db,
        "begin; insert into t values (3); savepoint s; insert into t values (4); select xmin from t where n = 4; commit;",
    );
    let top = script(&db, "select xmin from t where n = 3");
    let at = script(
        &db,
        "select to_char(pg_xact_commit_timestamp(xmin) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from t where n = 3",
    );
    assert_ne!(sub, top);
    script(&db, "insert into t values (5);");
    script(&db, "insert into t values (6);");
    a.archive_now();
    let root = a.room.path.join("shadow");
    let dir = root.display().to_string();

    let (code, text) = go(&a, &["pitr", "restore", "--to", "name:before release", "--dir", &dir], &[]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(rows(&root), "1");
    // On to a sub-transaction: PostgreSQL would replay everything and then fail; its transaction is meant.
    let (code, text) = go(&a, &["pitr", "advance", "--shadow", &dir, "--to", &format!("xid:{sub}")], &[]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(rows(&root), "1,2");
    let (code, text) = go(&a, &["pitr", "check", "--to", "name:before relase"], &[]);
    assert!(
        code == 1 && text.contains("the restore points in it, the newest first: \"before release\""),
        "{code}: {text}"
    );
    let (code, text) = go(&a, &["pitr", "advance", "--shadow", &dir, "--to", "name:before release"], &[]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("recovery only moves forward"), "{text}");
    assert_eq!(rows(&root), "1,2", "and it stands where it stood");
    let (code, text) = go(&a, &["pitr", "advance", "--shadow", &dir, "--to-after", &format!("xid:{top}")], &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("stands after xid:"), "{text}");
    assert_eq!(rows(&root), "1,2,3,4");
    let (code, text) = go(&a, &["pitr", "advance", "--shadow", &dir, "--to", "latest"], &[]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(rows(&root), "1,2,3,4,5,6");
    let (code, text) = go(&a, &["pitr", "discard", "--shadow", &dir], &[]);
    assert_eq!(code, 0, "{text}");
    assert!(!root.exists());

    // After a time: a commit of exactly that time is part of it; before it is not.
    for (flag, wanted) in [("--to", "1,2"), ("--to-after", "1,2,3,4")] {
        let root = a.room.path.join(format!("shadow{flag}"));
        let dir = root.display().to_string();
        let (code, text) = go(&a, &["pitr", "restore", flag, &format!("time:{at}"), "--dir", &dir], &[]);
        assert_eq!(code, 0, "{text}");
        assert_eq!(rows(&root), wanted, "{flag} {at}");
        let (code, text) = go(&a, &["pitr", "discard", "--shadow", &dir], &[]);
        assert_eq!(code, 0, "{text}");
    }
}

#[test]
fn what_cannot_be_recovered_to_is_said_before_anything_is_touched() {
    let a = Archived::start("refused");
    let db = a.cluster.database("postgres");
    script(&db, "create table t (n int)");
    let early = now(&db);
    a.base_backup();
    script(&db, "insert into t values (1);");
    a.archive_now();
    let root = a.room.path.join("shadow");
    let dir = root.display().to_string();
    let refused = |args: &[&str], env: &[(&str, &str)], code: i32, says: &[&str]| {
        let mut all = vec!["pitr", "restore"];
        all.extend(args);
        if !args.contains(&"--dir") {
            all.extend(["--dir", &dir]);
        }
        let (got, text) = go(&a, &all, env);
        assert_eq!(got, code, "{args:?}: {text}");
        for s in says {
            assert!(text.contains(s), "{args:?}: {s:?} is not in {text}");
        }
        assert!(!root.exists(), "{args:?} touched something");
    };
    refused(
        &["--to", "2026-11-20 14:01:07"],
        &[("TZ", "Europe/Berlin")],
        2,
        &[
            "does not say in which time zone",
            "UTC: --to 2026-11-20T14:01:07Z",
            "Europe/Berlin): --to 2026-11-20T13:01:07Z",
        ],
    );
    refused(&["--to", "time:2026-11-20T14:01:07"], &[("TZ", "UTC")], 2, &["UTC: --to 2026-11-20T14:01:07Z"]);
    refused(
        &["--to", "yesterday"],
        &[],
        2,
        &[
            "\"yesterday\" is not a time with a zone",
            "--to 2026-11-20T14:01:07Z",
            "--to lsn:0/5A2F118",
            "--to xid:73114",
            "--to name:before_release",
            "--to latest",
        ],
    );
    refused(&["--to", ""], &[], 2, &["no moment is chosen", "pitr locate"]);
    refused(&[], &[], 2, &["--to <MOMENT>"]);
    refused(&["--to", "latest", "--to-after", "latest"], &[], 2, &["cannot be used with"]);
    refused(&["--to-after", "latest"], &[], 2, &["there is nothing after"]);
    refused(&["--to", "time:2099-01-01T00:00:00Z"], &[], 4, &["it is in the future", "--to latest"]);
    refused(
        &["--to", &format!("time:{early}")],
        &[],
        4,
        &["before the oldest base backup", "the earliest point is time:"],
    );
    refused(
        &["--to", "name:nowhere"],
        &[],
        4,
        &["no restore point of this name", "the unbroken log ends with segment"],
    );
    refused(&["--to", "xid:4000000000"], &[], 4, &["its commit is not in the archived log", "rolled back"]);
    refused(&["--to", "lsn:FF/0"], &[], 4, &["beyond the end of the archived log"]);

    // A server that runs on the folder, by its data directory and by the folder above.
    let own = a.cluster.root().display().to_string();
    let data = a.cluster.instance.layout.data.display().to_string();
    for d in [&own, &data] {
        refused(&["--to", "latest", "--dir", d], &[], 4, &["a server is running on", "was not touched"]);
    }
    // Another cluster than the repository's.
    let other = Cluster::start("other", &[]);
    let url = other.database("postgres").url();
    refused(
        &["--to", "latest"],
        &[("DATABASE_URL", &url)],
        4,
        &["the repository holds cluster", "the database that answers is of cluster"],
    );

    // A second tablespace: named before a backup is begun.
    let room = Scratch::new("space");
    let space = room.path.join("fast");
    breakglass::postgres::user::own_dir(&space, server_user().as_ref()).unwrap();
    psql(&db, &format!("create tablespace fast location '{}'", space.display())).unwrap();
    let (code, text) = go(&a, &["backup", "create"], &[]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("more than one tablespace") && text.contains("\"fast\""), "{text}");
    psql(&db, "drop tablespace fast").unwrap();
    let _ = programs();

    // A disk that is too small.
    if crate::bad_input::can_mount() {
        let small = a.room.path.join("small");
        std::fs::create_dir(&small).unwrap();
        let inner = format!(
            "mount -t tmpfs -o size=40m tmpfs {small} && exec {program} pitr restore --to latest --dir {small}/s",
            small = small.display(),
            program = env!("CARGO_BIN_EXE_breakglass")
        );
        let out = Command::new("unshare")
            .args(["-m", "sh", "-c", &inner])
            .env("DATABASE_URL", db.url())
            .env("BACKUP_DIR", &a.repository)
            .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
            .env("BREAKGLASS_HOME", a.room.path.join("state"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(4), "{text}");
        for s in ["not enough space", "MB are needed", "MB are free", "--ignore-space", "instances_dir"] {
            assert!(text.contains(s), "{s:?} is not in {text}");
        }
        assert!(!text.contains("restoring base backup"), "{text}");
    }
}

/// Replay makes the tablespaces of the log where the source has them: the recovered instance would write into its files.
#[test]
fn a_tablespace_in_the_log_ends_a_recovery_before_it_touches_the_sources_files() {
    let a = Archived::start("tablespace");
    let db = a.cluster.database("postgres");
    script(&db, "create table t (n int); insert into t values (1)");
    a.base_backup();
    // What a database says of transactions does not hold for ours: a hot standby takes no serializable ones.
    script(&db, "alter database postgres set default_transaction_isolation = 'serializable'; insert into t values (2)");
    let place = a.room.path.join("fast");
    std::fs::create_dir(&place).unwrap();
    if let Some(user) = server_user() {
        std::os::unix::fs::chown(&place, Some(user.uid), Some(user.gid)).unwrap();
    }
    script(&db, "select pg_create_restore_point('before fast')");
    script(&db, &format!("create tablespace fast location '{}'", place.display()));
    script(&db, "create table f tablespace fast as select generate_series(1, 20000) n; delete from f; checkpoint");
    script(&db, "vacuum f; insert into f select 7; checkpoint");
    a.archive_now();
    let files = || {
        let mut all = BTreeMap::new();
        let mut folders = vec![place.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => drop(all.insert(entry.path(), std::fs::read(entry.path()).unwrap())),
                }
            }
        }
        all
    };
    let before = files();
    assert!(!before.is_empty());
    let root = a.room.path.join("shadow");
    let dir = root.display().to_string();
    let (code, text) = go(&a, &["pitr", "restore", "--to", "latest", "--dir", &dir], &[]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("creates a tablespace") && text.contains(&place.display().to_string()), "{text}");
    assert!(before == files(), "the source's files were changed");
    assert!(running_in(&root).is_none() && !root.exists(), "nothing was begun: {text}");
    // The last moment before it works as it is offered, also by the time of what was committed next: the tablespace's own record lies
    // before that.
    let word = |text: &str, kind: &str| {
        let found =
            text.split_whitespace().find(|w| w.starts_with(kind)).unwrap_or_else(|| panic!("no {kind} in {text}"));
        found.trim_end_matches(',').to_string()
    };
    let sql = "begin isolation level read committed; select string_agg(n::text, ',' order by n) from t; commit";
    for to in ["name:before fast".to_string(), word(&text, "lsn:"), word(&text, "time:")] {
        let (code, text) = go(&a, &["pitr", "check", "--to", &to], &[]);
        assert_eq!(code, 0, "{to}: {text}");
        let (code, text) = go(&a, &["pitr", "restore", "--to", &to, "--dir", &dir], &[]);
        assert_eq!(code, 0, "{to}: {text}");
        let shadow = Shadow::load(&root).unwrap();
        assert_eq!(psql(&shadow.database("postgres").unwrap(), sql).unwrap(), "1,2", "{to}");
        assert_eq!(go(&a, &["pitr", "discard", "--shadow", &dir], &[]).0, 0);
    }
    // Whoever is asked says the same: before the log is in the index, and after.
    let at = format!("xid:{}", script(&db, "select xmin from f limit 1"));
    for indexed in [false, true] {
        if indexed {
            assert_eq!(go(&a, &["wal", "index"], &[]).0, 0);
            for look in [&["wal", "status"][..], &["health"]] {
                let (code, text) = go(&a, look, &[]);
                assert!(code == 1 && text.contains("creates a tablespace"), "{look:?} {code}: {text}");
            }
        }
        for check in [&["--to", "latest"][..], &["--to", "latest", "--deep"], &["--to", &at]] {
            let (code, text) = go(&a, &[&["pitr", "check"], check].concat(), &[]);
            assert!(code == 1 && text.contains("creates a tablespace"), "{check:?} {code}: {text}");
        }
        let (code, text) = go(&a, &["pitr", "range"], &[]);
        assert!(code == 1 && text.contains("ENDS AT   the log creates a tablespace"), "{code}: {text}");
    }
    let (_, text) = go(&a, &["doctor"], &[]);
    assert!(text.contains("tablespaces beside the cluster's own: fast"), "{text}");

    // Behind it, a new base backup leads on.
    script(&db, "drop table f; drop tablespace fast;");
    a.base_backup();
    script(&db, "insert into t values (3)");
    a.archive_now();
    for good in [&["pitr", "check", "--to", "latest"][..], &["wal", "index"], &["wal", "status"]] {
        let (code, text) = go(&a, good, &[]);
        assert_eq!(code, 0, "{good:?}: {text}");
    }
}

#[test]
fn a_leap_second_is_not_taken_for_the_second_before() {
    for text in ["2026-11-20T14:01:60Z", "20261120T140160Z", "2026-11-20 14:01:60.5+02"] {
        let e = format!("time:{text}").parse::<RecoveryTarget>().unwrap_err();
        assert!(e.contains("second 60"), "{text}: {e}");
    }
    assert!("time:2026-11-20T14:01:06Z".parse::<RecoveryTarget>().is_ok());
}

#[test]
fn without_commit_times_the_log_still_tells() {
    let a = Archived::start_with("untimed", |_| vec![("track_commit_timestamp", "off".into())]);
    let db = a.cluster.database("postgres");
    script(&db, "create table t (n int); insert into t select generate_series(1, 5000)");
    a.base_backup();
    script(&db, "insert into t values (0)");
    script(&db, "update t set n = n + 1");
    a.archive_now();
    let (code, text) = go(&a, &["pitr", "locate"], &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("records no commit times") && text.contains("public.t"), "{text}");
    for look in [&["doctor"][..], &["assess"], &["health"]] {
        let (_, text) = go(&a, look, &[]);
        assert!(!text.contains("could not get commit timestamp"), "{look:?}: {text}");
    }
    let dir = a.room.path.join("shadow").display().to_string();
    let (code, text) = go(&a, &["pitr", "restore", "--to", "latest", "--dir", &dir], &[]);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("does not answer"), "{text}");
}
