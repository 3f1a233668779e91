//! A dump of some tables comes back by itself: with the types, functions, sequences and extensions that they use.

use super::logical::{cluster, json, program, text, url};

#[test]
fn a_dump_of_a_table_brings_what_the_table_needs() {
    let c = cluster();
    c.sql("postgres", "create database needs1");
    c.sql(
        "needs1",
        "create schema kinds; create schema odd; \
         create type kinds.mood as enum ('sad', 'ok'); create type kinds.pair as (a int, m kinds.mood); \
         create function kinds.even(int) returns boolean language sql immutable as 'select $1 % 2 = 0'; \
         create domain even as int check (kinds.even(value)); \
         create sequence odd.numbers start 100; select nextval('odd.numbers'); \
         create function touched() returns trigger language plpgsql as 'begin new.at = now(); return new; end'; \
         create function parsed(a int) returns int language sql immutable begin atomic; select a + 1; end; \
         create table others (id int primary key); insert into others values (1); \
         create table shop (id int primary key default nextval('odd.numbers'), m kinds.mood not null, ms kinds.mood[], p kinds.pair, \
           e even, at timestamptz, other int references others, n int default parsed(1)); \
         create trigger touch before insert on shop for each row execute function touched(); \
         create index shop_even on shop (kinds.even(id)); \
         insert into shop (m, ms, p, e, other) values ('ok', '{sad,ok}', row(1, 'sad'), 2, 1), ('sad', null, null, 4, 1); \
         create type never as enum ('x'); \
         create role needs1_other; create table hidden (id int); alter table hidden owner to needs1_other",
    );
    let columns: Vec<String> = (0..30).map(|n| format!("id + {n} as c{n}")).collect();
    c.sql("needs1", &format!("create view seen as select m, {} from shop", columns.join(", ")));
    let at = url(&c, "needs1");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    super::repository(d);
    let out = program(d, &at, &[], &["--json", "backup", "create", "--table", "shop"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("type kinds.mood") && said.contains("function public.touched()"), "{said}");
    let done: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let id = done["id"].as_str().unwrap();
    assert_eq!(done["lacks"], serde_json::json!([]), "{done}");
    // What the trigger's function calls stands in its body as text: nobody follows it, and that is said, then and now. Of a body
    // that the server keeps parsed, what it calls is known.
    assert_eq!(
        done["not_followed"],
        serde_json::json!(["function kinds.even(integer)", "function public.touched()"]),
        "{done}"
    );
    assert!(said.contains("function public.touched() is not followed"), "{said}");
    assert_eq!(json(d, &at, 0, &["backup", "verify", id])["ok"], true);

    let back = json(d, &at, 0, &["backup", "restore", id, "--into", "needs1_back"]);
    assert_eq!(back["restored"]["rows"], 2, "{back}");
    let left_out = back["restored"]["left_out"].to_string();
    assert!(left_out.contains("1 foreign key: shop_other_fkey of ") && left_out.contains("shop"), "{back}");
    let c2 = |sql: &str| c.sql("needs1_back", sql);
    assert_eq!(
        c2(
            "select string_agg(m || ':' || coalesce(ms::text, '') || ':' || coalesce(p::text, '') || e, ' ' order by id) from shop"
        ),
        "ok:{sad,ok}:(1,sad)2 sad::4"
    );
    // It goes on where it was: the sequence with its value, the trigger with its function, the domain with its check.
    assert_eq!(
        c2("insert into shop (m) values ('ok') returning id || ' ' || (at is not null)").lines().next(),
        Some("103 true")
    );
    assert_eq!(c2("select to_regtype('never') is null and to_regclass('others') is null"), "t", "and nothing else");
    let broken = breakglass_err(&c, "insert into shop (m, e) values ('ok', 3)");
    assert!(broken.contains("even"), "{broken}");

    // What cannot come along is said when the dump is taken, not on the day it is needed.
    let out = program(d, &at, &[], &["--json", "backup", "create", "--table", "seen"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let done: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(done["lacks"].to_string().contains("table public.shop"), "{done}");
    assert!(text(&out).contains("does not come back by itself"), "{}", text(&out));
    // The line that matters, and not the end of a statement that is longer than all that is kept.
    let id = done["id"].as_str().unwrap();
    let out = program(d, &at, &[], &["backup", "restore", id, "--into", "needs1_seen"]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    for says in ["relation \"public.shop\" does not exist", "at VIEW seen", "only: what those are made from"] {
        assert!(text(&out).contains(says), "{says}: {}", text(&out));
    }
    assert!(!text(&out).contains("CREATE VIEW"), "{}", text(&out));

    // Of many keys that are left out some are named, and the rest is counted.
    let many: String = (0..12).map(|n| format!("create table k{n} (id int primary key); ")).collect();
    let columns: Vec<String> = (0..12).map(|n| format!("k{n} int references k{n}")).collect();
    c.sql("needs1", &format!("{many} create table keys ({})", columns.join(", ")));
    let keys = json(d, &at, 0, &["backup", "create", "--table", "keys"]);
    let back = json(d, &at, 0, &["backup", "restore", keys["id"].as_str().unwrap(), "--into", "needs1_keys"]);
    let left_out = back["restored"]["left_out"].to_string();
    assert!(left_out.contains("12 foreign keys: ") && left_out.contains("and 2 more"), "{back}");
}

fn breakglass_err(c: &crate::support::cluster::Cluster, sql: &str) -> String {
    crate::support::cluster::psql(&c.database("needs1_back"), sql).unwrap_err()
}
