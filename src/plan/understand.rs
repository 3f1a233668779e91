//! The whole reading of one document: from bytes to a Plan.

use std::collections::HashMap;

use crate::error::Result;
use crate::model::plan::{BlockRole, Notice, Objective, Plan, Scenario};

use super::doc::{self, Doc};
use super::objective::{self, Found};
use super::scenario::{self, Candidate};
use super::severity::{self, Scale};
use super::title::Title;
use super::{extras, freeze, steps, text, words};

/// Reads a document. `file` is its name as it is shown and kept.
///
/// # Errors
/// A usage error when the document is empty, too large, or not text. Everything else opens, with notices.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Plan> {
    let doc = Doc::new(file, freeze::digest(bytes), text::read(file, bytes)?);
    Ok(understand(doc))
}

fn understand(mut doc: Doc) -> Plan {
    let scale = Scale::of(&doc);
    let candidates = scenario::find(&doc);
    let mut used = vec![false; doc.sections.len()];
    let mut found = objective::all(&doc);
    let mut scenarios: Vec<Scenario> =
        candidates.iter().map(|c| read_scenario(&doc, &scale, c, candidates.len(), &mut found, &mut used)).collect();
    for scenario in &mut scenarios {
        from_tables(scenario, &found);
    }
    let whole = candidates.first().is_some_and(|c| c.rule == "R9") && scenarios.len() == 1;
    let mut plan_level: Vec<Objective> = found.into_iter().map(|f| f.objective).collect();
    if plan_level.iter().all(|o| o.seconds.is_none()) {
        plan_level.extend(front_objectives(&doc));
    }
    let objectives = objective::headline(plan_level);
    if whole && let Some(only) = scenarios.first_mut() {
        // An objective of a plan that is one runbook is the runbook's too.
        only.rto_s = only.rto_s.or(objectives.rto_s);
        only.rpo_s = only.rpo_s.or(objectives.rpo_s);
        if only.objectives.is_empty() {
            only.objectives.clone_from(&objectives.all);
        }
    }
    slugs(&mut scenarios, &doc.file, &mut doc.notices);
    let mut plan = Plan {
        title: title(&doc),
        file: doc.file.clone(),
        digest: Some(doc.digest.clone()),
        objectives,
        ..Plan::default()
    };
    for section in &doc.sections {
        doc::links_in(&section.nodes, &mut plan.links);
    }
    plan.scenarios = scenarios;
    extras::fill(&doc, &scale, &used, &mut plan);
    let mut notices = std::mem::take(&mut doc.notices);
    notice_gaps(&doc, &plan, &mut notices);
    plan.blocks = doc.blocks;
    plan.notices = notices;
    plan.notices.sort_by_key(|n| n.line);
    plan
}

/// The sole H1, else the front matter's title, else the file name.
fn title(doc: &Doc) -> String {
    let worded = |i: &usize| doc.sections[*i].level == 1 && doc.sections[*i].raw.chars().any(char::is_alphanumeric);
    let h1 = doc.sole_h1().or_else(|| (1..doc.sections.len()).find(worded));
    let heading = h1.map(|i| strip_title(&doc.sections[i].raw)).filter(|t| !t.is_empty());
    heading
        .or_else(|| doc.text.front.get("title").cloned().filter(|t| !t.is_empty()))
        .unwrap_or_else(|| file_title(&doc.file))
}

/// A document's title keeps its words; only symbols around it go.
fn strip_title(raw: &str) -> String {
    let keep =
        |c: char| c.is_alphanumeric() || (c.is_ascii() && !"#*_".contains(c) && c != ' ') || "“«¿¡（【".contains(c);
    raw.trim_start_matches(|c| !keep(c)).trim().to_string()
}

/// `docs/db-failover.md` → "db failover".
pub fn file_title(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = name.split('.').next().filter(|s| !s.is_empty()).unwrap_or(name);
    stem.replace(['-', '_'], " ")
}

fn read_scenario(
    doc: &Doc,
    scale: &Scale,
    candidate: &Candidate,
    count: usize,
    found: &mut Vec<Found>,
    used: &mut [bool],
) -> Scenario {
    let index = candidate.section;
    let whole = candidate.rule == "R9";
    let here = &doc.sections[index];
    let collected = steps::collect(doc, index, whole);
    for section in &collected.used {
        used[*section] = true;
    }
    let range = if index == 0 { 0..doc.sections.len() } else { doc.subtree(index) };
    let title = if index == 0 || here.title.clean.is_empty() { title_of_file(doc) } else { here.title.clean.clone() };
    // Objectives inside a scenario are the scenario's; those of a file that is one runbook stay the plan's too.
    let mut objectives: Vec<Objective> = Vec::new();
    if !whole || count > 1 {
        let (mine, rest): (Vec<Found>, Vec<Found>) =
            std::mem::take(found).into_iter().partition(|f| range.contains(&f.section));
        *found = rest;
        objectives = mine.into_iter().map(|f| f.objective).collect();
    }
    objectives.extend(noted_objectives(doc, index));
    let first =
        |metric: &str| objectives.iter().find(|o| o.metric == metric && o.seconds.is_some()).and_then(|o| o.seconds);
    let parent = doc.sections[index].parent.filter(|p| doc.sections[*p].level > 1);
    Scenario {
        slug: String::new(),
        group: parent.map(|p| doc.sections[p].title.clean.clone()),
        line: here.line,
        severity: severity::of_section(doc, scale, index),
        rto_s: first("rto"),
        rpo_s: first("rpo"),
        intro: collected.intro.join("\n\n"),
        estimate_s: here.title.estimate_s.or_else(|| estimate(doc, index)),
        objectives,
        steps: collected.steps,
        after: collected.after,
        symptoms: collected.symptoms,
        prerequisites: collected.prerequisites,
        source: doc.source(here.line, here.line_end.max(here.line), candidate.rule),
        title,
    }
}

