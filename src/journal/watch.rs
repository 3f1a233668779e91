//! Wakes up when a file changes: by the system's notifications, and by a look once a second.
//!
//! Notifications alone are not enough: their number is limited per user, network file systems do not send them, and on
//! macOS they come late.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// How often the file is looked at without being told to.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

enum Nudge {
    Look,
    Stop,
}

/// Watches one file, which need not exist yet, until dropped.
#[derive(Debug)]
pub struct Watch {
    sender: Sender<Nudge>,
    thread: Option<JoinHandle<()>>,
    /// Dropped first, so that no notification comes after.
    notifier: Option<RecommendedWatcher>,
    degraded: Option<String>,
}

impl Watch {
    /// Calls `on_change` from a thread of its own after every change of the file's size, time or identity. Several changes
    /// may come as one call; the state at the time of starting is no change.
    pub fn start(path: impl Into<PathBuf>, on_change: impl Fn() + Send + 'static) -> Self {
        let path = path.into();
        let (sender, receiver) = mpsc::channel();
        // Whoever starts a watch reads first or reads afterwards; a change in between must not be lost.
        let mut seen = look(&path);
        let (notifier, degraded) = match notifier(&path, sender.clone()) {
            Ok(n) => (Some(n), None),
            Err(e) => (None, Some(format!("no notifications for {path:?} ({e}); looking once a second"))),
        };
        let thread = std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                loop {
                    match receiver.recv_timeout(LOOK_EVERY) {
                        Ok(Nudge::Look) | Err(RecvTimeoutError::Timeout) => {}
                        Ok(Nudge::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                    let now = look(&path);
                    if now != seen {
                        seen = now;
                        on_change();
                    }
                }
            })
            .ok();
        Self { sender, thread, notifier, degraded }
    }

    /// Why changes are seen only once a second, if so.
    pub fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.notifier = None;
        let _ = self.sender.send(Nudge::Stop);
        if let Some(thread) = self.thread.take()
            // A callback may drop its own watch.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// What a change is told by: identity, size and time of last modification.
fn look(path: &Path) -> Option<(u64, u64, u64, i64, i64)> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
}

fn notifier(path: &Path, sender: Sender<Nudge>) -> notify::Result<RecommendedWatcher> {
    // The folder, not the file: the file may not exist yet, or be replaced.
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map(std::ffi::OsStr::to_os_string);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let ours = match &event {
            Ok(e) => {
                !e.kind.is_access() && (e.paths.is_empty() || e.paths.iter().any(|p| p.file_name() == name.as_deref()))
            }
            Err(_) => true,
        };
        if ours {
            let _ = sender.send(Nudge::Look);
        }
    })?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
