//! `CleanText`: the only way from foreign bytes to screen, journal, clipboard or export.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text without control characters, escape sequences or invisible direction marks.
///
/// Escape sequences are removed whole, tabs expanded to the next multiple of 8, a carriage return overwrites the line,
/// bidirectional and zero-width characters are shown as `<U+202E>`, invalid UTF-8 becomes U+FFFD.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct CleanText(String);

impl CleanText {
    /// Cleans one line (no newline) of foreign bytes.
    pub fn line(bytes: &[u8]) -> Self {
        Self(clean_line(&String::from_utf8_lossy(bytes)))
    }
    /// Cleans text of several lines; newlines stay.
    pub fn text(text: &str) -> Self {
        let mut out = String::with_capacity(text.len());
        for (i, line) in text.split('\n').enumerate() {
            if i > 0 {
                out.push('\n');
            }
            out.push_str(&clean_line(line));
        }
        Self(out)
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for CleanText {
    fn from(s: String) -> Self {
        Self::text(&s)
    }
}
impl From<&str> for CleanText {
    fn from(s: &str) -> Self {
        Self::text(s)
    }
}
impl From<CleanText> for String {
    fn from(t: CleanText) -> Self {
        t.0
    }
}
impl fmt::Display for CleanText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn clean_line(line: &str) -> String {
    // The common case allocates once and copies once.
    if line.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return line.to_string();
    }
    let mut out = String::with_capacity(line.len());
    let mut start = 0; // where the visible line begins in `out`
    let mut column = 0usize;
    let mut overwrite = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if overwrite && c != '\r' && c != '\n' {
            out.truncate(start);
            column = 0;
            overwrite = false;
        }
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\u{9b}' => skip_csi(&mut chars),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut chars),
            '\r' => overwrite = true,
            '\n' => {
                out.push('\n');
                start = out.len();
                column = 0;
            }
            '\t' => {
                let n = 8 - column % 8;
                out.extend(std::iter::repeat_n(' ', n));
                column += n;
            }
            c if is_invisible(c) => {
                let shown = format!("<U+{:04X}>", c as u32);
                column += shown.len();
                out.push_str(&shown);
            }
            c if c.is_control() => {}
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{061c}' | '\u{180e}' | '\u{00ad}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        && c != '\u{200d}'
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_escape(chars: &mut Chars<'_>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_csi(chars);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            skip_string(chars);
        }
        Some(&c) if (' '..='/').contains(&c) => {
            while chars.next_if(|c| (' '..='/').contains(c)).is_some() {}
            chars.next_if(|c| ('0'..='~').contains(c));
        }
        Some(&c) if ('0'..='~').contains(&c) => {
            chars.next();
        }
        _ => {}
    }
}

fn skip_csi(chars: &mut Chars<'_>) {
    while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
    chars.next_if(|c| ('@'..='~').contains(c));
}

fn skip_string(chars: &mut Chars<'_>) {
    while let Some(c) = chars.next() {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                chars.next_if(|c| *c == '\\');
                return;
            }
            _ => {}
        }
    }
}
