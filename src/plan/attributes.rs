//! Attributes in a fence's info string: `bash { name=restore risk=destroy timeout=20m }` or JSON; runme's keys understood.

use std::collections::BTreeMap;

/// Keys that mean something to us or to runme; the latter are kept and not complained about.
#[rustfmt::skip]
pub const KNOWN: &[&str] = &[
    "name", "run", "risk", "timeout", "expect", "exit", "host", "cwd", "shell", "capture", "needs", "interactive",
    "background", "approval", "target", "ignore", "excludefromrunall", "promptenv", "interpreter",
    "closeterminalonsuccess", "mimetype", "skipprompts", "tag", "category", "terminalrows", "transform", "id",
    "title", "filename", "linenums", "hl_lines", "copy", "showlinenumbers", "language",
];

/// The language (first word, lower case), the attributes with keys as written, and what could not be read.
pub fn parse(info: &str) -> (String, BTreeMap<String, String>, Vec<String>) {
    let info = info.trim();
    let end = info.find(|c: char| c.is_whitespace() || c == '{' || c == ',').unwrap_or(info.len());
    let lang = info[..end].to_lowercase();
    let rest = info[end..].trim_start_matches([' ', ',']).trim();
    if rest.is_empty() {
        return (lang, BTreeMap::new(), Vec::new());
    }
    let inner = rest.strip_prefix('{').and_then(|r| r.strip_suffix('}'));
    if inner.is_some()
        && let Ok(serde_json::Value::Object(map)) = serde_json::from_str(rest)
    {
        let attrs =
            map.into_iter().map(|(k, v)| (k, v.as_str().map_or_else(|| v.to_string(), str::to_string))).collect();
        return (lang, attrs, Vec::new());
    }
    let (attrs, odd) = pairs(inner.unwrap_or(rest));
    // Without braces it is a caption or a file name more often than attributes: only `key=value` counts there.
    if inner.is_none() {
        let attrs: BTreeMap<_, _> = attrs.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        return (lang, attrs, Vec::new());
    }
    (lang, attrs, odd)
}

/// `key=value`, `key="two words"`, bare `key` (empty value); what is neither is returned beside.
pub fn pairs(text: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let mut out = BTreeMap::new();
    let mut odd = Vec::new();
    let between = |c: char| c.is_whitespace() || c == ',';
    let mut rest = text.trim_start_matches(between);
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || between(c)).unwrap_or(rest.len());
        let key = &rest[..end];
        rest = &rest[end..];
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            match after.chars().next().filter(|c| matches!(c, '"' | '\'')) {
                Some(quote) => {
                    let body = &after[1..];
                    let mut escaped = false;
                    let mut used = body.len();
                    for (i, c) in body.char_indices() {
                        match c {
                            _ if escaped => {
                                value.push(c);
                                escaped = false;
                            }
                            '\\' if quote == '"' => escaped = true,
                            c if c == quote => {
                                used = i + 1;
                                break;
                            }
                            c => value.push(c),
                        }
                    }
                    rest = &body[used..];
                }
                None => {
                    let end = after.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(after.len());
                    value.push_str(&after[..end]);
                    rest = &after[end..];
                }
            }
        }
        let good = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
        if good {
            out.insert(key.to_string(), value);
        } else if !key.is_empty() {
            odd.push(key.to_string());
        }
        rest = rest.trim_start_matches(between);
    }
    (out, odd)
}
