//! Everything that cannot be read as given, with its message.

use std::path::PathBuf;

use breakglass::error::ErrorKind;
use breakglass::plan::library::Library;
use breakglass::plan::parse;

use super::read;

fn refused(bytes: &[u8]) -> String {
    let error = parse("plan.md", bytes).expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Usage);
    assert!(!error.hints.is_empty(), "{error}");
    error.to_string()
}

fn open(path: PathBuf) -> String {
    let error = Library::open(&[path]).expect_err("refused");
    assert_eq!(error.kind.exit_code(), 2);
    error.to_string()
}

#[test]
fn empty_and_binary() {
    assert!(refused(b"").contains("\"plan.md\" is empty"));
    assert!(refused(b" \n\n\t").contains("is empty"));
    assert!(refused(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").contains("is not Markdown"));
    assert!(refused(b"%PDF-1.7 whatever").contains("is not Markdown"));
}

#[test]
fn prose_without_any_structure_opens_with_a_notice() {
    let plan = read("Dear all, the database is fine.\n");
    assert!(plan.scenarios.is_empty());
    assert!(plan.notices.iter().any(|n| n.text.contains("may not be Markdown")), "{:?}", plan.notices);
    assert!(plan.extras.iter().any(|e| e.text.contains("Dear all")), "nothing is dropped");
}

#[test]
fn not_utf8_opens_and_says_where() {
    let plan = parse("plan.md", b"# Plan\n\n1. Caf\xe9 restart\n").unwrap();
    assert!(plan.notices.iter().any(|n| n.line == 3 && n.text.contains("not UTF-8")));
    assert_eq!(plan.scenarios[0].steps[0].title, "Café restart");
}

#[test]
fn folders_files_and_globs_that_hold_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(open(dir.path().to_path_buf()).contains("no plan in folder"));
    assert!(open(dir.path().join("missing.md")).contains("cannot read plan"));
    assert!(open(dir.path().join("*.md")).contains("nothing matches"));
    let json = dir.path().join("plan.json");
    std::fs::write(&json, "{}").unwrap();
    assert!(open(json).contains("is not Markdown"));
}

#[test]
fn one_unreadable_file_does_not_keep_the_others_shut() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good.md"), "# Scenario: Lost\n\n1. Restore\n").unwrap();
    std::fs::write(dir.path().join("bad.md"), b"\0\0\0").unwrap();
    // A dangling link cannot be read by anybody, root included.
    std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("dangling.md")).unwrap();
    let library = Library::open(&[dir.path().to_path_buf()]).unwrap();
    assert_eq!(library.documents.len(), 1);
    assert_eq!(library.notices.len(), 2, "{:?}", library.notices);
    let error = Library::open(&[dir.path().join("dangling.md")]).unwrap_err().to_string();
    assert!(error.contains("cannot read plan"), "{error}");
}

#[test]
fn two_scenarios_of_one_name_are_told_apart() {
    let plan = read("# P\n\n## Scenario 1: Lost\n\n1. Restore\n\n## Scenario 2: Lost\n\n1. Rebuild\n");
    let slugs: Vec<&str> = plan.scenarios.iter().map(|s| s.slug.as_str()).collect();
    assert_eq!(slugs, ["lost", "lost-2"]);
    assert!(plan.notices.iter().any(|n| n.line == 7 && n.text.contains("two scenarios are called \"Lost\"")));
}

#[test]
fn unknown_and_wrong_attributes_are_named() {
    let plan = read("# P\n\n1. Do it\n   ```bash { rsik=read risk=maybe }\n   ls\n   ```\n");
    assert!(
        plan.notices.iter().any(|n| n.line == 4 && n.text.contains("unknown attribute \"rsik\"")),
        "{:?}",
        plan.notices
    );
    assert!(plan.notices.iter().any(|n| n.line == 4 && n.text.contains("\"maybe\"")));
}
