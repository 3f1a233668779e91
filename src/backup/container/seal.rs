//! The primitives: random bytes, HKDF-SHA256, wrapped keys, and the STREAM of chunks.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::TAG;
use crate::error::{Error, Result};

/// Fills `out` from the operating system.
pub fn random(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out).map_err(|e| Error::state("no random bytes from the operating system").why(e))
}

/// HKDF-SHA256: 32 bytes from `ikm`; `info` is the concatenation of its parts.
pub fn derive(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> Result<Zeroizing<[u8; 32]>> {
    let mut out = Zeroizing::new([0u8; 32]);
    Hkdf::<Sha256>::new(Some(salt), ikm)
        .expand_multi_info(info, out.as_mut())
        .map_err(|e| Error::state("key derivation").why(e))?;
    Ok(out)
}

/// HMAC-SHA256 over the parts.
pub fn mac(key: &[u8], parts: &[&[u8]]) -> Result<[u8; 32]> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).map_err(|e| Error::state("HMAC key").why(e))?;
    for part in parts {
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes().into())
}

/// Whether two digests are equal, in constant time.
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y)) == 0
}

fn cipher(key: &[u8; 32]) -> Result<Aes256Gcm> {
    Aes256Gcm::new_from_slice(key).map_err(|e| Error::state("AES key").why(e))
}

/// A 32-byte key sealed under a key that is used for nothing else: 48 bytes. The nonce is zero for that reason.
pub fn seal_key(wrapping: &[u8; 32], key: &[u8; 32]) -> Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(48);
    buffer.extend_from_slice(key);
    cipher(wrapping)?
        .encrypt_in_place(&Nonce::from([0u8; 12]), b"", &mut buffer)
        .map_err(|_| Error::state("sealing a key"))?;
    Ok(buffer)
}

/// Opens what [`seal_key`] made.
pub fn open_key(wrapping: &[u8; 32], sealed: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    cipher(wrapping)?
        .decrypt_in_place(&Nonce::from([0u8; 12]), b"", &mut *buffer)
        .map_err(|_| Error::check("a wrapped key does not authenticate").why("it is damaged or was edited"))?;
    let mut key = Zeroizing::new([0u8; 32]);
    if buffer.len() != 32 {
        return Err(Error::check("a wrapped key has the wrong length"));
    }
    key.copy_from_slice(&buffer);
    Ok(key)
}

/// The keys of one object, all derived from its file key.
pub struct ObjectKeys {
    /// Authenticates the header.
    pub mac: Zeroizing<[u8; 32]>,
    /// Seals the chunks.
    pub stream: Stream,
}

impl ObjectKeys {
    /// Derives them; the payload key is bound to the hash of the core.
    pub fn derive(file_key: &[u8; 32], salt: &[u8; 32], core_hash: &[u8; 32]) -> Result<Self> {
        let mac = derive(salt, file_key, &[b"breakglass container 1 header"])?;
        let mut payload = Zeroizing::new([0u8; 39]);
        Hkdf::<Sha256>::new(Some(salt), file_key)
            .expand_multi_info(&[b"breakglass container 1 payload", core_hash], payload.as_mut())
            .map_err(|e| Error::state("key derivation").why(e))?;
        let mut key = Zeroizing::new([0u8; 32]);
        key.copy_from_slice(&payload[..32]);
        let mut prefix = [0u8; 7];
        prefix.copy_from_slice(&payload[32..]);
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| Error::state("AES key"))?;
        Ok(Self { mac, stream: Stream { key: LessSafeKey::new(key), prefix } })
    }
}

/// AES-256-GCM per chunk; the nonce is a 7-byte prefix, the chunk's number in 4 bytes and a last-chunk flag in 1.
pub struct Stream {
    key: LessSafeKey,
    prefix: [u8; 7],
}

impl Stream {
    /// The nonce of chunk `index`. Numbers past 2^32-1 are refused: wrapping would use a nonce twice.
    fn nonce(&self, index: u64, last: bool) -> Result<ring::aead::Nonce> {
        nonce(self.prefix, index, last).map(ring::aead::Nonce::assume_unique_for_key)
    }
    /// Encrypts a chunk in place and appends its tag.
    pub fn seal(&self, index: u64, last: bool, chunk: &mut Vec<u8>) -> Result<()> {
        self.key
            .seal_in_place_append_tag(self.nonce(index, last)?, Aad::empty(), chunk)
            .map_err(|_| Error::state(format!("encrypting chunk {index}")))
    }
    /// Authenticates and decrypts a chunk in place and gives its plain bytes; on failure the buffer is cleared.
    pub fn open<'c>(&self, index: u64, last: bool, chunk: &'c mut [u8]) -> Result<&'c [u8]> {
        let nonce = self.nonce(index, last)?;
        let plain = chunk.len().checked_sub(TAG).filter(|n| *n > 0);
        let opened = self.key.open_in_place(nonce, Aad::empty(), chunk).is_ok();
        match plain {
            Some(n) if opened => Ok(&chunk[..n]),
            _ => {
                chunk.fill(0);
                let why =
                    if last { "it is damaged, or the object was cut or extended" } else { "it is damaged or moved" };
                Err(Error::check(format!("chunk {index} does not authenticate")).why(why))
            }
        }
    }
}

/// The nonce of a chunk; an error when the counter is used up.
pub fn nonce(prefix: [u8; 7], index: u64, last: bool) -> Result<[u8; 12]> {
    let counter = u32::try_from(index)
        .map_err(|_| Error::refused("an object cannot have more than 4294967296 chunks").hint("Split the backup."))?;
    let mut nonce = [0u8; 12];
    nonce[..7].copy_from_slice(&prefix);
    nonce[7..11].copy_from_slice(&counter.to_be_bytes());
    nonce[11] = u8::from(last);
    Ok(nonce)
}
