//! Parts of an object without the rest: the frame index at its end says where each frame lies, and only the chunks that hold
//! the wanted ones are fetched.
//!
//! What is read this way is authentic, stands at its place, and is of a whole object: the last chunk alone carries the flag of
//! the end, and its totals are compared with what the manifest says. What is not read is not checked.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::sync::Arc;

use super::super::store::Store;
use super::header::{Expect, Header};
use super::reader::unseal;
use super::recipient::Identity;
use super::seal::Stream;
use super::writer::{FOOTER_MAGIC, RECORD_HEAD, RECORD_INDEX, RECORD_STORED, RECORD_ZSTD, TOTALS};
use super::{FOOTER, TAG, to_io};
use crate::error::{Error, Result};

/// Bytes of the first request: the headers of nearly all objects fit in.
const HEAD: u64 = 8 << 10;
/// Longest header there may be.
const LONGEST_HEAD: u64 = 160 << 10;
/// Most bytes of chunks that are fetched at once.
const AT_ONCE: u64 = 8 << 20;

/// Which bytes of an object were fetched: where each piece begins and ends. What is fetched twice counts once.
#[derive(Debug, Default)]
pub struct Fetched(BTreeMap<u64, u64>);

impl Fetched {
    fn add(&mut self, mut piece: Range<u64>) {
        // With those that it touches it becomes one.
        while let Some((from, to)) = self.0.range(..=piece.end).next_back().map(|(from, to)| (*from, *to)) {
            if to < piece.start {
                break;
            }
            self.0.remove(&from);
            piece = piece.start.min(from)..piece.end.max(to);
        }
        self.0.insert(piece.start, piece.end);
    }
    fn bytes(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }
}

/// An object that is read in parts.
pub struct Ranged {
    store: Arc<dyn Store>,
    name: String,
    header: Header,
    stream: Stream,
    own: bool,
    size: u64,
    chunks: u64,
    /// Bytes of the packed stream.
    packed_len: u64,
    /// Where each frame's record begins in the packed stream; one more for the end.
    starts: Vec<u64>,
    plain_len: u64,
    plain_sha256: [u8; 32],
    stored_sha256: [u8; 32],
    /// The last chunk that was opened: the next frame often begins in it.
    last: Option<(u64, Vec<u8>)>,
    fetched: Fetched,
}

impl Ranged {
    /// Reads header, end and index of an object; none when there is none of that name.
    ///
    /// # Errors
    /// As [`super::Reader::open`]; a check failure when its end is not that of a whole object.
    pub fn open(store: &Arc<dyn Store>, identities: &[Identity], expect: &Expect<'_>) -> Result<Option<Self>> {
        let Some(size) = store.size(expect.name)? else { return Ok(None) };
        let mut fetched = Fetched::default();
        let header = head(store, expect.name, size, &mut fetched)?;
        header.is_as(expect)?;
        let (stream, own) = unseal(&header, identities)?;
        let payload = payload_of(&header, size)?;
        let chunks = payload.div_ceil(u64::from(header.spec.chunk_size) + TAG as u64);
        let packed_len = payload.saturating_sub(chunks * TAG as u64);
        let mut object = Self {
            store: store.clone(),
            name: expect.name.to_string(),
            header,
            stream,
            own,
            size,
            chunks,
            packed_len,
            starts: Vec::new(),
            plain_len: 0,
            plain_sha256: [0; 32],
            stored_sha256: [0; 32],
            last: None,
            fetched,
        };
        object.read_end(payload)?;
        Ok(Some(object))
    }

    /// Footer, totals and index; the last chunk opens only if it is the last one.
    fn read_end(&mut self, payload: u64) -> Result<()> {
        let footer = fetch(&self.store, &self.name, self.size - FOOTER as u64..self.size, &mut self.fetched)?;
        if !closes(&footer, payload) {
            return Err(self.bad("its footer is not that of this object"));
        }
        self.stored_sha256.copy_from_slice(&footer[48..]);
        let Some(totals_at) = self.packed_len.checked_sub(TOTALS as u64) else {
            return Err(self.bad("it is too short"));
        };
        let totals = self.packed(totals_at..self.packed_len)?;
        let word = |i: usize| u64::from_be_bytes(std::array::from_fn(|k| totals[i + k]));
        let (count, plain_len) = (word(0), word(8));
        self.plain_sha256.copy_from_slice(&totals[16..48]);
        let index_at = count.checked_mul(4).and_then(|n| totals_at.checked_sub(n + 1));
        let Some(index_at) = index_at.filter(|_| count == plain_len.div_ceil(self.frame_size())) else {
            return Err(self.bad("its totals do not fit together"));
        };
        let index = self.packed(index_at..totals_at)?;
        let mut at = 0u64;
        let mut starts = vec![0];
        for len in index[1..].chunks_exact(4) {
            at += RECORD_HEAD as u64 + u64::from(u32::from_be_bytes([len[0], len[1], len[2], len[3]]));
            starts.push(at);
        }
        if index[0] != RECORD_INDEX || at != index_at {
            return Err(self.bad("its index does not fit its frames"));
        }
        (self.starts, self.plain_len) = (starts, plain_len);
        Ok(())
    }

