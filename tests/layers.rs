//! Imports point down: a room may use only the rooms below it (see `src/lib.rs` and docs/architecture.md).

use std::path::{Path, PathBuf};

/// From the bottom up. `cli` is the top; `main.rs` and `lib.rs` are outside.
const ROOMS: [&str; 19] = [
    "model", "error", "incident", "config", "journal", "plan", "process", "postgres", "backup", "provider", "recovery",
    "action", "lint", "runtime", "export", "drill", "app", "tui", "cli",
];

/// Rooms that touch nothing of the world: no file, no process, no clock.
const PURE: [&str; 2] = ["model", "incident"];

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Every path that starts at the crate or climbs with `super`, resolved to the room it ends in.
fn rooms_used(file: &Path, src: &Path) -> Vec<(usize, String)> {
    let relative = file.strip_prefix(src).unwrap();
    let mut module: Vec<String> =
        relative.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|m| m == "mod") {
        module.pop();
    }
    let text = std::fs::read_to_string(file).unwrap();
    let mut used = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        for (at, _) in line.match_indices("crate::") {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            let inner: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => group.split(',').map(|p| p.trim().trim_end_matches(['}', ';'])).collect(),
                None => vec![rest],
            };
            for path in inner {
                let room: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !room.is_empty() {
                    used.push((number + 1, room));
                }
            }
        }
        let mut rest = line;
        while let Some(at) = rest.find("super::") {
            let climb = &rest[at..];
            let mut ups = 0;
            let mut tail = climb;
            while let Some(next) = tail.strip_prefix("super::") {
                ups += 1;
                tail = next;
            }
            // A file's own name counts as one level unless it is a mod.rs, whose name was dropped above.
            if ups >= module.len() {
                let room: String = tail.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                used.push((number + 1, room));
            }
            rest = tail;
        }
    }
    used
}

#[test]
fn imports_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    assert!(all.len() > 20, "the scan found only {} files", all.len());
    let mut wrong = Vec::new();
    for file in &all {
        let relative = file.strip_prefix(&src).unwrap();
        let room = relative.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_string();
        let Some(own) = ROOMS.iter().position(|r| *r == room) else { continue };
        for (line, used) in rooms_used(file, &src) {
            if let Some(other) = ROOMS.iter().position(|r| *r == used)
                && other > own
            {
                wrong.push(format!("src/{}:{line}: {room} uses {used}, which is above it", relative.display()));
            }
        }
        if room == "incident" || room == "model" {
            let text = std::fs::read_to_string(file).unwrap();
            if text.contains("crate::error") {
                wrong.push(format!("src/{}: {room} returns its own small types, not crate::error", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports run up:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_is_named() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut unknown = Vec::new();
    for entry in std::fs::read_dir(&src).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().trim_end_matches(".rs").to_string();
        if name != "main" && name != "lib" && !ROOMS.contains(&name.as_str()) {
            unknown.push(name);
        }
    }
    assert!(unknown.is_empty(), "rooms without a place in the order: {unknown:?}");
}

#[test]
fn pure_rooms_touch_nothing() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let forbidden = [
        "std::fs",
        "std::net",
        "std::process",
        "tokio",
        "SystemTime::now",
        "Instant::now",
        "std::env",
        "reqwest",
        "sqlx",
    ];
    let mut wrong = Vec::new();
    for room in PURE {
        let mut all = Vec::new();
        files(&src.join(room), &mut all);
        for file in all {
            let text = std::fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                if line.trim_start().starts_with("//") {
                    continue;
                }
                for word in forbidden.iter().filter(|w| line.contains(**w)) {
                    wrong.push(format!("{}:{}: {room} is pure but uses {word}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_only_in_process() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    for file in all {
        let text = std::fs::read_to_string(&file).unwrap();
        let inside = file.strip_prefix(&src).unwrap().starts_with("process");
        let word = concat!("allow(uns", "afe_code)");
        assert!(inside || !text.contains(word), "{} allows unsafe code; only src/process may", file.display());
    }
}

#[test]
fn the_scan_sees_paths_that_run_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model").join("deep.rs");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(
        &file,
        "use crate::{journal::Head, error::Error};\nfn f() { let x: crate::action::Ctx = super::super::runtime::y(); }\n// crate::cli is only named here\npub use super::super::tui;\n",
    )
    .unwrap();
    let used: Vec<String> = rooms_used(&file, dir.path()).into_iter().map(|(_, r)| r).collect();
    assert_eq!(used, ["journal", "error", "action", "runtime", "tui"]);
}
