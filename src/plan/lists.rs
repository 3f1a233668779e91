//! The steps in lists: numbered entries, boxes, bullets (K2, K5, K7).

use crate::model::plan::{BlockRole, Item, Phase};

use super::doc::{first_words, is_imperative, is_info, list_items, phase};
use super::group::{Open, Walker, acts};
use super::outline::{self, Label};
use super::tree::{Entry, Kind, Node};
use super::{make, words};

impl Walker<'_, '_> {
    /// K2: every entry of an ordered list is a step; below a numbered paragraph they are its items.
    pub(super) fn ordered(&mut self, entries: &[Entry], label: Option<&Label>) {
        let below_numbered =
            self.open == Open::Listed && self.out.steps.last().is_some_and(|s| s.source.rule == "K1 numbered label");
        if below_numbered {
            for entry in entries {
                self.items_of(entry);
            }
            return;
        }
        let inherited = label.and_then(|l| phase(&l.title.norm)).or(self.container.phase);
        for entry in entries {
            // An objective written as the last point of a list stays an objective.
            let stated = first_words(entry).is_some_and(|i| !super::objective::labelled(&i.flat()).is_empty());
            if !stated {
                self.out.steps.push(make::from_entry(self.doc, entry, inherited));
            }
        }
        self.open = Open::Listed;
    }

    fn items_of(&mut self, entry: &Entry) {
        let mut fences = Vec::new();
        super::doc::fences_in(&entry.nodes, &mut fences);
        if let Some(step) = self.out.steps.last_mut() {
            if let Some(inline) = first_words(entry) {
                step.items.push(Item { title: inline.flat(), line: entry.line, rule: "K2 nested".into() });
            }
            list_items(&entry.nodes, "K2 nested", &mut step.items);
        }
        fences.into_iter().for_each(|f| self.attach(f));
    }

    /// K7: labelled boxes are one step; otherwise each top box is one.
    pub(super) fn boxes(&mut self, node: &Node, entries: &[Entry], label: Option<&Label>) {
        let titled = label
            .map(|l| (l.title.clean.clone(), l.line))
            .or_else(|| (!self.container.root).then(|| (self.container.title.clone(), self.container.line)));
        if self.open == Open::Labelled
            || (self.open == Open::Listed && label.is_none())
            || (self.open == Open::Bare && label.is_none())
        {
            if let Some(step) = self.out.steps.last_mut() {
                list_items(std::slice::from_ref(node), "K7 box", &mut step.items);
                step.source.line_end = node.line_end;
            }
            entries.iter().for_each(|e| self.attach_all(&e.nodes));
            return;
        }
        let phase = self.phase_of(label);
        match titled {
            Some((title, line)) if entries.len() > 1 || label.is_some() => {
                let mut step = make::empty(self.doc, &title, line, node.line_end, "K7 checklist");
                step.phase = phase;
                list_items(std::slice::from_ref(node), "K7 box", &mut step.items);
                self.out.steps.push(step);
                entries.iter().for_each(|e| self.attach_all(&e.nodes));
                self.open = Open::Labelled;
            }
            _ => {
                for entry in entries {
                    let mut step = make::from_entry(self.doc, entry, phase);
                    step.source.rule = "K7 box".into();
                    self.out.steps.push(step);
                }
                self.open = Open::Listed;
            }
        }
    }

    /// K5: bullets under an action label are one step; under a neutral one only when most of them are instructions.
    pub(super) fn bullets(&mut self, node: &Node, entries: &[Entry], label: Option<&Label>) {
        if self.open == Open::Labelled {
            if let Some(step) = self.out.steps.last_mut() {
                list_items(std::slice::from_ref(node), "K5 bullet", &mut step.items);
                step.source.line_end = node.line_end;
            }
            entries.iter().for_each(|e| self.attach_all(&e.nodes));
            return;
        }
        if self.open != Open::No {
            self.prose(node);
            entries.iter().for_each(|e| self.attach_all(&e.nodes));
            return;
        }
        if self.procedures(entries, self.phase_of(label)) {
            return;
        }
        let metadata = entries.iter().all(|e| first_words(e).is_some_and(|i| outline::metadata(&i.flat()).is_some()));
        let acting = entries.iter().filter(|e| first_words(e).is_some_and(|i| is_imperative(i.text.trim()))).count();
        let mostly = acting * 2 > entries.len();
        let mut fences = Vec::new();
        super::doc::fences_in(std::slice::from_ref(node), &mut fences);
        let runs = fences
            .iter()
            .any(|f| self.doc.blocks.get(*f).is_some_and(|b| matches!(b.role, BlockRole::Run | BlockRole::Query)));
        let wanted = match label {
            // What a detection section lists are usually signals.
            Some(label) if phase(&label.title.norm) == Some(Phase::Detect) => mostly || runs,
            Some(label) => acts(label) || mostly || runs,
            None if self.container.acting && self.container.phase != Some(Phase::Detect) => true,
            None => mostly || runs,
        };
        if metadata || !wanted {
            self.prose(node);
            return;
        }
        let (title, line) = match label {
            Some(label) => (label.title.clean.clone(), label.line),
            None if self.container.root => (self.container.fallback.clone(), node.line),
            None => (self.container.title.clone(), self.container.line),
        };
        let mut step = make::empty(self.doc, &title, line, node.line_end, "K5 bullets");
        step.phase = self.phase_of(label);
        step.estimate_s = label.and_then(|l| l.title.estimate_s);
        list_items(std::slice::from_ref(node), "K5 bullet", &mut step.items);
        super::doc::links_in(std::slice::from_ref(node), &mut step.links);
        self.out.steps.push(step);
        fences.into_iter().for_each(|f| self.attach(f));
        self.open = Open::Labelled;
    }

    /// `* **Procedure**:` over an ordered list: that list is the steps. True when there was one.
    fn procedures(&mut self, entries: &[Entry], phase: Option<Phase>) -> bool {
        let mut any = false;
        for entry in entries {
            let lead = first_words(entry).map(|i| words::norm(&i.flat())).unwrap_or_default();
            let acting = words::any(&lead, words::ACTING) && !is_info(&lead) && lead.split(' ').count() <= 4;
            for node in &entry.nodes {
                match &node.kind {
                    Kind::List(Some(_), inner) if acting => {
                        self.ordered_under(inner, phase);
                        any = true;
                    }
                    Kind::List(None, inner) => any |= self.procedures(inner, phase),
                    _ => {}
                }
            }
        }
        any
    }

    fn ordered_under(&mut self, entries: &[Entry], phase: Option<Phase>) {
        for entry in entries {
            self.out.steps.push(make::from_entry(self.doc, entry, phase));
        }
        self.open = Open::Listed;
    }
}
