//! Dialogs: what is asked, what exactly would happen, the fields, the answers. Cancel has the focus to begin with.

use ratatui::layout::Rect;

use crate::app::command::Cmd;
use crate::app::dialog::{Ask, Dialog};
use crate::app::update::people::standing;
use crate::app::{App, IncidentUi, Preview, Shown, words};
use crate::incident::{Deadline, Timer, moment, writes};
use crate::model::plan::Risk;
use crate::model::target::RecoveryTarget;
use crate::model::{RunId, may_hold_secret};
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, chop, fold, p, wrap};
use super::{dialog_fields, dialog_people};

/// Processes of a dead worker that are listed one by one.
const LEFT_BEHIND: usize = 4;

/// The word on the button that does it.
pub(super) fn yes_word(ask: &Ask) -> &'static str {
    match ask {
        Ask::Help | Ask::Palette => "do it",
        Ask::Note => "write it",
        Ask::Skip(_) => "skip the step",
        Ask::Reopen(_) => "open it again",
        Ask::Declare => "declare",
        Ask::Begin { .. } => "declare it",
        Ask::Drill { .. } => "start the drill",
        Ask::Values(_) | Ask::Variable => "set",
        Ask::Edit { .. } | Ask::Run(..) => "run it",
        Ask::Destroy(..) => "run it",
        Ask::Refused(_) | Ask::Waive => "waive",
        Ask::Choose { .. } => "choose it",
        Ask::OtherMoment => "look at it",
        Ask::Cancel(_) => "stop it",
        Ask::Unknown(_) => "record it",
        Ask::Died(_) | Ask::Elsewhere(_) | Ask::Quit => "choose",
        Ask::Restored => "service is back",
        Ask::Close => "close it",
        Ask::Adopt(_) => "use the new plan",
        Ask::Links(_) => "follow it",
        Ask::Deadlines
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
        | Ask::Afterwards { .. } => dialog_people::yes_word(ask),
    }
}

/// The command, for another terminal, that shows what an action of this name left behind.
fn look_with(action: &str) -> &'static str {
    match action.split_once(' ').map_or(action, |(family, _)| family) {
        "backup" => "breakglass backup list",
        "wal" => "breakglass wal status",
        "pitr" => "breakglass pitr range",
        _ => "breakglass health",
    }
}

