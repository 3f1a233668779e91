//! A shell text taken apart into the simple commands that bash would start, roughly: enough to see what each one is. Nothing
//! is run from what is read here.

/// A simple command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Simple {
    /// Its words, quotes taken off; redirections are not among them.
    pub words: Vec<String>,
    /// Whether its standard input is something else than the terminal.
    pub fed: bool,
}

/// The pipelines of a text in order, each with its simple commands. `<name>` in it is a blank, not a redirection.
pub fn pipelines(code: &str) -> Vec<Vec<Simple>> {
    let mut code = code.to_string();
    for blank in super::placeholders::in_code(&code, false) {
        code = code.replace(&blank, "blank");
    }
    as_written(&code)
}

/// As [`pipelines`], of a text that nobody has to fill in.
pub fn as_written(code: &str) -> Vec<Vec<Simple>> {
    let mut reader = Reader::default();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        reader.take(c, &mut chars);
    }
    reader.end_pipeline();
    reader.out
}

type Chars<'c> = std::iter::Peekable<std::str::Chars<'c>>;

#[derive(Default)]
struct Reader {
    out: Vec<Vec<Simple>>,
    pipeline: Vec<Simple>,
    simple: Simple,
    word: String,
    /// A word was begun, if only by quotes.
    begun: bool,
    /// The next word is the target of a redirection.
    target: bool,
    /// Ends of here-documents whose text begins at the next line.
    ends: Vec<String>,
}

impl Reader {
    fn take(&mut self, c: char, chars: &mut Chars<'_>) {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(next) => self.push(next),
            },
            '\'' => {
                self.begun = true;
                self.word.extend(chars.by_ref().take_while(|c| *c != '\''));
            }
            '"' => self.quoted(chars),
            '`' => {
                self.begun = true;
                chars.by_ref().take_while(|c| *c != '`').for_each(drop);
            }
            '$' if chars.peek() == Some(&'(') => self.substitution(chars),
            '#' if !self.begun => while chars.next_if(|c| *c != '\n').is_some() {},
            '\n' => {
                self.end_pipeline();
                self.skip_documents(chars);
            }
            ';' => self.end_pipeline(),
            '(' | ')' => self.end_pipeline(),
            '&' if chars.peek() == Some(&'>') => {}
            '&' if self.target && self.word.is_empty() => self.push('&'),
            '&' => {
                chars.next_if_eq(&'&');
                self.end_pipeline();
            }
            '|' => {
                if chars.next_if_eq(&'|').is_some() {
                    self.end_pipeline();
                } else {
                    chars.next_if_eq(&'&');
                    self.end_simple();
                    self.simple.fed = true;
                }
            }
            '>' => {
                // `2>`: the number belongs to the redirection.
                if self.word.bytes().all(|b| b.is_ascii_digit()) {
                    self.word.clear();
                    self.begun = false;
                }
                self.end_word();
                while chars.next_if(|c| matches!(c, '>' | '|')).is_some() {}
                self.target = true;
            }
            '<' => self.input(chars),
            c if c.is_whitespace() => self.end_word(),
            c => self.push(c),
        }
    }

    fn push(&mut self, c: char) {
        self.begun = true;
        self.word.push(c);
    }

    fn quoted(&mut self, chars: &mut Chars<'_>) {
        self.begun = true;
        while let Some(c) = chars.next() {
            match c {
                '"' => return,
                '\\' => self.word.extend(chars.next()),
                '$' if chars.peek() == Some(&'(') => self.substitution(chars),
                c => self.word.push(c),
            }
        }
    }

    /// `$(…)` is a part of a word; what is in it reads from elsewhere.
    fn substitution(&mut self, chars: &mut Chars<'_>) {
        self.begun = true;
        self.word.push('$');
        let (mut depth, mut quote) = (0usize, None);
        for c in chars.by_ref() {
            match (quote, c) {
                (Some(q), c) if q == c => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => {
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    fn input(&mut self, chars: &mut Chars<'_>) {
        self.end_word();
        self.simple.fed = true;
        if chars.next_if_eq(&'<').is_some() && chars.next_if_eq(&'<').is_none() {
            chars.next_if_eq(&'-');
            while chars.next_if_eq(&' ').is_some() {}
            let mut end = String::new();
            while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !";|&<>".contains(*c)) {
                if !"'\"\\".contains(c) {
                    end.push(c);
                }
            }
            self.ends.push(end);
        } else {
            chars.next_if_eq(&'&');
            self.target = true;
        }
    }

    fn skip_documents(&mut self, chars: &mut Chars<'_>) {
        for end in std::mem::take(&mut self.ends) {
            while chars.peek().is_some() {
                let line: String = chars.by_ref().take_while(|c| *c != '\n').collect();
                if line.trim_start_matches('\t') == end {
                    break;
                }
            }
        }
    }

    fn end_word(&mut self) {
        if std::mem::take(&mut self.begun) {
            let word = std::mem::take(&mut self.word);
            if !std::mem::take(&mut self.target) {
                self.simple.words.push(word);
            }
        }
    }

    fn end_simple(&mut self) {
        self.end_word();
        self.target = false;
        let simple = std::mem::take(&mut self.simple);
        // Words that only close a block are no command.
        if !simple.words.iter().all(|w| matches!(w.as_str(), "done" | "fi" | "esac" | "}")) {
            self.pipeline.push(simple);
        }
    }

    fn end_pipeline(&mut self) {
        self.end_simple();
        if !self.pipeline.is_empty() {
            self.out.push(std::mem::take(&mut self.pipeline));
        }
    }
}
