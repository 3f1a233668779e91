//! A repository on a disk that is full, page by page: what removes backups and what changes keys is before or after, and goes
//! on when there is room again.

use std::process::Command;

use super::PASSPHRASE;
use super::logical::text;
use crate::bad_input::can_mount;

/// Two backups, of which one may go; then a disk with so many free pages, and what each command says on it.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=1m tmpfs small || exit 99
P="$1"; NEW="another passphrase, thirty-two characters and more"
"$P" backup create --files data >/dev/null 2>&1 && "$P" backup create --files data >/dev/null 2>&1 || exit 98
cat /dev/zero > small/filler 2>/dev/null
mount --bind data/file small/.reserve || exit 97
"$P" backup cleanup >out 2>&1; echo "held $? $(grep -c 'No space left.*reserve' out)"
umount small/.reserve
for look in doctor health; do
    "$P" $look >out 2>&1; echo "full $? $(grep -c 'disk of .*small.* is full' out)"
done
env -u BACKUP_ENCRYPTION_KEY "$P" health >out 2>&1; echo "full $? $(grep -c 'disk of .*small.* is full' out)"
"$P" backup verify --all >out 2>&1; echo "unsaid $? $(grep -c 'right:.*No space left' out)"
"$P" --json backup verify --all >out 2>/dev/null; echo "unsaid $? $(grep -c '"ok": true' out)"
"$P" --read-only backup verify --all >out 2>&1; echo "asked $? $(grep -c 'right:' out)"
for pages in 0 1 3; do
    truncate -s "-$((pages * 4096))" small/filler
    "$P" backup cleanup >out 2>&1; echo "cleanup $? $(grep -c 'No space left' out)"
    cat /dev/zero >> small/filler 2>/dev/null
    truncate -s "-$((pages * 4096))" small/filler
    "$P" backup list >out 2>&1; echo "list $? $(grep -c files- out)"
    BACKUP_NEW_ENCRYPTION_KEY="$NEW $pages" "$P" backup rotate-key --new-key-pair >out 2>&1; code=$?
    echo "rotate $code $(grep -c 'No space left' out)"
    if [ $code = 0 ]; then export BACKUP_ENCRYPTION_KEY="$NEW $pages"; fi
    "$P" backup verify >out 2>&1; echo "verify $? $(grep -c 'No space left\|right:' out)"
    cat /dev/zero >> small/filler 2>/dev/null
done
rm small/filler
for command in "cleanup" "verify --all"; do
    "$P" backup $command >out 2>&1; echo "after $?"
done
BACKUP_NEW_ENCRYPTION_KEY="$NEW again" "$P" backup rotate-key >out 2>&1; echo "after $?"
BACKUP_ENCRYPTION_KEY="$NEW again" "$P" backup list >out 2>&1; echo "after $? $(grep -c files- out)"
echo "unfinished $(find small -name '.tmp-*' | wc -l)"
"#;

#[test]
fn cleanup_and_rotate_key_on_a_full_disk() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for folder in ["small", "data"] {
        std::fs::create_dir(d.join(folder)).unwrap();
    }
    std::fs::write(d.join("data/file"), "content".repeat(500)).unwrap();
    let keep = "[repository]\ngenerations = { daily = 1, weekly = 0, monthly = 0, yearly = 0 }\n";
    std::fs::write(d.join("breakglass.toml"), keep).unwrap();
    let out = super::alone_in(
        Command::new("unshare").args(["-m", "sh", "-c", SCRIPT, "sh", env!("CARGO_BIN_EXE_breakglass")]),
        d,
        "small",
    )
    .output()
    .unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(0), "{said}");
    let lines: Vec<Vec<&str>> = said.lines().map(|l| l.split(' ').collect()).collect();
    let of = |word: &str| lines.iter().filter(move |l| l[0] == word).collect::<Vec<_>>();
    // The reserve cannot be removed: that the disk is full is said all the same.
    assert_eq!(of("held")[0][1..], ["3", "1"], "{said}");
    // Every byte is right, and that could not be written down: not done. Whoever asks for no record gets none.
    assert_eq!(of("unsaid")[0][1..], ["3", "2"], "{said}");
    assert_eq!(of("unsaid")[1][1..], ["3", "3"], "{said}");
    assert_eq!(of("asked")[0][1..], ["0", "2"], "{said}");
    // Whoever looks hears of it, also without a check of its own and without the key.
    assert!(of("full").len() == 3 && of("full").iter().all(|l| l[1] == "1" && l[2] != "0"), "{said}");
    // Nothing free: what removes backups has a reserve; what adds is refused by the disk, and says so.
    assert_eq!(of("cleanup")[0][1..], ["0", "0"], "{said}");
    assert_eq!(of("list")[0][2], "1", "one backup went: {said}");
    assert_eq!(of("rotate")[0][1..], ["3", "1"], "{said}");
    assert!(of("list").iter().all(|l| l[1] == "0" && ["1", "2"].contains(&l[2])), "reading works: {said}");
    for word in ["cleanup", "rotate"] {
        assert!(of(word).iter().all(|l| l[1] == "0" || l[1] == "3" && l[2] == "1"), "{said}");
    }
    // The backup is right; that it was verified may not fit in, and then that is what is said.
    assert!(of("verify").iter().all(|l| ["0", "3"].contains(&l[1]) && l[2] == "1"), "{said}");
    assert!(of("after").iter().all(|l| l[1] == "0"), "{said}");
    assert_eq!(of("after")[3][2], "1", "one backup is left: {said}");
    assert_eq!(of("unfinished")[0][1], "0", "{said}");
}

