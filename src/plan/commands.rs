//! Shell text to logical commands (C3): continuations, heredocs, open quotes and `if … fi` joined; comments are captions.

/// One piece of a shell text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What it is.
    pub kind: ChunkKind,
    /// First line within the code, from 0.
    pub first: usize,
    /// Its text, all lines.
    pub text: String,
}

/// The kinds of piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// An empty line.
    Blank,
    /// A comment line, `#!` included.
    Comment,
    /// One logical command, over as many lines as it takes.
    Command,
}

/// Splits a shell text into logical commands, comments and blank lines.
pub fn chunks(code: &str) -> Vec<Chunk> {
    let mut out: Vec<Chunk> = Vec::new();
    let mut state = Scan::default();
    let mut open = false;
    for (number, line) in code.lines().enumerate() {
        if open {
            if let Some(last) = out.last_mut() {
                last.text.push('\n');
                last.text.push_str(line);
            }
            open = !state.line(line);
            continue;
        }
        let trimmed = line.trim();
        let kind = if trimmed.is_empty() {
            ChunkKind::Blank
        } else if is_comment(trimmed) {
            ChunkKind::Comment
        } else {
            state = Scan::default();
            open = !state.line(line);
            ChunkKind::Command
        };
        out.push(Chunk { kind, first: number, text: line.to_string() });
    }
    out
}

/// A comment of sh, PowerShell or cmd.
pub fn is_comment(trimmed: &str) -> bool {
    trimmed.starts_with('#')
        || trimmed.starts_with("::")
        || trimmed.get(..4).is_some_and(|h| h.eq_ignore_ascii_case("rem "))
}

/// A comment and the commands it leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stanza {
    /// The comment's first line that is not `#!`, without its mark.
    pub caption: Option<String>,
    /// The number it leads with, if any: `# 2. Restore` → title without the number.
    pub numbered: Option<String>,
    /// First line within the code, from 0.
    pub first: usize,
    /// Its commands with comments between them, as text.
    pub code: String,
    /// How many logical commands.
    pub commands: usize,
}

/// The stanzas of a shell text, each led by a comment; commands before the first comment form one without a caption.
pub fn stanzas(code: &str) -> Vec<Stanza> {
    let mut out: Vec<Stanza> = Vec::new();
    let mut in_comment = false;
    for chunk in chunks(code) {
        match chunk.kind {
            ChunkKind::Blank => in_comment = false,
            ChunkKind::Comment => {
                let text = comment_text(&chunk.text);
                let numbered = numbered(text);
                let shebang = chunk.text.trim_start().starts_with("#!");
                let fresh = out.last().is_none_or(|s| s.commands > 0) || !in_comment || numbered.is_some();
                if fresh && !(shebang && out.is_empty()) {
                    out.push(Stanza { first: chunk.first, ..Stanza::default() });
                }
                if out.is_empty() {
                    out.push(Stanza { first: chunk.first, ..Stanza::default() });
                }
                if let Some(stanza) = out.last_mut() {
                    if stanza.caption.is_none() && !shebang && !text.is_empty() {
                        stanza.caption = Some(numbered.clone().unwrap_or_else(|| text.to_string()));
                    }
                    stanza.numbered = stanza.numbered.take().or(numbered);
                    push_line(&mut stanza.code, &chunk.text);
                }
                in_comment = true;
            }
            ChunkKind::Command => {
                if out.is_empty() {
                    out.push(Stanza { first: chunk.first, ..Stanza::default() });
                }
                if let Some(stanza) = out.last_mut() {
                    stanza.commands += 1;
                    push_line(&mut stanza.code, &chunk.text);
                }
                in_comment = false;
            }
        }
    }
    out
}

fn push_line(code: &mut String, line: &str) {
    if !code.is_empty() {
        code.push('\n');
    }
    code.push_str(line);
}

/// A comment line without its mark and ornament.
pub fn comment_text(line: &str) -> &str {
    let trimmed = line.trim();
    let trimmed = trimmed.get(..4).filter(|h| h.eq_ignore_ascii_case("rem ")).map_or(trimmed, |h| &trimmed[h.len()..]);
    trimmed.trim_start_matches(['#', '!', ':', '-', '=', '*', ' ']).trim_end_matches(['#', '-', '=', '*', ' ', ':'])
}

