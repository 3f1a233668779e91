//! One step from what an author wrote: a list entry, a section, a numbered comment, a table row (K1 to K4, K8, K9).

use crate::model::plan::{Block, BlockRole, Item, Link, Phase, Step};

use super::commands::{self, Stanza};
use super::doc::{self, Doc, fences_in, first_words, is_imperative, links_in, list_items, phase};
use super::inline::Inline;
use super::placeholders;
use super::title::Title;
use super::tree::{Entry, Kind, Node, Row};
use super::words;

/// A step with a title and a place.
pub fn empty(doc: &Doc, title: &str, line: u32, line_end: u32, rule: &str) -> Step {
    Step {
        title: title.to_string(),
        line,
        condition: condition(title),
        source: doc.source(line, line_end, rule),
        ..Step::default()
    }
}

/// "If the database is down, …": the condition.
fn condition(title: &str) -> Option<String> {
    let lower = title.to_lowercase();
    let starts =
        ["if ", "when ", "only if ", "se ", "si ", "wenn ", "если ", "如果"].iter().any(|w| lower.starts_with(w));
    let bracketed = title
        .rsplit_once('(')
        .and_then(|(_, t)| t.strip_suffix(')'))
        .filter(|t| t.to_lowercase().starts_with("if ") || t.to_lowercase().starts_with("only "));
    if let Some(inner) = bracketed {
        return Some(inner.to_string());
    }
    starts.then(|| title.split([',', ':', ';']).next().unwrap_or(title).trim().to_string())
}

/// Adds Markdown text to a step.
pub fn add_text(step: &mut Step, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    if !step.text.is_empty() {
        step.text.push_str("\n\n");
    }
    step.text.push_str(text);
}

/// Links and jumps of a paragraph.
pub fn read_inline(step: &mut Step, inline: &Inline, line: u32) {
    for (range, target) in &inline.links {
        step.links.push(Link {
            text: inline.text.get(range.clone()).unwrap_or_default().to_string(),
            target: target.clone(),
            line,
        });
    }
    step.links.extend(jumps(&inline.text, line));
}

/// "see Scenario B", "proceed to Step 5", "go to Section 3".
fn jumps(text: &str, line: u32) -> Vec<Link> {
    let mut out = Vec::new();
    let lower = text.to_lowercase();
    if lower.len() != text.len() {
        return out;
    }
    for lead in ["see ", "proceed to ", "go to ", "continue with ", "skip to ", "jump to ", "follow "] {
        let Some(at) = lower.find(lead) else { continue };
        let tail = &text[at + lead.len()..];
        let lower_tail = tail.to_lowercase();
        for kind in ["scenario ", "step ", "section ", "phase ", "§"] {
            if let Some(rest) = lower_tail.strip_prefix(kind) {
                let id: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '.').collect();
                let id = id.trim_end_matches('.');
                if !id.is_empty() && id.len() <= 5 {
                    let shown = tail.get(..kind.len() + id.len()).unwrap_or_default().to_string();
                    out.push(Link {
                        text: shown.clone(),
                        target: format!("#{}", shown.to_lowercase().replace(' ', "-")),
                        line,
                    });
                }
            }
        }
    }
    out
}

/// Adds a block, and the captions of its stanzas as items when it has two or more.
pub fn attach(step: &mut Step, block: &Block) {
    if block.role == BlockRole::Run && !matches!(block.lang.as_str(), "sql") {
        step.items.extend(caption_items(block));
    }
    step.source.line_end = step.source.line_end.max(block.line_end);
    step.blocks.push(block.clone());
}

fn caption_items(block: &Block) -> Vec<Item> {
    let line = |s: &Stanza| block.line + 1 + u32::try_from(s.first).unwrap_or(0);
    let stanzas = commands::stanzas(&block.code);
    let numbered = stanzas.iter().filter(|s| s.numbered.is_some()).count() >= 2;
    let items: Vec<Item> = stanzas
        .iter()
        .filter(|s| if numbered { s.numbered.is_some() } else { s.commands > 0 })
        .filter_map(|s| Some(Item { title: s.caption.clone()?, line: line(s), rule: "K6 comment".into() }))
        .collect();
    if items.len() >= 2 { items } else { Vec::new() }
}

