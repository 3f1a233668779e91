//! Which blocks are one of our own command lines, and what their words become once variables are known.

use crate::model::plan::{Piece, Word};
use crate::plan::command_line;

/// The words after `breakglass` when `code` is exactly one of our own command lines; none for any other shell syntax.
pub fn recognise(code: &str) -> Option<Vec<Word>> {
    command_line::own(code)
}

/// The variables a command uses, in order, each once.
pub fn variables(words: &[Word]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for piece in words.iter().flat_map(|w| &w.0) {
        if let Piece::Var(name) | Piece::Bare(name) = piece
            && !out.contains(name)
        {
            out.push(name.clone());
        }
    }
    out
}

/// Why a command's words cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexpanded {
    /// This variable has no value yet: ask for it.
    Unset(String),
    /// An unquoted variable holds something the shell would split or expand: quote it in the plan.
    NeedsQuotes(String),
}

impl std::fmt::Display for Unexpanded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unset(name) => write!(f, "variable {name} has no value"),
            Self::NeedsQuotes(name) => {
                write!(f, "the value of {name} is not one plain word: write \"${name}\" with quotes in the plan")
            }
        }
    }
}

/// The arguments after `breakglass`, with variables looked up.
///
/// # Errors
/// The first variable that has no value, or whose value bash would not pass on as one word.
pub fn expand(words: &[Word], lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, Unexpanded> {
    words
        .iter()
        .map(|word| {
            let mut out = String::new();
            for piece in &word.0 {
                match piece {
                    Piece::Text(text) => out.push_str(text),
                    Piece::Var(name) => out.push_str(&lookup(name).ok_or_else(|| Unexpanded::Unset(name.clone()))?),
                    Piece::Bare(name) => {
                        let value = lookup(name).ok_or_else(|| Unexpanded::Unset(name.clone()))?;
                        let plain = !value.is_empty() && !value.contains([' ', '\t', '\n', '*', '?', '[', '\\']);
                        if !plain {
                            return Err(Unexpanded::NeedsQuotes(name.clone()));
                        }
                        out.push_str(&value);
                    }
                }
            }
            Ok(out)
        })
        .collect()
}
