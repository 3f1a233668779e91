//! Commands that stay until they are done or somebody stops them.

use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::error::{Context, Result};
use crate::process::signals::{Signals, Stop};

/// Runs `work` on a loop of its own. A signal cancels its token and is given back beside what the work then ended with.
///
/// # Errors
/// The loop cannot be started or signals cannot be heard.
pub(super) fn run<T, F: Future<Output = T>>(work: impl FnOnce(CancellationToken) -> F) -> Result<(T, Option<Stop>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .state(|| "the asynchronous runtime cannot be started".into())?;
    runtime.block_on(async {
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
