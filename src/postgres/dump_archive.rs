//! `pg_dump`'s custom format as far as it says where the rows of each table lie, so that one table can be read without the
//! others. A dump that is written to a pipe does not know that itself: its list of contents comes first.
//!
//! Layout, from PostgreSQL's `pg_backup_archiver.c` and `pg_backup_custom.c` (formats 1.12 to 1.16, PostgreSQL 9.5 to 17): a head,
//! the list of contents, then blocks. Integers are a sign and `int_size` bytes, the lowest first; texts are a length, -1 for
//! none, and bytes. An entry ends with the place of its block: a flag and `off_size` bytes. A block is a kind (1 rows, 3 large
//! objects), the entry's number, and pieces of a length and bytes up to a length of 0.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// A list of contents longer than this is not looked through.
pub(super) const LONGEST: usize = 256 << 20;
/// What an entry's flag says when its block's place is not known (`K_OFFSET_POS_NOT_SET`).
const PLACE_UNKNOWN: u8 = 1;
/// What it says when the place is known (`K_OFFSET_POS_SET`).
const PLACE_KNOWN: u8 = 2;
/// What it says when there is no block (`K_OFFSET_NO_DATA`).
const NO_BLOCK: u8 = 3;

/// Where the blocks of a dump lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// Bytes before the first block: head and list of contents.
    pub data_start: u64,
    /// Number of the entry, first byte and length of each block.
    pub blocks: Vec<[u64; 3]>,
}

/// An entry of the list of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the dump.
    pub id: u64,
    /// Oid of the object in the source.
    pub oid: u32,
    /// What it is, such as `TABLE DATA`.
    pub what: String,
    /// A block belongs to it.
    pub has_block: bool,
    /// Where its flag stands.
    flag_at: usize,
}

/// Head and list of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Bytes of it all.
    pub len: usize,
    /// The entries.
    pub entries: Vec<Entry>,
    pub(super) int_size: usize,
    pub(super) off_size: usize,
}

/// Why a list of contents was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It goes on behind these bytes.
    More,
    /// It is of no known form.
    Unknown,
}

struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
    int_size: usize,
}

impl<'b> Cursor<'b> {
    fn take(&mut self, n: usize) -> Result<&'b [u8], Stop> {
        let end = self.at.checked_add(n).ok_or(Stop::Unknown)?;
        let part = self.bytes.get(self.at..end).ok_or(Stop::More)?;
        self.at = end;
        Ok(part)
    }
    fn byte(&mut self) -> Result<u8, Stop> {
        self.take(1).map(|b| b[0])
    }
    fn int(&mut self) -> Result<i64, Stop> {
        let n = 1 + self.int_size;
        Ok(int_of(self.take(n)?))
    }
    fn text(&mut self) -> Result<Option<&'b [u8]>, Stop> {
        match self.int()? {
            n if n < 0 => Ok(None),
            n => self.take(usize::try_from(n).ok().filter(|n| *n <= LONGEST).ok_or(Stop::Unknown)?).map(Some),
        }
    }
}

/// A sign and the bytes of a number, the lowest first.
pub(super) fn int_of(bytes: &[u8]) -> i64 {
    let value = bytes[1..].iter().rev().fold(0i64, |n, b| (n << 8) | i64::from(*b));
    if bytes[0] == 0 { value } else { -value }
}

/// Reads head and list of contents from the beginning of a dump.
///
/// # Errors
/// There are too few bytes, or it is of no known form.
pub fn contents(bytes: &[u8]) -> Result<Contents, Stop> {
    let mut c = Cursor { bytes, at: 0, int_size: 4 };
    if c.take(5)? != b"PGDMP" {
        return Err(Stop::Unknown);
    }
    let (major, minor, _) = (c.byte()?, c.byte()?, c.byte()?);
    if major != 1 || !(12..=16).contains(&minor) {
        return Err(Stop::Unknown);
    }
    c.int_size = usize::from(c.byte()?);
    let off_size = usize::from(c.byte()?);
    let custom = c.byte()? == 1;
    if !custom || !(1..=7).contains(&c.int_size) || !(1..=8).contains(&off_size) {
        return Err(Stop::Unknown);
    }
    // The kind of compression, a whole number before 1.15. The blocks lie the same.
    c.take(if minor < 15 { 1 + c.int_size } else { 1 })?;
    for _ in 0..7 {
        c.int()?;
    }
    for _ in 0..3 {
        c.text()?;
    }
    let count = c.int()?;
    if !(0..1 << 24).contains(&count) {
        return Err(Stop::Unknown);
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let id = u64::try_from(c.int()?).map_err(|_| Stop::Unknown)?;
        let has_block = c.int()? != 0;
        c.text()?;
        let oid = c.text()?.and_then(|t| std::str::from_utf8(t).ok()?.parse().ok()).ok_or(Stop::Unknown)?;
        c.text()?;
        let what = String::from_utf8_lossy(c.text()?.unwrap_or_default()).into_owned();
        c.int()?;
        // Definition, how to drop it, how to copy it, schema, tablespace; access method since 1.14.
        for _ in 0..if minor < 14 { 5 } else { 6 } {
            c.text()?;
        }
        if minor >= 16 {
            c.int()?;
        }
        // Owner, and whether there are oids in the rows.
        c.text()?;
        c.text()?;
        while c.text()?.is_some() {}
        let flag_at = c.at;
        let flag = c.take(1 + off_size)?[0];
        if !matches!(flag, PLACE_UNKNOWN | PLACE_KNOWN | NO_BLOCK) || has_block != (flag != NO_BLOCK) {
            return Err(Stop::Unknown);
        }
        entries.push(Entry { id, oid, what, has_block, flag_at });
    }
    Ok(Contents { len: c.at, entries, int_size: c.int_size, off_size })
}

