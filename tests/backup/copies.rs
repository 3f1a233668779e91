//! A backup in several places: each copy read back, whole, and a repository of its own.

use super::NOBODY;
use super::faults::{command, strace};
use super::logical::{json, program, text};

#[test]
fn every_place_gets_it_and_says_when_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content".repeat(5000)).unwrap();
    std::fs::write(d.join("breakglass.toml"), "[repository]\ncopies = [\"second\", \"third\"]\n").unwrap();
    let out = program(d, NOBODY, &[], &["backup", "create", "--files", "data"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(text(&out).contains("--new-recipient"), "a single key is said: {}", text(&out));
    let verify = |place: &str| {
        let out = program(d, NOBODY, &[("BACKUP_DIR", place)], &["backup", "verify", "--all"]);
        (out.status.code(), text(&out))
    };
    for place in ["second", "third"] {
        assert_eq!(verify(place).0, Some(0), "{:?}", verify(place));
    }
    // Killed half-way: an object of a copy is missing or short. The next copy puts it right.
    let path =
        std::fs::read_dir(d.join("third/backups")).unwrap().next().unwrap().unwrap().path().join("files.tar.bgo");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let fourth = ["backup", "copy", "--to", "third", "--to", "fourth"];
    std::fs::remove_file(d.join("third/catalog/00000002.bgo")).unwrap();
    let done = json(d, NOBODY, 0, &fourth);
    assert!(done["copies"][0]["objects"].as_u64().unwrap() >= 2, "{done}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(verify("fourth").0, Some(0));

    // Damage in the source does not travel as a good copy; another repository is never written over.
    let source =
        std::fs::read_dir(d.join("repo/backups")).unwrap().next().unwrap().unwrap().path().join("files.tar.bgo");
    let whole = std::fs::read(&source).unwrap();
    // Cut short here: the copy that has it whole keeps it, all else is brought up to date, and it is said.
    std::fs::write(&source, &whole[..whole.len() / 2]).unwrap();
    std::fs::remove_file(d.join("third/catalog/00000002.bgo")).unwrap();
    let done = json(d, NOBODY, 1, &["backup", "copy", "--to", "third"]);
    let said = &done["copies"][0]["not_copied"];
    assert!(said.as_array().is_some_and(|all| all.len() == 1), "{done}");
    assert!(said[0]["name"].as_str().unwrap().ends_with("files.tar.bgo") && said[0]["whole_there"] == true, "{done}");
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    assert_eq!(verify("third").0, Some(0), "the entry was copied");
    // Missing here: the same; and what a backup does by itself brings it no further.
    std::fs::remove_file(&source).unwrap();
    let out = program(d, NOBODY, &[], &["backup", "create", "--files", "data"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(text(&out).contains("put the object's file back from there"), "{}", text(&out));
    assert_eq!(verify("third").0, Some(0), "the new backup is there, and the one that is damaged in the source");
    std::fs::write(&source, &whole).unwrap();
    let mut bad = whole;
    let at = bad.len() / 2;
    bad[at] ^= 1;
    std::fs::write(&source, &bad).unwrap();
    let out = program(d, NOBODY, &[], &["backup", "copy", "--to", "fifth"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(text(&out).contains("files.tar"), "{}", text(&out));
    std::fs::create_dir(d.join("other")).unwrap();
    super::repository(&d.join("other"));
    let out = program(d, NOBODY, &[], &["backup", "copy", "--to", "other/repo"]);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    std::fs::create_dir(d.join("full")).unwrap();
    std::fs::write(d.join("full/mine"), "x").unwrap();
    let out = program(d, NOBODY, &[], &["backup", "copy", "--to", "full"]);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    // Went different ways: a backup made in the copy alone.
    let there = [("BACKUP_DIR", "second")];
    std::fs::write(d.join("breakglass.toml"), "").unwrap();
    assert_eq!(program(d, NOBODY, &there, &["backup", "create", "--files", "data"]).status.code(), Some(0));
    std::fs::write(&source, {
        let mut good = bad;
        good[at] ^= 1;
        good
    })
    .unwrap();
    assert_eq!(program(d, NOBODY, &[], &["backup", "create", "--files", "data"]).status.code(), Some(0));
    let out = program(d, NOBODY, &[], &["backup", "copy", "--to", "second"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(text(&out).contains("the catalogs differ"), "{}", text(&out));

    // A damaged entry that somebody accepted is left out, here and there; a damaged manifest is named. All else is copied.
    let flip = |path: &std::path::Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.len() - 60;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip(&d.join("repo/catalog/00000001.bgo"));
    assert_eq!(program(d, NOBODY, &[], &["backup", "copy", "--to", "sixth"]).status.code(), Some(4), "not accepted");
    assert_eq!(program(d, NOBODY, &[], &["backup", "verify", "--accept-catalog"]).status.code(), Some(0));
    let done = json(d, NOBODY, 0, &["backup", "copy", "--to", "sixth"]);
    assert_eq!(done["copies"][0]["left_out"], serde_json::json!(["catalog/00000001.bgo"]), "{done}");
    assert_eq!(verify("sixth").0, Some(0), "{:?}", verify("sixth"));
    // Two that have their entries.
    let backups = std::fs::read_dir(d.join("repo/backups")).unwrap().map(|entry| entry.unwrap().path());
    let others: Vec<_> = backups.filter(|path| !source.starts_with(path)).collect();
    std::fs::remove_file(others[0].join("listing.json.bgo")).unwrap();
    flip(&others[1].join("manifest.bgo"));
    std::fs::write(d.join("repo/backups/extra.bgo"), "none of ours").unwrap();
    let done = json(d, NOBODY, 1, &["backup", "copy", "--to", "sixth", "--to", "seventh"]);
    for (i, there) in [(0, true), (1, false)] {
        let all = done["copies"][i]["not_copied"].as_array().unwrap();
        let name = |o: &serde_json::Value| o["name"].as_str().unwrap().rsplit('/').next().unwrap().to_string();
        let mut said: Vec<_> = all.iter().map(|o| (name(o), o["whole_there"].as_bool().unwrap())).collect();
        said.sort();
        let wanted = [("extra.bgo", false), ("listing.json.bgo", there), ("manifest.bgo", there)];
        assert_eq!(said, wanted.map(|(name, there)| (name.to_string(), there)), "{done}");
    }
    assert!(done["copies"][1]["objects"].as_u64().unwrap() > 10, "the rest went on: {done}");
}

/// A sector that cannot be read: said of the object it is in, and all else is copied.
#[test]
fn an_object_that_cannot_be_read_is_named_and_the_rest_is_copied() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content".repeat(5000)).unwrap();
    let ids: Vec<String> = (0..2)
        .map(|_| json(d, NOBODY, 0, &["backup", "create", "--files", "data"])["id"].as_str().unwrap().to_string())
        .collect();
    let object = |place: &str, id: &str| d.join(place).join("backups").join(id).join("files.tar.bgo");
    let bad = object("repo", &ids[0]).display().to_string();
    let eio = ["-o", "/dev/null", "-P", &bad, "-e", "trace=read", "-e", "inject=read:error=EIO"];
    let copy = ["--json", "backup", "copy", "--to", "second"];
    let out = command(d, NOBODY, &[], &eio, &copy).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    let done: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)));
    let not = done["copies"][0]["not_copied"].as_array().unwrap();
    assert!(not.len() == 1 && not[0]["name"].as_str().unwrap().contains(&ids[0]), "{done}");
    assert!(not[0]["why"].as_str().unwrap().contains("Input/output error"), "{done}");
    assert!(text(&out).contains("NOT COPIED") && text(&out).contains("cannot be read there"), "{}", text(&out));
    assert!(!object("second", &ids[0]).exists() && object("second", &ids[1]).exists(), "the rest went on");
    // The disk answers again: the next copy brings what was missing.
    json(d, NOBODY, 0, &["backup", "copy", "--to", "second"]);
    let verified = program(d, NOBODY, &[("BACKUP_DIR", "second")], &["backup", "verify", "--all"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
}
