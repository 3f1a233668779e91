//! A worker unwraps the repository's key once and serves archived WAL to a recovering server over a unix socket.
//!
//! The server's `restore_command` is then `<exe> wal fetch --socket S %f %p`: no secret, no key derivation per segment,
//! and the next segments are opened while PostgreSQL replays the last one. One request per connection: a line
//! `fetch <name>`; the answer is `ok <bytes> <sha256>` and the bytes, or `none`, or `stop <why>` with line ends escaped.
//!
//! Where the server's data lies on the same file system, segments wait as files in a folder beside the socket, opened to the
//! last byte, compared and durable ([`super::wal_spool`]). A line `take <name>` is then answered `file <bytes> <file>`, and who asked
//! moves that file to where it wants it: nothing is copied while the server waits.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::container::hex;
use super::repository::Unlocked;
use super::wal::fetch::{Fetched, place, read};
use super::wal::name::{DEFAULT_SEGMENT_SIZE, Segment, WalName, quoted_word};
use super::wal_spool::{self, Spool, Spooled};
use crate::error::{Context, Error, Result};

/// Longest path of a unix socket in bytes, without its final zero (`sockaddr_un` on Linux).
pub const MAX_SOCKET_PATH: usize = 107;

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// How many segments to open ahead of the one asked for.
    pub prefetch: usize,
    /// User and group the recovering server runs as, when started as root.
    pub owner: Option<(u32, u32)>,
    /// Data directory of the recovering server; segments wait as files when it is on the file system of the socket.
    pub data: Option<PathBuf>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { prefetch: 8, owner: None, data: None }
    }
}

/// What has been served so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Files handed out.
    pub files: u64,
    /// Plain bytes handed out.
    pub bytes: u64,
    /// The last segment handed out.
    pub last_segment: Option<String>,
    /// The first thing that went wrong; recovery was stopped by it.
    pub failed: Option<Error>,
}

/// Most bytes that are opened ahead.
const AHEAD: u64 = 128 << 20;
/// Fewest segments that are opened ahead, however large they are.
const LEAST: u64 = 2;
/// Most threads that open segments.
const OPENERS: usize = 4;

/// An archived file, opened.
#[derive(Clone)]
enum Opened {
    Bytes(Arc<Vec<u8>>),
    File(Arc<Spooled>),
}

type Answer = Result<Option<Opened>>;

enum Slot {
    Queued,
    Opening,
    Ready(Answer),
}

#[derive(Default)]
struct State {
    slots: VecDeque<(Segment, Slot)>,
    served: Served,
    stopped: bool,
}

struct Shared {
    unlocked: Unlocked,
    prefetch: usize,
    spool: Option<Spool>,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Shared {
    /// A thread that panicked while holding the lock left counters and whole slots; both are usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running service. Dropped, it ends and removes its socket.
pub struct Service {
    socket: PathBuf,
    /// Closed to wake the accepting thread: its socket's file may be gone by then.
    waker: Option<UnixStream>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts serving at `socket`, which only `owner` (or the user running this) may use.
    ///
    /// # Errors
    /// A path of more than [`MAX_SOCKET_PATH`] bytes; a socket that is in use or cannot be made.
    pub fn start(unlocked: Unlocked, socket: &Path, options: &ServeOptions) -> Result<Self> {
        let shown = socket.display().to_string();
        let length = socket.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            return Err(Error::usage(format!("socket {shown:?}"))
                .why(format!("its path has {length} bytes, a unix socket takes at most {MAX_SOCKET_PATH}"))
                .hint("Use a folder with a shorter path."));
        }
        if socket.exists() {
            if UnixStream::connect(socket).is_ok() {
                return Err(Error::state(format!("socket {shown:?} is in use")));
            }
            // Left behind by a worker that was killed.
            fs::remove_file(socket).state(|| format!("removing the old socket {shown:?}"))?;
        }
        let listener = UnixListener::bind(socket).state(|| format!("listening at {shown:?}"))?;
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).state(|| format!("protecting {shown:?}"))?;
        if let Some((uid, gid)) = options.owner {
            std::os::unix::fs::chown(socket, Some(uid), Some(gid)).state(|| format!("giving {shown:?} to {uid}"))?;
        }
        // Without one everything goes through the socket: that is slower, nothing else.
        let spool = options.data.as_ref().and_then(|data| Spool::open(socket, data, options.owner));
        let shared = Arc::new(Shared {
            unlocked,
            prefetch: options.prefetch,
            spool,
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        let openers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, OPENERS);
        for _ in 0..options.prefetch.min(openers) {
            let shared = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || prefetcher(&shared)));
        }
        let accepting = Arc::clone(&shared);
        let (waker, woken) = UnixStream::pair().state(|| format!("listening at {shown:?}"))?;
        threads.push(std::thread::spawn(move || accept(&listener, &woken, &accepting)));
        Ok(Self { socket: socket.to_path_buf(), waker: Some(waker), shared, threads })
    }

    /// What has been served so far.
    pub fn served(&self) -> Served {
        self.shared.lock().served.clone()
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        drop(self.waker.take());
        let _ = fs::remove_file(&self.socket);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Some(spool) = &self.shared.spool {
            self.shared.lock().slots.clear();
            spool.remove();
        }
    }
}

