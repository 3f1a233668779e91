//! RTO and RPO (M3 to M6): a label, a separator and a duration. A bare mention, a metric or a test result gives nothing.

use crate::model::plan::{Objective, Objectives};

use super::doc::{Doc, first_words};
use super::inline::Inline;
use super::outline;
use super::roles::Kind as Role;
use super::span;
use super::tree::{Kind, Node};
use super::words;

#[rustfmt::skip]
const LABELS: &[(&str, &str)] = &[
    ("rto", "rto"), ("recovery time objective", "rto"), ("objetivo de tempo de recuperação", "rto"),
    ("objetivo de tiempo de recuperación", "rto"), ("délai de reprise", "rto"), ("wiederanlaufzeit", "rto"),
    ("целевое время восстановления", "rto"), ("恢复时间目标", "rto"), ("rpo", "rpo"), ("recovery point objective", "rpo"),
    ("objetivo de ponto de recuperação", "rpo"), ("objetivo de punto de recuperación", "rpo"),
    ("целевая точка восстановления", "rpo"), ("恢复点目标", "rpo"), ("mtd", "mtd"),
    ("maximum tolerable downtime", "mtd"),
];

/// An objective found, and the section it stands in.
#[derive(Debug)]
pub struct Found {
    /// The objective.
    pub objective: Objective,
    /// Index of its section.
    pub section: usize,
    /// The row's first cell when it came from a table.
    pub row: Option<String>,
}

/// All objectives of a document, in order.
pub fn all(doc: &Doc) -> Vec<Found> {
    let mut out = Vec::new();
    for (index, section) in doc.sections.iter().enumerate() {
        if is_measured(doc, index) {
            continue;
        }
        let mut add = |found: Vec<Value>, line: u32, rule: &str, row: Option<String>| {
            for value in found {
                let source = doc.source(line, line, rule);
                let objective = Objective {
                    metric: value.metric.into(),
                    scope: value.scope,
                    comparison: value.op.into(),
                    seconds: value.seconds,
                    raw: value.raw,
                    source,
                };
                out.push(Found { objective, section: index, row: row.clone() });
            }
        };
        add(labelled(&section.raw), section.line, "M3 heading", None);
        let grouped = bare_label(&section.raw);
        walk(&section.nodes, grouped, &mut add);
    }
    out
}

/// The plan's objectives: the first stated value is the headline.
pub fn headline(all: Vec<Objective>) -> Objectives {
    let first = |metric: &str| all.iter().find(|o| o.metric == metric && o.seconds.is_some()).and_then(|o| o.seconds);
    Objectives { rto_s: first("rto"), rpo_s: first("rpo"), all }
}

/// M4: metrics, tests and drills state results, not objectives.
fn is_measured(doc: &Doc, section: usize) -> bool {
    std::iter::once(section).chain(doc.ancestors(section)).any(|s| {
        let title = &doc.sections[s].title.norm;
        doc.roles[s].kind == Role::Drill
            || words::any(title, &["metric", "kpi", "achievement", "history$", "results", "test result", "glossary"])
    })
}

type Add<'a> = dyn FnMut(Vec<Value>, u32, &str, Option<String>) + 'a;

fn walk(nodes: &[Node], grouped: Option<&'static str>, add: &mut Add<'_>) {
    let mut label = grouped;
    for node in nodes {
        match &node.kind {
            Kind::Paragraph(inline) => {
                let mut any = false;
                for (text, line) in outline::lines(inline, node.line) {
                    let found = labelled(&text);
                    any |= !found.is_empty();
                    add(found, line, "M3 label", None);
                }
                // `**RTO (Recovery Time Objective)**` over bullets works like a heading.
                label = if any { grouped } else { bare_label(&inline.flat()).or(grouped) };
            }
            Kind::List(_, entries) => {
                for entry in entries {
                    let Some(inline) = first_words(entry) else { continue };
                    let here = entry.line;
                    let mut any = false;
                    for (text, line) in outline::lines(inline, here) {
                        let found = labelled(&text);
                        any |= !found.is_empty();
                        add(found, line, "M3 list item", None);
                    }
                    let nested = bare_label(&inline.flat());
                    if let Some(metric) = label.filter(|_| !any) {
                        add(scoped(metric, inline), here, "M3 scoped item", None);
                    }
                    if let Some(rest) = entry.nodes.get(1..) {
                        walk(rest, nested, add);
                    }
                }
            }
            Kind::Table(head, rows) => {
                let head: Vec<String> = head.iter().map(Inline::flat).collect();
                for row in rows {
                    let cells: Vec<String> = row.cells.iter().map(Inline::flat).collect();
                    let first = cells.first().cloned().unwrap_or_default();
                    add(table_row(&head, &cells), row.line, "M3 table", Some(first));
                }
            }
            Kind::Quote(inner) => walk(inner, label, add),
            _ => {}
        }
    }
}

/// A value as stated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    metric: &'static str,
    scope: Option<String>,
    op: &'static str,
    seconds: Option<u64>,
    raw: String,
}

