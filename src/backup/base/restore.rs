//! A base backup back into a folder, and the same reading without a folder: verification.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use serde::Serialize;

use super::super::catalog::{self, Catalog, Change, Manifest};
use super::super::container::{ObjectType, Reader, Summary, from_io, hex, seal, to_io, unhex};
use super::super::damage;
use super::super::logical;
use super::super::repository::{Unlocked, of_object};
use super::super::store::sync_dir;
use super::super::wal::{Continuity, DEFAULT_SEGMENT_SIZE, Depth, Segment, check_continuity, parse_lsn};
use super::manifest::PgManifest;
use super::stream::{Scan, Sink, With};
use super::{Progress, configuration_name, pg_manifest_name, tar_name};
use crate::error::{Context, Error, Result};

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// User and group the data directory shall belong to, when started as root.
    pub owner: Option<(u32, u32)>,
    /// Threads to use; with more than one, opening and writing run side by side.
    pub threads: usize,
}

/// Restores a base backup as the data directory `dest`, which must not exist or be empty. It appears whole or not at all:
/// files go to a folder beside it, every one is compared with PostgreSQL's manifest, all is made durable, then renamed.
///
/// # Errors
/// Any damage is a check failure and leaves nothing behind.
pub fn restore_base(
    unlocked: &Unlocked,
    id: &str,
    dest: &Path,
    options: &RestoreOptions,
    progress: Progress<'_>,
) -> Result<Manifest> {
    let manifest = Catalog::load(unlocked)?.find(id)?.manifest.clone();
    let shown = dest.display().to_string();
    match fs::read_dir(dest).map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            return Err(Error::refused(format!("restoring into {shown:?}"))
                .why("the folder is not empty")
                .hint("Name a new folder; nothing is ever overwritten."));
        }
        Ok(false) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::target(format!("looking at {shown:?}")).why(e)),
    }
    let parent = dest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unique = [0u8; 4];
    seal::random(&mut unique)?;
    let name = dest.file_name().unwrap_or_default().to_string_lossy();
    sweep(parent, &format!(".{name}{RESTORING}"));
    let temporary = Temporary(parent.join(format!(".{name}{RESTORING}{}", hex(&unique))));
    let mut folder = Folder { root: temporary.0.clone(), owner: options.owner };
    // Locked before it gets its name: one of that name that nobody holds was left by a restore that was killed.
    let unnamed = Temporary(parent.join(format!(".{name}.new-{}", hex(&unique))));
    folder.make(&unnamed.0)?;
    let held = File::open(&unnamed.0).target(|| format!("opening {:?}", unnamed.0.display()))?;
    let _ = held.try_lock();
    fs::rename(&unnamed.0, &temporary.0).target(|| format!("naming {:?}", temporary.0.display()))?;
    read_base(unlocked, &manifest, &mut folder, (options.threads, true), progress)?;
    make_durable(&temporary.0)?;
    fs::rename(&temporary.0, dest).target(|| format!("moving the restored files to {shown:?}"))?;
    sync_dir(parent)?;
    Ok(manifest)
}

/// What is appended to the settings of a restored server.
const ALONE: &str = "\n# Restored from a backup: it must not archive into the repository of the server it is a copy of, nor follow another.\n\
# Remove these lines once archive_command names a repository of its own.\n\
archive_mode = 'off'\narchive_command = ''\nrestore_command = ''\nprimary_conninfo = ''\nprimary_slot_name = ''\n";

/// Makes a restored data directory a server for itself: it archives nothing, follows nobody, and starts as no standby. Its
/// configuration may lie elsewhere; `postgresql.auto.conf` is read last.
///
/// # Errors
/// The folder cannot be written.
pub fn stand_alone(dest: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    for signal in ["standby.signal", "recovery.signal"] {
        match fs::remove_file(dest.join(signal)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::target(format!("removing {signal:?}")).why(e));
            }
            _ => {}
        }
    }
    let path = dest.join("postgresql.auto.conf");
    let shown = || format!("writing {:?}", path.display());
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).target(shown)?;
    file.write_all(ALONE.as_bytes()).and_then(|()| file.sync_all()).target(shown)?;
    Folder { root: dest.to_path_buf(), owner }.own(&path)?;
    sync_dir(dest)
}

/// Folder in a restored data directory, with the backup's id behind it, for the configuration files of the server it was taken
/// from; PostgreSQL ignores it.
const CONFIGURATION: &str = "source_configuration";
const RESTORING: &str = ".restoring-";

/// Removes what killed restores to the same place left; it can be as large as a cluster.
fn sweep(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let left = entry.file_name().to_string_lossy().starts_with(prefix);
        if left && File::open(entry.path()).is_ok_and(|dir| dir.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes a half-restored folder.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A folder that is made anew.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) owner: Option<(u32, u32)>,
}

