//! A document taken apart, as the reading rules see it.

use crate::model::Digest;
use crate::model::plan::{Block, Item, Link, Notice, Phase, Source};

use super::blocks::{self, Context};
use super::inline::Inline;
use super::outline::{self, Section};
use super::text::Text;
use super::tree::{self, Entry, Fence, Kind, Lines, Node};
use super::words;

/// What the rules read.
#[derive(Debug)]
pub struct Doc {
    /// Name of the document.
    pub file: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its text and front matter.
    pub text: Text,
    /// Sections in order; the first is what stands before the first heading.
    pub sections: Vec<Section>,
    /// Code blocks in order.
    pub fences: Vec<Fence>,
    /// The same as blocks, roles decided.
    pub blocks: Vec<Block>,
    /// Roles of the sections.
    pub roles: Vec<super::roles::Role>,
    /// What was repaired, not understood or ambiguous.
    pub notices: Vec<Notice>,
}

impl Doc {
    /// Takes a text apart: tree, sections, roles, blocks.
    pub fn new(file: &str, digest: Digest, text: Text) -> Self {
        let lines = Lines::new(&text.text);
        let (nodes, fences) = tree::parse(&text.text, &lines);
        let sections = outline::sections(nodes);
        let notices = text.notices.clone();
        let mut doc = Self {
            file: file.to_string(),
            digest,
            text,
            sections,
            fences,
            blocks: Vec::new(),
            roles: Vec::new(),
            notices,
        };
        doc.roles = super::roles::all(&doc);
        doc.read_blocks();
        doc
    }

    /// The sole H1, if there is exactly one.
    pub fn sole_h1(&self) -> Option<usize> {
        let mut ones = self.sections.iter().enumerate().filter(|(_, s)| s.level == 1).map(|(i, _)| i);
        let first = ones.next()?;
        ones.next().is_none().then_some(first)
    }

    /// The sections directly below a section; below the first one (what precedes all headings) those without a parent.
    pub fn children(&self, section: usize) -> Vec<usize> {
        if section == 0 {
            return (1..self.sections.len()).filter(|i| self.sections[*i].parent.is_none()).collect();
        }
        self.sections[section].children.clone()
    }

    /// The sections above, nearest first.
    pub fn ancestors(&self, section: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.sections[section].parent, |i| self.sections[*i].parent)
    }

    /// A section and all below it, in order.
    pub fn subtree(&self, section: usize) -> std::ops::Range<usize> {
        let level = self.sections[section].level;
        let end = (section + 1..self.sections.len())
            .find(|i| self.sections[*i].level <= level)
            .unwrap_or(self.sections.len());
        section..end
    }

    /// Source text of a node, without the indentation its container gave its later lines.
    pub fn slice(&self, node: &Node) -> String {
        let text = self.text.text.get(node.span.clone()).unwrap_or_default();
        dedent(text.trim_end())
    }

    /// A place in this document.
    pub fn source(&self, line: u32, line_end: u32, rule: &str) -> Source {
        Source { file: self.file.clone(), line, line_end, rule: rule.to_string() }
    }

    /// Decides every block's role from what stands around it.
    fn read_blocks(&mut self) {
        let mut contexts = vec![Context::default(); self.fences.len()];
        for (i, section) in self.sections.iter().enumerate() {
            let templates = std::iter::once(i)
                .chain(self.ancestors(i))
                .any(|s| self.roles[s].kind == super::roles::Kind::Templates);
            let heading = section.raw.clone();
            note_contexts(&section.nodes, &heading, templates, &mut contexts);
        }
        let original: Vec<&str> = self.text.unrepaired.lines().collect();
        let repaired = self.text.text != self.text.unrepaired;
        for (fence, context) in self.fences.iter().zip(&contexts) {
            let raw = repaired.then(|| original_code(fence, &original)).flatten();
            let raw = raw.filter(|r| words::norm(r) != words::norm(&fence.code));
            self.blocks.push(blocks::read(fence, raw.as_deref(), context, &mut self.notices));
        }
    }
}

/// The lines between the fences before the text was repaired, indented as the parsed code is.
fn original_code(fence: &Fence, lines: &[&str]) -> Option<String> {
    fence.info.as_ref()?;
    let first = usize::try_from(fence.line).ok()?;
    let body = lines.get(first..first + fence.code.lines().count())?;
    Some(dedent(&body.join("\n")))
}

fn note_contexts(nodes: &[Node], heading: &str, templates: bool, out: &mut [Context]) {
    let mut above = heading.to_string();
    for node in nodes {
        match &node.kind {
            Kind::Paragraph(inline) => above = inline.flat(),
            Kind::Fence(i) => {
                if let Some(context) = out.get_mut(*i) {
                    *context = Context { above: std::mem::take(&mut above), templates };
                }
            }
            Kind::List(_, entries) => {
                for entry in entries {
                    note_contexts(&entry.nodes, "", templates, out);
                }
                above = entries.last().map(last_words).unwrap_or_default();
            }
            Kind::Quote(inner) => note_contexts(inner, &above.clone(), templates, out),
            _ => above.clear(),
        }
    }
}

fn last_words(entry: &Entry) -> String {
    entry
        .nodes
        .iter()
        .rev()
        .find_map(|n| if let Kind::Paragraph(i) = &n.kind { Some(i.flat()) } else { None })
        .unwrap_or_default()
}

