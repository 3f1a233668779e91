//! Reading plans: from bytes to scenarios, one table per rule; whole documents; bad input; the own command line against
//! bash; the library and its watch.

mod bad_input;
mod blocks;
mod by_hand;
mod cli;
mod command_line;
mod documents;
mod fuzz;
mod library;
mod lint;
mod rules;
mod sessions;
mod shipped;
mod text;

use breakglass::model::Plan;
use breakglass::model::plan::Scenario;

/// Reads a document that must open.
pub fn read(text: &str) -> Plan {
    breakglass::plan::parse("plan.md", text.as_bytes()).expect("the plan opens")
}

/// The only scenario of a document.
pub fn only(text: &str) -> Scenario {
    let plan = read(text);
    assert_eq!(plan.scenarios.len(), 1, "scenarios: {:?}", titles(&plan));
    plan.scenarios.into_iter().next().expect("one")
}

/// Titles of all scenarios.
pub fn titles(plan: &Plan) -> Vec<String> {
    plan.scenarios.iter().map(|s| s.title.clone()).collect()
}

/// Titles of a scenario's steps.
pub fn steps(scenario: &Scenario) -> Vec<&str> {
    scenario.steps.iter().map(|s| s.title.as_str()).collect()
}

/// Where real plans stand, if they do.
pub fn real_plans() -> Option<std::path::PathBuf> {
    documents::plans()
}
