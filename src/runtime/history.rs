//! What earlier incidents and drills tell: when a scenario was last worked, how it went, how long its steps took.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Store;
use crate::error::Result;
use crate::incident::{State, StepStatus, StepTimes};
use crate::model::{IncidentId, Kind, Time};

/// One time a scenario was worked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Incident.
    pub id: IncidentId,
    /// Real or drill.
    pub kind: Kind,
    /// When it was opened.
    pub opened: Time,
    /// When it was closed; none while it is open.
    pub closed: Option<Time>,
    /// From impact to service restored, once restored.
    pub rto: Option<Duration>,
    /// What it was allowed to take.
    pub objective: Option<Duration>,
    /// Whether that was within the objective; none without one or before service was restored.
    pub rto_met: Option<bool>,
    /// Measured loss in time.
    pub loss: Option<Duration>,
    /// Whether that was within the objective.
    pub rpo_met: Option<bool>,
    /// Whether verification passed; none when there was none.
    pub verified: Option<bool>,
    /// The umpire's verdict of a drill.
    pub judged: Option<bool>,
    /// An exercise at a table, in which nothing was executed.
    pub tabletop: bool,
}

impl Past {
    /// Whether everything that was measured is as it should be, and service came back.
    pub fn went_well(&self) -> bool {
        self.rto.is_some()
            && [self.rto_met, self.rpo_met, self.verified, self.judged].into_iter().all(|v| v != Some(false))
    }
}

/// One scenario over all incidents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScenarioHistory {
    /// Newest first.
    pub past: Vec<Past>,
    /// How long each step took when it was done.
    pub step_times: StepTimes,
}

impl ScenarioHistory {
    /// The last drill that ended.
    pub fn last_drill(&self) -> Option<&Past> {
        self.past.iter().find(|p| p.kind == Kind::Drill && !p.tabletop && p.closed.is_some())
    }
}

/// All scenarios, by slug.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// By the scenario's slug.
    pub scenarios: BTreeMap<String, ScenarioHistory>,
    /// Incidents that are open, newest first: id and title.
    pub open: Vec<(IncidentId, String)>,
    /// When secrets were changed in the course of incidents, by name in lower case.
    pub rotated: BTreeMap<String, Time>,
    /// Incidents that cannot be read, with the reason.
    pub unreadable: Vec<(IncidentId, String)>,
}

impl History {
    /// Reads every incident of the store.
    ///
    /// # Errors
    /// State when the store's directory cannot be listed; a single incident that cannot be read is in `unreadable`.
    pub fn read(store: &Store) -> Result<Self> {
        let mut history = Self::default();
        for entry in store.list()? {
            match entry.state {
                Ok(state) => history.add(&state),
                Err(e) => history.unreadable.push((entry.id, e.to_string())),
            }
        }
        Ok(history)
    }

    /// Times of the steps of a scenario, for the forecast.
    pub fn step_times(&self, scenario: &str) -> StepTimes {
        self.scenarios.get(scenario).map(|s| s.step_times.clone()).unwrap_or_default()
    }

    /// Adds an incident; newest first.
    fn add(&mut self, state: &State) {
        if state.closed.is_none() {
            self.open.push((state.id.clone(), state.title.clone()));
        }
        // In a drill the secrets of its own sandbox are changed, and never those of the team.
        for (secret, at) in state.people.rotated.iter().filter(|_| state.kind != Kind::Drill) {
            let last = self.rotated.entry(secret.to_lowercase()).or_insert(*at);
            *last = (*at).max(*last);
        }
        let scenario = self.scenarios.entry(state.scenario.clone()).or_default();
        scenario.past.push(past(state));
        // An incident still going on may be reopened at any step; its times count when it is closed.
        // What was only said took no time of its own.
        if state.closed.is_none() || state.people.tabletop.is_some() {
            return;
        }
        for (id, step) in &state.steps {
            if step.status == StepStatus::Done
                && let Some(took) = step.took()
            {
                scenario.step_times.entry(id.clone()).or_default().push(took);
            }
        }
    }
}

fn past(state: &State) -> Past {
    let start = state.impact.as_ref().map_or(state.opened.at, |i| i.at);
    let rto = state.restored.as_ref().map(|r| r.at.since(start));
    let loss = state.facts.loss.as_ref().map(|l| Duration::from_millis(l.window_ms));
    Past {
        id: state.id.clone(),
        kind: state.kind,
        opened: state.opened.at,
        closed: state.closed.as_ref().map(|(when, _)| when.at),
        rto,
        objective: state.rto,
        rto_met: rto.zip(state.rto).map(|(took, limit)| took <= limit),
        loss,
        rpo_met: loss.zip(state.rpo).map(|(lost, limit)| lost <= limit),
        verified: state.facts.verified.as_ref().map(|(passed, _)| *passed),
        judged: state.facts.judged.as_ref().map(|(passed, _, _)| *passed),
        tabletop: state.people.tabletop.is_some(),
    }
}
