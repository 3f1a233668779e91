//! What in a plan will not work, in the style of a compiler: place, snippet, why, hint.
//!
//! `error` will not work or gives away a secret, `warning` is a gap in the plan, `note` proposes clearer wording. Rules fire
//! only on what they can be sure of: a linter that cries wolf is switched off.

use std::fmt::Write as _;

use serde::Serialize;

use crate::plan::doc::Doc;
use crate::plan::library::{Document, Library, Origin};
use crate::plan::{digest, text};

pub mod commands;
pub mod links;
pub mod preflight;
pub mod scenarios;
pub mod secrets;
pub mod shell;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A proposal.
    Note,
    /// A gap in the plan.
    Warning,
    /// Will not work as written.
    Error,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Document.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// Width of what is meant, in characters.
    pub width: u32,
    /// How bad it is.
    pub level: Level,
    /// Stable name of the rule.
    pub rule: &'static str,
    /// What.
    pub message: String,
    /// Why it is so; may be empty.
    pub why: String,
    /// What to write instead; may be empty.
    pub hint: String,
    /// The line as it stands in the document.
    pub snippet: String,
}

/// A document under the linter: its reading, its lines, and what was found so far.
pub struct Sheet<'d> {
    /// The document.
    pub document: &'d Document,
    /// Taken apart again, for headings and links.
    pub doc: Doc,
    lines: Vec<String>,
    found: Vec<Diagnostic>,
}

impl Sheet<'_> {
    /// Notes a finding at a line; the words beside it place column and width when they stand there.
    pub fn say(
        &mut self,
        level: Level,
        rule: &'static str,
        (line, needle): (u32, &str),
        message: impl Into<String>,
        why: &str,
        hint: impl Into<String>,
    ) {
        let snippet =
            usize::try_from(line).ok().and_then(|l| self.lines.get(l.saturating_sub(1))).cloned().unwrap_or_default();
        let at = if needle.is_empty() { None } else { snippet.find(needle) };
        let start = at.unwrap_or_else(|| snippet.len() - snippet.trim_start().len());
        let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let width = if at.is_some() { count(needle) } else { count(snippet.trim()) };
        let column = count(snippet.get(..start).unwrap_or_default()).saturating_add(1);
        let shown: String = snippet.chars().take(400).collect();
        self.found.push(Diagnostic {
            file: self.document.plan.file.clone(),
            line,
            column,
            width: width.max(1),
            level,
            rule,
            message: message.into(),
            why: why.into(),
            hint: hint.into(),
            snippet: shown,
        });
    }

    /// The first line at or after `from` (and before `to`) that holds `needle`; else `from`.
    pub fn line_with(&self, needle: &str, from: u32, to: u32) -> u32 {
        (from..=to.max(from))
            .find(|l| {
                usize::try_from(*l)
                    .ok()
                    .and_then(|l| self.lines.get(l.saturating_sub(1)))
                    .is_some_and(|t| t.contains(needle))
            })
            .unwrap_or(from)
    }

    /// The lines of the document.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// What the caller knows that lint does not.
pub struct Options<'a> {
    /// Says what is wrong with one of our own command lines (words after `breakglass`), if anything.
    pub own_command: &'a dyn Fn(&[String]) -> Option<String>,
    /// Also look for tools and variables that are missing on this machine.
    pub preflight: bool,
}

/// Looks at every document of a library; findings in order of place.
pub fn lint(library: &Library, options: &Options<'_>) -> Vec<Diagnostic> {
    library.documents.iter().flat_map(|d| lint_document(d, library, options)).collect()
}

fn lint_document(document: &Document, library: &Library, options: &Options<'_>) -> Vec<Diagnostic> {
    let Ok(read) = text::read(&document.plan.file, &document.bytes) else { return Vec::new() };
    let lines = read.text.lines().map(str::to_string).collect();
    let doc = Doc::new(&document.plan.file, digest(&document.bytes), read);
    let mut sheet = Sheet { document, doc, lines, found: Vec::new() };
    commands::check(&mut sheet, options);
    shell::check(&mut sheet);
    secrets::check(&mut sheet);
    scenarios::check(&mut sheet);
    links::check(&mut sheet, library);
    if options.preflight {
        preflight::check(&mut sheet);
    }
    let mut found = sheet.found;
    found.sort_by(|a, b| (a.line, a.column, a.rule).cmp(&(b.line, b.column, b.rule)));
    found.dedup_by(|a, b| (a.line, a.rule, &a.message) == (b.line, b.rule, &b.message));
    found
}

/// The folder of a document on disk.
pub fn folder(document: &Document) -> Option<std::path::PathBuf> {
    match &document.origin {
        Origin::File(path) => Some(path.parent().map(std::path::Path::to_path_buf).unwrap_or_default()),
        Origin::Embedded => None,
    }
}

/// Findings as text, and a last line that counts them.
pub fn render(found: &[Diagnostic]) -> String {
    let mut out = String::new();
    for d in found {
        let margin = d.line.to_string().len();
        let _ = writeln!(out, "{}:{}:{}: {}[{}]: {}", d.file, d.line, d.column, d.level.word(), d.rule, d.message);
        if !d.snippet.trim().is_empty() {
            let column = usize::try_from(d.column).unwrap_or(1).saturating_sub(1);
            // Long lines are shown around the place that is meant.
            let from = column.saturating_sub(40);
            let shown: String = d.snippet.chars().skip(from).take(110).collect::<String>().replace('\t', " ");
            let width = usize::try_from(d.width).unwrap_or(1).min(110usize.saturating_sub(column - from)).max(1);
            let _ = writeln!(out, "{:margin$} |", "");
            let _ = writeln!(out, "{} | {shown}", d.line);
            let _ = writeln!(out, "{:margin$} | {}{}", "", " ".repeat(column - from), "^".repeat(width));
        }
        if !d.why.is_empty() {
            let _ = writeln!(out, "{:margin$} = why: {}", "", d.why);
        }
        if !d.hint.is_empty() {
            let _ = writeln!(out, "{:margin$} = hint: {}", "", d.hint);
        }
        out.push('\n');
    }
    let count = |level: Level| found.iter().filter(|d| d.level == level).count();
    let _ =
        write!(out, "{} errors, {} warnings, {} notes", count(Level::Error), count(Level::Warning), count(Level::Note));
    out
}

/// Whether something must be changed: an error or a warning.
pub fn failed(found: &[Diagnostic]) -> bool {
    found.iter().any(|d| d.level > Level::Note)
}
