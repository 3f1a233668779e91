//! The people's side on the screen: deadlines, calls, roles, messages, what is left for afterwards.

use super::super::command::Cmd;
use super::super::dialog::{Ask, Dialog, Field};
use super::super::when::parse_when;
use super::super::{App, Effect, IncidentUi, Screen, Tone};
use crate::action::message::{self, Template};
use crate::incident::people::{COMMAND, ROLES, role_name};
use crate::incident::rules::Rules;
use crate::incident::{Command, Deadline, RunRequest, Standing, Timer, deadlines, timers};
use crate::model::event::Kind;
use crate::model::plan::Risk;
use crate::model::{format_clock, parse_duration};

/// The words of the dialogs' choices.
const OWN_WORDS: &str = "own words";
const COPY: &str = "copy";
const SEND: &str = "send";
const SAID: &str = "told already";
const CLOSE: &str = "close";
/// How long a snooze is when nothing else is said.
const SNOOZE: &str = "10m";

impl IncidentUi {
    /// What its plan asks of the people.
    pub fn rules(&self) -> Rules {
        Rules::of(&self.data.plan, &self.data.scenario)
    }
    /// Its deadlines.
    pub fn deadlines(&self, now: &crate::incident::Now) -> Vec<Deadline> {
        deadlines(&self.data.state, &self.rules(), now)
    }
    /// What is to be done once it is over: of the scenario, else the plan's lists for afterwards, else the usual things.
    pub fn afterwards(&self) -> Vec<String> {
        crate::incident::rules::afterwards(&self.data.plan, &self.data.scenario)
    }
    /// A message as it stands now, and its blanks that are left.
    pub fn message(&self, audience: &str, text: &str, now: &crate::incident::Now) -> (String, Vec<String>) {
        let state = &self.data.state;
        let known = message::known(state, &self.data.scenario, &self.rules(), audience, now);
        message::fill(text, state, &known)
    }
}

/// Does a command of this side; says whether it was one.
pub(super) fn command(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) -> bool {
    match cmd {
        Cmd::Deadlines => open_deadlines(app),
        Cmd::Ack => acknowledge(app, out),
        Cmd::Snooze => open_snooze(app, None),
        Cmd::Escalate => open_escalate(app),
        Cmd::Assign => open_assign(app),
        Cmd::Tell => open_tell(app, None),
        Cmd::Codename => {
            let now = app.incident.as_ref().and_then(|ui| ui.data.state.people.codename.clone()).unwrap_or_default();
            let fields = vec![Field::text("Code name", "says nothing of what happened", &now)];
            app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Codename) });
        }
        Cmd::LocalOnly => {
            let on = app.incident.as_ref().is_some_and(|ui| ui.data.state.people.local_only);
            app.dialogs.push(Dialog::new(Ask::LocalOnly(!on)));
        }
        Cmd::Rotated => open_rotated(app),
        Cmd::Afterwards => open_afterwards(app, false),
        _ => return false,
    }
    true
}

fn open_deadlines(app: &mut App) {
    let Some(ui) = &app.incident else { return };
    let all = ui.deadlines(&app.now);
    let mut options: Vec<(String, String)> = Vec::new();
    let mut running: Vec<&Deadline> = all.iter().filter(|d| d.left_ms().is_some()).collect();
    running.sort_by_key(|d| d.left_ms());
    for d in &running {
        let does = match &d.timer {
            Timer::Respond => "say that somebody is on it",
            Timer::Escalate => "call the next level",
            Timer::Level(_) => "write down who answered",
            Timer::Communicate | Timer::Update(_) => "write the message",
        };
        options.push((d.timer.to_string(), does.to_string()));
    }
    if !options.is_empty() {
        options.push(("snooze".into(), "put one of them off, with a reason".into()));
    }
    let fields = match options.is_empty() {
        true => vec![],
        false => vec![Field::Choice { label: String::new(), options, at: 0 }],
    };
    app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Deadlines) });
}

/// What a deadline asks for.
fn answer(app: &mut App, timer: &Timer, out: &mut Vec<Effect>) {
    match timer {
        Timer::Respond => {
            out.push(Effect::Submit(Command::Acknowledge { timer: timer.to_string(), note: String::new() }, None));
        }
        Timer::Escalate => open_escalate(app),
        Timer::Level(n) => app.dialogs.push(Dialog::new(Ask::Answered(*n))),
        Timer::Communicate => {
            let audience =
                app.incident.as_ref().map(|ui| ui.rules().limits(ui.data.state.severity.as_deref()).audience.clone());
            open_tell(app, audience);
        }
        Timer::Update(audience) => open_tell(app, Some(audience.clone())),
    }
}

