//! From a block of a step to the request of a run: which action, what exactly, what it can do, what is missing.

use std::collections::BTreeMap;

use crate::incident::RunRequest;
use crate::model::plan::{Block, BlockRole, Piece, Risk, Step};

/// What keeps a block from being run as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Variables without a value.
    pub variables: Vec<String>,
    /// `<placeholder>`s of the text.
    pub placeholders: Vec<String>,
}

/// The blocks of a step that may be run, in order.
pub fn blocks(step: &Step) -> impl Iterator<Item = &Block> {
    step.blocks.iter().filter(|b| {
        matches!(b.role, BlockRole::Run | BlockRole::Query)
            && b.blocked.is_none()
            && !b.interactive
            && b.attrs.get("run").is_none_or(|r| r != "never")
    })
}

/// The action a block is, and the words after its name. Blocks that are not our own are `shell` or `sql`.
fn action<'b>(block: &'b Block, actions: &BTreeMap<String, Risk>) -> (String, &'b [crate::model::plan::Word]) {
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

/// What a block can do: the highest of what the action and the plan say. A shell block is `change` unless the plan
/// says that it only reads.
pub fn risk(block: &Block, actions: &BTreeMap<String, Risk>) -> Risk {
    let said = block.risk.or_else(|| match block.attrs.get("risk").map(String::as_str) {
        Some("read") => Some(Risk::Read),
        Some("change") => Some(Risk::Change),
        Some("destroy") => Some(Risk::Destroy),
        _ => None,
    });
    let (name, _) = action(block, actions);
    match actions.get(&name).filter(|_| name != "shell" && name != "sql") {
        Some(own) => said.map_or(*own, |s| s.max(*own)),
        None => said.unwrap_or(Risk::Change),
    }
}

/// The request for a run of a block.
///
/// # Errors
/// What has to be asked for first.
pub fn request(
    step: &Step,
    block: &Block,
    vars: &BTreeMap<String, String>,
    actions: &BTreeMap<String, Risk>,
) -> Result<RunRequest, Missing> {
    let (name, words) = action(block, actions);
    let own = name != "shell" && name != "sql";
    let mut missing = Missing { variables: Vec::new(), placeholders: Vec::new() };
    let mut args = Vec::new();
    for word in words {
        let mut value = String::new();
        for piece in &word.0 {
            match piece {
                Piece::Text(t) => value.push_str(t),
                Piece::Var(v) | Piece::Bare(v) => match vars.get(v) {
                    // Unquoted, bash would split or expand such a value: ask for one that is a plain word.
                    Some(known) if !matches!(piece, Piece::Bare(_)) || is_plain(known) => value.push_str(known),
                    Some(_) => missing.variables.push(v.clone()),
                    None if !missing.variables.contains(v) => missing.variables.push(v.clone()),
                    None => {}
                },
            }
        }
        args.push(value);
    }
    let mut code = block.code.clone();
    for placeholder in &block.placeholders {
        match vars.get(&variable_of(placeholder)) {
            Some(value) => code = code.replace(placeholder, value),
            None => missing.placeholders.push(placeholder.clone()),
        }
    }
    if !missing.variables.is_empty() || !missing.placeholders.is_empty() {
        return Err(missing);
    }
    let shown = if own {
        let mut all = vec!["breakglass".to_string()];
        all.extend(name.split(' ').map(String::from));
        all.extend(args.iter().map(|a| quoted(a)));
        all.join(" ")
    } else {
        code
    };
    Ok(RunRequest {
        step: Some(step.id.clone()),
        block_line: Some(block.line),
        action: name,
        shown,
        args,
        risk: risk(block, actions),
        confirmed: None,
    })
}

/// The name under which a placeholder's value is kept: `<backup-id>` is `BACKUP_ID`.
pub fn variable_of(placeholder: &str) -> String {
    let mut out: String = placeholder
        .trim_matches(['<', '>', '[', ']', '{', '}', ' '])
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect();
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// Whether bash would pass this value on as one word although the variable stands there without quotes.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.contains([' ', '\t', '\n', '*', '?', '[', '\\'])
}

/// A word as it would have to be typed in a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
