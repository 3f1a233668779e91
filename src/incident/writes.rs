//! Writes that a containment turned off: since when they are, and what turns them on again.

use crate::model::Scenario;
use crate::model::plan::{Phase, Risk, Step};

use super::{Instant, State, StepStatus, moment};

/// The action that turns them on again, and its arguments.
pub const TURNS_ON: (&str, &[&str]) = ("contain", &["--keep-writes"]);

/// What a containment did about writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// They are off.
    Off,
    /// They are on, or were all the time.
    On,
}

/// What the sentences of a containment say of writes.
pub(super) fn turned(done: &[String]) -> Option<Turned> {
    let says = |words: &[&str]| done.iter().any(|d| words.iter().any(|w| d.starts_with(w)));
    match says(&["writes off"]) {
        true => Some(Turned::Off),
        false => says(&["writes are on", "writes stay on"]).then_some(Turned::On),
    }
}

/// What becomes of writes that are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// The step at this place, from 0, puts a recovered database into service, with writes on.
    By(usize),
    /// A person has to turn them on before the step at this place, from 0.
    Before(usize),
    /// It is time: what is left to do needs them.
    Now,
}

/// Since when writes are off, and what becomes of them. `None` when nothing on record turned them off, or they are on again.
pub fn off<'s>(state: &'s State, scenario: &Scenario) -> Option<(&'s Instant, Back)> {
    let since = state.facts.writes_off.as_ref()?;
    let open = |s: &Step| !matches!(state.step(&s.id).status, StepStatus::Done | StepStatus::Skipped);
    let steps = || scenario.steps.iter().enumerate().filter(|(_, s)| open(s));
    let promotes = |s: &Step| {
        s.blocks.iter().filter_map(|b| b.own.as_deref()).any(|words| moment::begins(words, &["pitr", "promote"]))
    };
    if let Some((at, _)) = steps().find(|(_, s)| promotes(s)) {
        return Some((since, Back::By(at)));
    }
    // As long as something is stopped, looked into or brought back, they may be off for good reason.
    let works = |s: &Step| match s.phase {
        Some(phase) => {
            matches!(phase, Phase::Detect | Phase::Contain | Phase::Assess | Phase::Decide | Phase::Recover)
        }
        None => s.blocks.iter().any(|b| b.own.is_some() && b.risk != Some(Risk::Read)),
    };
    let Some((last, _)) = steps().rev().find(|(_, s)| works(s)) else { return Some((since, Back::Now)) };
    let needs = steps().find(|(at, _)| *at > last).map_or(last, |(at, _)| at);
    Some((since, Back::Before(needs)))
}
