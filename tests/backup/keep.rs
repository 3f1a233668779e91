//! What is kept and what goes: retention in tables, cleanup on a real repository, keys that change.

use breakglass::backup::catalog::{self, Backup, BackupKind, Catalog, Change};
use breakglass::backup::cleanup::{self, Plan, execute};
use breakglass::backup::container::{Identity, ObjectType};
use breakglass::backup::dates;
use breakglass::backup::repository::Unlocked;
use breakglass::backup::retention::{Policy, judge};
use breakglass::backup::store::{Access, Existing};
use breakglass::error::ErrorKind;
use breakglass::model::Time;

use super::logical::{json, program, text};
use super::wal::{SYSTEM, object_path, segment, write_segment};
use super::{NOBODY, PASSPHRASE, add, manifest, repository};

const DAY: i64 = 86_400_000_000;

fn at(text: &str) -> Time {
    Time::parse(text).unwrap()
}

fn backup(id: &str, at: Time, verified: bool) -> Backup {
    Backup {
        manifest: manifest(id, BackupKind::Logical, at),
        verified_at: verified.then_some(at),
        verified_how: verified.then(|| "read".into()),
        proven_at: None,
        damaged: None,
        dated_back: None,
    }
}

/// What may go by the repository's own catalog.
fn plan(
    unlocked: &Unlocked,
    policy: Policy,
    now: Time,
    give_up: &[String],
    copies: &[String],
) -> breakglass::error::Result<Plan> {
    cleanup::plan(unlocked, Catalog::load(unlocked)?, policy, now, give_up, copies)
}

fn kept(backups: &[Backup], policy: Policy, now: Time) -> Vec<String> {
    judge(backups, policy, now).into_iter().filter(|v| v.keep).map(|v| v.backup).collect()
}

#[test]
fn days_and_the_last_good_one() {
    let now = at("2026-11-20T12:00:00Z");
    let days = |n: i64| Time::from_micros(now.micros() - n * DAY);
    let all = [
        backup("a", days(40), true),
        backup("b", days(20), true),
        backup("c", days(9), false),
        backup("d", days(1), false),
    ];
    assert_eq!(kept(&all, Policy::Days(30), now), ["b", "c", "d"]);
    // Nothing verified is young enough: the newest verified one stays all the same.
    assert_eq!(kept(&all, Policy::Days(5), now), ["b", "d"]);
    assert_eq!(kept(&all[..1], Policy::Days(1), now), ["a"]);
    let unverified = [backup("a", days(40), false), backup("b", days(35), false)];
    // None is verified: what stands is all there is.
    assert_eq!(kept(&unverified, Policy::Days(1), now), ["a", "b"]);
    // A clock that went back does not make a backup old.
    assert_eq!(kept(&[backup("f", days(-3), false), backup("g", days(9), true)], Policy::Days(1), now), ["f", "g"]);
    // Each kind and database has its own last good one.
    let mut other = backup("x", days(90), true);
    other.manifest.database = Some("other".into());
    let why = &judge(&[all[3].clone(), other], Policy::Days(5), now)[1].why;
    assert_eq!(why, "the newest verified one (logical of \"other\")");
    // A newer dump of some tables does not stand for the whole database.
    let mut part = backup("p", days(1), true);
    part.manifest.part = Some("tier critical".into());
    let whole = backup("w", days(90), true);
    let judged = judge(&[whole, part], Policy::Days(5), now);
    assert!(judged.iter().all(|v| v.keep), "{judged:?}");
    assert!(judged[1].why.ends_with("the newest verified one (logical, tier critical only)"), "{judged:?}");
}

