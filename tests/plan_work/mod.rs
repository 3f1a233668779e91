//! Plans of five shapes, as teams write them, worked through in a real terminal at 80×24 to an exported timeline; what is
//! asked for on the way, what is never recorded, and what happens when the plan changes meanwhile.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use breakglass::model::event::Event;
use breakglass::model::{Plan, Record};
use breakglass::plan::parse;

use crate::bad_input::Desk;
use crate::support::pty::Pty;

const SHAPES: [(&str, &str); 5] = [
    ("scenarios.md", include_str!("shapes/scenarios.md")),
    ("phases.md", include_str!("shapes/phases.md")),
    ("numbered.md", include_str!("shapes/numbered.md")),
    ("alerts.md", include_str!("shapes/alerts.md")),
    ("prose.md", include_str!("shapes/prose.md")),
];

const SIZE: (u16, u16) = (80, 24);

/// The records of the only incident there is.
fn records(desk: &Desk) -> Vec<Record> {
    let store = desk.store();
    let id = store.ids().unwrap().pop().expect("an incident");
    store.incident(&id, Default::default()).unwrap().records().to_vec()
}

fn events(desk: &Desk) -> Vec<Event> {
    records(desk).into_iter().flat_map(|r| r.events).collect()
}

/// Declares a real incident of the scenario that is selected on home.
fn declare(pty: &Pty) {
    pty.keys("D");
    pty.wait_text("declare a REAL incident");
    pty.keys("enter");
    pty.wait_text("STEPS");
}

/// Works every step of the open incident by hand: ticks each item, marks each step as done, says that service is back,
/// exports and closes.
fn work_through(desk: &Desk, pty: &Pty, plan: &Plan, scenario: usize) {
    let steps = &plan.scenarios[scenario].steps;
    let mut ticks = 0;
    for (n, step) in steps.iter().enumerate() {
        pty.wait(&format!("step {} of {}", n + 1, plan.file), |s| s.contains(&format!("{n} of {}", steps.len())));
        for _ in &step.items {
            // As fast as a hand can: no press is lost while the journal is written.
            ticks += 1;
            pty.keys("space");
        }
        // What was out of sight is not ticked by the press that brings it into sight.
        until(&format!("{ticks} ticks"), || {
            within(Duration::from_millis(400), || ticked(desk) == ticks) || {
                pty.keys("space");
                false
            }
        });
        // A step that has just come up by itself does not take the key yet: pressed again until it does.
        let done = format!("{} of {}", n + 1, steps.len());
        until(&format!("{done} in {}", plan.file), || {
            pty.keys("d");
            within(Duration::from_millis(400), || pty.screen().contains(&done))
        });
    }
    pty.wait_text(&format!("{0} of {0}", steps.len()));
    pty.keys("R");
    pty.wait_text("How you know");
    pty.send(b"users are served");
    pty.keys("enter");
    pty.keys("E");
    pty.wait_text("files of the timeline in");
    pty.keys("C");
    // What is left for afterwards comes before a real incident is closed.
    pty.wait_text("Before closing");
    pty.keys("enter");
    pty.wait_text("one sentence for whoever");
    pty.send(b"worked through by hand");
    pty.keys("enter");
    pty.wait("closed", |s| s.contains("closed"));
}

/// Whether it comes true in a while.
fn within(while_: Duration, done: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < while_ {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    done()
}

fn ticked(desk: &Desk) -> usize {
    events(desk).iter().filter(|e| matches!(e, Event::ItemTicked { done: true, .. })).count()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < crate::support::pty::DEADLINE, "waited for {what}");
        std::thread::yield_now();
    }
}

