//! What is known of an incident: a fold over its journal, nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::event::{Check, Kind, Outcome, OutputSeal};
use crate::model::plan::Risk;
use crate::model::target::{Candidate, Identity, Loss, RecoveryTarget};
use crate::model::{Actor, Digest, IncidentId, RunId, Seq, StepId, Time};

use super::{Instant, Now};

/// Status of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepStatus {
    /// Not begun.
    #[default]
    Open,
    /// Being worked on.
    Active,
    /// Done.
    Done,
    /// Left out.
    Skipped,
}

/// A step as worked so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepState {
    /// Status.
    pub status: StepStatus,
    /// First start.
    pub started: Option<Instant>,
    /// Start of the work on it since it was opened the last time; none while a step that was opened again waits.
    pub begun: Option<Instant>,
    /// When it was opened again.
    pub again: Option<Instant>,
    /// What was worked on it before it was opened again; what lies between is no work.
    pub before: Duration,
    /// End of the last time it was done or skipped.
    pub ended: Option<Instant>,
    /// Ticked items by position.
    pub ticked: BTreeMap<u32, Instant>,
    /// Why it was skipped or reopened.
    pub reason: Option<String>,
    /// Record of the last reopening: what ran before it does not count for the work that is to be done again.
    pub reopened: Option<Seq>,
    /// Who acted last.
    pub actor: Option<Actor>,
    /// When its message went out; none again once it is reopened.
    pub told: Option<Instant>,
}

impl StepState {
    /// Time it took, once ended: all the times it was worked on, without what lies between them.
    pub fn took(&self) -> Option<Duration> {
        let ended = self.ended.as_ref()?;
        let last = self.begun.as_ref().or(self.again.as_ref()).map(|i| i.until(ended));
        last.or((!self.before.is_zero()).then_some(Duration::ZERO)).map(|last| self.before + last)
    }
    /// Ends the work on it, to be opened again.
    pub(super) fn open_again(&mut self, when: Instant) {
        if let Some(begun) = self.begun.take().or_else(|| self.again.take().filter(|_| self.ended.is_some())) {
            self.before += begun.until(self.ended.as_ref().unwrap_or(&when));
        }
        self.status = StepStatus::Open;
        self.ended = None;
        self.told = None;
        self.again = Some(when);
    }
}

/// Status of a run as far as the journal tells; whether its worker lives is seen from the locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// Asked for; the worker has not started.
    Requested,
    /// The worker started and has not finished.
    Running,
    /// Ended.
    Finished(Outcome),
    /// Vanished without an end; a person has to say what became of it.
    Unknown,
    /// Taken back before it started.
    Withdrawn,
}

/// One execution of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Id.
    pub id: RunId,
    /// Step it belongs to.
    pub step: Option<StepId>,
    /// Line of the block in the plan.
    pub block_line: Option<u32>,
    /// Registered name of the action.
    pub action: String,
    /// As shown to the person who asked.
    pub shown: String,
    /// Arguments.
    pub args: Vec<String>,
    /// What it can do.
    pub risk: Risk,
    /// Who asked.
    pub actor: Actor,
    /// When it was asked for.
    pub requested: Instant,
    /// When the worker started.
    pub started: Option<Instant>,
    /// When it ended (or was resolved).
    pub ended: Option<Instant>,
    /// Status.
    pub status: RunStatus,
    /// Worker's process id and host.
    pub worker: Option<(u32, String)>,
    /// Whether a cancel was asked for.
    pub cancel_requested: bool,
    /// Exit code, when finished.
    pub exit_code: Option<i32>,
    /// One sentence, when finished or resolved.
    pub summary: String,
    /// Wall time of the action in milliseconds.
    pub duration_ms: u64,
    /// What it printed.
    pub output: OutputSeal,
}

