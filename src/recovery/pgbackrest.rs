//! An existing installation of pgBackRest as one who recovers: its repository is listed, read and restored by its own program,
//! and what it restores is isolated, replayed, verified and promoted as if it came out of ours.
//!
//! Facts about it were measured with 2.45: `info` ends with exit code 0 also when there is no such stanza or the repository
//! cannot be read, and `verify` always does; `verify` says "ok" of a log with a hole. So words are read here, not exit codes,
//! and names are counted.

mod archive;
mod info;
mod origin;
mod place;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::backend::{
    Abilities, Backups, Cannot, Goal, NEVER_IN_PLACE, Reachable, Recovery, Seen, Verified, Way, Which, apart,
};
use super::origin::Origin;
use super::range::{Ask, Look, ranges_of, route};
use super::watch::Watch;
use crate::backup::catalog::Manifest;
use crate::backup::wal::{Listing, WalName};
use crate::config::{Backend, Settings};
use crate::error::{Error, Result};
use crate::model::CleanText;
use crate::postgres::{WhenNeeded, user};
use crate::process::{ChildSpec, Ending, UnixUser, capture_data};

pub use info::Stanza;
pub use place::elsewhere;

/// How long a question may take: its repository may be far away.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a small one may take, about a single name.
const SMALL: Duration = Duration::from_secs(60);
/// The longest answer: one segment of the log at its largest, or the names of very many.
const MOST: usize = 1 << 30;

/// How it is called, and as whom.
#[derive(Debug, Clone)]
struct Installation {
    program: PathBuf,
    config: Option<PathBuf>,
    stanza: String,
    repo: u32,
    user: Option<UnixUser>,
    bin_dir: Option<PathBuf>,
    scratch: PathBuf,
    /// Ends what is asked of it.
    cancel: CancellationToken,
}

/// What of its repository was read once: the stanza, the names of its log, and where each lies.
struct Contents {
    stanza: Stanza,
    backups: Vec<Manifest>,
    segment_bytes: u32,
    listing: Listing,
    /// Name of a file of the log → its paths in the repository; more than one is one too many.
    paths: BTreeMap<String, Vec<String>>,
}

/// An installation of pgBackRest.
#[derive(Clone)]
pub struct PgBackRest {
    it: Installation,
    contents: Arc<OnceLock<Arc<Contents>>>,
}

impl PgBackRest {
    /// The one of the settings.
    ///
    /// # Errors
    /// Config: no stanza is named, the configuration file is not there; target: the program is not installed.
    pub fn of(settings: &Settings, scratch: PathBuf) -> Result<Self> {
        let s = &settings.pgbackrest;
        let stanza = s.stanza.clone().filter(|n| !n.is_empty()).ok_or_else(|| {
            Error::config("no stanza of pgBackRest is named").hint("set pgbackrest.stanza in breakglass.toml")
        })?;
        if stanza.starts_with('-') || stanza.contains(['/', '\n', '\0']) {
            return Err(Error::config(format!("{stanza:?} is not the name of a stanza"))
                .hint("put pgbackrest.stanza right in breakglass.toml"));
        }
        if let Some(config) = &s.config
            && let Err(e) = std::fs::metadata(config)
        {
            return Err(Error::config(format!("pgBackRest's configuration {:?} cannot be used", config.display()))
                .why(e)
                .hint("put pgbackrest.config right in breakglass.toml"));
        }
        let program = match &s.program {
            Some(p) => p.clone(),
            None => on_path("pgbackrest").ok_or_else(|| {
                Error::target("pgBackRest is not installed here")
                    .why("no program \"pgbackrest\" on PATH")
                    .hint("install it (Debian: apt-get install pgbackrest), or name it in pgbackrest.program")
            })?,
        };
        let it = Installation {
            program,
            config: s.config.clone(),
            stanza,
            repo: s.repo.unwrap_or(1),
            user: user::for_server(settings.run_as.as_deref())?,
            bin_dir: settings.bin_dir.clone(),
            scratch,
            cancel: CancellationToken::new(),
        };
        Ok(Self { it, contents: Arc::default() })
    }

    /// The same, whose questions end when this says so: its program may wait for a repository that does not answer.
    fn until(&self, cancel: &CancellationToken) -> Self {
        let mut it = self.clone();
        it.it.cancel = cancel.clone();
        it
    }

    fn contents(&self) -> Result<Arc<Contents>> {
        if let Some(c) = self.contents.get() {
            return Ok(c.clone());
        }
        let read = Arc::new(self.it.contents()?);
        Ok(self.contents.get_or_init(|| read).clone())
    }

    fn programs(&self) -> WhenNeeded {
        WhenNeeded::new(self.it.bin_dir.as_deref())
    }

    fn list(&self) -> Result<Backups> {
        let c = self.contents()?;
        let lines = c.stanza.backups().map(info::Backup::describe).collect();
        let json = serde_json::json!({
            "backend": "pgbackrest", "stanza": self.it.stanza, "repo": self.it.repo,
            "backups": c.stanza.backups().map(info::Backup::document).collect::<Vec<_>>(),
        });
        Ok(Backups { damaged: false, lines, warnings: Vec::new(), json })
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| crate::process::spawn::FALLBACK_PATH.into());
    std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file())
}

impl Installation {
    /// The words every call has: which installation, which stanza, and nothing said but what went wrong.
    fn words(&self, console: &str) -> Vec<String> {
        let mut all = vec![
            format!("--stanza={}", self.stanza),
            format!("--log-level-console={console}"),
            "--log-level-stderr=warn".to_string(),
            "--log-timestamp=n".to_string(),
        ];
        all.extend(self.config.iter().map(|c| format!("--config={}", c.display())));
        all
    }

