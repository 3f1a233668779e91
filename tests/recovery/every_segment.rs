//! A segment that is missing, cut, flipped, or sealed for a key that nobody here has, at every position of an archive of twenty:
//! what needs it is refused before anything is touched, with segment, position, times and the last point before it; what does not
//! still works.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use breakglass::backup::catalog::Catalog;
use breakglass::backup::container::{Identity, ObjectType, Recipient, Spec, Writer, hex};
use breakglass::backup::wal::{Segment, WalName, fetch};
use breakglass::error::{Error, ErrorKind};
use breakglass::model::Time;
use breakglass::model::target::RecoveryTarget;
use breakglass::postgres::Lsn;
use breakglass::recovery::backend::{Goal, Native, Recovery, Way};
use breakglass::recovery::commits::{Commit, LogArchive};
use breakglass::recovery::range::{Route, range};
use breakglass::recovery::wal_index::{self, Index};
use breakglass::recovery::watch::Unwatched;
use tokio_util::sync::CancellationToken;

use super::shop::{rows, script};
use crate::support::archived::Archived;
use crate::support::cluster::{block_on, programs};

const SIZE: u32 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Missing,
    Cut,
    Flipped,
    /// As it should be, only for a stranger.
    Sealed,
}

const ALL: [Damage; 4] = [Damage::Missing, Damage::Cut, Damage::Flipped, Damage::Sealed];

/// An archive of twenty segments, a transaction and a restore point in each, and a second base backup half-way.
struct Stand {
    a: Archived,
    native: Native,
    /// First segment and end position of each base backup.
    backups: Vec<(u64, Lsn)>,
    segments: Vec<u64>,
    /// One of each segment, and its row.
    commits: Vec<(Commit, u32)>,
}

impl Stand {
    fn start() -> Self {
        let a = Archived::start("everysegment");
        let db = a.cluster.database("postgres");
        script(&db, "create table t (n int)");
        let some = |from: u32, to: u32| {
            let each = (from..to).map(|i| {
                format!("insert into t values ({i}); select pg_create_restore_point('p{i}'); select pg_switch_wal();\n")
            });
            script(&db, &each.collect::<String>());
        };
        a.base_backup();
        some(1, 9);
        a.base_backup();
        some(9, 19);
        a.archive_now();
        let catalog = Catalog::load(&a.unlocked).unwrap();
        let backups: Vec<(u64, Lsn)> = catalog.backups.iter().map(|b| place(&b.manifest)).collect();
        let programs = programs();
        let archive = LogArchive::open(&a.unlocked, &programs, 1).unwrap();
        let entries = a.unlocked.repository().store().list("wal/00000001/").unwrap();
        let whole = entries.iter().filter_map(|e| match WalName::from_object(&e.name) {
            Some(WalName::Segment(s)) => Some(s.number(SIZE)),
            _ => None,
        });
        let segments: Vec<u64> = whole.filter(|n| *n >= backups[0].0).collect();
        let (first, last) = (segments[0], segments[segments.len() - 1]);
        assert!(segments.len() >= 20 && last - first + 1 == segments.len() as u64, "{segments:?}");
        let found = archive.read(first, last, &a.room.path).unwrap().commits;
        // The inserts, in their order: nothing else that commits is followed by a restore point.
        let xids: Vec<u32> = script(&db, "select xmin from t order by n").lines().map(|x| x.parse().unwrap()).collect();
        let commit = |x: &u32| found.iter().find(|c| c.xid == *x).unwrap().clone();
        let commits = xids.iter().map(commit).zip(1..).collect();
        let settings = a.settings(&a.room.path);
        let native = Native::of(a.unlocked.clone(), &settings, a.room.path.clone());
        Self { a, native, backups, segments, commits }
    }

    fn name(number: u64) -> String {
        Segment::from_number(1, number, SIZE).to_string()
    }

    fn object(&self, number: u64) -> PathBuf {
        self.a.repository.join(WalName::Segment(Segment::from_number(1, number, SIZE)).object())
    }

