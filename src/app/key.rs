//! Keys as the console knows them, and how they are written: `j`, `G`, `enter`, `ctrl-d`, `g g`.
//!
//! The terminal's own key type stays in `tui`; this one can be written in a key file, a test and a hint line.

use std::fmt;
use std::str::FromStr;

/// What was pressed, without modifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A printable character, as the keyboard layout gave it (`G`, not shift-g).
    Char(char),
    /// Return.
    Enter,
    /// Escape.
    Esc,
    /// Tabulator.
    Tab,
    /// Shift and tabulator.
    BackTab,
    /// Rub out to the left.
    Backspace,
    /// Rub out under the cursor.
    Delete,
    /// Arrow.
    Up,
    /// Arrow.
    Down,
    /// Arrow.
    Left,
    /// Arrow.
    Right,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// One page back.
    PageUp,
    /// One page on.
    PageDown,
    /// Function key.
    F(u8),
}

/// A key with its modifiers. Shift is part of the character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What was pressed.
    pub code: Code,
    /// With control.
    pub ctrl: bool,
    /// With alt (option, meta).
    pub alt: bool,
}

impl Key {
    /// A key without modifiers.
    pub const fn plain(code: Code) -> Self {
        Self { code, ctrl: false, alt: false }
    }
    /// A character without modifiers.
    pub const fn char(c: char) -> Self {
        Self::plain(Code::Char(c))
    }
    /// Control and a character.
    pub const fn ctrl(c: char) -> Self {
        Self { code: Code::Char(c), ctrl: true, alt: false }
    }
    /// The character this key types into a text field, if it does.
    pub fn typed(self) -> Option<char> {
        match self.code {
            Code::Char(c) if !self.ctrl && !self.alt => Some(c),
            _ => None,
        }
    }
    /// As shown in hints: arrows as arrows, the rest as it is written.
    pub fn shown(self, ascii: bool) -> String {
        if ascii || self.ctrl || self.alt {
            return self.to_string();
        }
        match self.code {
            Code::Up => "↑".into(),
            Code::Down => "↓".into(),
            Code::Left => "←".into(),
            Code::Right => "→".into(),
            _ => self.to_string(),
        }
    }
}

const NAMED: &[(&str, Code)] = &[
    ("enter", Code::Enter),
    ("esc", Code::Esc),
    ("tab", Code::Tab),
    ("shift-tab", Code::BackTab),
    ("backspace", Code::Backspace),
    ("delete", Code::Delete),
    ("up", Code::Up),
    ("down", Code::Down),
    ("left", Code::Left),
    ("right", Code::Right),
    ("home", Code::Home),
    ("end", Code::End),
    ("pageup", Code::PageUp),
    ("pagedown", Code::PageDown),
    ("space", Code::Char(' ')),
];

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ctrl {
            f.write_str("ctrl-")?;
        }
        if self.alt {
            f.write_str("alt-")?;
        }
        if let Some((name, _)) = NAMED.iter().find(|(_, c)| *c == self.code) {
            return f.write_str(name);
        }
        match self.code {
            Code::Char(c) => write!(f, "{c}"),
            Code::F(n) => write!(f, "f{n}"),
            // Every other code has a name above.
            _ => Ok(()),
        }
    }
}

impl FromStr for Key {
    type Err = String;

    /// Parses `j`, `ctrl-d`, `alt-x`, `enter`, `f2`; angle brackets around it are allowed (`<enter>`).
    fn from_str(text: &str) -> Result<Self, String> {
        let bare = match text.strip_prefix('<').and_then(|t| t.strip_suffix('>')) {
            Some(inner) if !inner.is_empty() => inner,
            _ => text,
        };
        let mut rest = bare;
        let (mut ctrl, mut alt) = (false, false);
        loop {
            if let Some(r) = rest.strip_prefix("ctrl-").filter(|r| !r.is_empty()) {
                (ctrl, rest) = (true, r);
            } else if let Some(r) = rest.strip_prefix("alt-").filter(|r| !r.is_empty()) {
                (alt, rest) = (true, r);
            } else {
                break;
            }
        }
        let bad = || format!("{text:?} is not a key; write one such as j, G, enter, pageup, f2 or ctrl-d");
        let code = if let Some((_, code)) = NAMED.iter().find(|(n, _)| *n == rest) {
            *code
        } else {
            let mut chars = rest.chars();
            match (chars.next(), chars.as_str()) {
                (Some(c), "") if !c.is_control() => Code::Char(c),
                (Some('f'), n) => match n.parse::<u8>() {
                    Ok(n @ 1..=12) => Code::F(n),
                    _ => return Err(bad()),
                },
                _ => return Err(bad()),
            }
        };
        Ok(Self { code, ctrl, alt })
    }
}

/// Parses keys separated by blanks: `g g`, `j j <enter>`.
pub fn parse_keys(text: &str) -> Result<Vec<Key>, String> {
    text.split_whitespace().map(str::parse).collect()
}
