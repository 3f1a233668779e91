//! The order of a failover: seen, fenced, promoted, routed, verified, rebuilt.

use super::{Refusal, State};
use crate::incident::RunRequest;
use crate::model::format_clock;

/// What has to come first. Each gate can be waived with a reason.
pub(super) fn gates(state: &State, request: &RunRequest) -> Result<(), Refusal> {
    let waived = |gate: &str| state.waived_for(gate, request.step.as_ref());
    let facts = &state.facts;
    match request.action.as_str() {
        "failover promote" => {
            if facts.standby.is_none() && !waived("standby") {
                return Err(Refusal::gate(
                    "standby",
                    "The standby has not been looked at: nobody knows what promoting it loses",
                    "look at it first (failover standby), or waive the gate \"standby\" with a reason",
                ));
            }
            if facts.fenced.is_none() && !waived("fence") {
                return Err(Refusal::gate(
                    "fence",
                    "The old primary is not proved to be fenced: when it comes back, two primaries take writes",
                    "fence it first (failover fence), or let the lead waive the gate \"fence\" with a reason",
                ));
            }
            lag(state, request)
        }
        "failover route" if facts.promoted.is_none() && !waived("promotion") => Err(Refusal::gate(
            "promotion",
            "Nothing was promoted: traffic would go to a server that takes no writes",
            "promote the standby first, or waive the gate \"promotion\" with a reason",
        )),
        "failover rebuild" | "failover back" if facts.promoted.is_none() => {
            Err(Refusal::new("Nothing was promoted in this incident", "promote the standby first"))
        }
        "failover rebuild" if !facts.in_service && !waived("verification") => Err(Refusal::gate(
            "verification",
            "What is in service now was not verified, and the old primary may hold the only good copy",
            "verify first (failover verify), or waive the gate \"verification\" with a reason",
        )),
        "failover back" if facts.rebuilt.is_none() => Err(Refusal::new(
            "The former primary is no standby of the present one",
            "rebuild it first (failover rebuild)",
        )),
        _ => Ok(()),
    }
}

/// What promoting loses, against the objective; a loss that is not known is not taken for none.
fn lag(state: &State, request: &RunRequest) -> Result<(), Refusal> {
    let (Some(standby), Some(rpo)) = (&state.facts.standby, state.rpo) else { return Ok(()) };
    if state.waived_for("standby_lag", request.step.as_ref()) {
        return Ok(());
    }
    match standby.behind {
        Some(behind) if behind > rpo => Err(Refusal::gate(
            "standby_lag",
            format!(
                "The standby is {} behind the last sample of the primary, the objective is {}",
                format_clock(behind),
                format_clock(rpo)
            ),
            "bring the old primary back if that is quicker, or let the lead waive the gate \"standby_lag\" with a reason",
        )),
        None => Err(Refusal::gate(
            "standby_lag",
            "How far the standby is behind is not known: there is no sample of the primary from before the loss",
            "set failover.monitor, or let the lead waive the gate \"standby_lag\" with what is known otherwise",
        )),
        Some(_) => Ok(()),
    }
}
