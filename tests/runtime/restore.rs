//! Deaths in the middle of a real point-in-time recovery: of the worker, and of console and worker together.
//!
//! Six and three random instants by default. The long run, 200 of each:
//! `BREAKGLASS_SOAK=1 cargo test --locked runtime::restore -- --nocapture`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use breakglass::config::settings::REPOSITORY_KEY;
use breakglass::config::{Secrets, Settings};
use breakglass::drill::leftovers::inside;
use breakglass::incident::{Command as Order, Policy, RunRequest, RunStatus};
use breakglass::journal::verify;
use breakglass::model::event::{Event, Outcome};
use breakglass::model::plan::Risk;
use breakglass::model::{RunId, Secret};
use breakglass::postgres::Stop;
use breakglass::process::RunLiveness;
use breakglass::process::locks::{SERVERS_LOCK, holders, probe, stop_orphans};
use breakglass::recovery::shadow::Shadow;
use breakglass::runtime::{self, Incident, Job, RunHealth};
use rustix::process::{Pid, Signal, kill_process};

use super::{Desk, kill_9, program, running, until};
use crate::recovery::shop::{SCHEMA, damage, script, traffic};
use crate::support::archived::{Archived, PASSPHRASE};
use crate::support::cluster::{LIMIT, psql};

/// A damaged shop with everything that is needed to recover it.
struct Damaged {
    archived: Archived,
    /// Transaction of the damage.
    xid: String,
    /// How long an undisturbed recovery takes here.
    takes: Duration,
}

impl Damaged {
    /// The one of this process; the reaper of its folder stops its server at the end.
    fn get() -> &'static Self {
        static ONE: OnceLock<Damaged> = OnceLock::new();
        ONE.get_or_init(|| {
            let archived = Archived::start("deaths");
            let db = archived.cluster.database("postgres");
            script(&db, SCHEMA);
            archived.base_backup();
            // Several segments of log, so that replay lasts a while.
            for _ in 0..4 {
                traffic(&db, 10);
                archived.archive_now();
            }
            let xid = damage(&db, "id % 3 = 1 and id <= 1000");
            traffic(&db, 3);
            archived.archive_now();
            let mut it = Self { archived, xid, takes: Duration::ZERO };
            let mut scene = Scene::new(&it);
            let began = Instant::now();
            scene.recovers();
            it.takes = began.elapsed();
            it
        })
    }
}

fn request(xid: &str) -> RunRequest {
    RunRequest {
        step: None,
        block_line: None,
        action: "pitr restore".into(),
        shown: format!("breakglass pitr restore --to xid:{xid}"),
        args: vec!["--to".into(), format!("xid:{xid}")],
        risk: Risk::Change,
        confirmed: None,
    }
}

fn secrets() -> Secrets {
    let mut secrets = Secrets::default();
    secrets.set(REPOSITORY_KEY, Secret::new(PASSPHRASE));
    secrets
}

/// One incident with a folder for its recovered instances.
struct Scene {
    d: Desk,
    xid: String,
    instances: PathBuf,
    began: (Instant, Instant),
}

impl Scene {
    fn new(damaged: &Damaged) -> Self {
        let mut d = Desk::new();
        let id = d.incident.id().to_string();
        let instances = damaged.archived.room.path.join(format!("i-{}", &id[id.len() - 4..]));
        d.job.settings = damaged.archived.settings(&instances);
        d.secrets = secrets();
        std::fs::write(d.home.path().join("settings"), serde_json::to_vec(&d.job.settings).unwrap()).unwrap();
        let before = Instant::now();
        let at = d.incident.now().time;
        d.incident.submit(Order::SetImpact { at, source: "test".into() }).unwrap();
        Self { d, xid: damaged.xid.clone(), instances, began: (before, Instant::now()) }
    }

