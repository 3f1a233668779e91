//! Rewriting a folder where it differs: the result is what a full restore makes, byte by byte, also after a kill; and never on
//! a running server's folder, another cluster's, or one in service without its name.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use breakglass::backup::base::delta::rewriting_name;
use breakglass::backup::base::{RestoreOptions, restore_base, restore_delta};
use breakglass::backup::repository::Repository;
use breakglass::error::ErrorKind;
use breakglass::model::Secret;
use breakglass::postgres::Stop;
use breakglass::postgres::configuration::ConfigurationFile;
use breakglass::recovery::shadow::Shadow;

use crate::support::archived::{Archived, PASSPHRASE};
use crate::support::cluster::{LIMIT, psql, server_user};

const CHILD: &str = "BREAKGLASS_TEST_DELTA_CHILD";

/// Every file and folder below: content, mode and owner.
type Tree = BTreeMap<PathBuf, (Option<Vec<u8>>, u32, u32)>;

fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(dir) = folders.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let m = std::fs::symlink_metadata(&path).unwrap();
            let content = m.is_file().then(|| std::fs::read(&path).unwrap());
            assert!(m.is_file() || m.is_dir(), "{path:?}");
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), (content, m.mode() & 0o7777, m.uid()));
            if m.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

fn same(left: &Path, right: &Path) {
    let (l, r) = (tree(left), tree(right));
    for (path, entry) in &l {
        assert!(r.get(path) == Some(entry), "{path:?} differs");
    }
    assert_eq!(l.len(), r.len(), "{:?}", r.keys().filter(|k| !l.contains_key(*k)).collect::<Vec<_>>());
}

fn options() -> RestoreOptions {
    RestoreOptions { owner: server_user().map(|u| (u.uid, u.gid)), threads: 2 }
}

