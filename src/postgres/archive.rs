//! `pg_dump`'s custom archive, as far as loading it quickly needs it: where each table's rows begin.
//!
//! An archive that was written into a pipe does not say where in it the rows of a table are, so that each of several loading
//! processes reads through all that comes before; and uncompressed it holds every row as a piece of its own. [`repack`] copies
//! such an archive into a file with its pieces joined and its positions filled in: the same archive, as `pg_dump` would have
//! written it into a file it can seek in.
//!
//! Layout (from PostgreSQL's `pg_backup_archiver.c` and `pg_backup_custom.c`): a head with versions and sizes of integers, the
//! contents, then blocks. An integer is a sign byte and its bytes, lowest first; a text is its length (-1: none) and its bytes.
//! Each entry of the contents ends with a state (1: position unknown, 2: known, 3: no data) and a position. A block is a kind
//! (1: rows, 3: large objects), the entry's number, and pieces, each after its length, up to one of length 0; of large objects,
//! each one's number comes before its pieces, and number 0 ends them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt;

const MAGIC: &[u8; 5] = b"PGDMP";
const CUSTOM: u8 = 1;
const ROWS: u8 = 1;
const LARGE_OBJECTS: u8 = 3;
const UNKNOWN: u8 = 1;
const KNOWN: u8 = 2;
const NO_DATA: u8 = 3;
/// Pieces are joined up to this size: what is sent to the server at once.
const PIECE: usize = 1 << 18;
/// Longest text in the contents that is believed: a function's body, a view, a comment.
const MAX_TEXT: i64 = 1 << 30;

/// Why an archive was not repacked.
enum Stop {
    Io(io::Error),
    /// It is not laid out as this module knows it.
    Strange,
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

type Step<T> = Result<T, Stop>;

/// Copies an archive into an empty file, its pieces joined and its positions filled in, and reads `input` to its end. `false`
/// when it is laid out as none this module knows: what was written then is of no use, and `input` was read in part. `progress` is told the bytes read, and stops it with `false`.
///
/// # Errors
/// `input` cannot be read, or `out` not be written.
pub fn repack(input: &mut impl BufRead, out: &File, progress: &mut dyn FnMut(u64) -> bool) -> io::Result<bool> {
    let mut copy = Copy { input, out, buffer: Vec::with_capacity(2 * PIECE), written: 0, int: 0, read: 0, progress };
    match copy.all() {
        Ok(()) => Ok(true),
        Err(Stop::Strange) => Ok(false),
        Err(Stop::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(Stop::Io(e)) => Err(e),
    }
}

/// Where in the file the state of each entry that has data stands, the position behind it; by the entry's number.
type States = HashMap<i64, u64>;

struct Copy<'a, R: BufRead> {
    input: &'a mut R,
    out: &'a File,
    buffer: Vec<u8>,
    /// Bytes in the file; those in `buffer` come next.
    written: u64,
    /// Bytes of an integer.
    int: usize,
    read: u64,
    progress: &'a mut dyn FnMut(u64) -> bool,
}

impl<R: BufRead> Copy<'_, R> {
    fn all(&mut self) -> Step<()> {
        let (version, position) = self.head()?;
        let entries = self.contents(version, position)?;
        let mut found: Vec<(u64, u64)> = Vec::new();
        while let Some(kind) = self.kind()? {
            let at = self.at();
            self.buffer.push(kind);
            let number = self.int()?;
            found.push((*entries.get(&number).ok_or(Stop::Strange)?, at));
            match kind {
                ROWS => self.pieces()?,
                LARGE_OBJECTS => {
                    while self.int()? != 0 {
                        self.pieces()?;
                    }
                }
                _ => return Err(Stop::Strange),
            }
        }
        self.flush()?;
        for (state_at, at) in found {
            let mut field = vec![KNOWN];
            field.extend_from_slice(&at.to_le_bytes());
            self.out.write_all_at(&field, state_at)?;
        }
        Ok(())
    }

    /// Version and bytes of a position.
    fn head(&mut self) -> Step<((u8, u8), usize)> {
        let mut fixed = [0u8; 11];
        self.exact(&mut fixed)?;
        let (major, minor) = (fixed[5], fixed[6]);
        let (int, position) = (usize::from(fixed[8]), usize::from(fixed[9]));
        let known = &fixed[..5] == MAGIC && major == 1 && (12..=16).contains(&minor);
        if !known || int != 4 || position != 8 || fixed[10] != CUSTOM {
            return Err(Stop::Strange);
        }
        self.int = int;
        // How it is compressed; seven numbers of a time; names of the database and versions.
        match minor {
            15.. => drop(self.byte()?),
            _ => drop(self.int()?),
        }
        for _ in 0..7 {
            self.int()?;
        }
        for _ in 0..3 {
            self.text()?;
        }
        Ok(((major, minor), position))
    }

    fn contents(&mut self, (_, minor): (u8, u8), position: usize) -> Step<States> {
        let count = self.int()?;
        let mut entries = States::new();
        for _ in 0..count {
            let number = self.int()?;
            let has_data = self.int()? != 0;
            // Two oids, tag, kind; section; definition, drop and copy statement, schema, tablespace.
            for _ in 0..4 {
                self.text()?;
            }
            self.int()?;
            for _ in 0..5 {
                self.text()?;
            }
            if minor >= 14 {
                self.text()?;
            }
            if minor >= 16 {
                self.int()?;
            }
            // Owner, "with oids"; then what it depends on, up to none.
            for _ in 0..2 {
                self.text()?;
            }
            while self.text()? {}
            let state_at = self.at();
            let state = self.byte()?;
            let mut rest = [0u8; 8];
            self.exact(&mut rest[..position])?;
            if !matches!(state, UNKNOWN | KNOWN | NO_DATA) || has_data != (state != NO_DATA) {
                return Err(Stop::Strange);
            }
            if has_data {
                entries.insert(number, state_at);
            }
        }
        Ok(entries)
    }

