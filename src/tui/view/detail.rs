//! The selected step: its text and items, and below, always in sight, its command exactly as it will run.

use ratatui::layout::Rect;

use crate::action::{blanks, message, runnable};
use crate::app::command::Cmd;
use crate::app::dialog::SAID;
use crate::app::{App, IncidentUi, Pane, Shown, next, words};
use crate::incident::writes::{self, Back};
use crate::incident::{Instant, State, StepStatus};
use crate::model::format_clock;
use crate::model::plan::{Block, BlockRole, Phase, Risk, Step};
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, fold, p, prose, wrap};
use super::header;

/// Most rows a command takes before it is cut; the step's text shows all of it once it has the focus.
const COMMAND_ROWS: usize = 4;

/// Most rows of what ran, where that is not the command as it would run now.
const RAN_ROWS: usize = 3;

/// Rows of a step that is being ticked off, with its title, that nothing takes from it.
pub(super) const TICKING_ROWS: u16 = 5;

/// Rows the text and the command would like to have.
pub(super) fn measure(canvas: &Canvas<'_>, area: Rect, app: &App, ui: Option<&IncidentUi>) -> (u16, u16) {
    let Some(step) = app.step() else { return (0, 0) };
    let Text { lines, .. } = text(canvas, app, ui, step, area.width.saturating_sub(2) as usize);
    let Command { lines: mut command, result } = command(canvas, app, ui, step, area.width.saturating_sub(2) as usize);
    command.extend(result);
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
    let Command { lines: mut command, result } = command(canvas, app, ui, step, columns);
    let all = command.len() + result.len();
    let command_rows = if all == 0 { 0 } else { all as u16 + 1 };
    // Where something is to be ticked it can be read as well.
    let ticking = ui.is_some_and(|u| to_tick(u, step).is_some());
    let Text { lines, item_rows, item_ends } = text(canvas, app, ui, step, columns);
    let least = match place.pane {
        Pane::Output => 1,
        _ if ticking => TICKING_ROWS.min(lines.len() as u16 + 1),
        Pane::Steps | Pane::Text => 2,
    };
    let command_rows = command_rows.min(area.height.saturating_sub(least));
    // Where there is too little room it is the command that is cut, known from above or from the plan; what came of it is not.
    command.truncate((command_rows as usize).saturating_sub(1 + result.len()).max(1));
    command.extend(result);
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
    let mut rows = body.height as usize;
    // Where there is more the last row says so, and covers nothing.
    let apart = lines.len() > rows && rows > 2;
    rows -= usize::from(apart);
    shown.text = (lines.len(), rows);
    shown.item_rows = item_rows;
    shown.item_ends = item_ends;
    // What is to be ticked next is in sight without leaving the list of steps; who scrolls decides for themselves.
    let wanted = match ui.filter(|_| !focus && !place.scrolled).and_then(|u| to_tick(u, step)) {
        // As it stood, as long as the next one is in sight: nothing moves without need.
        Some(item) if stands(app, place.step, shown, item) => app.shown.top,
        Some(item) => shown.top_for(item).unwrap_or(0),
        None => place.scroll,
    };
    let top = wanted.min(lines.len().saturating_sub(rows));
    shown.top = top;
    shown.seen = (place.step, in_sight(&shown.item_rows, &shown.item_ends, top, rows));
    let below = lines.len().saturating_sub(top + rows);
    let note = if (below > 0 || apart) && rows > 0 { more(canvas, ui, step, shown, below) } else { vec![] };
    for (row, pieces) in lines.iter().skip(top).take(rows).enumerate() {
        // Where the last row is shared with what says how to go on, its text ends before that.
        let shared = !apart && row + 1 == rows;
        let taken = if shared { super::canvas::pieces_width(&note) as u16 } else { 0 };
        canvas.line(Rect { width: body.width.saturating_sub(taken), ..body }, row as u16, pieces);
    }
    if focus && let Some(row) = shown.item_rows.get(place.item).filter(|r| **r >= top && **r - top < rows) {
        let line = Rect { x: area.x, y: body.y + (row - top) as u16, width: area.width, height: 1 };
        canvas.tint(line, Role::Selected);
        canvas.line(line, 0, &[p(Role::Selected, canvas.glyphs().cursor)]);
    }
    if !note.is_empty() {
        canvas.right(Rect { y: text_area.bottom() - 1, height: 1, ..area }, 0, &note);
    }
    if command_rows > 0 {
        draw_command(canvas, Rect { y: text_area.bottom(), height: command_rows, ..area }, app, step, &command);
    }
}

