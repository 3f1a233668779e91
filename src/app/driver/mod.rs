//! Between the screen and the world: effects go out, messages come in, output only says that it moved.
//!
//! One thread owns the open incident and does what is quick (submit, look, start a worker). What takes its time (making a
//! sandbox, looking at a target, exporting, reading home) gets a thread of its own and reports back, so that the journal
//! is followed all the while. Nothing here decides: that is done by `incident::decide` behind `Incident::submit`.

mod axis;
mod output;
mod sampler;
mod session;
mod slow;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::{Effect, Msg, Tone};
use crate::action::Registry;
use crate::config::Config;
use crate::error::{Context, Error, Result};
use crate::model::{IncidentId, RunId};
use crate::plan::library::Library;
use crate::runtime::Store;
use axis::AxisWork;
use output::Follow;
use sampler::{Sampler, Target, Told};
use session::Session;

/// What the loop holds of the driver. Dropping it ends the driver's work; running actions go on.
pub struct Port {
    /// Effects. Bounded: when it is full the driver is stuck, and the reader is told instead of being kept waiting.
    pub effects: mpsc::Sender<Effect>,
    /// Messages. Bounded: when it is full the driver waits; the loop drains it before each frame.
    pub messages: mpsc::Receiver<Msg>,
    /// The output of the shown run moved on. Carries nothing, so that a flood is one wake-up.
    pub moved: Arc<Notify>,
}

/// The driver's end of a [`Port`].
pub struct Side {
    /// Effects.
    pub effects: mpsc::Receiver<Effect>,
    /// Messages.
    pub messages: mpsc::Sender<Msg>,
    /// See [`Port::moved`].
    pub moved: Arc<Notify>,
}

/// A port and its other side.
pub fn port() -> (Port, Side) {
    let (effects, effects_in) = mpsc::channel(64);
    let (messages, messages_in) = mpsc::channel(64);
    let moved = Arc::new(Notify::new());
    (Port { effects, messages: messages_in, moved: moved.clone() }, Side { effects: effects_in, messages, moved })
}

/// Where plans come from.
#[derive(Debug, Clone)]
pub enum Plans {
    /// The runbooks we ship and these folders of the configuration.
    Runbooks(Vec<PathBuf>),
    /// What the person named.
    Named(Vec<PathBuf>),
}

impl Plans {
    /// Reads them.
    ///
    /// # Errors
    /// Usage when a named one cannot be read.
    pub fn read(&self) -> Result<Library> {
        match self {
            Self::Runbooks(folders) => Library::runbooks(folders),
            Self::Named(paths) => Library::open(paths),
        }
    }
}

/// What the driver works with.
#[derive(Clone)]
pub struct World {
    /// Configuration.
    pub config: Config,
    /// State directory.
    pub store: Store,
    /// Every action.
    pub registry: Registry,
    /// Plans.
    pub plans: Plans,
    /// Our own executable, for workers.
    pub program: PathBuf,
    /// Keep a drill's sandbox when the drill is closed.
    pub keep: bool,
}

/// Something for the driver's thread.
enum Job {
    /// Asked by the screen.
    Effect(Effect),
    /// The journal changed, or a look at the workers is due.
    Look,
    /// A slow piece of work made or found this incident: open it.
    Open(IncidentId),
    /// A slow piece of work is done with this: submit it.
    Submit(IncidentId, crate::incident::Command),
    /// The same as of an earlier time.
    SubmitAt(IncidentId, crate::incident::Command, crate::model::Time),
    /// Everything sent before this has been done: say so.
    Reached(std_mpsc::SyncSender<()>),
    /// The screen is gone.
    End,
}

/// Starts the driver.
///
/// # Errors
/// State when the system gives no thread.
pub fn start(world: World, side: Side) -> Result<()> {
    let Side { mut effects, messages, moved } = side;
    // Bounded: a watcher that finds it full drops its "look", because one is waiting already; the screen waits.
    let (jobs, work) = std_mpsc::sync_channel(64);
    let forward = jobs.clone();
    let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(run).state(|| "cannot start a thread".into())
    };
    thread(
        "effects",
        Box::new(move || {
            while let Some(effect) = effects.blocking_recv() {
                if forward.send(Job::Effect(effect)).is_err() {
                    return;
                }
            }
            let _ = forward.send(Job::End);
        }),
    )?;
    let driver = Driver {
        world,
        messages,
        moved,
        jobs,
        session: None,
        follow: None,
        sampler: None,
        axis: None,
        health_at: None,
    };
    thread("driver", Box::new(move || driver.work(&work)))?;
    Ok(())
}

