//! The clocks a record carries: wall time, time since boot, and which boot that was.

use crate::model::Time;

/// One reading of all clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Wall time, UTC.
    pub now: Time,
    /// Milliseconds since boot, time asleep included.
    pub up_ms: u64,
    /// Which boot `up_ms` counts from: two readings may be subtracted only when this is equal.
    pub boot: String,
}

/// Reads the clocks of this machine.
#[derive(Debug, Clone)]
pub struct Clock {
    boot: String,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Finds out which boot this is.
    pub fn new() -> Self {
        Self { boot: boot_id().unwrap_or_else(random_id) }
    }
    /// Wall time, UTC.
    pub fn now(&self) -> Time {
        Time::from_system(std::time::SystemTime::now())
    }
    /// Milliseconds since boot, time asleep included (`CLOCK_BOOTTIME`).
    pub fn up_ms(&self) -> u64 {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let id = rustix::time::ClockId::Boottime;
        // On macOS the monotonic clock goes on while the machine sleeps.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let id = rustix::time::ClockId::Monotonic;
        let t = rustix::time::clock_gettime(id);
        u64::try_from(t.tv_sec).unwrap_or(0).saturating_mul(1000) + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000
    }
    /// Which boot this is.
    pub fn boot(&self) -> &str {
        &self.boot
    }
    /// All clocks at once.
    pub fn read(&self) -> Reading {
        Reading { now: self.now(), up_ms: self.up_ms(), boot: self.boot.clone() }
    }
}

#[cfg(not(target_os = "macos"))]
fn boot_id() -> Option<String> {
    clean(&std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?)
}

#[cfg(target_os = "macos")]
fn boot_id() -> Option<String> {
    let out = std::process::Command::new("/usr/sbin/sysctl").args(["-n", "kern.bootsessionuuid"]).output().ok()?;
    clean(&String::from_utf8_lossy(&out.stdout))
}

fn clean(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')).then_some(text)
}

/// An id nobody else has: durations then fall back to wall time across processes, which is right when the boot is unknown.
fn random_id() -> String {
    let mut bytes = [0u8; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => format!("unknown-{:032x}", u128::from_be_bytes(bytes)),
        Err(_) => {
            format!("unknown-{}-{}", std::process::id(), Time::from_system(std::time::SystemTime::now()).micros())
        }
    }
}
