//! The incident itself: open, declare, impact, notes, variables, facts, the moment, waivers, closing.

use crate::incident::StepStatus;
use crate::model::event::Event;
use crate::model::plan::{Phase, Step};
use crate::model::target::RecoveryTarget;
use crate::model::{Time, likely_secret, url_password};

use super::{Command, Context, Decision, Refusal, State, must_be_open, must_say};

pub(super) fn open(command: &Command, ctx: Context<'_>) -> Decision {
    let Command::Open { id, kind, plan, rto_ms, rpo_ms, program, target, expect } = command else {
        return Err(Refusal::new("Only opening can be the first command", ""));
    };
    let s = ctx.scenario;
    Ok(vec![Event::IncidentOpened {
        id: id.clone(),
        kind: *kind,
        scenario: s.slug.clone(),
        title: s.title.clone(),
        plan: plan.clone(),
        severity: s.severity.as_ref().map(|v| v.level.clone()),
        rto_ms: rto_ms.or(s.rto_s.map(|v| v.saturating_mul(1000))),
        rpo_ms: rpo_ms.or(s.rpo_s.map(|v| v.saturating_mul(1000))),
        program: program.clone(),
        target: target.clone(),
        expect: expect.clone(),
    }])
}

pub(super) fn decide(state: &State, command: &Command, ctx: Context<'_>) -> Decision {
    // A closed incident still takes notes and evidence: late knowledge belongs into the record.
    if !matches!(command, Command::Note { .. } | Command::Attach { .. } | Command::Observe { .. }) {
        must_be_open(state)?;
    }
    match command {
        Command::Declare { severity } => {
            if !matches!(severity.as_str(), "P0" | "P1" | "P2" | "P3") {
                return Err(Refusal::new(format!("{severity:?} is not a severity"), "use P0, P1, P2 or P3"));
            }
            if state.declared.is_some() && state.severity.as_deref() == Some(severity) {
                return Ok(vec![]);
            }
            Ok(vec![Event::IncidentDeclared { severity: severity.clone() }])
        }
        Command::SetImpact { at, source } => {
            if *at > ctx.now.time {
                return Err(Refusal::new(format!("{at} is in the future"), "the impact can only have started already"));
            }
            // What a form shows has whole seconds: left as it was, it is nothing new.
            let same = |t: Time| t == *at || t.micros() - t.micros().rem_euclid(1_000_000) == at.micros();
            if state.impact.as_ref().is_some_and(|i| same(i.at) && i.source == *source) {
                return Ok(vec![]);
            }
            Ok(vec![impact(state, *at, source.clone())])
        }
        Command::Note { text } => {
            must_say(text, "The note")?;
            Ok(vec![Event::NoteAdded { text: text.clone() }])
        }
        Command::SetVariable { name, value } => {
            let valid = name
                .chars()
                .enumerate()
                .all(|(i, c)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit()));
            if name.is_empty() || !valid {
                return Err(Refusal::new(format!("{name:?} is not a variable name"), "use letters, digits and _"));
            }
            if likely_secret(name) || url_password(value).is_some() {
                return Err(Refusal::new(
                    format!("{name} holds a secret, and values of variables are recorded"),
                    "run the command: it asks for the value hidden; or set it in the environment before the start",
                ));
            }
            if state.vars.get(name) == Some(value) {
                return Ok(vec![]);
            }
            Ok(vec![Event::VariableSet { name: name.clone(), value: value.clone() }])
        }
        Command::Observe { facts } => {
            if let Some(event) = facts.iter().find(|e| !is_fact(e)) {
                return Err(Refusal::new(format!("{event:?} is not an observation"), ""));
            }
            // Whoever judges later looks at a sandbox that is being cleared away.
            if facts.iter().any(|e| matches!(e, Event::DrillJudged { .. })) {
                must_be_open(state)?;
            }
            // Two consoles keep the same clock: each message of an exercise comes in once.
            let brought = state.people.tabletop.as_ref().map_or(0, |t| t.brought.len());
            let came =
                |e: &&Event| !matches!(e, Event::MessageInjected { number, .. } if (*number as usize) <= brought);
            Ok(facts.iter().filter(came).cloned().collect())
        }
        Command::ChooseMoment { target, at, loses } => {
            if at.is_some_and(|at| at > ctx.now.time) {
                return Err(Refusal::new(format!("{target} is in the future"), "choose a moment that has passed"));
            }
            let mut events = vec![Event::MomentChosen { target: target.clone(), at: *at, loses: loses.clone() }];
            events.extend(impact_of(state, target));
            events.extend(again(state, target, ctx));
            Ok(events)
        }
        Command::Waive { gate, reason, step } => {
            must_say(reason, "The reason")?;
            // A key hit by accident is no reason; whoever reads this later must be able to follow it.
            if reason.split_whitespace().count() < 2 {
                return Err(Refusal::new(
                    format!("{reason:?} is too short for a reason"),
                    "say in a few words why it is safe to go on",
                ));
            }
            if let Some(step) = step {
                super::step::find(ctx, step)?;
            }
            Ok(vec![Event::GateWaived { gate: gate.clone(), reason: reason.clone(), step: step.clone() }])
        }
        Command::RestoreService { at, how } => {
            if state.restored.is_some() {
                return Ok(vec![]);
            }
            if *at > ctx.now.time {
                return Err(Refusal::new(format!("{at} is in the future"), "service can only be back already"));
            }
            Ok(vec![Event::ServiceRestored { at: *at, how: how.clone() }])
        }
        Command::Attach { file, sha256 } => {
            Ok(vec![Event::EvidenceAdded { file: file.clone(), sha256: sha256.clone() }])
        }
        Command::OfferPlan { plan } => {
            if *plan == state.plan || state.plan_offered.as_ref() == Some(plan) {
                return Ok(vec![]);
            }
            Ok(vec![Event::PlanOffered { plan: plan.clone() }])
        }
        Command::AdoptPlan { plan } => {
            if *plan == state.plan {
                return Ok(vec![]);
            }
            Ok(vec![Event::PlanAdopted { plan: plan.clone() }])
        }
        Command::Close { summary, force } => {
            must_say(summary, "The summary")?;
            if let Some(run) = state.open_runs().next() {
                return Err(Refusal::new(
                    format!("Run {} ({}) is still open", run.id, run.shown),
                    "wait for it, cancel it, or say what became of it",
                ));
            }
            if state.restored.is_none() && !force {
                return Err(Refusal::gate(
                    "not_restored",
                    "Service is not marked as restored",
                    "mark it as restored (:restored, or a step that proves it); to close anyway say why in the summary (in the shell with --force)",
                ));
            }
            Ok(vec![Event::IncidentClosed { summary: summary.clone() }])
        }
        _ => Ok(vec![]),
    }
}

