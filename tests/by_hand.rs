//! The whole drill by keys in a terminal of 80×24: whoever does what the console says is next gets to the end. Its console
//! is killed in the middle of the restore and resumed.

use std::time::{Duration, Instant};

use crate::support::pty::Pty;

/// How long a drill by hand may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The key the screen says is next, and what it does; the key is empty when there is nothing to do but wait.
fn next(screen: &str) -> (String, String) {
    let line = screen.lines().rev().nth(1).unwrap_or("");
    let Some((_, said)) = line.split_once("next ") else { return Default::default() };
    match said.trim_start().split_once(' ') {
        Some((key, rest)) if key != "nothing" && key != "opening" && key != "reading" => (key.into(), rest.into()),
        _ => (String::new(), said.into()),
    }
}

/// Does what the screen says is next, once.
fn obey(pty: &Pty, screen: &str) {
    let (key, _) = next(screen);
    // Questions first: what is asked is answered as a responder would who has read it.
    if screen.contains("run something that destroys") {
        pty.send(b"shop\r");
    } else if screen.contains("close the incident ─") {
        pty.send(b"drill by hand\r");
    } else if screen.contains("╭─ declare") {
        pty.keys("enter");
    } else if screen.contains("refused, nothing was touched") {
        panic!("what was next is refused:\n{screen}");
    } else if !key.is_empty() {
        pty.keys(&key);
    }
    // The next look is taken when the key has shown, or a little later when it changes nothing that is seen.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let now = pty.screen();
        let settled = now.lines().last().is_some_and(|l| !l.trim().is_empty());
        if settled && next(&now) != next(screen) {
            return;
        }
        std::thread::yield_now();
    }
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

#[test]
fn the_obvious_next_thing_leads_through_the_whole_drill() {
    let home = tempfile::tempdir().unwrap();
    let envs = [("BREAKGLASS_HOME", home.path().to_str().unwrap()), ("COLORTERM", "truecolor")];
    let first = Pty::breakglass((80, 24), &["drill", "--rto", "30m", "--rpo", "30m"], &envs);
    first.wait_long("the alarm", PATIENCE, |s| s.contains("DRILL") && s.contains("STEPS"));

    // Up to the restore, which is left running by a console that dies.
    until(&first, "pitr restore --to");
    first.wait("the step of the restore", |s| s.contains("▶●  6") || s.contains("▶·  6"));
    first.keys("r");
    first.wait_text("will run, exactly");
    first.keys("y");
    first.wait("it runs", |s| s.contains("nothing to do but watch") || s.contains("✓ stands before"));
    first.signal(rustix::process::Signal::KILL);
    drop(first);

    let mut second = Pty::breakglass((80, 24), &["resume"], &envs);
    let screen = second.wait("the same step", |s| s.contains("▶●  6 Recover") || s.contains("▶✓  6 Recover"));
    assert!(screen.contains("DRILL") && screen.contains("STEPS                  5 of 12"), "{screen}");
    let screen = until(&second, "closed: drill by hand");
    assert!(screen.contains(" met "), "the objectives are met:\n{screen}");
    second.keys("t");
    let screen = second.wait_text("The umpire judged");
    assert!(screen.contains("judged: passed"), "{screen}");
    // The sandbox is cleared away before the console is left.
    second.keys("q");
    assert_eq!(second.wait_exit().code(), Some(0));
    second.wait_sane();
}
