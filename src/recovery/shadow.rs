//! The shadow: an isolated instance beside the damaged one, recovered to just before a moment, paused there.
//!
//! Isolated means: its configuration is generated outside the data directory, it listens on a socket only, archives
//! nothing, connects to nobody, loads no library of the source's. It never promotes itself.

pub mod building;
mod place;
mod sizes;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use building::Building;
pub use place::{Delta, KEPT_LOG, NAMED, free_space, unfinished_in, ways_of};
use place::{check_space, prepare_root};

use super::origin::Origin;
use super::range::{Route, Stop as StopAt};
use super::replay::replay;
use super::takeover::Front;
use super::watch::Watch;
use crate::config::Backend;
use crate::error::{Context, Error, Result};
use crate::model::Time;
use crate::model::target::RecoveryTarget;
use crate::postgres::{Control, Database, Instance, Programs, user};
use crate::process::UnixUser;
use crate::process::user::current;

/// What to build.
#[derive(Debug, Clone)]
pub struct Request {
    /// Folder to build in; must not exist or be empty.
    pub root: PathBuf,
    /// The way to the target.
    pub route: Route,
    /// Folder of the server programs, when configured; else the right version is looked for.
    pub bin_dir: Option<PathBuf>,
    /// User the server runs as; none for the current one.
    pub user: Option<UnixUser>,
    /// Our own executable, as the server's user can run it.
    pub helper: PathBuf,
    /// Superuser role of the cluster.
    pub superuser: String,
    /// Transactions that must not be there afterwards.
    pub suspects: Vec<u32>,
    /// Build although the disk may be too small.
    pub ignore_space: bool,
    /// What lies in the folder already is rewritten where it differs.
    pub delta: Option<Delta>,
    /// Settings of the source, for the day it is gone when the shadow takes its place.
    pub source_settings: Vec<(String, String)>,
    /// How the source meets its clients, likewise.
    pub source_front: Option<Front>,
}

/// A shadow as it was built; kept as `shadow.json` in its folder, so that later steps find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// Folder it is in.
    pub root: PathBuf,
    /// Target as it was asked for.
    pub target: RecoveryTarget,
    /// It stands after its target, not before it.
    #[serde(default)]
    pub after: bool,
    /// Commit time of the first transaction that was not replayed, when known.
    #[serde(default)]
    pub moment: Option<Time>,
    /// Base backup it was built from.
    pub backup: String,
    /// Whose backup that is.
    #[serde(default)]
    pub backend: Backend,
    /// Timeline it follows.
    pub timeline: u32,
    /// Timeline on which it can be moved forward; none when that is the one it follows.
    #[serde(default)]
    pub along: Option<u32>,
    /// Transactions that must not be in it.
    #[serde(default)]
    pub suspects: Vec<u32>,
    /// Folder of its server programs.
    pub bin_dir: PathBuf,
    /// User its server runs as.
    #[serde(default)]
    pub run_as: Option<String>,
    /// Superuser role.
    pub superuser: String,
    /// Our executable in its commands.
    pub helper: PathBuf,
    /// Settings of the source as it was when this was built.
    #[serde(default)]
    pub source_settings: Vec<(String, String)>,
    /// How the source met its clients then, when it listened on the network of this machine.
    #[serde(default)]
    pub source_front: Option<Front>,
    /// Its port, once it took the source's.
    #[serde(default)]
    pub port: Option<u16>,
    /// Position reached.
    pub reached_lsn: String,
    /// Time of the last replayed commit.
    #[serde(default)]
    pub reached_time: Option<Time>,
    /// Bytes restored.
    pub bytes: u64,
    /// Bytes of them that lay there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused: Option<u64>,
    /// Time for the files, milliseconds.
    pub files_ms: u64,
    /// Time for the log, milliseconds.
    pub replay_ms: u64,
}

/// Name of the record in the shadow's folder.
pub const RECORD: &str = "shadow.json";