fn accept(listener: &UnixListener, woken: &UnixStream, shared: &Arc<Shared>) {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let ready = poll(&mut [PollFd::new(listener, PollFlags::IN), PollFd::new(woken, PollFlags::IN)], None);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        if ready == Err(rustix::io::Errno::INTR) {
            continue;
        }
        let Ok(connection) = listener.accept().map(|(connection, _)| connection) else { continue };
        // PostgreSQL asks for one file at a time; another process that connects and is silent must not block it.
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let _ = answer(connection, &shared);
        });
    }
}

fn answer(connection: UnixStream, shared: &Shared) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    connection.set_write_timeout(Some(Duration::from_secs(300)))?;
    let mut line = String::new();
    let mut input = BufReader::new(&connection).take(256);
    input.read_line(&mut line)?;
    let (name, moves) = match line.trim_end().split_once(' ') {
        Some(("fetch", name)) => (name, false),
        Some(("take", name)) => (name, true),
        _ => ("", false),
    };
    let result = match name {
        "" => Err(Error::usage("a request that is neither `fetch <name>` nor `take <name>`")),
        name => WalName::parse(name).and_then(|name| find(shared, &name, moves)),
    };
    let mut out = &connection;
    let bytes = match result {
        Ok(Some(Opened::File(file))) => {
            out.write_all(format!("file {} {}\n", file.bytes(), file.name()).as_bytes())?;
            // It is there until whoever asked has moved it and goes.
            let _ = input.read(&mut [0]);
            file.bytes()
        }
        Ok(Some(Opened::Bytes(bytes))) => {
            out.write_all(format!("ok {} {}\n", bytes.len(), hex(&Sha256::digest(&*bytes))).as_bytes())?;
            out.write_all(&bytes)?;
            bytes.len() as u64
        }
        Ok(None) => return out.write_all(b"none\n"),
        Err(error) => {
            out.write_all(format!("stop {}\n", error.to_string().replace('\n', "\\n")).as_bytes())?;
            shared.lock().served.failed.get_or_insert(error);
            return Ok(());
        }
    };
    let mut state = shared.lock();
    state.served.files += 1;
    state.served.bytes += bytes;
    if Segment::parse(name).is_some() {
        state.served.last_segment = Some(name.to_string());
    }
    Ok(())
}

