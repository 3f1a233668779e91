//! The log and the backups of a server in a bucket that misbehaves, from the first archived segment to a recovery to a moment,
//! through the program.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use breakglass::backup::wal::archive_command;

use super::PASSPHRASE;
use super::logical::text;
use super::wal::{segment, write_segment};
use crate::support::bucket::{ACCESS_KEY, Bucket, Fault, SECRET_KEY, credentials};
use crate::support::cluster::{Cluster, LIMIT, Scratch, server_user};

/// The program with nothing in its environment but the key and what is named: the bucket's credentials are in a file.
fn command(dir: &Path, env: &[(&str, &str)], args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(args).env_clear().env("HOME", dir).env("BREAKGLASS_HOME", dir.join("state"));
    c.env("BACKUP_ENCRYPTION_KEY", PASSPHRASE).envs(env.iter().copied()).current_dir(dir);
    c
}

#[track_caller]
fn ends(dir: &Path, env: &[(&str, &str)], args: &[&str], code: i32) -> Output {
    let out = command(dir, env, args).output().unwrap();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
    assert!(!text(&out).contains(SECRET_KEY));
    out
}

#[track_caller]
fn json(dir: &Path, env: &[(&str, &str)], args: &[&str]) -> serde_json::Value {
    let all: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
    let out = ends(dir, env, &all, 0);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)))
}

/// Strikes every so many requests, never two in a row, so that the next try gets through.
fn trouble(bucket: &Bucket, every: usize, faults: &'static [Fault]) -> Arc<AtomicUsize> {
    let struck = Arc::new(AtomicUsize::new(0));
    let count = struck.clone();
    bucket.rule(move |seen| {
        seen.number.is_multiple_of(every).then(|| faults[count.fetch_add(1, Ordering::SeqCst) % faults.len()])
    });
    struck
}

/// A bucket with a new repository, the folder of a recovery, whose credentials only the server's user may read, and the URL that
/// names these.
fn repository(name: &str, prefix: &str) -> (Bucket, Scratch, String) {
    let bucket = Bucket::start();
    let room = Scratch::new(name);
    let file = credentials(&room.path, "s3.env", ACCESS_KEY, SECRET_KEY);
    if let Some(user) = server_user() {
        std::os::unix::fs::chown(&file, Some(user.uid), Some(user.gid)).unwrap();
    }
    let url = bucket.url_with(prefix, "&timeout=4s");
    // Beside the plans, as a team has it: the path is relative to the file.
    let config = format!("[repository]\nurl = {url:?}\ncredentials = \"s3.env\"\n");
    std::fs::write(room.path.join("breakglass.toml"), config).unwrap();
    let own = format!("{url}&credentials={file}");
    ends(&room.path, &[], &["backup", "init"], 0);
    (bucket, room, own)
}

