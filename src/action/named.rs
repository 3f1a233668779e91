//! What a name that a person typed means: the variables of a plan's commands and the blanks of its texts and messages.

use super::blanks::variable_of;
use super::message;
use crate::model::{Plan, Scenario};
use crate::plan::placeholders;

/// A name that a person typed, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The variable its value is kept under.
    pub variable: String,
    /// How the plan or a message writes it (`$REGION`, `[Date]`); none when nothing uses it.
    pub written: Option<String>,
}

/// Every variable and blank of a plan, its messages and ours: the variable, and how it is written there.
pub fn all(plan: &Plan, scenario: &Scenario) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut add = |variable: String, written: String| {
        if !out.iter().any(|(known, _)| *known == variable) {
            out.push((variable, written));
        }
    };
    let steps = || scenario.steps.iter().chain(plan.scenarios.iter().flat_map(|s| &s.steps));
    for block in steps().flat_map(|s| &s.blocks) {
        block.variables.iter().for_each(|name| add(name.clone(), format!("${name}")));
        block.placeholders.iter().for_each(|blank| add(variable_of(blank), blank.clone()));
    }
    for template in message::templates(plan) {
        placeholders::in_message(&template.text).into_iter().for_each(|blank| add(variable_of(&blank), blank));
    }
    out
}

/// What is meant by a name: a variable as it stands, else what is the same but for case, blanks and brackets. One that nothing
/// uses is kept as it was typed where a shell would take it.
pub fn meant(typed: &str, plan: &Plan, scenario: &Scenario) -> Named {
    let all = all(plan, scenario);
    let typed = typed.trim().trim_start_matches('$');
    let kept = variable_of(typed);
    let exact = all.iter().find(|(variable, _)| variable == typed);
    let same = || all.iter().find(|(variable, _)| variable_of(variable) == kept);
    match exact.or_else(same) {
        Some((variable, written)) => Named { variable: variable.clone(), written: Some(written.clone()) },
        None => {
            let plain = typed.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
                && !typed.starts_with(|c: char| c.is_ascii_digit());
            Named { variable: if plain { typed.to_string() } else { kept }, written: None }
        }
    }
}
