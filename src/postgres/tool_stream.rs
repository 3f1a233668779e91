//! A PostgreSQL tool whose output is read as a stream: what it says on stderr is kept, and only its end says that the
//! stream was whole.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Context, Error, Result};
use crate::model::CleanText;

/// Bytes that may wait in the pipe: the tool goes on while what it wrote before is packed.
#[cfg(target_os = "linux")]
const PIPE: usize = 1 << 20;

/// A read that brought less than this came too early: the tool writes pages of 4 KiB, and each would wake this process, and the
/// tool again once it is taken.
const TOO_FEW: usize = 1 << 16;
/// How long it is then left to write on: at a gigabyte a second it fills the pipe.
const GATHER: Duration = Duration::from_millis(1);

/// Where the system allows less, the pipe stays as it is.
fn widen(out: &ChildStdout) {
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(out, PIPE);
    #[cfg(not(target_os = "linux"))]
    let _ = out;
}

/// A tool that is being read. Read it to its end, then call [`ToolStream::finish`]. Dropping it early ends the tool.
#[derive(Debug)]
pub struct ToolStream {
    name: &'static str,
    child: Child,
    out: ChildStdout,
    errors: Option<JoinHandle<String>>,
    read: u64,
    early: bool,
}

impl ToolStream {
    /// Starts the command with its output piped. `name` is for messages.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start(name: &'static str, mut command: Command) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().target(|| format!("cannot run {name}"))?;
        let pipe = || Error::state(format!("{name} has no pipe"));
        let out = child.stdout.take().ok_or_else(pipe)?;
        let mut err = child.stderr.take().ok_or_else(pipe)?;
        widen(&out);
        let errors = std::thread::spawn(move || {
            // Kept: the last 8 KiB. A reader that stopped would block the program.
            let mut kept: Vec<u8> = Vec::new();
            let mut buf = [0u8; 4096];
            while let Ok(n) = err.read(&mut buf) {
                if n == 0 {
                    break;
                }
                kept.extend_from_slice(&buf[..n]);
                let over = kept.len().saturating_sub(8192);
                kept.drain(..over);
            }
            String::from_utf8_lossy(&kept).into_owned()
        });
        Ok(Self { name, child, out, errors: Some(errors), read: 0, early: false })
    }

    /// Bytes read so far.
    pub fn so_far(&self) -> u64 {
        self.read
    }

    /// What ends the tool from another thread, while this one waits in a read. Valid until [`ToolStream::finish`] returns.
    pub fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        move || {
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    }

    /// Ends the tool as soon as `cancel` says so, also while it prints nothing and this thread waits in a read: it may wait for a
    /// lock, or for a log that nobody archives. Must be called inside a runtime, and kept until [`ToolStream::finish`] returned.
    pub fn ended_by(&self, cancel: &CancellationToken) -> EndedBy {
        let (stop, cancel) = (self.canceller(), cancel.clone());
        let watch = async move {
            cancel.cancelled().await;
            stop();
        };
        EndedBy(tokio::runtime::Handle::try_current().ok().map(|runtime| runtime.spawn(watch)))
    }

    /// Waits for the tool's end and says whether what was read is whole. Returns the bytes read.
    ///
    /// # Errors
    /// The tool failed; its words, cleaned and on one line, are the reason.
    pub fn finish(mut self) -> Result<u64> {
        // Whoever stops reading early must not wait for a tool that waits for them.
        let mut rest = [0u8; 4096];
        let unread = self.out.read(&mut rest).unwrap_or(0);
        if unread > 0 {
            return Err(Error::state(format!("the output of {} was not read to its end", self.name)));
        }
        let status = self.child.wait().target(|| format!("cannot wait for {}", self.name))?;
        let words = self.errors.take().and_then(|h| h.join().ok()).unwrap_or_default();
        if status.success() {
            return Ok(self.read);
        }
        let words = CleanText::text(words.trim()).to_string().replace('\n', " | ");
        Err(Error::target(format!("{} failed", self.name)).why(words))
    }
}

/// What ends a tool when it is told to. It does not any more once it is dropped.
#[must_use]
pub struct EndedBy(Option<tokio::task::JoinHandle<()>>);

impl Drop for EndedBy {
    fn drop(&mut self) {
        if let Some(watch) = self.0.take() {
            watch.abort();
        }
    }
}

impl Read for ToolStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.early {
            std::thread::sleep(GATHER);
        }
        let n = self.out.read(buf)?;
        self.early = n < TOO_FEW.min(buf.len());
        self.read += n as u64;
        Ok(n)
    }
}

impl Drop for ToolStream {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
