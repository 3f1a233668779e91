//! What an accepted dialog does.

use crate::incident::{Command, Context, decide};
use crate::model::event::{Kind, Outcome};
use crate::model::target::RecoveryTarget;
use crate::model::{Secret, may_hold_secret};

use super::super::dialog::{Ask, Dialog, Field, SAID};
use super::super::when::parse_when;
use super::super::{App, Effect, IncidentUi, Screen, Tone};
use super::{incident, people};
use crate::action::{named, runnable};

/// Checks what was entered and does it; what is wrong is said in the dialog, which stays.
pub(super) fn accept(app: &mut App, out: &mut Vec<Effect>) {
    let Some(dialog) = app.dialogs.last().cloned() else { return };
    if let Some(done) = people::accept(app, &dialog, out) {
        if let (Err(problem), Some(open)) = (done, app.dialogs.last_mut()) {
            open.problem = Some(problem);
        }
        return;
    }
    if let Err(problem) = act(app, &dialog, out)
        && let Some(open) = app.dialogs.last_mut()
    {
        open.problem = Some(problem);
    }
}

fn act(app: &mut App, dialog: &Dialog, out: &mut Vec<Effect>) -> Result<(), String> {
    let now = app.now.time;
    let submit = |c: Command| Effect::Submit(c, None);
    let say = |field: usize, what: &str| -> Result<String, String> {
        let text = dialog.value(field);
        if text.is_empty() { Err(format!("{what} is needed; a few words will do")) } else { Ok(text.to_string()) }
    };
    match &dialog.ask {
        Ask::Help
        | Ask::Palette
        | Ask::Deadlines
        | Ask::Snooze
        | Ask::Escalate
        | Ask::Answered(_)
        | Ask::NoCall
        | Ask::Assign
        | Ask::Tell(_)
        | Ask::Send { .. }
        | Ask::Blanks(_)
        | Ask::BlanksLeft { .. }
        | Ask::Codename
        | Ask::LiftCodename(_)
        | Ask::LocalOnly(_)
        | Ask::Rotated
        | Ask::Afterwards { .. } => return Ok(()),
        Ask::Note => {
            let text = say(0, "the note")?;
            let at = parse_when(dialog.value(1), now)?;
            let back_dated = (at != now).then_some(at);
            out.push(Effect::Submit(Command::Note { text }, back_dated));
            app.draft.clear();
        }
        Ask::Skip(step) => {
            out.push(submit(Command::SkipStep { step: step.clone(), reason: say(0, "the reason")? }));
        }
        Ask::Reopen(step) => {
            out.push(submit(Command::ReopenStep { step: step.clone(), reason: say(0, "the reason")? }));
        }
        Ask::Declare => {
            let at = parse_when(dialog.value(1), now)?;
            let source = impact_source(dialog);
            let codename = dialog.value(CODENAME).to_string();
            asked_for_codename(app)?;
            let before = app.incident.as_ref().map(|ui| &ui.data.state);
            if !codename.is_empty() && before.is_some_and(|s| s.people.codename.as_ref() != Some(&codename)) {
                out.push(submit(Command::SetCodename { codename: codename.clone() }));
            }
            let unnamed = codename.is_empty() && dialog.fields.len() > CODENAME;
            let wishes =
                [Command::Declare { severity: dialog.value(0).to_string() }, Command::SetImpact { at, source }];
            if wishes.iter().all(|wish| nothing_new(app, wish)) {
                app.say(Tone::Info, "nothing changed: severity and start are as they were declared".into());
            }
            out.extend(wishes.map(submit));
            if unnamed && before_codename(app) {
                app.say(Tone::Bad, UNNAMED.into());
            }
        }
        Ask::Begin { file, scenario, .. } => {
            let at = parse_when(dialog.value(1), now)?;
            let codename = Some(dialog.value(CODENAME).to_string()).filter(|name| !name.is_empty());
            asked_for_codename(app)?;
            if codename.is_none() && dialog.fields.len() > CODENAME {
                app.say(Tone::Bad, UNNAMED.into());
            }
            out.push(Effect::Begin {
                file: file.clone(),
                scenario: scenario.clone(),
                severity: dialog.value(0).to_string(),
                impact: Some((at, impact_source(dialog))),
                codename,
            });
        }
        Ask::Drill { file, scenario, .. } => {
            out.push(Effect::Drill { file: file.clone(), scenario: scenario.clone() });
            app.dialogs.pop();
            app.wait_for_drill(scenario);
            return Ok(());
        }
        Ask::Values(names) => {
            let mut values = Vec::new();
            for (i, name) in names.iter().enumerate() {
                let value = say(i, name)?;
                if let Some(option) = value.split_whitespace().skip(1).find(|word| word.starts_with("--")) {
                    return Err(format!(
                        "{option} is an option of the command, not part of {name}: enter the value, then e changes the command"
                    ));
                }
                let named = app.incident.as_ref().map(|ui| named::meant(name, &ui.data.plan, &ui.data.scenario));
                let variable = named.map_or_else(|| runnable::variable_of(name), |n| n.variable);
                values.push((variable, if value == "\"\"" { String::new() } else { value }));
            }
            for (name, value) in values {
                if may_hold_secret(&name) {
                    let secret = Secret::new(value);
                    app.env.secrets.add(&secret);
                    out.push(Effect::Hold(name, secret));
                } else {
                    out.push(submit(Command::SetVariable { name, value }));
                }
            }
        }
        Ask::Variable => {
            let (typed, value) = (say(0, "a name")?, say(1, "a value")?);
            let Some(ui) = &app.incident else { return Ok(()) };
            let meant = named::meant(&typed, &ui.data.plan, &ui.data.scenario);
            if may_hold_secret(&meant.variable) {
                app.dialogs.pop();
                app.dialogs.push(Dialog::new(Ask::Values(vec![meant.variable])));
                return Ok(());
            }
            out.push(submit(variable(meant.variable.clone(), value)?));
            match meant.written {
                Some(written) => app.say(Tone::Good, format!("{written} is filled in from now on")),
                None => {
                    let text = unused(app, &meant.variable);
                    app.say(Tone::Bad, text);
                }
            }
        }
        Ask::Edit { step, line, planned } => {
            let (step, line, planned) = (step.clone(), *line, planned.clone());
            return super::edit::accept(app, (step, line, planned), dialog.value(0), out);
        }
        Ask::Run(request, _) => {
            app.dialogs.pop();
            incident::start(app, *request.clone(), out);
            return Ok(());
        }
        Ask::Destroy(request, name, _) => {
            let typed = dialog.value(0);
            if typed != name {
                return Err(format!("{typed:?} is not the name; type {name:?}, or esc to leave everything as it is"));
            }
            let mut request = *request.clone();
            request.confirmed = Some(typed.to_string());
            app.dialogs.pop();
            incident::start(app, request, out);
            return Ok(());
        }
        Ask::Refused(refusal) => {
            if let Some(gate) = refusal.gate {
                let reason = why_waived(say(0, "the reason")?)?;
                let step = app.step().map(|s| s.id.clone());
                out.push(submit(Command::Waive { gate: gate.to_string(), reason, step }));
            }
        }
        Ask::Waive => {
            let reason = why_waived(say(1, "the reason")?)?;
            let step = app.step().map(|s| s.id.clone());
            out.push(submit(Command::Waive { gate: dialog.value(0).to_string(), reason, step }));
        }
        Ask::Choose { target, at, loses, .. } => {
            let wish = Command::ChooseMoment { target: target.clone(), at: *at, loses: loses.clone() };
            out.push(submit(wish));
            out.extend(incident::only_table(app, target).map(submit));
            if app.screen() == Screen::Moment {
                app.screens.pop();
            }
        }
        Ask::OtherMoment => {
            let typed = say(0, "a moment")?;
            // A time of day is UTC as everything on the screen; the next dialog shows the whole of it before it counts.
            let target =
                typed.parse().or_else(|e| parse_when(&typed, now).map(RecoveryTarget::Time).map_err(|_: String| e))?;
            let at = match &target {
                RecoveryTarget::Time(t) => Some(*t),
                _ => None,
            };
            app.dialogs.pop();
            let what = "entered by hand".to_string();
            let warning = incident::warning(app, &target, at);
            app.dialogs.push(Dialog::new(Ask::Choose { target, at, loses: None, what, warning }));
            return Ok(());
        }
        Ask::Cancel(run) => out.push(submit(Command::CancelRun { run: *run })),
        Ask::Unknown(run) => {
            let outcome = match dialog.value(0) {
                "succeeded" => Outcome::Succeeded,
                "was stopped" => Outcome::Cancelled,
                _ => Outcome::Failed,
            };
            let reason = say(1, "how you know")?;
            out.push(submit(Command::ResolveRun { run: *run, outcome, reason }));
        }
        Ask::Died(run) => {
            if dialog.value(0) == "stop them" {
                out.push(Effect::StopProcesses(*run));
            }
        }
        Ask::Elsewhere(run) => {
            if dialog.value(0) == "it is gone" {
                out.push(submit(Command::LoseRun { run: *run }));
            }
        }
        Ask::Restored => {
            let at = parse_when(dialog.value(1), now)?;
            out.push(submit(Command::RestoreService { at, how: say(0, "how you know")? }));
        }
        Ask::Close => {
            let summary = say(0, "the summary")?;
            let restored = app.incident.as_ref().is_some_and(|i| i.data.state.restored.is_some());
            // A second judge would look while the first one's sandbox is cleared away.
            let judged = |ui: &IncidentUi| ui.data.state.kind == Kind::Drill && ui.data.state.people.tabletop.is_none();
            if app.incident.as_ref().is_some_and(judged) {
                app.busy = Some(super::JUDGING.into());
            }
            out.push(submit(Command::Close { summary, force: !restored }));
        }
        Ask::Adopt(plan) => out.push(submit(Command::AdoptPlan { plan: plan.clone() })),
        Ask::Links(links) => {
            let at = match dialog.fields.first() {
                Some(Field::Choice { at, .. }) => *at,
                _ => 0,
            };
            app.dialogs.pop();
            if let Some(link) = links.get(at) {
                super::reference::follow(app, link, out);
            }
            return Ok(());
        }
        Ask::Quit => {
            if dialog.value(0) == "leave" {
                out.push(Effect::Quit);
            }
        }
    }
    app.dialogs.pop();
    Ok(())
}

