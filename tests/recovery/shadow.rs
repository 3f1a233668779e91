//! The whole way on a real cluster: damage, range, route, shadow, verification.

use std::sync::Mutex;

use breakglass::model::Time;
use breakglass::model::event::Verdict;
use breakglass::model::target::RecoveryTarget;
use breakglass::postgres::instance::State;
use breakglass::recovery::range::{Ask, Route, Stop, range, route};
use breakglass::recovery::shadow::{Shadow, build};
use breakglass::recovery::tables::user_tables;
use breakglass::recovery::verify::fingerprint::{Side, compare_table};
use breakglass::recovery::verify::{Boundary, VerifyOptions, verify};
use breakglass::recovery::watch::{Phase, Unwatched, Watch};
use breakglass::recovery::{locate, locate::LocateOptions, locate::group_of};
use tokio_util::sync::CancellationToken;

use super::shop::{SCHEMA, damage, now, script, traffic};
use crate::support::archived::Archived;
use crate::support::cluster::{LIMIT, block_on, programs, psql};

/// Keeps what it is told.
#[derive(Default)]
struct Seen(Mutex<Vec<Phase>>);

impl Watch for Seen {
    fn line(&self, _: &str) {}
    fn phase(&self, phase: &Phase) {
        self.0.lock().unwrap().push(phase.clone());
    }
}

fn find_route(a: &Archived, target: &RecoveryTarget, suspects: &[u32]) -> breakglass::error::Result<Route> {
    let ask = Ask { suspects, ..Ask::to(target, &a.room.path) };
    route(&a.unlocked, &programs(), &ask, &Unwatched, &CancellationToken::new())
}

