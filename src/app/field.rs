//! A line of text being edited.

use unicode_segmentation::UnicodeSegmentation;

use super::key::{Code, Key};

/// A change of the text or of the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Rub out to the left.
    Backspace,
    /// Rub out at the cursor.
    Delete,
    /// Rub out the word to the left.
    DeleteWord,
    /// Rub out everything to the left.
    DeleteLine,
    /// One to the left.
    Left,
    /// One to the right.
    Right,
    /// To the beginning.
    Home,
    /// To the end.
    End,
}

impl Edit {
    /// The editing key, as in most shells.
    pub fn from_key(key: Key) -> Option<Self> {
        Some(match (key.code, key.ctrl) {
            (Code::Backspace, false) | (Code::Char('h'), true) => Self::Backspace,
            (Code::Delete, false) => Self::Delete,
            (Code::Char('w'), true) | (Code::Backspace, true) => Self::DeleteWord,
            (Code::Char('u'), true) => Self::DeleteLine,
            (Code::Left, false) => Self::Left,
            (Code::Right, false) => Self::Right,
            (Code::Home, false) | (Code::Char('a'), true) => Self::Home,
            (Code::End, false) | (Code::Char('e'), true) => Self::End,
            _ => return None,
        })
    }
}

/// Text with a cursor, counted in graphemes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    text: String,
    at: usize,
}

impl Line {
    /// A text with the cursor at its end.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let at = text.graphemes(true).count();
        Self { text, at }
    }
    /// A text with the cursor at a place, in bytes from the beginning.
    pub fn at(text: impl Into<String>, byte: usize) -> Self {
        let text = text.into();
        let at = text.grapheme_indices(true).take_while(|(i, _)| *i < byte).count();
        Self { text, at }
    }
    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// Cursor, in graphemes from the beginning.
    pub fn cursor(&self) -> usize {
        self.at
    }
    /// Types a character.
    pub fn insert(&mut self, c: char) {
        let byte = self.byte(self.at);
        self.text.insert(byte, c);
        // Combining characters join what is before them: count again instead of adding one.
        self.at = self.text[..byte + c.len_utf8()].graphemes(true).count();
    }
    /// Pastes a text: one line, control characters dropped, so a pasted line break accepts nothing.
    pub fn paste(&mut self, text: &str) {
        let clean = crate::model::CleanText::text(&text.replace(['\r', '\n'], " "));
        for c in clean.as_str().chars() {
            self.insert(c);
        }
    }
    /// Applies an editing key.
    pub fn edit(&mut self, edit: Edit) {
        match edit {
            Edit::Left => self.at = self.at.saturating_sub(1),
            Edit::Right => self.at = (self.at + 1).min(self.len()),
            Edit::Home => self.at = 0,
            Edit::End => self.at = self.len(),
            Edit::Backspace if self.at > 0 => self.remove(self.at - 1, self.at),
            Edit::Delete if self.at < self.len() => self.remove(self.at, self.at + 1),
            Edit::DeleteLine => self.remove(0, self.at),
            Edit::DeleteWord => {
                let graphemes: Vec<&str> = self.text.graphemes(true).collect();
                let blank = |i: usize| graphemes.get(i).is_none_or(|g| g.trim().is_empty());
                let mut from = self.at;
                while from > 0 && blank(from - 1) {
                    from -= 1;
                }
                while from > 0 && !blank(from - 1) {
                    from -= 1;
                }
                self.remove(from, self.at);
            }
            Edit::Backspace | Edit::Delete => {}
        }
    }
    fn len(&self) -> usize {
        self.text.graphemes(true).count()
    }
    fn byte(&self, grapheme: usize) -> usize {
        self.text.grapheme_indices(true).nth(grapheme).map_or(self.text.len(), |(i, _)| i)
    }
    fn remove(&mut self, from: usize, to: usize) {
        let (a, b) = (self.byte(from), self.byte(to));
        self.text.replace_range(a..b, "");
        self.at = from;
    }
}
