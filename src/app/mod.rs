//! The Elm core of the console: [`App`] is all there is to know about the screen, [`update::update`] the only place
//! where it changes, [`Effect`] what it asks of the world. Nothing here reads a clock or touches a file; the driver
//! does ([`driver`]). What must survive the console is in the journal, never here.

pub mod allowed;
pub mod command;
pub mod data;
pub mod dialog;
pub mod driver;
pub mod field;
pub mod key;
pub mod next;
mod reader;
pub mod reference;
pub mod update;
pub mod when;
pub mod words;

pub use crate::action::runnable;
pub use reader::{IncidentUi, ListUi, OutputUi, Pane, PlanUi, ReferenceUi, Screen, StepsUi, Wanted, passes};

use std::time::Duration;

use crate::action::Progress;
use crate::incident::{Command, Now, RunRequest};
use crate::model::event::Kind;
use crate::model::{IncidentId, RunId, Scenario, Step, Time};

use command::{Cmd, Context};
use data::{Env, Home, Incident};
use dialog::Dialog;
use field::Edit;
use key::Key;

/// How grave a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Something was done.
    Good,
    /// Something to know.
    Info,
    /// Something was refused or failed; stays until a key is pressed after it has been seen.
    Bad,
}

/// A message to the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When.
    pub at: Time,
    /// How grave.
    pub tone: Tone,
    /// One sentence.
    pub text: String,
}

/// How long a message that is not an error stays on the screen.
pub const TOAST: Duration = Duration::from_secs(6);

/// Settings of the screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Borders and glyphs in ASCII.
    pub ascii: bool,
    /// The mouse is ours.
    pub mouse: bool,
}

/// What the last frame showed, for page moves and the mouse. Given by the view after each frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Rows of the list that has the focus.
    pub list_rows: usize,
    /// Rows of the step's text in all, and on the screen.
    pub text: (usize, usize),
    /// First row of it on the screen.
    pub top: usize,
    /// Row of each item of the step within its text.
    pub item_rows: Vec<usize>,
    /// The row behind each of them.
    pub item_ends: Vec<usize>,
    /// The step whose text it is, by its place, and its items that are wholly in sight.
    pub seen: (usize, Vec<usize>),
    /// First line of the output from which all the rest fits.
    pub output_last: u64,
    /// Rows of the output on the screen.
    pub output_rows: usize,
    /// Columns of the time axis.
    pub axis: usize,
    /// Rows of a dialog's text in all, and on the screen.
    pub dialog: (usize, usize),
    /// What is where: column, row, width, height, what.
    pub hits: Vec<(u16, u16, u16, u16, Hit)>,
}

impl Shown {
    /// From which row on the text has to be shown so that an item can be read: with something of what stands above it, unless
    /// the item itself needs the room.
    pub fn top_for(&self, item: usize) -> Option<usize> {
        let ((all, rows), row, end) = (self.text, *self.item_rows.get(item)?, *self.item_ends.get(item)?);
        // The one before, which was ticked a moment ago, stays in sight with it.
        let before = item.checked_sub(1).and_then(|i| self.item_rows.get(i)).copied();
        let before = before.filter(|start| end.saturating_sub(*start) <= rows);
        let wished = before.unwrap_or_else(|| row.saturating_sub(rows / 4)).min(row.saturating_sub(rows / 4));
        let above = wished.max(end.saturating_sub(rows)).min(row);
        Some(above.min(all.saturating_sub(rows)))
    }
}

/// A drill whose sandbox is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Title of its scenario.
    pub title: String,
    /// Since when.
    pub since: Time,
    /// What was done so far, with the time it began; the last one is being done.
    pub said: Vec<(Time, String)>,
}

/// After the screen changed by itself, keys that do something count again this much later: who was about to press one meant
/// the screen before.
pub const SETTLE: Duration = Duration::from_secs(1);

/// What a click means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// A row of the list on the screen.
    Row(usize),
    /// A pane.
    Pane(Pane),
}

