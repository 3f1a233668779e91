//! What an action prints, on its way to people: bytes → lines → redacted → cleaned → output.log and ring.
//!
//! Everything is bounded: a line is cut at [`MAX_LINE`], the file at its limit (the last lines are kept and what was left out
//! is counted), the ring at [`Ring::MAX_LINES`] lines and [`Ring::MAX_BYTES`] bytes. Secrets are looked for in whole lines, so
//! the borders of chunks do not matter; a secret of several lines is known line by line.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Output, Progress};
use crate::error::{Context, Result};
use crate::model::event::OutputSeal;
use crate::model::{CleanText, Digest, Redactor};

/// Longest line kept whole, in bytes; a longer one goes on in the next line.
pub const MAX_LINE: usize = 64 * 1024;

/// Default limit of output.log in bytes.
pub const LOG_LIMIT: u64 = 64 * 1024 * 1024;

/// Held back from a line that is cut, besides the longest secret: room for escape sequences in the middle of one.
const CUT_MARGIN: usize = 4096;

/// Makes redacted, clean lines out of chunks of foreign bytes.
#[derive(Debug, Default)]
pub struct LineMaker {
    redactor: Redactor,
    carry: Vec<u8>,
}

impl LineMaker {
    /// One that knows these secrets.
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, carry: Vec::new() }
    }

    /// Takes a chunk and hands on every line it completes.
    pub fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(CleanText)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            if self.carry.is_empty() && end <= MAX_LINE {
                line(self.clean(&rest[..end]));
            } else {
                self.extend(&rest[..end], &mut line);
                let whole = std::mem::take(&mut self.carry);
                line(self.clean(&whole));
            }
            rest = &rest[end + 1..];
        }
        self.extend(rest, &mut line);
    }

    /// Hands on what came after the last newline, if anything did.
    pub fn finish(&mut self, line: impl FnOnce(CleanText)) {
        if !self.carry.is_empty() {
            let last = std::mem::take(&mut self.carry);
            line(self.clean(&last));
        }
    }

    /// Redacts and cleans one line. Redacted twice: cleaning may join a secret that escape sequences had torn apart, and may
    /// change a secret that holds a tab.
    pub fn clean(&self, bytes: &[u8]) -> CleanText {
        if self.redactor.is_empty() {
            return CleanText::line(bytes);
        }
        let before = self.redactor.redact(&String::from_utf8_lossy(bytes));
        let clean = CleanText::line(before.as_bytes());
        let after = self.redactor.redact(clean.as_str());
        if after == clean.as_str() { clean } else { CleanText::line(after.as_bytes()) }
    }

    fn extend(&mut self, bytes: &[u8], line: &mut impl FnMut(CleanText)) {
        for part in bytes.chunks(CUT_MARGIN) {
            self.carry.extend_from_slice(part);
            if self.carry.len() > MAX_LINE {
                self.shorten(line);
            }
        }
    }

    /// Cuts a line that became too long. What a carriage return has overwritten goes first; then whole secrets are replaced,
    /// and so much is held back that one that has only begun is seen whole next time.
    fn shorten(&mut self, line: &mut impl FnMut(CleanText)) {
        if let Some(cr) = self.carry[..self.carry.len() - 1].iter().rposition(|b| *b == b'\r') {
            self.carry.drain(..=cr);
            if self.carry.len() <= MAX_LINE {
                return;
            }
        }
        let text = self.redactor.redact(&String::from_utf8_lossy(&self.carry));
        let keep = self.redactor.longest() + CUT_MARGIN;
        let mut cut = text.len().saturating_sub(keep);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        line(self.clean(&text.as_bytes()[..cut]));
        self.carry = text.as_bytes()[cut..].to_vec();
    }
}

/// The last lines of an output, for the screen.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    lines: VecDeque<CleanText>,
    bytes: usize,
    dropped: u64,
}

impl Ring {
    /// Most lines kept.
    pub const MAX_LINES: usize = 10_000;
    /// Most bytes kept.
    pub const MAX_BYTES: usize = 4 * 1024 * 1024;

