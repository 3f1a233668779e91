//! An incident, or a plan that is read: steps on the left, the selected one on the right, output below it.
//!
//! ```text
//! header
//! ├ steps ──────────────┬ step text, items ─────────────────────┬ timeline (from 160 columns)
//! │ ✓ 1 Detect     0:41 │ command, as it will run                │
//! │▶● 2 Recover    1:14 │ progress or result                     │
//! │ what is known       ├ output ────────────────────────────────┤
//! └─────────────────────┴────────────────────────────────────────┴
//! ```

use std::time::Duration;

use ratatui::layout::Rect;

use crate::app::data::Incident;
use crate::app::next::looked;
use crate::app::{App, Hit, IncidentUi, Pane, Shown, words};
use crate::incident::forecast::{pace, step_estimate};
use crate::incident::writes::{self, Back};
use crate::incident::{RunStatus, StepStatus, moment};
use crate::model::event::Verdict;
use crate::model::format_clock;
use crate::model::plan::Step;
use crate::model::target::RecoveryTarget;
use crate::plan::applying::applying;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, p, width};
use super::{detail, header, output, timeline};

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, shown: &mut Shown) {
    let Some(ui) = &app.incident else {
        canvas.line(area, 0, &[p(Role::Muted, " opening the incident")]);
        return;
    };
    let used = header::draw(canvas, area, app, ui);
    let (role, _) = header::line_of(app);
    let body = Rect { y: area.y + used, height: area.height.saturating_sub(used), ..area };
    let (left, right, third) = columns(body);
    canvas.wall(left.right(), body.y, body.bottom(), role);
    let list_rows = (app.scenario().map_or(0, |s| s.steps.len()) as u16 + 1).min(left.height);
    let list = Rect { height: if left.height - list_rows >= 3 { list_rows } else { left.height }, ..left };
    steps(canvas, list, app, Some(ui), shown);
    let known = Rect { y: list.bottom(), height: left.height - list.height, ..left };
    if known.height >= 3 {
        facts(canvas, known, app, &ui.data);
    }
    if let Some(third) = third {
        canvas.wall(right.right(), body.y, body.bottom(), role);
        timeline::pane(canvas, third, app, ui);
    }
    let run = ui.output.run.and_then(|r| ui.data.state.runs.get(&r));
    let rest = match run {
        Some(run) => {
            let (text, command) = detail::measure(canvas, right, app, Some(ui));
            let ticking = app.step().is_some_and(|s| detail::to_tick(ui, s).is_some());
            let wants = Parts { text, command, output: output::measure(ui, run, right) };
            let height = output_height(right.height, &wants, ui.steps.pane == Pane::Output, ticking);
            let at = Rect { y: right.bottom() - height, height, ..right };
            if height > 0 {
                output::draw(canvas, at, ui, run, shown);
                shown.hits.push((at.x, at.y, at.width, at.height, Hit::Pane(Pane::Output)));
            }
            Rect { height: right.height - height, ..right }
        }
        None => right,
    };
    shown.hits.push((rest.x, rest.y, rest.width, rest.height, Hit::Pane(Pane::Text)));
    detail::draw(canvas, rest, app, Some(ui), shown);
}

/// The scenario as it is read without an incident.
pub(super) fn draw_plan(canvas: &mut Canvas<'_>, area: Rect, app: &App, shown: &mut Shown) {
    let Some(plan) = &app.plan else { return };
    let s = &plan.row.scenario;
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    let span = |metric: &str| match applying(&plan.row.plan, s, metric) {
        None => "not said".to_string(),
        Some(o) => {
            let span = words::span(Duration::from_secs(o.seconds));
            match o.scope {
                _ if o.own => span,
                Some(scope) => format!("{span} (plan: {scope})"),
                None => format!("{span} (plan)"),
            }
        }
    };
    let mut first = vec![p(Role::Muted, "PLAN  "), p(Role::Accent, s.title.clone())];
    if let Some(v) = &s.severity {
        first.push(p(Role::Warning, format!("  {}", header::severity_words(&v.level))));
    }
    canvas.line(inner, 0, &first);
    canvas.right(inner, 0, &[p(Role::Muted, format!("  {}", plan.row.file))]);
    canvas.line(
        inner,
        1,
        &[
            p(Role::Muted, "RTO  "),
            p(Role::Text, span("rto")),
            p(Role::Muted, "   RPO  "),
            p(Role::Text, span("rpo")),
            p(Role::Muted, "   nothing is started by reading"),
        ],
    );
    canvas.rule(area, 2, Role::Border, false, &[], &[]);
    let body = Rect { y: area.y + 3, height: area.height.saturating_sub(3), ..area };
    let (left, mut right, third) = columns(body);
    if let Some(third) = third {
        right.width += third.width + 1;
    }
    canvas.wall(left.right(), body.y, body.bottom(), Role::Border);
    steps(canvas, left, app, None, shown);
    shown.hits.push((right.x, right.y, right.width, right.height, Hit::Pane(Pane::Text)));
    detail::draw(canvas, right, app, None, shown);
}

