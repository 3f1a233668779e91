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
    let command_at = |url_of_server: &str, more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_breakglass"))
            .args(if more.first() == Some(&"assess") { &[][..] } else { &["pitr", "locate"] })
            .args(more)
            .arg("--json")
            .args(if more.contains(&"--since") { &[][..] } else { &["--since", "2h"] })
            .env("DATABASE_URL", url_of_server)
            .env("BACKUP_DIR", &url)
            .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
            .env("BREAKGLASS_HOME", dir.path().join("state"))
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    let command = |more: &[&str]| command_at(&c.database("postgres").url(), more);
    let run_at = |server: &str, more: &[&str]| {
        let out = command_at(server, more);
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
        (json["candidates"].as_array().unwrap_or_else(|| panic!("{said}")).clone(), said)
    };
    let run = |more: &[&str]| run_at(&c.database("postgres").url(), more);
    let (candidates, said) = run(&[]);
    let of = |xid: &str| candidates.iter().position(|c| c["xid"] == xid).unwrap_or_else(|| panic!("{xid}: {said}"));
    let (deleted, dropped) = (&candidates[of(xids[0])], &candidates[of(xids[1])]);
    assert_eq!(deleted["rows"], 250);
    assert_eq!(deleted["tables"][0], "public.orders");
    assert_eq!(deleted["target"]["by"], "lsn");
    assert_eq!(deleted["target"]["value"], deleted["lsn"]);
    assert_eq!(deleted["loses"]["rows"]["public.orders"], 2 + 150, "what others inserted and updated since");
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

    // A deletion whose transaction also wrote: what rows still show of it is its harmless part, and the log names it first.
    script(
        &c,
        "postgres",
        "create table clients as select g id, 'x' name from generate_series(1, 400) g;\n\
         create table bills as select g id, 10.0 total from generate_series(1, 3000) g;\n\
         create table lines as select g id, g / 2 bill from generate_series(1, 1000) g;\n\
         create table audit (id int, what text);\ncreate role app login;\ngrant execute on function pg_ls_waldir() to app;\n\
         grant select on all tables in schema public to app;\n",
    );
    let since =
        c.sql("postgres", "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    let out = script(
        &c,
        "postgres",
        "begin;\nselect pg_current_xact_id()::xid;\ndelete from lines where bill between 1 and 126;\n\
         delete from bills where id <= 142;\nupdate clients set name = 'y' where id <= 21;\n\
         insert into audit select g, 'gone' from generate_series(1, 142) g;\ncommit;\n\
         begin;\nselect pg_current_xact_id()::xid;\n\
         alter table bills add column half numeric generated always as (total / 2) stored;\ncommit;\n\
         update bills set total = total + 1 where id between 200 and 501;\n\
         update clients set name = 'z' where id between 100 and 118;\n",
    );
    let acts: Vec<&str> = out.lines().collect();
    let at = |candidates: &[serde_json::Value], xid: &str| candidates.iter().position(|c| c["xid"] == xid);
    let text = |c: &serde_json::Value| c["what"].as_str().unwrap().to_string();
    // None of it is archived yet. Who may read the server's own log finds it there, and is told what is to be done first.
    let (found, said) = run(&["--since", &since]);
    assert_eq!(at(&found, acts[0]), Some(0), "{said}");
    let what = text(&found[0]);
    let deleted = what.find("DELETE 252").unwrap_or_else(|| panic!("{what}"));
    assert!(deleted < what.find("UPDATE 21").unwrap() && what.contains("DELETE 142"), "{what}");
    assert!(
        what.contains("public.bills") && what.contains("public.lines") && what.contains("142 of public.audit"),
        "{what}"
    );
    assert!(what.contains("not in the archive yet: breakglass contain --keep-writes"), "{what}");
    assert_eq!(
        found[0]["loses"]["rows"],
        serde_json::json!({"public.bills": 302, "public.clients": 19}),
        "what others changed since, without its own rows and those of a rewrite: {said}"
    );
    // A table that was built anew wrote no row anybody meant: called what it is, below all that did something.
    let anew = at(&found, acts[1]).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(anew + 1, found.len(), "{said}");
    assert!(text(&found[anew]).starts_with("built anew as a whole, as by ALTER TABLE: public.bills;"), "{said}");
    // Who may not is told how far was looked, and what helps; never that there was nothing.
    let stranger = c.database("postgres").url().replace("user=postgres", "user=app");
    assert!(stranger.contains("user=app"), "{stranger}");
    let limit =
        "not archived yet and was not searched: breakglass contain --keep-writes archives it, then search again";
    let (_, said) = run_at(&stranger, &["--since", &since]);
    assert!(said.contains(limit), "{said}");
    let (none, said) = run_at(&stranger, &["--since", &since, "--deleted"]);
    assert!(none.is_empty() && said.contains("nothing in the archived log up to") && said.contains(limit), "{said}");
    let out = command_at(&stranger, &["assess", "--deleted", "--since", &since]);
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(1), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert!(json["searched"] == false && json["findings"].to_string().contains(limit), "{said}");
    assert!(!said.contains("nothing was deleted"), "{said}");

    // The server is gone: names and log are in the repository.
    let kept = Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .args(["wal", "index"])
        .env("DATABASE_URL", c.database("postgres").url())
        .env("BACKUP_DIR", &url)
        .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
        .env("BREAKGLASS_HOME", dir.path().join("state"))
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(kept.status.success(), "{}", String::from_utf8_lossy(&kept.stderr));
    let (alone, said) = run_at("postgres://postgres@127.0.0.1:1/postgres", &[]);
    assert!(
        said.contains("the archived log alone is searched") && said.contains("not known without the server"),
        "{said}"
    );
    let dropped = at(&alone, xids[1]).unwrap_or_else(|| panic!("{said}"));
    assert!(text(&alone[dropped]).starts_with("DROP TABLE public.gone"), "{said}");
    assert!(at(&alone, xids[0]).is_some() && at(&alone, acts[0]).is_none(), "{said}");
}
