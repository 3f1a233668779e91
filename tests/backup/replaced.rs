//! Replacing a database that subscribes, publishes or holds a prepared transaction: said first, and nothing goes to the one that is kept.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use super::logical::{json, program, text, url};
use crate::support::cluster::{Cluster, LIMIT, programs};

fn cluster() -> Arc<Cluster> {
    static C: OnceLock<Arc<Cluster>> = OnceLock::new();
    let settings =
        [("wal_level", "logical"), ("max_prepared_transactions", "4"), ("wal_retrieve_retry_interval", "200ms")];
    C.get_or_init(|| Cluster::start("replaced", &settings)).clone()
}

/// Waits until the query answers this.
fn until(c: &Cluster, database: &str, sql: &str, wanted: &str) {
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let got = c.sql(database, sql);
        if got == wanted {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{sql}: {got} and not {wanted}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A database that subscribes to another one of the same server, and holds the first row already.
fn subscribed(c: &Cluster, from: &str, to: &str, more: &str) {
    for name in [from, to] {
        c.sql("postgres", &format!("create database {name}"));
        c.sql(name, "create table t (id int primary key)");
    }
    c.sql(to, more);
    c.sql(from, "create publication p for table t; insert into t values (1)");
    c.sql(from, &format!("select pg_create_logical_replication_slot('{to}', 'pgoutput')"));
    let at = c.database(from).url();
    c.sql(to, &format!("create subscription \"{to} s\" connection '{at}' publication p with (create_slot = false, slot_name = '{to}')"));
    until(c, to, "select count(*) from t", "1");
}

fn enabled(c: &Cluster, database: &str) -> String {
    c.sql(database, "select subenabled from pg_subscription s join pg_database d on d.oid = subdbid where datname = current_database()")
}

fn over(d: &Path, at: &str, code: i32, id: &str, name: &str, more: &[&str]) -> serde_json::Value {
    let mut args = vec!["backup", "restore", id, "--into", name, "--overwrite", "--confirm", name];
    args.extend(more);
    json(d, at, code, &args)
}

#[test]
fn the_stream_of_a_subscriber_does_not_go_on_into_the_one_that_is_kept() {
    let c = cluster();
    subscribed(&c, "pub1", "sub1", "");
    let (dir, at) = (tempfile::tempdir().unwrap(), url(&c, "sub1"));
    let d = dir.path();
    let id = json(d, &at, 0, &["backup", "create", "--logical"])["id"].as_str().unwrap().to_string();
    let refused = over(d, &at, 4, &id, "sub1", &[]);
    let said = refused["error"].to_string();
    assert!(said.contains("sub1 s") && said.contains("--detach-replication"), "{said}");
    assert_eq!(enabled(&c, "sub1"), "t");
    c.sql("pub1", "insert into t values (2)");
    until(&c, "sub1", "select count(*) from t", "2");

    let done = over(d, &at, 0, &id, "sub1", &["--detach-replication"]);
    let kept = done["restored"]["kept"].as_str().unwrap();
    assert_eq!((enabled(&c, kept).as_str(), enabled(&c, "sub1").as_str()), ("f", "f"), "{done}");
    // What is said to be done is what helps: what comes from now on arrives in the one that is used.
    let steps = done["restored"]["replication"].to_string().replace("\\\"", "\"");
    let free = "ALTER SUBSCRIPTION \"sub1 s\" SET (slot_name = NONE);";
    let gone = format!("{free} DROP SUBSCRIPTION \"sub1 s\";");
    let on = "CREATE SUBSCRIPTION \"sub1 s\" CONNECTION '…' PUBLICATION \"p\" WITH (create_slot = false, slot_name = 'sub1', copy_data = false);";
    for step in [free, &gone, on, "copy_data = true", "pg_drop_replication_slot('sub1')"] {
        assert!(steps.contains(step), "{step:?} is not in {steps}");
    }
    c.sql("pub1", "insert into t values (3)");
    c.sql(kept, free);
    c.sql("sub1", free);
    c.sql("sub1", "drop subscription \"sub1 s\"");
    c.sql("sub1", &on.replace('…', &c.database("pub1").url()));
    until(&c, "sub1", "select string_agg(id::text, ',' order by id) from t", "1,3");
    assert_eq!(c.sql(kept, "select count(*) from t"), "2");
    c.sql("sub1", "alter subscription \"sub1 s\" disable");
}

/// Holds a session in the database that is being built, for which the dump's own check waits.
fn hold(c: &Cluster) -> Child {
    until(c, "postgres", "select count(*) from pg_database where datname like 'breakglass_restoring%'", "1");
    let name = c.sql("postgres", "select datname from pg_database where datname like 'breakglass_restoring%'");
    let mut psql = Command::new(programs().path("psql"));
    psql.args(["-c", "select pg_sleep(300)"]).env_clear();
    for (k, v) in c.database(&name).tool_env() {
        psql.env(k, v.expose());
    }
    psql.env("PGAPPNAME", "holder").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_restore_that_fails_at_the_end_leaves_the_subscription_as_it_was() {
    // A server of its own: the database that is built is looked for by its name.
    let c = Cluster::start("replaced2", &[("wal_level", "logical"), ("wal_retrieve_retry_interval", "200ms")]);
    subscribed(
        &c,
        "pub2",
        "sub2",
        "create function held() returns bool language plpgsql as $$ begin while current_database() like 'breakglass%' and not exists \
         (select from pg_stat_activity where datname = current_database() and application_name = 'holder') loop \
         perform pg_sleep(0.05); perform pg_stat_clear_snapshot(); end loop; return true; end $$; \
         create table waits (n int check (held())); insert into waits values (1)",
    );
    let (dir, at) = (tempfile::tempdir().unwrap(), url(&c, "sub2"));
    let d = dir.path();
    let id = json(d, &at, 0, &["backup", "create", "--logical"])["id"].as_str().unwrap().to_string();
    let mut holder = None;
    let failed = std::thread::scope(|s| {
        let work = s.spawn(|| over(d, &at, 3, &id, "sub2", &["--detach-replication"]));
        holder = Some(hold(&c));
        work.join().unwrap()
    });
    holder.unwrap().wait().unwrap();
    assert!(failed["error"]["why"].to_string().contains("accessed by other users"), "{failed}");
    assert_eq!(enabled(&c, "sub2"), "t", "{failed}");
    c.sql("pub2", "insert into t values (2)");
    until(&c, "sub2", "select count(*) from t", "2");
    // What was built held a subscription, too; it is gone all the same.
    let left = c.sql("postgres", "select count(*) from pg_database where datname ~ 'restoring|before'");
    assert_eq!(left, "0", "{failed}");
    c.sql("sub2", "alter subscription \"sub2 s\" disable");
}

#[test]
fn slots_of_a_publisher_are_named_before_and_after() {
    let c = cluster();
    c.sql("postgres", "create database pub3");
    c.sql("pub3", "create table t (id int primary key); create publication p for table t");
    c.sql("pub3", "select pg_create_logical_replication_slot('to_warehouse', 'pgoutput')");
    let (dir, at) = (tempfile::tempdir().unwrap(), url(&c, "pub3"));
    let d = dir.path();
    let id = json(d, &at, 0, &["backup", "create", "--logical"])["id"].as_str().unwrap().to_string();
    let said = over(d, &at, 4, &id, "pub3", &[])["error"].to_string();
    assert!(said.contains("to_warehouse") && said.contains("--detach-replication"), "{said}");
    let args = ["backup", "restore", &id, "--into", "pub3", "--overwrite", "--confirm", "pub3", "--detach-replication"];
    let out = program(d, &at, &[], &args);
    let said = text(&out);
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(said.contains("pg_drop_replication_slot('to_warehouse')") && said.contains("pub3_before_"), "{said}");
}

#[test]
fn a_prepared_transaction_is_found_before_anything_is_loaded() {
    // A server of its own: a slot is made only once every transaction of the server has ended.
    let c = Cluster::start("replaced4", &[("max_prepared_transactions", "4")]);
    c.sql("postgres", "create database prep4");
    c.sql("prep4", "create table t (id int)");
    let (dir, at) = (tempfile::tempdir().unwrap(), url(&c, "prep4"));
    let d = dir.path();
    let id = json(d, &at, 0, &["backup", "create", "--logical"])["id"].as_str().unwrap().to_string();
    c.sql("prep4", "begin; insert into t values (1); prepare transaction 'it''s one'");
    let said = over(d, &at, 4, &id, "prep4", &["--detach-replication"])["error"].to_string();
    assert!(said.contains("ROLLBACK PREPARED 'it''s one'") && said.contains("COMMIT PREPARED 'it''s one'"), "{said}");
    c.sql("prep4", "rollback prepared 'it''s one'");
    over(d, &at, 0, &id, "prep4", &[]);
}
