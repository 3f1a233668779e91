//! What stood on the screen and was misread, or was not said when it was needed: how late it will be, what is asked before a run,
//! what counts as told, what is really next once it is over.

use std::sync::Arc;

use breakglass::app::command::Cmd;
use breakglass::app::dialog::Ask;
use breakglass::app::next::obvious;
use breakglass::app::update::update;
use breakglass::app::{App, Effect, Msg, Preview, Tone};
use breakglass::incident::forecast::{StepTimes, forecast};
use breakglass::incident::{Command, Context, Policy, decide};
use breakglass::model::Actor;
use breakglass::model::event::{Event, Kind, Outcome};
use breakglass::model::plan::Risk;

use super::doubts::{next_line, printed, ran, shipped};
use super::{ROWS, SIZE, journal, of, opened, parsed, shown};
use crate::support::console::*;

/// The story so far, told of a plan we ship, with all that stands beside its steps.
fn of_shipped(story: &Story, name: &str) -> breakglass::app::data::Incident {
    let whole = shipped(name);
    let mut data = of(story, &whole.scenarios[0]);
    data.plan = Arc::new(whole);
    data
}

fn told(story: &mut Story, at: u64, audience: &str) {
    let (audience, text) = (audience.to_string(), "We are on it.".to_string());
    story.add(at, vec![Event::MessageSent { audience, text, how: Some("said".into()), step: None }]);
}

/// Work that is done takes no more time, also before the key that says so; a moment that is not chosen yet does.
#[test]
fn work_that_is_done_is_not_expected_again() {
    let plan = parsed(
        "## 1. Assess (10 min)\n\n```bash { risk=read }\nbreakglass assess\n```\n\n- [ ] Seen\n\n\
         ## 2. Choose the moment (10 min)\n\n```bash { risk=read }\nbreakglass pitr locate\n```\n\n\
         ## 3. Recover (10 min)\n\n```bash { risk=change }\nbreakglass pitr restore --to x --into beside\n```\n\n\
         ## 4. Look twice (10 min)\n\n```bash { risk=read }\nbreakglass health\n```\n\n```bash { risk=read }\nbreakglass assess\n```\n\n\
         ## 5. Agree (10 min)\n\n- [ ] Agreed\n",
    );
    let mut story = Story::open(Kind::Real);
    let left = |story: &Story, at: u64| {
        let data = of(story, &plan);
        let f = forecast(&data.state, &data.scenario, &StepTimes::new(), None, &now(at));
        f.p50.unwrap().since(now(at).time).as_secs().div_ceil(60)
    };
    assert_eq!(left(&story, 1), 50);
    ran(&mut story, &plan, 1, 1, 1, None, vec![]);
    assert_eq!(left(&story, 3), 50, "an item is open");
    story.add(3, vec![Event::ItemTicked { step: plan.steps[0].id.clone(), item: 0, done: true }]);
    assert_eq!(left(&story, 3), 40);
    ran(&mut story, &plan, 2, 1, 4, None, vec![Event::MomentsFound { candidates: candidates() }]);
    assert_eq!(left(&story, 6), 40, "the moment is not chosen");
    let c = candidates().remove(0);
    story.add(7, vec![Event::MomentChosen { target: c.target, at: Some(c.at), loses: None }]);
    assert_eq!(left(&story, 7), 30);
    ran(&mut story, &plan, 3, 1, 8, None, vec![]);
    assert_eq!(left(&story, 10), 20);
    ran(&mut story, &plan, 4, 1, 11, None, vec![]);
    assert_eq!(left(&story, 13), 20, "the second command is left");
    ran(&mut story, &plan, 4, 2, 13, None, vec![]);
    assert_eq!(left(&story, 15), 10);
    let agree = plan.steps[4].id.clone();
    story.add(15, vec![Event::StepStarted { step: agree.clone() }]);
    story.add(15, vec![Event::ItemTicked { step: agree, item: 0, done: true }]);
    assert_eq!(left(&story, 15), 0);
    // A command that failed did not do its work, and what was opened again has to be done again.
    let id = story.run(1, "assess", "breakglass assess", Risk::Change, 20);
    story.finish(id, 21, Outcome::Failed, "no", vec![]);
    story.add(30, vec![Event::StepReopened { step: plan.steps[2].id.clone(), reason: "again".into() }]);
    assert_eq!(left(&story, 30), 10);
}