/// All there is to know about the screen.
#[derive(Debug, Clone)]
pub struct App {
    /// What does not change.
    pub env: Env,
    /// Settings.
    pub settings: Settings,
    /// Width and height of the terminal.
    pub size: (u16, u16),
    /// The present.
    pub now: Now,
    /// First screen.
    pub home: Home,
    /// Whether it was loaded yet.
    pub home_loaded: bool,
    /// How service, database and backups are; none before it was looked, or when there is nothing to look at.
    pub health: Option<data::HealthRow>,
    /// Its list.
    pub home_list: ListUi,
    /// The scenario being read.
    pub plan: Option<PlanUi>,
    /// Scenarios from which links were followed to it, the first one first.
    pub trail: Vec<PlanUi>,
    /// What plans say beside the steps, one for each such screen on the stack.
    pub references: Vec<ReferenceUi>,
    /// The open incident.
    pub incident: Option<IncidentUi>,
    /// The drill that is being prepared.
    pub waiting: Option<Waiting>,
    /// When an incident came up by itself, or the window became large enough to show anything.
    pub came_up: Option<Time>,
    /// Screens, the one shown last.
    pub screens: Vec<Screen>,
    /// Dialogs, the one shown last.
    pub dialogs: Vec<Dialog>,
    /// A filter or search that is being typed.
    pub typing: Option<field::Line>,
    /// Keys of a sequence pressed so far.
    pub pending: Vec<Key>,
    /// All messages of this session.
    pub messages: Vec<Message>,
    /// Whether the last message was seen long enough.
    pub message_read: bool,
    /// So many messages are over: what the last of them warned of was decided, and it is not shown any more.
    pub message_over: usize,
    /// Selected message on the screen of messages.
    pub messages_list: ListUi,
    /// When Ctrl-C was pressed last.
    pub interrupted: Option<Time>,
    /// What is being done by the driver right now, for "working" words.
    pub busy: Option<String>,
    /// Text of a note that was left unfinished.
    pub draft: String,
    /// What the last frame showed.
    pub shown: Shown,
    /// Something visible changed since the last frame.
    pub dirty: bool,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Msg {
    /// A command was asked for by key, palette or click.
    Command(Cmd),
    /// The beginning of a key sequence.
    Pending(Key),
    /// A key that means nothing here.
    Unbound,
    /// A character for the text field.
    Typed(char),
    /// A change of the text field.
    Edit(Edit),
    /// A paste, as one message.
    Paste(String),
    /// A click at column and row.
    Click(u16, u16),
    /// The wheel, in rows; negative is up.
    Wheel(i32, u16, u16),
    /// The terminal has another size.
    Resize(u16, u16),
    /// A second went by.
    Tick,
    /// Home was read.
    Home(Box<Home>),
    /// Service, database and backups were looked at.
    Health(Box<data::HealthRow>),
    /// An incident was opened here.
    Opened(Box<Incident>),
    /// The journal or a worker of the open incident moved on.
    Changed(Box<Incident>),
    /// The exposure of the database in service was measured, or could not be.
    Exposure(IncidentId, Box<data::Live>),
    /// The log over time was read.
    Axis(IncidentId, Box<crate::recovery::axis::Axis>),
    /// A running action got further.
    Progress(RunId, Progress),
    /// What an action would do was looked at, and whose database that is.
    Previewed(Box<RunRequest>, Preview),
    /// A message for the reader.
    Say(Tone, String),
    /// Something takes a while, or has ended.
    Busy(Option<String>),
}

/// What an action would do, as seen by looking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// One line each.
    pub lines: Vec<String>,
    /// Name of the database it is about, as seen live.
    pub database: Option<String>,
    /// Why it could not be looked at.
    pub failed: Option<String>,
}

