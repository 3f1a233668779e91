//! A record: its header, its checksum, and the layout of its body.

use crc32c::{crc32c, crc32c_append};

use super::bytes::Bytes;
use super::{Compression, RelFile, Version};
use crate::postgres::Lsn;

/// Bytes of a record's header (`SizeOfXLogRecord`).
pub const HEADER: usize = 24;
/// Longest record PostgreSQL writes (`XLogRecordMaxSize`, 1020 MB).
pub const LONGEST: u32 = 1020 << 20;

/// Resource managers, as numbered in `access/rmgrlist.h`; the same in versions 13 to 17.
pub mod rmgr {
    #![allow(missing_docs)] // the names are PostgreSQL's
    pub const XLOG: u8 = 0;
    pub const XACT: u8 = 1;
    pub const SMGR: u8 = 2;
    pub const DBASE: u8 = 4;
    pub const TABLESPACE: u8 = 5;
    pub const RELMAP: u8 = 7;
    pub const STANDBY: u8 = 8;
    pub const HEAP2: u8 = 9;
    pub const HEAP: u8 = 10;
    pub const SEQ: u8 = 15;
    pub const LOGICALMSG: u8 = 21;
    /// Highest number of PostgreSQL's own.
    pub const LAST: u8 = 21;
    /// Lowest number of an extension's, from version 15 on.
    pub const FIRST_CUSTOM: u8 = 128;

    /// The name `pg_waldump` prints.
    pub fn name(id: u8) -> Option<&'static str> {
        const NAMES: [&str; 22] = [
            "XLOG",
            "Transaction",
            "Storage",
            "CLOG",
            "Database",
            "Tablespace",
            "MultiXact",
            "RelMap",
            "Standby",
            "Heap2",
            "Heap",
            "Btree",
            "Hash",
            "Gin",
            "Gist",
            "Sequence",
            "SPGist",
            "BRIN",
            "CommitTs",
            "ReplicationOrigin",
            "Generic",
            "LogicalMessage",
        ];
        NAMES.get(usize::from(id)).copied()
    }
}

/// One whole record whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Position of its first byte: what PostgreSQL and `pg_waldump` call its LSN.
    pub lsn: Lsn,
    /// Position just after it, aligned.
    pub end: Lsn,
    /// Timeline of the page it begins on.
    pub timeline: u32,
    /// Position of the record before it.
    pub prev: Lsn,
    /// The (sub)transaction that wrote it; 0 for none.
    pub xid: u32,
    /// Resource manager, see [`rmgr`].
    pub rmgr: u8,
    /// What kind of record, by resource manager; the low four bits are general flags.
    pub info: u8,
    /// Version of its log.
    pub version: Version,
    /// Everything after the header.
    pub body: &'a [u8],
}

/// The fields of a record's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub length: u32,
    pub xid: u32,
    pub prev: Lsn,
    pub info: u8,
    pub rmgr: u8,
    pub crc: u32,
}

impl Header {
    /// Reads 24 bytes; none when there are fewer.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut b = Bytes(bytes);
        let (length, xid, prev, info, rmgr) = (b.u32()?, b.u32()?, b.u64()?, b.u8()?, b.u8()?);
        b.take(2)?;
        Some(Self { length, xid, prev: Lsn(prev), info, rmgr, crc: b.u32()? })
    }
    /// Why this cannot be a record's header, if so.
    pub fn wrong(&self, prev: Option<Lsn>, lsn: Lsn, version: Version) -> Option<String> {
        if (self.length as usize) < HEADER || self.length > LONGEST {
            return Some(format!("the record's length is {}", self.length));
        }
        let custom = self.rmgr >= rmgr::FIRST_CUSTOM && version >= Version::V15;
        if self.rmgr > rmgr::LAST && !custom {
            return Some(format!("the record's resource manager is {}", self.rmgr));
        }
        match prev {
            Some(p) if p != self.prev => Some(format!("the record says {} came before it, not {p}", self.prev)),
            None if self.prev >= lsn => Some(format!("the record says {} came before it", self.prev)),
            _ => None,
        }
    }
}

/// Whether the CRC-32C of a whole record (header and body) is the one in its header.
pub(super) fn checksum_ok(record: &[u8], crc: u32) -> bool {
    let (Some(head), Some(body)) = (record.get(..20), record.get(HEADER..)) else { return false };
    crc32c_append(crc32c(body), head) == crc
}

/// A place in a record's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    from: u32,
    len: u32,
}

