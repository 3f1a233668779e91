//! The header of an incident: what it is, whose database, and the clocks.
//!
//! ```text
//!  DRILL  Database corruption · P0 critical                    target shop @ sandbox
//!  RTO  12:31 of 4:00:00  ███░░░░░░░  on course · done by 14:19–14:24 · 3:47:29 left
//!  RPO  loses 5:33, 4 120 transactions, of 1:00:00 · exposure now 0:08   14:07:43 UTC
//! ```

use std::time::Duration;

use ratatui::layout::Rect;

use crate::app::command::Cmd;
use crate::app::data::{Incident, Recording};
use crate::app::next::looked;
use crate::app::update::people;
use crate::app::{App, IncidentUi, Screen, words};
use crate::incident::forecast::{Course, Forecast, forecast};
use crate::incident::people::{COMMAND, ROLES};
use crate::incident::state::Exposure;
use crate::incident::{Deadline, RunStatus, State, StepStatus, moment, timers};
use crate::model::StepId;
use crate::model::event::Kind;
use crate::model::format_clock;
use crate::model::target::RecoveryTarget;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, bar, fit, p, width};
use super::hints::kind_word;

/// The rule's role and weight: heavy and in the colour of the real thing, light for a drill.
pub fn line_of(app: &App) -> (Role, bool) {
    match app
        .incident
        .as_ref()
        .filter(|_| matches!(app.screen(), Screen::Incident | Screen::Timeline | Screen::Moment | Screen::Reference))
    {
        Some(ui) if ui.data.state.kind == Kind::Real => (Role::Danger, true),
        _ => (Role::Border, false),
    }
}

/// `P0 critical`.
pub fn severity_words(level: &str) -> String {
    let word = crate::app::dialog::SEVERITIES
        .iter()
        .find(|(l, _)| *l == level)
        .and_then(|(_, about)| about.split(':').next())
        .unwrap_or("");
    format!("{level} {word}").trim_end().to_string()
}

/// Draws the header and its banners; returns the rows used, the rule below included.
pub fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, ui: &IncidentUi) -> u16 {
    let g = canvas.glyphs();
    let state = &ui.data.state;
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    let badge = if state.kind == Kind::Real { Role::Real } else { Role::Drill };

    let target = target(&ui.data, g.failed);
    let room = (inner.width as usize).saturating_sub(super::canvas::pieces_width(&target) + 2);
    let mut first = vec![(9, vec![p(badge, format!(" {} ", kind_word(state.kind)))])];
    match &state.people.codename {
        Some(name) => first.push((8, vec![p(Role::Accent, name.clone()), p(Role::Muted, " (code name)")])),
        None => first.push((8, vec![p(Role::Accent, state.title.clone())])),
    }
    if let Some(s) = &state.severity {
        first.push((7, vec![p(if s == "P0" { Role::Danger } else { Role::Warning }, severity_words(s))]));
    }
    if state.people.tabletop.is_some() {
        first.push((6, vec![p(Role::Warning, "at a table")]));
    }
    if state.people.local_only {
        first.push((5, vec![p(Role::Warning, "local only")]));
    }
    if state.closed.is_some() {
        first.push((6, vec![p(Role::Muted, "closed")]));
    }
    let first = fit(first, " ", room);
    canvas.line(Rect { width: room as u16, ..inner }, 0, &first);
    canvas.right(inner, 0, &target);

    let rto = rto(canvas, app, &ui.data, inner.width as usize);
    canvas.line(inner, 1, &rto);
    let clock = vec![p(Role::Muted, format!("{} UTC", app.now.time.hms()))];
    let used = canvas.right(inner, 2, &clock);
    let room = (inner.width as usize).saturating_sub(used as usize + 1);
    let rpo = rpo(canvas, app, &ui.data, room);
    canvas.line(Rect { width: room as u16, ..inner }, 2, &rpo);

    let mut row = 3;
    let deadlines = if state.closed.is_some() { vec![] } else { ui.deadlines(&app.now) };
    for (role, text) in banners(canvas, app, ui, &deadlines) {
        let at = Rect { y: area.y + row, height: 1, ..area };
        canvas.tint(at, role);
        canvas.line(at, 0, &[p(role, format!(" {} {text}", g.failed))]);
        canvas.tint(at, role);
        row += 1;
    }
    let (role, heavy) = line_of(app);
    let next = timers::next(&deadlines).filter(|d| !d.overdue());
    let holders = holders(state);
    let room = (area.width as usize).saturating_sub(super::canvas::pieces_width(&holders) + 8);
    let next = next.map(|d| {
        let whole = people::short(d, app.now.time);
        p(super::dialog_people::role_of(d), if width(&whole) > room { people::shorter(d) } else { whole })
    });
    let next: Vec<Piece> = next.into_iter().collect();
    canvas.rule(area, row, role, heavy, &holders, &next);
    row + 1
}

