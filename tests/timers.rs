//! Every deadline over an incident of six hours, on a clock that only the test moves; and what plans ask of people.

use std::time::Duration;

use breakglass::incident::people::{COMMAND, ROLES, role_name};
use breakglass::incident::rules::{CUSTOMERS, Rules, TEAM};
use breakglass::incident::{Command, Context, Now, Policy, Refusal, Standing, State, Timer, deadlines, decide, timers};
use breakglass::model::event::Kind;
use breakglass::model::{Actor, Digest, IncidentId, Plan, Record, Scenario, Time, format_clock};
use breakglass::plan::parse;

use crate::support::records::next;

/// 2026-11-20 14:00:00 UTC.
const OPENED: i64 = 1_795_183_200_000_000;

/// The matrix of this incident: written so that every figure is another one.
const PLAN: &str = "# Plan

## Scenario 1: Database corruption

**Severity:** P0
**RTO:** 4 hours

1. Look at it
2. Put it right

## Severity levels

| Severity | Response | Escalation | Communication |
|---|---|---|---|
| P0 | 10 minutes | 20 minutes | Public within 45 minutes, then every 30 minutes |
| P1 | 30 minutes | 2 hours | Internal within 1 hour, then every hour |

## Escalation

- **Level 1**: On-call engineer (15 min response)
- **Level 2**: Engineering manager (30 min response)
- **Level 3**: CTO (60 min response)
";

struct Clock {
    plan: Plan,
    records: Vec<Record>,
    now: Now,
    actor: Actor,
}

impl Clock {
    fn new() -> Self {
        let plan = parse("plan.md", PLAN.as_bytes()).unwrap();
        assert_eq!(plan.scenarios.len(), 1);
        let now = Now { time: Time::from_micros(OPENED), up_ms: 5_000_000, boot: "b1".into() };
        let mut clock = Self { plan, records: vec![], now, actor: Actor::new("amy@bastion") };
        clock.ok(Command::Open {
            id: IncidentId::new("20261120T1400Z-database-corruption-7f3a"),
            kind: Kind::Real,
            plan: Digest::new("d".repeat(64)),
            rto_ms: None,
            rpo_ms: None,
            program: "0.1.0".into(),
            target: None,
            expect: Default::default(),
        });
        clock
    }
    fn scenario(&self) -> &Scenario {
        &self.plan.scenarios[0]
    }
    fn state(&self) -> State {
        State::fold(&self.records).unwrap()
    }
    fn rules(&self) -> Rules {
        Rules::of(&self.plan, self.scenario())
    }
    /// Goes to so many minutes and seconds after the opening.
    fn at(&mut self, minutes: u64, seconds: u64) -> &mut Self {
        let micros = (minutes * 60 + seconds) * 1_000_000;
        self.now.time = Time::from_micros(OPENED + micros as i64);
        self.now.up_ms = 5_000_000 + micros / 1000;
        self
    }
    fn try_it(&mut self, command: Command, happened: Option<Time>) -> Result<(), Refusal> {
        let (policy, state) = (Policy::default(), State::fold(&self.records));
        let ctx = Context { scenario: self.scenario(), now: &self.now, actor: &self.actor, policy: &policy };
        let events = decide(state.as_ref(), &command, ctx)?;
        if !events.is_empty() {
            let record = next(&self.records, &self.now, &self.actor, command.name(), events);
            self.records.push(Record { occurred_at: happened.unwrap_or(self.now.time), ..record });
        }
        Ok(())
    }
    fn ok(&mut self, command: Command) -> &mut Self {
        let name = command.name();
        self.try_it(command, None).unwrap_or_else(|r| panic!("{name} was refused: {r}"));
        self
    }
    fn refused(&mut self, command: Command) -> String {
        let name = command.name();
        self.try_it(command, None).err().unwrap_or_else(|| panic!("{name} was allowed")).to_string()
    }
    fn tell(&mut self, audience: &str) -> &mut Self {
        self.ok(Command::Tell {
            audience: audience.into(),
            text: "we are on it".into(),
            how: Some("said".into()),
            step: None,
        })
    }
    fn snooze(&mut self, timer: &str, minutes: u64) -> &mut Self {
        let reason = "on the phone with them".to_string();
        self.ok(Command::Snooze { timer: timer.into(), for_ms: minutes * 60_000, reason })
    }
    /// The deadlines as one line, the way a reader would write them down.
    fn line(&self) -> String {
        let all = deadlines(&self.state(), &self.rules(), &self.now);
        let words = |d: &breakglass::incident::Deadline| {
            let word = match &d.standing {
                Standing::Running(left) => format!("in {}", format_clock(*left)),
                Standing::Snoozed(left) => format!("snoozed {}", format_clock(*left)),
                Standing::Overdue(by) => format!("OVERDUE {}", format_clock(*by)),
                Standing::Met(at) => format!("met {}", &at.hms()[..5]),
                Standing::Late(at) => format!("late {}", &at.hms()[..5]),
                Standing::Missed => "missed".into(),
                Standing::Over => "over".into(),
            };
            format!("{} {word}", d.timer)
        };
        all.iter().map(words).collect::<Vec<_>>().join(" | ")
    }
}

