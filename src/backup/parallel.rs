//! Several questions to one place at once, where each takes a journey over a network.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// What `ask` says of each of `items`, in no order, at most `at_once` of them at a time.
///
/// # Errors
/// What `ask` says; a thread broke off.
pub fn side_by_side<I: Sync, O: Send>(
    at_once: usize,
    items: &[I],
    ask: &(dyn Fn(&I) -> Result<O> + Sync),
) -> Result<Vec<O>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<O>> {
        let mut out = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            out.push(ask(item)?);
        }
        Ok(out)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..at_once.min(items.len())).map(|_| scope.spawn(work)).collect();
        let mut out = work();
        for other in others {
            let more = other.join().map_err(|_| Error::state("a thread that looks at objects broke off"))?;
            out = out.and_then(|mut all| {
                all.extend(more?);
                Ok(all)
            });
        }
        out
    })
}
