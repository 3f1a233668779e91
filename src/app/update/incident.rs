//! An incident, its timeline and the choice of the moment.

use crate::incident::{Command, Context, Run, RunRequest, RunStatus, State, decide, moment as moments, writes};
use crate::model::plan::{Piece, Risk, Step};
use crate::model::target::RecoveryTarget;
use crate::model::{RunId, Time, may_hold_secret};

use super::super::command::Cmd;
use super::super::dialog::{Ask, Dialog, Field};
use super::super::next;
use super::super::{App, Effect, IncidentUi, Pane, Preview, Screen, StepsUi, Tone, Wanted};
use super::{edit, motion, people, reference, step};
use crate::action::runnable;
use crate::incident::rules::asks_codename;

/// The variable that names what rows are brought back of.
const TABLE: &str = "TABLE";

pub(super) fn command(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) {
    match app.screen() {
        Screen::Timeline => timeline(app, cmd, out),
        Screen::Reference => reference::command(app, cmd, out),
        Screen::Moment => moment(app, cmd, out),
        _ => steps(app, cmd, out),
    }
}

fn steps(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) {
    let step_id = app.step().map(|s| s.id.clone());
    let submit = |c: Command| Effect::Submit(c, None);
    if people::command(app, cmd, out) {
        return;
    }
    match cmd {
        Cmd::Open => {
            let pane = app.steps_ui().map_or(Pane::Steps, |s| s.pane);
            match pane {
                Pane::Steps => focus(app, Pane::Text),
                Pane::Text if app.incident.as_ref().is_some_and(|i| i.output.run.is_some()) => {
                    focus(app, Pane::Output);
                }
                Pane::Text | Pane::Output => {}
            }
        }
        Cmd::Run => run(app, out),
        Cmd::Edit => edit::open(app, out),
        Cmd::Done => out.extend(step_id.and_then(|step| step::finish(app, step)).map(submit)),
        Cmd::Start => out.extend(step_id.map(|step| submit(Command::StartStep { step }))),
        Cmd::Skip => app.dialogs.extend(step_id.map(|s| Dialog::new(Ask::Skip(s)))),
        Cmd::Reopen => app.dialogs.extend(step_id.map(|s| Dialog::new(Ask::Reopen(s)))),
        Cmd::Tick => step::tick(app, out),
        Cmd::Note => note(app),
        Cmd::Timeline => {
            if let Some(ui) = &mut app.incident {
                ui.timeline.selected = ui.data.timeline.len().saturating_sub(1);
                ui.timeline.filter.clear();
                app.screens.push(Screen::Timeline);
            }
        }
        Cmd::Moment => open_moments(app, out),
        Cmd::Variable => variable(app),
        Cmd::Waive => app.dialogs.push(Dialog::new(Ask::Waive)),
        Cmd::Cancel => {
            let running = app.incident.as_ref().and_then(|ui| {
                let going = |r: &&crate::incident::Run| matches!(r.status, RunStatus::Requested | RunStatus::Running);
                // The run on the screen if it is going on, else the one that is.
                let shown = ui.output.run.and_then(|id| ui.data.state.runs.get(&id)).filter(going);
                shown.or_else(|| ui.data.state.open_runs().find(going)).map(|r| r.id)
            });
            // A dead worker obeys no cancel: what it left behind is stopped in another way.
            let died = |r: RunId| app.incident.as_ref().is_some_and(|ui| ui.data.left_behind(r).is_some());
            let ask = running.map(|r| if died(r) { Ask::Died(r) } else { Ask::Cancel(r) });
            app.dialogs.extend(ask.map(Dialog::new));
        }
        Cmd::Resolve => {
            let ask = app.incident.as_ref().and_then(|ui| {
                let unknown = ui.data.state.open_runs().find(|r| r.status == RunStatus::Unknown);
                let died = || ui.data.state.open_runs().find(|r| ui.data.left_behind(r.id).is_some());
                let elsewhere = || ui.data.state.open_runs().find(|r| ui.data.elsewhere(r.id).is_some());
                unknown
                    .map(|r| Ask::Unknown(r.id))
                    .or_else(|| died().map(|r| Ask::Died(r.id)))
                    .or_else(|| elsewhere().map(|r| Ask::Elsewhere(r.id)))
            });
            app.dialogs.extend(ask.map(Dialog::new));
        }
        Cmd::Declare => {
            let severity = app.incident.as_ref().and_then(|i| i.data.state.severity.clone());
            let impact = app.incident.as_ref().and_then(|i| i.data.state.impact.clone());
            let mut dialog = Dialog::new(Ask::Declare);
            if let Some(ui) = &app.incident {
                dialog.choose_severity(severity.as_deref(), &ui.rules());
            }
            if let Some(impact) = impact {
                dialog.fields[1] = Field::text("Impact began", "now", &impact.at.date_hms());
                dialog.fields[2] = Field::text("Known from", "first alert, first report", &impact.source);
            }
            if let Some(ui) = &app.incident {
                let named = ui.data.state.people.codename.as_deref();
                dialog.ask_codename(asks_codename(&ui.data.scenario), named);
            }
            app.dialogs.push(dialog);
        }
        Cmd::WritesOn => writes_on(app, out),
        Cmd::Restored => app.dialogs.push(Dialog::new(Ask::Restored)),
        Cmd::Close => people::close(app),
        Cmd::AdoptPlan => {
            let offered = app.incident.as_ref().and_then(|i| i.data.state.plan_offered.clone());
            app.dialogs.extend(offered.map(|d| Dialog::new(Ask::Adopt(d))));
        }
        Cmd::Export => export(app, out),
        Cmd::Link => reference::links(app, out),
        Cmd::Copy => copy(app, out),
        Cmd::Current => {
            if let Some(ui) = &mut app.incident {
                ui.along = true;
            }
            go_along(app);
            focus(app, Pane::Steps);
        }
        Cmd::NextBlock => next_block(app, 1),
        Cmd::PrevBlock => next_block(app, -1),
        Cmd::NextPane => focus_next(app, 1),
        Cmd::PrevPane => focus_next(app, -1),
        Cmd::Pane1 => focus(app, Pane::Steps),
        Cmd::Pane2 => focus(app, Pane::Text),
        Cmd::Pane3 => focus(app, Pane::Output),
        Cmd::Follow => motion::follow(app),
        Cmd::NextMatch => motion::search(app, true),
        Cmd::PrevMatch => motion::search(app, false),
        _ => {}
    }
}

