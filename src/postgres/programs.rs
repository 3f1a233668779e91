//! Where the server programs are: found by ourselves, because distributions keep them off PATH.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::user;
use crate::error::{Context, Error, Result};
use crate::process::UnixUser;

/// What a folder must hold to count as a server's: a lone `postgres` on PATH may be a wrapper or a link.
pub const NEEDED: [&str; 5] = ["initdb", "pg_ctl", "postgres", "pg_basebackup", "pg_controldata"];

/// A complete set of server programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Folder of `postgres`, `initdb`, `pg_ctl`, ….
    pub bin_dir: PathBuf,
    /// Major version, such as 15.
    pub major: u32,
    /// Minor version, such as 20 (0 for a development version).
    pub minor: u32,
}

impl Programs {
    /// Finds server programs: the configured folder alone when given; else PATH, `pg_config` and the usual places, the
    /// newest first. With `major`, only that major version (a data directory can be served by no other).
    ///
    /// # Errors
    /// Target (3) when none is found; the error says what was found instead, where was looked, and how to install on this
    /// system.
    pub fn find(configured: Option<&Path>, major: Option<u32>) -> Result<Self> {
        if let Some(dir) = configured {
            let found = Self::at(dir).ok_or_else(|| {
                let error = Error::target(format!("no PostgreSQL server programs in {:?}", dir.display()))
                    .why(format!("postgres.bin_dir names this folder, and it does not hold {}", NEEDED.join(", ")));
                with_install_command(error).hint("put postgres.bin_dir right in breakglass.toml, or leave it out")
            })?;
            return match major {
                Some(m) if m != found.major => Err(Error::config(format!(
                    "{:?} holds PostgreSQL {}, version {m} is needed",
                    dir.display(),
                    found.major
                ))),
                _ => Ok(found),
            };
        }
        let places = places(std::env::var_os("PATH"), Path::new("/"));
        Self::find_in(&places, major)
    }

    /// The newest complete set among `places`; of equal versions the first.
    ///
    /// # Errors
    /// As [`Programs::find`].
    pub fn find_in(places: &[PathBuf], major: Option<u32>) -> Result<Self> {
        let mut all: Vec<Self> = Vec::new();
        for place in places {
            // The same folder by another name, or links into it: asking a server for its version takes a while.
            let same = |dir: &Path| all.iter().any(|a| a.bin_dir == dir);
            let real = std::fs::canonicalize(place.join("postgres")).ok();
            if real.as_deref().and_then(Path::parent).is_some_and(same) {
                continue;
            }
            all.extend(Self::at(place).filter(|p| !same(&p.bin_dir)));
        }
        let mut best: Option<&Self> = None;
        for p in all.iter().filter(|p| major.is_none_or(|m| m == p.major)) {
            if best.is_none_or(|b| (p.major, p.minor) > (b.major, b.minor)) {
                best = Some(p);
            }
        }
        if let Some(p) = best {
            return Ok(p.clone());
        }
        let mut error = match major {
            Some(m) => Error::target(format!("no server programs of PostgreSQL {m} found")),
            None => Error::target("no PostgreSQL server programs found"),
        };
        error = if all.is_empty() {
            error.why("looked on PATH, asked pg_config, and in the usual places of Debian, Red Hat, Homebrew and Postgres.app")
        } else {
            let have: Vec<String> = all.iter().map(|p| format!("{} in {}", p.version(), p.bin_dir.display())).collect();
            error.why(format!("found {}", have.join(", ")))
        };
        Err(with_install_command(error)
            .hint("if it is installed, name its folder in breakglass.toml (postgres.bin_dir)"))
    }

    /// The programs in this folder (links followed), when it is complete and its `postgres` says a version.
    pub fn at(dir: &Path) -> Option<Self> {
        // A link in /usr/local/bin leads to the real folder.
        let real = std::fs::canonicalize(dir.join("postgres")).ok()?;
        let own = std::fs::canonicalize(dir).ok()?;
        for bin_dir in [own.as_path(), real.parent()?] {
            if NEEDED.iter().all(|n| bin_dir.join(n).is_file())
                && let Some((major, minor)) = version_of(&bin_dir.join("postgres"))
            {
                return Some(Self { bin_dir: bin_dir.to_path_buf(), major, minor });
            }
        }
        None
    }

    /// `15.20`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// Full path of one program.
    pub fn path(&self, program: &str) -> PathBuf {
        self.bin_dir.join(program)
    }

    /// A command for one of the programs that inherits nothing: environment emptied but for PATH and a C locale, folder
    /// `/`, input from nowhere, as `user`. What a server would inherit from an incident must not outlive it.
    pub fn command(&self, program: &str, user: Option<&UnixUser>) -> Command {
        let mut c = Command::new(self.path(program));
        clean(&mut c, &self.bin_dir);
        user::apply(&mut c, user);
        crate::process::spawn::hold_children_lock(&mut c);
        c
    }

    /// As [`Programs::command`], for what starts a server: it also inherits no file of ours above 2, whatever their
    /// close-on-exec flags say. A server would hold our locks for as long as it lives. One that belongs to a worker's run
    /// (`of_run`) holds that run's `servers.lock`, which is let go when the run's end is recorded.
    ///
    /// # Errors
    /// The run's lock is held by somebody else.
    pub fn detached(&self, program: &str, user: Option<&UnixUser>, of_run: bool) -> Result<Command> {
        // bash, because dash cannot name a file above 9; without bash at least those up to 9 are closed.
        let bash = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"].iter().find(|p| Path::new(p).is_file());
        let all = "k=$1; shift; for f in /proc/self/fd/* /dev/fd/*; do n=${f##*/}; case $n in 0|1|2|\"$k\"|*[!0-9]*) ;; \
                   *) eval \"exec $n>&-\" 2>/dev/null ;; esac; done; exec \"$@\"";
        let some =
            "k=$1; shift; for n in 3 4 5 6 7 8 9; do [ \"$n\" = \"$k\" ] || eval \"exec $n>&-\"; done; exec \"$@\"";
        let mut c = Command::new(bash.copied().unwrap_or("/bin/sh"));
        let kept = if of_run { crate::process::spawn::hold_servers_lock(&mut c)? } else { None };
        c.arg("-c").arg(if bash.is_some() { all } else { some }).arg("breakglass");
        c.arg(kept.map(|fd| fd.to_string()).unwrap_or_default()).arg(self.path(program));
        clean(&mut c, &self.bin_dir);
        user::apply(&mut c, user);
        Ok(c)
    }
}

