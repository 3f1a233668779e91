//! What the shown run printed: only the rows on the screen are read. Follows the end until the reader scrolls up; then
//! the number of new lines is shown. Lines that are no longer in memory are named with their file, never silently gone.

use ratatui::layout::Rect;

use crate::app::command::Cmd;
use crate::app::{App, IncidentUi, Pane, Shown, passes, words};
use crate::incident::Run;
use crate::model::CleanText;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, p, width};

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, ui: &IncidentUi, run: &Run, shown: &mut Shown) {
    let ascii = canvas.look.ascii;
    let place = &ui.output;
    let focus = ui.steps.pane == Pane::Output;
    let output = ui.data.outputs.get(&run.id);
    let rows = area.height.saturating_sub(1) as usize;
    shown.output_rows = rows;
    let role = if focus { Role::Accent } else { Role::Muted };
    let mark = if focus { format!("{} ", canvas.glyphs().cursor) } else { String::new() };
    let mut title: Vec<Piece> = vec![p(role, format!("{mark}output of run {}", run.id))];
    if !place.search.is_empty() {
        title.push(p(Role::Warning, format!(" /{}", place.search)));
    }
    let Some(output) = output else {
        canvas.rule(area, 0, Role::Border, false, &title, &[]);
        let text = if run.is_open() { "waiting for its first line" } else { "it printed nothing that is kept here" };
        canvas.line(Rect { x: area.x + 1, ..area }, 1, &[p(Role::Muted, text)]);
        return;
    };
    let lines = &output.lines;
    let (first, total) = (lines.first(), lines.total());
    let last_top = total.saturating_sub(rows as u64).max(first);
    let top = if place.follow { last_top } else { place.top.clamp(first, last_top) };
    let body = Rect { x: area.x + 1, y: area.y + 1, width: area.width.saturating_sub(1), height: rows as u16 };
    let earlier = top == first && first > 0 && rows > 1;
    // With that remark on top one row less is left: at the end the last line must still be in sight.
    let from = if earlier && place.follow { top + 1 } else { top };
    let row = u16::from(earlier);
    let seen = lines.read(from, rows - row as usize);
    let mut right: Vec<Piece> = sideways(canvas, place.column, &seen, body.width as usize);
    if !right.is_empty() {
        right.push(p(Role::Muted, "  "));
    }
    if place.follow {
        let word = if run.is_open() { "following".to_string() } else { words::plural(total, "line") };
        right.push(p(Role::Muted, word));
    } else {
        let new = total.saturating_sub(place.left_at);
        let key = canvas
            .look
            .keymap
            .keys(Cmd::Last)
            .last()
            .map(|k| k.iter().map(|k| k.shown(ascii)).collect::<Vec<_>>().join(" "));
        let key = key.unwrap_or_default();
        let what = if new > 0 { words::plural(new, "new line") } else { format!("line {}", words::count(top + 1)) };
        right.extend([
            p(if new > 0 { Role::Warning } else { Role::Muted }, what),
            p(Role::Muted, " · ".replace('·', canvas.glyphs().dot)),
            p(Role::Code, key),
        ]);
    }
    canvas.rule(area, 0, Role::Border, false, &title, &right);
    if earlier {
        let text =
            format!("{} earlier {} in {}", words::count(first), if first == 1 { "line" } else { "lines" }, output.file);
        canvas.line(body, 0, &[p(Role::Warning, text)]);
    }
    for (i, line) in seen.iter().enumerate() {
        let number = from + i as u64;
        let text: String = if place.column > 0 {
            line.as_str().chars().skip(place.column).collect()
        } else {
            line.as_str().to_string()
        };
        let hit = !place.search.is_empty() && passes(&place.search, line.as_str());
        let role = if hit { Role::Accent } else { Role::Text };
        let at = row + i as u16;
        canvas.line(body, at, &[p(role, text)]);
        if place.hit == Some(number) {
            let row_area = Rect { x: area.x, y: body.y + at, width: area.width, height: 1 };
            canvas.tint(row_area, Role::Selected);
            canvas.line(row_area, 0, &[p(Role::Selected, canvas.glyphs().cursor)]);
        }
    }
    let _ = app;
}

/// How to see what a row on the screen has no room for; nothing when all of it is there.
fn sideways(canvas: &Canvas<'_>, column: usize, seen: &[CleanText], room: usize) -> Vec<Piece> {
    let key = |cmd| canvas.look.keymap.shown(cmd, canvas.look.ascii);
    let mut out = Vec::new();
    if column > 0 {
        out.extend([p(Role::Code, key(Cmd::Left)), p(Role::Muted, " back ")]);
    }
    let rest = |line: &CleanText| width(line.as_str().chars().skip(column).collect::<String>().as_str()) > room;
    if seen.iter().any(rest) {
        out.extend([p(Role::Code, key(Cmd::Right)), p(Role::Muted, " more")]);
    }
    out
}
