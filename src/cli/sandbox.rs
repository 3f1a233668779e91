//! `breakglass sandbox`: a drill's umpire, and what the drill's settings call at containment and promotion. Hidden.

use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::drill::umpire;
use crate::error::{Context, Result};

/// Name of the subcommand.
pub const NAME: &str = "sandbox";

/// The definition.
pub fn command() -> Command {
    umpire::Args::augment_args(Command::new(NAME).about("Inner works of a drill").hide(true))
}

/// Runs it. Neither environment nor configuration is read: nothing of a drill may reach a real target.
///
/// # Errors
/// As the umpire says.
pub fn run(matches: &ArgMatches) -> Result<u8> {
    let args = umpire::Args::from_arg_matches(matches).usage(|| "wrong arguments".into())?;
    let said = umpire::umpire_main(&args)?;
    if !said.is_empty() {
        super::print(&said)?;
    }
    Ok(0)
}
