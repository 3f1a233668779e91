//! What a responder may want beside the steps: contacts, escalation, matrix, templates, checklists, procedures, drills,
//! retention (L1 to L5). Whatever belongs to no scenario is kept here, so that nothing an author wrote is lost.

use crate::model::plan::{BlockRole, Contact, Escalation, Extra, Item, MatrixRow, Plan};

use super::doc::{Doc, first_words, is_phase_title, list_items};
use super::inline::Inline;
use super::make::{entry_rest, entry_title};
use super::roles::Kind as Role;
use super::severity::Scale;
use super::span;
use super::title::severity_token;
use super::tree::{Kind, Node};
use super::words;

/// Fills contacts, escalation, matrix and extras of a plan. `used` are the sections that scenarios took.
pub fn fill(doc: &Doc, scale: &Scale, used: &[bool], plan: &mut Plan) {
    for index in 0..doc.sections.len() {
        let people = std::iter::once(index).chain(doc.ancestors(index)).any(|s| doc.roles[s].kind == Role::Contacts);
        for node in &doc.sections[index].nodes {
            contacts(doc, index, node, people, plan);
            matrix(doc, scale, index, node, plan);
        }
        templates(doc, index, plan);
        if !used.get(index).copied().unwrap_or(false) {
            keep(doc, index, plan);
        }
    }
    plan.escalation.sort_by_key(|e| e.level);
}

/// Whether a value is still a blank: `[Name]`, TBD, `+1-XXX-XXX-XXXX`.
pub fn is_unfilled(text: &str) -> bool {
    let norm = words::norm(text);
    !super::placeholders::in_message(text).is_empty()
        || words::any(&norm, &["tbd$", "todo$", "xxx", "to be determined", "to be defined"])
        || norm.split(' ').any(|w| w.len() >= 3 && w.bytes().all(|b| b == b'x'))
        || norm.starts_with("your ")
}

fn add_contact(plan: &mut Plan, role: String, reach: Vec<String>, section: &str, line: u32, rule: &str) {
    let reach: Vec<String> = reach.into_iter().map(|r| r.trim().to_string()).filter(|r| !r.is_empty()).collect();
    if role.trim().is_empty() || plan.contacts.iter().any(|c| c.line == line && c.role == role) {
        return;
    }
    let unfilled = reach.iter().any(|r| is_unfilled(r));
    plan.contacts.push(Contact { role, reach, unfilled, section: section.to_string(), line, rule: rule.to_string() });
}

/// L1: tables with contact columns anywhere; bullets and numbered people under a contact heading.
fn contacts(doc: &Doc, index: usize, node: &Node, people: bool, plan: &mut Plan) {
    let section = doc.sections[index].title.clean.clone();
    match &node.kind {
        Kind::Table(head, rows) => {
            let names: Vec<String> = head.iter().map(|h| words::norm(&h.flat())).collect();
            let reach_column = names.iter().any(|n| {
                words::any(
                    n,
                    &[
                        "phone",
                        "email",
                        "mail",
                        "contact",
                        "pager",
                        "slack",
                        "telefon",
                        "teléfono",
                        "telefone",
                        "контакт",
                        "联系",
                    ],
                )
            });
            let matrix = names.first().is_some_and(|n| words::any(n, &["severity", "priority"]));
            if (reach_column && !matrix) || (people && names.len() >= 2 && !matrix) {
                for row in rows {
                    let cells: Vec<String> = row.cells.iter().map(Inline::flat).collect();
                    let Some((role, reach)) = cells.split_first() else { continue };
                    escalation_row(role, reach, row.line, plan);
                    add_contact(plan, role.clone(), reach.to_vec(), &section, row.line, "L1 table");
                }
            }
        }
        Kind::List(ordered, entries) if people => {
            for (i, entry) in entries.iter().enumerate() {
                let (role, rest) = (entry_title(entry), entry_rest(entry));
                let (role, rest) = match first_words(entry).map(|e| e.bold_lead().is_some()) {
                    Some(false) => role
                        .split_once(':')
                        .map_or((role.clone(), String::new()), |(r, v)| (r.trim().to_string(), v.trim().to_string())),
                    _ => (role, rest),
                };
                let mut nested = Vec::new();
                list_items(&entry.nodes, "L1", &mut nested);
                let mut reach = vec![rest.clone()];
                reach.extend(nested.iter().map(|n| n.title.clone()));
                reach.extend(entry_links(entry));
                let titled = words::any(
                    &doc.sections[index].title.norm,
                    &["escalation", "escalonamento", "eskalation", "эскалац", "升级"],
                );
                if !escalation_row(&role, &reach, entry.line, plan) && titled {
                    let level = u32::try_from(i + 1).unwrap_or(u32::MAX);
                    let who = if rest.is_empty() { role.clone() } else { format!("{role}: {rest}") };
                    plan.escalation.push(Escalation {
                        level,
                        who,
                        respond_s: span::first(&rest).map(|s| s.seconds),
                        line: entry.line,
                        rule: if ordered.is_some() { "L1 numbered" } else { "L1 bullet" }.into(),
                    });
                }
                add_contact(plan, role, reach, &section, entry.line, "L1 list");
            }
        }
        _ => {}
    }
}

