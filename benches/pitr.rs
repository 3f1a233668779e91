//! Point-in-time recovery and comparison beside the tools people use today, interleaved in one run:
//! `cargo bench --bench pitr`.
//!
//! A recovery is timed from the first command to the first answer of the promoted server: files, log, promotion. It is held
//! against pgBackRest (encrypted, zstd, two processes, with and without asynchronous archive-get) and against a plain copy
//! with `cp` as `restore_command`. A comparison is held against one `hash_record_extended` per row on both sides.
//! Every recovery must hold exactly what was committed before its target.
//!
//! `BREAKGLASS_BENCH_SCALE` sets the size (80: 1.6 GB), `BREAKGLASS_BENCH_WAL` the megabytes of log to replay (1200),
//! `BREAKGLASS_BENCH_ROUNDS` the rounds (5); with `BREAKGLASS_BENCH_SAY=1` ours says when it said what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/cluster.rs"]
#[allow(dead_code)]
mod cluster;
mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use breakglass::backup::repository::{InitOptions, Repository, Unlocked};
use breakglass::backup::wal::archive_command;
use breakglass::model::Secret;
use breakglass::postgres::{Database, Instance};
use breakglass::recovery::origin::Origin;
use breakglass::recovery::shadow::Shadow;
use cluster::{LIMIT, Scratch, programs, psql, server_user};
use support::{Times, fill, installed, number, pgbench, run, timed, url};

const KEY: &str = "a passphrase that is only for the benchmark";
const OURS: &str = "recovery: breakglass";
const FLOOR: &str = "recovery: cp -a and restore_command = cp";
const ASYNC: &str = "recovery: pgbackrest, archive-async";
const SYNC: &str = "recovery: pgbackrest";

/// Everything one run works on.
struct Bench {
    scratch: Scratch,
    instance: Instance,
    times: Times,
    target: String,
    wanted: String,
    unlocked: Unlocked,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path.join(name)
    }

    /// A shell line as the server's user, with its programs.
    fn tool(&self, line: &str) -> Command {
        tool(&self.scratch, &self.instance, line)
    }

    fn ours(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_breakglass"));
        let sockets = self.instance.layout.sockets.display().to_string();
        c.args(args).env("BREAKGLASS_HOME", self.path("home")).env("BACKUP_DIR", self.path("repository"));
        c.env("BACKUP_ENCRYPTION_KEY", KEY).env("DATABASE_URL", url(&sockets, self.instance.port));
        c.current_dir(&self.scratch.path);
        c
    }

    /// The first answer of a recovered server must hold what was committed before the target, and no more.
    fn check(&self, what: &str, at: &Database) {
        let got = psql(at, COUNT).unwrap();
        assert_eq!(got, self.wanted, "{what} did not recover to the target");
    }

    /// A recovery by other means: `files` brings the data directory, `fetch` is the restore_command.
    fn peer(&mut self, what: &'static str, files: &str, fetch: Option<&str>) {
        let begun = Instant::now();
        run(self.tool(files));
        let brought = begun.elapsed();
        let mut lines = format!(
            "shared_buffers = 1GB\nmax_wal_size = 4GB\nautovacuum = off\narchive_mode = off\nhba_file = '{}/hba'\nport = {}\nunix_socket_directories = '{}'\nrecovery_target_time = '{}'\n\
             recovery_target_action = promote\n",
            self.scratch.path.display(),
            self.instance.port + 1,
            self.instance.layout.sockets.display(),
            self.target.replacen('T', " ", 1).replace('Z', "+00")
        );
        if let Some(fetch) = fetch {
            lines += &format!("restore_command = '{fetch}'\n");
        }
        let data = self.path("other");
        append(&data.join("postgresql.auto.conf"), &lines);
        if fetch.is_some() {
            run(self.tool("touch other/recovery.signal"));
        }
        run(self.tool("pg_ctl -s -w -t 600 -D other -l other.log start || { tail -5 other.log >&2; exit 1; }"));
        let at = self.instance.database("shop").moved_to(&self.instance.layout.sockets, self.instance.port + 1);
        ended(what, &at);
        self.check(what, &at);
        self.times.add(what, begun.elapsed(), 0);
        println!("{what}: files {:.2} s, in all {:.2} s", brought.as_secs_f64(), begun.elapsed().as_secs_f64());
        run(self.tool("pg_ctl -s -w -m immediate -D other stop; rm -rf other spool; mkdir spool"));
    }

    fn ours_to(&mut self, to: &str, promote: bool) -> Shadow {
        let root = self.path("shadow");
        let begun = Instant::now();
        let mut restore = self.ours(&["pitr", "restore", "--to", to, "--dir", &root.display().to_string()]);
        if std::env::var_os("BREAKGLASS_BENCH_SAY").is_some() {
            // When each line was said.
            let mut child = restore.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            for line in BufReader::new(child.stderr.take().unwrap()).lines() {
                println!("{:7.2} s  {}", begun.elapsed().as_secs_f64(), line.unwrap());
            }
            assert!(child.wait().unwrap().success());
        } else {
            run(restore);
        }
        let shadow = Shadow::load(&root).unwrap();
        if promote {
            let stood = begun.elapsed();
            // The end of the recovery asks for the archived log once more.
            let instance = shadow.instance().unwrap();
            let _service = self.unlocked.serve(&instance, &shadow.helper).unwrap();
            // As `recovery::promote::end_recovery` does: one that stands paused has to be woken.
            let at = shadow.database("shop").unwrap();
            psql(&at, "select pg_promote(false)").unwrap();
            let _ = psql(&at, "select pg_wal_replay_resume()");
            ended(OURS, &at);
            self.check(OURS, &at);
            self.times.add(OURS, begun.elapsed(), 0);
            println!(
                "{OURS}: files {:.2} s, log {:.2} s, shadow stands {:.2} s, in all {:.2} s",
                shadow.files_ms as f64 / 1e3,
                shadow.replay_ms as f64 / 1e3,
                stood.as_secs_f64(),
                begun.elapsed().as_secs_f64()
            );
            run(self.ours(&["pitr", "discard", "--shadow", &root.display().to_string()]));
        }
        shadow
    }
}

