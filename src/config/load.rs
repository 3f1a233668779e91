//! Finding and reading the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::backend::{Backend, PgBackRestSettings, SupabaseSettings};
use super::health::FileHealth;
use super::settings::{BreachSettings, FailoverSettings, SUPABASE_TOKEN, Tiers};
use super::settings::{DATABASE_PASSWORD, REPOSITORY_IDENTITY, REPOSITORY_KEY, Retention};
use super::url::{in_bucket, parse_database_url, percent_encoded, without_password};
use super::{Connection, Policies, Secrets, ServiceSettings, Settings};
use crate::error::{Error, Result};
use crate::model::{Secret, Time, parse_duration};

/// The environment variables we understand, read once by the caller.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Variables by name.
    pub vars: BTreeMap<String, String>,
    /// Current directory.
    pub cwd: PathBuf,
}

impl Environment {
    /// Reads the process's environment; variables that are not UTF-8 are left out.
    pub fn read() -> Self {
        let vars =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Self { vars, cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")) }
    }
    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

/// Configuration in force.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What actions need.
    pub settings: Settings,
    /// What must never be shown.
    pub secrets: Secrets,
    /// Where incidents live.
    pub state_dir: Option<PathBuf>,
    /// Allow a state directory on a network file system.
    pub allow_network_state: bool,
    /// Theme name.
    pub theme: Option<String>,
    /// Folders or files with the team's plans.
    pub plans: Vec<PathBuf>,
    /// Drill settings: size, objectives in seconds.
    pub drill: DrillConfig,
    /// Secrets and how often they are changed, beside those of the plans' tables.
    pub rotations: Vec<SecretConfig>,
    /// File with the credentials of the bucket that the repository is in.
    pub storage_credentials: Option<PathBuf>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

/// Settings of drills.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrillConfig {
    /// Scale of the sandbox's data.
    pub size: Option<u32>,
    /// Objective of the sandbox in seconds.
    pub rto_s: Option<u64>,
    /// Objective of the sandbox in seconds.
    pub rpo_s: Option<u64>,
    /// What of the scenario is given and not drawn.
    pub variant: Option<String>,
}

/// A secret whose changes are watched; never its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretConfig {
    /// Its name.
    pub name: String,
    /// Seconds from one change to the next.
    pub every_s: Option<u64>,
    /// When it was changed last.
    pub rotated: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    state_dir: Option<PathBuf>,
    allow_network_state: bool,
    theme: Option<String>,
    plans: Vec<PathBuf>,
    target: FileTarget,
    repository: FileRepository,
    recovery: FileRecovery,
    pgbackrest: PgBackRestSettings,
    supabase: FileSupabase,
    postgres: FilePostgres,
    service: ServiceSettings,
    failover: FileFailover,
    breach: BreachSettings,
    policy: FilePolicy,
    drill: FileDrill,
    notify: FileNotify,
    secrets: Vec<FileSecret>,
    health: FileHealth,
    backup: FileBackup,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileBackup {
    tiers: FileTiers,
    recipients: Vec<Spanned<String>>,
}

/// The table `backup.tiers`, as [`Tiers`].
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileTiers {
    critical: Vec<Spanned<String>>,
    important: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileTarget {
    name: Option<String>,
    url: Option<Spanned<String>>,
    expect: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileRepository {
    url: Option<String>,
    credentials: Option<Spanned<PathBuf>>,
    copies: Vec<String>,
    retention_days: Option<Spanned<u32>>,
    generations: Option<Spanned<FileGenerations>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileRecovery {
    backend: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileSupabase {
    project_ref: Option<String>,
    api_url: Option<String>,
    allow_loopback_http: bool,
    newest: Option<String>,
    poll: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    settle: Option<Spanned<String>>,
    deadline: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileGenerations {
    daily: u32,
    weekly: u32,
    monthly: u32,
    yearly: u32,
}

impl Default for FileGenerations {
    fn default() -> Self {
        Self { daily: 30, weekly: 12, monthly: 12, yearly: 7 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FilePostgres {
    bin_dir: Option<PathBuf>,
    run_as: Option<String>,
    instances_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileFailover {
    standby: Option<Spanned<String>>,
    primary: Option<Spanned<String>>,
    fence: Vec<String>,
    monitor: Vec<String>,
    outside: Vec<Vec<String>>,
    old_data: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FilePolicy {
    backup_max_age: Option<Spanned<String>>,
    preview_max_age: Option<Spanned<String>>,
    second_person: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileDrill {
    size: Option<u32>,
    rto: Option<Spanned<String>>,
    rpo: Option<Spanned<String>>,
    project_size: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileNotify {
    command: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSecret {
    name: String,
    every: Option<Spanned<String>>,
    rotated: Option<Spanned<String>>,
}

impl Config {
    /// Reads `explicit`, else `./breakglass.toml`, else the user's file, then the environment on top.
    pub fn load(env: &Environment, explicit: Option<&Path>) -> Result<Self> {
        let mut candidates = Vec::new();
        match explicit {
            Some(path) => candidates.push(env.cwd.join(path)),
            None => {
                candidates.push(env.cwd.join("breakglass.toml"));
                if let Some(dirs) = directories::ProjectDirs::from("", "", "breakglass") {
                    candidates.push(dirs.config_dir().join("breakglass.toml"));
                }
            }
        }
        let mut config = Self::default();
        for path in candidates {
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    config.read_file(&text, &path)?;
                    config.file = Some(path);
                    break;
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => {}
                // Without permission the default file simply is not ours; an explicit one must be readable.
                Err(e) if explicit.is_none() && e.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(e) => {
                    return Err(Error::config(format!("The configuration file {path:?} cannot be read"))
                        .why(e)
                        .hint("give another one with --config, or put its permissions right"));
                }
            }
        }
        config.read_environment(env)?;
        Ok(config)
    }

    fn read_file(&mut self, text: &str, path: &Path) -> Result<()> {
        // `file:line: what`, as compilers say it. The line itself is not quoted: it may hold a password.
        let bad = |at: usize, what: String| Error::config(format!("{}:{}: {what}", path.display(), line_at(text, at)));
        let file: File = toml::from_str(text).map_err(|e| {
            bad(e.span().map_or(0, |s| s.start), without_password(&e.message().trim().replace('\n', ", ")))
                .hint("docs/formats.md lists every key")
        })?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let duration = |key: &str, value: &Option<Spanned<String>>| -> Result<Option<u64>> {
            match value {
                None => Ok(None),
                Some(v) => parse_duration(v.as_ref())
                    .map(|d| Some(d.as_secs()))
                    .map_err(|e| bad(v.span().start, format!("{key}: {e}"))),
            }
        };
        self.state_dir = file.state_dir.map(|p| dir.join(p));
        self.allow_network_state = file.allow_network_state;
        self.theme = file.theme;
        self.plans = file.plans.into_iter().map(|p| dir.join(p)).collect();
        let s = &mut self.settings;
        s.target = file.target.name;
        s.expect = file.target.expect;
        let address = |key: &str, url: &Option<Spanned<String>>| -> Result<Option<Connection>> {
            let Some(url) = url else { return Ok(None) };
            let at = url.span().start;
            let (connection, password) =
                parse_database_url(url.as_ref()).map_err(|e| bad(at, format!("{key}: {e}")))?;
            if password.is_some() {
                return Err(bad(at, format!("{key} holds a password"))
                    .hint("leave it out and set PGPASSWORD, or put the whole URL into DATABASE_URL"));
            }
            Ok(Some(connection))
        };
        s.database = address("target.url", &file.target.url)?;
        s.breach = file.breach;
        s.breach.logs = s.breach.logs.iter().map(|p| dir.join(p)).collect();
        s.failover = FailoverSettings {
            standby: address("failover.standby", &file.failover.standby)?,
            primary: address("failover.primary", &file.failover.primary)?,
            fence: file.failover.fence,
            monitor: file.failover.monitor,
            outside: file.failover.outside,
            old_data: file.failover.old_data.map(|p| dir.join(p)),
        };
        s.retention = match (&file.repository.retention_days, &file.repository.generations) {
            (Some(_), Some(g)) => {
                let why =
                    "repository.retention_days and repository.generations are two ways of saying the same; keep one";
                return Err(bad(g.span().start, why.into()));
            }
            (Some(days), None) => retention_days(*days.as_ref()).map_err(|e| {
                bad(days.span().start, format!("repository.retention_days: {}", e.what)).hint(KEEP_HINT)
            })?,
            (None, Some(g)) => {
                let FileGenerations { daily, weekly, monthly, yearly } = *g.as_ref();
                if daily.max(weekly).max(monthly).max(yearly) == 0 {
                    return Err(bad(g.span().start, "repository.generations keeps nothing at all".into()));
                }
                Retention::Generations { daily, weekly, monthly, yearly }
            }
            (None, None) => Retention::default(),
        };
        let place = |u: String| if u.contains("://") { u } else { dir.join(u).display().to_string() };
        s.repository_copies = file.repository.copies.into_iter().map(place).collect();
        s.repository =
            file.repository.url.map(|u| if u.contains("://") { u } else { dir.join(u).display().to_string() });
        if let Some(credentials) = file.repository.credentials {
            if s.repository.as_deref().is_some_and(|r| !in_bucket(r)) {
                let why = "repository.credentials is for a bucket, and repository.url is a folder".into();
                return Err(bad(credentials.span().start, why).hint("leave it out, or name the bucket"));
            }
            self.storage_credentials = Some(dir.join(credentials.into_inner()));
        }
        s.health = file.health.read(dir, &bad)?;
        let FileTiers { critical, important } = file.backup.tiers;
        for name in &important {
            let meant = Tiers::meant(name.as_ref());
            if let Some(first) = critical.iter().find(|c| Tiers::meant(c.as_ref()) == meant) {
                let both = match first.as_ref() == name.as_ref() {
                    true => format!("{:?} is", name.as_ref()),
                    false => format!("{:?}, the same as {:?}, is", name.as_ref(), first.as_ref()),
                };
                return Err(bad(
                    name.span().start,
                    format!("backup.tiers: {both} both critical and important; keep one"),
                ));
            }
        }
        for r in &file.backup.recipients {
            let text: &String = r.as_ref();
            if ![32, 64].contains(&text.len()) || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                let what = format!(
                    "backup.recipients: {text:?} is neither a key id (32 hexadecimal digits) nor a public key (64)"
                );
                return Err(bad(r.span().start, what).hint("`breakglass doctor` prints the line"));
            }
        }
        s.recipients = file.backup.recipients.into_iter().map(Spanned::into_inner).collect();
        let names = |all: Vec<Spanned<String>>| all.into_iter().map(Spanned::into_inner).collect();
        s.tiers = Tiers { critical: names(critical), important: names(important) };
        if let Some(word) = &file.recovery.backend {
            s.backend =
                Backend::parse(word.as_ref()).map_err(|e| bad(word.span().start, format!("recovery.backend: {e}")))?;
        }
        s.pgbackrest = file.pgbackrest;
        s.pgbackrest.config = s.pgbackrest.config.take().map(|p| dir.join(p));
        s.pgbackrest.program = s.pgbackrest.program.take().map(|p| dir.join(p));
        let millis = |key: &str, value: &Option<Spanned<String>>, default: u64| -> Result<u64> {
            let Some(v) = value else { return Ok(default) };
            let read = parse_duration(v.as_ref()).map_err(|e| bad(v.span().start, format!("supabase.{key}: {e}")))?;
            Ok(u64::try_from(read.as_millis()).unwrap_or(u64::MAX))
        };
        let (f, d) = (file.supabase, SupabaseSettings::default());
        s.supabase = SupabaseSettings {
            poll_ms: millis("poll", &f.poll, d.poll_ms)?.max(10),
            timeout_ms: millis("timeout", &f.timeout, d.timeout_ms)?.max(10),
            settle_ms: millis("settle", &f.settle, d.settle_ms)?,
            deadline_ms: millis("deadline", &f.deadline, d.deadline_ms)?,
            project_ref: f.project_ref,
            api_url: f.api_url.unwrap_or(d.api_url),
            allow_loopback_http: f.allow_loopback_http,
            newest: f.newest,
        };
        s.bin_dir = file.postgres.bin_dir.map(|p| dir.join(p));
        s.run_as = file.postgres.run_as;
        s.instances_dir = file.postgres.instances_dir.map(|p| dir.join(p));
        s.service = file.service;
        s.notify = file.notify.command;
        for secret in file.secrets {
            let rotated = secret
                .rotated
                .map(|d| date(d.as_ref()).map_err(|e| bad(d.span().start, format!("secrets.rotated: {e}"))));
            let every_s = duration("secrets.every", &secret.every)?;
            self.rotations.push(SecretConfig { name: secret.name, every_s, rotated: rotated.transpose()? });
        }
        let defaults = Policies::default();
        s.policy = Policies {
            backup_max_age_s: duration("policy.backup_max_age", &file.policy.backup_max_age)?
                .unwrap_or(defaults.backup_max_age_s),
            preview_max_age_s: duration("policy.preview_max_age", &file.policy.preview_max_age)?
                .unwrap_or(defaults.preview_max_age_s),
            second_person: file.policy.second_person,
        };
        s.project_size_bytes = match &file.drill.project_size {
            None => None,
            Some(v) => {
                Some(parse_size(v.as_ref()).map_err(|e| bad(v.span().start, format!("drill.project_size: {e}")))?)
            }
        };
        self.drill = DrillConfig {
            size: file.drill.size,
            rto_s: duration("drill.rto", &file.drill.rto)?,
            rpo_s: duration("drill.rpo", &file.drill.rpo)?,
            variant: None,
        };
        Ok(())
    }

    fn read_environment(&mut self, env: &Environment) -> Result<()> {
        if let Some(url) = env.get("DATABASE_URL") {
            let (connection, password) =
                parse_database_url(url).map_err(|e| Error::config(format!("DATABASE_URL: {e}")))?;
            self.settings.database = Some(connection);
            if let Some(password) = password {
                self.secrets.set(DATABASE_PASSWORD, password);
            }
        }
        if let Some(password) = env.get("PGPASSWORD")
            && self.secrets.get(DATABASE_PASSWORD).is_none()
        {
            self.secrets.set(DATABASE_PASSWORD, Secret::new(password));
        }
        if let Some(key) = env.get("BACKUP_ENCRYPTION_KEY") {
            // Its length matters to whoever opens a repository with it, not to a check of the service's health.
            self.secrets.set(REPOSITORY_KEY, Secret::new(key));
        }
        if let Some(token) = env.get("SUPABASE_ACCESS_TOKEN") {
            self.secrets.set(SUPABASE_TOKEN, Secret::new(token));
        }
        if let Some(path) = env.get("BACKUP_IDENTITY_FILE") {
            let text = std::fs::read_to_string(env.cwd.join(path)).map_err(|e| {
                Error::config(format!("BACKUP_IDENTITY_FILE names {path:?}, which cannot be read")).why(e)
            })?;
            self.secrets.set(REPOSITORY_IDENTITY, Secret::new(text));
        }
        if let Some(days) = env.get("BACKUP_RETENTION_DAYS") {
            let count = days.parse().map_err(|_| {
                Error::config(format!("BACKUP_RETENTION_DAYS is {days:?}, which is not a number of days"))
                    .hint(KEEP_HINT)
            })?;
            self.settings.retention = retention_days(count)
                .map_err(|e| Error::config(format!("BACKUP_RETENTION_DAYS: {}", e.what)).hint(KEEP_HINT))?;
        }
        if let Some(dir) = env.get("BACKUP_DIR") {
            let url = if dir.contains("://") { dir.to_string() } else { env.cwd.join(dir).display().to_string() };
            self.settings.repository = Some(url);
        }
        // Environment alone is enough: with a key and nothing else said, there is a place.
        if self.settings.repository.is_none() && self.secrets.get(REPOSITORY_KEY).is_some() {
            self.settings.repository = Some(env.cwd.join("backups").display().to_string());
        }
        // A server's archive_command has no environment of ours: what the URL names, it can read.
        if let (Some(file), Some(url)) = (&self.storage_credentials, &mut self.settings.repository)
            && in_bucket(url)
            && !url.contains("credentials=")
        {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("credentials={}", percent_encoded(&file.display().to_string())));
        }
        for name in STORAGE_SECRETS {
            if let Some(value) = env.get(name) {
                self.secrets.set(name, Secret::new(value));
            }
        }
        if let Some(home) = env.get("BREAKGLASS_HOME") {
            self.state_dir = Some(env.cwd.join(home));
        }
        Ok(())
    }
}

/// Variables of storage services that must never be shown. The service's client reads them itself.
const STORAGE_SECRETS: [&str; 8] = [
    "GOOGLE_BEARER_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
];

const KEEP_HINT: &str = "give the days to keep backups, from 1 on; 30 when not given";

fn retention_days(days: u32) -> Result<Retention> {
    match days {
        0 => Err(Error::config("a retention of 0 days would remove every backup")),
        n => Ok(Retention::Days(n)),
    }
}

/// A time with a zone, or a day (its beginning in UTC).
fn date(text: &str) -> std::result::Result<Time, String> {
    Time::parse(text).or_else(|e| Time::parse(&format!("{}T00:00:00Z", text.trim())).map_err(|_| e))
}

/// Number of the line, from 1, that a byte of the text is on.
fn line_at(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

/// `500 GB`, `1.2TB`, `300MiB` to bytes.
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let bad = || format!("{text:?} is not a size; write a number and a unit, such as 500 GB or 1.2 TB");
    let t = text.trim();
    let split = t.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
    let number: f64 = t[..split].parse().map_err(|_| bad())?;
    let factor = match t[split..].trim().to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return Err(bad()),
    };
    Ok((number * factor) as u64)
}