#[test]
fn a_damaged_one_stands_for_no_other() {
    let now = at("2026-11-20T12:00:00Z");
    let days = |n: i64| Time::from_micros(now.micros() - n * DAY);
    let damaged = |id: &str, at: Time| Backup {
        damaged: Some(catalog::Damage { at, how: "read".into(), why: "a chunk".into() }),
        ..backup(id, at, false)
    };
    // None is verified: nobody knows which of them can be salvaged, and all stay.
    let all = [backup("a", days(50), false), damaged("b", days(40))];
    assert_eq!(kept(&all, Policy::Days(1), now), ["a", "b"]);
    let none = Policy::Generations { daily: 0, weekly: 1, monthly: 0, yearly: 0 };
    for policy in [Policy::Days(1), none] {
        assert_eq!(kept(&[damaged("x", days(50)), damaged("y", days(40))], policy, now), ["x", "y"]);
    }
    // A restore test that failed says nothing of the bytes: what it complained of stays while nothing newer is verified.
    let mut tested = damaged("t", days(40));
    tested.damaged = tested.damaged.map(|d| catalog::Damage { how: catalog::RESTORED.into(), ..d });
    let older = backup("o", days(50), true);
    assert_eq!(kept(&[older.clone(), damaged("d", days(40))], Policy::Days(30), now), ["o"]);
    assert_eq!(kept(&[older.clone(), tested.clone()], Policy::Days(30), now), ["o", "t"]);
    assert_eq!(kept(&[older, tested, backup("n", days(1), true)], Policy::Days(30), now), ["n"]);
    // Of each week the newest that is whole.
    let all = [backup("w", days(9), true), damaged("x", days(8)), backup("y", days(1), true), damaged("z", days(0))];
    let policy = Policy::Generations { daily: 0, weekly: 2, monthly: 0, yearly: 0 };
    assert_eq!(kept(&all, policy, now), ["w", "y"]);
    assert!(judge(&all, policy, now)[3].why.contains("DAMAGED, found"));
}

/// An entry of the catalog as a machine writes it whose clock is wrong.
fn entry(unlocked: &Unlocked, at: Time, change: &Change) {
    let head = Catalog::load(unlocked).unwrap().head;
    let seq = head.seq + 1;
    let mut entry = serde_json::json!({"version": 1, "seq": seq, "prev": head.sha256, "at": at});
    let change = serde_json::to_value(change).unwrap();
    entry.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let bytes = serde_json::to_vec(&entry).unwrap();
    unlocked.write_own(ObjectType::CatalogEntry, &format!("catalog/{seq:08}.bgo"), &bytes).unwrap();
}

/// A backup that was made and read back by a clock that says `at`.
fn made(unlocked: &Unlocked, id: &str, at: Time) {
    let mut m = manifest(id, BackupKind::Logical, at);
    let name = format!("backups/{id}/data.bgo");
    let (_, summary) = unlocked.write_own(m.kind.object_type(), &name, id.as_bytes()).unwrap();
    m.objects.push(catalog::ObjectRecord::new(&name, &summary));
    let bytes = serde_json::to_vec(&m).unwrap();
    let (_, summary) = unlocked.write_own(ObjectType::Manifest, &catalog::manifest_name(id), &bytes).unwrap();
    let manifest_sha256 = breakglass::backup::container::hex(&summary.stored_sha256);
    entry(unlocked, at, &Change::Added { backup: id.into(), manifest_sha256 });
    entry(unlocked, at, &Change::Verified { backup: id.into(), how: "read".into() });
}

