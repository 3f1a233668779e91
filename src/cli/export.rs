//! `breakglass export INCIDENT`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Invocation, print};
use crate::error::Result;
use crate::export::{self, Format};
use crate::runtime::Store;

/// The definition.
pub fn command() -> Command {
    Command::new("export")
        .about("Write the timeline of an incident")
        .arg(
            Arg::new("incident").value_name("INCIDENT").help("Its id, the beginning of it or its last four characters"),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("LIST")
                .default_value("md,html,json,csv")
                .help("md, html, json, csv"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("DIR")
                .default_value(".")
                .value_parser(value_parser!(PathBuf))
                .help("Folder to write to"),
        )
        .arg(
            Arg::new("redact")
                .long("redact")
                .action(ArgAction::SetTrue)
                .help("A copy for outsiders: names, words, commands and data withheld; it still verifies"),
        )
}

/// Runs it.
pub fn run(invocation: &Invocation, m: &ArgMatches) -> Result<u8> {
    let store = Store::open(&invocation.config)?;
    let id = store.find(m.get_one::<String>("incident").map(String::as_str))?;
    let formats = Format::parse_list(m.get_one::<String>("format").map(String::as_str).unwrap_or_default())?;
    let out = invocation.env.cwd.join(m.get_one::<PathBuf>("out").cloned().unwrap_or_default());
    let options = export::Options { project_to_bytes: invocation.config.settings.project_size_bytes };
    let dir = store.incident_dir(&id);
    let written = match m.get_flag("redact") {
        true => export::write_redacted(&dir, &formats, &out)?,
        false => export::write_with(&dir, &formats, &out, &options)?,
    };
    if invocation.json {
        print(&format!("{:#}", serde_json::json!({"incident": id, "files": written})))?;
    } else {
        for path in written {
            print(&path.display().to_string())?;
        }
    }
    Ok(0)
}