fn timeline(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) {
    match cmd {
        Cmd::Note => note(app),
        Cmd::Export => export(app, out),
        Cmd::Copy => {
            let row = app.incident.as_ref().and_then(|ui| {
                let shown = ui.data.timeline.iter().filter(|r| ui.timeline.passes(r.text.as_str()));
                shown.skip(ui.timeline.selected).map(|r| format!("{} {} {}", r.at, r.actor, r.text)).next()
            });
            out.extend(row.map(|text| Effect::Copy(text, "line")));
        }
        Cmd::Open => {
            // The step that is worked on is what a reader of the timeline comes back to.
            app.screens.pop();
        }
        _ => {}
    }
}

/// Whether a moment is chosen without a question: where it loses nothing, keeps no damage on record and is one that was found. What
/// runs with it shows it and asks.
pub fn chosen_at_once(app: &App) -> bool {
    let Some(ui) = &app.incident else { return false };
    let found = ui.data.state.facts.candidates.get(ui.moment.selected);
    moments::keeps_newer(&ui.data.scenario, &ui.data.state)
        && found.is_some_and(|c| warning(app, &c.target, Some(c.at)).is_none())
}

fn moment(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) {
    if cmd != Cmd::Open {
        return;
    }
    let at_once = chosen_at_once(app);
    let Some(ui) = &app.incident else { return };
    let at = ui.axis_at;
    if let Some(c) = ui.data.state.facts.candidates.get(ui.moment.selected).filter(|_| at_once) {
        let wish = Command::ChooseMoment { target: c.target.clone(), at: Some(c.at), loses: Some(c.loses.clone()) };
        let table = only_table(app, &c.target);
        out.extend(std::iter::once(wish).chain(table).map(|c| Effect::Submit(c, None)));
        app.screens.pop();
        return;
    }
    let ask = match ui.data.state.facts.candidates.get(ui.moment.selected) {
        Some(c) => {
            let warning = warning(app, &c.target, Some(c.at));
            let (target, loses, what) = (c.target.clone(), Some(c.loses.clone()), c.what.clone());
            Ask::Choose { target, at: Some(c.at), loses, what, warning }
        }
        None => Ask::OtherMoment,
    };
    let mut dialog = Dialog::new(ask);
    if let (Ask::OtherMoment, Some(at)) = (&dialog.ask, at) {
        dialog.fields[0] =
            Field::text("Before", "2026-11-20T14:01:07Z, lsn:0/5A2F118, xid:73114, name:x", &at.to_string());
    }
    app.dialogs.push(dialog);
}

