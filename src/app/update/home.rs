//! Home and the reading of a plan.

use super::super::command::Cmd;
use super::super::data::ScenarioRow;
use super::super::dialog::{Ask, Dialog, Field};
use super::super::{App, Effect, HomeRow, Pane, PlanUi, Screen, Tone};
use super::incident;
use crate::incident::Rules;
use crate::incident::rules::asks_codename;

pub(super) fn command(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) {
    match cmd {
        Cmd::Open => open(app, out),
        Cmd::Drill | Cmd::Declare => {
            let Some(row) = selected(app) else { return };
            let file = row.file.clone();
            let (scenario, title) = (row.scenario.slug.clone(), row.scenario.title.clone());
            let severity = row.scenario.severity.as_ref().map(|s| s.level.clone());
            let ask = if cmd == Cmd::Drill {
                Ask::Drill { file, scenario, title }
            } else {
                Ask::Begin { file, scenario, title }
            };
            let mut dialog = Dialog::new(ask);
            dialog.choose_severity(severity.as_deref(), &Rules::of(&row.plan, &row.scenario));
            if cmd == Cmd::Declare {
                dialog.ask_codename(asks_codename(&row.scenario), None);
            }
            app.dialogs.push(dialog);
        }
        Cmd::Rotated => rotated(app),
        Cmd::Copy => incident::copy(app, out),
        Cmd::Link => super::reference::links(app, out),
        Cmd::NextBlock => incident::next_block(app, 1),
        Cmd::PrevBlock => incident::next_block(app, -1),
        Cmd::NextPane | Cmd::PrevPane => {
            let pane = app.steps_ui().map_or(Pane::Steps, |s| s.pane);
            incident::focus(app, if pane == Pane::Steps { Pane::Text } else { Pane::Steps });
        }
        Cmd::Pane1 => incident::focus(app, Pane::Steps),
        Cmd::Pane2 => incident::focus(app, Pane::Text),
        _ => {}
    }
}

/// Asks when the selected secret was changed.
fn rotated(app: &mut App) {
    let Some(HomeRow::Secret(i)) = app.home_selected() else { return };
    let Some(secret) = app.home.secrets.get(i) else { return };
    let option = (secret.name.clone(), secret.how.clone());
    let fields = vec![
        Field::Choice { label: "Secret".into(), options: vec![option], at: 0 },
        Field::text("When", "now; or 14:03, -2d, 2026-11-20 14:03", ""),
    ];
    app.dialogs.push(Dialog { fields, focus: 1, ..Dialog::new(Ask::Rotated) });
}

/// The scenario that is selected on home, or being read.
fn selected(app: &App) -> Option<&ScenarioRow> {
    match app.screen() {
        Screen::Plan => app.plan.as_ref().map(|p| &p.row),
        _ => match app.home_selected()? {
            HomeRow::Scenario(i) => app.home.scenarios.get(i),
            HomeRow::Incident(_) | HomeRow::Secret(_) => None,
        },
    }
}

/// Enter: an incident is opened again, a scenario is read, a step's text gets the focus. Nothing is started.
fn open(app: &mut App, out: &mut Vec<Effect>) {
    if app.screen() == Screen::Plan {
        return incident::focus(app, Pane::Text);
    }
    match app.home_selected() {
        Some(HomeRow::Incident(i)) => {
            if let Some(row) = app.home.incidents.get(i) {
                out.push(Effect::Open(row.id.clone()));
            }
        }
        Some(HomeRow::Scenario(i)) => {
            if let Some(row) = app.home.scenarios.get(i).cloned() {
                app.plan = Some(PlanUi { row, steps: Default::default() });
                app.screens.push(Screen::Plan);
            }
        }
        Some(HomeRow::Secret(_)) => rotated(app),
        None => app.say(Tone::Info, "nothing is selected".into()),
    }
}
