//! Which headings are scenarios (R1 to R9): the union of all signals; of nested ones the outermost wins.

use std::collections::BTreeMap;

use super::doc::{Doc, first_words, is_imperative, is_info, is_phase_title};
use super::outline;
use super::roles::Kind as Role;
use super::tree::{Kind, Node};
use super::words;

/// A heading that may be a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its section; the first section stands for a whole file without a sole H1.
    pub section: usize,
    /// The rule that found it.
    pub rule: &'static str,
    /// How sure the rule is, in hundredths.
    pub confidence: u8,
}

/// The scenarios of a document, in order.
pub fn find(doc: &Doc) -> Vec<Candidate> {
    let mut found = BTreeMap::<usize, Candidate>::new();
    let mut add = |sections: Vec<usize>, rule: &'static str, confidence: u8| {
        for section in sections {
            let entry = found.entry(section).or_insert(Candidate { section, rule, confidence });
            if entry.confidence < confidence {
                *entry = Candidate { section, rule, confidence };
            }
        }
    };
    add(annotated(doc), "R1", 100);
    let explicit = named_scenarios(doc);
    let whole = explicit.is_empty() && is_one_runbook(doc) && !lists_scenarios(doc);
    add(explicit, "R2", 95);
    if !whole {
        add(children_of_parents(doc), "R3", 85);
        add(coded(doc), "R4", 85);
        add(named_units(doc), "R5", 80);
        add(alike(doc), "R6", 75);
    }
    if !whole {
        let recoveries = recoveries(doc);
        if recoveries.len() > 1 || (!found.is_empty() && !recoveries.is_empty()) {
            for section in recoveries {
                found.entry(section).or_insert(Candidate { section, rule: "R7", confidence: 60 });
            }
        }
        if !found.is_empty() {
            for section in lone_recovery_procedures(doc) {
                found.entry(section).or_insert(Candidate { section, rule: "R7", confidence: 60 });
            }
        }
        for section in numbered_sections(doc) {
            found.entry(section).or_insert(Candidate { section, rule: "R8", confidence: 60 });
        }
    }
    let chosen = outermost(doc, found.into_values().collect());
    if chosen.is_empty() {
        return whole_file(doc).into_iter().collect();
    }
    chosen
}

/// Sections that are step headings of one procedure (K1): "Step N", or numbered siblings that mostly name process words.
pub fn is_step_heading(doc: &Doc, section: usize) -> bool {
    let title = &doc.sections[section].title;
    if title.step {
        return true;
    }
    let listed = doc.sections[section].parent.is_some_and(|p| {
        is_parent(doc, p) && (words::any(&doc.sections[p].title.norm, words::SCENARIO) || each_recovers(doc, p))
    });
    title.ordinal.is_some() && !listed && process_siblings(doc, section)
}

/// "5.1 Restore the cache", "5.2 Restore the database": below a list of procedures, numbered children that each name what
/// they bring back are procedures of their own, not the steps of one.
fn each_recovers(doc: &Doc, parent: usize) -> bool {
    let numbered: Vec<usize> =
        doc.children(parent).into_iter().filter(|c| doc.sections[*c].title.ordinal.is_some()).collect();
    let recovering = |c: &usize| {
        let norm = &doc.sections[*c].title.norm;
        norm.contains(' ') && words::any(norm, words::RECOVERING) && !is_phase_title(norm) && owns_steps(doc, *c)
    };
    let count = numbered.iter().filter(|c| recovering(c)).count();
    // A look at what there is (which backups, which state) may stand among them.
    count >= 2 && count + 1 >= numbered.len()
}

/// A section at the top that is called "scenarios" and has two or more procedures below it.
fn lists_scenarios(doc: &Doc) -> bool {
    let top = doc.sole_h1().map_or_else(|| doc.children(0), |h| doc.children(h));
    top.into_iter().any(|p| {
        let named = words::any(&doc.sections[p].title.norm, words::SCENARIO);
        let acting = doc.children(p).into_iter().filter(|c| owns_steps(doc, *c) && !excluded(doc, *c)).count();
        named && is_parent(doc, p) && acting >= 2
    })
}

