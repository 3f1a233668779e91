//! A repository in a bucket: S3 and what is compatible with it, Google Cloud Storage, Azure Blob Storage.
//!
//! Durable is what the service acknowledged. Nothing is overwritten that must stay: the storage itself is asked to store an
//! object only if there is none of its name, so that several machines may write at once.

mod client;
mod fault;
mod finish;
mod read;
mod run;
mod upload;
pub mod url;

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StorageError, ObjectStore, ObjectStoreExt, UpdateVersion};

use super::cleanup::IN_PROGRESS_MICROS;
use super::container::header::check_name;
use super::repository::now;
use super::stamp::Stamp;
use super::store::{Access, Entry, Store, Upload};
use crate::error::{Error, Result};
use client::Client;
use url::CloudUrl;

/// A place in a bucket with its client.
#[derive(Debug)]
struct Place {
    url: CloudUrl,
    client: Client,
}

impl Place {
    /// The folder of the repository as keys begin: empty, or ending in a slash.
    fn folder(&self) -> String {
        if self.url.prefix.is_empty() { String::new() } else { format!("{}/", self.url.prefix) }
    }
}

/// Objects in a bucket.
#[derive(Debug, Clone)]
pub struct CloudStore(Arc<Place>);

/// Name under which an unfinished upload is listed among leftovers: `folder/.upload-ID-file`.
const UNFINISHED: &str = ".upload-";

impl CloudStore {
    /// For a place. Nothing is asked of the service yet.
    ///
    /// # Errors
    /// Config when there are no credentials.
    pub fn new(url: CloudUrl) -> Result<Self> {
        let client = client::connect(&url)?;
        Ok(Self(Arc::new(Place { url, client })))
    }

    fn path(&self, name: &str) -> Result<Path> {
        check_name(name)?;
        self.key(&format!("{}{name}", self.0.folder()))
    }

    fn key(&self, key: &str) -> Result<Path> {
        Path::parse(key).map_err(|e| Error::state(format!("{key:?} is not a key")).why(e))
    }

    fn explain(&self, what: &str, e: &StorageError) -> Error {
        fault::explain(&self.0.url, what, e)
    }

    /// What an answer to a question about one object means when there is none.
    fn missing(&self, what: &str, e: &StorageError) -> Result<()> {
        match e {
            StorageError::NotFound { .. } if !fault::bucket_is_missing(&fault::text_of(e)) => Ok(()),
            e => Err(self.explain(what, e)),
        }
    }
}

impl Store for CloudStore {
    fn url(&self) -> String {
        self.0.url.to_string()
    }