/// The target as people call it, its live identity, and whether that is the expected one.
fn target(data: &Incident, wrong: &str) -> Vec<Piece> {
    let state = &data.state;
    let seen = state.facts.promoted.as_ref().map(|(i, ..)| i).or(state.facts.source.as_ref().map(|(i, _)| i));
    let name = match (&state.target, seen) {
        (Some(name), _) => name.clone(),
        (None, Some(i)) => format!("{} @ {}:{}", i.database, i.host, i.port),
        (None, None) => "not known yet".into(),
    };
    let expected = state.facts.source.as_ref().is_none_or(|(i, _)| {
        state.expect.iter().all(|(key, want)| match key.as_str() {
            "system_identifier" => i.system_identifier == *want,
            "database" => i.database == *want,
            "host" => i.host == *want,
            _ => true,
        })
    });
    let mut out = vec![p(Role::Muted, "target "), p(Role::Text, name)];
    if !expected {
        out.push(p(Role::Danger, format!(" {wrong} NOT THE EXPECTED ONE")));
    }
    out
}

/// The forecast of an incident at this moment; a running action's own estimate counts for its step.
pub fn forecast_of(app: &App, data: &Incident) -> Forecast {
    let running = data.state.open_runs().find(|r| r.status == RunStatus::Running);
    let eta: Option<(StepId, Duration)> = running.and_then(|r| {
        let ms = data.progress.get(&r.id)?.eta_ms?;
        Some((r.step.clone()?, Duration::from_millis(ms)))
    });
    forecast(&data.state, &data.scenario, &data.times, eta.as_ref().map(|(s, d)| (s, *d)), &app.now)
}

/// The role that goes with a judgement.
pub fn course_role(course: Course) -> Role {
    match course {
        Course::OnCourse | Course::Met => Role::Good,
        Course::AtRisk | Course::LikelyLate => Role::Warning,
        Course::WillMiss | Course::Missed => Role::Danger,
        Course::Unknown => Role::Muted,
    }
}

fn rto(canvas: &Canvas<'_>, app: &App, data: &Incident, room: usize) -> Vec<Piece> {
    let g = canvas.glyphs();
    let clock = data.state.rto_clock(&app.now);
    let forecast = forecast_of(app, data);
    let role = course_role(forecast.course);
    let mut parts: Vec<(u8, Vec<Piece>)> = Vec::new();
    let mut lead = vec![p(Role::Muted, "RTO  "), p(Role::Accent, format_clock(clock.elapsed))];
    if let Some(o) = clock.objective {
        lead.push(p(Role::Text, format!(" of {}", format_clock(o))));
    }
    parts.push((9, lead));
    if let Some(o) = clock.objective.filter(|o| !o.is_zero()) {
        let permille = u64::try_from(clock.elapsed.as_millis() * 1000 / o.as_millis()).unwrap_or(1000);
        let columns = if room >= 120 { 20 } else { 10 };
        let (full, empty) = bar(g, permille, columns);
        parts.push((5, vec![p(role, full), p(Role::Border, empty)]));
    }
    let word = forecast.course.word();
    if clock.stopped {
        let at = data.state.restored.as_ref().map(|r| format!("service back {}", r.at.hms()));
        parts.push((8, vec![p(role, word)]));
        parts.extend(at.map(|t| (7, vec![p(Role::Text, t)])));
        return fit(parts, "  ", room);
    }
    parts.push((8, vec![p(role, word)]));
    if let (Some(a), Some(b)) = (forecast.p50, forecast.p90) {
        // Where minutes are the objective, seconds tell whether it is met.
        let digits = if clock.objective.is_some_and(|o| o < Duration::from_secs(3600)) { 8 } else { 5 };
        let (a, b) = (&a.hms()[..digits], &b.hms()[..digits]);
        let least = if forecast.unknown_steps > 0 { "at the earliest " } else { "by " };
        let span = if a == b { a.to_string() } else { format!("{a}{}{b}", g.dash) };
        parts.push((7, vec![p(Role::Text, format!("done {least}{span}"))]));
    }
    match clock.left() {
        Some(left) => parts.push((6, vec![p(Role::Text, format!("{} left", format_clock(left)))])),
        None if clock.missed() => {
            let over = clock.elapsed.saturating_sub(clock.objective.unwrap_or_default());
            parts.push((8, vec![p(Role::Danger, format!("over by {}", format_clock(over)))]));
        }
        None => {}
    }
    if data.state.impact.is_none() {
        parts.push((4, vec![p(Role::Muted, "since it was opened")]));
    }
    fit(parts, "  ", room)
}

