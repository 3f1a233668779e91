//! The index of the archived log: the same whether read at once or piece by piece, never believed over the log, and quick.

use breakglass::backup::container::{ObjectType, Spec, Writer};
use breakglass::backup::store::{Access, Existing};
use breakglass::backup::wal::{Segment, WalName};
use breakglass::model::Time;
use breakglass::postgres::{FindPrograms, Programs};
use breakglass::recovery::axis;
use breakglass::recovery::range::{range, ranges};
use breakglass::recovery::wal_index::{self, Index, Known};
use breakglass::recovery::wal_locate::{Deed, NameMap, SegmentIndex};
use breakglass::recovery::watch::Unwatched;
use tokio_util::sync::CancellationToken;

use crate::support::archived::{Archived, said};
use crate::support::cluster::programs;

const SIZE: u32 = 1 << 20;

/// For what must not need them: running five processes takes longer than all the rest.
struct NoPrograms;

impl FindPrograms for NoPrograms {
    fn programs(&self) -> breakglass::error::Result<&Programs> {
        panic!("programs were looked for");
    }
}

fn update(a: &Archived, index: &mut Index) -> wal_index::Updated {
    let names = wal_index::names(&a.unlocked).unwrap();
    wal_index::update(&a.unlocked, index, names, &Unwatched, &CancellationToken::new()).unwrap().0
}

/// All segments of a timeline, with their bytes as stored.
fn archived(a: &Archived) -> Vec<(Segment, u64)> {
    let entries = a.unlocked.repository().store().list("wal/").unwrap();
    let segment = |name: &str| match WalName::from_object(name) {
        Some(WalName::Segment(s)) => Some(s),
        _ => None,
    };
    entries.iter().filter_map(|e| Some((segment(&e.name)?, e.size))).collect()
}

fn indexes(a: &Archived, index: &Index) -> Vec<SegmentIndex> {
    archived(a)
        .iter()
        .map(|(s, bytes)| index.read(*s, *bytes).unwrap_or_else(|| panic!("{s} is not known")).clone())
        .collect()
}

