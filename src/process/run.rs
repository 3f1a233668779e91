//! Runs a child to its end: output in bounded chunks, cancel and timeout as TERM to the group, 5 s, KILL.
//!
//! The end of a child is its exit and a short drain, never end of file: `pg_ctl start` hands its pipes to the server, and a
//! reader that waits for their end waits as long as the server lives.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::group;
use super::spawn::{ChildSpec, Stdin};
use crate::error::{Context, Error, Result};

/// How long output is read on after the exit, at most.
pub const DRAIN: Duration = Duration::from_millis(500);

/// Largest piece handed on at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Which of a child's outputs a chunk came from. Merged output is all `Out`, in the order it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Limits and wishes of one execution.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Ends the child when it takes longer.
    pub timeout: Option<Duration>,
    /// Ends the child when cancelled.
    pub cancel: CancellationToken,
    /// One pipe for both outputs, so that their order is the order of writing.
    pub merge: bool,
    /// From TERM to KILL; [`group::GRACE`] by default.
    pub grace: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { timeout: None, cancel: CancellationToken::new(), merge: false, grace: group::GRACE }
    }
}

/// Why a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself.
    Exited,
    /// We ended it: cancelled.
    Cancelled,
    /// We ended it: too slow.
    TimedOut,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Why.
    pub ending: Ending,
    /// Its exit code; 128 + n when signal n ended it.
    pub code: i32,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Whether KILL was needed.
    pub killed: bool,
    /// Processes of its group were still running when we stopped reading (started something in the background).
    pub left_behind: bool,
}

impl Finished {
    /// Whether it ended by itself with exit code 0.
    pub fn success(&self) -> bool {
        self.ending == Ending::Exited && self.code == 0
    }
    /// For messages: `exit code 3`, `ended by signal 9`, `cancelled`, `stopped after its time limit`.
    pub fn describe(&self) -> String {
        match (self.ending, self.signal) {
            (Ending::Cancelled, _) => "cancelled".into(),
            (Ending::TimedOut, _) => "stopped after its time limit".into(),
            (Ending::Exited, Some(s)) => format!("ended by signal {s}"),
            (Ending::Exited, None) => format!("exit code {}", self.code),
        }
    }
}

/// Kills the group when the future that waits for it is dropped.
struct GroupGuard {
    pgid: u32,
    armed: bool,
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if self.armed {
            group::kill(self.pgid);
        }
    }
}

/// Runs a child to its end and hands every chunk of its output to `sink` as it comes (at most 64 KiB at a time; a slow sink
/// slows the child, nothing piles up). Dropping the future kills the group.
///
/// # Errors
/// Target when the program cannot be started or its output not be read. A bad exit code is not an error here.
pub async fn run(spec: &ChildSpec, options: &RunOptions, mut sink: impl FnMut(Stream, &[u8])) -> Result<Finished> {
    let name = spec.program().display().to_string();
    let pipes = || std::io::pipe().target(|| format!("cannot make a pipe for {name:?}"));
    let mut command = spec.command();
    let (out_r, out_w) = pipes()?;
    let err_r = if options.merge {
        command.stderr(out_w.try_clone().target(|| "cannot copy a pipe".into())?);
        None
    } else {
        let (r, w) = pipes()?;
        command.stderr(w);
        Some(r)
    };
    command.stdout(out_w);
    if matches!(spec.stdin, Stdin::Bytes(_)) {
        command.stdin(Stdio::piped());
    }
    let mut child = tokio::process::Command::from(command).spawn().map_err(|e| cannot_start(&name, &e))?;
    // The command itself was consumed by `spawn`, and with it our copies of the writing ends.
    let pgid = child.id().unwrap_or(0);
    let mut guard = GroupGuard { pgid, armed: pgid > 1 };
    let mut out = reader(out_r.into())?;
    let mut err = err_r.map(|r| reader(r.into())).transpose()?;

    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut pipe), Stdin::Bytes(bytes)) = (stdin, &spec.stdin) {
            // A child that does not read all of it is its own matter: its exit code tells.
            let _ = pipe.write_all(bytes).await;
        }
    };
    tokio::pin!(feed);
    let mut fed = false;

    let mut out_buf = vec![0u8; CHUNK];
    let mut err_buf = vec![0u8; if err.is_some() { CHUNK } else { 0 }];
    let mut out_open = true;
    let mut status: Option<ExitStatus> = None;
    let mut ending = Ending::Exited;
    let mut killed = false;
    let mut grace_ends = Instant::now();
    // When the next thing is due: the time limit, then KILL after TERM, then the end of the drain.
    let mut due = options.timeout.map(|t| Instant::now() + t);
    loop {
        if status.is_some() && !out_open && err.is_none() {
            break;
        }
        tokio::select! {
            biased;
            () = options.cancel.cancelled(), if status.is_none() && ending == Ending::Exited => {
                ending = Ending::Cancelled;
                group::terminate(pgid);
                grace_ends = Instant::now() + options.grace;
                due = Some(grace_ends);
            }
            () = at(due), if due.is_some() => {
                if status.is_some() {
                    break;
                }
                if ending == Ending::Exited {
                    ending = Ending::TimedOut;
                    group::terminate(pgid);
                    grace_ends = Instant::now() + options.grace;
                    due = Some(grace_ends);
                } else {
                    killed = true;
                    group::kill(pgid);
                    due = None;
                }
            }
            s = child.wait(), if status.is_none() => {
                status = Some(s.target(|| format!("cannot wait for {name:?}"))?);
                due = Some(Instant::now() + DRAIN);
            }
            n = read(&mut out, &mut out_buf), if out_open => match n.target(|| format!("cannot read the output of {name:?}"))? {
                0 => out_open = false,
                n => sink(Stream::Out, &out_buf[..n]),
            },
            n = read_opt(&mut err, &mut err_buf), if err.is_some() => match n.target(|| format!("cannot read the errors of {name:?}"))? {
                0 => err = None,
                n => sink(Stream::Err, &err_buf[..n]),
            },
            () = &mut feed, if !fed => fed = true,
        }
    }
    if ending != Ending::Exited {
        killed |= end_group(pgid, grace_ends).await;
    }
    guard.armed = false;
    let status = status.ok_or_else(|| Error::target(format!("{name:?} ended without a status")))?;
    Ok(Finished {
        ending,
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        signal: status.signal(),
        killed,
        left_behind: ending == Ending::Exited && group::group_alive(pgid),
    })
}