/// `RTO: 4 hours`, `**RTO (Recovery Time Objective):** < 4h (…)`, `RTO <= 300s`, `Database RTO: 15 min`, `RTO/RPO: 4h / 1h`.
pub fn labelled(text: &str) -> Vec<Value> {
    let text = text.trim().trim_start_matches(['*', '-', '_', ' ']);
    let Some((metric, second, scope, value)) = label_and_value(text) else { return Vec::new() };
    if let Some(second) = second {
        let mut parts = value.splitn(2, ['/', ',', ';', '|']);
        let mut out = values(metric, parts.next().unwrap_or_default(), scope.clone());
        out.extend(values(second, parts.next().unwrap_or_default(), scope));
        return out;
    }
    values(metric, value, scope)
}

/// The label's metric, a second metric ("RTO/RPO"), the scope before or in the label, and the text after the separator.
fn label_and_value(text: &str) -> Option<(&'static str, Option<&'static str>, Option<String>, &str)> {
    let lower = text.to_lowercase();
    if lower.len() != text.len() {
        return None; // positions would not match; no known label is affected
    }
    let (at, label, metric) = LABELS
        .iter()
        .filter_map(|(l, m)| word_at(&lower, l).map(|at| (at, *l, *m)))
        .min_by_key(|(at, l, _)| (*at, std::cmp::Reverse(l.len())))?;
    let before = words::norm(&text[..at]);
    if before.split(' ').count() > 5
        || words::any(
            &before,
            &[
                "actual", "achieved", "measured", "tested", "current$", "meet", "our$", "the$", "a$", "is$", "and$",
                "if$", "with$",
            ],
        )
    {
        return None;
    }
    if text[..at].contains([':', '.', ',', ';']) {
        return None;
    }
    let before = before.trim_start_matches("target ").trim_start_matches("target").trim();
    let mut rest = text[at + label.len()..].trim_start();
    let mut second = None;
    let mut scope = (!before.is_empty() && !words::any(before, &["target", "max", "objective", "estimated$"]))
        .then(|| text[..at].trim().to_string());
    if before.starts_with("estimated") {
        return None;
    }
    if let Some((tail, other)) = rest.strip_prefix(['/', '&']).map(str::trim_start).and_then(|r| {
        LABELS.iter().find(|(l, m)| *m != metric && r.to_lowercase().starts_with(l)).map(|(l, m)| (&r[l.len()..], *m))
    }) {
        second = Some(other);
        rest = tail.trim_start();
    }
    for word in ["target", "goal", "objective", "requirement", "s "] {
        if let Some(tail) = rest.to_lowercase().starts_with(word).then(|| &rest[word.len()..]) {
            rest = tail.trim_start();
        }
    }
    if let Some(tail) = rest.strip_prefix(['(', '（']) {
        let (inner, tail) = tail.split_once([')', '）'])?;
        let norm = words::norm(inner);
        if !LABELS.iter().any(|(l, _)| norm.contains(l))
            && !norm.is_empty()
            && !words::any(&norm, &["target", "objective"])
        {
            scope = scope.or_else(|| Some(inner.trim().to_string()));
        }
        rest = tail.trim_start();
    }
    let rest = rest.trim_start_matches(['*', '_']).trim_start();
    let separated = rest
        .strip_prefix([':', '：', '=', '|', '—', '–'])
        .or_else(|| rest.strip_prefix("->"))
        .or_else(|| rest.strip_prefix("- "));
    let compared = rest.starts_with(['<', '>', '≤', '≥', '~', '≈', '＜']).then_some(rest);
    let value = separated.or(compared)?;
    Some((metric, second, scope, value.trim_start_matches(['*', '_', ' '])))
}

/// Position of a label as a word of its own.
fn word_at(lower: &str, label: &str) -> Option<usize> {
    let at = lower.find(label)?;
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() || !label.is_ascii());
    (boundary(lower[..at].chars().next_back()) && boundary(lower[at + label.len()..].chars().next())).then_some(at)
}

/// M6: one value, or several split before a number or comparison; the words after the number are the scope.
fn values(metric: &'static str, text: &str, scope: Option<String>) -> Vec<Value> {
    let text = text.trim();
    let mut out = Vec::new();
    for part in split_values(text) {
        let part = part.trim().trim_matches(['*', '_']).trim();
        match span::at_start(part, metric == "rpo") {
            Some((span, rest)) => {
                let own = scope_after(rest);
                let raw = part[..part.len() - rest.len()].trim().to_string();
                out.push(Value {
                    metric,
                    scope: own.or_else(|| scope.clone()),
                    op: span.op,
                    seconds: Some(span.seconds),
                    raw,
                });
            }
            None if out.is_empty() => {
                // `Critical: 15 minutes, others: 1 hour`
                if let Some((name, value)) = part.split_once([':', '：'])
                    && let Some((span, rest)) = span::at_start(value, metric == "rpo")
                    && name.chars().count() <= 40
                {
                    let raw = value[..value.len() - rest.len()].trim().to_string();
                    out.push(Value {
                        metric,
                        scope: Some(name.trim().to_string()),
                        op: span.op,
                        seconds: Some(span.seconds),
                        raw,
                    });
                } else if !part.is_empty() && part.chars().count() <= 60 {
                    out.push(Value { metric, scope: scope.clone(), op: "=", seconds: None, raw: part.to_string() });
                }
            }
            None => {}
        }
    }
    out
}

