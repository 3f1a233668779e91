//! What stands in each format, for a whole drill.

use std::path::PathBuf;
use std::process::Command;

use breakglass::export::{self, Format, Options};
use breakglass::journal::{Anchors, verify};
use breakglass::model::IncidentId;
use breakglass::model::target::RecoveryTarget;

use super::fixture::{self, ID, drill, read};

/// Writes the drill's documents; a folder named in the environment gets a copy to look at.
fn written() -> (fixture::Pen, PathBuf, Vec<PathBuf>) {
    let pen = drill();
    let out = pen.state.path().join("out");
    let files = export::write(&pen.dir, &Format::ALL, &out).unwrap();
    if let Some(copy) = std::env::var_os("BREAKGLASS_KEEP_EXPORT") {
        for f in &files {
            std::fs::copy(f, PathBuf::from(&copy).join(f.file_name().unwrap())).unwrap();
        }
    }
    (pen, out, files)
}

#[test]
fn every_format_holds_every_event_and_the_head() {
    let (pen, out, files) = written();
    let names: Vec<_> = files.iter().map(|f| f.file_name().unwrap().to_str().unwrap().to_string()).collect();
    assert_eq!(names, ["md", "html", "json", "csv", "journal.jsonl"].map(|e| format!("{ID}.{e}")));
    assert_eq!(std::fs::read(&files[4]).unwrap(), std::fs::read(pen.dir.join("journal.jsonl")).unwrap());
    let timeline = export::load(&pen.dir, &Options::default()).unwrap();
    let head = pen.head().to_string();
    let [md, html, json, csv] = [0, 1, 2, 3].map(|i| read(&files[i]));
    for (name, text) in [("md", &md), ("html", &html), ("json", &json)] {
        assert!(text.contains(&head), "{name} names the head");
    }
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["timeline"].as_array().unwrap().len(), timeline.rows.len());
    assert_eq!(csv.matches("\r\n").count(), timeline.rows.len() + 1);
    assert_eq!(md.lines().filter(|l| l.starts_with("| 2026-11-20 1")).count(), timeline.rows.len());
    assert_eq!(html.matches("<i class=\"g\">").count(), timeline.rows.len());
    for text in [&md, &html, &csv, &json] {
        assert!(text.contains("breakglass pitr restore --to"), "what was run");
        assert!(text.contains(&breakglass::journal::record::sha256_hex(b"breakglass health")), "output digest");
    }
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 5, "no temporary files stay");
    assert_eq!(json, read(&files[2]));
}

/// An objective is not met by bringing back what was to be got rid of.
#[test]
fn a_loss_within_the_objective_is_no_success_while_damage_is_kept() {
    let pen = drill();
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    let mut state = t.state.clone();
    let late = state.facts.candidates[0].at.plus(std::time::Duration::from_secs(60));
    state.facts.chosen = Some((RecoveryTarget::Time(late), Some(late), None));
    let rpo = &export::Timeline::build(&[], state, None, None, t.exported_at).objectives[1];
    assert_eq!(rpo.judgement.word(), "missed");
    assert!(rpo.how.contains("still holds damage"), "{}", rpo.how);
}

#[test]
fn objectives_steps_and_offsets_are_right() {
    let pen = drill();
    let t = export::load(&pen.dir, &Options { project_to_bytes: Some(1_000_000_000_000) }).unwrap();
    let rto = &t.objectives[0];
    // Impact 95 s before the opening, service restored 674 s after it.
    assert_eq!((rto.name, rto.actual.unwrap().as_secs(), rto.judgement.word()), ("RTO", 769, "met"));
    let rpo = &t.objectives[1];
    assert_eq!((rpo.name, rpo.actual.unwrap().as_millis(), rpo.judgement.word()), ("RPO", 158_000, "met"));
    assert_eq!((t.objectives[2].name, t.objectives[2].judgement.word()), ("MTD", "met"));
    assert_eq!(t.rows[0].offset_ms, 95_000);
    assert_eq!(t.zero_is, "impact");
    // Step 1 was reopened: 41 s and 15 s, in two spans.
    assert_eq!((t.steps[0].spans.len(), t.steps[0].actual.unwrap().as_secs()), (2, 56));
    let over: Vec<usize> = t.steps.iter().filter(|s| s.overran()).map(|s| s.number).collect();
    assert_eq!(over, [4, 6]);
    assert_eq!((t.steps[10].result(), t.steps[10].actual), ("skipped", None));
    assert_eq!(t.steps[5].runs.iter().map(|r| r.result.as_str()).collect::<Vec<_>>(), ["failed", "succeeded"]);
    assert_eq!(t.steps_done(), (12, 12));
    let note = t.rows.iter().find(|r| r.what.contains("Support reports")).unwrap();
    assert_eq!(note.recorded, Some(pen.at(40)), "back-dated, and it shows");
    // 41 s of files for 171 MB: 1 TB takes 5848 times as long, and the log as long as it took.
    assert_eq!(t.projection.unwrap().1.as_secs(), 41_000 * 1_000_000 / 171_000 + 208);
    assert_eq!(
        t.people,
        [("amy@bastion".to_string(), 27), ("breakglass".into(), 21), ("ben@bastion".into(), 19)].map(|p| t
            .people
            .iter()
            .find(|q| q.0 == p.0)
            .cloned()
            .unwrap())
    );
}

