//! The fold, decide, clocks and forecast: pure, in tables.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use breakglass::action::{Ctx, Nowhere, target};
use breakglass::config::{Secrets, Settings};
use breakglass::incident::forecast::{Course, restoring_steps, step_estimate};
use breakglass::incident::{
    Command, Context, Now, Policy, Refusal, RunRequest, RunStatus, State, StepStatus, StepTimes, decide, forecast,
    moment,
};
use breakglass::model::event::{Check, Event, Kind, Outcome, OutputSeal, Verdict};
use breakglass::model::plan::{Item, Phase, Risk, Scenario, Step};
use breakglass::model::target::{Candidate, Identity, Loss, RecoveryTarget};
use breakglass::model::{Actor, Digest, IncidentId, Record, RunId, Seq, StepId, Time};

use crate::support::records::next;

const T0: i64 = 1_795_183_200_000_000;

fn step(id: &str, phase: Phase, estimate_s: u64) -> Step {
    Step {
        id: StepId::new(id),
        title: format!("Do {id}"),
        line: 1,
        phase: Some(phase),
        text: String::new(),
        items: vec![Item { title: "look".into(), line: 2, ..Default::default() }],
        blocks: vec![],
        estimate_s: Some(estimate_s),
        condition: None,
        expected: None,
        links: vec![],
        source: Default::default(),
    }
}

fn scenario() -> Scenario {
    Scenario {
        slug: "database-corruption".into(),
        title: "Database corruption".into(),
        rto_s: Some(600),
        rpo_s: Some(60),
        steps: vec![
            step("s1", Phase::Detect, 60),
            step("s2", Phase::Recover, 120),
            step("s3", Phase::Promote, 60),
            step("s4", Phase::Communicate, 600),
        ],
        ..Default::default()
    }
}

/// An incident driven through `decide` alone, with a clock that only the test moves.
struct Desk {
    scenario: Scenario,
    records: Vec<Record>,
    now: Now,
    policy: Policy,
    actor: Actor,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self {
            scenario: scenario(),
            records: vec![],
            now: Now { time: Time::from_micros(T0), up_ms: 1_000_000, boot: "b1".into() },
            policy: Policy::default(),
            actor: Actor::new("amy@bastion"),
        };
        desk.ok(Command::Open {
            id: IncidentId::new("20261120T1400Z-database-corruption-7f3a"),
            kind: Kind::Drill,
            plan: Digest::new("d".repeat(64)),
            rto_ms: None,
            rpo_ms: None,
            program: "0.1.0".into(),
            target: Some("shop @ sandbox".into()),
            expect: BTreeMap::from([("database".to_string(), "shop".to_string())]),
        });
        desk
    }
    fn state(&self) -> State {
        State::fold(&self.records).unwrap()
    }
    fn try_at(&mut self, command: Command, at: Option<Time>) -> Result<usize, Refusal> {
        let state = State::fold(&self.records);
        let ctx = Context { scenario: &self.scenario, now: &self.now, actor: &self.actor, policy: &self.policy };
        let events = decide(state.as_ref(), &command, ctx)?;
        let n = events.len();
        if n > 0 {
            let record = next(&self.records, &self.now, &self.actor, command.name(), events);
            self.records.push(Record { occurred_at: at.unwrap_or(self.now.time), ..record });
        }
        Ok(n)
    }
    fn ok(&mut self, command: Command) -> usize {
        let name = command.name();
        self.try_at(command, None).unwrap_or_else(|r| panic!("{name} was refused: {r}"))
    }
    fn refused(&mut self, command: Command) -> Refusal {
        let name = command.name();
        match self.try_at(command, None) {
            Err(r) => r,
            Ok(n) => panic!("{name} was allowed with {n} events"),
        }
    }
    fn pass(&mut self, seconds: u64) {
        self.now.time = self.now.time.plus(Duration::from_secs(seconds));
        self.now.up_ms += seconds * 1000;
    }
    fn request(&mut self, step: &str, action: &str, risk: Risk, confirmed: Option<&str>) -> Command {
        Command::RequestRun(RunRequest {
            step: Some(StepId::new(step)),
            block_line: None,
            action: action.into(),
            shown: format!("breakglass {action}"),
            args: vec![],
            risk,
            confirmed: confirmed.map(Into::into),
        })
    }
    fn run(&mut self, step: &str, action: &str, risk: Risk, outcome: Outcome, facts: Vec<Event>) -> RunId {
        let command = self.request(step, action, risk, Some("shop"));
        self.ok(command);
        let run = RunId(self.records.len() as u64);
        self.ok(Command::StartRun { run, pid: 7, host: "h".into(), program: "0.1.0".into() });
        self.pass(5);
        self.ok(finish(run, outcome, facts));
        run
    }
}

fn finish(run: RunId, outcome: Outcome, facts: Vec<Event>) -> Command {
    Command::FinishRun {
        run,
        outcome,
        exit_code: i32::from(outcome != Outcome::Succeeded),
        summary: "done".into(),
        duration_ms: 5000,
        output: OutputSeal::default(),
        facts,
    }
}

fn identity(database: &str) -> Identity {
    Identity {
        system_identifier: "7400000000000000001".into(),
        database: database.into(),
        host: "/tmp/s".into(),
        port: 5432,
        version_num: 150_020,
        in_recovery: false,
        timeline: 1,
        data_directory: None,
        other_databases: vec![],
    }
}

fn seen(database: &str) -> Event {
    Event::TargetSeen { role: "source".into(), identity: identity(database) }
}

fn shadow() -> Event {
    Event::ShadowBuilt {
        host: "/tmp/x".into(),
        port: 5432,
        data_directory: "/tmp/x/data".into(),
        target: RecoveryTarget::Xid("731".into()),
        backup: "b1".into(),
        reached_lsn: "0/5000000".into(),
        reached_time: None,
        bytes: 1,
        files_ms: 1,
        replay_ms: 1,
    }
}

fn contained() -> Event {
    Event::BleedingStopped { done: vec!["writes off".into()], archived_lsn: None }
}

fn verified(passed: bool) -> Event {
    let verdict = if passed { Verdict::Passed } else { Verdict::Failed };
    Event::ShadowVerified { passed, checks: vec![Check { name: "rows".into(), verdict, detail: String::new() }] }
}

