//! `pg_restore` on a spooled dump, and what it means when it fails.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{Request, order};
use crate::backup::spool::Spool;
use crate::error::{Context, Error, Result};
use crate::model::CleanText;
use crate::postgres::{Client, Database};
use crate::process::{ChildSpec, RunOptions};
use crate::recovery::watch::{Phase, Watch, check_cancel};

/// `pg_restore` on the spooled dump.
pub(super) struct Tool<'a> {
    pub client: Client,
    pub request: &'a Request,
    pub dump: &'a Spool,
    pub cancel: &'a CancellationToken,
}

impl Tool<'_> {
    fn spec(&self) -> ChildSpec {
        ChildSpec::new(self.client.bin_dir.join("pg_restore"))
            .bare_env()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .cwd("/")
            .user(self.request.run_as.clone())
            .pass_fd(self.dump.fd())
    }

    /// The archive's list of contents.
    pub async fn list(&self) -> Result<String> {
        let spec = self.spec().arg("--list").arg(self.dump.path());
        let options = RunOptions { cancel: self.cancel.clone(), ..RunOptions::default() };
        Ok(crate::process::capture(&spec, &options).await?.ok(&spec)?.text())
    }

    /// Loads what the list names.
    pub async fn load(&self, at: &Database, list: &str, tablespaces: &[String], watch: &dyn Watch) -> Result<()> {
        let request = self.request;
        let owner = request.run_as.as_ref().map(|u| (u.uid, u.gid));
        let mut chosen = Spool::new(&request.scratch, owner)?;
        std::io::Write::write_all(&mut chosen, list.as_bytes()).target(|| "writing the list of contents".into())?;
        let mut spec = self
            .spec()
            .pass_fd(chosen.fd())
            .args(["--verbose", "--exit-on-error", "--no-password"])
            .arg(format!("--jobs={}", request.jobs.max(1)))
            .arg(format!("--use-list={}", chosen.path().display()))
            .arg(format!("--dbname={}", at.name()));
        for (option, wanted) in [
            ("--no-owner", request.no_owner),
            ("--no-privileges", request.no_privileges),
            ("--no-tablespaces", !tablespaces.is_empty()),
        ] {
            if wanted {
                spec = spec.arg(option);
            }
        }
        for (name, value) in at.tool_env() {
            spec = spec.env(name, value.expose());
        }
        spec = spec.arg(self.dump.path());
        let total = list.lines().filter(|l| !l.starts_with(';')).count() as u64;
        let begun = Instant::now();
        let (mut said, mut done, mut rest) = (Said::default(), 0u64, Vec::<u8>::new());
        let options = RunOptions { cancel: self.cancel.clone(), merge: true, ..RunOptions::default() };
        let end = crate::process::run(&spec, &options, |_, bytes| {
            rest.extend_from_slice(bytes);
            while let Some(at) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=at).collect();
                let line = CleanText::line(line.trim_ascii_end()).to_string();
                let words = line.strip_prefix("pg_restore: ").unwrap_or(&line).to_string();
                if words.starts_with("creating ")
                    || words.starts_with("processing data")
                    || words.starts_with("finished item")
                {
                    done += u64::from(!words.starts_with("processing data"));
                    watch.phase(&Phase::counted("load", done.min(total), total, "items", &words, begun));
                }
                said.line(words);
            }
        })
        .await?;
        if end.success() {
            return Ok(());
        }
        check_cancel(self.cancel, "nothing was restored")?;
        Err(Error::target(format!("{TOOL_FAILED}: {}", end.describe())).why(said.matters().join(SAID)))
    }
}

/// What `pg_restore` said, as far as it matters. Behind an error stands the whole statement that the server refused, which may be
/// longer than anything that can be kept: the error itself must not go for it.
#[derive(Default)]
struct Said {
    /// The last lines before the first error.
    last: Vec<String>,
    /// The first error, and what was said of it.
    wrong: Vec<String>,
}

impl Said {
    const MOST: usize = 12;

    fn line(&mut self, words: String) {
        if !self.wrong.is_empty() || words.contains("error:") {
            if self.wrong.len() < Self::MOST {
                self.wrong.push(words);
            }
            return;
        }
        self.last.push(words);
        let over = self.last.len().saturating_sub(Self::MOST);
        self.last.drain(..over);
    }

    /// What it was at, the error, and what the server adds to it, without the statement.
    fn matters(&self) -> Vec<String> {
        if self.wrong.is_empty() {
            return self.last[self.last.len().saturating_sub(4)..].to_vec();
        }
        let entry = |l: &String| Some(order::entry(l.strip_prefix("from TOC entry ")?)?.2.to_string());
        let at = self.last.iter().rev().find_map(entry).map(|what| format!("at {what}"));
        // `psql` would show the caret below its line.
        let of_error = self.wrong.iter().take_while(|l| !l.starts_with("Command was:")).filter(|l| l.trim() != "^");
        at.into_iter().chain(of_error.cloned()).collect()
    }
}

/// How the error begins when `pg_restore` ends with another code than 0, and what separates the lines it said.
const TOOL_FAILED: &str = "pg_restore failed";
const SAID: &str = " | ";

/// What a server says when it, its machine or what is installed there is the reason, and not the dump.
const OF_THE_MACHINE: &[&str] = &[
    "No space left",
    "Disk quota",
    "could not extend file",
    "could not write",
    "could not resize shared memory",
    "out of memory",
    "out of shared memory",
    "Cannot allocate memory",
    "Too many open files",
    "too many clients",
    "connection to server",
    "server closed the connection",
    "terminating connection",
    "shutting down",
    "starting up",
    "recovery mode",
    "extension control file",
    "extension \"",
    "could not access file",
    "could not load library",
    "could not create locale",
    "could not open",
    "not supported by this build",
    "unrecognized configuration parameter",
    "permission denied",
    "role \"",
    "tablespace \"",
];

/// That the server refused what a dump holds, without the rows that it quotes: proof, where the server is one that was made for
/// it, that the dump does not come back. None when the reason may be the machine: a full disk, an extension, role or locale that
/// is not there, a server or tool that died.
pub fn does_not_come_back(e: &Error) -> Option<Error> {
    let said: Vec<&str> = e.why.split(SAID).skip_while(|l| !l.contains("error:")).collect();
    let errors = || said.iter().filter(|l| ["error:", "ERROR:", "FATAL:", "PANIC:"].iter().any(|w| l.contains(w)));
    let of_server = errors().any(|l| l.contains("ERROR:"));
    let of_machine = errors().any(|l| OF_THE_MACHINE.iter().any(|w| l.contains(w)));
    if !e.what.starts_with(TOOL_FAILED) || !e.what.contains("exit code") || !of_server || of_machine {
        return None;
    }
    let quotes = |l: &&str| ["DETAIL:", "CONTEXT:", "Command was:"].iter().any(|w| l.trim_start().starts_with(w));
    let shown: Vec<&str> = said.into_iter().take_while(|l| !quotes(l)).collect();
    Some(Error::check(e.what.clone()).why(shown.join(SAID)))
}
