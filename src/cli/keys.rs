//! `breakglass keys` and `breakglass themes`.

use clap::{ArgMatches, Command};

use super::{Invocation, print};
use crate::app::command;
use crate::error::Result;
use crate::tui::theme;

/// The definition of `keys`.
pub fn command() -> Command {
    Command::new("keys").about("Print every command of the console with its keys, as a key file to change")
}

/// Runs `keys`.
pub fn run(_: &Invocation, _: &ArgMatches) -> Result<u8> {
    print(command::key_file().trim_end())?;
    Ok(0)
}

/// The definition of `themes`.
pub fn themes_command() -> Command {
    Command::new("themes").about("List the themes")
}

/// Runs `themes`.
pub fn themes(invocation: &Invocation, _: &ArgMatches) -> Result<u8> {
    let names: Vec<&str> = theme::EMBEDDED.iter().map(|(name, _)| *name).collect();
    if invocation.json {
        print(&serde_json::json!({"themes": names}).to_string())?;
    } else {
        print(&names.join("\n"))?;
    }
    Ok(0)
}
