//! Messages on the screen: which one and to whom, the blanks only a person can fill in, how it goes out.

use std::collections::BTreeMap;

use super::super::dialog::{Ask, Dialog, Field, Outgoing};
use super::super::{App, Effect, IncidentUi, Tone, words};
use super::people::standing;
use crate::action::blanks::variable_of;
use crate::action::message::{self, Known};
use crate::incident::people::{tells, untold};
use crate::incident::rules::{AUTHORITIES, speaks_of_authorities};
use crate::incident::{Command, Now, RunRequest, StepStatus, Timer, timers};
use crate::model::event::Kind;
use crate::model::plan::Risk;
use crate::model::{Plan, Step, may_hold_secret};

/// The words of the dialogs' choices.
const OWN_WORDS: &str = "own words";
const COPY: &str = "copy";
const SEND: &str = "send";
const SAID: &str = "told already";
/// So many fields fit a small screen; what is left over is asked for by the next press.
const FIELDS: usize = 8;

impl IncidentUi {
    fn known(&self, audience: &str, now: &Now) -> Known {
        message::known(&self.data.state, &self.data.scenario, &self.rules(), audience, now)
    }
    /// A message as it stands now, and its blanks that are left.
    pub fn message(&self, audience: &str, text: &str, now: &Now) -> (String, Vec<String>) {
        message::fill(text, &self.data.state, &self.known(audience, now))
    }
    /// The blanks of a message that a person may fill in: those that are left, each once; when none is, those they filled in
    /// before. A secret has no place in a message.
    pub fn blanks(&self, audience: &str, text: &str, now: &Now) -> Vec<String> {
        let (_, mut blanks) = self.message(audience, text, now);
        if blanks.is_empty() {
            let vars = &self.data.state.vars;
            blanks = crate::plan::placeholders::in_message(text);
            blanks.retain(|b| vars.contains_key(&variable_of(b)));
        }
        let mut seen = std::collections::BTreeSet::new();
        blanks.retain(|b| !may_hold_secret(b) && seen.insert(variable_of(b)));
        blanks
    }
    /// Everybody who has heard nothing since a step that tells people was begun, and to whom a message is due; the authorities at
    /// last, where the step speaks of them.
    pub fn still_to_tell(&self, step: &Step) -> Vec<String> {
        let state = &self.data.state;
        let worked = state.step(&step.id);
        let since = worked.begun.as_ref().or(worked.again.as_ref()).filter(|_| tells(step));
        let mut all = timers::waiting(state, &self.rules(), since);
        let says = std::iter::once(&step.text).chain(step.items.iter().map(|i| &i.title));
        let asked = tells(step) && says.chain([&step.title]).any(|text| speaks_of_authorities(text));
        if asked && !state.messages.iter().any(|(to, ..)| to == AUTHORITIES) {
            all.push(AUTHORITIES.into());
        }
        all
    }
    /// The selected step, when telling people is its work and it is not over.
    pub fn telling(&self) -> Option<&Step> {
        let step = self.data.scenario.steps.get(self.steps.step)?;
        let open = matches!(self.data.state.step(&step.id).status, StepStatus::Open | StepStatus::Active);
        (tells(step) && open).then_some(step)
    }
}

/// The message of a step among those of its plan.
fn place(plan: &Plan, step: Option<&Step>) -> Option<usize> {
    let own = step.and_then(message::of_step)?;
    let all = message::templates(plan);
    let there = all.iter().position(|t| t.line == Some(own.line));
    there.or_else(|| all.iter().position(|t| t.text == own.code))
}

/// The message that fits an audience: what the plan has for the authorities is theirs, and a step's own is not for them.
fn fitting(ui: &IncidentUi, own: Option<usize>, who: &str) -> usize {
    let templates = message::templates(&ui.data.plan);
    let theirs = || templates.iter().position(|t| t.line.is_some() && message::meant_for(&t.title) == AUTHORITIES);
    let told = ui.data.state.messages.iter().any(|(to, ..)| to == who);
    let kind = match (ui.data.state.restored.is_some(), told) {
        (true, _) => "service is back",
        (false, true) => "update",
        (false, false) => "first message",
    };
    let ours = || templates.iter().position(|t| t.line.is_none() && t.title == kind);
    let planned = if who == AUTHORITIES { theirs() } else { own };
    planned.or_else(ours).unwrap_or(0)
}

