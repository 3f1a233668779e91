//! Putting the shadow into service: the old primary fenced and proved to be, the shadow promoted, archiving on again.
//!
//! At no instant are there two primaries that take writes: the fence stands before the promotion begins.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::origin::Origin;
use super::sequences::{Advanced, Marks, advance};
use super::shadow::{Shadow, isolation};
use super::takeover::{Front, take};
use crate::error::{Context, Error, Result};
use crate::model::target::Identity;
use crate::postgres::connect::{query_error, quote_ident, run};
use crate::postgres::instance::State;
use crate::postgres::programs::data_version;
use crate::postgres::{Control, Database, Instance, Layout, Programs, Stop, identity, user};
use crate::process::UnixUser;

/// Longest time for a server to stop, start or promote.
const LIMIT: Duration = Duration::from_secs(300);

/// Settings of the source that must not come along: places, archiving, recovery, replication; and those that
/// [`super::takeover`] decides on.
const NOT_TAKEN: [&str; 36] = [
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "log_directory",
    "log_filename",
    "logging_collector",
    "log_destination",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_init_sync_method",
    "restore_command",
    "synchronous_standby_names",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "ssl",
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_ca_file",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "krb_server_keyfile",
    "default_transaction_read_only",
    "stats_temp_directory",
];

/// Settings somebody gave the source, to be given to its successor. Needs a role that may read all settings.
///
/// # Errors
/// The query fails.
pub async fn source_settings(c: &mut PgConnection) -> Result<Vec<(String, String)>> {
    let sql = "SELECT name::text, pg_catalog.current_setting(name) AS value FROM pg_catalog.pg_settings \
               WHERE source IN ('configuration file', 'command line') AND name NOT LIKE 'recovery\\_target%' ORDER BY 1";
    let rows = sqlx::query(sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let what = || "cannot read the settings of the source".to_string();
    let mut out = Vec::new();
    for row in rows {
        let name: String = row.try_get("name").target(what)?;
        if !NOT_TAKEN.contains(&name.as_str()) {
            out.push((name, row.try_get("value").target(what)?));
        }
    }
    Ok(out)
}

/// Collations whose version differs from the one their indexes were built with: text order may have changed.
///
/// # Errors
/// The query fails.
pub async fn collation_mismatches(c: &mut PgConnection) -> Result<Vec<String>> {
    let version: i32 = sqlx::query_scalar("SELECT pg_catalog.current_setting('server_version_num')::int4")
        .fetch_one(&mut *c)
        .await
        .map_err(|e| query_error("server_version_num", &e))?;
    let databases = if version >= 150_000 {
        "SELECT 'database ' || datname AS what, datcollversion AS had, pg_catalog.pg_database_collation_actual_version(oid) AS has \
         FROM pg_catalog.pg_database WHERE datcollversion IS NOT NULL UNION ALL "
    } else {
        ""
    };
    let sql = format!(
        "SELECT what || ': ' || had || ' when built, ' || coalesce(has, 'none') || ' here' FROM ({databases}\
         SELECT 'collation ' || collname, collversion, pg_catalog.pg_collation_actual_version(oid) \
         FROM pg_catalog.pg_collation WHERE collversion IS NOT NULL) v(what, had, has) WHERE had IS DISTINCT FROM has"
    );
    sqlx::query_scalar(&sql).fetch_all(&mut *c).await.map_err(|e| query_error(&sql, &e))
}

/// How the source was fenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fenced {
    /// For people: what was done and what proves it.
    pub how: String,
    /// Where the damaged cluster is kept.
    pub kept: String,
}