/// Left, right, and from 160 columns a third one. Between them a column is left for the line.
fn columns(body: Rect) -> (Rect, Rect, Option<Rect>) {
    let left_width = match body.width {
        0..72 => 27,
        72..110 => 32,
        110..160 => 40,
        _ => 44,
    };
    let left = Rect { width: left_width, ..body };
    let x = left.right() + 1;
    let rest = body.width - left_width - 1;
    if body.width < 160 {
        return (left, Rect { x, width: rest, ..body }, None);
    }
    let third_width = rest * 2 / 5;
    let right = Rect { x, width: rest - third_width - 1, ..body };
    (left, right, Some(Rect { x: right.right() + 1, width: third_width, ..body }))
}

/// Rows that the parts of the right side would like to have, each with its title.
struct Parts {
    text: u16,
    command: u16,
    output: u16,
}

/// Rows of the output. What is ticked off keeps its rows; else what a command prints comes before the text around it, as far as
/// it needs them; with the focus it takes all but the command and the step's title.
fn output_height(height: u16, parts: &Parts, focus: bool, ticking: bool) -> u16 {
    let command = parts.command.min(height.saturating_sub(2));
    let most = |text: u16| height.saturating_sub(command + text);
    if focus {
        return most(1).max(5).min(height.saturating_sub(2));
    }
    if ticking {
        // Too little for a title and a row is nothing.
        let least = 3.min(most(detail::TICKING_ROWS));
        let wanted = parts.output.min(most(parts.text.min(detail::TICKING_ROWS + 2)));
        let rows = most(parts.text).max(wanted).max(least);
        return if rows < 2 { 0 } else { rows };
    }
    let wanted = parts.output.min(most(detail::TICKING_ROWS));
    most(parts.text).max(wanted).max(parts.output.min(5).min(most(2))).min(most(2))
}

/// The list of steps.
fn steps(canvas: &mut Canvas<'_>, area: Rect, app: &App, ui: Option<&IncidentUi>, shown: &mut Shown) {
    let g = canvas.glyphs();
    let (Some(scenario), Some(place)) = (app.scenario(), app.steps_ui()) else { return };
    let total = scenario.steps.len();
    let focus = place.pane == Pane::Steps;
    let count = match ui {
        Some(ui) => {
            let over = |s: &&Step| matches!(ui.data.state.step(&s.id).status, StepStatus::Done | StepStatus::Skipped);
            format!("{} of {total}", scenario.steps.iter().filter(over).count())
        }
        None => words::plural(total as u64, "step"),
    };
    title(canvas, area, "STEPS", focus, &[p(Role::Muted, count)]);
    let list = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    let rows = list.height as usize;
    shown.list_rows = rows;
    let top = super::scroll_to(place.step, rows, total);
    let digits = total.to_string().len();
    for (row, (i, step)) in scenario.steps.iter().enumerate().skip(top).take(rows).enumerate() {
        let line = Rect { y: list.y + row as u16, height: 1, ..list };
        let (glyph, _, role) = match ui {
            Some(ui) => header::step_state(canvas, &ui.data, &step.id),
            None => (g.open, "open", Role::Text),
        };
        let time = time_of(app, ui.map(|u| &u.data), step);
        let used = canvas.right(Rect { width: line.width - 1, ..line }, 0, &time);
        let name_role = match ui.map(|u| u.data.state.step(&step.id).status) {
            Some(StepStatus::Done | StepStatus::Skipped) => Role::Muted,
            _ => Role::Text,
        };
        let room = line.width.saturating_sub(used + 3);
        canvas.line(
            Rect { x: line.x + 1, width: room, ..line },
            0,
            &[p(role, glyph), p(Role::Muted, format!(" {:>digits$} ", i + 1)), p(name_role, step.title.clone())],
        );
        if i == place.step {
            if focus {
                canvas.tint(line, Role::Selected);
            }
            let role = if focus { Role::Selected } else { Role::Accent };
            canvas.line(line, 0, &[p(role, g.cursor)]);
        }
        shown.hits.push((line.x, line.y, line.width, 1, Hit::Row(i)));
    }
    shown.hits.push((area.x, area.y, area.width, area.height, Hit::Pane(Pane::Steps)));
}

