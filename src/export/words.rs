//! What an event says, in words.

mod phrases;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::incident::State;
use crate::model::event::{NOT_KEPT, Outcome, OutputSeal};
use crate::model::{Event, Kind, Record, Risk, RunId, Scenario, StepId, Time};

use super::clean;
use super::timeline::{Tone, duration, outcome_word};
use phrases::{candidate_words, capital, identity_words};

pub(super) use phrases::{check_words, grouped, loss_words, size, stop_words, tally, verdict_word};

/// Names of steps and runs.
pub(super) struct Names<'a> {
    state: &'a State,
    steps: BTreeMap<&'a StepId, (usize, String)>,
}

impl<'a> Names<'a> {
    pub(super) fn new(state: &'a State, scenario: Option<&'a Scenario>) -> Self {
        let steps =
            scenario.map(|s| s.steps.iter().enumerate().map(|(i, s)| (&s.id, (i + 1, clean(&s.title)))).collect());
        Self { state, steps: steps.unwrap_or_default() }
    }
    fn step(&self, id: &StepId) -> Option<(usize, String)> {
        self.steps.get(id).cloned()
    }
    fn step_words(&self, id: &StepId) -> String {
        match self.step(id) {
            Some((n, title)) => format!("step {n} “{title}”"),
            None => format!("step {}", clean(id.as_str())),
        }
    }
    fn run(&self, id: RunId) -> String {
        match self.state.runs.get(&id) {
            Some(run) => format!("{} (run {id})", clean(&run.action)),
            None => format!("run {id}"),
        }
    }
    fn step_of_run(&self, id: RunId) -> Option<(usize, String)> {
        self.state.runs.get(&id).and_then(|r| r.step.as_ref()).and_then(|s| self.step(s))
    }
}

/// What an event says.
pub(super) struct Said {
    pub what: String,
    pub details: Vec<String>,
    pub step: Option<(usize, String)>,
    pub command: Option<String>,
    pub risk: Option<Risk>,
    pub exit: Option<i32>,
    pub took_ms: Option<u64>,
    pub output: Option<OutputSeal>,
    pub tone: Tone,
}

impl Said {
    fn new(tone: Tone, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            details: Vec::new(),
            step: None,
            command: None,
            risk: None,
            exit: None,
            took_ms: None,
            output: None,
            tone,
        }
    }
    fn details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }
    fn step(mut self, step: Option<(usize, String)>) -> Self {
        self.step = step;
        self
    }
}

/// The type of an event as it stands in the journal.
pub(super) fn type_of(event: &Event) -> String {
    match serde_json::to_value(event) {
        Ok(value) => value.get("type").and_then(serde_json::Value::as_str).unwrap_or("unknown").to_string(),
        Err(_) => "unknown".into(),
    }
}

/// Puts an event into words. Every text from outside is cleaned here.
pub(super) fn say(event: &Event, record: &Record, future: Option<&str>, names: &Names<'_>) -> Said {
    match event {
        Event::IncidentOpened { .. }
        | Event::IncidentDeclared { .. }
        | Event::ImpactStarted { .. }
        | Event::ServiceRestored { .. }
        | Event::IncidentClosed { .. }
        | Event::NoteAdded { .. }
        | Event::VariableSet { .. }
        | Event::GateWaived { .. }
        | Event::RunApproved { .. }
        | Event::MessageSent { .. }
        | Event::TimerAcknowledged { .. }
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
        | Event::MessageInjected { .. }
        | Event::EvidenceAdded { .. }
        | Event::PlanOffered { .. }
        | Event::PlanAdopted { .. }
        | Event::TornTailMoved { .. } => incident(event, record),
        Event::StepStarted { step }
        | Event::StepDone { step }
        | Event::StepSkipped { step, .. }
        | Event::StepReopened { step, .. }
        | Event::ItemTicked { step, .. } => step_event(event, step, names),
        Event::RunRequested { .. }
        | Event::RunStarted { .. }
        | Event::RunFinished { .. }
        | Event::RunWithdrawn { .. }
        | Event::RunCancelRequested { .. }
        | Event::RunOutcomeUnknown { .. }
        | Event::RunResolved { .. } => run(event, names),
        Event::Unknown => {
            let what = future.unwrap_or("an event of a newer version");
            Said::new(Tone::Warn, format!("Something this version of breakglass does not know: {}", clean(what)))
        }
        _ => fact(event),
    }
}

