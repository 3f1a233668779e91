//! Told to stop by SIGTERM, and out of room, while a backup is taken or restored: catalog and target are as they were, nothing is
//! left over, and the next run completes.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use breakglass::backup::wal::archive_command;

use super::PASSPHRASE;
use super::logical::{cluster, json, program, text, url};
use crate::bad_input::can_mount;
use crate::support::archived::{self, Archived, said};
use crate::support::cluster::{LIMIT, Scratch, programs, psql};

/// Waits until a query says `t`, while the program runs.
#[track_caller]
fn until(child: &mut Child, at: &breakglass::postgres::Database, sql: &str) {
    let deadline = Instant::now() + LIMIT;
    while psql(at, sql).unwrap() != "t" {
        assert!(Instant::now() < deadline, "never true: {sql}");
        assert!(child.try_wait().unwrap().is_none(), "it ended before: {sql}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Asks it to stop, and gives what it said.
pub fn stopped(child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let (send, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output().unwrap()));
    ended.recv_timeout(LIMIT).unwrap_or_else(|_| {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        panic!("it does not end when it is told to")
    })
}

/// Objects whose writers never finished.
fn unfinished(repository: &Path) -> usize {
    let out = Command::new("find").arg(repository).args(["-name", ".tmp-*"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().lines().count()
}

/// Folders of backups.
fn folders(repository: &Path) -> usize {
    std::fs::read_dir(repository.join("backups")).map_or(0, |entries| entries.count())
}

/// The program in the background, by its environment alone.
pub fn begun(d: &Path, url: &str, args: &[&str]) -> Child {
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(args).env_clear().env("HOME", d).env("BREAKGLASS_HOME", d.join("state"));
    c.env("TMPDIR", if d.join("tmp").is_dir() { d.join("tmp") } else { std::env::temp_dir() });
    c.env("BACKUP_DIR", d.join("repo")).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE).env("DATABASE_URL", url);
    c.current_dir(d).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_dump_and_its_restore_that_are_told_to_stop() {
    let c = cluster();
    c.sql("postgres", "create database stop1");
    // What holds a restore at a place of its choosing: a view whose rows take long where it is restored.
    c.sql(
        "stop1",
        "create table t as select n from generate_series(1, 2000) n; create schema s; create table s.u (n int); \
         create function slow() returns int language plpgsql as 'begin \
           if current_database() like ''breakglass_restoring_%'' then perform pg_sleep(600); end if; return 1; end'; \
         create materialized view held as select slow() as one",
    );
    let (at, db) = (url(&c, "stop1"), c.database("stop1"));
    let dir = Scratch::new("stopped");
    let d = &dir.path;
    std::fs::create_dir(d.join("tmp")).unwrap();
    std::fs::set_permissions(d.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    super::repository(d);
    let made = json(d, &at, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let backups = || json(d, &at, 0, &["backup", "list"])["backups"].as_array().unwrap().len();

    // A dump that waits for a lock, and prints nothing.
    let mut holder = Command::new(programs().path("psql"));
    holder.args(["-XAtqc", "begin; lock table t; select pg_sleep(600)"]).env_clear();
    for (name, value) in db.tool_env() {
        holder.env(name, value.expose());
    }
    let mut holder = holder.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let locks = "from pg_locks where relation = 't'::regclass and mode";
    until(&mut holder, &db, &format!("select count(*) > 0 {locks} = 'AccessExclusiveLock' and granted"));
    let mut child = begun(d, &at, &["backup", "create", "--logical"]);
    let dumping = "query like 'LOCK TABLE%' and wait_event_type = 'Lock' and datname = 'stop1'";
    until(&mut child, &db, &format!("select count(*) > 0 from pg_stat_activity where {dumping}"));
    let out = stopped(child);
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    assert_eq!((backups(), unfinished(&d.join("repo"))), (1, 0), "{}", text(&out));
    assert_eq!(folders(&d.join("repo")), 1, "not even its folder is left");
    holder.kill().unwrap();
    holder.wait().unwrap();
    c.sql("stop1", "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)' and pid <> pg_backend_pid()");
    json(d, &at, 0, &["backup", "create", "--logical"]);
    assert_eq!(backups(), 2);

    // A restore over the database, in the middle of its load.
    c.sql("stop1", "insert into t values (0)");
    let over = ["backup", "restore", id, "--into", "stop1", "--overwrite", "--confirm", "stop1"];
    let mut child = begun(d, &at, &over);
    let asleep = "from pg_stat_activity where datname like 'breakglass\\_restoring\\_%' and query like '%held%' \
                  and wait_event = 'PgSleep'";
    until(&mut child, &c.database("postgres"), &format!("select count(*) > 0 {asleep}"));
    let half = c.sql("postgres", &format!("select datname {asleep}"));
    let out = stopped(child);
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    assert_eq!(c.sql("stop1", "select count(*) from t"), "2001", "the old one as it was");
    let there = "select count(*) from pg_database where datname like 'stop1_before%' or datname = ";
    assert_eq!(c.sql("postgres", &format!("{there}'{half}'")), "0", "{}", text(&out));
    assert_eq!(std::fs::read_dir(d.join("tmp")).unwrap().count(), 0, "nothing decrypted is left");
    assert_eq!(backups(), 2);
    // Without what held it up it completes.
    let some = ["backup", "restore", id, "--into", "stop1_t", "--table", "t"];
    assert_eq!(json(d, &at, 0, &some)["restored"]["rows"], 2000);

    // Every pattern means a table, or nothing is stored; the schema of a table comes back with it.
    let other = d.join("other").display().to_string();
    let env = [("BACKUP_DIR", other.as_str())];
    let out = program(d, &at, &env, &["backup", "create", "--table", "t", "--table", "s.typo", "--table", "orders?"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    let wrong = "no table is called \"s.typo\" or \"orders?\"";
    assert!(text(&out).contains(wrong) && !text(&out).contains("\"t\""), "{}", text(&out));
    assert!(!d.join("other").exists(), "not even a repository");
    c.sql("stop1", "create role stop1_owner; create role stop1_reader; alter schema s owner to stop1_owner");
    c.sql("stop1", "grant usage on schema s to stop1_reader; insert into s.u values (1), (2)");
    let part = json(d, &at, 0, &["backup", "create", "--table", "s.u"]);
    let part = part["id"].as_str().unwrap();
    // Over a database only when somebody says that a part is what is wanted; the old one stays under another name.
    c.sql("postgres", "create database stop1_u");
    c.sql("stop1_u", "create table more as select 1 as one");
    let schema = "select (select count(*) from s.u) || ' ' || nspowner::regrole || ' ' || has_schema_privilege('stop1_reader', 's', \
                  'usage') from pg_namespace where nspname = 's'";
    let over =
        ["backup", "restore", part, "--into", "stop1_u", "--overwrite", "--other-database", "--confirm", "stop1_u"];
    let refused = json(d, &at, 4, &over);
    assert!(refused["error"]["hints"].to_string().contains("--partial"), "{refused}");
    assert_eq!(c.sql("stop1_u", "select one from more"), "1");
    let done = json(d, &at, 0, &[&over[..], &["--partial"]].concat());
    let kept = done["restored"]["kept"].as_str().unwrap();
    assert_eq!(c.sql("stop1_u", schema), "2 stop1_owner true");
    assert_eq!(c.sql("stop1_u", "select to_regclass('more') is null and (select count(*) from s.u) = 2"), "t");
    assert_eq!(c.sql(kept, "select one from more"), "1");
}

/// On a disk for the backups alone that is too small, then large enough. The archiver writes beside them all the while:
/// what it has not finished is not looked at.
const SMALL: &str = r#"
mount -t tmpfs -o size=1m tmpfs "$BACKUP_DIR/backups" || exit 99
left() { find "$BACKUP_DIR" -name '.tmp-*' -not -path '*/wal/*' | wc -l; }
"$1" backup create --physical >out1 2>&1; echo "create $? $(grep -c 'No space left' out1) $(left)"
"$1" backup list >out2 2>&1; echo "list $? $(grep -c physical- out2)"
mount -o remount,size=200m "$BACKUP_DIR/backups" || exit 98
"$1" backup create --physical >out3 2>&1; echo "again $?"
"$1" backup verify >out4 2>&1; echo "verify $? $(grep -c right: out4)"
"#;

#[test]
fn a_base_backup_that_is_told_to_stop_or_has_no_room() {
    // The log is archived once a file is there: until then a base backup waits at its end.
    let a = Archived::start_with("stopbase", |room| {
        let repository = room.join("repository").display().to_string();
        let archive = archive_command(Path::new(env!("CARGO_BIN_EXE_breakglass")), &repository, None).unwrap();
        let go = room.join("go").display().to_string();
        vec![("archive_command", format!("until test -e {go}; do sleep 0.05; done; {archive}"))]
    });
    let db = a.cluster.database("postgres");
    let list = || {
        let (code, text) = a.run(&["backup", "list"]);
        assert_eq!(code, 0, "{text}");
        text.lines().filter(|l| l.contains("physical-")).count()
    };
    let mut create = a.command(&["backup", "create"]);
    let mut child = create.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waits =
        "select count(*) > 0 from pg_stat_progress_basebackup where phase = 'waiting for wal archiving to finish'";
    until(&mut child, &db, waits);
    let out = stopped(child);
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    assert_eq!((list(), unfinished(&a.repository)), (0, 0), "{}", text(&out));
    assert_eq!(folders(&a.repository), 0, "not even its folder is left");
    std::fs::write(a.room.path.join("go"), "").unwrap();
    if !can_mount() {
        let (code, text) = a.run(&["backup", "create"]);
        assert!(code == 0 && list() == 1, "{text}");
        return;
    }
    let mut c = Command::new("unshare");
    c.args(["-m", "sh", "-c", SMALL, "sh", env!("CARGO_BIN_EXE_breakglass")])
        .env("DATABASE_URL", db.url())
        .env("BACKUP_DIR", &a.repository)
        .env("BACKUP_ENCRYPTION_KEY", archived::PASSPHRASE)
        .env("BREAKGLASS_HOME", a.room.path.join("state"))
        .current_dir(&a.room.path);
    let (code, text) = said(&mut c);
    // The next run completes, with room and without whatever the one that was stopped had begun.
    let said = |n: u32| std::fs::read_to_string(a.room.path.join(format!("out{n}"))).unwrap_or_default();
    let all: String = (1..=4).map(said).collect();
    assert_eq!((code, text.as_str()), (0, "create 3 1 0\nlist 0 0\nagain 0\nverify 0 1\n"), "{all}");
}
