//! `breakglass report`: figures over all incidents of this machine's state directory.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Invocation, print};
use crate::error::{Error, Result};
use crate::export::figures::{Case, Overview};
use crate::journal::files;
use crate::model::{Time, parse_duration};
use crate::runtime::Store;

/// The definition.
pub fn command() -> Command {
    Command::new("report")
        .about("Figures over all incidents: MTTR, MTBF, objectives met, success rates; drills are never incidents")
        .arg(
            Arg::new("since")
                .long("since")
                .value_name("WHEN")
                .help("Only what began since then: a time with a zone, a date, or how long ago (90d)"),
        )
        .arg(
            Arg::new("html")
                .long("html")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Also write a page with charts that needs nothing else"),
        )
}

/// Runs it.
///
/// # Errors
/// State when the incidents cannot be listed or the page cannot be written; usage for a time that is none.
pub fn run(invocation: &Invocation, m: &ArgMatches) -> Result<u8> {
    let since = m.get_one::<String>("since").map(|text| when(text)).transpose()?;
    let store = Store::open(&invocation.config)?;
    let (mut cases, mut unreadable) = (Vec::new(), Vec::new());
    for entry in store.list()? {
        match entry.state {
            Ok(state) => cases.push(Case::of(&state)),
            Err(e) => unreadable.push(format!("{}: {e}", entry.id)),
        }
    }
    let overview = Overview { unreadable, ..Overview::of(&cases, since) };
    if let Some(path) = m.get_one::<PathBuf>("html") {
        files::write_atomic(&invocation.env.cwd.join(path), overview.html().as_bytes())?;
    }
    if invocation.json {
        let text =
            serde_json::to_string_pretty(&overview).map_err(|e| Error::state("the report cannot be written").why(e))?;
        print(&text)?;
    } else {
        print(&overview.table())?;
    }
    Ok(0)
}

fn when(text: &str) -> Result<Time> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(Time::from_system(SystemTime::now()).minus(ago));
    }
    let as_date = || Time::parse(&format!("{text}T00:00:00Z"));
    Time::parse(text).or_else(|_| as_date()).map_err(|e| {
        Error::usage(format!("{text:?} is neither a time nor a duration")).why(e).hint("such as 2026-10-01 or 90d")
    })
}
