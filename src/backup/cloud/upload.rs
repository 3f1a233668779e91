//! Writing an object without a copy on the disk: a small one in a single request, a large one in parts as they fill, two under
//! way at once. Until the last request nobody sees anything of it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{
    Error as StorageError, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutPayloadMut, UpdateVersion,
};

use super::run::{self, Pending};
use super::{Place, fault, finish};
use crate::backup::store::{Committed, Existing, Upload};
use crate::error::{Error, Result};

/// Bytes of a part, to begin with. S3 wants at least 5 MiB of every part but the last.
const PART: usize = 8 << 20;
/// What is no larger goes in one request, and the storage itself sees to it that nothing is overwritten: a WAL segment of the
/// usual size, however badly it compresses, is among that.
const SINGLE: usize = 17 << 20;
/// Parts under way at once.
const AT_ONCE: usize = 2;
/// Parts an object may have on any service.
const MOST_PARTS: usize = 10_000;
/// How often a write whose outcome is unknown is looked after and tried again.
const TRIES: u32 = 6;
/// How often an object that was acknowledged is looked for again.
const LOOKS: u32 = 4;

/// Bytes of the part of this number (from 0). They grow, so that 10,000 parts hold 860 GB and small backups need little memory.
fn part_size(index: usize) -> usize {
    match index / 2500 {
        0 => PART,
        1 => 2 * PART,
        2 => 8 * PART,
        _ => 32 * PART,
    }
}

/// An object being written.
pub struct CloudUpload {
    place: Arc<Place>,
    path: Path,
    name: String,
    filling: PutPayloadMut,
    /// Full parts of an object that may still fit into one request.
    full: Vec<PutPayload>,
    total: u64,
    parts: Option<Parts>,
}

/// The parts of a large object.
struct Parts {
    id: String,
    under_way: VecDeque<Pending<Result<PartId, StorageError>>>,
    done: Vec<PartId>,
    begun: usize,
}

impl CloudUpload {
    /// Begins one; nothing is asked of the service yet.
    pub fn new(place: Arc<Place>, path: Path, name: &str) -> Self {
        let filling = PutPayloadMut::new();
        Self { place, path, name: name.into(), filling, full: Vec::new(), total: 0, parts: None }
    }

    fn writing(&self) -> String {
        format!("writing {:?}", self.name)
    }

    fn explain(&self, e: &StorageError) -> Error {
        fault::explain(&self.place.url, &self.writing(), e)
    }

    fn size_now(&self) -> usize {
        part_size(self.parts.as_ref().map_or(0, |p| p.begun))
    }

    fn take_part(&mut self) -> PutPayload {
        std::mem::take(&mut self.filling).freeze()
    }

    /// Sends a part; waits for an earlier one when too many are under way.
    fn send(&mut self, payload: PutPayload) -> Result<()> {
        if self.parts.is_none() {
            let (client, path) = (self.place.client.clone(), self.path.clone());
            let id =
                run::wait(async move { client.parts.create_multipart(&path).await })?.map_err(|e| self.explain(&e))?;
            self.parts = Some(Parts { id, under_way: VecDeque::new(), done: Vec::new(), begun: 0 });
        }
        while self.parts.as_ref().is_some_and(|p| p.under_way.len() >= AT_ONCE) {
            self.settle_one()?;
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        if parts.begun == MOST_PARTS {
            return Err(Error::target(self.writing()).why("it is larger than a storage service takes in one object"));
        }
        let (client, path, id, index) = (self.place.client.clone(), self.path.clone(), parts.id.clone(), parts.begun);
        parts.under_way.push_back(run::start(async move { client.parts.put_part(&path, &id, index, payload).await })?);
        parts.begun += 1;
        Ok(())
    }

    fn settle_one(&mut self) -> Result<()> {
        let Some(pending) = self.parts.as_mut().and_then(|p| p.under_way.pop_front()) else { return Ok(()) };
        let part = pending.wait()?.map_err(|e| self.explain(&e))?;
        if let Some(parts) = &mut self.parts {
            parts.done.push(part);
        }
        Ok(())
    }

    fn full_part(&mut self) -> Result<()> {
        let payload = self.take_part();
        if self.parts.is_none() {
            self.full.push(payload);
            return Ok(());
        }
        self.send(payload)
    }

    /// From here on in parts.
    fn grow(&mut self) -> Result<()> {
        for payload in std::mem::take(&mut self.full) {
            self.send(payload)?;
        }
        Ok(())
    }

    fn commit_parts(&mut self, existing: Existing) -> Result<Committed> {
        if !self.filling.is_empty() {
            let last = self.take_part();
            self.send(last)?;
        }
        while self.parts.as_ref().is_some_and(|p| !p.under_way.is_empty()) {
            self.settle_one()?;
        }
        let Some(Parts { id, done, .. }) = &mut self.parts else { return Err(Error::state("no parts were sent")) };
        let (id, done) = (id.clone(), std::mem::take(done));
        let committed = finish::complete(&self.place, &self.path, &self.name, &id, done, self.total, existing)?;
        if committed == Committed::Stored {
            self.parts = None; // nothing to take back any more
            confirm(&self.place, &self.path, &self.name, self.total, None, existing)?;
        }
        Ok(committed)
    }
}

impl Write for CloudUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.size_now() - self.filling.content_length();
        let n = bytes.len().min(room);
        self.filling.extend_from_slice(&bytes[..n]);
        self.total += n as u64;
        if self.parts.is_none() && self.total > SINGLE as u64 {
            self.grow().map_err(io::Error::other)?;
        }
        if self.filling.content_length() == self.size_now() {
            self.full_part().map_err(io::Error::other)?;
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for CloudUpload {
    fn commit(mut self: Box<Self>, existing: Existing) -> Result<Committed> {
        if self.parts.is_some() {
            return self.commit_parts(existing);
        }
        let last = self.take_part();
        let whole: PutPayload = self.full.drain(..).chain([last]).flatten().collect();
        let (committed, tag) = put(&self.place, &self.path, &self.name, whole, existing)?;
        if committed == Committed::Stored {
            confirm(&self.place, &self.path, &self.name, self.total, tag, existing)?;
        }
        Ok(committed)
    }
}

impl Drop for CloudUpload {
    fn drop(&mut self) {
        let Some(Parts { id, under_way, .. }) = self.parts.take() else { return };
        under_way.iter().for_each(Pending::abort);
        let (client, path) = (self.place.client.clone(), self.path.clone());
        // What this misses, the next cleanup finds.
        let _ = run::wait(async move {
            let _ = tokio::time::timeout(Duration::from_secs(5), client.parts.abort_multipart(&path, &id)).await;
        });
    }
}

/// Asks the service for what it acknowledged: an object of this length, and of the tag its answer gave. Only then is the file on
/// the other side given up. Somebody else may replace an object that may be replaced, but it has to be there.
///
/// # Errors
/// Target, when it is not there or another one is: what was acknowledged was not stored.
fn confirm(
    place: &Arc<Place>,
    path: &Path,
    name: &str,
    total: u64,
    tag: Option<String>,
    existing: Existing,
) -> Result<()> {
    let (work, at) = (place.clone(), path.clone());
    let seen = run::wait(async move {
        let mut tries = 0;
        loop {
            match work.client.objects.head(&at).await {
                // Some services show a new object a moment after they took it.
                Err(StorageError::NotFound { .. }) if tries < LOOKS => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(50) * 2u32.pow(tries)).await;
                }
                other => return other,
            }
        }
    })?;
    let lied = |why: String| {
        Error::target(format!("{name:?} was acknowledged and is not stored in {}", place.url.short()))
            .why(why)
            .hint("Do not trust this service with backups before this is understood; nothing here counts as stored.")
    };
    match seen {
        Ok(there) if existing == Existing::Keep && there.size != total => {
            Err(lied(format!("{} bytes are there, {total} were sent", there.size)))
        }
        Ok(there) if existing == Existing::Keep && tag.is_some() && there.e_tag.is_some() && there.e_tag != tag => {
            Err(lied("another content is there".into()))
        }
        Ok(_) => Ok(()),
        Err(StorageError::NotFound { .. }) => Err(lied("there is no such object".into())),
        Err(e) => Err(fault::explain(&place.url, &format!("looking for {name:?}"), &e)),
    }
}

