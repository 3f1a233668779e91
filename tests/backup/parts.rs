//! Some tables or schemas of a dump: with every row that is theirs, without what hangs on what is left out, and all that is named.

use super::logical::{cluster, json, program, text, url};

/// A database with large objects that are owned, commented and granted, and tables whose rows lie in other schemas.
fn wide(name: &str) -> (tempfile::TempDir, String) {
    let c = cluster();
    c.sql("postgres", &format!("create database {name}"));
    c.sql("postgres", &format!("create role {name}_reader"));
    c.sql(
        name,
        &format!(
            "create table t (n int primary key); insert into t select generate_series(1, 50); \
             select lo_create(4711); comment on large object 4711 is 'a scan'; \
             grant select on large object 4711 to {name}_reader; \
             create schema s1; create schema s2; create schema archive; \
             create table s1.p (id int primary key) partition by range (id); \
             create table s1.p0 partition of s1.p for values from (1) to (336); \
             create table s2.p1 partition of s1.p for values from (336) to (2000); \
             insert into s1.p select generate_series(1, 1000); \
             create table s1.f (id int references s1.p); insert into s1.f select generate_series(1, 1000); \
             create table s1.log (n int); create table archive.log_old () inherits (s1.log); \
             create table archive.log_oldest () inherits (archive.log_old); \
             insert into s1.log select generate_series(1, 10); insert into archive.log_old select generate_series(1, 20); \
             insert into archive.log_oldest select generate_series(1, 30); \
             create table s2.other as select 1 as one"
        ),
    );
    (tempfile::tempdir().unwrap(), url(&c, name))
}

#[test]
fn large_objects_stay_out_with_all_that_is_said_of_them() {
    let c = cluster();
    let (dir, url) = wide("parts1");
    let d = dir.path();
    std::fs::write(d.join("breakglass.toml"), "[backup.tiers]\ncritical = [\"t\"]\n").unwrap();
    let made = json(d, &url, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    for (into, what) in [("parts1_t", ["--table", "t"]), ("parts1_tier", ["--tier", "critical"])] {
        let out = program(d, &url, &[], &["backup", "restore", id, "--into", into, what[0], what[1]]);
        let said = text(&out);
        assert_eq!(out.status.code(), Some(0), "{said}");
        assert_eq!(
            c.sql(into, "select (select count(*) from t), (select count(*) from pg_largeobject_metadata)"),
            "50|0"
        );
        assert!(said.contains("left out: 1 large object\n"), "{said}");
        // Each by its name: who reads this decides by it.
        let rows = said.lines().find(|l| l.contains("left out: rows of ")).unwrap_or_default();
        assert!(rows.contains("7 tables") && rows.contains("\"archive\".\"log_old\""), "{said}");
        let read = said.lines().find_map(|l| l.split_once(" bytes of the dump were read")?.0.split_once(" of the "));
        let (read, all) = read.unwrap_or_else(|| panic!("it does not say what was read: {said}"));
        let digits = |s: &str| s.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap();
        assert!(digits(read) <= digits(all), "{said}");
    }
    // All tables there are, by name: what was not asked for stays out all the same.
    c.sql("postgres", "create database parts1_one");
    c.sql(
        "parts1_one",
        "create table t as select 1 as one; select lo_from_bytea(4712, 'scan'); comment on large object 4712 is 'it'",
    );
    let one = crate::backup::logical::url(&c, "parts1_one");
    let made = json(d, &one, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let done = json(d, &one, 0, &["backup", "restore", id, "--into", "parts1_same", "--table", "t"]);
    assert!(done["restored"]["left_out"].to_string().contains("1 large object"), "{done}");
    json(d, &one, 0, &["backup", "restore", id, "--into", "parts1_whole"]);
    assert_eq!(c.sql("parts1_whole", "select convert_from(lo_get(4712), 'UTF8')"), "scan");
}

#[test]
fn a_schemas_tables_have_all_their_rows() {
    let c = cluster();
    let (dir, url) = wide("parts2");
    let d = dir.path();
    let made = json(d, &url, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let rows = "select (select count(*) from s1.p), (select count(*) from s1.log), (select count(*) from s1.f), \
                (select count(*) from s2.other)";
    let out = program(d, &url, &[], &["backup", "restore", id, "--into", "parts2_schema", "--schema", "s1"]);
    let said = text(&out);
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert_eq!(c.sql("parts2_schema", rows), "1000|60|1000|0", "{said}");
    assert_eq!(c.sql("parts2_schema", "select count(*) from pg_constraint where conname = 'f_id_fkey'"), "1");
    for along in ["\"s2\".\"p1\"", "\"archive\".\"log_old\"", "\"archive\".\"log_oldest\""] {
        assert!(said.lines().any(|l| l.contains("along") && l.contains(along)), "{along}: {said}");
    }
    let done = json(d, &url, 0, &["backup", "restore", id, "--into", "parts2_log", "--table", "s1.log"]);
    assert_eq!(c.sql("parts2_log", rows), "0|60|0|0", "{done}");
    // A child alone is a child alone.
    json(d, &url, 0, &["backup", "restore", id, "--into", "parts2_child", "--table", "archive.log_old"]);
    assert_eq!(c.sql("parts2_child", "select count(*) from s1.log"), "50");
    // A dump of them alone.
    let some = json(d, &url, 0, &["backup", "create", "--table", "s1.*"]);
    json(d, &url, 0, &["backup", "restore", some["id"].as_str().unwrap(), "--into", "parts2_some"]);
    let rows = "select (select count(*) from s1.p), (select count(*) from s1.log), (select count(*) from s1.f)";
    assert_eq!(c.sql("parts2_some", rows), "1000|60|1000");
    // A child comes first with the table whose rows it holds.
    std::fs::write(d.join("breakglass.toml"), "[backup.tiers]\ncritical = [\"s1.log\"]\n").unwrap();
    let tier = json(d, &url, 0, &["backup", "create", "--tier", "critical"]);
    json(d, &url, 0, &["backup", "restore", tier["id"].as_str().unwrap(), "--into", "parts2_tier"]);
    assert_eq!(c.sql("parts2_tier", "select count(*) from s1.log"), "60");
}
