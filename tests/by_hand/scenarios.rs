//! Every other scenario by keys at 80×24, as one would work it who does what the console says is next; and each again with a
//! wrong decision on the way. The long ones: `BREAKGLASS_SOAK=1 cargo test by_hand`.

use std::time::Instant;

use super::{Home, PATIENCE, incident, next, obey, whole};
use crate::support::pty::Pty;

/// The whole drills that take longer.
fn soak() -> bool {
    std::env::var_os("BREAKGLASS_SOAK").is_some()
}

/// A drill at its first step.
fn begin(home: &Home, args: &[&str]) -> Pty {
    let config = home.0.path().join("drill.toml");
    std::fs::write(&config, "[drill]\nsize = 0\n").unwrap();
    let mut all = vec!["--config", config.to_str().unwrap(), "drill", "--rto", "30m", "--rpo", "30m"];
    let report = home.0.path().join("report");
    all.extend(["--report", report.to_str().unwrap()]);
    all.extend(args);
    let envs = [("BREAKGLASS_HOME", home.0.path().to_str().unwrap()), ("COLORTERM", "truecolor")];
    let pty = Pty::breakglass((80, 24), &all, &envs);
    pty.wait_long("the alarm", PATIENCE, |s| s.contains("DRILL") && s.contains("STEPS"));
    pty
}

/// Does what is next until the screen holds a text. `own` may do something else instead, and says whether it did.
fn work(pty: &Pty, what: &str, own: &mut dyn FnMut(&Pty, &str) -> bool) -> String {
    let mut begun = Instant::now();
    let mut last = String::new();
    loop {
        let screen = pty.screen();
        if screen.contains(what) {
            return screen;
        }
        assert!(begun.elapsed() < PATIENCE, "{what:?} was not reached; the screen:\n{screen}");
        let now = next(&screen).1;
        if now != last {
            // Written out, so that a person can read what another one was led through.
            if std::env::var_os("BREAKGLASS_SHOW").is_some() {
                eprintln!("{screen}\n{}", "=".repeat(80));
            }
            (last, begun) = (now, Instant::now());
        }
        if !whole(&screen) || own(pty, &screen) {
            continue;
        }
        obey(pty, &screen);
    }
}

/// Leaves the console of a closed drill; its exit code and last words.
fn leave(mut pty: Pty) -> (Option<i32>, String) {
    pty.keys("q");
    pty.wait_sane();
    pty.wait_long("the verdict", PATIENCE, |s| s.contains("PASSED") || s.contains("FAILED"));
    let code = pty.wait_exit().code();
    (code, pty.screen())
}

fn report(home: &Home) -> String {
    let all = std::fs::read_dir(home.0.path().join("report")).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == "md")).map(|p| std::fs::read_to_string(p).unwrap()).collect()
}

/// From the alarm to the end by what is next; it passes, and the judge agrees.
fn obvious(args: &[&str]) {
    let home = Home(tempfile::tempdir().unwrap());
    let pty = begin(&home, args);
    work(&pty, "closed: drill by hand", &mut |_, _| false);
    let (code, end) = leave(pty);
    assert!(code == Some(0) && end.contains("PASSED"), "{code:?}:\n{end}");
    let incident = incident(home.0.path());
    let facts = &incident.state().unwrap().facts;
    assert!(facts.judged.as_ref().unwrap().0, "{:?}", facts.judged);
    let scratch = facts.drill.clone().unwrap().0;
    assert!(!std::path::Path::new(&scratch).exists(), "{scratch}");
}

#[test]
fn a_bad_release_by_hand() {
    obvious(&["application-failure"]);
}

#[test]
fn deleted_data_by_hand() {
    if soak() {
        obvious(&["data-deletion", "--variant", "rows"]);
    }
}

#[test]
fn a_lost_region_by_hand() {
    if soak() {
        obvious(&["regional-outage"]);
    }
}

#[test]
fn an_intruder_by_hand() {
    if soak() {
        obvious(&["security-breach"]);
    }
}

#[test]
fn damaged_pages_by_hand() {
    if soak() {
        obvious(&["database-corruption", "--variant", "pages"]);
    }
}
