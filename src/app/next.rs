//! The one obvious next thing to do, on every screen: a sentence and the command that does it.

use crate::incident::people::{tells, untold};
use crate::incident::rules::asks_codename;
use crate::incident::writes::{self, Back};
use crate::incident::{Run, RunStatus, State, StepStatus, moment};
use crate::model::Scenario;
use crate::model::event::Kind;
use crate::model::plan::{Block, Phase, Piece, Risk, Step};

use super::command::Cmd;
use super::data::Recording;
use super::update::chosen_at_once;
use super::{App, HomeRow, IncidentUi, Screen, words};
use crate::action::{message, runnable};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The command, shown as its key.
    pub cmd: Option<Cmd>,
    /// What it does here, as a clause.
    pub text: String,
}

fn next(cmd: Cmd, text: impl Into<String>) -> Next {
    Next { cmd: Some(cmd), text: text.into() }
}
fn wait(text: impl Into<String>) -> Next {
    Next { cmd: None, text: text.into() }
}

/// The next thing on the screen that is shown.
pub fn obvious(app: &App) -> Next {
    if app.unsettled() {
        return wait("wait: the screen has just come up");
    }
    if let Some(what) = &app.busy {
        return wait(format!("wait: {what}"));
    }
    match app.screen() {
        Screen::Home => home(app),
        Screen::Plan => match &app.plan {
            Some(p) if p.row.rehearsable => next(Cmd::Drill, "rehearse it on a private PostgreSQL"),
            _ => next(Cmd::Declare, "declare it as a real incident"),
        },
        Screen::Incident => match app.incident.as_ref().map_or_else(|| wait("opening"), incident) {
            Next { cmd: Some(Cmd::Done), .. } if app.step_unsettled() => {
                wait("wait: read the step first; it has just come up")
            }
            next => next,
        },
        Screen::Timeline => next(Cmd::Back, "back to the steps"),
        Screen::Reference => next(Cmd::Open, "fills in a message, follows a link; pgdn scrolls, y copies"),
        Screen::Moment if chosen_at_once(app) => next(Cmd::Open, "choose the selected moment; nothing runs by that"),
        Screen::Moment => next(Cmd::Open, "choose the selected moment; asks first"),
        Screen::Waiting => wait("wait: the drill opens by itself when the alarm comes"),
        Screen::Messages => next(Cmd::Back, "back"),
    }
}

fn home(app: &App) -> Next {
    if !app.home_loaded {
        return wait("reading plans and incidents");
    }
    match app.home_selected() {
        Some(HomeRow::Incident(i)) => match app.home.incidents.get(i) {
            Some(row) if row.unknown > 0 => next(Cmd::Open, "open it: the outcome of a run is unknown"),
            Some(row) if row.kind == Kind::Real => next(Cmd::Open, "go on with this incident"),
            _ => next(Cmd::Open, "go on with this drill"),
        },
        Some(HomeRow::Scenario(_)) => next(Cmd::Open, "read what to do; nothing is started by that"),
        Some(HomeRow::Secret(i)) => match app.home.secrets.get(i) {
            Some(s) if s.overdue(app.now.time) => next(Cmd::Open, "overdue: change it, then write down when"),
            _ => next(Cmd::Open, "write down when it was changed"),
        },
        None if !app.home_list.filter.is_empty() => next(Cmd::Back, "nothing matches: clear the filter"),
        None => wait("no plan was found; start with: breakglass open PLAN.md"),
    }
}

/// What is left once it is closed: the timeline leaves the program, the list for afterwards is done, the console is left.
fn closed(ui: &IncidentUi, summary: &str) -> Next {
    if ui.exported != Some(ui.data.state.seq) {
        return next(Cmd::Export, format!("export the timeline, then q leaves; closed: {summary}"));
    }
    let ticked = &ui.data.state.people.afterwards;
    let left = ui.afterwards().iter().filter(|i| !ticked.contains_key(*i)).count() as u64;
    match (ui.data.state.kind, left) {
        (Kind::Drill, _) | (_, 0) => next(Cmd::Quit, format!("leave; it is exported and closed: {summary}")),
        _ => next(
            Cmd::Afterwards,
            format!("tick what is left for afterwards: {} (q leaves)", words::plural(left, "item")),
        ),
    }
}