    /// The console as a process of its own, which requests the recovery and follows it.
    fn console(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runtime::restore::console", "--ignored", "--nocapture", "--test-threads=1"])
            .env("BREAKGLASS_TEST_INCIDENT", self.d.incident.dir())
            .env("BREAKGLASS_TEST_HOME", self.d.home.path())
            .env("BREAKGLASS_TEST_XID", &self.xid)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs the recovery to its end and looks at what it made.
    fn recovers(&mut self) {
        let (run, started) =
            runtime::start_run(&mut self.d.incident, request(&self.xid), &self.d.job, &self.d.secrets, &self.d.program)
                .unwrap();
        started.unwrap();
        let ended = self.d.ended(run);
        assert_eq!(ended.status, RunStatus::Finished(Outcome::Succeeded), "{}", self.d.output(run));
        self.check_shadow();
        let dir = self.d.incident.run_dir(run);
        // The server stands there for whoever verifies it, and belongs to no run any more.
        until("the run lets go of its server", || (probe(&dir).unwrap() == RunLiveness::Gone).then_some(()));
    }

    /// The shadow the journal names stands before the damage; then it is stopped.
    fn check_shadow(&mut self) {
        self.d.incident.refresh().unwrap();
        let built = self.d.incident.state().unwrap().facts.shadow.clone().expect("a shadow in the journal");
        let shadow = Shadow::load(Path::new(&built.data_directory).parent().unwrap()).unwrap();
        let found = psql(
            &shadow.database("postgres").unwrap(),
            "select count(*), count(*) filter (where address = 'see invoice'), pg_is_in_recovery() from orders",
        );
        assert_eq!(found.unwrap(), "1040|0|t");
        let instance = shadow.instance().unwrap();
        assert!(instance.is_running());
        instance.stop(Stop::Immediate, LIMIT).unwrap();
    }

    fn folders(&self) -> usize {
        let made = std::fs::read_dir(&self.instances).into_iter().flatten().flatten();
        // How fast earlier recoveries were is kept beside them, in a file.
        made.filter(|e| e.path().is_dir()).count()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for left in inside(&self.instances) {
            kill_9(left.pid);
        }
        let _ = std::fs::remove_dir_all(&self.instances);
    }
}

/// Not a test by itself: the console process.
#[test]
#[ignore = "run by other tests as a second process"]
fn console() {
    let Some(dir) = std::env::var_os("BREAKGLASS_TEST_INCIDENT") else { return };
    let home = PathBuf::from(std::env::var_os("BREAKGLASS_TEST_HOME").unwrap());
    let mut incident = Incident::open(dir.as_ref(), Policy::default()).unwrap();
    let settings: Settings = serde_json::from_slice(&std::fs::read(home.join("settings")).unwrap()).unwrap();
    let job = Job { settings, ..Job::default() };
    let run = incident.submit(Order::RequestRun(request(&std::env::var("BREAKGLASS_TEST_XID").unwrap())));
    let run = run.unwrap().run().unwrap();
    // What this console was told is recorded must be there afterwards.
    std::fs::write(home.join("acknowledged.new"), run.0.to_string()).unwrap();
    std::fs::rename(home.join("acknowledged.new"), home.join("acknowledged")).unwrap();
    runtime::start(&mut incident, run, &job, &secrets(), &program()).unwrap();
    loop {
        runtime::look(&mut incident, Duration::from_secs(10)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal);
}

/// Processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    all.filter(|pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(parent.to_string().as_str())
    })
    .collect()
}

/// Kills the console and its worker at one instant: both are stopped first, so that none goes on without the other.
fn kill_together(console: &mut Child) {
    signal(console.id(), Signal::STOP);
    until("the console stands still", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", console.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 'Z'])).then_some(())
    });
    let workers = children(console.id());
    assert!(workers.len() <= 1, "{workers:?}");
    workers.iter().chain([&console.id()]).for_each(|pid| kill_9(*pid));
    console.wait().unwrap();
    until("the worker is gone", || workers.iter().all(|w| !running(*w)).then_some(()));
}

/// A moment between nothing and a little more than a whole recovery.
fn random(most: Duration) -> Duration {
    let mut bytes = [0u8; 4];
    getrandom::fill(&mut bytes).unwrap();
    most.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX) * 1.1)
}

