//! Commands that stay until they are done or somebody stops them, and how they end then.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::process::signals::{Signals, Stop};

/// Runs `work` on a loop of its own. A signal cancels its token and is given back beside what the work then ended with.
///
/// # Errors
/// The loop cannot be started or signals cannot be heard.
pub(super) fn run<T, F: Future<Output = T>>(work: impl FnOnce(CancellationToken) -> F) -> Result<(T, Option<Stop>)> {
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let cancel = CancellationToken::new();
        let work = work(cancel.clone());
        tokio::pin!(work);
        Ok(tokio::select! {
            done = &mut work => (done, None),
            stop = signals.next() => {
                cancel.cancel();
                (work.await, Some(stop))
            }
        })
    })
}

/// Runs what has nothing to put in order when it is stopped: a signal ends the process, as it does any other.
///
/// # Errors
/// The loop cannot be started.
pub(super) fn plainly<T>(work: impl Future<Output = T>) -> Result<T> {
    Ok(runtime()?.block_on(work))
}

/// Where a change begins that is finished once it has begun. Until then a signal ends the command at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<AtomicU8>);

impl Gate {
    const OPEN: u8 = 0;
    const ENTERED: u8 = 1;
    const CLOSED: u8 = 2;

    /// From here on what was begun is finished, whatever signal comes.
    ///
    /// # Errors
    /// Interrupted when a signal came before.
    pub fn enter(&self) -> Result<()> {
        match self.0.compare_exchange(Self::OPEN, Self::ENTERED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) | Err(Self::ENTERED) => Ok(()),
            Err(_) => Err(unchanged()),
        }
    }

    /// Whether nobody entered, and nobody will.
    fn close(&self) -> bool {
        self.0.compare_exchange(Self::OPEN, Self::CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

fn unchanged() -> Error {
    Error::interrupted("stopped on request").why("nothing was changed")
}

/// Runs a change that must not be cut in two. A signal before its gate ends the command at once, whatever the work waits for; after
/// it the work is finished, and the signal is given back beside what it ended with.
///
/// # Errors
/// The loop cannot be started or signals cannot be heard.
pub(super) fn changing<T: Send + 'static>(
    work: impl FnOnce(&Gate) -> Result<T> + Send + 'static,
) -> Result<(Result<T>, Option<Stop>)> {
    let runtime = runtime()?;
    let gate = Gate::default();
    let theirs = gate.clone();
    let ended = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut work = tokio::task::spawn_blocking(move || work(&theirs));
        let joined = |done: std::result::Result<Result<T>, tokio::task::JoinError>| {
            done.unwrap_or_else(|e| Err(Error::state("the work broke off").why(e)))
        };
        let stop = tokio::select! {
            biased;
            done = &mut work => return Ok((joined(done), None)),
            stop = signals.next() => stop,
        };
        if gate.close() {
            return Ok((Err(unchanged()), Some(stop)));
        }
        let _ = writeln!(std::io::stderr(), "{}: what has begun is finished first", stop.name());
        Ok((joined(work.await), Some(stop)))
    });
    // Work that never gets through the gate may wait for a service; nobody waits for it.
    runtime.shutdown_background();
    ended
}

/// How a command ends that was stopped while it worked: the error is said, and the exit code is the signal's. A service that did not
/// answer any more while it was stopped does not make that its own.
///
/// # Errors
/// The one that was given, when nobody stopped it; when Ctrl-C did, one that says so, as others are said.
pub(super) fn ended(error: Error, stop: Option<Stop>, json: bool) -> Result<u8> {
    let Some(stop) = stop else { return Err(error) };
    let error = match error.kind {
        ErrorKind::Interrupted => error,
        // What was left where, and the way on.
        _ => error.hints.iter().fold(Error::interrupted("stopped on request").why(&error.what), |e, h| e.hint(h)),
    };
    if stop == Stop::Interrupt {
        return Err(error);
    }
    super::report(&error, json);
    Ok(stop.exit_code())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .state(|| "the asynchronous runtime cannot be started".into())
}
