//! A console without a terminal: an app at a fixed time in realistic states, keys typed as text, screens drawn into a
//! buffer. Everything goes through the real fold, the real `update` and the real views.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakglass::action::{Progress, ProgressPhase};
use breakglass::app::data::{
    Env, Home, Incident, IncidentRow, LastDrill, Lines, Output, Recording, RowKind, ScenarioRow, TimelineRow, Worker,
};
use breakglass::app::key::{Key, parse_keys};
use breakglass::app::update::update;
use breakglass::app::{App, Effect, Msg, Settings};
use breakglass::incident::{Now, State};
use breakglass::model::event::{Check, Event, Kind, Outcome, OutputSeal, Verdict};
use breakglass::model::plan::{Block, BlockRole, Phase, Piece, Risk, Scenario, Severity, Source, Step, Word};
use breakglass::model::target::{Candidate, Identity, Loss, RecoveryTarget};
use breakglass::model::{Actor, CleanText, Digest, IncidentId, Record, RunId, StepId, Time};
use breakglass::tui::keymap::Keymap;
use breakglass::tui::theme::{Depth, Theme};
use breakglass::tui::view::{Look, draw};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::records::next;

/// When the incident was opened: 2026-11-20T14:02:00Z.
pub fn start() -> Time {
    Time::parse("2026-11-20T14:02:00Z").unwrap()
}

fn at(seconds: u64) -> Time {
    start().plus(Duration::from_secs(seconds))
}

/// The present of a test, some seconds after the start.
pub fn now(seconds: u64) -> Now {
    Now { time: at(seconds), up_ms: 1_000_000 + seconds * 1000, boot: "b".into() }
}

fn block(line: u32, code: &str, risk: &str) -> Block {
    let own = code.strip_prefix("breakglass ").map(|rest| {
        rest.split(' ')
            .map(|w| {
                let w = w.trim_matches('"');
                Word(vec![match w.strip_prefix('$') {
                    Some(v) => Piece::Var(v.into()),
                    None => Piece::Text(w.into()),
                }])
            })
            .collect()
    });
    Block {
        line,
        lang: "bash".into(),
        role: BlockRole::Run,
        code: code.into(),
        attrs: BTreeMap::from([("risk".to_string(), risk.to_string())]),
        own,
        ..serde_json::from_value(serde_json::json!({
            "line": line, "lang": "bash", "role": "run", "code": code
        }))
        .unwrap()
    }
}

fn step(n: usize, title: &str, phase: Phase, minutes: u64, text: &str, items: &[&str], blocks: Vec<Block>) -> Step {
    serde_json::from_value::<Step>(serde_json::json!({
        "id": format!("s{n}"), "title": title, "line": n * 10, "phase": phase, "text": text,
        "items": items.iter().enumerate().map(|(i, t)| serde_json::json!({"title": t, "line": n * 10 + i})).collect::<Vec<_>>(),
        "blocks": blocks, "estimate_s": minutes * 60, "condition": null,
        "source": {"file": "database-corruption.md", "line": n * 10, "line_end": n * 10 + 9, "rule": "test"},
    }))
    .unwrap()
}

