//! The base backup as a stream.

use std::io::Read;

use breakglass::postgres::BaseBackup;

use crate::support::cluster::{Cluster, programs};

#[test]
fn a_base_backup_is_one_tar_with_label_and_manifest() {
    let c = Cluster::start("basebackup", &[]);
    c.sql("postgres", "create table t as select generate_series(1, 1000) as n");
    let mut backup = BaseBackup::start(&programs(), &c.database("postgres"), "label of the test", None).unwrap();
    let mut bytes = Vec::new();
    backup.read_to_end(&mut bytes).unwrap();
    assert_eq!(backup.finish().unwrap(), bytes.len() as u64);
    let mut names = Vec::new();
    let mut label = String::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if name == "backup_label" {
            entry.read_to_string(&mut label).unwrap();
        }
        names.push(name);
    }
    for wanted in ["backup_label", "backup_manifest", "global/pg_control", "PG_VERSION"] {
        assert!(names.iter().any(|n| n == wanted), "{wanted} is missing");
    }
    assert!(label.contains("LABEL: label of the test"), "{label}");
}

#[test]
fn a_backup_that_fails_says_why_and_one_not_read_is_no_backup() {
    let c = Cluster::start("basefail", &[]);
    let d = breakglass::postgres::Database::at_socket(&c.instance.layout.sockets, 5432, "postgres", "nobody_here");
    let mut backup = BaseBackup::start(&programs(), &d, "x", None).unwrap();
    let mut bytes = Vec::new();
    backup.read_to_end(&mut bytes).unwrap();
    let e = backup.finish().unwrap_err();
    assert!(e.why.contains("nobody_here"), "{e}");
    let backup = BaseBackup::start(&programs(), &c.database("postgres"), "x", None).unwrap();
    assert!(backup.finish().is_err());
}
