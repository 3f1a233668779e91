//! `compare`: no false difference between true copies, whatever the types; every true difference found and localised.

use std::process::Command;

use breakglass::postgres::connect::run;
use breakglass::postgres::{Database, Instance};
use breakglass::recovery::compare::{Compared, Form, Options, compare};
use breakglass::recovery::verify;
use breakglass::recovery::watch::Unwatched;
use tokio_util::sync::CancellationToken;

use super::shop::script;
use crate::support::cluster::{Cluster, LIMIT, Scratch, block_on, programs, psql, server_user};

/// One table per type whose equality, hash or text has a trap; `k` is the key.
const TYPES: &[(&str, &str, &str)] = &[
    ("json", "json", "('{\"a\":  1, \"a\": 2}')"),
    ("jsonb", "jsonb", "('{\"b\": 1.10, \"a\": 2}')"),
    ("xml", "xml", "('<a>&amp;<b/></a>'), ('text only')"),
    ("point", "point", "('(0.1,-0)'), ('(1e300,-1e-300)')"),
    ("bit", "bit(5)", "(B'10101')"),
    ("varbit", "bit varying", "(B'1'), (B'')"),
    ("money", "money", "(-1234567.89), (0)"),
    ("tsvector", "tsvector", "('a:1A fat:2B,4C cat:5')"),
    ("tsquery", "tsquery", "('fat & (rat | !cat)')"),
    ("enum", "mood", "('cross'), ('calm')"),
    ("enums", "mood[]", "('{cross,calm}')"),
    ("numeric", "numeric", "(1.0), (1.00), ('NaN'), ('-Infinity'), (1e-100)"),
    ("float8", "float8", "('-0'), (0), ('NaN'), (0.1), (1e-310)"),
    ("float4", "float4", "('-0'), (0.1), (3.4e38)"),
    ("nocase", "text COLLATE nocase", "('Ab'), ('aB')"),
    ("german", "text COLLATE german", "('ä'), ('z'), ('')"),
    ("padded", "char(5)", "('a'), ('')"),
    ("tz", "timestamptz", "('infinity'), ('2026-11-20 14:00+02'), ('0044-03-15 12:00 BC')"),
    ("times", "timetz", "('14:00+02')"),
    ("span", "interval", "('1 mon'), ('30 days'), ('720:00'), ('-1 year 2 mons 3.000001 s')"),
    ("bytes", "bytea", "('\\x00ff'), ('')"),
    ("nets", "inet", "('10.0.0.1'), ('10.0.0.1/32'), ('::1/64')"),
    ("span4", "int4range", "('[1,5)'), ('empty')"),
    ("many", "int4multirange", "('{[1,3),[5,9)}')"),
    ("names", "name", "('x')"),
    ("types", "regtype", "('mood'), ('int4')"),
    ("composite", "pair", "(ROW(1, E'a\"b\\\\,c')), (ROW(NULL, ''))"),
    ("arrays", "numeric[]", "('{1.0,NULL}'), ('[2:3]={1,2}')"),
    ("uuid", "uuid", "('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11')"),
    ("path", "jsonpath", "('$.a[*] ? (@ > 1)')"),
];

fn schema() -> String {
    let mut sql = String::from(
        "CREATE TYPE filler AS ENUM ('q'); DROP TYPE filler; CREATE TYPE mood AS ENUM ('calm', 'cross'); CREATE TYPE pair AS (n int, t text); \
         CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
         CREATE COLLATION german (provider = icu, locale = 'de-DE');",
    );
    for (name, ty, values) in TYPES {
        sql.push_str(&format!(
            "CREATE TABLE t_{name} (k int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v {ty}); \
             INSERT INTO t_{name} (v) VALUES {values}; INSERT INTO t_{name} (v) VALUES (NULL);\n"
        ));
    }
    sql.push_str(
        "CREATE TABLE gap (a int, gone int, b text, PRIMARY KEY (b, a)); INSERT INTO gap SELECT i, i, 'x' || i % 7 FROM generate_series(1, 500) i; \
         ALTER TABLE gap DROP gone; CREATE INDEX gap_b ON gap (b) WHERE a > 3; \
         CREATE TABLE big (id bigint PRIMARY KEY, t text); INSERT INTO big SELECT i, 'row ' || i FROM generate_series(1, 20000) i; \
         CREATE TABLE parts (id int, t text) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100); \
         INSERT INTO parts SELECT i, 't' FROM generate_series(1, 20) i; \
         CREATE VIEW v AS SELECT b FROM gap; CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'; \
         GRANT SELECT ON gap TO pg_monitor; CREATE SEQUENCE s; SELECT nextval('s'); \
         CREATE UNLOGGED TABLE scratch (n int); INSERT INTO scratch SELECT generate_series(1, 50); \
         CREATE MATERIALIZED VIEW seen AS SELECT b FROM gap; SELECT lo_create(4711);",
    );
    sql
}