/// Another audience was chosen: so is the message that fits it.
pub(super) fn suit(app: &mut App) {
    let Some(ui) = &app.incident else { return };
    let Some(dialog) = app.dialogs.last_mut() else { return };
    let Ask::Tell(id) = &dialog.ask else { return };
    let step = ui.data.scenario.steps.iter().find(|s| Some(&s.id) == id.as_ref());
    let own = place(&ui.data.plan, step.filter(|s| untold(&ui.data.state, s)));
    let fits = fitting(ui, own, dialog.value(0));
    if let Some(Field::Choice { at, .. }) = dialog.fields.get_mut(1) {
        *at = fits;
    }
}

/// Asks whom to tell and what. At a step that tells people its own message is chosen; for a deadline it is the audience's.
pub(super) fn open(app: &mut App, audience: Option<String>) {
    let Some(ui) = &app.incident else { return };
    let step = ui.telling().filter(|_| audience.is_none());
    // Once the step's own message is out it is the turn of whoever else waits.
    let others = step.filter(|s| !untold(&ui.data.state, s)).map(|s| ui.still_to_tell(s)).unwrap_or_default();
    let own = place(&ui.data.plan, step).filter(|_| others.is_empty());
    let all = ui.deadlines(&app.now);
    // Whoever waits for longest comes first.
    let due =
        all.iter().filter(|d| matches!(d.timer, Timer::Update(_) | Timer::Communicate)).cloned().collect::<Vec<_>>();
    let meant = step.filter(|_| own.is_some()).map(|s| message::meant_for(&s.title).to_string());
    let first = audience
        .or_else(|| others.into_iter().next())
        .or(meant)
        .or_else(|| timers::next(&due).map(|d| d.about.clone()));
    let options = audiences(ui, &app.now);
    let at = options.iter().position(|(who, _)| Some(who) == first.as_ref()).unwrap_or(0);
    let who = options.get(at).map_or("", |(who, _)| who.as_str());
    let about = |i: usize, planned: bool| match planned {
        _ if own == Some(i) => "of this step",
        true => "of the plan",
        false => "",
    };
    let templates = message::templates(&ui.data.plan);
    let mut messages: Vec<(String, String)> =
        templates.iter().enumerate().map(|(i, t)| (t.title.clone(), about(i, t.line.is_some()).to_string())).collect();
    messages.push((OWN_WORDS.into(), "what is written below".into()));
    let fits = fitting(ui, own, who);
    let fields = vec![
        Field::Choice { label: "To".into(), options, at },
        Field::Choice { label: "Message".into(), options: messages, at: fits },
        Field::text("Own words", "one line; with this chosen above", ""),
    ];
    let ask = Ask::Tell(step.map(|s| s.id.clone()));
    app.dialogs.push(Dialog { fields, ..Dialog::new(ask) });
}

/// Everybody who can be told, and when they have to be.
fn audiences(ui: &IncidentUi, now: &Now) -> Vec<(String, String)> {
    let all = ui.deadlines(now);
    let names = ui.rules().audiences(ui.data.state.severity.as_deref());
    let about = |who: &str| {
        let waits = all.iter().find(|d| d.about == who && d.left_ms().is_some());
        waits.map_or(String::new(), |d| standing(&d.standing))
    };
    names.into_iter().map(|who| (who.clone(), about(&who))).collect()
}

/// The clock or the journal moved on: a form that is open shows when its audiences are due now.
pub(super) fn refresh(ui: &IncidentUi, dialog: &mut Dialog, now: &Now) {
    if let (Ask::Tell(_), Some(Field::Choice { options, .. })) = (&dialog.ask, dialog.fields.first_mut()) {
        let due = audiences(ui, now);
        for (who, about) in options {
            if let Some((_, new)) = due.iter().find(|(name, _)| name == who) {
                about.clone_from(new);
            }
        }
    }
}

/// What an accepted dialog of messages does. `None` when it is another one; else whether it is left.
pub(super) fn accept(app: &mut App, dialog: &Dialog, out: &mut Vec<Effect>) -> Option<Result<bool, String>> {
    Some(match &dialog.ask {
        Ask::Tell(step) => show(app, dialog, step.as_ref(), out),
        Ask::Send { message, .. } => go(app, dialog.value(0), message, false, out),
        Ask::BlanksLeft { how, message } => go(app, how, message, true, out),
        Ask::Blanks(names) => keep(app, dialog, names, out),
        _ => return None,
    })
}

