//! `wal status` with a live server: lag, failures, slots, the disk.

use std::io::{BufRead, Read};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Instant;

use breakglass::backup::keys::KdfCost;
use breakglass::backup::repository::{InitOptions, Repository};
use breakglass::model::Secret;

use crate::support::archived::{Archived, PASSPHRASE, said};
use crate::support::cluster::{LIMIT, psql, server_user};

/// Whoever makes a repository as root does not archive into it: the server does.
#[test]
fn the_folder_of_the_log_belongs_to_the_servers_user() {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("repository");
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(["backup", "init"]).env("BACKUP_DIR", &repository).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE);
    assert!(c.env("BREAKGLASS_HOME", dir.path()).status().unwrap().success());
    let wanted = server_user().map_or(rustix::process::getuid().as_raw(), |u| u.uid);
    assert_eq!(std::fs::metadata(repository.join("wal")).unwrap().uid(), wanted);
}

#[test]
fn the_servers_side_of_the_archive_is_told_and_a_failing_archiver_is_a_problem() {
    let a = Archived::start("walstatus");
    let db = a.cluster.database("postgres");
    psql(&db, "create table t as select i, repeat('x', 500) from generate_series(1, 5000) i").unwrap();
    psql(&db, "select pg_create_physical_replication_slot('forgotten', true)").unwrap();
    a.archive_now();
    let status = |json: bool, url: &str| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(["wal", "status", "--repository"]).arg(&a.repository).env("DATABASE_URL", url);
        if json {
            c.arg("--json");
        }
        said(&mut c)
    };
    let (code, text) = status(true, &db.url());
    assert_eq!(code, 0, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let server = &json["server"];
    assert_eq!((&server["archive_mode"], &server["timeline"]), (&"on".into(), &1.into()), "{json:#}");
    assert!(server["lag_bytes"].as_u64().unwrap() < 1 << 20, "{json:#}");
    assert!(server["free_bytes"].as_u64().unwrap() > 0 && server["full_in_ms"].as_u64().unwrap() > 0, "{json:#}");
    assert!(server["wal_bytes"].as_u64().unwrap() >= 1 << 20);
    assert_eq!(server["slots"][0]["name"], "forgotten");

    // The repository of another cluster: how far one is behind the other says nothing.
    let other = a.room.path.join("other").display().to_string();
    let options = InitOptions { kdf: KdfCost { memory_kib: 64, passes: 1, lanes: 1 }, ..InitOptions::default() };
    Repository::init(&other, &Secret::new(PASSPHRASE), &options).unwrap().bind_cluster(4711, Some(1 << 20)).unwrap();
    let (code, text) = said(a.command(&["--json", "wal", "status"]).env("BACKUP_DIR", &other));
    assert_eq!(code, 1, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let problem = json["problems"][0].as_str().unwrap();
    assert!(problem.contains("the repository holds cluster 4711") && problem.contains("BACKUP_DIR"), "{json:#}");
    assert!(json["server"]["lag_bytes"].is_null() && json["not_held"].is_null(), "{json:#}");

    // The archive stops taking anything: what piles up shows, and who is to blame.
    psql(&db, "alter system set archive_command = 'false'").unwrap();
    psql(&db, "select pg_reload_conf()").unwrap();
    for _ in 0..3 {
        psql(&db, "insert into t select i, repeat('y', 900) from generate_series(1, 2000) i; select pg_switch_wal()")
            .unwrap();
    }
    let deadline = Instant::now() + LIMIT;
    while psql(&db, "select failed_count > 0 and last_failed_time > last_archived_time from pg_stat_archiver").unwrap()
        != "t"
    {
        assert!(Instant::now() < deadline, "the archiver does not fail");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let (code, text) = status(false, &db.url());
    assert_eq!(code, 1, "{text}");
    for s in [
        "PROBLEM archiving fails, last with 0000000",
        "segments wait",
        "slot \"forgotten\" keeps",
        "it can fill the disk",
        "if archiving stops",
    ] {
        assert!(text.contains(s), "{s:?} is not in {text}");
    }
    // A base backup that waits for the archive says why, and ends once it works again.
    let mut c = Command::new("sh");
    c.args(["-c", "exec timeout 120 \"$0\" backup create --physical 2>&1", env!("CARGO_BIN_EXE_breakglass")]);
    c.env("DATABASE_URL", db.url()).env("BACKUP_DIR", &a.repository).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE);
    c.env("BREAKGLASS_HOME", a.room.path.join("state")).stdout(std::process::Stdio::piped());
    let mut child = c.spawn().unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    while !said.contains("archiving fails at 0000000") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    psql(&db, "alter system reset archive_command").unwrap();
    psql(&db, "select pg_reload_conf()").unwrap();
    lines.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    psql(&db, "alter system set archive_command = 'false'").unwrap();
    psql(&db, "select pg_reload_conf()").unwrap();
    // Without the server, what the repository says remains; what it alone knows is not known, and the exit status says so.
    let (code, text) = status(false, "postgres://nobody@127.0.0.1:1/none");
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("timeline 1:") && text.contains("server: cannot connect"), "{text}");
    assert!(text.contains("NOT KNOWN without it: whether it archives"), "{text}");
}