fn go(a: &Database, b: &Database, physical: bool, options: &Options) -> Compared {
    block_on(async {
        let mut a = verify::open(a, LIMIT).await.unwrap();
        let mut b = verify::open(b, LIMIT).await.unwrap();
        // What a role has set for itself must not change what is compared.
        run(&mut b, "SET TimeZone = 'UTC'").await.unwrap();
        compare(&mut a, &mut b, physical, options, &Unwatched, &CancellationToken::new()).await.unwrap()
    })
}

/// A copy of the files, running on its own.
fn file_copy(c: &Cluster, room: &Scratch) -> Instance {
    let copy = Instance::new(programs(), &room.path, server_user()).unwrap();
    copy.make_dirs().unwrap();
    breakglass::postgres::user::own_dir(&copy.layout.data, server_user().as_ref()).unwrap();
    let at = c.database("postgres");
    let mut command = programs().command("pg_basebackup", server_user().as_ref());
    command.arg("-D").arg(&copy.layout.data).args(["-X", "stream", "-c", "fast"]);
    for (name, value) in at.tool_env() {
        command.env(name, value.expose());
    }
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    copy.configure(&[("fsync".into(), "off".into()), ("max_connections".into(), "30".into())], None).unwrap();
    copy.start(LIMIT).unwrap();
    copy
}