/// A file, from what was opened ahead where possible, and the next ones queued. As a file only for one who moves it.
fn find(shared: &Shared, name: &WalName, moves: bool) -> Answer {
    let WalName::Segment(segment) = name else { return whole(shared, name) };
    let mut state = shared.lock();
    let ahead = loop {
        match state.slots.iter().position(|(s, _)| s == segment) {
            None => break None,
            Some(i) => match &state.slots[i].1 {
                Slot::Queued => {
                    state.slots.remove(i);
                    break None;
                }
                Slot::Opening => {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Slot::Ready(_) => {
                    break state.slots.remove(i).and_then(|(_, slot)| match slot {
                        // What was not there a moment ago may be by now.
                        Slot::Ready(Ok(Some(opened))) => Some(opened),
                        _ => None,
                    });
                }
            },
        }
    };
    drop(state);
    queue(shared, *segment);
    match ahead {
        Some(opened) if moves || matches!(opened, Opened::Bytes(_)) => Ok(Some(opened)),
        None if moves => open(shared, *segment),
        _ => whole(shared, name),
    }
}

/// A file's bytes.
fn whole(shared: &Shared, name: &WalName) -> Answer {
    Ok(read(&shared.unlocked, name)?.map(|bytes| Opened::Bytes(Arc::new(bytes))))
}

/// A segment as a file, or its bytes where there is no place for files or none can be written.
fn open(shared: &Shared, segment: Segment) -> Answer {
    if let Some(spool) = &shared.spool
        && let Ok(found) = spool.open_segment(&shared.unlocked, segment)
    {
        return Ok(found.map(|file| Opened::File(Arc::new(file))));
    }
    // Says what is wrong, if it is not the place.
    whole(shared, &WalName::Segment(segment))
}

fn queue(shared: &Shared, asked: Segment) {
    let size = match shared.unlocked.repository().cluster() {
        Ok(Some(cluster)) => cluster.wal_segment_size.unwrap_or(DEFAULT_SEGMENT_SIZE),
        _ => DEFAULT_SEGMENT_SIZE,
    };
    let number = asked.number(size);
    let ahead = (shared.prefetch as u64).min((AHEAD / u64::from(size).max(1)).max(LEAST));
    let wanted: Vec<Segment> = (1..=ahead).map(|n| Segment::from_number(asked.timeline, number + n, size)).collect();
    let mut state = shared.lock();
    // What recovery has passed, or asked for on another timeline, only takes memory.
    state.slots.retain(|(s, slot)| wanted.contains(s) || matches!(slot, Slot::Opening));
    for segment in wanted {
        if !state.slots.iter().any(|(s, _)| *s == segment) {
            state.slots.push_back((segment, Slot::Queued));
        }
    }
    shared.changed.notify_all();
}

fn prefetcher(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        if state.stopped {
            return;
        }
        let next = state.slots.iter_mut().find(|(_, slot)| matches!(slot, Slot::Queued));
        let Some((segment, slot)) = next else {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let segment = *segment;
        *slot = Slot::Opening;
        drop(state);
        let result = open(shared, segment);
        state = shared.lock();
        if let Some((_, slot)) = state.slots.iter_mut().find(|(s, _)| *s == segment) {
            *slot = Slot::Ready(result);
        }
        shared.changed.notify_all();
    }
}

/// `wal fetch --socket S name dest`: asks the service for a file and puts it in place.
///
/// # Errors
/// Everything but a clear "not there": a service that is gone, damage, a hole. Exit with
/// [`super::wal::EXIT_STOP_RECOVERY`], so that PostgreSQL stops instead of promoting.
pub fn fetch_from(socket: &Path, name: &str, dest: &Path) -> Result<Fetched> {
    WalName::parse(name)?;
    let gone = || format!("asking {:?} for {name:?}", socket.display());
    let mut connection = UnixStream::connect(socket)
        .target(gone)
        .map_err(|e| e.hint("The recovery worker that serves the WAL has ended; start the recovery again."))?;
    connection.set_read_timeout(Some(Duration::from_secs(600))).target(gone)?;
    // The folder is there when the service, which may be of another version, has one.
    let spool = wal_spool::folder(socket);
    let how = if spool.is_dir() { "take" } else { "fetch" };
    connection.write_all(format!("{how} {name}\n").as_bytes()).target(gone)?;
    let mut input = BufReader::with_capacity(1 << 17, connection);
    let mut line = String::new();
    (&mut input).take(1 << 16).read_line(&mut line).target(gone)?;
    let line = line.strip_suffix('\n').ok_or_else(|| Error::target(gone()).why("the service ended in mid-answer"))?;
    if line == "none" {
        return Ok(Fetched::NotInArchive);
    }
    if let Some(why) = line.strip_prefix("stop ") {
        return Err(Error::check(format!("WAL file {name:?} cannot be restored")).why(why.replace("\\n", "\n")));
    }
    if let Some((len, file)) = line.strip_prefix("file ").and_then(|rest| rest.split_once(' ')) {
        wal_spool::take(&spool.join(file), len, dest)?;
        return Ok(Fetched::Restored);
    }
    let parsed = line
        .strip_prefix("ok ")
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(len, sum)| len.parse::<u64>().ok().filter(|n| *n <= 1 << 30).map(|n| (n, sum)));
    let Some((len, sum)) = parsed else { return Err(Error::target(gone()).why(format!("it answered {line:?}"))) };
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    input.take(len).read_to_end(&mut bytes).target(gone)?;
    if bytes.len() as u64 != len || hex(&Sha256::digest(&bytes)) != sum {
        return Err(Error::target(gone()).why("the answer was cut"));
    }
    place(dest, &bytes)?;
    Ok(Fetched::Restored)
}

/// The `restore_command` that asks the service at `socket`.
pub fn restore_command(exe: &Path, socket: &Path) -> Result<String> {
    let (exe, socket) = (quoted_word(&exe.display().to_string())?, quoted_word(&socket.display().to_string())?);
    Ok(format!("{exe} wal fetch --socket {socket} %f %p"))
}
