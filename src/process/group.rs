//! Process groups: is one alive, and how it is ended.

use std::time::Duration;

use rustix::process::{Pid, Signal};

/// What a process group may take to end after TERM before it is killed.
pub const GRACE: Duration = Duration::from_secs(5);

/// Whether any process of the group still runs. On Linux a zombie does not count: in a container nobody may ever
/// reap what lost its parent, and a group of the dead would be waited for in vain.
pub fn group_alive(pgid: u32) -> bool {
    match pid(pgid) {
        // EPERM means it exists and belongs to somebody else.
        Some(p) => {
            !matches!(rustix::process::test_kill_process_group(p), Err(rustix::io::Errno::SRCH)) && !only_zombies(pgid)
        }
        None => false,
    }
}

/// Whether members of the group are seen and every one is dead. None seen (no `/proc`, or it hides others' processes) is "no".
fn only_zombies(pgid: u32) -> bool {
    let Ok(all) = std::fs::read_dir("/proc") else { return false };
    let mut seen = false;
    for entry in all.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(|c: char| c.is_ascii_digit())) {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // proc(5): pid (name) state ppid pgrp …; the name may hold spaces and brackets, the last one ends it.
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        let (state, group) = (fields.next().unwrap_or(""), fields.nth(1).and_then(|g| g.parse::<u32>().ok()));
        if group == Some(pgid) {
            if !matches!(state, "Z" | "X") {
                return false;
            }
            seen = true;
        }
    }
    seen
}

/// Whether a process of that id exists (a zombie counts). Only evidence: ids are reused.
pub fn process_alive(id: u32) -> bool {
    match pid(id) {
        Some(p) => !matches!(rustix::process::test_kill_process(p), Err(rustix::io::Errno::SRCH)),
        None => false,
    }
}

/// Sends TERM to the whole group; a group that is already gone is fine.
pub fn terminate(pgid: u32) {
    signal(pgid, Signal::TERM);
}

/// Sends KILL to the whole group; a group that is already gone is fine.
pub fn kill(pgid: u32) {
    signal(pgid, Signal::KILL);
}

fn signal(pgid: u32, signal: Signal) {
    if let Some(p) = pid(pgid) {
        // The only failures are "gone" and "not ours"; the caller looks at what is alive afterwards.
        let _ = rustix::process::kill_process_group(p, signal);
    }
}

/// Ids 0 and 1 would mean "our own group" and "everybody"; they are never signalled.
fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().filter(|i| *i > 1).and_then(Pid::from_raw)
}
