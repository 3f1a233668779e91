//! A base backup into a folder that holds most of it already: what is the same stays, the rest is rewritten.
//!
//! Every byte comes from the backup and is authenticated as in a full restore; it is compared with what lies on disk, 8 kB at a
//! time, and written only where it differs. No checksum is believed for that: PostgreSQL's manifest has 32 bits per file. What
//! is saved is writing, and room for a second copy.
//!
//! Meanwhile the folder bears another name, so that no server is started on a half of each. Killed, it keeps that name and the
//! next one goes on.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::super::catalog::{Catalog, Manifest};
use super::super::repository::Unlocked;
use super::super::store::sync_dir;
use super::Progress;
use super::restore::{Folder, RestoreOptions, make_durable, read_base};
use super::stream::Sink;
use crate::error::{Context, Error, Result};
use crate::postgres::running::running_in;

/// What a data directory's name ends in while it is rewritten.
pub const REWRITING: &str = ".rewriting";
/// Size of a page of a table's file.
const PAGE: usize = 8192;

/// File in a data directory while it is rewritten: of which cluster and version the backup is.
const OF: &str = "breakglass-rewriting.json";

/// What [`OF`] says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Of {
    system_identifier: Option<String>,
    postgres_version: Option<String>,
}

impl Of {
    fn backup(manifest: &Manifest) -> Self {
        let version = manifest.postgres_version.as_deref().and_then(|v| v.split('.').next());
        Self { system_identifier: manifest.system_identifier.clone(), postgres_version: version.map(Into::into) }
    }
}

/// What was there already, and what had to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reused {
    /// Bytes that were the same and were left as they are.
    pub bytes: u64,
    /// Files and folders that are not in the backup and were removed.
    pub removed: u64,
}

