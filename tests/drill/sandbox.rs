//! Making, damaging and removing a sandbox; the umpire's secret and its independence.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use breakglass::drill::control::Control;
use breakglass::drill::leftovers;
use breakglass::drill::logs::{self, InjectorLine, Known, OrderLine};
use breakglass::drill::release::Window;
use breakglass::drill::sandbox::{Options, Sandbox};
use breakglass::drill::scratch;
use breakglass::drill::traffic::Shape;
use breakglass::error::ErrorKind;

/// A place of this test alone, so that no other test's drill is seen as a leftover.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("p-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711)).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = leftovers::remove(&entry.path());
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A toy sandbox: 2 000 orders, quick traffic.
pub fn options(place: &Place) -> Options {
    let mut o = Options::new().unwrap();
    o.size = 0;
    o.places = vec![place.0.clone()];
    o.executable = env!("CARGO_BIN_EXE_breakglass").into();
    o.shape = Shape { writers: 3, per_second: 20 };
    o
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn psql(sandbox: &Sandbox, sql: &str) -> String {
    let f = sandbox.facts();
    let out = std::process::Command::new(f.bin_dir.join("psql"))
        .env_clear()
        .args([
            "-XAtq",
            "-h",
            &f.server.socket,
            "-p",
            &f.server.port.to_string(),
            "-U",
            "postgres",
            "-d",
            "shop",
            "-c",
            sql,
        ])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim_end().to_string()
}

const SOON: Window = Window { from_ms: 100, to_ms: 600 };

fn degraded(control: &Control) -> bool {
    control.status().unwrap().health.components["billing"] == "degraded"
}

#[test]
fn damage_changes_values_and_no_counts_its_seed_is_nowhere_and_nothing_is_left() {
    let place = Place::new("damage");
    let sandbox = Sandbox::make(&options(&place), &mut |_| {}).unwrap();
    let control = sandbox.control();
    let dir = sandbox.dir().to_path_buf();
    assert_eq!(
        psql(
            &sandbox,
            "SELECT current_setting('data_checksums') || current_setting('track_commit_timestamp') || current_setting('listen_addresses')"
        ),
        "onon"
    );
    assert!(control.status().unwrap().health.healthy);

    // With the writers held back, nothing but the release can change a count.
    assert!(control.drain().unwrap());
    let count = |t: &str| psql(&sandbox, &format!("SELECT count(*) FROM {t}"));
    let tables = ["customers", "products", "orders", "payments"];
    let counts = || tables.map(count);
    let sums = || psql(&sandbox, "SELECT sum(total_cents)::text FROM orders");
    let (counts_before, sums_before) = (counts(), sums());
    control.inject(SOON).unwrap();
    until("damage", || degraded(&control));
    control.stop_release().unwrap();
    assert_eq!(counts(), counts_before);
    assert_ne!(sums(), sums_before);
    // Stopped is stopped: nothing changes any more.
    let stopped = psql(&sandbox, "SELECT count(*) FROM audit_log WHERE actor = 'storefront-release'");
    control.resume().unwrap();
    let taken = control.status().unwrap().health.orders_taken;
    until("good orders after the damage", || control.status().unwrap().health.orders_taken > taken + 10);
    assert_eq!(psql(&sandbox, "SELECT count(*) FROM audit_log WHERE actor = 'storefront-release'"), stopped);

    // The environment of whoever made the drill does not reach the umpire at all, and nothing it writes holds its secret.
    let umpire = control.status().unwrap().pid;
    assert_eq!(std::fs::read(format!("/proc/{umpire}/environ")).unwrap_or_default(), b"");
    let before = readable(&dir, umpire);
    assert!(before.len() > 1_000_000);
    let refused = control.judge(&dir, false).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused);
    control.judge(&dir, true).unwrap();
    let lines: Vec<InjectorLine> = logs::read(&dir.join(logs::INJECTOR)).unwrap();
    let InjectorLine::Plan { seed, predicate, .. } = &lines[0] else { panic!("{:?}", lines[0]) };
    let raw: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&seed[i * 2..i * 2 + 2], 16).unwrap()).collect();
    let has = |needle: &[u8]| before.windows(needle.len()).any(|w| w == needle);
    assert!(!has(seed.as_bytes()) && !has(&raw), "the seed could be read");
    assert!(!has(predicate.as_bytes()), "the predicate could be read");

    // The log has every damaged row, with the values it had.
    let mut rows = 0;
    for line in &lines[1..] {
        let InjectorLine::Damage { xid, lsn_before, lsn_after, committed, rows: damaged, .. } = line else {
            panic!("{line:?}")
        };
        let at = psql(
            &sandbox,
            &format!(
                "SELECT to_char(pg_xact_commit_timestamp('{xid}') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
            ),
        );
        assert_eq!(committed.unwrap().to_string(), at);
        assert_eq!(
            psql(&sandbox, &format!("SELECT '{lsn_before}'::pg_lsn < '{}'::pg_lsn", lsn_after.as_ref().unwrap())),
            "t"
        );
        assert!(damaged.iter().all(|(_, old, new)| old != new && old.len() == 32));
        rows += damaged.len();
    }
    assert!(rows > 100, "{rows}");

    let processes = leftovers::inside(&dir);
    assert!(processes.len() >= 2, "server and umpire are found: {processes:?}");
    assert!(sandbox.teardown().unwrap());
    assert!(!dir.exists());
    for process in processes {
        assert!(!process.is_alive(), "{process:?}");
    }
    assert_eq!(std::fs::read_dir(&place.0).unwrap().count(), 0);
}

