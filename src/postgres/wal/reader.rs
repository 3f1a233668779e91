//! From the bytes of segments to whole records: headers, continuations, checksums, and where the log ends.

use super::Version;
use super::page::{PAGE_BYTES, PageHeader};
use super::record::{HEADER, Header, Record, checksum_ok, rmgr};
use crate::error::Error;
use crate::postgres::Lsn;

/// What may follow the records of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The segment is finished, as every archived one is: anything unreadable in it is damage.
    Whole,
    /// The log may end in it, as in the newest file of `pg_wal` or a `.partial` one.
    MayEnd,
}

/// How reading a segment ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The segment was read to its end (or to its switch); the log goes on in the next.
    Full,
    /// The log ends here.
    End {
        /// Where the next record would begin.
        at: Lsn,
        /// How that is seen, in words.
        why: String,
    },
}

/// A place in the log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Name of the segment.
    pub segment: String,
    /// Position of the record or page that is wrong.
    pub lsn: Lsn,
    /// What is wrong with it, in words.
    pub why: String,
}

impl From<Damage> for Error {
    fn from(d: Damage) -> Self {
        Self::check(format!("WAL segment {:?} cannot be read at {}", d.segment, d.lsn)).why(d.why)
    }
}

/// Reads segments one after the other and hands out records. Keeps what crosses from one segment to the next.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    segment_bytes: u64,
    system: Option<u64>,
    version: Option<Version>,
    timeline: u32,
    /// Position the next segment must begin at.
    next: Option<u64>,
    /// Where the last record began.
    prev: Option<Lsn>,
    /// A record whose end has not come yet.
    partial: Vec<u8>,
    partial_at: (Lsn, u32),
    /// Bytes still to skip of a record that began before the first segment.
    skip: u32,
}

struct Segment<'a> {
    name: &'a str,
    bytes: &'a [u8],
    base: u64,
    tail: Tail,
}

impl Segment<'_> {
    fn damage(&self, at: u64, why: impl Into<String>) -> Damage {
        Damage { segment: self.name.to_string(), lsn: Lsn(at), why: why.into() }
    }
}

impl Reader {
    /// A reader that takes segment size and system identifier from the first segment.
    pub fn new() -> Self {
        Self::default()
    }
    /// A reader for the log of one cluster.
    pub fn of_system(system_identifier: u64) -> Self {
        Self { system: Some(system_identifier), ..Self::default() }
    }
    /// Version of the log; none before the first segment.
    pub fn version(&self) -> Option<Version> {
        self.version
    }
    /// Size of a segment in bytes; 0 before the first segment.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }
    /// System identifier of the cluster.
    pub fn system_identifier(&self) -> Option<u64> {
        self.system
    }
    /// Timeline of the last page read.
    pub fn timeline(&self) -> u32 {
        self.timeline
    }
    /// Where a record begins whose end is not in the segments read so far.
    pub fn pending(&self) -> Option<Lsn> {
        (!self.partial.is_empty()).then_some(self.partial_at.0)
    }

