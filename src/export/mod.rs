//! The timeline as documents: rows built once ([`timeline`]), one file per format.
//!
//! Nothing here knows more than the journal and the plan.json it names, so the same incident exports the same way on any
//! machine, years later.

mod chart;
mod csv;
pub mod figures;
mod html;
mod json;
mod markdown;
pub mod postmortem;
pub mod redact;
mod report;
pub mod timeline;
mod words;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::incident::State;
use crate::journal::{Anchors, Clock, FileJournal, Head, files, verify};
use crate::model::{CleanText, Seq};
use crate::runtime::kept_plan::read_plan;

pub use csv::csv;
pub use html::html;
pub use json::json;
pub use markdown::markdown;
pub use postmortem::postmortem;
pub use report::{Finding, Report};
pub use timeline::{Row, StepRow, Timeline, offset, rows_of};

/// A document format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Markdown, for a wiki or an issue.
    Markdown,
    /// One self-contained page, for people and printers.
    Html,
    /// Everything, the journal's own lines included, for programs.
    Json,
    /// The rows, for a spreadsheet.
    Csv,
}

impl Format {
    /// All formats, in the order they are named in help.
    pub const ALL: [Self; 4] = [Self::Markdown, Self::Html, Self::Json, Self::Csv];

    /// `md`, `html`, `json`, `csv`: the name on the command line and of the file.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Markdown => "md",
            Self::Html => "html",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }

    /// Reads `md,html`; also `markdown` and `all`. Each format once, in the order given.
    ///
    /// # Errors
    /// Of kind usage, naming what is not a format.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        let mut formats = Vec::new();
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let found = match word.to_lowercase().as_str() {
                "all" => Self::ALL.to_vec(),
                "md" | "markdown" => vec![Self::Markdown],
                "html" => vec![Self::Html],
                "json" => vec![Self::Json],
                "csv" => vec![Self::Csv],
                _ => {
                    return Err(Error::usage(format!("{word:?} is not an export format"))
                        .hint("choose from md, html, json, csv"));
                }
            };
            for f in found {
                if !formats.contains(&f) {
                    formats.push(f);
                }
            }
        }
        if formats.is_empty() {
            return Err(
                Error::usage(format!("{text:?} names no export format")).hint("choose from md, html, json, csv")
            );
        }
        Ok(formats)
    }
}

/// What an export may say beyond the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Also say what the same recovery would take for a database of so many bytes.
    pub project_to_bytes: Option<u64>,
}

/// Writes the timeline of an incident in these formats to `out_dir`, one file `<incident id>.<format>` each, and anchors the
/// journal's head. Returns the files.
///
/// # Errors
/// Of kind state: a journal that is missing or damaged, or a folder that cannot be written to. That the head could not be
/// anchored is no error: the documents say so, and carry the head themselves.
pub fn write(incident_dir: &Path, formats: &[Format], out_dir: &Path) -> Result<Vec<PathBuf>> {
    write_with(incident_dir, formats, out_dir, &Options::default())
}

/// As [`write()`], with options.
///
/// # Errors
/// As [`write()`].
pub fn write_with(incident_dir: &Path, formats: &[Format], out_dir: &Path, options: &Options) -> Result<Vec<PathBuf>> {
    let mut timeline = load(incident_dir, options)?;
    let journal_name = format!("{}.journal.jsonl", file_stem(timeline.state.id.as_str()));
    timeline.journal.file = Some(journal_name.clone());
    files::create_dir(out_dir)?;
    let mut written = Vec::new();
    for format in formats {
        let text = render(*format, &timeline)?;
        let path = out_dir.join(format!("{}.{}", file_stem(timeline.state.id.as_str()), format.extension()));
        files::write_atomic(&path, text.as_bytes())?;
        written.push(path);
    }
    // The journal itself, so that what the documents say can be checked wherever they go.
    let path = out_dir.join(journal_name);
    let journal: String = timeline.journal.lines.iter().map(|l| format!("{l}\n")).collect();
    files::write_atomic(&path, journal.as_bytes())?;
    written.push(path);
    Ok(written)
}

