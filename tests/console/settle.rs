//! Keys that would land on a screen that was not there when they were meant: swallowed, and said so.

use super::{SIZE, answer, at_containment, runs};
use crate::support::console::*;
use breakglass::app::command::Cmd;
use breakglass::app::next::obvious;
use breakglass::app::update::update;
use breakglass::app::{App, Effect, Msg, Screen};
use breakglass::incident::Command;
use breakglass::model::event::{Event, Kind, Outcome};
use breakglass::model::plan::Risk;
use breakglass::model::{RunId, StepId};

/// Presses a key some seconds after the incident was opened.
fn press_at(app: &mut App, seconds: u64, keys: &str) -> Vec<Effect> {
    app.now = now(seconds);
    press(app, keys)
}

fn said(app: &App) -> &str {
    app.messages.last().map_or("", |m| m.text.as_str())
}

fn finishes(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Submit(Command::FinishStep { .. }, _))).count()
}

/// A drill was asked for on home and is being made.
fn waiting() -> App {
    let mut app = app(SIZE, 20);
    press(&mut app, "d y");
    update(&mut app, Msg::Busy(Some("making a private PostgreSQL".into())), now(20));
    app
}

#[test]
fn a_drill_is_waited_for_on_a_screen_without_keys_that_do_something() {
    let mut app = waiting();
    assert_eq!(app.screen(), Screen::Waiting);
    assert_eq!(press_at(&mut app, 21, "d y enter r s space D enter"), vec![]);
    assert!(app.dialogs.is_empty() && app.screen() == Screen::Waiting, "{:?}", app.dialogs);
    assert_eq!(press_at(&mut app, 22, "esc"), vec![]);
    assert_eq!(app.screen(), Screen::Waiting);
    assert_eq!(press_at(&mut app, 23, "q"), vec![Effect::Quit]);
}

#[test]
fn a_key_that_was_under_way_when_the_incident_came_up_does_nothing() {
    let mut app = waiting();
    update(&mut app, Msg::Opened(Box::new(Story::open(Kind::Drill).data())), now(30));
    assert_eq!(app.screen(), Screen::Incident);
    assert_eq!(press_at(&mut app, 30, "d"), vec![]);
    assert_eq!(runs(&press_at(&mut app, 30, "r")), 0);
    assert!(said(&app).contains("not taken"), "{}", said(&app));
    assert_eq!(obvious(&app).cmd, None);
    // A second later the same keys count.
    assert_eq!(runs(&press_at(&mut app, 32, "r")), 1);
}

#[test]
fn an_incident_that_was_opened_by_hand_takes_keys_at_once() {
    let mut app = app(SIZE, 30);
    update(&mut app, Msg::Opened(Box::new(Story::open(Kind::Drill).data())), now(30));
    assert_eq!(runs(&press_at(&mut app, 30, "r")), 1);
}

#[test]
fn a_set_up_that_fails_goes_back_home() {
    let mut app = waiting();
    update(&mut app, Msg::Busy(None), now(25));
    assert_eq!(app.screen(), Screen::Home);
    assert_eq!(app.waiting, None);
}

#[test]
fn open_items_are_asked_about_before_a_step_is_finished() {
    let mut app = with_incident(SIZE, 20, Story::open(Kind::Real).data());
    assert_eq!(press(&mut app, "d"), vec![]);
    assert!(said(&app).starts_with("2 items not ticked"), "{}", said(&app));
    // Another key takes the question back.
    press(&mut app, "down up");
    assert_eq!(press(&mut app, "d"), vec![]);
    assert_eq!(finishes(&press(&mut app, "d")), 1);
    // With everything ticked there is no question.
    let mut app = with_incident(SIZE, 20, Story::open(Kind::Real).data());
    press(&mut app, "space space");
    assert_eq!(finishes(&press(&mut app, "d")), 1);
}