#[test]
fn true_copies_are_equal_whatever_the_types_and_every_change_is_found() {
    let c = Cluster::start("compare", &[]);
    c.sql("postgres", "create database live");
    c.sql("postgres", "create database other");
    let (live, other) = (c.database("live"), c.database("other"));
    script(&live, &schema());
    let room = Scratch::new("compare-copy");
    let copy = file_copy(&c, &room);
    let files = copy.database("live");

    // A logical copy, in which every type has another OID and no column was ever dropped.
    psql(&other, "create type shift as enum ('one'); create table shifts (s shift)").unwrap();
    let mut dump = programs().command("pg_dump", None);
    for (name, value) in live.tool_env() {
        dump.env(name, value.expose());
    }
    let dumped = String::from_utf8(dump.output().unwrap().stdout).unwrap();
    script(&other, &dumped);
    psql(&other, "drop table shifts; drop type shift").unwrap();

    let all = Options::default();
    for (copy, physical) in [(&other, false), (&files, true)] {
        let r = go(&live, copy, physical, &all);
        assert_eq!(r.differences, [], "no false difference");
        let wrong: Vec<_> = r.tables.iter().filter(|t| t.equal != Some(true)).collect();
        assert!(wrong.is_empty() && r.equal, "{wrong:#?}");
        assert_eq!(r.tables.len(), TYPES.len() + 3);
        // Rows that are in none of these tables are named.
        let left = ["large objects (1)", "materialized views (public.seen)", "unlogged tables (public.scratch)"];
        assert_eq!(r.not_compared, left);
        let form = |name: &str| r.tables.iter().find(|t| t.table == name).unwrap().form;
        assert_eq!(form("public.big"), if physical { Form::Record } else { Form::Text });
    }

    // One change in one row of each type: values that some comparison takes for equal.
    for (table, change) in [
        ("t_json", "'{\"a\":1, \"a\": 2}'"),
        ("t_jsonb", "'{\"b\": 1.1, \"a\": 2}'"),
        ("t_numeric", "1.00"),
        ("t_float8", "'0'"),
        ("t_float4", "'0'"),
        ("t_nocase", "'AB'"),
        ("t_span", "'30 days'"),
        ("t_nets", "'10.0.0.1/31'"),
        ("t_enum", "'calm'"),
        ("t_padded", "'b'"),
        ("t_money", "0"),
        ("t_point", "'(0.1,0)'"),
    ] {
        psql(&files, &format!("update {table} set v = {change} where k = 1")).unwrap();
        psql(&other, &format!("update {table} set v = {change} where k = 1")).unwrap();
        for (copy, physical) in [(&other, false), (&files, true)] {
            let r = go(&live, copy, physical, &Options { tables: vec![table.into()], ..Options::default() });
            assert!(!r.equal, "{table}: {r:#?}");
            assert_eq!(r.tables[0].ranges.len(), 1, "{r:#?}");
            assert_eq!(r.tables[0].ranges[0].from.as_deref(), Some(&["1".to_string()][..]));
            assert_eq!(r.tables[0].ranges[0].different, 1);
        }
    }

    // Where: ranges of keys, also with a key of two columns and text.
    psql(&files, "update big set t = 'x' where id between 5000 and 5099; delete from big where id = 77 or id > 19990; insert into big values (-5, 'new')").unwrap();
    psql(&files, "update gap set a = 1000 where b = 'x3' and a = 3; delete from parts where id = 20").unwrap();
    let r = go(&live, &files, true, &all);
    let table = |name: &str| r.tables.iter().find(|t| t.table == name).unwrap();
    let lines: Vec<String> = table("public.big").ranges.iter().map(|r| r.line()).collect();
    assert_eq!(
        lines,
        [
            "-5: 1 only in the shadow",
            "77: 1 only in the source",
            "5000 to 5099: 100 different",
            "19991 to 20000: 10 only in the source"
        ]
    );
    let lines: Vec<String> = table("public.gap").ranges.iter().map(|r| r.line()).collect();
    assert_eq!(lines, ["x3, 3: 1 only in the source", "x3, 1000: 1 only in the shadow"]);
    assert!(table("public.parts_1").note.as_ref().unwrap().contains("no common primary key"));

    // A table that one side does not have is counted, not said to be empty.
    psql(&files, "create table alone as select generate_series(1, 2500) as n").unwrap();
    for (a, b, line) in [
        (&live, &files, "0 rows, 2500 rows; only in the shadow"),
        (&files, &live, "2500 rows, 0 rows; only in the source"),
    ] {
        let r = go(a, b, true, &Options { tables: vec!["alone".into()], ..Options::default() });
        assert!(!r.equal && r.tables[0].line().contains(line), "{:?}", r.tables[0].line());
    }
    psql(&files, "drop table alone").unwrap();

    // Everything that is not rows.
    for (category, change) in [
        ("indexes", "drop index gap_b"),
        ("sequences", "select nextval('s')"),
        ("privileges", "grant update on gap to pg_monitor"),
        ("privileges", "alter default privileges grant select on tables to public"),
        ("extensions", "create extension pg_stat_statements"),
        ("roles", "create role clerk in role pg_monitor"),
        ("constraints", "alter table gap add check (a > 0) not valid"),
        ("columns", "alter table gap alter b set default 'y'"),
        ("views", "create or replace view v as select b || '' as b from gap"),
        ("functions", "create or replace function f(int) returns int language sql as 'select $1 + 1'"),
        ("types", "alter type mood add value 'numb'"),
        ("relations", "alter table gap set (fillfactor = 50)"),
        ("settings", "alter database live set work_mem = '9MB'"),
        (
            "triggers",
            "create trigger tr before update on gap for each row execute function suppress_redundant_updates_trigger()",
        ),
    ] {
        let before = go(&live, &files, true, &Options { skip: vec!["rows".into()], ..Options::default() });
        psql(&files, change).unwrap();
        let r = go(&live, &files, true, &Options { skip: vec!["rows".into()], ..Options::default() });
        let new: Vec<_> = r.differences.iter().filter(|d| !before.differences.contains(d)).collect();
        assert!(new.iter().any(|d| d.category == category), "{change}: {new:#?}");
    }

    // Through the program: exit code and one JSON document.
    let program = |args: &[&str], password: bool| {
        let mut url = files.url();
        if password {
            url = "postgres://a:hunter2@localhost/live".into();
        }
        let out = Command::new(env!("CARGO_BIN_EXE_breakglass"))
            .args(["compare", "source", &url, "--json"])
            .args(args)
            .env("DATABASE_URL", live.url())
            .env("BREAKGLASS_HOME", room.path.join("state"))
            .output()
            .unwrap();
        (out.status.code().unwrap(), serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap())
    };
    let (code, json) = program(&["--table", "big"], false);
    assert_eq!((code, &json["equal"]), (1, &serde_json::json!(false)), "{json:#}");
    assert_eq!(json["tables"][0]["ranges"][2]["from"][0], "5000");
    assert_eq!(program(&["--table", "t_uuid"], false).0, 0);
    assert_eq!(program(&["--table", "nowhere"], false).0, 2);
    assert_eq!(program(&["--skip", "colours"], false).0, 2);
    let (code, json) = program(&[], true);
    assert_eq!(code, 2, "{json:#}");
    assert!(!json.to_string().contains("hunter2"));

    // A table that cannot be read is not called equal.
    let held = "from pg_locks where mode = 'AccessExclusiveLock' and granted and relation = 't_uuid'::regclass";
    let lock = std::thread::scope(|s| {
        let holder = s.spawn(|| psql(&files, "begin; lock table t_uuid; select pg_sleep(600); commit"));
        let deadline = std::time::Instant::now() + LIMIT;
        while psql(&files, &format!("select count(*) {held}")).unwrap() != "1" {
            assert!(std::time::Instant::now() < deadline);
        }
        let r = go(&live, &files, true, &Options { tables: vec!["t_uuid".into()], ..Options::default() });
        psql(&files, &format!("select pg_terminate_backend(pid) {held}")).unwrap();
        assert!(holder.join().unwrap().is_err(), "it was held to the end");
        r
    });
    assert!(lock.unread.iter().any(|u| u.contains("cannot be read in the shadow")), "{lock:#?}");
    assert_eq!((lock.equal, lock.tables[0].equal), (false, None), "{lock:#?}");
    assert!(lock.tables[0].note.as_ref().unwrap().contains("cannot be read in the shadow"));
    copy.stop(breakglass::postgres::Stop::Immediate, LIMIT).unwrap();
}