impl Folder {
    pub(super) fn make(&self, path: &Path) -> Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path).target(|| format!("creating folder {:?}", path.display()))?;
        self.own(path)
    }
    fn own(&self, path: &Path) -> Result<()> {
        match self.owner {
            Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .target(|| format!("giving {:?} to user {uid}", path.display())),
            None => Ok(()),
        }
    }
}

impl Sink for Folder {
    fn folder(&mut self, path: &str) -> Result<()> {
        let path = self.root.join(path);
        if path.is_dir() { Ok(()) } else { self.make(&path) }
    }
    fn file(&mut self, path: &str) -> Result<Box<dyn Write>> {
        let path = self.root.join(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .target(|| format!("creating {:?}", path.display()))?;
        self.own(&path)?;
        Ok(Box::new(file))
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn folder(&mut self, _: &str) -> Result<()> {
        Ok(())
    }
    fn file(&mut self, _: &str) -> Result<Box<dyn Write>> {
        Ok(Box::new(io::sink()))
    }
}

/// Everything under `root` to stable storage.
pub(super) fn make_durable(root: &Path) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        // One call instead of one per file: a cluster has a thousand of them when it is empty.
        let dir = File::open(root).target(|| format!("opening {:?}", root.display()))?;
        rustix::fs::syncfs(&dir).target(|| format!("making {:?} durable", root.display()))
    }
    #[cfg(not(target_os = "linux"))]
    {
        for entry in fs::read_dir(root).target(|| format!("listing {:?}", root.display()))? {
            let path = entry.target(|| format!("listing {:?}", root.display()))?.path();
            if path.is_dir() {
                make_durable(&path)?;
            } else {
                File::open(&path)
                    .and_then(|f| f.sync_all())
                    .target(|| format!("making {:?} durable", path.display()))?;
            }
        }
        sync_dir(root)
    }
}

/// Reads a whole base backup into a sink: authenticated, compared with the catalog's manifest and with PostgreSQL's.
///
/// `unhashed` leaves out the digest of the whole stream where every file has a checksum of PostgreSQL's, made before we had it:
/// that is the one compared with what is written. A verification has the time for both.
pub(super) fn read_base(
    unlocked: &Unlocked,
    manifest: &Manifest,
    sink: &mut dyn Sink,
    (threads, unhashed): (usize, bool),
    progress: Progress<'_>,
) -> Result<()> {
    let name = pg_manifest_name(&manifest.id);
    let missing = |name: &str| Error::check(format!("object {name:?} of backup {:?} is missing", manifest.id));
    let (bytes, summary) = unlocked.read_own(ObjectType::BaseBackup, &name, 1 << 30)?.ok_or_else(|| missing(&name))?;
    manifest.object(&name)?.check(&summary)?;
    let pg = PgManifest::parse(&bytes)?;
    let name = tar_name(&manifest.id);
    let expected = manifest.object(&name)?;
    let mut reader = unlocked.open_object(ObjectType::BaseBackup, &name)?.ok_or_else(|| missing(&name))?;
    if unhashed && pg.files.values().all(|f| f.checksum.is_some()) {
        reader = reader.without_plain_digest();
    }
    if !reader.written_by_holder() {
        return Err(Error::check(format!("{name:?} was not written by a holder of the repository's key")));
    }
    let with = With { sink: &mut *sink, manifest: &pg };
    let summary = if threads > 1 {
        std::thread::scope(|scope| {
            let (send, receive) = sync_channel(8);
            let (give_back, used) = channel();
            scope.spawn(move || pump(reader, &send, &used));
            let mut input = Counted { input: Piped::new(receive, give_back), progress, total: 0 };
            let scan = Scan::read(&mut input, Some(with)).map_err(|e| of_object(e, &name))?;
            input.drain().map_err(|e| of_object(e, &name))?;
            scan.sums.compare(&pg, "the base backup")?;
            input.input.summary.take().ok_or_else(|| Error::check(format!("object {name:?} did not end")))
        })?
    } else {
        let mut input = Counted { input: reader, progress, total: 0 };
        let scan = Scan::read(&mut input, Some(with)).map_err(|e| of_object(e, &name))?;
        input.drain().map_err(|e| of_object(e, &name))?;
        scan.sums.compare(&pg, "the base backup")?;
        input.input.finish().map_err(|e| of_object(e, &name))?.1
    };
    expected.check(&summary)?;
    let name = configuration_name(&manifest.id);
    if manifest.objects.iter().any(|o| o.name == name) {
        let (bytes, summary) =
            unlocked.read_own(ObjectType::BaseBackup, &name, 1 << 28)?.ok_or_else(|| missing(&name))?;
        manifest.object(&name)?.check(&summary)?;
        unpack_configuration(&bytes, &format!("{CONFIGURATION}-{}", manifest.id), sink)?;
    }
    Ok(())
}

