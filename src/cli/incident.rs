//! `breakglass incident list|show|note|close`.

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Invocation, print};
use crate::drill::{leftovers, scratch};
use crate::error::{Error, Result};
use crate::incident::{Command as Wish, RunStatus, State};
use crate::model::event::{Kind, Outcome};
use crate::model::{IncidentId, StepId, Time, format_clock};
use crate::runtime::{Store, policy};

/// The definition.
pub fn command() -> Command {
    let id =
        || Arg::new("incident").value_name("INCIDENT").help("Its id, the beginning of it or its last four characters");
    Command::new("incident")
        .about("List, show, annotate and close incidents; deadlines, calls, roles, messages")
        .subcommand_required(true)
        .subcommands(super::people::commands())
        .subcommand(Command::new("list").about("All incidents, newest first"))
        .subcommand(Command::new("show").about("One incident as it stands").arg(id()))
        .subcommand(
            Command::new("note")
                .about("Add a note")
                .arg(Arg::new("text").value_name("TEXT").required(true).help("What happened"))
                .arg(
                    Arg::new("incident")
                        .long("incident")
                        .value_name("INCIDENT")
                        .help("Which; the newest open one when not given"),
                )
                .arg(
                    Arg::new("at")
                        .long("at")
                        .value_name("TIME")
                        .help("When it happened, with a zone: 2026-11-20T14:01:07Z"),
                ),
        )
        .subcommand(
            Command::new("close")
                .about("Close an incident")
                .arg(id())
                .arg(
                    Arg::new("summary")
                        .long("summary")
                        .value_name("TEXT")
                        .required(true)
                        .help("How it ended, in one sentence"),
                )
                .arg(
                    Arg::new("force")
                        .long("force")
                        .action(ArgAction::SetTrue)
                        .help("Although service is not marked as restored"),
                ),
        )
}

/// Runs it.
pub fn run(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let store = Store::open(&invocation.config)?;
    match matches.subcommand() {
        Some(("list", _)) => list(invocation, &store),
        Some(("show", m)) => {
            let id = store.find(m.get_one::<String>("incident").map(String::as_str))?;
            let titles = titles(&store, &id);
            show(invocation, &*store.state(&id)?, &titles)
        }
        Some(("note", m)) => {
            let at = match m.get_one::<String>("at") {
                Some(text) => Some(Time::parse(text).map_err(Error::usage)?),
                None => None,
            };
            let text = m.get_one::<String>("text").cloned().unwrap_or_default();
            submit(invocation, &store, m, Wish::Note { text }, at)
        }
        Some(("close", m)) => {
            let summary = m.get_one::<String>("summary").cloned().unwrap_or_default();
            // Once it is closed it is no longer the newest open one.
            let id = store.find(m.get_one::<String>("incident").map(String::as_str))?;
            let code = submit(invocation, &store, m, Wish::Close { summary, force: m.get_flag("force") }, None)?;
            clear_away(&store, &id)?;
            Ok(code)
        }
        Some((name, m)) => super::people::run(invocation, &store, name, m)
            .unwrap_or_else(|| Err(Error::usage(format!("there is no incident {name}")))),
        None => Err(Error::usage("incident needs a subcommand").hint("list, show, note, close, timers, …")),
    }
}

/// The sandbox of a drill that was closed: nobody will come back to it.
fn clear_away(store: &Store, id: &IncidentId) -> Result<()> {
    let state = store.state(id)?;
    let Some(sandbox) = state.facts.drill.as_ref().map(|d| d.0.as_str()).filter(|dir| Path::new(dir).is_dir()) else {
        return Ok(());
    };
    if scratch::read_facts(Path::new(sandbox)).is_ok_and(|facts| facts.keep) {
        eprintln!("the drill was closed without a judgement (the console judges); its sandbox {sandbox} is kept");
        return Ok(());
    }
    leftovers::remove(Path::new(sandbox))?;
    // On the other stream: a document may be on the first.
    eprintln!("the drill was closed without a judgement (the console judges); its sandbox {sandbox} is removed");
    Ok(())
}

pub(super) fn submit(
    invocation: &Invocation,
    store: &Store,
    m: &ArgMatches,
    wish: Wish,
    at: Option<Time>,
) -> Result<u8> {
    let id = store.find(m.get_one::<String>("incident").map(String::as_str))?;
    let mut incident = store.incident(&id, policy(&invocation.config.settings))?;
    let submitted = incident.submit_at(wish, at).map_err(Error::from)?;
    if invocation.json {
        print(&format!("{:#}", serde_json::json!({"incident": id, "seq": submitted.seq})))?;
    } else {
        print(&format!("{id}: recorded as record {}", submitted.seq))?;
    }
    Ok(0)
}