    fn create(&self, name: &str, _: Access) -> Result<Box<dyn Upload>> {
        Ok(Box::new(upload::CloudUpload::new(self.0.clone(), self.path(name)?, name)))
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>> {
        let path = self.path(name)?;
        let input = read::open(&self.0.client, &self.0.url, &path, name)?;
        Ok(input.map(|r| Box::new(r) as Box<dyn Read + Send>))
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        let (place, path) = (self.0.clone(), self.path(name)?);
        match run::wait(async move { place.client.objects.get_range(&path, range).await })? {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(e) => self.missing(&format!("reading {name:?}"), &e).map(|()| None),
        }
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        let (place, path) = (self.0.clone(), self.path(name)?);
        match run::wait(async move { place.client.objects.head(&path).await })? {
            Ok(there) => Ok(Some(there.size)),
            Err(e) => self.missing(&format!("looking at {name:?}"), &e).map(|()| None),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let (place, folder) = (self.0.clone(), self.0.folder());
        let from = self.key(format!("{folder}{prefix}").trim_end_matches('/'))?;
        let under = (!from.as_ref().is_empty()).then_some(from);
        let all: Vec<_> = run::wait(async move { place.client.objects.list(under.as_ref()).try_collect().await })?
            .map_err(|e| self.explain(&format!("listing {prefix:?}"), &e))?;
        let mut found: Vec<Entry> = all
            .into_iter()
            .filter_map(|o| {
                let name = o.location.as_ref().strip_prefix(&folder)?.to_string();
                // What is not an object of a repository was put there by somebody else.
                check_name(&name).is_ok().then_some(Entry {
                    name,
                    size: o.size,
                    stamp: o.e_tag.as_deref().map(Stamp::of_tag),
                })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<bool> {
        let (place, path) = (self.0.clone(), self.path(name)?);
        // Not every service says whether there was one.
        match run::wait(async move { place.client.objects.delete(&path).await })? {
            Ok(()) => Ok(true),
            Err(e) => self.missing(&format!("removing {name:?}"), &e).map(|()| false),
        }
    }

    fn settle(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn at_once(&self) -> usize {
        16
    }

    fn foreign(&self, ours: &[&str]) -> Result<Option<String>> {
        let (place, folder) = (self.0.clone(), self.0.folder());
        let under = (!self.0.url.prefix.is_empty()).then(|| self.key(&self.0.url.prefix)).transpose()?;
        let seen = run::wait(async move { place.client.objects.list_with_delimiter(under.as_ref()).await })?
            .map_err(|e| self.explain("looking at what is there", &e))?;
        let names = seen.common_prefixes.iter().chain(seen.objects.iter().map(|o| &o.location));
        Ok(names
            .filter_map(|p| p.as_ref().strip_prefix(&folder))
            .find(|n| !ours.contains(n) && !n.starts_with('.'))
            .map(str::to_string))
    }

    fn swap(&self, name: &str, _: Access, is: &dyn Fn(&[u8]) -> bool, new: &[u8]) -> Result<bool> {
        let (place, path) = (self.0.clone(), self.path(name)?);
        let at = path.clone();
        let seen = run::wait(async move {
            let there = place.client.objects.get(&at).await?;
            // Google knows versions by number, the others by tag.
            let seen = UpdateVersion { e_tag: there.meta.e_tag.clone(), version: there.meta.version.clone() };
            Ok::<_, StorageError>((there.bytes().await?, seen))
        })?;
        match seen {
            Ok((bytes, seen)) if is(&bytes) => upload::put_over(&self.0, &path, name, new.to_vec(), seen),
            Ok(_) => Ok(false),
            Err(e) => self.missing(&format!("reading {name:?}"), &e).map(|()| false),
        }
    }

    fn leftovers(&self) -> Result<Vec<Entry>> {
        let folder = self.0.folder();
        let old = |begun: crate::model::Time| now().micros().saturating_sub(begun.micros()) > IN_PROGRESS_MICROS;
        Ok(finish::unfinished(&self.0)?
            .into_iter()
            .filter(|u| u.begun.is_some_and(old))
            .filter_map(|u| {
                let name = u.key.strip_prefix(&folder)?;
                let (dir, file) = name.rsplit_once('/').map_or(("", name), |(d, f)| (d, f));
                let slash = if dir.is_empty() { "" } else { "/" };
                Some(Entry { name: format!("{dir}{slash}{UNFINISHED}{}-{file}", hex_of(&u.id)), size: 0, stamp: None })
            })
            .collect())
    }

    fn remove_leftover(&self, name: &str) -> Result<bool> {
        let (dir, file) = name.rsplit_once('/').map_or(("", name), |(d, f)| (d, f));
        let parts = file.strip_prefix(UNFINISHED).and_then(|rest| rest.split_once('-'));
        let Some((id, file)) = parts.and_then(|(id, file)| Some((text_of_hex(id)?, file))) else {
            return Err(Error::state(format!("{name:?} is not an unfinished upload")));
        };
        let slash = if dir.is_empty() { "" } else { "/" };
        finish::give_up(&self.0, &format!("{}{dir}{slash}{file}", self.0.folder()), &id)
    }
}

/// An upload's id may hold anything; a name may not.
fn hex_of(id: &str) -> String {
    super::container::hex(id.as_bytes())
}

fn text_of_hex(hex: &str) -> Option<String> {
    let digits = hex.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()
}