/// What is dangerous about a moment: damage on record that it keeps, and what is in service already.
pub(super) fn warning(app: &App, target: &RecoveryTarget, at: Option<Time>) -> Option<String> {
    let facts = &app.incident.as_ref()?.data.state.facts;
    let keeps = moments::warning(facts, target, at);
    let replaces = facts.promoted.as_ref().map(|(id, ..)| {
        format!(
            "A recovered database is in service (timeline {}): it stays so until another is promoted in its place, what was \
             written to it since is then lost, and the clock runs again",
            id.timeline
        )
    });
    match (keeps, replaces) {
        (Some(a), Some(b)) => Some(format!("{}. {b}", a.trim_end_matches('.'))),
        (a, b) => a.or(b),
    }
}

pub(super) fn open_moments(app: &mut App, out: &mut Vec<Effect>) {
    if let Some(ui) = &mut app.incident {
        let chosen = ui.data.state.facts.chosen.as_ref().map(|(target, ..)| target);
        let at = ui.data.state.facts.candidates.iter().position(|c| Some(&c.target) == chosen);
        ui.moment.selected = at.unwrap_or(0);
        ui.axis_at = None;
        app.screens.push(Screen::Moment);
        out.push(Effect::Axis);
    }
}

fn note(app: &mut App) {
    let mut dialog = Dialog::new(Ask::Note);
    if !app.draft.is_empty() {
        dialog.fields[0] = Field::text("Note", "what was seen or done", &app.draft);
    }
    app.dialogs.push(dialog);
}

fn export(app: &App, out: &mut Vec<Effect>) {
    out.extend(app.incident.as_ref().map(|i| Effect::Export(i.data.state.id.clone())));
}

/// The run of the selected command: what is missing is asked for, what is forbidden is said, then it is shown as it
/// would run. Only what reads is run at once.
pub(super) fn run(app: &mut App, out: &mut Vec<Effect>) {
    let Some(ui) = &app.incident else { return };
    let Some(step) = ui.data.scenario.steps.get(ui.steps.step) else { return };
    let Some(block) = runnable::blocks(step).nth(ui.steps.block).or_else(|| runnable::blocks(step).next()) else {
        return;
    };
    match runnable::request(step, block, &app.known(ui)) {
        Ok(request) => ask(app, request, out),
        Err(missing) => need(app, missing, false, out),
    }
}

/// Asks for a variable: the first one that the selected command needs stands there already.
fn variable(app: &mut App) {
    let Some(name) = app.needed().into_iter().next() else {
        return app.dialogs.push(Dialog::new(Ask::Variable));
    };
    if may_hold_secret(&name) {
        return app.dialogs.push(Dialog::new(Ask::Values(vec![name])));
    }
    let mut dialog = Dialog::new(Ask::Variable);
    dialog.fields[0] = Field::text("Name", "as the plan writes it", &name);
    dialog.focus = 1;
    app.dialogs.push(dialog);
}

/// Turns writes on again, like every run that changes something: looked at first, then asked. It belongs to no step: the one
/// that turned them off is over.
fn writes_on(app: &mut App, out: &mut Vec<Effect>) {
    let (action, args) = writes::TURNS_ON;
    let request = RunRequest {
        step: None,
        block_line: None,
        action: action.into(),
        shown: format!("breakglass {action} {}", args.join(" ")),
        args: args.iter().map(|a| a.to_string()).collect(),
        risk: Risk::Change,
        confirmed: None,
    };
    ask(app, request, out);
}

