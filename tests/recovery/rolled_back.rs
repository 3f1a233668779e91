//! What a recovery says of a catalog that was put back to an earlier state, and of a database that is not the repository's.

use super::shop::script;
use crate::support::archived::{Archived, said};
use crate::support::cluster::{Cluster, LIMIT, psql};

fn document(text: &str) -> serde_json::Value {
    serde_json::from_str(&text[text.find('{').unwrap()..=text.rfind('}').unwrap()])
        .unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_catalog_that_was_rolled_back_is_said_before_a_recovery_and_hinders_none() {
    let a = Archived::start("rolledback");
    let db = a.cluster.database("postgres");
    script(&db, "create table t (i int); insert into t values (1);");
    let first = a.base_backup();
    script(&db, "insert into t values (2);");
    let second = a.base_backup();
    script(&db, "insert into t values (3);");
    a.archive_now();
    let (code, text) = a.run(&["pitr", "range", "--json"]);
    let json = document(&text);
    assert_eq!((code, &json["rolled_back"], &json["problems"]), (0, &false.into(), &serde_json::json!([])), "{json:#}");
    assert_eq!(json["backups"], serde_json::json!([first, second]), "{json:#}");

    // Somebody else's database: whose log this is shows before the figures of it are believed.
    let other = Cluster::start("rolledbackother", &[]);
    let url = other.database("postgres").url();
    let (code, text) = said(a.command(&["pitr", "range"]).env("DATABASE_URL", &url));
    assert_eq!(code, 1, "{text}");
    for says in
        ["PROBLEM   the repository holds cluster ", "the database that answers is of cluster ", "set BACKUP_DIR"]
    {
        assert!(text.contains(says), "{says:?} is not in {text}");
    }
    let (code, text) = said(a.command(&["pitr", "range", "--json"]).env("DATABASE_URL", &url));
    let json = document(&text);
    assert!(code == 1 && json["problems"][0].as_str().unwrap().contains("the repository holds cluster"), "{json:#}");
    assert_eq!(json["rolled_back"], false);
    let (code, text) = said(a.command(&["pitr", "check", "--to", "latest"]).env("DATABASE_URL", &url));
    assert!(code == 1 && text.contains("✗ the repository holds cluster "), "{text}");
    // What a restore refuses, a check does not promise.
    std::fs::write(a.room.path.join("breakglass.toml"), "[target.expect]\nsystem_identifier = \"4711\"\n").unwrap();
    let (code, text) = a.run(&["pitr", "check", "--to", "latest"]);
    assert!(code == 1 && text.contains("\"4711\" is expected"), "{text}");
    std::fs::remove_file(a.room.path.join("breakglass.toml")).unwrap();

    // Of the two backups the catalog names the first one only, as it did before.
    let catalog = a.repository.join("catalog");
    let mut entries: Vec<_> = std::fs::read_dir(&catalog).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    std::fs::remove_file(entries.last().unwrap()).unwrap();
    let missing = format!("backup {second} lies there and no entry names it");
    let (code, text) = a.run(&["pitr", "range"]);
    assert_eq!(code, 1, "{text}");
    for says in ["PROBLEM   the catalog was rolled back", missing.as_str(), "--accept-catalog", "earliest  "] {
        assert!(text.contains(says), "{says:?} is not in {text}");
    }
    let (code, text) = a.run(&["pitr", "range", "--json"]);
    let json = document(&text);
    assert_eq!(
        (code, &json["rolled_back"], &json["backups"]),
        (1, &true.into(), &serde_json::json!([first])),
        "{json:#}"
    );
    assert!(json["problems"][0].as_str().unwrap().contains(&missing), "{json:#}");
    let (code, text) = a.run(&["pitr", "check", "--to", "latest"]);
    assert!(code == 1 && text.contains("WARNING: the catalog was rolled back") && text.contains(&missing), "{text}");
    assert!(
        text.contains("✓ from backup") && text.contains("latest can be recovered to, but the catalog was rolled back"),
        "{text}"
    );
    let (code, text) = a.run(&["pitr", "check", "--to", "latest", "--json"]);
    let json = document(&text);
    assert_eq!((code, &json["reachable"], &json["rolled_back"]), (1, &true.into(), &true.into()), "{json:#}");
    // Where the way itself is missing, that is why.
    let (code, text) = a.run(&["pitr", "check", "--to", "latest", "--backup", &second]);
    assert!(code == 1 && text.contains(&missing), "{text}");

    // Whoever has to recover can.
    let root = a.room.path.join("shadow");
    let dir = root.display().to_string();
    let (code, text) = a.run(&["pitr", "restore", "--to", "latest", "--dir", &dir]);
    assert!(
        code == 0 && text.contains("WARNING: the catalog was rolled back") && text.contains(&missing),
        "{code} {text}"
    );
    let shadow = breakglass::recovery::shadow::Shadow::load(&root).unwrap();
    assert_eq!(psql(&shadow.database("postgres").unwrap(), "select sum(i) from t").unwrap(), "6");
    shadow.instance().unwrap().stop(breakglass::postgres::Stop::Immediate, LIMIT).unwrap();
    // Somebody knows why: said no more.
    let (code, text) = a.run(&["backup", "verify", "--accept-catalog"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = a.run(&["pitr", "range"]);
    assert!(code == 0 && !text.contains("PROBLEM"), "{text}");
}
