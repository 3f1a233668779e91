//! Restoring to the offered point: what was taken away is there, and so is everything committed before it, exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use breakglass::postgres::wal::{Content, Layout, Reader, Tail};
use breakglass::postgres::{Instance, Lsn, Stop};
use breakglass::recovery::wal_locate::{Deed, Suspect};

use super::fixture::{Fixture, fixture};
use crate::support::cluster::{LIMIT, Scratch, programs, psql, server_user};

/// Position of each commit, by top-level transaction.
fn commits(f: &Fixture) -> BTreeMap<u32, Lsn> {
    let mut all = BTreeMap::new();
    let mut reader = Reader::new();
    let mut layout = Layout::default();
    for s in f.segments() {
        let tail = if s.may_end { Tail::MayEnd } else { Tail::Whole };
        reader
            .segment(&s.name, &s.bytes, tail, |r| {
                layout.read(r)?;
                if let Content::Commit(end) = Content::read(r, &layout)? {
                    all.insert(end.prepared.unwrap_or(r.xid), r.lsn);
                }
                Ok(())
            })
            .unwrap();
    }
    all
}

/// Recovers the fixture's base backup to just before `target`.
fn recover(f: &Fixture, target: Lsn) -> (Instance, Scratch) {
    let scratch = Scratch::new("walpitr");
    let instance = Instance::new(programs(), &scratch.path, server_user()).unwrap();
    instance.make_dirs().unwrap();
    let copied = Command::new("cp").arg("-a").arg(&f.base).arg(&instance.layout.data).status().unwrap();
    assert!(copied.success());
    let settings = [
        ("fsync", "off".to_string()),
        ("max_connections", "30".into()),
        ("max_prepared_transactions", "4".into()),
        ("track_commit_timestamp", "on".into()),
        ("autovacuum", "off".into()),
        ("restore_command", format!("cp {}/%f %p", f.wal.display())),
        ("recovery_target_lsn", target.to_string()),
        ("recovery_target_inclusive", "off".into()),
        ("recovery_target_timeline", "1".into()),
        ("recovery_target_action", "promote".into()),
    ]
    .map(|(k, v)| (k.to_string(), v));
    instance.configure(&settings, None).unwrap();
    breakglass::postgres::user::own_file(&instance.layout.data.join("recovery.signal"), "", instance.user.as_ref())
        .unwrap();
    instance.start(LIMIT).unwrap();
    // Ready once promoted.
    let deadline = std::time::Instant::now() + LIMIT;
    while psql(&instance.database("postgres"), "select pg_is_in_recovery()").as_deref() != Ok("f") {
        assert!(std::time::Instant::now() < deadline, "{}", instance.log_tail(5));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    (instance, scratch)
}

fn sql(i: &Instance, database: &str, text: &str) -> String {
    psql(&i.database(database), text).unwrap()
}

/// What was committed before the target is there, exactly.
fn check_ledger(f: &Fixture, i: &Instance, target: Lsn) {
    let commits = commits(f);
    let wanted: BTreeSet<u32> = f.ledger.iter().copied().filter(|x| commits[x] < target).collect();
    let there: BTreeSet<u32> = sql(i, "shop", "select x from ledger").lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(there, wanted);
}

fn suspects(f: &Fixture) -> &'static [Suspect] {
    &f.report().suspects
}

#[test]
fn before_a_drop_the_table_and_every_earlier_commit_are_there() {
    let f = fixture();
    let all = suspects(f);
    let by = |label: &str| all.iter().find(|s| s.xid == f.xid(label)).unwrap();
    let s = by("drop3");
    let (i, _scratch) = recover(f, s.target);
    check_ledger(f, &i, s.target);
    assert_eq!(sql(&i, "shop", "select count(*) from dro3"), "300");
    // Those of the round before are done, those after it are not.
    assert_eq!(sql(&i, "shop", "select to_regclass('dro2') is null, count(*) from tru2"), "t|0");
    assert_eq!(sql(&i, "shop", "select count(*) from sch3.a"), "50");
    assert!(s.loses.transactions.unwrap() > 0);
    i.stop(Stop::Immediate, LIMIT).unwrap();
}

#[test]
fn before_a_commit_prepared_the_rows_are_there_and_the_prepared_transaction_too() {
    let f = fixture();
    let all = suspects(f);
    let s = all.iter().find(|s| s.xid == f.xid("prepared1")).unwrap();
    let (i, _scratch) = recover(f, s.target);
    check_ledger(f, &i, s.target);
    assert_eq!(sql(&i, "shop", "select gid from pg_prepared_xacts"), "p1");
    assert_eq!(s.gid.as_deref(), Some("p1"));
    assert_eq!(sql(&i, "shop", "select count(*) from pre1"), "300");
    i.stop(Stop::Immediate, LIMIT).unwrap();
}

#[test]
fn before_a_dropped_database_it_is_there_and_lets_people_in() {
    let f = fixture();
    let all = suspects(f);
    let s = all.iter().find(|s| s.acts.iter().any(|a| a.deed == Deed::DropDatabase && a.table == "doomed")).unwrap();
    let (i, _scratch) = recover(f, s.target);
    check_ledger(f, &i, s.target);
    assert_eq!(sql(&i, "doomed", "select count(*) from inside"), "10");
    i.stop(Stop::Immediate, LIMIT).unwrap();

    // Why it is not the drop's own record: the database was marked invalid in place just before it.
    let mut drop_record = None;
    let mut reader = Reader::new();
    let mut layout = Layout::default();
    for segment in f.segments() {
        let tail = if segment.may_end { Tail::MayEnd } else { Tail::Whole };
        reader
            .segment(&segment.name, &segment.bytes, tail, |r| {
                layout.read(r)?;
                if let Content::DropDatabase { .. } = Content::read(r, &layout)? {
                    drop_record.get_or_insert(r.lsn);
                }
                Ok(())
            })
            .unwrap();
    }
    let at = drop_record.unwrap();
    assert!(s.target < at && at < s.end);
    let (i, _scratch) = recover(f, at);
    let said = psql(&i.database("doomed"), "select count(*) from inside").unwrap_err();
    assert!(said.contains("invalid database"), "{said}");
    i.stop(Stop::Immediate, LIMIT).unwrap();
}
