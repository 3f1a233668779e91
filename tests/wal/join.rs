//! `pitr locate` and `assess --deleted` as people run them: what the rows no longer show comes from the archived log.

use std::process::Command;

use breakglass::backup::wal::archive;

use super::fixture::script;
use crate::backup::PASSPHRASE;
use crate::support::cluster::Cluster;

#[test]
fn pitr_locate_offers_what_only_the_log_remembers() {
    let c = Cluster::start("waljoin", &[("wal_keep_size", "256MB")]);
    script(
        &c,
        "postgres",
        "create table gone as select generate_series(1, 300) id;\n\
         create table orders as select g id, 'paid' state from generate_series(1, 400) g;\nselect pg_switch_wal();\n",
    );
    let out = script(
        &c,
        "postgres",
        "begin;\nselect pg_current_xact_id()::xid;\ndelete from orders where id <= 250;\ncommit;\n\
         insert into orders values (1000, 'new');\n\
         begin;\nselect pg_current_xact_id()::xid;\ndrop table gone;\ncommit;\ninsert into orders values (1001, 'new');\n\
         update orders set state = 'sent' where id between 251 and 400;\n",
    );
    let xids: Vec<&str> = out.lines().collect();
    let last = c.sql("postgres", "select pg_walfile_name(pg_switch_wal())");
    let dir = tempfile::tempdir().unwrap();
    let (_, _, url) = crate::backup::repository(dir.path());
    let pg_wal = c.instance.layout.data.join("pg_wal");
    let mut segments: Vec<String> =
        std::fs::read_dir(&pg_wal).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    segments.retain(|n| n.len() == 24 && *n <= last);
    segments.sort();
    for name in &segments {
        archive(&url, &pg_wal.join(name), None).unwrap();
    }
    let command = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_breakglass"))
            .args(if more.first() == Some(&"assess") { &[][..] } else { &["pitr", "locate"] })
            .args(more)
            .args(["--json", "--since", "2h"])
            .env("DATABASE_URL", c.database("postgres").url())
            .env("BACKUP_DIR", &url)
            .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
            .env("BREAKGLASS_HOME", dir.path().join("state"))
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    let run = |more: &[&str]| {
        let out = command(more);
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
        (json["candidates"].as_array().unwrap_or_else(|| panic!("{said}")).clone(), said)
    };
    let (candidates, said) = run(&[]);
    let of = |xid: &str| candidates.iter().position(|c| c["xid"] == xid).unwrap_or_else(|| panic!("{xid}: {said}"));
    let (deleted, dropped) = (&candidates[of(xids[0])], &candidates[of(xids[1])]);
    assert_eq!(deleted["rows"], 250);
    assert_eq!(deleted["tables"][0], "public.orders");
    assert_eq!(deleted["target"]["by"], "lsn");
    assert_eq!(deleted["target"]["value"], deleted["lsn"]);
    assert_eq!(deleted["loses"]["rows"]["public.orders"], 2);
    assert!(dropped["what"].as_str().unwrap().starts_with("DROP TABLE public.gone"), "{dropped}");
    assert!(of(xids[1]) < of(xids[0]), "the table that is gone as a whole comes first");
    assert!(said.contains("archived log was read up to"), "{said}");
    // Narrowed to a table, what was done to others is left out.
    let (only, _) = run(&["--table", "public.orders"]);
    assert!(only.iter().any(|c| c["xid"] == xids[0]) && only.iter().all(|c| c["xid"] != xids[1]));
    // A table that is in no catalog any more is still found; one that never was is said to be unknown.
    let (gone, _) = run(&["--table", "gone"]);
    assert_eq!(gone.iter().map(|c| c["xid"].as_str().unwrap()).collect::<Vec<_>>(), [xids[1]]);
    let out = command(&["--table", "no_such"]);
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stderr));

    // What was taken away is assessed by the transaction that took it: not by rows that an innocent job has changed since.
    let assess = |more: &[&str]| -> serde_json::Value {
        let out = command(&[&["assess", "--deleted"], more].concat());
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{said}");
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
    };
    let first = |found: &serde_json::Value| found["findings"][0].as_str().unwrap().to_string();
    let orders = assess(&["--table", "public.orders"]);
    assert_eq!(orders["rows"], serde_json::json!({"public.orders": 250}), "{orders:#}");
    assert!(first(&orders).starts_with(&format!("taken away by transaction {} ", xids[0])), "{orders:#}");
    assert!(!orders["findings"].to_string().contains("UPDATE"), "{orders:#}");
    let all = assess(&[]);
    assert!(first(&all).contains("DROP TABLE public.gone"), "{all:#}");
    assert_eq!(all["rows"].get("public.orders"), None, "another act's rows are not its damage: {all:#}");
    let findings = all["findings"].to_string();
    assert!(
        findings.contains("public.gone: dropped") && findings.contains("also, not counted: transaction"),
        "{findings}"
    );
    // Rows that are there are said to be no measure of what is gone.
    let marks = command(&["assess"]);
    let marks: serde_json::Value = serde_json::from_slice(&marks.stdout).unwrap();
    assert!(marks["findings"].to_string().contains("breakglass assess --deleted"), "{marks:#}");
}
