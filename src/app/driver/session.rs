//! The open incident: its journal, its workers, and what is known of it for the screen.
//!
//! When the journal cannot be written (a full or dead disk) the steps can still be worked: the same decisions are then
//! applied in memory only, and the screen says so loudly until writing works again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::World;
use super::output::Follow;
use crate::action::carried::Carried;
use crate::app::data::{Incident as Data, Process, Recording, RowKind, TimelineRow, Worker};
use crate::config::{Secrets, Settings};
use crate::drill::session::settings_for;
use crate::drill::tabletop;
use crate::error::{Error, Result};
use crate::export::timeline::{Tone as RowTone, rows_of};
use crate::incident::forecast::StepTimes;
use crate::incident::{Command, Context, Now, Policy, RunRequest, State, decide};
use crate::journal::Watch;
use crate::journal::clock::Clock;
use crate::model::event::Kind;
use crate::model::plan::Scenario;
use crate::model::{Actor, CleanText, Digest, IncidentId, Plan, Record, RunId, Secret, Seq, Time};
use crate::plan::adopt;
use crate::plan::library::Origin;
use crate::plan::watch as plan_watch;
use crate::process::locks::Orphan;
use crate::runtime::adopt::START_GRACE;
use crate::runtime::kept_plan::write_plan;
use crate::runtime::{History, Incident, Job, Opening, RunHealth, SubmitError, actor, look, policy, start_run};

/// An incident that is on the screen.
pub(super) struct Session {
    /// Its journal; none when not even the first record could be written.
    incident: Option<Incident>,
    /// What is known: of the journal, or of memory while nothing can be written.
    state: State,
    records: Vec<Record>,
    scenario: Arc<Scenario>,
    settings: Settings,
    secrets: Secrets,
    /// Why nothing can be run: a drill whose sandbox is gone.
    no_world: Option<Error>,
    policy: Policy,
    actor: Actor,
    clock: Clock,
    times: Arc<StepTimes>,
    workers: BTreeMap<RunId, Worker>,
    /// Why nothing is recorded, and how many records of `records` are only in memory.
    unrecorded: Option<(String, usize)>,
    watch: Option<Watch>,
    /// The documents on disk the incident's plan was read from.
    source: Option<plan_watch::Watch>,
    /// Names of secrets that were given here.
    held: Arc<BTreeSet<String>>,
    /// The whole plan, for what stands beside the steps.
    plan: Arc<Plan>,
    /// What the screen was told last.
    shown: Option<(Seq, Digest, BTreeMap<RunId, Worker>, Recording)>,
    timeline: Arc<Vec<TimelineRow>>,
}

impl Session {
    /// Opens an incident that is there.
    pub(super) fn open(world: &World, id: &IncidentId) -> Result<Self> {
        let state = world.store.state(id)?;
        let policy = policy(&settings_for(&state, &world.config).unwrap_or_default().0);
        let incident = world.store.incident(id, policy.clone())?;
        Self::of(world, incident, policy)
    }

    /// Opens a new real incident; in memory only when the disk does not take it.
    pub(super) fn begin(
        world: &World,
        file: &str,
        slug: &str,
        severity: &str,
        impact: Option<(Time, String)>,
        codename: Option<String>,
    ) -> Result<Self> {
        let library = world.plans.read()?;
        let (document, scenario) = library
            .scenarios()
            .find(|(d, s)| d.plan.file == file && s.slug == slug)
            .ok_or_else(|| Error::usage(format!("the scenario {slug:?} is no longer in {file:?}")))?;
        let policy = policy(&world.config.settings);
        let opening = Opening {
            kind: Kind::Real,
            plan: document.plan.clone(),
            documents: vec![(document.plan.file.clone(), document.bytes.clone())],
            scenario: slug.to_string(),
            rto_ms: None,
            rpo_ms: None,
            target: world.config.settings.target.clone(),
            expect: world.config.settings.expect.clone(),
            policy: policy.clone(),
        };
        let made = world.store.check_writable().and_then(|()| world.store.create(opening));
        let mut session = match made {
            Ok(incident) => Self::of(world, incident, policy)?,
            Err(e) => Self::in_memory(world, &document.plan, scenario, policy, &e)?,
        };
        if let Some(codename) = codename {
            session.submit(Command::SetCodename { codename }, None)?;
        }
        session.submit(Command::Declare { severity: severity.to_string() }, None)?;
        if let Some((at, source)) = impact {
            session.submit(Command::SetImpact { at, source }, None)?;
        }
        Ok(session)
    }

