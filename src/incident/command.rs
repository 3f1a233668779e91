//! What a responder, a worker or the program may ask for. Decided by [`super::decide`], never applied directly.

use std::collections::BTreeMap;

use crate::model::event::{Event, Kind, Outcome, OutputSeal};
use crate::model::plan::Risk;
use crate::model::target::{Loss, RecoveryTarget};
use crate::model::{Actor, Digest, IncidentId, RunId, StepId, Time};

/// A request to run an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// Step it belongs to.
    pub step: Option<StepId>,
    /// Line of the block in the plan.
    pub block_line: Option<u32>,
    /// Registered name of the action.
    pub action: String,
    /// As shown to the person; redacted.
    pub shown: String,
    /// Arguments of our own command, variables already filled in.
    pub args: Vec<String>,
    /// Effective risk (the highest of action, plan and config).
    pub risk: Risk,
    /// Name typed to confirm, for `destroy`.
    pub confirmed: Option<String>,
}

/// A wish. Every variant says who usually has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Responder: open an incident (only on an empty journal).
    Open {
        /// Id.
        id: IncidentId,
        /// Real or drill.
        kind: Kind,
        /// Digest of plan.json.
        plan: Digest,
        /// Objective overriding the scenario's (a drill's sandbox has its own), milliseconds.
        rto_ms: Option<u64>,
        /// Objective overriding the scenario's, milliseconds.
        rpo_ms: Option<u64>,
        /// Program version.
        program: String,
        /// Target as people call it.
        target: Option<String>,
        /// Expected live identity.
        expect: BTreeMap<String, String>,
    },
    /// Responder: it is an incident.
    Declare {
        /// P0 … P3.
        severity: String,
    },
    /// Responder: users were affected from then on.
    SetImpact {
        /// When.
        at: Time,
        /// How that is known.
        source: String,
    },
    /// Responder: begin a step.
    StartStep {
        /// Step.
        step: StepId,
    },
    /// Responder: a step is done.
    FinishStep {
        /// Step.
        step: StepId,
    },
    /// Responder: leave a step out.
    SkipStep {
        /// Step.
        step: StepId,
        /// Why; not empty.
        reason: String,
    },
    /// Responder: open a step again.
    ReopenStep {
        /// Step.
        step: StepId,
        /// Why; not empty.
        reason: String,
    },
    /// Responder: tick or untick an item.
    Tick {
        /// Step.
        step: StepId,
        /// Position from 0.
        item: u32,
        /// Ticked or not.
        done: bool,
    },
    /// Responder: a remark (back-dating is an argument of submit: `occurred_at`).
    Note {
        /// Text; not empty.
        text: String,
    },
    /// Responder: set a variable.
    SetVariable {
        /// Name.
        name: String,
        /// Value; not a secret.
        value: String,
    },
    /// Responder: run an action.
    RequestRun(RunRequest),
    /// Worker: it started.
    StartRun {
        /// Run.
        run: RunId,
        /// Process id.
        pid: u32,
        /// Host.
        host: String,
        /// Program version.
        program: String,
    },
    /// Worker: it ended, and what it learned.
    FinishRun {
        /// Run.
        run: RunId,
        /// How.
        outcome: Outcome,
        /// Exit code.
        exit_code: i32,
        /// One sentence.
        summary: String,
        /// Wall time in milliseconds.
        duration_ms: u64,
        /// What it printed.
        output: OutputSeal,
        /// Facts learned (no run, step or incident events).
        facts: Vec<Event>,
    },
    /// Program: a run never started; take it back.
    WithdrawRun {
        /// Run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// Responder: stop a run.
    CancelRun {
        /// Run.
        run: RunId,
    },
    /// Program: both locks are free and there is no end.
    LoseRun {
        /// Run.
        run: RunId,
    },
    /// Responder: what became of a lost run.
    ResolveRun {
        /// Run.
        run: RunId,
        /// Verdict.
        outcome: Outcome,
        /// How they know; not empty.
        reason: String,
    },
    /// Anybody: facts seen outside a run (previews, health and exposure samples).
    Observe {
        /// Facts.
        facts: Vec<Event>,
    },
    /// Responder: restore to just before this.
    ChooseMoment {
        /// Target.
        target: RecoveryTarget,
        /// Its time, if known.
        at: Option<Time>,
        /// Expected loss, if known.
        loses: Option<Loss>,
    },
    /// Responder: pass a safety gate, with a reason.
    Waive {
        /// Gate.
        gate: String,
        /// Why; a few words.
        reason: String,
        /// For this step only, until something of it that changes the world has succeeded; for all of them when absent.
        step: Option<StepId>,
    },
    /// Second responder: approve an action.
    Approve {
        /// As shown.
        shown: String,
        /// Whose.
        requested_by: Actor,
    },
    /// Responder or program: service is back.
    RestoreService {
        /// When.
        at: Time,
        /// How that is known.
        how: String,
    },
    /// Responder: a message went out.
    Tell {
        /// To whom.
        audience: String,
        /// Text.
        text: String,
        /// `copied`, `command` or `said`.
        how: Option<String>,
        /// The step whose work it is, which begins with it.
        step: Option<StepId>,
    },
    /// Responder: works on it, or a deadline needs nothing.
    Acknowledge {
        /// `respond` or `escalate`.
        timer: String,
        /// Words; needed where nothing is to be done.
        note: String,
    },
    /// Responder: put a deadline off.
    Snooze {
        /// Its name.
        timer: String,
        /// For so long, milliseconds.
        for_ms: u64,
        /// Why; not empty.
        reason: String,
    },
    /// Responder: call a level.
    Escalate {
        /// Level.
        level: u32,
        /// Who.
        who: String,
        /// Time to answer, milliseconds.
        within_ms: u64,
    },
    /// Responder: a level answered.
    Answer {
        /// Level.
        level: u32,
        /// Who.
        by: String,
    },
    /// Responder: give a role to somebody, or hand it over.
    Assign {
        /// Role.
        role: String,
        /// Who.
        person: String,
        /// What is passed on in words.
        note: String,
    },
    /// Responder: speak of it under this name.
    SetCodename {
        /// The name.
        codename: String,
    },
    /// Responder: speak of it by its title again.
    LiftCodename,
    /// Responder: nothing leaves this machine by our doing, or may again.
    SetLocalOnly {
        /// Nothing may.
        on: bool,
        /// Why; not empty.
        reason: String,
    },
    /// Responder: a secret was changed.
    Rotate {
        /// Its name.
        secret: String,
        /// When.
        at: Time,
    },
    /// Responder: tick a box of the list for afterwards.
    TickAfterwards {
        /// Its text.
        item: String,
        /// Ticked or not.
        done: bool,
    },
    /// Responder: a file was attached.
    Attach {
        /// Name.
        file: String,
        /// Digest.
        sha256: Digest,
    },
    /// Program: the plan on disk changed.
    OfferPlan {
        /// Digest of the new plan.json.
        plan: Digest,
    },
    /// Responder: work with the new plan from here on.
    AdoptPlan {
        /// Digest of the new plan.json.
        plan: Digest,
    },
    /// Responder: close.
    Close {
        /// One sentence.
        summary: String,
        /// Close although something is open (its reason is in the summary).
        force: bool,
    },
}

