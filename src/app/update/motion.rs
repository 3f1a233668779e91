//! Moving: selections, scrolling, following and searching the output.

use super::super::command::Cmd;
use super::super::{App, Pane, Screen, Tone};
use super::incident::steps_mut;
use super::reference;

/// Handles a movement command; says whether it was one.
pub(super) fn command(app: &mut App, cmd: Cmd) -> bool {
    let page = page(app);
    match cmd {
        Cmd::Up => by(app, -1),
        Cmd::Down => by(app, 1),
        Cmd::PageUp => page_by(app, -page),
        Cmd::PageDown => page_by(app, page),
        Cmd::HalfUp => page_by(app, -(page / 2).max(1)),
        Cmd::HalfDown => page_by(app, (page / 2).max(1)),
        Cmd::First => by(app, isize::MIN / 2),
        Cmd::Last => by(app, isize::MAX / 2),
        Cmd::Left | Cmd::Right if app.screen() == Screen::Moment => along(app, if cmd == Cmd::Left { -1 } else { 1 }),
        Cmd::Left | Cmd::Right => {
            if let Some(ui) = &mut app.incident {
                let column = ui.output.column;
                ui.output.column = if cmd == Cmd::Left { column.saturating_sub(8) } else { column + 8 };
            }
        }
        _ => return false,
    }
    true
}

/// Moves the cursor of the time axis: it is then a moment of the reader's own.
fn along(app: &mut App, by: i64) {
    let columns = app.shown.axis;
    let Some(ui) = &mut app.incident else { return };
    let (Some(at), Some(axis)) = (ui.axis_moment(), &ui.axis) else { return };
    ui.axis_at = Some(axis.moved(at, by, columns));
    ui.moment.selected = ui.data.state.facts.candidates.len();
}

/// Rows of a page of what has the focus, one less so that a line stays in sight.
fn page(app: &App) -> isize {
    let rows = match (app.screen(), app.steps_ui().map(|s| s.pane)) {
        (Screen::Incident | Screen::Plan, Some(Pane::Steps | Pane::Text)) => app.shown.text.1,
        (Screen::Incident, Some(Pane::Output)) => app.shown.output_rows,
        (Screen::Reference, _) => app.shown.text.1,
        _ => app.shown.list_rows,
    };
    (rows as isize - 1).max(1)
}

/// Pages scroll what is read: beside the list of steps that is the selected step's text.
fn page_by(app: &mut App, rows: isize) {
    let steps = matches!(app.screen(), Screen::Incident | Screen::Plan)
        && app.steps_ui().is_some_and(|s| matches!(s.pane, Pane::Steps | Pane::Text));
    match app.dialogs.is_empty() && steps {
        true => scroll(app, rows),
        false => by(app, rows),
    }
}

/// Scrolls the step's text from where it stands on the screen.
fn scroll(app: &mut App, rows: isize) {
    let (all, seen) = app.shown.text;
    let (top, last) = (app.shown.top, all.saturating_sub(seen));
    if last == 0 {
        return app.say(Tone::Info, "all of this step's text is on the screen".into());
    }
    let Some(place) = steps_mut(app) else { return };
    // Several keys may come between two frames.
    let top = if place.scrolled { place.scroll.min(last) } else { top };
    place.scroll = moved(top, rows, last + 1);
    place.scrolled = true;
}

/// Brings an item of the selected step into sight.
pub(super) fn show_item(app: &mut App, item: usize) {
    let top = app.shown.top_for(item);
    let Some(place) = steps_mut(app) else { return };
    place.item = item;
    if let Some(top) = top {
        place.scroll = top;
        place.scrolled = true;
    }
}

fn moved(at: usize, by: isize, len: usize) -> usize {
    (at as isize).saturating_add(by).clamp(0, (len as isize - 1).max(0)) as usize
}

