//! The facts that may stand in a journal, in past tense. A type only gains optional fields; a new meaning is a new type.
//!
//! No floats; identifiers that may exceed 2^53 are text; durations are milliseconds, sizes bytes, unless named otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::Risk;
use super::target::{Candidate, Identity, Loss, RecoveryTarget};
use super::{Actor, Digest, IncidentId, RunId, StepId, Time};

/// How the place where a damaged cluster is kept reads when nothing is known of it.
pub const NOT_KEPT: &str = "nothing of it is known to be left";

/// Whether it is the real thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Production.
    Real,
    /// An exercise.
    Drill,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0.
    Succeeded,
    /// The thing checked is not as it should be, or the action failed.
    Failed,
    /// Stopped on request.
    Cancelled,
    /// The action's own last check refused before anything was touched.
    Refused,
}

/// What a run printed, by reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSeal {
    /// Bytes in output.log.
    pub bytes: u64,
    /// Lines in output.log.
    pub lines: u64,
    /// Lines counted but not kept because of the size limit.
    pub dropped_lines: u64,
    /// SHA-256 of output.log.
    pub sha256: Option<Digest>,
}

/// One check of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `rows`, `fingerprint public.customers`, `constraints`, `amcheck`, `sequences`, …
    pub name: String,
    /// `passed`, `failed`, or `not_available` (never counted as passed).
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
}

/// Verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// Could not be checked here; the detail says why.
    NotAvailable,
}