/// A block a record touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Block {
    /// Number of this reference in the record.
    pub id: u8,
    /// The relation's storage.
    pub rel: RelFile,
    /// Fork: 0 main, 1 free space, 2 visibility, 3 init.
    pub fork: u8,
    /// Block number.
    pub block: u32,
    /// The page is built anew by this record.
    pub init: bool,
    /// A page image is there and replaces the page.
    pub applies: bool,
    /// How the image is compressed.
    pub compression: Compression,
    /// Where the zeros between the two parts of the image were taken out.
    pub hole_offset: u16,
    /// How many zeros, for a compressed image; an uncompressed one lacks as many as it is shorter than a page.
    pub hole_length: u16,
    image: Span,
    data: Span,
}

impl Block {
    /// The page image, without its hole; empty when there is none.
    pub fn image<'a>(&self, record: &Record<'a>) -> &'a [u8] {
        part(record.body, self.image)
    }
    /// The data that goes with the block; empty when there is none.
    pub fn data<'a>(&self, record: &Record<'a>) -> &'a [u8] {
        part(record.body, self.data)
    }
}

fn part(body: &[u8], span: Span) -> &[u8] {
    let from = span.from as usize;
    body.get(from..from + span.len as usize).unwrap_or_default()
}

/// How a record's body is laid out; kept by the caller and filled again for each record.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// The blocks, in their order.
    pub blocks: Vec<Block>,
    /// The top-level transaction of a subtransaction, when the record says it (`wal_level=logical`).
    pub top_xid: Option<u32>,
    main: Span,
}

impl Layout {
    /// The record's own data.
    pub fn main<'a>(&self, record: &Record<'a>) -> &'a [u8] {
        part(record.body, self.main)
    }
    /// The block with reference number `id`.
    pub fn block(&self, id: u8) -> Option<&Block> {
        self.blocks.iter().find(|b| b.id == id)
    }
    /// Reads the headers of `record`'s parts.
    ///
    /// # Errors
    /// The parts do not add up to the record, in words.
    pub fn read(&mut self, record: &Record<'_>) -> Result<(), String> {
        self.blocks.clear();
        self.top_xid = None;
        self.main = Span::default();
        self.walk(record).ok_or_else(|| "the parts of the record do not add up".to_string())
    }

    fn walk(&mut self, record: &Record<'_>) -> Option<()> {
        let body = record.body;
        let mut b = Bytes(body);
        let mut data_bytes = 0usize;
        let mut main_bytes = 0usize;
        let mut rel = None;
        // Headers come first; they end where what they announce fills the rest.
        while b.0.len() > data_bytes {
            match b.u8()? {
                255 => {
                    main_bytes = usize::from(b.u8()?);
                    data_bytes += main_bytes;
                    break;
                }
                254 => {
                    main_bytes = b.u32()? as usize;
                    data_bytes = data_bytes.checked_add(main_bytes)?;
                    break;
                }
                253 => {
                    b.u16()?;
                }
                252 => self.top_xid = Some(b.u32()?),
                id @ 0..=32 => {
                    let block = self.block_header(id, &mut b, &mut rel, record.version)?;
                    data_bytes += (block.image.len + block.data.len) as usize;
                    self.blocks.push(block);
                }
                _ => return None,
            }
        }
        if b.0.len() != data_bytes {
            return None;
        }
        let mut at = u32::try_from(body.len() - data_bytes).ok()?;
        for block in &mut self.blocks {
            block.image.from = at;
            at += block.image.len;
            block.data.from = at;
            at += block.data.len;
        }
        self.main = Span { from: at, len: u32::try_from(main_bytes).ok()? };
        Some(())
    }

    fn block_header(&self, id: u8, b: &mut Bytes<'_>, rel: &mut Option<RelFile>, version: Version) -> Option<Block> {
        if self.blocks.last().is_some_and(|last| last.id >= id) {
            return None;
        }
        let flags = b.u8()?;
        let mut block = Block { id, fork: flags & 0x0F, init: flags & 0x40 != 0, ..Block::default() };
        block.data.len = u32::from(b.u16()?);
        if (flags & 0x20 != 0) != (block.data.len > 0) {
            return None;
        }
        if flags & 0x10 != 0 {
            block.image.len = u32::from(b.u16()?);
            block.hole_offset = b.u16()?;
            let image = b.u8()?;
            let hole = image & 0x01 != 0;
            // The flags moved in version 15, when two more ways to compress came.
            let (applies, pglz) =
                if version >= Version::V15 { (image & 0x02, image & 0x04) } else { (image & 0x04, image & 0x02) };
            block.applies = applies != 0;
            block.compression = if pglz != 0 {
                Compression::Pglz
            } else if version >= Version::V15 && image & 0x08 != 0 {
                Compression::Lz4
            } else if version >= Version::V15 && image & 0x10 != 0 {
                Compression::Zstd
            } else {
                Compression::None
            };
            if hole && block.compression != Compression::None {
                block.hole_length = b.u16()?;
            }
        }
        if flags & 0x80 == 0 {
            *rel = Some(b.rel_file()?);
        }
        block.rel = (*rel)?;
        block.block = b.u32()?;
        Some(block)
    }
}
