//! One damaged or missing document of a repository costs what it says, and nothing else.

use std::path::Path;

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
