//! The fold: the only place where state changes.

use std::time::Duration;

use crate::model::event::Event;
use crate::model::{Record, RunId, Seq};

use super::people::NEXT_UPDATE;
use super::state::{Backup, Exposure, Facts, Impact, Note, Restored, Shadow, Standby, Waiver};
use super::writes::{self, Turned};
use super::{Instant, Run, RunStatus, State, StepStatus};

impl State {
    /// Folds a whole journal. `None` when it is empty or does not begin with `IncidentOpened`.
    pub fn fold(records: &[Record]) -> Option<Self> {
        let (first, rest) = records.split_first()?;
        let mut state = Self::open(first)?;
        for record in rest {
            state.apply(record);
        }
        Some(state)
    }

    /// The state after the first record.
    fn open(record: &Record) -> Option<Self> {
        let Some(Event::IncidentOpened {
            id,
            kind,
            scenario,
            title,
            plan,
            severity,
            rto_ms,
            rpo_ms,
            program,
            target,
            expect,
        }) = record.events.first()
        else {
            return None;
        };
        let mut state = Self {
            id: id.clone(),
            kind: *kind,
            scenario: scenario.clone(),
            title: title.clone(),
            plan: plan.clone(),
            plan_offered: None,
            severity: severity.clone(),
            rto: rto_ms.map(Duration::from_millis),
            rpo: rpo_ms.map(Duration::from_millis),
            program: program.clone(),
            target: target.clone(),
            expect: expect.clone(),
            opened: instant(record),
            opened_by: record.actor.clone(),
            declared: None,
            impact: None,
            restored: None,
            closed: None,
            steps: Default::default(),
            runs: Default::default(),
            vars: Default::default(),
            notes: Vec::new(),
            waivers: Vec::new(),
            approvals: Vec::new(),
            messages: Vec::new(),
            evidence: Vec::new(),
            people: Default::default(),
            facts: Facts::default(),
            seq: Seq(0),
            head: record.prev.clone(),
            last_recorded: record.recorded_at,
            read_only: false,
            notices: Vec::new(),
        };
        state.apply(record);
        Some(state)
    }

    /// Applies one record.
    pub fn apply(&mut self, record: &Record) {
        if record.v > 1 {
            self.read_only = true;
        }
        if record.recorded_at < self.last_recorded {
            self.notices.push(format!("record {}: the clock went back to {}", record.seq, record.recorded_at));
        }
        for event in &record.events {
            self.apply_event(record, event);
        }
        self.seq = record.seq;
        self.head = record.hash.clone();
        self.last_recorded = record.recorded_at;
    }

    fn apply_event(&mut self, record: &Record, event: &Event) {
        let when = instant(record);
        match event {
            Event::IncidentOpened { .. } => {}
            Event::IncidentDeclared { severity } => {
                self.severity = Some(severity.clone());
                self.declared = Some(when);
            }
            Event::ImpactStarted { at, source, .. } => {
                self.impact = Some(Impact { at: *at, source: source.clone(), recorded: when });
            }
            Event::StepStarted { step } => {
                let s = self.steps.entry(step.clone()).or_default();
                s.status = StepStatus::Active;
                s.begun.get_or_insert(when.clone());
                s.started.get_or_insert(when);
                s.ended = None;
                s.actor = Some(record.actor.clone());
            }
            Event::StepDone { step } => {
                let s = self.steps.entry(step.clone()).or_default();
                s.status = StepStatus::Done;
                s.started.get_or_insert_with(|| when.clone());
                if s.begun.is_none() && s.again.is_none() {
                    s.begun = Some(when.clone());
                }
                s.ended = Some(when);
                s.actor = Some(record.actor.clone());
            }
            Event::StepSkipped { step, reason } => {
                let s = self.steps.entry(step.clone()).or_default();
                s.status = StepStatus::Skipped;
                s.ended = Some(when);
                s.reason = Some(reason.clone());
                s.actor = Some(record.actor.clone());
            }
            Event::StepReopened { step, reason } => {
                let s = self.steps.entry(step.clone()).or_default();
                s.open_again(when);
                s.reopened = Some(record.seq);
                s.reason = Some(reason.clone());
                s.actor = Some(record.actor.clone());
            }
            Event::ItemTicked { step, item, done } => {
                let s = self.steps.entry(step.clone()).or_default();
                if *done {
                    s.ticked.insert(*item, when);
                } else {
                    s.ticked.remove(item);
                }
            }
            Event::NoteAdded { text } => {
                self.notes.push(Note { seq: record.seq, when, actor: record.actor.clone(), text: text.clone() });
            }
            Event::VariableSet { name, value } => {
                self.vars.insert(name.clone(), value.clone());
            }
            Event::GateWaived { gate, reason, step } => {
                let (gate, reason, step) = (gate.clone(), reason.clone(), step.clone());
                self.waivers.push(Waiver { seq: record.seq, gate, reason, step, when });
            }
            Event::RunApproved { shown, requested_by } => {
                self.approvals.push((shown.clone(), requested_by.clone(), record.actor.clone()));
            }
            Event::ServiceRestored { at, how } => self.restored = Some(Restored { at: *at, how: how.clone() }),
            Event::MessageSent { audience, text, step, .. } => {
                if let Some(step) = step {
                    self.steps.entry(step.clone()).or_default().told = Some(when.clone());
                }
                // What was promised for this message is no promise of the next one.
                for name in NEXT_UPDATE {
                    self.vars.remove(name);
                }
                self.messages.push((audience.clone(), text.clone(), when));
            }
            Event::EvidenceAdded { file, sha256 } => self.evidence.push((file.clone(), sha256.clone())),
            Event::PlanOffered { plan } => self.plan_offered = Some(plan.clone()),
            Event::PlanAdopted { plan } => {
                self.plan = plan.clone();
                self.plan_offered = None;
            }
            Event::TornTailMoved { bytes, file } => {
                self.notices.push(format!("record {}: {bytes} torn bytes were moved to {file}", record.seq));
            }
            Event::IncidentClosed { summary } => self.closed = Some((when, summary.clone())),
            Event::Unknown => self.read_only = true,
            Event::TimerAcknowledged { .. }
            | Event::TimerSnoozed { .. }
            | Event::Escalated { .. }
            | Event::EscalationAnswered { .. }
            | Event::RoleAssigned { .. }
            | Event::CodenameSet { .. }
            | Event::CodenameLifted { .. }
            | Event::LocalOnlySet { .. }
            | Event::SecretRotated { .. }
            | Event::AfterwardsTicked { .. }
            | Event::TabletopBegan { .. }
            | Event::MessageInjected { .. } => self.people.apply(event, &record.actor, when),
            Event::RunRequested { .. }
            | Event::RunStarted { .. }
            | Event::RunFinished { .. }
            | Event::RunWithdrawn { .. }
            | Event::RunCancelRequested { .. }
            | Event::RunOutcomeUnknown { .. }
            | Event::RunResolved { .. } => self.apply_run(record, event, when),
            _ => self.apply_fact(record, event, when),
        }
    }

