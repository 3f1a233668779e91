//! Whole documents: the runbook we ship, understood in full, and real plans when they stand beside the checkout.

use std::fmt::Write as _;
use std::path::PathBuf;

use breakglass::model::plan::{BlockRole, Piece, Word};
use breakglass::plan::library::EMBEDDED;
use breakglass::plan::{parse, show};
use serde_json::Value;

fn command(words: &[Word]) -> String {
    let piece = |p: &Piece| match p {
        Piece::Text(t) => t.clone(),
        Piece::Var(v) => format!("\"${v}\""),
        Piece::Bare(v) => format!("${v}"),
    };
    words.iter().map(|w| w.0.iter().map(piece).collect::<String>()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_runbook_as_it_is_understood() {
    let (name, text) = EMBEDDED[0];
    let plan = parse(name, text.as_bytes()).unwrap();
    assert!(plan.notices.is_empty(), "{:?}", plan.notices);
    let mut out = String::new();
    for s in &plan.scenarios {
        let severity = s.severity.as_ref().unwrap();
        writeln!(out, "{} · {} · {} · RTO {:?} · RPO {:?}", s.slug, s.title, severity.level, s.rto_s, s.rpo_s).unwrap();
        for step in &s.steps {
            writeln!(
                out,
                "{} {} {:?} ~{:?} {} items",
                step.id,
                step.title,
                step.phase.unwrap(),
                step.estimate_s.unwrap(),
                step.items.len()
            )
            .unwrap();
            for b in &step.blocks {
                let own = b.own.as_deref().map(command);
                writeln!(out, "   {:?} {:?} {:?} {:?}", b.role, b.risk, own, b.attrs.get("timeout")).unwrap();
            }
        }
    }
    for e in &plan.extras {
        writeln!(out, "{}: {}", e.kind, e.title).unwrap();
    }
    insta::assert_snapshot!(out, @r#"
    database-corruption · Database corruption · P0 · RTO Some(14400) · RPO Some(3600)
    s1 Detect Detect ~120 2 items
       Run Some(Read) Some("health") Some("1m")
       Run Some(Read) None Some("15s")
    s2 Declare Declare ~60 4 items
    s3 Stop the bleeding Contain ~120 0 items
       Run Some(Change) Some("contain") Some("5m")
    s4 Assess Assess ~600 3 items
       Run Some(Read) Some("assess") Some("10m")
       Query Some(Read) None Some("1m")
       Query Some(Read) None Some("1m")
    s5 Choose the moment Decide ~300 0 items
       Run Some(Read) Some("pitr locate") Some("15m")
    s6 Recover beside Recover ~1800 0 items
       Run Some(Change) Some("pitr restore --to \"$TARGET\" --into beside") Some("4h")
    s7 Verify Verify ~600 2 items
       Run Some(Read) Some("pitr verify") Some("30m")
    s8 Promote Promote ~300 0 items
       Run Some(Destroy) Some("pitr promote") Some("15m")
    s9 Take a new base backup Protect ~900 0 items
       Run Some(Change) Some("backup create --physical") Some("4h")
    s10 Salvage what came after Protect ~900 2 items
       Run Some(Read) Some("pitr salvage --out salvage") Some("30m")
    s11 Tell Communicate ~300 0 items
       Template None None None
    s12 Close Close ~300 6 items
       Run Some(Read) Some("health") Some("1m")
    template: Tell
    reference: Repairing columns from the shadow
    reference: Way back
    contacts: Roles
    reference: Deadlines
    escalation: Escalation
    "#);
    assert!(
        plan.scenarios[0]
            .steps
            .iter()
            .flat_map(|s| &s.blocks)
            .all(|b| b.placeholders.is_empty() || b.role == BlockRole::Template)
    );
}

/// Where real plans with a careful reader's notes stand, if they do: `BREAKGLASS_PLANS` or `../shared/plans`.
pub fn plans() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/plans");
    std::env::var_os("BREAKGLASS_PLANS").map(PathBuf::from).or(Some(beside)).filter(|p| p.join("expected").is_dir())
}

#[test]
fn real_plans_as_a_careful_reader_reads_them() {
    let Some(folder) = plans() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(folder.join("expected")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let want: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let doc = want["doc"].as_str().unwrap();
        let file = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .find(|p| p.file_name().unwrap().to_string_lossy().starts_with(doc))
            .unwrap();
        let plan = parse(&file.file_name().unwrap().to_string_lossy(), &std::fs::read(&file).unwrap()).unwrap();
        let got = show::to_show_json(&plan).unwrap();
        let lines = |v: &Value| -> Vec<u64> {
            v["scenarios"].as_array().unwrap().iter().map(|s| s["line"].as_u64().unwrap()).collect()
        };
        assert_eq!(lines(&got), lines(&want), "scenarios of {doc}");
        for (g, w) in got["scenarios"].as_array().unwrap().iter().zip(want["scenarios"].as_array().unwrap()) {
            assert_eq!(g["severity"]["level"], w["severity"]["level"], "{}", w["title"]);
            assert_eq!((&g["rto_s"], &g["rpo_s"]), (&w["rto_s"], &w["rpo_s"]), "{}", w["title"]);
            assert_eq!(
                g["steps"].as_array().unwrap().len() as u64,
                w["step_count"].as_u64().unwrap(),
                "{}",
                w["title"]
            );
        }
        // A block that must never run does not: the one check without tolerance.
        for fence in want["fences"].as_array().unwrap() {
            let block = plan.blocks.iter().find(|b| u64::from(b.line) == fence["line"].as_u64().unwrap()).unwrap();
            assert_eq!(block.role == BlockRole::Run, fence["role"] == "run", "{doc} line {}", fence["line"]);
        }
        seen += 1;
    }
    assert!(seen > 0);
}
