//! What a plan says beside its steps, as pages: the scenario's own words, objectives, matrix, contacts, templates,
//! checklists and everything else that was kept; and where a link leads.

use std::sync::Arc;

use super::data::{Home, ScenarioRow};
use crate::model::plan::{Item, Link, Objective, Plan, Scenario};
use crate::plan::placeholders;
use crate::plan::show::short_span;

/// What sort of page it is; pages come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What the author says of the scenario before its first step, and what comes after.
    Scenario,
    /// Objectives with their scopes.
    Objectives,
    /// What each severity asks for.
    Matrix,
    /// Who to reach, and who is next.
    Contacts,
    /// A message to send.
    Template,
    /// Boxes to tick.
    Checklist,
    /// Anything else that was kept.
    Kept,
    /// A link.
    Link,
}

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// What sort.
    pub kind: Kind,
    /// Its name in the list.
    pub title: String,
    /// Its text, blanks not filled in.
    pub text: String,
    /// Blanks of a message.
    pub blanks: Vec<String>,
    /// Where it leads.
    pub link: Option<Link>,
    /// Line of the document.
    pub line: u32,
}

/// All pages of a plan, those of the scenario first.
pub fn pages(plan: &Plan, scenario: Option<&Scenario>) -> Vec<Page> {
    let mut out = Vec::new();
    let mut add = |kind: Kind, title: &str, text: String, line: u32| {
        if !text.trim().is_empty() {
            out.push(Page { kind, title: title.into(), text, blanks: vec![], link: None, line });
        }
    };
    if let Some(s) = scenario {
        add(Kind::Scenario, "this scenario", about(s), s.line);
    }
    let mut stated: Vec<String> = scenario.iter().flat_map(|s| &s.objectives).map(|o| objective(o, "here")).collect();
    stated.extend(plan.objectives.all.iter().map(|o| objective(o, "plan")));
    add(Kind::Objectives, "objectives", stated.join("\n"), 0);
    let rows: Vec<String> = plan
        .matrix
        .iter()
        .map(|m| {
            let span = |name: &str, s: Option<u64>| s.map(|s| format!("{name} within {}", short_span(s)));
            let told = m.communicate.clone().filter(|c| !c.is_empty()).map(|c| format!("tell: {c}"));
            let parts = [span("respond", m.respond_s), span("escalate", m.escalate_s), told];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            let name = if m.raw.contains(&m.level) { m.raw.clone() } else { format!("{} {}", m.level, m.raw) };
            format!("- {name}: {}", if parts.is_empty() { "see the text".into() } else { parts.join(", ") })
        })
        .collect();
    // What a level means stands only in the author's own words: both on one page.
    let written: Vec<&str> = plan.extras.iter().filter(|e| e.kind == "matrix").map(|e| e.text.trim()).collect();
    let whole = [rows.join("\n"), written.join("\n\n")].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>();
    add(Kind::Matrix, "severity matrix", whole.join("\n\n"), plan.matrix.first().map_or(0, |m| m.line));
    let mut people: Vec<String> = plan
        .contacts
        .iter()
        .map(|c| {
            let blank = if c.unfilled { "  (still a blank in the plan)" } else { "" };
            format!("- {}: {}{blank}", c.role, c.reach.join(", "))
        })
        .collect();
    if !plan.escalation.is_empty() {
        people.push(String::new());
        people.extend(plan.escalation.iter().map(|e| {
            let within = e.respond_s.map(|s| format!(" within {}", short_span(s))).unwrap_or_default();
            format!("- level {}: {}{within}", e.level, e.who)
        }));
    }
    add(Kind::Contacts, "contacts, escalation", people.join("\n"), plan.contacts.first().map_or(0, |c| c.line));
    for extra in plan.extras.iter().filter(|e| e.kind != "matrix") {
        let kind = match extra.kind.as_str() {
            "template" => Kind::Template,
            "checklist" => Kind::Checklist,
            "contacts" | "escalation" | "channels" => Kind::Contacts,
            "objectives" => Kind::Objectives,
            _ => Kind::Kept,
        };
        let text = if extra.text.trim().is_empty() { boxes(&extra.items) } else { extra.text.clone() };
        let blanks = if kind == Kind::Template { placeholders::in_message(&text) } else { vec![] };
        let title = if extra.title.is_empty() { extra.kind.clone() } else { extra.title.clone() };
        if !text.trim().is_empty() {
            out.push(Page { kind, title, text, blanks, link: None, line: extra.source.line });
        }
    }
    for link in plan.links.iter().filter(|l| !l.target.is_empty()) {
        let title = if link.text.is_empty() { link.target.clone() } else { link.text.clone() };
        let text = format!("{title}\n{}\n\nEnter follows it.", link.target);
        out.push(Page { kind: Kind::Link, title, text, blanks: vec![], link: Some(link.clone()), line: link.line });
    }
    // A section that holds nothing but a message is that message's page already.
    let messages: Vec<String> = out.iter().filter(|p| p.kind == Kind::Template).map(|p| p.title.clone()).collect();
    out.retain(|p| p.kind != Kind::Kept || !messages.contains(&p.title) || !only_fence(&p.text));
    // Stable: within a kind the structured page stays before the author's own words.
    out.sort_by_key(|p| p.kind);
    out
}

fn only_fence(text: &str) -> bool {
    let t = text.trim();
    t.is_empty() || (t.starts_with("```") && t.ends_with("```") && t.matches("```").count() == 2)
}