    /// Does it to a segment, and gives what puts it back.
    fn damage(&self, number: u64, damage: Damage) -> impl FnOnce() + use<> {
        let path = self.object(number);
        let good = std::fs::read(&path).unwrap();
        match damage {
            Damage::Missing => std::fs::remove_file(&path).unwrap(),
            Damage::Cut => std::fs::write(&path, &good[..good.len() * 2 / 3]).unwrap(),
            Damage::Flipped => {
                let mut bad = good.clone();
                bad[good.len() / 2] ^= 4;
                std::fs::write(&path, bad).unwrap();
            }
            Damage::Sealed => std::fs::write(&path, self.sealed(number)).unwrap(),
        }
        move || std::fs::write(path, good).unwrap()
    }

    /// A segment as an archiver stores it that writes for a stranger's key: the same one for all.
    fn sealed(&self, number: u64) -> Vec<u8> {
        let name = WalName::Segment(Segment::from_number(1, number, SIZE));
        let plain = fetch::read(&self.a.unlocked, &name).unwrap().unwrap();
        let repository = self.a.unlocked.repository();
        let mut spec = Spec::new(ObjectType::WalSegment, repository.id(), name.object(), Time::from_micros(1));
        spec.timeline = 1;
        spec.system_identifier = repository.cluster().unwrap().unwrap().system_identifier;
        let mut writer = Writer::new(Vec::new(), &spec, &[Recipient::Public(stranger().public())]).unwrap();
        writer.write_all(&plain).unwrap();
        writer.finish().unwrap().0
    }

    /// What a restore asks before it does anything.
    fn ask(&self, target: &str, after: bool) -> Result<Route, Error> {
        let target: RecoveryTarget = target.parse().unwrap();
        let goal = Goal { after, ..Goal::to(target) };
        let cancel = CancellationToken::new();
        match block_on(self.native.preflight(&goal, Arc::new(Unwatched), &cancel))? {
            Way::Beside(route) => Ok(*route),
            Way::InPlace(_) => panic!("in place"),
        }
    }

    /// Whether a position can be recovered to without this segment.
    fn can(&self, lsn: Lsn, without: u64) -> bool {
        let goal = number(lsn);
        self.backups.iter().any(|(first, stop)| *stop <= lsn && !(*first..=goal).contains(&without))
    }

    /// The last transaction before a segment that some base backup leads to.
    fn before(&self, segment: u64) -> Option<&Commit> {
        let reached = |c: &&Commit| number(c.lsn) < segment && self.backups.iter().any(|(_, stop)| *stop <= c.lsn);
        self.commits.iter().map(|(c, _)| c).rfind(reached)
    }
}

fn place(m: &breakglass::backup::catalog::Manifest) -> (u64, Lsn) {
    let lsn = |text: &Option<String>| text.as_ref().unwrap().parse::<Lsn>().unwrap();
    (number(lsn(&m.start_lsn)), lsn(&m.stop_lsn))
}

fn stranger() -> Identity {
    Identity::from_secret(&[7; 32])
}

fn number(lsn: Lsn) -> u64 {
    lsn.0 / u64::from(SIZE)
}