/// Asks for what a command needs; then it goes on by itself.
pub(super) fn need(app: &mut App, missing: runnable::Missing, edit: bool, out: &mut Vec<Effect>) {
    let Some(ui) = &mut app.incident else { return };
    let Some(step) = ui.data.scenario.steps.get(ui.steps.step) else { return };
    let Some(block) = runnable::blocks(step).nth(ui.steps.block).or_else(|| runnable::blocks(step).next()) else {
        return;
    };
    let target = "TARGET".to_string();
    let moment = missing.variables.contains(&target);
    let names = if moment { vec![target] } else { missing.names() };
    ui.wanted = Some(Wanted { step: step.id.clone(), line: block.line, edit, names: names.clone() });
    if moment {
        app.say(Tone::Info, "TARGET has no value yet: choose the moment to restore to; then it goes on".into());
        return open_moments(app, out);
    }
    let dialog = values(&ui.data.state, names);
    app.dialogs.push(dialog);
}

/// The way of every run: what the rules forbid is said, what only reads runs at once, everything else is looked at and asked.
pub(super) fn ask(app: &mut App, mut request: RunRequest, out: &mut Vec<Effect>) {
    let Some(ui) = &app.incident else { return };
    let state = &ui.data.state;
    // Whether the rules allow it is asked as if the name had been typed: that comes last.
    let wish = Command::RequestRun(RunRequest { confirmed: name_of(ui), ..request.clone() });
    let context =
        Context { scenario: &ui.data.scenario, now: &app.now, actor: &app.env.actor, policy: &app.env.policy };
    // What is unknown of the target is about to be looked at; everything else is said at once.
    match decide(Some(state), &wish, context) {
        Err(refusal) if !matches!(refusal.gate, Some("identity" | "verified_backup")) => {
            return app.dialogs.push(Dialog::new(Ask::Refused(refusal)));
        }
        _ => {}
    }
    if request.risk == Risk::Read {
        return start(app, request, out);
    }
    request.confirmed = None;
    app.busy = Some(super::LOOKING.into());
    out.push(Effect::Preview(Box::new(request)));
}

/// Asks for values; the table that the chosen moment is about is put in already.
fn values(state: &State, names: Vec<String>) -> Dialog {
    let chosen = state.facts.chosen.as_ref().map(|(target, ..)| target);
    let moment = state.facts.candidates.iter().find(|c| Some(&c.target) == chosen);
    let place = names.iter().position(|n| n == TABLE);
    let mut dialog = Dialog::new(Ask::Values(names));
    if let (Some(field), Some(table)) =
        (place.and_then(|i| dialog.fields.get_mut(i)), moment.and_then(|c| c.tables.first()))
    {
        *field = Field::text(TABLE, "value; \"\" for an empty one", table);
    }
    dialog
}

/// The table of a moment that is about one alone, as the variable of that name, where the plan has it and nobody said another: what
/// runs with it shows it before it asks.
pub(super) fn only_table(app: &App, target: &RecoveryTarget) -> Option<Command> {
    let ui = app.incident.as_ref()?;
    let (scenario, state) = (&ui.data.scenario, &ui.data.state);
    let moment = state.facts.candidates.iter().find(|c| c.target == *target)?;
    let [table] = moment.tables.as_slice() else { return None };
    let words = scenario.steps.iter().flat_map(|s| &s.blocks).filter_map(|b| b.own.as_ref()).flatten();
    let wanted = words.flat_map(|w| &w.0).any(|p| matches!(p, Piece::Var(v) | Piece::Bare(v) if v == TABLE));
    let free = !state.vars.contains_key(TABLE) && wanted;
    free.then(|| Command::SetVariable { name: TABLE.into(), value: table.clone() })
}

