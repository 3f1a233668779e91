//! What checks, targets, losses, servers and sizes are called inside a sentence.

use std::time::Duration;

use crate::export::clean;
use crate::export::timeline::duration;
use crate::model::event::{Check, Verdict};
use crate::model::format_clock;
use crate::model::target::{Candidate, Identity, Loss, RecoveryTarget};

/// A check as one line.
pub(in crate::export) fn check_words(check: &Check) -> String {
    format!("{} {}: {}", verdict_word(check.verdict), clean(&check.name), clean(&check.detail))
}

/// A verdict in words.
pub(in crate::export) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::NotAvailable => "not checked",
    }
}

/// How many checks passed, failed, could not be made.
pub(in crate::export) fn tally(checks: &[Check]) -> String {
    let n = |v| checks.iter().filter(|c| c.verdict == v).count();
    let mut out = format!("{} passed, {} failed", n(Verdict::Passed), n(Verdict::Failed));
    if n(Verdict::NotAvailable) > 0 {
        out += &format!(", {} not checked", n(Verdict::NotAvailable));
    }
    out
}

/// A moment that is offered, in words.
pub(super) fn candidate_words(c: &Candidate) -> String {
    let (target, at, what) = (target_words(&c.target), c.at.date_hms(), clean(&c.what));
    // What was dropped or emptied has no rows to count.
    let rows = if c.rows > 0 { format!("; {} rows", grouped(c.rows)) } else { String::new() };
    let loses = format!("going back to it as a whole loses {}", loss_words(&c.loses));
    if c.target == RecoveryTarget::Latest {
        return format!("{target}, {at} UTC: {what}{rows}; {loses}");
    }
    format!("{at} UTC, before {target}: {what}{rows}; {loses}")
}

/// Where a recovery stops, in words.
pub(in crate::export) fn stop_words(target: &RecoveryTarget) -> String {
    match target {
        RecoveryTarget::Latest => target_words(target),
        _ => format!("just before {}", target_words(target)),
    }
}

/// A recovery target in words.
pub(in crate::export) fn target_words(target: &RecoveryTarget) -> String {
    match target {
        RecoveryTarget::Time(t) => format!("{t}"),
        RecoveryTarget::Lsn(l) => format!("log position {}", clean(l)),
        RecoveryTarget::Xid(x) => format!("transaction {}", clean(x)),
        RecoveryTarget::Name(n) => format!("restore point “{}”", clean(n)),
        RecoveryTarget::Latest => "the end of the archive".into(),
    }
}

/// A loss in words.
pub(in crate::export) fn loss_words(loss: &Loss) -> String {
    let bound = if loss.at_most { "at most " } else { "" };
    let window = match Duration::from_millis(loss.window_ms) {
        d if d.as_secs() < 60 => duration(d),
        d => format_clock(d),
    };
    match loss.transactions {
        Some(1) => format!("{bound}{window}, 1 transaction"),
        Some(n) => format!("{bound}{window}, {} transactions", grouped(n)),
        None => format!("{bound}{window}"),
    }
}

/// A server in words.
pub(super) fn identity_words(i: &Identity) -> String {
    format!(
        "{} at {}:{}, system {}, timeline {}",
        clean(&i.database),
        clean(&i.host),
        i.port,
        clean(&i.system_identifier),
        i.timeline
    )
}

/// Bytes as people read them, in powers of ten.
pub(in crate::export) fn size(bytes: u64) -> String {
    let mut unit = "B";
    let mut tenths = u128::from(bytes) * 10;
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if tenths < 10_000 {
            break;
        }
        tenths /= 1000;
        unit = next;
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

/// A number with its digits in groups of three: `4 120`.
pub(in crate::export) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}'); // narrow, and no line break in it
        }
        out.push(c);
    }
    out
}

/// The text with its first letter in upper case.
pub(super) fn capital(text: String) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(c) => c.to_uppercase().chain(chars).collect(),
        None => text,
    }
}
