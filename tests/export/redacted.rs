//! The copy for outsiders: nothing private in any file, a chain that verifies, single records opened later.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use breakglass::export::redact::Copy;
use breakglass::journal::{Append, Draft, FileJournal, Journal, verify};
use breakglass::model::event::{Event, Kind, Outcome, OutputSeal, Verdict};
use breakglass::model::plan::Risk;
use breakglass::model::target::{Loss, RecoveryTarget};
use breakglass::model::{Actor, Digest, IncidentId, RunId, Seq, StepId, Time};

use super::fixture::{ID, check, drill, identity, map, read};

const PRIVATE: [&str; 21] = [
    "amy",
    "ben",
    "carol",
    "db1.example",
    "10.1.2.3",
    "shop",
    "orders",
    "customers",
    "s3cret",
    "tariff",
    "payroll",
    "security-breach",
    "Security breach",
    "psql",
    "evidence.txt",
    "billing",
    "lead and legal",
    "restore-point-9",
    "intruder",
    "salvage/",
    "custom-step",
];

/// The incident of a journal with something private in every place where something can stand.
fn private(dir: &Path) -> FileJournal {
    std::fs::create_dir_all(dir).unwrap();
    let mut journal = FileJournal::open(dir).unwrap();
    let at = Time::parse("2026-11-20T14:01:07.000000Z").unwrap();
    let text = |t: &str| t.to_string();
    let mut add = |who: &str, events: Vec<Event>| {
        let head = journal.head().unwrap();
        let draft = Draft { command: "test".into(), occurred_at: None, actor: Actor::new(who), events };
        assert!(matches!(journal.append_if(&head, draft).unwrap(), Append::Appended(_)));
    };
    add(
        "amy@db1.example",
        vec![Event::IncidentOpened {
            id: IncidentId::new("20261120T1401Z-security-breach-7f3a"),
            kind: Kind::Real,
            scenario: "security-breach".into(),
            title: "Security breach".into(),
            plan: Digest::new("ab".repeat(32)),
            severity: Some("P0".into()),
            rto_ms: Some(3_600_000),
            rpo_ms: Some(0),
            program: "0.1.0".into(),
            target: Some("shop @ db1.example".into()),
            expect: map(&[("host", text("10.1.2.3"))]),
        }],
    );
    add(
        "amy@db1.example",
        vec![
            Event::ImpactStarted { at, source: "carol saw the intruder".into(), moved_from: None },
            Event::RoleAssigned {
                role: "incident commander".into(),
                person: "amy".into(),
                from: Some("ben".into()),
                note: "ask carol".into(),
            },
            Event::RoleAssigned {
                role: "payroll owner".into(),
                person: "carol".into(),
                from: None,
                note: String::new(),
            },
            Event::MessageSent {
                audience: "lead and legal".into(),
                text: "billing is read".into(),
                how: Some("said".into()),
                step: None,
            },
            Event::TimerSnoozed { timer: "update-lead and legal".into(), for_ms: 60_000, reason: "carol knows".into() },
            Event::Escalated { level: 2, who: "carol".into(), within_ms: 60_000 },
            Event::EscalationAnswered { level: 2, by: "carol".into() },
            Event::NoteAdded { text: "the intruder came by 10.1.2.3".into() },
            Event::VariableSet { name: "STOLEN_ROLE".into(), value: "tariff".into() },
            Event::SecretRotated { secret: "billing token".into(), at },
            Event::AfterwardsTicked { item: "tell payroll".into(), done: true },
            Event::LocalOnlySet { on: true, reason: "the intruder reads the chat of billing".into() },
        ],
    );
    add(
        "ben@db1.example",
        vec![Event::RunRequested {
            step: Some(StepId::new("custom-step-billing")),
            block_line: Some(3),
            action: "shell".into(),
            shown: "psql -c 'select s3cret from orders'".into(),
            args: vec!["--x".into(), "s3cret".into()],
            risk: Risk::Destroy,
            confirmed: Some("shop".into()),
        }],
    );
    add(
        "breakglass",
        vec![
            Event::RunStarted { run: RunId(3), pid: 4711, host: "db1.example".into(), program: "0.1.0".into() },
            Event::TargetSeen { role: "source".into(), identity: identity("7429384729384729384") },
            Event::HealthSeen { healthy: false, components: map(&[("billing", text("down at shop"))]) },
            Event::DamageAssessed { findings: vec!["payroll changed".into()], rows: map(&[("public.orders", 17)]) },
            Event::MomentChosen { target: RecoveryTarget::Lsn("0/5A2F118".into()), at: Some(at), loses: None },
            Event::MomentChosen { target: RecoveryTarget::Name("restore-point-9".into()), at: None, loses: None },
            Event::ShadowVerified {
                passed: false,
                checks: vec![check("fingerprint public.orders", Verdict::Failed, "orders differ")],
            },
            Event::LossMeasured {
                loss: Loss { window_ms: 5, transactions: Some(9), rows: map(&[("public.orders", 4)]), at_most: false },
            },
            Event::SalvageWritten {
                folder: "salvage/x".into(),
                rows: map(&[("public.customers", 2)]),
                files: map(&[("orders.csv", Digest::new("cd".repeat(32)))]),
            },
            Event::EvidenceAdded { file: "evidence.txt".into(), sha256: Digest::new("ef".repeat(32)) },
            Event::RunFinished {
                run: RunId(3),
                outcome: Outcome::Failed,
                exit_code: 3,
                summary: "psql: no shop".into(),
                duration_ms: 1234,
                output: OutputSeal {
                    bytes: 10,
                    lines: 1,
                    dropped_lines: 0,
                    sha256: Some(Digest::new("aa".repeat(32))),
                },
            },
        ],
    );
    add(
        "ben@db1.example",
        vec![
            Event::GateWaived { gate: "identity".into(), reason: "carol checked db1.example".into(), step: None },
            Event::IncidentClosed { summary: "the intruder is out of the shop".into() },
        ],
    );
    journal
}

