//! Variables and folder that a shell block leaves to the blocks after it.
//!
//! Kept as the difference to what the block was given, in `env/<uid>/carried` of the incident: one file per Unix user, 0600,
//! because whoever may write it runs code as its reader (`PATH`, `LD_PRELOAD`, `BASH_ENV`). Gone when the incident is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

/// Variables that belong to one shell and not to the next.
const OF_ONE_SHELL: [&str; 8] = ["_", "SHLVL", "PWD", "OLDPWD", "SHELLOPTS", "BASHOPTS", "PPID", END_MARK];

/// Last variable of a complete report: without it the block's report was cut and is not used.
pub const END_MARK: &str = "BREAKGLASS_ENV_END";

/// Largest file read back, in bytes.
const LIMIT: u64 = 8 * 1024 * 1024;

/// What is carried from block to block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// Variables set or changed by blocks.
    pub set: BTreeMap<OsString, OsString>,
    /// Variables taken away by blocks.
    pub unset: BTreeSet<OsString>,
    /// Folder the last block ended in.
    pub cwd: Option<PathBuf>,
}

impl Carried {
    /// Folder of the current Unix user below the incident's.
    pub fn folder(incident_dir: &Path) -> PathBuf {
        incident_dir.join("env").join(crate::process::user::current_uid().to_string())
    }

    /// What earlier blocks of this user left; nothing when there were none.
    ///
    /// # Errors
    /// Refused when the file or its folder belongs to somebody else or is open to others; state when it cannot be read.
    pub fn load(incident_dir: &Path) -> Result<Self> {
        let folder = Self::folder(incident_dir);
        let path = folder.join("carried");
        let what = || format!("cannot read the carried variables {}", path.display());
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC).bits();
        let file = match OpenOptions::new().read(true).custom_flags(flags as i32).open(&path) {
            Ok(f) => f,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e).state(what),
        };
        private(&file.metadata().state(what)?, &path)?;
        private(&std::fs::symlink_metadata(&folder).state(what)?, &folder)?;
        let mut bytes = Vec::new();
        file.take(LIMIT).read_to_end(&mut bytes).state(what)?;
        Ok(Self::parse(&bytes))
    }

    /// Keeps it for the next block of this user.
    ///
    /// # Errors
    /// Refused when the folder belongs to somebody else; state when it cannot be written.
    pub fn save(&self, incident_dir: &Path) -> Result<()> {
        let folder = Self::folder(incident_dir);
        let what = || format!("cannot keep the carried variables in {}", folder.display());
        if let Some(parent) = folder.parent() {
            // The folder above is of all users; below it each has one of their own.
            crate::journal::files::create_dir(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e).state(what),
            _ => {}
        }
        private(&std::fs::symlink_metadata(&folder).state(what)?, &folder)?;
        let temporary = folder.join(format!(".carried.{}", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).state(what)?;
        file.write_all(&self.to_bytes()).state(what)?;
        std::fs::rename(&temporary, folder.join("carried")).state(what)
    }

    /// Takes away what blocks left, of every user as far as we may. Called when the incident is closed.
    pub fn forget(incident_dir: &Path) {
        let Ok(users) = std::fs::read_dir(incident_dir.join("env")) else { return };
        for user in users.flatten() {
            // What belongs to another user goes when they next open the incident.
            let _ = std::fs::remove_dir_all(user.path());
        }
        let _ = std::fs::remove_dir(incident_dir.join("env"));
    }

    /// The state after a block: `given` is the environment it was started with, `report` what its trap wrote (`env -0`, the
    /// end mark last). None when the report is missing or cut: then the old variables stay.
    pub fn after(&self, given: &BTreeMap<OsString, OsString>, report: &[u8]) -> Option<Self> {
        let mut seen: BTreeMap<OsString, OsString> = report
            .split(|b| *b == 0)
            .filter_map(|entry| {
                let eq = entry.iter().skip(1).position(|b| *b == b'=')? + 1;
                Some((OsStr::from_bytes(&entry[..eq]).to_owned(), OsStr::from_bytes(&entry[eq + 1..]).to_owned()))
            })
            .collect();
        seen.remove(OsStr::new(END_MARK))?;
        // A folder that was deleted under the block cannot be the next one's.
        let cwd = seen.get(OsStr::new("PWD")).map(PathBuf::from).filter(|p| p.is_dir()).or_else(|| self.cwd.clone());
        let mut next = Self { cwd, ..self.clone() };
        let ours = |name: &OsStr| !OF_ONE_SHELL.iter().any(|n| OsStr::new(n) == name);
        for (name, value) in &seen {
            if ours(name) && given.get(name) != Some(value) {
                next.unset.remove(name);
                next.set.insert(name.clone(), value.clone());
            }
        }
        for name in given.keys() {
            if ours(name) && !seen.contains_key(name) {
                next.set.remove(name);
                next.unset.insert(name.clone());
            }
        }
        Some(next)
    }

    /// Puts it on top of an environment.
    pub fn apply(&self, env: &mut BTreeMap<OsString, OsString>) {
        for name in &self.unset {
            env.remove(name);
        }
        env.extend(self.set.iter().map(|(n, v)| (n.clone(), v.clone())));
    }

    /// `+NAME=value`, `-NAME` and `@folder`, each ended by a zero byte.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in &self.set {
            out.push(b'+');
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        }
        for name in &self.unset {
            out.push(b'-');
            out.extend_from_slice(name.as_bytes());
            out.push(0);
        }
        if let Some(cwd) = &self.cwd {
            out.push(b'@');
            out.extend_from_slice(cwd.as_os_str().as_bytes());
            out.push(0);
        }
        out
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut out = Self::default();
        let text = |b: &[u8]| OsString::from_vec(b.to_vec());
        for entry in bytes.split(|b| *b == 0) {
            match entry.split_first() {
                Some((b'+', rest)) => {
                    if let Some(eq) = rest.iter().position(|b| *b == b'=') {
                        out.set.insert(text(&rest[..eq]), text(&rest[eq + 1..]));
                    }
                }
                Some((b'-', rest)) => {
                    out.unset.insert(text(rest));
                }
                Some((b'@', rest)) => out.cwd = Some(PathBuf::from(text(rest))),
                _ => {}
            }
        }
        out
    }
}

/// Refuses what somebody else could have written.
fn private(meta: &std::fs::Metadata, path: &Path) -> Result<()> {
    if meta.uid() == crate::process::user::current_uid() && meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::refused(format!("the carried variables {} could have been written by somebody else", path.display()))
        .why(format!("owner {}, mode {:o}", meta.uid(), meta.mode() & 0o7777))
        .hint("Remove the file or folder and set the variables again."))
}

/// An open, nameless file that a block's trap can write its report to.
///
/// # Errors
/// State when the folder takes no file.
pub fn report_file(folder: &Path) -> Result<File> {
    tempfile::tempfile_in(folder).state(|| format!("cannot make a scratch file in {}", folder.display()))
}