/// The next thing in an incident.
pub fn incident(ui: &IncidentUi) -> Next {
    let (data, state) = (&ui.data, &ui.data.state);
    if let Some((_, summary)) = &state.closed {
        return closed(ui, summary);
    }
    if let Recording::ReadOnly(_) = data.recording {
        return next(Cmd::Timeline, "read only: see what happened");
    }
    if let Some(run) = state.open_runs().find(|r| r.status == RunStatus::Unknown) {
        return next(Cmd::Resolve, format!("say what became of: {}", short(&run.shown)));
    }
    if let Some(run) = state.open_runs().find(|r| data.left_behind(r.id).is_some()) {
        return next(
            Cmd::Resolve,
            format!("the worker of {} died, its processes go on: watch or stop", words::ran(run)),
        );
    }
    if let Some(run) = state.open_runs().next() {
        let left = data
            .progress
            .get(&run.id)
            .and_then(|p| p.eta_ms)
            .map(|ms| format!(", about {} left", crate::model::format_clock(std::time::Duration::from_millis(ms))));
        let verb = if run.cancel_requested { "is stopping" } else { "is going on" };
        if let Some(host) = data.elsewhere(run.id) {
            return next(Cmd::Resolve, format!("only if {host} is gone; else watch: {} {verb} there", words::ran(run)));
        }
        // What it waits for, where that is what it does: a share of the work says nothing then.
        let phase = data.progress.get(&run.id).and_then(|p| p.phases.last());
        let what = phase.filter(|p| p.total.is_none() && !p.text.is_empty() && !run.cancel_requested);
        let what = what.map(|p| format!(", {}", p.text)).or(left).unwrap_or_default();
        return wait(format!("nothing to do but watch: {} {verb}{what}", words::ran(run)));
    }
    if let (Some((since, Back::Now)), None) = (writes::off(state, &data.scenario), &state.people.tabletop) {
        let text = format!("turn writes on again, off since {} (contain --keep-writes)", since.at.hms());
        return next(Cmd::WritesOn, text);
    }
    let stays = state.facts.promoted.is_some() && !state.facts.going_back;
    // Healthy is not yet right: a verification that failed has the first word.
    let doubted = matches!(state.facts.verified, Some((false, _)));
    if let (true, false, None, Some((true, _, _))) = (stays, doubted, &state.restored, &state.facts.health) {
        return next(Cmd::Restored, "promoted and healthy: say that service is back, the clock stops");
    }
    let Some(step) = state.current_step(&data.scenario) else {
        return if state.restored.is_none() {
            next(Cmd::Restored, "all steps are worked: say that service is back")
        } else {
            let lift = if state.people.codename.is_some() { " (V lifts its code name)" } else { "" };
            next(Cmd::Close, format!("all steps are worked: close the incident{lift}"))
        };
    };
    let number = data.scenario.steps.iter().position(|s| s.id == step.id).unwrap_or(0);
    if ui.steps.step != number {
        return next(Cmd::Current, format!("go to step {}: {}", number + 1, step.title));
    }
    if step.phase == Some(Phase::Declare) && state.declared.is_none() {
        return next(Cmd::Declare, "declare severity and when impact began");
    }
    if step.phase == Some(Phase::Declare) && state.people.codename.is_none() && asks_codename(&data.scenario) {
        return next(Cmd::Codename, "give it a code name that says nothing, as the plan asks");
    }
    // A plan without a step for the choice: it is made where the moments were found.
    let last = state.last_word_of(&step.id);
    let decides = |s: &Step| s.phase == Some(Phase::Decide);
    let found_here = || {
        let looked_into = step.phase == Some(Phase::Assess) && last.is_some_and(Run::succeeded);
        looked_into && !data.scenario.steps.iter().any(decides)
    };
    let open_choice = state.facts.chosen.is_none() && !state.facts.candidates.is_empty();
    if open_choice && (decides(step) || found_here()) {
        return next(Cmd::Moment, "choose the moment to restore to");
    }
    // Opened again because the moment was the wrong one: the choice made before does not count.
    let reopened = state.step(&step.id).reopened;
    if step.phase == Some(Phase::Decide) && reopened.is_some() && state.facts.chosen_in < reopened {
        return next(Cmd::Moment, "choose another moment to restore to");
    }
    let failed = matches!(state.facts.verified, Some((false, _)));
    let kept = || moment::chosen_keeps_damage(&state.facts) || moment::damage_stays(&state.facts);
    // Also when it was promoted against all warnings, and is not well.
    let promoted = || state.last_word_of(&step.id).is_some_and(|run| run.action == "pitr promote" && !run.succeeded());
    if failed && (matches!(step.phase, Some(Phase::Verify)) || promoted()) && kept() {
        return next(Cmd::Moment, "the damage is in what was recovered: choose another moment, before it");
    }
    if state.people.tabletop.is_some() {
        return next(Cmd::Done, format!("say what you would do, then mark step {} as done", number + 1));
    }
    let items_left = (0..step.items.len()).filter(|i| !ticked(ui, step, *i)).count();
    let worked = |run: &Run| run.succeeded() || looked(&data.scenario, run);
    let tried = last.filter(|run| worked(run) && only_tried(state, run));
    if let Some(place) = in_turn(ui, step) {
        let blocks: Vec<&Block> = runnable::blocks(step).collect();
        let what = blocks.get(place).map_or(String::new(), |b| brief(ui, b));
        let number = numbered(&blocks, place);
        let named = number.clone().unwrap_or_else(|| "the command".into());
        let number = number.map(|n| format!(" ({n})")).unwrap_or_default();
        return match ui.steps.block.min(blocks.len().saturating_sub(1)) {
            at if at < place => next(Cmd::NextBlock, format!("go on to {named}: {what}")),
            at if at > place => next(Cmd::PrevBlock, format!("go to {named}: {what}")),
            _ if tried.is_some() => {
                next(Cmd::Edit, "do it without --dry-run: nothing was changed yet (r: tries again)")
            }
            _ => next(Cmd::Run, format!("run {what}{number}")),
        };
    }
    let told = tells(step) && !untold(state, step);
    if tells(step) && !told && last.is_none_or(worked) && (last.is_some() || runnable::blocks(step).next().is_none()) {
        return match message::of_step(step) {
            Some(_) => next(Cmd::Tell, "write the step's message: it is filled in and shown first"),
            None => next(Cmd::Tell, "tell people, or write down that they were told"),
        };
    }
    let waits = if told && last.is_none_or(worked) { ui.still_to_tell(step) } else { vec![] };
    if let Some(who) = waits.first() {
        let first = !state.messages.iter().any(|(to, ..)| to == who);
        let what = if first { "they have heard nothing yet" } else { "their next update is due, too" };
        return next(Cmd::Tell, format!("tell the {who}: {what} (d: finish without)"));
    }
    let tick = || {
        let open = (0..step.items.len()).find(|i| !ticked(ui, step, *i)).and_then(|i| step.items.get(i));
        if let (Some(item), Some(name)) = (open, &state.people.codename)
            && lifts(&item.title)
        {
            return next(Cmd::Codename, format!("lift the code name {name}, if it may be; then space ticks that"));
        }
        let what = open.map_or(String::new(), |item| format!(": {}", words::plain(&item.title)));
        next(Cmd::Tick, format!("tick what is true ({items_left} left, then d: done){what}"))
    };
    match last {
        Some(run) if worked(run) && items_left == 0 => next(Cmd::Done, format!("step {} is done", number + 1)),
        Some(run) if worked(run) => tick(),
        Some(run) => next(Cmd::Run, format!("run it again (last time: {})", short(&run.summary))),
        None => match runnable::blocks(step).nth(ui.steps.block).or_else(|| runnable::blocks(step).next()) {
            Some(block) => {
                let ask = match block.attrs.get("risk").map(String::as_str) {
                    Some("read") => "reads only",
                    Some("destroy") => "destroys; asks for the name",
                    _ => "changes; asks first",
                };
                next(Cmd::Run, format!("run {} ({ask})", brief(ui, block)))
            }
            None if items_left > 0 && state.step(&step.id).status != StepStatus::Done => tick(),
            None if told => next(Cmd::Done, format!("step {} is done", number + 1)),
            None => next(Cmd::Done, format!("do it, then mark step {} as done", number + 1)),
        },
    }
}