fn incident(event: &Event, record: &Record) -> Said {
    match event {
        Event::IncidentOpened { kind, title, target, program, severity, .. } => {
            let kind = match kind {
                Kind::Real => "Incident",
                Kind::Drill => "Drill",
            };
            let mut said = Said::new(Tone::Milestone, format!("{kind} opened: {}", clean(title)));
            said.details.extend(target.as_ref().map(|t| format!("target {}", clean(t))));
            said.details.extend(severity.as_ref().map(|s| format!("severity {}", clean(s))));
            said.details.push(format!("breakglass {}", clean(program)));
            said
        }
        Event::IncidentDeclared { severity } => {
            Said::new(Tone::Milestone, format!("Declared an incident of severity {}", clean(severity)))
        }
        Event::ImpactStarted { at, source, moved_from } => {
            let what = match moved_from {
                Some(before) if before.date_hms() != at.date_hms() => {
                    format!("Impact moved from {} to {} UTC", before.date_hms(), at.date_hms())
                }
                _ => format!("Impact started at {} UTC", at.date_hms()),
            };
            Said::new(Tone::Milestone, what).details([clean(source)])
        }
        Event::ServiceRestored { at, how } => {
            Said::new(Tone::Milestone, format!("Service restored at {} UTC", at.date_hms())).details([clean(how)])
        }
        Event::IncidentClosed { summary } => Said::new(Tone::Milestone, format!("Closed: {}", clean(summary))),
        Event::NoteAdded { text } => Said::new(Tone::Plain, format!("Note: {}", clean(text))),
        Event::VariableSet { name, value } => {
            Said::new(Tone::Plain, format!("{} set to {}", clean(name), clean(value)))
        }
        Event::GateWaived { gate, reason, step } => {
            let scope = step.as_ref().map(|s| format!(" for step {}", clean(s.as_str()))).unwrap_or_default();
            Said::new(Tone::Warn, format!("Safety gate “{}” waived{scope}: {}", clean(gate), clean(reason)))
        }
        Event::RunApproved { shown, requested_by } => {
            let mut said = Said::new(Tone::Good, format!("Approved what {} asked for", clean(requested_by.as_str())));
            said.command = Some(clean(shown));
            if requested_by == &record.actor {
                said.tone = Tone::Warn;
                said.details.push("approved by the same name that asked".into());
            }
            said
        }
        Event::MessageSent { .. }
        | Event::TimerAcknowledged { .. }
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
        | Event::MessageInjected { .. } => people(event),
        Event::EvidenceAdded { file, sha256 } => {
            Said::new(Tone::Plain, format!("Evidence attached: {}", clean(file))).details([format!("SHA-256 {sha256}")])
        }
        Event::PlanOffered { plan } => Said::new(Tone::Plain, "The plan on disk changed; the incident keeps its own")
            .details([format!("offered {plan}")]),
        Event::PlanAdopted { plan } => {
            Said::new(Tone::Milestone, "The new plan was adopted").details([format!("plan {plan}")])
        }
        Event::TornTailMoved { bytes, file } => {
            Said::new(Tone::Warn, format!("{bytes} torn bytes at the end of the journal were moved to {}", clean(file)))
        }
        _ => Said::new(Tone::Plain, type_of(event)),
    }
}

