//! The steps in the blocks of one section, label by label (K2 to K7, K10).

use crate::model::plan::{BlockRole, Phase};

use super::commands;
use super::doc::{Doc, first_words, is_imperative, is_info, list_items, phase};
use super::inline::Inline;
use super::make;
use super::outline::{self, Group, Label};
use super::steps::Collected;
use super::tree::{Kind, Node};
use super::words;

/// What encloses the blocks.
#[derive(Debug, Default, Clone)]
pub struct Container {
    /// Title of the section; empty for the scenario itself.
    pub title: String,
    /// The same, normalised.
    pub norm: String,
    /// What a step without a title of its own is called.
    pub fallback: String,
    /// Line of the heading.
    pub line: u32,
    /// Phase the section names.
    pub phase: Option<Phase>,
    /// Whether it is the scenario itself.
    pub root: bool,
    /// Whether its title says that what stands in it is done.
    pub acting: bool,
}

/// Which step the next loose block belongs to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Open {
    /// None: a block starts a step of its own.
    No,
    /// The last entry of an ordered list, or a numbered paragraph (B4, B5).
    Listed,
    /// The step made from the current label (K5).
    Labelled,
    /// A step made from a bare fence (K6): text goes to it, another fence does not.
    Bare,
}

/// Collects the steps among the blocks of a section.
pub fn collect(doc: &Doc, nodes: &[Node], container: &Container, out: &mut Collected) {
    let groups = outline::groups(nodes);
    // `**Step 1: x**`, `**1. x**`: labels as step headings, when there are two or more of them.
    let numbered = groups
        .iter()
        .filter(|g| g.label.as_ref().is_some_and(|l| l.title.step || is_number(l.title.ordinal.as_deref())))
        .count();
    let start = out.steps.len();
    let mut walker = Walker { start, doc, container, out, open: Open::No, above: None, not_steps: false };
    for group in &groups {
        walker.group(group, numbered >= 2);
    }
}

fn is_number(ordinal: Option<&str>) -> bool {
    ordinal.is_some_and(|o| o.starts_with(|c: char| c.is_ascii_digit()))
}

/// Keeps what informs: symptoms, prerequisites, and everything else as part of the introduction.
pub fn information(doc: &Doc, norm: &str, title: &str, nodes: &[&Node], out: &mut Collected) {
    let mut items = Vec::new();
    for node in nodes {
        list_items(std::slice::from_ref(*node), "S10", &mut items);
    }
    if words::any(
        norm,
        &["symptom", "sign", "indicator", "trigger", "sintoma", "síntoma", "symptôme", "симптом", "症状"],
    ) {
        out.symptoms.extend(items);
    } else if words::any(
        norm,
        &[
            "prerequisite",
            "requirement",
            "before you",
            "you will need",
            "tools needed",
            "pré requisit",
            "requisit",
            "voraussetzung",
            "前提",
        ],
    ) {
        out.prerequisites.extend(items);
    }
    let text: Vec<String> = nodes.iter().map(|n| doc.slice(n)).filter(|t| !t.trim().is_empty()).collect();
    if !text.is_empty() {
        out.intro.push(format!("**{title}**"));
        out.intro.extend(text);
    }
}

pub(super) struct Walker<'d, 'o> {
    pub(super) doc: &'d Doc,
    pub(super) container: &'d Container,
    pub(super) out: &'o mut Collected,
    pub(super) open: Open,
    /// The paragraph directly above, for the title of a bare fence.
    pub(super) above: Option<(String, u32)>,
    /// An author's `not-steps` stands before the next list.
    pub(super) not_steps: bool,
    /// How many steps there were before this section.
    pub(super) start: usize,
}

