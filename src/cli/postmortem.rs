//! `breakglass postmortem INCIDENT`: a draft from the timeline.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Invocation, print};
use crate::error::Result;
use crate::export;
use crate::journal::files;
use crate::runtime::Store;

/// The definition.
pub fn command() -> Command {
    Command::new("postmortem")
        .about("Draft a post-mortem from the timeline, as Markdown")
        .arg(
            Arg::new("incident").value_name("INCIDENT").help("Its id, the beginning of it or its last four characters"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("File to write to; printed by default"),
        )
}

/// Runs it.
///
/// # Errors
/// State when the incident cannot be read or the file cannot be written.
pub fn run(invocation: &Invocation, m: &ArgMatches) -> Result<u8> {
    let store = Store::open(&invocation.config)?;
    let id = store.find(m.get_one::<String>("incident").map(String::as_str))?;
    let timeline = export::load(&store.incident_dir(&id), &export::Options::default())?;
    let draft = export::postmortem(&timeline);
    match m.get_one::<PathBuf>("out") {
        Some(path) => {
            let path = invocation.env.cwd.join(path);
            files::write_atomic(&path, draft.as_bytes())?;
            print(&path.display().to_string())?;
        }
        None if invocation.json => print(&format!("{:#}", serde_json::json!({"incident": id, "markdown": draft})))?,
        None => print(draft.trim_end())?,
    }
    Ok(0)
}
