//! A repository in a bucket through the real program: every command, by environment alone; what people get wrong, each with
//! what the program says; what is left when it dies.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use breakglass::backup::repository::Repository;
use breakglass::backup::store::{Access, open_place};

use super::logical::{cluster, text, url as database_url};
use super::wal::{SYSTEM, segment, write_segment};
use super::{NOBODY, PASSPHRASE, passphrase};
use crate::support::bucket::{ACCESS_KEY, Bucket, Fault, SECRET_KEY, Seen, credentials};

/// The program, with the repository in the bucket and its credentials in the environment.
fn command(dir: &Path, bucket: &Bucket, more: &[(&str, &str)], args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(args)
        .env_clear()
        .env("HOME", dir)
        .env("BREAKGLASS_HOME", dir.join("state"))
        .env("BACKUP_DIR", bucket.url_with("team", ""))
        .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
        .env("DATABASE_URL", NOBODY)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    for (name, value) in more {
        c.env(name, value);
    }
    c.current_dir(dir);
    c
}

#[track_caller]
fn ends(dir: &Path, bucket: &Bucket, more: &[(&str, &str)], args: &[&str], code: i32) -> String {
    let out: Output = command(dir, bucket, more, args).output().unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
    assert!(!said.contains(SECRET_KEY), "the secret is shown: {said}");
    said
}

#[track_caller]
fn json(dir: &Path, bucket: &Bucket, more: &[(&str, &str)], args: &[&str], code: i32) -> serde_json::Value {
    let all: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
    let out = command(dir, bucket, more, &all).output().unwrap();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)))
}

fn data(dir: &Path) {
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("data/file"), "content".repeat(5000)).unwrap();
}

