//! Deadlines of the people's side: to respond, to escalate, to tell, to be answered, to tell again.
//!
//! All of them are computed from the state, the rules of the plan and the present, and nothing else. Those of the severity
//! count from the start of the impact (as it is known now: a corrected start moves them, also into the past), an answer from
//! the call, an update from the last message.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::model::Time;

use super::rules::{Limits, Rules};
use super::state::Restored;
use super::{Instant, Now, State};

/// A deadline's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Somebody works on it.
    Respond,
    /// The next level knows.
    Escalate,
    /// The first message is out.
    Communicate,
    /// This level has answered.
    Level(u32),
    /// This audience heard from us again.
    Update(String),
}

impl fmt::Display for Timer {
    /// `respond`, `escalate`, `communicate`, `level-2`, `update-team`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Respond => f.write_str("respond"),
            Self::Escalate => f.write_str("escalate"),
            Self::Communicate => f.write_str("communicate"),
            Self::Level(n) => write!(f, "level-{n}"),
            Self::Update(audience) => write!(f, "update-{audience}"),
        }
    }
}

impl FromStr for Timer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("{text:?} is no deadline; there are respond, escalate, communicate, level-N and update-AUDIENCE")
        };
        match text.trim() {
            "respond" => Ok(Self::Respond),
            "escalate" => Ok(Self::Escalate),
            "communicate" => Ok(Self::Communicate),
            other => match other.split_once('-') {
                Some(("level", n)) => n.parse().map(Self::Level).map_err(|_| bad()),
                Some(("update", audience)) if !audience.is_empty() => Ok(Self::Update(audience.into())),
                _ => Err(bad()),
            },
        }
    }
}

/// How a deadline stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// So much time is left.
    Running(Duration),
    /// It was put off; so much time is left.
    Snoozed(Duration),
    /// It passed so long ago.
    Overdue(Duration),
    /// Done in time, then.
    Met(Time),
    /// Done too late, then.
    Late(Time),
    /// It passed, and nothing will come of it any more.
    Missed,
    /// It no longer matters.
    Over,
}

/// A deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadline {
    /// Which.
    pub timer: Timer,
    /// Whom or what it is about: `customers`, `engineering manager`.
    pub about: String,
    /// Its time runs from here.
    pub since: Time,
    /// So long.
    pub period: Duration,
    /// To here, snoozes aside.
    pub due: Time,
    /// How it stands.
    pub standing: Standing,
    /// Whom it is about heard nothing yet.
    pub first: bool,
}

impl Deadline {
    /// Milliseconds until it is loud; negative when it is. None when it no longer runs.
    pub fn left_ms(&self) -> Option<i64> {
        let ms = |d: &Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        match &self.standing {
            Standing::Running(d) | Standing::Snoozed(d) => Some(ms(d)),
            Standing::Overdue(d) => Some(-ms(d)),
            _ => None,
        }
    }
    /// Whether it is loud.
    pub fn overdue(&self) -> bool {
        matches!(self.standing, Standing::Overdue(_))
    }
    /// What has to be done, for people.
    pub fn what(&self) -> String {
        match &self.timer {
            Timer::Respond => "respond".into(),
            Timer::Escalate => "escalate".into(),
            Timer::Communicate => format!("first message to {}", self.about),
            Timer::Level(n) => format!("answer of level {n} ({})", self.about),
            Timer::Update(audience) if self.first => format!("first message to {audience}"),
            Timer::Update(audience) => format!("next update to {audience}"),
        }
    }
}

/// Every deadline of an incident, in a fixed order: respond, escalate, communicate, levels, updates.
pub fn deadlines(state: &State, rules: &Rules, now: &Now) -> Vec<Deadline> {
    let limits = rules.limits(state.severity.as_deref());
    let mut out = vec![
        severity(state, now, Timer::Respond, "", limits.respond, responded(state)),
        severity(state, now, Timer::Escalate, "", limits.escalate, escalated(state)),
        severity(state, now, Timer::Communicate, &limits.audience, limits.communicate, told(state, &limits.audience)),
    ];
    out.extend(levels(state, now));
    out.extend(updates(state, limits, now));
    out
}

/// The deadline that is loud for longest, else the one that will be next.
pub fn next(deadlines: &[Deadline]) -> Option<&Deadline> {
    deadlines.iter().filter(|d| d.left_ms().is_some()).min_by_key(|d| d.left_ms())
}

/// Everybody to whom a message is still due, whoever waits for the first one first; `since` then only those who heard nothing
/// since. Put off or not: at the end of it they have to hear.
pub fn waiting(state: &State, rules: &Rules, since: Option<&Instant>) -> Vec<String> {
    let limits = rules.limits(state.severity.as_deref());
    let first = Some(&limits.audience).filter(|who| !who.is_empty() && told(state, who).is_none());
    let again = limits.cadence.iter().map(|(who, _)| who).filter(|who| Some(*who) != first && !informed(state, who));
    let heard = |who: &String| since.is_some_and(|s| messages(state, who).any(|w| w.recorded >= s.recorded));
    first.into_iter().chain(again).filter(|who| !heard(who)).cloned().collect()
}

/// Whether nobody of an audience waits for more: the good news names a next update, and that one says that it held.
fn informed(state: &State, audience: &str) -> bool {
    let since_back = |r: &Restored| messages(state, audience).filter(|w| w.at >= r.at).count();
    state.restored.as_ref().is_some_and(|r| since_back(r) >= 2)
}

