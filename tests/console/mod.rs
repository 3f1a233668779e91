//! The console without a terminal: keys as text on a fixed clock, what they change and what they ask of the world.

mod exposure;
mod keys;
mod messages;
mod settle;

use crate::support::console::*;
use breakglass::app::command::Cmd;
use breakglass::app::data::{Process, Recording, Worker};
use breakglass::app::dialog::Ask;
use breakglass::app::next::obvious;
use breakglass::app::update::update;
use breakglass::app::{App, Effect, Msg, Pane, Preview, Screen, Tone};
use breakglass::incident::{Command, StepStatus};
use breakglass::model::event::{Event, Kind, Outcome, Verdict};
use breakglass::model::plan::{Phase, Risk};
use breakglass::model::target::RecoveryTarget;
use breakglass::model::{CleanText, StepId, Time};
use std::time::Duration;

const SIZE: (u16, u16) = (80, 24);

fn recovering_app() -> App {
    with_incident(SIZE, 343, recovering_data(Kind::Real))
}

/// An incident whose first two steps are done: the third one changes something.
fn at_containment() -> App {
    let mut s = Story::open(Kind::Real);
    s.step(1, 5, 20);
    s.step(2, 21, 30);
    with_incident(SIZE, 40, s.data())
}

/// The driver's answer to the look before a run.
fn answer(app: &mut App, effects: Vec<Effect>, database: Option<&str>) {
    let request = effects
        .into_iter()
        .find_map(|e| match e {
            Effect::Preview(r) => Some(r),
            _ => None,
        })
        .expect("a look at the target");
    let preview = Preview { database: database.map(String::from), ..Preview::default() };
    let now = app.now.clone();
    update(app, Msg::Previewed(request, preview), now);
}

fn runs(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Run(..))).count()
}

#[test]
fn enter_never_runs_anything() {
    // Every screen and every selection of it: Enter may open, never act.
    for mut app in [app(SIZE, 0), recovering_app(), at_containment()] {
        for _ in 0..12 {
            let effects = press(&mut app, "enter down");
            assert_eq!(runs(&effects), 0);
            assert!(
                !effects.iter().any(|e| matches!(e, Effect::Submit(..) | Effect::Begin { .. } | Effect::Drill { .. }))
            );
        }
    }
}

#[test]
fn what_only_reads_runs_at_once() {
    let mut app = with_incident(SIZE, 20, Story::open(Kind::Real).data());
    let effects = press(&mut app, "r");
    let Some(Effect::Run(request, code)) = effects.first() else { panic!("{effects:?}") };
    assert_eq!((request.action.as_str(), request.risk), ("health", Risk::Read));
    assert_eq!(request.shown, "breakglass health");
    assert_eq!(*code, None, "our own command has no block text");
}

#[test]
fn a_shell_block_runs_as_it_is_shown() {
    let mut app = with_incident(SIZE, 20, Story::open(Kind::Real).data());
    let effects = press(&mut app, "] r");
    let Some(Effect::Run(request, code)) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(request.action, "shell");
    assert_eq!(code.as_deref(), Some("pg_isready"));
    assert_eq!(request.shown, "pg_isready");
}

#[test]
fn a_change_is_looked_at_shown_and_asked() {
    let mut app = at_containment();
    let effects = press(&mut app, "r");
    assert_eq!(runs(&effects), 0);
    answer(&mut app, effects, Some("shop"));
    assert!(matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Run(..))));
    // Enter alone is no: Cancel has the focus.
    let mut refused = app.clone();
    assert_eq!(press(&mut refused, "enter"), vec![]);
    assert!(refused.dialogs.is_empty());
    let mut other = app.clone();
    assert_eq!(press(&mut other, "n"), vec![]);
    assert!(other.dialogs.is_empty());
    assert_eq!(runs(&press(&mut app, "y")), 1);
    assert!(app.dialogs.is_empty());
    // A second y must not run it again.
    assert_eq!(press(&mut app, "y").iter().filter(|e| matches!(e, Effect::Run(..))).count(), 0);
}

