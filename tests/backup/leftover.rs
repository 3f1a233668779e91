//! What restores that died left on the server: only that is removed, and only when nobody works with it.

use std::process::{Child, Command, Stdio};

use super::logical::{json, program, text, url};
use super::stopped::begun;
use crate::support::cluster::{Cluster, LIMIT, programs};

/// A session in a database of the server that does this, and stays.
fn session(c: &Cluster, database: &str, sql: &str) -> Child {
    let mut psql = Command::new(programs().path("psql"));
    psql.args(["-XAtqc", &format!("{sql}, pg_sleep(600)")]).env_clear();
    for (name, value) in c.database(database).tool_env() {
        psql.env(name, value.expose());
    }
    psql.env("PGAPPNAME", "reader");
    let child = psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let asleep = format!(
        "select count(*) from pg_stat_activity where datname = '{database}' and wait_event = 'PgSleep' \
                          and application_name = 'reader'"
    );
    until(c, &asleep, |n| n != "0");
    child
}

/// Ends it at the server: one that sleeps there does not see that its client is gone.
fn ended(c: &Cluster, mut session: Child) {
    c.sql("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'reader'");
    session.wait().unwrap();
}

#[track_caller]
fn until(c: &Cluster, sql: &str, is: impl Fn(&str) -> bool) -> String {
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let said = c.sql("postgres", sql);
        if is(&said) {
            return said;
        }
        assert!(std::time::Instant::now() < deadline, "it stays {said:?}: {sql}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn is_there(c: &Cluster, database: &str) -> bool {
    c.sql("postgres", &format!("select count(*) from pg_database where datname = '{database}'")) == "1"
}

#[test]
fn only_what_a_dead_restore_left_is_removed_and_never_with_a_session_in_it() {
    let c = Cluster::start("leftover", &[]);
    c.sql("postgres", "create database left1 connection limit 17");
    c.sql(
        "left1",
        "create table t as select n from generate_series(1, 100) n; \
         create function slow() returns int language plpgsql as 'begin \
           if current_database() like ''breakglass_restoring_%'' then perform pg_sleep(600); end if; return 1; end'; \
         create materialized view held as select slow() as one",
    );
    let dir = tempfile::tempdir().unwrap();
    let (d, at) = (dir.path(), url(&c, "left1"));
    let made = json(d, &at, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let restore = |into: &str, more: &[&str], code: i32| {
        let all = [&["backup", "restore", id, "--into", into, "--jobs", "1"][..], more].concat();
        let out = program(d, &at, &[], &all);
        assert_eq!(out.status.code(), Some(code), "{into}: {}", text(&out));
        text(&out)
    };
    const T: &[&str] = &["--table", "t"];

    // Somebody's, whatever it is called: named with what removes it, and left alone.
    let theirs = ["breakglass_restoring_mine", "breakglass_restoring_0123456789ab"];
    for name in theirs {
        c.sql("postgres", &format!("create database {name}"));
        c.sql(name, "create table precious as select 1 as one");
    }
    let said = restore("left2", T, 0);
    for name in theirs {
        assert_eq!(c.sql(name, "select one from precious"), "1", "{said}");
        assert!(said.contains(&format!("DROP DATABASE \"{name}\"")), "{said}");
    }
    for name in theirs {
        c.sql("postgres", &format!("drop database {name}"));
    }

    // A restore that was killed in the middle of its load.
    let mut child = begun(d, &at, &["backup", "restore", id, "--into", "left3", "--jobs", "1"]);
    let half = until(
        &c,
        "select max(datname) from pg_stat_activity where datname like 'breakglass\\_restoring\\_%' and wait_event = 'PgSleep'",
        |name| !name.is_empty(),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let mut reader = session(&c, &half, "select 1");
    let end = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{half}' and \
                       application_name <> 'reader'"
    );
    c.sql("postgres", &end);
    let sessions = format!("select string_agg(application_name, ',') from pg_stat_activity where datname = '{half}'");
    until(&c, &sessions, |s| s == "reader");
    until(&c, "select count(*) from pg_locks where locktype = 'advisory'", |n| n == "0");
    // Somebody reads in it.
    let said = restore("left4", T, 0);
    assert!(is_there(&c, &half) && reader.try_wait().unwrap().is_none(), "{said}");
    assert!(said.contains(&half) && said.contains("1 session"), "{said}");
    ended(&c, reader);
    until(&c, &sessions, str::is_empty);
    // What is refused touches nothing.
    restore("left4", T, 4);
    assert!(is_there(&c, &half));
    // Somebody works on it, also one who is connected by another database.
    let worker = session(&c, "template1", &format!("select pg_advisory_lock(hashtextextended('{half}', 0))"));
    restore("left5", T, 0);
    assert!(is_there(&c, &half), "its restore lives");
    ended(&c, worker);
    until(&c, "select count(*) from pg_locks where locktype = 'advisory'", |n| n == "0");
    // Under a name that was given to it later it is somebody's.
    c.sql("postgres", &format!("alter database {half} rename to breakglass_restoring_kept"));
    restore("left6", T, 0);
    assert!(is_there(&c, "breakglass_restoring_kept"));
    c.sql("postgres", &format!("alter database breakglass_restoring_kept rename to {half}"));
    let said = restore("left7", T, 0);
    assert!(!is_there(&c, &half) && said.contains(&format!("removing {half}")), "{said}");
    let limits = "select string_agg(distinct datconnlimit::text, ',') from pg_database where datname like 'left_'";
    assert_eq!(c.sql("postgres", limits), "17", "what marks it is gone from what is finished");

    // Over the database that everybody connects to: the way back is typed in another one, and is one.
    c.sql("postgres", "create table old as select 1 as one");
    let over = ["--overwrite", "--other-database", "--confirm", "postgres"];
    c.sql("left1", "drop materialized view held");
    let whole = json(d, &at, 0, &["backup", "create", "--logical"]);
    let id = whole["id"].as_str().unwrap();
    let out = program(d, &at, &[], &[&["backup", "restore", id, "--into", "postgres"][..], &over].concat());
    let said = text(&out);
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(said.contains("in database template1") && !said.contains("in database postgres"), "{said}");
    let sql = said.lines().find_map(|l| Some(l.split_once("to either: ")?.1)).unwrap_or_default();
    c.sql("template1", sql);
    assert_eq!(c.sql("postgres", "select one from old"), "1", "{sql}");
}

/// Whoever may make databases and is no superuser gets a dump of another's back, once it is said how.
#[test]
fn without_the_rights_of_the_owner() {
    let c = Cluster::start("unprivileged", &[]);
    c.sql("postgres", "create role plain login createdb; create role shop");
    c.sql("postgres", "create database ours");
    c.sql("ours", "create table t as select 1 as one; alter table t owner to shop");
    let dir = tempfile::tempdir().unwrap();
    let (d, at) = (dir.path(), url(&c, "ours"));
    let made = json(d, &at, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let plain = url(&c, "postgres").replace("user=postgres", "user=plain");
    let refused = json(d, &plain, 3, &["backup", "restore", id, "--into", "mine"]);
    let said = refused["error"].to_string();
    assert!(said.contains("member of role") && refused["error"]["hints"].to_string().contains("--no-owner"), "{said}");
    assert!(!is_there(&c, "mine"));
    json(d, &plain, 0, &["backup", "restore", id, "--into", "mine", "--no-owner", "--no-privileges"]);
    assert_eq!(c.sql("mine", "select one from t"), "1");
}
