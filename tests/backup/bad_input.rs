//! What people get wrong with backups, each with what the program says.

use std::path::Path;
use std::process::Command;

use breakglass::postgres::Client;

use super::logical::{cluster, json, program, text, url};
use super::{PASSPHRASE, repository};
use crate::bad_input::can_mount;
use crate::support::cluster::{Cluster, programs};

#[track_caller]
fn fails(dir: &Path, url: &str, more: &[(&str, &str)], args: &[&str], code: i32, says: &[&str]) -> String {
    let out = program(dir, url, more, args);
    let said = text(&out);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
    for word in says {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    said
}

const CREATE: [&str; 3] = ["backup", "create", "--logical"];

#[test]
fn environment_and_ids() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d);
    let any = "postgres:///x?user=x&host=/nowhere/at/all";
    let short = fails(d, any, &[("BACKUP_ENCRYPTION_KEY", "hunter2")], &CREATE, 2, &["7 characters", "at least 32"]);
    assert!(!short.contains("hunter2"));
    fails(d, any, &[], &CREATE, 3, &["cannot connect", "/nowhere/at/all"]);
    let zero = [("BACKUP_RETENTION_DAYS", "0")];
    fails(d, any, &zero, &["backup", "cleanup"], 2, &["BACKUP_RETENTION_DAYS", "0 days would remove every backup"]);
    fails(
        d,
        any,
        &[("BACKUP_RETENTION_DAYS", "a month")],
        &["backup", "cleanup"],
        2,
        &["\"a month\"", "number of days"],
    );
    for (keep, says) in [
        ("retention_days = 0", "breakglass.toml:2: repository.retention_days"),
        ("retention_days = 9\ngenerations = {}", "two ways of saying the same"),
        ("generations = { daily = 0, weekly = 0, monthly = 0, yearly = 0 }", "keeps nothing at all"),
    ] {
        std::fs::write(d.join("breakglass.toml"), format!("[repository]\n{keep}\n")).unwrap();
        fails(d, any, &[], &["backup", "cleanup"], 2, &[says]);
    }
    std::fs::remove_file(d.join("breakglass.toml")).unwrap();
    fails(
        d,
        any,
        &[],
        &["backup", "restore", "20260101T0000Z-logical-abcdef", "--into", "x"],
        2,
        &["no backup", "catalog is empty"],
    );
    fails(d, any, &[], &["backup", "verify", "nonsense"], 2, &["no backup \"nonsense\""]);
    fails(
        d,
        any,
        &[("BACKUP_ENCRYPTION_KEY", &PASSPHRASE.replace('c', "k"))],
        &["backup", "list"],
        2,
        &["does not open this repository"],
    );

    // A repository that a newer program made.
    let info = d.join("repo/repository.json");
    let good = std::fs::read_to_string(&info).unwrap();
    std::fs::write(&info, good.replace("\"version\": 1", "\"version\": 2")).unwrap();
    fails(d, any, &[], &["backup", "list"], 1, &["version 2", "reads version 1", "Use a newer breakglass"]);
}

#[test]
fn a_wrong_password_is_not_shown() {
    let c = Cluster::create("password", &[]);
    let hba = "local all secured scram-sha-256\nlocal all all trust\n";
    c.instance.configure(&[("fsync".into(), "off".into())], Some(hba)).unwrap();
    c.instance.start(crate::support::cluster::LIMIT).unwrap();
    c.sql("postgres", "create role secured superuser login password 'the right one'");
    let dir = tempfile::tempdir().unwrap();
    let socket = c.instance.layout.sockets.display().to_string();
    let at = |password: &str| format!("postgres://secured:{password}@/postgres?host={socket}");
    let said = fails(
        dir.path(),
        &at("swordfish%2Bx9"),
        &[],
        &CREATE,
        3,
        &["cannot connect", "password authentication failed"],
    );
    assert!(!said.contains("swordfish"), "{said}");
    assert!(!dir.path().join("repo").exists(), "nothing is made for a database that cannot be read");
    json(dir.path(), &at("the%20right%20one"), 0, &CREATE);
    let said = fails(
        dir.path(),
        &at("x"),
        &[],
        &["backup", "restore", "latest", "--into", &at("swordfish")],
        2,
        &["--into holds a password"],
    );
    assert!(!said.contains("swordfish"), "{said}");
}