#[test]
fn what_was_read_piece_by_piece_is_what_is_read_at_once_and_the_range_is_the_same() {
    let a = Archived::start("walindex");
    let sql = |text: &str| a.cluster.sql("postgres", text);
    sql("create table keep (i int, p text)");
    sql("create table doomed (i int)");
    a.base_backup();
    let mut pieces = Index::load(&a.unlocked).unwrap();
    assert!(pieces.is_empty());
    let mut read = 0;
    for round in 0..4 {
        // A transaction that runs over several segments, so that records and counts cross their borders.
        sql(&format!("insert into keep select g, repeat('{round}', 300) from generate_series(1, 6000) g"));
        sql(&format!("delete from keep where p = repeat('{round}', 300) and i % 2 = 0"));
        if round == 1 {
            sql("create table passing (i int); insert into passing select generate_series(1, 300)");
        }
        if round == 2 {
            sql("drop table passing; drop table doomed");
        }
        a.archive_now();
        read += update(&a, &mut pieces).segments;
    }
    let all = archived(&a);
    assert!(all.len() > 8, "{} segments", all.len());
    assert_eq!(read as usize, all.len(), "each was read once");
    let found = indexes(&a, &pieces);

    // From a fresh start: the same.
    let mut whole = Index::default();
    let (done, _) =
        wal_index::update(&a.unlocked, &mut whole, NameMap::new(), &Unwatched, &CancellationToken::new()).unwrap();
    assert_eq!((done.segments as usize, done.damaged.len()), (all.len(), 0));
    let once = indexes(&a, &whole);
    for (left, right) in found.iter().zip(&once) {
        assert_eq!((&left.segment, left.records, left.commits), (&right.segment, right.records, right.commits));
        assert_eq!(
            (left.first_lsn, left.end_lsn, left.last_commit_lsn),
            (right.first_lsn, right.end_lsn, right.last_commit_lsn)
        );
        let acts = |i: &SegmentIndex| {
            i.suspects
                .iter()
                .map(|s| (s.xid, s.target, s.rows(), s.acts.iter().map(|a| a.deed).collect::<Vec<_>>()))
                .collect::<Vec<_>>()
        };
        assert_eq!(acts(left), acts(right), "{}", left.segment);
    }
    let suspects: Vec<_> = found.iter().flat_map(|i| &i.suspects).collect();
    assert_eq!(suspects.iter().filter(|s| s.rows() == 3000).count(), 4, "{suspects:#?}");
    let dropped: Vec<&str> =
        suspects.iter().flat_map(|s| &s.acts).filter(|a| a.deed == Deed::DropTable).map(|a| a.table.as_str()).collect();
    assert!(dropped.contains(&"public.passing"), "{dropped:?}");

    // The range by the index is the range by the log, and takes no program of the server's.
    let by_index = range(&a.unlocked, &NoPrograms, None, &a.room.path).unwrap();
    assert_eq!(by_index.unread, 0);
    for entry in a.unlocked.repository().store().list("index/").unwrap() {
        a.unlocked.repository().store().delete(&entry.name).unwrap();
    }
    let by_log = range(&a.unlocked, &programs(), None, &a.room.path).unwrap();
    assert!(by_log.unread > 0);
    let key = |r: &breakglass::recovery::range::Reach| {
        let c = r.latest.clone().unwrap();
        (r.earliest, r.earliest_lsn, c.lsn, c.xid, c.at, r.last_segment.clone(), r.end_lsn)
    };
    assert_eq!(key(&by_index), key(&by_log));

    // The axis that the picker shows, from the index alone.
    let mut index = Index::default();
    let cancel = CancellationToken::new();
    let axis = axis::build(&a.unlocked, &NoPrograms, &mut index, Default::default(), &cancel).unwrap();
    let (first, last) = axis.span.unwrap();
    assert_eq!((axis.backups.len(), axis.unread, axis.gaps.len()), (1, 0, 0), "{axis:?}");
    assert_eq!((axis.backups[0].at.min(first), last), (first, by_log.latest.clone().unwrap().at));
    let commits: u64 = found.iter().map(|i| i.commits).sum();
    assert!(axis.suspects.len() >= 4 && axis.cost(first).transactions <= commits + 1, "{axis:?}");
    assert_eq!(axis.cost(last).window, std::time::Duration::ZERO);
    assert!(axis.cost(last).takes.is_some() && axis.cost(last).unreachable.is_none(), "{axis:?}");
    for entry in a.unlocked.repository().store().list("index/").unwrap() {
        a.unlocked.repository().store().delete(&entry.name).unwrap();
    }

    // The command does the same, asks the server for names, and says what it did.
    let run = |args: &[&str]| said(a.command(args).arg("--repository").arg(&a.repository));
    let (code, text) = run(&["wal", "index", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!((code, said["segments"].as_u64().unwrap() as usize), (0, all.len()), "{text}");
    let names = wal_index::names(&a.unlocked).unwrap();
    assert_eq!(names.snapshots().len(), 1, "the server was asked");
    let (code, text) = run(&["wal", "index"]);
    assert_eq!((code, text.trim()), (0, format!("0 segments read, {} known", all.len()).as_str()));
}

/// The object of these bytes under this name, as anybody can make it who may write there.
fn sealed(a: &Archived, name: &str, plain: &[u8]) -> Vec<u8> {
    let spec = Spec::new(ObjectType::WalSegment, a.unlocked.repository().id(), name, Time::from_micros(0));
    let mut writer = Writer::new(Vec::new(), &spec, &[a.unlocked.repository().recipient()]).unwrap();
    std::io::Write::write_all(&mut writer, plain).unwrap();
    writer.finish().unwrap().0
}

/// That a segment which is not what was read is a problem where people ask whether all is well, with the last point before it.
fn in_doctor_and_health(a: &Archived, segment: Segment, status: &str, why: &str) {
    // The last transaction that the index knows before it.
    let before = Index::load(&a.unlocked).unwrap();
    let last =
        before.in_order().filter(|i| i.last_commit_lsn.is_some_and(|l| l.0 < segment.start_lsn(SIZE))).last().unwrap();
    let point = format!("transaction {} of {}", last.last_commit_xid, last.last_commit.unwrap());
    let keeps = format!("--to-after lsn:{}", last.last_commit_lsn.unwrap());
    let (code, text) = a.run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let found = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["level"] == "problem" && c["what"].as_str().unwrap().contains(&segment.to_string()));
    let found = found.unwrap_or_else(|| panic!("{segment}: {report:#}")).to_string();
    assert!(code == 1 && found.contains(why) && found.contains(&point) && found.contains(&keeps), "{point}: {found}");
    let (code, text) = a.run(&["health", "--json"]);
    let json: serde_json::Value =
        serde_json::from_str(&text[text.find('{').unwrap()..=text.rfind('}').unwrap()]).unwrap();
    assert_eq!((code, &json["components"]["segments"]), (1, &status.into()), "{json:#}");
    let detail = json["details"]["segments"].as_str().unwrap();
    assert!(detail.contains(&segment.to_string()) && detail.contains(why) && detail.contains(&keeps), "{detail}");
}

/// Other objects of the very same length in the place of a segment that was read, and the same one written into.
fn exchanged_and_touched(a: &Archived, index: &mut Index, segment: Segment) {
    let name = WalName::Segment(segment).object();
    let path = a.repository.join(&name);
    let good = std::fs::read(&path).unwrap();
    let status = |key: bool| -> (i32, serde_json::Value) {
        let mut c = a.command(&["wal", "status", "--json"]);
        c.env_remove("DATABASE_URL");
        if !key {
            c.env_remove("BACKUP_ENCRYPTION_KEY");
        }
        let (code, text) = said(&mut c);
        (code, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    };
    let reach = || range(&a.unlocked, &programs(), None, &a.room.path).unwrap();
    let began = reach().read_since.unwrap();
    assert!(reach().touched == 0 && reach().exchanged.is_empty());
    let (code, json) = status(true);
    assert_eq!((code, &json["unusable"]), (0, &serde_json::json!([])), "{json:#}");

    // Another segment's, an empty one, one that nobody sealed: by how it begins, with a key and without one.
    let plain = breakglass::backup::wal::fetch::read(&a.unlocked, &WalName::Segment(segment)).unwrap().unwrap();
    let other = Segment::from_number(segment.timeline, segment.number(SIZE) + 1, SIZE);
    let foreign = sealed(a, &WalName::Segment(other).object(), &plain);
    assert_eq!(foreign.len(), good.len());
    for (bytes, why) in [
        (foreign, "objects were swapped or renamed"),
        (Vec::new(), "0 bytes are left"),
        (vec![7; good.len()], "not an object of a breakglass repository"),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let holes = reach().holes;
        assert!(holes.len() == 1 && holes[0].first == segment.to_string() && holes[0].why.contains(why), "{holes:?}");
        for key in [true, false] {
            let (code, json) = status(key);
            let found = &json["unusable"][0];
            assert!(code == 1 && found["first"] == segment.to_string(), "{why}: {json:#}");
            assert!(found["why"].as_str().unwrap().contains(why), "{why}: {json:#}");
            assert_eq!(json["unusable"].as_array().unwrap().len(), 1, "{why}: {json:#}");
        }
        let (_, text) = said(a.command(&["wal", "status"]).env_remove("DATABASE_URL"));
        assert!(text.contains(&format!("UNUSABLE {segment}: ")), "{text}");
        in_doctor_and_health(a, segment, "unusable", why);
    }
    // Of the same name, sealed for the right key: nothing is wrong with it but that it is not the one that was read.
    std::fs::write(&path, sealed(a, &name, &plain)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), good.len() as u64);
    let found = reach();
    assert_eq!((found.exchanged.len(), found.unread, found.holes.len()), (1, 1, 0), "{found:?}");
    let (code, json) = status(true);
    assert_eq!((code, &json["exchanged"][0]), (1, &segment.to_string().into()), "{json:#}");
    assert!(json["problems"].to_string().contains("is another object than the one that was read on 20"), "{json:#}");
    let (code, text) = a.run(&["pitr", "range"]);
    assert!(code == 0 && text.contains(&format!("note      WAL segment {segment} is another object")), "{text}");
    in_doctor_and_health(a, segment, "exchanged", "is another object than the one that was read");
    std::fs::write(&path, &good).unwrap();

    // The same one, written into, the time of its content put back: touched, and read again whoever reads it next.
    assert_eq!(update(a, index).segments, 1);
    assert_eq!(reach().touched, 0);
    let mut rotten = good.clone();
    rotten[good.len() / 2] ^= 1;
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, &rotten).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let found = reach();
    assert_eq!((found.touched, found.exchanged.len(), found.holes.len()), (1, 0, 0), "{found:?}");
    let (_, text) = a.run(&["pitr", "range"]);
    assert!(text.contains("touched   1 segments were written, moved or copied since they were read"), "{text}");
    assert!(text.contains("read      every byte of the log last on 20"), "{text}");
    assert_eq!(update(a, index).damaged.len(), 1);
    let (code, json) = status(true);
    assert!(code == 1 && json["unusable"][0]["first"] == segment.to_string(), "{json:#}");
    in_doctor_and_health(a, segment, "unusable", "");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(update(a, index).segments, 1);
    let (_, text) = a.run(&["health", "--json"]);
    assert!(text.contains("\"segments\": \"operational\""), "{text}");

    // A verification that reads it all says when.
    let (code, text) = a.run(&["backup", "verify", "--all"]);
    assert_eq!(code, 0, "{text}");
    assert!(reach().read_since.unwrap() > began && reach().touched == 0);
    let (code, text) = a.run(&["pitr", "range", "--json"]);
    let json: serde_json::Value =
        serde_json::from_str(&text[text.find('{').unwrap()..=text.rfind('}').unwrap()]).unwrap();
    assert_eq!((code, &json["segments_touched"]), (0, &0.into()), "{text}");
    assert!(json["log_last_read"].is_string(), "{text}");
    let (code, text) = a.run(&["pitr", "check", "--json", "--to", "latest"]);
    assert!(code == 0 && text.contains("\"log_every_byte_read\": true"), "{text}");
    *index = Index::load(&a.unlocked).unwrap();
}

