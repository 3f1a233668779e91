//! The options of a command of ours, changed for one run: what is accepted, what is refused, what is asked and what is kept.

use breakglass::app::App;
use breakglass::app::Effect;
use breakglass::app::command::Cmd;
use breakglass::app::dialog::Ask;
use breakglass::app::next::obvious;
use breakglass::incident::{Command, RunRequest};
use breakglass::model::event::{Event, Kind, Outcome};
use breakglass::model::plan::Risk;
use breakglass::model::{RunId, Secret};

use super::{ROWS, SIZE, journal, of, opened, parsed, shown};
use crate::bad_input::Desk;
use crate::support::console::*;

/// An incident at the step that brings rows back, its table known.
fn at_partial() -> App {
    let mut story = Story::open(Kind::Real);
    story.add(5, vec![Event::VariableSet { name: "TABLE".into(), value: "public.orders".into() }]);
    let mut app = opened(20, of(&story, &parsed(ROWS)));
    press(&mut app, "down");
    app
}

/// What the field holds.
fn field(app: &App) -> &str {
    app.dialogs.last().expect("a dialog").value(0)
}

/// Opens the field, replaces what is in it and presses Enter.
fn changed(app: &mut App, text: &str) -> Vec<Effect> {
    press(app, "e ctrl-u");
    for c in text.chars() {
        press(app, &if c == '"' { "'".to_string() } else { format!("\"{c}\"") });
    }
    press(app, "enter")
}

fn request(effects: &[Effect]) -> Option<(&RunRequest, bool)> {
    effects.iter().find_map(|e| match e {
        Effect::Run(r, None) => Some((&**r, true)),
        Effect::Preview(r) => Some((&**r, false)),
        _ => None,
    })
}

#[test]
fn the_words_of_a_command_are_changed_for_one_run() {
    let plan = parsed(ROWS);
    let mut app = at_partial();
    assert!(shown(&mut app).lines().last().unwrap().contains("e edit"), "{}", shown(&mut app));
    press(&mut app, "e");
    let planned = "breakglass pitr partial --table public.orders --with-children";
    assert_eq!(field(&app), planned, "variables are filled in");
    let seen = shown(&mut app);
    assert!(seen.contains("the plan has") && seen.contains("--table TABLE"), "its options are listed: {seen}");
    press(&mut app, "pagedown");
    assert_ne!(shown(&mut app), seen, "all of its options can be read");

    // What only says what it would do reads, and runs at once.
    let effects = press(&mut app, "\" --dry-run\" enter");
    let (asked, at_once) = request(&effects).unwrap_or_else(|| panic!("{effects:?} {:?}", app.dialogs));
    assert!(at_once && app.dialogs.is_empty());
    assert_eq!((asked.risk, asked.action.as_str()), (Risk::Read, "pitr partial"));
    assert_eq!(asked.args, ["--table", "public.orders", "--with-children", "--dry-run"]);
    assert_eq!(asked.shown, format!("{planned} --dry-run"));
    let line = plan.steps[1].blocks[0].line;
    assert_eq!((asked.step.as_ref(), asked.block_line), (Some(&plan.steps[1].id), Some(line)), "a run of that step");
    let asked = asked.clone();

    // It is done, and the field begins with it; what is next says that nothing was changed yet.
    let mut story = Story::open(Kind::Real);
    story.add(5, vec![Event::VariableSet { name: "TABLE".into(), value: "public.orders".into() }]);
    story.step(1, 6, 7);
    let step = plan.steps[1].id.clone();
    let wish = Event::RunRequested {
        step: Some(step.clone()),
        block_line: asked.block_line,
        action: asked.action.clone(),
        shown: asked.shown.clone(),
        args: asked.args.clone(),
        risk: asked.risk,
        confirmed: None,
    };
    let run = RunId(story.add(21, vec![Event::StepStarted { step }, wish]));
    story.add(21, vec![Event::RunStarted { run, pid: 1, host: "bastion".into(), program: "0.1.0".into() }]);
    story.finish(run, 22, Outcome::Succeeded, "nothing was changed", vec![]);
    app.busy = None;
    journal(&mut app, of(&story, &plan));
    let next = obvious(&app);
    assert_eq!(next.cmd, Some(Cmd::Edit), "{next:?}");
    press(&mut app, "e");
    assert_eq!(field(&app), planned, "what was tried is offered to be done");
    press(&mut app, "esc");
    // The plan's own text is what r runs.
    let effects = press(&mut app, "r");
    assert_eq!(request(&effects).unwrap().0.shown, planned);
    app.busy = None;

    // A second table changes something: looked at first, then asked.
    let effects = changed(&mut app, &format!("{planned} --table public.payments --where \"id > 3\""));
    let (asked, at_once) = request(&effects).unwrap_or_else(|| panic!("{:?}", app.dialogs));
    assert_eq!((asked.risk, at_once), (Risk::Change, false));
    assert_eq!(asked.args[3..], ["--table", "public.payments", "--where", "id > 3"]);
}

