//! What a plan needs that this machine does not have (`--preflight`).

use std::collections::BTreeSet;

use crate::model::plan::BlockRole;
use crate::plan::commands::{self, ChunkKind};

use super::{Level, Sheet};

/// Words at the start of a command that are no programs of their own.
#[rustfmt::skip]
const BUILTINS: &[&str] = &[
    "cd", "echo", "export", "set", "source", "eval", "read", "wait", "exit", "return", "test", "true", "false",
    "if", "for", "while", "until", "case", "function", "local", "unset", "trap", "printf", "pwd", "alias", "type",
    "kill", "umask", "ulimit", "shift", "exec", "done", "fi", "esac", "declare", "let", "breakglass", "",
];

/// Looks for the programs and variables of every block that would run.
pub fn check(sheet: &mut Sheet<'_>) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut seen = BTreeSet::new();
    let blocks: Vec<_> = sheet
        .document
        .plan
        .scenarios
        .iter()
        .flat_map(|s| &s.steps)
        .flat_map(|s| &s.blocks)
        .filter(|b| b.role == BlockRole::Run)
        .cloned()
        .collect();
    for block in blocks {
        for chunk in commands::chunks(&block.code).into_iter().filter(|c| c.kind == ChunkKind::Command) {
            let program = commands::program(&chunk.text);
            let named = program.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            let local = chunk.text.trim_start().starts_with("./");
            if named && !local && !BUILTINS.contains(&program) && seen.insert(program.to_string()) {
                let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
                if !found {
                    let line = sheet.line_with(program, block.line + 1, block.line_end);
                    sheet.say(
                        Level::Warning,
                        "missing-tool",
                        (line, program),
                        format!("`{program}` is not on this machine's PATH"),
                        "",
                        "Install it before it is needed, or run this step where it is.",
                    );
                }
            }
        }
        for variable in &block.variables {
            if std::env::var_os(variable).is_none() && seen.insert(format!("${variable}")) {
                let line = sheet.line_with(variable, block.line + 1, block.line_end);
                sheet.say(
                    Level::Note,
                    "unset-variable",
                    (line, variable),
                    format!("${variable} is not set here"),
                    "it will be asked for",
                    "",
                );
            }
        }
    }
}
