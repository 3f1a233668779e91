//! `?` and `:`: commands with their keys, narrowed by typing; those that are not possible say why.

use ratatui::layout::Rect;

use crate::app::allowed::why_not;
use crate::app::command::Danger;
use crate::app::dialog::{Ask, Dialog, Field};
use crate::app::update::dialog::palette_rows;
use crate::app::{App, Shown};
use crate::tui::theme::Role;

use super::canvas::{Canvas, p, width, wrap};

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, dialog: &Dialog, shown: &mut Shown) {
    let g = canvas.glyphs();
    let ascii = canvas.look.ascii;
    let columns = area.width.saturating_sub(4).min(96);
    let height = area.height.saturating_sub(2).min(30);
    let at =
        Rect { x: area.x + (area.width - columns) / 2, y: area.y + (area.height - height) / 2, width: columns, height };
    let title = if dialog.ask == Ask::Help { "what can be done here" } else { "all commands" };
    canvas.frame(at, Role::Accent, &[p(Role::Accent, title)]);
    let inner =
        Rect { x: at.x + 2, y: at.y + 1, width: at.width.saturating_sub(4), height: at.height.saturating_sub(2) };
    if let Some(Field::Text { hint, line, .. }) = dialog.fields.first() {
        let mut pieces =
            vec![p(Role::Accent, format!("{} ", g.cursor)), p(Role::Code, line.text()), p(Role::Accent, g.caret)];
        if line.text().is_empty() {
            pieces.push(p(Role::Muted, hint.clone()));
        }
        canvas.line(inner, 0, &pieces);
    }
    let rows = palette_rows(app, dialog);
    let about = 3u16;
    let list = Rect { y: inner.y + 1, height: inner.height.saturating_sub(1 + about), ..inner };
    shown.dialog = (rows.len(), list.height as usize);
    let selected = dialog.selected.min(rows.len().saturating_sub(1));
    let top = super::scroll_to(selected, list.height as usize, rows.len());
    if rows.is_empty() {
        canvas.line(list, 0, &[p(Role::Muted, "no command matches")]);
    }
    for (i, command) in rows.iter().enumerate().skip(top).take(list.height as usize) {
        let line = Rect { y: list.y + (i - top) as u16, height: 1, ..list };
        let keys: Vec<String> = canvas
            .look
            .keymap
            .keys(command.id)
            .iter()
            .map(|s| s.iter().map(|k| k.shown(ascii)).collect::<Vec<_>>().join(" "))
            .collect();
        // Long ones take of the name's room, so that what a command does always begins in one column.
        let pad = |s: &str, n: usize| format!("{s}{}", " ".repeat(n.saturating_sub(width(s))));
        let keys = pad(&format!("{} ", keys.join(" or ")), 14);
        let possible = why_not(command.id, app).is_none();
        let text = if possible { Role::Text } else { Role::Muted };
        let mark = match (possible, command.danger) {
            (false, _) => p(Role::Muted, "not now"),
            (true, Danger::Acts) => p(Role::Danger, command.danger.word()),
            (true, d) => p(Role::Muted, d.word()),
        };
        let used = canvas.right(line, 0, &[mark]);
        canvas.line(
            Rect { x: line.x + 2, width: line.width.saturating_sub(used + 3), ..line },
            0,
            &[
                p(Role::Code, keys.clone()),
                p(
                    if possible { Role::Accent } else { Role::Muted },
                    pad(command.name, 31usize.saturating_sub(width(&keys))),
                ),
                p(text, command.doc),
            ],
        );
        if i == selected {
            canvas.tint(line, Role::Selected);
            canvas.line(line, 0, &[p(Role::Selected, g.cursor)]);
        }
    }
    let below = Rect { y: list.bottom(), height: about, ..inner };
    canvas.rule(below, 0, Role::Border, false, &[], &[]);
    if let Some(command) = rows.get(selected) {
        let (role, text) = match dialog.problem.clone().or_else(|| why_not(command.id, app)) {
            Some(why) => (Role::Warning, format!("not now: {why}")),
            None => (Role::Text, format!("{}.", command.doc)),
        };
        for (i, l) in wrap(&text, below.width as usize, 0).into_iter().take(2).enumerate() {
            canvas.line(below, i as u16 + 1, &[p(role, l)]);
        }
    }
}
