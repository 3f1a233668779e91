//! How much of this machine a recovered instance takes while it replays: memory for its buffers, disk for the log it keeps.
//!
//! It stands beside a server in service, so it takes a share of what is free, never of what there is.

use std::path::Path;

const MB: u64 = 1 << 20;
/// PostgreSQL's own defaults, which always do.
const BUFFERS_LEAST: u64 = 128 * MB;
const LOG_LEAST: u64 = 1024 * MB;
/// More gains nothing that was measured.
const BUFFERS_MOST: u64 = 8192 * MB;
const LOG_MOST: u64 = 4096 * MB;

/// Settings for the replay of `bytes` of files, with `free` bytes left on the disk when they are there.
///
/// With the default of 128 MB for buffers the process that replays writes pages out itself, again and again, so as to make room.
/// The log that may pile up before the changed pages are written decides how often that is.
pub(super) fn settings(bytes: u64, free: u64) -> Vec<(String, String)> {
    let buffers = available_memory().map_or(0, |n| n / 4).min(bytes).clamp(BUFFERS_LEAST, BUFFERS_MOST);
    let log = (free / 8).clamp(LOG_LEAST, LOG_MOST);
    let megabytes = |n: u64| format!("{}MB", n / MB);
    [("shared_buffers", megabytes(buffers)), ("max_wal_size", megabytes(log))].map(|(k, v)| (k.to_string(), v)).to_vec()
}

/// Bytes of memory that nobody needs now, by the machine and by the control groups we are in; none where nothing tells.
fn available_memory() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let info = read(Path::new("/proc/meminfo"))?;
    let of = |name: &str| kilobytes(&info, name);
    let mut free = of("MemAvailable:")?;
    if read(Path::new("/proc/sys/vm/overcommit_memory")).is_some_and(|t| t.trim() == "2") {
        // There the system refuses memory that was promised to others, used or not.
        free = free.min(of("CommitLimit:")?.saturating_sub(of("Committed_AS:")?));
    }
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let own = groups.lines().find_map(|l| l.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    for group in root.join(own).ancestors().take_while(|g| g.starts_with(root)) {
        let number = |file: &str| read(&group.join(file))?.trim().parse::<u64>().ok();
        let (Some(most), Some(used)) = (number("memory.max"), number("memory.current")) else { continue };
        // The cache of files is given up when memory is wanted, unless it is memory that processes share.
        let stat = read(&group.join("memory.stat")).unwrap_or_default();
        let line = |name: &str| {
            let found = stat.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
            found.unwrap_or(0)
        };
        let kept = used.saturating_sub(line("file").saturating_sub(line("shmem")));
        free = free.min(most.saturating_sub(kept));
    }
    Some(free)
}

/// A line of `/proc/meminfo` in bytes.
fn kilobytes(info: &str, name: &str) -> Option<u64> {
    let value = info.lines().find_map(|l| l.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|n| n * 1024)
}
