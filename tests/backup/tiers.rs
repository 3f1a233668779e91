//! What comes first comes back first: tables by tiers, in a dump of them alone and in a restore of everything.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::logical::{cluster, json, program, text, url};

const CONFIG: &str = "[backup.tiers]\ncritical = [\"orders\", \"pay.*\"]\nimportant = [\"public.customers\"]\n";

/// A shop whose critical tables are small beside the others, with keys between all of them.
fn shop(name: &str) -> (String, tempfile::TempDir) {
    let c = cluster();
    c.sql("postgres", &format!("create database {name}"));
    c.sql(
        name,
        "create table customers (id int primary key, name text); \
         insert into customers select n, md5(n::text) from generate_series(1, 300) n; \
         create table orders (id int primary key, customer int references customers, at date not null); \
         insert into orders select n, 1 + n % 300, date '2026-01-01' + n % 300 from generate_series(1, 2000) n; \
         create index orders_at on orders (at); comment on index orders_at is 'by day'; \
         create schema pay; create table pay.parts (id int, k int, primary key (id, k)) partition by list (k); \
         create table pay.one partition of pay.parts for values in (1); \
         create table pay.two partition of pay.parts for values in (2); \
         insert into pay.parts select n, 1 + n % 2 from generate_series(1, 100) n; \
         create table pay.lines (order_id int references orders, id serial primary key, part int, k int, \
           foreign key (part, k) references pay.parts); \
         insert into pay.lines (order_id, part, k) select n, 1 + n % 100, 1 + (1 + n % 100) % 2 from generate_series(1, 500) n; \
         create function touched() returns trigger language plpgsql as 'begin return new; end'; \
         create trigger touch before update on orders for each row execute function touched(); \
         create table clicks (id int, at int, order_id int references orders); \
         insert into clicks select n, n, 1 + n % 2000 from generate_series(1, 5000) n; \
         create materialized view daily as select at, count(*) from orders group by at; \
         create view big as select * from orders where id > 1000",
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("breakglass.toml"), CONFIG).unwrap();
    (url(&c, name), dir)
}