    /// A child for what takes long. Everything it needs is in its configuration file: the server that fetches its log through
    /// it later has no environment, either.
    fn child(&self, console: &str) -> ChildSpec {
        ChildSpec::new(&self.program).args(self.words(console)).cwd("/").user(self.user.clone())
    }

    /// Runs it to its end; standard output.
    fn ask(&self, words: &[&str]) -> Result<Vec<u8>> {
        self.ask_within(words, PATIENCE)
    }

    fn ask_within(&self, words: &[&str], patience: Duration) -> Result<Vec<u8>> {
        let out = capture_data(&self.child("off").args(words), patience, MOST, &self.cancel)?;
        if out.end.success() {
            return Ok(out.stdout);
        }
        let command = words.iter().find(|w| !w.starts_with('-')).unwrap_or(&"");
        if out.end.ending == Ending::Cancelled {
            return Err(Error::interrupted(format!("stopped on request: pgbackrest {command} had not answered yet")));
        }
        Err(failure(command, &out.end.describe(), &[out.stderr, out.stdout].concat()))
    }
}

/// What it said when it failed: its own words, without their decoration, and what is known to help.
fn failure(command: &str, end: &str, words: &[u8]) -> Error {
    let text = String::from_utf8_lossy(words);
    let mut said: Vec<String> = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some((_, words)) = line.split_once("ERROR:") {
            said.push(words.trim().to_string());
        } else if let Some((_, words)) = line.split_once("HINT:") {
            hints.push(words.trim().to_string());
        }
    }
    let why = if said.is_empty() { "it said nothing".to_string() } else { said.join("; ") };
    let mut error = Error::target(format!("pgbackrest {command} failed: {end}")).why(CleanText::line(why.as_bytes()));
    for hint in hints {
        error = error.hint(CleanText::line(hint.as_bytes()).to_string());
    }
    error
        .hint(format!("its own words: pgbackrest {command} --log-level-console=detail, as the user PostgreSQL runs as"))
}

impl Recovery for PgBackRest {
    fn backend(&self) -> Backend {
        Backend::PgBackRest
    }
    fn place(&self) -> String {
        Origin::place(self)
    }
    fn abilities(&self) -> Abilities {
        Abilities {
            beside: true,
            in_place: false,
            targets: &["time", "lsn", "xid", "name", "latest"],
            cannot: &[
                NEVER_IN_PLACE,
                Cannot {
                    what: "find the damage in its log",
                    why: "breakglass pitr locate reads our own archive only",
                    instead: "name the moment by what people know, or archive into a repository of ours as well",
                },
                Cannot {
                    what: "take its backups",
                    why: "it does that itself",
                    instead: "pgbackrest --stanza=… backup",
                },
            ],
        }
    }
    fn cluster(&self) -> Result<Option<String>> {
        Ok(self.contents()?.stanza.system_identifier())
    }
    fn backups(&self) -> BoxFuture<'_, Result<Backups>> {
        let work = self.clone();
        Box::pin(apart(move || work.list()))
    }
    fn range(&self, timeline: Option<u32>) -> BoxFuture<'_, Result<Vec<Reachable>>> {
        let work = self.clone();
        Box::pin(apart(move || {
            let all = ranges_of(&work, &work.programs(), timeline, &work.it.scratch)?;
            Ok(all.into_iter().map(|r| Reachable::of(r, false)).collect())
        }))
    }
    fn preflight<'a>(
        &'a self,
        goal: &'a Goal,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Way>> {
        let (work, goal, cancel) = (self.until(cancel), goal.clone(), cancel.clone());
        Box::pin(apart(move || {
            if goal.base.look == Look::Everything {
                return Err(Error::usage("--deep reads base backups of our own repository only")
                    .why("those of pgBackRest are read by its own program")
                    .hint("let it verify them first: breakglass backup verify"));
            }
            let ask = Ask {
                target: &goal.target,
                suspects: &goal.suspects,
                timeline: goal.timeline,
                scratch: &work.it.scratch,
                after: goal.after,
                base: &goal.base,
                found: None,
            };
            Ok(Way::Beside(Box::new(route(&work, &work.programs(), &ask, &*watch, &cancel)?)))
        }))
    }
    fn verify<'a>(
        &'a self,
        which: &'a Which,
        watch: Arc<dyn Watch>,
        cancel: &'a CancellationToken,
        seen: Seen,
    ) -> BoxFuture<'a, Result<Vec<Verified>>> {
        Box::pin(verify::verify(self, which, watch, cancel, seen))
    }
    fn origin(&self) -> Option<&dyn Origin> {
        Some(self)
    }
}

/// The path of a file in a word for `/bin/sh` inside a setting of PostgreSQL.
fn word(path: &Path) -> Result<String> {
    crate::backup::wal::name::quoted_word(&path.display().to_string())
}

/// The name in the log of a file of the repository, such as `…/0000000100000000/00000001000000000000000B-365e….zst`.
fn name_of(path: &str) -> Option<WalName> {
    let file = path.rsplit('/').next()?;
    let whole = file.split_once('-').filter(|(name, _)| name.len() == 24).map_or(file, |(name, _)| name);
    // An unfinished one bears its digest behind the word.
    let whole = whole.split_once(".partial-").map_or(whole.to_string(), |(name, _)| format!("{name}.partial"));
    WalName::parse(&whole).ok()
}
