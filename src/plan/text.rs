//! Bytes to text: encodings, line ends, front matter, and the repair of text that was encoded twice.
//!
//! Line numbers never change here: whatever is taken out leaves its line breaks behind.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::model::plan::Notice;

use super::encoding::{Encoding, repair};

/// Documents above this size in bytes are refused: no plan is that long, and reading one must stay quick.
pub const MAX_BYTES: usize = 32 << 20;

/// A document as text, ready to be parsed.
#[derive(Debug, Default)]
pub struct Text {
    /// What is parsed: LF line ends, damage repaired, front matter blanked.
    pub text: String,
    /// The same lines before the repair; equal to `text` when nothing was repaired. Code is taken from here.
    pub unrepaired: String,
    /// Front matter, keys in lower case.
    pub front: BTreeMap<String, String>,
    /// What was repaired or not understood.
    pub notices: Vec<Notice>,
}

/// Reads a document's bytes (rules T1 to T5).
///
/// # Errors
/// A usage error when the document is empty, too large or not text at all.
pub fn read(file: &str, bytes: &[u8]) -> Result<Text> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::usage(format!("{file:?} is too large to be a plan"))
            .why(format!("{} bytes, the limit is {MAX_BYTES}", bytes.len()))
            .hint("Split it, or give only the documents that hold the recovery plan."));
    }
    let mut notices = Vec::new();
    let decoded = decode(file, bytes, &mut notices)?;
    if decoded.trim().is_empty() {
        return Err(Error::usage(format!("{file:?} is empty"))
            .why(format!("{} bytes, none of them text", bytes.len()))
            .hint("A plan is a Markdown document with headings and steps; `breakglass open` without an argument shows the runbooks that are built in."));
    }
    let lines = normalise_line_ends(&decoded);
    let (body, front) = take_front_matter(&lines, &mut notices);
    let body = strip_template_tags(file, body);
    let text = match repair(&body) {
        Some((fixed, encoding)) => {
            notices.push(Notice {
                line: 0,
                text: format!("text repaired: it had been read as {encoding} and stored as UTF-8 again"),
            });
            fixed
        }
        None => body.clone(),
    };
    Ok(Text { text, unrepaired: body, front, notices })
}

/// T1: BOM, UTF-16 with BOM, UTF-8, else Windows-1252 with a notice.
fn decode(file: &str, bytes: &[u8], notices: &mut Vec<Notice>) -> Result<String> {
    if let Some(rest) = bytes.strip_prefix(b"\xef\xbb\xbf") {
        return decode_bytes(file, rest, notices);
    }
    let utf16 = match bytes {
        [0xff, 0xfe, rest @ ..] => Some((rest, u16::from_le_bytes as fn([u8; 2]) -> u16)),
        [0xfe, 0xff, rest @ ..] => Some((rest, u16::from_be_bytes as fn([u8; 2]) -> u16)),
        _ => None,
    };
    if let Some((rest, word)) = utf16 {
        let words: Vec<u16> = rest.as_chunks::<2>().0.iter().map(|pair| word(*pair)).collect();
        notices.push(Notice { line: 0, text: "read as UTF-16".into() });
        let text = String::from_utf16_lossy(&words);
        return if text.contains('\0') { Err(binary(file)) } else { Ok(text) };
    }
    decode_bytes(file, bytes, notices)
}

fn decode_bytes(file: &str, bytes: &[u8], notices: &mut Vec<Notice>) -> Result<String> {
    if looks_binary(bytes) {
        return Err(binary(file));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_string()),
        Err(e) => {
            let line = bytes.iter().take(e.valid_up_to()).filter(|b| **b == b'\n').count() + 1;
            let text = format!("not UTF-8 (first at byte {}): read as Windows-1252", e.valid_up_to());
            notices.push(Notice { line: u32::try_from(line).unwrap_or(u32::MAX), text });
            Ok(bytes.iter().map(|b| Encoding::Windows1252.char_of(*b)).collect())
        }
    }
}