fn split_values(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut depth = 0usize;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '（' => depth += 1,
            ')' | '）' => depth = depth.saturating_sub(1),
            ',' | ';' | '/' | '，' | '；' if depth == 0 => {
                let tail = text[i + c.len_utf8()..].trim_start();
                let numbered = tail.starts_with(|c: char| c.is_ascii_digit() || "<>≤≥~≈".contains(c));
                if numbered && !text[..i].ends_with(|c: char| c.is_ascii_digit()) {
                    out.push(&text[start..i]);
                    start = i + c.len_utf8();
                }
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

/// "for primary region" → "primary region"; remarks in brackets are not a scope.
fn scope_after(rest: &str) -> Option<String> {
    let rest = rest.trim();
    let lower = rest.to_lowercase();
    let named = ["for ", "in ", "on ", "para ", "für ", "для "].iter().find(|p| lower.starts_with(*p))?;
    let words = rest.get(named.len()..)?;
    let end = words.find(['(', ',', ';', '.', '|']).unwrap_or(words.len());
    let scope = words[..end].trim().trim_end_matches(" and").trim();
    (!scope.is_empty() && scope.chars().count() <= 60).then(|| scope.to_string())
}

/// A title or label that is only RTO or RPO, without a value.
fn bare_label(text: &str) -> Option<&'static str> {
    if !labelled(text).is_empty() {
        return None;
    }
    let norm = words::norm(text);
    let (_, metric) = LABELS
        .iter()
        .find(|(l, _)| norm == *l || norm.starts_with(&format!("{l} ")) || norm.ends_with(&format!(" {l}")))?;
    let both = LABELS.iter().any(|(l, m)| m != metric && norm.contains(l));
    (!both && norm.split(' ').count() <= 7).then_some(*metric)
}

/// `**Critical Systems**: 15 minutes` below a heading that names the metric.
fn scoped(metric: &'static str, inline: &Inline) -> Vec<Value> {
    let text = inline.flat();
    if let Some((head, value)) = text.split_once([':', '：', '—', '–'])
        && let Some((span, rest)) = span::at_start(value, metric == "rpo")
    {
        let raw = value[..value.len() - rest.len()].trim().trim_start_matches(['*', ' ']).to_string();
        return vec![Value {
            metric,
            scope: Some(head.trim().trim_matches('*').to_string()),
            op: span.op,
            seconds: Some(span.seconds),
            raw,
        }];
    }
    if let Some((span, rest)) = span::at_start(&text, metric == "rpo") {
        let raw = text[..text.len() - rest.len()].trim().to_string();
        return vec![Value { metric, scope: scope_after(rest), op: span.op, seconds: Some(span.seconds), raw }];
    }
    Vec::new()
}

/// A row: RTO and RPO as column headers, or the metric in the first cell.
fn table_row(head: &[String], cells: &[String]) -> Vec<Value> {
    let mut out = Vec::new();
    let scope = cells.first().map(|c| c.trim().to_string()).filter(|c| !c.is_empty());
    for (title, cell) in head.iter().zip(cells).skip(1) {
        let norm = words::norm(title);
        let Some(metric) = column_metric(&norm) else { continue };
        if let Some((span, rest)) = span::at_start(cell, metric == "rpo") {
            let raw = cell[..cell.len() - rest.len()].trim().to_string();
            out.push(Value { metric, scope: scope.clone(), op: span.op, seconds: Some(span.seconds), raw });
        } else if !cell.trim().is_empty() {
            out.push(Value { metric, scope: scope.clone(), op: "=", seconds: None, raw: cell.trim().to_string() });
        }
    }
    if !out.is_empty() {
        return out;
    }
    let first = cells.first().map(String::as_str).unwrap_or_default();
    let Some(metric) = bare_label(first) else { return out };
    let value = head
        .iter()
        .zip(cells)
        .skip(1)
        .filter(|(h, _)| {
            !words::any(&words::norm(h), &["actual", "achieved", "tested", "measured", "current$", "last$"])
        })
        .find_map(|(_, c)| {
            span::at_start(c, metric == "rpo").map(|(s, rest)| (s, c[..c.len() - rest.len()].trim().to_string()))
        });
    if let Some((span, raw)) = value {
        out.push(Value { metric, scope: None, op: span.op, seconds: Some(span.seconds), raw });
    }
    out
}

fn column_metric(norm: &str) -> Option<&'static str> {
    if words::any(norm, &["actual", "achieved", "tested", "measured", "last$"]) {
        return None;
    }
    LABELS
        .iter()
        .find(|(l, _)| norm == *l || norm.split(' ').any(|w| w == *l) || norm.contains(l) && l.contains(' '))
        .map(|(_, m)| *m)
}
