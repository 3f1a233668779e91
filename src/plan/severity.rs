//! Severity of a scenario (M1) and its level through the document's own scale (M2).

use crate::model::plan::Severity;

use super::doc::Doc;
use super::outline;
use super::title::severity_token;
use super::tree::Kind;
use super::words;

/// What the document itself says about its scale.
#[derive(Debug, Default)]
pub struct Scale {
    /// Codes that a matrix or list explains with a level word: `p1` → 0 (critical).
    codes: Vec<(String, u8)>,
    /// Whether the scale begins at 1: some P2 to P5 occurs and no P0. Then P1 is the top. A P1 that stands alone is no scale
    /// and means what it says.
    from_one: bool,
    /// Whether the highest number is the worst (SEV4 worst).
    reversed: bool,
}

#[rustfmt::skip]
const WORDS: &[(u8, &[&str])] = &[
    ( 0, &[ "critical", "emergency", "catastroph", "urgent", "blocker", "highest", "crítica", "crítico", "critique", "kritisch", "критич", "严重", "紧急", ], ),
    (1, &["high$", "major", "severe", "alta$", "alto$", "élevé", "hoch$", "высок", "高"]),
    (2, &["medium", "moderate", "warning", "minor impact", "média", "media$", "moyen", "mittel", "средн", "中"]),
    (3, &["low$", "minor", "info$", "informational", "baixa", "baja", "faible", "niedrig", "низк", "低"]),
];

impl Scale {
    /// Reads the document's scale from its headings, tables and lists.
    pub fn of(doc: &Doc) -> Self {
        let text = &doc.text.text;
        let mut scale =
            Self { from_one: !text.contains("P0") && !text.contains("p0") && has_lower(text), ..Self::default() };
        for section in &doc.sections {
            for node in &section.nodes {
                match &node.kind {
                    Kind::Table(head, rows)
                        if head.first().is_some_and(|h| {
                            words::any(
                                &words::norm(&h.flat()),
                                &["severity", "priority", "level", "sev$", "class", "severidade", "severidad"],
                            )
                        }) =>
                    {
                        for row in rows {
                            let cells: Vec<String> = row.cells.iter().map(super::inline::Inline::flat).collect();
                            scale.learn(
                                cells.first().map(String::as_str).unwrap_or_default(),
                                cells.get(1).map(String::as_str).unwrap_or_default(),
                            );
                        }
                    }
                    Kind::List(_, entries) => {
                        for entry in entries {
                            if let Some((lead, _)) =
                                super::doc::first_words(entry).and_then(super::inline::Inline::bold_lead)
                            {
                                scale.learn(lead, "");
                            }
                        }
                    }
                    _ => {}
                }
            }
            scale.learn(&section.raw, "");
        }
        let rank = |code: &str| scale.codes.iter().find(|(c, _)| c == code).map(|(_, l)| *l);
        scale.reversed = matches!((rank("sev1").or(rank("sev0")), rank("sev4").or(rank("sev3"))), (Some(low), Some(high)) if low > high);
        scale
    }

    /// `P1 - Critical`, `**SEV1 (Critical)**`, or the word in the next cell.
    fn learn(&mut self, first: &str, second: &str) {
        let text = first.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let Some(code) = severity_token(text) else { return };
        let rest = words::norm(&text[code.len()..]);
        let level = word_level(&rest)
            .or_else(|| second.split_whitespace().count().le(&3).then(|| word_level(&words::norm(second))).flatten());
        if let Some(level) = level {
            let code = normal_code(code);
            if !self.codes.iter().any(|(c, _)| *c == code) {
                self.codes.push((code, level));
            }
        }
    }