/// When the impact began, and how long ago that is by the clock that no correction of the wall clock moves.
fn start(state: &State, now: &Now) -> (Time, Duration) {
    match &state.impact {
        Some(i) => (i.at, i.recorded.recorded.since(i.at) + i.recorded.elapsed_from_record(now)),
        None => (state.opened.at, state.opened.elapsed_from_record(now)),
    }
}

/// The first sign that somebody works on it.
fn responded(state: &State) -> Option<Time> {
    let steps = state.steps.values().filter_map(|s| s.started.as_ref());
    let runs = state.runs.values().map(|r| &r.requested);
    let said = state.people.acknowledged.get("respond").map(|(when, ..)| when);
    let first = steps.chain(runs).chain(said).chain(&state.declared).map(|i| i.at);
    first.chain(escalated(state)).min()
}

fn escalated(state: &State) -> Option<Time> {
    let said = state.people.acknowledged.get("escalate").map(|(when, ..)| when.at);
    state.people.escalations.iter().map(|e| e.when.at).chain(said).min()
}

fn messages<'a>(state: &'a State, audience: &'a str) -> impl Iterator<Item = &'a Instant> {
    state.messages.iter().filter(move |(to, ..)| to == audience).map(|(.., when)| when)
}

fn told(state: &State, audience: &str) -> Option<Time> {
    messages(state, audience).map(|w| w.at).min()
}

/// A deadline that counts from the start of the impact and is met once.
fn severity(state: &State, now: &Now, timer: Timer, about: &str, period: Duration, done: Option<Time>) -> Deadline {
    let (since, elapsed) = start(state, now);
    let due = since.plus(period);
    // Nobody has to be called for a service that is back.
    let idle = timer == Timer::Escalate && state.restored.is_some();
    let standing = match (done, &state.closed) {
        (Some(at), _) if at <= due => Standing::Met(at),
        (Some(at), _) => Standing::Late(at),
        (None, Some((closed, _))) if closed.at > due && !idle => Standing::Missed,
        (None, Some(_)) => Standing::Over,
        (None, None) if idle => Standing::Over,
        (None, None) => running(state, now, &timer, None, period, elapsed),
    };
    Deadline { timer, about: about.into(), since, period, due, standing, first: done.is_none() }
}

/// The answers that are waited for.
fn levels(state: &State, now: &Now) -> Vec<Deadline> {
    let calls = &state.people.escalations;
    calls
        .iter()
        .enumerate()
        .map(|(i, call)| {
            let (timer, due) = (Timer::Level(call.level), call.when.at.plus(call.within));
            let elapsed = call.when.elapsed(now);
            let went_on = calls.iter().skip(i + 1).any(|later| later.level >= call.level);
            let over = state.closed.is_some() || state.restored.is_some();
            let standing = match &call.answered {
                Some((_, at)) if at.at <= due => Standing::Met(at.at),
                Some((_, at)) => Standing::Late(at.at),
                None if (over || went_on) && elapsed > call.within => Standing::Missed,
                None if over || went_on => Standing::Over,
                None => running(state, now, &timer, Some(&call.when), call.within, elapsed),
            };
            let (about, since) = (call.who.clone(), call.when.at);
            Deadline { timer, about, since, period: call.within, due, standing, first: false }
        })
        .collect()
}

/// When each audience has to hear from us again.
fn updates(state: &State, limits: &Limits, now: &Now) -> Vec<Deadline> {
    let (start, since_start) = start(state, now);
    let mut out = Vec::new();
    for (audience, period) in &limits.cadence {
        let last = messages(state, audience).max_by_key(|w| w.at);
        // The first message to this audience has a deadline of its own.
        if last.is_none() && *audience == limits.audience {
            continue;
        }
        let (since, elapsed) = last.map_or((start, since_start), |w| (w.at, w.elapsed(now)));
        let timer = Timer::Update(audience.clone());
        let standing = match state.closed.is_some() || informed(state, audience) {
            true => Standing::Over,
            false => running(state, now, &timer, last, *period, elapsed),
        };
        out.push(Deadline {
            timer,
            about: audience.clone(),
            since,
            period: *period,
            due: since.plus(*period),
            standing,
            first: last.is_none(),
        });
    }
    out
}

/// A deadline that runs: a snooze made in its present round puts it off.
fn running(
    state: &State,
    now: &Now,
    timer: &Timer,
    round: Option<&Instant>,
    period: Duration,
    elapsed: Duration,
) -> Standing {
    let name = timer.to_string();
    let snoozed = state
        .people
        .snoozes
        .iter()
        .filter(|s| s.timer == name && !s.ended && round.is_none_or(|r| s.when.at >= r.at))
        .filter_map(|s| s.length.checked_sub(s.when.elapsed(now)))
        .filter(|left| !left.is_zero())
        .max();
    match (period.checked_sub(elapsed).filter(|left| !left.is_zero()), snoozed) {
        (left, Some(put_off)) if left.is_none_or(|left| put_off > left) => Standing::Snoozed(put_off),
        (Some(left), _) => Standing::Running(left),
        (None, _) => Standing::Overdue(elapsed.saturating_sub(period)),
    }
}
