//! Speed of reading the log, in MB/s of WAL: checksums and headers alone, and finding suspects, beside `pg_waldump` on
//! the same segments in the same run. `cargo bench --bench wal`; BREAKGLASS_BENCH_MB sets the size (default 256).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/cluster.rs"]
#[allow(dead_code)]
mod cluster;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use breakglass::postgres::wal::{Reader, Tail};
use breakglass::postgres::{Instance, Stop};
use breakglass::recovery::wal_locate::{NameMap, Rules, Segment, locate, source};
use cluster::{LIMIT, Scratch, programs, psql, server_user};

fn main() {
    let mb: usize = std::env::var("BREAKGLASS_BENCH_MB").ok().and_then(|v| v.parse().ok()).unwrap_or(256);
    let scratch = Scratch::new("walbench");
    let instance = Instance::new(programs(), &scratch.path, server_user()).unwrap();
    instance.create(None).unwrap();
    let settings = [
        ("fsync", "off"),
        ("wal_level", "replica"),
        ("max_wal_size", "8GB"),
        ("wal_keep_size", "8GB"),
        ("checkpoint_timeout", "1h"),
        ("max_wal_senders", "2"),
        ("autovacuum", "off"),
    ]
    .map(|(k, v)| (k.to_string(), v.to_string()));
    instance.configure(&settings, None).unwrap();
    instance.start(LIMIT).unwrap();
    let at = instance.database("postgres");
    let sql = |text: &str| psql(&at, text).unwrap();
    let name = || sql("select pg_walfile_name(pg_switch_wal())");
    sql("create table t (id int primary key, a int, p text)");
    let rows = mb * 2000;
    let mut sets = Vec::new();
    let first = name();
    sql(&format!("insert into t select g, 0, 'x' from generate_series(1, {rows}) g"));
    sets.push(("INSERT narrow rows", first, name()));
    let first = name();
    sql("update t set a = a + 1");
    sets.push(("UPDATE narrow rows", first, name()));
    let first = name();
    sql("checkpoint");
    sql(&format!(
        "create procedure oltp(n int) language plpgsql as $$ begin for i in 1..n loop \
         update t set a = i where id = 1 + (i * 7919) % {rows}; insert into t values ({rows} + i, i, 'new'); commit; \
         end loop; end $$"
    ));
    sql(&format!("call oltp({})", mb * 400));
    sets.push(("small OLTP", first, name()));
    let first = name();
    sql("delete from t where id % 2 = 0");
    sets.push(("DELETE narrow rows", first, name()));
    instance.stop(Stop::Fast, LIMIT).unwrap();

    let dir = instance.layout.data.join("pg_wal");
    let all: Vec<Segment> = source::in_folder(&dir, None, None, true).unwrap().map(|s| s.unwrap()).collect();
    println!("{:<22} {:>7} {:>10} {:>10} {:>12} {:>12}", "WAL", "MB", "read", "locate", "waldump all", "waldump six");
    for (what, first, last) in &sets {
        let part: Vec<&Segment> = all.iter().filter(|s| s.name > *first && s.name <= *last).collect();
        let bytes: usize = part.iter().map(|s| s.bytes.len()).sum();
        let rate = |d: Duration| bytes as f64 / 1e6 / d.as_secs_f64();
        let mut best = [0f64; 4];
        for _ in 0..3 {
            let t = Instant::now();
            let mut reader = Reader::new();
            let mut records = 0u64;
            for s in &part {
                reader
                    .segment(&s.name, &s.bytes, Tail::Whole, |_| {
                        records += 1;
                        Ok(())
                    })
                    .unwrap();
            }
            assert!(records > 1000);
            best[0] = best[0].max(rate(t.elapsed()));
            let given: Vec<_> = part.iter().map(|s| Ok((*s).clone())).collect();
            let t = Instant::now();
            let (report, _) = locate(given, NameMap::new(), Rules::default()).unwrap();
            best[1] = best[1].max(rate(t.elapsed()));
            assert!(report.commits > 0);
            let (from, to) = (&part[0].name, &part[part.len() - 1].name);
            best[2] = best[2].max(rate(waldump(&dir, from, to, &[])));
            let six = ["Heap", "Heap2", "Transaction", "Standby", "Storage", "Database"];
            best[3] = best[3].max(rate(waldump(&dir, from, to, &six)));
        }
        println!(
            "{what:<22} {:>7.0} {:>10.0} {:>10.0} {:>12.0} {:>12.0}",
            bytes as f64 / 1e6,
            best[0],
            best[1],
            best[2],
            best[3]
        );
    }
}

fn waldump(dir: &std::path::Path, from: &str, to: &str, rmgrs: &[&str]) -> Duration {
    let mut c = Command::new(programs().path("pg_waldump"));
    c.arg("-p").arg(dir).arg(from).arg(to).stdout(Stdio::null()).stderr(Stdio::null());
    for r in rmgrs {
        c.args(["-r", r]);
    }
    let t = Instant::now();
    let _ = c.status().unwrap();
    t.elapsed()
}
