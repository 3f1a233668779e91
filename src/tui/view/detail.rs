//! The selected step: its text and items, and below, always in sight, its command exactly as it will run.

use ratatui::layout::Rect;

use crate::action::ProgressPhase;
use crate::action::{blanks, message, runnable};
use crate::app::command::Cmd;
use crate::app::data::Incident;
use crate::app::dialog::SAID;
use crate::app::{App, IncidentUi, Pane, Shown, next, words};
use crate::incident::{Run, RunStatus, State, StepStatus};
use crate::model::event::Outcome;
use crate::model::format_clock;
use crate::model::plan::{Block, BlockRole, Risk, Step};
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, bar, fold, p, prose, width, wrap};
use super::header;

/// Most rows a command takes before it is cut; the step's text shows all of it once it has the focus.
const COMMAND_ROWS: usize = 4;

/// Most rows of how a run went: a finding is to be read whole.
const STATUS_ROWS: usize = 4;

/// Rows the text and the command would like to have.
pub(super) fn measure(canvas: &Canvas<'_>, area: Rect, app: &App, ui: Option<&IncidentUi>) -> (u16, u16) {
    let Some(step) = app.step() else { return (0, 0) };
    let (lines, _) = text(canvas, app, ui, step, area.width.saturating_sub(2) as usize);
    let command = command(canvas, app, ui, step, area.width.saturating_sub(2) as usize);
    (lines.len() as u16 + 1, command.len() as u16 + u16::from(!command.is_empty()))
}

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, ui: Option<&IncidentUi>, shown: &mut Shown) {
    let Some(step) = app.step() else {
        canvas.line(area, 0, &[p(Role::Muted, " this scenario has no steps")]);
        return;
    };
    let Some(place) = app.steps_ui() else { return };
    let focus = place.pane == Pane::Text;
    let columns = area.width.saturating_sub(2) as usize;
    let command = command(canvas, app, ui, step, columns);
    let command_rows = if command.is_empty() { 0 } else { command.len() as u16 + 1 };
    let command_rows = command_rows.min(area.height.saturating_sub(2));
    let text_area = Rect { height: area.height - command_rows, ..area };

    let (word, role) = match ui {
        Some(ui) => {
            let (_, word, role) = header::step_state(canvas, &ui.data, &step.id);
            (word, role)
        }
        None => ("", Role::Muted),
    };
    let right = if word.is_empty() || word == "open" { vec![] } else { vec![p(role, word)] };
    let mark = if focus { format!("{} ", canvas.glyphs().cursor) } else { String::new() };
    let head = format!("{mark}{} {}", place.step + 1, step.title);
    super::incident::title(canvas, text_area, &head, focus, &right);

    let body = Rect { x: area.x + 1, y: area.y + 1, width: columns as u16, height: text_area.height.saturating_sub(1) };
    let (lines, item_rows) = text(canvas, app, ui, step, columns);
    let rows = body.height as usize;
    shown.text = (lines.len(), rows);
    shown.item_rows = item_rows;
    // What is to be ticked next is in sight without leaving the list of steps; who scrolls decides for themselves.
    let wanted = match ui.filter(|_| !focus && place.scroll == 0).and_then(|u| to_tick(u, step)) {
        Some(item) => shown.item_rows.get(item).map_or(0, |row| row.saturating_sub(rows / 4)),
        None => place.scroll,
    };
    let top = wanted.min(lines.len().saturating_sub(rows));
    for (row, pieces) in lines.iter().skip(top).take(rows).enumerate() {
        canvas.line(body, row as u16, pieces);
    }
    if focus && let Some(row) = shown.item_rows.get(place.item).filter(|r| **r >= top && **r - top < rows) {
        let line = Rect { x: area.x, y: body.y + (row - top) as u16, width: area.width, height: 1 };
        canvas.tint(line, Role::Selected);
        canvas.line(line, 0, &[p(Role::Selected, canvas.glyphs().cursor)]);
    }
    let below = lines.len().saturating_sub(top + rows);
    if below > 0 {
        let note = format!(" {below} more rows {} ", canvas.glyphs().more);
        canvas.right(Rect { y: text_area.bottom() - 1, height: 1, ..area }, 0, &[p(Role::Muted, note)]);
    }
    if command_rows > 0 {
        draw_command(canvas, Rect { y: text_area.bottom(), height: command_rows, ..area }, app, step, &command);
    }
}

