//! Restoring to the offered point: what was taken away is there, and so is everything committed before it, exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use breakglass::postgres::wal::{Content, Layout, Reader, Tail};
use breakglass::postgres::{Instance, Lsn, Stop};
use breakglass::recovery::wal_locate::{Deed, Rules, Suspect, archive, locate, source};

use super::fixture::{Fixture, fixture};
use crate::support::cluster::{LIMIT, Scratch, programs, psql, server_user};

/// Position of each commit, by top-level transaction.
fn commits(f: &Fixture) -> BTreeMap<u32, Lsn> {
    let mut all = BTreeMap::new();
    let mut reader = Reader::new();
    let mut layout = Layout::default();
    for s in f.segments() {
        let tail = if s.may_end { Tail::MayEnd } else { Tail::Whole };
        reader
            .segment(&s.name, &s.bytes, tail, |r| {
                layout.read(r)?;
                if let Content::Commit(end) = Content::read(r, &layout)? {
                    all.insert(end.prepared.unwrap_or(r.xid), r.lsn);
                }
                Ok(())
            })
            .unwrap();
    }
    all
}

/// Recovers the fixture's base backup to just before `target`.
fn recover(f: &Fixture, target: Lsn) -> (Instance, Scratch) {
    let scratch = Scratch::new("walpitr");
    let instance = Instance::new(programs(), &scratch.path, server_user()).unwrap();
    instance.make_dirs().unwrap();
    let copied = Command::new("cp").arg("-a").arg(&f.base).arg(&instance.layout.data).status().unwrap();
    assert!(copied.success());
    let settings = [
        ("fsync", "off".to_string()),
        ("max_connections", "30".into()),
        ("max_prepared_transactions", "4".into()),
        ("track_commit_timestamp", "on".into()),
        ("autovacuum", "off".into()),
        ("restore_command", format!("cp {}/%f %p", f.wal.display())),
        ("recovery_target_lsn", target.to_string()),
        ("recovery_target_inclusive", "off".into()),
        ("recovery_target_timeline", "1".into()),
        ("recovery_target_action", "promote".into()),
    ]
    .map(|(k, v)| (k.to_string(), v));
    instance.configure(&settings, None).unwrap();
    breakglass::postgres::user::own_file(&instance.layout.data.join("recovery.signal"), "", instance.user.as_ref())
        .unwrap();
    instance.start(LIMIT).unwrap();
    // Ready once promoted.
    let deadline = std::time::Instant::now() + LIMIT;
    while psql(&instance.database("postgres"), "select pg_is_in_recovery()").as_deref() != Ok("f") {
        assert!(std::time::Instant::now() < deadline, "{}", instance.log_tail(5));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    (instance, scratch)
}

fn sql(i: &Instance, database: &str, text: &str) -> String {
    psql(&i.database(database), text).unwrap()
}

/// What was committed before the target is there, exactly.
fn check_ledger(f: &Fixture, i: &Instance, target: Lsn) {
    let commits = commits(f);
    let wanted: BTreeSet<u32> = f.ledger.iter().copied().filter(|x| commits[x] < target).collect();
    let there: BTreeSet<u32> = sql(i, "shop", "select x from ledger").lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(there, wanted);
}

fn suspects(f: &Fixture) -> &'static [Suspect] {
    &f.report().suspects
}

