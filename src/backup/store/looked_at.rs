//! A place that is only read, whoever could write there: every change is refused, with the reason.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use super::{Access, Entry, Store, Upload};
use crate::error::{Error, Result};

/// The place behind it, and why nothing is written there.
#[derive(Debug)]
pub struct LookedAt {
    place: Arc<dyn Store>,
    why: Error,
}

impl LookedAt {
    /// A place, and what every change to it is answered with.
    pub fn new(place: Arc<dyn Store>, why: Error) -> Self {
        Self { place, why }
    }
    fn refused<T>(&self) -> Result<T> {
        Err(self.why.clone())
    }
}

impl Store for LookedAt {
    fn url(&self) -> String {
        self.place.url()
    }
    fn create(&self, _: &str, _: Access) -> Result<Box<dyn Upload>> {
        self.refused()
    }
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>> {
        self.place.open(name)
    }
    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        self.place.read_range(name, range)
    }
    fn size(&self, name: &str) -> Result<Option<u64>> {
        self.place.size(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.place.list(prefix)
    }
    fn delete(&self, _: &str) -> Result<bool> {
        self.refused()
    }
    fn settle(&self, _: &str) -> Result<()> {
        self.refused()
    }
    fn at_once(&self) -> usize {
        self.place.at_once()
    }
    fn prepare(&self, _: Option<(u32, u32)>) -> Result<()> {
        self.refused()
    }
    fn foreign(&self, ours: &[&str]) -> Result<Option<String>> {
        self.place.foreign(ours)
    }
    fn swap(&self, _: &str, _: Access, _: &dyn Fn(&[u8]) -> bool, _: &[u8]) -> Result<bool> {
        self.refused()
    }
    fn leftovers(&self) -> Result<Vec<Entry>> {
        self.place.leftovers()
    }
    fn remove_leftover(&self, _: &str) -> Result<bool> {
        self.refused()
    }
    fn release_reserve(&self) -> Result<bool> {
        self.refused()
    }
    fn keep_reserve(&self) -> Result<()> {
        self.refused()
    }
    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.place.get(name, limit)
    }
}
