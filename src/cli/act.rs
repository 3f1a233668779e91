//! Actions from the shell: the same definitions as in a step, run in the foreground.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, OnceLock};

use clap::{Arg, ArgMatches, Command};
use tokio_util::sync::CancellationToken;

use super::Invocation;
use crate::action::{Ctx, Output, Progress, Registry};
use crate::error::{Context as _, Error, Result};
use crate::model::plan::Risk;
use crate::model::{CleanText, Redactor, format_clock};
use crate::process::signals::{Signals, Stop};

/// Adds every registered action under its words: `pitr restore` becomes `restore` below `pitr`.
pub fn add_actions(mut root: Command, registry: &Registry) -> Command {
    for action in registry.all() {
        let spec = action.spec();
        if matches!(spec.name, "shell" | "sql") {
            continue;
        }
        let mut leaf = action.arguments().about(spec.about);
        if action.confirms() {
            leaf = leaf.arg(
                Arg::new("confirm")
                    .long("confirm")
                    .value_name("NAME")
                    .help("Name of the target, when no terminal can ask"),
            );
        }
        root = match spec.name.split_once(' ') {
            None => root.subcommand(leaf),
            // What the shell has with options of its own stays that.
            Some((family, name)) if root.find_subcommand(family).is_some_and(|c| c.find_subcommand(name).is_some()) => {
                root
            }
            Some((family, _)) => {
                if root.find_subcommand(family).is_none() {
                    root = root.subcommand(Command::new(family).about(family_about(family)).subcommand_required(true));
                }
                root.mut_subcommand(family, |c| c.subcommand(leaf))
            }
        };
    }
    root
}

fn family_about(family: &str) -> &'static str {
    match family {
        "pitr" => "Point-in-time recovery: find the moment, restore beside, verify, promote, bring back, salvage",
        "service" => "A bad release: compare, maintenance mode, stop deploys, roll back, flags, verify",
        "breach" => "Somebody inside: suspects, isolation, what they did, secrets, cleaning, verify, reopen",
        "evidence" => "Evidence: collected, sealed, verified",
        "failover" => "Another region takes over: standby, fence, promote, route, verify, rebuild",
        "backup" => "Encrypted backups of PostgreSQL",
        _ => "",
    }
}

/// Runs the action that was matched.
pub fn run(invocation: &Invocation, name: &str, matches: &ArgMatches) -> Result<u8> {
    let registry = super::registry();
    let (full, leaf) = match matches.subcommand() {
        Some((sub, leaf)) => (format!("{name} {sub}"), leaf),
        None => (name.to_string(), matches),
    };
    let action = registry
        .get(&full)
        .ok_or_else(|| Error::usage(format!("There is no command {full:?}")).hint("breakglass --help lists them"))?;
    let args = words_after(&full);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .state(|| "The asynchronous runtime cannot be started".into())?;
    let out = Arc::new(Foreground::new(invocation));
    let cancel = CancellationToken::new();
    let mut ctx = Ctx {
        cancel: cancel.clone(),
        ..Ctx::new(invocation.config.settings.clone(), invocation.config.secrets.clone(), out.clone())
    };
    if action.risk(&args) != Risk::Read && !args.iter().any(|a| a == "--dry-run") {
        super::changes(matches, &full)?;
    }
    let stopped = Arc::new(OnceLock::new());
    {
        let (interrupted, stopped) = (cancel.clone(), stopped.clone());
        let mut signals = runtime.block_on(async { Signals::listen() })?;
        runtime.spawn(async move {
            let _ = stopped.set(signals.next().await);
            interrupted.cancel();
        });
    }
    let done = runtime.block_on(async {
        if action.risk(&args) == Risk::Destroy {
            let confirm = leaf.try_get_one::<String>("confirm").ok().flatten().cloned();
            let preview = action.preview(&ctx, &args).await?;
            let target = preview.target.as_ref().map(|t| t.database.clone()).unwrap_or_default();
            ctx.confirmed = Some(confirmed(&full, &preview.lines, &target, confirm)?);
        }
        action.run(&ctx, &args).await
    });
    out.finish();
    if let Some(stop) = stopped.get() {
        let mut error = Error::interrupted(format!("{full:?} was interrupted"));
        // What was left where, and the way on.
        if let Err(e) = done {
            error = e.hints.into_iter().fold(error.why(e.what), Error::hint);
        }
        if *stop == Stop::Interrupt {
            return Err(error);
        }
        super::report(&error, invocation.json);
        return Ok(stop.exit_code());
    }
    let done = done?;
    if invocation.json {
        super::print(&format!("{:#}", done.json))?;
    } else {
        super::print(CleanText::text(&done.summary).as_str())?;
    }
    Ok(u8::try_from(done.exit_code).unwrap_or(1))
}

