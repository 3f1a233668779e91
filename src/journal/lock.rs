//! Locks between processes: `flock` on a file of its own, with a deadline, and the holder's name in the file.
//!
//! The lock belongs to the open file, so a child forked while it is held holds it too. It is therefore released by an
//! explicit unlock, never by closing the file. It works on a file that can only be read.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::model::{CleanText, Time};

use super::files;

/// How long a writer waits for a lock before it names the holder.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How long [`FileLock::try_acquire`] insists, so that somebody merely asking [`FileLock::is_held`] is not in the way.
const PROBE_GRACE: Duration = Duration::from_millis(20);

/// An exclusive lock, held until dropped.
#[derive(Debug)]
pub struct FileLock {
    file: Option<File>,
    path: PathBuf,
    writable: bool,
}

impl FileLock {
    /// Waits for the lock until the deadline; `what` says for others what it is held for ("appending to the journal").
    ///
    /// # Errors
    /// Of kind state: when the deadline passes, naming the holder; when the file can neither be created nor opened.
    pub fn acquire(path: impl AsRef<Path>, deadline: Duration, what: &str) -> Result<Self> {
        let path = path.as_ref();
        if let Some(held) = Self::take(path, deadline, what)? {
            return Ok(held);
        }
        let mut error = Error::state(format!("{path:?} is locked")).why(format!(
            "after waiting {} ms it is still held by {}",
            deadline.as_millis(),
            holder_words(path)
        ));
        if let Some((pid, host)) = holder_pid(path)
            && host == host_name()
            && is_stopped(pid)
        {
            error = error
                .hint(format!("process {pid} is stopped (Ctrl-Z?): continue it with `kill -CONT {pid}`, or end it"));
        }
        Err(error.hint("the lock frees itself when the process that holds it ends"))
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// Of kind state, when the file can neither be created nor opened.
    pub fn try_acquire(path: impl AsRef<Path>, what: &str) -> Result<Option<Self>> {
        Self::take(path.as_ref(), PROBE_GRACE, what)
    }

    /// Whether some process holds the lock. A missing file is held by nobody.
    ///
    /// # Errors
    /// Of kind state, when the file exists and cannot be opened.
    pub fn is_held(path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        let file = match File::open(path) {
            Ok(f) => f,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::state(format!("cannot open {path:?}")).why(e)),
        };
        // Shared, so that two who ask at the same time do not take each other for a holder.
        match file.try_lock_shared() {
            Ok(()) => {
                file.unlock().state(|| format!("cannot unlock {path:?}"))?;
                Ok(false)
            }
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(Error::state(format!("cannot lock {path:?}")).why(e)),
        }
    }

    /// Who holds the lock at `path`, as its holder wrote it: `pid 4711 on bastion since 2026-… (appending …)`.
    ///
    /// Meaningful only while [`FileLock::is_held`]; a holder that was killed leaves its name behind.
    pub fn holder(path: impl AsRef<Path>) -> Option<CleanText> {
        let mut buffer = [0u8; 400];
        let n = File::open(path).ok()?.read_at(&mut buffer, 0).ok()?;
        let line = buffer[..n].split(|b| *b == b'\n').next().unwrap_or_default();
        (!line.is_empty()).then(|| CleanText::line(line))
    }

    /// Gives the locked file away without unlocking: the lock lasts until the last process that inherited it has ended.
    ///
    /// For `children.lock`. An unlock by any of the heirs would free it for all of them.
    pub fn into_file(mut self) -> Option<File> {
        self.file.take()
    }

    /// Where the lock is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for handing it to a child on purpose.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    fn take(path: &Path, deadline: Duration, what: &str) -> Result<Option<Self>> {
        let begin = Instant::now();
        loop {
            let (file, writable) = open(path)?;
            if !wait(&file, path, deadline.saturating_sub(begin.elapsed()))? {
                return Ok(None);
            }
            // Somebody may have deleted the file meanwhile: a lock on a file without a name keeps nobody out.
            let ours = file.metadata().map(|m| (m.dev(), m.ino())).ok();
            if ours.is_some() && ours == std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok() {
                return Ok(Some(Self::held(file, path, writable, what)));
            }
            file.unlock().state(|| format!("cannot unlock {path:?}"))?;
        }
    }

    fn held(file: File, path: &Path, writable: bool, what: &str) -> Self {
        if writable {
            let now = Time::from_system(std::time::SystemTime::now());
            let text = format!("pid {} on {} since {now} ({what})\n", std::process::id(), host_name());
            // The name is a courtesy: a full disk must not keep anybody from locking.
            let _ = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64));
        }
        Self { file: Some(file), path: path.to_path_buf(), writable }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            if self.writable {
                let _ = file.set_len(0);
            }
            let _ = file.unlock();
        }
    }
}

/// Opens the lock file, for writing if possible; the second value says whether it was.
fn open(path: &Path) -> Result<(File, bool)> {
    match files::open_or_create(path) {
        Ok((file, _)) => Ok((file, true)),
        // A read-only directory, or a file of somebody else: flock needs no right to write.
        Err(e) => match OpenOptions::new().read(true).open(path) {
            Ok(file) => Ok((file, false)),
            Err(_) => Err(Error::state(format!("cannot open the lock {path:?}")).why(e)),
        },
    }
}

/// Polls until the lock is taken (true) or the deadline has passed (false).
fn wait(file: &File, path: &Path, deadline: Duration) -> Result<bool> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(50);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(e)) => {
                return Err(Error::state(format!("cannot lock {path:?}"))
                    .why(e)
                    .hint("some network file systems have no locks: put the state directory on a local disk"));
            }
        }
        let left = deadline.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// The name of this machine, as it stands in lock files and in `RunStarted`.
pub fn host_name() -> String {
    CleanText::line(rustix::system::uname().nodename().to_bytes()).to_string()
}

fn holder_words(path: &Path) -> String {
    FileLock::holder(path).map_or_else(|| "a process that did not say its name".into(), |h| h.to_string())
}

fn holder_pid(path: &Path) -> Option<(u32, String)> {
    let text = FileLock::holder(path)?;
    let mut words = text.as_str().split(' ');
    let pid = (words.next()? == "pid").then(|| words.next())??.parse().ok()?;
    Some((pid, (words.next()? == "on").then(|| words.next())??.to_string()))
}

/// Whether the kernel lists the process as stopped (proc(5), field 3 of `stat`).
fn is_stopped(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The command name before it stands in parentheses and may itself contain any character.
    stat.rsplit_once(')').is_some_and(|(_, rest)| matches!(rest.trim_start().chars().next(), Some('T' | 't')))
}