/// Whether the numbered siblings of a section read as the steps of one process.
fn process_siblings(doc: &Doc, section: usize) -> bool {
    let siblings = doc.sections[section].parent.map_or_else(|| doc.children(0), |p| doc.children(p));
    let level = doc.sections[section].level;
    let numbered: Vec<usize> = siblings
        .into_iter()
        .filter(|s| doc.sections[*s].title.ordinal.is_some() && doc.sections[*s].level == level)
        .collect();
    let process = numbered.iter().filter(|s| is_process(&doc.sections[**s].title.norm)).count();
    numbered.len() >= 2 && process * 2 > numbered.len()
}

/// A title that names a stage of work, not a thing that happens.
fn is_process(norm: &str) -> bool {
    let first = norm.split(' ').next().unwrap_or_default();
    words::any(first, words::PROCESS) || is_phase_title(norm) || is_info(norm) || is_imperative(norm)
}

/// What rules a section out as a scenario, whatever its signals.
fn excluded(doc: &Doc, section: usize) -> bool {
    let role = doc.roles[section];
    let title = &doc.sections[section].title;
    let level_only = matches!(
        title.norm.as_str(),
        "critical"
            | "high"
            | "medium"
            | "low"
            | "major"
            | "minor"
            | "p0"
            | "p1"
            | "p2"
            | "p3"
            | "critical p0"
            | "high p1"
            | "medium p2"
            | "low p3"
            | ""
    );
    role.barred || matches!(role.kind, Role::Phase | Role::Info) || level_only || title.step
}

/// R1: the author said so.
fn annotated(doc: &Doc) -> Vec<usize> {
    (1..doc.sections.len()).filter(|i| doc.sections[*i].notes.iter().any(|n| n.verb == "scenario")).collect()
}

/// R2: "Scenario 2: Region lost"; not a branch below a phase of one runbook.
fn named_scenarios(doc: &Doc) -> Vec<usize> {
    (1..doc.sections.len())
        .filter(|i| doc.sections[*i].title.scenario && !doc.roles[*i].barred)
        .filter(|i| !doc.ancestors(*i).any(|a| is_branching_phase(doc, a)))
        .collect()
}

/// "Resolution" beside "Symptoms" and "Verification": its scenarios are branches of one runbook.
fn is_branching_phase(doc: &Doc, section: usize) -> bool {
    let s = &doc.sections[section];
    if s.level <= 1 || !is_phase_title(&s.title.norm) || is_parent(doc, section) {
        return false;
    }
    let siblings = s.parent.map_or_else(|| doc.children(0), |p| doc.children(p));
    siblings.into_iter().any(|i| i != section && matches!(doc.roles[i].kind, Role::Phase | Role::Info))
}

/// A heading whose children are scenarios.
fn is_parent(doc: &Doc, section: usize) -> bool {
    let s = &doc.sections[section];
    // "Advanced troubleshooting" lists tools; plain "Troubleshooting" lists what can go wrong.
    let troubles = words::has(&s.title.norm, "troubleshoot")
        && !words::any(&s.title.norm, &["advanced", "tool", "tips", "general"]);
    let parent = words::any(&s.title.norm, words::SCENARIO_PARENTS) || s.title.norm == "scenarios" || troubles;
    let parent = parent || groups_troubles(doc, section);
    let plural = s.level > 1
        || words::any(
            &s.title.norm,
            &["scenarios", "runbooks", "playbooks", "cenários", "escenarios", "szenarien", "сценарии"],
        );
    parent && plural && !doc.roles[section].barred
}

/// "Connection issues", "Replication problems": several of them below, each with what to do.
fn groups_troubles(doc: &Doc, section: usize) -> bool {
    let s = &doc.sections[section];
    let last = s.title.norm.rsplit(' ').next().unwrap_or_default();
    matches!(last, "issues" | "problems" | "incidents" | "outages" | "failures" | "errors")
        && s.level > 1
        && !has_steps(doc, &s.nodes)
        && doc.children(section).into_iter().filter(|c| has_steps(doc, &doc.sections[*c].nodes)).count() >= 2
}

