//! Named folders (uploads, logs, configuration) and a redacted description of the environment.
//!
//! ```text
//! backups/<backup>/files.tar.bgo          the folders as one tar stream, each under its own name
//! backups/<backup>/listing.json.bgo       every entry in the stream's order, with its digest
//! backups/<backup>/environment.json.bgo   what the machine was like; no values that could be secret
//! ```

mod attributes;

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::base::{Progress, new_id};
use super::catalog::{self, BackupKind, Manifest, ObjectRecord};
use super::container::{Spec, Writer, from_io, hex, seal};
use super::logical::read_object;
use super::repository::{SUFFIX, Unlocked, now};
use super::store::{Access, Committed, Existing, sync_dir};
use crate::error::{Context, Error, Result};

use attributes::Names;
pub(super) use attributes::Owners;

fn object(id: &str, what: &str) -> String {
    format!("backups/{id}/{what}{SUFFIX}")
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
}

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Path below the restored folder, for people: what is not UTF-8 in it is replaced.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file.
    pub size: u64,
    /// SHA-256 of a file's content, or of a link's target.
    pub sha256: String,
    /// Permission bits, with those for setuid, setgid and sticky.
    pub mode: u32,
    /// Number of its owner; none in a backup of before it was stored, as with the next three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Number of its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Name of its owner, where the machine had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of its group, where the machine had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The file before it that it is a hard link to; `at` is that one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// The file became shorter while it was read; what was missing is zeros.
    #[serde(default)]
    pub changed: bool,
    /// Where a file's content begins in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

/// What was stored, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// In the stream's order.
    pub entries: Vec<Listed>,
    /// Sockets, pipes and devices: not stored.
    pub skipped: Vec<String>,
}

/// How restored files compare with what was stored, each read again from the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Parity {
    /// Files whose content is the same.
    pub same: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Folders and links.
    pub others: u64,
    /// Paths that differ; empty when all is well.
    pub differing: Vec<String>,
    /// What the backup could not hold.
    pub skipped: Vec<String>,
    /// Files that changed while they were stored.
    pub changed: Vec<String>,
    /// Owners and modes that whoever restored could not set, and hard links that became files of their own.
    pub not_set: Vec<String>,
}

impl Parity {
    /// # Errors
    /// A check failure that names what differs.
    pub(super) fn whole(&self) -> Result<()> {
        if self.differing.is_empty() {
            return Ok(());
        }
        Err(Error::check(format!("{} restored files differ", self.differing.len())).why(self.differing.join(", ")))
    }
}

/// Stores folders. Each becomes a folder of its own name in the backup.
///
/// # Errors
/// Usage when a folder is none or two have the same name; target when one cannot be read or the repository not be written.
pub fn store_files(
    unlocked: &Unlocked,
    folders: &[PathBuf],
    environment: &serde_json::Value,
    label: Option<&str>,
    progress: Progress<'_>,
) -> Result<(Manifest, Listing)> {
    catalog::check_writable(unlocked)?;
    let started_at = now();
    let id = new_id(started_at, BackupKind::Files.word())?;
    let repository = unlocked.repository();
    let mut names = BTreeSet::new();
    for folder in folders {
        let shown = folder.display();
        if !folder.is_dir() {
            return Err(Error::usage(format!("{:?} is not a folder", shown.to_string())));
        }
        if !names.insert(own_name(folder)?) {
            return Err(Error::usage(format!("two folders are called {:?}", own_name(folder)?))
                .hint("Back them up one by one, or name the folder above both."));
        }
    }
    let name = tar_name(&id);
    let spec = Spec::new(BackupKind::Files.object_type(), repository.id(), &name, started_at);
    let upload = repository.store().create(&name, Access::Group)?;
    let writer = Writer::new(upload, &spec, &[unlocked.own_recipient()?])?;
    let written = Rc::new(Cell::new(0));
    let writer = Counted { inner: writer, written: written.clone() };
    let mut pack = Pack {
        tar: tar::Builder::new(writer),
        written,
        listing: Listing::default(),
        names: Names::default(),
        linked: HashMap::new(),
        total: 0,
        progress,
    };
    for folder in folders {
        let real = fs::canonicalize(folder).target(|| format!("reading {:?}", folder.display()))?;
        pack.add(&real, &PathBuf::from(own_name(folder)?))?;
    }
    let Pack { tar, listing, .. } = pack;
    let writer = tar.into_inner().map_err(|e| from_io(e, || "storing the files".into()))?.inner;
    let (upload, summary) = writer.finish()?;
    let taken = |name: &str| Error::refused(format!("storing {name:?}")).why("an object of this name exists");
    if upload.commit(Existing::Keep)? == Committed::Kept {
        return Err(taken(&name));
    }
    let mut objects = vec![ObjectRecord::new(&name, &summary)];
    let documents = [
        (object(&id, "listing.json"), serde_json::to_vec(&listing)),
        (object(&id, "environment.json"), serde_json::to_vec_pretty(environment)),
    ];
    for (name, bytes) in documents {
        let bytes = bytes.map_err(|e| Error::state(format!("writing {name:?}")).why(e))?;
        let (committed, summary) = unlocked.write_own(BackupKind::Files.object_type(), &name, &bytes)?;
        if committed == Committed::Kept {
            return Err(taken(&name));
        }
        objects.push(ObjectRecord::new(&name, &summary));
    }
    let manifest = Manifest {
        version: 1,
        id,
        kind: BackupKind::Files,
        label: label.map(str::to_string),
        system_identifier: None,
        postgres_version: None,
        timeline: None,
        start_lsn: None,
        stop_lsn: None,
        wal_segment_size: None,
        database: None,
        dump_version: None,
        part: None,
        tables: None,
        started_at,
        finished_at: now(),
        objects,
    };
    catalog::add(unlocked, &manifest)?;
    Ok((manifest, listing))
}

