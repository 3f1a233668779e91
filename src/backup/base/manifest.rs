//! PostgreSQL's `backup_manifest`: which files a base backup has, their sizes and checksums, and the log it needs.

use std::collections::BTreeMap;

use crc32c::crc32c_append;
use serde::Deserialize;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::super::container::hex;
use super::super::wal::parse_lsn;
use crate::error::{Error, Result};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawFile {
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files", default)]
    files: Vec<RawFile>,
    #[serde(rename = "WAL-Ranges", default)]
    ranges: Vec<RawRange>,
}

/// A file as the manifest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgFile {
    /// Bytes.
    pub size: u64,
    /// Algorithm and checksum; none when the backup was made without.
    pub checksum: Option<(Algorithm, String)>,
}

/// The log positions a backup needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgRange {
    /// Timeline at its end.
    pub timeline: u32,
    /// First position.
    pub start: String,
    /// Last position.
    pub end: String,
}

/// A parsed `backup_manifest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgManifest {
    /// By path relative to the data directory.
    pub files: BTreeMap<String, PgFile>,
    /// The log needed.
    pub wal: Option<PgRange>,
    /// The cluster; only PostgreSQL 17 and later say it.
    pub system_identifier: Option<u64>,
}

/// Checksum algorithms of `pg_basebackup --manifest-checksums`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The default.
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl PgManifest {
    /// Parses it and checks its own checksum.
    ///
    /// # Errors
    /// A check failure when it is damaged or of a form this program does not know.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::check("the backup_manifest cannot be trusted").why(why);
        // Its last line is `"Manifest-Checksum": "<SHA-256 of everything before that line>"}`.
        let text = std::str::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
        let at = text
            .trim_end()
            .rfind('\n')
            .map(|i| i + 1)
            .filter(|&i| text[i..].starts_with("\"Manifest-Checksum\""))
            .ok_or_else(|| bad("it has no checksum of its own".into()))?;
        let said = text[at..].split('"').nth(3).unwrap_or_default();
        if hex(&Sha256::digest(&bytes[..at])) != said {
            return Err(bad("its own checksum differs".into()));
        }
        let raw: Raw = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
        if !(1..=2).contains(&raw.version) {
            return Err(bad(format!("it is of version {}", raw.version)));
        }
        let mut files = BTreeMap::new();
        for file in raw.files {
            let path = match (file.path, file.encoded_path) {
                (Some(path), None) => path,
                (None, Some(encoded)) => decoded(&encoded).ok_or_else(|| bad(format!("path {encoded:?}")))?,
                _ => return Err(bad("a file without a path".into())),
            };
            let checksum = match (file.algorithm.as_deref(), file.checksum) {
                (None, None) => None,
                (Some(name), Some(sum)) => {
                    let algorithm = match name {
                        "CRC32C" => Algorithm::Crc32c,
                        "SHA224" => Algorithm::Sha224,
                        "SHA256" => Algorithm::Sha256,
                        "SHA384" => Algorithm::Sha384,
                        "SHA512" => Algorithm::Sha512,
                        _ => return Err(bad(format!("unknown checksum {name:?}"))),
                    };
                    Some((algorithm, sum))
                }
                _ => return Err(bad(format!("half a checksum for {path:?}"))),
            };
            if files.insert(path.clone(), PgFile { size: file.size, checksum }).is_some() {
                return Err(bad(format!("{path:?} stands in it twice")));
            }
        }
        for range in &raw.ranges {
            if parse_lsn(&range.start).is_none() || parse_lsn(&range.end).is_none() {
                return Err(bad(format!("log range {:?} to {:?}", range.start, range.end)));
            }
        }
        let wal =
            match (raw.ranges.iter().min_by_key(|r| parse_lsn(&r.start)), raw.ranges.iter().max_by_key(|r| r.timeline))
            {
                (Some(first), Some(last)) => {
                    Some(PgRange { timeline: last.timeline, start: first.start.clone(), end: last.end.clone() })
                }
                _ => None,
            };
        Ok(Self { files, wal, system_identifier: raw.system_identifier })
    }
}

/// Paths that are not UTF-8 are in hexadecimal; they are kept as their lossy text, as in the tar scan.
fn decoded(encoded: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> =
        encoded.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    Some(String::from_utf8_lossy(&bytes?).into_owned())
}

/// A checksum being computed.
#[derive(Clone)]
pub enum Sum {
    /// CRC-32C.
    Crc32c(u32),
    /// SHA-224.
    Sha224(Sha224),
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-384.
    Sha384(Sha384),
    /// SHA-512.
    Sha512(Sha512),
}

impl Sum {
    /// Begins one.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32c => Self::Crc32c(0),
            Algorithm::Sha224 => Self::Sha224(Sha224::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha384 => Self::Sha384(Sha384::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32c(s) => *s = crc32c_append(*s, bytes),
            Self::Sha224(s) => s.update(bytes),
            Self::Sha256(s) => s.update(bytes),
            Self::Sha384(s) => s.update(bytes),
            Self::Sha512(s) => s.update(bytes),
        }
    }
    /// As the manifest writes it.
    pub fn finish(self) -> String {
        match self {
            // PostgreSQL writes the four bytes as they lie in memory.
            Self::Crc32c(s) => hex(&s.to_ne_bytes()),
            Self::Sha224(s) => hex(&s.finalize()),
            Self::Sha256(s) => hex(&s.finalize()),
            Self::Sha384(s) => hex(&s.finalize()),
            Self::Sha512(s) => hex(&s.finalize()),
        }
    }
}