/// What a console that comes back finds, once nothing moves any more.
fn came_back(s: &mut Scene, when: Duration) -> &'static str {
    let dir = s.d.incident.dir().to_path_buf();
    // Nothing that was seen or acknowledged is lost, and the journal is whole.
    let before = s.d.incident.records().to_vec();
    let mut fresh = Incident::open(&dir, Policy::default()).unwrap();
    assert!(fresh.records().starts_with(&before), "{when:?}: an event was lost");
    assert!(verify(&dir, &[]).unwrap().ok(), "{when:?}: {:?}", verify(&dir, &[]).unwrap());
    if let Ok(seq) = std::fs::read_to_string(s.d.home.path().join("acknowledged")) {
        let run = RunId(seq.parse().unwrap());
        assert!(fresh.state().unwrap().runs.contains_key(&run), "{when:?}: an acknowledged request was lost");
    }
    // The clock that began before the death still says how long ago that was.
    let least = s.began.1.elapsed();
    let clock = fresh.state().unwrap().rto_clock(&fresh.now()).elapsed;
    let most = s.began.0.elapsed();
    let slack = Duration::from_millis(5);
    assert!(least <= clock + slack && clock <= most + slack, "{when:?}: {least:?} ≤ {clock:?} ≤ {most:?}");

    // The lock is free once the worker's last thread is gone, which may be a moment after the process looks dead.
    let found = until("the worker is seen as gone", || {
        let found = runtime::look(&mut fresh, Duration::ZERO).unwrap();
        (!found.iter().any(|(_, h)| matches!(h, RunHealth::Running | RunHealth::Starting))).then_some(found)
    });
    let what = match &found[..] {
        [] => match fresh.state().unwrap().runs.values().next().map(|r| r.status) {
            None => "not requested",
            Some(RunStatus::Withdrawn) => "withdrawn",
            Some(RunStatus::Finished(Outcome::Succeeded)) => "finished",
            other => panic!("{when:?}: {other:?}"),
        },
        [(run, RunHealth::Unknown)] => {
            assert_eq!(probe(&fresh.run_dir(*run)).unwrap(), RunLiveness::Gone);
            "unknown"
        }
        [(run, RunHealth::WorkerDied(left))] => {
            // Seen as what it is, and never offered again while it goes on.
            assert_eq!(fresh.state().unwrap().runs[run].status, RunStatus::Running, "{left:?}");
            let again = fresh.submit(Order::RequestRun(request(&s.xid)));
            assert!(again.is_err(), "{when:?}: a retry beside {left:?}");
            assert!(stop_orphans(&fresh.run_dir(*run)).unwrap(), "{when:?}: {left:?}");
            let found = runtime::look(&mut fresh, Duration::ZERO).unwrap();
            assert_eq!(found, [(*run, RunHealth::Unknown)], "{when:?}");
            "its processes went on"
        }
        other => panic!("{when:?}: {other:?}"),
    };
    s.d.incident.refresh().unwrap();
    assert_eq!(s.d.incident.state().unwrap(), fresh.state().unwrap(), "two readers, one state");
    let unknown: Vec<RunId> = fresh.state().unwrap().open_runs().map(|r| r.id).collect();
    for run in unknown {
        let again = fresh.submit(Order::RequestRun(request(&s.xid)));
        assert!(again.is_err(), "{when:?}: a retry before anybody said what became of it");
        let reason = "nothing of it runs; what it made is left aside".into();
        s.d.incident.submit(Order::ResolveRun { run, outcome: Outcome::Failed, reason }).unwrap();
    }
    what
}

/// Nothing ran twice: each run started once, and nothing made more folders than there were starts.
fn check_once(s: &Scene, when: Duration) {
    let mut starts: BTreeMap<RunId, u32> = BTreeMap::new();
    for event in s.d.incident.records().iter().flat_map(|r| &r.events) {
        if let Event::RunStarted { run, .. } = event {
            *starts.entry(*run).or_default() += 1;
        }
    }
    assert!(starts.values().all(|n| *n == 1), "{when:?}: {starts:?}");
    assert!(s.folders() <= starts.len(), "{when:?}: {} folders of {starts:?}", s.folders());
}