/// A forecast that lies wholly behind the deadline is not called a risk.
#[test]
fn a_forecast_behind_the_deadline_says_so() {
    let plan = parsed(
        "## 1. Assess (2 h)\n\n```bash { risk=read }\nbreakglass assess\n```\n\n\
         ## 2. Recover (2 h)\n\n```bash { risk=change }\nbreakglass pitr restore --to x --into beside\n```\n",
    );
    // Four hours for what the plan gives four of its six hours for: 160 minutes at the drill's pace, half of that more at worst.
    for (kind, hours, minutes, word) in [
        (Kind::Drill, 0, 1, "on course"),
        (Kind::Drill, 0, 75, "at risk"),
        (Kind::Drill, 3, 30, "likely late"),
        (Kind::Drill, 4, 1, "missed"),
        (Kind::Real, 3, 30, "will miss"),
    ] {
        let story = Story::open(kind);
        let mut data = of(&story, &plan);
        data.times = Arc::default();
        let seen = shown(&mut opened(hours * 3600 + minutes * 60, data));
        let row = seen.lines().nth(1).unwrap();
        assert!(row.contains(&format!(" {word} ")), "{kind:?} {hours}:{minutes}\n{seen}");
    }
}

fn previewed(app: &mut App, lines: usize) -> String {
    let effects = press(app, "r");
    let [Effect::Preview(request)] = &effects[..] else { panic!("{effects:?}") };
    let lines = (1..=lines).map(|n| format!("secret {n}: a new password for the role, then the service is restarted"));
    let preview = Preview { lines: lines.collect(), database: Some("shop".into()), failed: None };
    let at = app.now.clone();
    update(app, Msg::Previewed(request.clone(), preview), at);
    shown(app)
}

/// What is decided by stands in sight, however much the action has to say; the rest is scrolled.
#[test]
fn target_risk_and_stop_are_in_sight_before_a_run() {
    let steps = "## 1. Rotate\n\n```bash { risk=change }\nbreakglass breach rotate\n```\n\n## 2. Go\n\nAloud.\n";
    for size in [SIZE, (60, 16)] {
        for lines in [1, 40] {
            let mut story = Story::open(Kind::Real);
            story.add(
                5,
                vec![Event::GateWaived { gate: "isolation".into(), reason: "nobody is in".into(), step: None }],
            );
            let mut app = opened(20, of(&story, &parsed(steps)));
            app.size = size;
            let first = previewed(&mut app, lines);
            for _ in 0..40 {
                press(&mut app, "pagedown");
            }
            let last = shown(&mut app);
            for seen in [&first, &last] {
                for row in ["target  shop", "risk    changes something", "stop    x asks"] {
                    assert!(seen.contains(row), "{size:?} {lines} {row}\n{seen}");
                }
                assert_eq!(seen.contains("rows "), lines > 1, "{size:?}\n{seen}");
            }
            assert!(first.contains("breakglass breach rotate") && last.contains(&format!("secret {lines}:")), "{last}");
        }
    }
}

