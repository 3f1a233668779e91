//! Messages by keys: the step's own is offered and written, its blanks are filled in from its preview, and what is shown of
//! deadlines, declarations and variables is what is true now.

use std::sync::Arc;
use std::time::Duration;

use breakglass::action::message::{self, Known};
use breakglass::app::command::Cmd;
use breakglass::app::dialog::{Ask, Field};
use breakglass::app::next::obvious;
use breakglass::app::update::update;
use breakglass::app::{App, Effect, Msg, Tone};
use breakglass::incident::rules::{CUSTOMERS, Rules, TEAM};
use breakglass::incident::{Command, Context, Policy, State, StepStatus, decide};
use breakglass::model::event::{Event, Kind};
use breakglass::model::plan::Phase;
use breakglass::model::target::RecoveryTarget;
use breakglass::model::{Actor, Plan, StepId, Time};
use breakglass::plan::library::EMBEDDED;
use breakglass::plan::parse;

use crate::support::console::*;

const SIZE: (u16, u16) = (80, 24);

/// A plan that we ship.
fn shipped(name: &str) -> Plan {
    let (file, text) = EMBEDDED.iter().find(|(file, _)| file.starts_with(name)).expect("it is shipped");
    parse(file, text.as_bytes()).unwrap()
}

/// An incident of a shipped plan: its journal, and the console over it.
struct Desk {
    story: Story,
    plan: Arc<Plan>,
    app: App,
    seconds: u64,
}

impl Desk {
    fn new(plan: &str, story: Story, seconds: u64) -> Self {
        let plan = Arc::new(shipped(plan));
        let mut app = with_incident(SIZE, seconds, data(&story, &plan));
        // It was looked at.
        app.incident.as_mut().unwrap().came_up = None;
        Self { story, plan, app, seconds }
    }
    /// At the step that tells people, everything before it worked and service back.
    fn at_tell(plan: &str, kind: Kind) -> Self {
        let of = shipped(plan);
        let tell = of.scenarios[0].steps.iter().position(|s| message::of_step(s).is_some()).unwrap();
        let mut story = Story::open(kind);
        (1..=tell).for_each(|n| story.step(n, n as u64 * 10, n as u64 * 10 + 5));
        story.add(300, vec![Event::ServiceRestored { at: now(290).time, how: "looked".into() }]);
        Self::new(plan, story, 343)
    }
    /// Presses keys; what is submitted is decided, recorded and shown, as the driver does. Returns what was asked for.
    fn press(&mut self, keys: &str) -> Vec<Effect> {
        let effects = press(&mut self.app, keys);
        for effect in &effects {
            if let Effect::Submit(command, _) = effect {
                self.submit(command);
            }
        }
        effects
    }
    fn submit(&mut self, command: &Command) {
        let before = data(&self.story, &self.plan);
        let (actor, policy, now) = (Actor::new("ben@bastion"), Policy::default(), now(self.seconds));
        let ctx = Context { scenario: &before.scenario, now: &now, actor: &actor, policy: &policy };
        let events = decide(Some(&before.state), command, ctx).unwrap();
        if !events.is_empty() {
            self.story.add(self.seconds, events);
        }
        update(&mut self.app, Msg::Changed(Box::new(data(&self.story, &self.plan))), now);
    }
    fn state(&self) -> State {
        data(&self.story, &self.plan).state
    }
    fn screen(&mut self) -> String {
        text(&render(&mut self.app))
    }
    fn ask(&self) -> Option<&Ask> {
        self.app.dialogs.last().map(|d| &d.ask)
    }
    fn said(&self) -> &str {
        self.app.messages.last().map_or("", |m| m.text.as_str())
    }
    /// The choice that is taken in a field of the dialog on top: its word and what is said of it.
    fn chosen(&self, field: usize) -> (String, String) {
        match &self.app.dialogs.last().unwrap().fields[field] {
            Field::Choice { options, at, .. } => options[*at].clone(),
            Field::Text { .. } => panic!("a text field"),
        }
    }
}

fn data(story: &Story, plan: &Arc<Plan>) -> breakglass::app::data::Incident {
    let mut data = story.data();
    data.plan = plan.clone();
    data.scenario = Arc::new(plan.scenarios[0].clone());
    data
}

