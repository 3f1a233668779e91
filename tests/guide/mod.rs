//! What guides a person through a step: what a key says it does, what goes on by itself, options that are changed before a run,
//! and nothing that matters cut or gone.

mod doubts;
mod edit;
mod first_time;
mod misread;

use breakglass::app::command::Cmd;
use breakglass::app::dialog::{Ask, Dialog, Field};
use breakglass::app::next::obvious;
use breakglass::app::update::update;
use breakglass::app::{App, Effect, Msg, Screen};
use breakglass::incident::Command;
use breakglass::model::event::{Event, Kind, Outcome};
use breakglass::model::plan::{Risk, Scenario};

use crate::support::console::*;

const SIZE: (u16, u16) = (80, 24);

/// A plan as people write one; its only scenario.
fn parsed(steps: &str) -> Scenario {
    let text = format!("# Lost rows\n\n- **RTO:** 6 hours\n- **RPO:** 24 hours\n\n{steps}");
    breakglass::plan::parse("lost-rows.md", text.as_bytes()).unwrap().scenarios.remove(0)
}

/// The story so far, told of another plan.
fn of(story: &Story, scenario: &Scenario) -> breakglass::app::data::Incident {
    let mut data = story.data();
    data.scenario = scenario.clone().into();
    data
}

/// The incident in a console that knows every action.
fn opened(seconds: u64, data: breakglass::app::data::Incident) -> App {
    let mut app = with_incident(SIZE, seconds, data);
    app.env.actions = app.env.registry.all().map(|a| (a.spec().name.to_string(), a.spec().risk)).collect();
    app
}

fn shown(app: &mut App) -> String {
    text(&render(app))
}

/// The journal moved on, as the driver tells it.
fn journal(app: &mut App, data: breakglass::app::data::Incident) -> Vec<Effect> {
    let now = app.now.clone();
    update(app, Msg::Changed(Box::new(data)), now)
}

const ROWS: &str = "## 1. Recover beside\n\n```bash { risk=change }\nbreakglass pitr restore --to \"$TARGET\" --into beside\n```\n\n\
    ## 2. Bring the rows back\n\n```bash { risk=change }\nbreakglass pitr partial --table \"$TABLE\" --with-children\n```\n\n\
    ## 3. Look again\n\n```bash { risk=read }\nbreakglass pitr check --table \"$TABLE\"\n```\n";

/// What was asked for is there: the run goes on to what it was asked for, once.
#[test]
fn a_run_goes_on_when_it_has_the_values_it_asked_for() {
    for (step, change) in [("down", true), ("down down", false)] {
        let plan = parsed(ROWS);
        let mut story = Story::open(Kind::Real);
        let mut app = opened(20, of(&story, &plan));
        press(&mut app, step);
        assert!(shown(&mut app).contains("r asks for TABLE, then goes on"), "{}", shown(&mut app));
        let asked = press(&mut app, "r \"public.orders\" enter");
        assert!(matches!(&asked[..], [Effect::Submit(Command::SetVariable { .. }, None)]), "{asked:?}");
        story.add(21, vec![Event::VariableSet { name: "TABLE".into(), value: "public.orders".into() }]);
        let effects = journal(&mut app, of(&story, &plan));
        let going: Vec<&Effect> =
            effects.iter().filter(|e| matches!(e, Effect::Preview(_) | Effect::Run(..))).collect();
        match (&going[..], change) {
            ([Effect::Preview(r)], true) | ([Effect::Run(r, _)], false) => {
                assert!(r.args.contains(&"public.orders".to_string()), "{r:?}");
            }
            other => panic!("{other:?}"),
        }
        app.busy = None;
        story.add(22, vec![Event::NoteAdded { text: "later".into() }]);
        assert_eq!(journal(&mut app, of(&story, &plan)), vec![], "it goes on once");
    }
}

