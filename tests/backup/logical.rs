//! Dumps through the real program against a real server: by environment alone, verified, refused when something is wrong.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use super::PASSPHRASE;
use crate::support::cluster::{Cluster, psql};

/// The server of this topic.
pub fn cluster() -> Arc<Cluster> {
    static C: OnceLock<Arc<Cluster>> = OnceLock::new();
    C.get_or_init(|| Cluster::start("dump", &[])).clone()
}

/// The URL of a database of it, without a password.
pub fn url(c: &Cluster, database: &str) -> String {
    c.database(database).url()
}

/// The program in an environment that holds nothing but what is named.
pub fn program(dir: &Path, url: &str, more: &[(&str, &str)], args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(args)
        .env_clear()
        .env("HOME", dir)
        .env("BREAKGLASS_HOME", dir.join("state"))
        .env("BACKUP_DIR", dir.join("repo"))
        .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
        .env("DATABASE_URL", url);
    for (name, value) in more {
        c.env(name, value);
    }
    c.current_dir(dir).output().unwrap()
}

pub fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Runs it, insists on the exit code, and gives the JSON document.
pub fn json(dir: &Path, url: &str, code: i32, args: &[&str]) -> serde_json::Value {
    let mut all = vec!["--json"];
    all.extend_from_slice(args);
    let out = program(dir, url, &[], &all);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)))
}

#[test]
fn a_dump_by_environment_alone() {
    let c = cluster();
    let name = "we ird=\"db' ü";
    c.sql("postgres", &format!("create database {}", breakglass::postgres::connect::quote_ident(name)));
    let url = url(&c, name);
    c.sql(name, "create table t as select n, repeat(md5(n::text), 30) as x from generate_series(1, 20000) n");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    // The first create makes the repository, too.
    let done = json(d, &url, 0, &["backup", "create", "--logical", "--label", "before the change"]);
    assert_eq!(done["verified"], true, "{done}");
    assert_eq!(done["database"], name);
    assert!(done["plain_bytes"].as_u64().unwrap() > 15_000_000, "{done}");
    let schema = json(d, &url, 0, &["backup", "create", "--schema-only"]);
    assert!(schema["plain_bytes"].as_u64().unwrap() < 100_000, "{schema}");
    let some = json(d, &url, 0, &["backup", "create", "--table", "T*", "--table", "public.t"]);
    assert_eq!(some["kind"], "logical");

    let list = json(d, &url, 0, &["backup", "list"]);
    let kinds: Vec<&str> =
        list["backups"].as_array().unwrap().iter().map(|b| b["manifest"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["logical", "schema_only", "logical"]);
    assert_eq!(list["backups"][0]["manifest"]["label"], "before the change");
    assert!(list["backups"][0]["verified_at"].is_string());
    let id = done["id"].as_str().unwrap();
    assert_eq!(json(d, &url, 0, &["backup", "verify", "--all"])["ok"], true);

    // One bit of the dump, and of each object beside it.
    for object in ["database.dump.bgo", "globals.sql.bgo", "inventory.json.bgo"] {
        let path = d.join("repo/backups").join(id).join(object);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        let at = bad.len() * 2 / 3;
        bad[at] ^= 16;
        std::fs::write(&path, &bad).unwrap();
        let found = json(d, &url, 1, &["backup", "verify", id]);
        assert!(found["backups"][0]["error"]["what"].as_str().unwrap().contains(object), "{found}");
        std::fs::write(&path, &good).unwrap();
    }
    // Nothing of the rows or definitions is readable in the repository.
    let dump = std::fs::read(d.join("repo/backups").join(id).join("database.dump.bgo")).unwrap();
    assert!(!dump.windows(5).any(|w| w == b"PGDMP"));
}

#[test]
fn a_dump_that_fails_leaves_no_backup() {
    let c = cluster();
    c.sql("postgres", "create database fails");
    c.sql("postgres", "create role limited login");
    c.sql("fails", "create table secret (n int); revoke all on secret from public");
    let dir = tempfile::tempdir().unwrap();
    let url = url(&c, "fails");
    let limited = url.replace("user=postgres", "user=limited");
    assert_ne!(limited, url);
    let out = program(dir.path(), &limited, &[], &["backup", "create", "--logical"]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    assert!(text(&out).contains("permission denied"), "{}", text(&out));
    let list = json(dir.path(), &url, 0, &["backup", "list"]);
    assert_eq!(list["backups"].as_array().unwrap().len(), 0);
    assert_eq!(psql(&c.database("fails"), "select 1").unwrap(), "1");
}
