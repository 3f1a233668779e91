//! Reports documents that change while they are open. An incident keeps its own plan.json; the console offers the new one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};

use crate::error::{Context, Result};
use crate::model::Digest;

use super::freeze::digest;

/// Editors write a file in several steps: changes this close together are one.
const QUIET: Duration = Duration::from_millis(200);
/// Where notifications are lost (network folders, limits), a look this often finds the change.
const LOOK: Duration = Duration::from_secs(1);

/// A document that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its path.
    pub path: PathBuf,
    /// Its new digest; none when it can no longer be read.
    pub digest: Option<Digest>,
}

/// Watches some files until it is dropped.
#[derive(Debug)]
pub struct Watch {
    changes: Receiver<Changed>,
    // Keeps the notifications coming; dropping it ends the thread.
    _watcher: Option<notify::RecommendedWatcher>,
    _stop: mpsc::Sender<()>,
}

impl Watch {
    /// Watches files; a file counts as changed when its bytes are others than before.
    ///
    /// # Errors
    /// A state error when no thread can be started. Missing notifications are no error: files are looked at once a second.
    pub fn new(files: Vec<PathBuf>) -> Result<Self> {
        let (woken, wake) = mpsc::channel::<()>();
        let (stop, stopped) = mpsc::channel::<()>();
        let (report, changes) = mpsc::channel::<Changed>();
        let mut watcher = notify::recommended_watcher(move |_| {
            let _ = woken.send(());
        })
        .ok();
        if let Some(w) = &mut watcher {
            let mut folders: Vec<&Path> = files
                .iter()
                .filter_map(|f| f.parent())
                .map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p })
                .collect();
            folders.sort();
            folders.dedup();
            for folder in folders {
                // The folder, not the file: editors replace files by renaming.
                let _ = w.watch(folder, RecursiveMode::NonRecursive);
            }
        }
        let mut known: HashMap<PathBuf, Option<Digest>> = files.iter().map(|f| (f.clone(), look(f))).collect();
        std::thread::Builder::new()
            .name("plan-watch".into())
            .spawn(move || {
                loop {
                    let woken = match wake.recv_timeout(LOOK) {
                        Ok(()) => true,
                        Err(RecvTimeoutError::Timeout) => false,
                        // No notifications on this system: the look once a second is all there is.
                        Err(RecvTimeoutError::Disconnected) => match stopped.recv_timeout(LOOK) {
                            Err(RecvTimeoutError::Timeout) => false,
                            _ => return,
                        },
                    };
                    if matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Disconnected)) {
                        return;
                    }
                    if woken {
                        while wake.recv_timeout(QUIET).is_ok() {}
                    }
                    for file in &files {
                        let now = look(file);
                        if known.get(file) != Some(&now) {
                            known.insert(file.clone(), now.clone());
                            if report.send(Changed { path: file.clone(), digest: now }).is_err() {
                                return;
                            }
                        }
                    }
                }
            })
            .state(|| "cannot start the thread that watches plans".into())?;
        Ok(Self { changes, _watcher: watcher, _stop: stop })
    }

    /// The next change that has been seen, without waiting.
    pub fn try_next(&self) -> Option<Changed> {
        self.changes.try_recv().ok()
    }

    /// The next change, waiting at most `limit`.
    pub fn next(&self, limit: Duration) -> Option<Changed> {
        self.changes.recv_timeout(limit).ok()
    }
}

fn look(file: &Path) -> Option<Digest> {
    std::fs::read(file).ok().map(|bytes| digest(&bytes))
}
