//! The steps of a scenario (K1 to K11): in every container the first form that is there, in the author's order.

use crate::model::plan::{BlockRole, Item, Phase, Step};

use super::doc::{Doc, is_info, is_phase_title, phase};
use super::group::{self, Container};
use super::make;
use super::roles::Kind as Role;
use super::tree::Kind;
use super::words;

/// What a scenario's sections gave.
#[derive(Debug, Default)]
pub struct Collected {
    /// Steps in order; ids are given at the end.
    pub steps: Vec<Step>,
    /// Prose before the first step, as Markdown.
    pub intro: Vec<String>,
    /// "Symptoms".
    pub symptoms: Vec<Item>,
    /// "Prerequisites".
    pub prerequisites: Vec<Item>,
    /// Checklists for afterwards.
    pub after: Vec<Item>,
    /// Sections that gave something to this scenario.
    pub used: Vec<usize>,
}

/// Collects the steps of a scenario; `whole` when it is the whole file (R9).
pub fn collect(doc: &Doc, root: usize, whole: bool) -> Collected {
    let mut out = Collected::default();
    if root != 0 && whole {
        // What stands before the sole H1 belongs to it.
        group::collect(doc, &doc.sections[0].nodes, &Container::default(), &mut out);
    }
    section(doc, root, None, true, whole, &mut out);
    expand_lone_checklist(&mut out);
    let scenario_title = doc.sections[root].title.clean.clone();
    for (i, step) in out.steps.iter_mut().enumerate() {
        step.id = crate::model::StepId::new(format!("s{}", i + 1));
        if step.title.is_empty() {
            step.title = if scenario_title.is_empty() { format!("Step {}", i + 1) } else { scenario_title.clone() };
        }
    }
    make::variables(&mut out.steps);
    out
}

fn section(doc: &Doc, index: usize, inherited: Option<Phase>, is_root: bool, whole: bool, out: &mut Collected) {
    let here = &doc.sections[index];
    let (before, before_intro) = (out.steps.len(), out.intro.len());
    let own =
        if is_root { None } else { annotated_phase(doc, index).or_else(|| phase(&here.title.norm)).or(inherited) };
    let container = Container {
        title: if is_root { String::new() } else { here.title.clean.clone() },
        norm: here.title.norm.clone(),
        fallback: here.title.clean.clone(),
        line: here.line,
        phase: own,
        root: is_root,
        acting: !is_root && is_acting(doc, index),
    };
    group::collect(doc, &here.nodes, &container, out);
    let gave = is_root || out.steps.len() > before || out.intro.len() > before_intro;
    let children = doc.children(index);
    let headed: Vec<usize> = step_headings(doc, &children);
    for child in children {
        if headed.contains(&child) && !holds_steps(doc, child) {
            out.used.extend(doc.subtree(child));
            out.steps.push(make::from_section(doc, child, own));
        } else if headed.len() >= 2 && keep_afterwards(doc, child, out) {
            // The steps are headings: what follows them is for when they are done.
        } else {
            descend(doc, child, own, whole, out);
        }
    }
    // K8: a phase that is only prose is one step.
    if !is_root && container.acting && out.steps.len() == before {
        let prose = here.nodes.iter().any(|n| matches!(n.kind, Kind::Paragraph(_) | Kind::List(..)));
        if prose && !is_info(&here.title.norm) {
            out.steps.push(make::from_prose(doc, index, own));
        }
    }
    // What gave nothing is kept beside the scenario.
    if gave || out.steps.len() > before && here.nodes.is_empty() || container.acting {
        out.used.push(index);
    }
}

/// A child that is not a step heading: information is kept apart, descriptions are left out, the rest is walked.
fn descend(doc: &Doc, child: usize, inherited: Option<Phase>, whole: bool, out: &mut Collected) {
    let here = &doc.sections[child];
    let norm = here.title.norm.as_str();
    let phase_like = is_phase_title(norm);
    match doc.roles[child].kind {
        Role::Info => {
            out.used.extend(doc.subtree(child));
            keep_information(doc, child, out);
            return;
        }
        Role::Ignored | Role::Contents | Role::Objectives | Role::Severity | Role::Contacts => return,
        Role::Descriptive if whole || !is_phase_title(norm) => return,
        Role::Templates => return,
        Role::Drill if !phase_like => return,
        // What can go wrong on the way is not a step of the way.
        _ if whole && words::any(norm, &["troubleshoot", "common issues", "common problems", "known issues"]) => return,
        _ => {}
    }
    section(doc, child, inherited, false, whole, out);
}

