//! Going through a base backup's tar stream: what it says of itself, and its files one by one.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Component, Path};

use tar::EntryType;

use super::super::container::from_io;
use super::manifest::{Algorithm, PgManifest, Sum};
use crate::error::{Error, Result};

/// Largest text kept in memory from a stream (`backup_label`, `PG_VERSION`).
const MAX_TEXT: u64 = 1 << 20;
/// Largest `backup_manifest`: about 150 bytes per file, so some millions of files.
const MAX_MANIFEST: u64 = 1 << 30;

/// Sizes and checksums of the files that went by.
#[derive(Default)]
pub struct Sums(BTreeMap<String, (u64, Option<(Algorithm, String)>)>);

impl Sums {
    /// Compares with PostgreSQL's manifest: the same files, sizes, and checksums where both have one of a kind.
    pub fn compare(&self, manifest: &PgManifest, whose: &str) -> Result<()> {
        let bad = |path: &str, why: &str| Err(Error::check(format!("file {path:?} of {whose} {why}")));
        for (path, wanted) in &manifest.files {
            let Some((size, sum)) = self.0.get(path) else { return bad(path, "is missing") };
            if *size != wanted.size {
                return bad(path, &format!("has {size} bytes instead of {}", wanted.size));
            }
            if let (Some((a, got)), Some((b, expected))) = (sum, &wanted.checksum)
                && a == b
                && got != expected
            {
                return bad(path, "has another checksum than its manifest says");
            }
        }
        match self.0.keys().find(|path| !manifest.files.contains_key(*path) && *path != "backup_manifest") {
            Some(path) => bad(path, "does not stand in its manifest"),
            None => Ok(()),
        }
    }
}

/// Receives a stream's folders and files.
pub trait Sink {
    /// A folder.
    fn folder(&mut self, path: &str) -> Result<()>;
    /// A file; what is written to the result is its content.
    fn file(&mut self, path: &str) -> Result<Box<dyn Write>>;
}

/// What a stream said.
#[derive(Default)]
pub struct Scan {
    /// Content of `backup_label`.
    pub label: Option<String>,
    /// Content of `backup_manifest`.
    pub pg_manifest: Option<Vec<u8>>,
    /// First eight bytes of `global/pg_control`.
    pub system_identifier: Option<u64>,
    /// Content of `PG_VERSION`.
    pub version: Option<String>,
    /// Of every file.
    pub sums: Sums,
}

/// How files are looked at while they go by.
pub struct With<'a> {
    /// Where they go.
    pub sink: &'a mut dyn Sink,
    /// Which checksum to compute for which.
    pub manifest: &'a PgManifest,
}

impl Scan {
    /// Reads a tar stream up to its end mark. Without `with` nothing is kept, and checksums are CRC-32C.
    pub fn read(input: &mut dyn Read, mut with: Option<With<'_>>) -> Result<Self> {
        let reading = |e: io::Error| from_io(e, || "reading the base backup".into());
        let broken = |e: io::Error| {
            if e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
                return from_io(e, || "reading the base backup".into());
            }
            Error::check("the base backup is not a whole tar stream").why(e)
        };
        let mut scan = Self::default();
        let mut archive = tar::Archive::new(input);
        let mut buffer = vec![0u8; 1 << 17];
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let path = plain_path(&entry.path().map_err(broken)?)?;
            match entry.header().entry_type() {
                EntryType::Directory => {
                    if let Some(with) = &mut with
                        && !path.is_empty()
                    {
                        with.sink.folder(&path)?;
                    }
                    continue;
                }
                EntryType::Regular | EntryType::Continuous => {}
                EntryType::Symlink if path.starts_with("pg_tblspc/") => {
                    return Err(Error::refused("a base backup with a second tablespace")
                        .why(format!("{path:?} points outside the data directory"))
                        .hint("Move its tables into the default tablespace, or back the cluster up by other means."));
                }
                other => {
                    return Err(Error::check(format!("{path:?} in the base backup is of type {other:?}"))
                        .why("only files and folders belong there"));
                }
            }
            let mut kept = match path.as_str() {
                "backup_label" | "PG_VERSION" | "backup_manifest" => Some(Vec::new()),
                _ => None,
            };
            let limit = if path == "backup_manifest" { MAX_MANIFEST } else { MAX_TEXT };
            let size = entry.header().size().map_err(broken)?;
            if kept.is_some() && size > limit {
                return Err(Error::check(format!("{path:?} in the base backup has {size} bytes")));
            }
            let algorithm = match &with {
                Some(with) => with.manifest.files.get(&path).and_then(|f| f.checksum.as_ref()).map(|c| c.0),
                None => Some(Algorithm::Crc32c),
            };
            let mut sum = algorithm.map(|a| (a, Sum::new(a)));
            let mut out = match &mut with {
                Some(with) => Some(with.sink.file(&path)?),
                None => None,
            };
            let (mut done, mut head) = (0u64, Vec::new());
            loop {
                let n = match entry.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(broken(e)),
                };
                let bytes = &buffer[..n];
                done += n as u64;
                if head.len() < 8 {
                    head.extend_from_slice(&bytes[..n.min(8 - head.len())]);
                }
                if let Some((_, sum)) = &mut sum {
                    sum.update(bytes);
                }
                if let Some(kept) = &mut kept {
                    kept.extend_from_slice(bytes);
                }
                if let Some(out) = &mut out {
                    out.write_all(bytes).map_err(|e| from_io(e, || format!("writing {path:?}")))?;
                }
            }
            if let Some(mut out) = out {
                out.flush().map_err(reading)?;
            }
            if done != size {
                return Err(Error::check(format!("{path:?} in the base backup is cut short")));
            }
            match path.as_str() {
                "backup_label" => scan.label = kept.map(|k| String::from_utf8_lossy(&k).into_owned()),
                "PG_VERSION" => scan.version = kept.map(|k| String::from_utf8_lossy(&k).trim().to_string()),
                "backup_manifest" => scan.pg_manifest = kept,
                "global/pg_control" => {
                    scan.system_identifier = <[u8; 8]>::try_from(head.as_slice()).ok().map(u64::from_ne_bytes);
                }
                _ => {}
            }
            if scan.sums.0.insert(path.clone(), (done, sum.map(|(a, s)| (a, s.finish())))).is_some() {
                return Err(Error::check(format!("{path:?} stands in the base backup twice")));
            }
        }
        Ok(scan)
    }
}

/// The path of an entry as relative text; anything that could leave the folder is refused.
fn plain_path(path: &Path) -> Result<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(p) => parts.push(p.to_string_lossy().into_owned()),
            Component::CurDir => {}
            _ => {
                return Err(Error::check(format!("path {:?} in the base backup", path.display()))
                    .why("it would leave the data directory"));
            }
        }
    }
    Ok(parts.join("/"))
}

/// What `backup_label` says that the manifest does not.
pub struct Label {
    /// The label given to `pg_basebackup`.
    pub label: Option<String>,
}

impl Label {
    /// Parses it; a file without a start position is not one.
    pub fn parse(text: &str) -> Result<Self> {
        let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().to_string());
        if value("START WAL LOCATION:").is_none() {
            return Err(Error::check("the base backup's backup_label has no start position"));
        }
        Ok(Self { label: value("LABEL:").filter(|l| !l.is_empty()) })
    }
}
