//! The first backup makes its repository, says so, and makes none where that is evidently a mistake.

use super::NOBODY;
use super::logical::{cluster, json, program, text, url};

#[test]
fn the_first_backup_makes_a_repository_aloud_and_none_by_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("data")).unwrap();
    let create = ["--json", "backup", "create", "--files", "data"];

    // As a scheduler runs it: no terminal, nothing made beforehand.
    let out = program(d, NOBODY, &[], &create);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let place = d.join("repo").display().to_string();
    assert!(said.contains("NEW REPOSITORY") && said.contains(&place), "{said}");
    let done: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(done["new_repository"]["url"], place, "{done}");
    assert_eq!(done["new_repository"]["key_id"].as_str().unwrap().len(), 32, "{done}");
    let again = json(d, NOBODY, 0, &create[1..]);
    assert!(again["new_repository"].is_null(), "{again}");

    // Misspelt where nothing is made: where this machine knows one comes first.
    let typo = d.join("rep").display().to_string();
    for args in [
        &["backup", "list"][..],
        &["backup", "cleanup", "--dry-run"],
        &["pitr", "restore", "--to", "latest", "--dir", "x"],
    ] {
        let out = program(d, NOBODY, &[("BACKUP_DIR", &typo)], args);
        let said = text(&out);
        assert_eq!(out.status.code(), Some(3), "{said}");
        let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what:?} is not in: {said}"));
        assert!(at(&format!("BACKUP_DIR={place}\n")) < at("backup init"), "{said}");
        assert!(at("Is BACKUP_DIR") < at("backup init"), "{said}");
    }
    assert!(!d.join("rep").exists());

    // A misspelt path, or a disk that is not mounted: the folder above is not there either.
    let missing = d.join("not-mounted/repo").display().to_string();
    let out = program(d, NOBODY, &[("BACKUP_DIR", &missing)], &create);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(text(&out).contains("not-mounted") && text(&out).contains("backup init"), "{}", text(&out));
    assert!(!d.join("not-mounted").exists());

    // The disk that it was on is not mounted: the place is known, and empty.
    std::fs::rename(d.join("repo"), d.join("away")).unwrap();
    std::fs::create_dir(d.join("repo")).unwrap();
    let out = program(d, NOBODY, &[], &create);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(text(&out).contains("was there when it was last looked at"), "{}", text(&out));
    assert_eq!(std::fs::read_dir(d.join("repo")).unwrap().count(), 0);
    assert!(text(&out).contains("backup init --new-place"), "{}", text(&out));
    // Nor by the command that makes one, unless that is said.
    let out = program(d, NOBODY, &[], &["backup", "init"]);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(text(&out).contains("was there when it was last looked at"), "{}", text(&out));
    assert_eq!(std::fs::read_dir(d.join("repo")).unwrap().count(), 0);
    assert_eq!(program(d, NOBODY, &[], &["backup", "init", "--new-place"]).status.code(), Some(0));
    assert_eq!(program(d, NOBODY, &[], &create).status.code(), Some(0));
}

#[test]
fn a_cluster_whose_repository_is_known_gets_no_second_one_by_mistake() {
    let c = cluster();
    c.sql("postgres", "create database misspelt");
    let at = url(&c, "misspelt");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let create = ["backup", "create", "--schema-only"];
    json(d, &at, 0, &create);
    let other = d.join("repp").display().to_string();
    let out = program(d, &at, &[("BACKUP_DIR", &other)], &create);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    let known = d.join("repo").display().to_string();
    assert!(text(&out).contains(&format!("BACKUP_DIR={known}")) && !d.join("repp").exists(), "{}", text(&out));
    // A state directory that has seen nothing knows nothing.
    let fresh = d.join("fresh").display().to_string();
    let out = program(d, &at, &[("BACKUP_DIR", &other), ("BREAKGLASS_HOME", &fresh)], &create);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
}

#[test]
fn a_repository_of_another_cluster_is_refused_before_the_server_is_asked_for_anything() {
    let c = crate::support::cluster::Cluster::start("notours", &[("archive_mode", "on"), ("archive_command", "false")]);
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (repository, ..) = super::repository(d);
    repository.bind_cluster(12345, None).unwrap();
    let at = c.database("postgres").url();
    // A base backup begins with a checkpoint that somebody asked for.
    let asked = || c.sql("postgres", "select checkpoints_req from pg_stat_bgwriter");
    let before = asked();
    for how in ["--physical", "--logical"] {
        let out = program(d, &at, &[], &["backup", "create", how]);
        assert_eq!(out.status.code(), Some(4), "{how}: {}", text(&out));
        for says in ["repository of cluster 12345", "one repository holds one cluster"] {
            assert!(text(&out).contains(says), "{how}: {says:?} is not in {}", text(&out));
        }
        assert!(!text(&out).contains("base backup of") && !text(&out).contains("dump of"), "{how}: {}", text(&out));
    }
    assert_eq!(asked(), before);
}