#[test]
fn a_restore_goes_on_when_its_moment_is_chosen() {
    let plan = parsed(ROWS);
    let mut story = Story::open(Kind::Real);
    story.add(5, vec![Event::MomentsFound { candidates: candidates() }]);
    let mut app = opened(20, of(&story, &plan));
    press(&mut app, "r");
    assert_eq!(app.screen(), Screen::Moment);
    let chosen = press(&mut app, "enter y");
    assert!(matches!(&chosen[..], [Effect::Submit(Command::ChooseMoment { .. }, None)]), "{chosen:?}");
    assert_eq!(app.screen(), Screen::Incident);
    let c = candidates().remove(0);
    story.add(21, vec![Event::MomentChosen { target: c.target.clone(), at: Some(c.at), loses: Some(c.loses) }]);
    let effects = journal(&mut app, of(&story, &plan));
    let request = effects.iter().find_map(|e| if let Effect::Preview(r) = e { Some(r) } else { None });
    assert!(request.unwrap_or_else(|| panic!("{effects:?}")).args.contains(&c.target.to_string()));
    // What sent the reader here is answered.
    assert!(app.messages.iter().any(|m| m.text.contains("TARGET has no value yet")), "{:?}", app.messages);
    assert_eq!(app.toast().map(|m| &m.text), None);
}

/// Whoever leaves, or does something else, has not asked for a run any more.
#[test]
fn a_run_that_was_left_does_not_go_on_by_itself() {
    let plan = parsed(ROWS);
    let table = Event::VariableSet { name: "TABLE".into(), value: "public.orders".into() };
    for leave in ["esc", "\"public.orders\" enter down", "\"public.orders\" enter n esc", "ctrl-c"] {
        let mut story = Story::open(Kind::Real);
        let mut app = opened(20, of(&story, &plan));
        press(&mut app, "down r");
        press(&mut app, leave);
        story.add(21, vec![table.clone()]);
        let effects = journal(&mut app, of(&story, &plan));
        let runs = effects.iter().any(|e| matches!(e, Effect::Preview(_) | Effect::Run(..)));
        assert!(!runs && app.dialogs.is_empty(), "{leave}: {effects:?}");
    }
    let mut story = Story::open(Kind::Real);
    story.add(5, vec![Event::MomentsFound { candidates: candidates() }]);
    let mut app = opened(20, of(&story, &plan));
    press(&mut app, "r esc");
    let c = candidates().remove(0);
    story.add(21, vec![Event::MomentChosen { target: c.target, at: Some(c.at), loses: None }]);
    assert_eq!(journal(&mut app, of(&story, &plan)), vec![], "somebody else chose it");
}