/// The title of a pane: marked by the accent role when it has the focus.
pub(super) fn title(canvas: &mut Canvas<'_>, area: Rect, text: &str, focus: bool, right: &[Piece]) {
    let role = if focus { Role::Accent } else { Role::Muted };
    canvas.line(area, 0, &[p(role, format!(" {text}"))]);
    let room = Rect { width: area.width.saturating_sub(1), ..area };
    if super::canvas::pieces_width(right) + width(text) + 3 <= area.width as usize {
        canvas.right(room, 0, right);
    }
}

/// Actual against planned: `0:41`, `1:14/~3:00`, `~1:30`, or the word when that says more.
fn time_of(app: &App, data: Option<&Incident>, step: &Step) -> Vec<Piece> {
    let clock = |d: Duration| format_clock(d);
    let Some(data) = data else {
        return step
            .estimate_s
            .map(|s| vec![p(Role::Muted, format!("~{}", clock(Duration::from_secs(s))))])
            .unwrap_or_default();
    };
    let planned = step_estimate(step, &data.times, pace(&data.state, &data.scenario));
    let s = data.state.step(&step.id);
    let run = data.state.last_word_of(&step.id);
    match s.status {
        StepStatus::Skipped => vec![p(Role::Muted, "skipped")],
        StepStatus::Done => s.took().map(|t| vec![p(Role::Muted, clock(t))]).unwrap_or_default(),
        StepStatus::Active => {
            if let Some(word) = run.and_then(|r| match r.status {
                RunStatus::Unknown => Some("unknown"),
                RunStatus::Finished(_) if !r.succeeded() && !looked(&data.scenario, r) => Some("failed"),
                _ => None,
            }) {
                return vec![p(Role::Danger, word)];
            }
            let elapsed = s.begun.as_ref().map_or(Duration::ZERO, |i| i.elapsed(&app.now));
            let late = planned.is_some_and(|(_, p90)| elapsed > p90);
            let mut out = vec![p(if late { Role::Warning } else { Role::Info }, clock(elapsed))];
            if let Some((p50, _)) = planned {
                out.push(p(Role::Muted, format!("/~{}", clock(p50))));
            }
            if late {
                out.push(p(Role::Warning, " late"));
            }
            out
        }
        StepStatus::Open => {
            planned.map(|(p50, _)| vec![p(Role::Muted, format!("~{}", clock(p50)))]).unwrap_or_default()
        }
    }
}