#[test]
fn a_second_d_does_not_finish_the_step_that_comes_up() {
    let mut s = Story::open(Kind::Real);
    let mut app = with_incident(SIZE, 20, s.data());
    assert_eq!(finishes(&press(&mut app, "d d")), 1);
    s.add(20, vec![Event::StepDone { step: StepId::new("s1") }]);
    s.add(20, vec![Event::StepDone { step: StepId::new("s2") }]);
    update(&mut app, Msg::Changed(Box::new(s.data())), now(20));
    assert_eq!(app.step().map(|s| s.id.to_string()).as_deref(), Some("s3"));
    assert_eq!(press_at(&mut app, 20, "d d d"), vec![], "nobody has read it");
    assert_ne!(obvious(&app).cmd, Some(Cmd::Done));
    assert_eq!(finishes(&press_at(&mut app, 22, "d")), 1);
}

#[test]
fn keys_pressed_while_the_target_is_looked_at_answer_nothing() {
    let mut app = at_containment();
    let look = press(&mut app, "r");
    assert_eq!(press(&mut app, "y d r space"), vec![], "the question is not there yet");
    assert!(said(&app).contains("the question comes"), "{}", said(&app));
    answer(&mut app, look, Some("shop"));
    // Enter on Cancel leaves it, and says so.
    assert_eq!(press(&mut app, "enter"), vec![]);
    assert!(app.dialogs.is_empty() && said(&app).contains("y is yes"), "{}", said(&app));
}

#[test]
fn the_text_of_a_step_is_read_row_by_row_down_to_its_first_item() {
    let mut app = with_incident((60, 16), 20, Story::open(Kind::Real).data());
    let mut scenario = (*app.incident.as_ref().unwrap().data.scenario).clone();
    scenario.steps[0].text = (0..20).map(|n| format!("Sentence {n} is here.\n\n")).collect();
    app.incident.as_mut().unwrap().data.scenario = scenario.into();
    press(&mut app, "enter");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..80 {
        let screen = text(&render(&mut app));
        seen.extend((0..20).filter(|n| screen.contains(&format!("Sentence {n} is"))));
        press(&mut app, "down");
    }
    assert_eq!(seen.len(), 20, "{seen:?}");
    let screen = text(&render(&mut app));
    assert!(screen.contains("replica") || screen.contains("Not explained"), "{screen}");
    assert_eq!(app.steps_ui().unwrap().item, 1, "and on to the items");
}

#[test]
fn the_pane_that_has_the_focus_is_marked() {
    let mut app = with_incident(SIZE, 343, recovering_data(Kind::Real));
    for (key, title) in [("2", "▶ 6 Recover beside"), ("3", "▶ output of pitr restore")] {
        assert!(!text(&render(&mut app)).contains(title));
        press(&mut app, key);
        let screen = text(&render(&mut app));
        assert!(screen.contains(title), "{screen}");
    }
}

#[test]
fn keys_typed_blind_in_a_small_window_do_nothing_when_it_grows() {
    let mut app = app((50, 10), 20);
    press(&mut app, "d y");
    update(&mut app, Msg::Resize(80, 24), now(20));
    assert_eq!(press_at(&mut app, 20, "d y enter"), vec![]);
    assert!(app.dialogs.is_empty());
    press_at(&mut app, 22, "D");
    assert_eq!(app.dialogs.len(), 1);
}

#[test]
fn result_and_output_belong_to_the_selected_command() {
    let mut s = Story::open(Kind::Real);
    let run: RunId = s.run(1, "health", "breakglass health", Risk::Read, 5);
    s.finish(run, 8, Outcome::Succeeded, "all well", vec![]);
    let mut app = with_incident(SIZE, 20, s.data());
    // It opens with the command that is next; the one before it has its result.
    press(&mut app, "down up [");
    assert!(text(&render(&mut app)).contains("all well"));
    press(&mut app, "]");
    let screen = text(&render(&mut app));
    assert!(screen.contains("pg_isready") && !screen.contains("all well in"), "{screen}");
    assert_eq!(app.incident.as_ref().unwrap().output.run, None);
    press(&mut app, "]");
    assert_eq!(app.incident.as_ref().unwrap().output.run, Some(run));
}
