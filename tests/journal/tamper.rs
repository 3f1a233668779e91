//! Damage of every kind is detected, and the record named; the script in docs/formats.md agrees.

use std::path::Path;
use std::process::Command;

use breakglass::journal::{Anchor, Anchors, FileJournal, Head, Journal, record, verify};
use breakglass::model::{IncidentId, Seq, Time};

use super::{filled, note};

const RECORDS: u64 = 6;

struct Fixture {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
    head: Head,
    anchors: Vec<Anchor>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let head = filled(dir.path(), RECORDS).head().unwrap();
        let bytes = std::fs::read(dir.path().join("journal.jsonl")).unwrap();
        let anchor = Anchor::given(IncidentId::new("i"), &head.to_string(), Time::default()).unwrap();
        Self { dir, bytes, head, anchors: vec![anchor] }
    }

    fn lines(&self) -> Vec<&[u8]> {
        self.bytes.split_inclusive(|b| *b == b'\n').collect()
    }

    /// Number of the record the byte at `at` belongs to.
    fn record_at(&self, at: usize) -> u64 {
        1 + self.bytes[..at].iter().filter(|b| **b == b'\n').count() as u64
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(self.dir.path().join("journal.jsonl"), bytes).unwrap();
    }

    /// The damaged journal is reported, with the record.
    fn detects(&self, bytes: &[u8], record: u64, what: &str) {
        self.write(bytes);
        let report = verify(self.dir.path(), &self.anchors).unwrap();
        assert_eq!(report.problem.as_ref().map(|p| p.record), Some(record), "{what}: {:?}", report.lines());
        assert!(report.lines()[0].contains(&format!("record {record} ")), "{:?}", report.lines());
    }
}

#[test]
fn a_good_journal_verifies_and_says_against_what() {
    let f = Fixture::new();
    let report = verify(f.dir.path(), &f.anchors).unwrap();
    assert_eq!((report.records, &report.head, report.problem.clone()), (RECORDS, &f.head, None));
    assert_eq!(report.anchor_held_against.as_ref(), f.anchors.first());
    assert!(report.lines().iter().any(|l| l.contains("held against the anchor of record 6")));
    let bare = verify(f.dir.path(), &[]).unwrap();
    assert!(bare.ok() && bare.lines().iter().any(|l| l.contains("no anchor")), "{:?}", bare.lines());
    assert_eq!(bare.incident, Some(IncidentId::new("20261120T1401Z-database-corruption-7f3a")));
}

#[test]
fn any_one_byte_changed_is_detected() {
    let f = Fixture::new();
    for at in 0..f.bytes.len() {
        // The newline after a record counts as the record's.
        let record = f.record_at(at);
        let all = [f.bytes[at] ^ 1, b'\n', f.bytes[at] ^ 0x20, b'0', b'"', 0];
        // Two for every byte, the others for one byte in eight; all with `BREAKGLASS_SOAK`.
        let few = std::env::var_os("BREAKGLASS_SOAK").is_none() && at % 8 != 0;
        for to in all.into_iter().take(if few { 2 } else { 6 }) {
            if to != f.bytes[at] {
                let mut bytes = f.bytes.clone();
                bytes[at] = to;
                f.detects(&bytes, record, &format!("byte {at} became {to}"));
            }
        }
    }
}

#[test]
fn a_byte_added_or_taken_away_is_detected() {
    let f = Fixture::new();
    for at in (0..f.bytes.len()).step_by(3) {
        let record = f.record_at(at);
        let mut less = f.bytes.clone();
        less.remove(at);
        f.detects(&less, record, &format!("byte {at} taken away"));
        for new in [b' ', b'\n', b'0', 0] {
            let mut more = f.bytes.clone();
            more.insert(at, new);
            // An empty line stands where the next record should.
            let record = record + u64::from(new == b'\n' && f.bytes[at] == b'\n');
            f.detects(&more, record, &format!("{new} added at {at}"));
        }
    }
}

