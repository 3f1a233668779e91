//! Restores through the real program: verified first, beside by default, the old database kept, failures without a trace.

use super::logical::{cluster, json, program, text, url};
use crate::support::cluster::{Cluster, psql};

fn databases(c: &Cluster) -> String {
    c.sql("postgres", "select string_agg(datname, ',' order by datname) from pg_database")
}

/// Other tests restore on the same cluster meanwhile; what a failed restore left would stay.
fn nothing_half_made(c: &Cluster) {
    let deadline = std::time::Instant::now() + crate::support::cluster::LIMIT;
    while databases(c).contains("breakglass_restoring") {
        assert!(std::time::Instant::now() < deadline, "a half-made database was left: {}", databases(c));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A database with some rows, its dump, and the folder of the repository.
fn dumped(name: &str) -> (std::sync::Arc<Cluster>, tempfile::TempDir, String, String) {
    let c = cluster();
    c.sql("postgres", &format!("create database {name}"));
    c.sql(
        name,
        "create table orders (id int primary key, x text); insert into orders select n, md5(n::text) from \
         generate_series(1, 3000) n; create schema s; create table s.items (id int references orders, q int); \
         insert into s.items select n, n from generate_series(1, 500) n; create index on s.items (q)",
    );
    let dir = tempfile::tempdir().unwrap();
    let url = url(&c, name);
    let made = json(dir.path(), &url, 0, &["backup", "create", "--logical"]);
    (c, dir, url, made["id"].as_str().unwrap().to_string())
}

#[test]
fn beside_by_default_and_over_it_only_by_name() {
    let (c, dir, url, id) = dumped("rest1");
    let d = dir.path();
    c.sql("rest1", "insert into orders values (0, 'after the dump')");
    let refused = json(d, &url, 4, &["backup", "restore", &id, "--into", "rest1"]);
    assert!(refused["error"]["hints"].to_string().contains("--overwrite"), "{refused}");
    let refused = json(d, &url, 4, &["backup", "restore", &id, "--into", "rest1", "--overwrite"]);
    assert!(refused["error"]["hints"].to_string().contains("--confirm"), "{refused}");
    json(d, &url, 4, &["backup", "restore", &id, "--into", "rest1", "--overwrite", "--confirm", "rest2"]);
    assert_eq!(c.sql("rest1", "select count(*) from orders"), "3001");
    // A session that stays in it is ended; it comes back to the new one.
    let mut sleeper = std::process::Command::new(crate::support::cluster::programs().path("psql"));
    sleeper.args(["-c", "select pg_sleep(300)"]).env_clear();
    for (k, v) in c.database("rest1").tool_env() {
        sleeper.env(k, v.expose());
    }
    let mut sleeper = sleeper.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let deadline = std::time::Instant::now() + crate::support::cluster::LIMIT;
    while c
        .sql("postgres", "select count(*) from pg_stat_activity where datname = 'rest1' and query like '%sleep(300)'")
        != "1"
    {
        assert!(std::time::Instant::now() < deadline, "the session did not come");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let done =
        json(d, &url, 0, &["backup", "restore", "latest", "--into", "rest1", "--overwrite", "--confirm", "rest1"]);
    assert!(!sleeper.wait().unwrap().success());
    assert!(done["restored"]["sessions_ended"].as_u64() == Some(1), "{done}");
    let kept = done["restored"]["kept"].as_str().unwrap();
    assert_eq!(c.sql("rest1", "select count(*) from orders"), "3000");
    assert_eq!(c.sql(kept, "select count(*) from orders"), "3001", "the old one is kept whole");
    assert_eq!(done["restored"]["rows"], 3500);
    // The way back that it names is one.
    c.sql("postgres", done["way_back"].as_str().unwrap());
    assert_eq!(c.sql("rest1", "select count(*) from orders"), "3001");
}

#[test]
fn damage_is_found_before_the_target_is_touched() {
    let (c, dir, url, id) = dumped("rest3");
    let d = dir.path();
    let path = d.join("repo/backups").join(&id).join("database.dump.bgo");
    let good = std::fs::read(&path).unwrap();
    let before = databases(&c);
    for at in [good.len() / 2, good.len() - 90, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let out = json(d, &url, 1, &["backup", "restore", &id, "--into", "rest3", "--overwrite", "--confirm", "rest3"]);
        assert!(out["error"]["what"].as_str().unwrap().contains("database.dump"), "{out}");
        std::fs::write(&path, &good[..at]).unwrap();
        json(d, &url, 1, &["backup", "restore", &id, "--into", "rest4"]);
    }
    // Another backup's dump in its place.
    std::fs::write(&path, &good).unwrap();
    let other = json(d, &url, 0, &["backup", "create", "--logical"]);
    let theirs = d.join("repo/backups").join(other["id"].as_str().unwrap()).join("database.dump.bgo");
    std::fs::copy(&theirs, &path).unwrap();
    json(d, &url, 1, &["backup", "restore", &id, "--into", "rest4"]);
    let after = databases(&c);
    assert!(!after.contains("rest4") && !after.contains("rest3_before"), "{before} then {after}");
    assert_eq!(c.sql("rest3", "select count(*) from orders"), "3000");
}

#[test]
fn a_part_brings_what_it_needs() {
    let (c, dir, url, id) = dumped("rest5");
    let d = dir.path();
    let done = json(d, &url, 0, &["backup", "restore", &id, "--into", "part1", "--table", "s.items"]);
    assert_eq!(c.sql("part1", "select (select count(*) from s.items), (select count(*) from orders)"), "500|0");
    assert!(done["restored"]["left_out"].to_string().contains("1 foreign key: items_id_fkey"), "{done}");
    json(d, &url, 0, &["backup", "restore", &id, "--into", "part2", "--schema", "public"]);
    assert_eq!(c.sql("part2", "select (select count(*) from s.items), (select count(*) from orders)"), "0|3000");
    let out = json(d, &url, 2, &["backup", "restore", &id, "--into", "part3", "--table", "itemz"]);
    assert!(out["error"]["hints"].to_string().contains("s.items"), "{out}");
    let all = ["backup", "restore", &id, "--into", "rest5", "--overwrite", "--confirm", "rest5", "--table", "orders"];
    assert!(json(d, &url, 4, &all)["error"]["why"].to_string().contains("everything else"));
}

#[test]
fn a_failed_load_leaves_the_server_as_it_was() {
    let c = cluster();
    c.sql("postgres", "create database breaks");
    // Loads only where the table's check holds; a function that says no after the dump makes the load fail.
    c.sql(
        "breaks",
        "create table gate (open bool); insert into gate values (true); create function ok(int) returns bool language \
         plpgsql immutable as $$ begin return coalesce((select open from public.gate), false); end $$; \
         create table t (n int check (ok(n))); insert into t values (1), (2)",
    );
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let url = url(&c, "breaks");
    let made = json(d, &url, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let before = databases(&c);
    // Only t: the gate stays empty, so that loading t fails.
    let out = json(d, &url, 3, &["backup", "restore", id, "--into", "broken", "--table", "t"]);
    assert!(out["error"]["why"].as_str().unwrap().contains("violates check constraint"), "{out}");
    let after = databases(&c);
    assert!(!after.contains("broken"), "{before} then {after}");
    nothing_half_made(&c);
    let out = program(d, &url, &[], &["backup", "restore", id, "--into", "whole", "--jobs", "1"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    nothing_half_made(&c);
    assert_eq!(psql(&c.database("whole"), "select count(*) from t").unwrap(), "2");
}

/// A collation the server does not have is known before anything is made there; roles and extensions: `awkward`.
#[test]
fn a_missing_collation_is_said_first() {
    let c = cluster();
    c.sql("postgres", "create database lacking");
    c.sql("lacking", "create table t (name text collate \"zu-x-icu\"); insert into t values ('one')");
    let dir = tempfile::tempdir().unwrap();
    let made = json(dir.path(), &url(&c, "lacking"), 0, &["backup", "create", "--logical"]);
    let restore = ["backup", "restore", made["id"].as_str().unwrap(), "--into", "here"];
    // Another server, as if its libraries did not know that one.
    let ours = Cluster::start("lacktarget", &[]);
    ours.sql("postgres", "delete from pg_collation where collname = 'zu-x-icu'");
    let before = databases(&ours);
    let refused = json(dir.path(), &url(&ours, "postgres"), 4, &restore);
    for word in ["zu-x-icu", "pg_import_system_collations", "Nothing was touched"] {
        assert!(refused["error"].to_string().contains(word), "{word}: {refused}");
    }
    assert_eq!(databases(&ours), before);
    ours.sql("postgres", "select pg_import_system_collations('pg_catalog')");
    json(dir.path(), &url(&ours, "postgres"), 0, &restore);
    assert_eq!(ours.sql("here", "select name from t"), "one");
}

#[test]
fn a_load_has_memory_for_its_indexes_and_leaves_no_setting() {
    let (c, dir, url, _) = dumped("rest_memory");
    let d = dir.path();
    c.sql("postgres", "alter system set maintenance_work_mem = '1MB'");
    c.sql("postgres", "select pg_reload_conf()");
    // It is filled when it is loaded: with what the session that fills it has.
    c.sql("rest_memory", "create materialized view seen as select current_setting('maintenance_work_mem') as memory");
    c.sql("postgres", "alter database rest_memory set maintenance_work_mem = '2MB'");
    let restore = |into: &str| {
        json(d, &url, 0, &["backup", "create", "--logical"]);
        json(d, &url, 0, &["backup", "restore", "latest", "--into", into, "--jobs", "2"]);
        let setting = "select setconfig::text from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase \
                       where datname = ";
        (c.sql(into, "select memory from seen"), c.sql("postgres", &format!("{setting}'{into}'")))
    };
    // The cluster has 16 MB of shared buffers, and two jobs share half of them.
    assert_eq!(restore("rest_memory_a"), ("4MB".into(), "{maintenance_work_mem=2MB}".into()), "the dumped one's own");
    c.sql("postgres", "alter database rest_memory reset maintenance_work_mem");
    assert_eq!(restore("rest_memory_b"), ("4MB".into(), String::new()));
}

/// A bit of a backup's dump.
fn flip(d: &std::path::Path, id: &str) {
    let path = d.join("repo/backups").join(id).join("database.dump.bgo");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn the_latest_is_of_the_database_that_is_asked_for_and_rather_a_right_one() {
    let c = cluster();
    for name in ["latest_shop", "latest_blog"] {
        c.sql("postgres", &format!("create database {name}"));
        c.sql(name, "create table t (n int); insert into t values (1)");
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (shop, blog) = (url(&c, "latest_shop"), url(&c, "latest_blog"));
    let make = |url: &str| json(d, url, 0, &["backup", "create", "--logical"])["id"].as_str().unwrap().to_string();
    let (older, newer, other) = (make(&shop), make(&shop), make(&blog));
    let restore = |url: &str, into: &str| {
        let out = program(d, url, &[], &["backup", "restore", "latest", "--into", into]);
        (out.status.code(), text(&out))
    };
    let (code, said) = restore(&shop, "latest_one");
    assert!(code == Some(0) && said.contains(&format!("restored {newer} into")), "{said}");
    assert!(
        said.contains("of database \"latest_shop\"") && said.contains("others here, of database \"latest_blog\""),
        "{said}"
    );
    let listed = text(&program(d, &shop, &[], &["backup", "list"]));
    let line = listed.lines().find(|l| l.starts_with(&other)).unwrap();
    assert!(line.contains(", of database \"latest_blog\","), "{listed}");
    // Nothing says which one is meant; or two things do, and not the same.
    let (code, said) = restore(&url(&c, "postgres"), "latest_two");
    assert!(code == Some(4) && said.contains("nothing says which"), "{said}");
    let (code, said) = restore(&shop, "latest_blog");
    assert!(code == Some(4) && said.contains("--into \"latest_blog\""), "{said}");
    // One on record as damaged is not taken while there is a right one, and not without a word where there is none.
    flip(d, &newer);
    json(d, &shop, 1, &["backup", "verify", &newer]);
    let (code, said) = restore(&shop, "latest_three");
    assert!(code == Some(0) && said.contains(&format!("restored {older} into")), "{said}");
    assert!(said.contains(&format!("passed over: {newer}")) && said.contains("DAMAGED"), "{said}");
    flip(d, &older);
    json(d, &shop, 1, &["backup", "verify", &older]);
    let (code, said) = restore(&shop, "latest_four");
    assert!(code == Some(1) && said.contains(&format!("WARNING: {newer}")), "{said}");
}

#[test]
fn a_base_backup_without_its_log_is_refused_before_it_is_taken() {
    let c = cluster();
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let out = program(d, &url(&c, "postgres"), &[], &["backup", "create"]);
    let said = text(&out);
    assert!(out.status.code() == Some(4) && said.contains("archive_mode is off"), "{:?} {said}", out.status);
    for word in ["ALTER SYSTEM SET archive_mode", "breakglass doctor", "wal receive", "--logical"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!d.join("repo").exists(), "nothing was made for it");
}

/// What only a superuser may make: PostgreSQL says no, and the way on is said with it.
#[test]
fn who_may_not_make_a_foreign_data_wrapper_is_told_who_may() {
    let c = cluster();
    c.sql("postgres", "create database wrapped");
    c.sql("postgres", "create role wraps login createdb");
    c.sql("wrapped", "create foreign data wrapper w; create server s foreign data wrapper w; create table t (n int)");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let url = url(&c, "wrapped");
    let made = json(d, &url, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let theirs = url.replace("user=postgres", "user=wraps");
    assert_ne!(theirs, url);
    let args = ["backup", "restore", id, "--into", "unwrapped", "--no-owner", "--no-privileges"];
    let out = json(d, &theirs, 3, &args);
    assert!(out["error"]["hints"].to_string().contains("Restore as a superuser"), "{out}");
    assert!(!databases(&c).contains("unwrapped"));
}