fn own_name(folder: &Path) -> Result<String> {
    let real = fs::canonicalize(folder).target(|| format!("reading {:?}", folder.display()))?;
    real.file_name()
        .and_then(|n| n.to_str())
        .map(str::to_string)
        .ok_or_else(|| Error::usage(format!("folder {:?} has no name of its own", folder.display())))
}

/// What cannot be read of the folders stops the backup: one without it would look like one of everything.
fn unread(path: &Path, e: &io::Error) -> Error {
    let error = Error::target(format!("reading {:?}", path.display())).why(e).hint("Nothing was stored.");
    match e.kind() {
        io::ErrorKind::PermissionDenied => error
            .hint("Run this as a user who may read it, or let this one read it (chmod, setfacl -m u:NAME:r).")
            .hint("Or move it out of the folder, or name the folders beside it one by one (--files)."),
        io::ErrorKind::NotFound => error.hint("It was removed meanwhile: this command again."),
        _ => error,
    }
}

/// Counts what goes through it.
struct Counted<W> {
    inner: W,
    written: Rc<Cell<u64>>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.written.set(self.written.get() + n as u64);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Pack<'a, W: Write> {
    tar: tar::Builder<W>,
    /// Bytes of the stream so far.
    written: Rc<Cell<u64>>,
    listing: Listing,
    names: Names,
    /// Files with several names by device and number: path of the one that was stored, and its place in the listing.
    linked: HashMap<(u64, u64), (PathBuf, usize)>,
    total: u64,
    progress: Progress<'a>,
}

impl<W: Write> Pack<'_, W> {
    fn add(&mut self, from: &Path, at: &Path) -> Result<()> {
        let reading = |e: io::Error| unread(from, &e);
        let meta = fs::symlink_metadata(from).map_err(reading)?;
        let kind = meta.file_type();
        let mut header = tar::Header::new_gnu();
        header.set_mode(meta.mode() & 0o7777);
        header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        header.set_size(0);
        let mut entry = Listed {
            path: at.to_string_lossy().into_owned(),
            kind: Kind::Folder,
            size: 0,
            sha256: String::new(),
            mode: meta.mode() & 0o7777,
            uid: None,
            gid: None,
            user: None,
            group: None,
            same_as: None,
            changed: false,
            at: None,
        };
        self.names.note(&mut entry, &meta);
        attributes::in_header(&mut header, &entry);
        let storing = |e: io::Error| from_io(e, || format!("storing {:?}", from.display()));
        if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            self.tar.append_data(&mut header, at, io::empty()).map_err(storing)?;
            self.listing.entries.push(entry);
            let mut children: Vec<_> =
                fs::read_dir(from).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(reading)?;
            children.sort_by_key(fs::DirEntry::file_name);
            for child in children {
                self.add(&child.path(), &at.join(child.file_name()))?;
            }
            return Ok(());
        }
        if kind.is_symlink() {
            let target = fs::read_link(from).map_err(reading)?;
            header.set_entry_type(tar::EntryType::Symlink);
            self.tar.append_link(&mut header, at, &target).map_err(storing)?;
            entry.kind = Kind::Link;
            entry.sha256 = hex(&Sha256::digest(target.as_os_str().as_encoded_bytes()));
            self.listing.entries.push(entry);
            return Ok(());
        }
        if !kind.is_file() {
            self.listing.skipped.push(entry.path);
            return Ok(());
        }
        let number = (meta.dev(), meta.ino());
        if let Some((path, first)) = self.linked.get(&number)
            && let Some(first) = self.listing.entries.get(*first)
        {
            header.set_entry_type(tar::EntryType::Link);
            self.tar.append_link(&mut header, at, path).map_err(storing)?;
            let (path, mode) = (entry.path, first.mode);
            self.listing.entries.push(Listed { path, mode, same_as: Some(first.path.clone()), ..first.clone() });
            return Ok(());
        }
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(meta.len());
        let file = File::open(from).map_err(reading)?;
        let (hash, written) = (Sha256::new(), self.written.clone());
        let mut content = Content { file, left: meta.len(), hash, changed: false, written, begins: None };
        self.tar.append_data(&mut header, at, &mut content).map_err(storing)?;
        entry.kind = Kind::File;
        entry.size = meta.len();
        entry.changed = content.changed;
        entry.at = content.begins;
        entry.sha256 = hex(&content.hash.finalize());
        if meta.nlink() > 1 {
            self.linked.insert(number, (at.to_path_buf(), self.listing.entries.len()));
        }
        self.listing.entries.push(entry);
        self.total += meta.len();
        (self.progress)(self.total)
    }
}