#[test]
fn a_clock_that_was_wrong_makes_no_backup_old_or_new() {
    let now = Time::from_system(std::time::SystemTime::now());
    let days = |n: i64| Time::from_micros(now.micros() - n * DAY);
    let (a, b, c) = ("20200101T0000Z-logical-aaaaaa", "20200102T0000Z-logical-bbbbbb", "20200103T0000Z-logical-cccccc");
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (_, unlocked, _) = repository(d);
    let run = |args: &[&str]| {
        let out = program(d, NOBODY, &[], args);
        (out.status.code(), text(&out))
    };
    // Back by 100 days when the second was made: the newest of all, whatever it is dated.
    made(&unlocked, a, days(40));
    made(&unlocked, b, days(100));
    let (code, said) = run(&["backup", "cleanup", "--dry-run"]);
    let line = |said: &str, id: &str| said.lines().find(|l| l.starts_with(id)).unwrap_or_default().to_string();
    assert!(code == Some(0) && line(&said, a).contains("would go: older than 30 days"), "{said}");
    assert!(
        line(&said, b).contains("stays: its age is in doubt") && line(&said, b).contains("newest verified"),
        "{said}"
    );
    let (code, said) = run(&["backup", "list"]);
    assert!(code == Some(0) && said.contains(&format!("WARNING: the age of backup {b} is in doubt")), "{said}");
    let (code, said) = run(&["health"]);
    assert!(code == Some(1) && said.contains("age in doubt") && said.contains(b), "{said}");
    assert!(run(&["doctor"]).1.contains(&format!("the age of backup {b} is in doubt")), "{}", run(&["doctor"]).1);
    // The clock is right again: the next one stands for it, and the one in doubt still goes by nobody's date.
    made(&unlocked, c, days(0));
    let (_, said) = run(&["backup", "cleanup"]);
    assert!(line(&said, a).contains("goes: older") && line(&said, b).contains("stays: its age is in doubt"), "{said}");
    // What showed that it is in doubt is gone, and it is in doubt all the same; somebody may know better.
    let (_, said) = run(&["backup", "cleanup"]);
    assert!(line(&said, b).contains("stays: its age is in doubt"), "{said}");
    let (_, said) = run(&["health"]);
    let clock = said.lines().find(|l| l.starts_with("clock")).unwrap_or_default();
    assert!(clock.contains("operational") && clock.contains(b), "known, and no reason to wake anybody: {said}");
    let (code, said) = run(&["backup", "cleanup", "--give-up", b]);
    assert!(code == Some(0) && line(&said, b).contains("given up by hand"), "{said}");

    // Ahead by 400 days when the second was made, right again when the third was.
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (_, unlocked, _) = repository(d);
    let run = |args: &[&str]| {
        let out = program(d, NOBODY, &[("BACKUP_RETENTION_DAYS", "1")], args);
        (out.status.code(), text(&out))
    };
    made(&unlocked, a, days(50));
    made(&unlocked, b, days(-400));
    let (code, said) = run(&["health"]);
    assert!(code == Some(1) && said.contains("behind the catalog") && said.contains("age in doubt"), "{said}");
    made(&unlocked, c, days(2));
    let (_, said) = run(&["backup", "cleanup"]);
    assert!(line(&said, c).contains("stays: the newest verified one"), "{said}");
    assert!(line(&said, b).contains("stays: its age is in doubt") && line(&said, a).contains("goes: older"), "{said}");
    let (code, said) = run(&["health"]);
    assert!(code == Some(1) && said.contains(&format!("{c}, verified, 48:")), "by the catalog's order: {said}");
    assert!(said.contains("24:00:00 at most are wanted (policy.backup_max_age, 24h unless set"), "{said}");
    // Whoever makes one while the clock stands before the catalog's last entry hears of it.
    made(&unlocked, "20200104T0000Z-logical-dddddd", days(-300));
    std::fs::create_dir(d.join("data")).unwrap();
    let (code, said) = run(&["backup", "create", "--files", "data"]);
    assert!(code == Some(0) && said.contains("WARNING: the clock of this machine says"), "{said}");
    // Against a server's: minutes are said, seconds are not.
    let differs = |seconds: i64| dates::differs(now, Time::from_micros(now.micros() + seconds * 1_000_000));
    assert!(differs(20).is_none() && differs(-20).is_none());
    assert!([600, -600].iter().all(|s| differs(*s).unwrap().contains("the database's")));
}

