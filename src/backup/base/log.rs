//! The log that a base backup needs to become consistent, put beside its files: it then starts by itself.

use std::path::Path;

use super::super::catalog::Manifest;
use super::super::repository::Unlocked;
use super::super::wal::{DEFAULT_SEGMENT_SIZE, Fetched, Segment, fetch, parse_lsn};
use crate::error::{Context, Error, Result};

/// Puts the log from the backup's start to its end into `pg_wal`.
///
/// # Errors
/// A check failure when a segment is missing or damaged.
pub fn needed_log(unlocked: &Unlocked, manifest: &Manifest, data: &Path, owner: Option<(u32, u32)>) -> Result<usize> {
    let lsn = |text: &Option<String>| text.as_deref().and_then(parse_lsn);
    let (Some(start), Some(stop), Some(timeline)) =
        (lsn(&manifest.start_lsn), lsn(&manifest.stop_lsn), manifest.timeline)
    else {
        return Err(Error::check(format!("the manifest of backup {:?} names no log positions", manifest.id)));
    };
    let known = unlocked.repository().cluster()?.and_then(|c| c.wal_segment_size);
    let size = known.or(manifest.wal_segment_size).unwrap_or(DEFAULT_SEGMENT_SIZE);
    let first = Segment::at(timeline, start, size).number(size);
    let last = Segment::at(timeline, stop.saturating_sub(1).max(start), size).number(size);
    for number in first..=last {
        let name = Segment::from_number(timeline, number, size).to_string();
        let path = data.join("pg_wal").join(&name);
        if fetch(unlocked, &name, &path)? == Fetched::NotInArchive {
            return Err(Error::check(format!("the archive has no WAL segment {name}")));
        }
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid)).target(|| format!("giving {name} to user {uid}"))?;
        }
        std::fs::File::open(&path).and_then(|f| f.sync_all()).target(|| format!("making {name} durable"))?;
    }
    std::fs::File::open(data.join("pg_wal"))
        .and_then(|d| d.sync_all())
        .target(|| "making the folder of the log durable".into())?;
    usize::try_from(last - first + 1).state(|| "counting segments".into())
}