/// The scenario of the tests: the first drill, shortened to nine steps.
pub fn scenario() -> Scenario {
    let steps = vec![
        step(
            1,
            "Detect",
            Phase::Detect,
            2,
            "Make sure that it is corruption and not an outage.",
            &["Two wrong records seen with your own eyes", "Not explained by a deploy, a cache or a late replica"],
            vec![block(12, "breakglass health", "read"), block(14, "pg_isready", "read")],
        ),
        step(
            2,
            "Declare",
            Phase::Declare,
            1,
            "Say it out loud. Declaring too early costs an apology; declaring too late costs data.",
            &["One lead, one person at the keyboard"],
            vec![],
        ),
        step(
            3,
            "Stop the bleeding",
            Phase::Contain,
            2,
            "Everything written from now on is either damage or will be lost by going back. This switches **writes off** at the service and archives the log.",
            &[],
            vec![block(32, "breakglass contain", "change")],
        ),
        step(
            4,
            "Assess",
            Phase::Assess,
            10,
            "Find out what is damaged, how much of it, and since when. Reads only.",
            &["Tables and columns known", "Number of damaged rows known"],
            vec![block(42, "breakglass assess", "read")],
        ),
        step(
            5,
            "Choose the moment",
            Phase::Decide,
            5,
            "The target is always the last point *before* the harmful commit. One second too late brings the damage back.",
            &[],
            vec![block(52, "breakglass pitr locate", "read")],
        ),
        step(
            6,
            "Recover beside",
            Phase::Recover,
            30,
            "Builds a second, isolated instance from the newest base backup before the target and replays the log up to it. The damaged database is **not touched**, and can still be read while this runs.\n\nTwo numbers tell whether it is going well: bytes restored, then the time replayed up to.",
            &[],
            vec![block(62, "breakglass pitr restore --to \"$TARGET\" --into beside", "change")],
        ),
        step(
            7,
            "Verify",
            Phase::Verify,
            10,
            "Nothing is promoted that has not been checked.",
            &["The records from step 1 are right again"],
            vec![block(72, "breakglass pitr verify", "read")],
        ),
        step(
            8,
            "Promote",
            Phase::Promote,
            5,
            "The recovered instance opens a new timeline, the service switches over to it and writes resume.",
            &[],
            vec![block(82, "breakglass pitr promote", "destroy")],
        ),
        step(
            9,
            "Tell and close",
            Phase::Close,
            5,
            "Tell people what happened in their words, not ours.",
            &["Measured RTO and RPO written down"],
            vec![],
        ),
    ];
    Scenario {
        slug: "database-corruption".into(),
        title: "Database corruption".into(),
        severity: Some(Severity { level: "P0".into(), raw: "P0 (critical)".into(), ..Default::default() }),
        rto_s: Some(4 * 3600),
        rpo_s: Some(3600),
        intro: "Rows in the production database are wrong and nobody knows yet how many: a faulty release, a migration, a script or a person has overwritten good data. The server is up and answers, so nothing crashes and no count changes.\n\nThe way back is point-in-time recovery to just before the damage, **beside** the damaged database.".into(),
        steps,
        source: Source { file: "database-corruption.md".into(), line: 1, line_end: 99, rule: "test".into() },
        ..Default::default()
    }
}

/// A journal being written: each record some seconds after the start.
pub struct Story {
    records: Vec<Record>,
}

