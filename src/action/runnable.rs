//! From a block of a step to the request of a run: which action, what exactly, what it can do, what is missing.

use std::collections::{BTreeMap, BTreeSet};

use super::blanks;
use crate::incident::RunRequest;
use crate::model::may_hold_secret;
use crate::model::plan::{Block, BlockRole, Piece, Risk, Step, Word};

pub use super::blanks::variable_of;

/// What is known when a command is filled in.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Values given so far in the incident.
    pub vars: &'a BTreeMap<String, String>,
    /// Names of secrets that were given; their values are elsewhere.
    pub held: &'a BTreeSet<String>,
    /// Names of variables the environment has.
    pub environment: &'a BTreeSet<String>,
    /// The actions of the program by name, and what each can do at worst.
    pub actions: &'a BTreeMap<String, Risk>,
}

/// What keeps a block from being run as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Variables without a value.
    pub variables: Vec<String>,
    /// `<placeholder>`s of the text.
    pub placeholders: Vec<String>,
}

impl Missing {
    /// All of it, in the order it is asked for; what becomes the same variable is asked once.
    pub fn names(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.variables.iter().chain(&self.placeholders).filter(|n| seen.insert(variable_of(n))).cloned().collect()
    }
}

/// The blocks of a step that may be run, in order.
pub fn blocks(step: &Step) -> impl Iterator<Item = &Block> {
    step.blocks.iter().filter(|b| why_not(b).is_none())
}

/// Why the console shows a block but never runs it.
pub fn why_not(block: &Block) -> Option<String> {
    if !matches!(block.role, BlockRole::Run | BlockRole::Query) {
        return Some("a sample".into());
    }
    if let Some(why) = &block.blocked {
        return Some(why.clone());
    }
    if block.attrs.get("run").is_some_and(|r| r == "never") {
        return Some("the plan says it is never run".into());
    }
    block.interactive.then(|| "it needs a terminal of its own: copy it into another one (y)".into())
}

/// The action a block is, and the words after its name. Blocks that are not our own are `shell` or `sql`.
pub(super) fn action<'b>(block: &'b Block, actions: &BTreeMap<String, Risk>) -> (String, &'b [Word]) {
    if let Some(words) = &block.own {
        let literal: Vec<&str> = words
            .iter()
            .map_while(|w| match w.0.as_slice() {
                [Piece::Text(t)] if !t.starts_with('-') => Some(t.as_str()),
                _ => None,
            })
            .collect();
        for n in (1..=literal.len()).rev() {
            let name = literal[..n].join(" ");
            if actions.contains_key(&name) {
                return (name, &words[n..]);
            }
        }
    }
    let name = if block.role == BlockRole::Query { "sql" } else { "shell" };
    (name.into(), &[])
}

/// Whether a block is one of the program's own actions: only then its words are arguments, and no shell's.
pub fn is_ours(block: &Block, actions: &BTreeMap<String, Risk>) -> bool {
    !matches!(action(block, actions).0.as_str(), "shell" | "sql")
}

/// What a block can do: the highest of what the action and the plan say. A shell block is `change` unless the plan
/// says that it only reads.
pub fn risk(block: &Block, actions: &BTreeMap<String, Risk>) -> Risk {
    let said = block.risk.or_else(|| match block.attrs.get("risk").map(String::as_str) {
        Some("read") => Some(Risk::Read),
        Some("change") => Some(Risk::Change),
        Some("destroy") => Some(Risk::Destroy),
        _ => None,
    });
    let (name, words) = action(block, actions);
    match actions.get(&name).filter(|_| name != "shell" && name != "sql") {
        Some(own) => {
            let own = raised(&name, &words.iter().map(literal).collect::<Vec<_>>()).unwrap_or(*own).max(*own);
            said.map_or(own, |s| s.max(own))
        }
        None => said.unwrap_or(Risk::Change),
    }
}

/// What an option makes of an action, where that is more than its name says.
pub(super) fn raised(name: &str, args: &[String]) -> Option<Risk> {
    // A name that stands in a plan was typed by nobody.
    let given_up = args.iter().any(|a| a == "--give-up" || a.starts_with("--give-up="));
    (given_up || name == "pitr restore" && super::pitr_restore::overwrites(args)).then_some(Risk::Destroy)
}

/// A word as far as it is not a variable's value.
fn literal(word: &Word) -> String {
    let text = |p: &Piece| match p {
        Piece::Text(t) => Some(t.clone()),
        Piece::Var(_) | Piece::Bare(_) => None,
    };
    word.0.iter().filter_map(text).collect()
}

