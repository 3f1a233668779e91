//! Backups beside the tools people use today, interleaved in one run: `cargo bench --bench repository`.
//!
//! Prints the median and the range of wall times: a dump against `pg_dump | zstd | age` and `pg_dump > /dev/null`; its
//! restore against `pg_restore -Fd -j2` of an uncompressed directory; a base backup against pgBackRest (encrypted, zstd, two
//! processes); and the speed of verifying in bytes before compression, with and without unlocking the repository. Below each of
//! ours stands where its time goes, and the processor time it took. Peers that are not installed are left out and named.
//!
//! Every measurement begins after a checkpoint. WAL is archived into the repository only while base backups are taken: what one
//! restore leaves to be archived would be paid for by whatever is measured next.
//!
//! `BREAKGLASS_BENCH_SCALE` sets the size (80: 1.6 GB as `pg_database_size` counts), `BREAKGLASS_BENCH_ROUNDS` the rounds (5);
//! those take about seven minutes on two quiet cores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/cluster.rs"]
#[allow(dead_code)]
mod cluster;
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use breakglass::backup::repository::{InitOptions, Repository};
use breakglass::backup::wal::archive_command;
use breakglass::model::Secret;
use breakglass::postgres::Instance;
use cluster::{LIMIT, Scratch, programs, psql, server_user};
use support::{Times, fill, installed, number, peak, run, timed, url};

const KEY: &str = "a passphrase that is only for the benchmark";

