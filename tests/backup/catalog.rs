//! The catalog: a chain that cannot be edited unseen, and that several writers cannot tear.

use breakglass::backup::catalog::{self, BackupKind, Catalog, Change, Manifest};
use breakglass::backup::container::{ObjectType, Recipient, Spec, Writer};
use breakglass::backup::repository::Unlocked;
use breakglass::error::ErrorKind;
use breakglass::model::Time;

use super::repository;

fn manifest(id: &str) -> Manifest {
    super::manifest(id, BackupKind::Files, Time::from_micros(1))
}

fn ids(unlocked: &Unlocked) -> Vec<String> {
    Catalog::load(unlocked).unwrap().backups.into_iter().map(|b| b.manifest.id).collect()
}

#[test]
fn entries_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, _) = repository(dir.path());
    let empty = Catalog::load(&unlocked).unwrap();
    assert_eq!((empty.head.seq, empty.backups.len()), (0, 0));
    let first = catalog::add(&unlocked, &manifest("b")).unwrap();
    catalog::add(&unlocked, &manifest("a")).unwrap();
    assert_eq!(ids(&unlocked), ["b", "a"], "in order of their making");
    assert_eq!(catalog::add(&unlocked, &manifest("a")).unwrap_err().kind, ErrorKind::Refused);
    catalog::append(&unlocked, &Change::Verified { backup: "a".into(), how: "read".into() }).unwrap();
    let unknown = Change::Verified { backup: "zz".into(), how: "read".into() };
    assert_eq!(catalog::append(&unlocked, &unknown).unwrap_err().kind, ErrorKind::Usage);
    catalog::append(&unlocked, &Change::Removed { backup: "b".into(), reason: "old".into() }).unwrap();
    let now = Catalog::load(&unlocked).unwrap();
    assert_eq!(now.head.seq, 4);
    assert_eq!(now.backups.len(), 1);
    assert!(now.find("a").unwrap().verified_at.is_some());
    assert!(now.find("b").unwrap_err().to_string().contains("There are: a"));
    assert!(now.holds(&first) && now.holds(&now.head) && now.holds(&empty.head));
}

#[test]
fn every_edit_of_the_chain_shows() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, unlocked, _) = repository(dir.path());
    let mut heads = Vec::new();
    for id in ["a", "b", "c", "d"] {
        heads.push(catalog::add(&unlocked, &manifest(id)).unwrap());
    }
    let folder = dir.path().join("repo/catalog");
    let entry = |n: u64| folder.join(format!("{n:08}.bgo"));
    let good: Vec<Vec<u8>> = (1..=4).map(|n| std::fs::read(entry(n)).unwrap()).collect();
    let put = |all: &[&[u8]]| {
        for n in 1..=9 {
            let _ = std::fs::remove_file(entry(n));
        }
        for (i, bytes) in all.iter().enumerate() {
            std::fs::write(entry(i as u64 + 1), bytes).unwrap();
        }
    };
    let g: Vec<&[u8]> = good.iter().map(Vec::as_slice).collect();
    for (what, order) in [
        ("swapped", vec![g[1], g[0], g[2], g[3]]),
        ("removed from the middle, renumbered", vec![g[0], g[2], g[3]]),
        ("doubled", vec![g[0], g[1], g[2], g[3], g[3]]),
        ("first removed", vec![g[1], g[2], g[3]]),
    ] {
        put(&order);
        let error = Catalog::load(&unlocked).unwrap().damage().unwrap_or_else(|| panic!("{what}: unseen"));
        assert_eq!(error.kind, ErrorKind::Check, "{what}: {error}");
        assert_eq!(catalog::add(&unlocked, &manifest("x")).unwrap_err().kind, ErrorKind::Refused, "{what}");
        std::fs::remove_dir_all(dir.path().join("repo/backups/x")).unwrap();
    }
    put(&g);
    std::fs::remove_file(entry(2)).unwrap();
    let now = Catalog::load(&unlocked).unwrap();
    assert!(now.damage().unwrap().what.contains("entry 2: missing"), "{:?}", now.broken);
    // Whose entry is gone, and whose manifest is whole, is there all the same.
    assert_eq!(ids(&unlocked).len(), 4);
    // A cut tail is a whole chain by itself; only a head kept elsewhere shows it.
    put(&g[..3]);
    let cut = Catalog::load(&unlocked).unwrap();
    assert!(cut.holds(&heads[2]) && !cut.holds(&heads[3]));
    // Cut and written on: another chain with the same numbers.
    catalog::add(&unlocked, &manifest("e")).unwrap();
    let other = Catalog::load(&unlocked).unwrap();
    assert_eq!(other.head.seq, 4);
    assert!(!other.holds(&heads[3]));
    put(&g);

    // Somebody with the public key alone writes an entry: it opens, and is refused.
    let name = "catalog/00000005.bgo";
    let Recipient::Public(_) = repo.recipient() else { panic!("the public recipient") };
    let spec = Spec::new(ObjectType::CatalogEntry, repo.id(), name, Time::from_micros(0));
    let (bytes, _) = Writer::new(Vec::new(), &spec, &[repo.recipient()]).unwrap().finish().unwrap();
    std::fs::write(entry(5), bytes).unwrap();
    let error = Catalog::load(&unlocked).unwrap().damage().unwrap();
    assert!(error.to_string().contains("not written by a holder"), "{error}");
    std::fs::remove_file(entry(5)).unwrap();

    // Yesterday's manifest under today's name.
    let path = |id: &str| dir.path().join(format!("repo/backups/{id}/manifest.bgo"));
    let kept = std::fs::read(path("a")).unwrap();
    std::fs::remove_file(path("a")).unwrap();
    let now = Catalog::load(&unlocked).unwrap();
    assert!(now.lost[0].backup == "a" && now.lost[0].why.contains("missing"), "{:?}", now.lost);
    assert!(now.damage().is_none() && now.find("b").is_ok(), "the others are as they were");
    assert!(now.find("a").unwrap_err().to_string().contains("damaged"));
    unlocked
        .write_own(ObjectType::Manifest, &catalog::manifest_name("a"), &serde_json::to_vec(&manifest("a")).unwrap())
        .unwrap();
    let lost = Catalog::load(&unlocked).unwrap().lost;
    assert!(lost[0].why.contains("not the one the catalog names"), "{lost:?}");
    std::fs::write(path("a"), kept).unwrap();
    assert!(Catalog::load(&unlocked).unwrap().lost.is_empty());
}

