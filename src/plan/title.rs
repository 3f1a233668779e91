//! A heading or label taken apart: emoji, numbering, "Scenario 2:", severity and estimate off; what is left is the title.

use super::span;
use super::words;

/// A heading as understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Title {
    /// The words for people.
    pub clean: String,
    /// [`words::norm`] of `clean`, without an objective in parentheses at its end.
    pub norm: String,
    /// Its number, such as `2` or `3.1`.
    pub ordinal: Option<String>,
    /// Marked "Scenario X".
    pub scenario: bool,
    /// Marked "Step N", "Phase N" or "Part N".
    pub step: bool,
    /// Marked "Runbook:" or "Playbook:".
    pub runbook: bool,
    /// Marked "Incident:", "Alert:", "Issue:", "Symptom:" …
    pub unit: bool,
    /// Severity token in it, as written: `P0`, `SEV-1/2`.
    pub severity: Option<String>,
    /// "(5 minutes)" at its end, in seconds.
    pub estimate_s: Option<u64>,
}

impl Title {
    /// Takes a heading apart.
    pub fn parse(raw: &str) -> Self {
        let mut title = Self::default();
        let mut rest = raw.split_whitespace().collect::<Vec<_>>().join(" ");
        // Each pass takes one mark off; a heading has few.
        for _ in 0..12 {
            let before = rest.clone();
            rest = strip_symbols(&rest).to_string();
            for rule in [ordinal, numbered_word, severity_prefix, named_unit, suffix] {
                if let Some(left) = rule(&rest, &mut title)
                    && left.chars().any(char::is_alphanumeric)
                {
                    rest = left;
                }
            }
            if rest == before {
                break;
            }
        }
        title.clean = rest.trim().trim_end_matches([':', '：']).trim().to_string();
        title.norm = words::norm(without_objective(&title.clean));
        title
    }

    /// Its words.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.norm.split(' ').filter(|w| !w.is_empty())
    }
}

/// Emoji and dingbats at both ends, dashes at the start.
fn strip_symbols(text: &str) -> &str {
    let keep = |c: char| c.is_alphanumeric() || (c.is_ascii() && !"*_#-:".contains(c)) || "“«\"¿¡".contains(c);
    let text = text.trim_start_matches(|c: char| !keep(c) || c.is_whitespace());
    text.trim_end_matches(|c: char| {
        c.is_whitespace() || (!c.is_alphanumeric() && !c.is_ascii() && !"”»）】…".contains(c)) || "*_#".contains(c)
    })
}

/// `1.`, `1)`, `3.1`, `A.`, `(2)`, `1️⃣`, `§3`.
fn ordinal(text: &str, title: &mut Title) -> Option<String> {
    let body = text.strip_prefix(['(', '§', '[']).unwrap_or(text);
    let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
    let number = body[..end].trim_end_matches('.');
    let after = &body[number.len()..];
    if !number.is_empty() && number.len() <= 8 && number.starts_with(|c: char| c.is_ascii_digit()) {
        let marked = after.starts_with(['.', ')', ':', ']', '、', '．'])
            || after.starts_with("\u{fe0f}")
            || after.starts_with('\u{20e3}')
            || number.contains('.')
            || text.starts_with(['§', '(']);
        let dashed = ["- ", "– ", "— "].iter().any(|d| after.trim_start().starts_with(d));
        if marked || dashed {
            let left = after.trim_start_matches(['.', ')', ':', ']', '、', '．', '\u{fe0f}', '\u{20e3}']);
            // `503. x` is a number, `1.5 GB` and `24/7` are not ordinals.
            let spaced =
                left.is_empty() || left.starts_with([' ', '\u{a0}']) || !left.starts_with(|c: char| c.is_ascii());
            if spaced && number.split('.').all(|p| p.len() <= 3) {
                title.ordinal.get_or_insert_with(|| number.to_string());
                return Some(left.trim_start_matches([' ', '-', '–', '—']).to_string());
            }
        }
        return None;
    }
    let mut chars = text.chars();
    if let (Some(letter), Some('.' | ')')) = (chars.next(), chars.next())
        && letter.is_ascii_uppercase()
        && chars.as_str().starts_with(' ')
    {
        title.ordinal.get_or_insert_with(|| letter.to_string());
        return Some(chars.as_str().trim_start().to_string());
    }
    None
}

