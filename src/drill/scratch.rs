//! The scratch directory of a drill: where it is made, what lies where, who is alive in it.
//!
//! ```text
//! /tmp/bg-1f00c2a9/      mode 0711: the server's user passes through, nobody lists it
//!   alive.lock           held (shared) by the console while it sets up and by the umpire for its whole life; it is made and
//!                        held before the directory gets its name, so a directory nobody holds is dead
//!   opened               there is an incident: whoever comes back finds the drill
//!   sandbox.json         what the drill is made of, no secret (see Facts)
//!   passphrase           of the repository, 0600; generated for this drill and worth nothing outside it
//!   bin/breakglass       copy of this program that the server's user can execute (archive_command)
//!   db/                  the cluster; recovered ones go into i/
//!   repository/          backups and WAL, encrypted
//!   control.sock         the umpire
//! ```

use std::fs::{self, File, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::server::{SOCKET_PATH_MAX, Server};
use super::shop::Scale;
use super::traffic::Shape;
use crate::error::{Context, Error, Result};
use crate::model::{Secret, Time};

/// How the names of scratch directories begin.
pub const PREFIX: &str = "bg-";
/// Extension of a directory that has no lock yet that is held.
pub(super) const NEW: &str = "new";
/// What lies deepest below a scratch directory and is a socket: the one of a recovered instance.
const LONGEST_SOCKET: &str = "/i/20261120T140107Z-4711-shadow/sockets/.s.PGSQL.5432";

/// What a drill is made of; `sandbox.json`. No secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Format, 1.
    pub v: u32,
    /// Version of the program that made it.
    pub program: String,
    /// When.
    pub made: Time,
    /// Not removed at the end, nor as a leftover.
    pub keep: bool,
    /// Slug of the scenario that is drilled.
    #[serde(default = "first_scenario")]
    pub scenario: String,
    /// What of the scenario is given and not drawn, one of [`super::session::VARIANTS`].
    #[serde(default)]
    pub variant: Option<String>,
    /// `--size`.
    pub size: u32,
    /// Rows loaded.
    pub scale: Scale,
    /// Seed of the shop and of what the traffic orders. Not the injector's.
    pub seed: u32,
    /// The traffic.
    pub shape: Shape,
    /// The database as the application uses it.
    pub server: Server,
    /// Identity of the cluster.
    pub system_identifier: String,
    /// Bytes of the database after loading.
    pub bytes: u64,
    /// Unix user of the server when it is not ours.
    pub run_as: Option<String>,
    /// Directory of the server programs.
    pub bin_dir: PathBuf,
    /// The umpire ends, and clears the drill away, when nobody asked it anything for this many seconds.
    pub orphan_after_s: u64,
    /// Database size for which the report projects the recovery time.
    #[serde(default)]
    pub project_size_bytes: Option<u64>,
    /// The umpire, once it runs.
    pub umpire: Option<ProcessId>,
    /// Who made it.
    #[serde(default)]
    pub maker: Option<ProcessId>,
}

fn first_scenario() -> String {
    super::session::CORRUPTION.into()
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Number.
    pub pid: u32,
    /// Start time in clock ticks since boot, where /proc says it.
    pub start: Option<u64>,
}

impl ProcessId {
    /// The process with this number now.
    pub fn of(pid: u32) -> Self {
        Self { pid, start: start_ticks(pid) }
    }
    /// This process.
    pub fn own() -> Self {
        Self::of(std::process::id())
    }
    /// Whether it still runs. One that ended and waits for its parent does not.
    pub fn is_alive(&self) -> bool {
        match self.start {
            Some(start) => start_ticks(self.pid) == Some(start),
            // Without a start time that can be compared: not on Linux, or it was gone already.
            None => !cfg!(target_os = "linux") && crate::process::group::process_alive(self.pid),
        }
    }
}

/// Field 22 of /proc/PID/stat (proc(5)), none for a process that ended; the command name before it may hold spaces and parentheses.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(") ")?.1;
    if rest.starts_with('Z') { None } else { rest.split(' ').nth(19)?.parse().ok() }
}