#[test]
fn steps_go_through_their_statuses_and_back() {
    let mut d = Desk::new();
    let s1 = || StepId::new("s1");
    assert_eq!(d.ok(Command::StartStep { step: s1() }), 1);
    assert_eq!(d.ok(Command::StartStep { step: s1() }), 0, "starting twice records nothing");
    d.pass(41);
    d.ok(Command::Tick { step: s1(), item: 0, done: true });
    assert!(d.refused(Command::Tick { step: s1(), item: 1, done: true }).why.contains("1 items"));
    d.ok(Command::FinishStep { step: s1() });
    assert_eq!(d.state().step(&s1()).took(), Some(Duration::from_secs(41)));
    assert!(d.refused(Command::StartStep { step: s1() }).why.contains("already done"));
    assert!(d.refused(Command::SkipStep { step: s1(), reason: "no".into() }).why.contains("already done"));
    assert!(d.refused(Command::ReopenStep { step: s1(), reason: "  ".into() }).why.contains("empty"));
    d.ok(Command::ReopenStep { step: s1(), reason: "looked at the wrong host".into() });
    assert_eq!(d.state().step(&s1()).status, StepStatus::Open);
    // Its clock stands until somebody begins again.
    d.pass(1_000);
    assert_eq!(d.ok(Command::StartStep { step: s1() }), 1);
    d.pass(9);
    d.ok(Command::FinishStep { step: s1() });
    assert_eq!(d.state().step(&s1()).took(), Some(Duration::from_secs(50)));
    assert!(d.refused(Command::SkipStep { step: StepId::new("s2"), reason: String::new() }).why.contains("empty"));
    d.ok(Command::SkipStep { step: StepId::new("s2"), reason: "columns repaired instead".into() });
    assert_eq!(d.state().step(&StepId::new("s2")).status, StepStatus::Skipped);
    assert!(d.refused(Command::StartStep { step: StepId::new("s9") }).hint.contains("s1, s2, s3, s4"));
}

#[test]
fn a_run_is_never_run_twice_and_a_lost_one_blocks_the_next() {
    let mut d = Desk::new();
    let change = d.request("s2", "contain", Risk::Change, None);
    d.ok(change.clone());
    let run = RunId(d.records.len() as u64);
    assert!(d.refused(change.clone()).why.contains("still going on"), "two changing actions at once");
    let read = d.request("s1", "health", Risk::Read, None);
    d.ok(read);
    let start = |pid| Command::StartRun { run, pid, host: "h".into(), program: "0.1.0".into() };
    assert!(d.refused(finish(run, Outcome::Succeeded, vec![])).why.contains("not started"));
    d.ok(start(1));
    assert!(d.refused(start(2)).hint.contains("never run twice"));
    assert!(d.refused(Command::WithdrawRun { run, reason: "x".into() }).why.contains("has started"));
    d.ok(Command::CancelRun { run });
    assert_eq!(d.ok(Command::CancelRun { run }), 0);
    d.ok(Command::LoseRun { run });
    assert_eq!(d.state().runs[&run].status, RunStatus::Unknown);
    assert!(d.refused(change.clone()).why.contains("unknown"), "nothing changing while an outcome is unknown");
    assert!(d.refused(Command::Close { summary: "x".into(), force: true }).why.contains("still open"));
    let resolve = |reason: &str| Command::ResolveRun { run, outcome: Outcome::Failed, reason: reason.into() };
    assert!(d.refused(resolve("")).why.contains("empty"));
    d.ok(resolve("read-only is not set, looked at it"));
    assert_eq!(d.state().runs[&run].status, RunStatus::Finished(Outcome::Failed));
    assert!(d.refused(Command::FinishStep { step: StepId::new("s2") }).why.contains("did not succeed"));
    d.ok(change);
}

#[test]
fn bad_news_ends_a_looking_step_but_not_a_changing_one() {
    let mut d = Desk::new();
    d.run("s1", "health", Risk::Read, Outcome::Failed, vec![]);
    d.ok(Command::FinishStep { step: StepId::new("s1") });
    d.run("s2", "contain", Risk::Change, Outcome::Failed, vec![]);
    assert!(d.refused(Command::FinishStep { step: StepId::new("s2") }).why.contains("did not succeed"));
    d.run("s2", "contain", Risk::Change, Outcome::Succeeded, vec![]);
    d.ok(Command::FinishStep { step: StepId::new("s2") });
    d.scenario.steps[3].phase = Some(Phase::Close);
    d.run("s4", "health", Risk::Read, Outcome::Failed, vec![]);
    assert!(d.refused(Command::FinishStep { step: StepId::new("s4") }).why.contains("did not succeed"));
}

#[test]
fn a_worker_taken_for_lost_may_still_report() {
    let mut d = Desk::new();
    let change = d.request("s2", "contain", Risk::Change, None);
    d.ok(change);
    let run = RunId(d.records.len() as u64);
    d.ok(Command::StartRun { run, pid: 1, host: "h".into(), program: "0.1.0".into() });
    d.ok(Command::LoseRun { run });
    d.ok(finish(run, Outcome::Succeeded, vec![contained()]));
    assert!(d.state().runs[&run].succeeded());
    assert!(d.state().facts.contained.is_some());
    assert!(d.refused(finish(run, Outcome::Succeeded, vec![])).why.contains("already ended"));
}

#[test]
fn a_withdrawn_run_never_starts() {
    let mut d = Desk::new();
    let change = d.request("s2", "contain", Risk::Change, None);
    d.ok(change);
    let run = RunId(d.records.len() as u64);
    d.ok(Command::WithdrawRun { run, reason: "no worker came up".into() });
    let late = Command::StartRun { run, pid: 1, host: "h".into(), program: "0.1.0".into() };
    assert!(d.refused(late).why.contains("withdrawn"));
}

