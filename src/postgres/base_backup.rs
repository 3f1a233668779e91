//! A base backup as one stream: `pg_basebackup` writes a plain tar with its manifest to a pipe.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use super::connect::Database;
use super::programs::Programs;
use crate::error::{Context, Error, Result};
use crate::model::CleanText;
use crate::process::UnixUser;

/// A base backup that is being read. Read it to its end, then call [`BaseBackup::finish`]: only that says whether it is
/// whole. Dropping it early ends `pg_basebackup`.
#[derive(Debug)]
pub struct BaseBackup {
    child: Child,
    out: ChildStdout,
    errors: Option<JoinHandle<String>>,
    read: u64,
}

impl BaseBackup {
    /// Starts `pg_basebackup -D - -Ft -X none -c fast` with `label`. The log it needs must be archived: the program waits at
    /// its end until the server says that it is.
    ///
    /// # Errors
    /// The program cannot be run. What the server refuses shows in [`BaseBackup::finish`].
    pub fn start(programs: &Programs, at: &Database, label: &str, user: Option<&UnixUser>) -> Result<Self> {
        let mut c: Command = programs.command("pg_basebackup", user);
        c.args(["-D", "-", "-Ft", "-X", "none", "-c", "fast", "--no-password", "-l", label]);
        for (name, value) in at.tool_env() {
            // The replication protocol takes no database; naming one would change which rule of pg_hba.conf applies.
            if name != "PGDATABASE" {
                c.env(name, value.expose());
            }
        }
        c.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = c.spawn().target(|| "cannot run pg_basebackup".to_string())?;
        let pipe = || Error::state("pg_basebackup has no pipe");
        let out = child.stdout.take().ok_or_else(pipe)?;
        let mut err = child.stderr.take().ok_or_else(pipe)?;
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
        Ok(Self { child, out, errors: Some(errors), read: 0 })
    }

    /// Bytes of the tar read so far.
    pub fn bytes(&self) -> u64 {
        self.read
    }

    /// What ends the program from another thread, while this one waits in a read: a server whose archiving fails keeps
    /// the backup waiting for ever. Valid until [`BaseBackup::finish`] returns.
    pub fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        move || {
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    }

    /// Waits for the program's end and says whether the backup is whole. Returns the bytes of the tar.
    ///
    /// # Errors
    /// `pg_basebackup` failed; its words are the reason. What was read is then no backup.
    pub fn finish(mut self) -> Result<u64> {
        // Whoever stops reading early must not wait for a program that waits for them.
        let mut rest = [0u8; 4096];
        let unread = self.out.read(&mut rest).unwrap_or(0);
        if unread > 0 {
            return Err(Error::state("the base backup was not read to its end"));
        }
        let status = self.child.wait().target(|| "cannot wait for pg_basebackup".to_string())?;
        let words = self.errors.take().and_then(|h| h.join().ok()).unwrap_or_default();
        if status.success() {
            return Ok(self.read);
        }
        let words = CleanText::text(words.trim()).to_string().replace('\n', " | ");
        let mut error = Error::target("pg_basebackup failed").why(words.clone());
        if words.contains("can only write single tablespace") {
            error = error.hint("the cluster has more than one tablespace: one stream cannot carry it");
        }
        if words.contains("replication") {
            error = error.hint("the role needs REPLICATION and a replication line in pg_hba.conf");
        }
        Err(error)
    }
}

impl Read for BaseBackup {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.out.read(buf)?;
        self.read += n as u64;
        Ok(n)
    }
}

impl Drop for BaseBackup {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
