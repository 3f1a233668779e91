//! Partial recovery: lost and damaged rows and whole tables come back, newer rows stay, and it can be undone.

use std::path::PathBuf;
use std::sync::Arc;

use breakglass::model::Time;
use breakglass::postgres::{Database, Stop};
use breakglass::recovery::partial::undo::{Outcome, Record, Undone, undo};
use breakglass::recovery::partial::{Definitions, Options, Part, apply, begin, prepare};
use breakglass::recovery::verify;
use breakglass::recovery::watch::Unwatched;
use tokio_util::sync::CancellationToken;

use super::shop::script;
use crate::support::archived::Archived;
use crate::support::cluster::{Cluster, LIMIT, Scratch, block_on, programs, psql};

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('calm', 'cross');
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text UNIQUE, mood mood DEFAULT 'calm', touched int DEFAULT 0);
CREATE TABLE orders (id bigserial PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    net numeric(10,2), gross numeric GENERATED ALWAYS AS (net * 1.2) STORED, note text);
CREATE TABLE staff (id int PRIMARY KEY, boss int REFERENCES staff, name text);
CREATE TABLE log (at timestamptz, text text, data json);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := NEW.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER touching BEFORE INSERT OR UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO customers (email) SELECT 'c' || i || '@example' FROM generate_series(1, 60) i;
INSERT INTO orders (customer_id, net, note) SELECT 1 + i % 60, i, E'tab\\t, back\\\\slash, new\\nline ' || i FROM generate_series(1, 300) i;
INSERT INTO staff VALUES (1, NULL, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, 3, 'd');
INSERT INTO log SELECT '2026-01-01 00:00Z'::timestamptz + (i % 10) * interval '1 s', 'line ' || i % 10, '{\"a\":  1}' FROM generate_series(1, 40) i;
GRANT SELECT ON orders TO pg_monitor;
";

/// A live database and a copy of it as it was before the damage.
pub struct Two {
    cluster: Arc<Cluster>,
    pub live: Database,
    pub before: Database,
    pub room: Scratch,
}

impl Two {
    fn start(name: &str, schema: &str) -> Self {
        Self::in_cluster(Cluster::start(name, &[]), "live", schema)
    }
    /// Another pair in the same cluster.
    pub fn another(&self, name: &str, schema: &str) -> Self {
        Self::in_cluster(self.cluster.clone(), name, schema)
    }
    fn in_cluster(cluster: Arc<Cluster>, name: &str, schema: &str) -> Self {
        let before = format!("{name}_before");
        cluster.sql("postgres", &format!("create database {name}"));
        script(&cluster.database(name), schema);
        cluster.sql("postgres", &format!("create database {before} template {name}"));
        let (live, before) = (cluster.database(name), cluster.database(&before));
        Self { cluster, live, before, room: Scratch::new("partial") }
    }
    pub fn ask(&self, sql: &str) -> String {
        psql(&self.live, sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }
    /// Everything in the live tables, for comparing.
    pub fn picture(&self) -> String {
        let tables = self.ask("select string_agg(relname, ',' order by relname) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace");
        let each = tables.split(',').map(|t| {
            format!("{t} {}", self.ask(&format!("select md5(string_agg(t::text, '|' order by t::text)) from {t} t")))
        });
        each.collect::<Vec<_>>().join("\n")
    }
    pub fn preview(&self, options: &Options) -> Vec<Part> {
        self.go(options, None).unwrap().1
    }
    pub fn go(
        &self,
        options: &Options,
        folder: Option<PathBuf>,
    ) -> breakglass::error::Result<(Option<Record>, Vec<Part>)> {
        block_on(async {
            let mut live = verify::open(&self.live, LIMIT).await?;
            breakglass::postgres::connect::run(&mut live, "SET default_transaction_read_only = off").await?;
            let mut before = verify::open(&self.before, LIMIT).await?;
            let definitions = Definitions { programs: programs(), shadow: self.before.clone() };
            begin(&mut live, &mut before).await?;
            let cancel = CancellationToken::new();
            let plan = prepare(&mut live, &mut before, &definitions, options, &Unwatched, &cancel).await?;
            let Some(folder) = folder else { return Ok((None, plan.parts())) };
            let now = Time::parse("2026-11-20T14:00:00Z").unwrap();
            let (r, p) = apply::apply(&mut live, &mut before, &plan, &folder, now).await?;
            Ok((Some(r), p))
        })
    }
    pub fn undo(&self, folder: &std::path::Path) -> breakglass::error::Result<Vec<Undone>> {
        self.undo_or_look(folder, false).map(|done| done.now.tables)
    }
    pub fn undo_or_look(&self, folder: &std::path::Path, dry: bool) -> breakglass::error::Result<Outcome> {
        block_on(async {
            let mut live = verify::open(&self.live, LIMIT).await?;
            breakglass::postgres::connect::run(&mut live, "SET default_transaction_read_only = off").await?;
            let now = Time::parse("2026-11-20T15:00:00Z").unwrap();
            undo(&mut live, &Record::load(folder)?, folder, now, dry).await
        })
    }
}

pub fn lost(tables: &[&str]) -> Options {
    Options { tables: tables.iter().map(|t| (*t).to_string()).collect(), lost: true, ..Options::default() }
}

pub fn part<'a>(parts: &'a [Part], table: &str) -> &'a Part {
    parts.iter().find(|p| p.table == table).unwrap_or_else(|| panic!("{table}: {parts:#?}"))
}