fn list(invocation: &Invocation, store: &Store) -> Result<u8> {
    let entries = store.list()?;
    if invocation.json {
        let all: Vec<_> = entries
            .iter()
            .map(|e| match &e.state {
                Ok(s) => summary(s),
                Err(error) => serde_json::json!({"id": e.id, "error": error.to_string()}),
            })
            .collect();
        print(&format!("{:#}", serde_json::json!({"incidents": all})))?;
        return Ok(0);
    }
    if entries.is_empty() {
        return print("no incidents").map(|()| 0);
    }
    for e in &entries {
        match &e.state {
            Ok(s) => print(&format!("{:<44} {:<5} {:<9} {}", s.id.as_str(), kind(s), word(s), s.title))?,
            Err(error) => print(&format!("{:<44} unreadable: {}", e.id.as_str(), error.what))?,
        }
    }
    Ok(0)
}

/// The steps of its plan, in the plan's order: id and title. Empty when the plan cannot be read.
fn titles(store: &Store, id: &IncidentId) -> Vec<(StepId, String)> {
    let incident = store.incident(id, Default::default());
    incident.map_or_else(|_| vec![], |i| i.scenario().steps.iter().map(|s| (s.id.clone(), s.title.clone())).collect())
}

fn show(invocation: &Invocation, s: &State, titles: &[(StepId, String)]) -> Result<u8> {
    if invocation.json {
        return print(&format!("{:#}", summary(s))).map(|()| 0);
    }
    let mut out = vec![format!("{}  {}  {}", s.id, kind(s), word(s)), s.title.clone()];
    if let Some(target) = &s.target {
        out.push(format!("target    {target}"));
    }
    if let Some(i) = &s.impact {
        out.push(format!("impact    {} ({})", i.at, i.source));
    }
    if let Some(r) = &s.restored {
        out.push(format!("restored  {} ({})", r.at, r.how));
    }
    for (role, held) in &s.people.roles {
        if let Some(now) = held.last() {
            out.push(format!("{role:<9} {}", now.person));
        }
    }
    for (n, (id, title)) in titles.iter().enumerate() {
        let step = s.step(id);
        let took = step.took().map(format_clock).unwrap_or_default();
        let word = format!("{:?}", step.status).to_lowercase();
        out.push(format!("step {:<4} {word:<8} {took:>8}  {title}", n + 1));
    }
    for (id, step) in s.steps.iter().filter(|(id, _)| !titles.iter().any(|(t, _)| t == *id)) {
        let took = step.took().map(format_clock).unwrap_or_default();
        out.push(format!("step {id:<4} {:<8} {took:>8}", format!("{:?}", step.status).to_lowercase()));
    }
    for run in s.runs.values() {
        out.push(format!(
            "run {:<5} {:<10} {}",
            run.id.0,
            run_word(run.status),
            run.shown.lines().next().unwrap_or("")
        ));
    }
    out.extend(s.notices.iter().map(|n| format!("notice    {n}")));
    print(&out.join("\n"))?;
    Ok(0)
}

/// An incident as JSON: the same for `list` and `show`.
fn summary(s: &State) -> serde_json::Value {
    serde_json::json!({
        "id": s.id,
        "kind": kind(s),
        "status": word(s),
        "title": s.title,
        "scenario": s.scenario,
        "severity": s.severity,
        "target": s.target,
        "opened": s.opened.at,
        "impact": s.impact.as_ref().map(|i| i.at),
        "restored": s.restored.as_ref().map(|r| r.at),
        "rto_objective_ms": s.rto.map(|d| d.as_millis() as u64),
        "rpo_objective_ms": s.rpo.map(|d| d.as_millis() as u64),
        "steps": s.steps.iter().map(|(id, step)| serde_json::json!({
            "id": id, "status": format!("{:?}", step.status).to_lowercase(), "took_ms": step.took().map(|d| d.as_millis() as u64),
        })).collect::<Vec<_>>(),
        "runs": s.runs.values().map(|r| serde_json::json!({
            "run": r.id, "step": r.step, "shown": r.shown, "status": run_word(r.status), "exit_code": r.exit_code, "summary": r.summary,
        })).collect::<Vec<_>>(),
        "seq": s.seq,
        "head": s.head,
        "read_only": s.read_only,
        "notices": s.notices,
    })
}

fn kind(s: &State) -> &'static str {
    match s.kind {
        Kind::Real => "REAL",
        Kind::Drill => "DRILL",
    }
}

fn word(s: &State) -> &'static str {
    if s.closed.is_some() {
        "closed"
    } else if s.restored.is_some() {
        "restored"
    } else {
        "open"
    }
}

fn run_word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Requested => "requested",
        RunStatus::Running => "running",
        RunStatus::Finished(Outcome::Succeeded) => "succeeded",
        RunStatus::Finished(Outcome::Failed) => "failed",
        RunStatus::Finished(Outcome::Cancelled) => "cancelled",
        RunStatus::Finished(Outcome::Refused) => "refused",
        RunStatus::Unknown => "unknown",
        RunStatus::Withdrawn => "withdrawn",
    }
}
