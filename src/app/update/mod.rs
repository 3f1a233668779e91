//! [`update`]: the only place where the screen's state changes. Pure: time is an argument, effects are values.

mod accept;
pub mod dialog;
mod edit;
mod home;
mod incident;
mod motion;
pub mod people;
pub mod reference;
mod step;
pub mod tell;

use std::time::Duration;

use crate::incident::{Now, RunStatus};
use crate::model::Time;
use crate::model::target::{Candidate, RecoveryTarget};

pub use incident::chosen_at_once;

use super::allowed::why_not;
use super::command::{Cmd, Danger};
use super::dialog::{Ask, Dialog};
use super::field::Line;
use super::{App, Effect, Hit, IncidentUi, Message, Msg, Pane, Screen, Shown, Tone};

/// A second Ctrl-C within this time leaves the console.
const TWICE: Duration = Duration::from_secs(2);

/// What is said between the yes to a run and its request standing in the journal.
pub(super) const STARTING: &str = "starting it";

/// What is said while a drill is judged, closed and cleared away.
pub const JUDGING: &str = "judging the drill by the umpire's own logs";

/// What is said when the timeline was exported, between the number of files and their folder.
pub const EXPORTED: &str = "files of the timeline in";

/// What is said while the target is looked at before a question.
pub(super) const LOOKING: &str = "looking at the target";

/// Whether a command only moves, looks or leaves, so that it may be meant for any screen.
fn harmless(cmd: Cmd) -> bool {
    cmd.info().danger == Danger::Looks && cmd != Cmd::Copy
}