#[test]
fn while_none_is_verified_none_goes() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (repo, unlocked, _) = repository(d);
    let now = Time::from_system(std::time::SystemTime::now());
    let days = |n: i64| Time::from_micros(now.micros() - n * DAY);
    // The older one has lost a bit in the middle and can be salvaged, the newer one everything.
    let (salvageable, dead) = ("20200101T0000Z-logical-aaaaaa", "20200102T0000Z-logical-bbbbbb");
    for (id, age) in [(salvageable, 50), (dead, 40)] {
        add(&unlocked, manifest(id, BackupKind::Logical, days(age)));
        let change = Change::Damaged { backup: id.into(), how: "read".into(), why: "a chunk".into() };
        catalog::append(&unlocked, &change).unwrap();
    }
    repo.store().delete(&format!("backups/{dead}/data.bgo")).unwrap();
    let out = program(d, NOBODY, &[], &["backup", "cleanup"]);
    assert!(out.status.code() == Some(0) && text(&out).contains("so none of them goes; DAMAGED"), "{}", text(&out));
    assert_eq!(Catalog::load(&unlocked).unwrap().backups.len(), 2, "{}", text(&out));
    assert!(d.join(format!("repo/backups/{salvageable}/data.bgo")).exists());
    json(d, NOBODY, 0, &["backup", "cleanup", "--give-up", dead]);
    assert_eq!(Catalog::load(&unlocked).unwrap().backups.len(), 1, "by somebody's word");
}

#[test]
fn generations() {
    let now = at("2026-11-20T12:00:00Z");
    // One a day over two years.
    let all: Vec<Backup> =
        (0..730).rev().map(|n| backup(&format!("d{n}"), Time::from_micros(now.micros() - n * DAY), true)).collect();
    let policy = Policy::Generations { daily: 30, weekly: 12, monthly: 12, yearly: 7 };
    let verdicts = judge(&all, policy, now);
    let count = |word: &str| verdicts.iter().filter(|v| v.keep && v.why.contains(word)).count();
    assert_eq!((count("daily"), count("weekly"), count("monthly"), count("yearly")), (30, 12, 12, 3));
    let keeps: Vec<&str> = verdicts.iter().filter(|v| v.keep).map(|v| v.backup.as_str()).collect();
    // By hand: 30 days, 8 weeks before them, 10 month ends before those, and the last day of 2024.
    assert!(keeps.contains(&"d0") && keeps.contains(&"d29") && !keeps.contains(&"d30"), "{keeps:?}");
    let yearly = verdicts.iter().find(|v| v.why.contains("yearly of 2024")).unwrap();
    assert_eq!(yearly.backup, "d689", "2024-12-31");
    let monthly = verdicts.iter().find(|v| v.why.contains("monthly of 2026-02")).unwrap();
    assert_eq!(monthly.backup, "d265", "2026-02-28");
    let weekly = verdicts.iter().rev().find(|v| v.why.contains("week from 2026-10-05")).unwrap();
    assert_eq!(weekly.backup, "d40", "Sunday 2026-10-11");
    // Judging what is left keeps the same: a cleanup is stable.
    let left: Vec<Backup> = all.iter().zip(&verdicts).filter(|(_, v)| v.keep).map(|(b, _)| b.clone()).collect();
    assert_eq!(kept(&left, policy, now).len(), left.len());
}

