//! Writing an object: plain bytes in, sealed object out, in one pass.

use std::io::{self, Write};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::digest::PlainDigest;
use super::header::{Compression, Header, Spec, encode_core};
use super::pool::InOrder;
use super::recipient::Recipient;
use super::seal::{self, ObjectKeys, Stream};
use super::{FOOTER, Summary, TAG, from_io, to_io};
use crate::error::{Error, Result};

/// First bytes of the footer.
pub(super) const FOOTER_MAGIC: [u8; 8] = *b"\x89BGE\r\n\x1a\n";
/// Record kinds of the packed stream.
pub(super) const RECORD_STORED: u8 = 0;
pub(super) const RECORD_ZSTD: u8 = 1;
pub(super) const RECORD_INDEX: u8 = 2;
/// Kind, plain length and packed length before each frame.
pub(super) const RECORD_HEAD: usize = 9;
/// Frame count, plain length and plain SHA-256 at the very end of the packed stream.
pub(super) const TOTALS: usize = 48;

/// zstd's own default; measured as the best balance for dumps and cluster files.
const ZSTD_LEVEL: i32 = 3;

/// One frame on its way: as it came, then packed as well. The digest reads the same bytes at the same time.
struct Frame {
    plain: Arc<Vec<u8>>,
    packed: Vec<u8>,
}

/// A frame is stored as it is when packing does not make it smaller.
type Packed = io::Result<Frame>;

/// Packs frames, of one object at a time.
struct Packer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    /// Takes each frame apart again.
    prove: Option<(zstd::bulk::Decompressor<'static>, Vec<u8>)>,
}

impl Packer {
    fn new(compression: Compression, prove: bool) -> Result<Self> {
        let preparing = |e: io::Error| Error::state("preparing compression").why(e);
        Ok(match compression {
            Compression::None => Self { compressor: None, prove: None },
            Compression::Zstd => Self {
                compressor: Some(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(preparing)?),
                prove: match prove {
                    true => Some((zstd::bulk::Decompressor::new().map_err(preparing)?, Vec::new())),
                    false => None,
                },
            },
        })
    }
    fn pack(&mut self, mut frame: Frame) -> Packed {
        frame.packed.clear();
        if let Some(compressor) = &mut self.compressor {
            frame.packed.reserve(zstd::zstd_safe::compress_bound(frame.plain.len()));
            compressor.compress_to_buffer(frame.plain.as_slice(), &mut frame.packed)?;
        }
        if let Some((decompressor, again)) = &mut self.prove {
            again.clear();
            again.reserve(frame.plain.len());
            decompressor.decompress_to_buffer(&frame.packed, again)?;
            if again != frame.plain.as_ref() {
                return Err(io::Error::other(
                    "what was compressed does not come back: this machine is not to be trusted",
                ));
            }
        }
        Ok(frame)
    }
}

/// Seals plain bytes into one object. Frames are packed on several cores once there is more than one. Without [`Writer::finish`] the object is incomplete and no reader accepts it.
pub struct Writer<W: Write> {
    out: W,
    header: Header,
    stream: Stream,
    packers: Option<InOrder<Frame, Packed>>,
    frame: Vec<u8>,
    spare: Vec<Vec<u8>>,
    spare_packed: Vec<Vec<u8>>,
    prove: bool,
    chunk: Vec<u8>,
    chunks: u64,
    payload: u64,
    frames: Vec<u32>,
    plain_len: u64,
    plain_hash: PlainDigest,
    stored_hash: Sha256,
}

impl<W: Write> Writer<W> {
    /// Begins an object for these recipients under a new random key, and writes its header.
    ///
    /// # Errors
    /// When there is no recipient, a bound of the format is exceeded, or `out` fails.
    pub fn new(out: W, spec: &Spec, recipients: &[Recipient]) -> Result<Self> {
        let mut salt = [0u8; 32];
        let mut file_key = Zeroizing::new([0u8; 32]);
        seal::random(&mut salt)?;
        seal::random(file_key.as_mut())?;
        Self::with_key(out, spec, recipients, &salt, &file_key)
    }

