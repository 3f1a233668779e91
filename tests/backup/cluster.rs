//! End to end on a real server: archive by its archive_command, base backup, restore, recovery through the fetch service.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use breakglass::backup::base::{RestoreOptions, restore_base, store_base, verify_backup};
use breakglass::backup::catalog::{BackupKind, Catalog};
use breakglass::backup::repository::{InitOptions, Repository, Unlocked};
use breakglass::backup::wal::{self, Depth, check_continuity};
use breakglass::backup::wal_service::{ServeOptions, Service, restore_command};
use breakglass::error::ErrorKind;
use breakglass::postgres::{BaseBackup, Instance};

use super::{CHEAP, passphrase};
use crate::support::cluster::{Cluster, LIMIT, programs, psql, server_user};

/// A copy of the program where the server's user can run it.
pub fn executable(dir: &Path) -> PathBuf {
    let exe = dir.join("breakglass");
    std::fs::copy(env!("CARGO_BIN_EXE_breakglass"), &exe).unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    exe
}

/// A cluster that archives into `<root>/repo`.
pub fn archiving(name: &str) -> (Arc<Cluster>, Repository, Unlocked) {
    let c = Cluster::create(name, &[]);
    let owner = server_user().map(|u| (u.uid, u.gid));
    let url = format!("file://{}", c.root().join("repo").display());
    let options = InitOptions { kdf: CHEAP, wal_owner: owner, system_identifier: None };
    let repository = Repository::init(&url, &passphrase(), &options).unwrap();
    let unlocked = repository.unlock(&passphrase()).unwrap();
    // An empty environment, as a service manager gives it.
    let command = wal::archive_command(&executable(c.root()), &url, None).unwrap();
    let settings = [
        ("archive_mode", "on".to_string()),
        ("archive_command", format!("env -i {command}")),
        ("fsync", "off".into()),
        ("track_commit_timestamp", "on".into()),
        ("autovacuum", "off".into()),
    ]
    .map(|(k, v)| (k.to_string(), v));
    c.instance.configure(&settings, None).unwrap();
    c.instance.start(LIMIT).unwrap();
    (Arc::new(c), repository, unlocked)
}

