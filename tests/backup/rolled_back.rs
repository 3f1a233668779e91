//! A catalog that was put back to an earlier state: nothing is entered into it before somebody looked.

use std::path::Path;

use super::NOBODY;
use super::logical::{json, program, text};

/// Names of all files below a folder.
fn files(dir: &Path) -> Vec<String> {
    let out = std::process::Command::new("find").arg(dir).args(["-type", "f"]).output().unwrap();
    let mut all: Vec<String> = String::from_utf8(out.stdout).unwrap().lines().map(String::from).collect();
    all.sort();
    all
}

/// The key file's bytes.
fn keys_of(d: &Path) -> Vec<u8> {
    std::fs::read(std::fs::read_dir(d.join("repo/keys")).unwrap().next().unwrap().unwrap().path()).unwrap()
}

#[test]
fn a_backup_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    super::repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    let create = ["backup", "create", "--files", "data"];
    json(d, NOBODY, 0, &create);
    let second = json(d, NOBODY, 0, &create);
    let id = second["id"].as_str().unwrap();
    // Of four entries the first two are there again: the backups are not.
    for seq in [3, 4] {
        std::fs::remove_file(d.join(format!("repo/catalog/{seq:08}.bgo"))).unwrap();
    }
    let before = files(&d.join("repo"));
    let out = program(d, NOBODY, &[], &create);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    for says in
        ["rolled back", "entries 3 to 4 are missing", id, "no entry names it", "--accept-catalog", "Nothing was"]
    {
        assert!(text(&out).contains(says), "{says:?} is not in {}", text(&out));
    }
    assert_eq!(files(&d.join("repo")), before, "nothing was written");
    // Nor are its keys changed, which would end in a repository that looks whole.
    let keys = || [std::fs::read(d.join("repo/repository.json")).unwrap(), keys_of(d)];
    let was = keys();
    let out = program(d, NOBODY, &[], &["backup", "rotate-key", "--new-key-pair", "--new-recipient", "safe.key"]);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    for says in ["rolled back", "entries 3 to 4 are missing", id, "--accept-catalog", "Nothing was"] {
        assert!(text(&out).contains(says), "{says:?} is not in {}", text(&out));
    }
    assert!(keys() == was && !d.join("safe.key").exists(), "nothing was changed");
    // Another machine has seen nothing of it.
    assert_eq!(program(d, NOBODY, &[("BREAKGLASS_HOME", "other")], &["backup", "list"]).status.code(), Some(0));

    // Somebody knows why, and goes on: said, and on record in the catalog itself.
    let out = program(d, NOBODY, &[], &["backup", "verify", "--accept-catalog"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let head = second["catalog_head"].as_str().unwrap();
    assert!(text(&out).contains("entry 3: accepted on") && text(&out).contains(head), "{}", text(&out));
    let list = json(d, NOBODY, 0, &["backup", "list"]);
    assert_eq!((&list["rolled_back"], &list["accepted"][0]["seq"]), (&false.into(), &3.into()), "{list:#}");
    assert_eq!(list["accepted"][0]["instead_of"]["seq"], 4, "{list:#}");
    json(d, NOBODY, 0, &create);
    // Once is enough: nothing is missing any more.
    let out = program(d, NOBODY, &[], &["backup", "verify", "--accept-catalog"]);
    assert!(out.status.code() == Some(0) && text(&out).contains("nothing was missing"), "{}", text(&out));
}

#[test]
fn what_is_there_is_verified_before_anybody_accepts_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    super::repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    let create = ["backup", "create", "--files", "data"];
    let first = json(d, NOBODY, 0, &create);
    let (first, head) = (first["id"].as_str().unwrap(), json(d, NOBODY, 0, &create)["catalog_head"].clone());
    for seq in [3, 4] {
        std::fs::remove_file(d.join(format!("repo/catalog/{seq:08}.bgo"))).unwrap();
    }
    let before = files(&d.join("repo"));
    let verify = |more: &[&str], env: &[(&str, &str)]| {
        let out = program(d, NOBODY, env, &[&["backup", "verify"], more].concat());
        assert_eq!(out.status.code(), Some(1), "{more:?}: {}", text(&out));
        for says in ["entries 3 to 4 are missing", "--accept-catalog"] {
            assert!(text(&out).contains(says), "{says:?} is not in {}", text(&out));
        }
        text(&out)
    };
    let right = format!("{first}  right:");
    for more in [&["--all"][..], &[], &[first]] {
        assert!(verify(more, &[]).contains(&right), "{more:?}");
    }
    // Held against a head that somebody kept, on a machine that has seen nothing.
    let anchored = ["--all", "--anchor", head.as_str().unwrap()];
    assert!(verify(&anchored, &[("BREAKGLASS_HOME", "other")]).contains(&right));
    let document = json(d, NOBODY, 1, &["backup", "verify", "--all"]);
    assert_eq!((&document["ok"], &document["backups"][0]["ok"]), (&false.into(), &true.into()), "{document:#}");
    assert!(document["catalog"]["what"].as_str().unwrap().contains("rolled back"), "{document:#}");
    assert_eq!(files(&d.join("repo")), before, "nothing is entered in a catalog that was put back");
    // What is damaged is found, too.
    let object = d.join(format!("repo/backups/{first}/files.tar.bgo"));
    let mut bytes = std::fs::read(&object).unwrap();
    let at = bytes.len() - 70;
    bytes[at] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    assert!(verify(&["--all"], &[]).contains(&format!("{first}  WRONG:")));
    assert_eq!(files(&d.join("repo")), before, "nor is that");
}

#[test]
fn an_end_that_was_given_up_and_comes_back_is_called_that() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    super::repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    let create = ["backup", "create", "--files", "data"];
    json(d, NOBODY, 0, &create);
    let lost = json(d, NOBODY, 0, &create)["id"].clone();
    let copy = |from: &str, to: &str| {
        let out = std::process::Command::new("cp").args(["-a", from, to]).current_dir(d).status().unwrap();
        assert!(out.success());
    };
    copy("repo", "newer");
    for seq in [3, 4] {
        std::fs::remove_file(d.join(format!("repo/catalog/{seq:08}.bgo"))).unwrap();
    }
    assert_eq!(program(d, NOBODY, &[], &["backup", "verify", "--accept-catalog"]).status.code(), Some(0));
    let made = json(d, NOBODY, 0, &create)["id"].clone();
    let (lost, made) = (lost.as_str().unwrap(), made.as_str().unwrap());
    // The disk that was away is there again, with the end that was given up for lost.
    copy("repo", "accepted");
    std::fs::remove_dir_all(d.join("repo")).unwrap();
    copy("newer", "repo");
    let out = program(d, NOBODY, &[], &["backup", "list"]);
    for says in ["is back", "entry 4", "given up for lost", "entries 3 to 6", "--accept-catalog", "a copy"] {
        assert!(text(&out).contains(says), "{says:?} is not in {}", text(&out));
    }
    assert!(!text(&out).contains("was rewritten") && !text(&out).contains("was rolled back"), "{}", text(&out));
    assert!(text(&out).contains(lost) && !text(&out).contains(made), "{}", text(&out));
    assert_eq!(program(d, NOBODY, &[], &create).status.code(), Some(4));
    assert_eq!(program(d, NOBODY, &[], &["backup", "verify", "--all"]).status.code(), Some(1));
    // Either is a way on.
    assert_eq!(program(d, NOBODY, &[], &["backup", "verify", "--accept-catalog"]).status.code(), Some(0));
    json(d, NOBODY, 0, &create);
}