/// Moves what has the focus by rows; negative is up.
pub(super) fn by(app: &mut App, rows: isize) {
    if let Some(dialog) = app.dialogs.last_mut() {
        let room = app.shown.dialog.0.saturating_sub(app.shown.dialog.1) + 1;
        dialog.scroll = moved(dialog.scroll, rows, room);
        return;
    }
    match app.screen() {
        Screen::Home => app.home_list.selected = moved(app.home_list.selected, rows, app.home_rows().len()),
        Screen::Messages => {
            app.messages_list.selected = moved(app.messages_list.selected, rows, app.messages.len());
        }
        Screen::Timeline => {
            if let Some(ui) = &mut app.incident {
                let len = ui.data.timeline.iter().filter(|r| ui.timeline.passes(r.text.as_str())).count();
                ui.timeline.selected = moved(ui.timeline.selected, rows, len);
            }
        }
        Screen::Reference => reference::by(app, rows),
        Screen::Waiting => {}
        Screen::Moment => {
            if let Some(ui) = &mut app.incident {
                // One more than there are: another moment, by hand.
                let len = ui.data.state.facts.candidates.len() + 1;
                ui.moment.selected = moved(ui.moment.selected, rows, len);
                ui.axis_at = None;
            }
        }
        Screen::Incident | Screen::Plan => match app.steps_ui().map(|s| s.pane) {
            Some(Pane::Steps) => {
                let len = app.scenario().map_or(0, |s| s.steps.len());
                let at = app.steps_ui().map_or(0, |s| s.step);
                select(app, moved(at, rows, len));
            }
            Some(Pane::Text) => text(app, rows),
            Some(Pane::Output) => output(app, rows),
            None => {}
        },
    }
}

/// The selected row of the list on the screen.
pub(super) fn selected(app: &App) -> Option<usize> {
    match app.screen() {
        Screen::Home => Some(app.home_list.selected),
        Screen::Incident | Screen::Plan => app.steps_ui().map(|s| s.step),
        Screen::Timeline => app.incident.as_ref().map(|i| i.timeline.selected),
        Screen::Moment => app.incident.as_ref().map(|i| i.moment.selected),
        Screen::Messages => Some(app.messages_list.selected),
        Screen::Reference => app.references.last().map(|r| r.page),
        Screen::Waiting => None,
    }
}

/// Selects a row of the list on the screen.
pub(super) fn select(app: &mut App, row: usize) {
    match app.screen() {
        Screen::Home => app.home_list.selected = row,
        Screen::Messages => app.messages_list.selected = row,
        Screen::Reference => reference::select(app, row),
        Screen::Waiting => {}
        Screen::Timeline => {
            if let Some(ui) = &mut app.incident {
                ui.timeline.selected = row;
            }
        }
        Screen::Moment => {
            if let Some(ui) = &mut app.incident {
                ui.moment.selected = row;
                ui.axis_at = None;
            }
        }
        Screen::Incident | Screen::Plan => {
            let open = app.incident.as_ref().filter(|_| app.screen() == Screen::Incident);
            let block = open.map_or(0, |ui| ui.opens_with(row));
            if let Some(place) = steps_mut(app).filter(|p| p.step != row) {
                (place.step, place.item, place.block, place.scroll, place.scrolled) = (row, 0, block, 0, false);
                if app.screen() == Screen::Incident
                    && let Some(ui) = &mut app.incident
                {
                    let current = ui.data.state.current_step(&ui.data.scenario);
                    let at = ui.data.scenario.steps.iter().position(|s| Some(&s.id) == current.map(|c| &c.id));
                    ui.along = at == Some(row);
                }
            }
        }
    }
}

