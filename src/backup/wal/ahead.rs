//! `wal archive` as a server calls it: one file after the other, each call waited for. The call for one file also stores the
//! next ones that wait, several at a time, so that the calls for those only have to see that it was done.
//!
//! What was stored ahead is remembered in a note: the file as it was (device, inode, size, times of change) and the content tag
//! of its object. A note spares the later call reading the file again, nothing else: that call still reads the stored object
//! to its end, compares its checksum and its tag, and makes its folders durable. Without a note, or with one of another file,
//! everything is compared as ever, so notes may be lost at any time.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::super::container::hex;
use super::super::repository::Repository;
use super::archive::{Archived, tagged, undamaged};
use super::fetch::object_type;
use super::name::WalName;
use crate::error::Result;

/// Files stored side by side.
const AT_ONCE: usize = 4;
/// Most files that one call stores beside its own.
const AHEAD: usize = 15;
/// No further one is begun after this: a server that shuts down waits for the call.
const BEGIN_WITHIN: Duration = Duration::from_secs(2);
/// Notes that nobody asked for are removed after this.
const FORGET: Duration = Duration::from_secs(24 * 3600);

/// Archives `path` under its own name into the repository at `url`, an absolute one, and beside it the next ones that wait in
/// `archive_status` of its folder. What became of those is told by the calls for them. `key` is the one it is archived for.
///
/// # Errors
/// As [`super::archive`], for `path` alone; refused when the repository is written for another key than that.
pub fn archive_ahead(url: &str, path: &Path, key: Option<&str>) -> Result<Archived> {
    let repository = Repository::open_absolute(url)?;
    if let Some(key) = key {
        repository.expect_key(key)?;
    }
    let name = WalName::parse(&path.file_name().unwrap_or_default().to_string_lossy())?;
    let notes = Notes::open();
    if let Some(notes) = &notes
        && notes.holds(&repository, path, &name)?
    {
        return Ok(Archived::AlreadyThere);
    }
    let mut others = waiting(path, &name);
    if let Some(notes) = &notes {
        others.retain(|(path, name)| !notes.is_for(&repository, path, name));
    }
    others.truncate(AHEAD);
    if others.is_empty() {
        return tagged(&repository, path, &name).map(|(done, _)| done);
    }
    if let Some(notes) = &notes {
        notes.sweep();
    }
    let began = Instant::now();
    let threads = AT_ONCE.min(others.len() + 1) - 1;
    // Emptied when one fails: what stops one, a full disk or a repository that is away, stops the others, too.
    let queue = Mutex::new(VecDeque::from(others));
    let locked = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while began.elapsed() < BEGIN_WITHIN {
            let Some((path, name)) = locked().pop_front() else { return };
            if store_ahead(&repository, &path, &name, notes.as_ref()).is_err() {
                locked().clear();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            // Without a thread there is less at once, nothing else.
            let _ = std::thread::Builder::new().name("ahead".into()).spawn_scoped(scope, work);
        }
        let own = tagged(&repository, path, &name);
        match &own {
            Ok(_) => work(),
            Err(_) => locked().clear(),
        }
        own.map(|(done, _)| done)
    })
}

fn store_ahead(repository: &Repository, path: &Path, name: &WalName, notes: Option<&Notes>) -> Result<()> {
    let before = Seen::of(path);
    let (_, tag) = tagged(repository, path, name)?;
    if let (Some(notes), Some(before)) = (notes, before)
        && Seen::of(path).as_ref() == Some(&before)
    {
        notes.write(&Note { repository: hex(&repository.id()), object: name.object(), file: before, tag: hex(&tag) });
    }
    Ok(())
}

/// Segments behind `name` that the server wants archived, in the order it will ask for them.
fn waiting(path: &Path, name: &WalName) -> Vec<(PathBuf, WalName)> {
    let (Some(folder), WalName::Segment(own)) = (path.parent(), name) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(folder.join("archive_status")) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|e| match WalName::parse(e.file_name().to_str()?.strip_suffix(".ready")?) {
            Ok(WalName::Segment(s)) if s > *own => Some(s),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|s| (folder.join(s.to_string()), WalName::Segment(s))).collect()
}

/// A file as it was when it was stored: any change to it changes one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(path: &Path) -> Option<Self> {
        let m = fs::metadata(path).ok()?;
        Some(Self {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    repository: String,
    object: String,
    file: Seen,
    tag: String,
}

/// The notes of this user on this machine, in the folder for temporary files.
struct Notes {
    folder: PathBuf,
}

impl Notes {
    /// `None` when there can be none: the folder is somebody else's, or cannot be made.
    fn open() -> Option<Self> {
        let user = rustix::process::geteuid().as_raw();
        let folder = std::env::temp_dir().join(format!("breakglass-archive-{user}"));
        let _ = fs::DirBuilder::new().mode(0o700).create(&folder);
        // Anybody may make a folder of that name there; what is in it counts only when nobody else can write in it.
        let m = fs::symlink_metadata(&folder).ok()?;
        (m.is_dir() && m.uid() == user && m.mode() & 0o077 == 0).then_some(Self { folder })
    }

    fn file(&self, repository: &Repository, name: &WalName) -> PathBuf {
        self.folder.join(format!("{}-{name}", hex(&repository.id())))
    }

    fn read(&self, repository: &Repository, path: &Path, name: &WalName) -> Option<Note> {
        let note: Note = serde_json::from_slice(&fs::read(self.file(repository, name)).ok()?).ok()?;
        let same = note.repository == hex(&repository.id()) && note.object == name.object();
        (same && Seen::of(path).as_ref() == Some(&note.file)).then_some(note)
    }

    /// Whether there is a note of this very file.
    fn is_for(&self, repository: &Repository, path: &Path, name: &WalName) -> bool {
        self.read(repository, path, name).is_some()
    }

    /// Whether this very file was stored, and its object is there, undamaged and durable. The note is used up.
    fn holds(&self, repository: &Repository, path: &Path, name: &WalName) -> Result<bool> {
        let note = self.read(repository, path, name);
        let _ = fs::remove_file(self.file(repository, name));
        let Some(note) = note else { return Ok(false) };
        let Some(stored) = undamaged(repository, &note.object, object_type(name))? else { return Ok(false) };
        if hex(&stored.content_tag) != note.tag {
            return Ok(false);
        }
        repository.store().settle(&note.object)?;
        Ok(true)
    }

    /// Failing to write one costs time later, nothing else.
    fn write(&self, note: &Note) {
        let Some(name) = note.object.rsplit('/').next().and_then(|n| n.strip_suffix(super::super::repository::SUFFIX))
        else {
            return;
        };
        let file = self.folder.join(format!("{}-{name}", note.repository));
        let temporary = self.folder.join(format!(".{name}-{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            std::io::Write::write_all(&mut out, &serde_json::to_vec(note)?)?;
            fs::rename(&temporary, &file)
        };
        if write().is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }

    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let now = SystemTime::now();
        for entry in entries.flatten() {
            let modified = entry.metadata().and_then(|m| m.modified());
            if modified.is_ok_and(|t| now.duration_since(t).is_ok_and(|age| age > FORGET)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