#[rustfmt::skip]
const STEP_WORDS: &[&str] = &[
    "step", "phase", "part", "stage", "etapa", "passo", "paso", "fase", "schritt", "étape", "шаг", "этап", "步骤", "faza", "etape", "krok", "fáze",
    "第",
];
#[rustfmt::skip]
const SECTION_WORDS: &[&str] = &[
    "section", "procedure", "chapter", "appendix", "annex", "playbook", "runbook", "case", "use case", "incident",
    "procedimento", "seção", "sección", "abschnitt", "раздел",
];

/// `Scenario A: x`, `DR Scenario 2 — x`, `Step 3: x`, `Section 2 — x`.
fn numbered_word(text: &str, title: &mut Title) -> Option<String> {
    let lower = text.to_lowercase();
    // Lower-casing can change lengths outside ASCII; positions are only used when they cannot have moved.
    let aligned = lower.len() == text.len();
    for word in words::SCENARIO {
        let Some(at) = lower.find(word).filter(|_| aligned) else { continue };
        let lead = &lower[..at];
        if lead.split_whitespace().count() > 2 || lead.contains([':', '(', '-']) {
            continue;
        }
        let after = &text[at + word.len()..];
        if after.starts_with(|c: char| c.is_ascii_alphabetic()) {
            continue; // "scenarios"
        }
        if let Some(left) = strip_id_and_separator(after) {
            title.scenario = true;
            return Some(left);
        }
        if after.trim().len() <= 3 && !after.trim().is_empty() {
            title.scenario = true; // "Scenario A" alone keeps its name
        }
        return None;
    }
    for (words, step) in [(STEP_WORDS, true), (SECTION_WORDS, false)] {
        for word in words {
            let Some(after) = lower.starts_with(word).then(|| text.get(word.len()..)).flatten() else { continue };
            if !after.starts_with([' ', '-', '#']) && !word.starts_with(|c: char| !c.is_ascii()) {
                continue;
            }
            let (id, _) = take_id(after);
            if id.is_empty() || !id.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase()) {
                continue;
            }
            if let Some(left) = strip_id_and_separator(after) {
                if step {
                    title.step = true;
                }
                title.ordinal.get_or_insert_with(|| id.to_string());
                return Some(left);
            }
        }
    }
    None
}

/// The identifier after "Scenario": digits, digits with dots, one letter, or a letter with digits.
fn take_id(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches([' ', '#', '-']);
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(text.len());
    let id = text[..end].trim_end_matches('.');
    let short = id.len() <= 5
        && (id.len() == 1 || id.bytes().any(|b| b.is_ascii_digit()) || id.chars().all(|c| "IVX".contains(c)));
    if short { (id, &text[id.len()..]) } else { ("", text) }
}

/// After a marking word: optional id, then `:`, `.`, `)`, a dash, or for an id just a space; the rest.
fn strip_id_and_separator(after: &str) -> Option<String> {
    let (id, rest) = take_id(after);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('(').and_then(|r| r.split_once(')')).map_or(rest, |(_, r)| r.trim_start());
    let separated = rest.trim_start_matches([':', '：', '.', ')', '-', '–', '—', '|', '、']);
    let has_separator = separated.len() < rest.len();
    let left = separated.trim();
    (!left.is_empty() && (has_separator || (!id.is_empty() && rest.len() < after.len()))).then(|| left.to_string())
}

/// `P0: x`, `P0 — x`, `[SEV1] x`, `SEV-1: x`, `P0 Incident (x)`.
fn severity_prefix(text: &str, title: &mut Title) -> Option<String> {
    let bare = text.strip_prefix('[').unwrap_or(text);
    let token = severity_token(bare)?;
    let rest = bare[token.len()..].trim_start_matches([']', ')']).trim_start();
    let left = rest.trim_start_matches([':', '：', '-', '–', '—', '|']).trim_start();
    if left.is_empty() {
        return None;
    }
    title.severity.get_or_insert_with(|| token.to_string());
    (left.len() < rest.len() || text.starts_with('[')).then(|| left.to_string())
}