/// One key for "I saw it": somebody is on it, a level answered, or nobody has to be called.
fn acknowledge(app: &mut App, out: &mut Vec<Effect>) {
    let Some(ui) = &app.incident else { return };
    let all = ui.deadlines(&app.now);
    let runs =
        |t: &dyn Fn(&Timer) -> bool| all.iter().find(|d| d.left_ms().is_some() && t(&d.timer)).map(|d| d.timer.clone());
    let respond = runs(&|t| *t == Timer::Respond);
    let level = runs(&|t| matches!(t, Timer::Level(_)));
    let escalate = runs(&|t| *t == Timer::Escalate);
    match (respond, level, escalate) {
        (Some(timer), ..) => answer(app, &timer, out),
        (None, Some(timer), _) => answer(app, &timer, out),
        (None, None, Some(_)) => app.dialogs.push(Dialog::new(Ask::NoCall)),
        (None, None, None) => app.say(Tone::Info, "nothing waits to be acknowledged; p lists the deadlines".into()),
    }
}

fn open_snooze(app: &mut App, which: Option<&str>) {
    let Some(ui) = &app.incident else { return };
    let all = ui.deadlines(&app.now);
    let mut running: Vec<&Deadline> = all.iter().filter(|d| d.left_ms().is_some()).collect();
    running.sort_by_key(|d| d.left_ms());
    let options: Vec<(String, String)> =
        running.iter().map(|d| (d.timer.to_string(), format!("{}, {}", d.what(), standing(&d.standing)))).collect();
    if options.is_empty() {
        return app.say(Tone::Info, "no deadline runs".into());
    }
    let at = options.iter().position(|(name, _)| Some(name.as_str()) == which).unwrap_or(0);
    let fields = vec![
        Field::Choice { label: "Which".into(), options, at },
        Field::text("For", "10m, 1h", SNOOZE),
        Field::text("Because", "the reason is recorded", ""),
    ];
    app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Snooze) });
}

/// How a deadline stands, in words.
pub fn standing(s: &Standing) -> String {
    match s {
        Standing::Running(left) => format!("due in {}", format_clock(*left)),
        Standing::Snoozed(left) => format!("put off for {}", format_clock(*left)),
        Standing::Overdue(by) => format!("OVERDUE by {}", format_clock(*by)),
        Standing::Met(at) => format!("met at {}", at.hms()),
        Standing::Late(at) => format!("late, at {}", at.hms()),
        Standing::Missed => "missed".into(),
        Standing::Over => "no longer needed".into(),
    }
}

fn open_escalate(app: &mut App) {
    let Some(ui) = &app.incident else { return };
    let (rules, people) = (ui.rules(), &ui.data.state.people);
    let next = rules.next_level(people.level()).map(|l| l.level);
    let options: Vec<(String, String)> = rules
        .levels
        .iter()
        .map(|l| {
            let called = people.escalations.iter().rev().find(|e| e.level == l.level);
            let called = called.map(|e| format!(", called {}", e.when.at.hms())).unwrap_or_default();
            (format!("level {}", l.level), format!("{}, to answer within {}{called}", l.who, format_clock(l.within)))
        })
        .collect();
    let at = rules.levels.iter().position(|l| Some(l.level) == next).unwrap_or(0);
    let fields = vec![
        Field::Choice { label: "Call".into(), options, at },
        Field::text("Who", "the name, if it is another than the plan's", ""),
    ];
    app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Escalate) });
}

fn open_assign(app: &mut App) {
    let Some(ui) = &app.incident else { return };
    let people = &ui.data.state.people;
    let mut names: Vec<String> = ROLES.iter().map(|r| r.to_string()).collect();
    let planned = ui.data.plan.contacts.iter().filter(|c| c.section.to_lowercase().contains("role"));
    for name in planned.map(|c| role_name(&c.role)).chain(people.roles.keys().cloned()) {
        if !names.contains(&name) && names.len() < 9 {
            names.push(name);
        }
    }
    let options: Vec<(String, String)> = names
        .into_iter()
        .map(|role| {
            let about = people
                .holder(&role)
                .map_or("nobody yet".to_string(), |h| format!("{} since {}", h.person, &h.since.at.hms()[..5]));
            (role, about)
        })
        .collect();
    let at = options.iter().position(|(role, _)| people.holder(role).is_none()).unwrap_or(0);
    let at = if people.holder(COMMAND).is_none() { 0 } else { at };
    let me = app.env.actor.as_str().split('@').next().unwrap_or_default().to_string();
    let fields = vec![
        Field::Choice { label: "Role".into(), options, at },
        Field::text("Who", &format!("a name; empty for {me}"), ""),
        Field::text("Passed on", "what the next one has to know", ""),
    ];
    app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Assign) });
}