/// The first message and the next update have one name each, in a breach and everywhere.
#[test]
fn a_first_message_is_called_so_for_everybody() {
    let mut story = Story::open(Kind::Real);
    story.add(1, vec![Event::IncidentDeclared { severity: "P0".into() }]);
    let whats = |story: &Story| -> Vec<String> {
        let app = opened(60, of_shipped(story, "security-breach"));
        let all = app.incident.as_ref().unwrap().deadlines(&app.now);
        all.iter().filter(|d| !d.about.is_empty()).map(|d| d.what()).collect()
    };
    let before = whats(&story);
    assert!(before.iter().all(|w| w.starts_with("first message to ")), "{before:?}");
    assert!(before.len() > 1 && before.iter().any(|w| w == "first message to team"), "{before:?}");
    told(&mut story, 30, "team");
    let after = whats(&story);
    assert!(after.iter().any(|w| w == "next update to team"), "{after:?}");
    assert!(!after.iter().any(|w| w == "first message to team"), "{after:?}");
}

/// The enlarged output says which of its lines are on the screen.
#[test]
fn an_enlarged_output_says_where_one_is() {
    let mut story = Story::open(Kind::Real);
    let run = story.run(1, "health", "breakglass health", Risk::Read, 3);
    story.finish(run, 5, Outcome::Succeeded, "well", vec![]);
    let lines: Vec<String> = (1..=40).map(|n| format!("line {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut data = story.data();
    printed(&mut data, &lines);
    let mut app = with_incident(SIZE, 9, data);
    press(&mut app, "3");
    let seen = shown(&mut app);
    let title = seen.lines().find(|l| l.contains("output of health")).unwrap().to_string();
    let first = (1..=40).find(|n| seen.lines().any(|l| l.ends_with(&format!(" line {n}")))).unwrap();
    assert!(first > 1 && title.contains(&format!(" {first}–40 of 40 ")), "{seen}");
    press(&mut app, "g g");
    let seen = shown(&mut app);
    assert!(seen.contains(" 1–"), "{seen}");
}

const TELL: &str = "## 1. Tell\n\nIn their words.\n\n```text\nSubject: rows\n\nThey are back.\n```\n\n## 2. Close\n\n```bash { risk=read }\nbreakglass health\n```\n";

/// A message that was copied is told once somebody says that it is out; before that nothing has to be taken back.
#[test]
fn a_copied_message_counts_once_it_is_out() {
    let story = Story::open(Kind::Real);
    let mut app = opened(20, of(&story, &parsed(TELL)));
    let tells = |effects: &[Effect]| {
        let how = |e: &Effect| match e {
            Effect::Submit(Command::Tell { how, .. }, _) => how.clone(),
            _ => None,
        };
        effects.iter().find_map(how)
    };
    press(&mut app, "w enter");
    let copied = press(&mut app, "enter");
    assert!(copied.iter().any(|e| matches!(e, Effect::Copy(..))), "{copied:?}");
    assert!(copied.iter().any(|e| matches!(e, Effect::KeepMessage(..))), "{copied:?}");
    assert_eq!(tells(&copied), None, "nothing says that it was sent");
    let seen = shown(&mut app);
    assert!(matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Send { .. })), "{seen}");
    assert!(next_line(&mut app).contains("once it is out"), "{seen}");
    // Leaving now leaves it untold, and the step says so.
    press(&mut app, "esc esc");
    assert!(app.dialogs.is_empty() && obvious(&app).cmd == Some(Cmd::Tell), "{:?}", obvious(&app));
    press(&mut app, "w enter enter");
    assert_eq!(tells(&press(&mut app, "enter")).as_deref(), Some("copied"));
    assert!(app.dialogs.is_empty());
    // Told in another way it is written down at once, as that.
    press(&mut app, "w enter down down");
    assert_eq!(tells(&press(&mut app, "enter")).as_deref(), Some("said"));
}

