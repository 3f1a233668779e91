//! A backup in several places: each copy read back, whole, and a repository of its own.

use std::path::Path;

use super::NOBODY;
use super::faults::{command, strace};
use super::logical::{json, program, text};

/// A folder to be backed up.
fn data(d: &Path) {
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content".repeat(5000)).unwrap();
}

/// A backup of it; its id.
fn stored(d: &Path) -> String {
    json(d, NOBODY, 0, &["backup", "create", "--files", "data"])["id"].as_str().unwrap().to_string()
}

#[test]
fn every_place_gets_it_and_says_when_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
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
    // Not accepted: named, and all else is copied.
    let done = json(d, NOBODY, 1, &["backup", "copy", "--to", "sixth"]);
    let not = &done["copies"][0]["not_copied"];
    assert!(not.as_array().is_some_and(|all| all.len() == 1) && not[0]["name"] == "catalog/00000001.bgo", "{done}");
    assert!(done["copies"][0]["objects"].as_u64().unwrap() > 10, "the rest went on: {done}");
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

/// What is on record as damaged, here or there, is never called up to date: it is mended, or named.
#[test]
fn a_copy_or_a_repository_on_record_as_damaged_is_mended_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    std::fs::write(d.join("breakglass.toml"), "[repository]\ncopies = [\"second\"]\n").unwrap();
    let id = stored(d);
    let object = |place: &str| d.join(place).join("backups").join(&id).join("files.tar.bgo");
    let whole = std::fs::read(object("repo")).unwrap();
    let mut bad = whole.clone();
    bad[whole.len() / 2] ^= 1;
    let run = |place: &str, args: &[&str]| {
        let out = program(d, NOBODY, &[("BACKUP_DIR", place)], args);
        (out.status.code(), text(&out))
    };

    // The copy, as long as before: found by a verification, mended by the next copy, right by the word of one that reads it.
    std::fs::write(object("second"), &bad).unwrap();
    assert_eq!(run("second", &["backup", "verify"]).0, Some(1));
    let (code, said) = run("repo", &["doctor"]);
    assert!(code == Some(1) && said.contains(&format!("second: backup {id}  DAMAGED, found")), "{said}");
    let done = json(d, NOBODY, 0, &["backup", "copy"]);
    let (mended, left) = (&done["copies"][0]["mended"], &done["copies"][0]["on_record"]);
    assert!(mended[0].as_str().is_some_and(|n| n.ends_with("files.tar.bgo")), "{done}");
    assert_eq!((mended.as_array().unwrap().len(), left), (1, &serde_json::json!([])), "{done}");
    assert!(std::fs::read(object("second")).unwrap() == whole);
    let (code, said) = run("second", &["backup", "list"]);
    assert!(code == Some(0) && said.contains("verified") && !said.contains("DAMAGED"), "{said}");
    assert_eq!(json(d, NOBODY, 0, &["backup", "copy"])["copies"][0]["mended"], serde_json::json!([]));

    // The repository itself: the copy has it whole, and says so.
    std::fs::write(object("repo"), &bad).unwrap();
    assert_eq!(run("repo", &["backup", "verify"]).0, Some(1));
    let done = json(d, NOBODY, 1, &["backup", "copy"]);
    let not = &done["copies"][0]["not_copied"];
    assert!(not.as_array().is_some_and(|all| all.len() == 1) && not[0]["whole_there"] == true, "{done}");
    assert!(std::fs::read(object("second")).unwrap() == whole);
    // Put back from there, it is on record until a verification finds it right.
    std::fs::write(object("repo"), &whole).unwrap();
    let (code, said) = run("repo", &["backup", "copy"]);
    assert!(code == Some(1) && said.contains("ON RECORD in the repository") && said.contains(&id), "{said}");
    assert_eq!(run("repo", &["backup", "verify"]).0, Some(0));
    let (code, said) = run("repo", &["backup", "copy"]);
    assert!(code == Some(0) && said.contains("1 places up to date"), "{said}");
    // Damaged in both: named, and nothing is called whole.
    for place in ["repo", "second"] {
        std::fs::write(object(place), &bad).unwrap();
        assert_eq!(run(place, &["backup", "verify"]).0, Some(1));
    }
    let done = json(d, NOBODY, 1, &["backup", "copy"]);
    assert_eq!(done["copies"][0]["not_copied"][0]["whole_there"], false, "{done}");
    let record: Vec<_> = done["copies"][0]["on_record"].as_array().unwrap().iter().map(|o| &o["in_copy"]).collect();
    assert_eq!(record, [&serde_json::json!(false), &serde_json::json!(true)], "{done}");
    std::fs::write(object("repo"), &whole).unwrap();

    // A catalog that was put back is behind its copy: nothing is copied over what goes on there.
    let last = std::fs::read_dir(d.join("repo/catalog")).unwrap().map(|e| e.unwrap().path()).max().unwrap();
    run("repo", &["backup", "copy"]);
    std::fs::remove_file(last).unwrap();
    let (code, said) = run("repo", &["backup", "copy"]);
    assert!(code == Some(4) && said.contains("entries of the catalog that are not here"), "{said}");
    let other = [("BREAKGLASS_HOME", "other")];
    let out = program(d, NOBODY, &other, &["backup", "copy"]);
    assert!(out.status.code() == Some(1) && text(&out).contains("catalog that are not here"), "{}", text(&out));
    // Into a new place neither: an earlier state would become a copy that looks right.
    let (code, said) = run("repo", &["backup", "copy", "--to", "third"]);
    assert_eq!(code, Some(4), "{said}");
    for says in ["rolled back", "--accept-catalog", "folders `catalog` and `backups` back", "Nothing was copied"] {
        assert!(said.contains(says), "{says:?} is not in {said}");
    }
    assert!(!d.join("third").exists(), "nothing was written");
}

