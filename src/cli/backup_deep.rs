//! `breakglass backup verify --deep`: proof by restoring into a private server, with a report for the monthly restore test.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use clap::{Arg, ArgAction, ArgMatches};
use tokio_util::sync::CancellationToken;

use super::act::Foreground;
use super::{Invocation, print, stoppable};
use crate::action::reach::Reporter;
use crate::backup::catalog::{Backup, Catalog};
use crate::backup::repository::Unlocked;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::event::Verdict;
use crate::model::{CleanText, parse_duration};
use crate::postgres::{Database, user};
use crate::process::signals::Signals;
use crate::recovery::deep::{Options, deep, write_report};

/// What belongs to `--deep`.
pub fn arguments() -> Vec<Arg> {
    let with_deep = |name: &'static str| Arg::new(name).long(name).requires("deep");
    vec![
        Arg::new("deep").long("deep").action(ArgAction::SetTrue).help(
            "Restore into a private server, check it with amcheck and against the dump's counts, and run --smoke",
        ),
        Arg::new("pick")
            .long("pick")
            .value_parser(["newest", "random"])
            .conflicts_with_all(["id", "all"])
            .help("Which backup: the newest (default) or any, so that over time every one is tried"),
        with_deep("smoke").value_name("CMD").help("Shell command that gets DATABASE_URL of the copy; must exit 0"),
        with_deep("smoke-limit").value_name("TIME").default_value("10m").help("How long it may take"),
        with_deep("report").value_name("DIR").help("Write ID.md and ID.json there"),
        with_deep("scratch").value_name("DIR").help("Where the private server is made; the system's temporary folder"),
    ]
}

/// The backup to look at when none was named. A restore test proves what would be restored in earnest: of the database that is
/// configured, whole. Where there is none such, the newest one, aloud.
pub fn pick<'c>(invocation: &Invocation, m: &ArgMatches, catalog: &'c Catalog) -> Result<Option<&'c Backup>> {
    if m.get_one::<String>("pick").map(String::as_str) != Some("random") || catalog.backups.is_empty() {
        if !m.get_flag("deep") {
            return Ok(catalog.backups.last());
        }
        let settings = &invocation.config.settings;
        let expected = |key: &str| settings.expect.get(key).map(String::as_str);
        let connected = settings.database.as_ref().map(|c| Database::of(c, None));
        let database = expected("database").or(connected.as_ref().map(Database::name));
        if let Some(whole) = catalog.whole(expected("system_identifier"), database).next_back() {
            return Ok(Some(whole));
        }
        if let Some(newest) = catalog.backups.last() {
            let of = database.map_or_else(String::new, |d| format!(" of database {d:?} or its cluster"));
            super::backup::warn(&format!(
                "no whole backup{of} is there: the newest one, {}, is looked at, and is no proof for that",
                newest.manifest.id
            ));
        }
        return Ok(catalog.backups.last());
    }
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|e| Error::state("no random numbers").why(e))?;
    let n = u64::from_be_bytes(bytes) % catalog.backups.len() as u64;
    Ok(usize::try_from(n).ok().and_then(|n| catalog.backups.get(n)))
}

/// Runs it. What cannot be tried keeps no other from it, and is named in the end. `wrong` and `damaged`: with the catalog itself.
///
/// # Errors
/// The only backup that was asked for cannot be tried.
pub fn verify(
    invocation: &Invocation,
    m: &ArgMatches,
    unlocked: &Unlocked,
    wanted: Vec<&Backup>,
    wrong: &[Error],
    damaged: bool,
) -> Result<u8> {
    if wanted.is_empty() {
        return Err(Error::check("there is no backup to verify").hint("Take one with `breakglass backup create`."));
    }
    let settings = &invocation.config.settings;
    let limit = m.get_one::<String>("smoke-limit").map_or("10m", String::as_str);
    let options = Options {
        scratch: m.get_one::<String>("scratch").map_or_else(std::env::temp_dir, PathBuf::from),
        bin_dir: settings.bin_dir.clone(),
        run_as: user::for_server(settings.run_as.as_deref())?,
        smoke: m.get_one::<String>("smoke").cloned(),
        smoke_limit: parse_duration(limit).map_err(|e| Error::usage(format!("--smoke-limit: {e}")))?,
        heads: settings.catalog_heads.clone(),
        record: !settings.read_only,
    };
    let options = Options { scratch: std::path::absolute(&options.scratch).usage(|| "--scratch".into())?, ..options };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .state(|| "The asynchronous runtime cannot be started".into())?;
    let (cancel, stopped) = (CancellationToken::new(), Arc::new(OnceLock::new()));
    let (interrupted, by) = (cancel.clone(), stopped.clone());
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    runtime.spawn(async move {
        let _ = by.set(signals.next().await);
        interrupted.cancel();
    });
    let (mut reports, mut untried) = (Vec::new(), Vec::new());
    let many = wanted.len() > 1;
    for backup in wanted {
        let out = Foreground::new(invocation);
        let report = runtime.block_on(deep(unlocked, &backup.manifest, &options, &Reporter::new(&out), &cancel));
        out.finish();
        let report = match report {
            Ok(report) => report,
            Err(e) if many && stopped.get().is_none() && e.kind != ErrorKind::Interrupted => {
                untried.push((backup.manifest.id.clone(), e));
                continue;
            }
            Err(e) => return stoppable::ended(e, stopped.get().copied(), invocation.json),
        };
        if let Some(dir) = m.get_one::<String>("report") {
            write_report(&report, &invocation.env.cwd.join(dir))?;
        }
        if !invocation.json {
            let took = report.took_ms as f64 / 1000.0;
            print(&format!(
                "{}  {} in {took:.1} s",
                report.backup,
                if report.ok { "restorable" } else { "NOT RESTORABLE" }
            ))?;
            for c in &report.checks {
                let word = match c.verdict {
                    Verdict::Passed => "passed",
                    Verdict::Failed => "FAILED",
                    Verdict::NotAvailable => "not checked",
                };
                print(CleanText::line(format!("  {word}: {}: {}", c.name, c.detail).as_bytes()).as_str())?;
            }
        }
        reports.push(report);
    }
    let ok = reports.iter().all(|r| r.ok) && !damaged;
    if invocation.json {
        let catalog = wrong.first().map(|e| e.to_json()["error"].clone());
        let left: Vec<_> =
            untried.iter().map(|(id, e)| serde_json::json!({"backup": id, "error": e.to_json()["error"]})).collect();
        let document =
            serde_json::json!({"ok": ok && left.is_empty(), "backups": reports, "not_tried": left, "catalog": catalog});
        print(&format!("{document:#}"))?;
    } else {
        untried
            .iter()
            .try_for_each(|(id, e)| print(&format!("{id}  NOT TRIED: {}", CleanText::text(&e.to_string()))))?;
    }
    let unrecorded = reports.iter().any(|r| r.unrecorded.is_some());
    Ok(match untried.first() {
        _ if !ok => ErrorKind::Check.exit_code(),
        Some((_, e)) => e.kind.exit_code(),
        None if unrecorded => ErrorKind::Target.exit_code(),
        None => 0,
    })
}
