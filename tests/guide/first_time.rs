//! What somebody who has never seen it asked while working a drill: whom else to tell, what a key needs first, what a word means,
//! where the rest of a line is.

use breakglass::app::command::Cmd;
use breakglass::app::dialog::{Ask, Field};
use breakglass::app::next::obvious;
use breakglass::app::{App, Effect, Pane};
use breakglass::incident::Command;
use breakglass::model::event::{Event, Kind, Outcome};
use breakglass::model::plan::{Risk, Scenario};
use breakglass::model::{RunId, StepId};

use super::doubts::{next_line, printed, ran, right, shipped};
use super::{ROWS, SIZE, of, opened, parsed, shown};
use crate::support::console::*;

const TELL: &str = "## 1. Tell\n\nIn their words.\n\n```text\nSubject: rows\n\nThey are back. Next update: [Next Update].\n```\n\n\
                    ## 2. Close\n\n```bash { risk=read }\nbreakglass health\n```\n";

fn sent(story: &mut Story, at: u64, audience: &str, text: &str, step: Option<StepId>) {
    let (audience, text) = (audience.to_string(), text.to_string());
    story.add(at, vec![Event::MessageSent { audience, text, how: Some("said".into()), step }]);
}

/// The story so far, told of a whole plan: its messages are there, too.
fn of_whole(story: &Story, steps: &str) -> breakglass::app::data::Incident {
    let text = format!("# Lost rows\n\n- **RTO:** 6 hours\n- **RPO:** 24 hours\n\n{steps}");
    let whole = breakglass::plan::parse("lost-rows.md", text.as_bytes()).unwrap();
    let mut data = of(story, &whole.scenarios[0]);
    data.plan = whole.into();
    data
}

/// The words of the dialog in one line.
fn asks(app: &mut App) -> String {
    let seen = shown(app);
    let inside = |l: &str| Some(l.split_once('│')?.1.rsplit_once('│')?.0.to_string());
    let rows: Vec<String> = seen.lines().filter_map(inside).collect();
    rows.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Who is asked in the form that `w` opens.
fn asked(app: &mut App) -> String {
    press(app, "w");
    let who = app.dialogs.last().map(|d| d.value(0).to_string()).unwrap_or_default();
    press(app, "esc");
    who
}

/// A step that tells people goes on until everybody has heard to whom a message is due; who closes before that is told.
#[test]
fn everybody_who_waits_is_told() {
    let plan = parsed(TELL);
    let step = plan.steps[0].id.clone();
    let mut story = Story::open(Kind::Real);
    story.add(1, vec![Event::IncidentDeclared { severity: "P1".into() }, Event::StepStarted { step: step.clone() }]);
    let mut app = opened(5, of_whole(&story, TELL));
    assert_eq!(asked(&mut app), "customers", "the step's own message comes first");
    sent(&mut story, 10, "customers", "They are back.", Some(step));
    let mut app = opened(20, of_whole(&story, TELL));
    let said = obvious(&app);
    assert!(said.cmd == Some(Cmd::Tell) && said.text.starts_with("tell the team"), "{said:?}");
    assert_eq!(asked(&mut app), "team");
    press(&mut app, "w");
    let what = app.dialogs.last().unwrap().value(1).to_string();
    assert!(!what.contains("Tell"), "the step's message is out: {what}");
    press(&mut app, "esc C");
    if matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Afterwards { .. })) {
        press(&mut app, "enter");
    }
    assert!(asks(&mut app).contains("Not sent: first message to team, due in"), "{}", shown(&mut app));
    sent(&mut story, 30, "team", "They are back.", None);
    let mut app = opened(40, of_whole(&story, TELL));
    app.incident.as_mut().unwrap().came_up = None;
    assert_eq!(obvious(&app).cmd, Some(Cmd::Done), "{:?}", obvious(&app));
}