#[test]
fn promotion_needs_every_gate_in_order_and_every_gate_names_its_override() {
    let mut d = Desk::new();
    let promote = |d: &mut Desk, name: Option<&str>| d.request("s3", "pitr promote", Risk::Destroy, name);
    let mut refusals = Vec::new();
    let mut attempt = |d: &mut Desk, name: Option<&str>| {
        let c = promote(d, name);
        let r = d.refused(c);
        refusals.push(r.gate);
        r
    };
    assert!(attempt(&mut d, Some("shop")).why.contains("no recovered instance"));
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow()]);
    assert_eq!(attempt(&mut d, Some("shop")).gate, Some("containment"));
    d.run("s2", "contain", Risk::Change, Outcome::Succeeded, vec![contained()]);
    assert_eq!(attempt(&mut d, Some("shop")).gate, Some("verification"));
    d.run("s2", "pitr verify", Risk::Read, Outcome::Failed, vec![verified(false)]);
    assert!(attempt(&mut d, Some("shop")).why.contains("rows"));
    d.run("s2", "pitr verify", Risk::Read, Outcome::Succeeded, vec![verified(true)]);
    assert_eq!(attempt(&mut d, Some("shop")).gate, Some("identity"), "identity was never seen");
    d.ok(Command::Observe { facts: vec![seen("other")] });
    assert!(attempt(&mut d, Some("shop")).why.contains("\"other\""), "the wrong database");
    d.ok(Command::Observe { facts: vec![seen("shop")] });
    d.pass(16 * 60);
    assert!(attempt(&mut d, Some("shop")).why.contains("last seen"), "the preview is stale");
    d.ok(Command::Observe { facts: vec![seen("shop")] });
    assert!(attempt(&mut d, None).why.contains("not typed"));
    assert!(attempt(&mut d, Some("shopp")).why.contains("\"shopp\" was typed"));
    d.policy.second_person = true;
    assert_eq!(attempt(&mut d, Some("shop")).gate, Some("second_person"));
    let amy = d.actor.clone();
    let approve = Command::Approve { shown: "breakglass pitr promote".into(), requested_by: amy.clone() };
    assert!(d.refused(approve.clone()).why.contains("another person"));
    d.actor = Actor::new("ben@bastion");
    d.ok(approve);
    d.actor = amy;
    let c = promote(&mut d, Some("shop"));
    d.ok(c);
}

#[test]
fn waiving_needs_a_reason_and_opens_the_gate() {
    let mut d = Desk::new();
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow(), contained(), seen("shop")]);
    let c = d.request("s3", "pitr promote", Risk::Destroy, Some("shop"));
    assert_eq!(d.refused(c.clone()).gate, Some("verification"));
    assert!(
        d.refused(Command::Waive { gate: "verification".into(), reason: " ".into(), step: None }).why.contains("empty")
    );
    d.ok(Command::Waive {
        gate: "verification".into(),
        reason: "amcheck is not installed; rows were compared by hand".into(),
        step: None,
    });
    d.ok(c);
}

#[test]
fn another_shadow_must_be_verified_again() {
    let mut d = Desk::new();
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow(), contained(), seen("shop")]);
    d.run("s2", "pitr verify", Risk::Read, Outcome::Succeeded, vec![verified(true)]);
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow()]);
    let c = d.request("s3", "pitr promote", Risk::Destroy, Some("shop"));
    assert_eq!(d.refused(c).gate, Some("verification"));
}

#[test]
fn destroying_without_a_shadow_needs_a_verified_backup() {
    let mut d = Desk::new();
    d.ok(Command::Observe { facts: vec![seen("shop")] });
    let drop = d.request("s2", "shell", Risk::Destroy, Some("shop"));
    assert_eq!(d.refused(drop.clone()).gate, Some("verified_backup"));
    let taken = |verified| Event::BackupTaken { id: "b".into(), bytes: 1, timeline: 1, verified, taken_at: None };
    d.ok(Command::Observe { facts: vec![taken(false)] });
    assert_eq!(d.refused(drop.clone()).gate, Some("verified_backup"), "an unverified backup does not count");
    d.ok(Command::Observe { facts: vec![taken(true)] });
    d.ok(drop);
}

#[test]
fn facts_are_facts_and_nothing_else_can_be_observed() {
    let mut d = Desk::new();
    let sneaky = Event::ServiceRestored { at: d.now.time, how: "trust me".into() };
    assert!(d.refused(Command::Observe { facts: vec![sneaky] }).why.contains("not an observation"));
    let verified_elsewhere = verified(true);
    assert!(d.refused(Command::Observe { facts: vec![verified_elsewhere] }).why.contains("not an observation"));
}

#[test]
fn the_future_is_refused_and_the_past_is_kept() {
    let mut d = Desk::new();
    let later = d.now.time.plus(Duration::from_secs(60));
    let earlier = d.now.time.minus(Duration::from_secs(333));
    assert!(d.refused(Command::SetImpact { at: later, source: "x".into() }).why.contains("future"));
    assert!(d.refused(Command::RestoreService { at: later, how: "x".into() }).why.contains("future"));
    let choose = |at| Command::ChooseMoment { target: RecoveryTarget::Time(at), at: Some(at), loses: None };
    assert!(d.refused(choose(later)).why.contains("future"));
    d.ok(choose(earlier));
    assert_eq!(d.state().vars["TARGET"], format!("time:{earlier}"));
    d.try_at(Command::Note { text: "customers called".into() }, Some(earlier)).unwrap();
    assert_eq!(d.state().notes[0].when.at, earlier);
    assert_eq!(d.state().notes[0].when.recorded, d.now.time);
}

#[test]
fn the_rto_clock_runs_from_impact_survives_a_clock_step_and_stops() {
    let mut d = Desk::new();
    d.pass(10);
    assert_eq!(d.state().rto_clock(&d.now).elapsed, Duration::from_secs(10), "from opening until the impact is stated");
    let at = d.now.time.minus(Duration::from_secs(120));
    d.ok(Command::SetImpact { at, source: "first alert".into() });
    d.pass(60);
    assert_eq!(d.state().rto_clock(&d.now).elapsed, Duration::from_secs(180));
    // Somebody sets the wall clock back an hour: time within the boot goes on.
    let mut stepped = d.now.clone();
    stepped.time = stepped.time.minus(Duration::from_secs(3600));
    assert_eq!(d.state().rto_clock(&stepped).elapsed, Duration::from_secs(180));
    // Another machine or a reboot has only the wall clock.
    let other = Now { boot: "b2".into(), up_ms: 5, ..d.now.clone() };
    assert_eq!(d.state().rto_clock(&other).elapsed, Duration::from_secs(180));
    d.ok(Command::RestoreService { at: d.now.time, how: "verified".into() });
    d.pass(1000);
    let clock = d.state().rto_clock(&d.now);
    assert_eq!((clock.elapsed, clock.stopped, clock.missed()), (Duration::from_secs(180), true, false));
}