#[test]
fn a_missed_objective_is_said_everywhere() {
    let mut pen = fixture::Pen::new(&fixture::plan("Detect"));
    pen.open("Database corruption", "shop @ sandbox");
    pen.start(1, "amy@bastion", 1);
    pen.record(2000, "amy@bastion", vec![breakglass::model::Event::NoteAdded { text: "still looking".into() }]);
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    assert_eq!(t.objectives[0].judgement.word(), "missed", "not restored, and the objective has passed");
    assert_eq!(t.objectives[1].judgement.word(), "not measured");
    assert!(export::markdown(&t).contains("**missed**"));
    assert!(export::html(&t).contains("<b class=\"chip bad\">missed</b>"));
    assert!(export::json(&t).unwrap().contains("\"judgement\": \"missed\""));
    let report = export::Report::of(&t);
    assert!(
        report.findings.iter().any(|f| f.gap.starts_with("RTO missed") && f.severity == "high"),
        "{:?}",
        report.findings
    );
    assert!(report.limits.iter().any(|l| l.contains("No impact was stated")));
}

#[test]
fn the_report_carries_what_an_audit_asks_for() {
    let pen = drill();
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    let r = export::Report::of(&t);
    let value = |label: &str| {
        let all = r.identity.iter().chain(&r.time).chain(&r.data);
        all.clone().find(|(l, _)| *l == label).map(|(_, v)| v.clone()).unwrap_or_else(|| panic!("no {label}"))
    };
    assert_eq!(value("Test"), "Database corruption");
    assert_eq!(value("Unique id"), ID);
    assert_eq!(value("System"), "shop @ sandbox");
    assert!(value("Environment").contains("private PostgreSQL"));
    assert!(value("Kind").contains("functional"));
    assert_eq!(value("Plan document SHA-256"), breakglass::journal::record::sha256_hex(b"the document"));
    assert_eq!(value("Plan as understood SHA-256").len(), 64);
    assert_eq!(value("Tool"), "breakglass 0.1.0");
    assert!(value("Start").ends_with('Z') && value("End").ends_with('Z'));
    assert!(value("Clock").contains("UTC"));
    assert!(
        value("Newest recovered commit").contains("2.0 s after the impact"),
        "{}",
        value("Newest recovered commit")
    );
    assert_eq!(r.validation.len(), 8);
    assert!(r.people.iter().any(|(n, role, _)| n == "amy@bastion" && *role == "opened the incident"));
    let gaps: Vec<&str> = r.findings.iter().map(|f| f.gap.as_str()).collect();
    for part in ["failed", "was skipped", "took 4:33, planned 4:00"] {
        assert!(gaps.iter().any(|g| g.contains(part)), "{part}: {gaps:?}");
    }
    for part in ["Simulated", "Skipped steps: 11", "Not checked: amcheck"] {
        assert!(r.limits.iter().any(|l| l.contains(part)), "{part}: {:?}", r.limits);
    }
    for text in [export::html(&t), export::markdown(&t)] {
        for word in
            ["Findings", "Owner", "Due", "Lessons learned", "Changes to the plan", "Signature", "Limits of this record"]
        {
            assert!(text.contains(word), "{word}");
        }
    }
}

#[test]
fn the_json_gives_the_journal_back_and_it_verifies() {
    let (pen, out, files) = written();
    let document: serde_json::Value = serde_json::from_str(&read(&files[2])).unwrap();
    let lines: Vec<&str> =
        document["journal"]["lines"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    let copy = out.join("journal.jsonl");
    std::fs::write(&copy, lines.join("\n") + "\n").unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(pen.dir.join("journal.jsonl")).unwrap());
    let report = verify(&copy, &[]).unwrap();
    assert_eq!(document["journal"]["head"], report.head.to_string());
}