fn people(event: &Event) -> Said {
    let within = |ms: u64| super::timeline::duration(Duration::from_millis(ms));
    match event {
        Event::MessageSent { audience, text, how, .. } => {
            let how = match how.as_deref() {
                Some("copied") => ", copied to be sent by hand",
                Some("command") => ", handed to the configured command",
                Some("said") => ", told in another way",
                _ => "",
            };
            Said::new(Tone::Plain, format!("Message to {}{how}", clean(audience))).details([clean(text)])
        }
        Event::TimerAcknowledged { timer, note } => {
            let what = match timer.as_str() {
                "respond" => "Somebody is on it".to_string(),
                "escalate" => "Decided that nobody else has to be called".to_string(),
                other => format!("Acknowledged: {}", clean(other)),
            };
            let note = if note.is_empty() { String::new() } else { format!(": {}", clean(note)) };
            Said::new(Tone::Good, format!("{what}{note}"))
        }
        Event::TimerSnoozed { timer, for_ms, reason } => Said::new(
            Tone::Warn,
            format!("Deadline “{}” put off for {}: {}", clean(timer), within(*for_ms), clean(reason)),
        ),
        Event::Escalated { level, who, within_ms } => Said::new(
            Tone::Milestone,
            format!("Escalated to level {level}, {}; an answer is due within {}", clean(who), within(*within_ms)),
        ),
        Event::EscalationAnswered { level, by } => {
            Said::new(Tone::Good, format!("Level {level} answered: {}", clean(by)))
        }
        Event::RoleAssigned { role, person, from, note } => {
            let what = match from {
                Some(from) => format!("{} handed over from {} to {}", clean(role), clean(from), clean(person)),
                None => format!("{} is {}", clean(role), clean(person)),
            };
            let mut letters = what.chars();
            let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
            let mut said = Said::new(Tone::Plain, format!("{first}{}", letters.as_str()));
            if !note.is_empty() {
                said.details.push(clean(note));
            }
            said
        }
        Event::CodenameSet { codename } => {
            Said::new(Tone::Plain, format!("Spoken of as “{}” from here on", clean(codename)))
        }
        Event::CodenameLifted {} => Said::new(Tone::Plain, "The code name is lifted: spoken of by its title again"),
        Event::LocalOnlySet { on: true, reason } => Said::new(
            Tone::Warn,
            format!("Local only: no message command and no remote repository from here on: {}", clean(reason)),
        ),
        Event::LocalOnlySet { on: false, reason } => {
            Said::new(Tone::Warn, format!("No longer local only: {}", clean(reason)))
        }
        Event::SecretRotated { secret, at } => {
            Said::new(Tone::Good, format!("Secret changed: {} at {} UTC", clean(secret), at.date_hms()))
        }
        Event::TabletopBegan { document, messages, .. } => Said::new(
            Tone::Milestone,
            format!(
                "An exercise at a table with {}: {messages} messages will come in, nothing is executed",
                clean(document)
            ),
        ),
        Event::MessageInjected { number, text } => {
            Said::new(Tone::Warn, format!("Message {number} of the exercise: {}", clean(text)))
        }
        Event::AfterwardsTicked { item, done } => {
            let done = if *done { "Done afterwards" } else { "Not done after all" };
            Said::new(Tone::Plain, format!("{done}: {}", clean(item)))
        }
        _ => Said::new(Tone::Plain, type_of(event)),
    }
}

fn step_event(event: &Event, id: &StepId, names: &Names<'_>) -> Said {
    let step = names.step_words(id);
    let said = match event {
        Event::StepStarted { .. } => Said::new(Tone::Plain, format!("Began {step}")),
        Event::StepDone { .. } => Said::new(Tone::Good, format!("Finished {step}")),
        Event::StepSkipped { reason, .. } => Said::new(Tone::Warn, format!("Skipped {step}: {}", clean(reason))),
        Event::StepReopened { reason, .. } => Said::new(Tone::Warn, format!("Reopened {step}: {}", clean(reason))),
        Event::ItemTicked { item, done, .. } => {
            let done = if *done { "Ticked" } else { "Unticked" };
            Said::new(Tone::Plain, format!("{done} item {} of {step}", item + 1))
        }
        _ => Said::new(Tone::Plain, type_of(event)),
    };
    said.step(names.step(id))
}