#[test]
fn damage_is_known_and_mending_too_and_an_index_nobody_holding_the_key_wrote_counts_for_nothing() {
    let a = Archived::start("walindexdamage");
    a.cluster.sql("postgres", "create table t (i int)");
    a.base_backup();
    for i in 0..4 {
        a.cluster.sql("postgres", &format!("insert into t values ({i})"));
        a.archive_now();
    }
    let all = archived(&a);
    let (bad, _) = all[all.len() - 2];
    let path = a.repository.join(WalName::Segment(bad).object());
    let good = std::fs::read(&path).unwrap();
    let mut rotten = good.clone();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    std::fs::write(&path, &rotten).unwrap();
    let mut index = Index::load(&a.unlocked).unwrap();
    let done = update(&a, &mut index);
    assert_eq!((done.damaged.len(), done.segments as usize), (1, all.len() - 1), "{done:?}");
    assert!(done.damaged[0].contains(&bad.to_string()), "{done:?}");
    let reach = range(&a.unlocked, &programs(), None, &a.room.path).unwrap();
    assert_eq!(reach.holes.len(), 1, "{:?}", reach.holes);
    assert_eq!(reach.holes[0].first, bad.to_string());
    let before = Segment::from_number(bad.timeline, bad.number(SIZE) - 1, SIZE);
    assert_eq!(reach.last_segment, Some(before.to_string()), "the log ends before what cannot be read");

    // Mended: the next round reads it again, and nothing else.
    std::fs::write(&path, &good).unwrap();
    let done = update(&a, &mut index);
    assert_eq!((done.segments, done.damaged.len()), (1, 0), "{done:?}");
    assert!(range(&a.unlocked, &programs(), None, &a.room.path).unwrap().holes.is_empty());

    exchanged_and_touched(&a, &mut index, bad);

    // An object that is whole but was written without the key.
    let store = a.unlocked.repository().store();
    let name = store.list("index/").unwrap().into_iter().find(|e| !e.name.ends_with("names.bgo")).unwrap().name;
    let lie = br#"{"v":1,"entries":{}}"#;
    let spec = Spec::new(ObjectType::WalIndex, a.unlocked.repository().id(), &name, Time::from_micros(0));
    let mut writer =
        Writer::new(store.create(&name, Access::Group).unwrap(), &spec, &[a.unlocked.repository().recipient()])
            .unwrap();
    std::io::Write::write_all(&mut writer, lie).unwrap();
    writer.finish().unwrap().0.commit(Existing::Replace).unwrap();
    let mut index = Index::load(&a.unlocked).unwrap();
    assert_eq!((index.len(), index.problems.len()), (0, 1), "{:?}", index.problems);
    assert!(index.problems[0].contains("holder"), "{:?}", index.problems);
    assert_eq!(update(&a, &mut index).segments as usize, all.len());
    assert!(Index::load(&a.unlocked).unwrap().problems.is_empty(), "written anew");

    // A segment of another size is another segment; one that retention took away is forgotten.
    let (first, bytes) = all[0];
    assert!(matches!(index.get(first, bytes), Some(Known::Read(_))));
    assert_eq!(index.get(first, bytes + 1), None);
    store.delete(&WalName::Segment(first).object()).unwrap();
    update(&a, &mut index);
    assert_eq!(index.get(first, bytes), None);

    let reaches = ranges(&a.unlocked, &programs(), &a.room.path).unwrap();
    assert_eq!(reaches.iter().map(|r| r.timeline).collect::<Vec<_>>(), [1]);
}