/// Asks for the target's name on the terminal, or takes `--confirm`.
fn confirmed(name: &str, preview: &[String], target: &str, given: Option<String>) -> Result<String> {
    if let Some(given) = given {
        if given == target {
            return Ok(given);
        }
        if target.is_empty() {
            return Err(Error::refused(format!(
                "--confirm says {given:?}, and nothing that is there would be replaced"
            ))
            .hint("leave --confirm and --overwrite out, or check the name of the target"));
        }
        return Err(Error::refused(format!("--confirm says {given:?}, the target is {target:?}"))
            .hint("check that this is the right server, then give its name exactly"));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::refused(format!("{name:?} can destroy data and no terminal can ask"))
            .hint(format!("give --confirm {target:?} once you are sure")));
    }
    let mut err = std::io::stderr();
    for line in preview {
        let _ = writeln!(err, "  {}", CleanText::text(line));
    }
    let _ = write!(err, "Type the target's name to go on: ");
    let _ = err.flush();
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed).state(|| "The terminal cannot be read".into())?;
    if typed.trim() == target {
        Ok(target.to_string())
    } else {
        Err(Error::refused(format!("{:?} was typed, the target is {target:?}", typed.trim())))
    }
}

/// The words of the real command line after the action's name, without our global options.
fn words_after(name: &str) -> Vec<String> {
    let wanted: Vec<&str> = name.split(' ').collect();
    let mut found = 0;
    let mut out = Vec::new();
    let mut args = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" | "--ascii" | "--no-color" | "--read-only" => {}
            "--config" | "--confirm" | "--theme" => {
                args.next();
            }
            a if ["--config=", "--confirm=", "--theme="].iter().any(|o| a.starts_with(o)) => {}
            a if found < wanted.len() && a == wanted[found] => found += 1,
            _ => out.push(arg),
        }
    }
    out
}

/// Output of the foreground: lines to stderr, progress as one line that is overwritten on a terminal.
pub struct Foreground {
    redactor: Redactor,
    json: bool,
    shown: Mutex<String>,
}

impl Foreground {
    /// For a command line; as JSON, no progress is shown.
    pub fn new(invocation: &Invocation) -> Self {
        let redactor = Redactor::new(invocation.config.secrets.values());
        Self { redactor, json: invocation.json, shown: Mutex::new(String::new()) }
    }
    /// Takes the line of progress away.
    pub fn finish(&self) {
        self.clear();
    }
    fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !shown.is_empty() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
            shown.clear();
        }
    }
}

impl Output for Foreground {
    fn line(&self, text: &str) {
        self.clear();
        let _ = writeln!(std::io::stderr(), "{}", CleanText::text(&self.redactor.redact(text)));
    }
    fn bytes(&self, bytes: &[u8]) {
        for line in String::from_utf8_lossy(bytes).lines() {
            self.line(line);
        }
    }
    fn progress(&self, progress: &Progress) {
        if self.json || !std::io::stderr().is_terminal() {
            return;
        }
        let Some(phase) = progress.phases.last() else { return };
        let mut text = format!("{}  {}", phase.name, phase.text);
        if let Some(percent) = phase.total.filter(|t| *t > 0).map(|t| phase.done.min(t) * 100 / t) {
            text.push_str(&format!("  {percent} %"));
        }
        if let Some(eta) = progress.eta_ms {
            text.push_str(&format!("  about {} left", format_clock(std::time::Duration::from_millis(eta))));
        }
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *shown != text {
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", CleanText::line(text.as_bytes()));
            let _ = std::io::stderr().flush();
            *shown = text;
        }
    }
}
