//! Contacts, matrix, templates, checklists and links of a plan; following links.

use super::super::command::Cmd;
use super::super::dialog::{Ask, Dialog};
use super::super::reference::{Kind, Page, Place, pages, resolve};
use super::super::{App, Effect, PlanUi, ReferenceUi, Screen, Tone};
use super::tell;
use crate::action::{blanks, message};
use crate::model::plan::Link;

/// Opens the pages at the first one of a sort.
pub(super) fn open(app: &mut App, cmd: Cmd) {
    let (plan, scenario) = match (app.screen(), app.references.last()) {
        (Screen::Reference, Some(r)) => (r.plan.clone(), r.scenario.clone()),
        (Screen::Plan, _) => match &app.plan {
            Some(p) => (p.row.plan.clone(), Some(p.row.scenario.clone())),
            None => return,
        },
        _ => match &app.incident {
            Some(i) => (i.data.plan.clone(), Some(i.data.scenario.clone())),
            None => return,
        },
    };
    let (kind, what) = match cmd {
        Cmd::Matrix => (Kind::Matrix, "severity matrix"),
        Cmd::Objectives => (Kind::Objectives, "objectives"),
        Cmd::Templates => (Kind::Template, "templates"),
        Cmd::Checklists => (Kind::Checklist, "checklists"),
        _ => (Kind::Contacts, "contacts"),
    };
    let all = pages(&plan, scenario.as_deref());
    let page = match all.iter().position(|p| p.kind == kind) {
        Some(page) => page,
        None => {
            app.say(Tone::Info, format!("{} names no {what}", plan.file));
            if all.is_empty() {
                return;
            }
            match (app.screen(), app.references.last()) {
                (Screen::Reference, Some(r)) => r.page,
                _ => 0,
            }
        }
    };
    let ui = ReferenceUi { plan, scenario, page, scroll: 0, unfilled: None };
    if app.screen() == Screen::Reference {
        app.references.pop();
    } else {
        app.screens.push(Screen::Reference);
    }
    app.references.push(ui);
}

/// The page on the screen.
pub fn page(app: &App) -> Option<Page> {
    let ui = app.references.last()?;
    pages(&ui.plan, ui.scenario.as_deref()).into_iter().nth(ui.page)
}

/// Its text with what is known filled in, as `w` fills it in, and the blanks that are left. A page that is no message has none.
pub fn text(app: &App, page: &Page) -> (String, Vec<String>) {
    match app.incident.as_ref().filter(|_| page.kind == Kind::Template) {
        Some(ui) => ui.message(message::meant_for(&page.title), &page.text, &app.now),
        None => (page.text.clone(), Vec::new()),
    }
}

pub(super) fn command(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) {
    let Some(page) = page(app) else { return };
    match cmd {
        Cmd::Copy => match &page.link {
            Some(link) => out.push(Effect::Copy(link.target.clone(), "link")),
            None => copy(app, &page, out),
        },
        Cmd::Open => match &page.link {
            Some(link) => follow(app, link, out),
            None => fill_in(app, &page),
        },
        _ => {}
    }
}

/// Copies a page. A message with blanks goes out only when a person asks once more, as everywhere.
fn copy(app: &mut App, page: &Page, out: &mut Vec<Effect>) {
    let (text, left) = text(app, page);
    let Some(ui) = app.references.last_mut() else { return };
    if !left.is_empty() && ui.unfilled != Some(ui.page) {
        ui.unfilled = Some(ui.page);
        let asks = format!("not copied: {}; enter fills in, y again copies it as it is", tell::left_words(&left));
        return app.say(Tone::Bad, asks);
    }
    ui.unfilled = None;
    out.push(Effect::Copy(text, "text"));
}

