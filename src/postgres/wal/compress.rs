//! Page images as `wal_compression` leaves them: pglz, LZ4 block format, zstd.

use super::bytes::Bytes;

/// How a page image is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// PostgreSQL's own (`common/pg_lzcompress.c`).
    Pglz,
    /// LZ4, one block.
    Lz4,
    /// zstd.
    Zstd,
}

/// The `length` bytes that were compressed; none when the data is not what it should be.
pub fn decompress(method: Compression, data: &[u8], length: usize) -> Option<Vec<u8>> {
    let out = match method {
        Compression::None => data.to_vec(),
        Compression::Pglz => pglz(data, length)?,
        Compression::Lz4 => lz4(data, length)?,
        Compression::Zstd => zstd::bulk::decompress(data, length).ok()?,
    };
    (out.len() == length).then_some(out)
}

/// Repeats `n` bytes from `back` bytes ago; they may overlap what is being written.
fn repeat(out: &mut Vec<u8>, back: usize, n: usize, length: usize) -> Option<()> {
    let from = out.len().checked_sub(back).filter(|_| back > 0)?;
    for i in 0..n.min(length - out.len().min(length)) {
        out.push(*out.get(from + i)?);
    }
    Some(())
}

/// A control byte announces eight items, lowest bit first: a literal byte, or two or three bytes with length and distance.
fn pglz(data: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut b = Bytes(data);
    let mut out = Vec::with_capacity(length);
    while !b.0.is_empty() && out.len() < length {
        let control = b.u8()?;
        for bit in 0..8 {
            if b.0.is_empty() || out.len() >= length {
                break;
            }
            if control & (1 << bit) == 0 {
                out.push(b.u8()?);
                continue;
            }
            let (first, second) = (usize::from(b.u8()?), usize::from(b.u8()?));
            let back = (first & 0xF0) << 4 | second;
            let mut n = (first & 0x0F) + 3;
            if n == 18 {
                n += usize::from(b.u8()?);
            }
            repeat(&mut out, back, n, length)?;
        }
    }
    Some(out)
}

/// Sequences of a token, literals, and a match of at least four bytes; the last one has literals alone.
fn lz4(data: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut b = Bytes(data);
    let mut out = Vec::with_capacity(length);
    let more = |b: &mut Bytes<'_>, nibble: u8| -> Option<usize> {
        let mut n = usize::from(nibble);
        if nibble == 15 {
            loop {
                let byte = b.u8()?;
                n += usize::from(byte);
                if byte != 255 {
                    break;
                }
            }
        }
        Some(n)
    };
    while !b.0.is_empty() {
        let token = b.u8()?;
        let literals = more(&mut b, token >> 4)?;
        if out.len() + literals > length {
            return None;
        }
        out.extend_from_slice(b.take(literals)?);
        if b.0.is_empty() {
            break;
        }
        let back = usize::from(b.u16()?);
        let n = more(&mut b, token & 0x0F)? + 4;
        repeat(&mut out, back, n, length)?;
    }
    Some(out)
}