    /// As [`Writer::new`] with a given salt and file key: for test vectors only, as a key must never be used twice.
    #[doc(hidden)]
    pub fn with_key(
        mut out: W,
        spec: &Spec,
        recipients: &[Recipient],
        salt: &[u8; 32],
        file_key: &[u8; 32],
    ) -> Result<Self> {
        if recipients.is_empty() {
            return Err(Error::state("an object without a recipient could never be read"));
        }
        let core = encode_core(spec, salt)?;
        let core_hash: [u8; 32] = Sha256::digest(&core).into();
        let stanzas = recipients.iter().map(|r| r.wrap(file_key, salt, &core_hash)).collect::<Result<Vec<_>>>()?;
        let ObjectKeys { mac, stream } = ObjectKeys::derive(file_key, salt, &core_hash)?;
        let (header, bytes) = Header::build(core, stanzas, &mac)?;
        out.write_all(&bytes).map_err(|e| from_io(e, || "writing an object".into()))?;
        let mut stored_hash = Sha256::new();
        stored_hash.update(&header.core);
        let (chunk, frame) = (spec.chunk_size as usize, spec.frame_size as usize);
        Ok(Self {
            out,
            header,
            stream,
            packers: None,
            frame: Vec::with_capacity(frame),
            spare: Vec::new(),
            spare_packed: Vec::new(),
            prove: false,
            chunk: Vec::with_capacity(chunk + TAG),
            chunks: 0,
            payload: 0,
            frames: Vec::new(),
            plain_len: 0,
            plain_hash: PlainDigest::new(),
            stored_hash,
        })
    }

    /// Seals what is left, writes frame index, totals and footer, and gives back the output (not yet flushed to disk).
    pub fn finish(mut self) -> Result<(W, Summary)> {
        if !self.frame.is_empty() {
            self.end_frame()?;
        }
        while let Some(packed) = self.packers.as_mut().map_or(Ok(None), InOrder::take)? {
            self.store(packed)?;
        }
        let plain_sha256 = self.plain_hash.finish()?;
        let mut tail = Vec::with_capacity(1 + self.frames.len() * 4 + TOTALS);
        tail.push(RECORD_INDEX);
        for len in &self.frames {
            tail.extend_from_slice(&len.to_be_bytes());
        }
        tail.extend_from_slice(&(self.frames.len() as u64).to_be_bytes());
        tail.extend_from_slice(&self.plain_len.to_be_bytes());
        tail.extend_from_slice(&plain_sha256);
        self.push(&tail)?;
        self.end_chunk(true)?;
        let content_tag = content_tag(&self.header, &plain_sha256)?;
        let (footer, stored_sha256) = footer(self.stored_hash.clone(), self.payload, &content_tag);
        self.write(&footer)?;
        self.out.flush().map_err(|e| from_io(e, || "writing an object".into()))?;
        let summary = Summary {
            plain_len: self.plain_len,
            plain_sha256,
            stored_len: self.header.len + self.payload + FOOTER as u64,
            stored_sha256,
            content_tag,
        };
        self.frame.zeroize();
        self.spare.iter_mut().for_each(Zeroize::zeroize);
        Ok((self.out, summary))
    }

    /// From here on every frame is taken apart again and compared as soon as it was packed: whoever reads the stored bytes
    /// back then need not do so once more ([`super::reader::read_back`]).
    #[must_use]
    pub fn proving(mut self) -> Self {
        self.prove = true;
        self
    }

