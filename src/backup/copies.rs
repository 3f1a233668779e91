//! The same repository in a second place: every object byte for byte, read back there. It opens with the same key, and what
//! is in the first place's catalog is in the second's, or the copy says that the two went different ways.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::Serialize;

use super::catalog::{self, Catalog, Manifest};
use super::container::{Stored, check_stored, from_io, hex};
use super::repository::{COPY, INFO, Repository, SUFFIX, Unlocked, now, of_object};
use super::store::{Access, Committed, Existing, Store, open_place};
use crate::error::{Context, Error, ErrorKind, Result};

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
    /// Objects that are damaged, missing or cannot be read here and were therefore not copied. What the place had of them stayed.
    pub not_copied: Vec<NotCopied>,
    /// Damaged catalog entries that were left out: somebody wrote down that he knows of them.
    pub left_out: Vec<String>,
}

/// An object that was not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCopied {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
    /// Whether the place copied to has it whole: it can be put back from there.
    pub whole_there: bool,
}

impl Copied {
    /// A check failure that names what was not copied, if there is anything.
    pub fn damage(&self) -> Option<Error> {
        let first = self.not_copied.first()?;
        let more = match self.not_copied.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let all = Error::check(format!("not copied to {:?}: {:?}{more}", self.to, first.name))
            .why(format!("damaged in the repository, or cannot be read there: {}", first.why));
        Some(match self.not_copied.iter().any(|o| o.whole_there) {
            true => all.hint(format!("{:?} still has it whole: put the object's file back from there.", self.to)),
            false => all.hint(
                "Put it back from another copy, or take a new backup and give this one up (backup cleanup --give-up).",
            ),
        })
    }
}

/// What objects must be by the word of the catalog and its manifests.
struct Known {
    /// The digest over an object as stored.
    digests: BTreeMap<String, String>,
    /// Objects that the catalog could not use, and why.
    unusable: BTreeMap<String, String>,
}

impl Known {
    fn of(catalog: &Catalog) -> Self {
        let objects = catalog.backups.iter().flat_map(|b| &b.manifest.objects);
        let objects = objects.map(|o| (o.name.clone(), o.stored_sha256.clone()));
        let lost = catalog.lost.iter().map(|l| (catalog::manifest_name(&l.backup), l.why.clone()));
        Self { digests: objects.chain(catalog.documents()).collect(), unusable: lost.collect() }
    }
    /// That an object as read is the one of this name and repository, and the one that was entered.
    fn check(&self, stored: &Stored, name: &str, repository: [u8; 16]) -> Result<()> {
        let spec = &stored.header.spec;
        let entered = self.digests.get(name).is_none_or(|digest| *digest == hex(&stored.stored_sha256));
        if spec.name == name && spec.repository == repository && entered {
            return Ok(());
        }
        Err(Error::check(format!("object {name:?} is another one")).why("something was put in its place"))
    }
    /// What is wrong with an object in a place, if anything is.
    fn look(&self, store: &dyn Store, name: &str, repository: [u8; 16]) -> Result<Option<Error>> {
        let Some(input) = store.open(name)? else {
            return Ok(Some(Error::check(format!("object {name:?} is missing"))));
        };
        let read = check_stored(input).map_err(|e| of_object(e, name));
        match read.and_then(|stored| self.check(&stored, name, repository)) {
            Ok(()) => Ok(None),
            Err(e) if e.kind == ErrorKind::Check => Ok(Some(e)),
            Err(e) => Err(e),
        }
    }
}

/// Brings the repository at `to` up to date with this one. `progress` is told objects done and in all.
///
/// # Errors
/// Refused when another repository is there; a check failure when an object is damaged on the way, or the two catalogs went
/// different ways; target when a place cannot be read or written. What is damaged in this one is no error of the copy, nor is an
/// object of a folder that cannot be read: it is named in [`Copied::not_copied`], and all else is copied.
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
    // The catalog is listed first and copied last, in its order: what an entry names is there before it, here and there.
    let entries = source.store().list("catalog/")?;
    let all = source.store().list("")?;
    let catalog = Catalog::load(unlocked)?;
    // Damage must not reach the copy that is needed to repair it. What cannot be read reaches nothing, and is named.
    let unreadable = catalog.unreadable().unwrap_or_default();
    if unreadable.is_empty() {
        catalog.unbroken()?;
    }
    let entries: Vec<_> = entries.iter().filter(|e| e.name.ends_with(SUFFIX)).collect();
    let objects: Vec<_> = all
        .iter()
        .filter(|e| e.name.ends_with(SUFFIX) && !e.name.starts_with("catalog/"))
        .filter(|e| e.name.split('/').nth(1).is_none_or(|id| !catalog.removed.contains(id)))
        .collect();
    let known = Known::of(&catalog);
    // Before anything is written: an entry that is whole there and another one here was made there.
    for entry in &entries {
        let Some(ours) = known.digests.get(&entry.name) else { continue };
        if dest.size(&entry.name)?.is_none() {
            continue;
        }
        match digest(&*dest, &entry.name) {
            Ok(theirs) if hex(&theirs) != *ours => {
                return Err(Error::check(format!("the catalogs differ in {:?}", entry.name))
                    .why("backups were made or removed in both places")
                    .hint("Copy into a new folder, and look at both catalogs."));
            }
            Err(e) if e.kind != ErrorKind::Check => return Err(e),
            // A damaged one is replaced.
            _ => {}
        }
    }
    let mut damaged: Vec<(String, String)> = Vec::new();
    for name in known.digests.keys() {
        if all.binary_search_by(|e| e.name.cmp(name)).is_err() && source.store().size(name)?.is_none() {
            damaged.push((name.clone(), "it is missing".into()));
        }
    }
    let total = (objects.len() + entries.len()) as u64;
    for (i, entry) in objects.into_iter().chain(entries).enumerate() {
        progress(i as u64, total)?;
        if let Some(why) = known.unusable.get(&entry.name) {
            damaged.push((entry.name.clone(), why.clone()));
            continue;
        }
        if let Some(why) = unreadable.iter().find_map(|(name, why)| (*name == entry.name).then_some(why)) {
            damaged.push((entry.name.clone(), why.clone()));
            continue;
        }
        // Whoever accepted what is missing from the chain knows of it ([`Catalog::unbroken`]).
        if entry.name.starts_with("catalog/") && !known.digests.contains_key(&entry.name) {
            done.left_out.push(entry.name.clone());
            continue;
        }
        // Whatever is replaced in its place may have the same size and other content.
        let replaced = ["index/", "wal/receive/"].iter().any(|folder| entry.name.starts_with(folder));
        if replaced && source.store().size(&entry.name)?.is_none() {
            continue;
        }
        if !replaced && dest.size(&entry.name)? == Some(entry.size) {
            done.present += 1;
            continue;
        }
        match copy_object(unlocked, &*dest, &entry.name, &known) {
            Ok(()) => {
                done.objects += 1;
                done.bytes += entry.size;
            }
            Err(Failed::Source(e)) => damaged.push((entry.name.clone(), e.to_string())),
            Err(Failed::Copy(e)) => return Err(e),
        }
    }
    for (name, why) in damaged {
        let whole_there = known.look(&*dest, &name, source.id())?.is_none();
        done.not_copied.push(NotCopied { name, why, whole_there });
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
    check_stored(input).map(|s| s.stored_sha256).map_err(|e| of_object(e, name))
}