/// Switches the log and waits until the segment that was current is archived.
pub fn switch_and_wait(c: &Cluster, repository: &Repository) -> String {
    let segment = c.sql("postgres", "select pg_walfile_name(pg_switch_wal())");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = wal::status(repository).unwrap();
        if status.timelines.iter().any(|t| t.last >= segment) {
            return segment;
        }
        let failed = c.sql("postgres", "select last_failed_wal, failed_count from pg_stat_archiver");
        assert!(Instant::now() < deadline, "{segment} was not archived: {failed}\n{}", c.instance.log_tail(20));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn base_backup(c: &Cluster, unlocked: &Unlocked, label: &str) -> breakglass::backup::catalog::Manifest {
    let mut stream = BaseBackup::start(&programs(), &c.database("postgres"), label, None).unwrap();
    let mut last = 0;
    let pending = store_base(unlocked, &mut stream, None, &mut |n| {
        last = n;
        Ok(())
    })
    .unwrap();
    assert_eq!(stream.finish().unwrap(), last);
    assert!(Catalog::load(unlocked).unwrap().backups.iter().all(|b| b.manifest.id != pending.manifest().id));
    pending.commit().unwrap()
}

/// An instance over a restored data directory that recovers through the service and stays paused out of the way.
fn recovering(c: &Cluster, data: &Path, root: &Path, socket: &Path) -> Instance {
    let mut i = Instance::new(programs(), root, server_user()).unwrap();
    i.layout.data = data.to_path_buf();
    i.make_dirs().unwrap();
    let restore = restore_command(&c.root().join("breakglass"), socket).unwrap();
    let settings = [
        ("restore_command", format!("env -i {restore}")),
        ("recovery_target_timeline", "1".to_string()),
        ("archive_mode", "off".to_string()),
        ("fsync", "off".into()),
        ("track_commit_timestamp", "on".into()),
    ]
    .map(|(k, v)| (k.to_string(), v));
    i.configure(&settings, None).unwrap();
    std::fs::write(data.join("recovery.signal"), "").unwrap();
    i
}

#[test]
fn archive_backup_restore_and_recover() {
    let (c, repository, unlocked) = archiving("repo");
    let owner = server_user().map(|u| (u.uid, u.gid));
    c.sql("postgres", "create table t as select generate_series(1, 1000) as n");
    let manifest = base_backup(&c, &unlocked, "first");
    assert_eq!(manifest.kind, BackupKind::Physical);
    assert_eq!(manifest.label.as_deref(), Some("first"));
    assert_eq!(manifest.timeline, Some(1));
    assert_eq!(
        manifest.system_identifier.clone().unwrap(),
        c.sql("postgres", "select system_identifier from pg_control_system()")
    );
    for n in 0..3 {
        c.sql("postgres", &format!("insert into t select generate_series({n}, 20000)"));
        switch_and_wait(&c, &repository);
    }
    let last = switch_and_wait(&c, &repository);
    let count = c.sql("postgres", "select count(*), sum(n) from t");

    // The server's own user wrote the log and cannot read the keys.
    if let Some((uid, _)) = owner {
        use std::os::unix::fs::MetadataExt;
        let folder = c.root().join("repo/wal/00000001");
        assert_eq!(std::fs::metadata(&folder).unwrap().uid(), uid);
        // What root archives into it by hand stays the server's: its next archive command must go on working.
        let odd = c.root().join("000000090000000000000001.00000028.backup");
        std::fs::write(&odd, "a label").unwrap();
        wal::archive(&repository.store().url(), &odd, None).unwrap();
        let new = c.root().join("repo/wal/00000009");
        assert_eq!(std::fs::metadata(new).unwrap().uid(), uid);
        assert_eq!(std::fs::metadata(c.root().join("repo/keys")).unwrap().mode() & 0o777, 0o700);
    }

    let verified = verify_backup(&unlocked, &manifest.id, &mut |_| Ok(())).unwrap();
    assert!(verified.plain_bytes > 1 << 20);
    let catalog = Catalog::load(&unlocked).unwrap();
    assert!(catalog.find(&manifest.id).unwrap().verified_at.is_some());
    assert!(catalog.holds(&catalog.head));

    let start =
        wal::Segment::at(1, wal::parse_lsn(manifest.start_lsn.as_deref().unwrap()).unwrap(), 1 << 20).to_string();
    let run = check_continuity(&unlocked, &start, 1, None, Depth::Full, &mut |_| Ok(())).unwrap();
    assert_eq!(run.hole, None);
    assert!(run.last.clone().unwrap() >= last);

    // Restore, and recover through the service to the end of the archive.
    for threads in [1, 4] {
        let root = c.root().join(format!("shadow{threads}"));
        std::fs::create_dir(&root).unwrap();
        let data = root.join("data");
        let options = RestoreOptions { owner, threads };
        restore_base(&unlocked, &manifest.id, &data, &options, &mut |_| Ok(())).unwrap();
        assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1, "no temporary folder is left");
        let verifier = Command::new(programs().path("pg_verifybackup")).arg("-n").arg(&data).output().unwrap();
        // The manifest is restored too, so PostgreSQL's own verifier can judge the files.
        assert!(verifier.status.success(), "{}", String::from_utf8_lossy(&verifier.stderr));
        let error = restore_base(&unlocked, &manifest.id, &data, &options, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
    }
    let root = c.root().join("shadow1");
    let socket = c.root().join("fetch.sock");
    let service =
        Service::start(unlocked.clone(), &socket, &ServeOptions { owner, ..ServeOptions::default() }).unwrap();
    let i = recovering(&c, &root.join("data"), &root, &socket);
    i.start(LIMIT).unwrap();
    wait_promoted(&i);
    assert_eq!(psql(&i.database("postgres"), "select count(*), sum(n) from t").unwrap(), count);
    i.stop(breakglass::postgres::Stop::Immediate, LIMIT).unwrap();
    let served = service.served();
    assert!(served.files >= 4 && served.failed.is_none(), "{served:?}");
    drop(service);
    assert!(!socket.exists());

    // One segment in the middle is damaged: recovery must stop, not promote.
    let middle = wal::Segment::parse(&last).unwrap().number(1 << 20) - 1;
    let object = wal::WalName::Segment(wal::Segment::from_number(1, middle, 1 << 20)).object();
    let path = c.root().join("repo").join(object);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let run = check_continuity(&unlocked, &start, 1, None, Depth::Stored, &mut |_| Ok(())).unwrap();
    let hole = run.hole.unwrap();
    assert_eq!(hole.first, wal::Segment::from_number(1, middle, 1 << 20).to_string());
    let root = c.root().join("shadow4");
    let service =
        Service::start(unlocked.clone(), &socket, &ServeOptions { owner, ..ServeOptions::default() }).unwrap();
    let i = recovering(&c, &root.join("data"), &root, &socket);
    let started = i.start(LIMIT);
    let deadline = Instant::now() + LIMIT;
    while started.is_ok() && i.is_running() {
        assert_ne!(
            psql(&i.database("postgres"), "select pg_is_in_recovery()").as_deref(),
            Ok("f"),
            "promoted over damage"
        );
        assert!(Instant::now() < deadline, "neither stopped nor promoted");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(i.log_tail(40).contains("FATAL"), "{}", i.log_tail(40));
    assert!(service.served().failed.is_some());
}

fn wait_promoted(i: &Instance) {
    let deadline = Instant::now() + LIMIT;
    while psql(&i.database("postgres"), "select pg_is_in_recovery()").as_deref() != Ok("f") {
        assert!(Instant::now() < deadline, "not promoted\n{}", i.log_tail(20));
        std::thread::sleep(Duration::from_millis(20));
    }
}
