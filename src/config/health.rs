//! What `health` looks at, as configured: addresses, queries, disks, and how old or far behind something may be.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::load::parse_size;
use crate::error::{Error, Result};
use crate::model::parse_duration;

/// An address that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlCheck {
    /// What it is called.
    pub name: String,
    /// The address, without a login.
    pub url: String,
    /// The answer's status that is right; any from 200 to 299 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Where in the JSON answer the status of the component stands, its members joined by dots; when not given, what is said
    /// under `components` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What stands there when it is well; one of the usual words (`operational`, `ok`, `up` …) when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<String>,
}

/// A query that is asked of the database, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlCheck {
    /// What it is called.
    pub name: String,
    /// A query of one column and one row.
    pub query: String,
    /// What it has to give: `= x`, `!= x`, or a number after `<`, `<=`, `>`, `>=`; true when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
}

/// A file system that has to have room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCheck {
    /// What it is called.
    pub name: String,
    /// A path on it.
    pub path: PathBuf,
    /// Bytes that have to be free; none: a share of it is asked for.
    pub bytes: Option<u64>,
    /// Percent of it that have to be free.
    pub percent: Option<u8>,
}

/// What `health` looks at beside service, database and repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthSettings {
    /// Addresses.
    pub urls: Vec<UrlCheck>,
    /// Queries.
    pub sql: Vec<SqlCheck>,
    /// Disks.
    pub disks: Vec<DiskCheck>,
    /// How old the newest verified backup may be, in seconds; as for the gate before something is destroyed when not given.
    pub backup_max_age_s: Option<u64>,
    /// How long ago a backup was last restored and found right at most, in seconds; none: it does not matter.
    pub proven_max_age_s: Option<u64>,
    /// How far behind the archived log may be, in seconds; none: as long as archiving does not fail.
    pub exposure_max_s: Option<u64>,
}

/// Names of components that `health` reports by itself.
pub const OWN_NAMES: [&str; 16] = [
    "service",
    "http",
    "postgresql",
    "identity",
    "exposure",
    "archiving",
    "repository",
    "backup",
    "backups",
    "catalog",
    "log",
    "segments",
    "proven",
    "clock",
    "room",
    "recipients",
];

/// The table `health` of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileHealth {
    url: Vec<Spanned<UrlCheck>>,
    sql: Vec<Spanned<SqlCheck>>,
    disk: Vec<Spanned<FileDisk>>,
    backup_max_age: Option<Spanned<String>>,
    proven_max_age: Option<Spanned<String>>,
    exposure_max: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDisk {
    name: Option<String>,
    path: PathBuf,
    min_free: String,
}

impl HealthSettings {
    /// Whether there is something to look at that needs neither the service's own page nor a repository.
    pub fn is_empty(&self) -> bool {
        self.urls.is_empty() && self.sql.is_empty() && self.disks.is_empty()
    }
}

