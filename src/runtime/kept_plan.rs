//! The plan an incident keeps for itself: `plan/<digest>/plan.json` and the documents it was read from.
//!
//! Whoever comes back to an incident must be able to go on with it, so a kept plan that is damaged or gone is replaced by the
//! best there is, and the replacement says what it is.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Context, Error, Result};
use crate::incident::State;
use crate::journal::files;
use crate::model::{Digest, Plan, Scenario, Step, StepId};
use crate::plan;

/// Name of the file below `plan/<digest>/`.
const PLAN_FILE: &str = "plan.json";

/// A plan as it was read back.
pub struct KeptPlan {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The incident's scenario in it.
    pub scenario: Arc<Scenario>,
    /// What is wrong with the kept plan, and what stands in for it; none when it is the one the journal names.
    pub damage: Option<String>,
}

/// Writes plan.json and the documents it was read from below `plan/<digest>/`; the digest is of plan.json's bytes.
///
/// # Errors
/// State when it cannot be written.
pub fn write_plan(incident_dir: &Path, plan: &Plan, documents: &[(String, Vec<u8>)]) -> Result<Digest> {
    let (json, digest) = plan::freeze(plan)?;
    let folder = incident_dir.join("plan").join(digest.as_str());
    files::create_dir(&folder)?;
    for (name, bytes) in documents {
        // A document's name may hold folders; only its last part names a file of ours.
        let Some(last) = Path::new(name).file_name() else { continue };
        if last == PLAN_FILE {
            continue;
        }
        files::write_atomic(&folder.join(last), bytes)?;
    }
    // Last, so that a folder with a plan.json is a complete one.
    files::write_atomic(&folder.join(PLAN_FILE), &json)?;
    Ok(digest)
}

/// Reads the plan the journal names, exactly that one.
///
/// # Errors
/// State when it is missing, changed, not a plan, or has no such scenario.
pub fn read_plan(incident_dir: &Path, digest: &Digest, slug: &str) -> Result<KeptPlan> {
    if !crate::journal::record::is_digest(digest.as_str()) {
        return Err(Error::state(format!("{:?} is not the digest of a plan", digest.as_str())));
    }
    let path = incident_dir.join("plan").join(digest.as_str()).join(PLAN_FILE);
    let bytes = std::fs::read(&path).state(|| format!("cannot read the incident's plan {path:?}"))?;
    let plan = plan::thaw(&bytes, Some(digest)).map_err(|e| Error { what: format!("{path:?}: {}", e.what), ..e })?;
    let scenario = scenario_of(&plan, slug)
        .ok_or_else(|| Error::state(format!("the incident's plan {path:?} has no scenario {slug:?}")))?;
    Ok(KeptPlan { plan: Arc::new(plan), scenario, damage: None })
}

/// Reads the plan an incident works with. When the kept one is damaged: read anew from the document kept beside it, if that has
/// every step the journal knows; else the steps the journal knows, without their text.
pub fn plan_of(incident_dir: &Path, state: &State) -> KeptPlan {
    let why = match read_plan(incident_dir, &state.plan, &state.scenario) {
        Ok(kept) => return kept,
        Err(e) => e,
    };
    let folder = incident_dir.join("plan").join(state.plan.as_str());
    let damage = |instead: String| Some(format!("the kept plan cannot be used ({}); {instead}", why.what));
    for (file, plan) in documents(&folder) {
        let Some(scenario) = scenario_of(&plan, &state.scenario) else { continue };
        let known: BTreeSet<&StepId> = scenario.steps.iter().map(|s| &s.id).collect();
        if state.steps.keys().all(|id| known.contains(id)) {
            let damage = damage(format!("read anew from the document {file:?} kept beside it"));
            return KeptPlan { plan: Arc::new(plan), scenario, damage };
        }
    }
    let mut ids: Vec<&StepId> = state.steps.keys().collect();
    ids.sort_by_key(|id| id.order());
    let steps = ids.into_iter().map(|id| Step { id: id.clone(), title: format!("Step {id}"), ..Step::default() });
    let scenario = Scenario {
        slug: state.scenario.clone(),
        title: state.title.clone(),
        steps: steps.collect(),
        ..Scenario::default()
    };
    let plan = Plan { title: state.title.clone(), scenarios: vec![scenario.clone()], ..Plan::default() };
    let damage = damage("only the steps the journal knows are shown: work from your own copy of the plan".into());
    KeptPlan { plan: Arc::new(plan), scenario: Arc::new(scenario), damage }
}

fn scenario_of(plan: &Plan, slug: &str) -> Option<Arc<Scenario>> {
    plan.scenarios.iter().find(|s| s.slug == slug).cloned().map(Arc::new)
}

/// The documents kept in a folder, read as plans, by name.
fn documents(folder: &Path) -> Vec<(String, Plan)> {
    let mut found: Vec<(String, Plan)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name().into_string().ok().filter(|name| name != PLAN_FILE)?;
            let plan = plan::parse(&file, &std::fs::read(entry.path()).ok()?).ok()?;
            Some((file, plan))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}
