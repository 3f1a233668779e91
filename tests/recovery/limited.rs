//! A role that may not read everything: what it could not see is not checked, and named where it matters.

use std::path::Path;

use breakglass::postgres::{Database, Stop};
use breakglass::recovery::shadow::Shadow;

use super::shop::{now, script};
use crate::support::archived::{Archived, said};
use crate::support::cluster::{LIMIT, psql};

#[test]
fn sequences_that_may_not_be_read_are_named_and_never_called_checked() {
    let a = Archived::start("limited");
    let db = a.cluster.database("postgres");
    script(
        &db,
        "create table t (id int primary key, n int); insert into t values (1, 1); create sequence plain_id_seq; \
         select nextval('plain_id_seq'); create role limited login; create role reader login; grant select on t to reader;",
    );
    a.base_backup();
    script(&db, "insert into t values (2, 2)");
    let moment = format!("time:{}", now(&db));
    script(&db, "select count(nextval('plain_id_seq')) from generate_series(1, 500); insert into t values (3, 3)");
    a.archive_now();
    let as_role = |role: &str, args: &[&str]| {
        let url = Database::at_socket(Path::new(db.host()), db.port(), "postgres", role).url();
        said(a.command(args).env("DATABASE_URL", url))
    };
    let folder = a.room.path.join("beside").display().to_string();

    let (code, text) = as_role("limited", &["pitr", "restore", "--to", &moment, "--dir", &folder]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("NOT KNOWN where the sequences public.plain_id_seq of \"postgres\" stand"), "{text}");
    let verify = ["pitr", "verify", "--shadow", &folder];
    let line = |text: &str, name: &str| {
        text.lines()
            .find(|l| l.contains(&format!(" {name}: ")))
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_string()
    };
    let (_, text) = as_role("limited", &verify);
    let ids = line(&text, "ids given out before");
    assert!(ids.starts_with("not checked") && ids.contains("public.plain_id_seq"), "{text}");
    assert!(line(&text, "rows").starts_with("not checked"), "no table could be read: {text}");
    // Tables alone are not enough.
    let (_, text) = as_role("reader", &verify);
    assert!(line(&text, "ids given out before").starts_with("not checked"), "{text}");
    assert!(line(&text, "rows").starts_with("passed"), "{text}");
    let (code, text) = as_role("postgres", &verify);
    assert_eq!(code, 0, "{text}");
    assert!(line(&text, "ids given out before").starts_with("passed"), "{text}");
    // What was seen once is not forgotten, and not taken for the last word.
    script(&db, "select nextval('plain_id_seq')");
    let (_, text) = as_role("reader", &verify);
    assert!(line(&text, "ids given out before").starts_with("not checked"), "{text}");

    a.cluster.instance.stop(Stop::Fast, LIMIT).unwrap();
    let promote = ["pitr", "promote", "--shadow", &folder, "--source-is-fenced", "stopped", "--confirm", "postgres"];
    let (code, text) = as_role("limited", &promote);
    assert_eq!(code, 0, "{text}");
    let to_do = text
        .lines()
        .find(|l| l.starts_with("TO DO: see that no id is given out twice"))
        .unwrap_or_else(|| panic!("{text}"));
    for says in
        ["public.plain_id_seq at 501", "SELECT setval('\"public\".\"plain_id_seq\"', NUMBER)", "role \"reader\""]
    {
        assert!(to_do.contains(says), "{says:?} is not in {to_do}");
    }
    let shadow = Shadow::load(&a.room.path.join("beside")).unwrap();
    let next = psql(&shadow.database("postgres").unwrap(), "select nextval('plain_id_seq')").unwrap();
    assert!(next.parse::<u32>().unwrap() > 502, "{next} was given out before");
    shadow.instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
}