    /// Reads one segment: `name` as its file is called, `bytes` all of it. `each` gets every whole record whose checksum is
    /// right, in order; a reason it returns is reported as damage of that record. The first segment may begin in the
    /// middle of a record, which is skipped; each further one must follow the one before.
    ///
    /// # Errors
    /// The bytes cannot be the log that belongs here: wrong name, size, cluster or timeline, a page header, length,
    /// order or checksum that does not fit, or an end where none may be.
    pub fn segment<F>(&mut self, name: &str, bytes: &[u8], tail: Tail, mut each: F) -> Result<Stop, Damage>
    where
        F: FnMut(&Record<'_>) -> Result<(), String>,
    {
        let stem = name.split('.').next().unwrap_or(name);
        // Until the header says how large a segment is, its file does.
        let guess = if self.segment_bytes == 0 { bytes.len() as u64 } else { self.segment_bytes };
        let base = self.next.or_else(|| Lsn::of_segment(stem, guess).map(|(_, l)| l.0)).unwrap_or(0);
        let mut it = Segment { name, bytes, base, tail };
        let header = match PageHeader::read(bytes) {
            Ok(h) => h,
            Err(None) => return self.ends(&it, it.base, "the segment was never written".into()),
            Err(Some(why)) => return self.ends(&it, it.base, why),
        };
        let Some((system, size)) = header.long else {
            return Err(it.damage(it.base, "its first page lacks the header of a segment's first page"));
        };
        let size = u64::from(size);
        if !size.is_power_of_two() || !(1 << 20..=1 << 30).contains(&size) {
            return Err(it.damage(it.base, format!("its header says a segment has {size} bytes")));
        }
        if self.segment_bytes != 0 && self.segment_bytes != size {
            return Err(it.damage(it.base, format!("its segments have {size} bytes, not {}", self.segment_bytes)));
        }
        let Some((named_timeline, start)) = Lsn::of_segment(stem, size) else {
            return Err(it.damage(it.base, "this is not the name of a segment"));
        };
        it.base = start.0;
        if let Some(next) = self.next.filter(|n| *n != start.0) {
            let wanted = Lsn(next).segment(named_timeline, size);
            return Err(it.damage(next, format!("segment {wanted:?} was to follow here")));
        }
        if let Some(known) = self.system.filter(|s| *s != system) {
            return Err(it.damage(start.0, format!("it is of cluster {system}, not {known}")));
        }
        if header.timeline > named_timeline {
            let why = format!("its first page is of timeline {}, its name says {named_timeline}", header.timeline);
            return Err(it.damage(start.0, why));
        }
        if bytes.len() as u64 > size {
            return Err(it.damage(start.0 + size, format!("it has {} bytes, a segment has {size}", bytes.len())));
        }
        self.segment_bytes = size;
        self.system = Some(system);
        let stop = self.pages(&it, named_timeline, &mut each)?;
        if stop == Stop::Full {
            self.next = Some(start.0 + size);
        }
        Ok(stop)
    }

    fn pages<F>(&mut self, it: &Segment<'_>, named_timeline: u32, each: &mut F) -> Result<Stop, Damage>
    where
        F: FnMut(&Record<'_>) -> Result<(), String>,
    {
        let size = usize::try_from(self.segment_bytes).unwrap_or(usize::MAX);
        let mut at = 0usize;
        while at < size {
            let page_at = at - at % PAGE_BYTES;
            let page_end = page_at + PAGE_BYTES;
            let Some(page) = it.bytes.get(page_at..page_end) else {
                let why = format!("the file is cut off: it has {} of {size} bytes", it.bytes.len());
                return self.ends(it, it.base + page_at as u64, why);
            };
            if at == page_at {
                match self.page_begin(it, page, page_at, named_timeline, each)? {
                    Begun::At(next) => at = next,
                    Begun::Stop(stop) => return Ok(stop),
                }
                continue;
            }
            let lsn = Lsn(it.base + at as u64);
            let Some(rest) = page.get(at - page_at..) else { break };
            let Some(length) = super::bytes::u32_at(rest, 0) else { break };
            if length == 0 {
                return self.ends(it, lsn.0, "no record was written here".into());
            }
            if let (Some(header), Some(version)) = (Header::read(rest), self.version) {
                if let Some(why) = header.wrong(self.prev, lsn, version) {
                    return self.ends(it, lsn.0, why);
                }
                if let Some(whole) = rest.get(..length as usize) {
                    if !checksum_ok(whole, header.crc) {
                        return self.ends(it, lsn.0, "the record's checksum does not match".into());
                    }
                    at = align8(at + length as usize);
                    let end = Lsn(it.base + at as u64);
                    if self.emit(it, &Place { lsn, end, timeline: self.timeline }, header, whole, each)? {
                        return Ok(Stop::Full);
                    }
                    continue;
                }
            } else if (length as usize) < HEADER || length > super::record::LONGEST {
                return self.ends(it, lsn.0, format!("the record's length is {length}"));
            }
            // It goes on on the next page.
            self.partial.clear();
            self.partial.extend_from_slice(rest);
            self.partial_at = (lsn, self.timeline);
            at = page_end;
        }
        Ok(Stop::Full)
    }

    /// The header of a page and the continuation after it.
    fn page_begin<F>(
        &mut self,
        it: &Segment<'_>,
        page: &[u8],
        page_at: usize,
        named_timeline: u32,
        each: &mut F,
    ) -> Result<Begun, Damage>
    where
        F: FnMut(&Record<'_>) -> Result<(), String>,
    {
        let here = it.base + page_at as u64;
        let stop = |s: Result<Stop, Damage>| s.map(Begun::Stop);
        let header = match PageHeader::read(page) {
            Ok(h) => h,
            Err(None) => return stop(self.ends(it, here, "the page was never written".into())),
            Err(Some(why)) => return stop(self.ends(it, here, why)),
        };
        if header.address.0 != here {
            return stop(self.ends(it, here, format!("the page says it is {}", header.address)));
        }
        if self.version.is_some_and(|v| v != header.version) {
            return stop(self.ends(it, here, format!("the page is of PostgreSQL {}", header.version.major())));
        }
        if header.timeline < self.timeline || header.timeline > named_timeline {
            let why = format!("the page is of timeline {}, after {}", header.timeline, self.timeline);
            return stop(self.ends(it, here, why));
        }
        if header.long.is_some() != (page_at == 0) {
            return stop(self.ends(it, here, "the page's header is of the wrong kind".into()));
        }
        self.version = Some(header.version);
        self.timeline = header.timeline;
        let begin = header.bytes();
        let space = PAGE_BYTES - begin;
        let remaining = header.remaining as usize;
        let after = |n: usize| page_at + begin + align8(n);
        if self.partial.is_empty() {
            let first = self.prev.is_none() && (self.next.is_none() || self.skip > 0);
            if !header.continues {
                if self.skip > 0 && !header.overwrites {
                    return stop(self.ends(it, here, "the record before it is not continued".into()));
                }
                self.skip = 0;
                return Ok(Begun::At(after(0)));
            }
            // Only at the very beginning: a record that began before it.
            let expected = if page_at == 0 && self.next.is_none() { header.remaining } else { self.skip };
            if !first || header.remaining != expected {
                return stop(self.ends(it, here, "the page continues a record that is not there".into()));
            }
            self.skip = header.remaining.saturating_sub(space as u32);
            return Ok(Begun::At(if remaining > space { page_at + PAGE_BYTES } else { after(remaining) }));
        }
        if header.overwrites {
            // The server crashed while that record was written, and went on here.
            self.partial.clear();
            return Ok(Begun::At(after(0)));
        }
        let (lsn, timeline) = self.partial_at;
        let total = super::bytes::u32_at(&self.partial, 0).unwrap_or(0) as usize;
        if !header.continues || self.partial.len() + remaining != total {
            let why = format!("the record at {lsn} is not continued here ({} of {total} bytes)", self.partial.len());
            return stop(self.ends(it, lsn.0, why));
        }
        let taken = remaining.min(space);
        self.partial.extend_from_slice(page.get(begin..begin + taken).unwrap_or_default());
        if remaining > space {
            return Ok(Begun::At(page_at + PAGE_BYTES));
        }
        let whole = std::mem::take(&mut self.partial);
        let at = after(remaining);
        let place = Place { lsn, end: Lsn(it.base + at as u64), timeline };
        let result = self.finish_partial(it, &place, &whole, each);
        self.partial = whole;
        self.partial.clear();
        Ok(match result? {
            Finished::Goes => Begun::At(at),
            Finished::Stop(s) => Begun::Stop(s),
        })
    }

    fn finish_partial<F>(
        &mut self,
        it: &Segment<'_>,
        place: &Place,
        whole: &[u8],
        each: &mut F,
    ) -> Result<Finished, Damage>
    where
        F: FnMut(&Record<'_>) -> Result<(), String>,
    {
        let lsn = place.lsn;
        let (Some(header), Some(version)) = (Header::read(whole), self.version) else {
            return self.ends(it, lsn.0, "the record's header is cut off".into()).map(Finished::Stop);
        };
        if let Some(why) = header.wrong(self.prev, lsn, version) {
            return self.ends(it, lsn.0, why).map(Finished::Stop);
        }
        if !checksum_ok(whole, header.crc) {
            return self.ends(it, lsn.0, "the record's checksum does not match".into()).map(Finished::Stop);
        }
        let switched = self.emit(it, place, header, whole, each)?;
        Ok(if switched { Finished::Stop(Stop::Full) } else { Finished::Goes })
    }

    /// Hands out a record; true when the rest of the segment is void.
    fn emit<F>(
        &mut self,
        it: &Segment<'_>,
        place: &Place,
        header: Header,
        whole: &[u8],
        each: &mut F,
    ) -> Result<bool, Damage>
    where
        F: FnMut(&Record<'_>) -> Result<(), String>,
    {
        let Header { prev, xid, rmgr, info, .. } = header;
        let Place { lsn, end, timeline } = *place;
        let version = self.version.unwrap_or(Version::V15);
        let body = whole.get(HEADER..).unwrap_or_default();
        let record = Record { lsn, end, timeline, prev, xid, rmgr, info, version, body };
        self.prev = Some(lsn);
        each(&record).map_err(|why| it.damage(lsn.0, why))?;
        Ok(rmgr == rmgr::XLOG && info & 0xF0 == 0x40)
    }

    /// Something unreadable at `at`: the end of the log where one may be, else damage. More log after it in the same
    /// segment makes it damage in any case.
    fn ends(&self, it: &Segment<'_>, at: u64, why: String) -> Result<Stop, Damage> {
        if it.tail == Tail::Whole {
            return Err(it.damage(at, why));
        }
        let first = (at.saturating_sub(it.base) as usize / PAGE_BYTES) + 1;
        for (number, page) in it.bytes.chunks_exact(PAGE_BYTES).enumerate().skip(first) {
            let address = it.base + (number * PAGE_BYTES) as u64;
            if PageHeader::read(page).is_ok_and(|h| h.address.0 == address) {
                return Err(it.damage(at, format!("{why}; but the log goes on at {}", Lsn(address))));
            }
        }
        Ok(Stop::End { at: Lsn(at), why })
    }
}

struct Place {
    lsn: Lsn,
    end: Lsn,
    timeline: u32,
}

enum Begun {
    At(usize),
    Stop(Stop),
}

enum Finished {
    Goes,
    Stop(Stop),
}

fn align8(n: usize) -> usize {
    (n + 7) & !7
}