/// Title, role of the border, and the text above the fields.
fn content(app: &App, ask: &Ask, columns: usize) -> (&'static str, Role, Vec<Vec<Piece>>) {
    let mut lines: Vec<Vec<Piece>> = Vec::new();
    let say = |lines: &mut Vec<Vec<Piece>>, role: Role, text: &str| {
        lines.extend(wrap(text, columns, 0).into_iter().map(|l| vec![p(role, l)]));
    };
    let code = |lines: &mut Vec<Vec<Piece>>, text: &str| {
        for line in text.lines() {
            lines.extend(
                fold(line, columns.saturating_sub(2)).into_iter().map(|l| vec![p(Role::Code, format!("  {l}"))]),
            );
        }
    };
    let ui = app.incident.as_ref();
    let run_of = |run: RunId| app.incident.as_ref().and_then(|i| i.data.state.runs.get(&run));
    let step_of = |id: &crate::model::StepId| {
        let s = app.incident.as_ref().map(|i| &i.data.scenario);
        s.and_then(|s| s.steps.iter().find(|s| s.id == *id)).map_or(String::new(), |s| s.title.clone())
    };
    match ask {
        Ask::Help | Ask::Palette => ("", Role::Accent, lines),
        Ask::Deadlines
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
        | Ask::Afterwards { .. } => dialog_people::content(app, ask, columns).unwrap_or(("", Role::Accent, lines)),
        Ask::Note => {
            say(
                &mut lines,
                Role::Muted,
                "A note stands in the timeline for good. When it happened may be earlier than now.",
            );
            ("note", Role::Accent, lines)
        }
        Ask::Skip(id) => {
            say(&mut lines, Role::Text, &format!("Leave out: {}", step_of(id)));
            say(&mut lines, Role::Muted, "The step and the reason stay in the timeline; u opens it again.");
            ("skip a step", Role::Warning, lines)
        }
        Ask::Reopen(id) => {
            say(&mut lines, Role::Text, &format!("Open again: {}", step_of(id)));
            ("open a step again", Role::Warning, lines)
        }
        Ask::Declare => {
            say(
                &mut lines,
                Role::Muted,
                "The RTO clock runs from when impact began, which is usually earlier than now.",
            );
            ("declare", Role::Warning, lines)
        }
        Ask::Begin { title, file, .. } => {
            say(&mut lines, Role::Text, title);
            say(
                &mut lines,
                Role::Muted,
                &format!("{file}. This is the real thing: to rehearse, leave with esc and press d."),
            );
            ("declare a REAL incident", Role::Danger, lines)
        }
        Ask::Drill { title, .. } => {
            say(&mut lines, Role::Text, title);
            lines.push(vec![]);
            say(
                &mut lines,
                Role::Text,
                "Makes a private PostgreSQL in a scratch folder, with a small shop and live traffic, and damages it. \
                 Nothing of it can reach a real target; it is removed at the end.",
            );
            ("start a drill", Role::Info, lines)
        }
        Ask::Values(names) => {
            let secrets = names.iter().filter(|n| may_hold_secret(n)).count();
            if secrets < names.len() {
                let text = "These values are needed. They are kept for the rest of the incident and recorded.";
                say(&mut lines, Role::Text, text);
            }
            if secrets > 0 {
                let text = "A secret is handed to the tool through its environment. It is neither shown nor recorded, \
                            and forgotten when this console is left.";
                say(&mut lines, Role::Text, text);
            }
            ("values", Role::Accent, lines)
        }
        Ask::Variable => {
            say(&mut lines, Role::Muted, "Values are recorded and shown: never enter a secret here.");
            ("variable", Role::Accent, lines)
        }
        Ask::Edit { step, line, planned } => {
            let text = "For one run: the plan stays as it is. What only reads runs with enter; what changes something is \
                        looked at and asked about first, like every run.";
            say(&mut lines, Role::Text, text);
            lines.push(vec![p(Role::Muted, "the plan has:")]);
            code(&mut lines, planned);
            dialog_fields::options(&mut lines, app, (step, *line), columns);
            ("change the options of a command", Role::Warning, lines)
        }
        Ask::Run(request, preview) => {
            say(&mut lines, Role::Text, "This will run, exactly as it stands here:");
            code(&mut lines, &request.shown);
            lines.push(vec![]);
            foreseen(&mut lines, preview, columns);
            ("run", Role::Warning, lines)
        }
        Ask::Destroy(request, _, preview) => {
            say(
                &mut lines,
                Role::Danger,
                "This can destroy data or take the service down. It will run exactly as it stands here:",
            );
            code(&mut lines, &request.shown);
            lines.push(vec![]);
            foreseen(&mut lines, preview, columns);
            ("run something that destroys", Role::Danger, lines)
        }
        Ask::Refused(refusal) => {
            say(&mut lines, Role::Danger, &format!("{}.", refusal.why.trim_end_matches('.')));
            if !refusal.hint.is_empty() {
                lines.push(vec![]);
                say(&mut lines, Role::Text, &format!("What to do: {}.", refusal.hint.trim_end_matches('.')));
            }
            ("refused, nothing was touched", Role::Danger, lines)
        }
        Ask::Waive => {
            say(
                &mut lines,
                Role::Warning,
                "The gate no longer protects what this step runs, until something of it has succeeded. Who did it and why is recorded.",
            );
            ("waive a safety gate", Role::Danger, lines)
        }
        Ask::Choose { target, at, loses, what, warning } => {
            let when = at.map(|t| format!(" ({} UTC)", t.date_hms())).unwrap_or_default();
            let head = match target {
                RecoveryTarget::Latest => format!("Restore all that is archived{when}"),
                _ => format!("Restore to just before {target}{when}"),
            };
            say(&mut lines, Role::Text, &head);
            say(&mut lines, Role::Muted, what);
            lines.push(vec![]);
            if let Some(warning) = warning {
                say(&mut lines, Role::Danger, &format!("{}.", warning.trim_end_matches('.')));
                lines.push(vec![]);
            }
            // Of a time entered by hand the index of the log knows about how much follows it.
            let axis = ui.and_then(|ui| ui.axis.as_ref()).zip(*at).map(|(axis, at)| axis.cost(at));
            let about = axis.filter(|c| c.unreachable.is_none()).map_or("not known".to_string(), |c| {
                let after = words::plural(c.transactions, "transaction");
                format!("{}, about {after}", crate::model::format_clock(c.window))
            });
            let loss = loses.as_ref().map_or(about, words::loss);
            match ui.is_some_and(|ui| moment::keeps_newer(&ui.data.scenario, &ui.data.state)) {
                true => {
                    lines.push(vec![p(Role::Muted, "after   "), p(Role::Text, loss)]);
                    say(&mut lines, Role::Good, "That stays: only rows are brought back, out of a copy beside.");
                }
                false => lines.push(vec![p(Role::Muted, "loses   "), p(Role::Warning, loss)]),
            }
            say(
                &mut lines,
                Role::Muted,
                "Nothing runs yet: the moment becomes TARGET for the restore, which is shown first.",
            );
            ("choose this moment", Role::Warning, lines)
        }
        Ask::OtherMoment => {
            say(
                &mut lines,
                Role::Text,
                "Restore to just before a time (with its zone), LSN, transaction or restore point.",
            );
            ("another moment", Role::Accent, lines)
        }
        Ask::Cancel(run) => {
            if let Some(r) = run_of(*run) {
                say(&mut lines, Role::Text, &format!("Stop run {run}:"));
                code(&mut lines, &r.shown);
                lines.push(vec![]);
                let text = if r.risk == Risk::Read {
                    "It only reads: stopping it does no harm."
                } else {
                    "It changes something: what it did so far stays. It is asked to stop, and killed after 5 s."
                };
                say(&mut lines, Role::Text, text);
            }
            ("stop a run", Role::Warning, lines)
        }
        Ask::Unknown(run) => {
            if let Some(r) = run_of(*run) {
                say(
                    &mut lines,
                    Role::Text,
                    &format!("The worker of run {run} vanished before it could say how it ended:"),
                );
                code(&mut lines, &r.shown);
                say(
                    &mut lines,
                    Role::Warning,
                    "Look at the target itself. It is never run again by the program. To look:",
                );
                code(&mut lines, look_with(&r.action));
            }
            ("what became of it?", Role::Danger, lines)
        }
        Ask::Died(run) => {
            if let Some(r) = run_of(*run) {
                say(&mut lines, Role::Text, &format!("The worker of run {run} died. What it started goes on:"));
                code(&mut lines, &r.shown);
                let left = ui.and_then(|u| u.data.left_behind(*run)).unwrap_or_default();
                for process in left.iter().take(LEFT_BEHIND) {
                    let text = format!("  {}  {}", process.pid, process.command);
                    lines.extend(chop(&text, columns).into_iter().take(1).map(|l| vec![p(Role::Info, l)]));
                }
                let more = left.len().saturating_sub(LEFT_BEHIND);
                if more > 0 {
                    say(&mut lines, Role::Muted, &format!("  and {more} more"));
                }
                let pids: Vec<String> = left.iter().map(|l| l.pid.to_string()).collect();
                match pids.is_empty() {
                    true => say(&mut lines, Role::Text, "They belong to another account, which alone can see them."),
                    false => say(&mut lines, Role::Text, &format!("To look: ps -fp {}", pids.join(","))),
                }
                say(&mut lines, Role::Warning, "Do not run it a second time while they live.");
            }
            ("worker died, its processes go on", Role::Danger, lines)
        }
        Ask::Elsewhere(run) => {
            if let Some(r) = run_of(*run) {
                let host = ui.and_then(|u| u.data.elsewhere(*run)).map_or("another host", |h| h.as_str());
                say(&mut lines, Role::Text, &format!("Run {run} was started on {host}:"));
                code(&mut lines, &r.shown);
                let text =
                    "Whether it lives cannot be seen from here, only what it records. It is never run a second time.";
                say(&mut lines, Role::Warning, text);
            }
            ("the run is on another host", Role::Warning, lines)
        }
        Ask::Restored => {
            say(
                &mut lines,
                Role::Text,
                "The RTO clock stops at this time. Say it when users are served again, not before.",
            );
            lines.extend(writes_off(app, columns));
            ("service is back", Role::Good, lines)
        }
        Ask::Close => {
            let state = app.incident.as_ref().map(|i| &i.data.state);
            if state.is_some_and(|s| s.restored.is_none()) {
                say(
                    &mut lines,
                    Role::Danger,
                    "Service is not marked as restored (R does that). Closing anyway needs its reason in the summary.",
                );
            }
            let open = app.incident.as_ref().map_or(0, |i| {
                use crate::incident::StepStatus::{Done, Skipped};
                i.data
                    .scenario
                    .steps
                    .iter()
                    .filter(|s| !matches!(i.data.state.step(&s.id).status, Done | Skipped))
                    .count()
            });
            if open > 0 {
                say(&mut lines, Role::Warning, &format!("{} not worked yet.", words::plural(open as u64, "step")));
            }
            lines.extend(writes_off(app, columns));
            if let Some(name) = state.and_then(|s| s.people.codename.as_ref()) {
                let text = format!("It still goes by the code name {name}: V lifts it, now or once it is closed.");
                say(&mut lines, Role::Text, &text);
            }
            for text in ui.map(|ui| unsent(app, ui)).unwrap_or_default() {
                say(&mut lines, Role::Warning, &text);
            }
            if let Some(ui) = ui {
                let ticked = &ui.data.state.people.afterwards;
                let left = ui.afterwards().iter().filter(|i| !ticked.contains_key(*i)).count() as u64;
                if left > 0 {
                    say(
                        &mut lines,
                        Role::Text,
                        &format!("For afterwards: {} open; X lists them.", words::plural(left, "item")),
                    );
                }
            }
            say(
                &mut lines,
                Role::Muted,
                "After this only notes, secrets, the list for afterwards and the end of a code name can be written.",
            );
            ("close the incident", Role::Warning, lines)
        }
        Ask::Adopt(digest) => {
            say(
                &mut lines,
                Role::Text,
                "The plan on disk has changed since this incident was opened. Steps done so far stay done.",
            );
            say(&mut lines, Role::Muted, &format!("new plan {}", &digest.as_str()[..digest.as_str().len().min(12)]));
            ("use the changed plan", Role::Warning, lines)
        }
        Ask::Links(_) => {
            say(&mut lines, Role::Muted, "Esc comes back to this step; nothing is started.");
            ("follow a link", Role::Accent, lines)
        }
        Ask::Quit => {
            let runs = app.incident.iter().flat_map(|i| i.data.state.open_runs());
            for r in runs {
                say(&mut lines, Role::Text, &format!("Run {} is going on:", r.id));
                code(&mut lines, r.shown.lines().next().unwrap_or(""));
            }
            ("leave the console?", Role::Warning, lines)
        }
    }
}

