//! What was deleted, found in the archived log: few rows of a large table, beside a hole in the log, and in partitions.

use std::path::{Path, PathBuf};

use crate::support::archived::Archived;
use crate::support::cluster::{psql, server_user};

/// Runs it for the JSON document alone.
fn document(a: &Archived, args: &[&str]) -> (i32, serde_json::Value) {
    let out = a.command(args).arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {:?}", out.stderr));
    (out.status.code().unwrap(), json)
}

/// Runs it in a transaction; its id.
fn transaction(a: &Archived, sql: &str) -> String {
    let db = a.cluster.database("postgres");
    psql(&db, &format!("begin; {sql}; select pg_current_xact_id()::text; commit")).unwrap().trim().to_string()
}

#[test]
fn few_rows_of_a_large_table_are_found_and_never_said_not_to_be_there() {
    let a = Archived::start("fewrows");
    let db = a.cluster.database("postgres");
    psql(
        &db,
        "create table customers (id int primary key, v int); create table orders (id int, c int references customers on \
         delete cascade); create index on orders (c); insert into customers select i, 0 from generate_series(1, 20000) i; \
         insert into orders select i, i from generate_series(1, 20000) i; analyze",
    )
    .unwrap();
    a.base_backup();
    let few = transaction(&a, "delete from customers where id between 1600 and 1610");
    // A later job that changes much and deletes little: its moment is after the deletion.
    let job = transaction(&a, "update customers set v = 1 where id < 5000; delete from customers where id = 1");
    a.archive_now();

    // Below the usual measure; that is said, and how to see it.
    for args in [&["assess", "--deleted", "--since", "1h"][..], &["pitr", "locate", "--deleted", "--since", "1h"]] {
        let (_, text) = a.run(args);
        assert!(!text.contains("nothing was deleted"), "{text}");
        let says = "1 transaction deleted 22 rows in all, which is less";
        assert!(text.contains(says), "{text}");
        assert!(text.contains("--min-rows 1"), "{text}");
    }
    // As many as were asked for, of all tables of a transaction together.
    for n in ["1", "22"] {
        let (code, found) = document(&a, &["pitr", "locate", "--deleted", "--since", "1h", "--min-rows", n]);
        let xids: Vec<&str> =
            found["candidates"].as_array().unwrap().iter().filter_map(|c| c["xid"].as_str()).collect();
        assert_eq!((code, xids), (0, vec![few.as_str(), job.as_str()]), "{found}");
        assert_eq!(found["threshold_rows"].to_string(), n, "{found}");
        assert!(found["candidates"][0]["what"].as_str().unwrap().contains("DELETE 11 of about 20000"), "{found}");
        let (code, text) = a.run(&["assess", "--deleted", "--since", "1h", "--min-rows", n]);
        assert!(code == 0 && text.contains(&format!("taken away by transaction {few} ")), "{text}");
        // The job did the same to the same tables around that time.
        assert!(text.contains("public.customers: 12 rows deleted"), "{text}");
    }
    // One more is one too many, and that is said of those that are not shown.
    let (_, text) = a.run(&["assess", "--deleted", "--since", "1h", "--min-rows", "23"]);
    assert!(text.contains(&format!("taken away by transaction {job} ")), "{text}");
    assert!(text.contains("1 transaction deleted 22 rows in all, which is less"), "{text}");
    // Where the moment is printed, so is the transaction that other commands are told.
    let (_, text) = a.run(&["pitr", "locate", "--deleted", "--since", "1h", "--min-rows", "1"]);
    assert!(text.contains("1. before lsn:") && text.contains(&format!(", transaction {few}")), "{text}");
}

#[test]
fn nothing_deleted_is_said_where_nothing_was() {
    let a = Archived::start("nodeleted");
    let db = a.cluster.database("postgres");
    psql(&db, "create table t as select i from generate_series(1, 100) i").unwrap();
    a.base_backup();
    psql(&db, "insert into t values (0)").unwrap();
    a.archive_now();
    for more in [&[][..], &["--min-rows", "1"]] {
        let args = [&["assess", "--deleted", "--since", "1h"][..], more].concat();
        let (code, text) = a.run(&args);
        assert!(code == 0 && text.contains("nothing was deleted, emptied or dropped since"), "{text}");
        assert!(!text.contains("--min-rows"), "{text}");
    }
}

/// What happens to a stored segment: its path, its bytes, and those of another one.
type Harm = fn(&Path, &[u8], &[u8]);

/// The object of a segment in the repository.
fn object(a: &Archived, segment: &str) -> PathBuf {
    let folder = a.repository.join("wal/00000001/00000000");
    let mut all = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    all.find(|p| p.file_name().unwrap().to_string_lossy().starts_with(segment)).unwrap()
}