fn open_tell(app: &mut App, audience: Option<String>) {
    let Some(ui) = &app.incident else { return };
    let all = ui.deadlines(&app.now);
    let rules = ui.rules();
    // Whoever waits for longest comes first.
    let due =
        all.iter().filter(|d| matches!(d.timer, Timer::Update(_) | Timer::Communicate)).cloned().collect::<Vec<_>>();
    let first = audience.or_else(|| timers::next(&due).map(|d| d.about.clone()));
    let audiences = rules.audiences(ui.data.state.severity.as_deref());
    let options: Vec<(String, String)> = audiences
        .into_iter()
        .map(|who| {
            let waits = all.iter().find(|d| d.about == who && d.left_ms().is_some());
            let about = waits.map_or(String::new(), |d| standing(&d.standing));
            (who, about)
        })
        .collect();
    let at = options.iter().position(|(who, _)| Some(who) == first.as_ref()).unwrap_or(0);
    let who = options.get(at).map_or("", |(who, _)| who.as_str());
    let told = ui.data.state.messages.iter().any(|(to, ..)| to == who);
    let back = ui.data.state.restored.is_some();
    let kind = if back {
        "service is back"
    } else if told {
        "update"
    } else {
        "first message"
    };
    let mut messages: Vec<(String, String)> = message::templates(&ui.data.plan)
        .iter()
        .map(|t| (t.title.clone(), if t.planned { "of the plan".to_string() } else { String::new() }))
        .collect();
    messages.push((OWN_WORDS.into(), "what is written below".into()));
    let fitting = messages.iter().position(|(title, _)| title == kind).unwrap_or(0);
    let fields = vec![
        Field::Choice { label: "To".into(), options, at },
        Field::Choice { label: "Message".into(), options: messages, at: fitting },
        Field::text("Own words", "one line; with this chosen above", ""),
    ];
    app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Tell) });
}

fn open_send(app: &mut App, audience: String, text: String) {
    let fields = vec![Field::choice(
        "",
        &[
            (COPY, "to the clipboard and a file, to be sent by hand"),
            (SEND, "hand it to the configured command"),
            (SAID, "they were told in another way; only write it down"),
        ],
        0,
    )];
    app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Send { audience, text }) });
}

fn open_rotated(app: &mut App) {
    let Some(ui) = &app.incident else { return };
    let table = crate::plan::secrets::table(&ui.data.plan);
    let changed = &ui.data.state.people.rotated;
    let options: Vec<(String, String)> = table
        .iter()
        .map(|s| {
            let about = changed.get(&s.name).map_or_else(|| s.impact.clone(), |at| format!("changed at {}", at.hms()));
            (s.name.clone(), about)
        })
        .collect();
    let at = table.iter().position(|s| !changed.contains_key(&s.name)).unwrap_or(0);
    let mut fields = vec![];
    if !options.is_empty() {
        fields.push(Field::Choice { label: "Secret".into(), options, at });
    } else {
        fields.push(Field::text("Secret", "its name, never its value", ""));
    }
    fields.push(Field::text("When", "now; or 14:03, -10m", ""));
    app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Rotated) });
}

/// The list for afterwards. `closing`: its last line goes on to the question about closing.
fn open_afterwards(app: &mut App, closing: bool) {
    let Some(ui) = &app.incident else { return };
    let items = ui.afterwards();
    if items.is_empty() {
        return app.say(Tone::Info, "the plan has no list for afterwards".into());
    }
    let fields = vec![Field::Choice { label: String::new(), options: boxes(ui, &items, closing), at: 0 }];
    app.dialogs.push(Dialog { fields, ..Dialog::new(Ask::Afterwards { items, closing }) });
}