/// Takes one message in. What it asks of the world is returned; whether anything visible changed is in `app.dirty`.
pub fn update(app: &mut App, msg: Msg, now: Now) -> Vec<Effect> {
    app.now = now;
    app.look();
    let mut out = Vec::new();
    match msg {
        Msg::Resize(w, h) => {
            // Keys typed blind before the window grew may arrive only now.
            let blind = app.too_small();
            app.size = (w, h);
            if blind && !app.too_small() {
                app.came_up = Some(app.now.time);
            }
            app.dirty = true;
        }
        Msg::Tick => {
            app.dirty |= app.has_clock();
            people::refresh(app);
        }
        Msg::Home(home) => {
            app.home = *home;
            app.home_loaded = true;
            app.dirty = true;
            let rows = app.home_rows().len();
            app.home_list.selected = app.home_list.selected.min(rows.saturating_sub(1));
        }
        Msg::Health(seen) => {
            app.health = Some(*seen);
            app.dirty = true;
        }
        Msg::Opened(data) => {
            app.incident = Some(IncidentUi::new(*data));
            // The last frame showed another one.
            app.shown = Shown::default();
            app.came_up = app.waiting.take().map(|_| app.now.time);
            if app.came_up.is_some() {
                app.busy = None;
            }
            app.screens = vec![Screen::Home, Screen::Incident];
            app.plan = None;
            app.trail.clear();
            app.references.clear();
            app.dialogs.clear();
            app.typing = None;
            app.dirty = true;
            incident::go_along(app);
        }
        Msg::Changed(data) => {
            if let Some(ui) = app.incident.as_mut().filter(|ui| ui.data.state.id == data.state.id) {
                if data.state.runs.len() > ui.data.state.runs.len() && app.busy.as_deref() == Some(STARTING) {
                    app.busy = None;
                }
                announce(&ui.data, &data, &mut app.messages, &mut app.message_read, app.now.time);
                ui.data = *data;
                let state = &ui.data.state;
                ui.ticking.retain(|(step, item), done| state.step(step).ticked.contains_key(item) != *done);
                app.dirty = true;
                incident::go_along(app);
                people::refresh(app);
                edit::go_on(app, &mut out);
            }
        }
        Msg::Exposure(id, live) => {
            if let Some(ui) = app.incident.as_mut().filter(|ui| ui.data.state.id == id) {
                app.dirty |= ui.live != *live;
                ui.live = *live;
            }
        }
        Msg::Axis(id, axis) => {
            if let Some(ui) = app.incident.as_mut().filter(|ui| ui.data.state.id == id) {
                app.dirty = true;
                ui.axis = Some(*axis);
            }
        }
        Msg::Progress(run, progress) => {
            if let Some(ui) = &mut app.incident {
                app.dirty |= ui.data.progress.get(&run) != Some(&progress);
                ui.data.progress.insert(run, progress);
            }
        }
        Msg::Previewed(request, preview) => {
            app.busy = None;
            app.dirty = true;
            incident::previewed(app, *request, preview);
        }
        Msg::Say(tone, text) => {
            if tone == Tone::Bad
                && let Some(ui) = &mut app.incident
            {
                // What was refused will not come.
                ui.ticking.clear();
                ui.wanted = None;
            }
            if let (Tone::Good, true, Some(ui)) = (tone, text.contains(EXPORTED), &mut app.incident) {
                ui.exported = Some(ui.data.state.seq);
            }
            app.say(tone, text);
        }
        Msg::Busy(what) => {
            match (&what, &mut app.waiting) {
                (Some(text), Some(waiting)) => waiting.said.push((app.now.time, text.clone())),
                // It is over without an incident: why is said, and home is there again.
                (None, Some(_)) => {
                    app.waiting = None;
                    app.screens = vec![Screen::Home];
                }
                (..) => {}
            }
            app.busy = what;
            app.dirty = true;
        }
        // A window that is too small shows nothing of what a key would do, so keys do nothing.
        _ if app.too_small() => {
            if matches!(msg, Msg::Command(Cmd::Interrupt | Cmd::Quit)) {
                interrupt(app, &mut out);
            }
        }
        Msg::Command(cmd) => {
            app.touched();
            command(app, cmd, &mut out);
        }
        Msg::Pending(key) => {
            app.touched();
            app.pending.push(key);
        }
        Msg::Unbound => {
            if !app.pending.is_empty() {
                app.pending.clear();
                app.dirty = true;
            }
        }
        Msg::Typed(c) => {
            app.touched();
            type_in(app, |line| line.insert(c));
        }
        Msg::Edit(edit) => {
            app.touched();
            type_in(app, |line| line.edit(edit));
        }
        Msg::Paste(text) => {
            app.touched();
            if app.typing.is_some() || app.dialogs.last_mut().is_some_and(|d| d.line().is_some()) {
                type_in(app, |line| line.paste(&text));
            } else {
                app.say(Tone::Info, "pasted text was dropped: no field has the focus".into());
            }
        }
        Msg::Click(x, y) => click(app, x, y, &mut out),
        Msg::Wheel(rows, x, y) => {
            if app.dialogs.is_empty() {
                if let Some(Hit::Pane(pane)) = hit(&app.shown, x, y, false) {
                    incident::focus(app, pane);
                }
            }
            motion::by(app, rows as isize);
            app.dirty = true;
        }
    }
    incident::follow_run(app, &mut out);
    out
}