#[test]
fn a_closed_incident_takes_only_notes_and_evidence() {
    let mut d = Desk::new();
    assert_eq!(d.refused(Command::Close { summary: "over".into(), force: false }).gate, Some("not_restored"));
    d.ok(Command::RestoreService { at: d.now.time, how: "a person says so".into() });
    d.ok(Command::Close { summary: "over".into(), force: false });
    d.ok(Command::Note { text: "one more thing".into() });
    for command in [
        Command::StartStep { step: StepId::new("s1") },
        Command::Declare { severity: "P1".into() },
        Command::Close { summary: "again".into(), force: true },
    ] {
        assert!(d.refused(command).why.contains("is closed"));
    }
    let run = d.request("s1", "health", Risk::Read, None);
    assert!(d.refused(run).why.contains("is closed"));
    // A second judge came too late: the sandbox is being cleared away.
    let judged = Event::DrillJudged { passed: false, checks: vec![], injected_at: None };
    assert!(d.refused(Command::Observe { facts: vec![judged] }).why.contains("is closed"));
}

#[test]
fn an_event_of_the_future_makes_it_read_only() {
    let mut d = Desk::new();
    let mut record = d.records[0].clone();
    record.seq = Seq(2);
    record.events = vec![serde_json::from_str(r#"{"type":"moon_phase_seen","phase":"full"}"#).unwrap()];
    assert_eq!(record.events, [Event::Unknown]);
    d.records.push(record);
    assert!(d.state().read_only);
    assert!(d.refused(Command::Note { text: "x".into() }).why.contains("newer version"));
}

#[test]
fn a_plan_is_offered_once_and_adopted_by_a_person() {
    let mut d = Desk::new();
    let new = Digest::new("e".repeat(64));
    assert_eq!(d.ok(Command::OfferPlan { plan: new.clone() }), 1);
    assert_eq!(d.ok(Command::OfferPlan { plan: new.clone() }), 0);
    assert_eq!(d.state().plan, Digest::new("d".repeat(64)), "the incident keeps its own");
    d.ok(Command::AdoptPlan { plan: new.clone() });
    assert_eq!((d.state().plan, d.state().plan_offered), (new, None));
}

#[test]
fn fold_in_two_parts_is_fold_in_one() {
    let mut d = Desk::new();
    d.ok(Command::Declare { severity: "P0".into() });
    d.run("s1", "health", Risk::Read, Outcome::Failed, vec![seen("shop")]);
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow(), contained()]);
    d.ok(Command::Note { text: "n".into() });
    for cut in 1..d.records.len() {
        let mut state = State::fold(&d.records[..cut]).unwrap();
        d.records[cut..].iter().for_each(|r| state.apply(r));
        assert_eq!(state, d.state(), "cut at {cut}");
    }
    assert_eq!(State::fold(&[]), None);
    assert_eq!(State::fold(&d.records[1..]), None, "a journal begins with its opening");
}

#[test]
fn the_forecast_sums_what_is_left_up_to_promotion() {
    let s = scenario();
    let ids: Vec<_> = restoring_steps(&s).map(|s| s.id.as_str().to_string()).collect();
    assert_eq!(ids, ["s1", "s2", "s3"]);
    let mut d = Desk::new();
    let course = |d: &Desk, history: &StepTimes| {
        let f = forecast(&d.state(), &d.scenario, history, None, &d.now);
        (f.course, f.p50.unwrap().since(d.now.time).as_secs(), f.p90.unwrap().since(d.now.time).as_secs())
    };
    // 60 + 120 + 60 by the author; P90 adds half of each, in quadrature.
    assert_eq!(course(&d, &StepTimes::new()), (Course::OnCourse, 240, 313));
    let slow = StepTimes::from([(StepId::new("s2"), vec![Duration::from_secs(700); 5])]);
    assert_eq!(course(&d, &slow).0, Course::WillMiss);
    let spread: Vec<_> = [100, 120, 110, 130, 600].map(Duration::from_secs).to_vec();
    let risky = StepTimes::from([(StepId::new("s2"), spread)]);
    assert_eq!(course(&d, &risky), (Course::AtRisk, 240, 721));
    d.ok(Command::StartStep { step: StepId::new("s1") });
    d.ok(Command::FinishStep { step: StepId::new("s1") });
    assert_eq!(course(&d, &StepTimes::new()).1, 180);
    d.pass(601);
    assert_eq!(course(&d, &StepTimes::new()).0, Course::Missed);
    d.ok(Command::RestoreService { at: d.now.time.minus(Duration::from_secs(100)), how: "late entry".into() });
    assert_eq!(forecast(&d.state(), &d.scenario, &StepTimes::new(), None, &d.now).course, Course::Met);
}

