//! What a plan says beside its steps: pages on the left, the selected one on the right.

use ratatui::layout::Rect;

use crate::app::reference::{Kind, pages};
use crate::app::update::reference;
use crate::app::{App, Hit, Shown, words};
use crate::tui::theme::Role;

use super::canvas::{Canvas, chop, p, prose, wrap};
use super::header;

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, shown: &mut Shown) {
    let Some(place) = app.references.last() else { return };
    let all = pages(&place.plan, place.scenario.as_deref());
    let used = match &app.incident {
        Some(ui) => header::draw(canvas, area, app, ui),
        None => 0,
    };
    let body = Rect { y: area.y + used, height: area.height.saturating_sub(used), ..area };
    let (role, _) = header::line_of(app);
    let width = if body.width < 90 { 28 } else { 40 };
    let left = Rect { width, ..body };
    let right = Rect { x: body.x + width + 1, width: body.width.saturating_sub(width + 1), ..body };
    canvas.wall(left.right(), body.y, body.bottom(), role);
    super::incident::title(canvas, left, "BESIDE THE STEPS", true, &[p(Role::Muted, format!("{}", all.len()))]);
    let rows = left.height.saturating_sub(1) as usize;
    shown.list_rows = rows;
    let top = super::scroll_to(place.page, rows, all.len());
    for (i, page) in all.iter().enumerate().skip(top).take(rows) {
        let line = Rect { y: left.y + 1 + (i - top) as u16, height: 1, ..left };
        let sort = match page.kind {
            Kind::Template => "message ",
            Kind::Checklist => "list ",
            Kind::Link => "link ",
            _ => "",
        };
        let at = Rect { x: line.x + 2, width: line.width.saturating_sub(3), ..line };
        canvas.line(at, 0, &[p(Role::Muted, sort), p(Role::Text, page.title.clone())]);
        if i == place.page {
            canvas.tint(line, Role::Selected);
            canvas.line(line, 0, &[p(Role::Selected, canvas.glyphs().cursor)]);
        }
        shown.hits.push((line.x, line.y, line.width, 1, Hit::Row(i)));
    }
    let Some(page) = all.get(place.page) else { return };
    let source = if page.line > 0 { format!("{}:{}", place.plan.file, page.line) } else { place.plan.file.clone() };
    super::incident::title(canvas, right, &page.title, false, &[p(Role::Muted, source)]);
    let inner = Rect {
        x: right.x + 1,
        y: right.y + 1,
        width: right.width.saturating_sub(2),
        height: right.height.saturating_sub(1),
    };
    let (text, _) = reference::text(app, page);
    let lines = rows_of(&text, page.kind == Kind::Template, inner.width as usize);
    let room = inner.height as usize;
    shown.text = (lines.len(), room);
    let top = place.scroll.min(lines.len().saturating_sub(room));
    for (row, line) in lines.iter().skip(top).take(room).enumerate() {
        canvas.line(inner, row as u16, &[p(Role::Text, line.clone())]);
    }
    let below = lines.len().saturating_sub(top + room);
    if below > 0 {
        let note = format!(" {below} more rows {} ", canvas.glyphs().more);
        canvas.right(Rect { y: right.bottom() - 1, height: 1, ..right }, 0, &[p(Role::Muted, note)]);
    }
}

/// A row of a table as a sentence, so that nothing of it is cut: `Session key: New key, restart; 90 days`. The line below the
/// head is an empty one.
fn table_row(line: &str) -> Option<String> {
    let cells = line.trim().strip_prefix('|')?;
    let cells: Vec<String> = cells.trim_end_matches('|').split('|').map(|c| words::plain(c.trim())).collect();
    if cells.iter().all(|c| c.chars().all(|c| matches!(c, '-' | ':' | ' '))) {
        return Some(String::new());
    }
    let (first, rest) = cells.split_first()?;
    let rest: Vec<&str> = rest.iter().map(String::as_str).filter(|c| !c.is_empty()).collect();
    Some(if rest.is_empty() { first.clone() } else { format!("{first}: {}", rest.join("; ")) })
}

/// The text as rows: a message and whatever stands in a fence keep their lines, everything else flows.
fn rows_of(text: &str, message: bool, columns: usize) -> Vec<String> {
    let fence = |l: &str| l.trim_start().starts_with("```") || l.trim_start().starts_with("~~~");
    if message {
        let kept = text.lines().filter(|l| !fence(l));
        return kept
            .flat_map(|l| if l.trim().is_empty() { vec![String::new()] } else { wrap(l, columns, 0) })
            .collect();
    }
    let mut out = Vec::new();
    let mut flowing = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if fence(line) {
            out.extend(prose(&flowing, columns));
            flowing.clear();
            fenced = !fenced;
        } else if fenced {
            out.extend(chop(line, columns.saturating_sub(2)).into_iter().map(|l| format!("  {l}")));
        } else if let Some(row) = table_row(line) {
            if !flowing.trim().is_empty() {
                out.extend(prose(&flowing, columns));
            }
            flowing.clear();
            if !row.is_empty() {
                out.extend(wrap(&row, columns, 4));
            }
        } else {
            flowing.push_str(line);
            flowing.push('\n');
        }
    }
    out.extend(prose(&flowing, columns));
    out
}