/// Where a plan speaks of the authorities they are told at last, and by the message that is theirs.
#[test]
fn the_authorities_get_their_own_message() {
    let text = include_bytes!("../../runbooks/security-breach.md");
    let whole = breakglass::plan::parse("security-breach.md", text).unwrap();
    let steps = &whole.scenarios[0].steps;
    let at = steps.iter().position(|s| s.title.contains("Tell")).unwrap();
    let tell = steps[at].clone();
    let mut story = Story::open(Kind::Real);
    story.add(1, vec![Event::StepStarted { step: tell.id.clone() }]);
    let mut data = of(&story, &whole.scenarios[0]);
    data.plan = whole.clone().into();
    let mut app = opened(5, data);
    app.incident.as_mut().unwrap().steps.step = at;
    press(&mut app, "w");
    let what = |app: &App| app.dialogs.last().map(|d| (d.value(0).to_string(), d.value(1).to_string())).unwrap();
    let own = what(&app);
    assert_eq!(own.0, "customers");
    while what(&app).0 != "authorities" {
        press(&mut app, "right");
    }
    assert!(what(&app).1.contains("authorities"), "{:?}", what(&app));
    while what(&app).0 != "customers" {
        press(&mut app, "right");
    }
    assert_eq!(what(&app), own, "the step's own message again");
    let last = |story: &Story| {
        let mut data = of(story, &whole.scenarios[0]);
        data.plan = whole.clone().into();
        opened(90, data).incident.unwrap().still_to_tell(&tell).last().cloned()
    };
    sent(&mut story, 10, "customers", "Change your password.", Some(tell.id.clone()));
    assert_eq!(last(&story).as_deref(), Some("authorities"));
    sent(&mut story, 20, "authorities", "What happened.", None);
    assert_ne!(last(&story).as_deref(), Some("authorities"));
}

/// A message that went out stands in its step as it went out.
#[test]
fn what_was_sent_is_shown_as_it_was_sent() {
    let plan = parsed(TELL);
    let step = plan.steps[0].id.clone();
    let mut story = Story::open(Kind::Real);
    story.add(1, vec![Event::IncidentDeclared { severity: "P1".into() }, Event::StepStarted { step: step.clone() }]);
    assert!(shown(&mut opened(5, of(&story, &plan))).contains("[Next Update]"));
    sent(&mut story, 10, "customers", "They are back. Next update: tomorrow at noon.", Some(step));
    let seen = right(&mut opened(20, of(&story, &plan)));
    assert!(seen.contains("told the customers at 14:02:10 UTC"), "{seen}");
    assert!(seen.contains("tomorrow at noon") && !seen.contains("[Next Update]"), "{seen}");
}

