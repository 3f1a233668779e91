//! A command of ours with other options than the plan gave it: the same action, its arguments read by the action's own parser,
//! its risk by the action itself. What a person changed goes through the same gates as what a plan says.

use clap::error::ErrorKind;

use super::Registry;
use super::runnable::{self, Known};
use crate::incident::RunRequest;
use crate::model::plan::{Block, Piece, Step, Word};
use crate::model::{Redactor, likely_secret, may_hold_secret, url_password};
use crate::plan::command_line;

/// What a changed command is read against.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// Step it belongs to.
    pub step: &'a Step,
    /// The command as the plan has it.
    pub block: &'a Block,
    /// What it is filled in with.
    pub known: Known<'a>,
    /// The actions.
    pub registry: &'a Registry,
    /// Secrets known so far.
    pub secrets: &'a Redactor,
}

/// The request for a run of a command of ours as it was changed. The plan's own text stays as it is.
///
/// # Errors
/// One sentence for the person: not one plain command, another action, a variable without a value, a secret, or what the
/// action's parser says of its arguments.
pub fn request(text: &str, against: &Against<'_>) -> Result<RunRequest, String> {
    let (name, _) = runnable::action(against.block, against.known.actions);
    let plain = "write one plain command: no pipe, no redirection, nothing else of a shell; quotes are fine";
    let words = command_line::own(text).ok_or_else(|| format!("that cannot be run from here: {plain}"))?;
    let first: Vec<&str> = name.split(' ').collect();
    let same = words.len() >= first.len() && first.iter().zip(&words).all(|(want, word)| literal(word) == Some(want));
    if !same {
        return Err(format!("it has to stay \"breakglass {name} …\": only its options can be changed here"));
    }
    let args: Vec<String> =
        words[first.len()..].iter().map(|word| expanded(word, &against.known)).collect::<Result<_, _>>()?;
    let planned =
        runnable::request(against.step, against.block, &against.known).map_or_else(|_| Vec::new(), |r| r.args);
    for arg in args.iter().filter(|a| !planned.contains(a)) {
        no_secret(arg, against.secrets)?;
    }
    let action = against.registry.get(&name).ok_or_else(|| format!("there is no action {name:?} in this program"))?;
    if let Err(e) = action.arguments().no_binary_name(true).try_get_matches_from(&args) {
        return Err(match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                "its options are listed above; pgup and pgdn scroll".into()
            }
            _ => said_by_parser(&e.to_string()),
        });
    }
    let risk = action.risk(&args).max(runnable::raised(&name, &args).unwrap_or(crate::model::Risk::Read));
    // What the plan itself raised above the action's own word stays raised.
    let planned = runnable::risk(against.block, against.known.actions);
    let risk = if planned > action.spec().risk { risk.max(planned) } else { risk };
    let shown = runnable::shown(&name, &args);
    Ok(RunRequest {
        step: Some(against.step.id.clone()),
        block_line: Some(against.block.line),
        action: name,
        shown,
        args,
        risk,
        confirmed: None,
    })
}

/// The options of a command of ours, as its own help has them: how it is written, and what it does.
pub fn options(block: &Block, known: &Known<'_>, registry: &Registry) -> Vec<(String, String)> {
    let (name, _) = runnable::action(block, known.actions);
    let Some(action) = registry.get(&name) else { return Vec::new() };
    let command = action.arguments();
    let shown =
        command.get_arguments().filter(|a| !a.is_hide_set() && !["help", "version"].contains(&a.get_id().as_str()));
    shown
        .map(|arg| {
            let value = arg.get_value_names().and_then(|names| names.first()).map(|n| n.to_string());
            let value = value.filter(|_| arg.get_action().takes_values());
            let written = match (arg.get_long(), value) {
                (Some(long), Some(value)) => format!("--{long} {value}"),
                (Some(long), None) => format!("--{long}"),
                (None, value) => value.unwrap_or_else(|| arg.get_id().to_string()),
            };
            (written, arg.get_help().map(|h| h.to_string()).unwrap_or_default())
        })
        .collect()
}

/// A word without variables.
fn literal(word: &Word) -> Option<&str> {
    match word.0.as_slice() {
        [Piece::Text(text)] => Some(text),
        _ => None,
    }
}

/// A word with its variables looked up among those of the incident: what bash would make of it.
fn expanded(word: &Word, known: &Known<'_>) -> Result<String, String> {
    let mut out = String::new();
    for piece in &word.0 {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Var(name) | Piece::Bare(name) if may_hold_secret(name) => {
                return Err(format!("${name} is a secret, and a command is seen and kept: leave it out"));
            }
            Piece::Var(name) | Piece::Bare(name) => match known.vars.get(name) {
                Some(value) if matches!(piece, Piece::Bare(_)) && !runnable::is_plain(value) => {
                    return Err(format!("the value of {name} is not one plain word: write \"${name}\" in quotes"));
                }
                Some(value) => out.push_str(value),
                None => {
                    return Err(format!("{name} has no value: write the value itself, or give it one first (esc, v)"));
                }
            },
        }
    }
    Ok(out)
}

/// Whatever stands in a command is seen by everybody on the machine and kept in the journal.
fn no_secret(arg: &str, secrets: &Redactor) -> Result<(), String> {
    // `password=…`, `--api-key=…`; a condition on a column is another thing.
    let named = |(name, value): (&str, &str)| {
        let word = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        word && likely_secret(name.trim_start_matches('-')) && !value.starts_with('\'')
    };
    if url_password(arg).is_some() || secrets.redact(arg) != arg || arg.split_once('=').is_some_and(named) {
        return Err("a secret must not stand in a command, which is seen and kept: our actions take theirs from the \
                    environment or the configuration"
            .into());
    }
    Ok(())
}

/// What clap says, as one line: the error and its tip.
fn said_by_parser(text: &str) -> String {
    let line = |l: &&str| !l.is_empty() && !l.starts_with("Usage:") && !l.starts_with("For more information");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(line).collect();
    lines.join("; ").trim_start_matches("error: ").to_string()
}
