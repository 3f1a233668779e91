//! A primary that is gone for good: what is promoted in its place goes on in the archive without a gap, wherever the log ended,
//! and one is promoted, not two.

use std::time::{Duration, Instant};

use breakglass::postgres::{Database, Stop};
use breakglass::recovery::shadow::Shadow;

use super::shop::script;
use crate::support::archived::{Archived, said};
use crate::support::cluster::{LIMIT, psql};

/// Fills the segment (1 MB) up to a few bytes before its end: the next record begins in it and ends in the next one.
const UP_TO_ITS_END: &str = "do $$ declare
    size constant numeric := 1048576;
    left_over numeric; begun pg_lsn; one numeric;
begin
    loop
        left_over := size - mod(pg_current_wal_insert_lsn() - '0/0'::pg_lsn, size);
        exit when left_over between 24 and 48;
        if left_over > 7000 then
            perform pg_logical_emit_message(false, '', repeat('x', least(left_over - 6000, 8000)::int));
        else
            begun := pg_current_wal_insert_lsn();
            perform pg_logical_emit_message(false, '', '');
            one := pg_current_wal_insert_lsn() - begun;
            left_over := left_over - one;
            if left_over > one + 40 then
                perform pg_logical_emit_message(false, '', repeat('x', (left_over - one - 36)::int));
            end if;
        end if;
    end loop;
end $$";

fn rows(db: &Database) -> String {
    psql(db, "select string_agg(n::text, ',' order by n) from t").unwrap()
}

#[test]
fn the_log_goes_on_from_wherever_it_ended_and_one_instance_takes_over() {
    let a = Archived::start("alone");
    let db = a.cluster.database("postgres");
    let alone = |args: &[&str]| said(a.command(args).env_remove("DATABASE_URL"));
    let folder = |name: &str| a.room.path.join(name).display().to_string();
    let load = |name: &str| Shadow::load(&a.room.path.join(name)).unwrap();
    script(&db, "create table t (n int)");
    a.base_backup();
    script(&db, "insert into t values (1)");
    script(&db, UP_TO_ITS_END);
    let last = psql(&db, "select pg_walfile_name(pg_current_wal_insert_lsn())").unwrap();
    // What fills the last bytes begins the next segment, which is never archived.
    script(&db, "insert into t values (2)");
    let begun = Instant::now();
    while psql(&db, "select coalesce(last_archived_wal, '') from pg_stat_archiver").unwrap() < last {
        assert!(begun.elapsed() < LIMIT, "{last} was not archived");
        std::thread::sleep(Duration::from_millis(20));
    }
    a.cluster.instance.stop(Stop::Immediate, LIMIT).unwrap();

    for name in ["one", "two"] {
        let (code, text) = alone(&["pitr", "restore", "--to", "latest", "--dir", &folder(name)]);
        assert_eq!(code, 0, "{text}");
    }
    let gone = ["--source-is-fenced", "disk is gone", "--confirm", "postgres"];
    let one = folder("one");
    let (code, text) = alone(&[&["pitr", "promote", "--shadow", &one], &gone[..]].concat());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("new timeline archived without a gap up to 00000002"), "{text}");
    let db = load("one").database("postgres").unwrap();
    let history = psql(&db, "select pg_read_file('pg_wal/00000002.history')").unwrap();
    let branch = history.split_whitespace().nth(1).unwrap();
    let left = psql(&db, &format!("select 1048576 - mod('{branch}'::pg_lsn - '0/0', 1048576)")).unwrap();
    assert!(
        (1..=48).contains(&left.parse::<u32>().unwrap()),
        "the log did not end just before a segment's end: {history}"
    );
    // It can be recovered from at once, by the base backup of the timeline before.
    script(&db, "insert into t values (3)");
    let segment = psql(&db, "select pg_walfile_name(pg_switch_wal())").unwrap();
    let begun = Instant::now();
    while psql(&db, "select coalesce(last_archived_wal, '') from pg_stat_archiver").unwrap() < segment {
        assert!(begun.elapsed() < LIMIT, "{segment} was not archived");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, text) = alone(&["pitr", "check", "--to", "latest"]);
    assert_eq!(code, 0, "{text}");
    let three = folder("three");
    let (code, text) = alone(&["pitr", "restore", "--to", "latest", "--dir", &three]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(rows(&load("three").database("postgres").unwrap()), "1,3");
    assert_eq!(alone(&["pitr", "discard", "--shadow", &three]).0, 0);

    // The other one that was built is not put into service beside it, unless somebody says what becomes of the first.
    let two = folder("two");
    let second = [&["pitr", "promote", "--shadow", &two], &gone[..]].concat();
    let (code, text) = alone(&second);
    assert_eq!(code, 4, "{text}");
    for says in ["the archive has timeline 2", "pitr range --timeline 2", "--leave-timeline 2"] {
        assert!(text.contains(says), "{says:?} is not in {text}");
    }
    assert_eq!(psql(&load("two").database("postgres").unwrap(), "select pg_is_in_recovery()").unwrap(), "t");
    load("one").instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
    let (code, text) = alone(&[&second[..], &["--leave-timeline", "2"]].concat());
    assert!(code == 0 && text.contains("timeline 3"), "{code}: {text}");
    load("two").instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
}