/// Does a command: in the dialog or field that is open, else on the screen.
pub(super) fn command(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) {
    app.pending.clear();
    match cmd {
        Cmd::Redraw => return out.push(Effect::Redraw),
        Cmd::Suspend => return out.push(Effect::Suspend),
        Cmd::Interrupt => return interrupt(app, out),
        _ => {}
    }
    if app.typing.is_some() {
        return typing(app, cmd);
    }
    if !app.dialogs.is_empty() {
        return dialog::command(app, cmd, out);
    }
    let looking = app.busy.as_deref() == Some(LOOKING);
    if (app.unsettled() || looking) && !harmless(cmd) {
        // Pressed for the screen that was there before, or for a question that is not there yet.
        let why =
            if looking { "the question comes when the target was looked at" } else { "the screen has just come up" };
        return app.say(Tone::Info, format!("that key was not taken: {why}"));
    }
    // Who does something else does not wait for it any more; on the screen of moments it is being given.
    if app.screen() != Screen::Moment || cmd == Cmd::Back {
        if let Some(ui) = &mut app.incident {
            ui.wanted = None;
        }
    }
    if cmd != Cmd::Done && app.incident.as_mut().is_some_and(|ui| ui.unticked.take().is_some()) {
        app.message_over = app.messages.len();
    }
    if let Some(why) = why_not(cmd, app) {
        return app.say(Tone::Bad, format!("{}: {why}", cmd.info().name));
    }
    match cmd {
        Cmd::Help => app.dialogs.push(Dialog::new(Ask::Help)),
        Cmd::Palette => app.dialogs.push(Dialog::new(Ask::Palette)),
        Cmd::Messages => {
            if app.screen() != Screen::Messages {
                app.screens.push(Screen::Messages);
                app.messages_list.selected = app.messages.len().saturating_sub(1);
            }
        }
        Cmd::Mouse => {
            app.settings.mouse = !app.settings.mouse;
            out.push(Effect::Mouse(app.settings.mouse));
            let how =
                if app.settings.mouse { "on; hold Shift to select text" } else { "off; the terminal selects text" };
            app.say(Tone::Info, format!("mouse {how}"));
        }
        Cmd::Back => back(app, out),
        Cmd::Quit => quit(app, out),
        Cmd::Filter => {
            let now = current_filter(app).cloned().unwrap_or_default();
            app.typing = Some(Line::new(now));
        }
        Cmd::Contacts | Cmd::Matrix | Cmd::Objectives | Cmd::Templates | Cmd::Checklists => reference::open(app, cmd),
        _ if motion::command(app, cmd) => {}
        _ => match app.screen() {
            Screen::Home | Screen::Plan => home::command(app, cmd, out),
            Screen::Incident | Screen::Timeline | Screen::Moment | Screen::Reference => {
                incident::command(app, cmd, out);
            }
            Screen::Waiting | Screen::Messages => {}
        },
    }
}

/// The filter or search of what has the focus.
fn current_filter(app: &mut App) -> Option<&mut String> {
    match app.screen() {
        Screen::Home => Some(&mut app.home_list.filter),
        Screen::Incident => app.incident.as_mut().map(|i| &mut i.output.search),
        Screen::Timeline => app.incident.as_mut().map(|i| &mut i.timeline.filter),
        Screen::Plan | Screen::Moment | Screen::Messages | Screen::Reference | Screen::Waiting => None,
    }
}

/// A filter that is being typed: it applies at once, Esc takes it back.
fn typing(app: &mut App, cmd: Cmd) {
    match cmd {
        Cmd::Accept => {
            app.typing = None;
            if app.screen() == Screen::Incident {
                motion::search(app, true);
            }
        }
        Cmd::Dismiss => {
            app.typing = None;
            if let Some(filter) = current_filter(app) {
                filter.clear();
            }
        }
        _ => {}
    }
}

fn type_in(app: &mut App, change: impl FnOnce(&mut Line)) {
    if let Some(line) = &mut app.typing {
        change(line);
        let text = line.text().to_string();
        if let Some(filter) = current_filter(app) {
            *filter = text;
        }
        app.home_list.selected = 0;
        if let Some(ui) = &mut app.incident {
            ui.timeline.selected = 0;
        }
    } else if let Some(dialog) = app.dialogs.last_mut() {
        dialog.problem = None;
        if matches!(dialog.ask, Ask::Help | Ask::Palette) {
            dialog.selected = 0;
        }
        if let Some(line) = dialog.line() {
            change(line);
        }
    }
}

/// What Esc does now, in two words for the hint line.
pub fn back_word(app: &App) -> &'static str {
    let searching = app.incident.as_ref().is_some_and(|i| !i.output.search.is_empty());
    match app.screen() {
        _ if app.typing.is_some() => "clear",
        _ if !app.dialogs.is_empty() => "cancel",
        Screen::Home if !app.home_list.filter.is_empty() => "clear filter",
        Screen::Home => "",
        Screen::Incident if searching => "clear search",
        Screen::Incident | Screen::Plan if app.steps_ui().is_some_and(|s| s.pane != Pane::Steps) => "to steps",
        Screen::Incident | Screen::Plan => "home",
        Screen::Timeline if app.incident.as_ref().is_some_and(|i| !i.timeline.filter.is_empty()) => "clear filter",
        Screen::Timeline | Screen::Moment => "to steps",
        Screen::Waiting => "",
        Screen::Messages | Screen::Reference => "back",
    }
}

