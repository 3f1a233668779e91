//! One damaged or missing document of a repository costs what it says, and nothing else.

use std::path::Path;
use std::process::Command;

use super::NOBODY;
use super::logical::{program, text};

fn run(d: &Path, args: &[&str]) -> (Option<i32>, String) {
    let out = program(d, NOBODY, &[], args);
    (out.status.code(), text(&out))
}

/// A repository with so many backups of a folder; their ids, oldest first.
fn repository(d: &Path, count: usize) -> Vec<String> {
    super::repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    let keep = "[repository]\ngenerations = { daily = 1, weekly = 0, monthly = 0, yearly = 0 }\n";
    std::fs::write(d.join("breakglass.toml"), keep).unwrap();
    let create = || {
        let out = program(d, NOBODY, &[], &["--json", "backup", "create", "--files", "data"]);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
        let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        document["id"].as_str().unwrap().to_string()
    };
    (0..count).map(|_| create()).collect()
}

#[test]
fn a_lost_manifest_is_named_and_costs_one_backup() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let ids = repository(d, 2);
    let manifest = d.join("repo/backups").join(&ids[0]).join("manifest.bgo");
    let whole = std::fs::read(&manifest).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bytes in [None, Some(flipped)] {
        match bytes {
            None => std::fs::remove_file(&manifest).unwrap(),
            Some(bytes) => std::fs::write(&manifest, bytes).unwrap(),
        }
        let (code, said) = run(d, &["backup", "list"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("{}  DAMAGED", ids[0])) && said.contains(&ids[1]), "{said}");
        let (code, said) = run(d, &["backup", "verify", "--all"]);
        assert!(code == Some(1) && said.contains(&format!("{}  right", ids[1])), "{said}");
        assert!(said.contains(&format!("{}  WRONG", ids[0])), "{said}");
        assert_eq!(run(d, &["backup", "verify", &ids[1]]).0, Some(0));
        let (code, said) = run(d, &["backup", "verify", &ids[0]]);
        assert!(code == Some(1) && said.contains("is damaged"), "{said}");
        let (code, said) = run(d, &["backup", "restore", &ids[1], "--into", "out"]);
        assert!(code == Some(0) && said.contains("WARNING"), "{said}");
        std::fs::remove_dir_all(d.join("out")).unwrap();
    }
    assert_eq!(run(d, &["backup", "create", "--files", "data"]).0, Some(0));
    let (code, said) = run(d, &["backup", "cleanup"]);
    assert!(
        code == Some(0) && said.contains("stays: it is damaged") && said.contains("the log is kept whole"),
        "{said}"
    );
    assert!(manifest.exists(), "what nobody has looked at is not removed");
    std::fs::write(&manifest, whole).unwrap();
    assert_eq!(run(d, &["backup", "verify", &ids[0]]).0, Some(0), "put back, it is as before");
}

#[test]
fn a_lost_entry_is_said_by_readers_and_stops_writers_until_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let ids = repository(d, 2);
    // 1 and 2: the first backup and its verification; 3: the second.
    for (seq, cut) in [(1, false), (3, true)] {
        let entry = d.join(format!("repo/catalog/{seq:08}.bgo"));
        let whole = std::fs::read(&entry).unwrap();
        match cut {
            false => std::fs::remove_file(&entry).unwrap(),
            true => std::fs::write(&entry, &whole[..whole.len() - 1]).unwrap(),
        }
        let named = format!("entry {seq}");
        for (code, args) in [
            (1, vec!["backup", "list"]),
            (1, vec!["backup", "verify", "--all"]),
            (0, vec!["backup", "restore", ids[0].as_str(), "--into", "one"]),
            (0, vec!["backup", "restore", ids[1].as_str(), "--into", "two"]),
            (4, vec!["backup", "create", "--files", "data"]),
            (4, vec!["backup", "cleanup"]),
        ] {
            let (got, said) = run(d, &args);
            assert_eq!(got, Some(code), "{args:?}: {said}");
            assert!(said.contains(&named) && said.contains("--accept-catalog"), "{args:?}: {said}");
        }
        for folder in ["one", "two"] {
            assert_eq!(std::fs::read(d.join(folder).join("data/file")).unwrap(), b"content");
            std::fs::remove_dir_all(d.join(folder)).unwrap();
        }
        std::fs::write(&entry, whole).unwrap();
        assert_eq!(run(d, &["backup", "verify", "--all"]).0, Some(0), "put back, nothing was lost");
    }
    std::fs::remove_file(d.join("repo/catalog/00000003.bgo")).unwrap();
    let (code, said) = run(d, &["backup", "verify", "--all", "--accept-catalog"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(d, &["backup", "create", "--files", "data"]).0, Some(0));
    let (code, said) = run(d, &["backup", "list"]);
    assert!(code == Some(0) && ids.iter().all(|id| said.contains(id.as_str())), "{said}");
    // What was accepted is that one; the next loss is a new one.
    std::fs::remove_file(d.join("repo/catalog/00000002.bgo")).unwrap();
    assert_eq!(run(d, &["backup", "list"]).0, Some(1));
}