#[test]
fn the_button_that_has_the_focus_is_pressed() {
    let mut app = at_containment();
    let effects = press(&mut app, "r");
    answer(&mut app, effects, Some("shop"));
    assert_eq!(runs(&press(&mut app, "tab enter")), 1);
}

/// The story up to the promotion, which destroys.
fn at_promotion() -> App {
    let (mut s, run) = recovering(Kind::Real);
    s.finish(
        run,
        350,
        Outcome::Succeeded,
        "recovered",
        vec![Event::ShadowBuilt {
            host: "/run/drill/shadow".into(),
            port: 5433,
            data_directory: "/var/tmp/shadow".into(),
            target: candidates()[0].target.clone(),
            backup: "b".into(),
            reached_lsn: "0/5A2F0F8".into(),
            reached_time: None,
            bytes: 1,
            files_ms: 1,
            replay_ms: 1,
        }],
    );
    s.add(352, vec![Event::StepDone { step: StepId::new("s6") }]);
    let run = s.run(7, "pitr verify", "breakglass pitr verify", Risk::Read, 353);
    s.finish(
        run,
        380,
        Outcome::Succeeded,
        "all checks passed",
        vec![Event::ShadowVerified { passed: true, checks: vec![] }],
    );
    s.add(381, vec![Event::TargetSeen { role: "source".into(), identity: identity() }]);
    s.add(382, vec![Event::StepDone { step: StepId::new("s7") }]);
    with_incident(SIZE, 383, s.data())
}

#[test]
fn what_destroys_needs_the_name_typed() {
    let mut app = at_promotion();
    let effects = press(&mut app, "r");
    answer(&mut app, effects, Some("shop"));
    for wrong in ["enter", "\"y\" enter", "ctrl-u \"Shop\" enter", "ctrl-u \"shop2\" enter"] {
        assert_eq!(runs(&press(&mut app, wrong)), 0, "{wrong}");
        assert!(app.dialogs.last().unwrap().problem.is_some(), "{wrong}");
    }
    let effects = press(&mut app, "ctrl-u \"shop\" enter");
    let Some(Effect::Run(request, _)) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(request.confirmed.as_deref(), Some("shop"));
}

#[test]
fn a_pasted_line_break_confirms_nothing() {
    let mut app = at_promotion();
    let effects = press(&mut app, "r");
    answer(&mut app, effects, Some("shop"));
    let now = app.now.clone();
    let effects = update(&mut app, Msg::Paste("shop\n".into()), now.clone());
    assert_eq!(runs(&effects), 0);
    assert_eq!(app.dialogs.last().unwrap().value(0), "shop");
    // Where no field has the focus a paste does nothing at all.
    let mut app = at_containment();
    let effects = press(&mut app, "r");
    answer(&mut app, effects, None);
    assert_eq!(update(&mut app, Msg::Paste("y\ny\n".into()), now), vec![]);
    assert!(matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Run(..))));
}

#[test]
fn a_refusal_says_the_way_around_and_records_the_reason() {
    let mut data = at_promotion().incident.unwrap().data;
    data.state.facts.verified = None;
    let mut app = with_incident(SIZE, 383, data);
    press(&mut app, "r");
    let Some(Ask::Refused(refusal)) = app.dialogs.last().map(|d| d.ask.clone()) else { panic!() };
    assert_eq!(refusal.gate, Some("verification"));
    assert_eq!(press(&mut app, "enter"), vec![], "an empty reason waives nothing");
    let effects = press(&mut app, "\"compared by hand\" enter");
    let step = app.step().map(|s| s.id.clone());
    assert!(step.is_some());
    let wanted = Command::Waive { gate: "verification".into(), reason: "compared by hand".into(), step };
    assert_eq!(effects, vec![Effect::Submit(wanted, None)]);
}

