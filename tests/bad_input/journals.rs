//! Journals that are damaged, from the future, or torn.

use std::path::Path;

use breakglass::incident::Command as Wish;
use breakglass::journal::{record, verify};
use breakglass::model::Seq;

use super::Desk;

/// Three records: opened, two notes. Returns id and journal.
fn noted(desk: &Desk) -> (String, std::path::PathBuf) {
    let mut incident = desk.incident();
    for text in ["first look", "second look"] {
        incident.submit(Wish::Note { text: text.into() }).unwrap();
    }
    assert_eq!(incident.head().seq, Seq(3));
    (incident.id().to_string(), incident.dir().join("journal.jsonl"))
}

#[test]
fn a_damaged_journal_is_named_by_record_everywhere_and_never_written() {
    let desk = Desk::new();
    let (id, journal) = noted(&desk);
    let text = std::fs::read_to_string(&journal).unwrap().replace("first look", "First look");
    std::fs::write(&journal, &text).unwrap();
    let out = desk.path("out");
    let out = out.to_str().unwrap();
    // Without a name the only one there is is meant; "there is none" would be a lie.
    for args in [
        ["resume", &id].as_slice(),
        &["resume"],
        &["incident", "show", &id],
        &["incident", "show"],
        &["export", &id, "--out", out],
        &["incident", "note", "--incident", &id, "third look"],
        &["incident", "close", &id, "--summary", "over"],
    ] {
        desk.run(args).fails(3, &["is damaged at record 2", "does not match its hash", "journal verify"]);
    }
    assert!(!Path::new(out).exists(), "no half of an export");
    let folder = journal.parent().unwrap();
    let verified = desk.run(&["journal", "verify", folder.to_str().unwrap()]);
    assert_eq!(verified.code, Some(1));
    assert!(verified.stdout.contains("damaged: record 2"), "{verified:?}");
    let json = desk.run(&["journal", "verify", "--json", folder.to_str().unwrap()]);
    assert_eq!(json.code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["problem"]["record"], 2);
    let listed = desk.run(&["incident", "list"]);
    assert!(listed.succeeds().contains("damaged at record 2"), "{listed:?}");
    assert_eq!(std::fs::read_to_string(&journal).unwrap(), text, "not a byte was written");
    // The others go on: a new incident is the newest open one.
    let other = desk.incident();
    assert!(desk.run(&["incident", "show"]).succeeds().contains(other.id().as_str()));
    let pty = desk.console((120, 40), &[]);
    let home = pty.wait_text("cannot be read");
    assert!(home.contains("Lost index") && home.contains(&format!("incident {id}")), "{home}");
}

#[test]
fn a_journal_that_is_no_incident_is_said() {
    let desk = Desk::new();
    let incidents = desk.state().join("incidents");
    for (name, text) in [("20260101T0000Z-empty-0000", ""), ("20260101T0001Z-prose-0001", "hello\n")] {
        std::fs::create_dir_all(incidents.join(name)).unwrap();
        std::fs::write(incidents.join(name).join("journal.jsonl"), text).unwrap();
    }
    desk.run(&["incident", "show", "0000"]).fails(3, &["20260101T0000Z-empty-0000", "does not begin with an opening"]);
    desk.run(&["resume", "0001"]).fails(3, &["is damaged at record 1"]);
    desk.run(&["journal", "verify", "/nowhere"]).fails(3, &["cannot read the journal", "/nowhere"]);
}

/// Appends a valid record with this event.
fn append(journal: &Path, event: &str) {
    let text = std::fs::read_to_string(journal).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let body = format!(
        "{{\"v\":1,\"seq\":{},\"command\":\"c\",\"occurred_at\":{},\"recorded_at\":{},\"up_ms\":{},\"boot\":{},\"actor\":{},\"events\":[{event}],\"prev\":{}",
        last["seq"].as_u64().unwrap() + 1,
        last["occurred_at"],
        last["recorded_at"],
        last["up_ms"],
        last["boot"],
        last["actor"],
        last["hash"],
    );
    let line = format!("{body},\"hash\":\"{}\"}}\n", record::sha256_hex(body.as_bytes()));
    std::fs::write(journal, text + &line).unwrap();
}

#[test]
fn a_journal_from_the_future_is_read_and_not_written() {
    let desk = Desk::new();
    let (id, journal) = noted(&desk);
    append(&journal, r#"{"type":"crew_teleported","to":"safety"}"#);
    let bytes = std::fs::read(&journal).unwrap();
    assert!(verify(&journal, &[]).unwrap().ok());
    for args in [
        ["incident", "note", "--incident", &id, "third look"].as_slice(),
        &["incident", "close", &id, "--summary", "over", "--force"],
    ] {
        desk.run(args).fails(4, &["newer version", "read-only", "hint: use the newer version"]);
    }
    let shown = desk.run(&["incident", "show", "--json", &id]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(shown.succeeds()).unwrap()["read_only"], true);
    let dir = journal.parent().unwrap().to_str().unwrap();
    assert!(desk.run(&["journal", "verify", dir]).succeeds().contains("crew_teleported"));

    let pty = desk.console((120, 40), &["resume", &id]);
    let screen = pty.wait_text("READ ONLY");
    assert!(screen.contains("crew_teleported") && screen.contains("Look"), "{screen}");
    pty.keys("b t");
    pty.wait_text("second look");
    assert_eq!(std::fs::read(&journal).unwrap(), bytes, "not a byte was written");
}

#[test]
fn a_torn_tail_is_left_alone_by_readers_and_repaired_by_the_next_writer() {
    let desk = Desk::new();
    let (id, journal) = noted(&desk);
    let folder = journal.parent().unwrap();
    let whole = std::fs::read(&journal).unwrap();
    let torn = br#"{"v":1,"seq":4,"command":"no"#;
    std::fs::write(&journal, [whole.as_slice(), torn].concat()).unwrap();
    let bytes = std::fs::read(&journal).unwrap();
    assert!(desk.run(&["incident", "show", &id]).succeeds().contains(&id));
    let out = desk.path("out");
    desk.run(&["export", &id, "--format", "md", "--out", out.to_str().unwrap()]).succeeds();
    let verified = desk.run(&["journal", "verify", folder.to_str().unwrap()]);
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.stdout.contains("record 4"), "{verified:?}");
    assert_eq!(std::fs::read(&journal).unwrap(), bytes, "readers repair nothing");

    desk.run(&["incident", "note", "--incident", &id, "third look"]).succeeds();
    assert_eq!(std::fs::read(folder.join("journal.torn-1")).unwrap(), torn, "what was torn is kept");
    let after = std::fs::read_to_string(&journal).unwrap();
    assert!(after.as_bytes().starts_with(&whole), "what was recorded stays");
    assert!(after.contains("torn_tail_moved") && after.contains("third look"), "{after}");
    let verified = desk.run(&["journal", "verify", folder.to_str().unwrap()]);
    assert!(verified.succeeds().contains("5 records verified"), "{verified:?}");
}