/// Kinds of commands of a step, what was run so far in that order, and the number of the one that is next (none: none is).
#[test]
fn each_command_of_a_step_is_named_in_its_turn() {
    let command = |kind: &str| match kind {
        "ours" => "```bash { risk=read }\nbreakglass health\n```",
        "ours changes" => "```bash { risk=change }\nbreakglass contain\n```",
        "query" => "```sql { risk=read }\nSELECT 1;\n```",
        "look" => "```bash { risk=read }\npg_isready\n```",
        "by hand" => "```bash { risk=change }\npg_ctl stop\n```",
        "never" => "```bash { run=never }\nrm -rf data\n```",
        _ => unreachable!(),
    };
    let table: [(&[&str], &[usize], Option<usize>); 15] = [
        (&["ours", "by hand", "ours changes"], &[1], Some(2)),
        (&["ours", "by hand", "ours changes"], &[1, 2], Some(3)),
        (&["ours", "by hand", "ours changes"], &[1, 3], None),
        (&["ours", "query", "ours changes"], &[1, 2], Some(3)),
        (&["ours", "never", "ours changes"], &[1], Some(2)),
        (&["ours", "query", "query"], &[1], Some(2)),
        (&["ours", "query", "query"], &[1, 2], Some(3)),
        (&["ours", "query", "query"], &[1, 2, 3], None),
        (&["ours", "by hand", "look"], &[1, 2], Some(3)),
        (&["ours", "look", "by hand"], &[1, 2], None),
        // One thing in two ways: who went the other way is not sent back, nor told to do it again.
        (&["ours changes", "by hand"], &[1], None),
        (&["ours changes", "by hand"], &[2], None),
        (&["by hand", "ours changes"], &[1], None),
        (&["by hand", "ours", "query"], &[1], Some(3)),
        (&["ours", "ours changes", "query"], &[1, 2], Some(3)),
    ];
    for (kinds, ran, next) in table {
        let all: Vec<&str> = kinds.iter().map(|k| command(k)).collect();
        let plan = parsed(&format!("## 1. Do it\n\n{}\n\n## 2. Tell\n\nEverybody.\n", all.join("\n\n")));
        let blocks: Vec<_> = breakglass::action::runnable::blocks(&plan.steps[0]).cloned().collect();
        let mut story = Story::open(Kind::Real);
        let mut at = 5;
        for n in ran {
            let block = &blocks[n - 1];
            let step = plan.steps[0].id.clone();
            let request = Event::RunRequested {
                step: Some(step),
                block_line: Some(block.line),
                action: if block.own.is_some() { "contain".into() } else { "shell".into() },
                shown: block.code.clone(),
                args: vec![],
                risk: block.risk.unwrap_or(Risk::Change),
                confirmed: None,
            };
            let run = breakglass::model::RunId(story.add(at, vec![request]));
            story.add(at + 1, vec![Event::RunStarted { run, pid: 1, host: "bastion".into(), program: "0.1.0".into() }]);
            story.finish(run, at + 2, Outcome::Succeeded, "done", vec![]);
            at += 3;
        }
        let mut app = opened(60, of(&story, &plan));
        app.incident.as_mut().unwrap().steps.block = 0;
        let said = obvious(&app);
        let case = format!("{kinds:?} after {ran:?}: {said:?}");
        match next {
            None => assert_eq!(said.cmd, Some(Cmd::Done), "{case}"),
            Some(1) => unreachable!(),
            Some(n) => {
                assert_eq!(said.cmd, Some(Cmd::NextBlock), "{case}");
                assert!(said.text.contains(&format!("command {n} of {}", blocks.len())), "{case}");
                // Gone there, it is what r runs.
                press(&mut app, &"] ".repeat(n - 1));
                assert_eq!(obvious(&app).cmd, Some(Cmd::Run), "{case}");
            }
        }
    }
}

/// The key that shows all of a long command runs nothing, and what r does is said where it is named.
#[test]
fn a_key_that_shows_never_runs() {
    let lines: String = (1..9).map(|n| format!("SELECT {n};\n")).collect();
    for (fence, runs) in [("sql { risk=read }", "r runs it"), ("sql { risk=change }", "r asks first")] {
        let plan = parsed(&format!("## 1. Look\n\nBy hand.\n\n```{fence}\n{lines}```\n\n## 2. Tell\n\nAloud.\n"));
        let mut app = opened(20, of(&Story::open(Kind::Real), &plan));
        let seen = shown(&mut app);
        assert!(seen.contains("enter shows") && seen.contains(runs), "{seen}");
        assert!(!seen.contains("SELECT 8"), "{seen}");
        assert_eq!(press(&mut app, "enter pagedown"), vec![]);
        let seen = shown(&mut app);
        assert!(seen.contains("SELECT 8"), "{seen}");
    }
}

/// The alarm is still there when keys were pressed, and gone once the first step is behind.
#[test]
fn what_was_noticed_stays_until_the_first_step_is_done() {
    let alarm = "relation \"public.payments\" does not exist (42P01): orders cannot be paid at the moment";
    let mut story = Story::open(Kind::Drill);
    story.add(1, vec![Event::ImpactStarted { at: start(), source: format!("alarm: {alarm}"), moved_from: None }]);
    let mut app = with_incident(SIZE, 20, story.data());
    let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>().join(" ");
    let pane = |app: &mut App| {
        let right: Vec<String> = shown(app).lines().map(|l| l.rsplit('│').next().unwrap_or("").to_string()).collect();
        words(&right.join(" "))
    };
    let wanted = words(&format!("Alarm at 14:02:00 UTC: {alarm}"));
    assert!(pane(&mut app).contains(&wanted), "{}", shown(&mut app));
    press(&mut app, "n esc down up t esc");
    assert!(pane(&mut app).contains(&wanted), "{}", shown(&mut app));
    story.step(1, 21, 30);
    let mut app = with_incident(SIZE, 40, story.data());
    assert!(!shown(&mut app).contains("Alarm at"), "{}", shown(&mut app));
}