#[test]
fn a_target_without_a_moment_leads_to_the_moments() {
    let mut data = recovering_data(Kind::Real);
    let run = *data.state.runs.keys().last().unwrap();
    data.state.runs.remove(&run);
    data.state.vars.clear();
    let mut app = with_incident(SIZE, 343, data);
    assert_eq!(press(&mut app, "r"), [Effect::Axis]);
    assert_eq!(app.screen(), Screen::Moment);
    press(&mut app, "enter");
    assert!(matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Choose { .. })));
    let effects = press(&mut app, "y");
    let Some(Effect::Submit(Command::ChooseMoment { target, loses, .. }, None)) = effects.first() else {
        panic!("{effects:?}")
    };
    assert_eq!(target, &candidates()[0].target);
    assert_eq!(loses.as_ref().unwrap().transactions, Some(4120));
    assert_eq!(app.screen(), Screen::Incident);
}

#[test]
fn a_typed_moment_behind_the_damage_says_that_it_keeps_it() {
    let asked = |typed: &str| {
        let mut app = with_incident(SIZE, 343, recovering_data(Kind::Real));
        press(&mut app, &format!("m down down down enter \"{typed}\" enter"));
        let Some(Ask::Choose { warning, .. }) = app.dialogs.last().map(|d| d.ask.clone()) else { panic!("{typed}") };
        (warning.unwrap_or_default(), text(&render(&mut app)))
    };
    let (warning, shown) = asked("2026-11-20T14:01:40Z");
    assert!(warning.contains("KEEPS DAMAGE") && warning.contains("14:01:07"), "{warning}");
    assert!(shown.contains("KEEPS DAMAGE"), "{shown}");
    let (warning, _) = asked("2026-11-20T14:01:00Z");
    assert!(warning.contains("lesser suspect") && !warning.contains("KEEPS"), "{warning}");
    assert_eq!(asked("2026-11-20T13:40:00Z").0, "");
    // A time of day is the last time it was that late in UTC, and the question shows the whole of it.
    let (warning, shown) = asked("14:01:40");
    assert!(warning.contains("KEEPS DAMAGE"), "{warning}");
    assert!(shown.contains("2026-11-20 14:01:40 UTC") || shown.contains("2026-11-20T14:01:40"), "{shown}");
}

#[test]
fn when_verification_finds_the_damage_the_next_thing_is_another_moment() {
    let mut data = at_promotion().incident.unwrap().data;
    let verify = data.scenario.steps.iter().position(|s| s.phase == Some(Phase::Verify)).unwrap();
    let step = data.scenario.steps[verify].id.clone();
    data.state.steps.get_mut(&step).unwrap().status = StepStatus::Open;
    data.state.facts.verified = Some((false, Vec::new()));
    let at = Time::parse("2026-11-20T14:01:40Z").unwrap();
    let mut next = |target: Time| {
        data.state.facts.chosen = Some((RecoveryTarget::Time(target), Some(target), None));
        let mut app = with_incident(SIZE, 383, data.clone());
        app.incident.as_mut().unwrap().steps.step = verify;
        obvious(&app)
    };
    let told = next(at);
    assert!(told.cmd == Some(Cmd::Moment) && told.text.contains("another moment"), "{told:?}");
    assert_ne!(next(Time::parse("2026-11-20T13:40:00Z").unwrap()).cmd, Some(Cmd::Moment));
}

#[test]
fn a_wrong_moment_in_service_can_be_chosen_again() {
    let mut data = at_promotion().incident.unwrap().data;
    let seen = data.state.facts.source.clone().unwrap();
    data.state.facts.promoted = Some((seen.0, "/var/tmp/kept".into(), seen.1));
    data.state.facts.shadow_promoted = true;
    let mut app = with_incident(SIZE, 383, data);
    press(&mut app, "m");
    assert_eq!(app.screen(), Screen::Moment);
    press(&mut app, "enter");
    let Some(Ask::Choose { warning, .. }) = app.dialogs.last().map(|d| d.ask.clone()) else { panic!() };
    assert!(warning.is_some_and(|w| w.contains("is in service")));
}

