//! A source that raised its limits behind the base backup: the recovering server is given them, and "latest" is the end of the log.

use breakglass::postgres::Stop;
use breakglass::recovery::shadow::Shadow;

use super::shop::script;
use crate::support::archived::{Archived, said};
use crate::support::cluster::{LIMIT, psql};

#[test]
fn limits_that_were_raised_on_the_way_stop_no_recovery() {
    let a = Archived::start("raised");
    let db = a.cluster.database("postgres");
    let alone = |args: &[&str]| said(a.command(args).env_remove("DATABASE_URL"));
    script(&db, "create table t (n int)");
    a.base_backup();
    let mut n = 0;
    let mut write = || {
        n += 1;
        // Several segments each, of 1 MB.
        script(&db, &format!("insert into t values ({n})"));
        script(&db, "select pg_logical_emit_message(false, '', repeat('x', 2500000))");
    };
    let raise = |settings: &[&str]| {
        for s in settings {
            script(&db, &format!("alter system set {s}"));
        }
        a.cluster.instance.stop(Stop::Fast, LIMIT).unwrap();
        a.cluster.instance.start(LIMIT).unwrap();
    };
    write();
    raise(&["max_connections = 150", "max_prepared_transactions = 7"]);
    write();
    raise(&["max_connections = 210", "max_locks_per_transaction = 128"]);
    write();
    script(&db, "select pg_create_restore_point('three')");
    write();
    a.archive_now();
    a.cluster.instance.stop(Stop::Immediate, LIMIT).unwrap();

    for (name, to, rows) in [("latest", "latest", "1,2,3,4"), ("named", "name:three", "1,2,3")] {
        let root = a.room.path.join(name);
        let (code, text) = alone(&["pitr", "restore", "--to", to, "--dir", &root.display().to_string()]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("the source raised a limit on the way (max_connections from "), "{text}");
        let db = Shadow::load(&root).unwrap().database("postgres").unwrap();
        assert_eq!(psql(&db, "select string_agg(n::text, ',' order by n) from t").unwrap(), rows, "{text}");
    }
    // Promoted, it has them still: its applications were given them for a reason.
    let root = a.room.path.join("latest");
    let dir = root.display().to_string();
    let gone = ["--source-is-fenced", "disk is gone", "--confirm", "postgres"];
    let (code, text) = alone(&[&["pitr", "promote", "--shadow", &dir], &gone[..]].concat());
    assert_eq!(code, 0, "{text}");
    let db = Shadow::load(&root).unwrap().database("postgres").unwrap();
    let limits = "select string_agg(setting, ' ' order by name) from pg_settings where name in \
                  ('max_connections', 'max_locks_per_transaction', 'max_prepared_transactions')";
    assert_eq!(psql(&db, limits).unwrap(), "210 128 7");
    for name in ["latest", "named"] {
        let dir = a.room.path.join(name).display().to_string();
        let (code, text) = alone(&["pitr", "discard", "--shadow", &dir, "--promoted-too"]);
        assert_eq!(code, 0, "{text}");
    }
}