/// One step back; never leaves the console.
fn back(app: &mut App, out: &mut Vec<Effect>) {
    if let Some(filter) = current_filter(app).filter(|f| !f.is_empty()) {
        filter.clear();
        if let Some(ui) = &mut app.incident {
            ui.output.hit = None;
        }
        return;
    }
    match app.screen() {
        Screen::Home => app.say(Tone::Info, "this is the first screen; q leaves the console".into()),
        Screen::Waiting => app.say(Tone::Info, "q leaves the console; what was made so far is removed".into()),
        Screen::Incident | Screen::Plan if app.steps_ui().is_some_and(|s| s.pane != Pane::Steps) => {
            incident::focus(app, Pane::Steps);
        }
        Screen::Incident => {
            app.screens.pop();
            app.incident = None;
            out.extend([Effect::Leave, Effect::LoadHome]);
        }
        Screen::Plan => {
            app.screens.pop();
            app.plan = app.trail.pop();
        }
        Screen::Reference => {
            app.screens.pop();
            app.references.pop();
        }
        Screen::Timeline | Screen::Moment | Screen::Messages => {
            app.screens.pop();
        }
    }
}

/// Leaves at once when nothing runs, else asks.
fn quit(app: &mut App, out: &mut Vec<Effect>) {
    let running = app.incident.as_ref().is_some_and(|i| {
        i.data.state.open_runs().any(|r| matches!(r.status, RunStatus::Requested | RunStatus::Running))
    });
    if app.busy.as_deref() == Some(JUDGING) {
        app.say(Tone::Info, "the drill is being judged and cleared away; q leaves when that is done".into());
    } else if running {
        app.dialogs.push(Dialog::new(Ask::Quit));
    } else {
        out.push(Effect::Quit);
    }
}

/// Ctrl-C: leaves a dialog; twice within two seconds leaves the console. Running actions are never touched by it.
fn interrupt(app: &mut App, out: &mut Vec<Effect>) {
    app.dirty = true;
    if app.interrupted.is_some_and(|t| app.now.time.since(t) < TWICE) {
        return out.push(Effect::Quit);
    }
    app.interrupted = Some(app.now.time);
    if app.typing.is_some() {
        return typing(app, Cmd::Dismiss);
    }
    if !app.dialogs.is_empty() {
        return dialog::command(app, Cmd::Dismiss, out);
    }
    app.say(Tone::Info, "ctrl-c again leaves the console; running actions go on (x stops one)".into());
}

fn click(app: &mut App, x: u16, y: u16, out: &mut Vec<Effect>) {
    app.touched();
    // A dialog is answered by keys: a stray click confirms nothing.
    if !app.dialogs.is_empty() {
        return;
    }
    if let Some(Hit::Pane(pane)) = hit(&app.shown, x, y, false) {
        incident::focus(app, pane);
    }
    if let Some(Hit::Row(row)) = hit(&app.shown, x, y, true) {
        let again = motion::selected(app) == Some(row);
        motion::select(app, row);
        if again && app.screen() == Screen::Home {
            command(app, Cmd::Open, out);
        }
    }
}

fn hit(shown: &Shown, x: u16, y: u16, rows: bool) -> Option<Hit> {
    shown
        .hits
        .iter()
        .find(|(left, top, w, h, what)| {
            matches!(what, Hit::Row(_)) == rows && x >= *left && y >= *top && x - left < *w && y - top < *h
        })
        .map(|(.., what)| *what)
}