/// Exactly as many bytes as the header said, whatever happens to the file meanwhile.
struct Content {
    file: File,
    left: u64,
    hash: Sha256,
    changed: bool,
    written: Rc<Cell<u64>>,
    /// Bytes of the stream before the first of it: its header is written before it is read.
    begins: Option<u64>,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let written = self.written.get();
        self.begins.get_or_insert(written);
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let mut n = if self.changed { 0 } else { self.file.read(&mut buffer[..want])? };
        if n == 0 {
            self.changed = true;
            buffer[..want].fill(0);
            n = want;
        }
        self.hash.update(&buffer[..n]);
        self.left -= n as u64;
        Ok(n)
    }
}

/// Restores files into the new folder `dest`: built beside it, every file read again and compared, then named.
///
/// # Errors
/// Refused when the folder is there; a check failure when anything is damaged or differs, and nothing is left then.
pub fn restore_files(unlocked: &Unlocked, manifest: &Manifest, dest: &Path, progress: Progress<'_>) -> Result<Parity> {
    let building = Building::beside(dest)?;
    let listing = listing(unlocked, manifest)?;
    let root = building.root();
    fs::DirBuilder::new().mode(0o700).create(root).target(|| format!("creating {:?}", root.display()))?;
    // The stream is read to its end before anything gets its name: a prefix of it is authentic, and not the backup.
    let (reader, writer) = io::pipe().target(|| "making a pipe".into())?;
    let tar = tar_name(&manifest.id);
    let parity = std::thread::scope(|scope| {
        let listing = &listing;
        let unpacking = scope.spawn(move || unpack(reader, root, listing));
        let mut writer = writer;
        let read = read_object(unlocked, manifest, &tar, &mut writer, progress);
        drop(writer);
        let unpacked = unpacking.join().unwrap_or_else(|_| Err(Error::state("the unpacking thread broke")));
        // What is wrong with the object explains what the other side saw of it.
        match (read, unpacked) {
            (Err(e), Ok(_)) => Err(e),
            (Err(e), Err(_)) if e.kind == crate::error::ErrorKind::Check => Err(e),
            (_, unpacked) => unpacked,
        }
    })?;
    parity.whole()?;
    building.finish()?;
    Ok(parity)
}

/// What a backup of files holds.
///
/// # Errors
/// A check failure when it is damaged or missing.
pub fn listing(unlocked: &Unlocked, manifest: &Manifest) -> Result<Listing> {
    let mut bytes = Vec::new();
    read_object(unlocked, manifest, &object(&manifest.id, "listing.json"), &mut bytes, &mut |_| Ok(()))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::check(format!("the listing of backup {:?} cannot be understood", manifest.id)).why(e))
}

/// Name of the object with the files.
pub fn tar_name(id: &str) -> String {
    object(id, "files.tar")
}

/// A new folder that is being restored, beside its place and under another name; removed unless it got its own.
pub(super) struct Building<'d> {
    root: PathBuf,
    dest: &'d Path,
}

