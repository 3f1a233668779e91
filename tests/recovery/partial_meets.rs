//! What a partial recovery meets in a live database that went on: columns, types and constraints that are others now, other
//! things under the table's name. On one recovered instance; each test has tables of its own.

use std::sync::OnceLock;

use breakglass::model::Time;
use breakglass::postgres::Database;
use breakglass::recovery::shadow::Shadow;

use super::shop::script;
use crate::support::archived::Archived;
use crate::support::cluster::psql;

const SCHEMA: &str = r#"
CREATE EXTENSION btree_gist;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'gone');
CREATE TYPE feeling AS ENUM ('x', 'y''s');
CREATE TYPE hue AS ENUM ('a', 'b');
CREATE TABLE marker (i int);
CREATE TABLE cols (id int PRIMARY KEY, v varchar(20) NOT NULL DEFAULT 'none', n int);
INSERT INTO cols SELECT i, 'v' || i, i FROM generate_series(1, 500) i;
CREATE TABLE typed (id int PRIMARY KEY, f feeling, fs feeling[]);
INSERT INTO typed SELECT i, 'y''s', '{x}' FROM generate_series(1, 10) i;
CREATE TABLE nokey (v text, n int);
INSERT INTO nokey SELECT 'v' || i, i FROM generate_series(1, 10) i;
CREATE TABLE hours (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE hours_1 PARTITION OF hours FOR VALUES IN (1);
CREATE TABLE hours_2 PARTITION OF hours FOR VALUES IN (2);
INSERT INTO hours SELECT i, 1 + i % 2, 'v' || i FROM generate_series(1, 10) i;
CREATE TABLE queue (id int PRIMARY KEY, pos int UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO queue SELECT i, i FROM generate_series(1, 100) i;
CREATE TABLE booking (id int PRIMARY KEY, room int, during int4range, EXCLUDE USING gist (room WITH =, during WITH &&));
INSERT INTO booking SELECT i, i, '[1,10)' FROM generate_series(1, 100) i;
CREATE TABLE mails (id int PRIMARY KEY, mail text, off boolean);
CREATE UNIQUE INDEX ON mails (lower(mail)) WHERE NOT off;
INSERT INTO mails SELECT i, 'm' || i, i = 4 FROM generate_series(1, 10) i;
CREATE TABLE grew (id int PRIMARY KEY, n int);
INSERT INTO grew SELECT i, i / 2 FROM generate_series(2, 11) i;
CREATE TABLE checked (id int PRIMARY KEY, n int);
INSERT INTO checked SELECT i, i FROM generate_series(1, 20) i;
CREATE TABLE newcol (id int PRIMARY KEY, n int);
INSERT INTO newcol SELECT i, i FROM generate_series(1, 10) i;
CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE trig (id int PRIMARY KEY);
CREATE TRIGGER sees BEFORE INSERT ON trig FOR EACH ROW EXECUTE FUNCTION seen();
INSERT INTO trig SELECT generate_series(1, 10);
CREATE TABLE above (id int PRIMARY KEY);
CREATE TABLE below (id int PRIMARY KEY, up int CONSTRAINT to_above REFERENCES above);
INSERT INTO above SELECT generate_series(1, 5);
INSERT INTO below SELECT i, i FROM generate_series(1, 5) i;
CREATE TABLE moods (id int PRIMARY KEY, m mood, ms mood[]);
INSERT INTO moods SELECT i, (enum_range(NULL::mood))[1 + i % 3], enum_range(NULL::mood) FROM generate_series(1, 20) i;
CREATE TABLE redone (id int PRIMARY KEY, f hue);
INSERT INTO redone SELECT i, CASE WHEN i <= 5 THEN 'b'::hue ELSE 'a' END FROM generate_series(1, 10) i;
CREATE TABLE wide (a int PRIMARY KEY);
INSERT INTO wide VALUES (1), (2);
CREATE UNLOGGED TABLE unl (id int PRIMARY KEY);
CREATE SCHEMA "Odd ""Schema";
CREATE TABLE "Odd ""Schema"."Ta.ble" (id int PRIMARY KEY);
INSERT INTO "Odd ""Schema"."Ta.ble" SELECT generate_series(1, 3);
CREATE TABLE aparted (id int, k int) PARTITION BY LIST (k);
CREATE TABLE aparted_1 PARTITION OF aparted FOR VALUES IN (1);
CREATE TABLE aparted_2 PARTITION OF aparted FOR VALUES IN (2);
CREATE TABLE "an
other" (id int PRIMARY KEY);
CREATE TABLE stamps (id int PRIMARY KEY);
INSERT INTO stamps SELECT generate_series(1, 3);
"#;

struct Stand {
    a: Archived,
    db: Database,
    shadow: String,
}

/// A cluster and an instance recovered from it, as it was before any of the tests.
fn stand() -> &'static Stand {
    static ONE: OnceLock<Stand> = OnceLock::new();
    ONE.get_or_init(|| {
        let a = Archived::start("meets");
        let db = a.cluster.database("postgres");
        script(&db, SCHEMA);
        a.base_backup();
        psql(&db, "insert into marker values (0)").unwrap();
        let xid = script(&db, "begin; select pg_current_xact_id(); insert into marker values (1); commit;");
        a.archive_now();
        let shadow = a.room.path.join("shadow").display().to_string();
        let (code, text) = a.run(&["pitr", "restore", "--to", &format!("xid:{xid}"), "--dir", &shadow]);
        assert_eq!(code, 0, "{text}");
        Stand { a, db, shadow }
    })
}

impl Stand {
    fn ask(&self, sql: &str) -> String {
        psql(&self.db, sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }
    fn go(&self, command: &str, more: &[&str]) -> (i32, String) {
        self.a.run(&[&["pitr", command, "--shadow", self.shadow.as_str()][..], more].concat())
    }
    /// Brings back; the preview must say the same, by exit code, and everything the run says is said before.
    fn both(&self, out: &str, code: i32, more: &[&str]) -> String {
        let before = self.go("partial", &[more, &["--dry-run"]].concat());
        let out = self.a.room.path.join(out).display().to_string();
        let after = self.go("partial", &[more, &["--out", &out]].concat());
        assert_eq!((before.0, after.0), (code, code), "{more:?}\n{}\n{}", before.1, after.1);
        // Whatever is refused, is refused with the same words.
        if code == 4 {
            assert_eq!(before.1, after.1, "{more:?}");
        }
        format!("{}\n{}", before.1, after.1)
    }
    fn undo(&self, out: &str) -> String {
        let out = self.a.room.path.join(out).display().to_string();
        let (code, text) = self.a.run(&["pitr", "partial", "--undo", &out]);
        assert_eq!(code, 0, "{text}");
        text
    }
}

/// The statements a message names, from `first` on to a semicolon that ends one, as a person would take them.
fn statement(text: &str, first: &str) -> String {
    let from = text.find(first).unwrap_or_else(|| panic!("{first:?} is not in {text}"));
    let line = text[from..].lines().next().unwrap();
    line[..=line.find(';').unwrap_or_else(|| panic!("{line:?} does not end"))].to_string()
}

fn has(text: &str, words: &[&str]) {
    for w in words {
        assert!(text.contains(w), "{w:?} is not in {text}");
    }
}

#[test]
fn values_of_a_column_that_is_gone_are_missed_and_come_back() {
    let s = stand();
    s.ask("alter table cols drop column v");
    let text = s.both("cols-1", 1, &["--table", "cols"]);
    has(&text, &["column v is in the recovered instance only, with values in 500 rows", "--fill-column v"]);
    assert!(!text.contains("nothing is lost"), "{text}");
    let add = statement(&text, "ALTER TABLE");
    assert_eq!(add, "ALTER TABLE \"public\".\"cols\" ADD COLUMN \"v\" character varying(20);");
    // Made again, it is empty: nothing is back by that.
    s.ask(&add);
    let text = s.both("cols-2", 1, &["--table", "cols"]);
    has(&text, &["500 rows", "--fill-column v"]);
    let (code, text) = s.go("check", &["--table", "cols"]);
    assert!(code == 1 && text.contains("✗ columns"), "{code} {text}");

    // What was written since stays; a row that is another one under its key gets nothing of the old one.
    s.ask("update cols set v = 'newer' where id = 3; update cols set n = -4 where id = 4; delete from cols where id in (5, 6)");
    s.ask("insert into cols (id, n) values (5, -5)");
    let damaged = s.ask("select md5(string_agg(c::text, '|' order by id)) from cols c");
    let fill = ["--table", "cols", "--fill-column", "v"];
    let text = s.both("cols-3", 0, &fill);
    has(
        &text,
        &["497 rows get back their values of v", "1 lost rows", "another row was written under their key since: 5"],
    );
    assert_eq!(s.ask("select count(v), count(*) from cols"), "499|500");
    assert_eq!(s.ask("select v, n from cols where id in (3, 4, 5, 6) order by id"), "newer|3\nv4|-4\n|-5\nv6|6");
    assert_eq!(s.ask("select count(*) from cols where v = 'v' || id"), "498");
    let (code, text) = s.go("check", &["--table", "cols", "--accept-left-out"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = s.go("partial", &[&fill[..], &["--dry-run"]].concat());
    assert!(code == 0 && !text.contains("get back their values"), "{code} {text}");
    has(&s.undo("cols-3"), &["1 rows taken out again, 497 put back"]);
    assert_eq!(s.ask("select md5(string_agg(c::text, '|' order by id)) from cols c"), damaged);
    // It was said that they are not wanted.
    let (code, text) = s.go("partial", &["--table", "cols", "--without-column", "v", "--dry-run"]);
    assert!(code == 0 && !text.contains("values in"), "{code} {text}");
}

#[test]
fn values_that_went_with_their_type_come_back_by_the_statements_that_are_named() {
    let s = stand();
    s.ask("drop type feeling cascade");
    let text = s.both("typed-1", 1, &["--table", "typed"]);
    has(&text, &["column f is", "column fs is", "values in 10 rows"]);
    assert_eq!(text.matches("CREATE TYPE").count(), 2, "once a run: {text}");
    s.ask(&statement(&text, "CREATE TYPE"));
    s.ask(&statement(&text, "ALTER TABLE \"public\".\"typed\" ADD COLUMN \"f\""));
    s.ask(&statement(&text, "ALTER TABLE \"public\".\"typed\" ADD COLUMN \"fs\""));
    s.both("typed-2", 0, &["--table", "typed", "--fill-column", "f", "--fill-column", "fs"]);
    assert_eq!(s.ask("select count(*) from typed where f = 'y''s' and fs = '{x}'"), "10");
    s.undo("typed-2");
    assert_eq!(s.ask("select count(f) + count(fs) from typed"), "0");

    // Of partitions, on the table above them.
    s.ask("alter table hours drop column v");
    let text = s.both("hours-1", 1, &["--table", "hours"]);
    s.ask(&statement(&text, "ALTER TABLE"));
    s.both("hours-2", 0, &["--table", "hours", "--fill-column", "v"]);
    assert_eq!(s.ask("select count(*) from hours where v = 'v' || id"), "10");

    s.ask("alter table nokey drop column v");
    let text = s.both("nokey", 1, &["--table", "nokey"]);
    has(&text, &["column v is in the recovered instance only, with values in 10 rows", "no primary key", "psql"]);
    assert!(!text.contains("--fill-column"), "it would be refused: {text}");
    let (code, text) = s.go("partial", &["--table", "typed", "--fill-column", "nothing", "--dry-run"]);
    assert!(code == 2 && text.contains("\"nothing\""), "{code} {text}");
}

#[test]
fn unique_values_that_are_checked_later_and_rows_that_exclude_each_other() {
    let s = stand();
    s.ask("delete from queue where id <= 99; insert into queue values (1000, 5)");
    let text = s.both("queue", 0, &["--table", "queue"]);
    has(&text, &["98 lost rows", "98 rows brought back", "1 left out: a newer row has their pos: 5"]);
    assert_eq!(s.ask("select count(*) from queue"), "100");
    s.undo("queue");
    assert_eq!(s.ask("select count(*) from queue"), "2");

    s.ask("delete from booking; insert into booking values (1000, 7, '[5,20)')");
    let text = s.both("booking", 0, &["--table", "booking"]);
    let why =
        "1 left out: a newer row is in the way of their room, during (booking_room_during_excl; in the way: 1000): 7";
    assert_eq!(text.matches(why).count(), 2, "before and after: {text}");
    has(&text, &["99 lost rows", "99 rows brought back"]);
    let (code, text) = s.go("check", &["--table", "booking"]);
    assert!(code == 1 && text.contains(why) && text.contains("✓ lost rows"), "{code} {text}");
    let (code, text) = s.go("check", &["--table", "booking", "--accept-left-out"]);
    assert_eq!(code, 0, "{text}");

    // By an index on an expression, of some rows only.
    s.ask("delete from mails; insert into mails values (100, 'M3', false), (101, 'M4', false), (102, 'M5', true)");
    let text = s.both("mails", 0, &["--table", "mails"]);
    has(&text, &["9 lost rows", "9 rows brought back"]);
    assert_eq!(text.matches("1 left out: a newer row has their lower(mail): 3").count(), 2, "{text}");

    // A constraint that came since: of rows that exclude each other one comes.
    s.ask("delete from grew; alter table grew add unique (n)");
    let text = s.both("grew", 0, &["--table", "grew"]);
    has(&text, &["5 lost rows", "5 rows brought back", "5 left out: another returning row has their n"]);
}

#[test]
fn what_refuses_the_rows_is_met_by_the_preview_with_what_to_do() {
    let s = stand();
    s.ask("delete from checked where n <= 8; alter table checked add constraint big check (n > 5)");
    let text = s.both("checked-1", 4, &["--table", "checked"]);
    has(&text, &["public.checked", "\"big\"", "(1, 1)", "--where", "check constraint"]);
    let text = s.both("checked-2", 0, &["--table", "checked", "--where", "n > 5"]);
    has(&text, &["3 rows brought back"]);

    s.ask(
        "delete from newcol where id <= 5; alter table newcol add must int; update newcol set must = 1; \
           alter table newcol alter must set not null",
    );
    let text = s.both("newcol-1", 4, &["--table", "newcol"]);
    has(&text, &["public.newcol", "\"must\"", "5 rows"]);
    s.ask(&statement(&text, "ALTER TABLE").replace("VALUE", "7"));
    s.both("newcol-2", 0, &["--table", "newcol"]);
    assert_eq!(s.ask("select count(*) from newcol where must = 7"), "5");

    s.ask("drop table trig; drop function seen()");
    let text = s.both("trig-1", 4, &["--table", "trig"]);
    has(&text, &["public.trig", "public.seen()", "sees", "pg_get_functiondef"]);
    s.ask("create function seen() returns trigger language plpgsql as $$ begin return new; end $$");
    s.both("trig-2", 0, &["--table", "trig"]);
    assert_eq!(s.ask("select count(*) from trig"), "10");

    s.ask("drop table above cascade; insert into below values (77, 78)");
    let text = s.both("above-1", 4, &["--table", "above"]);
    has(&text, &["to_above", "public.below", "1 rows", "78"]);
    s.ask("delete from below where id = 77");
    s.both("above-2", 0, &["--table", "above"]);
}

#[test]
fn values_of_enums_come_back_under_the_names_they_have_now() {
    let s = stand();
    let was = s.ask("select string_agg(id || m::text, ',' order by id) from moods");
    let named = |now: String| now.replace("sad", "blue").replace("ok", "#").replace("gone", "ok").replace('#', "gone");
    s.ask("delete from moods where id <= 10");
    let xid = script(&s.db, "begin; select pg_current_xact_id(); update moods set m = null where id > 15; commit;");
    s.ask("alter type mood rename value 'sad' to 'blue'");
    s.ask("alter type mood rename value 'ok' to 'between'; alter type mood rename value 'gone' to 'ok'");
    s.ask("alter type mood rename value 'between' to 'gone'");
    let text = s.both("moods", 0, &["--table", "moods", "--rows", "all", "--damaged-by", &xid]);
    has(&text, &["10 rows brought back, 5 put back"]);
    assert_eq!(s.ask("select string_agg(id || m::text, ',' order by id) from moods"), named(was));
    assert_eq!(s.ask("select distinct ms from moods"), "{blue,gone,ok}");
    assert_eq!(s.ask("select enum_range(null::mood)"), "{blue,gone,ok}", "the type is as it was");
    s.undo("moods");
    assert_eq!(s.ask("select count(*), count(m) from moods"), "10|5");

    // Another type under the name of the old one, with one value less.
    s.ask("delete from redone where id <= 5; alter type hue rename to hue_old; create type hue as enum ('a')");
    s.ask("alter table redone alter f type hue using f::text::hue; drop type hue_old");
    let text = s.both("redone-1", 4, &["--table", "redone"]);
    has(&text, &["public.redone", "\"b\""]);
    s.ask(&statement(&text, "ALTER TYPE"));
    s.both("redone-2", 0, &["--table", "redone"]);
    assert_eq!(s.ask("select count(*) from redone where f = 'b'"), "5");
}

#[test]
fn what_stands_in_the_place_of_a_table_is_named() {
    let s = stand();
    s.ask("drop table wide; create view wide as select 1 as a");
    let text = s.both("wide-1", 4, &["--table", "wide"]);
    has(&text, &["public.wide", "a view has its name"]);
    s.ask(&statement(&text, "ALTER VIEW"));
    s.both("wide-2", 0, &["--table", "wide"]);
    assert_eq!(s.ask("select count(*) from wide"), "2");

    let (code, text) = s.go("partial", &["--touched", "--dry-run"]);
    assert!(code == 2 && text.contains("open incident") && text.contains("--table"), "{code} {text}");
    assert!(!text.contains("pitr locate"), "{text}");
    let (code, text) = s.go("partial", &["--table", "unl", "--dry-run"]);
    assert!(code == 2 && text.contains("unlogged") && text.contains("empty"), "{code} {text}");
}

#[test]
fn tables_are_found_by_the_name_that_sql_writes() {
    let s = stand();
    s.ask("delete from \"Odd \"\"Schema\".\"Ta.ble\" where id = 1");
    for name in ["\"Odd \"\"Schema\".\"Ta.ble\"", "\"Ta.ble\"", "Odd \"Schema.Ta.ble"] {
        let (code, text) = s.go("partial", &["--table", name, "--dry-run"]);
        assert!(code == 0 && text.contains("1 lost rows"), "{name} {code} {text}");
    }
    let (code, text) = s.go("partial", &["--table", "nothing", "--dry-run"]);
    assert_eq!(code, 2, "{text}");
    assert_eq!(text.matches("aparted").count(), 1, "{text}");
    let hint = text.lines().find(|l| l.contains("there are ")).unwrap();
    assert!(hint.contains(" more"), "{hint}");

    // Another run in the same second.
    s.ask("delete from stamps where id = 1");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    for second in 0..900 {
        let at = Time::from_micros(i64::try_from(now).unwrap() + second * 1_000_000);
        let stamp = at.date_hms().replace([' ', ':', '-'], "");
        std::fs::create_dir_all(std::path::Path::new(&s.shadow).join("partial").join(stamp)).unwrap();
    }
    let (code, text) = s.go("partial", &["--table", "stamps"]);
    assert!(code == 0 && text.contains("to undo it: "), "{code} {text}");
    let folder = text.lines().find_map(|l| l.split_once("--undo ")).unwrap().1.trim().to_string();
    assert_eq!(s.a.run(&["pitr", "partial", "--undo", &folder]).0, 0);
    assert!(Shadow::load(std::path::Path::new(&s.shadow)).is_ok());
}
