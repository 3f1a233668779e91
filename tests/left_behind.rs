//! Runs that lost their worker, in a real terminal: its processes go on, and later the outcome is unknown. The console names
//! them, never offers a retry, and asks the responder.

use std::path::Path;
use std::time::Instant;

use breakglass::incident::{Run, RunStatus};
use breakglass::model::event::Outcome;
use breakglass::process::locks;
use breakglass::runtime::Incident;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::pty::{DEADLINE, Pty};

const PLAN: &str = "# Left behind

## Scenario: Left behind

**RTO**: 1 hour

### Step 1: Change something

```bash { risk=change timeout=30m }
echo begun; exec sleep 600
```
";

/// A console on an incident of a state directory of its own, its only step being run.
struct Desk {
    home: tempfile::TempDir,
    pty: Pty,
}

impl Desk {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let plan = home.path().join("plan.md");
        std::fs::write(&plan, PLAN).unwrap();
        let envs = [("BREAKGLASS_HOME", home.path().to_str().unwrap()), ("COLORTERM", "truecolor")];
        let pty = Pty::breakglass((80, 24), &["open", plan.to_str().unwrap()], &envs);
        pty.wait_text("Left behind");
        pty.keys("D");
        pty.wait_text("declare a REAL incident");
        pty.keys("enter");
        pty.wait_text("STEPS");
        pty.keys("r");
        pty.wait_text("will run, exactly");
        pty.keys("y");
        pty.wait("it prints", |s| s.lines().any(|l| l.ends_with("│ begun")) && s.contains("running for"));
        Self { home, pty }
    }

    fn incident(&self) -> Incident {
        let dir = std::fs::read_dir(self.home.path().join("incidents")).unwrap().next().unwrap().unwrap().path();
        Incident::open(&dir, Default::default()).unwrap()
    }

    /// Every run of the incident.
    fn runs(&self) -> Vec<Run> {
        self.incident().state().unwrap().runs.values().cloned().collect()
    }

    fn run_dir(&self) -> std::path::PathBuf {
        self.incident().run_dir(self.runs()[0].id)
    }
}

impl Drop for Desk {
    /// Nothing is left running, whatever became of the test.
    fn drop(&mut self) {
        let dir = self.run_dir();
        if let Some((pid, _)) = self.runs()[0].worker.clone().filter(|_| locks::probe(&dir).is_ok_and(is_running)) {
            kill(pid);
        }
        holders(&dir).into_iter().for_each(kill);
    }
}

fn is_running(liveness: locks::RunLiveness) -> bool {
    liveness == locks::RunLiveness::Running
}

fn kill(pid: u32) {
    let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
}

/// What holds the lock that a run's processes inherit.
fn holders(dir: &Path) -> Vec<u32> {
    locks::holders(&dir.join(locks::CHILDREN_LOCK))
}

#[test]
fn a_dead_workers_processes_are_named_and_stopped_and_the_outcome_is_asked() {
    let desk = Desk::new();
    let (worker, _) = desk.runs()[0].worker.clone().unwrap();
    kill(worker);
    let screen = desk.pty.wait("the worker's death", |s| s.contains("WORKER DIED, its processes go on: "));
    let left = holders(&desk.run_dir());
    assert_eq!(left.len(), 1, "the shell became the sleep: {left:?}");
    assert!(screen.contains(&format!("{} sleep", left[0])), "{left:?} is named:\n{screen}");
    assert!(screen.contains("next o "), "never run it again:\n{screen}");

    // Whoever asks for a retry all the same is refused.
    desk.pty.keys("r");
    desk.pty.wait_text("run: a run of this step is still open");
    assert_eq!(desk.runs().len(), 1);

    desk.pty.keys("o");
    let screen = desk.pty.wait_text("What it started goes on:");
    assert!(screen.contains(&format!("{}  sleep 600", left[0])), "{screen}");
    assert!(screen.contains(&format!("To look: ps -fp {}", left[0])), "{screen}");
    desk.pty.keys("tab");
    desk.pty.wait_text("(•) stop them");
    desk.pty.keys("enter");
    unknown_until_said(&desk);
}

#[test]
fn a_run_of_which_nothing_is_left_asks_the_responder() {
    let desk = Desk::new();
    let (worker, _) = desk.runs()[0].worker.clone().unwrap();
    let left = holders(&desk.run_dir());
    // Held up first, so that neither can report the other's death.
    let stop = |pid: u32| kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::STOP).unwrap();
    stop(worker);
    left.into_iter().for_each(kill);
    kill(worker);
    unknown_until_said(&desk);
}

/// The outcome is unknown, nothing is run again, and the responder is asked what became of it.
fn unknown_until_said(desk: &Desk) {
    let screen = desk.pty.wait("the outcome is unknown", |s| s.contains("OUTCOME UNKNOWN of run"));
    assert!(screen.contains("next o say what became of: "), "{screen}");
    assert_eq!(desk.runs()[0].status, RunStatus::Unknown);
    desk.pty.keys("r");
    desk.pty.wait_text("run: a run of this step is still open");
    desk.pty.keys("o");
    desk.pty.wait_text("what became of it?");
    desk.pty.keys("tab");
    desk.pty.send(b"the row count is as before");
    desk.pty.wait_text("the row count is as before");
    desk.pty.keys("enter");
    desk.pty.wait("it is answered", |s| !s.contains("OUTCOME UNKNOWN"));
    let begun = Instant::now();
    while desk.runs()[0].status != RunStatus::Finished(Outcome::Failed) {
        assert!(begun.elapsed() < DEADLINE, "{:?}", desk.runs());
        std::thread::yield_now();
    }
    assert_eq!(desk.runs().len(), 1, "it ran once");
}
