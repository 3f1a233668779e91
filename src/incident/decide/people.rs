//! The people's side: messages, deadlines, levels, roles, the name it goes by, what may leave the machine.

use crate::incident::people::role_name;
use crate::incident::{StepStatus, Timer};
use crate::model::event::Event;

use super::{Command, Context, Decision, Refusal, State, must_be_open, must_say};

/// A snooze may not be longer: a deadline that is put off for a day is none.
const LONGEST_MS: u64 = 24 * 3_600_000;

pub(super) fn decide(state: &State, command: &Command, ctx: Context<'_>) -> Decision {
    // What became of the secrets and the list for afterwards, and when it may be named, is often known only after closing.
    if !matches!(command, Command::Rotate { .. } | Command::TickAfterwards { .. } | Command::LiftCodename) {
        must_be_open(state)?;
    }
    match command {
        Command::Tell { audience, text, how, step } => {
            must_say(audience, "The audience")?;
            must_say(text, "The message")?;
            let mut events = Vec::new();
            if let Some(id) = step {
                super::step::find(ctx, id)?;
                if state.step(id).status == StepStatus::Open {
                    events.push(Event::StepStarted { step: id.clone() });
                }
            }
            let (audience, text, how, step) = (audience.clone(), text.clone(), how.clone(), step.clone());
            events.push(Event::MessageSent { audience, text, how, step });
            Ok(events)
        }
        Command::Acknowledge { timer, note } => acknowledge(state, timer, note),
        Command::Snooze { timer, for_ms, reason } => {
            timer.parse::<Timer>().map_err(|e| Refusal::new(e, "`incident timers` lists those that run"))?;
            must_say(reason, "The reason for the snooze")?;
            if *for_ms == 0 || *for_ms > LONGEST_MS {
                return Err(Refusal::new(
                    "A deadline is put off for a second at least and a day at most",
                    "if it no longer matters, say so: acknowledge it, send the message, or mark service as restored",
                ));
            }
            Ok(vec![Event::TimerSnoozed { timer: timer.clone(), for_ms: *for_ms, reason: reason.clone() }])
        }
        Command::Escalate { level, who, within_ms } => {
            must_say(who, "Who is called")?;
            if *level == 0 || *within_ms == 0 {
                return Err(Refusal::new("A call needs a level from 1 on and time to answer", "level 2 within 30m"));
            }
            let open = state.people.escalations.iter().rev().find(|e| e.level == *level && e.answered.is_none());
            if let Some(call) = open
                && call.who == *who
                && call.when.elapsed(ctx.now) < call.within
            {
                return Err(Refusal::new(
                    format!("Level {level} ({who}) was called at {} and still has time", call.when.at.hms()),
                    "wait, or call the next level",
                ));
            }
            Ok(vec![Event::Escalated { level: *level, who: who.clone(), within_ms: *within_ms }])
        }
        Command::Answer { level, by } => {
            must_say(by, "Who answered")?;
            let call = state.people.escalations.iter().rev().find(|e| e.level == *level);
            match call {
                None => Err(Refusal::new(format!("Level {level} was not called"), "call it first: escalate")),
                Some(call) if call.answered.is_some() => Ok(vec![]),
                Some(_) => Ok(vec![Event::EscalationAnswered { level: *level, by: by.clone() }]),
            }
        }
        Command::Assign { role, person, note } => {
            must_say(role, "The role")?;
            must_say(person, "Who has it")?;
            let role = role_name(role);
            let from = state.people.holder(&role).map(|h| h.person.clone());
            if from.as_deref() == Some(person) {
                return Ok(vec![]);
            }
            Ok(vec![Event::RoleAssigned { role, person: person.clone(), from, note: note.clone() }])
        }
        Command::SetCodename { codename } => {
            must_say(codename, "The code name")?;
            if state.people.codename.as_ref() == Some(codename) {
                return Ok(vec![]);
            }
            Ok(vec![Event::CodenameSet { codename: codename.trim().to_string() }])
        }
        Command::LiftCodename => Ok(state.people.codename.iter().map(|_| Event::CodenameLifted {}).collect()),
        Command::SetLocalOnly { on, reason } => {
            if state.people.local_only == *on {
                return Ok(vec![]);
            }
            must_say(reason, "The reason")?;
            Ok(vec![Event::LocalOnlySet { on: *on, reason: reason.clone() }])
        }
        Command::Rotate { secret, at } => {
            must_say(secret, "The name of the secret")?;
            if *at > ctx.now.time {
                return Err(Refusal::new(format!("{at} is in the future"), "a secret can only be changed already"));
            }
            Ok(vec![Event::SecretRotated { secret: secret.clone(), at: *at }])
        }
        Command::TickAfterwards { item, done } => {
            must_say(item, "The item")?;
            if state.people.afterwards.contains_key(item) == *done {
                return Ok(vec![]);
            }
            Ok(vec![Event::AfterwardsTicked { item: item.clone(), done: *done }])
        }
        _ => Ok(vec![]),
    }
}

fn acknowledge(state: &State, timer: &str, note: &str) -> Decision {
    match timer.parse::<Timer>() {
        Ok(Timer::Respond) => {}
        Ok(Timer::Escalate) => must_say(note, "The reason why nobody has to be called")?,
        Ok(Timer::Level(n)) => {
            return Err(Refusal::new(
                format!("Level {n} acknowledges by answering"),
                "write down who answered (i in the console, `incident answered` in the shell)",
            ));
        }
        Ok(Timer::Communicate | Timer::Update(_)) => {
            return Err(Refusal::new(
                "A message is not acknowledged but sent",
                "send it (w), write down that they were told otherwise, or snooze it (z)",
            ));
        }
        Err(e) => return Err(Refusal::new(e, "`incident timers` lists those that run")),
    }
    if state.people.acknowledged.contains_key(timer) {
        return Ok(vec![]);
    }
    Ok(vec![Event::TimerAcknowledged { timer: timer.to_string(), note: note.to_string() }])
}