#[test]
fn the_step_that_tells_people_offers_its_own_message_and_writing_it_is_its_work() {
    for name in EMBEDDED.iter().map(|(file, _)| *file) {
        let mut desk = Desk::at_tell(name, Kind::Drill);
        let step = desk.app.step().unwrap().clone();
        let next = obvious(&desk.app);
        assert!(next.cmd == Some(Cmd::Tell) && next.text.contains("the step's message"), "{name}: {next:?}");
        assert_eq!(desk.press("w"), []);
        assert_eq!(desk.chosen(0).0, CUSTOMERS, "{name}");
        assert_eq!(desk.chosen(1), (step.title.clone(), "of this step".into()), "{name}");
        assert_eq!(desk.press("esc"), [], "looking at the form starts nothing");
        assert_eq!(desk.state().step(&step.id).status, StepStatus::Open);
        let begun = desk.press("w enter");
        assert_eq!(begun, [Effect::Submit(Command::StartStep { step: step.id.clone() }, None)], "{name}");
        assert_eq!(desk.state().step(&step.id).status, StepStatus::Active, "writing it starts the step");
        assert_eq!(obvious(&desk.app).cmd, Some(Cmd::Tell), "{name}: it is not out yet");
        // Out, whatever is still blank: worked on, and neither ticked nor done by itself.
        let out = desk.press("enter y enter");
        assert!(out.iter().any(|e| matches!(e, Effect::Copy(..))), "{name}: {out:?}");
        assert!(desk.app.dialogs.is_empty(), "{name}: {:?}", desk.app.dialogs);
        let state = desk.state().step(&step.id);
        assert!(
            state.told.is_some() && state.status == StepStatus::Active && state.ticked.is_empty(),
            "{name}: {state:?}"
        );
        // Whoever else waits comes next.
        for _ in 0..3 {
            let waits = desk.app.incident.as_ref().unwrap().still_to_tell(&step);
            let Some(who) = waits.into_iter().next() else { break };
            assert_eq!(obvious(&desk.app).cmd, Some(Cmd::Tell), "{name}: {who}");
            desk.press("w");
            assert_eq!(desk.chosen(0).0, who, "{name}");
            desk.press("enter enter y enter");
        }
        let wanted = if step.items.is_empty() { Cmd::Done } else { Cmd::Tick };
        assert_eq!(obvious(&desk.app).cmd, Some(wanted), "{name}: {:?}", obvious(&desk.app));
        // Opened again, it is to be told again.
        desk.submit(&Command::FinishStep { step: step.id.clone() });
        desk.submit(&Command::ReopenStep { step: step.id.clone(), reason: "the figures were wrong".into() });
        assert_eq!(desk.state().step(&step.id).told, None);
    }
}

#[test]
fn another_message_at_that_step_is_not_its_work() {
    let mut desk = Desk::at_tell("application-failure", Kind::Real);
    let step = desk.app.step().unwrap().id.clone();
    // From "Tell" down to ours: first message, update.
    let effects = desk.press("w tab right right enter");
    assert_eq!(effects, [], "the step is not begun by a message to somebody else");
    desk.press("enter y enter");
    assert_eq!(desk.state().messages.len(), 1);
    assert!(desk.state().step(&step).told.is_none());
    assert_eq!(obvious(&desk.app).cmd, Some(Cmd::Tell));
    // A step that tells people without a message of its own is done by any.
    let mut plan = (*desk.plan).clone();
    for s in &mut plan.scenarios[0].steps {
        s.blocks.retain(|b| b.role != breakglass::model::plan::BlockRole::Template);
    }
    assert_eq!(plan.scenarios[0].steps[9].phase, Some(Phase::Communicate));
    desk.plan = Arc::new(plan);
    desk.submit(&Command::Note { text: "the plan was changed".into() });
    let next = obvious(&desk.app);
    assert!(next.cmd == Some(Cmd::Tell) && next.text.contains("that they were told"), "{next:?}");
    desk.press("w enter enter y enter");
    assert!(desk.state().step(&step).told.is_some());
}