fn boxes(ui: &IncidentUi, items: &[String], closing: bool) -> Vec<(String, String)> {
    let ticked = |item: &String| ui.data.state.people.afterwards.contains_key(item);
    let mut options: Vec<(String, String)> = Vec::new();
    if closing {
        let open = items.iter().filter(|i| !ticked(i)).count();
        let about = match open {
            0 => "everything is ticked".to_string(),
            n => format!("go on; {n} of them can still be ticked later (X)"),
        };
        options.push((CLOSE.into(), about));
    }
    options.extend(items.iter().map(|i| (if ticked(i) { "[x]" } else { "[ ]" }.to_string(), i.clone())));
    options
}

/// Closing begins with what is left to do; a drill, and a list that is done, go on to the question itself.
pub(super) fn close(app: &mut App) {
    let open = app.incident.as_ref().is_some_and(|ui| {
        ui.data.state.kind == Kind::Real
            && ui.afterwards().iter().any(|i| !ui.data.state.people.afterwards.contains_key(i))
    });
    match open {
        true => open_afterwards(app, true),
        false => app.dialogs.push(Dialog::new(Ask::Close)),
    }
}

/// The journal moved on: a list that is open shows it.
pub(super) fn refresh(app: &mut App) {
    let Some(ui) = &app.incident else { return };
    for dialog in &mut app.dialogs {
        if let Ask::Afterwards { items, closing } = &dialog.ask
            && let Some(Field::Choice { options, .. }) = dialog.fields.first_mut()
        {
            *options = boxes(ui, items, *closing);
        }
    }
}

/// What an accepted dialog of this side does. `None` when it is of another side; else whether it is left.
pub(super) fn accept(app: &mut App, dialog: &Dialog, out: &mut Vec<Effect>) -> Option<Result<bool, String>> {
    Some(accepted(app, dialog, out)?.inspect(|leave| {
        if *leave {
            // What was opened by it lies over it.
            app.dialogs.retain(|d| d != dialog);
        }
    }))
}

fn accepted(app: &mut App, dialog: &Dialog, out: &mut Vec<Effect>) -> Option<Result<bool, String>> {
    let say = |field: usize, what: &str| -> Result<String, String> {
        let text = dialog.value(field);
        if text.is_empty() { Err(format!("{what} is needed; a few words will do")) } else { Ok(text.to_string()) }
    };
    let mut submit = |c: Command| out.push(Effect::Submit(c, None));
    match &dialog.ask {
        Ask::Deadlines => match dialog.value(0) {
            "snooze" => open_snooze(app, None),
            name => {
                if let Ok(timer) = name.parse::<Timer>() {
                    answer(app, &timer, out);
                }
            }
        },
        Ask::Snooze => {
            let length = match parse_duration(dialog.value(1)) {
                Ok(d) => u64::try_from(d.as_millis()).unwrap_or(u64::MAX),
                Err(e) => return Some(Err(e)),
            };
            match say(2, "the reason") {
                Ok(reason) => submit(Command::Snooze { timer: dialog.value(0).to_string(), for_ms: length, reason }),
                Err(e) => return Some(Err(e)),
            }
        }
        Ask::Escalate => {
            let level = dialog.value(0).trim_start_matches("level ").parse::<u32>().unwrap_or(0);
            let found = app.incident.as_ref().and_then(|ui| ui.rules().levels.into_iter().find(|l| l.level == level));
            let Some(found) = found else { return Some(Err("that level is not in the plan".into())) };
            let who = if dialog.value(1).is_empty() { found.who } else { dialog.value(1).to_string() };
            let within_ms = u64::try_from(found.within.as_millis()).unwrap_or(u64::MAX);
            submit(Command::Escalate { level, who, within_ms });
        }
        Ask::Answered(level) => match say(0, "who answered") {
            Ok(by) => submit(Command::Answer { level: *level, by }),
            Err(e) => return Some(Err(e)),
        },
        Ask::NoCall => match say(0, "the reason") {
            Ok(note) => submit(Command::Acknowledge { timer: Timer::Escalate.to_string(), note }),
            Err(e) => return Some(Err(e)),
        },
        Ask::Assign => {
            let me = app.env.actor.as_str().split('@').next().unwrap_or_default().to_string();
            let person = if dialog.value(1).is_empty() { me } else { dialog.value(1).to_string() };
            let (role, note) = (dialog.value(0).to_string(), dialog.value(2).to_string());
            submit(Command::Assign { role, person, note });
        }
        Ask::Tell => {
            let audience = dialog.value(0).to_string();
            let own = dialog.value(2).to_string();
            let chosen = dialog.value(1).to_string();
            let found = app.incident.as_ref().and_then(|ui| {
                message::templates(&ui.data.plan).into_iter().find(|t: &Template| t.title == chosen).map(|t| t.text)
            });
            let text = match found {
                // Words that were written are meant, whatever is chosen above them.
                _ if !own.is_empty() => own,
                Some(text) => text,
                None => return Some(Err("write the message below, or choose one of the list".into())),
            };
            open_send(app, audience, text);
        }
        Ask::Send { audience, text } => return Some(send(app, dialog.value(0), audience, text, out).map(|()| true)),
        Ask::Codename => match say(0, "a name") {
            Ok(codename) => submit(Command::SetCodename { codename }),
            Err(e) => return Some(Err(e)),
        },
        Ask::LocalOnly(on) => match say(0, "the reason") {
            Ok(reason) => submit(Command::SetLocalOnly { on: *on, reason }),
            Err(e) => return Some(Err(e)),
        },
        Ask::Rotated => {
            let secret = match say(0, "the name of the secret") {
                Ok(name) => name,
                Err(e) => return Some(Err(e)),
            };
            match parse_when(dialog.value(1), app.now.time) {
                Ok(at) if app.screen() == Screen::Home => out.push(Effect::RecordRotation(secret, at)),
                Ok(at) => submit(Command::Rotate { secret, at }),
                Err(e) => return Some(Err(e)),
            }
        }
        Ask::Afterwards { items, closing } => {
            let at = match dialog.fields.first() {
                Some(Field::Choice { at, .. }) => *at,
                _ => 0,
            };
            match at.checked_sub(usize::from(*closing)).and_then(|i| items.get(i)) {
                Some(item) => {
                    let ticked =
                        app.incident.as_ref().is_some_and(|ui| ui.data.state.people.afterwards.contains_key(item));
                    submit(Command::TickAfterwards { item: item.clone(), done: !ticked });
                    if let Some(Field::Choice { at, options, .. }) =
                        app.dialogs.last_mut().and_then(|d| d.fields.first_mut())
                    {
                        *at = (*at + usize::from(!ticked)).min(options.len() - 1);
                    }
                    return Some(Ok(false));
                }
                None if *closing => app.dialogs.push(Dialog::new(Ask::Close)),
                None => {}
            }
        }
        _ => return None,
    }
    Some(Ok(true))
}