/// A drill has an objective of minutes where its plan has hours: the author's estimates alone never say that it will be missed.
#[test]
fn a_drill_will_miss_its_objective_only_when_measured_times_say_so() {
    let plans = ["application-failure", "data-deletion", "database-corruption", "regional-outage", "security-breach"];
    let mut rows = 0;
    for name in plans {
        let text = std::fs::read(format!("{}/runbooks/{name}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let shipped = breakglass::plan::parse(&format!("{name}.md"), &text).unwrap().scenarios.remove(0);
        for rto in [120, 300, 900] {
            let mut d = Desk::new();
            d.scenario = shipped.clone();
            let Event::IncidentOpened { rto_ms, .. } = &mut d.records[0].events[0] else { panic!() };
            *rto_ms = Some(rto * 1000);
            let course =
                |d: &Desk, history: &StepTimes| forecast(&d.state(), &d.scenario, history, None, &d.now).course;
            let nothing = StepTimes::new();
            for seconds in [1, rto / 2, rto / 2 - 2] {
                d.pass(seconds);
                let now = course(&d, &nothing);
                let open = matches!(now, Course::OnCourse | Course::AtRisk | Course::LikelyLate);
                assert!(open, "{name}, {rto} s: {now:?}");
                rows += 1;
            }
            let first = restoring_steps(&d.scenario).next().unwrap().id.clone();
            let slow = StepTimes::from([(first.clone(), vec![Duration::from_secs(rto)])]);
            assert_eq!(course(&d, &slow), Course::WillMiss, "{name}, {rto} s: it was measured");
            // What a running action says of itself counts like a measurement.
            let eta = Some((&first, Duration::from_secs(rto)));
            assert_eq!(forecast(&d.state(), &d.scenario, &nothing, eta, &d.now).course, Course::WillMiss);
            d.pass(2);
            assert_eq!(course(&d, &nothing), Course::Missed, "{name}, {rto} s");
            // The real thing is taken at the author's word.
            let Event::IncidentOpened { kind, .. } = &mut d.records[0].events[0] else { panic!() };
            *kind = Kind::Real;
            let real = Desk { now: Now { time: Time::from_micros(T0), up_ms: 1_000_000, boot: "b1".into() }, ..d };
            let takes: u64 = restoring_steps(&real.scenario).filter_map(|s| s.estimate_s).sum();
            let now = course(&real, &nothing);
            assert_eq!(now == Course::WillMiss, takes > rto, "{name}: {takes} s of {rto} s, {now:?}");
        }
    }
    assert_eq!(rows, 45);
}

#[test]
fn a_step_without_any_basis_is_counted_not_guessed() {
    let mut s = scenario();
    s.steps[1].estimate_s = None;
    assert_eq!(step_estimate(&s.steps[1], &StepTimes::new(), 1.0), None);
    let mut d = Desk::new();
    d.scenario = s;
    let f = forecast(&d.state(), &d.scenario, &StepTimes::new(), None, &d.now);
    assert_eq!(f.unknown_steps, 1);
}

#[test]
fn service_is_back_when_verified_promoted_and_seen_healthy_by_itself() {
    let health = |healthy| Event::HealthSeen { healthy, components: BTreeMap::new() };
    let promoted = || Event::Promoted { identity: identity("shop"), kept: "/tmp/d".into() };
    let ready = |passed| {
        let mut d = Desk::new();
        d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow(), contained(), seen("shop")]);
        d.run("s2", "pitr verify", Risk::Read, Outcome::Succeeded, vec![verified(passed)]);
        d.ok(Command::Waive { gate: "verification".into(), reason: "looked by hand".into(), step: None });
        d
    };
    let mut d = ready(true);
    d.run("s1", "health", Risk::Read, Outcome::Succeeded, vec![health(true)]);
    assert_eq!(d.state().restored, None, "healthy before the promotion means nothing");
    d.run("s3", "pitr promote", Risk::Destroy, Outcome::Succeeded, vec![promoted(), health(false)]);
    assert_eq!(d.state().restored, None, "promoted but not healthy");
    d.run("s1", "health", Risk::Read, Outcome::Succeeded, vec![health(true)]);
    assert_eq!(d.state().restored.map(|r| r.at), Some(d.now.time));
    let mut d = ready(true);
    d.run("s3", "pitr promote", Risk::Destroy, Outcome::Succeeded, vec![promoted(), health(true)]);
    assert!(d.state().restored.is_some());
    let mut d = ready(false);
    d.run("s3", "pitr promote", Risk::Destroy, Outcome::Succeeded, vec![promoted(), health(true)]);
    assert_eq!(d.state().restored, None, "not verified: a person has to say so");
}

#[test]
fn the_projection_scales_files_and_keeps_the_log() {
    let mut d = Desk::new();
    let mut event = shadow();
    if let Event::ShadowBuilt { bytes, files_ms, replay_ms, .. } = &mut event {
        (*bytes, *files_ms, *replay_ms) = (50_000_000, 400, 1500);
    }
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![event]);
    let shadow = d.state().facts.shadow.unwrap();
    let big = breakglass::incident::forecast::projected(&shadow, 500_000_000_000);
    assert_eq!(big, Some(Duration::from_millis(4_000_000 + 1500)));
}

#[test]
fn a_drill_without_history_scales_the_authors_estimates_to_its_own_objective() {
    let mut d = Desk::new();
    d.scenario.rto_s = Some(14_400);
    // The drill was opened with 600 s against 4 hours in the plan: each step becomes the 10 s a person needs to read it.
    let f = forecast(&d.state(), &d.scenario, &StepTimes::new(), None, &d.now);
    assert_eq!(f.p50.unwrap().since(d.now.time), Duration::from_secs(30));
    // What was measured is not scaled.
    let measured = StepTimes::from([(StepId::new("s2"), vec![Duration::from_secs(60); 3])]);
    let f = forecast(&d.state(), &d.scenario, &measured, None, &d.now);
    assert_eq!(f.p50.unwrap().since(d.now.time), Duration::from_secs(80));
    // In a real incident the author's word stands.
    let Event::IncidentOpened { kind, .. } = &mut d.records[0].events[0] else { panic!() };
    *kind = Kind::Real;
    let f = forecast(&d.state(), &d.scenario, &StepTimes::new(), None, &d.now);
    assert_eq!(f.p50.unwrap().since(d.now.time), Duration::from_secs(240));
}

fn candidate(xid: &str, at: Time) -> Candidate {
    Candidate {
        target: RecoveryTarget::Xid(xid.into()),
        at,
        xid: Some(xid.into()),
        lsn: Some("0/5000000".into()),
        tables: vec!["public.orders".into()],
        rows: 28_054,
        what: "28 054 rows changed by 23 transactions".into(),
        loses: Loss::default(),
    }
}

fn found(at: Time) -> Event {
    Event::MomentsFound { candidates: vec![candidate("731", at)] }
}

fn verified_but(gone: Verdict) -> Event {
    let check = |name: &str, verdict| Check { name: name.into(), verdict, detail: "no suspects are known".into() };
    let checks = vec![check("rows", Verdict::Passed), check("damage gone", gone)];
    Event::ShadowVerified { passed: gone != Verdict::Failed, checks }
}

fn choose(target: RecoveryTarget, at: Option<Time>) -> Command {
    Command::ChooseMoment { target, at, loses: None }
}

fn waive(gate: &str, step: &str) -> Command {
    let reason = "the console on the bastion shows it".into();
    Command::Waive { gate: gate.into(), reason, step: Some(StepId::new(step)) }
}