#[test]
fn blanks_are_filled_in_from_the_preview_and_stay_filled_in() {
    let mut desk = Desk::at_tell("security-breach", Kind::Real);
    desk.press("w enter");
    let screen = desk.screen();
    assert!(screen.contains("[Data]") && screen.contains("[Changed]"), "{screen}");
    assert!(screen.contains("e fill in") && screen.contains("next e fills in 4 blanks"), "{screen}");
    desk.press("e");
    let Some(Ask::Blanks(names)) = desk.ask() else { panic!("{:?}", desk.ask()) };
    assert_eq!(names, &["[Isolated]", "[Data]", "[Changed]", "[Next Update]"]);
    // Where it stands says what goes there.
    let screen = desk.screen();
    assert!(screen.contains("could have been read: [Data]"), "{screen}");
    // One is filled in, the others stay blank and are asked for again.
    let effects = desk.press("tab \"names\" enter");
    let set =
        |name: &str, value: &str| Effect::Submit(Command::SetVariable { name: name.into(), value: value.into() }, None);
    assert_eq!(effects, [set("DATA", "names"), set("NEXT_UPDATE", "2026-11-20 14:37 UTC")]);
    let screen = desk.screen();
    assert!(screen.contains("could have been read: names.") && screen.contains("2 blanks are left"), "{screen}");
    // Going back takes nothing away that was typed.
    desk.press("e tab \"addresses\" esc");
    assert!(matches!(desk.ask(), Some(Ask::Send { .. })), "{:?}", desk.ask());
    let effects = desk.press("e \"14:10\" enter");
    assert_eq!(effects, [set("ISOLATED", "14:10"), set("CHANGED", "addresses")]);
    let screen = desk.screen();
    assert!(!screen.contains("blank") && screen.contains("put right: addresses."), "{screen}");
    // Nothing is left: the same key corrects what a person entered.
    desk.press("e");
    assert!(matches!(desk.ask(), Some(Ask::Blanks(names)) if names.len() == 4), "{:?}", desk.ask());
    assert_eq!(desk.app.dialogs.last().unwrap().value(1), "names");
    assert_eq!(desk.press("tab ctrl-u \"names and streets\" enter"), [set("DATA", "names and streets")]);
    // It goes out without a question, and the next message has the same words.
    let out = desk.press("enter");
    assert!(matches!(&out[..], [Effect::Copy(text, _), ..] if text.contains("names and streets")), "{out:?}");
    let ui = desk.app.incident.as_ref().unwrap();
    assert_eq!(ui.message(TEAM, "read: [data], <data>", &desk.app.now).0, "read: names and streets, names and streets");
    // An empty form is no answer.
    let mut desk = Desk::at_tell("application-failure", Kind::Real);
    desk.press("w enter e ctrl-u enter");
    let problem = desk.app.dialogs.last().and_then(|d| d.problem.clone());
    assert!(problem.is_some_and(|p| p.contains("nothing was entered")), "{:?}", desk.ask());
}

#[test]
fn a_message_with_blanks_goes_out_only_when_it_is_said_once_more() {
    for (keys, word) in [("enter", "y copies it anyway"), ("right enter", "y sends it anyway")] {
        let mut desk = Desk::at_tell("data-deletion", Kind::Real);
        desk.app.env.notify = true;
        desk.press("w enter");
        assert_eq!(desk.press(keys), [], "nothing goes out");
        let screen = desk.screen();
        assert!(screen.contains("blanks are left: [Moment], [Date]") && screen.contains(word), "{screen}");
        assert!(screen.contains("e fills them"), "{screen}");
        // Enter, n and esc go back to the message; e to the blanks.
        for back in ["enter", "n", "esc"] {
            desk.press(back);
            assert!(matches!(desk.ask(), Some(Ask::Send { .. })), "{back}: {:?}", desk.ask());
            desk.press("enter");
        }
        desk.press("e");
        assert!(matches!(desk.ask(), Some(Ask::Blanks(_))), "{:?}", desk.ask());
        desk.press("esc");
        let mut out = desk.press("enter y");
        if out.iter().any(|e| matches!(e, Effect::Copy(..))) {
            assert!(desk.screen().contains("once it is out"), "{}", desk.screen());
            out.extend(desk.press("enter"));
        }
        let gone = out.iter().any(|e| matches!(e, Effect::Copy(..) | Effect::Run(..)));
        assert!(gone && desk.app.dialogs.is_empty(), "{out:?}");
        if let Some(Effect::Run(request, _)) = out.iter().find(|e| matches!(e, Effect::Run(..))) {
            let step = desk.app.step().unwrap().id.as_str().to_string();
            assert_eq!(request.args, ["--audience", CUSTOMERS, "--step", &step], "its message is the step's");
        }
    }
}