/// Every row: the minute, what is done then, and how every deadline stands after it.
#[test]
fn every_deadline_over_six_hours() {
    let mut c = Clock::new();
    assert_eq!(c.line(), "respond in 10:00 | escalate in 20:00 | communicate in 45:00 | update-team in 15:00");
    c.at(9, 59);
    assert_eq!(c.line(), "respond in 0:01 | escalate in 10:01 | communicate in 35:01 | update-team in 5:01");
    // Nobody answers: the deadline passes to the second.
    c.at(10, 0);
    assert_eq!(c.line(), "respond OVERDUE 0:00 | escalate in 10:00 | communicate in 35:00 | update-team in 5:00");
    c.at(12, 30).ok(Command::Acknowledge { timer: "respond".into(), note: String::new() });
    assert_eq!(c.line(), "respond late 14:12 | escalate in 7:30 | communicate in 32:30 | update-team in 2:30");
    // The start was later than the alarm said: what was late was in time.
    let later = Time::from_micros(OPENED + 5 * 60_000_000);
    c.at(13, 0).ok(Command::SetImpact { at: later, source: "the log".into() });
    assert_eq!(c.line(), "respond met 14:12 | escalate in 12:00 | communicate in 37:00 | update-team in 7:00");
    c.at(14, 0).tell(TEAM);
    assert_eq!(c.line(), "respond met 14:12 | escalate in 11:00 | communicate in 36:00 | update-team in 15:00");
    // Snooze: runs out at 14:33 instead of 14:29.
    c.at(28, 0).snooze("update-team", 5);
    assert_eq!(c.line(), "respond met 14:12 | escalate OVERDUE 3:00 | communicate in 22:00 | update-team snoozed 5:00");
    c.at(32, 59);
    assert_eq!(c.line(), "respond met 14:12 | escalate OVERDUE 7:59 | communicate in 17:01 | update-team snoozed 0:01");
    c.at(33, 0);
    assert_eq!(c.line(), "respond met 14:12 | escalate OVERDUE 8:00 | communicate in 17:00 | update-team OVERDUE 4:00");
    // Level 2 is called, and the team told; a snooze of the round before does not reach into the new one.
    c.at(34, 0)
        .ok(Command::Escalate { level: 2, who: "Engineering manager".into(), within_ms: 30 * 60_000 })
        .tell(TEAM);
    assert_eq!(
        c.line(),
        "respond met 14:12 | escalate late 14:34 | communicate in 16:00 | level-2 in 30:00 | update-team in 15:00"
    );
    // A first message to the public in time; from there its own rhythm.
    c.at(49, 0).tell(CUSTOMERS).tell(TEAM);
    assert_eq!(
        c.line(),
        "respond met 14:12 | escalate late 14:34 | communicate met 14:49 | level-2 in 15:00 | update-team in 15:00 | \
         update-customers in 30:00"
    );
    // Level 2 does not answer; level 3 is called, and answers.
    c.at(64, 1);
    assert_eq!(
        c.line(),
        "respond met 14:12 | escalate late 14:34 | communicate met 14:49 | level-2 OVERDUE 0:01 | update-team OVERDUE \
         0:01 | update-customers in 14:59"
    );
    c.at(65, 0).ok(Command::Escalate { level: 3, who: "CTO".into(), within_ms: 60 * 60_000 }).tell(TEAM);
    assert_eq!(
        c.line(),
        "respond met 14:12 | escalate late 14:34 | communicate met 14:49 | level-2 missed | level-3 in 1:00:00 | \
         update-team in 15:00 | update-customers in 14:00"
    );
    c.at(70, 0).ok(Command::Answer { level: 3, by: "dee".into() });
    assert_eq!(
        c.line(),
        "respond met 14:12 | escalate late 14:34 | communicate met 14:49 | level-2 missed | level-3 met 15:10 | \
         update-team in 10:00 | update-customers in 9:00"
    );
    // Roles: a first lead ends nothing, a hand-over ends every snooze.
    c.at(75, 0).snooze("update-team", 30).snooze("update-customers", 60);
    c.ok(Command::Assign { role: "incident lead".into(), person: "amy".into(), note: String::new() });
    assert!(c.line().ends_with("update-team snoozed 30:00 | update-customers snoozed 1:00:00"), "{}", c.line());
    c.at(90, 0);
    assert!(c.line().ends_with("update-team snoozed 15:00 | update-customers snoozed 45:00"), "{}", c.line());
    c.at(100, 0).ok(Command::Assign {
        role: COMMAND.into(),
        person: "ben".into(),
        note: "customers were phoned".into(),
    });
    assert!(c.line().ends_with("update-team OVERDUE 20:00 | update-customers OVERDUE 21:00"), "{}", c.line());
    assert_eq!(c.state().people.holder(COMMAND).unwrap().person, "ben");
    // Another role handed over ends none.
    c.snooze("update-team", 10);
    c.ok(Command::Assign { role: "scribe".into(), person: "cat".into(), note: String::new() });
    c.ok(Command::Assign { role: "scribe".into(), person: "dan".into(), note: String::new() });
    assert!(c.line().ends_with("update-team snoozed 10:00 | update-customers OVERDUE 21:00"), "{}", c.line());
    // The wall clock jumps an hour ahead; uptime does not: no deadline moves.
    let before = c.line();
    c.now.time = c.now.time.plus(Duration::from_secs(3600));
    assert_eq!(c.line(), before);
    // Less grave: other limits, from the same start. Public is no longer asked for.
    c.at(101, 0).ok(Command::Declare { severity: "P1".into() });
    assert_eq!(
        c.line(),
        "respond met 14:12 | escalate met 14:34 | communicate met 14:14 | level-2 missed | level-3 met 15:10 | \
         update-team in 24:00"
    );
    c.at(120, 0).ok(Command::Declare { severity: "P0".into() }).tell(TEAM).tell(CUSTOMERS);
    // A correction into the past: what was met no longer is, and the record shows it.
    let earlier = Time::from_micros(OPENED - 20 * 60_000_000);
    c.at(121, 0).ok(Command::SetImpact { at: earlier, source: "first failed request".into() });
    assert_eq!(
        c.line(),
        "respond late 14:12 | escalate late 14:34 | communicate late 14:49 | level-2 missed | level-3 met 15:10 | \
         update-team in 14:00 | update-customers in 29:00"
    );
    // A message told by phone earlier and written down later counts from when it was told.
    let told = Time::from_micros(OPENED + 130 * 60_000_000);
    c.at(140, 0);
    let phone =
        Command::Tell { audience: TEAM.into(), text: "told on the call".into(), how: Some("said".into()), step: None };
    c.try_it(phone, Some(told)).unwrap();
    assert!(c.line().ends_with("update-team in 5:00 | update-customers in 10:00"), "{}", c.line());
    // Hours of silence are shown as what they are.
    c.at(300, 0);
    assert!(c.line().ends_with("update-team OVERDUE 2:35:00 | update-customers OVERDUE 2:30:00"), "{}", c.line());
    // Service is back: that is told, and later that it held; then silence is right.
    c.ok(Command::RestoreService { at: c.now.time, how: "looked".into() });
    assert!(c.line().ends_with("update-team OVERDUE 2:35:00 | update-customers OVERDUE 2:30:00"), "{}", c.line());
    c.at(305, 0).tell(TEAM);
    assert!(c.line().ends_with("update-team in 15:00 | update-customers OVERDUE 2:35:00"), "{}", c.line());
    c.at(310, 0).tell(CUSTOMERS);
    assert!(c.line().ends_with("update-team in 10:00 | update-customers in 30:00"), "{}", c.line());
    c.at(318, 0).tell(TEAM);
    assert!(c.line().ends_with("update-team over | update-customers in 22:00"), "{}", c.line());
    c.at(339, 0).tell(CUSTOMERS);
    assert!(c.line().ends_with("update-team over | update-customers over"), "{}", c.line());
    c.at(360, 0).ok(Command::Close { summary: "over".into(), force: false });
    assert_eq!(
        c.line(),
        "respond late 14:12 | escalate late 14:34 | communicate late 14:49 | level-2 missed | level-3 met 15:10 | \
         update-team over | update-customers over"
    );
    assert_eq!(timers::next(&deadlines(&c.state(), &c.rules(), &c.now)), None);
}

