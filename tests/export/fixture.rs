//! Incidents made by hand, with journals that verify.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use breakglass::journal::record::{self, sha256_hex};
use breakglass::journal::{Head, files};
use breakglass::model::event::{Check, Outcome, OutputSeal, Verdict};
use breakglass::model::plan::{Item, Objective};
use breakglass::model::target::{Candidate, Identity, Loss, RecoveryTarget};
use breakglass::model::{
    Actor, Digest, Event, IncidentId, Kind, Phase, Plan, Record, Risk, RunId, Scenario, Seq, Step, StepId, Time,
};

pub const ID: &str = "20261120T1401Z-database-corruption-7f3a";

/// Writes a journal line by line, at times of its own choosing.
pub struct Pen {
    pub state: tempfile::TempDir,
    pub dir: PathBuf,
    head: Head,
    bytes: Vec<u8>,
    start: Time,
    plan: Digest,
}

pub fn check(name: &str, verdict: Verdict, detail: &str) -> Check {
    Check { name: name.into(), verdict, detail: detail.into() }
}

pub fn identity(system: &str) -> Identity {
    Identity {
        system_identifier: system.into(),
        database: "shop".into(),
        host: "/tmp/bg-drill/s".into(),
        port: 5433,
        version_num: 150_020,
        in_recovery: false,
        timeline: 1,
        data_directory: None,
        other_databases: vec![],
    }
}

fn step(n: usize, title: &str, phase: Phase, minutes: u64, items: usize) -> Step {
    Step {
        id: StepId::new(format!("s{n}")),
        title: title.into(),
        phase: Some(phase),
        estimate_s: Some(minutes * 60),
        items: (0..items).map(|i| Item { title: format!("item {i}"), ..Item::default() }).collect(),
        ..Step::default()
    }
}

/// The plan of the fixtures.
pub fn plan(title: &str) -> Plan {
    let steps = vec![
        step(1, title, Phase::Detect, 2, 2),
        step(2, "Declare", Phase::Declare, 1, 4),
        step(3, "Stop the bleeding", Phase::Contain, 2, 0),
        step(4, "Assess", Phase::Assess, 3, 3),
        step(5, "Choose the moment", Phase::Decide, 2, 0),
        step(6, "Recover beside the damaged database", Phase::Recover, 4, 0),
        step(7, "Verify", Phase::Verify, 2, 2),
        step(8, "Promote", Phase::Promote, 1, 0),
        step(9, "Take a new base backup", Phase::Protect, 2, 0),
        step(10, "Salvage what came after", Phase::Protect, 2, 2),
        step(11, "Tell", Phase::Communicate, 2, 0),
        step(12, "Close", Phase::Close, 1, 6),
    ];
    let mtd = Objective { metric: "mtd".into(), seconds: Some(86_400), ..Objective::default() };
    let scenario = Scenario {
        slug: "database-corruption".into(),
        title: "Database corruption".into(),
        rto_s: Some(14_400),
        rpo_s: Some(3600),
        steps,
        objectives: vec![mtd],
        ..Scenario::default()
    };
    Plan {
        title: "Database corruption".into(),
        file: "database-corruption.md".into(),
        digest: Some(Digest::new(sha256_hex(b"the document"))),
        scenarios: vec![scenario],
        ..Plan::default()
    }
}