impl Run {
    /// Whether it may still be doing something.
    pub fn is_open(&self) -> bool {
        matches!(self.status, RunStatus::Requested | RunStatus::Running | RunStatus::Unknown)
    }
    /// Whether it can change anything.
    pub fn is_mutating(&self) -> bool {
        self.risk > Risk::Read
    }
    /// Whether it finished with success.
    pub fn succeeded(&self) -> bool {
        self.status == RunStatus::Finished(Outcome::Succeeded)
    }
}

/// When users were first affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impact {
    /// When.
    pub at: Time,
    /// How that is known.
    pub source: String,
    /// Where it was recorded.
    pub recorded: Instant,
}

/// Service is back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// When.
    pub at: Time,
    /// How that is known.
    pub how: String,
}

/// A remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Record it stands in.
    pub seq: Seq,
    /// When it happened and when it was written.
    pub when: Instant,
    /// Who wrote it.
    pub actor: Actor,
    /// Text.
    pub text: String,
}

/// A waived safety gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    /// Record it stands in.
    pub seq: Seq,
    /// Gate.
    pub gate: String,
    /// Why.
    pub reason: String,
    /// Step it was waived for; the whole incident when absent.
    pub step: Option<StepId>,
    /// When.
    pub when: Instant,
}

/// Exposure of the source at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// When it was sampled.
    pub when: Instant,
    /// Age of the oldest commit that could not be recovered then.
    pub exposure: Duration,
    /// Whether that is an upper bound.
    pub at_most: bool,
    /// Position of the source's log.
    pub lsn: Option<String>,
    /// Last commit seen.
    pub last_commit: Option<Time>,
    /// How it was measured.
    pub source: String,
}

/// An isolated instance recovered beside the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// Run that built it, if any.
    pub run: Option<RunId>,
    /// Socket directory or host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Data directory.
    pub data_directory: String,
    /// Target it was recovered to.
    pub target: RecoveryTarget,
    /// Base backup used.
    pub backup: String,
    /// Position reached.
    pub reached_lsn: String,
    /// Time of the last replayed commit.
    pub reached_time: Option<Time>,
    /// Bytes restored.
    pub bytes: u64,
    /// Milliseconds for the files.
    pub files_ms: u64,
    /// Milliseconds for the log.
    pub replay_ms: u64,
    /// When.
    pub when: Instant,
}

/// A backup taken during the incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Id.
    pub id: String,
    /// Bytes stored.
    pub bytes: u64,
    /// Timeline.
    pub timeline: u32,
    /// Whether every byte was read back.
    pub verified: bool,
    /// When it was finished, for one that was found in the repository.
    pub taken_at: Option<Time>,
    /// When it was recorded.
    pub when: Instant,
}

impl Backup {
    /// Its age.
    pub fn age(&self, now: &Now) -> Duration {
        self.taken_at.map_or_else(|| self.when.elapsed(now), |t| now.time.since(t))
    }
}

/// A standby as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// Who it is.
    pub identity: Identity,
    /// Position up to which it has received the log.
    pub received: String,
    /// Last commit it has.
    pub last_commit: Option<Time>,
    /// Bytes it is behind the last sample of its primary; none without a sample.
    pub behind_bytes: Option<u64>,
    /// The same as time.
    pub behind: Option<Duration>,
    /// When the sample was taken.
    pub sampled_at: Option<Time>,
    /// When the standby was looked at.
    pub when: Instant,
}

