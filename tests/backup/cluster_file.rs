//! `wal/cluster.json` that was edited, damaged or removed: what is stored says whose it is, and `backup repair` writes it anew.

use std::path::Path;

use crate::support::archived::{Archived, said};
use crate::support::cluster::{Cluster, LIMIT};

fn ends(a: &Archived, args: &[&str], code: i32, says: &[&str], never: &[&str]) -> String {
    let (got, text) = a.run(args);
    assert_eq!(got, code, "{args:?}: {text}");
    says.iter().for_each(|s| assert!(text.contains(s), "{args:?}: {s:?} is not in {text}"));
    never.iter().for_each(|s| assert!(!text.contains(s), "{args:?}: {s:?} is in {text}"));
    text
}

#[test]
fn what_is_stored_says_whose_it_is() {
    let a = Archived::start("whose");
    a.archive_now();
    let id = a.base_backup();
    a.archive_now();
    ends(&a, &["backup", "create", "--logical"], 0, &[], &[]);
    let file = a.repository.join("wal/cluster.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let known: serde_json::Value = serde_json::from_str(&good).unwrap();
    let digits = known["system_identifier"].as_str().unwrap();
    let another = (digits.parse::<u64>().unwrap() ^ 1).to_string();
    let mut built = 0;
    // What is wrong, and whether it can still be understood.
    for (bad, understood) in [
        (good.replace(digits, &another), true),
        (good.replace("1048576", "2097152"), true),
        (good.replace("1048576", "1048570"), false),
        (good.replace(digits, "76x3"), false),
        (good[..good.len() / 2].to_string(), false),
        (String::new(), false),
    ] {
        std::fs::write(&file, &bad).unwrap();
        let size = bad.contains("2097152");
        ends(&a, &["doctor"], 1, &["backup repair"], &["one repository holds one cluster"]);
        if !size {
            ends(&a, &["wal", "status"], 1, &["backup repair"], &["set BACKUP_DIR"]);
            ends(&a, &["backup", "list"], 1, &["backup repair", &id], &["DAMAGED"]);
            ends(&a, &["health"], 1, &["backup repair"], &[]);
            ends(&a, &["backup", "create", "--logical"], 4, &["backup repair"], &["Use another repository"]);
        }
        // Every byte is right, and that is said beside it; nothing is written down on the word of that file.
        ends(&a, &["backup", "verify", "--all"], 1, &["backup repair", &format!("{id}  right")], &["WRONG"]);
        built += 1;
        let into = a.room.path.join(format!("built{built}")).display().to_string();
        match understood {
            true if !size => {
                ends(&a, &["backup", "restore", &id, "--into", &into], 1, &["backup repair"], &[]);
            }
            true => {}
            false => {
                ends(&a, &["backup", "restore", &id, "--into", &into], 0, &[], &[]);
                ends(&a, &["pitr", "range"], 0, &["cluster.json"], &[]);
            }
        }
        ends(&a, &["backup", "repair"], 0, &["wal/cluster.json", "written anew", digits], &[]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), good, "{bad}");
        ends(&a, &["backup", "repair"], 0, &["nothing was written"], &[]);
        ends(&a, &["backup", "list"], 0, &[&id], &["DAMAGED", "cluster.json"]);
        ends(&a, &["backup", "verify", "--all"], 0, &[], &["cluster.json"]);
    }
}

fn segment_of(c: &Cluster) -> std::path::PathBuf {
    let name = c.sql("postgres", "select pg_walfile_name(pg_switch_wal())");
    c.instance.layout.data.join("pg_wal").join(name)
}

/// Archives a segment as its server would; exit code, and what was said.
fn archive(a: &Archived, segment: &Path) -> (i32, String) {
    let place = a.repository.display().to_string();
    said(a.command(&["wal", "archive", "--repository", &place]).arg(segment))
}

#[test]
fn a_file_that_is_gone_makes_the_repository_nobody_elses() {
    let a = Archived::start("gone");
    a.archive_now();
    let id = a.base_backup();
    a.archive_now();
    let file = a.repository.join("wal/cluster.json");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    for args in [&["doctor"][..], &["backup", "list"], &["backup", "verify", "--all"]] {
        ends(&a, args, 1, &["cluster.json is missing", "backup repair"], &[&format!("{id}  WRONG")]);
    }
    let other = Cluster::start("gone-other", &[]);
    let (code, text) = archive(&a, &segment_of(&other));
    assert!(code == 4 && text.contains("cluster.json is missing") && text.contains("backup repair"), "{code} {text}");
    assert!(!file.exists());
    let at = other.database("postgres").url();
    let (code, text) = said(a.command(&["backup", "create", "--logical"]).env("DATABASE_URL", at));
    assert!(code == 4 && text.contains("cluster.json is missing"), "{code} {text}");
    assert!(!file.exists());
    ends(&a, &["backup", "repair"], 0, &["written anew"], &[]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), good);
    // The one whose it is writes it again by itself.
    std::fs::remove_file(&file).unwrap();
    a.cluster.sql("postgres", "select pg_logical_emit_message(true, 'gone', 'more log')");
    a.archive_within(LIMIT);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), good);
}
