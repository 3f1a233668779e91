//! The one table of commands, the key map and the key file.

use breakglass::app::command::{COMMANDS, Cmd, Context, Danger, key_file};
use breakglass::app::field::{Edit, Line};
use breakglass::app::key::{Code, Key, parse_keys};
use breakglass::tui::keymap::{Keymap, Resolved};

#[test]
fn every_command_is_found_by_its_position_and_name() {
    for (i, c) in COMMANDS.iter().enumerate() {
        assert_eq!(c.id as usize, i);
        assert_eq!(Cmd::named(c.name), Some(c.id));
        assert!(c.name.chars().all(|x| x.is_ascii_lowercase() || x.is_ascii_digit() || x == '-'), "{}", c.name);
        assert!(!c.doc.ends_with('.') && c.doc.len() <= 90, "{}: {}", c.name, c.doc);
        assert!(c.short.len() <= 12 && !c.contexts.is_empty(), "{}", c.name);
        for k in c.keys {
            assert!(!parse_keys(k).unwrap().is_empty(), "{}: {k}", c.name);
        }
    }
}

#[test]
fn no_two_commands_share_a_key() {
    assert_eq!(Keymap::default().conflicts(), vec![]);
}

#[test]
fn a_screen_hides_no_general_key_by_accident() {
    let map = Keymap::default();
    // What a search hides on purpose.
    let meant = [(Cmd::NextMatch, Cmd::Note)];
    for screen in [Context::Home, Context::Plan, Context::Incident, Context::Timeline, Context::Moment, Context::Search]
    {
        for c in COMMANDS.iter().filter(|c| c.contexts.contains(&screen)) {
            for sequence in map.keys(c.id) {
                let below = [Context::Incident, Context::Motion, Context::Screen];
                for general in
                    below.iter().filter(|g| **g != screen && (**g != Context::Incident || screen == Context::Search))
                {
                    let hidden = COMMANDS
                        .iter()
                        .find(|o| o.id != c.id && o.contexts.contains(general) && map.keys(o.id).contains(sequence));
                    if let Some(hidden) = hidden {
                        assert!(meant.contains(&(c.id, hidden.id)), "{} hides {} in {screen:?}", c.name, hidden.name);
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_dangerous_is_on_a_movement_key() {
    let moves = ["j", "k", "h", "l", "g", "G", "up", "down", "left", "right", "enter", "space", "tab", "esc"];
    for c in COMMANDS.iter().filter(|c| c.danger == Danger::Acts) {
        assert!(!c.keys.iter().any(|k| moves.contains(k)), "{}", c.name);
    }
}

#[test]
fn keys_are_read_back_as_they_are_written() {
    for text in
        ["j", "G", "?", ":", "ctrl-d", "alt-x", "enter", "space", "shift-tab", "pageup", "f2", "<esc>", "-", "<"]
    {
        let key: Key = text.parse().unwrap();
        assert_eq!(key.to_string().parse::<Key>().unwrap(), key, "{text}");
    }
    for wrong in ["", "ctrl-", "f13", "entr", "jj", "ctrl-enterr"] {
        assert!(wrong.parse::<Key>().is_err(), "{wrong:?}");
    }
    assert_eq!(parse_keys("g g").unwrap().len(), 2);
}

#[test]
fn a_sequence_waits_for_its_second_key() {
    let map = Keymap::default();
    let here = [Context::Incident, Context::Motion, Context::Screen];
    let g = Key::char('g');
    assert_eq!(map.resolve(&here, &[], g), Resolved::Pending);
    assert_eq!(map.resolve(&here, &[g], g), Resolved::Command(Cmd::First));
    assert_eq!(map.resolve(&here, &[g], Key::char('x')), Resolved::Nothing);
    assert_eq!(map.following(&here, &[g]).len(), 1);
}

#[test]
fn in_a_field_letters_are_letters() {
    let map = Keymap::default();
    for c in ['q', 'y', 'n', '?', ':', 'G', ' '] {
        assert_eq!(map.resolve(&[Context::Form], &[], Key::char(c)), Resolved::Typed(c));
    }
    assert_eq!(map.resolve(&[Context::Form], &[], Key::plain(Code::Enter)), Resolved::Command(Cmd::Accept));
    assert_eq!(map.resolve(&[Context::Form], &[], Key::ctrl('c')), Resolved::Command(Cmd::Interrupt));
}

#[test]
fn the_key_file_is_its_own_documentation() {
    let (map, problems) = Keymap::from_toml(&key_file(), "keys.toml");
    assert_eq!(problems, Vec::<String>::new());
    for c in COMMANDS {
        assert_eq!(map.keys(c.id), Keymap::default().keys(c.id), "{}", c.name);
    }
}

#[test]
fn a_bad_key_file_names_the_line_and_shuts_nobody_out() {
    let text = "[keys]\nrun = [\"R R\"]\nfly = [\"f\"]\ntimeline = [\"ctrl-\"]\nquit = []\nnote = [\"d\"]\nskip = 7\n";
    let (map, problems) = Keymap::from_toml(text, "keys.toml");
    let all = problems.join("\n");
    for part in [
        "keys.toml:3: \"fly\" is not a command",
        "keys.toml:4: \"ctrl-\" is not a key",
        "keys.toml:6: \"d\" means both done and note in incident",
        "keys.toml:7: skip needs a list",
        "no key is left to leave the console",
    ] {
        assert!(all.contains(part), "{part:?} is not in:\n{all}");
    }
    assert_eq!(map.shown(Cmd::Timeline, true), "t");
    assert_eq!(map.shown(Cmd::Quit, true), "q");
    let (_, problems) = Keymap::from_toml("[keys\n", "keys.toml");
    assert!(problems[0].starts_with("keys.toml:1:"), "{problems:?}");
}

#[test]
fn a_line_is_edited_by_what_people_see() {
    let mut line = Line::new("café e\u{301}tait");
    line.edit(Edit::Home);
    for _ in 0..6 {
        line.edit(Edit::Right);
    }
    line.edit(Edit::Backspace);
    assert_eq!(line.text(), "café tait", "a letter with its accent goes at once");
    line.edit(Edit::End);
    line.edit(Edit::DeleteWord);
    assert_eq!(line.text(), "café ");
    line.paste("a\nb\u{1b}[2Jc\td");
    assert!(!line.text().contains(['\n', '\u{1b}', '\t']), "{:?}", line.text());
    line.edit(Edit::DeleteLine);
    assert_eq!(line.text(), "");
    line.edit(Edit::Backspace);
    line.edit(Edit::Delete);
    assert_eq!(line.cursor(), 0);
}