    /// The level of a text: 0 (critical, P0) to 3 (low, P3). Conditional text counts as the highest it names.
    pub fn level(&self, raw: &str) -> Option<u8> {
        let mut found: Option<u8> = None;
        let mut note = |level: u8| found = Some(found.map_or(level, |f: u8| f.min(level)));
        let mut rest = raw;
        while let Some(at) = rest.find(['P', 'S', 'p', 's']) {
            let boundary = rest[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
            if boundary && let Some(code) = severity_token(&rest[at..]) {
                note(self.code_level(code));
            }
            rest = rest.get(at + 1..).unwrap_or_default();
        }
        if found.is_some() {
            return found;
        }
        for (symbol, level) in [("🔴", 0), ("🚨", 0), ("🟠", 1), ("🟡", 2), ("🟢", 3), ("🔵", 3)] {
            if raw.contains(symbol) && word_level(&words::norm(raw)).is_none() {
                return Some(level);
            }
        }
        let norm = words::norm(raw);
        if let Some(tier) = norm
            .strip_prefix("tier ")
            .or_else(|| norm.strip_prefix("level "))
            .and_then(|t| t.get(..1))
            .and_then(|d| d.parse::<u8>().ok())
        {
            return Some(tier.saturating_sub(1).min(3));
        }
        word_level(&norm)
    }

    fn code_level(&self, code: &str) -> u8 {
        let normal = normal_code(code);
        if let Some((_, level)) = self.codes.iter().find(|(c, _)| *c == normal) {
            return *level;
        }
        let digit = normal.bytes().rev().find(u8::is_ascii_digit).map_or(0, |b| b - b'0');
        let level = match normal.as_bytes().first() {
            Some(b's') if self.reversed => 4u8.saturating_sub(digit),
            Some(b's') => digit.saturating_sub(1),
            _ if self.from_one => digit.saturating_sub(1),
            _ => digit,
        };
        level.min(3)
    }
}

/// Whether a word P2 to P5 occurs, in capitals: the lower levels of a scale.
fn has_lower(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|w| matches!(w, "P2" | "P3" | "P4" | "P5"))
}

/// `SEV-1/2` → `sev1`: the highest of a range.
fn normal_code(code: &str) -> String {
    let lower = code.to_lowercase();
    let prefix = if lower.starts_with("sev") { "sev" } else { lower.get(..1).unwrap_or_default() };
    let digit = lower.bytes().filter(u8::is_ascii_digit).min().map_or('0', char::from);
    format!("{prefix}{digit}")
}

fn word_level(norm: &str) -> Option<u8> {
    WORDS.iter().find(|(_, stems)| words::any(norm, stems)).map(|(l, _)| *l)
}

/// A severity, when the text names a level.
pub fn severity(scale: &Scale, raw: &str, line: u32, rule: &str) -> Option<Severity> {
    let level = scale.level(raw)?;
    let shown = raw.trim().trim_end_matches(['.', ',']).to_string();
    Some(Severity { level: format!("P{level}"), raw: shown, line, rule: rule.into() })
}

/// M1, in order: annotation, `Severity: x` in the section or below it, the heading, a triage table, a heading above.
pub fn of_section(doc: &Doc, scale: &Scale, section: usize) -> Option<Severity> {
    let here = &doc.sections[section];
    let noted = here.notes.iter().find_map(|n| Some((n.attrs.get("severity")?, n.line)));
    if let Some((raw, line)) = noted {
        return severity(scale, raw, line, "M1 annotation");
    }
    if let Some(found) = stated(doc, scale, section) {
        return Some(found);
    }
    let heading = |s: usize, rule: &str| {
        doc.sections[s].title.severity.as_ref().and_then(|raw| severity(scale, raw, doc.sections[s].line, rule))
    };
    heading(section, "M1 heading")
        .or_else(|| marked_by_symbol(doc, scale, section))
        .or_else(|| triage_table(doc, scale, section))
        .or_else(|| {
            doc.ancestors(section).find_map(|a| heading(a, "M1 heading above").or_else(|| level_heading(doc, scale, a)))
        })
}

fn marked_by_symbol(doc: &Doc, scale: &Scale, section: usize) -> Option<Severity> {
    let here = &doc.sections[section];
    let symbol = ["🔴", "🟠", "🟡", "🟢"].into_iter().find(|s| here.raw.contains(s))?;
    severity(scale, symbol, here.line, "M1 symbol")
}

