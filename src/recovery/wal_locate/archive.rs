//! Segments in the order of the log, out of the repository.

use std::path::Path;

use super::source::{Segment, choose, in_folder, stretches};
use crate::backup::repository::Unlocked;
use crate::backup::wal::range::path_to;
use crate::backup::wal::{DEFAULT_SEGMENT_SIZE, WalName};
use crate::error::{ErrorKind, Result};
use crate::postgres::Lsn;
use crate::postgres::wal::{Content, Layout, Reader, Tail};

/// The archived segments that lead to `timeline` along its history, from the one that holds `from` on, each taken out of
/// the archive when it is asked for. A `.partial` segment is used where nothing newer holds its stretch.
///
/// # Errors
/// The history is missing or damaged; later, the store fails. A segment that is damaged comes without bytes, one that is missing
/// not at all.
pub fn in_repository(
    unlocked: &Unlocked,
    timeline: u32,
    from: Option<Lsn>,
) -> Result<impl Iterator<Item = Result<Segment>> + '_> {
    let (names, segment_bytes) = chosen(unlocked, timeline, from)?;
    Ok(read_each(unlocked, names, segment_bytes))
}

/// As [`in_repository`], followed by what the server on this machine has written since, read in its own folder `pg_wal`; and from
/// where on that is. None when the folder cannot be read, or does not go on where the archive ends.
///
/// # Errors
/// As [`in_repository`].
pub fn and_own<'u>(
    unlocked: &'u Unlocked,
    timeline: u32,
    from: Option<Lsn>,
    pg_wal: &Path,
) -> Result<Option<(impl Iterator<Item = Result<Segment>> + 'u, Lsn)>> {
    let (mut names, segment_bytes) = chosen(unlocked, timeline, from)?;
    // The server's own file is the whole of what a partial one was.
    if names.last().is_some_and(|n| n.ends_with(".partial")) {
        names.pop();
    }
    let end = names.last().and_then(|n| Lsn::of_segment(n, segment_bytes)).map(|(_, l)| Lsn(l.0 + segment_bytes));
    let Ok(own) = in_folder(pg_wal, Some(timeline), end.or(from), true) else { return Ok(None) };
    let mut own = own.map_while(Result::ok).peekable();
    let start = own.peek().map(|s| s.start);
    let archived = read_each(unlocked, names, segment_bytes);
    Ok(start.filter(|s| end.is_none_or(|e| e == *s)).map(|s| (archived.chain(own.map(Ok)), s)))
}

/// The transaction whose commit is the very record at `lsn`, then its subtransactions; none where another record is, or nothing
/// that can be read.
///
/// # Errors
/// As [`in_repository`].
pub fn committed_at(unlocked: &Unlocked, timeline: u32, lsn: Lsn) -> Result<Vec<u32>> {
    let (mut reader, mut layout, mut found) = (Reader::new(), Layout::default(), Vec::new());
    // The record may end in the next segment.
    for segment in in_repository(unlocked, timeline, Some(lsn))?.take(2) {
        let segment = segment?;
        let tail = if segment.may_end { Tail::MayEnd } else { Tail::Whole };
        let read = reader.segment(&segment.name, &segment.bytes, tail, |r| {
            if r.lsn == lsn {
                layout.read(r)?;
                if let Content::Commit(end) = Content::read(r, &layout)? {
                    found.push(end.prepared.unwrap_or(r.xid));
                    found.extend(&end.subxacts);
                }
            }
            Ok(())
        });
        if read.is_err() || !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// Names in the order of the log, and the size of segments.
fn chosen(unlocked: &Unlocked, timeline: u32, from: Option<Lsn>) -> Result<(Vec<String>, u64)> {
    let size = unlocked.repository().cluster()?.and_then(|c| c.wal_segment_size);
    let segment_bytes = u64::from(size.unwrap_or(DEFAULT_SEGMENT_SIZE));
    let stretches = stretches(&path_to(unlocked, timeline)?);
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
    Ok((choose(&names, &stretches, segment_bytes), segment_bytes))
}

fn read_each(
    unlocked: &Unlocked,
    names: Vec<String>,
    segment_bytes: u64,
) -> impl Iterator<Item = Result<Segment>> + '_ {
    names.into_iter().map(move |name| {
        let (bytes, unreadable) = match crate::backup::wal::fetch::read(unlocked, &WalName::parse(&name)?) {
            Ok(Some(bytes)) => (bytes, None),
            Ok(None) => (Vec::new(), Some("it is gone from the archive".to_string())),
            Err(e) if matches!(e.kind, ErrorKind::Check | ErrorKind::Usage) => (Vec::new(), Some(e.to_string())),
            Err(e) => return Err(e),
        };
        let may_end = name.ends_with(".partial");
        let start = Lsn::of_segment(name.trim_end_matches(".partial"), segment_bytes).map_or(Lsn(0), |(_, l)| l);
        Ok(Segment { name, start, bytes, may_end, unreadable })
    })
}