/// The name that has to be typed: the database as seen live, else the target as people call it.
fn name_of(ui: &IncidentUi) -> Option<String> {
    let state = &ui.data.state;
    let seen = state.facts.source.as_ref().map(|(identity, _)| identity.database.clone());
    let known = seen.or_else(|| state.target.clone()).or_else(|| state.expect.get("database").cloned());
    Some(known.unwrap_or_else(|| state.scenario.clone()))
}

/// What the action would do was looked at: now it is asked, with everything that is known.
pub(super) fn previewed(app: &mut App, request: RunRequest, preview: Preview) {
    let Some(ui) = &app.incident else { return };
    let name = preview.database.clone().or_else(|| name_of(ui));
    let wish = Command::RequestRun(RunRequest { confirmed: name.clone(), ..request.clone() });
    let context =
        Context { scenario: &ui.data.scenario, now: &app.now, actor: &app.env.actor, policy: &app.env.policy };
    if let Err(refusal) = decide(Some(&ui.data.state), &wish, context) {
        return app.dialogs.push(Dialog::new(Ask::Refused(refusal)));
    }
    let ask = match request.risk {
        Risk::Destroy => Ask::Destroy(Box::new(request), name.unwrap_or_default(), preview),
        Risk::Read | Risk::Change => Ask::Run(Box::new(request), preview),
    };
    app.dialogs.push(Dialog::new(ask));
}

/// Asks the world to run it.
pub(super) fn start(app: &mut App, request: RunRequest, out: &mut Vec<Effect>) {
    let code = app.step().and_then(|s| s.blocks.iter().find(|b| Some(b.line) == request.block_line)).map(|_| {
        // Placeholders are filled in already; what is shown is what runs.
        request.shown.clone()
    });
    let code = code.filter(|_| request.action == "shell" || request.action == "sql");
    if let Some(ui) = &mut app.incident {
        ui.output.follow = true;
        ui.output.column = 0;
    }
    // Until it stands in the journal a second press must not ask for it again.
    app.busy = Some(super::STARTING.into());
    out.push(Effect::Run(Box::new(request), code));
}

/// Copies the selected command, the step's text, or the output that is kept.
pub(super) fn copy(app: &mut App, out: &mut Vec<Effect>) {
    let Some(step) = app.step() else { return };
    let Some(place) = app.steps_ui() else { return };
    let (text, what) = match place.pane {
        Pane::Steps => match runnable::blocks(step).nth(place.block) {
            Some(block) => {
                let known = app.incident.as_ref().filter(|_| app.screen() == Screen::Incident).map(|i| app.known(i));
                let ready = known.and_then(|k| runnable::request(step, block, &k).ok());
                (ready.map_or_else(|| block.code.clone(), |r| r.shown), "command")
            }
            None => (step.title.clone(), "title"),
        },
        Pane::Text => {
            let mut text = format!("{}\n\n{}", step.title, step.text);
            for block in &step.blocks {
                text.push_str(&format!("\n\n```{}\n{}\n```", block.lang, block.code));
            }
            (text, "step")
        }
        Pane::Output => {
            let output = app.incident.as_ref().and_then(|i| i.data.outputs.get(&i.output.run?));
            let Some(output) = output else { return app.say(Tone::Info, "there is no output to copy".into()) };
            let first = output.lines.first();
            let count = usize::try_from(output.lines.total() - first).unwrap_or(usize::MAX);
            let lines = output.lines.read(first, count);
            (lines.iter().map(|l| l.as_str()).collect::<Vec<_>>().join("\n"), "output")
        }
    };
    out.push(Effect::Copy(text, what));
}

/// Gives a pane the focus.
pub(super) fn focus(app: &mut App, pane: Pane) {
    let has_output = app.incident.as_ref().is_some_and(|i| i.output.run.is_some());
    if let Some(place) = steps_mut(app)
        && (pane != Pane::Output || has_output)
    {
        place.pane = pane;
    }
}

fn focus_next(app: &mut App, by: isize) {
    let Some(ui) = &mut app.incident else { return };
    let mut panes = vec![Pane::Steps, Pane::Text];
    if ui.output.run.is_some() {
        panes.push(Pane::Output);
    }
    let at = panes.iter().position(|p| *p == ui.steps.pane).unwrap_or(0) as isize;
    ui.steps.pane = panes[(at + by).rem_euclid(panes.len() as isize) as usize];
}

