//! An exercise at a table: any team's own plan, messages that come in by the clock, and nothing that is executed.
//!
//! The messages are made from the scenario's own wording, so that they fit any plan. What is judged is what people did: who
//! led, whether the alarm was answered in time, whether every step was worked or left out with a reason, whether those who
//! wait were told.

use std::time::Duration;

use crate::error::Result;
use crate::incident::people::COMMAND;
use crate::incident::{Command, Now, Rules, Standing, State, StepStatus, Timer, deadlines};
use crate::model::event::{Check, Event, Kind, Verdict};
use crate::model::plan::{Phase, Plan, Scenario, Step};
use crate::model::{Actor, format_clock};
use crate::runtime::{Incident, Opening, Store};

/// Time between two messages when a person works.
pub const PACE: Duration = Duration::from_secs(180);
/// How long what a person wrote may take to show in a message.
const LONGEST: usize = 160;

/// The messages of an exercise, in order; the first one is the alarm.
pub fn messages(plan: &Plan, scenario: &Scenario, rules: &Rules) -> Vec<String> {
    let mut out = vec![format!("ALARM: {}", alarm(scenario))];
    out.extend(scenario.symptoms.iter().skip(1).take(2).map(|s| format!("Seen as well: {}", short(&s.title))));
    out.push("A customer is on the phone: what happened, is the data safe, and when will it work again?".into());
    if let Some(missing) = scenario.prerequisites.first() {
        out.push(format!("Something is not as the plan expects: “{}” is not there.", short(&missing.title)));
    }
    if let Some((n, step)) = hard(scenario) {
        out.push(format!(
            "Step {n} “{}” does not work at the first try. What is the other way, and who decides?",
            short(&step.title)
        ));
    }
    for step in scenario.steps.iter().filter(|s| s.condition.is_some()).take(2) {
        let condition = step.condition.as_deref().unwrap_or_default();
        out.push(format!("It turns out that this holds: {}", short(condition)));
    }
    if let Some(contact) = plan.contacts.first() {
        out.push(format!("{} cannot be reached. Who stands in?", short(&contact.role)));
    }
    if let Some(level) = rules.next_level(0) {
        out.push(format!("{} asks for a status in one sentence.", short(&level.who)));
    }
    if let Some(rpo) = scenario.rpo_s.or(plan.objectives.rpo_s) {
        let age = if rpo == 0 { Duration::from_secs(300) } else { Duration::from_secs(rpo.saturating_mul(3) / 2) };
        out.push(format!(
            "The newest good copy is {} old, the objective is {}. What is lost, and who has to know?",
            format_clock(age),
            format_clock(Duration::from_secs(rpo))
        ));
    }
    if let Some(rto) = scenario.rto_s.or(plan.objectives.rto_s) {
        let half = format_clock(Duration::from_secs(rto / 2));
        out.push(format!(
            "Suppose half of the RTO has passed ({half}). Will it be met? Say so to everybody who waits."
        ));
    }
    out.push("Somebody asks in public whether data was lost. Who answers, and what?".into());
    out.push("It looks well again. How do you know, and who says so?".into());
    out
}

/// What is noticed first.
fn alarm(scenario: &Scenario) -> String {
    if let Some(first) = scenario.symptoms.first() {
        return short(&first.title);
    }
    let intro = scenario.intro.lines().map(str::trim).find(|l| {
        !l.is_empty() && !l.starts_with(['#', '|', '>', '<', '-', '*', '`']) && !l.contains(":**") && !l.contains("**:")
    });
    match intro.and_then(|l| l.split(". ").next()) {
        Some(sentence) => format!("{}. {}", scenario.title, short(sentence)),
        None => scenario.title.clone(),
    }
}

