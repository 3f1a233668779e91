//! When will service be back? From what the same steps took before, else the author's estimate, else the action's own ETA.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Kind, Phase, Scenario, Step, StepId, Time};

use super::{Now, Run, RunStatus, State, StepStatus};

/// How long steps took in earlier incidents and drills, by step id.
pub type StepTimes = BTreeMap<StepId, Vec<Duration>>;

/// Judgement of the forecast against the objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// P90 is within the objective.
    OnCourse,
    /// P90 is past the objective.
    AtRisk,
    /// P50 is past the objective, by what the author of a drill's plan estimates for the real thing.
    LikelyLate,
    /// P50 is past the objective.
    WillMiss,
    /// The objective is passed.
    Missed,
    /// Service is restored within the objective.
    Met,
    /// There is no objective, or nothing to forecast from.
    Unknown,
}

impl Course {
    /// As shown on the screen.
    pub fn word(self) -> &'static str {
        match self {
            Self::OnCourse => "on course",
            Self::AtRisk => "at risk",
            Self::LikelyLate => "likely late",
            Self::WillMiss => "will miss",
            Self::Missed => "missed",
            Self::Met => "met",
            Self::Unknown => "no forecast",
        }
    }
}

/// A forecast of when service is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Judgement.
    pub course: Course,
    /// Half of the recoveries would be done by then.
    pub p50: Option<Time>,
    /// Nine of ten would be done by then.
    pub p90: Option<Time>,
    /// Steps without any basis for an estimate; they count as nothing, so the forecast is a lower bound.
    pub unknown_steps: usize,
}

/// Steps that count towards "service restored": up to and including the promotion, else all before telling and closing.
pub fn restoring_steps(scenario: &Scenario) -> impl Iterator<Item = &Step> {
    let last = scenario.steps.iter().rposition(|s| s.phase == Some(Phase::Promote));
    scenario
        .steps
        .iter()
        .enumerate()
        .filter(move |(i, s)| match last {
            Some(last) => *i <= last,
            None => !matches!(s.phase, Some(Phase::Protect | Phase::Communicate | Phase::Close | Phase::Prevent)),
        })
        .map(|(_, s)| s)
}

/// By how much the author's estimates shrink: a drill's sandbox has minutes where the plan has hours, and is as much smaller. A
/// plan whose own steps add up to more than its objective shrinks to the drill's all the same.
pub fn pace(state: &State, scenario: &Scenario) -> f64 {
    let (Kind::Drill, Some(rto)) = (state.kind, state.rto) else { return 1.0 };
    let steps: u64 = restoring_steps(scenario).filter_map(|s| s.estimate_s).sum();
    let planned = scenario.rto_s.unwrap_or(0).max(steps);
    if planned == 0 { 1.0 } else { (rto.as_secs_f64() / planned as f64).min(1.0) }
}

/// P50 and P90 of one step: measured, else from the author's estimate at this [`pace`] (P90 half as long again).
pub fn step_estimate(step: &Step, history: &StepTimes, pace: f64) -> Option<(Duration, Duration)> {
    if let Some(times) = history.get(&step.id)
        && !times.is_empty()
    {
        let mut sorted = times.clone();
        sorted.sort();
        let at = |percent: usize| sorted[((sorted.len() - 1) * percent).div_ceil(100)];
        // One sample says little about the spread.
        let p90 = if sorted.len() < 3 { at(100).mul_f64(1.3) } else { at(90) };
        return Some((at(50), p90));
    }
    let written = Duration::from_secs(step.estimate_s?);
    // However small the data, a person still reads the step.
    let estimate = written.mul_f64(pace).max(written.min(Duration::from_secs(10)));
    Some((estimate, estimate.mul_f64(1.5)))
}

