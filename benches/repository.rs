//! Backups beside the tools people use today, interleaved in one run: `cargo bench --bench repository`.
//!
//! Prints the median and the range of wall times: a dump against `pg_dump | zstd | age` and `pg_dump > /dev/null`; its
//! restore against `pg_restore -Fd -j2`; a base backup against pgBackRest (encrypted, zstd, two processes); and the speed
//! of verifying in bytes before compression. Peers that are not installed are left out and named.
//!
//! `BREAKGLASS_BENCH_SCALE` sets the size (80: 1.6 GB as `pg_database_size` counts), `BREAKGLASS_BENCH_ROUNDS` the rounds (5).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/cluster.rs"]
#[allow(dead_code)]
mod cluster;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use breakglass::backup::repository::{InitOptions, Repository};
use breakglass::backup::wal::archive_command;
use breakglass::model::Secret;
use breakglass::postgres::Instance;
use cluster::{LIMIT, Scratch, programs, psql, server_user};

const KEY: &str = "a passphrase that is only for the benchmark";

/// Wall times and highest resident memory in KiB, by what was measured.
#[derive(Default)]
struct Times(BTreeMap<&'static str, (Vec<Duration>, u64)>);

impl Times {
    fn add(&mut self, what: &'static str, took: Duration, memory: u64) {
        let (all, most) = self.0.entry(what).or_default();
        all.push(took);
        *most = memory.max(*most);
    }
    fn median(&self, what: &str) -> Option<f64> {
        let mut all = self.0.get(what)?.0.clone();
        all.sort();
        all.get(all.len() / 2).map(Duration::as_secs_f64)
    }
    fn print(&self) {
        for (what, (all, memory)) in &self.0 {
            let (least, most) = (all.iter().min().unwrap().as_secs_f64(), all.iter().max().unwrap().as_secs_f64());
            let memory = if *memory > 0 { format!(", {} MiB", memory / 1024) } else { String::new() };
            println!("{what:<52} {:6.2} s [{least:.2}-{most:.2}]{memory}", self.median(what).unwrap());
        }
    }
    fn ratio(&self, ours: &str, theirs: &str, goal: f64) {
        if let (Some(a), Some(b)) = (self.median(ours), self.median(theirs)) {
            println!("{ours} / {theirs}: {:.2} (goal at most {goal:.2})", a / b);
        }
    }
}

/// Highest resident size of a process in KiB, as the system kept it; 0 once it is gone.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn timed(times: &mut Times, what: &'static str, mut c: Command) {
    let begun = Instant::now();
    let mut child = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut memory = 0;
    while child.try_wait().unwrap().is_none() {
        memory = memory.max(peak(child.id()));
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = begun.elapsed();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{what}: {}", String::from_utf8_lossy(&out.stderr));
    times.add(what, took, memory);
}

fn installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    let found = found.is_ok_and(|s| s.success());
    if !found {
        println!("{program} is not installed: not compared with");
    }
    found
}