/// Everything of a process and of a directory that somebody of our user could read.
fn readable(dir: &Path, pid: u32) -> Vec<u8> {
    let mut all = Vec::new();
    let mut look = vec![dir.to_path_buf()];
    while let Some(folder) = look.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                look.push(entry.path());
            } else if kind.is_file() {
                all.extend(std::fs::read(entry.path()).unwrap_or_default());
            }
        }
    }
    for what in ["cmdline", "environ"] {
        all.extend(std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default());
    }
    all
}

#[test]
fn another_cluster_is_refused_and_a_killed_server_leaves_no_doubt_about_any_order() {
    let place = Place::new("crash");
    let sandbox = Sandbox::make(&options(&place), &mut |_| {}).unwrap();
    let control = sandbox.control();
    let cluster = crate::support::cluster::Cluster::start("drillother", &[]);
    cluster.sql("postgres", "CREATE ROLE shop_app LOGIN");
    let foreign = cluster.database("postgres");
    let mut server = sandbox.facts().server.clone();
    server.socket = foreign.host().to_string();
    server.port = foreign.port();
    server.database = "postgres".into();
    let refused = control.switch(&server).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused, "{refused}");
    assert!(refused.why.contains("system identifier"), "{refused}");
    assert_eq!(control.status().unwrap().generation, 0);
    let settings = serde_json::to_string(&sandbox.settings()).unwrap();
    for name in ["DATABASE_URL", "PGHOST"] {
        if let Ok(value) = std::env::var(name) {
            assert!(!settings.contains(&value));
        }
    }
    assert!(sandbox.settings().database.unwrap().host.starts_with(&*sandbox.dir().display().to_string()));

    for _ in 0..3 {
        let pids = psql(
            &sandbox,
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'storefront-%' AND backend_type = 'client backend'",
        );
        // A backend that is killed makes the server restart and cuts every connection, in whatever they were doing.
        let victim: i32 = pids.lines().next().unwrap().parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(victim).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        let taken = control.status().unwrap().health.orders_taken;
        until("traffic again", || control.status().unwrap().health.orders_taken > taken + 30);
    }
    control.judge(sandbox.dir(), true).unwrap();
    let orders: Vec<OrderLine> = logs::read(&sandbox.dir().join(logs::WRITERS)).unwrap();
    let mut logged: Vec<String> = orders
        .iter()
        .map(|l| {
            assert_eq!(l.known, Known::Committed);
            format!("{} {} {} {} {}", l.writer, l.n, l.order, l.total_cents, l.address)
        })
        .collect();
    logged.sort();
    for writer in 1..=3 {
        let numbers: Vec<u64> = orders.iter().filter(|l| l.writer == writer).map(|l| l.n).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        assert!(numbers.len() > 2);
    }
    let sql = "SELECT concat_ws(' ', writer, n, id, total_cents, address) FROM orders WHERE writer IS NOT NULL";
    let mut stored: Vec<String> = psql(&sandbox, sql).lines().map(str::to_string).collect();
    stored.sort();
    assert_eq!(stored, logged);
}