/// Says what ended while the reader looked elsewhere.
fn announce(
    old: &super::data::Incident,
    new: &super::data::Incident,
    messages: &mut Vec<Message>,
    read: &mut bool,
    at: Time,
) {
    let brought = |i: &super::data::Incident| i.state.people.tabletop.as_ref().map_or(0, |t| t.brought.len());
    let known = brought(old);
    for (_, text) in new.state.people.tabletop.iter().flat_map(|t| t.brought.iter().skip(known)) {
        *read = false;
        messages.push(Message { at, tone: Tone::Bad, text: text.clone() });
    }
    for note in new.state.notes.iter().skip(old.state.notes.len()) {
        *read = false;
        messages.push(Message { at, tone: Tone::Good, text: super::words::noted(note) });
    }
    if let Some(text) = super::words::declared(Some(&old.state), &new.state) {
        *read = false;
        messages.push(Message { at, tone: Tone::Good, text });
    }
    for run in new.state.runs.values() {
        let before = old.state.runs.get(&run.id).map(|r| r.status);
        if before == Some(run.status) {
            continue;
        }
        let what = super::words::ran(run);
        let (tone, text) = match run.status {
            RunStatus::Finished(_) if run.succeeded() => (Tone::Good, format!("{what} succeeded: {}", run.summary)),
            RunStatus::Finished(_) if super::next::looked(&new.scenario, run) => {
                (Tone::Info, format!("{what} found: {}", run.summary))
            }
            RunStatus::Finished(_) => (Tone::Bad, format!("{what} did not succeed: {}", run.summary)),
            RunStatus::Unknown => (Tone::Bad, format!("{what}: its worker vanished, the outcome is unknown")),
            RunStatus::Withdrawn => (Tone::Info, format!("{what} never started and was taken back")),
            RunStatus::Running | RunStatus::Requested => continue,
        };
        *read = false;
        messages.push(Message { at, tone, text });
    }
}

impl App {
    /// Tells the reader something.
    pub fn say(&mut self, tone: Tone, text: String) {
        self.messages.push(Message { at: self.now.time, tone, text });
        self.message_read = false;
        self.dirty = true;
    }

    /// Keeps in mind which items the last frame showed.
    fn look(&mut self) {
        let (at, items) = &self.shown.seen;
        let here = self.screen() == Screen::Incident && self.dialogs.is_empty();
        let Some(ui) = self.incident.as_mut().filter(|ui| here && ui.steps.step == *at) else { return };
        let Some(step) = ui.data.scenario.steps.get(*at) else { return };
        ui.seen.extend(items.iter().map(|i| (step.id.clone(), *i)));
    }

    /// A key was pressed: an error that was on the screen for a second counts as read.
    fn touched(&mut self) {
        self.dirty = true;
        if self.messages.last().is_some_and(|m| self.now.time.since(m.at) >= Duration::from_secs(1)) {
            self.message_read = true;
        }
    }
}

impl IncidentUi {
    /// Where the cursor of the time axis stands: put there, or at the selected moment, or at the end.
    pub fn axis_moment(&self) -> Option<Time> {
        let selected = self.data.state.facts.candidates.get(self.moment.selected).map(|c| c.at);
        let end = self.axis.as_ref().and_then(|a| a.span).map(|(_, last)| last);
        self.axis_at.or(selected).or(end)
    }
    /// About how many transactions follow a suspect, by the index of the log. Of the log's end it knows nothing.
    pub fn about(&self, c: &Candidate) -> Option<u64> {
        let axis = self.axis.as_ref().filter(|_| c.target != RecoveryTarget::Latest)?;
        Some(axis.cost(c.at).transactions)
    }
    /// The first look at an incident.
    pub fn new(data: super::data::Incident) -> Self {
        let rows = data.timeline.len();
        let mut ui = Self {
            data,
            steps: Default::default(),
            along: true,
            output: Default::default(),
            timeline: Default::default(),
            moment: Default::default(),
            live: Default::default(),
            axis: None,
            axis_at: None,
            ticking: Default::default(),
            seen: Default::default(),
            came_up: None,
            unticked: None,
            wanted: None,
            edited: Default::default(),
            exported: None,
        };
        ui.output.follow = true;
        ui.timeline.selected = rows.saturating_sub(1);
        ui
    }
}
