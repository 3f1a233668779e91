//! Names of the files a PostgreSQL server archives, and the arithmetic between segments and LSNs.

use std::fmt;

use super::super::repository::SUFFIX;
use crate::error::{Error, Result};

/// PostgreSQL's default segment size in bytes.
pub const DEFAULT_SEGMENT_SIZE: u32 = 16 << 20;

/// A WAL segment: timeline and the two halves of its number as they stand in the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// Timeline.
    pub timeline: u32,
    /// High part ("log").
    pub log: u32,
    /// Low part.
    pub seg: u32,
}

impl Segment {
    /// Parses 24 hexadecimal digits.
    pub fn parse(name: &str) -> Option<Self> {
        if name.len() != 24 {
            return None;
        }
        Some(Self { timeline: hex8(name.get(..8)?)?, log: hex8(name.get(8..16)?)?, seg: hex8(name.get(16..)?)? })
    }
    /// The segment of `timeline` that holds `lsn`.
    pub fn at(timeline: u32, lsn: u64, segment_size: u32) -> Self {
        Self::from_number(timeline, lsn / u64::from(segment_size), segment_size)
    }
    /// From the running number of a segment.
    pub fn from_number(timeline: u32, number: u64, segment_size: u32) -> Self {
        let per_log = (1u64 << 32) / u64::from(segment_size);
        Self { timeline, log: (number / per_log) as u32, seg: (number % per_log) as u32 }
    }
    /// The running number, the same on every timeline.
    pub fn number(self, segment_size: u32) -> u64 {
        u64::from(self.log) * ((1u64 << 32) / u64::from(segment_size)) + u64::from(self.seg)
    }
    /// The first LSN in it.
    pub fn start_lsn(self, segment_size: u32) -> u64 {
        self.number(segment_size) * u64::from(segment_size)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.log, self.seg)
    }
}

/// A file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalName {
    /// A whole segment.
    Segment(Segment),
    /// The last segment of a timeline, archived at a promotion.
    Partial(Segment),
    /// The label of a base backup, with its offset in the segment.
    Backup(Segment, u32),
    /// The history of a timeline.
    History(u32),
}

impl WalName {
    /// Parses the name of a file in `pg_wal`.
    ///
    /// # Errors
    /// A usage failure for any other name.
    pub fn parse(name: &str) -> Result<Self> {
        let parsed = match name.split_once('.') {
            None => Segment::parse(name).map(Self::Segment),
            Some((base, "partial")) => Segment::parse(base).map(Self::Partial),
            Some((base, "history")) => (base.len() == 8).then(|| hex8(base)).flatten().map(Self::History),
            Some((base, rest)) => rest
                .strip_suffix(".backup")
                .filter(|offset| offset.len() == 8)
                .and_then(hex8)
                .and_then(|offset| Segment::parse(base).map(|s| Self::Backup(s, offset))),
        };
        parsed.ok_or_else(|| {
            Error::usage(format!("{name:?} is not the name of a WAL file")).why(
                "expected 24 hexadecimal digits, optionally with .partial or .XXXXXXXX.backup, or XXXXXXXX.history",
            )
        })
    }
    /// Name of its object in the repository.
    pub fn object(&self) -> String {
        match self {
            Self::History(_) => format!("wal/history/{self}{SUFFIX}"),
            Self::Segment(s) | Self::Partial(s) | Self::Backup(s, _) => {
                format!("{}{:08X}/{self}{SUFFIX}", timeline_folder(s.timeline), s.log)
            }
        }
    }
    /// From the name of an object.
    pub fn from_object(object: &str) -> Option<Self> {
        Self::parse(object.rsplit('/').next()?.strip_suffix(SUFFIX)?).ok()
    }
    /// Its timeline.
    pub fn timeline(&self) -> u32 {
        match self {
            Self::History(t) => *t,
            Self::Segment(s) | Self::Partial(s) | Self::Backup(s, _) => s.timeline,
        }
    }
}

impl fmt::Display for WalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(s) => s.fmt(f),
            Self::Partial(s) => write!(f, "{s}.partial"),
            Self::Backup(s, offset) => write!(f, "{s}.{offset:08X}.backup"),
            Self::History(t) => write!(f, "{t:08X}.history"),
        }
    }
}

/// Folder of a timeline's segments in the repository, with its final slash.
pub fn timeline_folder(timeline: u32) -> String {
    format!("wal/{timeline:08X}/")
}

fn hex8(text: &str) -> Option<u32> {
    // PostgreSQL writes upper case only; accepting lower case would give one file two names.
    let ok = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if ok { u32::from_str_radix(text, 16).ok() } else { None }
}

/// `0/5A2F118` as a number.
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.trim().split_once('/')?;
    // `from_str_radix` alone would take a sign.
    let ok = |t: &str| (1..=8).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_hexdigit());
    let part = |t: &str| ok(t).then(|| u64::from_str_radix(t, 16).ok()).flatten();
    Some(part(high)? << 32 | part(low)?)
}

/// A number as `0/5A2F118`.
pub fn format_lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

/// A word for `/bin/sh` inside a PostgreSQL command setting, where `%` is special.
pub(crate) fn quoted_word(text: &str) -> Result<String> {
    if text.contains(['\n', '\r', '\0']) {
        return Err(Error::usage(format!("{text:?} cannot stand in a command")));
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''").replace('%', "%%")))
}
