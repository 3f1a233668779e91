//! Fence, promote, archive again, salvage: on real clusters, with everything the judge would ask.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use breakglass::backup::wal::{Segment, WalName, status};
use breakglass::config::settings::REPOSITORY_KEY;
use breakglass::config::{Secrets, Settings};
use breakglass::model::Secret;
use breakglass::postgres::connect::run;
use breakglass::postgres::{Stop, identity};
use breakglass::recovery::backend::{self, Verified, Which};
use breakglass::recovery::loss::{Later, measure};
use breakglass::recovery::promote::{Inheritance, already_fenced, fence, open_kept, promote, source_settings};
use breakglass::recovery::range::{Ask, range, route};
use breakglass::recovery::salvage::salvage;
use breakglass::recovery::sequences;
use breakglass::recovery::shadow::build;
use breakglass::recovery::verify;
use breakglass::recovery::watch::Unwatched;
use tokio_util::sync::CancellationToken;

use super::shop::{SCHEMA, damage, script, traffic};
use crate::support::archived::{Archived, PASSPHRASE};
use crate::support::cluster::{Cluster, LIMIT, block_on, programs, psql, server_user};

#[test]
fn the_old_primary_is_down_before_the_new_one_is_up_and_nothing_good_is_forgotten() {
    let a = Archived::start("promote");
    let db = a.cluster.database("postgres");
    script(&db, SCHEMA);
    script(
        &db,
        "create table ledger (id int primary key, note text); insert into ledger select i, repeat('x', 90) from generate_series(1, 400) i",
    );
    a.base_backup();
    traffic(&db, 10);
    a.cluster.sql("postgres", "alter system set work_mem = '7MB'");
    a.cluster.sql("postgres", "select pg_reload_conf()");
    let first = damage(&db, "id % 3 = 1 and id <= 1000");
    traffic(&db, 4); // ids 1011 to 1014
    // The release goes on and hits one of the orders made since.
    let second = damage(&db, "id in (5, 1012)");
    script(&db, "set application_name = 'storefront-1'; update orders set status = 'paid' where id = 3;");
    a.archive_now();

    let cancel = CancellationToken::new();
    let suspects: Vec<u32> = [&first, &second].iter().map(|x| x.parse().unwrap()).collect();
    let target = format!("xid:{first}").parse().unwrap();
    let ask = Ask { suspects: &suspects, ..Ask::to(&target, &a.room.path) };
    let way = route(&a.unlocked, &programs(), &ask, &Unwatched, &cancel).unwrap();
    let request = a.request("shadow", way, suspects.clone());
    let shadow = block_on(build(&request, &a.unlocked, &Unwatched, &cancel)).unwrap();
    let sdb = shadow.database("postgres").unwrap();

    // A page of the old cluster rots, and nobody has met it yet when the loss is measured: the server counted no failure.
    script(&db, "insert into ledger values (401, 'later'); checkpoint");
    let file = a.cluster.instance.layout.data.join(a.cluster.sql("postgres", "select pg_relation_filepath('ledger')"));
    a.cluster.instance.stop(Stop::Fast, LIMIT).unwrap();
    flip(&file, 5_000);
    a.cluster.instance.start(LIMIT).unwrap();

    // The loss, measured while both stand: 4 orders, one of them damaged since; the changed order is not lost.
    let later = block_on(async {
        let mut here = verify::open(&db, LIMIT).await.unwrap();
        let mut there = verify::open(&sdb, LIMIT).await.unwrap();
        measure(&mut here, &mut there, &suspects, shadow.moment, &Unwatched, &cancel).await.unwrap()
    });
    assert_eq!(later.loss.rows["public.orders"], 4);
    assert_eq!(later.loss.rows["public.ledger"], 1, "around the page that cannot be read");
    assert_eq!(later.loss.transactions, Some(6));
    assert!(!later.loss.at_most);
    assert_eq!(later.changed["public.orders"].len(), 1);
    assert_eq!(later.damaged["public.orders"].len(), 1);
    // Two good updates of the audit log: the traffic's own and order 3; the release's own lines are no loss.
    assert_eq!(later.loss.rows["public.audit_log"], 2);
    later.save(&shadow.root, server_user().as_ref()).unwrap();
    assert_eq!(Later::load(&shadow.root).unwrap(), later);

    let (new, fenced) = block_on(async {
        let mut c = db.connect().await.unwrap();
        let seen = identity(&mut c, &db).await.unwrap();
        let settings = source_settings(&mut c).await.unwrap();
        drop(c);
        let marks = Some(sequences::read(&db).await.unwrap());
        let inheritance = Inheritance { settings, marks, place: None };
        let fenced = fence(&db, &seen).await.unwrap();
        assert!(db.connect_within(Duration::from_secs(2)).await.is_err(), "the old primary still answers");
        // At this instant nothing takes writes.
        let mut c = sdb.connect().await.unwrap();
        assert!(identity(&mut c, &sdb).await.unwrap().in_recovery);
        drop(c);
        let other = promote(&shadow, "postgres", "1", &a.unlocked, &inheritance).await.unwrap_err();
        assert_eq!(other.kind.exit_code(), 4, "another cluster than expected is refused: {other}");
        (promote(&shadow, "postgres", &seen.system_identifier, &a.unlocked, &inheritance).await.unwrap(), fenced)
    });
    assert!(!a.cluster.instance.is_running());
    assert_eq!(fenced.kept, a.cluster.instance.layout.data.display().to_string());
    assert_eq!((new.identity.timeline, new.identity.in_recovery), (2, false));
    let ask = |sql: &str| psql(&new.database, sql).unwrap();
    assert_eq!(
        ask("insert into orders (customer_id, total_cents, address) values (1, 1, 'after') returning id > 1014"),
        "t",
        "ids that the damaged cluster gave out are not given out again"
    );
    assert_eq!(ask("select count(*) from orders where address = 'see invoice'"), "0");
    assert_eq!(ask("show work_mem"), "7MB", "the source's settings came along");
    assert_eq!(ask("show archive_mode"), "on");
    assert_eq!(ask("show listen_addresses"), "");
    // The new timeline arrives in the same repository and can be recovered along.
    let segment = ask("select pg_walfile_name(pg_switch_wal())");
    let deadline = std::time::Instant::now() + LIMIT;
    while ask("select coalesce(last_archived_wal, '') from pg_stat_archiver") < segment {
        assert!(std::time::Instant::now() < deadline, "the new timeline is not archived");
        std::thread::sleep(Duration::from_millis(20));
    }
    let reach = range(&a.unlocked, &programs(), None, &a.room.path).unwrap();
    assert_eq!(reach.timeline, 2);
    assert!(reach.holes.is_empty(), "{:?}", reach.holes);
    assert!(reach.latest.unwrap().at > shadow.moment.unwrap());
    // What the old server wrote behind the fork is looked at as well: it can be recovered to, too.
    let old = status(a.unlocked.repository()).unwrap().timelines[0].last.clone();
    flip(&a.repository.join(WalName::Segment(Segment::parse(&old).unwrap()).object()), 5_000);
    let settings = Settings { repository: Some(a.repository.display().to_string()), ..Settings::default() };
    let mut secrets = Secrets::default();
    secrets.set(REPOSITORY_KEY, Secret::new(PASSPHRASE));
    let native = backend::open(&settings, &secrets, a.room.path.clone()).unwrap();
    let found = block_on(native.verify(&Which::All, Arc::new(Unwatched), &cancel, Arc::new(|_| {}))).unwrap();
    let wrong: Vec<&Verified> = found.iter().filter(|v| v.result.is_err()).collect();
    assert!(wrong.len() == 1 && wrong[0].what.ends_with("along timeline 1"), "{found:?}");
    assert!(wrong[0].result.as_ref().unwrap_err().to_string().contains(&old), "{found:?}");
    assert!(found.iter().any(|v| v.result.is_ok() && v.what.ends_with("along timeline 2")), "{found:?}");
    let forked = found.iter().position(|v| v.what.ends_with("along timeline 1"));
    assert!(forked > Some(0) && found.len() == 3, "the backup, and the log of each timeline once: {found:?}");

    // Salvage from the kept cluster, opened for us alone.
    let kept = open_kept(Path::new(&fenced.kept), &a.room.path.join("kept"), server_user()).unwrap();
    let kdb = kept.database("postgres");
    for (name, value) in [("archive_mode", "off"), ("listen_addresses", ""), ("default_transaction_read_only", "on")] {
        assert_eq!(psql(&kdb, &format!("show {name}")).unwrap(), value);
    }
    let folder = a.room.path.join("salvage");
    psql(&kdb, "select pg_stat_reset()").unwrap();
    let out = block_on(async {
        let mut c = verify::open(&kdb, LIMIT).await.unwrap();
        salvage(&mut c, &later, &folder, &Unwatched, &cancel).await.unwrap()
    });
    kept.stop(Stop::Fast, LIMIT).unwrap();
    assert_eq!(out.new, later.loss.rows, "what is exported is what was measured");
    assert_eq!(out.changed["public.orders"], 1);
    let csv = std::fs::read_to_string(folder.join("public.orders.csv")).unwrap();
    assert!(csv.starts_with("salvage_class,salvage_committed_at,salvage_transaction,id,customer_id"), "{csv}");
    let lines: Vec<&str> = csv.lines().skip(1).collect();
    let ids = |class: &str| -> Vec<&str> {
        lines.iter().filter(|l| l.starts_with(&format!("{class},"))).map(|l| l.split(',').nth(3).unwrap()).collect()
    };
    assert_eq!(ids("new"), ["1011", "1013", "1014"]);
    assert_eq!(ids("new-damaged"), ["1012"]);
    assert_eq!(ids("changed"), ["3"]);
    for line in std::fs::read_to_string(folder.join("public.orders.jsonl")).unwrap().lines() {
        let v: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(v["row"]["id"].is_number() && v["transaction"].is_string(), "{line}");
    }
    let sums =
        std::process::Command::new("sha256sum").args(["-c", "--quiet", "SHA256SUMS"]).current_dir(&folder).status();
    assert!(sums.unwrap().success());
    let again = block_on(async {
        let mut c = psql_free(&new.database).await;
        salvage(&mut c, &later, &folder, &Unwatched, &cancel).await.unwrap_err()
    });
    assert_eq!(again.kind.exit_code(), 4, "what was salvaged before is kept: {again}");
    shadow.instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
}