/// The source's configuration files into a folder of their own: what the restored server shall use of them is for a person to say.
fn unpack_configuration(tar: &[u8], folder: &str, sink: &mut dyn Sink) -> Result<()> {
    let io = |e: io::Error| from_io(e, || "reading the source's configuration files".into());
    sink.folder(folder)?;
    for entry in tar::Archive::new(tar).entries().map_err(io)? {
        let mut entry = entry.map_err(io)?;
        let path = entry.path().map_err(io)?.into_owned();
        let mut at = folder.to_string();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let std::path::Component::Normal(part) = part else {
                return Err(Error::check(format!("configuration file {path:?} leads out of its folder")));
            };
            at = format!("{at}/{}", part.to_string_lossy());
            if parts.peek().is_some() {
                sink.folder(&at)?;
            }
        }
        let mut file = sink.file(&at)?;
        io::copy(&mut entry, &mut file).map_err(io)?;
        // The end: what stood behind it in a file that was there goes.
        file.flush().map_err(io)?;
    }
    Ok(())
}

struct Counted<'a, R> {
    input: R,
    progress: Progress<'a>,
    total: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.total += n as u64;
        (self.progress)(self.total).map_err(to_io)?;
        Ok(n)
    }
}

impl<R: Read> Counted<'_, R> {
    fn drain(&mut self) -> Result<()> {
        io::copy(self, &mut io::sink()).map(|_| ()).map_err(|e| from_io(e, || "reading the base backup".into()))
    }
}

enum Piece {
    Bytes(Arc<Vec<u8>>),
    Failed(Error),
    End(Summary),
}

/// Opens the object in a thread of its own; what it sends is authenticated.
fn pump<R: Read>(mut reader: Reader<R>, send: &SyncSender<Piece>, used: &Receiver<Vec<u8>>) {
    let mut last = None;
    while last.is_none() {
        used.try_iter().for_each(|frame| reader.give_back(frame));
        match reader.next_kept() {
            Ok(None) => break,
            Ok(Some(frame)) => {
                // An error here means that nobody listens any more.
                if send.send(Piece::Bytes(frame)).is_err() {
                    return;
                }
            }
            Err(e) => last = Some(Piece::Failed(e)),
        }
    }
    let last = last.unwrap_or_else(|| match reader.finish() {
        Ok((_, summary)) => Piece::End(summary),
        Err(e) => Piece::Failed(e),
    });
    let _ = send.send(last);
}

struct Piped {
    pieces: Receiver<Piece>,
    give_back: Sender<Vec<u8>>,
    current: Arc<Vec<u8>>,
    at: usize,
    summary: Option<Summary>,
}

impl Piped {
    fn new(pieces: Receiver<Piece>, give_back: Sender<Vec<u8>>) -> Self {
        Self { pieces, give_back, current: Arc::default(), at: 0, summary: None }
    }
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            if self.summary.is_some() {
                return Ok(0);
            }
            match self.pieces.recv() {
                Ok(Piece::Bytes(frame)) => {
                    // Whoever opens the object may be done, or still hold it: then it keeps it.
                    let used = Arc::try_unwrap(std::mem::replace(&mut self.current, frame)).ok();
                    let _ = used.map(|used| self.give_back.send(used));
                    self.at = 0;
                }
                Ok(Piece::End(summary)) => self.summary = Some(summary),
                Ok(Piece::Failed(e)) => return Err(to_io(e)),
                Err(_) => return Err(to_io(Error::state("the thread that opens the object ended"))),
            }
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// What a verification found to be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The backup.
    pub backup: String,
    /// Plain bytes read and checked.
    pub plain_bytes: u64,
    /// The log from the backup's start; without a hole up to where it is consistent.
    pub wal: Option<Continuity>,
    /// Why the catalog does not say so, where it could not be written: that does not make the backup less right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<String>,
}

impl Verified {
    /// What to say when the result could not be written down.
    pub fn warning(&self) -> Option<String> {
        let why = self.unrecorded.as_ref()?;
        Some(format!("WARNING: {} is right, but the catalog could not be told: {why}", self.backup))
    }
}

/// As [`read_backup`], and says so in the catalog when all is right and it can be written.
///
/// # Errors
/// A check failure that names what is damaged, missing or of another backup.
pub fn verify_backup(unlocked: &Unlocked, id: &str, progress: Progress<'_>) -> Result<Verified> {
    read_backup(unlocked, id, progress).map(|verified| record(unlocked, verified))
}

