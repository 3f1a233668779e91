//! What happened, with times: the whole journal as people read it.

use ratatui::layout::Rect;

use crate::app::data::{RowKind, TimelineRow};
use crate::app::{App, Hit, IncidentUi, Shown, words};
use crate::model::Time;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, p, width, wrap};
use super::header;

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, shown: &mut Shown) {
    let Some(ui) = &app.incident else { return };
    let g = canvas.glyphs();
    let used = header::draw(canvas, area, app, ui);
    let body = Rect { y: area.y + used, height: area.height.saturating_sub(used), ..area };
    let rows: Vec<&TimelineRow> = ui.data.timeline.iter().filter(|r| ui.timeline.passes(r.text.as_str())).collect();
    let mut title = vec![p(Role::Accent, " TIMELINE".to_string())];
    if !ui.timeline.filter.is_empty() {
        title.push(p(Role::Warning, format!("  only \"{}\"", ui.timeline.filter)));
    }
    canvas.line(body, 0, &title);
    let head: String = ui.data.state.head.as_str().chars().take(12).collect();
    let note = format!("{}, head {head} ", words::plural(ui.data.state.seq.0, "record"));
    canvas.right(body, 0, &[p(Role::Muted, note)]);
    let detail = if body.height > 14 { 4 } else { 3 };
    let list = Rect { y: body.y + 1, height: body.height.saturating_sub(1 + detail), ..body };
    shown.list_rows = list.height as usize;
    let start = origin(ui);
    let selected = ui.timeline.selected.min(rows.len().saturating_sub(1));
    let top = super::scroll_to(selected, list.height as usize, rows.len());
    for (i, row) in rows.iter().enumerate().skip(top).take(list.height as usize) {
        let line = Rect { y: list.y + (i - top) as u16, height: 1, ..list };
        let pieces = pieces(canvas, row, start, area.width >= 70);
        canvas.line(Rect { x: line.x + 2, width: line.width.saturating_sub(3), ..line }, 0, &pieces);
        if i == selected {
            canvas.tint(line, Role::Selected);
            canvas.line(line, 0, &[p(Role::Selected, g.cursor)]);
        }
        shown.hits.push((line.x, line.y, line.width, 1, Hit::Row(i)));
    }
    if rows.is_empty() {
        canvas.line(list, 0, &[p(Role::Muted, "  nothing matches the filter")]);
    }
    let below = Rect { y: list.bottom(), height: detail, ..body };
    if let Some(row) = rows.get(selected) {
        about(canvas, below, row);
    }
}

/// The last lines, in a pane beside the work.
pub(super) fn pane(canvas: &mut Canvas<'_>, area: Rect, app: &App, ui: &IncidentUi) {
    super::incident::title(
        canvas,
        area,
        "TIMELINE",
        false,
        &[p(Role::Muted, words::plural(ui.data.state.seq.0, "record"))],
    );
    let rows = area.height.saturating_sub(1) as usize;
    let skip = ui.data.timeline.len().saturating_sub(rows);
    let start = origin(ui);
    for (i, row) in ui.data.timeline.iter().skip(skip).enumerate() {
        let pieces = pieces(canvas, row, start, false);
        canvas.line(Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area }, i as u16 + 1, &pieces);
    }
    let _ = app;
}

/// Where offsets count from: the impact, else the opening.
fn origin(ui: &IncidentUi) -> Time {
    ui.data.state.impact.as_ref().map_or(ui.data.state.opened.at, |i| i.at)
}

fn pieces(canvas: &Canvas<'_>, row: &TimelineRow, start: Time, with_actor: bool) -> Vec<Piece> {
    let g = canvas.glyphs();
    let (glyph, role) = match row.kind {
        RowKind::Incident => (g.active, Role::Accent),
        RowKind::Step => (g.open, Role::Text),
        RowKind::Run => (g.arrow, Role::Info),
        RowKind::Good => (g.done, Role::Good),
        RowKind::Bad => (g.failed, Role::Danger),
        RowKind::Fact => (g.open, Role::Muted),
        RowKind::Note => (g.skipped, Role::Code),
        RowKind::Attention => (g.unknown, Role::Warning),
    };
    let late = row.recorded.since(row.at).as_secs() > 60;
    let mut out = vec![
        p(Role::Muted, row.at.hms()),
        p(Role::Muted, if late { "*" } else { " " }),
        p(Role::Border, format!("{:>8} ", offset(row.at, start))),
    ];
    if with_actor {
        let name: String = row.actor.as_str().split('@').next().unwrap_or("").chars().take(10).collect();
        out.push(p(Role::Muted, format!("{name}{} ", " ".repeat(10usize.saturating_sub(width(&name))))));
    }
    out.push(p(role, format!("{glyph} ")));
    out.push(p(
        if matches!(row.kind, RowKind::Bad | RowKind::Attention) { role } else { Role::Text },
        row.text.as_str(),
    ));
    out
}

/// `+5:22`, `-1:00`.
fn offset(at: Time, start: Time) -> String {
    let sign = if at < start { "-" } else { "+" };
    let d = if at < start { start.since(at) } else { at.since(start) };
    format!("{sign}{}", crate::model::format_clock(d))
}

/// The selected line, whole.
fn about(canvas: &mut Canvas<'_>, area: Rect, row: &TimelineRow) {
    let mut head = vec![p(Role::Muted, format!("record {}", row.seq))];
    head.push(p(Role::Text, format!("  {} UTC  {}", row.at.date_hms(), row.actor)));
    if row.recorded.since(row.at).as_secs() > 60 {
        head.push(p(Role::Warning, format!("  written at {}", row.recorded.hms())));
    }
    canvas.rule(area, 0, Role::Border, false, &head, &[]);
    let columns = area.width.saturating_sub(2) as usize;
    let rows = area.height.saturating_sub(1) as usize;
    for (i, line) in row.text.as_str().lines().flat_map(|l| wrap(l, columns, 2)).take(rows).enumerate() {
        canvas.line(Rect { x: area.x + 1, width: columns as u16, ..area }, i as u16 + 1, &[p(Role::Text, line)]);
    }
}
