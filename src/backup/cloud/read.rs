//! Reading an object in windows: a small one first, since often only the beginning is wanted, then large ones, two ahead. Each
//! is a request of its own that is tried again by itself, and all must be of the version the first one saw.

use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error as StorageError, GetOptions, GetRange, ObjectStoreExt};

use super::client::Client;
use super::fault;
use super::run::{self, Pending};
use super::url::CloudUrl;
use crate::error::{Error, Result};

/// Bytes of the first request.
const FIRST: u64 = 256 << 10;
/// Bytes of every other request.
const WINDOW: u64 = 4 << 20;
/// Requests under way at once, and windows waiting to be taken.
const AHEAD: usize = 2;

/// An object being read. Holds at most [`AHEAD`] and two more windows.
pub struct CloudRead {
    current: Bytes,
    rest: Rest,
    /// Bytes that windows are still to bring.
    missing: u64,
}

enum Rest {
    /// Nothing was asked yet of what is left.
    Unasked(Box<Ahead>),
    Coming {
        windows: tokio::sync::mpsc::Receiver<Result<Bytes>>,
        reading: Pending<()>,
    },
    Done,
}

struct Ahead {
    client: Client,
    url: CloudUrl,
    path: Path,
    name: String,
    etag: Option<String>,
    left: Range<u64>,
}

/// Opens one; `None` when there is none of that name.
///
/// # Errors
/// As the service answers; a bucket that is not there is an error, too.
pub fn open(client: &Client, url: &CloudUrl, path: &Path, name: &str) -> Result<Option<CloudRead>> {
    let what = format!("reading {name:?}");
    let first = {
        let (objects, path) = (client.objects.clone(), path.clone());
        run::wait(async move {
            let options = GetOptions { range: Some(GetRange::Bounded(0..FIRST)), ..GetOptions::default() };
            let answer = match objects.get_opts(&path, options).await {
                // Nothing can be asked of an empty object but the whole of it.
                Err(e) if is_empty_range(&e) => objects.get(&path).await?,
                other => other?,
            };
            let (size, etag) = (answer.meta.size, answer.meta.e_tag.clone());
            Ok::<_, StorageError>((answer.bytes().await?, size, etag))
        })?
    };
    match first {
        Ok((current, size, etag)) => {
            let left = current.len() as u64..size;
            let missing = left.end.saturating_sub(left.start);
            let rest = if left.is_empty() {
                Rest::Done
            } else {
                let (client, url) = (client.clone(), url.clone());
                Rest::Unasked(Box::new(Ahead { client, url, path: path.clone(), name: name.into(), etag, left }))
            };
            Ok(Some(CloudRead { current, rest, missing }))
        }
        Err(e @ StorageError::NotFound { .. }) if !fault::bucket_is_missing(&fault::text_of(&e)) => Ok(None),
        Err(e) => Err(fault::explain(url, &what, &e)),
    }
}

fn is_empty_range(e: &StorageError) -> bool {
    let text = fault::text_of(e);
    fault::code_of(&text) == Some("InvalidRange") || text.contains("status code: 416")
}

impl Ahead {
    fn start(self) -> Result<Rest> {
        let (sender, windows) = tokio::sync::mpsc::channel(1);
        let Self { client, url, path, name, etag, left } = self;
        let starts = (left.start..left.end).step_by(usize::try_from(WINDOW).unwrap_or(usize::MAX));
        let end = left.end;
        let reading = run::start(async move {
            let mut answers = futures::stream::iter(starts)
                .map(|start| {
                    let (objects, path) = (client.objects.clone(), path.clone());
                    let options = GetOptions {
                        range: Some(GetRange::Bounded(start..end.min(start + WINDOW))),
                        if_match: etag.clone(),
                        ..GetOptions::default()
                    };
                    async move { objects.get_opts(&path, options).await?.bytes().await }
                })
                .buffered(AHEAD);
            while let Some(answer) = answers.next().await {
                let answer = answer.map_err(|e| match e {
                    StorageError::Precondition { .. } | StorageError::NotFound { .. } => {
                        Error::target(format!("{name:?} was replaced or removed while it was read"))
                    }
                    e => fault::explain(&url, &format!("reading {name:?}"), &e),
                });
                let failed = answer.is_err();
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Rest::Coming { windows, reading })
    }
}

impl Read for CloudRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !buffer.is_empty() {
            match std::mem::replace(&mut self.rest, Rest::Done) {
                Rest::Done => return Ok(0),
                Rest::Unasked(ahead) => self.rest = ahead.start().map_err(io::Error::other)?,
                Rest::Coming { mut windows, reading } => {
                    // Outside any task's budget: we may be called from within one, which would never be woken.
                    let next = futures::executor::block_on(tokio::task::unconstrained(windows.recv()));
                    match next {
                        Some(window) => {
                            self.current = window.map_err(io::Error::other)?;
                            self.missing = self.missing.saturating_sub(self.current.len() as u64);
                            self.rest = Rest::Coming { windows, reading };
                        }
                        None if self.missing > 0 => {
                            // Not an early end: what is stored may be whole.
                            return Err(io::Error::other(Error::state("reading stopped before its end")));
                        }
                        None => {}
                    }
                }
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

impl Drop for CloudRead {
    fn drop(&mut self) {
        if let Rest::Coming { reading, .. } = &self.rest {
            reading.abort();
        }
    }
}
