//! The judge of a lost region on made-up logs: each thing that can be wrong is seen. What is read out of servers' logs.

use breakglass::action::{Action, Ctx, Nowhere, evidence};
use breakglass::config::{Secrets, Settings};
use breakglass::drill::judge_region::{Claim, Evidence, weigh, writable};
use breakglass::drill::logs::{Known, OrderLine};
use breakglass::drill::region::{RegionLine, WatchLine};
use breakglass::model::Time;
use breakglass::model::event::Verdict;
use breakglass::recovery::failover::Sample;
use breakglass::recovery::intruder::{Object, leftovers};
use breakglass::recovery::rebuild::parse_insert;

fn t(s: i64) -> Time {
    // 2026-11-21 06:00:00 UTC.
    Time::parse("2026-11-21T06:00:00Z").unwrap().plus(std::time::Duration::from_secs(s.unsigned_abs()))
}

fn order(writer: u32, n: u64, generation: u32, at: i64) -> OrderLine {
    OrderLine {
        writer,
        n,
        known: Known::Committed,
        generation,
        order: i64::from(writer) * 1000 + n as i64,
        total_cents: 100,
        address: String::new(),
        xid: "9".into(),
        lsn_before: "0/1".into(),
        lsn_after: None,
        committed: Some(t(at)),
        before: t(at),
        after: t(at),
    }
}

const NEAR: &str = "\
2026-11-21 06:00:00.000 UTC [1] LOG:  database system is ready to accept connections
2026-11-21 06:00:40.000 UTC [2] LOG:  starting PostgreSQL 15.18
2026-11-21 06:00:40.100 UTC [2] LOG:  database system was interrupted; last known up at 2026-11-21 06:00:05 UTC
2026-11-21 06:00:41.000 UTC [2] LOG:  database system is ready to accept read-only connections
";
const FAR: &str = "\
2026-11-21 06:00:00.000 UTC [5] LOG:  database system is ready to accept read-only connections
2026-11-21 06:00:20.000 UTC [6] LOG:  received promote request
2026-11-21 06:00:21.000 UTC [5] LOG:  database system is ready to accept connections
";

/// Lost at second 10, fenced at 15, promoted at 20; the last order of writer 1 is lost.
fn good() -> (Evidence, Claim) {
    let mut writers: Vec<OrderLine> = (1..=9).map(|n| order(1, n, 0, n as i64)).collect();
    writers.extend((10..=15).map(|n| order(1, n, 1, 15 + n as i64)));
    let stored = writers.iter().map(|l| (l.writer, l.n)).filter(|(_, n)| *n != 9).collect();
    let regions = vec![
        RegionLine::Plan { seed: "00".into(), armed: t(0), lag_ms: 0, back_ms: 900 },
        RegionLine::Lost { at: t(10) },
        RegionLine::Fenced { at: t(15) },
        RegionLine::Back { at: t(22), kept_off: true },
    ];
    let watch = vec![
        WatchLine { at: t(1), near: true, far: false },
        WatchLine { at: t(10), near: false, far: false },
        WatchLine { at: t(21), near: false, far: true },
    ];
    let evidence =
        Evidence { writers, regions, watch, logs: [NEAR.into(), FAR.into()], stored, streaming: 1, unreachable: None };
    (evidence, Claim { restored: Some(t(26)), lost_orders: Some(1) })
}

fn failed(e: &Evidence, claim: Claim) -> Vec<String> {
    let checks = weigh(e, claim).unwrap().checks;
    checks.into_iter().filter(|c| c.verdict != Verdict::Passed).map(|c| c.name).collect()
}

