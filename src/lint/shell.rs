//! Shell blocks that bash itself cannot parse.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::model::plan::{Block, BlockRole};

use super::{Level, Sheet};

/// At most this many blocks of one document are given to bash.
const MOST: usize = 300;

/// Asks `bash -n` (which runs nothing) about every bash block; without bash nothing is said.
pub fn check(sheet: &mut Sheet<'_>) {
    let blocks: Vec<Block> = sheet
        .document
        .plan
        .blocks
        .iter()
        // What is never run anyway (lines for the other side of a session, say) is reported as that.
        .filter(|b| b.role == BlockRole::Run && b.blocked.is_none())
        .filter(|b| matches!(b.lang.as_str(), "bash" | "sh" | "shell" | ""))
        .take(MOST)
        .cloned()
        .collect();
    for block in blocks {
        // Blanks are filled in first: `<name>` would read as a redirection.
        let code = block.placeholders.iter().fold(block.code.clone(), |code, blank| code.replace(blank.as_str(), "x"));
        let Some((line, message)) = syntax_error(&code) else { continue };
        if code.contains("...") || code.contains('…') {
            continue; // something was left out on purpose
        }
        let at = block.line.saturating_add(line.min(u32::try_from(code.lines().count()).unwrap_or(1)).max(1));
        sheet.say(
            Level::Error,
            "shell-syntax",
            (at, ""),
            "bash cannot read this block",
            &message,
            "Run it through `bash -n`; tag it `text` when it is not meant to run.",
        );
    }
}

/// Line within the code (from 1) and message of bash's first complaint.
fn syntax_error(code: &str) -> Option<(u32, String)> {
    let mut child = Command::new("bash")
        .args(["--norc", "-n"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // A block is far smaller than a pipe's buffer or is read as bash goes: it never answers before the end.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(code.as_bytes());
        let _ = stdin.write_all(b"\n");
    }
    let out = child.wait_with_output().ok()?;
    if out.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let first = text.lines().find(|l| l.contains("line "))?;
    let (_, tail) = first.split_once("line ")?;
    let (number, message) = tail.split_once(':')?;
    Some((number.trim().parse().ok()?, message.trim().to_string()))
}
