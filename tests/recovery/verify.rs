//! Verification: what must be unchanged is compared byte for byte, and what is wrong is found.

use breakglass::model::event::Verdict;
use breakglass::postgres::connect::run;
use breakglass::recovery::tables::user_tables;
use breakglass::recovery::verify::{constraints, indexes, sequences};
use breakglass::recovery::watch::Unwatched;
use tokio_util::sync::CancellationToken;

use super::shop::{SCHEMA, now, script};
use crate::support::archived::Archived;
use crate::support::cluster::{Cluster, block_on};

#[test]
fn broken_constraints_sequences_and_indexes_are_found_from_the_rows() {
    let c = Cluster::start("checks", &[]);
    let db = c.database("postgres");
    script(&db, SCHEMA);
    let cancel = CancellationToken::new();
    let look = || {
        block_on(async {
            let mut conn = breakglass::recovery::verify::open(&db, std::time::Duration::from_secs(60)).await.unwrap();
            let tables = user_tables(&mut conn).await.unwrap();
            [
                constraints::check_constraints(&mut conn, &tables, &cancel).await.unwrap(),
                sequences::check_sequences(&mut conn).await.unwrap(),
                indexes::check_indexes(&mut conn, &Unwatched, &cancel).await.unwrap(),
            ]
        })
    };
    for c in look() {
        assert_eq!(c.verdict, Verdict::Passed, "{c:?}");
    }
    assert_eq!(c.sql("postgres", "select count(*) from pg_extension where extname = 'amcheck'"), "0", "left no trace");

    // Broken behind the server's back: triggers off, a constraint flipped to validated, an index that lost rows.
    script(
        &db,
        "set session_replication_role = replica; delete from customers where id = 3; \
         reset session_replication_role; \
         alter table orders drop constraint orders_total_cents_check; update orders set total_cents = -5 where id = 9; \
         alter table orders add constraint positive check (total_cents > 0) not valid; \
         update pg_constraint set convalidated = true where conname = 'positive'; \
         select setval('orders_id_seq', 5); \
         create index lossy on orders (address); \
         update pg_index set indisready = false, indisvalid = false where indexrelid = 'lossy'::regclass;",
    );
    script(&db, "insert into orders (id, customer_id, total_cents, address) values (5000, 1, 1, 'unseen');");
    script(&db, "update pg_index set indisready = true, indisvalid = true where indexrelid = 'lossy'::regclass;");
    let [constraints, sequences, indexes] = look();
    assert_eq!(constraints.verdict, Verdict::Failed);
    assert!(constraints.detail.contains("orders_customer_id_fkey of public.orders: 5 rows"), "{}", constraints.detail);
    assert!(constraints.detail.contains("positive of public.orders: 1 rows"), "{}", constraints.detail);
    assert_eq!(sequences.verdict, Verdict::Failed);
    assert!(sequences.detail.contains("orders_id_seq stands at 5"), "{}", sequences.detail);
    assert_eq!(indexes.verdict, Verdict::Failed, "{}", indexes.detail);
    assert!(indexes.detail.contains("lossy"), "{}", indexes.detail);
}

#[test]
fn a_duplicate_behind_a_unique_index_is_seen() {
    let c = Cluster::start("dup", &[]);
    let db = c.database("postgres");
    script(&db, "create table t (id int primary key); insert into t values (1), (2);");
    script(&db, "update pg_index set indisready = false where indrelid = 't'::regclass; ");
    script(&db, "insert into t values (1);");
    script(&db, "update pg_index set indisready = true where indrelid = 't'::regclass;");
    let cancel = CancellationToken::new();
    let check = block_on(async {
        let mut conn = db.connect().await.unwrap();
        run(&mut conn, "set search_path = pg_catalog").await.unwrap();
        let tables = user_tables(&mut conn).await.unwrap();
        constraints::check_constraints(&mut conn, &tables, &cancel).await.unwrap()
    });
    assert_eq!(check.verdict, Verdict::Failed);
    assert!(check.detail.contains("t_pkey of public.t: 1 rows"), "{}", check.detail);
}

#[test]
fn what_no_recovery_brings_back_and_keys_used_again_are_said() {
    let a = Archived::start("said");
    let db = a.cluster.database("postgres");
    script(
        &db,
        "create table t (id int primary key, n int); insert into t select i, i from generate_series(1, 9) i; \
         create unlogged table scratch (n int); insert into scratch select generate_series(1, 100);",
    );
    a.base_backup();
    script(&db, "insert into t values (10, 10)");
    let moment = format!("time:{}", now(&db));
    script(&db, "delete from t where id = 3; insert into t values (3, 333), (11, 11);");
    a.archive_now();
    let folder = a.room.path.join("beside").display().to_string();
    let (code, text) = a.run(&["pitr", "restore", "--to", &moment, "--dir", &folder]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = a.run(&["pitr", "verify", "--shadow", &folder]);
    assert_eq!(code, 0, "{text}");
    for says in [
        "public.scratch (100 rows in the source)",
        "does not have: public.t 1; ",
        "a key that was free again: public.t 1",
    ] {
        assert!(text.contains(says), "{says:?} is not in {text}");
    }
    let (code, text) = a.run(&["pitr", "promote", "--shadow", &folder, "--confirm", "postgres"]);
    assert_eq!(code, 0, "{text}");
    let to_do = text
        .lines()
        .find(|l| l.starts_with("TO DO: fill the unlogged tables again"))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(to_do.contains("public.scratch"), "{to_do}");
    breakglass::recovery::shadow::Shadow::load(&a.room.path.join("beside"))
        .and_then(|s| s.instance())
        .and_then(|i| i.stop(breakglass::postgres::Stop::Immediate, crate::support::cluster::LIMIT))
        .unwrap();
}