#[test]
fn a_machine_started_again_in_the_middle_goes_by_the_wall_clock() {
    let mut c = Clock::new();
    c.at(4, 0);
    (c.now.boot, c.now.up_ms) = ("b2".into(), 17);
    assert!(c.line().starts_with("respond in 6:00 | escalate in 16:00"), "{}", c.line());
}

#[test]
fn closing_with_deadlines_open_says_which_were_missed() {
    let mut c = Clock::new();
    c.at(30, 0).ok(Command::Close { summary: "false alarm".into(), force: true });
    assert_eq!(c.line(), "respond missed | escalate missed | communicate over | update-team over");
}

#[test]
fn the_one_that_is_loud_for_longest_comes_first_else_the_next() {
    let mut c = Clock::new();
    let next = |c: &Clock| timers::next(&deadlines(&c.state(), &c.rules(), &c.now)).map(|d| d.timer.to_string());
    assert_eq!(next(&c).as_deref(), Some("respond"));
    c.at(16, 0);
    assert_eq!(next(&c).as_deref(), Some("respond"));
    c.ok(Command::Acknowledge { timer: "respond".into(), note: "on it".into() });
    assert_eq!(next(&c).as_deref(), Some("update-team"));
    c.snooze("update-team", 10);
    assert_eq!(next(&c).as_deref(), Some("escalate"));
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let mut c = Clock::new();
    let snooze = |timer: &str, ms, why: &str| Command::Snooze { timer: timer.into(), for_ms: ms, reason: why.into() };
    for (command, says) in [
        (snooze("coffee", 1000, "x"), "is no deadline"),
        (snooze("respond", 0, "x"), "a second at least"),
        (snooze("respond", 86_400_001, "x"), "a day at most"),
        (snooze("respond", 1000, " "), "reason for the snooze"),
        (Command::Acknowledge { timer: "update-team".into(), note: "x".into() }, "not acknowledged but sent"),
        (Command::Acknowledge { timer: "level-2".into(), note: "x".into() }, "answering"),
        (Command::Acknowledge { timer: "escalate".into(), note: "".into() }, "reason why nobody"),
        (Command::Answer { level: 2, by: "x".into() }, "was not called"),
        (Command::Escalate { level: 0, who: "x".into(), within_ms: 1 }, "from 1 on"),
        (Command::Assign { role: " ".into(), person: "x".into(), note: "".into() }, "role is empty"),
        (Command::SetCodename { codename: " ".into() }, "code name is empty"),
        (Command::SetLocalOnly { on: true, reason: "".into() }, "reason is empty"),
        (Command::Tell { audience: "team".into(), text: " ".into(), how: None, step: None }, "message is empty"),
    ] {
        let why = c.refused(command);
        assert!(why.contains(says), "{why} should say {says}");
    }
    let call = || Command::Escalate { level: 2, who: "manager".into(), within_ms: 60_000 };
    c.ok(call());
    assert!(c.refused(call()).contains("still has time"));
    c.at(2, 0).ok(call());
    assert_eq!(c.state().people.escalations.len(), 2);
}