fn worked(desk: &Desk, plan: &Plan, scenario: usize) {
    let (records, scenario) = (records(desk), &plan.scenarios[scenario]);
    let all: Vec<&Event> = records.iter().flat_map(|r| &r.events).collect();
    let finished = all.iter().filter(|e| matches!(e, Event::StepDone { .. })).count();
    assert_eq!(finished, scenario.steps.len(), "{}: {:?}", plan.file, scenario.title);
    let items: usize = scenario.steps.iter().map(|s| s.items.len()).sum();
    let ticks: Vec<_> =
        records.iter().filter(|r| r.events.iter().any(|e| matches!(e, Event::ItemTicked { done: true, .. }))).collect();
    assert_eq!(ticks.len(), items, "each item has a record and a time of its own");
    assert!(ticks.windows(2).all(|w| w[0].occurred_at <= w[1].occurred_at));
    assert!(all.iter().any(|e| matches!(e, Event::IncidentClosed { .. })));
    assert!(!all.iter().any(|e| matches!(e, Event::RunRequested { .. })), "nothing was run");
    // What was exported; the incident's own copy of the plan is no timeline.
    let copy = |p: &PathBuf| p.components().any(|c| c.as_os_str() == "plan");
    let timelines = found(&desk.state(), "md").into_iter().filter(|p| !copy(p));
    let text: String = timelines.map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let text = letters(&text);
    for step in &scenario.steps {
        assert!(text.contains(&letters(&step.title)), "{:?} is not in the timeline of {}", step.title, plan.file);
    }
}

/// Only letters and digits: Markdown escapes much of the rest.
fn letters(text: &str) -> String {
    let text = text.replace("&gt;", "").replace("&lt;", "").replace("&amp;", "").replace("&#124;", "");
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

fn found(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(found(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            out.push(path);
        }
    }
    out
}

#[test]
fn five_shapes_of_plans_are_worked_to_a_timeline() {
    for (name, text) in SHAPES {
        let plan = parse(name, text.as_bytes()).unwrap();
        let scenario = &plan.scenarios[0];
        assert!(!scenario.steps.is_empty(), "{name} has no steps");
        let desk = Desk::new();
        let path = desk.file(name, text).display().to_string();
        let pty = desk.console(SIZE, &["open", &path]);
        // Every scenario of the plan is on the first screen.
        for s in &plan.scenarios {
            pty.wait_text(&s.title.chars().take(20).collect::<String>());
        }
        declare(&pty);
        work_through(&desk, &pty, &plan, 0);
        worked(&desk, &plan, 0);
    }
}

/// The real plans, where they are at hand: every one opens at 80×24 with all its scenarios, and each scenario is worked to
/// a timeline. `BREAKGLASS_SOAK=1` plays all of them, the default run two: a long list's last, and one with a group.
#[test]
fn real_plans_are_worked_to_a_timeline() {
    let Some(folder) = crate::plan::real_plans() else { return eprintln!("no real plans here: BREAKGLASS_PLANS") };
    let soak = std::env::var_os("BREAKGLASS_SOAK").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "md"));
    files.sort();
    assert!(!files.is_empty());
    let mut played = 0;
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let plan = parse(&name, &std::fs::read(path).unwrap()).unwrap();
        let last = plan.scenarios.len() - 1;
        let sample = [("001", 1), ("002", last)];
        for number in 0..=last {
            if soak || sample.iter().any(|(p, n)| name.starts_with(p) && *n == number) {
                play(&plan, path, number);
                played += 1;
            }
        }
        if !soak && !sample.iter().any(|(p, _)| name.starts_with(p)) {
            let desk = Desk::new();
            let pty = desk.console(SIZE, &["open", path.to_str().unwrap()]);
            choose(&pty, &plan, last);
        }
    }
    println!("{played} scenarios of {} plans worked through", files.len());
}

/// Moves the selection on home to a scenario; every one on the way is seen selected.
fn choose(pty: &Pty, plan: &Plan, number: usize) {
    for (n, scenario) in plan.scenarios.iter().enumerate().take(number + 1) {
        if n > 0 {
            pty.keys("down");
        }
        let title: String = scenario.title.chars().take(20).collect();
        pty.wait(&format!("{title:?} of {} selected", plan.file), |s| {
            s.lines().any(|l| l.contains('▶') && l.contains(&title))
        });
    }
}