fn title_of_file(doc: &Doc) -> String {
    Title::parse(&title(doc)).clean
}

/// `<!-- runbook: scenario rto=4h rpo=15m -->`.
fn noted_objectives(doc: &Doc, section: usize) -> Vec<Objective> {
    let mut out = Vec::new();
    for note in &doc.sections[section].notes {
        for metric in ["rto", "rpo"] {
            if let Some(raw) = note.attrs.get(metric) {
                out.push(stated(doc, metric, raw, note.line, "M3 annotation"));
            }
        }
    }
    out
}

/// `rto: 4h` in the front matter: the document's default.
fn front_objectives(doc: &Doc) -> Vec<Objective> {
    ["rto", "rpo"]
        .into_iter()
        .filter_map(|m| doc.text.front.get(m).map(|raw| stated(doc, m, raw, 1, "M3 front matter")))
        .collect()
}

fn stated(doc: &Doc, metric: &str, raw: &str, line: u32, rule: &str) -> Objective {
    let span = super::span::at_start(raw, metric == "rpo").map(|(s, _)| s);
    Objective {
        metric: metric.into(),
        scope: None,
        comparison: span.as_ref().map_or("=", |s| s.op).into(),
        seconds: span.map(|s| s.seconds),
        raw: raw.into(),
        source: doc.source(line, line, rule),
    }
}

/// "Estimated recovery time: 2-3 hours" (M4): an estimate, never an objective.
fn estimate(doc: &Doc, section: usize) -> Option<u64> {
    use super::tree::Kind;
    let lines = doc.sections[section].nodes.iter().filter_map(|n| match &n.kind {
        Kind::Paragraph(i) => Some(super::outline::lines(i, n.line)),
        Kind::List(_, entries) => {
            Some(entries.iter().filter_map(|e| doc::first_words(e).map(|i| (i.flat(), e.line))).collect())
        }
        _ => None,
    });
    lines.flatten().find_map(|(text, _)| {
        let (label, value) = super::outline::metadata(&text)?;
        (words::any(&label, &["estimated", "time estimate", "duration"]) && !label.contains("downtime"))
            .then(|| super::span::first(&value).map(|s| s.seconds))?
    })
}

/// A table of objectives by scenario: the row whose first cell names it.
fn from_tables(scenario: &mut Scenario, found: &[Found]) {
    let name = words::norm(&scenario.title);
    for f in found {
        let Some(row) = &f.row else { continue };
        let row = Title::parse(row).norm;
        let same = !row.is_empty()
            && (row == name || (row.split(' ').count() >= 2 && (name.contains(&row) || row.contains(&name))));
        if !same {
            continue;
        }
        let slot = match f.objective.metric.as_str() {
            "rto" => &mut scenario.rto_s,
            "rpo" => &mut scenario.rpo_s,
            _ => continue,
        };
        if slot.is_none() {
            *slot = f.objective.seconds;
            scenario.objectives.push(f.objective.clone());
        }
    }
}

/// Slugs, unique within the document; two scenarios of one name are told apart by a number, with a notice.
fn slugs(scenarios: &mut [Scenario], file: &str, notices: &mut Vec<Notice>) {
    let mut seen: HashMap<String, (u32, usize)> = HashMap::new();
    for scenario in scenarios {
        let base = slug(&scenario.title);
        let base = if base.is_empty() { slug(&file_title(file)) } else { base };
        let entry = seen.entry(base.clone()).or_insert((scenario.line, 0));
        entry.1 += 1;
        if entry.1 > 1 {
            notices.push(Notice {
                line: scenario.line,
                text: format!(
                    "two scenarios are called {:?} (the other is at line {}): this one is {base}-{}",
                    scenario.title, entry.0, entry.1
                ),
            });
            scenario.slug = format!("{base}-{}", entry.1);
        } else {
            scenario.slug = base;
        }
    }
}

/// `Database Corruption/Loss` → `database-corruption-loss`. At most 60 characters.
pub fn slug(title: &str) -> String {
    let mut out = String::new();
    for word in words::norm(title).split(' ').filter(|w| !w.is_empty()) {
        if out.len() + word.len() > 60 {
            break;
        }
        if !out.is_empty() {
            out.push('-');
        }
        out.push_str(word);
    }
    out
}

/// L6: what is missing or odd about the plan as a whole.
fn notice_gaps(doc: &Doc, plan: &Plan, notices: &mut Vec<Notice>) {
    let mut say = |line: u32, text: String| notices.push(Notice { line, text });
    let structured =
        doc.sections.len() > 1 || !doc.fences.is_empty() || plan.scenarios.iter().any(|s| !s.steps.is_empty());
    if !structured {
        say(0, "no heading, list or fence found: this may not be Markdown".into());
    } else if plan.scenarios.is_empty() {
        say(0, "no scenario found: the document is kept and can be read".into());
    }
    for scenario in &plan.scenarios {
        if scenario.steps.is_empty() {
            say(scenario.line, format!("scenario {:?} has no steps yet", scenario.title));
        }
    }
    let blank = plan.contacts.iter().filter(|c| c.unfilled).count();
    if let Some(first) = plan.contacts.iter().find(|c| c.unfilled) {
        say(first.line, format!("{blank} contacts are still to be filled in"));
    }
    for block in &doc.blocks {
        if block.role == BlockRole::Comment {
            say(block.line, "this block holds only comments: there is nothing to run".into());
        }
        if block.role == BlockRole::Run && matches!(block.lang.as_str(), "sql" | "postgresql") {
            say(block.line, format!("this block is tagged {:?} but holds shell commands", block.lang));
        }
    }
}