    fn of(world: &World, incident: Incident, policy: Policy) -> Result<Self> {
        let state = incident.state()?.clone();
        // A drill whose sandbox is gone can still be read, noted and closed; nothing can be run in it.
        let (found, no_world) = match settings_for(&state, &world.config) {
            Ok(found) => (found, None),
            Err(e) => (Default::default(), Some(e)),
        };
        let (settings, secrets) = found;
        let history = History::read(&world.store).unwrap_or_default();
        let source = if state.kind == Kind::Real { watched(world, &incident.plan().file) } else { None };
        let plan = incident.plan().clone();
        Ok(Self {
            scenario: incident.scenario().clone(),
            records: incident.records().to_vec(),
            times: Arc::new(history.step_times(&state.scenario)),
            incident: Some(incident),
            state,
            settings,
            secrets,
            no_world,
            policy,
            actor: actor(),
            clock: Clock::new(),
            workers: BTreeMap::new(),
            unrecorded: None,
            watch: None,
            source,
            held: Arc::default(),
            plan,
            shown: None,
            timeline: Arc::default(),
        })
    }

    fn in_memory(world: &World, plan: &Plan, scenario: &Scenario, policy: Policy, why: &Error) -> Result<Self> {
        let clock = Clock::new();
        let actor = actor();
        let now = now(&clock);
        let settings = world.config.settings.clone();
        let open = Command::Open {
            id: IncidentId::new(format!("{}-{}-unrecorded", now.time.compact(), scenario.slug)),
            kind: Kind::Real,
            plan: Digest::new("0".repeat(64)),
            rto_ms: None,
            rpo_ms: None,
            program: env!("CARGO_PKG_VERSION").into(),
            target: settings.target.clone(),
            expect: settings.expect.clone(),
        };
        let context = Context { scenario, now: &now, actor: &actor, policy: &policy };
        let events = decide(None, &open, context).map_err(|r| Error::refused(r.to_string()))?;
        let record = unwritten(1, open.name(), &now, None, &actor, events);
        let state = State::fold(std::slice::from_ref(&record))
            .ok_or_else(|| Error::state("an incident cannot be opened in memory"))?;
        let (source, plan) = (None, Arc::new(plan.clone()));
        Ok(Self {
            incident: None,
            state,
            records: vec![record],
            scenario: Arc::new(scenario.clone()),
            settings,
            secrets: world.config.secrets.clone(),
            no_world: None,
            policy,
            actor,
            clock,
            times: Arc::default(),
            workers: BTreeMap::new(),
            unrecorded: Some((why.what.clone(), 1)),
            watch: None,
            source,
            held: Arc::default(),
            plan,
            shown: None,
            timeline: Arc::default(),
        })
    }

    pub(super) fn id(&self) -> &IncidentId {
        &self.state.id
    }
    pub(super) fn is_drill(&self) -> bool {
        self.state.kind == Kind::Drill
    }
    pub(super) fn has_open_runs(&self) -> bool {
        self.state.open_runs().next().is_some()
    }
    /// Whether messages of an exercise at a table are still to come in.
    pub(super) fn expects_messages(&self) -> bool {
        let exercise = self.state.people.tabletop.as_ref().filter(|_| self.state.closed.is_none());
        exercise.is_some_and(|t| t.brought.len() < t.planned as usize)
    }
    pub(super) fn run_dir(&self, run: RunId) -> Option<PathBuf> {
        self.incident.as_ref().map(|i| i.run_dir(run))
    }
    pub(super) fn dir(&self) -> Option<PathBuf> {
        self.incident.as_ref().map(|i| i.dir().to_path_buf())
    }
    pub(super) fn state(&self) -> &State {
        &self.state
    }
    /// Settings and secrets of its actions.
    pub(super) fn settings(&self) -> Result<(Settings, Secrets)> {
        match &self.no_world {
            Some(e) => Err(e.clone()),
            None => {
                let settings = self.settings.clone();
                let local = self.state.people.local_only;
                Ok((if local { settings.kept_here() } else { settings }, self.secrets.clone()))
            }
        }
    }
    pub(super) fn watch(&mut self, changed: impl Fn() + Send + 'static) {
        self.watch = self.incident.as_ref().map(|i| i.watch(changed));
    }

