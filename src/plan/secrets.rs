//! The table of secrets a plan keeps: what there is, how it is changed, what that does to users, how often.

use crate::model::plan::Plan;
use crate::model::{Time, parse_duration};

/// How often a secret is changed when nothing is said, in seconds: 90 days.
pub const EVERY_S: u64 = 90 * 86_400;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretRow {
    /// Its name; never its value.
    pub name: String,
    /// How it is changed.
    pub how: String,
    /// What users notice.
    pub impact: String,
    /// Seconds from one change to the next.
    pub every_s: u64,
    /// When it was changed last, if the table says so.
    pub rotated: Option<Time>,
    /// Line in the document; 0 when not known.
    pub line: u32,
}

/// The rows of every table of secrets of a plan.
pub fn table(plan: &Plan) -> Vec<SecretRow> {
    let mut out: Vec<SecretRow> = Vec::new();
    for extra in plan.extras.iter().filter(|e| e.kind == "rotation") {
        let usual = days_said(&extra.text).unwrap_or(EVERY_S);
        let rows: Vec<(usize, Vec<String>)> = extra
            .text
            .lines()
            .enumerate()
            .filter(|(_, l)| l.trim_start().starts_with('|'))
            .map(|(n, l)| (n, cells(l)))
            .collect();
        let Some((_, head)) = rows.first() else { continue };
        let column = |words: &[&str]| head.iter().position(|h| words.iter().any(|w| h.to_lowercase().contains(w)));
        let name = column(&["secret", "key", "credential", "token"]).unwrap_or(0);
        let how = column(&["procedure", "how", "command", "rotat"]).filter(|i| *i != name);
        let impact = column(&["impact", "effect"]);
        let every = column(&["every", "interval", "frequency", "period"]);
        let last = column(&["last", "rotated on", "changed on"]);
        for (_, row) in rows.iter().skip(1).filter(|(_, r)| !r.iter().all(|c| is_rule(c))) {
            let cell = |i: Option<usize>| i.and_then(|i| row.get(i)).cloned().unwrap_or_default();
            let title = cell(Some(name));
            if title.is_empty() || out.iter().any(|s| s.name == title) {
                continue;
            }
            out.push(SecretRow {
                name: title,
                how: cell(how),
                impact: cell(impact),
                every_s: parse_duration(&cell(every)).ok().map(|d| d.as_secs()).filter(|s| *s > 0).unwrap_or(usual),
                rotated: last.and_then(|_| day(&cell(last))),
                line: extra.source.line,
            });
        }
    }
    out
}

/// The cells of a table's line without emphasis and code marks.
fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|c| c.trim().trim_matches(['`', '*']).trim().to_string()).collect()
}

fn is_rule(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|c| matches!(c, '-' | ':' | ' '))
}

/// "every 90 days" in the words around the table.
fn days_said(text: &str) -> Option<u64> {
    let plain: String = text.lines().filter(|l| !l.trim_start().starts_with('|')).collect::<Vec<_>>().join(" ");
    let plain = plain.replace("**", "").to_lowercase();
    let (_, rest) = plain.split_once("every ")?;
    let mut words = rest.split_whitespace();
    let text = format!("{} {}", words.next()?, words.next()?.trim_matches(|c: char| !c.is_alphanumeric()));
    parse_duration(&text).ok().map(|d| d.as_secs()).filter(|s| *s > 0)
}

fn day(text: &str) -> Option<Time> {
    Time::parse(text).or_else(|_| Time::parse(&format!("{}T00:00:00Z", text.trim()))).ok()
}