fn play(plan: &Plan, path: &Path, number: usize) {
    let desk = Desk::new();
    let pty = desk.console(SIZE, &["open", path.to_str().unwrap()]);
    choose(&pty, plan, number);
    declare(&pty);
    work_through(&desk, &pty, plan, number);
    worked(&desk, plan, number);
}

#[test]
fn what_the_plan_says_beside_its_steps_is_one_key_away() {
    let desk = Desk::new();
    let path = desk.file("scenarios.md", SHAPES[0].1).display().to_string();
    let pty = desk.console((100, 30), &["open", &path]);
    pty.wait_text("Database corruption");
    declare(&pty);
    for (key, says) in [
        ("c", "+1 555 0100"),
        ("O", "Critical systems"),
        ("T", "[Service Name] is down"),
        ("K", "Review within 5 days"),
        ("S", "Orders are lost"),
    ] {
        pty.keys(key);
        pty.wait(&format!("{key}: {says}"), |s| s.contains("BESIDE THE STEPS") && s.contains(says));
        pty.keys("esc");
        pty.wait("the steps again", |s| s.contains("STEPS") && !s.contains("BESIDE"));
    }
    // The matrix whole: what each severity means and by when somebody answers.
    pty.keys("S");
    pty.wait("both levels", |s| ["P0", "15 minutes", "P1", "Orders are late", "1 hour"].iter().all(|w| s.contains(w)));
    // From one to the other without a way back in between.
    pty.keys("c");
    pty.wait("contacts", |s| s.contains("+1 555 0100"));
    pty.keys("esc");
    pty.wait("the steps again", |s| s.contains("STEPS") && !s.contains("BESIDE"));
    // Objectives of several scopes are all shown.
    pty.keys("O");
    pty.wait("every scope", |s| ["Critical systems", "Reporting", "Orders"].iter().all(|w| s.contains(w)));
    pty.keys("esc");
    pty.wait("the steps again", |s| s.contains("STEPS") && !s.contains("BESIDE"));
    // The blanks of a message are asked once and stay.
    pty.keys("T enter");
    // When the next update is due is known.
    pty.wait("one question", |s| s.contains("▶[Service Name]") && !s.contains("[Time]"));
    pty.send(b"Orders");
    pty.keys("enter");
    pty.wait("the message filled in", |s| s.contains("Orders is down") && s.contains("Next update at 20"));
    pty.keys("enter");
    pty.wait_text("nothing is left to fill in");
    let set = events(&desk).into_iter().filter(|e| matches!(e, Event::VariableSet { .. })).count();
    assert_eq!(set, 1);
}

const TELLING: &str = "# Telling\n\n## Scenario 1: Lost service\n\n**Severity:** P1\n\n1. Look\n2. Tell\n\n   ```text\n   Subject: Orders are back\n\n   We call everybody by [Date].\n   Try again: [What To Repeat].\n   ```\n";

#[test]
fn the_blanks_of_a_steps_message_are_filled_in_from_its_preview() {
    let desk = Desk::new();
    let path = desk.file("telling.md", TELLING).display().to_string();
    let pty = desk.console(SIZE, &["open", &path]);
    pty.wait_text("Lost service");
    declare(&pty);
    pty.wait_text("declared as P1; impact since");
    pty.keys("d");
    pty.wait_text("next w write the step's message");
    pty.keys("w");
    pty.wait("the step's own message", |s| s.contains("(•) Tell  of this step"));
    pty.keys("enter");
    pty.wait_text("2 blanks are left: [Date], [What To Repeat]");
    pty.keys("e");
    pty.wait_text("Only a person knows these");
    pty.send(b"Monday");
    pty.keys("tab");
    pty.send(b"payments");
    pty.keys("enter");
    pty.wait("filled in", |s| s.contains("everybody by Monday.") && s.contains("Try again: payments."));
    pty.keys("enter");
    // Copied is not yet told.
    pty.wait_text("once it is out");
    pty.keys("enter");
    // At this severity the team is to hear of it as well.
    pty.wait_text("next w tell the team");
    let events = events(&desk);
    let sent = events.iter().find_map(|e| match e {
        Event::MessageSent { audience, text, how, step } => {
            Some((audience.as_str(), text, how.as_deref(), step.clone()))
        }
        _ => None,
    });
    let (audience, text, how, step) = sent.expect("a message");
    assert_eq!((audience, how), ("customers", Some("copied")));
    assert!(text.contains("by Monday.") && text.contains("payments."), "{text}");
    assert!(step.is_some_and(|s| events.contains(&Event::StepStarted { step: s })), "it began with the writing");
    assert!(!events.iter().any(|e| matches!(e, Event::ItemTicked { .. })));
}