#[test]
fn a_moment_behind_the_damage_on_record_is_said_to_keep_it() {
    let mut d = Desk::new();
    let began = d.now.time;
    d.ok(Command::Observe { facts: vec![found(began)] });
    let facts = d.state().facts;
    let at = |s: i64| Time::from_micros(T0 + s * 1_000_000);
    let say = |t: RecoveryTarget, at| moment::warning(&facts, &t, at).unwrap_or_default();
    let late = say(RecoveryTarget::Time(at(33)), Some(at(33)));
    assert!(late.contains("KEEPS DAMAGE") && late.contains("xid:731") && late.contains("23 transactions"), "{late}");
    assert!(say(RecoveryTarget::Latest, None).contains("KEEPS DAMAGE"));
    assert!(say(RecoveryTarget::Lsn("0/5000001".into()), None).contains("KEEPS DAMAGE"));
    assert_eq!(say(RecoveryTarget::Lsn("0/5000000".into()), None), "");
    assert_eq!(say(RecoveryTarget::Time(at(0)), Some(at(0))), "", "before means before");
    assert_eq!(say(RecoveryTarget::Time(at(-5)), Some(at(-5))), "");
    assert_eq!(say(RecoveryTarget::Xid("731".into()), Some(at(0))), "");
    assert!(say(RecoveryTarget::Name("deploy".into()), None).contains("not known"));
    assert_eq!(moment::warning(&Desk::new().state().facts, &RecoveryTarget::Latest, None), None);
}

#[test]
fn what_a_promotion_gave_up_is_not_forgotten_by_the_moment_after_the_next() {
    let mut d = Desk::new();
    let loss = Loss { window_ms: 41_000, transactions: Some(26), ..Loss::default() };
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow(), contained(), seen("shop")]);
    let measured = Event::LossMeasured { loss: loss.clone() };
    d.run("s2", "pitr verify", Risk::Read, Outcome::Succeeded, vec![verified_but(Verdict::Passed), measured]);
    let promoted = || Event::Promoted { identity: identity("shop"), kept: "/tmp/d".into() };
    d.run("s3", "pitr promote", Risk::Destroy, Outcome::Succeeded, vec![promoted()]);
    d.ok(choose(RecoveryTarget::Xid("700".into()), None));
    assert_eq!(d.state().facts.given_up, Some(loss.clone()));
    // The second one goes into service unverified: nothing was measured of it.
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow()]);
    d.ok(waive("verification", "s3"));
    d.run("s3", "pitr promote", Risk::Destroy, Outcome::Succeeded, vec![promoted()]);
    d.ok(choose(RecoveryTarget::Xid("600".into()), None));
    assert_eq!(d.state().facts.given_up, Some(loss));
}

#[test]
fn damage_that_was_not_looked_for_is_not_gone() {
    let mut d = Desk::new();
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow(), contained(), seen("shop")]);
    d.run("s2", "pitr verify", Risk::Read, Outcome::Succeeded, vec![verified_but(Verdict::NotAvailable)]);
    let promote = d.request("s3", "pitr promote", Risk::Destroy, Some("shop"));
    let refusal = d.refused(promote.clone());
    assert_eq!(refusal.gate, Some("verification"));
    assert!(refusal.why.contains("no suspects are known"), "{refusal}");
    d.ok(waive("verification", "s3"));
    let healthy = Event::HealthSeen { healthy: true, components: BTreeMap::new() };
    let promoted = Event::Promoted { identity: identity("shop"), kept: "/tmp/d".into() };
    d.run("s3", "pitr promote", Risk::Destroy, Outcome::Succeeded, vec![promoted, healthy]);
    assert_eq!(d.state().restored, None, "that data is good again a person has to say");

    let mut d = Desk::new();
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow(), contained(), seen("shop")]);
    d.run("s2", "pitr verify", Risk::Read, Outcome::Succeeded, vec![verified_but(Verdict::Passed)]);
    d.ok(promote);
}

#[test]
fn a_wrong_recovery_in_service_is_replaced_by_another_moment() {
    let mut d = Desk::new();
    let promoted = |at: &str| Event::Promoted { identity: identity("shop"), kept: at.into() };
    let healthy = Event::HealthSeen { healthy: true, components: BTreeMap::new() };
    let promote = d.request("s3", "pitr promote", Risk::Destroy, Some("shop"));
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow(), contained(), seen("shop")]);
    d.run("s2", "pitr verify", Risk::Read, Outcome::Succeeded, vec![verified(true)]);
    d.ok(Command::FinishStep { step: StepId::new("s2") });
    let run = d.run("s3", "pitr promote", Risk::Destroy, Outcome::Succeeded, vec![promoted("/a"), healthy.clone()]);
    d.ok(Command::FinishStep { step: StepId::new("s3") });
    assert!(d.state().restored.is_some());
    let damaged = d.state().facts.damaged;

    // A second press is no second promotion, and says so.
    let refusal = d.refused(Command::RequestRun(RunRequest {
        step: None,
        ..match promote.clone() {
            Command::RequestRun(r) => r,
            _ => unreachable!(),
        }
    }));
    assert!(refusal.why.contains(&format!("already promoted by run {run}")), "{refusal}");

    d.ok(choose(RecoveryTarget::Xid("700".into()), None));
    let s = d.state();
    assert!(s.restored.is_none(), "the clock runs again");
    assert!(s.facts.promoted.is_some(), "what is in service is still known");
    assert_eq!(s.step(&StepId::new("s2")).status, StepStatus::Open, "its work is to be done again");
    assert_eq!(s.step(&StepId::new("s3")).status, StepStatus::Open);
    assert_eq!(s.last_word_of(&StepId::new("s2")), None, "what ran for the wrong moment does not count");
    assert!(d.refused(promote.clone()).hint.contains("restore to that moment first"));

    let Event::ShadowBuilt { host, port, backup, reached_lsn, .. } = shadow() else { unreachable!() };
    let second = Event::ShadowBuilt {
        host,
        port,
        backup,
        reached_lsn,
        data_directory: "/tmp/y/data".into(),
        target: RecoveryTarget::Xid("700".into()),
        reached_time: None,
        bytes: 1,
        files_ms: 1,
        replay_ms: 1,
    };
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![second]);
    assert_eq!(d.refused(promote).gate, Some("verification"), "the old verification is of another instance");
    d.run("s2", "pitr verify", Risk::Read, Outcome::Succeeded, vec![verified(true)]);
    d.run("s1", "health", Risk::Read, Outcome::Succeeded, vec![healthy.clone()]);
    assert_eq!(d.state().restored, None, "the wrong one is still in service");
    d.run("s3", "pitr promote", Risk::Destroy, Outcome::Succeeded, vec![promoted("/b"), healthy]);
    assert!(d.state().restored.is_some());
    assert_eq!(d.state().facts.damaged, damaged, "who was damaged first stays known");
}

