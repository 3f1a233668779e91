//! Folders into the repository and back, every file compared; what could be secret of the machine stays out.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::NOBODY;
use super::logical::{json, program, text};

fn tree(root: &Path) {
    std::fs::create_dir_all(root.join("deep/er")).unwrap();
    std::fs::write(root.join("deep/er/a"), vec![7u8; 300_000]).unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::fs::write(root.join("odd name ü\n;rm -rf"), "odd").unwrap();
    std::fs::write(root.join("x".repeat(200)), "long").unwrap();
    std::fs::write(root.join("run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(root.join("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(root.join("closed")).unwrap();
    std::fs::write(root.join("closed/in"), "in").unwrap();
    std::fs::set_permissions(root.join("closed"), std::fs::Permissions::from_mode(0o555)).unwrap();
    symlink("deep/er/a", root.join("link")).unwrap();
    symlink("/etc/passwd", root.join("out")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
}

#[test]
fn folders_go_round_and_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    tree(&d.join("uploads"));
    std::fs::create_dir(d.join("logs")).unwrap();
    std::fs::write(d.join("logs/app.log"), "line\n".repeat(1000)).unwrap();
    let create = ["--json", "backup", "create", "--files", "uploads", "--files", "logs"];
    let out = program(d, NOBODY, &[("MY_API_TOKEN", "hunter2-hunter2")], &create);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let made: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(made["skipped"][0], "uploads/pipe", "{made}");
    let id = made["id"].as_str().unwrap();
    let unlocked = breakglass::backup::repository::Repository::open(d.join("repo").to_str().unwrap())
        .unwrap()
        .unlock(&super::passphrase())
        .unwrap();
    let name = format!("backups/{id}/environment.json.bgo");
    let (bytes, _) =
        unlocked.read_own(breakglass::backup::container::ObjectType::Files, &name, 1 << 20).unwrap().unwrap();
    let environment = String::from_utf8(bytes).unwrap();
    assert!(environment.contains("MY_API_TOKEN") && !environment.contains("hunter2"), "{environment}");
    assert!(!environment.contains(super::PASSPHRASE), "{environment}");

    let done = json(d, NOBODY, 0, &["backup", "restore", id, "--into", "back"]);
    assert_eq!(done["parity"]["same"], 7, "{done}");
    assert_eq!(done["parity"]["differing"].as_array().unwrap().len(), 0);
    let compared = std::process::Command::new("diff")
        .args(["-r", "--no-dereference", "--exclude=pipe"])
        .args([d.join("uploads"), d.join("back/uploads")])
        .output()
        .unwrap();
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
    let mode = |p: &str| std::fs::metadata(d.join(p)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("back/uploads/run"), mode("back/uploads/closed")), (0o755, 0o555));
    assert_eq!(std::fs::read_link(d.join("back/uploads/out")).unwrap(), Path::new("/etc/passwd"));
    json(d, NOBODY, 4, &["backup", "restore", id, "--into", "back"]);

    // Damage: nothing is left, not even a half folder.
    let path = d.join("repo/backups").join(id).join("files.tar.bgo");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    json(d, NOBODY, 1, &["backup", "restore", id, "--into", "again"]);
    let left: Vec<String> = std::fs::read_dir(d)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.contains("again"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let bad = program(d, NOBODY, &[], &["backup", "create", "--files", "nowhere"]);
    assert_eq!(bad.status.code(), Some(2), "{}", text(&bad));
}

/// Root reads everything as long as it may: here it may not.
#[test]
fn a_file_that_may_not_be_read_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("data")).unwrap();
    std::fs::write(d.join("data/open"), "open").unwrap();
    std::fs::write(d.join("data/sealed"), "sealed").unwrap();
    std::fs::set_permissions(d.join("data/sealed"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut c = match breakglass::process::user::is_root() {
        true => std::process::Command::new("setpriv"),
        false => std::process::Command::new("env"),
    };
    if breakglass::process::user::is_root() {
        let may = "-dac_override,-dac_read_search";
        c.args([format!("--bounding-set={may}"), format!("--inh-caps={may}")]);
    }
    let out = super::alone_in(
        c.arg(env!("CARGO_BIN_EXE_breakglass")).args(["backup", "create", "--files", "data"]),
        d,
        "repo",
    )
    .output()
    .unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(3), "{said}");
    for word in ["data/sealed", "Permission denied", "Nothing was stored", "a user who may read it"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let list = json(d, NOBODY, 0, &["backup", "list"]);
    assert_eq!(list["backups"].as_array().unwrap().len(), 0, "{list}");
}

#[test]
fn owners_modes_and_hard_links_come_back_or_are_named() {
    use std::os::unix::fs::{MetadataExt, chown, lchown};
    if !breakglass::process::user::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let from = d.join("data");
    std::fs::create_dir(&from).unwrap();
    std::fs::create_dir(from.join("theirs")).unwrap();
    for name in ["aa", "run", "theirs/in"] {
        std::fs::write(from.join(name), name.repeat(1000)).unwrap();
    }
    let nobody = breakglass::process::user::lookup("nobody").unwrap();
    for name in ["run", "theirs", "theirs/in"] {
        chown(from.join(name), Some(nobody.uid), Some(nobody.gid)).unwrap();
    }
    let mode =
        |p: &str, mode: u32| std::fs::set_permissions(from.join(p), std::fs::Permissions::from_mode(mode)).unwrap();
    mode("run", 0o4755);
    mode("theirs", 0o2770);
    // Owned by a number that has no name.
    std::fs::write(from.join("number"), "").unwrap();
    chown(from.join("number"), Some(54321), Some(54322)).unwrap();
    std::fs::hard_link(from.join("aa"), from.join("theirs/same")).unwrap();
    symlink("aa", from.join("theirs/z")).unwrap();
    lchown(from.join("theirs/z"), Some(nobody.uid), None).unwrap();
    let made = json(d, NOBODY, 0, &["backup", "create", "--files", "data"]);
    let id = made["id"].as_str().unwrap();
    let of = |root: &str, p: &str| {
        let m = std::fs::symlink_metadata(d.join(root).join(p)).unwrap();
        (m.uid(), m.gid(), m.mode())
    };
    let all = ["", "aa", "run", "theirs", "theirs/in", "theirs/same", "theirs/z", "number"];
    let done = json(d, NOBODY, 0, &["backup", "restore", id, "--into", "back"]);
    assert_eq!(done["parity"]["not_set"].as_array().unwrap().len(), 0, "{done}");
    all.iter().for_each(|p| assert_eq!(of("back/data", p), of("data", p), "{p}"));
    let inode = |p: &str| std::fs::metadata(d.join(p)).unwrap().ino();
    assert_eq!(inode("back/data/aa"), inode("back/data/theirs/same"));
    json(d, NOBODY, 0, &["backup", "verify", id]);
    // A part of it, the link before its file, too.
    let some = ["backup", "restore", id, "--into", "some", "--file", "data/theirs", "--file", "data/run"];
    let done = json(d, NOBODY, 0, &some);
    assert!(done["parity"]["not_set"].to_string().contains("hard link to data/aa"), "{done}");
    ["run", "theirs", "theirs/in", "theirs/z"]
        .iter()
        .for_each(|p| assert_eq!(of("some/data", p), of("data", p), "{p}"));
    assert_eq!(std::fs::read(d.join("some/data/theirs/same")).unwrap(), std::fs::read(from.join("aa")).unwrap());

    // Who may not give files away says whose they were, and lends nobody's rights.
    let out = super::alone_in(
        std::process::Command::new("setpriv")
            .args(["--bounding-set=-chown", "--inh-caps=-chown", env!("CARGO_BIN_EXE_breakglass")])
            .args(["backup", "restore", id, "--into", "mine"]),
        d,
        "repo",
    )
    .output()
    .unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(0), "{said}");
    for word in ["data/run: owner nobody:", "mode 4755", "data/number: owner 54321:54322", "without their owner"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(of("mine/data", "run").2 & 0o7777, 0o755);
}