/// A scratch file and a copy on disks that are full while the repository's has room: the disk that is full is named, and what makes
/// room on another is not.
const ELSEWHERE: &str = r#"
P="$1"
mount -t tmpfs -o size=64k,mode=1777 tmpfs small || exit 99
"$P" backup restore latest --into fulldisk_back --scratch "$PWD/small" --ignore-space; echo "scratch $?"
"$P" backup copy --to "$PWD/small"; echo "copy $?"
umount small
mkdir repo2 && mount -t tmpfs -o size=64k tmpfs repo2 || exit 97
BACKUP_DIR="$PWD/repo2" "$P" backup create --files data; echo "own $?"
"#;

#[test]
fn the_disk_that_is_full_is_the_one_that_is_named() {
    if !can_mount() {
        return;
    }
    let c = super::logical::cluster();
    c.sql("postgres", "create database fulldisk");
    c.sql("fulldisk", "create table t as select n, md5(n::text) as x from generate_series(1, 20000) n");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for folder in ["small", "data"] {
        std::fs::create_dir(d.join(folder)).unwrap();
    }
    let mut noise = vec![0u8; 200_000];
    getrandom::fill(&mut noise).unwrap();
    std::fs::write(d.join("data/file"), noise).unwrap();
    let url = super::logical::url(&c, "fulldisk");
    super::logical::json(d, &url, 0, &["backup", "create", "--logical"]);
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", ELSEWHERE, "sh", env!("CARGO_BIN_EXE_breakglass")])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", d)
        .env("BREAKGLASS_HOME", d.join("state"))
        .env("BACKUP_DIR", d.join("repo"))
        .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
        .env("DATABASE_URL", &url)
        .current_dir(d)
        .output()
        .unwrap();
    // What it said of each: stderr has the errors in order, stdout the codes.
    let (codes, said) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    for code in ["scratch 3", "copy 3", "own 3"] {
        assert!(codes.contains(code), "{code}: {}", text(&out));
    }
    let full: Vec<&str> = said.lines().filter(|l| l.contains("is full")).collect();
    let small = d.join("small").display().to_string();
    for (place, word) in [(small.as_str(), "--scratch"), (&small, "disk of a copy"), ("repo2", "backup cleanup")] {
        assert!(full.iter().any(|l| l.contains(place) && l.contains(word)), "{place}, {word}: {said}");
    }
    assert!(said.lines().all(|l| l.contains("repo2") || !l.contains("backup cleanup")), "{said}");
}

/// A disk with errors is mounted again, to be read only: `create` finds out, and whoever asks beforehand hears of it.
#[test]
fn a_repository_that_can_only_be_read_is_not_ready() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for folder in ["repo", "data"] {
        std::fs::create_dir(d.join(folder)).unwrap();
    }
    let script = r#"
mount --bind repo repo || exit 99
"$1" backup create --files data >/dev/null 2>&1 || exit 98
"$1" wal status >out 2>&1; echo "before $? $(grep -c 'mounted read-only' out)"
mount -o remount,bind,ro repo || exit 97
for look in doctor health "wal status"; do "$1" $look >out 2>&1; echo "only $? $(grep -o -m1 'mounted read-only' out | head -n 1)"; done
"$1" backup create --files data >out 2>&1; echo "create $? $(grep -c 'Read-only file system' out)"
"$1" --read-only health >out 2>&1; echo "asked $(grep -c 'mounted read-only' out)"
"#;
    let out = super::alone_in(
        Command::new("unshare").args(["-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_breakglass")]),
        d,
        "repo",
    )
    .output()
    .unwrap();
    let said = text(&out);
    assert_eq!(
        said,
        "before 0 0\nonly 1 mounted read-only\nonly 1 mounted read-only\nonly 1 mounted read-only\ncreate 3 1\nasked 0\n"
    );
}
