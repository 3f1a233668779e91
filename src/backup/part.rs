//! A part of a backup without reading the rest of it: some files of a folder, by ranges of its object.

use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::base::Progress;
use super::catalog::{BackupKind, Manifest};
use super::container::{Ranged, from_io, hex};
use super::files::{Building, Kind, Listed, Listing, Owners, Parity, compare, listing, tar_name};
use super::logical;
use super::repository::{Unlocked, of_object};
use super::store::sync_dir;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::dump_archive::contents;

/// Opens an object of a backup to read parts of it: of the length and content that the manifest says.
///
/// # Errors
/// A check failure when it is damaged, missing or another one.
pub fn open(unlocked: &Unlocked, manifest: &Manifest, name: &str) -> Result<Ranged> {
    let record = manifest.object(name)?;
    let object = unlocked
        .open_ranged(manifest.kind.object_type(), name)?
        .ok_or_else(|| Error::check(format!("object {name:?} of backup {:?} is missing", manifest.id)))?;
    if record.plain_bytes == object.plain_len()
        && record.plain_sha256 == hex(&object.plain_sha256())
        && record.stored_sha256 == hex(&object.stored_sha256())
    {
        return Ok(object);
    }
    Err(Error::check(format!("object {name:?} is not the one its manifest names"))
        .why("an object of another time or backup was put in its place, or its end is damaged"))
}

/// Bytes as stored of an object that is read whole where its ends are looked at: it costs no more requests.
const SMALL: u64 = 1 << 20;

/// Whether every object of a backup is there and is the one its manifest names, as far as its beginning, end and index tell; a
/// small one is read whole. What was cut or put in its place shows, what was flipped in the middle does not.
///
/// # Errors
/// A check failure that names the object; usage when no key opens it; the repository cannot be read.
pub fn check_ends(unlocked: &Unlocked, manifest: &Manifest) -> Result<()> {
    for record in &manifest.objects {
        match record.stored_bytes {
            0..SMALL => logical::read_object(unlocked, manifest, &record.name, &mut io::sink(), &mut |_| Ok(()))?,
            _ => drop(open(unlocked, manifest, &record.name)?),
        }
    }
    Ok(())
}

/// What was restored of a backup of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// How each compares with what was stored, read again from the disk.
    pub parity: Parity,
    /// Bytes of the object that were fetched for it.
    pub fetched: u64,
    /// Bytes of the whole object.
    pub stored: u64,
}

/// Restores some files, or folders with all that is in them, into the new folder `dest` under their own paths: built beside it,
/// every file compared with the digest it had, then named. Only what is needed of the object is read.
///
/// # Errors
/// Refused when the folder is there; usage when a path is not in the backup; a check failure when anything is damaged, and
/// nothing is left then.
pub fn restore_some(
    unlocked: &Unlocked,
    manifest: &Manifest,
    wanted: &[String],
    dest: &Path,
    progress: Progress<'_>,
) -> Result<Restored> {
    let building = Building::beside(dest)?;
    let listing = listing(unlocked, manifest)?;
    let chosen = choose(&listing, wanted)?;
    let mut object = open(unlocked, manifest, &tar_name(&manifest.id))?;
    let folder = |path: &Path| {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
        made.target(|| format!("creating {:?}", path.display()))
    };
    let root = building.root();
    folder(root)?;
    let (mut at, mut done) = (Vec::new(), 0);
    let (mut links, mut owners) = (Vec::new(), Owners::default());
    for listed in &chosen {
        let path = Path::new(&listed.path);
        if !path.components().all(|c| matches!(c, Component::Normal(_))) {
            return Err(Error::check(format!("path {:?} in the backup", listed.path)).why("it would leave the folder"));
        }
        let full = root.join(path);
        folder(full.parent().unwrap_or(root))?;
        let making = || format!("making {:?}", full.display());
        match (listed.kind, listed.at) {
            (Kind::Folder, _) => folder(&full)?,
            (Kind::File, Some(from)) => {
                let mut file =
                    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full).target(making)?;
                let mut content = object.reader(from..from + listed.size);
                let copied = io::copy(&mut content, &mut file);
                let copied = copied.map_err(|e| of_object(from_io(e, making), &tar_name(&manifest.id)))?;
                if copied != listed.size {
                    return Err(Error::check(format!("{:?} ends too early in the backup", listed.path)));
                }
                file.flush().target(making)?;
                owners.set(&full, listed)?;
                if let Some(other) = &listed.same_as {
                    owners.not_set.push(format!("{}: a file of its own, and was a hard link to {other}", listed.path));
                }
                file.sync_all().target(making)?;
                done += copied;
                progress(done)?;
            }
            // Made last, so that nothing can be written through one.
            (Kind::Link, _) => links.push((link_target(&mut object, &listing, listed)?, full.clone(), *listed)),
            // Said by `choose`.
            (Kind::File, None) => continue,
        }
        at.push((full, *listed));
    }
    for (target, path, listed) in links {
        symlink(target, &path).target(|| format!("making {:?}", path.display()))?;
        owners.set(&path, listed)?;
    }
    let parity = compare(&at, &listing)?;
    parity.whole()?;
    for (path, listed) in at.iter().rev().filter(|(_, l)| l.kind == Kind::Folder) {
        sync_dir(path)?;
        owners.set(path, listed)?;
    }
    building.finish()?;
    let parity = Parity { not_set: owners.not_set, ..parity };
    Ok(Restored { parity, fetched: object.fetched(), stored: object.stored_len() })
}

