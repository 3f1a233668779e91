//! `breakglass worker --request PATH`: the process behind a run. Started by the console, not by people.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};

use crate::error::{Error, Result};

/// Its definition.
pub fn command() -> Command {
    Command::new("worker").about("Run one requested action (started by the console)").hide(true).arg(
        Arg::new("request")
            .long("request")
            .value_name("PATH")
            .required(true)
            .value_parser(clap::value_parser!(PathBuf)),
    )
}

/// Runs it. Reads no configuration: everything is in the request.
pub fn run(matches: &ArgMatches) -> Result<u8> {
    let path = matches.get_one::<PathBuf>("request").ok_or_else(|| Error::usage("--request is missing"))?;
    crate::runtime::worker_main(&super::registry(), path)
}
