//! `wal fetch`: one archived file back, whole and authenticated, or a clear "not there", or an error that stops recovery.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::super::container::{ObjectId, ObjectType};
use super::super::repository::{MEND_CLUSTER, Repository, Unlocked, of_object};
use super::name::{Segment, WalName, timeline_folder};
use super::received;
use crate::error::{Context, Error, Result};

/// Exit status of `wal fetch` when the file is not in the archive: PostgreSQL then goes on to the end of its WAL.
pub const EXIT_NOT_IN_ARCHIVE: u8 = 1;
/// Exit status of `wal fetch` for everything else. PostgreSQL stops recovery for a status above 125; with a lower one
/// it would take the damage for the end of the WAL and promote (`RestoreArchivedFile` in its source).
pub const EXIT_STOP_RECOVERY: u8 = 200;

/// What fetching found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// The file is in place.
    Restored,
    /// The archive has no such file, and nothing says that it should.
    NotInArchive,
}

/// Restores `name` to `dest`, which appears whole or not at all.
///
/// # Errors
/// A damaged object, a hole in the archive, a wrong key: recovery must stop ([`EXIT_STOP_RECOVERY`]).
pub fn fetch(unlocked: &Unlocked, name: &str, dest: &Path) -> Result<Fetched> {
    let Some(bytes) = read(unlocked, &WalName::parse(name)?)? else { return Ok(Fetched::NotInArchive) };
    place(dest, &bytes)?;
    Ok(Fetched::Restored)
}

/// Writes `bytes` as `dest` in one step.
pub(crate) fn place(dest: &Path, bytes: &[u8]) -> Result<()> {
    let dir = match dest.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let writing = || format!("writing {:?}", dest.display());
    let temporary =
        dir.join(format!("{}.breakglass-{}", dest.file_name().unwrap_or_default().display(), std::process::id()));
    let result = (|| {
        use std::os::unix::fs::OpenOptionsExt;
        let _ = fs::remove_file(&temporary);
        let mut file: File = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        // Not made durable: after a crash the server fetches it again.
        file.write_all(bytes)?;
        fs::rename(&temporary, dest)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.target(writing)
}

/// An archived file's bytes, authenticated to the last one; `None` when it is not there and need not be.
///
/// # Errors
/// As [`fetch`].
pub fn read(unlocked: &Unlocked, name: &WalName) -> Result<Option<Vec<u8>>> {
    match read_object(unlocked, object_type(name), &name.object())? {
        Some(bytes) => Ok(Some(bytes)),
        None => instead(unlocked, name),
    }
}

/// As [`read`], of a whole segment, with the id of the object that it was read from.
///
/// # Errors
/// As [`fetch`].
pub(crate) fn read_segment(unlocked: &Unlocked, segment: Segment) -> Result<Option<(Vec<u8>, ObjectId)>> {
    let mut bytes = Vec::with_capacity(16 << 20);
    let object = WalName::Segment(segment).object();
    Ok(pour(unlocked, ObjectType::WalSegment, &object, &mut bytes)?.map(|(_, id)| (bytes, id)))
}

/// As [`read`], written to `out` while it is opened, on this thread alone: several are opened side by side. What was written
/// counts only when this returns how many bytes it is.
///
/// # Errors
/// As [`fetch`], or writing fails.
pub(crate) fn read_to(unlocked: &Unlocked, name: &WalName, out: &mut dyn Write) -> Result<Option<u64>> {
    let object = name.object();
    if let Some((bytes, _)) = pour(unlocked, object_type(name), &object, out)? {
        return Ok(Some(bytes));
    }
    let Some(bytes) = instead(unlocked, name)? else { return Ok(None) };
    out.write_all(&bytes).target(|| writing(&object))?;
    Ok(Some(bytes.len() as u64))
}

/// What there is of a file that is not archived whole.
fn instead(unlocked: &Unlocked, name: &WalName) -> Result<Option<Vec<u8>>> {
    let WalName::Segment(segment) = name else { return Ok(None) };
    if refuse_hole(unlocked.repository(), segment)? == Place::Last {
        // Behind it nothing is archived: what there is of it is the end of the log.
        return received::read(unlocked, *segment);
    }
    Ok(None)
}

/// An object's bytes, authenticated to the last one, of the repository's own cluster.
pub(crate) fn read_object(unlocked: &Unlocked, kind: ObjectType, object: &str) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(16 << 20);
    Ok(pour(unlocked, kind, object, &mut bytes)?.map(|_| bytes))
}

/// Writes an object of the repository's own cluster to `out`, on this thread alone; how many bytes it is and which object, once the
/// last of them is authenticated.
fn pour(unlocked: &Unlocked, kind: ObjectType, object: &str, out: &mut dyn Write) -> Result<Option<(u64, ObjectId)>> {
    let Some(reader) = unlocked.open_object(kind, object)? else { return Ok(None) };
    let id = reader.header().id();
    if let Some(cluster) = unlocked.repository().cluster()? {
        let said = reader.header().spec.system_identifier;
        if said != 0 && said != cluster.system_identifier {
            return Err(Error::check(format!("object {object:?} is of cluster {said}"))
                .why(format!("the repository is for cluster {}", cluster.system_identifier))
                .hint(MEND_CLUSTER));
        }
    }
    let mut reader = reader.alone();
    while let Some(bytes) = reader.next_bytes().map_err(|e| of_object(e, object))? {
        out.write_all(bytes).target(|| writing(object))?;
    }
    let (_, summary) = reader.finish().map_err(|e| of_object(e, object))?;
    Ok(Some((summary.plain_len, id)))
}

fn writing(object: &str) -> String {
    format!("writing what {object:?} holds")
}

pub(crate) fn object_type(name: &WalName) -> ObjectType {
    match name {
        WalName::Segment(_) | WalName::Partial(_) => ObjectType::WalSegment,
        WalName::History(_) => ObjectType::WalHistory,
        WalName::Backup(..) => ObjectType::WalBackup,
    }
}

/// Where a segment that is missing would stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first of its timeline that is there.
    First,
    /// After the last one that is there, or there is none.
    Last,
}

/// A segment that is missing between two that are there is a hole, not the end of the WAL.
fn refuse_hole(repository: &Repository, missing: &Segment) -> Result<Place> {
    let (mut before, mut after) = (None, None);
    for segment in segments(repository, missing.timeline)? {
        if segment < *missing {
            before = Some(segment);
        } else if after.is_none() {
            after = Some(segment);
        }
    }
    match (before, after) {
        (Some(before), Some(after)) => Err(Error::check(format!("WAL segment {missing} is missing from the archive"))
            .why(format!("{before} and {after} are there: everything from {missing} on would be lost"))
            .hint("Recover to a point before it, or put the segment back.")),
        (_, None) => Ok(Place::Last),
        (None, Some(_)) => Ok(Place::First),
    }
}

/// The whole segments of a timeline that are in the repository, in order.
pub fn segments(repository: &Repository, timeline: u32) -> Result<Vec<Segment>> {
    let listed = repository.store().list(&timeline_folder(timeline))?;
    let named = listed.iter().filter_map(|e| WalName::from_object(&e.name));
    let mut found: Vec<Segment> = named
        .filter_map(|name| match name {
            WalName::Segment(s) if s.timeline == timeline => Some(s),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    Ok(found)
}
