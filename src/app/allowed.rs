//! Why a command is not possible right now. Commands are never hidden: they stay in the palette with the reason.
//!
//! Whether the incident's rules allow it is decided by `incident::decide`; this only says what the screen knows.

use crate::incident::{RunStatus, StepStatus};

use super::command::{Cmd, Danger};
use super::data::{Recording, Worker};
use super::update::JUDGING;
use super::{App, HomeRow, Screen};
use crate::action::runnable;
use crate::model::plan::Step;

/// The reason why `cmd` is not possible, or `None` when it is.
pub fn why_not(cmd: Cmd, app: &App) -> Option<String> {
    let info = cmd.info();
    let contexts = app.screen_contexts();
    if !info.contexts.iter().any(|c| contexts.contains(c)) {
        return Some(format!("not here; works in: {}", names(cmd)));
    }
    if info.danger > Danger::Looks {
        if app.env.read_only {
            return Some("this console was started with --read-only".into());
        }
        if let (Screen::Incident, Some(ui)) = (app.screen(), &app.incident) {
            if let Recording::ReadOnly(why) = &ui.data.recording {
                return Some(format!("read only: {why}"));
            }
            let late = matches!(cmd, Cmd::Note | Cmd::Afterwards | Cmd::Rotated)
                || cmd == Cmd::Codename && ui.data.state.people.codename.is_some();
            if ui.data.state.closed.is_some() && !late {
                return Some("the incident is closed; a note is still possible".into());
            }
        }
    }
    match app.screen() {
        Screen::Home | Screen::Plan => home(cmd, app),
        Screen::Incident => incident(cmd, app),
        _ => None,
    }
}

fn names(cmd: Cmd) -> String {
    cmd.info().contexts.iter().map(|c| c.name()).collect::<Vec<_>>().join(", ")
}

fn home(cmd: Cmd, app: &App) -> Option<String> {
    let selected = match app.screen() {
        Screen::Plan => app.plan.as_ref().map(|p| &p.row),
        _ => match app.home_selected() {
            Some(HomeRow::Scenario(i)) => app.home.scenarios.get(i),
            _ => None,
        },
    };
    match cmd {
        Cmd::Open if app.screen() == Screen::Home && app.home_selected().is_none() => {
            Some("nothing is selected".into())
        }
        Cmd::Drill if app.busy.is_some() => app.busy.as_ref().map(|what| format!("still busy: {what}")),
        Cmd::Rotated if !matches!(app.home_selected(), Some(HomeRow::Secret(_))) => {
            Some("select a secret first".into())
        }
        Cmd::Drill | Cmd::Declare if selected.is_none() => Some("select a scenario first".into()),
        Cmd::Drill if selected.is_some_and(|s| !s.rehearsable) => {
            Some("there is no sandbox for this scenario yet; it can be read and declared".into())
        }
        _ => None,
    }
}

/// Whether the selected command of a step is one of ours.
fn ours(app: &App, step: &Step, selected: usize) -> bool {
    let block = runnable::blocks(step).nth(selected).or_else(|| runnable::blocks(step).next());
    block.is_some_and(|b| runnable::is_ours(b, &app.env.actions))
}

fn incident(cmd: Cmd, app: &App) -> Option<String> {
    let ui = app.incident.as_ref()?;
    let state = &ui.data.state;
    let step = app.step();
    let status = step.map(|s| state.step(&s.id).status);
    let over = matches!(status, Some(StepStatus::Done | StepStatus::Skipped));
    let running = step.is_some_and(|s| state.open_runs().any(|r| r.step.as_ref() == Some(&s.id)));
    match cmd {
        Cmd::Run | Cmd::Edit if state.people.tabletop.is_some() => {
            Some("an exercise at a table: say what it would do; d marks the step as done".into())
        }
        Cmd::Close if app.busy.as_deref() == Some(JUDGING) => Some(format!("still busy: {JUDGING}")),
        Cmd::WritesOn if state.people.tabletop.is_some() => Some("an exercise at a table: nothing is executed".into()),
        Cmd::WritesOn if state.facts.writes_off.is_none() => {
            Some("nothing on record turned writes off, or they are on again".into())
        }
        Cmd::Run | Cmd::Edit | Cmd::WritesOn if app.busy.is_some() => {
            app.busy.as_ref().map(|what| format!("still busy: {what}"))
        }
        Cmd::Run | Cmd::Edit | Cmd::Done | Cmd::Skip if running => Some("a run of this step is still open".into()),
        Cmd::Run | Cmd::Edit if step.is_none_or(|s| runnable::blocks(s).next().is_none()) => {
            Some("this step has nothing to run".into())
        }
        Cmd::Edit if !step.is_some_and(|s| ours(app, s, ui.steps.block)) => {
            Some("only the options of our own commands can be changed here; y copies this one".into())
        }
        Cmd::NextBlock | Cmd::PrevBlock if step.is_none_or(|s| runnable::blocks(s).count() < 2) => {
            Some("this step has no other command".into())
        }
        Cmd::Tick if step.is_none_or(|s| s.items.is_empty()) => Some("this step has no items to tick".into()),
        Cmd::Start if status != Some(StepStatus::Open) => Some("the step was started already".into()),
        Cmd::Done if status == Some(StepStatus::Done) => Some("the step is done already".into()),
        Cmd::Skip if over => Some("the step is closed already; u opens it again".into()),
        Cmd::Reopen if !over => Some("the step is still open".into()),
        Cmd::Cancel if !state.open_runs().any(|r| matches!(r.status, RunStatus::Requested | RunStatus::Running)) => {
            Some("nothing is running".into())
        }
        Cmd::Resolve
            if !state.open_runs().any(|r| {
                let asks = matches!(ui.data.workers.get(&r.id), Some(Worker::ChildrenOnly(_) | Worker::Elsewhere(_)));
                r.status == RunStatus::Unknown || asks
            }) =>
        {
            Some("no outcome is in question".into())
        }
        Cmd::Restored if state.restored.is_some() => Some("service is marked as restored already".into()),
        Cmd::AdoptPlan if state.plan_offered.is_none() => Some("the plan has not changed".into()),
        Cmd::Follow | Cmd::Pane3 if ui.output.run.is_none() => Some("this step has no output yet".into()),
        _ => None,
    }
}
