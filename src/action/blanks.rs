//! Filling in the blanks of a plan's text: what is put where depends on the quotes around it, so that a value stays one
//! value and never becomes a command.

/// The name under which a blank's value is kept: `<backup-id>` is `BACKUP_ID`, `[Service Name]` is `SERVICE_NAME`.
pub fn variable_of(placeholder: &str) -> String {
    let mut out: String = placeholder
        .trim_matches(['<', '>', '[', ']', '{', '}', ' '])
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect();
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// Where in a shell's text a blank stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// Outside quotes.
    None,
    /// Between `'…'`.
    Single,
    /// Between `"…"`.
    Double,
}

/// Puts a value in place of a blank in shell text. Outside quotes a value that is more than a plain word is quoted; inside
/// quotes what would end or expand them is escaped.
pub fn fill_shell(code: &str, blank: &str, value: &str) -> String {
    replace(code, blank, |quotes| match quotes {
        Quotes::None if value.is_empty() => "''".into(),
        Quotes::None if value.strip_prefix("~/").unwrap_or(value).chars().all(is_word) => value.into(),
        Quotes::None => format!("'{}'", value.replace('\'', "'\\''")),
        Quotes::Single => value.replace('\'', "'\\''"),
        Quotes::Double => {
            let mut out = String::new();
            for c in value.chars() {
                if matches!(c, '"' | '$' | '`' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
            out
        }
    })
}

/// Puts a variable in place of a blank in shell text, so that its value is never part of it.
pub fn fill_variable(code: &str, blank: &str, variable: &str) -> String {
    replace(code, blank, |quotes| match quotes {
        Quotes::None => format!("\"${{{variable}}}\""),
        Quotes::Single => format!("'\"${{{variable}}}\"'"),
        Quotes::Double => format!("${{{variable}}}"),
    })
}

/// Puts a value in place of a blank in SQL: a quote inside `'…'` or `"…"` is doubled.
pub fn fill_sql(code: &str, blank: &str, value: &str) -> String {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix(blank) {
            match quote {
                Some(q) => out.push_str(&value.replace(q, &format!("{q}{q}"))),
                None => out.push_str(value),
            }
            rest = tail;
            continue;
        }
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Puts values in place of the blanks of a message; those without a value stay as they are.
pub fn fill_message<'a>(text: &str, blanks: &[String], value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = text.to_string();
    for blank in blanks {
        if let Some(value) = value(&variable_of(blank)) {
            out = out.replace(blank.as_str(), value);
        }
    }
    out
}

/// Characters that mean nothing to a shell outside quotes, wherever in a word they stand.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "-_./:=,+@%^".contains(c)
}

fn replace(code: &str, blank: &str, with: impl Fn(Quotes) -> String) -> String {
    let mut out = String::new();
    let mut quotes = Quotes::None;
    let mut comment = false;
    let mut before = '\n';
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix(blank) {
            out.push_str(&with(quotes));
            before = 'x';
            rest = tail;
            continue;
        }
        let mut taken = c.len_utf8();
        if comment {
            // An apostrophe in a comment opens nothing.
            comment = c != '\n';
        } else {
            match (quotes, c) {
                (Quotes::None | Quotes::Double, '\\') => {
                    taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
                }
                (Quotes::None, '\'') => quotes = Quotes::Single,
                (Quotes::Single, '\'') | (Quotes::Double, '"') => quotes = Quotes::None,
                (Quotes::None, '"') => quotes = Quotes::Double,
                (Quotes::None, '#') => comment = before.is_whitespace(),
                _ => {}
            }
        }
        out.push_str(&rest[..taken]);
        before = c;
        rest = &rest[taken..];
    }
    out
}
