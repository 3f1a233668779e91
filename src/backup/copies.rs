//! The same repository in a second place: every object byte for byte, read back there. It opens with the same key, and what
//! is in the first place's catalog is in the second's, or the copy says that the two went different ways.

use std::io;

use serde::Serialize;

use super::catalog::Catalog;
use super::container::{check_stored, hex};
use super::repository::{COPY, INFO, Repository, SUFFIX, Unlocked, now};
use super::store::{Access, Committed, Existing, Store, open_place};
use crate::error::{Context, Error, Result};

/// What copying did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Where to.
    pub to: String,
    /// Objects copied and read back.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were there already.
    pub present: u64,
    /// Objects removed, of backups that were given up.
    pub removed: u64,
}

/// Brings the repository at `to` up to date with this one. `progress` is told objects done and in all.
///
/// # Errors
/// Refused when another repository is there; a check failure when an object is damaged on the way, or the two catalogs went
/// different ways; target when a place cannot be read or written.
pub fn copy_to(unlocked: &Unlocked, to: &str, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Copied> {
    let source = unlocked.repository();
    let dest = open_place(to, false)?;
    let mut done = Copied { to: dest.url(), ..Copied::default() };
    if dest.url() == source.store().url() {
        return Err(Error::usage(format!("{to:?} is the repository itself")));
    }
    // A place that was written to by itself and did not go another way becomes a copy again.
    let marked = dest.size(COPY)?.is_some();
    if dest.size(INFO)?.is_some() {
        let there = Repository::open(to)?;
        if there.id() != source.id() {
            return Err(Error::refused(format!("copying the repository to {to:?}"))
                .why(format!("another repository is there: {}", hex(&there.id())))
                .hint("Name a new folder."));
        }
    } else if !dest.list("")?.is_empty() {
        return Err(Error::refused(format!("copying the repository to {to:?}")).why("the folder is not empty"));
    }
    let catalog = Catalog::load(unlocked)?;
    // Damage must not reach the copy that is needed to repair it.
    catalog.unbroken()?;
    let all = source.store().list("")?;
    // The catalog last, in its order: what an entry names is there before it.
    let (entries, objects): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(|e| e.name.ends_with(SUFFIX))
        .filter(|e| e.name.split('/').nth(1).is_none_or(|id| !catalog.removed.contains(id)))
        .partition(|e| e.name.starts_with("catalog/"));
    // Before anything is written: an entry that is whole there and another one here was made there.
    for entry in &entries {
        if dest.size(&entry.name)?.is_none() {
            continue;
        }
        let theirs = digest(&*dest, &entry.name);
        if theirs.is_ok() && theirs? != digest(&**source.store(), &entry.name)? {
            return Err(Error::check(format!("the catalogs differ in {:?}", entry.name))
                .why("backups were made or removed in both places")
                .hint("Copy into a new folder, and look at both catalogs."));
        }
    }
    let total = all.len() as u64;
    for (i, entry) in objects.into_iter().chain(entries).enumerate() {
        progress(i as u64, total)?;
        // Whatever is replaced in its place may have the same size and other content.
        let replaced = ["index/", "wal/receive/"].iter().any(|folder| entry.name.starts_with(folder));
        if replaced && source.store().size(&entry.name)?.is_none() {
            continue;
        }
        if !replaced && dest.size(&entry.name)? == Some(entry.size) {
            done.present += 1;
            continue;
        }
        copy_object(&**source.store(), &*dest, &entry.name)?;
        done.objects += 1;
        done.bytes += entry.size;
    }
    // Small files that change: keys before the file that makes it a repository.
    for entry in all.iter().filter(|e| !e.name.ends_with(SUFFIX) && e.name != INFO && e.name != COPY) {
        let access = if entry.name.starts_with("keys/") { Access::Private } else { Access::Public };
        small(&**source.store(), &*dest, &entry.name, access)?;
    }
    if !marked {
        let said = serde_json::json!({"of": hex(&source.id()), "since": now()}).to_string();
        dest.put(COPY, Access::Public, said.as_bytes(), Existing::Replace)?;
    }
    small(&**source.store(), &*dest, INFO, Access::Public)?;
    for entry in dest.list("backups/")? {
        if entry.name.split('/').nth(1).is_some_and(|id| catalog.removed.contains(id)) && dest.delete(&entry.name)? {
            done.removed += 1;
        }
    }
    progress(total, total)?;
    Ok(done)
}

fn digest(store: &dyn Store, name: &str) -> Result<[u8; 32]> {
    let input = store.open(name)?.ok_or_else(|| Error::target(format!("object {name:?} vanished")))?;
    check_stored(input).map(|s| s.stored_sha256).map_err(|e| super::repository::of_object(e, name))
}

fn copy_object(from: &dyn Store, to: &dyn Store, name: &str) -> Result<()> {
    let mut input = from.open(name)?.ok_or_else(|| Error::target(format!("object {name:?} vanished")))?;
    let mut upload = to.create(name, Access::Group)?;
    io::copy(&mut input, &mut upload).map_err(|e| super::container::from_io(e, || format!("copying {name:?}")))?;
    // A copy of another size was left by something else; ours replaces it.
    if upload.commit(Existing::Replace)? == Committed::Kept {
        return Err(Error::state(format!("{name:?} was kept")));
    }
    if digest(to, name)? == digest(from, name)? {
        return Ok(());
    }
    Err(Error::check(format!("object {name:?} is another one after copying")))
}

fn small(from: &dyn Store, to: &dyn Store, name: &str, access: Access) -> Result<()> {
    let bytes = from.get(name, 1 << 20)?.ok_or_else(|| Error::target(format!("{name:?} vanished")))?;
    if to.get(name, 1 << 20)?.as_deref() == Some(&bytes) {
        return Ok(());
    }
    to.put(name, access, &bytes, Existing::Replace).target(|| format!("copying {name:?}")).map(|_| ())
}
