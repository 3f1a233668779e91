//! A changed plan for an incident that is being worked on: what was done must not move to another step.

use std::collections::BTreeSet;

use crate::model::StepId;
use crate::model::plan::{Plan, Scenario, Step};

/// The new plan with the step ids of the old one wherever a step is still the same, and fresh ids for all others; none when
/// the scenario is no longer there.
///
/// A step is the same when its title is, and when the items it had stand unchanged at its beginning: a tick belongs to the
/// number of an item.
pub fn carry_over(old: &Plan, new: &Plan, scenario: &str) -> Option<Plan> {
    let before = old.scenarios.iter().find(|s| s.slug == scenario)?;
    let mut plan = new.clone();
    let at = plan.scenarios.iter().position(|s| s.slug == scenario)?;
    let after = plan.scenarios.get_mut(at)?;
    rename(before, after);
    Some(plan)
}

fn rename(before: &Scenario, after: &mut Scenario) {
    let mut left: Vec<&Step> = before.steps.iter().collect();
    let mut taken: BTreeSet<StepId> = before.steps.iter().map(|s| s.id.clone()).collect();
    let mut fresh = 1usize;
    for step in &mut after.steps {
        match left.iter().position(|old| same(old, step)) {
            Some(i) => step.id = left.remove(i).id.clone(),
            None => {
                let mut id = StepId::new(format!("n{fresh}"));
                while taken.contains(&id) {
                    fresh += 1;
                    id = StepId::new(format!("n{fresh}"));
                }
                taken.insert(id.clone());
                step.id = id;
            }
        }
    }
}

fn same(old: &Step, new: &Step) -> bool {
    let titles = |s: &Step| s.items.iter().map(|i| i.title.clone()).collect::<Vec<_>>();
    old.title == new.title && titles(new).starts_with(&titles(old))
}
