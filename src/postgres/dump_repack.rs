//! `pg_dump`'s custom archive, as far as loading it quickly needs it: where each table's rows begin.
//!
//! An archive that was written into a pipe does not say where in it the rows of a table are, so that each of several loading
//! processes reads through all that comes before; and uncompressed it holds every row as a piece of its own. [`repack`] copies
//! such an archive into a file with its pieces joined and its positions filled in: the same archive, as `pg_dump` would have
//! written it into a file it can seek in.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;

use super::dump_archive::{self, Contents, LONGEST, contents, int_of};

const ROWS: u8 = 1;
const LARGE_OBJECTS: u8 = 3;
/// Pieces are joined up to this size: what is sent to the server at once.
const PIECE: usize = 1 << 18;
/// Bytes of the head that are looked at first.
const FIRST: usize = 1 << 12;

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
/// when it is laid out as none this module knows: what was written then is of no use, and `input` was read in part. `progress`
/// is told the bytes read, and stops it with `false`. The head, with the list of contents, is held in memory.
///
/// # Errors
/// `input` cannot be read, or `out` not be written.
pub fn repack(input: &mut impl BufRead, out: &File, progress: &mut dyn FnMut(u64) -> bool) -> io::Result<bool> {
    match whole(input, out, progress) {
        Ok(()) => Ok(true),
        Err(Stop::Strange) => Ok(false),
        Err(Stop::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(Stop::Io(e)) => Err(e),
    }
}

fn whole(input: &mut impl BufRead, out: &File, progress: &mut dyn FnMut(u64) -> bool) -> Step<()> {
    let mut head = Vec::new();
    let known = read_head(input, &mut head, progress)?;
    // Lengths are written again as they are read.
    if known.int_size != 4 || known.off_size != 8 {
        return Err(Stop::Strange);
    }
    let rest = head.split_off(known.len);
    let begins = known.len as u64;
    let input = io::Cursor::new(rest).chain(input);
    let buffer = Vec::with_capacity(2 * PIECE);
    let found = Copy { input, out, buffer, written: begins, read: begins, progress }.blocks()?;
    let entries: HashMap<u64, _> = known.entries.iter().filter(|e| e.has_block).map(|e| (e.id, e)).collect();
    for (id, at) in found {
        known.place(&mut head, entries.get(&id).ok_or(Stop::Strange)?, at);
    }
    Ok(out.write_all_at(&head, 0)?)
}

/// Reads head and list of contents into `head`, and with it the beginning of what follows.
fn read_head(input: &mut impl BufRead, head: &mut Vec<u8>, progress: &mut dyn FnMut(u64) -> bool) -> Step<Contents> {
    let mut wanted = FIRST;
    loop {
        input.by_ref().take((wanted - head.len()) as u64).read_to_end(head)?;
        match contents(head) {
            Ok(known) => return Ok(known),
            // Twice as much the next time, so that a long list is not read again for every piece of it.
            Err(dump_archive::Stop::More) if head.len() == wanted && wanted < LONGEST => wanted *= 2,
            Err(_) => return Err(Stop::Strange),
        }
        go_on(progress(head.len() as u64))?;
    }
}

fn go_on(told: bool) -> Step<()> {
    if told { Ok(()) } else { Err(Stop::Io(io::Error::other("stopped"))) }
}

struct Copy<'a, R: BufRead> {
    input: R,
    out: &'a File,
    buffer: Vec<u8>,
    /// Bytes in the file, those of the head to come among them; those in `buffer` come next.
    written: u64,
    read: u64,
    progress: &'a mut dyn FnMut(u64) -> bool,
}

impl<R: BufRead> Copy<'_, R> {
    /// Copies the blocks to the end; number of the entry and place of each.
    fn blocks(mut self) -> Step<Vec<(u64, u64)>> {
        let mut found = Vec::new();
        while let Some(kind) = self.kind()? {
            let at = self.at();
            self.buffer.push(kind);
            found.push((u64::try_from(self.int()?).map_err(|_| Stop::Strange)?, at));
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
        Ok(found)
    }

    /// Where the next byte will stand in the file.
    fn at(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn flush(&mut self) -> Step<()> {
        self.out.write_all_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        go_on((self.progress)(self.read))
    }

    /// Copies an integer, and gives it.
    fn int(&mut self) -> Step<i64> {
        let mut bytes = [0u8; 5];
        self.input.read_exact(&mut bytes)?;
        self.read += 5;
        self.buffer.extend_from_slice(&bytes);
        Ok(int_of(&bytes))
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
                let Some(head) = bytes.get(at..at + 5) else {
                    cut = true;
                    break;
                };
                at += 5;
                left = usize::try_from(int_of(head)).map_err(|_| Stop::Strange)?;
                if left == 0 {
                    ended = true;
                    break;
                }
            }
            self.input.consume(at);
            self.read += at as u64;
            if !ended && cut {
                // The length lies across the end of what was at hand.
                let mut head = [0u8; 5];
                self.input.read_exact(&mut head)?;
                self.read += 5;
                left = usize::try_from(int_of(&head)).map_err(|_| Stop::Strange)?;
                ended = left == 0;
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

/// A length of at most [`PIECE`] as an archive has it.
fn length(n: usize) -> [u8; 5] {
    let low = (n as u32).to_le_bytes();
    [0, low[0], low[1], low[2], low[3]]
}
