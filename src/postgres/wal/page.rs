//! The header of a log page (`XLogPageHeaderData`, `XLogLongPageHeaderData`).

use super::Version;
use super::bytes::Bytes;
use crate::postgres::Lsn;

/// Bytes of a log page (`XLOG_BLCKSZ`; another value needs a server built for it).
pub const PAGE_BYTES: usize = 8192;
/// Bytes of an ordinary page header, aligned.
pub const SHORT_HEADER: usize = 24;
/// Bytes of the header of a segment's first page.
pub const LONG_HEADER: usize = 40;

const CONTINUATION: u16 = 0x0001;
const LONG: u16 = 0x0002;
const KNOWN: u16 = 0x000F;
const OVERWRITE: u16 = 0x0008;

/// What the header of a page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// Version by the magic number.
    pub version: Version,
    /// The page begins with the rest of a record begun before it.
    pub continues: bool,
    /// A record begun before it was given up after a crash; the page begins with a new one.
    pub overwrites: bool,
    /// Timeline of its first record.
    pub timeline: u32,
    /// Position of its first byte.
    pub address: Lsn,
    /// Bytes of the continued record from here on, over all pages.
    pub remaining: u32,
    /// Present on a segment's first page: system identifier and segment size in bytes.
    pub long: Option<(u64, u32)>,
}

impl PageHeader {
    /// Reads the header at the beginning of `page`.
    ///
    /// # Errors
    /// What is wrong with it, in words. An all-zero header is `Err(None)`: nothing was ever written there.
    pub fn read(page: &[u8]) -> Result<Self, Option<String>> {
        let mut b = Bytes(page);
        let short = || Some("the page header is cut off".to_string());
        let magic = b.u16().ok_or_else(short)?;
        if magic == 0 && page.iter().take(SHORT_HEADER).all(|b| *b == 0) {
            return Err(None);
        }
        let version = Version::of_magic(magic).ok_or_else(|| {
            Some(format!("the page's magic number is {magic:04X}, which is none of PostgreSQL 13 to 17"))
        })?;
        let flags = b.u16().ok_or_else(short)?;
        if flags & !KNOWN != 0 {
            return Err(Some(format!("the page header has unknown flags {flags:04X}")));
        }
        let timeline = b.u32().ok_or_else(short)?;
        let address = Lsn(b.u64().ok_or_else(short)?);
        let remaining = b.u32().ok_or_else(short)?;
        b.take(4).ok_or_else(short)?;
        let long = if flags & LONG != 0 {
            let system = b.u64().ok_or_else(short)?;
            let size = b.u32().ok_or_else(short)?;
            let block = b.u32().ok_or_else(short)?;
            if block as usize != PAGE_BYTES {
                return Err(Some(format!("its log pages have {block} bytes; only {PAGE_BYTES} is supported")));
            }
            Some((system, size))
        } else {
            None
        };
        let continues = flags & CONTINUATION != 0;
        if continues == (remaining == 0) {
            return Err(Some(format!("the page header's continuation of {remaining} bytes contradicts its flags")));
        }
        Ok(Self { version, continues, overwrites: flags & OVERWRITE != 0, timeline, address, remaining, long })
    }
    /// Bytes the header takes.
    pub fn bytes(&self) -> usize {
        if self.long.is_some() { LONG_HEADER } else { SHORT_HEADER }
    }
}