/// Who was told that it is back is not named as untold when it is closed; who was not, is.
#[test]
fn closing_names_only_what_is_due() {
    let mut story = Story::open(Kind::Drill);
    story.add(1, vec![Event::IncidentDeclared { severity: "P1".into() }]);
    told(&mut story, 10, "team");
    story.add(20, vec![Event::ServiceRestored { at: now(19).time, how: "looked".into() }]);
    let closing = |story: &Story, at: u64| {
        let mut app = opened(at, of_shipped(story, "data-deletion"));
        press(&mut app, "C");
        shown(&mut app)
    };
    let seen = closing(&story, 25);
    assert!(seen.contains("close the incident") && seen.contains("Not sent: next update to team"), "{seen}");
    told(&mut story, 30, "team");
    let seen = closing(&story, 40);
    assert!(seen.contains("close the incident") && !seen.contains("Not sent"), "{seen}");
    let seen = closing(&story, 40 + 2 * 3600);
    assert!(seen.contains("next update to team, OVERDUE"), "{seen}");
}

/// Once it is closed the next thing is what is really left: the export, then the list for afterwards, then leaving.
#[test]
fn after_the_export_what_is_left_is_next() {
    for (kind, then) in [(Kind::Drill, Cmd::Quit), (Kind::Real, Cmd::Afterwards)] {
        let mut story = Story::open(kind);
        story.add(10, vec![Event::IncidentClosed { summary: "all of it is back".into() }]);
        let mut app = opened(20, of_shipped(&story, "data-deletion"));
        let said = next_line(&mut app);
        assert!(said.contains("E export the timeline, then q leaves") && said.contains("closed: all of it"), "{said}");
        let at = app.now.clone();
        update(&mut app, Msg::Say(Tone::Good, "5 files of the timeline in /tmp/x".into()), at);
        assert_eq!(obvious(&app).cmd, Some(then), "{:?}", obvious(&app));
        assert!(next_line(&mut app).contains("q "), "{}", next_line(&mut app));
        // What came after it is in no file yet.
        story.add(30, vec![Event::NoteAdded { text: "a fourth report".into() }]);
        journal(&mut app, of_shipped(&story, "data-deletion"));
        assert_eq!(obvious(&app).cmd, Some(Cmd::Export), "{:?}", obvious(&app));
        for item in app.incident.as_ref().unwrap().afterwards() {
            story.add(40, vec![Event::AfterwardsTicked { item, done: true }]);
        }
        journal(&mut app, of_shipped(&story, "data-deletion"));
        let at = app.now.clone();
        update(&mut app, Msg::Say(Tone::Good, "5 files of the timeline in /tmp/x".into()), at);
        assert_eq!(obvious(&app).cmd, Some(Cmd::Quit), "{:?}", obvious(&app));
    }
}

/// The field of the code name is not passed over: where the plan asks for one the first enter leads there.
#[test]
fn a_declaration_leads_to_the_code_name() {
    let plan = shipped("security-breach").scenarios.remove(0);
    let mut app = opened(30, of(&Story::open(Kind::Real), &plan));
    assert_eq!(press(&mut app, "D enter"), []);
    let dialog = app.dialogs.last().unwrap();
    assert!(dialog.focus == 3 && dialog.problem.as_deref().is_some_and(|p| p.contains("code name")), "{dialog:?}");
    let effects = press(&mut app, "\"heron\" enter");
    let named = |e: &Effect| matches!(e, Effect::Submit(Command::SetCodename { codename }, _) if codename == "heron");
    assert!(effects.iter().any(named), "{effects:?}");
    // Asked twice, it is declared without, and that is said.
    let mut app = opened(30, of(&Story::open(Kind::Real), &plan));
    let effects = press(&mut app, "D enter enter");
    assert!(effects.iter().any(|e| matches!(e, Effect::Submit(Command::Declare { .. }, _))), "{effects:?}");
    assert!(app.messages.iter().any(|m| m.text.contains("without a code name")), "{:?}", app.messages);
}

