//! Blanks an author left to be filled in: `<name>`, `YOUR_X`, `[Service Name]`, `YYYYMMDD`; and variables a block uses (C6).
//!
//! `{{…}}`, `%{…}`, `$1`, `$(…)` and `${x%y}` are never blanks in code: they belong to the tools.

/// The blanks in code, each once, in order. `spaces` allows blanks of several words in `<…>`.
pub fn in_code(code: &str, sql: bool) -> Vec<String> {
    let mut out = Vec::new();
    for line in code.lines() {
        let comment = line.trim_start().starts_with(if sql { "--" } else { "#" });
        if comment {
            continue;
        }
        angle(line, sql, &mut out);
        words(line, &mut out);
        if !sql {
            brackets(line, true, &mut out);
        }
    }
    out
}

/// The blanks in a message: `[Service Name]`, `{{ name }}`, `<name>`.
pub fn in_message(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.lines() {
        angle(line, false, &mut out);
        brackets(line, false, &mut out);
        let mut rest = line;
        while let Some((_, tail)) = rest.split_once("{{") {
            let Some((name, after)) = tail.split_once("}}") else { break };
            add(&mut out, &format!("{{{{{name}}}}}"));
            rest = after;
        }
    }
    out
}

fn add(out: &mut Vec<String>, blank: &str) {
    if !out.iter().any(|b| b == blank) {
        out.push(blank.to_string());
    }
}

/// `<name>`: not `<<`, not `< file`, nothing a shell would write between the brackets.
fn angle(line: &str, no_spaces: bool, out: &mut Vec<String>) {
    let mut previous = ' ';
    for (i, c) in line.char_indices() {
        if c == '<' && previous != '<' {
            let tail = &line[i + 1..];
            let end = tail
                .find(['>', '<', '(', ')', '"', '\'', '`', '&', ';', '=', '\\'])
                .filter(|e| tail[*e..].starts_with('>'));
            if let Some(end) = end {
                let inner = &tail[..end];
                let starts = inner.starts_with(|c: char| c.is_alphabetic() || c == '_');
                let ends = inner.ends_with(|c: char| c.is_alphanumeric() || "_.…)]".contains(c));
                let fits = inner.chars().count() <= 60 && starts && ends && !(no_spaces && inner.contains(' '));
                if fits {
                    add(out, &line[i..i + end + 2]);
                }
            }
        }
        previous = c;
    }
}

/// `YOUR_X`, `your-x`, `XXX`, `YYYYMMDD`, `CHANGEME`.
fn words(line: &str, out: &mut Vec<String>) {
    let lower_line = line.to_lowercase();
    let dates = ["date +", "to_char", "to_date", "to_timestamp", "strftime", "date_format", "-f %"]
        .iter()
        .any(|f| lower_line.contains(f));
    let mut start = 0;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    while let Some(at) = line[start..].find(is_word) {
        let begin = start + at;
        let end = line[begin..].find(|c| !is_word(c)).map_or(line.len(), |e| begin + e);
        let word = &line[begin..end];
        let before = line[..begin].chars().next_back().unwrap_or(' ');
        let after = line[end..].chars().next().unwrap_or(' ');
        start = end;
        if matches!(before, '$' | '{' | '<' | '[') || after == '(' {
            continue;
        }
        let upper = word.to_ascii_uppercase();
        let your = (upper.starts_with("YOUR_") || upper.starts_with("YOUR-")) && word.len() > 5 && after != '=';
        let crosses = word
            .split(['-', '_'])
            .any(|p| p.len() >= 3 && (p.bytes().all(|b| b == b'X') || (p.bytes().all(|b| b == b'x'))))
            && !lower_line.contains("mktemp");
        let date = (upper.contains("YYYY") || word.contains("HHMM")) && !dates;
        let change = matches!(
            upper.as_str(),
            "CHANGEME" | "CHANGE_ME" | "CHANGE-ME" | "REPLACE_ME" | "REPLACEME" | "TODO" | "TBD" | "FIXME"
        );
        if your || crosses || date || change {
            add(out, word);
        }
    }
}

