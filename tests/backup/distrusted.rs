//! A `repository.json` that was edited, damaged or removed: what is whole is read all the same, nothing is written, and the key file
//! is enough to write it anew.

use std::path::{Path, PathBuf};

use breakglass::backup::container::{Identity, hex};
use breakglass::backup::rotation::WrittenFor;
use serde_json::Value;

use super::logical::{json, program, text};
use super::{NOBODY, add, manifest};
use crate::support::archived::Archived;

fn ends(d: &Path, env: &[(&str, &str)], args: &[&str], code: i32, says: &[&str]) -> String {
    let out = program(d, NOBODY, env, args);
    let said = text(&out);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
    says.iter().for_each(|s| assert!(said.contains(s), "{args:?}: {s:?} is not in {said}"));
    said
}

/// Names and contents of all files below a folder.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        match entry.is_dir() {
            true => all.extend(files(&entry)),
            false => all.push((entry.clone(), std::fs::read(&entry).unwrap())),
        }
    }
    all.sort();
    all
}

fn edited(good: &[u8], changes: &[(&str, Value)]) -> Option<Vec<u8>> {
    let mut info: Value = serde_json::from_slice(good).unwrap();
    changes.iter().for_each(|(name, value)| info[*name] = value.clone());
    Some(serde_json::to_vec(&info).unwrap())
}

fn stranger() -> [(&'static str, Value); 2] {
    let theirs = WrittenFor::of(&Identity::generate().unwrap()).unwrap();
    [("recipient", hex(&theirs.recipient).into()), ("signer", hex(&theirs.signer.unwrap()).into())]
}

#[test]
fn backups_come_back_whatever_became_of_repository_json() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    super::repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    let create = ["backup", "create", "--files", "data"];
    let first = json(d, NOBODY, 0, &create)["id"].as_str().unwrap().to_string();
    ends(d, &[], &["backup", "rotate-key", "--new-key-pair", "--new-recipient", "safe.key"], 0, &[]);
    let second = json(d, NOBODY, 0, &create)["id"].as_str().unwrap().to_string();
    let info = d.join("repo/repository.json");
    let good = std::fs::read(&info).unwrap();
    let broken: [(&str, Option<Vec<u8>>); 6] = [
        ("lost", None),
        ("cut", Some(good[..40].to_vec())),
        ("empty", Some(Vec::new())),
        ("id", edited(&good, &[("id", "00112233445566778899aabbccddeeff".into())])),
        ("stranger", edited(&good, &stranger())),
        ("version", edited(&good, &[("version", 2.into())])),
    ];
    for (what, bytes) in broken {
        match bytes {
            Some(bytes) => std::fs::write(&info, bytes).unwrap(),
            None => std::fs::remove_file(&info).unwrap(),
        }
        let before = files(&d.join("repo"));
        ends(d, &[], &["backup", "list"], 1, &[&first, &second, "WARNING", "repository.json", "backup repair"]);
        let list = json(d, NOBODY, 1, &["backup", "list"]);
        assert!(list["repository_json"].is_string() && list["rolled_back"] == false, "{what}: {list:#}");
        ends(d, &[], &["backup", "verify", "--all"], 1, &["right:", "repository.json", "backup repair"]);
        let verified = json(d, NOBODY, 1, &["backup", "verify", "--all"]);
        assert_eq!(verified["ok"], false, "{what}: {verified:#}");
        assert!(verified["backups"].as_array().unwrap().iter().all(|b| b["ok"] == true), "{verified:#}");
        for id in [&first, &second] {
            let into = format!("{what}-{id}");
            ends(d, &[], &["backup", "restore", id, "--into", &into], 0, &["WARNING", "backup repair"]);
            assert_eq!(std::fs::read(d.join(&into).join("data/file")).unwrap(), b"content");
        }
        // By the other way in as well.
        let by_file = [("BACKUP_ENCRYPTION_KEY", ""), ("BACKUP_IDENTITY_FILE", "safe.key")];
        ends(d, &by_file, &["backup", "list"], 1, &[&first, &second]);
        // Without the secret there is nothing to go on by.
        let other = [("BACKUP_ENCRYPTION_KEY", "another passphrase, thirty-two characters and more")];
        let out = program(d, NOBODY, &other, &["backup", "list"]);
        assert!(out.status.code() != Some(0) && !text(&out).contains(&first), "{what}: {}", text(&out));
        // Nothing is written on its word.
        for args in [&create[..], &["backup", "cleanup"], &["backup", "copy", "--to", "copied"]] {
            ends(d, &[], args, 4, &["repository.json"]);
        }
        ends(d, &[], &["--read-only", "backup", "repair"], 4, &[]);
        assert_eq!(files(&d.join("repo")), before, "{what}: something was written");
        // Who holds the secret writes it anew: the very bytes.
        ends(d, &[], &["backup", "repair"], 0, &["repository.json"]);
        assert_eq!(String::from_utf8(std::fs::read(&info).unwrap()).unwrap(), String::from_utf8(good.clone()).unwrap());
        ends(d, &[], &["backup", "list"], 0, &[&first, &second]);
        assert_eq!(json(d, NOBODY, 0, &["backup", "repair"])["written"], false);
    }
    assert_eq!(json(d, NOBODY, 0, &create)["verified"], true);

    // The signatures of those who rotated are mended, too: without them an archiver that names the first key stops.
    std::fs::write(&info, edited(&good, &[("earlier", Value::Array(Vec::new()))]).unwrap()).unwrap();
    assert_eq!(json(d, NOBODY, 0, &["backup", "repair"])["written"], true);
    assert_eq!(std::fs::read(&info).unwrap(), good);
}

