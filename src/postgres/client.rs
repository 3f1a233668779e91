//! The client programs for a dump: `pg_dump` refuses a server newer than itself, so the right one is found first.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::programs::{parse_version, places};
use super::user;
use crate::error::{Error, Result};
use crate::process::UnixUser;

/// What a folder must hold to count.
pub const CLIENT_PROGRAMS: [&str; 4] = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];

/// A complete set of client programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Folder of `pg_dump`, `pg_restore`, ….
    pub bin_dir: PathBuf,
    /// Major version, such as 15.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

impl Client {
    /// Finds client programs that can dump a server of this major version: of the same version if there are any (their
    /// dumps restore into that version), else the oldest newer ones.
    ///
    /// # Errors
    /// Target when there are none, naming what was found instead.
    pub fn find(configured: Option<&Path>, server: u32) -> Result<Self> {
        let places = match configured {
            Some(dir) => vec![dir.to_path_buf()],
            None => places(std::env::var_os("PATH"), Path::new("/")),
        };
        Self::find_in(&places, server)
    }

    /// As [`Client::find`], among these folders.
    ///
    /// # Errors
    /// As [`Client::find`].
    pub fn find_in(places: &[PathBuf], server: u32) -> Result<Self> {
        let all: Vec<Self> = places.iter().filter_map(|p| Self::at(p)).collect();
        // The same major version first, then upwards; of one major version the newest minor, of equals the first found.
        let best = all.iter().rev().filter(|c| c.major >= server).min_by_key(|c| (c.major, std::cmp::Reverse(c.minor)));
        if let Some(client) = best {
            return Ok(client.clone());
        }
        let error = Error::target(format!("no pg_dump for a server of version {server}"));
        let error = if all.is_empty() {
            error.why("no client programs were found on PATH and in the usual places")
        } else {
            let mut have: Vec<String> =
                all.iter().map(|c| format!("{} in {}", c.version(), c.bin_dir.display())).collect();
            have.dedup();
            error.why(format!("pg_dump refuses a server newer than itself; found {}", have.join(", ")))
        };
        Err(error.hint(format!(
            "install the client programs of PostgreSQL {server}, or name their folder in breakglass.toml (postgres.bin_dir)"
        )))
    }

    /// The client programs in this folder, when it is complete and its `pg_dump` says a version.
    pub fn at(dir: &Path) -> Option<Self> {
        // Debian's /usr/bin/pg_dump is a script that chooses a version by its own rules.
        let real = std::fs::canonicalize(dir.join("pg_dump")).ok()?;
        let bin_dir = if real.file_name()? == "pg_dump" { real.parent()?.to_path_buf() } else { return None };
        if !CLIENT_PROGRAMS.iter().all(|n| bin_dir.join(n).is_file()) {
            return None;
        }
        let out = Command::new(bin_dir.join("pg_dump"))
            .arg("--version")
            .env_clear()
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let (major, minor) = parse_version(&String::from_utf8_lossy(&out.stdout))?;
        Some(Self { bin_dir, major, minor })
    }

    /// `15.20`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// A command for one of the programs with an environment of its own: nothing inherited may change what it does.
    pub fn command(&self, program: &str, user: Option<&UnixUser>) -> Command {
        let mut c = Command::new(self.bin_dir.join(program));
        c.env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.bin_dir.display()))
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir("/")
            .stdin(Stdio::null());
        user::apply(&mut c, user);
        crate::process::spawn::hold_children_lock(&mut c);
        c
    }
}
