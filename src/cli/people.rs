//! The people's side of `breakglass incident …`: deadlines, calls, roles, messages, code name, secrets, afterwards.

use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::{Invocation, print};
use crate::action::blanks::variable_of;
use crate::action::{message, named};
use crate::app::update::people::standing;
use crate::app::when::parse_when;
use crate::config::Secrets;
use crate::drill::session::settings_for;
use crate::error::{Error, Result};
use crate::incident::rules::{Rules, afterwards};
use crate::incident::{Command as Wish, RunRequest, RunStatus, deadlines};
use crate::model::event::{Kind, Outcome};
use crate::model::plan::Risk;
use crate::model::{Time, format_clock, parse_duration};
use crate::plan::placeholders;
use crate::process::detach::own_executable;
use crate::runtime::{Incident, Job, Store, policy, start_run};

/// How long a message command is waited for.
const PATIENCE: Duration = Duration::from_secs(75);

/// The subcommands.
pub(super) fn commands() -> Vec<Command> {
    let which = || {
        Arg::new("incident").long("incident").value_name("INCIDENT").help("Which; the newest open one when not given")
    };
    let word = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).value_name(value).required(true).help(help)
    };
    let long = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    vec![
        Command::new("timers")
            .about("Every deadline: respond, escalate, answers, updates; exit 1 when one is overdue")
            .arg(which()),
        Command::new("declare")
            .about("Set the severity")
            .arg(word("severity", "P0|P1|P2|P3", "How grave"))
            .arg(which()),
        Command::new("impact")
            .about("Say, or correct, when users were first affected; deadlines and the RTO clock follow")
            .arg(word("when", "WHEN", "14:03 (UTC), 10m ago, 2026-11-20T14:03:00Z").allow_hyphen_values(true))
            .arg(long("source", "TEXT", "How that is known").default_value("said by the responder"))
            .arg(which()),
        Command::new("ack")
            .about("Say that somebody is on it, or that nobody has to be called")
            .arg(word("timer", "respond|escalate", "Which deadline"))
            .arg(long("note", "TEXT", "In words; needed for escalate"))
            .arg(which()),
        Command::new("snooze")
            .about("Put a deadline off")
            .arg(word("timer", "TIMER", "As `incident timers` names it"))
            .arg(long("for", "DURATION", "For how long, such as 10m").required(true))
            .arg(long("reason", "TEXT", "Why").required(true))
            .arg(which()),
        Command::new("escalate")
            .about("Write down that a level was called; its time to answer runs from now")
            .arg(long("level", "N", "Which; the next one when not given").value_parser(value_parser!(u32)))
            .arg(long("who", "NAME", "Who, if another than the plan's"))
            .arg(which()),
        Command::new("answered")
            .about("Write down who of a level answered")
            .arg(word("level", "N", "Level").value_parser(value_parser!(u32)))
            .arg(word("by", "NAME", "Who"))
            .arg(which()),
        Command::new("assign")
            .about("Give a role to somebody, or hand it over")
            .arg(word("role", "ROLE", "incident commander, operations, communications, scribe, or one of the plan's"))
            .arg(word("person", "NAME", "Who has it from now on"))
            .arg(long("note", "TEXT", "What is passed on in words"))
            .arg(which()),
        Command::new("tell")
            .about("Fill in a message, print it and record it")
            .arg(word("audience", "WHO", "team, customers, …"))
            .arg(
                long("template", "TITLE", "One of the plan's or ours; `--template list` lists them")
                    .default_value("update"),
            )
            .arg(long("text", "TEXT", "These words instead of a template").conflicts_with("template"))
            .arg(
                Arg::new("fill")
                    .long("fill")
                    .value_name("BLANK=VALUE")
                    .action(ArgAction::Append)
                    .help("Fill in a blank that is left, such as \"Date=Monday\"; kept for the next message"),
            )
            .arg(
                Arg::new("send")
                    .long("send")
                    .action(ArgAction::SetTrue)
                    .help("Hand it to the command of [notify], by a worker"),
            )
            .arg(
                Arg::new("show")
                    .long("show")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("send")
                    .help("Only print it; record nothing"),
            )
            .arg(which()),
        Command::new("codename")
            .about("Speak of it under another name")
            .arg(word("name", "NAME", "Says nothing").required(false).required_unless_present("lift"))
            .arg(
                Arg::new("lift")
                    .long("lift")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("name")
                    .help("Speak of it by its title again; also once it is closed"),
            )
            .arg(which()),
        Command::new("local-only")
            .about("Let nothing leave this machine by our doing, or let it again")
            .arg(word("state", "on|off", "Nothing may, or it may").value_parser(["on", "off"]))
            .arg(long("reason", "TEXT", "Why").required(true))
            .arg(which()),
        Command::new("rotated")
            .about("Write down that a secret was changed in the course of it")
            .arg(word("secret", "NAME", "Its name, as the plan's table has it"))
            .arg(long("at", "WHEN", "When; now when not given").allow_hyphen_values(true))
            .arg(which()),
        Command::new("afterwards")
            .about("List what is to be done once it is over, or tick one")
            .arg(Arg::new("number").value_name("N").value_parser(value_parser!(usize)).help("Tick this one"))
            .arg(Arg::new("undo").long("undo").action(ArgAction::SetTrue).help("Untick it"))
            .arg(which()),
    ]
}

