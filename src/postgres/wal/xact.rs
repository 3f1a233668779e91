//! Ends of transactions: commit, abort, prepare.

use super::bytes::Bytes;
use super::{EPOCH, RelFile, Version};
use crate::model::Time;

const HAS_INFO: u8 = 0x80;

/// What a commit or abort record says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct End {
    /// When it ended by the server's clock, taken before the record was written: order is LSN order.
    pub time: Time,
    /// The prepared transaction that ended, when another one ended it.
    pub prepared: Option<u32>,
    /// Database; only there when caches were invalidated.
    pub database: Option<u32>,
    /// Subtransactions that ended with it.
    pub subxacts: Vec<u32>,
    /// Storage removed by it: what a commit dropped, or what an abort had created.
    pub files: Vec<RelFile>,
    /// OIDs of relations whose statistics it dropped, with their database (from version 15 on).
    pub dropped: Vec<(u32, u32)>,
    /// Name of the prepared transaction, when logged.
    pub gid: Option<String>,
}

/// Reads the data of a commit (`xl_xact_commit`) or abort (`xl_xact_abort`) record.
pub(super) fn end(main: &[u8], info: u8, version: Version, commit: bool) -> Option<End> {
    let mut b = Bytes(main);
    let mut end = End { time: time(b.i64()?), ..End::default() };
    if info & HAS_INFO == 0 {
        return Some(end);
    }
    let flags = b.u32()?;
    let has = |bit: u32| flags & (1 << bit) != 0;
    if has(0) {
        end.database = Some(b.u32()?).filter(|d| *d != 0);
        b.u32()?;
    }
    if has(1) {
        let n = b.count()?;
        end.subxacts = b.numbers(n)?;
    }
    if has(2) {
        let n = b.count()?;
        end.files = b.items(n, 12)?.filter_map(|c| Bytes(c).rel_file()).collect();
    }
    if has(8) && version >= Version::V15 {
        let n = b.count()?;
        for item in b.items(n, 12)? {
            let mut item = Bytes(item);
            let (kind, database, object) = (item.u32()?, item.u32()?, item.u32()?);
            // PGSTAT_KIND_RELATION, whose number is 2 in versions 15 to 17.
            if kind == 2 {
                end.dropped.push((database, object));
            }
        }
    }
    if commit && has(3) {
        let n = b.count()?;
        b.take(n.checked_mul(16)?)?;
    }
    if has(4) {
        end.prepared = Some(b.u32()?);
        if has(7) {
            let n = b.0.iter().position(|c| *c == 0)?;
            end.gid = Some(String::from_utf8_lossy(b.take(n)?).into_owned());
        }
    }
    Some(end)
}

/// What a prepare record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The transaction.
    pub xid: u32,
    /// Its database.
    pub database: u32,
    /// When it was prepared.
    pub time: Time,
    /// Its name.
    pub gid: String,
    /// Its subtransactions.
    pub subxacts: Vec<u32>,
}

/// Reads a prepare record (`xl_xact_prepare`, which is also the head of a two-phase state file).
pub(super) fn prepared(main: &[u8], version: Version) -> Option<Prepared> {
    let mut b = Bytes(main);
    b.take(8)?;
    let (xid, database, at) = (b.u32()?, b.u32()?, b.i64()?);
    b.u32()?;
    let subxacts = b.count()?;
    // Files to remove at commit and at abort; from version 15 on also statistics; then messages.
    b.take(if version >= Version::V15 { 20 } else { 12 })?;
    b.u8()?;
    // One byte of padding before the two-byte length in either layout.
    b.u8()?;
    let gid_bytes = usize::from(b.u16()?);
    // The origin's position and time are aligned to 8, and so is what follows.
    let head = if version >= Version::V15 { 72 } else { 64 };
    let gid = main.get(head..head + gid_bytes)?;
    let gid = gid.split(|c| *c == 0).next().unwrap_or_default();
    let subs_at = head + ((gid_bytes + 7) & !7);
    let mut subs = Bytes(main.get(subs_at..)?);
    Some(Prepared {
        xid,
        database,
        time: time(at),
        gid: String::from_utf8_lossy(gid).into_owned(),
        subxacts: subs.numbers(subxacts)?,
    })
}

/// From PostgreSQL's microseconds since 2000.
pub(super) fn time(micros: i64) -> Time {
    Time::from_micros(micros.saturating_add(EPOCH.micros()))
}
