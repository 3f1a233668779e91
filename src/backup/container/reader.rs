//! Reading an object: not one byte is released before the chunks that hold it were authenticated.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::digest::PlainDigest;
use super::header::{Expect, Header};
use super::pool::InOrder;
use super::recipient::{Identity, STANZA_OWN};
use super::seal::{self, ObjectKeys, Stream};
use super::writer::{RECORD_HEAD, RECORD_INDEX, RECORD_STORED, RECORD_ZSTD, TOTALS, content_tag, footer};
use super::{FOOTER, Summary, TAG, from_io, hex, to_io};
use crate::error::{Error, ErrorKind, Result};

/// One frame on its way: its authenticated record, and what was in it.
struct Frame {
    number: usize,
    kind: u8,
    plain_len: usize,
    body: Vec<u8>,
    plain: Vec<u8>,
}

/// A frame with its plain bytes, or the number of one that does not decompress.
type Opened = std::result::Result<Frame, usize>;

/// Takes frames apart.
struct Opener(zstd::bulk::Decompressor<'static>);

impl Opener {
    fn new() -> Result<Self> {
        zstd::bulk::Decompressor::new().map(Self).map_err(|e| Error::state("preparing decompression").why(e))
    }
    fn open(&mut self, mut frame: Frame) -> Opened {
        if frame.kind == RECORD_STORED {
            std::mem::swap(&mut frame.plain, &mut frame.body);
            return Ok(frame);
        }
        // Written into reserved space, which need not be cleared first. It may be larger than the frame: the length decides.
        frame.plain.clear();
        frame.plain.reserve(frame.plain_len);
        match self.0.decompress_to_buffer(&frame.body, &mut frame.plain) {
            Ok(n) if n == frame.plain_len => Ok(frame),
            _ => Err(frame.number),
        }
    }
}

/// Opens an object and yields its plain bytes. End of file is reported only after totals and footer were checked.
///
/// A consumer that stops before the end must call [`Reader::finish`]: a prefix is authentic, but only the whole
/// object is complete.
pub struct Reader<R: Read> {
    input: R,
    header: Header,
    stream: Stream,
    own: bool,
    ahead: Vec<u8>,
    chunks: u64,
    payload: u64,
    last_seen: bool,
    packed: Vec<u8>,
    packed_at: usize,
    /// Frames taken apart on several cores, once there is more than one.
    openers: Option<InOrder<Frame, Opened>>,
    /// Takes frames apart here.
    opener: Option<Opener>,
    alone: bool,
    /// What ends the frames: the index was reached, or what was read behind the frames under way is damaged.
    ended: Option<Result<()>>,
    spare: Vec<Vec<u8>>,
    spare_plain: Vec<Vec<u8>>,
    frame: Arc<Vec<u8>>,
    frame_at: usize,
    short_frame: bool,
    frames: Vec<u32>,
    plain_len: u64,
    plain_hash: PlainDigest,
    stored_hash: Sha256,
    footer: Option<[u8; FOOTER]>,
    done: Option<Summary>,
    failed: Option<Error>,
}

impl<R: Read> Reader<R> {
    /// Reads the header, checks it against `expect`, finds the file key with one of the identities and checks the MAC.
    ///
    /// # Errors
    /// A damaged or foreign object is a check failure; no matching key is a usage failure.
    pub fn open(mut input: R, identities: &[Identity], expect: &Expect<'_>) -> Result<Self> {
        let header = Header::read(&mut input)?;
        header.is_as(expect)?;
        let (stream, own) = unseal(&header, identities)?;
        let mut stored_hash = Sha256::new();
        stored_hash.update(&header.core);
        Ok(Self {
            input,
            header,
            stream,
            own,
            ahead: Vec::new(),
            chunks: 0,
            payload: 0,
            last_seen: false,
            packed: Vec::new(),
            packed_at: 0,
            openers: None,
            opener: None,
            alone: false,
            ended: None,
            spare: Vec::new(),
            spare_plain: Vec::new(),
            frame: Arc::default(),
            frame_at: 0,
            short_frame: false,
            frames: Vec::new(),
            plain_len: 0,
            plain_hash: PlainDigest::new(),
            stored_hash,
            footer: None,
            done: None,
            failed: None,
        })
    }

    /// Does everything on the thread that reads: for whoever reads several objects side by side.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Leaves out the digest of the plain bytes, which takes as long as all the rest: for whoever compares the plain bytes with
    /// checksums of another origin. Every stored byte is authenticated all the same, and the plain digest in the summary is the
    /// one that was authenticated with them.
    #[must_use]
    pub fn without_plain_digest(mut self) -> Self {
        self.plain_hash = PlainDigest::LeftOut;
        self
    }

    /// The authenticated header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether a holder of the repository's secret wrote the object (not merely somebody who knows the public key).
    pub fn written_by_holder(&self) -> bool {
        self.own
    }

    /// The next plain bytes, as many as there are at once; none at the end, which is reached only after totals and footer were
    /// checked. What was read through [`Read`] meanwhile does not come again.
    ///
    /// # Errors
    /// Any damage is a check failure, repeated for ever.
    pub fn next_bytes(&mut self) -> Result<Option<&[u8]>> {
        while self.frame_at == self.frame.len() {
            if self.done.is_some() {
                return Ok(None);
            }
            self.next_frame()?;
        }
        let from = std::mem::replace(&mut self.frame_at, self.frame.len());
        Ok(Some(&self.frame[from..]))
    }

    /// As [`Reader::next_bytes`], to be kept: a whole frame, when nothing of it was read before.
    ///
    /// # Errors
    /// As [`Reader::next_bytes`].
    pub fn next_kept(&mut self) -> Result<Option<Arc<Vec<u8>>>> {
        if self.frame_at < self.frame.len() {
            let rest = self.frame[self.frame_at..].to_vec();
            self.frame_at = self.frame.len();
            return Ok(Some(Arc::new(rest)));
        }
        Ok(self.next_bytes()?.is_some().then(|| self.frame.clone()))
    }

    /// A frame that was kept and is needed no more, to be filled again: new memory for every frame costs more than opening it.
    pub fn give_back(&mut self, frame: Vec<u8>) {
        self.spare_plain.push(frame);
    }

    /// Reads to the end without releasing anything more, and gives the totals.
    pub fn finish(mut self) -> Result<(R, Summary)> {
        loop {
            if let Some(summary) = self.done.take() {
                return Ok((self.input, summary));
            }
            self.next_frame()?;
        }
    }

    /// Reads the object back that was just written by a [`super::Writer`] that was [`proving`](super::Writer::proving): every
    /// stored byte is hashed, authenticated and decrypted, every record, the index, the totals and the footer are compared.
    /// Only taking the frames apart is left out, as that was done and compared when each was packed. `progress` is told the
    /// plain bytes so far, and may stop it.
    ///
    /// # Errors
    /// Any difference is a check failure, also when the totals are not of `plain_sha256`.
    pub fn read_back(mut self, plain_sha256: [u8; 32], progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Summary> {
        while let Some(frame) = self.next_record()? {
            self.plain_len += frame.plain_len as u64;
            progress(self.plain_len)?;
            self.spare.push(frame.body);
            self.spare_plain.push(frame.plain);
        }
        self.end_with(plain_sha256)?;
        self.done.take().ok_or_else(|| Error::state("an object ended without its totals"))
    }

    /// Makes the next frame available, or sets `done`. An error is repeated for ever.
    fn next_frame(&mut self) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.next_frame_inner();
        if let Err(error) = &result {
            self.drop_frame();
            self.spare_plain.iter_mut().for_each(Zeroize::zeroize);
            self.failed = Some(error.clone());
        }
        result
    }

    /// What was released is needed no more. The digest may still be reading; then it gives it back.
    fn drop_frame(&mut self) {
        self.spare_plain.extend(Arc::try_unwrap(std::mem::take(&mut self.frame)).ok().filter(|f| f.capacity() > 0));
        self.frame_at = 0;
    }

    fn next_frame_inner(&mut self) -> Result<()> {
        self.drop_frame();
        self.read_ahead();
        let opened = match self.openers.as_mut().map_or(Ok(None), InOrder::take)? {
            Some(opened) => opened,
            // Nothing is under way: the first frame of all, or the end.
            None => match self.ended.take() {
                Some(Ok(())) => return self.end(),
                Some(Err(error)) => return Err(error),
                None => match self.next_record()? {
                    Some(next) => match &mut self.opener {
                        Some(opener) => opener.open(next),
                        none => none.insert(Opener::new()?).open(next),
                    },
                    None => return self.end(),
                },
            },
        };
        let mut frame = opened.map_err(|number| self.bad(format!("frame {number} does not decompress")))?;
        self.frame = Arc::new(std::mem::take(&mut frame.plain));
        self.spare.push(frame.body);
        self.plain_len += self.frame.len() as u64;
        if self.openers.is_some() {
            self.plain_hash.beside()?;
        }
        self.plain_hash.update(&self.frame)
    }

    /// Keeps the other cores at work. What goes wrong is reported once the frames before it were released.
    fn read_ahead(&mut self) {
        // The first frame is taken apart here: most objects have no other.
        while !self.alone && self.ended.is_none() && !self.frames.is_empty() {
            if self.openers.as_ref().is_some_and(|o| o.under_way() >= o.depth()) {
                return;
            }
            match self.next_record().and_then(|record| record.map(|record| self.hand_out(record)).transpose()) {
                Ok(Some(())) => {}
                Ok(None) => self.ended = Some(Ok(())),
                Err(error) => self.ended = Some(Err(error)),
            }
        }
    }

    fn hand_out(&mut self, record: Frame) -> Result<()> {
        let openers = match &mut self.openers {
            Some(openers) => openers,
            none => none.insert(InOrder::start(|| {
                let mut opener = Opener::new()?;
                Ok(move |frame| opener.open(frame))
            })?),
        };
        openers.give(record)
    }

    /// Reads the next frame's record; none when the frame index begins.
    fn next_record(&mut self) -> Result<Option<Frame>> {
        self.need(1)?;
        let kind = self.packed[self.packed_at];
        if kind == RECORD_INDEX {
            return Ok(None);
        }
        self.need(RECORD_HEAD)?;
        let head = &self.packed[self.packed_at..self.packed_at + RECORD_HEAD];
        let plain_len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let packed_len = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame_size = self.header.spec.frame_size;
        let lengths_ok = match kind {
            RECORD_STORED => packed_len == plain_len,
            RECORD_ZSTD => packed_len < plain_len,
            _ => return Err(self.bad(format!("record of unknown kind {kind}"))),
        };
        let number = self.frames.len();
        if !lengths_ok || plain_len == 0 || plain_len > frame_size || self.short_frame {
            return Err(self.bad(format!("frame {number} has impossible lengths")));
        }
        self.short_frame = plain_len < frame_size;
        self.packed_at += RECORD_HEAD;
        let n = packed_len as usize;
        self.need(n)?;
        let mut body = self.spare.pop().unwrap_or_default();
        body.clear();
        body.extend_from_slice(&self.packed[self.packed_at..self.packed_at + n]);
        self.packed_at += n;
        self.frames.push(packed_len);
        let plain = self.spare_plain.pop().or_else(|| self.plain_hash.spare()).unwrap_or_default();
        Ok(Some(Frame { number, kind, plain_len: plain_len as usize, body, plain }))
    }

    /// Frame index, totals, end of the last chunk and footer must all be exactly what was read.
    fn end(&mut self) -> Result<()> {
        let plain_sha256 = match self.plain_hash {
            PlainDigest::LeftOut => {
                let len = 1 + self.frames.len() * 4 + TOTALS;
                self.need(len)?;
                let mut said = [0; 32];
                said.copy_from_slice(&self.packed[self.packed_at + len - 32..self.packed_at + len]);
                said
            }
            _ => self.plain_hash.finish()?,
        };
        self.end_with(plain_sha256)
    }

    fn end_with(&mut self, plain_sha256: [u8; 32]) -> Result<()> {
        let len = 1 + self.frames.len() * 4 + TOTALS;
        self.need(len)?;
        let mut expected = Vec::with_capacity(len);
        expected.push(RECORD_INDEX);
        for n in &self.frames {
            expected.extend_from_slice(&n.to_be_bytes());
        }
        expected.extend_from_slice(&(self.frames.len() as u64).to_be_bytes());
        expected.extend_from_slice(&self.plain_len.to_be_bytes());
        expected.extend_from_slice(&plain_sha256);
        if self.packed[self.packed_at..self.packed_at + len] != expected[..] {
            return Err(self.bad("the frame index or the totals differ from what was read".into()));
        }
        self.packed_at += len;
        if self.packed_at != self.packed.len() || !self.last_seen {
            return Err(self.bad("bytes behind the end of the object's content".into()));
        }
        let content_tag = content_tag(&self.header, &plain_sha256)?;
        let (footer, stored_sha256) = footer(self.stored_hash.clone(), self.payload, &content_tag);
        if self.footer != Some(footer) {
            return Err(self.bad("the footer differs from what was read".into()));
        }
        self.done = Some(Summary {
            plain_len: self.plain_len,
            plain_sha256,
            stored_len: self.header.len + self.payload + FOOTER as u64,
            stored_sha256,
            content_tag,
        });
        Ok(())
    }

    /// Decrypts chunks until `n` bytes of the packed stream are at hand.
    fn need(&mut self, n: usize) -> Result<()> {
        while self.packed.len() - self.packed_at < n {
            if self.last_seen {
                return Err(self.bad("the object's content ends too early".into()));
            }
            if self.packed_at > 0 {
                self.packed.drain(..self.packed_at);
                self.packed_at = 0;
            }
            self.next_chunk()?;
        }
        Ok(())
    }

    /// Authenticates and decrypts the next chunk onto the end of what is at hand of the packed stream.
    fn next_chunk(&mut self) -> Result<()> {
        let sealed = self.header.spec.chunk_size as usize + TAG;
        read_up_to(&mut self.input, &mut self.ahead, sealed + FOOTER + 1)?;
        let last = self.ahead.len() <= sealed + FOOTER;
        let n = if last { self.ahead.len().saturating_sub(FOOTER) } else { sealed };
        if last && n <= TAG {
            return Err(Error::check(format!("the object ends before its last chunk (chunk {})", self.chunks))
                .why("it was cut"));
        }
        self.stored_hash.update(&self.ahead[..n]);
        self.payload += n as u64;
        let opened = self.stream.open(self.chunks, last, &mut self.ahead[..n])?;
        self.packed.extend_from_slice(opened);
        self.ahead.drain(..n);
        self.chunks += 1;
        if last {
            self.last_seen = true;
            let mut footer = [0u8; FOOTER];
            footer.copy_from_slice(&self.ahead);
            self.footer = Some(footer);
            self.ahead.clear();
        }
        Ok(())
    }

    fn bad(&self, what: String) -> Error {
        Error::check(what).why(format!("{:?} is damaged or was written wrongly", self.header.spec.name))
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while self.frame_at == self.frame.len() {
            if self.done.is_some() {
                return Ok(0);
            }
            self.next_frame().map_err(to_io)?;
        }
        let n = out.len().min(self.frame.len() - self.frame_at);
        out[..n].copy_from_slice(&self.frame[self.frame_at..self.frame_at + n]);
        self.frame_at += n;
        Ok(n)
    }
}

impl<R: Read> BufRead for Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.frame_at == self.frame.len() && self.done.is_none() {
            self.next_frame().map_err(to_io)?;
        }
        Ok(&self.frame[self.frame_at..])
    }
    fn consume(&mut self, n: usize) {
        self.frame_at = (self.frame_at + n).min(self.frame.len());
    }
}

