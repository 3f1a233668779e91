//! Whether a recovery can run through: holes at every place, damage, timelines that branch.

use breakglass::backup::repository::Unlocked;
use breakglass::backup::wal::range::parse_history;
use breakglass::backup::wal::{Continuity, Depth, archive, check_continuity, parse_lsn, status};
use breakglass::error::ErrorKind;

use super::repository;
use super::wal::{SYSTEM, object_path, segment, write_segment};

fn run(unlocked: &Unlocked, timeline: u32, from: (u32, u64), upto: Option<(u32, u64)>, depth: Depth) -> Continuity {
    let upto = upto.map(|(t, n)| segment(t, n).to_string());
    check_continuity(unlocked, &segment(from.0, from.1).to_string(), timeline, upto.as_deref(), depth, &mut |_| Ok(()))
        .unwrap()
}

fn name(timeline: u32, n: u64) -> Option<String> {
    Some(segment(timeline, n).to_string())
}

#[test]
fn a_missing_or_damaged_segment_is_found_at_every_place() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, unlocked, url) = repository(dir.path());
    // Across the border of a log file: 4096 segments of 1 MiB.
    let numbers: Vec<u64> = (4090..4102).collect();
    for &n in &numbers {
        archive(&url, &write_segment(dir.path(), segment(1, n), SYSTEM, n), None).unwrap();
    }
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    for depth in [Depth::Names, Depth::Stored, Depth::Full] {
        let whole = run(&unlocked, 1, (1, first), None, depth);
        assert_eq!(whole, Continuity { last: name(1, last), hole: None });
    }
    for &n in &numbers {
        let path = object_path(dir.path(), segment(1, n));
        let good = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let found = run(&unlocked, 1, (1, first), None, Depth::Names);
        if n == last {
            // The end of the archive: no hole by itself, one if more was promised.
            assert_eq!(found, Continuity { last: name(1, n - 1), hole: None });
            let found = run(&unlocked, 1, (1, first), Some((1, n)), Depth::Names);
            assert_eq!(found.hole.unwrap().first, segment(1, n).to_string());
        } else {
            let hole = found.hole.unwrap();
            assert_eq!((hole.first, hole.last), (segment(1, n).to_string(), segment(1, n).to_string()));
            assert_eq!(hole.next, name(1, n + 1));
            assert_eq!(found.last, (n > first).then(|| segment(1, n - 1).to_string()));
        }
        let holes = status(&repo).unwrap().timelines[0].holes.len();
        assert_eq!(holes, usize::from(n != first && n != last));
        // The same place, one bit changed.
        let mut bad = good.clone();
        let at = (n as usize * 7919) % bad.len();
        bad[at] ^= 2;
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(run(&unlocked, 1, (1, first), None, Depth::Names).hole, None);
        for depth in [Depth::Stored, Depth::Full] {
            let found = run(&unlocked, 1, (1, first), None, depth);
            assert_eq!(found.hole.unwrap().first, segment(1, n).to_string(), "{depth:?}");
            assert_eq!(found.last, (n > first).then(|| segment(1, n - 1).to_string()));
        }
        std::fs::write(&path, &good).unwrap();
    }
    // An intended forgery has right checksums; only the key sees it.
    let (a, b) = (object_path(dir.path(), segment(1, 4092)), object_path(dir.path(), segment(1, 4093)));
    std::fs::copy(&a, &b).unwrap();
    assert_eq!(run(&unlocked, 1, (1, first), None, Depth::Full).hole.unwrap().first, segment(1, 4093).to_string());
}

#[test]
fn the_way_follows_the_timelines() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, unlocked, url) = repository(dir.path());
    let put = |timeline, n| {
        archive(&url, &write_segment(dir.path(), segment(timeline, n), SYSTEM, n + u64::from(timeline)), None).unwrap();
    };
    let remove = |timeline, n| std::fs::remove_file(object_path(dir.path(), segment(timeline, n))).unwrap();
    for n in 5..=12 {
        put(1, n); // the old server went on to 12
    }
    let history = dir.path().join("00000002.history");
    // Timeline 2 branched off within segment 9.
    assert_eq!(parse_lsn("0/980000").unwrap() >> 20, 9);
    std::fs::write(&history, "1\t0/980000\tbefore 2026-11-20 14:01:07+00\n").unwrap();
    // No history: nobody knows where it branched.
    let start = segment(1, 5).to_string();
    let look = |timeline| check_continuity(&unlocked, &start, timeline, None, Depth::Full, &mut |_| Ok(()));
    assert_eq!(look(2).unwrap_err().kind, ErrorKind::Check);
    archive(&url, &history, None).unwrap();
    // Just promoted, nothing archived yet: up to the branch, by the old timeline's copy of that segment.
    assert_eq!(look(2).unwrap(), Continuity { last: name(1, 9), hole: None });
    for n in 9..=11 {
        put(2, n);
    }
    assert_eq!(look(2).unwrap(), Continuity { last: name(2, 11), hole: None });
    assert_eq!(look(1).unwrap(), Continuity { last: name(1, 12), hole: None });
    // Timeline 1's copy of a segment that timeline 2 lacks is of another history and does not fill the hole.
    remove(2, 10);
    let found = look(2).unwrap();
    assert_eq!((found.last, found.hole.unwrap().first), (name(2, 9), segment(2, 10).to_string()));
    put(2, 10);
    remove(2, 9);
    assert_eq!(look(2).unwrap().hole.unwrap().first, segment(2, 9).to_string());
    put(2, 9);
    remove(1, 8);
    let hole = look(2).unwrap().hole.unwrap();
    assert_eq!(hole.first, segment(1, 8).to_string());
    let all = status(&repo).unwrap();
    assert_eq!(all.histories, [2]);
    assert_eq!(all.segment_size, 1 << 20);
    assert_eq!(all.timelines.iter().map(|t| (t.timeline, t.segments)).collect::<Vec<_>>(), [(1, 7), (2, 3)]);
    assert_eq!(all.system_identifier, Some(SYSTEM.to_string()));
    assert!(all.timelines[1].last_archived_at.is_some());
}

#[test]
fn a_history_of_a_recovery_that_ended_before_its_timeline_began_is_read() {
    let path = |text: &str| {
        parse_history(text).map(|p| p.iter().map(|b| (b.timeline, b.ends_at.unwrap())).collect::<Vec<_>>())
    };
    assert_eq!(path("1\t0/3000\tx\n\n# y\n2\t0/5000\tz\n"), Some(vec![(1, 0x3000), (2, 0x5000)]));
    // Told to follow timeline 2, ended on timeline 1: of 2 nothing leads on.
    assert_eq!(path("1\t0/6000000\tx\n2\t0/30000D0\ty\n"), Some(vec![(1, 0x0300_00D0)]));
    assert_eq!(
        path("1\t0/6000000\tx\n2\t0/30000D0\ty\n3\t0/7000000\tz\n"),
        Some(vec![(1, 0x0300_00D0), (3, 0x0700_0000)])
    );
    // Promoted and left at once.
    assert_eq!(path("1\t0/3000\tx\n2\t0/3000\ty\n"), Some(vec![(1, 0x3000), (2, 0x3000)]));
    for bad in ["2\t0/3000\tx\n1\t0/5000\ty\n", "1\tx\n", "one\t0/1\n", "1\n"] {
        assert_eq!(path(bad), None, "{bad:?}");
    }
}
