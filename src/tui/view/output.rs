//! What the shown run printed: only the rows on the screen are read. Follows the end until the reader scrolls up; then
//! the number of new lines is shown. Lines that are no longer in memory are named with their file, never silently gone.

use ratatui::layout::Rect;

use crate::app::command::Cmd;
use crate::app::data::Lines;
use crate::app::{IncidentUi, Pane, Shown, passes, words};
use crate::incident::Run;
use crate::model::CleanText;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, fit, fold, p, pieces_width, width};

/// Rows while something runs, with the title: what comes next has a place.
const OPEN_ROWS: u16 = 5;

/// Rows it would like to have, its title included; never more than there are.
pub(super) fn measure(ui: &IncidentUi, run: &Run, area: Rect) -> u16 {
    let least = if run.is_open() { OPEN_ROWS } else { 2 };
    let Some(output) = ui.data.outputs.get(&run.id) else { return least };
    let room = area.width.saturating_sub(1) as usize;
    let most = area.height as usize;
    let from = output.lines.total().saturating_sub(most as u64).max(output.lines.first());
    let lines = output.lines.read(from, most);
    let rows: usize = lines.iter().map(|l| Laid::of(l.as_str(), ui.output.column, room, most).rows.len()).sum();
    u16::try_from(rows.min(most) + 1).unwrap_or(area.height).clamp(least, area.height.max(least))
}

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, ui: &IncidentUi, run: &Run, shown: &mut Shown) {
    let ascii = canvas.look.ascii;
    let place = &ui.output;
    let focus = ui.steps.pane == Pane::Output;
    let output = ui.data.outputs.get(&run.id);
    let rows = area.height.saturating_sub(1) as usize;
    shown.output_rows = rows;
    let role = if focus { Role::Accent } else { Role::Muted };
    let mark = if focus { format!("{} ", canvas.glyphs().cursor) } else { String::new() };
    let of = format!("output of {}", words::ran(run));
    let mut title: Vec<Piece> = vec![p(role, format!("{mark}{of}"))];
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
    let room = area.width.saturating_sub(1) as usize;
    let laid = |line: &CleanText| Laid::of(line.as_str(), place.column, room, rows);
    let last_top = last_top(lines.as_ref(), rows, &laid);
    shown.output_last = last_top;
    let top = if place.follow { last_top } else { place.top.clamp(first, last_top) };
    let body = Rect { x: area.x + 1, y: area.y + 1, width: room as u16, height: rows as u16 };
    let earlier = top == first && first > 0 && rows > 1;
    // With that remark on top one row less is left: at the end the last line must still be in sight.
    let from = if earlier && place.follow { top + 1 } else { top };
    let row = u16::from(earlier);
    let mut free = rows.saturating_sub(row as usize);
    let mut seen: Vec<Laid> = Vec::new();
    for line in lines.read(from, free).iter().map(&laid) {
        if free == 0 {
            break;
        }
        free = free.saturating_sub(line.rows.len());
        seen.push(line);
    }
    shown.output_rows = seen.len();
    let key = |cmd| canvas.look.keymap.shown(cmd, ascii);
    let mut parts: Vec<(u8, Vec<Piece>)> = Vec::new();
    let way = sideways(canvas, place.column, seen.iter().any(|l| l.cut));
    let used = width(&of) + 7 + 2 * usize::from(focus);
    let room = (area.width as usize).saturating_sub(used);
    let whole = top == first && first == 0 && seen.len() as u64 == total;
    if whole || (place.follow && !focus) {
        let word = if run.is_open() { "following".to_string() } else { words::plural(total, "line") };
        parts.push((6, vec![p(Role::Muted, word)]));
    } else {
        let new = total.saturating_sub(place.left_at);
        let last = canvas.look.keymap.keys(Cmd::Last).last();
        let last = last.map(|k| k.iter().map(|k| k.shown(ascii)).collect::<Vec<_>>().join(" ")).unwrap_or_default();
        let to = (from + seen.len() as u64).max(from + 1);
        let all = words::count(total);
        // Beside the key that shows more there is room for how much there is.
        let here = format!("{}{}{}", words::count(from + 1), canvas.glyphs().dash, words::count(to));
        let beside = way.as_ref().map_or(0, |way| pieces_width(way) + 3);
        let span = || match !focus && top == first {
            true => format!("{} of {all}", words::count(to - top)),
            // What is followed ends with the last line there is.
            false if run.is_open() && place.follow => {
                format!("{here}, following")
            }
            false if width(&here) + 4 + width(&all) + beside > room => format!("{here}/{all}"),
            false => format!("{here} of {all}"),
        };
        let new = if place.follow { 0 } else { new };
        let what = if new > 0 { words::plural(new, "new line") } else { span() };
        let role = if new > 0 { Role::Warning } else { Role::Muted };
        let mut said = vec![p(role, what)];
        if (focus || new > 0) && to < total {
            said.extend([p(Role::Muted, ": "), p(Role::Code, last)]);
        }
        parts.push((9, said));
    }
    parts.extend(way.map(|way| (8, way)));
    // The pane is larger while it has the focus.
    if !focus && (first < top || top + (seen.len() as u64) < total) {
        parts.push((7, vec![p(Role::Code, key(Cmd::Pane3)), p(Role::Muted, " enlarges")]));
    }
    let right = fit(parts, &format!(" {} ", canvas.glyphs().dot), room);
    canvas.rule(area, 0, Role::Border, false, &title, &right);
    if earlier {
        let text =
            format!("{} earlier {} in {}", words::count(first), if first == 1 { "line" } else { "lines" }, output.file);
        canvas.line(body, 0, &[p(Role::Warning, text)]);
    }
    let mut at = row;
    for (number, line) in (from..).zip(&seen) {
        let hit = !place.search.is_empty() && passes(&place.search, &line.whole);
        let role = if hit { Role::Accent } else { Role::Text };
        for (n, text) in line.rows.iter().enumerate() {
            canvas.line(body, at, &[p(role, text.clone())]);
            if place.hit == Some(number) && n == 0 {
                let row_area = Rect { x: area.x, y: body.y + at, width: area.width, height: 1 };
                canvas.tint(row_area, Role::Selected);
                canvas.line(row_area, 0, &[p(Role::Selected, canvas.glyphs().cursor)]);
            }
            at += 1;
        }
    }
}

