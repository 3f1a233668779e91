//! How durations, sizes and counts are said on the screen.

use std::time::Duration;

use super::data::Process;
use crate::incident::state::Note;
use crate::incident::{Instant, Run, State};
use crate::model::Time;
use crate::model::target::Loss;

/// Two records of one form are no further apart.
const TOGETHER: Duration = Duration::from_secs(5);

/// `4 h`, `1 h 30 min`, `45 s`, `2 d`: two units at most.
pub fn span(d: Duration) -> String {
    let s = d.as_secs();
    let two = |a: u64, ua: &str, b: u64, ub: &str| {
        if b == 0 { format!("{a} {ua}") } else { format!("{a} {ua} {b} {ub}") }
    };
    match s {
        0 if d.as_millis() > 0 => format!("{} ms", d.as_millis()),
        0..60 => format!("{s} s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86_400 => two(s / 3600, "h", s / 60 % 60, "min"),
        _ => two(s / 86_400, "d", s / 3600 % 24, "h"),
    }
}

/// The larger unit only: `12 d`, `3 h`, `5 min`, `20 s`.
pub fn about(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..172_800 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// `12 d ago`, `just now`.
pub fn ago(then: Time, now: Time) -> String {
    let d = now.since(then);
    if d.as_secs() < 5 { "just now".into() } else { format!("{} ago", about(d)) }
}

/// A run by what it runs: `pitr locate`; of a block that is not ours its program.
pub fn ran(run: &Run) -> String {
    const ROOM: usize = 16;
    match run.action.as_str() {
        "sql" => "the query".into(),
        "notify" => "the message".into(),
        "shell" => {
            let lines = run.shown.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
            let program = lines.filter_map(|l| l.split_whitespace().next()).next().unwrap_or_default();
            if program.is_empty() || program.chars().count() > ROOM { "the command".into() } else { program.into() }
        }
        ours => ours.into(),
    }
}

/// `4711 pg_basebackup, 4712 tar and 3 more`; `its processes` when none can be seen.
pub fn processes(left: &[Process]) -> String {
    if left.is_empty() {
        return "its processes".into();
    }
    let named: Vec<String> = left.iter().take(2).map(Process::short).collect();
    let more = if left.len() > 2 { format!(" and {} more", left.len() - 2) } else { String::new() };
    format!("{}{more}", named.join(", "))
}

/// `1.71 GB`, `212 MB`, `830 B` (powers of 1000).
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A number with a thin group mark: `4 120`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// `1 line`, `4 120 lines`.
pub fn plural(n: u64, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{} {word}s", count(n)) }
}

/// What a restore loses: `5:33, 4 120 transactions`, with `at most` when the figures are bounds. Transactions that nobody counted
/// are left out.
pub fn loss(loss: &Loss) -> String {
    loss_about(loss, None)
}

/// As [`loss`]; where nobody counted the transactions, `about` so many.
pub fn loss_about(loss: &Loss, about: Option<u64>) -> String {
    let mut out = String::new();
    if loss.at_most {
        out.push_str("at most ");
    }
    out.push_str(&crate::model::format_clock(Duration::from_millis(loss.window_ms)));
    let about = || about.map(|n| format!("about {}", plural(n, "transaction")));
    if let Some(text) = transactions(loss).or_else(about) {
        out.push_str(", ");
        out.push_str(&text);
    }
    out
}

/// The second half of a loss: `4 120 transactions`; none when nobody counted them.
pub fn transactions(loss: &Loss) -> Option<String> {
    loss.transactions.map(|n| plural(n, "transaction"))
}

/// That a note stands in the journal, and when: `noted at 14:07:43 UTC: support called`.
pub fn noted(note: &Note) -> String {
    let (at, written) = (note.when.at, note.when.recorded);
    let when = match written.since(at).as_secs() > 60 || at > written {
        true => format!("noted for {} UTC, written at {}", at.hms(), written.hms()),
        false => format!("noted at {} UTC", at.hms()),
    };
    format!("{when}: {}", note.text)
}

/// What a declaration or a corrected start changed: `declared as P1; impact moved from 14:03:10 to 14:01:07 UTC (pager)`. None
/// when neither is new.
pub fn declared(old: Option<&State>, new: &State) -> Option<String> {
    let was = old.and_then(|s| s.impact.as_ref());
    let fresh = new.declared.as_ref().filter(|d| old.and_then(|s| s.declared.as_ref()) != Some(*d));
    let impact = new.impact.as_ref().filter(|i| was != Some(*i));
    // Both come from one form, one after the other: the second says the first once more.
    let with = |d: &&Instant| impact.is_some_and(|i| i.recorded.recorded.since(d.recorded) < TOGETHER);
    let severity = fresh.or_else(|| new.declared.as_ref().filter(with)).and(new.severity.as_ref());
    let today = |t: Time| t.date_hms()[..10] == new.last_recorded.date_hms()[..10];
    let clock = |t: Time| if today(t) { t.hms() } else { t.date_hms() };
    let moved = |w: &&crate::incident::state::Impact| impact.is_some_and(|i| clock(i.at) != clock(w.at));
    let start = match (impact, was.filter(moved), &new.impact) {
        // Seen more exactly than it is shown, and known from the same: nothing is new.
        (Some(i), None, _) if was.is_some_and(|w| w.source == i.source) && severity.is_none() => String::new(),
        (Some(i), Some(w), _) => format!("impact moved from {} to {} UTC ({})", clock(w.at), clock(i.at), i.source),
        (Some(i), None, _) => format!("impact since {} UTC ({})", clock(i.at), i.source),
        (None, _, Some(i)) if fresh.is_some() => format!("impact since {} UTC, as before", clock(i.at)),
        _ => String::new(),
    };
    let severity = severity.map(|s| format!("declared as {s}")).unwrap_or_default();
    let parts: Vec<String> = [severity, start].into_iter().filter(|p| !p.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Markdown as plain words: emphasis, code marks and links reduced to their text.
pub fn plain(markdown: &str) -> String {
    let mut out = String::with_capacity(markdown.len());
    let mut chars = markdown.chars().peekable();
    let mut code = false;
    while let Some(c) = chars.next() {
        match c {
            '`' => code = !code,
            '*' if !code => {
                // A list bullet or a multiplication keeps its star; emphasis touches a word.
                let before = out.chars().last().is_none_or(char::is_whitespace);
                let after = chars.peek().is_none_or(|n| n.is_whitespace());
                if before && after {
                    out.push('*');
                }
            }
            '[' if !code => {
                let rest: String = chars.clone().collect();
                match link(&rest) {
                    Some((text, used)) => {
                        out.push_str(&plain(text));
                        for _ in 0..used {
                            chars.next();
                        }
                    }
                    None => out.push('['),
                }
            }
            '\\' if !code && chars.peek().is_some_and(char::is_ascii_punctuation) => {
                out.extend(chars.next());
            }
            c => out.push(c),
        }
    }
    out
}

/// `text](target)` at the beginning: the text and the number of characters used.
fn link(rest: &str) -> Option<(&str, usize)> {
    let close = rest.find(']')?;
    let target = rest[close + 1..].strip_prefix('(')?;
    let end = target.find(')')?;
    if rest[..close].contains('\n') || target[..end].contains(['\n', ' ']) {
        return None;
    }
    Some((&rest[..close], rest[..close + 2 + end + 1].chars().count()))
}
