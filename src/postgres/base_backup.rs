//! A base backup as one stream: `pg_basebackup` writes a plain tar with its manifest to a pipe.

use std::io::{self, Read};
use std::process::Command;

use tokio_util::sync::CancellationToken;

use super::connect::Database;
use super::programs::Programs;
use super::tool_stream::{EndedBy, ToolStream};
use crate::error::{ErrorKind, Result};
use crate::process::UnixUser;

/// A base backup that is being read. Read it to its end, then call [`BaseBackup::finish`]: only that says whether it is
/// whole. Dropping it early ends `pg_basebackup`.
#[derive(Debug)]
pub struct BaseBackup(ToolStream);

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
        ToolStream::start("pg_basebackup", c).map(Self)
    }

    /// Bytes of the tar read so far.
    pub fn bytes(&self) -> u64 {
        self.0.so_far()
    }

    /// What ends the program from another thread, while this one waits in a read: a server whose archiving fails keeps
    /// the backup waiting for ever. Valid until [`BaseBackup::finish`] returns.
    pub fn canceller(&self) -> impl Fn() + Send + Sync + 'static {
        self.0.canceller()
    }

    /// As [`ToolStream::ended_by`].
    pub fn ended_by(&self, cancel: &CancellationToken) -> EndedBy {
        self.0.ended_by(cancel)
    }

    /// Waits for the program's end and says whether the backup is whole. Returns the bytes of the tar.
    ///
    /// # Errors
    /// `pg_basebackup` failed; its words are the reason. What was read is then no backup.
    pub fn finish(self) -> Result<u64> {
        self.0.finish().map_err(|mut error| {
            if error.why.contains("checksum") {
                error.kind = ErrorKind::Check;
                error.what = "the server's own pages are damaged: no base backup was taken of them".into();
                error = error
                    .hint("this is data corruption: go through the plan for it (breakglass, \"Database corruption\")")
                    .hint("keep the backups and the log there are: cleanup must not run until this is understood");
            }
            if error.why.contains("can only write single tablespace") {
                error = error.hint("the cluster has more than one tablespace: one stream cannot carry it");
            }
            if error.why.contains("replication") {
                error = error.hint("the role needs REPLICATION and a replication line in pg_hba.conf");
            }
            error
        })
    }
}

impl Read for BaseBackup {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}