fn rpo(canvas: &Canvas<'_>, app: &App, data: &Incident, room: usize) -> Vec<Piece> {
    let g = canvas.glyphs();
    let state = &data.state;
    let facts = &state.facts;
    let live = app.incident.as_ref().map(|ui| &ui.live);
    // The newer of what the journal has and what was measured from here.
    let sampled = live.and_then(|l| l.sample.as_ref());
    let age = |e: &&Exposure| e.when.elapsed(&app.now);
    let exposure = facts.exposure.as_ref().into_iter().chain(sampled).min_by_key(age);
    let objective = state.rpo.map(|o| format!(" of {}", format_clock(o))).unwrap_or_default();
    let within = |ms: u64| match state.rpo {
        Some(o) if Duration::from_millis(ms) > o => Role::Danger,
        Some(_) => Role::Good,
        None => Role::Text,
    };
    let mut parts: Vec<(u8, Vec<Piece>)> = Vec::new();
    let chosen = facts.chosen.as_ref();
    if let Some(loss) = &facts.loss {
        let damaged = moment::chosen_keeps_damage(facts);
        let role = if damaged { Role::Danger } else { within(loss.window_ms) };
        let word = match role {
            _ if damaged => "DAMAGE KEPT",
            Role::Danger => "missed",
            _ => "met",
        };
        let (window, most) = (Duration::from_millis(loss.window_ms), if loss.at_most { g.at_most } else { "" });
        let lost = format!("lost {most}{}", format_clock(window));
        parts.push((9, vec![p(Role::Muted, "RPO  "), p(role, lost), p(Role::Text, objective)]));
        parts.extend(words::transactions(loss).map(|t| (7, vec![p(Role::Text, t)])));
        if state.rpo.is_some() || damaged {
            parts.push((8, vec![p(role, word)]));
        }
        parts.push((6, vec![p(Role::Muted, "measured")]));
    } else if let Some((target, at, _)) = chosen.filter(|_| moment::keeps_newer(&data.scenario, state)) {
        // Nothing goes back as a whole: only what the copy has and the live database has not.
        let back = at.map_or_else(|| target.to_string(), |t| t.hms());
        parts.push((9, vec![p(Role::Muted, "RPO  "), p(Role::Good, "newer rows stay")]));
        parts.push((7, vec![p(Role::Text, format!("rows come back from before {back}"))]));
    } else if let Some((target, _, loss)) = chosen {
        let text = loss.as_ref().map_or_else(
            || match target {
                RecoveryTarget::Latest => "back to all archived".into(),
                target => format!("back to before {target}"),
            },
            |l| {
                format!(
                    "loses {}{}",
                    if l.at_most { g.at_most } else { "" },
                    format_clock(Duration::from_millis(l.window_ms))
                )
            },
        );
        let role = loss.as_ref().map_or(Role::Text, |l| within(l.window_ms));
        parts.push((9, vec![p(Role::Muted, "RPO  "), p(role, text), p(Role::Text, objective)]));
        parts.extend(loss.as_ref().and_then(words::transactions).map(|t| (7, vec![p(Role::Text, t)])));
    } else if let Some(e) = exposure {
        let role = within(u64::try_from(e.exposure.as_millis()).unwrap_or(u64::MAX));
        let most = if e.at_most { g.at_most } else { "" };
        parts.push((
            9,
            vec![
                p(Role::Muted, "RPO  "),
                p(role, format!("exposed {most}{}", format_clock(e.exposure))),
                p(Role::Text, objective),
            ],
        ));
    } else {
        parts.push((
            9,
            vec![p(Role::Muted, "RPO  "), p(Role::Muted, "exposure not measured yet"), p(Role::Text, objective)],
        ));
    }
    if let Some(e) = exposure.filter(|_| chosen.is_some() || facts.loss.is_some()) {
        let most = if e.at_most { g.at_most } else { "" };
        parts.push((5, vec![p(Role::Muted, format!("exposure now {most}{}", format_clock(e.exposure)))]));
    }
    if let Some(e) = exposure {
        let (age, gone) = (e.when.elapsed(&app.now), live.and_then(|l| l.gone.as_ref()));
        // Measured here it always says how old it is; what is on record, when that matters.
        if gone.is_some() {
            parts.push((8, vec![p(Role::Warning, format!("last seen {} ago", words::about(age)))]));
        } else if sampled.is_some() || age > Duration::from_secs(10) {
            parts.push((4, vec![p(Role::Muted, format!("seen {} ago", words::about(age)))]));
        }
        if sampled.is_some() && facts.loss.is_none() {
            parts.push((3, vec![p(Role::Muted, e.source.clone())]));
        }
    }
    fit(parts, "  ", room)
}