pub(super) fn next_block(app: &mut App, by: isize) {
    let Some(count) = app.step().map(|s| runnable::blocks(s).count()).filter(|c| *c > 0) else { return };
    if let Some(place) = steps_mut(app) {
        place.block = (place.block as isize + by).rem_euclid(count as isize) as usize;
    }
}

impl IncidentUi {
    /// The run whose result and output belong to what is selected: one that goes on, else the last one of the selected
    /// command, or of the step when it has but one command.
    pub fn run_of(&self, step: &Step) -> Option<&Run> {
        let state = &self.data.state;
        let own = |r: &&Run| r.step.as_ref() == Some(&step.id);
        if let Some(open) = state.open_runs().find(own) {
            return Some(open);
        }
        let block = runnable::blocks(step).nth(self.steps.block).or_else(|| runnable::blocks(step).next());
        match block {
            Some(block) if runnable::blocks(step).count() > 1 => {
                state.runs.values().rev().filter(own).find(|r| r.block_line.is_none_or(|l| l == block.line))
            }
            _ => state.last_run_of(&step.id),
        }
    }

    /// The command a step opens with, by its place among the step's commands.
    pub fn opens_with(&self, step: usize) -> usize {
        self.data.scenario.steps.get(step).map_or(0, |step| next::opens_with(self, step))
    }
}

/// Where the reader is among the steps on the screen.
pub(super) fn steps_mut(app: &mut App) -> Option<&mut StepsUi> {
    match app.screen() {
        Screen::Plan => app.plan.as_mut().map(|p| &mut p.steps),
        _ => app.incident.as_mut().map(|i| &mut i.steps),
    }
}

/// When the reader has not moved elsewhere, the selection goes along to the step the work is at.
pub(super) fn go_along(app: &mut App) {
    let Some(ui) = &mut app.incident else { return };
    let len = ui.data.scenario.steps.len();
    let current = ui.data.state.current_step(&ui.data.scenario).map(|s| s.id.clone());
    let at = ui.data.scenario.steps.iter().position(|s| Some(&s.id) == current.as_ref());
    if ui.along
        && let Some(at) = at
        && at != ui.steps.step
    {
        let block = ui.opens_with(at);
        ui.steps = StepsUi { step: at, block, pane: ui.steps.pane, ..StepsUi::default() };
        ui.came_up = Some(app.now.time);
        if ui.steps.pane == Pane::Output {
            ui.steps.pane = Pane::Steps;
        }
    }
    ui.steps.step = ui.steps.step.min(len.saturating_sub(1));
    let rows = ui.data.timeline.len();
    if ui.timeline.selected + 2 >= rows || ui.timeline.selected >= rows {
        ui.timeline.selected = rows.saturating_sub(1);
    }
}

/// The output on the screen is that of the selected step's last run, else of a run that is going on.
pub(super) fn follow_run(app: &mut App, out: &mut Vec<Effect>) {
    let Some(ui) = &mut app.incident else { return };
    let step = ui.data.scenario.steps.get(ui.steps.step);
    let run: Option<RunId> = step.and_then(|s| ui.run_of(s)).map(|r| r.id);
    let fresh = run != ui.output.run;
    if fresh {
        ui.output = super::super::OutputUi { run, follow: true, ..Default::default() };
    }
    // A table is read from its head; everything else from what was said last.
    let table = |r: &Run| r.action == "sql" && !r.is_open();
    if !ui.output.begun && run.and_then(|r| ui.data.state.runs.get(&r)).is_some_and(table) {
        (ui.output.begun, ui.output.follow, ui.output.top, ui.output.left_at) = (true, false, 0, u64::MAX);
        app.dirty = true;
    }
    if !fresh {
        return;
    }
    if run.is_none() && ui.steps.pane == Pane::Output {
        ui.steps.pane = Pane::Steps;
    }
    app.dirty = true;
    out.extend(run.map(Effect::Follow));
}
