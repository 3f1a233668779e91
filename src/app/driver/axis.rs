//! The time axis for the choice of the moment, kept up to date while the incident is open: what is archived meanwhile is read
//! once and kept for everybody.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Msg;
use crate::action::{Ctx, reach, target};
use crate::error::{Context, ErrorKind, Result};
use crate::model::IncidentId;
use crate::recovery::axis::build;
use crate::recovery::predict::Throughput;
use crate::recovery::wal_index::Index;

/// From one look at the archive to the next.
const EVERY: Duration = Duration::from_secs(10);

/// At work; dropped, it stops.
pub(super) struct AxisWork {
    stop: CancellationToken,
}

impl Drop for AxisWork {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl AxisWork {
    /// Begins to read.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(ctx: Ctx, incident: IncidentId, messages: mpsc::Sender<Msg>) -> Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let work = move || {
            let _ = follow(&ctx, &incident, &messages, &stopped);
        };
        std::thread::Builder::new().name("axis".into()).spawn(work).state(|| "cannot start a thread".into())?;
        Ok(Self { stop })
    }
}

/// Ends when it is stopped, the screen is gone, or the repository cannot be opened: the choice then works as without.
fn follow(ctx: &Ctx, incident: &IncidentId, messages: &mpsc::Sender<Msg>, stop: &CancellationToken) -> Result<()> {
    let (unlocked, _) = target::unlock(ctx)?;
    let programs = reach::programs_when_needed(ctx);
    let seen = ctx.incident.as_ref().and_then(|s| s.facts.source.as_ref()).map(|(id, _)| id.clone());
    let mut index = Index::load(&unlocked)?;
    let mut shown = None;
    loop {
        let throughput = target::instances_dir(ctx, seen.as_ref()).map(|d| Throughput::load(&d)).unwrap_or_default();
        match build(&unlocked, &programs, &mut index, throughput, stop) {
            Ok(axis) if shown.as_ref() != Some(&axis) => {
                shown = Some(axis.clone());
                if messages.blocking_send(Msg::Axis(incident.clone(), Box::new(axis))).is_err() {
                    return Ok(());
                }
            }
            Err(e) if e.kind == ErrorKind::Interrupted => return Ok(()),
            // Nothing new, or the repository is away for a while: what is shown stays.
            _ => {}
        }
        let mut waited = Duration::ZERO;
        while waited < EVERY {
            if stop.is_cancelled() || messages.is_closed() {
                return Ok(());
            }
            let step = Duration::from_millis(200);
            std::thread::sleep(step);
            waited += step;
        }
    }
}