fn binary(file: &str) -> Error {
    Error::usage(format!("{file:?} is not Markdown"))
        .why("its bytes are not text")
        .hint("Give the Markdown source of the plan, not an export of it.")
}

/// NUL bytes, or more than a tenth of other control characters: an image, an archive, a PDF.
fn looks_binary(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"%PDF-") || bytes.contains(&0) {
        return true;
    }
    let odd = bytes.iter().filter(|b| matches!(**b, 1..=8 | 14..=26 | 28..=31 | 127)).count();
    odd * 10 > bytes.len()
}

/// T2: CRLF and lone CR become LF.
fn normalise_line_ends(text: &str) -> String {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text.to_string() }
}

/// T4: a leading `---` or `+++` block is parsed and blanked. What is not `key: value` is kept as text of the key above it.
fn take_front_matter(text: &str, notices: &mut Vec<Notice>) -> (String, BTreeMap<String, String>) {
    let none = |text: &str| (text.to_string(), BTreeMap::new());
    let Some(fence @ ("---" | "+++")) = text.lines().next().map(str::trim_end) else { return none(text) };
    let separator = if fence == "---" { ':' } else { '=' };
    let Some(end) =
        text.lines().skip(1).take(400).position(|l| l.trim_end() == fence || (fence == "---" && l.trim_end() == "..."))
    else {
        return none(text);
    };
    // A thematic break at the top is not front matter: its first line must look like a key.
    let first = text.lines().skip(1).find(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
    if end > 0
        && first.is_some_and(|l| key_value(l, separator).is_none())
        && !first.is_some_and(|l| l.contains(separator))
    {
        return none(text);
    }
    let mut front = BTreeMap::new();
    let mut last: Option<String> = None;
    for (i, line) in text.lines().enumerate().skip(1).take(end) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let nested = line.starts_with([' ', '\t']) || trimmed.starts_with("- ");
        match (key_value(line, separator), &last) {
            (Some((key, value)), _) if !nested => {
                last = Some(key.clone());
                front.insert(key, value);
            }
            (_, Some(key)) if nested => {
                if let Some(value) = front.get_mut(key) {
                    value.push('\n');
                    value.push_str(trimmed);
                }
            }
            _ => notices.push(Notice {
                line: u32::try_from(i + 1).unwrap_or(u32::MAX),
                text: format!("front matter does not parse here: {:?} is not `key{separator} value`; the rest of the plan is read as usual", clip(trimmed)),
            }),
        }
    }
    let blanked: String = text
        .split_inclusive('\n')
        .enumerate()
        .map(|(i, l)| if i <= end + 1 { if l.ends_with('\n') { "\n" } else { "" } } else { l })
        .collect();
    (blanked, front)
}

fn clip(text: &str) -> String {
    text.chars().take(60).collect()
}

fn key_value(line: &str, separator: char) -> Option<(String, String)> {
    let (key, value) = line.split_once(separator)?;
    let key = key.trim().trim_matches('"');
    let good = !key.is_empty() && key.len() <= 60 && key.chars().all(|c| c.is_alphanumeric() || "-_ .".contains(c));
    let spaced = separator == '=' || value.is_empty() || value.starts_with([' ', '\t']);
    let value = value.trim();
    let unquoted = value
        .strip_prefix('"')
        .and_then(|v| v.strip_suffix('"'))
        .or_else(|| value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')))
        .unwrap_or(value);
    (good && spaced).then(|| (key.to_lowercase(), unquoted.to_string()))
}

/// T5: `<% … %>` of `.erb` and `{% … %}` of `.j2` documents are taken out, their line breaks stay.
fn strip_template_tags(file: &str, text: String) -> String {
    let (open, close) = match file.rsplit('.').next() {
        Some("erb") => ("<%", "%>"),
        Some("j2" | "jinja" | "jinja2") => ("{%", "%}"),
        _ => return text,
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(open) {
        let Some(len) = rest[at..].find(close) else { break };
        out.push_str(&rest[..at]);
        out.extend(rest[at..at + len].chars().filter(|c| *c == '\n'));
        rest = &rest[at + len + close.len()..];
    }
    out.push_str(rest);
    out
}