    /// Submits a command. What the rules refuse is an error; what the disk refuses is applied in memory.
    pub(super) fn submit(&mut self, command: Command, at: Option<Time>) -> Result<()> {
        let Some(incident) = &mut self.incident else { return self.apply_unwritten(&command, at) };
        match incident.submit_at(command.clone(), at) {
            Ok(_) => {
                if let Some((_, lost)) = self.unrecorded.take() {
                    self.catch_up(lost);
                }
                self.take_over()
            }
            Err(SubmitError::Refused(refusal)) => Err(SubmitError::Refused(refusal).into()),
            Err(SubmitError::Failed(e)) if incident.read_only_because().is_some() => Err(e),
            Err(SubmitError::Failed(e)) => {
                let count = self.unrecorded.as_ref().map_or(0, |(_, n)| *n);
                self.unrecorded = Some((e.what.clone(), count));
                self.apply_unwritten(&command, at)
            }
        }
    }

    /// The same decision, kept in memory only.
    fn apply_unwritten(&mut self, command: &Command, at: Option<Time>) -> Result<()> {
        if matches!(command, Command::RequestRun(_)) {
            return Err(Error::state("nothing can be run from here while nothing can be recorded")
                .why("a worker needs the journal to say that it began")
                .hint("Run it in a shell; write down when."));
        }
        let now = now(&self.clock);
        let context = Context { scenario: &self.scenario, now: &now, actor: &self.actor, policy: &self.policy };
        let events = decide(Some(&self.state), command, context).map_err(|r| Error::from(SubmitError::Refused(r)))?;
        if events.is_empty() {
            return Ok(());
        }
        let record = unwritten(self.state.seq.0 + 1, command.name(), &now, at, &self.actor, events);
        self.state.apply(&record);
        self.records.push(record);
        if let Some((_, n)) = &mut self.unrecorded {
            *n += 1;
        }
        Ok(())
    }

    /// Writing works again: what was only in memory goes into the journal as notes, at the times it happened.
    fn catch_up(&mut self, lost: usize) {
        let from = self.records.len().saturating_sub(lost);
        let missed: Vec<(Time, String)> = self.records[from..]
            .iter()
            .flat_map(|r| {
                rows_of(r, &self.state, Some(&self.scenario)).into_iter().map(|row| (r.occurred_at, row.what))
            })
            .collect();
        if let Some(incident) = &mut self.incident {
            for (at, what) in missed {
                let text = format!("while nothing could be recorded: {what}");
                let _ = incident.submit_at(Command::Note { text }, Some(at));
            }
        }
    }

    /// Keeps a secret for the commands of this incident, in memory only.
    pub(super) fn hold(&mut self, variable: &str, secret: Secret) {
        self.secrets.hold(variable, secret);
        self.held = Arc::new(self.secrets.held().map(|(name, _)| name.to_string()).collect());
    }

    /// Writes down what an exercise at a table showed.
    pub(super) fn judge_tabletop(&mut self) -> Result<()> {
        let rules = crate::incident::Rules::of(&self.plan, &self.scenario);
        let verdict = tabletop::judge(&self.state, &self.scenario, &rules, &now(&self.clock));
        self.submit(Command::Observe { facts: vec![verdict] }, None)
    }

    /// Keeps a message as a file of its own beside the journal. Returns its path.
    pub(super) fn keep_message(&self, audience: &str, text: &str) -> Result<PathBuf> {
        let dir = self
            .dir()
            .ok_or_else(|| Error::state("nothing can be written, so the message is only in the clipboard"))?;
        let folder = dir.join("messages");
        crate::journal::files::create_dir(&folder)?;
        let name: String = audience.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
        let at = now(&self.clock).time;
        let path = folder.join(format!("{}-{:03}-{name}.txt", at.compact(), self.state.seq.0));
        crate::journal::files::write_atomic(&path, format!("{}\n", text.trim_end()).as_bytes())?;
        Ok(path)
    }

    /// Names of the variables a command finds: ours, the target's, and what earlier blocks exported.
    fn environment(&self) -> BTreeSet<String> {
        let own = std::env::vars_os().filter(|(_, v)| !v.is_empty()).filter_map(|(n, _)| n.into_string().ok());
        let mut names: BTreeSet<String> = own.collect();
        if self.settings.database.is_some() {
            names.extend(CONNECTION.iter().map(ToString::to_string));
        }
        if let Some(dir) = self.dir() {
            let carried = Carried::load(&dir).unwrap_or_default();
            names.extend(carried.set.into_keys().filter_map(|n| n.into_string().ok()));
            for name in carried.unset.iter().filter_map(|n| n.to_str()) {
                names.remove(name);
            }
        }
        names
    }

