//! What a record says, for the resource managers that finding a transaction needs.

use super::bytes::{Bytes, u16_at};
use super::record::{Layout, Record, rmgr};
use super::xact::{self, End, Prepared};
use super::{RelFile, Version};
use crate::model::Time;

/// An exclusive lock on a relation, as logged for standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Transaction that holds it.
    pub xid: u32,
    /// Database of the relation.
    pub database: u32,
    /// OID of the relation: the catalog's number, not the file's.
    pub oid: u32,
}

/// The meaning of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A transaction committed, alone or as a prepared one.
    Commit(Box<End>),
    /// A (sub)transaction was rolled back.
    Abort(Box<End>),
    /// A transaction was prepared for a two-phase commit.
    Prepare(Box<Prepared>),
    /// Subtransactions of a transaction, written once per 64 of them.
    Assignment {
        /// Top-level transaction.
        top: u32,
        /// Its subtransactions.
        subs: Vec<u32>,
    },
    /// Rows were inserted.
    Insert {
        /// Storage.
        rel: RelFile,
        /// How many.
        rows: u32,
    },
    /// A row was deleted.
    Delete {
        /// Storage.
        rel: RelFile,
        /// Only because an update moved it to another partition.
        moved: bool,
    },
    /// A row was updated.
    Update {
        /// Storage.
        rel: RelFile,
    },
    /// A row of a system catalog was changed where it stands, at once and whatever becomes of the transaction.
    InPlace {
        /// Storage.
        rel: RelFile,
    },
    /// Tables were truncated (only written with `wal_level=logical`).
    Truncate {
        /// Database.
        database: u32,
        /// OIDs of the tables.
        oids: Vec<u32>,
    },
    /// Storage was created.
    Create {
        /// Storage.
        rel: RelFile,
        /// Fork: 0 main.
        fork: u32,
    },
    /// Storage was cut, by VACUUM or by a TRUNCATE of a table made in the same transaction.
    Cut {
        /// Storage.
        rel: RelFile,
    },
    /// Whole pages were written.
    Pages,
    /// A sequence's state.
    Sequence {
        /// Storage.
        rel: RelFile,
    },
    /// A database was created.
    CreateDatabase {
        /// OID.
        database: u32,
    },
    /// A database's directory was removed: at once at replay, whatever becomes of the transaction.
    DropDatabase {
        /// OID.
        database: u32,
    },
    /// Exclusive locks.
    Locks(Vec<Lock>),
    /// Transactions running at this point.
    Running {
        /// The next transaction id to be given out.
        next_xid: u32,
        /// Oldest one running.
        oldest: u32,
        /// Top-level transactions and, unless there are too many, subtransactions.
        xids: Vec<u32>,
    },
    /// Storage of a database's mapped catalogs: pairs of OID and file.
    Map {
        /// Database; 0 for shared catalogs.
        database: u32,
        /// Tablespace.
        tablespace: u32,
        /// Catalog OIDs and their files.
        files: Vec<(u32, u32)>,
    },
    /// A named restore point.
    RestorePoint {
        /// When.
        time: Time,
        /// Name.
        name: String,
    },
    /// A checkpoint.
    Checkpoint {
        /// Begun at a shutdown or promotion.
        shutdown: bool,
    },
    /// Anything else.
    Other,
}

impl Content {
    /// Reads a record whose layout is known. Kinds that are not needed, extensions' and unknown ones are
    /// [`Content::Other`].
    ///
    /// # Errors
    /// The record is of a known kind and too short for it.
    pub fn read(record: &Record<'_>, layout: &Layout) -> Result<Self, String> {
        let op = record.info & 0xF0;
        let read = match record.rmgr {
            rmgr::HEAP => heap(record, layout),
            rmgr::HEAP2 if op & 0x70 == 0x50 => multi_insert(record, layout),
            rmgr::XACT => transaction(record, layout),
            rmgr::SMGR => storage(record, layout, op),
            rmgr::STANDBY => standby(record, layout, op),
            rmgr::DBASE => database(record, layout, op),
            rmgr::RELMAP if op == 0 => map(record, layout),
            rmgr::XLOG => xlog(record, layout, op),
            rmgr::SEQ => Some(layout.blocks.first().map_or(Self::Other, |b| Self::Sequence { rel: b.rel })),
            _ => Some(Self::Other),
        };
        read.ok_or_else(|| {
            let name = rmgr::name(record.rmgr).unwrap_or("extension");
            format!("a {name} record of kind {op:02X} is shorter than its kind")
        })
    }
}

