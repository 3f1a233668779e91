//! A team that says who its backups may be sealed for: nobody else is, whoever wrote to the repository or held its passphrase.

use std::path::Path;
use std::process::Command;

use breakglass::backup::repository::{InitOptions, Repository};
use breakglass::model::Secret;
use serde_json::Value;

use super::logical::{json, program, text};
use super::wal::{SYSTEM, segment, write_segment};
use super::{CHEAP, NOBODY};

fn pin(d: &Path, all: &[&str]) {
    std::fs::write(d.join("breakglass.toml"), format!("[backup]\nrecipients = {all:?}\n")).unwrap();
}

#[test]
fn nobody_who_is_not_named_is_sealed_for() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (repository, _, url) = super::repository(d);
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/file"), "content").unwrap();
    let create = ["backup", "create", "--files", "data"];
    let ends = |args: &[&str], code: i32, says: &[&str]| {
        let out = program(d, NOBODY, &[], args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
        says.iter().for_each(|s| assert!(text(&out).contains(s), "{s:?} is not in {}", text(&out)));
    };
    let id = repository.key_id();
    // Who asks is given the line, and what is set is shown.
    ends(&create, 0, &[]);
    ends(&["doctor"], 1, &["sealed for key", &format!("recipients = [\"{id}\"]")]);
    pin(d, &[&id]);
    ends(&create, 0, &[]);
    ends(&["doctor"], 1, &["all named by backup.recipients"]);
    pin(d, &["not a key"]);
    ends(&create, 2, &["breakglass.toml:2", "neither a key id"]);

    // Another recipient: refused until it is named, and refused again where somebody takes the name away.
    pin(d, &[&id]);
    let keys =
        || std::fs::read(std::fs::read_dir(d.join("repo/keys")).unwrap().next().unwrap().unwrap().path()).unwrap();
    let before = keys();
    ends(&["backup", "rotate-key", "--new-recipient", "second.key"], 4, &["second.key", "--add-recipient"]);
    assert!(keys() == before && d.join("second.key").exists());
    let text = Secret::new(std::fs::read_to_string(d.join("second.key")).unwrap());
    let second = breakglass::backup::keys::identity_from_text(&text).unwrap().public();
    let second = breakglass::backup::container::hex(&second);
    ends(&["backup", "rotate-key", "--add-recipient", &second], 4, &[second.as_str()]);
    pin(d, &[&id, &second]);
    ends(&["backup", "rotate-key", "--add-recipient", &second], 0, &[]);
    ends(&create, 0, &[]);
    pin(d, &[&id]);
    let objects = || std::fs::read_dir(d.join("repo/backups")).unwrap().count();
    let stored = objects();
    ends(&create, 4, &[second.as_str(), "--remove-recipient"]);
    assert_eq!(objects(), stored);
    // Whoever only asks hears of it in the same words.
    for args in [&["doctor"][..], &["health"], &["wal", "status"]] {
        ends(args, 1, &[second.as_str(), "backup.recipients does not name it", "--remove-recipient"]);
    }
    let out = program(d, NOBODY, &[("BACKUP_ENCRYPTION_KEY", "")], &["wal", "status"]);
    assert!(super::logical::text(&out).contains(second.as_str()), "also without the key: {out:?}");
    ends(&["backup", "rotate-key", "--remove-recipient", &second], 0, &[]);
    // A rotation that a named key's holder signed needs no new line; a new repository has a key that nobody named.
    ends(&["backup", "rotate-key", "--new-key-pair"], 0, &[]);
    assert_ne!(Repository::open(&url).unwrap().key_id(), id);
    ends(&create, 0, &[]);
    let out = program(d, NOBODY, &[("BACKUP_DIR", "other")], &create);
    assert!(out.status.code() == Some(4) && super::logical::text(&out).contains("backup init"), "{out:?}");

    // Somebody puts a key of their own there: who holds no secret refuses it by the list, too.
    let archive = |n: u64, config: bool| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(["wal", "archive", "--repository", &url]).arg(write_segment(d, segment(1, n), SYSTEM, n));
        if config {
            c.arg("--config").arg(d.join("breakglass.toml"));
        }
        let out = c.env_clear().current_dir("/").output().unwrap();
        (out.status.code(), super::logical::text(&out))
    };
    assert_eq!(archive(1, true).0, Some(0));
    let info = d.join("repo/repository.json");
    let ours = std::fs::read(&info).unwrap();
    let theirs = d.join("theirs").display().to_string();
    let options = InitOptions { kdf: CHEAP, ..InitOptions::default() };
    Repository::init(&theirs, &Secret::new("the passphrase of somebody else altogether"), &options).unwrap();
    let theirs: Value = serde_json::from_slice(&std::fs::read(d.join("theirs/repository.json")).unwrap()).unwrap();
    let mut edited: Value = serde_json::from_slice(&ours).unwrap();
    for member in ["recipient", "signer"] {
        edited[member] = theirs[member].clone();
    }
    std::fs::write(&info, serde_json::to_vec(&edited).unwrap()).unwrap();
    let (code, said) = archive(2, true);
    assert!(code == Some(4) && said.contains("backup.recipients does not name it"), "{said}");
    assert_eq!(archive(2, false).0, Some(0), "without the list it cannot tell");
    let status = program(d, NOBODY, &[("BACKUP_ENCRYPTION_KEY", "")], &["wal", "status"]);
    assert!(super::logical::text(&status).contains("backup.recipients does not name it"), "{status:?}");
    std::fs::write(&info, ours).unwrap();
    assert_eq!(json(d, NOBODY, 0, &create)["verified"], true);
}
