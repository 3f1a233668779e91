//! The exposure of the database in service, measured every few seconds while an incident is on the screen, and kept for the
//! moment the server is gone: then the last sample is shown with its age.

use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Job, Msg};
use crate::app::data::Live;
use crate::error::{Context, Error, Result};
use crate::incident::state::Exposure;
use crate::incident::{Command, Instant};
use crate::journal::clock::Clock;
use crate::model::event::Event;
use crate::model::{CleanText, IncidentId, Time};
use crate::postgres::Database;
use crate::recovery::exposure;

/// From one sample to the next.
const EVERY: Duration = Duration::from_secs(5);
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(4);
/// How many are kept: ten minutes.
const KEPT: usize = 120;
/// Name of the file in the incident's folder.
const FILE: &str = "exposure.json";

/// What is sampled now.
#[derive(Debug, Clone, Default)]
pub(super) struct Target {
    /// The database in service; none when there is nothing to ask, or the incident is closed.
    pub database: Option<Database>,
    /// Where it archives to.
    pub repository: Option<String>,
    /// Whether that is ours to ask: other tools archive elsewhere.
    pub native: bool,
}

/// A sampler at work; dropped, it stops.
pub(super) struct Sampler {
    target: Arc<Mutex<Target>>,
    stop: CancellationToken,
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Whom a sampler tells.
pub(super) struct Told {
    /// The screen.
    pub messages: mpsc::Sender<Msg>,
    /// The driver.
    pub jobs: SyncSender<Job>,
    /// The incident.
    pub incident: IncidentId,
    /// Its folder; none when nothing can be written.
    pub dir: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    v: u32,
    samples: Vec<Sample>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Sample {
    at: Time,
    up_ms: u64,
    boot: String,
    exposure_ms: u64,
    at_most: bool,
    lsn: Option<String>,
    last_commit: Option<Time>,
    source: String,
}

impl Sampler {
    /// Starts one.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(target: Target, told: Told) -> Result<Self> {
        let (target, stop) = (Arc::new(Mutex::new(target)), CancellationToken::new());
        let (shared, stopped) = (target.clone(), stop.clone());
        let work = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = follow(&shared, &told) => {}
                }
            });
        };
        std::thread::Builder::new().name("exposure".into()).spawn(work).state(|| "cannot start a thread".into())?;
        Ok(Self { target, stop })
    }

    /// Samples this from now on: after a promotion another database is in service.
    pub fn aim(&self, target: Target) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }
}

async fn follow(target: &Mutex<Target>, told: &Told) {
    let clock = Clock::new();
    let mut kept = told.dir.as_deref().map(load).unwrap_or_default();
    if let Some(last) = kept.last() {
        tell(told, Some(last), Some("not asked yet".into())).await;
    }
    // Whether the last sample is in the journal: it is needed there when the server has gone.
    let mut noted = true;
    loop {
        let now = target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(database) = &now.database {
            let read = clock.read();
            let taken = tokio::time::timeout(LIMIT, measure(database, now.repository.clone(), now.native)).await;
            match taken.unwrap_or_else(|_| Err(Error::target("no answer").why(format!("within {} s", LIMIT.as_secs()))))
            {
                Ok(Some(e)) => {
                    let sample = Sample {
                        at: read.now,
                        up_ms: read.up_ms,
                        boot: read.boot,
                        exposure_ms: u64::try_from(e.exposure.as_millis()).unwrap_or(u64::MAX),
                        at_most: e.at_most,
                        lsn: Some(e.lsn),
                        last_commit: e.last_commit,
                        source: e.source,
                    };
                    tell(told, Some(&sample), None).await;
                    kept.push(sample);
                    let surplus = kept.len().saturating_sub(KEPT);
                    kept.drain(..surplus);
                    keep(told, &kept);
                    noted = false;
                }
                // It answers, and there is nothing to measure its exposure by.
                Ok(None) => tell(told, kept.last(), Some("it archives nothing, or is a standby".into())).await,
                Err(e) => {
                    if let Some(last) = kept.last().filter(|_| !noted) {
                        let facts = vec![last.fact()];
                        let command = Command::Observe { facts };
                        noted = told.jobs.try_send(Job::SubmitAt(told.incident.clone(), command, last.at)).is_ok();
                    }
                    tell(told, kept.last(), Some(CleanText::line(e.what.as_bytes()).to_string())).await;
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn measure(at: &Database, repository: Option<String>, native: bool) -> Result<Option<exposure::Exposure>> {
    let held =
        tokio::task::spawn_blocking(move || exposure::held_at(repository.as_ref(), native)).await.unwrap_or_default();
    // Any database will do, and this one is in nobody's way when the one in service is renamed or dropped.
    let elsewhere = at.with_name("postgres").connect_read_only(Duration::from_secs(1), LIMIT).await;
    let mut c = match elsewhere {
        Ok(c) => c,
        Err(_) => at.connect_read_only(Duration::from_secs(1), LIMIT).await?,
    };
    exposure::measure(&mut c, &held).await
}

async fn tell(told: &Told, sample: Option<&Sample>, gone: Option<String>) {
    let live = Live { sample: sample.map(Sample::known), gone };
    // Only fails when the screen is gone.
    let _ = told.messages.send(Msg::Exposure(told.incident.clone(), Box::new(live))).await;
}

impl Sample {
    fn known(&self) -> Exposure {
        Exposure {
            when: Instant { at: self.at, recorded: self.at, up_ms: self.up_ms, boot: self.boot.clone() },
            exposure: Duration::from_millis(self.exposure_ms),
            at_most: self.at_most,
            lsn: self.lsn.clone(),
            last_commit: self.last_commit,
            source: self.source.clone(),
        }
    }

    fn fact(&self) -> Event {
        Event::ExposureSampled {
            exposure_ms: self.exposure_ms,
            at_most: self.at_most,
            lsn: self.lsn.clone(),
            last_commit: self.last_commit,
            source: self.source.clone(),
        }
    }
}

fn load(dir: &Path) -> Vec<Sample> {
    let read = || serde_json::from_slice::<Kept>(&std::fs::read(dir.join(FILE)).ok()?).ok();
    read().filter(|k| k.v == 1).map(|k| k.samples).unwrap_or_default()
}

/// Failing to is no reason to stop: the screen has it.
fn keep(told: &Told, samples: &[Sample]) {
    let Some(dir) = &told.dir else { return };
    if let Ok(text) = serde_json::to_string(&Kept { v: 1, samples: samples.to_vec() }) {
        let _ = crate::postgres::user::own_file(&dir.join(FILE), &text, None);
    }
}