fn main() {
    let number = |name: &str, or: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or);
    let (scale, rounds) = (number("BREAKGLASS_BENCH_SCALE", 80), number("BREAKGLASS_BENCH_ROUNDS", 5));
    let scratch = Scratch::new("repobench");
    let instance = Instance::new(programs(), &scratch.path, server_user()).unwrap();
    instance.create(None).unwrap();
    let settings = [
        ("shared_buffers", "1GB"),
        ("max_wal_size", "4GB"),
        ("wal_level", "replica"),
        ("max_wal_senders", "4"),
        ("autovacuum", "off"),
        ("archive_mode", "on"),
        ("archive_command", "true"),
    ]
    .map(|(k, v)| (k.to_string(), v.to_string()));
    instance.configure(&settings, None).unwrap();
    instance.start(LIMIT).unwrap();
    let admin = instance.database("postgres");
    psql(&admin, "create database shop").unwrap();
    let at = instance.database("shop");
    fill(&instance, scale);
    println!("data: {} MB", psql(&at, "select pg_database_size('shop') / 1000000").unwrap());

    let sockets = instance.layout.sockets.display().to_string();
    let bin = instance.programs.bin_dir.display().to_string();
    let tool = |line: &str| {
        let mut c = Command::new("bash");
        c.args(["-o", "pipefail", "-c", line]).current_dir(&scratch.path);
        c.env("PGHOST", &sockets).env("PGPORT", instance.port.to_string()).env("PGUSER", "postgres");
        c.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()));
        c
    };
    let ours = |repository: &Path, args: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(args).env("BREAKGLASS_HOME", scratch.path.join("home")).env("BACKUP_DIR", repository);
        c.env("BACKUP_ENCRYPTION_KEY", KEY)
            .env("DATABASE_URL", url(&sockets, instance.port))
            .current_dir(&scratch.path);
        c
    };
    let (age, pgbackrest) = (installed("age"), installed("pgbackrest"));
    if age {
        run(tool("age-keygen -o age.key && grep -o 'age1.*' age.key > age.pub"));
    }
    run(tool("pg_dump -Fd -j2 -f plain.dir shop"));
    let here = scratch.path.display();
    let rest = format!(
        "PGBACKREST_REPO1_CIPHER_PASS='{KEY}' pgbackrest --stanza=b --pg1-path={} --pg1-socket-path={sockets} --pg1-port={} \
         --pg1-user=postgres --repo1-path={}/rest --repo1-cipher-type=aes-256-cbc --log-path={here} --lock-path={here}/lock \
         --log-level-file=off",
        instance.layout.data.display(),
        instance.port,
        here,
    );
    let mut times = Times::default();
    let repository = scratch.path.join("repository");
    let place = repository.display().to_string();
    let archive = archive_command(Path::new(env!("CARGO_BIN_EXE_breakglass")), &place).unwrap();
    psql(&admin, &format!("alter system set archive_command = '{}'", archive.replace('\'', "''"))).unwrap();
    let wal_owner = server_user().map(|u| (u.uid, u.gid));
    for _ in 0..rounds {
        // A fresh repository each round, as the peers write fresh files.
        let options = InitOptions { wal_owner, ..InitOptions::default() };
        Repository::init(&place, &Secret::new(KEY), &options).unwrap();
        psql(&admin, "select pg_reload_conf()").unwrap();
        timed(&mut times, "dump: breakglass", ours(&repository, &["backup", "create", "--logical"]));
        timed(&mut times, "dump: pg_dump -Fc -Z0 > /dev/null", tool("pg_dump -Fc -Z0 shop > /dev/null"));
        if age {
            let line = "pg_dump -Fc -Z0 shop | zstd -3 -T2 | age -R age.pub > dump.age && sync dump.age";
            timed(&mut times, "dump: pg_dump | zstd -3 -T2 | age", tool(line));
        }
        timed(&mut times, "verify: breakglass", ours(&repository, &["backup", "verify", "--all"]));
        let into = ["backup", "restore", "latest", "--into", "back", "--jobs", "2"];
        timed(&mut times, "restore: breakglass -j2", ours(&repository, &into));
        run(tool("dropdb back"));
        let line = "createdb plain && pg_restore -Fd -j2 -d plain plain.dir";
        timed(&mut times, "restore: pg_restore -Fd -j2", tool(line));
        run(tool("dropdb plain"));
        timed(&mut times, "base: breakglass", ours(&repository, &["backup", "create", "--physical"]));
        if pgbackrest {
            let fresh = format!("rm -rf rest lock; mkdir lock; {rest} --no-online stanza-create");
            run(tool(&fresh));
            let full = "--type=full --start-fast --no-archive-check --compress-type=zst --process-max=2 backup";
            timed(&mut times, "base: pgbackrest full", tool(&format!("{rest} {full}")));
        }
        std::fs::remove_dir_all(&repository).unwrap();
    }
    times.print();
    times.ratio("dump: breakglass", "dump: pg_dump | zstd -3 -T2 | age", 0.90);
    times.ratio("dump: breakglass", "dump: pg_dump -Fc -Z0 > /dev/null", 1.25);
    times.ratio("restore: breakglass -j2", "restore: pg_restore -Fd -j2", 1.10);
    times.ratio("base: breakglass", "base: pgbackrest full", 0.80);
    let out = tool("pg_dump -Fc -Z0 shop | wc -c").output().unwrap();
    let bytes: f64 = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap();
    println!(
        "verify: {:.2} GB/s of the dump (goal at least 1.5)",
        bytes / times.median("verify: breakglass").unwrap() / 1e9
    );
}

fn url(sockets: &str, port: u16) -> String {
    format!("postgres://postgres@{}:{port}/shop", sockets.replace('/', "%2F"))
}

fn run(mut c: Command) {
    let out = c.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{c:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// pgbench's tables, and 8 750 events per unit of scale with prose, uuid and jsonb in them.
fn fill(instance: &Instance, scale: usize) {
    let at = instance.database("shop");
    let mut c = Command::new(instance.programs.bin_dir.join("pgbench"));
    c.args(["-i", "-q", "-s", &scale.to_string()]).env_clear().current_dir("/");
    for (name, value) in at.tool_env() {
        c.env(name, value.expose());
    }
    run(c);
    psql(
        &at,
        &format!(
            "create table events (id bigserial primary key, at timestamptz, kind text, who uuid, prose text, doc jsonb); \
             insert into events (at, kind, who, prose, doc) \
             select now() - g * interval '1 second', (array['order','login','refund','search'])[1 + g % 4], \
             gen_random_uuid(), \
             (select string_agg((array['invoice','shipped','the','customer','parcel','and','later','asked','for','a', \
             'refund','of','damaged','goods','by','phone'])[1 + (hashint4(g * 31 + w) & 15)], ' ') \
             from generate_series(1, 40) w), \
             jsonb_build_object('ip', '10.' || g % 250 || '.' || g / 250 % 250 || '.1', 'ua', 'agent/' || g % 17, \
             'tags', jsonb_build_array('a' || g % 7, 'b' || g % 11), 'session', md5(g::text)) \
             from generate_series(1, {}) g; \
             create index on events (at); create index on events (who); analyze",
            scale * 8750
        ),
    )
    .unwrap();
}