const ASKING: &str = "# Asking\n\n## Scenario 1: Lost service\n\n1. Look at it\n\n   ```bash { risk=change }\n   echo \"at <db-host>\" as $REGION_NAME with '<api-token>' > \"$HOME/seen.txt\"\n   ```\n2. Look again\n\n   ```bash { risk=change }\n   echo <db-host> \"$REGION_NAME\" \"$API_TOKEN\"\n   ```\n";

#[test]
fn questions_are_asked_once_and_a_secret_reaches_the_command_and_nothing_else() {
    let desk = Desk::new();
    let path = desk.file("asking.md", ASKING).display().to_string();
    let pty = desk.console((100, 30), &["open", &path]);
    pty.wait_text("Lost service");
    declare(&pty);
    pty.keys("r");
    pty.wait("three questions", |s| {
        s.contains("REGION_NAME") && s.contains("<db-host>") && s.contains("<api-token>  never shown or recorded")
    });
    pty.send(b"eu west; id");
    pty.keys("tab");
    pty.send(b"db1 $(id)");
    pty.keys("tab");
    pty.send(b"s3cr3t-t0ken");
    let hidden = pty.wait_text("••••••••••••");
    assert!(!hidden.contains("s3cr3t"), "{hidden}");
    pty.keys("enter");
    // It goes on to the run that was asked for. Shown as it will run: the value stays one value, the secret a variable.
    let shown = pty.wait_text("exactly as it stands here");
    assert!(shown.contains("db1 \\$(id)") && shown.contains("${API_TOKEN}"), "{shown}");
    pty.keys("y");
    pty.wait("the run ended", |s| s.contains("exit code 0"));
    let seen = std::fs::read_to_string(desk.path("home").join("seen.txt")).unwrap();
    assert_eq!(seen.trim(), "at db1 $(id) as eu west; id with s3cr3t-t0ken");
    pty.keys("d");
    pty.wait_text("1 of 2");
    // Asked once: the second step needs nothing any more.
    pty.keys("r");
    pty.wait_text("exactly as it stands here");
    pty.keys("y");
    pty.wait("the output with the secret blacked out", |s| s.contains("db1 $(id)") && s.contains("•••"));
    // Nowhere in what is kept.
    drop(pty);
    for file in every_file(&desk.state()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(12).any(|w| w == b"s3cr3t-t0ken"), "the secret is in {}", file.display());
    }
    let vars: Vec<String> = events(&desk)
        .into_iter()
        .filter_map(|e| if let Event::VariableSet { name, .. } = e { Some(name) } else { None })
        .collect();
    assert_eq!(vars, ["REGION_NAME", "DB_HOST"]);
}

fn every_file(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { out.extend(every_file(&path)) } else { out.push(path) }
    }
    out
}

#[test]
fn a_session_on_another_machine_is_shown_and_never_run() {
    let desk = Desk::new();
    let path = desk.file("phases.md", SHAPES[1].1).display().to_string();
    let pty = desk.console((100, 30), &["open", &path]);
    pty.wait_text("Database failure");
    declare(&pty);
    pty.keys("down");
    pty.wait("why it is not run, and the lines", |s| {
        s.contains("Not run from here")
            && s.contains("meant for the other side")
            && s.contains("sudo systemctl restart")
    });
    pty.keys("r");
    pty.wait_text("this step has nothing to run");
    assert!(!events(&desk).iter().any(|e| matches!(e, Event::RunRequested { .. })));
}