impl Shadow {
    /// Reads the record of a shadow built before.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn load(root: &Path) -> Result<Self> {
        let file = root.join(RECORD);
        let text = std::fs::read_to_string(&file).map_err(|e| {
            Error::target(format!("no shadow in {:?}", root.display()))
                .why(e)
                .hint("build one: breakglass pitr restore --to …")
        })?;
        serde_json::from_str(&text).state(|| format!("cannot read {:?}", file.display()))
    }

    /// Writes the record.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(self).state(|| "cannot write the record of the shadow".into())?;
        user::own_file(&self.root.join(RECORD), &text, self.user()?.as_ref())
    }

    /// The user its server runs as.
    ///
    /// # Errors
    /// The user no longer exists, or we may not act as it.
    pub fn user(&self) -> Result<Option<UnixUser>> {
        match &self.run_as {
            Some(name) => user::for_server(Some(name)),
            None => Ok(None),
        }
    }

    /// Its instance.
    ///
    /// # Errors
    /// The programs or the user are gone.
    pub fn instance(&self) -> Result<Instance> {
        let programs = Programs::find(Some(&self.bin_dir), None)?;
        let mut i = Instance::new(programs, &self.root, self.user()?)?;
        i.superuser.clone_from(&self.superuser);
        i.port = self.port.unwrap_or(i.port);
        Ok(i)
    }

    /// How a database of it is reached.
    ///
    /// # Errors
    /// As [`Shadow::instance`].
    pub fn database(&self, name: &str) -> Result<Database> {
        Ok(self.instance()?.database(name))
    }
}

