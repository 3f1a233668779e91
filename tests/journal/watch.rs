//! Waking up when somebody else appends: by notification, and by looking where there is none.

use std::sync::mpsc;
use std::time::Duration;

use breakglass::journal::{FileJournal, Watch};

use super::{append, filled, note};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn an_append_wakes_a_watcher() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = filled(dir.path(), 1);
    let (send, receive) = mpsc::channel();
    let watch = FileJournal::open(dir.path()).unwrap().watch(move || {
        let _ = send.send(());
    });
    for i in 0..3 {
        append(&mut journal, note(&format!("{i}")));
        receive.recv_timeout(LONG).unwrap();
    }
    drop(watch);
    while receive.try_recv().is_ok() {}
    assert_eq!(
        receive.recv_timeout(LONG),
        Err(mpsc::RecvTimeoutError::Disconnected),
        "the callback is gone with its watch"
    );
}

#[test]
fn a_file_is_seen_also_where_nothing_notifies() {
    let dir = tempfile::tempdir().unwrap();
    // The folder does not exist yet, so nothing can be asked to notify.
    let later = dir.path().join("later");
    let (send, receive) = mpsc::channel();
    let watch = Watch::start(later.join("journal.jsonl"), move || {
        let _ = send.send(());
    });
    assert!(watch.degraded().is_some_and(|why| why.contains("once a second")), "{:?}", watch.degraded());
    std::fs::create_dir(&later).unwrap();
    filled(&later, 1);
    receive.recv_timeout(LONG).unwrap();
}