#[test]
fn links_lead_to_other_plans_and_esc_comes_back() {
    let desk = Desk::new();
    let alerts = desk.file("alerts.md", SHAPES[3].1);
    desk.file(
        "contacts.md",
        "# Contacts\n\n## On call\n\n| Role | Phone |\n|---|---|\n| Duty engineer | +1 555 0199 |\n",
    );
    let folder = alerts.parent().unwrap().display().to_string();
    let pty = desk.console((100, 30), &["open", &folder]);
    pty.wait_text("Disk full");
    // The link stands in the second scenario.
    pty.keys("down enter");
    pty.wait("the second scenario", |s| s.contains("PLAN") && s.contains("Disk full"));
    pty.keys("L");
    pty.wait("the other document", |s| s.contains("BESIDE THE STEPS") && s.contains("+1 555 0199"));
    pty.keys("esc");
    pty.wait("back at the scenario", |s| s.contains("PLAN") && s.contains("Disk full"));
}

#[test]
fn a_plan_that_changes_is_offered_and_what_was_done_stays_done() {
    let desk = Desk::new();
    let before = "# P\n\n## Scenario 1: Lost index\n\n1. Look\n2. Rebuild\n3. Tell\n";
    let path = desk.file("p.md", before);
    let pty = desk.console((100, 30), &["open", path.to_str().unwrap()]);
    pty.wait_text("Lost index");
    declare(&pty);
    pty.keys("d");
    pty.wait_text("1 of 3");
    // A step before the one that is done, and a new one at the end.
    std::fs::write(
        &path,
        "# P\n\n## Scenario 1: Lost index\n\n1. Breathe\n2. Look\n3. Rebuild\n4. Tell\n5. Write it down\n",
    )
    .unwrap();
    let told = pty.wait_text("was changed: A looks at the new plan");
    assert!(told.contains("1 of 3"), "the incident keeps its plan:\n{told}");
    pty.keys("A");
    pty.wait_text("use the changed plan");
    pty.keys("y");
    let now = pty.wait_text("1 of 5");
    let done = now.lines().find(|l| l.contains("Look")).unwrap();
    assert!(done.contains('✓'), "what was done stays done:\n{now}");
    assert!(now.lines().any(|l| l.contains("Breathe") && !l.contains('✓')), "{now}");
    let events = events(&desk);
    assert!(events.iter().any(|e| matches!(e, Event::PlanOffered { .. })));
    assert!(events.iter().any(|e| matches!(e, Event::PlanAdopted { .. })));
}

#[test]
fn tricks_in_a_plan_do_nothing_to_the_terminal() {
    let desk = Desk::new();
    let hostile = "# P\u{202e}lan\n\n## Scenario 1: Lost \u{1b}[2J\u{1b}]0;owned\u{7}index\n\n1. Look\u{202e}\u{2066} at \u{1b}[31mit\u{9b}5n\n\n   ```bash\n   echo \u{202e}fr- mr\u{202c} \u{1b}[1A\n   ```\n2. Tell\n\n## Contacts\n\n| Role | Phone |\n|---|---|\n| Amy\u{1b}[5m | +1\u{202e}555 |\n";
    let path = desk.file("hostile.md", hostile).display().to_string();
    let pty = desk.console(SIZE, &["open", &path]);
    pty.wait_text("index");
    declare(&pty);
    pty.keys("enter");
    pty.wait_text("Look");
    pty.keys("c");
    pty.wait_text("BESIDE THE STEPS");
    let bytes = pty.bytes();
    let text = String::from_utf8_lossy(&bytes);
    for trick in ["\u{202e}", "\u{2066}", "\u{9b}", "\u{1b}]0;owned", "\u{1b}[5m", "\u{1b}[1A"] {
        assert!(!text.contains(trick), "{trick:?} reached the terminal");
    }
}
