//! `breakglass completions SHELL` and `breakglass man`.

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::{Invocation, print};
use crate::error::{Context, Error, Result};

/// The definition of `completions`.
pub fn command() -> Command {
    Command::new("completions").about("Print completions for a shell").arg(
        Arg::new("shell")
            .value_name("SHELL")
            .required(true)
            .value_parser(value_parser!(Shell))
            .help("bash, zsh, fish, elvish or powershell"),
    )
}

/// Runs `completions`.
pub fn run(_: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let shell = matches.get_one::<Shell>("shell").copied().ok_or_else(|| Error::usage("Which shell?"))?;
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "breakglass", &mut out);
    print(String::from_utf8_lossy(&out).trim_end())?;
    Ok(0)
}

/// The definition of `man`.
pub fn man_command() -> Command {
    Command::new("man").about("Print the manual page (roff)")
}

/// Runs `man`.
pub fn man(_: &Invocation, _: &ArgMatches) -> Result<u8> {
    let mut out = Vec::new();
    clap_mangen::Man::new(super::command()).render(&mut out).state(|| "The manual page cannot be made".into())?;
    print(String::from_utf8_lossy(&out).trim_end())?;
    Ok(0)
}
