//! Failing over to a standby: how far it is, the old primary closed and proved to be, the standby promoted.
//!
//! Two primaries that both take writes are worse than the outage: nothing here promotes, and nothing here believes a fence
//! that it did not see hold.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::promote::{owner_of, prove_refused};
use super::watch::check_cancel;
use crate::error::{Error, Result};
use crate::model::Time;
use crate::model::target::Identity;
use crate::postgres::connect::query_error;
use crate::postgres::programs::data_version;
use crate::postgres::{Database, Instance, Layout, Lsn, Programs, Stop, identity, user};
use crate::process::user::current_uid;

/// Longest time for a server to stop or promote.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a closed door is tried.
const KNOCK: Duration = Duration::from_millis(250);

/// The last sample of a primary, as monitoring has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken.
    pub at: Time,
    /// Position of the primary's log.
    pub primary_lsn: String,
    /// Last commit of the primary, where commit times are recorded.
    #[serde(default)]
    pub last_commit: Option<Time>,
}

impl Sample {
    /// Reads what the command printed.
    ///
    /// # Errors
    /// Config when it is not the document that is asked for.
    pub fn read(text: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::config("the command failover.monitor did not print a sample of the primary")
                .why(why)
                .hint("it prints one JSON document; docs/formats.md says which")
        };
        let sample: Self = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
        sample.primary_lsn.parse::<Lsn>().map_err(bad)?;
        Ok(sample)
    }
}

/// A standby as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Who it is.
    pub identity: Identity,
    /// Received up to here.
    pub received: Lsn,
    /// Replayed up to here.
    pub replayed: Lsn,
    /// Last commit replayed.
    pub last_commit: Option<Time>,
    /// Whether it receives log now.
    pub receiving: bool,
}

/// What promoting a standby loses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Bytes of log that only the primary had.
    pub bytes: u64,
    /// Between the last commits of both; none when commit times are not known.
    pub time: Option<Duration>,
}