#[test]
fn a_refused_run_takes_no_success_back() {
    let mut d = Desk::new();
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![]);
    d.run("s2", "pitr restore", Risk::Change, Outcome::Refused, vec![]);
    assert!(d.state().last_word_of(&StepId::new("s2")).is_some_and(|r| r.succeeded()));
    d.ok(Command::FinishStep { step: StepId::new("s2") });
    let mut d = Desk::new();
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![]);
    d.run("s2", "pitr restore", Risk::Change, Outcome::Failed, vec![]);
    assert!(d.refused(Command::FinishStep { step: StepId::new("s2") }).why.contains("did not succeed"));
}

#[test]
fn a_promotion_that_waited_in_vain_is_done_once_health_was_seen() {
    let mut d = Desk::new();
    let health = |healthy| Event::HealthSeen { healthy, components: BTreeMap::new() };
    let promoted = Event::Promoted { identity: identity("shop"), kept: "/a".into() };
    d.run("s2", "pitr restore", Risk::Change, Outcome::Succeeded, vec![shadow(), contained(), seen("shop")]);
    d.run("s2", "pitr verify", Risk::Read, Outcome::Succeeded, vec![verified(true)]);
    d.run("s3", "pitr promote", Risk::Destroy, Outcome::Failed, vec![promoted, health(false)]);
    let done = Command::FinishStep { step: StepId::new("s3") };
    assert!(d.refused(done.clone()).why.contains("did not succeed"));
    d.run("s1", "health", Risk::Read, Outcome::Succeeded, vec![health(true)]);
    d.ok(done);
}

#[test]
fn a_waiver_holds_for_its_step_until_something_of_it_succeeded() {
    let mut d = Desk::new();
    // Nothing was ever seen of the target: no health step, no preview that could look.
    let drop = d.request("s2", "shell", Risk::Destroy, Some("shop"));
    assert_eq!(d.refused(drop.clone()).gate, Some("identity"));
    d.ok(waive("identity", "s2"));
    assert_eq!(d.refused(drop.clone()).gate, Some("verified_backup"), "the waived gate holds");
    d.ok(waive("verified_backup", "s2"));
    let other = d.request("s3", "shell", Risk::Destroy, Some("shop"));
    assert_eq!(d.refused(other).gate, Some("identity"), "waived for one step, not for all");
    let wrong = d.request("s2", "shell", Risk::Destroy, Some("shopp"));
    assert!(d.refused(wrong).why.contains("was typed"));
    d.run("s2", "shell", Risk::Destroy, Outcome::Failed, vec![]);
    d.run("s2", "shell", Risk::Destroy, Outcome::Succeeded, vec![]);
    assert_eq!(d.refused(drop.clone()).gate, Some("identity"), "spent");
    assert_eq!(d.state().live_waivers().count(), 0);
    let short = Command::Waive { gate: "identity".into(), reason: "ry".into(), step: None };
    assert!(d.refused(short).why.contains("too short"));
    // An identity that was seen and is another one than expected can be passed by its waiver, too.
    d.ok(Command::Observe { facts: vec![seen("other")] });
    d.ok(waive("identity", "s2"));
    assert_eq!(d.refused(drop).gate, Some("verified_backup"));
}

#[test]
fn a_waived_identity_holds_inside_the_actions_of_its_step() {
    let mut d = Desk::new();
    d.ok(Command::Observe { facts: vec![seen("other")] });
    let ctx = |d: &Desk, run: Option<RunId>| Ctx {
        incident: Some(Arc::new(d.state())),
        run_dir: run.map(|r| PathBuf::from(format!("/nowhere/runs/{}", r.0))),
        ..Ctx::new(Settings::default(), Secrets::default(), Arc::new(Nowhere))
    };
    let looked = |ctx: &Ctx| target::expected(ctx, &identity("other"), true);
    let refused = looked(&ctx(&d, None)).unwrap_err().to_string();
    assert!(refused.contains("database is \"other\", but \"shop\" is expected"), "{refused}");
    d.ok(waive("identity", "s2"));
    looked(&ctx(&d, None)).unwrap();
    let run = d.run("s2", "shell", Risk::Read, Outcome::Failed, vec![]);
    looked(&ctx(&d, Some(run))).unwrap();
    let elsewhere = d.run("s1", "health", Risk::Read, Outcome::Failed, vec![]);
    assert!(looked(&ctx(&d, Some(elsewhere))).is_err(), "waived for one step, not for all");
}

#[test]
fn a_loss_that_was_measured_belongs_to_the_moment_it_was_measured_for() {
    let mut d = Desk::new();
    d.ok(choose(RecoveryTarget::Xid("731".into()), None));
    let loss = Loss { window_ms: 69_000, transactions: Some(1036), ..Loss::default() };
    d.ok(Command::Observe { facts: vec![Event::LossMeasured { loss }] });
    assert!(d.state().facts.loss.is_some());
    d.ok(choose(RecoveryTarget::Xid("700".into()), None));
    assert_eq!(d.state().facts.loss, None, "not said of a moment nothing was restored to yet");
}

#[test]
fn a_backup_found_in_the_repository_is_as_old_as_it_is() {
    let mut d = Desk::new();
    d.ok(Command::Observe { facts: vec![seen("shop")] });
    let drop = d.request("s2", "shell", Risk::Destroy, Some("shop"));
    let found = |d: &Desk, hours: u64| {
        let taken_at = Some(d.now.time.minus(Duration::from_secs(hours * 3600)));
        Event::BackupTaken { id: format!("b{hours}"), bytes: 1, timeline: 1, verified: true, taken_at }
    };
    let old = found(&d, 25);
    d.ok(Command::Observe { facts: vec![old] });
    assert_eq!(d.refused(drop.clone()).gate, Some("verified_backup"));
    let young = found(&d, 23);
    d.ok(Command::Observe { facts: vec![young] });
    d.ok(drop);
}

#[test]
fn the_impact_began_with_the_first_damage_and_is_recorded_once() {
    let mut d = Desk::new();
    let began = d.now.time;
    d.pass(5);
    let alarm = Time::from_micros(d.now.time.micros() + 123_456);
    d.pass(2);
    d.ok(Command::SetImpact { at: alarm, source: "alarm".into() });
    let shown = Time::from_micros(alarm.micros() - 123_456);
    assert_eq!(d.ok(Command::SetImpact { at: shown, source: "alarm".into() }), 0, "a form left as it was");
    d.ok(Command::Observe { facts: vec![found(began)] });
    assert_eq!(d.ok(choose(RecoveryTarget::Xid("731".into()), Some(began))), 2);
    assert_eq!(d.state().impact.map(|i| i.at), Some(began));
    assert_eq!(d.ok(choose(RecoveryTarget::Xid("731".into()), Some(began))), 1, "not twice");
}