/// What is known of the world, most needed first.
fn facts(canvas: &mut Canvas<'_>, area: Rect, app: &App, data: &Incident) {
    let g = canvas.glyphs();
    let f = &data.state.facts;
    let mut lines: Vec<Vec<Piece>> = Vec::new();
    let mut fact = |name: &str, role: Role, text: String| {
        lines.push(vec![p(Role::Muted, format!("{name:<8} ")), p(role, text)]);
    };
    if let Some((_, text)) = data.state.people.tabletop.as_ref().and_then(|t| t.brought.last()) {
        fact("message", Role::Warning, text.clone());
    }
    if let Some((passed, ..)) = &f.judged {
        let (role, text) = if *passed { (Role::Good, "agrees") } else { (Role::Danger, "does not agree") };
        fact("judge", role, text.into());
    }
    if let Some((healthy, components, when)) = &f.health {
        let bad: Vec<&str> = components.iter().filter(|(_, s)| !is_well(s)).map(|(c, _)| c.as_str()).collect();
        let ago = words::about(when.elapsed(&app.now));
        match healthy {
            true if !components.is_empty() && components.keys().all(|c| OURS.contains(&c.as_str())) => {
                fact("health", Role::Warning, "service not asked".into());
            }
            true => fact("health", Role::Good, format!("{} all well, {ago} ago", g.done)),
            false if bad.is_empty() => fact("health", Role::Danger, format!("{} not well, {ago} ago", g.failed)),
            false => fact("health", Role::Danger, format!("{} {}, {ago} ago", g.failed, bad.join(", "))),
        }
    }
    if let Some((done, ..)) = f.contained.as_ref().filter(|_| f.promoted.is_none() && data.state.restored.is_none()) {
        let measures = words::plural(done.len() as u64, "measure");
        // Above what else is known: it may be all that keeps the service down. What stops the bleeding may leave writes on.
        match writes::off(&data.state, &data.scenario) {
            Some((_, Back::Now)) => fact("writes", Role::Warning, format!("{} still off", g.failed)),
            Some(_) => fact("writes", Role::Good, format!("{} off ({measures})", g.done)),
            None => fact("bleeding", Role::Good, format!("{} stopped ({measures})", g.done)),
        }
    }
    if let Some((target, at, _)) = &f.chosen {
        let keeps = moment::keeps_damage(f, target, *at);
        let hms = at.map(|t| t.hms());
        let moment = match (target, hms) {
            (RecoveryTarget::Latest, None) => "all archived".into(),
            (RecoveryTarget::Latest, Some(at)) => format!("all archived, {at}"),
            (target, at) => format!("before {}", at.unwrap_or_else(|| target.to_string())),
        };
        match keeps {
            true => fact("moment", Role::Danger, format!("{moment}: KEEPS DAMAGE")),
            false => fact("moment", Role::Text, moment),
        }
    } else if !f.candidates.is_empty() {
        fact("moments", Role::Warning, format!("{} found, none chosen", f.candidates.len()));
    }
    if let Some((passed, checks)) = &f.verified {
        let count = |v: Verdict| checks.iter().filter(|c| c.verdict == v).count();
        let (failed, good, all) = (count(Verdict::Failed), count(Verdict::Passed), checks.len());
        match passed {
            true if moment::damage_unseen(f).is_some() => {
                fact("verified", Role::Warning, format!("{good} of {all}, damage not looked for"));
            }
            true if good < all => fact("verified", Role::Good, format!("{} {good} of {all} checks", g.done)),
            true => fact("verified", Role::Good, format!("{} {}", g.done, words::plural(all as u64, "check"))),
            false => fact("verified", Role::Danger, format!("{} {failed} of {} failed", g.failed, checks.len())),
        }
    }
    match (&f.promoted, &f.shadow) {
        (Some((i, ..)), _) => fact("service", Role::Good, format!("{} on timeline {}", g.done, i.timeline)),
        (None, Some(s)) => {
            let reached = s.reached_time.map_or_else(|| s.reached_lsn.clone(), |t| t.hms());
            fact("beside", Role::Info, format!("recovered to {reached}"));
        }
        (None, None) => {}
    }
    let waived: Vec<&str> = data.state.live_waivers().map(|w| w.gate.as_str()).collect();
    if !waived.is_empty() {
        fact("waived", Role::Warning, waived.join(", "));
    }
    if let Some((_, rows)) = f.damage.as_ref().filter(|(_, rows)| !rows.is_empty()) {
        let n: u64 = rows.values().sum();
        fact(
            "damage",
            Role::Warning,
            format!("{} in {}", words::plural(n, "row"), words::plural(rows.len() as u64, "table")),
        );
    }
    if let Some((earliest, latest, holes)) = f.range.as_ref().map(|(a, b, h)| (a, b, h.len())) {
        let at = |t: &Option<crate::model::Time>| t.map_or("?".into(), |t| t.hms());
        let mut text = format!("{}{}{}", at(earliest), g.dash, at(latest));
        if holes > 0 {
            text.push_str(&format!(", {}", words::plural(holes as u64, "hole")));
        }
        fact("range", if holes > 0 { Role::Warning } else { Role::Text }, text);
    }
    if let Some(b) = f.backups.last() {
        let word = if b.verified { g.done } else { g.unknown };
        fact("backup", Role::Text, format!("{word} {}", words::bytes(b.bytes)));
    }
    if let Some((folder, rows)) = &f.salvage {
        let n: u64 = rows.values().sum();
        fact("salvage", Role::Text, format!("{} in {folder}", words::plural(n, "row")));
    }
    if lines.is_empty() {
        lines.push(vec![p(Role::Muted, "nothing is known yet")]);
    }
    canvas.rule(area, 0, Role::Border, false, &[p(Role::Muted, "known")], &[]);
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    for (i, line) in lines.iter().take(area.height.saturating_sub(1) as usize).enumerate() {
        canvas.line(inner, i as u16 + 1, line);
    }
}

/// What `health` looks at beside the service itself (`service.health_url`): that all of it is well says nothing of the service.
const OURS: [&str; 9] =
    ["postgresql", "exposure", "archiving", "repository", "catalog", "backups", "backup", "proven", "log"];

fn is_well(status: &str) -> bool {
    matches!(status.to_lowercase().as_str(), "ok" | "up" | "healthy" | "pass" | "passing" | "good" | "operational")
}