/// That the text goes on below, and the key that shows it; with what of it is to be ticked.
fn more(canvas: &Canvas<'_>, ui: Option<&IncidentUi>, step: &Step, shown: &Shown, below: usize) -> Vec<Piece> {
    let end = shown.top + shown.text.1;
    let key = canvas.look.keymap.shown(Cmd::PageDown, canvas.look.ascii).replace("pagedown", "pgdn");
    let ticked = ui.map(|u| u.data.state.step(&step.id).ticked).unwrap_or_default();
    let open = |i: &usize| !u32::try_from(*i).is_ok_and(|i| ticked.contains_key(&i));
    let hidden = (0..step.items.len()).filter(|i| shown.item_ends.get(*i).is_some_and(|behind| *behind > end));
    let more = words::plural(below as u64, "more row");
    match hidden.filter(open).count() {
        _ if below == 0 => vec![p(Role::Muted, " that is all of it ")],
        0 => vec![p(Role::Code, format!(" {key}")), p(Role::Muted, format!(" {more} "))],
        n => vec![
            p(Role::Code, format!(" {key}")),
            p(Role::Muted, format!(" {more}, ")),
            p(Role::Warning, format!("{n} to tick ")),
        ],
    }
}

/// Whether an item can be read where the text of the same step stood in the frame before.
fn stands(app: &App, step: usize, shown: &Shown, item: usize) -> bool {
    let before = &app.shown;
    let same = before.seen.0 == step && before.text == shown.text;
    same && in_sight(&shown.item_rows, &shown.item_ends, before.top, shown.text.1).contains(&item)
}

/// Items that can be read: wholly in sight, or their beginning where the pane is too small for more.
fn in_sight(starts: &[usize], ends: &[usize], top: usize, rows: usize) -> Vec<usize> {
    let small = rows < TICKING_ROWS as usize;
    let seen = |i: &usize| match (starts.get(*i), ends.get(*i)) {
        (Some(start), Some(end)) => {
            *start >= top && *start < top + rows && (small || *end <= top + rows || end - start > rows)
        }
        _ => false,
    };
    (0..starts.len()).filter(seen).collect()
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
    let title = next::numbered(&all, at).unwrap_or_else(|| "command".into());
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
        let hand = |i: usize| all.get(i % all.len()).is_some_and(|b| next::by_hand(b));
        let other_way = hand(at + 1) && !hand(at);
        right.push(p(Role::Muted, if other_way { " by hand" } else { " next" }));
        // What was done needs no other way.
        let done = app.incident.as_ref().and_then(|ui| ui.run_of(step)).is_some_and(|run| run.succeeded());
        right.truncate(if other_way && done { 1 } else { right.len() });
    }
    canvas.rule(area, 0, Role::Border, false, &[p(Role::Muted, title)], &right);
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    for (row, pieces) in lines.iter().take(area.height.saturating_sub(1) as usize).enumerate() {
        canvas.line(inner, row as u16 + 1, pieces);
    }
}

/// The step's text as rows.
struct Text {
    lines: Vec<Vec<Piece>>,
    /// The row of each item.
    item_rows: Vec<usize>,
    /// The row behind each item.
    item_ends: Vec<usize>,
}

fn text(canvas: &Canvas<'_>, app: &App, ui: Option<&IncidentUi>, step: &Step, columns: usize) -> Text {
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
            let text = match (s.status, &s.again) {
                (StepStatus::Skipped, _) => format!("skipped: {reason}"),
                (_, Some(again)) => format!("opened again at {} UTC: {reason}", again.at.hms()),
                (_, None) => reason.clone(),
            };
            lines.extend(wrap(&text, columns, 2).into_iter().map(|l| vec![p(Role::Warning, l)]));
        }
        if let Some(text) = writes_off(canvas, ui, step) {
            lines.extend(wrap(&text, columns, 2).into_iter().map(|l| vec![p(Role::Warning, l)]));
        }
    }
    // What says what a block is for stands with the block, and not above the command of another one.
    let mut rest = step.text.clone();
    let selected = selected_command(app, ui, step).map(|(block, ..)| block.line);
    let several = runnable::blocks(step).nth(1).is_some();
    for block in &step.blocks {
        let apart = runnable::why_not(block).is_some()
            || (several && selected != Some(block.line))
            || caption(app, ui, step, columns).is_some_and(|c| Some(c) == block.caption.as_deref());
        if let Some(caption) = block.caption.as_deref().filter(|_| apart) {
            rest = rest.replacen(caption, "", 1);
        }
    }
    lines.extend(prose(&rest, columns).into_iter().map(|l| vec![p(Role::Text, l)]));
    let (mut item_rows, mut item_ends) = (Vec::new(), Vec::new());
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
            item_ends.push(lines.len());
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
        let sent = ui.and_then(|u| sent(&u.data.state, step)).filter(|_| block.role == BlockRole::Template);
        if let Some((audience, _, when)) = sent {
            lines.push(vec![p(Role::Good, format!("{} told the {audience} at {} UTC:", g.done, when.at.hms()))]);
        }
        let code = match block.role {
            // As it went out, blanks filled in by whoever sent it; before that as it would go out now.
            BlockRole::Template if sent.is_some() => sent.map(|(_, text, _)| text.clone()).unwrap_or_default(),
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
    lines.extend(other_commands(app, ui, step, columns));
    Text { lines, item_rows, item_ends }
}