#[test]
fn an_export_anchors_the_head() {
    let (pen, _, _) = written();
    let anchors = Anchors::beside(&pen.dir).unwrap().of(&IncidentId::new(ID)).unwrap();
    assert_eq!(anchors.len(), 1);
    assert_eq!(
        (anchors[0].seq, &anchors[0].hash, anchors[0].why.as_str()),
        (pen.head().seq, &pen.head().hash, "export")
    );
    let report = verify(&pen.dir, &anchors).unwrap();
    assert!(report.ok() && report.anchor_held_against.is_some());
    // The first export had nothing to be held against and says so; the second has the first.
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    assert!(t.journal.verified.iter().any(|l| l.contains("held against the anchor")), "{:?}", t.journal.verified);
}

#[test]
fn an_incident_without_its_plan_still_exports() {
    let pen = drill();
    std::fs::remove_dir_all(pen.dir.join("plan")).unwrap();
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    assert!(t.notices.iter().any(|n| n.contains("without the plan")), "{:?}", t.notices);
    assert_eq!(t.steps.len(), 12);
    assert!(export::html(&t).contains("without the plan"));
    // A plan that is not the one the journal names is not used.
    let pen = drill();
    let folder = std::fs::read_dir(pen.dir.join("plan")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(folder.join("plan.json"), serde_json::to_vec(&fixture::plan("Forged")).unwrap()).unwrap();
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    assert!(
        t.plan.is_none() && t.notices.iter().any(|n| n.contains("not the one the journal names")),
        "{:?}",
        t.notices
    );
}

#[test]
fn a_damaged_journal_is_refused_with_its_record() {
    let pen = drill();
    let path = pen.dir.join("journal.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = export::write(&pen.dir, &Format::ALL, &pen.state.path().join("out")).unwrap_err();
    assert!(error.to_string().contains("damaged at record 1"), "{error}");
}

#[test]
fn a_state_directory_that_cannot_be_written_exports_and_says_so() {
    let pen = drill();
    // A folder in the place of the anchors: nothing can be written there, not even by root.
    std::fs::create_dir(pen.state.path().join("anchors.jsonl")).unwrap();
    let out = tempfile::tempdir().unwrap();
    let files = export::write(&pen.dir, &[Format::Markdown], out.path()).unwrap();
    assert!(read(&files[0]).contains("could not be anchored"));
}

#[test]
fn formats_are_read_from_the_command_line() {
    assert_eq!(Format::parse_list("md, html,md").unwrap(), [Format::Markdown, Format::Html]);
    assert_eq!(Format::parse_list("all").unwrap(), Format::ALL);
    for bad in ["", "pdf", "md,docx"] {
        assert_eq!(Format::parse_list(bad).unwrap_err().kind.exit_code(), 2);
    }
}

#[test]
fn the_csv_reads_back_with_a_reader_of_somebody_else() {
    let (_pen, _, files) = written();
    let script =
        "import csv,sys,json; print(json.dumps(list(csv.DictReader(open(sys.argv[1], newline='', encoding='utf-8')))))";
    let out = Command::new("python3").args(["-c", script]).arg(&files[3]).output().unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap();
    let document: serde_json::Value = serde_json::from_str(&read(&files[2])).unwrap();
    let timeline = document["timeline"].as_array().unwrap();
    assert_eq!(rows.len(), timeline.len());
    for (csv, json) in rows.iter().zip(timeline) {
        assert_eq!(csv["seq"].as_str().unwrap(), json["seq"].to_string());
        assert_eq!(csv["utc"], json["at"]);
        assert_eq!(csv["what"], json["what"]);
        assert_eq!(csv["offset_ms"].as_str().unwrap(), json["offset_ms"].to_string());
    }
}

#[test]
fn the_draft_of_a_post_mortem_holds_what_the_journal_knows_and_asks_for_the_rest() {
    let pen = drill();
    let t = export::load(&pen.dir, &Options::default()).unwrap();
    let draft = export::postmortem(&t);
    let sections: Vec<&str> = draft.lines().filter_map(|l| l.strip_prefix("## ")).collect();
    assert_eq!(
        sections,
        [
            "Summary",
            "Impact",
            "Objectives against actuals",
            "Timeline",
            "What was run",
            "Decisions",
            "Contributing factors",
            "Lessons",
            "Action items"
        ]
    );
    assert!(draft.contains(pen.head().hash.as_str()), "names the journal's head");
    let runs = t.rows.iter().filter(|r| r.event == "run_requested").count();
    let section = draft.split("## What was run").nth(1).unwrap().split("## Decisions").next().unwrap();
    assert!(runs > 3 && section.lines().filter(|l| l.starts_with("| 2026-")).count() == runs, "{section}");
    for o in &t.objectives {
        assert!(draft.contains(&format!("| {} |", o.name)));
    }
    for row in t.rows.iter().filter(|r| r.event == "moment_chosen" || r.event == "note_added") {
        assert!(draft.matches(&row.at.hms()).count() >= 1, "{}", row.what);
    }
}
