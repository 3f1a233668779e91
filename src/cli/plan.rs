//! `breakglass plan list|show|lint`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Value, json};

use super::{Invocation, print};
use crate::config::Config;
use crate::error::{Context, Error, Result};
use crate::lint::Level;
use crate::plan::library::{Document, Library, Origin};
use crate::plan::show;

/// The definition.
pub fn command() -> Command {
    let plans = || {
        Arg::new("plan").value_name("PLAN").action(ArgAction::Append).value_parser(value_parser!(PathBuf)).help(
            "Markdown files, folders or globs; without any, the team's of the configuration and the built-in runbooks",
        )
    };
    Command::new("plan")
        .about("What a plan says, as it was understood")
        .subcommand_required(true)
        .subcommand(
            Command::new("lint")
                .about("What in a plan will not work; exit 1 when something must be changed")
                .arg(plans())
                .arg(
                    Arg::new("preflight")
                        .long("preflight")
                        .action(ArgAction::SetTrue)
                        .help("Also name tools and variables that are missing on this machine"),
                ),
        )
        .subcommand(Command::new("list").about("Scenarios with their objectives").arg(plans()))
        .subcommand(Command::new("show").about("Everything that was understood, with lines and rules").arg(plans()))
}

/// Runs it.
pub fn run(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Error::usage("plan needs a subcommand").hint("breakglass plan show PLAN"));
    };
    let paths: Vec<PathBuf> = matches.get_many::<PathBuf>("plan").unwrap_or_default().cloned().collect();
    match name {
        "list" => list(&invocation.config, &paths, invocation.json)?,
        "lint" => return lint(&invocation.config, &paths, matches.get_flag("preflight"), invocation.json),
        _ => show(&invocation.config, &paths, invocation.json)?,
    }
    Ok(0)
}

/// The documents of some paths; without any, the team's and the built-in runbooks.
fn library(config: &Config, paths: &[PathBuf]) -> Result<Library> {
    if paths.is_empty() { Library::runbooks(&folders(config)) } else { Library::open(paths) }
}

/// Where plans are looked for when none is named: those of the configuration, and `./runbooks`.
pub(crate) fn folders(config: &Config) -> Vec<PathBuf> {
    let here = PathBuf::from("runbooks");
    config.plans.iter().cloned().chain(here.is_dir().then_some(here)).collect()
}

/// Prints what was understood of each document.
///
/// # Errors
/// When a path cannot be opened.
pub fn show(config: &Config, paths: &[PathBuf], json: bool) -> Result<()> {
    let library = library(config, paths)?;
    if json {
        let mut plans: Vec<Value> = library
            .documents
            .iter()
            .map(|d| show::to_show_json(&d.plan))
            .collect::<Result<_, _>>()
            .state(|| "cannot write JSON".into())?;
        let document =
            if plans.len() == 1 { plans.remove(0) } else { json!({"plans": plans, "notices": library.notices}) };
        return print(&format!("{document:#}"));
    }
    let texts: Vec<String> = library.documents.iter().map(|d| show::to_text(&d.plan)).collect();
    // A plan may hold escape sequences: what reaches a terminal is clean.
    print(crate::model::CleanText::text(texts.join("\n").trim_end()).as_str())?;
    for notice in &library.notices {
        eprintln!("{}", crate::model::CleanText::text(notice));
    }
    Ok(())
}

/// Prints the scenarios, one a line.
///
/// # Errors
/// When a path cannot be opened.
pub fn list(config: &Config, paths: &[PathBuf], json: bool) -> Result<()> {
    let library = library(config, paths)?;
    if json {
        let scenarios: Vec<Value> = library
            .scenarios()
            .map(|(d, s)| json!({"slug": s.slug, "title": s.title, "file": d.plan.file, "embedded": d.origin == Origin::Embedded, "line": s.line, "group": s.group, "severity": s.severity.as_ref().map(|v| v.level.clone()), "rto_s": s.rto_s, "rpo_s": s.rpo_s, "steps": s.steps.len()}))
            .collect();
        return print(&format!("{:#}", json!({"scenarios": scenarios, "notices": library.notices})));
    }
    let lines: Vec<String> = library.scenarios().map(|(d, s)| list_line(d, s)).collect();
    print(crate::model::CleanText::text(&lines.join("\n")).as_str())?;
    for notice in &library.notices {
        eprintln!("{}", crate::model::CleanText::text(notice));
    }
    Ok(())
}

fn list_line(document: &Document, scenario: &crate::model::Scenario) -> String {
    let span = |v: Option<u64>| v.map_or_else(|| "-".to_string(), show::short_span);
    let level = scenario.severity.as_ref().map_or("-", |s| s.level.as_str());
    format!(
        "{:<40} {level:<3} RTO {:<6} RPO {:<6} {:>3} steps  {}:{}",
        scenario.slug,
        span(scenario.rto_s),
        span(scenario.rpo_s),
        scenario.steps.len(),
        document.plan.file,
        scenario.line
    )
}

/// Prints what will not work; exit code 1 when something must be changed.
///
/// # Errors
/// When a path cannot be opened.
pub fn lint(config: &Config, paths: &[PathBuf], preflight: bool, json: bool) -> Result<u8> {
    let library = library(config, paths)?;
    let found = crate::lint::lint(&library, &crate::lint::Options { own_command: &own_command, preflight });
    let code = u8::from(crate::lint::failed(&found));
    if json {
        let count = |level: Level| found.iter().filter(|d| d.level == level).count();
        let document = json!({
            "diagnostics": found,
            "errors": count(Level::Error),
            "warnings": count(Level::Warning),
            "notes": count(Level::Note),
            "notices": library.notices,
        });
        print(&format!("{document:#}"))?;
        return Ok(code);
    }
    print(crate::model::CleanText::text(&crate::lint::render(&found)).as_str())?;
    for notice in &library.notices {
        eprintln!("{}", crate::model::CleanText::text(notice));
    }
    Ok(code)
}

/// What is wrong with one of our own command lines, if anything.
pub(crate) fn own_command(words: &[String]) -> Option<String> {
    let line = std::iter::once("breakglass".to_string()).chain(words.iter().cloned());
    let error = super::command().try_get_matches_from(line).err()?;
    // Help and version are fine.
    error
        .use_stderr()
        .then(|| error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_string())
}