struct Driver {
    world: World,
    messages: mpsc::Sender<Msg>,
    moved: Arc<Notify>,
    jobs: std_mpsc::SyncSender<Job>,
    session: Option<Session>,
    follow: Option<Follow>,
    sampler: Option<Sampler>,
    axis: Option<AxisWork>,
    /// When service, database and backups were last looked at for home.
    health_at: Option<std::time::Instant>,
}

/// How often service, database and backups are looked at while home is shown, and how soon again at most.
const HEALTH_EVERY: Duration = Duration::from_secs(300);
const HEALTH_PAUSE: Duration = Duration::from_secs(30);

impl Driver {
    fn work(mut self, work: &std_mpsc::Receiver<Job>) {
        loop {
            // While something runs its locks are looked at once a second; else there is nothing to wake up for.
            let wait = match &self.session {
                Some(s) if s.has_open_runs() || s.watches_plan() || s.expects_messages() => Duration::from_secs(1),
                None if slow::looks_at_health(&self.world) => HEALTH_EVERY,
                _ => Duration::from_secs(3600),
            };
            let job = match work.recv_timeout(wait) {
                Ok(job) => job,
                Err(std_mpsc::RecvTimeoutError::Timeout) if self.session.is_none() => {
                    if let Err(e) = slow::health(&mut self) {
                        self.complain(&e);
                    }
                    continue;
                }
                Err(std_mpsc::RecvTimeoutError::Timeout) => {
                    self.look_at_plan();
                    if self.session.as_ref().is_some_and(|s| !s.has_open_runs() && !s.expects_messages()) {
                        continue;
                    }
                    Job::Look
                }
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let done = match job {
                Job::End => return,
                Job::Look => self.look(),
                Job::Reached(done) => {
                    let _ = done.send(());
                    Ok(())
                }
                Job::Open(id) => self.open(&id),
                Job::Submit(id, command) => self.submit(&id, command, None),
                Job::SubmitAt(id, command, at) => self.submit(&id, command, Some(at)),
                Job::Effect(effect) => self.effect(effect),
            };
            if let Err(error) = done {
                self.complain(&error);
            }
        }
    }

    /// Submits what a slow piece of work found, unless its incident was left meanwhile.
    fn submit(
        &mut self,
        id: &IncidentId,
        command: crate::incident::Command,
        at: Option<crate::model::Time>,
    ) -> Result<()> {
        match &mut self.session {
            Some(s) if s.id() == id => s.submit(command, at).and_then(|()| self.look()),
            _ => Ok(()),
        }
    }

    fn effect(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::LoadHome => slow::home(self).and_then(|()| slow::health(self)),
            Effect::Begin { file, scenario, severity, impact, codename } => {
                let session = Session::begin(&self.world, &file, &scenario, &severity, impact, codename)?;
                let declared = crate::app::words::declared(None, session.state());
                self.show(session)?;
                if let Some(text) = declared {
                    self.say(Tone::Good, text);
                }
                Ok(())
            }
            Effect::Drill { file, scenario } => slow::drill(self, file, scenario),
            Effect::Open(id) => self.open(&id),
            Effect::Leave => {
                self.session = None;
                self.follow = None;
                self.sampler = None;
                self.axis = None;
                Ok(())
            }
            Effect::Submit(command, at) => {
                let closes = matches!(command, crate::incident::Command::Close { .. });
                let Some(session) = &mut self.session else { return Ok(()) };
                if closes && session.is_drill() && session.state().people.tabletop.is_some() {
                    session.judge_tabletop()?;
                    session.submit(command, at)?;
                    return self.look();
                }
                if closes && session.is_drill() {
                    return slow::close_drill(self, command);
                }
                session.submit(command, at)?;
                self.look()
            }
            Effect::Hold(variable, secret) => {
                let Some(session) = &mut self.session else { return Ok(()) };
                session.hold(&variable, secret);
                let data = session.data(self.follow.as_ref());
                self.send(Msg::Changed(Box::new(data)));
                Ok(())
            }
            Effect::Axis => self.read_axis(),
            Effect::Preview(request) => slow::preview(self, request),
            Effect::Run(request, code) => {
                let Some(session) = &mut self.session else { return Ok(()) };
                session.run(&self.world, *request, code)?;
                self.look()
            }
            Effect::StopProcesses(run) => slow::stop_processes(self, run),
            Effect::Follow(run) => self.start_following(run),
            Effect::KeepMessage(audience, text) => {
                let Some(session) = &self.session else { return Ok(()) };
                let kept = session.keep_message(&audience, &text)?;
                self.say(Tone::Good, format!("copied; also in {}", kept.display()));
                Ok(())
            }
            Effect::RecordRotation(secret, at) => {
                let actor = crate::runtime::actor();
                let rotation = crate::runtime::rotations::Rotation { secret: secret.clone(), at, actor };
                crate::runtime::rotations::write(&self.world.store, &rotation)?;
                self.say(Tone::Good, format!("{secret}: changed at {} UTC, written down", at.date_hms()));
                slow::home(self)
            }
            Effect::Export(id) => slow::export(self, id),
            // The loop does these itself.
            Effect::Copy(..) | Effect::Mouse(_) | Effect::Redraw | Effect::Suspend | Effect::Quit => Ok(()),
        }
    }