#[test]
fn lines_removed_swapped_and_doubled_are_detected() {
    let f = Fixture::new();
    let lines = f.lines();
    for i in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(i);
        f.detects(&removed.concat(), i as u64 + 1, "removed");
        let mut doubled = lines.clone();
        doubled.insert(i, lines[i]);
        f.detects(&doubled.concat(), i as u64 + 2, "doubled");
        for j in i + 1..lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(i, j);
            f.detects(&swapped.concat(), i as u64 + 1, "swapped");
        }
    }
}

#[test]
fn a_cut_tail_is_detected() {
    let f = Fixture::new();
    for keep in 0..f.bytes.len() {
        f.detects(&f.bytes[..keep], f.record_at(keep), &format!("cut to {keep} bytes"));
    }
    // Without an anchor a cut between two lines cannot show, and the report says so.
    f.write(&f.lines()[..4].concat());
    let report = verify(f.dir.path(), &[]).unwrap();
    assert!(report.ok() && report.anchor_held_against.is_none());
}

#[test]
fn a_journal_rewritten_as_a_whole_is_detected_by_its_anchor() {
    let f = Fixture::new();
    let mut head = Head::empty();
    let mut bytes = Vec::new();
    for line in f.lines() {
        let Ok(record::Decoded::Record(line)) = record::decode(&line[..line.len() - 1]) else { panic!() };
        let mut forged = line.record;
        forged.prev = head.hash;
        if forged.seq.0 >= 3 {
            forged.actor = breakglass::model::Actor::new("somebody else");
        }
        bytes.extend(record::encode(&mut forged).unwrap());
        head = Head::after(&forged);
    }
    f.write(&bytes);
    assert!(verify(f.dir.path(), &[]).unwrap().ok(), "the forged chain is a chain");
    f.detects(&bytes, RECORDS, "rewritten");
}

#[test]
fn nothing_is_appended_to_a_damaged_journal() {
    let f = Fixture::new();
    let begins: Vec<usize> = (1..RECORDS).map(|n| f.lines()[..n as usize].concat().len()).collect();
    for begin in begins {
        let mut bytes = f.bytes.clone();
        bytes[begin + 30] ^= 1;
        f.write(&bytes);
        let record = f.record_at(begin);
        let error = FileJournal::open(f.dir.path()).unwrap().append_if(&f.head, note("x")).unwrap_err();
        assert!(error.to_string().contains(&format!("damaged at record {record}")), "{error}");
        assert_eq!(std::fs::read(f.dir.path().join("journal.jsonl")).unwrap(), bytes);
    }
}

#[test]
fn anchors_are_written_when_they_should_be() {
    let state = tempfile::tempdir().unwrap();
    let id = "20261120T1401Z-database-corruption-7f3a";
    let dir = state.path().join("incidents").join(id);
    breakglass::journal::files::create_dir(&dir).unwrap();
    let anchors = Anchors::beside(&dir).unwrap();
    let mut journal = FileJournal::open(&dir).unwrap().with_anchors(anchors.clone());
    super::append(&mut journal, super::opened(id));
    for i in 2..=130 {
        super::append(&mut journal, note(&format!("{i}")));
    }
    let closed = breakglass::model::Event::IncidentClosed { summary: "done".into() };
    let last = super::append(&mut journal, super::draft(closed));
    let written = anchors.of(&IncidentId::new(id)).unwrap();
    let what: Vec<(u64, &str)> = written.iter().map(|a| (a.seq.0, a.why.as_str())).collect();
    assert_eq!(what, [(1, "open"), (64, "periodic"), (128, "periodic"), (131, "close")]);
    assert_eq!(written[3].hash, last.hash);
    assert_eq!(anchors.of(&IncidentId::new("another")).unwrap(), vec![]);
    let report = verify(&dir, &written).unwrap();
    assert_eq!(report.anchor_held_against.map(|a| a.seq), Some(Seq(131)));

    // A torn line in the anchors costs that line only.
    let mut bytes = std::fs::read(anchors.path()).unwrap();
    bytes.extend_from_slice(b"{\"incident\":\"20");
    std::fs::write(anchors.path(), bytes).unwrap();
    anchors.write(&IncidentId::new(id), &Head::after(&last), Time::default(), "export").unwrap();
    assert_eq!(anchors.of(&IncidentId::new(id)).unwrap().len(), 5);
}