/// Looks whether one of the identities opens an object with this header.
///
/// # Errors
/// Usage when none does; a check failure when the header was edited.
pub fn opens(header: &Header, identities: &[Identity]) -> Result<()> {
    unseal(header, identities).map(|_| ())
}

/// What opens the chunks of an object, its header authenticated; and whether a holder of the repository's secret wrote it.
pub(super) fn unseal(header: &Header, identities: &[Identity]) -> Result<(Stream, bool)> {
    let (file_key, own) = find_key(header, identities)?;
    let ObjectKeys { mac, stream } = ObjectKeys::derive(&file_key, &header.salt, &header.core_hash)?;
    if !seal::same(&seal::mac(mac.as_ref(), &[&header.signed])?, &header.mac) {
        return Err(Error::check("the header does not authenticate").why("it was edited"));
    }
    Ok((stream, own))
}

fn find_key(header: &Header, identities: &[Identity]) -> Result<(Zeroizing<[u8; 32]>, bool)> {
    let mut broken = None;
    // A stanza that only a holder of the secret can have made is preferred: it says more about the object.
    let (own, public): (Vec<_>, Vec<_>) = header.stanzas.iter().partition(|(kind, _)| *kind == STANZA_OWN);
    for (kind, body) in own.into_iter().chain(public) {
        for identity in identities {
            match identity.unwrap(*kind, body, &header.salt, &header.core_hash) {
                Some(Ok(key)) => return Ok((key, *kind == STANZA_OWN)),
                Some(Err(error)) => broken = Some(error),
                None => {}
            }
        }
    }
    if let Some(error) = broken {
        return Err(error);
    }
    Err(Error::new(ErrorKind::Usage, format!("no key for {:?}", header.spec.name))
        .why(sealed_for_another(header, identities))
        .hint(OTHER_KEY))
}

