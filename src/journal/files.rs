//! Files of the state directory: access modes, durable creation, atomic replacement.
//!
//! Files are 0600 and folders 0700. A folder that its owner made group-writable (a bastion with one incident directory
//! for several Unix users) makes everything created below it readable and writable for the group too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Context, Result};

/// Whether what is created in this folder is shared with its group.
pub fn is_shared(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|m| m.mode() & 0o020 != 0)
}

/// The access mode for a new file at `path`: 0660 in a shared folder, else 0600.
pub fn file_mode(path: &Path) -> u32 {
    if path.parent().is_some_and(is_shared) { 0o660 } else { 0o600 }
}

/// Opens for reading and writing, and creates with the right mode; the second value says whether it was created.
pub fn open_or_create(path: &Path) -> io::Result<(File, bool)> {
    loop {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(|f| (f, false)),
        }
        match create_new(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {} // somebody was faster: open theirs
            other => return other.map(|f| (f, true)),
        }
    }
}

/// Creates a file that must not exist yet, readable and writable, with the right mode.
pub fn create_new(path: &Path) -> io::Result<File> {
    let mode = file_mode(path);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
    if mode & 0o060 != 0 {
        // The umask usually takes the group's write bit away again.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

/// Creates a folder and those above it, as far as they are missing.
pub fn create_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir(parent)?;
    }
    let shared = parent.is_some_and(is_shared);
    let what = || format!("cannot create the folder {path:?}");
    match fs::DirBuilder::new().mode(if shared { 0o770 } else { 0o700 }).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.state(what)?,
    }
    if shared {
        // Keeps a set-group-id bit that was inherited from the folder above.
        let inherited = fs::metadata(path).state(what)?.mode() & 0o2000;
        fs::set_permissions(path, fs::Permissions::from_mode(0o770 | inherited)).state(what)?;
    }
    Ok(())
}

/// Makes the entries of a folder durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()
}

/// Replaces a file as a whole: whoever opens it sees the old bytes or the new ones, also after a power cut.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("cannot write {path:?}");
    let dir = path.parent().unwrap_or(Path::new("."));
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut file = tempfile::Builder::new().prefix(".breakglass-").tempfile_in(dir).state(what)?;
    file.write_all(bytes).state(what)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(file_mode(path))).state(what)?;
    file.as_file().sync_all().state(what)?;
    file.persist(path).state(what)?;
    sync_dir(dir).state(what)
}
