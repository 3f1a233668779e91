//! Suspects: all of them, and nothing else.

use std::collections::BTreeMap;

use breakglass::recovery::wal_locate::{Deed, NameMap, Outcome, Report, Rules, Suspect, locate};

use super::fixture::{ROUNDS, fixture};

fn found(names: NameMap, rules: Rules) -> Report {
    locate(fixture().segments().into_iter().map(Ok), names, rules).unwrap().0
}

/// What was done to a table: rows deleted, rows updated.
type Done = (Deed, String, u64, u64);

fn acts(s: &Suspect) -> Vec<Done> {
    let mut acts: Vec<_> = s.acts.iter().map(|a| (a.deed, a.table.clone(), a.deleted, a.updated)).collect();
    acts.sort_by(|a, b| a.1.cmp(&b.1));
    acts
}

/// What each tagged transaction must be found as.
fn expected() -> BTreeMap<u32, (String, Vec<Done>)> {
    let f = fixture();
    let mut all = BTreeMap::new();
    let mut add = |label: String, acts: Vec<(Deed, &str, u64, u64)>, r: usize| {
        let acts = acts.into_iter().map(|(d, t, del, upd)| (d, t.replace('#', &r.to_string()), del, upd)).collect();
        all.insert(f.xid(&label), (label, acts));
    };
    use Deed::{DropTable, Replaced, Rows, Truncate};
    for r in 0..ROUNDS {
        add(format!("delete{r}"), vec![(Rows, "public.del#", 200, 0)], r);
        add(format!("update{r}"), vec![(Rows, "public.upd#", 0, 300)], r);
        add(format!("part of hot{r}"), vec![(Rows, "public.hot#", 0, 150)], r);
        add(format!("truncate{r}"), vec![(Truncate, "public.tru#", 0, 0)], r);
        add(format!("drop{r}"), vec![(DropTable, "public.dro#", 0, 0)], r);
        add(format!("schema{r}"), vec![(DropTable, "sch#.a", 0, 0), (DropTable, "sch#.b", 0, 0)], r);
        add(format!("cascade{r}"), vec![(Rows, "public.chi#", 400, 0), (Rows, "public.par#", 20, 0)], r);
        add(format!("partition{r}"), vec![(Rows, "public.pt#", 300, 0)], r);
        add(format!("toast{r}"), vec![(Rows, "public.toa#", 120, 0)], r);
        add(format!("savepoint{r}"), vec![(Rows, "public.sav#", 151, 0)], r);
        add(format!("prepared{r}"), vec![(Rows, "public.pre#", 250, 0)], r);
        let vacuumed = match r % 3 {
            0 => (Rows, "public.vac#", 300, 0),
            1 => (Truncate, "public.vac#", 0, 0),
            _ => (DropTable, "public.vac#", 0, 0),
        };
        add(format!("vacuumed{r}"), vec![vacuumed], r);
        add(format!("ephemeral{r}"), vec![(DropTable, "public.eph#", 0, 0)], r);
        add(format!("replaced{r}"), vec![(Replaced, "public.rep#", 0, 0)], r);
        add(format!("small{r}"), vec![(Rows, "public.sma#", 40, 0)], r);
        add(format!("two tables{r}"), vec![(Truncate, "public.mt1#", 0, 0), (Truncate, "public.mt2#", 0, 0)], r);
        add(format!("plpgsql{r}"), vec![(Rows, "public.pl#", 120, 0)], r);
        add(format!("renamed{r}"), vec![(Rows, "public.renamed#", 200, 0)], r);
    }
    all
}