/// Something asked of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Read the log over time, and go on reading it.
    Axis,
    /// Read scenarios, incidents and history again.
    LoadHome,
    /// Open a new real incident.
    Begin {
        /// Document of the scenario.
        file: String,
        /// Scenario.
        scenario: String,
        /// Severity to declare.
        severity: String,
        /// When impact began, and how that is known.
        impact: Option<(Time, String)>,
        /// The name it goes by.
        codename: Option<String>,
    },
    /// Make a sandbox and open a drill of a scenario in it.
    Drill {
        /// Document of the scenario.
        file: String,
        /// Scenario.
        scenario: String,
    },
    /// Open an incident that is there.
    Open(IncidentId),
    /// Stop following the open incident.
    Leave,
    /// Submit a command; a note may have happened earlier than now.
    Submit(Command, Option<Time>),
    /// Keep a secret for the commands of the open incident, in memory only: variable and value.
    Hold(String, crate::model::Secret),
    /// Look, read-only, at what an action would do; what is seen is recorded.
    Preview(Box<RunRequest>),
    /// Submit the request for a run and spawn its worker. `code` is the text of a `shell` or `sql` block.
    Run(Box<RunRequest>, Option<String>),
    /// Stop what is left of a run whose worker died.
    StopProcesses(RunId),
    /// Follow the output of this run.
    Follow(RunId),
    /// Keep a message that was copied as a file of the incident: audience and text.
    KeepMessage(String, String),
    /// Write down, outside of incidents, that a secret was changed: its name and when.
    RecordRotation(String, Time),
    /// Write the timeline in all formats.
    Export(IncidentId),
    /// Put a text on the clipboard; what it is, for the message.
    Copy(String, &'static str),
    /// Switch the mouse.
    Mouse(bool),
    /// Draw everything again.
    Redraw,
    /// Back to the shell.
    Suspend,
    /// Leave.
    Quit,
}

impl App {
    /// The app before anything is known.
    pub fn new(env: Env, settings: Settings, size: (u16, u16), now: Now) -> Self {
        Self {
            env,
            settings,
            size,
            now,
            home: Home::default(),
            home_loaded: false,
            health: None,
            home_list: ListUi::default(),
            plan: None,
            trail: Vec::new(),
            references: Vec::new(),
            incident: None,
            waiting: None,
            came_up: None,
            screens: vec![Screen::Home],
            dialogs: Vec::new(),
            typing: None,
            pending: Vec::new(),
            messages: Vec::new(),
            message_read: true,
            message_over: 0,
            messages_list: ListUi::default(),
            interrupted: None,
            busy: None,
            draft: String::new(),
            shown: Shown::default(),
            dirty: true,
        }
    }

    /// Whether the window is too small to work in: then nothing but size is shown and keys do nothing.
    pub fn too_small(&self) -> bool {
        self.size.0 < MIN_SIZE.0 || self.size.1 < MIN_SIZE.1
    }

    /// The screen that is shown.
    pub fn screen(&self) -> Screen {
        self.screens.last().copied().unwrap_or(Screen::Home)
    }

    /// Whether what is on the screen came up by itself so recently that a key was meant for the screen before.
    pub fn unsettled(&self) -> bool {
        self.came_up.is_some_and(|at| self.now.time.since(at) < SETTLE)
    }

    /// Whether the selected step came up by itself so recently that nobody can have looked at it.
    pub fn step_unsettled(&self) -> bool {
        self.incident.as_ref().and_then(|ui| ui.came_up).is_some_and(|at| self.now.time.since(at) < SETTLE)
    }

    /// A drill begins: it is waited for on a screen of its own, whose keys can mean nothing else when the incident opens.
    pub fn wait_for_drill(&mut self, scenario: &str) {
        let title = self.home.scenarios.iter().find(|s| s.scenario.slug == scenario).map(|s| s.scenario.title.clone());
        let title = title.unwrap_or_else(|| scenario.replace('-', " "));
        self.waiting = Some(Waiting { title, since: self.now.time, said: Vec::new() });
        self.screens = vec![Screen::Home, Screen::Waiting];
        self.dirty = true;
    }

    /// The contexts whose keys are valid now, the most specific first.
    pub fn contexts(&self) -> Vec<Context> {
        if self.typing.is_some() {
            return vec![Context::Form];
        }
        if let Some(dialog) = self.dialogs.last() {
            return vec![dialog.context()];
        }
        self.screen_contexts()
    }

    /// The contexts of the screen, whatever dialog lies over it.
    pub fn screen_contexts(&self) -> Vec<Context> {
        let mut contexts = Vec::new();
        if self.screen() == Screen::Incident && self.incident.as_ref().is_some_and(|i| !i.output.search.is_empty()) {
            contexts.push(Context::Search);
        }
        match self.screen() {
            Screen::Home => contexts.push(Context::Home),
            Screen::Plan => contexts.push(Context::Plan),
            Screen::Incident => contexts.push(Context::Incident),
            Screen::Timeline => contexts.push(Context::Timeline),
            Screen::Moment => contexts.push(Context::Moment),
            Screen::Reference => contexts.push(Context::Reference),
            Screen::Waiting | Screen::Messages => {}
        }
        contexts.extend([Context::Motion, Context::Screen]);
        contexts
    }

