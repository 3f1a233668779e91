//! One file per subcommand; joins the registries. The command line is a contract: see `docs/formats.md`, "Exit codes".

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{Config, Environment};
use crate::error::{Error, ErrorKind, Result};

pub mod act;
pub mod backup;
pub mod backup_deep;
pub mod backup_keys;
mod backup_repair;
pub mod completions;
pub mod console;
pub mod doctor;
pub mod drill;
pub mod export;
pub mod incident;
pub mod journal;
pub mod keys;
mod people;
pub mod plan;
pub mod postmortem;
pub mod report;
pub mod sandbox;
pub mod secrets;
mod stoppable;
pub mod tabletop;
pub mod wal;
mod wal_index;
mod wal_receive;
pub mod worker;

/// What every subcommand gets.
pub struct Invocation {
    /// The environment as it was at the start.
    pub env: Environment,
    /// The configuration in force.
    pub config: Config,
    /// Print one JSON document on stdout.
    pub json: bool,
}

type Run = fn(&Invocation, &ArgMatches) -> Result<u8>;

/// A subcommand: its definition and what runs it.
struct Subcommand {
    command: fn() -> Command,
    run: Run,
}

/// Subcommands that are not actions. Actions (`health`, `pitr restore`, …) come from the registry.
fn subcommands() -> Vec<Subcommand> {
    vec![
        Subcommand { command: console::open_command, run: console::open },
        Subcommand { command: console::resume_command, run: console::resume },
        Subcommand { command: drill::command, run: drill::run },
        Subcommand { command: incident::command, run: incident::run },
        Subcommand { command: export::command, run: export::run },
        Subcommand { command: journal::command, run: journal::run },
        Subcommand { command: report::command, run: report::run },
        Subcommand { command: postmortem::command, run: postmortem::run },
        Subcommand { command: secrets::command, run: secrets::run },
        Subcommand { command: plan::command, run: plan::run },
        Subcommand { command: doctor::command, run: doctor::run },
        Subcommand { command: keys::command, run: keys::run },
        Subcommand { command: keys::themes_command, run: keys::themes },
        Subcommand { command: completions::command, run: completions::run },
        Subcommand { command: completions::man_command, run: completions::man },
    ]
}

