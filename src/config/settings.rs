//! Everything an action may need to know, as one value that goes into a run's request.json. Never a secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::backend::{Backend, PgBackRestSettings, SupabaseSettings};
pub use super::health::HealthSettings;
use crate::model::Secret;

/// How to reach a database; the password travels apart, as a [`Secret`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Host name or address, or the directory of a unix socket when it begins with `/`.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Database.
    pub database: String,
    /// `sslmode` as in a connection URL; `prefer` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sslmode: Option<String>,
}

impl std::fmt::Display for Connection {
    /// `shop @ db.example.org:5432`, without role and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} @ {}:{}", self.database, self.host, self.port)
    }
}

/// The service in front of the database, as far as we may touch it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// URL that answers 2xx with JSON `{"status": …, "components": {name: status}}` when asked with GET.
    pub health_url: Option<String>,
    /// Command that stops the faulty release: program and arguments, run without a shell.
    pub release_stop: Vec<String>,
    /// Command that points the service at another database; `{host}`, `{port}`, `{database}` are replaced.
    pub switch: Vec<String>,
    /// Command that lets writes in again after the switch, if the service was put into maintenance.
    pub resume: Vec<String>,
    /// Roles of the application: their sessions are ended at containment. Empty: all but our own.
    pub roles: Vec<String>,
    /// URL that does what customers do, past the maintenance page; 2xx is good.
    pub probe_url: Option<String>,
    /// Command that prints the report of releases as JSON (docs/formats.md, "Report of releases").
    pub releases: Vec<String>,
    /// Command that switches maintenance mode; `{state}` becomes `on` or `off`.
    pub maintenance: Vec<String>,
    /// Command that lets the pipeline deploy by itself or not; `{state}` becomes `on` or `off`.
    pub autodeploy: Vec<String>,
    /// Command that puts a release into service; `{release}` is replaced.
    pub rollback: Vec<String>,
    /// Command that switches a feature flag; `{flag}` and `{state}` are replaced.
    pub flag: Vec<String>,
}

/// Another region that can take over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailoverSettings {
    /// The standby, by an address that needs nothing of the lost region.
    pub standby: Option<Connection>,
    /// The primary by its own address, past name service and load balancer; the target's when not given.
    pub primary: Option<Connection>,
    /// Command that closes the primary for good: power, network, start. Program and arguments, run without a shell.
    pub fence: Vec<String>,
    /// Command that prints the last sample of the primary as JSON (docs/formats.md, "Sample of a primary").
    pub monitor: Vec<String>,
    /// Commands that look at the service from outside, one for each place; exit 0 when it answers there.
    pub outside: Vec<Vec<String>>,
    /// Data directory of the primary, where it is on this machine.
    pub old_data: Option<PathBuf>,
}

/// What a breach needs beside the database itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreachSettings {
    /// Log files that are evidence: of the server, proxy, application.
    pub logs: Vec<PathBuf>,
    /// Name of a secret, as in the plan's table, → command that replaces it: program and arguments, run without a shell.
    pub rotate: BTreeMap<String, Vec<String>>,
}

/// Limits of the safety gates, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policies {
    /// A `destroy` needs a verified backup younger than this many seconds.
    pub backup_max_age_s: u64,
    /// A preview older than this many seconds must be repeated.
    pub preview_max_age_s: u64,
    /// `destroy` needs another person's approval.
    pub second_person: bool,
}

impl Default for Policies {
    fn default() -> Self {
        Self { backup_max_age_s: 24 * 3600, preview_max_age_s: 15 * 60, second_person: false }
    }
}

/// How long backups are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// Everything younger than this many days.
    Days(u32),
    /// Grandfather, father, son: the newest of each of the last so many days, weeks, months and years that have one.
    Generations {
        /// Days.
        daily: u32,
        /// Weeks from Monday.
        weekly: u32,
        /// Months.
        monthly: u32,
        /// Years.
        yearly: u32,
    },
}

impl Default for Retention {
    /// 30 days.
    fn default() -> Self {
        Self::Days(30)
    }
}

/// Which tables come first: in a restore they are back before the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tiers {
    /// What the service cannot do without: `schema.table`, `table` of `public`, or `schema.*`.
    pub critical: Vec<String>,
    /// What comes next.
    pub important: Vec<String>,
}

impl Tiers {
    /// Schema and table that a name of a list means, without quotes; the schema is `public` where none is named.
    pub fn meant(name: &str) -> (String, String) {
        let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
        let mut chars = name.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.next_if_eq(&'"').is_some() => part.push('"'),
                '"' => quoted = !quoted,
                '.' if !quoted && parts.is_empty() => parts.push(std::mem::take(&mut part)),
                c => part.push(c),
            }
        }
        (parts.pop().unwrap_or_else(|| "public".into()), part)
    }
    /// Whether none are configured.
    pub fn is_empty(&self) -> bool {
        self.critical.is_empty() && self.important.is_empty()
    }
}

