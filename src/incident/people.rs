//! Who does what, what was escalated, acknowledged and snoozed, and how the incident may be spoken of.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::plan::{BlockRole, Phase, Step};
use crate::model::{Actor, Event, Time};

use super::{Instant, Now, State};

/// The role that leads: handing it over ends every snooze, so that the new lead decides anew.
pub const COMMAND: &str = "incident commander";

/// The variables a message's next update is kept under. A person's word for it is good for one message.
pub const NEXT_UPDATE: [&str; 2] = ["NEXT_UPDATE", "NEXT_UPDATE_TIME"];

/// The roles there are when the plan names none, the one that leads first.
pub const ROLES: [&str; 4] = [COMMAND, "operations", "communications", "scribe"];

/// The name under which a role is kept: plans call the lead by several names.
pub fn role_name(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    match lower.as_str() {
        "incident lead" | "lead" | "commander" | "ic" | "incident manager" => COMMAND.into(),
        "ops" | "keyboard" | "operations lead" => "operations".into(),
        "comms" | "communication" | "communications lead" => "communications".into(),
        _ => lower,
    }
}

/// Whether telling people is the work of a step: a message stands in it, or its title says so.
pub fn tells(step: &Step) -> bool {
    step.blocks.iter().any(|b| b.role == BlockRole::Template) || step.phase == Some(Phase::Communicate)
}

/// Whether a step that tells people has told nobody yet, as far as anything is on record. At a table nothing is sent.
pub fn untold(state: &State, step: &Step) -> bool {
    let worked = state.step(&step.id);
    let since = worked.begun.as_ref().or(worked.again.as_ref());
    // Where the step has no message of its own any word to anybody is its work.
    let any = || {
        let told = |(.., when): &(String, String, Instant)| since.is_some_and(|s| when.recorded >= s.recorded);
        !step.blocks.iter().any(|b| b.role == BlockRole::Template) && state.messages.iter().any(told)
    };
    tells(step) && state.people.tabletop.is_none() && worked.told.is_none() && !any()
}

/// A role in somebody's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Whose.
    pub person: String,
    /// Since when.
    pub since: Instant,
    /// Who wrote it down.
    pub by: Actor,
}

/// Somebody at a level was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalated {
    /// Level, from 1.
    pub level: u32,
    /// Who is meant.
    pub who: String,
    /// Time they have to answer.
    pub within: Duration,
    /// When they were called.
    pub when: Instant,
    /// Who answered, and when.
    pub answered: Option<(String, Instant)>,
}

/// A deadline that is not to be loud for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snooze {
    /// Name of the timer.
    pub timer: String,
    /// For how long.
    pub length: Duration,
    /// Why.
    pub reason: String,
    /// Since when.
    pub when: Instant,
    /// A hand-over of command ended it.
    pub ended: bool,
}

/// An exercise at a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tabletop {
    /// Messages that will come in.
    pub planned: u32,
    /// Since when they do.
    pub began: Instant,
    /// Time between two of them.
    pub pace: Duration,
    /// Those that came in: when, text.
    pub brought: Vec<(Instant, String)>,
}

impl Tabletop {
    /// How many messages are due now; the first one at once.
    pub fn due(&self, now: &Now) -> u32 {
        let since = self.began.elapsed(now).as_millis();
        let pace = self.pace.as_millis();
        let due = since.checked_div(pace).map_or(u128::from(u32::MAX), |n| n + 1);
        u32::try_from(due).unwrap_or(u32::MAX).min(self.planned)
    }
}

/// The people's side of an incident.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct People {
    /// Everybody who held a role, the present holder last, by the role's name.
    pub roles: BTreeMap<String, Vec<Holding>>,
    /// Calls for help, oldest first.
    pub escalations: Vec<Escalated>,
    /// Deadlines that somebody took note of: when, who, their words.
    pub acknowledged: BTreeMap<String, (Instant, Actor, String)>,
    /// Snoozes, oldest first.
    pub snoozes: Vec<Snooze>,
    /// The name under which it is spoken of.
    pub codename: Option<String>,
    /// Nothing leaves this machine by our doing: no messages, no remote repository.
    pub local_only: bool,
    /// Secrets changed in the course of it, and when.
    pub rotated: BTreeMap<String, Time>,
    /// An exercise at a table; nothing is executed in it.
    pub tabletop: Option<Tabletop>,
    /// Boxes of the list for afterwards, as ticked.
    pub afterwards: BTreeMap<String, Instant>,
}

impl People {
    /// Who holds a role now.
    pub fn holder(&self, role: &str) -> Option<&Holding> {
        self.roles.get(role).and_then(|h| h.last())
    }
    /// The highest level called so far; 0 when nobody was.
    pub fn level(&self) -> u32 {
        self.escalations.iter().map(|e| e.level).max().unwrap_or(0)
    }

    /// Applies one event of this side.
    pub(super) fn apply(&mut self, event: &Event, actor: &Actor, when: Instant) {
        match event.clone() {
            Event::TimerAcknowledged { timer, note } => {
                self.acknowledged.entry(timer).or_insert((when, actor.clone(), note));
            }
            Event::TimerSnoozed { timer, for_ms, reason } => {
                let length = Duration::from_millis(for_ms);
                self.snoozes.push(Snooze { timer, length, reason, when, ended: false });
            }
            Event::Escalated { level, who, within_ms } => {
                let within = Duration::from_millis(within_ms);
                self.escalations.push(Escalated { level, who, within, when, answered: None });
            }
            Event::EscalationAnswered { level, by } => {
                let open = self.escalations.iter_mut().rev().find(|e| e.level == level && e.answered.is_none());
                if let Some(call) = open {
                    call.answered = Some((by, when));
                }
            }
            Event::RoleAssigned { role, person, .. } => {
                if role == COMMAND && self.holder(COMMAND).is_some() {
                    self.snoozes.iter_mut().for_each(|s| s.ended = true);
                }
                self.roles.entry(role).or_default().push(Holding { person, since: when, by: actor.clone() });
            }
            Event::CodenameSet { codename } => self.codename = Some(codename),
            Event::CodenameLifted {} => self.codename = None,
            Event::LocalOnlySet { on, .. } => self.local_only = on,
            Event::SecretRotated { secret, at } => {
                let last = self.rotated.entry(secret).or_insert(at);
                *last = at.max(*last);
            }
            Event::TabletopBegan { messages, pace_ms, .. } => {
                let pace = Duration::from_millis(pace_ms);
                self.tabletop = Some(Tabletop { planned: messages, began: when, pace, brought: Vec::new() });
            }
            Event::MessageInjected { text, .. } => {
                if let Some(exercise) = &mut self.tabletop {
                    exercise.brought.push((when, text));
                }
            }
            Event::AfterwardsTicked { item, done: true } => {
                self.afterwards.insert(item, when);
            }
            Event::AfterwardsTicked { item, done: false } => {
                self.afterwards.remove(&item);
            }
            _ => {}
        }
    }
}