#[test]
fn the_judge_of_a_lost_region_sees_each_thing_that_can_be_wrong() {
    let (e, claim) = good();
    assert!(failed(&e, claim).is_empty(), "{:?}", weigh(&e, claim).unwrap().checks);
    let with = |change: fn(&mut Evidence)| {
        let mut e = e.clone();
        change(&mut e);
        failed(&e, claim)
    };
    // Two primaries: as the watcher saw, and, without the watcher, by the servers' own logs.
    let both = |e: &mut Evidence| e.watch.push(WatchLine { at: t(30), near: true, far: true });
    assert_eq!(with(both), ["never two primaries"]);
    let came_back = |e: &mut Evidence| e.logs[0] = NEAR.replace("accept read-only", "accept");
    assert_eq!(with(came_back), ["never two primaries"]);
    assert_eq!(with(|e| e.regions.retain(|l| !matches!(l, RegionLine::Fenced { .. }))), ["fenced before promoted"]);
    assert_eq!(with(|e| e.regions[2] = RegionLine::Fenced { at: t(21) }), ["fenced before promoted"]);
    assert_eq!(with(|e| assert!(e.stored.remove(&(1, 12)))), ["orders since the failover are there"]);
    assert_eq!(with(|e| assert!(e.stored.remove(&(1, 4)))), ["only the end is lost", "the loss reported is the loss"]);
    assert_eq!(with(|e| e.unreachable = Some("refused".into())), ["the door leads to a database"]);
    assert_eq!(with(|e| e.streaming = 0), ["a standby streams again"]);
    assert_eq!(failed(&e, Claim { lost_orders: Some(2), ..claim }), ["the loss reported is the loss"]);
    assert_eq!(failed(&e, Claim { restored: None, ..claim }), ["restored when it says so"]);
    assert!(weigh(&Evidence::default(), claim).is_err(), "without a loss there is nothing to judge");
}

#[test]
fn a_server_tells_when_it_took_writes() {
    assert_eq!(writable(NEAR, Some(t(10))), [(t(0), t(10))], "killed without a word, then a standby");
    let far = writable(FAR, None);
    assert_eq!(far.first().map(|s| s.0), Some(t(20)), "from the request on");
    let stopped = format!("{FAR}2026-11-21 06:00:50.000 UTC [5] LOG:  database system is shut down\n");
    assert_eq!(writable(&stopped, None), [(t(20), t(50))]);
    assert!(writable("nothing that is understood\n", None).is_empty());
}

#[test]
fn rows_are_counted_from_the_log() {
    let line = |desc: &str, rmgr: &str| {
        format!(
            "rmgr: {rmgr} len (rec/tot): 54/186, tx:        735, lsn: 0/0157F1C8, prev 0/0157F190, desc: {desc}, blkref #0: rel 1663/5/16390 blk 0"
        )
    };
    let table = (5, 16390);
    assert_eq!(parse_insert(&line("INSERT off 2 flags 0x00", "Heap       ")), Some((735, table, 1)));
    assert_eq!(parse_insert(&line("INSERT+INIT off 1 flags 0x00", "Heap       ")), Some((735, table, 1)));
    assert_eq!(parse_insert(&line("MULTI_INSERT 3 tuples flags 0x02", "Heap2      ")), Some((735, table, 3)));
    assert_eq!(parse_insert(&line("MULTI_INSERT+INIT ntuples: 7, flags: 0x02", "Heap2      ")), Some((735, table, 7)));
    for other in ["HOT_UPDATE off 2 xmax 735", "DELETE off 2 flags 0x00", "INSERT_LEAF off 2"] {
        assert_eq!(parse_insert(&line(other, "Heap       ")), None, "{other}");
    }
    assert_eq!(parse_insert(&line("INSERT off 2", "Btree      ")), None, "an index has no rows");
    assert_eq!(parse_insert(""), None);
}