#[test]
fn a_lost_repository_json_is_put_back_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d, 1);
    std::fs::remove_file(d.join("repo/repository.json")).unwrap();
    let (code, said) = run(d, &["backup", "list"]);
    assert!(code == Some(1) && said.contains("back from a copy") && !said.contains("backup init"), "{said}");
}

#[test]
fn a_damaged_repository_json_says_where_a_whole_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d, 1);
    for bytes in [&b"{ \"format\": \"breakglass"[..], b""] {
        std::fs::write(d.join("repo/repository.json"), bytes).unwrap();
        for (expected, args) in [(1, &["backup", "list"][..]), (4, &["backup", "create", "--files", "data"])] {
            let (code, said) = run(d, args);
            assert!(
                code == Some(expected) && said.contains("is damaged") && said.contains("repository.copies"),
                "{said}"
            );
            assert!(said.contains("make no new repository here"), "{said}");
        }
    }
}

/// The objects of a backup but its manifest, and one of them with a byte changed.
fn flip(d: &Path, place: &str, id: &str) -> (std::path::PathBuf, Vec<u8>) {
    let path = d.join(place).join("backups").join(id).join("files.tar.bgo");
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    let at = bytes.len() - 70;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    (path, whole)
}

fn listed(d: &Path, env: &[(&str, &str)], id: &str) -> (Option<i32>, serde_json::Value) {
    let out = program(d, NOBODY, env, &["--json", "backup", "list"]);
    let list: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)));
    let one = list["backups"].as_array().unwrap().iter().find(|b| b["manifest"]["id"] == id).unwrap().clone();
    (out.status.code(), one)
}