fn run(event: &Event, names: &Names<'_>) -> Said {
    match event {
        Event::RunRequested { step, action, shown, risk, confirmed, .. } => {
            let mut said = Said::new(Tone::Plain, format!("Asked to run {}", clean(action)));
            said.command = Some(clean(shown));
            said.risk = Some(*risk);
            said.details.extend(confirmed.as_ref().map(|c| format!("confirmed by typing “{}”", clean(c))));
            said.step(step.as_ref().and_then(|s| names.step(s)))
        }
        Event::RunStarted { run, pid, host, program } => {
            let what = format!("{} started", names.run(*run));
            let details = format!("process {pid} on {}, breakglass {}", clean(host), clean(program));
            Said::new(Tone::Plain, capital(what)).details([details]).step(names.step_of_run(*run))
        }
        Event::RunFinished { run, outcome, exit_code, summary, duration_ms, output } => {
            let tone = match outcome {
                Outcome::Succeeded => Tone::Good,
                Outcome::Cancelled => Tone::Warn,
                Outcome::Failed | Outcome::Refused => Tone::Bad,
            };
            let mut said =
                Said::new(tone, capital(format!("{} {}: {}", names.run(*run), outcome_word(*outcome), clean(summary))));
            said.exit = Some(*exit_code);
            said.took_ms = Some(*duration_ms);
            said.output = Some(output.clone());
            if output.dropped_lines > 0 {
                said.details.push(format!("{} lines of output were counted and not kept", output.dropped_lines));
            }
            said.step(names.step_of_run(*run))
        }
        Event::RunWithdrawn { run, reason } => {
            let what = capital(format!("{} withdrawn before it started: {}", names.run(*run), clean(reason)));
            Said::new(Tone::Warn, what).step(names.step_of_run(*run))
        }
        Event::RunCancelRequested { run } => {
            Said::new(Tone::Warn, format!("Asked to stop {}", names.run(*run))).step(names.step_of_run(*run))
        }
        Event::RunOutcomeUnknown { run } => {
            let what = capital(format!("{} vanished: its outcome is unknown", names.run(*run)));
            Said::new(Tone::Bad, what).step(names.step_of_run(*run))
        }
        Event::RunResolved { run, outcome, reason } => {
            let what =
                format!("A person states that {} {}: {}", names.run(*run), outcome_word(*outcome), clean(reason));
            let tone = if *outcome == Outcome::Succeeded { Tone::Good } else { Tone::Warn };
            Said::new(tone, what).step(names.step_of_run(*run))
        }
        _ => Said::new(Tone::Plain, type_of(event)),
    }
}