/// What a run is decided by, below the text and always in sight: on what, how grave, how it ends.
fn decided_by(app: &App, ask: &Ask) -> Vec<Vec<Piece>> {
    let (word, said) = match ask {
        Ask::Run(..) => ("risk    ", p(Role::Warning, "changes something")),
        Ask::Destroy(_, name, _) => ("name    ", p(Role::Danger, name.clone())),
        _ => return vec![],
    };
    let target = app.incident.as_ref().map(|i| {
        let seen = i.data.state.facts.source.as_ref().map(|(s, _)| format!("{} at {}:{}", s.database, s.host, s.port));
        match (&i.data.state.target, seen) {
            (Some(t), Some(s)) => format!("{t} ({s})"),
            (Some(t), None) => format!("{t} (not seen live yet)"),
            (None, Some(s)) => s,
            (None, None) => "not seen live yet".into(),
        }
    });
    let mut lines: Vec<Vec<Piece>> =
        target.into_iter().map(|t| vec![p(Role::Muted, "target  "), p(Role::Text, t)]).collect();
    lines.push(vec![p(Role::Muted, word), said]);
    if matches!(ask, Ask::Run(..)) {
        let stop = "x asks it to stop; it goes on without this console";
        lines.push(vec![p(Role::Muted, "stop    "), p(Role::Text, stop)]);
    }
    lines
}