/// A sector that cannot be read: said of the object it is in, and all else is copied.
#[test]
fn an_object_that_cannot_be_read_is_named_and_the_rest_is_copied() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    let ids = [stored(d), stored(d)];
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
    assert!(text(&out).contains("NOT COPIED") && text(&out).contains("in the repository: "), "{}", text(&out));
    assert!(!object("second", &ids[0]).exists() && object("second", &ids[1]).exists(), "the rest went on");
    // The disk answers again: the next copy brings what was missing.
    json(d, NOBODY, 0, &["backup", "copy", "--to", "second"]);
    let verified = program(d, NOBODY, &[("BACKUP_DIR", "second")], &["backup", "verify", "--all"]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
}

/// A first copy that dies half-way: it says whose it is and is no repository; the same command goes on, in this folder and no other.
#[test]
fn a_first_copy_that_was_broken_off_is_told_and_goes_on() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    stored(d);
    stored(d);
    let copy = ["backup", "copy", "--to", "second"];
    let killed = ["-o", "/dev/null", "-e", "trace=rename", "-e", "inject=rename:signal=KILL:when=4"];
    let full = ["-o", "/dev/null", "-e", "trace=rename", "-e", "inject=rename:error=ENOSPC:when=2+"];
    assert!(!command(d, NOBODY, &[], &killed, &copy).output().unwrap().status.success());
    let place = d.join("second");
    assert!(place.join("backups").is_dir() && !place.join("repository.json").exists(), "it died on its way");
    let id =
        serde_json::from_slice::<serde_json::Value>(&std::fs::read(d.join("repo/repository.json")).unwrap()).unwrap();
    let id = id["id"].as_str().unwrap();
    let there = [("BACKUP_DIR", "second")];
    for look in [&["backup", "list"] as &[&str], &["backup", "verify"]] {
        let out = program(d, NOBODY, &there, look);
        assert_eq!(out.status.code(), Some(1), "{}", text(&out));
        for says in ["was never finished", id, "breakglass backup copy --to", "BACKUP_DIR="] {
            assert!(text(&out).contains(says), "{says:?} is not in {}", text(&out));
        }
    }
    let out = program(d, NOBODY, &there, &["backup", "create", "--files", "data"]);
    assert!(out.status.code() == Some(4) && text(&out).contains("never finished"), "{}", text(&out));
    // Another repository has no business there.
    std::fs::create_dir(d.join("other")).unwrap();
    super::repository(&d.join("other"));
    let out = program(d, NOBODY, &[("BACKUP_DIR", "other/repo")], &copy);
    assert!(out.status.code() == Some(4) && text(&out).contains("of another repository"), "{}", text(&out));
    // A full disk: said, and the same command goes on.
    let out = command(d, NOBODY, &[], &full, &copy).output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    assert!(text(&out).contains("the same command goes on from there"), "{}", text(&out));
    let done = json(d, NOBODY, 0, &copy);
    assert!(done["copies"][0]["present"].as_u64().unwrap() >= 1, "{done}");
    let out = program(d, NOBODY, &there, &["backup", "verify", "--all"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(!std::fs::read_to_string(place.join("copy.json")).unwrap().contains("unfinished"));
}

/// Given up here as damaged, whole in a copy: that one may be the last, and goes only by somebody's word.
#[test]
fn the_last_whole_copy_of_a_backup_goes_only_by_somebodys_word() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    let (id, _) = (stored(d), stored(d));
    let copy = ["backup", "copy", "--to", "second"];
    json(d, NOBODY, 0, &copy);
    let object = |place: &str| d.join(place).join("backups").join(&id).join("files.tar.bgo");
    let mut bad = std::fs::read(object("repo")).unwrap();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    std::fs::write(object("repo"), &bad).unwrap();
    let run = |place: &str, args: &[&str]| {
        let out = program(d, NOBODY, &[("BACKUP_DIR", place)], args);
        (out.status.code(), text(&out))
    };
    // The place is remembered from the copy, whatever the configuration says; and it must be there.
    let give = ["backup", "cleanup", "--give-up", &id];
    let (code, said) = run("repo", &give);
    assert!(code == Some(4) && said.contains("has whole what is damaged here"), "{said}");
    std::fs::rename(d.join("second"), d.join("away")).unwrap();
    let (code, said) = run("repo", &give);
    assert!(code == Some(4) && said.contains("is not there now") && said.contains("--even-if-copied"), "{said}");
    std::fs::rename(d.join("away"), d.join("second")).unwrap();
    let (code, said) = run("repo", &["backup", "cleanup", "--give-up", &id, "--even-if-copied"]);
    assert_eq!(code, Some(0), "{said}");
    // It stays there, listed and restorable; the second time, too.
    for _ in 0..2 {
        let (code, said) = run("repo", &copy);
        assert!(code == Some(0) && said.contains("KEPT there") && said.contains(&id), "{said}");
    }
    assert!(run("second", &["backup", "list"]).1.contains(&id) && !run("repo", &["backup", "list"]).1.contains(&id));
    let (code, said) = run("second", &["backup", "restore", &id, "--into", "out"]);
    assert_eq!(code, Some(0), "{said}");
    // By somebody's word.
    let (code, said) = run("repo", &["backup", "copy", "--to", "second", "--remove-given-up"]);
    assert!(code == Some(0) && said.contains("REMOVED there: 4 objects of 1 backups") && said.contains(&id), "{said}");
    assert!(!object("second").exists() && !run("second", &["backup", "list"]).1.contains(&id));
}