/// The impact began at the latest with the first damage: an alarm comes after it.
fn impact_of(state: &State, target: &RecoveryTarget) -> Option<Event> {
    // The end of the log is where one recovers to when the damage is elsewhere: it says nothing of when that began.
    let first = state.facts.candidates.iter().find(|c| c.target == *target && *target != RecoveryTarget::Latest)?;
    let earlier = state.impact.as_ref().is_none_or(|i| first.at < i.at);
    earlier.then(|| impact(state, first.at, "commit time of the first suspect transaction".into()))
}

/// The impact as it is known from here on, with the start that was known before.
fn impact(state: &State, at: Time, source: String) -> Event {
    // To the second, as it is shown: "moved from 14:01:07 to 14:01:07" says nothing.
    let moved_from = state.impact.as_ref().map(|i| i.at).filter(|before| before.date_hms() != at.date_hms());
    Event::ImpactStarted { at, source, moved_from }
}

/// Steps whose work was done for another moment have to be done again.
fn again(state: &State, target: &RecoveryTarget, ctx: Context<'_>) -> Vec<Event> {
    if state.facts.shadow.as_ref().is_none_or(|s| s.target == *target) {
        return Vec::new();
    }
    let worked = |s: &&Step| {
        matches!(s.phase, Some(Phase::Recover | Phase::Verify | Phase::Promote))
            && (matches!(state.step(&s.id).status, StepStatus::Done | StepStatus::Skipped)
                || state.last_word_of(&s.id).is_some())
    };
    let reason = format!("another moment was chosen: {target}");
    let reopen = |s: &Step| Event::StepReopened { step: s.id.clone(), reason: reason.clone() };
    ctx.scenario.steps.iter().filter(worked).map(reopen).collect()
}

/// Events that only report the world and may be recorded outside a run.
fn is_fact(event: &Event) -> bool {
    matches!(
        event,
        Event::TargetSeen { .. }
            | Event::HealthSeen { .. }
            | Event::ExposureSampled { .. }
            | Event::StandbySeen { .. }
            | Event::IntrudersSuspected { .. }
            | Event::RangeSeen { .. }
            | Event::DamageAssessed { .. }
            | Event::MomentsFound { .. }
            | Event::LossMeasured { .. }
            | Event::BackupTaken { .. }
            | Event::DrillPrepared { .. }
            | Event::DrillJudged { .. }
            | Event::TabletopBegan { .. }
            | Event::MessageInjected { .. }
    )
}
