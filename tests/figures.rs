//! `report` over 200 generated incidents, against figures computed here in another way.

use std::collections::BTreeMap;

use breakglass::journal::{Append, Draft, FileJournal, Journal};
use breakglass::model::event::{Check, Event, Kind, Outcome, OutputSeal, Verdict};
use breakglass::model::plan::Risk;
use breakglass::model::target::Loss;
use breakglass::model::{Actor, Digest, IncidentId, RunId, Time};
use serde_json::Value;

const DAY: i64 = 86_400_000;
const SCENARIOS: [&str; 4] = ["database-corruption", "data-deletion", "regional-outage", "application-failure"];

/// Numbers that are the same every time (a linear congruential generator; constants by Knuth).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[derive(Debug, Clone)]
struct Made {
    drill: bool,
    table: bool,
    scenario: &'static str,
    start_ms: i64,
    took_ms: Option<i64>,
    rto_ms: Option<i64>,
    lost_ms: Option<i64>,
    rows: u64,
    rpo_ms: Option<i64>,
    closed: bool,
    backups: Vec<Outcome>,
    restores: Vec<Outcome>,
    judged: Option<bool>,
}

fn made(n: u64) -> Vec<Made> {
    let mut d = Dice(42);
    let first = Time::parse("2025-01-03T04:05:06Z").unwrap().micros() / 1000;
    let outcomes = [Outcome::Succeeded, Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled, Outcome::Refused];
    (0..n)
        .map(|_| {
            let some = |d: &mut Dice, of: u64| (d.below(5) > 0).then(|| d.below(of) as i64);
            Made {
                drill: d.below(3) == 0,
                table: d.below(3) == 0,
                scenario: SCENARIOS[d.below(4) as usize],
                start_ms: first + d.below(600) as i64 * DAY + d.below(DAY as u64) as i64,
                took_ms: some(&mut d, 20_000_000),
                rto_ms: some(&mut d, 20_000_000),
                lost_ms: some(&mut d, 4_000_000),
                rows: d.below(900),
                rpo_ms: some(&mut d, 4_000_000),
                closed: d.below(8) > 0,
                backups: (0..d.below(3)).map(|_| outcomes[d.below(5) as usize]).collect(),
                restores: (0..d.below(4)).map(|_| outcomes[d.below(5) as usize]).collect(),
                judged: (d.below(6) > 0).then(|| d.below(4) > 0),
            }
        })
        .collect()
}

fn write(home: &std::path::Path, i: usize, m: &Made) {
    let id = format!("20250101T0000Z-{}-{i:04x}", m.scenario);
    let dir = home.join("incidents").join(&id);
    std::fs::create_dir_all(&dir).unwrap();
    let mut journal = FileJournal::open(&dir).unwrap();
    let ms = |v: Option<i64>| v.map(|v| v as u64);
    let time = |ms: i64| Time::from_micros(ms * 1000);
    let mut add = |events: Vec<Event>| {
        let head = journal.head().unwrap();
        let draft = Draft { command: "test".into(), occurred_at: None, actor: Actor::new("amy@bastion"), events };
        match journal.append_if(&head, draft).unwrap() {
            Append::Appended(record) => record.seq.0,
            Append::Conflict(_) => panic!("nobody else writes here"),
        }
    };
    add(vec![
        Event::IncidentOpened {
            id: IncidentId::new(&id),
            kind: if m.drill { Kind::Drill } else { Kind::Real },
            scenario: m.scenario.into(),
            title: m.scenario.into(),
            plan: Digest::new("ab".repeat(32)),
            severity: None,
            rto_ms: ms(m.rto_ms),
            rpo_ms: ms(m.rpo_ms),
            program: "0.1.0".into(),
            target: None,
            expect: BTreeMap::new(),
        },
        Event::ImpactStarted { at: time(m.start_ms), source: "test".into(), moved_from: None },
    ]);
    let runs = m.backups.iter().map(|o| ("backup create", o)).chain(m.restores.iter().map(|o| ("pitr restore", o)));
    for (action, outcome) in runs {
        let run = RunId(add(vec![Event::RunRequested {
            step: None,
            block_line: None,
            action: action.into(),
            shown: action.into(),
            args: vec![],
            risk: Risk::Change,
            confirmed: None,
        }]));
        add(vec![
            Event::RunStarted { run, pid: 1, host: "h".into(), program: "0.1.0".into() },
            Event::RunFinished {
                run,
                outcome: *outcome,
                exit_code: 0,
                summary: String::new(),
                duration_ms: 1,
                output: OutputSeal::default(),
            },
        ]);
    }
    if m.drill && m.table {
        add(vec![Event::TabletopBegan { document: "p.md".into(), messages: 3, pace_ms: 1 }]);
    }
    let mut last = Vec::new();
    if let Some(lost) = m.lost_ms {
        let rows = BTreeMap::from([("public.orders".to_string(), m.rows)]);
        last.push(Event::LossMeasured {
            loss: Loss { window_ms: lost as u64, transactions: None, rows, at_most: false },
        });
    }
    if let Some(took) = m.took_ms {
        last.push(Event::ServiceRestored { at: time(m.start_ms + took), how: "test".into() });
    }
    if let Some(passed) = m.judged.filter(|_| m.drill) {
        let check = Check { name: "x".into(), verdict: Verdict::Passed, detail: String::new() };
        last.push(Event::DrillJudged { passed, checks: vec![check], injected_at: None });
    }
    if m.closed {
        last.push(Event::IncidentClosed { summary: "over".into() });
    }
    if !last.is_empty() {
        add(last);
    }
}

