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

/// A run as seen through its files.
#[derive(Debug)]
pub struct Follower {
    log: PathBuf,
    progress: PathBuf,
    file: Option<File>,
    at: u64,
    maker: LineMaker,
    skip_to_newline: bool,
    stamp: Option<(SystemTime, u64)>,
    ring: Ring,
    status: RunStatusFile,
    passed: u64,
}

impl Follower {
    /// Follows the run in this folder. Nothing is read yet, and the files need not exist.
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
            ring: Ring::default(),
            status: RunStatusFile::default(),
            passed: 0,
        }
    }

    /// The last lines.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }
    /// Progress and counters; of a log that is full also its current end.
    pub fn status(&self) -> &RunStatusFile {
        &self.status
    }
    /// Bytes of output that were passed over.
    pub fn passed_bytes(&self) -> u64 {
        self.passed
    }

    /// Reads what is new, at most half a megabyte. Returns whether anything was; call again at once while it is true.
    ///
    /// # Errors
    /// State when the log exists and cannot be read.
    pub fn poll(&mut self) -> Result<bool> {
        let status = self.poll_status();
        Ok(self.poll_log().state(|| format!("cannot read {:?}", self.log))? || status)
    }

    /// Reads to the present end.
    ///
    /// # Errors
    /// As [`Follower::poll`].
    pub fn catch_up(&mut self) -> Result<()> {
        while self.poll()? {}
        Ok(())
    }

    fn poll_status(&mut self) -> bool {
        let Ok(meta) = std::fs::metadata(&self.progress) else { return false };
        let stamp = (meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), std::os::unix::fs::MetadataExt::ino(&meta));
        if self.stamp == Some(stamp) {
            return false;
        }
        self.stamp = Some(stamp);
        let read = std::fs::read(&self.progress).ok().and_then(|b| serde_json::from_slice::<RunStatusFile>(&b).ok());
        match read {
            Some(status) if status != self.status => {
                self.show_tail(&status);
                self.status = status;
                true
            }
            _ => false,
        }
    }

    /// The log is full: what still comes is shown from the samples in progress.json, with the gaps counted.
    fn show_tail(&mut self, new: &RunStatusFile) {
        let fresh = new.dropped_lines.saturating_sub(self.status.dropped_lines);
        let shown = usize::try_from(fresh).unwrap_or(usize::MAX).min(new.tail.len());
        if shown == 0 {
            return;
        }
        let gap = fresh - shown as u64;
        if gap > 0 {
            self.ring.push(CleanText::from(format!("[{gap} lines left out: output.log is full]")));
        }
        for line in &new.tail[new.tail.len() - shown..] {
            self.ring.push(line.clone());
        }
    }

    fn poll_log(&mut self) -> std::io::Result<bool> {
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
        let ring = &mut self.ring;
        self.maker.feed(fresh, |line| ring.push(line));
        Ok(!bytes.is_empty())
    }
}