/// Whether a wish would change nothing.
fn nothing_new(app: &App, wish: &Command) -> bool {
    let Some(ui) = &app.incident else { return false };
    let context =
        Context { scenario: &ui.data.scenario, now: &app.now, actor: &app.env.actor, policy: &app.env.policy };
    decide(Some(&ui.data.state), wish, context).is_ok_and(|events| events.is_empty())
}

/// What gives a variable its value: TARGET is the moment to restore to, and has to be one.
pub(super) fn variable(name: String, value: String) -> Result<Command, String> {
    match name.as_str() {
        "TARGET" => Ok(Command::ChooseMoment { target: value.parse()?, at: None, loses: None }),
        _ => Ok(Command::SetVariable { name, value }),
    }
}

/// What is said of a variable that nothing uses: what could have been meant instead.
fn unused(app: &App, name: &str) -> String {
    let mut blanks: Vec<String> = Vec::new();
    if let Some(ui) = &app.incident {
        let all = named::all(&ui.data.plan, &ui.data.scenario).into_iter();
        blanks.extend(all.filter(|(v, _)| !ui.data.state.vars.contains_key(v)).map(|(_, written)| written));
    }
    // Those an author of the plan left come first: ours are filled in from what is known.
    blanks.truncate(6);
    let there = if blanks.is_empty() { String::new() } else { format!("; it has {}", blanks.join(", ")) };
    format!("{name} is kept, but nothing in the plan or its messages uses it{there}")
}