/// A finding stands whole beside its step at 80 columns, and a row of the output that is cut says how to see the rest.
#[test]
fn a_finding_is_whole_and_a_cut_row_says_where_it_goes_on() {
    let found = "2 of 5 not well: database degraded: relation \"payments\" does not exist; payments: the query failed";
    let mut story = Story::open(Kind::Real);
    let run = story.run(1, "health", "breakglass health", Risk::Read, 3);
    story.finish(run, 5, Outcome::Failed, found, vec![]);
    let mut data = story.data();
    // In columns, so that it stays in its row; a sentence goes on in the next one.
    let line = format!("payments | {} | THE END", "x".repeat(60));
    data.outputs.insert(
        run,
        breakglass::app::data::Output { lines: Memory::of(0, &[line.as_str()]), file: "output.log".into() },
    );
    let mut app = with_incident(SIZE, 9, data);
    let seen = shown(&mut app);
    for word in found.split(' ') {
        assert!(seen.contains(word), "{word}: {seen}");
    }
    assert!(seen.contains("→ sideways") && !seen.contains("THE END"), "{seen}");
    press(&mut app, "right right right right right");
    let seen = shown(&mut app);
    assert!(seen.contains("THE END") && seen.contains("← sideways") && !seen.contains("→ sideways"), "{seen}");
}

/// Every dialog with a choice says which keys choose, at every size.
#[test]
fn a_choice_says_how_it_is_made() {
    let mut seen = 0;
    for shot in crate::screens::shots() {
        for size in [(80, 24), (120, 40)] {
            let mut app = (shot.make)(size);
            let focused = |d: &Dialog| matches!(d.fields.get(d.focus), Some(Field::Choice { .. }));
            if !app.dialogs.last().is_some_and(focused) {
                continue;
            }
            seen += 1;
            let text = shown(&mut app);
            assert!(text.lines().last().unwrap().contains("↑↓ choose"), "{}: {text}", shot.name);
        }
    }
    assert!(seen >= 20, "{seen} dialogs with a choice");
}

/// What was filled in beforehand is read from its beginning, over as many rows as it needs.
#[test]
fn where_the_impact_is_known_from_is_not_cut() {
    let source = "alarm: relation \"public.payments\" does not exist, said by the health check of the shop since 13:58";
    let mut story = Story::open(Kind::Drill);
    story.add(1, vec![Event::ImpactStarted { at: start(), source: source.into(), moved_from: None }]);
    let mut app = with_incident(SIZE, 20, story.data());
    press(&mut app, "D");
    for _ in 0..3 {
        let seen = shown(&mut app);
        let field: String = seen
            .lines()
            .skip_while(|l| !l.contains("Known from"))
            .take(3)
            .filter_map(|l| l.split('│').nth(1))
            .collect();
        let letters = |t: &str| t.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        assert!(letters(&field).contains(&letters(source)), "{seen}");
        press(&mut app, "tab");
    }
}

