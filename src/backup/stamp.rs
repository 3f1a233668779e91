//! What tells, without reading an object, that nobody wrote, replaced or touched it since.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Of a file the time its status changed last, which nobody sets back as one does with the time of its content; of an object
/// elsewhere its entity tag. Another stamp says that it *may* be another object, the same one that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Stamp(u64);

impl Stamp {
    /// Of a file.
    pub fn of_file(meta: &Metadata) -> Self {
        // Nanoseconds, as finely as the clock of the file system ticks.
        Self(meta.ctime().cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec().cast_unsigned()))
    }

    /// Of an object elsewhere.
    pub fn of_tag(tag: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(tag.as_bytes()).into();
        Self(digest.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte)))
    }
}

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> Self {
        format!("{:016x}", stamp.0)
    }
}

impl TryFrom<String> for Stamp {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}