#[test]
fn the_risk_is_that_of_what_is_written() {
    let mut story = Story::open(Kind::Real);
    story.add(5, vec![Event::MomentsFound { candidates: candidates() }]);
    let c = candidates().remove(0);
    story.add(6, vec![Event::MomentChosen { target: c.target, at: Some(c.at), loses: Some(c.loses) }]);
    let plan = parsed(ROWS);
    for (text, risk) in [
        ("breakglass pitr restore --to lsn:0/5A2F118 --into beside", Risk::Change),
        ("breakglass pitr restore --to lsn:0/5A2F118 --into place", Risk::Destroy),
        ("breakglass pitr restore --to $TARGET --into=place", Risk::Destroy),
    ] {
        let mut app = opened(20, of(&story, &plan));
        let effects = changed(&mut app, text);
        let (asked, at_once) = request(&effects).unwrap_or_else(|| panic!("{text}: {:?}", app.dialogs));
        assert_eq!((asked.risk, at_once), (risk, false), "{text}");
        assert!(!asked.args.iter().any(|a| a.contains('$')), "{asked:?}");
    }
    // What a plan calls more dangerous than the action does stays so.
    let careful = ROWS.replace("{ risk=change }\nbreakglass pitr partial", "{ risk=destroy }\nbreakglass pitr partial");
    let mut story = Story::open(Kind::Real);
    story.add(5, vec![Event::VariableSet { name: "TABLE".into(), value: "public.orders".into() }]);
    let mut app = opened(20, of(&story, &parsed(&careful)));
    press(&mut app, "down");
    let effects = changed(&mut app, "breakglass pitr partial --table a --dry-run");
    assert_eq!(request(&effects).unwrap().0.risk, Risk::Destroy);
}

#[test]
fn what_cannot_be_run_is_said_in_the_dialog_which_stays() {
    let mut app = at_partial();
    app.env.secrets.add(&Secret::new("hunter2-hunter2"));
    let table = [
        ("breakglass pitr promote", "it has to stay \"breakglass pitr partial"),
        ("rm -rf /", "write one plain command"),
        ("breakglass pitr partial --table a | tee x", "write one plain command"),
        ("breakglass pitr partial --table $(id)", "write one plain command"),
        ("breakglass pitr partial; id", "write one plain command"),
        ("", "write one plain command"),
        ("breakglass pitr", "it has to stay"),
        ("breakglass pitr partial --tabel a", "unexpected argument '--tabel'"),
        ("breakglass pitr partial --tabel a", "'--table'"),
        ("breakglass pitr partial --rows many", "possible values"),
        ("breakglass pitr partial --help", "its options are listed above"),
        ("breakglass pitr partial --table $OTHER", "OTHER has no value"),
        ("breakglass pitr partial --table $PGPASSWORD", "is a secret"),
        ("breakglass pitr partial --table hunter2-hunter2", "a secret must not stand in a command"),
        ("breakglass pitr partial --table postgres://u:pass@h/d", "a secret must not stand in a command"),
        ("breakglass pitr partial --table password=x1", "a secret must not stand in a command"),
    ];
    for (text, says) in table {
        let effects = changed(&mut app, text);
        assert!(request(&effects).is_none() && !effects.iter().any(|e| matches!(e, Effect::Submit(..))), "{text}");
        let dialog = app.dialogs.last().unwrap_or_else(|| panic!("{text}: the dialog stays"));
        let problem = dialog.problem.clone().unwrap_or_else(|| panic!("{text}: {:?}", dialog));
        assert!(problem.contains(says), "{text}: {problem}");
        assert!(!problem.contains("hunter2") && !problem.contains('\n'), "{problem}");
        let seen = shown(&mut app);
        assert!(seen.contains(problem.split(' ').next().unwrap()), "{seen}");
        // Esc leaves everything as it is.
        assert_eq!(press(&mut app, "esc"), vec![]);
        assert!(app.dialogs.is_empty());
    }
    press(&mut app, "e");
    assert_eq!(field(&app), "breakglass pitr partial --table public.orders --with-children", "nothing of it is kept");
}

