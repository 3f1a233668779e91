//! One row per step of the plan: when it was worked on, for how long, and what ran in it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::export::clean;
use crate::incident::{Run, RunStatus, State, StepStatus};
use crate::journal::Line;
use crate::model::event::{Outcome, OutputSeal};
use crate::model::{Event, RunId, Scenario, StepId, Time};

/// A step of the plan as it was worked.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRow {
    /// Number in the scenario, from 1.
    pub number: usize,
    /// Id.
    pub id: StepId,
    /// Title.
    pub title: String,
    /// Status.
    pub status: StepStatus,
    /// Who acted last.
    pub actor: Option<String>,
    /// First start.
    pub started: Option<Time>,
    /// Last end.
    pub ended: Option<Time>,
    /// The author's estimate.
    pub planned: Option<Duration>,
    /// Time worked on it, interruptions by reopening left out; up to the end of the timeline when it is still active.
    pub actual: Option<Duration>,
    /// From when to when it was worked on.
    pub spans: Vec<(Time, Time)>,
    /// Its runs.
    pub runs: Vec<RunRow>,
    /// What the author expects to see.
    pub expected: Option<String>,
    /// Why it was skipped or reopened.
    pub reason: Option<String>,
    /// Ticked and all items.
    pub items: (usize, usize),
}

impl StepRow {
    /// `done`, `skipped`, `active`, `not begun`.
    pub fn result(&self) -> &'static str {
        match self.status {
            StepStatus::Open => "not begun",
            StepStatus::Active => "not finished",
            StepStatus::Done => "done",
            StepStatus::Skipped => "skipped",
        }
    }
    /// Whether it took longer than planned.
    pub fn overran(&self) -> bool {
        matches!((self.planned, self.actual), (Some(p), Some(a)) if a > p)
    }
}

/// A run in a step's row.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// Id: the record that requested it.
    pub id: RunId,
    /// What was run, as shown.
    pub command: String,
    /// How it ended, in words.
    pub result: String,
    /// Whether that is success.
    pub ok: bool,
    /// Exit code.
    pub exit: Option<i32>,
    /// What it printed.
    pub output: OutputSeal,
    /// From when to when.
    pub span: Option<(Time, Time)>,
}

/// From when to when each step was worked on.
fn spans(lines: &[Line], until: Time) -> BTreeMap<StepId, Vec<(Time, Time)>> {
    let mut open: BTreeMap<StepId, Time> = BTreeMap::new();
    // Opened again and not begun yet: the work goes on when somebody begins, which may be much later.
    let mut again: BTreeMap<StepId, Time> = BTreeMap::new();
    let mut spans: BTreeMap<StepId, Vec<(Time, Time)>> = BTreeMap::new();
    for line in lines {
        let at = line.record.occurred_at;
        for event in &line.record.events {
            match event {
                Event::StepStarted { step } => {
                    open.entry(step.clone()).or_insert(at);
                }
                Event::StepReopened { step, .. } => {
                    if let Some(start) = open.remove(step) {
                        spans.entry(step.clone()).or_default().push((start, at.max(start)));
                    }
                    again.insert(step.clone(), at);
                }
                Event::StepDone { step } | Event::StepSkipped { step, .. } => {
                    let reopened = again.remove(step);
                    let start = open.remove(step).or(reopened).unwrap_or(at);
                    spans.entry(step.clone()).or_default().push((start, at.max(start)));
                }
                _ => {}
            }
        }
    }
    for (step, start) in open {
        spans.entry(step).or_default().push((start, until.max(start)));
    }
    spans
}

/// What the plan says of a step.
struct Planned {
    id: StepId,
    title: String,
    estimate_s: Option<u64>,
    expected: Option<String>,
    items: usize,
}

/// The rows, in the order of the plan; an unfinished step lasts until `until`.
pub(super) fn steps(lines: &[Line], state: &State, scenario: Option<&Scenario>, until: Time) -> Vec<StepRow> {
    let mut spans = spans(lines, until);
    // Without the plan: the steps the journal speaks of, by id.
    let planned: Vec<Planned> = match scenario {
        Some(s) => s
            .steps
            .iter()
            .map(|s| Planned {
                id: s.id.clone(),
                title: clean(&s.title),
                estimate_s: s.estimate_s,
                expected: s.expected.as_deref().map(clean),
                items: s.items.len(),
            })
            .collect(),
        None => {
            let mut ids: Vec<&StepId> = state.steps.keys().collect();
            ids.sort_by_key(|id| id.order());
            let bare = |id: &StepId| Planned {
                id: id.clone(),
                title: clean(id.as_str()),
                estimate_s: None,
                expected: None,
                items: 0,
            };
            ids.into_iter().map(bare).collect()
        }
    };
    planned
        .into_iter()
        .enumerate()
        .map(|(i, Planned { id, title, estimate_s, expected, items })| {
            let step = state.step(&id);
            let spans = spans.remove(&id).unwrap_or_default();
            let worked: Duration = spans.iter().map(|(a, b)| b.since(*a)).sum();
            // Uptime is the better clock when the step was worked on in one go.
            let actual = match spans.len() {
                0 => None,
                1 => step.took().or(Some(worked)),
                _ => Some(worked),
            };
            let runs =
                state.runs.values().filter(|r| r.step.as_ref() == Some(&id)).map(|r| run_row(r, until)).collect();
            StepRow {
                number: i + 1,
                title,
                status: step.status,
                actor: step.actor.map(|a| clean(a.as_str())),
                started: spans.first().map(|s| s.0),
                ended: step.ended.map(|e| e.at),
                planned: estimate_s.map(Duration::from_secs),
                actual: if step.status == StepStatus::Skipped && step.started.is_none() { None } else { actual },
                spans,
                runs,
                expected,
                reason: step.reason.map(|r| clean(&r)),
                items: (step.ticked.len(), items),
                id,
            }
        })
        .collect()
}

/// How a run ended, or that it did not, in words.
pub(in crate::export) fn run_result(run: &Run) -> &'static str {
    match run.status {
        RunStatus::Requested => "requested, never started",
        RunStatus::Running => "no end recorded",
        RunStatus::Unknown => "outcome unknown",
        RunStatus::Withdrawn => "withdrawn",
        RunStatus::Finished(outcome) => outcome_word(outcome),
    }
}

fn run_row(run: &Run, until: Time) -> RunRow {
    RunRow {
        id: run.id,
        command: clean(&run.shown),
        result: run_result(run).into(),
        ok: run.succeeded(),
        exit: run.exit_code,
        output: run.output.clone(),
        span: run.started.as_ref().map(|s| (s.at, run.ended.as_ref().map_or(until, |e| e.at).max(s.at))),
    }
}

/// How a run ended, in words.
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "cancelled",
        Outcome::Refused => "refused by its own last check",
    }
}