/// K9: title, estimate and remaining text of a first paragraph.
fn head(doc: &Doc, inline: &Inline, node: &Node, step: &mut Step) {
    let text = inline.text.trim();
    let (title, rest) = match inline.bold_lead() {
        Some((lead, rest)) => (
            lead.trim().trim_end_matches([':', '：']),
            rest.trim().trim_start_matches([':', '：', '-', '–', '—']).trim(),
        ),
        None => (text, ""),
    };
    let (title, long) = cut(title).map_or((title, false), |short| (short, true));
    if long {
        add_text(step, text);
    }
    // A sentence keeps its numbers and marks; a bold lead is a heading in small.
    let parsed = Title::parse(title);
    let bold = inline.bold_lead().is_some();
    let note = if bold {
        rest.strip_prefix('(')
            .and_then(|r| r.split_once(')'))
            .and_then(|(inner, tail)| Some((super::span::whole(inner)?, tail)))
    } else {
        None
    };
    step.title =
        if bold || parsed.estimate_s.is_some() || parsed.step { parsed.clean.clone() } else { plain_title(title) };
    step.estimate_s = parsed.estimate_s.or(note.map(|(s, _)| s));
    step.condition = condition(&step.title);
    step.phase = phase(&words::norm(&step.title));
    let rest = note.map_or(rest, |(_, tail)| tail.trim().trim_start_matches([':', '：', '-', '–', '—']).trim());
    if bold && note.is_some() {
        add_text(step, rest);
    } else if bold && !rest.is_empty() {
        // The author's markup in what follows the bold words stays.
        let source = doc.slice(node);
        let after = source
            .split_once("**")
            .and_then(|(_, t)| t.split_once("**"))
            .map_or(rest, |(_, t)| t.trim().trim_start_matches([':', '：', '-', '–', '—']).trim());
        add_text(step, after);
    }
    read_inline(step, inline, node.line);
}

fn plain_title(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches([':', '：']).to_string()
}

/// Titles longer than this many bytes are cut; the whole paragraph then stands in the step's text.
const LONG_TITLE: usize = 400;

/// The beginning of a very long text, at a word.
fn cut(text: &str) -> Option<&str> {
    let end = (text.len() > LONG_TITLE)
        .then(|| text.char_indices().map(|(i, _)| i).take_while(|i| *i <= LONG_TITLE).last())??;
    let head = text.get(..end)?;
    Some(head.rsplit_once(' ').map_or(head, |(h, _)| h))
}

/// Everything below a step: text, items and blocks.
fn body(doc: &Doc, nodes: &[&Node], step: &mut Step) {
    let mut above: Option<&Node> = None;
    for node in nodes {
        let before = above.replace(*node);
        match &node.kind {
            Kind::Fence(i) => {
                let known = step.blocks.len();
                if let Some(block) = doc.blocks.get(*i) {
                    attach(step, block);
                }
                let paragraph = before.filter(|n| matches!(n.kind, Kind::Paragraph(_)));
                if let (Some(paragraph), Some(block)) = (paragraph, step.blocks.get_mut(known)) {
                    block.caption = Some(doc.slice(paragraph));
                }
            }
            Kind::List(_, entries) => {
                list_items(
                    std::slice::from_ref(*node),
                    if entries.iter().any(|e| e.checked.is_some()) { "K7 box" } else { "K2 nested" },
                    &mut step.items,
                );
                links_in(std::slice::from_ref(*node), &mut step.links);
                let mut fences = Vec::new();
                fences_in(std::slice::from_ref(*node), &mut fences);
                fences.into_iter().filter_map(|f| doc.blocks.get(f)).for_each(|b| attach(step, b));
            }
            Kind::Paragraph(inline) => {
                let flat = inline.flat();
                if ["Expected", "You should see"].iter().any(|w| flat.starts_with(w)) {
                    step.expected = Some(flat);
                }
                add_text(step, &doc.slice(node));
                read_inline(step, inline, node.line);
            }
            Kind::Quote(inner) => {
                add_text(step, &doc.slice(node));
                let mut fences = Vec::new();
                fences_in(inner, &mut fences);
                fences.into_iter().filter_map(|f| doc.blocks.get(f)).for_each(|b| attach(step, b));
            }
            Kind::Table(..) => add_text(step, &doc.slice(node)),
            Kind::Heading(..) | Kind::Html(_) | Kind::Rule => {}
        }
        step.source.line_end = step.source.line_end.max(node.line_end);
    }
}