fn heap(record: &Record<'_>, layout: &Layout) -> Option<Content> {
    let rel = || layout.blocks.first().map(|b| b.rel);
    Some(match record.info & 0x70 {
        0x00 => Content::Insert { rel: rel()?, rows: 1 },
        0x10 => {
            let flags = *layout.main(record).get(7)?;
            // A speculative insertion taken back (INSERT … ON CONFLICT) is no row lost.
            if flags & 0x08 != 0 { Content::Other } else { Content::Delete { rel: rel()?, moved: flags & 0x10 != 0 } }
        }
        0x20 | 0x40 => Content::Update { rel: rel()? },
        0x70 => Content::InPlace { rel: rel()? },
        0x30 => {
            let mut b = Bytes(layout.main(record));
            let database = b.u32()?;
            let n = b.count()?;
            b.take(4)?;
            Content::Truncate { database, oids: b.numbers(n)? }
        }
        _ => Content::Other,
    })
}

fn multi_insert(record: &Record<'_>, layout: &Layout) -> Option<Content> {
    let rows = u16_at(layout.main(record), 2)?;
    Some(Content::Insert { rel: layout.blocks.first()?.rel, rows: u32::from(rows) })
}

fn transaction(record: &Record<'_>, layout: &Layout) -> Option<Content> {
    let main = layout.main(record);
    Some(match record.info & 0x70 {
        0x00 | 0x30 => Content::Commit(Box::new(xact::end(main, record.info, record.version, true)?)),
        0x20 | 0x40 => Content::Abort(Box::new(xact::end(main, record.info, record.version, false)?)),
        0x10 => Content::Prepare(Box::new(xact::prepared(main, record.version)?)),
        0x50 => {
            let mut b = Bytes(main);
            let top = b.u32()?;
            let n = b.count()?;
            Content::Assignment { top, subs: b.numbers(n)? }
        }
        _ => Content::Other,
    })
}

fn storage(record: &Record<'_>, layout: &Layout, op: u8) -> Option<Content> {
    let mut b = Bytes(layout.main(record));
    Some(match op {
        0x10 => Content::Create { rel: b.rel_file()?, fork: b.u32()? },
        0x20 => {
            b.u32()?;
            Content::Cut { rel: b.rel_file()? }
        }
        _ => Content::Other,
    })
}

fn standby(record: &Record<'_>, layout: &Layout, op: u8) -> Option<Content> {
    let mut b = Bytes(layout.main(record));
    Some(match op {
        0x00 => {
            let n = b.count()?;
            let locks = b.items(n, 12)?.filter_map(|c| {
                let mut c = Bytes(c);
                Some(Lock { xid: c.u32()?, database: c.u32()?, oid: c.u32()? })
            });
            Content::Locks(locks.collect())
        }
        0x10 => {
            let (top, sub) = (b.count()?, b.count()?);
            b.take(4)?;
            let (next_xid, oldest) = (b.u32()?, b.u32()?);
            b.u32()?;
            Content::Running { next_xid, oldest, xids: b.numbers(top.checked_add(sub)?)? }
        }
        _ => Content::Other,
    })
}

fn database(record: &Record<'_>, layout: &Layout, op: u8) -> Option<Content> {
    let database = Bytes(layout.main(record)).u32()?;
    // Version 15 put another way to create a database before the number of the drop.
    let drop = if record.version >= Version::V15 { 0x20 } else { 0x10 };
    Some(if op == drop {
        Content::DropDatabase { database }
    } else if op < drop {
        Content::CreateDatabase { database }
    } else {
        Content::Other
    })
}

fn map(record: &Record<'_>, layout: &Layout) -> Option<Content> {
    let mut b = Bytes(layout.main(record));
    let (database, tablespace) = (b.u32()?, b.u32()?);
    b.u32()?;
    // The map file itself: a magic number, a count, and room for a fixed number of pairs.
    b.u32()?;
    let n = b.count()?;
    let files = b.items(n, 8)?.filter_map(|c| {
        let mut c = Bytes(c);
        Some((c.u32()?, c.u32()?))
    });
    Some(Content::Map { database, tablespace, files: files.collect() })
}

fn xlog(record: &Record<'_>, layout: &Layout, op: u8) -> Option<Content> {
    Some(match op {
        0x00 | 0x10 => Content::Checkpoint { shutdown: op == 0 },
        0x70 => {
            let mut b = Bytes(layout.main(record));
            let time = xact::time(b.i64()?);
            let name = b.0.split(|c| *c == 0).next().unwrap_or_default();
            Content::RestorePoint { time, name: String::from_utf8_lossy(name).into_owned() }
        }
        0xB0 => Content::Pages,
        _ => Content::Other,
    })
}
