//! A process of our own that outlives the screen: how it is spawned, and what it does first.
//!
//! The console starts its own executable and waits for one line on a pipe. The new process makes a session of its own, closes
//! every file it inherited above 2 (an ssh session or a `| tee` would otherwise hang on them), reads its secrets from its
//! standard input, says "ready" and points 0–2 at `/dev/null`.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::error::{Context, Error, Result};

/// Line by which a worker says that it holds its locks and will go on alone.
const READY: &str = "ready";
/// Prefix of the line by which it says why it does not.
const FAILED: &str = "failed ";

/// Our own executable. On Linux `/proc/self/exe`, which stays the running program when the file was replaced during an incident.
///
/// # Errors
/// State when the system cannot tell.
pub fn own_executable() -> Result<PathBuf> {
    if cfg!(target_os = "linux") && std::fs::symlink_metadata("/proc/self/exe").is_ok() {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    std::env::current_exe().state(|| "cannot find our own executable".into())
}

/// Where our own executable is, for other processes to find it: links followed, and by the name it has now.
///
/// # Errors
/// State when the system cannot tell, or it is gone since it was started.
pub fn own_path() -> Result<PathBuf> {
    let exe = std::env::current_exe().state(|| "cannot find our own executable".into())?;
    if exe.exists() {
        return Ok(exe);
    }
    // Linux says so of a file that was replaced while it ran; another one is in its place by now.
    let replaced = exe.to_string_lossy().strip_suffix(" (deleted)").map(PathBuf::from).filter(|p| p.exists());
    replaced.ok_or_else(|| {
        Error::state(format!("this program is no longer where it was started from: {:?}", exe.display()))
            .hint("start it from where it is now, and ask again")
    })
}

/// Marks every file above 2 that we were started with close-on-exec, so that no child of ours keeps somebody else's pipe open.
/// To be called first thing in `main`.
pub fn seal_inherited_files() {
    for fd in open_files() {
        set_cloexec(fd);
    }
}

#[allow(unsafe_code)]
fn set_cloexec(fd: RawFd) {
    // SAFETY: only borrowed for one fcntl; if the number is no longer open the call fails with EBADF, which is harmless.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    if let Ok(flags) = rustix::io::fcntl_getfd(fd) {
        let _ = rustix::io::fcntl_setfd(fd, flags | rustix::io::FdFlags::CLOEXEC);
    }
}

/// Numbers above 2 that are open in this process.
fn open_files() -> Vec<RawFd> {
    let list = |dir: &str| -> Option<Vec<RawFd>> {
        Some(std::fs::read_dir(dir).ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    };
    let found = list("/proc/self/fd").or_else(|| list("/dev/fd")).unwrap_or_else(|| (3..1024).collect());
    found.into_iter().filter(|fd| *fd > 2).collect()
}

/// The worker's side of the handshake.
#[must_use = "the console waits until this says ready or failed"]
pub struct Handshake {
    _private: (),
}

/// Makes this process independent of who started it. Must be the first thing it does, while it has one thread and has opened nothing.
///
/// # Errors
/// State when no session can be made.
pub fn detach() -> Result<Handshake> {
    match rustix::process::setsid() {
        // EPERM: we already lead a group, started by hand or by a service manager; then nobody's Ctrl-C reaches us by surprise.
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(e) => return Err(e).state(|| "cannot make a session of its own".into()),
    }
    close_inherited();
    Ok(Handshake { _private: () })
}

#[allow(unsafe_code)]
fn close_inherited() {
    for fd in open_files() {
        // The list's own directory handle is among them and already closed; rustix takes an error of close for a bug of ours.
        // SAFETY: only borrowed to ask whether the number is open; if it is not, the call fails harmlessly.
        if rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).is_ok() {
            // SAFETY: called before anything of ours was opened, so nobody in this process owns the number.
            unsafe { rustix::io::close(fd) };
        }
    }
}

impl Handshake {
    /// Reads what the console sent on our standard input, to its end.
    ///
    /// # Errors
    /// State when the pipe cannot be read.
    pub fn read_secrets(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
        std::io::stdin().lock().read_to_end(&mut bytes).state(|| "cannot read what the console sent".into())?;
        Ok(bytes)
    }

    /// Tells the console that we go on alone, and lets go of its pipes.
    ///
    /// # Errors
    /// State when `/dev/null` cannot be opened. A console that is gone is not an error.
    pub fn ready(self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{READY}").and_then(|()| out.flush());
        drop(out);
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .state(|| "cannot open /dev/null".into())?;
        rustix::stdio::dup2_stdin(&null).state(|| "cannot let go of standard input".into())?;
        rustix::stdio::dup2_stdout(&null).state(|| "cannot let go of standard output".into())?;
        rustix::stdio::dup2_stderr(&null).state(|| "cannot let go of standard error".into())?;
        Ok(())
    }