#[test]
fn a_waived_gate_stands_among_what_is_known_and_a_slip_of_the_finger_waives_nothing() {
    let mut data = at_promotion().incident.unwrap().data;
    data.state.facts.verified = None;
    let mut app = with_incident((120, 40), 383, data.clone());
    press(&mut app, "r");
    assert_eq!(press(&mut app, "\"ry\" enter"), vec![]);
    assert!(app.dialogs.last().and_then(|d| d.problem.clone()).is_some_and(|p| p.contains("too short")));
    data.state.waivers.push(breakglass::incident::state::Waiver {
        seq: data.state.seq,
        gate: "verification".into(),
        reason: "compared by hand".into(),
        step: None,
        when: data.state.opened.clone(),
    });
    let shown = text(&render(&mut with_incident((120, 40), 383, data)));
    let line = shown.lines().find(|l| l.contains("waived")).unwrap_or_default();
    assert!(line.contains("verification"), "{shown}");
}

#[test]
fn what_was_not_available_is_not_counted_as_passed() {
    let mut data = at_promotion().incident.unwrap().data;
    let mut shown = |gone: Verdict| {
        let checks = vec![check("rows", Verdict::Passed), check("damage gone", gone)];
        data.state.facts.verified = Some((true, checks));
        text(&render(&mut with_incident((120, 40), 383, data.clone())))
    };
    let not_seen = shown(Verdict::NotAvailable);
    assert!(not_seen.contains("1 of 2, damage not looked for"), "{not_seen}");
    let all = shown(Verdict::Passed);
    assert!(all.contains("2 checks") && !all.contains("1 of 2"), "{all}");
}

#[test]
fn writes_are_not_called_off_once_the_recovered_database_takes_them() {
    let mut data = at_promotion().incident.unwrap().data;
    assert!(text(&render(&mut with_incident((120, 40), 383, data.clone()))).contains("writes   "));
    let seen = data.state.facts.source.clone().unwrap();
    data.state.facts.promoted = Some((seen.0, "/var/tmp/kept".into(), seen.1));
    assert!(!text(&render(&mut with_incident((120, 40), 383, data))).contains("writes   "));
}

#[test]
fn a_note_may_be_back_dated() {
    let mut app = recovering_app();
    let effects = press(&mut app, "n \"support called\" tab \"-10m\" enter");
    let at = app.now.time.minus(Duration::from_secs(600));
    assert_eq!(effects, vec![Effect::Submit(Command::Note { text: "support called".into() }, Some(at))]);
    let effects = press(&mut app, "n \"now\" enter");
    assert_eq!(effects, vec![Effect::Submit(Command::Note { text: "now".into() }, None)]);
}

#[test]
fn a_note_that_was_left_is_kept_as_a_draft() {
    let mut app = recovering_app();
    press(&mut app, "n \"half a tho\" esc");
    assert!(app.dialogs.is_empty());
    let effects = press(&mut app, "n \"ught\" enter");
    assert_eq!(effects, vec![Effect::Submit(Command::Note { text: "half a thought".into() }, None)]);
}

#[test]
fn times_are_read_as_people_write_them() {
    use breakglass::app::when::parse_when;
    let now = Time::parse("2026-11-20T14:07:43Z").unwrap();
    let is = |text: &str, want: &str| assert_eq!(parse_when(text, now).unwrap().to_string()[..19], *want, "{text}");
    is("", "2026-11-20T14:07:43");
    is("14:03", "2026-11-20T14:03:00");
    is("14:03:20", "2026-11-20T14:03:20");
    is("23:59", "2026-11-19T23:59:00");
    is("-10m", "2026-11-20T13:57:43");
    is("2 h ago", "2026-11-20T12:07:43");
    is("2026-11-19 08:00", "2026-11-19T08:00:00");
    is("2026-11-20T15:03:00+01:00", "2026-11-20T14:03:00");
    for wrong in ["tomorrow", "25:00", "14", "2026-11-20 14:08", "2027-01-01T00:00:00Z"] {
        assert!(parse_when(wrong, now).is_err(), "{wrong}");
    }
}

