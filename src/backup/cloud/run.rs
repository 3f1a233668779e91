//! Requests run on a loop of their own, so that the repository stays synchronous and works from any thread, within another
//! loop as well.

use std::future::Future;
use std::sync::{OnceLock, mpsc};

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::error::{Error, Result};

/// A request under way.
pub struct Pending<T> {
    answer: mpsc::Receiver<T>,
    task: AbortHandle,
}

impl<T> Pending<T> {
    /// Its outcome, when it is there.
    ///
    /// # Errors
    /// State, when the loop broke.
    pub fn wait(self) -> Result<T> {
        self.answer.recv().map_err(|_| Error::state("a storage request ended without an answer"))
    }
    /// Gives it up.
    pub fn abort(&self) {
        self.task.abort();
    }
}

/// Starts work.
///
/// # Errors
/// State, when no loop can be made.
pub fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<Pending<T>> {
    static LOOP: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();
    let made = LOOP.get_or_init(|| {
        let build = Builder::new_multi_thread().worker_threads(2).thread_name("storage").enable_all().build();
        build.map_err(|e| e.to_string())
    });
    let runtime = made.as_ref().map_err(|e| Error::state("the loop for storage requests cannot be started").why(e))?;
    // Room for the answer: nobody waiting any more must not block the loop.
    let (sender, answer) = mpsc::sync_channel(1);
    let task = runtime.spawn(async move {
        let _ = sender.send(work.await);
    });
    Ok(Pending { answer, task: task.abort_handle() })
}

/// Does work and waits for it.
///
/// # Errors
/// As [`start`] and [`Pending::wait`].
pub fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    start(work)?.wait()
}
