//! The end of the archive is gone and the server knows nothing of it: every command that speaks of the archive's end says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use breakglass::action::pitr_restore::Restore;
use breakglass::action::{Action, Ctx, Nowhere};
use breakglass::config::Secrets;
use breakglass::config::settings::REPOSITORY_KEY;
use breakglass::model::Secret;
use breakglass::postgres::Layout;

use crate::support::archived::{Archived, PASSPHRASE};
use crate::support::cluster::{LIMIT, block_on, psql};

/// The segments that lie in the repository, by name.
fn held(repository: &Path) -> Vec<std::path::PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(repository.join("wal/00000001/00000000"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("00000001"))
        .collect();
    all.sort();
    all
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy()[..24].to_string()
}

#[test]
fn segments_that_the_server_believes_stored_and_are_gone_are_named_by_every_command() {
    let a = Archived::start("lostend");
    let db = a.cluster.database("postgres");
    psql(&db, "create table t (i int)").unwrap();
    a.base_backup();
    psql(&db, "insert into t values (1)").unwrap();
    let keeps = a.archive_now();
    let (code, text) = a.run(&["wal", "status"]);
    assert_eq!(code, 0, "{text}");
    for i in 2..5 {
        psql(&db, &format!("insert into t values ({i})")).unwrap();
        a.archive_now();
    }
    let files = held(&a.repository);
    let gone: Vec<_> = files.iter().filter(|p| name(p) > keeps).collect();
    assert!(gone.len() >= 3, "{files:?}");
    let (first, last) = (name(gone[0]), name(gone[gone.len() - 1]));
    gone.iter().for_each(|p| std::fs::remove_file(p).unwrap());

    let (code, text) = a.run(&["wal", "status"]);
    assert_eq!(code, 1, "{text}");
    let says = format!("PROBLEM the server's last archived segment is {last}, the repository ends at {keeps}");
    assert!(text.contains(&says), "{text}");
    assert!(
        text.contains("cannot be recovered; take a base backup now: breakglass backup create --physical"),
        "{text}"
    );
    let (code, text) = a.run(&["wal", "status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &json["not_held"]["first"], &json["not_held"]["held"]),
        (1, &first.into(), &keeps.clone().into())
    );
    assert_eq!(json["not_held"]["segments"], gone.len());
    for command in ["doctor", "health"] {
        let (code, text) = a.run(&[command]);
        assert_ne!(code, 0, "{text}");
        assert!(text.contains(&format!("the repository ends at {keeps}")), "{command}: {text}");
    }
    // A recovery to the latest says that the latest is not here, and how much is missing.
    let settings = a.settings(&a.room.path);
    let mut secrets = Secrets::default();
    secrets.set(REPOSITORY_KEY, Secret::new(PASSPHRASE));
    let ctx = Ctx::new(settings, secrets, Arc::new(Nowhere));
    let left = a.room.path.join("shadow-left");
    std::fs::create_dir_all(Layout::under(&left, 0).config).unwrap();
    let said = block_on(Restore.preview(&ctx, &["--to".into(), "latest".into()])).unwrap().lines.join("\n");
    assert!(said.contains("THE LIVE SERVER HAS MORE: ") && said.contains("are not in the repository"), "{said}");
    // Who only checks is told the same.
    let (code, checked) = a.run(&["pitr", "check", "--to", "latest"]);
    assert!(code == 0 && checked.contains("THE LIVE SERVER HAS MORE: "), "{checked}");
    assert!(said.contains(&format!("the repository ends at {keeps}")), "{said}");
    assert!(said.contains("take a base backup now: breakglass backup create --physical"), "{said}");
    assert!(!said.contains("breakglass contain archives them"), "{said}");
    // And that another one lies there that was broken off.
    let left = left.display().to_string();
    assert!(said.contains(&format!("a recovery that is not finished lies in {left}: ")), "{said}");
    let ways =
        format!("breakglass pitr discard --shadow {left}, then breakglass pitr restore --to latest --dir {left}");
    assert!(said.contains(&ways), "{said}");

    // Nor does whoever locks an intruder out promise what no recovery gets to.
    psql(&db, "create role mallory login").unwrap();
    let (code, text) = a.run(&["breach", "isolate", "--role", "mallory", "--json"]);
    assert!(code == 0 && text.contains(&format!("WARNING: {} to ", name(gone[0]))), "{text}");
    assert!(text.contains("\"recoverable\": false") && text.contains("\"archived\": \"0/"), "{text}");
    let (_, text) = a.run(&["pitr", "locate", "--since", "2h"]);
    assert!(text.contains(&format!("WARNING: the log is broken at {} to ", name(gone[0]))), "{text}");

    // It archives on, over the hole: a containment does not promise what it does not know.
    let (code, text) = a.run(&["contain"]);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("everything committed until"), "{text}");
    assert!(text.contains(&format!("WARNING: {} to ", name(gone[0]))), "{text}");
    assert!(text.contains("are missing from the archive; what was committed until"), "{text}");
    let (code, text) = a.run(&["contain", "--keep-writes"]);
    assert!(code == 0 && text.contains("writes are on again, BUT THE LOG DOES NOT LEAD TO"), "{text}");

    // Behind the hole a new base backup makes it whole, and nothing is claimed too little.
    a.base_backup();
    let (code, text) = a.run(&["contain", "--keep-writes"]);
    assert!(code == 0 && text.contains("writes stay on, everything committed until"), "{text}");

    // An archive elsewhere is not a loss: the two places are named, and no key.
    let other = a.room.path.join("other");
    psql(&db, &format!("alter system set archive_command = 'echo breakglass wal archive --repository {} --key-id 0123456789abcdef %p'", other.display())).unwrap();
    psql(&db, "select pg_reload_conf()").unwrap();
    let deadline = Instant::now() + LIMIT;
    while !psql(&db, "show archive_command").unwrap().contains("echo ") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    psql(&db, "insert into t values (9)").unwrap();
    a.archive_now();
    let (code, text) = a.run(&["wal", "status"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("archive_command stores the log in {}", other.display())), "{text}");
    let (_, text) = a.run(&["doctor"]);
    assert!(text.contains(&format!("archive_command stores the log in {}", other.display())), "{text}");
    assert!(!text.contains("name --key-id"), "{text}");
}