impl<'d> Building<'d> {
    /// Makes nothing yet.
    ///
    /// # Errors
    /// Refused when `dest` is there.
    pub(super) fn beside(dest: &'d Path) -> Result<Self> {
        if fs::symlink_metadata(dest).is_ok() {
            return Err(Error::refused(format!("restoring into {:?}", dest.display()))
                .why("it is there")
                .hint("Name a new folder; nothing is ever overwritten."));
        }
        let mut unique = [0u8; 4];
        seal::random(&mut unique)?;
        let name = dest.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self { root: parent(dest).join(format!(".{name}.restoring-{}", hex(&unique))), dest })
    }

    /// What is to be made, and filled.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Gives it its name.
    pub(super) fn finish(self) -> Result<()> {
        fs::rename(&self.root, self.dest)
            .target(|| format!("moving the restored files to {:?}", self.dest.display()))?;
        sync_dir(parent(self.dest))
    }
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn parent(dest: &Path) -> &Path {
    dest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unpack(input: impl Read, root: &Path, listing: &Listing) -> Result<Parity> {
    let broken = |e: io::Error| Error::check("the files are not a whole tar stream").why(e);
    let mut archive = tar::Archive::new(input);
    let mut at = Vec::new();
    let mut links = Vec::new();
    let mut folders = Vec::new();
    let mut owners = Owners::default();
    let mut wanted = listing.entries.iter();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        if !path.components().all(|c| matches!(c, Component::Normal(_))) || path.as_os_str().is_empty() {
            return Err(
                Error::check(format!("path {:?} in the backup", path.display())).why("it would leave the folder")
            );
        }
        let Some(listed) = wanted.next().filter(|l| l.path == path.to_string_lossy()) else {
            return Err(Error::check(format!("{:?} does not stand in the listing", path.display())));
        };
        let full = root.join(&path);
        let making = || format!("making {:?}", full.display());
        match (listed.kind, entry.header().entry_type()) {
            (Kind::Folder, tar::EntryType::Directory) => {
                fs::DirBuilder::new().mode(0o700).create(&full).target(making)?;
                folders.push((full.clone(), listed));
            }
            // Links are made last, so that nothing can be written through one.
            (Kind::Link, tar::EntryType::Symlink) => {
                let target = entry.link_name().map_err(broken)?.map(std::borrow::Cow::into_owned).unwrap_or_default();
                links.push((full.clone(), target, listed));
            }
            (Kind::File, tar::EntryType::Regular) => {
                let mut file =
                    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full).target(making)?;
                io::copy(&mut entry, &mut file).map_err(|e| from_io(e, making))?;
                owners.set(&full, listed)?;
                if let Ok(seconds) = entry.header().mtime() {
                    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
                    let _ = file.set_modified(time);
                }
                file.sync_all().target(making)?;
            }
            (Kind::File, tar::EntryType::Link) if listed.same_as.is_some() => {
                let target = entry.link_name().map_err(broken)?.map(std::borrow::Cow::into_owned).unwrap_or_default();
                // Files alone are made so far: nothing leads out of the folder.
                if target.as_os_str().is_empty() || !target.components().all(|c| matches!(c, Component::Normal(_))) {
                    return Err(Error::check(format!("{:?} in the backup is a link to {target:?}", path.display()))
                        .why("it would leave the folder"));
                }
                fs::hard_link(root.join(target), &full).target(making)?;
            }
            (_, other) => {
                return Err(Error::check(format!("{:?} in the backup is of type {other:?}", path.display())));
            }
        }
        at.push((full, listed));
    }
    io::copy(archive.into_inner().by_ref(), &mut io::sink()).map_err(broken)?;
    if let Some(missing) = wanted.next() {
        return Err(Error::check(format!("{:?} stands in the listing and not in the backup", missing.path)));
    }
    for (path, target, listed) in links {
        std::os::unix::fs::symlink(target, &path).target(|| format!("making {:?}", path.display()))?;
        owners.set(&path, listed)?;
    }
    let parity = compare(&at, listing)?;
    for (path, listed) in folders.iter().rev() {
        super::store::sync_dir(path)?;
        owners.set(path, listed)?;
    }
    Ok(Parity { not_set: owners.not_set, ..parity })
}

/// Reads everything again from the disk.
pub(super) fn compare(at: &[(PathBuf, &Listed)], listing: &Listing) -> Result<Parity> {
    let mut parity = Parity { skipped: listing.skipped.clone(), ..Parity::default() };
    for (path, listed) in at {
        let reading = || format!("reading {:?} back", path.display());
        let same = match listed.kind {
            Kind::Folder => path.is_dir(),
            Kind::Link => {
                let target = fs::read_link(path).target(reading)?;
                hex(&Sha256::digest(target.as_os_str().as_encoded_bytes())) == listed.sha256
            }
            Kind::File => {
                let mut hash = Sha256::new();
                let mut file = File::open(path).target(reading)?;
                let mut buffer = vec![0u8; 1 << 17];
                let mut size = 0u64;
                loop {
                    let n = file.read(&mut buffer).target(reading)?;
                    if n == 0 {
                        break;
                    }
                    hash.update(&buffer[..n]);
                    size += n as u64;
                }
                size == listed.size && hex(&hash.finalize()) == listed.sha256
            }
        };
        match (same, listed.kind) {
            (false, _) => parity.differing.push(listed.path.clone()),
            (true, Kind::File) => {
                parity.same += 1;
                parity.bytes += listed.size;
            }
            (true, _) => parity.others += 1,
        }
        if listed.changed {
            parity.changed.push(listed.path.clone());
        }
    }
    Ok(parity)
}