fn cannot_start(name: &str, e: &std::io::Error) -> Error {
    let error = Error::target(format!("cannot start {name:?}")).why(e);
    match e.kind() {
        std::io::ErrorKind::NotFound => error.hint(format!("Install {name}, or put the folder it is in into PATH.")),
        std::io::ErrorKind::PermissionDenied => {
            error.hint("Check that the file is executable and its folders are open to the user it runs as.")
        }
        _ => error,
    }
}

/// After the leader of a cancelled group ended: the rest gets what is left of its grace, then KILL. Returns whether KILL was needed.
async fn end_group(pgid: u32, deadline: Instant) -> bool {
    while group::group_alive(pgid) {
        if Instant::now() >= deadline {
            group::kill(pgid);
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

async fn at(due: Option<Instant>) {
    match due {
        Some(t) => tokio::time::sleep_until(t).await,
        None => std::future::pending().await,
    }
}

fn reader(fd: OwnedFd) -> Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(fd).target(|| "cannot watch a pipe".into())
}

async fn read(from: &mut pipe::Receiver, buf: &mut [u8]) -> std::io::Result<usize> {
    use tokio::io::AsyncReadExt;
    from.read(buf).await
}

async fn read_opt(from: &mut Option<pipe::Receiver>, buf: &mut [u8]) -> std::io::Result<usize> {
    match from {
        Some(r) => read(r, buf).await,
        None => std::future::pending().await,
    }
}

/// What a tool printed, kept up to [`CAPTURE_LIMIT`] bytes of each stream.
#[derive(Debug, Clone)]
pub struct Captured {
    /// How it ended.
    pub end: Finished,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Bytes that were not kept.
    pub dropped: u64,
}

impl Captured {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
    /// The last lines of standard error (or of standard output when there is none), for an error's reason.
    pub fn complaint(&self) -> String {
        let bytes = if self.stderr.iter().any(|b| !b.is_ascii_whitespace()) { &self.stderr } else { &self.stdout };
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
    /// Itself when it ended well, else a target error with what it said.
    ///
    /// # Errors
    /// Target, naming the program and how it ended.
    pub fn ok(self, spec: &ChildSpec) -> Result<Self> {
        if self.end.success() {
            return Ok(self);
        }
        let name = spec.program().file_name().unwrap_or(spec.program().as_os_str()).to_string_lossy().into_owned();
        Err(Error::target(format!("{name:?} failed: {}", self.end.describe())).why(self.complaint()))
    }
}

/// Most bytes kept of each stream of a captured tool: 16 MiB.
pub const CAPTURE_LIMIT: usize = 16 * 1024 * 1024;

/// Runs a tool and keeps what it printed.
///
/// # Errors
/// Target when it cannot be started; a bad exit code or the time limit is in [`Captured::end`] (see [`Captured::ok`]).
pub async fn capture(spec: &ChildSpec, options: &RunOptions) -> Result<Captured> {
    capture_limited(spec, options, CAPTURE_LIMIT).await
}

async fn capture_limited(spec: &ChildSpec, options: &RunOptions, limit: usize) -> Result<Captured> {
    let (mut stdout, mut stderr, mut dropped) = (Vec::new(), Vec::new(), 0u64);
    let end = run(spec, options, |stream, bytes| {
        let to: &mut Vec<u8> = if stream == Stream::Out { &mut stdout } else { &mut stderr };
        let room = limit.saturating_sub(to.len()).min(bytes.len());
        to.extend_from_slice(&bytes[..room]);
        dropped += (bytes.len() - room) as u64;
    })
    .await?;
    Ok(Captured { end, stdout, stderr, dropped })
}

/// [`capture`] for callers that are not async; works inside and outside a runtime because it brings its own thread.
///
/// # Errors
/// As [`capture`]; the time limit is an outcome, not an error.
pub fn capture_blocking(spec: &ChildSpec, timeout: Duration) -> Result<Captured> {
    let options = RunOptions { timeout: Some(timeout), ..RunOptions::default() };
    block(capture(spec, &options))
}

/// As [`capture_blocking`], for a tool that prints data: up to `limit` bytes of each stream. It is ended when `cancel` says so.
///
/// # Errors
/// As [`capture_blocking`]; it printed more.
pub fn capture_data(spec: &ChildSpec, timeout: Duration, limit: usize, cancel: &CancellationToken) -> Result<Captured> {
    let options = RunOptions { timeout: Some(timeout), cancel: cancel.clone(), ..RunOptions::default() };
    let captured = block(capture_limited(spec, &options, limit))?;
    match captured.dropped {
        0 => Ok(captured),
        n => Err(Error::target(format!("{:?} printed too much", spec.program().display()))
            .why(format!("{n} bytes more than {limit}"))),
    }
}

/// Runs a future to its end on a thread and runtime of its own.
fn block<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    std::thread::scope(|s| {
        s.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .state(|| "cannot make a runtime".into())?
                .block_on(future)
        })
        .join()
        .unwrap_or_else(|_| Err(Error::state("a helper thread broke")))
    })
}