/// A fact. Serialised with `type` as its tag, in snake case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// First event of every journal.
    IncidentOpened {
        /// The incident.
        id: IncidentId,
        /// Real or drill.
        kind: Kind,
        /// Slug of the scenario in plan.json.
        scenario: String,
        /// Its title.
        title: String,
        /// SHA-256 of plan.json: folder name under `plan/`.
        plan: Digest,
        /// P0 … P3, if said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        severity: Option<String>,
        /// Objective.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rto_ms: Option<u64>,
        /// Objective.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rpo_ms: Option<u64>,
        /// Version of the program.
        program: String,
        /// Name of the target as people call it, such as `shop @ sandbox`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// What the target's live identity must be: `system_identifier`, `database`, `host`; from config or plan.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        expect: BTreeMap<String, String>,
    },
    /// Somebody said it is an incident.
    IncidentDeclared {
        /// P0 … P3.
        severity: String,
    },
    /// The impact began (may be revised by a later event of the same type).
    ImpactStarted {
        /// When users were first affected.
        at: Time,
        /// How that is known.
        source: String,
        /// The start that was known before, when it is another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        moved_from: Option<Time>,
    },
    /// Work on a step began.
    StepStarted {
        /// Step.
        step: StepId,
    },
    /// A step is done.
    StepDone {
        /// Step.
        step: StepId,
    },
    /// A step is left out.
    StepSkipped {
        /// Step.
        step: StepId,
        /// Why.
        reason: String,
    },
    /// A step is open again.
    StepReopened {
        /// Step.
        step: StepId,
        /// Why.
        reason: String,
    },
    /// An item of a step was ticked or unticked.
    ItemTicked {
        /// Step.
        step: StepId,
        /// Position of the item in the step, from 0.
        item: u32,
        /// Ticked or not.
        done: bool,
    },
    /// A remark; `occurred_at` of the record may be back-dated.
    NoteAdded {
        /// Text.
        text: String,
    },
    /// A variable of the incident was given a value (never a secret).
    VariableSet {
        /// Name, such as TARGET.
        name: String,
        /// Value.
        value: String,
    },
    /// A person asked for an action; the run's id is the seq of this record.
    RunRequested {
        /// Step it belongs to, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepId>,
        /// Line of the block in the plan, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        block_line: Option<u32>,
        /// Registered name of the action: `shell`, `sql`, `health`, `pitr restore`, …
        action: String,
        /// What is run, as shown to the person who asked: the command line or the block's text. Redacted.
        shown: String,
        /// Arguments of our own command, after the action's name.
        #[serde(default)]
        args: Vec<String>,
        /// What it can do.
        risk: Risk,
        /// Name typed to confirm, for `destroy`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirmed: Option<String>,
    },
    /// The worker began; nothing runs before this is in the journal.
    RunStarted {
        /// Run.
        run: RunId,
        /// Process id of the worker.
        pid: u32,
        /// Host it runs on.
        host: String,
        /// Version of the worker's executable.
        program: String,
    },
    /// The worker ended it.
    RunFinished {
        /// Run.
        run: RunId,
        /// How.
        outcome: Outcome,
        /// Exit code of the action.
        exit_code: i32,
        /// One sentence for people: result or error.
        summary: String,
        /// Wall time of the action.
        duration_ms: u64,
        /// What it printed.
        output: OutputSeal,
    },
    /// A run that never started was taken back.
    RunWithdrawn {
        /// Run.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// Somebody asked a run to stop.
    RunCancelRequested {
        /// Run.
        run: RunId,
    },
    /// Both locks were found free and no finish was recorded.
    RunOutcomeUnknown {
        /// Run.
        run: RunId,
    },
    /// A person said what became of a run whose outcome was unknown.
    RunResolved {
        /// Run.
        run: RunId,
        /// Verdict of the person.
        outcome: Outcome,
        /// How they know.
        reason: String,
    },
    /// A safety gate was waived.
    GateWaived {
        /// `verified_backup`, `identity`, `second_person`, …
        gate: String,
        /// Why.
        reason: String,
        /// Step it was waived for; the whole incident when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepId>,
    },
    /// A second person approved a request.
    RunApproved {
        /// Action approved, as shown.
        shown: String,
        /// Whose request.
        requested_by: Actor,
    },
    /// The identity of a target was seen on a live connection.
    TargetSeen {
        /// `source` or `shadow`.
        role: String,
        /// Identity.
        identity: Identity,
    },
    /// Health was looked at.
    HealthSeen {
        /// All well.
        healthy: bool,
        /// Component → status as the service words it.
        components: BTreeMap<String, String>,
    },
    /// Exposure and position of the source at a moment, for RPO.
    ExposureSampled {
        /// Age of the oldest commit that could not be recovered at that moment.
        exposure_ms: u64,
        /// Whether that is an upper bound.
        at_most: bool,
        /// Position of the source's log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lsn: Option<String>,
        /// Last commit seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_commit: Option<Time>,
        /// How it was measured.
        source: String,
    },
    /// Writes are off, the faulty release is stopped, the log is switched and archived.
    BleedingStopped {
        /// What was done, one line each.
        done: Vec<String>,
        /// Position up to which the log is archived.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archived_lsn: Option<String>,
    },
    /// What is damaged, read-only.
    DamageAssessed {
        /// One line each.
        findings: Vec<String>,
        /// Rows damaged per table, where known.
        #[serde(default)]
        rows: BTreeMap<String, u64>,
    },
    /// What can be recovered to.
    RangeSeen {
        /// Earliest recoverable time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        earliest: Option<Time>,
        /// Latest recoverable time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        latest: Option<Time>,
        /// Missing segments.
        holes: Vec<String>,
    },
    /// Suspect transactions were found.
    MomentsFound {
        /// Best first.
        candidates: Vec<Candidate>,
    },
    /// A person chose the moment to restore to.
    MomentChosen {
        /// To just before this.
        target: RecoveryTarget,
        /// Its time, when known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Time>,
        /// What will be lost, as far as known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loses: Option<Loss>,
    },
    /// An isolated instance was built and recovered to the target.
    ShadowBuilt {
        /// Its socket directory or host.
        host: String,
        /// Port.
        port: u16,
        /// Data directory.
        data_directory: String,
        /// Target it was recovered to.
        target: RecoveryTarget,
        /// Base backup used.
        backup: String,
        /// Position reached.
        reached_lsn: String,
        /// Time of the last replayed commit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reached_time: Option<Time>,
        /// Bytes restored.
        bytes: u64,
        /// Time for the files.
        files_ms: u64,
        /// Time for the log.
        replay_ms: u64,
    },
    /// The shadow was verified.
    ShadowVerified {
        /// No check failed.
        passed: bool,
        /// Each check.
        checks: Vec<Check>,
    },
    /// What is in service was verified from outside, without another database having taken its place.
    ServiceVerified {
        /// No check failed.
        passed: bool,
        /// Each check.
        checks: Vec<Check>,
    },
    /// The service runs on the recovered database.
    Promoted {
        /// Identity of what is now the primary.
        identity: Identity,
        /// Where the damaged cluster is kept; begins with [`NOT_KEPT`] where nobody knows.
        kept: String,
    },
    /// A standby was looked at, against the last sample of its primary.
    StandbySeen {
        /// Who it is, seen live.
        identity: Identity,
        /// Position up to which it has received the log.
        received: String,
        /// Position up to which it has replayed it.
        replayed: String,
        /// Last commit it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_commit: Option<Time>,
        /// Bytes of log that the primary had by its last sample and the standby has not; none without a sample.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        behind_bytes: Option<u64>,
        /// The same as time between the last commits of both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        behind_ms: Option<u64>,
        /// When that sample was taken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sampled_at: Option<Time>,
    },
    /// A primary was closed so that it takes no more writes, also when it comes back, and that was proved.
    OldPrimaryFenced {
        /// What was done, one line each.
        done: Vec<String>,
        /// What proves it, one line each.
        proof: Vec<String>,
    },
    /// A former primary follows the present one as its standby.
    StandbyRebuilt {
        /// Who it is.
        identity: Identity,
        /// `pg_rewind` or `base backup`.
        how: String,
    },
    /// Roles were found that may be an intruder's.
    IntrudersSuspected {
        /// Worst first.
        roles: Vec<String>,
        /// Why, one line each.
        findings: Vec<String>,
    },
    /// Evidence was written down and sealed; each file has an event of its own.
    EvidenceSealed {
        /// Folder below the incident's.
        folder: String,
        /// Number of files.
        files: u32,
        /// SHA-256 of the list of all digests.
        seal: Digest,
        /// Sessions were cut before it was collected: what they could have told is missing.
        after_isolation: bool,
    },
    /// Suspected roles were locked out.
    IntrudersIsolated {
        /// Roles.
        roles: Vec<String>,
        /// Sessions that were ended.
        sessions: u64,
    },
    /// The plan's table of secrets was worked through; what was changed has events of its own.
    RotationEnded {
        /// Names of secrets that are still to be changed, by hand.
        left: Vec<String>,
    },
    /// A base backup exists.
    BackupTaken {
        /// Its id.
        id: String,
        /// Size stored.
        bytes: u64,
        /// Timeline it is on.
        timeline: u32,
        /// Whether every byte was read back and authenticated.
        verified: bool,
        /// When it was finished, if that was before it was recorded: a backup found in the repository.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken_at: Option<Time>,
    },
    /// The loss was measured after the restore.
    LossMeasured {
        /// Loss.
        loss: Loss,
    },
    /// What was committed after the moment was written out.
    SalvageWritten {
        /// Folder.
        folder: String,
        /// Rows per table.
        rows: BTreeMap<String, u64>,
        /// SHA-256 per file.
        files: BTreeMap<String, Digest>,
    },
    /// Service is back: the RTO clock stops.
    ServiceRestored {
        /// When.
        at: Time,
        /// `verified and healthy for 5 s`, or a person's words.
        how: String,
    },
    /// A message was sent or copied.
    MessageSent {
        /// To whom.
        audience: String,
        /// Text.
        text: String,
        /// `copied`, `command` (handed to the configured command) or `said` (told by a person in another way).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        how: Option<String>,
        /// The step whose work it was, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepId>,
    },
    /// Somebody took note of a deadline: works on it, or decided that it needs nothing.
    TimerAcknowledged {
        /// `respond` or `escalate`.
        timer: String,
        /// Their words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// A deadline was put off.
    TimerSnoozed {
        /// `respond`, `communicate`, `level-2`, `update-team`, …
        timer: String,
        /// For so long.
        for_ms: u64,
        /// Why.
        reason: String,
    },
    /// The next level was called.
    Escalated {
        /// Level, from 1.
        level: u32,
        /// Who.
        who: String,
        /// Time they have to answer.
        within_ms: u64,
    },
    /// Somebody of a level answered.
    EscalationAnswered {
        /// Level.
        level: u32,
        /// Who.
        by: String,
    },
    /// A role was given to somebody, or handed over.
    RoleAssigned {
        /// `incident commander`, `operations`, `communications`, `scribe`, or one of the plan's.
        role: String,
        /// Who has it from now on.
        person: String,
        /// Who had it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// What was passed on in words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// It is spoken of under this name from here on.
    CodenameSet {
        /// Says nothing of what happened.
        codename: String,
    },
    /// It is spoken of by its title again.
    CodenameLifted {},
    /// Whether anything may leave this machine by our doing.
    LocalOnlySet {
        /// Nothing may.
        on: bool,
        /// Why.
        reason: String,
    },
    /// A secret was changed.
    SecretRotated {
        /// Its name, as the plan's table has it; never its value.
        secret: String,
        /// When.
        at: Time,
    },
    /// An exercise at a table: nothing is executed.
    TabletopBegan {
        /// Document of the plan.
        document: String,
        /// Messages that will come in.
        messages: u32,
        /// Time between two of them.
        pace_ms: u64,
    },
    /// A message of the exercise came in.
    MessageInjected {
        /// Its number, from 1.
        number: u32,
        /// Its text.
        text: String,
    },
    /// A box of the list for afterwards was ticked or unticked.
    AfterwardsTicked {
        /// Its text.
        item: String,
        /// Ticked or not.
        done: bool,
    },
    /// A file was attached.
    EvidenceAdded {
        /// Name under `evidence/`.
        file: String,
        /// Digest.
        sha256: Digest,
    },
    /// The plan on disk changed; the incident keeps its own until somebody adopts the new one.
    PlanOffered {
        /// Digest of the new plan.json.
        plan: Digest,
    },
    /// The incident works with another plan.json from here on.
    PlanAdopted {
        /// Digest.
        plan: Digest,
    },
    /// A torn last line was moved aside.
    TornTailMoved {
        /// Bytes.
        bytes: u64,
        /// File it was moved to.
        file: String,
    },
    /// What a drill was set up with, without the secret of it.
    DrillPrepared {
        /// Scratch directory.
        scratch: String,
        /// Scale.
        size: u32,
        /// Set-up time.
        setup_ms: u64,
        /// Database bytes.
        bytes: u64,
    },
    /// The drill's umpire opened the injector's log and judged.
    DrillJudged {
        /// All checks passed.
        passed: bool,
        /// Each check.
        checks: Vec<Check>,
        /// When the damage really began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        injected_at: Option<Time>,
    },
    /// The incident is closed.
    IncidentClosed {
        /// One sentence.
        summary: String,
    },
    /// An event type this version does not know: the incident opens read-only.
    #[serde(other)]
    Unknown,
}