fn entry_links(entry: &super::tree::Entry) -> Vec<String> {
    first_words(entry)
        .map(|i| i.links.iter().map(|(_, t)| t.trim_start_matches("mailto:").to_string()).collect())
        .unwrap_or_default()
}

/// `Level 1 | On-call engineer | 15 min response`.
fn escalation_row(role: &str, reach: &[String], line: u32, plan: &mut Plan) -> bool {
    let norm = words::norm(role);
    let number = ["level ", "l", "tier ", "nível ", "nivel ", "stufe ", "уровень "]
        .iter()
        .find_map(|p| norm.strip_prefix(p))
        .and_then(|r| r.split(' ').next())
        .and_then(|n| n.parse::<u32>().ok())
        .filter(|n| (1..=9).contains(n));
    let Some(level) = number else { return false };
    let joined = reach.iter().filter(|r| !r.trim().is_empty()).cloned().collect::<Vec<_>>().join(" · ");
    let who = reach.first().map(|r| r.split(['(', '（']).next().unwrap_or(r).trim().to_string()).unwrap_or_default();
    plan.escalation.push(Escalation {
        level,
        who,
        respond_s: span::first(&joined).map(|s| s.seconds),
        line,
        rule: "L1 level".into(),
    });
    true
}

/// L2: a table of severities, or bullets `**P0 (Critical)**: …` under a severity heading.
fn matrix(doc: &Doc, scale: &Scale, index: usize, node: &Node, plan: &mut Plan) {
    let in_matrix = std::iter::once(index).chain(doc.ancestors(index)).any(|s| doc.roles[s].kind == Role::Severity);
    let level = |raw: &str| scale.level(raw).map(|l| format!("P{l}"));
    match &node.kind {
        Kind::Table(head, rows) => {
            let names: Vec<String> = head.iter().map(|h| words::norm(&h.flat())).collect();
            let first = names.first().map(String::as_str).unwrap_or_default();
            if !words::any(
                first,
                &[
                    "severity",
                    "priority",
                    "level",
                    "sev$",
                    "class",
                    "severidade",
                    "severidad",
                    "schweregrad",
                    "серьезн",
                    "级别",
                ],
            ) || names.len() < 2
            {
                return;
            }
            let column = |stems: &[&str]| names.iter().skip(1).position(|n| words::any(n, stems)).map(|i| i + 1);
            let respond = column(&["response", "respond", "acknowledge", "resposta", "respuesta", "响应"]);
            let escalate = column(&["escalat", "escalon", "eskal"]);
            let communicate = column(&["communicat", "notif", "comunica", "update"]);
            let described =
                respond.is_some() || column(&["definition", "description", "example", "criteria", "impact"]).is_some();
            for row in rows.iter().filter(|_| described) {
                let cell =
                    |i: Option<usize>| i.and_then(|i| row.cells.get(i)).map(Inline::flat).filter(|t| !t.is_empty());
                let seconds = |text: Option<String>| {
                    text.and_then(|t| {
                        span::at_start(&t, false).map(|(s, _)| s.seconds).or_else(|| span::first(&t).map(|s| s.seconds))
                    })
                };
                let raw = row.cells.first().map(Inline::flat).unwrap_or_default();
                let Some(level) = level(&raw) else { continue };
                plan.matrix.push(MatrixRow {
                    level,
                    raw,
                    respond_s: seconds(cell(respond)),
                    escalate_s: seconds(cell(escalate)),
                    communicate: cell(communicate),
                    communicate_s: seconds(cell(communicate)),
                    line: row.line,
                    rule: "L2 table".into(),
                });
            }
        }
        Kind::List(_, entries) if in_matrix => {
            for entry in entries {
                let raw = entry_title(entry);
                let coded = severity_token(raw.trim_start_matches(|c: char| !c.is_ascii_alphanumeric())).is_some()
                    || ["critical", "high", "medium", "low"].iter().any(|w| words::norm(&raw).starts_with(w));
                if let Some(level) = level(&raw).filter(|_| coded) {
                    let respond_s = span::first(&entry_rest(entry)).map(|s| s.seconds);
                    plan.matrix.push(MatrixRow {
                        level,
                        raw,
                        respond_s,
                        line: entry.line,
                        rule: "L2 list".into(),
                        ..MatrixRow::default()
                    });
                }
            }
        }
        _ => {}
    }
}

