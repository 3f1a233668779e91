//! Changing the options of a step's command before it runs, and going on with a run once what it needs has a value.

use crate::action::edited::{self, Against};
use crate::action::runnable;
use crate::model::StepId;
use crate::model::plan::{Block, Step};

use super::super::allowed::why_not;
use super::super::command::Cmd;
use super::super::dialog::{Ask, Dialog, Field};
use super::super::field::Line;
use super::super::{App, Effect, IncidentUi, Screen, Tone, next};
use super::incident;

/// The selected command of the selected step.
fn selected(ui: &IncidentUi) -> Option<(&Step, &Block)> {
    let step = ui.data.scenario.steps.get(ui.steps.step)?;
    let block = runnable::blocks(step).nth(ui.steps.block).or_else(|| runnable::blocks(step).next())?;
    Some((step, block))
}

/// Opens the command's words, as they would run, in a field. Changed before, it begins with that, as long as the plan's own has
/// not become another.
pub(super) fn open(app: &mut App, out: &mut Vec<Effect>) {
    let Some(ui) = &app.incident else { return };
    let Some((step, block)) = selected(ui) else { return };
    match runnable::request(step, block, &app.known(ui)) {
        Ok(request) => {
            let place = (step.id.clone(), block.line);
            let before = ui.edited.get(&place).filter(|(planned, _)| *planned == request.shown);
            let text = before.map_or(request.shown.clone(), |(_, changed)| changed.clone());
            // What was only tried comes back ready to be done.
            let line = match next::only_tried_last(ui, step, block) {
                true => for_real(&text),
                false => Line::new(text),
            };
            let mut field = Field::text("", "", "");
            if let Field::Text { line: empty, .. } = &mut field {
                *empty = line;
            }
            let (step, line) = place;
            let mut dialog = Dialog::new(Ask::Edit { step, line, planned: request.shown });
            dialog.fields = vec![field];
            app.dialogs.push(dialog);
        }
        Err(missing) => incident::need(app, missing, true, out),
    }
}

/// A command without its `--dry-run`, the cursor where that stood.
fn for_real(text: &str) -> Line {
    const TRIED: &str = " --dry-run";
    let ends = |at: usize| text[at + TRIED.len()..].chars().next().is_none_or(|c| c == ' ');
    match text.match_indices(TRIED).map(|(at, _)| at).find(|at| ends(*at)) {
        Some(at) => Line::at(format!("{}{}", &text[..at], &text[at + TRIED.len()..]), at),
        None => Line::new(text),
    }
}

/// Takes a changed command: it goes the way of every run. What is wrong with it is said in the dialog, which stays.
pub(super) fn accept(
    app: &mut App,
    (id, line, planned): (StepId, u32, String),
    text: &str,
    out: &mut Vec<Effect>,
) -> Result<(), String> {
    let ui = app.incident.as_ref().ok_or("the incident is gone")?;
    let step = ui.data.scenario.steps.iter().find(|s| s.id == id);
    let found = step.and_then(|s| Some((s, runnable::blocks(s).find(|b| b.line == line)?)));
    let (step, block) = found.ok_or("the plan has changed meanwhile: esc, then look at the step again")?;
    let against = Against { step, block, known: app.known(ui), registry: &app.env.registry, secrets: &app.env.secrets };
    let request = edited::request(text, &against)?;
    // What is possible now was possible when the dialog came up; a run of somebody else may have begun since.
    app.dialogs.pop();
    if let Some(ui) = &mut app.incident {
        ui.edited.insert((id, line), (planned, request.shown.clone()));
    }
    incident::ask(app, request, out);
    Ok(())
}

/// The journal moved on: a run that waited for values goes on when it has them, unless the reader is elsewhere by now.
pub(super) fn go_on(app: &mut App, out: &mut Vec<Effect>) {
    let here = app.screen() == Screen::Incident && app.dialogs.is_empty() && app.typing.is_none();
    let Some(ui) = app.incident.as_ref().filter(|_| here && app.busy.is_none()) else { return };
    let Some(wanted) = ui.wanted.clone() else { return };
    let there = selected(ui).filter(|(step, block)| step.id == wanted.step && block.line == wanted.line);
    let missing = there.map(|(step, block)| runnable::request(step, block, &app.known(ui)).err());
    if let Some(Some(missing)) = &missing
        && missing.names().iter().any(|name| wanted.names.contains(name))
    {
        return;
    }
    let gone = missing.is_none();
    if let Some(ui) = &mut app.incident {
        ui.wanted = None;
    }
    // What asked for the values is answered: it does not stand under the question that follows.
    if app.messages.last().is_some_and(|m| m.tone != Tone::Bad) {
        app.message_over = app.messages.len();
    }
    let cmd = if wanted.edit { Cmd::Edit } else { Cmd::Run };
    if gone || why_not(cmd, app).is_some() {
        return;
    }
    match cmd {
        Cmd::Edit => open(app, out),
        _ => incident::run(app, out),
    }
}