/// The item to look at while a step is being ticked off: the first open one, or the last when all are ticked.
pub(super) fn to_tick(ui: &IncidentUi, step: &Step) -> Option<usize> {
    if !matches!(next::incident(ui).cmd, Some(Cmd::Tick | Cmd::Done)) {
        return None;
    }
    let ticked = ui.data.state.step(&step.id).ticked;
    let open = (0..step.items.len()).find(|i| !u32::try_from(*i).is_ok_and(|i| ticked.contains_key(&i)));
    open.or(step.items.len().checked_sub(1))
}

fn draw_command(canvas: &mut Canvas<'_>, area: Rect, app: &App, step: &Step, lines: &[Vec<Piece>]) {
    let all: Vec<&Block> = runnable::blocks(step).collect();
    let at = app.steps_ui().map_or(0, |s| s.block).min(all.len().saturating_sub(1));
    let title = if all.len() > 1 { format!("command {} of {}", at + 1, all.len()) } else { "command".into() };
    let risk = all.get(at).map(|b| runnable::risk(b, &app.env.actions)).unwrap_or(Risk::Read);
    let risk_role = match risk {
        Risk::Read => Role::Good,
        Risk::Change => Role::Warning,
        Risk::Destroy => Role::Danger,
    };
    let mut right = vec![p(risk_role, next::risk_word(risk))];
    if all.len() > 1 {
        let key = canvas.look.keymap.shown(crate::app::command::Cmd::NextBlock, canvas.look.ascii);
        right.push(p(Role::Code, format!("  {key}")));
        right.push(p(Role::Muted, " next"));
    }
    canvas.rule(area, 0, Role::Border, false, &[p(Role::Muted, title)], &right);
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    for (row, pieces) in lines.iter().take(area.height.saturating_sub(1) as usize).enumerate() {
        canvas.line(inner, row as u16 + 1, pieces);
    }
}

/// The step's text as rows, and the row of each item.
fn text(
    canvas: &Canvas<'_>,
    app: &App,
    ui: Option<&IncidentUi>,
    step: &Step,
    columns: usize,
) -> (Vec<Vec<Piece>>, Vec<usize>) {
    let g = canvas.glyphs();
    let mut lines: Vec<Vec<Piece>> = Vec::new();
    if let Some(noticed) = ui.and_then(noticed) {
        lines.extend(wrap(&noticed, columns, 2).into_iter().map(|l| vec![p(Role::Warning, l)]));
        lines.push(vec![]);
    }
    if let Some(condition) = &step.condition {
        lines.extend(wrap(&format!("Only {condition}"), columns, 2).into_iter().map(|l| vec![p(Role::Warning, l)]));
    }
    if let Some(ui) = ui {
        let s = ui.data.state.step(&step.id);
        if let Some(reason) = &s.reason {
            let text = format!("{}: {reason}", if s.ended.is_some() { "skipped" } else { "open again" });
            lines.extend(wrap(&text, columns, 2).into_iter().map(|l| vec![p(Role::Warning, l)]));
        }
    }
    // What says what a block is for stands with the block.
    let mut rest = step.text.clone();
    for block in &step.blocks {
        let apart = runnable::why_not(block).is_some()
            || caption(app, ui, step, columns).is_some_and(|c| Some(c) == block.caption.as_deref());
        if let Some(caption) = block.caption.as_deref().filter(|_| apart) {
            rest = rest.replacen(caption, "", 1);
        }
    }
    lines.extend(prose(&rest, columns).into_iter().map(|l| vec![p(Role::Text, l)]));
    let mut item_rows = Vec::new();
    if !step.items.is_empty() {
        if !lines.is_empty() {
            lines.push(vec![]);
        }
        let ticked = ui.map(|u| u.data.state.step(&step.id).ticked).unwrap_or_default();
        for (i, item) in step.items.iter().enumerate() {
            item_rows.push(lines.len());
            let when = u32::try_from(i).ok().and_then(|i| ticked.get(&i));
            let done = when.is_some();
            let (mark, role) = if done { (g.boxes[0], Role::Good) } else { (g.boxes[1], Role::Text) };
            let mut title = words::plain(&item.title);
            if let Some(when) = when {
                title.push_str(&format!("  {}", when.at.hms()));
            }
            let rows = wrap(&title, columns.saturating_sub(5), 0);
            for (n, row) in rows.into_iter().enumerate() {
                let lead = if n == 0 { format!(" {mark} ") } else { "     ".into() };
                lines.push(vec![p(role, lead), p(if done { Role::Muted } else { Role::Text }, row)]);
            }
            let known = ui.and_then(|u| known(&item.title, &u.data.state, app)).unwrap_or_default();
            lines.extend(
                wrap(&known, columns.saturating_sub(5), 0)
                    .into_iter()
                    .map(|l| vec![p(Role::Info, format!("     {l}"))]),
            );
        }
    }
    if let Some(expected) = &step.expected {
        lines.push(vec![]);
        lines.extend(wrap(&format!("Expected: {expected}"), columns, 2).into_iter().map(|l| vec![p(Role::Info, l)]));
    }
    for block in &step.blocks {
        let Some(why) = runnable::why_not(block) else { continue };
        lines.push(vec![]);
        let caption = block.caption.as_deref().unwrap_or_default();
        lines.extend(prose(caption, columns).into_iter().map(|l| vec![p(Role::Text, l)]));
        if matches!(block.role, BlockRole::Run | BlockRole::Query) {
            lines.extend(
                wrap(&format!("Not run from here: {why}"), columns, 2).into_iter().map(|l| vec![p(Role::Warning, l)]),
            );
        }
        let vars = ui.map(|u| &u.data.state.vars);
        let code = match block.role {
            // As it would go out now: what is known of the incident is in it.
            BlockRole::Template if ui.is_some() => {
                ui.map(|u| u.message(message::meant_for(&step.title), &block.code, &app.now).0).unwrap_or_default()
            }
            BlockRole::Template => blanks::fill_message(&block.code, &block.placeholders, |name| {
                vars.and_then(|v| v.get(name)).map(String::as_str)
            }),
            _ => block.raw.clone().unwrap_or_else(|| block.code.clone()),
        };
        let rows = code.lines().flat_map(|l| fold(l, columns.saturating_sub(2))).collect::<Vec<_>>();
        lines.extend(rows.into_iter().map(|l| vec![p(Role::Border, format!("{} ", g.lines[1])), p(Role::Muted, l)]));
    }
    for link in &step.links {
        lines.push(vec![
            p(Role::Muted, "link  "),
            p(Role::Info, link.text.clone()),
            p(Role::Muted, format!("  {}", link.target)),
        ]);
    }
    lines.extend(whole_command(app, ui, step, columns));
    (lines, item_rows)
}