/// Runs one of them; `None` when it is not ours.
pub(super) fn run(invocation: &Invocation, store: &Store, name: &str, m: &ArgMatches) -> Option<Result<u8>> {
    let text = |name: &str| m.get_one::<String>(name).cloned().unwrap_or_default();
    let submit = |wish: Wish| super::incident::submit(invocation, store, m, wish, None);
    let when = |text: &str| parse_when(text, Time::from_system(std::time::SystemTime::now())).map_err(Error::usage);
    Some(match name {
        "timers" => timers(invocation, store, m),
        "declare" => submit(Wish::Declare { severity: text("severity") }),
        "impact" => when(&text("when")).and_then(|at| submit(Wish::SetImpact { at, source: text("source") })),
        "ack" => submit(Wish::Acknowledge { timer: text("timer"), note: text("note") }),
        "snooze" => parse_duration(&text("for")).map_err(Error::usage).and_then(|d| {
            let for_ms = u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
            submit(Wish::Snooze { timer: text("timer"), for_ms, reason: text("reason") })
        }),
        "escalate" => escalate(invocation, store, m),
        "answered" => submit(Wish::Answer { level: m.get_one::<u32>("level").copied().unwrap_or(0), by: text("by") }),
        "assign" => submit(Wish::Assign { role: text("role"), person: text("person"), note: text("note") }),
        "tell" => tell(invocation, store, m),
        "codename" if m.get_flag("lift") => submit(Wish::LiftCodename),
        "codename" => submit(Wish::SetCodename { codename: text("name") }),
        "local-only" => submit(Wish::SetLocalOnly { on: text("state") == "on", reason: text("reason") }),
        "rotated" => when(&text("at")).and_then(|at| submit(Wish::Rotate { secret: text("secret"), at })),
        "afterwards" => after(invocation, store, m),
        _ => return None,
    })
}

fn open(invocation: &Invocation, store: &Store, m: &ArgMatches) -> Result<Incident> {
    let id = store.find(m.get_one::<String>("incident").map(String::as_str))?;
    store.incident(&id, policy(&invocation.config.settings))
}

fn rules(incident: &Incident) -> Rules {
    Rules::of(incident.plan(), incident.scenario())
}

fn timers(invocation: &Invocation, store: &Store, m: &ArgMatches) -> Result<u8> {
    let incident = open(invocation, store, m)?;
    let all = deadlines(incident.state()?, &rules(&incident), &incident.now());
    let overdue = all.iter().any(crate::incident::Deadline::overdue);
    if invocation.json {
        let rows: Vec<_> = all
            .iter()
            .map(|d| {
                json!({
                    "timer": d.timer.to_string(), "what": d.what(), "since": d.since, "due": d.due,
                    "period_ms": d.period.as_millis() as u64, "standing": word(&d.standing), "left_ms": d.left_ms(),
                })
            })
            .collect();
        print(&format!("{:#}", json!({"incident": incident.id(), "overdue": overdue, "timers": rows})))?;
    } else {
        for d in &all {
            print(&format!(
                "{:<20} {:<9} {:<40} {}",
                d.timer.to_string(),
                d.due.hms(),
                d.what(),
                standing(&d.standing)
            ))?;
        }
    }
    Ok(u8::from(overdue))
}

/// How a deadline stands, as one word.
fn word(s: &crate::incident::Standing) -> &'static str {
    use crate::incident::Standing::{Late, Met, Missed, Over, Overdue, Running, Snoozed};
    match s {
        Running(_) => "running",
        Snoozed(_) => "snoozed",
        Overdue(_) => "overdue",
        Met(_) => "met",
        Late(_) => "late",
        Missed => "missed",
        Over => "over",
    }
}

fn escalate(invocation: &Invocation, store: &Store, m: &ArgMatches) -> Result<u8> {
    let incident = open(invocation, store, m)?;
    let rules = rules(&incident);
    let level = match m.get_one::<u32>("level") {
        Some(n) => rules.levels.iter().find(|l| l.level == *n),
        None => rules.next_level(incident.state()?.people.level()),
    };
    let Some(level) = level else {
        let known: Vec<String> = rules.levels.iter().map(|l| format!("{} ({})", l.level, l.who)).collect();
        return Err(Error::usage("the plan has no such level").hint(format!("levels: {}", known.join(", "))));
    };
    let who = m.get_one::<String>("who").cloned().unwrap_or_else(|| level.who.clone());
    let within_ms = u64::try_from(level.within.as_millis()).unwrap_or(u64::MAX);
    if !invocation.json {
        print(&format!("call level {}: {who}; an answer is due within {}", level.level, format_clock(level.within)))?;
    }
    super::incident::submit(invocation, store, m, Wish::Escalate { level: level.level, who, within_ms }, None)
}

