//! Commands of ours that a message offers, as they can be typed.

use std::ffi::OsStr;

use crate::model::target::RecoveryTarget;
use crate::process::spawn::quoted;

/// The recovery to this target: just before it, or just `after` it, with these words behind.
pub fn restore(target: &RecoveryTarget, after: bool, more: &[(&str, Option<&str>)]) -> String {
    let mut words = vec![if after { "--to-after" } else { "--to" }.to_string(), target.to_string()];
    for (option, value) in more {
        words.push((*option).to_string());
        words.extend(value.map(str::to_string));
    }
    let words: Vec<String> = words.iter().map(|w| quoted(OsStr::new(w))).collect();
    format!("breakglass pitr restore {}", words.join(" "))
}

/// What looks at a recovered instance, and what puts it into service then.
pub fn next(root: &std::path::Path) -> String {
    let root = quoted(root.as_os_str());
    format!(
        "breakglass pitr verify --shadow {root}; then, to put it into service, breakglass pitr promote --shadow {root}"
    )
}

/// What stops and removes a recovered or half-recovered instance.
pub fn discard(root: &std::path::Path) -> String {
    format!("breakglass pitr discard --shadow {}", quoted(root.as_os_str()))
}
