//! Which moment to restore to: each suspect with what restoring to just before it would lose.

use ratatui::layout::Rect;

use crate::app::{App, Hit, Shown, words};
use crate::incident::moment;
use crate::model::target::{Candidate, RecoveryTarget};
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, fit, p, wrap};
use super::header;

pub(super) fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App, shown: &mut Shown) {
    let Some(ui) = &app.incident else { return };
    let g = canvas.glyphs();
    let used = header::draw(canvas, area, app, ui);
    let body = Rect { y: area.y + used, height: area.height.saturating_sub(used), ..area };
    let facts = &ui.data.state.facts;
    let inner = Rect { x: body.x + 1, width: body.width.saturating_sub(2), ..body };
    canvas.line(inner, 0, &[p(Role::Accent, "RESTORE TO JUST BEFORE")]);
    let newer_stays = moment::keeps_newer(&ui.data.scenario, &ui.data.state);
    let columns = if newer_stays { "what came after it, and stays" } else { "what is lost by it" };
    canvas.right(inner, 0, &[p(Role::Muted, columns)]);

    // The axis takes its rows from the text below; where neither fits, the list stays.
    let axis = ui.axis.as_ref().zip(ui.axis_moment()).filter(|_| body.height >= 14);
    let rows = if axis.is_some() { super::axis::ROWS + 1 } else { 0 };
    let detail =
        if rows > 0 { body.height.saturating_sub(rows + 4).clamp(4, 12) } else { (body.height / 2).clamp(6, 12) };
    let list = Rect { y: body.y + 1, height: body.height.saturating_sub(1 + detail + rows), ..body };
    let total = facts.candidates.len() + 1;
    shown.list_rows = list.height as usize;
    let selected = ui.moment.selected.min(total - 1);
    let top = super::scroll_to(selected, list.height as usize, total);
    let chosen = facts.chosen.as_ref().map(|(t, ..)| t);
    for i in (top..total).take(list.height as usize) {
        let line = Rect { y: list.y + (i - top) as u16, height: 1, ..list };
        let row = Rect { x: line.x + 2, width: line.width.saturating_sub(3), ..line };
        match facts.candidates.get(i) {
            Some(c) => {
                let loses = vec![p(loss_role(app, c), words::loss_about(&c.loses, ui.about(c)))];
                let used = canvas.right(row, 0, &loses);
                let room = row.width.saturating_sub(used + 2);
                let mark = if Some(&c.target) == chosen { format!("{} ", g.done) } else { "  ".into() };
                let parts = vec![
                    (9, vec![p(Role::Good, mark), p(Role::Text, c.at.hms())]),
                    (5, mark_of(c)),
                    (8, vec![p(Role::Warning, taken(c))]),
                    (7, vec![p(Role::Text, tables(&c.tables))]),
                ];
                canvas.line(Rect { width: room, ..row }, 0, &fit(parts, "  ", room as usize));
            }
            None => {
                canvas.line(row, 0, &[p(Role::Muted, "  another moment: a time, LSN, transaction or restore point")]);
            }
        }
        if i == selected {
            canvas.tint(line, Role::Selected);
            canvas.line(line, 0, &[p(Role::Selected, g.cursor)]);
        }
        shown.hits.push((line.x, line.y, line.width, 1, Hit::Row(i)));
    }

    if let Some((axis, at)) = axis {
        let place = Rect { y: list.bottom(), height: rows, ..body };
        canvas.rule(place, 0, Role::Border, false, &[p(Role::Muted, "over time")], &[]);
        let inside = Rect { y: place.y + 1, height: rows - 1, ..inner };
        shown.axis = inside.width as usize;
        super::axis::draw(canvas, inside, app, ui, axis, at);
    }
    let below = Rect { y: list.bottom() + rows, height: detail, ..body };
    let (title, lines) = match facts.candidates.get(selected) {
        Some(c) => (c.target.stop(false), about(app, c, inner.width as usize)),
        None => {
            let mut lines = vec![vec![p(
                Role::Text,
                "The moment is always the last point before what is named: nothing at it is kept.",
            )]];
            if let Some((earliest, latest, holes)) = &facts.range {
                let at =
                    |t: &Option<crate::model::Time>| t.map_or("not known".into(), |t| format!("{} UTC", t.date_hms()));
                lines.push(vec![p(Role::Muted, "earliest "), p(Role::Text, at(earliest))]);
                lines.push(vec![p(Role::Muted, "latest   "), p(Role::Text, at(latest))]);
                for hole in holes {
                    lines.push(vec![p(Role::Danger, format!("missing  {hole}"))]);
                }
            }
            ("another moment".to_string(), lines)
        }
    };
    canvas.rule(below, 0, Role::Border, false, &[p(Role::Muted, title)], &[]);
    for (i, line) in lines.iter().take(detail.saturating_sub(1) as usize).enumerate() {
        canvas.line(Rect { x: inner.x, y: below.y, width: inner.width, height: detail }, i as u16 + 1, line);
    }
}

