//! Steps: start, finish, skip, reopen, tick.

use crate::model::event::Event;
use crate::model::{Phase, Step, StepId};

use super::{Command, Context, Decision, Refusal, State, must_be_open, must_say};
use crate::incident::{Run, StepStatus, people::untold};

pub(super) fn decide(state: &State, command: &Command, ctx: Context<'_>) -> Decision {
    must_be_open(state)?;
    match command {
        Command::StartStep { step } => {
            find(ctx, step)?;
            match state.step(step).status {
                StepStatus::Active => Ok(vec![]),
                StepStatus::Open => Ok(vec![Event::StepStarted { step: step.clone() }]),
                StepStatus::Done | StepStatus::Skipped => Err(Refusal::new(
                    format!("{} is already {}", named(ctx, step), word(state.step(step).status)),
                    "reopen it with a reason",
                )),
            }
        }
        Command::FinishStep { step } => {
            let found = find(ctx, step)?;
            if state.step(step).status == StepStatus::Done {
                return Ok(vec![]);
            }
            if let Some(run) = state.open_runs().find(|r| r.step.as_ref() == Some(step)) {
                return Err(Refusal::new(
                    format!("{} still has run {} ({}) open", named(ctx, step), run.id, run.shown),
                    "wait for it, cancel it, or say what became of it",
                ));
            }
            // Looking is done when one has looked: bad health *is* the finding. Changing, verifying and closing must succeed.
            let looking = |r: &Run| !r.is_mutating() && !matches!(found.phase, Some(Phase::Verify | Phase::Close));
            // A promotion that only waited in vain for good health has done its work once health was seen.
            let well_since = |r: &Run| {
                r.action == "pitr promote"
                    && state.facts.shadow_promoted
                    && matches!((&state.facts.health, &r.ended), (Some((true, _, seen)), Some(ended)) if seen.at > ended.at)
            };
            if let Some(run) = state.last_word_of(step)
                && !run.succeeded()
                && !looking(run)
                && !well_since(run)
            {
                return Err(Refusal::new(
                    format!("The last run of {} did not succeed: {}", lower(&named(ctx, step)), run.summary),
                    "run it again, or skip the step with a reason",
                ));
            }
            let mut events = vec![Event::StepDone { step: step.clone() }];
            if untold(state, found) {
                let text = format!("{} was finished with nothing told: no message is on record", named(ctx, step));
                events.push(Event::NoteAdded { text });
            }
            Ok(events)
        }
        Command::SkipStep { step, reason } => {
            find(ctx, step)?;
            must_say(reason, "The reason for skipping")?;
            if let Some(run) = state.open_runs().find(|r| r.step.as_ref() == Some(step)) {
                return Err(Refusal::new(
                    format!("{} still has run {} ({}) open", named(ctx, step), run.id, run.shown),
                    "wait for it, cancel it, or say what became of it",
                ));
            }
            match state.step(step).status {
                StepStatus::Done => {
                    Err(Refusal::new(format!("{} is already done", named(ctx, step)), "reopen it first"))
                }
                StepStatus::Skipped => Ok(vec![]),
                _ => Ok(vec![Event::StepSkipped { step: step.clone(), reason: reason.clone() }]),
            }
        }
        Command::ReopenStep { step, reason } => {
            find(ctx, step)?;
            must_say(reason, "The reason for reopening")?;
            match state.step(step).status {
                StepStatus::Done | StepStatus::Skipped => {
                    Ok(vec![Event::StepReopened { step: step.clone(), reason: reason.clone() }])
                }
                _ => Ok(vec![]),
            }
        }
        Command::Tick { step, item, done } => {
            let found = find(ctx, step)?;
            if usize::try_from(*item).map_or(true, |i| i >= found.items.len()) {
                return Err(Refusal::new(
                    format!(
                        "{} has {} items, there is no item {}",
                        named(ctx, step),
                        found.items.len(),
                        u64::from(*item) + 1
                    ),
                    "choose one that is there",
                ));
            }
            if state.step(step).ticked.contains_key(item) == *done {
                return Ok(vec![]);
            }
            let mut events = Vec::new();
            if state.step(step).status == StepStatus::Open {
                events.push(Event::StepStarted { step: step.clone() });
            }
            events.push(Event::ItemTicked { step: step.clone(), item: *item, done: *done });
            Ok(events)
        }
        _ => Ok(vec![]),
    }
}

pub(super) fn find<'a>(ctx: Context<'a>, step: &StepId) -> Result<&'a Step, Refusal> {
    ctx.scenario.steps.iter().find(|s| s.id == *step).ok_or_else(|| {
        let known: Vec<_> = ctx.scenario.steps.iter().map(|s| s.id.as_str()).collect();
        Refusal::new(
            format!("There is no step {:?} in this scenario", step.as_str()),
            format!("steps: {}", known.join(", ")),
        )
    })
}

/// A step as it is called on the screen: `Step 3 “Stop the bleeding”`.
pub(super) fn named(ctx: Context<'_>, step: &StepId) -> String {
    match ctx.scenario.steps.iter().position(|s| s.id == *step) {
        Some(at) => format!("Step {} “{}”", at + 1, ctx.scenario.steps[at].title),
        None => format!("Step {step}"),
    }
}

fn lower(name: &str) -> String {
    name.replacen("Step", "step", 1)
}

fn word(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Open => "open",
        StepStatus::Active => "active",
        StepStatus::Done => "done",
        StepStatus::Skipped => "skipped",
    }
}
