//! A base backup that is damaged is never begun with where its ends tell, and what a restore meets in its middle ends in the
//! command that works. What a recovery that was broken off leaves is named, with the ways on.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use breakglass::backup::catalog::{self, Catalog, Change, READ, RESTORED};
use breakglass::postgres::running::running_in;
use breakglass::recovery::shadow::Shadow;
use rustix::process::Signal;

use super::shop::{rows, script};
use crate::support::archived::Archived;
use crate::support::cluster::LIMIT;

/// The object of a base backup that holds its files.
fn files_of(a: &Archived, backup: &str) -> PathBuf {
    a.repository.join("backups").join(backup).join("base.tar.bgo")
}

/// Writes these bytes in the place of an object; what puts it back.
fn instead(path: &Path, bytes: Option<&[u8]>) -> impl FnOnce() + use<> {
    let (path, good) = (path.to_path_buf(), std::fs::read(path).unwrap());
    match bytes {
        Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        None => std::fs::remove_file(&path).unwrap(),
    }
    move || std::fs::write(path, good).unwrap()
}

/// The command that a message offers, as words.
fn offered(text: &str, begins: &str) -> Vec<String> {
    let line = text.lines().find_map(|l| l.split_once(begins)).unwrap_or_else(|| panic!("{begins:?} is not in {text}"));
    format!("{begins}{}", line.1).split_whitespace().skip(1).map(String::from).collect()
}