impl Pen {
    /// A state directory with one incident that has this plan and no records yet.
    pub fn new(plan: &Plan) -> Self {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().join("incidents").join(ID);
        let bytes = serde_json::to_vec(plan).unwrap();
        let digest = sha256_hex(&bytes);
        let folder = dir.join("plan").join(&digest);
        files::create_dir(&folder).unwrap();
        std::fs::write(folder.join("plan.json"), bytes).unwrap();
        let start = Time::parse("2026-11-20T14:01:07Z").unwrap();
        Self { state, dir, head: Head::empty(), bytes: Vec::new(), start, plan: Digest::new(digest) }
    }
    pub fn at(&self, seconds: i64) -> Time {
        Time::from_micros(self.start.micros() + seconds * 1_000_000)
    }
    pub fn head(&self) -> &Head {
        &self.head
    }
    /// Adds a record `seconds` after the start; `said` is when it is said to have happened, if earlier.
    pub fn record_said(&mut self, seconds: i64, said: i64, actor: &str, events: Vec<Event>) -> u64 {
        let mut record = Record {
            v: 1,
            seq: Seq(self.head.seq.0 + 1),
            command: "test".into(),
            occurred_at: self.at(said),
            recorded_at: self.at(seconds),
            up_ms: 100_000 + u64::try_from(seconds.max(0)).unwrap() * 1000,
            boot: "7397e74b-b466-4e09-b53f-42a28d5c34eb".into(),
            actor: Actor::new(actor),
            events,
            prev: self.head.hash.clone(),
            hash: Digest::new(""),
        };
        self.bytes.extend(record::encode(&mut record).unwrap());
        self.head = Head::after(&record);
        std::fs::write(self.dir.join("journal.jsonl"), &self.bytes).unwrap();
        record.seq.0
    }
    pub fn record(&mut self, seconds: i64, actor: &str, events: Vec<Event>) -> u64 {
        self.record_said(seconds, seconds, actor, events)
    }
    pub fn open(&mut self, title: &str, target: &str) {
        let opened = Event::IncidentOpened {
            id: IncidentId::new(ID),
            kind: Kind::Drill,
            scenario: "database-corruption".into(),
            title: title.into(),
            plan: self.plan.clone(),
            severity: Some("P0".into()),
            rto_ms: Some(900_000),
            rpo_ms: Some(300_000),
            program: "0.1.0".into(),
            target: Some(target.into()),
            expect: BTreeMap::new(),
        };
        self.record(0, "amy@bastion", vec![opened]);
    }
    /// A run of a step from one second to another, how it exits, and what it learned.
    pub fn run(
        &mut self,
        step: usize,
        span: (i64, i64),
        actor: &str,
        asked: (&str, Risk),
        exit: i32,
        facts: Vec<Event>,
    ) {
        let ((from, to), (shown, risk)) = (span, asked);
        let action = shown.trim_start_matches("breakglass ").split(" --").next().unwrap().to_string();
        let confirmed = (risk == Risk::Destroy).then(|| "shop @ sandbox".to_string());
        let requested = Event::RunRequested {
            step: Some(StepId::new(format!("s{step}"))),
            block_line: Some(10),
            action,
            shown: shown.into(),
            args: vec![],
            risk,
            confirmed,
        };
        let run = RunId(self.record(from, actor, vec![requested]));
        self.record(
            from,
            "breakglass",
            vec![Event::RunStarted { run, pid: 4711, host: "bastion".into(), program: "0.1.0".into() }],
        );
        let outcome = if exit == 0 { Outcome::Succeeded } else { Outcome::Failed };
        let finished = Event::RunFinished {
            run,
            outcome,
            exit_code: exit,
            summary: if exit == 0 { "done".into() } else { "connection refused".into() },
            duration_ms: u64::try_from(to - from).unwrap() * 1000,
            output: OutputSeal {
                bytes: 1840,
                lines: 23,
                dropped_lines: 0,
                sha256: Some(Digest::new(sha256_hex(shown.as_bytes()))),
            },
        };
        self.record(to, "breakglass", [vec![finished], facts].concat());
    }
    pub fn start(&mut self, seconds: i64, actor: &str, step: usize) {
        self.record(seconds, actor, vec![Event::StepStarted { step: StepId::new(format!("s{step}")) }]);
    }
    pub fn done(&mut self, seconds: i64, actor: &str, step: usize) {
        self.record(seconds, actor, vec![Event::StepDone { step: StepId::new(format!("s{step}")) }]);
    }
}

pub fn map<V: Clone>(pairs: &[(&str, V)]) -> BTreeMap<String, V> {
    pairs.iter().map(|(k, v)| ((*k).to_string(), v.clone())).collect()
}