/// What began it all, until the first step is behind: the message that said so is gone with the next key.
fn noticed(ui: &IncidentUi) -> Option<String> {
    let state = &ui.data.state;
    let over = |s: &Step| matches!(state.step(&s.id).status, StepStatus::Done | StepStatus::Skipped);
    let impact = state.impact.as_ref().filter(|i| i.source != SAID && !i.source.is_empty())?;
    let begun = state.closed.is_none() && !ui.data.scenario.steps.iter().any(over);
    let (word, said) = match impact.source.strip_prefix("alarm: ") {
        Some(said) => ("Alarm", said),
        None => ("Noticed", impact.source.as_str()),
    };
    begun.then(|| format!("{word} at {} UTC: {said}", impact.at.hms()))
}

/// The paragraph that says what the selected one of several commands is for, where there is room for it above the command: not
/// beside the result of a run on a small screen, and not when it is long.
fn caption<'s>(app: &App, ui: Option<&IncidentUi>, step: &'s Step, columns: usize) -> Option<&'s str> {
    const ROWS: usize = 4;
    const TALL: u16 = 40;
    let (block, ..) = selected_command(app, ui, step)?;
    let several = runnable::blocks(step).nth(1).is_some();
    let room = app.size.1 >= TALL || ui.is_none_or(|u| u.run_of(step).is_none());
    block.caption.as_deref().filter(|c| several && room && prose(c, columns).len() <= ROWS)
}

/// What is on record of the very thing an item asks for; whether that is all of it stays with the person.
fn known(item: &str, state: &State, app: &App) -> Option<String> {
    let item = item.to_lowercase();
    let damage = state.facts.damage.as_ref().map(|(_, rows)| rows).filter(|rows| !rows.is_empty());
    if item.contains("rows known") {
        return Some(format!("on record: {}", words::plural(damage?.values().sum(), "row")));
    }
    if item.starts_with("tables") && item.contains("known") {
        let tables: Vec<&str> = damage?.keys().map(|t| t.strip_prefix("public.").unwrap_or(t)).collect();
        return Some(format!("on record: {}", tables.join(", ")));
    }
    if item.starts_with("measured rto") {
        let clock = state.rto_clock(&app.now);
        let lost = state.facts.loss.as_ref().map(|l| format!(", lost {}", words::loss(l))).unwrap_or_default();
        return clock.stopped.then(|| format!("on record: service back after {}{lost}", format_clock(clock.elapsed)));
    }
    None
}

