//! The journal as a file: `journal.jsonl`, one record a line, `journal.lock` beside it.
//!
//! Readers never write, need no lock and never repair. A writer holds the lock, reads to the end, and only then decides
//! whether the head is still the one its decision was made on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::model::{Actor, Digest, Event, IncidentId, Record, Seq};

use super::record::{self, Decoded, Line};
use super::{Anchors, Append, Clock, Draft, FileLock, Head, Journal, Watch, files, lock};

/// Name of the journal in an incident's directory.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// Name of its lock.
pub const LOCK_FILE: &str = "journal.lock";
/// A head is anchored at least every so many records.
pub const ANCHOR_EVERY: u64 = 64;

/// The journal of one incident directory.
#[derive(Debug)]
pub struct FileJournal {
    dir: PathBuf,
    path: PathBuf,
    clock: Clock,
    deadline: Duration,
    anchors: Option<Anchors>,
    anchor_problem: Option<Error>,
    incident: Option<IncidentId>,
    writer: Option<File>,
    /// Device and inode of the file that was read, so that a replaced file is noticed.
    id: Option<(u64, u64)>,
    read: Verified,
}

/// How far the file has been read and verified.
#[derive(Debug, Clone)]
struct Verified {
    /// Where each record begins, in bytes.
    offsets: Vec<u64>,
    /// Where the last verified record ends.
    end: u64,
    head: Head,
    /// What a newer version wrote, if anything.
    future: Option<String>,
    /// Bytes after `end` that are no whole record.
    torn: u64,
}

impl Default for Verified {
    fn default() -> Self {
        Self { offsets: Vec::new(), end: 0, head: Head::empty(), future: None, torn: 0 }
    }
}