#[test]
fn only_a_command_of_ours_that_may_run_can_be_changed() {
    let plan = parsed(
        "## 1. Look\n\n```bash { risk=read }\npg_isready\n```\n\n## 2. Tell\n\nAloud.\n\n\
         ## 3. Rows\n\n```bash { risk=change }\nbreakglass pitr partial --table \"$TABLE\"\n```\n",
    );
    let story = Story::open(Kind::Real);
    for (keys, why) in [("e", "only the options of our own commands"), ("down e", "nothing to run")] {
        let mut app = opened(20, of(&story, &plan));
        assert_eq!(press(&mut app, keys), vec![]);
        assert!(app.dialogs.is_empty());
        let said = app.messages.last().map(|m| m.text.clone()).unwrap_or_default();
        assert!(said.contains(why), "{said}");
        assert!(!shown(&mut app).lines().last().unwrap().contains("e edit"));
    }
    // What it needs is asked for first; then its words are there to be changed.
    let mut story = Story::open(Kind::Real);
    let mut app = opened(20, of(&story, &plan));
    press(&mut app, "down down e");
    assert!(matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Values(_))));
    let effects = press(&mut app, "\"orders\" enter");
    assert!(matches!(&effects[..], [Effect::Submit(Command::SetVariable { .. }, None)]));
    story.add(21, vec![Event::VariableSet { name: "TABLE".into(), value: "orders".into() }]);
    journal(&mut app, of(&story, &plan));
    assert_eq!(field(&app), "breakglass pitr partial --table orders");
}

/// In a real terminal: the journal holds the arguments that ran, the timeline shows them, the plan is what it was.
#[test]
fn what_was_changed_is_what_runs_and_what_is_told() {
    let desk = Desk::new();
    let text = "# P\n\n## Scenario 1: Lost rows\n\n1. Look\n\n   ```bash { risk=read }\n   breakglass assess\n   ```\n2. Tell\n";
    let path = desk.file("p.md", text);
    let pty = desk.console(SIZE, &["open", path.to_str().unwrap()]);
    pty.wait_text("Lost rows");
    pty.keys("D");
    pty.wait_text("declare a REAL incident");
    pty.keys("enter");
    pty.wait_text("STEPS");
    pty.keys("e");
    pty.wait_text("change the options of a command");
    pty.send(b" --since 3h --table orders");
    pty.wait_text("--table orders");
    pty.keys("enter");
    let ended = || {
        let id = desk.store().ids().unwrap().pop().unwrap();
        let incident = desk.store().incident(&id, Default::default()).unwrap();
        let state = incident.state().unwrap().clone();
        state.runs.values().find(|r| !r.is_open()).cloned()
    };
    pty.wait("the run ended", |_| ended().is_some());
    let run = ended().unwrap();
    assert_eq!(run.args, ["--since", "3h", "--table", "orders"]);
    assert_eq!(run.shown, "breakglass assess --since 3h --table orders");
    assert_eq!((run.action.as_str(), run.risk), ("assess", Risk::Read));
    pty.keys("t");
    pty.wait("the timeline", |s| s.contains("Asked to run: breakglass assess"));
    pty.keys("up up");
    pty.wait("the timeline tells all of what ran", |s| s.contains("assess --since 3h --table orders"));
    pty.keys("esc");
    pty.wait("the plan's own words", |s| {
        s.contains("$ breakglass assess") && !s.contains("$ breakglass assess --since")
    });
}