/// The messages that are due and not out: overdue, to who never heard of it, and to who was not told that service is back. Whoever
/// closes says that nobody waits for them.
fn unsent(app: &App, ui: &IncidentUi) -> Vec<String> {
    let state = &ui.data.state;
    let knows = |who: &str| {
        let back = state.restored.as_ref();
        state.messages.iter().any(|(to, _, when)| to == who && back.is_none_or(|r| when.at >= r.at))
    };
    let message = |d: &&Deadline| match &d.timer {
        Timer::Communicate => d.left_ms().is_some(),
        Timer::Update(who) => d.overdue() || (d.left_ms().is_some() && !knows(who)),
        _ => false,
    };
    let all = ui.deadlines(&app.now);
    let due: Vec<String> =
        all.iter().filter(message).map(|d| format!("{}, {}", d.what(), standing(&d.standing))).collect();
    match due.is_empty() || ui.data.state.people.tabletop.is_some() {
        true => vec![],
        false => vec![format!("Not sent: {} (esc, then w).", due.join("; "))],
    }
}

/// That writes are still off, before somebody says that service is back or closes.
fn writes_off(app: &App, columns: usize) -> Vec<Vec<Piece>> {
    let off = app.incident.as_ref().and_then(|ui| writes::off(&ui.data.state, &ui.data.scenario));
    let text = off.map(|(since, _)| {
        format!("Writes are off since {} UTC, and nobody turned them on again (U does).", since.at.hms())
    });
    let rows = text.iter().flat_map(|t| wrap(t, columns, 0));
    rows.map(|l| vec![p(Role::Danger, l)]).collect()
}

