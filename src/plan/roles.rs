//! What a section is for (S0 to S10). A section whose role, or that of one above it, is descriptive cannot be a scenario.

use super::doc::{Doc, is_info, is_phase_title};
use super::outline::Section;
use super::tree::Kind as NodeKind;
use super::words;

/// The roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing special: may be a scenario or hold some.
    Open,
    /// The author said to leave it out.
    Ignored,
    /// Table of contents.
    Contents,
    /// Describes: overview, architecture, backup strategy.
    Descriptive,
    /// RTO, RPO, service levels.
    Objectives,
    /// Severity matrix, classification.
    Severity,
    /// People to reach.
    Contacts,
    /// Messages and channels.
    Templates,
    /// Exercises and tests.
    Drill,
    /// What is done once it is over.
    Afterwards,
    /// Only a phase: "Recovery steps".
    Phase,
    /// Symptoms, causes, impact.
    Info,
}

/// A section's role and where it came from.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Its role.
    pub kind: Kind,
    /// The rule that said so.
    pub rule: &'static str,
    /// Whether it, or one above it, rules out scenarios.
    pub barred: bool,
}

/// The roles of all sections.
pub fn all(doc: &Doc) -> Vec<Role> {
    let mut out: Vec<Role> = Vec::with_capacity(doc.sections.len());
    for (index, section) in doc.sections.iter().enumerate() {
        let (kind, rule) = match of(section) {
            // A heading that most of the document stands under describes nothing: it was only put in the wrong place.
            (Kind::Descriptive, rule)
                if doc.subtree(index).len() * 2 > doc.sections.len() && doc.sections.len() > 6 =>
            {
                (Kind::Open, rule)
            }
            found => found,
        };
        let above = section.parent.is_some_and(|p| doc.sections[p].level > 1 && out[p].barred);
        // "Quick reference" over "Common issues": what lists troubles or procedures lists them wherever it stands.
        let lists = above
            && section.parent.is_some_and(|p| matches!(out[p].kind, Kind::Descriptive))
            && words::any(&section.title.norm, words::SCENARIO_PARENTS)
            && kind == Kind::Open;
        let above = above && !lists;
        let bars = matches!(
            kind,
            Kind::Ignored
                | Kind::Contents
                | Kind::Descriptive
                | Kind::Objectives
                | Kind::Severity
                | Kind::Contacts
                | Kind::Templates
                | Kind::Drill
                | Kind::Afterwards
        );
        out.push(Role { kind, rule, barred: bars || above });
    }
    out
}

/// First match wins.
fn of(section: &Section) -> (Kind, &'static str) {
    if let Some(kind) = annotated(section) {
        return (kind, "S0");
    }
    if section.level <= 1 || section.title.scenario || section.title.unit {
        return (Kind::Open, "");
    }
    let norm = section.title.norm.as_str();
    let fails = words::any(norm, words::FAILURES) || words::any(norm, words::TROUBLE) && !is_contents(section);
    let recovers = words::any(norm, words::RECOVERING);
    if is_contents(section) {
        return (Kind::Contents, "S1");
    }
    if is_descriptive(norm) && !fails {
        return (Kind::Descriptive, "S2");
    }
    if words::any(norm, words::OBJECTIVES) && !fails {
        return (Kind::Objectives, "S3");
    }
    if words::any(norm, words::SEVERITY) && !fails {
        return (Kind::Severity, "S4");
    }
    if words::any(norm, words::CONTACTS) && !fails && !recovers {
        return (Kind::Contacts, "S5");
    }
    if words::any(norm, words::TEMPLATES) {
        return (Kind::Templates, "S6");
    }
    // A test or drill stays one even when it is called a scenario; "Test the restore" inside a scenario is a phase.
    if words::any(norm, words::DRILLS) && !(is_phase_title(norm) && section.level >= 3) {
        return (Kind::Drill, "S7");
    }
    if words::any(norm, words::AFTERWARDS) {
        return (Kind::Afterwards, "S8");
    }
    if is_info(norm) {
        return (Kind::Info, "S10");
    }
    if is_phase_title(norm) {
        return (Kind::Phase, "S9");
    }
    (Kind::Open, "")
}

fn annotated(section: &Section) -> Option<Kind> {
    section.notes.iter().find_map(|n| match n.verb.as_str() {
        "ignore" => Some(Kind::Ignored),
        "drill" => Some(Kind::Drill),
        "contacts" => Some(Kind::Contacts),
        "template" => Some(Kind::Templates),
        "scenario" => Some(Kind::Open),
        "phase" => Some(Kind::Phase),
        _ => None,
    })
}

/// S1: every item of its only list is a link into the document.
fn is_contents(section: &Section) -> bool {
    if words::any(
        &section.title.norm,
        &[
            "table of contents",
            "contents$",
            "índice",
            "inhaltsverzeichnis",
            "sommaire",
            "оглавление",
            "содержание",
            "目录",
        ],
    ) {
        return true;
    }
    section.nodes.iter().any(|n| matches!(&n.kind, NodeKind::List(_, entries) if entries.len() >= 4 && entries.iter().all(|e| super::doc::first_words(e).is_some_and(|i| i.only_links() && i.links.iter().all(|(_, t)| t.starts_with('#'))))))
}

/// S2: describing words, unless the title is about recovering after all.
fn is_descriptive(norm: &str) -> bool {
    const ALWAYS: &[&str] = &[
        "metric",
        "overview",
        "architecture",
        "monitoring",
        "cost",
        "tools$",
        "tooling",
        "automation$",
        "kpi",
        "references",
        "appendix",
        "compliance",
        "glossary",
        "environment variable",
        "documentation",
        "history$",
        "future",
        "improvement",
        "introduction",
        "document control",
        "strategy$",
        "strategies",
        "schedule$",
        "retention",
        "audit",
        "scripts$",
        "tl dr",
        "tldr",
        "annexe",
        "related",
        "quick reference",
        "backup strateg",
    ];
    // "Audit log restore" restores, whatever it restores.
    let ends = norm.rsplit(' ').next().is_some_and(|last| words::any(last, words::RECOVERING));
    words::any(norm, words::DESCRIPTIVE) && !ends && (words::any(norm, ALWAYS) || !words::any(norm, words::RECOVERING))
}