    fn apply_run(&mut self, record: &Record, event: &Event, when: Instant) {
        match event {
            Event::RunRequested { step, block_line, action, shown, args, risk, .. } => {
                let id = RunId(record.seq.0);
                self.runs.insert(
                    id,
                    Run {
                        id,
                        step: step.clone(),
                        block_line: *block_line,
                        action: action.clone(),
                        shown: shown.clone(),
                        args: args.clone(),
                        risk: *risk,
                        actor: record.actor.clone(),
                        requested: when,
                        started: None,
                        ended: None,
                        status: RunStatus::Requested,
                        worker: None,
                        cancel_requested: false,
                        exit_code: None,
                        summary: String::new(),
                        duration_ms: 0,
                        output: Default::default(),
                    },
                );
            }
            Event::RunStarted { run, pid, host, .. } => {
                if let Some(r) = self.runs.get_mut(run) {
                    r.status = RunStatus::Running;
                    r.started = Some(when);
                    r.worker = Some((*pid, host.clone()));
                }
            }
            Event::RunFinished { run, outcome, exit_code, summary, duration_ms, output } => {
                if let Some(r) = self.runs.get_mut(run) {
                    r.status = RunStatus::Finished(*outcome);
                    r.ended = Some(when);
                    r.exit_code = Some(*exit_code);
                    r.summary = summary.clone();
                    r.duration_ms = *duration_ms;
                    r.output = output.clone();
                }
            }
            Event::RunWithdrawn { run, reason } => {
                if let Some(r) = self.runs.get_mut(run) {
                    r.status = RunStatus::Withdrawn;
                    r.ended = Some(when);
                    r.summary = reason.clone();
                }
            }
            Event::RunCancelRequested { run } => {
                if let Some(r) = self.runs.get_mut(run) {
                    r.cancel_requested = true;
                }
            }
            Event::RunOutcomeUnknown { run } => {
                if let Some(r) = self.runs.get_mut(run) {
                    r.status = RunStatus::Unknown;
                }
            }
            Event::RunResolved { run, outcome, reason } => {
                if let Some(r) = self.runs.get_mut(run) {
                    r.status = RunStatus::Finished(*outcome);
                    r.ended = Some(when);
                    r.summary = reason.clone();
                }
            }
            _ => {}
        }
    }

