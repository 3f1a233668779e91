//! The whole drill by keys in a terminal of 80×24: whoever does what the console says is next gets to the end. Its console
//! is killed in the middle of the restore and resumed.

mod scenarios;

use std::path::Path;
use std::time::{Duration, Instant};

use breakglass::incident::{Run, RunStatus};
use breakglass::runtime::Incident;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::pty::Pty;

/// How long a part of the drill may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a key may take to show before it counts as one that changes nothing.
const UNSEEN: Duration = Duration::from_secs(10);

/// The key the screen says is next, and what it does; the key is empty when there is nothing to do but wait.
fn next(screen: &str) -> (String, String) {
    let line = screen.lines().rev().nth(1).unwrap_or("");
    let Some((_, said)) = line.split_once("next ") else { return Default::default() };
    match said.trim_start().split_once(' ') {
        Some((key, rest)) if !["nothing", "wait:", "opening", "reading"].contains(&key) => (key.into(), rest.into()),
        _ => (String::new(), said.into()),
    }
}

/// Does what the screen says is next, once.
fn obey(pty: &Pty, screen: &str) {
    let (key, _) = next(screen);
    assert!(!screen.contains("refused, nothing was touched"), "what was next is refused:\n{screen}");
    // Questions first: what is asked is answered as a responder would who has read it.
    if screen.contains("run something that destroys") {
        pty.send(b"shop\r");
    } else if screen.contains("close the incident ─") {
        pty.send(b"drill by hand\r");
    } else if screen.contains("╭─ fill in the blanks") {
        pty.send(b"as we said on the phone\r");
    } else if screen.contains("╭─ code name") {
        pty.send(b"heron\r");
    } else if screen.contains("╭─ declare") {
        pty.keys("enter");
    } else if !key.is_empty() {
        pty.keys(&key);
    }
    // The next look is taken when the key has shown, or a good while later when it changes nothing that is seen: a key
    // pressed a second time must not answer a question that comes up late.
    let begun = Instant::now();
    while begun.elapsed() < UNSEEN {
        let now = pty.screen();
        if whole(&now) && next(&now) != next(screen) {
            return;
        }
        std::thread::yield_now();
    }
}

/// Whether the screen is one that was drawn to its end.
fn whole(screen: &str) -> bool {
    screen.lines().last().is_some_and(|l| !l.trim().is_empty())
}

/// Goes on until the screen holds a text.
fn until(pty: &Pty, what: &str) -> String {
    let begun = Instant::now();
    loop {
        let screen = pty.screen();
        if screen.contains(what) {
            return screen;
        }
        assert!(begun.elapsed() < PATIENCE, "{what:?} was not reached; the screen:\n{screen}");
        obey(pty, &screen);
    }
}

/// The only incident there is.
fn incident(home: &Path) -> Incident {
    let dir = std::fs::read_dir(home.join("incidents")).unwrap().next().unwrap().unwrap().path();
    Incident::open(&dir, Default::default()).unwrap()
}

/// The drill's state directory. A drill that was not closed because the test failed is cleared away with it.
struct Home(tempfile::TempDir);

impl Drop for Home {
    fn drop(&mut self) {
        let dirs = std::fs::read_dir(self.0.path().join("incidents")).into_iter().flatten().flatten();
        for dir in dirs {
            let Ok(incident) = Incident::open(&dir.path(), Default::default()) else { continue };
            let scratch = incident.state().ok().and_then(|s| s.facts.drill.as_ref().map(|d| d.0.clone()));
            if let Some(scratch) = scratch.filter(|s| Path::new(s).exists()) {
                let _ = breakglass::drill::leftovers::remove(Path::new(&scratch));
            }
        }
    }
}

/// Every restore that was started in it.
fn restores(incident: &Incident) -> Vec<Run> {
    let all = incident.state().unwrap().runs.values();
    all.filter(|r| r.action == "pitr restore" && r.status != RunStatus::Withdrawn).cloned().collect()
}

/// The worker of the restore, held up once it has said that it restores. Let go when dropped, so that nothing stays behind.
struct Held(Pid);

