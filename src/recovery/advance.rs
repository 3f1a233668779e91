//! A shadow that stands paused is moved on to a later moment, or thrown away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::origin::Origin;
use super::range::{Route, Stop as StopAt};
use super::replay::replay;
use super::shadow::building::{Building, at_work, busy};
use super::shadow::{KEPT_LOG, RECORD, Request, Shadow, configure, tablespaces};
use super::watch::Watch;
use crate::error::{Context, Error, Result};
use crate::postgres::Lsn;
use crate::postgres::Programs;
use crate::postgres::connect::query_error;
use crate::postgres::instance::{Instance, Stop};
use crate::process::UnixUser;

const LIMIT: Duration = Duration::from_secs(120);

/// Whether the shadow is in recovery; none when its server does not run.
///
/// # Errors
/// It runs and cannot be asked.
pub async fn recovering(shadow: &Shadow) -> Result<Option<bool>> {
    let instance = shadow.instance()?;
    if !instance.is_running() {
        return Ok(None);
    }
    let mut c = instance.database("postgres").connect_within(Duration::from_secs(10)).await?;
    let sql = "SELECT pg_catalog.pg_is_in_recovery()";
    sqlx::query_scalar(sql).fetch_one(&mut c).await.map(Some).map_err(|e| query_error(sql, &e))
}

/// Replays on to a later moment, from the last restart point, and pauses there.
///
/// # Errors
/// Refused when the moment is not later, or the recovery was ended; the target was not reached (the shadow is stopped then).
pub async fn advance(
    shadow: &Shadow,
    route: Route,
    suspects: Vec<u32>,
    origin: &dyn Origin,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Shadow> {
    let _building = Building::take(&shadow.root, "moves")?;
    let no = |why: String| {
        Error::refused(format!("the shadow in {:?} cannot be moved to {}", shadow.root.display(), route.target))
            .why(why)
            .hint("build another one beside it: breakglass pitr restore --to …")
    };
    if recovering(shadow).await? == Some(false) {
        return Err(no("its recovery was ended: it was promoted or opened".into()));
    }
    let stands: Lsn = shadow.reached_lsn.parse().map_err(Error::state)?;
    let goal = match (&route.stop, &route.first_lost) {
        (StopAt::Lsn(l) | StopAt::After(l), _) => Some(*l),
        (StopAt::End, _) => None,
        (_, Some(c)) => Some(c.lsn),
        _ => None,
    };
    if goal.is_some_and(|g| g < stands) {
        return Err(no(format!("it stands at {stands}; recovery only moves forward")));
    }
    let instance = shadow.instance()?;
    instance.stop(Stop::Fast, LIMIT)?;
    let began = Instant::now();
    let log = origin.serve(&instance, &shadow.helper)?;
    let request = Request {
        root: shadow.root.clone(),
        route,
        bin_dir: Some(shadow.bin_dir.clone()),
        user: shadow.user()?,
        helper: shadow.helper.clone(),
        superuser: shadow.superuser.clone(),
        suspects,
        ignore_space: true,
        delta: None,
        source_settings: shadow.source_settings.clone(),
        source_front: shadow.source_front.clone(),
    };
    configure(&instance, &request, &log.restore_command)?;
    watch.line(&format!("replaying on from {stands} to {}", request.route.target));
    let reached = replay(&instance, &request, &log, watch, cancel).await?;
    // What was measured at the earlier moment is not true here.
    match std::fs::remove_file(shadow.root.join("later.json")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::target("cannot remove what was measured at the earlier moment").why(e));
        }
        _ => {}
    }
    let moved = Shadow {
        target: request.route.target.clone(),
        after: request.route.after(),
        moment: request.route.first_lost.as_ref().map(|c| c.at),
        timeline: request.route.timeline,
        along: Some(request.route.along),
        suspects: request.suspects.clone(),
        reached_lsn: reached.lsn.to_string(),
        reached_time: reached.time.or(shadow.reached_time),
        replay_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..shadow.clone()
    };
    moved.save()?;
    Ok(moved)
}

/// Stops a shadow and removes its folder, but for log that may be archived nowhere: what stays is returned.
///
/// # Errors
/// Refused when it was promoted, unless `promoted_too`; the server does not stop, or files cannot be removed.
pub fn discard(shadow: &Shadow, promoted_too: bool) -> Result<Vec<PathBuf>> {
    remove(&shadow.instance()?, &shadow.root, promoted_too)
}

/// As [`discard`], of a recovery that was broken off before it had a record: its folder is known by the configuration that is
/// written first.
///
/// # Errors
/// As [`discard`]; refused when the folder is none of ours.
pub fn discard_unfinished(root: &Path, programs: Programs, user: Option<UnixUser>) -> Result<Vec<PathBuf>> {
    let instance = Instance::new(programs, root, user)?;
    if !instance.layout.config.is_dir() || root.join(RECORD).exists() {
        return Err(Error::refused(format!("cannot remove {:?}", root.display()))
            .why("it is no folder of a recovery that was broken off")
            .hint("nothing was touched; name the folder that pitr restore was building in"));
    }
    remove(&instance, root, false)
}

fn remove(instance: &Instance, root: &Path, promoted_too: bool) -> Result<Vec<PathBuf>> {
    if let Some(by) = at_work(root) {
        return Err(busy(root, &by));
    }
    // Only a promotion makes it archive; an opened shadow still keeps to itself.
    let config = instance.layout.config.join("postgresql.conf");
    let archives = std::fs::read_to_string(config).is_ok_and(|text| text.contains("archive_mode = 'on'"));
    if archives && !promoted_too {
        return Err(Error::refused(format!("the instance in {:?} was promoted", root.display()))
            .why("it may be the database in service")
            .hint("nothing was touched; if it really is to go: --promoted-too"));
    }
    if instance.is_running() {
        instance.stop(Stop::Immediate, LIMIT)?;
    }
    tablespaces(instance, true)?;
    // The record goes last: while it is there, what is left can be thrown away again.
    let what = || format!("cannot remove {:?}", root.display());
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(root).target(what)? {
        let entry = entry.target(what)?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().starts_with(KEPT_LOG) {
            kept.push(path);
        } else if entry.file_type().target(what)?.is_dir() && path != instance.layout.config {
            std::fs::remove_dir_all(&path).target(what)?;
        } else if name != RECORD && path != instance.layout.config {
            std::fs::remove_file(&path).target(what)?;
        }
    }
    // Elsewhere when its path would be too long; a worker that was killed left segments there.
    if !instance.layout.sockets.starts_with(root) {
        let _ = std::fs::remove_dir_all(&instance.layout.sockets);
    }
    if kept.is_empty() {
        std::fs::remove_dir_all(root).target(what)?;
        return Ok(kept);
    }
    for last in [instance.layout.config.clone(), root.join(RECORD)] {
        let gone = if last.is_dir() { std::fs::remove_dir_all(&last) } else { std::fs::remove_file(&last) };
        match gone {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).target(what),
            _ => {}
        }
    }
    Ok(kept)
}