/// What a code name hides is offered to whoever writes to people who have to know it, and never filled in by itself.
#[test]
fn a_code_name_leaves_no_blank_without_an_offer() {
    let mut story = Story::open(Kind::Real);
    story.add(1, vec![Event::IncidentDeclared { severity: "P0".into() }]);
    story.add(2, vec![Event::CodenameSet { codename: "heron".into() }]);
    let mut app = opened(60, of_shipped(&story, "security-breach"));
    press(&mut app, "w");
    while app.dialogs.last().unwrap().value(0) != "authorities" {
        press(&mut app, "right");
    }
    press(&mut app, "enter");
    press(&mut app, "e");
    let Some(Ask::Blanks(names)) = app.dialogs.last().map(|d| &d.ask) else { panic!("{}", shown(&mut app)) };
    let dialog = app.dialogs.last().unwrap();
    let offered =
        |name: &str| dialog.value(names.iter().position(|n| n == name).unwrap_or_else(|| panic!("{names:?}")));
    assert_eq!((offered("[Service Name]"), offered("[Known Since]")), ("shop", "2026-11-20 14:02 UTC"));
}

/// What has one table asks for none: it is the one of the chosen moment, and stands in the question before anything runs.
#[test]
fn the_only_table_of_a_moment_is_taken() {
    let mut story = Story::open(Kind::Real);
    let mut c = candidates().remove(0);
    c.tables = vec!["public.payments".into()];
    story.add(5, vec![Event::MomentsFound { candidates: vec![c.clone()] }]);
    let mut app = opened(20, of(&story, &parsed(ROWS)));
    let effects = press(&mut app, "m enter");
    let sets = |e: &Effect| match e {
        Effect::Submit(Command::SetVariable { name, value }, None) => Some((name.clone(), value.clone())),
        _ => None,
    };
    let set: Vec<_> = effects.iter().filter_map(sets).collect();
    assert_eq!(set, [("TABLE".to_string(), "public.payments".to_string())], "{effects:?}");
    // Several are a person's choice, and what a person said stays.
    let mut two = c.clone();
    two.tables.push("public.orders".into());
    let given = Event::VariableSet { name: "TABLE".into(), value: "public.orders".into() };
    for (candidate, given) in [(two, None), (c, Some(given))] {
        let mut story = Story::open(Kind::Real);
        story.add(5, vec![Event::MomentsFound { candidates: vec![candidate] }]);
        given.into_iter().for_each(|event| _ = story.add(6, vec![event]));
        let effects = press(&mut opened(20, of(&story, &parsed(ROWS))), "m enter");
        assert_eq!(effects.iter().filter_map(sets).count(), 0, "{effects:?}");
    }
}

