//! Segments in the order of the log, out of the repository.

use super::source::{Segment, Stretch, choose};
use crate::backup::repository::Unlocked;
use crate::backup::wal::range::path_to;
use crate::backup::wal::{DEFAULT_SEGMENT_SIZE, WalName};
use crate::error::{Error, Result};
use crate::postgres::Lsn;

/// The archived segments that lead to `timeline` along its history, from the one that holds `from` on, each taken out of
/// the archive when it is asked for. A `.partial` segment is used where nothing newer holds its stretch.
///
/// # Errors
/// The history is missing or damaged, or a segment between two others is missing; later, one that is damaged.
pub fn in_repository(
    unlocked: &Unlocked,
    timeline: u32,
    from: Option<Lsn>,
) -> Result<impl Iterator<Item = Result<Segment>> + '_> {
    let size = unlocked.repository().cluster()?.and_then(|c| c.wal_segment_size);
    let segment_bytes = u64::from(size.unwrap_or(DEFAULT_SEGMENT_SIZE));
    let path = path_to(unlocked, timeline)?;
    let stretches: Vec<Stretch> =
        path.iter().map(|b| Stretch { timeline: b.timeline, until: b.ends_at.map(Lsn) }).collect();
    let start = from.map_or(0, |l| l.0 - l.0 % segment_bytes);
    let mut names = Vec::new();
    for stretch in &stretches {
        let folder = crate::backup::wal::name::timeline_folder(stretch.timeline);
        for entry in unlocked.repository().store().list(&folder)? {
            if let Some(name @ (WalName::Segment(s) | WalName::Partial(s))) = WalName::from_object(&entry.name)
                && s.start_lsn(size.unwrap_or(DEFAULT_SEGMENT_SIZE)) >= start
            {
                names.push(name.to_string());
            }
        }
    }
    let chosen = choose(&names, &stretches, segment_bytes)?;
    Ok(chosen.into_iter().map(move |name| {
        let bytes = crate::backup::wal::fetch::read(unlocked, &WalName::parse(&name)?)?
            .ok_or_else(|| Error::check(format!("WAL segment {name:?} is gone from the archive")))?;
        let may_end = name.ends_with(".partial");
        Ok(Segment { name, bytes, may_end })
    }))
}