/// The place, among the commands of a step, of the one that is next: one that was only tried, or one behind the one that ran last
/// and worked. `None` when that was all of them, when none ran, and when the last one has to be run again.
fn in_turn(ui: &IncidentUi, step: &Step) -> Option<usize> {
    let state = &ui.data.state;
    let last = state.last_word_of(&step.id).filter(|run| run.succeeded() || looked(&ui.data.scenario, run))?;
    match only_tried(state, last) {
        true => runnable::blocks(step).position(|b| Some(b.line) == last.block_line),
        false => behind(ui, step, last),
    }
}

/// The command a step opens with, by its place: the one that is next, so that nothing stands above a command that comes before
/// it; of a step that is over, and of one whose last command has to be run again, the one that ran last.
pub(super) fn opens_with(ui: &IncidentUi, step: &Step) -> usize {
    let over = matches!(ui.data.state.step(&step.id).status, StepStatus::Done | StepStatus::Skipped);
    let ran_last = || {
        let line = ui.data.state.last_run_of(&step.id).and_then(|r| r.block_line);
        runnable::blocks(step).position(|b| Some(b.line) == line)
    };
    let open = ui.data.state.open_runs().any(|r| r.step.as_ref() == Some(&step.id));
    let next = if over || open { None } else { in_turn(ui, step) };
    next.or_else(ran_last).unwrap_or(0)
}

