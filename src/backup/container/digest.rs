//! The SHA-256 of an object's plain bytes, beside everything else that is done to them: on its own it takes one core most of
//! the time that opening an object takes on all of them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use ring::digest::{Context, SHA256};

use crate::error::{Error, Result};

/// Frames that may wait for it: enough that it never waits, few enough to stay in the processor's cache.
const WAITING: usize = 4;

/// Computes the digest here, or on a thread of its own once there is more than one frame.
pub(super) enum PlainDigest {
    LeftOut,
    Here(Context),
    Beside { frames: SyncSender<Arc<Vec<u8>>>, used: Receiver<Vec<u8>>, thread: JoinHandle<Context> },
}

impl PlainDigest {
    pub(super) fn new() -> Self {
        Self::Here(Context::new(&SHA256))
    }

    /// Goes on on a thread of its own.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn beside(&mut self) -> Result<()> {
        let Self::Here(hash) = self else { return Ok(()) };
        let mut hash = hash.clone();
        let (frames, receive) = sync_channel::<Arc<Vec<u8>>>(WAITING);
        let (give_back, used) = channel();
        let run = move || {
            for frame in receive {
                hash.update(frame.as_slice());
                // Nobody wants it any more once the object is done.
                let _ = Arc::try_unwrap(frame).map(|used| give_back.send(used));
            }
            hash
        };
        let thread = std::thread::Builder::new().name("digest".into()).spawn(run);
        let thread = thread.map_err(|e| Error::state("a thread for a digest cannot be started").why(e))?;
        *self = Self::Beside { frames, used, thread };
        Ok(())
    }

    /// The next bytes.
    ///
    /// # Errors
    /// The thread is gone.
    pub(super) fn update(&mut self, frame: &Arc<Vec<u8>>) -> Result<()> {
        match self {
            Self::LeftOut => {}
            Self::Here(hash) => hash.update(frame.as_slice()),
            Self::Beside { frames, .. } => frames.send(frame.clone()).map_err(|_| gone())?,
        }
        Ok(())
    }

    /// A buffer that was hashed and that nobody else holds any more, to be used again: new memory for every frame costs more
    /// than opening it.
    pub(super) fn spare(&self) -> Option<Vec<u8>> {
        match self {
            Self::Here(_) | Self::LeftOut => None,
            Self::Beside { used, .. } => used.try_recv().ok(),
        }
    }

    /// The digest of all that was given.
    ///
    /// # Errors
    /// The thread is gone.
    pub(super) fn finish(&mut self) -> Result<[u8; 32]> {
        match std::mem::replace(self, Self::new()) {
            Self::LeftOut => Err(Error::state("the digest of an object's plain bytes was left out")),
            Self::Here(hash) => bytes(hash),
            Self::Beside { frames, thread, .. } => {
                drop(frames);
                bytes(thread.join().map_err(|_| gone())?)
            }
        }
    }
}

fn bytes(hash: Context) -> Result<[u8; 32]> {
    hash.finish().as_ref().try_into().map_err(|e| Error::state("a SHA-256 of another length").why(e))
}

fn gone() -> Error {
    Error::state("a thread that computes a digest broke off").hint("This is a defect of breakglass: please report it.")
}