/// Builds a shadow and waits until it stands before its target, paused.
///
/// # Errors
/// Not enough space, damage in the repository, the server does not come up, the target was not reached, or stopped on
/// request: then the half-built shadow is stopped and left in its folder for inspection, except when the files were not whole.
/// The error says what is left, and the ways on.
pub async fn build(
    request: &Request,
    origin: &dyn Origin,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Shadow> {
    let mut begun = false;
    build_in(request, origin, watch, cancel, &mut begun).await.map_err(|e| match begun {
        true => place::ways_on(request, e),
        false => e,
    })
}

async fn build_in(
    request: &Request,
    origin: &dyn Origin,
    watch: &dyn Watch,
    cancel: &CancellationToken,
    begun: &mut bool,
) -> Result<Shadow> {
    let manifest = &request.route.backup;
    let bytes = manifest.plain_bytes();
    let major = manifest.postgres_version.as_deref().and_then(|v| v.split('.').next()?.parse().ok());
    let programs = Programs::find(request.bin_dir.as_deref(), major)?;
    if programs.major < 12 {
        return Err(Error::target(format!("PostgreSQL {} is too old", programs.version()))
            .why("recovery by signal files needs 12 or later"));
    }
    if let Some(by) = building::at_work(&request.root) {
        return Err(building::busy(&request.root, &by).hint("or build in another folder: --dir DIR"));
    }
    prepare_root(request)?;
    // Held to the end: whoever would throw it away, or build there, too, is told.
    let _building = Building::take(&request.root, "builds")?;
    check_space(&request.root, bytes, request.ignore_space || request.delta.is_some())?;
    let mut instance = Instance::new(programs, &request.root, request.user.clone())?;
    instance.superuser.clone_from(&request.superuser);
    *begun = true;
    instance.make_dirs()?;
    if request.delta.is_some() {
        tablespaces(&instance, true)?;
        // The server was found gone above; its pid file keeps pgBackRest from going on.
        match std::fs::remove_file(instance.layout.data.join("postmaster.pid")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            done => done.target(|| format!("cannot remove the postmaster.pid left in {:?}", instance.layout.data))?,
        }
    }

    let began = Instant::now();
    watch.line(&format!("restoring base backup {} into {}", manifest.id, request.root.display()));
    let reused = origin.restore_files(&instance, request, watch, cancel).await?;
    let files_ms = millis(began);
    let kept = reused.map_or_else(String::new, |r| {
        format!(", {} of them were there already; {} other entries removed", r.bytes, r.removed)
    });
    watch.line(&format!("files restored: {} bytes in {}.{:03} s{kept}", bytes, files_ms / 1000, files_ms % 1000));

    let began = Instant::now();
    let helper = usable_helper(request)?;
    let log = origin.serve(&instance, &helper)?;
    configure(&instance, request, &log.restore_command)?;
    watch.line(&format!("replaying the log {}", request.route.target.until(request.route.after())));
    let reached = replay(&instance, request, &log, watch, cancel).await?;
    let shadow = Shadow {
        root: request.root.clone(),
        target: request.route.target.clone(),
        after: request.route.after(),
        moment: request.route.first_lost.as_ref().map(|c| c.at),
        backup: manifest.id.clone(),
        backend: origin.backend(),
        timeline: request.route.timeline,
        along: Some(request.route.along),
        suspects: request.suspects.clone(),
        bin_dir: instance.programs.bin_dir.clone(),
        // By name also when it is ourselves: whoever comes later may be root, as whom no server runs.
        run_as: request.user.clone().or_else(current).map(|u| u.name),
        superuser: request.superuser.clone(),
        helper,
        source_settings: request.source_settings.clone(),
        source_front: request.source_front.clone(),
        port: None,
        reached_lsn: reached.lsn.to_string(),
        reached_time: reached.time,
        bytes,
        reused: reused.map(|r| r.bytes),
        files_ms,
        replay_ms: millis(began),
    };
    shadow.save()?;
    Ok(shadow)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Our executable as the server's user can run it: itself, or a copy in the shadow's folder when it lies where that user
/// cannot go, or was replaced since we were started.
fn usable_helper(request: &Request) -> Result<PathBuf> {
    // The server's shell is another process: there, `/proc/self/exe` is the shell.
    let named = match std::fs::read_link(&request.helper) {
        Ok(file) if request.helper.starts_with("/proc") => file,
        _ => request.helper.clone(),
    };
    let user = request.user.as_ref();
    let mut c = std::process::Command::new(&named);
    c.arg("--version").env_clear().current_dir("/").stdin(std::process::Stdio::null());
    c.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    user::apply(&mut c, user);
    if c.status().is_ok_and(|s| s.success()) {
        return Ok(named);
    }
    use std::os::unix::fs::PermissionsExt;
    let copy = request.root.join("breakglass");
    let what = || format!("cannot copy {:?} for the server", request.helper.display());
    std::fs::copy(&request.helper, &copy).target(what)?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).target(what)?;
    if let Some(u) = user {
        std::os::unix::fs::chown(&copy, Some(u.uid), Some(u.gid)).target(what)?;
    }
    Ok(copy)
}

/// Writes the configuration that isolates the shadow and tells it where to stop, and takes away what the source's data
/// directory brought along.
pub(super) fn configure(instance: &Instance, request: &Request, restore_command: &str) -> Result<()> {
    let data = &instance.layout.data;
    let control = Control::read(&instance.programs, data, instance.user.as_ref())?;
    if let Some(expected) = &request.route.backup.system_identifier
        && *expected != control.system_identifier
    {
        return Err(Error::check(format!("the restored files are of cluster {}", control.system_identifier))
            .why(format!("the backup says {expected}")));
    }
    for stray in ["recovery.signal", "standby.signal", "postmaster.pid", "postmaster.opts"] {
        match std::fs::remove_file(data.join(stray)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::target(format!("cannot remove {stray}")).why(e));
            }
            _ => {}
        }
    }
    let auto = data.join("postgresql.auto.conf");
    let kept = instance.layout.config.join("source.auto.conf");
    if let Ok(text) = std::fs::read_to_string(&auto)
        && !kept.exists()
    {
        user::own_file(&kept, &text, instance.user.as_ref())?;
    }
    user::own_file(&auto, "# Emptied: the source's settings do not apply here.\n", instance.user.as_ref())?;

    let mut settings = isolation(&control);
    settings.extend(sizes::settings(request.route.backup.plain_bytes(), free_space(&request.root)?));
    settings.push(("restore_command".into(), restore_command.into()));
    settings.push(("recovery_target_timeline".into(), request.route.timeline.to_string()));
    let inclusive = matches!(request.route.stop, StopAt::After(_) | StopAt::Including(_));
    let signal = match &request.route.stop {
        StopAt::Lsn(lsn) | StopAt::After(lsn) => {
            settings.push(("recovery_target_lsn".into(), lsn.to_string()));
            "recovery.signal"
        }
        StopAt::Time(t) | StopAt::Including(t) => {
            // The server reads no `T` and no `Z` here.
            let text = t.to_string().replacen('T', " ", 1).replace('Z', "+00");
            settings.push(("recovery_target_time".into(), text));
            "recovery.signal"
        }
        // Without a target a recovery promotes at the end of the log; a standby waits there.
        StopAt::End => "standby.signal",
    };
    if signal == "recovery.signal" {
        settings.push(("recovery_target_inclusive".into(), if inclusive { "on" } else { "off" }.into()));
        settings.push(("recovery_target_action".into(), "pause".into()));
    }
    if instance.programs.major >= 15 {
        // Looking ahead asks for segments behind the target: one that is damaged there would end a recovery that does not need it.
        settings.push(("recovery_prefetch".into(), "off".into()));
    }
    if cfg!(target_os = "linux") && instance.programs.major >= 14 {
        // The restored files are durable already; opening each of them once more would cost seconds.
        settings.push(("recovery_init_sync_method".into(), "syncfs".into()));
    }
    instance.configure(&settings, None)?;
    tablespaces(instance, false)?;
    user::own_file(&data.join(signal), "", instance.user.as_ref())
}

