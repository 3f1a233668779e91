//! `breakglass drill`: a scenario on a private PostgreSQL, with a person or by itself.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Invocation, print, stoppable};
use crate::config::{Config, load::DrillConfig};
use crate::drill::sandbox::{Options, Sandbox};
use crate::drill::session::{self, Exercise};
use crate::drill::unattended;
use crate::error::{Error, ErrorKind, Result};
use crate::export::{self, Format};
use crate::incident::State;
use crate::model::event::Verdict;
use crate::model::{Record, format_clock, parse_duration};
use crate::plan::library::Library;
use crate::postgres::{Programs, install};
use crate::process::signals::{Signals, Stop};
use crate::runtime::{Incident, Store, policy};

/// How long a set-up that was stopped may take to end in order; then the rest is left to its guard.
const STOPPING: Duration = Duration::from_secs(1);

/// The definition.
pub fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let duration = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("DURATION").value_parser(|s: &str| parse_duration(s)).help(help)
    };
    Command::new("drill")
        .about("Work a scenario on a private PostgreSQL made on the spot")
        .after_help(scenarios_help())
        .arg(
            Arg::new("scenario")
                .value_name("SCENARIO")
                .default_value(session::CORRUPTION)
                .help("Scenario, listed below, or `all`"),
        )
        .arg(flag("unattended", "Play it without a person, one line per event; exit 0 only if everything was met"))
        .arg(
            Arg::new("report")
                .long("report")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Write the timeline as md, html, json and csv, and the logs it was judged by"),
        )
        .arg(
            Arg::new("size")
                .long("size")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..=1000))
                .help("Scale of the data (1 is about 30 MB)"),
        )
        .arg(
            Arg::new("variant")
                .long("variant")
                .value_name("NAME")
                .value_parser(session::VARIANTS.iter().map(|(_, name, _)| *name).collect::<Vec<_>>())
                .help("What of the scenario happens, instead of a surprise; listed below"),
        )
        .arg(
            Arg::new("tabletop")
                .long("tabletop")
                .value_name("PLAN")
                .value_parser(value_parser!(PathBuf))
                .help("Walk any plan as an exercise at a table: messages come in by the clock, nothing is executed"),
        )
        .arg(duration("pace", "Time between two messages of a tabletop exercise (default 3m)"))
        .arg(flag("keep", "Keep the sandbox at the end"))
        .arg(duration("rto", "Recovery time objective of the sandbox (default 5m)"))
        .arg(duration("rpo", "Recovery point objective of the sandbox (default 5m)"))
        .arg(duration("delay", "The responder arrives this much after the alarm (unattended)"))
}

/// What can be drilled, for the help.
fn scenarios_help() -> String {
    let lines = session::DRILLS.iter().map(|(slug, what)| format!("  {slug:<20} {what}"));
    let variants = session::VARIANTS.iter().map(|(of, name, what)| format!("  {of:<20} {name}: {what}"));
    let lines = lines.collect::<Vec<_>>().join("\n");
    format!("Scenarios:\n{lines}\n\nVariants:\n{}", variants.collect::<Vec<_>>().join("\n"))
}

/// The variant that is asked for; it must be one of this scenario.
fn variant(m: &ArgMatches, scenario: &str) -> Result<Option<String>> {
    let Some(name) = m.get_one::<String>("variant") else { return Ok(None) };
    if session::VARIANTS.iter().any(|(of, n, _)| *of == scenario && n == name) {
        return Ok(Some(name.clone()));
    }
    let mine: Vec<&str> = session::VARIANTS.iter().filter(|(of, ..)| *of == scenario).map(|(_, n, _)| *n).collect();
    let hint = if mine.is_empty() { "it has none".to_string() } else { format!("it has: {}", mine.join(", ")) };
    Err(Error::usage(format!("the drill {scenario} has no variant {name:?}")).hint(hint))
}

/// Runs it.
pub fn run(invocation: &Invocation, m: &ArgMatches) -> Result<u8> {
    if m.get_flag("read-only") {
        return Err(Error::usage("a drill makes, runs and records things; --read-only only looks")
            .hint("to look: breakglass --read-only, or breakglass --read-only resume INCIDENT"));
    }
    if let Some(plan) = m.get_one::<PathBuf>("tabletop") {
        return super::tabletop::run(invocation, m, plan);
    }
    let all: Vec<&str> = session::DRILLS.iter().map(|(slug, _)| *slug).collect();
    let wanted = m.get_one::<String>("scenario").map(String::as_str).unwrap_or_default();
    if wanted == "all" {
        return every(invocation, m, &all);
    }
    let scenario = all.iter().copied().find(|d| *d == wanted).ok_or_else(|| {
        Error::usage(format!("there is no drill for {wanted:?}")).hint(format!("drills: {}, or all", all.join(", ")))
    })?;
    let report = m.get_one::<PathBuf>("report").map(|p| invocation.env.cwd.join(p));
    let Some(played) = one(invocation, m, scenario, report.as_deref(), true)? else { return Ok(0) };
    played.finish(invocation.json)
}

