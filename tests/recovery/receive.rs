//! `wal receive`: what is committed is in the repository within seconds, also when the receiver or the server is killed, and a
//! recovery to the latest has it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use breakglass::action::{Ctx, Output, Progress, pitr_tail};
use breakglass::backup::repository::Repository;
use breakglass::backup::wal::{Archived as Done, Received, Segment, WalName, archive, fetch, received};
use breakglass::config::settings::REPOSITORY_KEY;
use breakglass::config::url::parse_database_url;
use breakglass::config::{Secrets, Settings};
use breakglass::model::{Secret, Time};
use breakglass::postgres::Lsn;
use breakglass::postgres::Stop;
use breakglass::recovery::predict::Throughput;
use breakglass::recovery::range::range;

use super::shop::rows;
use crate::backup::crash::stored_durably;
use crate::backup::faults::strace;
use crate::support::archived::{Archived, PASSPHRASE};
use crate::support::cluster::{LIMIT, block_on, programs};

/// A running receiver; killed when dropped.
struct Receiver(Child);

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const RECEIVE: [&str; 6] = ["wal", "receive", "--every", "200ms", "--slot", "tests"];

fn receive(a: &Archived) -> Receiver {
    started(a, a.command(&RECEIVE))
}

/// As [`receive`], with what it asks of the disk written to `trace`.
fn receive_traced(a: &Archived, trace: &Path) -> Receiver {
    let plain = a.command(&RECEIVE);
    // The tracer stands beside: what is started, and killed in the end, is the receiver itself.
    let mut c = Command::new("strace");
    c.args(["-D", "-f", "-y", "-qq", "-e", "trace=write,fsync,rename,renameat2", "-o"]).arg(trace);
    c.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            c.env(name, value);
        }
    }
    c.current_dir(&a.room.path);
    started(a, c)
}