/// What a console does that was opened to look only.
#[test]
fn with_read_only_the_log_is_read_and_nothing_is_kept() {
    use breakglass::action::{Ctx, reach};
    let a = Archived::start("lookonly");
    a.base_backup();
    a.cluster.sql("postgres", "create table t as select 1 as n");
    a.archive_now();
    let room = a.room.path.join("instances");
    let settings = breakglass::config::Settings { read_only: true, ..a.settings(&room) };
    let mut secrets = breakglass::config::Secrets::default();
    secrets.set(
        breakglass::config::settings::REPOSITORY_KEY,
        breakglass::model::Secret::new(crate::support::archived::PASSPHRASE),
    );
    let ctx = Ctx::new(settings, secrets, std::sync::Arc::new(breakglass::action::Nowhere));
    let unlocked = reach::unlocked(&ctx).unwrap();
    let names = || {
        let list = a.unlocked.repository().store().list("").unwrap();
        list.into_iter().map(|e| (e.name, e.size, e.stamp)).collect::<Vec<_>>()
    };
    let before = names();
    let mut index = Index::load(&unlocked).unwrap();
    let look = |index: &mut Index| {
        axis::build(&unlocked, &programs(), index, Default::default(), &CancellationToken::new()).unwrap()
    };
    let seen = look(&mut index);
    assert!(seen.activity.commits.iter().sum::<u32>() > 0 && seen.unread == 0, "what is archived is read: {seen:?}");
    assert_eq!(look(&mut index), seen);
    assert_eq!(names(), before, "nothing was written");
    // Whoever may write keeps it.
    axis::build(&a.unlocked, &programs(), &mut Index::default(), Default::default(), &CancellationToken::new())
        .unwrap();
    assert_ne!(names(), before);
}
