//! Generated damage: every mutation of an object is an error, and what was released before it is a true prefix.
//! A sample by default; `BREAKGLASS_SOAK=1` makes at least 10,000.

use std::io::Cursor;

use breakglass::backup::container::{
    Compression, Expect, FOOTER, Header, Identity, ObjectType, Recipient, Spec, TAG, check_stored, verify,
};
use sha2::{Digest, Sha256};

use super::container::{expect, open, sample, seal, spec};

/// Mutations per class: 16 classes.
fn per_class() -> usize {
    if std::env::var_os("BREAKGLASS_SOAK").is_some() { 700 } else { 34 }
}

pub struct Rng(u64);

impl Rng {
    /// The same numbers every time.
    pub fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

struct Object {
    spec: Spec,
    plain: Vec<u8>,
    bytes: Vec<u8>,
    header: Header,
}

impl Object {
    fn new(name: &str, len: usize, seed: u64, frame: u32, compression: Compression, to: &[Recipient]) -> Self {
        let spec = spec(ObjectType::WalSegment, name, 4096, frame, compression);
        let plain = sample(len, seed);
        let bytes = seal(&spec, to, &plain);
        let header = Header::read(&mut Cursor::new(&bytes)).unwrap();
        Self { spec, plain, bytes, header }
    }
    fn head(&self) -> usize {
        self.header.len as usize
    }
    fn payload_end(&self) -> usize {
        self.bytes.len() - FOOTER
    }
    fn chunk(&self, i: usize) -> std::ops::Range<usize> {
        let sealed = 4096 + TAG;
        let start = self.head() + i * sealed;
        start..(start + sealed).min(self.payload_end())
    }
    fn chunks(&self) -> usize {
        (self.payload_end() - self.head()).div_ceil(4096 + TAG)
    }
}

/// What somebody without any key can mend after an edit: the header's checksum, the footer's length and SHA-256.
pub fn mend(bytes: &mut [u8], head: usize) {
    if bytes.len() < head + FOOTER {
        return;
    }
    let sum = Sha256::digest(&bytes[..head - 8]);
    bytes[head - 8..head].copy_from_slice(&sum[..8]);
    let core = usize::from(u16::from_be_bytes([bytes[10], bytes[11]])).min(head);
    let end = bytes.len() - FOOTER;
    let length = (end - head) as u64;
    bytes[end + 8..end + 16].copy_from_slice(&length.to_be_bytes());
    let hash = Sha256::new().chain_update(&bytes[..core]).chain_update(&bytes[head..end]);
    let sum = hash.chain_update(&bytes[end..end + 48]).finalize();
    bytes[end + 48..].copy_from_slice(&sum);
}

struct Judge<'a> {
    identity: &'a Identity,
    made: usize,
}

impl Judge<'_> {
    /// The mutated bytes must fail, with and without the key where `rot` says that a checksum must see it.
    fn judge(&mut self, class: &str, object: &Object, bytes: &[u8], expect: &Expect<'_>, rot: bool) {
        self.made += 1;
        let identities = std::slice::from_ref(self.identity);
        let (out, end) = open(bytes, identities, expect);
        assert!(end.is_err(), "{class}: mutation {} was accepted", self.made);
        assert!(object.plain.starts_with(&out), "{class}: released bytes that were never written");
        assert!(verify(Cursor::new(bytes), identities, expect).is_err(), "{class}: verify accepted it");
        if rot {
            assert!(check_stored(Cursor::new(bytes)).is_err(), "{class}: the plain checksum did not see it");
        }
    }
}