#[test]
fn esc_in_the_preview_goes_back_to_the_form_as_it_was() {
    let mut app = with_incident(SIZE, 343, recovering_data(Kind::Real));
    press(&mut app, "w right tab right enter");
    assert!(matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Send { .. })));
    press(&mut app, "esc");
    assert_eq!(app.dialogs.len(), 1);
    let form = app.dialogs.last().unwrap();
    assert!(matches!(form.ask, Ask::Tell(None)));
    assert_eq!((form.value(0), form.value(1), form.focus), (CUSTOMERS, "update", 1));
    press(&mut app, "esc");
    assert!(app.dialogs.is_empty());
}

#[test]
fn what_is_due_follows_the_clock_while_a_form_is_open() {
    let mut app = with_incident(SIZE, 343, recovering_data(Kind::Real));
    for (keys, form) in [("w", "(•) team  due in"), ("z", "first message to team, due in")] {
        app.now = now(343);
        press(&mut app, keys);
        let shown = |app: &mut App| text(&render(app));
        assert!(shown(&mut app).contains(&format!("{form} 2:17")), "{}", shown(&mut app));
        update(&mut app, Msg::Tick, now(373));
        assert!(shown(&mut app).contains(&format!("{form} 1:47")), "{}", shown(&mut app));
        press(&mut app, "esc");
    }
}

#[test]
fn the_header_says_when_the_next_update_is_due() {
    let mut app = with_incident(SIZE, 343, recovering_data(Kind::Real));
    let screen = text(&render(&mut app));
    assert!(screen.contains(" first message to team due 14:10 (in 2:17) "), "{screen}");
    let overdue = |size| text(&render(&mut with_incident(size, 2000, recovering_data(Kind::Real))));
    // The keys that answer it come first where there is little room.
    let screen = overdue(SIZE);
    assert!(screen.contains("first message to team OVERDUE by 25:20") && screen.contains("(p: what to do"), "{screen}");
    let screen = overdue((120, 40));
    assert!(screen.contains("first message to team was due 14:10, OVERDUE by 25:20"), "{screen}");
}

/// A value for "next update" reads well behind a colon and behind "by": a time, or a blank that offers one.
#[test]
fn the_next_update_is_a_time_or_a_persons_word() {
    let plan = shipped("application-failure");
    let rules = Rules::of(&plan, &plan.scenarios[0]);
    let text = "Next update: [Next Update]. We will write again by [Next Update].";
    let both = |at: &str| format!("Next update: {at}. We will write again by {at}.");
    // Severity, to whom, service back: what the message says, or what a person is offered. It is 14:07 UTC.
    for (severity, audience, back, says, offers) in [
        ("P0", TEAM, false, Some("14:22"), None),
        ("P0", CUSTOMERS, false, Some("14:22"), None),
        ("P0", CUSTOMERS, true, Some("14:22"), None),
        ("P1", TEAM, true, Some("14:37"), None),
        ("P1", CUSTOMERS, false, None, Some("14:37")),
        ("P1", CUSTOMERS, true, None, Some("14:37")),
        ("P2", TEAM, false, None, Some("22:07")),
        ("P2", TEAM, true, None, Some("22:07")),
    ] {
        let mut story = Story::open(Kind::Real);
        story.add(5, vec![Event::IncidentDeclared { severity: severity.into() }]);
        if back {
            story.add(300, vec![Event::ServiceRestored { at: now(290).time, how: "looked".into() }]);
        }
        let state = story.data().state;
        let known: Known = message::known(&state, &plan.scenarios[0], &rules, audience, &now(343));
        let (filled, left) = message::fill(text, &state, &known);
        let row = format!("{severity} {audience} {back}");
        let day = |at: &str| format!("2026-11-20 {at} UTC");
        match says {
            Some(at) => assert_eq!((filled, left.len()), (both(&day(at)), 0), "{row}"),
            None => assert_eq!((filled.as_str(), left.as_slice()), (text, &["[Next Update]".to_string()][..]), "{row}"),
        }
        assert_eq!(known.offer("[Next Update]"), offers.map(day).as_deref(), "{row}");
    }
}