/// R3: the children of "Recovery scenarios", "Common incidents", "Runbooks" …; when a child only groups procedures, those.
fn children_of_parents(doc: &Doc) -> Vec<usize> {
    let mut out = Vec::new();
    for parent in (1..doc.sections.len()).filter(|i| is_parent(doc, *i)) {
        let children: Vec<usize> = doc
            .children(parent)
            .into_iter()
            .filter(|c| !excluded(doc, *c) || is_listed(doc, parent, *c))
            .filter(|c| !is_parent(doc, *c) && !is_step_heading(doc, *c))
            .collect();
        let mut some = Vec::new();
        for child in children {
            let below: Vec<usize> = doc
                .children(child)
                .into_iter()
                .filter(|c| {
                    !excluded(doc, *c) && !is_step_heading(doc, *c) && !is_alternative(doc, *c) && owns_steps(doc, *c)
                })
                .collect();
            if below.len() >= 2 && doc.sections[parent].level > 1 && !has_steps(doc, &doc.sections[child].nodes) {
                some.extend(below);
            } else {
                some.push(child);
            }
        }
        let strong = doc.sections[parent].level > 1 || some.iter().filter(|c| owns_steps(doc, **c)).count() >= 2;
        if strong && some.iter().any(|c| owns_steps(doc, *c)) {
            some.retain(|c| doc.sections[parent].level > 1 || owns_steps(doc, *c));
            out.extend(some);
        } else if words::any(&doc.sections[parent].title.norm, words::SCENARIO) {
            out.extend(some.into_iter().filter(|c| doc.sections[*c].nodes.is_empty()));
        }
    }
    out
}

/// "2. Snapshot recovery" below "Recovery scenarios": the list says that it is one, although its words only name a phase.
fn is_listed(doc: &Doc, parent: usize, child: usize) -> bool {
    let section = &doc.sections[child];
    let numbered = words::any(&doc.sections[parent].title.norm, words::SCENARIO) && section.title.ordinal.is_some();
    // "Complete service rollback" as the only procedure of a list: nothing beside it makes it a phase of something else.
    let lone = doc.children(parent).len() == 1
        && section.title.norm.contains(' ')
        && words::any(&section.title.norm, words::RECOVERING)
        && doc.sections[parent].level > 1;
    (numbered || lone) && doc.roles[child].kind == Role::Phase && !doc.roles[child].barred && owns_steps(doc, child)
}

/// "Option A", "Method 2": ways of doing one thing.
fn is_alternative(doc: &Doc, section: usize) -> bool {
    let norm = &doc.sections[section].title.norm;
    ["option ", "method ", "alternative", "approach ", "variant ", "opção ", "opción ", "if ", "case "]
        .iter()
        .any(|w| norm.starts_with(w))
}

/// R4: `P0: x`, `x (SEV-1)` with steps.
fn coded(doc: &Doc) -> Vec<usize> {
    (1..doc.sections.len())
        .filter(|i| {
            doc.sections[*i].level > 1
                && doc.sections[*i].title.severity.is_some()
                && !excluded(doc, *i)
                && owns_steps(doc, *i)
        })
        .collect()
}

/// R5: `Incident: x`, `Alert: x`; two or more siblings named like alerts.
fn named_units(doc: &Doc) -> Vec<usize> {
    let mut out: Vec<usize> = (1..doc.sections.len())
        .filter(|i| {
            doc.sections[*i].level > 1
                && (doc.sections[*i].title.unit || doc.sections[*i].title.runbook)
                && !excluded(doc, *i)
                && owns_steps(doc, *i)
        })
        .collect();
    for parent in 0..doc.sections.len() {
        let alerts: Vec<usize> = doc
            .children(parent)
            .into_iter()
            .filter(|c| {
                is_alert_name(&doc.sections[*c].title.clean)
                    && !excluded(doc, *c)
                    && !doc.sections[*c].nodes.is_empty() | !doc.sections[*c].children.is_empty()
            })
            .collect();
        if alerts.len() >= 2 {
            out.extend(alerts);
        }
    }
    out
}