    fn apply_fact(&mut self, record: &Record, event: &Event, when: Instant) {
        let facts = &mut self.facts;
        match event.clone() {
            Event::TargetSeen { role, identity } if role == "shadow" => facts.shadow_identity = Some((identity, when)),
            // Its cluster is the target's; it is not what is damaged.
            Event::TargetSeen { role, identity } if role == "standby" => facts.source = Some((identity, when)),
            Event::TargetSeen { identity, .. } => {
                // The promotion reports its new primary in the same record: that is not the damaged one.
                let promotes = record.events.iter().any(|e| matches!(e, Event::Promoted { .. }));
                if facts.promoted.is_none() && !promotes {
                    facts.damaged = Some(identity.clone());
                }
                facts.source = Some((identity, when));
            }
            Event::HealthSeen { healthy, components } => facts.health = Some((healthy, components, when)),
            Event::ExposureSampled { exposure_ms, at_most, lsn, last_commit, source } => {
                let exposure = Duration::from_millis(exposure_ms);
                facts.exposure = Some(Exposure { when, exposure, at_most, lsn, last_commit, source });
            }
            Event::BleedingStopped { done, archived_lsn } => {
                match writes::turned(&done) {
                    Some(Turned::Off) => facts.writes_off = Some(when.clone()),
                    Some(Turned::On) => facts.writes_off = None,
                    None => {}
                }
                facts.contained = Some((done, archived_lsn, when));
            }
            Event::DamageAssessed { findings, rows } => facts.damage = Some((findings, rows)),
            Event::RangeSeen { earliest, latest, holes } => facts.range = Some((earliest, latest, holes)),
            Event::MomentsFound { candidates } => facts.candidates = candidates,
            Event::MomentChosen { target, at, loses } => {
                self.vars.insert("TARGET".into(), target.to_string());
                facts.chosen = Some((target, at, loses));
                facts.chosen_in = Some(record.seq);
                // It was measured for the moment before: the next verification measures anew. What was put into service by that
                // moment has lost it all the same.
                let loss = facts.loss.take();
                if facts.promoted.is_some() && facts.shadow_promoted && !facts.going_back && loss.is_some() {
                    facts.given_up = loss;
                }
                if facts.promoted.is_some() {
                    // What is in service is wrong: service is not back, whatever was said of it.
                    facts.going_back = true;
                    facts.in_service = false;
                    self.restored = None;
                }
            }
            Event::ShadowBuilt {
                host,
                port,
                data_directory,
                target,
                backup,
                reached_lsn,
                reached_time,
                bytes,
                files_ms,
                replay_ms,
            } => {
                let run = record.events.iter().find_map(|e| match e {
                    Event::RunFinished { run, .. } => Some(*run),
                    _ => None,
                });
                // Gone further forward than what was in service: some of what that had lost is there again.
                if let Some(lost) = facts.given_up.as_mut()
                    && facts.going_back
                    && reached_time > facts.promoted_reached
                {
                    lost.at_most = true;
                }
                facts.verified = None;
                facts.shadow_identity = None;
                facts.shadow_promoted = false;
                facts.shadow = Some(Shadow {
                    run,
                    host,
                    port,
                    data_directory,
                    target,
                    backup,
                    reached_lsn,
                    reached_time,
                    bytes,
                    files_ms,
                    replay_ms,
                    when,
                });
            }
            Event::ShadowVerified { passed, checks } => facts.verified = Some((passed, checks)),
            Event::ServiceVerified { passed, checks } => {
                facts.in_service = passed;
                if passed {
                    facts.writes_off = None;
                }
                facts.verified = Some((passed, checks));
            }
            Event::Promoted { identity, kept } => {
                facts.promoted = Some((identity, kept, when));
                facts.shadow_promoted = true;
                facts.writes_off = None;
                facts.promoted_reached = facts.shadow.as_ref().and_then(|s| s.reached_time);
                facts.going_back = false;
            }
            Event::StandbySeen { identity, received, last_commit, behind_bytes, behind_ms, sampled_at, .. } => {
                let behind = behind_ms.map(Duration::from_millis);
                facts.source = Some((identity.clone(), when.clone()));
                facts.standby =
                    Some(Standby { identity, received, last_commit, behind_bytes, behind, sampled_at, when });
            }
            Event::OldPrimaryFenced { proof, .. } => facts.fenced = Some((proof, when)),
            Event::StandbyRebuilt { identity, how } => {
                facts.fenced = None;
                facts.rebuilt = Some((identity, how, when));
            }
            Event::IntrudersSuspected { roles, findings } => {
                facts.intruders = roles;
                if facts.isolated.is_none() {
                    facts.intruder_findings = findings;
                }
            }
            Event::EvidenceSealed { after_isolation, .. } => {
                // What was collected in time stays collected in time.
                let late = facts.evidence_after_isolation.unwrap_or(true) && after_isolation;
                facts.evidence_after_isolation = Some(late);
            }
            Event::IntrudersIsolated { .. } => {
                facts.isolated.get_or_insert(when);
            }
            Event::RotationEnded { left } => facts.unrotated = Some(left),
            Event::BackupTaken { id, bytes, timeline, verified, taken_at } => {
                facts.backups.push(Backup { id, bytes, timeline, verified, taken_at, when });
            }
            Event::LossMeasured { loss } => facts.loss = Some(loss.and(facts.given_up.as_ref())),
            Event::SalvageWritten { folder, rows, .. } => facts.salvage = Some((folder, rows)),
            Event::DrillPrepared { scratch, size, setup_ms, bytes } => {
                facts.drill = Some((scratch, size, bytes, setup_ms));
            }
            Event::DrillJudged { passed, checks, injected_at } => facts.judged = Some((passed, checks, injected_at)),
            _ => {}
        }
    }
}

/// When a record says it happened.
fn instant(record: &Record) -> Instant {
    Instant { at: record.occurred_at, recorded: record.recorded_at, up_ms: record.up_ms, boot: record.boot.clone() }
}