    /// Adds a line at the end; the oldest make room.
    pub fn push(&mut self, line: CleanText) {
        self.bytes += line.as_str().len();
        self.lines.push_back(line);
        while self.lines.len() > Self::MAX_LINES || self.bytes > Self::MAX_BYTES {
            let Some(old) = self.lines.pop_front() else { break };
            self.bytes -= old.as_str().len();
            self.dropped += 1;
        }
    }
    /// Counts lines that were never seen here (a log that was opened near its end).
    pub fn skip(&mut self, lines: u64) {
        self.dropped += lines;
    }
    /// Lines kept, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &CleanText> + ExactSizeIterator {
        self.lines.iter()
    }
    /// The line at a position among those kept.
    pub fn get(&self, index: usize) -> Option<&CleanText> {
        self.lines.get(index)
    }
    /// Number of lines kept.
    pub fn len(&self) -> usize {
        self.lines.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
    /// Number of older lines that are no longer here.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What progress.json holds: how far the action is and how much it has printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatusFile {
    /// How far it is.
    #[serde(default)]
    pub progress: Progress,
    /// Lines in output.log.
    #[serde(default)]
    pub lines: u64,
    /// Bytes in output.log.
    #[serde(default)]
    pub bytes: u64,
    /// Lines counted but not in output.log.
    #[serde(default)]
    pub dropped_lines: u64,
    /// The last lines, when output.log is full and no longer shows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<CleanText>,
}

/// Lines kept for the end of a full log.
const TAIL_LINES: usize = 1000;
/// Bytes kept for the end of a full log.
const TAIL_BYTES: usize = 512 * 1024;
/// Lines of the tail shown in progress.json.
const TAIL_SHOWN: usize = 50;

/// The output of a run, written to output.log. Never fails: a full disk costs lines, which are counted, not the action.
#[derive(Debug)]
pub struct OutputLog {
    inner: Mutex<Inner>,
    path: PathBuf,
}

#[derive(Debug)]
struct Inner {
    maker: LineMaker,
    file: File,
    limit: u64,
    sha: Sha256,
    bytes: u64,
    lines: u64,
    dropped: u64,
    tail: VecDeque<CleanText>,
    tail_bytes: usize,
    broken: Option<String>,
    progress: Progress,
    changed: bool,
    pending: String,
    pending_lines: u64,
}