/// The step most likely to go wrong: of those that recover, or of all, the one in the middle.
fn hard(scenario: &Scenario) -> Option<(usize, &Step)> {
    let all = || scenario.steps.iter().enumerate();
    let mut likely: Vec<(usize, &Step)> = all().filter(|(_, s)| s.phase == Some(Phase::Recover)).collect();
    if likely.is_empty() {
        likely = all().collect();
    }
    likely.get(likely.len() / 2).map(|(at, step)| (at + 1, *step))
}

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    let mut out: String = line.chars().take(LONGEST).collect();
    if out.len() < line.len() {
        out.push('…');
    }
    out
}

/// Opens the exercise: a drill in which nothing is executed.
///
/// # Errors
/// Usage when the plan has no such scenario; state when it cannot be written.
pub fn open(
    store: &Store,
    plan: &Plan,
    documents: Vec<(String, Vec<u8>)>,
    scenario: &str,
    pace: Duration,
) -> Result<Incident> {
    let incident = store.create(Opening {
        kind: Kind::Drill,
        plan: plan.clone(),
        documents,
        scenario: scenario.to_string(),
        rto_ms: None,
        rpo_ms: None,
        target: Some("nothing: an exercise at a table".into()),
        expect: Default::default(),
        policy: Default::default(),
    })?;
    let mut incident = incident.acting_as(Actor::new("breakglass"));
    let planned = messages(plan, incident.scenario(), &Rules::of(plan, incident.scenario())).len();
    let began = Event::TabletopBegan {
        document: plan.file.clone(),
        messages: u32::try_from(planned).unwrap_or(u32::MAX),
        pace_ms: u64::try_from(pace.as_millis()).unwrap_or(u64::MAX),
    };
    incident.submit(Command::Observe { facts: vec![began] })?;
    Ok(incident)
}

/// Brings the message of this number in, from 1.
///
/// # Errors
/// State when it cannot be written.
pub fn bring_in(incident: &mut Incident, number: u32, text: &str) -> Result<()> {
    let fact = Event::MessageInjected { number, text: text.to_string() };
    incident.submit(Command::Observe { facts: vec![fact] })?;
    Ok(())
}

/// The messages of an open exercise that are due by its own clock and have not come in yet, each with its number.
pub fn due(state: &State, plan: &Plan, scenario: &Scenario, now: &Now) -> Vec<(u32, String)> {
    let Some(exercise) = state.people.tabletop.as_ref().filter(|_| state.closed.is_none()) else { return Vec::new() };
    let brought = exercise.brought.len();
    if exercise.due(now) as usize <= brought {
        return Vec::new();
    }
    let texts = messages(plan, scenario, &Rules::of(plan, scenario));
    let due = texts.into_iter().take(exercise.due(now) as usize).skip(brought);
    due.zip(brought + 1..).map(|(text, n)| (u32::try_from(n).unwrap_or(u32::MAX), text)).collect()
}

/// What the exercise showed.
pub fn judge(state: &State, scenario: &Scenario, rules: &Rules, now: &Now) -> Event {
    let mut checks = Vec::new();
    let mut check = |name: &str, good: bool, detail: String| {
        let verdict = if good { Verdict::Passed } else { Verdict::Failed };
        checks.push(Check { name: name.into(), verdict, detail });
    };
    let respond = deadlines(state, rules, now).into_iter().find(|d| d.timer == Timer::Respond);
    let answered = respond.as_ref().is_some_and(|d| matches!(d.standing, Standing::Met(_)));
    let limit = respond.map(|d| format_clock(d.period)).unwrap_or_default();
    check("alarm answered", answered, format!("somebody had to be on it within {limit}"));
    let lead = state.people.holder(COMMAND);
    check(
        "somebody leads",
        lead.is_some(),
        lead.map_or("no incident commander was named".into(), |h| h.person.clone()),
    );
    let status = |wanted: StepStatus| scenario.steps.iter().filter(|s| state.step(&s.id).status == wanted).count();
    let (done, skipped, all) = (status(StepStatus::Done), status(StepStatus::Skipped), scenario.steps.len());
    check("steps worked", done + skipped == all, format!("{done} of {all} worked, {skipped} left out with a reason"));
    let (told, said) = (state.messages.len(), state.people.tabletop.as_ref());
    check("people told", told > 0, format!("{told} messages"));
    let (dealt, brought) = said.map_or((0, 0), |t| {
        let acts = acts(state);
        let dealt = t.brought.iter().filter(|(when, _)| acts.iter().any(|a| *a >= when.at)).count();
        (dealt, t.brought.len())
    });
    let planned = said.map_or(0, |t| t.planned as usize);
    check(
        "messages dealt with",
        dealt == brought && brought > 0,
        format!("{dealt} of {brought} that came in, of {planned}"),
    );
    check("service called back", state.restored.is_some(), "somebody said so".into());
    let passed = checks.iter().all(|c| c.verdict == Verdict::Passed);
    Event::DrillJudged { passed, checks, injected_at: None }
}

