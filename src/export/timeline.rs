//! The rows every format prints, built once from the records, the state they fold to, and the plan.

mod objectives;
mod steps;

use std::time::Duration;

use crate::incident::{State, StepStatus};
use crate::journal::{Head, Line};
use crate::model::event::OutputSeal;
use crate::model::{Event, Plan, Record, Risk, Scenario, Seq, Time};

use super::clean;
use super::words::{self, Names};
use objectives::objectives;
use steps::steps;

pub use objectives::{Judgement, ObjectiveRow};
pub(super) use steps::run_result;
pub use steps::{RunRow, StepRow, outcome_word};

/// An incident as a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// The state at the last record.
    pub state: State,
    /// When this was made.
    pub exported_at: Time,
    /// Offsets count from here.
    pub zero: Time,
    /// What happened then: `impact`, or `opening` when no impact was stated.
    pub zero_is: &'static str,
    /// End of what is told: closing, else the last record.
    pub until: Time,
    /// One row per event, in the order of the journal.
    pub rows: Vec<Row>,
    /// One row per step, in the order of the plan.
    pub steps: Vec<StepRow>,
    /// Objectives against actuals.
    pub objectives: Vec<ObjectiveRow>,
    /// The plan, if it could be read.
    pub plan: Option<PlanFacts>,
    /// Everybody who appears in the journal, with the number of records, in order of appearance.
    pub people: Vec<(String, u64)>,
    /// Boots (machines, or a machine started again) the records come from.
    pub boots: usize,
    /// The journal this was made from.
    pub journal: JournalFacts,
    /// Oddities worth knowing.
    pub notices: Vec<String>,
    /// What the same recovery would take: bytes, time.
    pub projection: Option<(u64, Duration)>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Record it stands in.
    pub seq: Seq,
    /// Its type, as in the journal.
    pub event: String,
    /// When it happened, as stated.
    pub at: Time,
    /// When it was written, if that is another time.
    pub recorded: Option<Time>,
    /// Milliseconds from zero, negative before it.
    pub offset_ms: i64,
    /// Who.
    pub actor: String,
    /// Number and title of the step it belongs to.
    pub step: Option<(usize, String)>,
    /// What happened, one sentence.
    pub what: String,
    /// Particulars, one line each.
    pub details: Vec<String>,
    /// What was asked to be run.
    pub command: Option<String>,
    /// What that could do.
    pub risk: Option<Risk>,
    /// How a run ended.
    pub exit: Option<i32>,
    /// How long it took.
    pub took_ms: Option<u64>,
    /// What it printed.
    pub output: Option<OutputSeal>,
    /// How it is to be seen.
    pub tone: Tone,
}

/// How an event is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// One of many.
    Plain,
    /// A mark on the way: opened, declared, restored, closed.
    Milestone,
    /// It went well.
    Good,
    /// Look twice.
    Warn,
    /// It went wrong.
    Bad,
}

impl Tone {
    /// A sign beside the colour.
    pub fn glyph(self) -> &'static str {
        match self {
            Self::Plain => "·",
            Self::Milestone => "◆",
            Self::Good => "✓",
            Self::Warn => "!",
            Self::Bad => "✗",
        }
    }
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Milestone => "milestone",
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// Which plan it was.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanFacts {
    /// Title.
    pub title: String,
    /// File.
    pub file: String,
    /// SHA-256 of the document.
    pub document: Option<String>,
    /// SHA-256 of plan.json, as the journal names it.
    pub understood: String,
}

/// The journal it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalFacts {
    /// Head.
    pub head: Head,
    /// Its lines.
    pub lines: Vec<String>,
    /// What verifying it said at the time of the export.
    pub verified: Vec<String>,
    /// Name of its file beside the document, when it was written there.
    pub file: Option<String>,
}

impl JournalFacts {
    /// What to check it by: our own command, and the script that needs nothing of ours.
    pub fn checks(&self) -> [String; 2] {
        let head = &self.head;
        let (ours, theirs) = match &self.file {
            Some(file) => (file.as_str(), file.as_str()),
            None => ("INCIDENT_DIRECTORY", "journal.jsonl"),
        };
        [format!("breakglass journal verify {ours} --head {head}"), format!("python3 verify.py {theirs} {head}")]
    }
}

