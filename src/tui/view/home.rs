//! The first screen: open incidents, scenarios with objectives and the last drill, and what is selected.
//!
//! ```text
//!  breakglass                                        2026-11-20 14:07:43 UTC
//! ────────────────────────────────────────────────────────────────────────────
//!  OPEN INCIDENTS
//! ▶ REAL  Database corruption   P0   12:31 of 4 h   step 6 of 12   running
//!  SCENARIOS                          RTO     RPO    last drill
//!   Database corruption         P0    4 h     1 h    12 d ago  ✓ 18:12
//! ─ Database corruption ───────────────────────────────────── plan.md ─────────
//!  what it is, what it needs
//! ```

use ratatui::layout::Rect;

use crate::app::data::{IncidentRow, ScenarioRow, SecretRow};
use crate::app::{App, Hit, HomeRow, Shown, words};
use crate::model::event::Kind;
use crate::model::format_clock;
use crate::plan::applying::applying;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, fit, p, prose, width, wrap};
use super::hints::kind_word;

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, shown: &mut Shown) {
    header(canvas, area, app);
    let wide = area.width >= 120;
    let body = Rect { y: area.y + 2, height: area.height.saturating_sub(2), ..area };
    let list_width = if wide { (area.width * 6 / 10).min(110) } else { area.width };
    let rows = lines(app, list_width.saturating_sub(4) as usize, (body.height / 3) as usize);
    let needed = rows.len() as u16;
    let (list, detail) = if wide {
        let left = list_width;
        let list = Rect { width: left, ..body };
        canvas.wall(body.x + left, body.y, body.bottom(), Role::Border);
        (list, Rect { x: body.x + left + 1, width: body.width - left - 1, ..body })
    } else {
        let about = body.height.saturating_sub(needed).clamp(5, body.height.saturating_sub(5).max(5));
        let about = about.min(body.height / 2 + 2);
        let list = Rect { height: body.height - about, ..body };
        (list, Rect { y: list.bottom(), height: about, ..body })
    };
    draw_list(canvas, list, app, &rows, shown);
    draw_detail(canvas, detail, app, !wide);
}

fn header(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    let open = app.home.incidents.len();
    let words = if !app.home_loaded {
        String::new()
    } else if open == 0 {
        "no open incident".into()
    } else {
        format!("{} open", words::plural(open as u64, "incident"))
    };
    let mut left = vec![(9, vec![p(Role::Accent, "breakglass")])];
    left.push((3, vec![p(Role::Muted, "in case of emergency, break glass")]));
    left.push((5, vec![p(if open > 0 { Role::Warning } else { Role::Muted }, words)]));
    let overdue = app.home.secrets.iter().filter(|s| s.overdue(app.now.time)).count() as u64;
    if overdue > 0 {
        left.push((4, vec![p(Role::Danger, format!("{} overdue", words::plural(overdue, "secret")))]));
    }
    let clock = vec![p(Role::Muted, format!("{} UTC", app.now.time.date_hms()))];
    let used = canvas.right(inner, 0, &clock) as usize;
    let room = (inner.width as usize).saturating_sub(used + 2);
    canvas.line(Rect { width: room as u16, ..inner }, 0, &fit(left, "  ", room));
    canvas.rule(area, 1, Role::Border, false, &[], &[]);
}