/// The source as an instance of this machine, when its data directory is here and we may act as its owner.
pub fn local_instance(source: &Identity) -> Option<Instance> {
    use std::os::unix::fs::MetadataExt;
    let data = PathBuf::from(source.data_directory.as_ref()?);
    let owner = std::fs::metadata(data.join("PG_VERSION")).ok()?.uid();
    let ours = crate::process::user::current_uid();
    let user = match ours {
        0 => Some(owner_of(owner)?),
        _ if ours == owner => None,
        _ => return None,
    };
    let programs = Programs::find(None, data_version(&data).ok()).ok()?;
    // Only stop and state are asked of it: they need the data directory alone.
    let layout = Layout { data, ..Layout::under(Path::new("/nonexistent"), source.port) };
    let i = Instance { programs, layout, port: source.port, user, superuser: "postgres".into(), overrides: Vec::new() };
    let control = Control::read(&i.programs, &i.layout.data, i.user.as_ref()).ok()?;
    (control.system_identifier == source.system_identifier).then_some(i)
}

pub(super) fn owner_of(uid: u32) -> Option<UnixUser> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let name = passwd.lines().find_map(|l| {
        let f: Vec<&str> = l.split(':').collect();
        (f.get(2)?.parse::<u32>().ok()? == uid).then(|| f.first().map(|n| (*n).to_string()))?
    })?;
    crate::process::user::lookup(&name).ok()
}

/// Fences the source so that it takes no more writes, and proves it.
///
/// A source on this machine is stopped; its data directory is kept as it is. A source elsewhere is made read-only, closed
/// for connections and emptied of sessions.
///
/// # Errors
/// It could not be proved: then nothing may be promoted.
pub async fn fence(source: &Database, seen: &Identity) -> Result<Fenced> {
    if let Some(i) = local_instance(seen) {
        i.stop(Stop::Fast, LIMIT)?;
        prove_refused(source).await?;
        if i.is_running() {
            return Err(Error::target("the source was stopped and runs again")
                .why("something restarts it")
                .hint("stop what supervises it (systemctl stop postgresql), then promote again"));
        }
        let kept = i.layout.data.display().to_string();
        return Ok(Fenced { how: format!("server on {kept} stopped, its socket refuses connections"), kept });
    }
    fence_remote(source).await.map_err(|e| {
        e.hint("nothing was promoted")
            .hint(
                "fence it where it runs: stop the server there (systemctl stop postgresql), keep its files, see that \
                 nothing starts it again",
            )
            .hint("then promote with --source-is-fenced REASON")
    })
}

/// A source that was fenced before, by us or by a person: on this machine, not running, its address refused. None when that
/// cannot be proved.
pub async fn already_fenced(source: &Database, seen: &Identity) -> Option<Fenced> {
    let i = local_instance(seen)?;
    if i.is_running() || prove_refused(source).await.is_err() {
        return None;
    }
    let kept = i.layout.data.display().to_string();
    Some(Fenced { how: format!("server on {kept} is down already, its socket refuses connections"), kept })
}

/// Prepared transactions that the recovered instance still holds, with their locks: a person must decide on each.
///
/// # Errors
/// The query fails.
pub async fn prepared(c: &mut PgConnection) -> Result<Vec<String>> {
    let sql = "SELECT pg_catalog.format('%L in %I, prepared %s', gid, database, prepared) FROM pg_catalog.pg_prepared_xacts ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&mut *c).await.map_err(|e| query_error(sql, &e))
}

/// A connection must be refused by the system, not by the server: a server that says no still runs.
pub(super) async fn prove_refused(source: &Database) -> Result<()> {
    let options = source.options()?;
    match tokio::time::timeout(Duration::from_secs(10), <PgConnection as sqlx::Connection>::connect_with(&options))
        .await
    {
        Ok(Err(sqlx::Error::Io(_))) => Ok(()),
        Ok(Ok(_)) => Err(Error::target(format!("{source} still answers")).why("it is not fenced")),
        Ok(Err(e)) => Err(Error::target(format!("{source} still answers")).why(crate::postgres::connect::describe(&e))),
        Err(_) => {
            Err(Error::target(format!("{source} neither answers nor refuses")).why("it is not proved to be fenced"))
        }
    }
}

