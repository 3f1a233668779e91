//! What the console shows: the read model, filled by the driver, never changed by keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::action::{Progress, Registry};
use crate::incident::forecast::StepTimes;
use crate::incident::{Policy, State};
use crate::model::event::Kind;
use crate::model::plan::Risk;
use crate::model::{Actor, CleanText, IncidentId, Plan, Redactor, RunId, Scenario, Seq, Time};

/// Everything on the first screen.
#[derive(Debug, Clone, Default)]
pub struct Home {
    /// All scenarios of the library, in its order.
    pub scenarios: Vec<ScenarioRow>,
    /// All documents of the library, also those without a scenario: links lead to them.
    pub plans: Vec<Arc<Plan>>,
    /// Incidents that are not closed, newest first, real ones before drills.
    pub incidents: Vec<IncidentRow>,
    /// Secrets of the plans and the configuration, what is due first.
    pub secrets: Vec<SecretRow>,
    /// What could not be read, one sentence each.
    pub problems: Vec<String>,
}

/// How service, database and backups are, as `breakglass health` found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthRow {
    /// When it was looked.
    pub at: Time,
    /// All well.
    pub healthy: bool,
    /// Names of what is well.
    pub good: Vec<String>,
    /// What is not, one sentence each.
    pub bad: Vec<String>,
}

impl HealthRow {
    /// From the document that `health` prints.
    pub fn of(at: Time, document: &serde_json::Value) -> Self {
        let text = |v: &serde_json::Value| CleanText::line(v.as_str().unwrap_or_default().as_bytes()).to_string();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (name, status) in document["components"].as_object().into_iter().flatten() {
            let (name, status) = (CleanText::line(name.as_bytes()).to_string(), text(status));
            if crate::recovery::health::is_good(&status) {
                good.push(name);
                continue;
            }
            let detail = text(&document["details"][&name]);
            bad.push(match detail.is_empty() {
                true => format!("{name} {status}"),
                false => format!("{name} {status}: {detail}"),
            });
        }
        Self { at, healthy: document["healthy"] == true, good, bad }
    }
}

/// A secret as home lists it; never its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name.
    pub name: String,
    /// Document it stands in, or the configuration.
    pub from: String,
    /// How it is changed.
    pub how: String,
    /// What users notice.
    pub impact: String,
    /// From one change to the next.
    pub every: Duration,
    /// When it was changed last, as far as that was written down.
    pub rotated: Option<Time>,
}

impl SecretRow {
    /// When it has to be changed again.
    pub fn due(&self) -> Option<Time> {
        Some(self.rotated?.plus(self.every))
    }
    /// Whether that has passed.
    pub fn overdue(&self, now: Time) -> bool {
        self.due().is_some_and(|due| due < now)
    }
    /// Of these plans and this configuration; `recorded` are changes on record by name in lower case. What is due first
    /// comes first, what was never written down last.
    pub fn all(
        plans: &[&Plan],
        config: &[crate::config::load::SecretConfig],
        in_incidents: &BTreeMap<String, Time>,
        recorded: &BTreeMap<String, Time>,
    ) -> Vec<Self> {
        let mut out: Vec<Self> = Vec::new();
        for c in config {
            let every = Duration::from_secs(c.every_s.unwrap_or(crate::plan::secrets::EVERY_S));
            let (how, impact) = (String::new(), String::new());
            out.push(Self {
                name: c.name.clone(),
                from: "breakglass.toml".into(),
                how,
                impact,
                every,
                rotated: c.rotated,
            });
        }
        for plan in plans {
            for row in crate::plan::secrets::table(plan) {
                let same = |s: &&mut Self| s.name.eq_ignore_ascii_case(&row.name);
                if let Some(known) = out.iter_mut().find(same) {
                    // The configuration says how often; the plan says how.
                    (known.how, known.impact) = (row.how, row.impact);
                    known.rotated = known.rotated.max(row.rotated);
                    continue;
                }
                let every = Duration::from_secs(row.every_s);
                let from = plan.file.clone();
                out.push(Self { name: row.name, from, how: row.how, impact: row.impact, every, rotated: row.rotated });
            }
        }
        for s in &mut out {
            let name = s.name.to_lowercase();
            let known = [in_incidents.get(&name), recorded.get(&name)].into_iter().flatten().copied().max();
            s.rotated = s.rotated.max(known);
        }
        out.sort_by_key(|s| (s.due().is_none(), s.due()));
        out
    }
}

/// A scenario as home lists it.
#[derive(Debug, Clone)]
pub struct ScenarioRow {
    /// Document it comes from.
    pub file: String,
    /// The scenario as understood.
    pub scenario: Arc<Scenario>,
    /// The whole document: contacts, matrix, templates, links.
    pub plan: Arc<Plan>,
    /// How the last drill of it went.
    pub last_drill: Option<LastDrill>,
    /// Whether there is a sandbox for it, so that it can be drilled here.
    pub rehearsable: bool,
    /// How long its steps took before, for the forecast.
    pub times: Arc<StepTimes>,
}

/// The last drill of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastDrill {
    /// When it was opened.
    pub at: Time,
    /// From impact to service restored, when it was restored.
    pub took: Option<Duration>,
    /// How long that drill gave for it, which is less than the scenario's objective.
    pub objective: Option<Duration>,
    /// Whether the judge passed it and the objectives were met; none when it was given up.
    pub passed: Option<bool>,
}

/// An open incident as home lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentRow {
    /// Id.
    pub id: IncidentId,
    /// Real or drill.
    pub kind: Kind,
    /// Scenario's title.
    pub title: String,
    /// Severity.
    pub severity: Option<String>,
    /// Where the RTO clock starts.
    pub since: Time,
    /// Objective.
    pub rto: Option<Duration>,
    /// Service restored, when it is.
    pub restored: Option<Time>,
    /// Steps done or skipped, and all.
    pub steps: (usize, usize),
    /// Runs that are going on.
    pub running: usize,
    /// Runs whose outcome is unknown.
    pub unknown: usize,
}