#[test]
fn every_mutation_is_an_error_and_releases_nothing_wrong() {
    let n = per_class();
    let identity = Identity::generate().unwrap();
    let second = Identity::generate().unwrap();
    let to =
        [Recipient::Public(identity.public()), Recipient::Public(second.public()), Recipient::Own(identity.clone())];
    let objects = [
        Object::new("wal/a.bgo", 30_000, 1, 4096, Compression::None, &to),
        Object::new("wal/a.bgo", 60_000, 2, 16_384, Compression::Zstd, &to),
        Object::new("wal/a.bgo", 4096 * 3 - 9 * 3 - 49 - 12, 3, 4096, Compression::None, &to), // ends on a chunk's end
        Object::new("wal/b.bgo", 30_000, 4, 4096, Compression::None, &to),
        Object::new("wal/a.bgo", 0, 5, 4096, Compression::Zstd, &to),
    ];
    // Another object of the same name, as after a rollback to yesterday's: only its parts are used.
    let twin = Object::new("wal/a.bgo", 30_000, 6, 4096, Compression::None, &to);
    let mut rng = Rng::new();
    let mut judge = Judge { identity: &identity, made: 0 };
    for o in &objects {
        let (out, end) = open(&o.bytes, std::slice::from_ref(&identity), &expect(&o.spec));
        assert!(end.is_ok() && out == o.plain, "the unchanged object opens");
    }

    for round in 0..n {
        let o = &objects[round % objects.len()];
        let e = expect(&o.spec);
        let core = usize::from(u16::from_be_bytes([o.bytes[10], o.bytes[11]]));
        let (head, end, len) = (o.head(), o.payload_end(), o.bytes.len());

        // One bit in each region.
        let regions = [
            ("core", 0..core),
            ("stanzas", core..head - 40),
            ("mac", head - 40..head),
            ("chunks", head..end),
            ("footer", end..len),
        ];
        for (region, range) in regions {
            let mut b = o.bytes.clone();
            b[range.start + rng.below(range.len())] ^= 1 << rng.below(8);
            judge.judge(region, o, &b, &e, true);
            if region != "mac" && region != "footer" {
                mend(&mut b, o.head());
                judge.judge(&format!("{region}, mended"), o, &b, &e, false);
            }
        }

        // Cuts: at every border by turns, one byte before and behind it, and anywhere.
        let borders: Vec<usize> =
            (0..=o.chunks()).map(|i| if i == o.chunks() { end } else { o.chunk(i).start }).chain([core, len]).collect();
        let border = borders[round % borders.len()];
        for cut in [border.saturating_sub(1), border, border + 1, rng.below(len)] {
            if cut < len {
                judge.judge("cut", o, &o.bytes[..cut], &e, true);
                // The same cut with the footer put back and mended, as an attacker would.
                if cut > head {
                    let mut b = o.bytes[..cut.min(end)].to_vec();
                    b.extend_from_slice(&o.bytes[end..]);
                    if b != o.bytes {
                        mend(&mut b, o.head());
                        judge.judge("cut, footer kept", o, &b, &e, false);
                    }
                }
            }
        }

        // Bytes behind the end.
        let mut b = o.bytes.clone();
        b.extend(std::iter::repeat_n(0u8, 1 + rng.below(200)));
        judge.judge("extended", o, &b, &e, true);
        let mut b = o.bytes.clone();
        b.extend_from_slice(&o.bytes[end..]);
        judge.judge("footer twice", o, &b, &e, true);
        let mut b = o.bytes[..end].to_vec();
        b.extend_from_slice(&o.bytes[o.chunk(rng.below(o.chunks()))]);
        b.extend_from_slice(&o.bytes[end..]);
        mend(&mut b, o.head());
        judge.judge("chunk appended", o, &b, &e, false);

        // Chunks swapped, doubled, dropped, taken from elsewhere; the checksums mended.
        if o.chunks() > 2 {
            let (i, j) = (rng.below(o.chunks()), rng.below(o.chunks()));
            let splice = |order: &[usize]| {
                let mut b = o.bytes[..head].to_vec();
                for &k in order {
                    b.extend_from_slice(&o.bytes[o.chunk(k)]);
                }
                b.extend_from_slice(&o.bytes[end..]);
                mend(&mut b, o.head());
                b
            };
            let mut order: Vec<usize> = (0..o.chunks()).collect();
            if i != j {
                order.swap(i, j);
                judge.judge("chunks swapped", o, &splice(&order), &e, false);
            }
            let mut order: Vec<usize> = (0..o.chunks()).collect();
            order.insert(i, j);
            judge.judge("chunk doubled", o, &splice(&order), &e, false);
            let mut order: Vec<usize> = (0..o.chunks()).collect();
            order.remove(i);
            judge.judge("chunk dropped", o, &splice(&order), &e, false);
            let k = i.min(twin.chunks() - 2);
            if o.chunk(k).len() == twin.chunk(k).len() {
                let mut b = o.bytes.clone();
                b[o.chunk(k)].copy_from_slice(&twin.bytes[twin.chunk(k)]);
                mend(&mut b, o.head());
                judge.judge("chunk of another object", o, &b, &e, false);
            }
        }

        // The header of one object before the content of another of the same name.
        let mut b = twin.bytes[..twin.head()].to_vec();
        b.extend_from_slice(&o.bytes[head..]);
        mend(&mut b, twin.head());
        judge.judge("other header", o, &b, &e, false);

        // Header fields edited with all plain checksums mended: chunk size, frame size, salt, cluster, timeline, time.
        let fields = [
            12usize,
            15,
            17,
            18,
            21,
            22,
            24 + rng.below(32),
            56 + rng.below(16),
            72 + rng.below(8),
            80 + rng.below(4),
            88 + rng.below(8),
            98 + rng.below(5),
        ];
        let field = fields[round % fields.len()];
        let mut b = o.bytes.clone();
        b[field] = b[field].wrapping_add(1 + rng.below(254) as u8);
        mend(&mut b, o.head());
        judge.judge("header field", o, &b, &e, false);

        // A recipient removed: nobody without a key may take one away unseen.
        let stanza = 4 + o.header.stanzas[0].1.len();
        let mut b = o.bytes.clone();
        b.drain(core + 2..core + 2 + stanza);
        b[core + 1] -= 1;
        let shorter = b.len() - (len - head);
        let sum = Sha256::digest(&b[..shorter - 8]);
        b[shorter - 8..shorter].copy_from_slice(&sum[..8]);
        judge.judge("recipient removed", o, &b, &e, false);

        // Under another name, of another type, in another repository.
        let mut wrong = e;
        match round % 3 {
            0 => wrong.name = "wal/c.bgo",
            1 => wrong.object = ObjectType::BaseBackup,
            _ => wrong.repository[rng.below(16)] ^= 1,
        }
        judge.judge("object swapped", o, &o.bytes, &wrong, false);
    }
    let stated = n * 16;
    assert!(judge.made >= stated, "{} mutations made, {stated} stated", judge.made);
}

#[test]
fn a_wrong_key_opens_nothing() {
    let identity = Identity::generate().unwrap();
    let to = [Recipient::Public(identity.public())];
    let o = Object::new("wal/a.bgo", 9000, 1, 4096, Compression::Zstd, &to);
    let many = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 500 } else { 20 };
    for _ in 0..many {
        let (out, end) = open(&o.bytes, &[Identity::generate().unwrap()], &expect(&o.spec));
        assert!(out.is_empty());
        let error = end.unwrap_err();
        assert_eq!(error.kind, breakglass::error::ErrorKind::Usage, "{error}");
        assert!(error.what.contains("no key"), "{error}");
    }
}