#[test]
fn every_command_and_three_places() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let c = cluster();
    c.sql("postgres", "create database \"in the cloud\"");
    c.sql("in the cloud", "create table t as select n, md5(n::text) as x from generate_series(1, 5000) n");
    let at = database_url(&c, "in the cloud");
    // Three places: a bucket, a folder, another place with credentials of its own.
    let file = credentials(d, "second.env", ACCESS_KEY, SECRET_KEY);
    let third = bucket.url_with("elsewhere/copy", &format!("&credentials={file}"));
    std::fs::write(d.join("breakglass.toml"), format!("[repository]\ncopies = [\"second\", {third:?}]\n")).unwrap();
    let env = [("DATABASE_URL", at.as_str())];
    let done = json(d, &bucket, &env, &["backup", "create", "--logical"], 0);
    let id = done["id"].as_str().unwrap();
    assert!(done["catalog_head"].as_str().unwrap().starts_with("2:"), "{done}");
    assert!(ends(d, &bucket, &[], &["backup", "list"], 0).contains(id));
    ends(d, &bucket, &[], &["backup", "verify", "--all"], 0);
    for place in ["second", third.as_str()] {
        ends(d, &bucket, &[("BACKUP_DIR", place)], &["backup", "verify", "--all"], 0);
    }
    // Having been verified there, they still follow: the one entry that is new came from here.
    let copied = json(d, &bucket, &[], &["backup", "copy"], 0);
    assert_eq!(copied["copies"][1]["objects"], 1, "{copied}");
    ends(d, &bucket, &env, &["backup", "restore", id, "--into", "again"], 0);
    assert_eq!(c.sql("again", "select count(*) from t"), "5000");
    // The archive, without an environment and from any folder: the URL says where the credentials are.
    let own = bucket.url_with("team", &format!("&credentials={file}"));
    for n in [5, 6] {
        let path = write_segment(d, segment(1, n), SYSTEM, n);
        let mut archive = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        let archive = archive.args(["wal", "archive", "--repository", &own]).arg(&path).env_clear().current_dir("/");
        let out = archive.output().unwrap();
        // The repository is for another cluster: refused. One of its own takes it.
        assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    }
    // Another key, and everything opens with it.
    let new = "another passphrase, thirty-two characters and more";
    ends(d, &bucket, &[("BACKUP_NEW_ENCRYPTION_KEY", new)], &["backup", "rotate-key", "--new-key-pair"], 0);
    ends(d, &bucket, &[], &["backup", "list"], 2);
    let with_new = [("BACKUP_ENCRYPTION_KEY", new), ("DATABASE_URL", at.as_str())];
    let second = json(d, &bucket, &with_new, &["backup", "create", "--logical"], 0);
    assert_eq!(json(d, &bucket, &with_new, &["backup", "list"], 0)["backups"].as_array().unwrap().len(), 2);
    assert!(ends(d, &bucket, &with_new, &["backup", "cleanup", "--dry-run"], 0).contains("younger than 30 days"));
    // With the newest of today alone to keep, the first one goes: in the bucket at once, in the copies with the next copy.
    let of = |id: &str| {
        let there = bucket.keys().into_iter().filter(|k| k.contains(id)).count();
        (there, d.join("second/backups").join(id).exists())
    };
    let second_id = second["id"].as_str().unwrap();
    assert!(of(id).0 > 4 && of(id).1 && of(second_id).0 > 4, "{:?}", bucket.keys());
    let keep = "generations = { daily = 1, weekly = 0, monthly = 0, yearly = 0 }";
    let config = format!("[repository]\ncopies = [\"second\", {third:?}]\n{keep}\n");
    std::fs::write(d.join("breakglass.toml"), config).unwrap();
    assert!(ends(d, &bucket, &with_new, &["backup", "cleanup"], 0).contains("1 backups and"));
    assert!(bucket.keys().iter().all(|k| !k.starts_with(&format!("team/backups/{id}/"))), "{:?}", bucket.keys());
    let copied = json(d, &bucket, &with_new, &["backup", "copy"], 0);
    assert!(copied["copies"].as_array().unwrap().iter().all(|c| c["removed"].as_u64() > Some(3)), "{copied}");
    assert_eq!(of(id), (0, false), "nothing of it is left in any place: {:?}", bucket.keys());
    for place in ["second", third.as_str()] {
        let more = [with_new[0], ("BACKUP_DIR", place)];
        assert!(ends(d, &bucket, &more, &["backup", "list"], 0).contains(second_id));
        ends(d, &bucket, &more, &["backup", "verify", "--all"], 0);
    }
    let doctor = json(d, &bucket, &with_new, &["doctor"], 1);
    let copies: Vec<&str> = doctor["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["area"] == "copy")
        .map(|c| c["level"].as_str().unwrap())
        .collect();
    assert_eq!(copies, ["good", "good"], "{doctor}");
    let health = json(d, &bucket, &with_new, &["health"], 0);
    assert_eq!(health["components"]["repository"], "operational", "{health}");
    assert_eq!(health["components"]["backup"], "operational", "{health}");
    // Rot in the bucket: found, named, and nothing of it reaches a database.
    let key = format!("team/backups/{}/database.dump.bgo", second["id"].as_str().unwrap());
    let mut bytes = bucket.get(&key).unwrap_or_else(|| panic!("{key} is not among {:?}", bucket.keys()));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bucket.set(&key, bytes);
    ends(d, &bucket, &with_new, &["backup", "verify", "--all"], 1);
    ends(d, &bucket, &with_new, &["backup", "restore", second["id"].as_str().unwrap(), "--into", "never"], 1);
    assert_eq!(c.sql("postgres", "select count(*) from pg_database where datname = 'never'"), "0");
}