/// What a server, time and people do to a folder.
fn spoil(data: &Path, round: u64) {
    let write = |name: &str, bytes: &[u8]| std::fs::write(data.join(name), bytes).unwrap();
    let folder = |p: &PathBuf| p.to_str().is_some_and(|p| p.starts_with("source_configuration-") && !p.contains('/'));
    let configuration = tree(data).into_keys().find(folder).unwrap();
    let base: Vec<PathBuf> = tree(data).keys().filter(|p| p.starts_with("base")).cloned().collect();
    let files: Vec<&PathBuf> = base.iter().filter(|p| data.join(p).metadata().unwrap().len() >= 8192).collect();
    // A page in the middle, one appended, one cut, one gone, one of another type, one with another mode.
    let pick = |n: u64| data.join(files[((n * 7919 + round * 104_729) % files.len() as u64) as usize]);
    let mut bytes = std::fs::read(pick(1)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(pick(1), &bytes).unwrap();
    bytes.extend_from_slice(&[7; 8192]);
    std::fs::write(pick(2), &bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(pick(3)).unwrap();
    file.set_len(8191).unwrap();
    let _ = std::fs::remove_file(pick(4));
    let _ = std::fs::remove_file(pick(5));
    std::fs::create_dir_all(pick(5).join("deep")).unwrap();
    write("postmaster.pid", b"999999999\n");
    // What is longer than in the backup, also of what is not in the server's manifest.
    let theirs = |p: &PathBuf| p.starts_with(&configuration) && data.join(p).is_file();
    let longer = tree(data).into_keys().find(theirs).unwrap();
    write(longer.to_str().unwrap(), "fsync = off\n".repeat(9).as_bytes());
    write("recovery.signal", b"");
    write("base/1/424242", b"nobody's");
    std::fs::create_dir_all(data.join("pg_stat_tmp/new/folder")).unwrap();
    // A second name for a file: the other one's content stays. A link out of the folder: what it leads to stays.
    let outside = data.parent().unwrap().join(format!("outside-{round}"));
    let _ = std::fs::remove_file(&outside);
    std::fs::write(&outside, b"theirs").unwrap();
    let _ = std::fs::remove_file(data.join("PG_VERSION.old"));
    std::fs::remove_file(data.join("global/pg_filenode.map")).unwrap();
    std::fs::hard_link(&outside, data.join("global/pg_filenode.map")).unwrap();
    std::fs::remove_dir_all(data.join("pg_notify")).unwrap();
    std::os::unix::fs::symlink("/", data.join("pg_notify")).unwrap();
}

/// Not a test by itself: the process that is killed.
#[test]
fn child_rewrites_a_folder() {
    let Some(args) = std::env::var(CHILD).ok() else { return };
    let [repository, id, data] = args.split('\n').collect::<Vec<_>>()[..] else { panic!("{args}") };
    let unlocked = Repository::open(repository).unwrap().unlock(&Secret::new(PASSPHRASE)).unwrap();
    restore_delta(&unlocked, id, Path::new(data), &options(), &mut |_, _| Ok(())).unwrap();
}

fn soak() -> bool {
    std::env::var_os("BREAKGLASS_SOAK").is_some()
}

#[test]
fn what_differs_is_rewritten_and_the_result_is_that_of_a_full_restore() {
    let a = Archived::start("delta");
    let sql = |text: &str| a.cluster.sql("postgres", text);
    sql("create table t as select n, md5(n::text) as x from generate_series(1, 20000) n; create index on t (x)");
    let configuration = ConfigurationFile { path: "/etc/pg/postgresql.conf".into(), bytes: b"port = 5433\n".to_vec() };
    let id = a.base_backup_with(&[configuration]);
    sql("update t set x = x || 'later' where n % 3 = 0; create table later as select 1 as one");
    a.archive_now();
    let room = &a.room.path;

    // By itself: page by page what a full restore makes.
    let (full, data) = (room.join("full"), room.join("delta"));
    restore_base(&a.unlocked, &id, &full, &options(), &mut |_| Ok(())).unwrap();
    restore_base(&a.unlocked, &id, &data, &options(), &mut |_| Ok(())).unwrap();
    let bytes: u64 = tree(&full).values().filter_map(|(c, ..)| c.as_ref()).map(|c| c.len() as u64).sum();
    let again = restore_delta(&a.unlocked, &id, &data, &options(), &mut |_, _| Ok(())).unwrap().1;
    assert_eq!(again.removed, 0);
    assert!(again.bytes <= bytes && bytes - again.bytes < 100_000, "{} of {bytes} bytes", again.bytes);
    spoil(&data, 0);
    let mut told = (0, 0);
    let step = &mut |done, reused| {
        told = (done, reused);
        Ok(())
    };
    let done = restore_delta(&a.unlocked, &id, &data, &options(), step).unwrap().1;
    same(&full, &data);
    assert_eq!(std::fs::read(room.join("outside-0")).unwrap(), b"theirs");
    assert!(told.0 >= bytes && told.1 == done.bytes, "{told:?}");
    assert!(done.bytes < again.bytes && done.bytes > bytes / 2, "{} of {bytes} bytes", done.bytes);
    assert!(done.removed >= 4, "{done:?}");

    // Killed on the way, again and again: the next one goes on and the result is the same.
    let wanted = if soak() { 100 } else { 4 };
    let mut usual = Duration::from_millis(300);
    let (mut kills, mut between, mut round) = (0, 0, 1);
    let mut random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {random}");
    spoil(&data, round);
    while kills < wanted {
        assert!(round < 60 + 20 * wanted, "only {kills} kills");
        round += 1;
        let began = Instant::now();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "recovery::delta::child_rewrites_a_folder", "--test-threads=1"])
            .env(CHILD, format!("{}\n{id}\n{}", a.repository.display(), data.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(usual * u32::try_from((random >> 33) % 1000).unwrap() / 1000);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        // Under one name or the other, never both.
        let half = rewriting_name(&data).exists();
        assert!(data.exists() != half);
        if status.signal() == Some(9) {
            kills += 1;
            between += usize::from(half);
        } else {
            assert!(status.success());
            usual = usual.min(began.elapsed()).max(Duration::from_millis(20));
            same(&full, &data);
            spoil(&data, round);
        }
        if between == 0 && kills + 1 == wanted && !soak() {
            // Begun and not ended has to be seen: by a longer look.
            usual += Duration::from_millis(200);
            kills -= 1;
        }
    }
    println!("{kills} kills, {between} of them left it half rewritten");
    restore_delta(&a.unlocked, &id, &data, &options(), &mut |_, _| Ok(())).unwrap();
    same(&full, &data);

    // Another cluster's folder, no folder, both names: refused, nothing touched.
    let refused = |data: &Path, words: &str| {
        let e = restore_delta(&a.unlocked, &id, data, &options(), &mut |_, _| Ok(())).unwrap_err();
        assert_eq!(e.kind, ErrorKind::Refused, "{e}");
        assert!(e.why.contains(words), "{e}");
    };
    let control = data.join("global/pg_control");
    let right = std::fs::read(&control).unwrap();
    let mut other = right.clone();
    other[0] ^= 1;
    std::fs::write(&control, &other).unwrap();
    refused(&data, "it is of cluster");
    assert_eq!(std::fs::read(&control).unwrap(), other);
    // Begun for another cluster, by what its files say or what the restore left: neither is gone on with.
    let begun = rewriting_name(&data);
    std::fs::rename(&data, &begun).unwrap();
    refused(&data, "it is of cluster");
    let control = begun.join("global/pg_control");
    std::fs::write(&control, &right).unwrap();
    let mark = begun.join("breakglass-rewriting.json");
    std::fs::write(&mark, r#"{"system_identifier": "7", "postgres_version": "15"}"#).unwrap();
    refused(&data, "it is of cluster 7 of PostgreSQL 15");
    assert!(begun.exists() && !data.exists());
    std::fs::remove_file(&mark).unwrap();
    std::fs::rename(&begun, &data).unwrap();
    refused(&room.join("nowhere"), "no such data directory");
    std::fs::create_dir(rewriting_name(&data)).unwrap();
    refused(&data, "from a restore that was broken off");
    std::fs::remove_dir(rewriting_name(&data)).unwrap();
    let live = &a.cluster.instance.layout.data;
    refused(live, "a server is running on it");
    assert_eq!(sql("select count(*) from later"), "1");
    // A server in a container is process 1; one in single-user mode names itself by a negative number.
    for pid in ["1".to_string(), format!("-{}", std::process::id())] {
        std::fs::write(data.join("postmaster.pid"), format!("{pid}\n")).unwrap();
        refused(&data, "a server is running on it");
    }
    std::fs::remove_file(data.join("postmaster.pid")).unwrap();

    // From the command line: an earlier recovery becomes another one.
    let dir = room.join("shadow");
    let dir = dir.to_str().unwrap();
    let go = |args: &[&str]| a.run(args);
    let (code, text) = go(&["pitr", "restore", "--to", "latest", "--dir", dir]);
    assert_eq!(code, 0, "{text}");
    let prints = |root: &str| {
        let at = Shadow::load(Path::new(root)).unwrap().database("postgres").unwrap();
        psql(&at, "select count(*), sum(hashtextextended(t::text, 0)::numeric), (select count(*) from later) from t")
            .unwrap()
    };
    let expected = prints(dir);
    let rewrite = ["pitr", "restore", "--to", "latest", "--dir", dir, "--delta"];
    let (code, text) = go(&rewrite);
    assert!(code == 4 && text.contains("a server is running"), "{code} {text}");
    assert_eq!(prints(dir), expected, "it was not touched");
    Shadow::load(Path::new(dir)).unwrap().instance().unwrap().stop(Stop::Fast, LIMIT).unwrap();
    let (code, text) = go(&rewrite);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("MB of its files were there already"), "{text}");
    let built = Shadow::load(Path::new(dir)).unwrap();
    assert!(built.reused.unwrap() > bytes / 2, "{built:?}");
    assert_eq!(prints(dir), expected);
    built.instance().unwrap().stop(Stop::Fast, LIMIT).unwrap();
    // One that was in service is fenced like any other: it waits for the log and began a timeline of its own.
    std::fs::write(Path::new(dir).join("data/pg_wal/00000002.history"), "1\t0/1\tno recovery target specified\n")
        .unwrap();
    assert!(Path::new(dir).join("data/standby.signal").exists());
    let (code, text) = go(&rewrite);
    assert!(code == 4 && text.contains("--give-up \"shadow\""), "{code} {text}");
    let confirmed: Vec<&str> = rewrite.iter().copied().chain(["--give-up", "shadow"]).collect();
    let (code, text) = go(&confirmed);
    assert_eq!(code, 0, "{text}");
    assert_eq!(prints(dir), expected);
    let kept = Path::new(dir).join("pg_wal-before/00000002.history");
    assert!(kept.exists(), "its log may be archived nowhere: {text}");
    Shadow::load(Path::new(dir)).unwrap().instance().unwrap().stop(Stop::Fast, LIMIT).unwrap();

    // The data directory of the cluster itself, which is down: only when its name was typed.
    let old = live.to_str().unwrap();
    let rewrite = ["pitr", "restore", "--to", "latest", "--dir", old, "--delta"];
    let (code, text) = go(&rewrite);
    assert!(code == 4 && text.contains("--give-up"), "{code} {text}");
    let confirmed: Vec<&str> = rewrite.iter().copied().chain(["--give-up", "data"]).collect();
    let (code, text) = go(&confirmed);
    assert!(code == 4 && text.contains("a server is running on it: the one that answers"), "{code} {text}");
    assert_eq!(sql("select count(*) from later"), "1");
    a.cluster.instance.stop(Stop::Fast, LIMIT).unwrap();
    // Fenced, as one that may be the only one that has what came last: its name is asked for all the same.
    std::fs::write(live.join("standby.signal"), "").unwrap();
    let (code, text) = go(&rewrite);
    assert!(code == 4 && text.contains("--give-up"), "{code} {text}");
    let last_log: Vec<_> = std::fs::read_dir(live.join("pg_wal")).unwrap().map(|e| e.unwrap().file_name()).collect();
    let (code, text) = go(&confirmed);
    assert_eq!(code, 0, "{text}");
    assert!(!live.exists(), "it was moved");
    let folder = live.parent().unwrap().join("breakglass");
    let roots: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    let [root] = &roots[..] else { panic!("{roots:?}") };
    assert_eq!(prints(root.to_str().unwrap()), expected);
    for name in last_log {
        assert!(root.join("pg_wal-before").join(&name).exists(), "{name:?} of the log is kept");
    }
    // Thrown away, what may be archived nowhere stays. So does a folder that is none of ours.
    let (code, text) = go(&["pitr", "discard", "--shadow", root.to_str().unwrap()]);
    assert!(code == 0 && text.contains("may be archived nowhere"), "{code} {text}");
    let left: Vec<_> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["pg_wal-before"], "{text}");
    let (code, text) = go(&["pitr", "discard", "--shadow", root.to_str().unwrap()]);
    assert!(code == 4 && root.join("pg_wal-before").exists(), "{code} {text}");
    // What a killed restore left has no record yet.
    let begun = room.join("begun");
    std::fs::create_dir_all(begun.join("conf")).unwrap();
    std::fs::create_dir_all(begun.join("data/base/5")).unwrap();
    let (code, text) = go(&["pitr", "discard", "--shadow", begun.to_str().unwrap()]);
    assert!(code == 0 && !begun.exists(), "{code} {text}");
}
