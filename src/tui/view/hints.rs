//! The foot of every screen: the last message, the one obvious next thing, the keys that are valid now.

use ratatui::layout::Rect;

use crate::app::allowed::why_not;
use crate::app::command::{Cmd, Context};
use crate::app::dialog::{Ask, Dialog, Outgoing};
use crate::app::next::Next;
use crate::app::update::back_word;
use crate::app::words::plural;
use crate::app::{App, Screen, Tone, next};
use crate::model::event::Kind;
use crate::tui::keymap::Keymap;
use crate::tui::theme::Role;

use super::canvas::{Canvas, Piece, p, pieces_width, width};

/// Draws the three rows.
pub fn draw(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    message(canvas, area, app);
    obvious(canvas, area, app);
    keys(canvas, area, app);
}

/// The rule, with the last message in it.
fn message(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let g = canvas.glyphs();
    let (role, heavy) = super::header::line_of(app);
    let title: Vec<Piece> = match (app.toast(), &app.busy) {
        (Some(m), _) => {
            let (mark, tone) = match m.tone {
                Tone::Good => (g.done, Role::Good),
                Tone::Info => (g.dot, Role::Info),
                Tone::Bad => (g.failed, Role::Danger),
            };
            vec![p(tone, format!("{mark} {}", with_end(&m.text, (area.width as usize).saturating_sub(8), g.more)))]
        }
        (None, Some(what)) => vec![p(Role::Info, format!("{} {what}", g.active))],
        (None, None) => vec![],
    };
    canvas.rule(area, 0, role, heavy, &title, &[]);
}

/// A text that has no room, with the end of the path it names: where a file is stands there, and the way to it is known.
fn with_end(text: &str, room: usize, more: &str) -> String {
    let over = width(text).saturating_sub(room);
    let path = text.split(' ').filter(|w| w.starts_with('/') && w.matches('/').count() > 2).max_by_key(|w| w.len());
    let Some(path) = path.filter(|p| over > 0 && width(p) > over + 12) else { return text.into() };
    let mut gone = 0;
    let end: String = path
        .chars()
        .skip_while(|c| {
            gone += width(c.encode_utf8(&mut [0; 4]));
            gone <= over + width(more)
        })
        .collect();
    text.replacen(path, &format!("{more}{end}"), 1)
}

fn obvious(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let g = canvas.glyphs();
    if let Some(line) = &app.typing {
        let what = if app.screen() == Screen::Incident { "search the output" } else { "show only lines with" };
        canvas.line(
            area,
            1,
            &[p(Role::Accent, format!(" {what}: ")), p(Role::Code, line.text()), p(Role::Accent, g.caret)],
        );
        return;
    }
    let next = match app.dialogs.last() {
        Some(dialog) => in_dialog(app, dialog),
        None => next::obvious(app),
    };
    let mut pieces = vec![p(Role::Accent, format!(" {} next ", g.arrow))];
    if let Some(cmd) = next.cmd {
        let key = canvas.look.keymap.shown(cmd, canvas.look.ascii);
        pieces.push(p(Role::Code, format!("{key} ")));
    }
    pieces.push(p(Role::Text, next.text));
    canvas.line(area, 1, &pieces);
}

/// The next thing in a dialog: what answers it, and that leaving it changes nothing.
fn in_dialog(app: &App, dialog: &Dialog) -> Next {
    let blanks = blanks_left(app);
    let does = super::dialog::yes_word(&dialog.ask);
    let (cmd, text) = match (dialog.context(), &dialog.ask) {
        (Context::Palette, _) => (Cmd::Accept, "does the selected one; type to search".to_string()),
        (_, Ask::Refused(refusal)) if refusal.gate.is_none() => (Cmd::Dismiss, "closes this".to_string()),
        (_, Ask::Send { copied: Some(_), .. }) => {
            (Cmd::Accept, "once it is out: writes it down; esc leaves them untold".to_string())
        }
        (_, Ask::Send { .. }) if blanks > 0 => {
            (Cmd::FillIn, format!("fills in {}; enter does it as it stands, esc goes back", plural(blanks, "blank")))
        }
        (_, Ask::Send { .. }) => (Cmd::Accept, format!("{does}; esc goes back to the form")),
        (_, Ask::BlanksLeft { .. }) => {
            (Cmd::FillIn, "fills in what is left; enter goes back to the message".to_string())
        }
        (_, Ask::Blanks(_)) => (Cmd::Accept, "fills in what was entered; esc goes back to the message".to_string()),
        (Context::Confirm, _) => (Cmd::Yes, format!("{does}; enter leaves everything as it is")),
        (_, Ask::Destroy(..)) => (Cmd::Accept, "runs it, once the name is typed".to_string()),
        (_, _) => (Cmd::Accept, format!("{does}; esc leaves everything as it is")),
    };
    Next { cmd: Some(cmd), text }
}