/// The request for a run of a block.
///
/// # Errors
/// What has to be asked for first.
pub fn request(step: &Step, block: &Block, known: &Known<'_>) -> Result<RunRequest, Missing> {
    let (name, words) = action(block, known.actions);
    let own = name != "shell" && name != "sql";
    let mut missing = Missing { variables: Vec::new(), placeholders: Vec::new() };
    let mut args = Vec::new();
    for word in words {
        args.push(argument(word, &block.placeholders, known, &mut missing));
    }
    let mut code = block.code.clone();
    if !own {
        if name == "shell" {
            for variable in &block.variables {
                let there = known.vars.contains_key(variable)
                    || known.held.contains(variable)
                    || known.environment.contains(variable);
                if !there {
                    missing.variables.push(variable.clone());
                }
            }
        }
        code = filled(block, known, &mut missing);
        args = attributes(block, &name, risk(block, known.actions));
    } else {
        let asked = |b: &&String| !known.vars.contains_key(&variable_of(b));
        missing.placeholders = block.placeholders.iter().filter(asked).cloned().collect();
    }
    if !missing.variables.is_empty() || !missing.placeholders.is_empty() {
        return Err(missing);
    }
    let shown = if own { shown(&name, &args) } else { code };
    let risk = risk(block, known.actions).max(raised(&name, &args).unwrap_or(Risk::Read));
    Ok(RunRequest {
        step: Some(step.id.clone()),
        block_line: Some(block.line),
        action: name,
        shown,
        args,
        risk,
        confirmed: None,
    })
}

/// A command of ours as it would have to be typed.
pub(super) fn shown(name: &str, args: &[String]) -> String {
    let mut all = vec!["breakglass".to_string()];
    all.extend(name.split(' ').map(String::from));
    all.extend(args.iter().map(|a| quoted(a)));
    all.join(" ")
}

/// One argument of our own command.
fn argument(word: &Word, placeholders: &[String], known: &Known<'_>, missing: &mut Missing) -> String {
    let mut value = String::new();
    for piece in &word.0 {
        match piece {
            Piece::Text(t) => {
                let mut text = t.clone();
                for blank in placeholders {
                    if let Some(v) = known.vars.get(&variable_of(blank)) {
                        text = text.replace(blank.as_str(), v);
                    }
                }
                value.push_str(&text);
            }
            Piece::Var(v) | Piece::Bare(v) => match known.vars.get(v) {
                // Unquoted, bash would split or expand such a value: ask for one that is a plain word.
                Some(known) if !matches!(piece, Piece::Bare(_)) || is_plain(known) => value.push_str(known),
                Some(_) => missing.variables.push(v.clone()),
                None if !missing.variables.contains(v) => missing.variables.push(v.clone()),
                None => {}
            },
        }
    }
    value
}

/// The text of a shell or SQL block with its blanks filled in, quoted where the value would mean something to the shell. A
/// blank for a secret becomes a variable of the shell's environment: its value never stands in a text.
fn filled(block: &Block, known: &Known<'_>, missing: &mut Missing) -> String {
    let sql = block.role == BlockRole::Query;
    let mut code = block.code.clone();
    for blank in &block.placeholders {
        let name = variable_of(blank);
        if may_hold_secret(&name) {
            let there = known.held.contains(&name) || (!sql && known.environment.contains(&name));
            code = match (there, sql) {
                (true, true) => blanks::fill_sql(&code, blank, &format!("${{{name}}}")),
                (true, false) => blanks::fill_variable(&code, blank, &name),
                (false, _) => {
                    missing.placeholders.push(blank.clone());
                    code
                }
            };
            continue;
        }
        match known.vars.get(&name) {
            Some(value) if sql => code = blanks::fill_sql(&code, blank, value),
            Some(value) => code = blanks::fill_shell(&code, blank, value),
            None => missing.placeholders.push(blank.clone()),
        }
    }
    code
}

/// What the plan's attributes say, as the action's arguments.
fn attributes(block: &Block, action: &str, risk: Risk) -> Vec<String> {
    let mut args = vec!["--risk".to_string(), risk.word().to_string()];
    let keys: &[&str] = if action == "shell" { &["timeout", "expect", "cwd"] } else { &["timeout"] };
    for key in keys {
        if let Some(value) = block.attrs.get(*key).filter(|v| !v.is_empty()) {
            // One word, so that a value that begins with a dash is not an option.
            args.push(format!("--{key}={value}"));
        }
    }
    args
}

/// Whether bash would pass this value on as one word although the variable stands there without quotes.
pub(super) fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.contains([' ', '\t', '\n', '*', '?', '[', '\\'])
}

/// A word as it would have to be typed in a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