#[test]
fn programs_of_another_version() {
    let ours = programs();
    let found = Client::find_in(std::slice::from_ref(&ours.bin_dir), ours.major).unwrap();
    assert_eq!((found.major, found.minor), (ours.major, ours.minor));
    let error = Client::find_in(std::slice::from_ref(&ours.bin_dir), ours.major + 1).unwrap_err().to_string();
    assert!(error.contains("refuses a server newer than itself") && error.contains(&ours.version()), "{error}");
    // Through the program: the folder of the configuration holds an older one.
    let c = cluster();
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["pg_dump", "pg_dumpall", "pg_restore", "psql"] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(bin.join(name), format!("#!/bin/sh\necho '{name} (PostgreSQL) 14.1'\n")).unwrap();
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::write(dir.path().join("breakglass.toml"), "[postgres]\nbin_dir = \"bin\"\n").unwrap();
    fails(dir.path(), &url(&c, "postgres"), &[], &CREATE, 3, &["no pg_dump for a server of version", "found 14.1 in"]);
    assert!(!dir.path().join("repo").exists());
}

#[test]
fn another_cluster_another_database() {
    let c = cluster();
    c.sql("postgres", "create database mine; ");
    c.sql("postgres", "create database other_one");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let made = json(d, &url(&c, "mine"), 0, &CREATE);
    let id = made["id"].as_str().unwrap();
    let over = ["backup", "restore", id, "--into", "other_one", "--overwrite", "--confirm", "other_one"];
    fails(d, &url(&c, "mine"), &[], &over, 4, &["of another database", "--other-database"]);
    let elsewhere = Cluster::start("otherdump", &[]);
    fails(
        d,
        &url(&elsewhere, "postgres"),
        &[],
        &CREATE,
        4,
        &["in the repository of cluster", "Use another repository"],
    );
}

#[test]
fn no_space_and_no_right_to_write() {
    let c = cluster();
    c.sql("postgres", "create database large");
    c.sql(
        "large",
        "create table t as select n, md5(n::text) || md5((n + 1)::text) as x from generate_series(1, 60000) n",
    );
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let url = url(&c, "large");
    std::fs::write(d.join("a file"), "x").unwrap();
    let below = d.join("a file/repo");
    fails(d, &url, &[("BACKUP_DIR", below.to_str().unwrap())], &CREATE, 3, &["Not a directory"]);
    if !can_mount() {
        return;
    }
    std::fs::create_dir(d.join("small")).unwrap();
    let apart = |script: &str, dir: &str, args: &[&str]| {
        let out = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_breakglass")])
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", d)
            .env("BACKUP_DIR", d.join(dir))
            .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
            .env("DATABASE_URL", &url)
            .current_dir(d)
            .output()
            .unwrap();
        (out.status.code(), text(&out))
    };
    // Full in the middle: the catalog lists nothing, and says so from the same disk.
    let small = "mount -t tmpfs -o size=1200k tmpfs small; \"$@\"; code=$?; \"$1\" backup list >&2; ls -a small/backups/* >&2; exit $code";
    let (code, said) = apart(small, "small", &CREATE);
    assert_eq!(code, Some(3), "{said}");
    for word in ["No space left on device", "cleanup --dry-run", "no backups"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains(".tmp-"), "the unfinished object is removed: {said}");
    // The disk with it is gone: what was there is known, and no new one is made.
    let (code, said) = apart("exec \"$@\"", "small", &CREATE);
    assert!(code == Some(4) && said.contains("was there when it was last looked at"), "{said}");
    let read_only = "mount -t tmpfs -o ro tmpfs small; export BREAKGLASS_HOME=\"$PWD/knows nothing\"; exec \"$@\"";
    let (code, said) = apart(read_only, "small", &CREATE);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    // A restore that has no room for the decrypted dump says how much it needs, before anything else.
    let made = json(d, &url, 0, &CREATE);
    let id = made["id"].as_str().unwrap();
    let scratch = d.join("small").display().to_string();
    let restore = ["backup", "restore", id, "--into", "roomy", "--scratch", &scratch];
    let (code, said) = apart("mount -t tmpfs -o size=1M tmpfs small; exec \"$@\"", "repo", &restore);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no space for the decrypted dump") && said.contains("MB are needed"), "{said}");
    let (code, said) = apart(
        "mount -t tmpfs -o size=1M tmpfs small; exec \"$@\"",
        "repo",
        &[&restore[..], &["--ignore-space"]].concat(),
    );
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(
        c.sql(
            "postgres",
            "select count(*) from pg_database where datname = 'roomy' or datname ~ '^breakglass_r.*roomy'"
        ),
        "0"
    );
}