#[test]
fn plans_say_it_in_many_ways_and_what_they_do_not_say_has_a_default() {
    let rules = |matrix: &str, steps: &str| {
        let text = format!("# P\n\n## Scenario 1: Database down\n\n{steps}\n\n## Severity\n\n{matrix}\n");
        let plan = parse("p.md", text.as_bytes()).unwrap();
        Rules::of(&plan, &plan.scenarios[0])
    };
    let steps = "1. Look\n2. Mend\n";
    let minutes = |d: Duration| d.as_secs() / 60;
    let cadence = |r: &Rules, s: &str| -> Vec<(String, u64)> {
        r.limits(Some(s)).cadence.iter().map(|(who, d)| (who.clone(), minutes(*d))).collect()
    };
    let none = rules("", steps);
    assert_eq!(none, Rules::default());
    let p0 = none.limits(Some("P0"));
    assert_eq!([minutes(p0.respond), minutes(p0.escalate), minutes(p0.communicate)], [15, 15, 60]);
    assert_eq!(cadence(&none, "P0"), [(TEAM.to_string(), 15), (CUSTOMERS.to_string(), 30)]);
    assert_eq!(cadence(&none, "P1"), [(TEAM.to_string(), 30)]);
    assert_eq!(cadence(&none, "P3"), []);
    assert_eq!(none.levels.iter().map(|l| minutes(l.within)).collect::<Vec<_>>(), [15, 30, 60]);
    // Nothing said of its severity: taken for the gravest.
    assert_eq!(none.limits(None), p0);
    assert_eq!(none.limits(Some("P9")), p0);
    let said = rules(
        "| Severity | Response | Escalation | Communication |\n|---|---|---|---|\n\
         | P0 | 5 minutes | 10 minutes | Lead and legal within 30 minutes, then every 20 minutes |\n\
         | P1 | 20 minutes | 1 hour | Internal within 40 minutes, then every hour |\n",
        steps,
    );
    let p0 = said.limits(Some("P0"));
    assert_eq!([minutes(p0.respond), minutes(p0.escalate), minutes(p0.communicate)], [5, 10, 30]);
    assert_eq!(p0.audience, "lead and legal");
    assert_eq!(cadence(&said, "P0"), [(TEAM.to_string(), 15), ("lead and legal".to_string(), 20)]);
    assert_eq!(cadence(&said, "P1"), [(TEAM.to_string(), 60)]);
    // A rhythm in a step's own words.
    let words = rules("", "1. Look\n2. Provide updates every 20 minutes until service is restored.\n");
    assert_eq!(cadence(&words, "P0"), [(TEAM.to_string(), 20), (CUSTOMERS.to_string(), 20)]);
    assert_eq!(cadence(&words, "P2"), []);
}

#[test]
fn names_of_timers_and_roles_read_back() {
    for timer in [
        Timer::Respond,
        Timer::Escalate,
        Timer::Communicate,
        Timer::Level(2),
        Timer::Update("lead and legal".into()),
        Timer::Update("a-b".into()),
    ] {
        assert_eq!(timer.to_string().parse::<Timer>().unwrap(), timer);
    }
    for bad in ["", "level-", "level-x", "update-", "lunch"] {
        assert!(bad.parse::<Timer>().is_err(), "{bad}");
    }
    assert_eq!(role_name(" Incident Lead"), COMMAND);
    assert_eq!(ROLES.map(role_name), ROLES);
}
