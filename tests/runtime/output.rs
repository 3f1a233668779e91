//! Bytes to lines: redaction over chunk borders, limits, the ring.

use breakglass::action::Output;
use breakglass::action::output::{LineMaker, MAX_LINE, OutputLog, Ring};
use breakglass::model::{CleanText, Redactor, Secret};
use breakglass::plan::digest as digest_of;
use proptest::prelude::*;

fn made(redactor: &Redactor, chunks: &[&[u8]]) -> Vec<String> {
    let mut maker = LineMaker::new(redactor.clone());
    let mut out = Vec::new();
    for c in chunks {
        maker.feed(c, |l| out.push(l.to_string()));
    }
    maker.finish(|l| out.push(l.to_string()));
    out
}

fn cut<'a>(text: &'a [u8], at: &[usize]) -> Vec<&'a [u8]> {
    let mut points: Vec<usize> = at.iter().map(|p| p % (text.len() + 1)).collect();
    points.sort_unstable();
    let mut chunks = Vec::new();
    let mut from = 0;
    for p in points {
        chunks.push(&text[from..p]);
        from = p;
    }
    chunks.push(&text[from..]);
    chunks
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The borders of chunks make no difference, and the secret never shows.
    #[test]
    fn borders_do_not_matter(
        parts in prop::collection::vec(prop_oneof!["[a-z \u{e9}]{0,9}", Just("S3cret!x".to_string()), Just("\n".to_string()), Just("S3cr".to_string())], 0..40),
        at in prop::collection::vec(0usize..500, 0..30),
    ) {
        let text = parts.concat();
        let redactor = Redactor::new([&Secret::new("S3cret!x")]);
        let whole = made(&redactor, &[text.as_bytes()]);
        let pieces = made(&redactor, &cut(text.as_bytes(), &at));
        prop_assert_eq!(&whole, &pieces);
        prop_assert!(!whole.concat().contains("S3cret!x"));
        let want: Vec<String> = text.lines().map(|l| l.replace("S3cret!x", "•••")).collect();
        prop_assert_eq!(whole, want);
    }

    /// Nor in a line so long that it is cut: the secret may lie on the cut.
    #[test]
    fn cut_lines_do_not_leak(before in 0usize..300, step in 1usize..70_000) {
        let secret = "S3cret!x-of-some-length";
        let mut text = vec![b'x'; MAX_LINE - 150 - 4096 + before];
        text.extend_from_slice(secret.as_bytes());
        text.extend(std::iter::repeat_n(b'y', MAX_LINE + before * 7));
        text.extend_from_slice(secret.as_bytes());
        let chunks: Vec<&[u8]> = text.chunks(step).collect();
        let lines = made(&Redactor::new([&Secret::new(secret)]), &chunks);
        let all = lines.concat();
        prop_assert!(!all.contains("S3cret") && !all.contains("length"));
        prop_assert!(lines.iter().all(|l| l.len() <= MAX_LINE + 4096));
        prop_assert_eq!(all.replace("•••", secret).into_bytes(), text);
    }
}

#[test]
fn an_endless_progress_bar_takes_no_memory() {
    let mut maker = LineMaker::new(Redactor::default());
    let mut lines = Vec::new();
    for i in 0..100_000 {
        maker.feed(format!("\r{i} of 100000 files").as_bytes(), |l| lines.push(l.to_string()));
    }
    maker.feed(b"\n", |l| lines.push(l.to_string()));
    assert_eq!(lines, ["99999 of 100000 files"]);
}

#[test]
fn bytes_of_any_kind_are_lines_of_text() {
    assert_eq!(
        made(&Redactor::default(), &[b"a\x1b[31mred\x1b[0m\xff\x00\n", b"b\r\n", b"\xe2\x82", b"\xac"]),
        ["ared\u{fffd}", "b", "€"]
    );
}

fn log(limit: u64) -> (tempfile::TempDir, OutputLog) {
    let dir = tempfile::tempdir().unwrap();
    let log = OutputLog::create(&dir.path().join("output.log"), 0o600, Redactor::default(), limit).unwrap();
    (dir, log)
}

#[test]
fn a_full_log_counts_what_is_missing_and_keeps_the_end() {
    let (dir, log) = log(10_000);
    for i in 0..20_000 {
        log.bytes(format!("line {i}\n").as_bytes());
    }
    let shown = log.changed().unwrap();
    assert_eq!(shown.tail.last().map(CleanText::as_str), Some("line 19999"));
    assert!(shown.tail.len() <= 50 && shown.bytes <= 10_000);
    let seal = log.seal();
    let text = std::fs::read_to_string(dir.path().join("output.log")).unwrap();
    assert_eq!(seal.sha256, Some(digest_of(text.as_bytes())));
    assert_eq!((seal.bytes, seal.lines), (text.len() as u64, text.lines().count() as u64));
    assert!(text.starts_with("line 0\n") && text.ends_with("line 19999\n"));
    // Every line is either there or counted; one line of ours says so.
    assert_eq!(seal.lines - 1 + seal.dropped_lines, 20_000);
    assert!(text.contains(&format!("{} lines are not kept", seal.dropped_lines)));
    assert!(seal.bytes < 10_000 + 600 * 1024);
}

#[test]
fn a_log_is_written_once() {
    let (dir, _log) = log(100);
    assert!(OutputLog::create(&dir.path().join("output.log"), 0o600, Redactor::default(), 100).is_err());
}

#[test]
fn the_ring_is_bounded_in_lines_and_bytes() {
    let mut ring = Ring::default();
    for i in 0..25_000 {
        ring.push(CleanText::from(format!("{i}")));
    }
    assert_eq!((ring.len(), ring.dropped()), (Ring::MAX_LINES, 15_000));
    assert_eq!(ring.get(0).map(CleanText::as_str), Some("15000"));
    for _ in 0..200 {
        ring.push(CleanText::from("x".repeat(60_000)));
    }
    assert!(ring.bytes() <= Ring::MAX_BYTES && ring.iter().last().unwrap().as_str().len() == 60_000);
    assert_eq!(ring.len() as u64 + ring.dropped(), 25_200);
}