/// L3: fences that are messages, titled by the nearest heading or label.
fn templates(doc: &Doc, index: usize, plan: &mut Plan) {
    let mut title = doc.sections[index].title.clean.clone();
    walk_templates(doc, &doc.sections[index].nodes, &mut title, plan);
}

fn walk_templates(doc: &Doc, nodes: &[Node], title: &mut String, plan: &mut Plan) {
    for node in nodes {
        match &node.kind {
            Kind::Paragraph(inline) => {
                if let Some(label) = super::outline::label(inline, node.line) {
                    *title = label.title.clean;
                }
            }
            Kind::List(_, entries) => {
                for entry in entries {
                    let mut own = entry_title(entry);
                    walk_templates(doc, &entry.nodes, &mut own, plan);
                }
            }
            Kind::Fence(i) => {
                if let Some(block) = doc.blocks.get(*i).filter(|b| b.role == BlockRole::Template) {
                    let source = doc.source(block.line, block.line_end, "L3");
                    plan.extras.push(Extra {
                        kind: "template".into(),
                        title: title.clone(),
                        text: block.code.clone(),
                        items: Vec::new(),
                        source,
                    });
                }
            }
            _ => {}
        }
    }
}

/// Keeps a section that no scenario took.
fn keep(doc: &Doc, index: usize, plan: &mut Plan) {
    let here = &doc.sections[index];
    let text: Vec<String> = here.nodes.iter().map(|n| doc.slice(n)).filter(|t| !t.trim().is_empty()).collect();
    if text.is_empty() {
        return;
    }
    let mut items: Vec<Item> = Vec::new();
    list_items(&here.nodes, "L4", &mut items);
    let boxes = here
        .nodes
        .iter()
        .any(|n| matches!(&n.kind, Kind::List(_, entries) if entries.iter().any(|e| e.checked.is_some())));
    let (kind, rule) = kind_of(doc, index, boxes);
    let source = doc.source(here.line, here.nodes.iter().map(|n| n.line_end).max().unwrap_or(here.line), rule);
    plan.extras.push(Extra {
        kind: kind.into(),
        title: here.title.clean.clone(),
        text: text.join("\n\n"),
        items,
        source,
    });
}

fn kind_of(doc: &Doc, index: usize, boxes: bool) -> (&'static str, &'static str) {
    let norm = doc.sections[index].title.norm.as_str();
    let chain: Vec<usize> = std::iter::once(index).chain(doc.ancestors(index)).collect();
    let has = |role: Role| chain.iter().any(|s| doc.roles[*s].kind == role);
    if boxes && !has(Role::Drill) {
        return ("checklist", "L4");
    }
    if words::any(norm, &["rotation", "rotate"]) {
        return ("rotation", "L5");
    }
    if words::any(norm, &["retention", "retenção", "retención"]) {
        return ("retention", "L5");
    }
    if words::any(norm, &["schedule", "frequency"]) && !has(Role::Drill) {
        return ("schedule", "L5");
    }
    if words::any(norm, &["channel"]) {
        return ("channels", "L1");
    }
    if has(Role::Drill) {
        return ("drill", "S7");
    }
    if has(Role::Contacts) {
        return (if words::any(norm, &["escalation"]) { "escalation" } else { "contacts" }, "S5");
    }
    if has(Role::Severity) {
        return ("matrix", "S4");
    }
    if has(Role::Objectives) {
        return ("objectives", "S3");
    }
    if has(Role::Templates) {
        return ("process", "S6");
    }
    if has(Role::Afterwards) {
        return ("checklist", "S8");
    }
    let acts = super::scenario::has_steps(doc, &doc.sections[index].nodes);
    if acts && has(Role::Descriptive) {
        return ("procedure", "S2");
    }
    if acts || is_phase_title(norm) {
        return ("process", "S9");
    }
    ("reference", "S2")
}
