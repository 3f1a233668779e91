//! A whole drill without a person: alarm, incident, operator, judgement, close.

use std::time::{Duration, Instant};

use super::operator::Operator;
use super::release;
use super::sandbox::Sandbox;
use super::session::{Exercise, judged, open, runtime, wait_for_alarm};
use crate::action::Registry;
use crate::error::{Error, Result};
use crate::incident::Command;
use crate::model::{Record, Seq};
use crate::runtime::{Incident, Store};

/// Plays the whole drill and returns its incident, closed and judged.
///
/// # Errors
/// What kept it from being played; a drill that was played and went badly is no error.
pub fn play(
    store: &Store,
    sandbox: &Sandbox,
    exercise: &Exercise,
    registry: &Registry,
    say: &mut dyn FnMut(&str),
    on_record: &mut dyn FnMut(&Incident, &Record),
    stopped: &dyn Fn() -> bool,
) -> Result<Incident> {
    sandbox.inject(release::Window::default())?;
    say("live traffic is on; what is coming comes at a moment nobody knows");
    let alarm = wait_for_alarm(sandbox, stopped)?;
    say(&format!("alarm: {alarm}"));
    let mut incident = open(store, sandbox, exercise, &alarm)?;
    let tokio = runtime()?;
    let mut operator = Operator {
        incident: &mut incident,
        settings: sandbox.settings(),
        secrets: sandbox.secrets()?,
        registry,
        tokio: &tokio,
        on_record,
        stopped,
        reported: Seq(0),
    };
    let late = Instant::now();
    while late.elapsed() < exercise.delay {
        if stopped() {
            return Err(Error::interrupted("the drill was stopped"));
        }
        std::thread::sleep(Duration::from_millis(100).min(exercise.delay));
    }
    let played = operator.play();
    if let Err(error) = &played {
        operator.submit(Command::Note { text: format!("the unattended operator stopped: {error}") })?;
    }
    let restored = operator.incident.state()?.restored.is_some();
    let judged = judged(sandbox, operator.incident, &tokio)?;
    operator.submit(Command::Observe { facts: judged })?;
    let summary = match &played {
        Ok(()) if restored => "unattended drill, played to its end".to_string(),
        Ok(()) => "unattended drill, played to its end, but service was not restored".to_string(),
        Err(error) => format!("unattended drill, stopped early: {}", error.what),
    };
    // Nothing that is still open is hidden by closing: decide refuses while a run is.
    let closed = operator.submit(Command::Close { summary, force: true });
    match played {
        Err(error) if error.kind == crate::error::ErrorKind::Interrupted => Err(error),
        // A run whose outcome is unknown keeps the incident open. The drill has failed all the same, and its report says why.
        Err(_) => Ok(incident),
        Ok(()) => closed.map(|_| incident),
    }
}
