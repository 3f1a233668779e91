//! Reading PostgreSQL's write-ahead log: pages, records, and what the records say. Versions 13 to 17.
//!
//! The byte layouts are those of PostgreSQL's headers `access/xlog_internal.h`, `access/xlogrecord.h`, `access/xact.h`,
//! `access/heapam_xlog.h`, `storage/standbydefs.h`, `catalog/storage_xlog.h`, `commands/dbcommands_xlog.h`, little-endian
//! as on x86-64 and ARM. Nothing here opens a file: the caller hands in the bytes of each segment.

mod bytes;
pub mod compress;
pub mod content;
pub mod heap;
pub mod page;
pub mod reader;
pub mod record;
pub mod xact;

use std::fmt;

use crate::model::Time;

pub use compress::Compression;
pub use content::{Content, Lock};
pub use page::{PAGE_BYTES, PageHeader};
pub use reader::{Damage, Reader, Stop, Tail};
pub use record::{Block, Layout, Record};
pub use xact::{End, Prepared};

/// A major version, as told by the magic number of the log's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// PostgreSQL 13.
    V13,
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
}

impl Version {
    /// The version whose pages carry `magic` (`XLOG_PAGE_MAGIC`).
    pub fn of_magic(magic: u16) -> Option<Self> {
        Some(match magic {
            0xD106 => Self::V13,
            0xD10D => Self::V14,
            0xD110 => Self::V15,
            0xD113 => Self::V16,
            0xD116 => Self::V17,
            _ => return None,
        })
    }
    /// The major version number.
    pub fn major(self) -> u32 {
        match self {
            Self::V13 => 13,
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
        }
    }
}

/// A relation's storage as the log names it: three numbers, no name. The catalog's OID is another number, which is equal
/// only until the first rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelFile {
    /// OID of the tablespace (1663 `pg_default`, 1664 `pg_global`).
    pub tablespace: u32,
    /// OID of the database; 0 for shared catalogs.
    pub database: u32,
    /// The file's number.
    pub file: u32,
}

impl fmt::Display for RelFile {
    /// As `pg_waldump` writes it: `1663/5/16384`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.file)
    }
}

/// First OID that is not PostgreSQL's own (`FirstNormalObjectId`).
pub const FIRST_USER_OID: u32 = 16384;

/// PostgreSQL's epoch, 2000-01-01.
pub const EPOCH: Time = Time::from_micros(946_684_800_000_000);