/// The next command of a step behind the one that ran last and worked: its place among the commands of the step. What reads is
/// named in its turn, whosever it is; what is ours, once one of ours ran, with whatever stands between. A command that changes
/// something and is not ours is often the same thing in another way, and so is all that the plan calls done by hand: nobody is
/// sent there who did not begin so.
fn behind(ui: &IncidentUi, step: &Step, last: &Run) -> Option<usize> {
    let blocks: Vec<&Block> = runnable::blocks(step).collect();
    let at = blocks.iter().position(|b| Some(b.line) == last.block_line)?;
    let since = ui.data.state.step(&step.id).reopened.map_or(0, |s| s.0);
    let ran = |block: &Block| {
        let mine = |r: &&Run| r.step.as_ref() == Some(&step.id) && r.id.0 > since && r.block_line == Some(block.line);
        let mut runs = ui.data.state.runs.values().filter(mine);
        runs.any(|r| (r.succeeded() && !only_tried(&ui.data.state, r)) || looked(&ui.data.scenario, r))
    };
    let ours_before = blocks[..=at].iter().any(|b| b.own.is_some() && ran(b));
    let ours_behind = blocks.iter().enumerate().skip(at + 1).rev().find(|(_, b)| b.own.is_some() && !ran(b));
    let until = ours_behind.filter(|_| ours_before).map_or(0, |(end, _)| end);
    let mut left = blocks.iter().enumerate().skip(at + 1).filter(|(_, b)| !ran(b));
    let found = left.find(|(place, b)| match b.own.is_some() {
        true => ours_before,
        false if by_hand(b) && !by_hand(blocks[at]) => false,
        false => reads(b) || *place <= until,
    });
    found.map(|(place, _)| place)
}

/// The number of a command among those of its step: `command 2 of 3`, none where there is one. What is another way, by hand,
/// is counted by itself.
pub fn numbered(blocks: &[&Block], at: usize) -> Option<String> {
    let hand = by_hand(blocks.get(at)?);
    let alike = |part: &[&Block]| part.iter().filter(|b| by_hand(b) == hand).count();
    let (number, all) = (alike(&blocks[..=at]), alike(blocks));
    match (hand, all) {
        (true, 1) => Some("by hand".into()),
        (true, _) => Some(format!("by hand, {number} of {all}")),
        (false, 1) => None,
        (false, _) => Some(format!("command {number} of {all}")),
    }
}

/// Whether the plan gives a command as another way to do what one before it does.
pub fn by_hand(block: &Block) -> bool {
    block.own.is_none() && block.caption.as_deref().is_some_and(|c| c.to_lowercase().contains("by hand"))
}

/// Whether the plan says that a block only reads.
fn reads(block: &Block) -> bool {
    block.risk.map_or_else(|| block.attrs.get("risk").is_some_and(|r| r == "read"), |r| r == Risk::Read)
}

/// Whether a run said what it would do and stopped, and nothing of its command was done since the step was begun.
fn only_tried(state: &State, run: &Run) -> bool {
    let same = |r: &&Run| r.step == run.step && r.block_line == run.block_line && r.is_mutating();
    run.succeeded()
        && !run.is_mutating()
        && run.args.iter().any(|a| a == "--dry-run")
        && !state.runs.values().filter(same).any(Run::succeeded)
}

