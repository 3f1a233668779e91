//! The unattended operator: works a scenario through the same commands, gates and workers as a person would.
//!
//! It decides nothing that a person could not see: the alarm is the service's health, the moment is the first one
//! `pitr locate` offers. It never knows what the umpire knows.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::action::runnable;
use crate::action::{Ctx, Nowhere, Registry, look};
use crate::config::{Secrets, Settings};
use crate::error::{Error, Result};
use crate::incident::{Command, RunRequest, RunStatus, StepStatus};
use crate::model::StepId;
use crate::model::event::Event;
use crate::model::plan::Risk;
use crate::model::target::RecoveryTarget;
use crate::model::{Phase, Record, RunId, Seq, Step};
use crate::process::detach::own_executable;
use crate::runtime::adopt::START_GRACE;
use crate::runtime::{Incident, Job, look, start_run};

/// How long one action may take before the operator gives up on it. Actions have limits of their own; this is the last.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// The operator at work.
pub struct Operator<'a> {
    /// The incident.
    pub incident: &'a mut Incident,
    /// Settings of the sandbox.
    pub settings: Settings,
    /// Its secrets.
    pub secrets: Secrets,
    /// All actions, for their risk and preview.
    pub registry: &'a Registry,
    /// Where previews run.
    pub tokio: &'a tokio::runtime::Runtime,
    /// Called with every new record, in order.
    pub on_record: &'a mut dyn FnMut(&Incident, &Record),
    /// Asked often: whether somebody wants to stop.
    pub stopped: &'a dyn Fn() -> bool,
    /// Records already reported.
    pub reported: Seq,
}