#[test]
fn every_position_of_a_missing_cut_or_flipped_segment() {
    let s = Stand::start();
    let soak = std::env::var_os("BREAKGLASS_SOAK").is_some();
    let mut index = Index::load(&s.a.unlocked).unwrap();
    let names = wal_index::names(&s.a.unlocked).unwrap();
    wal_index::update(&s.a.unlocked, &mut index, names, &Unwatched, &CancellationToken::new()).unwrap();
    let last = s.segments[s.segments.len() - 1];
    let programs = programs();
    let kept = || std::fs::read_dir(&s.a.room.path).unwrap().map(|e| e.unwrap().file_name()).collect::<BTreeSet<_>>();
    let before = kept();
    let (mut refused, mut reached) = (0, 0);
    let cases: Vec<(u64, Damage)> = s.segments.iter().flat_map(|n| ALL.map(|d| (*n, d))).collect();
    let mut looked = 0;
    for (i, &(bad, damage)) in cases.iter().enumerate() {
        // Every position and every kind of damage; all of them together in a soak.
        if !soak && i % 25 > 0 && bad != last {
            continue;
        }
        looked += 1;
        let mend = s.damage(bad, damage);
        let name = Stand::name(bad);
        let lost_tail = bad == last && damage == Damage::Missing;
        // Refused, and everything said that a person needs.
        let mut refuse = |target: &str| {
            let e = s.ask(target, false).expect_err(&format!("{target} without {name} ({damage:?})"));
            let text = format!("{e} {}", e.hints.join(" "));
            assert_eq!(e.kind, ErrorKind::Refused, "{damage:?} {target}: {text}");
            refused += 1;
            if lost_tail {
                return;
            }
            assert!(text.contains(&name), "{damage:?} {target}: {text}");
            if damage == Damage::Sealed {
                let key =
                    format!("sealed for key {}…, which is not among those given", &hex(&stranger().public())[..16]);
                assert!(text.contains(&key) && !text.contains("BACKUP_ENCRYPTION_KEY"), "{target}: {text}");
            }
            assert!(text.contains(&Lsn(bad * u64::from(SIZE)).to_string()), "{damage:?} {target}: {text}");
            let after = s.commits.iter().find(|(c, _)| number(c.lsn) > bad);
            assert!(after.is_none_or(|(c, _)| text.contains(&c.at.to_string())), "{damage:?} {target}: {text}");
            if let Some(b) = s.before(bad) {
                assert!(text.contains(&format!("--to-after lsn:{} ", b.lsn)), "{damage:?} {target}: {text}");
                assert!(text.contains(&b.at.to_string()), "{damage:?} {target}: {text}");
            }
        };
        // The one before it, the one in it, the one behind it, and the last of all, by position; some by their other names.
        let near = [bad.checked_sub(1), Some(bad), Some(bad + 1), Some(last)];
        for (c, row) in s.commits.iter().filter(|(c, _)| near.contains(&Some(number(c.lsn)))) {
            let mut targets = vec![format!("lsn:{}", c.lsn)];
            if soak || i % 50 == 0 {
                targets.extend([format!("xid:{}", c.xid), format!("time:{}", c.at), format!("name:p{row}")]);
            }
            for target in targets {
                match s.can(c.lsn, bad) {
                    false => refuse(&target),
                    true => {
                        let way = s.ask(&target, false).unwrap_or_else(|e| panic!("{damage:?} {name} {target}: {e}"));
                        let (first, _) = place(&way.backup);
                        assert!(
                            !(first..=number(c.lsn)).contains(&bad),
                            "{damage:?} {name} {target}: leads through it"
                        );
                        reached += 1;
                    }
                }
            }
        }
        // What is offered holds.
        if let Some(b) = s.before(bad) {
            s.ask(&format!("lsn:{}", b.lsn), true).unwrap_or_else(|e| panic!("{damage:?} {name}: {e}"));
        }
        match bad >= s.backups[1].0 && !lost_tail {
            true => refuse("latest"),
            false => {
                let end = s.ask("latest", false).unwrap().log_end;
                assert_eq!(number(end), if lost_tail { last } else { last + 1 }, "its end is said");
            }
        }
        // The range tells what is missing or cut without reading anything.
        let reach = range(&s.a.unlocked, &programs, None, &s.a.room.path).unwrap();
        match damage {
            // Of the size it had when it was read: only a look into it tells.
            Damage::Flipped | Damage::Sealed => {}
            _ if lost_tail => assert_eq!(reach.last_segment, Some(Stand::name(last - 1))),
            _ => assert!(reach.holes.iter().any(|h| h.first == name), "{damage:?} {name}: {:?}", reach.holes),
        }
        mend();
    }
    assert_eq!(kept(), before, "nothing was made");
    assert!(cases.len() >= 60 && refused > 2 * looked && reached > looked / 2, "{looked} {refused} {reached}");

    // Nobody indexed it: what is cut shows all the same, and what is flipped as soon as it is read.
    for entry in s.a.unlocked.repository().store().list("index/").unwrap() {
        s.a.unlocked.repository().store().delete(&entry.name).unwrap();
    }
    let damages = [(5, Damage::Cut), (5, Damage::Sealed), (0, Damage::Cut), (0, Damage::Flipped), (0, Damage::Sealed)];
    for (at, damage) in damages {
        let bad = if at > 0 { s.segments[at] } else { last };
        let mend = s.damage(bad, damage);
        let reach = range(&s.a.unlocked, &programs, None, &s.a.room.path).unwrap();
        assert_eq!(reach.holes.iter().map(|h| h.first.clone()).collect::<Vec<_>>(), [Stand::name(bad)], "{damage:?}");
        assert!(reach.latest.is_some() && reach.unread > 0);
        let e = s.ask("latest", false).map(|r| r.log_end);
        assert_eq!(e.is_ok(), bad < s.backups[1].0, "{e:?}");
        if let Err(e) = e {
            let said = e.hints.join(" ");
            assert!(
                said.contains(&format!("--to-after lsn:{} ", s.before(bad).unwrap().lsn)),
                "without an index: {said}"
            );
        }
        mend();
    }
    // A stretch of them is one hole, wherever it lies, and every hole is named; nothing is offered that needs one.
    let stretch: Vec<u64> = [11, 12, 13, 16].iter().map(|i| s.segments[*i]).collect();
    let mend: Vec<_> = stretch.iter().map(|n| s.damage(*n, Damage::Sealed)).collect();
    let holes = range(&s.a.unlocked, &programs, None, &s.a.room.path).unwrap().holes;
    let ends: Vec<(String, String)> = holes.iter().map(|h| (h.first.clone(), h.last.clone())).collect();
    let named = |from: usize, to: usize| (Stand::name(s.segments[from]), Stand::name(s.segments[to]));
    assert_eq!(ends, [named(11, 13), named(16, 16)], "{holes:#?}");
    for target in ["latest", "time:2098-01-01T00:00:00Z"] {
        let e = s.ask(target, false).unwrap_err();
        let said = format!("{e}");
        let (first, last) = named(11, 13);
        assert!(e.kind == ErrorKind::Refused && said.contains(&format!("segments {first} to {last} (")), "{said}");
        assert!(said.contains("copies of the folder keys"), "{said}");
        assert!(!said.contains("--to latest"), "{target}: {said}");
    }
    let (code, said) = s.a.run(&["pitr", "check", "--to", "latest"]);
    assert!(code == 1 && said.contains("sealed for key") && said.contains("--to-after lsn:"), "{said}");
    mend.into_iter().for_each(|mend| mend());
    let late = s.ask("time:2098-01-01T00:00:00Z", false).unwrap_err();
    assert!(late.to_string().contains("all that is archived: --to latest"), "{late}");

    // A position that the log does not reach, in its last segment or at its end: no record shows where to stop.
    for lsn in [Lsn((last + 1) * u64::from(SIZE)), Lsn((last + 1) * u64::from(SIZE) - 8)] {
        let e = s.ask(&format!("lsn:{lsn}"), false).unwrap_err();
        assert!(e.kind == ErrorKind::Refused && e.why.contains("the log ends before it"), "{e}");
    }

    // Through the program: refused, and no folder; and with BREAKGLASS_SOAK=1 what can be reached is, everywhere.
    for (i, damage) in ALL.into_iter().enumerate() {
        for (k, bad) in s.segments[2..s.segments.len() - 1].iter().copied().enumerate() {
            // One of them by default: what is refused was asked above, without a process for each.
            if !soak && (i, k) != (2, 12) {
                continue;
            }
            let mend = s.damage(bad, damage);
            let root = s.a.room.path.join(format!("shadow-{i}-{k}"));
            let dir = root.display().to_string();
            let restore =
                |to: &str, c: &Commit| s.a.run(&["pitr", "restore", to, &format!("lsn:{}", c.lsn), "--dir", &dir]);
            let (behind, _) = s.commits.iter().find(|(c, _)| !s.can(c.lsn, bad) && number(c.lsn) >= bad).unwrap();
            let (code, text) = restore("--to", behind);
            assert_eq!(code, 4, "{text}");
            assert!(text.contains(&Stand::name(bad)) && text.contains("--to-after lsn:"), "{text}");
            assert!(!root.exists(), "{text}");
            // The damage lies right behind it: looking ahead must not meet it.
            if soak || i == 2 {
                let good = s.before(bad).unwrap();
                let row = s.commits.iter().find(|(c, _)| c == good).unwrap().1;
                let (code, text) = restore("--to-after", good);
                assert_eq!(code, 0, "{damage:?} {bad}: {text}");
                assert_eq!(rows(&root), (1..=row).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
                assert_eq!(s.a.run(&["pitr", "discard", "--shadow", &dir]).0, 0);
            }
            mend();
        }
    }
}
