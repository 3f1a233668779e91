//! Reading little-endian numbers from a slice, with nothing read past its end.

use super::RelFile;

/// A place in a slice. Every read is checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
    /// A count that PostgreSQL writes as a signed 32-bit number.
    pub fn count(&mut self) -> Option<usize> {
        self.u32().and_then(|n| i32::try_from(n).ok()).and_then(|n| usize::try_from(n).ok())
    }
    pub fn rel_file(&mut self) -> Option<RelFile> {
        Some(RelFile { tablespace: self.u32()?, database: self.u32()?, file: self.u32()? })
    }
    /// `n` items of `size` bytes each.
    pub fn items(&mut self, n: usize, size: usize) -> Option<std::slice::ChunksExact<'a, u8>> {
        Some(self.take(n.checked_mul(size)?)?.chunks_exact(size))
    }
    /// `n` transaction ids or OIDs.
    pub fn numbers(&mut self, n: usize) -> Option<Vec<u32>> {
        Some(self.items(n, 4)?.filter_map(|c| Bytes(c).u32()).collect())
    }
}

/// The number at `at`, when the slice is long enough.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Bytes(bytes.get(at..)?).u32()
}

/// The number at `at`, when the slice is long enough.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Bytes(bytes.get(at..)?).u16()
}