fn send(app: &mut App, how: &str, audience: &str, text: &str, out: &mut Vec<Effect>) -> Result<(), String> {
    let Some(ui) = &app.incident else { return Ok(()) };
    let (filled, left) = ui.message(audience, text, &app.now);
    let state = &ui.data.state;
    let tell = |how: &str| {
        let (audience, text) = (audience.to_string(), filled.clone());
        Effect::Submit(Command::Tell { audience, text, how: Some(how.into()) }, None)
    };
    match how {
        SEND if state.kind == Kind::Drill => {
            return Err("a drill sends nothing to anybody: copy it, or write down that they were told".into());
        }
        SEND if state.people.local_only => {
            return Err("this incident is local only: copy the message and carry it by hand".into());
        }
        SEND if !app.env.notify => {
            return Err("no command is configured: set command in [notify] of breakglass.toml, or copy it".into());
        }
        SEND if !left.is_empty() => {
            return Err(format!(
                "still blank: {}; T fills in blanks, or copy it and fill them in by hand",
                left.join(" ")
            ));
        }
        SEND => {
            let request = RunRequest {
                step: None,
                block_line: None,
                action: "notify".into(),
                shown: filled.clone(),
                args: vec!["--audience".into(), audience.to_string()],
                risk: Risk::Change,
                confirmed: None,
            };
            app.busy = Some(super::STARTING.into());
            out.push(Effect::Run(Box::new(request), Some(filled)));
        }
        COPY => {
            out.push(Effect::Copy(filled.clone(), "message"));
            out.push(Effect::KeepMessage(audience.to_string(), filled.clone()));
            out.push(tell("copied"));
        }
        _ => out.push(tell("said")),
    }
    Ok(())
}

/// A deadline in few words, for the header.
pub fn short(d: &Deadline) -> String {
    match &d.standing {
        Standing::Running(left) => format!("{} in {}", d.what(), format_clock(*left)),
        Standing::Snoozed(left) => format!("{} put off, {}", d.what(), format_clock(*left)),
        Standing::Overdue(by) => format!("{} OVERDUE by {}", d.what(), format_clock(*by)),
        other => format!("{} {}", d.what(), standing(other)),
    }
}