/// Changes a byte of a file.
fn flip(file: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

async fn psql_free(db: &breakglass::postgres::Database) -> sqlx::postgres::PgConnection {
    db.connect().await.unwrap()
}

#[test]
fn a_source_we_cannot_stop_is_closed_emptied_and_proved_read_only() {
    let c = Cluster::start("remote", &[]);
    c.sql("postgres", "create database shop");
    let db = c.database("shop");
    script(&db, "create table t (n int); create role app login");
    block_on(async {
        let mut writer = db.connect().await.unwrap();
        let mut seen = identity(&mut writer, &db).await.unwrap();
        // What a server on another machine looks like: its data directory means nothing here.
        seen.data_directory = None;
        assert!(already_fenced(&db, &seen).await.is_none());
        // A role that may not fence it changes nothing and says what to do on the other machine.
        let weak = breakglass::postgres::Database::at_socket(std::path::Path::new(db.host()), db.port(), "shop", "app");
        let e = fence(&weak, &seen).await.unwrap_err();
        let said = format!("{e} {:?}", e.hints);
        assert!(said.contains("systemctl stop") && said.contains("--source-is-fenced"), "{said}");
        run(&mut writer, "insert into t values (0)").await.unwrap();
        let fenced = fence(&db, &seen).await.unwrap();
        assert!(fenced.how.contains("takes no connections"), "{}", fenced.how);
        assert!(run(&mut writer, "insert into t values (1)").await.is_err(), "an old session still writes");
        assert!(db.connect().await.is_err(), "the database still takes connections");
        let other = db.with_name("postgres");
        let mut late = other.connect().await.unwrap();
        let e = run(&mut late, "create table u ()").await.unwrap_err();
        assert!(e.why.contains("read-only"), "{e}");
    });
}

#[test]
fn a_local_source_that_is_down_already_is_proved_to_be_fenced() {
    let c = Cluster::start("down", &[]);
    let db = c.database("postgres");
    let seen = block_on(async { identity(&mut db.connect().await.unwrap(), &db).await.unwrap() });
    assert!(block_on(already_fenced(&db, &seen)).is_none(), "it runs");
    c.instance.stop(Stop::Fast, LIMIT).unwrap();
    let fenced = block_on(already_fenced(&db, &seen)).unwrap();
    assert_eq!(fenced.kept, c.instance.layout.data.display().to_string());
    let mut other = seen.clone();
    other.system_identifier = "1".into();
    assert!(block_on(already_fenced(&db, &other)).is_none(), "another cluster's files prove nothing");
}
