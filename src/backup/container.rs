//! The encrypted object format, version 1: header, sealed chunks of independent compressed frames, footer.
//!
//! Layout (all integers big-endian, bytes in `docs/formats.md`):
//!
//! ```text
//! core      what the object is; its SHA-256 is bound into the payload key
//! stanzas   the file key, wrapped once per recipient; may be rewritten without touching the payload
//! mac       HMAC-SHA256 by the file key over all of the above (commits to the key), then a plain checksum
//! chunks    AES-256-GCM in the STREAM construction over the packed stream: frames, frame index, totals
//! footer    the WAL content tag, and a plain SHA-256 over core, chunks and tag: rot is found without any key
//! ```
//!
//! Every object has a random file key and salt of its own, so no (key, nonce) pair is ever used twice; an interrupted
//! object is written anew under a new key, never continued.

mod digest;
pub mod header;
mod pool;
pub mod ranged;
pub mod reader;
pub mod recipient;
pub mod writer;

pub(crate) mod seal;

pub use header::{Compression, Expect, Header, ObjectId, ObjectType, Spec};
pub use ranged::{Fetched, Ranged, begins_and_ends, check_ends, head};
pub use reader::{OTHER_KEY, Reader, SEALED_FOR, Stored, check_stored, check_stored_for, opens, verify};
pub use recipient::{Identity, Recipient};
pub use writer::Writer;

use crate::error::Error;

/// Bytes of the GCM tag behind every chunk.
pub const TAG: usize = 16;
/// Bytes of the footer behind the last chunk.
pub const FOOTER: usize = 80;

/// What a whole object held, known once its last byte was written or authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Bytes before compression and encryption.
    pub plain_len: u64,
    /// SHA-256 of those bytes.
    pub plain_sha256: [u8; 32],
    /// Bytes of the object as stored, header and footer included.
    pub stored_len: u64,
    /// SHA-256 over core, chunks and content tag, as in the footer; survives a re-wrap of the keys.
    pub stored_sha256: [u8; 32],
    /// HMAC-SHA256 keyed by the object's salt over the plain SHA-256, for WAL objects; zeros for others.
    pub content_tag: [u8; 32],
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Bytes from hexadecimal of exactly `N` bytes.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut out = [0u8; N];
    for (o, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *o = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}

/// An error of ours as `io::Error`, so that it passes through `Read` and `Write`.
pub(crate) fn to_io(error: Error) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error)
}

/// The error of ours inside an `io::Error`, or a target failure that says what was being done.
pub(crate) fn from_io(error: std::io::Error, what: impl FnOnce() -> String) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(other) if other.kind() == std::io::ErrorKind::StorageFull => {
            Error::target(what()).why(other).hint("Free space on that disk, or name another folder.")
        }
        Err(other) => Error::target(what()).why(other),
    }
}
