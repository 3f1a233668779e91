//! A folder as a place for objects: each a file that is whole, durable and under its name, or is not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Access, Committed, Entry, Existing, Store, Upload};
use crate::backup::container::header::check_name;
use crate::backup::container::{from_io, hex, seal, to_io};
use crate::backup::repository::{COPY, INFO};
use crate::backup::stamp::Stamp;
use crate::error::{Context, Error, Result};

/// Objects as files under a directory: temporary name, fsync, rename, fsync of every folder up to the root.
#[derive(Debug, Clone)]
pub struct DirStore {
    root: PathBuf,
}

const TEMPORARY: &str = ".tmp-";
/// Folder of backups, each of which has one of its own.
const BACKUPS: &str = "backups";
/// File that holds [`RESERVE_BYTES`] for the moment when the disk is full: entries of a few backups that are given up.
const RESERVE: &str = ".reserve";
const RESERVE_BYTES: usize = 64 << 10;
/// Largest object that is looked at before it is replaced.
const MAX_SWAPPED: u64 = 1 << 20;

impl DirStore {
    /// The directory need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
    fn path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.root.join(name))
    }
}

fn make_dirs(dir: &Path, mode: u32) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dirs(parent, if mode == 0o700 { 0o755 } else { mode })?;
    }
    match fs::DirBuilder::new().mode(mode).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(hint_access(Error::target(format!("creating folder {:?}", dir.display())).why(&e), &e)),
        Ok(()) if mode == 0o700 => Ok(()),
        Ok(()) => adopt(dir),
    }
}

/// What root makes in somebody's folder belongs to them: a folder of root's would stop the server's next archive command.
fn adopt(path: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let owner = |p: &Path| fs::metadata(p).map(|m| (m.uid(), m.gid()));
    let Some(parent) = path.parent().filter(|_| rustix::process::geteuid().is_root()) else { return Ok(()) };
    let giving = || format!("giving {:?} to the owner of its folder", path.display());
    let (theirs, mine) = (owner(parent).target(giving)?, owner(path).target(giving)?);
    if theirs == mine { Ok(()) } else { chown(path, Some(theirs.0), Some(theirs.1)).target(giving) }
}

/// Makes a folder's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).target(|| format!("making folder {:?} durable", dir.display()))
}

/// From the folder that holds `path` up to `root`: a folder made by a process that died may not be durable yet.
fn sync_up(path: &Path, root: &Path) -> Result<()> {
    let mut dir = path.parent();
    while let Some(d) = dir {
        sync_dir(d)?;
        if d == root {
            break;
        }
        dir = d.parent();
    }
    Ok(())
}

/// Bytes after which the disk is asked to begin writing: what is left to be made durable at the end is no more than that.
const BEGIN_WRITING: u64 = 8 << 20;

struct DirUpload {
    file: Option<File>,
    written: u64,
    begun: u64,
    temporary: PathBuf,
    path: PathBuf,
    root: PathBuf,
}

impl Write for DirUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => {
                let n = file.write(bytes).map_err(|e| full(&self.path, e))?;
                self.written += n as u64;
                if self.written - self.begun >= BEGIN_WRITING {
                    begin_writing(file, self.begun, self.written - self.begun);
                    self.begun = self.written;
                }
                Ok(n)
            }
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets the disk write meanwhile what would otherwise wait for the end. Linux begins to write what it is told will not be
/// needed (`posix_fadvise(2)`), and keeps what is not written yet; it is a wish, and nothing depends on it.
fn begin_writing(file: &File, from: u64, bytes: u64) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, from, std::num::NonZeroU64::new(bytes), rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = (file, from, bytes);
}

impl Drop for DirUpload {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
        // Of a backup that is not made after all not even the folder stays. One with something in it cannot be removed.
        let folder = self.temporary.parent().filter(|f| f.parent() == Some(&self.root.join(BACKUPS)));
        if let (Some(folder), true) = (folder, self.file.is_some()) {
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Upload for DirUpload {
    fn commit(mut self: Box<Self>, existing: Existing) -> Result<Committed> {
        let shown = self.path.display().to_string();
        if let Some(file) = self.file.take() {
            let made = file.sync_all().map_err(|e| full(&self.path, e));
            made.map_err(|e| from_io(e, || format!("making {shown:?} durable")))?;
        }
        match existing {
            Existing::Replace => fs::rename(&self.temporary, &self.path).target(|| format!("storing {shown:?}"))?,
            Existing::Keep => match rename_new(&self.temporary, &self.path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Committed::Kept),
                other => other.target(|| format!("storing {shown:?}"))?,
            },
        }
        sync_up(&self.path, &self.root)?;
        Ok(Committed::Stored)
    }
}

/// Renames without replacing.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some network and older file systems do not know the flag.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {}
            other => return other.map_err(Into::into),
        }
    }
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

impl Store for DirStore {
    fn url(&self) -> String {
        self.root.display().to_string()
    }