/// In the text, rows move from item to item, and scroll where there are none.
fn text(app: &mut App, rows: isize) {
    let items = app.step().map_or(0, |s| s.items.len());
    let room = app.shown.text.0.saturating_sub(app.shown.text.1) + 1;
    let at = app.shown.item_rows.clone();
    let (height, top) = (app.shown.text.1, app.shown.top);
    let Some(place) = steps_mut(app) else { return };
    let top = if place.scrolled { place.scroll } else { top };
    place.scrolled = true;
    let before = place.item;
    // A row at a time up to an item that is out of sight, so that nothing between two items is jumped over.
    let next = moved(place.item, rows, items);
    let top = top.min(room - 1);
    let seen = |item: usize| at.get(item).is_some_and(|row| *row >= top && *row < top + height);
    if rows.abs() == 1 && seen(next) {
        place.item = next;
    }
    if place.item == before {
        place.scroll = moved(top, rows, room);
    } else if let Some(row) = at.get(place.item) {
        // Keep the item in sight, with a row around it.
        let lowest = (row + 2).saturating_sub(height);
        place.scroll = top.clamp(lowest.min(row.saturating_sub(1)), row.saturating_sub(1).max(lowest));
        place.scroll = place.scroll.min(room - 1);
    }
}

fn output(app: &mut App, rows: isize) {
    let Some(ui) = &mut app.incident else { return };
    let Some(lines) = ui.output.run.and_then(|r| ui.data.outputs.get(&r)).map(|o| &o.lines) else { return };
    let (first, total) = (lines.first(), lines.total());
    let last_top = app.shown.output_last.clamp(first, total);
    let top = if ui.output.follow { last_top } else { ui.output.top };
    let next = (top as i64).saturating_add(rows as i64).clamp(first as i64, last_top as i64) as u64;
    if rows < 0 && ui.output.follow && next < last_top {
        ui.output.follow = false;
        ui.output.left_at = total;
    } else if rows > 0 && next >= last_top {
        ui.output.follow = true;
    }
    ui.output.top = next;
}

/// Back to the end of the output, and on with it; or stay where it is.
pub(super) fn follow(app: &mut App) {
    let last_top = app.shown.output_last;
    let Some(ui) = &mut app.incident else { return };
    ui.output.follow = !ui.output.follow;
    if !ui.output.follow
        && let Some(output) = ui.output.run.and_then(|r| ui.data.outputs.get(&r))
    {
        let total = output.lines.total();
        ui.output.left_at = total;
        ui.output.top = last_top.clamp(output.lines.first(), total);
    }
}

/// Goes to the next or previous line of the output that passes the search, from the current match or the screen.
pub(super) fn search(app: &mut App, forward: bool) {
    const CHUNK: u64 = 512;
    let height = app.shown.output_rows as u64;
    let Some(ui) = &mut app.incident else { return };
    let Some(output) = ui.output.run.and_then(|r| ui.data.outputs.get(&r)) else { return };
    let lines = output.lines.clone();
    if ui.output.search.is_empty() {
        return;
    }
    let (first, total) = (lines.first(), lines.total());
    let search = ui.output.search.clone();
    let start = match (ui.output.hit, forward) {
        (Some(hit), true) => hit + 1,
        (Some(hit), false) => hit,
        (None, true) => first,
        (None, false) => total,
    };
    let mut found = None;
    // First to the end (or the beginning), then around once.
    let ranges = if forward { [(start, total), (first, start)] } else { [(first, start), (start, total)] };
    'ranges: for (from, to) in ranges {
        let mut at = if forward { from } else { to };
        while if forward { at < to } else { at > from } {
            let (a, b) = if forward { (at, (at + CHUNK).min(to)) } else { (at.saturating_sub(CHUNK).max(from), at) };
            let chunk = lines.read(a, (b - a) as usize);
            let passes = |line: &crate::model::CleanText| super::super::passes(&search, line.as_str());
            let hit = if forward { chunk.iter().position(passes) } else { chunk.iter().rposition(passes) };
            if let Some(i) = hit {
                found = Some(a + i as u64);
                break 'ranges;
            }
            at = if forward { b } else { a };
        }
    }
    match found {
        Some(line) => {
            ui.output.hit = Some(line);
            ui.output.follow = false;
            ui.output.left_at = total;
            ui.output.top = line.saturating_sub(height / 2).max(first);
        }
        None => app.say(Tone::Info, format!("{search:?} does not occur in the output that is kept here")),
    }
}