impl Walker<'_, '_> {
    fn group(&mut self, group: &Group<'_>, numbered: bool) {
        let Some(label) = &group.label else {
            for node in &group.nodes {
                self.node(node, None);
            }
            return;
        };
        let norm = &label.title.norm;
        if numbered && (label.title.step || is_number(label.title.ordinal.as_deref())) {
            let step = make::from_nodes(
                self.doc,
                &label.title,
                label.line,
                &group.nodes,
                self.phase_of(Some(label)),
                "K1 numbered label",
            );
            self.out.steps.push(step);
            self.open = Open::Listed;
            return;
        }
        if expects(norm) && !self.out.steps.is_empty() {
            self.expected(group);
            return;
        }
        if is_info(norm) {
            information(self.doc, norm, &label.raw, &group.nodes, self.out);
            self.open = Open::No;
            return;
        }
        self.open = Open::No;
        self.above = None;
        let before = self.out.steps.len();
        for node in &group.nodes {
            self.node(node, Some(label));
        }
        // An action label over prose only is a thing to do all the same.
        let prose = group.nodes.iter().any(|n| matches!(n.kind, Kind::Paragraph(_)));
        if self.out.steps.len() == before && prose && acts(label) && !self.container.root {
            let step = make::from_nodes(
                self.doc,
                &label.title,
                label.line,
                &group.nodes,
                self.phase_of(Some(label)),
                "K8 prose",
            );
            self.out.steps.push(step);
        }
    }

    fn node(&mut self, node: &Node, label: Option<&Label>) {
        match &node.kind {
            Kind::Paragraph(inline) => self.paragraph(node, inline),
            Kind::List(first, entries) => {
                let skip = std::mem::take(&mut self.not_steps);
                if skip || entries.iter().all(|e| first_words(e).is_some_and(Inline::only_links)) || self.system_acts()
                {
                    self.prose(node);
                } else if entries.iter().any(|e| e.checked.is_some()) && first.is_none() {
                    self.boxes(node, entries, label);
                } else if first.is_some() {
                    self.ordered(entries, label);
                } else {
                    self.bullets(node, entries, label);
                }
                self.above = None;
            }
            Kind::Fence(i) => self.fence(*i, node, label),
            Kind::Table(head, rows) => {
                if is_step_table(head) {
                    let phase = self.phase_of(label);
                    for row in rows {
                        self.out.steps.extend(make::from_row(self.doc, head, row, phase));
                    }
                    self.open = Open::Listed;
                } else {
                    self.prose(node);
                }
            }
            Kind::Quote(inner) => {
                let mut fences = Vec::new();
                super::doc::fences_in(inner, &mut fences);
                self.prose(node);
                if self.open != Open::No {
                    fences.into_iter().for_each(|f| self.attach(f));
                }
            }
            Kind::Html(html) => {
                let verb = outline::annotation(html, node.line).map(|a| a.verb).unwrap_or_default();
                self.not_steps = verb == "not-steps";
            }
            Kind::Rule => self.open = Open::No,
            Kind::Heading(..) => {}
        }
    }

    /// "The controller will automatically:" introduces what the system does by itself.
    fn system_acts(&self) -> bool {
        self.above.as_ref().is_some_and(|(text, _)| {
            let norm = words::norm(text);
            text.trim_end().ends_with(':')
                && words::any(
                    &norm,
                    &[
                        "automatically",
                        "by itself",
                        "automaticamente",
                        "automáticamente",
                        "automatisch",
                        "автоматически",
                        "自动",
                    ],
                )
        })
    }

