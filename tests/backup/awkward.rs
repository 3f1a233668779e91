//! A database with everything awkward goes round whole: what pg_dump writes of the copy is what it writes of the original.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use breakglass::postgres::connect::quote_ident;

use super::logical::{json, url};
use crate::support::cluster::{Cluster, programs, psql};

/// An extension whose own tables hold configuration, one of them with a filter; removed with the value.
struct ConfigExtension(Vec<PathBuf>);

impl ConfigExtension {
    const NAME: &'static str = "breakglass_config_test";

    fn install() -> Option<Self> {
        let out = Command::new(programs().path("pg_config")).arg("--sharedir").output().ok()?;
        let dir = PathBuf::from(String::from_utf8(out.stdout).ok()?.trim()).join("extension");
        let files = [
            (format!("{}.control", Self::NAME), "default_version = '1.0'\nrelocatable = true\n".to_string()),
            (
                format!("{}--1.0.sql", Self::NAME),
                "CREATE TABLE config_all (k text PRIMARY KEY, v text);\n\
                 CREATE TABLE config_own (k text PRIMARY KEY, builtin bool NOT NULL DEFAULT false);\n\
                 INSERT INTO config_own VALUES ('shipped', true);\n\
                 SELECT pg_extension_config_dump('config_all', '');\n\
                 SELECT pg_extension_config_dump('config_own', 'WHERE NOT builtin');\n"
                    .to_string(),
            ),
        ];
        let mut made = Self(Vec::new());
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::write(&path, text).ok()?;
            made.0.push(path);
        }
        Some(made)
    }
}

impl Drop for ConfigExtension {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What `pg_dump` writes of a database, without what is random in it.
pub fn dumped(c: &Cluster, name: &str) -> String {
    let mut command = Command::new(programs().path("pg_dump"));
    command.args(["--quote-all-identifiers", "--create"]).env_clear().current_dir("/");
    for (key, value) in c.database(name).tool_env() {
        command.env(key, value.expose());
    }
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n").replace(&quote_ident(name), "\"THIS\"").replace(name, "THIS")
}

/// A cluster with the awkward database, and its name.
pub fn awkward(cluster_name: &str) -> (Arc<Cluster>, &'static str) {
    let c = Cluster::start(cluster_name, &[]);
    let name = "awk ward";
    c.sql("postgres", &format!("create database {}", quote_ident(name)));
    c.sql(name, include_str!("awkward.sql"));
    let here = quote_ident(name);
    c.sql(
        "postgres",
        &format!(
            "alter database {here} set search_path to \"odd schema \"\"x\"\"\", public; alter database {here} set \
             statement_timeout = '1h'; alter role app in database {here} set work_mem = '9MB'; comment on database {here} is \
             'it''s awkward'; revoke all on database {here} from public; grant connect on database {here} to reader with \
             grant option; alter database {here} owner to app; alter database {here} connection limit 77"
        ),
    );
    (c, name)
}

/// The first place where two texts differ, with what stands around it.
fn difference(a: &str, b: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let at = left.iter().zip(&right).position(|(x, y)| x != y).unwrap_or(left.len().min(right.len()));
    let around = |lines: &[&str]| lines[at.saturating_sub(3)..(at + 4).min(lines.len())].join("\n");
    format!("line {at}:\n{}\n--- instead of\n{}", around(&right), around(&left))
}

#[test]
fn everything_awkward_goes_round() {
    let (c, name) = awkward("awkward");
    let extension = ConfigExtension::install();
    match &extension {
        Some(_) => {
            let own = ConfigExtension::NAME;
            c.sql(name, &format!("create schema cfg; create extension {own} with schema cfg"));
            c.sql(
                name,
                "insert into cfg.config_all values ('a', 'b'); insert into cfg.config_own values ('mine', false)",
            );
        }
        None => {
            eprintln!("NOT TESTED: configuration tables of an extension; the server's share folder cannot be written")
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let url = url(&c, name);
    let made = json(dir.path(), &url, 0, &["backup", "create", "--logical"]);
    let id = made["id"].as_str().unwrap();
    let before = dumped(&c, name);
    for jobs in ["1", "2"] {
        let copy = format!("copy {jobs}");
        let done = json(dir.path(), &url, 0, &["backup", "restore", id, "--into", &copy, "--jobs", jobs]);
        assert_eq!(done["restored"]["rows"], 1480, "{done}");
        assert_eq!(done["restored"]["kept"], serde_json::Value::Null);
        let after = dumped(&c, &copy);
        assert!(before == after, "{}", difference(&before, &after));
        for sql in [
            "select count(*), sum(length(lo_get(oid))), min(md5(lo_get(oid))) from pg_largeobject_metadata",
            "select last_value, is_called from private.numbers",
            "select string_agg(n::text, ',' order by kind) from mv",
            "select relispopulated from pg_class where relname = 'mv_empty'",
        ] {
            assert_eq!(psql(&c.database(name), sql), psql(&c.database(&copy), sql), "{sql}");
        }
    }

    // Into a server that knows none of its roles: found first, all named, nothing made.
    let other = Cluster::start("elsewhere", &[]);
    let target = super::logical::url(&other, "mo ved");
    let out = json(dir.path(), &url, 4, &["backup", "restore", id, "--into", &target]);
    let why = out["error"]["why"].as_str().unwrap();
    for role in ["app", "reader", "Owner of"] {
        assert!(why.contains(role), "{out}");
    }
    assert_eq!(other.sql("postgres", "select count(*) from pg_database"), "3");
    let done = json(dir.path(), &url, 0, &["backup", "restore", id, "--into", &target, "--create-roles"]);
    assert_eq!(done["restored"]["roles"].as_array().unwrap().len(), 3, "{done}");
    let after = dumped(&other, "mo ved");
    assert!(before == after, "{}", difference(&before, &after));
    let roles = "select rolname, rolcanlogin, rolpassword, rolconfig from pg_authid where rolname !~ '^pg_' order by 1";
    assert_eq!(psql(&c.database("postgres"), roles), psql(&other.database("postgres"), roles));
    let members = "select roleid::regrole, member::regrole from pg_auth_members where member = 'app'::regrole";
    assert_eq!(other.sql("postgres", members), "reader|app");
    // Its package is gone from the server: found first, too.
    if let Some(installed) = extension {
        drop(installed);
        let again = super::logical::url(&other, "once more");
        let out = json(dir.path(), &url, 4, &["backup", "restore", id, "--into", &again]);
        let said = out["error"].to_string();
        assert!(said.contains(ConfigExtension::NAME) && said.contains("Install the extensions' packages"), "{out}");
        assert_eq!(other.sql("postgres", "select count(*) from pg_database"), "4");
    }
}