#[test]
fn what_people_get_wrong() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    ends(d, &bucket, &[], &["backup", "init"], 0);
    let at = |more: &str| bucket.url_with("team", more);
    let place = |url: &str, more: &[(&str, &str)], code: i32, says: &[&str]| {
        let all: Vec<(&str, &str)> = more.iter().copied().chain([("BACKUP_DIR", url)]).collect();
        let said = ends(d, &bucket, &all, &["backup", "list"], code);
        for word in says {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
        said
    };
    // Gives up soon; only where no answer is expected may an answer not take its time.
    let soon = "&patience=1s";
    let quick = "&timeout=1s&patience=1s";
    let other = at("").replace("s3://backups/", "s3://bachups/");
    place(&other, &[], 3, &["NoSuchBucket", "There is no bucket \"bachups\""]);
    // The wrong secret, and a key nobody knows.
    let wrong = "wrong/secret/that+must+never+be+shown00";
    let said = place(&at(""), &[("AWS_SECRET_ACCESS_KEY", wrong)], 3, &["SignatureDoesNotMatch", "AWS_ACCESS_KEY_ID"]);
    assert!(!said.contains(wrong), "{said}");
    place(&at(""), &[("AWS_ACCESS_KEY_ID", "AKIANOBODY")], 3, &["not accepted", "AWS_ACCESS_KEY_ID"]);
    place(&at(""), &[("AWS_SECRET_ACCESS_KEY", "")], 2, &["no credentials", "AWS_SECRET_ACCESS_KEY", "credentials="]);
    // Credentials in a file: not there, open to everybody, not understood, and wrong.
    place(&at("&credentials=/no/such/file"), &[], 2, &["/no/such/file", "cannot be read"]);
    let file = credentials(d, "open.env", ACCESS_KEY, wrong);
    let with_file = at(&format!("&credentials={file}"));
    let said = place(&with_file, &[], 3, &["SignatureDoesNotMatch", "open.env"]);
    assert!(!said.contains(wrong), "{said}");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    place(&with_file, &[], 2, &["everybody on this machine can read", "chmod 0600"]);
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&file, format!("AWS_ACCESS_KEY_ID=x\n{wrong}\n")).unwrap();
    let said = place(&with_file, &[], 2, &["open.env:2", "NAME=value"]);
    assert!(!said.contains(wrong), "{said}");
    // URLs.
    let login = format!("s3://{ACCESS_KEY}:{wrong}@backups/team");
    let said = place(&login, &[], 2, &["holds a login"]);
    assert!(!said.contains(wrong), "{said}");
    let said = place(&at(&format!("&credentials={wrong}")), &[], 2, &["\"credentials\"", "absolute path"]);
    assert!(!said.contains(wrong), "{said}");
    place(&at("&regoin=x"), &[], 2, &["\"regoin\"", "there is no such option", "region"]);
    place(&at("&timeout=soon"), &[], 2, &["\"timeout\"", "30s"]);
    place("s3:///team", &[], 2, &["is not the name of a bucket"]);
    place("s3://backups/a/../b", &[], 2, &["is not a folder in a bucket"]);
    place("ftp://backups/team", &[], 2, &["\"ftp\"", "no such storage", "s3://"]);
    place("s3://backups/none?endpoint=backups.example.org", &[], 2, &["\"endpoint\"", "https://HOST"]);
    place(&bucket.url_with("nothing/here", ""), &[], 3, &["no repository", "backup init"]);
    // Nobody there; nobody answers; the clock.
    let nowhere = format!("s3://backups/team?endpoint=http://127.0.0.1:9{quick}");
    place(&nowhere, &[], 3, &["s3://backups/team", "refused", "endpoint"]);
    bucket.rule(|_| Some(Fault::Silence));
    place(&at(quick), &[], 3, &["s3://backups/team", "timed out"]);
    bucket.rule(|_| Some(Fault::Say(403, "RequestTimeTooSkewed")));
    place(&at(""), &[], 3, &["RequestTimeTooSkewed", "clock of this machine"]);
    bucket.rule(|_| Some(Fault::Say(400, "AuthorizationHeaderMalformed")));
    place(&at(""), &[], 3, &["AuthorizationHeaderMalformed", "another region"]);
    bucket.rule(|_| Some(Fault::Say(403, "AccessDenied")));
    place(&at(""), &[], 3, &["AccessDenied", "may not do this"]);
    bucket.rule(|_| Some(Fault::Refuse(503)));
    place(&at(soon), &[], 3, &["InternalError", "fails"]);
    // Full while writing; a service without conditions; read-only.
    let create = |code: i32, says: &[&str]| {
        let quick = at(soon);
        let said = ends(d, &bucket, &[("BACKUP_DIR", &quick)], &["backup", "create", "--files", "data"], code);
        for word in says {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    };
    bucket.rule(|seen| (seen.method == "PUT").then_some(Fault::Say(400, "QuotaExceeded")));
    create(3, &["QuotaExceeded", "backup cleanup --dry-run"]);
    bucket.rule(|seen| (seen.method == "PUT").then_some(Fault::Say(501, "NotImplemented")));
    create(3, &["NotImplemented", "conditional requests"]);
    bucket.rule(|seen| (seen.method == "PUT").then_some(Fault::Say(403, "AccessDenied")));
    create(3, &["AccessDenied", "may not do this"]);
    bucket.calm();
    assert!(ends(d, &bucket, &[], &["backup", "list"], 0).contains("no backups"), "nothing was acknowledged");
    create(0, &["every byte verified"]);
    // Nothing configured but a key: there is a place.
    let unset =
        command(d, &bucket, &[], &["backup", "create", "--files", "data"]).env_remove("BACKUP_DIR").output().unwrap();
    assert_eq!(unset.status.code(), Some(0), "{}", text(&unset));
    assert!(d.join("backups/repository.json").exists());
}