/// Kills at `rounds` random instants and settles what is found; afterwards the recovery is made once more, to its end.
fn kill_at_random_instants(name: &str, rounds: u32, kill: fn(&mut Scene, &mut Child)) {
    let damaged = Damaged::get();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..rounds {
        let mut s = Scene::new(damaged);
        let mut console = s.console();
        let when = random(damaged.takes);
        std::thread::sleep(when);
        s.d.incident.refresh().unwrap();
        kill(&mut s, &mut console);
        let what = came_back(&mut s, when);
        *seen.entry(what).or_default() += 1;
        if what == "finished" {
            s.check_shadow();
        } else {
            s.recovers();
        }
        s.d.incident.refresh().unwrap();
        check_once(&s, when);
        assert!(verify(s.d.incident.dir(), &[]).unwrap().ok());
        until("nothing of it goes on", || inside(&s.instances).is_empty().then_some(()));
    }
    println!("{name}: {rounds} instants within {:?}: {seen:?}", damaged.takes.mul_f32(1.1));
    if rounds >= 100 {
        assert!(seen.contains_key("unknown") && seen.contains_key("its processes went on"), "{seen:?}");
    }
}

fn rounds(few: u32) -> u32 {
    if std::env::var_os("BREAKGLASS_SOAK").is_some() { 200 } else { few }
}

#[test]
fn console_and_worker_killed_together() {
    kill_at_random_instants("console and worker together", rounds(6), |_, console| kill_together(console));
}

#[test]
fn the_worker_killed_alone() {
    kill_at_random_instants("worker alone", rounds(3), |s, console| {
        let workers = children(console.id());
        workers.iter().for_each(|pid| kill_9(*pid));
        until("the worker is gone", || workers.iter().all(|w| !running(*w)).then_some(()));
        // Its console sees it at the next look, if it was following by then.
        s.d.incident.refresh().unwrap();
        kill_together(console);
    });
}

#[test]
fn a_server_of_a_dead_worker_is_seen_and_blocks_a_retry() {
    let mut s = Scene::new(Damaged::get());
    let (run, started) =
        runtime::start_run(&mut s.d.incident, request(&s.xid), &s.d.job, &s.d.secrets, &s.d.program).unwrap();
    let worker = started.unwrap();
    let dir = s.d.incident.run_dir(run);
    // Held still while it replays, so that it cannot end by itself. Nothing else is: a process the worker has only just forked
    // still holds the worker's own lock, and would keep it for ever.
    let servers = until("the shadow's server starts", || {
        let mut found = holders(&dir.join(SERVERS_LOCK));
        found.retain(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split(|b| *b == 0);
            words.next().is_some_and(|program| program.ends_with(b"postgres")) && words.any(|word| word == b"-D")
        });
        (!found.is_empty()).then_some(found)
    });
    servers.iter().for_each(|pid| signal(*pid, Signal::STOP));
    kill_9(worker);
    let left = until("the worker is gone", || match s.d.health(run, Duration::ZERO) {
        Some(RunHealth::Running) => None,
        other => Some(other),
    });
    let Some(RunHealth::WorkerDied(left)) = left else { panic!("{left:?}\n{}", s.d.output(run)) };
    assert!(left.iter().any(|o| o.command.contains("postgres")), "{left:?}");
    assert_eq!(s.d.run(run).status, RunStatus::Running, "nothing is recorded while it goes on");
    let refused = s.d.incident.submit(Order::RequestRun(request(&s.xid))).unwrap_err();
    assert!(refused.to_string().contains("still going on"), "{refused}");
    servers.iter().for_each(|pid| signal(*pid, Signal::CONT));
    assert!(stop_orphans(&dir).unwrap());
    assert_eq!(s.d.health(run, Duration::ZERO), Some(RunHealth::Unknown));
    until("nothing of it goes on", || inside(&s.instances).is_empty().then_some(()));
}
