//! Which key does what in which context: the defaults of the command table, changed by the user's key file.
//!
//! A bad entry never keeps anybody out of the console: it is reported with file and line, the default applies.

use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::app::command::{COMMANDS, Cmd, Context};
use crate::app::key::{Code, Key, parse_keys};

/// The effective keys.
#[derive(Debug, Clone)]
pub struct Keymap {
    bindings: BTreeMap<Cmd, Vec<Vec<Key>>>,
}

/// What a key means, after the keys pressed before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// A command.
    Command(Cmd),
    /// The beginning of a longer sequence.
    Pending,
    /// A character for a text field.
    Typed(char),
    /// Nothing here.
    Nothing,
}

impl Default for Keymap {
    fn default() -> Self {
        let bindings =
            COMMANDS.iter().map(|c| (c.id, c.keys.iter().filter_map(|k| parse_keys(k).ok()).collect())).collect();
        Self { bindings }
    }
}

impl Keymap {
    /// The defaults changed by a key file (`[keys]`, `name = ["key", …]`). Problems carry `file:line`.
    pub fn from_toml(text: &str, file: &str) -> (Self, Vec<String>) {
        let mut map = Self::default();
        let mut problems = Vec::new();
        let parsed: toml::Table = match text.parse() {
            Ok(t) => t,
            Err(e) => {
                let line = e.span().map_or(1, |s| line_of(text, s.start));
                problems.push(format!("{file}:{line}: not a key file ({}); the default keys apply", e.message()));
                return (map, problems);
            }
        };
        let Some(keys) = parsed.get("keys").and_then(toml::Value::as_table) else {
            problems.push(format!("{file}:1: there is no [keys] table; the default keys apply"));
            return (map, problems);
        };
        let mut changed = Vec::new();
        for (name, value) in keys {
            let at = format!("{file}:{}", line_with_key(text, name));
            let Some(cmd) = Cmd::named(name) else {
                problems.push(format!("{at}: {name:?} is not a command; `breakglass keys` lists them"));
                continue;
            };
            let list: Option<Vec<&str>> = match value {
                toml::Value::String(s) => Some(vec![s.as_str()]),
                toml::Value::Array(a) => a.iter().map(toml::Value::as_str).collect(),
                _ => None,
            };
            let Some(list) = list else {
                problems.push(format!("{at}: {name} needs a list of keys such as [\"j\", \"down\"]"));
                continue;
            };
            match list.iter().map(|k| parse_keys(k)).collect::<Result<Vec<_>, _>>() {
                Ok(sequences) if sequences.iter().all(|s| !s.is_empty()) => {
                    changed.push((cmd, at));
                    map.bindings.insert(cmd, sequences);
                }
                Ok(_) => problems.push(format!("{at}: {name} has an empty key; its default keys apply")),
                Err(e) => problems.push(format!("{at}: {e}; {name} keeps its default keys")),
            }
        }
        for (a, b, context, keys) in map.conflicts() {
            let at = changed.iter().find(|(c, _)| *c == a || *c == b).map_or(file, |(_, at)| at);
            problems.push(format!(
                "{at}: {keys:?} means both {} and {} in {}; the first wins",
                a.info().name,
                b.info().name,
                context.name()
            ));
        }
        for (must, what) in [(Cmd::Quit, "leave the console"), (Cmd::Dismiss, "leave a dialog")] {
            if map.keys(must).is_empty() {
                problems.push(format!("{file}: no key is left to {what}; the default applies"));
                map.bindings.insert(must, must.info().keys.iter().filter_map(|k| parse_keys(k).ok()).collect());
            }
        }
        (map, problems)
    }

    /// Key sequences of a command.
    pub fn keys(&self, cmd: Cmd) -> &[Vec<Key>] {
        self.bindings.get(&cmd).map_or(&[], Vec::as_slice)
    }

    /// The first key sequence of a command as shown in hints; empty when it has none.
    pub fn shown(&self, cmd: Cmd, ascii: bool) -> String {
        self.keys(cmd).first().map_or(String::new(), |s| show(s, ascii))
    }