#[test]
fn one_table_is_compared_with_all_that_belongs_to_it() {
    let c = Cluster::start("compare-one", &[]);
    let sides = ["live", "other"].map(|name| {
        c.sql("postgres", &format!("create database {name}"));
        c.database(name)
    });
    for db in &sides {
        script(
            db,
            "create table a (id serial primary key, v text); create table b (id int, v text, w text); create sequence free; \
             insert into a (v) values ('x'), ('y'); insert into b values (1, 'x', 'y'); create table elsewhere (n int); \
             create table parts (id int, t text) partition by range (id); create table parts_1 partition of parts for values from (0) to (9);",
        );
    }
    let room = Scratch::new("compare-one-state");
    let program = |table: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_breakglass"))
            .args(["compare", "source", &sides[1].url(), "--json", "--table", table])
            .env("DATABASE_URL", sides[0].url())
            .env("BREAKGLASS_HOME", room.path.join("state"))
            .output()
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let found = json["differences"].as_array().unwrap_or_else(|| panic!("{json:#}")).clone();
        (out.status.code().unwrap(), found)
    };
    // What is another table's does not count.
    c.sql("other", "alter table elsewhere add column m int; select nextval('free')");
    for table in ["a", "b", "parts"] {
        assert_eq!(program(table), (0, vec![]), "{table}");
    }
    for (table, category, change) in [
        ("b", "columns", "alter table b drop column w"),
        ("a", "columns", "alter table a rename v to vv"),
        ("b", "constraints", "alter table b add constraint positive check (id > 0)"),
        ("b", "indexes", "create index b_v on b (v)"),
        ("a", "sequences", "select nextval('a_id_seq')"),
        ("b", "privileges", "grant select on b to public"),
        ("b", "relations", "alter table b set (fillfactor = 50)"),
        (
            "b",
            "triggers",
            "create trigger tr before update on b for each row execute function suppress_redundant_updates_trigger()",
        ),
        ("b", "policies", "create policy p on b using (true)"),
        ("parts", "constraints", "alter table parts add check (id > -1)"),
    ] {
        let (_, before) = program(table);
        c.sql("other", change);
        let (code, after) = program(table);
        let new = after.iter().filter(|d| !before.contains(d)).any(|d| d["category"] == category);
        assert!(code == 1 && new, "{change}: {after:#?}");
    }
}

/// `BREAKGLASS_SOAK=1`: one changed row among 8.7 million is found and named, in little more than the table is read once.
#[test]
fn one_changed_row_among_millions_is_found() {
    if std::env::var_os("BREAKGLASS_SOAK").is_none() {
        return;
    }
    const ROWS: u64 = 8_700_000;
    let c = Cluster::start("compare-millions", &[("max_wal_size", "4GB")]);
    c.sql("postgres", "create database live");
    let live = c.database("live");
    script(&live, "create table many (id bigint primary key, n int, t text);");
    script(
        &live,
        &format!("insert into many select g, g % 1000, 'row ' || g from generate_series(1, {ROWS}) g; checkpoint;"),
    );
    let room = Scratch::new("compare-millions-copy");
    let copy = file_copy(&c, &room);
    let files = copy.database("live");
    let all = Options::default();
    let timed = |what: &str| {
        let began = std::time::Instant::now();
        let r = go(&live, &files, true, &all);
        println!("{what}: {:.1} s", began.elapsed().as_secs_f32());
        r
    };
    let r = timed("equal");
    assert!(r.equal && r.tables[0].equal == Some(true), "{r:#?}");
    psql(&files, "update many set n = n + 1 where id = 5123457").unwrap();
    let r = timed("one row changed");
    let lines: Vec<String> = r.tables[0].ranges.iter().map(|r| r.line()).collect();
    assert_eq!((r.equal, lines), (false, vec!["5123457: 1 different".to_string()]), "{r:#?}");
    // A row twice on one side is no pair that cancels out.
    psql(&files, "update many set n = n - 1 where id = 5123457; insert into many select id + 10000000, n, t from many where id = 77").unwrap();
    let r = timed("one row more");
    let lines: Vec<String> = r.tables[0].ranges.iter().map(|r| r.line()).collect();
    assert_eq!((r.equal, lines), (false, vec!["10000077: 1 only in the shadow".to_string()]), "{r:#?}");
    copy.stop(breakglass::postgres::Stop::Immediate, LIMIT).unwrap();
}