/// Objects of a backup that are missing or whose checksum is wrong, and why.
///
/// # Errors
/// The repository cannot be read.
pub fn damaged(unlocked: &Unlocked, catalog: &Catalog, manifest: &Manifest) -> Result<Vec<(String, String)>> {
    let (known, repository) = (Known::of(catalog), unlocked.repository());
    let mut out = Vec::new();
    for object in &manifest.objects {
        if let Some(e) = known.look(&**repository.store(), &object.name, repository.id())? {
            out.push((object.name.clone(), e.to_string()));
        }
    }
    Ok(out)
}

/// Whether another place has all of these objects whole.
///
/// # Errors
/// The place cannot be read.
pub fn has_whole(unlocked: &Unlocked, catalog: &Catalog, place: &str, names: &[String]) -> Result<bool> {
    let (known, store) = (Known::of(catalog), open_place(place, false)?);
    for name in names {
        if known.look(&*store, name, unlocked.repository().id())?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Why an object was not copied.
enum Failed {
    /// It is damaged where it comes from, or cannot be read there.
    Source(Error),
    /// Anything else.
    Copy(Error),
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Self::Copy(e)
    }
}

/// Passes on what is read to a second place.
struct Tee<'n, R, W> {
    input: R,
    output: W,
    name: &'n str,
    /// The second place did not take it.
    refused: bool,
}

impl<R: Read, W: Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        let copied = self.output.write_all(&buffer[..n]);
        self.refused |= copied.is_err();
        // Ours, so that it is not taken for a failure to read.
        copied.map_err(|e| io::Error::other(from_io(e, || format!("copying {:?}", self.name))))?;
        Ok(n)
    }
}

/// Copies an object once it was read whole and found to be the one that it should be: what the place has of that name is
/// replaced by nothing less.
fn copy_object(unlocked: &Unlocked, to: &dyn Store, name: &str, known: &Known) -> Result<(), Failed> {
    let repository = unlocked.repository();
    // Of a service that does not answer no object would come, each after a long wait; a folder has them one by one.
    let one_by_one = repository.store().at_once() == 1;
    let opened = match repository.store().open(name) {
        Err(e) if one_by_one => return Err(Failed::Source(e)),
        opened => opened?,
    };
    let input = opened.ok_or_else(|| Error::target(format!("object {name:?} vanished")))?;
    let mut tee = Tee { input, output: to.create(name, Access::Group)?, name, refused: false };
    let read = check_stored(&mut tee).map_err(|e| of_object(e, name));
    let checked = read.and_then(|stored| known.check(&stored, name, repository.id()).map(|()| stored));
    let ours = match checked {
        Ok(stored) => stored.stored_sha256,
        Err(e) if e.kind == ErrorKind::Check || one_by_one && !tee.refused => return Err(Failed::Source(e)),
        Err(e) => return Err(Failed::Copy(e)),
    };
    // A copy of another size was left by something else; ours replaces it.
    if tee.output.commit(Existing::Replace)? == Committed::Kept {
        return Err(Failed::Copy(Error::state(format!("{name:?} was kept"))));
    }
    if digest(to, name)? == ours {
        return Ok(());
    }
    Err(Failed::Copy(Error::check(format!("object {name:?} is another one after copying"))))
}

fn small(from: &dyn Store, to: &dyn Store, name: &str, access: Access) -> Result<()> {
    let bytes = from.get(name, 1 << 20)?.ok_or_else(|| Error::target(format!("{name:?} vanished")))?;
    if to.get(name, 1 << 20)?.as_deref() == Some(&bytes) {
        return Ok(());
    }
    to.put(name, access, &bytes, Existing::Replace).target(|| format!("copying {name:?}")).map(|_| ())
}
