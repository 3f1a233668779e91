//! `breakglass journal verify` and `breakglass export` as a person types them.

use std::path::Path;
use std::process::{Command, Output};

use super::fixture::{ID, Pen, drill};

fn breakglass(pen: &Pen, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_breakglass"))
        .args(words)
        .env_clear()
        .env("BREAKGLASS_HOME", pen.state.path())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(pen.state.path())
        .output()
        .unwrap()
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn verify_exits_with_1_and_names_the_record() {
    let pen = drill();
    let dir = pen.dir.to_str().unwrap();
    let journal = pen.dir.join("journal.jsonl");
    let good = std::fs::read(&journal).unwrap();
    let out = breakglass(&pen, &["journal", "verify", dir]);
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    assert!(said(&out).contains(&pen.head().to_string()) && said(&out).contains("no anchor"), "{}", said(&out));

    // An export anchors the head; from then on a cut tail shows too, down to an empty file.
    let out = breakglass(&pen, &["export", ID, "--format", "md", "--out", "out"]);
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    assert!(pen.state.path().join("out").join(format!("{ID}.md")).exists());
    let lines: Vec<&[u8]> = good.split_inclusive(|b| *b == b'\n').collect();
    let mut changed = good.clone();
    changed[lines[..4].concat().len() + 20] ^= 1;
    let mut swapped = lines.clone();
    swapped.swap(6, 7);
    let mut removed = lines.clone();
    removed.remove(9);
    let cut = &lines[..lines.len() - 1];
    for (bytes, record) in
        [(changed, 5), (swapped.concat(), 7), (removed.concat(), 10), (cut.concat(), lines.len()), (vec![], 1)]
    {
        std::fs::write(&journal, bytes).unwrap();
        let out = breakglass(&pen, &["journal", "verify", dir]);
        assert_eq!(out.status.code(), Some(1), "{}", said(&out));
        assert!(said(&out).contains(&format!("record {record} ")), "record {record}: {}", said(&out));
    }
    std::fs::write(&journal, &good).unwrap();
    let out = breakglass(&pen, &["journal", "verify", dir]);
    assert_eq!(out.status.code(), Some(0));
    assert!(said(&out).contains("held against the anchor"), "{}", said(&out));
    // A head on paper, held against a copy somewhere else.
    let copy = pen.state.path().join("copy.jsonl");
    std::fs::write(&copy, cut.concat()).unwrap();
    let out = breakglass(&pen, &["journal", "verify", copy.to_str().unwrap(), "--head", &pen.head().to_string()]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let out = breakglass(&pen, &["journal", "verify", "/nowhere"]);
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    assert!(Path::new(&journal).exists());
}