/// Takes the common indentation off all lines but the first, which the parser has already placed.
pub fn dedent(text: &str) -> String {
    let indent = text
        .lines()
        .skip(1)
        .filter(|l| !l.trim().is_empty())
        .map(|l| l.len() - l.trim_start_matches([' ', '\t']).len())
        .min()
        .unwrap_or(0);
    let mut lines = text.lines();
    let mut out = lines.next().unwrap_or_default().trim_start().to_string();
    for line in lines {
        out.push('\n');
        out.push_str(line.get(indent..).unwrap_or_default());
    }
    out
}

/// The phase a title names: its first word decides, then the first row with a word of it.
pub fn phase(norm: &str) -> Option<Phase> {
    let first = norm.split(' ').next().unwrap_or_default();
    let row = |text: &str| words::PHASES.iter().find(|(_, stems)| words::any(text, stems)).map(|(p, _)| *p);
    // "Identify" alone is detection; "identify the last backup" is assessment.
    if first == "identify" && norm != "identify" {
        return Some(Phase::Assess);
    }
    row(first).or_else(|| row(norm))
}

/// Whether a title says nothing but a phase: "Recovery steps", "Immediate actions".
pub fn is_phase_title(norm: &str) -> bool {
    let stem = |w: &str| words::PHASES.iter().any(|(_, stems)| phase_stem(w, stems));
    let spaced = !norm.is_empty() && norm.split(' ').all(|w| stem(w) || words::FILLERS.contains(&w));
    spaced && norm.split(' ').any(stem)
}

/// A word that names a phase. In a script without spaces the word is the whole title: then little more may stand in it,
/// because "database rollback" is a procedure and "rollback steps" is not.
fn phase_stem(word: &str, stems: &[&str]) -> bool {
    if !word.chars().any(|c| ('\u{3040}'..='\u{9fff}').contains(&c)) {
        return words::any(word, stems);
    }
    let length = |list: &[&str]| -> usize {
        list.iter().filter(|w| !w.is_ascii() && word.contains(**w)).map(|w| w.chars().count()).sum()
    };
    let named: usize = words::PHASES.iter().map(|(_, all)| length(all)).sum();
    stems.iter().any(|s| word.contains(s)) && word.chars().count() <= named + length(words::FILLERS) + 1
}

/// Whether a title or label informs rather than acts (S10).
pub fn is_info(norm: &str) -> bool {
    words::any(norm, words::INFORMING)
}

/// Whether the text begins with a verb of instruction.
pub fn is_imperative(text: &str) -> bool {
    let norm = words::norm(text.get(..text.char_indices().nth(60).map_or(text.len(), |(i, _)| i)).unwrap_or_default());
    let mut tokens = norm.split(' ');
    let first = tokens.next().unwrap_or_default();
    let verb = if matches!(
        first,
        "if" | "then" | "please" | "immediately" | "manually" | "first" | "next" | "finally" | "optionally"
    ) {
        tokens.next().unwrap_or_default()
    } else {
        first
    };
    words::IMPERATIVES.contains(&verb) || matches!(first, "if" | "do" | "don")
}

/// The first paragraph of a list entry.
pub fn first_words(entry: &Entry) -> Option<&Inline> {
    entry.nodes.iter().find_map(|n| if let Kind::Paragraph(i) | Kind::Heading(_, i) = &n.kind { Some(i) } else { None })
}

/// All entries of the lists among the nodes, nested ones after the entry that holds them.
pub fn list_items(nodes: &[Node], rule: &str, out: &mut Vec<Item>) {
    for node in nodes {
        match &node.kind {
            Kind::List(_, entries) => {
                for entry in entries {
                    if let Some(inline) = first_words(entry) {
                        out.push(Item { title: inline.flat(), line: entry.line, rule: rule.into() });
                    }
                    list_items(&entry.nodes, rule, out);
                }
            }
            Kind::Quote(inner) => list_items(inner, rule, out),
            _ => {}
        }
    }
}

/// Positions of all code blocks among the nodes.
pub fn fences_in(nodes: &[Node], out: &mut Vec<usize>) {
    for node in nodes {
        match &node.kind {
            Kind::Fence(i) => out.push(*i),
            Kind::Quote(inner) => fences_in(inner, out),
            Kind::List(_, entries) => entries.iter().for_each(|e| fences_in(&e.nodes, out)),
            _ => {}
        }
    }
}

/// All links among the nodes.
pub fn links_in(nodes: &[Node], out: &mut Vec<Link>) {
    for node in nodes {
        let mut take = |inline: &Inline, line: u32| {
            for (range, target) in &inline.links {
                out.push(Link {
                    text: inline.text.get(range.clone()).unwrap_or_default().to_string(),
                    target: target.clone(),
                    line,
                });
            }
        };
        match &node.kind {
            Kind::Paragraph(i) | Kind::Heading(_, i) => take(i, node.line),
            Kind::Table(head, rows) => {
                head.iter().for_each(|c| take(c, node.line));
                rows.iter().for_each(|r| r.cells.iter().for_each(|c| take(c, r.line)));
            }
            Kind::Quote(inner) => links_in(inner, out),
            Kind::List(_, entries) => entries.iter().for_each(|e| links_in(&e.nodes, out)),
            _ => {}
        }
    }
}
