//! Moments of doubt of somebody who works a drill for the first time, each removed: what is still off, what was not told, what was
//! opened again, what ran, what is out of sight, what comes next.

use breakglass::app::command::Cmd;
use breakglass::app::dialog::{Ask, Field};
use breakglass::app::next::obvious;
use breakglass::app::update::update;
use breakglass::app::words;
use breakglass::app::{App, Effect, Msg, Pane, Screen};
use breakglass::incident::forecast::{StepTimes, forecast};
use breakglass::incident::{Command, Context, Policy, StepStatus, decide};
use breakglass::model::event::{Event, Kind, Outcome};
use breakglass::model::plan::{Risk, Scenario};
use breakglass::model::{Actor, RunId, StepId};

use super::{ROWS, SIZE, journal, of, opened, parsed, shown};
use crate::support::console::*;

/// A run of a command of a plan's step, finished.
pub(super) fn ran(
    story: &mut Story,
    plan: &Scenario,
    step: usize,
    command: usize,
    at: u64,
    shown: Option<&str>,
    facts: Vec<Event>,
) {
    let of = &plan.steps[step - 1];
    let block = breakglass::action::runnable::blocks(of).nth(command - 1).unwrap();
    let shown = shown.unwrap_or(&block.code).to_string();
    let own = block.own.as_ref().map(|_| shown.split(' ').nth(1).unwrap_or_default().to_string());
    let args = shown.split(' ').skip(2).map(String::from).collect();
    let risk = if shown.contains("--dry-run") { Risk::Read } else { block.risk.unwrap_or(Risk::Change) };
    let request = Event::RunRequested {
        step: Some(of.id.clone()),
        block_line: Some(block.line),
        action: own.unwrap_or_else(|| "shell".into()),
        shown,
        args,
        risk,
        confirmed: None,
    };
    let run = RunId(story.add(at, vec![Event::StepStarted { step: of.id.clone() }, request]));
    story.add(at, vec![Event::RunStarted { run, pid: 1, host: "bastion".into(), program: "0.1.0".into() }]);
    story.finish(run, at + 1, Outcome::Succeeded, "it is done", facts);
}

fn contained(done: &[&str]) -> Vec<Event> {
    let done = done.iter().map(|d| d.to_string()).collect();
    vec![Event::BleedingStopped { done, archived_lsn: None }]
}

