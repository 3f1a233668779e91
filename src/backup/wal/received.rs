//! The segment that is not full yet: `wal receive` stores it anew every few seconds, so that little is lost with the server.
//!
//! It lies apart from what servers archive (`wal/receive/<segment>.partial.bgo`): a promoted server archives a `.partial` file
//! of its own under that name, which must never be taken for another content of the same. Beside it `state.json` says how far
//! the log was received; it needs no key to be read, and nothing about a recovery depends on it.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::super::container::{ObjectType, Spec, Writer, from_io};
use super::super::repository::{Repository, SUFFIX, Unlocked, now, of_object};
use super::super::store::{Access, Existing};
use super::fetch::read_object;
use super::name::{Segment, WalName};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::Time;
use crate::postgres::wal::{Reader, Tail};

/// Folder of what was received and is not archived as a whole segment.
pub const FOLDER: &str = "wal/receive/";
const STATE: &str = "wal/receive/state.json";

/// How far the log was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Version of this form: 1.
    pub v: u32,
    /// The cluster, as text.
    pub system_identifier: String,
    /// Replication slot it is received through.
    pub slot: String,
    /// Segment it ends in.
    pub segment: String,
    /// The repository holds every record that ends up to here.
    pub end_lsn: String,
    /// Everything committed up to this moment, by the server's clock, is in the repository; none until the server was asked.
    pub covered_at: Option<Time>,
    /// When this was written, by the receiver's clock.
    pub at: Time,
}

fn object_of(segment: Segment) -> String {
    format!("{FOLDER}{segment}.partial{SUFFIX}")
}

/// Stores the beginning of a segment, in the place of what was stored of it before.
///
/// # Errors
/// The repository cannot be written.
pub fn store(repository: &Repository, segment: Segment, bytes: &[u8]) -> Result<()> {
    let object = object_of(segment);
    let mut spec = Spec::new(ObjectType::WalSegment, repository.id(), &object, now());
    spec.timeline = segment.timeline;
    spec.system_identifier = repository.cluster()?.map_or(0, |c| c.system_identifier);
    let upload = repository.store().create(&object, Access::Group)?;
    let mut writer = Writer::new(upload, &spec, &[repository.recipient()])?;
    writer.write_all(bytes).map_err(|e| from_io(e, || format!("writing {object:?}")))?;
    writer.finish()?.0.commit(Existing::Replace).map(|_| ())
}

/// Removes what was received of a segment that is archived whole by now.
///
/// # Errors
/// The repository cannot be written.
pub fn remove(repository: &Repository, segment: Segment) -> Result<()> {
    repository.store().delete(&object_of(segment)).map(|_| ())
}

/// Says how far the log was received.
///
/// # Errors
/// The repository cannot be written.
pub fn note(repository: &Repository, state: &Received) -> Result<()> {
    let bytes = serde_json::to_vec(state).state(|| format!("writing {STATE}"))?;
    repository.store().put(STATE, Access::Public, &bytes, Existing::Replace).map(|_| ())
}

/// How far the log was received, by the receiver's word; none when nothing is received for this cluster.
///
/// # Errors
/// The repository cannot be read.
pub fn state(repository: &Repository) -> Result<Option<Received>> {
    let Some(bytes) = repository.store().get(STATE, 1 << 16)? else { return Ok(None) };
    let cluster = repository.cluster()?.map(|c| c.system_identifier.to_string());
    let state: Option<Received> = serde_json::from_slice(&bytes).ok();
    Ok(state.filter(|s| s.v == 1 && cluster.is_none_or(|c| c == s.system_identifier)))
}

/// The beginning of a segment that is not archived whole: of what was received and what was archived when its timeline was
/// left, the one that goes further. The rest of its bytes is zero, as in a segment that is not written yet.
///
/// # Errors
/// What is there is damaged, or opened by another key.
pub fn read(unlocked: &Unlocked, segment: Segment) -> Result<Option<Vec<u8>>> {
    let mut best: Option<(u64, Vec<u8>)> = None;
    let mut wrong: Option<Error> = None;
    for object in [object_of(segment), WalName::Partial(segment).object()] {
        let bytes = match read_object(unlocked, ObjectType::WalSegment, &object) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(e) if e.kind == ErrorKind::Check => {
                wrong = Some(of_object(e, &object));
                continue;
            }
            Err(e) => return Err(e),
        };
        let end = valid_end(segment, &bytes);
        if let Some(end) = end.filter(|e| best.as_ref().is_none_or(|(b, _)| e > b)) {
            best = Some((end, bytes));
        }
    }
    match (best, wrong) {
        // One damaged copy and one whole one: which goes further is not known any more.
        (_, Some(wrong)) => Err(wrong),
        (best, None) => Ok(best.map(|(_, bytes)| bytes)),
    }
}

/// Whether the beginning of a segment is there, whatever is in it.
///
/// # Errors
/// The repository cannot be read.
pub fn is_there(repository: &Repository, segment: Segment) -> Result<bool> {
    for object in [object_of(segment), WalName::Partial(segment).object()] {
        if repository.store().size(&object)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the last whole record of a segment's beginning ends, as a position; none when it has no whole record.
pub fn valid_end(segment: Segment, bytes: &[u8]) -> Option<u64> {
    let mut end = None;
    // Why it ends does not matter: what was written while it was read is not whole either.
    let _ = Reader::new().segment(&segment.to_string(), bytes, Tail::MayEnd, |r| {
        end = Some(r.end.0);
        Ok(())
    });
    end
}

/// Takes away what stands behind the last whole record. A file that is being written may hold later pages without the ones
/// before them, and a recovery must see an end there, not damage. Returns the position of that end; none when there is
/// nothing to keep.
pub fn cut(segment: Segment, segment_size: u32, bytes: &mut [u8]) -> Option<u64> {
    let end = valid_end(segment, bytes)?;
    let start = segment.start_lsn(segment_size);
    let keep = usize::try_from(end.checked_sub(start)?).ok()?;
    bytes.get_mut(keep..)?.fill(0);
    Some(end)
}
