//! Segments that were opened ahead wait as files in a folder beside the service's socket until the recovering server takes them.
//!
//! Each has a name of its own, is written by nobody else, and is handed out only once it was authenticated to its last byte and
//! is durable: the server, which makes a segment durable before it replays it, then finds that done. Whoever takes one moves it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::repository::Unlocked;
use super::wal::fetch::{place, read_to};
use super::wal::name::{Segment, WalName};
use crate::error::{Context, Error, Result};

/// Where the files of the service at `socket` wait.
pub(super) fn folder(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_os_string();
    name.push(".d");
    PathBuf::from(name)
}

/// The folder of one service.
pub(super) struct Spool {
    folder: PathBuf,
    owner: Option<(u32, u32)>,
    opened: AtomicU64,
}

impl Spool {
    /// Makes the folder; what a service that was killed left in it is removed. None when the server could not move files from
    /// there into its log, or no folder can be made.
    pub(super) fn open(socket: &Path, data: &Path, owner: Option<(u32, u32)>) -> Option<Self> {
        let folder = folder(socket);
        let device = |path: &Path| fs::metadata(path).ok().map(|m| m.dev());
        let here = device(folder.parent()?)?;
        if device(&data.join("pg_wal")) != Some(here) {
            return None;
        }
        let it = Self { folder, owner, opened: AtomicU64::new(0) };
        it.remove();
        fs::DirBuilder::new().mode(0o700).create(&it.folder).ok()?;
        if let Some((uid, gid)) = owner
            && std::os::unix::fs::chown(&it.folder, Some(uid), Some(gid)).is_err()
        {
            it.remove();
            return None;
        }
        Some(it)
    }

    /// Opens a segment to its end. None when it is not in the archive and need not be.
    ///
    /// # Errors
    /// As of [`super::wal::fetch::read`]; or it cannot be written.
    pub(super) fn open_segment(&self, unlocked: &Unlocked, segment: Segment) -> Result<Option<Spooled>> {
        let name = format!("{segment}-{}", self.opened.fetch_add(1, Ordering::Relaxed));
        let path = self.folder.join(&name);
        let writing = || format!("writing {:?}", path.display());
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).target(writing)?;
        let mut spooled = Spooled { path: path.clone(), name, bytes: 0 };
        if let Some((uid, gid)) = self.owner {
            fchown(&file, Some(uid), Some(gid)).target(writing)?;
        }
        let Some(bytes) = read_to(unlocked, &WalName::Segment(segment), &mut file)? else { return Ok(None) };
        file.sync_data().target(writing)?;
        spooled.bytes = bytes;
        Ok(Some(spooled))
    }

    /// Removes the folder and everything that waits there.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A segment that waits; dropped, it is removed if nobody took it.
pub(super) struct Spooled {
    path: PathBuf,
    name: String,
    bytes: u64,
}

impl Spooled {
    /// Its name in the folder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
    /// Its size.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Moves a segment that waits, of so many bytes, to `dest`.
///
/// # Errors
/// It is not there, has another size, or cannot be moved.
pub(super) fn take(file: &Path, bytes: &str, dest: &Path) -> Result<()> {
    let moving = || format!("moving {:?} to {:?}", file.display(), dest.display());
    let found = fs::symlink_metadata(file).target(moving)?;
    if !found.is_file() || found.len().to_string() != bytes {
        return Err(Error::target(moving()).why(format!("it has {} bytes instead of {bytes}", found.len())));
    }
    match fs::rename(file, dest) {
        // Asked for by hand, to elsewhere.
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => place(dest, &fs::read(file).target(moving)?),
        moved => moved.target(moving),
    }
}