fn check(report: &Report) {
    let mut wanted = expected();
    let mut databases = Vec::new();
    let mut wrong = Vec::new();
    for s in &report.suspects {
        if s.acts.iter().any(|a| a.deed == Deed::DropDatabase) {
            databases.push(s.acts[0].table.clone());
            assert!(s.target < s.end, "{s:?}");
            continue;
        }
        match wanted.remove(&s.xid) {
            Some((label, acts_wanted)) => {
                if acts(s) != acts_wanted {
                    wrong.push(format!("{label}: {:?} wanted {acts_wanted:?}", acts(s)));
                }
                assert_eq!(s.database.as_deref(), Some("shop"), "{label}");
                assert_eq!(s.target, s.end, "{label}");
                assert!(s.begun < s.end, "{label}");
                assert_eq!(s.gid.is_some(), label.starts_with("prepared"), "{label}");
                assert_eq!(!s.schemas.is_empty(), label.starts_with("schema"), "{label}");
            }
            None => wrong.push(format!("false suspect: {} {}", s.xid, s.what())),
        }
    }
    wrong.extend(wanted.values().map(|(label, _)| format!("not found: {label}")));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(databases, ["doomed", "doomed2"]);
}

#[test]
fn every_destructive_transaction_is_found_and_nothing_else() {
    const { assert!(ROUNDS * 18 >= 100) };
    let report = fixture().report();
    check(report);
    assert!(report.rolled_back.is_empty());
}

#[test]
fn those_rolled_back_come_on_request_and_open_ones_are_said() {
    let f = fixture();
    let report = found(f.names.clone(), Rules { rolled_back: true, ..Rules::default() });
    check(&report);
    for r in 0..ROUNDS {
        for (label, deed) in
            [("aborted delete", Deed::Rows), ("aborted truncate", Deed::Truncate), ("aborted drop", Deed::DropTable)]
        {
            let xid = f.xid(&format!("{label}{r}"));
            let s = report.rolled_back.iter().find(|s| s.xid == xid).unwrap_or_else(|| panic!("{label}{r}"));
            assert_eq!(s.outcome, Outcome::RolledBack);
            assert_eq!((s.acts[0].deed, s.acts[0].table.clone()), (deed, format!("public.abo{r}")), "{label}");
            assert!(s.what().contains("rolled back"));
        }
    }
    // The one more of each round is the block of PL/pgSQL that its exception took back.
    let blocks = report.rolled_back.iter().filter(|s| s.acts[0].table.starts_with("public.pl")).count();
    assert_eq!((blocks, report.rolled_back.len()), (ROUNDS, ROUNDS * 4), "{:#?}", report.rolled_back);
    let open: Vec<_> = report.open.iter().map(|s| (s.xid, s.outcome, s.gid.clone(), s.rows())).collect();
    let prepared = (f.xid("undecided"), Outcome::Prepared, Some("undecided".to_string()), 150);
    assert_eq!(open, [prepared, (f.xid("open"), Outcome::Open, None, 200)]);
    assert!(report.open[1].what().contains("still open"), "{}", report.open[1].what());
    assert_eq!(report.open[0].acts[0].table, "public.locked");
}

#[test]
fn the_loss_is_what_committed_at_or_after_the_target() {
    let f = fixture();
    let report = f.report();
    let last = report.last_commit.unwrap();
    let mut before = u64::MAX;
    for (i, s) in report.suspects.iter().enumerate() {
        let later_suspects = (report.suspects.len() - i) as u64;
        let lost = s.loses.transactions.unwrap();
        assert!(lost + later_suspects <= report.commits);
        if s.target == s.end {
            // Each suspect further on loses no more than the one before it.
            assert!(lost <= before, "{lost} after {before}");
            before = lost;
        }
        assert_eq!(s.loses.window_ms, last.since(s.at).as_millis() as u64);
        assert!(!s.loses.at_most);
        let c = s.candidate();
        assert_eq!(c.target.to_string(), format!("lsn:{}", s.target));
        assert_eq!(c.xid, Some(s.xid.to_string()));
    }
    // By the log: rows of the ledger committed after the first suspect.
    let first = &report.suspects[0];
    let ledger = first.loses.rows.get("public.ledger").copied().unwrap_or(0);
    assert!(ledger > 0 && ledger <= f.ledger.len() as u64, "{ledger}");
}