fn breakglass(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .args(words)
        .env_clear()
        .env("BREAKGLASS_HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(home)
        .output()
        .unwrap()
}

/// The two scripts of the documentation: for a journal, for a copy.
fn scripts(dir: &Path) -> (PathBuf, PathBuf) {
    let doc = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats.md"));
    let all: Vec<&str> = doc.split("```python\n").skip(1).map(|t| t.split("```").next().unwrap()).collect();
    let (chain, copy) = (dir.join("chain.py"), dir.join("copy.py"));
    std::fs::write(&chain, all[0]).unwrap();
    std::fs::write(&copy, all[1]).unwrap();
    (chain, copy)
}

fn python(words: &[&Path], more: &[&str]) -> (bool, String) {
    let out = Command::new("python3").args(words).args(more).output().unwrap();
    (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

#[test]
fn a_redacted_copy_says_nothing_private_and_verifies() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("incidents/20261120T1401Z-security-breach-7f3a");
    let mut journal = private(&dir);
    let out = breakglass(home.path(), &["export", "--redact", "--out", "out", "20261120T1401Z-security-breach-7f3a"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let files: Vec<PathBuf> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|l| home.path().join("out").join(Path::new(l).file_name().unwrap()))
        .collect();
    assert_eq!(files.len(), 5, "{files:?}");
    for file in &files {
        let text = format!("{} {}", file.file_name().unwrap().to_str().unwrap(), read(file));
        let found: Vec<&&str> = PRIVATE.iter().filter(|w| text.to_lowercase().contains(&w.to_lowercase())).collect();
        assert!(found.is_empty(), "{}: {found:?}\n{text}", file.display());
    }
    // What is meant to be told is there.
    let md = files.iter().find(|f| f.extension().is_some_and(|e| e == "md")).unwrap();
    for word in ["person 1", "P0", "identity", "[withheld]", "Local only", "14:01:07", "log position"] {
        assert!(read(md).to_lowercase().contains(&word.to_lowercase()), "{word}:\n{}", read(md));
    }
    // Its chain, by us and by the documented script; a change anywhere shows.
    let copy = files[0].clone();
    assert!(verify(&copy, &[]).unwrap().ok());
    let (chain, of) = scripts(home.path());
    let (ok, said) = python(&[&chain, &copy], &[]);
    assert!(ok && said.contains("5 records verified, 0 withheld"), "{said}");
    let good = std::fs::read(&copy).unwrap();
    for at in [30, good.len() / 2, good.len() - 100] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&copy, &bad).unwrap();
        assert!(!python(&[&chain, &copy], &[]).0, "byte {at}");
    }
    std::fs::write(&copy, &good).unwrap();
    // The original's head, and single records opened.
    let head = journal.head().unwrap().to_string();
    assert!(python(&[&of, &copy], &[&head]).0);
    assert!(!python(&[&of, &copy], &[&format!("5:{}", "0".repeat(64))]).0);
    let original = read(&dir.join("journal.jsonl"));
    let opened = home.path().join("opened.jsonl");
    for n in 0..5 {
        let line = original.lines().nth(n).unwrap();
        std::fs::write(&opened, format!("{line}\n")).unwrap();
        let (ok, said) = python(&[&of, &copy], &[&head, opened.to_str().unwrap()]);
        assert!(ok, "record {}: {said}", n + 1);
        std::fs::write(&opened, format!("{}\n", line.replacen("\"up_ms\":", "\"up_ms\":1", 1))).unwrap();
        assert!(!python(&[&of, &copy], &[&head, opened.to_str().unwrap()]).0, "a changed record {}", n + 1);
    }
    // Whoever has the original makes it again.
    let dir_text = dir.to_str().unwrap();
    let out = breakglass(home.path(), &["journal", "verify", dir_text, "--redacted", copy.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let kept = String::from_utf8(good.clone()).unwrap();
    // A copy that lies, with a chain that fits: only a comparison tells.
    let lines = FileJournal::open(&dir).unwrap().lines_from(Seq(1)).unwrap();
    let mut lie = Copy::of(&lines).unwrap();
    lie.lines.truncate(4);
    std::fs::write(&copy, lie.journal()).unwrap();
    let out = breakglass(home.path(), &["journal", "verify", dir_text, "--redacted", copy.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "the beginning of a copy is one, too");
    std::fs::write(&copy, kept.replacen("\"exit_code\":3", "\"exit_code\":0", 1)).unwrap();
    let out = breakglass(home.path(), &["journal", "verify", dir_text, "--redacted", copy.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("record 4"), "{}", String::from_utf8_lossy(&out.stderr));
    // With a code name it goes by that.
    let head = journal.head().unwrap();
    let draft = Draft {
        command: "test".into(),
        occurred_at: None,
        actor: Actor::new("amy@db1.example"),
        events: vec![Event::CodenameSet { codename: "Heron".into() }],
    };
    journal.append_if(&head, draft).unwrap();
    let out = breakglass(home.path(), &["export", "7f3a", "--redact", "--format", "md", "--out", "named"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(read(&home.path().join("named/Heron.redacted.md")).contains("Heron"));
}

#[test]
fn the_same_remark_twice_has_two_hashes_and_old_journals_say_that_they_can_be_guessed() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    private(&a);
    private(&b);
    let salts = |dir: &Path| -> Vec<String> {
        read(&dir.join("journal.jsonl"))
            .lines()
            .map(|l| l.split("\"salt\":\"").nth(1).unwrap().split('"').next().unwrap().to_string())
            .collect()
    };
    let (mut all, other) = (salts(&a), salts(&b));
    all.extend(other);
    assert!(all.iter().all(|s| s.len() == 32));
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), 10);
    let lines = |dir: &Path| FileJournal::open(dir).unwrap().lines_from(Seq(1)).unwrap();
    assert_eq!(Copy::of(&lines(&a)).unwrap().unsalted, 0);
    // The fixtures are written as version 0.1.0 wrote them.
    let pen = drill();
    let copy = Copy::of(&lines(&pen.dir)).unwrap();
    assert_eq!(copy.unsalted, copy.lines.len());
    assert!(!copy.journal().contains(ID));
    let timeline = copy.timeline(Time::default()).unwrap();
    assert!(timeline.notices.iter().any(|n| n.contains("no salt")));
}