/// A command that is cut below, whole, for who went into the text to read it.
fn whole_command(app: &App, ui: Option<&IncidentUi>, step: &Step, columns: usize) -> Vec<Vec<Piece>> {
    let Some((block, code, _)) = selected_command(app, ui, step) else { return vec![] };
    let rows = command_rows(block, &code, columns);
    if rows.len() <= COMMAND_ROWS || app.steps_ui().is_none_or(|s| s.pane != Pane::Text) {
        return vec![];
    }
    let mut lines = vec![vec![], vec![p(Role::Muted, "The whole command:")]];
    lines.extend(rows.into_iter().map(|row| vec![p(Role::Code, row)]));
    lines
}

/// The selected command: its block, its text as it will run, and what it still needs.
fn selected_command<'s>(
    app: &App,
    ui: Option<&IncidentUi>,
    step: &'s Step,
) -> Option<(&'s Block, String, Option<runnable::Missing>)> {
    let place = app.steps_ui()?;
    let block = runnable::blocks(step).nth(place.block).or_else(|| runnable::blocks(step).next())?;
    Some(match ui.map(|u| runnable::request(step, block, &app.known(u))) {
        Some(Ok(request)) => (block, request.shown, None),
        Some(Err(missing)) => (block, block.code.clone(), Some(missing)),
        None => (block, block.code.clone(), None),
    })
}

/// The rows of a command.
fn command_rows(block: &Block, code: &str, columns: usize) -> Vec<String> {
    let prompt = if block.role == BlockRole::Query { "  " } else { "$ " };
    let mut rows: Vec<String> = Vec::new();
    for line in code.lines() {
        for (n, row) in fold(line, columns.saturating_sub(2)).into_iter().enumerate() {
            let lead = if n == 0 && rows.is_empty() { prompt } else { "  " };
            rows.push(format!("{lead}{row}"));
        }
    }
    rows
}

/// The selected command, as it will run, and how its last run went.
fn command(canvas: &Canvas<'_>, app: &App, ui: Option<&IncidentUi>, step: &Step, columns: usize) -> Vec<Vec<Piece>> {
    let Some((block, code, missing)) = selected_command(app, ui, step) else { return vec![] };
    let rows = command_rows(block, &code, columns);
    let cut = rows.len().saturating_sub(COMMAND_ROWS);
    let said = caption(app, ui, step, columns).map(|c| prose(c, columns)).unwrap_or_default();
    let mut lines: Vec<Vec<Piece>> = said.into_iter().map(|l| vec![p(Role::Text, l)]).collect();
    lines.extend(rows.into_iter().take(COMMAND_ROWS).map(|r| vec![p(Role::Code, r)]));
    if cut > 0 {
        lines.pop();
        let text = format!("  {} {} more rows", canvas.glyphs().more, cut + 1);
        let key = |cmd| canvas.look.keymap.shown(cmd, canvas.look.ascii);
        // A key that shows never runs; what the other one does here is said beside it.
        let shows = match app.steps_ui().map(|s| s.pane) {
            Some(Pane::Text) => "above, below the text".to_string(),
            _ => format!("{} shows", key(Cmd::Open)),
        };
        let runs = match (ui, runnable::risk(block, &app.env.actions)) {
            (None, _) => String::new(),
            (Some(_), Risk::Read) => format!(", {} runs it", key(Cmd::Run)),
            (Some(_), _) => format!(", {} asks first", key(Cmd::Run)),
        };
        lines.push(vec![p(Role::Muted, format!("{text}: {shows}{runs}"))]);
    }
    if let Some(missing) = missing {
        let text = format!("r asks for {}, then goes on", missing.names().join(", "));
        lines.extend(wrap(&text, columns, 2).into_iter().take(2).map(|l| vec![p(Role::Warning, l)]));
    }
    if let Some(run) = ui.and_then(|u| u.run_of(step)) {
        lines.extend(status(canvas, app, ui.map(|u| &u.data), run, columns));
    }
    lines
}