impl Command {
    /// The name in a record's `command` field.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Declare { .. } => "declare",
            Self::SetImpact { .. } => "set-impact",
            Self::StartStep { .. } => "start-step",
            Self::FinishStep { .. } => "finish-step",
            Self::SkipStep { .. } => "skip-step",
            Self::ReopenStep { .. } => "reopen-step",
            Self::Tick { .. } => "tick",
            Self::Note { .. } => "note",
            Self::SetVariable { .. } => "set-variable",
            Self::RequestRun(_) => "request-run",
            Self::StartRun { .. } => "start-run",
            Self::FinishRun { .. } => "finish-run",
            Self::WithdrawRun { .. } => "withdraw-run",
            Self::CancelRun { .. } => "cancel-run",
            Self::LoseRun { .. } => "lose-run",
            Self::ResolveRun { .. } => "resolve-run",
            Self::Observe { .. } => "observe",
            Self::ChooseMoment { .. } => "choose-moment",
            Self::Waive { .. } => "waive",
            Self::Approve { .. } => "approve",
            Self::RestoreService { .. } => "restore-service",
            Self::Tell { .. } => "tell",
            Self::Acknowledge { .. } => "acknowledge",
            Self::Snooze { .. } => "snooze",
            Self::Escalate { .. } => "escalate",
            Self::Answer { .. } => "answer",
            Self::Assign { .. } => "assign",
            Self::SetCodename { .. } => "set-codename",
            Self::LiftCodename => "lift-codename",
            Self::SetLocalOnly { .. } => "set-local-only",
            Self::Rotate { .. } => "rotate",
            Self::TickAfterwards { .. } => "tick-afterwards",
            Self::Attach { .. } => "attach",
            Self::OfferPlan { .. } => "offer-plan",
            Self::AdoptPlan { .. } => "adopt-plan",
            Self::Close { .. } => "close",
        }
    }
}