/// What has been learned of the world, latest first where several are possible.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Live identity of the source, and when it was seen.
    pub source: Option<(Identity, Instant)>,
    /// Live identity of the shadow.
    pub shadow_identity: Option<(Identity, Instant)>,
    /// Last health seen: healthy, components, when.
    pub health: Option<(bool, BTreeMap<String, String>, Instant)>,
    /// Last exposure sample.
    pub exposure: Option<Exposure>,
    /// Since when writes are off by a containment; none once anything showed that they are on.
    pub writes_off: Option<Instant>,
    /// Containment: what was done, archived position, when.
    pub contained: Option<(Vec<String>, Option<String>, Instant)>,
    /// What is damaged: findings, rows per table.
    pub damage: Option<(Vec<String>, BTreeMap<String, u64>)>,
    /// What can be recovered to: earliest, latest, holes.
    pub range: Option<(Option<Time>, Option<Time>, Vec<String>)>,
    /// Suspects found, best first.
    pub candidates: Vec<Candidate>,
    /// The moment chosen: target, its time, the expected loss.
    pub chosen: Option<(RecoveryTarget, Option<Time>, Option<Loss>)>,
    /// Record in which it was chosen.
    pub chosen_in: Option<Seq>,
    /// The source as it was last seen before anything was promoted.
    pub damaged: Option<Identity>,
    /// The shadow.
    pub shadow: Option<Shadow>,
    /// Verification of the shadow: passed, checks. Cleared when another shadow is built.
    pub verified: Option<(bool, Vec<Check>)>,
    /// Whether what is in service itself was the last thing verified, and well: nothing has to be promoted then.
    pub in_service: bool,
    /// Promotion: identity of the new primary, where the damaged cluster is kept, when.
    pub promoted: Option<(Identity, String, Instant)>,
    /// Whether the shadow is what was promoted; false again when another one is built.
    pub shadow_promoted: bool,
    /// How far what is in service had been replayed when it was promoted.
    pub promoted_reached: Option<Time>,
    /// Another moment was chosen after a promotion: what is in service is to be replaced in its turn.
    pub going_back: bool,
    /// The standby that can take over.
    pub standby: Option<Standby>,
    /// The old primary is closed for good: what proves it, when. Cleared when it is a standby.
    pub fenced: Option<(Vec<String>, Instant)>,
    /// The former primary follows as a standby: who, how, when.
    pub rebuilt: Option<(Identity, String, Instant)>,
    /// Roles suspected to be an intruder's, worst first.
    pub intruders: Vec<String>,
    /// Why, one line each, as it was before they were locked out: that changed their roles.
    pub intruder_findings: Vec<String>,
    /// Evidence was sealed; whether only after the suspects were isolated.
    pub evidence_after_isolation: Option<bool>,
    /// When the suspects were locked out.
    pub isolated: Option<Instant>,
    /// Secrets that were not rotated; none before any was.
    pub unrotated: Option<Vec<String>>,
    /// Backups taken.
    pub backups: Vec<Backup>,
    /// Measured loss, with that of a recovery in service that was given up.
    pub loss: Option<Loss>,
    /// What was lost with promotions that were gone back on: it is lost still.
    pub given_up: Option<Loss>,
    /// Salvage: folder, rows per table.
    pub salvage: Option<(String, BTreeMap<String, u64>)>,
    /// Drill: scratch directory, size, database bytes, set-up milliseconds.
    pub drill: Option<(String, u32, u64, u64)>,
    /// Judgement of a drill: passed, checks, when the damage began.
    pub judged: Option<(bool, Vec<Check>, Option<Time>)>,
}

/// An incident as its journal tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Id.
    pub id: IncidentId,
    /// Real or drill.
    pub kind: Kind,
    /// Scenario's slug.
    pub scenario: String,
    /// Scenario's title.
    pub title: String,
    /// plan.json the incident works with.
    pub plan: Digest,
    /// A newer plan.json that was offered and not adopted.
    pub plan_offered: Option<Digest>,
    /// Severity: declared, else the plan's.
    pub severity: Option<String>,
    /// Objective.
    pub rto: Option<Duration>,
    /// Objective.
    pub rpo: Option<Duration>,
    /// Version of the program that opened it.
    pub program: String,
    /// Target as people call it.
    pub target: Option<String>,
    /// Expected live identity.
    pub expect: BTreeMap<String, String>,
    /// When it was opened.
    pub opened: Instant,
    /// Who opened it.
    pub opened_by: Actor,
    /// When it was declared.
    pub declared: Option<Instant>,
    /// When users were first affected.
    pub impact: Option<Impact>,
    /// Service restored.
    pub restored: Option<Restored>,
    /// Closed: when and the summary.
    pub closed: Option<(Instant, String)>,
    /// Steps touched so far, by id.
    pub steps: BTreeMap<StepId, StepState>,
    /// Runs by id.
    pub runs: BTreeMap<RunId, Run>,
    /// Variables.
    pub vars: BTreeMap<String, String>,
    /// Remarks.
    pub notes: Vec<Note>,
    /// Waived gates.
    pub waivers: Vec<Waiver>,
    /// Approvals: what was shown, who asked, who approved.
    pub approvals: Vec<(String, Actor, Actor)>,
    /// Messages: audience, text, when.
    pub messages: Vec<(String, String, Instant)>,
    /// Evidence: file, digest.
    pub evidence: Vec<(String, Digest)>,
    /// Roles, calls for help, deadlines taken note of.
    pub people: super::People,
    /// What has been learned of the world.
    pub facts: Facts,
    /// Sequence number of the last record.
    pub seq: Seq,
    /// Hash of the last record.
    pub head: Digest,
    /// When the last record was written.
    pub last_recorded: Time,
    /// An event of the future was met: nothing may be written.
    pub read_only: bool,
    /// Oddities: clock went back, torn tail moved.
    pub notices: Vec<String>,
}

