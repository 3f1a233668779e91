//! The restore test: a backup is restored into a private server, looked at, and thrown away; what is wrong shows.

use std::path::Path;

use breakglass::backup::repository::Repository;
use breakglass::backup::wal::WalName;

use super::cluster::archiving;
use super::logical::{cluster, json, program, text, url};

fn names(dir: &std::path::Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_dump_is_proven_restorable() {
    let c = cluster();
    c.sql("postgres", "create role deep_owner");
    c.sql("postgres", "create database deepdb owner deep_owner");
    c.sql("deepdb", "create table t (id int primary key, at timestamptz default now(), f float8); insert into t select n, now(), n / 3.0 from generate_series(1, 4000) n");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let scratch = crate::support::cluster::Scratch::new("deep");
    std::fs::set_permissions(&scratch.path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let at = scratch.path.to_str().unwrap().to_string();
    let url = url(&c, "deepdb");
    let made = json(d, &url, 0, &["backup", "create", "--logical", "--fingerprints"]);
    let id = made["id"].as_str().unwrap();
    let psql = crate::support::cluster::programs().path("psql").display().to_string();
    let smoke = format!("test $({psql} -XAtc 'select count(*) from t' \"$DATABASE_URL\") = 4000 && echo fine");
    let good = json(
        d,
        &url,
        0,
        &["backup", "verify", "--deep", "--pick", "random", "--smoke", &smoke, "--report", "out", "--scratch", &at],
    );
    let checks = good["backups"][0]["checks"].as_array().unwrap();
    let verdict =
        |name: &str| checks.iter().find(|c| c["name"].as_str().unwrap().starts_with(name)).unwrap()["verdict"].clone();
    for name in ["every byte", "rows", "starts", "amcheck deepdb", "smoke test"] {
        assert_eq!(verdict(name), "passed", "{good:#}");
    }
    assert!(names(&scratch.path).is_empty(), "the private server is gone: {:?}", names(&scratch.path));
    let report = std::fs::read_to_string(d.join("out").join(format!("{id}.md"))).unwrap();
    assert!(report.contains("**restorable**") && report.contains("| smoke test | passed |"), "{report}");
    assert!(d.join("out").join(format!("{id}.json")).exists());
    let list = json(d, &url, 0, &["backup", "list"]);
    assert_eq!(list["backups"][0]["verified_how"], "restored");

    // Told to stop, it says so as any other does, and takes its server along.
    let begun = scratch.path.join("begun");
    let smoke = format!("touch {}; exec sleep 600", begun.display());
    let deep = ["backup", "verify", id, "--deep", "--smoke", &smoke, "--scratch", &at];
    let child = super::stopped::begun(d, &url, &deep);
    let deadline = std::time::Instant::now() + crate::support::cluster::LIMIT;
    while !begun.exists() {
        assert!(std::time::Instant::now() < deadline, "the smoke test never begins");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let out = super::stopped::stopped(child);
    assert!(
        out.status.code() == Some(143) && text(&out).contains("was not finished"),
        "{:?} {}",
        out.status,
        text(&out)
    );
    std::fs::remove_file(&begun).unwrap();
    assert!(names(&scratch.path).is_empty(), "{:?}", names(&scratch.path));

    // Killed, it leaves the decrypted copy and its server; the next one removes both, and says so.
    let smoke = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", begun.display());
    let mut child =
        super::stopped::begun(d, &url, &["backup", "verify", id, "--deep", "--smoke", &smoke, "--scratch", &at]);
    let deadline = std::time::Instant::now() + crate::support::cluster::LIMIT;
    while !begun.exists() {
        assert!(std::time::Instant::now() < deadline, "the smoke test never begins");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let asleep: i32 = std::fs::read_to_string(&begun).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(asleep).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    std::fs::remove_file(&begun).unwrap();
    let folder = names(&scratch.path).into_iter().find(|n| !n.ends_with(".lock")).unwrap();
    let pid = std::fs::read_to_string(scratch.path.join(&folder).join("data/postmaster.pid")).unwrap();
    let server = format!("/proc/{}", pid.lines().next().unwrap());
    assert!(Path::new(&server).exists(), "its server goes on");
    // One that is at work is left alone: another's folder, held.
    let other = scratch.path.join("breakglass-deep-00000000");
    std::fs::create_dir(&other).unwrap();
    let held = std::fs::File::create(scratch.path.join("breakglass-deep-00000000.lock")).unwrap();
    held.lock().unwrap();
    let out = program(d, &url, &[], &["backup", "verify", id, "--deep", "--scratch", &at]);
    assert!(
        out.status.success() && text(&out).contains("removed what a restore test that was killed left"),
        "{}",
        text(&out)
    );
    assert!(text(&out).contains(&folder) && other.exists(), "{}", text(&out));
    assert!(!Path::new(&server).exists(), "its server is gone");
    drop(held);
    let out = program(d, &url, &[("TMPDIR", at.as_str())], &["backup", "cleanup"]);
    assert!(out.status.success() && text(&out).contains("breakglass-deep-00000000"), "{}", text(&out));
    assert!(names(&scratch.path).is_empty(), "{:?}", names(&scratch.path));

    // No room for a server: the machine's fault, which is said.
    if crate::bad_input::can_mount() {
        let script = "mount -t tmpfs -o size=20m,mode=1777 tmpfs \"$1\" || exit 99; exec \"$2\" backup verify --deep --scratch \"$1\"";
        let mut c = std::process::Command::new("unshare");
        c.args(["-m", "sh", "-c", script, "sh", &at, env!("CARGO_BIN_EXE_breakglass")]).env_clear();
        c.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", d).env("BREAKGLASS_HOME", d.join("state"));
        c.env("BACKUP_DIR", d.join("repo")).env("BACKUP_ENCRYPTION_KEY", super::PASSPHRASE).current_dir(d);
        let out = c.output().unwrap();
        let said = text(&out);
        assert!(out.status.code() == Some(3) && said.contains("could not be tried"), "{:?} {said}", out.status);
        assert!(!said.contains("NOT RESTORABLE"), "{said}");
    }

    // A slip of the pen in the test says nothing of the backup: exit 3, or 2 before anything is restored; nothing is recorded.
    for (smoke, code, says) in [
        ("no_such_program -c 'select 1'", 3, "could not be tried"),
        ("/etc/passwd", 3, "could not be tried"),
        ("test 'open = 1", 2, "cannot be read by /bin/sh"),
    ] {
        let out = program(d, &url, &[], &["backup", "verify", id, "--deep", "--smoke", smoke, "--scratch", &at]);
        let said = text(&out);
        assert!(out.status.code() == Some(code) && said.contains(says), "{smoke}: {:?} {said}", out.status);
        assert!(!said.contains("NOT RESTORABLE") && said.contains("held against the backup"), "{said}");
        assert_eq!(json(d, &url, 0, &["backup", "list"])["damaged"], serde_json::json!([]), "{smoke}");
    }
    assert!(names(&scratch.path).is_empty(), "{:?}", names(&scratch.path));

    let bad = json(
        d,
        &url,
        1,
        &["backup", "verify", id, "--deep", "--smoke", "echo no such luck >&2; exit 7", "--scratch", &at],
    );
    assert_eq!(bad["ok"], false);
    assert!(bad.to_string().contains("exit code 7: no such luck"), "{bad}");
    // On record, and lifted by the next one that finds all right.
    assert_eq!(json(d, &url, 1, &["backup", "list"])["damaged"][0]["backup"], id);
    json(d, &url, 0, &["backup", "verify", id, "--deep", "--smoke", "true", "--scratch", &at]);
    assert_eq!(json(d, &url, 0, &["backup", "list"])["damaged"], serde_json::json!([]));
    // A bit of the dump.
    let path = d.join("repo/backups").join(id).join("database.dump.bgo");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let out = program(d, &url, &[], &["backup", "verify", "--deep", "--scratch", &at, "--report", "out"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(text(&out).contains("NOT RESTORABLE") && text(&out).contains("database.dump"), "{}", text(&out));
    assert!(std::fs::read_to_string(d.join("out").join(format!("{id}.md"))).unwrap().contains("NOT RESTORABLE"));
    assert!(names(&scratch.path).is_empty());
}

#[test]
fn a_dump_that_the_server_refuses_is_on_record_as_not_restorable() {
    let c = cluster();
    c.sql("postgres", "create database refused");
    // What the check calls was changed since: the rows that are there violate it.
    let sql = "create function cap() returns int immutable language sql as 'select 10'; \
               create table t (n int check (n < public.cap())); insert into t values (7654321 % 7)";
    c.sql("refused", sql);
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let scratch = crate::support::cluster::Scratch::new("refused");
    std::fs::set_permissions(&scratch.path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let at = scratch.path.to_str().unwrap().to_string();
    let url = url(&c, "refused");
    let good = json(d, &url, 0, &["backup", "create", "--logical"])["id"].as_str().unwrap().to_string();
    c.sql("refused", "create or replace function cap() returns int immutable language sql as 'select -1'");
    let bad = json(d, &url, 0, &["backup", "create", "--logical"])["id"].as_str().unwrap().to_string();
    let list = json(d, &url, 0, &["backup", "list"]);
    assert!(list["backups"][1]["verified_at"].is_string() && list["damaged"] == serde_json::json!([]), "{list:#}");

    let deep = ["backup", "verify", &bad, "--deep", "--scratch", &at];
    let out = program(d, &url, &[], &deep);
    assert!(out.status.code() == Some(1) && text(&out).contains("violates check constraint"), "{}", text(&out));
    let list = json(d, &url, 1, &["backup", "list"]);
    let one = &list["backups"][1];
    assert!(one["verified_at"].is_null() && one["damaged"]["how"] == "restored", "{list:#}");
    let why = one["damaged"]["why"].as_str().unwrap();
    assert!(why.contains("violates check constraint") && !why.contains("Failing row"), "no rows in the catalog: {why}");
    assert_eq!(list["damaged"][0]["backup"], bad.as_str());
    let out = program(d, &url, &[], &["health"]);
    assert!(text(&out).contains("NOT RESTORABLE") && text(&out).contains(&bad), "{}", text(&out));
    let out = program(d, &url, &[], &["backup", "cleanup", "--dry-run"]);
    let line = |id: &str| text(&out).lines().find(|l| l.starts_with(id)).unwrap().to_string();
    assert!(line(&good).contains("the newest verified one") && line(&bad).contains("NOT RESTORABLE"), "{}", text(&out));
    // Reading it does not clear what restoring showed.
    assert_eq!(program(d, &url, &[], &["backup", "verify", &bad]).status.code(), Some(0));
    assert_eq!(program(d, &url, &[], &["backup", "list"]).status.code(), Some(1));
}

#[test]
fn one_that_cannot_be_tried_keeps_no_other_from_it() {
    let c = cluster();
    c.sql("postgres", "create database untried");
    c.sql("untried", "create table t as select 1 as n");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let url = url(&c, "untried");
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    let take =
        |how: &[&str]| json(d, &url, 0, &[&["backup", "create"], how].concat())["id"].as_str().unwrap().to_string();
    let (dump, files) = (take(&["--logical"]), take(&["--files", "data"]));
    // No server programs where they are said to be: of the dump nothing can be said, the files need none.
    std::fs::write(d.join("breakglass.toml"), "[postgres]\nbin_dir = \"/nowhere\"\n").unwrap();
    let at = d.display().to_string();
    let deep = ["backup", "verify", "--deep", "--all", "--scratch", &at];
    let out = program(d, &url, &[], &deep);
    let said = text(&out);
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("{files}  restorable")), "{said}");
    assert!(said.contains(&format!("{dump}  NOT TRIED")) && said.contains("/nowhere"), "{said}");
    let document = json(d, &url, 3, &deep);
    assert_eq!((&document["ok"], &document["backups"][0]["backup"]), (&false.into(), &files.clone().into()));
    assert_eq!(document["not_tried"][0]["backup"], dump, "{document:#}");
    // One that is damaged counts more.
    let object = d.join(format!("repo/backups/{files}/files.tar.bgo"));
    let mut bytes = std::fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let out = program(d, &url, &[], &deep);
    assert!(out.status.code() == Some(1) && text(&out).contains("NOT TRIED"), "{}", text(&out));
}

#[test]
fn a_dump_without_a_table_says_that_no_rows_were_compared() {
    let c = cluster();
    c.sql("postgres", "create database viewonly");
    c.sql("viewonly", "create view v as select 1 as n");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let url = url(&c, "viewonly");
    json(d, &url, 0, &["backup", "create", "--logical"]);
    let said = |args: &[&str]| text(&program(d, &url, &[], args));
    assert!(said(&["backup", "list"]).contains("no table: no rows to compare"), "{}", said(&["backup", "list"]));
    let verified = said(&["backup", "verify"]);
    assert!(verified.contains("right:") && verified.contains("no table: no rows to compare"), "{verified}");
    let scratch = crate::support::cluster::Scratch::new("viewonly");
    std::fs::set_permissions(&scratch.path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let at = scratch.path.to_str().unwrap();
    let deep = json(d, &url, 0, &["backup", "verify", "--deep", "--scratch", at]);
    let checks = deep["backups"][0]["checks"].as_array().unwrap();
    let rows = checks.iter().find(|c| c["name"] == "rows").unwrap();
    assert_eq!(rows["verdict"], "not_available", "{deep:#}");
    // With a table it says how many.
    c.sql("viewonly", "create table t as select n from generate_series(1, 3) n");
    json(d, &url, 0, &["backup", "create", "--logical"]);
    let list = said(&["backup", "list"]);
    let newest = list.lines().next_back().unwrap();
    assert!(newest.contains("verified") && !newest.contains("no rows to compare"), "{list}");
}

#[test]
fn what_the_machine_lacks_is_not_held_against_the_dump() {
    use breakglass::error::Error;
    use breakglass::recovery::dump::does_not_come_back;
    let failed = |end: &str, said: &str| {
        does_not_come_back(&Error::target(format!("pg_restore failed: {end}")).why(format!("creating TABLE | {said}")))
    };
    let refused =
        "error: COPY failed for table \"t\": ERROR:  new row violates check constraint | DETAIL:  Failing row (1)";
    let shown = failed("exit code 1", refused).unwrap();
    assert!(shown.why.ends_with("check constraint"), "{shown}");
    for (end, said) in [
        ("ended by signal 9", refused),
        ("stopped after its time limit", refused),
        (
            "exit code 1",
            "error: COPY failed for table \"t\": ERROR:  could not extend file \"base/1\": No space left on device",
        ),
        ("exit code 1", "error: could not execute query: ERROR:  role \"x\" does not exist"),
        ("exit code 1", "error: could not execute query: ERROR:  extension \"postgis\" is not available"),
        ("exit code 1", "error: could not execute query: ERROR:  could not access file \"$libdir/x\": No such file"),
        ("exit code 1", "error: could not execute query: server closed the connection unexpectedly"),
        ("exit code 1", "error: could not read from input file: end of file"),
    ] {
        assert!(failed(end, said).is_none(), "{end}: {said}");
    }
    assert!(does_not_come_back(&Error::target("connecting").why(refused)).is_none());
}

#[test]
fn a_base_backup_is_proven_restorable_and_restores() {
    let (c, _, _) = archiving("deepbase");
    c.sql("postgres", "create table t as select n from generate_series(1, 1000) n; create index on t (n)");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let repo = c.root().join("repo").display().to_string();
    let at = c.root().join("deep");
    std::fs::create_dir(&at).unwrap();
    std::fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let run = |args: &[&str]| {
        let mut all = vec!["--json"];
        all.extend_from_slice(args);
        let out = program(d, &url(&c, "postgres"), &[("BACKUP_DIR", &repo)], &all);
        (out.status.code(), serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap_or_default(), text(&out))
    };
    let (code, made, said) = run(&["backup", "create", "--physical"]);
    assert_eq!(code, Some(0), "{said}");
    let id = made["id"].as_str().unwrap().to_string();
    // The key was at hand: what is archived by then is in the index, and the names of tables are kept.
    let unlocked = Repository::open(&repo).unwrap().unlock(&super::passphrase()).unwrap();
    let index = breakglass::recovery::wal_index::Index::load(&unlocked).unwrap();
    let archived = unlocked.repository().store().list("wal/00000001/").unwrap();
    let known = archived.iter().filter(|e| match WalName::from_object(&e.name) {
        Some(WalName::Segment(s)) => index.read(s, e.size).is_some(),
        _ => false,
    });
    assert!(known.count() >= 1 && index.problems.is_empty(), "{archived:?}");
    assert!(said.contains("index of the log:"), "{said}");
    let (code, good, said) = run(&["backup", "verify", "--deep", "--scratch", at.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(good.to_string().contains("amcheck postgres"), "{good}");
    assert!(names(&at).is_empty());

    // Into a folder: it starts as it is, its own configuration apart.
    let root = c.root().join("restored");
    std::fs::create_dir(&root).unwrap();
    let data = root.join("data");
    let (code, _, said) = run(&["backup", "restore", &id, "--into", data.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    // The source's configuration lies outside its data directory, as Debian keeps it: it is beside the files, as it was.
    let conf = &c.instance.layout.config;
    let kept = data.join(format!("source_configuration-{id}")).join(conf.strip_prefix("/").unwrap());
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        assert_eq!(std::fs::read(kept.join(name)).unwrap(), std::fs::read(conf.join(name)).unwrap(), "{name}");
    }
    let path = std::path::Path::new(&repo).join("backups").join(&id).join("configuration.tar.bgo");
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&path, bad).unwrap();
    let (code, _, said) = run(&["backup", "verify", &id]);
    assert!(code == Some(1) && said.contains("configuration.tar"), "{said}");
    std::fs::write(&path, good).unwrap();

    let user = crate::support::cluster::server_user();
    let mut i = breakglass::postgres::Instance::new(crate::support::cluster::programs(), &root, user).unwrap();
    i.layout.data = data.clone();
    i.configure(&[("archive_mode".into(), "off".into()), ("fsync".into(), "off".into())], None).unwrap();
    i.start(crate::support::cluster::LIMIT).unwrap();
    assert_eq!(crate::support::cluster::psql(&i.database("postgres"), "select count(*) from t").unwrap(), "1000");
    i.stop(breakglass::postgres::Stop::Immediate, crate::support::cluster::LIMIT).unwrap();
    let (code, said, _) = run(&["backup", "restore", &id, "--into", data.to_str().unwrap()]);
    assert_eq!(code, Some(4), "{said}");

    // A page whose checksum is wrong: PostgreSQL finds it while it is read, and nothing becomes a backup.
    let file = c.sql("postgres", "select pg_relation_filepath('t')");
    c.sql("postgres", "checkpoint");
    let heap = c.instance.layout.data.join(&file);
    let mut pages = std::fs::read(&heap).unwrap();
    pages[8192 + 4000] ^= 0x55;
    std::fs::write(&heap, pages).unwrap();
    let before = run(&["backup", "list"]).1["backups"].as_array().unwrap().len();
    let (code, _, said) = run(&["backup", "create", "--physical"]);
    assert!(code == Some(1) && said.contains("pages are damaged") && said.contains(&file), "{code:?}: {said}");
    assert_eq!(run(&["backup", "list"]).1["backups"].as_array().unwrap().len(), before);
}