/// Whether the last run of a command only said what it would do, and nothing of it was done yet.
pub(super) fn only_tried_last(ui: &IncidentUi, step: &Step, block: &Block) -> bool {
    let last = ui.data.state.last_word_of(&step.id).filter(|run| run.block_line == Some(block.line));
    last.is_some_and(|run| only_tried(&ui.data.state, run))
}

/// A command in few words, for a line that has little room: one of ours by its name and as many options as fit whole, what is
/// known filled in; a value that is asked for first by its name in plain words. Of another one the first line that says something.
fn brief(ui: &IncidentUi, block: &Block) -> String {
    const ROOM: usize = 44;
    let state = &ui.data.state;
    let Some(words) = &block.own else {
        let lines = || block.code.lines().map(str::trim).filter(|l| !l.is_empty());
        let comment = |l: &&str| l.starts_with('#') || l.starts_with("--");
        return short(lines().find(|l| !comment(l)).or_else(|| lines().next()).unwrap_or(""));
    };
    let mut asked = None;
    let mut texts = Vec::new();
    for word in words {
        let mut text = String::new();
        for piece in &word.0 {
            match piece {
                Piece::Text(t) => text.push_str(t),
                Piece::Var(name) | Piece::Bare(name) => match state.vars.get(name) {
                    Some(value) => text.push_str(&said(state, name, value)),
                    None => _ = asked.get_or_insert_with(|| name.to_lowercase().replace('_', " ")),
                },
            }
        }
        texts.push(text);
    }
    let name = texts.iter().take_while(|w| !w.starts_with('-')).count();
    let mut out = texts[..name].join(" ");
    if let Some(asked) = asked {
        let what = if asked == "target" { "moment" } else { &asked };
        return format!("{out}: asks for the {what} first");
    }
    // An option and its value stand or fall together.
    let rest = &texts[name..];
    let starts: Vec<usize> = (0..rest.len()).filter(|i| rest[*i].starts_with('-')).chain([rest.len()]).collect();
    for pair in starts.windows(2) {
        let option = rest[pair[0]..pair[1]].join(" ");
        if out.chars().count() + option.chars().count() + 5 > ROOM {
            out.push_str(" ...");
            break;
        }
        out.push_str(&format!(" {option}"));
    }
    out
}

/// A variable's value as people say it: the moment by its time of day.
fn said(state: &State, name: &str, value: &str) -> String {
    let at = state.facts.chosen.as_ref().filter(|_| name == "TARGET").and_then(|(_, at, _)| *at);
    at.map_or_else(|| value.to_string(), |at| at.hms())
}

/// Whether a run that did not succeed was a look all the same: bad health *is* the finding of a step that looks. The
/// same rule as in `incident::decide`, which lets such a step be finished.
pub fn looked(scenario: &Scenario, run: &Run) -> bool {
    let step = run.step.as_ref().and_then(|id| scenario.steps.iter().find(|s| s.id == *id));
    !run.is_mutating()
        && matches!(run.status, RunStatus::Finished(_))
        && !step.is_some_and(|s| matches!(s.phase, Some(Phase::Verify | Phase::Close)))
}

fn ticked(ui: &IncidentUi, step: &Step, item: usize) -> bool {
    let item = u32::try_from(item).unwrap_or(u32::MAX);
    ui.data.state.steps.get(&step.id).is_some_and(|s| s.ticked.contains_key(&item))
}

/// Whether an item asks for the end of the code name.
fn lifts(item: &str) -> bool {
    let lower = item.to_lowercase();
    (lower.contains("code name") || lower.contains("codename")) && lower.contains("lift")
}

/// The beginning of a text, its words whole.
fn short(text: &str) -> String {
    const ROOM: usize = 44;
    let line = text.lines().next().unwrap_or("");
    if line.chars().count() <= ROOM && text.lines().count() <= 1 {
        return line.to_string();
    }
    let cut: String = line.chars().take(ROOM).collect();
    let whole = line.chars().nth(ROOM).is_none_or(char::is_whitespace);
    let end = if whole { cut.len() } else { cut.rfind(' ').filter(|at| *at > ROOM / 2).unwrap_or(cut.len()) };
    format!("{}...", cut[..end].trim_end())
}

/// The word for what a risk does.
pub fn risk_word(risk: Risk) -> &'static str {
    match risk {
        Risk::Read => "reads only",
        Risk::Change => "changes",
        Risk::Destroy => "destroys",
    }
}