/// `PodCrashLooping`, `ceph-osd-down`.
fn is_alert_name(title: &str) -> bool {
    if title.contains(' ') || title.len() < 6 {
        return false;
    }
    let humps = title.as_bytes().windows(2).filter(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase()).count();
    let camel = humps >= 1
        && title.starts_with(|c: char| c.is_ascii_uppercase())
        && title.bytes().all(|b| b.is_ascii_alphanumeric());
    let kebab = title.matches('-').count() >= 1
        && title.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    camel || kebab
}

/// R6: three or more siblings (two below H1) that repeat the same sub-headings or labels.
fn alike(doc: &Doc) -> Vec<usize> {
    let mut out = Vec::new();
    for parent in 0..doc.sections.len() {
        let children: Vec<usize> =
            doc.children(parent).into_iter().filter(|c| !excluded(doc, *c) && !is_step_heading(doc, *c)).collect();
        let least = if parent == 0 || doc.sections[parent].level <= 1 { 2 } else { 3 };
        if children.len() < least {
            continue;
        }
        let labels: Vec<Vec<String>> = children.iter().map(|c| parts(doc, *c)).collect();
        let mut counts = BTreeMap::<&str, usize>::new();
        for list in &labels {
            for label in list {
                *counts.entry(label).or_default() += 1;
            }
        }
        let shared = |list: &[String], telling: bool| {
            list.iter()
                .filter(|l| {
                    counts.get(l.as_str()).is_some_and(|n| *n >= least) && (!telling || is_info(l) || is_phase_title(l))
                })
                .count()
        };
        let fits: Vec<usize> = children
            .iter()
            .zip(&labels)
            .filter(|(c, list)| (shared(list, true) >= 2 || shared(list, false) >= 3) && owns_steps(doc, **c))
            .map(|(c, _)| *c)
            .collect();
        if fits.len() >= least {
            out.extend(fits);
        }
    }
    out
}

/// The sub-headings and labels of a section, normalised, each once.
fn parts(doc: &Doc, section: usize) -> Vec<String> {
    let mut out: Vec<String> = doc.children(section).into_iter().map(|c| doc.sections[c].title.norm.clone()).collect();
    for node in &doc.sections[section].nodes {
        match &node.kind {
            Kind::Paragraph(inline) => {
                if let Some(label) = outline::label(inline, node.line) {
                    out.push(label.title.norm);
                } else if let Some((lead, rest)) = inline.bold_lead()
                    && (lead.ends_with(':') || rest.starts_with(':'))
                {
                    out.push(words::norm(lead));
                }
            }
            Kind::List(_, entries) => {
                for entry in entries {
                    if let Some((lead, rest)) = first_words(entry).and_then(super::inline::Inline::bold_lead)
                        && (lead.ends_with(':') || rest.starts_with(':'))
                    {
                        out.push(words::norm(lead));
                    }
                }
            }
            _ => {}
        }
    }
    out.retain(|l| !l.is_empty());
    out.sort();
    out.dedup();
    out
}

/// "Verify a restore", "Test the failover": a check, not a recovery.
fn begins_by_looking(norm: &str) -> bool {
    let first = norm.split(' ').next().unwrap_or_default();
    matches!(first, "verify" | "verifying" | "test" | "testing" | "check" | "checking" | "validate" | "validating")
}

/// R7: a heading about recovering, or about something failing, that directly owns steps.
fn recoveries(doc: &Doc) -> Vec<usize> {
    (1..doc.sections.len())
        .filter(|i| {
            let s = &doc.sections[*i];
            s.level > 1
                && !excluded(doc, *i)
                && !doc.ancestors(*i).any(|a| is_step_heading(doc, a))
                && !begins_by_looking(&s.title.norm)
                && !is_parent(doc, *i)
                && !is_step_heading(doc, *i)
                && !is_alternative(doc, *i)
        })
        .filter(|i| {
            words::any(&doc.sections[*i].title.norm, words::RECOVERING)
                || words::any(&doc.sections[*i].title.norm, words::FAILURES)
        })
        .filter(|i| directly_owns(doc, *i))
        .flat_map(|i| procedures_within(doc, i))
        .collect()
}