/// Where a link points, as its header in the stream says; the listing has only the digest of that. The header lies between the
/// files before and behind it.
fn link_target(object: &mut Ranged, listing: &Listing, link: &Listed) -> Result<PathBuf> {
    let broken = |e: io::Error| of_object(from_io(e, || format!("looking for link {:?}", link.path)), "files.tar");
    let place = listing.entries.iter().position(|e| e.path == link.path).unwrap_or(0);
    // A hard link has no content of its own.
    let content = |e: &&Listed| e.kind == Kind::File && e.same_as.is_none();
    let before = listing.entries[..place].iter().rev().find(content);
    // Content is filled up to whole blocks.
    let from = before.and_then(|e| Some((e.at? + e.size).next_multiple_of(TAR_BLOCK))).unwrap_or(0);
    let behind = listing.entries[place..].iter().find(content);
    let end = behind.and_then(|e| e.at).unwrap_or(object.plain_len());
    for entry in tar::Archive::new(object.reader(from..end)).entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if entry.path().map_err(broken)?.to_string_lossy() == link.path {
            let target = entry.link_name().map_err(broken)?;
            return Ok(target.map(Cow::into_owned).unwrap_or_default());
        }
    }
    Err(Error::check(format!("link {:?} stands in the listing and not in the backup", link.path)))
}

/// Bytes of a block of a tar stream.
const TAR_BLOCK: u64 = 512;

/// The entries of the listing that are named, and all below them.
fn choose<'l>(listing: &'l Listing, wanted: &[String]) -> Result<Vec<&'l Listed>> {
    let mut chosen: Vec<&Listed> = Vec::new();
    for name in wanted {
        let name = name.trim_end_matches('/');
        let below = format!("{name}/");
        let before = chosen.len();
        chosen.extend(listing.entries.iter().filter(|e| e.path == name || e.path.starts_with(&below)));
        if chosen.len() == before {
            let tops: Vec<&str> =
                listing.entries.iter().filter(|e| !e.path.contains('/')).map(|e| e.path.as_str()).collect();
            return Err(Error::usage(format!("no file or folder {name:?} in the backup"))
                .hint(format!("Paths begin with the name of a folder that was stored: {}.", tops.join(", "))));
        }
    }
    chosen.sort_by(|a, b| a.path.cmp(&b.path));
    chosen.dedup_by(|a, b| a.path == b.path);
    // By itself, however it is written: what it points at is meant, and not in it.
    let named = |path: &str| wanted.iter().any(|w| w.trim_end_matches('/') == path);
    if let Some(link) = chosen.iter().find(|e| e.kind == Kind::Link && named(&e.path)) {
        return Err(Error::usage(format!("{:?} is a link", link.path)).hint("Name what it points at, or restore all."));
    }
    if let Some(old) = chosen.iter().find(|e| e.kind == Kind::File && e.at.is_none()) {
        return Err(Error::refused(format!("restoring {:?} alone", old.path))
            .why("the backup does not say where in it a file lies: an earlier breakglass took it")
            .hint("Restore all of it into a folder, without --file, and take what you need."));
    }
    Ok(chosen)
}

/// What of a damaged backup is lost, and what can still be had from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// Tables or files that cannot be read whole.
    pub lost: Vec<String>,
    /// How many others can.
    pub readable: usize,
}

/// Reads every table's rows, or every file, by itself. None when the damage is where all of them hang on it, the backup does not
/// say where they lie, or the repository cannot be read: what does not answer is not lost.
pub fn affected(unlocked: &Unlocked, manifest: &Manifest) -> Option<Affected> {
    let (name, parts) = match manifest.kind {
        BackupKind::Files => {
            let listing = listing(unlocked, manifest).ok()?;
            let files = listing.entries.into_iter().filter(|e| e.kind == Kind::File);
            let parts = files.map(|e| Some((e.path, Some((e.at?, e.size))))).collect::<Option<Vec<_>>>()?;
            (tar_name(&manifest.id), parts)
        }
        BackupKind::Logical => {
            let inventory = logical::inventory(unlocked, manifest).ok()?;
            let blocks = inventory.blocks?;
            let name = logical::dump_name(&manifest.id);
            let mut list = Vec::new();
            open(unlocked, manifest, &name).ok()?.reader(0..blocks.data_start).read_to_end(&mut list).ok()?;
            let entries = contents(&list).ok()?.entries;
            let place = |id: u64| blocks.blocks.iter().find(|b| b[0] == id).map(|b| (b[1], b[2]));
            let parts = entries.iter().filter(|e| e.what == "TABLE DATA" && e.has_block).map(|e| {
                let table = inventory.tables.iter().find(|t| t.oid == e.oid);
                let name = table.map_or_else(|| format!("table {}", e.oid), |t| format!("{}.{}", t.schema, t.name));
                (name, place(e.id))
            });
            (name, parts.collect())
        }
        BackupKind::Physical | BackupKind::SchemaOnly => return None,
    };
    let mut object = open(unlocked, manifest, &name).ok()?;
    let mut out = Affected::default();
    for (what, place) in parts {
        // Rows that are nowhere are as lost as damaged ones.
        let Some((at, length)) = place else {
            out.lost.push(what);
            continue;
        };
        match io::copy(&mut object.reader(at..at.saturating_add(length)), &mut io::sink()) {
            Ok(n) if n == length => out.readable += 1,
            Ok(_) => out.lost.push(what),
            Err(e) => match from_io(e, String::new).kind {
                ErrorKind::Check => out.lost.push(what),
                _ => return None,
            },
        }
    }
    Some(out)
}
