//! Rows of heap pages as the log carries them: in page images, in inserts, in updates that leave out what did not change.
//!
//! Needed for the few system catalogs whose rows tell which name belongs to which file.

use super::bytes::{Bytes, u16_at};
use super::compress::{Compression, decompress};
use super::record::{Block, Layout, Record};

/// Bytes of a heap page (`BLCKSZ`).
const PAGE: usize = 8192;
/// Bytes of a page's header before its line pointers.
const PAGE_HEADER: usize = 24;
/// Bytes of a row's header before its null bitmap (`SizeofHeapTupleHeader`).
const ROW_HEADER: usize = 23;

/// A row's user data, from `t_hoff` on, and how many bytes of bitmap and padding stood before it.
pub type Row = Vec<u8>;

/// What a page image is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A heap page with this many line pointers.
    Heap(u32),
    /// An index, sequence or other page: it has a special space.
    Other,
    /// Compressed: not looked into.
    Unknown,
}

/// What the image of a block is of; none when it has none.
pub fn image_kind(record: &Record<'_>, block: &Block) -> Option<Kind> {
    let image = block.image(record);
    if image.is_empty() {
        return None;
    }
    if block.compression != Compression::None {
        return Some(Kind::Unknown);
    }
    let (lower, special) = (u16_at(image, 12)?, u16_at(image, 16)?);
    if usize::from(special) == PAGE && usize::from(lower) >= PAGE_HEADER {
        Some(Kind::Heap((u32::from(lower) - PAGE_HEADER as u32) / 4))
    } else {
        Some(Kind::Other)
    }
}

/// The rows of a page image by line number.
pub fn image_rows(record: &Record<'_>, block: &Block) -> Vec<(u16, Row)> {
    let Some(page) = page(record, block) else { return Vec::new() };
    let lower = u16_at(&page, 12).map_or(0, usize::from);
    let mut rows = Vec::new();
    for (i, pointer) in page.get(PAGE_HEADER..lower).unwrap_or_default().chunks_exact(4).enumerate() {
        let Some(p) = Bytes(pointer).u32() else { break };
        // 15 bits of offset, 2 of state (1 is in use), 15 of length.
        let (offset, state, length) = ((p & 0x7FFF) as usize, (p >> 15) & 3, (p >> 17) as usize);
        let Some(tuple) = page.get(offset..offset + length).filter(|_| state == 1) else { continue };
        let Some(data) = tuple.get(22).and_then(|hoff| tuple.get(usize::from(*hoff)..)) else { continue };
        rows.push(((i + 1) as u16, data.to_vec()));
    }
    rows
}

/// A block's page, its hole filled again.
fn page(record: &Record<'_>, block: &Block) -> Option<Vec<u8>> {
    let stored = block.image(record);
    if stored.is_empty() {
        return None;
    }
    let plain;
    let image = if block.compression == Compression::None {
        stored
    } else {
        let length = PAGE.checked_sub(usize::from(block.hole_length))?;
        plain = decompress(block.compression, stored, length)?;
        plain.as_slice()
    };
    let (before, after) = image.split_at_checked(usize::from(block.hole_offset).min(image.len()))?;
    let mut page = vec![0u8; PAGE];
    page.get_mut(..before.len())?.copy_from_slice(before);
    page.get_mut(PAGE.checked_sub(after.len())?..)?.copy_from_slice(after);
    Some(page)
}

/// Line number and data of an inserted row; the data is missing when a page image stands for it.
pub fn inserted(record: &Record<'_>, layout: &Layout) -> Option<(u16, Option<Row>)> {
    let line = u16_at(layout.main(record), 0)?;
    Some((line, row(layout.blocks.first()?.data(record), None, 0, 0)))
}

/// What an update says: line numbers of the old and new row, and how the new one is put together.
#[derive(Debug, Clone, Copy)]
pub struct Updated<'a> {
    /// Line of the old row, on the last block of the record.
    pub old_line: u16,
    /// Line of the new row, on the first block.
    pub new_line: u16,
    data: &'a [u8],
    flags: u8,
}

impl<'a> Updated<'a> {
    /// Reads an update or hot update.
    pub fn read(record: &Record<'a>, layout: &Layout) -> Option<Self> {
        let main = layout.main(record);
        Some(Self {
            old_line: u16_at(main, 4)?,
            new_line: u16_at(main, 12)?,
            flags: *main.get(7)?,
            data: layout.blocks.first()?.data(record),
        })
    }
    /// The new row, put together with what it shares with the old one; none when that is needed and not known, or when a
    /// page image stands for it.
    pub fn row(&self, old: Option<&Row>) -> Option<Row> {
        let mut b = Bytes(self.data);
        let prefix = if self.flags & 0x20 != 0 { usize::from(b.u16()?) } else { 0 };
        let suffix = if self.flags & 0x40 != 0 { usize::from(b.u16()?) } else { 0 };
        row(b.0, old, prefix, suffix)
    }
}

/// A row from its short header (`xl_heap_header`) and data, with `prefix` and `suffix` bytes taken from `old`.
fn row(data: &[u8], old: Option<&Row>, prefix: usize, suffix: usize) -> Option<Row> {
    let mut b = Bytes(data);
    b.take(4)?;
    let hoff = usize::from(b.u8()?);
    b.take(hoff.checked_sub(ROW_HEADER)?)?;
    let mut row = Vec::with_capacity(prefix + b.0.len() + suffix);
    if prefix > 0 {
        row.extend_from_slice(old?.get(..prefix)?);
    }
    row.extend_from_slice(b.0);
    if suffix > 0 {
        let old = old?;
        row.extend_from_slice(old.get(old.len().checked_sub(suffix)?..)?);
    }
    Some(row)
}

/// Line number of a deleted row.
pub fn deleted(record: &Record<'_>, layout: &Layout) -> Option<u16> {
    u16_at(layout.main(record), 4)
}

/// Line number and new data of a row changed in place; the data is missing when a page image stands for it.
pub fn in_place(record: &Record<'_>, layout: &Layout) -> Option<(u16, Option<Row>)> {
    let data = layout.blocks.first()?.data(record);
    Some((u16_at(layout.main(record), 0)?, (!data.is_empty()).then(|| data.to_vec())))
}