/// What a command needs is named for every key that needs it, and asked for by the key that gives it.
#[test]
fn what_a_command_needs_is_named_and_offered() {
    let mut app = opened(20, of(&Story::open(Kind::Real), &parsed(ROWS)));
    press(&mut app, "down");
    let seen = shown(&mut app);
    assert!(seen.contains("r asks for TABLE, then goes on (e, too)"), "{seen}");
    assert!(seen.lines().last().unwrap().contains(" v variable"), "{seen}");
    press(&mut app, "v");
    let dialog = app.dialogs.last().unwrap();
    assert_eq!((dialog.value(0), dialog.focus), ("TABLE", 1), "{dialog:?}");
    let effects = press(&mut app, "\"public.orders\" enter");
    let [Effect::Submit(Command::SetVariable { name, value }, None)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((name.as_str(), value.as_str()), ("TABLE", "public.orders"));
    // With nothing missing nothing is put in, and the key needs no place among the hints.
    let mut story = Story::open(Kind::Real);
    story.add(5, vec![Event::VariableSet { name: "TABLE".into(), value: "public.orders".into() }]);
    let mut app = opened(20, of(&story, &parsed(ROWS)));
    press(&mut app, "down");
    assert!(!shown(&mut app).lines().last().unwrap().contains(" v variable"), "{}", shown(&mut app));
    press(&mut app, "v");
    assert_eq!(app.dialogs.last().unwrap().value(0), "");
}

/// What has to be thought of before rows come back stands above the fold.
#[test]
fn what_is_left_out_is_said_before_the_rows_come_back() {
    let plan = shipped("data-deletion").scenarios.remove(0);
    let at = plan.steps.iter().position(|s| s.title == "Restore what was lost").unwrap();
    let mut story = Story::open(Kind::Drill);
    for (n, step) in plan.steps[..at].iter().enumerate() {
        story.add(n as u64 + 1, vec![Event::StepDone { step: step.id.clone() }]);
    }
    let mut app = opened(50, of(&story, &plan));
    let seen = right(&mut app);
    assert!(seen.contains("--where"), "{}", shown(&mut app));
    assert!(!plan.steps[at].text.contains("Look first"), "{}", plan.steps[at].text);
    // What is done with the copy has a date and a command.
    let after = shipped("data-deletion");
    assert!(after.scenarios[0].after.iter().any(|i| i.title.contains("breakglass pitr discard")));
}

/// What comes next is said in words that fit, with what is known and never with the name of a variable.
#[test]
fn what_is_next_fits_and_names_no_variable() {
    let mut story = Story::open(Kind::Real);
    let mut app = opened(20, of(&story, &parsed(ROWS)));
    let said = next_line(&mut app);
    assert!(said.contains("r run pitr restore: asks for the moment first (changes; asks first)"), "{said}");
    let c = candidates().remove(0);
    story.add(21, vec![Event::MomentChosen { target: c.target.clone(), at: Some(c.at), loses: Some(c.loses) }]);
    let mut app = opened(30, of(&story, &parsed(ROWS)));
    let said = next_line(&mut app);
    assert!(said.contains(&format!("run pitr restore --to {} --into beside", c.at.hms())), "{said}");
    story.step(1, 31, 32);
    for value in [None, Some("public.a_table_with_a_name_that_is_longer_than_any_line_has_room_for")] {
        if let Some(value) = value {
            story.add(40, vec![Event::VariableSet { name: "TABLE".into(), value: value.into() }]);
        }
        let mut app = opened(50, of(&story, &parsed(ROWS)));
        let said = next_line(&mut app);
        assert!(said.contains("r run pitr partial") && said.contains("(changes; asks first)"), "{said}");
        assert!(!said.contains('$') && !said.contains('…'), "{said}");
    }
}

/// A severity is chosen by what it asks for, in the direction in which the choices stand.
#[test]
fn a_severity_says_what_it_asks_for() {
    let mut app = opened(20, of(&Story::open(Kind::Real), &parsed(ROWS)));
    press(&mut app, "D");
    let seen = shown(&mut app);
    let words = asks(&mut app);
    for said in [
        "(•) P0 critical: service down or data damaged; respond within 15 min, tell customers within 1 h",
        "( ) P1 high: a major part does not work; respond within 1 h, tell team within 2 h",
    ] {
        assert!(words.contains(said), "{said}: {seen}");
    }
    assert!(seen.lines().last().unwrap().contains("↑↓ choose"), "{seen}");
    for (keys, chosen, focus) in
        [("down", "P1", 0), ("right", "P2", 0), ("up", "P1", 0), ("tab", "P1", 1), ("up", "P1", 0)]
    {
        press(&mut app, keys);
        let dialog = app.dialogs.last().unwrap();
        assert_eq!((dialog.value(0), dialog.focus), (chosen, focus), "{keys}");
    }
    press(&mut app, "down down down");
    let dialog = app.dialogs.last().unwrap();
    assert_eq!((dialog.value(0), dialog.focus), ("P3", 1), "below the last choice is the next field");
}

/// What a run took is not read as what a recovery takes, and a run is called by what it runs.
#[test]
fn a_result_is_read_as_what_it_is() {
    let mut story = Story::open(Kind::Real);
    let run = story.run(3, "contain", "breakglass contain", Risk::Change, 3);
    let mut app = opened(5, story.data());
    press(&mut app, "down down");
    assert!(next_line(&mut app).contains("nothing to do but watch: contain is going on"), "{}", next_line(&mut app));
    story.finish(run, 5, Outcome::Succeeded, "everything committed until 0/5A2F118 can be recovered", vec![]);
    let mut data = story.data();
    printed(&mut data, &["log archived"]);
    let mut app = opened(9, data);
    press(&mut app, "down down");
    let seen = right(&mut app);
    assert!(seen.contains("can be recovered (ran for 0:09)") && !seen.contains("recovered in"), "{seen}");
    assert!(seen.contains("output of contain") && !shown(&mut app).contains("of run "), "{}", shown(&mut app));
}

/// While the output has the focus the result stays, however long the command is; nothing is written over, lines meet.
#[test]
fn the_result_stays_beside_a_large_output() {
    let options = "--table public.orders ".repeat(9);
    let plan = parsed(&format!(
        "## 1. Look\n\n{}\n\n```bash {{ risk=read }}\nbreakglass pitr check {options}\n```\n\n## 2. Go\n\nAloud.\n",
        "Words to be read before it. ".repeat(20)
    ));
    let mut story = Story::open(Kind::Real);
    ran(&mut story, &plan, 1, 1, 5, Some("breakglass pitr check --table public.orders --table x"), vec![]);
    let lines: Vec<String> = (0..40).map(|n| format!("line {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    for size in [(80, 24), (80, 20), (60, 16)] {
        let mut data = of(&story, &plan);
        printed(&mut data, &lines);
        let mut app = opened(20, data);
        app.size = size;
        press(&mut app, "3");
        assert_eq!(app.steps_ui().unwrap().pane, Pane::Output);
        let seen = shown(&mut app);
        assert!(seen.contains("✓ it is done (ran for"), "{size:?}\n{seen}");
        assert!(!seen.contains("┤─"), "{size:?}\n{seen}");
        for row in seen.lines().filter(|l| l.contains("pgdn")) {
            let text = row.split("pgdn").next().unwrap().rsplit('│').next().unwrap();
            assert!(text.trim().is_empty() || text.trim_end().ends_with('…'), "{size:?}\n{row}");
        }
    }
}

/// Who ticks from item to item in the text is led on, and sees what was just ticked.
#[test]
fn the_next_item_and_the_last_one_stay_in_sight() {
    let items: String = (1..=9)
        .map(|n| format!("- [ ] Item number {n}, which says what has to be true before the step is done\n"))
        .collect();
    let plan = parsed(&format!("## 1. Read\n\nSee to it.\n\n{items}\n\n## 2. Go\n\nAloud.\n"));
    for pane in ["", "enter"] {
        let mut story = Story::open(Kind::Real);
        story.add(1, vec![Event::StepStarted { step: plan.steps[0].id.clone() }]);
        let mut app = opened(20, of(&story, &plan));
        press(&mut app, pane);
        shown(&mut app);
        for n in 0..8u32 {
            let effects = press(&mut app, "space");
            let ticked =
                matches!(&effects[..], [Effect::Submit(Command::Tick { item, done: true, .. }, None)] if *item == n);
            assert!(ticked, "{pane:?} {n}: {effects:?}\n{}", shown(&mut app));
            story.add(21, vec![Event::ItemTicked { step: plan.steps[0].id.clone(), item: n, done: true }]);
            super::journal(&mut app, of(&story, &plan));
            let seen = right(&mut app);
            for item in [n + 1, n + 2] {
                assert!(
                    seen.contains(&format!("Item number {item}, which says")),
                    "{pane:?} {item}\n{}",
                    shown(&mut app)
                );
            }
        }
    }
}

/// A list whose lines are longer than the form goes on in further rows, and the choice stays in sight.
#[test]
fn what_is_for_afterwards_can_be_read() {
    for size in [SIZE, (60, 16)] {
        let whole = shipped("security-breach");
        let mut story = Story::open(Kind::Real);
        story.add(10, vec![Event::IncidentDeclared { severity: "P0".into() }]);
        let mut data = of(&story, &whole.scenarios[0]);
        data.plan = whole.into();
        let mut app = opened(20, data);
        app.size = size;
        press(&mut app, "X");
        let Some(Field::Choice { options, .. }) = app.dialogs.last().and_then(|d| d.fields.first()) else { panic!() };
        let items: Vec<String> = options.iter().map(|(_, about)| about.clone()).collect();
        for item in &items {
            assert!(asks(&mut app).contains(item.as_str()), "{size:?} {item}\n{}", shown(&mut app));
            press(&mut app, "down");
        }
    }
}

/// A result in rows is read from its head, and says how much of it there is.
#[test]
fn a_table_is_read_from_its_head() {
    let plan: Scenario =
        parsed("## 1. Look\n\n```sql { risk=read }\nSELECT 1;\n```\n\n- [ ] Seen\n\n## 2. Go\n\nAloud.\n");
    let mut story = Story::open(Kind::Real);
    let block = plan.steps[0].blocks[0].line;
    let request = Event::RunRequested {
        step: Some(plan.steps[0].id.clone()),
        block_line: Some(block),
        action: "sql".into(),
        shown: "SELECT 1;".into(),
        args: vec![],
        risk: Risk::Read,
        confirmed: None,
    };
    let run = RunId(story.add(3, vec![Event::StepStarted { step: plan.steps[0].id.clone() }, request]));
    story.add(3, vec![Event::RunStarted { run, pid: 1, host: "bastion".into(), program: "0.1.0".into() }]);
    story.finish(run, 5, Outcome::Succeeded, "30 rows", vec![]);
    let rows: Vec<String> = (1..=30).map(|n| format!("role_{n:02} | f | t")).collect();
    let mut lines = vec!["role | superuser | login"];
    lines.extend(rows.iter().map(String::as_str));
    let mut data = of(&story, &plan);
    printed(&mut data, &lines);
    let mut app = opened(9, data);
    let seen = shown(&mut app);
    assert!(seen.contains("role | superuser") && seen.contains("role_01") && !seen.contains("role_30"), "{seen}");
    assert!(seen.contains("of 31") && seen.contains("3 enlarges"), "{seen}");
    press(&mut app, "3 G");
    let seen = shown(&mut app);
    assert!(seen.contains("role_30") && !seen.contains("role_01"), "{seen}");
    // What all fits says nothing of more.
    let mut data = of(&story, &plan);
    printed(&mut data, &lines[..2]);
    let seen = shown(&mut opened(9, data));
    assert!(seen.contains("2 lines") && !seen.contains("2 of 2"), "{seen}");
}

/// Commands are counted by what is to be run: another way by hand is none of them.
#[test]
fn another_way_is_not_counted() {
    let plan = parsed(
        "## 1. Keep\n\nWritten out:\n\n```bash { risk=read }\nbreakglass evidence collect\n```\n\nBy hand, the sessions:\n\n\
         ```sql { risk=read }\nSELECT 1;\n```\n\n## 2. Go\n\nAloud.\n",
    );
    let mut app = opened(9, of(&Story::open(Kind::Real), &plan));
    let seen = shown(&mut app);
    assert!(!seen.contains("1 of 2") && seen.contains("] by hand"), "{seen}");
    press(&mut app, "]");
    assert!(right(&mut app).contains("by hand"), "{}", shown(&mut app));
    let breach = shipped("security-breach").scenarios.remove(0);
    let backup = breach.steps.iter().find(|s| s.title == "Take a new base backup").unwrap();
    let commands: Vec<&str> = breakglass::action::runnable::blocks(backup).map(|b| b.code.as_str()).collect();
    assert_eq!(commands, ["breakglass backup list", "breakglass backup create --physical"]);
}