fn fact(event: &Event) -> Said {
    match event {
        Event::TargetSeen { role, identity } => {
            Said::new(Tone::Plain, format!("Identity of the {} seen: {}", clean(role), identity_words(identity)))
        }
        Event::HealthSeen { healthy, components } => {
            let (tone, word) = if *healthy { (Tone::Good, "good") } else { (Tone::Bad, "not good") };
            Said::new(tone, format!("Health seen: {word}"))
                .details(components.iter().map(|(name, status)| format!("{}: {}", clean(name), clean(status))))
        }
        Event::ExposureSampled { exposure_ms, at_most, lsn, last_commit, source } => {
            let bound = if *at_most { "at most " } else { "" };
            let age = duration(Duration::from_millis(*exposure_ms));
            let mut said = Said::new(Tone::Plain, format!("Exposure {bound}{age} ({})", clean(source)));
            said.details.extend(lsn.as_ref().map(|l| format!("log position {}", clean(l))));
            said.details.extend(last_commit.map(|t| format!("last commit {t}")));
            said
        }
        Event::BleedingStopped { done, archived_lsn } => {
            let mut said = Said::new(Tone::Good, "The bleeding is stopped").details(done.iter().map(|d| clean(d)));
            said.details.extend(archived_lsn.as_ref().map(|l| format!("archived up to {}", clean(l))));
            said
        }
        Event::DamageAssessed { findings, rows } => {
            let damaged =
                if rows.is_empty() { String::new() } else { format!(": {} rows", grouped(rows.values().sum())) };
            Said::new(Tone::Plain, format!("Damage assessed{damaged}"))
                .details(rows.iter().map(|(table, n)| format!("{}: {} rows", clean(table), grouped(*n))))
                .details(findings.iter().map(|f| clean(f)))
        }
        Event::RangeSeen { earliest, latest, holes } => {
            let t = |t: &Option<Time>| t.map_or_else(|| "unknown".to_string(), |t| format!("{} UTC", t.date_hms()));
            let mut said = Said::new(Tone::Plain, format!("Recoverable from {} to {}", t(earliest), t(latest)));
            if !holes.is_empty() {
                said.tone = Tone::Warn;
                said.details = holes.iter().map(|h| format!("missing: {}", clean(h))).collect();
            }
            said
        }
        Event::MomentsFound { candidates } => {
            let what = match candidates.len() {
                0 => "No suspect moment found".to_string(),
                1 => "One suspect moment found".into(),
                n => format!("{n} suspect moments found"),
            };
            Said::new(Tone::Plain, what).details(candidates.iter().map(candidate_words))
        }
        Event::MomentChosen { target, at, loses } => {
            let at = at.map(|t| format!(", {} UTC", t.date_hms())).unwrap_or_default();
            let mut said = Said::new(Tone::Milestone, format!("Moment chosen: {}{at}", stop_words(target)));
            said.details.extend(
                loses.as_ref().map(|l| format!("expected loss, should the whole database go back: {}", loss_words(l))),
            );
            said
        }
        Event::LossMeasured { loss } => Said::new(Tone::Plain, format!("Loss measured: {}", loss_words(loss)))
            .details(loss.rows.iter().map(|(table, n)| format!("{}: {} rows", clean(table), grouped(*n)))),
        Event::SalvageWritten { folder, rows, files } => {
            let what = format!("Salvage written to {}: {} rows", clean(folder), grouped(rows.values().sum()));
            Said::new(Tone::Good, what)
                .details(rows.iter().map(|(table, n)| format!("{}: {} rows", clean(table), grouped(*n))))
                .details(files.iter().map(|(file, digest)| format!("{} SHA-256 {digest}", clean(file))))
        }
        _ => recovery(event),
    }
}