impl FileJournal {
    /// The journal in `dir`. It need not exist yet: the first append creates it. Nothing is read or written here.
    ///
    /// # Errors
    /// Of kind state, when `dir` is not a folder.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        if !dir.is_dir() {
            return Err(Error::state(format!("there is no incident directory {dir:?}"))
                .hint("`breakglass incident list` shows the incidents of this state directory"));
        }
        Ok(Self {
            path: dir.join(JOURNAL_FILE),
            dir,
            clock: Clock::new(),
            deadline: lock::DEADLINE,
            anchors: None,
            anchor_problem: None,
            incident: None,
            writer: None,
            id: None,
            read: Verified::default(),
        })
    }

    /// Also writes the head to these anchors: when the incident is opened, when it is closed, and every
    /// [`ANCHOR_EVERY`] records.
    #[must_use]
    pub fn with_anchors(mut self, anchors: Anchors) -> Self {
        self.anchors = Some(anchors);
        self
    }

    /// Waits this long for the lock instead of [`lock::DEADLINE`].
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The incident's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The clock records are stamped with.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What a newer version wrote that this one does not know, as far as read: the journal is read-only then.
    pub fn read_only_because(&self) -> Option<&str> {
        self.read.future.as_deref()
    }

    /// Why the last head could not be anchored, once: the append itself stands.
    pub fn take_anchor_problem(&mut self) -> Option<Error> {
        self.anchor_problem.take()
    }

    /// Calls back from a thread of its own whenever the journal has changed, until the watch is dropped.
    pub fn watch(&self, on_change: impl Fn() + Send + 'static) -> Watch {
        Watch::start(self.path.clone(), on_change)
    }

    /// As [`Journal::read_from`], with the bytes of every line.
    ///
    /// # Errors
    /// Of kind state: unreadable, damaged (the record is named), or an evidence copy with withheld records.
    pub fn lines_from(&mut self, seq: Seq) -> Result<Vec<Line>> {
        let mut lines = self.refresh()?;
        let first = seq.0.max(1);
        let known = self.read.head.seq.0 - lines.len() as u64;
        if first <= known {
            lines = self.reread(first)?;
        } else {
            lines.retain(|l| l.record.seq.0 >= first);
        }
        Ok(lines)
    }

    /// Reads and verifies what has been appended since the last look.
    fn refresh(&mut self) -> Result<Vec<Line>> {
        let mut file = match File::open(&self.path) {
            Ok(f) => f,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if self.read.end > 0 {
                    return Err(Error::state(format!("the journal {:?} has gone", self.path))
                        .why("it was there when it was last read")
                        .hint(
                            "look for the incident directory under another name: it must not be moved while it is open",
                        ));
                }
                return Ok(Vec::new());
            }
            Err(e) => return Err(Error::state(format!("cannot read the journal {:?}", self.path)).why(e)),
        };
        let meta = file.metadata().state(|| format!("cannot read the journal {:?}", self.path))?;
        let id = Some((meta.dev(), meta.ino()));
        let same = self.id == id && meta.len() >= self.read.end && self.ends_as_read(&file);
        if !same {
            self.read = Verified::default();
            self.writer = None;
            self.id = id;
        }
        if same && meta.len() == self.read.end {
            self.read.torn = 0;
            return Ok(Vec::new());
        }
        match self.scan(&mut file) {
            // What was read before may have been taken back by its writer (full disk): then the whole is right or it is not.
            Err(_) if self.read.end > 0 => {
                self.read = Verified::default();
                self.scan(&mut file)
            }
            result => result,
        }
    }

    /// Whether the last verified record is still where it was: a writer may have taken a line back and written another.
    fn ends_as_read(&self, file: &File) -> bool {
        let tail = format!("{}\"}}\n", self.read.head.hash);
        let Some(at) = self.read.end.checked_sub(tail.len() as u64) else { return true };
        let mut there = vec![0; tail.len()];
        file.read_exact_at(&mut there, at).is_ok() && there == tail.as_bytes()
    }

    /// Verifies from the end of what is verified to the end of the file.
    fn scan(&mut self, file: &mut File) -> Result<Vec<Line>> {
        let bytes = read_at(file, self.read.end, None).state(|| format!("cannot read the journal {:?}", self.path))?;
        let mut now = self.read.clone();
        let (whole, rest) = whole_lines(&bytes);
        now.torn = rest.len() as u64;
        let mut lines = Vec::new();
        for line in whole {
            let number = now.head.seq.0 + 1;
            let line = self.decode(number, line, &now.head)?;
            now.offsets.push(now.end);
            now.end += line.raw.len() as u64 + 1;
            now.head = Head::after(&line.record);
            if now.future.is_none() {
                now.future.clone_from(&line.future);
            }
            lines.push(line);
        }
        if let Some(Event::IncidentOpened { id, .. }) = lines.first().and_then(|l| l.record.events.first()) {
            self.incident.get_or_insert_with(|| id.clone());
        }
        self.read = now;
        Ok(lines)
    }

    /// Reads verified records again, from number `first`.
    fn reread(&mut self, first: u64) -> Result<Vec<Line>> {
        let what = || format!("cannot read the journal {:?}", self.path);
        let at = usize::try_from(first - 1).ok().and_then(|i| self.read.offsets.get(i)).copied().unwrap_or(0);
        let mut file = File::open(&self.path).state(what)?;
        let bytes = read_at(&mut file, at, Some(self.read.end - at)).state(what)?;
        let mut lines: Vec<Line> = Vec::new();
        for (i, line) in whole_lines(&bytes).0.into_iter().enumerate() {
            let number = first + i as u64;
            let line = match lines.last() {
                Some(before) => self.decode(number, line, &Head::after(&before.record))?,
                None => self.decode_alone(number, line)?,
            };
            lines.push(line);
        }
        // The end is verified from the first record on, so everything that leads up to it is too.
        if lines.last().is_none_or(|l| Head::after(&l.record) != self.read.head) {
            self.read = Verified::default();
            let mut lines = self.refresh()?;
            lines.retain(|l| l.record.seq.0 >= first);
            return Ok(lines);
        }
        Ok(lines)
    }

    fn decode(&self, number: u64, line: &[u8], before: &Head) -> Result<Line> {
        let line = self.decode_alone(number, line)?;
        record::follows(before, line.record.seq, &line.record.prev).map_err(|why| self.damaged(number, &why))?;
        Ok(line)
    }

    fn decode_alone(&self, number: u64, line: &[u8]) -> Result<Line> {
        match record::decode(line) {
            Ok(Decoded::Record(line)) => Ok(line),
            Ok(Decoded::Withheld { reason, .. }) => {
                Err(Error::state(format!("record {number} of {:?} is withheld", self.path))
                    .why(format!("this is an evidence copy, not an incident ({reason})"))
                    .hint("`breakglass journal verify` works on it"))
            }
            Err(why) => Err(self.damaged(number, &why)),
        }
    }

    fn damaged(&self, number: u64, why: &str) -> Error {
        Error::state(format!("the journal {:?} is damaged at record {number}", self.path))
            .why(format!("record {number} {why}"))
            .hint(format!(
                "`breakglass journal verify {}` says what still holds; nothing is written to a damaged journal",
                self.dir.display()
            ))
    }

    /// Opens for writing; the second value says whether the file was created just now.
    fn writer(&mut self) -> Result<(File, bool)> {
        let what = || format!("cannot write the journal {:?}", self.path);
        if let Some(file) = self.writer.take() {
            return Ok((file, false));
        }
        let (file, created) = files::open_or_create(&self.path).state(what)?;
        Ok((file, created))
    }

    /// Writes one line at the end of what is verified, over a torn tail if there is one, and makes it durable.
    ///
    /// The caller holds the lock. After an error the file ends where it ended before, as far as that could be achieved.
    fn write_line(&mut self, line: &[u8]) -> Result<()> {
        let (at, number) = (self.read.end, self.read.head.seq.0);
        let path = self.path.clone();
        let what = || format!("cannot append to the journal {path:?}");
        let (file, created) = self.writer()?;
        let end = at + line.len() as u64;
        let written = file
            .write_all_at(line, at)
            .and_then(|()| if file.metadata()?.len() > end { file.set_len(end) } else { Ok(()) });
        let synced = match written {
            Err(e) => return Err(take_back(&file, at, number, Error::state(what()).why(e))),
            Ok(()) if created => file.sync_all().and_then(|()| files::sync_dir(&self.dir)),
            Ok(()) => file.sync_data(),
        };
        let file = match synced {
            Ok(()) => file,
            Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                return Err(take_back(&file, at, number, Error::state(what()).why(e)));
            }
            // The kernel reports a failed write-back once and then takes the pages for clean: only bytes that are written
            // again, through a new handle, say anything by being synced.
            Err(e) => {
                drop(file);
                let mut file = files::open_or_create(&path).state(what)?.0;
                let error = Error::state(what()).why(format!("the disk reported {e}"));
                let there = read_at(&mut file, at, Some(line.len() as u64)).is_ok_and(|b| b == line);
                if !there {
                    return Err(take_back(&file, at, number, error));
                }
                file.write_all_at(line, at).and_then(|()| file.sync_all()).map_err(|again| {
                    error.why(format!("and again {again}")).hint(format!(
                        "record {} stands in the file but may not survive a power cut: check the disk (dmesg) before going on",
                        number + 1
                    ))
                })?;
                file
            }
        };
        let meta = file.metadata().state(what)?;
        self.id = Some((meta.dev(), meta.ino()));
        self.writer = Some(file);
        Ok(())
    }

    /// Appends a record after the verified head; the caller holds the lock and has seen that this is right.
    fn write_record(&mut self, draft: Draft) -> Result<Record> {
        let reading = self.clock.read();
        let mut record = Record {
            v: record::VERSION,
            seq: Seq(self.read.head.seq.0 + 1),
            command: draft.command,
            occurred_at: draft.occurred_at.unwrap_or(reading.now),
            recorded_at: reading.now,
            up_ms: reading.up_ms,
            boot: reading.boot,
            actor: draft.actor,
            events: draft.events,
            prev: self.read.head.hash.clone(),
            hash: Digest::new(""),
        };
        let line = record::encode_salted(&mut record)?;
        self.write_line(&line)?;
        self.read.offsets.push(self.read.end);
        self.read.end += line.len() as u64;
        self.read.torn = 0;
        self.read.head = Head::after(&record);
        if let Some(Event::IncidentOpened { id, .. }) = record.events.first() {
            self.incident = Some(id.clone());
        }
        Ok(record)
    }

    /// Saves a torn last line in a file of its own and journals that.
    fn move_torn_tail(&mut self) -> Result<()> {
        let what = || format!("cannot move the torn last line of {:?} aside", self.path);
        let mut file = File::open(&self.path).state(what)?;
        let bytes = read_at(&mut file, self.read.end, None).state(what)?;
        let (name, aside) = (1..10_000u32)
            .find_map(|n| {
                let name = format!("journal.torn-{n}");
                match files::create_new(&self.dir.join(&name)) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => None,
                    other => Some(other.map(|f| (name, f))),
                }
            })
            .unwrap_or_else(|| Err(io::Error::other("there are too many torn lines already")))
            .state(what)?;
        aside.write_all_at(&bytes, 0).and_then(|()| aside.sync_all()).state(what)?;
        files::sync_dir(&self.dir).state(what)?;
        self.write_record(Draft {
            command: "move-torn-tail".into(),
            occurred_at: None,
            actor: Actor::new("breakglass"),
            events: vec![Event::TornTailMoved { bytes: bytes.len() as u64, file: name }],
        })?;
        Ok(())
    }

    fn anchor(&mut self, record: &Record) {
        let (Some(anchors), Some(incident)) = (&self.anchors, &self.incident) else { return };
        let why = if record.events.iter().any(|e| matches!(e, Event::IncidentOpened { .. })) {
            "open"
        } else if record.events.iter().any(|e| matches!(e, Event::IncidentClosed { .. })) {
            "close"
        } else if record.seq.0.is_multiple_of(ANCHOR_EVERY) {
            "periodic"
        } else {
            return;
        };
        self.anchor_problem = anchors.write(incident, &Head::after(record), record.recorded_at, why).err();
    }
}