    fn bad(&self, why: &str) -> Error {
        Error::check(format!("{:?} is damaged", self.name)).why(why)
    }

    fn frame_size(&self) -> u64 {
        u64::from(self.header.spec.frame_size)
    }

    /// Bytes of its content.
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }
    /// SHA-256 of its content, from its authenticated end.
    pub fn plain_sha256(&self) -> [u8; 32] {
        self.plain_sha256
    }
    /// The digest in its footer, which only reading all of it proves.
    pub fn stored_sha256(&self) -> [u8; 32] {
        self.stored_sha256
    }
    /// Bytes as stored.
    pub fn stored_len(&self) -> u64 {
        self.size
    }
    /// Bytes that were fetched so far.
    pub fn fetched(&self) -> u64 {
        self.fetched.bytes()
    }
    /// Whether a holder of the repository's secret wrote it.
    pub fn written_by_holder(&self) -> bool {
        self.own
    }

    /// A part of the packed stream, every chunk of it authenticated.
    fn packed(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        let size = u64::from(self.header.spec.chunk_size);
        let sealed = size + TAG as u64;
        let mut out = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        let (mut at, end) = (range.start / size, range.end.div_ceil(size));
        let take = |number: u64, chunk: &[u8], out: &mut Vec<u8>| -> bool {
            let from = range.start.saturating_sub(number * size).min(size);
            let to = (range.end - number * size).min(size);
            let part = usize::try_from(from).ok().zip(usize::try_from(to).ok());
            part.and_then(|(a, b)| chunk.get(a..b)).map(|p| out.extend_from_slice(p)).is_some()
        };
        while at < end {
            if let Some((number, chunk)) = &self.last
                && *number == at
            {
                if !take(at, chunk, &mut out) {
                    return Err(self.bad("a chunk is shorter than it should be"));
                }
                at += 1;
                continue;
            }
            let most = (AT_ONCE / sealed).max(1);
            let until = end.min(at + most);
            let from = self.header.len + at * sealed;
            let to = (self.header.len + until * sealed).min(self.size - FOOTER as u64);
            let bytes = fetch(&self.store, &self.name, from..to, &mut self.fetched)?;
            for (number, sealed_chunk) in (at..until).zip(bytes.chunks(usize::try_from(sealed).unwrap_or(usize::MAX))) {
                let mut chunk = sealed_chunk.to_vec();
                let plain = self.stream.open(number, number + 1 == self.chunks, &mut chunk)?.len();
                chunk.truncate(plain);
                if !take(number, &chunk, &mut out) {
                    return Err(self.bad("a chunk is shorter than it should be"));
                }
                self.last = Some((number, chunk));
            }
            at = until;
        }
        if out.len() as u64 != range.end - range.start {
            return Err(self.bad("it ends too early"));
        }
        Ok(out)
    }

    /// The content from `at` on, to the end of the frames that are fetched with it; at most to `end`. Empty at the end.
    fn some(&mut self, at: u64, end: u64) -> Result<Vec<u8>> {
        let end = end.min(self.plain_len);
        if at >= end {
            return Ok(Vec::new());
        }
        let size = self.frame_size();
        let first = at / size;
        let start = |n: u64| usize::try_from(n).ok().and_then(|n| self.starts.get(n).copied());
        let mut until = first + 1;
        // As many as are wanted and make one request.
        while until * size < end && start(until + 1).zip(start(first)).is_some_and(|(to, from)| to - from <= AT_ONCE) {
            until += 1;
        }
        let Some((from, to)) = start(first).zip(start(until)) else { return Err(self.bad("its index is too short")) };
        let packed = self.packed(from..to)?;
        let mut decompressor =
            zstd::bulk::Decompressor::new().map_err(|e| Error::state("preparing decompression").why(e))?;
        let mut out = Vec::with_capacity(usize::try_from((until - first) * size).unwrap_or(0));
        let mut rest = &packed[..];
        for number in first..until {
            let plain = usize::try_from(size.min(self.plain_len - number * size)).unwrap_or(usize::MAX);
            let Some((head, body)) = rest.split_at_checked(RECORD_HEAD) else {
                return Err(self.bad("a frame is cut"));
            };
            let said = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let length = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) as usize;
            let Some((body, more)) = body.split_at_checked(length).filter(|_| said == plain) else {
                return Err(self.bad("a frame's lengths are not those of the index"));
            };
            let before = out.len();
            match head[0] {
                RECORD_STORED if length == plain => out.extend_from_slice(body),
                RECORD_ZSTD => {
                    out.resize(before + plain, 0);
                    match decompressor.decompress_to_buffer(body, &mut out[before..]) {
                        Ok(n) if n == plain => {}
                        _ => return Err(self.bad("a frame does not decompress")),
                    }
                }
                _ => return Err(self.bad("a frame is of no known kind")),
            }
            rest = more;
        }
        let skip = usize::try_from(at - first * size).unwrap_or(usize::MAX);
        let keep = usize::try_from(end - first * size).unwrap_or(usize::MAX).min(out.len());
        out.truncate(keep);
        out.drain(..skip.min(keep));
        Ok(out)
    }

    /// The content from `range.start` to `range.end`, or to the object's end, as it is read.
    pub fn reader(&mut self, range: Range<u64>) -> Part<'_> {
        Part { object: self, at: range.start, end: range.end, ready: Vec::new(), ready_at: 0 }
    }
}