/// "P0 SCENARIOS", "Critical incidents" above the scenario.
fn level_heading(doc: &Doc, scale: &Scale, section: usize) -> Option<Severity> {
    let here = &doc.sections[section];
    if let Some(code) = severity_token(here.raw.trim_start_matches(|c: char| !c.is_ascii_alphanumeric())) {
        return severity(scale, code, here.line, "M1 heading above");
    }
    // "Critical alerts", "High priority incidents": a level and what it is the level of, nothing else.
    let mut tokens = here.title.tokens();
    let level = tokens.next().filter(|w| matches!(*w, "critical" | "high" | "medium" | "warning" | "low"))?;
    let plain = tokens.all(|w| {
        ["severity", "priority", "alert", "incident", "issue", "scenario", "problem", "failure"]
            .iter()
            .any(|s| w.starts_with(s))
    });
    (plain && here.level > 1).then(|| severity(scale, level, here.line, "M1 heading above"))?
}

/// `**Severity**: Critical`, `- Severity: P1`, `### Severity: SEV1 (Critical)`, `| Severity | High |`.
fn stated(doc: &Doc, scale: &Scale, section: usize) -> Option<Severity> {
    let range = doc.subtree(section);
    let own =
        |i: usize| i == section || (doc.sections[i].parent == Some(section) && doc.sections[i].title.ordinal.is_none());
    range.filter(|i| own(*i)).find_map(|i| {
        let s = &doc.sections[i];
        if i != section
            && let Some((label, value)) = outline::metadata(&s.raw).filter(|(l, _)| is_severity(l))
        {
            let _ = label;
            return severity(scale, &value, s.line, "M1 heading below");
        }
        s.nodes.iter().find_map(|node| match &node.kind {
            Kind::Paragraph(inline) => line_severity(scale, &outline::lines(inline, node.line), "M1 label"),
            Kind::List(None, entries) => entries.iter().find_map(|e| {
                let inline = super::doc::first_words(e)?;
                line_severity(scale, &outline::lines(inline, e.line), "M1 list item")
            }),
            Kind::Table(head, rows) => {
                let pairs = std::iter::once((head, node.line)).chain(rows.iter().map(|r| (&r.cells, r.line)));
                pairs.into_iter().find_map(|(cells, line)| {
                    let (name, value) = (cells.first()?.flat(), cells.get(1)?.flat());
                    (cells.len() == 2 && is_severity(&words::norm(&name)))
                        .then(|| severity(scale, &value, line, "M1 table"))?
                })
            }
            Kind::Quote(inner) => inner.iter().find_map(|n| {
                if let Kind::Paragraph(i) = &n.kind {
                    line_severity(scale, &outline::lines(i, n.line), "M1 label")
                } else {
                    None
                }
            }),
            _ => None,
        })
    })
}

fn line_severity(scale: &Scale, lines: &[(String, u32)], rule: &str) -> Option<Severity> {
    lines.iter().find_map(|(text, line)| {
        let (label, value) = outline::metadata(text)?;
        is_severity(&label).then(|| severity(scale, &value, *line, rule))?
    })
}

fn is_severity(label: &str) -> bool {
    words::any(
        label,
        &["severity", "priority", "severidade", "severidad", "prioridad", "prioridade", "gravité", "schweregrad"],
    ) && label.split(' ').count() <= 3
}

/// A row whose first cell names the section, in a table with a severity column.
fn triage_table(doc: &Doc, scale: &Scale, section: usize) -> Option<Severity> {
    let wanted = &doc.sections[section].title.norm;
    doc.sections.iter().flat_map(|s| &s.nodes).find_map(|node| {
        let Kind::Table(head, rows) = &node.kind else { return None };
        let column = head.iter().position(|h| is_severity(&words::norm(&h.flat())))?;
        (column > 0).then_some(())?;
        rows.iter().find_map(|row| {
            let name = super::title::Title::parse(&row.cells.first()?.flat()).norm;
            (!name.is_empty() && (name == *wanted || wanted.starts_with(&format!("{name} "))))
                .then(|| severity(scale, &row.cells.get(column)?.flat(), row.line, "M1 triage table"))?
        })
    })
}