/// What to do about an object that is [`SEALED_FOR`] somebody else.
pub const OTHER_KEY: &str = "What was given opened the repository; it is the key file that lacks this key: look for the key under \
                             \"public\" in older or newer copies of the folder keys, and ask who changed repository.json.";

/// How the reason begins why an object cannot be opened that is as it should be, only for somebody else.
pub const SEALED_FOR: &str = "sealed for key ";

/// For whom it is, and who is here: by the beginning of each public key, as key files have it. The same for all objects of one
/// writer.
fn sealed_for_another(header: &Header, identities: &[Identity]) -> String {
    let short = |id: &[u8]| format!("{}…", hex(&id[..id.len().min(8)]));
    let wanted: Vec<String> = header.stanzas.iter().map(|(_, body)| short(body)).collect();
    let here: Vec<String> = identities.iter().map(|i| short(&i.public())).collect();
    format!("{SEALED_FOR}{}, which is not among those given ({})", wanted.join(" and "), here.join(", "))
}

/// Reads until `buffer` has `n` bytes or the input ends.
fn read_up_to(input: &mut impl Read, buffer: &mut Vec<u8>, n: usize) -> Result<()> {
    let mut have = buffer.len();
    if have < n {
        buffer.resize(n, 0);
    }
    let mut result = Ok(());
    while have < n {
        match input.read(&mut buffer[have..n]) {
            Ok(0) => break,
            Ok(got) => have += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                result = Err(from_io(e, || "reading an object".into()));
                break;
            }
        }
    }
    buffer.truncate(have);
    result
}

