//! The fields of a dialog, and the options of a command that is changed.

use crate::action::edited;
use crate::app::App;
use crate::app::dialog::{Dialog, Field};
use crate::model::StepId;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, chop, p, width, wrap};

/// Rows of a text field at most.
const FIELD_ROWS: usize = 4;

/// The fields as lines, and whether each has the focus.
pub(super) fn fields(canvas: &Canvas<'_>, dialog: &Dialog, columns: usize) -> Vec<(Vec<Piece>, bool)> {
    let g = canvas.glyphs();
    let widest = dialog.fields.iter().map(|f| match f {
        Field::Text { label, .. } | Field::Choice { label, .. } => width(label),
    });
    let label_width = widest.max().unwrap_or(0);
    let mut out = Vec::new();
    for (i, field) in dialog.fields.iter().enumerate() {
        let focused = dialog.focus == i;
        let role = if focused { Role::Accent } else { Role::Muted };
        let name = |label: &str| {
            if label_width == 0 {
                String::new()
            } else {
                format!("{label}{}  ", " ".repeat(label_width - width(label)))
            }
        };
        match field {
            Field::Text { label, hint, line, hidden } => {
                let room = columns.saturating_sub(label_width + 3).max(1);
                let dots = hidden.then(|| if canvas.look.ascii { "*" } else { "•" }.repeat(graphemes(line.text())));
                let text = dots.as_deref().unwrap_or(line.text());
                let rows = rows_of(text, focused.then_some(line.cursor()), room);
                let more = canvas.glyphs().more;
                for (n, row) in rows.iter().enumerate() {
                    let lead = if n == 0 { name(label) } else { " ".repeat(width(&name(label))) };
                    let mut pieces = vec![p(role, lead), p(Role::Code, row.before.clone())];
                    if row.caret {
                        pieces.push(p(Role::Accent, g.caret));
                    }
                    pieces.push(p(Role::Code, row.after.clone()));
                    if row.cut {
                        pieces.push(p(Role::Muted, more));
                    }
                    if line.text().is_empty() {
                        pieces.push(p(Role::Muted, hint.clone()));
                    }
                    out.push((pieces, focused && n == 0));
                }
            }
            // Each choice below the one before, whole: words, not colours, say which is taken.
            Field::Choice { label, options, at } => {
                for (n, (word, about)) in options.iter().enumerate() {
                    let lead = if n == 0 { name(label) } else { " ".repeat(width(&name(label))) };
                    let mark = if n == *at { "(•) " } else { "( ) " };
                    let mark = if canvas.look.ascii { mark.replace('•', "*") } else { mark.to_string() };
                    let (w, a) = if n == *at { (Role::Accent, Role::Text) } else { (Role::Muted, Role::Muted) };
                    let taken = format!("{mark}{word}");
                    let used = width(&lead) + width(&taken) + 2;
                    let mut rows = wrap(about, columns.saturating_sub(used).max(12), 0).into_iter();
                    let first = rows.next().map(|row| format!("  {row}")).unwrap_or_default();
                    out.push((vec![p(role, lead), p(w, taken), p(a, first)], focused && n == *at));
                    out.extend(rows.map(|row| (vec![p(a, format!("{}{row}", " ".repeat(used)))], false)));
                }
            }
        }
    }
    out
}

/// The part of the fields that has room: around what has the focus, with all rows of the choice that is taken.
pub(super) fn window(fields: Vec<(Vec<Piece>, bool)>, rows: usize) -> (Vec<(Vec<Piece>, bool)>, usize, usize) {
    let all = fields.len();
    if all <= rows {
        return (fields, 0, 0);
    }
    let at = fields.iter().position(|(_, focused)| *focused).unwrap_or(0);
    let from = (at + 1 + rows / 2).saturating_sub(rows).min(all - rows);
    let shown: Vec<_> = fields.into_iter().skip(from).take(rows).collect();
    (shown, from, all - from - rows)
}

fn graphemes(text: &str) -> usize {
    use unicode_segmentation::UnicodeSegmentation;
    text.graphemes(true).count()
}

/// A row of a text field.
#[derive(Debug, Default)]
struct Row {
    before: String,
    caret: bool,
    after: String,
    /// The text goes on, and there is no row for it.
    cut: bool,
}

/// A text over as many rows as it needs, [`FIELD_ROWS`] at most: those around the cursor, or the first ones where it is not. What
/// was filled in beforehand is read from its beginning.
fn rows_of(text: &str, cursor: Option<usize>, room: usize) -> Vec<Row> {
    use unicode_segmentation::UnicodeSegmentation;
    let mut rows: Vec<Row> = Vec::new();
    let mut seen = 0;
    let all = chop(text, room);
    let last = all.len() - 1;
    for (n, row) in all.into_iter().enumerate() {
        let graphemes: Vec<&str> = row.graphemes(true).collect();
        // At the seam of two rows the cursor stands at the beginning of the second.
        let here = |c: usize| (seen..seen + graphemes.len()).contains(&c) || (n == last && c >= seen);
        let at = cursor.filter(|c| here(*c)).map(|c| (c - seen).min(graphemes.len()));
        seen += graphemes.len();
        rows.push(match at {
            Some(at) => {
                Row { before: graphemes[..at].concat(), caret: true, after: graphemes[at..].concat(), cut: false }
            }
            None => Row { before: row, ..Row::default() },
        });
    }
    let caret = rows.iter().position(|r| r.caret).unwrap_or(0);
    let from = (caret + 1).saturating_sub(FIELD_ROWS);
    let to = (from + FIELD_ROWS).min(rows.len());
    let cut = to < rows.len();
    let mut shown: Vec<Row> = rows.drain(from..to).collect();
    if let Some(last) = shown.last_mut().filter(|_| cut) {
        last.cut = true;
    }
    shown
}

/// The options that a command of ours knows.
pub(super) fn options(lines: &mut Vec<Vec<Piece>>, app: &App, (step, line): (&StepId, u32), columns: usize) {
    let Some(ui) = &app.incident else { return };
    let found = ui.data.scenario.steps.iter().find(|s| s.id == *step);
    let Some(block) = found.and_then(|s| s.blocks.iter().find(|b| b.line == line)) else { return };
    let all = edited::options(block, &app.known(ui), &app.env.registry);
    if all.is_empty() {
        return lines.push(vec![p(Role::Muted, "it has no options")]);
    }
    lines.push(vec![p(Role::Muted, "its options:")]);
    let widest = all.iter().map(|(written, _)| width(written)).max().unwrap_or(0).min(columns / 3);
    for (written, about) in &all {
        let pad = widest.saturating_sub(width(written));
        let lead = format!("  {written}{}  ", " ".repeat(pad));
        let rows = wrap(about, columns.saturating_sub(widest + 4).max(12), 0);
        let mut rows = rows.into_iter();
        let first = if width(written) > widest { String::new() } else { rows.next().unwrap_or_default() };
        lines.push(vec![p(Role::Code, lead), p(Role::Text, first)]);
        lines.extend(rows.map(|row| vec![p(Role::Text, format!("{}{row}", " ".repeat(widest + 4)))]));
    }
}
