//! What one (sub)transaction did, gathered until it ends.

use super::catalog::Change;
use crate::model::Time;
use crate::postgres::Lsn;
use crate::postgres::wal::{Lock, RelFile};

/// What was done to one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Rows moved to another partition by an update.
    pub moved: u64,
    /// Rows on whole heap pages written.
    pub page_rows: u64,
    /// Whole heap pages written, the compressed ones too.
    pub heap_pages: u64,
    /// Whole pages of indexes and sequences written.
    pub other_pages: u64,
}

impl Counts {
    /// Adds the counts of another part of the same transaction.
    pub fn add(&mut self, other: &Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.moved += other.moved;
        self.page_rows += other.page_rows;
        self.heap_pages += other.heap_pages;
        self.other_pages += other.other_pages;
    }
    /// Rows put into the file.
    pub fn filled(&self) -> u64 {
        self.inserted + self.page_rows
    }
}

/// A directory removed or about to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropDatabase {
    /// OID of the database.
    pub database: u32,
    /// The `Database DROP` record.
    pub lsn: Lsn,
}

/// One (sub)transaction.
#[derive(Debug, Clone, Default)]
pub struct Xact {
    /// Its first record seen.
    pub first: Lsn,
    /// Files it touched.
    pub files: Vec<(RelFile, Counts)>,
    last_file: usize,
    /// Main forks it created.
    pub created: Vec<RelFile>,
    /// Exclusive locks.
    pub locks: Vec<Lock>,
    /// Changes of catalogs, in order.
    pub catalog: Vec<Change>,
    /// Databases it dropped.
    pub drop_databases: Vec<DropDatabase>,
    /// Name and time of its PREPARE.
    pub prepared: Option<(String, Time)>,
    /// Its top-level transaction, when the log has said it already.
    pub top: Option<u32>,
    /// It began before the log that was read.
    pub began_earlier: bool,
}

impl Xact {
    /// One whose first record is at `lsn`.
    pub fn begin(lsn: Lsn) -> Self {
        Self { first: lsn, ..Self::default() }
    }
    /// Counts of a file.
    #[inline]
    pub fn file(&mut self, rel: RelFile) -> &mut Counts {
        if self.files.get(self.last_file).is_none_or(|(f, _)| *f != rel) {
            self.last_file = match self.files.iter().position(|(f, _)| *f == rel) {
                Some(at) => at,
                None => {
                    self.files.push((rel, Counts::default()));
                    self.files.len() - 1
                }
            };
        }
        &mut self.files[self.last_file].1
    }
    /// Takes in a subtransaction.
    pub fn merge(&mut self, sub: Self) {
        self.first = self.first.min(sub.first);
        for (rel, counts) in &sub.files {
            self.file(*rel).add(counts);
        }
        self.created.extend(sub.created);
        self.locks.extend(sub.locks);
        self.catalog.extend(sub.catalog);
        self.drop_databases.extend(sub.drop_databases);
        self.began_earlier |= sub.began_earlier;
    }
    /// What it put into a file.
    pub fn filled(&self, rel: RelFile) -> Counts {
        self.files.iter().find(|(f, _)| *f == rel).map(|(_, c)| *c).unwrap_or_default()
    }
}
