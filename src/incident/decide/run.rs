//! Runs: request with its safety gates, start, finish, withdraw, cancel, lose, resolve, approve.

use crate::model::RunId;
use crate::model::event::Event;
use crate::model::plan::Risk;

use super::{Command, Context, Decision, Refusal, State, must_be_open, must_say, step};
use crate::incident::{Run, RunRequest, RunStatus, StepStatus, moment};

/// The action that hands a message to the configured command.
pub const NOTIFY: &str = "notify";

pub(super) fn decide(state: &State, command: &Command, ctx: Context<'_>) -> Decision {
    match command {
        Command::RequestRun(request) => {
            must_be_open(state)?;
            self::request(state, request, ctx)
        }
        Command::StartRun { run, pid, host, program } => match find(state, *run)?.status {
            RunStatus::Requested => {
                Ok(vec![Event::RunStarted { run: *run, pid: *pid, host: host.clone(), program: program.clone() }])
            }
            RunStatus::Withdrawn => Err(Refusal::new(format!("Run {run} was withdrawn"), "request it again")),
            _ => Err(Refusal::new(format!("Run {run} has already started"), "it is never run twice")),
        },
        Command::FinishRun { run, outcome, exit_code, summary, duration_ms, output, facts } => {
            match find(state, *run)?.status {
                // A worker that was taken for lost may still report: the truth is better late than never.
                RunStatus::Running | RunStatus::Unknown => {
                    let mut events = vec![Event::RunFinished {
                        run: *run,
                        outcome: *outcome,
                        exit_code: *exit_code,
                        summary: summary.clone(),
                        duration_ms: *duration_ms,
                        output: output.clone(),
                    }];
                    events.extend(facts.iter().cloned());
                    if service_is_back(state, facts) {
                        events.push(Event::ServiceRestored {
                            at: ctx.now.time,
                            how: "what is in service was verified, and health is good".into(),
                        });
                    }
                    Ok(events)
                }
                RunStatus::Requested => Err(Refusal::new(format!("Run {run} has not started"), "start it first")),
                _ => Err(Refusal::new(format!("Run {run} has already ended"), "")),
            }
        }
        Command::WithdrawRun { run, reason } => match find(state, *run)?.status {
            RunStatus::Requested => Ok(vec![Event::RunWithdrawn { run: *run, reason: reason.clone() }]),
            RunStatus::Withdrawn => Ok(vec![]),
            _ => Err(Refusal::new(format!("Run {run} has started"), "cancel it instead")),
        },
        Command::CancelRun { run } => {
            let found = find(state, *run)?;
            match found.status {
                _ if found.cancel_requested && found.is_open() => Ok(vec![]),
                RunStatus::Requested | RunStatus::Running => Ok(vec![Event::RunCancelRequested { run: *run }]),
                RunStatus::Unknown => Err(Refusal::new(
                    format!("The worker of run {run} is gone, nothing is left to cancel"),
                    "say what became of it",
                )),
                _ => Err(Refusal::new(format!("Run {run} has already ended"), "")),
            }
        }
        Command::LoseRun { run } => match find(state, *run)?.status {
            RunStatus::Running => Ok(vec![Event::RunOutcomeUnknown { run: *run }]),
            RunStatus::Unknown => Ok(vec![]),
            RunStatus::Requested => Err(Refusal::new(format!("Run {run} has not started"), "withdraw it instead")),
            _ => Err(Refusal::new(format!("Run {run} has already ended"), "")),
        },
        Command::ResolveRun { run, outcome, reason } => {
            must_say(reason, "How you know")?;
            match find(state, *run)?.status {
                RunStatus::Unknown => {
                    Ok(vec![Event::RunResolved { run: *run, outcome: *outcome, reason: reason.clone() }])
                }
                _ => Err(Refusal::new(format!("The outcome of run {run} is not in question"), "")),
            }
        }
        Command::Approve { shown, requested_by } => {
            must_be_open(state)?;
            if ctx.actor == requested_by {
                return Err(Refusal::new(
                    "Approval needs another person than the one who asks",
                    "let a second responder approve",
                ));
            }
            Ok(vec![Event::RunApproved { shown: shown.clone(), requested_by: requested_by.clone() }])
        }
        _ => Ok(vec![]),
    }
}

fn find(state: &State, run: RunId) -> Result<&Run, Refusal> {
    state.runs.get(&run).ok_or_else(|| Refusal::new(format!("There is no run {run} in this incident"), ""))
}