/// K2, K9: a list entry.
pub fn from_entry(doc: &Doc, entry: &Entry, inherited: Option<Phase>) -> Step {
    let mut step = empty(doc, "", entry.line, entry.line_end, "K2 list item");
    let mut rest: Vec<&Node> = entry.nodes.iter().collect();
    if let Some(first) = rest.first()
        && let Kind::Paragraph(inline) | Kind::Heading(_, inline) = &first.kind
    {
        head(doc, inline, first, &mut step);
        rest.remove(0);
    }
    step.phase = step.phase.or(inherited);
    body(doc, &rest, &mut step);
    if step.title.is_empty() {
        step.title = step.items.first().map(|i| i.title.clone()).unwrap_or_default();
    }
    step
}

/// K1: a step heading with everything below it.
pub fn from_section(doc: &Doc, index: usize, inherited: Option<Phase>) -> Step {
    let here = &doc.sections[index];
    let mut step = empty(doc, &here.title.clean, here.line, here.line_end, "K1 step heading");
    step.estimate_s = here.title.estimate_s;
    let noted = here.notes.iter().find_map(|n| n.attrs.get("phase")).and_then(|p| phase(&words::norm(p)));
    step.phase = noted.or_else(|| phase(&here.title.norm)).or(inherited);
    for i in doc.subtree(index) {
        let below = &doc.sections[i];
        if i != index {
            add_text(&mut step, &format!("**{}**", below.raw));
        }
        body(doc, &below.nodes.iter().collect::<Vec<_>>(), &mut step);
    }
    step
}

/// K1: a numbered label with the blocks below it.
pub fn from_nodes(doc: &Doc, title: &Title, line: u32, nodes: &[&Node], inherited: Option<Phase>, rule: &str) -> Step {
    let mut step = empty(doc, &title.clean, line, line, rule);
    step.estimate_s = title.estimate_s;
    step.phase = phase(&title.norm).or(inherited);
    body(doc, nodes, &mut step);
    step
}

/// K8: a phase section that is only prose.
pub fn from_prose(doc: &Doc, index: usize, inherited: Option<Phase>) -> Step {
    let here = &doc.sections[index];
    let nodes: Vec<&Node> = here.nodes.iter().collect();
    from_nodes(doc, &here.title, here.line, &nodes, inherited, "K8 prose")
}

/// K3: one step per numbered comment of a shell block, when there are two or more; a stanza without a command is manual.
pub fn from_numbered_comments(doc: &Doc, block: &Block, inherited: Option<Phase>) -> Vec<Step> {
    let stanzas = commands::stanzas(&block.code);
    if stanzas.iter().filter(|s| s.numbered.is_some()).count() < 2 {
        return Vec::new();
    }
    let mut out: Vec<Step> = Vec::new();
    let mut prelude = String::new();
    for stanza in stanzas {
        let Some(title) = stanza.numbered.clone() else {
            // Before the first number: settings for what follows. After it: more of the same step.
            match out.last_mut() {
                Some(step) => {
                    let has = step.blocks.iter().any(|b| b.role == BlockRole::Run);
                    if stanza.commands > 0 || has {
                        extend(step, block, &stanza);
                    }
                }
                None if stanza.commands > 0 => {
                    prelude.push_str(&stanza.code);
                    prelude.push('\n');
                }
                None => {}
            }
            continue;
        };
        let line = block.line + 1 + u32::try_from(stanza.first).unwrap_or(0);
        let parsed = Title::parse(&title);
        let mut step = empty(doc, &parsed.clean, line, line, "K3 numbered comment");
        step.estimate_s = parsed.estimate_s;
        step.phase = phase(&parsed.norm).or(inherited);
        let code = format!("{}{}", std::mem::take(&mut prelude), stanza.code);
        if stanza.commands > 0 || !code.trim_start().starts_with('#') {
            step.blocks.push(part(block, code));
        } else {
            let remarks: Vec<&str> =
                stanza.code.lines().skip(1).map(commands::comment_text).filter(|t| !t.is_empty()).collect();
            add_text(&mut step, &remarks.join("\n"));
        }
        out.push(step);
    }
    if let Some(last) = out.last_mut() {
        last.source.line_end = block.line_end;
    }
    out
}

fn extend(step: &mut Step, block: &Block, stanza: &Stanza) {
    match step.blocks.last_mut().filter(|b| b.role == BlockRole::Run) {
        Some(last) => {
            let code = format!("{}\n{}", last.code, stanza.code);
            *last = part(block, code);
        }
        None => step.blocks.push(part(block, stanza.code.clone())),
    }
}