/// When people did something.
fn acts(state: &State) -> Vec<crate::model::Time> {
    let steps = state.steps.values().flat_map(|s| s.started.iter().chain(&s.ended)).map(|i| i.at);
    let notes = state.notes.iter().map(|n| n.when.at);
    let messages = state.messages.iter().map(|(.., when)| when.at);
    let calls = state.people.escalations.iter().map(|e| e.when.at);
    let roles = state.people.roles.values().flatten().map(|h| h.since.at);
    steps.chain(notes).chain(messages).chain(calls).chain(roles).collect()
}

/// Plays the exercise without people, to see that plan and program go together: every message in its turn, every step.
///
/// # Errors
/// What a submit refuses, and state when the journal cannot be written.
pub fn play(mut incident: Incident, texts: &[String], pace: Duration, say: &mut dyn FnMut(&str)) -> Result<State> {
    let scenario = incident.scenario().clone();
    let rules = Rules::of(incident.plan(), &scenario);
    let severity = incident.state()?.severity.clone().unwrap_or_else(|| "P1".into());
    let per_step = texts.len().div_ceil(scenario.steps.len().max(1)).max(1);
    let mut waiting = texts.iter().enumerate();
    let mut bring = |incident: &mut Incident, say: &mut dyn FnMut(&str), count: usize| -> Result<()> {
        for (n, text) in waiting.by_ref().take(count) {
            if n > 0 {
                std::thread::sleep(pace);
            }
            bring_in(incident, u32::try_from(n + 1).unwrap_or(u32::MAX), text)?;
            say(&format!("message {}: {text}", n + 1));
            incident.submit(Command::Note { text: format!("answered message {}", n + 1) })?;
        }
        Ok(())
    };
    bring(&mut incident, say, 1)?;
    incident.submit(Command::Declare { severity })?;
    incident.submit(Command::Assign { role: COMMAND.into(), person: "unattended".into(), note: String::new() })?;
    for (n, step) in scenario.steps.iter().enumerate() {
        incident.submit(Command::StartStep { step: step.id.clone() })?;
        bring(&mut incident, say, per_step)?;
        incident.submit(Command::FinishStep { step: step.id.clone() })?;
        say(&format!("step {}: {}", n + 1, step.title));
    }
    bring(&mut incident, say, usize::MAX)?;
    let audience = rules.limits(incident.state()?.severity.as_deref()).audience.clone();
    let text = format!("exercise: {}", scenario.title);
    incident.submit(Command::Tell { audience, text, how: Some("said".into()), step: None })?;
    let now = incident.now();
    incident.submit(Command::RestoreService { at: now.time, how: "said at the table".into() })?;
    let verdict = judge(incident.state()?, &scenario, &rules, &incident.now());
    incident.submit(Command::Observe { facts: vec![verdict] })?;
    incident.submit(Command::Close { summary: "exercise at a table, played without people".into(), force: false })?;
    incident.state().cloned()
}
