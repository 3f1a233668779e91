//! A small quote-aware reader of exactly one simple command, as bash would read it; everything else is declined.
//!
//! Declining is always safe (the block stays a shell block); accepting must agree with bash word for word. So whatever
//! bash might expand, split or redirect is declined: globs, braces, tildes, substitutions, operators, comments.

use crate::model::plan::{Piece, Word};

/// The words of a text that is exactly one simple command, or none.
pub fn words(code: &str) -> Option<Vec<Word>> {
    let mut reader =
        Reader { chars: code.trim_matches([' ', '\t', '\n']).chars().peekable(), words: Vec::new(), word: None };
    reader.read()?;
    (!reader.words.is_empty()).then_some(reader.words)
}

/// The words after `breakglass` when the text is exactly one of our own command lines.
pub fn own(code: &str) -> Option<Vec<Word>> {
    // Cheap look first: almost no block is ours.
    code.trim_start().starts_with("breakglass").then_some(())?;
    let mut words = words(code)?;
    let first = words.first()?;
    (first.0 == [Piece::Text("breakglass".into())]).then(|| words.remove(0))?;
    Some(words)
}

struct Reader<'c> {
    chars: std::iter::Peekable<std::str::Chars<'c>>,
    words: Vec<Word>,
    word: Option<Vec<Piece>>,
}

impl Reader<'_> {
    fn read(&mut self) -> Option<()> {
        while let Some(c) = self.chars.next() {
            match c {
                ' ' | '\t' => self.end_word(),
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted()?,
                '\\' => match self.chars.next()? {
                    '\n' => {}
                    c if c.is_control() => return None,
                    c => self.push(c),
                },
                '$' => {
                    let name = self.variable()?;
                    self.word.get_or_insert_default().push(Piece::Bare(name));
                }
                '#' if self.word.is_none() => return None,
                '|' | '&' | ';' | '(' | ')' | '<' | '>' | '`' | '*' | '?' | '[' | '{' | '}' | '~' | '!' | '^' => {
                    return None;
                }
                c if c.is_control() => return None,
                c => self.push(c),
            }
        }
        self.end_word();
        Some(())
    }

    fn push(&mut self, c: char) {
        let word = self.word.get_or_insert_default();
        match word.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => word.push(Piece::Text(c.into())),
        }
    }

    /// Quotes make a word even when nothing stands between them.
    fn push_text(&mut self, text: &str) {
        let word = self.word.get_or_insert_default();
        match word.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            _ => word.push(Piece::Text(text.into())),
        }
    }

    fn end_word(&mut self) {
        if let Some(mut word) = self.word.take() {
            if word.len() > 1 {
                word.retain(|p| !matches!(p, Piece::Text(t) if t.is_empty()));
            }
            self.words.push(Word(word));
        }
    }

    fn single_quoted(&mut self) -> Option<()> {
        let mut text = String::new();
        loop {
            match self.chars.next()? {
                '\'' => break,
                c if c.is_control() && c != '\n' && c != '\t' => return None,
                c => text.push(c),
            }
        }
        self.push_text(&text);
        Some(())
    }

    fn double_quoted(&mut self) -> Option<()> {
        self.push_text("");
        loop {
            match self.chars.next()? {
                '"' => return Some(()),
                '\\' => match self.chars.next()? {
                    '\n' => {}
                    c @ ('$' | '`' | '"' | '\\') => self.push(c),
                    c if c.is_control() && c != '\t' => return None,
                    c => {
                        self.push('\\');
                        self.push(c);
                    }
                },
                '$' => {
                    let name = self.variable()?;
                    self.word.get_or_insert_default().push(Piece::Var(name));
                }
                '`' => return None,
                c if c.is_control() && c != '\n' && c != '\t' => return None,
                c => self.push(c),
            }
        }
    }

    /// `NAME` or `{NAME}` after a `$`; anything else bash would expand otherwise.
    fn variable(&mut self) -> Option<String> {
        let braced = self.chars.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        // bash takes `\` and line end out first: the name would go on at the next line.
        let mut ahead = self.chars.clone();
        if ahead.next() == Some('\\') && ahead.next() == Some('\n') {
            return None;
        }
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || (braced && self.chars.next() != Some('}')) {
            return None;
        }
        Some(name)
    }
}