    /// The header as written.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| from_io(e, || "writing an object".into()))
    }

    /// Hands the frame to the packers; what they have finished is stored, in order.
    fn end_frame(&mut self) -> Result<()> {
        let size = self.header.spec.frame_size as usize;
        let more_to_come = self.frame.len() == size;
        let mut next = match more_to_come {
            true => (self.spare.pop().or_else(|| self.plain_hash.spare())).unwrap_or_else(|| Vec::with_capacity(size)),
            false => Vec::new(),
        };
        next.clear();
        let plain = Arc::new(std::mem::replace(&mut self.frame, next));
        self.plain_len += plain.len() as u64;
        let (compression, prove) = (self.header.spec.compression, self.prove);
        if more_to_come {
            self.plain_hash.beside()?;
        }
        self.plain_hash.update(&plain)?;
        let frame = Frame { plain, packed: self.spare_packed.pop().unwrap_or_default() };
        if compression == Compression::None || (self.packers.is_none() && !more_to_come) {
            return self.store(Packer::new(compression, prove)?.pack(frame));
        }
        let packers = match &mut self.packers {
            Some(packers) => packers,
            none => none.insert(InOrder::start(|| {
                let mut packer = Packer::new(compression, prove)?;
                Ok(move |frame| packer.pack(frame))
            })?),
        };
        packers.give(frame)?;
        while let Some(packers) = self.packers.as_mut().filter(|p| p.under_way() >= p.depth()) {
            let Some(packed) = packers.take()? else { break };
            self.store(packed)?;
        }
        Ok(())
    }

    fn store(&mut self, packed: Packed) -> Result<()> {
        let frame = packed.map_err(|e| Error::state("compressing a frame").why(e))?;
        let smaller = !frame.packed.is_empty() && frame.packed.len() < frame.plain.len();
        let (kind, body) = if smaller { (RECORD_ZSTD, &frame.packed) } else { (RECORD_STORED, &*frame.plain) };
        // Both lengths are bounded by the frame size, which is at most 2^24.
        let (plain_len, packed_len) = (frame.plain.len() as u32, body.len() as u32);
        let mut head = [0u8; RECORD_HEAD];
        head[0] = kind;
        head[1..5].copy_from_slice(&plain_len.to_be_bytes());
        head[5..].copy_from_slice(&packed_len.to_be_bytes());
        self.push(&head)?;
        self.push(body)?;
        self.frames.push(packed_len);
        self.spare_packed.push(frame.packed);
        // The digest may still be reading; then it gives it back.
        self.spare.extend(Arc::try_unwrap(frame.plain).ok());
        Ok(())
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        let size = self.header.spec.chunk_size as usize;
        while !bytes.is_empty() {
            // A full chunk is sealed only when more follows, so that the last one can carry its flag.
            if self.chunk.len() == size {
                self.end_chunk(false)?;
            }
            let n = bytes.len().min(size - self.chunk.len());
            self.chunk.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
        }
        Ok(())
    }

    fn end_chunk(&mut self, last: bool) -> Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        self.stream.seal(self.chunks, last, &mut chunk)?;
        self.chunks += 1;
        self.payload += chunk.len() as u64;
        self.stored_hash.update(&chunk);
        self.write(&chunk)?;
        chunk.clear();
        self.chunk = chunk;
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.header.spec.frame_size as usize;
        let n = bytes.len().min(size - self.frame.len());
        self.frame.extend_from_slice(&bytes[..n]);
        if self.frame.len() == size {
            self.end_frame().map_err(to_io)?;
        }
        Ok(n)
    }
    /// Does nothing: only [`Writer::finish`] makes an object.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The footer's bytes and the digest in it, which covers core, chunks (both in `hash` already) and the footer's own
/// fields before it.
pub(super) fn footer(mut hash: Sha256, payload: u64, content_tag: &[u8; 32]) -> ([u8; FOOTER], [u8; 32]) {
    let mut out = [0u8; FOOTER];
    out[..8].copy_from_slice(&FOOTER_MAGIC);
    out[8..16].copy_from_slice(&payload.to_be_bytes());
    out[16..48].copy_from_slice(content_tag);
    hash.update(&out[..48]);
    let digest: [u8; 32] = hash.finalize().into();
    out[48..].copy_from_slice(&digest);
    (out, digest)
}

/// Lets the archiving side, which cannot decrypt, tell the same file from another under the same name.
pub fn content_tag(header: &Header, plain_sha256: &[u8; 32]) -> Result<[u8; 32]> {
    if header.spec.object.has_content_tag() { seal::mac(&header.salt, &[plain_sha256]) } else { Ok([0u8; 32]) }
}