/// A code name is lifted by its own key, also once it is closed; whoever closes with one on is told.
#[test]
fn a_code_name_is_lifted_before_or_after_closing() {
    let plan = shipped("security-breach").scenarios.remove(0);
    let mut story = Story::open(Kind::Real);
    for step in &plan.steps[..plan.steps.len() - 1] {
        story.add(1, vec![Event::StepDone { step: step.id.clone() }]);
    }
    let close = plan.steps.last().unwrap();
    let item = close.items.iter().position(|i| i.title.contains("Code name")).unwrap() as u32;
    story.add(2, vec![Event::CodenameSet { codename: "heron".into() }]);
    story.add(3, vec![Event::ServiceRestored { at: now(3).time, how: "seen".into() }]);
    for (n, block) in breakglass::action::runnable::blocks(close).enumerate() {
        ran(&mut story, &plan, plan.steps.len(), n + 1, 4 + block.line as u64 % 2, None, vec![]);
    }
    for n in 0..item {
        story.add(9, vec![Event::ItemTicked { step: close.id.clone(), item: n, done: true }]);
    }
    // The plan asks for it here.
    let mut app = opened(20, of(&story, &plan));
    app.incident.as_mut().unwrap().came_up = None;
    let said = next_line(&mut app);
    assert!(said.contains("V lift the code name heron"), "{said}");
    let lifted = press(&mut app, "V enter");
    assert_eq!(lifted, [Effect::Submit(Command::LiftCodename, None)]);
    // Another name is the other choice, and words that were typed are meant.
    let renamed = press(&mut app, "V tab \"egret\" enter");
    assert_eq!(renamed, [Effect::Submit(Command::SetCodename { codename: "egret".into() }, None)]);
    story.add(30, vec![Event::StepDone { step: close.id.clone() }]);
    let mut app = opened(40, of(&story, &plan));
    assert!(next_line(&mut app).contains("V lifts its code name"), "{}", next_line(&mut app));
    press(&mut app, "C enter");
    assert!(shown(&mut app).contains("still goes by the code name heron"), "{}", shown(&mut app));
    // Closed, it can still end, and cannot begin.
    story.add(50, vec![Event::IncidentClosed { summary: "over".into() }]);
    let data = of(&story, &plan);
    let (at, policy, actor) = (now(60), Policy::default(), Actor::new("ben@bastion"));
    let ctx = Context { scenario: &data.scenario, now: &at, actor: &actor, policy: &policy };
    assert_eq!(decide(Some(&data.state), &Command::LiftCodename, ctx).unwrap(), [Event::CodenameLifted {}]);
    assert!(decide(Some(&data.state), &Command::SetCodename { codename: "egret".into() }, ctx).is_err());
    let mut app = opened(60, data.clone());
    assert!(shown(&mut app).lines().last().unwrap().contains("V code name"), "{}", shown(&mut app));
    assert_eq!(press(&mut app, "V y"), [Effect::Submit(Command::LiftCodename, None)]);
    story.add(70, vec![Event::CodenameLifted {}]);
    let data = of(&story, &plan);
    assert_eq!(data.state.people.codename, None);
    assert_eq!(decide(Some(&data.state), &Command::LiftCodename, ctx).unwrap(), []);
    let mut app = opened(80, data);
    assert!(shown(&mut app).lines().next().unwrap().contains("Database corruption"), "{}", shown(&mut app));
    assert_eq!(press(&mut app, "V"), []);
    assert!(app.messages.last().unwrap().text.contains("closed"), "{:?}", app.messages);
}

/// The last drill stands beside the objective it had, which is less than that of the real thing.
#[test]
fn a_drill_is_measured_by_its_own_objective() {
    let mut app = app(SIZE, 0);
    let seen = shown(&mut app);
    assert!(seen.contains("18:12 of 30:00"), "{seen}");
    // Where it is the one beside it, it is not said twice.
    assert!(seen.contains("8:28:20") && !seen.contains("8:28:20 of"), "{seen}");
}

/// A moment that loses nothing and keeps no damage is chosen with one key; everything else is asked about.
#[test]
fn a_moment_that_loses_nothing_is_chosen_with_one_key() {
    let promote = format!("{ROWS}\n## 4. Promote\n\n```bash {{ risk=destroy }}\nbreakglass pitr promote\n```\n");
    let one = vec![candidates().remove(0)];
    for (case, steps, found, at_once) in [
        ("rows only", ROWS, one.clone(), true),
        ("a lesser suspect stays in", ROWS, candidates(), false),
        ("the whole goes back", promote.as_str(), one, false),
    ] {
        let mut story = Story::open(Kind::Real);
        story.add(5, vec![Event::MomentsFound { candidates: found }]);
        let mut app = opened(20, of(&story, &parsed(steps)));
        press(&mut app, "m");
        assert_eq!(obvious(&app).text.contains("asks first"), !at_once, "{case}: {:?}", obvious(&app));
        let effects = press(&mut app, "enter");
        let chosen = |e: &Effect| matches!(e, Effect::Submit(Command::ChooseMoment { .. }, None));
        assert_eq!(effects.iter().any(chosen), at_once, "{case}: {effects:?}");
        assert_eq!(matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Choose { .. })), !at_once, "{case}");
    }
}