/// The whole command line: our own subcommands and every registered action.
pub fn command() -> Command {
    let mut root = Command::new("breakglass")
        .version(env!("CARGO_PKG_VERSION"))
        .about("In case of emergency, break glass: a console for disaster recovery")
        .after_help(
            "Without a subcommand the console opens on the home screen.\n\
             Exit codes: 0 done, 1 the thing checked is not as it should be, 2 usage or configuration,\n\
             3 a target or service failed, 4 refused for safety, 130 interrupted (143 by SIGTERM).",
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .global(true)
                .help("Configuration file instead of ./breakglass.toml"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .global(true)
                .help("Print one JSON document on stdout; messages go to stderr"),
        );
    root = console::flags(root);
    for sub in subcommands() {
        root = root.subcommand((sub.command)());
    }
    root = root.subcommand(sandbox::command()).subcommand(wal::command());
    root = root.subcommand(worker::command()).subcommand(backup::command());
    act::add_actions(root, &registry())
}

/// Every action the program knows.
pub fn registry() -> crate::action::Registry {
    let mut all = crate::action::Registry::default();
    all.add(crate::action::shell::Shell);
    all.add(crate::action::health::Health);
    all.add(crate::action::contain::Contain);
    all.add(crate::action::notify::Notify);
    all.add(crate::action::assess::Assess);
    all.add(crate::action::backup_create::BackupCreate);
    all.add(crate::action::compare::Compare);
    all.add(crate::action::backup_restore::BackupRestore);
    all.add(crate::action::backup_cleanup::BackupCleanup);
    all.add(crate::action::backup_list::BackupList);
    all.add(crate::action::backup_copy::BackupCopy);
    all.add(crate::action::sql::Sql);
    all.add(crate::action::service::Releases);
    all.add(crate::action::service::Maintenance);
    all.add(crate::action::service::Autodeploy);
    all.add(crate::action::service::Rollback);
    all.add(crate::action::service::Flag);
    all.add(crate::action::service::Verify);
    all.add(crate::action::evidence::Collect);
    all.add(crate::action::evidence::Verify);
    all.add(crate::action::breach::Suspects);
    all.add(crate::action::breach::Isolate);
    all.add(crate::action::breach::Trace);
    all.add(crate::action::breach::Rotate);
    all.add(crate::action::breach_clean::Clean);
    all.add(crate::action::breach_clean::Verify);
    all.add(crate::action::breach_clean::Reopen);
    all.add(crate::action::failover::Confirm);
    all.add(crate::action::failover::Standby);
    all.add(crate::action::failover::Fence);
    all.add(crate::action::failover_promote::Promote);
    all.add(crate::action::failover_promote::Route);
    all.add(crate::action::failover_promote::Verify);
    all.add(crate::action::failover_rebuild::Rebuild);
    all.add(crate::action::failover_rebuild::Back);
    all.add(crate::action::pitr_range::Range);
    all.add(crate::action::pitr_locate::Locate);
    all.add(crate::action::pitr_restore::Restore);
    all.add(crate::action::pitr_verify::Verify);
    all.add(crate::action::pitr_check::Check);
    all.add(crate::action::pitr_promote::Promote);
    all.add(crate::action::pitr_advance::Advance);
    all.add(crate::action::pitr_advance::Discard);
    all.add(crate::action::pitr_partial::Partial);
    all.add(crate::action::pitr_salvage::Salvage);
    all
}

/// Runs the program.
pub fn main() -> ExitCode {
    crate::process::detach::seal_inherited_files();
    let args: Vec<OsString> = std::env::args_os().collect();
    let matches = match command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(e) => {
            // clap prints help and version to stdout with exit 0, mistakes to stderr.
            let code = match e.use_stderr() {
                true if wal::is_fetch(&args) => crate::backup::wal::EXIT_STOP_RECOVERY,
                true => ErrorKind::Usage.exit_code(),
                false => 0,
            };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let json = matches.get_flag("json");
    match dispatch(&matches, json) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error, json);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn dispatch(matches: &ArgMatches, json: bool) -> Result<u8> {
    // Before anything is opened: a worker begins by closing every file it was started with.
    if let Some(("worker", sub)) = matches.subcommand() {
        return worker::run(sub);
    }
    if let Some((sandbox::NAME, sub)) = matches.subcommand() {
        return sandbox::run(sub);
    }
    if let Some((wal::NAME, sub)) = matches.subcommand() {
        return wal::run(sub, json);
    }
    let env = Environment::read();
    let mut config = Config::load(&env, matches.get_one::<PathBuf>("config").map(PathBuf::as_path))?;
    // Without a state directory they are not remembered; whoever needs one says so.
    let state = crate::runtime::Store::open(&config).map(|s| s.root().to_path_buf()).ok();
    config.settings.catalog_heads = state.as_ref().map(|s| s.join(crate::backup::anchor::FOLDER));
    config.settings.read_only = matches.get_flag("read-only");
    config.settings.requests = state.map(|s| s.join(crate::recovery::supabase::REQUESTS));
    let invocation = Invocation { env, config, json };
    let Some((name, sub)) = matches.subcommand() else {
        return console::run(&invocation, matches, console::Start::Home);
    };
    if name == backup::NAME && backup::is_mine(sub) {
        return backup::run(&invocation, sub);
    }
    for known in subcommands() {
        if (known.command)().get_name() == name {
            return (known.run)(&invocation, sub);
        }
    }
    act::run(&invocation, name, sub)
}

/// Refuses a command that changes something where only looking was asked for.
///
/// # Errors
/// Refused, with `--read-only`.
fn changes(matches: &ArgMatches, command: &str) -> Result<()> {
    if !matches.get_flag("read-only") {
        return Ok(());
    }
    Err(Error::refused(format!("{command:?} with --read-only"))
        .why("it changes something")
        .hint("Leave --read-only out, once you want that."))
}

/// Prints a document on stdout. A reader that closed the pipe (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::state("The result cannot be written to stdout").why(e))
        }
        _ => Ok(()),
    }
}

/// Prints an error: for people on stderr, and with `--json` as the one document on stdout.
fn report(error: &Error, json: bool) {
    use std::io::Write;
    // A closed pipe must not turn an error into a panic.
    if json {
        let _ = writeln!(std::io::stdout(), "{}", error.to_json());
    }
    let _ = writeln!(std::io::stderr(), "breakglass: {error}");
}