/// Copied back into the damaged repository that it is a copy of: that is mended, and stays what it is.
#[test]
fn a_copy_mends_the_repository_it_was_made_from() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    let id = stored(d);
    json(d, NOBODY, 0, &["backup", "copy", "--to", "second"]);
    let object = d.join("repo/backups").join(&id).join("files.tar.bgo");
    let whole = std::fs::read(&object).unwrap();
    let mut bad = whole.clone();
    bad[whole.len() / 2] ^= 1;
    std::fs::write(&object, &bad).unwrap();
    let run = |place: &str, args: &[&str]| {
        let out = program(d, NOBODY, &[("BACKUP_DIR", place)], args);
        (out.status.code(), text(&out))
    };
    // On record there, behind what the copy knows of the catalog.
    assert_eq!(run("repo", &["backup", "verify"]).0, Some(1));
    let (code, said) = run("second", &["backup", "copy", "--to", "repo"]);
    assert!(code == Some(0) && said.contains("MENDED") && said.contains("stays one"), "{said}");
    assert!(std::fs::read(&object).unwrap() == whole && !d.join("repo/copy.json").exists());
    let (code, said) = run("repo", &["backup", "list"]);
    assert!(code == Some(0) && !said.contains("DAMAGED"), "{said}");
    // And it goes on as before: its copy follows.
    let (code, said) = run("repo", &["backup", "copy", "--to", "second"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run("second", &["backup", "copy", "--to", "repo", "--as-copy"]);
    assert!(code == Some(0) && !said.contains("stays one") && d.join("repo/copy.json").exists(), "{said}");
}

/// A disk that is not mounted looks like a new place, and a folder of the repository like another one.
#[test]
fn a_copy_is_not_begun_anew_without_a_word_nor_within_the_repository() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    data(d);
    stored(d);
    let run = |args: &[&str]| {
        let out = program(d, NOBODY, &[], args);
        (out.status.code(), text(&out))
    };
    let objects = || std::fs::read_dir(d.join("repo")).unwrap().count();
    let before = objects();
    std::os::unix::fs::symlink(d.join("repo"), d.join("link")).unwrap();
    for to in ["repo/sub", "link", "link/deep/below"] {
        let (code, said) = run(&["backup", "copy", "--to", to]);
        assert!(code == Some(2) && said.contains("repository itself"), "{to}: {code:?} {said}");
    }
    assert_eq!(objects(), before);
    json(d, NOBODY, 0, &["backup", "copy", "--to", "second"]);
    std::fs::rename(d.join("second"), d.join("unmounted")).unwrap();
    for left in ["nothing", "an empty folder"] {
        let (code, said) = run(&["backup", "copy", "--to", "second"]);
        assert!(code == Some(4) && said.contains("--new-place") && said.contains("mounted"), "{left}: {code:?} {said}");
        assert!(!d.join("second/repository.json").exists(), "{left}");
        std::fs::create_dir_all(d.join("second")).unwrap();
    }
    json(d, NOBODY, 0, &["backup", "copy", "--to", "second", "--new-place"]);
    // A place that nobody knows needs no word.
    json(d, NOBODY, 0, &["backup", "copy", "--to", "third"]);
}
