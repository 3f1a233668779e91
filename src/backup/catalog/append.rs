//! Writing to the catalog: an entry under the next number, which makes a backup exist, or says something of one.

use super::manifest::{Manifest, manifest_name};
use super::{Catalog, Change, Entry, Head, entry_name};
use crate::backup::container::{ObjectType, hex};
use crate::backup::repository::{Unlocked, now};
use crate::backup::store::Committed;
use crate::error::{Context, Error, Result};

/// Before a backup is begun: that it can be entered when it is done.
///
/// # Errors
/// Refused when the chain is broken; the repository cannot be read.
pub fn check_writable(unlocked: &Unlocked) -> Result<()> {
    unlocked.repository().store().sweep();
    Catalog::load(unlocked)?.unbroken()
}

/// Writes down that the entries which are missing or damaged are lost, so that others can be written; and that the catalog goes on
/// from here, where it does not go through the head that was `seen` before. `None` when nothing is missing. Of a copy the second is not
/// written: what it is a copy of goes its own way.
///
/// # Errors
/// The repository cannot be read or written.
pub fn accept(unlocked: &Unlocked, seen: Option<&Head>) -> Result<Option<Head>> {
    let catalog = Catalog::load(unlocked)?;
    let entries: Vec<[u64; 2]> = catalog.broken.iter().filter(|b| !b.accepted).map(|b| [b.first, b.last]).collect();
    let mut instead_of = seen.filter(|head| !catalog.holds(head)).cloned();
    if instead_of.is_some() && unlocked.repository().is_copy()? {
        instead_of = None;
    }
    if entries.is_empty() && instead_of.is_none() {
        return Ok(None);
    }
    append(unlocked, &Change::Accepted { entries, instead_of }).map(Some)
}

/// Stores a finished backup's manifest and then its entry. Before this returns the backup does not exist; after, it does.
pub fn add(unlocked: &Unlocked, manifest: &Manifest) -> Result<Head> {
    let name = manifest_name(&manifest.id);
    let bytes = serde_json::to_vec(manifest).state(|| "writing a manifest".into())?;
    let (committed, summary) = unlocked.write_own(ObjectType::Manifest, &name, &bytes)?;
    if committed == Committed::Kept {
        return Err(Error::refused(format!("adding backup {:?}", manifest.id)).why("a backup of this id exists"));
    }
    append(unlocked, &Change::Added { backup: manifest.id.clone(), manifest_sha256: hex(&summary.stored_sha256) })
}

/// Appends an entry. When somebody else appends at the same time, the chain is read again and the next number tried.
pub fn append(unlocked: &Unlocked, change: &Change) -> Result<Head> {
    for _ in 0..100 {
        let catalog = Catalog::load(unlocked)?;
        if !matches!(change, Change::Accepted { .. }) {
            catalog.unbroken()?;
        }
        // What follows another place has no word of its own.
        if matches!(change, Change::Verified { .. } | Change::Damaged { .. }) && unlocked.repository().is_copy()? {
            return Ok(catalog.head);
        }
        match change {
            // What is damaged can be given up all the same.
            Change::Removed { backup, .. } if catalog.lost.iter().any(|l| l.backup == *backup) => {}
            // Said already: once is enough, however often it is looked at again.
            Change::Damaged { backup, how, why }
                if catalog.find(backup)?.damaged.as_ref().is_some_and(|d| d.how == *how && d.why == *why) =>
            {
                return Ok(catalog.head);
            }
            Change::Verified { backup, .. } | Change::Damaged { backup, .. } | Change::Removed { backup, .. } => {
                catalog.find(backup).map(|_| ())?
            }
            Change::Added { .. } | Change::Accepted { .. } => {}
        }
        let seq = catalog.head.seq + 1;
        let entry = Entry { version: 1, seq, prev: catalog.head.sha256, at: now(), change: change.clone() };
        let bytes = serde_json::to_vec(&entry).state(|| "writing a catalog entry".into())?;
        let (committed, summary) = unlocked.write_own(ObjectType::CatalogEntry, &entry_name(seq), &bytes)?;
        if committed == Committed::Stored {
            return Ok(Head { seq, sha256: hex(&summary.stored_sha256) });
        }
    }
    Err(Error::target("the catalog is being written by others without a pause").hint("Try again."))
}
