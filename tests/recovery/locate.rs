//! Finding the moment on real clusters: several batches, decoys, savepoints, tables that cannot be read.

mod deleted;

use std::time::Duration;

use breakglass::action::assess::Assess;
use breakglass::action::{Action, Ctx, Nowhere};
use breakglass::config::settings::Connection;
use breakglass::config::{Secrets, Settings};
use breakglass::model::event::{Event, Kind};
use breakglass::model::target::RecoveryTarget;
use breakglass::postgres::Database;
use breakglass::recovery::Located;
use breakglass::recovery::locate::{LocateOptions, group_of, locate};
use breakglass::recovery::watch::Unwatched;
use tokio_util::sync::CancellationToken;

use super::shop::{SCHEMA, damage, now, script, traffic};
use crate::support::cluster::{Cluster, block_on};
use crate::support::console::{Story, start};

fn find(db: &Database, options: &LocateOptions) -> Located {
    block_on(locate(db, options, &Unwatched, &CancellationToken::new())).unwrap()
}

#[test]
fn the_batches_of_one_release_are_one_act_and_its_first_commit_is_the_moment() {
    let c = Cluster::start("locate", &[]);
    c.sql("postgres", "create database shop");
    let db = c.database("shop");
    script(&db, SCHEMA);
    let since = now(&db);
    traffic(&db, 40);
    // A good bulk job, earlier and smaller than the damage.
    let decoy = script(
        &db,
        "set application_name = 'packing'; begin; update orders set status = 'paid' where id <= 30; select pg_current_xact_id()::text; commit;",
    );
    traffic(&db, 20);
    let first = damage(&db, "id % 4 = 1 and id <= 1000");
    traffic(&db, 10);
    let second = damage(&db, "id % 4 = 2 and id <= 1000");
    let trickle = damage(&db, "id between 400 and 403 and id % 4 = 3");
    // A good change on a damaged row takes the release's mark away there.
    script(&db, "set application_name = 'storefront-2'; update orders set status = 'paid' where id = 1;");
    traffic(&db, 15);

    let found = find(&db, &LocateOptions::since(since));
    assert_eq!(found.candidates.len(), 2, "{:#?}", found.candidates);
    let best = &found.candidates[0];
    assert_eq!(best.target, RecoveryTarget::Xid(first.clone()));
    assert_eq!(best.tables, ["public.orders"]);
    assert_eq!(best.rows, 250 - 1 + 250 + 1);
    assert!(best.what.contains("storefront-release") && best.what.contains("r2"), "{}", best.what);
    let group = group_of(&found, &best.target).unwrap();
    let xids: Vec<String> = group.xids().iter().map(u32::to_string).collect();
    assert_eq!(xids, [first.clone(), second, trickle], "the small batch belongs to the act");
    // After the moment: 10 + 15 good orders and one changed order.
    assert_eq!(best.loses.transactions, Some(26));
    assert_eq!(best.loses.rows["public.orders"], 26);
    assert!(best.loses.window_ms > 0);
    assert_eq!(found.candidates[1].target, RecoveryTarget::Xid(decoy));
    assert_eq!(found.other_databases, ["postgres"]);

    // Limits of the search.
    let mut later = LocateOptions::since(since);
    later.until = Some(best.at);
    assert!(find(&db, &later).candidates.iter().all(|c| c.at < best.at));
    let mut other = LocateOptions::since(since);
    other.tables = vec!["customers".into()];
    assert!(find(&db, &other).candidates.is_empty());
    other.tables = vec!["no_such".into()];
    let e = block_on(locate(&db, &other, &Unwatched, &CancellationToken::new())).unwrap_err();
    assert_eq!(e.kind.exit_code(), 2);

    // A table under an exclusive lock is reported, not waited for.
    let mut locked = LocateOptions::since(since);
    locked.statement_timeout = Duration::from_secs(20);
    let found = block_on(async {
        let mut holder = db.connect().await.unwrap();
        breakglass::postgres::connect::run(&mut holder, "begin; lock table customers in access exclusive mode")
            .await
            .unwrap();
        locate(&db, &locked, &Unwatched, &CancellationToken::new()).await.unwrap()
    });
    assert!(found.unread["public.customers"].contains("lock"), "{:?}", found.unread);
    assert_eq!(found.candidates[0].xid, Some(first));
}

