//! The time axis below the moments: commits per interval, what lies on it, and what the moment under the cursor costs.

use ratatui::layout::Rect;

use crate::app::{App, IncidentUi, words};
use crate::incident::moment;
use crate::model::{Time, format_clock};
use crate::recovery::axis::Axis;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, fit, p};

/// Rows it takes.
pub const ROWS: u16 = 5;

const BLOCKS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const ASCII: [&str; 9] = [" ", ".", ".", ":", "-", "=", "+", "*", "#"];

/// Draws it; the cursor stands at `at`.
pub fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, ui: &IncidentUi, axis: &Axis, at: Time) {
    let Some((first, last)) = axis.span else {
        let why = "nothing is archived yet that could be shown over time";
        canvas.line(area, 0, &[p(Role::Muted, why)]);
        return;
    };
    let columns = area.width as usize;
    let cursor = axis.column(at, columns);
    let bars = axis.bars(columns);
    let most = bars.iter().copied().max().unwrap_or(0).max(1);
    let blocks = if app.settings.ascii { ASCII } else { BLOCKS };
    let height = |n: u64| if n == 0 { 0 } else { 1 + (n.saturating_sub(1) * 8 / most).min(7) as usize };
    let bar = |(i, n): (usize, &u64)| {
        let role = if Some(i) == cursor { Role::Selected } else { Role::Info };
        p(role, blocks.get(height(*n)).copied().unwrap_or(" "))
    };
    canvas.line(area, 0, &bars.iter().enumerate().map(bar).collect::<Vec<_>>());
    canvas.line(area, 1, &marks(ui, axis, columns, cursor));
    // The date stands where it changes what is read: at both ends when they differ.
    let day = |t: Time| t.date_hms().get(..10).unwrap_or_default().to_string();
    let (left, right) = match day(first) == day(last) {
        true => (first.hms(), last.hms()),
        false => (first.date_hms(), last.date_hms()),
    };
    canvas.line(
        area,
        2,
        &[p(Role::Muted, left), p(Role::Muted, "   B backup  ! suspect  x no log  I impact  D declared")],
    );
    canvas.right(area, 2, &[p(Role::Muted, right)]);
    for (row, line) in costs(ui, axis, at, columns).into_iter().enumerate() {
        canvas.line(area, 3 + row as u16, &line);
    }
}

/// What lies on the axis; of two things in a column the graver one shows, and the cursor above all.
fn marks(ui: &IncidentUi, axis: &Axis, columns: usize, cursor: Option<usize>) -> Vec<Piece> {
    let mut row: Vec<(Role, &str)> = vec![(Role::Muted, " "); columns];
    let mut put = |at: Option<usize>, role: Role, text: &'static str| {
        if let Some(cell) = at.and_then(|i| row.get_mut(i)) {
            *cell = (role, text);
        }
    };
    let state = &ui.data.state;
    for b in &axis.backups {
        put(axis.column(b.at, columns), Role::Good, "B");
    }
    if let Some(d) = &state.declared {
        put(axis.column(d.at, columns), Role::Accent, "D");
    }
    if let Some(i) = &state.impact {
        put(axis.column(i.at, columns), Role::Accent, "I");
    }
    for (from, to) in &axis.gaps {
        if let (Some(a), Some(b)) = (axis.column(*from, columns), axis.column(*to, columns)) {
            (a..=b).for_each(|i| put(Some(i), Role::Danger, "x"));
        }
    }
    for s in axis.suspects.iter().chain(state.facts.candidates.iter().map(|c| &c.at)) {
        put(axis.column(*s, columns), Role::Danger, "!");
    }
    put(cursor, Role::Selected, "^");
    row.into_iter().map(|(role, text)| p(role, text)).collect()
}

fn costs(ui: &IncidentUi, axis: &Axis, at: Time, room: usize) -> Vec<Vec<Piece>> {
    let cost = axis.cost(at);
    let rpo = ui.data.state.rpo;
    let newer_stays = moment::keeps_newer(&ui.data.scenario, &ui.data.state);
    let role = match rpo.filter(|_| !newer_stays) {
        Some(o) if cost.window > o => Role::Danger,
        Some(_) => Role::Good,
        None => Role::Text,
    };
    // Of the moment of a suspect more is known than the log's index tells.
    let suspect = ui.data.state.facts.candidates.get(ui.moment.selected).filter(|c| c.at == at);
    let after = match suspect {
        Some(c) => words::loss_about(&c.loses, ui.about(c)),
        None => format!("{}, about {}", format_clock(cost.window), words::plural(cost.transactions, "transaction")),
    };
    let lost = match newer_stays {
        true => format!("after it stay {after}"),
        false => format!("loses {after}"),
    };
    let mut parts = Vec::new();
    match &cost.takes {
        Some(t) => {
            let measured = if t.runs == 0 { ", assumed" } else { "" };
            parts.push((8, vec![p(role, lost)]));
            parts.push((7, vec![p(Role::Text, format!("takes about {}{measured}", format_clock(t.total())))]));
        }
        // What it would lose is of no interest then.
        None => {
            let why = cost.unreachable.unwrap_or("not known");
            parts.push((10, vec![p(Role::Danger, format!("cannot be reached: {why}"))]));
        }
    }
    let today = axis.span.is_some_and(|(first, last)| first.date_hms().get(..10) == last.date_hms().get(..10));
    let clock = if today { at.hms().to_string() } else { at.date_hms() };
    let when = vec![p(Role::Muted, "before "), p(Role::Text, format!("{clock} UTC"))];
    parts.insert(0, (9, when));
    let line = fit(parts, "  ", room);
    let others = ui.data.state.facts.source.as_ref().map(|(id, _)| id.other_databases.clone()).unwrap_or_default();
    let mut second = Vec::new();
    if others.is_empty() || newer_stays {
        second.push((8, vec![p(Role::Muted, "left and right move along the axis")]));
    } else {
        second.push((8, vec![p(Role::Warning, format!("goes back as well: {}", others.join(", ")))]));
    }
    if axis.unread > 0 {
        second.push((7, vec![p(Role::Muted, format!("{} not read yet", words::plural(axis.unread, "segment")))]));
    }
    vec![line, fit(second, "  ", room)]
}