/// How one drill of several ended.
struct Played {
    code: u8,
    summary: Vec<String>,
    json: serde_json::Value,
}

impl Played {
    fn finish(&self, json: bool) -> Result<u8> {
        match json {
            // Told already.
            _ if self.json.is_null() => {}
            true => print(&format!("{:#}", self.json))?,
            false if self.summary.is_empty() => {}
            false => print(&self.summary.join("\n"))?,
        }
        Ok(self.code)
    }
}

/// The quarterly exercise: every drill, one after the other, each with a folder of its own, and one page over all.
fn every(invocation: &Invocation, m: &ArgMatches, slugs: &[&str]) -> Result<u8> {
    let report = m.get_one::<PathBuf>("report").map(|p| invocation.env.cwd.join(p));
    let begun = Instant::now();
    let (mut code, mut documents, mut page) = (0, Vec::new(), String::from("# Drills\n"));
    for slug in slugs {
        note(&format!("drill {slug}"));
        let folder = report.as_ref().map(|r| r.join(slug));
        let (drill, summary, json) = match one(invocation, m, slug, folder.as_deref(), false) {
            Ok(Some(p)) if p.json.is_null() => return Ok(p.code),
            Ok(Some(p)) => (p.code, p.summary, p.json),
            Ok(None) => continue,
            Err(e) if e.kind == ErrorKind::Interrupted => return Err(e),
            // One that could not be played must not keep the others from being played.
            Err(e) => (e.kind.exit_code(), vec![e.to_string()], e.to_json()),
        };
        if !invocation.json {
            print(&summary.join("\n"))?;
        }
        code = code.max(drill);
        page.push_str(&format!("\n## {slug}\n\n```text\n{}\n```\n", summary.join("\n").trim()));
        documents.push(serde_json::json!({"scenario": slug, "exit_code": drill, "result": json}));
    }
    let took = format_clock(begun.elapsed());
    page.push_str(&format!(
        "\n{} drills in {took}, {}.\n",
        slugs.len(),
        if code == 0 { "all passed" } else { "not all passed" }
    ));
    if let Some(folder) = &report {
        crate::journal::files::create_dir(folder)?;
        crate::journal::files::write_atomic(&folder.join("drills.md"), page.as_bytes())?;
        note(&format!("wrote {}", folder.join("drills.md").display()));
    }
    match invocation.json {
        true => print(&format!("{:#}", serde_json::json!({"passed": code == 0, "drills": documents})))?,
        false => print(&format!(
            "\n{} drills in {took}: {}",
            slugs.len(),
            if code == 0 { "all passed" } else { "NOT all passed" }
        ))?,
    }
    Ok(code)
}

/// One drill. None when a person worked through it at the console, which has said how it went.
fn one(
    invocation: &Invocation,
    m: &ArgMatches,
    scenario: &str,
    report: Option<&Path>,
    may_attend: bool,
) -> Result<Option<Played>> {
    let store = Store::open(&invocation.config)?;
    store.check_writable()?;
    let config = &invocation.config;
    let attended =
        may_attend && !m.get_flag("unattended") && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    programs(config.settings.bin_dir.as_deref(), attended)?;
    let pick = |flag: &str, configured: Option<u64>, default_ms: u64| {
        let given = m.get_one::<Duration>(flag).map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        given.or(configured.map(|s| s.saturating_mul(1000))).unwrap_or(default_ms)
    };
    let library = library(config)?;
    let (document, _) = library.find(scenario)?;
    let exercise = Exercise {
        plan: document.plan.clone(),
        documents: vec![(document.plan.file.clone(), document.bytes.clone())],
        scenario: scenario.to_string(),
        rto_ms: pick("rto", config.drill.rto_s, session::RTO_MS),
        rpo_ms: pick("rpo", config.drill.rpo_s, session::RPO_MS),
        delay: m.get_one::<Duration>("delay").copied().unwrap_or_default(),
    };
    let size = m.get_one::<u32>("size").copied().or(config.drill.size);
    let keep = m.get_flag("keep");
    if attended {
        let code = work_through(invocation, m, &store, &exercise, size, keep, report)?;
        return Ok(Some(Played { code, summary: Vec::new(), json: serde_json::Value::Null }));
    }
    let mut options = Options::new()?;
    options.scenario.clone_from(&exercise.scenario);
    options.variant = variant(m, scenario)?;
    options.size = size.unwrap_or(options.size);
    options.keep = keep;
    options.bin_dir.clone_from(&config.settings.bin_dir);
    options.run_as.clone_from(&config.settings.run_as);
    options.project_size_bytes = config.settings.project_size_bytes;
    let stopped = Arc::new(Stopped::default());
    stopped.listen()?;
    match unattended(invocation, &store, &exercise, &options, report, &stopped) {
        Err(e) => {
            let code = stoppable::ended(e, stopped.by.get().copied(), invocation.json)?;
            Ok(Some(Played { code, summary: Vec::new(), json: serde_json::Value::Null }))
        }
        played => played.map(Some),
    }
}