impl Timeline {
    /// Builds it. `lines` is the whole journal and `state` what it folds to.
    pub fn build(
        lines: &[Line],
        state: State,
        plan: Option<&Plan>,
        scenario: Option<&Scenario>,
        exported_at: Time,
    ) -> Self {
        let (zero, zero_is) = match &state.impact {
            Some(impact) => (impact.at, "impact"),
            None => (state.opened.at, "opening"),
        };
        let last = lines.last().map_or(exported_at, |l| l.record.recorded_at);
        let until = state.closed.as_ref().map_or(last, |(when, _)| when.at).max(zero);
        let names = Names::new(&state, scenario);
        let mut rows = Vec::new();
        let mut people: Vec<(String, u64)> = Vec::new();
        let mut boots: Vec<&str> = Vec::new();
        for line in lines {
            let record = &line.record;
            let actor = clean(record.actor.as_str());
            match people.iter_mut().find(|(name, _)| *name == actor) {
                Some((_, n)) => *n += 1,
                None => people.push((actor, 1)),
            }
            if !boots.contains(&record.boot.as_str()) {
                boots.push(&record.boot);
            }
            rows.extend(record.events.iter().map(|event| row(record, line.future.as_deref(), event, &names, zero)));
        }
        let steps = steps(lines, &state, scenario, until);
        let objectives = objectives(&state, scenario, zero, zero_is, until);
        let head = Head { seq: state.seq, hash: state.head.clone() };
        let notices = state.notices.iter().map(|n| clean(n)).collect();
        Self {
            exported_at,
            zero,
            zero_is,
            until,
            rows,
            steps,
            objectives,
            plan: plan.map(|p| PlanFacts {
                title: clean(&p.title),
                file: clean(&p.file),
                document: p.digest.as_ref().map(|d| d.to_string()),
                understood: state.plan.to_string(),
            }),
            people,
            boots: boots.len(),
            journal: JournalFacts {
                head,
                lines: lines.iter().map(|l| l.raw.clone()).collect(),
                verified: Vec::new(),
                file: None,
            },
            notices,
            projection: None,
            state,
        }
    }

    /// `REAL` or `DRILL`.
    pub fn kind_word(&self) -> &'static str {
        match self.state.kind {
            crate::model::Kind::Real => "REAL",
            crate::model::Kind::Drill => "DRILL",
        }
    }

    /// How it stands: `closed`, `service restored, still open`, `open`.
    pub fn standing(&self) -> &'static str {
        match (&self.state.closed, &self.state.restored) {
            (Some(_), _) => "closed",
            (None, Some(_)) => "service restored, still open",
            (None, None) => "open",
        }
    }

    /// Steps done and steps of the scenario.
    pub fn steps_done(&self) -> (usize, usize) {
        let done = self.steps.iter().filter(|s| matches!(s.status, StepStatus::Done | StepStatus::Skipped)).count();
        (done, self.steps.len())
    }
}

/// The rows of one record, for whoever follows an incident line by line. Offsets count from the impact as known in `state`.
pub fn rows_of(record: &Record, state: &State, scenario: Option<&Scenario>) -> Vec<Row> {
    let zero = state.impact.as_ref().map_or(state.opened.at, |i| i.at);
    let names = Names::new(state, scenario);
    record.events.iter().map(|event| row(record, None, event, &names, zero)).collect()
}

/// An offset from zero as people read it: `+12:31`, `−0:40`.
pub fn offset(ms: i64) -> String {
    let sign = if ms < 0 { "−" } else { "+" };
    format!("{sign}{}", crate::model::format_clock(Duration::from_millis(ms.unsigned_abs())))
}

/// A duration with the precision a reader wants: `0.4 s`, `12 s`, `2:08`, `1:04:10`.
pub fn duration(d: Duration) -> String {
    match d.as_millis() {
        ms if ms < 10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms if ms < 60_000 => format!("{} s", ms / 1000),
        _ => crate::model::format_clock(d),
    }
}

fn row(record: &Record, future: Option<&str>, event: &Event, names: &Names<'_>, zero: Time) -> Row {
    let said = words::say(event, record, future, names);
    let back_dated = record.occurred_at.diff_ms(record.recorded_at).abs() >= 1000;
    Row {
        seq: record.seq,
        event: words::type_of(event),
        at: record.occurred_at,
        recorded: back_dated.then_some(record.recorded_at),
        offset_ms: record.occurred_at.diff_ms(zero),
        actor: clean(record.actor.as_str()),
        step: said.step,
        what: said.what,
        details: said.details,
        command: said.command,
        risk: said.risk,
        exit: said.exit,
        took_ms: said.took_ms,
        output: said.output,
        tone: said.tone,
    }
}