    fn paragraph(&mut self, node: &Node, inline: &Inline) {
        let lines = outline::lines(inline, node.line);
        if !lines.is_empty() && lines.iter().all(|(text, _)| outline::metadata(text).is_some()) {
            return;
        }
        let flat = inline.flat();
        if let Some((lead, rest)) = inline.bold_lead() {
            let title = super::title::Title::parse(lead.trim_end_matches([':', '：']));
            let rest = rest.trim().trim_start_matches([':', '：', '-', '–', '—']).trim();
            // `**Step 2:** Drain the node`
            let lead_norm = words::norm(lead);
            let bare_step = lead_norm.split(' ').collect::<Vec<_>>();
            if let ["step" | "passo" | "paso" | "schritt" | "étape" | "шаг", number] = bare_step.as_slice()
                && number.bytes().all(|b| b.is_ascii_digit())
                && !rest.is_empty()
            {
                self.numbered_paragraph(node, rest);
                return;
            }
            if (title.step || is_number(title.ordinal.as_deref())) && !title.clean.is_empty() {
                let words = title.clean.clone();
                self.numbered_paragraph(node, &words);
                return;
            }
            // K10: `**Verify:** …` after something was done is a step of its own.
            let verifies = phase(&title.norm) == Some(Phase::Verify) && title.norm.split(' ').count() <= 3;
            if verifies && !rest.is_empty() && !self.out.steps.is_empty() && !expects(&title.norm) {
                let mut step = make::empty(self.doc, &title.clean, node.line, node.line_end, "K10 verify");
                step.phase = Some(Phase::Verify);
                step.text = rest.to_string();
                make::read_inline(&mut step, inline, node.line);
                self.out.steps.push(step);
                self.open = Open::Labelled;
                return;
            }
            if is_info(&title.norm) && self.open == Open::No {
                self.out.intro.push(self.doc.slice(node));
                return;
            }
        }
        let norm = words::norm(&flat);
        if expects(&norm)
            && self.open != Open::No
            && let Some(step) = self.out.steps.last_mut()
        {
            step.expected = Some(flat.clone());
        }
        self.above = Some((flat, node.line));
        self.prose(node);
    }

    fn numbered_paragraph(&mut self, node: &Node, title: &str) {
        let parsed = super::title::Title::parse(title);
        let mut step = make::empty(self.doc, &parsed.clean, node.line, node.line_end, "K1 numbered label");
        step.estimate_s = parsed.estimate_s;
        step.phase = phase(&parsed.norm).or(self.container.phase);
        self.out.steps.push(step);
        self.open = Open::Listed;
    }

    /// Text goes to the open step, else to the introduction.
    pub(super) fn prose(&mut self, node: &Node) {
        let text = self.doc.slice(node);
        let none_yet = self.out.steps.is_empty();
        let added = self.added();
        match self.out.steps.last_mut().filter(|_| self.open != Open::No) {
            Some(step) => {
                make::add_text(step, &text);
                super::doc::links_in(std::slice::from_ref(node), &mut step.links);
                step.source.line_end = step.source.line_end.max(node.line_end);
            }
            None if none_yet => self.out.intro.push(text),
            None if added => {
                // Between the steps of this section: it belongs to the one before.
                if let Some(step) = self.out.steps.last_mut() {
                    make::add_text(step, &text);
                }
            }
            None => {}
        }
    }

    fn fence(&mut self, index: usize, node: &Node, label: Option<&Label>) {
        let Some(block) = self.doc.blocks.get(index) else { return };
        let acts = super::blocks::acts(block);
        let above = self.above.take();
        if matches!(self.open, Open::Listed) {
            self.attach(index);
            return;
        }
        if !acts {
            if let (BlockRole::Text, Open::No) = (block.role, self.open) {
                let steps = make::from_numbered_text(self.doc, block, self.phase_of(label));
                if !steps.is_empty() {
                    self.out.steps.extend(steps);
                    self.open = Open::Listed;
                    return;
                }
            }
            self.loose(index, node);
            return;
        }
        if matches!(block.role, BlockRole::Run | BlockRole::Comment) {
            let steps = make::from_numbered_comments(self.doc, block, self.phase_of(label));
            if !steps.is_empty() {
                self.out.steps.extend(steps);
                self.open = Open::Bare;
                return;
            }
        }
        if let Some(label) = label {
            // Two or more fences under one label, each with a sentence above it, are steps of their own.
            let titled = above.as_ref().filter(|_| self.open == Open::Labelled || self.open == Open::Bare);
            if titled.is_none() {
                if self.open != Open::Labelled {
                    let mut step = make::empty(self.doc, &label.title.clean, label.line, node.line_end, "K5 label");
                    step.phase = self.phase_of(Some(label));
                    step.estimate_s = label.title.estimate_s;
                    if let Some((text, _)) = &above {
                        step.text.clone_from(text);
                    }
                    self.out.steps.push(step);
                    self.open = Open::Labelled;
                }
                self.attach(index);
                return;
            }
        }
        let (title, line) = self.bare_title(block, above);
        let mut step = make::empty(self.doc, &title, line, node.line_end, "K6 bare fence");
        step.phase = phase(&words::norm(&title)).or(self.phase_of(label));
        self.out.steps.push(step);
        self.open = Open::Bare;
        self.attach(index);
    }