#[test]
fn before_a_drop_the_table_and_every_earlier_commit_are_there() {
    let f = fixture();
    let all = suspects(f);
    let by = |label: &str| all.iter().find(|s| s.xid == f.xid(label)).unwrap();
    let s = by("drop3");
    let (i, _scratch) = recover(f, s.target);
    check_ledger(f, &i, s.target);
    assert_eq!(sql(&i, "shop", "select count(*) from dro3"), "300");
    // Those of the round before are done, those after it are not.
    assert_eq!(sql(&i, "shop", "select to_regclass('dro2') is null, count(*) from tru2"), "t|0");
    assert_eq!(sql(&i, "shop", "select count(*) from sch3.a"), "50");
    assert!(s.loses.transactions.unwrap() > 0);

    // Life goes on on a second timeline: its log is read through the fork, and what only the first one did is not in it.
    let xid = sql(&i, "shop", "begin; delete from del5; select pg_current_xact_id()::xid; commit");
    let xid: u32 = xid.parse().unwrap();
    i.stop(Stop::Immediate, LIMIT).unwrap();
    let both = Scratch::new("waltwo");
    for (dir, prefix) in [(f.wal.clone(), "00000001"), (i.layout.data.join("pg_wal"), "00000002")] {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                std::fs::copy(entry.path(), both.path.join(entry.file_name())).unwrap();
            }
        }
    }
    let report = locate(source::in_folder(&both.path, None, None, true).unwrap(), f.names.clone(), Rules::default());
    let found: Vec<u32> = report.unwrap().0.suspects.iter().map(|s| s.xid).collect();
    let mut wanted: Vec<u32> = all.iter().filter(|o| o.end < s.target).map(|o| o.xid).collect();
    wanted.push(xid);
    assert_eq!(found, wanted);
    let first = locate(source::in_folder(&both.path, Some(1), None, true).unwrap(), f.names.clone(), Rules::default());
    assert_eq!(first.unwrap().0.suspects.len(), all.len());
}

#[test]
fn the_log_is_read_out_of_the_repository() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, url) = crate::backup::repository(dir.path());
    let mut segments = f.segments();
    segments.pop();
    for s in &segments {
        breakglass::backup::wal::archive(&url, &f.wal.join(&s.name), None).unwrap();
    }
    let read = |from| {
        let given = archive::in_repository(&unlocked, 1, from).unwrap();
        locate(given, f.names.clone(), Rules::default()).map(|(r, _)| r)
    };
    let report = read(None).unwrap();
    let wanted: Vec<u32> =
        f.report().suspects.iter().filter(|s| segments.iter().any(|x| x.name == s.segment)).map(|s| s.xid).collect();
    assert_eq!(report.suspects.iter().map(|s| s.xid).collect::<Vec<_>>(), wanted);
    assert_eq!(report.end.as_ref().map(|e| e.why.contains("not given")), report.end.as_ref().map(|_| true));
    // From the middle: fewer, and the rest as before.
    let middle = report.suspects[wanted.len() / 2].begun;
    let later = read(Some(middle)).unwrap();
    assert!(later.indexes.len() < report.indexes.len());
    assert!(later.suspects.iter().any(|s| s.xid == wanted[wanted.len() / 2]));
    // One taken away: a gap, by name, and everything on both sides of it.
    let gone = &segments[segments.len() / 2].name;
    let name = breakglass::backup::wal::WalName::parse(gone).unwrap();
    std::fs::remove_file(dir.path().join("repo").join(name.object())).unwrap();
    let with_gap = read(None).unwrap();
    let [gap] = with_gap.gaps.as_slice() else { panic!("{:?}", with_gap.gaps) };
    assert_eq!((gap.segment.as_str(), gap.why.as_str()), (gone.as_str(), "it is missing"));
    assert!(gap.after.is_some() && gap.before >= gap.after && gap.to > Some(gap.from), "{gap:?}");
    let seen: Vec<u32> = with_gap.suspects.iter().map(|s| s.xid).collect();
    let beside = |s: &&breakglass::recovery::wal_locate::Suspect| s.end < gap.from || Some(s.begun) > gap.to;
    let wanted: Vec<u32> = report.suspects.iter().filter(beside).map(|s| s.xid).collect();
    assert!(wanted.len() > 10 && wanted.iter().all(|x| seen.contains(x)), "{wanted:?} {seen:?}");
}

#[test]
fn before_a_commit_prepared_the_rows_are_there_and_the_prepared_transaction_too() {
    let f = fixture();
    let all = suspects(f);
    let s = all.iter().find(|s| s.xid == f.xid("prepared1")).unwrap();
    let (i, _scratch) = recover(f, s.target);
    check_ledger(f, &i, s.target);
    assert_eq!(sql(&i, "shop", "select gid from pg_prepared_xacts"), "p1");
    assert_eq!(s.gid.as_deref(), Some("p1"));
    assert_eq!(sql(&i, "shop", "select count(*) from pre1"), "300");
    i.stop(Stop::Immediate, LIMIT).unwrap();
}

