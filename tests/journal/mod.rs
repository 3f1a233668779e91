//! The journal: bytes of a record, damage, several writers, stopped and killed writers, full and failing disks, watching.

mod codec;
mod disk;
pub mod helper;
mod lock;
mod many;
mod tamper;
mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use breakglass::journal::{Append, Draft, FileJournal, Head, Journal, record};
use breakglass::model::{Actor, Digest, Event, IncidentId, Kind, Record, Seq, Time};

/// A draft with one event.
pub fn draft(event: Event) -> Draft {
    Draft { command: "test".into(), occurred_at: None, actor: Actor::new("amy@bastion"), events: vec![event] }
}

/// A remark.
pub fn note(text: &str) -> Draft {
    draft(Event::NoteAdded { text: text.into() })
}

/// The first event of a journal.
pub fn opened(id: &str) -> Draft {
    draft(Event::IncidentOpened {
        id: IncidentId::new(id),
        kind: Kind::Drill,
        scenario: "database-corruption".into(),
        title: "Database corruption".into(),
        plan: Digest::new("ab".repeat(32)),
        severity: Some("P0".into()),
        rto_ms: Some(14_400_000),
        rpo_ms: Some(3_600_000),
        program: "0.1.0".into(),
        target: Some("shop @ sandbox".into()),
        expect: std::collections::BTreeMap::new(),
    })
}

/// Appends whatever the head is, deciding again on conflict.
pub fn append(journal: &mut FileJournal, draft: Draft) -> Record {
    let mut head = journal.head().unwrap();
    loop {
        match journal.append_if(&head, draft.clone()).unwrap() {
            Append::Appended(record) => return record,
            Append::Conflict(now) => head = now,
        }
    }
}

/// A journal of `n` records in `dir`.
pub fn filled(dir: &Path, n: u64) -> FileJournal {
    let mut journal = FileJournal::open(dir).unwrap();
    append(&mut journal, opened("20261120T1401Z-database-corruption-7f3a"));
    for i in 2..=n {
        append(&mut journal, note(&format!("remark {i}: \"quoted\", ünïcödé")));
    }
    journal
}

/// A record after `head`, made by hand.
pub fn sealed(head: &Head, events: Vec<Event>) -> (Record, Vec<u8>) {
    let mut record = Record {
        v: 1,
        seq: Seq(head.seq.0 + 1),
        command: "test".into(),
        occurred_at: Time::from_micros(1_795_183_267_000_000),
        recorded_at: Time::from_micros(1_795_183_267_000_001),
        up_ms: 12_345,
        boot: "b".into(),
        actor: Actor::new("amy@bastion"),
        events,
        prev: head.hash.clone(),
        hash: Digest::new(""),
    };
    let line = record::encode(&mut record).unwrap();
    (record, line)
}

/// Waits for a condition, and fails when it does not come true in time.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(30), "timed out waiting until {what}");
        std::thread::yield_now();
    }
}
