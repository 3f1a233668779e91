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
        if screen.contains("╭─ service is back") {
            pty.send(b"seen with my own eyes\r");
            pty.wait_long("it is said", PATIENCE, |s| whole(s) && !s.contains("╭─ service is back"));
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
    if soak() {
        obvious(&["application-failure"]);
    }
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

/// Whether the work is at this step and the key that is next is this one.
fn at(screen: &str, step: usize, key: &str) -> bool {
    let here = screen.lines().any(|l| {
        l.starts_with('▶') && l.chars().skip(2).collect::<String>().trim_start().starts_with(&format!("{step} "))
    });
    here && next(screen).0 == key
}

/// Leaves the step out that the work is at, as somebody in a hurry would.
fn skip(pty: &Pty, step: usize, why: &str) {
    pty.keys("s");
    pty.wait_long("why it is left out", PATIENCE, |s| s.contains("╭─ skip a step"));
    pty.send(format!("{why}\r").as_bytes());
    pty.wait_long("the step is left out", PATIENCE, |s| whole(s) && !s.contains("╭─") && !at(s, step, "r"));
}

/// Passes the gate that a refusal on the screen names, and returns what was said.
fn waive(pty: &Pty, why: &str) {
    pty.send(format!("{why}\r").as_bytes());
    pty.wait_long("the gate is waived", PATIENCE, |s| whole(s) && !s.contains("refused, nothing was touched"));
}

const MOMENTS: &str = "RESTORE TO JUST BEFORE";
const REFUSED: &str = "refused, nothing was touched";
const CLOSED: &str = "closed: drill by hand";

#[test]
fn a_wrong_moment_is_warned_of_seen_and_put_right() {
    if !soak() {
        return;
    }
    let home = Home(tempfile::tempdir().unwrap());
    let pty = begin(&home, &["database-corruption"]);
    let (mut chosen, mut led_back) = (false, false);
    work(&pty, CLOSED, &mut |pty, screen| {
        if next(screen).1.contains("the damage is in what was recovered") {
            led_back = true;
        }
        if chosen || !screen.contains(MOMENTS) || screen.contains("╭─") {
            return false;
        }
        // Everything that is archived: the damage is in it.
        pty.keys("G");
        pty.keys("enter");
        pty.wait_long("another moment", PATIENCE, |s| s.contains("╭─ another moment"));
        pty.send(b"\x15latest\r");
        let asked = pty.wait_long("the warning", PATIENCE, |s| s.contains("╭─ choose this moment"));
        assert!(asked.contains("KEEPS DAMAGE"), "{asked}");
        pty.keys("y");
        pty.wait_long("it is chosen", PATIENCE, |s| {
            whole(s) && !s.contains("╭─") && !s.contains(MOMENTS) && s.contains("all archived")
        });
        chosen = true;
        true
    });
    assert!(chosen && led_back);
    let (code, end) = leave(pty);
    assert!(code == Some(0) && end.contains("PASSED"), "{code:?}:\n{end}");
    let report = report(&home);
    for said in ["Moment chosen: the end of the archive", "another moment was chosen", "choose an earlier moment"] {
        assert!(report.contains(said), "{said:?} is not in the report:\n{report}");
    }
}

#[test]
fn a_skipped_verification_is_refused_and_the_report_shows_it() {
    if !soak() {
        return;
    }
    let home = Home(tempfile::tempdir().unwrap());
    let pty = begin(&home, &["database-corruption"]);
    let (mut skipped, mut refused) = (false, 0);
    work(&pty, CLOSED, &mut |pty, screen| {
        if !skipped && at(screen, 7, "r") {
            skip(pty, 7, "no time");
            skipped = true;
            return true;
        }
        if screen.contains(REFUSED) {
            assert!(screen.contains("has not been verified"), "{screen}");
            waive(pty, "the lead said so");
            refused += 1;
            return true;
        }
        false
    });
    assert!(skipped && refused >= 1, "{skipped} {refused}");
    let (code, end) = leave(pty);
    assert!(code == Some(1) && end.contains("FAILED"), "{code:?}:\n{end}");
    let report = report(&home);
    for said in ["safety gate “verification” was waived: the lead said so", "step 7 “Verify” was skipped: no time"]
    {
        assert!(report.contains(said), "{said:?} is not in the report:\n{report}");
    }
}

#[test]
fn promoting_before_fencing_is_refused_and_two_primaries_fail_the_drill() {
    if !soak() {
        return;
    }
    let home = Home(tempfile::tempdir().unwrap());
    let pty = begin(&home, &["regional-outage"]);
    let (mut skipped, mut refused) = (false, 0);
    work(&pty, CLOSED, &mut |pty, screen| {
        if !skipped && at(screen, 4, "r") {
            skip(pty, 4, "it is dead anyway");
            skipped = true;
            return true;
        }
        if screen.contains(REFUSED) {
            assert!(screen.contains("fence"), "{screen}");
            waive(pty, "it is dead anyway");
            refused += 1;
            return true;
        }
        // The verification sees that the old one was never closed.
        if at(screen, 7, "r") && next(screen).1.contains("last time") {
            assert!(screen.contains("one primary"), "{screen}");
            skip(pty, 7, "nobody can reach it");
            return true;
        }
        false
    });
    assert!(skipped && refused >= 1, "{skipped} {refused}");
    let (code, end) = leave(pty);
    assert!(code == Some(1) && end.contains("FAILED"), "{code:?}:\n{end}");
    let report = report(&home);
    for said in ["was waived: it is dead anyway", "was skipped: it is dead anyway", "one primary"] {
        assert!(report.contains(said), "{said:?} is not in the report:\n{report}");
    }
    let incident = incident(home.0.path());
    let (passed, checks, _) = incident.state().unwrap().facts.judged.clone().unwrap();
    assert!(!passed, "{checks:?}");
}

#[test]
fn a_lagging_standby_is_said_before_it_is_promoted_and_its_loss_is_in_the_report() {
    if !soak() {
        return;
    }
    let home = Home(tempfile::tempdir().unwrap());
    let pty = begin(&home, &["regional-outage", "--variant", "lagging"]);
    let mut asked = String::new();
    work(&pty, CLOSED, &mut |_, screen| {
        if asked.is_empty() && screen.contains("run something that destroys") && screen.contains("failover promote") {
            asked = screen.to_string();
        }
        false
    });
    assert!(asked.contains("lose"), "the loss stands beside the question:\n{asked}");
    let (code, end) = leave(pty);
    assert!(code == Some(0) && end.contains("PASSED"), "{code:?}:\n{end}");
    let report = report(&home);
    assert!(report.contains("Rows lost") && report.contains("public.orders"), "{report}");
}

#[test]
fn evidence_after_the_isolation_is_refused_first_and_shown_as_late() {
    if !soak() {
        return;
    }
    let home = Home(tempfile::tempdir().unwrap());
    let pty = begin(&home, &["security-breach"]);
    let (mut skipped, mut refused, mut late) = (false, 0, false);
    work(&pty, CLOSED, &mut |pty, screen| {
        if !skipped && at(screen, 3, "r") {
            skip(pty, 3, "later");
            skipped = true;
            return true;
        }
        if screen.contains(REFUSED) {
            assert!(screen.contains("No evidence was collected"), "{screen}");
            waive(pty, "it cannot wait");
            refused += 1;
            return true;
        }
        // What could have been seen is gone; what is left is collected now.
        if !late && at(screen, 5, "r") {
            pty.keys("g g j j u");
            pty.wait_long("why it is opened again", PATIENCE, |s| s.contains("╭─ open a step again"));
            pty.send(b"better late\r");
            pty.wait_long("it is open again", PATIENCE, |s| whole(s) && !s.contains("╭─") && !at(s, 5, "r"));
            late = true;
            return true;
        }
        false
    });
    // A key pressed before the waiver is in the journal is refused once more.
    assert!(skipped && late && refused >= 1, "{skipped} {late} {refused}");
    let (code, end) = leave(pty);
    assert!(code == Some(1) && end.contains("FAILED"), "{code:?}:\n{end}");
    let report = report(&home);
    for said in [
        "safety gate “evidence” was waived: it cannot wait",
        "Evidence sealed only AFTER isolation",
        "the sessions are in the evidence",
    ] {
        assert!(report.contains(said), "{said:?} is not in the report:\n{report}");
    }
}

#[test]
fn a_wrong_moment_in_service_is_replaced_and_both_promotions_are_judged() {
    if !soak() {
        return;
    }
    let home = Home(tempfile::tempdir().unwrap());
    let pty = begin(&home, &["database-corruption"]);
    let (mut wrong, mut skipped, mut waived, mut right) = (false, false, false, false);
    work(&pty, CLOSED, &mut |pty, screen| {
        if !wrong && screen.contains(MOMENTS) && !screen.contains("╭─") {
            pty.keys("G");
            pty.keys("enter");
            pty.wait_long("another moment", PATIENCE, |s| s.contains("╭─ another moment"));
            pty.send(b"\x15latest\r");
            pty.wait_long("the warning", PATIENCE, |s| s.contains("KEEPS DAMAGE"));
            pty.keys("y");
            pty.wait_long("it is chosen", PATIENCE, |s| {
                whole(s) && !s.contains("╭─") && !s.contains(MOMENTS) && s.contains("all archived")
            });
            wrong = true;
            return true;
        }
        // Against what the console says: the failed verification is passed over, and the wrong database promoted.
        if wrong && !skipped && next(screen).1.contains("the damage is in what was recovered") {
            pty.keys("s");
            pty.wait_long("why it is left out", PATIENCE, |s| s.contains("╭─ skip a step"));
            pty.send(b"the shop has to sell\r");
            pty.wait_long("the promotion is next", PATIENCE, |s| whole(s) && at(s, 8, "r"));
            skipped = true;
            return true;
        }
        if screen.contains(REFUSED) {
            assert!(screen.contains("Verification of the recovered instance failed"), "{screen}");
            waive(pty, "the shop has to sell");
            waived = true;
            return true;
        }
        // In service, and wrong.
        if waived && !right && next(screen).1.contains("the damage is in what was recovered") {
            pty.keys("m");
            pty.wait_long("the moments", PATIENCE, |s| whole(s) && s.contains(MOMENTS));
            pty.keys("g g");
            pty.keys("enter");
            pty.wait_long("the right moment", PATIENCE, |s| s.contains("╭─ choose this moment"));
            pty.keys("y");
            pty.wait_long("it is chosen", PATIENCE, |s| {
                whole(s) && !s.contains("╭─") && !s.contains(MOMENTS) && !s.contains("all archived")
            });
            right = true;
            return true;
        }
        false
    });
    assert!(wrong && skipped && waived && right, "{wrong} {skipped} {waived} {right}");
    let (code, end) = leave(pty);
    let incident = incident(home.0.path());
    let facts = &incident.state().unwrap().facts;
    let (passed, checks, _) = facts.judged.clone().unwrap();
    assert!(passed && code == Some(0), "{code:?} {checks:?}\n{end}");
    let given_up = checks.iter().find(|c| c.name == "what was given up is given up as a whole").unwrap();
    assert!(!given_up.detail.starts_with("0 orders"), "{given_up:?}");
    let report = report(&home);
    for said in ["Of it, with a recovery that was given up", "safety gate “verification” was waived"] {
        assert!(report.contains(said), "{said:?} is not in the report:\n{report}");
    }
}
