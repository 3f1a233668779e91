//! A drill whose sandbox is being made: what is done so far, and that the incident opens by itself.

use ratatui::layout::Rect;

use crate::app::App;
use crate::model::format_clock;
use crate::tui::theme::Role;

use super::canvas::{Canvas, p, wrap};

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let Some(waiting) = &app.waiting else { return };
    let g = canvas.glyphs();
    canvas.line(area, 0, &[p(Role::Drill, " DRILL "), p(Role::Accent, format!(" {}", waiting.title))]);
    let since = format_clock(app.now.time.since(waiting.since));
    let right = Rect { width: area.width.saturating_sub(1), ..area };
    canvas.right(right, 0, &[p(Role::Muted, format!("being prepared for {since}"))]);
    canvas.rule(area, 1, Role::Drill, false, &[], &[]);
    let inner = Rect {
        x: area.x + 2,
        y: area.y + 3,
        width: area.width.saturating_sub(4),
        height: area.height.saturating_sub(3),
    };
    let text = "Nothing counts before the alarm. The incident opens by itself when the service complains; keys pressed in \
                its first second are not taken. q leaves: what was made so far is removed.";
    let words = wrap(text, inner.width as usize, 0);
    let room = (inner.height as usize).saturating_sub(words.len() + 1);
    let mut lines = Vec::new();
    for (i, (at, text)) in waiting.said.iter().enumerate() {
        let until = waiting.said.get(i + 1).map(|(t, _)| *t);
        let (mark, role) = if until.is_some() { (g.done, Role::Good) } else { (g.active, Role::Info) };
        let took = format_clock(until.unwrap_or(app.now.time).since(*at));
        for (n, line) in wrap(text, inner.width.saturating_sub(10) as usize, 0).into_iter().enumerate() {
            let lead = if n == 0 { format!("{mark} ") } else { "  ".into() };
            lines.push((vec![p(role, lead), p(Role::Text, line)], (n == 0).then(|| took.clone())));
        }
    }
    let hidden = lines.len().saturating_sub(room);
    let mut row = 0;
    for (pieces, took) in lines.into_iter().skip(hidden) {
        canvas.line(inner, row, &pieces);
        if let Some(took) = took {
            canvas.right(inner, row, &[p(Role::Muted, took)]);
        }
        row += 1;
    }
    for (i, line) in words.into_iter().enumerate() {
        canvas.line(inner, row + 1 + i as u16, &[p(Role::Muted, line)]);
    }
}