#[test]
fn a_catalog_put_back_is_noticed() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    let create = ["backup", "create", "--files", "data"];
    ends(d, &bucket, &[], &create, 0);
    let before = bucket.copy();
    let later = json(d, &bucket, &[], &create, 0);
    let head = later["catalog_head"].as_str().unwrap();
    ends(d, &bucket, &[], &["backup", "verify", "--all"], 0);
    // The whole bucket as it was: every object in it is authentic.
    let after = bucket.copy();
    bucket.put_back(before);
    let said = ends(d, &bucket, &[], &["backup", "verify", "--all"], 1);
    assert!(said.contains("rolled back") && said.contains("entry 2, and had 6"), "{said}");
    assert!(ends(d, &bucket, &[], &["backup", "list"], 0).contains("WARNING: the catalog was rolled back"));
    assert_eq!(json(d, &bucket, &[], &["backup", "list"], 0)["rolled_back"], true);
    assert!(ends(d, &bucket, &[], &["backup", "cleanup"], 4).contains("rolled back"));
    assert!(ends(d, &bucket, &[], &["doctor"], 1).contains("rolled back"));
    assert_eq!(json(d, &bucket, &[], &["health"], 1)["components"]["catalog"], "rolled back");
    // From another machine, which remembers nothing: by the head that was printed.
    let other = [("BREAKGLASS_HOME", "other")];
    ends(d, &bucket, &other, &["backup", "verify", "--all"], 0);
    assert!(ends(d, &bucket, &other, &["backup", "verify", "--anchor", head], 1).contains("rolled back"));
    assert!(ends(d, &bucket, &other, &["backup", "verify", "--anchor", "4"], 2).contains("64 hexadecimal digits"));
    // Put right; and, in the end, accepted as it is.
    bucket.put_back(after.clone());
    ends(d, &bucket, &[], &["backup", "verify", "--anchor", head], 0);
    bucket.put_back(
        after.into_iter().filter(|(key, _)| !key.contains("catalog/") || key.contains("catalog/00000001")).collect(),
    );
    ends(d, &bucket, &[], &["backup", "verify"], 1);
    ends(d, &bucket, &[], &["backup", "verify", "--accept-catalog"], 0);
    ends(d, &bucket, &[], &["backup", "cleanup"], 0);
    // A state directory that takes nothing hinders nothing.
    let nowhere = [("BREAKGLASS_HOME", "/proc/nowhere")];
    assert!(ends(d, &bucket, &nowhere, &["backup", "verify"], 0).contains("cannot be remembered"));
}

