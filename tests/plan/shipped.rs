//! The plans we ship: every objective, step, estimate, role and deadline is understood as it was meant.

use std::fmt::Write as _;

use breakglass::cli;
use breakglass::incident::forecast::restoring_steps;
use breakglass::lint::{Options, lint, render};
use breakglass::model::plan::{BlockRole, Piece};
use breakglass::plan::library::{EMBEDDED, Library};
use breakglass::plan::parse;

#[test]
fn every_plan_says_what_a_responder_needs() {
    let mut out = String::new();
    for (name, text) in EMBEDDED {
        let plan = parse(name, text.as_bytes()).unwrap();
        assert!(plan.notices.is_empty(), "{name}: {:?}", plan.notices);
        assert_eq!(plan.scenarios.len(), 1, "{name}");
        let s = &plan.scenarios[0];
        assert_eq!(format!("{}.md", s.slug), *name);
        // The numbered headings are the steps: none is lost, and nothing else becomes one.
        let numbered = text.lines().filter(|l| l.starts_with("## ") && l.as_bytes()[3].is_ascii_digit()).count();
        assert_eq!(s.steps.len(), numbered, "{name}");
        writeln!(
            out,
            "{} · {} · RTO {:?} s · RPO {:?} s",
            s.title,
            s.severity.as_ref().unwrap().level,
            s.rto_s.unwrap(),
            s.rpo_s.unwrap()
        )
        .unwrap();
        let takes: u64 = restoring_steps(s).filter_map(|step| step.estimate_s).sum();
        assert!(takes <= s.rto_s.unwrap(), "{name}: its own steps take {takes} s, longer than its objective");
        for step in &s.steps {
            let phase = step.phase.map_or("-".to_string(), |p| format!("{p:?}"));
            writeln!(
                out,
                "  {} [{phase}] {} s, {} to tick, {} blocks",
                step.title,
                step.estimate_s.unwrap_or_else(|| panic!("{name}: {} has no estimate", step.title)),
                step.items.len(),
                step.blocks.len()
            )
            .unwrap();
        }
        let roles: Vec<&str> = plan.contacts.iter().filter(|c| c.section == "Roles").map(|c| c.role.as_str()).collect();
        writeln!(out, "  roles: {}", roles.join(", ")).unwrap();
        let levels: Vec<String> =
            plan.escalation.iter().map(|e| format!("{} {} {:?}", e.level, e.who, e.respond_s.unwrap())).collect();
        writeln!(out, "  escalation: {}", levels.join(", ")).unwrap();
        let deadlines: Vec<String> = plan
            .matrix
            .iter()
            .map(|m| {
                format!(
                    "{} {:?}/{:?}/{:?}",
                    m.level,
                    m.respond_s.unwrap(),
                    m.escalate_s.unwrap(),
                    m.communicate_s.unwrap()
                )
            })
            .collect();
        writeln!(out, "  respond/escalate/communicate: {}", deadlines.join(", ")).unwrap();
        let template = plan.blocks.iter().filter(|b| b.role == BlockRole::Template).count();
        let messages = if *name == "security-breach.md" { 2 } else { 1 };
        assert_eq!(template, messages, "{name}: its messages to fill in");
        assert!(text.contains("## Way back"), "{name}");
    }
    insta::assert_snapshot!(out);
}

#[test]
fn the_linter_has_nothing_to_say_and_every_command_exists() {
    let library = Library::runbooks(&[]).unwrap();
    assert_eq!(library.documents.len(), EMBEDDED.len());
    let parses = |words: &[String]| {
        let argv = std::iter::once("breakglass".to_string()).chain(words.iter().cloned());
        cli::command().try_get_matches_from(argv).err().map(|e| e.to_string())
    };
    let found = lint(&library, &Options { own_command: &parses, preflight: false });
    assert!(found.is_empty(), "{}", render(&found));
    // The check can fail.
    assert!(parses(&["service".into(), "rolback".into()]).is_some());
    let own = library.documents.iter().flat_map(|d| &d.plan.blocks).filter_map(|b| b.own.as_ref());
    let own: Vec<String> = own
        .map(|words| {
            let piece = |p: &Piece| match p {
                Piece::Text(t) | Piece::Var(t) | Piece::Bare(t) => t.clone(),
            };
            words.iter().map(|w| w.0.iter().map(piece).collect::<String>()).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert!(
        own.iter().any(|o| o == "service rollback")
            && own.iter().any(|o| o == "pitr partial --table TABLE --with-children --open-shadow")
    );
}