    /// Tells the console why we do not go on.
    pub fn failed(self, error: &Error) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{FAILED}{}", error.to_json()).and_then(|()| out.flush());
    }
}

/// Starts `program` (see [`own_executable`]) with `args`, sends it `secrets` on its standard input and waits until it says that it is ready.
/// Returns its process id. Blocks up to `deadline`; the process then belongs to itself (a thread of ours only reaps it).
///
/// # Errors
/// What the worker said when it refused; state when it ended without a word or did not answer in time (it is killed then).
pub fn spawn_detached(program: &Path, args: &[OsString], secrets: &[u8], deadline: Duration) -> Result<u32> {
    spawn(Command::new(program), args, secrets, deadline)
}

/// As [`spawn_detached`], with an empty environment and `/` as its folder: for a process that must not know where its
/// parent's databases are.
///
/// # Errors
/// As [`spawn_detached`].
pub fn spawn_detached_clean(program: &Path, args: &[OsString], deadline: Duration) -> Result<u32> {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/");
    spawn(command, args, &[], deadline)
}

fn spawn(mut command: Command, args: &[OsString], secrets: &[u8], deadline: Duration) -> Result<u32> {
    let mut child = command
        .arg0("breakglass")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .state(|| "cannot start a worker".into())?;
    let pid = child.id();
    match handshake(&mut child, secrets, deadline) {
        Ok(()) => {
            // Its exit must not leave a zombie behind for as long as the console lives.
            let _ = std::thread::Builder::new().name(format!("reap {pid}")).spawn(move || child.wait());
            Ok(pid)
        }
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(e)
        }
    }
}

fn handshake(child: &mut Child, secrets: &[u8], deadline: Duration) -> Result<()> {
    let until = Instant::now() + deadline;
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Error::state("a worker was started without its pipes"));
    };
    if secrets.len() > 32 * 1024 {
        return Err(Error::state("the secrets for a worker exceed 32 KiB"));
    }
    // A pipe takes 64 KiB without a reader, so this cannot block on a worker that hangs.
    let sent = stdin.write_all(secrets);
    drop(stdin);
    let line = read_line_until(stdout, until);
    match line {
        Ok(Some(line)) if line == READY => sent.state(|| "cannot send a worker its secrets".into()),
        Ok(Some(line)) if line.starts_with(FAILED) => Err(refusal(&line[FAILED.len()..])),
        Ok(_) => {
            let said = last_words(stderr);
            Err(Error::state("the worker ended before it was ready").why(said))
        }
        Err(e) => Err(e),
    }
}

/// What a worker that broke wrote to standard error: its first lines.
fn last_words(mut stderr: impl Read + std::os::fd::AsFd) -> String {
    let until = Instant::now() + Duration::from_millis(500);
    let mut bytes = Vec::new();
    while bytes.len() < 64 * 1024
        && let Ok(Some(more)) = read_some(&mut stderr, until)
    {
        bytes.extend(more);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).take(4).collect();
    crate::model::CleanText::text(&lines.join("\n")).to_string()
}

/// The worker's own error, carried over as it was.
fn refusal(json: &str) -> Error {
    use crate::error::ErrorKind as K;
    let v: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let e = &v["error"];
    let text = |key: &str| e[key].as_str().unwrap_or_default().to_string();
    let kinds = [K::Check, K::Usage, K::Config, K::Target, K::State, K::Refused, K::Interrupted];
    let kind = kinds.into_iter().find(|k| k.name() == text("kind")).unwrap_or(K::State);
    let mut error = Error::new(kind, text("what"));
    error.why = text("why");
    error.hints = e["hints"].as_array().into_iter().flatten().filter_map(|h| h.as_str().map(str::to_string)).collect();
    error
}

/// First line from a pipe; none at its end; an error when it takes too long.
fn read_line_until(mut from: impl Read + std::os::fd::AsFd, until: Instant) -> Result<Option<String>> {
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < 64 * 1024 {
        match read_some(&mut from, until)? {
            Some(more) => line.extend(more),
            None if line.is_empty() => return Ok(None),
            None => break,
        }
    }
    let end = line.iter().position(|b| *b == b'\n').unwrap_or(line.len());
    Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()))
}

/// The next bytes from a pipe; none at its end; an error when none come in time.
fn read_some(from: &mut (impl Read + std::os::fd::AsFd), until: Instant) -> Result<Option<Vec<u8>>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut buf = vec![0u8; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let ready = match poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.state(|| "cannot wait for a worker".into())?,
        };
        if ready == 0 {
            return Err(Error::state("the worker did not get ready in time").hint(
                "The machine may be overloaded or the state directory hang; try again, or look at `breakglass doctor`.",
            ));
        }
        match from.read(&mut buf) {
            Ok(0) => return Ok(None),
            Ok(n) => {
                buf.truncate(n);
                return Ok(Some(buf));
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).state(|| "cannot hear a worker".into()),
        }
    }
}
