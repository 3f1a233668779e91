//! Whether a server runs on a folder, by the pid file it keeps there.

use std::path::{Path, PathBuf};

/// A server that runs on a folder, or on `data` in it: its data directory and process id.
pub fn running_in(root: &Path) -> Option<(PathBuf, i32)> {
    [root.to_path_buf(), root.join("data")].into_iter().find_map(|data| {
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        // A server in single-user mode writes its process id as a negative number; in a container it is process 1.
        let pid = text.lines().next()?.trim().parse::<i32>().ok()?.checked_abs()?;
        let alive = rustix::process::Pid::from_raw(pid)
            .is_some_and(|p| rustix::process::test_kill_process(p) != Err(rustix::io::Errno::SRCH));
        alive.then_some((data, pid))
    })
}