#[test]
fn a_promise_is_of_one_message_and_enter_takes_what_is_offered() {
    let mut desk = Desk::at_tell("application-failure", Kind::Real);
    desk.story.add(310, vec![Event::IncidentDeclared { severity: "P1".into() }]);
    desk.submit(&Command::Note { text: "declared".into() });
    desk.press("w enter e");
    let Some(Ask::Blanks(names)) = desk.ask().cloned() else { panic!("{:?}", desk.ask()) };
    assert_eq!(names, ["[What To Repeat]", "[Next Update]"]);
    let effects = desk.press("\"payments\" enter");
    let value = "2026-11-20 14:37 UTC".to_string();
    assert!(
        effects.contains(&Effect::Submit(Command::SetVariable { name: "NEXT_UPDATE".into(), value }, None)),
        "{effects:?}"
    );
    desk.press("enter enter");
    let state = desk.state();
    assert!(state.messages[0].1.contains("Next update: 2026-11-20 14:37 UTC."), "{}", state.messages[0].1);
    assert!(state.vars.contains_key("WHAT_TO_REPEAT") && !state.vars.contains_key("NEXT_UPDATE"), "{:?}", state.vars);
}

/// What the shipped plans tell people makes sense also when everything happened within one minute, as in a drill.
#[test]
fn two_times_of_one_minute_are_told_apart_in_every_message_we_ship() {
    let at = |s: u64| now(s).time;
    for (file, text) in EMBEDDED {
        let plan = parse(file, text.as_bytes()).unwrap();
        let step = plan.scenarios[0].steps.iter().find_map(message::of_step).unwrap();
        let mut story = Story::open(Kind::Real);
        story.add(31, vec![Event::ImpactStarted { at: at(5), source: "log".into(), moved_from: None }]);
        let mut state = story.data().state;
        // Just before the damage: the moment and the start of the impact are often one and the same.
        for moment in [5, 12, 70] {
            state.facts.chosen = Some((RecoveryTarget::Xid("7".into()), Some(at(moment)), None));
            state.facts.isolated = Some(state.opened.clone());
            state.facts.contained =
                Some((vec![], None, breakglass::incident::Instant { at: at(25), ..state.opened.clone() }));
            state.restored = Some(breakglass::incident::state::Restored { at: at(52), how: "looked".into() });
            let rules = Rules::of(&plan, &plan.scenarios[0]);
            let known = message::known(&state, &plan.scenarios[0], &rules, CUSTOMERS, &now(55));
            let (filled, left) = message::fill(&step.code, &state, &known);
            assert!(!left.iter().any(|b| b == "[Moment]"), "{left:?}");
            for (from, to) in [("between ", " and "), ("Between ", " and "), ("from ", " to ")] {
                for (_, rest) in filled.match_indices(from).map(|(i, _)| filled.split_at(i + from.len())) {
                    let Some((a, rest)) = rest.split_once(to) else { continue };
                    let b = &rest[..rest.find(" UTC").map_or(rest.len(), |e| e + 4)];
                    assert!(a != b, "{file}: {filled}");
                }
            }
        }
        // Minutes apart: seconds are noise.
        state.restored = None;
        state.facts.contained = None;
        state.facts.isolated = None;
        state.facts.chosen = None;
        let rules = Rules::of(&plan, &plan.scenarios[0]);
        let known = message::known(&state, &plan.scenarios[0], &rules, CUSTOMERS, &now(343));
        let filled = message::fill(&step.code, &state, &known).0;
        assert!(!filled.contains(":05 UTC"), "{file}: {filled}");
    }
    // A position in the log says nothing to a customer.
    let mut state = Story::open(Kind::Real).data().state;
    state.facts.chosen = Some((RecoveryTarget::Lsn("0/5A2F118".into()), None, None));
    let plan = shipped("data-deletion");
    let known = message::known(&state, &plan.scenarios[0], &Rules::default(), CUSTOMERS, &now(55));
    assert_eq!(message::fill("as of [Moment]", &state, &known).1, ["[Moment]"]);
}

