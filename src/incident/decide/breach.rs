//! The order of a breach: evidence before isolation, isolation before cleaning, all doors before reopening.

use super::{Refusal, State};
use crate::incident::RunRequest;

/// What has to come first. Each gate can be waived with a reason.
pub(super) fn gates(state: &State, request: &RunRequest) -> Result<(), Refusal> {
    let waived = |gate: &str| state.waived_for(gate, request.step.as_ref());
    let facts = &state.facts;
    match request.action.as_str() {
        "breach isolate" if facts.evidence_after_isolation.is_none() && !waived("evidence") => Err(Refusal::gate(
            "evidence",
            "No evidence was collected: ending the sessions destroys what they could have told",
            "collect it first (evidence collect), or waive the gate \"evidence\" with a reason",
        )),
        "breach clean" | "breach rotate" if facts.isolated.is_none() && !waived("isolation") => Err(Refusal::gate(
            "isolation",
            "Nobody was isolated: whoever is inside sees the new secret, and undoes what is cleaned",
            "isolate first (breach isolate), or waive the gate \"isolation\" with a reason",
        )),
        "breach clean" | "breach verify" if facts.shadow.is_none() => Err(Refusal::new(
            "There is no clean copy to compare with",
            "recover one to before the first action of the intruder (pitr restore)",
        )),
        "breach reopen" => {
            let unrotated = facts.unrotated.as_ref().is_none_or(|left| !left.is_empty());
            if !facts.in_service && !waived("verification") {
                return Err(Refusal::gate(
                    "verification",
                    "That nothing of the intruder is left was not verified",
                    "verify first (breach verify), or waive the gate \"verification\" with a reason",
                ));
            }
            if unrotated && !waived("rotation") {
                let left = facts.unrotated.as_ref().map(|l| l.join(", ")).unwrap_or_else(|| "all of them".into());
                return Err(Refusal::gate(
                    "rotation",
                    format!("Secrets that the intruder could have read are still valid: {left}"),
                    "rotate them first (breach rotate), or waive the gate \"rotation\" with a reason",
                ));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