#[test]
fn a_hole_in_the_log_hides_nothing_but_what_was_in_it() {
    let a = Archived::start("hole");
    let db = a.cluster.database("postgres");
    psql(&db, "create table t as select i from generate_series(1, 3000) i; create table u (i int); analyze").unwrap();
    a.base_backup();
    let before = transaction(&a, "delete from t where i <= 500");
    a.archive_now();
    psql(&db, "insert into u values (1)").unwrap();
    let lost = a.archive_now();
    let after = transaction(&a, "delete from t where i > 2000");
    let other = a.archive_now();

    let path = object(&a, &lost);
    let kept = std::fs::read(&path).unwrap();
    let another = std::fs::read(object(&a, &other)).unwrap();
    let harms: [(&str, Harm); 4] = [
        ("missing", |p, _, _| std::fs::remove_file(p).unwrap()),
        ("cut", |p, kept, _| std::fs::write(p, &kept[..kept.len() / 2]).unwrap()),
        ("flipped", |p, kept, _| {
            let mut bytes = kept.to_vec();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            std::fs::write(p, bytes).unwrap();
        }),
        ("exchanged", |p, _, another| std::fs::write(p, another).unwrap()),
    ];
    let search = ["--since", "1h"];
    for (what, harm) in harms {
        // The archive's objects are read-only.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &kept).unwrap();
        harm(&path, &kept, &another);
        for command in [&["pitr", "locate", "--deleted"][..], &["pitr", "locate"], &["assess", "--deleted"]] {
            let (code, text) = a.run(&[command, &search].concat());
            assert_eq!(code, 0, "{what} {command:?} {text}");
            for xid in [&before, &after] {
                assert!(text.contains(&format!("transaction {xid}")), "{what} {command:?} {xid}: {text}");
            }
            let says = format!("WARNING: the log was not searched from {lost} ");
            assert!(text.contains(&says) && text.contains("committed between "), "{what} {command:?} {text}");
        }
        let (_, found) = document(&a, &["pitr", "locate", "--deleted", "--since", "1h"]);
        assert_eq!(found["log_searched_whole"], false, "{what} {found}");
        assert!(found["log_gaps"][0]["why"].is_string(), "{what} {found}");
        // Nothing is found of this table; that there was nothing is not claimed.
        let args = ["assess", "--deleted", "--since", "1h", "--table", "u"];
        let (code, text) = a.run(&args);
        assert!(code == 1 && text.contains("what lies in the hole is not known"), "{what} {text}");
        let (code, text) = a.run(&["pitr", "locate", "--deleted", "--since", "1h", "--table", "u"]);
        assert!(code == 1 && text.contains("what lies in the hole is not known"), "{what} {text}");
        assert!(!text.contains("nothing in the log;"), "{what} {text}");
        if !path.exists() {
            std::fs::write(&path, &kept).unwrap();
        }
    }
    // A new base backup behind the hole: what can be recovered is found by default.
    std::fs::remove_file(&path).unwrap();
    a.base_backup();
    let later = transaction(&a, "delete from t where i > 1000");
    a.archive_now();
    let (code, text) = a.run(&["pitr", "locate", "--deleted"]);
    assert!(code == 0 && text.contains(&format!("transaction {later}")), "{text}");
}