/// The script as it stands in the documentation.
fn script() -> String {
    let doc = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats.md")).unwrap();
    let (_, rest) = doc.split_once("```python\n").unwrap();
    let (script, _) = rest.split_once("```").unwrap();
    assert!(script.lines().count() <= 25, "{} lines", script.lines().count());
    script.to_string()
}

#[test]
fn the_documented_script_agrees() {
    let f = Fixture::new();
    let tool = tempfile::tempdir().unwrap();
    let path = tool.path().join("verify.py");
    std::fs::write(&path, script()).unwrap();
    let run = |bytes: &[u8], anchor: bool| {
        f.write(bytes);
        let mut command = Command::new("python3");
        command.arg(&path).arg(f.dir.path().join("journal.jsonl"));
        if anchor {
            command.arg(f.head.to_string());
        }
        let out = command.output().expect("python3 is needed to run the documented script");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    let good = (Some(0), format!("6 records verified, 0 withheld, head {}\n", f.head), String::new());
    assert_eq!(run(&f.bytes, true), good);
    assert_eq!(run(&f.bytes, false), good);

    let mut damaged: Vec<(Vec<u8>, u64)> = Vec::new();
    for at in (7..f.bytes.len()).step_by(257).chain([0, f.bytes.len() - 1, f.bytes.len() - 3]) {
        let mut bytes = f.bytes.clone();
        bytes[at] ^= 1;
        damaged.push((bytes, f.record_at(at)));
    }
    let lines = f.lines();
    for i in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(i);
        damaged.push((removed.concat(), i as u64 + 1));
    }
    let mut swapped = lines.clone();
    swapped.swap(1, 4);
    damaged.push((swapped.concat(), 2));
    damaged.push((f.bytes[..f.bytes.len() - 40].to_vec(), 6));
    for (bytes, record) in damaged {
        f.detects(&bytes, record, "ours");
        let (code, out, err) = run(&bytes, true);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.starts_with(&format!("record {record} ")), "{record}: {err}");
    }
}

#[test]
fn a_copy_with_withheld_records_still_verifies() {
    let f = Fixture::new();
    let mut lines: Vec<Vec<u8>> = f.lines().into_iter().map(<[u8]>::to_vec).collect();
    for i in [2, 5] {
        let Ok(record::Decoded::Record(line)) = record::decode(&lines[i][..lines[i].len() - 1]) else { panic!() };
        lines[i] = record::withheld_line(&line.record, "names a customer").unwrap();
    }
    let bytes = lines.concat();
    f.write(&bytes);
    let report = verify(f.dir.path(), &f.anchors).unwrap();
    assert!(report.ok(), "{:?}", report.lines());
    assert_eq!(report.withheld, [Seq(3), Seq(6)]);
    assert!(report.lines().iter().any(|l| l.contains("2 records are withheld")), "{:?}", report.lines());
    let error = FileJournal::open(f.dir.path()).unwrap().head().unwrap_err();
    assert!(error.to_string().contains("record 3") && error.to_string().contains("withheld"), "{error}");

    let tool = tempfile::tempdir().unwrap();
    std::fs::write(tool.path().join("v.py"), script()).unwrap();
    let out = Command::new("python3")
        .arg(tool.path().join("v.py"))
        .arg(f.dir.path().join("journal.jsonl"))
        .arg(f.head.to_string())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("6 records verified, 2 withheld"), "{out:?}");

    // The chain still holds the withheld place: its hash cannot be exchanged.
    let text = String::from_utf8(lines[2].clone()).unwrap();
    let forged = text.replace(&text[text.len() - 67..text.len() - 3], &"0".repeat(64));
    lines[2] = forged.into_bytes();
    f.detects(&lines.concat(), 4, "forged withheld hash");
}