/// A severity code at the start: `P0`…`P5`, `SEV1`, `SEV-1/2` as written. (`S3` is a storage service.)
pub fn severity_token(text: &str) -> Option<&str> {
    let upper_start = |p: &str| text.get(..p.len()).is_some_and(|h| h.eq_ignore_ascii_case(p));
    let prefix = if upper_start("SEV") {
        3
    } else if text.starts_with('P') {
        1
    } else {
        return None;
    };
    let rest = &text[prefix..];
    let rest = if prefix == 3 { rest.trim_start_matches([' ', '-', '_']) } else { rest };
    let digit = rest.chars().next().filter(|c| ('0'..='5').contains(c))?;
    let mut end = text.len() - rest.len() + digit.len_utf8();
    // Ranges: `SEV-1/2`, `P0/P1`, `P0-P1`.
    while let Some(tail) = text.get(end..).and_then(|t| t.strip_prefix(['/', '-', '–'])) {
        let skip = tail.trim_start_matches(|c: char| "PpSsEeVv -".contains(c));
        if !skip.starts_with(|c: char| ('0'..='5').contains(&c)) {
            break;
        }
        end = text.len() - skip.len() + 1;
    }
    let after = text[end..].chars().next();
    after.is_none_or(|c| !c.is_alphanumeric() && c != '.').then(|| &text[..end])
}

#[rustfmt::skip]
const UNITS: &[&str] = &[
    "incident", "alert", "issue", "symptom", "problem", "outage", "failure", "emergency", "disaster", "incidente",
    "problema", "alerta", "problème", "инцидент", "проблема", "故障", "问题",
];
#[rustfmt::skip]
const RUNBOOKS: &[&str] = &[
    "runbook", "playbook", "dr runbook", "incident runbook", "incident playbook", "incident response playbook",
    "recovery runbook", "sop", "procedure", "guide",
];

/// `Runbook: x`, `Alert: x`, `Incident — x`.
fn named_unit(text: &str, title: &mut Title) -> Option<String> {
    let (head, tail) = [": ", "：", " — ", " – ", " - ", " · "]
        .iter()
        .filter_map(|s| text.split_once(s))
        .min_by_key(|(h, _)| h.len())?;
    let head = words::norm(head);
    // "Issue 3: …"
    let head = head.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end().to_string();
    let tail = tail.trim();
    if RUNBOOKS.contains(&head.as_str()) {
        title.runbook = true;
    } else if UNITS.contains(&head.as_str()) {
        title.unit = true;
    } else {
        return None;
    }
    (!tail.is_empty()).then(|| tail.to_string())
}

/// `x (P0)`, `x [SEV1]`, `x (5 minutes)`, `x — P1`.
fn suffix(text: &str, title: &mut Title) -> Option<String> {
    let text = text.trim_end().trim_end_matches([':', '：']);
    let inner = text
        .strip_suffix([')', '）'])
        .and_then(|t| t.rsplit_once(['(', '（']))
        .or_else(|| text.strip_suffix(']').and_then(|t| t.rsplit_once('[')));
    if let Some((head, inner)) = inner {
        let inner = inner.trim();
        if let Some(token) = severity_token(inner) {
            title.severity.get_or_insert_with(|| inner.trim_end_matches(['.', ':']).to_string());
            let _ = token;
            return Some(head.trim_end().to_string());
        }
        if matches!(words::norm(inner).as_str(), "critical" | "high" | "medium" | "low") {
            title.severity.get_or_insert_with(|| inner.to_string());
            return Some(head.trim_end().to_string());
        }
        if let Some(seconds) = span::whole(inner) {
            title.estimate_s.get_or_insert(seconds);
            return Some(head.trim_end().to_string());
        }
        return None;
    }
    for dash in [" — ", " – ", " - "] {
        if let Some((head, tail)) = text.rsplit_once(dash)
            && let Some(token) = severity_token(tail.trim())
            && token.len() == tail.trim().len()
        {
            title.severity.get_or_insert_with(|| token.to_string());
            return Some(head.trim_end().to_string());
        }
    }
    None
}

/// "Database restore (RTO: 30 minutes)" without what is in parentheses: the objective says nothing of what the heading is
/// for. A title that only names the objective keeps it.
fn without_objective(clean: &str) -> &str {
    let Some((before, after)) = clean.split_once(['(', '（']) else { return clean };
    let inner = words::norm(after);
    let states = inner.starts_with("rto ") || inner.starts_with("rpo ");
    let named = words::any(&words::norm(before), words::OBJECTIVES);
    if states && !named && inner.bytes().any(|b| b.is_ascii_digit()) { before.trim_end() } else { clean }
}
