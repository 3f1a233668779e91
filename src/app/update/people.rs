//! The people's side on the screen: deadlines, calls, roles, messages, what is left for afterwards.

use super::super::command::Cmd;
use super::super::dialog::{Ask, Dialog, Field};
use super::super::when::parse_when;
use super::super::{App, Effect, IncidentUi, Screen, Tone};
use super::tell;
use crate::incident::people::{COMMAND, ROLES, role_name};
use crate::incident::rules::Rules;
use crate::incident::{Command, Deadline, Standing, Timer, deadlines};
use crate::model::event::Kind;
use crate::model::{Time, format_clock, parse_duration};

/// The word of a choice.
const CLOSE: &str = "close";
/// The words of the choice about a code name.
const LIFT: &str = "lift it";
const RENAME: &str = "another one";
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
}

/// Does a command of this side; says whether it was one.
pub(super) fn command(app: &mut App, cmd: Cmd, out: &mut Vec<Effect>) -> bool {
    match cmd {
        Cmd::Deadlines => open_deadlines(app),
        Cmd::Ack => acknowledge(app, out),
        Cmd::Snooze => open_snooze(app, None),
        Cmd::Escalate => open_escalate(app),
        Cmd::Assign => open_assign(app),
        Cmd::Tell => tell::open(app, None),
        Cmd::Codename => {
            let state = app.incident.as_ref().map(|ui| &ui.data.state);
            let now = state.and_then(|s| s.people.codename.clone());
            let name = || Field::text("Code name", "says nothing of what happened", "");
            let lift = || Field::choice("", &[(LIFT, "its title is said again"), (RENAME, "the name below")], 0);
            let (ask, fields) = match now {
                None => (Ask::Codename, vec![name()]),
                // Once it is closed the name can only end.
                Some(now) if state.is_some_and(|s| s.closed.is_some()) => (Ask::LiftCodename(now), vec![]),
                Some(now) => (Ask::LiftCodename(now), vec![lift(), name()]),
            };
            app.dialogs.push(Dialog { fields, ..Dialog::new(ask) });
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
            tell::open(app, audience);
        }
        Timer::Update(audience) => tell::open(app, Some(audience.clone())),
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
    let options: Vec<(String, String)> = running.iter().map(|d| (d.timer.to_string(), put_off(d))).collect();
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

fn put_off(d: &Deadline) -> String {
    format!("{}, {}", d.what(), standing(&d.standing))
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
    let about = |i: &String| match until(ui, i).filter(|_| !ticked(i)) {
        Some(date) => format!("{i} (until {date})"),
        None => i.clone(),
    };
    options.extend(items.iter().map(|i| (if ticked(i) { "[x]" } else { "[ ]" }.to_string(), about(i))));
    options
}

/// The date an item for afterwards waits for: "for 72 hours" counts from when service was back.
fn until(ui: &IncidentUi, item: &str) -> Option<String> {
    let lower = item.to_lowercase();
    let (_, rest) = lower.split_once(" for ")?;
    let mut words = rest.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    let (number, unit) = (words.next()?, words.next()?);
    let span = number.parse::<u32>().ok().and_then(|n| parse_duration(&format!("{n} {unit}")).ok())?;
    let due = ui.data.state.restored.as_ref()?.at.plus(span).date_hms();
    Some(format!("{} UTC", due.get(..16)?))
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

/// The journal or the clock moved on: what is open shows it.
pub(super) fn refresh(app: &mut App) {
    let Some(ui) = &app.incident else { return };
    for dialog in &mut app.dialogs {
        tell::refresh(ui, dialog, &app.now);
        match (&dialog.ask, dialog.fields.first_mut()) {
            (Ask::Afterwards { items, closing }, Some(Field::Choice { options, .. })) => {
                *options = boxes(ui, items, *closing);
            }
            (Ask::Snooze, Some(Field::Choice { options, .. })) => {
                let all = ui.deadlines(&app.now);
                for (name, about) in options {
                    if let Some(d) = all.iter().find(|d| d.timer.to_string() == *name) {
                        *about = put_off(d);
                    }
                }
            }
            _ => {}
        }
    }
}

/// What an accepted dialog of this side does. `None` when it is of another side; else whether it is left.
pub(super) fn accept(app: &mut App, dialog: &Dialog, out: &mut Vec<Effect>) -> Option<Result<bool, String>> {
    let done = tell::accept(app, dialog, out).or_else(|| accepted(app, dialog, out));
    Some(done?.inspect(|leave| {
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
        Ask::Codename => match say(0, "a name") {
            Ok(codename) => submit(Command::SetCodename { codename }),
            Err(e) => return Some(Err(e)),
        },
        Ask::LiftCodename(_) if dialog.value(0) == RENAME || !dialog.value(1).is_empty() => match say(1, "a name") {
            Ok(codename) => submit(Command::SetCodename { codename }),
            Err(e) => return Some(Err(e)),
        },
        Ask::LiftCodename(_) => submit(Command::LiftCodename),
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

/// When a deadline is due, to the minute; with its day when that is another one.
fn due(d: &Deadline, now: Time) -> String {
    let (at, today) = (d.due.date_hms(), now.date_hms());
    if at[..10] == today[..10] { at[11..16].to_string() } else { at[5..16].to_string() }
}

/// A deadline in few words, for the header: `next update to team due 15:04 (in 3:12)`.
pub fn short(d: &Deadline, now: Time) -> String {
    let (what, due) = (d.what(), due(d, now));
    match &d.standing {
        Standing::Running(left) => format!("{what} due {due} (in {})", format_clock(*left)),
        Standing::Snoozed(left) => format!("{what} put off, due in {}", format_clock(*left)),
        Standing::Overdue(by) => format!("{what} was due {due}, OVERDUE by {}", format_clock(*by)),
        other => format!("{what} {}", standing(other)),
    }
}

/// The same where there is little room.
pub fn shorter(d: &Deadline) -> String {
    let what = match &d.timer {
        Timer::Level(n) => format!("answer of level {n}"),
        _ => d.what(),
    };
    format!("{what} {}", standing(&d.standing))
}