#[test]
fn the_word_drill_goes_into_the_subject_and_nowhere_else() {
    let app = with_incident(SIZE, 343, Story::open(Kind::Drill).data());
    let ui = app.incident.as_ref().unwrap();
    for (text, says) in [
        ("Subject: working again\n\nTry again.", "Subject: DRILL: working again\n\nTry again."),
        ("To: all\nsubject: working again", "To: all\nsubject: DRILL: working again"),
        ("Re: your mail Subject: orders\n\nHello", "DRILL: Re: your mail Subject: orders\n\nHello"),
        ("> Subject: orders", "DRILL: > Subject: orders"),
        ("Grüße", "DRILL: Grüße"),
    ] {
        assert_eq!(ui.message("team", text, &app.now).0, says);
    }
}

#[test]
fn a_variable_is_meant_by_any_spelling_and_one_that_nothing_uses_is_said_to_be_so() {
    let set = |desk: &mut Desk, typed: &str| {
        let effects = desk.press(&format!("v \"{typed}\" tab \"x y\" enter"));
        match &effects[..] {
            [Effect::Submit(Command::SetVariable { name, .. }, None)] => name.clone(),
            other => panic!("{typed}: {other:?}"),
        }
    };
    let mut desk = Desk::at_tell("application-failure", Kind::Real);
    for typed in ["What to repeat", "what_to_repeat", "[What To Repeat]", "WHAT_TO_REPEAT"] {
        assert_eq!(set(&mut desk, typed), "WHAT_TO_REPEAT", "{typed}");
        assert!(desk.said().contains("[What To Repeat] is filled in"), "{}", desk.said());
    }
    let mut desk = Desk::at_tell("data-deletion", Kind::Real);
    assert_eq!(set(&mut desk, "date"), "DATE");
    // A variable of a command is spelled as its shell does, in whatever case it was typed.
    assert_eq!(set(&mut desk, "table"), "TABLE");
    // A slip of the finger is kept, and named as what it is.
    assert_eq!(set(&mut desk, "dat"), "dat");
    let last = desk.app.messages.last().unwrap();
    assert!(last.tone == Tone::Bad && last.text.contains("nothing in the plan or its messages uses it"), "{last:?}");
    assert_eq!(set(&mut desk, "end of day"), "END_OF_DAY");
    // What a command asks for is kept under the name its shell reads.
    let mut plan = shipped("application-failure");
    plan.scenarios[0].steps[0].blocks[0].variables = vec!["region".into()];
    let meant = |typed: &str| breakglass::action::named::meant(typed, &plan, &plan.scenarios[0]).variable;
    assert_eq!([meant("region"), meant("$region"), meant("REGION"), meant("Region")], ["region"; 4]);
}

#[test]
fn a_declaration_says_what_was_declared_and_what_is_left_to_tick() {
    let story = {
        let mut s = Story::open(Kind::Real);
        s.step(1, 5, 20);
        s
    };
    let mut desk = Desk::new("application-failure", story, 40);
    desk.press("D right tab \"14:01:30\" tab \"pager\" enter");
    assert_eq!(desk.said(), "declared as P1; impact since 14:01:30 UTC (pager)");
    let next = obvious(&desk.app);
    assert_eq!(next.cmd, Some(Cmd::Tick), "nothing is ticked by guess");
    assert!(next.text.contains("3 left") && next.text.contains("Incident declared: P1"), "{next:?}");
    assert!(desk.state().step(&StepId::new("s2")).ticked.is_empty());
    desk.press("space");
    let next = obvious(&desk.app);
    assert!(next.text.contains("2 left") && next.text.contains(": One lead"), "{next:?}");
    // Later corrected: from where to where, on the message line and in the timeline.
    desk.seconds = 70;
    desk.app.now = now(70);
    desk.press("D tab ctrl-u \"13:55\" tab ctrl-u \"first log line\" enter");
    assert_eq!(desk.said(), "impact moved from 14:01:30 to 13:55:00 UTC (first log line)");
    let rows = desk.story.rows();
    assert!(
        rows.iter().any(|r| r.contains("Impact moved from 2026-11-20 14:01:30 to 2026-11-20 13:55:00 UTC")),
        "{rows:#?}"
    );
    // The same once more is nothing new, and that is said.
    desk.press("D enter");
    assert!(desk.said().starts_with("nothing changed"), "{}", desk.said());
    // Moved by the program, when the moment shows an earlier damage: said as well.
    desk.story.add(70, vec![Event::MomentsFound { candidates: candidates() }]);
    let earlier = candidates()[1].clone();
    desk.submit(&Command::ChooseMoment { target: earlier.target, at: Some(earlier.at), loses: None });
    assert!(desk.said().starts_with("impact moved from 13:55:00 to 13:48:40 UTC"), "{}", desk.said());
}