/// Asks for the blanks of a message that have no value yet.
fn fill_in(app: &mut App, page: &Page) {
    let Some(ui) = &app.incident else {
        return app.say(Tone::Info, "blanks are filled in once an incident is open; y copies the text".into());
    };
    let (_, left) = ui.message(message::meant_for(&page.title), &page.text, &app.now);
    let mut names: Vec<String> = Vec::new();
    for blank in left.iter().filter(|_| page.kind == Kind::Template) {
        let name = blanks::variable_of(blank);
        if !names.iter().any(|n| blanks::variable_of(n) == name) {
            names.push(blank.clone());
        }
    }
    // A dialog holds so many fields as fit a small screen; Enter again asks for the rest.
    names.truncate(8);
    if names.is_empty() {
        app.say(Tone::Info, "nothing is left to fill in; y copies the text".into());
    } else {
        app.dialogs.push(Dialog::new(Ask::Values(names)));
    }
}

pub(super) fn by(app: &mut App, rows: isize) {
    let all = app.references.last().map_or(0, |r| pages(&r.plan, r.scenario.as_deref()).len());
    let room = app.shown.text.0.saturating_sub(app.shown.text.1);
    let Some(ui) = app.references.last_mut() else { return };
    let moved = |at: usize, last: usize| (at as isize).saturating_add(rows).clamp(0, last as isize) as usize;
    if rows.abs() == 1 || rows.abs() > isize::MAX / 4 {
        let next = moved(ui.page, all.saturating_sub(1));
        if next != ui.page {
            (ui.page, ui.scroll) = (next, 0);
        }
    } else {
        ui.scroll = moved(ui.scroll, room);
    }
}

pub(super) fn select(app: &mut App, row: usize) {
    if let Some(ui) = app.references.last_mut() {
        (ui.page, ui.scroll) = (row, 0);
    }
}

/// The links of the selected step, else those of the scenario: followed when there is one, asked for when there are more.
pub(super) fn links(app: &mut App, out: &mut Vec<Effect>) {
    let mut found: Vec<Link> = app.step().map(|s| s.links.clone()).unwrap_or_default();
    if found.is_empty()
        && let (Some(scenario), Some(plan)) = (app.scenario(), plan_on_screen(app))
    {
        let inside = |l: &&Link| l.line >= scenario.source.line && l.line <= scenario.source.line_end;
        found = plan.links.iter().filter(inside).cloned().collect();
    }
    found.dedup_by(|a, b| a.target == b.target);
    match found.as_slice() {
        [] => {
            app.say(Tone::Info, "neither the step nor its scenario has a link; c lists those of the whole plan".into())
        }
        [only] => {
            let only = only.clone();
            follow(app, &only, out);
        }
        _ => app.dialogs.push(Dialog::new(Ask::Links(found))),
    }
}

fn plan_on_screen(app: &App) -> Option<&std::sync::Arc<crate::model::Plan>> {
    match app.screen() {
        Screen::Plan => app.plan.as_ref().map(|p| &p.row.plan),
        Screen::Reference => app.references.last().map(|r| &r.plan),
        _ => app.incident.as_ref().map(|i| &i.data.plan),
    }
}

/// Goes where a link leads; Esc comes back. An address is copied: a plan is read when the web may be down.
pub(super) fn follow(app: &mut App, link: &Link, out: &mut Vec<Effect>) {
    let Some(plan) = plan_on_screen(app).cloned() else { return };
    let scenario = app.scenario().filter(|_| app.screen() != Screen::Reference);
    match resolve(&app.home, &plan, scenario, &link.target) {
        Err(why) => app.say(Tone::Bad, why),
        Ok(Place::Address) => out.push(Effect::Copy(link.target.clone(), "address")),
        Ok(Place::Step(step)) => super::motion::select(app, step),
        Ok(Place::Scenario(row)) => {
            app.trail.extend(app.plan.take());
            app.plan = Some(PlanUi { row: *row, steps: Default::default() });
            app.screens.push(Screen::Plan);
        }
        Ok(Place::Plan(plan, line)) => {
            let all = pages(&plan, None);
            if all.is_empty() {
                return app.say(Tone::Info, format!("{} holds nothing but text without a step", plan.file));
            }
            let page = all.iter().position(|p| line.is_some_and(|l| p.line == l && p.link.is_none())).unwrap_or(0);
            app.references.push(ReferenceUi { plan, scenario: None, page, scroll: 0, unfilled: None });
            app.screens.push(Screen::Reference);
        }
    }
}