#[test]
fn esc_goes_one_step_back_and_never_leaves() {
    let mut app = recovering_app();
    press(&mut app, "3 / \"replay\" enter n");
    assert_eq!(press(&mut app, "esc"), vec![]);
    assert!(app.incident.as_ref().unwrap().output.search.is_empty(), "first the search");
    press(&mut app, "esc");
    assert_eq!(app.incident.as_ref().unwrap().steps.pane, Pane::Steps, "then the pane");
    let effects = press(&mut app, "esc");
    assert_eq!(effects, vec![Effect::Leave, Effect::LoadHome], "then home");
    for _ in 0..5 {
        assert_eq!(press(&mut app, "esc"), vec![], "and no further");
    }
    assert_eq!(app.screen(), Screen::Home);
}

#[test]
fn quit_asks_while_something_runs_and_stays_by_default() {
    let mut app = recovering_app();
    assert_eq!(press(&mut app, "q"), vec![]);
    assert_eq!(press(&mut app, "enter"), vec![], "stay is the default");
    assert!(app.dialogs.is_empty());
    assert_eq!(press(&mut app, "q tab enter"), vec![Effect::Quit]);
    let mut idle = with_incident(SIZE, 20, Story::open(Kind::Real).data());
    assert_eq!(press(&mut idle, "q"), vec![Effect::Quit]);
}

#[test]
fn ctrl_c_twice_leaves_within_two_seconds_only() {
    let mut app = recovering_app();
    assert_eq!(press(&mut app, "ctrl-c"), vec![]);
    app.now = now(346);
    assert_eq!(press(&mut app, "ctrl-c"), vec![]);
    assert_eq!(press(&mut app, "ctrl-c"), vec![Effect::Quit]);
}

#[test]
fn a_message_of_a_drill_says_so() {
    for (kind, start) in [(Kind::Drill, "Subject: DRILL: working again"), (Kind::Real, "Subject: working again")] {
        let app = with_incident(SIZE, 343, Story::open(kind).data());
        let ui = app.incident.as_ref().unwrap();
        let (text, _) = ui.message("customers", "Subject: working again\n\nTry again.", &app.now);
        assert!(text.starts_with(start), "{text}");
        assert_eq!(ui.message("team", &text, &app.now).0, text, "once is enough");
    }
}

#[test]
fn a_drill_is_closed_once() {
    let mut app = with_incident(SIZE, 343, Story::open(Kind::Drill).data());
    let effects = press(&mut app, "C \"all is well\" enter");
    assert!(matches!(effects[..], [Effect::Submit(Command::Close { .. }, None)]), "{effects:?}");
    // The judge works and the sandbox is cleared away; the journal does not say yet that it is closed.
    assert_eq!(obvious(&app).cmd, None);
    assert_eq!(press(&mut app, "C"), vec![]);
    assert!(app.dialogs.is_empty(), "{:?}", app.dialogs);
    assert!(app.messages.last().unwrap().text.contains("judging"));
}

#[test]
fn a_read_only_journal_takes_nothing() {
    let mut data = recovering_data(Kind::Real);
    data.recording = Recording::ReadOnly("the journal holds records of a newer version".into());
    let mut app = with_incident(SIZE, 343, data);
    for keys in ["d", "s", "r", "x", "C", "R", "A", "W", "D", "v", "u", "space", "n"] {
        assert_eq!(press(&mut app, keys), vec![], "{keys}");
        assert!(app.dialogs.is_empty(), "{keys} opened {:?}", app.dialogs);
    }
    assert!(app.messages.last().unwrap().text.contains("newer version"));
}

