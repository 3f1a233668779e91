//! The folder of a restore test, and what one that was killed left: a decrypted copy of a backup, and the server that runs on it.
//!
//! Beside the folder lies a lock file that its owner holds: whoever gets the lock knows that the owner is dead. It must be ours, so
//! nobody makes us remove or stop anything by putting a folder of this name there.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::postgres::{Instance, Programs, Stop, user};
use crate::process::UnixUser;

const PREFIX: &str = "breakglass-deep-";
const LOCK: &str = ".lock";

/// A folder for one restore test; goes with the value.
pub(super) struct Room {
    /// The folder.
    pub path: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Room {
    /// Makes it, for the user that works in it.
    ///
    /// # Errors
    /// Target when it cannot be made.
    pub fn new(scratch: &Path, run_as: Option<&UnixUser>) -> Result<Self> {
        let mut unique = [0u8; 4];
        getrandom::fill(&mut unique).map_err(|e| Error::state("no random numbers").why(e))?;
        let path = scratch.join(format!("{PREFIX}{}", crate::backup::container::hex(&unique)));
        let lock = path.with_extension(&LOCK[1..]);
        let what = || format!("making {:?}", lock.display());
        let held = File::options().write(true).create_new(true).mode(0o600).open(&lock).target(what)?;
        // Nobody else knows the name yet, but whoever sweeps at this moment: it gets another one then.
        if held.try_lock().is_err() || !same(&held, &lock) {
            return Self::new(scratch, run_as);
        }
        let room = Self { path, lock, _held: held };
        user::own_dir(&room.path, run_as)?;
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // As long as something of it is there, the lock says that nobody looks after it.
        if std::fs::remove_dir_all(&self.path).is_ok() || !self.path.exists() {
            let _ = std::fs::remove_file(&self.lock);
        }
    }
}

fn same(file: &File, at: &Path) -> bool {
    let id = |m: std::fs::Metadata| (m.dev(), m.ino());
    match (file.metadata(), std::fs::symlink_metadata(at)) {
        (Ok(open), Ok(there)) => id(open) == id(there),
        _ => false,
    }
}

/// Removes what restore tests that were killed left in a folder, with their servers. One sentence for each. What cannot be removed
/// is said, too.
pub fn sweep(scratch: &Path, bin_dir: Option<&Path>, run_as: Option<&UnixUser>) -> Vec<String> {
    let entries = std::fs::read_dir(scratch).into_iter().flatten().flatten();
    let locks = entries.filter_map(|e| e.file_name().into_string().ok());
    let locks = locks.filter(|n| n.starts_with(PREFIX) && n.ends_with(LOCK)).map(|n| scratch.join(n));
    locks.filter_map(|lock| one(&lock, bin_dir, run_as)).collect()
}

fn one(lock: &Path, bin_dir: Option<&Path>, run_as: Option<&UnixUser>) -> Option<String> {
    let there = std::fs::symlink_metadata(lock).ok()?;
    if !there.is_file() || there.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let held = File::options().write(true).open(lock).ok()?;
    if held.try_lock().is_err() || !same(&held, lock) {
        return None;
    }
    let folder = lock.with_extension("");
    let copy = std::fs::symlink_metadata(&folder).is_ok_and(|m| m.is_dir());
    let shown = folder.display();
    if copy {
        let major = std::fs::read_to_string(folder.join("data/PG_VERSION")).ok().and_then(|v| v.trim().parse().ok());
        let instance = Programs::find(bin_dir, major).and_then(|p| Instance::new(p, &folder, run_as.cloned()));
        // Where it cannot be stopped it ends by itself, once its files are gone.
        let _ = instance.and_then(|i| i.stop(Stop::Immediate, Duration::from_secs(60)));
        if let Err(e) = std::fs::remove_dir_all(&folder) {
            return Some(format!(
                "WARNING: a restore test that was killed left {shown}, a decrypted copy of a backup, and it cannot be removed: {e}"
            ));
        }
    }
    let _ = std::fs::remove_file(lock);
    copy.then(|| format!("removed what a restore test that was killed left: {shown}, a decrypted copy of a backup"))
}
