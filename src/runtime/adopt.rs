//! What became of runs that this console did not start, or started before it died: the journal says what should be, the locks
//! say what is.

use std::time::Duration;

use super::Incident;
use crate::error::{Error, Result};
use crate::incident::{Command, RunStatus};
use crate::journal::lock::host_name;
use crate::model::RunId;
use crate::process::locks::{self, Orphan, RunLiveness};

/// How long a request may wait for its worker before it counts as never started. Another console may be starting it right now.
pub const START_GRACE: Duration = Duration::from_secs(10);

/// How an open run really is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunHealth {
    /// Requested a moment ago; its worker is getting ready.
    Starting,
    /// Its worker lives: follow it.
    Running,
    /// Its worker runs on another host, whose locks cannot be seen from here.
    Elsewhere(String),
    /// Its worker died but what it started goes on: watch or stop it; a retry would run beside it.
    WorkerDied(Vec<Orphan>),
    /// Nobody knows: a person has to say what became of it.
    Unknown,
}

/// Looks at every open run; records what the locks prove: a request that never started is withdrawn, a run whose worker and
/// children are gone has an unknown outcome. To be called when a console opens an incident and once a second while it is open.
///
/// # Errors
/// State when the journal or the locks cannot be read. In a read-only incident nothing is recorded, only reported.
pub fn look(incident: &mut Incident, grace: Duration) -> Result<Vec<(RunId, RunHealth)>> {
    incident.refresh()?;
    let open: Vec<RunId> = incident.state()?.open_runs().map(|r| r.id).collect();
    let mut found = Vec::new();
    for run in open {
        if let Some(health) = look_at(incident, run, grace)? {
            found.push((run, health));
        }
    }
    Ok(found)
}

/// One run; none when it turned out to have ended.
fn look_at(incident: &mut Incident, run: RunId, grace: Duration) -> Result<Option<RunHealth>> {
    // The locks first, the journal after: an end that is recorded in between is seen.
    let liveness = locks::probe(&incident.run_dir(run))?;
    incident.refresh()?;
    let now = incident.now();
    let state = incident.state()?;
    let read_only = state.read_only;
    let Some(r) = state.runs.get(&run).filter(|r| r.is_open()) else { return Ok(None) };
    if r.status == RunStatus::Unknown {
        return Ok(Some(RunHealth::Unknown));
    }
    if let Some((_, host)) = &r.worker
        && *host != host_name()
    {
        return Ok(Some(RunHealth::Elsewhere(host.clone())));
    }
    let command = match (r.status, liveness) {
        (RunStatus::Requested, RunLiveness::Running) => return Ok(Some(RunHealth::Starting)),
        (_, RunLiveness::Running) => return Ok(Some(RunHealth::Running)),
        (_, RunLiveness::WorkerDied) => return Ok(Some(RunHealth::WorkerDied(locks::orphans(&incident.run_dir(run))))),
        (RunStatus::Requested, _) if r.requested.elapsed_from_record(&now) < grace => {
            return Ok(Some(RunHealth::Starting));
        }
        (RunStatus::Requested, _) => Command::WithdrawRun { run, reason: "its worker never started".into() },
        _ => Command::LoseRun { run },
    };
    if read_only {
        return Ok(Some(RunHealth::Unknown));
    }
    let withdrawn = matches!(command, Command::WithdrawRun { .. });
    match incident.submit(command) {
        Ok(_) if withdrawn => Ok(None),
        Ok(_) => Ok(Some(RunHealth::Unknown)),
        // Somebody was faster: the worker started, or it had ended. The next look tells.
        Err(super::SubmitError::Refused(_)) => {
            let open = incident.state()?.runs.get(&run).is_some_and(|r| r.is_open());
            Ok(open.then_some(RunHealth::Running))
        }
        Err(super::SubmitError::Failed(e)) => {
            Err(Error::state(format!("what became of run {run} cannot be recorded")).why(e))
        }
    }
}