#[test]
fn lost_rows_come_back_with_what_they_reference_and_newer_rows_stay() {
    let t = Two::start("partial", SCHEMA);
    script(
        &t.live,
        "delete from customers where id <= 20; update customers set mood = 'cross' where id = 30; \
         insert into customers (email) values ('c5@example'); insert into orders (customer_id, net) values (30, 7); \
         update staff set boss = null; delete from staff where id in (2, 3); \
         delete from log where ctid in (select ctid from log where text = 'line 3' limit 2);",
    );
    let damaged = t.picture();

    // The orders alone: their customers come along, but for the one whose address somebody new has.
    let parts = t.preview(&lost(&["orders"]));
    assert_eq!(t.picture(), damaged, "a preview changes nothing");
    let (orders, customers) = (part(&parts, "public.orders"), part(&parts, "public.customers"));
    assert_eq!((orders.lost, orders.blocked), (95, 5), "{orders:?}");
    assert_eq!((customers.lost, customers.newer_kept), (19, 1), "{customers:?}");
    assert!(customers.because.as_ref().unwrap().contains("rows of public.orders reference them"), "{customers:?}");
    assert_eq!(customers.silent_triggers, ["touching"]);

    let folder = t.room.path.join("one");
    let (record, done) = t.go(&lost(&["orders"]), Some(folder.clone())).unwrap();
    assert_eq!((part(&done, "public.orders").lost, part(&done, "public.customers").lost), (95, 19), "{done:#?}");
    assert_eq!(t.ask("select count(*), count(distinct customer_id) from orders"), "296|59");
    assert_eq!(t.ask("select count(*) from customers where id <= 20 and touched = 1"), "19", "no trigger fired");
    assert_eq!(t.ask("select mood from customers where id = 30"), "cross", "a newer row is as it was");
    assert_eq!(t.ask("select note from orders where id = 1"), "tab\t, back\\slash, new\nline 1");
    assert_eq!(t.ask("select gross from orders where id = 1"), "1.200");
    assert_eq!(t.ask("select tgenabled from pg_trigger where tgname = 'touching'"), "O", "and they fire again");
    let again = t.preview(&lost(&["orders"]));
    assert_eq!(again.iter().map(|p| p.lost).sum::<u64>(), 0, "a second time there is nothing to do: {again:?}");
    assert_eq!(record.unwrap().tables.len(), 2);

    // Undone, it is as before; what was written since onto returned rows stays.
    t.ask("update orders set note = 'seen' where id = 1");
    let undone = t.undo(&folder).unwrap();
    let by = |name: &str| undone.iter().find(|u| u.table == name).unwrap().clone();
    assert_eq!((by("public.orders").removed, by("public.orders").kept), (94, 1), "{undone:?}");
    assert_eq!(
        (by("public.customers").removed, by("public.customers").kept),
        (18, 1),
        "its customer is needed: {undone:?}"
    );
    t.ask("delete from orders where id = 1");
    t.ask("delete from customers where id = 2");
    assert_eq!(t.picture(), damaged);

    // From the customers down, by request; a table that refers to itself; one without a key.
    let options = Options { with_children: true, ..lost(&["customers", "staff", "log"]) };
    let folder = t.room.path.join("two");
    let (_, done) = t.go(&options, Some(folder.clone())).unwrap();
    let counts: Vec<(&str, u64)> = done.iter().map(|p| (p.table.as_str(), p.lost)).collect();
    for (table, n) in [("public.customers", 19), ("public.orders", 95), ("public.staff", 2), ("public.log", 2)] {
        assert!(counts.contains(&(table, n)), "{table} {n}: {counts:?}");
    }
    assert_eq!(t.ask("select count(*) from log where text = 'line 3'"), "4");
    assert_eq!(
        t.ask("select string_agg(id || '<' || coalesce(boss, 0), ' ' order by id) from staff"),
        "1<0 2<1 3<2 4<0"
    );
    t.undo(&folder).unwrap();
    assert_eq!(t.picture(), damaged);
    super::partial_whole::all(&t);
}