/// The author's words around the steps.
fn about(s: &Scenario) -> String {
    let mut out = s.intro.trim().to_string();
    for (name, items) in
        [("Symptoms", &s.symptoms), ("Before the first step", &s.prerequisites), ("Afterwards", &s.after)]
    {
        if !items.is_empty() {
            out.push_str(&format!("\n\n{name}:\n{}", boxes(items)));
        }
    }
    out.trim().to_string()
}

fn boxes(items: &[Item]) -> String {
    items.iter().map(|i| format!("- {}", i.title)).collect::<Vec<_>>().join("\n")
}

fn objective(o: &Objective, of: &str) -> String {
    let scope =
        o.scope.clone().unwrap_or_else(|| if of == "here" { "this scenario".into() } else { "the whole plan".into() });
    let sign = if o.comparison == "=" { "" } else { o.comparison.as_str() };
    match o.seconds {
        Some(s) => format!("- {}  {sign}{}  {scope}  ({})", o.metric.to_uppercase(), short_span(s), o.raw),
        None => format!("- {}  {}  {scope}", o.metric.to_uppercase(), o.raw),
    }
}

/// Where a link leads.
#[derive(Debug, Clone)]
pub enum Place {
    /// A scenario of a plan.
    Scenario(Box<ScenarioRow>),
    /// A step of the scenario the link stands in, from 0.
    Step(usize),
    /// A plan, and the line of it that is meant.
    Plan(Arc<Plan>, Option<u32>),
    /// An address outside the plans.
    Address,
}

/// Finds what a link of `plan` means among the plans that are open.
///
/// # Errors
/// A sentence for the reader when it leads nowhere we know.
pub fn resolve(home: &Home, plan: &Arc<Plan>, scenario: Option<&Scenario>, target: &str) -> Result<Place, String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    if path.contains("://") || path.starts_with("mailto:") || path.starts_with("tel:") {
        return Ok(Place::Address);
    }
    let document = if path.is_empty() { plan.clone() } else { document(home, &plan.file, path)? };
    let anchor = anchor.to_lowercase();
    if anchor.is_empty() {
        return Ok(match document.scenarios.as_slice() {
            [only] => Place::Scenario(Box::new(row(home, &document, only))),
            _ => Place::Plan(document, None),
        });
    }
    let (word, id) = anchor.split_once('-').unwrap_or((&anchor, ""));
    if let Some(n) = ordinal(id) {
        if word == "step" && path.is_empty() && scenario.is_some_and(|s| n < s.steps.len()) {
            return Ok(Place::Step(n));
        }
        if word == "scenario"
            && let Some(s) = document.scenarios.get(n)
        {
            return Ok(Place::Scenario(Box::new(row(home, &document, s))));
        }
    }
    let same = |title: &str| {
        let slug = anchor_of(title);
        !slug.is_empty() && (anchor == slug || anchor.ends_with(&format!("-{slug}")))
    };
    if let Some(s) = document.scenarios.iter().find(|s| same(&s.title)) {
        return Ok(Place::Scenario(Box::new(row(home, &document, s))));
    }
    if let Some(extra) = document.extras.iter().find(|e| same(&e.title)) {
        let line = extra.source.line;
        return Ok(Place::Plan(document, Some(line)));
    }
    if path.is_empty() {
        Err(format!("there is no part {anchor:?} in {}", plan.file))
    } else {
        Ok(Place::Plan(document, None))
    }
}

/// `b` and `2` are the second one, from 0.
fn ordinal(id: &str) -> Option<usize> {
    match id.parse::<usize>() {
        Ok(n) => n.checked_sub(1),
        Err(_) => match id.as_bytes() {
            [c @ b'a'..=b'z'] => Some(usize::from(c - b'a')),
            _ => None,
        },
    }
}

/// The document at a path as written in another one.
fn document(home: &Home, from: &str, path: &str) -> Result<Arc<Plan>, String> {
    let folder = from.rsplit_once('/').map_or("", |(f, _)| f);
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    let wanted = parts.join("/");
    let name = parts.last().copied().unwrap_or_default();
    let exact = home.plans.iter().find(|p| p.file == wanted);
    // Files that were named one by one have no common folder: then the name alone must do, if there is only one.
    let mut named = home.plans.iter().filter(|p| p.file.rsplit('/').next() == Some(name));
    let only = match (named.next(), named.next()) {
        (Some(p), None) => Some(p),
        _ => None,
    };
    exact
        .or(only)
        .cloned()
        .ok_or_else(|| format!("{path} is not among the open plans; open it too: breakglass open {from} {path}"))
}

/// The scenario as home lists it, or as it stands in the plan when home does not have it.
fn row(home: &Home, plan: &Arc<Plan>, scenario: &Scenario) -> ScenarioRow {
    let known = home.scenarios.iter().find(|r| r.file == plan.file && r.scenario.slug == scenario.slug);
    known.cloned().unwrap_or_else(|| ScenarioRow {
        file: plan.file.clone(),
        scenario: Arc::new(scenario.clone()),
        plan: plan.clone(),
        last_drill: None,
        rehearsable: false,
        times: Arc::default(),
    })
}

/// A heading as an anchor, the way GitHub makes it.
fn anchor_of(heading: &str) -> String {
    let lower = heading.trim().to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
