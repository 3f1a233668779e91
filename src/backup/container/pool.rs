//! Frames on several cores: jobs are done side by side and taken back in the order they were given.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// More threads than this gain nothing: what follows in order, sealing and hashing, is then the limit.
const MOST: usize = 8;

/// Threads that turn `J` into `D`. Dropping it ends them after the job each is at.
pub(super) struct InOrder<J, D> {
    jobs: Option<Sender<(J, SyncSender<D>)>>,
    waiting: VecDeque<Receiver<D>>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static, D: Send + 'static> InOrder<J, D> {
    /// Starts a thread per core, each with work of its own from `make`.
    ///
    /// # Errors
    /// What `make` says; the system gives no thread.
    pub(super) fn start<F>(make: impl Fn() -> Result<F>) -> Result<Self>
    where
        F: FnMut(J) -> D + Send + 'static,
    {
        let width = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let (send, receive) = channel::<(J, SyncSender<D>)>();
        let receive = Arc::new(Mutex::new(receive));
        let mut threads = Vec::with_capacity(width);
        for _ in 0..width {
            let (mut work, receive) = (make()?, receive.clone());
            let run = move || {
                loop {
                    // The guard is dropped before the work begins.
                    let next = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((job, done)) = next else { return };
                    // Nobody waits any more: the object was given up.
                    let _ = done.send(work(job));
                }
            };
            let spawned = std::thread::Builder::new().name("frames".into()).spawn(run);
            threads.push(spawned.map_err(|e| Error::state("a thread for frames cannot be started").why(e))?);
        }
        Ok(Self { jobs: Some(send), waiting: VecDeque::new(), threads })
    }

    /// How many jobs are worth having under way.
    pub(super) fn depth(&self) -> usize {
        2 * self.threads.len()
    }

    /// Jobs given and not yet taken back.
    pub(super) fn under_way(&self) -> usize {
        self.waiting.len()
    }

    /// Gives a job.
    ///
    /// # Errors
    /// The threads are gone.
    pub(super) fn give(&mut self, job: J) -> Result<()> {
        let (done, wait) = sync_channel(1);
        self.jobs.as_ref().and_then(|jobs| jobs.send((job, done)).ok()).ok_or_else(gone)?;
        self.waiting.push_back(wait);
        Ok(())
    }

    /// Takes the oldest result back, waiting for it; none when nothing is under way.
    ///
    /// # Errors
    /// The thread that had it is gone.
    pub(super) fn take(&mut self) -> Result<Option<D>> {
        self.waiting.pop_front().map(|wait| wait.recv().map_err(|_| gone())).transpose()
    }
}

impl<J, D> Drop for InOrder<J, D> {
    fn drop(&mut self) {
        self.jobs = None;
        self.waiting.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn gone() -> Error {
    Error::state("a thread that works on frames broke off").hint("This is a defect of breakglass: please report it.")
}