#[test]
fn before_a_dropped_database_it_is_there_and_lets_people_in() {
    let f = fixture();
    let all = suspects(f);
    let s = all.iter().find(|s| s.acts.iter().any(|a| a.deed == Deed::DropDatabase && a.table == "doomed")).unwrap();
    let (i, _scratch) = recover(f, s.target);
    check_ledger(f, &i, s.target);
    assert_eq!(sql(&i, "doomed", "select count(*) from inside"), "10");
    i.stop(Stop::Immediate, LIMIT).unwrap();

    // Why it is not the drop's own record: the database was marked invalid in place just before it.
    let mut drop_record = None;
    let mut reader = Reader::new();
    let mut layout = Layout::default();
    for segment in f.segments() {
        let tail = if segment.may_end { Tail::MayEnd } else { Tail::Whole };
        reader
            .segment(&segment.name, &segment.bytes, tail, |r| {
                layout.read(r)?;
                if let Content::DropDatabase { .. } = Content::read(r, &layout)? {
                    drop_record.get_or_insert(r.lsn);
                }
                Ok(())
            })
            .unwrap();
    }
    let at = drop_record.unwrap();
    assert!(s.target < at && at < s.end);
    let (i, _scratch) = recover(f, at);
    let said = psql(&i.database("doomed"), "select count(*) from inside").unwrap_err();
    assert!(said.contains("invalid database"), "{said}");
    i.stop(Stop::Immediate, LIMIT).unwrap();
}

/// What a table holds again just before the transaction that is called so: a query and its answer.
fn before(label: &str, r: usize) -> Vec<(String, String)> {
    let count = |table: &str, rows: u32| (format!("select count(*) from {table}{r}"), rows.to_string());
    match label {
        "delete" => vec![count("del", 300)],
        "update" => vec![(format!("select count(*) from upd{r} where p like 'changed%'"), "0".into())],
        "part of hot" => vec![(format!("select count(*) from hot{r} where p = 'z'"), "0".into())],
        "truncate" => vec![count("tru", 300)],
        "drop" => vec![count("dro", 300)],
        "schema" => ["a", "b"].map(|t| (format!("select count(*) from sch{r}.{t}"), "50".to_string())).to_vec(),
        "cascade" => vec![count("par", 20), count("chi", 400)],
        "partition" => vec![count("pt", 300)],
        "toast" => vec![(format!("select sum(length(p)) from toa{r}"), "600000".into())],
        "savepoint" => vec![count("sav", 300)],
        "prepared" => vec![count("pre", 300)],
        "vacuumed" => vec![count("vac", 300)],
        "ephemeral" => vec![count("eph", 250)],
        "replaced" => vec![count("rep", 300)],
        "small" => vec![count("sma", 40)],
        "two tables" => vec![count("mt1", 200), count("mt2", 200)],
        "plpgsql" => vec![count("pl", 300)],
        "renamed" => vec![count("renamed", 300)],
        other => panic!("{other}"),
    }
}

/// `BREAKGLASS_SOAK=1`: the point offered for every single one of them keeps all that was committed before, and what it took.
#[test]
fn before_each_of_them_all_that_was_committed_is_there() {
    if std::env::var_os("BREAKGLASS_SOAK").is_none() {
        return;
    }
    let f = fixture();
    let mut done = 0;
    for s in suspects(f) {
        let Some(tag) = f.tagged.iter().find(|t| t.xid == s.xid) else { continue };
        let (label, r) = tag.label.split_at(tag.label.len() - 1);
        let (i, _scratch) = recover(f, s.target);
        check_ledger(f, &i, s.target);
        for (query, answer) in before(label, r.parse().unwrap()) {
            assert_eq!(sql(&i, "shop", &query), answer, "before {}: {query}", tag.label);
        }
        i.stop(Stop::Immediate, LIMIT).unwrap();
        done += 1;
    }
    println!("{done} of {} suspects", suspects(f).len());
    assert!(done >= 100, "{done}");
}