    /// Where the next byte will stand in the file.
    fn at(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn flush(&mut self) -> Step<()> {
        self.out.write_all_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        match (self.progress)(self.read) {
            true => Ok(()),
            false => Err(Stop::Io(io::Error::other("stopped"))),
        }
    }

    /// Copies as many bytes as `into` has, and gives them.
    fn exact(&mut self, into: &mut [u8]) -> Step<()> {
        self.input.read_exact(into)?;
        self.read += into.len() as u64;
        self.buffer.extend_from_slice(into);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn byte(&mut self) -> Step<u8> {
        let mut one = [0u8; 1];
        self.exact(&mut one)?;
        Ok(one[0])
    }

    fn int(&mut self) -> Step<i64> {
        let mut bytes = [0u8; 5];
        self.exact(&mut bytes)?;
        number(bytes)
    }

    /// Copies a text; `false` when there is none.
    fn text(&mut self) -> Step<bool> {
        let length = self.int()?;
        if length < 0 {
            return Ok(false);
        }
        if length > MAX_TEXT {
            return Err(Stop::Strange);
        }
        let mut left = usize::try_from(length).map_err(|_| Stop::Strange)?;
        let mut part = [0u8; 1 << 12];
        while left > 0 {
            let n = left.min(part.len());
            self.exact(&mut part[..n])?;
            left -= n;
        }
        Ok(true)
    }

    /// The kind of the next block, not yet copied; none at the end.
    fn kind(&mut self) -> Step<Option<u8>> {
        let next = loop {
            match self.input.fill_buf() {
                Ok(bytes) => break bytes.first().copied(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        };
        if next.is_some() {
            self.input.consume(1);
            self.read += 1;
        }
        Ok(next)
    }

    /// Joins pieces up to and with the one of length 0.
    fn pieces(&mut self) -> Step<()> {
        let mut joined = Joined { begins: None };
        let mut left = 0usize;
        loop {
            // Everything that is at hand, in one go: most pieces are a row of some dozen bytes.
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Err(Stop::Strange);
            }
            let mut at = 0;
            let mut ended = false;
            let mut cut = false;
            while at < bytes.len() {
                if left > 0 {
                    let n = left.min(bytes.len() - at).min(joined.room(&mut self.buffer));
                    self.buffer.extend_from_slice(&bytes[at..at + n]);
                    at += n;
                    left -= n;
                    if joined.close_if_full(&mut self.buffer) {
                        break;
                    }
                    continue;
                }
                let Some(head) = bytes.get(at..at + 5).and_then(|b| <[u8; 5]>::try_from(b).ok()) else {
                    cut = true;
                    break;
                };
                at += 5;
                let length = number(head)?;
                if length == 0 {
                    ended = true;
                    break;
                }
                left = usize::try_from(length).map_err(|_| Stop::Strange)?;
            }
            self.input.consume(at);
            self.read += at as u64;
            if !ended && cut {
                // The length lies across the end of what was at hand.
                let mut head = [0u8; 5];
                self.input.read_exact(&mut head)?;
                self.read += 5;
                match number(head)? {
                    0 => ended = true,
                    n => left = usize::try_from(n).map_err(|_| Stop::Strange)?,
                }
            }
            if ended {
                joined.close(&mut self.buffer);
                self.buffer.extend_from_slice(&length(0));
            }
            if joined.begins.is_none() && self.buffer.len() >= PIECE {
                self.flush()?;
            }
            if ended {
                return Ok(());
            }
        }
    }
}

/// A piece in the making at the end of the buffer, its length not yet known.
struct Joined {
    begins: Option<usize>,
}

impl Joined {
    /// Bytes that the piece can still take; begins one when there is none.
    fn room(&mut self, buffer: &mut Vec<u8>) -> usize {
        let begins = *self.begins.get_or_insert_with(|| {
            buffer.extend_from_slice(&length(0));
            buffer.len()
        });
        PIECE - (buffer.len() - begins)
    }
    fn close_if_full(&mut self, buffer: &mut [u8]) -> bool {
        let full = self.begins.is_some_and(|begins| buffer.len() - begins == PIECE);
        if full {
            self.close(buffer);
        }
        full
    }
    fn close(&mut self, buffer: &mut [u8]) {
        if let Some(begins) = self.begins.take() {
            let bytes = length(buffer.len() - begins);
            buffer[begins - 5..begins].copy_from_slice(&bytes);
        }
    }
}

/// An integer as an archive has it: a sign and four bytes, lowest first.
fn number(bytes: [u8; 5]) -> Step<i64> {
    let value = i64::from(u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]));
    match bytes[0] {
        0 => Ok(value),
        1 => Ok(-value),
        _ => Err(Stop::Strange),
    }
}

/// A length of at most [`PIECE`] as an archive has it.
fn length(n: usize) -> [u8; 5] {
    let low = (n as u32).to_le_bytes();
    [0, low[0], low[1], low[2], low[3]]
}
