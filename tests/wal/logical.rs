//! What else a log may hold: `wal_level=logical`, rewritten catalogs, rows moved between partitions, a release of many
//! small changes.

use breakglass::recovery::wal_locate::{Deed, NameMap, Rules, locate, snapshot, source};

use super::fixture::script;
use crate::support::cluster::{Cluster, block_on};

#[test]
fn a_logical_log_with_rewritten_catalogs_is_understood() {
    let c = Cluster::start("wallog", &[("wal_level", "logical"), ("wal_keep_size", "256MB")]);
    script(
        &c,
        "postgres",
        "create table old as select g id, 'x' p from generate_series(1, 200) g;\n\
         create table pt (id int, p text) partition by range (id);\n\
         create table pt_1 partition of pt for values from (0) to (1000);\n\
         create table pt_2 partition of pt for values from (1000) to (3000);\n\
         insert into pt select g, 'p' from generate_series(0, 299) g;\n\
         create table keyed (id int primary key, p text);\n\
         insert into keyed select g, 'k' from generate_series(1, 300) g;\n\
         create table many (id int);\ninsert into many select generate_series(1, 50);\nanalyze;\ncheckpoint;\n",
    );
    let mut names = NameMap::new();
    block_on(snapshot::update(&mut names, &c.database("postgres"))).unwrap();
    // All catalogs and tables move to other files; then a table is made, filled, emptied, dropped in the new ones.
    let out = script(
        &c,
        "postgres",
        "vacuum full;\n\
         do $$ begin for i in 1..60 loop execute 'create table n' || i || ' (a int, b int, c int)';\n\
         execute 'drop table n' || i; end loop; end $$;\n\
         create schema late;\ncreate table late.made as select generate_series(1, 500) id;\n\
         begin;\nselect pg_current_xact_id()::xid;\ntruncate late.made;\ncommit;\n\
         insert into late.made values (1);\n\
         begin;\nselect pg_current_xact_id()::xid;\ndrop table late.made;\ncommit;\n\
         begin;\nselect pg_current_xact_id()::xid;\ntruncate old;\ncommit;\n\
         begin;\nselect pg_current_xact_id()::xid;\nupdate pt set id = id + 1000;\ncommit;\n\
         begin;\nselect pg_current_xact_id()::xid;\nsavepoint a;\ndelete from keyed;\nrelease a;\ncommit;\n\
         update many set id = id where id <= 10;\nupdate many set id = id where id > 40;\n",
    );
    let xids: Vec<u32> = out.lines().map(|l| l.parse().unwrap()).collect();
    let dir = c.instance.layout.data.join("pg_wal");
    let rules = Rules { per_minute: true, ..Rules::default() };
    let read =
        |names: NameMap| locate(source::in_folder(&dir, None, None, true).unwrap(), names, rules.clone()).unwrap();
    // With the map of before the rewrite, and with none: the log teaches the rest.
    for (names, known) in [(names, true), (NameMap::new(), false)] {
        let (report, learnt) = read(names);
        let found: Vec<_> = report
            .suspects
            .iter()
            .map(|s| (s.xid, s.acts[0].deed, s.acts[0].table.as_str(), s.acts[0].deleted, s.acts[0].updated))
            .collect();
        let partitioned = if known { "public.pt" } else { "public.pt_1" };
        assert_eq!(
            found,
            [
                (xids[0], Deed::Truncate, "late.made", 0, 0),
                (xids[1], Deed::DropTable, "late.made", 0, 0),
                (xids[2], Deed::Truncate, "public.old", 0, 0),
                (xids[3], Deed::Rows, partitioned, 0, 300),
                (xids[4], Deed::Rows, "public.keyed", 300, 0),
            ]
        );
        assert!(report.suspects.iter().all(|s| s.database.as_deref() == Some("postgres")));
        let many = learnt.file_of(report.suspects[0].database_oid, oid(&c, "many")).unwrap();
        let updated: u64 = report.per_minute.iter().filter(|((_, f), _)| *f == many).map(|(_, n)| n.updated).sum();
        assert_eq!(updated, 20);
    }
}

fn oid(c: &Cluster, table: &str) -> u32 {
    c.sql("postgres", &format!("select '{table}'::regclass::oid")).parse().unwrap()
}