/// Waits until a server's recovery has ended.
fn ended(what: &str, at: &Database) {
    let deadline = Instant::now() + LIMIT;
    while psql(at, "select pg_is_in_recovery()").as_deref() != Ok("f") {
        assert!(Instant::now() < deadline, "{what} never ended its recovery");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What tells one state of the data from another.
const COUNT: &str = "select count(*) || ' ' || sum(delta) from pgbench_history";

fn tool(scratch: &Scratch, instance: &Instance, line: &str) -> Command {
    let mut c = Command::new("bash");
    c.args(["-o", "pipefail", "-c", line]).current_dir(&scratch.path);
    c.env("PGHOST", &instance.layout.sockets).env("PGPORT", instance.port.to_string()).env("PGUSER", "postgres");
    c.env("PATH", format!("{}:{}", instance.programs.bin_dir.display(), std::env::var("PATH").unwrap()));
    if let Some(user) = server_user() {
        c.uid(user.uid).gid(user.gid);
    }
    c
}

fn append(file: &Path, text: &str) {
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A folder of the server's user.
fn folder(path: &Path) {
    std::fs::create_dir(path).unwrap();
    if let Some(user) = server_user() {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

fn main() {
    let (scale, rounds) = (number("BREAKGLASS_BENCH_SCALE", 80), number("BREAKGLASS_BENCH_ROUNDS", 5));
    let megabytes = number("BREAKGLASS_BENCH_WAL", 1200);
    let rest = installed("pgbackrest");
    let scratch = Scratch::new("pitrbench");
    let instance = Instance::new(programs(), &scratch.path.join("server"), server_user()).unwrap();
    instance.create(None).unwrap();
    for name in ["plain", "rest", "lock", "spool"] {
        folder(&scratch.path.join(name));
    }
    if let Some(user) = server_user() {
        std::os::unix::fs::chown(&scratch.path, Some(user.uid), Some(user.gid)).unwrap();
    }
    let place = scratch.path.join("repository").display().to_string();
    let owner = server_user().map(|u| (u.uid, u.gid));
    Repository::init(&place, &Secret::new(KEY), &InitOptions { wal_owner: owner, ..InitOptions::default() }).unwrap();
    let here = scratch.path.display().to_string();
    let stanza = |data: &str, more: &str| {
        format!(
            "[global]\nrepo1-path={here}/rest\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={KEY}\ncompress-type=zst\n\
             compress-level=3\nprocess-max=2\nstart-fast=y\nlog-level-file=off\nlock-path={here}/lock\nspool-path={here}/spool\n\
             {more}[b]\npg1-path={data}\npg1-socket-path={}\npg1-port={}\npg1-user=postgres\n",
            instance.layout.sockets.display(),
            instance.port
        )
    };
    let data = instance.layout.data.display().to_string();
    let write = |name: &str, text: String| std::fs::write(scratch.path.join(name), text).unwrap();
    write("source.conf", stanza(&data, ""));
    write("hba", "local all all trust\nlocal replication all trust\n".into());
    write("sync.conf", stanza(&format!("{here}/other"), ""));
    write("async.conf", stanza(&format!("{here}/other"), "archive-async=y\n"));
    let mut archive = archive_command(Path::new(env!("CARGO_BIN_EXE_breakglass")), &place, None).unwrap();
    archive += &format!(" && cp %p {here}/plain/%f");
    if rest {
        archive += &format!(" && pgbackrest --config={here}/source.conf --stanza=b archive-push %p");
    }
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

    if rest {
        run(tool(&scratch, &instance, "pgbackrest --config=$PWD/source.conf --stanza=b stanza-create"));
    }
    psql(&admin, &format!("alter system set archive_command = '{}'", archive.replace('\'', "''"))).unwrap();
    psql(&admin, "select pg_reload_conf()").unwrap();
    let mut bench = Bench {
        scratch,
        instance,
        times: Times::default(),
        target: String::new(),
        wanted: String::new(),
        unlocked: Repository::open(&place).unwrap().unlock(&Secret::new(KEY)).unwrap(),
    };
    run(bench.ours(&["backup", "create", "--physical"]));
    run(bench.tool("pg_basebackup -D base -c fast -X none --no-sync"));
    if rest {
        run(bench.tool("pgbackrest --config=$PWD/source.conf --stanza=b --type=full backup"));
    }
    let begun = psql(&admin, "select pg_current_wal_lsn()").unwrap();
    let written = || -> usize {
        psql(&admin, &format!("select ((pg_current_wal_lsn() - '{begun}') / 1000000)::int8")).unwrap().parse().unwrap()
    };
    while written() < megabytes * 3 / 4 {
        pgbench(&bench.instance, &["-n", "-c", "4", "-j", "2", "-t", "2000"]);
    }
    for turn in 0.. {
        if written() >= megabytes {
            break;
        }
        psql(&at, &format!("update events set kind = 'turn {turn}' where id % 20 = {turn} % 20")).unwrap();
    }
    bench.wanted = psql(&at, COUNT).unwrap();
    let utc = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    bench.target = psql(&at, utc).unwrap();
    println!("log: {} MB up to {}", written(), bench.target);
    pgbench(&bench.instance, &["-n", "-c", "4", "-j", "2", "-t", "100"]);
    let last = psql(&admin, "select pg_walfile_name(pg_switch_wal())").unwrap();
    let deadline = Instant::now() + LIMIT * 3;
    while psql(&admin, "select coalesce(last_archived_wal, '') from pg_stat_archiver").unwrap() < last {
        assert!(Instant::now() < deadline, "{last} was not archived: {}", bench.instance.log_tail(5));
        std::thread::sleep(Duration::from_millis(50));
    }

    for _ in 0..rounds {
        bench.ours_to(&format!("time:{}", bench.target.clone()), true);
        let fetch = format!("cp {here}/plain/%f %p");
        bench.peer(FLOOR, "cp -a base other", Some(&fetch));
        for (what, conf) in [(ASYNC, "async.conf"), (SYNC, "sync.conf")] {
            if rest {
                let get = format!("pgbackrest --config={here}/{conf} --stanza=b archive-get %f \"%p\"");
                let files = format!(
                    "mkdir -m 700 other && pgbackrest --config=$PWD/{conf} --stanza=b --type=time '--target={}' \
                     --target-action=promote '--recovery-option=restore_command={get}' restore",
                    bench.target.replacen('T', " ", 1).replace('Z', "+00")
                );
                bench.peer(what, &files, None);
            }
        }
    }

    // Both sides the same, so that nothing is there to be looked for.
    let shadow = bench.ours_to("latest", false);
    let other = shadow.database("shop").unwrap();
    let (root, source) = (bench.path("shadow").display().to_string(), bench.instance.database("shop"));
    for _ in 0..rounds {
        let ours = bench.ours(&["compare", "source", &root]);
        timed(&mut bench.times, "compare: breakglass", ours);
        let begun = Instant::now();
        let mut sides: Vec<_> = [&source, &other].into_iter().map(hashes).collect();
        let sums: Vec<_> = sides.drain(..).map(|side| side.wait_with_output().unwrap()).collect();
        bench.times.add("compare: hash_record_extended of every row", begun.elapsed(), 0);
        assert!(sums.iter().all(|o| o.status.success()) && sums[0].stdout == sums[1].stdout);
    }
    run(bench.ours(&["pitr", "discard", "--shadow", &root]));
    bench.times.print();
    bench.times.ratio(OURS, ASYNC, 0.85);
    bench.times.ratio(OURS, SYNC, 0.72);
    bench.times.ratio(OURS, FLOOR, 1.28);
    bench.times.ratio("compare: breakglass", "compare: hash_record_extended of every row", 1.15);
}

/// One side of the floor: count and sum of hashes of every table, one after the other.
fn hashes(at: &Database) -> std::process::Child {
    let tables = ["pgbench_accounts", "events", "pgbench_history", "pgbench_tellers", "pgbench_branches"];
    let sql: Vec<String> = tables
        .iter()
        .map(|t| format!("select count(*), sum(hash_record_extended(t, 0)::numeric) from {t} t"))
        .collect();
    let mut c = Command::new(programs().path("psql"));
    c.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", &sql.join("; ")]).env_clear().current_dir("/");
    for (name, value) in at.tool_env() {
        c.env(name, value.expose());
    }
    c.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}
