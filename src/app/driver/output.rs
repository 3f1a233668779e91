//! Following what the shown run prints: files into a ring that the view reads rows from.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::Msg;
use crate::app::data::{Lines, Output};
use crate::error::{Context, Result};
use crate::model::{CleanText, RunId};
use crate::runtime::follow::{Reader, Seen};

/// How often the files are looked at while they grow.
const QUICK: Duration = Duration::from_millis(30);
/// How often when they do not.
const CALM: Duration = Duration::from_millis(150);

/// A run that is followed. Dropping it ends the following.
pub(super) struct Follow {
    pub(super) run: RunId,
    shared: Arc<Shared>,
    file: String,
    ended: Arc<AtomicBool>,
}

/// The lines have a lock of their own: a frame never waits for output that is being read and cleaned.
struct Shared {
    seen: Mutex<Seen>,
    reader: Mutex<Reader>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic while holding it leaves a ring that can still be read.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one piece; returns whether to look again at once.
    fn look(&self, reader: &mut Reader) -> bool {
        match reader.poll() {
            Ok(news) => self.seen().take(news),
            Err(_) => false,
        }
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines for Shared {
    fn total(&self) -> u64 {
        let seen = self.seen();
        seen.ring.dropped() + seen.ring.len() as u64
    }
    fn first(&self) -> u64 {
        self.seen().ring.dropped()
    }
    fn read(&self, from: u64, count: usize) -> Vec<CleanText> {
        let seen = self.seen();
        let ring = &seen.ring;
        let skip = usize::try_from(from.saturating_sub(ring.dropped())).unwrap_or(usize::MAX);
        (skip..skip.saturating_add(count).min(ring.len())).filter_map(|i| ring.get(i).cloned()).collect()
    }
}

impl Follow {
    /// Begins to follow the run in this folder.
    pub(super) fn start(run: RunId, folder: PathBuf, messages: mpsc::Sender<Msg>, moved: Arc<Notify>) -> Result<Self> {
        let shared = Arc::new(Shared { seen: Mutex::default(), reader: Mutex::new(Reader::new(&folder)) });
        let ended = Arc::new(AtomicBool::new(false));
        let file = folder.join(crate::runtime::worker::OUTPUT_FILE).display().to_string();
        let (lines, stop) = (shared.clone(), ended.clone());
        let work = move || {
            let mut last = None;
            while !stop.load(Ordering::Relaxed) && !messages.is_closed() {
                let more = lines.look(&mut lines.reader());
                let progress = lines.seen().status.progress.clone();
                if last.as_ref() != Some(&progress) {
                    // Full: the screen has older news to take in first, and the next look sends the newest.
                    if messages.try_send(Msg::Progress(run, progress.clone())).is_ok() {
                        last = Some(progress);
                    }
                }
                if more {
                    moved.notify_one();
                }
                std::thread::sleep(if more { QUICK } else { CALM });
            }
        };
        std::thread::Builder::new().name("output".into()).spawn(work).state(|| "cannot start a thread".into())?;
        Ok(Self { run, shared, file, ended })
    }

    /// What the view reads.
    pub(super) fn output(&self) -> Output {
        Output { lines: self.shared.clone(), file: self.file.clone() }
    }

    /// Progress as last seen.
    pub(super) fn progress(&self) -> crate::action::Progress {
        self.shared.seen().status.progress.clone()
    }

    /// The run has ended: what is there is read once more, and the following ends.
    pub(super) fn finish(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            let mut reader = self.shared.reader();
            while self.shared.look(&mut reader) {}
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