impl Held {
    fn restore(home: &Path) -> (Self, Run) {
        let begun = Instant::now();
        loop {
            let incident = incident(home);
            let printed = |run: &Run| std::fs::read_to_string(incident.run_dir(run.id).join("output.log"));
            if let Some(run) = restores(&incident).first()
                && let Some((pid, _)) = run.worker
                && printed(run).is_ok_and(|out| out.contains("restoring base backup"))
            {
                let held = Self(Pid::from_raw(pid as i32).unwrap());
                kill_process(held.0, Signal::STOP).unwrap();
                let run = restores(&self::incident(home)).remove(0);
                assert_eq!(run.status, RunStatus::Running, "held up in the middle");
                return (held, run);
            }
            assert!(begun.elapsed() < PATIENCE, "the restore does not begin");
            std::thread::yield_now();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The seconds of the clock that follows a word on the screen: `RTO  12:43`.
fn clock(screen: &str, word: &str) -> u64 {
    let (_, rest) = screen.split_once(word).unwrap_or_else(|| panic!("no {word:?}:\n{screen}"));
    let digits = rest.trim_start().split(|c: char| c != ':' && !c.is_ascii_digit()).next().unwrap_or_default();
    digits.split(':').fold(0, |all, part| all * 60 + part.parse::<u64>().unwrap())
}

/// The rows of the output's pane.
fn output(screen: &str) -> Vec<String> {
    let all = screen.lines().skip_while(|l| !l.contains("output of ")).skip(1);
    all.filter_map(|l| l.split_once(['│', '┤']))
        .map(|(_, right)| right.trim().to_string())
        .filter(|r| !r.is_empty())
        .collect()
}

#[test]
fn the_obvious_next_thing_leads_through_the_whole_drill() {
    let kept = Home(tempfile::tempdir().unwrap());
    let home = &kept.0;
    let envs = [("BREAKGLASS_HOME", home.path().to_str().unwrap()), ("COLORTERM", "truecolor")];
    let first = Pty::breakglass((80, 24), &["drill", "--rto", "30m", "--rpo", "30m"], &envs);
    first.wait_long("the alarm", PATIENCE, |s| s.contains("DRILL") && s.contains("STEPS"));

    // Up to the restore, which is left running by a console that dies.
    until(&first, "pitr restore --to");
    first.wait_long("the step of the restore", PATIENCE, |s| s.contains("▶●  6") || s.contains("▶·  6"));
    first.keys("r");
    first.wait_long("the question", PATIENCE, |s| s.contains("will run, exactly"));
    first.keys("y");
    let (held, run) = Held::restore(home.path());
    let going = |s: &str| {
        let printed = output(s).iter().any(|line| line.contains("restoring base backup"));
        whole(s) && printed && s.contains("running for") && s.contains("output of pitr restore")
    };
    let before = first.wait_long("it runs and prints", PATIENCE, going);
    first.signal(Signal::KILL);
    drop(first);

    // The same step, the same clock, the same action still running, with its output.
    let mut second = Pty::breakglass((80, 24), &["resume"], &envs);
    let seen = output(&before);
    // Nothing to do but watch: a run that goes on is never offered again.
    let same = |s: &str| {
        going(s) && seen.iter().all(|line| output(s).contains(line)) && next(s).1.contains("nothing to do but watch")
    };
    let after = second.wait_long(&format!("the same run with {seen:?}"), PATIENCE, same);
    assert!(after.contains("DRILL") && after.contains("▶●  6 Recover"), "{after}");
    assert!(after.contains("STEPS                  5 of 12"), "{after}");
    for word in ["RTO ", "running for "] {
        assert!(clock(&after, word) >= clock(&before, word), "{word}goes on:\n{before}\n{after}");
    }
    assert_eq!(clock(&after, "RPO  loses "), clock(&before, "RPO  loses "), "what is lost is the same");
    drop(held);

    let screen = until(&second, "closed: drill by hand");
    assert!(screen.contains(" met "), "the objectives are met:\n{screen}");
    second.keys("t");
    let screen = second.wait_long("the judgement", PATIENCE, |s| s.contains("The umpire judged"));
    assert!(screen.contains("judged: passed"), "{screen}");
    let ran: Vec<_> = restores(&incident(home.path())).iter().map(|r| (r.id, r.started.clone())).collect();
    assert_eq!(ran, [(run.id, run.started)], "it ran once, and it is the one that was going on");

    // The timeline leaves the program, in every format.
    second.keys("E");
    second.wait_long("the export", PATIENCE, |s| s.contains("5 files of the timeline in"));
    let exports = std::fs::read_dir(home.path().join("exports")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_dir(&exports).unwrap().count(), 5, "{}", exports.display());
    second.keys("q");
    second.wait_sane();
    second.wait_text("is closed.");
    // The whole path, the verdict, and nothing left of the sandbox, although another console made it.
    second.wait_text("PASSED");
    assert!(second.screen().replace('\n', "").contains(exports.to_str().unwrap()), "{}", second.screen());
    assert_eq!(second.wait_exit().code(), Some(0));
    let scratch = incident(home.path()).state().unwrap().facts.drill.clone().unwrap().0;
    assert!(!Path::new(&scratch).exists(), "{scratch}");
}
