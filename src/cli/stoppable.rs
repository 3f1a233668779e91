//! Commands that stay until they are done or somebody stops them, and how they end then.

use std::future::Future;

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

/// How a command ends that was stopped while it worked: the error is said, and the exit code is the signal's.
///
/// # Errors
/// The one that was given, when nobody stopped it, or Ctrl-C did, which is an error like others.
pub(super) fn ended(error: Error, stop: Option<Stop>, json: bool) -> Result<u8> {
    match stop.filter(|s| *s != Stop::Interrupt && error.kind == ErrorKind::Interrupted) {
        Some(stop) => {
            super::report(&error, json);
            Ok(stop.exit_code())
        }
        None => Err(error),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .state(|| "the asynchronous runtime cannot be started".into())
}
