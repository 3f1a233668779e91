//! `wal archive`: one file of `pg_wal` into the repository, durable before it returns. Needs no secret.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::super::container::writer::content_tag;
use super::super::container::{ObjectType, Spec, Stored, Writer, check_stored, from_io};
use super::super::repository::{Repository, now, of_object};
use super::super::store::{Access, Committed, Existing};
use super::name::{Segment, WalName, format_lsn, quoted_word};
use crate::error::{Context, Error, Result};

/// What archiving did. All three mean that the file is in the repository and durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archived {
    /// It was not there before.
    Stored,
    /// The same content was there.
    AlreadyThere,
    /// A damaged object of that name was there and was replaced.
    Repaired,
}

/// History and `.backup` files are small texts; a larger one is something else.
const MAX_TEXT: u64 = 1 << 20;

/// Archives `path` under `name` (its own file name when not given) into the repository at `url`, an absolute one.
///
/// # Errors
/// Refused when other content is there under the name, or the segment is of another cluster; a check failure when
/// the file is not a WAL segment. Every error means: not archived, keep the file.
pub fn archive(url: &str, path: &Path, name: Option<&str>) -> Result<Archived> {
    let repository = Repository::open_absolute(url)?;
    let name = match name {
        Some(name) => name.to_string(),
        None => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    archive_into(&repository, path, &WalName::parse(&name)?)
}

/// As [`archive`], into an opened repository.
pub fn archive_into(repository: &Repository, path: &Path, name: &WalName) -> Result<Archived> {
    tagged(repository, path, name).map(|(done, _)| done)
}

/// As [`archive_into`], with the content tag of the object as it is stored now.
pub(super) fn tagged(repository: &Repository, path: &Path, name: &WalName) -> Result<(Archived, [u8; 32])> {
    let shown = path.display().to_string();
    let mut file = File::open(path).target(|| format!("opening {shown:?}"))?;
    let size = file.metadata().target(|| format!("looking at {shown:?}"))?.len();
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(LONG_HEADER as u64).read_to_end(&mut head).target(|| format!("reading {shown:?}"))?;
    let object_type = match name {
        WalName::Segment(segment) | WalName::Partial(segment) => {
            let header = SegmentHeader::parse(&head, &shown)?;
            header.check(segment, size, &shown)?;
            repository.bind_cluster(header.system_identifier, Some(header.segment_size))?;
            ObjectType::WalSegment
        }
        WalName::History(_) | WalName::Backup(..) if size > MAX_TEXT => {
            return Err(Error::check(format!("{shown:?} has {size} bytes")).why("such a file is a small text"));
        }
        WalName::History(_) => ObjectType::WalHistory,
        WalName::Backup(..) => ObjectType::WalBackup,
    };
    let object = name.object();
    let mut existing = Existing::Keep;
    if repository.store().size(&object)?.is_some() {
        match compare(repository, path, &object, object_type)? {
            Some(done) => return Ok(done),
            // Rot in the archive while the good file is still at hand: this is the moment to mend it.
            None => existing = Existing::Replace,
        }
    }
    let mut spec = Spec::new(object_type, repository.id(), &object, now());
    spec.timeline = name.timeline();
    spec.system_identifier = repository.cluster()?.map_or(0, |c| c.system_identifier);
    if size < 1 << 16 {
        (spec.chunk_size, spec.frame_size) = (1 << 16, 1 << 16);
    }
    let upload = repository.store().create(&object, Access::Group)?;
    let mut writer = Writer::new(upload, &spec, &[repository.recipient()])?;
    let writing = |e: io::Error| from_io(e, || format!("archiving {shown:?}"));
    writer.write_all(&head).map_err(writing)?;
    io::copy(&mut file, &mut writer).map_err(writing)?;
    let (upload, summary) = writer.finish()?;
    if summary.plain_len != size {
        return Err(Error::target(format!("{shown:?} changed while it was archived")));
    }
    match upload.commit(existing)? {
        Committed::Stored if existing == Existing::Replace => Ok((Archived::Repaired, summary.content_tag)),
        Committed::Stored => Ok((Archived::Stored, summary.content_tag)),
        // Somebody else archived it meanwhile.
        Committed::Kept => compare(repository, path, &object, object_type)?
            .ok_or_else(|| Error::check(format!("object {object:?} was stored by another process and is damaged"))),
    }
}

/// An object as it is stored, when its plain checksum is right and it is what it should be; `None` when it is damaged or not there.
pub(super) fn undamaged(repository: &Repository, object: &str, kind: ObjectType) -> Result<Option<Stored>> {
    let Some(input) = repository.store().open(object)? else { return Ok(None) };
    let stored = match check_stored(input) {
        Ok(stored) => stored,
        Err(e) if e.kind == crate::error::ErrorKind::Check => return Ok(None),
        Err(e) => return Err(of_object(e, object)),
    };
    let spec = &stored.header.spec;
    let right = spec.object == kind && spec.name == object && spec.repository == repository.id();
    Ok(right.then_some(stored))
}

/// Compares a file with the object of its name, without a key: by the content tag in the object's footer, after the
/// object's plain checksum was found right. `None` when the object is damaged.
fn compare(
    repository: &Repository,
    path: &Path,
    object: &str,
    kind: ObjectType,
) -> Result<Option<(Archived, [u8; 32])>> {
    let Some(stored) = undamaged(repository, object, kind)? else { return Ok(None) };
    let plain = digest(path).target(|| format!("reading {:?}", path.display()))?;
    if content_tag(&stored.header, &plain)? != stored.content_tag {
        return Err(Error::refused(format!("archiving {:?}", path.display()))
            .why(format!("the repository holds other content as {object:?}"))
            .hint("Two servers are archiving into one repository, or this one was restored without a new timeline.")
            .hint("Find out which server is the right one, and give the other one a repository of its own."));
    }
    // The process that stored it may have died before it was durable.
    repository.store().settle(object)?;
    Ok(Some((Archived::AlreadyThere, stored.content_tag)))
}

fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let (mut hash, mut file, mut buffer) = (Sha256::new(), File::open(path)?, vec![0u8; 1 << 17]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Bytes of PostgreSQL's long page header (`XLogLongPageHeaderData`).
const LONG_HEADER: usize = 40;
/// `XLP_LONG_HEADER` of `xlp_info`.
const XLP_LONG_HEADER: u16 = 0x0002;

/// What the first page of a segment says (PostgreSQL's `access/xlog_internal.h`; byte order of this machine).
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentHeader {
    timeline: u32,
    page_address: u64,
    pub system_identifier: u64,
    pub segment_size: u32,
}

impl SegmentHeader {
    pub(crate) fn parse(head: &[u8], shown: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::check(format!("{shown:?} is not a WAL segment"))
                .why(why)
                .hint("The file is damaged, or the path is wrong; it was not archived and the server keeps it.")
        };
        if head.len() < LONG_HEADER {
            return Err(bad(format!("it has only {} bytes", head.len())));
        }
        let u16_at = |i: usize| u16::from_ne_bytes([head[i], head[i + 1]]);
        let u32_at = |i: usize| u32::from_ne_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let u64_at = |i: usize| {
            let mut b = [0u8; 8];
            b.copy_from_slice(&head[i..i + 8]);
            u64::from_ne_bytes(b)
        };
        let (magic, info) = (u16_at(0), u16_at(2));
        // 0xD0xx and 0xD1xx cover every release so far; the low byte changes with each.
        if !matches!(magic >> 8, 0xD0 | 0xD1) {
            return Err(bad(format!("its magic number is {magic:04X}")));
        }
        if info & XLP_LONG_HEADER == 0 {
            return Err(bad("its first page has no long header".into()));
        }
        Ok(Self {
            timeline: u32_at(4),
            page_address: u64_at(8),
            system_identifier: u64_at(24),
            segment_size: u32_at(32),
        })
    }

    fn check(&self, segment: &Segment, size: u64, shown: &str) -> Result<()> {
        let bad = |why: String| Error::check(format!("{shown:?} is not the segment its name says")).why(why);
        if !self.segment_size.is_power_of_two() || !(1 << 20..=1 << 30).contains(&self.segment_size) {
            return Err(bad(format!("a segment size of {} bytes", self.segment_size)));
        }
        if size != u64::from(self.segment_size) {
            return Err(bad(format!("it has {size} bytes instead of {}", self.segment_size)));
        }
        let start = segment.start_lsn(self.segment_size);
        if self.page_address != start {
            return Err(bad(format!(
                "its first page is for {}, the name for {}",
                format_lsn(self.page_address),
                format_lsn(start)
            )));
        }
        // A segment copied at a promotion still begins with pages of the timeline before.
        if self.timeline == 0 || self.timeline > segment.timeline {
            return Err(bad(format!("its first page is of timeline {}", self.timeline)));
        }
        Ok(())
    }
}

/// The `archive_command` that runs `exe wal archive` into `url`, quoted for the shell and for PostgreSQL. With the key named that
/// the repository is written for ([`Repository::key_id`]), nothing is archived for another one.
///
/// # Errors
/// A usage failure for a path or URL with a line end.
pub fn archive_command(exe: &Path, url: &str, key: Option<&str>) -> Result<String> {
    let key = key.map_or_else(String::new, |id| format!(" --key-id {id}"));
    Ok(format!("{} wal archive --repository {}{key} %p", quoted_word(&exe.display().to_string())?, quoted_word(url)?))
}