    fn open(&mut self, id: &IncidentId) -> Result<()> {
        let session = Session::open(&self.world, id)?;
        self.show(session)
    }

    /// Shows an incident that was just opened and watches it from here on.
    fn show(&mut self, mut session: Session) -> Result<()> {
        let jobs = self.jobs.clone();
        session.watch(move || {
            // Full: a look is waiting already.
            let _ = jobs.try_send(Job::Look);
        });
        session.refresh()?;
        self.follow = None;
        let data = session.data(None);
        let (id, dir) = (session.id().clone(), session.dir());
        self.session = Some(session);
        self.send(Msg::Opened(Box::new(data)));
        // After the screen has it: its first sample would belong to nothing.
        let told = Told { messages: self.messages.clone(), jobs: self.jobs.clone(), incident: id, dir };
        self.axis = None;
        self.sampler = Some(Sampler::start(self.sampled(), told)?);
        Ok(())
    }

    /// Begins to read the log over time, unless that goes on already or there is nothing to read.
    fn read_axis(&mut self) -> Result<()> {
        let Some(session) = self.session.as_ref().filter(|_| self.axis.is_none()) else { return Ok(()) };
        let Ok((settings, secrets)) = session.settings() else { return Ok(()) };
        let ctx = slow::looking(settings, secrets, session.state().clone(), session.dir());
        self.axis = Some(AxisWork::start(ctx, session.id().clone(), self.messages.clone())?);
        Ok(())
    }

    /// What the exposure is measured of.
    fn sampled(&self) -> Target {
        let Some(session) = &self.session else { return Target::default() };
        let state = session.state();
        let Ok((settings, secrets)) = session.settings() else { return Target::default() };
        if state.closed.is_some() {
            return Target::default();
        }
        let repository = settings.repository.clone();
        let native = settings.backend == crate::config::Backend::Native;
        let ctx = slow::looking(settings, secrets, state.clone(), session.dir());
        Target { database: crate::action::reach::database(&ctx).ok(), repository, native }
    }

    /// Offers the plan on disk when it is no longer the one the incident works with.
    fn look_at_plan(&mut self) {
        let Some(session) = &mut self.session else { return };
        let said = session.offer_plan(&self.world);
        match said {
            Ok(None) => {}
            Ok(Some(text)) => {
                // First what changed, then the word that names the key for it: pressed at once it must find the new plan.
                if let Err(e) = self.look() {
                    self.complain(&e);
                }
                self.say(Tone::Info, text);
            }
            Err(e) => self.complain(&e),
        }
    }

    /// Reads what is new in the journal and how the workers are.
    fn look(&mut self) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.refresh()? {
            let data = session.data(self.follow.as_ref());
            self.send(Msg::Changed(Box::new(data)));
            if let Some(sampler) = &self.sampler {
                sampler.aim(self.sampled());
            }
        }
        Ok(())
    }

    fn start_following(&mut self, run: RunId) -> Result<()> {
        let Some(session) = &self.session else { return Ok(()) };
        let Some(folder) = session.run_dir(run) else { return Ok(()) };
        self.follow = Some(Follow::start(run, folder, self.messages.clone(), self.moved.clone())?);
        let data = session.data(self.follow.as_ref());
        self.send(Msg::Changed(Box::new(data)));
        Ok(())
    }

    fn send(&self, msg: Msg) {
        // Only fails when the screen is gone, and then there is nobody to tell.
        let _ = self.messages.blocking_send(msg);
    }

    fn say(&self, tone: Tone, text: impl Into<String>) {
        self.send(Msg::Say(tone, text.into()));
    }

    fn complain(&self, error: &Error) {
        self.send(Msg::Busy(None));
        self.say(Tone::Bad, one_line(error));
    }
}

/// An error as one line: what, why, and the first thing to do.
fn one_line(error: &Error) -> String {
    let mut text = error.what.clone();
    if !error.why.is_empty() {
        text.push_str(&format!(": {}", error.why));
    }
    if let Some(hint) = error.hints.first() {
        text.push_str(&format!(" ({})", hint.trim_end_matches('.')));
    }
    crate::model::CleanText::text(&text.replace('\n', " ")).to_string()
}
