//! What the dialogs of the people's side say above their fields.

use crate::app::dialog::{Ask, Outgoing};
use crate::app::update::people::standing;
use crate::app::update::tell::{fills, left_words};
use crate::app::{App, IncidentUi};
use crate::incident::{Deadline, Standing};
use crate::tui::theme::Role;

use super::canvas::{Piece, p, width, wrap};

/// The text as lines of pieces.
type Lines = Vec<Vec<Piece>>;

/// The word on the button that does it.
pub(super) fn yes_word(ask: &Ask) -> &'static str {
    match ask {
        Ask::Deadlines => "do it",
        Ask::Snooze => "put it off",
        Ask::Escalate => "call them",
        Ask::Answered(_) | Ask::NoCall | Ask::Rotated => "write it",
        Ask::Assign => "assign",
        Ask::Tell(_) => "show it",
        Ask::Send { .. } => "do it",
        Ask::Blanks(_) => "fill in",
        Ask::BlanksLeft { how, .. } => match how.as_str() {
            "copy" => "copy it anyway",
            "send" => "send it anyway",
            _ => "write it down anyway",
        },
        Ask::Codename => "use it",
        Ask::LiftCodename(_) => "do it",
        Ask::LocalOnly(true) => "local only",
        Ask::LocalOnly(false) => "allow it again",
        Ask::Afterwards { .. } => "do it",
        _ => "ok",
    }
}

/// Title, role of the border, and the text above the fields.
pub(super) fn content(app: &App, ask: &Ask, columns: usize) -> Option<(&'static str, Role, Lines)> {
    let ui = app.incident.as_ref();
    let mut lines: Lines = Vec::new();
    let say = |lines: &mut Lines, role: Role, text: &str| {
        lines.extend(wrap(text, columns, 0).into_iter().map(|l| vec![p(role, l)]));
    };
    let (title, role) = match ask {
        Ask::Deadlines => {
            if let Some(ui) = ui {
                lines = deadlines(app, ui, columns);
            }
            ("deadlines", Role::Accent)
        }
        Ask::Snooze => {
            say(&mut lines, Role::Muted, "It is quiet until then. A hand-over of command ends every snooze.");
            ("put a deadline off", Role::Warning)
        }
        Ask::Escalate => {
            say(
                &mut lines,
                Role::Text,
                "Call them yourself, by phone; this writes it down and starts their time to answer. c shows contacts.",
            );
            ("call a level", Role::Warning)
        }
        Ask::Answered(level) => {
            say(&mut lines, Role::Text, &format!("Level {level} answered:"));
            ("who answered?", Role::Good)
        }
        Ask::NoCall => {
            say(&mut lines, Role::Text, "Nobody else has to be called. To call somebody, leave with esc and press e.");
            ("nobody has to be called", Role::Warning)
        }
        Ask::Assign => {
            say(&mut lines, Role::Muted, "A hand-over is said aloud, too.");
            ("give a role to somebody", Role::Accent)
        }
        Ask::Tell(_) => {
            say(&mut lines, Role::Muted, "Nothing is sent yet: the message is shown first, filled in.");
            ("tell people", Role::Accent)
        }
        Ask::Send { message: Outgoing { audience, text, .. }, copied, .. } => {
            if let Some(ui) = ui {
                let (filled, left) = match copied {
                    Some(copied) => (copied.clone(), vec![]),
                    None => ui.message(audience, text, &app.now),
                };
                lines.push(vec![p(Role::Muted, "to      "), p(Role::Accent, audience.clone())]);
                lines.push(vec![]);
                for line in filled.lines() {
                    match line.trim().is_empty() {
                        true => lines.push(vec![]),
                        false => say(&mut lines, Role::Code, line),
                    }
                }
                if !left.is_empty() {
                    lines.push(vec![]);
                    say(&mut lines, Role::Warning, &format!("{}; {}.", left_words(&left), fills(&left)));
                }
            }
            ("this message", Role::Warning)
        }
        Ask::Blanks(_) => {
            let text = "Only a person knows these. What is entered is recorded and stays for the next message; what is left \
                        empty stays a blank. Never a secret.";
            say(&mut lines, Role::Muted, text);
            ("fill in the blanks", Role::Accent)
        }
        Ask::BlanksLeft { how, message: Outgoing { audience, text, .. } } => {
            let left = ui.map(|ui| ui.message(audience, text, &app.now).1).unwrap_or_default();
            let does = match how.as_str() {
                "copy" => "copies it anyway",
                "send" => "sends it anyway",
                _ => "writes it down anyway",
            };
            say(&mut lines, Role::Text, &format!("{}; y {does}, {}.", left_words(&left), fills(&left)));
            say(&mut lines, Role::Muted, &format!("As it stands, the brackets go out to: {audience}."));
            ("blanks are left", Role::Warning)
        }
        Ask::Codename => {
            let text =
                "The title gives way to it on screen, in messages and in redacted exports. The journal keeps both.";
            say(&mut lines, Role::Muted, text);
            ("code name", Role::Accent)
        }
        Ask::LiftCodename(name) => {
            // The title is not said here: it may not be named yet.
            let text = format!(
                "It goes by {name}. Lifted, its title is said again on screen and in messages, for everybody who sees them; a \
                 redacted export keeps the name. The journal keeps both."
            );
            say(&mut lines, Role::Text, &text);
            ("lift the code name", Role::Warning)
        }
        Ask::LocalOnly(true) => {
            let text = "From here on no message command runs and no remote repository is used. What other people and \
                        programs do is not ours to stop.";
            say(&mut lines, Role::Text, text);
            ("local only", Role::Warning)
        }
        Ask::LocalOnly(false) => {
            say(&mut lines, Role::Text, "Messages may be handed to the configured command again.");
            ("no longer local only", Role::Warning)
        }
        Ask::Rotated => {
            say(&mut lines, Role::Muted, "Only that it was changed is written down, never its value.");
            ("a secret was changed", Role::Accent)
        }
        Ask::Afterwards { closing, .. } => {
            let text = match closing {
                true => {
                    "Before closing: what this plan asks for once it is over. Enter goes on to closing; down, then enter, ticks."
                }
                false => "What this plan asks for once it is over. Enter ticks, esc leaves.",
            };
            say(&mut lines, Role::Muted, text);
            ("afterwards", Role::Accent)
        }
        _ => return None,
    };
    Some((title, role, lines))
}

