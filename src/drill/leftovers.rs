//! Clearing a drill away: its processes, then its files; and finding drills that crashed before they could do so.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::control::Control;
use super::scratch::{self, PREFIX, ProcessId, Scratch};
use crate::error::{Error, Result};

/// How long a process gets to end after each signal.
const GRACE: Duration = Duration::from_secs(5);
/// How often a guard tries.
const GUARD_TRIES: u32 = 60;
/// A directory that did not even get its name or has no lock any more is a drill that begins or ends this very moment, or one
/// that crashed then: older than this it crashed. Nothing runs in it.
const UNNAMED: Duration = Duration::from_secs(60);

/// Removes a drill: the umpire, every server and every process in its scratch directory, and the directory. Blocks.
///
/// Only processes are ended that are the drill's by proof: the recorded umpire with its start time, the servers whose data
/// directory lies inside, and what has its working directory or executable inside.
///
/// # Errors
/// `State` naming what is left.
pub fn remove(dir: &Path) -> Result<()> {
    let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if !name.starts_with(PREFIX) || !dir.is_absolute() {
        return Err(Error::refused(format!("{} is not a drill's scratch directory", dir.display())));
    }
    let Ok(dir) = &dir.canonicalize() else { return Ok(()) };
    let umpire = scratch::read_facts(dir).ok().and_then(|f| f.umpire).filter(|u| u.pid != std::process::id());
    let _ = Control::new(dir).shutdown();
    if let Some(umpire) = umpire {
        end(&umpire, &[Signal::TERM, Signal::KILL]);
    }
    for server in servers(dir) {
        // An immediate shutdown: nothing of this data is wanted, and it takes the shared memory along.
        end(&server, &[Signal::QUIT, Signal::KILL]);
    }
    for other in inside(dir) {
        end(&other, &[Signal::TERM, Signal::KILL]);
    }
    let until = Instant::now() + GRACE;
    loop {
        match fs::remove_dir_all(dir) {
            Ok(()) => break,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !dir.exists() => break,
            // A process that is just ending may still have made a file.
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Err(e) => return Err(Error::state(format!("cannot remove {}", dir.display())).why(e)),
        }
    }
    match inside(dir).first() {
        None => Ok(()),
        Some(p) => Err(Error::state(format!("process {} of the drill in {} does not end", p.pid, dir.display()))),
    }
}

/// Removes the drills under `places` that crashed: ours, nobody alive in them, not kept. Returns their directories.
pub fn clean(places: &[PathBuf]) -> Vec<PathBuf> {
    let mut cleaned = Vec::new();
    for dir in places.iter().filter_map(|p| fs::read_dir(p).ok()).flatten().flatten().map(|e| e.path()) {
        let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let id = name.strip_prefix(PREFIX).unwrap_or_default();
        let (id, named) = match id.strip_suffix(scratch::NEW).and_then(|id| id.strip_suffix('.')) {
            Some(id) => (id, false),
            None => (id, true),
        };
        if id.len() != 8 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            continue;
        }
        if !named || !scratch::has_lock(&dir) {
            let old = age(&dir).is_some_and(|a| a > UNNAMED);
            if old && ours(&dir) && fs::remove_dir_all(&dir).is_ok() {
                cleaned.push(dir);
            }
            continue;
        }
        // Held while clearing away, so that nobody joins it meanwhile.
        let Some(_dead) = Scratch::take_dead(&dir) else { continue };
        // One without facts died while it was made.
        if !scratch::read_facts(&dir).is_ok_and(|f| f.keep) && remove(&dir).is_ok() {
            cleaned.push(dir);
        }
    }
    cleaned
}

/// The life of a drill's guard: waits until nobody is alive in the scratch directory and removes what is left, whoever was
/// killed when. Returns at once when it is removed in order.
pub fn guard(dir: &Path) {
    let Some(_dead) = Scratch::wait_dead(dir) else { return };
    // What a killed set-up started may still be making files.
    for _ in 0..GUARD_TRIES {
        if remove(dir).is_ok() {
            return;
        }
        std::thread::sleep(GRACE);
    }
}

fn ours(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == rustix::process::getuid().as_raw())
}

fn age(dir: &Path) -> Option<Duration> {
    SystemTime::now().duration_since(fs::metadata(dir).ok()?.modified().ok()?).ok()
}

/// Kills one at once and does not wait.
pub(super) fn kill(process: &ProcessId) {
    if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw).filter(|_| process.is_alive()) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Sends the signals one after the other until the process is gone.
fn end(process: &ProcessId, signals: &[Signal]) {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return };
    for signal in signals {
        if !process.is_alive() {
            return;
        }
        let _ = kill_process(pid, *signal);
        let until = Instant::now() + GRACE;
        while process.is_alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The servers whose data directory lies inside: postmaster.pid says process and directory in its first two lines.
fn servers(dir: &Path) -> Vec<ProcessId> {
    let mut found = Vec::new();
    let mut look = vec![(dir.to_path_buf(), 0)];
    while let Some((folder, depth)) = look.pop() {
        if let Some(server) = server_in(&folder) {
            found.push(server);
            continue;
        }
        if depth < 4 {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let folders = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
            look.extend(folders.map(|e| (e.path(), depth + 1)));
        }
    }
    found
}

fn server_in(data: &Path) -> Option<ProcessId> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let mut lines = text.lines();
    let pid: u32 = lines.next()?.trim().parse().ok()?;
    let said = PathBuf::from(lines.next()?);
    if said.canonicalize().ok()? != data.canonicalize().ok()? {
        return None;
    }
    // The number may belong to somebody else by now; a server's working directory is its data directory.
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) if cwd != data.canonicalize().ok()? => None,
        _ => Some(ProcessId::of(pid)),
    }
}

/// Processes with their working directory or executable inside, ourselves excepted. Linux only; elsewhere none.
pub fn inside(dir: &Path) -> Vec<ProcessId> {
    let own = std::process::id();
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            ["cwd", "exe"].iter().any(|l| fs::read_link(format!("/proc/{pid}/{l}")).is_ok_and(|p| p.starts_with(&real)))
        })
        .map(ProcessId::of)
        .collect()
}