    /// What `key` means after `pending` in these contexts, the most specific first.
    pub fn resolve(&self, contexts: &[Context], pending: &[Key], key: Key) -> Resolved {
        let mut sequence = pending.to_vec();
        sequence.push(key);
        let mut prefix = false;
        for context in contexts {
            if context.types() && pending.is_empty() {
                if let Some(c) = key.typed() {
                    return Resolved::Typed(c);
                }
            }
            for command in COMMANDS.iter().filter(|c| c.contexts.contains(context)) {
                for bound in self.keys(command.id) {
                    if *bound == sequence {
                        return Resolved::Command(command.id);
                    }
                    prefix |= bound.len() > sequence.len() && bound.starts_with(&sequence);
                }
            }
        }
        if prefix { Resolved::Pending } else { Resolved::Nothing }
    }

    /// What may follow the keys pressed so far: the rest of each sequence and its command.
    pub fn following(&self, contexts: &[Context], pending: &[Key]) -> Vec<(String, Cmd)> {
        let mut out = Vec::new();
        for command in COMMANDS.iter().filter(|c| c.contexts.iter().any(|x| contexts.contains(x))) {
            for bound in self.keys(command.id) {
                if bound.len() > pending.len() && bound.starts_with(pending) {
                    out.push((show(&bound[pending.len()..], true), command.id));
                }
            }
        }
        out
    }

    /// Pairs of commands that share a key in one context, or where one key hides the sequence of another.
    pub fn conflicts(&self) -> Vec<(Cmd, Cmd, Context, String)> {
        let mut out = Vec::new();
        for &context in Context::ALL {
            let here: Vec<_> = COMMANDS.iter().filter(|c| c.contexts.contains(&context)).collect();
            for (i, a) in here.iter().enumerate() {
                for b in &here[i + 1..] {
                    for ka in self.keys(a.id) {
                        if let Some(kb) = self.keys(b.id).iter().find(|kb| kb.starts_with(ka) || ka.starts_with(kb)) {
                            out.push((a.id, b.id, context, show(if ka.len() < kb.len() { ka } else { kb }, true)));
                        }
                    }
                }
            }
        }
        out
    }
}

/// A key sequence as shown: `g g`.
fn show(sequence: &[Key], ascii: bool) -> String {
    sequence.iter().map(|k| k.shown(ascii)).collect::<Vec<_>>().join(" ")
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}

fn line_with_key(text: &str, name: &str) -> usize {
    text.lines()
        .position(|l| {
            l.trim_start()
                .trim_start_matches(['"', '\''])
                .strip_prefix(name)
                .is_some_and(|r| r.trim_start_matches(['"', '\'']).trim_start().starts_with('='))
        })
        .map_or(1, |i| i + 1)
}

/// The terminal's key as ours. Releases and keys we do not know are nothing.
pub fn from_terminal(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
    let alt = event.modifiers.contains(KeyModifiers::ALT);
    let shift = event.modifiers.contains(KeyModifiers::SHIFT);
    let code = match event.code {
        KeyCode::Char(c) => Code::Char(if ctrl { c.to_ascii_lowercase() } else { c }),
        KeyCode::Enter => Code::Enter,
        KeyCode::Esc => Code::Esc,
        KeyCode::Tab if shift => Code::BackTab,
        KeyCode::Tab => Code::Tab,
        KeyCode::BackTab => Code::BackTab,
        KeyCode::Backspace => Code::Backspace,
        KeyCode::Delete => Code::Delete,
        KeyCode::Up => Code::Up,
        KeyCode::Down => Code::Down,
        KeyCode::Left => Code::Left,
        KeyCode::Right => Code::Right,
        KeyCode::Home => Code::Home,
        KeyCode::End => Code::End,
        KeyCode::PageUp => Code::PageUp,
        KeyCode::PageDown => Code::PageDown,
        KeyCode::F(n) => Code::F(n),
        _ => return None,
    };
    // Control and j is how a terminal says line feed; a pasted line break must not press Enter.
    Some(Key { code, ctrl, alt })
}