#[test]
fn cleanup_takes_what_nothing_needs() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (repo, unlocked, url) = repository(d);
    let now = Time::from_system(std::time::SystemTime::now());
    let days = |n: i64| Time::from_micros(now.micros() - n * DAY);
    repo.bind_cluster(SYSTEM, Some(1 << 20)).unwrap();
    for (id, age, segment) in [("20200101T0000Z-physical-aaaaaa", 50, 3), ("20200102T0000Z-physical-bbbbbb", 40, 5)] {
        let mut m = manifest(id, BackupKind::Physical, days(age));
        (m.timeline, m.start_lsn) = (Some(1), Some(format!("0/{segment}00028")));
        add(&unlocked, m);
    }
    add(&unlocked, manifest("20200103T0000Z-logical-cccccc", BackupKind::Logical, days(60)));
    add(&unlocked, manifest("20200104T0000Z-logical-dddddd", BackupKind::Logical, days(2)));
    for id in ["20200102T0000Z-physical-bbbbbb", "20200104T0000Z-logical-dddddd"] {
        catalog::append(&unlocked, &Change::Verified { backup: id.into(), how: "read".into() }).unwrap();
    }
    for n in 1..9 {
        let path = write_segment(d, segment(1, n), SYSTEM, n);
        breakglass::backup::wal::archive(&url, &path, None).unwrap();
    }
    // What is left of an unfinished old backup goes; of one that may be on its way it stays.
    let young = format!("{}-logical-eeeeee", now.compact());
    for id in ["20200105T0000Z-logical-ffffff", &young] {
        repo.store().put(&format!("backups/{id}/x.bgo"), Access::Group, b"x", Existing::Keep).unwrap();
    }
    let abandoned = d.join("repo/backups/.tmp-x.bgo-1-2");
    std::fs::write(&abandoned, "x").unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&abandoned).unwrap().set_modified(old).unwrap();

    let out = program(d, NOBODY, &[("BACKUP_RETENTION_DAYS", "30")], &["backup", "cleanup", "--dry-run"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    for line in [
        "20200101T0000Z-physical-aaaaaa  would go: older than 30 days",
        "20200102T0000Z-physical-bbbbbb  stays: the newest verified one (physical)",
        "20200104T0000Z-logical-dddddd  stays: younger than 30 days, the newest verified one",
        "would go: log from before every kept base backup",
        "the log is kept from 000000010000000000000005",
    ] {
        assert!(text(&out).contains(line), "{line}\n{}", text(&out));
    }
    assert_eq!(Catalog::load(&unlocked).unwrap().backups.len(), 4, "a dry run changes nothing");
    let done = json(d, NOBODY, 0, &["backup", "cleanup"]);
    assert_eq!(done["dry_run"], false);
    let left: Vec<String> = Catalog::load(&unlocked).unwrap().backups.into_iter().map(|b| b.manifest.id).collect();
    assert_eq!(left, ["20200102T0000Z-physical-bbbbbb", "20200104T0000Z-logical-dddddd"]);
    let mut folders: Vec<String> = std::fs::read_dir(d.join("repo/backups"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, ["20200102T0000Z-physical-bbbbbb", "20200104T0000Z-logical-dddddd", &young]);
    for n in 1..9 {
        assert_eq!(object_path(d, segment(1, n)).exists(), n >= 5, "segment {n}");
    }
    // Verified ones protect themselves, however old.
    let change = Change::Verified { backup: "20200102T0000Z-physical-bbbbbb".into(), how: "read".into() };
    catalog::append(&unlocked, &change).unwrap();
    let again = plan(&unlocked, Policy::Days(1), now, &[], &[]).unwrap();
    assert_eq!((again.removed().count(), again.objects.len()), (0, 0), "{again:?}");

    // Died between the catalog's entry and the objects: the next cleanup takes them.
    let change = Change::Removed { backup: "20200104T0000Z-logical-dddddd".into(), reason: "test".into() };
    catalog::append(&unlocked, &change).unwrap();
    let rest = plan(&unlocked, Policy::Days(30), now, &[], &[]).unwrap();
    assert!(rest.objects.iter().all(|o| o.why == "left by an interrupted cleanup") && rest.objects.len() == 2);
    execute(&unlocked, &rest, &mut |_, _| Ok(())).unwrap();
    assert!(plan(&unlocked, Policy::Days(30), now, &[], &[]).unwrap().objects.is_empty());

    // On the word of a damaged catalog nothing goes.
    let entry = d.join("repo/catalog/00000002.bgo");
    let mut bytes = std::fs::read(&entry).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    std::fs::write(&entry, bytes).unwrap();
    json(d, NOBODY, 4, &["backup", "cleanup"]);
}

#[test]
fn what_stays_is_looked_at_before_anything_goes() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (repo, unlocked, _) = repository(d);
    let now = Time::from_system(std::time::SystemTime::now());
    let days = |n: i64| Time::from_micros(now.micros() - n * DAY);
    let (good, bad) = ("20200101T0000Z-physical-aaaaaa", "20200102T0000Z-physical-bbbbbb");
    for (id, age) in [(good, 50), (bad, 40)] {
        add(&unlocked, manifest(id, BackupKind::Physical, days(age)));
        catalog::append(&unlocked, &Change::Verified { backup: id.into(), how: "read".into() }).unwrap();
    }
    repo.store().delete(&format!("backups/{bad}/data.bgo")).unwrap();
    let env = [("BACKUP_RETENTION_DAYS", "30")];
    let head = || Catalog::load(&unlocked).unwrap().head.seq;
    let before = head();
    let out = program(d, NOBODY, &env, &["backup", "cleanup", "--dry-run"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    for line in [
        format!("{good}  stays: the newest verified one"),
        format!("{bad}  would go: older than 30 days; DAMAGED, found"),
        format!("WARNING: backup {bad}, which was to stay, is DAMAGED"),
        "nothing was recorded".to_string(),
    ] {
        assert!(text(&out).contains(&line), "{line}\n{}", text(&out));
    }
    assert_eq!(head(), before, "a dry run writes nothing");
    let out = program(d, NOBODY, &env, &["backup", "cleanup"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let left: Vec<String> = Catalog::load(&unlocked).unwrap().backups.into_iter().map(|b| b.manifest.id).collect();
    assert_eq!(left, [good], "the one that can be restored: {}", text(&out));
    assert!(d.join(format!("repo/backups/{good}/data.bgo")).exists());
    assert!(head() >= before + 2, "found and removed are both on record");
}

#[test]
fn a_cleanup_that_stops_says_what_was_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (_, unlocked, _) = repository(d);
    let now = Time::from_system(std::time::SystemTime::now());
    let old = "20200101T0000Z-logical-aaaaaa";
    add(&unlocked, manifest(old, BackupKind::Logical, Time::from_micros(now.micros() - 50 * DAY)));
    let young = "20200102T0000Z-logical-bbbbbb";
    add(&unlocked, manifest(young, BackupKind::Logical, now));
    catalog::append(&unlocked, &Change::Verified { backup: young.into(), how: "read".into() }).unwrap();
    let all = plan(&unlocked, Policy::Days(30), now, &[], &[]).unwrap();
    let stop = |_: usize, _: usize| Err(breakglass::error::Error::interrupted("stopped on request: 0 removed"));
    let error = execute(&unlocked, &all, &mut { stop }).unwrap_err();
    let said = error.to_string();
    assert!(error.kind == ErrorKind::Interrupted && said.contains("stopped on request"), "{said}");
    assert!(
        said.contains(&format!("backup {old} was let go already")) && said.contains("next cleanup removes"),
        "{said}"
    );
    // As it says.
    assert!(Catalog::load(&unlocked).unwrap().removed.contains(old) && d.join("repo/backups").join(old).exists());
    let rest = plan(&unlocked, Policy::Days(30), now, &[], &[]).unwrap();
    execute(&unlocked, &rest, &mut |_, _| Ok(())).unwrap();
    assert!(!d.join("repo/backups").join(old).exists());
}

#[test]
fn a_damaged_backup_can_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (repo, unlocked, url) = repository(d);
    let (damaged, whole) = ("20200101T0000Z-physical-aaaaaa", "20200102T0000Z-physical-bbbbbb");
    let now = Time::from_system(std::time::SystemTime::now());
    for (id, segment) in [(damaged, 3), (whole, 5)] {
        let mut m = manifest(id, BackupKind::Physical, now);
        m.timeline = Some(1);
        m.start_lsn = Some(format!("0/{segment}00028"));
        add(&unlocked, m);
    }
    for n in 1..9 {
        breakglass::backup::wal::archive(&url, &write_segment(d, segment(1, n), SYSTEM, n), None).unwrap();
    }
    let copy = d.join("copy").display().to_string();
    breakglass::backup::copies::copy_to(&unlocked, &copy, None, Default::default(), &mut |_, _| Ok(())).unwrap();
    let path = d.join(format!("repo/backups/{damaged}/manifest.bgo"));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();

    // By itself it stays, and so does the log; what to do is said.
    let left = plan(&unlocked, Policy::Days(30), now, &[], &[]).unwrap();
    assert!(left.objects.is_empty() && left.log.contains("--give-up"), "{left:?}");
    let give = |id: &str, copies: &[String]| plan(&unlocked, Policy::Days(30), now, &[id.into()], copies);
    let refused = give(damaged, std::slice::from_ref(&copy)).unwrap_err();
    assert!(refused.kind == ErrorKind::Refused && refused.to_string().contains("--even-if-copied"), "{refused}");
    let refused = give(whole, &[]).unwrap_err();
    assert!(refused.kind == ErrorKind::Refused && refused.to_string().contains("are right"), "{refused}");
    assert_eq!(give("20200103T0000Z-physical-cccccc", &[]).unwrap_err().kind, ErrorKind::Usage);
    let out = program(d, NOBODY, &[], &["backup", "cleanup", "--give-up", whole]);
    assert!(out.status.code() == Some(4) && text(&out).contains("are right"), "{}", text(&out));

    json(d, NOBODY, 0, &["backup", "cleanup", "--give-up", damaged]);
    let catalog = Catalog::load(&unlocked).unwrap();
    assert!(catalog.lost.is_empty() && catalog.removed.contains(damaged), "{catalog:?}");
    assert_eq!(catalog.backups.len(), 1);
    assert!(!path.parent().unwrap().exists());
    for n in 1..9 {
        assert_eq!(object_path(d, segment(1, n)).exists(), n >= 5, "segment {n}: the log is held no longer");
    }
    // Of a whole manifest an object is damaged: the same.
    let mut m = manifest("20200104T0000Z-logical-dddddd", BackupKind::Logical, now);
    let name = "backups/20200104T0000Z-logical-dddddd/x.bgo";
    let (_, summary) = unlocked.write_own(ObjectType::LogicalDump, name, b"rows").unwrap();
    m.objects.push(catalog::ObjectRecord::new(name, &summary));
    catalog::add(&unlocked, &m).unwrap();
    assert_eq!(give(&m.id, &[]).unwrap_err().kind, ErrorKind::Refused);
    repo.store().delete(name).unwrap();
    let given = give(&m.id, &[]).unwrap();
    assert!(given.removed().any(|v| v.why.contains("given up by hand") && v.why.contains("missing")), "{given:?}");

    // The catalog cannot be written, for another reason than a full disk: the reserve stays for that.
    let next = Catalog::load(&unlocked).unwrap().head.seq + 1;
    std::fs::create_dir(d.join(format!("repo/catalog/{next:08}.bgo"))).unwrap();
    let error = execute(&unlocked, &given, &mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("written by others"), "{error}");
    assert!(d.join("repo/.reserve").exists(), "nothing took its room");
}

const NEW: &str = "a new passphrase that has more than thirty-two characters";

#[test]
fn keys_change_and_old_backups_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (repo, unlocked, _) = repository(d);
    add(&unlocked, manifest("20200101T0000Z-logical-aaaaaa", BackupKind::Logical, at("2026-01-01T00:00:00Z")));
    let before = std::fs::read(d.join("repo/backups/20200101T0000Z-logical-aaaaaa/data.bgo")).unwrap();
    let run = |more: &[(&str, &str)], args: &[&str]| {
        let out = program(d, NOBODY, more, args);
        (out.status.code().unwrap(), text(&out))
    };
    let (code, said) = run(&[], &["backup", "rotate-key"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("BACKUP_NEW_ENCRYPTION_KEY"), "{said}");
    let (code, said) = run(&[("BACKUP_NEW_ENCRYPTION_KEY", "short")], &["backup", "rotate-key"]);
    assert!(code == 2 && said.contains("5 characters") && !said.contains("\"short\""), "{said}");
    assert!(said.contains("set it as BACKUP_NEW_ENCRYPTION_KEY"), "the variable that is meant: {said}");
    // The one that it has: nothing changes, and nothing says that it did.
    let keys =
        || std::fs::read(std::fs::read_dir(d.join("repo/keys")).unwrap().next().unwrap().unwrap().path()).unwrap();
    let was = keys();
    let same = [("BACKUP_NEW_ENCRYPTION_KEY", PASSPHRASE)];
    for args in [&["backup", "rotate-key"][..], &["backup", "rotate-key", "--new-recipient", "none.key"]] {
        let (code, said) = run(&same, args);
        assert!(code == 2 && said.contains("has already") && !said.contains("passphrase changed"), "{said}");
    }
    assert!(was == keys() && !d.join("none.key").exists(), "nothing was changed");

    // A second recipient, then another passphrase and another key pair.
    let (code, said) = run(&[], &["backup", "rotate-key", "--new-recipient", "safe.key"]);
    assert_eq!(code, 0, "{said}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(d.join("safe.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(d.join("safe.key")).unwrap();
    assert!(!said.contains(secret.split_whitespace().nth(1).unwrap()), "the key is never shown");
    let (code, said) = run(&[("BACKUP_NEW_ENCRYPTION_KEY", NEW)], &["backup", "rotate-key", "--new-key-pair"]);
    assert!(code == 0 && said.contains("replace every copy of the folder `keys`"), "{said}");
    let (code, said) = run(&[], &["backup", "list"]);
    assert!(code == 2 && said.contains("does not open this repository"), "{said}");
    let with_new = [("BACKUP_ENCRYPTION_KEY", NEW)];
    assert_eq!(run(&with_new, &["backup", "verify", "--all"]).0, 0, "what was written for the old key");
    add(
        &breakglass::backup::repository::Repository::open(d.join("repo").to_str().unwrap())
            .unwrap()
            .unlock(&breakglass::model::Secret::new(NEW))
            .unwrap(),
        manifest("20200102T0000Z-logical-bbbbbb", BackupKind::Logical, at("2026-01-02T00:00:00Z")),
    );
    assert_eq!(run(&with_new, &["backup", "verify", "--all"]).0, 0, "and for the new one");
    assert_eq!(before, std::fs::read(d.join("repo/backups/20200101T0000Z-logical-aaaaaa/data.bgo")).unwrap());

    // The passphrase is lost: the recipient's key reads, and sets another one.
    let with_file = [("BACKUP_ENCRYPTION_KEY", ""), ("BACKUP_IDENTITY_FILE", "safe.key")];
    assert_eq!(run(&with_file, &["backup", "verify", "--all"]).0, 0);
    let set = [with_file[0], with_file[1], ("BACKUP_NEW_ENCRYPTION_KEY", PASSPHRASE)];
    assert_eq!(run(&set, &["backup", "rotate-key"]).0, 0);
    assert_eq!(run(&[], &["backup", "verify", "--all"]).0, 0);
    let public = breakglass::backup::container::hex(
        &breakglass::backup::keys::identity_from_text(&breakglass::model::Secret::new(secret)).unwrap().public(),
    );
    assert_eq!(run(&[], &["backup", "rotate-key", "--remove-recipient", &public]).0, 0);
    assert_eq!(run(&with_file, &["backup", "list"]).0, 2, "no longer");

    // Died between the key file and repository.json: everything works, and the next rotation finishes it.
    let was = repo.key_file().unwrap();
    let mut keys = was.clone();
    let made: Identity = keys
        .add_identity(breakglass::backup::keys::Opener::Passphrase(&super::passphrase()), at("2026-01-03T00:00:00Z"))
        .unwrap();
    repo.store_key_file(&was, &keys).unwrap();
    assert_eq!(run(&[], &["backup", "verify", "--all"]).0, 0);
    assert_eq!(run(&[], &["backup", "rotate-key"]).0, 0);
    let opened = breakglass::backup::repository::Repository::open(d.join("repo").to_str().unwrap()).unwrap();
    assert_eq!(opened.public_key(), made.public());
    assert_eq!(ObjectType::LogicalDump.id(), 7);
}