/// A row of the list: a heading, a remark, or something that can be selected.
enum Line {
    Heading(&'static str),
    Remark(Role, String),
    Row(usize, HomeRow),
    Gap,
}

/// Everything in the list. Problems stand before the scenarios, whole, because what is missing there is missing for these
/// reasons; they take `problem_rows` rows at most.
fn lines(app: &App, columns: usize, problem_rows: usize) -> Vec<Line> {
    let mut out = Vec::new();
    let rows = app.home_rows();
    let mut index = 0;
    let incidents: Vec<_> = rows.iter().filter(|r| matches!(r, HomeRow::Incident(_))).collect();
    if !incidents.is_empty() {
        out.push(Line::Heading("OPEN INCIDENTS"));
        for row in incidents {
            out.push(Line::Row(index, *row));
            index += 1;
        }
        out.push(Line::Gap);
    }
    if !app.home.problems.is_empty() {
        out.push(Line::Heading("PROBLEMS"));
        let wrapped: Vec<Vec<String>> = app.home.problems.iter().map(|p| wrap(p, columns, 2)).collect();
        let all: usize = wrapped.iter().map(Vec::len).sum();
        let room = if all <= problem_rows { all } else { problem_rows.saturating_sub(1).max(1) };
        let (mut used, mut told) = (0, 0);
        for rows in &wrapped {
            // The first is shown as far as there is room, the others whole or not at all.
            if told > 0 && used + rows.len() > room {
                break;
            }
            out.extend(rows.iter().take(room).map(|r| Line::Remark(Role::Warning, r.clone())));
            used += rows.len();
            told += 1;
        }
        if told < wrapped.len() {
            out.push(Line::Remark(Role::Muted, format!("and {} more", wrapped.len() - told)));
        }
        out.push(Line::Gap);
    }
    health_lines(app, columns, &mut out);
    out.push(Line::Heading("SCENARIOS"));
    let mut group: Option<&str> = None;
    for row in rows.iter().filter(|r| matches!(r, HomeRow::Scenario(_))) {
        let HomeRow::Scenario(i) = row else { continue };
        let of = app.home.scenarios.get(*i).and_then(|s| s.scenario.group.as_deref());
        if of.is_some() && of != group {
            out.push(Line::Remark(Role::Muted, of.unwrap_or("").to_string()));
        }
        group = of;
        out.push(Line::Row(index, *row));
        index += 1;
    }
    secret_lines(app, &rows, &mut index, &mut out);
    if app.home.scenarios.is_empty() {
        let text = if app.home_loaded { "no plan was found" } else { "reading plans" };
        out.push(Line::Remark(Role::Muted, text.into()));
    }
    out
}

/// How service, database and backups are: one line when all is well, else what is not, three sentences of it at most.
fn health_lines(app: &App, columns: usize, out: &mut Vec<Line>) {
    let Some(seen) = &app.health else { return };
    out.push(Line::Heading("HEALTH"));
    let ago = words::ago(seen.at, app.now.time);
    if seen.healthy {
        let text = format!("all well, seen {ago}: {}", seen.good.join(", "));
        out.extend(wrap(&text, columns, 2).into_iter().take(1).map(|r| Line::Remark(Role::Good, r)));
    } else {
        const TOLD: usize = 3;
        for text in seen.bad.iter().take(TOLD) {
            out.extend(wrap(text, columns, 2).into_iter().take(2).map(|r| Line::Remark(Role::Danger, r)));
        }
        let more = match seen.bad.len().saturating_sub(TOLD) {
            0 => String::new(),
            n => format!("and {n} more; "),
        };
        let good = words::plural(seen.good.len() as u64, "check");
        out.push(Line::Remark(Role::Muted, format!("{more}{good} well, seen {ago}; more: breakglass health")));
    }
    out.push(Line::Gap);
}

/// The table of secrets, when there are any.
fn secret_lines(app: &App, rows: &[HomeRow], index: &mut usize, out: &mut Vec<Line>) {
    let mut secrets = rows.iter().filter(|r| matches!(r, HomeRow::Secret(_))).peekable();
    if app.home.scenarios.is_empty() || secrets.peek().is_none() {
        return;
    }
    out.push(Line::Gap);
    out.push(Line::Heading("SECRETS"));
    for row in secrets {
        out.push(Line::Row(*index, *row));
        *index += 1;
    }
}

fn draw_list(canvas: &mut Canvas<'_>, area: Rect, app: &App, rows: &[Line], shown: &mut Shown) {
    let g = canvas.glyphs();
    let selected = app.home_list.selected;
    let at = rows.iter().position(|l| matches!(l, Line::Row(i, _) if *i == selected)).unwrap_or(0);
    // The headings above the first row stay in sight with it.
    let first = selected == 0 && at < area.height as usize;
    let top = if first { 0 } else { super::scroll_to(at, area.height as usize, rows.len()) };
    shown.list_rows = area.height as usize;
    for (row, line) in rows.iter().skip(top).take(area.height as usize).enumerate() {
        let row = row as u16;
        let line_area = Rect { y: area.y + row, height: 1, ..area };
        let inner = Rect { x: area.x + 3, width: area.width.saturating_sub(4), ..line_area };
        match line {
            Line::Gap => {}
            Line::Heading(text) => {
                let mut title = vec![p(Role::Accent, format!(" {text}"))];
                if !app.home_list.filter.is_empty() {
                    title.push(p(Role::Warning, format!("  only \"{}\"", app.home_list.filter)));
                }
                canvas.line(line_area, 0, &title);
                if *text == "SECRETS" {
                    canvas.right(inner, 0, &secret_columns("changed", "due", Role::Muted, Role::Muted));
                }
                if *text == "SCENARIOS" {
                    canvas.right(inner, 0, &scenario_columns(inner.width, "", "RTO", "RPO", "last drill", Role::Muted));
                }
            }
            Line::Remark(role, text) => {
                canvas.line(inner, 0, &[p(*role, text.clone())]);
            }
            Line::Row(index, row) => {
                match row {
                    HomeRow::Incident(i) => {
                        if let Some(r) = app.home.incidents.get(*i) {
                            incident_row(canvas, inner, app, r);
                        }
                    }
                    HomeRow::Secret(i) => {
                        if let Some(s) = app.home.secrets.get(*i) {
                            secret_row(canvas, inner, app, s);
                        }
                    }
                    HomeRow::Scenario(i) => {
                        if let Some(r) = app.home.scenarios.get(*i) {
                            scenario_row(canvas, inner, app, r);
                        }
                    }
                }
                if *index == selected {
                    canvas.tint(line_area, Role::Selected);
                    canvas.line(line_area, 0, &[p(Role::Selected, format!(" {}", g.cursor))]);
                }
                shown.hits.push((line_area.x, line_area.y, line_area.width, 1, Hit::Row(*index)));
            }
        }
    }
}

fn incident_row(canvas: &mut Canvas<'_>, area: Rect, app: &App, row: &IncidentRow) {
    let badge = if row.kind == Kind::Real { Role::Real } else { Role::Drill };
    let elapsed = row.restored.unwrap_or(app.now.time).since(row.since);
    let late = row.rto.is_some_and(|o| elapsed > o);
    let clock_role = if late { Role::Danger } else { Role::Text };
    let objective = row.rto.map(|o| format!(" of {}", words::span(o))).unwrap_or_default();
    let state = if row.unknown > 0 {
        p(Role::Danger, "outcome unknown")
    } else if row.running > 0 {
        p(Role::Info, "running")
    } else if row.restored.is_some() {
        p(Role::Good, "service back")
    } else {
        p(Role::Warning, "waiting for you")
    };
    let parts = vec![
        (9, vec![p(badge, format!(" {:5}", kind_word(row.kind)))]),
        (8, vec![p(Role::Text, row.title.clone())]),
        (4, row.severity.iter().map(|s| p(Role::Warning, s.clone())).collect()),
        (7, vec![p(clock_role, format!("{}{objective}", format_clock(elapsed)))]),
        (5, vec![p(Role::Muted, format!("{} of {}", row.steps.0, words::plural(row.steps.1 as u64, "step")))]),
        (6, vec![state]),
    ];
    canvas.line(area, 0, &fit(parts, "  ", area.width as usize));
}

/// Columns of the last drill.
const DRILL: usize = 22;

/// The right-hand columns of a scenario, in fixed widths so that they line up with their heading.
fn scenario_columns(room: u16, severity: &str, rto: &str, rpo: &str, drill: &str, role: Role) -> Vec<Piece> {
    let drill_width = if room >= 70 { DRILL } else { 14 };
    let pad = |text: &str, n: usize| format!("{text}{}", " ".repeat(n.saturating_sub(width(text))));
    vec![
        p(Role::Warning, pad(severity, 4)),
        p(role, pad(rto, 9)),
        p(role, pad(rpo, 9)),
        p(role, pad(drill, drill_width)),
    ]
}

fn scenario_row(canvas: &mut Canvas<'_>, area: Rect, app: &App, row: &ScenarioRow) {
    let g = canvas.glyphs();
    let s = &row.scenario;
    let span = |metric: &str| {
        applying(&row.plan, s, metric).map_or("-".into(), |o| words::span(std::time::Duration::from_secs(o.seconds)))
    };
    let short = area.width < 70;
    let (drill, role) = match &row.last_drill {
        None => ("never".to_string(), Role::Warning),
        Some(d) => {
            let ago = words::about(app.now.time.since(d.at));
            // Its own objective, where it is not the one beside it.
            let own = d.objective.filter(|o| s.rto_s != Some(o.as_secs()) && !short);
            let of = own.map(|o| format!(" of {}", format_clock(o))).unwrap_or_default();
            let took = d.took.map(|t| format!("{}{of}", format_clock(t))).unwrap_or_default();
            let ago = if short || own.is_some() { ago } else { format!("{ago} ago") };
            let (said, role) = match d.passed {
                Some(true) => (format!("{ago} {} {took}", g.done), Role::Good),
                Some(false) => (format!("{ago} {} {took}", g.failed), Role::Danger),
                None => (format!("{ago} given up"), Role::Warning),
            };
            (if width(&said) > DRILL { said.replace(" of ", "/") } else { said }, role)
        }
    };
    let severity = s.severity.as_ref().map_or("", |v| v.level.as_str());
    let mut columns = scenario_columns(area.width, severity, &span("rto"), &span("rpo"), &drill, Role::Text);
    if let Some(last) = columns.last_mut() {
        last.0 = role;
    }
    let used = canvas.right(area, 0, &columns);
    let room = area.width.saturating_sub(used + 1);
    canvas.line(Rect { width: room, ..area }, 0, &[p(Role::Text, s.title.clone())]);
}

/// When a secret was changed and when it is due, in fixed widths.
fn secret_columns(changed: &str, due: &str, role: Role, due_role: Role) -> Vec<Piece> {
    vec![p(role, format!("{changed:<14}")), p(due_role, format!("{due:<24}"))]
}

fn secret_row(canvas: &mut Canvas<'_>, area: Rect, app: &App, s: &SecretRow) {
    let now = app.now.time;
    let day = |t: crate::model::Time| t.date_hms().chars().take(10).collect::<String>();
    let changed = s.rotated.map_or("not recorded".to_string(), day);
    let (due, role) = match s.due() {
        None => (format!("every {}", words::about(s.every)), Role::Muted),
        Some(due) if due < now => (format!("{} OVERDUE {}", day(due), words::about(now.since(due))), Role::Danger),
        Some(due) if due.since(now).as_secs() < 14 * 86_400 => {
            (format!("{} in {}", day(due), words::about(due.since(now))), Role::Warning)
        }
        Some(due) => (format!("{} in {}", day(due), words::about(due.since(now))), Role::Text),
    };
    let used = canvas.right(area, 0, &secret_columns(&changed, &due, Role::Text, role));
    let room = area.width.saturating_sub(used + 1);
    canvas.line(Rect { width: room, ..area }, 0, &[p(Role::Text, s.name.clone())]);
}

/// How a secret is changed and what that does.
fn about_secret(s: &SecretRow, area: Rect) -> Vec<Vec<Piece>> {
    let columns = area.width.saturating_sub(2) as usize;
    let mut out = vec![vec![p(Role::Muted, "every "), p(Role::Text, words::about(s.every))]];
    for (name, text) in [("how", &s.how), ("impact", &s.impact)] {
        if !text.is_empty() {
            out.extend(wrap(&format!("{name}: {text}"), columns, 2).into_iter().map(|l| vec![p(Role::Text, l)]));
        }
    }
    out
}

/// What is selected: what it is, what it needs, how the last drill went.
fn draw_detail(canvas: &mut Canvas<'_>, area: Rect, app: &App, ruled: bool) {
    let (title, file, lines) = match app.home_selected() {
        Some(HomeRow::Scenario(i)) => match app.home.scenarios.get(i) {
            Some(row) => (row.scenario.title.clone(), row.file.clone(), about_scenario(canvas, app, row, area)),
            None => return,
        },
        Some(HomeRow::Secret(i)) => match app.home.secrets.get(i) {
            Some(s) => (s.name.clone(), s.from.clone(), about_secret(s, area)),
            None => return,
        },
        Some(HomeRow::Incident(i)) => match app.home.incidents.get(i) {
            Some(row) => (row.title.clone(), row.id.to_string(), about_incident(app, row, area)),
            None => return,
        },
        None => return,
    };
    let mut area = area;
    if ruled {
        canvas.rule(area, 0, Role::Border, false, &[p(Role::Accent, title)], &[p(Role::Muted, file)]);
        area = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    } else {
        canvas.line(Rect { x: area.x + 1, width: area.width - 1, ..area }, 0, &[p(Role::Accent, title)]);
        canvas.line(Rect { x: area.x + 1, width: area.width - 1, ..area }, 1, &[p(Role::Muted, file)]);
        area = Rect { y: area.y + 3, height: area.height.saturating_sub(3), ..area };
    }
    let inner = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    for (row, pieces) in lines.iter().take(inner.height as usize).enumerate() {
        let cut = row + 1 == inner.height as usize && lines.len() > inner.height as usize;
        let mut pieces = pieces.clone();
        if cut {
            pieces.push(p(Role::Muted, format!(" {}", canvas.glyphs().more)));
        }
        canvas.line(inner, row as u16, &pieces);
    }
}

fn about_scenario(canvas: &Canvas<'_>, app: &App, row: &ScenarioRow, area: Rect) -> Vec<Vec<Piece>> {
    let g = canvas.glyphs();
    let s = &row.scenario;
    let columns = area.width.saturating_sub(2) as usize;
    let runnable = s.steps.iter().filter(|s| crate::action::runnable::blocks(s).next().is_some()).count();
    let mut head = vec![p(
        Role::Text,
        format!("{}, {runnable} of them can be run from here", words::plural(s.steps.len() as u64, "step")),
    )];
    head.push(if row.rehearsable {
        p(Role::Good, format!("  {} can be drilled", g.done))
    } else {
        p(Role::Muted, "  no sandbox yet")
    });
    let mut out = vec![head];
    if let Some(d) = &row.last_drill {
        let of = d.objective.map(|o| format!(" of {}", format_clock(o))).unwrap_or_default();
        let how = match (d.passed, d.took) {
            (Some(true), Some(t)) => format!("passed, back after {}{of}", format_clock(t)),
            (Some(false), Some(t)) => format!("did not pass; back after {}{of}", format_clock(t)),
            (Some(false), None) => "did not pass".into(),
            (_, _) => "given up before the end".into(),
        };
        let when = words::ago(d.at, app.now.time);
        out.push(vec![
            p(Role::Muted, "last drill "),
            p(Role::Text, format!("{} ({when}): {how}", &d.at.date_hms()[..16])),
        ]);
    }
    let lent: Vec<String> = [("RTO", "rto"), ("RPO", "rpo")]
        .into_iter()
        .filter_map(|(name, metric)| {
            let o = applying(&row.plan, s, metric).filter(|o| !o.own)?;
            let span = words::span(std::time::Duration::from_secs(o.seconds));
            Some(format!("{name} {span}{}", o.scope.map(|s| format!(" ({s})")).unwrap_or_default()))
        })
        .collect();
    if !lent.is_empty() {
        out.push(vec![p(Role::Muted, "of the whole plan: "), p(Role::Text, lent.join(", "))]);
    }
    let tall = area.height > 9;
    if tall {
        out.push(vec![]);
    }
    out.extend(prose(&s.intro, columns).into_iter().filter(|l| tall || !l.is_empty()).map(|l| vec![p(Role::Text, l)]));
    if tall && area.height > 24 {
        out.push(vec![]);
        for (i, step) in s.steps.iter().enumerate() {
            out.push(vec![p(Role::Muted, format!("{:>3} ", i + 1)), p(Role::Text, step.title.clone())]);
        }
    }
    out
}

fn about_incident(app: &App, row: &IncidentRow, area: Rect) -> Vec<Vec<Piece>> {
    let columns = area.width.saturating_sub(2) as usize;
    let mut out = vec![vec![
        p(Role::Muted, "clock since "),
        p(Role::Text, format!("{} UTC ({})", row.since.date_hms(), words::ago(row.since, app.now.time))),
    ]];
    let text = if row.unknown > 0 {
        "A worker vanished and left no result. Nothing is run again by itself: open it and say what became of it."
    } else if row.running > 0 {
        "An action is running. It does not need this console; opening shows it with its output."
    } else {
        "Everything done so far is in its journal. Opening shows the same step and the same clocks."
    };
    out.extend(wrap(text, columns, 0).into_iter().map(|l| vec![p(Role::Text, l)]));
    out
}