#[test]
fn damaged_rows_get_their_values_back_unless_somebody_changed_them_since() {
    let t = Two::start("partial2", SCHEMA);
    let xid = script(
        &t.live,
        "begin; update orders set net = 0, note = null where id <= 50; select pg_current_xact_id(); commit;",
    );
    t.ask("update orders set note = 'called the customer' where id = 7");
    let damaged = t.picture();
    let options = Options { damaged_by: vec![xid.parse().unwrap()], lost: false, ..lost(&["orders"]) };
    assert_eq!(part(&t.preview(&options), "public.orders").damaged, 49);
    assert_eq!(t.picture(), damaged);
    let folder = t.room.path.join("one");
    let (_, done) = t.go(&options, Some(folder.clone())).unwrap();
    assert_eq!(part(&done, "public.orders").damaged, 49);
    assert_eq!(
        t.ask("select count(*), sum(net) from orders where id <= 50 and note is not null and net > 0"),
        format!("49|{}.00", 50 * 51 / 2 - 7)
    );
    assert_eq!(t.ask("select net, note from orders where id = 7"), "0.00|called the customer");
    let undone = t.undo(&folder).unwrap();
    assert_eq!(undone[0].restored, 49, "{undone:?}");
    assert_eq!(t.picture(), damaged);
    let without_key = Options { tables: vec!["log".into()], ..options };
    assert_eq!(t.go(&without_key, None).unwrap_err().kind.exit_code(), 4, "no key, no pairs");
}

#[test]
fn a_dropped_table_comes_back_with_all_that_belongs_to_it() {
    let t = Two::start("partial3", SCHEMA);
    script(&t.live, "create schema s; ");
    script(&t.live, "drop table customers cascade; insert into orders (customer_id, net) values (3, 1);");
    let damaged = t.picture();
    let definition = |table: &str| {
        t.ask(&format!(
            "select string_agg(pg_get_constraintdef(oid), ';' order by conname) from pg_constraint where conrelid = '{table}'::regclass"
        ))
    };
    let e = t.go(&lost(&["nothing"]), None).unwrap_err();
    assert!(e.to_string().contains("there is no table \"nothing\""), "{e}");
    let folder = t.room.path.join("one");
    let parts = t.preview(&lost(&["customers"]));
    let p = part(&parts, "public.customers");
    assert!(p.recreated && p.lost == 60, "{p:?}");
    assert_eq!(p.foreign_keys, ["orders_customer_id_fkey of public.orders"]);
    assert_eq!(t.picture(), damaged, "a preview leaves no table behind");
    t.go(&lost(&["customers"]), Some(folder.clone())).unwrap();
    assert_eq!(definition("customers"), "UNIQUE (email);PRIMARY KEY (id)");
    assert!(definition("orders").contains("FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE"));
    assert_eq!(
        t.ask("select count(*), max(touched) from customers"),
        "60|1",
        "its trigger is back and fired for nobody"
    );
    assert_eq!(t.ask("insert into customers (email) values ('new') returning id, touched"), "61|1", "no id twice");
    let e = t.undo(&folder).unwrap_err();
    assert!(e.to_string().contains("has 1 rows written since"), "{e}");
    t.ask("delete from customers where id = 61");
    assert!(t.undo(&folder).unwrap()[0].dropped);
    assert_eq!(t.picture(), damaged);

    // A row that could not be referenced stops everything: nothing half done.
    t.ask("insert into orders (customer_id, net) values (999, 1)");
    let damaged = t.picture();
    let e = t.go(&lost(&["customers"]), Some(t.room.path.join("two"))).unwrap_err();
    assert!(e.to_string().contains("orders_customer_id_fkey"), "{e}");
    assert_eq!(t.picture(), damaged);
}