#[test]
fn several_writers_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, _) = repository(dir.path());
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let unlocked = &unlocked;
            scope.spawn(move || {
                for n in 0..5 {
                    catalog::add(unlocked, &manifest(&format!("w{writer}-{n}"))).unwrap();
                }
            });
        }
    });
    let mut all = ids(&unlocked);
    for writer in 0..4 {
        let mine: Vec<&String> = all.iter().filter(|id| id.starts_with(&format!("w{writer}-"))).collect();
        assert!(mine.is_sorted() && mine.len() == 5, "{mine:?}");
    }
    all.dedup();
    assert_eq!(all.len(), 20);
    let temporary = std::fs::read_dir(dir.path().join("repo/catalog")).unwrap().count();
    assert_eq!(temporary, 20, "those who came late left nothing");
}

#[test]
fn what_only_a_restore_shows_reading_does_not_clear() {
    let dir = tempfile::tempdir().unwrap();
    let (_, unlocked, _) = super::repository(dir.path());
    let now = breakglass::model::Time::from_micros(1);
    super::add(&unlocked, super::manifest("a", BackupKind::Logical, now));
    let say = |change: Change| {
        catalog::append(&unlocked, &change).unwrap();
        Catalog::load(&unlocked).unwrap().find("a").unwrap().clone()
    };
    let right = |how: &str| Change::Verified { backup: "a".into(), how: how.into() };
    let wrong = |how: &str| Change::Damaged { backup: "a".into(), how: how.into(), why: "it is".into() };
    let b = say(right("restored"));
    assert!(b.verified_at.is_some() && b.proven_at.is_some());
    let b = say(wrong("read"));
    assert!(b.verified_at.is_none() && b.proven_at.is_none() && b.damage().unwrap().starts_with("DAMAGED"), "{b:?}");
    let b = say(right("read"));
    assert!(b.verified_at.is_some() && b.proven_at.is_none() && b.damaged.is_none(), "{b:?}");
    say(wrong("restored"));
    let b = say(right("read"));
    assert!(b.verified_at.is_none() && b.damage().unwrap().starts_with("NOT RESTORABLE"), "{b:?}");
    let b = say(right("restored"));
    assert!(b.verified_at.is_some() && b.proven_at.is_some() && b.damaged.is_none(), "{b:?}");
}

#[test]
fn what_only_lies_among_the_entries_is_passed_over() {
    use super::NOBODY;
    use super::logical::{json, program, text};
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("data")).unwrap();
    let create = ["backup", "create", "--files", "data"];
    json(d, NOBODY, 0, &create);
    let folder = d.join("repo/catalog");
    std::fs::write(folder.join("desktop.ini"), "[x]").unwrap();
    std::fs::copy(folder.join("00000002.bgo"), folder.join("00000002 (conflicted copy).bgo")).unwrap();
    std::fs::write(folder.join("zzz.bgo"), "").unwrap();
    for args in [&["backup", "list"][..], &["backup", "verify", "--all"], &create, &["backup", "cleanup"]] {
        assert_eq!(program(d, NOBODY, &[], args).status.code(), Some(0), "{args:?}");
    }
    let list = json(d, NOBODY, 0, &["backup", "list"]);
    assert_eq!((list["strays"].as_array().unwrap().len(), list["broken"].as_array().unwrap().len()), (3, 0), "{list}");
    let said = text(&program(d, NOBODY, &[], &["backup", "list"]));
    assert!(said.contains("desktop.ini") && said.contains("passed over"), "{said}");
    // They are copied nowhere, and no end of the catalog.
    let copy = ["backup", "copy", "--to", "copy"];
    assert_eq!(program(d, NOBODY, &[], &copy).status.code(), Some(0));
    json(d, NOBODY, 0, &create);
    let out = program(d, NOBODY, &[], &copy);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(!d.join("copy/catalog/zzz.bgo").exists());
    // An entry that is really missing stops what writes, as before.
    std::fs::rename(folder.join("00000003.bgo"), folder.join("00000003 (1).bgo")).unwrap();
    assert_eq!(program(d, NOBODY, &[], &["backup", "list"]).status.code(), Some(1));
    let out = program(d, NOBODY, &[], &create);
    assert!(out.status.code() == Some(4) && text(&out).contains("entry 3: missing"), "{}", text(&out));
}
