//! Which objective applies to a scenario: its own, else one the plan states for everything or for its kind of thing.

use super::words;
use crate::model::plan::{Objective, Plan, Scenario};

/// An objective as it applies to a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applying<'p> {
    /// Seconds.
    pub seconds: u64,
    /// What the plan states it for; none for everything.
    pub scope: Option<&'p str>,
    /// Whether the scenario states it itself.
    pub own: bool,
}

/// Words of a scope that name no thing.
const GENERAL: &[&str] =
    &["full", "all", "complete", "critical", "system", "systems", "service", "services", "recovery", "restore", "and"];

/// The objective of a metric (`rto`, `rpo`) that a scenario is held to, in this order: its own; the plan's for
/// everything; the plan's for a scope that shares a word with the scenario's title; the plan's first one.
pub fn applying<'p>(plan: &'p Plan, scenario: &'p Scenario, metric: &str) -> Option<Applying<'p>> {
    let own = if metric == "rpo" { scenario.rpo_s } else { scenario.rto_s };
    if let Some(seconds) = own {
        return Some(Applying { seconds, scope: None, own: true });
    }
    let stated: Vec<&Objective> =
        plan.objectives.all.iter().filter(|o| o.metric == metric && o.seconds.is_some()).collect();
    let title = words::norm(&scenario.title);
    let named = |o: &&&Objective| {
        let scope = words::norm(o.scope.as_deref().unwrap_or_default());
        scope.split(' ').any(|w| w.len() > 3 && !GENERAL.contains(&w) && title.split(' ').any(|t| t == w))
    };
    let chosen = stated.iter().find(|o| o.scope.is_none()).or_else(|| stated.iter().find(named)).or(stated.first());
    let headline = if metric == "rpo" { plan.objectives.rpo_s } else { plan.objectives.rto_s };
    match chosen {
        Some(o) => Some(Applying { seconds: o.seconds?, scope: o.scope.as_deref(), own: false }),
        None => headline.map(|seconds| Applying { seconds, scope: None, own: false }),
    }
}
