//! The folder a shadow is built in: new, or one whose files are reused.

use std::path::{Path, PathBuf};

use super::{RECORD, Request};
use crate::backup::base::delta::{rewriting_name, same_cluster};
use crate::error::{Context, Error, Result};
use crate::postgres::running::running_in;
use crate::postgres::user;

/// Where what is reused comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// From the folder of an earlier recovery, which this one replaces.
    Same,
    /// From this data directory, which is moved into the new folder and is no longer where it was.
    Moved(PathBuf),
}

impl Delta {
    /// What is given up for it and must be named for that: a data directory that is no recovery under way, but was in service or
    /// was made to be. None when what is replaced can be built again.
    pub fn gives_up(&self, dir: &Path) -> Option<String> {
        let data = match self {
            Self::Same => dir.join("data"),
            Self::Moved(old) => old.clone(),
        };
        let shadow = ["recovery.signal", "standby.signal"].iter().any(|f| data.join(f).exists());
        let name = || dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (data.exists() && !shadow).then(name)
    }
}

pub(super) fn prepare_root(request: &Request) -> Result<()> {
    let root = &request.root;
    if let Some((data, pid)) = running_in(root) {
        return Err(Error::refused(format!("cannot build a shadow in {:?}", root.display()))
            .why(format!("a server is running on {:?}, process {pid}", data.display()))
            .hint("name another folder with --dir; the running server was not touched"));
    }
    let empty = !std::fs::read_dir(root).is_ok_and(|mut d| d.next().is_some());
    let data = root.join("data");
    match &request.delta {
        Some(Delta::Same) if data.exists() || rewriting_name(&data).exists() => {
            if data.exists() {
                same_cluster(&data, &request.route.backup)?;
            }
            // What it says is no longer so.
            return match std::fs::remove_file(root.join(RECORD)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::target(format!("cannot remove {RECORD}")).why(e))
                }
                _ => Ok(()),
            };
        }
        Some(Delta::Same) => {
            return Err(Error::refused(format!("nothing to reuse in {:?}", root.display()))
                .why("it holds no data directory")
                .hint("name the folder of an earlier recovery, or a data directory; or leave --delta out"));
        }
        Some(Delta::Moved(old)) if empty => return move_in(old, &data, request),
        _ => {}
    }
    if !empty {
        return Err(Error::refused(format!("cannot build a shadow in {:?}", root.display()))
            .why("the folder is not empty")
            .hint("name another folder with --dir; nothing is ever overwritten"));
    }
    user::own_dir(root, request.user.as_ref())
}

/// Of a data directory that was moved in: what its server had written of the log. Some of it may be archived nowhere.
const KEPT_LOG: &str = "pg_wal-before";

/// A data directory that is reused goes into the new folder, so that nobody starts a server on it where it was.
fn move_in(old: &Path, data: &Path, request: &Request) -> Result<()> {
    let cannot = || Error::refused(format!("cannot reuse {:?}", old.display()));
    if let Some((_, pid)) = running_in(old) {
        return Err(cannot()
            .why(format!("a server is running on it, process {pid}"))
            .hint("stop it first, or recover into a new folder; the running server was not touched"));
    }
    same_cluster(old, &request.route.backup)?;
    user::own_dir(&request.root, request.user.as_ref())?;
    let moved = |from: &Path, to: &Path| {
        std::fs::rename(from, to).map_err(|e| {
            cannot()
                .why(format!("{:?} cannot be moved to {:?}: {e}", from.display(), to.display()))
                .hint("both must be on one file system: set postgres.instances_dir to a folder there")
                .hint("or leave --delta out: everything is made anew, and nothing is moved")
        })
    };
    // First, so that it cannot be lost between the two.
    moved(&old.join("pg_wal"), &request.root.join(KEPT_LOG))?;
    moved(old, data)
}

/// Bytes free for us where `dir` is.
///
/// # Errors
/// The file system cannot be asked.
pub fn free_space(dir: &Path) -> Result<u64> {
    let s = rustix::fs::statvfs(dir).target(|| format!("cannot ask for the free space of {:?}", dir.display()))?;
    Ok(s.f_bavail.saturating_mul(s.f_frsize))
}

pub(super) fn check_space(root: &Path, bytes: u64, ignore: bool) -> Result<()> {
    // The files, a tenth more for what replay adds to them, and the segments the server keeps while it replays.
    let needed = bytes + bytes / 10 + (128 << 20);
    let free = free_space(root)?;
    if free >= needed || ignore {
        return Ok(());
    }
    Err(Error::refused(format!("not enough space in {:?}", root.display()))
        .why(format!("{} MB are needed, {} MB are free", needed >> 20, free >> 20))
        .hint("set postgres.instances_dir, or --dir, to a larger file system")
        .hint("to try all the same: --ignore-space"))
}