/// "4. Full recovery" over "4.1 Cluster gone" and "4.2 Site gone": a heading that holds nothing itself stands for what is
/// below it, unless that are phases, steps or ways of doing one thing.
fn procedures_within(doc: &Doc, section: usize) -> Vec<usize> {
    let children = doc.children(section);
    let acting: Vec<usize> = children.into_iter().filter(|c| owns_steps(doc, *c)).collect();
    let own = |c: &usize| {
        let norm = &doc.sections[*c].title.norm;
        let named = words::any(norm, words::FAILURES) || words::any(norm, words::RECOVERING);
        named && !excluded(doc, *c) && !is_step_heading(doc, *c) && !is_alternative(doc, *c)
    };
    let all = !acting.is_empty() && acting.iter().all(own);
    if all && !has_steps(doc, &doc.sections[section].nodes) { acting } else { vec![section] }
}

/// R7 for "Rollback procedure" at the top of a document of scenarios: a procedure, unless other phases stand beside it.
fn lone_recovery_procedures(doc: &Doc) -> Vec<usize> {
    let top = doc.sole_h1().map_or_else(|| doc.children(0), |h| doc.children(h));
    let phases: Vec<usize> =
        top.iter().copied().filter(|c| matches!(doc.roles[*c].kind, Role::Phase | Role::Info)).collect();
    let fits = |c: &usize| {
        let title = &doc.sections[*c].title;
        words::any(&title.norm, words::RECOVERING)
            && title.ordinal.is_none()
            && !words::any(&title.norm, &["verif", "validat", "vérif", "prüf", "провер", "验证", "检查"])
            && !is_parent(doc, *c)
            && directly_owns(doc, *c)
            && !doc.subtree(*c).any(|i| doc.sections[i].title.scenario)
    };
    phases.iter().copied().filter(|c| phases.len() == 1 && fits(c)).collect()
}

/// R8: three or more `N. Title` sections at the top with steps whose titles are not process words.
fn numbered_sections(doc: &Doc) -> Vec<usize> {
    let top = doc.sole_h1().map_or_else(|| doc.children(0), |h| doc.children(h));
    let fits: Vec<usize> = top
        .into_iter()
        .filter(|i| {
            doc.sections[*i].title.ordinal.is_some()
                && !excluded(doc, *i)
                && !is_process(&doc.sections[*i].title.norm)
                && !is_step_heading(doc, *i)
                && !is_parent(doc, *i)
                && directly_owns(doc, *i)
        })
        .collect();
    // Numbered nouns are scenarios only when they say what fails or what is recovered: a setup guide is numbered too.
    let telling = fits
        .iter()
        .filter(|i| {
            let norm = &doc.sections[**i].title.norm;
            words::any(norm, words::FAILURES) || words::any(norm, words::RECOVERING)
        })
        .count();
    if fits.len() >= 3 && telling * 2 >= fits.len() { fits } else { Vec::new() }
}

/// The file says that it is one runbook: "Runbook: x" as sole title over phases, or a skeleton of phases at the top.
fn is_one_runbook(doc: &Doc) -> bool {
    let Some(h1) = doc.sole_h1() else { return false };
    let top: Vec<usize> = doc.children(h1).into_iter().filter(|c| !doc.roles[*c].barred).collect();
    let phase = |c: &usize| matches!(doc.roles[*c].kind, Role::Phase | Role::Info) || is_step_heading(doc, *c);
    let phases = top.iter().filter(|c| phase(c)).count();
    let acting = top
        .iter()
        .filter(|c| {
            (doc.roles[**c].kind == Role::Phase || is_step_heading(doc, **c))
                && owns_steps(doc, **c)
                && !is_parent(doc, **c)
        })
        .count();
    let title = &doc.sections[h1].title;
    let marked = title.runbook || words::any(&title.norm, &["runbook$", "playbook$"]);
    // "Runbook: x" with one section called "Steps": what else acts is for when they fail.
    let steps = doc.children(h1).into_iter().any(|c| {
        matches!(
            doc.sections[c].title.norm.as_str(),
            "steps" | "procedure" | "instructions" | "passos" | "pasos" | "schritte" | "étapes"
        ) && owns_steps(doc, c)
    });
    if title.runbook && steps {
        return true;
    }
    acting >= 1 && (phases >= 3 && phases * 2 >= top.len() || marked && phases >= 2 && phases * 3 >= top.len())
}

