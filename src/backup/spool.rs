//! A private scratch file for what a tool must be able to seek in: nobody else can read it, and nothing of it is left when
//! we die, where the system allows that.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::container::{hex, seal, to_io};
use crate::error::{Context, Error, Result};

/// The file. Removed when dropped; on Linux it has no name to begin with.
#[derive(Debug)]
pub struct Spool {
    file: File,
    named: Option<PathBuf>,
    dir: PathBuf,
}

impl Spool {
    /// A new file in `dir`, mode 0600, of `owner` when given (needs root).
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(dir: &Path, owner: Option<(u32, u32)>) -> Result<Self> {
        let mut unique = [0u8; 12];
        seal::random(&mut unique)?;
        let path = dir.join(format!(".breakglass-spool-{}", hex(&unique)));
        let what = || format!("making a scratch file in {:?}", dir.display());
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(|e| {
                Error::target(what()).why(e).hint("Name another folder for scratch files with --scratch.")
            })?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).target(what)?;
        }
        if cfg!(target_os = "linux") {
            std::fs::remove_file(&path).target(what)?;
            return Ok(Self { file, named: None, dir: dir.into() });
        }
        Ok(Self { file, named: Some(path), dir: dir.into() })
    }

    /// The path under which a child that was passed the file can open it.
    pub fn path(&self) -> PathBuf {
        self.named.clone().unwrap_or_else(|| PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd())))
    }

    /// Writes at a place of it; what lies before and was never written reads as zeros and takes no room.
    ///
    /// # Errors
    /// As a write.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, at).map_err(|e| self.full(e))
    }

    /// Names the folder in an error of writing to it, where its disk is full: it is seldom the repository's.
    pub fn full(&self, e: io::Error) -> io::Error {
        if !matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return e;
        }
        let dir = self.dir.display().to_string();
        to_io(
            Error::target(format!("writing a scratch file in {dir:?}"))
                .why(e)
                .hint(format!("The disk of {dir:?} is full: free space there, or name another folder with --scratch.")),
        )
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file, to be passed to a child.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|e| self.full(e))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Some(path) = &self.named {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// How the error of [`check_space`] begins.
pub const NO_SPACE: &str = "no space for";

/// Refuses when a folder's file system has less than `bytes` free for us.
///
/// # Errors
/// Target, with both figures; it cannot be asked.
pub fn check_space(dir: &Path, bytes: u64, what: &str) -> Result<()> {
    let at = dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(at).target(|| format!("asking for the free space of {:?}", at.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= bytes {
        return Ok(());
    }
    Err(Error::target(format!("{NO_SPACE} {what} in {:?}", dir.display()))
        .why(format!("{} MB are needed, {} MB are free", bytes / 1_000_000 + 1, free / 1_000_000))
        .hint("Free space there, or name another folder; --ignore-space goes on all the same."))
}

/// That the file system of a repository in a folder is mounted read-only, in a sentence: no backup and no log gets there.
///
/// What cannot be asked is said by whoever opens the repository.
pub fn mounted_read_only(place: &str) -> Option<String> {
    let place = place.strip_prefix("file://").unwrap_or(place);
    if place.contains("://") {
        return None;
    }
    // Asked as a write would be; statvfs knows nothing of some network mounts.
    let refused = rustix::fs::access(Path::new(place), rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ROFS);
    let flags = rustix::fs::statvfs(Path::new(place)).map(|s| s.f_flag);
    let flagged = flags.is_ok_and(|f| f.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    (refused || flagged).then(|| {
        format!("the file system of {place:?} is mounted read-only: no log is archived there and no backup stored")
    })
}

/// A segment of the log as it is by default.
const LEAST: u64 = 16 << 20;

/// That the disk of a repository in a folder has no room for one more segment of the log, in a sentence.
///
/// What cannot be asked is said by whoever opens the repository.
pub fn disk_full(place: &str) -> Option<String> {
    let place = place.strip_prefix("file://").unwrap_or(place);
    if place.contains("://") {
        return None;
    }
    let stat = rustix::fs::statvfs(Path::new(place)).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    (free < LEAST).then(|| {
        format!(
            "the disk of {place:?} is full: {} kB are free, less than one segment of the log takes, so no log is archived there and \
             no backup stored",
            free / 1000
        )
    })
}
