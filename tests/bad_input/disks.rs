//! State directories that take nothing: read-only, full. Reading and working go on; the lack of a record is loud.

use std::io::Write;
use std::path::Path;

use breakglass::journal::verify;

use super::{Desk, PLAN, Ran, apart, can_mount, names_in, ran};
use crate::support::pty::Pty;

/// Makes the state directory `$BREAKGLASS_HOME` read-only.
const READ_ONLY: &str = "mount --bind \"$BREAKGLASS_HOME\" \"$BREAKGLASS_HOME\" && mount -o remount,bind,ro \"$BREAKGLASS_HOME\" && exec \"$@\"";
/// Puts it on a small disk of its own, with what it holds.
const SMALL: &str = "set -e; cp -a \"$BREAKGLASS_HOME\" \"$TMPDIR/seed\"; \
    mount -t tmpfs -o size=256k tmpfs \"$BREAKGLASS_HOME\"; cp -a \"$TMPDIR/seed/.\" \"$BREAKGLASS_HOME\"; rm -r \"$TMPDIR/seed\"; ";
/// As [`SMALL`], and nothing is left on it.
const FULL: &str = "cat /dev/zero > \"$BREAKGLASS_HOME/filler\" 2>/dev/null || :; exec \"$@\"";

/// The state directory is there, with one incident in it, and takes nothing.
fn desk() -> (Desk, String) {
    let desk = Desk::new();
    let id = desk.incident().id().to_string();
    (desk, id)
}

fn in_both(desk: &Desk, args: &[&str], check: impl Fn(&Ran, &str)) {
    let full = format!("{SMALL}{FULL}");
    for (script, why) in [(READ_ONLY, "Read-only file system"), (full.as_str(), "No space left")] {
        check(&ran(&mut desk.other("unshare", &apart(script, args))), why);
    }
}

#[test]
fn a_drill_says_so_before_anything_is_made() {
    if !can_mount() {
        return;
    }
    let (desk, _) = desk();
    in_both(&desk, &["drill", "--unattended"], |said, why| {
        said.fails(3, &["the state directory", "cannot be written", why, "BREAKGLASS_HOME"]);
        assert!(!said.stderr.contains("making a private PostgreSQL"), "{said:?}");
    });
    assert!(names_in(&desk.path("tmp")).is_empty(), "nothing was made");
}

#[test]
fn what_only_reads_works_and_what_writes_is_refused() {
    if !can_mount() {
        return;
    }
    let (desk, id) = desk();
    let journal = desk.state().join("incidents").join(&id).join("journal.jsonl");
    let before = std::fs::read(&journal).unwrap();
    for args in [["incident", "list"].as_slice(), &["incident", "show"], &["plan", "list"]] {
        in_both(&desk, args, |said, _| drop(said.succeeds().to_string()));
    }
    // An export goes elsewhere.
    let out = desk.path("out");
    in_both(&desk, &["export", &id, "--format", "md", "--out", out.to_str().unwrap()], |said, _| {
        said.succeeds();
        let text = std::fs::read_to_string(out.join(format!("{id}.md"))).unwrap();
        assert!(text.contains("1 records verified"), "{text}");
    });
    let long = "x".repeat(20_000);
    in_both(&desk, &["incident", "note", &long], |said, why| said.fails(3, &[why]));
    assert_eq!(std::fs::read(&journal).unwrap(), before);
    assert!(verify(&journal, &[]).unwrap().ok());
}

/// Declares the plan on the screen as a real incident.
fn declare(pty: &Pty) {
    pty.wait_text("Lost index");
    pty.keys("D");
    pty.wait_text("declare a REAL incident");
    pty.keys("enter");
}

#[test]
fn a_plan_opens_and_is_worked_with_a_loud_banner() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    std::fs::create_dir(desk.state()).unwrap();
    let plan = desk.file("lost-index.md", PLAN).display().to_string();
    let full = format!("{SMALL}{FULL}");
    for script in [READ_ONLY, full.as_str()] {
        let mut pty = desk.terminal((120, 40), "unshare", &apart(script, &["open", &plan]), &[]);
        pty.wait_text("state directory");
        declare(&pty);
        let shown = pty.wait_text("NOT RECORDED");
        assert!(shown.contains("Build it again"), "{shown}");
        // Steps can be worked.
        pty.keys("d");
        pty.wait_text("1 of 3");
        assert!(pty.wait_text("✓ 1 Look").contains("NOT RECORDED"));
        pty.keys("q");
        assert_eq!(pty.wait_exit().code(), Some(0));
    }
}

/// Writes until the disk is full.
fn fill(disk: &Path) {
    let mut file = std::fs::File::create(disk.join("filler")).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

fn note(pty: &Pty, text: &str) {
    pty.keys("n");
    pty.wait_text("what was seen or done");
    pty.send(text.as_bytes());
    pty.wait_text(text);
    pty.keys("enter");
    pty.wait("the dialog is gone", |s| !s.contains("YYYY") && !s.contains("Note  ") && !s.contains("(UTC)"));
}

#[test]
fn a_disk_that_fills_up_loses_no_note_and_tells_when_it_was_written() {
    if !can_mount() {
        return;
    }
    let (desk, id) = desk();
    let script = format!("{SMALL}exec \"$@\"");
    let pty = desk.terminal((120, 40), "unshare", &apart(&script, &["resume", &id]), &[]);
    pty.wait_text("STEPS");
    // The program's own view of the disk: it is mounted for it alone.
    let root = format!("/proc/{}/root", pty.pid());
    let disk = Path::new(&root).join(desk.state().strip_prefix("/").unwrap());
    let journal = disk.join("incidents").join(&id).join("journal.jsonl");
    fill(&disk);
    // What still fits into the journal's last block is recorded.
    let mut notes = 0;
    while !pty.screen().contains("NOT RECORDED") {
        notes += 1;
        assert!(notes < 30, "a full disk takes everything");
        note(&pty, &format!("seen{notes}"));
        pty.wait("recorded or loud", |s| {
            s.contains("NOT RECORDED") || std::fs::read_to_string(&journal).unwrap().contains(&format!("seen{notes}"))
        });
    }
    assert!(verify(&journal, &[]).unwrap().ok(), "nothing half written");
    std::fs::remove_file(disk.join("filler")).unwrap();
    note(&pty, "thelast");
    pty.wait("the banner is gone", |s| !s.contains("NOT RECORDED"));
    let text = std::fs::read_to_string(&journal).unwrap();
    for n in 1..=notes {
        assert!(text.contains(&format!("seen{n}")), "{text}");
    }
    assert!(text.contains("while nothing could be recorded") && text.contains("thelast"), "{text}");
    assert!(verify(&journal, &[]).unwrap().ok());
}