impl Journal for FileJournal {
    fn head(&mut self) -> Result<Head> {
        self.refresh()?;
        Ok(self.read.head.clone())
    }

    fn read_from(&mut self, seq: Seq) -> Result<Vec<Record>> {
        Ok(self.lines_from(seq)?.into_iter().map(|l| l.record).collect())
    }

    fn append_if(&mut self, expected: &Head, draft: Draft) -> Result<Append> {
        let doing = format!("recording {}", draft.command);
        let held = FileLock::acquire(self.dir.join(LOCK_FILE), self.deadline, &doing)?;
        self.refresh()?;
        if let Some(what) = &self.read.future {
            return Err(Error::state(format!("the journal {:?} can only be read by this version", self.path))
                .why(format!("it holds {what}, which breakglass {} does not know", env!("CARGO_PKG_VERSION")))
                .hint("use the version of breakglass that wrote it, or a newer one"));
        }
        if self.read.torn > 0 {
            self.move_torn_tail()?;
        }
        if self.read.head != *expected {
            return Ok(Append::Conflict(self.read.head.clone()));
        }
        let record = self.write_record(draft)?;
        drop(held);
        self.anchor(&record);
        Ok(Append::Appended(record))
    }
}

/// Truncates to where the journal ended before, and says so.
fn take_back(file: &File, at: u64, number: u64, error: Error) -> Error {
    match file.set_len(at).and_then(|()| file.sync_all()) {
        Ok(()) => error
            .hint(format!("nothing of it was kept: the journal ends at record {number} as before"))
            .hint("free space on the disk of the state directory, then do it again"),
        Err(e) => {
            error.hint(format!("a part of it may be left after record {number} ({e}); the next append moves it aside"))
        }
    }
}

/// The bytes from `at`, at most `limit`.
fn read_at(file: &mut File, at: u64, limit: Option<u64>) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    match limit {
        Some(n) => file.take(n).read_to_end(&mut bytes)?,
        None => file.read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

/// The whole lines, and the torn rest: what follows the last newline, or a last line with zero bytes in it, which is what
/// a power cut leaves of blocks that never reached the disk (a record never holds a raw zero byte).
pub(super) fn whole_lines(bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    let mut rest = lines.pop().unwrap_or_default();
    if rest.is_empty()
        && let Some(last) = lines.last()
        && last.contains(&0)
    {
        rest = &bytes[bytes.len() - last.len() - 1..];
        lines.pop();
    }
    (lines, rest)
}
