//! Positions in the write-ahead log, and the names of its segment files.

use std::fmt;
use std::str::FromStr;

/// A position in the log: bytes from its beginning. Text form `0/5A2F118`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Name of the segment file that holds this position on `timeline`, for segments of `segment_bytes`.
    pub fn segment(self, timeline: u32, segment_bytes: u64) -> String {
        let size = segment_bytes.max(1);
        let number = self.0 / size;
        let per_log = (0x1_0000_0000u64 / size).max(1);
        format!("{timeline:08X}{:08X}{:08X}", number / per_log, number % per_log)
    }
    /// Position of the first byte of a segment file, with its timeline; none when it is not a segment's name.
    pub fn of_segment(name: &str, segment_bytes: u64) -> Option<(u32, Self)> {
        if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let part = |range| name.get(range).and_then(|t| u64::from_str_radix(t, 16).ok());
        let timeline = u32::try_from(part(0..8)?).ok()?;
        let per_log = (0x1_0000_0000u64 / segment_bytes.max(1)).max(1);
        let number = part(8..16)?.checked_mul(per_log)?.checked_add(part(16..24)?)?;
        Some((timeline, Self(number.checked_mul(segment_bytes)?)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('/')
            .and_then(|(high, low)| {
                let high = u32::from_str_radix(high, 16).ok()?;
                let low = u32::from_str_radix(low, 16).ok()?;
                Some(Self(u64::from(high) << 32 | u64::from(low)))
            })
            .ok_or_else(|| format!("{text:?} is not a log position such as 0/5A2F118"))
    }
}