#[test]
fn a_lost_run_is_never_run_again() {
    let (mut s, run) = recovering(Kind::Real);
    s.add(340, vec![Event::RunOutcomeUnknown { run }]);
    let mut app = with_incident(SIZE, 343, s.data());
    assert_eq!(obvious(&app).cmd, Some(Cmd::Resolve));
    assert_eq!(runs(&press(&mut app, "r")), 0);
    app.dialogs.clear();
    let effects = press(&mut app, "o right tab \"the shadow does not exist\" enter");
    let Some(Effect::Submit(Command::ResolveRun { run: which, outcome, reason }, None)) = effects.first() else {
        panic!("{effects:?}; {:?}", app.dialogs)
    };
    assert_eq!((*which, *outcome, reason.as_str()), (run, Outcome::Cancelled, "the shadow does not exist"));
}

#[test]
fn a_dead_worker_with_live_children_offers_watch_or_stop() {
    let mut data = recovering_data(Kind::Real);
    let run = *data.workers.keys().next().unwrap();
    let left = Process { pid: 4733, command: CleanText::text("/usr/bin/tar -x") };
    data.workers.insert(run, Worker::ChildrenOnly(vec![left]));
    let mut app = with_incident(SIZE, 343, data);
    assert_eq!(obvious(&app).cmd, Some(Cmd::Resolve));
    assert_eq!(runs(&press(&mut app, "r")), 0, "retry is never offered");
    app.dialogs.clear();
    assert_eq!(press(&mut app, "o enter"), vec![], "watch is the default");
    assert_eq!(press(&mut app, "o tab enter"), vec![Effect::StopProcesses(run)]);
    // A dead worker obeys no cancel: x leads to the same question.
    assert_eq!(press(&mut app, "x tab enter"), vec![Effect::StopProcesses(run)]);
}

#[test]
fn a_run_on_another_host_is_watched_unless_its_host_is_gone() {
    let mut data = recovering_data(Kind::Real);
    let run = *data.workers.keys().next().unwrap();
    data.workers.insert(run, Worker::Elsewhere(CleanText::text("bastion2")));
    let mut app = with_incident(SIZE, 343, data);
    assert!(obvious(&app).text.contains("bastion2"), "{:?}", obvious(&app));
    assert_eq!(runs(&press(&mut app, "r")), 0, "retry is never offered");
    app.dialogs.clear();
    assert_eq!(press(&mut app, "o enter"), vec![], "watch is the default");
    assert_eq!(press(&mut app, "o tab enter"), vec![Effect::Submit(Command::LoseRun { run }, None)]);
}

#[test]
fn the_selection_goes_along_until_the_reader_moves() {
    let mut s = Story::open(Kind::Real);
    s.step(1, 5, 20);
    let mut app = with_incident(SIZE, 21, s.data());
    assert_eq!(app.incident.as_ref().unwrap().steps.step, 1);
    s.step(2, 21, 30);
    update(&mut app, Msg::Changed(Box::new(s.data())), now(31));
    assert_eq!(app.incident.as_ref().unwrap().steps.step, 2, "goes along");
    press(&mut app, "k k");
    s.step(3, 32, 40);
    update(&mut app, Msg::Changed(Box::new(s.data())), now(41));
    assert_eq!(app.incident.as_ref().unwrap().steps.step, 0, "stays where the reader is");
    assert_eq!(obvious(&app).cmd, Some(Cmd::Current));
    press(&mut app, ".");
    assert_eq!(app.incident.as_ref().unwrap().steps.step, 3);
}

