//! Recovered to a moment before an earlier promotion: what is promoted branches off where it ended, its archive can be read on,
//! and a base backup of the timeline that was left leads nowhere on it.

use std::time::{Duration, Instant};

use breakglass::postgres::{Database, Stop};
use breakglass::recovery::shadow::Shadow;

use super::shop::{now, script};
use crate::support::archived::{Archived, said};
use crate::support::cluster::{LIMIT, psql};

#[test]
fn back_to_before_an_earlier_promotion() {
    let a = Archived::start("timelines");
    let mut db = a.cluster.database("postgres");
    // With what is in service as the source.
    let done = |db: &Database, args: &[&str]| -> String {
        let (code, text) = said(a.command(args).env("DATABASE_URL", db.url()));
        assert_eq!(code, 0, "{args:?}: {text}");
        text
    };
    let folder = |name: &str| a.room.path.join(name).display().to_string();
    let load = |name: &str| Shadow::load(&a.room.path.join(name)).unwrap();
    let rows = |db: &Database| psql(db, "select string_agg(n::text, ',' order by n) from t").unwrap();
    let switch = |db: &Database| {
        let segment = psql(db, "select pg_walfile_name(pg_switch_wal())").unwrap();
        let begun = Instant::now();
        while psql(db, "select coalesce(last_archived_wal, '') from pg_stat_archiver").unwrap() < segment {
            assert!(begun.elapsed() < LIMIT, "{segment} was not archived");
            std::thread::sleep(Duration::from_millis(20));
        }
    };

    script(&db, "create table t (n int)");
    let first = a.base_backup();
    script(&db, "insert into t values (1)");
    let early = format!("time:{}", now(&db));
    script(&db, "insert into t values (2)");
    a.archive_now();
    script(&db, "insert into t values (3)");
    a.archive_now();
    let one = folder("one");
    done(&db, &["pitr", "restore", "--to", "latest", "--dir", &one]);
    done(&db, &["pitr", "promote", "--shadow", &one, "--confirm", "postgres", "--own-address"]);
    db = load("one").database("postgres").unwrap();
    script(&db, "insert into t values (4)");
    switch(&db);
    done(&db, &["backup", "create", "--physical"]);

    // To where timeline 2 had not begun.
    let two = folder("two");
    let text = done(&db, &["pitr", "restore", "--to", &early, "--dir", &two]);
    let shadow = load("two");
    assert_eq!((shadow.timeline, shadow.along, &shadow.backup), (1, Some(2), &first), "{text}");
    // It can still be moved on to a moment of timeline 2, and one that was is thrown away.
    let three = folder("three");
    done(&db, &["pitr", "restore", "--to", &early, "--dir", &three]);
    done(&db, &["pitr", "advance", "--to", "latest", "--shadow", &three]);
    assert_eq!(rows(&load("three").database("postgres").unwrap()), "1,2,3,4");
    done(&db, &["pitr", "discard", "--shadow", &three]);

    done(&db, &["pitr", "promote", "--shadow", &two, "--confirm", "postgres", "--own-address"]);
    db = shadow.database("postgres").unwrap();
    assert_eq!(rows(&db), "1");
    let history = psql(&db, "select pg_read_file('pg_wal/00000003.history')").unwrap();
    assert!(history.lines().count() == 1 && history.starts_with("1\t"), "{history}");
    script(&db, "insert into t values (5)");
    switch(&db);

    // The newest base backup is of a timeline that does not lead here.
    let text = done(&db, &["pitr", "check", "--to", "latest"]);
    assert!(text.contains(&format!("✓ from backup {first} ")), "{text}");
    let range = done(&db, &["pitr", "range", "--timeline", "3"]);
    assert!(range.contains(&first) && range.matches("-physical-").count() == 1, "{range}");
    let four = folder("four");
    done(&db, &["pitr", "restore", "--to", "latest", "--dir", &four]);
    assert_eq!(rows(&load("four").database("postgres").unwrap()), "1,5");
    done(&db, &["pitr", "discard", "--shadow", &four]);
    done(&db, &["backup", "create", "--physical"]);
    done(&db, &["backup", "verify", "--all"]);
    shadow.instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
}