/// `1. Restore`, `Step 2: Verify`, `3) Check`: the words after the number.
pub fn numbered(text: &str) -> Option<String> {
    let text = text.trim();
    let (stepped, rest) = match text.get(..4) {
        Some(head) if head.eq_ignore_ascii_case("step") => (true, text[4..].trim_start()),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    if end == 0 || end > 2 {
        return None;
    }
    let after = &rest[end..];
    // `3.1 x` is numbered too; `1.5 GB` is not.
    let after = after
        .strip_prefix('.')
        .filter(|a| a.starts_with(|c: char| c.is_ascii_digit()))
        .map_or(after, |a| a.trim_start_matches(|c: char| c.is_ascii_digit()));
    let title = after.trim_start_matches(['.', ')', ':']);
    let marked = title.len() < after.len();
    let title = title.trim_start_matches([' ', '-', '–', '—']).trim();
    (!title.is_empty() && (marked || stepped)).then(|| title.to_string())
}

/// The first word of a command that names a program: assignments, `sudo`, `time` and the like are skipped.
pub fn program(command: &str) -> &str {
    let mut skip_value = false;
    for word in command.split_whitespace() {
        if skip_value {
            skip_value = false;
            continue;
        }
        let assignment = word
            .split_once('=')
            .is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        match word {
            "sudo" | "time" | "nohup" | "exec" | "command" | "env" | "!" | "(" | "{" | "then" | "do" | "else" => {}
            "-u" | "-g" => skip_value = true,
            w if assignment || (w.starts_with('-') && w.len() <= 3) => {}
            w => return w.trim_start_matches(['(', '{', '"', '\'']).rsplit('/').next().unwrap_or(w),
        }
    }
    ""
}

/// Where a scan of shell lines stands.
#[derive(Default)]
struct Scan {
    quote: Option<char>,
    parens: usize,
    blocks: usize,
    heredocs: std::collections::VecDeque<(String, bool)>,
    in_heredoc: bool,
}

impl Scan {
    /// Takes a line in; true when the command is complete after it.
    fn line(&mut self, line: &str) -> bool {
        if self.in_heredoc {
            if let Some((end, tabs)) = self.heredocs.front()
                && (if *tabs { line.trim_start_matches('\t') } else { line }) == end
            {
                self.heredocs.pop_front();
            }
            self.in_heredoc = !self.heredocs.is_empty();
            return self.complete(false);
        }
        let mut chars = line.chars().peekable();
        let mut word = String::new();
        let mut at_command = true;
        let mut continued = false;
        let mut last = ' ';
        while let Some(c) = chars.next() {
            continued = false;
            match (self.quote, c) {
                (Some('\''), '\'') => self.quote = None,
                (Some('\''), _) => {}
                (_, '\\') => {
                    continued = chars.next().is_none();
                    word.push('_');
                }
                (Some(q), c) if c == q => self.quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"' | '`') => {
                    self.quote = Some(c);
                    word.push('_');
                }
                (None, '#') if word.is_empty() && last.is_whitespace() => break,
                (None, '<') if chars.peek() == Some(&'<') => {
                    chars.next();
                    if chars.next_if_eq(&'<').is_none() {
                        self.heredoc(&mut chars);
                    }
                }
                (None, c) if c.is_whitespace() || ";|&()".contains(c) => {
                    at_command = self.word(&std::mem::take(&mut word), at_command);
                    match c {
                        '(' => self.parens += 1,
                        ')' => self.parens = self.parens.saturating_sub(1),
                        _ => {}
                    }
                    at_command |= ";|&(".contains(c);
                }
                (None, c) => word.push(c),
            }
            last = c;
        }
        self.word(&word, at_command);
        let tail = line.trim_end();
        continued |= self.quote.is_none() && (tail.ends_with('|') || tail.ends_with("&&"));
        self.in_heredoc = !self.heredocs.is_empty() && self.quote.is_none() && !continued;
        self.complete(continued)
    }

    fn complete(&self, continued: bool) -> bool {
        !continued && self.quote.is_none() && self.parens == 0 && self.blocks == 0 && !self.in_heredoc
    }

    /// Counts block keywords in command position; true when a command may follow.
    fn word(&mut self, word: &str, at_command: bool) -> bool {
        if word.is_empty() || !at_command {
            return at_command && word.is_empty();
        }
        match word {
            "if" | "for" | "while" | "until" | "case" | "select" | "{" => {
                self.blocks += 1;
                matches!(word, "if" | "while" | "until" | "{")
            }
            "fi" | "done" | "esac" | "}" => {
                self.blocks = self.blocks.saturating_sub(1);
                false
            }
            "then" | "do" | "else" | "elif" | "!" => true,
            _ => false,
        }
    }

    fn heredoc(&mut self, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
        let tabs = chars.next_if_eq(&'-').is_some();
        while chars.next_if_eq(&' ').is_some() {}
        let mut end = String::new();
        while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || "_'\"\\".contains(*c)) {
            if c.is_alphanumeric() || c == '_' {
                end.push(c);
            }
        }
        if !end.is_empty() {
            self.heredocs.push_back((end, tabs));
        }
    }
}