/// The figures, by the definitions in words and nothing of the program's.
fn expected(of: &[&Made]) -> Value {
    let real: Vec<&&Made> = of.iter().filter(|m| !m.drill).collect();
    let took: Vec<i64> = real.iter().filter_map(|m| m.took_ms).collect();
    let mut starts: Vec<i64> = real.iter().map(|m| m.start_ms).collect();
    starts.sort_unstable();
    let gaps: Vec<i64> = starts.windows(2).map(|w| w[1] - w[0]).collect();
    let mean = |v: &[i64]| if v.is_empty() { Value::Null } else { (v.iter().sum::<i64>() / v.len() as i64).into() };
    let share = |v: Vec<bool>| serde_json::json!({"good": v.iter().filter(|b| **b).count(), "of": v.len()});
    let met = |m: &Made| match (m.took_ms, m.rto_ms) {
        (_, None) => None,
        (Some(t), Some(limit)) => Some(t <= limit),
        (None, Some(_)) => m.closed.then_some(false),
    };
    let runs = |get: fn(&Made) -> &Vec<Outcome>| {
        let all: Vec<Outcome> = real.iter().flat_map(|m| get(m).clone()).collect();
        let good = all.iter().filter(|o| **o == Outcome::Succeeded).count();
        let bad = all.iter().filter(|o| **o == Outcome::Failed).count();
        serde_json::json!({"good": good, "of": good + bad})
    };
    serde_json::json!({
        "incidents": real.len(),
        "open": real.iter().filter(|m| !m.closed).count(),
        "mttr_ms": mean(&took),
        "longest_ms": took.iter().max(),
        "mtbf_ms": mean(&gaps),
        "rto": share(real.iter().filter_map(|m| met(m)).collect()),
        "rpo": share(real.iter().filter_map(|m| Some(m.lost_ms? <= m.rpo_ms?)).collect()),
        "lost_ms": real.iter().filter_map(|m| m.lost_ms).sum::<i64>(),
        "lost_rows": real.iter().filter(|m| m.lost_ms.is_some()).map(|m| m.rows).sum::<u64>(),
        "backups": runs(|m| &m.backups),
        "restores": runs(|m| &m.restores),
        "tabletops": share(of.iter().filter(|m| m.drill && m.table && m.closed).map(|m| m.judged == Some(true)).collect()),
        "drills": share(of.iter().filter(|m| m.drill && !m.table && m.closed).map(|m| m.judged == Some(true)).collect()),
    })
}

fn report(home: &std::path::Path, args: &[&str]) -> String {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .arg("report")
        .args(args)
        .env_clear()
        .env("BREAKGLASS_HOME", home)
        .current_dir(home)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn two_hundred_incidents_against_figures_computed_in_another_way() {
    let home = tempfile::tempdir().unwrap();
    let all = made(200);
    for (i, m) in all.iter().enumerate() {
        write(home.path(), i, m);
    }
    let got: Value = serde_json::from_str(&report(home.path(), &["--json", "--html", "r.html"])).unwrap();
    assert_eq!(got["all"], expected(&all.iter().collect::<Vec<_>>()));
    let month = |m: &Made| Time::from_micros(m.start_ms * 1000).to_string()[..7].to_string();
    type Name<'a> = &'a dyn Fn(&Made) -> String;
    let groups: [(&str, Name<'_>); 4] = [
        ("scenarios", &|m| m.scenario.to_string()),
        ("months", &month),
        ("quarters", &|m| {
            let text = month(m);
            format!("{} Q{}", &text[..4], ["1", "2", "3", "4"][(text[5..].parse::<usize>().unwrap() - 1) / 3])
        }),
        ("years", &|m| month(m)[..4].to_string()),
    ];
    for (group, name) in groups {
        let names: std::collections::BTreeSet<String> = all.iter().map(name).collect();
        assert!(names.len() > 1, "{group}");
        assert_eq!(got[group].as_object().unwrap().len(), names.len(), "{group}");
        for n in names {
            let of: Vec<&Made> = all.iter().filter(|m| name(m) == n).collect();
            assert_eq!(got[group][&n], expected(&of), "{group} {n}");
        }
    }
    let since = Time::parse("2026-01-01T00:00:00Z").unwrap().micros() / 1000;
    let later: Vec<&Made> = all.iter().filter(|m| m.start_ms >= since).collect();
    assert!(later.len() > 10 && later.len() < 190);
    let got: Value = serde_json::from_str(&report(home.path(), &["--json", "--since", "2026-01-01"])).unwrap();
    assert_eq!(got["all"], expected(&later));
    // Once more by a script that reads nothing but the journals.
    for since in ["", "2026-01-01"] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/figures.py");
        let out = std::process::Command::new("python3").arg(script).arg(home.path()).arg(since).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let other: Value = serde_json::from_slice(&out.stdout).unwrap();
        let args: Vec<&str> = if since.is_empty() { vec!["--json"] } else { vec!["--json", "--since", since] };
        let ours: Value = serde_json::from_str(&report(home.path(), &args)).unwrap();
        for group in ["all", "scenarios", "months", "quarters", "years"] {
            assert_eq!(ours[group], other[group], "{group} since {since:?}");
        }
    }
    let table = report(home.path(), &[]);
    assert!(table.lines().count() > 25 && table.contains("regional-outage"), "{table}");
    let page = std::fs::read_to_string(home.path().join("r.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("src=") && !page.contains("href=") && !page.contains("<script"));
}