fn annotated_phase(doc: &Doc, index: usize) -> Option<Phase> {
    doc.sections[index].notes.iter().find_map(|n| n.attrs.get("phase")).and_then(|p| phase(&words::norm(p)))
}

/// Whether a section's title says that what stands in it is done.
fn is_acting(doc: &Doc, index: usize) -> bool {
    let title = &doc.sections[index].title;
    !is_info(&title.norm)
        && (is_phase_title(&title.norm)
            || words::any(&title.norm, words::ACTING)
            || doc.roles[index].kind == Role::Afterwards)
}

/// K1: `Step N`, or two or more numbered siblings, or siblings that name the steps of a process.
fn step_headings(doc: &Doc, children: &[usize]) -> Vec<usize> {
    let level = children.iter().map(|c| doc.sections[*c].level).min().unwrap_or(0);
    let fits = |c: &&usize| {
        let s = &doc.sections[**c];
        let role = doc.roles[**c].kind;
        s.level == level
            && !matches!(role, Role::Ignored | Role::Contents)
            // "Step 2: Impact on users": its number says that it is one, whatever its words sound like.
            && (s.title.step || role != Role::Info)
            && (s.title.step || !is_info(&s.title.norm))
    };
    let marked: Vec<usize> = children.iter().filter(fits).filter(|c| doc.sections[**c].title.step).copied().collect();
    if !marked.is_empty() {
        return marked;
    }
    let numbered: Vec<usize> = children
        .iter()
        .filter(fits)
        .filter(|c| {
            doc.sections[**c].title.ordinal.as_ref().is_some_and(|o| o.starts_with(|c: char| c.is_ascii_digit()))
        })
        .copied()
        .collect();
    if numbered.len() >= 2 { numbered } else { Vec::new() }
}

/// "Phase 2", "Part 3" over numbered headings: those are the steps, it is their phase.
fn holds_steps(doc: &Doc, index: usize) -> bool {
    let raw = doc.sections[index].raw.to_lowercase();
    let container = ["phase", "part", "stage", "fase", "этап"].iter().any(|w| words::norm(&raw).starts_with(w));
    container && step_headings(doc, &doc.children(index)).len() >= 2
}

/// "Post-recovery checklist" beside steps that are headings of their own: offered when the incident is closed. Says whether
/// it was one.
fn keep_afterwards(doc: &Doc, index: usize, out: &mut Collected) -> bool {
    let here = &doc.sections[index];
    let titled = here.title.norm.starts_with("post ") && doc.roles[index].kind == Role::Afterwards;
    let mut items = Vec::new();
    for i in doc.subtree(index) {
        super::doc::list_items(&doc.sections[i].nodes, "S8", &mut items);
    }
    if !titled || items.is_empty() {
        return false;
    }
    out.used.extend(doc.subtree(index));
    out.after.extend(items);
    true
}

/// Symptoms, prerequisites and the like are shown with the scenario, never as steps.
fn keep_information(doc: &Doc, index: usize, out: &mut Collected) {
    let title = &doc.sections[index].title;
    for i in doc.subtree(index) {
        group::information(doc, &title.norm, &title.clean, &doc.sections[i].nodes.iter().collect::<Vec<_>>(), out);
    }
}

/// K7: a checklist beside other steps is one step with boxes; alone, each box is a step.
fn expand_lone_checklist(out: &mut Collected) {
    let [only] = out.steps.as_slice() else { return };
    let boxes = only.source.rule == "K7 checklist"
        && only.blocks.iter().all(|b| !matches!(b.role, BlockRole::Run | BlockRole::Query))
        && only.items.len() >= 2;
    if !boxes {
        return;
    }
    let only = only.clone();
    out.steps = only
        .items
        .iter()
        .map(|item| Step {
            title: item.title.clone(),
            line: item.line,
            phase: phase(&words::norm(&item.title)).or(only.phase),
            source: crate::model::plan::Source {
                line: item.line,
                line_end: item.line,
                rule: "K7 box".into(),
                ..only.source.clone()
            },
            ..Step::default()
        })
        .collect();
}