    /// Whether documents on disk are watched.
    pub(super) fn watches_plan(&self) -> bool {
        self.source.is_some()
    }

    /// Offers the plan on disk when it was changed. The incident keeps its own until a person adopts the new one. Returns what
    /// to tell the reader.
    pub(super) fn offer_plan(&mut self, world: &World) -> Result<Option<String>> {
        let Some(source) = &self.source else { return Ok(None) };
        if source.try_next().is_none() {
            return Ok(None);
        }
        // Several changes at once are one.
        while source.try_next().is_some() {}
        let Some(incident) = &self.incident else { return Ok(None) };
        let file = incident.plan().file.clone();
        let keeps = "the incident keeps the plan it was opened with";
        let Ok(library) = world.plans.read() else {
            return Ok(Some(format!("{file} cannot be read any more; {keeps}")));
        };
        let Some(document) = library.documents.iter().find(|d| d.plan.file == file) else {
            return Ok(Some(format!("{file} is gone from the disk; {keeps}")));
        };
        if document.plan.digest == incident.plan().digest {
            return Ok(None);
        }
        let Some(plan) = adopt::carry_over(incident.plan(), &document.plan, &self.state.scenario) else {
            return Ok(Some(format!("{file} was changed and no longer has this scenario; {keeps}")));
        };
        let documents = [(file.clone(), document.bytes.clone())];
        let digest = write_plan(incident.dir(), &plan, &documents)?;
        self.submit(Command::OfferPlan { plan: digest }, None)?;
        Ok(Some(format!("{file} was changed: A looks at the new plan; until then {keeps}")))
    }

    /// Requests a run and starts its worker.
    pub(super) fn run(&mut self, world: &World, request: RunRequest, code: Option<String>) -> Result<()> {
        let Some(incident) = &mut self.incident else {
            return self.apply_unwritten(&Command::RequestRun(request), None);
        };
        if let Some(e) = &self.no_world {
            return Err(e.clone());
        }
        let job = Job { settings: self.settings.clone(), code, output_limit: None };
        let (_, started) = start_run(incident, request, &job, &self.secrets, &world.program)?;
        started?;
        self.take_over()
    }

    /// Reads what is new. Says whether the screen has to be told.
    pub(super) fn refresh(&mut self) -> Result<bool> {
        if let Some(incident) = &mut self.incident {
            let health = look(incident, START_GRACE)?;
            self.workers = health
                .into_iter()
                .map(|(run, health)| {
                    let worker = match health {
                        RunHealth::Starting | RunHealth::Running => Worker::Alive,
                        RunHealth::Elsewhere(host) => Worker::Elsewhere(CleanText::text(&host)),
                        RunHealth::WorkerDied(left) => Worker::ChildrenOnly(left.iter().map(process).collect()),
                        RunHealth::Unknown => Worker::Gone,
                    };
                    (run, worker)
                })
                .collect();
            if self.unrecorded.is_none() {
                self.take_over()?;
            }
        }
        self.bring_in()?;
        let now = (self.state.seq, self.state.head.clone(), self.workers.clone(), self.recording());
        if self.shown.as_ref() == Some(&now) {
            return Ok(false);
        }
        self.timeline = Arc::new(self.records.iter().flat_map(|r| self.rows(r)).collect());
        self.shown = Some(now);
        Ok(true)
    }

    /// The messages of an exercise at a table that are due by its own clock, also those of the time nobody was looking.
    fn bring_in(&mut self) -> Result<()> {
        let due = tabletop::due(&self.state, &self.plan, &self.scenario, &now(&self.clock));
        let writable = self.incident.as_ref().is_some_and(|i| i.read_only_because().is_none());
        if due.is_empty() || !writable || self.unrecorded.is_some() {
            return Ok(());
        }
        let Some(incident) = self.incident.take() else { return Ok(()) };
        // Nobody at the table sends them.
        let mut incident = incident.acting_as(Actor::new("breakglass"));
        let brought = due.iter().try_for_each(|(n, text)| tabletop::bring_in(&mut incident, *n, text));
        self.incident = Some(incident.acting_as(self.actor.clone()));
        brought?;
        self.take_over()
    }