#[test]
fn a_dump_of_a_tier_comes_back_by_itself() {
    let c = cluster();
    let (url, dir) = shop("tier1");
    let d = dir.path();
    let made = json(d, &url, 0, &["backup", "create", "--logical", "--tier", "critical"]);
    let id = made["id"].as_str().unwrap();
    let done = json(d, &url, 0, &["backup", "restore", id, "--into", "tier1_critical"]);
    // orders, pay.lines, and both partitions.
    assert_eq!((&done["restored"]["tables"], &done["restored"]["rows"]), (&4.into(), &2600.into()), "{done}");
    let rows = "select (select count(*) from orders) || ' ' || (select count(*) from pay.parts) || ' ' || \
                (select count(*) from customers) || ' ' || (select count(*) from clicks)";
    assert_eq!(c.sql("tier1_critical", rows), "2000 100 0 0", "definitions of all, rows of the critical ones");
    // The keys between two critical tables are there; one to a table without rows could not be.
    let keys = "select string_agg(conrelid::regclass || '>' || confrelid::regclass, ',' order by conname) from pg_constraint \
                where contype = 'f' and conparentid = 0";
    assert_eq!(c.sql("tier1_critical", keys), "pay.lines>orders,pay.lines>pay.parts");
    assert!(done["restored"]["left_out"].to_string().contains("2 foreign keys"), "{done}");
    // Asked for more than it holds, it says so before anything is made.
    let out = program(d, &url, &[], &["backup", "restore", id, "--into", "never", "--table", "customers"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    assert!(text(&out).contains("no rows of table") && text(&out).contains("--tier critical"), "{}", text(&out));

    // It is no way back for the whole: never over the database, never what "latest" means once there is a whole one.
    let over = ["backup", "restore", id, "--into", "tier1", "--overwrite", "--confirm", "tier1"];
    let out = program(d, &url, &[], &over);
    assert!(out.status.code() == Some(4) && text(&out).contains("by a part of a dump"), "{}", text(&out));
    let whole = json(d, &url, 0, &["backup", "create", "--logical"]);
    json(d, &url, 0, &["backup", "create", "--tier", "critical"]);
    assert!(text(&program(d, &url, &[], &["backup", "list"])).contains("of tier critical only"));
    let done = json(d, &url, 0, &["backup", "restore", "latest", "--into", "tier1_latest"]);
    assert_eq!(done["backup"], whole["id"], "{done}");

    // Definitions alone are no database either, and a template is none that may be replaced.
    json(d, &url, 0, &["backup", "create", "--schema-only"]);
    assert!(text(&program(d, &url, &[], &["backup", "list"])).contains("definitions without rows"));
    let done = json(d, &url, 0, &["backup", "restore", "latest", "--into", "tier1_again"]);
    assert_eq!(done["backup"], whole["id"], "{done}");
    let over = ["backup", "restore", "latest", "--into", "template1", "--overwrite", "--other-database", "--confirm"];
    let out = program(d, &url, &[], &[&over[..], &["template1"]].concat());
    assert!(out.status.code() == Some(4) && text(&out).contains("it is a template"), "{}", text(&out));

    // Some tables: with their partitions, counted, so that a restore can be held against it.
    c.sql(
        "tier1",
        "create table logs (k int) partition by list (k); create table leaf partition of logs for values in (1)",
    );
    c.sql("tier1", "insert into logs select 1 from generate_series(1, 7)");
    let out = program(d, &url, &[], &["backup", "create", "--table", "log[a-z]"]);
    assert!(out.status.code() == Some(2) && text(&out).contains("every other sign means itself"), "{}", text(&out));
    let some = json(d, &url, 0, &["backup", "create", "--table", "LOG?"]);
    let done = json(d, &url, 0, &["backup", "restore", some["id"].as_str().unwrap(), "--into", "tier1_some"]);
    assert_eq!((&done["restored"]["tables"], &done["restored"]["rows"]), (&1.into(), &7.into()), "{done}");
    assert_eq!(c.sql("tier1_some", "select count(*) from logs"), "7");
    let of_whole =
        ["backup", "restore", whole["id"].as_str().unwrap(), "--into", "tier1_parts", "--table", "pay.parts"];
    let done = json(d, &url, 0, &of_whole);
    assert_eq!(done["restored"]["rows"], 100, "{done}");
    assert!(done["restored"]["left_out"].to_string().contains("daily"), "{done}");

    // A critical table that is not there is no detail.
    for (tiers, code, says) in [
        ("critical = [\"orders\", \"public.orders_old\"]", 4, "no table \"public.orders_old\""),
        ("important = [\"orders\"]", 2, "no table is of the tier \"critical\""),
        ("critical = [\"orders\"]\nimportant = [\"orders\"]", 2, "both critical and important"),
        ("urgent = [\"orders\"]", 2, "unknown field"),
    ] {
        std::fs::write(d.join("breakglass.toml"), format!("[backup.tiers]\n{tiers}\n")).unwrap();
        let out = program(d, &url, &[], &["backup", "create", "--tier", "critical"]);
        assert_eq!(out.status.code(), Some(code), "{tiers}: {}", text(&out));
        assert!(text(&out).contains(says), "{tiers}: {}", text(&out));
    }
}

#[test]
fn critical_tables_are_back_before_the_others() {
    let c = cluster();
    let (url, dir) = shop("tier2");
    let d = dir.path();
    let made = json(d, &url, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let out = program(d, &url, &[], &["backup", "restore", id, "--into", "tier2_all"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let said = text(&out);
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what:?} is not in: {said}"));
    let order = [
        at("critical: loading 4 tables first"),
        at("critical: all back, 4 tables, 2600 rows counted"),
        at("important: loading 1 tables first"),
        at("important: all back, 1 tables, 300 rows counted"),
    ];
    assert!(order.is_sorted(), "{said}");
    assert!(said.contains("7900 rows in 6 tables counted"), "{said}");
    // Everything is there in the end, whichever part it came with.
    let all = "select string_agg(x, ' ' order by x) from (select conname::text || contype::text as x from pg_constraint where contype in ('p', 'f') \
               and connamespace in ('public'::regnamespace, 'pay'::regnamespace) union all select indexname::text from pg_indexes where \
               schemaname in ('public', 'pay') union all select tgname::text from pg_trigger where not tgisinternal union all \
               select obj_description('orders_at'::regclass, 'pg_class') union all select count(*)::text from daily union all \
               select count(*)::text from big) s";
    assert_eq!(c.sql("tier2_all", all), c.sql("tier2", all));
    // Statistics of what is back after each part, and never more: each time under no limit of the role.
    let analyzed = "select min(analyze_count) || ' ' || max(analyze_count) from pg_stat_user_tables where relname in ('orders', 'clicks')";
    assert_eq!(c.sql("tier2_all", analyzed), "3 3");
    // One tier of a whole dump.
    let done = json(
        d,
        &url,
        0,
        &["backup", "restore", id, "--into", "tier2_some", "--tier", "critical", "--tier", "important"],
    );
    assert_eq!(done["restored"]["rows"], 2900, "{done}");
    let times = &done["restored"]["tiers_back_ms"];
    assert!(times["critical"].as_u64() <= times["important"].as_u64(), "{done}");
    assert_eq!(c.sql("tier2_some", "select count(*) from clicks"), "0");
}

/// While the rest is held up, what is critical can be read, whole and with its keys.
#[test]
fn critical_tables_can_be_read_while_the_rest_is_loaded() {
    let c = cluster();
    let (url, dir) = shop("tier3");
    let d = dir.path();
    // An index that is made only while a file is there.
    let go = c.root().join("tier3-go");
    std::fs::write(&go, "").unwrap();
    let held = "create function held(n int) returns int immutable language plpgsql as $$ begin \
                for i in 1..2400 loop exit when (pg_stat_file('GO', true)).size is not null; perform pg_sleep(0.05); end loop; \
                return n; end $$; create index on clicks (held(id))";
    c.sql("tier3", &held.replace("GO", &go.display().to_string()));
    let made = json(d, &url, 0, &["backup", "create", "--logical"]);
    std::fs::remove_file(&go).unwrap();
    let mut restore = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    restore
        .args(["backup", "restore", made["id"].as_str().unwrap(), "--into", "tier3_all"])
        .env_clear()
        .env("HOME", d)
        .env("BREAKGLASS_HOME", d.join("state"))
        .env("BACKUP_DIR", d.join("repo"))
        .env("BACKUP_ENCRYPTION_KEY", super::PASSPHRASE)
        .env("DATABASE_URL", &url)
        .current_dir(d)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut restore = restore.spawn().unwrap();
    let (mut said, mut name) = (String::new(), None);
    for line in BufReader::new(restore.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("critical: all back") {
            name = line.split("in database \"").nth(1).and_then(|r| r.split('"').next()).map(str::to_string);
            break;
        }
        said.push_str(&line);
    }
    let name = name.unwrap_or_else(|| panic!("nothing said that the critical tables are back: {said}"));
    assert_eq!(c.sql(&name, "select count(*) || ' ' || max(id) from orders"), "2000 2000");
    assert_eq!(c.sql(&name, "select count(*) from pg_indexes where tablename = 'orders'"), "2");
    assert_eq!(c.sql("postgres", "select count(*) from pg_database where datname = 'tier3_all'"), "0");
    std::fs::write(&go, "").unwrap();
    assert_eq!(restore.wait().unwrap().code(), Some(0));
    assert_eq!(c.sql("tier3_all", "select count(*) from clicks"), "5000");
}