#[test]
fn a_shadow_stands_before_the_damage_and_is_verified_against_the_source() {
    let a = Archived::start("shadow");
    a.cluster.sql("postgres", "create database shop");
    let db = a.cluster.database("shop");
    script(&db, SCHEMA);
    script(
        &db,
        "create table prices as select i as id, i * 1.5 as price from generate_series(1, 400) i; create extension amcheck;",
    );
    a.base_backup();
    let since = now(&db);
    traffic(&db, 30);
    a.cluster.sql("postgres", "alter system set work_mem = '5MB'"); // must not come along
    let first = damage(&db, "id % 3 = 1 and id <= 1000");
    traffic(&db, 10);
    damage(&db, "id % 3 = 2 and id <= 1000");
    script(
        &db,
        "delete from customers where id = 200 and not exists (select from orders where customer_id = 200); update prices set price = 0 where id = 7;",
    );
    traffic(&db, 5);
    let before = psql(&db, "select count(*) from orders").unwrap();
    assert_eq!(before, "1045");
    a.archive_now();

    let cancel = CancellationToken::new();
    let found = block_on(locate(&db, &LocateOptions::since(since), &Unwatched, &cancel)).unwrap();
    let target = found.candidates[0].target.clone();
    assert_eq!(target, RecoveryTarget::Xid(first));
    let suspects = group_of(&found, &target).unwrap().xids();

    let reach = range(&a.unlocked, &programs(), None, &a.room.path).unwrap();
    assert!(reach.holes.is_empty());
    assert!(
        reach.earliest.unwrap() <= found.candidates[0].at
            && found.candidates[0].at <= reach.latest.as_ref().unwrap().at
    );

    let route = find_route(&a, &target, &suspects).unwrap();
    assert!(matches!(route.stop, Stop::Lsn(_)));
    assert_eq!(
        route.first_lost.as_ref().unwrap().at,
        found.candidates[0].at,
        "the log and the server agree on the time"
    );
    let seen = Seen::default();
    let shadow = block_on(build(&a.request("one", route, suspects.clone()), &a.unlocked, &seen, &cancel)).unwrap();
    let phases = seen.0.lock().unwrap();
    let last = |name: &str| phases.iter().rev().find(|p| p.name == name).unwrap().clone();
    assert_eq!(last("files").total, Some(last("files").done));
    assert!(last("replay").done > 0);

    // It stands before the damage, and keeps to itself.
    let it = shadow.instance().unwrap();
    assert_eq!(it.state(), State::Ready);
    let sdb = shadow.database("shop").unwrap();
    let ask = |sql: &str| psql(&sdb, sql).unwrap();
    assert_eq!(ask("select count(*) from orders"), "1030");
    assert_eq!(ask("select count(*) from orders where address = 'see invoice'"), "0");
    for (name, value) in [
        ("archive_mode", "off"),
        ("listen_addresses", ""),
        ("primary_conninfo", ""),
        ("work_mem", "4MB"),
        ("max_connections", "30"),
    ] {
        assert_eq!(ask(&format!("show {name}")), value, "{name}");
    }
    assert_eq!(ask("select pg_is_in_recovery()"), "t");
    assert_eq!(shadow, Shadow::load(&shadow.root).unwrap());

    let options = VerifyOptions {
        shadow: sdb.clone(),
        source: Some(db.clone()),
        suspects: suspects.clone(),
        statement_timeout: std::time::Duration::from_secs(60),
    };
    let checks = block_on(verify(&options, &Unwatched, &cancel)).unwrap();
    for c in &checks {
        assert_eq!(c.verdict, Verdict::Passed, "{c:?}");
    }
    let detail = |name: &str| {
        checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name}: {checks:#?}")).detail.clone()
    };
    assert!(
        detail("fingerprint public.prices").starts_with("399 rows equal, 1 changed"),
        "{}",
        detail("fingerprint public.prices")
    );
    assert!(detail("fingerprint public.orders").contains("667 changed"), "{}", detail("fingerprint public.orders"));
    assert!(detail("damage gone").contains("none of 2"), "{}", detail("damage gone"));

    // Were all rows of the source from before the moment, the shadow would have to hold them: it does not, and that is seen.
    block_on(async {
        let mut here = breakglass::recovery::verify::open(&db, LIMIT).await.unwrap();
        let mut there = breakglass::recovery::verify::open(&sdb, LIMIT).await.unwrap();
        let all = Boundary { certain: Time::parse("2099-01-01T00:00:00Z").unwrap(), also: vec![] };
        let tables = user_tables(&mut here).await.unwrap();
        for (name, wanted) in
            [("public.prices", "1 rows from before the moment differ"), ("public.orders", "only 1030 in the shadow")]
        {
            let table = tables.iter().find(|t| t.name == name).unwrap();
            let result = compare_table(Side { c: &mut here, table }, Side { c: &mut there, table }, &all, &cancel)
                .await
                .unwrap();
            assert_eq!(result.check.verdict, Verdict::Failed, "{:?}", result.check);
            assert!(result.check.detail.contains(wanted), "{:?}", result.check);
        }
    });
    // A table rewritten since is paired by its key.
    script(&db, "vacuum full customers");
    let checks = block_on(verify(&options, &Unwatched, &cancel)).unwrap();
    let customers = checks.iter().find(|c| c.name == "fingerprint public.customers").unwrap();
    assert_eq!(customers.verdict, Verdict::Passed, "{customers:?}");
    // A table whose shape was changed since cannot be compared, and is not called equal.
    script(&db, "alter table prices alter price type text using price::text");
    let checks = block_on(verify(&options, &Unwatched, &cancel)).unwrap();
    let prices = checks.iter().find(|c| c.name == "fingerprint public.prices").unwrap();
    assert_eq!(prices.verdict, Verdict::NotAvailable, "a changed shape is not called equal: {prices:?}");
    it.stop(breakglass::postgres::Stop::Immediate, LIMIT).unwrap();
}

