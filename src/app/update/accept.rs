//! What an accepted dialog does.

use crate::incident::Command;
use crate::model::event::{Kind, Outcome};
use crate::model::target::RecoveryTarget;
use crate::model::{Secret, may_hold_secret};

use super::super::dialog::{Ask, Dialog, Field};
use super::super::when::parse_when;
use super::super::{App, Effect, IncidentUi, Screen};
use super::{incident, people};
use crate::action::runnable;

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
        | Ask::Tell
        | Ask::Send { .. }
        | Ask::Codename
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
            out.push(submit(Command::Declare { severity: dialog.value(0).to_string() }));
            out.push(submit(Command::SetImpact { at, source }));
        }
        Ask::Begin { file, scenario, .. } => {
            let at = parse_when(dialog.value(1), now)?;
            out.push(Effect::Begin {
                file: file.clone(),
                scenario: scenario.clone(),
                severity: dialog.value(0).to_string(),
                impact: Some((at, impact_source(dialog))),
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
                values.push((runnable::variable_of(name), if value == "\"\"" { String::new() } else { value }));
            }
            out.extend(values.into_iter().map(|(name, value)| {
                if may_hold_secret(&name) {
                    Effect::Hold(name, Secret::new(value))
                } else {
                    submit(Command::SetVariable { name, value })
                }
            }));
        }
        Ask::Variable => {
            let (name, value) = (say(0, "a name")?, say(1, "a value")?);
            if name == "TARGET" {
                let target: RecoveryTarget = value.parse()?;
                out.push(submit(Command::ChooseMoment { target, at: None, loses: None }));
            } else if may_hold_secret(&name) {
                app.dialogs.pop();
                app.dialogs.push(Dialog::new(Ask::Values(vec![name])));
                return Ok(());
            } else {
                out.push(submit(Command::SetVariable { name, value }));
            }
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
            let what = "entered by hand; what it loses was not looked at".to_string();
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

/// A reason of one word is a key hit by accident; the rules refuse it, and here it can still be put right.
fn why_waived(reason: String) -> Result<String, String> {
    if reason.split_whitespace().count() < 2 {
        return Err(format!("{reason:?} is too short: say in a few words why it is safe to go on"));
    }
    Ok(reason)
}

fn impact_source(dialog: &Dialog) -> String {
    let said = dialog.value(2);
    if said.is_empty() { "said by the responder".into() } else { said.into() }
}