#[test]
fn the_umpire_outlives_who_started_it_and_ends_with_its_directory() {
    let place = Place::new("alone");
    let sandbox = Sandbox::make(&options(&place), &mut |_| {}).unwrap();
    let dir = sandbox.dir().to_path_buf();
    let control = sandbox.control();

    // The same program started as a console would: this shell is killed with -9 right after.
    control.shutdown().unwrap();
    let exe = scratch::executable(&dir);
    let again = breakglass::drill::umpire::spawn(&exe, &dir).unwrap_err();
    assert!(again.what.contains("had an umpire before"), "{again}");
    psql(&sandbox, "DELETE FROM payments WHERE writer IS NOT NULL; DELETE FROM orders WHERE writer IS NOT NULL");
    let mut parent = std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("'{}' sandbox --dir '{}' serve & read -r _", exe.display(), dir.display()))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the umpire", || control.status().is_ok());
    parent.kill().unwrap();
    parent.wait().unwrap();
    let taken = control.status().unwrap().health.orders_taken;
    until("traffic without a parent", || control.status().unwrap().health.orders_taken > taken + 5);
    let pid = control.status().unwrap().pid;
    // A drill that is alive is never taken for a leftover, even when its console is gone.
    drop(sandbox);
    assert!(leftovers::clean(std::slice::from_ref(&place.0)).is_empty());
    let joined = Sandbox::join(&dir).unwrap();
    assert_eq!(joined.settings().database.unwrap().host, joined.facts().server.socket);
    drop(joined);

    // Without its directory it ends by itself.
    let moved = dir.with_file_name("bg-0000aaaa");
    std::fs::rename(&dir, &moved).unwrap();
    until("the umpire's end", || !Path::new(&format!("/proc/{pid}")).exists());
    // Nobody is alive in it now: it is a leftover, with a server that still runs.
    assert!(!leftovers::inside(&moved).is_empty());
    assert_eq!(leftovers::clean(std::slice::from_ref(&place.0)), std::slice::from_ref(&moved));
    assert!(!moved.exists() && leftovers::inside(&moved).is_empty());
}

#[test]
fn a_drill_nobody_asks_about_clears_itself_away() {
    let place = Place::new("orphan");
    let mut o = options(&place);
    o.orphan_after = Duration::from_secs(1);
    let sandbox = Sandbox::make(&o, &mut |_| {}).unwrap();
    let dir = sandbox.dir().to_path_buf();
    drop(sandbox);
    // The umpire is the last one to go, after its directory.
    until("the end", || !dir.exists() && leftovers::inside(&dir).is_empty());
}

#[test]
fn what_was_made_is_removed_when_somebody_stops_it_or_it_fails() {
    let place = Place::new("stopped");
    let o = options(&place);
    let cancel = o.cancel.clone();
    // Stopped while the server runs already.
    let stopped = Sandbox::make(&o, &mut |line| {
        if line.starts_with("loading") {
            cancel.cancel();
        }
    });
    assert_eq!(stopped.unwrap_err().kind, ErrorKind::Interrupted);
    assert_eq!(std::fs::read_dir(&place.0).unwrap().count(), 0);
    assert!(leftovers::inside(&place.0).is_empty());

    // No place is fit: each is named with its reason.
    let mut o = options(&place);
    o.places = vec![place.0.join("a".repeat(80)), "/proc".into()];
    std::fs::create_dir(&o.places[0]).unwrap();
    let e = Sandbox::make(&o, &mut |_| {}).unwrap_err();
    assert!(e.why.contains("bytes, 107 are possible") && e.why.contains("/proc:"), "{e}");
}

#[test]
fn a_drill_closed_in_the_shell_leaves_nothing() {
    let place = Place::new("closed");
    let sandbox = Sandbox::make(&options(&place), &mut |_| {}).unwrap();
    let dir = sandbox.dir().to_path_buf();
    let home = tempfile::tempdir().unwrap();
    let store = breakglass::runtime::Store::at(home.path());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks/database-corruption.md");
    let bytes = std::fs::read(path).unwrap();
    let exercise = breakglass::drill::session::Exercise {
        plan: breakglass::plan::parse("database-corruption.md", &bytes).unwrap(),
        documents: vec![("database-corruption.md".into(), bytes)],
        scenario: "database-corruption".into(),
        rto_ms: 60_000,
        rpo_ms: 60_000,
        delay: Duration::ZERO,
    };
    let incident = breakglass::drill::session::open(&store, &sandbox, &exercise, "wrong totals").unwrap();
    drop(sandbox);
    let close = |more: &[&str]| {
        let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_breakglass"));
        c.args(["incident", "close", incident.id().as_str(), "--summary", "stopped"]).args(more);
        c.env("BREAKGLASS_HOME", home.path()).output().unwrap()
    };
    let said = |out: &std::process::Output| String::from_utf8_lossy(&out.stderr).into_owned();
    let refused = close(&[]);
    assert!(refused.status.code() == Some(4) && said(&refused).contains("--force"), "{}", said(&refused));
    assert!(dir.exists());
    let closed = close(&["--force"]);
    assert!(closed.status.success() && said(&closed).contains("is removed"), "{}", said(&closed));
    assert!(!dir.exists() && leftovers::inside(&dir).is_empty());
}