/// The umpire's socket.
pub fn control_socket(scratch: &Path) -> PathBuf {
    scratch.join("control.sock")
}
/// Root of the cluster.
pub fn cluster(scratch: &Path) -> PathBuf {
    scratch.join("db")
}
/// Where recovered instances are made.
pub fn instances(scratch: &Path) -> PathBuf {
    scratch.join("i")
}
/// The repository.
pub fn repository(scratch: &Path) -> PathBuf {
    scratch.join("repository")
}
/// Our executable, where the server's user can execute it.
pub fn executable(scratch: &Path) -> PathBuf {
    scratch.join("bin").join("breakglass")
}
fn lock_file(scratch: &Path) -> PathBuf {
    scratch.join("alive.lock")
}
/// Whether it has its lock. One without was killed before it got its name, or while it was removed.
pub(super) fn has_lock(scratch: &Path) -> bool {
    lock_file(scratch).exists()
}
fn opened_file(scratch: &Path) -> PathBuf {
    scratch.join("opened")
}
/// Remembers that the drill has an incident, by which somebody may come back to it.
///
/// # Errors
/// `State` when it cannot be written.
pub fn note_opened(scratch: &Path) -> Result<()> {
    put(&opened_file(scratch), b"")
}
/// Whether the drill has an incident.
pub fn is_opened(scratch: &Path) -> bool {
    opened_file(scratch).exists()
}
fn facts_file(scratch: &Path) -> PathBuf {
    scratch.join("sandbox.json")
}
fn passphrase_file(scratch: &Path) -> PathBuf {
    scratch.join("passphrase")
}

/// A scratch directory that is alive: while this value exists no other drill takes it for a leftover.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    _alive: File,
}

impl Scratch {
    /// Makes one under the first of `places` that is fit: short enough for sockets, on a file system that executes programs
    /// and has `need` bytes free, and reachable by another user when `shared` is set.
    ///
    /// # Errors
    /// `State` when none is fit; each place is named with its reason.
    pub fn make(places: &[PathBuf], need: u64, shared: bool) -> Result<Self> {
        let mut reasons = Vec::new();
        for place in places {
            match unfit(place, need, shared) {
                Some(reason) => reasons.push(format!("{}: {reason}", place.display())),
                None => match Self::make_in(place) {
                    Ok(made) => return Ok(made),
                    Err(e) => reasons.push(format!("{}: {e}", place.display())),
                },
            }
        }
        Err(Error::state("there is no place for a drill's scratch directory")
            .why(reasons.join("; "))
            .hint("set TMPDIR to a short path on a local disk with enough space"))
    }

    fn make_in(place: &Path) -> Result<Self> {
        let what = || format!("cannot make a scratch directory in {}", place.display());
        let mut name = [0u8; 4];
        getrandom::fill(&mut name).state(what)?;
        let dir = place.join(format!("{PREFIX}{:08x}", u32::from_le_bytes(name)));
        let new = dir.with_extension(NEW);
        // Fails when it exists: a directory somebody put there is never used.
        fs::DirBuilder::new().mode(0o711).create(&new).state(what)?;
        fs::set_permissions(&new, Permissions::from_mode(0o711)).state(what)?;
        let alive =
            fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(lock_file(&new)).state(what)?;
        alive.lock_shared().state(what)?;
        if dir.exists() {
            return Err(Error::state(what()).why("its name is taken"));
        }
        fs::rename(&new, &dir).state(what)?;
        Ok(Self { dir, _alive: alive })
    }

    /// Joins one that exists, to keep it alive.
    ///
    /// # Errors
    /// `State` when it is not there, is not ours, or is being cleared away.
    pub fn join(dir: &Path) -> Result<Self> {
        let what = || format!("cannot use the drill in {}", dir.display());
        let meta = fs::symlink_metadata(dir).state(what)?;
        if !meta.is_dir() || meta.uid() != rustix::process::getuid().as_raw() {
            return Err(Error::state(what()).why("it is not a directory of ours"));
        }
        let alive = File::open(lock_file(dir)).state(what)?;
        match alive.try_lock_shared() {
            Ok(()) => Ok(Self { dir: dir.to_path_buf(), _alive: alive }),
            Err(TryLockError::WouldBlock) => Err(Error::state(what()).why("it is being cleared away")),
            Err(TryLockError::Error(e)) => Err(Error::state(what()).why(e)),
        }
    }

