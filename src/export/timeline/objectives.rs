//! Objectives against what was achieved.

use std::time::Duration;

use super::duration;
use crate::export::{clean, words};
use crate::incident::{State, moment};
use crate::model::{Scenario, Time};

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

/// The rows: RTO, RPO, and the outage the business can bear where the plan says that.
pub(super) fn objectives(
    state: &State,
    scenario: Option<&Scenario>,
    zero: Time,
    zero_is: &str,
    until: Time,
) -> Vec<ObjectiveRow> {
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
