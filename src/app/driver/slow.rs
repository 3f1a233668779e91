//! What takes its time, each on a thread of its own, so that the journal is followed and keys are answered all the while.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Driver, Job, Msg, Tone, World, one_line};
use crate::action::health::{Looked, look_at_backups};
use crate::action::{Ctx, Nowhere, look};
use crate::app::Preview;
use crate::app::data::{HealthRow, Home, IncidentRow, LastDrill, ScenarioRow, SecretRow};
use crate::app::update::{EXPORTED, JUDGING};
use crate::config::{Secrets, Settings};
use crate::drill::release;
use crate::drill::sandbox::{Options, Sandbox};
use crate::drill::session::{DRILLS, Exercise, RPO_MS, RTO_MS, judged, open, runtime, wait_for_alarm};
use crate::error::{Context, Error, Result};
use crate::export::{self, Format};
use crate::incident::{Command, RunRequest, RunStatus, State, StepStatus};
use crate::model::event::Kind;
use crate::model::{CleanText, IncidentId, Plan, RunId};
use crate::process::locks;
use crate::runtime::History;
use crate::runtime::kept_plan::plan_of as plan_of_incident;

/// How long a look at a target may take before the dialog opens without it.
const LOOK: Duration = Duration::from_secs(20);

/// Runs `work` on a thread; an error is told to the reader.
fn aside(driver: &Driver, name: &str, work: impl FnOnce(&World) -> Result<Vec<Msg>> + Send + 'static) -> Result<()> {
    let (world, messages) = (driver.world.clone(), driver.messages.clone());
    let run = move || {
        let said = match work(&world) {
            Ok(said) => said,
            Err(e) => vec![Msg::Busy(None), Msg::Say(Tone::Bad, one_line(&e))],
        };
        for msg in said {
            // Only fails when the screen is gone.
            let _ = messages.blocking_send(msg);
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(run).state(|| "cannot start a thread".into())?;
    Ok(())
}

/// Reads plans, incidents and what they tell of earlier times.
pub(super) fn home(driver: &Driver) -> Result<()> {
    aside(driver, "home", |world| {
        let mut problems = Vec::new();
        let library = world.plans.read()?;
        problems.extend(library.notices.iter().cloned());
        let history = History::read(&world.store).unwrap_or_else(|e| {
            problems.push(one_line(&e));
            History::default()
        });
        for (id, why) in &history.unreadable {
            problems.push(format!("incident {id} cannot be read: {why}"));
        }
        if let Err(e) = world.store.check_writable() {
            problems.push(one_line(&e));
        }
        let plans: Vec<Arc<Plan>> = library.documents.iter().map(|d| Arc::new(d.plan.clone())).collect();
        let plan_of = |file: &str| plans.iter().find(|p| p.file == file).cloned().unwrap_or_default();
        let scenarios = library
            .scenarios()
            .map(|(document, scenario)| {
                let past = history.scenarios.get(&scenario.slug);
                ScenarioRow {
                    file: document.plan.file.clone(),
                    scenario: Arc::new(scenario.clone()),
                    plan: plan_of(&document.plan.file),
                    last_drill: past.and_then(|p| p.last_drill()).map(|p| LastDrill {
                        at: p.opened,
                        took: p.rto,
                        objective: p.objective,
                        passed: p.rto.is_some().then(|| p.went_well()),
                    }),
                    rehearsable: DRILLS.iter().any(|(slug, _)| *slug == scenario.slug),
                    times: Arc::new(history.step_times(&scenario.slug)),
                }
            })
            .collect();
        let mut incidents: Vec<IncidentRow> = Vec::new();
        for (id, _) in &history.open {
            if let Ok(state) = world.store.state(id) {
                // Of its own plan: the library may hold another scenario of that name.
                let total = plan_of_incident(&world.store.incident_dir(id), &state).scenario.steps.len();
                incidents.push(row(&state, total));
            }
        }
        incidents.sort_by_key(|i| i.kind == Kind::Drill);
        let known: Vec<&Plan> = plans.iter().map(|p| p.as_ref()).collect();
        let recorded = crate::runtime::rotations::read(&world.store);
        let secrets = SecretRow::all(&known, &world.config.rotations, &history.rotated, &recorded);
        let problems = problems.iter().map(|p| CleanText::text(p).to_string()).collect();
        Ok(vec![Msg::Home(Box::new(Home { scenarios, plans, incidents, secrets, problems }))])
    })
}

/// Whether anything is configured that `health` looks at.
pub(super) fn looks_at_health(world: &World) -> bool {
    let s = &world.config.settings;
    let opens = look_at_backups(s, &world.config.secrets) != Looked::Nothing;
    s.service.health_url.is_some() || s.database.is_some() || opens || !s.health.is_empty()
}

/// Looks at service, database and backups as `breakglass health` does, unless that was done a moment ago.
pub(super) fn health(driver: &mut Driver) -> Result<()> {
    if !looks_at_health(&driver.world) || driver.health_at.is_some_and(|at| at.elapsed() < super::HEALTH_PAUSE) {
        return Ok(());
    }
    driver.health_at = Some(std::time::Instant::now());
    aside(driver, "health", |world| {
        let Some(action) = world.registry.get("health") else { return Ok(Vec::new()) };
        let config = &world.config;
        let ctx = Ctx::new(config.settings.clone(), config.secrets.clone(), Arc::new(Nowhere));
        let looked = runtime()?.block_on(action.run(&ctx, &[]));
        let at = crate::action::target::now();
        let seen = match looked {
            Ok(done) => HealthRow::of(at, &done.json),
            Err(e) => HealthRow { at, healthy: false, good: Vec::new(), bad: vec![one_line(&e)] },
        };
        Ok(vec![Msg::Health(Box::new(seen))])
    })
}

fn row(state: &State, total: usize) -> IncidentRow {
    let over = state.steps.values().filter(|s| matches!(s.status, StepStatus::Done | StepStatus::Skipped)).count();
    IncidentRow {
        id: state.id.clone(),
        kind: state.kind,
        title: state.people.codename.clone().unwrap_or_else(|| state.title.clone()),
        severity: state.severity.clone(),
        since: state.impact.as_ref().map_or(state.opened.at, |i| i.at),
        rto: state.rto,
        restored: state.restored.as_ref().map(|r| r.at),
        steps: (over, total.max(over)),
        running: state.open_runs().filter(|r| r.status != RunStatus::Unknown).count(),
        unknown: state.open_runs().filter(|r| r.status == RunStatus::Unknown).count(),
    }
}

/// Makes a sandbox, waits for the alarm and opens the drill.
pub(super) fn drill(driver: &Driver, file: String, slug: String) -> Result<()> {
    let (messages, jobs) = (driver.messages.clone(), driver.jobs.clone());
    aside(driver, "drill", move |world| {
        let busy = |text: &str| {
            let _ = messages.blocking_send(Msg::Busy(Some(text.to_string())));
        };
        busy("making a private PostgreSQL with a small shop");
        world.store.check_writable()?;
        let library = world.plans.read()?;
        let (document, scenario) = library
            .scenarios()
            .find(|(d, s)| d.plan.file == file && s.slug == slug)
            .ok_or_else(|| Error::usage(format!("the scenario {slug:?} is no longer in {file:?}")))?;
        let config = &world.config.drill;
        let mut options = Options::new()?;
        options.scenario.clone_from(&scenario.slug);
        options.size = config.size.unwrap_or(options.size);
        options.variant.clone_from(&config.variant);
        options.keep = world.keep;
        options.bin_dir = world.config.settings.bin_dir.clone();
        options.run_as = world.config.settings.run_as.clone();
        let sandbox = Sandbox::make(&options, &mut |text| busy(text))?;
        let exercise = Exercise {
            plan: document.plan.clone(),
            documents: vec![(document.plan.file.clone(), document.bytes.clone())],
            scenario: scenario.slug.clone(),
            rto_ms: config.rto_s.map_or(RTO_MS, |s| s.saturating_mul(1000)),
            rpo_ms: config.rpo_s.map_or(RPO_MS, |s| s.saturating_mul(1000)),
            delay: Duration::ZERO,
        };
        let opened = (|| {
            sandbox.inject(release::Window::default())?;
            busy("the shop is live; the alarm comes unannounced");
            let gone = || messages.is_closed();
            let alarm = wait_for_alarm(&sandbox, &gone)?;
            let incident = open(&world.store, &sandbox, &exercise, &alarm)?;
            Ok((alarm, incident.id().clone()))
        })();
        match opened {
            Ok((alarm, id)) => {
                // Full: the driver takes its time; this thread has nothing else to do.
                let _ = jobs.send(Job::Open(id));
                // It is waited for until the incident is on the screen.
                Ok(vec![Msg::Say(Tone::Bad, format!("ALARM: {alarm}"))])
            }
            Err(e) => {
                // Nobody will come back to a drill that has no incident.
                let _ = sandbox.teardown();
                Err(e)
            }
        }
    })
}

/// Waits until the driver's thread has done what it was sent before.
fn reached(jobs: &SyncSender<Job>) {
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    let _ = jobs.send(Job::Reached(done));
    let _ = wait.recv_timeout(Duration::from_secs(10));
}

/// Judges a drill by the umpire's logs, closes it, and clears the sandbox away.
pub(super) fn close_drill(driver: &Driver, close: Command) -> Result<()> {
    let Some(session) = &driver.session else {
        let _ = driver.messages.blocking_send(Msg::Busy(None));
        return Ok(());
    };
    let (id, scratch) = (session.id().clone(), session.state().facts.drill.as_ref().map(|d| d.0.clone()));
    let (jobs, messages) = (driver.jobs.clone(), driver.messages.clone());
    aside(driver, "judge", move |world| {
        let _ = messages.blocking_send(Msg::Busy(Some(JUDGING.into())));
        let incident = world.store.incident(&id, Default::default())?;
        let sandbox = match scratch.map(|s| Sandbox::join(std::path::Path::new(&s))) {
            Some(Ok(sandbox)) => sandbox,
            // Without its sandbox a drill cannot be judged any more; it can still be closed.
            _ => {
                let _ = jobs.send(Job::Submit(id, close));
                return Ok(vec![
                    Msg::Busy(None),
                    Msg::Say(Tone::Bad, "the sandbox is gone: closed without a judgement".into()),
                ]);
            }
        };
        if let Some(run) = incident.state()?.open_runs().next() {
            return Err(Error::refused(format!("run {} is still open", run.id)).hint("wait for it, or stop it with x"));
        }
        let verdict = judged(&sandbox, &incident, &runtime()?)?;
        let passed = matches!(verdict.last(), Some(crate::model::Event::DrillJudged { passed: true, .. }));
        let _ = jobs.send(Job::Submit(id.clone(), Command::Observe { facts: verdict }));
        let _ = jobs.send(Job::Submit(id, close));
        // Not before the incident is closed on the screen: nobody shall close it a second time.
        reached(&jobs);
        let mut said = vec![Msg::Busy(None)];
        let back = incident.state()?.restored.is_some();
        said.push(match passed {
            false if !back => Msg::Say(
                Tone::Bad,
                "closed before service was back: not passed; what the judge could see is in the timeline (t)".into(),
            ),
            true => Msg::Say(
                Tone::Good,
                "the judge agrees with every figure; RTO and RPO above say whether the objectives were met".into(),
            ),
            false => Msg::Say(Tone::Bad, "the judge does not agree: see the timeline (t)".into()),
        });
        if world.keep {
            said.push(Msg::Say(Tone::Info, format!("the sandbox is kept in {}", sandbox.dir().display())));
        } else if let Err(e) = sandbox.teardown() {
            said.push(Msg::Say(Tone::Bad, one_line(&e)));
        }
        Ok(said)
    })
}

/// What a look at the target of an incident needs to know.
pub(super) fn looking(settings: Settings, secrets: Secrets, state: State, dir: Option<std::path::PathBuf>) -> Ctx {
    Ctx { incident: Some(Arc::new(state)), incident_dir: dir, ..Ctx::new(settings, secrets, Arc::new(Nowhere)) }
}

/// Looks, read-only, at what an action would do. Facts seen are recorded; then the screen asks.
pub(super) fn preview(driver: &Driver, request: Box<RunRequest>) -> Result<()> {
    let Some(session) = &driver.session else { return Ok(()) };
    let id = session.id().clone();
    let found = session.settings();
    let (state, dir) = (session.state().clone(), session.dir());
    let jobs = driver.jobs.clone();
    aside(driver, "preview", move |world| {
        let seen = (|| {
            let (settings, secrets) = found?;
            let action = world
                .registry
                .get(&request.action)
                .ok_or_else(|| Error::state(format!("there is no action {:?}", request.action)))?;
            let cancel = CancellationToken::new();
            let ctx = Ctx {
                cancel: cancel.clone(),
                code: (request.action == "shell" || request.action == "sql").then(|| request.shown.clone()),
                ..looking(settings, secrets, state, dir)
            };
            runtime()?.block_on(async {
                let look = async {
                    let mut seen = action.preview(&ctx, &request.args).await?;
                    look::complete(&ctx, request.risk, &mut seen).await;
                    Ok::<_, Error>(seen)
                };
                match tokio::time::timeout(LOOK, look).await {
                    Ok(done) => done,
                    Err(_) => {
                        cancel.cancel();
                        Err(Error::target("the target did not answer").why(format!("waited {} s", LOOK.as_secs())))
                    }
                }
            })
        })();
        let preview = match seen {
            Ok(seen) => {
                if !seen.facts.is_empty() {
                    let _ = jobs.send(Job::Submit(id, Command::Observe { facts: seen.facts }));
                }
                Preview {
                    lines: seen.lines.iter().map(|l| CleanText::text(l).to_string()).collect(),
                    database: seen.target.map(|t| t.database),
                    failed: None,
                }
            }
            Err(e) => Preview { failed: Some(one_line(&e)), ..Preview::default() },
        };
        // After the facts: the driver's thread has them in the journal and on the screen when this arrives there.
        reached(&jobs);
        Ok(vec![Msg::Previewed(request, preview)])
    })
}

/// Writes the timeline in all formats beside the incidents.
pub(super) fn export(driver: &Driver, id: IncidentId) -> Result<()> {
    aside(driver, "export", move |world| {
        let folder = world.store.root().join("exports").join(id.as_str());
        let formats = [Format::Markdown, Format::Html, Format::Json, Format::Csv];
        let written = export::write(&world.store.incident_dir(&id), &formats, &folder)?;
        let text = format!("{} {EXPORTED} {}", written.len(), folder.display());
        Ok(vec![Msg::Say(Tone::Good, text)])
    })
}

/// Stops what is left of a run whose worker died.
pub(super) fn stop_processes(driver: &Driver, run: RunId) -> Result<()> {
    let Some(folder) = driver.session.as_ref().and_then(|s| s.run_dir(run)) else { return Ok(()) };
    let jobs = driver.jobs.clone();
    aside(driver, "stop", move |_| {
        let gone = locks::stop_orphans(&folder)?;
        let _ = jobs.try_send(Job::Look);
        Ok(vec![match gone {
            true => Msg::Say(Tone::Good, format!("the processes of run {run} have stopped")),
            false => Msg::Say(Tone::Bad, format!("some processes of run {run} still go on")),
        }])
    })
}