/// Whether a message has blanks that are a person's.
fn fillable(app: &App, message: &Outgoing) -> bool {
    app.incident.as_ref().is_some_and(|ui| !ui.blanks(&message.audience, &message.text, &app.now).is_empty())
}

/// How many blanks of the message that is shown a person can fill in.
fn blanks_left(app: &App) -> u64 {
    let (Some(ui), Some(Ask::Send { message, .. })) = (&app.incident, app.dialogs.last().map(|d| &d.ask)) else {
        return 0;
    };
    let left = ui.message(&message.audience, &message.text, &app.now).1;
    let filled = ui.blanks(&message.audience, &message.text, &app.now).into_iter();
    filled.filter(|b| left.contains(b)).count() as u64
}

/// Commands worth a hint on this screen, the most useful first.
fn worth(app: &App) -> &'static [Cmd] {
    if let Some(dialog) = app.dialogs.last() {
        return match (dialog.context(), &dialog.ask) {
            (Context::Palette, _) => &[Cmd::Accept, Cmd::Dismiss],
            (Context::Confirm, Ask::Refused(_)) => &[Cmd::Dismiss],
            (Context::Confirm, Ask::BlanksLeft { .. }) => &[Cmd::Yes, Cmd::FillIn, Cmd::No, Cmd::Press],
            (_, Ask::Send { message, .. }) if fillable(app, message) => {
                &[Cmd::Accept, Cmd::FillIn, Cmd::Dismiss, Cmd::Down]
            }
            (Context::Confirm, _) => &[Cmd::Yes, Cmd::No, Cmd::Press, Cmd::NextField],
            (Context::Choice, _) if dialog.fields.len() > 1 => &[Cmd::Accept, Cmd::Dismiss, Cmd::Down, Cmd::NextField],
            (_, _) if dialog.fields.len() > 1 => &[Cmd::Accept, Cmd::Dismiss, Cmd::NextField],
            (Context::Choice, _) => &[Cmd::Accept, Cmd::Dismiss, Cmd::Down],
            (_, Ask::Edit { .. }) => &[Cmd::Accept, Cmd::Dismiss, Cmd::PageDown],
            _ => &[Cmd::Accept, Cmd::Dismiss],
        };
    }
    match app.screen() {
        Screen::Home => &[Cmd::Open, Cmd::Drill, Cmd::Declare, Cmd::Filter, Cmd::Palette],
        Screen::Plan => &[Cmd::Drill, Cmd::Declare, Cmd::Contacts, Cmd::NextPane, Cmd::Link, Cmd::Copy, Cmd::Palette],
        Screen::Incident if app.incident.as_ref().is_some_and(|i| i.data.state.closed.is_some()) => &[
            Cmd::Open,
            Cmd::Export,
            Cmd::Codename,
            Cmd::Note,
            Cmd::Timeline,
            Cmd::Afterwards,
            Cmd::Contacts,
            Cmd::Copy,
            Cmd::NextPane,
        ],
        Screen::Incident => &[
            Cmd::Open,
            Cmd::Run,
            Cmd::Edit,
            Cmd::Variable,
            Cmd::Cancel,
            Cmd::Resolve,
            Cmd::Done,
            Cmd::Skip,
            Cmd::Note,
            Cmd::Timeline,
            Cmd::Moment,
            Cmd::Contacts,
            Cmd::Tell,
            Cmd::Deadlines,
            Cmd::AdoptPlan,
            Cmd::Tick,
            Cmd::Copy,
            Cmd::NextPane,
            Cmd::Declare,
            Cmd::Follow,
            Cmd::Filter,
        ],
        Screen::Timeline => &[Cmd::Note, Cmd::Filter, Cmd::Copy, Cmd::Export],
        Screen::Moment => &[Cmd::Open],
        Screen::Reference => {
            &[Cmd::Open, Cmd::Copy, Cmd::Contacts, Cmd::Matrix, Cmd::Templates, Cmd::Checklists, Cmd::Objectives]
        }
        Screen::Waiting => &[],
        Screen::Messages => &[],
    }
}