/// Looks at a standby on a connection to it.
///
/// # Errors
/// A query fails.
pub async fn standing(c: &mut PgConnection, at: &Database) -> Result<Standing> {
    let identity = identity(c, at).await?;
    // What is in its log but was not streamed (restored, or received before a restart) counts as received, too.
    let sql = "SELECT CASE WHEN r THEN pg_catalog.pg_last_wal_receive_lsn()::text END AS received, \
               CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn()::text ELSE pg_catalog.pg_current_wal_lsn()::text END AS replayed, \
               (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::int8 AS last_us, \
               EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming') AS receiving \
               FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) s";
    let row = sqlx::query(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let lsn = |name: &str| row.get::<Option<String>, _>(name).and_then(|t| t.parse::<Lsn>().ok()).unwrap_or_default();
    let replayed = lsn("replayed");
    Ok(Standing {
        identity,
        received: lsn("received").max(replayed),
        replayed,
        last_commit: row.get::<Option<i64>, _>("last_us").map(Time::from_micros),
        receiving: row.get("receiving"),
    })
}

/// How far a standby is behind the last sample of its primary.
pub fn lag(sample: &Sample, standing: &Standing) -> Lag {
    let there = sample.primary_lsn.parse::<Lsn>().unwrap_or_default();
    let bytes = there.0.saturating_sub(standing.received.0);
    let time = match (sample.last_commit, standing.last_commit) {
        _ if bytes == 0 => Some(Duration::ZERO),
        (Some(theirs), Some(ours)) => Some(theirs.since(ours)),
        _ => None,
    };
    Lag { bytes, time }
}

/// Knocks at a server's door for a while: at every try it must be refused by the system, or answer in recovery. Returns what
/// proves it.
///
/// # Errors
/// It takes writes, or whether it does cannot be told. Nothing may be promoted then.
pub async fn prove_closed(at: &Database, hold: Duration, cancel: &CancellationToken) -> Result<Vec<String>> {
    let begun = Instant::now();
    let (mut refused, mut read_only) = (0_u32, 0_u32);
    while refused + read_only == 0 || begun.elapsed() < hold {
        check_cancel(cancel, "the fence is not proved")?;
        match at.connect_within(Duration::from_secs(5)).await {
            Ok(mut c) => {
                let sql = "SELECT pg_catalog.pg_is_in_recovery()";
                let closed: bool = sqlx::query_scalar(sql).fetch_one(&mut c).await.map_err(|e| query_error(sql, &e))?;
                if !closed {
                    return Err(Error::target(format!("{at} takes writes")).why("it is not fenced"));
                }
                read_only += 1;
            }
            Err(_) => {
                prove_refused(at).await?;
                refused += 1;
            }
        }
        tokio::time::sleep(KNOCK).await;
    }
    let mut proof = Vec::new();
    if refused > 0 {
        let over = begun.elapsed().as_secs();
        proof.push(format!("{at} refused {refused} connections within {over} s: no session can be left"));
    }
    if read_only > 0 {
        proof.push(format!("{at} answers in recovery: it takes no writes"));
    }
    Ok(proof)
}

/// The instance on a data directory of this machine, whether it runs or not, with the configuration it was last started with.
///
/// # Errors
/// It is not there, or belongs to a user we may not act as.
pub fn instance_on(data: &Path) -> Result<Instance> {
    let what = || format!("cannot use the data directory {:?}", data.display());
    let owner = std::fs::metadata(data.join("PG_VERSION")).map_err(|e| Error::target(what()).why(e))?.uid();
    let user = match current_uid() {
        0 => Some(owner_of(owner).ok_or_else(|| Error::target(what()).why("its owner is unknown"))?),
        own if own == owner => None,
        _ => return Err(Error::target(what()).why("it belongs to another user").hint("run this as root or its owner")),
    };
    let programs = Programs::find(None, Some(data_version(data)?))?;
    let config = configured(data).unwrap_or_else(|| data.to_path_buf());
    let log = match config.parent().map(|p| p.join("log").join("server.log")) {
        Some(log) if log.is_file() => log,
        _ => data.join("server.log"),
    };
    let sockets = data.to_path_buf();
    let layout = Layout { data: data.to_path_buf(), config, sockets, log };
    Ok(Instance { programs, layout, port: 5432, user, superuser: "postgres".into(), overrides: Vec::new() })
}

/// Folder of the configuration file a server was last started with, from the command line it left in its data directory.
fn configured(data: &Path) -> Option<PathBuf> {
    let opts = std::fs::read_to_string(data.join("postmaster.opts")).ok()?;
    let (_, rest) = opts.split_once("config_file=")?;
    let path: String = rest.trim_start_matches(['"', '\'']).chars().take_while(|c| !"\"'\n".contains(*c)).collect();
    let path = PathBuf::from(path.trim());
    (path.file_name()? == "postgresql.conf" && path.is_file()).then(|| path.parent().map(Path::to_path_buf))?
}

/// Stops the server on a data directory of this machine and sees to it that whoever starts it again gets a standby that takes
/// no writes. Its files are kept.
///
/// # Errors
/// It does not stop, or cannot be marked.
pub fn close_local(instance: &Instance) -> Result<Vec<String>> {
    let data = &instance.layout.data;
    let mut done = Vec::new();
    // First the mark: from here on it cannot come back as a primary, whatever happens.
    user::own_file(&data.join("standby.signal"), "", instance.user.as_ref())?;
    done.push(format!("marked {} as a standby: started again it takes no writes", data.display()));
    if instance.is_running() {
        instance.stop(Stop::Fast, LIMIT).or_else(|_| instance.stop(Stop::Immediate, LIMIT))?;
        done.push(format!("stopped the server on {}", data.display()));
    }
    if instance.is_running() {
        return Err(Error::target("the old primary was stopped and runs again")
            .why("something restarts it")
            .hint("stop what supervises it (systemctl stop postgresql), then fence again"));
    }
    Ok(done)
}

/// Ends a standby's recovery; it takes writes from here on, on a new timeline. Done already: nothing happens.
///
/// # Errors
/// It does not end within two minutes.
pub async fn promote_standby(c: &mut PgConnection, at: &Database) -> Result<Identity> {
    if identity(c, at).await?.in_recovery {
        let sql = "SELECT pg_catalog.pg_promote(true, 120)";
        let done: bool = sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
        if !done {
            return Err(Error::target("the standby does not end its recovery").why("not within 120 s"));
        }
    }
    let seen = identity(c, at).await?;
    match seen.in_recovery {
        true => Err(Error::target("the standby is still in recovery")),
        false => Ok(seen),
    }
}

/// Proves that a server takes writes by a transaction of its own that changes no table. Returns its id.
///
/// # Errors
/// It does not.
pub async fn write_probe(c: &mut PgConnection) -> Result<String> {
    let sql = "SELECT pg_catalog.pg_current_xact_id()::text";
    sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))
}

/// Waits until so many standbys stream from a primary; returns how many do.
///
/// # Errors
/// The query fails, stopped on request.
pub async fn wait_streaming(c: &mut PgConnection, wanted: i64, cancel: &CancellationToken) -> Result<i64> {
    let begun = Instant::now();
    let sql = "SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE state = 'streaming'";
    loop {
        check_cancel(cancel, "the standby does not stream yet")?;
        let n: i64 = sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
        if n >= wanted || begun.elapsed() > LIMIT {
            return Ok(n);
        }
        tokio::time::sleep(KNOCK).await;
    }
}