/// A reason of one word is a key hit by accident; the rules refuse it, and here it can still be put right.
fn why_waived(reason: String) -> Result<String, String> {
    if reason.split_whitespace().count() < 2 {
        return Err(format!("{reason:?} is too short: say in a few words why it is safe to go on"));
    }
    Ok(reason)
}

/// The field of a declaration that asks for a code name, where one is asked for.
const CODENAME: usize = 3;

/// Said of an incident that is declared without the name its plan asks for.
const UNNAMED: &str = "declared without a code name, which this plan asks for: V gives it one";

/// Leads to the field of a code name that was passed over; from there it is declared without one all the same.
fn asked_for_codename(app: &mut App) -> Result<(), String> {
    let Some(dialog) = app.dialogs.last_mut() else { return Ok(()) };
    if dialog.fields.len() <= CODENAME || dialog.focus == CODENAME || !dialog.value(CODENAME).is_empty() {
        return Ok(());
    }
    dialog.focus = CODENAME;
    Err("this plan asks for a code name: type one, or enter again to declare it without".into())
}

/// Whether the incident has no code name yet.
fn before_codename(app: &App) -> bool {
    app.incident.as_ref().is_some_and(|ui| ui.data.state.people.codename.is_none())
}

fn impact_source(dialog: &Dialog) -> String {
    let said = dialog.value(2);
    if said.is_empty() { SAID.into() } else { said.into() }
}