#[test]
fn the_code_name_is_asked_for_where_the_plan_asks_for_one() {
    let labels = |desk: &Desk| -> Vec<String> {
        let fields = desk.app.dialogs.last().unwrap().fields.iter();
        fields
            .map(|f| match f {
                Field::Text { label, .. } | Field::Choice { label, .. } => label.clone(),
            })
            .collect()
    };
    let mut desk = Desk::new("application-failure", Story::open(Kind::Real), 40);
    desk.press("D");
    assert_eq!(labels(&desk), ["Severity", "Impact began", "Known from"]);
    let mut desk = Desk::new("security-breach", Story::open(Kind::Real), 40);
    desk.press("D");
    assert_eq!(labels(&desk), ["Severity", "Impact began", "Known from", "Code name"]);
    desk.press("tab tab tab \"Heron\" enter");
    assert_eq!(desk.state().people.codename.as_deref(), Some("Heron"));
    assert!(desk.screen().contains("Heron (code name)"));
    // Left as it is, it is no second name.
    desk.press("D");
    assert_eq!(desk.app.dialogs.last().unwrap().value(3), "Heron");
    let effects = desk.press("enter");
    assert!(!effects.iter().any(|e| matches!(e, Effect::Submit(Command::SetCodename { .. }, _))), "{effects:?}");
    // From the first screen as well.
    let mut app = app(SIZE, 0);
    let row = app.home.scenarios.iter_mut().next().unwrap();
    row.scenario = Arc::new(shipped("security-breach").scenarios[0].clone());
    let effects = press(&mut app, "D tab tab tab \"Heron\" enter");
    let named = effects.iter().any(|e| matches!(e, Effect::Begin { codename: Some(name), .. } if name == "Heron"));
    assert!(named, "{effects:?}");
}

/// What a step's text points at is on the screen, or one key away.
#[test]
fn no_step_points_at_something_that_is_not_on_the_screen() {
    for (file, text) in EMBEDDED {
        let plan = parse(file, text.as_bytes()).unwrap();
        for step in &plan.scenarios[0].steps {
            let said = step.text.to_lowercase();
            assert!(!said.contains("table below") && !said.contains("list below"), "{file}: {}", step.title);
        }
    }
    let story = {
        let mut s = Story::open(Kind::Real);
        (1..=5).for_each(|n| s.step(n, n as u64 * 5, n as u64 * 5 + 4));
        s
    };
    let mut desk = Desk::new("security-breach", story, 40);
    desk.app.home.plans = vec![desk.plan.clone()];
    desk.press("L");
    let screen = desk.screen();
    assert!(screen.contains("Provider tokens") && screen.contains("BESIDE THE STEPS"), "{screen}");
}

/// Until two messages are out after service is back, somebody waits for the one that was promised.
#[test]
fn what_the_good_news_promises_is_kept_by_the_clock() {
    let mut desk = Desk::at_tell("application-failure", Kind::Real);
    let line = |desk: &Desk| {
        let ui = desk.app.incident.as_ref().unwrap();
        let all = ui.deadlines(&now(343));
        let update = all.iter().find(|d| d.timer.to_string() == "update-customers").cloned();
        update.map(|d| (d.due, d.left_ms().is_some()))
    };
    desk.press("w enter enter y enter");
    let promised = desk.state().messages[0].1.clone();
    let due: Time = now(343).time.plus(Duration::from_secs(15 * 60));
    assert!(promised.contains(&format!("Next update: {} UTC", &due.date_hms()[..16])), "{promised}");
    assert_eq!(line(&desk), Some((due, true)));
    desk.submit(&Command::Tell { audience: CUSTOMERS.into(), text: "it held".into(), how: None, step: None });
    assert_eq!(line(&desk).map(|l| l.1), Some(false));
}
