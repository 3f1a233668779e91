//! Logs made byte by byte, for what one installed server cannot show: other versions, other segment sizes, records over
//! many pages, records given up. And bytes of no sense at all.

use breakglass::model::Time;
use breakglass::postgres::Lsn;
use breakglass::postgres::wal::record::rmgr;
use breakglass::postgres::wal::{
    Compression, Content, EPOCH, Layout, Reader, Record, RelFile, Stop, Tail, Version, heap,
};
use proptest::prelude::*;

const PAGE: usize = 8192;
const SYSTEM: u64 = 7_000_000_000_000_000_007;
const MAGICS: [(u16, Version); 5] = [
    (0xD106, Version::V13),
    (0xD10D, Version::V14),
    (0xD110, Version::V15),
    (0xD113, Version::V16),
    (0xD116, Version::V17),
];

/// Writes a log.
struct Builder {
    magic: u16,
    size: usize,
    base: u64,
    bytes: Vec<u8>,
    prev: u64,
}

impl Builder {
    fn new(magic: u16, size: usize) -> Self {
        Self { magic, size, base: 3 * size as u64, bytes: Vec::new(), prev: 0x28 }
    }
    fn page(&mut self, remaining: u32, overwrite: bool) {
        let at = self.bytes.len();
        let long = at.is_multiple_of(self.size);
        let flags = u16::from(remaining > 0) | u16::from(long) << 1 | u16::from(overwrite) << 3;
        self.bytes.extend(self.magic.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(1u32.to_le_bytes());
        self.bytes.extend((self.base + at as u64).to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(SYSTEM.to_le_bytes());
            self.bytes.extend((self.size as u32).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }
    fn align(&mut self) {
        while !self.bytes.len().is_multiple_of(8) {
            self.bytes.push(0);
        }
        if self.bytes.len().is_multiple_of(PAGE) {
            self.page(0, false);
        }
    }
    fn record(&self, xid: u32, rmgr: u8, info: u8, body: &[u8]) -> Vec<u8> {
        let mut head = Vec::new();
        head.extend((body.len() as u32 + 24).to_le_bytes());
        head.extend(xid.to_le_bytes());
        head.extend(self.prev.to_le_bytes());
        head.extend([info, rmgr, 0, 0]);
        head.extend(crc32c::crc32c_append(crc32c::crc32c(body), &head).to_le_bytes());
        head.extend(body);
        head
    }
    /// Appends a record; returns its position.
    fn push(&mut self, xid: u32, rmgr: u8, info: u8, body: &[u8]) -> u64 {
        self.align();
        let at = self.base + self.bytes.len() as u64;
        let record = self.record(xid, rmgr, info, body);
        self.prev = at;
        let mut rest = &record[..];
        while !rest.is_empty() {
            if self.bytes.len().is_multiple_of(PAGE) {
                self.page(rest.len() as u32, false);
            }
            let n = rest.len().min(PAGE - self.bytes.len() % PAGE);
            self.bytes.extend(&rest[..n]);
            rest = &rest[n..];
        }
        at
    }
    /// The segments, the last one filled up with zeros.
    fn segments(mut self) -> Vec<(String, Vec<u8>)> {
        let whole = self.bytes.len().next_multiple_of(self.size);
        self.bytes.resize(whole, 0);
        let (base, size) = (self.base, self.size as u64);
        let name = |i: usize| Lsn(base + i as u64 * size).segment(1, size);
        self.bytes.chunks(self.size).enumerate().map(|(i, b)| (name(i), b.to_vec())).collect()
    }
}

type Seen = (u64, u32, u8, u8, Vec<u8>, Version);

fn read(segments: &[(String, Vec<u8>)]) -> (Vec<Seen>, Stop) {
    let mut seen = Vec::new();
    let mut reader = Reader::of_system(SYSTEM);
    let mut stop = Stop::Full;
    for (i, (name, bytes)) in segments.iter().enumerate() {
        let tail = if i + 1 == segments.len() { Tail::MayEnd } else { Tail::Whole };
        stop = reader
            .segment(name, bytes, tail, |r| {
                seen.push((r.lsn.0, r.xid, r.rmgr, r.info, r.body.to_vec(), r.version));
                Ok(())
            })
            .unwrap();
    }
    (seen, stop)
}

fn record<'a>(version: Version, rmgr: u8, info: u8, body: &'a [u8]) -> Record<'a> {
    Record { lsn: Lsn(1 << 20), end: Lsn(2 << 20), timeline: 1, prev: Lsn(8), xid: 700, rmgr, info, version, body }
}

/// A body of main data alone.
fn main_data(data: &[u8]) -> Vec<u8> {
    let mut body = vec![254];
    body.extend((data.len() as u32).to_le_bytes());
    body.extend(data);
    body
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn content(version: Version, rmgr: u8, info: u8, body: &[u8]) -> Content {
    let r = record(version, rmgr, info, body);
    let mut layout = Layout::default();
    layout.read(&r).unwrap();
    Content::read(&r, &layout).unwrap()
}

#[test]
fn every_version_and_segment_size_is_read() {
    for (magic, version) in MAGICS {
        for size in [1 << 20, 2 << 20] {
            let mut b = Builder::new(magic, size);
            let mut wanted = Vec::new();
            for i in 0..260u32 {
                // From nothing to several pages; all places of a page are hit as a beginning.
                let body = main_data(&vec![i as u8; (i as usize * 7919) % 20_000]);
                let at = b.push(700 + i, rmgr::LOGICALMSG, 0, &body);
                wanted.push((at, 700 + i, rmgr::LOGICALMSG, 0, body, version));
            }
            let segments = b.segments();
            assert!(segments.len() > 1);
            let (seen, stop) = read(&segments);
            assert_eq!(seen.len(), wanted.len());
            assert!(seen == wanted);
            assert!(matches!(stop, Stop::End { .. }), "{stop:?}");
        }
    }
}

#[test]
fn a_version_not_known_is_said() {
    let mut b = Builder::new(0xD118, 1 << 20);
    b.push(700, rmgr::LOGICALMSG, 0, &main_data(b"x"));
    let segments = b.segments();
    let d = Reader::new().segment(&segments[0].0, &segments[0].1, Tail::Whole, |_| Ok(())).unwrap_err();
    assert!(d.why.contains("D118") && d.why.contains("13 to 17"), "{d:?}");
}

#[test]
fn a_record_given_up_after_a_crash_is_passed_over() {
    let mut b = Builder::new(0xD110, 1 << 20);
    b.push(700, rmgr::LOGICALMSG, 0, &main_data(&[1; 6000]));
    // The beginning of a record that fills the page, and nothing of it on the next.
    b.align();
    let prev = b.prev;
    let lost = b.record(701, rmgr::LOGICALMSG, 0, &main_data(&[2; 9000]));
    let n = PAGE - b.bytes.len() % PAGE;
    b.bytes.extend(&lost[..n]);
    b.page(0, true);
    b.prev = prev;
    b.push(702, rmgr::LOGICALMSG, 0, &main_data(b"after"));
    let (seen, _) = read(&b.segments());
    assert_eq!(seen.iter().map(|s| s.1).collect::<Vec<_>>(), [700, 702]);
}

#[test]
fn a_switch_ends_a_segment_and_the_next_goes_on() {
    let mut b = Builder::new(0xD110, 1 << 20);
    b.push(700, rmgr::LOGICALMSG, 0, &main_data(b"a"));
    b.push(0, rmgr::XLOG, 0x40, &[]);
    b.bytes.resize(1 << 20, 0);
    b.push(701, rmgr::LOGICALMSG, 0, &main_data(b"b"));
    let segments = b.segments();
    assert_eq!(segments.len(), 2);
    let (seen, _) = read(&segments);
    assert_eq!(seen.iter().map(|s| s.1).collect::<Vec<_>>(), [700, 0, 701]);
}

#[test]
fn what_differs_between_versions_is_read_by_version() {
    let at = |micros: i64| Time::from_micros(micros + EPOCH.micros());
    for (_, version) in MAGICS {
        let modern = version >= Version::V15;
        // The drop of a database changed its number.
        let drop = if modern { 0x20 } else { 0x10 };
        let body = main_data(&words(&[16400, 1, 1663]));
        assert_eq!(content(version, rmgr::DBASE, drop, &body), Content::DropDatabase { database: 16400 });
        let body = main_data(&words(&[16400, 1663, 1, 1663]));
        assert_eq!(content(version, rmgr::DBASE, 0, &body), Content::CreateDatabase { database: 16400 });

        // A commit with all it may carry; dropped statistics since 15.
        let flags = 1 | 2 | 4 | 8 | if modern { 256 } else { 0 };
        let mut data = 1_000_000i64.to_le_bytes().to_vec();
        data.extend(words(&[flags, 5, 1663, 2, 801, 802, 1, 1663, 5, 16390]));
        if modern {
            data.extend(words(&[2, 2, 5, 16390, 1, 5, 0]));
        }
        data.extend(words(&[1, 0, 0, 0, 0]));
        let Content::Commit(end) = content(version, rmgr::XACT, 0x80, &main_data(&data)) else { panic!() };
        assert_eq!((end.time, end.subxacts, end.database), (at(1_000_000), vec![801, 802], Some(5)));
        assert_eq!(end.files, [RelFile { tablespace: 1663, database: 5, file: 16390 }]);
        assert_eq!(end.dropped, if modern { vec![(5, 16390)] } else { vec![] });

        // The end of a prepared transaction names it, with its gid where that is logged.
        let mut data = 5i64.to_le_bytes().to_vec();
        data.extend(words(&[16 | 128, 777]));
        data.extend(b"two\0");
        let Content::Commit(end) = content(version, rmgr::XACT, 0xB0, &main_data(&data)) else { panic!() };
        assert_eq!((end.prepared, end.gid.as_deref()), (Some(777), Some("two")));

        // A prepare: eight bytes more since 15.
        let mut data = words(&[0x57F9_4534, 0, 777, 5]);
        data.extend(7i64.to_le_bytes());
        data.extend(words(&[10, 1, 0, 0]));
        if modern {
            data.extend(words(&[0, 0]));
        }
        data.extend(words(&[0]));
        data.extend([0, 0]);
        data.extend(4u16.to_le_bytes());
        data.extend([0; 16]);
        data.extend(b"two\0\0\0\0\0");
        data.extend(words(&[778, 0]));
        let Content::Prepare(p) = content(version, rmgr::XACT, 0x10, &main_data(&data)) else { panic!() };
        assert_eq!((p.xid, p.database, p.time, p.gid.as_str(), &p.subxacts[..]), (777, 5, at(7), "two", &[778][..]));

        // The flags of a page image moved.
        let (plain, packed) = if modern { (0x03, 0x07) } else { (0x05, 0x07) };
        for (flags, compression) in [(plain, Compression::None), (packed, Compression::Pglz)] {
            let mut body = vec![0, 0x10, 0, 0];
            body.extend(16u16.to_le_bytes());
            body.extend(8u16.to_le_bytes());
            body.push(flags);
            if compression == Compression::Pglz {
                body.extend(100u16.to_le_bytes());
            }
            body.extend(words(&[1663, 5, 16390, 9]));
            body.extend([255, 3]);
            body.extend([7; 16]);
            body.extend([1, 0, 0]);
            let r = record(version, rmgr::HEAP, 0, &body);
            let mut layout = Layout::default();
            layout.read(&r).unwrap();
            let block = layout.blocks[0];
            assert_eq!((block.compression, block.applies, block.block), (compression, true, 9), "{version:?}");
            assert_eq!((block.image(&r), layout.main(&r)), (&[7u8; 16][..], &[1u8, 0, 0][..]));
            let rows = Content::Insert { rel: RelFile { tablespace: 1663, database: 5, file: 16390 }, rows: 1 };
            assert_eq!(Content::read(&r, &layout).unwrap(), rows);
        }
    }
}

/// A segment of 30 records and a switch, with the bytes they take.
fn thirty_records() -> &'static (String, Vec<u8>, usize) {
    static ONCE: std::sync::OnceLock<(String, Vec<u8>, usize)> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| {
        let mut b = Builder::new(0xD110, 1 << 20);
        for i in 0..30u32 {
            b.push(700 + i, rmgr::LOGICALMSG, 0, &main_data(&vec![i as u8; (i as usize * 7919) % 9_000]));
        }
        b.push(0, rmgr::XLOG, 0x40, &[]);
        let used = b.bytes.len();
        let (name, bytes) = b.segments().remove(0);
        (name, bytes, used)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("BREAKGLASS_SOAK").is_some() { 200_000 } else { 1_000 }))]

    #[test]
    fn bytes_of_no_sense_are_refused_or_read_but_never_break(
        rmgr in prop_oneof![Just(rmgr::HEAP), Just(rmgr::HEAP2), Just(rmgr::XACT), Just(rmgr::STANDBY), any::<u8>()],
        info in any::<u8>(),
        version in prop::sample::select(MAGICS.map(|m| m.1).to_vec()),
        blocks in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        // Half of them well-formed enough to reach what reads the main data.
        let body = if blocks { bytes.clone() } else { main_data(&bytes) };
        let r = record(version, rmgr, info, &body);
        let mut layout = Layout::default();
        if layout.read(&r).is_ok() {
            let _ = Content::read(&r, &layout);
            let _ = heap::inserted(&r, &layout);
            let _ = heap::deleted(&r, &layout);
            let _ = heap::in_place(&r, &layout);
            if let Some(u) = heap::Updated::read(&r, &layout) {
                let _ = u.row(Some(&bytes));
            }
            for b in &layout.blocks {
                let _ = heap::image_kind(&r, b);
                let _ = heap::image_rows(&r, b);
            }
        }
        for method in [Compression::Pglz, Compression::Lz4, Compression::Zstd] {
            if let Some(out) = breakglass::postgres::wal::compress::decompress(method, &bytes, 8192) {
                prop_assert_eq!(out.len(), 8192);
            }
        }
    }

    #[test]
    fn a_log_with_any_bytes_changed_ends_in_an_error_or_whole(
        at in 0usize..200_000, byte in any::<u8>(), len in 1usize..30,
    ) {
        let (name, good, used) = thirty_records();
        let mut bytes = good.clone();
        let from = at % used;
        let to = (from + len).min(*used);
        bytes[from..to].fill(byte);
        let mut n = 0;
        let whole = Reader::new().segment(name, &bytes, Tail::Whole, |_| { n += 1; Ok(()) });
        prop_assert!(whole.is_err() || n == 31, "{} of 31 in silence", n);
    }
}