/// Makes the data directory `data`, of the backup's cluster and with no server on it, the base backup `id` again.
///
/// `progress` is told the bytes done and how many of them were reused.
///
/// # Errors
/// Refused, with nothing touched: no data directory, a running server, another cluster, another restore at work. After that a
/// failure leaves the folder under its other name, and the next call goes on with it.
pub fn restore_delta(
    unlocked: &Unlocked,
    id: &str,
    data: &Path,
    options: &RestoreOptions,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<(Manifest, Reused)> {
    let manifest = Catalog::load(unlocked)?.find(id)?.manifest.clone();
    let rewriting = rewriting_name(data);
    let unfinished = |e: Error| {
        e.hint(format!("What was there lies half rewritten in {:?}.", rewriting.display())).hint(format!(
            "To go on with it: pitr restore --delta --dir {}; or restore into a new folder.",
            data.parent().unwrap_or(Path::new("/")).display()
        ))
    };
    let held = take(data, &rewriting, &manifest)?;
    let of = rewriting.join(OF);
    write_of(&of, &manifest).map_err(unfinished)?;
    let parent = data.parent().unwrap_or(Path::new("/"));
    let reused = Rc::new(Cell::new(0));
    let folder = Folder { root: rewriting.clone(), owner: options.owner };
    let mut sink = Rewritten { folder, seen: BTreeSet::new(), reused: reused.clone() };
    let count = reused.clone();
    let mut told: Progress<'_> = &mut |done| progress(done, count.get());
    read_base(unlocked, &manifest, &mut sink, (options.threads, true), &mut told).map_err(unfinished)?;
    sink.seen.insert(OF.to_string());
    let removed = remove_others(&rewriting, "", &sink.seen).map_err(unfinished)?;
    make_durable(&rewriting).map_err(unfinished)?;
    // All of it is the backup's by now: its own files say of which cluster it is.
    remove(&of).and_then(|()| sync_dir(&rewriting)).map_err(unfinished)?;
    let naming = || format!("giving {:?} its name again", data.display());
    fs::rename(&rewriting, data).target(naming).map_err(unfinished)?;
    sync_dir(parent)?;
    let _ = held.unlock();
    Ok((manifest, Reused { bytes: reused.get(), removed }))
}

/// The name of a data directory while it is rewritten.
pub fn rewriting_name(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_os_string();
    name.push(REWRITING);
    data.with_file_name(name)
}

/// Checks the folder and gives it its other name; what is returned says to others that somebody is at work.
fn take(data: &Path, rewriting: &Path, manifest: &Manifest) -> Result<File> {
    let refused = || Error::refused(format!("restoring into {:?} what differs", data.display()));
    let (there, begun) = (data.exists(), rewriting.exists());
    let folder = match (there, begun) {
        (true, false) => data,
        (false, true) => rewriting,
        (true, true) => {
            return Err(refused()
                .why(format!("{:?} is there, too, from a restore that was broken off", rewriting.display()))
                .hint("Remove the one of the two that is not wanted."));
        }
        (false, false) => {
            return Err(refused().why("there is no such data directory").hint("Without --delta it is made anew."));
        }
    };
    if let Some((_, pid)) = running_in(folder) {
        return Err(refused()
            .why(format!("a server is running on it, process {pid}"))
            .hint("Stop it first, or restore into a new folder; nothing was touched."));
    }
    let held = File::open(folder).target(|| format!("opening {:?}", folder.display()))?;
    if held.try_lock().is_err() {
        return Err(refused().why("another restore is at work on it").hint("Wait for it, or stop it."));
    }
    if begun {
        begun_for(rewriting, manifest)?;
    } else {
        same_cluster(data, manifest)?;
        fs::rename(data, rewriting).target(|| format!("renaming {:?}", data.display()))?;
        sync_dir(data.parent().unwrap_or(Path::new("/")))?;
    }
    Ok(held)
}

/// Says durably for which cluster the folder is being rewritten, before anything of it is.
fn write_of(path: &Path, manifest: &Manifest) -> Result<()> {
    let writing = || format!("writing {:?}", path.display());
    let bytes = serde_json::to_vec(&Of::backup(manifest)).state(writing)?;
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    // A new file, whatever was there: a name may lead elsewhere.
    let _ = fs::remove_file(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut f| f.write_all(&bytes).and_then(|()| f.sync_all())).target(writing)?;
    sync_dir(path.parent().unwrap_or(Path::new("/")))
}

/// Refuses a folder that another restore began for the backup of another cluster. Its own files may be of two minds by now; where
/// that restore did not come to say what it is for, they are as they were.
fn begun_for(rewriting: &Path, manifest: &Manifest) -> Result<()> {
    let said = fs::read(rewriting.join(OF)).ok().and_then(|bytes| serde_json::from_slice::<Of>(&bytes).ok());
    let Some(said) = said else { return same_cluster(rewriting, manifest) };
    let wanted = Of::backup(manifest);
    if said == wanted {
        return Ok(());
    }
    let name = |of: &Of| {
        let of = [&of.system_identifier, &of.postgres_version].map(|v| v.clone().unwrap_or_default());
        format!("cluster {} of PostgreSQL {}", of[0], of[1])
    };
    Err(Error::refused(format!("going on with what was begun in {:?}", rewriting.display()))
        .why(format!("it is of {}, the backup of {}", name(&said), name(&wanted)))
        .hint(
            "Nothing was touched. Go on with a backup of that cluster, or restore into a new folder, without --delta.",
        ))
}

/// Refuses a data directory that is not of the backup's cluster and major version.
///
/// # Errors
/// Refused, naming both; or it is no data directory.
pub fn same_cluster(data: &Path, manifest: &Manifest) -> Result<()> {
    let shown = data.display();
    let refused = || Error::refused(format!("restoring into {shown:?} what differs"));
    let mut first = [0u8; 8];
    let control = data.join("global").join("pg_control");
    let read = File::open(&control).and_then(|mut f| f.read_exact(&mut first));
    read.map_err(|e| {
        refused()
            .why(format!("it is no data directory of PostgreSQL: {:?}: {e}", control.display()))
            .hint("Name the folder of an earlier recovery, or a data directory; without --delta a new folder is made.")
    })?;
    // PostgreSQL's `ControlFileData` begins with the system identifier.
    let (of, expected) = (u64::from_ne_bytes(first).to_string(), manifest.system_identifier.clone());
    if expected.as_ref() != Some(&of) {
        return Err(refused()
            .why(format!("it is of cluster {of}, the backup of cluster {}", expected.unwrap_or_default()))
            .hint("Nothing was touched. Name the folder of the right cluster, or a new one without --delta."));
    }
    let version = fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
    let (version, wanted) = (version.trim(), manifest.postgres_version.as_deref().unwrap_or_default());
    if version != wanted.split('.').next().unwrap_or_default() {
        return Err(refused()
            .why(format!("it is of PostgreSQL {version}, the backup of {wanted}"))
            .hint("Nothing was touched. Restore into a new folder, without --delta."));
    }
    Ok(())
}

/// A folder that is compared with what comes.
struct Rewritten {
    folder: Folder,
    seen: BTreeSet<String>,
    reused: Rc<Cell<u64>>,
}

impl Rewritten {
    /// Owner and mode as a restored one has them.
    fn as_restored(&self, path: &Path, meta: &fs::Metadata, mode: u32) -> Result<()> {
        if let Some((uid, gid)) = self.folder.owner.filter(|o| *o != (meta.uid(), meta.gid())) {
            chown(path, Some(uid), Some(gid)).target(|| format!("giving {:?} to user {uid}", path.display()))?;
        }
        if meta.mode() & 0o7777 != mode {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(path, permissions).target(|| format!("setting the mode of {:?}", path.display()))?;
        }
        Ok(())
    }
}

impl Sink for Rewritten {
    fn folder(&mut self, path: &str) -> Result<()> {
        let full = self.folder.root.join(path);
        self.seen.insert(path.to_string());
        match fs::symlink_metadata(&full) {
            Ok(m) if m.is_dir() => self.as_restored(&full, &m, 0o700),
            Ok(_) => {
                remove(&full)?;
                self.folder.make(&full)
            }
            Err(_) => self.folder.make(&full),
        }
    }

    fn file(&mut self, path: &str) -> Result<Box<dyn Write>> {
        let full = self.folder.root.join(path);
        self.seen.insert(path.to_string());
        match fs::symlink_metadata(&full) {
            // With a second name it is somebody else's file, too: theirs stays as it is.
            Ok(m) if m.is_file() && m.nlink() == 1 => {
                let file = OpenOptions::new().read(true).write(true).custom_flags(NO_FOLLOW).open(&full);
                let file = file.target(|| format!("opening {:?}", full.display()))?;
                self.as_restored(&full, &m, 0o600)?;
                let old = Vec::with_capacity(PAGE);
                Ok(Box::new(Compared { file, len: m.len(), at: 0, old, reused: self.reused.clone() }))
            }
            Ok(_) => {
                remove(&full)?;
                self.folder.file(path)
            }
            Err(_) => self.folder.file(path),
        }
    }
}

/// `O_NOFOLLOW`, as the number the system wants.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// A file that is written only where it differs.
struct Compared {
    file: File,
    /// Bytes it had.
    len: u64,
    at: u64,
    old: Vec<u8>,
    reused: Rc<Cell<u64>>,
}

impl Write for Compared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Up to the next border of a page: pieces come in any length.
        let n = bytes.len().min(PAGE - (self.at % PAGE as u64) as usize);
        let bytes = &bytes[..n];
        self.old.resize(n, 0);
        let inside = self.at + n as u64 <= self.len;
        if inside && self.file.read_exact_at(&mut self.old, self.at).is_ok() && self.old == bytes {
            self.reused.set(self.reused.get() + n as u64);
        } else {
            self.file.write_all_at(bytes, self.at)?;
        }
        self.at += n as u64;
        Ok(n)
    }
    /// The end: what stood behind it goes.
    fn flush(&mut self) -> io::Result<()> {
        if self.len > self.at { self.file.set_len(self.at) } else { Ok(()) }
    }
}

/// Removes what did not come by; returns how many entries.
fn remove_others(root: &Path, prefix: &str, seen: &BTreeSet<String>) -> Result<u64> {
    let dir = root.join(prefix);
    let listing = || format!("listing {:?}", dir.display());
    let mut removed = 0;
    for entry in fs::read_dir(&dir).target(listing)? {
        let entry = entry.target(listing)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        if !seen.contains(&path) {
            remove(&entry.path())?;
            removed += 1;
        } else if entry.file_type().target(listing)?.is_dir() {
            removed += remove_others(root, &path, seen)?;
        }
    }
    Ok(removed)
}

/// Removes a file, a link itself, or a folder with all that is in it.
fn remove(path: &Path) -> Result<()> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let done = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    done.target(|| format!("removing {:?}", path.display()))
}
