//! The locks of a run: `worker.lock` says the worker lives, `children.lock` says a child of it lives, `servers.lock` says a
//! server it started lives and still belongs to the run.
//!
//! All are `flock` locks (what `File::lock` takes on Linux and macOS): they belong to the open file, not to the process, so a
//! child that inherits the file holds the lock, also after the worker was killed. `worker.lock` is close-on-exec;
//! `children.lock` is inherited on purpose by every child except servers. A server that a run starts inherits `servers.lock`
//! instead: nobody can make it close the file later, but unlocking frees the lock for all who have it open, so the worker
//! lets the server go with one call when the run's end is recorded.

use std::fs::{File, TryLockError};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};

/// Name of the worker's lock in a run's folder.
pub const WORKER_LOCK: &str = "worker.lock";
/// Name of the children's lock in a run's folder.
pub const CHILDREN_LOCK: &str = "children.lock";
/// Name of the servers' lock in a run's folder.
pub const SERVERS_LOCK: &str = "servers.lock";

/// How long a worker waits for its locks: a console that probes holds one for an instant.
const TAKE_DEADLINE: Duration = Duration::from_secs(5);

/// What the locks of a run say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunLiveness {
    /// No lock file: no worker ever got that far.
    NeverStarted,
    /// The worker holds its lock.
    Running,
    /// The worker is gone but a child or server of the run still runs: watch or stop it, never retry.
    WorkerDied,
    /// Nobody holds any of them.
    Gone,
}

/// The children lock of this process, once it is a worker. Never closed: children must find it open.
static CHILDREN: OnceLock<Arc<File>> = OnceLock::new();

/// The descriptor children shall inherit, when this process is a worker.
pub(super) fn children_lock_fd() -> Option<RawFd> {
    CHILDREN.get().map(|f| f.as_raw_fd())
}

/// The servers' lock of this process, once it is a worker. Locked when the first server of the run starts.
static SERVERS: OnceLock<(Arc<File>, PathBuf)> = OnceLock::new();

/// The descriptor a server shall inherit that belongs to this process's run, locked; none when this process is no worker.
///
/// # Errors
/// Refused when somebody else holds it, which nobody should.
pub(super) fn servers_lock_fd() -> Result<Option<RawFd>> {
    let Some((file, path)) = SERVERS.get() else { return Ok(None) };
    lock_until(file, path)?;
    Ok(Some(file.as_raw_fd()))
}

/// The open `children.lock` of this process, when it is a worker. Children started through [`super::ChildSpec`] inherit it by
/// themselves; this is for whoever starts one in another way.
pub fn children_lock() -> Option<Arc<File>> {
    CHILDREN.get().cloned()
}

/// The locks a worker holds. Dropping releases `worker.lock`; servers are let go by [`RunLocks::release`].
#[derive(Debug)]
pub struct RunLocks {
    worker: File,
}

impl RunLocks {
    /// Takes both locks of the run in `folder` and makes every later child of this process inherit `children.lock`.
    ///
    /// # Errors
    /// Refused when another worker or its children hold them; state when the files cannot be made.
    pub fn take(folder: &Path) -> Result<Self> {
        let worker = open(&folder.join(WORKER_LOCK))?;
        lock_until(&worker, &folder.join(WORKER_LOCK))?;
        let children = open(&folder.join(CHILDREN_LOCK))?;
        lock_until(&children, &folder.join(CHILDREN_LOCK))?;
        CHILDREN
            .set(Arc::new(children))
            .map_err(|_| Error::state("this process already holds the locks of a run; a worker works on one"))?;
        let servers = folder.join(SERVERS_LOCK);
        let _ = SERVERS.set((Arc::new(open(&servers)?), servers));
        Ok(Self { worker })
    }

    /// Lets the locks go, after the finish was recorded. Servers of the run belong to nobody from here on. Children that
    /// still run keep `children.lock` held: it is not unlocked here, only no longer ours to hold once we exit.
    pub fn release(self) {
        if let Some((servers, _)) = SERVERS.get() {
            // For every process that has the file open, the server's among them.
            let _ = servers.unlock();
        }
        // Unlock rather than close: a child being forked right now holds a copy of the file for an instant.
        let _ = self.worker.unlock();
    }
}

fn open(path: &Path) -> Result<File> {
    let opened = crate::journal::files::open_or_create(path);
    opened.map(|(file, _)| file).state(|| format!("cannot open the lock {}", path.display()))
}