/// An open incident.
#[derive(Debug, Clone)]
pub struct Incident {
    /// As its journal tells it.
    pub state: State,
    /// The scenario in its plan.json.
    pub scenario: Arc<Scenario>,
    /// The whole of its plan.json: contacts, matrix, templates, links.
    pub plan: Arc<Plan>,
    /// What is wrong with its plan.json, and what stands in for it.
    pub plan_damage: Option<String>,
    /// Names of variables a command finds in its environment.
    pub environment: Arc<BTreeSet<String>>,
    /// Names of secrets that were given; they last as long as this console.
    pub held: Arc<BTreeSet<String>>,
    /// The journal as people read it.
    pub timeline: Arc<Vec<TimelineRow>>,
    /// How long the steps took before.
    pub times: Arc<StepTimes>,
    /// Whether what is done reaches the journal.
    pub recording: Recording,
    /// Workers as their locks tell, by run; a run that is not listed was not looked at yet.
    pub workers: BTreeMap<RunId, Worker>,
    /// Progress of running actions.
    pub progress: BTreeMap<RunId, Progress>,
    /// What runs printed, as far as it was opened.
    pub outputs: BTreeMap<RunId, Output>,
}

/// Whether what is done reaches the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Recording {
    /// It does.
    #[default]
    On,
    /// It cannot, with the reason; steps can still be worked.
    NotRecorded(String),
    /// It may not, with the reason (a journal of the future, `--read-only`).
    ReadOnly(String),
}

/// A run's worker, as its locks tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Worker {
    /// Its lock is held.
    Alive,
    /// It runs on this other host, whose locks cannot be seen from here.
    Elsewhere(CleanText),
    /// Its lock is free, its children's is held: the worker died, its processes go on. None are listed when this account
    /// may not see them.
    ChildrenOnly(Vec<Process>),
    /// Both are free.
    Gone,
}

/// A process that a dead worker left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line.
    pub command: CleanText,
}

impl Process {
    /// Its id and the name of its program.
    pub fn short(&self) -> String {
        let program = self.command.as_str().split(' ').next().unwrap_or("");
        format!("{} {}", self.pid, program.rsplit('/').next().unwrap_or("")).trim_end().to_string()
    }
}

impl Incident {
    /// What the worker of a run left behind when it died; none when it did not die or nothing is left.
    pub fn left_behind(&self, run: RunId) -> Option<&[Process]> {
        match self.workers.get(&run) {
            Some(Worker::ChildrenOnly(processes)) => Some(processes),
            _ => None,
        }
    }
    /// The other host that a run's worker is on.
    pub fn elsewhere(&self, run: RunId) -> Option<&CleanText> {
        match self.workers.get(&run) {
            Some(Worker::Elsewhere(host)) => Some(host),
            _ => None,
        }
    }
}

/// Lines that grow while they are looked at. Lines are numbered from 0; the oldest may be gone from memory.
pub trait Lines: Send + Sync {
    /// Lines so far, also those that are gone.
    fn total(&self) -> u64;
    /// The first line that is still there.
    fn first(&self) -> u64;
    /// At most `count` lines from `from`; fewer when they are not there.
    fn read(&self, from: u64, count: usize) -> Vec<CleanText>;
}

/// What a run printed.
#[derive(Clone)]
pub struct Output {
    /// The lines.
    pub lines: Arc<dyn Lines>,
    /// The file all of them are in.
    pub file: String,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({} lines, {})", self.lines.total(), self.file)
    }
}

/// What sort of thing a line of the timeline is, for its glyph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// The incident itself: opened, declared, restored, closed.
    Incident,
    /// A step.
    Step,
    /// A run began.
    Run,
    /// Something ended well.
    Good,
    /// Something ended badly.
    Bad,
    /// Something was learned of the world.
    Fact,
    /// A remark.
    Note,
    /// Something a reviewer will ask about: a waiver, an unknown outcome.
    Attention,
}

/// A line of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineRow {
    /// Record it stands in.
    pub seq: Seq,
    /// When it happened, as stated.
    pub at: Time,
    /// When it was written.
    pub recorded: Time,
    /// Who.
    pub actor: Actor,
    /// Sort.
    pub kind: RowKind,
    /// One sentence.
    pub text: CleanText,
}

/// What does not change while the console runs.
#[derive(Debug, Clone)]
pub struct Env {
    /// Who sits here.
    pub actor: Actor,
    /// Limits from the configuration.
    pub policy: Policy,
    /// Nothing may be written or run (`--read-only`).
    pub read_only: bool,
    /// Version of the program.
    pub version: &'static str,
    /// Whether a command is configured that takes messages.
    pub notify: bool,
    /// The actions of the program by name, and what each can do at worst.
    pub actions: BTreeMap<String, Risk>,
    /// The same actions, for their arguments and what these can do.
    pub registry: Registry,
    /// Secrets known so far, so that none gets into a command.
    pub secrets: Redactor,
}

impl Default for Env {
    fn default() -> Self {
        Self {
            actor: Actor::new("nobody@nowhere"),
            policy: Policy::default(),
            read_only: false,
            version: env!("CARGO_PKG_VERSION"),
            notify: false,
            actions: BTreeMap::new(),
            registry: Registry::default(),
            secrets: Redactor::default(),
        }
    }
}

/// The exposure of the database in service as it was measured last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// The last sample, of this console or of one before.
    pub sample: Option<crate::incident::state::Exposure>,
    /// Why there is no newer one.
    pub gone: Option<String>,
}
