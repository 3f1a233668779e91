//! The library: embedded runbooks, what overrides them, folders, slugs, freezing, watching.

use std::time::{Duration, Instant};

use breakglass::plan::library::{EMBEDDED, Library, Origin};
use breakglass::plan::watch::Watch;
use breakglass::plan::{digest, freeze, parse, thaw};

#[test]
fn every_runbook_in_the_folder_is_embedded() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks");
    let mut on_disk: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    on_disk.sort();
    let mut embedded: Vec<&str> = EMBEDDED.iter().map(|(n, _)| *n).collect();
    embedded.sort_unstable();
    assert_eq!(on_disk, embedded);
}

#[test]
fn a_file_of_the_same_name_overrides_and_others_are_added() {
    let first = tempfile::tempdir().unwrap();
    let second = tempfile::tempdir().unwrap();
    std::fs::write(first.path().join("database-corruption.md"), "# Database corruption\n\n1. Call Ann\n").unwrap();
    std::fs::write(second.path().join("database-corruption.md"), "# Shadowed\n\n1. Never seen\n").unwrap();
    std::fs::write(second.path().join("region.md"), "# Region lost\n\n1. Fail over\n").unwrap();
    let folders = [first.path().to_path_buf(), second.path().join("absent"), second.path().to_path_buf()];
    let library = Library::runbooks(&folders).unwrap();
    let (document, scenario) = library.find("database-corruption").unwrap();
    assert_eq!(document.origin, Origin::File(first.path().join("database-corruption.md")));
    assert_eq!(scenario.steps[0].title, "Call Ann");
    assert!(library.find("Region Lost").is_ok(), "a title in any spelling");
    let embedded = Library::runbooks(&[]).unwrap();
    assert_eq!(embedded.find("database-corruption").unwrap().0.origin, Origin::Embedded);
    let error = embedded.find("nonsense").unwrap_err().to_string();
    assert!(error.contains("\"nonsense\"") && error.contains("database-corruption"), "{error}");
}

#[test]
fn folders_and_globs_are_one_library_with_distinct_slugs() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("sub/.git")).unwrap();
    std::fs::write(dir.path().join("a.md"), "# A\n\n## Scenario: Lost\n\n1. Restore\n").unwrap();
    std::fs::write(dir.path().join("sub/b.md"), "# B\n\n## Scenario: Lost\n\n1. Rebuild\n").unwrap();
    std::fs::write(dir.path().join("sub/.git/c.md"), "# C\n\n1. Hidden\n").unwrap();
    let library = Library::open(&[dir.path().to_path_buf()]).unwrap();
    let slugs: Vec<&str> = library.scenarios().map(|(_, s)| s.slug.as_str()).collect();
    assert_eq!(slugs, ["lost", "b-lost"]);
    assert_eq!(library.documents[1].plan.file, "sub/b.md");
    assert!(library.notices.iter().any(|n| n.contains("two scenarios are called \"Lost\"")), "{:?}", library.notices);
    let globbed = Library::open(&[dir.path().join("?.md")]).unwrap();
    assert_eq!(globbed.documents.len(), 1);
}

#[test]
fn a_frozen_plan_is_the_same_bytes_again_and_comes_back() {
    let text = EMBEDDED[0].1.as_bytes();
    let plan = parse("database-corruption.md", text).unwrap();
    let (bytes, frozen) = freeze(&plan).unwrap();
    assert_eq!(freeze(&parse("database-corruption.md", text).unwrap()).unwrap(), (bytes.clone(), frozen.clone()));
    assert_eq!(frozen, digest(&bytes));
    assert_eq!(thaw(&bytes, Some(&frozen)).unwrap(), plan);
    let mut other = bytes.clone();
    let at = other.len() / 2;
    other[at] ^= 1;
    let error = thaw(&other, Some(&frozen)).unwrap_err();
    assert!(error.to_string().contains("is not the one the journal names"), "{error}");
}

#[test]
fn a_document_that_changes_is_reported_once_with_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.md");
    std::fs::write(&path, "# One\n").unwrap();
    let watch = Watch::new(vec![path.clone()]).unwrap();
    assert!(watch.try_next().is_none(), "nothing has changed yet");
    // As editors do: write beside, then rename over.
    std::fs::write(dir.path().join("plan.tmp"), "# Two\n").unwrap();
    std::fs::rename(dir.path().join("plan.tmp"), &path).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let wanted = digest(b"# Two\n");
    loop {
        let change = watch.next(deadline.saturating_duration_since(Instant::now())).expect("a change is reported");
        assert_eq!(change.path, path);
        if change.digest.as_ref() == Some(&wanted) {
            break;
        }
    }
    std::fs::remove_file(&path).unwrap();
    let change = watch.next(Duration::from_secs(30)).expect("its end is reported");
    assert_eq!(change.digest, None);
}