    /// The message to show: the last one, until it is old or, when it is an error, was read.
    pub fn toast(&self) -> Option<&Message> {
        let last = self.messages.last().filter(|_| self.messages.len() > self.message_over)?;
        let young = self.now.time.since(last.at) < TOAST;
        let visible = match last.tone {
            Tone::Bad => young || !self.message_read,
            Tone::Good | Tone::Info => young,
        };
        visible.then_some(last)
    }

    /// Whether the screen changes by itself with time.
    pub fn has_clock(&self) -> bool {
        self.incident.is_some() || !self.home.incidents.is_empty() || self.toast().is_some() || self.busy.is_some()
    }

    /// The rows of home that pass the filter.
    pub fn home_rows(&self) -> Vec<HomeRow> {
        let incidents = self.home.incidents.iter().enumerate().filter(|(_, i)| {
            self.home_list.passes(&format!(
                "{} {} {}",
                i.title,
                i.id,
                if i.kind == Kind::Real { "real" } else { "drill" }
            ))
        });
        let scenarios = self.home.scenarios.iter().enumerate().filter(|(_, s)| {
            self.home_list.passes(&format!(
                "{} {} {}",
                s.scenario.title,
                s.scenario.group.as_deref().unwrap_or(""),
                s.file
            ))
        });
        let secrets = self.home.secrets.iter().enumerate();
        let secrets = secrets.filter(|(_, s)| self.home_list.passes(&format!("secret {}", s.name)));
        incidents
            .map(|(i, _)| HomeRow::Incident(i))
            .chain(scenarios.map(|(i, _)| HomeRow::Scenario(i)))
            .chain(secrets.map(|(i, _)| HomeRow::Secret(i)))
            .collect()
    }

    /// The row of home that is selected.
    pub fn home_selected(&self) -> Option<HomeRow> {
        self.home_rows().get(self.home_list.selected).copied()
    }

    /// The scenario that is on the screen, if any.
    pub fn scenario(&self) -> Option<&Scenario> {
        match self.screen() {
            Screen::Plan => self.plan.as_ref().map(|p| p.row.scenario.as_ref()),
            _ => self.incident.as_ref().map(|i| i.data.scenario.as_ref()),
        }
    }

    /// Where the reader is among the steps of the scenario on the screen.
    pub fn steps_ui(&self) -> Option<&StepsUi> {
        match self.screen() {
            Screen::Plan => self.plan.as_ref().map(|p| &p.steps),
            _ => self.incident.as_ref().map(|i| &i.steps),
        }
    }

    /// What commands of the open incident are filled in with.
    pub fn known<'a>(&'a self, ui: &'a IncidentUi) -> runnable::Known<'a> {
        let data = &ui.data;
        runnable::Known {
            vars: &data.state.vars,
            held: &data.held,
            environment: &data.environment,
            actions: &self.env.actions,
        }
    }

    /// What the selected command of the open incident has no value for, in the order it is asked for.
    pub fn needed(&self) -> Vec<String> {
        let (Some(ui), Some(step)) = (&self.incident, self.step()) else { return vec![] };
        let block = runnable::blocks(step).nth(ui.steps.block).or_else(|| runnable::blocks(step).next());
        let missing = block.and_then(|block| runnable::request(step, block, &self.known(ui)).err());
        missing.map(|m| m.names()).unwrap_or_default()
    }

    /// The selected step of the scenario on the screen.
    pub fn step(&self) -> Option<&Step> {
        self.scenario()?.steps.get(self.steps_ui()?.step)
    }
}

/// A row of home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeRow {
    /// Position among the incidents.
    Incident(usize),
    /// Position among the scenarios.
    Scenario(usize),
    /// Position among the secrets.
    Secret(usize),
}

/// The smallest window that can be worked in.
pub const MIN_SIZE: (u16, u16) = (60, 16);