#[test]
fn what_a_verification_found_counts_until_another_one_finds_it_right() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let ids = repository(d, 2);
    let (good, bad) = (ids[0].as_str(), ids[1].as_str());
    assert!(listed(d, &[], bad).1["verified_at"].is_string(), "as it was read back");
    let (path, whole) = flip(d, "repo", bad);
    let (code, said) = run(d, &["backup", "verify", bad]);
    assert!(code == Some(1) && said.contains("WRONG"), "{said}");

    // Nothing says "verified" of it any more, whoever asks.
    let (code, one) = listed(d, &[], bad);
    assert_eq!((code, &one["verified_at"]), (Some(1), &serde_json::Value::Null), "{one}");
    assert!(one["damaged"]["why"].as_str().unwrap().contains("files.tar.bgo"), "{one}");
    let out = program(d, NOBODY, &[], &["--json", "backup", "list"]);
    let list: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let named = &list["damaged"][0];
    assert!(named["backup"] == bad && named["why"].as_str().unwrap().starts_with("DAMAGED, found 20"), "{list}");
    let (code, said) = run(d, &["backup", "list"]);
    let line = said.lines().find(|l| l.starts_with(bad)).unwrap();
    assert!(code == Some(1) && line.contains("DAMAGED, found 20") && !line.contains("verified"), "{said}");
    let (code, said) = run(d, &["health"]);
    assert!(code == Some(1) && said.contains("backups") && said.contains("DAMAGED") && said.contains(bad), "{said}");
    let (code, said) = run(d, &["doctor"]);
    assert!(code == Some(1) && said.contains(&format!("{bad}  DAMAGED")), "{said}");
    // Of today one is to be kept: the one that is right, which also is the last verified one.
    let (code, said) = run(d, &["backup", "cleanup", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    let stays = said.lines().find(|l| l.starts_with(good)).unwrap();
    assert!(stays.contains("stays: daily") && stays.contains("the newest verified one"), "{said}");
    assert!(said.lines().any(|l| l.starts_with(bad) && l.contains("would go") && l.contains("DAMAGED")), "{said}");
    // Looked at again and again, it is written down once.
    let entries = || std::fs::read_dir(d.join("repo/catalog")).unwrap().count();
    let before = entries();
    assert_eq!(run(d, &["backup", "verify", bad]).0, Some(1));
    assert_eq!(entries(), before);

    std::fs::write(&path, whole).unwrap();
    assert_eq!(listed(d, &[], bad).0, Some(1), "put back, but nobody looked");
    assert_eq!(run(d, &["backup", "verify", bad]).0, Some(0));
    let (code, one) = listed(d, &[], bad);
    assert!(code == Some(0) && one["verified_at"].is_string() && one.get("damaged").is_none(), "{one}");
}

#[test]
fn what_was_found_in_a_copy_or_cannot_be_entered_is_known_where_it_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let ids = repository(d, 1);
    let id = ids[0].as_str();
    assert_eq!(run(d, &["backup", "copy", "--to", "copy"]).0, Some(0));
    // The copy alone is damaged: its catalog is the other's word, and stays as it is.
    let copy = [("BACKUP_DIR", "copy")];
    let (path, whole) = flip(d, "copy", id);
    assert_eq!(program(d, NOBODY, &copy, &["backup", "verify"]).status.code(), Some(1));
    let (code, one) = listed(d, &copy, id);
    assert!(code == Some(1) && one["verified_at"].is_null() && one["damaged"]["why"].is_string(), "{one}");
    assert!(listed(d, &[], id).1["verified_at"].is_string(), "the other place is as it was");
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(program(d, NOBODY, &copy, &["backup", "verify"]).status.code(), Some(0));
    assert_eq!(listed(d, &copy, id).0, Some(0));

    // A catalog that takes no entry: remembered here, with a word on that.
    let entry = d.join("repo/catalog/00000001.bgo");
    let kept = std::fs::read(&entry).unwrap();
    std::fs::remove_file(&entry).unwrap();
    let (path, whole) = flip(d, "repo", id);
    let (code, said) = run(d, &["backup", "verify", id]);
    assert!(code == Some(1) && said.contains("remembered on this machine only"), "{said}");
    std::fs::write(&entry, kept).unwrap();
    let (code, one) = listed(d, &[], id);
    assert!(code == Some(1) && one["damaged"]["why"].is_string(), "{one}");
    let elsewhere = d.join("elsewhere").display().to_string();
    assert_eq!(listed(d, &[("BREAKGLASS_HOME", &elsewhere)], id).0, Some(0), "nobody else can know");
    std::fs::write(&path, whole).unwrap();
    assert_eq!(run(d, &["backup", "verify", id]).0, Some(0));
    assert_eq!(listed(d, &[], id).0, Some(0));
}

/// Reading this fails with EIO, as a bad sector does: nothing is mapped at address 0.
const BAD_SECTOR: &str = "/proc/self/mem";