/// How a deadline is to be seen.
pub(super) fn role_of(d: &Deadline) -> Role {
    match &d.standing {
        Standing::Overdue(_) | Standing::Missed => Role::Danger,
        Standing::Late(_) | Standing::Snoozed(_) => Role::Warning,
        Standing::Met(_) => Role::Good,
        Standing::Running(left) if left.as_secs() < 120 => Role::Warning,
        Standing::Running(_) => Role::Text,
        Standing::Over => Role::Muted,
    }
}

fn deadlines(app: &App, ui: &IncidentUi, columns: usize) -> Lines {
    let all = ui.deadlines(&app.now);
    let name_width = all.iter().map(|d| width(&d.what())).max().unwrap_or(0).min(columns / 2);
    let mut lines: Lines = Vec::new();
    for d in &all {
        let what = d.what();
        let pad = " ".repeat((name_width + 2).saturating_sub(width(&what)));
        let due = format!("{}  ", &d.due.hms()[..5]);
        lines.push(vec![
            p(Role::Muted, due),
            p(Role::Text, format!("{what}{pad}")),
            p(role_of(d), standing(&d.standing)),
        ]);
    }
    let people = &ui.data.state.people;
    if !people.roles.is_empty() {
        lines.push(vec![]);
        for (role, held) in &people.roles {
            if let Some(now) = held.last() {
                let since = format!(" since {}", &now.since.at.hms()[..5]);
                lines.push(vec![
                    p(Role::Muted, format!("{role}  ")),
                    p(Role::Text, now.person.clone()),
                    p(Role::Muted, since),
                ]);
            }
        }
    }
    lines
}