impl Story {
    /// An incident that was just opened.
    pub fn open(kind: Kind) -> Self {
        let target = if kind == Kind::Drill { "shop @ sandbox" } else { "shop @ db1.example" };
        let mut story = Self { records: vec![] };
        story.add(
            0,
            vec![Event::IncidentOpened {
                id: IncidentId::new("20261120T1402Z-database-corruption-7f3a"),
                kind,
                scenario: "database-corruption".into(),
                title: "Database corruption".into(),
                plan: Digest::new("d".repeat(64)),
                severity: Some("P0".into()),
                rto_ms: Some(4 * 3_600_000),
                rpo_ms: Some(3_600_000),
                program: "0.1.0".into(),
                target: Some(target.into()),
                expect: BTreeMap::from([("database".to_string(), "shop".to_string())]),
            }],
        );
        story
    }
    /// Adds a record; its number is returned.
    pub fn add(&mut self, seconds: u64, events: Vec<Event>) -> u64 {
        let record = next(&self.records, &now(seconds), &Actor::new("ben@bastion"), "test", events);
        let seq = record.seq.0;
        self.records.push(record);
        seq
    }
    /// A step worked from one second to another.
    pub fn step(&mut self, n: usize, from: u64, to: u64) {
        self.add(from, vec![Event::StepStarted { step: StepId::new(format!("s{n}")) }]);
        self.add(to, vec![Event::StepDone { step: StepId::new(format!("s{n}")) }]);
    }
    /// A run asked for and started.
    pub fn run(&mut self, n: usize, action: &str, shown: &str, risk: Risk, from: u64) -> RunId {
        let step = StepId::new(format!("s{n}"));
        let request = Event::RunRequested {
            step: Some(step.clone()),
            block_line: Some(n as u32 * 10 + 2),
            action: action.into(),
            shown: shown.into(),
            args: vec![],
            risk,
            confirmed: None,
        };
        let run = RunId(self.add(from, vec![Event::StepStarted { step }, request]));
        self.add(from, vec![Event::RunStarted { run, pid: 4711, host: "bastion".into(), program: "0.1.0".into() }]);
        run
    }
    /// The end of a run, and what it learned.
    pub fn finish(&mut self, run: RunId, to: u64, outcome: Outcome, summary: &str, facts: Vec<Event>) {
        let mut events = vec![Event::RunFinished {
            run,
            outcome,
            exit_code: i32::from(outcome != Outcome::Succeeded),
            summary: summary.into(),
            duration_ms: 9_400,
            output: OutputSeal { bytes: 512, lines: 7, dropped_lines: 0, sha256: None },
        }];
        events.extend(facts);
        self.add(to, events);
    }
    /// Its timeline, as it is exported.
    pub fn rows(&self) -> Vec<String> {
        let state = State::fold(&self.records).unwrap();
        let rows = self.records.iter().flat_map(|r| breakglass::export::rows_of(r, &state, None));
        rows.map(|r| r.what).collect()
    }
    /// The console's read model of it.
    pub fn data(&self) -> Incident {
        let state = State::fold(&self.records).unwrap();
        let timeline = self
            .records
            .iter()
            .map(|r| TimelineRow {
                seq: r.seq,
                at: r.occurred_at,
                recorded: r.recorded_at,
                actor: r.actor.clone(),
                kind: kind_of(&r.events[r.events.len() - 1]),
                text: CleanText::text(&said(&r.events[r.events.len() - 1])),
            })
            .collect();
        Incident {
            state,
            scenario: Arc::new(scenario()),
            plan: Arc::new(plan()),
            environment: Arc::default(),
            held: Arc::default(),
            timeline: Arc::new(timeline),
            times: Arc::new(BTreeMap::from([
                (StepId::new("s6"), vec![Duration::from_secs(180); 3]),
                (StepId::new("s7"), vec![Duration::from_secs(90); 3]),
                (StepId::new("s8"), vec![Duration::from_secs(20); 3]),
            ])),
            plan_damage: None,
            recording: Recording::On,
            workers: BTreeMap::new(),
            progress: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }
}

fn kind_of(event: &Event) -> RowKind {
    match event {
        Event::IncidentOpened { .. }
        | Event::IncidentDeclared { .. }
        | Event::ImpactStarted { .. }
        | Event::IncidentClosed { .. } => RowKind::Incident,
        Event::StepStarted { .. } | Event::StepDone { .. } => RowKind::Step,
        Event::RunStarted { .. } | Event::RunRequested { .. } => RowKind::Run,
        Event::RunFinished { outcome: Outcome::Succeeded, .. } => RowKind::Good,
        Event::RunFinished { .. } => RowKind::Bad,
        Event::NoteAdded { .. } => RowKind::Note,
        Event::RunOutcomeUnknown { .. } | Event::GateWaived { .. } => RowKind::Attention,
        _ => RowKind::Fact,
    }
}

fn said(event: &Event) -> String {
    match event {
        Event::IncidentOpened { title, .. } => format!("opened: {title}"),
        Event::IncidentDeclared { severity } => format!("declared as {severity}"),
        Event::ImpactStarted { at, source, .. } => format!("impact began {} ({source})", at.hms()),
        Event::StepStarted { step } => format!("step {step} started"),
        Event::StepDone { step } => format!("step {step} done"),
        Event::RunStarted { run, .. } => format!("run {run} started"),
        Event::RunFinished { run, summary, .. } => format!("run {run}: {summary}"),
        Event::NoteAdded { text } => text.clone(),
        Event::MomentsFound { candidates } => format!("{} moments found", candidates.len()),
        Event::MomentChosen { target, .. } => format!("restore to before {target}"),
        Event::RunOutcomeUnknown { run } => format!("run {run}: outcome unknown"),
        Event::IncidentClosed { summary } => format!("closed: {summary}"),
        Event::BleedingStopped { .. } => "writes are off".into(),
        other => format!("{other:?}").chars().take(40).collect(),
    }
}

/// The identity of the damaged database.
pub fn identity() -> Identity {
    serde_json::from_value(serde_json::json!({
        "system_identifier": "7412345678901234567", "database": "shop", "host": "/run/drill", "port": 5432,
        "version_num": 150_020, "in_recovery": false, "timeline": 1,
    }))
    .unwrap()
}

/// Two suspects.
pub fn candidates() -> Vec<Candidate> {
    vec![
        Candidate {
            target: RecoveryTarget::Lsn("0/5A2F118".into()),
            at: Time::parse("2026-11-20T14:01:07Z").unwrap(),
            xid: Some("73114".into()),
            lsn: Some("0/5A2F118".into()),
            tables: vec!["public.orders".into(), "public.customers".into()],
            rows: 48_312,
            what: "one transaction rewrote total_cents and address of orders, far more rows than its neighbours".into(),
            loses: Loss {
                window_ms: 333_000,
                transactions: Some(4120),
                rows: BTreeMap::from([("orders".into(), 3980), ("payments".into(), 3877)]),
                at_most: false,
            },
        },
        Candidate {
            target: RecoveryTarget::Xid("71002".into()),
            at: Time::parse("2026-11-20T13:48:40Z").unwrap(),
            xid: Some("71002".into()),
            lsn: None,
            tables: vec!["public.products".into()],
            rows: 210,
            what: "a price change of 210 products".into(),
            loses: Loss { window_ms: 1_080_000, transactions: None, rows: BTreeMap::new(), at_most: true },
        },
    ]
}

/// The log over time: busy, with a pause, a gap, two backups, and the suspects of [`candidates`].
pub fn axis() -> breakglass::recovery::axis::Axis {
    use breakglass::postgres::Lsn;
    use breakglass::recovery::axis::{Axis, BackupMark};
    use breakglass::recovery::predict::{Run, Throughput};
    use breakglass::recovery::wal_locate::Activity;
    let time = |text: &str| Time::parse(&format!("2026-11-20T{text}Z")).unwrap();
    let (first, last) = (time("13:20:00"), time("14:06:40"));
    let mut activity = Activity::default();
    for s in 0..2800u64 {
        let at = first.plus(Duration::from_secs(s));
        // Nobody was there for three minutes; around 14:01 everybody was.
        let n = if (1200..1380).contains(&s) { 0 } else { 3 + s % 5 + if (2400..2520).contains(&s) { 12 } else { 0 } };
        (0..n).for_each(|_| activity.add(at));
    }
    let run = |bytes, files_ms, log_bytes, replay_ms| Run { at: first, bytes, files_ms, log_bytes, replay_ms };
    Axis {
        span: Some((first, last)),
        activity,
        backups: vec![
            BackupMark { at: time("13:30:00"), start: Lsn(0x200_0028), bytes: 1_710_000_000 },
            BackupMark { at: time("13:56:00"), start: Lsn(0x400_0028), bytes: 1_712_000_000 },
        ],
        gaps: vec![(time("13:43:00"), time("13:44:30"))],
        suspects: vec![time("14:01:07")],
        places: vec![
            (first, Lsn(0x100_0000)),
            (time("13:40:00"), Lsn(0x280_0000)),
            (time("14:00:00"), Lsn(0x500_0000)),
            (last, Lsn(0x5F0_0000)),
        ],
        throughput: Throughput::of(vec![
            run(1_700_000_000, 3100, 64_000_000, 2100),
            run(1_700_000_000, 3300, 900_000_000, 7400),
        ]),
        unread: 2,
    }
}

/// The story up to the recovery, which is running: the picture of the design.
pub fn recovering(kind: Kind) -> (Story, RunId) {
    let mut s = Story::open(kind);
    s.add(
        5,
        vec![Event::ImpactStarted {
            at: at(0).minus(Duration::from_secs(420)),
            source: "first report".into(),
            moved_from: None,
        }],
    );
    let run = s.run(1, "health", "breakglass health", Risk::Read, 6);
    s.finish(
        run,
        15,
        Outcome::Succeeded,
        "all components healthy",
        vec![
            Event::HealthSeen {
                healthy: true,
                components: BTreeMap::from([("api".into(), "ok".into()), ("database".into(), "ok".into())]),
            },
            Event::TargetSeen { role: "source".into(), identity: identity() },
        ],
    );
    s.add(40, vec![Event::StepDone { step: StepId::new("s1") }]);
    s.add(45, vec![Event::IncidentDeclared { severity: "P0".into() }]);
    s.step(2, 45, 57);
    let run = s.run(3, "contain", "breakglass contain", Risk::Change, 60);
    s.finish(
        run,
        78,
        Outcome::Succeeded,
        "writes off, release stopped, log archived to 0/61A0000",
        vec![Event::BleedingStopped {
            done: vec!["writes off".into(), "release stopped".into(), "log archived".into()],
            archived_lsn: Some("0/61A0000".into()),
        }],
    );
    s.add(80, vec![Event::StepDone { step: StepId::new("s3") }]);
    let run = s.run(4, "assess", "breakglass assess", Risk::Read, 82);
    s.finish(
        run,
        140,
        Outcome::Succeeded,
        "2 tables damaged, at most 48 312 rows",
        vec![
            Event::DamageAssessed {
                findings: vec!["orders.total_cents differs".into()],
                rows: BTreeMap::from([("public.orders".into(), 46_200), ("public.customers".into(), 2112)]),
            },
            Event::ExposureSampled {
                exposure_ms: 8000,
                at_most: true,
                lsn: None,
                last_commit: None,
                source: "archiver".into(),
            },
        ],
    );
    s.add(210, vec![Event::StepDone { step: StepId::new("s4") }]);
    s.add(150, vec![Event::NoteAdded { text: "support has 3 tickets about wrong totals since 13:58".into() }]);
    let run = s.run(5, "pitr locate", "breakglass pitr locate", Risk::Read, 212);
    s.finish(run, 250, Outcome::Succeeded, "2 moments found", vec![Event::MomentsFound { candidates: candidates() }]);
    let c = &candidates()[0];
    s.add(262, vec![Event::MomentChosen { target: c.target.clone(), at: Some(c.at), loses: Some(c.loses.clone()) }]);
    s.add(264, vec![Event::StepDone { step: StepId::new("s5") }]);
    let run = s.run(6, "pitr restore", "breakglass pitr restore --to lsn:0/5A2F118 --into beside", Risk::Change, 269);
    (s, run)
}

/// Lines in memory.
#[derive(Default)]
pub struct Memory {
    /// Lines that are gone.
    pub dropped: u64,
    /// Lines that are there.
    pub lines: Mutex<Vec<CleanText>>,
}

impl Memory {
    /// Some lines.
    pub fn of(dropped: u64, lines: &[&str]) -> Arc<Self> {
        Arc::new(Self { dropped, lines: Mutex::new(lines.iter().map(|l| CleanText::line(l.as_bytes())).collect()) })
    }
}

impl Lines for Memory {
    fn total(&self) -> u64 {
        self.dropped + self.lines.lock().unwrap().len() as u64
    }
    fn first(&self) -> u64 {
        self.dropped
    }
    fn read(&self, from: u64, count: usize) -> Vec<CleanText> {
        let skip = from.saturating_sub(self.dropped) as usize;
        self.lines.lock().unwrap().iter().skip(skip).take(count).cloned().collect()
    }
}

/// Output of the restore.
pub const RESTORE_OUTPUT: &[&str] = &[
    "14:06:29 base backup 20261120T1330Z, timeline 1, 1.71 GB",
    "14:06:29 restoring into /var/tmp/bg-7f3a/shadow",
    "14:07:31 restored base backup 20261120T1330Z",
    "14:07:32 starting the shadow: no TCP, no archiving, own socket",
    "14:07:33 redo starts at 0/5A00028",
    "14:07:40 replaying 00000001000000000000005A",
    "14:07:43 consistent state reached at 0/5A00138",
];

/// The incident of [`recovering`] with its progress and output.
pub fn recovering_data(kind: Kind) -> Incident {
    let (story, run) = recovering(kind);
    let mut data = story.data();
    data.workers.insert(run, Worker::Alive);
    data.progress.insert(
        run,
        Progress {
            phases: vec![
                ProgressPhase {
                    name: "files".into(),
                    done: 1_710_000_000,
                    total: Some(1_710_000_000),
                    unit: "bytes".into(),
                    text: String::new(),
                    rate: Some(212_000_000),
                },
                ProgressPhase {
                    name: "replay".into(),
                    done: 640,
                    total: Some(1000),
                    unit: "ms".into(),
                    text: "14:00:21→14:01:07".into(),
                    rate: None,
                },
            ],
            eta_ms: Some(41_000),
        },
    );
    data.outputs.insert(run, Output { lines: Memory::of(0, RESTORE_OUTPUT), file: format!("runs/{run}/output.log") });
    data
}

/// What the plan says beside its steps.
pub const BESIDE: &str = "# Database recovery

## Recovery objectives

- **RTO**: 4 hours
- **RPO**: 1 hour

## Severity levels

| Level | Response time | Escalation |
|---|---|---|
| P0 | 15 minutes | 30 minutes |
| P1 | 1 hour | 4 hours |

## Contacts

| Role | Name | Phone |
|---|---|---|
| Database lead | Amy | +1 555 0100 |
| Status page | [Name] | |

## Communication templates

### First notice

```text
Subject: [Service Name] is down

We are looking at it since [Time]. Next update in 30 minutes.
```

## Post-incident checklist

- [ ] New backup taken
- [ ] Passwords changed

## Scenario 1: Database corruption

See [the region plan](region.md#region-outage) and [contacts](#contacts).

1. Confirm the damage
2. Restore

## Scenario 2: Lost table

1. Find the moment
";

/// [`BESIDE`] as it is understood.
pub fn plan() -> breakglass::model::Plan {
    breakglass::plan::parse("database.md", BESIDE.as_bytes()).expect("the plan opens")
}

/// What home lists.
pub fn home() -> Home {
    let row = |title: &str,
               group: Option<&str>,
               level: &str,
               rto: u64,
               rpo: u64,
               drill: Option<LastDrill>,
               rehearsable: bool| {
        let mut s = scenario();
        s.slug = title.to_lowercase().replace(' ', "-");
        s.title = title.into();
        s.group = group.map(String::from);
        s.severity = Some(Severity { level: level.into(), raw: level.into(), ..Default::default() });
        s.rto_s = Some(rto);
        s.rpo_s = Some(rpo);
        ScenarioRow {
            file: format!("{}.md", s.slug),
            plan: Arc::default(),
            scenario: Arc::new(s),
            last_drill: drill,
            rehearsable,
            times: Arc::default(),
        }
    };
    let days = |n: u64| start().minus(Duration::from_secs(n * 86_400));
    Home {
        scenarios: vec![
            row(
                "Database corruption",
                None,
                "P0",
                14_400,
                3600,
                Some(LastDrill {
                    at: days(12),
                    took: Some(Duration::from_secs(1092)),
                    objective: Some(Duration::from_secs(1800)),
                    passed: Some(true),
                }),
                true,
            ),
            row(
                "Region outage",
                None,
                "P0",
                28_800,
                3600,
                Some(LastDrill {
                    at: days(96),
                    took: Some(Duration::from_secs(30_500)),
                    objective: Some(Duration::from_secs(28_800)),
                    passed: Some(false),
                }),
                false,
            ),
            row("Someone deleted the wrong thing", None, "P1", 7200, 300, None, false),
            row("Leaked credentials", Some("Security"), "P0", 3600, 0, None, false),
            row(
                "Ransomware",
                Some("Security"),
                "P0",
                86_400,
                86_400,
                Some(LastDrill { at: days(200), took: None, objective: None, passed: None }),
                false,
            ),
        ],
        plans: vec![Arc::new(plan())],
        incidents: vec![],
        secrets: [("Database password", Some(100), 90), ("Session key", Some(20), 90), ("Backup key", None, 90)]
            .map(|(name, ago, every)| breakglass::app::data::SecretRow {
                name: name.into(),
                from: "security-breach.md".into(),
                how: "New password for the role, then the service is restarted".into(),
                impact: "1 to 2 minutes of errors".into(),
                every: Duration::from_secs(every * 86_400),
                rotated: ago.map(days),
            })
            .to_vec(),
        problems: vec![],
    }
}

/// Open incidents for home.
pub fn incidents() -> Vec<IncidentRow> {
    let row = |id: &str, kind, title: &str, since: u64, running, unknown, done| IncidentRow {
        id: IncidentId::new(id),
        kind,
        title: title.into(),
        severity: Some("P0".into()),
        since: start().minus(Duration::from_secs(since)),
        rto: Some(Duration::from_secs(14_400)),
        restored: None,
        steps: (done, 9),
        running,
        unknown,
    };
    vec![
        row("20261120T1402Z-database-corruption-7f3a", Kind::Real, "Database corruption", 420, 1, 0, 5),
        row("20261119T0900Z-region-outage-0c11", Kind::Drill, "Region outage", 104_000, 0, 1, 2),
    ]
}

/// Actions as the registry names them.
pub fn actions() -> BTreeMap<String, Risk> {
    [
        ("health", Risk::Read),
        ("contain", Risk::Change),
        ("assess", Risk::Read),
        ("pitr locate", Risk::Read),
        ("pitr restore", Risk::Change),
        ("pitr verify", Risk::Read),
        ("pitr promote", Risk::Destroy),
    ]
    .into_iter()
    .map(|(n, r)| (n.to_string(), r))
    .collect()
}

/// An app at a size, `seconds` after the start, home read.
pub fn app(size: (u16, u16), seconds: u64) -> App {
    let env = Env {
        actor: Actor::new("ben@bastion"),
        actions: actions(),
        registry: breakglass::cli::registry(),
        ..Env::default()
    };
    let mut app = App::new(env, Settings::default(), size, now(seconds));
    update(&mut app, Msg::Home(Box::new(home())), now(seconds));
    app
}

/// An app with an incident open.
pub fn with_incident(size: (u16, u16), seconds: u64, data: Incident) -> App {
    let mut app = app(size, seconds);
    update(&mut app, Msg::Opened(Box::new(data)), now(seconds));
    app
}

/// Types keys, such as `j j enter` or `n "support called" enter` (text in quotes is typed as it is), each after a frame,
/// as the loop does it. The time stands still.
pub fn press(app: &mut App, keys: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut rest = keys.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (text, after) = quoted.split_once('"').expect("a closing quote");
            for c in text.chars() {
                effects.extend(key(app, Key::char(c)));
            }
            rest = after.trim_start();
        } else {
            let (one, after) = rest.split_once(' ').unwrap_or((rest, ""));
            for k in parse_keys(one).expect("a key") {
                effects.extend(key(app, k));
            }
            rest = after.trim_start();
        }
    }
    effects
}