#[test]
fn a_document_that_cannot_be_read_is_named_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let ids = repository(d, 2);
    assert_eq!(run(d, &["backup", "copy", "--to", "copy"]).0, Some(0));
    let unreadable = [
        (format!("backups/{}/manifest.bgo", ids[0]), ids[0].clone(), &ids[1]),
        (format!("backups/{}/files.tar.bgo", ids[0]), ids[0].clone(), &ids[1]),
        ("catalog/00000002.bgo".to_string(), "entry 2".into(), &ids[0]),
    ];
    for (name, named, right) in unreadable {
        let path = d.join("repo").join(&name);
        let kept = d.join("kept");
        std::fs::rename(&path, &kept).unwrap();
        std::os::unix::fs::symlink(BAD_SECTOR, &path).unwrap();
        let (code, said) = run(d, &["backup", "verify", "--all"]);
        assert!(code == Some(1) && said.contains("Input/output error") && said.contains(&named), "{name}: {said}");
        assert!(said.contains(&format!("{right}  right")), "{name}: {said}");
        let (code, said) = run(d, &["backup", "list"]);
        assert!(code == Some(1) && said.contains(&named) && ids.iter().all(|id| said.contains(id)), "{name}: {said}");
        let (code, said) = run(d, &["backup", "copy", "--to", "copy"]);
        assert!(code == Some(1) && said.contains(&name) && said.contains("has it whole"), "{name}: {said}");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&kept, &path).unwrap();
        assert_eq!(run(d, &["backup", "verify", "--all"]).0, Some(0), "{name}: it can be read again");
        assert_eq!(run(d, &["backup", "list"]).0, Some(0), "{name}");
    }
}

#[test]
fn a_cleanup_that_was_stopped_says_what_is_left_and_the_same_command_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let ids = repository(d, 2);
    let (path, _) = flip(d, "repo", &ids[0]);
    // The objects that come first stay where they are when it is told to stop; the catalog says already that the backup is gone.
    let give_up = ["backup", "cleanup", "--give-up", ids[0].as_str()];
    let (_, unlocked) = {
        let repo = breakglass::backup::repository::Repository::open(d.join("repo").to_str().unwrap()).unwrap();
        let unlocked = repo.unlock(&super::passphrase()).unwrap();
        (repo, unlocked)
    };
    let change = breakglass::backup::catalog::Change::Removed { backup: ids[0].clone(), reason: "by hand".into() };
    breakglass::backup::catalog::append(&unlocked, &change).unwrap();
    assert!(path.exists());
    let (code, said) = run(d, &give_up);
    assert!(code == Some(0) && said.contains("left by an interrupted cleanup"), "{said}");
    assert!(!path.parent().unwrap().exists(), "nothing is left");
    assert_eq!(run(d, &give_up).0, Some(0), "nor is there anything left to do");

    // What a backup left that was never finished: its folder, when nobody can be using it.
    let empty = d.join("repo/backups/20200101T0000Z-files-aaaaaa");
    let old = || {
        std::fs::create_dir(&empty).unwrap();
        assert!(Command::new("touch").args(["-d", "2020-01-01"]).arg(&empty).status().unwrap().success());
    };
    old();
    assert_eq!(run(d, &["backup", "cleanup"]).0, Some(0));
    assert!(!empty.exists(), "gone with a cleanup");
    old();
    assert_eq!(run(d, &["backup", "create", "--files", "data"]).0, Some(0));
    assert!(!empty.exists(), "gone with the next backup");
}

#[test]
fn options_of_the_whole_program_are_taken_by_actions() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    repository(d, 1);
    for option in [&["--no-color"][..], &["--ascii"], &["--theme", "mono"]] {
        let mut args = vec!["backup", "create", "--files", "data"];
        args.extend_from_slice(option);
        let (code, said) = run(d, &args);
        assert_eq!(code, Some(0), "{option:?}: {said}");
    }
    let (code, said) = run(d, &["backup", "cleanup", "--read-only"]);
    assert!(code == Some(4) && said.contains("--read-only"), "{said}");
    let entries = || std::fs::read_dir(d.join("repo/catalog")).unwrap().count();
    let before = entries();
    assert_eq!(run(d, &["backup", "verify", "--read-only"]).0, Some(0));
    assert_eq!(entries(), before, "nothing was written down");
}