/// Who leads and who does what: the first two of the roles.
fn holders(state: &State) -> Vec<Piece> {
    let short = |role: &str| match role {
        COMMAND => "lead".to_string(),
        "operations" => "ops".into(),
        "communications" => "comms".into(),
        other => other.to_string(),
    };
    let mut out: Vec<Piece> = Vec::new();
    let named = ROLES.iter().filter_map(|r| state.people.holder(r).map(|h| (*r, h)));
    for (role, holding) in named.take(3) {
        let lead = if out.is_empty() { "" } else { "  " };
        out.push(p(Role::Muted, format!("{lead}{} ", short(role))));
        out.push(p(Role::Text, holding.person.clone()));
    }
    out
}

/// What has to be known before anything else is read.
fn banners(canvas: &Canvas<'_>, app: &App, ui: &IncidentUi, deadlines: &[Deadline]) -> Vec<(Role, String)> {
    let mut out = Vec::new();
    match &ui.data.recording {
        Recording::On => {}
        Recording::NotRecorded(why) => {
            out.push((Role::Real, format!("NOT RECORDED, write times down by hand: {why}")));
        }
        Recording::ReadOnly(why) => out.push((Role::Real, format!("READ ONLY: {why}"))),
    }
    if let Some(damage) = &ui.data.plan_damage {
        out.push((Role::Real, format!("PLAN DAMAGED: {damage}")));
    }
    for run in ui.data.state.open_runs() {
        if run.status == RunStatus::Unknown {
            out.push((
                Role::Real,
                format!("OUTCOME UNKNOWN of run {}: {}. It is never run again by itself.", run.id, run.shown),
            ));
        } else if let Some(left) = ui.data.left_behind(run.id) {
            let which = if left.is_empty() { "seen by another account only".into() } else { words::processes(left) };
            out.push((
                Role::Real,
                format!("WORKER DIED, its processes go on: {which} (run {}: {})", run.id, run.shown),
            ));
        }
    }
    let late: Vec<&Deadline> = deadlines.iter().filter(|d| d.overdue()).collect();
    if let Some(first) = timers::next(deadlines).filter(|d| d.overdue()) {
        let key = |cmd: Cmd| canvas.look.keymap.shown(cmd, canvas.look.ascii);
        let more = if late.len() > 1 { format!(", and {} more", late.len() - 1) } else { String::new() };
        let (p, z) = (key(Cmd::Deadlines), key(Cmd::Snooze));
        let said = |what: String| format!("{what}{more} ({p}: what to do, {z}: put off)");
        let whole = said(people::short(first, app.now.time));
        let fits = width(&whole) + 4 <= usize::from(app.size.0);
        out.push((Role::Real, if fits { whole } else { said(people::shorter(first)) }));
    }
    out.truncate(2);
    out
}

/// The word, glyph and role of a step.
pub fn step_state(canvas: &Canvas<'_>, data: &Incident, id: &StepId) -> (&'static str, &'static str, Role) {
    let g = canvas.glyphs();
    let state = &data.state;
    let step = state.step(id);
    if let Some(run) = state.last_word_of(id).filter(|_| matches!(step.status, StepStatus::Active | StepStatus::Open)) {
        use crate::model::event::Outcome;
        match run.status {
            RunStatus::Requested => return (g.active, "starting", Role::Info),
            RunStatus::Running if data.left_behind(run.id).is_some() => {
                return (g.unknown, "worker died", Role::Danger);
            }
            RunStatus::Running if run.cancel_requested => return (g.active, "stopping", Role::Warning),
            RunStatus::Running => return (g.active, "running", Role::Info),
            RunStatus::Unknown => return (g.unknown, "unknown", Role::Danger),
            RunStatus::Finished(Outcome::Failed) if looked(&data.scenario, run) => {
                return (g.active, "looked", Role::Warning);
            }
            RunStatus::Finished(Outcome::Failed) => return (g.failed, "failed", Role::Danger),
            RunStatus::Finished(Outcome::Refused) => return (g.failed, "refused", Role::Danger),
            RunStatus::Finished(Outcome::Cancelled) => return (g.stopped, "stopped", Role::Warning),
            RunStatus::Finished(Outcome::Succeeded) | RunStatus::Withdrawn => {}
        }
    }
    match step.status {
        StepStatus::Open => (g.open, "open", Role::Text),
        StepStatus::Active => (g.active, "active", Role::Info),
        StepStatus::Done => (g.done, "done", Role::Good),
        StepStatus::Skipped => (g.skipped, "skipped", Role::Muted),
    }
}