    /// Takes one for clearing away: only when nobody is alive in it.
    pub(super) fn take_dead(dir: &Path) -> Option<File> {
        let meta = fs::symlink_metadata(dir).ok()?;
        if !meta.is_dir() || meta.uid() != rustix::process::getuid().as_raw() {
            return None;
        }
        let file = File::open(lock_file(dir)).ok()?;
        file.try_lock().ok()?;
        Some(file)
    }

    /// As [`Scratch::take_dead`], and waits for it: until everybody alive in it is gone. None when it is gone.
    pub(super) fn wait_dead(dir: &Path) -> Option<File> {
        let place = |dir: &Path| fs::symlink_metadata(dir).map(|m| (m.dev(), m.ino())).ok();
        let file = File::open(lock_file(dir)).ok()?;
        let ours = place(dir)?;
        loop {
            match file.lock() {
                Ok(()) => break,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        // It may have been cleared away meanwhile, or half: whoever did so was killed, too.
        (place(dir)? == ours).then_some(file)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Writes `sandbox.json` in one step.
    ///
    /// # Errors
    /// `State` when it cannot be written.
    pub fn write_facts(&self, facts: &Facts) -> Result<()> {
        let text = serde_json::to_string_pretty(facts).state(|| "cannot write the drill's facts".into())?;
        put(&facts_file(&self.dir), text.as_bytes())
    }
    /// Writes the passphrase, 0600.
    ///
    /// # Errors
    /// `State` when it cannot be written.
    pub fn write_passphrase(&self, secret: &Secret) -> Result<()> {
        put(&passphrase_file(&self.dir), secret.expose().as_bytes())
    }
}

/// Reads `sandbox.json`.
///
/// # Errors
/// `State` when it is not there or not understood.
pub fn read_facts(dir: &Path) -> Result<Facts> {
    let what = || format!("{} is not a drill's scratch directory", dir.display());
    let text = fs::read_to_string(facts_file(dir)).state(what)?;
    serde_json::from_str(&text).state(what)
}

/// Reads the passphrase of the drill's repository.
///
/// # Errors
/// `State` when it cannot be read.
pub fn read_passphrase(dir: &Path) -> Result<Secret> {
    fs::read_to_string(passphrase_file(dir)).map(Secret::new).state(|| "cannot read the drill's passphrase".into())
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let part = path.with_extension("part");
    let mut file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part).state(what)?;
    file.write_all(bytes).state(what)?;
    fs::rename(&part, path).state(what)
}

/// Where scratch directories may be, best first: `TMPDIR` or /tmp, /var/tmp, the user's runtime directory.
///
/// The runtime directory is last because it is small, in memory, and closed to the server's user.
pub fn places() -> Vec<PathBuf> {
    let mut places = vec![std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
    places.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let mut seen = Vec::new();
    places.retain(|p| {
        p.is_absolute() && !seen.contains(p) && {
            seen.push(p.clone());
            true
        }
    });
    places
}

fn unfit(place: &Path, need: u64, shared: bool) -> Option<String> {
    let Ok(real) = place.canonicalize() else { return Some("it does not exist".into()) };
    let longest = place.as_os_str().len() + 1 + PREFIX.len() + 8 + LONGEST_SOCKET.len();
    if longest > SOCKET_PATH_MAX {
        return Some(format!("socket paths in it would have {longest} bytes, {SOCKET_PATH_MAX} are possible"));
    }
    let closed = |p: &Path| fs::metadata(p).is_ok_and(|m| m.permissions().mode() & 0o001 == 0);
    if shared && let Some(p) = real.ancestors().find(|p| closed(p)) {
        return Some(format!("the server's user may not pass through {}", p.display()));
    }
    let Ok(vfs) = rustix::fs::statvfs(&real) else { return Some("its file system does not answer".into()) };
    if vfs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        return Some("it is mounted noexec, and archive_command has to execute our program there".into());
    }
    if vfs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Some("it is read-only".into());
    }
    let free = vfs.f_bavail.saturating_mul(vfs.f_frsize);
    if free < need {
        return Some(format!("{} MB are free, about {} MB are needed", free / 1_000_000, need / 1_000_000));
    }
    None
}