#[test]
fn rows_are_brought_back_from_right_before_the_transaction_that_damaged_them() {
    let a = Archived::start("before");
    let db = a.cluster.database("postgres");
    psql(
        &db,
        "create table t (i int primary key, v int); insert into t select i, 0 from generate_series(1, 500) i; analyze",
    )
    .unwrap();
    a.base_backup();
    let kept = transaction(&a, "insert into t values (501, 0)");
    let rolled_back = "begin; insert into t values (502, 0); rollback";
    psql(&db, rolled_back).unwrap();
    let harm = transaction(&a, "savepoint s; update t set v = 1 where i <= 200; release s");
    a.archive_now();
    let (_, found) = document(&a, &["pitr", "locate"]);
    let lsn = format!("lsn:{}", found["candidates"][0]["lsn"].as_str().unwrap());
    assert_eq!(found["candidates"][0]["xid"], harm.as_str(), "{found}");
    let shadow = a.room.path.join("shadow").display().to_string();
    let at = |xid: &str| {
        let sql = format!(
            "select to_char(pg_xact_commit_timestamp('{xid}') at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        );
        breakglass::model::Time::parse(psql(&db, &sql).unwrap().trim()).unwrap().to_string()
    };
    // The last commit in it is that of another transaction, not the rollback behind it, nor the one it stops before.
    let (code, text) = a.run(&["pitr", "restore", "--to", &lsn, "--dir", &shadow]);
    assert!(code == 0 && text.contains(&format!("last commit {}", at(&kept))), "{} {text}", at(&kept));
    let (code, text) =
        a.run(&["pitr", "partial", "--shadow", &shadow, "--table", "t", "--rows", "damaged", "--dry-run", "--json"]);
    let (_, gone) = a.run(&["pitr", "discard", "--shadow", &shadow]);
    let next = a.room.path.join("next").display().to_string();
    let (ended, after) = a.run(&["pitr", "restore", "--to-after", &lsn, "--dir", &next]);
    a.run(&["pitr", "discard", "--shadow", &next]);
    assert!(ended == 0 && after.contains(&format!("last commit {}", at(&harm))), "{gone} {after}");
    assert!(code == 0 && text.contains(&format!("the rows that transaction {harm} wrote")), "{text}");
    assert!(text.contains("\"damaged\": 200") || text.contains("200 damaged") || text.contains("200 rows"), "{text}");
}

#[test]
fn a_partition_is_named_with_the_rows_it_had() {
    let a = Archived::start("partitions");
    let db = a.cluster.database("postgres");
    psql(
        &db,
        "create table events (i int, k int) partition by list (k); create table events_a partition of events for values in \
         (1); create table events_b partition of events for values in (2); insert into events select i, 1 + i % 2 from \
         generate_series(1, 4000) i; analyze",
    )
    .unwrap();
    a.base_backup();
    // What the server knows of a table goes with it; the repository keeps it.
    a.archive_now();
    let (code, text) = a.run(&["wal", "index"]);
    assert_eq!(code, 0, "{text}");
    transaction(&a, "delete from events where k = 1");
    transaction(&a, "truncate events_b");
    a.archive_now();
    let (code, text) = a.run(&["pitr", "locate", "--deleted", "--since", "1h"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("TRUNCATE public.events_b (about 2000 rows), a partition of public.events"), "{text}");
    assert!(text.contains("DELETE 2000 of about 2000 rows of public.events_a, a partition of public.events"), "{text}");
    // Both names find it.
    for table in ["events", "events_b"] {
        let (code, text) = a.run(&["pitr", "locate", "--deleted", "--since", "1h", "--table", table]);
        assert!(code == 0 && text.contains("TRUNCATE public.events_b"), "{table} {text}");
    }
}

/// Storage that is written anew with the same rows is no damage, wherever it goes and whatever came before it.
#[test]
fn a_table_moved_or_written_anew_is_no_suspect() {
    let a = Archived::start("anew");
    let db = a.cluster.database("postgres");
    let sql = |text: &str| psql(&db, text).unwrap();
    let room = a.room.path.join("ts space");
    std::fs::create_dir(&room).unwrap();
    if let Some(user) = server_user() {
        std::os::unix::fs::chown(&room, Some(user.uid), Some(user.gid)).unwrap();
    }
    sql(&format!("create tablespace ts location '{}'", room.display()));
    sql(
        "create table plain (id int primary key, v text); insert into plain select i, 'x' from generate_series(1, 900) i",
    );
    sql(
        "create table intbs (id int primary key, v text) tablespace ts; create table wide (id int primary key, v text); \
         create table part (id int) partition by range (id); \
         create table part_1 partition of part for values from (0) to (1000) tablespace ts",
    );
    for t in ["intbs", "wide", "part"] {
        sql(&format!("insert into {t} select i from generate_series(1, 300) i"));
    }
    sql("insert into wide select i, repeat('y', 3000) from generate_series(301, 500) i; analyze");
    a.archive_now();
    // The pages of the catalog stand whole in the log before it; behind it only what changes on them.
    sql("checkpoint");
    for t in ["intbs", "wide", "part_1"] {
        sql(&format!("alter table {t} set (autovacuum_enabled = off)"));
    }
    a.archive_now();
    let late = sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    sql("alter table intbs set tablespace pg_default");
    sql("alter table part_1 set tablespace pg_default");
    sql("vacuum full intbs");
    a.archive_now();
    sql("cluster wide using wide_pkey");
    sql("vacuum full wide");
    sql("vacuum full part_1");
    sql("alter table wide alter v type varchar(5000) using v || 'z'");
    sql("alter table intbs set tablespace ts");
    a.archive_now();
    let emptied = transaction(&a, "truncate intbs; alter table intbs set tablespace pg_default");
    let real = transaction(&a, "delete from plain where id > 100");
    a.archive_now();
    // Read from before it all, and from where the old storage has no name yet.
    for since in ["1h", late.trim()] {
        let (code, found) = document(&a, &["pitr", "locate", "--since", since]);
        let xids: Vec<&str> =
            found["candidates"].as_array().unwrap().iter().filter_map(|c| c["xid"].as_str()).collect();
        assert_eq!(code, 0, "{found:#}");
        for (xid, _) in [(&emptied, "truncate"), (&real, "delete")] {
            assert!(xids.contains(&xid.as_str()), "{xid} of {found:#}");
        }
        let others = found["candidates"].as_array().unwrap().iter();
        let others: Vec<_> = others.filter(|c| c["xid"] != emptied.as_str() && c["xid"] != real.as_str()).collect();
        let takes = |c: &&&serde_json::Value| {
            let what = c["what"].as_str().unwrap();
            ["TRUNCATE", "DROP", "DELETE", "replaced", "pg_temp"].iter().any(|w| what.contains(w))
        };
        assert_eq!(others.iter().filter(takes).count(), 0, "{others:#?}");
    }
}
