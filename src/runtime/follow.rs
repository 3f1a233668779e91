//! Follows a run from its files: output.log into a ring, progress.json into progress. Reads in bounded pieces, so that a flood
//! never holds up the screen, and jumps ahead when it falls far behind.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::worker::{OUTPUT_FILE, PROGRESS_FILE};
use crate::action::output::{LineMaker, Ring, RunStatusFile};
use crate::error::{Context, Result};
use crate::model::{CleanText, Redactor};

/// Most bytes read by one look.
const PIECE: u64 = 512 * 1024;
/// Further behind than this, older output is passed over.
const BEHIND: u64 = Ring::MAX_BYTES as u64;

/// Reads a run's files, a piece at a time. It keeps no lines: who shows them takes them in under a lock of its own, which is
/// then never held while output is read and cleaned.
#[derive(Debug)]
pub struct Reader {
    log: PathBuf,
    progress: PathBuf,
    file: Option<File>,
    at: u64,
    maker: LineMaker,
    skip_to_newline: bool,
    stamp: Option<(SystemTime, u64)>,
    status: RunStatusFile,
    passed: u64,
}

/// What one look found.
#[derive(Debug, Default)]
pub struct News {
    /// New lines, oldest first.
    pub lines: Vec<CleanText>,
    /// Progress and counters, when they changed.
    pub status: Option<RunStatusFile>,
    /// Whether there may be more at once.
    pub more: bool,
}

impl Reader {
    /// Reads the run in this folder. Nothing is read yet, and the files need not exist.
    pub fn new(run_dir: &Path) -> Self {
        Self {
            log: run_dir.join(OUTPUT_FILE),
            progress: run_dir.join(PROGRESS_FILE),
            file: None,
            at: 0,
            // What stands in the log is redacted; it is cleaned again because a file can be changed.
            maker: LineMaker::new(Redactor::default()),
            skip_to_newline: false,
            stamp: None,
            status: RunStatusFile::default(),
            passed: 0,
        }
    }

    /// Reads what is new, at most half a megabyte.
    ///
    /// # Errors
    /// State when the log exists and cannot be read.
    pub fn poll(&mut self) -> Result<News> {
        let mut news = News::default();
        let status = self.poll_status(&mut news.lines);
        if status {
            news.status = Some(self.status.clone());
        }
        let log = self.poll_log(&mut news.lines).state(|| format!("cannot read {:?}", self.log))?;
        news.more = log || status;
        Ok(news)
    }

    fn poll_status(&mut self, lines: &mut Vec<CleanText>) -> bool {
        let Ok(meta) = std::fs::metadata(&self.progress) else { return false };
        let stamp = (meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), std::os::unix::fs::MetadataExt::ino(&meta));
        if self.stamp == Some(stamp) {
            return false;
        }
        self.stamp = Some(stamp);
        let read = std::fs::read(&self.progress).ok().and_then(|b| serde_json::from_slice::<RunStatusFile>(&b).ok());
        match read {
            Some(status) if status != self.status => {
                self.show_tail(&status, lines);
                self.status = status;
                true
            }
            _ => false,
        }
    }

    /// The log is full: what still comes is shown from the samples in progress.json, with the gaps counted.
    fn show_tail(&self, new: &RunStatusFile, lines: &mut Vec<CleanText>) {
        let fresh = new.dropped_lines.saturating_sub(self.status.dropped_lines);
        let shown = usize::try_from(fresh).unwrap_or(usize::MAX).min(new.tail.len());
        if shown == 0 {
            return;
        }
        let gap = fresh - shown as u64;
        if gap > 0 {
            lines.push(CleanText::from(format!("[{gap} lines left out: output.log is full]")));
        }
        lines.extend_from_slice(&new.tail[new.tail.len() - shown..]);
    }

    fn poll_log(&mut self, lines: &mut Vec<CleanText>) -> std::io::Result<bool> {
        if self.file.is_none() {
            match File::open(&self.log) {
                Ok(f) => self.file = Some(f),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        let Some(file) = &mut self.file else { return Ok(false) };
        let end = file.metadata()?.len();
        if end <= self.at {
            return Ok(false);
        }
        if end - self.at > BEHIND + PIECE {
            let to = end - BEHIND;
            self.passed += to - self.at;
            self.at = to;
            self.maker = LineMaker::new(Redactor::default());
            self.skip_to_newline = true;
        }
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::with_capacity(usize::try_from(PIECE.min(end - self.at)).unwrap_or(0));
        file.take(PIECE).read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        let mut fresh: &[u8] = &bytes;
        if self.skip_to_newline {
            match fresh.iter().position(|b| *b == b'\n') {
                Some(n) => {
                    fresh = &fresh[n + 1..];
                    self.skip_to_newline = false;
                }
                None => fresh = &[],
            }
        }
        self.maker.feed(fresh, |line| lines.push(line));
        Ok(!bytes.is_empty())
    }
}

/// A run as seen through its files, with its last lines.
#[derive(Debug)]
pub struct Follower {
    reader: Reader,
    seen: Seen,
}

/// What is shown of a run: its last lines and its progress.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last lines.
    pub ring: Ring,
    /// Progress and counters; of a log that is full also its current end.
    pub status: RunStatusFile,
}

impl Seen {
    /// Takes in what one look found. Returns whether to look again at once.
    pub fn take(&mut self, news: News) -> bool {
        for line in news.lines {
            self.ring.push(line);
        }
        if let Some(status) = news.status {
            self.status = status;
        }
        news.more
    }
}

impl Follower {
    /// Follows the run in this folder. Nothing is read yet, and the files need not exist.
    pub fn new(run_dir: &Path) -> Self {
        Self { reader: Reader::new(run_dir), seen: Seen::default() }
    }
    /// The last lines.
    pub fn ring(&self) -> &Ring {
        &self.seen.ring
    }
    /// Progress and counters; of a log that is full also its current end.
    pub fn status(&self) -> &RunStatusFile {
        &self.seen.status
    }
    /// Bytes of output that were passed over.
    pub fn passed_bytes(&self) -> u64 {
        self.reader.passed
    }

    /// Reads what is new, at most half a megabyte. Returns whether anything was; call again at once while it is true.
    ///
    /// # Errors
    /// State when the log exists and cannot be read.
    pub fn poll(&mut self) -> Result<bool> {
        Ok(self.seen.take(self.reader.poll()?))
    }

    /// Reads to the present end.
    ///
    /// # Errors
    /// As [`Follower::poll`].
    pub fn catch_up(&mut self) -> Result<()> {
        while self.poll()? {}
        Ok(())
    }
}