/// A part of a block, with the gates of that part only.
fn part(block: &Block, code: String) -> Block {
    let mut out = Block { code, raw: None, ..block.clone() };
    super::blocks::regate(&mut out);
    // Lines meant for a session that an earlier part opens are no commands of this machine.
    if let Some(why) = super::gates::session(&block.code) {
        out.blocked = Some(why);
        out.own = None;
    }
    out
}

/// K4: numbered lines of a text block; indented lines are detail, copyable, never runnable.
pub fn from_numbered_text(doc: &Doc, block: &Block, inherited: Option<Phase>) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    for (number, line) in block.code.lines().enumerate() {
        let at = block.line + 1 + u32::try_from(number).unwrap_or(0);
        let top = !line.starts_with([' ', '\t']);
        match commands::numbered(line).filter(|_| top) {
            Some(title) => {
                let parsed = Title::parse(&title);
                let mut step = empty(doc, &parsed.clean, at, at, "K4 numbered text");
                step.estimate_s = parsed.estimate_s;
                step.phase = phase(&parsed.norm).or(inherited);
                out.push(step);
            }
            None => {
                if let Some(step) = out.last_mut() {
                    let text = line.trim();
                    if !text.is_empty() {
                        if !step.text.is_empty() {
                            step.text.push('\n');
                        }
                        step.text.push_str(text);
                        step.source.line_end = at;
                    }
                }
            }
        }
    }
    let acting = out.iter().filter(|s| is_imperative(&s.title) || s.phase.is_some()).count();
    if out.len() >= 2 && acting * 2 >= out.len() {
        if let Some(first) = out.first_mut() {
            first.blocks.push(block.clone());
        }
        out
    } else {
        Vec::new()
    }
}

/// A row of a table of steps.
pub fn from_row(doc: &Doc, head: &[Inline], row: &Row, inherited: Option<Phase>) -> Option<Step> {
    let names: Vec<String> = head.iter().map(|h| words::norm(&h.flat())).collect();
    let title_at = names
        .iter()
        .position(|n| {
            matches!(
                n.as_str(),
                "action"
                    | "task"
                    | "activity"
                    | "what"
                    | "procedure"
                    | "ação"
                    | "acción"
                    | "aktion"
                    | "действие"
                    | "操作"
            )
        })
        .or_else(|| names.iter().position(|n| n == "description"))
        .unwrap_or(1);
    let title = Title::parse(&row.cells.get(title_at)?.flat());
    if title.clean.is_empty() {
        return None;
    }
    let mut step = empty(doc, &title.clean, row.line, row.line, "K2 table row");
    step.phase = phase(&title.norm).or(inherited);
    for (name, cell) in names.iter().zip(&row.cells) {
        if words::any(name, &["time", "duration", "target", "eta"]) {
            step.estimate_s = super::span::first(&cell.flat()).map(|s| s.seconds);
        }
    }
    let others: Vec<String> = head
        .iter()
        .zip(&row.cells)
        .enumerate()
        .filter(|(i, (_, c))| *i != title_at && !c.text.trim().is_empty())
        .map(|(_, (h, c))| format!("{}: {}", h.flat(), c.flat()))
        .collect();
    add_text(&mut step, &others.join("\n"));
    Some(step)
}

/// Which variables each block still needs: those no earlier block of the scenario sets.
pub fn variables(steps: &mut [Step]) {
    let mut set: Vec<String> = Vec::new();
    for block in steps.iter_mut().flat_map(|s| &mut s.blocks).filter(|b| b.role == BlockRole::Run) {
        let (uses, sets) = placeholders::shell_variables(&block.code);
        block.variables = uses.into_iter().filter(|u| !set.contains(u) && !sets.contains(u)).collect();
        set.extend(sets);
        set.extend(block.attrs.get("capture").cloned());
    }
}

/// The first words of an entry, for those who need only a title.
pub fn entry_title(entry: &Entry) -> String {
    first_words(entry)
        .map(|i| i.bold_lead().map_or_else(|| i.flat(), |(lead, _)| lead.trim_end_matches(':').to_string()))
        .unwrap_or_default()
}

/// Plain text of an entry's first paragraph after its bold lead.
pub fn entry_rest(entry: &Entry) -> String {
    let Some(inline) = first_words(entry) else { return String::new() };
    let rest = inline.bold_lead().map_or_else(|| inline.text.clone(), |(_, rest)| rest.to_string());
    doc::dedent(rest.trim().trim_start_matches([':', '：', '-', '–', '—']).trim())
}
