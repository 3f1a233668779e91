//! Several processes on one journal, and processes killed in the middle of writing.

use std::collections::BTreeMap;

use breakglass::journal::{Append, FileJournal, FileLock, Journal, verify};
use breakglass::model::{Actor, Event, Seq};

use super::helper::Helper;
use super::{append, filled, note, until};

/// More of the same when `BREAKGLASS_SOAK` is set.
fn soak(small: u64, large: u64) -> u64 {
    if std::env::var_os("BREAKGLASS_SOAK").is_some() { large } else { small }
}

#[test]
fn five_processes_appending_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let each = soak(40, 1000);
    filled(dir.path(), 1);
    let helpers: Vec<Helper> = (0..5)
        .map(|p| Helper::start(&["append", dir.path().to_str().unwrap(), &format!("p{p}"), &each.to_string()]))
        .collect();
    helpers.into_iter().for_each(Helper::finish);
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let records = FileJournal::open(dir.path()).unwrap().read_from(Seq(2)).unwrap();
    assert_eq!(records.len() as u64, 5 * each);
    for record in records {
        let [Event::NoteAdded { text }] = &record.events[..] else { panic!("{record:?}") };
        let (who, n) = text.split_once(' ').unwrap();
        let expected = next.entry(who.to_string()).or_default();
        assert_eq!(n.parse::<u64>().unwrap(), *expected, "{who} in its own order, each once");
        *expected += 1;
    }
    assert_eq!(next.len(), 5);
    assert!(verify(dir.path(), &[]).unwrap().ok());
}

#[test]
fn a_writer_killed_at_any_moment_leaves_a_journal_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = filled(dir.path(), 1);
    let path = dir.path().to_str().unwrap().to_string();
    for round in 0..soak(8, 200) {
        let before = journal.head().unwrap().seq.0;
        let helper = Helper::start(&["append", &path, &format!("r{round}"), "1000000"]);
        until("the helper has written some", || journal.head().unwrap().seq.0 >= before + 1 + round % 7);
        helper.kill();
        let seen = journal.read_from(Seq(1)).unwrap();
        let mine = append(&mut journal, note("still here"));
        assert!(mine.seq.0 > seen.len() as u64 - 1, "nothing that was seen is gone");
        let again = FileJournal::open(dir.path()).unwrap().read_from(Seq(1)).unwrap();
        assert_eq!(again[..seen.len()], seen[..], "what was read is what stands there");
        assert!(verify(dir.path(), &[]).unwrap().ok());
    }
}

#[test]
fn half_a_line_of_a_killed_writer_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = filled(dir.path(), 3);
    let head = journal.head().unwrap();
    let file = dir.path().join("journal.jsonl");
    let whole = std::fs::metadata(&file).unwrap().len();
    let helper = Helper::start(&["tear", dir.path().to_str().unwrap()]);
    until("half a line is there", || std::fs::metadata(&file).unwrap().len() > whole);
    assert!(FileLock::is_held(dir.path().join("journal.lock")).unwrap());
    helper.kill();

    assert_eq!(journal.head().unwrap(), head, "a reader does not see it");
    let torn = std::fs::read(&file).unwrap()[whole as usize..].to_vec();
    assert_eq!(verify(dir.path(), &[]).unwrap().problem.map(|p| p.record), Some(4));
    assert_eq!(std::fs::metadata(&file).unwrap().len(), whole + torn.len() as u64, "a reader does not repair it");

    let Append::Conflict(now) = journal.append_if(&head, note("after")).unwrap() else {
        panic!("the repair is a record of its own")
    };
    let repair = journal.read_after(&head).unwrap().unwrap().remove(0);
    assert_eq!(repair.actor, Actor::new("breakglass"));
    assert_eq!(repair.events, [Event::TornTailMoved { bytes: torn.len() as u64, file: "journal.torn-1".into() }]);
    assert_eq!(std::fs::read(dir.path().join("journal.torn-1")).unwrap(), torn);
    let Append::Appended(record) = journal.append_if(&now, note("after")).unwrap() else { panic!() };
    assert_eq!(record.seq, Seq(5));
    assert!(verify(dir.path(), &[]).unwrap().ok());
}

#[test]
fn torn_tails_of_any_length_are_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = filled(dir.path(), 2);
    let file = dir.path().join("journal.jsonl");
    // Shorter and longer than the record that takes its place, and what a power cut leaves of unwritten blocks.
    let tails: [Vec<u8>; 4] =
        [b"{".to_vec(), vec![b'x'; 5000], vec![0; 700], [b"{\"v\":1".to_vec(), vec![0; 9], b"\n".to_vec()].concat()];
    for (i, tail) in tails.iter().enumerate() {
        let good = std::fs::read(&file).unwrap();
        std::fs::write(&file, [good.clone(), tail.clone()].concat()).unwrap();
        append(&mut journal, note("goes on"));
        assert_eq!(std::fs::read(dir.path().join(format!("journal.torn-{}", i + 1))).unwrap(), *tail);
        let now = std::fs::read(&file).unwrap();
        assert_eq!(now[..good.len()], good[..]);
        assert!(verify(dir.path(), &[]).unwrap().ok());
        assert_eq!(FileJournal::open(dir.path()).unwrap().head().unwrap(), journal.head().unwrap());
    }
}
