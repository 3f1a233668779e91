//! Terminal in, terminal out: keys become messages, the app becomes frames.
//!
//! One task owns terminal and app. It waits for, in this order: signals, input, answers of the driver, "the output
//! moved", the clock, and the moment the next frame is due. A frame is drawn only when something visible changed: the
//! first change at once, output at most every 16 ms, a key after 4 ms at the latest. With nothing changing there is no
//! frame and no wake-up, except the clock once a second while it is on the screen.

pub mod clipboard;
pub mod keymap;
pub mod terminal;
pub mod theme;
pub mod view;

use std::path::PathBuf;
use std::time::Duration;

use crossterm::event::{Event as TermEvent, MouseButton, MouseEventKind};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::app::driver::Port;
use crate::app::field::Edit;
use crate::app::key::Key;
use crate::app::update::{EXPORTED, update};
use crate::app::{App, Effect, Msg, Screen, Tone};
use crate::error::{Context, Result};
use crate::incident::Now;
use crate::model::IncidentId;
use crate::model::event::Kind;
use crate::process::signals::Stop;
use keymap::{Keymap, Resolved};
use terminal::Terminal;
use theme::Theme;
use view::Look;

/// Frames for output are at least this far apart.
const FRAME: Duration = Duration::from_millis(16);
/// A key is seen after this long at the latest.
const KEY_FRAME: Duration = Duration::from_millis(4);
/// On a slow line frames are never further apart than this.
const SLOWEST: Duration = Duration::from_millis(100);
/// A frame that takes longer to write than this is too much for the line.
const SLOW: Duration = Duration::from_millis(8);

/// How the console looks and where it puts things.
#[derive(Debug)]
pub struct Options {
    /// Styles.
    pub theme: Theme,
    /// Keys.
    pub keymap: Keymap,
    /// Where a copy that is too long for the clipboard goes.
    pub copies: PathBuf,
    /// Inside tmux (`TMUX` is set).
    pub in_tmux: bool,
}

/// Why the console ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The responder left; the drill on the screen, when it was closed.
    Left(Option<IncidentId>),
    /// A signal.
    Signal(Stop),
    /// The terminal went away.
    Gone,
}

/// What a key means to the app in its present state; nothing when it means nothing and nothing was pending.
pub fn translate(app: &App, keymap: &Keymap, key: Key) -> Option<Msg> {
    let contexts = app.contexts();
    match keymap.resolve(&contexts, &app.pending, key) {
        Resolved::Command(cmd) => Some(Msg::Command(cmd)),
        Resolved::Pending => Some(Msg::Pending(key)),
        Resolved::Typed(c) => Some(Msg::Typed(c)),
        Resolved::Nothing => {
            let edit = contexts.iter().any(|c| c.types()).then(|| Edit::from_key(key)).flatten();
            edit.map(Msg::Edit).or_else(|| (!app.pending.is_empty()).then_some(Msg::Unbound))
        }
    }
}