impl Contents {
    /// Says in the bytes of the list of contents where an entry's block begins.
    pub fn place(&self, bytes: &mut [u8], entry: &Entry, at: u64) {
        let place = entry.flag_at..entry.flag_at + 1 + self.off_size;
        if let Some(place) = bytes.get_mut(place) {
            place[0] = PLACE_KNOWN;
            place[1..].copy_from_slice(&at.to_le_bytes()[..self.off_size]);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In head or list of contents.
    Contents,
    /// Before a block's kind.
    Kind,
    /// Before its entry's number.
    Id,
    /// Before the number of a large object, or the 0 behind the last.
    Object,
    /// Before the length of a piece.
    Length,
    /// In a piece, with so many bytes to go.
    Piece(u64),
    /// It is not what it was taken for.
    Lost,
}

/// Notes where the blocks lie, from the bytes of a dump as they come.
#[derive(Debug)]
pub struct Scanner {
    at: At,
    head: Vec<u8>,
    try_at: usize,
    int_size: usize,
    position: u64,
    carry: [u8; 8],
    carried: usize,
    objects: bool,
    begun: (u64, u64),
    found: Blocks,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            at: At::Contents,
            head: Vec::new(),
            try_at: 4096,
            int_size: 4,
            position: 0,
            carry: [0; 8],
            carried: 0,
            objects: false,
            begun: (0, 0),
            found: Blocks::default(),
        }
    }
}

impl Scanner {
    /// The next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        match self.at {
            At::Lost => {}
            At::Contents => {
                self.head.extend_from_slice(bytes);
                if self.head.len() >= self.try_at {
                    self.read_contents();
                }
            }
            _ => self.scan(bytes),
        }
    }

    fn read_contents(&mut self) {
        match contents(&self.head) {
            Ok(contents) => {
                self.int_size = contents.int_size;
                self.found.data_start = contents.len as u64;
                self.position = contents.len as u64;
                self.at = At::Kind;
                let head = std::mem::take(&mut self.head);
                self.scan(&head[contents.len..]);
            }
            // Twice as much the next time, so that a long list is not read again for every piece of it.
            Err(Stop::More) if self.head.len() < LONGEST => self.try_at = self.head.len() * 2,
            Err(_) => self.lose(),
        }
    }

    fn lose(&mut self) {
        self.at = At::Lost;
        self.head = Vec::new();
        self.found = Blocks::default();
    }

    fn scan(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.at {
                At::Piece(left) => {
                    let n = left.min(bytes.len() as u64);
                    bytes = &bytes[usize::try_from(n).unwrap_or(bytes.len())..];
                    self.position += n;
                    self.at = if n == left { At::Length } else { At::Piece(left - n) };
                }
                At::Kind => {
                    self.begun = (0, self.position);
                    self.objects = bytes[0] == 3;
                    if !matches!(bytes[0], 1 | 3) {
                        return self.lose();
                    }
                    bytes = &bytes[1..];
                    self.position += 1;
                    self.at = At::Id;
                }
                At::Id | At::Object | At::Length => {
                    let Some(value) = self.int(&mut bytes) else { return };
                    let Ok(value) = u64::try_from(value) else { return self.lose() };
                    self.at = match (self.at, value) {
                        (At::Id, id) => {
                            self.begun.0 = id;
                            if self.objects { At::Object } else { At::Length }
                        }
                        (At::Length, 0) if self.objects => At::Object,
                        (At::Length, 0) | (At::Object, 0) => {
                            let (id, from) = self.begun;
                            self.found.blocks.push([id, from, self.position - from]);
                            At::Kind
                        }
                        (At::Object, _) => At::Length,
                        (_, n) => At::Piece(n),
                    };
                }
                At::Contents | At::Lost => return,
            }
        }
    }

    /// An integer, once all its bytes are there.
    fn int(&mut self, bytes: &mut &[u8]) -> Option<i64> {
        let n = 1 + self.int_size;
        // Nearly always it is there at once.
        if self.carried == 0 && bytes.len() >= n {
            let value = int_of(&bytes[..n]);
            *bytes = &bytes[n..];
            self.position += n as u64;
            return Some(value);
        }
        let take = (n - self.carried).min(bytes.len());
        self.carry[self.carried..self.carried + take].copy_from_slice(&bytes[..take]);
        *bytes = &bytes[take..];
        self.carried += take;
        self.position += take as u64;
        (self.carried == n).then(|| {
            self.carried = 0;
            int_of(&self.carry[..n])
        })
    }

    /// Where the blocks lie; none when the dump is of another form than is known here, or broke off.
    pub fn finish(mut self) -> Option<Blocks> {
        if self.at == At::Contents {
            self.read_contents();
        }
        (self.at == At::Kind).then_some(self.found)
    }
}

/// Passes a dump on and notes where its blocks lie.
pub struct Scanning<R> {
    inner: R,
    scanner: Scanner,
}

impl<R: Read> Scanning<R> {
    /// Begins at a dump's first byte.
    pub fn new(inner: R) -> Self {
        Self { inner, scanner: Scanner::default() }
    }
    /// As [`Scanner::finish`].
    pub fn finish(self) -> Option<Blocks> {
        self.scanner.finish()
    }
}

impl<R: Read> Read for Scanning<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.scanner.push(&buffer[..n]);
        Ok(n)
    }
}
