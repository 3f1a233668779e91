//! The judge and the independent checker, on recoveries that are right and on ones that are wrong in one way each.
//!
//! The recovery is made by hand from the sandbox's own repository, so that nothing of the console's recovery is trusted.

use std::path::{Path, PathBuf};
use std::process::Command;

use breakglass::backup::base::{RestoreOptions, restore_base};
use breakglass::backup::catalog::{BackupKind, Catalog};
use breakglass::backup::repository::Repository;
use breakglass::config::settings::REPOSITORY_KEY;
use breakglass::drill::control::Control;
use breakglass::drill::judge::{Claim, Judgement, judge};
use breakglass::drill::logs::{self, InjectorLine, OrderLine};
use breakglass::drill::release::Window;
use breakglass::drill::sandbox::Sandbox;
use breakglass::drill::scratch;
use breakglass::drill::server::Server;
use breakglass::model::event::Verdict;
use breakglass::model::target::RecoveryTarget;
use breakglass::postgres::{Instance, Programs};

use super::sandbox::{Place, options, psql, until};
use crate::support::cluster::{LIMIT, server_user};

/// Recovers the sandbox's backup to just before `target` and promotes. The log is read from the source's own directory.
fn recover(sandbox: &Sandbox, name: &str, target: &[(&str, &str)]) -> Server {
    let settings = sandbox.settings();
    let unlocked = Repository::open(&settings.repository.unwrap())
        .unwrap()
        .unlock(sandbox.secrets().unwrap().get(REPOSITORY_KEY).unwrap())
        .unwrap();
    let id = Catalog::load(&unlocked).unwrap().newest(BackupKind::Physical).unwrap().manifest.id.clone();
    let user = server_user();
    let root = settings.instances_dir.unwrap().join(name);
    let instance = Instance::new(Programs::at(&sandbox.facts().bin_dir).unwrap(), &root, user.clone()).unwrap();
    let owner = user.as_ref().map(|u| (u.uid, u.gid));
    instance.make_dirs().unwrap();
    restore_base(&unlocked, &id, &instance.layout.data, &RestoreOptions { owner, threads: 2 }, &mut |_| Ok(()))
        .unwrap();
    std::fs::write(instance.layout.data.join("recovery.signal"), "").unwrap();
    let wal = scratch::cluster(sandbox.dir()).join("data/pg_wal");
    let mut all: Vec<(String, String)> = [
        ("restore_command", format!("cp '{}'/%f %p", wal.display())),
        ("recovery_target_inclusive", "off".into()),
        ("recovery_target_action", "promote".into()),
        ("track_commit_timestamp", "on".into()),
        ("max_connections", "60".into()),
        ("max_wal_senders", "8".into()),
    ]
    .map(|(k, v)| (k.to_string(), v))
    .to_vec();
    all.extend(target.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    instance.configure(&all, None).unwrap();
    instance.start(LIMIT).unwrap();
    let at = instance.database("shop");
    let server = Server { socket: at.host().into(), port: at.port(), user: "postgres".into(), database: "shop".into() };
    until("promotion", || on(sandbox, &server, "SELECT pg_is_in_recovery()") == "f");
    server
}

fn on(sandbox: &Sandbox, server: &Server, sql: &str) -> String {
    let out = Command::new(sandbox.facts().bin_dir.join("psql"))
        .env_clear()
        .args(["-XAtq", "-d", &server.conninfo(), "-c", sql])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim_end().to_string()
}

/// The transaction that wrote most orders first: what a person finds in the damaged database.
fn suspect(sandbox: &Sandbox) -> String {
    psql(sandbox, "SELECT xid FROM audit_log WHERE actor = 'storefront-release' ORDER BY id LIMIT 1")
}

fn decide(dir: &Path, server: &Server, target: RecoveryTarget, lost: u64) -> Judgement {
    let claim = Claim { target, lost_orders: Some(lost), generation: None };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(judge(dir, server, &claim))
        .unwrap()
}

/// Exit code and words of `tests/checker.py`.
fn checker(sandbox: &Sandbox, dir: &Path, server: &Server, target: &RecoveryTarget, lost: u64) -> (i32, String) {
    let report = dir.join("journal.jsonl");
    let target = serde_json::to_value(target).unwrap();
    let record = serde_json::json!({"events": [
        {"type": "moment_chosen", "target": target},
        {"type": "loss_measured", "loss": {"window_ms": 0, "transactions": null, "rows": {"public.orders": lost}}},
    ]});
    std::fs::write(&report, format!("{record}\n")).unwrap();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/checker.py");
    let out = Command::new("python3")
        .arg(script)
        .args([dir, &report])
        .arg(server.conninfo())
        .env("PSQL", sandbox.facts().bin_dir.join("psql"))
        .output()
        .unwrap();
    let words = [out.stdout, out.stderr].concat();
    (out.status.code().unwrap(), String::from_utf8(words).unwrap())
}

fn failed(j: &Judgement) -> Vec<&str> {
    j.checks.iter().filter(|c| c.verdict != Verdict::Passed).map(|c| c.name.as_str()).collect()
}

fn wait_for_orders(control: &Control, more: u64) {
    let taken = control.status().unwrap().health.orders_taken;
    until("orders", || control.status().unwrap().health.orders_taken >= taken + more);
}

#[test]
fn right_recoveries_pass_and_wrong_ones_are_named() {
    let place = Place::new("judge");
    let sandbox = Sandbox::make(&options(&place), &mut |_| {}).unwrap();
    let control = sandbox.control();
    // While no order is in flight a position says exactly which orders came before it.
    wait_for_orders(&control, 10);
    assert!(control.drain().unwrap());
    let early = psql(&sandbox, "SELECT pg_current_wal_insert_lsn()");
    let early_orders: u64 = psql(&sandbox, "SELECT count(*) FROM orders WHERE writer IS NOT NULL").parse().unwrap();
    control.resume().unwrap();
    wait_for_orders(&control, 20);

    control.inject(Window { from_ms: 0, to_ms: 100 }).unwrap();
    until("damage", || control.status().unwrap().health.components["billing"] == "degraded");
    wait_for_orders(&control, 60);
    control.contain().unwrap();
    assert_eq!(control.status().unwrap().health.status, "maintenance");
    psql(&sandbox, "SELECT pg_switch_wal()");

    let xid = suspect(&sandbox);
    let right = recover(&sandbox, "right", &[("recovery_target_xid", &xid)]);
    control.switch(&right).unwrap();
    control.maintenance(false).unwrap();
    until("health", || control.status().unwrap().health.healthy);
    wait_for_orders(&control, 30);

    let dir = sandbox.dir().to_path_buf();
    control.judge(&dir, false).unwrap();
    let log: Vec<OrderLine> = logs::read(&dir.join(logs::WRITERS)).unwrap();
    // Lost by the plain definition, counted on the damaged database and not by the judge.
    let kept: u64 = on(&sandbox, &right, "SELECT count(*) FROM orders WHERE writer IS NOT NULL").parse().unwrap();
    let first = log.iter().filter(|l| l.generation == 0).count() as u64;
    let since = log.iter().filter(|l| l.generation == 1).count() as u64;
    assert_eq!(psql(&sandbox, "SELECT count(*) FROM orders WHERE writer IS NOT NULL"), first.to_string());
    assert!(since >= 30);
    let lost = first - (kept - since);
    assert!(lost >= 60, "{lost}");

    let target = RecoveryTarget::Xid(xid.clone());
    let j = decide(&dir, &right, target.clone(), lost);
    assert!(j.passed(), "{:#?}", j.checks);
    assert_eq!((j.lost_orders, j.needless, j.injected_xid.as_deref()), (lost, 0, Some(xid.as_str())));
    assert!(j.damaged_rows > 100);
    let (code, words) = checker(&sandbox, &dir, &right, &target, lost);
    assert_eq!(code, 0, "{words}");

    // A loss that is not the loss.
    for said in [lost - 1, lost + 1] {
        assert_eq!(failed(&decide(&dir, &right, target.clone(), said)), ["the loss reported is the loss"]);
        assert_eq!(checker(&sandbox, &dir, &right, &target, said).0, 1);
    }
    // A moment other than the one that was recovered to.
    let damage: Vec<InjectorLine> = logs::read(&dir.join(logs::INJECTOR)).unwrap();
    let InjectorLine::Damage { committed: Some(at), .. } = &damage[1] else { panic!() };
    let end = psql(&sandbox, "SELECT pg_current_wal_insert_lsn()");
    assert!(!decide(&dir, &right, RecoveryTarget::Lsn(end.clone()), lost).passed());
    assert_eq!(checker(&sandbox, &dir, &right, &RecoveryTarget::Lsn(end), lost).0, 1);
    assert!(!decide(&dir, &right, RecoveryTarget::Xid("3".into()), lost).passed());
    // The same moment as a time.
    let same = RecoveryTarget::Time(*at);
    let j = decide(&dir, &right, same.clone(), lost);
    assert!(j.passed(), "{same}: {:#?}", j.checks);
    assert_eq!(checker(&sandbox, &dir, &right, &same, lost).0, 0);

    // One damaged row, one order changed, one gone, one nobody sent, one payment: each is found, by both judges.
    let wrongs = [
        (
            "UPDATE orders SET total_cents = total_cents + 1 WHERE id = (SELECT min(id) FROM orders WHERE writer IS NULL AND id IN ({damaged}))",
            "damaged rows are right again",
            true,
        ),
        (
            "UPDATE orders SET address = address || ' ' WHERE (writer, n) = (1, 1)",
            "every order before the moment is there",
            true,
        ),
        (
            "DELETE FROM payments WHERE (writer, n) = (1, 1); DELETE FROM orders WHERE (writer, n) = (1, 1)",
            "every order before the moment is there",
            true,
        ),
        (
            "INSERT INTO orders (customer_id, product_id, quantity, total_cents, channel, region, address, writer, n) VALUES (1, 1, 1, 1, 'web', 'north', 'x', 9, 9)",
            "every order there was sent by a writer",
            true,
        ),
        (
            "UPDATE payments SET amount_cents = 0 WHERE (writer, n) = (1, 1)",
            "orders, payments and audit log agree",
            false,
        ),
    ];
    let InjectorLine::Damage { rows, .. } = &damage[1] else { panic!() };
    let ids: Vec<String> = rows.iter().map(|(id, _, _)| id.to_string()).collect();
    for (sql, name, both) in wrongs {
        // A copy of the database for each, made and dropped by the server. The service's health check is in it once a second.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'";
        let copy = ["-c", end, "-c", "DROP DATABASE IF EXISTS wrong", "-c", "CREATE DATABASE wrong TEMPLATE shop"];
        until("the copy", || {
            let out = Command::new(sandbox.facts().bin_dir.join("psql"))
                .env_clear()
                .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", &right.with_database("postgres").conninfo()])
                .args(copy)
                .output()
                .unwrap();
            out.status.success()
        });
        let wrong = right.with_database("wrong");
        on(&sandbox, &wrong, &sql.replace("{damaged}", &ids.join(", ")));
        let j = decide(&dir, &wrong, target.clone(), lost);
        assert!(failed(&j).contains(&name), "{sql}: {:#?}", j.checks);
        if both {
            assert_eq!(checker(&sandbox, &dir, &wrong, &target, lost).0, 1, "{sql}");
        }
    }

    // One batch too late, everything replayed, and earlier than necessary.
    let late = damage.iter().rev().find_map(|l| match l {
        InjectorLine::Damage { xid: x, generation: 0, .. } if *x != xid => Some(x.clone()),
        _ => None,
    });
    let (late, name) = match &late {
        Some(x) => (vec![("recovery_target_xid", x.as_str())], x.clone()),
        None => (vec![], "latest".into()),
    };
    let server = recover(&sandbox, "late", &late);
    let claim = if name == "latest" { RecoveryTarget::Latest } else { RecoveryTarget::Xid(name) };
    let j = decide(&dir, &server, claim.clone(), 0);
    assert!(
        failed(&j).contains(&"damaged rows are right again") && failed(&j).contains(&"none of the damage is there"),
        "{:#?}",
        j.checks
    );
    assert_eq!(checker(&sandbox, &dir, &server, &claim, 0).0, 1);

    // Earlier than necessary is right, and what it lost needlessly is counted. The service never used this one.
    let server = recover(&sandbox, "early", &[("recovery_target_lsn", &early)]);
    let unused = dir.join("unused");
    std::fs::create_dir(&unused).unwrap();
    let log: Vec<&OrderLine> = log.iter().filter(|l| l.generation == 0).collect();
    logs::write(&unused.join(logs::WRITERS), &log).unwrap();
    logs::write(&unused.join(logs::INJECTOR), &damage).unwrap();
    let (target, lost) = (RecoveryTarget::Lsn(early), first - early_orders);
    let j = decide(&unused, &server, target.clone(), lost);
    assert!(j.passed(), "{:#?}", j.checks);
    assert!(j.needless >= 20 && j.needless <= lost, "{} of {lost}", j.needless);
    let (code, words) = checker(&sandbox, &unused, &server, &target, lost);
    assert_eq!(code, 0, "{words}");
}