#[test]
fn output_follows_until_scrolled_and_counts_what_is_new() {
    let mut data = recovering_data(Kind::Drill);
    let run = *data.outputs.keys().next().unwrap();
    let memory = Memory::of(0, &["line"; 50]);
    data.outputs.get_mut(&run).unwrap().lines = memory.clone();
    let mut app = with_incident(SIZE, 343, data);
    press(&mut app, "3");
    let shown = |app: &mut App| text(&render(app));
    assert!(shown(&mut app).contains("following"));
    press(&mut app, "up");
    for i in 0..7 {
        memory.lines.lock().unwrap().push(breakglass::model::CleanText::line(format!("new {i}").as_bytes()));
    }
    let screen = shown(&mut app);
    assert!(screen.contains("7 new lines"), "{screen}");
    assert!(!screen.contains("new 6"), "the place is kept:\n{screen}");
    press(&mut app, "end");
    let screen = shown(&mut app);
    assert!(screen.contains("following") && screen.contains("new 6"), "{screen}");
}

#[test]
fn lines_that_are_gone_are_counted_and_named() {
    let mut data = recovering_data(Kind::Drill);
    let run = *data.outputs.keys().next().unwrap();
    data.outputs.get_mut(&run).unwrap().lines = Memory::of(12_340, &["the rest"; 3]);
    let mut app = with_incident(SIZE, 343, data);
    let screen = text(&render(&mut app));
    assert!(screen.contains("12 340 earlier lines in runs/24/out"), "{screen}");
    assert!(screen.contains("the rest"), "{screen}");
}

#[test]
fn a_command_that_is_not_possible_says_why() {
    let mut app = with_incident(SIZE, 20, Story::open(Kind::Real).data());
    press(&mut app, "x");
    assert_eq!(
        app.messages.last().map(|m| (m.tone, m.text.as_str())),
        Some((Tone::Bad, "cancel-run: nothing is running"))
    );
    // In the palette it is there all the same, with the reason.
    press(&mut app, ": \"cancel-run\" enter");
    assert_eq!(app.dialogs.last().unwrap().problem.as_deref(), Some("nothing is running"));
}

#[test]
fn the_palette_does_what_it_lists() {
    let mut app = recovering_app();
    press(&mut app, "? \"timeline\" enter");
    assert_eq!(app.screen(), Screen::Timeline);
    let mut app = recovering_app();
    press(&mut app, ": \"stop\" enter");
    assert!(matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Cancel(_))), "a dangerous one still asks");
}

#[test]
fn the_filter_narrows_and_inverts() {
    let mut app = app(SIZE, 0);
    press(&mut app, "/ \"security\"");
    assert_eq!(app.home_rows().len(), 2);
    press(&mut app, "ctrl-u \"!security\" enter");
    assert_eq!(app.home_rows().len(), 3 + 3, "three scenarios and three secrets");
    press(&mut app, "esc");
    assert_eq!(app.home_rows().len(), 5 + 3);
}

#[test]
fn reading_a_plan_starts_nothing() {
    let mut app = app(SIZE, 0);
    assert_eq!(press(&mut app, "enter j j enter tab"), vec![]);
    assert_eq!(app.screen(), Screen::Plan);
    let effects = press(&mut app, "d y");
    assert_eq!(
        effects,
        vec![Effect::Drill { file: "database-corruption.md".into(), scenario: "database-corruption".into() }]
    );
}

#[test]
fn a_real_incident_is_declared_with_severity_and_impact() {
    let mut app = app(SIZE, 0);
    let effects = press(&mut app, "D right tab \"-10m\" tab \"pager\" enter");
    let at = app.now.time.minus(Duration::from_secs(600));
    let wanted = Effect::Begin {
        file: "database-corruption.md".into(),
        scenario: "database-corruption".into(),
        severity: "P1".into(),
        impact: Some((at, "pager".into())),
        codename: None,
    };
    assert_eq!(effects, vec![wanted]);
}

#[test]
fn the_severity_of_the_plan_is_the_one_that_is_declared() {
    let mut app = app(SIZE, 0);
    let effects = press(&mut app, "j j D enter");
    let severity = effects.iter().find_map(|e| match e {
        Effect::Begin { scenario, severity, .. } => Some((scenario.as_str(), severity.as_str())),
        _ => None,
    });
    assert_eq!(severity, Some(("someone-deleted-the-wrong-thing", "P1")));
}