impl FileHealth {
    /// Checks it; `bad` makes the error for a place in the file.
    pub(super) fn read(self, dir: &Path, bad: &dyn Fn(usize, String) -> Error) -> Result<HealthSettings> {
        let mut out = HealthSettings::default();
        let mut names: Vec<String> = OWN_NAMES.map(String::from).to_vec();
        let mut take = |at: usize, table: &str, name: &str| -> Result<()> {
            let plain = |c: char| c.is_alphanumeric() || "_- ./".contains(c);
            if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
                return Err(bad(at, format!("{table}.name {name:?}: letters, digits, \"_- ./\", at most 40")));
            }
            if names.iter().any(|n| n == name) {
                let why = "health reports by that name already; give it one of its own";
                return Err(bad(at, format!("{table}.name {name:?}: {why}")));
            }
            names.push(name.to_string());
            Ok(())
        };
        for check in self.url {
            let at = check.span().start;
            let check = check.into_inner();
            take(at, "health.url", &check.name)?;
            let rest = check.url.strip_prefix("https://").or_else(|| check.url.strip_prefix("http://"));
            let Some(host) = rest.map(|r| r.split(['/', '?']).next().unwrap_or("")).filter(|h| !h.is_empty()) else {
                return Err(bad(at, format!("health.url {:?}: url has to begin with http:// or https://", check.name)));
            };
            if host.contains('@') {
                // It is not repeated.
                return Err(bad(at, format!("health.url {:?}: url holds a login", check.name)));
            }
            if check.status.is_some_and(|s| !(100..600).contains(&s)) {
                return Err(bad(at, format!("health.url {:?}: status is from 100 to 599", check.name)));
            }
            if check.is.is_some() && check.path.is_none() {
                return Err(bad(at, format!("health.url {:?}: \"is\" needs \"path\"", check.name)));
            }
            out.urls.push(check);
        }
        for check in self.sql {
            let at = check.span().start;
            let check = check.into_inner();
            take(at, "health.sql", &check.name)?;
            if let Some(text) = &check.expect {
                Expectation::parse(text).map_err(|e| bad(at, format!("health.sql {:?}: expect: {e}", check.name)))?;
            }
            if check.query.trim().trim_end_matches(';').trim().is_empty() {
                return Err(bad(at, format!("health.sql {:?}: query is empty", check.name)));
            }
            out.sql.push(check);
        }
        for check in self.disk {
            let at = check.span().start;
            let FileDisk { name, path, min_free } = check.into_inner();
            let name = name.unwrap_or_else(|| format!("disk {}", path.display()));
            take(at, "health.disk", &name)?;
            let (bytes, percent) = match min_free.trim().strip_suffix('%') {
                Some(n) => match n.trim().parse::<u8>() {
                    Ok(n) if (1..100).contains(&n) => (None, Some(n)),
                    _ => return Err(bad(at, format!("health.disk {name:?}: min_free is from 1% to 99%"))),
                },
                None => match parse_size(&min_free) {
                    Ok(n) => (Some(n), None),
                    Err(e) => return Err(bad(at, format!("health.disk {name:?}: min_free: {e}, or a share: 10%"))),
                },
            };
            out.disks.push(DiskCheck { name, path: dir.join(path), bytes, percent });
        }
        let seconds = |key: &str, value: &Option<Spanned<String>>| match value {
            None => Ok(None),
            Some(v) => match parse_duration(v.as_ref()) {
                Ok(d) => Ok(Some(d.as_secs())),
                Err(e) => Err(bad(v.span().start, format!("health.{key}: {e}"))),
            },
        };
        out.backup_max_age_s = seconds("backup_max_age", &self.backup_max_age)?;
        out.proven_max_age_s = seconds("proven_max_age", &self.proven_max_age)?;
        out.exposure_max_s = seconds("exposure_max", &self.exposure_max)?;
        Ok(out)
    }
}

/// What a query has to give.
#[derive(Debug, Clone, PartialEq)]
pub enum Expectation {
    /// True.
    True,
    /// This text.
    Is(String),
    /// Another text than this.
    IsNot(String),
    /// A number that stands so to this one: `<`, `<=`, `>`, `>=`.
    Number(&'static str, f64),
}

impl Expectation {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::True);
        }
        for sign in ["<=", ">=", "<", ">"] {
            if let Some(number) = text.strip_prefix(sign) {
                let number = number.trim();
                return match number.parse::<f64>() {
                    Ok(n) if n.is_finite() => Ok(Self::Number(sign, n)),
                    _ => Err(format!("{number:?} is not a number")),
                };
            }
        }
        match (text.strip_prefix("!="), text.strip_prefix('=')) {
            (Some(other), _) => Ok(Self::IsNot(other.trim().to_string())),
            (None, Some(it)) => Ok(Self::Is(it.trim().to_string())),
            (None, None) => Err(format!("{text:?} does not begin with =, !=, <, <=, > or >=")),
        }
    }

    /// Whether an answer, none for no row or NULL, is what was expected.
    pub fn fits(&self, answer: Option<&str>) -> bool {
        let Some(answer) = answer.map(str::trim) else { return false };
        match self {
            Self::True => matches!(answer, "t" | "true"),
            Self::Is(text) => answer == text,
            Self::IsNot(text) => answer != text,
            Self::Number(sign, limit) => answer.parse::<f64>().is_ok_and(|n| match *sign {
                "<" => n < *limit,
                "<=" => n <= *limit,
                ">" => n > *limit,
                _ => n >= *limit,
            }),
        }
    }
}

impl std::fmt::Display for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::True => f.write_str("true"),
            Self::Is(text) => write!(f, "{text:?}"),
            Self::IsNot(text) => write!(f, "anything but {text:?}"),
            Self::Number(sign, n) => write!(f, "{sign} {n}"),
        }
    }
}
