//! Bytes of a record: what is written reads back, no other bytes do, and the future is met politely.

use std::collections::BTreeMap;

use breakglass::journal::record::{self, Decoded};
use breakglass::journal::{Append, FileJournal, Head, Journal};
use breakglass::model::event::{Check, Outcome, OutputSeal, Verdict};
use breakglass::model::target::{Loss, RecoveryTarget};
use breakglass::model::{Digest, Event, Record, Risk, RunId, Seq, StepId, Time};
use proptest::prelude::*;

use super::{filled, note, sealed};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,40}",
        Just(",\"hash\":\"".to_string()),
        Just("line\nbreak \u{0} \u{1b}[31m \u{202e} </script> \u{e000}\u{10000}".to_string()),
    ]
}

fn time() -> impl Strategy<Value = Time> {
    (0i64..4_102_444_800_000_000).prop_map(Time::from_micros)
}

fn event() -> impl Strategy<Value = Event> {
    let map = || proptest::collection::btree_map(text(), any::<u64>(), 0..3);
    prop_oneof![
        text().prop_map(|text| Event::NoteAdded { text }),
        (text(), text()).prop_map(|(name, value)| Event::VariableSet { name, value }),
        (time(), text(), proptest::option::of(time())).prop_map(|(at, source, moved_from)| Event::ImpactStarted {
            at,
            source,
            moved_from
        }),
        (any::<u64>(), any::<i32>(), text(), any::<[u64; 4]>()).prop_map(|(run, exit_code, summary, n)| {
            Event::RunFinished {
                run: RunId(run),
                outcome: Outcome::Failed,
                exit_code,
                summary,
                duration_ms: n[0],
                output: OutputSeal {
                    bytes: n[1],
                    lines: n[2],
                    dropped_lines: n[3],
                    sha256: Some(Digest::new("cd".repeat(32))),
                },
            }
        }),
        (text(), proptest::collection::vec(text(), 0..3), proptest::option::of(text())).prop_map(
            |(shown, args, confirmed)| {
                Event::RunRequested {
                    step: Some(StepId::new("s6")),
                    block_line: None,
                    action: "pitr restore".into(),
                    shown,
                    args,
                    risk: Risk::Destroy,
                    confirmed,
                }
            }
        ),
        (text(), time(), map(), any::<u64>(), any::<bool>()).prop_map(|(lsn, at, rows, n, at_most)| {
            Event::MomentChosen {
                target: RecoveryTarget::Lsn(lsn),
                at: Some(at),
                loses: Some(Loss { window_ms: n, transactions: Some(n), rows, at_most }),
            }
        }),
        (text(), text()).prop_map(|(name, detail)| Event::ShadowVerified {
            passed: false,
            checks: vec![Check { name, verdict: Verdict::NotAvailable, detail }],
        }),
        map().prop_map(|rows| Event::SalvageWritten { folder: "f".into(), rows, files: BTreeMap::new() }),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    (proptest::collection::vec(event(), 1..4), text(), text(), time(), any::<u64>(), 1..u64::MAX).prop_map(
        |(events, command, actor, at, up_ms, seq)| Record {
            v: 1,
            seq: Seq(seq),
            command,
            occurred_at: at,
            recorded_at: at,
            up_ms,
            boot: "7397e74b".into(),
            actor: breakglass::model::Actor::new(actor),
            events,
            prev: Digest::new("0".repeat(64)),
            hash: Digest::new(""),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(mut record in any_record()) {
        let line = record::encode(&mut record).unwrap();
        prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1, "one record is one line");
        match record::decode(&line[..line.len() - 1]) {
            Ok(Decoded::Record(read)) => {
                prop_assert_eq!(&read.record, &record);
                prop_assert_eq!(read.raw.as_bytes(), &line[..line.len() - 1]);
                prop_assert_eq!(read.future, None);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn no_other_bytes_read(mut record in any_record(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let line = record::encode(&mut record).unwrap();
        let mut line = line[..line.len() - 1].to_vec();
        let at = at.index(line.len());
        prop_assume!(line[at] != to);
        line[at] = to;
        prop_assert!(record::decode(&line).is_err());
        let mut longer = line.clone();
        longer.insert(at, to);
        prop_assert!(record::decode(&longer).is_err());
    }
}

#[test]
fn nothing_is_written_that_would_not_read_back() {
    let mut empty = sealed(&Head::empty(), vec![Event::NoteAdded { text: String::new() }]).0;
    empty.events.clear();
    assert!(record::encode(&mut empty).is_err(), "no events");
    let mut unknown = sealed(&Head::empty(), vec![Event::NoteAdded { text: String::new() }]).0;
    unknown.events.push(Event::Unknown);
    assert!(record::encode(&mut unknown).is_err(), "an event this version does not know");
    let mut far = sealed(&Head::empty(), vec![Event::NoteAdded { text: String::new() }]).0;
    far.occurred_at = Time::from_micros(i64::MAX);
    assert!(record::encode(&mut far).is_err(), "a time that cannot be written");
}

/// A line with a right hash around whatever JSON comes before it.
fn seal_text(body: &str) -> Vec<u8> {
    let body = body.strip_suffix('}').unwrap();
    format!("{body},\"hash\":\"{}\"}}\n", record::sha256_hex(body.as_bytes())).into_bytes()
}

#[test]
fn the_future_is_read_and_never_written_to() {
    let rest = r#""command":"c","occurred_at":"2026-11-20T14:01:07Z","recorded_at":"2026-11-20T14:01:07Z","up_ms":1,"boot":"b","actor":"a""#;
    for (what, body) in [
        (
            "event type \"teleported\"",
            r#"{"v":1,"seq":3,REST,"events":[{"type":"step_done","step":"s1"},{"type":"teleported","to":{"x":[1.5,null]}}],"prev":"PREV"}"#,
        ),
        (
            "event type \"run_resolved\"",
            r#"{"v":1,"seq":3,REST,"events":[{"type":"run_resolved","run":1,"outcome":"partly","reason":"r"}],"prev":"PREV"}"#,
        ),
        ("record version 2", r#"{"v":2,"seq":3,REST,"events":[{"type":"step_done","step":"s1"}],"prev":"PREV"}"#),
        ("record version 3", r#"{"v":3,"seq":3,"all":"different","prev":"PREV"}"#),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let head = filled(dir.path(), 2).head().unwrap();
        let line = seal_text(&body.replace("REST", rest).replace("PREV", head.hash.as_str()));
        let path = dir.path().join("journal.jsonl");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(&line);
        std::fs::write(&path, &bytes).unwrap();

        let mut journal = FileJournal::open(dir.path()).unwrap();
        let lines = journal.lines_from(Seq(1)).unwrap();
        assert_eq!(lines.len(), 3, "{what}");
        assert!(lines[2].record.events.contains(&Event::Unknown), "{what}");
        assert_eq!(lines[2].raw.as_bytes(), &line[..line.len() - 1], "{what}");
        assert_eq!(journal.read_only_because(), Some(what));
        let head = journal.head().unwrap();
        assert_eq!(head.seq, Seq(3));
        let error = journal.append_if(&head, note("no")).unwrap_err();
        assert!(error.to_string().contains(what) && error.to_string().contains("newer"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what}: not a byte was written");
        assert!(breakglass::journal::verify(dir.path(), &[]).unwrap().ok(), "{what}");
    }
}

#[test]
fn a_sealed_line_that_is_no_record_is_refused() {
    for body in [
        r#"{"v":1}"#,
        r#"{"v":0,"seq":1,"prev":"PREV"}"#,
        r#"{"v":1,"seq":1,"command":"c","occurred_at":"2026-11-20T14:01:07Z","recorded_at":"2026-11-20T14:01:07Z","up_ms":1,"boot":"b","actor":"a","events":[],"prev":"PREV"}"#,
        r#"{"v":1,"seq":1,"command":"c","occurred_at":"yesterday","recorded_at":"2026-11-20T14:01:07Z","up_ms":1,"boot":"b","actor":"a","events":[{"type":"step_done","step":"s1"}],"prev":"PREV"}"#,
        r#"{"v":1,"seq":1,"command":"c","occurred_at":"2026-11-20T14:01:07Z","recorded_at":"2026-11-20T14:01:07Z","up_ms":1,"boot":"b","actor":"a","events":[{"step":"s1"}],"prev":"PREV"}"#,
        r#"{"v":1,"seq":1,"command":"c","occurred_at":"2026-11-20T14:01:07Z","recorded_at":"2026-11-20T14:01:07Z","up_ms":1,"boot":"b","actor":"a","events":[{"type":"step_done","step":"s1"}],"prev":"0"}"#,
    ] {
        let line = seal_text(&body.replace("PREV", &"0".repeat(64)));
        assert!(record::decode(&line[..line.len() - 1]).is_err(), "{body}");
    }
}

#[test]
fn several_readers_and_writers_of_one_file_agree() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = filled(dir.path(), 3);
    let mut b = FileJournal::open(dir.path()).unwrap();
    let head = b.head().unwrap();
    assert_eq!(head, a.head().unwrap());
    let Append::Appended(fourth) = b.append_if(&head, note("b was first")).unwrap() else { panic!("no conflict here") };
    assert_eq!(a.append_if(&head, note("a decided on an old head")).unwrap(), Append::Conflict(Head::after(&fourth)));
    assert_eq!(a.read_after(&head).unwrap().unwrap(), vec![fourth.clone()]);
    assert_eq!(a.read_from(Seq(1)).unwrap().len(), 4);
    assert_eq!(a.read_from(Seq(4)).unwrap(), vec![fourth]);
    assert_eq!(a.read_from(Seq(5)).unwrap(), vec![]);
    assert_eq!(a.read_from(Seq(2)).unwrap(), b.read_from(Seq(2)).unwrap());
}

#[test]
fn a_line_taken_back_by_its_writer_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let before = filled(dir.path(), 3).head().unwrap();
    let kept = std::fs::read(&path).unwrap();
    let (_, vanishing) = sealed(&before, vec![Event::NoteAdded { text: "abc".into() }]);
    std::fs::write(&path, [kept.clone(), vanishing].concat()).unwrap();
    let mut reader = FileJournal::open(dir.path()).unwrap();
    let seen = reader.head().unwrap();
    assert_eq!(seen.seq, Seq(4));

    // Another record of exactly the same length takes its place.
    let (record, line) = sealed(&before, vec![Event::NoteAdded { text: "xyz".into() }]);
    std::fs::write(&path, [kept, line].concat()).unwrap();
    assert_eq!(reader.append_if(&seen, note("on sand")).unwrap(), Append::Conflict(Head::after(&record)));
    assert_eq!(reader.read_after(&seen).unwrap(), None, "fold again from the first record");
    assert_eq!(reader.read_after(&before).unwrap().unwrap(), vec![record]);
}

#[test]
fn only_a_stated_time_differs_from_the_time_of_writing() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = filled(dir.path(), 2);
    let records = journal.read_from(Seq(1)).unwrap();
    // Durations by uptime depend on this: a record that is not dated back says so by saying one time twice.
    assert!(records.iter().all(|r| r.occurred_at == r.recorded_at), "{records:?}");
    assert!(records[1].up_ms >= records[0].up_ms && records[1].boot == records[0].boot && !records[0].boot.is_empty());
    let said = Time::parse("2026-11-20T14:01:07Z").unwrap();
    let record = super::append(&mut journal, breakglass::journal::Draft { occurred_at: Some(said), ..note("earlier") });
    assert!(record.occurred_at == said && record.recorded_at > said);
}