#[test]
fn an_older_key_file_or_one_of_another_repository_mends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (repository, ..) = super::repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    let create = ["backup", "create", "--files", "data"];
    let id = json(d, NOBODY, 0, &create)["id"].as_str().unwrap().to_string();
    let keys = std::fs::read_dir(d.join("repo/keys")).unwrap().next().unwrap().unwrap().path();
    let (old, info) = (std::fs::read(&keys).unwrap(), d.join("repo/repository.json"));
    ends(d, &[], &["backup", "rotate-key", "--new-key-pair"], 0, &[]);
    let newer = json(d, NOBODY, 0, &create)["id"].as_str().unwrap().to_string();
    let new = std::fs::read(&keys).unwrap();
    let good = std::fs::read(&info).unwrap();
    std::fs::write(&keys, old).unwrap();
    std::fs::remove_file(&info).unwrap();
    // What the older one opens is read; objects for the key it does not hold would be lost if they were written for it again.
    let said = ends(d, &[], &["backup", "list"], 1, &[&id]);
    assert!(!said.contains(&format!("{newer}  0 MB")), "{said}");
    ends(d, &[], &["backup", "repair"], 4, &["--accept-keys", "folder keys"]);
    assert!(!info.exists());
    ends(d, &[("BREAKGLASS_HOME", "other")], &["backup", "repair"], 4, &["catalog", "--accept-keys"]);
    std::fs::write(&keys, new).unwrap();
    // A team that pinned its keys: a key that the list does not name is refused here as anywhere.
    std::fs::write(d.join("breakglass.toml"), format!("[backup]\nrecipients = [{:?}]\n", "0".repeat(32))).unwrap();
    ends(d, &[], &["backup", "repair"], 4, &["backup.recipients"]);
    std::fs::write(d.join("breakglass.toml"), format!("[backup]\nrecipients = [{:?}]\n", repository.key_id())).unwrap();
    ends(d, &[], &["backup", "repair"], 0, &[]);
    assert_eq!(std::fs::read(&info).unwrap(), good);
}

#[test]
fn a_recovery_goes_on_by_the_key_file() {
    let a = Archived::start("distrusted");
    a.cluster.sql("postgres", "create table t as select 1 as n");
    let id = a.base_backup();
    a.cluster.sql("postgres", "insert into t values (2)");
    a.archive_now();
    let info = a.repository.join("repository.json");
    let good = std::fs::read(&info).unwrap();
    for (n, bytes) in [Some(b"{".to_vec()), edited(&good, &stranger()), None].into_iter().enumerate() {
        match bytes {
            Some(bytes) => std::fs::write(&info, bytes).unwrap(),
            None => std::fs::remove_file(&info).unwrap(),
        }
        let (code, said) = a.run(&["pitr", "range"]);
        assert!(code == 0 && said.contains(&id) && said.contains("backup repair"), "{code}: {said}");
        let dir = a.room.path.join(format!("beside-{n}")).display().to_string();
        let (code, said) = a.run(&["pitr", "restore", "--to", "latest", "--dir", &dir]);
        assert!(code == 0 && said.contains("backup repair"), "{code}: {said}");
        // As a server's restore_command fetches, with the key in its environment.
        let segment = std::fs::read_dir(a.repository.join("wal/00000001/00000000")).unwrap().next().unwrap().unwrap();
        let name = segment.file_name().into_string().unwrap().trim_end_matches(".bgo").to_string();
        let to = a.room.path.join(format!("fetched-{n}")).display().to_string();
        let (code, said) = a.run(&["wal", "fetch", "--repository", a.repository.to_str().unwrap(), &name, &to]);
        assert_eq!(code, 0, "{said}");
        let (code, said) = a.run(&["health"]);
        assert!(code == 1 && said.contains("backup repair"), "{code}: {said}");
        let (code, said) = a.run(&["doctor"]);
        assert!(code == 1 && said.contains("backup repair"), "{code}: {said}");
    }
    assert_eq!(a.run(&["backup", "repair"]).0, 0);
    assert_eq!(std::fs::read(&info).unwrap(), good);
}

/// A copy that was finished and lost it comes back, too; one that never was says so.
#[test]
fn a_copy_is_read_by_its_key_file() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (_, unlocked, _) = super::repository(d);
    let at = breakglass::model::Time::parse("2026-11-20T13:30:00Z").unwrap();
    let id = "20261120T1330Z-files-aaaaaa";
    add(&unlocked, manifest(id, breakglass::backup::catalog::BackupKind::Files, at));
    ends(d, &[], &["backup", "copy", "--to", "copied"], 0, &[]);
    std::fs::remove_file(d.join("copied/repository.json")).unwrap();
    let there = [("BACKUP_DIR", "copied")];
    ends(d, &there, &["backup", "list"], 1, &[id, "backup repair"]);
    let copy = d.join("copied/copy.json");
    let unfinished = edited(&std::fs::read(&copy).unwrap(), &[("unfinished", true.into())]).unwrap();
    std::fs::write(&copy, unfinished).unwrap();
    ends(d, &there, &["backup", "list"], 1, &["never finished"]);
    ends(d, &there, &["backup", "repair"], 1, &["never finished"]);
}