    /// K6: the paragraph above when it ends with a colon, else the first comment, else that paragraph, else the section.
    fn bare_title(&mut self, block: &crate::model::plan::Block, above: Option<(String, u32)>) -> (String, u32) {
        let comment = commands::stanzas(&block.code)
            .into_iter()
            .next()
            .and_then(|s| s.caption)
            .filter(|_| matches!(block.role, BlockRole::Run | BlockRole::Comment));
        let telling = above.filter(|(text, _)| {
            let norm = words::norm(text);
            !words::any(&norm, &["symptom$", "warning$", "note$"]) && text.chars().count() <= 160
        });
        let ends = telling.as_ref().is_some_and(|(text, _)| text.trim_end().ends_with([':', '：']));
        let strip = |text: &str| super::title::Title::parse(text.trim_end_matches([':', '：'])).clean;
        match (telling, comment) {
            (Some((text, line)), _) if ends => (strip(&text), line),
            (_, Some(comment)) => (comment, block.line),
            (Some((text, line)), None) => (strip(&text), line),
            (None, None) => (self.container.fallback.clone(), block.line),
        }
    }

    /// Whether this section gave a step, or is the scenario's own.
    fn added(&self) -> bool {
        self.container.root || self.out.steps.len() > self.start
    }

    /// A block that is not run: with the step it follows, else in the introduction.
    fn loose(&mut self, index: usize, node: &Node) {
        if self.out.steps.is_empty() {
            self.out.intro.push(self.doc.slice(node));
        } else if self.open != Open::No || self.added() {
            self.attach(index);
        }
    }

    pub(super) fn attach(&mut self, index: usize) {
        let Some(block) = self.doc.blocks.get(index) else { return };
        if let Some(step) = self.out.steps.last_mut() {
            make::attach(step, block);
        }
    }

    pub(super) fn attach_all(&mut self, nodes: &[Node]) {
        let mut fences = Vec::new();
        super::doc::fences_in(nodes, &mut fences);
        fences.into_iter().for_each(|f| self.attach(f));
    }

    pub(super) fn phase_of(&self, label: Option<&Label>) -> Option<Phase> {
        label.and_then(|l| phase(&l.title.norm)).or(self.container.phase)
    }

    fn expected(&mut self, group: &Group<'_>) {
        let text: Vec<String> = group.nodes.iter().map(|n| self.doc.slice(n)).collect();
        let mut fences = Vec::new();
        group.nodes.iter().for_each(|n| super::doc::fences_in(std::slice::from_ref(*n), &mut fences));
        if let Some(step) = self.out.steps.last_mut() {
            step.expected = Some(text.join("\n\n"));
        }
        fences.into_iter().for_each(|f| self.attach(f));
    }
}

pub(super) fn acts(label: &Label) -> bool {
    let norm = &label.title.norm;
    words::any(norm, words::ACTING) || phase(norm).is_some() || is_imperative(norm)
}

/// "Expected output", "You should see".
fn expects(norm: &str) -> bool {
    ["expected", "you should see", "should return", "should show", "resultado esperado", "erwartet", "ожидаем", "预期"]
        .iter()
        .any(|w| norm.starts_with(w))
}

/// A table whose columns are a step and an action.
fn is_step_table(head: &[Inline]) -> bool {
    let names: Vec<String> = head.iter().map(|h| words::norm(&h.flat())).collect();
    let first = names.first().map(String::as_str).unwrap_or_default();
    let number = head.first().is_some_and(|h| h.flat().trim() == "#")
        || matches!(first, "step" | "no" | "order" | "phase" | "passo" | "paso" | "schritt" | "étape" | "шаг" | "步骤");
    number
        && names.len() >= 2
        && names.iter().any(|n| {
            matches!(
                n.as_str(),
                "action"
                    | "task"
                    | "activity"
                    | "description"
                    | "what"
                    | "procedure"
                    | "step"
                    | "ação"
                    | "acción"
                    | "aktion"
                    | "действие"
                    | "操作"
            )
        })
}