#[test]
fn a_sample_that_is_none_is_refused() {
    let good = r#"{"at": "2026-11-21T06:00:00Z", "primary_lsn": "0/5000000", "more": 1}"#;
    assert_eq!(Sample::read(good).unwrap().last_commit, None);
    for bad in
        ["", "{}", r#"{"at": "now", "primary_lsn": "0/1"}"#, r#"{"at": "2026-11-21T06:00:00Z", "primary_lsn": "x"}"#]
    {
        let error = Sample::read(bad).unwrap_err().to_string();
        assert!(error.contains("failover.monitor did not print a sample"), "{error}");
    }
}

#[test]
fn what_an_intruder_left_is_taken_away_in_an_order_that_works() {
    let object = |kind: &str, name: &str, detail: &str| Object {
        kind: kind.into(),
        name: name.into(),
        detail: detail.into(),
        drop: (kind != "setting").then(|| format!("DROP {name}")),
    };
    let clean = [object("role", "app", "NOSUPERUSER"), object("function", "f()", "body")];
    let mut live: Vec<Object> = clean.to_vec();
    assert!(leftovers(&live.iter().cloned().collect(), &clean.iter().cloned().collect()).is_empty());
    live[0].detail = "SUPERUSER".into();
    live[1].detail = "other body".into();
    live.push(object("role", "door", "NOSUPERUSER"));
    live.push(object("member", "door of app", ""));
    live.push(object("trigger", "t on orders", ""));
    live.push(object("setting", "all", ""));
    let found = leftovers(&live.into_iter().collect(), &clean.into_iter().collect());
    let seen: Vec<(&str, Option<&str>)> = found.iter().map(|l| (l.what.as_str(), l.cure.as_deref())).collect();
    assert_eq!(
        seen,
        [
            ("new: trigger t on orders", Some("DROP t on orders")),
            // A function that was changed is a person's to put right.
            ("changed: function f()", None),
            ("new: member door of app", Some("DROP door of app")),
            ("changed: role app", Some("ALTER ROLE \"app\" NOSUPERUSER")),
            ("new: role door", Some("DROP door")),
            ("new: setting all", None),
        ]
    );
    let gone = leftovers(&Default::default(), &[object("extension", "pgcrypto", "1.3")].into_iter().collect());
    assert_eq!(gone.first().map(|l| l.what.as_str()), Some("gone: extension pgcrypto"));
}

#[test]
fn evidence_that_was_touched_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let sum = |text: &str| breakglass::journal::record::sha256_hex(text.as_bytes());
    std::fs::write(folder.path().join("activity.json"), "[]").unwrap();
    let seal = format!(
        r#"{{"v":1,"at":"2026-11-21T06:00:00.000000Z","after_isolation":false,"files":{{"activity.json":"{}"}}}}"#,
        sum("[]")
    );
    std::fs::write(folder.path().join("seal.json"), &seal).unwrap();
    let ctx = Ctx::new(Settings::default(), Secrets::default(), std::sync::Arc::new(Nowhere));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verify = |seal: Option<&str>| {
        let mut args = vec![folder.path().display().to_string()];
        args.extend(seal.map(|s| format!("--seal={s}")));
        runtime.block_on(evidence::Verify.run(&ctx, &args)).unwrap()
    };
    assert_eq!(verify(Some(&sum(&seal))).exit_code, 0);
    // As it was copied onto paper: every row is whole on a screen of 80 columns, and what was copied is taken back.
    let rows = evidence::grouped(&sum(&seal));
    assert!(rows.len() == 2 && rows.iter().all(|r| r.len() <= 35) && rows.concat().replace(' ', "") == sum(&seal)[..]);
    assert_eq!(verify(Some(&rows.join("\n").to_uppercase())).exit_code, 0);
    let other = verify(Some(&sum("another seal")));
    assert_eq!(other.exit_code, 1, "{}", other.summary);
    std::fs::write(folder.path().join("activity.json"), "[ ]").unwrap();
    let touched = verify(None);
    assert!(touched.exit_code == 1 && touched.summary.contains("activity.json: changed"), "{}", touched.summary);
    std::fs::remove_file(folder.path().join("activity.json")).unwrap();
    assert_eq!(verify(None).exit_code, 1);
}