/// Server programs for work that mostly needs none.
///
/// To find them takes five processes, which is longer than all else that a look into the index of the log takes.
pub trait FindPrograms: Send + Sync {
    /// The programs.
    ///
    /// # Errors
    /// As [`Programs::find`].
    fn programs(&self) -> Result<&Programs>;
}

impl FindPrograms for Programs {
    fn programs(&self) -> Result<&Programs> {
        Ok(self)
    }
}

/// Programs that are looked for when they are needed first.
#[derive(Debug, Default)]
pub struct WhenNeeded {
    configured: Option<PathBuf>,
    found: OnceLock<Programs>,
}

impl WhenNeeded {
    /// Will look as [`Programs::find`] does, for any version.
    pub fn new(configured: Option<&Path>) -> Self {
        Self { configured: configured.map(Path::to_path_buf), found: OnceLock::new() }
    }
}

impl FindPrograms for WhenNeeded {
    fn programs(&self) -> Result<&Programs> {
        if self.found.get().is_none() {
            // Somebody else found the same meanwhile, or nobody did.
            let _ = self.found.set(Programs::find(self.configured.as_deref(), None)?);
        }
        self.found.get().ok_or_else(|| Error::state("the server programs that were found are gone"))
    }
}

/// Says how to install what is missing. Said everywhere; only `drill` ever offers to run it.
fn with_install_command(error: Error) -> Error {
    match super::install::install_command() {
        Some(i) => error.hint(format!("install it on {}: {}", i.system, i.text)),
        None => error,
    }
}

fn clean(c: &mut Command, bin_dir: &Path) {
    c.env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin_dir.display()))
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir("/")
        .stdin(Stdio::null());
}

/// The major version of a data directory, from its `PG_VERSION`.
///
/// # Errors
/// The file is missing or holds no version.
pub fn data_version(data: &Path) -> Result<u32> {
    let file = data.join("PG_VERSION");
    let text = std::fs::read_to_string(&file).target(|| format!("cannot read {:?}", file.display()))?;
    text.trim().parse().map_err(|_| {
        Error::target(format!("{:?} says {:?}", file.display(), text.trim())).why("not a version from 10 on")
    })
}

fn version_of(postgres: &Path) -> Option<(u32, u32)> {
    let out = Command::new(postgres)
        .arg("--version")
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    parse_version(&String::from_utf8_lossy(&out.stdout))
}

/// Major and minor version out of `postgres (PostgreSQL) 15.20 (Debian …)`; `17beta1` reads as 17.0.
pub fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("(PostgreSQL) ")?;
    let word = rest.split_whitespace().next()?;
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let major = word[..digits].parse().ok()?;
    let minor = word[digits..].strip_prefix('.').and_then(|m| m.parse().ok()).unwrap_or(0);
    Some((major, minor))
}

/// Folders to look in, in order: what `pg_config` says, PATH, then the usual places below `root` (`/`; another one in
/// tests).
pub fn places(path: Option<OsString>, root: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let on_path: Vec<PathBuf> = path.as_deref().map(|p| std::env::split_paths(p).collect()).unwrap_or_default();
    for dir in &on_path {
        let program = dir.join("pg_config");
        if program.is_file()
            && let Ok(o) = asked(&program, path.as_deref()).output()
            && o.status.success()
        {
            out.push(PathBuf::from(String::from_utf8_lossy(&o.stdout).trim()));
        }
    }
    out.extend(on_path);
    for pattern in [
        "usr/lib/postgresql/*/bin",
        "usr/pgsql-*/bin",
        "usr/lib/postgresql*/bin",
        "usr/libexec/postgresql*",
        "opt/homebrew/opt/postgresql@*/bin",
        "opt/homebrew/opt/postgresql/bin",
        "usr/local/opt/postgresql@*/bin",
        "usr/local/opt/postgresql/bin",
        "home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
        "Applications/Postgres.app/Contents/Versions/*/bin",
        "usr/local/pgsql/bin",
        "opt/local/lib/postgresql*/bin",
        "usr/bin",
    ] {
        out.extend(expand(root, pattern));
    }
    out
}

/// `pg_config --bindir`, with nothing of our environment but the path: Debian's is a script that calls others.
fn asked(program: &Path, path: Option<&OsStr>) -> Command {
    let mut c = Command::new(program);
    c.arg("--bindir").env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    c.envs(path.map(|p| ("PATH", p)));
    c
}

/// Expands a pattern with at most one `*` per path part.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_path_buf()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for dir in &found {
            match part.split_once('*') {
                None => next.push(dir.join(part)),
                Some((before, after)) => {
                    let Ok(entries) = std::fs::read_dir(dir) else { continue };
                    for name in entries.filter_map(|e| e.ok()?.file_name().into_string().ok()) {
                        if name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
                        {
                            next.push(dir.join(name));
                        }
                    }
                }
            }
        }
        next.sort();
        found = next;
    }
    found.retain(|d| d.is_dir());
    found
}