/// The screen's words in one line, the right side only, as they are read.
pub(super) fn right(app: &mut App) -> String {
    let seen = shown(app);
    let rows = seen.lines().map(|l| l.rsplit('│').next().unwrap_or("").trim());
    rows.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn next_line(app: &mut App) -> String {
    let seen = shown(app);
    seen.lines().rev().nth(1).unwrap_or_default().to_string()
}

const CONTAIN: &str = "## 1. Stop the bleeding\n\n```bash { risk=change }\nbreakglass contain\n```\n\n";
const AFTER: &str =
    "## 3. Verify\n\n```bash { risk=read }\nbreakglass pitr check --table a\n```\n\n## 4. Close\n\nAloud.\n";

#[test]
fn writes_that_are_still_off_are_named_until_they_are_on() {
    let partial = "## 2. Bring the rows back\n\n```bash { risk=change }\nbreakglass pitr partial --table a\n```\n\n";
    let plan = parsed(&format!("{CONTAIN}{partial}{AFTER}"));
    let mut story = Story::open(Kind::Real);
    ran(&mut story, &plan, 1, 1, 5, None, contained(&["writes off: new transactions of \"shop\" are read-only"]));
    story.add(8, vec![Event::StepDone { step: plan.steps[0].id.clone() }]);
    // While rows are brought back they may be off.
    assert_eq!(obvious(&opened(20, of(&story, &plan))).cmd, Some(Cmd::Run));
    ran(&mut story, &plan, 2, 1, 30, None, vec![]);
    story.add(33, vec![Event::StepDone { step: plan.steps[1].id.clone() }]);
    let mut app = opened(40, of(&story, &plan));
    assert_eq!(obvious(&app).cmd, Some(Cmd::WritesOn), "{:?}", obvious(&app));
    assert!(next_line(&mut app).contains("U turn writes on again"), "{}", shown(&mut app));
    assert!(right(&mut app).contains("Writes are off since 14:02:06 UTC, and nobody turned them on again."));
    assert!(shown(&mut app).contains("still off"));
    press(&mut app, "R");
    assert!(shown(&mut app).contains("Writes are off since"), "{}", shown(&mut app));
    press(&mut app, "esc");
    // The key asks like every run that changes something.
    let effects = press(&mut app, "U");
    let [Effect::Preview(request)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((request.action.as_str(), request.risk, &request.step), ("contain", Risk::Change, &None));
    assert_eq!(
        (request.args.as_slice(), request.shown.as_str()),
        (&["--keep-writes".to_string()][..], "breakglass contain --keep-writes")
    );
    app.busy = None;
    // Also at the end, when all steps are worked.
    let mut end = story.data();
    end.scenario = plan.clone().into();
    for step in &plan.steps {
        end.state.steps.entry(step.id.clone()).or_default().status = StepStatus::Done;
    }
    assert_eq!(obvious(&opened(50, end)).cmd, Some(Cmd::WritesOn));
    story.add(45, contained(&["writes are on again", "log archived"]));
    journal(&mut app, of(&story, &plan));
    assert_eq!(obvious(&app).cmd, Some(Cmd::Run));
    assert!(!shown(&mut app).contains("Writes are off"), "{}", shown(&mut app));
    press(&mut app, "U");
    assert!(app.messages.last().unwrap().text.contains("nothing on record turned writes off"));
}

#[test]
fn where_a_promotion_turns_writes_on_it_is_said_and_not_asked_for() {
    let promote = "## 2. Verify\n\n```bash { risk=read }\nbreakglass pitr verify\n```\n\n\
                   ## 3. Promote\n\n```bash { risk=destroy }\nbreakglass pitr promote\n```\n\n## 4. Close\n\nAloud.\n";
    let plan = parsed(&format!("{CONTAIN}{promote}"));
    let mut story = Story::open(Kind::Real);
    ran(&mut story, &plan, 1, 1, 5, None, contained(&["writes off: read-only"]));
    story.add(8, vec![Event::StepDone { step: plan.steps[0].id.clone() }]);
    let mut app = opened(20, of(&story, &plan));
    assert_eq!(obvious(&app).cmd, Some(Cmd::Run));
    assert!(right(&mut app).contains("Writes are off since 14:02:06 UTC; step 3 turns them on again."));
    // Left out, somebody has to.
    story.add(21, vec![Event::StepDone { step: plan.steps[1].id.clone() }]);
    story.add(22, vec![Event::StepSkipped { step: plan.steps[2].id.clone(), reason: "columns were copied".into() }]);
    assert_eq!(obvious(&opened(30, of(&story, &plan))).cmd, Some(Cmd::WritesOn));
    story.add(31, vec![Event::Promoted { identity: identity(), kept: "/damaged".into() }]);
    assert_ne!(obvious(&opened(40, of(&story, &plan))).cmd, Some(Cmd::WritesOn));
}

/// A step that tells people ends with nothing told only when that is asked for twice, and it is on record.
#[test]
fn telling_nobody_is_asked_about_and_recorded() {
    let close = "## 2. Close\n\n```bash { risk=read }\nbreakglass health\n```\n";
    let message = "```text\nSubject: rows\n\nThey are back.\n```\n\n";
    for message in [message, ""] {
        let steps = format!("## 1. Tell\n\nIn their words.\n\n{message}{close}");
        let plan = parsed(&steps);
        let mut story = Story::open(Kind::Real);
        let mut app = opened(20, of(&story, &plan));
        app.incident.as_mut().unwrap().came_up = None;
        assert_eq!(obvious(&app).cmd, Some(Cmd::Tell));
        assert_eq!(press(&mut app, "d"), []);
        let said = app.messages.last().unwrap().text.clone();
        assert!(said.contains("nothing was told in this step") && said.contains("d again"), "{said}");
        let effects = press(&mut app, "d");
        let [Effect::Submit(finish @ Command::FinishStep { step }, None)] = &effects[..] else { panic!("{effects:?}") };
        let (data, now, policy, actor) = (of(&story, &plan), now(21), Policy::default(), Actor::new("ben@bastion"));
        let ctx = Context { scenario: &data.scenario, now: &now, actor: &actor, policy: &policy };
        let events = decide(Some(&data.state), finish, ctx).unwrap();
        let note = "Step 1 “Tell” was finished with nothing told: no message is on record".to_string();
        assert_eq!(events, [Event::StepDone { step: step.clone() }, Event::NoteAdded { text: note }]);
        // Told, it is finished at once.
        let (audience, text) = ("team".to_string(), "They are back.".to_string());
        let sent = Event::MessageSent { audience, text, how: Some("said".into()), step: Some(step.clone()) };
        story.add(22, vec![Event::StepStarted { step: step.clone() }, sent]);
        let mut app = opened(30, of(&story, &plan));
        app.incident.as_mut().unwrap().came_up = None;
        assert_eq!(press(&mut app, "d").len(), 1);
        let told = of(&story, &plan);
        let ctx = Context { scenario: &told.scenario, now: &now, actor: &actor, policy: &policy };
        assert_eq!(decide(Some(&told.state), finish, ctx).unwrap().len(), 1);
    }
}

/// What was opened again is open; it has taken what was worked on it, not what lies between.
#[test]
fn a_step_that_was_opened_again_is_open_and_its_pause_is_no_work() {
    let mut story = Story::open(Kind::Real);
    let id = StepId::new("s1");
    story.step(1, 5, 20);
    story.add(25, vec![Event::StepSkipped { step: StepId::new("s2"), reason: "known already".into() }]);
    story.add(3_000, vec![Event::StepReopened { step: id.clone(), reason: "a third report".into() }]);
    story.add(3_001, vec![Event::StepReopened { step: StepId::new("s2"), reason: "not known after all".into() }]);
    let state = story.data().state;
    assert_eq!([&id, &StepId::new("s2")].map(|s| state.step(s).status), [StepStatus::Open; 2]);
    let mut app = with_incident(SIZE, 3_002, story.data());
    let seen = shown(&mut app);
    assert!(right(&mut app).contains("opened again at 14:52:00 UTC: a third report"), "{seen}");
    press(&mut app, "down");
    assert!(!shown(&mut app).contains("skipped") && right(&mut app).contains("not known after all"), "{seen}");
    story.step(1, 3_600, 3_610);
    story.step(2, 3_610, 3_615);
    let data = story.data();
    assert_eq!(data.state.step(&id).took().unwrap().as_secs(), 25);
    assert_eq!(data.state.step(&StepId::new("s2")).took().unwrap().as_secs(), 5);
    let mut app = with_incident(SIZE, 3_620, data);
    press(&mut app, "g g down");
    let seen = shown(&mut app);
    assert!(seen.contains("0:25") && !seen.contains("skipped"), "{seen}");
    // Begun and opened again, its clock starts anew, and so does what it is expected to take.
    let mut story = Story::open(Kind::Real);
    story.step(1, 5, 20);
    story.add(6_000, vec![Event::StepReopened { step: id.clone(), reason: "a third report".into() }]);
    let (fresh, data) = (Story::open(Kind::Real).data(), story.data());
    let left = |data: &breakglass::app::data::Incident, at| {
        let f = forecast(&data.state, &data.scenario, &StepTimes::new(), None, &now(at));
        f.p50.unwrap().since(now(at).time)
    };
    assert_eq!(left(&data, 6_001), left(&fresh, 1), "as long as when nothing of it was done");
    story.add(6_010, vec![Event::StepStarted { step: id.clone() }]);
    let mut app = with_incident(SIZE, 6_015, story.data());
    let row = shown(&mut app).lines().find(|l| l.starts_with('▶')).unwrap().to_string();
    assert!(row.contains("0:05") && !row.contains("late"), "{row}");
}

/// What ran stands above what came of it, when it is not the plan's own words.
#[test]
fn what_ran_stands_above_its_result() {
    let plan = parsed(ROWS);
    let mut story = Story::open(Kind::Real);
    story.add(5, vec![Event::VariableSet { name: "TABLE".into(), value: "public.orders".into() }]);
    story.step(1, 6, 7);
    let tried = "breakglass pitr partial --table public.orders --with-children --dry-run";
    ran(&mut story, &plan, 2, 1, 20, Some(tried), vec![]);
    let mut app = opened(30, of(&story, &plan));
    let seen = right(&mut app);
    let (planned, did) = (seen.find("$ breakglass pitr partial").unwrap(), seen.find("ran: breakglass pitr partial"));
    let did = did.unwrap_or_else(|| panic!("{seen}"));
    let result = seen.find("it is done").unwrap();
    assert!(planned < did && did < result && seen[did..result].contains("--dry-run"), "{seen}");
    ran(&mut story, &plan, 2, 1, 40, Some("breakglass pitr partial --table public.orders --with-children"), vec![]);
    assert!(!shown(&mut opened(50, of(&story, &plan))).contains("ran:"), "the same is said once");
}

/// What was only tried is offered ready to be done, the cursor where the word was.
#[test]
fn a_try_is_offered_as_the_real_thing() {
    let plan = parsed(ROWS);
    let mut story = Story::open(Kind::Real);
    story.add(5, vec![Event::VariableSet { name: "TABLE".into(), value: "a".into() }]);
    story.step(1, 6, 7);
    ran(&mut story, &plan, 2, 1, 20, Some("breakglass pitr partial --dry-run --table a --where x"), vec![]);
    let mut app = opened(30, of(&story, &plan));
    // As it was changed in this console.
    let place = (plan.steps[1].id.clone(), plan.steps[1].blocks[0].line);
    let planned = "breakglass pitr partial --table a --with-children".to_string();
    let changed = "breakglass pitr partial --dry-run --table a --where x".to_string();
    app.incident.as_mut().unwrap().edited.insert(place, (planned, changed));
    assert_eq!(obvious(&app).cmd, Some(Cmd::Edit));
    press(&mut app, "e");
    let Some(Field::Text { line, .. }) = app.dialogs.last().and_then(|d| d.fields.first()) else { panic!() };
    assert_eq!(line.text(), "breakglass pitr partial --table a --where x");
    assert_eq!(line.cursor(), "breakglass pitr partial".len());
}

pub(super) fn printed(data: &mut breakglass::app::data::Incident, lines: &[&str]) {
    let run = *data.state.runs.keys().last().unwrap();
    let output = breakglass::app::data::Output { lines: Memory::of(0, lines), file: "output.log".into() };
    data.outputs.insert(run, output);
}

/// What a command printed has room at 80×24, and the pane says which key gives it more; nothing reads as if lines were hidden.
#[test]
fn what_was_printed_has_room_and_says_how_to_get_more() {
    let words =
        "Rows that the copy has and the live database has not are brought back, referenced tables first. ".repeat(6);
    let plan = parsed(&format!(
        "## 1. Rows\n\n{words}\n\n```bash {{ risk=read }}\nbreakglass assess\n```\n\n## 2. Tell\n\nAloud.\n"
    ));
    let mut story = Story::open(Kind::Real);
    ran(&mut story, &plan, 1, 1, 5, None, vec![]);
    let mut data = of(&story, &plan);
    let lines: Vec<String> = (1..=20).map(|n| format!("line {n} | {}", "of the output ".repeat(5))).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    printed(&mut data, &lines);
    let mut app = opened(20, data);
    let rows = |app: &mut App| shown(app).lines().filter(|l| l.contains("of the output")).count();
    let (seen, before) = (shown(&mut app), rows(&mut app));
    assert!(before >= 7, "{before}: {seen}");
    assert!(seen.contains("→ sideways") && seen.contains("3 enlarges"), "{seen}");
    assert!(!seen.contains("→ more"), "{seen}");
    press(&mut app, "3");
    let seen = shown(&mut app);
    assert!(rows(&mut app) > before && !seen.contains("enlarges"), "{seen}");
    press(&mut app, "right");
    assert!(shown(&mut app).contains("←→ sideways"), "{}", shown(&mut app));
}

fn long() -> Scenario {
    let words = "What is read before anything is ticked, and what nobody should pass over in a hurry. ".repeat(12);
    let items =
        (1..=5).map(|n| format!("- [ ] Item number {n}, which says what has to be true before the step is done\n"));
    let items: String = items.collect();
    parsed(&format!(
        "## 1. Read\n\n{words}\n\n{items}\n```bash {{ risk=read }}\nbreakglass health\n```\n\n## 2. Go\n\nAloud.\n"
    ))
}

/// Pages scroll what is read; the list of steps stays where it is.
#[test]
fn a_page_scrolls_the_text_and_not_the_steps() {
    let plan = long();
    for keys in ["pagedown", "ctrl-d", "pagedown pageup pagedown"] {
        let mut app = opened(20, of(&Story::open(Kind::Real), &plan));
        let before = shown(&mut app);
        assert!(before.contains("pgdn") && before.contains("5 to tick"), "{before}");
        press(&mut app, keys);
        assert_eq!(app.steps_ui().unwrap().step, 0, "{keys}");
        assert_ne!(right(&mut app), before, "{keys}");
        press(&mut app, "down");
        assert_eq!(app.steps_ui().unwrap().step, 1, "a row at a time goes to the next step");
    }
    let mut app = opened(20, of(&Story::open(Kind::Real), &plan));
    press(&mut app, "pagedown pagedown pagedown pagedown");
    assert!(shown(&mut app).contains("Item number 5"), "{}", shown(&mut app));
}

/// What was not in sight is neither ticked nor passed over.
#[test]
fn nothing_is_ticked_or_passed_over_unseen() {
    let plan = long();
    let mut app = opened(20, of(&Story::open(Kind::Real), &plan));
    app.incident.as_mut().unwrap().came_up = None;
    assert!(!shown(&mut app).contains("Item number 1"));
    assert_eq!(press(&mut app, "space"), [], "it was out of sight");
    assert!(shown(&mut app).contains("Item number 1") && app.messages.last().unwrap().text.contains("not ticked"));
    let effects = press(&mut app, "space");
    assert!(matches!(&effects[..], [Effect::Submit(Command::Tick { item: 0, done: true, .. }, None)]), "{effects:?}");
    // Finishing names the first open item, and goes on only when all of them were on the screen.
    let mut app = opened(20, of(&Story::open(Kind::Real), &plan));
    app.incident.as_mut().unwrap().came_up = None;
    let mut presses = 0;
    let mut effects = vec![];
    while effects.is_empty() && presses < 6 {
        presses += 1;
        effects = press(&mut app, "d");
        if presses == 1 {
            let said = &app.messages.last().unwrap().text;
            assert!(said.contains("5 items not ticked") && said.contains("Item number 1"), "{said}");
            assert!(shown(&mut app).contains("Item number 1"), "{}", shown(&mut app));
        }
    }
    assert!(matches!(&effects[..], [Effect::Submit(Command::FinishStep { .. }, None)]), "{effects:?}");
    let seen = &app.incident.as_ref().unwrap().seen;
    assert_eq!(seen.iter().filter(|(s, _)| *s == plan.steps[0].id).count(), 5, "{seen:?}");
}

/// An item that takes all the rows there are is read and ticked like every other.
#[test]
fn an_item_as_long_as_the_pane_can_be_ticked() {
    for words in (4..=80).step_by(4) {
        let plan = parsed(&format!(
            "## 1. Look\n\nWhat is seen:\n\n```bash {{ risk=read }}\nbreakglass health\n```\n\n- [ ] Item {}end\n- [ ] Other\n",
            "words to be read ".repeat(words / 4)
        ));
        let mut story = Story::open(Kind::Real);
        ran(&mut story, &plan, 1, 1, 5, None, vec![]);
        let mut app = opened(20, of(&story, &plan));
        app.incident.as_mut().unwrap().came_up = None;
        let mut effects = vec![];
        for _ in 0..2 {
            shown(&mut app);
            if effects.is_empty() {
                effects = press(&mut app, "space");
            }
        }
        let ticked = matches!(&effects[..], [Effect::Submit(Command::Tick { item: 0, done: true, .. }, None)]);
        assert!(ticked, "{words} words: {effects:?}\n{}", shown(&mut app));
    }
}

/// Of three commands the one that is next is on the screen when its step is opened, below what it is for.
#[test]
fn a_step_opens_with_the_command_that_is_next() {
    let plan = parsed(
        "## 1. Look\n\nWhat customers notice:\n\n```bash { risk=read }\nbreakglass health\n```\n\nWhich roles stand out:\n\n\
         ```bash { risk=read }\nbreakglass breach suspects\n```\n\nWho is connected:\n\n```sql { risk=read }\nSELECT 1;\n```\n\n\
         - [ ] Seen\n\n## 2. Go\n\nAloud.\n",
    );
    let mut story = Story::open(Kind::Real);
    let mut app = opened(3, of(&story, &plan));
    let seen = right(&mut app);
    assert!(
        seen.contains("What customers notice") && !seen.contains("Which roles") && !seen.contains("Who is"),
        "{seen}"
    );
    // Who reads the whole step reads all of them, each with its command.
    press(&mut app, "enter pagedown pagedown pagedown");
    let seen = right(&mut app);
    assert!(seen.contains("Command 3 of 3: Who is connected: SELECT 1;"), "{seen}");
    for (command, at, next) in [(1, 5, Some(2)), (2, 10, Some(3)), (3, 15, None)] {
        ran(&mut story, &plan, 1, command, at, None, vec![]);
        let mut app = opened(at + 3, of(&story, &plan));
        press(&mut app, "down up");
        let said = obvious(&app);
        match next {
            Some(n) => {
                assert_eq!(app.steps_ui().unwrap().block, n - 1, "after {command}");
                assert!(said.cmd == Some(Cmd::Run) && said.text.contains(&format!("command {n} of 3")), "{said:?}");
            }
            None => assert_eq!(said.cmd, Some(Cmd::Tick), "{said:?}"),
        }
    }
}

/// What a plan calls done by hand is another way, named as that and not led to.
#[test]
fn a_command_by_hand_is_named_as_another_way() {
    let plan = parsed(
        "## 1. Keep\n\nWritten out:\n\n```bash { risk=read }\nbreakglass evidence collect\n```\n\nBy hand, the sessions:\n\n\
         ```sql { risk=read }\nSELECT 1;\n```\n\nBy hand, the roles:\n\n```sql { risk=read }\nSELECT 2;\n```\n\n## 2. Go\n\nAloud.\n",
    );
    let mut story = Story::open(Kind::Real);
    ran(&mut story, &plan, 1, 1, 5, None, vec![]);
    let mut app = opened(9, of(&story, &plan));
    assert_eq!(obvious(&app).cmd, Some(Cmd::Done));
    // What was done needs no other way.
    assert!(!shown(&mut app).contains("] by hand"), "{}", shown(&mut app));
    press(&mut app, "]");
    assert!(shown(&mut app).contains("by hand, 1 of 2"), "{}", shown(&mut app));
    // Who began by hand is led on by hand.
    let mut story = Story::open(Kind::Real);
    ran(&mut story, &plan, 1, 2, 5, None, vec![]);
    assert!(obvious(&opened(9, of(&story, &plan))).text.contains("by hand, 2 of 2"));
}

pub(super) fn shipped(name: &str) -> breakglass::model::Plan {
    let text = std::fs::read(format!("{}/runbooks/{name}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    breakglass::plan::parse(&format!("{name}.md"), &text).unwrap()
}

/// The plan for a breach: the moment is chosen where it is found, authorities can be told, nothing asks for days in a drill.
#[test]
fn the_plan_for_a_breach_can_be_worked_as_it_stands() {
    let whole = shipped("security-breach");
    let plan = whole.scenarios[0].clone();
    let at = plan.steps.iter().position(|s| s.title == "Investigate").unwrap();
    let mut story = Story::open(Kind::Drill);
    (1..=at).for_each(|n| story.step(n, n as u64 * 10, n as u64 * 10 + 5));
    ran(&mut story, &plan, at + 1, 1, 100, None, vec![Event::MomentsFound { candidates: candidates() }]);
    let app = opened(110, of(&story, &plan));
    assert_eq!(obvious(&app).cmd, Some(Cmd::Moment), "{:?}", obvious(&app));
    let mut data = of(&story, &plan);
    data.plan = whole.clone().into();
    let mut app = opened(110, data);
    press(&mut app, "w");
    let Some(Field::Choice { options, .. }) = app.dialogs.last().and_then(|d| d.fields.first()) else { panic!() };
    assert!(options.iter().any(|(who, _)| who == "authorities"), "{options:?}");
    let Some(Field::Choice { options, .. }) = app.dialogs.last().and_then(|d| d.fields.get(1)) else { panic!() };
    assert!(options.iter().any(|(what, _)| what == "Message to the authorities"), "{options:?}");
    assert_eq!(breakglass::action::message::meant_for("Message to the authorities"), "authorities");
    let items = || plan.steps.iter().flat_map(|s| &s.items).map(|i| i.title.as_str());
    assert!(!items().any(|i| i.starts_with("Watched")), "a tick that takes 72 hours");
    assert!(plan.after.iter().any(|i| i.title.contains("72 hours")), "it is done afterwards");
    // A plan that speaks of none has no such audience.
    let rules = breakglass::incident::Rules::of(&shipped("data-deletion"), &shipped("data-deletion").scenarios[0]);
    assert!(!rules.audiences(Some("P0")).contains(&"authorities".to_string()));
}

/// The keys of records that nobody can find are not asked for before the log is read.
#[test]
fn nothing_is_asked_for_that_cannot_be_known_yet() {
    let plan = shipped("data-deletion");
    assert!(!plan.scenarios[0].steps[0].items.iter().any(|i| i.title.contains("by key")));
}

/// That a note was taken is said, with its time.
#[test]
fn a_note_is_confirmed() {
    let mut story = Story::open(Kind::Real);
    let mut app = with_incident(SIZE, 20, story.data());
    story.add(21, vec![Event::NoteAdded { text: "support called".into() }]);
    journal(&mut app, story.data());
    assert!(shown(&mut app).contains("✓ noted at 14:02:21 UTC: support called"), "{}", shown(&mut app));
    let mut note = story.data().state.notes[0].clone();
    note.when.at = note.when.at.minus(std::time::Duration::from_secs(600));
    assert_eq!(words::noted(&note), "noted for 13:52:21 UTC, written at 14:02:21: support called");
}

/// Steps are called as on the screen, and what did not change is not announced.
#[test]
fn messages_name_steps_as_the_screen_does_and_say_nothing_of_nothing() {
    let mut story = Story::open(Kind::Real);
    story.step(3, 5, 20);
    let mut app = with_incident(SIZE, 30, story.data());
    press(&mut app, "down down r");
    let Some(Ask::Refused(refusal)) = app.dialogs.last().map(|d| d.ask.clone()) else { panic!("{:?}", app.dialogs) };
    assert_eq!(refusal.why, "Step 3 “Stop the bleeding” is closed");
    let mut story = Story::open(Kind::Real);
    let at = start();
    let said = |at| Event::ImpactStarted { at, source: "pager".into(), moved_from: Some(start()) };
    story.add(5, vec![said(at)]);
    let before = story.data().state;
    story.add(60, vec![said(at.plus(std::time::Duration::from_millis(300)))]);
    assert_eq!(words::declared(Some(&before), &story.data().state), None);
    assert!(!story.rows().iter().any(|r| r.contains("moved")), "{:?}", story.rows());
}

/// The hint that is needed fits at 80 columns, and a path shows where it ends.
#[test]
fn the_export_is_offered_and_its_folder_is_seen() {
    let mut story = Story::open(Kind::Real);
    story.add(
        10,
        vec![Event::IncidentClosed { summary: "recovered to just before the damage, with nothing lost at all".into() }],
    );
    let mut app = with_incident(SIZE, 20, story.data());
    let seen = shown(&mut app);
    assert!(
        seen.lines().last().unwrap().contains("E export") && next_line(&mut app).contains("E export the timeline"),
        "{seen}"
    );
    let path = "/var/lib/breakglass/state/exports/20261120T1402Z-database-corruption-7f3a-20261120T140920Z/THE-END";
    let now = app.now.clone();
    update(&mut app, Msg::Say(breakglass::app::Tone::Good, format!("5 files of the timeline in {path}")), now);
    let seen = shown(&mut app);
    assert!(seen.contains("5 files of the timeline in …") && seen.contains("THE-END"), "{seen}");
}

/// A plan that asks for a code name gets one, or it is said that it has none.
#[test]
fn a_missing_code_name_is_said() {
    let plan = shipped("security-breach").scenarios.remove(0);
    let mut story = Story::open(Kind::Drill);
    story.step(1, 5, 20);
    let mut app = opened(30, of(&story, &plan));
    press(&mut app, "D enter enter");
    assert!(app.messages.iter().any(|m| m.text.contains("without a code name")), "{:?}", app.messages);
    story.add(31, vec![Event::IncidentDeclared { severity: "P0".into() }]);
    journal(&mut app, of(&story, &plan));
    assert_eq!(obvious(&app).cmd, Some(Cmd::Codename), "{:?}", obvious(&app));
    story.add(32, vec![Event::CodenameSet { codename: "heron".into() }]);
    journal(&mut app, of(&story, &plan));
    assert_ne!(obvious(&app).cmd, Some(Cmd::Codename));
}

/// A message among the plan's pages holds what is known, and goes out with blanks only when that is asked for twice.
#[test]
fn a_message_among_the_pages_is_filled_in_as_everywhere() {
    let mut story = Story::open(Kind::Real);
    story.step(1, 5, 20);
    let mut app = with_incident(SIZE, 30, story.data());
    press(&mut app, "T");
    assert_eq!(app.screen(), Screen::Reference);
    let seen = shown(&mut app);
    // Service and start are known; what is not known stays a blank.
    assert!(seen.contains("shop is down") && !seen.contains("[Time]"), "{seen}");
    let copied = press(&mut app, "y");
    assert!(matches!(&copied[..], [Effect::Copy(text, _)] if text.contains("shop is down")), "{copied:?}");
    let mut data = story.data();
    data.state.target = None;
    let mut app = with_incident(SIZE, 30, data);
    press(&mut app, "T");
    assert_eq!(press(&mut app, "y"), []);
    let said = app.messages.last().unwrap().text.clone();
    assert!(said.contains("1 blank is left: [Service Name]") && said.contains("y again"), "{said}");
    assert!(matches!(&press(&mut app, "y")[..], [Effect::Copy(..)]));
    assert_eq!(app.steps_ui().map(|s| s.pane), Some(Pane::Steps));
    // A time in a sentence about the next update is that, and no start.
    let data = story.data();
    let ui = with_incident(SIZE, 30, data).incident.unwrap();
    let said = |text: &str| ui.message("team", text, &now(30)).0;
    assert_eq!(said("Broken since [Time]."), "Broken since 2026-11-20 14:02 UTC.");
    assert_eq!(said("Next update at [Time]."), "Next update at 2026-11-20 14:17 UTC.");
}

/// What takes days is done afterwards, and says until when.
#[test]
fn what_is_watched_afterwards_has_a_date() {
    let whole = shipped("security-breach");
    let mut story = Story::open(Kind::Drill);
    story.add(10, vec![Event::ServiceRestored { at: now(9).time, how: "looked".into() }]);
    let mut data = of(&story, &whole.scenarios[0]);
    data.plan = whole.into();
    let mut app = opened(20, data);
    press(&mut app, "X");
    let Some(Field::Choice { options, .. }) = app.dialogs.last().and_then(|d| d.fields.first()) else { panic!() };
    let watched: Vec<&String> = options.iter().map(|(_, about)| about).filter(|a| a.contains("72 hours")).collect();
    assert!(watched.len() == 1 && watched[0].ends_with("(until 2026-11-23 14:02 UTC)"), "{watched:?}");
}

/// A digest is whole on the smallest screen; what stands in columns stays in its row.
#[test]
fn a_digest_is_not_cut() {
    let digest = "3f1a9c".repeat(10) + "77aa";
    let mut story = Story::open(Kind::Real);
    let run = story.run(1, "health", "breakglass health", Risk::Read, 3);
    story.finish(run, 5, Outcome::Succeeded, "sealed", vec![]);
    let sealed = format!("sealed with {digest}");
    for size in [(60, 16), (80, 24)] {
        let mut data = story.data();
        printed(
            &mut data,
            &["one", "name | rows of a table that is much wider than the pane it stands in | END", &sealed],
        );
        let mut app = with_incident(size, 9, data);
        press(&mut app, "3");
        let seen = shown(&mut app);
        let rows: String = seen.lines().map(|l| l.rsplit('│').next().unwrap_or("").trim()).collect();
        assert!(rows.contains(&digest), "{seen}");
        assert!(!seen.contains("END"), "{seen}");
    }
}