/// A standby that is this far behind the last sample of its primary.
fn standby(behind_ms: Option<u64>) -> Event {
    Event::StandbySeen {
        identity: Identity { in_recovery: true, ..identity("shop") },
        received: "0/5000000".into(),
        replayed: "0/5000000".into(),
        last_commit: None,
        behind_bytes: behind_ms,
        behind_ms,
        sampled_at: None,
    }
}

#[test]
fn a_failover_goes_in_order_and_each_gate_says_what_is_missing() {
    let mut d = Desk::new();
    let backup = Event::BackupTaken { id: "b".into(), bytes: 1, timeline: 1, verified: true, taken_at: None };
    d.ok(Command::Observe { facts: vec![seen("shop")] });
    let promote = d.request("s2", "failover promote", Risk::Destroy, Some("shop"));
    assert_eq!(d.refused(promote.clone()).gate, Some("standby"));
    d.ok(Command::Observe { facts: vec![standby(Some(0))] });
    let refusal = d.refused(promote.clone());
    assert_eq!(refusal.gate, Some("fence"), "promotion before fencing");
    assert!(refusal.to_string().contains("two primaries"), "{refusal}");
    let fenced = Event::OldPrimaryFenced { done: vec![], proof: vec!["refused".into()] };
    d.run("s1", "failover fence", Risk::Destroy, Outcome::Succeeded, vec![fenced]);
    // A standby that lags past the objective, and one whose lag nobody knows.
    let hour = 3_600_000;
    for behind in [Some(20 * hour), None] {
        d.ok(Command::Observe { facts: vec![standby(behind)] });
        assert_eq!(d.refused(promote.clone()).gate, Some("standby_lag"), "{behind:?}");
    }
    d.ok(waive("standby_lag", "s2"));
    d.ok(promote);
    assert!(d.state().waived_for("standby_lag", Some(&StepId::new("s2"))), "the waiver is on record");

    let mut d = Desk::new();
    d.ok(Command::Observe { facts: vec![seen("shop"), standby(Some(0)), backup] });
    let rebuild = d.request("s2", "failover rebuild", Risk::Destroy, Some("shop"));
    assert!(d.refused(rebuild.clone()).to_string().contains("Nothing was promoted"));
    let route = d.request("s2", "failover route", Risk::Change, None);
    assert_eq!(d.refused(route).gate, Some("promotion"));
    d.ok(waive("fence", "s1"));
    let promoted = Event::Promoted { identity: identity("shop"), kept: "/old".into() };
    d.run("s1", "failover promote", Risk::Destroy, Outcome::Succeeded, vec![promoted]);
    assert_eq!(d.refused(rebuild.clone()).gate, Some("verification"), "skipped verification");
    let verified = Event::ServiceVerified { passed: true, checks: vec![] };
    d.run("s1", "failover verify", Risk::Read, Outcome::Succeeded, vec![verified]);
    let back = d.request("s2", "failover back", Risk::Destroy, Some("shop"));
    assert!(d.refused(back).to_string().contains("is no standby of the present one"));
    d.ok(rebuild);
}

#[test]
fn a_breach_goes_in_order_and_late_evidence_stays_late() {
    let sealed = |after_isolation| Event::EvidenceSealed {
        folder: "evidence/seized".into(),
        files: 3,
        seal: Digest::new("a".repeat(64)),
        after_isolation,
    };
    let isolated = || Event::IntrudersIsolated { roles: vec!["x".into()], sessions: 2 };
    let mut d = Desk::new();
    let isolate = d.request("s2", "breach isolate", Risk::Change, None);
    let refusal = d.refused(isolate.clone());
    assert_eq!(refusal.gate, Some("evidence"));
    assert!(refusal.to_string().contains("destroys what they could have told"), "{refusal}");
    let rotate = d.request("s2", "breach rotate", Risk::Change, None);
    assert_eq!(d.refused(rotate.clone()).gate, Some("isolation"));
    d.ok(waive("evidence", "s2"));
    d.run("s2", "breach isolate", Risk::Change, Outcome::Succeeded, vec![isolated()]);
    d.run("s1", "evidence collect", Risk::Read, Outcome::Succeeded, vec![sealed(true)]);
    assert_eq!(d.state().facts.evidence_after_isolation, Some(true));
    d.run(
        "s2",
        "breach rotate",
        Risk::Change,
        Outcome::Failed,
        vec![Event::RotationEnded { left: vec!["Key".into()] }],
    );
    let reopen = d.request("s2", "breach reopen", Risk::Change, None);
    assert_eq!(d.refused(reopen).gate, Some("verification"));
    let verify = d.request("s1", "breach verify", Risk::Read, None);
    assert!(d.refused(verify).to_string().contains("no clean copy"));
}

#[test]
fn the_doors_stay_shut_while_an_old_secret_is_valid() {
    let mut d = Desk::new();
    let verified = Event::ServiceVerified { passed: true, checks: vec![] };
    d.run("s1", "health", Risk::Read, Outcome::Succeeded, vec![verified]);
    let reopen = d.request("s2", "breach reopen", Risk::Change, None);
    assert_eq!(d.refused(reopen.clone()).gate, Some("rotation"), "nothing was rotated");
    let ended = |left: &[&str]| Event::RotationEnded { left: left.iter().map(|l| (*l).to_string()).collect() };
    d.run("s1", "health", Risk::Read, Outcome::Succeeded, vec![ended(&["Session key"])]);
    let refusal = d.refused(reopen.clone());
    assert!(refusal.to_string().contains("Session key"), "{refusal}");
    d.run("s1", "health", Risk::Read, Outcome::Succeeded, vec![ended(&[])]);
    d.ok(reopen);
    // Evidence that was collected in time is not made late by a second collection.
    let sealed = |after_isolation| Event::EvidenceSealed {
        folder: "evidence/seized".into(),
        files: 3,
        seal: Digest::new("a".repeat(64)),
        after_isolation,
    };
    d.run("s1", "evidence collect", Risk::Read, Outcome::Succeeded, vec![sealed(false)]);
    d.run("s1", "evidence collect", Risk::Read, Outcome::Succeeded, vec![sealed(true)]);
    assert_eq!(d.state().facts.evidence_after_isolation, Some(false));
}