fn started(a: &Archived, mut c: Command) -> Receiver {
    let log = std::fs::File::options().create(true).append(true).open(a.room.path.join("receive.log")).unwrap();
    // The archiving side has no key.
    c.env_remove("BACKUP_ENCRYPTION_KEY");
    Receiver(c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

fn state(a: &Archived) -> Option<Received> {
    received::state(&Repository::open(&a.repository.display().to_string()).unwrap()).unwrap()
}

fn server_now(a: &Archived) -> Time {
    let us = a.cluster.sql("postgres", "select (extract(epoch from clock_timestamp()) * 1000000)::int8");
    Time::from_micros(us.parse().unwrap())
}

/// Waits until everything committed up to now is in the repository.
fn covered(a: &Archived) -> Received {
    let now = server_now(a);
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(s) = state(a).filter(|s| s.covered_at.is_some_and(|t| t >= now)) {
            return s;
        }
        let log = std::fs::read_to_string(a.room.path.join("receive.log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "not stored; state {:?}, it said {log}", state(a));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nothing is said to be received before it and its folders are durable.
fn told_after_it_is_durable(a: &Archived, trace: &Path) {
    // Up to the last time that all folders up to the repository's own were made durable: it goes on meanwhile.
    let root = format!("<{}>", a.repository.display());
    let deadline = Instant::now() + LIMIT;
    // What it told is seen before its folder is made durable: that comes a moment later.
    let text = loop {
        let text = std::fs::read_to_string(trace).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        if let Some(last) = lines.iter().rposition(|l| l.contains(" fsync(") && l.contains(&root)) {
            let durable = lines[..=last].join("\n");
            let stored = stored_durably(&durable, &a.repository);
            if [".partial.bgo", "state.json"].iter().all(|name| stored.iter().any(|n| n.ends_with(name))) {
                break durable;
            }
        }
        assert!(Instant::now() < deadline, "not both are made durable: {text}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let lines: Vec<&str> = text.lines().collect();
    let names = |l: &str| l.contains("rename") && l.contains(".tmp-") && !l.contains(" resumed>");
    for (told, _) in lines.iter().enumerate().filter(|(_, l)| names(l) && l.contains("/state.json\"")) {
        let Some(object) = lines[..told].iter().rposition(|l| names(l) && l.contains(".bgo\"")) else { continue };
        let folder = format!("<{}>", a.repository.join("wal/receive").display());
        let durable = lines[object..told].iter().any(|l| l.contains(" fsync(") && l.contains(&folder));
        assert!(durable, "told before it was durable\n{text}");
    }
}

struct Nowhere;

impl Output for Nowhere {
    fn line(&self, _: &str) {}
    fn bytes(&self, _: &[u8]) {}
    fn progress(&self, _: &Progress) {}
}

fn context(a: &Archived) -> Ctx {
    let (connection, _) = parse_database_url(&a.cluster.database("postgres").url()).unwrap();
    let settings = Settings {
        database: Some(connection),
        repository: Some(a.repository.display().to_string()),
        ..Settings::default()
    };
    let mut secrets = Secrets::default();
    secrets.set(REPOSITORY_KEY, Secret::new(PASSPHRASE.to_string()));
    Ctx::new(settings, secrets, std::sync::Arc::new(Nowhere))
}

#[test]
fn what_is_only_in_the_unfinished_segment_survives_killed_receivers_and_a_crashed_server() {
    let a = Archived::start("receive");
    let sql = |text: &str| a.cluster.sql("postgres", text);
    sql("create table t (n int)");
    a.base_backup();
    a.archive_now();
    let receiver = receive(&a);
    sql("insert into t values (1)");
    let first = covered(&a);
    let segment = Segment::parse(&first.segment).unwrap();
    assert!(a.repository.join(format!("wal/receive/{segment}.partial.bgo")).exists());
    assert!(!a.repository.join(WalName::Segment(segment).object()).exists(), "it is not full yet");
    let (code, text) = a.run(&["wal", "status"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("received to ") && text.contains("slot \"tests\""), "{text}");

    // A second receiver of the same folder is refused while the first lives.
    let (code, text) = a.run(&["wal", "receive", "--slot", "tests"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("another receiver works in"), "{text}");

    // Killed: what it had started goes on or not, the next one takes over either way.
    drop(receiver);
    sql("insert into t values (2)");
    let receiver = receive(&a);
    covered(&a);
    if strace() {
        drop(receiver);
        let trace = a.room.path.join("trace");
        let traced = receive_traced(&a, &trace);
        sql("create table u (n int)");
        covered(&a);
        told_after_it_is_durable(&a, &trace);
        drop(traced);
        sql("insert into u values (1)");
    } else {
        drop(receiver);
    }
    let receiver = receive(&a);
    covered(&a);

    // The server goes away hard and comes back.
    a.cluster.instance.stop(Stop::Immediate, LIMIT).unwrap();
    a.cluster.instance.start(LIMIT).unwrap();
    sql("insert into t values (3)");
    let third = covered(&a);

    // A full segment takes the place of its beginning; the next one begins.
    sql("insert into t values (4)");
    sql("select pg_switch_wal()");
    sql("insert into t values (5)");
    let last = covered(&a);
    assert!(last.segment > third.segment, "{last:?}");
    let full = Segment::parse(&third.segment).unwrap();
    assert!(a.repository.join(WalName::Segment(full).object()).exists());
    assert!(!a.repository.join(format!("wal/receive/{full}.partial.bgo")).exists());

    // A promoted server archives a file of that name, which is nobody's business here.
    let begun = Segment::parse(&last.segment).unwrap();
    let bytes = received::read(&a.unlocked, begun).unwrap().unwrap();
    let theirs = a.room.path.join(format!("{begun}.partial"));
    let mut shorter = bytes.clone();
    shorter[200_000..].fill(0);
    std::fs::write(&theirs, &shorter).unwrap();
    assert_eq!(archive(&a.repository.display().to_string(), &theirs, None).unwrap(), Done::Stored);
    assert_eq!(received::read(&a.unlocked, begun).unwrap().unwrap(), bytes, "the one that goes further counts");

    // What a recovery to the latest has and what not: said while the server can be asked, and when it cannot.
    let end = |s: &Received| s.end_lsn.parse::<Lsn>().unwrap();
    let recovery = block_on(breakglass::action::backend::recovery(&context(&a))).unwrap();
    let tail = |end: Lsn| block_on(pitr_tail::behind(&context(&a), &*recovery, (1, end)));
    let all = tail(end(&covered(&a)));
    assert_eq!(all.bytes, 0, "{all:?}");
    assert!(all.line.contains("nothing committed that is not archived"), "{all:?}");

    // The server is gone for good, its last commit in no full segment.
    drop(receiver);
    let before = end(&state(&a).unwrap());
    let more = tail(Lsn(before.0 - 4096));
    assert!(more.bytes >= 4096 && more.known >= Some(before), "{more:?}");
    a.cluster.instance.stop(Stop::Immediate, LIMIT).unwrap();
    let gone = tail(before);
    assert!(gone.line.contains("does not answer") && gone.line.contains("by the receiver"), "{gone:?}");
    assert_eq!((gone.bytes, gone.known), (0, Some(end(&state(&a).unwrap()))), "{gone:?}");
    let lost = tail(Lsn(before.0 - 4096));
    assert!(lost.line.starts_with("A TAIL IS LOST") && lost.bytes >= 4096, "{lost:?}");
    let reach = range(&a.unlocked, &programs(), None, &a.room.path).unwrap();
    assert_eq!(reach.last_segment.as_deref(), Some(last.segment.as_str()));
    assert_eq!(reach.end_lsn.unwrap().to_string(), state(&a).unwrap().end_lsn);
    assert!(reach.holes.is_empty(), "{:?}", reach.holes);
    let dest = a.room.path.join("fetched");
    assert_eq!(fetch(&a.unlocked, &last.segment, &dest).unwrap(), breakglass::backup::wal::Fetched::Restored);
    assert_eq!(std::fs::read(&dest).unwrap(), bytes);

    let root = a.room.path.join("shadow");
    let dir = root.display().to_string();
    // Behind its end there is nothing, and that is known before anything is touched.
    let beyond = format!("lsn:{}", breakglass::backup::wal::format_lsn(reach.end_lsn.unwrap().0 + 8));
    let (code, text) = a.run(&["pitr", "restore", "--to", &beyond, "--dir", &dir]);
    assert_eq!(code, 4, "{text}");
    assert!(!root.exists());
    let (code, text) = a.run(&["pitr", "restore", "--to", "latest", "--dir", &dir]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(rows(&root), "1,2,3,4,5");
    assert!(text.contains("does not answer") && text.contains("last seen at"), "{text}");
    // It was measured, and the next one is predicted by it.
    assert!(text.contains("assumed: no recovery was measured here yet"), "{text}");
    let known = Throughput::load(&a.room.path);
    assert_eq!(known.runs().len(), 1);
    let run = &known.runs()[0];
    assert!(run.bytes > 1 << 20 && run.log_bytes > 0 && run.replay_ms > 0, "{run:?}");
    let (code, text) = a.run(&["pitr", "discard", "--shadow", &dir]);
    assert_eq!(code, 0, "{text}");

    // Damage in it is said and refused, not taken for an earlier end.
    let object = a.repository.join(format!("wal/receive/{begun}.partial.bgo"));
    let mut rotten = std::fs::read(&object).unwrap();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    std::fs::write(&object, rotten).unwrap();
    let (code, text) = a.run(&["pitr", "restore", "--to", "latest", "--dir", &dir]);
    assert_ne!(code, 0, "{text}");
    assert!(!root.exists(), "nothing was touched: {text}");
}