impl Operator<'_> {
    /// Works through all steps and leaves the incident open.
    ///
    /// # Errors
    /// What kept a step from being done; the journal holds everything up to there.
    pub fn play(&mut self) -> Result<()> {
        let scenario = self.incident.scenario().clone();
        for step in &scenario.steps {
            if matches!(self.incident.state()?.step(&step.id).status, StepStatus::Done | StepStatus::Skipped) {
                continue;
            }
            self.submit(Command::StartStep { step: step.id.clone() })?;
            if step.phase == Some(Phase::Declare) {
                self.declare()?;
            }
            self.run_blocks(step)?;
            let finds = |what: &str| step.blocks.iter().any(|b| b.code.contains(what));
            if (step.phase == Some(Phase::Decide) && finds("pitr locate")) || finds("breach trace") {
                self.choose()?;
            }
            if step.phase == Some(Phase::Communicate) {
                self.tell(&step.id)?;
            }
            self.submit(Command::FinishStep { step: step.id.clone() })?;
        }
        Ok(())
    }

    /// Submits and reports what was recorded, also by others.
    pub fn submit(&mut self, command: Command) -> Result<Option<RunId>> {
        let submitted = self.incident.submit(command).map_err(Error::from)?;
        self.report();
        Ok(submitted.run())
    }

    fn report(&mut self) {
        let new: Vec<Record> = self.incident.records().iter().filter(|r| r.seq > self.reported).cloned().collect();
        for record in new {
            self.reported = record.seq;
            (self.on_record)(self.incident, &record);
        }
    }

    fn declare(&mut self) -> Result<()> {
        let severity = self.incident.state()?.severity.clone().unwrap_or_else(|| "P1".into());
        self.submit(Command::Declare { severity })?;
        Ok(())
    }

    /// Runs our own commands of a step, in order. Other blocks are for a person who reads them first.
    fn run_blocks(&mut self, step: &Step) -> Result<()> {
        let risks: BTreeMap<String, Risk> =
            self.registry.all().map(|a| (a.spec().name.to_string(), a.spec().risk)).collect();
        for block in runnable::blocks(step).filter(|b| b.own.is_some()) {
            let vars = self.incident.state()?.vars.clone();
            let none = Default::default();
            let known = runnable::Known { vars: &vars, held: &none, environment: &none, actions: &risks };
            let mut request = runnable::request(step, block, &known).map_err(|missing| {
                Error::state(format!("step {:?} cannot be run unattended", step.title))
                    .why(format!("nobody can say what {} is", missing.names().join(", ")))
            })?;
            if request.risk == Risk::Destroy {
                self.look_first(&mut request)?;
            }
            self.run(step, request)?;
        }
        Ok(())
    }

    /// What a person does before typing the target's name: look at what it is, live.
    fn look_first(&mut self, request: &mut RunRequest) -> Result<()> {
        let action = self
            .registry
            .get(&request.action)
            .ok_or_else(|| Error::state(format!("there is no action {:?}", request.action)))?;
        let ctx = Ctx {
            incident: Some(std::sync::Arc::new(self.incident.state()?.clone())),
            incident_dir: Some(self.incident.dir().to_path_buf()),
            ..Ctx::new(self.settings.clone(), self.secrets.clone(), std::sync::Arc::new(Nowhere))
        };
        let preview = self.tokio.block_on(async {
            let mut seen = action.preview(&ctx, &request.args).await?;
            look::complete(&ctx, request.risk, &mut seen).await;
            Ok::<_, Error>(seen)
        })?;
        request.confirmed = preview.target.as_ref().map(|t| t.database.clone());
        let facts: Vec<Event> = preview.facts;
        if !facts.is_empty() {
            self.submit(Command::Observe { facts })?;
        }
        Ok(())
    }

    /// Runs one action in a worker and waits for its end.
    fn run(&mut self, step: &Step, request: RunRequest) -> Result<()> {
        let shown = request.shown.clone();
        let looking = request.risk == Risk::Read && !matches!(step.phase, Some(Phase::Verify | Phase::Close));
        let job = Job { settings: self.settings.clone(), ..Default::default() };
        let (run, started) = start_run(self.incident, request, &job, &self.secrets, &own_executable()?)?;
        self.report();
        started?;
        let (wake, woken) = mpsc::sync_channel(1);
        // A full channel already means "look again".
        let _watch = self.incident.watch(move || {
            let _ = wake.try_send(());
        });
        let begun = Instant::now();
        let mut cancelled = false;
        loop {
            self.incident.refresh()?;
            self.report();
            let state = self.incident.state()?;
            let now = state.runs.get(&run).map(|r| (r.status, r.summary.clone(), r.succeeded()));
            match now {
                Some((RunStatus::Finished(_), _, true)) => return Ok(()),
                Some((RunStatus::Finished(_), _, false)) if looking => return Ok(()),
                Some((RunStatus::Finished(_) | RunStatus::Withdrawn, summary, _)) => {
                    let error = if cancelled {
                        Error::interrupted(shown)
                    } else {
                        Error::check(format!("{shown:?} did not succeed"))
                    };
                    return Err(error.why(summary));
                }
                Some((RunStatus::Unknown, _, _)) | None => {
                    return Err(
                        Error::target(format!("the outcome of {shown:?} is unknown")).why("its worker vanished")
                    );
                }
                Some(_) => {}
            }
            if ((self.stopped)() || begun.elapsed() > PATIENCE) && !cancelled {
                cancelled = true;
                self.submit(Command::CancelRun { run })?;
            }
            look(self.incident, START_GRACE)?;
            let _ = woken.recv_timeout(Duration::from_millis(250));
        }
    }

    /// Takes the first candidate, and moves the start of the impact to it: that is when the data went wrong.
    fn choose(&mut self) -> Result<()> {
        let Some(best) = self.incident.state()?.facts.candidates.first().cloned() else {
            return Err(Error::check("no moment to restore to was found")
                .hint("look at the assessment; `breakglass pitr locate --help` says how to widen the search"));
        };
        self.submit(Command::ChooseMoment {
            target: best.target.clone(),
            at: Some(best.at),
            loses: Some(best.loses.clone()),
        })?;
        if let Some(table) = best.tables.first() {
            self.submit(Command::SetVariable { name: "TABLE".into(), value: table.clone() })?;
        }
        if best.target == RecoveryTarget::Latest {
            return Ok(());
        }
        self.submit(Command::SetImpact { at: best.at, source: "commit time of the first suspect transaction".into() })?;
        Ok(())
    }

    fn tell(&mut self, step: &StepId) -> Result<()> {
        let state = self.incident.state()?;
        let restored = state.restored.as_ref().map_or_else(|| "not yet".to_string(), |r| r.at.to_string());
        let text = format!("Drill: wrong data in {} was corrected; service restored: {restored}.", state.title);
        self.submit(Command::Tell { audience: "nobody (drill)".into(), text, how: None, step: Some(step.clone()) })?;
        Ok(())
    }
}
