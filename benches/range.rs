//! What the index of the log is for: the range of an archive of thousands of segments, with and without it, and how fast it
//! is made. `cargo bench --bench range`; BREAKGLASS_BENCH_SEGMENTS sets how many segments of 1 MB (default 3000).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/cluster.rs"]
#[allow(dead_code)]
mod cluster;

use std::time::{Duration, Instant};

use breakglass::backup::base::store_base;
use breakglass::backup::catalog::Catalog;
use breakglass::backup::keys::KdfCost;
use breakglass::backup::repository::{InitOptions, Repository};
use breakglass::backup::wal::{Listing, WalName, archive_into};
use breakglass::model::Secret;
use breakglass::postgres::{BaseBackup, Instance, Stop};
use breakglass::recovery::range::{range, ranges};
use breakglass::recovery::wal_index::{self, Index};
use breakglass::recovery::wal_locate::{NameMap, index::overview};
use breakglass::recovery::watch::Unwatched;
use cluster::{LIMIT, Scratch, programs, psql, server_user};
use tokio_util::sync::CancellationToken;

fn main() {
    let count: usize = std::env::var("BREAKGLASS_BENCH_SEGMENTS").ok().and_then(|v| v.parse().ok()).unwrap_or(3000);
    let scratch = Scratch::new("rangebench");
    let instance = Instance::new(programs(), &scratch.path, server_user()).unwrap();
    instance.create(Some(1)).unwrap();
    let settings = [
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("wal_level", "replica"),
        ("wal_keep_size", "100GB"),
        ("max_wal_size", "100GB"),
        ("checkpoint_timeout", "1h"),
        ("max_wal_senders", "4"),
        ("autovacuum", "off"),
    ]
    .map(|(k, v)| (k.to_string(), v.to_string()));
    instance.configure(&settings, None).unwrap();
    instance.start(LIMIT).unwrap();
    let at = instance.database("postgres");
    let secret = Secret::new("correct horse battery staple 0123456789");
    let url = scratch.path.join("repository").display().to_string();
    let options = InitOptions { kdf: KdfCost { memory_kib: 64, passes: 1, lanes: 1 }, ..Default::default() };
    let unlocked = Repository::init(&url, &secret, &options).unwrap().unlock(&secret).unwrap();
    psql(
        &at,
        "create table t (id serial primary key, p text); insert into t (p) select 'x' from generate_series(1, 1000)",
    )
    .unwrap();
    let mut backups = 0;
    let mut backup = |what: &str| {
        let mut stream = BaseBackup::start(&programs(), &at, what, None).unwrap();
        let pending = store_base(&unlocked, &mut stream, Some(what), &mut |_| Ok(())).unwrap();
        stream.finish().unwrap();
        pending.commit().unwrap();
        backups += 1;
    };
    psql(
        &at,
        "create procedure fill(n int) language plpgsql as $$ begin for i in 1..n loop for j in 1..20 loop \
         insert into t (p) values ('some text'); commit; end loop; perform pg_switch_wal(); end loop; end $$",
    )
    .unwrap();
    for i in 0..10 {
        backup(&format!("b{i}"));
        psql(&at, &format!("call fill({})", count / 10)).unwrap();
    }
    psql(&at, "select pg_switch_wal()").unwrap();
    let last = psql(&at, "select pg_walfile_name(pg_current_wal_lsn())").unwrap();
    instance.stop(Stop::Fast, LIMIT).unwrap();
    let dir = instance.layout.data.join("pg_wal");
    let mut names: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().into_string().ok())
        .filter(|n| n.len() == 24 && *n < last)
        .collect();
    names.sort();
    let began = Instant::now();
    for name in &names {
        archive_into(unlocked.repository(), &dir.join(name), &WalName::parse(name).unwrap()).unwrap();
    }
    let per = began.elapsed() / names.len() as u32;
    println!("{} segments, {backups} backups; archived in {per:.1?} each (fsync on)", names.len());

    let scratch = scratch.path.clone();
    let best = |what: &str, f: &mut dyn FnMut()| {
        let mut all: Vec<Duration> = Vec::new();
        for _ in 0..5 {
            let t = Instant::now();
            f();
            all.push(t.elapsed());
        }
        all.sort();
        println!("{what:<44} {:>9.1?} [{:.1?}-{:.1?}]", all[2], all[0], all[4]);
    };
    let programs = breakglass::postgres::WhenNeeded::new(None);
    best("range, no index", &mut || assert!(range(&unlocked, &programs, None, &scratch).unwrap().latest.is_some()));
    let began = Instant::now();
    let mut index = Index::default();
    let (done, _) =
        wal_index::update(&unlocked, &mut index, NameMap::new(), &Unwatched, &CancellationToken::new()).unwrap();
    assert!(done.damaged.is_empty(), "{:?}", done.damaged);
    let took = began.elapsed();
    println!("index of {} segments made in {took:.1?}, {:.1?} each", done.segments, took / done.segments as u32);
    let stored: u64 = unlocked.repository().store().list("index/").unwrap().iter().map(|e| e.size).sum();
    println!("index as stored: {stored} bytes");
    best("index loaded", &mut || assert!(!Index::load(&unlocked).unwrap().is_empty()));
    best("range with the index", &mut || {
        assert_eq!(range(&unlocked, &programs, None, &scratch).unwrap().unread, 0);
    });
    best("catalog loaded", &mut || assert!(!Catalog::load(&unlocked).unwrap().backups.is_empty()));
    best("archive listed", &mut || assert!(!Listing::read(unlocked.repository()).unwrap().timelines().is_empty()));
    best("ranges of all timelines", &mut || assert_eq!(ranges(&unlocked, &programs, &scratch).unwrap().len(), 1));
    best("index loaded and joined to a time axis", &mut || {
        let index = Index::load(&unlocked).unwrap();
        let all: Vec<_> = index.in_order().cloned().collect();
        assert!(overview(&all, 1 << 20).commits > 0);
    });
}