/// Runs the console until the responder leaves, a signal ends it or the terminal goes away. `first` is asked of the
/// driver to begin with.
///
/// # Errors
/// When there is no terminal, or it cannot be written to.
pub async fn run(
    mut app: App,
    options: &Options,
    mut port: Port,
    first: Vec<Effect>,
    clock: impl Fn() -> Now,
) -> Result<Ending> {
    let mut signals = Signals::new()?;
    let mut terminal = Terminal::enter(app.settings.mouse)?;
    app.size = terminal::size();
    terminal.screen().resize(app.size.0, app.size.1)?;
    let mut frames = Frames::new();
    // The first frame is on the screen before anything is read from disk.
    frames.draw(&mut terminal, &mut app, options)?;
    send(&port, &mut app, Effect::LoadHome);
    for effect in first {
        if let Effect::Drill { scenario, .. } = &effect {
            app.wait_for_drill(scenario);
        }
        send(&port, &mut app, effect);
    }
    let mut input = read_input();
    loop {
        let clock_due = if app.has_clock() { until_next_second(&app.now) } else { Duration::from_secs(3600) };
        let frame_due = frames.due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        let mut effects = Vec::new();
        tokio::select! {
            biased;
            _ = signals.term.recv() => return Ok(Ending::Signal(Stop::Terminate)),
            _ = signals.hup.recv() => return Ok(Ending::Signal(Stop::Hangup)),
            _ = signals.int.recv() => return Ok(Ending::Signal(Stop::Interrupt)),
            _ = signals.size.recv() => {
                let (w, h) = terminal::size();
                if (w, h) != app.size {
                    terminal.screen().resize(w, h)?;
                    effects.extend(update(&mut app, Msg::Resize(w, h), clock()));
                    frames.want(&mut app, KEY_FRAME);
                }
            }
            _ = signals.stop.recv() => effects.push(Effect::Suspend),
            _ = signals.go_on.recv() => effects.push(Effect::Redraw),
            _ = terminal::PANIC.notified() => return Ok(Ending::Gone),
            event = input.recv() => {
                let Some(event) = event else { return Ok(Ending::Gone) };
                let mut events = vec![event];
                while let Ok(more) = input.try_recv() {
                    events.push(more);
                }
                merge_wheel(&mut events);
                for event in events {
                    let msg = match event {
                        TermEvent::Key(k) => keymap::from_terminal(k).and_then(|k| translate(&app, &options.keymap, k)),
                        TermEvent::Paste(text) => Some(Msg::Paste(text)),
                        // Seen by its signal, above: crossterm (0.29) drops a change of size that comes with a key.
                        TermEvent::Resize(..) => None,
                        TermEvent::Mouse(m) => match m.kind {
                            MouseEventKind::Down(MouseButton::Left) => Some(Msg::Click(m.column, m.row)),
                            MouseEventKind::ScrollUp => Some(Msg::Wheel(-3, m.column, m.row)),
                            MouseEventKind::ScrollDown => Some(Msg::Wheel(3, m.column, m.row)),
                            _ => None,
                        },
                        TermEvent::FocusGained | TermEvent::FocusLost => None,
                    };
                    if let Some(msg) = msg {
                        // What a key moves depends on what the last frame showed.
                        effects.extend(update(&mut app, msg, clock()));
                    }
                }
                frames.want(&mut app, KEY_FRAME);
            }
            msg = port.messages.recv() => {
                let Some(msg) = msg else { return Ok(Ending::Gone) };
                effects.extend(update(&mut app, msg, clock()));
                while let Ok(more) = port.messages.try_recv() {
                    effects.extend(update(&mut app, more, clock()));
                }
                frames.want(&mut app, FRAME);
            }
            () = port.moved.notified() => {
                // Output of a pane that is not on the screen is no reason to draw.
                app.dirty |= app.screen() == Screen::Incident && app.dialogs.is_empty();
                app.now = clock();
                frames.want(&mut app, FRAME);
            }
            () = tokio::time::sleep(clock_due) => {
                effects.extend(update(&mut app, Msg::Tick, clock()));
                frames.want(&mut app, FRAME);
            }
            () = tokio::time::sleep_until(frame_due) => {
                app.now = clock();
                frames.draw(&mut terminal, &mut app, options)?;
            }
        }
        terminal::set_farewell(&farewell(&app));
        for effect in effects {
            match effect {
                Effect::Quit => {
                    let closed = app.incident.as_ref().map(|ui| &ui.data.state);
                    let drill = closed.filter(|s| s.kind == Kind::Drill && s.closed.is_some());
                    return Ok(Ending::Left(drill.map(|s| s.id.clone())));
                }
                Effect::Redraw => {
                    terminal.screen().redraw()?;
                    app.dirty = true;
                }
                Effect::Mouse(on) => terminal.set_mouse(on)?,
                Effect::Suspend => {
                    if let Err(e) = terminal.suspend() {
                        app.say(Tone::Bad, e.to_string());
                    }
                    let (w, h) = terminal::size();
                    terminal.screen().resize(w, h)?;
                    update(&mut app, Msg::Resize(w, h), clock());
                    // Continuing raised a signal of its own; what is drawn now is whole already.
                    signals.forget_continue();
                }
                Effect::Copy(text, what) => {
                    let said = copy(&mut terminal, options, &text, what);
                    app.say(said.0, said.1);
                }
                other => send(&port, &mut app, other),
            }
            frames.want(&mut app, KEY_FRAME);
        }
    }
}

/// How to come back, for when the console ends in whatever way.
fn farewell(app: &App) -> String {
    let Some(ui) = &app.incident else { return String::new() };
    let state = &ui.data.state;
    // A message is cut where the screen ends; the whole folder is said here.
    let exported = app.messages.iter().rev().find_map(|m| m.text.split_once(EXPORTED)).map(|(_, folder)| folder.trim());
    if state.closed.is_some() {
        return match exported {
            Some(folder) => format!("Incident {} is closed.\nIts timeline: {folder}", state.id),
            None => {
                format!("Incident {} is closed.\nIts timeline: breakglass export {} --out DIR", state.id, state.id)
            }
        };
    }
    let exported = exported.map(|folder| format!("\nIts timeline so far: {folder}")).unwrap_or_default();
    let running = state.open_runs().count();
    let goes_on = match running {
        0 => String::new(),
        1 => " One action goes on without the console.".to_string(),
        n => format!(" {n} actions go on without the console."),
    };
    format!("Incident {} is open.{goes_on}{exported}\nCome back with: breakglass resume {}", state.id, state.id)
}