/// `[Service Name]`: a capital or a space inside, not a link, not a shell test or a character class.
fn brackets(line: &str, code: bool, out: &mut Vec<String>) {
    let mut rest = line;
    let mut previous = ' ';
    while let Some(at) = rest.find('[') {
        previous = rest[..at].chars().next_back().unwrap_or(previous);
        let tail = &rest[at + 1..];
        let Some(end) = tail.find([']', '[']).filter(|e| tail[*e..].starts_with(']')) else {
            rest = tail;
            continue;
        };
        let inner = &tail[..end];
        let after = tail[end + 1..].chars().next().unwrap_or(' ');
        let first = inner.chars().next().unwrap_or(' ');
        let letters = inner.chars().filter(|c| c.is_alphabetic()).count();
        let plain = inner.chars().all(|c| c.is_alphanumeric() || " _/-.,'#:".contains(c))
            && inner.chars().count() <= 60
            && inner.trim() == inner;
        let capital = first.is_uppercase() || (!code && first.is_alphabetic());
        // `[A-Z]` and `[A-Za-z]` are classes, `arr[Name]` an index, `[x](url)` a link, `[x]` a box.
        let class = code && inner.as_bytes().get(1) == Some(&b'-');
        let indexed = previous.is_alphanumeric() || matches!(previous, '_' | '$' | '}' | ']');
        if letters >= 3 && plain && capital && !class && !(code && indexed) && after != '(' && after != '[' {
            add(out, &format!("[{inner}]"));
        }
        previous = ']';
        rest = &tail[end + 1..];
    }
}

/// Variables every shell has, or that are of no interest.
#[rustfmt::skip]
const ORDINARY: &[&str] = &[
    "HOME", "PATH", "PWD", "OLDPWD", "USER", "LOGNAME", "SHELL", "HOSTNAME", "LANG", "IFS", "RANDOM", "SECONDS",
    "LINENO", "UID", "EUID", "PPID", "TERM", "TMPDIR", "BASH_SOURCE", "FUNCNAME", "REPLY", "PIPESTATUS", "OPTARG",
    "OPTIND", "EDITOR", "BASH_REMATCH", "LASTEXITCODE", "null", "true", "false", "_",
];

/// The variables a shell text reads, and those it sets, each once.
pub fn shell_variables(code: &str) -> (Vec<String>, Vec<String>) {
    let (mut uses, mut sets) = (Vec::new(), Vec::new());
    for line in code.lines() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        assignments(line, &mut sets);
        uses_in(line, &mut uses);
    }
    uses.retain(|u: &String| !ORDINARY.contains(&u.as_str()));
    (uses, sets)
}

fn assignments(line: &str, sets: &mut Vec<String>) {
    let words: Vec<&str> = line.split([' ', '\t', ';', '(']).filter(|w| !w.is_empty()).collect();
    for (i, word) in words.iter().enumerate() {
        let named = |n: &str| {
            !n.is_empty()
                && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !n.starts_with(|c: char| c.is_ascii_digit())
        };
        let before = i.checked_sub(1).and_then(|i| words.get(i)).copied().unwrap_or_default();
        if let Some((name, _)) = word.split_once('=') {
            let name = name.trim_end_matches('+');
            if named(name) {
                add(sets, name);
            }
        } else if named(word)
            && (matches!(before, "for" | "read" | "select") || (before == "-r" && words.contains(&"read")))
        {
            add(sets, word);
        }
    }
}

fn uses_in(line: &str, uses: &mut Vec<String>) {
    let mut single = false;
    let mut double = false;
    let mut chars = line.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '$' if !single => {
                let rest = &line[i + 1..];
                let (braced, rest) = rest.strip_prefix('{').map_or((false, rest), |r| (true, r));
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                let name = &rest[..end];
                // `${X:-default}` has a value in any case.
                let defaulted = braced
                    && (rest[end..].starts_with(":-")
                        || rest[end..].starts_with('-')
                        || rest[end..].starts_with(":=")
                        || rest[end..].starts_with('='));
                if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !defaulted {
                    add(uses, name);
                }
            }
            _ => {}
        }
    }
}
