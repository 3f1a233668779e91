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

/// A drill that was worked to its end.
struct Worked {
    home: Home,
    code: Option<i32>,
    /// Its last words.
    end: String,
}

impl Worked {
    #[track_caller]
    fn ended(&self, code: i32, word: &str) {
        assert!(self.code == Some(code) && self.end.contains(word), "{:?}:\n{}", self.code, self.end);
    }
    #[track_caller]
    fn reports(&self, words: &[&str]) {
        let report = report(&self.home);
        words.iter().for_each(|said| assert!(report.contains(said), "{said:?} is not in the report:\n{report}"));
    }
}

/// From the alarm to the end by what is next, or by what `own` does instead.
fn worked(args: &[&str], own: &mut dyn FnMut(&Pty, &str) -> bool) -> Worked {
    let home = Home(tempfile::tempdir().unwrap());
    let pty = begin(&home, args);
    work(&pty, "closed: drill by hand", own);
    let (code, end) = leave(pty);
    Worked { home, code, end }
}

fn report(home: &Home) -> String {
    let all = std::fs::read_dir(home.0.path().join("report")).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.extension().is_some_and(|e| e == "md")).map(|p| std::fs::read_to_string(p).unwrap()).collect()
}

/// From the alarm to the end by what is next; it passes, and the judge agrees.
fn obvious(args: &[&str]) {
    let done = worked(args, &mut |_, _| false);
    done.ended(0, "PASSED");
    let incident = incident(done.home.0.path());
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

/// Chooses everything that is archived, against the warning that the damage is in it.
fn choose_latest(pty: &Pty) {
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
}

/// Somebody who leaves a step out, once, and passes the gate that refuses what comes after it.
struct Hurried {
    step: usize,
    why: &'static str,
    /// What the refusal says.
    refusal: &'static str,
    /// Why the gate is passed.
    waiver: &'static str,
    skipped: bool,
    refused: usize,
}

impl Hurried {
    fn new(step: usize, why: &'static str, refusal: &'static str, waiver: &'static str) -> Self {
        Self { step, why, refusal, waiver, skipped: false, refused: 0 }
    }
    fn acts(&mut self, pty: &Pty, screen: &str) -> bool {
        if !self.skipped && at(screen, self.step, "r") {
            skip(pty, self.step, self.why);
            self.skipped = true;
            return true;
        }
        if screen.contains(REFUSED) {
            assert!(screen.contains(self.refusal), "{screen}");
            waive(pty, self.waiver);
            self.refused += 1;
            return true;
        }
        false
    }
    /// A key pressed before the waiver is in the journal is refused once more.
    fn was_refused(&self) {
        assert!(self.skipped && self.refused >= 1, "{} {}", self.skipped, self.refused);
    }
}

const MOMENTS: &str = "RESTORE TO JUST BEFORE";
const REFUSED: &str = "refused, nothing was touched";

#[test]
fn a_wrong_moment_is_warned_of_seen_and_put_right() {
    if !soak() {
        return;
    }
    let (mut chosen, mut led_back) = (false, false);
    let done = worked(&["database-corruption"], &mut |pty, screen| {
        if next(screen).1.contains("the damage is in what was recovered") {
            led_back = true;
        }
        if chosen || !screen.contains(MOMENTS) || screen.contains("╭─") {
            return false;
        }
        choose_latest(pty);
        chosen = true;
        true
    });
    assert!(chosen && led_back);
    done.ended(0, "PASSED");
    done.reports(&["Moment chosen: the end of the archive", "another moment was chosen", "choose an earlier moment"]);
}

#[test]
fn a_skipped_verification_is_refused_and_the_report_shows_it() {
    if !soak() {
        return;
    }
    let mut hurried = Hurried::new(7, "no time", "has not been verified", "the lead said so");
    let done = worked(&["database-corruption"], &mut |pty, screen| hurried.acts(pty, screen));
    hurried.was_refused();
    done.ended(1, "FAILED");
    done.reports(&["safety gate “verification” was waived: the lead said so", "step 7 “Verify” was skipped: no time"]);
}

#[test]
fn promoting_before_fencing_is_refused_and_two_primaries_fail_the_drill() {
    if !soak() {
        return;
    }
    let mut hurried = Hurried::new(4, "it is dead anyway", "fence", "it is dead anyway");
    let done = worked(&["regional-outage"], &mut |pty, screen| {
        if hurried.acts(pty, screen) {
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
    hurried.was_refused();
    done.ended(1, "FAILED");
    done.reports(&["was waived: it is dead anyway", "was skipped: it is dead anyway", "one primary"]);
    let incident = incident(done.home.0.path());
    let (passed, checks, _) = incident.state().unwrap().facts.judged.clone().unwrap();
    assert!(!passed, "{checks:?}");
}

#[test]
fn a_lagging_standby_is_said_before_it_is_promoted_and_its_loss_is_in_the_report() {
    if !soak() {
        return;
    }
    let mut asked = String::new();
    let done = worked(&["regional-outage", "--variant", "lagging"], &mut |_, screen| {
        if asked.is_empty() && screen.contains("run something that destroys") && screen.contains("failover promote") {
            asked = screen.to_string();
        }
        false
    });
    assert!(asked.contains("lose"), "the loss stands beside the question:\n{asked}");
    done.ended(0, "PASSED");
    done.reports(&["Rows lost", "public.orders"]);
}

#[test]
fn evidence_after_the_isolation_is_refused_first_and_shown_as_late() {
    if !soak() {
        return;
    }
    let mut hurried = Hurried::new(3, "later", "No evidence was collected", "it cannot wait");
    let mut late = false;
    let done = worked(&["security-breach"], &mut |pty, screen| {
        if hurried.acts(pty, screen) {
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
    hurried.was_refused();
    assert!(late);
    done.ended(1, "FAILED");
    done.reports(&[
        "safety gate “evidence” was waived: it cannot wait",
        "Evidence sealed only AFTER isolation",
        "the sessions are in the evidence",
    ]);
}

#[test]
fn a_wrong_moment_in_service_is_replaced_and_both_promotions_are_judged() {
    if !soak() {
        return;
    }
    let (mut wrong, mut skipped, mut waived, mut right) = (false, false, false, false);
    let done = worked(&["database-corruption"], &mut |pty, screen| {
        if !wrong && screen.contains(MOMENTS) && !screen.contains("╭─") {
            choose_latest(pty);
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
    let incident = incident(done.home.0.path());
    let facts = &incident.state().unwrap().facts;
    let (passed, checks, _) = facts.judged.clone().unwrap();
    assert!(passed && done.code == Some(0), "{:?} {checks:?}\n{}", done.code, done.end);
    let given_up = checks.iter().find(|c| c.name == "what was given up is given up as a whole").unwrap();
    assert!(!given_up.detail.starts_with("0 orders"), "{given_up:?}");
    done.reports(&["Of it, with a recovery that was given up", "safety gate “verification” was waived"]);
}
