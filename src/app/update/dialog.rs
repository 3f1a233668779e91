//! Keys in a dialog.

use super::super::allowed::why_not;
use super::super::command::{COMMANDS, Cmd, Command, Context};
use super::super::dialog::{Ask, Dialog, Field};
use super::super::{App, Effect, Tone, passes};
use super::accept::accept;

pub(super) fn command(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) {
    let Some(dialog) = app.dialogs.last_mut() else { return };
    dialog.problem = None;
    if dialog.context() == Context::Palette {
        return palette(app, cmd, out);
    }
    let chosen = dialog.value(0).to_string();
    let before = app.dialogs.len();
    let Some(dialog) = app.dialogs.last_mut() else { return };
    match cmd {
        Cmd::Dismiss | Cmd::No => dismiss(app),
        Cmd::Yes => accept(app, out),
        // Cancel has the focus to begin with, so Enter alone is never a yes.
        Cmd::Press if dialog.focus == 1 => accept(app, out),
        Cmd::Press => {
            dismiss(app);
            app.say(Tone::Info, "nothing was done: Cancel had the focus; y is yes".into());
        }
        Cmd::Accept => accept(app, out),
        Cmd::FillIn => super::tell::fill_in(app),
        Cmd::Left | Cmd::Right | Cmd::Up | Cmd::Down | Cmd::NextField | Cmd::PrevField if dialog.fields.is_empty() => {
            dialog.focus = 1 - dialog.focus.min(1);
        }
        // Choices stand below each other, above the next field: that is the way the arrows go.
        Cmd::Up | Cmd::Down if stays(dialog, cmd == Cmd::Down) => choose(dialog, cmd == Cmd::Down),
        Cmd::Up => command(app, Cmd::PrevField, out),
        Cmd::Down => command(app, Cmd::NextField, out),
        Cmd::NextField | Cmd::PrevField if dialog.fields.len() == 1 => {
            choose(dialog, cmd == Cmd::NextField);
        }
        Cmd::NextField => dialog.focus = (dialog.focus + 1) % dialog.fields.len(),
        Cmd::PrevField => dialog.focus = (dialog.focus + dialog.fields.len() - 1) % dialog.fields.len(),
        Cmd::Left => choose(dialog, false),
        Cmd::Right => choose(dialog, true),
        Cmd::PageUp | Cmd::PageDown => {
            super::motion::command(app, cmd);
        }
        _ => {}
    }
    if app.dialogs.len() == before && app.dialogs.last().is_some_and(|d| d.value(0) != chosen) {
        super::tell::suit(app);
    }
}

/// Whether a move up or down ends at another choice of the same field.
fn stays(dialog: &Dialog, forward: bool) -> bool {
    match dialog.fields.get(dialog.focus) {
        Some(Field::Choice { options, at, .. }) => {
            if forward {
                at + 1 < options.len()
            } else {
                *at > 0
            }
        }
        _ => false,
    }
}

fn choose(dialog: &mut Dialog, forward: bool) {
    if let Some(Field::Choice { options, at, .. }) = dialog.fields.get_mut(dialog.focus) {
        *at = if forward { (*at + 1) % options.len() } else { (*at + options.len() - 1) % options.len() };
    }
}

/// Leaves the dialog. What was written into a note is kept as a draft, what was typed into blanks for the next look at them.
fn dismiss(app: &mut App) {
    let Some(dialog) = app.dialogs.pop() else { return };
    super::tell::put_aside(app, &dialog);
    if let (Ask::Values(_), Some(ui)) = (&dialog.ask, &mut app.incident) {
        ui.wanted = None;
    }
    if dialog.ask == Ask::Note && !dialog.value(0).is_empty() {
        app.draft = dialog.value(0).to_string();
        app.say(Tone::Info, "the note is kept as a draft; n goes on with it".into());
    }
}

/// The commands a palette lists: those that pass what was typed; for `?` only those of this screen.
pub fn palette_rows(app: &App, dialog: &Dialog) -> Vec<&'static Command> {
    let contexts = app.screen_contexts();
    let here = |c: &Command| {
        if dialog.ask == Ask::Help {
            c.contexts.iter().any(|x| contexts.contains(x))
        } else {
            // Keys of fields and dialogs are of no use outside them.
            c.contexts
                .iter()
                .any(|x| !matches!(x, Context::Palette | Context::Form | Context::Confirm | Context::Choice))
        }
    };
    let query = dialog.value(0);
    COMMANDS.iter().filter(|c| here(c) && passes(query, &format!("{} {} {}", c.name, c.short, c.doc))).collect()
}

fn palette(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) {
    let Some(dialog) = app.dialogs.last() else { return };
    let rows = palette_rows(app, dialog);
    let page = app.shown.dialog.1.max(2) - 1;
    let last = rows.len().saturating_sub(1);
    let chosen = rows.get(dialog.selected).map(|c| c.id);
    let Some(dialog) = app.dialogs.last_mut() else { return };
    match cmd {
        Cmd::Up => dialog.selected = dialog.selected.saturating_sub(1),
        Cmd::Down => dialog.selected = (dialog.selected + 1).min(last),
        Cmd::PageUp => dialog.selected = dialog.selected.saturating_sub(page),
        Cmd::PageDown => dialog.selected = (dialog.selected + page).min(last),
        Cmd::Dismiss => {
            app.dialogs.pop();
        }
        Cmd::Accept => {
            let Some(chosen) = chosen else { return };
            if let Some(why) = why_not(chosen, app) {
                if let Some(dialog) = app.dialogs.last_mut() {
                    dialog.problem = Some(why);
                }
                return;
            }
            app.dialogs.pop();
            super::command(app, chosen, out);
        }
        _ => {}
    }
}
