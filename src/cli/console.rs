//! The console: `breakglass`, `breakglass open PLAN…`, `breakglass resume [INCIDENT]`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Invocation, registry};
use crate::app::data::Env;
use crate::app::driver::{self, Plans, World, port};
use crate::app::{App, Effect, Settings};
use crate::drill::leftovers;
use crate::drill::sandbox::{Options as SandboxOptions, Sandbox};
use crate::error::{Context, Error, Result};
use crate::incident::Now;
use crate::journal::clock::Clock;
use crate::model::Redactor;
use crate::process::detach::own_executable;
use crate::runtime::{Store, actor, policy};
use crate::tui::keymap::Keymap;
use crate::tui::theme::{Depth, Theme};
use crate::tui::{Ending, Options, terminal};

/// What the console begins with.
#[derive(Debug, Clone)]
pub enum Start {
    /// The home screen.
    Home,
    /// Documents a person named.
    Open(Vec<PathBuf>),
    /// An incident that is there.
    Resume(Option<String>),
    /// A drill of this scenario.
    Drill {
        /// Slug or title; the first that can be drilled when none.
        scenario: Option<String>,
        /// Keep the sandbox.
        keep: bool,
    },
}

/// `breakglass open PLAN…`.
pub fn open_command() -> Command {
    Command::new("open").about("Open plans, files or folders of Markdown, in the console").arg(
        Arg::new("plan")
            .value_name("PLAN")
            .num_args(1..)
            .required(true)
            .value_parser(clap::value_parser!(PathBuf))
            .help("Markdown file or folder"),
    )
}

/// `breakglass resume [INCIDENT]`.
pub fn resume_command() -> Command {
    Command::new("resume")
        .about("Go on with an incident: same step, same clocks, running actions with their output")
        .arg(
            Arg::new("incident")
                .value_name("INCIDENT")
                .help("Its id, the beginning of it or its last four characters; the newest open one when not given"),
        )
}

/// The flags of the console, understood by every form of it.
pub fn flags(command: Command) -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).global(true).help(help)
    };
    command
        .arg(flag("ascii", "Borders and signs in ASCII"))
        .arg(flag("no-color", "No colours (also NO_COLOR)"))
        .arg(flag("read-only", "Look only: nothing is recorded or run"))
        .arg(
            Arg::new("theme")
                .long("theme")
                .value_name("NAME")
                .global(true)
                .help("default, light, high-contrast, colour-blind or mono"),
        )
}

/// `breakglass open`.
pub fn open(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let plans = matches.get_many::<PathBuf>("plan").map(|p| p.cloned().collect()).unwrap_or_default();
    run(invocation, matches, Start::Open(plans))
}

/// `breakglass resume`.
pub fn resume(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    run(invocation, matches, Start::Resume(matches.get_one::<String>("incident").cloned()))
}