/// Everything an action may need to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The target as people call it, such as `shop @ production`.
    pub target: Option<String>,
    /// The database.
    pub database: Option<Connection>,
    /// What the live identity must be: `system_identifier`, `database`, `host`.
    pub expect: BTreeMap<String, String>,
    /// Repository of backups and WAL: a path or the URL of a folder or bucket.
    pub repository: Option<String>,
    /// Places that get a copy of the repository after every backup.
    pub repository_copies: Vec<String>,
    /// All that anything may be sealed for: the key id of the repository, and the public keys of its extra recipients. Empty: nobody is
    /// refused.
    pub recipients: Vec<String>,
    /// Folder in the state directory where the heads of catalogs are remembered; none: they are not.
    pub catalog_heads: Option<PathBuf>,
    /// Only look: what was verified is not written down.
    pub read_only: bool,
    /// How long backups are kept.
    pub retention: Retention,
    /// Who recovers.
    pub backend: Backend,
    /// The installation of pgBackRest, when it recovers.
    pub pgbackrest: PgBackRestSettings,
    /// The project of Supabase, when it recovers.
    pub supabase: SupabaseSettings,
    /// Folder in the state directory for requests to those who recover in place; none: nothing can be asked of them.
    pub requests: Option<PathBuf>,
    /// Directory of PostgreSQL's server programs; found by ourselves when not given.
    pub bin_dir: Option<PathBuf>,
    /// Unix user that runs PostgreSQL when we are root.
    pub run_as: Option<String>,
    /// Where recovered instances are built; beside the source's data directory when not given.
    pub instances_dir: Option<PathBuf>,
    /// Executable to use in `archive_command` and `restore_command` when the running one cannot be executed by `run_as`.
    pub helper_exe: Option<PathBuf>,
    /// The service in front of the database.
    pub service: ServiceSettings,
    /// Another region that can take over.
    pub failover: FailoverSettings,
    /// Command that takes a message on its standard input: program and arguments, run without a shell; `{audience}` is replaced.
    pub notify: Vec<String>,
    /// What a breach needs.
    pub breach: BreachSettings,
    /// Limits of the safety gates.
    pub policy: Policies,
    /// What `health` looks at beside service, database and repository.
    pub health: HealthSettings,
    /// Which tables come first.
    pub tiers: Tiers,
    /// Database size in bytes for which drill reports project the recovery time.
    pub project_size_bytes: Option<u64>,
}

impl Settings {
    /// Without the places that are not on this machine: what an incident that is local only works with.
    #[must_use]
    pub fn kept_here(mut self) -> Self {
        let here = |place: &String| !place.contains("://") || place.starts_with("file://");
        self.repository_copies.retain(here);
        self.repository = self.repository.filter(here);
        self
    }
}

/// Secrets by name: `database_password`, `repository_key`, or the name of an environment variable.
///
/// They reach a worker through a pipe and a tool through its environment or a 0600 file.
#[derive(Debug, Clone, Default)]
pub struct Secrets(BTreeMap<String, Secret>);

/// Prefix of the values that were asked for during an incident.
const HELD: &str = "variable:";

/// Name of the database password.
pub const DATABASE_PASSWORD: &str = "database_password";
/// Name of the repository's passphrase (`BACKUP_ENCRYPTION_KEY`).
pub const REPOSITORY_KEY: &str = "repository_key";
/// Name of the text of a recipient's key file (`BACKUP_IDENTITY_FILE`), which opens the repository as well.
pub const REPOSITORY_IDENTITY: &str = "repository_identity";

/// Name of the access token for Supabase's Management API (`SUPABASE_ACCESS_TOKEN`).
pub const SUPABASE_TOKEN: &str = "supabase_access_token";

impl Secrets {
    /// Adds or replaces one.
    pub fn set(&mut self, name: impl Into<String>, secret: Secret) {
        self.0.insert(name.into(), secret);
    }
    /// Looks one up.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }
    /// Keeps the value of a plan's variable or blank: a shell gets it in its environment, nothing else ever does.
    pub fn hold(&mut self, variable: &str, secret: Secret) {
        self.set(format!("{HELD}{variable}"), secret);
    }
    /// Values kept with [`Self::hold`], by variable.
    pub fn held(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().filter_map(|(name, secret)| Some((name.strip_prefix(HELD)?, secret)))
    }
    /// All of them, for the redactor.
    pub fn values(&self) -> impl Iterator<Item = &Secret> {
        self.0.values()
    }
    /// The form that goes through the pipe to a worker: one JSON object.
    pub fn to_pipe(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let map: BTreeMap<&str, &str> = self.0.iter().map(|(k, v)| (k.as_str(), v.expose())).collect();
        zeroize::Zeroizing::new(serde_json::to_vec(&map).unwrap_or_default())
    }
    /// Reads the form that came through the pipe.
    pub fn from_pipe(bytes: &[u8]) -> Result<Self, String> {
        let map: BTreeMap<String, String> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Ok(Self(map.into_iter().map(|(k, v)| (k, Secret::new(v))).collect()))
    }
}