/// The message of a step as it went out.
fn sent<'s>(state: &'s State, step: &Step) -> Option<&'s (String, String, Instant)> {
    let told = state.step(&step.id).told?;
    state.messages.iter().rev().find(|(.., when)| *when == told)
}

/// That writes are off, where a person is about to verify, to hand back or to close, and what turns them on again.
fn writes_off(canvas: &Canvas<'_>, ui: &IncidentUi, step: &Step) -> Option<String> {
    let (since, back) = writes::off(&ui.data.state, &ui.data.scenario)?;
    let here = ui.data.scenario.steps.iter().position(|s| s.id == step.id)?;
    if ui.data.state.closed.is_some()
        || matches!(ui.data.state.step(&step.id).status, StepStatus::Done | StepStatus::Skipped)
    {
        return None;
    }
    let asks = matches!(step.phase, Some(Phase::Verify | Phase::Promote | Phase::Communicate | Phase::Close));
    let since = since.at.hms();
    let key = canvas.look.keymap.shown(Cmd::WritesOn, canvas.look.ascii);
    match back {
        Back::Now => Some(format!(
            "Writes are off since {since} UTC, and nobody turned them on again. {key} does (contain --keep-writes)."
        )),
        Back::By(at) if asks && at == here => {
            Some(format!("Writes are off since {since} UTC; this step turns them on again."))
        }
        Back::By(at) if asks => Some(format!("Writes are off since {since} UTC; step {} turns them on again.", at + 1)),
        Back::Before(at) if asks => Some(format!(
            "Writes are off since {since} UTC, to be turned on before step {}: {key} does (contain --keep-writes).",
            at + 1
        )),
        Back::By(_) | Back::Before(_) => None,
    }
}

/// What the other commands of a step are for, for who went into the text to read all of it.
fn other_commands(app: &App, ui: Option<&IncidentUi>, step: &Step, columns: usize) -> Vec<Vec<Piece>> {
    let Some(place) = app.steps_ui().filter(|s| s.pane == Pane::Text) else { return vec![] };
    let all: Vec<&Block> = runnable::blocks(step).collect();
    let mut lines = Vec::new();
    let selected = place.block.min(all.len().saturating_sub(1));
    for (at, block) in all.iter().enumerate().filter(|(at, _)| all.len() > 1 && *at != selected) {
        let mut title = next::numbered(&all, at).unwrap_or_else(|| "the command".into());
        title[..1].make_ascii_uppercase();
        lines.extend([vec![], vec![p(Role::Muted, format!("{title}:"))]]);
        let said = block.caption.as_deref().map(|c| prose(c, columns)).unwrap_or_default();
        lines.extend(said.into_iter().map(|l| vec![p(Role::Text, l)]));
        let known = ui.and_then(|u| runnable::request(step, block, &app.known(u)).ok());
        let code = known.map_or_else(|| block.code.clone(), |r| r.shown);
        lines.extend(command_rows(block, &code, columns).into_iter().map(|row| vec![p(Role::Code, row)]));
    }
    lines
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

/// The rows of a command, and those of what came of its last run.
#[derive(Default)]
struct Command {
    lines: Vec<Vec<Piece>>,
    result: Vec<Vec<Piece>>,
}

/// The selected command, as it will run, and how its last run went.
fn command(canvas: &Canvas<'_>, app: &App, ui: Option<&IncidentUi>, step: &Step, columns: usize) -> Command {
    let Some((block, code, missing)) = selected_command(app, ui, step) else { return Command::default() };
    let mut result = Vec::new();
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
        // What the keys do is the same: only where it goes on differs.
        let edits = if runnable::is_ours(block, &app.env.actions) { " (e, too)" } else { "" };
        let text = format!("r asks for {}, then goes on{edits}", missing.names().join(", "));
        lines.extend(wrap(&text, columns, 2).into_iter().take(2).map(|l| vec![p(Role::Warning, l)]));
    }
    if let Some(run) = ui.and_then(|u| u.run_of(step)) {
        // Run with other options, or before a value was another one: what follows is about what ran.
        if run.shown != code && run.block_line.is_none_or(|l| l == block.line) {
            let said = format!("ran: {}", run.shown);
            let rows: Vec<String> = said.lines().flat_map(|l| fold(l, columns.saturating_sub(3))).collect();
            let cut = rows.len() > RAN_ROWS;
            for (n, row) in rows.into_iter().take(RAN_ROWS).enumerate() {
                let more = if cut && n + 1 == RAN_ROWS { canvas.glyphs().more } else { "" };
                lines.push(vec![p(Role::Warning, format!("{}{row}{more}", if n == 0 { "" } else { "  " }))]);
            }
        }
        result = super::status::lines(canvas, app, ui.map(|u| &u.data), run, columns);
    }
    Command { lines, result }
}