/// How a run is going or went.
fn status(canvas: &Canvas<'_>, app: &App, data: Option<&Incident>, run: &Run, columns: usize) -> Vec<Vec<Piece>> {
    let g = canvas.glyphs();
    let mut lines = Vec::new();
    let progress = data.and_then(|d| d.progress.get(&run.id));
    let one = |role: Role, text: String| -> Vec<Vec<Piece>> {
        let mut rows = wrap(&text, columns, 2);
        if rows.len() > STATUS_ROWS {
            // Too wide for its row, so that it ends in the mark for more.
            let rest = rows.split_off(STATUS_ROWS);
            if let (Some(last), Some(more)) = (rows.last_mut(), rest.first()) {
                *last = format!("{last} {}", more.trim_start());
            }
        }
        rows.into_iter().map(|l| vec![p(role, l)]).collect()
    };
    let took = crate::model::format_clock(std::time::Duration::from_millis(run.duration_ms));
    match run.status {
        RunStatus::Requested => {
            let since = run.requested.elapsed(&app.now);
            lines.extend(one(Role::Info, format!("{} starting, {}", g.active, format_clock(since))));
        }
        RunStatus::Running => {
            for phase in progress.map(|p| p.phases.as_slice()).unwrap_or_default() {
                lines.push(phase_line(canvas, phase, columns));
            }
            let since = run.started.as_ref().unwrap_or(&run.requested).elapsed(&app.now);
            if let Some(left) = data.and_then(|d| d.left_behind(run.id)) {
                let text =
                    format!("{} worker died, still running: {}; never run it twice", g.unknown, words::processes(left));
                lines.extend(one(Role::Danger, text));
                return lines;
            }
            let mut text = if run.cancel_requested {
                format!("{} stopping: asked politely, KILL follows after 5 s", g.active)
            } else {
                format!("{} running for {}", g.active, format_clock(since))
            };
            if let Some(host) = data.and_then(|d| d.elsewhere(run.id)) {
                text.push_str(&format!(" on {host}, known only by what it records"));
            }
            if let Some(ms) = progress.and_then(|p| p.eta_ms) {
                text.push_str(&format!(", about {} left", format_clock(std::time::Duration::from_millis(ms))));
            }
            lines.extend(one(if run.cancel_requested { Role::Warning } else { Role::Info }, text));
        }
        RunStatus::Finished(Outcome::Succeeded) => {
            lines.extend(one(Role::Good, format!("{} {} in {took}", g.done, run.summary)));
        }
        RunStatus::Finished(Outcome::Failed)
            if app.incident.as_ref().is_some_and(|i| next::looked(&i.data.scenario, run)) =>
        {
            lines.extend(one(Role::Warning, format!("{} found: {}", g.active, run.summary)));
        }
        RunStatus::Finished(outcome) => {
            let word = match outcome {
                Outcome::Cancelled => "stopped",
                Outcome::Refused => "refused, nothing was touched",
                Outcome::Failed | Outcome::Succeeded => "failed",
            };
            let code = run.exit_code.map(|c| format!(" (exit {c})")).unwrap_or_default();
            lines.extend(one(Role::Danger, format!("{} {word}{code}: {}", g.failed, run.summary)));
        }
        RunStatus::Unknown => {
            let text = format!("{} outcome unknown: the worker vanished; look at the target, then press o", g.unknown);
            lines.extend(one(Role::Danger, text));
        }
        RunStatus::Withdrawn => lines.extend(one(Role::Muted, format!("taken back: {}", run.summary))),
    }
    lines
}

/// One phase with its bar: `replay  14:00:21→14:01:07 █████░░░ 64 %`.
fn phase_line(canvas: &Canvas<'_>, phase: &ProgressPhase, columns: usize) -> Vec<Piece> {
    let g = canvas.glyphs();
    let permille =
        phase.total.filter(|t| *t > 0).map(|t| (u128::from(phase.done) * 1000 / u128::from(t)).min(1000) as u64);
    let amount = |n: u64| if phase.unit == "bytes" { words::bytes(n) } else { words::count(n) };
    let text = match (&phase.text, phase.total) {
        (t, _) if !t.is_empty() => t.clone(),
        (_, Some(total)) if total == phase.done => amount(total),
        (_, Some(total)) => format!("{} of {}", amount(phase.done), amount(total)),
        (_, None) => format!("{} {}", amount(phase.done), if phase.unit == "bytes" { "" } else { &phase.unit }),
    };
    let name = format!("{:<7} ", phase.name);
    let tail = match permille {
        Some(1000) => " done".to_string(),
        Some(n) => format!(" {:>3} %", n / 10),
        None => String::new(),
    };
    let rate = match (phase.rate, permille) {
        (Some(r), n) if n != Some(1000) && phase.unit == "bytes" => format!(" {}/s", words::bytes(r)),
        _ => String::new(),
    };
    let used = width(&name) + width(&text) + width(&tail) + width(&rate) + 1;
    let mut out = vec![p(Role::Muted, name), p(Role::Text, text)];
    if let Some(n) = permille
        && columns >= used + 6
    {
        let room = (columns - used).min(30);
        let (full, empty) = bar(g, n, room);
        out.push(p(Role::Text, " "));
        out.push(p(if n == 1000 { Role::Good } else { Role::Info }, full));
        out.push(p(Role::Border, empty));
    }
    out.push(p(if permille == Some(1000) { Role::Good } else { Role::Text }, tail));
    out.push(p(Role::Muted, rate));
    out
}
