//! The rows every format prints, built once from the records, the state they fold to, and the plan.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::incident::{RunStatus, State, StepStatus, moment};
use crate::journal::{Head, Line};
use crate::model::event::{Outcome, OutputSeal};
use crate::model::{Event, Plan, Record, Risk, RunId, Scenario, Seq, StepId, Time};

use super::clean;
use super::words::{self, Names};

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

/// Whether an objective was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Within the objective.
    Met,
    /// Not within the objective.
    Missed,
    /// Nothing to compare.
    NotMeasured,
    /// Nothing was promised.
    NoObjective,
}

impl Judgement {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::NotMeasured => "not measured",
            Self::NoObjective => "no objective",
        }
    }
}

/// An objective against what was achieved.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectiveRow {
    /// `RTO`, `RPO`, `MTD`.
    pub name: &'static str,
    /// What the letters mean.
    pub meaning: &'static str,
    /// What was promised.
    pub objective: Option<Duration>,
    /// What was achieved.
    pub actual: Option<Duration>,
    /// Whether the actual is an upper bound.
    pub at_most: bool,
    /// Verdict.
    pub judgement: Judgement,
    /// How it was measured.
    pub how: String,
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

/// From when to when each step was worked on.
fn spans(lines: &[Line], until: Time) -> BTreeMap<StepId, Vec<(Time, Time)>> {
    let mut open: BTreeMap<StepId, Time> = BTreeMap::new();
    let mut spans: BTreeMap<StepId, Vec<(Time, Time)>> = BTreeMap::new();
    for line in lines {
        let at = line.record.occurred_at;
        for event in &line.record.events {
            match event {
                Event::StepStarted { step } | Event::StepReopened { step, .. } => {
                    open.entry(step.clone()).or_insert(at);
                }
                Event::StepDone { step } | Event::StepSkipped { step, .. } => {
                    let start = open.remove(step).unwrap_or(at);
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

fn steps(lines: &[Line], state: &State, scenario: Option<&Scenario>, until: Time) -> Vec<StepRow> {
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
pub(super) fn run_result(run: &crate::incident::Run) -> &'static str {
    match run.status {
        RunStatus::Requested => "requested, never started",
        RunStatus::Running => "no end recorded",
        RunStatus::Unknown => "outcome unknown",
        RunStatus::Withdrawn => "withdrawn",
        RunStatus::Finished(outcome) => outcome_word(outcome),
    }
}

fn run_row(run: &crate::incident::Run, until: Time) -> RunRow {
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

fn objectives(state: &State, scenario: Option<&Scenario>, zero: Time, zero_is: &str, until: Time) -> Vec<ObjectiveRow> {
    let from = match zero_is {
        "impact" => "from impact started".to_string(),
        _ => "from the opening of the incident, since no impact was stated,".into(),
    };
    let (rto, rto_how) = match &state.restored {
        Some(r) => (Some(r.at.since(zero)), format!("{from} to service restored ({})", clean(&r.how))),
        None => (None, format!("service was not restored; {} had passed at the end", duration(until.since(zero)))),
    };
    let judge =
        |objective: Option<Duration>, actual: Option<Duration>, passed: Option<Duration>| match (objective, actual) {
            (None, _) => Judgement::NoObjective,
            (Some(o), Some(a)) if a <= o => Judgement::Met,
            (Some(_), Some(_)) => Judgement::Missed,
            (Some(o), None) if passed.is_some_and(|p| p > o) => Judgement::Missed,
            (Some(_), None) => Judgement::NotMeasured,
        };
    let row = |name, meaning, objective, actual, at_most, judgement, how| ObjectiveRow {
        name,
        meaning,
        objective,
        actual,
        at_most,
        judgement,
        how,
    };
    let passed = until.since(zero);
    let mut out = vec![row(
        "RTO",
        "time until service is back",
        state.rto,
        rto,
        false,
        judge(state.rto, rto, Some(passed)),
        rto_how,
    )];
    let (rpo, at_most, rpo_how) = match &state.facts.loss {
        Some(loss) => {
            let transactions = match loss.transactions {
                Some(n) => format!(", {} transactions", words::grouped(n)),
                None => String::new(),
            };
            let damaged = match moment::chosen_keeps_damage(&state.facts) {
                true => "; the recovered data still holds damage that is on record",
                false => "",
            };
            let how =
                format!("measured: from the chosen moment to the last commit that was given up{transactions}{damaged}");
            (Some(Duration::from_millis(loss.window_ms)), loss.at_most, how)
        }
        None => (None, false, "the loss was not measured".to_string()),
    };
    out.push(row(
        "RPO",
        "how much data is lost, as time",
        state.rpo,
        rpo,
        at_most,
        match judge(state.rpo, rpo, None) {
            Judgement::Met if moment::chosen_keeps_damage(&state.facts) => Judgement::Missed,
            other => other,
        },
        rpo_how,
    ));
    let mtd = scenario
        .and_then(|s| s.objectives.iter().find(|o| o.metric == "mtd"))
        .and_then(|o| o.seconds)
        .map(Duration::from_secs);
    if mtd.is_some() {
        let how = "as the RTO".to_string();
        out.push(row(
            "MTD",
            "outage the business can bear at most",
            mtd,
            rto,
            false,
            judge(mtd, rto, Some(passed)),
            how,
        ));
    }
    out
}