/// What the moment goes by: a transaction, or the end of the log.
fn mark_of(c: &Candidate) -> Vec<Piece> {
    match (&c.target, &c.xid) {
        (RecoveryTarget::Latest, _) => vec![p(Role::Muted, "all that is archived")],
        (_, Some(x)) => vec![p(Role::Muted, format!("transaction {x}"))],
        _ => Vec::new(),
    }
}

/// How much it took: rows, or all there was of what is no more.
fn taken(c: &Candidate) -> String {
    match c.rows {
        0 if c.what.starts_with("DROP") => "dropped".into(),
        0 if c.what.starts_with("TRUNCATE") => "emptied".into(),
        rows => words::plural(rows, "row"),
    }
}

/// Tables as people call them: the schema everybody uses is left out.
fn tables(names: &[String]) -> String {
    names.iter().map(|t| t.strip_prefix("public.").unwrap_or(t)).collect::<Vec<_>>().join(", ")
}

fn loss_role(app: &App, c: &Candidate) -> Role {
    // What stays is not held against the objective.
    let given_up = app.incident.as_ref().filter(|i| !moment::keeps_newer(&i.data.scenario, &i.data.state));
    match given_up.and_then(|i| i.data.state.rpo) {
        Some(o) if u128::from(c.loses.window_ms) > o.as_millis() => Role::Danger,
        Some(_) => Role::Good,
        None => Role::Text,
    }
}

fn about(app: &App, c: &Candidate, columns: usize) -> Vec<Vec<Piece>> {
    let end = c.target == RecoveryTarget::Latest;
    let newer_stays = app.incident.as_ref().is_some_and(|i| moment::keeps_newer(&i.data.scenario, &i.data.state));
    let mut out: Vec<Vec<Piece>> = wrap(&c.what, columns, 0).into_iter().map(|l| vec![p(Role::Text, l)]).collect();
    out.push(vec![
        p(Role::Muted, if end { "last commit " } else { "committed " }),
        p(Role::Text, format!("{} UTC, {}", c.at.date_hms(), words::ago(c.at, app.now.time))),
        p(Role::Muted, c.lsn.as_ref().map(|l| format!("  at {l}")).unwrap_or_default()),
    ]);
    out.push(vec![
        p(
            Role::Muted,
            match (end, newer_stays) {
                (_, true) => "only rows come back from it: what was committed after stays: ",
                (true, _) => "restoring all of it loses what is not archived: ",
                (false, _) => "restoring to just before it loses everything committed after: ",
            },
        ),
        p(loss_role(app, c), words::loss_about(&c.loses, app.incident.as_ref().and_then(|ui| ui.about(c)))),
    ]);
    if !c.loses.rows.is_empty() {
        let rows: Vec<String> = c.loses.rows.iter().map(|(t, n)| format!("{t} {}", words::count(*n))).collect();
        out.extend(
            wrap(&format!("rows after it: {}", rows.join(", ")), columns, 2)
                .into_iter()
                .map(|l| vec![p(Role::Text, l)]),
        );
    }
    out
}