fn send(port: &Port, app: &mut App, effect: Effect) {
    if port.effects.try_send(effect).is_err() {
        app.say(Tone::Bad, "that was not done: the console is still busy with what was asked before".into());
    }
}

fn copy(terminal: &mut Terminal, options: &Options, text: &str, what: &str) -> (Tone, String) {
    let size = crate::app::words::bytes(text.len() as u64);
    match clipboard::copy(text, options.in_tmux, &options.copies) {
        Ok(clipboard::Way::Terminal(sequence)) => match terminal.screen().write_raw(&sequence) {
            Ok(()) => (Tone::Good, format!("{what}, {size}: handed to the terminal's clipboard")),
            Err(e) => (Tone::Bad, format!("not copied: {e}")),
        },
        Ok(clipboard::Way::Tmux) => (Tone::Good, format!("{what}, {size}: copied by tmux")),
        Ok(clipboard::Way::File(path)) => {
            (Tone::Good, format!("{what}, {size}: too long to copy, written to {}", path.display()))
        }
        Err(e) => (Tone::Bad, format!("not copied: {e}")),
    }
}

/// When the next frame is due, and drawing it.
struct Frames {
    due: Option<Instant>,
    last: Option<Instant>,
    interval: Duration,
}

impl Frames {
    fn new() -> Self {
        Self { due: None, last: None, interval: FRAME }
    }

    /// Plans a frame if something visible changed: at once after a pause, else so long after the last one.
    fn want(&mut self, app: &mut App, after: Duration) {
        if !app.dirty {
            return;
        }
        let after = if after < FRAME { after } else { self.interval };
        let now = Instant::now();
        let at = self.last.map_or(now, |last| (last + after).max(now));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn draw(&mut self, terminal: &mut Terminal, app: &mut App, options: &Options) -> Result<()> {
        self.due = None;
        app.dirty = false;
        let look = Look { theme: &options.theme, keymap: &options.keymap, ascii: app.settings.ascii };
        let mut shown = Default::default();
        let took = terminal.screen().draw(|frame| shown = view::draw(frame.buffer_mut(), app, &look))?;
        app.shown = shown;
        self.last = Some(Instant::now());
        // Over a slow line writing takes the time; fewer frames keep the keys quick.
        self.interval = if took > SLOW { (self.interval * 2).min(SLOWEST) } else { (self.interval / 2).max(FRAME) };
        Ok(())
    }
}

/// Several turns of the wheel in a row become one.
fn merge_wheel(events: &mut Vec<TermEvent>) {
    events.dedup_by(|b, a| match (a, b) {
        (TermEvent::Mouse(a), TermEvent::Mouse(b)) => {
            matches!(a.kind, MouseEventKind::Moved | MouseEventKind::Drag(_)) && a.kind == b.kind
        }
        _ => false,
    });
}

/// Keys, resizes and pastes, read on a thread of their own. Bounded: while the loop is busy they wait in the terminal.
fn read_input() -> mpsc::Receiver<TermEvent> {
    let (tx, rx) = mpsc::channel(256);
    // It ends with the process: a blocking read of a terminal cannot be called off.
    std::thread::spawn(move || {
        while let Ok(event) = crossterm::event::read() {
            if tx.blocking_send(event).is_err() {
                return;
            }
        }
    });
    rx
}

fn until_next_second(now: &Now) -> Duration {
    let past = now.time.micros().rem_euclid(1_000_000);
    Duration::from_micros(u64::try_from(1_000_000 - past).unwrap_or(1_000_000))
}

struct Signals {
    term: Signal,
    hup: Signal,
    int: Signal,
    stop: Signal,
    go_on: Signal,
    size: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind: SignalKind| signal(kind).state(|| "cannot wait for signals".into());
        let raw = |s: rustix::process::Signal| SignalKind::from_raw(s.as_raw());
        Ok(Self {
            term: on(SignalKind::terminate())?,
            hup: on(SignalKind::hangup())?,
            int: on(SignalKind::interrupt())?,
            stop: on(raw(rustix::process::Signal::TSTP))?,
            go_on: on(raw(rustix::process::Signal::CONT))?,
            size: on(SignalKind::window_change())?,
        })
    }
    fn forget_continue(&mut self) {
        let waker = std::task::Waker::noop();
        let mut cx = std::task::Context::from_waker(waker);
        while self.go_on.poll_recv(&mut cx).is_ready() {}
    }
}
