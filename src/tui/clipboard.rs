//! Copying to the clipboard of the person at the other end of the line.
//!
//! The terminal is asked to do it (OSC 52), which works over SSH; inside tmux, tmux is asked first, because it may not
//! pass the sequence on. What is too long for that is written to a file and its path is shown.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;

/// Longest text that terminals take reliably: xterm and others stop at 100 000 bytes of base64.
pub const LIMIT: usize = 74_000;

/// Which way a text went; for the message that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By a sequence to the terminal, to be written by the caller.
    Terminal(Vec<u8>),
    /// By tmux.
    Tmux,
    /// Into a file.
    File(PathBuf),
}

/// Copies `text`. `folder` takes the file when the text is too long.
pub fn copy(text: &str, in_tmux: bool, folder: &Path) -> std::io::Result<Way> {
    if text.len() > LIMIT {
        return to_file(text, folder).map(Way::File);
    }
    if in_tmux && tmux(text) {
        return Ok(Way::Tmux);
    }
    Ok(Way::Terminal(sequence(text)))
}

/// The OSC 52 sequence that sets the clipboard.
pub fn sequence(text: &str) -> Vec<u8> {
    let mut out = b"\x1b]52;c;".to_vec();
    out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(text).as_bytes());
    out.push(b'\x07');
    out
}

/// `tmux load-buffer -w -` keeps it as a buffer and sends it on to the outer terminal.
fn tmux(text: &str) -> bool {
    let child = Command::new("tmux")
        .args(["load-buffer", "-w", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let written = child.stdin.take().is_some_and(|mut pipe| pipe.write_all(text.as_bytes()).is_ok());
    child.wait().is_ok_and(|status| status.success()) && written
}

fn to_file(text: &str, folder: &Path) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let (mut file, path) =
        tempfile::Builder::new().prefix("copied-").suffix(".txt").tempfile_in(folder)?.keep().map_err(|e| e.error)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}
