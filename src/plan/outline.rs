//! Sections from headings (B1), labelled groups inside a section (B2), author's annotations (S0).

use std::collections::BTreeMap;

use super::inline::Inline;
use super::title::Title;
use super::tree::{Kind, Node};
use super::words;

/// A heading and what stands below it up to the next one.
#[derive(Debug, Default)]
pub struct Section {
    /// 1 to 6; 0 for what stands before the first heading.
    pub level: u8,
    /// The heading as written, without markup.
    pub raw: String,
    /// The heading taken apart.
    pub title: Title,
    /// Line of the heading.
    pub line: u32,
    /// Last line, including subsections.
    pub line_end: u32,
    /// Nearest shallower heading.
    pub parent: Option<usize>,
    /// Sections directly below.
    pub children: Vec<usize>,
    /// Blocks of its own.
    pub nodes: Vec<Node>,
    /// `<!-- runbook: … -->` directly below the heading.
    pub notes: Vec<Annotation>,
}

/// `<!-- runbook: scenario severity=critical rto=4h -->`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// First word: `scenario`, `steps`, `not-steps`, `phase`, `drill`, `ignore`, …
    pub verb: String,
    /// `key=value` pairs.
    pub attrs: BTreeMap<String, String>,
    /// Line.
    pub line: u32,
}

/// Splits the blocks at headings. The first section is what precedes the first heading.
pub fn sections(nodes: Vec<Node>) -> Vec<Section> {
    let mut out = vec![Section { line: 1, line_end: 1, ..Section::default() }];
    let mut open: Vec<usize> = Vec::new();
    for node in nodes {
        if let Kind::Heading(level, inline) = node.kind {
            while open.last().is_some_and(|i| out[*i].level >= level) {
                open.pop();
            }
            let raw = inline.flat();
            let index = out.len();
            let parent = open.last().copied();
            out.push(Section {
                level,
                title: Title::parse(&raw),
                raw,
                line: node.line,
                line_end: node.line_end,
                parent,
                ..Section::default()
            });
            if let Some(parent) = parent {
                out[parent].children.push(index);
            }
            open.push(index);
        } else {
            let last = out.len() - 1;
            out[last].line_end = out[last].line_end.max(node.line_end);
            if let Kind::Html(html) = &node.kind {
                out[last].notes.extend(annotation(html, node.line));
            }
            out[last].nodes.push(node);
        }
    }
    for i in (1..out.len()).rev() {
        if let Some(parent) = out[i].parent {
            out[parent].line_end = out[parent].line_end.max(out[i].line_end);
        }
    }
    out
}

/// Reads an author's comment; comments with another prefix are not ours.
pub fn annotation(html: &str, line: u32) -> Option<Annotation> {
    let body = html.trim().strip_prefix("<!--")?.trim_end().strip_suffix("-->")?.trim();
    let body = body.strip_prefix("runbook:").or_else(|| body.strip_prefix("breakglass:"))?.trim();
    let mut attrs = super::attributes::pairs(body).0;
    let verb = body.split_whitespace().next().unwrap_or_default().to_string();
    let verb = match verb.split_once('=') {
        Some((key, _)) => key.to_string(),
        None => {
            attrs.remove(&verb);
            verb
        }
    };
    Some(Annotation { verb, attrs, line })
}

/// Blocks of a section under one label.
#[derive(Debug)]
pub struct Group<'d> {
    /// The label, when there is one.
    pub label: Option<Label>,
    /// What stands below it.
    pub nodes: Vec<&'d Node>,
}

/// A pseudo-heading: a paragraph that is only `**Label**`, `**Label:**` or `Label:` (B2).
#[derive(Debug, Clone)]
pub struct Label {
    /// Taken apart as a heading is.
    pub title: Title,
    /// As written.
    pub raw: String,
    /// Line.
    pub line: u32,
}

/// The blocks of a section split at its labels.
pub fn groups(nodes: &[Node]) -> Vec<Group<'_>> {
    let mut out = vec![Group { label: None, nodes: Vec::new() }];
    for node in nodes {
        match &node.kind {
            Kind::Paragraph(inline) => match label(inline, node.line) {
                Some(label) => out.push(Group { label: Some(label), nodes: Vec::new() }),
                None => {
                    if let Some(group) = out.last_mut() {
                        group.nodes.push(node);
                    }
                }
            },
            _ => {
                if let Some(group) = out.last_mut() {
                    group.nodes.push(node);
                }
            }
        }
    }
    out
}

/// B2: the paragraph as a label, or none when it says more.
pub fn label(inline: &Inline, line: u32) -> Option<Label> {
    let text = inline.text.trim();
    if text.contains('\n') || text.is_empty() || text.chars().count() > 100 {
        return None;
    }
    let named = |words: &str| {
        let raw = words.trim().trim_end_matches([':', '：']).trim().to_string();
        let title = Title::parse(&raw);
        (!title.norm.is_empty()).then_some(Label { title, raw, line })
    };
    if let Some((lead, rest)) = inline.bold_lead() {
        let rest = rest.trim().trim_start_matches([':', '：']).trim();
        let note = rest.strip_suffix([':', '：']).unwrap_or(rest);
        let noted = note.starts_with('(') && note.ends_with(')');
        // `**RTO: 4 hours**` is data, not a label.
        if (rest.is_empty() || noted) && metadata(lead).is_none() && lead.chars().any(char::is_alphabetic) {
            return named(&format!("{lead} {note}"));
        }
        return None;
    }
    let plain = text.strip_suffix([':', '：'])?;
    let capital = plain.chars().next().is_some_and(|c| c.is_uppercase() || !c.is_ascii());
    (plain.chars().count() <= 40 && capital && !plain.contains(['.', ':', '?'])).then(|| named(plain)).flatten()
}

/// B3: `Label: value` where the label is a metadata word; label normalised, value trimmed.
pub fn metadata(text: &str) -> Option<(String, String)> {
    let (head, value) = text.split_once([':', '：'])?;
    if head.chars().count() > 60 || value.trim().is_empty() {
        return None;
    }
    let norm = words::norm(head);
    let fits = words::METADATA.iter().any(|m| norm == *m || norm.strip_prefix(*m).is_some_and(|r| r.starts_with(' ')));
    fits.then(|| (norm, value.trim().to_string()))
}

/// B3: the lines of a paragraph, split at breaks and at ` | `, each with its line.
pub fn lines(inline: &Inline, first: u32) -> Vec<(String, u32)> {
    inline
        .text
        .split('\n')
        .zip(first..)
        .flat_map(|(line, number)| line.split(" | ").map(move |part| (part.trim().to_string(), number)))
        .filter(|(part, _)| !part.is_empty())
        .collect()
}