/// Where only rows are brought back out of a copy, nothing that came after the moment is lost, and nothing says so.
#[test]
fn newer_rows_that_stay_are_not_called_lost() {
    let promote = "## 4. Promote\n\n```bash { risk=destroy }\nbreakglass pitr promote\n```\n";
    let place = ROWS.replace("--into beside", "--into place");
    let table = [
        ("rows only", ROWS.to_string(), false, true),
        ("a promotion is planned", format!("{ROWS}\n{promote}"), false, false),
        ("it was promoted all the same", ROWS.to_string(), true, false),
        ("restored in place", place, false, false),
    ];
    for (case, steps, promoted, stays) in table {
        let plan = parsed(&steps);
        let mut story = Story::open(Kind::Real);
        story.add(5, vec![Event::MomentsFound { candidates: candidates() }]);
        let mut app = opened(20, of(&story, &plan));
        press(&mut app, "m");
        let screen = shown(&mut app);
        press(&mut app, "enter");
        let dialog = shown(&mut app);
        let c = candidates().remove(0);
        story.add(6, vec![Event::MomentChosen { target: c.target, at: Some(c.at), loses: Some(c.loses) }]);
        if promoted {
            story.add(7, vec![Event::Promoted { identity: identity(), kept: "/damaged".into() }]);
        }
        let seen = shown(&mut opened(20, of(&story, &plan)));
        assert_eq!(seen.contains("RPO  newer rows stay"), stays, "{case}: {seen}");
        assert_eq!(seen.contains("RPO  loses 5:33"), !stays, "{case}: {seen}");
        if !promoted {
            assert_eq!(screen.contains("loses everything"), !stays, "{case}: {screen}");
            assert_eq!(dialog.contains("That stays"), stays, "{case}: {dialog}");
            assert!(matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::Choose { .. })));
        }
    }
    // The plans we ship: rows come back in two of them, the whole database in one.
    for (name, stays) in [("data-deletion", true), ("security-breach", true), ("database-corruption", false)] {
        let text = std::fs::read(format!("{}/runbooks/{name}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let plan = breakglass::plan::parse(&format!("{name}.md"), &text).unwrap().scenarios.remove(0);
        let state = Story::open(Kind::Real).data().state;
        assert_eq!(breakglass::incident::moment::keeps_newer(&plan, &state), stays, "{name}");
    }
}

/// A sentence that introduces a block stands right above it, once: above the selected command, and above a block that is not run.
#[test]
fn a_caption_stands_with_its_command() {
    let plan = parsed(
        "## 1. Look\n\nReads only.\n\n```bash { risk=read }\nbreakglass assess\n```\n\nA query finds it by hand, reading only:\n\n\
         ```sql { risk=read }\nSELECT 1;\n```\n\nTold like this, in words of theirs:\n\n```text\nSubject: lost rows\n\nWe look.\n```\n\n\
         - [ ] Table known\n- [ ] Number known\n\n## 2. Tell\n\nAloud.\n",
    );
    let mut app = opened(20, of(&Story::open(Kind::Real), &plan));
    press(&mut app, "]");
    for keys in ["", "enter pagedown"] {
        press(&mut app, keys);
        let seen = shown(&mut app);
        let body = seen.lines().take(21);
        let right: Vec<&str> = body.map(|l| l.rsplit('│').next().unwrap_or("").trim()).collect();
        let at = |text: &str| {
            let found: Vec<usize> = (0..right.len()).filter(|n| right[*n].contains(text)).collect();
            assert_eq!(found.len(), 1, "{text} stands once: {seen}");
            found[0]
        };
        assert_eq!(at("A query finds it by hand") + 1, at("SELECT 1;"), "{seen}");
        if !keys.is_empty() {
            let caption = right.iter().position(|l| l.contains("Told like this")).unwrap_or_else(|| panic!("{seen}"));
            assert!(right[caption + 1].contains("Subject: lost rows"), "{seen}");
        }
    }
}

/// What an item asks for and the incident has on record stands below it; ticking stays with the person.
#[test]
fn what_is_on_record_stands_below_the_item_that_asks_for_it() {
    let (mut story, _) = recovering(Kind::Drill);
    story.add(300, vec![Event::NoteAdded { text: "go back to the assessment".into() }]);
    let mut app = with_incident((100, 40), 343, story.data());
    press(&mut app, "up up");
    let seen = shown(&mut app);
    let row = |text: &str| seen.lines().position(|l| l.contains(text)).unwrap_or_else(|| panic!("{text}: {seen}"));
    assert_eq!(row("Number of damaged rows known") + 1, row("on record: 48 312 rows"), "{seen}");
    assert_eq!(row("Tables and columns known") + 1, row("on record: customers, orders"), "{seen}");
}

/// A run that waits says for what and for how long at most, not how far the work before it was.
#[test]
fn next_says_what_a_run_waits_for() {
    let mut data = recovering_data(Kind::Real);
    let progress = data.progress.values_mut().next().unwrap();
    let text = "waiting until 00000001000000000000005A is archived, at most 0:41 more";
    let phase = breakglass::action::ProgressPhase { name: "archive".into(), text: text.into(), ..Default::default() };
    progress.phases.push(phase);
    let app = opened(343, data);
    let next = obvious(&app).text;
    assert!(
        next.starts_with("nothing to do but watch: pitr restore ") && next.ends_with(&format!("is going on, {text}")),
        "{next}"
    );
}
