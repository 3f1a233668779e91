//! Segments in the order of the log, from a folder such as `pg_wal`, along one timeline and its ancestors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::backup::wal::range::{Branch, parse_history};
use crate::error::{Context, Error, Result};
use crate::postgres::Lsn;

/// The bytes of a segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its file's name, 24 hexadecimal digits, or those and `.partial`.
    pub name: String,
    /// Where it begins in the log.
    pub start: Lsn,
    /// All of it.
    pub bytes: Vec<u8>,
    /// Whether the log may end in it.
    pub may_end: bool,
    /// Why it cannot be had, in words; then there are no bytes.
    pub unreadable: Option<String>,
}

/// A stretch of the log that belongs to one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Timeline.
    pub timeline: u32,
    /// Where the next timeline took over; none for the last.
    pub until: Option<Lsn>,
}

/// The stretches of a path.
pub fn stretches(path: &[Branch]) -> Vec<Stretch> {
    path.iter().map(|b| Stretch { timeline: b.timeline, until: b.ends_at.map(Lsn) }).collect()
}

/// Chooses the files that make up the log of the last stretch's timeline: for each segment number the newest timeline of
/// the stretches that had begun by its end. Where numbers are missing in between, so they are in what is returned.
pub fn choose(names: &[String], stretches: &[Stretch], segment_bytes: u64) -> Vec<String> {
    // By number; for each number the best by place in the stretches, whole files before partial ones.
    let mut best: BTreeMap<u64, (usize, bool, &String)> = BTreeMap::new();
    for name in names {
        let (stem, whole) = match name.strip_suffix(".partial") {
            Some(stem) => (stem, false),
            None => (name.as_str(), true),
        };
        let Some((timeline, start)) = Lsn::of_segment(stem, segment_bytes) else { continue };
        let Some(place) = stretches.iter().position(|s| s.timeline == timeline) else { continue };
        let ends_before = stretches.get(place).and_then(|s| s.until).is_some_and(|u| u.0 <= start.0);
        if ends_before {
            continue;
        }
        let key = start.0 / segment_bytes;
        let candidate = (place, whole, name);
        if best.get(&key).is_none_or(|b| (b.0, b.1) < (place, whole)) {
            best.insert(key, candidate);
        }
    }
    best.into_values().map(|(_, _, name)| name.clone()).collect()
}

/// The segments of a folder along `timeline` (the newest one when none), from the one that holds `from` on. In `live`
/// folders (`pg_wal` of a server) recycled files stand after the end of the log and are left out; in an archive every
/// file must be whole, `.partial` ones excepted.
///
/// # Errors
/// The folder or a history file cannot be read.
pub fn in_folder(
    dir: &Path,
    timeline: Option<u32>,
    from: Option<Lsn>,
    live: bool,
) -> Result<impl Iterator<Item = Result<Segment>> + use<>> {
    let what = || format!("reading the folder {:?}", dir.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).target(what)? {
        let entry = entry.target(what)?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let is_segment = |n: &&String| Lsn::of_segment(n.trim_end_matches(".partial"), 1 << 20).is_some();
    let segment_bytes = match names.iter().find(is_segment) {
        Some(first) => size_of_segments(&dir.join(first))?,
        None => return Err(Error::target(format!("no WAL segment in {:?}", dir.display()))),
    };
    let newest = names.iter().filter(is_segment).filter_map(|n| u32::from_str_radix(n.get(..8)?, 16).ok()).max();
    let timeline = timeline.or(newest).unwrap_or(1);
    let history = dir.join(format!("{timeline:08X}.history"));
    let stretches = match std::fs::read_to_string(&history) {
        Ok(text) => {
            let wrong = || Error::check(format!("{:?} is not a timeline history", history.display()));
            let mut path = parse_history(&text).ok_or_else(wrong)?;
            path.push(Branch { timeline, ends_at: None });
            stretches(&path)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => vec![Stretch { timeline, until: None }],
        Err(e) => return Err(Error::target(format!("reading {:?}", history.display())).why(e)),
    };
    let start = from.map_or(0, |l| l.0 - l.0 % segment_bytes);
    names.retain(|n| Lsn::of_segment(n.trim_end_matches(".partial"), segment_bytes).is_some_and(|(_, l)| l.0 >= start));
    let mut chosen = choose(&names, &stretches, segment_bytes);
    if live {
        // Recycled files carry a number of the future and pages of the past.
        let written = |n: &String| {
            let expected = Lsn::of_segment(n.trim_end_matches(".partial"), segment_bytes);
            first_page_address(&dir.join(n)).is_some_and(|a| expected.is_some_and(|(_, l)| l.0 == a))
        };
        while chosen.len() > 1 && chosen.last().is_some_and(|n| !written(n)) {
            chosen.pop();
        }
    }
    let count = chosen.len();
    let dir: PathBuf = dir.to_path_buf();
    Ok(chosen.into_iter().enumerate().map(move |(i, name)| {
        let path = dir.join(&name);
        let bytes = std::fs::read(&path).target(|| format!("reading {:?}", path.display()))?;
        let may_end = name.ends_with(".partial") || (live && i + 1 == count);
        let start = Lsn::of_segment(name.trim_end_matches(".partial"), segment_bytes).map_or(Lsn(0), |(_, l)| l);
        Ok(Segment { name, start, bytes, may_end, unreadable: None })
    }))
}

fn head(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let what = || format!("reading {:?}", path.display());
    let mut bytes = Vec::new();
    std::fs::File::open(path).target(what)?.take(40).read_to_end(&mut bytes).target(what)?;
    Ok(bytes)
}

/// Size of segments in bytes as the long header of one says.
fn size_of_segments(path: &Path) -> Result<u64> {
    let size = crate::postgres::wal::PageHeader::read(&head(path)?).ok().and_then(|h| h.long).map(|(_, s)| s);
    match size {
        Some(s) if s.is_power_of_two() && (1 << 20..=1 << 30).contains(&s) => Ok(u64::from(s)),
        // Never written, or damaged: the file's own size is the next best, and reading it will say what is wrong.
        _ => {
            let len = std::fs::metadata(path).target(|| format!("reading {:?}", path.display()))?.len();
            Ok(len.next_power_of_two().clamp(1 << 20, 1 << 30))
        }
    }
}

fn first_page_address(path: &Path) -> Option<u64> {
    crate::postgres::wal::PageHeader::read(&head(path).ok()?).ok().map(|h| h.address.0)
}