/// The message that was chosen, filled in. The form stays below it, for whoever comes back.
fn show(
    app: &mut App,
    dialog: &Dialog,
    step: Option<&crate::model::StepId>,
    out: &mut Vec<Effect>,
) -> Result<bool, String> {
    let Some(ui) = &app.incident else { return Ok(true) };
    let at = match dialog.fields.get(1) {
        Some(Field::Choice { at, .. }) => *at,
        _ => 0,
    };
    let templates = message::templates(&ui.data.plan);
    let said = dialog.value(2).to_string();
    // Words that were written are meant, whatever is chosen above them.
    let text = match templates.get(at) {
        _ if !said.is_empty() => said.clone(),
        Some(t) => t.text.clone(),
        None => return Err("write the message below, or choose one of the list".into()),
    };
    // Another message of the list is not the step's work.
    let found = step.and_then(|id| ui.data.scenario.steps.iter().find(|s| s.id == *id));
    let own = place(&ui.data.plan, found);
    let its_work = own.is_none_or(|own| at == own || (!said.is_empty() && at >= templates.len()));
    let step = step.filter(|_| its_work).cloned();
    if let Some(step) = step.clone().filter(|s| ui.data.state.step(s).status == StepStatus::Open) {
        out.push(Effect::Submit(Command::StartStep { step }, None));
    }
    let message = Outgoing { audience: dialog.value(0).to_string(), text, step };
    let ask = Ask::Send { message, typed: BTreeMap::new(), copied: None };
    app.dialogs.push(Dialog { fields: vec![ways(false)], ..Dialog::new(ask) });
    Ok(false)
}

/// Lets a message go, in the way that was chosen. One with blanks goes only when a person says so once more.
fn go(app: &mut App, how: &str, message: &Outgoing, anyway: bool, out: &mut Vec<Effect>) -> Result<bool, String> {
    let Some(ui) = &app.incident else { return Ok(true) };
    let Outgoing { audience, text, step } = message;
    let (filled, left) = ui.message(audience, text, &app.now);
    let state = &ui.data.state;
    if how == SEND {
        if state.kind == Kind::Drill {
            return Err("a drill sends nothing to anybody: copy it, or write down that they were told".into());
        }
        if state.people.local_only {
            return Err("this incident is local only: copy the message and carry it by hand".into());
        }
        if !app.env.notify {
            return Err("no command is configured: set command in [notify] of breakglass.toml, or copy it".into());
        }
    }
    if !left.is_empty() && !anyway && (how != SAID || copied(app).is_none()) {
        app.dialogs.push(Dialog::new(Ask::BlanksLeft { how: how.into(), message: message.clone() }));
        return Ok(false);
    }
    let tell = |how: &str, text: String| {
        let (audience, step) = (audience.clone(), step.clone());
        Effect::Submit(Command::Tell { audience, text, how: Some(how.into()), step }, None)
    };
    match how {
        SEND => {
            let mut args = vec!["--audience".into(), audience.clone()];
            args.extend(step.iter().flat_map(|s| ["--step".to_string(), s.as_str().to_string()]));
            let request = RunRequest {
                step: None,
                block_line: None,
                action: "notify".into(),
                shown: filled.clone(),
                args,
                risk: Risk::Change,
                confirmed: None,
            };
            app.busy = Some(super::STARTING.into());
            out.push(Effect::Run(Box::new(request), Some(filled)));
        }
        COPY => {
            out.push(Effect::Copy(filled.clone(), "message"));
            out.push(Effect::KeepMessage(audience.clone(), filled.clone()));
            keep_copy(app, filled);
            return Ok(false);
        }
        // What was copied is what they read, whatever the clock says now.
        _ => match copied(app) {
            Some(text) => out.push(tell("copied", text)),
            None => out.push(tell("said", filled)),
        },
    }
    // It is out: the form and the question that led here are over.
    app.dialogs.retain(|d| !matches!(d.ask, Ask::Tell(_) | Ask::Send { .. } | Ask::BlanksLeft { .. }));
    Ok(true)
}

/// A copy tells nobody: the question stays, and its next answer is that what was copied is out.
fn keep_copy(app: &mut App, text: String) {
    app.dialogs.retain(|d| !matches!(d.ask, Ask::BlanksLeft { .. }));
    if let Some(Dialog { ask: Ask::Send { copied, .. }, fields, .. }) = app.dialogs.last_mut() {
        *copied = Some(text);
        *fields = vec![ways(true)];
    }
}