/// A drill that nobody works through, on a sandbox that is made for it and removed again.
fn unattended(
    invocation: &Invocation,
    store: &Store,
    exercise: &Exercise,
    options: &Options,
    report: Option<&Path>,
    stopped: &Stopped,
) -> Result<Played> {
    let sandbox = make(options, &stopped.flag)?;
    note(&format!("ready after {}", format_clock(sandbox.setup())));
    let result = play(invocation, store, &sandbox, exercise, report, &stopped.flag);
    let dir = sandbox.dir().to_path_buf();
    match sandbox.teardown() {
        Ok(true) => note("the sandbox is removed"),
        Ok(false) => {
            note(&format!("the sandbox is kept; end it with: breakglass sandbox --dir {} remove", dir.display()))
        }
        Err(e) if result.is_ok() => return Err(e),
        Err(e) => note(&e.to_string()),
    }
    result
}

/// Makes the sandbox, and stops at once when asked to: what is left then is removed by the guard that watches every set-up.
fn make(options: &Options, stopped: &AtomicBool) -> Result<Sandbox> {
    let (done, made) = std::sync::mpsc::channel();
    let asked = options.clone();
    let work = move || {
        let made = Sandbox::make(&asked, &mut |text: &str| {
            if !asked.cancel.is_cancelled() {
                note(text);
            }
        });
        // Only fails when nobody waits any more.
        let _ = done.send(made);
    };
    std::thread::Builder::new()
        .name("sandbox".into())
        .spawn(work)
        .map_err(|e| Error::state("cannot start a thread").why(e))?;
    let over = || Error::interrupted("the drill was stopped while its sandbox was made");
    let mut until: Option<Instant> = None;
    loop {
        match made.recv_timeout(Duration::from_millis(50)) {
            Ok(Ok(sandbox)) if until.is_some() => {
                sandbox.teardown()?;
                return Err(over());
            }
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => return Err(over()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        match until {
            None if stopped.load(Ordering::Relaxed) => {
                note("stopping: what was made so far is removed");
                options.cancel.cancel();
                until = Some(Instant::now() + STOPPING);
            }
            // What is kept has no guard: it has to be left in order.
            Some(late) if Instant::now() > late && !options.keep => {
                return Err(over().hint("the rest of it is being removed in the background"));
            }
            _ => {}
        }
    }
}

/// The console makes the sandbox itself and removes it when the incident is closed.
fn work_through(
    invocation: &Invocation,
    m: &ArgMatches,
    store: &Store,
    exercise: &Exercise,
    size: Option<u32>,
    keep: bool,
    report: Option<&Path>,
) -> Result<u8> {
    let before = store.ids()?;
    let mut config = invocation.config.clone();
    config.drill = DrillConfig {
        size,
        rto_s: Some(exercise.rto_ms / 1000),
        rpo_s: Some(exercise.rpo_ms / 1000),
        variant: variant(m, &exercise.scenario)?,
    };
    let invocation = Invocation { env: invocation.env.clone(), config, json: invocation.json };
    let start = super::console::Start::Drill { scenario: Some(exercise.scenario.clone()), keep };
    let code = super::console::run(&invocation, m, start)?;
    let Some(id) = store.ids()?.into_iter().find(|id| !before.contains(id)) else { return Ok(code) };
    let incident = store.incident(&id, policy(&invocation.config.settings))?;
    let state = incident.state()?;
    if state.closed.is_none() {
        note(&format!("the drill goes on; come back with: breakglass resume {id}"));
        return Ok(code);
    }
    if let Some(dir) = report {
        write_report(&incident, dir, invocation.config.settings.project_size_bytes)?;
    }
    let verdict = Verdicts::of(state);
    print(&verdict.summary(state).join("\n"))?;
    Ok(u8::from(!verdict.all_good()))
}

/// The team's plans when the configuration names some, and the runbooks.
///
/// # Errors
/// What is configured and cannot be read.
pub fn library(config: &Config) -> Result<Library> {
    let mut library = if config.plans.is_empty() { Library::default() } else { Library::open(&config.plans)? };
    let folders: Vec<PathBuf> =
        config.file.iter().filter_map(|f| Some(f.parent()?.join("runbooks"))).filter(|d| d.is_dir()).collect();
    library.documents.extend(Library::runbooks(&folders)?.documents);
    Ok(library)
}

fn play(
    invocation: &Invocation,
    store: &Store,
    sandbox: &Sandbox,
    exercise: &Exercise,
    report: Option<&Path>,
    stopped: &AtomicBool,
) -> Result<Played> {
    let json = invocation.json;
    let mut on_record = |incident: &Incident, record: &Record| {
        if !json {
            lines(incident, record);
        }
    };
    let incident = unattended::play(
        store,
        sandbox,
        exercise,
        &super::registry(),
        &mut |text: &str| note(text),
        &mut on_record,
        &|| stopped.load(Ordering::Relaxed),
    )?;
    if let Some(dir) = report {
        write_report(&incident, dir, invocation.config.settings.project_size_bytes)?;
    }
    let state = incident.state()?;
    let verdict = Verdicts::of(state);
    Ok(Played { code: u8::from(!verdict.all_good()), summary: verdict.summary(state), json: verdict.to_json(state) })
}

/// Writes all formats, and the logs the drill was judged by, into `dir`.
pub fn write_report(incident: &Incident, dir: &Path, project_to_bytes: Option<u64>) -> Result<()> {
    let formats = [Format::Markdown, Format::Html, Format::Json, Format::Csv];
    for path in export::write_with(incident.dir(), &formats, dir, &export::Options { project_to_bytes })? {
        note(&format!("wrote {}", path.display()));
    }
    let judge = session::judge_folder(incident.dir());
    if let Ok(entries) = std::fs::read_dir(&judge) {
        for entry in entries.flatten() {
            let to = dir.join(entry.file_name());
            std::fs::copy(entry.path(), &to)
                .map_err(|e| Error::state(format!("cannot write {}", to.display())).why(e))?;
        }
    }
    Ok(())
}

/// One line per event of a record.
fn lines(incident: &Incident, record: &Record) {
    let Ok(state) = incident.state() else { return };
    for row in export::rows_of(record, state, Some(incident.scenario())) {
        let exit = row.exit.map(|c| format!("  [exit {c}]")).unwrap_or_default();
        let offset = export::offset(row.offset_ms);
        let _ = writeln!(std::io::stdout(), "{} {offset:>6}  {} {}{exit}", row.at.hms(), row.tone.glyph(), row.what);
    }
}

/// What decides the exit code.
pub struct Verdicts {
    checks: Vec<(&'static str, Option<bool>, String)>,
}

impl Verdicts {
    /// From the state of a closed drill.
    pub fn of(state: &State) -> Self {
        let f = &state.facts;
        let healthy = f.health.as_ref().map(|(good, _, _)| *good);
        let verified = f.verified.as_ref().map(|(passed, _)| *passed);
        let rto = match (&state.restored, &state.impact) {
            (Some(r), Some(i)) => Some(r.at.since(i.at)),
            _ => None,
        };
        let rto_met = rto.zip(state.rto).map(|(a, o)| a <= o);
        let loss = f.loss.as_ref().map(|l| Duration::from_millis(l.window_ms));
        let rpo_met = loss.zip(state.rpo).map(|(a, o)| a <= o);
        let against = |actual: Option<Duration>, objective: Option<Duration>| match (actual, objective) {
            (Some(a), Some(o)) => format!("{} of {}", format_clock(a), format_clock(o)),
            (None, _) => "not reached".to_string(),
            (Some(a), None) => format!("{}, no objective", format_clock(a)),
        };
        let judged = f.judged.as_ref().map(|(passed, _, _)| *passed);
        let failed: Vec<String> = f
            .judged
            .iter()
            .flat_map(|(_, checks, _)| checks)
            .filter(|c| c.verdict != Verdict::Passed)
            .map(|c| format!("{}: {}", c.name, c.detail))
            .collect();
        Self {
            checks: vec![
                (
                    "healthy",
                    healthy,
                    match healthy {
                        Some(true) => "service answers and is well".into(),
                        Some(false) => "service is not well".into(),
                        None => "nobody asked the service: no health check is configured, or no step came to it".into(),
                    },
                ),
                ("verified", verified, format!("{} checks", f.verified.as_ref().map_or(0, |(_, c)| c.len()))),
                ("RTO", rto_met, against(rto, state.rto)),
                ("RPO", rpo_met, against(loss, state.rpo)),
                (
                    "judged",
                    judged,
                    if failed.is_empty() {
                        "by the traffic's and the injector's own logs".into()
                    } else {
                        failed.join("; ")
                    },
                ),
            ],
        }
    }
    /// Whether everything was met. What was not measured was not met.
    pub fn all_good(&self) -> bool {
        self.checks.iter().all(|(_, v, _)| *v == Some(true))
    }
    /// The end of the output.
    pub fn summary(&self, state: &State) -> Vec<String> {
        let mut out =
            vec![String::new(), format!("{}  {}", state.id, if self.all_good() { "PASSED" } else { "FAILED" })];
        for (name, verdict, detail) in &self.checks {
            let word = match verdict {
                Some(true) => "✓ met    ",
                Some(false) => "✗ missed ",
                None => "✗ unknown",
            };
            out.push(format!("  {word}  {name:<9} {detail}"));
        }
        if let Some(loss) = &state.facts.loss {
            let rows: Vec<String> = loss.rows.iter().map(|(t, n)| format!("{n} of {t}")).collect();
            out.push(format!(
                "  lost and kept for salvage: {}",
                if rows.is_empty() { "nothing".into() } else { rows.join(", ") }
            ));
        }
        out
    }
    fn to_json(&self, state: &State) -> serde_json::Value {
        let checks: BTreeMap<&str, serde_json::Value> = self
            .checks
            .iter()
            .map(|(name, v, detail)| (*name, serde_json::json!({"met": v, "detail": detail})))
            .collect();
        serde_json::json!({
            "incident": state.id,
            "passed": self.all_good(),
            "checks": checks,
            "target": state.facts.chosen.as_ref().map(|(t, _, _)| t.to_string()),
            "loss": state.facts.loss,
            "rto_ms": state.restored.as_ref().zip(state.impact.as_ref()).map(|(r, i)| r.at.diff_ms(i.at)),
        })
    }
}

/// Server programs are needed. When there are none, the error says how to install them; with a person at the terminal the
/// command is offered first. Not when a configured folder is at fault: installing would not put that right.
fn programs(configured: Option<&Path>, attended: bool) -> Result<()> {
    let missing = match Programs::find(configured, None) {
        Ok(_) => return Ok(()),
        Err(e) => e,
    };
    let Some(install) = install::install_command() else { return Err(missing) };
    if !attended || configured.is_some() || !std::io::stderr().is_terminal() {
        return Err(missing);
    }
    let mut err = std::io::stderr();
    let _ = write!(err, "{}\n\n  {}\n\nRun this now? [y/N] ", missing.what, install.text);
    let _ = err.flush();
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        return Err(missing);
    }
    for step in &install.argv {
        let mut words: Vec<&str> = step.iter().map(String::as_str).collect();
        if !crate::process::user::is_root() {
            words.insert(0, "sudo");
        }
        let Some((program, args)) = words.split_first() else { continue };
        let status = std::process::Command::new(program)
            .args(args)
            .status()
            .map_err(|e| Error::target(format!("{:?} cannot be run", words.join(" "))).why(e))?;
        if !status.success() {
            return Err(Error::target(format!("{:?} failed", words.join(" "))).why(status));
        }
    }
    Programs::find(None, None).map(|_| ())
}

/// That somebody wants the drill to stop, and how he said so; the sandbox is then removed in order.
#[derive(Default)]
struct Stopped {
    flag: AtomicBool,
    by: OnceLock<Stop>,
}

impl Stopped {
    fn listen(self: &Arc<Self>) -> Result<()> {
        let seen = self.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::state("the asynchronous runtime cannot be started").why(e))?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                if let Ok(mut signals) = Signals::listen() {
                    let _ = seen.by.set(signals.next().await);
                    seen.flag.store(true, Ordering::Relaxed);
                }
            });
        });
        Ok(())
    }
}

/// A remark that is no event: to stderr.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