/// Allows or forbids the instance to make tablespaces. Replay would make those of the log by links to where the source has
/// them, and write into the source's own files: without the right to make links it ends there instead. Without that right links
/// are not removed, either, except by root. Where the folder is not there, nothing needs to be allowed.
///
/// # Errors
/// The folder's mode cannot be set.
pub(super) fn tablespaces(instance: &Instance, allowed: bool) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = instance.layout.data.join("pg_tblspc");
    let mode = std::fs::Permissions::from_mode(if allowed { 0o700 } else { 0o500 });
    match std::fs::set_permissions(&dir, mode) {
        Err(e) if allowed && e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.target(|| format!("cannot set the mode of {:?}", dir.display())),
    }
}

/// Finished segments that a recovered instance keeps: more than it writes between its promotion and its restart.
const KEPT_SEGMENTS: u64 = 8;

/// What makes an instance keep to itself, with the limits that recovery must not go below.
pub fn isolation(control: &Control) -> Vec<(String, String)> {
    let on = |b: bool| if b { "on" } else { "off" }.to_string();
    [
        ("archive_mode", "off".to_string()),
        ("archive_command", String::new()),
        ("primary_conninfo", String::new()),
        ("primary_slot_name", String::new()),
        ("hot_standby", "on".into()),
        ("max_logical_replication_workers", "0".into()),
        ("max_sync_workers_per_subscription", "0".into()),
        ("shared_preload_libraries", String::new()),
        ("session_preload_libraries", String::new()),
        ("local_preload_libraries", String::new()),
        ("synchronous_standby_names", String::new()),
        ("ssl", "off".into()),
        ("wal_level", control.wal_level.clone()),
        ("track_commit_timestamp", on(control.track_commit_timestamp)),
        ("max_connections", control.max_connections.to_string()),
        ("max_worker_processes", control.max_worker_processes.to_string()),
        ("max_wal_senders", control.max_wal_senders.to_string()),
        ("max_prepared_transactions", control.max_prepared_transactions.to_string()),
        ("max_locks_per_transaction", control.max_locks_per_transaction.to_string()),
        ("autovacuum", "off".into()),
        ("max_standby_archive_delay", "-1".into()),
        // Promoted, it archives nothing until it is restarted as a primary: the segment in which its timeline begins must
        // still be there then. A checkpoint removes it otherwise, as soon as the next one is begun.
        ("wal_keep_size", format!("{}MB", KEPT_SEGMENTS * control.segment_bytes.div_ceil(1 << 20))),
    ]
    .map(|(k, v)| (k.to_string(), v))
    .to_vec()
}
