//! The same repository in a second place: every object byte for byte, read back there. It opens with the same key, and what
//! is in the first place's catalog is in the second's, or the copy says that the two went different ways.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::anchor;
use super::base::read_backup;
use super::catalog::{self, Catalog, Change, Manifest, READ};
use super::container::{Stored, check_stored, from_io, hex};
use super::damage::{self, is_damage};
use super::kept::{KEPT, Kept};
use super::repository::{COPY, CopyOf, INFO, Repository, SUFFIX, Unlocked, of_object};
use super::seen;
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
    /// The ids of those backups.
    pub removed_backups: Vec<String>,
    /// Backups that were given up here as damaged, and that the copy has whole and keeps.
    pub kept: Vec<String>,
    /// It is a repository of its own and stays one: nothing newer there was replaced, and what was damaged there is mended.
    pub own: bool,
    /// Objects that are damaged, missing or cannot be read here and were therefore not copied. What the place had of them stayed.
    pub not_copied: Vec<NotCopied>,
    /// Damaged catalog entries that were left out: somebody wrote down that he knows of them.
    pub left_out: Vec<String>,
    /// Objects that were damaged there, by what is on record, and were replaced.
    pub mended: Vec<String>,
    /// Backups that are on record as damaged and that copying did not put right.
    pub on_record: Vec<OnRecord>,
}

/// A backup that is on record as damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OnRecord {
    /// Its id.
    pub backup: String,
    /// Whether it is in the copy; else it is in the repository that is copied, and the copy is the same.
    pub in_copy: bool,
    /// What is wrong with it.
    pub why: String,
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
    /// A check failure that names what was not copied, or is still damaged in the copy, if there is anything.
    pub fn damage(&self) -> Option<Error> {
        let Some(first) = self.not_copied.first() else {
            let still = self.on_record.iter().find(|o| o.in_copy)?;
            return Some(
                Error::check(format!("backup {} in {:?} is damaged", still.backup, self.to)).why(&still.why).hint(
                    format!(
                        "Copying did not put it right; breakglass backup verify {} with BACKUP_DIR={} says more.",
                        still.backup, self.to
                    ),
                ),
            );
        };
        let more = match self.not_copied.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let all = Error::check(format!("not copied to {:?}: {:?}{more}", self.to, first.name))
            .why(format!("in the repository: {}", first.why));
        if self.not_copied.iter().any(|o| o.whole_there) {
            return Some(all.hint(format!("{:?} still has it whole: put the object's file back from there.", self.to)));
        }
        let mut hints: Vec<&str> = self.not_copied.iter().map(|o| way_on(&o.name)).collect();
        hints.sort_unstable();
        hints.dedup();
        Some(hints.into_iter().fold(all, Error::hint))
    }
}

/// What to do about an object that is damaged or missing, and that the copy has not got whole either.
fn way_on(name: &str) -> &'static str {
    match name.split('/').next() {
        Some("backups") => {
            "Put it back from another copy, or take a new backup and give this one up (backup cleanup --give-up ID)."
        }
        Some("wal") => {
            "Put it back from another copy; the server may still have that log. If nobody has, nothing goes beyond it: take a new base \
             backup, and see `breakglass pitr range`."
        }
        Some("catalog") => {
            "Put it back from another copy; if there is none, breakglass backup verify --accept-catalog writes down that it is lost."
        }
        Some("index") => "Make it anew: breakglass wal index.",
        _ => "Put it back from another copy.",
    }
}