fn request(state: &State, request: &RunRequest, ctx: Context<'_>) -> Decision {
    let mut events = Vec::new();
    if let Some(id) = &request.step {
        step::find(ctx, id)?;
        match state.step(id).status {
            StepStatus::Open => events.push(Event::StepStarted { step: id.clone() }),
            StepStatus::Active => {}
            StepStatus::Done | StepStatus::Skipped if request.risk == Risk::Read => {}
            StepStatus::Done | StepStatus::Skipped => {
                return Err(Refusal::new(
                    format!("{} is closed", step::named(ctx, id)),
                    "reopen it with a reason (u), then run",
                ));
            }
        }
    }
    if state.people.tabletop.is_some() {
        return Err(Refusal::new(
            "This is an exercise at a table: nothing is executed",
            "say aloud what it would do and how you would see that it worked; then mark the step as done",
        ));
    }
    // A message may go out while a restore runs: that is when people wait for one.
    let message = request.action == NOTIFY;
    if request.risk > Risk::Read && !message {
        one_at_a_time(state)?;
    }
    if message && state.people.local_only {
        return Err(Refusal::new(
            "This incident is local only: nothing leaves this machine by our doing",
            "copy the message and carry it by hand, or switch local-only off with a reason",
        ));
    }
    sequence_gates(state, request, ctx)?;
    super::failover::gates(state, request)?;
    super::breach::gates(state, request)?;
    if request.risk == Risk::Destroy {
        destroy_gates(state, request, ctx)?;
    }
    events.push(Event::RunRequested {
        step: request.step.clone(),
        block_line: request.block_line,
        action: request.action.clone(),
        shown: request.shown.clone(),
        args: request.args.clone(),
        risk: request.risk,
        confirmed: request.confirmed.clone(),
    });
    Ok(events)
}

/// While something that changes the world may still be going on, nothing else that changes it begins.
fn one_at_a_time(state: &State) -> Result<(), Refusal> {
    let Some(run) = state.open_runs().find(|r| r.is_mutating() && r.action != NOTIFY) else { return Ok(()) };
    Err(match run.status {
        RunStatus::Unknown => Refusal::new(
            format!("The outcome of run {} ({}) is unknown: its worker vanished", run.id, run.shown),
            "look at the target and say what became of it first",
        ),
        _ => Refusal::new(
            format!("Run {} ({}) is still going on", run.id, run.shown),
            "wait for it or cancel it; two changing actions never run at once",
        ),
    })
}

/// The order that keeps data: a moment before a restore, a verified shadow and contained damage before a promotion.
fn sequence_gates(state: &State, request: &RunRequest, _ctx: Context<'_>) -> Result<(), Refusal> {
    let waived = |gate: &str| state.waived_for(gate, request.step.as_ref());
    match request.action.as_str() {
        "pitr restore" if request.args.iter().any(|a| a.contains("$TARGET") || a.is_empty()) => Err(Refusal::new(
            "No moment is chosen yet, so there is nothing to restore to",
            "choose the moment first, or give --to",
        )),
        "pitr verify" if state.facts.shadow.is_none() => {
            Err(Refusal::new("There is no recovered instance to verify", "run the restore first"))
        }
        "pitr promote" => {
            if state.facts.shadow.is_none() {
                return Err(Refusal::new("There is no recovered instance to promote", "run the restore first"));
            }
            if state.facts.shadow_promoted && state.facts.going_back {
                return Err(Refusal::new(
                    "The recovered instance at hand is the one in service, and another moment was chosen since",
                    "restore to that moment first; then promote what was recovered to it",
                ));
            }
            if let Some(run) = state.promoting_run() {
                return Err(Refusal::new(
                    format!("The recovered instance was already promoted by run {}", run.id),
                    "nothing is left to promote; if it is the wrong moment, choose another one (m) and restore again",
                ));
            }
            if state.facts.contained.is_none() && !waived("containment") {
                return Err(Refusal::gate(
                    "containment",
                    "Writes to the damaged database were not stopped: whatever is written now would be lost silently",
                    "stop the bleeding first, or waive the gate \"containment\" with a reason",
                ));
            }
            match &state.facts.verified {
                _ if waived("verification") => Ok(()),
                Some((true, _)) => match moment::damage_unseen(&state.facts) {
                    None => Ok(()),
                    Some(check) => Err(Refusal::gate(
                        "verification",
                        format!("Whether the damage is gone was not verified: {}", check.detail),
                        "look at the damaged records in the recovered instance yourself, then waive the gate \
                         \"verification\" with what you saw; or choose a moment from the list (m)",
                    )),
                },
                Some((false, checks)) => {
                    let failed: Vec<_> = checks
                        .iter()
                        .filter(|c| c.verdict == crate::model::event::Verdict::Failed)
                        .map(|c| c.name.as_str())
                        .collect();
                    Err(Refusal::gate(
                        "verification",
                        format!("Verification of the recovered instance failed: {}", failed.join(", ")),
                        "choose another moment, or waive the gate \"verification\" with a reason",
                    ))
                }
                None => Err(Refusal::gate(
                    "verification",
                    "The recovered instance has not been verified",
                    "run the verification, or waive the gate \"verification\" with a reason",
                )),
            }
        }
        _ => Ok(()),
    }
}