#[test]
fn a_table_dropped_at_the_moment_itself_is_read_from_the_opened_shadow() {
    let a = Archived::start("partial4");
    let db = a.cluster.database("postgres");
    script(&db, SCHEMA);
    a.base_backup();
    script(&db, "insert into orders (customer_id, net) values (1, 1);");
    let xid = script(&db, "begin; select pg_current_xact_id(); drop table orders; commit;");
    script(&db, "insert into customers (email) values ('later');");
    a.archive_now();
    let go = |args: &[&str]| a.run(args);
    let root = a.room.path.join("shadow");
    let dir = root.display().to_string();
    let (code, text) = go(&["pitr", "restore", "--to", &format!("xid:{xid}"), "--dir", &dir]);
    assert!(code == 0 && text.contains("a query on it waits: ") && text.contains("orders"), "{code} {text}");
    let (code, text) = go(&["pitr", "partial", "--shadow", &dir, "--table", "orders", "--dry-run"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("holds that transaction's lock") && text.contains("--open-shadow"), "{text}");
    let out = a.room.path.join("record").display().to_string();
    let (code, text) =
        go(&["pitr", "partial", "--shadow", &dir, "--table", "orders", "--open-shadow", "--out", &out, "--json"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\"recreated\": true") && text.contains("\"lost\": 301"), "{text}");
    assert_eq!(psql(&db, "select count(*) from orders").unwrap(), "301");
    assert_eq!(psql(&db, "select count(*) from customers").unwrap(), "61", "newer rows stay");
    assert_eq!(psql(&db, "select has_table_privilege('pg_monitor', 'orders', 'select')").unwrap(), "t");
    let (code, text) = go(&["pitr", "partial", "--undo", &out]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("undone: 301 rows taken out again"), "{text}");
    assert_eq!(psql(&db, "select to_regclass('orders') is null").unwrap(), "t");

    // Written to, it is no picture of that moment any more.
    let shadow = breakglass::recovery::shadow::Shadow::load(&root).unwrap();
    psql(&shadow.database("postgres").unwrap(), "delete from customers where id = 1").unwrap();
    let (code, text) = go(&["pitr", "partial", "--shadow", &dir, "--table", "orders", "--dry-run"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("1 transactions wrote since it was opened"), "{text}");
    shadow.instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
}

/// `BREAKGLASS_SOAK=1` kills a hundred times.
#[test]
fn killed_at_any_point_it_happened_whole_or_not_at_all_and_the_record_tells() {
    let a = Archived::start("partial5");
    let db = a.cluster.database("postgres");
    script(&db, SCHEMA);
    a.base_backup();
    // Something replayed, so that the shadow knows when it stands.
    script(&db, "insert into log values ('2026-01-01 00:00Z', 'one more', '{}')");
    let xid = script(&db, "begin; select pg_current_xact_id(); delete from customers where id <= 40; commit;");
    a.archive_now();
    let root = a.room.path.join("shadow");
    let dir = root.display().to_string();
    let command = |args: &[&str]| {
        let mut c = a.command(args);
        c.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        c
    };
    assert!(command(&["pitr", "restore", "--to", &format!("xid:{xid}"), "--dir", &dir]).status().unwrap().success());
    let there = || {
        psql(&db, "select count(*) from customers").unwrap() + "," + &psql(&db, "select count(*) from orders").unwrap()
    };
    let (gone, whole) = ("20,100".to_string(), "60,300".to_string());
    assert_eq!(there(), gone);
    let args = |out: &str| {
        ["pitr", "partial", "--shadow", &dir, "--table", "customers", "--with-children", "--out", out]
            .map(str::to_string)
    };
    // How long it takes when nobody disturbs it.
    let began = std::time::Instant::now();
    let out = a.room.path.join("whole").display().to_string();
    let words = args(&out);
    assert!(command(&words.each_ref().map(String::as_str)).status().unwrap().success());
    let took = began.elapsed();
    assert_eq!(there(), whole);
    assert!(command(&["pitr", "partial", "--undo", &out]).status().unwrap().success());
    assert_eq!(there(), gone);

    let rounds = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 100u32 } else { 6 };
    let (mut done, mut not) = (0, 0);
    for i in 0..rounds {
        let out = a.room.path.join(format!("killed-{i}")).display().to_string();
        let words = args(&out);
        let mut child = command(&words.each_ref().map(String::as_str)).spawn().unwrap();
        let moment = std::time::Instant::now() + took * (i + 1) / rounds;
        while std::time::Instant::now() < moment {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let deadline = std::time::Instant::now() + LIMIT;
        let busy =
            "select count(*) from pg_stat_activity where application_name = 'breakglass' and pid <> pg_backend_pid()";
        while psql(&db, busy).unwrap() != "0" {
            assert!(std::time::Instant::now() < deadline, "a killed session is still there");
        }
        let now = there();
        let record = Record::load(std::path::Path::new(&out));
        if now == whole {
            done += 1;
            assert!(record.is_ok(), "round {i}: done and not noted");
            assert!(command(&["pitr", "partial", "--undo", &out]).status().unwrap().success());
        } else {
            not += 1;
            // Noted and not committed is refused, not undone.
            if record.is_ok() {
                assert_eq!(command(&["pitr", "partial", "--undo", &out]).status().unwrap().code(), Some(4));
            }
        }
        assert_eq!(there(), gone, "round {i}: half done");
    }
    assert!(not > 0, "{done} done, {not} not: killed too late");

    // Brought back, then dropped and made again: it is another table by number, and nothing of it is lost.
    let run = |args: &[&str]| {
        let (code, text) = a.run(args);
        assert_eq!(code, 0, "{args:?}: {text}");
        text
    };
    let words = args(&a.room.path.join("last").display().to_string());
    assert!(command(&words.each_ref().map(String::as_str)).status().unwrap().success());
    psql(&db, "drop table orders; drop table log").unwrap();
    run(&["pitr", "partial", "--shadow", &dir, "--table", "orders", "--table", "log"]);
    assert_eq!(there(), whole);
    psql(&db, "insert into orders (customer_id, net) values (1, 1); insert into log values (now(), 'new', '{}')")
        .unwrap();
    let text = run(&["pitr", "verify", "--shadow", &dir]);
    assert!(text.contains("does not have: public.log 1, public.orders 1; "), "{text}");
    assert!(text.contains("made again there since: public.log, public.orders"), "{text}");
    assert!(!text.contains("only in the source") && !text.contains("back again"), "{text}");
    let text = run(&["pitr", "check", "--shadow", &dir, "--table", "orders", "--table", "log"]);
    assert!(text.contains("everything that was lost is back"), "{text}");

    // Somebody's row under the key of a lost one is not it; where that one is to be seen is said.
    psql(&db, "delete from orders where id = 7").unwrap();
    psql(&db, "insert into orders (id, customer_id, net, note) values (7, 1, 5, 'somebody else')").unwrap();
    let check = ["pitr", "check", "--shadow", &dir, "--table", "orders"];
    let (code, text) = a.run(&check);
    assert!(code == 1 && !text.contains("everything that was lost is back"), "{code} {text}");
    assert!(text.contains("public.orders: 1 left out: another row was written under their key since: 7"), "{text}");
    assert!(
        text.contains("as they were: ") && text.contains("psql") && text.contains("not as it should be: left out"),
        "{text}"
    );
    let text = run(&[&check[..], &["--accept-left-out"]].concat());
    assert!(text.contains("what was left out was accepted") && !text.contains("everything"), "{text}");
    psql(&db, "delete from orders where id = 7").unwrap();
    let again = a.room.path.join("again").display().to_string();
    run(&["pitr", "partial", "--shadow", &dir, "--table", "orders", "--out", &again]);
    assert_eq!(psql(&db, "select net from orders where id = 7").unwrap(), "7.00");
    assert!(run(&["pitr", "partial", "--undo", &again, "--dry-run"]).contains("public.orders: 1 rows go again"));
    run(&check);

    // A containment leaves writes off: it is not as it should be, and the way back is said and works.
    let text = run(&["contain"]);
    assert!(text.contains("writes are off") && text.contains("breakglass contain --keep-writes"), "{text}");
    let (code, text) = a.run(&["pitr", "check", "--shadow", &dir, "--table", "orders", "--table", "log"]);
    assert!(code == 1 && text.contains("not as it should be: writes"), "{code} {text}");
    assert!(text.contains("breakglass contain --keep-writes"), "{text}");
    assert!(psql(&db, "insert into log values (now(), 'no', '{}')").is_err());
    let text = run(&["contain", "--keep-writes"]);
    assert!(text.contains("writes are on again"), "{text}");
    psql(&db, "insert into log values (now(), 'yes', '{}')").unwrap();
    assert!(run(&["contain", "--keep-writes"]).contains("writes stay on"));

    // Where nothing archives, a base backup would wait for ever.
    psql(&db, "alter system set archive_command = ''").unwrap();
    a.cluster.instance.stop(Stop::Fast, LIMIT).unwrap();
    a.cluster.instance.start(LIMIT).unwrap();
    let (code, text) = a.run(&["backup", "create", "--physical"]);
    assert!(code == 4 && text.contains("archive_command is empty") && text.contains("--logical"), "{code} {text}");
    let s = breakglass::recovery::shadow::Shadow::load(&root).unwrap();
    s.instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
}