/// A line as rows.
struct Laid {
    whole: String,
    rows: Vec<String>,
    /// Some of it has no room.
    cut: bool,
}

impl Laid {
    /// A sentence, a path or a digest goes on in further rows, so that nothing of it is lost; what stands in columns stays in one
    /// row, and so does everything once the reader moved sideways.
    fn of(line: &str, column: usize, room: usize, most: usize) -> Self {
        let whole = line.to_string();
        if column > 0 {
            let rest: String = line.chars().skip(column).collect();
            let cut = width(&rest) > room;
            return Self { whole, rows: vec![rest], cut };
        }
        let gaps = line.split("  ").filter(|part| !part.is_empty()).count();
        let columns = gaps > 3 || line.contains(['|', '│', '\t']);
        if width(line) <= room || columns || room < 8 {
            let cut = width(line) > room;
            return Self { rows: vec![whole.clone()], whole, cut };
        }
        let mut rows = fold(line, room - 2);
        let cut = rows.len() > most;
        if cut {
            // Too wide for its row, so that it ends in the mark for more.
            let rest = rows.split_off(most.max(1)).concat();
            rows.iter_mut().last().into_iter().for_each(|last| last.push_str(&rest));
        }
        rows.iter_mut().skip(1).for_each(|row| row.insert_str(0, "  "));
        Self { whole, rows, cut }
    }
}

/// The first line from which all the rest has room.
fn last_top(lines: &dyn Lines, rows: usize, laid: &dyn Fn(&CleanText) -> Laid) -> u64 {
    let (first, total) = (lines.first(), lines.total());
    let from = total.saturating_sub(rows as u64).max(first);
    let (mut left, mut top) = (rows, total);
    for line in lines.read(from, rows).iter().rev() {
        let needs = laid(line).rows.len();
        if needs > left {
            break;
        }
        left -= needs;
        top -= 1;
    }
    top.min(total.saturating_sub(1)).max(first)
}

/// How to see what a row on the screen has no room for; nothing when all of it is there.
fn sideways(canvas: &Canvas<'_>, column: usize, cut: bool) -> Option<Vec<Piece>> {
    let key = |cmd| canvas.look.keymap.shown(cmd, canvas.look.ascii);
    let keys = match (column > 0, cut) {
        (false, false) => return None,
        (true, false) => key(Cmd::Left),
        (false, true) => key(Cmd::Right),
        (true, true) => format!("{}{}", key(Cmd::Left), key(Cmd::Right)),
    };
    Some(vec![p(Role::Code, keys), p(Role::Muted, " sideways")])
}