/// A whole drill, as it usually goes: one failed run, one overdue step, one skipped step.
pub fn drill() -> Pen {
    let mut p = Pen::new(&plan("Detect"));
    p.open("Database corruption", "shop @ sandbox");
    let (amy, ben) = ("amy@bastion", "ben@bastion");
    p.record(
        0,
        "breakglass",
        vec![Event::DrillPrepared { scratch: "/tmp/bg-drill".into(), size: 1, setup_ms: 8_400, bytes: 171_000_000 }],
    );
    p.start(2, amy, 1);
    let healthy =
        |h| Event::HealthSeen { healthy: h, components: map(&[("api", "ok".to_string()), ("database", "ok".into())]) };
    p.run(
        1,
        (5, 6),
        amy,
        ("breakglass health", Risk::Read),
        0,
        vec![healthy(true), Event::TargetSeen { role: "source".into(), identity: identity("7400000000000000001") }],
    );
    p.record_said(
        40,
        31,
        amy,
        vec![Event::NoteAdded { text: "Support reports two orders with wrong totals: 4711 and 4802".into() }],
    );
    p.record(
        41,
        amy,
        vec![
            Event::ItemTicked { step: StepId::new("s1"), item: 0, done: true },
            Event::ItemTicked { step: StepId::new("s1"), item: 1, done: true },
        ],
    );
    p.done(43, amy, 1);
    p.start(43, amy, 2);
    p.record(
        50,
        amy,
        vec![
            Event::IncidentDeclared { severity: "P0".into() },
            Event::ImpactStarted { at: p.at(-95), source: "first report of a customer".into(), moved_from: None },
        ],
    );
    p.record(
        51,
        amy,
        vec![Event::MessageSent {
            audience: "#incident".into(),
            text: "Orders are being stored wrongly since about 14:00.\nWe are stopping writes now.".into(),
            how: None,
            step: None,
        }],
    );
    p.done(55, amy, 2);
    p.start(55, ben, 3);
    p.run(
        3,
        (57, 75),
        ben,
        ("breakglass contain", Risk::Change),
        0,
        vec![
            Event::BleedingStopped {
                done: vec![
                    "writes off at the service".into(),
                    "release 2026.11.3 stopped".into(),
                    "log switched, segment 00000001000000000000005A archived".into(),
                ],
                archived_lsn: Some("0/5B000000".into()),
            },
            Event::ExposureSampled {
                exposure_ms: 0,
                at_most: false,
                lsn: Some("0/5B000000".into()),
                last_commit: Some(p.at(70)),
                source: "archiver".into(),
            },
        ],
    );
    p.done(76, ben, 3);
    p.start(76, ben, 4);
    p.run(
        4,
        (80, 205),
        ben,
        ("breakglass assess", Risk::Read),
        0,
        vec![Event::DamageAssessed {
            findings: vec!["one transaction rewrote 38 % of all orders".into()],
            rows: map(&[("public.orders", 41_208u64), ("public.customers", 3_120)]),
        }],
    );
    p.record(206, ben, vec![Event::StepReopened { step: StepId::new("s1"), reason: "a third report came in".into() }]);
    p.done(221, amy, 1);
    p.done(282, ben, 4);
    p.start(282, amy, 5);
    let loss =
        Loss { window_ms: 158_000, transactions: Some(1_412), rows: map(&[("public.orders", 640u64)]), at_most: false };
    let target = RecoveryTarget::Lsn("0/5A2F118".into());
    p.run(
        5,
        (284, 301),
        amy,
        ("breakglass pitr locate", Risk::Read),
        0,
        vec![
            Event::RangeSeen { earliest: Some(p.at(-3600)), latest: Some(p.at(70)), holes: vec![] },
            Event::MomentsFound {
                candidates: vec![Candidate {
                    target: target.clone(),
                    at: p.at(-92),
                    xid: Some("73114".into()),
                    lsn: Some("0/5A2F118".into()),
                    tables: vec!["public.orders".into(), "public.customers".into()],
                    rows: 44_328,
                    what: "UPDATE of orders and customers".into(),
                    loses: loss.clone(),
                }],
            },
        ],
    );
    p.record(
        318,
        amy,
        vec![Event::MomentChosen { target: target.clone(), at: Some(p.at(-92)), loses: Some(loss.clone()) }],
    );
    p.done(320, amy, 5);
    p.start(320, ben, 6);
    p.run(
        6,
        (322, 325),
        ben,
        ("breakglass pitr restore --to \"lsn:0/5A2F118\" --into beside", Risk::Change),
        3,
        vec![],
    );
    p.record(
        331,
        ben,
        vec![Event::NoteAdded { text: "The socket path was too long; shorter scratch directory set".into() }],
    );
    p.run(
        6,
        (335, 590),
        ben,
        ("breakglass pitr restore --to \"lsn:0/5A2F118\" --into beside", Risk::Change),
        0,
        vec![Event::ShadowBuilt {
            host: "/tmp/bg-drill/shadow".into(),
            port: 5434,
            data_directory: "/tmp/bg-drill/shadow/data".into(),
            target,
            backup: "20261120T1330Z-base".into(),
            reached_lsn: "0/5A2F0C8".into(),
            reached_time: Some(p.at(-93)),
            bytes: 171_000_000,
            files_ms: 41_000,
            replay_ms: 208_000,
        }],
    );
    p.done(593, ben, 6);
    p.start(593, ben, 7);
    p.run(
        7,
        (595, 640),
        ben,
        ("breakglass pitr verify", Risk::Read),
        0,
        vec![
            Event::TargetSeen { role: "shadow".into(), identity: identity("7400000000000000001") },
            Event::ShadowVerified {
                passed: true,
                checks: vec![
                    check("rows", Verdict::Passed, "5 tables, 181 402 rows"),
                    check("fingerprint public.products", Verdict::Passed, "unchanged"),
                    check("constraints", Verdict::Passed, "17 foreign keys hold"),
                    check("sequences", Verdict::Passed, "all ahead of their columns"),
                    check("amcheck", Verdict::NotAvailable, "the extension is not installed"),
                ],
            },
        ],
    );
    p.done(645, ben, 7);
    p.start(645, amy, 8);
    p.run(
        8,
        (655, 668),
        amy,
        ("breakglass pitr promote", Risk::Destroy),
        0,
        vec![
            Event::Promoted {
                identity: Identity { timeline: 2, ..identity("7400000000000000001") },
                kept: "/tmp/bg-drill/damaged".into(),
            },
            Event::LossMeasured { loss },
            healthy(true),
        ],
    );
    p.record(
        674,
        "breakglass",
        vec![Event::ServiceRestored { at: p.at(674), how: "verified and healthy for 5 s".into() }],
    );
    p.done(675, amy, 8);
    p.start(675, ben, 9);
    p.run(
        9,
        (677, 701),
        ben,
        ("breakglass backup create --physical", Risk::Change),
        0,
        vec![Event::BackupTaken {
            id: "20261120T1412Z-base".into(),
            bytes: 58_400_000,
            timeline: 2,
            verified: true,
            taken_at: None,
        }],
    );
    p.done(702, ben, 9);
    p.start(702, amy, 10);
    p.run(
        10,
        (704, 722),
        amy,
        ("breakglass pitr salvage --out salvage", Risk::Read),
        0,
        vec![Event::SalvageWritten {
            folder: "salvage".into(),
            rows: map(&[("public.orders", 640u64), ("public.payments", 611)]),
            files: map(&[("orders.csv", Digest::new(sha256_hex(b"orders")))]),
        }],
    );
    p.done(730, amy, 10);
    p.record(731, amy, vec![Event::StepSkipped { step: StepId::new("s11"), reason: "a drill: nobody to tell".into() }]);
    p.start(732, amy, 12);
    p.record(
        741,
        "breakglass",
        vec![Event::DrillJudged {
            passed: true,
            checks: vec![
                check("damaged rows right again", Verdict::Passed, "44 328 of 44 328"),
                check("orders before the moment present", Verdict::Passed, "all 60 118"),
                check("reported loss equals the loss", Verdict::Passed, "1 412 transactions"),
            ],
            injected_at: Some(p.at(-92)),
        }],
    );
    p.done(744, amy, 12);
    p.record(
        745,
        amy,
        vec![Event::IncidentClosed {
            summary: "Faulty release 2026.11.3 rewrote order totals; recovered by PITR.".into(),
        }],
    );
    p
}

/// Reads a whole file.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