#[test]
fn an_older_base_backup_takes_the_place_of_a_damaged_one() {
    let a = Archived::start("basedamage");
    let db = a.cluster.database("postgres");
    script(&db, "create table t (n int)");
    let old = a.base_backup();
    script(&db, "insert into t values (1)");
    let new = a.base_backup();
    script(&db, "insert into t values (2); select pg_create_restore_point('here'); insert into t values (3)");
    a.archive_now();
    let check = |more: &[&str]| -> (i32, String) { a.run(&[&["pitr", "check", "--to", "name:here"], more].concat()) };
    let on_record = |id: &str| Catalog::load(&a.unlocked).unwrap().find(id).unwrap().damaged.clone().map(|d| d.why);
    let right = |id: &str, how: &str| {
        catalog::append(&a.unlocked, &Change::Verified { backup: id.into(), how: how.into() }).unwrap();
    };
    let root = a.room.path.join("shadow");
    let dir = root.display().to_string();

    // Whole: the newest is begun with, and what was not read is said.
    let (code, text) = check(&[]);
    assert_eq!(code, 0, "{text}");
    let unread = "were not read now: it was never read since it was made";
    assert!(text.contains(&format!("✓ from backup {new} ")) && text.contains(unread), "{text}");
    assert!(text.contains(&format!("breakglass backup verify {new}")), "{text}");
    let (code, text) = check(&["--deep", "--timeline", "1"]);
    assert!(code == 0 && text.contains("every byte of the backup"), "{text}");
    // The same words as a restore has.
    let (code, text) = check(&["--timeline", "7"]);
    assert!(code != 0 && text.contains("00000007.history"), "{text}");
    let (code, text) = check(&["--backup", "nowhere"]);
    assert!(code == 1 && text.contains("no base backup \"nowhere\"") && text.contains(&old), "{text}");
    let (code, text) = check(&["--backup", &old]);
    assert!(code == 0 && text.contains(&format!("✓ from backup {old} ")), "{text}");

    // Missing, cut, another one's: seen before anything is touched, and the older one leads there as well.
    let (object, good) = (files_of(&a, &new), std::fs::read(files_of(&a, &new)).unwrap());
    let other = std::fs::read(files_of(&a, &old)).unwrap();
    let damages = [("missing", None), ("cut", Some(&good[..good.len() / 2])), ("another", Some(&other[..]))];
    let soak = std::env::var_os("BREAKGLASS_SOAK").is_some();
    for (what, bytes) in damages.into_iter().filter(|(what, _)| soak || *what == "cut") {
        let mend = instead(&object, bytes);
        // Who may not write says so; whoever may writes it down, as a verification does.
        let (code, text) = check(&["--read-only"]);
        assert!(code == 0 && text.contains("damaged: nothing is written with --read-only"), "{what}: {text}");
        assert_eq!(on_record(&new), None, "{what}");
        let (code, text) = check(&[]);
        assert_eq!(code, 0, "{what}: {text}");
        assert!(
            text.contains(&format!("base backup {new} is damaged: it stands in the catalog now")),
            "{what}: {text}"
        );
        assert!(on_record(&new).is_some(), "{what}");
        assert!(text.contains(&format!("✓ from backup {old} ")), "{what}: {text}");
        assert!(text.contains(&format!("WARNING: base backup {new} is damaged (")), "{what}: {text}");
        let (code, text) = check(&["--backup", &new]);
        assert!(code == 1 && text.contains(&format!("base backup {new} is damaged (")), "{what}: {text}");
        if soak && what == "missing" {
            let (code, text) = a.run(&["pitr", "restore", "--to", "latest", "--backup", &new, "--dir", &dir]);
            assert!(code == 4 && text.contains("base.tar.bgo") && !root.exists(), "{text}");
            let all = instead(&files_of(&a, &old), None);
            let (code, text) = check(&[]);
            assert!(code == 1 && text.contains(&new) && text.contains(&old), "{text}");
            all();
        }
        mend();
        right(&new, READ);
    }

    // In its middle: nobody sees it who does not read it all.
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    let mend = instead(&object, Some(&bad));
    // A restore that meets it goes on with the older one by itself, aloud: nothing of anybody's was touched.
    let (code, text) = a.run(&["pitr", "restore", "--json", "--to", "name:here", "--dir", &dir]);
    assert_eq!(code, 0, "{text}");
    for said in [
        format!("WARNING: base backup {new} CANNOT BE RESTORED: "),
        format!("WARNING: going on with base backup {old} of "),
        format!("longer than with {new} (assumed: no recovery was measured here yet)"),
        format!("what of {new} is damaged: breakglass backup verify {new}"),
        format!("from base backup {old}, because {new} turned out to be DAMAGED when it was read"),
    ] {
        assert!(text.contains(&said), "{said:?} is not in {text}");
    }
    let done: serde_json::Value =
        serde_json::from_str(&text[text.find('{').unwrap()..=text.rfind('}').unwrap()]).unwrap();
    assert_eq!((&done["shadow"]["backup"], &done["tried"][0]), (&old.clone().into(), &new.clone().into()), "{text}");
    assert_eq!(
        (&done["passed_over"][0]["backup"], &done["passed_over"][0]["recorded"]),
        (&new.clone().into(), &true.into())
    );
    assert_eq!((Shadow::load(&root).unwrap().backup, rows(&root)), (old.clone(), "1,2".to_string()));
    assert!(on_record(&new).unwrap().contains("base.tar.bgo"), "{:?}", on_record(&new));
    assert_eq!(a.run(&["pitr", "discard", "--shadow", &dir]).0, 0);
    // One that was named is not given up for another: that one is offered.
    let (code, text) = a.run(&["pitr", "restore", "--to", "name:here", "--backup", &new, "--dir", &dir]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("base backup {new} cannot be restored")) && text.contains("base.tar.bgo"), "{text}");
    assert!(text.contains(&format!("nothing was left in {dir}")) && !root.exists(), "{text}");
    let offer = format!("leads there, too: breakglass pitr restore --to name:here --dir {dir} --backup {old}");
    assert!(text.contains(&offer), "{text}");
    // Who reads it all finds it, too, and writes it down.
    right(&new, READ);
    let (code, text) = check(&["--deep"]);
    assert!(code == 0 && text.contains(&format!("✓ from backup {old} ")) && text.contains("WARNING"), "{text}");
    assert!(on_record(&new).unwrap().contains("base.tar.bgo"), "{:?}", on_record(&new));
    // No other one leads there: that is said.
    let gone = instead(&files_of(&a, &old), None);
    let (code, text) = a.run(&["pitr", "restore", "--to", "name:here", "--backup", &new, "--dir", &dir]);
    assert!(code == 1 && text.contains("no other base backup leads there") && !root.exists(), "{text}");
    gone();
    assert!(on_record(&old).unwrap().contains("is missing"), "{:?}", on_record(&old));
    right(&old, READ);
    // It is on record now, until a verification finds it right again.
    let (code, text) = check(&[]);
    assert!(code == 0 && text.contains(&format!("✓ from backup {old} ")) && text.contains("(found on 20"), "{text}");
    // Named all the same, it is not called one that nobody looked at.
    let (code, text) = check(&["--backup", &new]);
    assert!(
        code == 0 && text.contains(&format!("WARNING: base backup {new} is on record as DAMAGED, found 20")),
        "{text}"
    );
    assert!(!text.contains("never read") && text.contains("looked at last, and not right"), "{text}");
    // Nor does the range hide it: the older one leads there as well.
    let (code, text) = a.run(&["pitr", "range"]);
    assert!(code == 0 && text.contains(&format!("note      base backup {new} is DAMAGED, found 20")), "{text}");
    assert!(text.lines().any(|l| l.contains(&new) && l.starts_with("backup") && l.contains("; DAMAGED")), "{text}");
    // Nor does whoever looks for the moment.
    let (_, text) = a.run(&["pitr", "locate", "--since", "2h"]);
    assert!(text.contains(&format!("WARNING: base backup {new} is damaged (found on 20")), "{text}");
    mend();
    assert_eq!(a.run(&["backup", "verify", &new]).0, 0);
    let (code, text) = check(&[]);
    assert!(
        code == 0 && text.contains(&format!("✓ from backup {new} ")) && text.contains("read last, and right, on"),
        "{text}"
    );
    // What a restore showed, reading does not clear; a range on such backups alone is not called recoverable.
    let unlocked = &a.unlocked;
    let not = |id: &str| Change::Damaged { backup: id.into(), how: RESTORED.into(), why: "it does not start".into() };
    catalog::append(unlocked, &not(&old)).unwrap();
    let (code, text) = a.run(&["pitr", "range"]);
    assert!(code == 0 && text.contains("DAMAGED: from an undamaged base backup only from"), "{text}");
    catalog::append(unlocked, &not(&new)).unwrap();
    let (code, text) = check(&["--backup", &new, "--deep"]);
    assert!(
        code == 0 && text.contains(&format!("WARNING: base backup {new} is on record as NOT RESTORABLE")),
        "{text}"
    );
    let (code, text) = a.run(&["pitr", "range"]);
    assert!(code == 1 && text.contains("DAMAGED: every base backup that leads there was found damaged"), "{text}");
    let (_, text) = a.run(&["pitr", "range", "--json"]);
    let document: serde_json::Value =
        serde_json::from_str(&text[text.find('{').unwrap()..=text.rfind('}').unwrap()]).unwrap();
    assert!(
        document["earliest_undamaged"].is_null() && document["backups_damaged"][1]["backup"] == new.as_str(),
        "{text}"
    );
    assert!(document["notes"].to_string().contains("NOT RESTORABLE"), "{text}");
    for id in [&old, &new] {
        right(id, RESTORED);
    }

    // Stopped, or killed, while it waits at the end of the log: its folder and both ways on are named as they can be typed, and work.
    let broken_off = |signal: Signal, more: &[&str]| -> String {
        let mut child = a
            .command(&[&["pitr", "restore", "--to", "latest", "--dir", &dir], more].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
            if line.contains("replaying the log") {
                // Told to stop, it stops what it has only just begun to start; killed, it can stop nothing.
                let deadline = Instant::now() + LIMIT;
                while signal == Signal::KILL && running_in(&root).is_none() {
                    assert!(Instant::now() < deadline, "no server: {said}");
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                rustix::process::kill_process(pid, signal).unwrap();
            }
            said.push_str(&format!("{line}\n"));
        }
        assert_eq!(child.wait().unwrap().code(), if signal == Signal::TERM { Some(143) } else { None }, "{said}");
        said
    };
    let said = broken_off(Signal::TERM, &[]);
    assert!(root.join("data").exists() && running_in(&root).is_none(), "{said}");
    assert!(said.contains(&format!("what is there so far is in {dir}")), "{said}");
    let on = format!("to go on with its files: breakglass pitr restore --to latest --timeline 1 --delta --dir {dir}");
    assert!(said.contains(&on), "{said}");
    assert_eq!(
        offered(&said, "breakglass pitr discard --shadow")[..4],
        ["pitr", "discard", "--shadow", &format!("{dir},")]
    );
    broken_off(Signal::KILL, &["--delta"]);
    // Its server ends by itself, or is still there: both ways on are named, and the one that goes on does.
    let (code, text) = a.run(&["pitr", "restore", "--to", "name:here", "--dir", &dir]);
    assert!(code == 4 && text.contains(&format!("breakglass pitr discard --shadow {dir}, then")), "{text}");
    let words = offered(&text, "breakglass pitr restore --to");
    assert!(words.contains(&"--delta".to_string()) && words.contains(&dir), "{text}");
    let deadline = Instant::now() + LIMIT;
    while running_in(&root).is_some() {
        assert!(Instant::now() < deadline, "the server of a recovery that was killed goes on");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (code, text) = a.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((code, rows(&root)), (0, "1,2".to_string()), "{text}");
    let (code, text) = a.run(&["pitr", "discard", "--shadow", &dir]);
    assert!(code == 0 && !root.exists(), "{text}");
}