impl OutputLog {
    /// Creates the log at `path` (which must not exist: a run happens once), at most `limit` bytes long.
    ///
    /// # Errors
    /// State when the file cannot be made.
    pub fn create(path: &Path, mode: u32, redactor: Redactor, limit: u64) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .state(|| format!("cannot create {}", path.display()))?;
        let inner = Inner {
            maker: LineMaker::new(redactor),
            file,
            limit,
            sha: Sha256::new(),
            bytes: 0,
            lines: 0,
            dropped: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            broken: None,
            progress: Progress::default(),
            changed: false,
            pending: String::new(),
            pending_lines: 0,
        };
        Ok(Self { inner: Mutex::new(inner), path: path.to_path_buf() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while holding it loses at most one line; the rest of the output still belongs into the log.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What progress.json should say, if anything changed since the last call.
    pub fn changed(&self) -> Option<RunStatusFile> {
        let mut i = self.lock();
        std::mem::take(&mut i.changed).then(|| i.status())
    }

    /// Text with the secrets this log knows replaced, and cleaned: for summaries.
    pub fn redact(&self, text: &str) -> CleanText {
        let i = self.lock();
        let lines: Vec<String> = text.lines().map(|l| i.maker.clean(l.as_bytes()).to_string()).collect();
        CleanText::text(&lines.join("\n"))
    }

    /// Why not all of the output could be kept, when the disk did not take it. A log cut at its limit is not meant.
    pub fn lost(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Writes what is left, makes the file durable and says what it holds. Nothing is written afterwards.
    pub fn seal(&self) -> OutputSeal {
        let mut i = self.lock();
        i.finish();
        if let Err(e) = i.file.sync_all() {
            i.broken.get_or_insert_with(|| e.to_string());
        }
        if let Some(why) = &i.broken {
            tracing::warn!(file = %self.path.display(), why, "output could not be kept");
        }
        let hash: String = i.sha.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        OutputSeal { bytes: i.bytes, lines: i.lines, dropped_lines: i.dropped, sha256: Some(Digest::new(hash)) }
    }
}

impl Inner {
    fn add(&mut self, line: CleanText) {
        let size = line.as_str().len() as u64 + 1;
        let after = self.bytes + self.pending.len() as u64 + size;
        if self.dropped == 0 && self.broken.is_none() && after <= self.limit {
            self.pending.push_str(line.as_str());
            self.pending.push('\n');
            self.pending_lines += 1;
            return;
        }
        self.dropped += 1;
        self.tail_bytes += line.as_str().len();
        self.tail.push_back(line);
        while self.tail.len() > TAIL_LINES || self.tail_bytes > TAIL_BYTES {
            let Some(old) = self.tail.pop_front() else { break };
            self.tail_bytes -= old.as_str().len();
        }
    }

    /// One write for all lines of a chunk.
    fn write_pending(&mut self) {
        self.changed = true;
        if self.pending.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.pending);
        let lines = std::mem::take(&mut self.pending_lines);
        match self.file.write_all(text.as_bytes()) {
            Ok(()) => {
                self.sha.update(text.as_bytes());
                self.bytes += text.len() as u64;
                self.lines += lines;
            }
            Err(e) => {
                // The file must hold exactly what was hashed: take back what was written of it.
                let _ = self.file.set_len(self.bytes);
                self.broken.get_or_insert_with(|| e.to_string());
                self.dropped += lines;
            }
        }
        self.pending = text;
        self.pending.clear();
    }

    fn feed(&mut self, bytes: &[u8]) {
        let mut maker = std::mem::take(&mut self.maker);
        maker.feed(bytes, |l| self.add(l));
        self.maker = maker;
        self.write_pending();
    }

    /// The unfinished line, and of a full log how much is missing and how it ended.
    fn finish(&mut self) {
        let mut maker = std::mem::take(&mut self.maker);
        maker.finish(|l| self.add(l));
        self.maker = maker;
        self.write_pending();
        let tail = std::mem::take(&mut self.tail);
        self.tail_bytes = 0;
        if self.broken.is_some() || tail.is_empty() {
            return;
        }
        let left_out = self.dropped - tail.len() as u64;
        self.dropped = left_out;
        self.pending = format!(
            "[{left_out} lines are not kept: the limit is {} bytes; the last {} lines:]\n",
            self.limit,
            tail.len()
        );
        self.pending_lines = 1;
        for line in tail {
            self.pending.push_str(line.as_str());
            self.pending.push('\n');
            self.pending_lines += 1;
        }
        self.write_pending();
    }

    fn status(&self) -> RunStatusFile {
        let shown = self.tail.len().saturating_sub(TAIL_SHOWN);
        RunStatusFile {
            progress: self.progress.clone(),
            lines: self.lines,
            bytes: self.bytes,
            dropped_lines: self.dropped,
            tail: self.tail.iter().skip(shown).cloned().collect(),
        }
    }
}

impl Output for OutputLog {
    fn line(&self, text: &str) {
        let mut i = self.lock();
        // A line of our own does not end up in the middle of a child's unfinished one.
        for one in text.split('\n') {
            let clean = i.maker.clean(one.as_bytes());
            i.add(clean);
        }
        i.write_pending();
    }
    fn bytes(&self, bytes: &[u8]) {
        self.lock().feed(bytes);
    }
    fn progress(&self, progress: &Progress) {
        let mut i = self.lock();
        if i.progress != *progress {
            i.progress = progress.clone();
            i.changed = true;
        }
    }
}