fn tell(invocation: &Invocation, store: &Store, m: &ArgMatches) -> Result<u8> {
    let mut incident = open(invocation, store, m)?;
    let audience = m.get_one::<String>("audience").cloned().unwrap_or_default();
    let mut fills: Vec<(String, String)> = Vec::new();
    let all = message::templates(incident.plan());
    let title = m.get_one::<String>("template").cloned().unwrap_or_default();
    let text = match m.get_one::<String>("text") {
        Some(text) => text.clone(),
        None if title == "list" => {
            return all.iter().try_for_each(|t| print(&t.title)).map(|()| 0);
        }
        None => match all.iter().find(|t| t.title.eq_ignore_ascii_case(&title)) {
            Some(t) => t.text.clone(),
            None => {
                let titles: Vec<&str> = all.iter().map(|t| t.title.as_str()).collect();
                return Err(Error::usage(format!("there is no message {title:?}")).hint(titles.join(", ")));
            }
        },
    };
    for said in m.get_many::<String>("fill").into_iter().flatten() {
        let (blank, value) = said
            .split_once('=')
            .ok_or_else(|| Error::usage(format!("{said:?} fills in nothing")).hint("--fill \"Date=Monday\""))?;
        let named = named::meant(blank, incident.plan(), incident.scenario());
        if !placeholders::in_message(&text).iter().any(|b| variable_of(b) == named.variable) {
            let blanks = placeholders::in_message(&text).join(" ");
            return Err(Error::usage(format!("the message has no blank {blank:?}")).hint(format!("it has {blanks}")));
        }
        fills.push((named.variable, value.trim().to_string()));
    }
    if !m.get_flag("show") {
        for (name, value) in &fills {
            incident.submit(Wish::SetVariable { name: name.clone(), value: value.clone() }).map_err(Error::from)?;
        }
    }
    let mut state = incident.state()?.clone();
    state.vars.extend(fills);
    let state = &state;
    let known = message::known(state, incident.scenario(), &rules(&incident), &audience, &incident.now());
    let (filled, left) = message::fill(&text, state, &known);
    if m.get_flag("show") {
        return print(&filled).map(|()| 0);
    }
    if !m.get_flag("send") {
        print(&filled)?;
        if !left.is_empty() {
            eprintln!("still blank: {}", left.join(" "));
        }
        let wish = Wish::Tell { audience, text: filled, how: Some("copied".into()), step: None };
        incident.submit(wish).map_err(Error::from)?;
        return Ok(0);
    }
    if !left.is_empty() {
        return Err(Error::usage(format!("still blank: {}", left.join(" ")))
            .hint("fill them in with --fill \"BLANK=VALUE\", or say it with --text"));
    }
    if state.kind == Kind::Drill {
        return Err(Error::refused("a drill sends nothing to anybody").hint("leave out --send"));
    }
    let (settings, secrets): (_, Secrets) = settings_for(state, &invocation.config)?;
    if settings.notify.is_empty() {
        return Err(Error::config("no command is configured that takes messages")
            .hint("set command in the section [notify] of breakglass.toml, or leave out --send"));
    }
    let request = RunRequest {
        step: None,
        block_line: None,
        action: "notify".into(),
        shown: filled.clone(),
        args: vec!["--audience".into(), audience],
        risk: Risk::Change,
        confirmed: None,
    };
    let job = Job { settings, code: Some(filled), output_limit: None };
    let (run, started) = start_run(&mut incident, request, &job, &secrets, &own_executable()?)?;
    started?;
    let until = Instant::now() + PATIENCE;
    loop {
        incident.refresh()?;
        let found = incident.state()?.runs.get(&run).cloned();
        match found.map(|r| (r.status, r.summary)) {
            Some((RunStatus::Finished(Outcome::Succeeded), summary)) => return print(&summary).map(|()| 0),
            Some((RunStatus::Finished(_) | RunStatus::Withdrawn, summary)) => return Err(Error::target(summary)),
            _ if Instant::now() > until => {
                return Err(
                    Error::target(format!("run {run} has not ended yet")).hint("`incident show` says how it stands")
                );
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn after(invocation: &Invocation, store: &Store, m: &ArgMatches) -> Result<u8> {
    let incident = open(invocation, store, m)?;
    let items = afterwards(incident.plan(), incident.scenario());
    if let Some(n) = m.get_one::<usize>("number") {
        let item = n.checked_sub(1).and_then(|i| items.get(i)).cloned();
        let item = item.ok_or_else(|| Error::usage(format!("there is no item {n}; there are {}", items.len())))?;
        let wish = Wish::TickAfterwards { item, done: !m.get_flag("undo") };
        return super::incident::submit(invocation, store, m, wish, None);
    }
    let ticked = &incident.state()?.people.afterwards;
    if invocation.json {
        let rows: Vec<_> = items.iter().map(|i| json!({"item": i, "done": ticked.contains_key(i)})).collect();
        return print(&format!("{:#}", json!({"incident": incident.id(), "afterwards": rows}))).map(|()| 0);
    }
    for (n, item) in items.iter().enumerate() {
        let mark = if ticked.contains_key(item) { "x" } else { " " };
        print(&format!("{:>2} [{mark}] {item}", n + 1))?;
    }
    Ok(0)
}