impl State {
    /// Status and times of a step; open when never touched.
    pub fn step(&self, id: &StepId) -> StepState {
        self.steps.get(id).cloned().unwrap_or_default()
    }
    /// Runs that may still be doing something, oldest first.
    pub fn open_runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().filter(|r| r.is_open())
    }
    /// The last run of a step, if any.
    pub fn last_run_of(&self, step: &StepId) -> Option<&Run> {
        self.runs.values().rev().find(|r| r.step.as_ref() == Some(step))
    }
    /// The last run of a step since it was opened again, that tells how the step stands: one that was withdrawn, or refused
    /// before it touched anything, does not take an earlier success back.
    pub fn last_word_of(&self, step: &StepId) -> Option<&Run> {
        let since = self.steps.get(step).and_then(|s| s.reopened).map_or(0, |s| s.0);
        let mut runs = self
            .runs
            .values()
            .rev()
            .filter(|r| r.step.as_ref() == Some(step) && r.id.0 > since && r.status != RunStatus::Withdrawn);
        let last = runs.next()?;
        if last.status != RunStatus::Finished(Outcome::Refused) {
            return Some(last);
        }
        Some(runs.find(|r| r.status != RunStatus::Finished(Outcome::Refused)).filter(|r| r.succeeded()).unwrap_or(last))
    }
    /// The run that put the shadow into service and succeeded.
    pub fn promoting_run(&self) -> Option<&Run> {
        if !self.facts.shadow_promoted {
            return None;
        }
        let built = self.facts.shadow.as_ref().and_then(|s| s.run).map_or(0, |r| r.0);
        self.runs.values().rev().find(|r| r.action == "pitr promote" && r.id.0 > built && r.succeeded())
    }
    /// Waivers that still hold. One for a step is spent when something of that step that changes the world succeeded.
    pub fn live_waivers(&self) -> impl Iterator<Item = &Waiver> {
        self.waivers.iter().filter(|w| {
            w.step.is_none()
                || !self.runs.values().any(|r| r.id.0 > w.seq.0 && r.step == w.step && r.is_mutating() && r.succeeded())
        })
    }
    /// Whether a gate is waived for anything now.
    pub fn waived(&self, gate: &str) -> bool {
        self.live_waivers().any(|w| w.gate == gate)
    }
    /// Whether a gate is waived for what this step runs.
    pub fn waived_for(&self, gate: &str, step: Option<&StepId>) -> bool {
        self.live_waivers().any(|w| w.gate == gate && (w.step.is_none() || w.step.as_ref() == step))
    }
    /// The first step of the scenario that is neither done nor skipped.
    pub fn current_step<'a>(&self, scenario: &'a crate::model::Scenario) -> Option<&'a crate::model::Step> {
        scenario.steps.iter().find(|s| !matches!(self.step(&s.id).status, StepStatus::Done | StepStatus::Skipped))
    }
}