/// Reads and checks a whole object and releases nothing.
///
/// # Errors
/// As [`Reader::open`]; any damage anywhere is a check failure.
pub fn verify<R: Read>(input: R, identities: &[Identity], expect: &Expect<'_>) -> Result<(Header, Summary)> {
    let reader = Reader::open(input, identities, expect)?;
    let header = reader.header().clone();
    let (_, summary) = reader.finish()?;
    Ok((header, summary))
}

/// What can be said of an object without any key.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The header; not authenticated.
    pub header: Header,
    /// Length of the object in bytes.
    pub stored_len: u64,
    /// The footer's SHA-256, over core, chunks and content tag: computed, and found equal.
    pub stored_sha256: [u8; 32],
    /// The footer's content tag; not authenticated.
    pub content_tag: [u8; 32],
}

/// Reads a whole object without a key: finds rot, cuts and swaps by accident, not by intent.
pub fn check_stored<R: Read>(mut input: R) -> Result<Stored> {
    let header = Header::read(&mut input)?;
    check_rest(input, header)
}

/// As [`check_stored`], of an object that one of the identities must open; what none opens is not read to its end.
///
/// # Errors
/// As [`Reader::open`] and [`check_stored`].
pub fn check_stored_for<R: Read>(mut input: R, identities: &[Identity], expect: &Expect<'_>) -> Result<()> {
    let header = Header::read(&mut input)?;
    header.is_as(expect)?;
    unseal(&header, identities)?;
    check_rest(input, header).map(|_| ())
}

fn check_rest<R: Read>(mut input: R, header: Header) -> Result<Stored> {
    let mut hash = Sha256::new();
    hash.update(&header.core);
    let mut payload = 0u64;
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let missing = ((1 << 18) + FOOTER).saturating_sub(buffer.len());
        buffer.reserve(missing);
        let read = Read::take(&mut input, missing as u64).read_to_end(&mut buffer);
        read.map_err(|e| from_io(e, || "reading an object".into()))?;
        if buffer.len() < FOOTER {
            return Err(Error::check("the object ends before its footer").why("it was cut"));
        }
        let n = buffer.len() - FOOTER;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        payload += n as u64;
        buffer.drain(..n);
    }
    let mut tag = [0u8; 32];
    tag.copy_from_slice(&buffer[16..48]);
    let (expected, stored_sha256) = footer(hash, payload, &tag);
    if buffer[..] != expected[..] {
        return Err(Error::check(format!("{:?} is damaged", header.spec.name)).why("its checksum differs"));
    }
    Ok(Stored { stored_len: header.len + payload + FOOTER as u64, header, stored_sha256, content_tag: tag })
}