#[test]
fn killed_at_any_request_it_is_before_or_after() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    // Larger than one request: parts, and the request that joins them.
    let mut noise = vec![0u8; 18 << 20];
    getrandom::fill(&mut noise).unwrap();
    std::fs::write(d.join("data/large"), &noise).unwrap();
    ends(d, &bucket, &[], &["backup", "init"], 0);
    let begun = bucket.requests();
    ends(d, &bucket, &[], &["backup", "create", "--files", "data"], 0);
    let all = bucket.requests() - begun;
    // Where it matters; with time, at every request.
    type Point = Box<dyn Fn(&Seen<'_>, usize) -> bool + Send>;
    let put = |what: &'static str| -> Point { Box::new(move |s, _| s.method == "PUT" && s.key.contains(what)) };
    let query = |m: &'static str, what: &'static str| -> Point {
        Box::new(move |s, _| s.method == m && s.query.contains(what))
    };
    let mut points = vec![
        ("a part", query("PUT", "partNumber=2"), Fault::Silence),
        ("the joining of parts", query("POST", "uploadId"), Fault::DoAndSilence),
        ("the manifest", put("manifest"), Fault::Silence),
        ("the entry", put("catalog/"), Fault::Silence),
        ("the entry, stored", put("catalog/"), Fault::DoAndSilence),
    ];
    if std::env::var_os("BREAKGLASS_SOAK").is_some() {
        for at in 0..all {
            points.push(("any", Box::new(move |_, n| n == at), Fault::Silence));
            points.push(("any, done", Box::new(move |_, n| n == at), Fault::DoAndSilence));
        }
    }
    let mut whole = 1;
    for (what, point, fault) in points {
        let first = bucket.requests();
        let (tell, told) = std::sync::mpsc::channel();
        let mut struck = false;
        bucket.rule(move |seen| {
            let now = !struck && point(seen, seen.number - first);
            struck |= now;
            // It has not been answered when the program dies, and nothing after it.
            let fault = if now { fault } else { Fault::Silence };
            if now {
                let _ = tell.send(());
            }
            struck.then_some(fault)
        });
        let mut child = command(d, &bucket, &[], &["backup", "create", "--files", "data"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        told.recv_timeout(Duration::from_secs(240)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        bucket.calm();
        let list = json(d, &bucket, &[], &["backup", "list"], 0);
        let backups = list["backups"].as_array().unwrap().len();
        assert!(backups == whole || backups == whole + 1, "{what}: {backups} backups, {whole} before");
        whole = backups;
    }
    ends(d, &bucket, &[], &["backup", "verify", "--all"], 0);
    ends(d, &bucket, &[], &["backup", "create", "--files", "data"], 0);
    assert!(bucket.unfinished() > 0, "none died with parts under way");
    ends(d, &bucket, &[], &["backup", "cleanup"], 0);
    assert!(bucket.unfinished() > 0, "what is young may be somebody's who is still writing");
}

#[test]
fn what_died_long_ago_is_cleaned_up() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    ends(d, &bucket, &[], &["backup", "init"], 0);
    let place = open_place(&bucket.url(d, "team"), true).unwrap();
    let abandon = |name: &str| {
        let mut upload = place.create(name, Access::Group).unwrap();
        std::io::Write::write_all(&mut upload, &vec![7u8; 18 << 20]).unwrap();
        std::mem::forget(upload);
    };
    bucket.uploads_are_old(Duration::from_secs(49 * 3600));
    abandon("backups/20200101T0000Z-files-aaaaaa/files.tar.bgo");
    abandon("backups/20200102T0000Z-files-bbbbbb/files.tar.bgo");
    bucket.uploads_are_old(Duration::from_secs(3600));
    abandon("backups/20200103T0000Z-files-cccccc/files.tar.bgo");
    assert_eq!(bucket.unfinished(), 3);
    let said = ends(d, &bucket, &[], &["backup", "cleanup", "--dry-run"], 0);
    assert!(said.contains("2 objects") && said.contains("writer that died"), "{said}");
    ends(d, &bucket, &[], &["backup", "cleanup"], 0);
    assert_eq!(bucket.unfinished(), 1);
}

#[test]
fn several_at_once() {
    let bucket = Bucket::start();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    // The first ones also make the repository, all at the same time.
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut c = command(d, &bucket, &[], &["backup", "create", "--files", "data"]);
            c.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    }
    assert_eq!(json(d, &bucket, &[], &["backup", "list"], 0)["backups"].as_array().unwrap().len(), 4);
    ends(d, &bucket, &[], &["backup", "verify", "--all"], 0);
    assert_eq!(bucket.keys().iter().filter(|k| k.contains("/keys/")).count(), 1, "{:?}", bucket.keys());
    // Two servers and the same segment: one is stored, the other is told.
    let url = bucket.url(d, "team");
    Repository::open(&url).unwrap().unlock(&passphrase()).unwrap();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6u64)
            .map(|n| {
                let (url, d) = (&url, d.join(n.to_string()));
                scope.spawn(move || {
                    std::fs::create_dir(&d).unwrap();
                    let path = write_segment(&d, segment(1, 5), SYSTEM, 1 + n % 2 * 8);
                    breakglass::backup::wal::archive(url, &path, None).map_err(|e| e.kind)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 3, "{outcomes:?}");
    assert_eq!(
        outcomes.iter().filter(|o| **o == Ok(breakglass::backup::wal::Archived::Stored)).count(),
        1,
        "{outcomes:?}"
    );
}