/// What the look beforehand saw, or that it could not look.
fn foreseen(lines: &mut Vec<Vec<Piece>>, preview: &Preview, columns: usize) {
    let before = lines.len();
    for line in &preview.lines {
        for (n, row) in wrap(line, columns.saturating_sub(8), 0).into_iter().enumerate() {
            let lead = if n == 0 && lines.len() == before { "does    " } else { "        " };
            lines.push(vec![p(Role::Muted, lead), p(Role::Text, row)]);
        }
    }
    if let Some(why) = &preview.failed {
        for (n, row) in wrap(why, columns.saturating_sub(8), 0).into_iter().enumerate() {
            let lead = if n == 0 { "unseen  " } else { "        " };
            lines.push(vec![p(Role::Warning, lead), p(Role::Warning, row)]);
        }
    }
}

/// Draws the dialog in the middle of an area.
pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, dialog: &Dialog, shown: &mut Shown) {
    if matches!(dialog.ask, Ask::Help | Ask::Palette) {
        return super::palette::draw(canvas, area, app, dialog, shown);
    }
    let columns = area.width.saturating_sub(4).min(76);
    let inside = columns.saturating_sub(4) as usize;
    let (title, role, text) = content(app, &dialog.ask, inside);
    let kept = decided_by(app, &dialog.ask);
    let fields = dialog_fields::fields(canvas, dialog, inside);
    let problem: Vec<String> = dialog.problem.iter().flat_map(|t| wrap(t, inside.saturating_sub(2), 0)).collect();
    let buttons = buttons(canvas, dialog);
    // Something of the text above stays; what is chosen is in sight.
    let least = 2 + problem.len() + kept.len() + if text.is_empty() { 0 } else { text.len().min(2) + 1 };
    let most = (area.height as usize).saturating_sub(least).max(3);
    let (fields, above, under) = dialog_fields::window(fields, most);
    let below = kept.len() + fields.len() + problem.len() + usize::from(!buttons.is_empty());
    let gap = usize::from(!text.is_empty());
    let room = (area.height as usize).saturating_sub(2 + below + gap + 1);
    let text_rows = text.len().min(room.max(1));
    let height = (text_rows + gap + below + 2 + usize::from(!buttons.is_empty() && !problem.is_empty())) as u16;
    let height = height.min(area.height);
    let at =
        Rect { x: area.x + (area.width - columns) / 2, y: area.y + (area.height - height) / 2, width: columns, height };
    canvas.frame(at, role, &[p(role, title)]);
    let inner = Rect { x: at.x + 2, y: at.y + 1, width: inside as u16, height: at.height.saturating_sub(2) };

    shown.dialog = (text.len(), text_rows);
    let top = dialog.scroll.min(text.len().saturating_sub(text_rows));
    for (row, pieces) in text.iter().skip(top).take(text_rows).enumerate() {
        canvas.line(inner, row as u16, pieces);
    }
    if text.len() > text_rows {
        let keys = [Cmd::PageUp, Cmd::PageDown].map(|c| canvas.look.keymap.shown(c, canvas.look.ascii)).join("/");
        let note = format!(" rows {}{}{} of {}, {keys} ", top + 1, canvas.glyphs().dash, top + text_rows, text.len());
        canvas.right(Rect { x: at.x + 2, width: at.width - 4, ..at }, 0, &[p(Role::Warning, note)]);
    }
    let mut row = text_rows as u16;
    for pieces in &kept {
        canvas.line(inner, row, pieces);
        row += 1;
    }
    row += gap as u16;
    if above + under > 0 {
        let keys = [Cmd::Up, Cmd::Down].map(|c| canvas.look.keymap.shown(c, canvas.look.ascii)).join("");
        let there = [(above, "above"), (under, "below")].into_iter().filter(|(n, _)| *n > 0);
        let there: Vec<String> = there.map(|(n, side)| format!("{} {side}", words::plural(n as u64, "row"))).collect();
        let note = format!(" {}, {keys} ", there.join(", "));
        let end = Rect { x: at.x + 2, y: at.bottom().saturating_sub(1), width: at.width - 4, height: 1 };
        canvas.right(end, 0, &[p(Role::Warning, note)]);
    }
    for (line, focused) in fields {
        canvas.line(inner, row, &line);
        if focused {
            let mark = canvas.glyphs().cursor;
            canvas.line(Rect { x: at.x + 1, y: inner.y + row, width: 1, height: 1 }, 0, &[p(Role::Accent, mark)]);
        }
        row += 1;
    }
    for line in problem {
        let mark = canvas.glyphs().failed;
        canvas.line(inner, row, &[p(Role::Danger, format!("{mark} {line}"))]);
        row += 1;
    }
    if !buttons.is_empty() {
        let last = inner.height.saturating_sub(1);
        canvas.right(inner, last, &buttons);
    }
}

/// The answers of a question without fields; the one with the focus is marked.
fn buttons(canvas: &Canvas<'_>, dialog: &Dialog) -> Vec<Piece> {
    if !dialog.fields.is_empty() {
        return vec![];
    }
    let g = canvas.glyphs();
    let button = |focused: bool, text: String| -> Piece {
        if focused { p(Role::Selected, format!("{}[{text}]", g.cursor)) } else { p(Role::Text, format!(" [{text}]")) }
    };
    let cancel =
        button(dialog.focus == 0, if matches!(dialog.ask, Ask::Refused(_)) { "close".into() } else { "cancel".into() });
    if matches!(dialog.ask, Ask::Refused(_)) {
        return vec![cancel];
    }
    let key = canvas.look.keymap.shown(Cmd::Yes, canvas.look.ascii);
    vec![cancel, p(Role::Text, " "), button(dialog.focus == 1, format!("{key} {}", yes_word(&dialog.ask)))]
}