fn keys(canvas: &mut Canvas<'_>, area: Rect, app: &App) {
    let ascii = canvas.look.ascii;
    let keymap = canvas.look.keymap;
    if !app.pending.is_empty() {
        // After the first key of a sequence: what can follow.
        let mut pieces = vec![p(Role::Accent, " ")];
        for key in &app.pending {
            pieces.push(p(Role::Code, format!("{} ", key.shown(ascii))));
        }
        for (rest, cmd) in keymap.following(&app.contexts(), &app.pending) {
            pieces.push(p(Role::Code, format!(" {rest}")));
            pieces.push(p(Role::Muted, format!(" {} ", cmd.info().short)));
        }
        canvas.line(area, 2, &pieces);
        return;
    }
    let hint = |cmd: Cmd, short: &str| hint_of(keymap, &[cmd], short, ascii);
    let in_dialog = !app.dialogs.is_empty();
    let mut tail: Vec<Piece> = Vec::new();
    if app.typing.is_some() {
        tail = hint(Cmd::Accept, "keep");
        tail.extend(hint(Cmd::Dismiss, "clear"));
    } else if !in_dialog {
        let back = back_word(app);
        if !back.is_empty() {
            tail.extend(hint(Cmd::Back, back));
        }
        tail.extend(hint(Cmd::Help, "help"));
        tail.extend(hint(Cmd::Quit, "quit"));
    }
    let room = area.width as usize;
    let mut pieces: Vec<Piece> = Vec::new();
    if app.typing.is_none() {
        for &cmd in worth(app) {
            if !in_dialog && (why_not(cmd, app).is_some() || cmd == Cmd::Variable && app.needed().is_empty()) {
                continue;
            }
            let short = dialog_word(app, cmd).unwrap_or(cmd.info().short);
            // A choice goes both ways, as its choices stand.
            let both = in_dialog && cmd == Cmd::Down;
            let more = if both { hint_of(keymap, &[Cmd::Up, Cmd::Down], short, ascii) } else { hint(cmd, short) };
            if pieces_width(&pieces) + pieces_width(&more) + pieces_width(&tail) > room {
                // What does not fit is in the help, whose key is always shown.
                break;
            }
            pieces.extend(more);
        }
    }
    canvas.line(area, 2, &pieces);
    canvas.right(area, 2, &tail);
}

/// A hint: the keys of these commands, and one word for all of them; nothing when none has a key.
fn hint_of(keymap: &Keymap, cmds: &[Cmd], short: &str, ascii: bool) -> Vec<Piece> {
    let keys: Vec<String> = cmds.iter().map(|c| keymap.shown(*c, ascii)).filter(|k| !k.is_empty()).collect();
    // Arrows stand together, words do not.
    let gap = if keys.iter().all(|k| k.chars().count() == 1) { "" } else { "/" };
    match keys.is_empty() {
        true => vec![],
        false => vec![p(Role::Code, format!(" {}", keys.join(gap))), p(Role::Muted, format!(" {short} "))],
    }
}

/// What yes, no and Enter mean in the dialog that is open.
fn dialog_word(app: &App, cmd: Cmd) -> Option<&'static str> {
    let dialog = app.dialogs.last()?;
    Some(match (cmd, &dialog.ask) {
        (Cmd::Yes, _) => super::dialog::yes_word(&dialog.ask),
        (Cmd::No, Ask::BlanksLeft { .. }) => "back",
        (Cmd::No, _) => "cancel",
        (Cmd::Press, _) if dialog.focus == 1 => super::dialog::yes_word(&dialog.ask),
        (Cmd::Press, Ask::BlanksLeft { .. }) => "back",
        (Cmd::Press, _) => "cancel",
        (Cmd::NextField, _) if dialog.fields.len() <= 1 => "the other",
        (Cmd::Down, _) => "choose",
        (Cmd::PageDown, Ask::Edit { .. }) => "options",
        (Cmd::Dismiss, Ask::Help | Ask::Palette) => "close",
        (Cmd::Dismiss, Ask::Send { .. } | Ask::Blanks(_)) => "back",
        (Cmd::Dismiss, _) => "cancel",
        (Cmd::Accept, Ask::Help | Ask::Palette) => "do it",
        (Cmd::Accept, _) => super::dialog::yes_word(&dialog.ask),
        _ => return None,
    })
}

/// The word for a kind of incident.
pub fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Real => "REAL",
        Kind::Drill => "DRILL",
    }
}
