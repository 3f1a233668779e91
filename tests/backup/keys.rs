//! The key file: passphrases, recipients, what an edited one can and cannot do.

use breakglass::backup::container::Identity;
use breakglass::backup::keys::{KdfCost, KeyFile, Opener};
use breakglass::backup::repository::Repository;
use breakglass::backup::wal::{Fetched, archive, fetch};
use breakglass::error::ErrorKind;
use breakglass::model::{Secret, Time};

use super::wal::{SYSTEM, segment, write_segment};
use super::{CHEAP, passphrase, repository};

const REPO: [u8; 16] = [9; 16];

fn other() -> Secret {
    Secret::new("quite another passphrase of more than thirty-two characters")
}

#[test]
fn a_new_passphrase_opens_old_objects_and_the_old_one_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, _, url) = repository(dir.path());
    let s = segment(1, 5);
    archive(&url, &write_segment(dir.path(), s, SYSTEM, 1), None).unwrap();
    let was = repo.key_file().unwrap();
    let mut keys = was.clone();
    assert_eq!(
        keys.change_passphrase(Opener::Passphrase(&other()), &passphrase(), CHEAP).unwrap_err().kind,
        ErrorKind::Usage
    );
    keys.change_passphrase(Opener::Passphrase(&passphrase()), &other(), CHEAP).unwrap();
    repo.store_key_file(&was, &keys).unwrap();
    // Somebody who read it before and changes it now would undo that: refused.
    let late = repo.store_key_file(&was, &was.clone()).unwrap_err();
    assert_eq!(late.kind, ErrorKind::Refused, "{late}");
    let repo = Repository::open(&url).unwrap();
    assert_eq!(repo.unlock(&passphrase()).unwrap_err().kind, ErrorKind::Usage);
    let unlocked = repo.unlock(&other()).unwrap();
    assert_eq!(fetch(&unlocked, &s.to_string(), &dir.path().join("x")).unwrap(), Fetched::Restored);
}

#[test]
fn a_second_recipient_opens_the_repository() {
    let (mut keys, first) = KeyFile::create(REPO, &passphrase(), CHEAP, Time::from_micros(0)).unwrap();
    let safe = Identity::generate().unwrap();
    assert_eq!(keys.unlock_with(&safe).unwrap_err().kind, ErrorKind::Usage);
    keys.add_recipient(Opener::Passphrase(&passphrase()), safe.public()).unwrap();
    keys.add_recipient(Opener::Passphrase(&passphrase()), safe.public()).unwrap();
    assert_eq!(keys.recipients(), 1, "added twice is there once");
    let keys = KeyFile::parse(&keys.to_bytes().unwrap(), &REPO).unwrap();
    assert_eq!(keys.unlock_with(&safe).unwrap()[0].public(), first.public());
    assert_eq!(keys.unlock(&passphrase()).unwrap()[0].public(), first.public());
    assert!(keys.unlock_with(&Identity::generate().unwrap()).is_err());
}

#[test]
fn an_edited_key_file_is_refused() {
    let (keys, _) = KeyFile::create(REPO, &passphrase(), CHEAP, Time::from_micros(0)).unwrap();
    let good: serde_json::Value = serde_json::from_slice(&keys.to_bytes().unwrap()).unwrap();
    let parse = |v: &serde_json::Value| KeyFile::parse(v.to_string().as_bytes(), &REPO);
    parse(&good).unwrap().unlock(&passphrase()).unwrap();
    assert_eq!(KeyFile::parse(good.to_string().as_bytes(), &[8; 16]).unwrap_err().kind, ErrorKind::Check);
    // What would exhaust the machine is refused before anything is derived.
    let top = KdfCost::CEILING;
    for (field, value) in [
        ("memory_kib", top.memory_kib + 1),
        ("passes", top.passes + 1),
        ("lanes", top.lanes + 1),
        ("memory_kib", u32::MAX),
    ] {
        let mut bad = good.clone();
        bad["passphrase"][field] = value.into();
        assert_eq!(parse(&bad).unwrap_err().kind, ErrorKind::Check, "{field}");
    }
    for (path, value) in [("/version", 2.into()), ("/format", "other".into()), ("/passphrase/kdf", "scrypt".into())] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        assert_eq!(parse(&bad).unwrap_err().kind, ErrorKind::Check, "{path}");
    }
    // Every hexadecimal field: one digit changed, one missing.
    for path in ["/passphrase/salt", "/passphrase/sealed", "/identities/0/public", "/identities/0/sealed"] {
        let text = good.pointer(path).unwrap().as_str().unwrap().to_string();
        for n in [0, text.len() / 2, text.len() - 1] {
            let mut digits = text.clone().into_bytes();
            digits[n] = if digits[n] == b'0' { b'1' } else { b'0' };
            for edited in [String::from_utf8(digits).unwrap(), text[1..].to_string()] {
                let mut bad = good.clone();
                *bad.pointer_mut(path).unwrap() = edited.into();
                assert!(parse(&bad).and_then(|k| k.unlock(&passphrase())).is_err(), "{path} at {n}");
            }
        }
    }
}