fn lock_until(file: &File, path: &Path) -> Result<()> {
    let deadline = Instant::now() + TAKE_DEADLINE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::WouldBlock) => {
                let who = holders(path).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(Error::refused(format!("the run's lock {} is held", path.display()))
                    .why(if who.is_empty() { "by another process".to_string() } else { format!("by process {who}") }));
            }
            Err(TryLockError::Error(e)) => return Err(e).state(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// Looks at the locks of the run in `folder` without keeping them.
///
/// # Errors
/// State when a lock file exists but cannot be opened or locked.
pub fn probe(folder: &Path) -> Result<RunLiveness> {
    match held(&folder.join(WORKER_LOCK))? {
        None => return Ok(RunLiveness::NeverStarted),
        Some(true) => return Ok(RunLiveness::Running),
        Some(false) => {}
    }
    Ok(if left(folder)?.is_empty() { RunLiveness::Gone } else { RunLiveness::WorkerDied })
}

/// The locks of the run that something holds, the worker's own excepted.
fn left(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut locks = Vec::new();
    for name in [CHILDREN_LOCK, SERVERS_LOCK] {
        let lock = folder.join(name);
        if held(&lock)? == Some(true) {
            locks.push(lock);
        }
    }
    Ok(locks)
}

/// Whether somebody holds an exclusive lock on the file; none when there is no such file.
fn held(path: &Path) -> Result<Option<bool>> {
    let file = match File::open(path) {
        Ok(f) => f,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).state(|| format!("cannot open the lock {}", path.display())),
    };
    // Shared, so that several consoles probing at once do not see each other.
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = file.unlock();
            Ok(Some(false))
        }
        Err(TryLockError::WouldBlock) => Ok(Some(true)),
        Err(TryLockError::Error(e)) => Err(e).state(|| format!("cannot probe the lock {}", path.display())),
    }
}

/// Processes that have the file open, by looking through `/proc` (Linux; empty elsewhere, and blind to other users' processes
/// unless we are root).
pub fn holders(path: &Path) -> Vec<u32> {
    let Ok(wanted) = std::fs::metadata(path) else { return Vec::new() };
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let me = std::process::id();
    let mut found: Vec<u32> = all
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != me && has_open(*pid, &wanted))
        .collect();
    found.sort_unstable();
    found
}

fn has_open(pid: u32, wanted: &std::fs::Metadata) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files
        .flatten()
        .any(|f| std::fs::metadata(f.path()).is_ok_and(|m| m.ino() == wanted.ino() && m.dev() == wanted.dev()))
}

/// One process that a dead worker left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Process id.
    pub pid: u32,
    /// Its command line as the system shows it, cut at 200 characters.
    pub command: String,
}

/// What of the run in `folder` still runs after its worker died, without what those started in their turn.
pub fn orphans(folder: &Path) -> Vec<Orphan> {
    let all: Vec<u32> = left(folder).unwrap_or_default().iter().flat_map(|lock| holders(lock)).collect();
    let first = |pid: &u32| parent_of(*pid).is_none_or(|parent| !all.contains(&parent));
    let mut found: Vec<u32> = all.iter().copied().filter(first).collect();
    found.sort_unstable();
    found.dedup();
    found
        .into_iter()
        .map(|pid| {
            let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&raw).replace('\0', " ");
            Orphan { pid, command: text.trim().chars().take(200).collect() }
        })
        .collect()
}

/// Field 4 of /proc/PID/stat (proc(5)); the command name before it may hold spaces and parentheses.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Ends what a dead worker left behind: TERM to each process group, up to [`super::group::GRACE`], then KILL. Returns whether the
/// run is gone. Blocks; call it off the screen's thread.
///
/// # Errors
/// State when the locks cannot be probed; refused while the worker itself lives (cancel the run instead).
pub fn stop_orphans(folder: &Path) -> Result<bool> {
    if probe(folder)? == RunLiveness::Running {
        return Err(Error::refused("the worker of this run is alive")
            .hint("Cancel the run instead: the worker ends its processes in order."));
    }
    let everybody = || left(folder).map(|locks| locks.iter().flat_map(|lock| holders(lock)).collect::<Vec<u32>>());
    let mut deadline = Instant::now() + super::group::GRACE;
    let mut signal = super::group::terminate as fn(u32);
    everybody()?.into_iter().for_each(|pid| signal(group_of(pid)));
    let mut killed = false;
    loop {
        if left(folder)?.is_empty() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            if killed {
                return Ok(false);
            }
            killed = true;
            signal = super::group::kill;
            everybody()?.into_iter().for_each(|pid| signal(group_of(pid)));
            deadline = Instant::now() + super::group::GRACE;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The group of a process; the children of a worker lead groups of their own.
fn group_of(pid: u32) -> u32 {
    i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .and_then(|p| rustix::process::getpgid(Some(p)).ok())
        .and_then(|g| u32::try_from(g.as_raw_nonzero().get()).ok())
        .unwrap_or(pid)
}
