//! All messages of this session: one that was missed is still here.

use ratatui::layout::Rect;

use crate::app::{App, Hit, Shown, Tone};
use crate::tui::theme::Role;

use super::canvas::{Canvas, p, wrap};

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, shown: &mut Shown) {
    let g = canvas.glyphs();
    canvas.line(area, 0, &[p(Role::Accent, " MESSAGES of this session")]);
    canvas.rule(area, 1, Role::Border, false, &[], &[]);
    let detail = 4u16;
    let list = Rect { y: area.y + 2, height: area.height.saturating_sub(2 + detail), ..area };
    shown.list_rows = list.height as usize;
    if app.messages.is_empty() {
        canvas.line(list, 0, &[p(Role::Muted, "  nothing was said yet")]);
    }
    let selected = app.messages_list.selected.min(app.messages.len().saturating_sub(1));
    let top = super::scroll_to(selected, list.height as usize, app.messages.len());
    for (i, m) in app.messages.iter().enumerate().skip(top).take(list.height as usize) {
        let line = Rect { y: list.y + (i - top) as u16, height: 1, ..list };
        let (mark, role) = match m.tone {
            Tone::Good => (g.done, Role::Good),
            Tone::Info => (g.dot, Role::Info),
            Tone::Bad => (g.failed, Role::Danger),
        };
        let pieces =
            [p(Role::Muted, format!("  {} ", m.at.hms())), p(role, format!("{mark} ")), p(Role::Text, m.text.clone())];
        canvas.line(line, 0, &pieces);
        if i == selected {
            canvas.tint(line, Role::Selected);
            canvas.line(line, 0, &[p(Role::Selected, g.cursor)]);
        }
        shown.hits.push((line.x, line.y, line.width, 1, Hit::Row(i)));
    }
    let below = Rect { y: list.bottom(), height: detail, ..area };
    canvas.rule(below, 0, Role::Border, false, &[], &[]);
    if let Some(m) = app.messages.get(selected) {
        for (i, l) in wrap(&m.text, area.width.saturating_sub(2) as usize, 2).into_iter().take(3).enumerate() {
            canvas.line(Rect { x: area.x + 1, width: area.width - 1, ..below }, i as u16 + 1, &[p(Role::Text, l)]);
        }
    }
}