/// Processor time of a process, in the system's hundredths of a second; zero once it is gone.
fn busy(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Runs our own program; `stages` are the first words of lines it says on its way, and what it did up to each. What it held in
/// memory after its key was derived is kept in `settled`, in KiB.
fn ours_timed(
    times: &mut Times,
    settled: &mut BTreeMap<&'static str, u64>,
    what: &'static str,
    mut c: Command,
    stages: &[(&str, &str)],
) {
    let begun = Instant::now();
    let mut child = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let (send, said) = channel::<(Duration, String)>();
    let err = child.stderr.take().unwrap();
    let listener = std::thread::spawn(move || {
        for line in BufReader::new(err).lines().map_while(Result::ok) {
            let _ = send.send((begun.elapsed(), line));
        }
    });
    let (mut memory, mut took_busy) = ((0, 0), Duration::ZERO);
    let mut lines: Vec<(Duration, String)> = Vec::new();
    let mut derived = false;
    while child.try_wait().unwrap().is_none() {
        lines.extend(said.try_iter());
        let now = peak(pid);
        memory.0 = memory.0.max(now);
        if derived {
            memory.1 = memory.1.max(now);
        } else if lines.iter().any(|(_, l)| l.contains(stages.first().map_or("\0", |s| s.0))) {
            // From here on the highest is counted anew.
            derived = std::fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok();
        }
        took_busy = took_busy.max(busy(pid));
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = begun.elapsed();
    let status = child.wait().unwrap();
    listener.join().unwrap();
    lines.extend(said.try_iter());
    let words: Vec<&str> = lines.iter().map(|(_, l)| l.as_str()).collect();
    assert!(status.success(), "{what}: {}", words.join(" | "));
    times.add(what, took, memory.0);
    times.part(what, "processor time", took_busy);
    let most = settled.entry(what).or_default();
    *most = memory.1.max(*most);
    let mut before = Duration::ZERO;
    for (begins, did) in stages.iter().copied().chain([("", "to the end")]) {
        let at = match begins {
            "" => took,
            _ => match lines.iter().find(|(_, l)| l.contains(begins)) {
                Some((at, _)) => *at,
                None => continue,
            },
        };
        times.part(what, did, at.saturating_sub(before));
        before = at;
    }
}

fn main() {
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
    run(tool("pg_dump -Fd -j2 -Z0 -f plain.dir shop"));
    let here = scratch.path.display();
    let rest = format!(
        "PGBACKREST_REPO1_CIPHER_PASS='{KEY}' pgbackrest --stanza=b --pg1-path={} --pg1-socket-path={sockets} --pg1-port={} \
         --pg1-user=postgres --repo1-path={}/rest --repo1-cipher-type=aes-256-cbc --log-path={here} --lock-path={here}/lock \
         --log-level-file=off",
        instance.layout.data.display(),
        instance.port,
        here,
    );
    let (mut times, mut settled) = (Times::default(), BTreeMap::new());
    let repository = scratch.path.join("repository");
    let place = repository.display().to_string();
    let archive = archive_command(Path::new(env!("CARGO_BIN_EXE_breakglass")), &place, None).unwrap();
    let archiving = |command: &str| {
        psql(&admin, &format!("alter system set archive_command = '{}'", command.replace('\'', "''"))).unwrap();
        psql(&admin, "select pg_reload_conf()").unwrap();
    };
    let settle = || psql(&admin, "checkpoint").unwrap();
    let wal_owner = server_user().map(|u| (u.uid, u.gid));
    for _ in 0..rounds {
        // A fresh repository each round, as the peers write fresh files.
        let options = InitOptions { wal_owner, ..InitOptions::default() };
        Repository::init(&place, &Secret::new(KEY), &options).unwrap();
        settle();
        let create = ours(&repository, &["backup", "create", "--logical"]);
        let stages = [(" dump of ", "key and server asked"), ("stored ", "dumped, packed, sealed, stored")];
        ours_timed(&mut times, &mut settled, "dump: breakglass", create, &stages);
        settle();
        timed(&mut times, "dump: pg_dump -Fc -Z0 > /dev/null", tool("pg_dump -Fc -Z0 shop > /dev/null"));
        if age {
            settle();
            let line = "pg_dump -Fc -Z0 shop | zstd -3 -T2 | age -R age.pub > dump.age && sync dump.age";
            timed(&mut times, "dump: pg_dump | zstd -3 -T2 | age", tool(line));
        }
        ours_timed(
            &mut times,
            &mut settled,
            "verify: breakglass",
            ours(&repository, &["backup", "verify", "--all"]),
            &[],
        );
        ours_timed(
            &mut times,
            &mut settled,
            "verify: of that, to unlock and list",
            ours(&repository, &["backup", "list"]),
            &[],
        );
        settle();
        let into = ["backup", "restore", "latest", "--into", "back", "--jobs", "2"];
        let stages = [("verified in", "verified into a scratch file"), ("loaded in", "loaded by pg_restore -j2")];
        ours_timed(&mut times, &mut settled, "restore: breakglass -j2", ours(&repository, &into), &stages);
        run(tool("dropdb back"));
        settle();
        let line = "createdb plain && pg_restore -Fd -j2 -d plain plain.dir";
        timed(&mut times, "restore: pg_restore -Fd -j2", tool(line));
        run(tool("dropdb plain"));
        archiving(&archive);
        settle();
        let stages = [("base backup of", "key and server asked"), ("stored ", "copied, packed, sealed, stored")];
        ours_timed(
            &mut times,
            &mut settled,
            "base: breakglass",
            ours(&repository, &["backup", "create", "--physical"]),
            &stages,
        );
        archiving("true");
        if pgbackrest {
            let fresh = format!("rm -rf rest lock; mkdir lock; {rest} --no-online stanza-create");
            run(tool(&fresh));
            let full = "--type=full --start-fast --no-archive-check --compress-type=zst --process-max=2 backup";
            settle();
            timed(&mut times, "base: pgbackrest full", tool(&format!("{rest} {full}")));
        }
        // A segment may still be on its way into it.
        while std::fs::remove_dir_all(&repository).is_err() && repository.exists() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    times.print();
    for (what, memory) in settled.iter().filter(|(_, memory)| **memory > 0) {
        println!("{what}: {} MiB after the key was derived", memory / 1024);
    }
    times.ratio("dump: breakglass", "dump: pg_dump | zstd -3 -T2 | age", 0.90);
    times.ratio("dump: breakglass", "dump: pg_dump -Fc -Z0 > /dev/null", 1.25);
    times.ratio("restore: breakglass -j2", "restore: pg_restore -Fd -j2", 1.10);
    times.ratio("base: breakglass", "base: pgbackrest full", 0.80);
    let out = tool("pg_dump -Fc -Z0 shop | wc -c").output().unwrap();
    let bytes: f64 = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap();
    let whole = times.median("verify: breakglass").unwrap();
    let unlocking = times.median("verify: of that, to unlock and list").unwrap();
    println!(
        "verify: {:.2} GB/s of the dump, {:.2} GB/s without unlocking (goal at least 1.5)",
        bytes / whole / 1e9,
        bytes / (whole - unlocking).max(0.001) / 1e9
    );
}