/// One key, through the key map, after a frame.
pub fn key(app: &mut App, key: Key) -> Vec<Effect> {
    let keymap = Keymap::default();
    render(app);
    match breakglass::tui::translate(app, &keymap, key) {
        Some(msg) => {
            let now = app.now.clone();
            update(app, msg, now)
        }
        None => vec![],
    }
}

/// Draws the app as it is and keeps what was shown.
pub fn render(app: &mut App) -> Buffer {
    render_with(app, &Theme::named("default", Depth::True).unwrap())
}

/// Draws the app in a theme.
pub fn render_with(app: &mut App, theme: &Theme) -> Buffer {
    let keymap = Keymap::default();
    let look = Look { theme, keymap: &keymap, ascii: app.settings.ascii };
    let mut buffer = Buffer::empty(Rect::new(0, 0, app.size.0, app.size.1));
    app.shown = draw(&mut buffer, app, &look);
    buffer
}

/// The text of a screen, rows without blanks at their ends.
pub fn text(buffer: &Buffer) -> String {
    let mut out = String::new();
    for y in 0..buffer.area.height {
        let mut skip = 0;
        let mut row = String::new();
        for x in 0..buffer.area.width {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let symbol = buffer[(x, y)].symbol();
            row.push_str(symbol);
            skip = unicode_width::UnicodeWidthStr::width(symbol).saturating_sub(1);
        }
        out.push_str(row.trim_end());
        out.push('\n');
    }
    out
}

/// A check of a verification.
pub fn check(name: &str, verdict: Verdict) -> Check {
    Check { name: name.into(), verdict, detail: "as expected".into() }
}
