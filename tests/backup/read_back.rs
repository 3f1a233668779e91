//! What `backup create` reads back instead of a whole verification: it sees whatever differs in the stored bytes.

use std::io::{Cursor, Write};

use breakglass::backup::container::{Compression, Identity, ObjectType, Reader, Recipient, Summary, Writer, verify};

use super::container::{expect, sample, spec};

fn written(plain: &[u8], compression: Compression) -> (Vec<u8>, Summary, Identity) {
    let identity = Identity::generate().unwrap();
    let spec = spec(ObjectType::LogicalDump, "backups/a/database.dump.bgo", 1 << 12, 1 << 13, compression);
    let mut writer = Writer::new(Vec::new(), &spec, &[Recipient::Own(identity.clone())]).unwrap().proving();
    writer.write_all(plain).unwrap();
    let (bytes, summary) = writer.finish().unwrap();
    (bytes, summary, identity)
}

fn read_back(bytes: &[u8], identity: &Identity, plain_sha256: [u8; 32]) -> Result<Summary, breakglass::error::Error> {
    let spec = spec(ObjectType::LogicalDump, "backups/a/database.dump.bgo", 1 << 12, 1 << 13, Compression::Zstd);
    Reader::open(Cursor::new(bytes), std::slice::from_ref(identity), &expect(&spec))?
        .read_back(plain_sha256, &mut |_| Ok(()))
}

#[test]
fn it_agrees_with_what_was_written() {
    for compression in [Compression::Zstd, Compression::None] {
        for len in [0, 1, 5_000, 8_192, 8_193, 100_000] {
            let (bytes, summary, identity) = written(&sample(len, 5), compression);
            assert_eq!(read_back(&bytes, &identity, summary.plain_sha256).unwrap(), summary, "{len} bytes");
            let whole = expect_of(compression);
            assert_eq!(
                verify(Cursor::new(&bytes), std::slice::from_ref(&identity), &expect(&whole)).unwrap().1,
                summary
            );
        }
    }
}

fn expect_of(compression: Compression) -> breakglass::backup::container::Spec {
    spec(ObjectType::LogicalDump, "backups/a/database.dump.bgo", 1 << 12, 1 << 13, compression)
}

#[test]
fn any_bit_that_differs_is_seen() {
    let (bytes, summary, identity) = written(&sample(60_000, 9), Compression::Zstd);
    let mut damaged = bytes.clone();
    // Every byte of header, first chunk and footer, and a sample of the rest.
    let (head, tail) = (6_000.min(bytes.len()), bytes.len() - 200);
    for at in (0..head).chain((head..tail).step_by(37)).chain(tail..bytes.len()) {
        damaged[at] ^= 1 << (at % 8);
        let seen = read_back(&damaged, &identity, summary.plain_sha256);
        assert!(seen.is_err(), "byte {at} of {}", bytes.len());
        damaged[at] = bytes[at];
    }
    for n in (0..bytes.len()).step_by(53).chain([bytes.len() - 1]) {
        assert!(read_back(&bytes[..n], &identity, summary.plain_sha256).is_err(), "cut at {n}");
    }
    damaged.push(0);
    assert!(read_back(&damaged, &identity, summary.plain_sha256).is_err(), "a byte too many");
    // The right object of another plain text is not the one that was written.
    assert!(read_back(&bytes, &identity, [0; 32]).is_err());
    assert!(read_back(&bytes, &identity, summary.plain_sha256).is_ok());
}