/// The ways a message goes out. Once it was copied: that it is out.
fn ways(copied: bool) -> Field {
    let said = if copied {
        "what was copied is out; write it down"
    } else {
        "they were told in another way; only write it down"
    };
    let ways = [
        (COPY, "to the clipboard and a file, to be sent by hand"),
        (SEND, "hand it to the configured command"),
        (SAID, said),
    ];
    Field::choice("", &ways, if copied { 2 } else { 0 })
}

/// What was copied of the message that is shown.
fn copied(app: &App) -> Option<String> {
    app.dialogs.iter().find_map(|d| if let Ask::Send { copied, .. } = &d.ask { copied.clone() } else { None })
}

/// Asks for the blanks of the message that is shown, one field each.
pub(super) fn fill_in(app: &mut App) {
    if matches!(app.dialogs.last().map(|d| &d.ask), Some(Ask::BlanksLeft { .. })) {
        app.dialogs.pop();
    }
    let (Some(ui), Some(Dialog { ask: Ask::Send { message, typed, .. }, .. })) = (&app.incident, app.dialogs.last())
    else {
        return;
    };
    let Outgoing { audience, text, .. } = message;
    let mut names = ui.blanks(audience, text, &app.now);
    names.truncate(FIELDS);
    if names.is_empty() {
        return app.say(Tone::Info, "no blank is left that a person could fill in".into());
    }
    let (filled, _) = ui.message(audience, text, &app.now);
    let known = ui.known(audience, &app.now);
    let fields = names
        .iter()
        .map(|blank| {
            let name = variable_of(blank);
            let kept = typed.get(&name).or_else(|| ui.data.state.vars.get(&name)).map(String::as_str);
            // Where it stands says best what goes there.
            let hint = filled.lines().find(|l| l.contains(blank.as_str())).unwrap_or("what people are to read there");
            Field::text(blank, hint.trim(), kept.or_else(|| known.offer(blank)).unwrap_or_default())
        })
        .collect();
    app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Blanks(names)) });
}

/// The values that were entered, by variable.
fn entered<'a>(dialog: &'a Dialog, names: &'a [String]) -> impl Iterator<Item = (String, &'a str)> {
    let all = names.iter().enumerate().map(|(i, blank)| (variable_of(blank), dialog.value(i)));
    all.filter(|(_, value)| !value.is_empty())
}

/// Keeps what was entered as variables of the incident; what is empty stays a blank.
fn keep(app: &mut App, dialog: &Dialog, names: &[String], out: &mut Vec<Effect>) -> Result<bool, String> {
    let Some(ui) = &app.incident else { return Ok(true) };
    let vars = &ui.data.state.vars;
    let mut effects = Vec::new();
    for (name, value) in
        entered(dialog, names).filter(|(name, value)| vars.get(name).map(String::as_str) != Some(*value))
    {
        effects.push(Effect::Submit(super::accept::variable(name, value.to_string())?, None));
    }
    if entered(dialog, names).next().is_none() {
        return Err("nothing was entered; esc goes back and leaves the blanks as they are".into());
    }
    out.extend(effects);
    // Another text than the one that was copied: that one is not the message any more.
    let below = app.dialogs.iter_mut().rev().find(|d| matches!(d.ask, Ask::Send { .. }));
    if let Some(Dialog { ask: Ask::Send { typed, copied, .. }, fields, .. }) = below {
        typed.clear();
        if copied.take().is_some() {
            *fields = vec![ways(false)];
        }
    }
    Ok(true)
}

/// Going back takes nothing away: what was typed is there at the next press.
pub(super) fn put_aside(app: &mut App, dialog: &Dialog) {
    let Ask::Blanks(names) = &dialog.ask else { return };
    let entered: Vec<(String, String)> = entered(dialog, names).map(|(n, v)| (n, v.to_string())).collect();
    if let Some(typed) = typed_below(app) {
        typed.extend(entered);
    }
}

fn typed_below(app: &mut App) -> Option<&mut BTreeMap<String, String>> {
    app.dialogs.iter_mut().rev().find_map(|d| match &mut d.ask {
        Ask::Send { typed, .. } => Some(typed),
        _ => None,
    })
}

/// What `e` does with so many blanks.
pub fn fills(left: &[String]) -> &'static str {
    if left.len() == 1 { "e fills it in" } else { "e fills them in" }
}

/// `2 blanks are left: [Date], [Data]`.
pub fn left_words(left: &[String]) -> String {
    let verb = if left.len() == 1 { "is" } else { "are" };
    format!("{} {verb} left: {}", words::plural(left.len() as u64, "blank"), left.join(", "))
}