#[test]
fn a_public_key_put_in_by_somebody_else_shows() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, url) = repository(dir.path());
    let path = dir.path().join("repo/repository.json");
    let mut info: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let theirs = Identity::generate().unwrap();
    info["recipient"] = breakglass::backup::container::hex(&theirs.public()).into();
    std::fs::write(&path, info.to_string()).unwrap();
    let error = Repository::open(&url).unwrap().unlock(&passphrase()).unwrap_err();
    assert!(error.what.contains("public key"), "{error}");
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, _) = repository(dir.path());
    let shown = format!("{unlocked:?}");
    let keys = std::fs::read_to_string(
        std::fs::read_dir(dir.path().join("repo/keys")).unwrap().next().unwrap().unwrap().path(),
    )
    .unwrap();
    assert!(!keys.contains(super::PASSPHRASE) && !shown.contains(super::PASSPHRASE));
    assert!(shown.len() < 2000 && shown.contains("Identity("), "{shown}");
}

/// `repository.json` with one of its members changed.
fn edited(path: &std::path::Path, name: &str, value: serde_json::Value) {
    let mut info: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    info[name] = value;
    std::fs::write(path, info.to_string()).unwrap();
}

/// The archiver holds no secret, and all the same writes for no stranger.
#[test]
fn log_is_archived_for_the_key_that_was_named_and_for_those_that_rightly_followed_it() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (repo, unlocked, url) = repository(d);
    let path = d.join("repo/repository.json");
    let first = repo.key_id();
    let mut number = 5;
    let mut archive = |key: &str, code: i32| {
        number += 1;
        let s = segment(1, number);
        let file = write_segment(d, s, SYSTEM, number);
        // As a server starts it: from somewhere else, with nothing in its environment.
        let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(["wal", "archive", "--repository", &url, "--key-id", key]).arg(&file).env_clear().current_dir("/");
        let (got, said) = crate::support::archived::said(&mut c);
        assert_eq!(got, code, "{said}");
        assert_eq!(super::wal::object_path(d, s).exists(), code == 0, "{said}");
        (s, said)
    };
    archive(&first, 0);
    let before = std::fs::read(&path).unwrap();

    // Rotated twice, by those who hold the key: nothing needs to be changed on the server, and what it archives is read.
    let rotate = || {
        let out = super::logical::program(d, super::NOBODY, &[], &["backup", "rotate-key", "--new-key-pair"]);
        assert_eq!(out.status.code(), Some(0), "{}", super::logical::text(&out));
    };
    rotate();
    let second = Repository::open(&url).unwrap().key_id();
    rotate();
    let third = Repository::open(&url).unwrap().key_id();
    assert!(first != second && second != third);
    for key in [&first, &second, &third] {
        let (s, _) = archive(key, 0);
        let unlocked = Repository::open(&url).unwrap().unlock(&passphrase()).unwrap();
        assert_eq!(fetch(&unlocked, &s.to_string(), &d.join("x")).unwrap(), Fetched::Restored);
    }
    let rotated = std::fs::read(&path).unwrap();

    // Somebody who can write there and holds no key. What they put in is found, and nothing is stored for it.
    let theirs = Identity::generate().unwrap();
    let stranger = breakglass::backup::rotation::WrittenFor::of(&theirs).unwrap();
    let public = breakglass::backup::container::hex(&theirs.public());
    let refused = |(_, said): (_, String), key: &str| {
        assert!(said.contains(key) && said.contains("a key of their own") && said.contains("--key-id"), "{said}");
    };
    edited(&path, "recipient", public.clone().into());
    refused(archive(&third, 4), &third);
    refused(archive(&first, 4), &first);
    // With a signer and a signature of their own behind the right keys, or in the place of one of them.
    edited(&path, "signer", breakglass::backup::container::hex(&stranger.signer.unwrap()).into());
    refused(archive(&third, 4), &third);
    let mut forged = Vec::new();
    breakglass::backup::rotation::follow(&mut forged, &repo.id(), &theirs, &stranger).unwrap();
    let mut earlier: Vec<serde_json::Value> =
        serde_json::from_slice::<serde_json::Value>(&rotated).unwrap()["earlier"].as_array().unwrap().clone();
    let signed = serde_json::to_value(&forged[0]).unwrap()["signed"].clone();
    earlier[1]["signed"] = signed.clone();
    edited(&path, "earlier", earlier.clone().into());
    refused(archive(&first, 4), &first);
    earlier.push(serde_json::to_value(&forged[0]).unwrap());
    edited(&path, "earlier", earlier.into());
    refused(archive(&second, 4), &second);
    // Back before the rotation: the key is ours, but not the one that was named.
    std::fs::write(&path, &before).unwrap();
    refused(archive(&third, 4), &third);
    archive(&first, 0);
    // A signer of somebody else's beside our key shows to whoever holds it.
    std::fs::write(&path, &rotated).unwrap();
    edited(&path, "signer", breakglass::backup::container::hex(&stranger.signer.unwrap()).into());
    let error = Repository::open(&url).unwrap().unlock(&passphrase()).unwrap_err();
    assert!(error.what.contains("public key"), "{error}");
    // Another repository in its place.
    drop(unlocked);
    std::fs::rename(d.join("repo"), d.join("gone")).unwrap();
    repository(d);
    let file = write_segment(d, segment(1, 5), SYSTEM, 5);
    let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(["wal", "archive", "--repository", &url, "--key-id", &third]).arg(&file).env_clear().current_dir("/");
    let (code, said) = crate::support::archived::said(&mut c);
    assert!(code == 4 && said.contains(&third), "{said}");
    assert!(!super::wal::object_path(d, segment(1, 5)).exists());
}