/// Writes a redacted copy: `<name>.redacted.jsonl` and these formats of it, `<name>` being the code name or a number that says
/// nothing. Anchors the journal's head as every export does. Returns the files.
///
/// # Errors
/// As [`write()`].
pub fn write_redacted(incident_dir: &Path, formats: &[Format], out_dir: &Path) -> Result<Vec<PathBuf>> {
    let lines = FileJournal::open(incident_dir)?.lines_from(Seq(1))?;
    let copy = redact::Copy::of(&lines)?;
    let now = Clock::new().now();
    if let (Some(beside), Some(first)) = (Anchors::beside(incident_dir), lines.first())
        && let Some(crate::model::Event::IncidentOpened { id, .. }) = first.record.events.first()
    {
        // That it cannot be anchored here is no reason to refuse: the copy carries the head itself.
        let _ = beside.write(id, &copy.of, now, "redacted export");
    }
    let mut timeline = copy.timeline(now)?;
    files::create_dir(out_dir)?;
    let stem = match copy.name.as_str() {
        "incident" => file_stem(timeline.state.id.as_str()),
        name => file_stem(name),
    };
    let journal_name = format!("{stem}.redacted.jsonl");
    timeline.journal.file = Some(journal_name.clone());
    let mut written = vec![out_dir.join(journal_name)];
    files::write_atomic(&written[0], copy.journal().as_bytes())?;
    for format in formats {
        let path = out_dir.join(format!("{stem}.redacted.{}", format.extension()));
        files::write_atomic(&path, render(*format, &timeline)?.as_bytes())?;
        written.push(path);
    }
    Ok(written)
}

fn render(format: Format, timeline: &Timeline) -> Result<String> {
    Ok(match format {
        Format::Markdown => markdown(timeline),
        Format::Html => html(timeline),
        Format::Json => json(timeline)?,
        Format::Csv => csv(timeline),
    })
}

/// Reads an incident's journal and plan, anchors the head, and builds the timeline.
///
/// # Errors
/// Of kind state, when there is no journal or it is damaged.
pub fn load(incident_dir: &Path, options: &Options) -> Result<Timeline> {
    let mut journal = FileJournal::open(incident_dir)?;
    let lines = journal.lines_from(Seq(1))?;
    let records: Vec<_> = lines.iter().map(|l| l.record.clone()).collect();
    let Some(state) = State::fold(&records) else {
        return Err(Error::state(format!("{incident_dir:?} holds no incident"))
            .why("its journal is empty or does not begin with the opening of an incident"));
    };
    let now = Clock::new().now();
    let head = Head { seq: state.seq, hash: state.head.clone() };
    let mut notices = Vec::new();
    let mut anchors = Vec::new();
    if let Some(beside) = Anchors::beside(incident_dir) {
        // Held against what was written down before this export: agreeing with oneself proves nothing.
        anchors = beside.of(&state.id).unwrap_or_default();
        if let Err(e) = beside.write(&state.id, &head, now, "export") {
            notices.push(format!(
                "the head could not be anchored in the state directory ({}): keep the one printed here",
                e.what
            ));
        }
    }
    let report = verify(incident_dir, &anchors)?;
    let (plan, scenario) = match read_plan(incident_dir, &state.plan, &state.scenario) {
        Ok(kept) => (Some(kept.plan), Some(kept.scenario)),
        Err(e) => {
            notices.push(format!("without the plan: {e}"));
            (None, None)
        }
    };
    let mut timeline = Timeline::build(&lines, state, plan.as_deref(), scenario.as_deref(), now);
    timeline.journal.verified = report.lines();
    timeline.notices.extend(notices);
    timeline.projection = options.project_to_bytes.and_then(|bytes| {
        let shadow = timeline.state.facts.shadow.as_ref()?;
        crate::incident::forecast::projected(shadow, bytes).map(|d| (bytes, d))
    });
    Ok(timeline)
}

/// An id as a file name: ids are made by us, but a journal can come from anywhere.
fn file_stem(id: &str) -> String {
    let stem: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).take(120).collect();
    if stem.is_empty() { "incident".into() } else { stem }
}

/// Text from a journal as it may be shown: no control characters, no direction marks.
fn clean(text: &str) -> String {
    CleanText::text(text).to_string()
}