async fn fence_remote(source: &Database) -> Result<Fenced> {
    let name = quote_ident(source.name());
    // Through another database, because the fenced one takes no connections afterwards.
    let mut c = source.with_name("postgres").connect().await?;
    // The fence must not shut out the one who builds it.
    run(&mut c, "SET default_transaction_read_only = off").await?;
    run(&mut c, "ALTER SYSTEM SET default_transaction_read_only = on").await?;
    run(&mut c, "SELECT pg_catalog.pg_reload_conf()").await?;
    run(&mut c, &format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")).await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let sql = "SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity \
               WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()";
    loop {
        let left: i64 = sqlx::query_scalar(sql).fetch_one(&mut c).await.map_err(|e| query_error(sql, &e))?;
        if left == 0 {
            break;
        }
        if Instant::now() > deadline {
            return Err(Error::target(format!("{left} sessions of the source do not end")).why("it is not fenced"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if source.connect().await.is_ok() {
        return Err(Error::target(format!("{source} still takes connections")).why("it is not fenced"));
    }
    let mut fresh = source.with_name("postgres").connect().await?;
    let ro = "SELECT pg_catalog.current_setting('default_transaction_read_only') = 'on'";
    let read_only: bool = sqlx::query_scalar(ro).fetch_one(&mut fresh).await.map_err(|e| query_error(ro, &e))?;
    if !read_only {
        return Err(Error::target("the source is not read-only").why("a setting of the role overrides the fence"));
    }
    Ok(Fenced {
        how: format!("{:?} takes no connections, the server is read-only, all other sessions are gone", source.name()),
        kept: format!("{}:{}", source.host(), source.port()),
    })
}

/// What the new primary takes over.
#[derive(Debug, Clone, Default)]
pub struct Inheritance {
    /// Settings of the source.
    pub settings: Vec<(String, String)>,
    /// Where its sequences stood, when known.
    pub marks: Option<Marks>,
    /// Its place in the network, and how its database is reached there; none to stay on its own socket.
    pub place: Option<(Front, Database)>,
}

/// The promoted shadow.
#[derive(Debug, Clone)]
pub struct NewPrimary {
    /// How its database is reached.
    pub database: Database,
    /// Who it is now.
    pub identity: Identity,
    /// What was done about sequences; none when nobody knew where they stood.
    pub sequences: Option<Advanced>,
    /// What a person should know about what was taken over.
    pub notes: Vec<String>,
}

/// Ends the shadow's recovery, on a new timeline, sets its sequences past the source's, and restarts it as a primary that
/// archives into the repository, in the source's place if that is wanted.
///
/// Only after [`fence`]. Whoever is refused here finds the shadow either still in recovery or promoted but isolated: both
/// can be tried again.
///
/// # Errors
/// The shadow is another cluster than expected, does not promote, or does not come up.
pub async fn promote(
    shadow: &Shadow,
    name: &str,
    expected_system: &str,
    origin: &dyn Origin,
    inheritance: &Inheritance,
) -> Result<NewPrimary> {
    let mut instance = shadow.instance()?;
    let at = instance.database(name);
    // The server asks for the histories of later timelines, so as to choose a new one.
    let service = origin.serve(&instance, &shadow.helper)?;
    let mut c = at.connect().await?;
    let seen = identity(&mut c, &at).await?;
    if seen.system_identifier != expected_system {
        return Err(Error::refused(format!("the shadow is cluster {}", seen.system_identifier))
            .why(format!("{expected_system} is expected"))
            .hint("nothing was promoted"));
    }
    if seen.in_recovery {
        end_recovery(&mut c, &instance).await?;
    }
    let seen = identity(&mut c, &at).await?;
    if seen.in_recovery {
        return Err(Error::target("the shadow is still in recovery").why(instance.log_tail(4)));
    }
    let _ = <PgConnection as sqlx::Connection>::close(c).await;
    // Now, because nobody but us can reach it.
    let sequences = match &inheritance.marks {
        Some(marks) => Some(advance(&at, marks).await?),
        None => None,
    };
    instance.stop(Stop::Fast, LIMIT)?;
    drop(service);
    super::shadow::tablespaces(&instance, true)?;
    mark_for_archive(&instance, seen.timeline)?;
    let own = primary_settings(&instance, shadow, origin, &inheritance.settings)?;
    let Some((front, through)) = &inheritance.place else {
        instance.configure(&own, None)?;
        instance.start(LIMIT)?;
        let identity = in_production(&instance, &at, None).await?;
        return Ok(NewPrimary { database: at, identity, sequences, notes: Vec::new() });
    };
    let mut record = shadow.clone();
    let moved = async {
        let taken = take(front, &instance)?;
        let mut all = own.clone();
        all.retain(|(n, _)| !taken.settings.iter().any(|(t, _)| t == n));
        all.extend(taken.settings);
        let ours = instance.port;
        instance.port = front.port;
        // First the record: whoever comes after a crash must look for the server where it is.
        record.port = Some(front.port);
        record.save()?;
        instance.configure(&all, None)?;
        let up = match instance.start(LIMIT) {
            Ok(()) => in_production(&instance, through, Some(&instance.layout.data)).await,
            Err(e) => Err(e),
        };
        up.map(|identity| (identity, taken.notes)).inspect_err(|_| instance.port = ours)
    }
    .await;
    match moved {
        Ok((identity, notes)) => Ok(NewPrimary { database: through.clone(), identity, sequences, notes }),
        Err(e) => {
            // It must be reachable for whoever tries again.
            let _ = instance.stop(Stop::Fast, LIMIT);
            record.port = None;
            record.save()?;
            instance.configure(&own, None)?;
            instance.start(LIMIT)?;
            Err(e
                .hint(format!("the recovered instance is promoted and stands on its own socket: {}", at.url()))
                .hint("put right what is said here and promote again, or leave it there with --own-address"))
        }
    }
}

/// Ends the recovery of a server that stands paused, and waits until it takes writes.
///
/// # Errors
/// It does not, within [`LIMIT`].
pub async fn end_recovery(c: &mut PgConnection, instance: &Instance) -> Result<()> {
    run(c, "SELECT pg_catalog.pg_promote(false)").await?;
    // One that stands paused looks up only once a second, unless it is woken. That it did so by itself meanwhile is no error.
    let _ = run(c, "SELECT pg_catalog.pg_wal_replay_resume()").await;
    let deadline = Instant::now() + LIMIT;
    let sql = "SELECT pg_catalog.pg_is_in_recovery()";
    while sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))? {
        if Instant::now() > deadline {
            return Err(Error::target("the shadow does not end its recovery").why(instance.log_tail(4)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Who answers at `at`: must be the new primary, and on `data` if that is named.
async fn in_production(instance: &Instance, at: &Database, data: Option<&Path>) -> Result<Identity> {
    let mut c = at.connect().await.map_err(|e| e.why(format!("the server says: {}", instance.log_tail(3))))?;
    let seen = identity(&mut c, at).await?;
    if seen.in_recovery || instance.state() != State::Ready {
        return Err(Error::target("the new primary did not come up").why(instance.log_tail(4)));
    }
    match (data, &seen.data_directory) {
        (Some(data), Some(there)) if Path::new(there) != data => {
            Err(Error::target(format!("another server answers at {at}")).why(format!("it runs on {there:?}")))
        }
        _ => Ok(seen),
    }
}

fn primary_settings(
    instance: &Instance,
    shadow: &Shadow,
    origin: &dyn Origin,
    source: &[(String, String)],
) -> Result<Vec<(String, String)>> {
    let control = Control::read(&instance.programs, &instance.layout.data, instance.user.as_ref())?;
    // The limits that recovery had to keep are a floor here, too; the source's own settings come on top.
    let keep = ["wal_level", "track_commit_timestamp", "max_connections", "max_worker_processes", "max_wal_senders"];
    let mut all: Vec<(String, String)> = isolation(&control)
        .into_iter()
        .filter(|(n, _)| keep.contains(&n.as_str()) || n.starts_with("max_pre") || n.starts_with("max_locks"))
        .collect();
    let set = |all: &mut Vec<(String, String)>, name: &str, value: String| {
        all.retain(|(n, _)| n != name);
        all.push((name.to_string(), value));
    };
    for (name, value) in source {
        let floor = all.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.parse::<u64>().ok());
        // Its settings are those of the backup's time: what it raised since stands in the control file.
        if floor.zip(value.parse::<u64>().ok()).is_none_or(|(floor, own)| own >= floor) {
            set(&mut all, name, value.clone());
        }
    }
    set(&mut all, "archive_mode", "on".into());
    set(&mut all, "archive_command", origin.archive_command(instance, &shadow.helper)?);
    set(&mut all, "restore_command", String::new());
    Ok(all)
}

/// While it was isolated the server archived nothing. Its new timeline's history and finished segments are marked for the
/// archiver here; without the history nobody could ever recover along the new timeline.
fn mark_for_archive(instance: &Instance, timeline: u32) -> Result<()> {
    let wal = instance.layout.data.join("pg_wal");
    let status = wal.join("archive_status");
    let what = || format!("cannot mark the log of timeline {timeline} for archiving");
    let prefix = format!("{timeline:08X}");
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&wal).target(what)? {
        if let Ok(name) = entry.target(what)?.file_name().into_string()
            && name.starts_with(&prefix)
        {
            names.push(name);
        }
    }
    names.sort();
    let control = Control::read(&instance.programs, &instance.layout.data, instance.user.as_ref())?;
    // The segment with the shutdown checkpoint is still being written; those after it are preallocated.
    let current = control.checkpoint.segment(timeline, control.segment_bytes);
    for name in names {
        let finished = name.len() == 24 && name < current;
        let history = name.ends_with(".history");
        let ready = status.join(format!("{name}.ready"));
        if (finished || history) && !status.join(format!("{name}.done")).exists() && !ready.exists() {
            user::own_file(&ready, "", instance.user.as_ref())?;
        }
    }
    Ok(())
}

/// Opens a kept, damaged cluster for reading: isolated, read-only by default, nothing archived, on a socket of its own below
/// `room`. The caller stops it again.
///
/// # Errors
/// The data directory is not here, or the server does not come up.
pub fn open_kept(data: &Path, room: &Path, owner: Option<UnixUser>) -> Result<Instance> {
    let programs = Programs::find(None, Some(data_version(data)?))?;
    user::own_dir(room, owner.as_ref())?;
    let mut i = Instance::new(programs, room, owner)?;
    i.layout.data = data.to_path_buf();
    if i.is_running() {
        return Err(Error::target(format!("a server runs on {:?} already", data.display())));
    }
    let control = Control::read(&i.programs, data, i.user.as_ref())?;
    let mut settings = isolation(&control);
    settings.push(("default_transaction_read_only".into(), "on".into()));
    // What ALTER SYSTEM wrote lies in the data directory, which is evidence: it is overruled, not changed.
    i.overrides = settings
        .iter()
        .filter(|(n, _)| !n.starts_with("max_") || n.ends_with("workers"))
        .cloned()
        .chain([("listen_addresses".to_string(), String::new())])
        .chain([("unix_socket_directories".to_string(), i.layout.sockets.display().to_string())])
        .chain([("port".to_string(), i.port.to_string())])
        .collect();
    i.configure(&settings, None)?;
    i.start_of_run(LIMIT)?;
    Ok(i)
}
