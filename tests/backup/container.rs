//! The container: what goes in comes out; anything else is an error and releases nothing wrong.

use std::io::{Cursor, Read, Write};

use breakglass::backup::container::{
    Compression, Expect, Identity, ObjectType, Reader, Recipient, Spec, Writer, check_stored, verify,
};
use breakglass::error::Error;
use breakglass::model::Time;
use proptest::prelude::*;

pub const REPO: [u8; 16] = [7; 16];

pub fn spec(object: ObjectType, name: &str, chunk: u32, frame: u32, compression: Compression) -> Spec {
    let mut spec = Spec::new(object, REPO, name, Time::from_micros(1_800_000_000_000_000));
    (spec.chunk_size, spec.frame_size, spec.compression) = (chunk, frame, compression);
    spec
}

pub fn seal(spec: &Spec, recipients: &[Recipient], plain: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), spec, recipients).unwrap();
    writer.write_all(plain).unwrap();
    let (bytes, summary) = writer.finish().unwrap();
    assert_eq!(summary.stored_len, bytes.len() as u64);
    assert_eq!(summary.plain_len, plain.len() as u64);
    bytes
}

pub fn expect(spec: &Spec) -> Expect<'_> {
    Expect { object: spec.object, repository: spec.repository, name: &spec.name }
}

/// Everything released before the end or the first error, and that error.
pub fn open(bytes: &[u8], identities: &[Identity], expect: &Expect<'_>) -> (Vec<u8>, Result<(), Error>) {
    let mut out = Vec::new();
    let mut reader = match Reader::open(Cursor::new(bytes), identities, expect) {
        Ok(reader) => reader,
        Err(e) => return (out, Err(e)),
    };
    let mut buffer = [0u8; 1000];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return (out, reader.finish().map(|_| ())),
            Ok(n) => out.extend_from_slice(&buffer[..n]),
            Err(e) => {
                // An error is for ever: reading on must not yield anything.
                assert!(reader.read(&mut buffer).is_err());
                return (out, Err(e.downcast::<Error>().unwrap()));
            }
        }
    }
}

/// Bytes that compress in part.
pub fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|i| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            if i / 700 % 2 == 0 { (x >> 33) as u8 } else { b'a' + (i % 7) as u8 }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn round_trip(len in 0usize..40_000, seed: u64, chunk in 12u32..15, frame in 12u32..15, zstd: bool, own: bool, piece in 1usize..9000) {
        let identity = Identity::generate().unwrap();
        let compression = if zstd { Compression::Zstd } else { Compression::None };
        let spec = spec(ObjectType::WalSegment, "wal/a.bgo", 1 << chunk, 1 << frame, compression);
        let recipient = if own { Recipient::Own(identity.clone()) } else { Recipient::Public(identity.public()) };
        let plain = sample(len, seed);
        let mut writer = Writer::new(Vec::new(), &spec, &[recipient]).unwrap();
        for part in plain.chunks(piece) {
            writer.write_all(part).unwrap();
        }
        let (bytes, written) = writer.finish().unwrap();
        let other = Identity::generate().unwrap();
        let (out, end) = open(&bytes, &[other, identity.clone()], &expect(&spec));
        prop_assert!(end.is_ok(), "{end:?}");
        prop_assert!(out == plain);
        let (header, read) = verify(Cursor::new(&bytes), std::slice::from_ref(&identity), &expect(&spec)).unwrap();
        prop_assert_eq!(&written, &read);
        prop_assert_eq!(header.spec.timeline, 0);
        let stored = check_stored(Cursor::new(&bytes)).unwrap();
        prop_assert_eq!(stored.stored_sha256, written.stored_sha256);
        prop_assert_eq!(stored.content_tag, written.content_tag);
        prop_assert_eq!(stored.stored_len, bytes.len() as u64);
    }
}

#[test]
fn the_same_content_never_gives_the_same_bytes() {
    let identity = Identity::generate().unwrap();
    let spec = spec(ObjectType::WalSegment, "wal/a.bgo", 4096, 4096, Compression::Zstd);
    let recipients = [Recipient::Public(identity.public())];
    let (a, b) = (seal(&spec, &recipients, b"same"), seal(&spec, &recipients, b"same"));
    assert_eq!(a.len(), b.len());
    let equal = a.iter().zip(&b).filter(|(x, y)| x == y).count();
    // Core fields, recipient and lengths are equal; salt, keys, MAC, chunk and footer are not.
    assert!(equal < a.len() * 3 / 4, "{equal} of {} bytes are equal", a.len());
}