fn record(unlocked: &Unlocked, mut verified: Verified) -> Verified {
    let change = Change::Verified { backup: verified.backup.clone(), how: catalog::READ.into() };
    verified.unrecorded = catalog::append(unlocked, &change).err().map(|e| format!("{}: {}", e.what, e.why));
    verified
}

/// Reads a dump or base backup back that was just stored, as [`verify_backup`] does: every stored byte, authenticated and
/// compared. What is not done again is taking the frames of its large object apart: that was done, and the result compared,
/// frame by frame while it was written ([`super::super::container::Writer::proving`]).
///
/// # Errors
/// As [`verify_backup`]. The catalog then says that it is damaged.
pub fn verify_written(unlocked: &Unlocked, manifest: &Manifest, progress: Progress<'_>) -> Result<Verified> {
    match read_written(unlocked, manifest, progress) {
        Ok(verified) => Ok(record(unlocked, verified)),
        Err(e) if damage::is_damage(&e) => match damage::found(unlocked, None, &manifest.id, catalog::READ, &e) {
            None => Err(e),
            Some(why) => Err(e.hint(format!("The catalog could not be told: {why}."))),
        },
        Err(e) => Err(e),
    }
}

fn read_written(unlocked: &Unlocked, manifest: &Manifest, progress: Progress<'_>) -> Result<Verified> {
    let proven = [logical::dump_name(&manifest.id), tar_name(&manifest.id)];
    let mut done = 0;
    for object in &manifest.objects {
        let mut step = |bytes: u64| progress(done + bytes);
        if proven.contains(&object.name) {
            let plain = unhex(&object.plain_sha256)
                .ok_or_else(|| Error::check(format!("the manifest of backup {:?} holds no digest", manifest.id)))?;
            let reader = logical::open_own(unlocked, manifest, &object.name)?;
            object.check(&reader.read_back(plain, &mut step).map_err(|e| of_object(e, &object.name))?)?;
        } else {
            logical::read_object(unlocked, manifest, &object.name, &mut io::sink(), &mut step)?;
        }
        done += object.plain_bytes;
    }
    let wal = match manifest.kind {
        catalog::BackupKind::Physical => Some(verify_wal(unlocked, manifest, &mut |_| progress(done))?),
        _ => None,
    };
    Ok(Verified { backup: manifest.id.clone(), plain_bytes: done, wal, unrecorded: None })
}

/// Reads every byte of a backup, of a base backup also of the log it needs to become consistent. Writes nothing.
///
/// # Errors
/// A check failure that names what is damaged, missing or of another backup.
pub fn read_backup(unlocked: &Unlocked, id: &str, progress: Progress<'_>) -> Result<Verified> {
    let manifest = Catalog::load(unlocked)?.find(id)?.manifest.clone();
    let mut done = 0;
    let (plain_bytes, wal) = if manifest.kind == catalog::BackupKind::Physical {
        read_base(unlocked, &manifest, &mut Nowhere, (2, false), &mut |n| {
            done = n;
            progress(n)
        })?;
        let wal = verify_wal(unlocked, &manifest, &mut |_| progress(done))?;
        (done, Some(wal))
    } else {
        (logical::read_objects(unlocked, &manifest, progress)?, None)
    };
    Ok(Verified { backup: id.into(), plain_bytes, wal, unrecorded: None })
}

/// The log from start to stop of a backup, every byte.
fn verify_wal(unlocked: &Unlocked, manifest: &Manifest, progress: Progress<'_>) -> Result<Continuity> {
    let size = unlocked
        .repository()
        .cluster()?
        .and_then(|c| c.wal_segment_size)
        .or(manifest.wal_segment_size)
        .unwrap_or(DEFAULT_SEGMENT_SIZE);
    let lsn = |text: &Option<String>| text.as_deref().and_then(parse_lsn);
    let (Some(start), Some(stop), Some(timeline)) =
        (lsn(&manifest.start_lsn), lsn(&manifest.stop_lsn), manifest.timeline)
    else {
        return Err(Error::check(format!("the manifest of backup {:?} names no log positions", manifest.id)));
    };
    let first = Segment::at(timeline, start, size).to_string();
    // The stop position is the end of a record: at a segment's very start it needs only the one before.
    let last = Segment::at(timeline, stop.saturating_sub(1).max(start), size).to_string();
    let found = check_continuity(unlocked, &first, timeline, Some(&last), Depth::Full, progress)?;
    match &found.hole {
        Some(hole) => Err(Error::check(format!("backup {:?} cannot become consistent", manifest.id))
            .why(format!("WAL segment {} to {}: {}", hole.first, hole.last, hole.why))),
        None if found.last.as_deref() == Some(&last) => Ok(found),
        None => Err(Error::check(format!("backup {:?} cannot become consistent", manifest.id))
            .why(format!("the archive ends before WAL segment {last}"))),
    }
}
