//! Some tables of a dump without the rest of it: of the object only what they need is read, and `pg_restore` gets a file that has
//! those parts at their places and nothing in between.

use std::io::Read;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::Request;
use crate::backup::catalog::Manifest;
use crate::backup::container::from_io;
use crate::backup::repository::{Unlocked, of_object};
use crate::backup::spool::{Spool, check_space};
use crate::backup::{logical, part};
use crate::error::{Context, Error, Result};
use crate::postgres::dump_archive::{Blocks, contents};
use crate::postgres::inventory::TableRecord;
use crate::recovery::watch::check_cancel;
use crate::recovery::{Phase, Watch};

/// Bytes that are read and written at once.
const PIECE: usize = 1 << 20;

/// The list of contents and the rows of the selected tables, where `pg_restore` can seek in them.
///
/// # Errors
/// What is read does not authenticate, or is not what the inventory says; no room for it.
pub(super) async fn spool(
    unlocked: &Unlocked,
    manifest: &Manifest,
    request: &Request,
    blocks: &Blocks,
    selected: &[&TableRecord],
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Spool> {
    let wanted: Vec<u32> = selected.iter().map(|t| t.oid).collect();
    let owner = request.run_as.as_ref().map(|u| (u.uid, u.gid));
    let (unlocked, manifest, blocks) = (unlocked.clone(), manifest.clone(), blocks.clone());
    let (dir, ignore_space, stop) = (request.scratch.clone(), request.ignore_space, cancel.clone());
    let (send, mut progress) = tokio::sync::mpsc::channel::<(u64, u64)>(1);
    let work = super::blocking(move || {
        let name = logical::dump_name(&manifest.id);
        let damaged = |why: &str| Error::check(format!("object {name:?} is not the dump its inventory is of")).why(why);
        let mut object = part::open(&unlocked, &manifest, &name)?;
        let reading = |e| of_object(from_io(e, || "reading".into()), &name);
        let mut list = Vec::new();
        object.reader(0..blocks.data_start).read_to_end(&mut list).map_err(reading)?;
        let known = contents(&list).map_err(|_| damaged("its list of contents is of another form"))?;
        if known.len as u64 != blocks.data_start {
            return Err(damaged("its list of contents has another length"));
        }
        let mut places = Vec::new();
        for entry in known.entries.iter().filter(|e| e.what == "TABLE DATA" && wanted.contains(&e.oid)) {
            let Some([_, at, length]) = blocks.blocks.iter().find(|[id, ..]| *id == entry.id) else {
                return Err(damaged("the rows of a table are not where they should be"));
            };
            known.place(&mut list, entry, *at);
            places.push((*at, *length));
        }
        let total: u64 = list.len() as u64 + places.iter().map(|(_, length)| length).sum::<u64>();
        if !ignore_space {
            check_space(&dir, total, "the decrypted dump")?;
        }
        let spool = Spool::new(&dir, owner)?;
        let writing = || "writing what was opened".to_string();
        spool.write_at(&list, 0).target(writing)?;
        let mut done = list.len() as u64;
        let mut buffer = vec![0u8; PIECE];
        // In the order they lie: neighbours share a chunk.
        places.sort_unstable();
        for (at, length) in places {
            let mut input = object.reader(at..at.saturating_add(length));
            let mut to = at;
            loop {
                let n = input.read(&mut buffer).map_err(reading)?;
                if n == 0 {
                    break;
                }
                spool.write_at(&buffer[..n], to).target(writing)?;
                to += n as u64;
                done += n as u64;
                let _ = send.try_send((done, total));
                check_cancel(&stop, "nothing was restored")?;
            }
            if to != at.saturating_add(length) {
                return Err(damaged("it ends too early"));
            }
        }
        Ok((spool, object.fetched(), object.stored_len()))
    });
    let begun = Instant::now();
    let show = async {
        while let Some((done, total)) = progress.recv().await {
            watch.phase(&Phase::bytes("read", done, Some(total), begun));
        }
    };
    let (done, ()) = tokio::join!(work, show);
    let (spool, fetched, stored) = done?;
    watch.line(&format!("{fetched} of the {stored} bytes of the dump were read"));
    Ok(spool)
}