#[test]
fn unreachable_targets_are_refused_before_anything_is_touched() {
    let a = Archived::start("reach");
    let db = a.cluster.database("postgres");
    script(&db, "create table t (n int)");
    let early = now(&db);
    a.base_backup();
    for n in 0..4 {
        script(&db, &format!("insert into t values ({n}); select pg_create_restore_point('point {n}');"));
        a.archive_now();
    }
    let last_xid = script(&db, "begin; insert into t values (9); select pg_current_xact_id(); commit;");
    let no = |target: &str| {
        let target: RecoveryTarget = target.parse().unwrap();
        let e = find_route(&a, &target, &[]).unwrap_err();
        assert_eq!(e.kind.exit_code(), 4, "{e}");
        e.to_string()
    };
    assert!(no(&format!("time:{early}")).contains("before the oldest base backup"));
    assert!(no("time:2099-01-01T00:00:00Z").contains("the last commit there is at"));
    assert!(no(&format!("xid:{last_xid}")).contains("not in the archived log"), "not archived yet");
    assert!(no("name:nowhere").contains("restore point"));
    assert!(no("lsn:FF/0").contains("beyond the end"));
    let good = find_route(&a, &"name:point 2".parse().unwrap(), &[]).unwrap();
    assert!(matches!(good.stop, Stop::Lsn(_)));

    // One segment in the middle gone: named, with the last good one.
    let status = breakglass::backup::wal::status(a.unlocked.repository()).unwrap();
    let size = status.segment_size;
    let last = breakglass::backup::wal::Segment::parse(&status.timelines[0].last).unwrap();
    let hole = breakglass::backup::wal::Segment::from_number(1, last.number(size) - 1, size);
    let before = breakglass::backup::wal::Segment::from_number(1, last.number(size) - 2, size);
    let object = breakglass::backup::wal::WalName::Segment(hole).object();
    let file = a.repository.join(&object);
    std::fs::remove_file(&file).unwrap();
    let e = no("latest");
    assert!(e.contains(&hole.to_string()) && e.contains(&before.to_string()), "{e}");
    let e = no("name:point 3");
    assert!(e.contains(&hole.to_string()), "{e}");
    assert!(find_route(&a, &"name:point 1".parse().unwrap(), &[]).is_ok(), "what lies before the hole stays reachable");
    let reach = range(&a.unlocked, &programs(), None, &a.room.path).unwrap();
    assert_eq!(reach.holes.len(), 1);
}

#[test]
fn a_time_target_and_a_cancelled_build() {
    let a = Archived::start("time");
    let db = a.cluster.database("postgres");
    script(&db, "create table t (n int)");
    a.base_backup();
    script(&db, "insert into t values (1)");
    // Between two commits, by the server's clock.
    script(&db, "select pg_sleep(0.01)");
    let moment = now(&db);
    script(&db, "select pg_sleep(0.01); insert into t values (2)");
    a.archive_now();
    let route = find_route(&a, &RecoveryTarget::Time(moment), &[]).unwrap();
    let cancel = CancellationToken::new();
    let shadow = block_on(build(&a.request("timed", route.clone(), vec![]), &a.unlocked, &Unwatched, &cancel)).unwrap();
    assert_eq!(psql(&shadow.database("postgres").unwrap(), "select string_agg(n::text, ',') from t").unwrap(), "1");
    assert!(shadow.reached_time.unwrap() < moment);
    let again =
        block_on(build(&a.request("timed", route.clone(), vec![]), &a.unlocked, &Unwatched, &cancel)).unwrap_err();
    assert_eq!(again.kind.exit_code(), 4, "an existing folder is never overwritten: {again}");

    // Latest: a standby that waits at the end, not a server that promoted itself.
    let route_latest = find_route(&a, &RecoveryTarget::Latest, &[]).unwrap();
    let latest = block_on(build(&a.request("latest", route_latest, vec![]), &a.unlocked, &Unwatched, &cancel)).unwrap();
    assert_eq!(
        psql(&latest.database("postgres").unwrap(), "select count(*), pg_is_in_recovery() from t").unwrap(),
        "2|t"
    );
    for s in [shadow, latest] {
        s.instance().unwrap().stop(breakglass::postgres::Stop::Immediate, LIMIT).unwrap();
    }

    cancel.cancel();
    let r = a.request("cancelled", route, vec![]);
    let e = block_on(build(&r, &a.unlocked, &Unwatched, &cancel)).unwrap_err();
    assert_eq!(e.kind.exit_code(), 130, "{e}");
    assert!(!r.root.join("data").exists(), "half-restored files are removed");
}