/// R9: the whole file, when it holds any step at all.
fn whole_file(doc: &Doc) -> Option<Candidate> {
    let section = doc.sole_h1().unwrap_or(0);
    // A report tells what was done: nothing in it is to be done again.
    let title = &doc.sections[section].title.norm;
    let ends = [title.split(' ').next(), title.rsplit(' ').next()];
    let report = ends
        .into_iter()
        .flatten()
        .any(|w| matches!(w, "report" | "record" | "rapport" | "postmortem" | "evidence" | "relatório" | "informe"));
    if report || title.contains("post mortem") || title.contains(" evidence ") {
        return None;
    }
    let range = if section == 0 { 0..doc.sections.len() } else { doc.subtree(section) };
    let acts = range.into_iter().any(|i| !doc.roles[i].barred && has_steps(doc, &doc.sections[i].nodes));
    acts.then_some(Candidate { section, rule: "R9", confidence: 70 })
}

/// Of nested candidates the outermost stays, unless it only groups several that are surer.
fn outermost(doc: &Doc, all: Vec<Candidate>) -> Vec<Candidate> {
    let mut keep: Vec<Candidate> = Vec::new();
    let mut dropped_until = 0;
    for (i, candidate) in all.iter().enumerate() {
        if candidate.section < dropped_until {
            continue;
        }
        let end = doc.subtree(candidate.section).end;
        let below: Vec<&Candidate> = all[i + 1..].iter().take_while(|c| c.section < end).collect();
        let surer = below.iter().filter(|c| c.confidence > candidate.confidence).count();
        let groups = below.len() >= 2
            && !has_steps(doc, &doc.sections[candidate.section].nodes)
            && (surer >= 1 || below.iter().all(|c| c.rule == candidate.rule));
        if surer >= 1 && !has_steps(doc, &doc.sections[candidate.section].nodes) || groups {
            continue;
        }
        keep.push(candidate.clone());
        dropped_until = end;
    }
    keep
}

/// Whether a section, or anything below it that is not descriptive, holds steps.
pub fn owns_steps(doc: &Doc, section: usize) -> bool {
    doc.subtree(section).any(|i| {
        (i == section || !matches!(doc.roles[i].kind, Role::Info | Role::Descriptive | Role::Contacts | Role::Contents))
            && has_steps(doc, &doc.sections[i].nodes)
    })
}

/// Whether a section itself, or a phase, step heading or alternative directly below it, holds steps.
fn directly_owns(doc: &Doc, section: usize) -> bool {
    has_steps(doc, &doc.sections[section].nodes)
        || doc.children(section).into_iter().any(|c| {
            (doc.roles[c].kind == Role::Phase
                || words::any(&doc.sections[c].title.norm, words::ACTING)
                || is_step_heading(doc, c)
                || is_alternative(doc, c)
                || doc.sections[c].title.ordinal.is_some())
                && owns_steps(doc, c)
        })
}

/// Ordered lists, boxes, commands, or bullets that are instructions.
pub fn has_steps(doc: &Doc, nodes: &[Node]) -> bool {
    let mut informing = false;
    nodes.iter().any(|node| match &node.kind {
        Kind::Paragraph(inline) => {
            if let Some(label) = outline::label(inline, node.line) {
                informing = is_info(&label.title.norm);
            }
            false
        }
        Kind::List(Some(_), entries) => {
            !informing && !entries.iter().all(|e| first_words(e).is_some_and(super::inline::Inline::only_links))
        }
        Kind::List(None, entries) => {
            let boxes = entries.iter().any(|e| e.checked.is_some());
            let acting = entries.iter().filter(|e| first_words(e).is_some_and(|i| is_imperative(&i.text))).count();
            !informing && (boxes || acting * 2 > entries.len())
        }
        Kind::Fence(i) => doc.blocks.get(*i).map_or_else(|| doc.fences.get(*i).is_some(), super::blocks::acts),
        _ => false,
    })
}
