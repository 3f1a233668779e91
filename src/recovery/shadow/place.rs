//! The folder a shadow is built in: new, or one whose files are reused.

use std::path::{Path, PathBuf};

use super::{RECORD, Request, Shadow};
use crate::backup::base::delta::{rewriting_name, same_cluster};
use crate::error::{Context, Error, Result};
use crate::model::target::RecoveryTarget;
use crate::postgres::Layout;
use crate::postgres::running::running_in;
use crate::postgres::user;
use crate::recovery::range::Route;
use crate::recovery::typed;

/// Where what is reused comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// From the folder of an earlier recovery, which this one replaces.
    Same,
    /// From this data directory, which is moved into the new folder and is no longer where it was.
    Moved(PathBuf),
}

impl Delta {
    /// What is given up for it and must be named for that: all but a recovery of ours that was never in service. A standby or a
    /// fenced primary waits for the log, too, and may be the only one that has what came last.
    pub fn gives_up(&self, dir: &Path) -> Option<String> {
        let lost = match self {
            Self::Same => dir.join("data").exists() && !never_in_service(dir),
            Self::Moved(old) => old.exists(),
        };
        lost.then(|| dir.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }
}

/// Whether the folder holds a recovery of ours that can be built again: it still waits for the log, and began no timeline.
fn never_in_service(root: &Path) -> bool {
    let (data, ours) = (root.join("data"), Layout::under(root, 0).config.is_dir());
    let waits = ["recovery.signal", "standby.signal"].iter().any(|f| data.join(f).exists());
    let timeline = Shadow::load(root).map_or(u32::MAX, |s| s.timeline);
    let began = |name: &std::ffi::OsStr| {
        let id = name.to_str().and_then(|n| n.strip_suffix(".history"));
        id.and_then(|id| u32::from_str_radix(id, 16).ok()).is_some_and(|id| id > timeline)
    };
    let promoted = std::fs::read_dir(data.join("pg_wal"))
        .is_ok_and(|entries| entries.filter_map(std::result::Result::ok).any(|e| began(&e.file_name())));
    ours && waits && !promoted
}

pub(super) fn prepare_root(request: &Request) -> Result<()> {
    let root = &request.root;
    let Route { target, timeline, .. } = &request.route;
    let on = || ways_of(root, target, request.route.after(), Some(*timeline));
    if let Some((data, pid)) = running_in(root) {
        let e = Error::refused(format!("cannot build a shadow in {:?}", root.display()))
            .why(format!("a server is running on {:?}, process {pid}", data.display()))
            .hint("name another folder with --dir; the running server was not touched");
        return Err(on().into_iter().fold(e, Error::hint).hint(STALE));
    }
    let empty = !std::fs::read_dir(root).is_ok_and(|mut d| d.next().is_some());
    let data = root.join("data");
    match &request.delta {
        Some(Delta::Same) if data.exists() || rewriting_name(&data).exists() => {
            if data.exists() {
                same_cluster(&data, &request.route.backup)?;
                if !never_in_service(root) {
                    keep_log(&data, root)?;
                }
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
        let e = Error::refused(format!("cannot build a shadow in {:?}", root.display()))
            .why("the folder is not empty")
            .hint("name another folder with --dir; nothing is ever overwritten");
        return Err(on().into_iter().fold(e, Error::hint));
    }
    user::own_dir(root, request.user.as_ref())
}

/// What its server had written of the log, of a data directory that was in service. Some of it may be archived nowhere.
pub const KEPT_LOG: &str = "pg_wal-before";
/// What to do about a pid file whose server is gone.
const STALE: &str = "if no server runs on it, here or in a container that has it mounted: remove its postmaster.pid";

/// Moves the log of a data directory out of it, before anything in it is rewritten. Done already: nothing happens.
fn keep_log(data: &Path, root: &Path) -> Result<()> {
    let log = data.join("pg_wal");
    if !log.exists() {
        return Ok(());
    }
    let names = std::iter::once(KEPT_LOG.to_string()).chain((2..).map(|n| format!("{KEPT_LOG}-{n}")));
    let free = names.map(|n| root.join(n)).find(|p| !p.exists()).unwrap_or_else(|| root.join(KEPT_LOG));
    std::fs::rename(&log, &free).map_err(|e| moving(&log, &free, &e))
}

fn moving(from: &Path, to: &Path, e: &std::io::Error) -> Error {
    let error = Error::refused(format!("cannot move {:?} to {:?}", from.display(), to.display())).why(e);
    match e.kind() {
        std::io::ErrorKind::CrossesDevices => {
            error.hint("both must be on one file system: set postgres.instances_dir to a folder there")
        }
        _ => error,
    }
    .hint("or leave --delta out: everything is made anew, and nothing is moved")
}

/// A data directory that is reused goes into the new folder, so that nobody starts a server on it where it was.
fn move_in(old: &Path, data: &Path, request: &Request) -> Result<()> {
    let root = &request.root;
    if let Some((_, pid)) = running_in(old) {
        return Err(Error::refused(format!("cannot reuse {:?}", old.display()))
            .why(format!("a server is running on it, process {pid}"))
            .hint("stop it first, or recover into a new folder; the running server was not touched")
            .hint(STALE));
    }
    same_cluster(old, &request.route.backup)?;
    user::own_dir(root, request.user.as_ref())?;
    std::fs::rename(old, data).map_err(|e| moving(old, data, &e))?;
    keep_log(data, root)
}

/// How the folder of a recovery begins that nobody named.
pub const NAMED: &str = "shadow-";
/// The port an instance of ours has until it takes another's place.
const PORT: u16 = 5432;

/// What an unfinished recovery left in its folder, and how to go on. What is no use to anybody is removed.
pub(super) fn ways_on(request: &Request, e: Error) -> Error {
    let root = request.root.display();
    // The files appear whole or not at all: without them there is nothing to look at or to go on from.
    if request.delta.is_none() && !request.root.join("data").exists() {
        let sockets = Layout::under(&request.root, PORT).sockets;
        if !sockets.starts_with(&request.root) {
            let _ = std::fs::remove_dir_all(&sockets);
        }
        return match std::fs::remove_dir_all(&request.root) {
            Ok(()) => e.hint(format!("nothing was left in {root}: the same command again starts over")),
            Err(_) => e.hint(format!("to remove what was left in {root}: {}", typed::discard(&request.root))),
        };
    }
    let Route { target, timeline, .. } = &request.route;
    let e = e.hint(format!("what is there so far is in {root}"));
    ways_of(&request.root, target, request.route.after(), Some(*timeline)).into_iter().fold(e, Error::hint)
}

/// The ways on from what a recovery to this target finds in its folder, as they can be typed; none where the folder is none of ours, or
/// holds what was in service.
pub fn ways_of(root: &Path, target: &RecoveryTarget, after: bool, timeline: Option<u32>) -> Vec<String> {
    let data = root.join("data");
    let config = Layout::under(root, PORT).config;
    // Written once the files are there, and only for a recovery does it say so.
    let settings = std::fs::read_to_string(config.join("postgresql.conf")).ok();
    let other = settings.is_some_and(|t| !t.contains("recovery_target_timeline") || t.contains("archive_mode = 'on'"));
    if !config.is_dir() || other || data.exists() && !never_in_service(root) {
        return Vec::new();
    }
    let (dir, timeline) = (root.display().to_string(), timeline.map(|t| t.to_string()));
    let along = timeline.as_deref().map(|t| ("--timeline", Some(t)));
    let typed = |more: &[(&str, Option<&str>)]| {
        let options: Vec<_> = along.iter().chain(more).copied().collect();
        typed::restore(target, after, &options)
    };
    let there = data.exists() || rewriting_name(&data).exists();
    let mut out = Vec::new();
    let running = running_in(root).is_some();
    if there {
        let first = if running { ", once its server has ended" } else { "" };
        out.push(format!("to go on with its files{first}: {}", typed(&[("--delta", None), ("--dir", Some(&dir))])));
    }
    let stop = if running { "end its server, " } else { "" };
    out.push(format!(
        "to {stop}remove what is there and start over: {}, then {}",
        typed::discard(root),
        typed(&[("--dir", Some(&dir))])
    ));
    out
}

/// Recoveries in the folders below this one that are not finished: broken off, or still under way.
pub fn unfinished_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let ours = |root: &PathBuf| {
        let named = root.file_name().is_some_and(|n| n.to_string_lossy().starts_with(NAMED));
        named && Layout::under(root, PORT).config.is_dir() && !root.join(RECORD).exists()
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(ours).collect();
    found.sort();
    found
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
    // The files, a tenth more for what replay adds to them, and the segments that wait or that the server keeps while it replays.
    let needed = bytes + bytes / 10 + (256 << 20);
    let free = free_space(root)?;
    if free >= needed || ignore {
        return Ok(());
    }
    Err(Error::refused(format!("not enough space in {:?}", root.display()))
        .why(format!("{} MB are needed, {} MB are free", needed >> 20, free >> 20))
        .hint("set postgres.instances_dir, or --dir, to a larger file system")
        .hint("to try all the same: --ignore-space"))
}