/// What objects must be by the word of the catalog and its manifests.
pub(super) struct Known {
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
    /// The objects of one backup.
    pub(super) fn of_manifest(manifest: &Manifest) -> Self {
        let objects = manifest.objects.iter().map(|o| (o.name.clone(), o.stored_sha256.clone()));
        Self { digests: objects.collect(), unusable: BTreeMap::new() }
    }
    /// Whether a place has all of them whole.
    pub(super) fn all(&self, store: &dyn Store, repository: [u8; 16]) -> Result<bool> {
        for name in self.digests.keys() {
            if self.look(store, name, repository)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
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

/// What somebody said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// What was given up here as damaged goes there, also where it is whole.
    pub remove_given_up: bool,
    /// What is a repository of its own becomes a copy.
    pub as_copy: bool,
    /// A copy is made anew where one is known and nothing is there now.
    pub new_place: bool,
}

/// A folder by its real name, as far as it is there.
fn real(place: &str) -> Option<PathBuf> {
    let path = std::path::absolute(place).ok().filter(|_| !place.contains("://"))?;
    let there = path.ancestors().find_map(|a| Some((a.canonicalize().ok()?, path.strip_prefix(a).ok()?)));
    there.map(|(real, rest)| real.join(rest))
}

/// That a copy was known to be in a place where nothing is now: a disk that is not mounted looks like that.
fn still_there(source: &Repository, at: &str, heads: Option<&PathBuf>) -> Result<()> {
    let known = heads.map(|heads| seen::at(heads, at)).transpose()?.flatten();
    match known.filter(|s| s.repository == hex(&source.id())) {
        None => Ok(()),
        Some(s) => Err(Error::refused(format!("copying the repository to {at:?}"))
            .why(format!("a copy was there, known since {}, and nothing is there now", s.at.date_hms()))
            .hint("Is the disk mounted, is the folder the right one? Then this command again.")
            .hint("If that copy is gone and another one is meant: --new-place.")),
    }
}

/// Brings the repository at `to` up to date with this one. `progress` is told objects done and in all. What is there in its length
/// counts as right, except of backups that are on record as damaged (in the catalog, or in `heads` as found from this machine): those
/// are read on both sides, and replaced where they are damaged there. What was given up here as damaged and is whole there stays,
/// unless [`CopyOptions::remove_given_up`]. A repository of its own stays one, unless [`CopyOptions::as_copy`]: what is newer there stays.
///
/// # Errors
/// Refused when another repository is there; a check failure when an object is damaged on the way, or the two catalogs went
/// different ways, as they did where the copy has entries that are not here; target when a place cannot be read or written. What is damaged in this one is no error of the copy, nor is an
/// object of a folder that cannot be read: it is named in [`Copied::not_copied`], and all else is copied.
pub fn copy_to(
    unlocked: &Unlocked,
    to: &str,
    heads: Option<&PathBuf>,
    options: CopyOptions,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Copied> {
    let source = unlocked.repository();
    let dest = open_place(to, false)?;
    let mut done = Copied { to: dest.url(), ..Copied::default() };
    if dest.url() == source.store().url() {
        return Err(Error::usage(format!("{to:?} is the repository itself")));
    }
    if let (Some(there), Some(here)) = (real(&dest.url()), real(&source.store().url()))
        && there.starts_with(&here)
    {
        return Err(Error::usage(format!("{to:?} is in the repository itself, {:?}", here.display()))
            .why("what takes the one takes the other, and a copy would be taken for a part of it")
            .hint("Name a place on another disk, or elsewhere."));
    }
    // A place that was written to by itself and did not go another way becomes a copy again.
    let said = CopyOf::read(&*dest)?;
    let (mut damaged_there, mut gone_there) = (Vec::new(), BTreeSet::new());
    if dest.size(INFO)?.is_some() {
        let there = Repository::open(to)?;
        if there.id() != source.id() {
            return Err(Error::refused(format!("copying the repository to {to:?}"))
                .why(format!("another repository is there: {}", hex(&there.id())))
                .hint("Name a new folder."));
        }
        if let Some(heads) = heads {
            damaged_there = damage::noted(heads, &there)?;
        }
        done.own = !options.as_copy && !there.is_copy()? && !dest.list("catalog/")?.is_empty();
        if done.own {
            let theirs = damage::load(&unlocked.of_copy(there)?, heads, &mut |_| ())?;
            let found = theirs.backups.iter().filter_map(|b| Some((b.manifest.id.clone(), b.damage()?)));
            damaged_there = found.chain(theirs.lost.iter().map(|l| (l.backup.clone(), l.why.clone()))).collect();
            gone_there = theirs.removed;
        }
    } else if let Some(copy) = &said {
        // It goes on where it was broken off.
        if copy.of != hex(&source.id()) {
            return Err(Error::refused(format!("copying the repository to {to:?}"))
                .why(format!("an unfinished copy of another repository is there: {:?}", copy.of))
                .hint("Name a new folder."));
        }
    } else if let Some(first) = dest.list("")?.first() {
        return Err(Error::refused(format!("copying the repository to {to:?}"))
            .why(format!(
                "the folder is not empty: it holds {:?}, and nothing says that it is a copy of this repository",
                first.name
            ))
            .hint("Name a new folder, or empty this one if nothing in it is needed."));
    } else if !options.new_place {
        still_there(source, &dest.url(), heads)?;
    }
    // The catalog is listed first and copied last, in its order: what an entry names is there before it, here and there.
    let entries = source.store().list("catalog/")?;
    let all = source.store().list("")?;
    let catalog = damage::load(unlocked, heads, &mut |_| ())?;
    // What only lies among them is no part of it.
    let entries: Vec<_> = entries.iter().filter(|e| catalog::seq_of(&e.name).is_some()).collect();
    let beyond = ahead(source, &*dest, entries.last().map_or("", |e| e.name.as_str()), to);
    // What is not relied on here must not replace what may be whole there.
    if let Some(doubt) = source.doubt() {
        return Err(Error { kind: ErrorKind::Refused, ..doubt.clone() }.hint("Nothing was copied."));
    }
    // An earlier state must not become a copy that looks right.
    if let Some(e) = anchor::went_back(heads, unlocked, &catalog, &mut |_| ()) {
        let e = Error { kind: ErrorKind::Refused, ..e };
        return Err(match beyond {
            Err(more) if more.kind == ErrorKind::Check => e.hint(format!("Nothing was copied; {}.", more.what)),
            _ => e.hint("Nothing was copied."),
        });
    }
    // Damage must not reach the copy that is needed to repair it. What is damaged or missing reaches nothing, and is named; two
    // chains in one are another matter.
    let Some(lacking) = catalog.lacking() else {
        return Err(catalog.unbroken().err().unwrap_or_else(|| Error::state("a catalog that is broken, and is not")));
    };
    let objects: Vec<_> = all
        .iter()
        .filter(|e| e.name.ends_with(SUFFIX) && !e.name.starts_with("catalog/"))
        .filter(|e| e.name.split('/').nth(1).is_none_or(|id| !catalog.removed.contains(id) && !gone_there.contains(id)))
        .collect();
    let known = Known::of(&catalog);
    // What goes on behind its copy is what the copy is of.
    let back = done.own && source.is_copy()?;
    if !back {
        beyond?;
    }
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
    let begun = match &said {
        Some(copy) => CopyOf { unfinished: false, ..copy.clone() },
        None => CopyOf { unfinished: false, ..CopyOf::begun(source) },
    };
    // Of what lies there without it nobody could say whose it is.
    if said.is_none() && dest.size(INFO)?.is_none() {
        let first = CopyOf { unfinished: true, ..begun.clone() };
        if first.write(&*dest, Existing::Keep)? == Committed::Kept
            && CopyOf::read(&*dest)?.is_none_or(|c| c.of != begun.of)
        {
            return Err(Error::refused(format!("copying the repository to {to:?}"))
                .why("another repository's copy was begun there just now")
                .hint("Name a new folder."));
        }
    }
    // Before the entry that gives it up is there.
    let mut kept = Kept::read(&**source.store())?;
    if !options.remove_given_up && dest.size(INFO)?.is_some() {
        kept = Kept::of_copy(unlocked, &Repository::open(to)?, &catalog, &damaged_there)?;
    }
    if done.own {
        kept.0.extend(Kept::read(&*dest)?.0);
    }
    kept.write_if_any(&*dest)?;
    done.kept = kept.0.keys().filter(|id| catalog.given_up.contains_key(*id)).cloned().collect();
    let mut damaged: Vec<(String, String)> =
        lacking.iter().filter(|(name, _)| entries.binary_search_by(|e| e.name.cmp(name)).is_err()).cloned().collect();
    for name in known.digests.keys() {
        if all.binary_search_by(|e| e.name.cmp(name)).is_err() && source.store().size(name)?.is_none() {
            damaged.push((name.clone(), "it is missing".into()));
        }
    }
    let here: Vec<OnRecord> = catalog
        .backups
        .iter()
        .filter_map(|b| Some(OnRecord { backup: b.manifest.id.clone(), in_copy: false, why: b.damage()? }))
        .collect();
    let total = (objects.len() + entries.len()) as u64;
    for (i, entry) in objects.into_iter().chain(entries).enumerate() {
        progress(i as u64, total)?;
        if let Some(why) = known.unusable.get(&entry.name) {
            damaged.push((entry.name.clone(), why.clone()));
            continue;
        }
        if let Some(why) = lacking.iter().find_map(|(name, why)| (*name == entry.name).then_some(why)) {
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
        let of = entry.name.strip_prefix("backups/").and_then(|n| n.split('/').next()).unwrap_or("");
        if here.iter().any(|o| o.backup == of) {
            let wrong = match known.look(&**source.store(), &entry.name, source.id()) {
                Err(e) if is_damage(&e) => Some(e),
                looked => looked?,
            };
            if let Some(e) = wrong {
                damaged.push((entry.name.clone(), e.to_string()));
                continue;
            }
        }
        let mut mends = false;
        if replaced && done.own && dest.size(&entry.name)?.is_some() {
            done.present += 1;
            continue;
        }
        if !replaced && dest.size(&entry.name)? == Some(entry.size) {
            mends =
                damaged_there.iter().any(|(id, _)| id == of) && known.look(&*dest, &entry.name, source.id())?.is_some();
            if !mends {
                done.present += 1;
                continue;
            }
        }
        match copy_object(unlocked, &*dest, &entry.name, &known) {
            Ok(()) => {
                done.mended.extend(mends.then(|| entry.name.clone()));
                done.objects += 1;
                done.bytes += entry.size;
            }
            Err(Failed::Source(e)) => damaged.push((entry.name.clone(), e.to_string())),
            Err(Failed::Copy(mut e)) => {
                // What may go in the repository makes no room in another place.
                e.hints.retain(|h| !h.contains("backup cleanup"));
                return Err(e);
            }
        }
    }
    for (name, why) in damaged {
        let whole_there = known.look(&*dest, &name, source.id())?.is_none();
        done.not_copied.push(NotCopied { name, why, whole_there });
    }
    // Small files that change: keys before the file that makes it a repository.
    for entry in all.iter().filter(|e| !e.name.ends_with(SUFFIX) && ![INFO, COPY, KEPT].contains(&e.name.as_str())) {
        if done.own && dest.size(&entry.name)?.is_some() {
            continue;
        }
        let access = if entry.name.starts_with("keys/") { Access::Private } else { Access::Public };
        small(&**source.store(), &*dest, &entry.name, access)?;
    }
    if !done.own {
        small(&**source.store(), &*dest, INFO, Access::Public)?;
    }
    if !done.own && said.as_ref() != Some(&begun) {
        begun.write(&*dest, Existing::Replace)?;
    }
    for entry in dest.list("backups/")? {
        let Some(id) = entry.name.split('/').nth(1) else { continue };
        if catalog.removed.contains(id) && !kept.0.contains_key(id) && dest.delete(&entry.name)? {
            done.removed += 1;
            if done.removed_backups.last().is_none_or(|last| last != id) {
                done.removed_backups.push(id.to_string());
            }
        }
    }
    let copy = Repository::open(to)?;
    // Whoever gives something up is told of it. That it cannot be remembered hinders nothing.
    let _ = heads.map(|h| seen::remember(h, &copy));
    done.on_record = here;
    if back {
        // The catalog of a copy speaks of the place that was mended.
        let noted = heads.map(|h| damage::noted(h, source)).transpose()?.unwrap_or_default();
        done.on_record.retain(|o| noted.iter().any(|(id, _)| *id == o.backup));
    }
    if let (Some(heads), false) = (heads, damaged_there.is_empty()) {
        let copy = unlocked.of_copy(copy)?;
        let ids = damaged_there.into_iter().map(|(id, _)| id).filter(|id| catalog.find(id).is_ok());
        for id in ids {
            let read = read_backup(&copy, &id, &mut |_| progress(total, total));
            match read {
                Ok(_) => {
                    // It has a word of its own, and the one that is on record is its.
                    let change = Change::Verified { backup: id.clone(), how: READ.into() };
                    let untold =
                        if done.own { catalog::append(&copy, &change).err().map(|e| e.to_string()) } else { None };
                    damage::right(&copy, Some(heads), &id, READ, untold.as_deref());
                }
                Err(e) if is_damage(&e) => {}
                Err(e) => return Err(e),
            }
        }
        // What reading does not clear stays: that it could not be restored.
        let still = match done.own {
            false => damage::noted(heads, copy.repository())?,
            true => {
                let theirs = damage::load(&copy, Some(heads), &mut |_| ())?;
                theirs.backups.iter().filter_map(|b| Some((b.manifest.id.clone(), b.damage()?))).collect()
            }
        };
        let still = still.into_iter();
        done.on_record.extend(still.map(|(backup, why)| OnRecord { backup, in_copy: true, why }));
    }
    progress(total, total)?;
    Ok(done)
}

/// That the copy has no entries behind the last one of here.
fn ahead(source: &Repository, dest: &dyn Store, last: &str, to: &str) -> Result<()> {
    let mut more = Vec::new();
    for entry in dest.list("catalog/")? {
        // One that was entered here since it was listed is no news.
        if catalog::seq_of(&entry.name).is_some()
            && entry.name.as_str() > last
            && source.store().size(&entry.name)?.is_none()
        {
            more.push(entry.name);
        }
    }
    let (Some(first), Some(last)) = (more.first(), more.last()) else { return Ok(()) };
    Err(Error::check(format!("the copy in {to:?} has entries of the catalog that are not here: {first:?} to {last:?}"))
        .why("the catalog here was put back to an earlier state, or backups were made in the copy")
        .hint(format!("Look at both: breakglass backup list, and the same with BACKUP_DIR={to}. Nothing was copied."))
        .hint("If the copy is right, copy its folders `catalog` and `backups` back; if this one is, copy into a new folder."))
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