/// Stores an object in one request; the tag that the service gave it, where it did.
///
/// # Errors
/// As the service answers.
fn put(
    place: &Arc<Place>,
    path: &Path,
    name: &str,
    payload: PutPayload,
    existing: Existing,
) -> Result<(Committed, Option<String>)> {
    let (work, at) = (place.clone(), path.clone());
    let outcome = run::wait(async move {
        match existing {
            Existing::Replace => {
                work.client.objects.put(&at, payload).await.map(|done| (Committed::Stored, done.e_tag))
            }
            Existing::Keep => put_new(&work, &at, payload).await,
        }
    })?;
    outcome.map_err(|e| fault::explain(&place.url, &format!("writing {name:?}"), &e))
}

/// Stores an object if there is none. An answer may be lost after the object was stored, and the next try is then refused by
/// our own: what is there tells whose it is, since no two sealed objects are the same.
async fn put_new(place: &Place, path: &Path, payload: PutPayload) -> Result<(Committed, Option<String>), StorageError> {
    let mut tries = 0;
    loop {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let failed = match place.client.objects.put_opts(path, payload.clone(), options).await {
            Ok(done) => return Ok((Committed::Stored, done.e_tag)),
            Err(e @ (StorageError::AlreadyExists { .. } | StorageError::Generic { .. })) => e,
            Err(e) => return Err(e),
        };
        let text = fault::text_of(&failed);
        // Refused for good: there is nothing to find.
        if fault::code_of(&text).is_some() && !matches!(failed, StorageError::AlreadyExists { .. }) {
            return Err(failed);
        }
        match place.client.objects.get(path).await {
            Ok(there) => {
                let same = there.bytes().await? == Bytes::from(payload.clone());
                return Ok((if same { Committed::Stored } else { Committed::Kept }, None));
            }
            Err(StorageError::NotFound { .. }) if tries < TRIES => {}
            Err(StorageError::NotFound { .. }) => return Err(failed),
            Err(e) => return Err(e),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(100) * 2u32.pow(tries)).await;
    }
}

/// Replaces an object if it still is the version seen.
///
/// # Errors
/// As the service answers.
pub fn put_over(place: &Arc<Place>, path: &Path, name: &str, bytes: Vec<u8>, seen: UpdateVersion) -> Result<bool> {
    let (work, at) = (place.clone(), path.clone());
    let outcome = run::wait(async move {
        let new = Bytes::from(bytes);
        let options = PutOptions { mode: PutMode::Update(seen), ..PutOptions::default() };
        match work.client.objects.put_opts(&at, new.clone().into(), options).await {
            Ok(_) => Ok(true),
            // Perhaps by ourselves, in a try whose answer was lost.
            Err(StorageError::Precondition { .. } | StorageError::AlreadyExists { .. }) => {
                Ok(work.client.objects.get(&at).await?.bytes().await? == new)
            }
            Err(e) => Err(e),
        }
    })?;
    outcome.map_err(|e| fault::explain(&place.url, &format!("writing {name:?}"), &e))
}