#[test]
fn nothing_is_dirty_when_nothing_changed() {
    let mut app = app(SIZE, 0);
    app.dirty = false;
    app.messages.clear();
    update(&mut app, Msg::Tick, now(1));
    assert!(!app.dirty, "a tick without a clock on the screen");
    update(&mut app, Msg::Unbound, now(1));
    assert!(!app.dirty, "a key that means nothing");
    let data = recovering_data(Kind::Real);
    let mut app = with_incident(SIZE, 343, data.clone());
    let (run, progress) = data.progress.into_iter().next().unwrap();
    app.dirty = false;
    update(&mut app, Msg::Progress(run, progress), now(343));
    assert!(!app.dirty, "progress that is as it was");
}

#[test]
fn an_unread_error_stays() {
    let mut app = recovering_app();
    app.say(Tone::Bad, "the target did not answer".into());
    app.now = now(400);
    assert!(app.toast().is_some());
    press(&mut app, "j");
    assert!(app.toast().is_none(), "a key after it was seen");
    app.say(Tone::Good, "done".into());
    app.now = now(500);
    assert!(app.toast().is_none());
    assert_eq!(app.messages.len(), 2, "all are kept");
}

#[test]
fn pressing_space_twice_ticks_two_items() {
    let mut app = with_incident(SIZE, 20, Story::open(Kind::Real).data());
    let ticked = |effects: &[Effect]| {
        effects.iter().find_map(|e| match e {
            Effect::Submit(Command::Tick { item, done, .. }, _) => Some((*item, *done)),
            _ => None,
        })
    };
    assert_eq!(ticked(&press(&mut app, "2 space")), Some((0, true)));
    let mut s = Story::open(Kind::Real);
    s.add(21, vec![Event::ItemTicked { step: StepId::new("s1"), item: 0, done: true }]);
    update(&mut app, Msg::Changed(Box::new(s.data())), now(21));
    assert_eq!(ticked(&press(&mut app, "space")), Some((1, true)));
    // Unticking is to go to an item and press again.
    assert_eq!(ticked(&press(&mut app, "up space")), Some((0, false)));
}

#[test]
fn an_item_that_was_passed_over_is_not_ticked_by_the_next_press() {
    let mut s = Story::open(Kind::Real);
    let mut app = with_incident(SIZE, 20, s.data());
    let ticked = |effects: &[Effect]| {
        effects.iter().find_map(|e| match e {
            Effect::Submit(Command::Tick { item, done, .. }, _) => Some((*item, *done)),
            _ => None,
        })
    };
    assert_eq!(ticked(&press(&mut app, "2 down space")), Some((1, true)));
    s.add(21, vec![Event::ItemTicked { step: StepId::new("s1"), item: 1, done: true }]);
    update(&mut app, Msg::Changed(Box::new(s.data())), now(21));
    // The step has two: the cursor stays, and only going to the first ticks it.
    assert_ne!(ticked(&press(&mut app, "space")), Some((0, true)));
    assert_eq!(ticked(&press(&mut app, "up space")), Some((0, true)));
}

#[test]
fn a_second_press_asks_for_no_second_run() {
    let mut app = with_incident(SIZE, 20, Story::open(Kind::Real).data());
    assert_eq!(runs(&press(&mut app, "r r r")), 1);
    assert_eq!(obvious(&app).cmd, None, "nothing to do until it runs");
    let mut s = Story::open(Kind::Real);
    let run = s.run(1, "health", "breakglass health", Risk::Read, 21);
    update(&mut app, Msg::Changed(Box::new(s.data())), now(21));
    assert_eq!(app.busy, None);
    s.finish(run, 22, Outcome::Succeeded, "healthy", vec![]);
    update(&mut app, Msg::Changed(Box::new(s.data())), now(22));
    assert_eq!(runs(&press(&mut app, "r")), 1);
}