#[test]
fn a_batch_inside_savepoints_is_named_by_its_top_transaction() {
    let c = Cluster::start("savepoint", &[]);
    let db = c.database("postgres");
    script(
        &db,
        "create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 500) i;",
    );
    let since = now(&db);
    let top = script(
        &db,
        "begin; savepoint a; savepoint b; update t set v = 1 where id % 2 = 0; release b; savepoint c; \
         update t set v = 2 where id % 2 = 1; release c; select pg_current_xact_id()::text; commit;",
    );
    let found = find(&db, &LocateOptions::since(since));
    assert_eq!(found.candidates.len(), 1, "{:#?}", found.candidates);
    assert_eq!(found.candidates[0].target, RecoveryTarget::Xid(top));
    assert_eq!(found.candidates[0].rows, 500);

    // A table that is gone is what is asked about then, by the alarm or by name; the marks on the other one are no damage.
    let (summary, document) = assessed(&db, None, &[]);
    assert!(summary.contains("500 rows") && document["rows"]["public.t"] == 500, "{summary} {document}");
    script(&db, "create table payments (id int); insert into payments values (1); drop table payments");
    let alarm = "alarm: relation \"payments\" does not exist";
    for (alarm, args) in [(Some(alarm), &[][..]), (None, &["--table", "payments"]), (Some(alarm), &["--table", "t"])] {
        let (summary, document) = assessed(&db, alarm, args);
        assert!(summary.starts_with("payments is gone") && summary.contains("pitr locate --deleted"), "{summary}");
        let findings: Vec<&str> = document["findings"].as_array().unwrap().iter().filter_map(|f| f.as_str()).collect();
        assert!(findings[0].starts_with("payments is gone: there is no table of that name"), "{findings:#?}");
        assert!(findings[2].contains("which need be no damage"), "{findings:#?}");
        assert_eq!(document["rows"], serde_json::json!({}), "{document}");
    }
    // Made again it is not gone any more, whatever the alarm said.
    script(&db, "create table payments (id int)");
    let (summary, _) = assessed(&db, Some(alarm), &[]);
    assert!(summary.contains("500 rows"), "{summary}");
}

/// What `assess` says in an incident that began with this alarm.
fn assessed(db: &Database, alarm: Option<&str>, args: &[&str]) -> (String, serde_json::Value) {
    let mut story = Story::open(Kind::Real);
    if let Some(alarm) = alarm {
        story.add(1, vec![Event::ImpactStarted { at: start(), source: alarm.into(), moved_from: None }]);
    }
    let connection = Connection {
        host: db.host().into(),
        port: db.port(),
        user: db.user().into(),
        database: db.name().into(),
        sslmode: None,
    };
    let settings = Settings { database: Some(connection), ..Settings::default() };
    let state = std::sync::Arc::new(story.data().state);
    let ctx = Ctx { incident: Some(state), ..Ctx::new(settings, Secrets::default(), std::sync::Arc::new(Nowhere)) };
    let args: Vec<String> = args.iter().map(|a| a.to_string()).collect();
    let done = block_on(async { Assess.run(&ctx, &args).await }).unwrap();
    (done.summary, done.json)
}

#[test]
fn without_an_audit_log_batches_are_joined_by_table_and_size() {
    let c = Cluster::start("noaudit", &[]);
    let db = c.database("postgres");
    script(
        &db,
        "create table t (id int primary key, v int); create table u as select i as id from generate_series(1, 300) i; insert into t select i, 0 from generate_series(1, 600) i;",
    );
    let since = now(&db);
    script(&db, &(1..=30).map(|i| format!("update t set v = 1 where id = {i};\n")).collect::<String>());
    let first = script(
        &db,
        "begin; update t set v = 2 where id between 100 and 300; select pg_current_xact_id()::text; commit;",
    );
    script(&db, "update t set v = 2 where id between 301 and 500; begin; update u set id = id + 1000; commit;");
    let found = find(&db, &LocateOptions::since(since));
    let shown: Vec<_> = found.candidates.iter().map(|c| (c.tables.clone(), c.rows)).collect();
    assert_eq!(shown, [(vec!["public.u".to_string()], 300), (vec!["public.t".to_string()], 401)]);
    assert_eq!(found.candidates[1].target, RecoveryTarget::Xid(first));
    assert_eq!(found.threshold, 20);
}

#[test]
fn without_commit_times_it_says_what_to_do() {
    let c = Cluster::start("nots", &[("track_commit_timestamp", "off")]);
    let db = c.database("postgres");
    let options = LocateOptions::since(breakglass::model::Time::from_micros(0));
    let e = block_on(locate(&db, &options, &Unwatched, &CancellationToken::new())).unwrap_err();
    assert!(e.to_string().contains("track_commit_timestamp"), "{e}");
    assert!(e.hints.iter().any(|h| h.contains("--to")), "{e}");
}