/// Whether the work of a step is done, and only the key that says so is missing: every command of ours ran and worked, every item is
/// ticked, and where a moment is to be chosen it is. A command of another kind may be the same thing in another way, and does not
/// count; a step that leaves no trace at all is never done by itself.
fn worked(state: &State, step: &Step) -> bool {
    let s = state.step(&step.id);
    let since = s.reopened.map_or(0, |seq| seq.0);
    let looks = !matches!(step.phase, Some(Phase::Verify | Phase::Close));
    let did = |run: &Run| match run.is_mutating() {
        true => run.succeeded(),
        // Looking is done when one has looked; a change that was only tried is none.
        false => {
            !run.args.iter().any(|a| a == "--dry-run")
                && (run.succeeded() || looks && matches!(run.status, RunStatus::Finished(_)))
        }
    };
    // The last word counts: what worked once and then failed is not done.
    let last = |line: u32| {
        let of = |r: &&Run| {
            r.step.as_ref() == Some(&step.id)
                && r.block_line == Some(line)
                && r.id.0 > since
                && r.status != RunStatus::Withdrawn
        };
        state.runs.values().rev().find(of)
    };
    let ours: Vec<u32> = step.blocks.iter().filter(|b| b.own.is_some()).map(|b| b.line).collect();
    let ticked = (0..step.items.len()).all(|i| u32::try_from(i).is_ok_and(|i| s.ticked.contains_key(&i)));
    let chosen = step.phase != Some(Phase::Decide) || state.facts.chosen.is_some();
    let any = !ours.is_empty() || !step.items.is_empty();
    any && ticked && chosen && ours.into_iter().all(|line| last(line).is_some_and(did))
}

/// The forecast. `running_eta` is the running action's own estimate of the time left, for its step.
///
/// In a drill what the author estimated for the real thing says little: there *will miss* needs times that were measured, or a
/// running action's own word; without them it is *likely late*.
pub fn forecast(
    state: &State,
    scenario: &Scenario,
    history: &StepTimes,
    running_eta: Option<(&StepId, Duration)>,
    now: &Now,
) -> Forecast {
    let clock = state.rto_clock(now);
    if clock.stopped {
        let course = match clock.objective {
            None => Course::Unknown,
            Some(_) if clock.missed() => Course::Missed,
            Some(_) => Course::Met,
        };
        let at = state.restored.as_ref().map(|r| r.at);
        return Forecast { course, p50: at, p90: at, unknown_steps: 0 };
    }
    let pace = pace(state, scenario);
    let (mut p50, mut variance, mut unknown, mut measured) = (0f64, 0f64, 0usize, 0f64);
    for step in restoring_steps(scenario) {
        let s = state.step(&step.id);
        if matches!(s.status, StepStatus::Done | StepStatus::Skipped) || worked(state, step) {
            continue;
        }
        let elapsed = s.begun.as_ref().map_or(Duration::ZERO, |i| i.elapsed(now));
        let own_word = running_eta.filter(|(id, _)| **id == step.id);
        let left = match own_word {
            Some((_, eta)) => Some((eta, eta.mul_f64(1.3))),
            _ => step_estimate(step, history, pace).map(|(a, b)| {
                // An overdue step is not about to end: expect a quarter of the estimate more.
                (a.saturating_sub(elapsed).max(a / 4), b.saturating_sub(elapsed).max(b / 4))
            }),
        };
        match left {
            Some((a, b)) => {
                p50 += a.as_secs_f64();
                if own_word.is_some() || history.get(&step.id).is_some_and(|times| !times.is_empty()) {
                    measured += a.as_secs_f64();
                }
                variance += (b.as_secs_f64() - a.as_secs_f64()).max(0.0).powi(2);
            }
            None => unknown += 1,
        }
    }
    let p90 = p50 + variance.sqrt();
    let at = |seconds: f64| now.time.plus(Duration::from_secs_f64(seconds));
    let course = match clock.objective {
        None => Course::Unknown,
        Some(_) if clock.missed() => Course::Missed,
        Some(o) => {
            let done = |seconds: f64| clock.elapsed + Duration::from_secs_f64(seconds);
            let sure = if state.kind == Kind::Drill { measured } else { p50 };
            if done(sure) > o {
                Course::WillMiss
            } else if done(p50) > o {
                Course::LikelyLate
            } else if done(p90) > o {
                Course::AtRisk
            } else {
                Course::OnCourse
            }
        }
    };
    Forecast { course, p50: Some(at(p50)), p90: Some(at(p90)), unknown_steps: unknown }
}

/// What the same recovery would take at another database size: files in proportion to their bytes, the log as measured.
///
/// `None` when nothing was restored or the restore took no measurable time.
pub fn projected(shadow: &super::state::Shadow, database_bytes: u64) -> Option<Duration> {
    if shadow.bytes == 0 || shadow.files_ms == 0 {
        return None;
    }
    let files = u128::from(shadow.files_ms) * u128::from(database_bytes) / u128::from(shadow.bytes);
    Some(Duration::from_millis(u64::try_from(files).unwrap_or(u64::MAX)) + Duration::from_millis(shadow.replay_ms))
}