#[test]
fn a_window_a_table_and_a_database_narrow_it() {
    let f = fixture();
    let all = f.report();
    let (a, b) = (all.suspects[10].at, all.suspects[20].at);
    let part = found(f.names.clone(), Rules { since: Some(a), until: Some(b), ..Rules::default() });
    let xids = |r: &Report| r.suspects.iter().map(|s| s.xid).collect::<Vec<_>>();
    assert_eq!(xids(&part), xids(all)[10..=20]);
    assert_eq!(part.commits, all.commits);
    for name in ["tru2", "public.tru2"] {
        let one = found(
            f.names.clone(),
            Rules { tables: vec![name.into()], database: Some("shop".into()), ..Rules::default() },
        );
        assert_eq!(xids(&one), [f.xid("truncate2")]);
    }
    let other = found(f.names.clone(), Rules { database: Some("doomed".into()), ..Rules::default() });
    assert_eq!(other.suspects.len(), 1);
}

#[test]
fn each_segment_has_an_index_that_adds_up() {
    use breakglass::recovery::wal_locate::{Activity, SegmentIndex, index};
    let f = fixture();
    let report = f.report();
    let segments = f.segments();
    assert_eq!(report.indexes.len(), segments.len());
    let mut activity = Activity::default();
    let mut commits = 0;
    let mut suspects = Vec::new();
    for (i, (index, segment)) in report.indexes.iter().zip(&segments).enumerate() {
        assert_eq!(index.segment, segment.name);
        assert_eq!(&SegmentIndex::from_bytes(&index.to_bytes().unwrap()).unwrap(), index);
        assert_eq!(index.ends, i + 1 == segments.len());
        assert_eq!(index.commits, index.activity.commits.iter().map(|n| u64::from(*n)).sum::<u64>());
        assert!(index.activity.commits.len() <= 66);
        if index.commits > 0 {
            assert!(index.first_commit.unwrap() <= index.latest_commit.unwrap());
        }
        assert!(index.resume_lsn <= index.end_lsn && index.first_lsn <= index.last_lsn);
        commits += index.commits;
        activity.merge(&index.activity);
        suspects.extend(index.suspects.iter().map(|s| s.xid));
    }
    assert_eq!(commits, report.commits);
    assert_eq!(activity.commits.iter().map(|n| u64::from(*n)).sum::<u64>(), commits);
    assert_eq!(suspects, report.suspects.iter().map(|s| s.xid).collect::<Vec<_>>());
    // The same from the indexes alone, without a segment.
    let overview = index::overview(&report.indexes, 1 << 20);
    assert_eq!((overview.commits, overview.last_commit), (report.commits, report.last_commit));
    assert_eq!((overview.first_lsn, overview.suspects.len()), (report.first_lsn, report.suspects.len()));
    assert!(overview.unknown.is_empty());
    for (a, b) in overview.suspects.iter().zip(&report.suspects).filter(|(a, _)| a.target == a.end) {
        assert_eq!((a.xid, a.loses.window_ms), (b.xid, b.loses.window_ms));
        assert_eq!(a.loses.transactions, b.loses.transactions, "{}", b.what());
    }
    let holed: Vec<_> = report.indexes.iter().enumerate().filter(|(i, _)| *i != 3).map(|(_, x)| x.clone()).collect();
    let holed = index::overview(&holed, 1 << 20);
    assert_eq!(holed.unknown.len(), 1);
    assert_eq!(holed.unknown[0].0.segment(1, 1 << 20), segments[3].name);
    assert!(holed.suspects.iter().all(|s| s.loses.at_most));
    let points: Vec<_> = report.indexes.iter().flat_map(|i| &i.restore_points).map(|p| p.name.clone()).collect();
    assert_eq!(points, ["the end"]);
}