/// A part of an object, being read.
pub struct Part<'o> {
    object: &'o mut Ranged,
    at: u64,
    end: u64,
    ready: Vec<u8>,
    ready_at: usize,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ready_at == self.ready.len() && !buffer.is_empty() {
            self.ready = self.object.some(self.at, self.end).map_err(to_io)?;
            self.ready_at = 0;
            self.at += self.ready.len() as u64;
        }
        let n = buffer.len().min(self.ready.len() - self.ready_at);
        buffer[..n].copy_from_slice(&self.ready[self.ready_at..self.ready_at + n]);
        self.ready_at += n;
        Ok(n)
    }
}

/// The header of an object of this size; `fetched` counts what was read for it.
///
/// # Errors
/// A check failure when it has none; it cannot be read.
pub fn head(store: &Arc<dyn Store>, name: &str, size: u64, fetched: &mut Fetched) -> Result<Header> {
    if size == 0 {
        return Err(Error::check("the object is empty").why("0 bytes are left of it"));
    }
    let bytes = fetch(store, name, 0..size.min(HEAD), fetched)?;
    match Header::read(&mut Cursor::new(&bytes)) {
        Err(_) if size > HEAD => {
            let bytes = fetch(store, name, 0..size.min(LONGEST_HEAD), fetched)?;
            Header::read(&mut Cursor::new(&bytes))
        }
        other => other,
    }
}

/// Bytes of the chunks of an object of this size.
fn payload_of(header: &Header, size: u64) -> Result<u64> {
    let payload = size.checked_sub(header.len + FOOTER as u64).filter(|n| *n > TAG as u64);
    payload.ok_or_else(|| Error::check("the object ends before its last chunk").why("it was cut"))
}

/// Whether these are the last bytes of an object with so many bytes of chunks.
fn closes(footer: &[u8], payload: u64) -> bool {
    footer.len() == FOOTER && footer[..8] == FOOTER_MAGIC && footer[8..16] == payload.to_be_bytes()
}

/// Whether an object begins as the one that is expected, is sealed for one of the identities, and ends where its own footer says:
/// one that was cut shows, and nothing of what lies between is read.
///
/// # Errors
/// A check failure when it does not, or is not there; usage when none of the keys opens it; it cannot be read.
pub fn check_ends(store: &Arc<dyn Store>, identities: &[Identity], expect: &Expect<'_>) -> Result<()> {
    let name = expect.name;
    let size = store.size(name)?.ok_or_else(|| Error::check(format!("{name:?} vanished while it was checked")))?;
    let header = begins_and_ends(store, size, expect)?;
    super::opens(&header, identities)
}

/// As [`check_ends`], of an object of this size, without looking whether a key opens it: its header.
///
/// # Errors
/// A check failure when it is another one, or was cut; it cannot be read.
pub fn begins_and_ends(store: &Arc<dyn Store>, size: u64, expect: &Expect<'_>) -> Result<Header> {
    let (name, mut fetched) = (expect.name, Fetched::default());
    let header = head(store, name, size, &mut fetched)?;
    header.is_as(expect)?;
    let payload = payload_of(&header, size)?;
    let footer = fetch(store, name, size - FOOTER as u64..size, &mut fetched)?;
    if closes(&footer, payload) {
        return Ok(header);
    }
    Err(Error::check(format!("{name:?} does not end as it should")).why(format!("it was cut: {size} bytes are left")))
}

fn fetch(store: &Arc<dyn Store>, name: &str, range: Range<u64>, fetched: &mut Fetched) -> Result<Vec<u8>> {
    let (from, wanted) = (range.start, range.end.saturating_sub(range.start));
    let bytes =
        store.read_range(name, range)?.ok_or_else(|| Error::target(format!("{name:?} vanished while it was read")))?;
    fetched.add(from..from + bytes.len() as u64);
    if bytes.len() as u64 != wanted {
        return Err(Error::check(format!("{name:?} ends before its end")).why("it was cut while it was read"));
    }
    Ok(bytes)
}
