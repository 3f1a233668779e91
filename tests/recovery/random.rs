//! Random targets among live traffic, and recovery after recovery: the contents are what was committed by then, judged by
//! the dense numbers that each writer gave its rows. `BREAKGLASS_SOAK=1` takes fifty targets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use breakglass::drill::random::Choices;
use breakglass::model::target::RecoveryTarget;
use breakglass::postgres::{Database, Lsn, Stop};
use breakglass::recovery::commits::{Commit, LogArchive};
use breakglass::recovery::promote::{Inheritance, promote};
use breakglass::recovery::range::{Ask, newest_timeline, route};
use breakglass::recovery::shadow::{Shadow, build};
use breakglass::recovery::watch::Unwatched;
use tokio_util::sync::CancellationToken;

use super::shop::script;
use crate::support::archived::Archived;
use crate::support::cluster::{LIMIT, block_on, programs, psql};

const WRITERS: u64 = 3;

/// A row: its writer, and the writer's own number without gaps.
type Row = (u64, u64);

/// Writers at the same time; each commits the numbers `from..from + n` one transaction each. Some use savepoints, some roll
/// something else back in between.
fn traffic(db: &Database, from: u64, n: u64) {
    std::thread::scope(|s| {
        for w in 1..=WRITERS {
            s.spawn(move || {
                let mut choices = Choices::plain(from, w);
                let mut sql = String::new();
                for i in from..from + n {
                    match choices.below(4) {
                        0 => sql.push_str(&format!(
                            "begin; savepoint a; insert into traffic values ({w}, {i}, repeat('x', 200)); release a; commit;\n"
                        )),
                        1 => sql.push_str(&format!(
                            "begin; insert into traffic values ({w}, -{i}, ''); rollback; insert into traffic values ({w}, {i}, '');\n"
                        )),
                        2 => sql.push_str(&format!(
                            "begin; insert into traffic values ({w}, {i}, ''); savepoint b; insert into traffic values ({w}, -{i}, ''); rollback to b; commit;\n"
                        )),
                        _ => sql.push_str(&format!("insert into traffic values ({w}, {i}, repeat('y', 900));\n")),
                    }
                }
                script(db, &sql);
            });
        }
    });
}

fn rows(db: &Database) -> BTreeSet<Row> {
    let text = psql(db, "select w, n from traffic").unwrap();
    let row = |l: &str| l.split_once('|').map(|(w, n)| (w.parse().unwrap(), n.parse().unwrap())).unwrap();
    text.lines().map(row).collect()
}

/// Numbers without gaps from 1 on, for every writer.
fn assert_dense(rows: &BTreeSet<Row>, what: &str) {
    for w in 1..=WRITERS {
        let mine: Vec<u64> = rows.iter().filter(|(x, _)| *x == w).map(|(_, n)| *n).collect();
        assert_eq!(mine, (1..=mine.len() as u64).collect::<Vec<_>>(), "{what}: a gap in the numbers of writer {w}");
    }
}

fn archive_now(db: &Database) {
    let segment = psql(db, "select pg_walfile_name(pg_switch_wal())").unwrap();
    let deadline = Instant::now() + LIMIT;
    while psql(db, "select coalesce(last_archived_wal, '') from pg_stat_archiver")
        .unwrap()
        .get(..24)
        .is_none_or(|l| l < segment.as_str())
    {
        assert!(Instant::now() < deadline, "{segment} was not archived");
        std::thread::yield_now();
    }
}

fn restore(a: &Archived, name: &str, target: &RecoveryTarget, after: bool) -> Shadow {
    let cancel = CancellationToken::new();
    let ask = Ask { after, ..Ask::to(target, &a.room.path) };
    let route = route(&a.unlocked, &programs(), &ask, &Unwatched, &cancel).unwrap_or_else(|e| panic!("{target}: {e}"));
    let request = a.request(name, route, vec![]);
    block_on(build(&request, &a.unlocked, &Unwatched, &cancel)).unwrap_or_else(|e| panic!("{target}: {e}"))
}

/// Every row with its commit, in the order of the log as `pg_waldump` reads it.
fn history(a: &Archived, db: &Database) -> Vec<(Commit, Row)> {
    let text = psql(db, "select xmin, w, n from traffic").unwrap();
    let by_xid: BTreeMap<u32, Row> = text
        .lines()
        .map(|l| {
            let f: Vec<u64> = l.split('|').map(|f| f.parse().unwrap()).collect();
            (u32::try_from(f[0]).unwrap(), (f[1], f[2]))
        })
        .collect();
    let programs = programs();
    let log = LogArchive::open(&a.unlocked, &programs, newest_timeline(&a.unlocked).unwrap()).unwrap();
    let status = breakglass::backup::wal::status(a.unlocked.repository()).unwrap();
    let number = |name: &str| log.number(Lsn::of_segment(name, log.segment_bytes()).unwrap().1);
    let (first, last) = (number(&status.timelines[0].first), number(&status.timelines[0].last));
    let piece = log.read(first, last, &a.room.path).unwrap();
    let row = |c: &Commit| std::iter::once(&c.xid).chain(&c.subxids).find_map(|x| by_xid.get(x)).copied();
    piece.commits.iter().filter_map(|c| row(c).map(|r| (c.clone(), r))).collect()
}

