//! How a run is going or went: its phases with their bars, or what came of it.

use crate::action::ProgressPhase;
use crate::app::data::Incident;
use crate::app::{App, next, words};
use crate::incident::{Run, RunStatus};
use crate::model::event::Outcome;
use crate::model::format_clock;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, bar, p, width, wrap};

/// Most rows of how a run went: a finding is to be read whole.
const STATUS_ROWS: usize = 4;

/// How a run is going or went.
pub(super) fn lines(
    canvas: &Canvas<'_>,
    app: &App,
    data: Option<&Incident>,
    run: &Run,
    columns: usize,
) -> Vec<Vec<Piece>> {
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
            // What it took stands apart: behind "can be recovered" it would read as how long that takes.
            lines.extend(one(Role::Good, format!("{} {} (ran for {took})", g.done, run.summary)));
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