/// `destroy` needs, in order: the preview, the expected identity, a verified backup, the typed name, a second person.
fn destroy_gates(state: &State, request: &RunRequest, ctx: Context<'_>) -> Result<(), Refusal> {
    let waived = |gate: &str| state.waived_for(gate, request.step.as_ref());
    let seen = state.facts.source.as_ref();
    if !waived("identity") {
        identity_gate(state, ctx)?;
    }
    let young = state.facts.backups.iter().any(|b| b.verified && b.age(ctx.now) <= ctx.policy.backup_max_age);
    // A recovery beside keeps the damaged cluster: the shadow that is promoted came out of a backup that was read whole.
    let restored_from_verified = request.action == "pitr promote" && state.facts.shadow.is_some();
    // A failover changes who takes writes; the files of both servers stay as they are. Only a rebuild replaces some.
    let keeps_files = matches!(request.action.as_str(), "failover fence" | "failover promote" | "failover back");
    if !young && !restored_from_verified && !keeps_files && !waived("verified_backup") {
        return Err(Refusal::gate(
            "verified_backup",
            format!(
                "There is no verified backup younger than {}",
                crate::model::format_clock(ctx.policy.backup_max_age)
            ),
            "take one, or waive the gate \"verified_backup\" with a reason",
        ));
    }
    // A target that was never seen has the name people call it, or the one it is expected to have.
    let database = seen.map(|(id, _)| &id.database).or_else(|| state.expect.get("database"));
    match &request.confirmed {
        Some(name) if Some(name) == database || Some(name) == state.target.as_ref() => {}
        // Nobody knows its name: the scenario's stands for it.
        Some(name) if database.is_none() && state.target.is_none() && *name == state.scenario => {}
        Some(name) => {
            return Err(Refusal::new(
                format!("{name:?} was typed, the target is {:?}", database.or(state.target.as_ref()).map_or("", |n| n)),
                "type the target's name exactly",
            ));
        }
        None => {
            return Err(Refusal::new(
                format!("{:?} destroys: the target's name was not typed", request.shown),
                "type it",
            ));
        }
    }
    if ctx.policy.second_person
        && !state.approvals.iter().any(|(shown, by, _)| *shown == request.shown && by == ctx.actor)
        && !waived("second_person")
    {
        return Err(Refusal::gate(
            "second_person",
            "This needs the approval of a second person",
            "let another responder approve it, or waive the gate \"second_person\" with a reason",
        ));
    }
    Ok(())
}

/// The target was seen live, lately, and is the one that is expected.
fn identity_gate(state: &State, ctx: Context<'_>) -> Result<(), Refusal> {
    let Some((seen, when)) = &state.facts.source else {
        return Err(Refusal::gate(
            "identity",
            "The live identity of the target has not been seen",
            "look at the target first (health or assess), or waive the gate \"identity\" with a reason",
        ));
    };
    if when.elapsed(ctx.now) > ctx.policy.preview_max_age {
        return Err(Refusal::gate(
            "identity",
            format!("The target's identity was last seen at {}", when.at.hms()),
            "look at it again, or waive the gate \"identity\" with a reason",
        ));
    }
    for (key, want) in &state.expect {
        let got = match key.as_str() {
            "system_identifier" => &seen.system_identifier,
            "database" => &seen.database,
            // What was promoted may answer elsewhere; who it is stays the same.
            "host" if state.facts.promoted.is_none() => &seen.host,
            _ => continue,
        };
        if got != want {
            return Err(Refusal::gate(
                "identity",
                format!("The target's {key} is {got:?}, but {want:?} is expected"),
                "check that this is the right server; the override is waiving the gate \"identity\" with a reason",
            ));
        }
    }
    Ok(())
}

/// Service is back when what is in service was verified and health was seen good after it went into service.
fn service_is_back(state: &State, facts: &[Event]) -> bool {
    // What is in service is on its way out when another moment was chosen since.
    let stays = state.facts.promoted.is_some() && state.facts.shadow_promoted && !state.facts.going_back;
    let promoted = stays || facts.iter().any(|f| matches!(f, Event::Promoted { .. }));
    let put_right = facts.iter().rev().find_map(|f| match f {
        Event::ServiceVerified { passed, .. } => Some(*passed),
        _ => None,
    });
    let put_right = put_right.unwrap_or(state.facts.in_service);
    let whole = moment::damage_unseen(&state.facts).is_none();
    let verified = put_right || (whole && matches!(state.facts.verified, Some((true, _))));
    let healthy = facts.iter().rev().find_map(|f| match f {
        Event::HealthSeen { healthy, .. } => Some(*healthy),
        _ => None,
    });
    state.restored.is_none() && (promoted || put_right) && verified && healthy == Some(true)
}