#[test]
fn random_targets_hold_exactly_what_was_committed_by_then() {
    let a = Archived::start("random");
    let db = a.cluster.database("postgres");
    script(&db, "create table traffic (w int, n int, pad text)");
    traffic(&db, 1, 20);
    a.base_backup();
    traffic(&db, 21, 300);
    a.archive_now();
    let history = history(&a, &db);
    assert_eq!(history.len() as u64, WRITERS * 320, "every row has its commit in the log");
    let begin = history.iter().position(|(_, (_, n))| *n > 22).unwrap();

    let seed = std::env::var("BREAKGLASS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    let mut choices = Choices::plain(seed, 1);
    let count = if std::env::var_os("BREAKGLASS_SOAK").is_some() { 50 } else { 4 };
    for i in 0..count {
        let at = begin + usize::try_from(choices.below((history.len() - begin - 1) as u64)).unwrap();
        let commit = &history[at].0;
        let after = choices.below(4) == 0;
        let (target, wanted): (RecoveryTarget, usize) = match i % 4 {
            0 => (RecoveryTarget::Xid(commit.xid.to_string()), at + usize::from(after)),
            1 => (RecoveryTarget::Lsn(commit.lsn.to_string()), at + usize::from(after)),
            // A position in the middle of nowhere: what began before it is there.
            2 => {
                let lsn = Lsn(commit.lsn.0 + 8 * choices.between(1, 40));
                let wanted = history.iter().position(|(c, _)| c.lsn >= lsn).unwrap_or(history.len());
                // After the record that begins at it or behind it, which may be any record.
                if after {
                    (RecoveryTarget::Lsn(commit.lsn.to_string()), at + 1)
                } else {
                    (RecoveryTarget::Lsn(lsn.to_string()), wanted)
                }
            }
            _ => {
                let first = history.iter().position(|(c, _)| if after { c.at > commit.at } else { c.at >= commit.at });
                (RecoveryTarget::Time(commit.at), first.unwrap_or(history.len()))
            }
        };
        let what = format!("seed {seed}, target {i}: {target}, after {after}");
        let shadow = restore(&a, &format!("r{i}"), &target, after);
        let got = rows(&shadow.database("postgres").unwrap());
        let expected: BTreeSet<Row> = history[..wanted].iter().map(|(_, r)| *r).collect();
        assert_dense(&got, &what);
        assert_eq!(got, expected, "{what}");
        shadow.instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
        std::fs::remove_dir_all(&shadow.root).unwrap();
    }
}

#[test]
fn three_recoveries_in_a_row_each_along_the_new_timeline() {
    let a = Archived::start("thrice");
    let mut db = a.cluster.database("postgres");
    script(&db, "create table traffic (w int, n int, pad text)");
    a.base_backup();
    let system = psql(&db, "select system_identifier from pg_control_system()").unwrap();
    let mut next = 1;
    let mut old = None;
    for round in 1..=3u32 {
        traffic(&db, next, 30);
        let good = rows(&db);
        psql(&db, &format!("select pg_create_restore_point('round {round}')")).unwrap();
        script(&db, "delete from traffic where n % 2 = 0;");
        traffic(&db, 1000 * u64::from(round), 5);
        archive_now(&db);
        // The damaged one goes down before the recovered one takes over.
        let shadow = restore(&a, &format!("round{round}"), &RecoveryTarget::Name(format!("round {round}")), false);
        assert_eq!(rows(&shadow.database("postgres").unwrap()), good, "round {round}");
        match old.take() {
            None => a.cluster.instance.stop(Stop::Fast, LIMIT).unwrap(),
            Some(s) => Shadow::instance(&s).unwrap().stop(Stop::Fast, LIMIT).unwrap(),
        }
        let new = block_on(promote(&shadow, "postgres", &system, &a.unlocked, &Inheritance::default())).unwrap();
        assert_eq!(new.identity.timeline, round + 1);
        db = new.database;
        assert_eq!(rows(&db), good, "round {round}, promoted");
        next += 30;
        old = Some(shadow);
    }
    // And the end of the last timeline, from the one base backup of the first.
    traffic(&db, next, 10);
    archive_now(&db);
    let good = rows(&db);
    assert_dense(&good, "the end");
    assert_eq!(good.len() as u64, WRITERS * 100);
    let shadow = restore(&a, "end", &RecoveryTarget::Latest, false);
    assert_eq!(rows(&shadow.database("postgres").unwrap()), good);
    for s in [Some(shadow), old].into_iter().flatten() {
        s.instance().unwrap().stop(Stop::Immediate, LIMIT).unwrap();
    }
}