    fn create(&self, name: &str, access: Access) -> Result<Box<dyn Upload>> {
        let path = self.path(name)?;
        let (dir_mode, file_mode) = match access {
            Access::Private => (0o700, 0o600),
            Access::Group => (0o750, 0o640),
            Access::Public => (0o755, 0o644),
        };
        let dir = path.parent().unwrap_or(&self.root);
        make_dirs(dir, dir_mode)?;
        let mut unique = [0u8; 8];
        seal::random(&mut unique)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!("{TEMPORARY}{file_name}-");
        sweep(dir, &prefix);
        let temporary = dir.join(format!("{prefix}{}-{}", std::process::id(), hex(&unique)));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(file_mode)
            .open(&temporary)
            .map_err(|e| hint_access(Error::target(format!("writing in {:?}", dir.display())).why(&e), &e))?;
        // Held until the file is closed: it says that somebody is still writing.
        let _ = file.try_lock();
        if access != Access::Private {
            adopt(&temporary)?;
        }
        if access == Access::Public {
            // Whatever the umask: the archiving user must be able to read it.
            file.set_permissions(fs::Permissions::from_mode(file_mode))
                .target(|| format!("setting the mode of {name:?}"))?;
        }
        Ok(Box::new(DirUpload { file: Some(file), written: 0, begun: 0, temporary, path, root: self.root.clone() }))
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>> {
        let path = self.path(name)?;
        match File::open(&path) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(hint_access(Error::target(format!("opening {:?}", path.display())).why(&e), &e)),
        }
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        let path = self.path(name)?;
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(hint_access(Error::target(format!("opening {:?}", path.display())).why(&e), &e)),
        };
        let reading = || format!("reading {:?}", path.display());
        let length = range.end.saturating_sub(range.start);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.seek(io::SeekFrom::Start(range.start)).target(reading)?;
        file.take(length).read_to_end(&mut bytes).target(reading)?;
        Ok(Some(bytes))
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        let path = self.path(name)?;
        match fs::metadata(&path) {
            Ok(m) => Ok(Some(m.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(hint_access(Error::target(format!("looking at {:?}", path.display())).why(&e), &e)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let folder = prefix.trim_end_matches('/');
        let dir = if folder.is_empty() { self.root.clone() } else { self.path(folder)? };
        let mut found = Vec::new();
        walk(&dir, folder, &mut found)?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<bool> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::target(format!("removing {:?}", path.display())).why(e)),
        }
        let dir = path.parent().unwrap_or(&self.root);
        // A backup's folder goes with its last object. Folders of the log stay: the archiver may be about to use one.
        if name.starts_with("backups/") && fs::remove_dir(dir).is_ok() {
            return sync_dir(dir.parent().unwrap_or(&self.root)).map(|()| true);
        }
        sync_dir(dir)?;
        Ok(true)
    }

    fn leftovers(&self) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        let mut folders = vec![(self.root.clone(), String::new())];
        while let Some((dir, prefix)) = folders.pop() {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(hint_access(Error::target(format!("listing {:?}", dir.display())).why(&e), &e)),
            };
            for entry in entries.flatten() {
                let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
                let full = format!("{prefix}{name}");
                if meta.is_dir() && !name.starts_with('.') {
                    if prefix.strip_suffix('/') == Some(BACKUPS) && is_deserted(&entry) {
                        found.push(Entry { name: format!("{full}/"), size: 0, stamp: None });
                    }
                    folders.push((entry.path(), format!("{full}/")));
                } else if meta.is_file() && name.starts_with(TEMPORARY) && abandoned(&entry) {
                    found.push(Entry { name: full, size: meta.len(), stamp: None });
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn remove_leftover(&self, name: &str) -> Result<bool> {
        let (dir, file) = name.rsplit_once('/').unwrap_or(("", name));
        if file.is_empty() && dir.split('/').count() == 2 && dir.starts_with(BACKUPS) {
            // Somebody may have begun to use it meanwhile: then it is not empty, and stays.
            return Ok(fs::remove_dir(self.path(dir)?).is_ok());
        }
        if !file.starts_with(TEMPORARY) {
            return Err(Error::state(format!("{name:?} is not an unfinished object")));
        }
        let in_backup = dir.starts_with(BACKUPS);
        let dir = if dir.is_empty() { self.root.clone() } else { self.path(dir)? };
        match fs::remove_file(dir.join(file)) {
            Ok(()) if in_backup => {
                let _ = fs::remove_dir(dir);
                Ok(true)
            }
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::target(format!("removing {name:?}")).why(e)),
        }
    }

    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.root.join(BACKUPS)) else { return };
        for entry in entries.flatten().filter(is_deserted) {
            let _ = fs::remove_dir(entry.path());
        }
    }