fn recovery(event: &Event) -> Said {
    match event {
        Event::ShadowBuilt {
            host,
            port,
            target,
            backup,
            reached_lsn,
            reached_time,
            bytes,
            files_ms,
            replay_ms,
            ..
        } => {
            let what = format!("Shadow recovered to {}, at {}:{port}", stop_words(target), clean(host));
            let reached = reached_time.map(|t| format!(", last commit {t}")).unwrap_or_default();
            Said::new(Tone::Good, what).details([
                format!("from backup {}, {}", clean(backup), size(*bytes)),
                format!("reached {}{reached}", clean(reached_lsn)),
                format!(
                    "files in {}, log in {}",
                    duration(Duration::from_millis(*files_ms)),
                    duration(Duration::from_millis(*replay_ms))
                ),
            ])
        }
        Event::ShadowVerified { passed, checks } => {
            let (tone, word) = if *passed { (Tone::Good, "passed") } else { (Tone::Bad, "failed") };
            Said::new(tone, format!("Verification {word}: {}", tally(checks))).details(checks.iter().map(check_words))
        }
        Event::ServiceVerified { passed, checks } => {
            let (tone, word) = if *passed { (Tone::Good, "passed") } else { (Tone::Bad, "failed") };
            Said::new(tone, format!("Verification of the service {word}: {}", tally(checks)))
                .details(checks.iter().map(check_words))
        }
        Event::Promoted { identity, kept } => {
            Said::new(Tone::Milestone, format!("Promoted: the service runs on {}", identity_words(identity))).details([
                match kept.starts_with(NOT_KEPT) {
                    true => format!("the damaged cluster: {}", clean(kept)),
                    false => format!("the damaged cluster is kept at {}", clean(kept)),
                },
            ])
        }
        Event::StandbySeen { identity, received, last_commit, behind_bytes, behind_ms, sampled_at, .. } => {
            let behind = match (behind_bytes, behind_ms) {
                (Some(0), _) => "it has everything of the last sample of the primary".to_string(),
                (Some(b), Some(ms)) => {
                    format!("{} of log behind, {}", size(*b), duration(Duration::from_millis(*ms)))
                }
                (Some(b), None) => format!("{} of log behind", size(*b)),
                (None, _) => "how far it is behind is not known".into(),
            };
            let tone = if *behind_bytes == Some(0) { Tone::Plain } else { Tone::Warn };
            Said::new(tone, format!("Standby seen: {behind}"))
                .details([identity_words(identity), format!("received up to {}", clean(received))])
                .details(last_commit.map(|t| format!("last commit {} UTC", t.date_hms())))
                .details(sampled_at.map(|t| format!("last sample of the primary {} UTC", t.date_hms())))
        }
        Event::OldPrimaryFenced { done, proof } => Said::new(Tone::Milestone, "The old primary was fenced")
            .details(done.iter().map(|d| clean(d)))
            .details(proof.iter().map(|p| format!("proof: {}", clean(p)))),
        Event::IntrudersSuspected { roles, findings } => {
            let names: Vec<String> = roles.iter().map(|r| clean(r)).collect();
            Said::new(Tone::Warn, format!("Suspected roles: {}", names.join(", ")))
                .details(findings.iter().map(|f| clean(f)))
        }
        Event::EvidenceSealed { folder, files, seal, after_isolation } => {
            let said = match after_isolation {
                false => Said::new(Tone::Milestone, format!("Evidence sealed before isolation: {files} files")),
                true => Said::new(
                    Tone::Warn,
                    format!("Evidence sealed only AFTER isolation: {files} files, the sessions are not in them"),
                ),
            };
            said.details([format!("in {}", clean(folder)), format!("seal SHA-256 {seal}")])
        }
        Event::IntrudersIsolated { roles, sessions } => {
            let names: Vec<String> = roles.iter().map(|r| clean(r)).collect();
            Said::new(Tone::Milestone, format!("Locked out: {}; {sessions} sessions ended", names.join(", ")))
        }
        Event::RotationEnded { left } => match left.is_empty() {
            true => Said::new(Tone::Good, "Every secret of the plan's table was changed"),
            false => {
                Said::new(Tone::Warn, "Secrets are still to be changed by hand").details(left.iter().map(|s| clean(s)))
            }
        },
        Event::StandbyRebuilt { identity, how } => {
            Said::new(Tone::Good, format!("The other server follows as a standby ({})", clean(how)))
                .details([identity_words(identity)])
        }
        Event::BackupTaken { id, bytes, timeline, verified, taken_at } => {
            let (tone, word) = if *verified { (Tone::Good, "verified") } else { (Tone::Warn, "not verified") };
            let taken = match taken_at {
                Some(at) => format!("found in the repository, finished {} UTC", at.date_hms()),
                None => "taken".into(),
            };
            let text = format!("Base backup {} {taken}, timeline {timeline}, {}, {word}", clean(id), size(*bytes));
            Said::new(tone, text)
        }
        Event::DrillPrepared { scratch, size: scale, setup_ms, bytes } => {
            let what = format!("Sandbox prepared: size {scale}, {}", size(*bytes));
            let details = format!("in {}, set up in {}", clean(scratch), duration(Duration::from_millis(*setup_ms)));
            Said::new(Tone::Plain, what).details([details])
        }
        Event::DrillJudged { passed, checks, injected_at } => {
            let (tone, word) = if *passed { (Tone::Good, "passed") } else { (Tone::Bad, "failed") };
            let mut said = Said::new(tone, format!("The umpire judged: {word} ({})", tally(checks)));
            said.details.extend(injected_at.map(|t| format!("the damage really began at {t}")));
            said.details(checks.iter().map(check_words))
        }
        _ => Said::new(Tone::Plain, type_of(event)),
    }
}