/// Runs the console until it is left; returns the exit code.
///
/// # Errors
/// What keeps it from opening: no terminal, no state directory, plans that were named and cannot be read.
pub fn run(invocation: &Invocation, matches: &ArgMatches, start: Start) -> Result<u8> {
    let env = &invocation.env;
    let store = Store::open(&invocation.config)?;
    let plans = match &start {
        Start::Open(paths) => Plans::Named(paths.clone()),
        _ => Plans::Runbooks(super::plan::folders(&invocation.config)),
    };
    // What was named wrongly is said before the screen is taken.
    let mut first = Vec::new();
    match &start {
        Start::Home => {}
        Start::Open(_) => drop(plans.read()?),
        Start::Resume(name) => {
            let id = store.find(name.as_deref())?;
            store.state(&id).map_err(|e| {
                e.hint("to go on working, open the plan and declare the incident anew: breakglass open PLAN")
            })?;
            first.push(Effect::Open(id));
        }
        Start::Drill { scenario, .. } => {
            let library = plans.read()?;
            let (document, scenario) = library.find(scenario.as_deref().unwrap_or("database-corruption"))?;
            first.push(Effect::Drill { file: document.plan.file.clone(), scenario: scenario.slug.clone() });
        }
    }
    let no_color = matches.get_flag("no-color") || env.get("NO_COLOR").is_some();
    let depth = Depth::detect(no_color, env.get("COLORTERM"), env.get("TERM"));
    let name = matches.get_one::<String>("theme").or(invocation.config.theme.as_ref());
    let theme = Theme::named(name.map_or("default", String::as_str), depth)?;
    let (keymap, problems) = keys(invocation);
    let ascii = matches.get_flag("ascii") || !utf8(env);
    let registry = registry();
    let actions = registry.all().map(|a| (a.spec().name.to_string(), a.spec().risk)).collect();
    let clock = Clock::new();
    let now = move || {
        let r = clock.read();
        Now { time: r.now, up_ms: r.up_ms, boot: r.boot }
    };
    let app_env = Env {
        actor: actor(),
        policy: policy(&invocation.config.settings),
        read_only: matches.get_flag("read-only"),
        actions,
        registry: registry.clone(),
        secrets: Redactor::new(invocation.config.secrets.values()),
        notify: !invocation.config.settings.notify.is_empty(),
        ..Env::default()
    };
    let mut app = App::new(app_env, Settings { ascii, mouse: false }, terminal::size(), now());
    for problem in problems {
        app.say(crate::app::Tone::Bad, problem);
    }
    let keep = matches!(start, Start::Drill { keep: true, .. });
    // `breakglass drill` prints it itself.
    let prints_verdict = !matches!(start, Start::Drill { .. });
    let world = World {
        config: invocation.config.clone(),
        store: store.clone(),
        registry,
        plans,
        program: own_executable()?,
        keep,
    };
    let options =
        Options { theme, keymap, copies: world.store.root().join("copies"), in_tmux: env.get("TMUX").is_some() };
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .state(|| "the console's loop cannot be started".into())?;
    let ending = tokio.block_on(async {
        let (port, side) = port();
        driver::start(world, side)?;
        crate::tui::run(app, &options, port, first, now).await
    })?;
    let farewell = terminal::farewell();
    match ending {
        Ending::Left(drill) => {
            if !farewell.is_empty() {
                super::print(&farewell)?;
            }
            if let Some(id) = drill {
                clear_away(&store, &id, prints_verdict)?;
            }
            Ok(0)
        }
        Ending::Signal(by) => {
            let error = Error::interrupted(format!("the console was ended by {}; nothing recorded is lost", by.name()));
            super::stoppable::ended(farewell.lines().fold(error, |e, line| e.hint(line)), Some(by), invocation.json)
        }
        Ending::Gone => Err(Error::interrupted("the terminal went away")),
    }
}

/// After a closed drill: its sandbox is gone, whoever made it and whatever console died on the way, and its verdict is said.
fn clear_away(store: &Store, id: &crate::model::IncidentId, say_verdict: bool) -> Result<()> {
    let state = store.state(id)?;
    let scratch = state.facts.drill.as_ref().map(|d| PathBuf::from(&d.0));
    if let Some(dir) = scratch.filter(|d| d.exists()) {
        match Sandbox::join(&dir).and_then(Sandbox::teardown) {
            Ok(true) => {}
            // Nobody lives in it any more: what is left is a crashed drill's.
            Err(_) => drop(leftovers::clean(&SandboxOptions::new()?.places)),
            Ok(false) => super::print(&format!("The sandbox is kept in {}", dir.display()))?,
        }
    }
    if say_verdict && state.people.tabletop.is_none() {
        super::print(&super::drill::Verdicts::of(&state).summary(&state).join("\n"))?;
    }
    Ok(())
}

/// The keys in force: the defaults, changed by `keys.toml` beside the configuration file.
fn keys(invocation: &Invocation) -> (Keymap, Vec<String>) {
    let beside = invocation.config.file.as_ref().and_then(|f| f.parent()).map(|d| d.join("keys.toml"));
    let path = beside.filter(|p| p.exists()).or_else(|| {
        let dirs = directories::ProjectDirs::from("", "", "breakglass")?;
        Some(dirs.config_dir().join("keys.toml")).filter(|p| p.exists())
    });
    let Some(path) = path else { return (Keymap::default(), Vec::new()) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Keymap::from_toml(&text, &path.display().to_string()),
        Err(e) => {
            (Keymap::default(), vec![format!("{}: cannot be read ({e}); the default keys apply", path.display())])
        }
    }
}

/// Whether the locale says that the terminal shows UTF-8; when it says nothing, it does.
fn utf8(env: &crate::config::Environment) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|v| env.get(v));
    locale.is_none_or(|l| {
        let l = l.to_lowercase();
        l.contains("utf-8") || l.contains("utf8") || l == "c" || l == "posix"
    })
}