    fn take_over(&mut self) -> Result<()> {
        if let Some(incident) = &self.incident {
            self.state = incident.state()?.clone();
            self.records = incident.records().to_vec();
            self.scenario = incident.scenario().clone();
            self.plan = incident.plan().clone();
        }
        Ok(())
    }

    fn recording(&self) -> Recording {
        let read_only = self.incident.as_ref().and_then(|i| i.read_only_because());
        match (&self.unrecorded, read_only) {
            (Some((why, _)), _) => Recording::NotRecorded(why.clone()),
            (None, Some(why)) => Recording::ReadOnly(why.to_string()),
            (None, None) if self.state.read_only => {
                Recording::ReadOnly("the journal holds events of a newer breakglass".into())
            }
            (None, None) => Recording::On,
        }
    }

    fn rows(&self, record: &Record) -> Vec<TimelineRow> {
        rows_of(record, &self.state, Some(&self.scenario))
            .into_iter()
            .map(|row| TimelineRow {
                seq: row.seq,
                at: row.at,
                recorded: record.recorded_at,
                actor: record.actor.clone(),
                kind: match (row.tone, row.event.as_str()) {
                    (_, "note_added") => RowKind::Note,
                    (_, "run_requested" | "run_started") => RowKind::Run,
                    (RowTone::Milestone, _) => RowKind::Incident,
                    (RowTone::Good, _) => RowKind::Good,
                    (RowTone::Warn, _) => RowKind::Attention,
                    (RowTone::Bad, _) => RowKind::Bad,
                    (RowTone::Plain, event) if event.starts_with("step") => RowKind::Step,
                    (RowTone::Plain, _) => RowKind::Fact,
                },
                text: CleanText::text(&match row
                    .command
                    .as_deref()
                    .map(|c| (c.lines().next().unwrap_or(""), c.lines().count()))
                {
                    // What exactly it was is what one looks for here.
                    Some((first, 0 | 1)) => format!("Asked to run: {first}"),
                    Some((first, _)) => format!("Asked to run: {first} …"),
                    None => row.what,
                }),
            })
            .collect()
    }

    /// What the screen shows of it.
    pub(super) fn data(&self, follow: Option<&Follow>) -> Data {
        let mut progress = BTreeMap::new();
        let mut outputs = BTreeMap::new();
        if let Some(follow) = follow {
            if self.state.runs.get(&follow.run).is_some_and(|r| !r.is_open()) {
                follow.finish();
            }
            progress.insert(follow.run, follow.progress());
            outputs.insert(follow.run, follow.output());
        }
        Data {
            state: self.state.clone(),
            scenario: self.scenario.clone(),
            plan: self.plan.clone(),
            plan_damage: self.incident.as_ref().and_then(|i| i.plan_damage()).map(|d| CleanText::text(d).to_string()),
            environment: Arc::new(self.environment()),
            held: self.held.clone(),
            timeline: self.timeline.clone(),
            times: self.times.clone(),
            recording: self.recording(),
            workers: self.workers.clone(),
            progress,
            outputs,
        }
    }
}

fn process(left: &Orphan) -> Process {
    Process { pid: left.pid, command: CleanText::text(&left.command) }
}

/// What a shell is told of the target.
const CONNECTION: [&str; 6] = ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "DATABASE_URL"];

/// Watches the document of that name, when it is one on disk.
fn watched(world: &World, file: &str) -> Option<plan_watch::Watch> {
    let library = world.plans.read().ok()?;
    let document = library.documents.into_iter().find(|d| d.plan.file == file)?;
    match document.origin {
        Origin::File(path) => plan_watch::Watch::new(vec![path]).ok(),
        Origin::Embedded => None,
    }
}

fn now(clock: &Clock) -> Now {
    let r = clock.read();
    Now { time: r.now, up_ms: r.up_ms, boot: r.boot }
}

/// A record that is in no journal.
fn unwritten(
    seq: u64,
    command: &str,
    now: &Now,
    at: Option<Time>,
    actor: &Actor,
    events: Vec<crate::model::Event>,
) -> Record {
    Record {
        v: 1,
        seq: Seq(seq),
        command: command.into(),
        occurred_at: at.unwrap_or(now.time),
        recorded_at: now.time,
        up_ms: now.up_ms,
        boot: now.boot.clone(),
        actor: actor.clone(),
        events,
        prev: Digest::new(""),
        hash: Digest::new("not recorded"),
    }
}
