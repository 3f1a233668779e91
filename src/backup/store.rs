//! Where a repository's objects live: a small trait, and which of the places that have it a URL names.

mod directory;
mod looked_at;

use std::io::{Read, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::cloud::CloudStore;
use super::cloud::url::{CloudUrl, service_of};
use super::container::from_io;
use super::stamp::Stamp;
use crate::error::{Context, Error, Result};

pub use directory::DirStore;
pub(crate) use directory::sync_dir;
pub use looked_at::LookedAt;

/// Who may read an object's file; its content is sealed anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Owner only: key files.
    Private,
    /// Owner and group: sealed objects.
    Group,
    /// Everybody: what the archiving side must read.
    Public,
}

/// What becomes of an object that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and [`Upload::commit`] says so.
    Keep,
    /// It is replaced in one step.
    Replace,
}

/// What [`Upload::commit`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The object is in place and durable.
    Stored,
    /// An object of that name is there and was left alone.
    Kept,
}

/// An object being written. Dropped without [`Upload::commit`] it leaves nothing behind.
pub trait Upload: Write {
    /// Makes the object durable and visible, both or neither.
    fn commit(self: Box<Self>, existing: Existing) -> Result<Committed>;
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name of the object.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Changes when it is written, replaced or touched; none where the place does not tell.
    pub stamp: Option<Stamp>,
}

/// A place for objects under slash-separated names.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The URL it was opened by.
    fn url(&self) -> String;
    /// Begins an object.
    fn create(&self, name: &str, access: Access) -> Result<Box<dyn Upload>>;
    /// Opens an object; `None` when there is none of that name.
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>>;
    /// Bytes of an object from `range.start` to `range.end`, fewer only where it ends before; `None` when there is none of that
    /// name.
    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>>;
    /// Its size in bytes; `None` when there is none of that name.
    fn size(&self, name: &str) -> Result<Option<u64>>;
    /// All objects whose name begins with `prefix` (a folder ending in `/`, or empty), sorted by name.
    fn list(&self, prefix: &str) -> Result<Vec<Entry>>;
    /// Removes an object; `false` when there was none.
    fn delete(&self, name: &str) -> Result<bool>;
    /// Makes sure that an object seen is also durable, whoever stored it.
    fn settle(&self, name: &str) -> Result<()>;
    /// How many requests at once are worth while: more than one where each takes a journey over a network.
    fn at_once(&self) -> usize {
        1
    }
    /// Makes the place ready for a repository, `wal/` for the user and group that archive when they are not the caller.
    fn prepare(&self, _wal_owner: Option<(u32, u32)>) -> Result<()> {
        Ok(())
    }
    /// Something at the place's top that is none of `ours` and not hidden, if there is any.
    fn foreign(&self, ours: &[&str]) -> Result<Option<String>>;
    /// Replaces an object by `new` in one step if `is` says so of what is there; `false` when it does not, when there is none, or when
    /// somebody else replaced it meanwhile.
    fn swap(&self, name: &str, access: Access, is: &dyn Fn(&[u8]) -> bool, new: &[u8]) -> Result<bool>;
    /// Unfinished objects whose writers are gone, and empty folders of backups (named with a `/` at the end); nobody else sees
    /// them.
    fn leftovers(&self) -> Result<Vec<Entry>> {
        Ok(Vec::new())
    }
    /// Removes one of [`Store::leftovers`].
    fn remove_leftover(&self, _name: &str) -> Result<bool> {
        Ok(false)
    }
    /// Removes what costs nothing to find and to remove: empty folders of backups that were never finished.
    fn sweep(&self) {}
    /// Lets go of the room that [`Store::keep_reserve`] holds; `false` when it holds none.
    ///
    /// # Errors
    /// The file cannot be removed.
    fn release_reserve(&self) -> Result<bool> {
        Ok(false)
    }
    /// Holds a little room, so that something can be removed from a disk that is full. Where room never ends, nothing is done.
    ///
    /// # Errors
    /// There is no room for it.
    fn keep_reserve(&self) -> Result<()> {
        Ok(())
    }
    /// Writes a small object at once.
    fn put(&self, name: &str, access: Access, bytes: &[u8], existing: Existing) -> Result<Committed> {
        let mut upload = self.create(name, access)?;
        upload.write_all(bytes).map_err(|e| from_io(e, || format!("writing {name:?}")))?;
        upload.commit(existing)
    }
    /// Reads a small object, at most `limit` bytes.
    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(input) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        input.take(limit + 1).read_to_end(&mut bytes).map_err(|e| from_io(e, || format!("reading {name:?}")))?;
        if bytes.len() as u64 > limit {
            return Err(Error::check(format!("{name:?} is larger than {limit} bytes")));
        }
        Ok(Some(bytes))
    }
}

/// The directory a repository URL names: `file:///absolute/path` or a plain path.
///
/// # Errors
/// A URL of another scheme, or a path that is not absolute where `absolute` asks for one.
pub fn directory_of(url: &str, absolute: bool) -> Result<PathBuf> {
    let path = if let Some(rest) = url.strip_prefix("file://") {
        let rest = rest.strip_prefix("localhost").unwrap_or(rest);
        if !rest.starts_with('/') {
            return Err(Error::usage(format!("repository {url:?}")).hint("Write file:///absolute/path, three slashes."));
        }
        PathBuf::from(percent_decoded(rest))
    } else if let Some((scheme, _)) = url.split_once("://") {
        return Err(Error::usage(format!("a repository whose URL begins with {scheme:?}"))
            .why("there is no such storage")
            .hint("Use a directory, or a URL that begins with file://, s3://, gs:// or az://."));
    } else {
        PathBuf::from(url)
    };
    if path.as_os_str().is_empty() {
        return Err(Error::usage("an empty repository URL"));
    }
    if absolute && !path.is_absolute() {
        return Err(Error::usage(format!("repository {url:?}"))
            .why("an archive command runs in a working directory of the server's choosing")
            .hint("Give the absolute path of the repository."));
    }
    std::path::absolute(&path).usage(|| format!("repository {url:?}"))
}

pub(crate) fn percent_decoded(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let code =
            (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten().and_then(|h| u8::from_str_radix(h, 16).ok());
        if let Some(b) = code {
            out.push(b);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    std::ffi::OsString::from_vec(out)
}

/// Opens the place that a URL names; `absolute` as in [`directory_of`]. Nothing is asked of it yet.
///
/// # Errors
/// Usage or config, when the URL cannot be used.
pub fn open_place(url: &str, absolute: bool) -> Result<Arc<dyn Store>> {
    Ok(match service_of(url) {
        Some(_) => Arc::new(CloudStore::new(CloudUrl::parse(url)?)?),
        None => Arc::new(DirStore::new(directory_of(url, absolute)?)),
    })
}
