//! Two at work in the folder of one recovery: the second is told, and touches nothing.

use std::process::Stdio;
use std::time::Instant;

use breakglass::postgres::{Layout, Stop};
use breakglass::recovery::shadow::Shadow;
use breakglass::recovery::shadow::building::Building;
use rustix::process::{Pid, Signal, kill_process};

use super::shop::script;
use crate::support::archived::Archived;
use crate::support::cluster::LIMIT;

#[test]
fn nobody_removes_or_rebuilds_what_another_builds_just_now() {
    let a = Archived::start("building");
    let db = a.cluster.database("postgres");
    script(&db, "create table t (n int); insert into t select generate_series(1, 20000)");
    a.base_backup();
    script(&db, "insert into t values (1)");
    a.archive_now();
    let root = a.room.path.join("shadow");
    let dir = root.display().to_string();
    let restore = ["pitr", "restore", "--to", "latest", "--dir", &dir];
    let mut builder = a.command(&restore).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !Layout::under(&root, 5432).config.is_dir() {
        assert!(begun.elapsed() < LIMIT && builder.try_wait().unwrap().is_none(), "nothing is built");
    }
    let pid = Pid::from_child(&builder);
    kill_process(pid, Signal::STOP).unwrap();

    let by = format!("process {} builds the recovery in it just now, since ", builder.id());
    let (code, text) = a.run(&["pitr", "discard", "--shadow", &dir]);
    let said = (code, text.contains(&by));
    let (again, other) = a.run(&restore);
    kill_process(pid, Signal::CONT).unwrap();
    let out = builder.wait_with_output().unwrap();
    assert_eq!(said, (4, true), "{text}");
    assert!(again == 4 && other.contains(&by) && !other.contains("pitr discard"), "{again}: {other}");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let shadow = Shadow::load(&root).unwrap();
    assert!(shadow.instance().unwrap().is_running());

    // Moved by somebody else at the moment: neither moved nor removed.
    let mine = Building::take(&root, "moves").unwrap();
    let by = format!("process {} moves the recovery in it just now", std::process::id());
    for args in [&["pitr", "advance", "--shadow", &dir, "--to", "latest"][..], &["pitr", "discard", "--shadow", &dir]] {
        let (code, text) = a.run(args);
        assert!(code == 4 && text.contains(&by), "{args:?} {code}: {text}");
    }
    assert!(shadow.instance().unwrap().is_running(), "it was not touched");
    drop(mine);
    shadow.instance().unwrap().stop(Stop::Fast, LIMIT).unwrap();
    let (code, text) = a.run(&["pitr", "discard", "--shadow", &dir]);
    assert_eq!(code, 0, "{text}");
    assert!(!root.exists());
}