#[test]
fn a_recovery_to_a_moment_from_a_bucket_that_misbehaves() {
    let (bucket, room, own) = repository("bucketpitr", "team/db");
    let d = &room.path;
    // A server has none of our environment: its command holds the URL, the URL names the file, the file is the server's.
    let archive = archive_command(Path::new(env!("CARGO_BIN_EXE_breakglass")), &own, None).unwrap();
    let c = Cluster::start("bucketpitr", &[("archive_mode", "on"), ("archive_command", &archive)]);
    let at = c.database("postgres").url();
    let env = [("DATABASE_URL", at.as_str())];
    let struck = trouble(
        &bucket,
        4,
        &[
            Fault::Refuse(500),
            Fault::DoAndCut,
            Fault::CutRequest(1000),
            Fault::DoAndRefuse(503),
            Fault::CutAnswer(100),
            Fault::Silence,
            Fault::Refuse(503),
        ],
    );
    c.sql("postgres", "create table marks as select n from generate_series(1, 100) n");
    let made = json(d, &env, &["backup", "create", "--physical"]);
    c.sql("postgres", "insert into marks select n from generate_series(101, 250) n");
    let bad = c.sql("postgres", "with gone as (delete from marks where n % 3 = 0) select pg_current_xact_id()");
    c.sql("postgres", "insert into marks select n from generate_series(1000, 1040) n");
    let last = c.sql("postgres", "select pg_walfile_name(pg_switch_wal())");
    let deadline = Instant::now() + LIMIT;
    while c.sql("postgres", "select coalesce(last_archived_wal, '') from pg_stat_archiver") < last {
        assert!(Instant::now() < deadline, "{last} was not archived: {}", c.instance.log_tail(5));
        std::thread::sleep(Duration::from_millis(50));
    }
    let stored = bucket.keys().into_iter().filter(|k| k.starts_with("team/db/wal/00000001/")).count();
    assert!(stored >= 3, "{:?}", bucket.keys());
    let status = json(d, &env, &["wal", "status"]);
    assert_eq!(status["timelines"][0]["last"], last.as_str(), "{status}");
    assert!(status["timelines"][0]["holes"].as_array().unwrap().is_empty(), "{status}");
    assert_eq!(status["problems"].as_array().unwrap().len(), 0, "{status}");
    json(d, &env, &["wal", "index"]);
    let range = json(d, &env, &["pitr", "range"]);
    assert!(range.to_string().contains(made["id"].as_str().unwrap()), "{range}");
    let shadow = d.join("shadow").display().to_string();
    let to = format!("xid:{bad}");
    let done = json(d, &env, &["pitr", "restore", "--to", &to, "--dir", &shadow]);
    assert!(struck.load(Ordering::SeqCst) > 10, "only {struck:?} faults struck");
    let there = |sql: &str| {
        let psql = crate::support::cluster::programs().path("psql");
        let out = Command::new(psql).args(["-XAtqc", sql, done["url"].as_str().unwrap()]).output().unwrap();
        assert!(out.status.success(), "{}", text(&out));
        String::from_utf8(out.stdout).unwrap().trim().to_string()
    };
    assert_eq!(there("select count(*), sum(n) from marks"), format!("250|{}", 250 * 251 / 2));
    // Its log came from the bucket by way of the worker, without a secret of its own.
    assert_eq!(there("select setting ~ 'wal fetch --socket' from pg_settings where name = 'restore_command'"), "t");
    assert_eq!(there("show archive_mode"), "off");
    bucket.calm();

    // What the range costs, once everything was read: names and stamps in one listing, and no segment.
    json(d, &env, &["wal", "index"]);
    let asked = || {
        let all = Arc::new(Mutex::new(Vec::new()));
        let into = all.clone();
        bucket.rule(move |seen| {
            into.lock().unwrap().push(format!("{} {}?{}", seen.method, seen.key, seen.query));
            None
        });
        json(d, &env, &["pitr", "range"]);
        bucket.calm();
        let all: Vec<String> = std::mem::take(&mut *all.lock().unwrap());
        all
    };
    let all = asked();
    let of = |what: &str| all.iter().filter(|a| a.contains(what)).count();
    assert_eq!((of("prefix=team%2Fdb%2Fwal"), of("/wal/0")), (1, 0), "{all:#?}");
    let entries = bucket.keys().into_iter().filter(|k| k.contains("/catalog/")).count();
    assert_eq!(of("/catalog/"), entries, "each entry of the catalog is read once: {all:#?}");

    // One of the segments is lost: said before anything is built, and a fetch stops a recovery.
    let key = format!("team/db/wal/00000001/00000000/{last}.bgo");
    assert!(bucket.get(&key).is_some(), "{:?}", bucket.keys());
    let dest = d.join("fetched").display().to_string();
    ends(d, &[], &["wal", "fetch", "--repository", &own, &last, &dest], 0);
    let next = format!("{}{:08X}", &last[..16], u32::from_str_radix(&last[16..], 16).unwrap() + 1);
    ends(d, &[], &["wal", "fetch", "--repository", &own, &next, &dest], 1);
    bucket.rule(|_| Some(Fault::Refuse(500)));
    let gone = own.replace("timeout=4s", "timeout=4s&patience=1s");
    ends(d, &[], &["wal", "fetch", "--repository", &gone, &last, &dest], 200);
    bucket.calm();
    let middle = made_of(&bucket).into_iter().rev().nth(1).unwrap();
    let lost = bucket.get(&middle).unwrap();
    bucket.remove(&middle);
    ends(d, &[], &["wal", "status"], 1);
    let again = d.join("again").display().to_string();
    let out = ends(d, &[], &["pitr", "restore", "--to", "latest", "--dir", &again], 4);
    let name = middle.rsplit('/').next().unwrap().trim_end_matches(".bgo");
    assert!(text(&out).contains(name), "{}", text(&out));
    assert!(!d.join("again").exists());
    bucket.set(&middle, lost);

    // Put into service: what it writes from now on goes to the same bucket, for the same key.
    ends(d, &env, &["pitr", "promote", "--shadow", &shadow, "--confirm", "postgres"], 0);
    assert!(!c.instance.is_running(), "the damaged one is down");
    assert_eq!(there("select pg_is_in_recovery()"), "f");
    assert!(there("show archive_command").contains(" --key-id "));
    there("insert into marks values (7)");
    let last = there("select pg_walfile_name(pg_switch_wal())");
    assert!(last.starts_with("00000002"), "{last}");
    let key = format!("team/db/wal/00000002/00000000/{last}.bgo");
    while bucket.get(&key).is_none() {
        let said = || there("select row_to_json(a) from pg_stat_archiver a");
        assert!(Instant::now() < deadline, "{last} was not archived: {}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
    let range = json(d, &env, &["pitr", "range"]);
    assert_eq!(range["timelines"].as_array().unwrap().len(), 2, "{range}");
    let record = breakglass::recovery::shadow::Shadow::load(&d.join("shadow")).unwrap();
    record.instance().unwrap().stop(breakglass::postgres::Stop::Immediate, LIMIT).unwrap();
}

/// Keys of the archived segments, in their order.
fn made_of(bucket: &Bucket) -> Vec<String> {
    let is = |k: &String| {
        let name = k.rsplit('/').next().unwrap_or_default();
        k.contains("/wal/0") && name.len() == 24 + ".bgo".len()
    };
    bucket.keys().into_iter().filter(is).collect()
}

#[test]
fn archived_is_what_the_bucket_has() {
    let (bucket, room, own) = repository("bucketarchive", "one");
    let d = &room.path;
    let path = write_segment(d, segment(1, 5), 7, 1).display().to_string();
    let archive = |path: &str, code: i32, says: &[&str]| {
        // As a server starts it: no environment, another folder.
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        let out = c.args(["wal", "archive", "--repository", &own, path]).env_clear().current_dir("/").output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{}", text(&out));
        says.iter().for_each(|w| assert!(text(&out).contains(w), "{w:?}: {}", text(&out)));
        assert!(!text(&out).contains(SECRET_KEY));
    };
    // A service, or something before it, that says yes and keeps nothing.
    bucket.rule(|s| (s.method == "PUT" && s.key.contains("wal/0")).then_some(Fault::Lie));
    archive(&path, 3, &["was acknowledged and is not stored", "no such object"]);
    bucket.calm();
    archive(&path, 0, &[]);
    let stored = bucket.copy();
    archive(&path, 0, &[]);
    assert!(bucket.copy() == stored, "the second time changes nothing");
    // Another server's segment of the same name.
    std::fs::create_dir(d.join("other")).unwrap();
    let other = write_segment(&d.join("other"), segment(1, 5), 7, 2).display().to_string();
    archive(&other, 4, &["other content"]);
    assert!(bucket.copy() == stored);
    // What opens the bucket is nobody else's to read.
    let file = d.join("s3.env");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    archive(&path, 2, &["everybody on this machine can read", "chmod 0600"]);
    // The configuration: a file for a folder makes no sense.
    std::fs::write(d.join("breakglass.toml"), "[repository]\nurl = \"here\"\ncredentials = \"s3.env\"\n").unwrap();
    let out = ends(d, &[], &["backup", "list"], 2);
    assert!(text(&out).contains("breakglass.toml:3: repository.credentials is for a bucket"), "{}", text(&out));
}
