//! The same repository on Google Cloud Storage and on Azure Blob Storage, through the real program, against services written from
//! their published interfaces. The services themselves were not asked.

use std::path::Path;
use std::process::Command;

use breakglass::backup::store::{Access, Committed, Existing, open_place};

use super::PASSPHRASE;
use super::logical::text;
use crate::support::other_buckets::{ACCOUNT, ACCOUNT_KEY, CONTAINER, Kind, Other, TOKEN};

fn run(dir: &Path, url: &str, secrets: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
    let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
    c.args(args)
        .env_clear()
        .env("HOME", dir)
        .env("BREAKGLASS_HOME", dir.join("state"))
        .env("BACKUP_DIR", url)
        .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
        .envs(secrets.iter().copied())
        .current_dir(dir);
    let out = c.output().unwrap();
    let said = text(&out);
    assert!(!said.contains(TOKEN) && !said.contains(ACCOUNT_KEY), "a secret is shown: {said}");
    (out.status.code(), said)
}

/// Everything a repository asks of its place.
fn everything(service: &Other, url: &str, secrets: &[(&str, &str)], wrong: (&str, &str), says: &str) {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("data")).unwrap();
    let mut noise = vec![0u8; 18 << 20];
    getrandom::fill(&mut noise).unwrap();
    std::fs::write(d.join("data/large"), &noise).unwrap();
    let keep = "[repository]\ngenerations = { daily = 1, weekly = 0, monthly = 0, yearly = 0 }\n";
    std::fs::write(d.join("breakglass.toml"), keep).unwrap();
    let ok = |args: &[&str]| {
        let (code, said) = run(d, url, secrets, args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
        said
    };
    let create = ["backup", "create", "--files", "data"];
    ok(&create);
    ok(&create);
    ok(&["backup", "verify", "--all"]);
    let listed: serde_json::Value = serde_json::from_str(&ok(&["--json", "backup", "list"])).unwrap();
    let id = listed["backups"][1]["manifest"]["id"].as_str().unwrap();
    ok(&["backup", "restore", id, "--into", "back"]);
    assert!(std::fs::read(d.join("back/data/large")).unwrap() == noise);
    let before = service.keys().len();
    ok(&["backup", "cleanup"]);
    assert!(service.keys().len() < before, "{:?}", service.keys());
    ok(&["backup", "rotate-key", "--new-key-pair"]);
    ok(&["backup", "list"]);
    let key = service.keys().into_iter().find(|k| k.contains(id) && k.ends_with("files.tar.bgo")).unwrap();
    service.flip(&key);
    assert_eq!(run(d, url, secrets, &["backup", "verify", id]).0, Some(1));
    // Wrong credentials, and a bucket that is not there.
    let (code, said) = run(d, url, &[secrets, &[wrong]].concat(), &["backup", "list"]);
    assert!(code == Some(3) && said.contains(says) && said.contains(wrong.0), "{said}");
    assert!(!said.contains(wrong.1), "{said}");
    let other = url.replace(&format!("://{CONTAINER}/"), "://nobackups/");
    let (code, said) = run(d, &other, secrets, &["backup", "list"]);
    assert!(code == Some(3) && said.contains("There is no bucket \"nobackups\""), "{said}");
    let (code, said) = run(d, url, &[], &["backup", "list"]);
    assert!(code == Some(2) && said.contains("no credentials"), "{said}");
}

#[test]
fn google() {
    let service = Other::start(Kind::Google);
    let url = format!("gs://{CONTAINER}/team?endpoint={}&patience=5s", service.endpoint);
    everything(&service, &url, &[("GOOGLE_BEARER_TOKEN", TOKEN)], ("GOOGLE_BEARER_TOKEN", "another"), "AccessDenied");
}

#[test]
fn azure() {
    let service = Other::start(Kind::Azure);
    let url = format!("az://{CONTAINER}/team?account={ACCOUNT}&endpoint={}&patience=5s", service.endpoint);
    let wrong = ("AZURE_STORAGE_ACCOUNT_KEY", "YW5vdGhlciBrZXksIGFub3RoZXIga2V5LCBhbm90aGVyIGtleQ==");
    everything(&service, &url, &[("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)], wrong, "AuthenticationFailed");
    // From a file, and what must not be overwritten.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("azure.env");
    std::fs::write(&file, format!("AZURE_STORAGE_ACCOUNT_NAME={ACCOUNT}\nAZURE_STORAGE_ACCOUNT_KEY={ACCOUNT_KEY}\n"))
        .unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let url = format!("az://{CONTAINER}/other?endpoint={}&credentials={}", service.endpoint, file.display());
    let place = open_place(&url, true).unwrap();
    let put = |bytes: &[u8]| place.put("wal/x.bgo", Access::Group, bytes, Existing::Keep).unwrap();
    assert_eq!(put(b"first"), Committed::Stored);
    assert_eq!(put(b"second"), Committed::Kept);
    assert_eq!(put(b"first"), Committed::Stored, "what is there is what was to be stored");
    assert!(place.swap("wal/x.bgo", Access::Group, &|b| b == b"first", b"third").unwrap());
    assert!(!place.swap("wal/x.bgo", Access::Group, &|b| b == b"first", b"fourth").unwrap());
    assert_eq!(place.get("wal/x.bgo", 100).unwrap().unwrap(), b"third");
    assert_eq!(place.list("wal/").unwrap().len(), 1);
    assert!(place.delete("wal/x.bgo").unwrap());
    assert!(!place.delete("wal/x.bgo").unwrap());
}