    fn release_reserve(&self) -> Result<bool> {
        match fs::remove_file(self.root.join(RESERVE)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::target(format!("removing {RESERVE:?}")).why(e)),
        }
    }

    fn keep_reserve(&self) -> Result<()> {
        let path = self.root.join(RESERVE);
        if fs::metadata(&path).is_ok_and(|m| m.len() == RESERVE_BYTES as u64) {
            return Ok(());
        }
        // Random: some file systems take no room for zeros.
        let mut bytes = vec![0u8; RESERVE_BYTES];
        seal::random(&mut bytes)?;
        let written = File::create(&path).and_then(|mut f| f.write_all(&bytes).and_then(|()| f.sync_all()));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written.target(|| format!("writing {:?}", path.display()))
    }

    fn prepare(&self, wal_owner: Option<(u32, u32)>) -> Result<()> {
        let wal = self.root.join("wal");
        for dir in [&self.root, &wal] {
            fs::create_dir_all(dir).target(|| format!("creating folder {:?}", dir.display()))?;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
                .target(|| format!("setting the mode of {:?}", dir.display()))?;
        }
        let _ = self.keep_reserve();
        match wal_owner {
            Some((uid, gid)) => std::os::unix::fs::chown(&wal, Some(uid), Some(gid))
                .target(|| format!("giving {:?} to user {uid}", wal.display())),
            None => Ok(()),
        }
    }

    fn foreign(&self, ours: &[&str]) -> Result<Option<String>> {
        match fs::read_dir(&self.root) {
            Ok(entries) => Ok(entries
                .filter_map(|e| e.ok()?.file_name().into_string().ok())
                .find(|n| !ours.contains(&n.as_str()) && n != "lost+found" && !n.starts_with('.'))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::target(format!("looking at {:?}", self.root.display())).why(e)),
        }
    }

    fn swap(&self, name: &str, access: Access, is: &dyn Fn(&[u8]) -> bool, new: &[u8]) -> Result<bool> {
        let path = self.path(name)?;
        let dir = path.parent().unwrap_or(&self.root);
        // Held while we look and replace; released when it is closed, also by our death.
        let lock = File::open(dir).target(|| format!("opening folder {:?}", dir.display()))?;
        lock.lock().target(|| format!("locking folder {:?}", dir.display()))?;
        let swapped = match self.get(name, MAX_SWAPPED)? {
            Some(bytes) if is(&bytes) => self.put(name, access, new, Existing::Replace).map(|_| true),
            _ => Ok(false),
        };
        let _ = lock.unlock();
        swapped
    }

    fn settle(&self, name: &str) -> Result<()> {
        sync_up(&self.path(name)?, &self.root)
    }
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<Entry>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(hint_access(Error::target(format!("listing {:?}", dir.display())).why(&e), &e)),
    };
    for entry in entries {
        let entry = entry.target(|| format!("listing {:?}", dir.display()))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue; // temporary files, and what file systems put there
        }
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        match entry.metadata() {
            Ok(m) if m.is_dir() => walk(&entry.path(), &name, found)?,
            Ok(m) => found.push(Entry { name, size: m.len(), stamp: Some(Stamp::of_file(&m)) }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
            Err(e) => return Err(Error::target(format!("looking at {name:?}")).why(e)),
        }
    }
    Ok(())
}

/// How long an unfinished file is left alone even when nobody holds it: its writer may not have got to locking it.
const SWEEP_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// Removes what killed writers of the same object left. Failing to is no error: it only takes space.
fn sweep(dir: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        if abandoned(&entry) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a folder is empty, and nobody can be about to write into it.
fn is_deserted(entry: &fs::DirEntry) -> bool {
    let Ok(meta) = entry.metadata() else { return false };
    let old = meta.modified().ok().and_then(|t| t.elapsed().ok()).is_some_and(|age| age > SWEEP_AFTER);
    meta.is_dir() && old && fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none())
}

/// Whether nobody writes an unfinished file any more.
fn abandoned(entry: &fs::DirEntry) -> bool {
    let old = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
    old.is_some_and(|age| age > SWEEP_AFTER) && File::open(entry.path()).is_ok_and(|f| f.try_lock().is_ok())
}

/// Names the disk in an error of writing to it that is full, and what may go there: of a repository's own backups some may, a copy
/// has what its repository has.
fn full(path: &Path, e: io::Error) -> io::Error {
    if !matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return e;
    }
    let root = path.ancestors().find(|p| p.join(COPY).exists() || p.join(INFO).exists());
    let at = root.or(path.parent()).unwrap_or(path);
    let error = Error::target(format!("storing {:?}", path.display().to_string())).why(e);
    let disk = format!("The disk of {:?} is full", at.display().to_string());
    to_io(match root {
        Some(root) if root.join(COPY).exists() => error
            .hint(format!("{disk}: free space there. It is the disk of a copy; the repository itself may have room.")),
        Some(_) => error
            .hint(format!("{disk}: free space there, or let `breakglass backup cleanup --dry-run` say what may go.")),
        None => error.hint(format!("{disk}: free space there.")),
    })
}

fn hint_access(error: Error, e: &io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::PermissionDenied => {
            error.hint("Give the user this runs as access to the repository's folder, or run as its owner.")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            error.hint("Free space on the disk of that folder.")
        }
        _ => error,
    }
}
