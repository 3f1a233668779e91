//! `breakglass backup init|list|verify|rotate-key`. What takes or restores a backup is an action and comes from the registry.

use std::io::Write;
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::act::Foreground;
use super::{Invocation, print};
use crate::action::reach::Reporter;
use crate::backup::anchor::{self, Anchors, head_from_text};
use crate::backup::base::{Verified, verify_backup};
use crate::backup::catalog::{Backup, Catalog};
use crate::backup::repository::{InitOptions, Repository, Unlocked};
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY};
use crate::error::{Error, Result};
use crate::model::{CleanText, Secret};
use crate::recovery::{Phase, Watch};

/// The subcommand's name.
pub const NAME: &str = "backup";

/// The definition; actions add theirs.
pub fn command() -> Command {
    let repository = || {
        Arg::new("repository").long("repository").value_name("URL").help("Instead of BACKUP_DIR or the configuration")
    };
    Command::new(NAME)
        .about("Encrypted backups of PostgreSQL")
        .subcommand_required(true)
        .subcommand(Command::new("init").about("Make a repository; its key is BACKUP_ENCRYPTION_KEY").arg(repository()))
        .subcommand(Command::new("list").about("The backups of a repository, oldest first").arg(repository()))
        .subcommand(super::backup_keys::command().arg(repository()))
        .subcommand(
            Command::new("verify")
                .about("Read every byte of a backup and of the log it needs; exit 1 when something is wrong")
                .arg(repository())
                .arg(Arg::new("id").value_name("ID").help("The backup; the newest one when not given"))
                .arg(
                    Arg::new("all")
                        .long("all")
                        .action(ArgAction::SetTrue)
                        .conflicts_with("id")
                        .help("Every backup of the catalog"),
                )
                .arg(
                    Arg::new("anchor")
                        .long("anchor")
                        .value_name("HEAD")
                        .help("Hold the catalog against this head as well, from an earlier `backup create` (12:4f2a…)"),
                )
                .arg(
                    Arg::new("accept-catalog").long("accept-catalog").action(ArgAction::SetTrue).help(
                        "Remember the catalog as it is from now on, although it does not go on from what was seen",
                    ),
                )
                .args(super::backup_deep::arguments()),
        )
}

/// Whether a matched subcommand is handled here.
pub fn is_mine(matches: &ArgMatches) -> bool {
    matches!(matches.subcommand_name(), Some("init" | "list" | "verify" | "rotate-key"))
}

/// Runs it.
pub fn run(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    match matches.subcommand() {
        Some(("init", m)) => init(invocation, m),
        Some(("list", m)) => list(invocation, m),
        Some(("verify", m)) => verify(invocation, m),
        Some(("rotate-key", m)) => super::backup_keys::rotate(invocation, m, &url(invocation, m)?),
        _ => Err(Error::usage("backup needs a subcommand").hint("breakglass backup --help")),
    }
}

fn url(invocation: &Invocation, matches: &ArgMatches) -> Result<String> {
    let configured = || invocation.config.settings.repository.clone();
    matches.get_one::<String>("repository").cloned().or_else(configured).ok_or_else(|| {
        Error::config("no repository is configured").hint("Set BACKUP_DIR, or repository.url in breakglass.toml.")
    })
}

fn key(invocation: &Invocation) -> Result<&Secret> {
    invocation.config.secrets.get(REPOSITORY_KEY).ok_or_else(|| {
        Error::config("the repository's key is not set").hint("Set BACKUP_ENCRYPTION_KEY, at least 32 characters.")
    })
}

fn unlocked(invocation: &Invocation, matches: &ArgMatches) -> Result<Unlocked> {
    let secrets = &invocation.config.secrets;
    // The key is looked at first: asking for it is cheaper than reading a repository that cannot be opened.
    if secrets.get(REPOSITORY_IDENTITY).is_none() {
        key(invocation)?;
    }
    Repository::open(&url(invocation, matches)?)?.unlock_with(secrets)
}

fn init(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let url = url(invocation, matches)?;
    let options = InitOptions::archived_by(invocation.config.settings.run_as.as_deref());
    let repository = Repository::init(&url, key(invocation)?, &options)?;
    let (id, at) = (crate::backup::container::hex(&repository.id()), repository.store().url());
    if invocation.json {
        print(&format!("{:#}", serde_json::json!({"repository": id, "url": at})))?;
    } else {
        print(&format!("repository {id} in {at}"))?;
        print(
            "Keep BACKUP_ENCRYPTION_KEY and a copy of the folder `keys` somewhere else: without both, nothing can be read.",
        )?;
    }
    Ok(0)
}

fn describe(b: &Backup) -> String {
    let m = &b.manifest;
    let stored: u64 = m.objects.iter().map(|o| o.stored_bytes).sum();
    let plain: u64 = m.objects.iter().map(|o| o.plain_bytes).sum();
    let verified = b.verified_at.map_or_else(|| "never verified".into(), |t| format!("verified {}", t.date_hms()));
    let part =
        m.part.as_deref().map_or_else(String::new, |p| format!(", of {} only", CleanText::line(p.as_bytes()).as_str()));
    let proven = b.proven_at.map_or_else(String::new, |t| format!(", restored and right {}", t.date_hms()));
    let log = match (&m.timeline, &m.start_lsn, &m.stop_lsn) {
        (Some(t), Some(start), Some(stop)) => format!(", timeline {t}, {start} to {stop}"),
        _ => String::new(),
    };
    let label =
        m.label.as_deref().map_or_else(String::new, |l| format!(", {:?}", CleanText::line(l.as_bytes()).as_str()));
    format!("{}  {} MB in {} MB{part}{log}, {verified}{proven}{label}", m.id, plain / 1_000_000, stored / 1_000_000)
}

/// Holds the catalog against its head as it was last seen from here ([`anchor::check`]).
fn rolled_back(invocation: &Invocation, unlocked: &Unlocked, catalog: &Catalog) -> Option<Error> {
    anchor::check(invocation.config.settings.catalog_heads.as_ref(), unlocked, catalog, &mut |line| {
        let _ = writeln!(std::io::stderr(), "{line}");
    })
}

fn list(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let unlocked = unlocked(invocation, matches)?;
    let catalog = Catalog::load(&unlocked)?;
    let rolled_back = rolled_back(invocation, &unlocked, &catalog);
    if let Some(e) = &rolled_back {
        let _ = writeln!(std::io::stderr(), "WARNING: {e}");
    }
    if invocation.json {
        let backups = &catalog.backups;
        let document =
            serde_json::json!({"backups": backups, "head": catalog.head, "rolled_back": rolled_back.is_some()});
        print(&format!("{document:#}"))?;
    } else if catalog.backups.is_empty() {
        print("no backups")?;
    } else {
        for backup in &catalog.backups {
            print(&describe(backup))?;
        }
    }
    Ok(0)
}

fn verify(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let unlocked = unlocked(invocation, matches)?;
    let catalog = Catalog::load(&unlocked)?;
    if matches.get_flag("accept-catalog") {
        let heads = invocation.config.settings.catalog_heads.as_ref();
        let heads = heads.ok_or_else(|| Error::config("there is no state directory to remember the catalog in"))?;
        Anchors::new(heads).accept(&unlocked, &catalog.head)?;
    }
    // First: what is missing from the catalog cannot be verified.
    if let Some(given) = matches.get_one::<String>("anchor") {
        let head = head_from_text(given)?;
        if !catalog.holds(&head) {
            return Err(anchor::rolled_back(&catalog.head, &head, "it does not go through the head that was given"));
        }
    }
    if let Some(e) = rolled_back(invocation, &unlocked, &catalog) {
        return Err(e);
    }
    let wanted: Vec<&Backup> = match matches.get_one::<String>("id") {
        Some(id) => vec![catalog.find(id)?],
        None if matches.get_flag("all") => catalog.backups.iter().collect(),
        None => super::backup_deep::pick(matches, &catalog)?.into_iter().collect(),
    };
    if matches.get_flag("deep") {
        return super::backup_deep::verify(invocation, matches, &unlocked, wanted);
    }
    if wanted.is_empty() {
        return Err(Error::check("there is no backup to verify").hint("Take one with `breakglass backup create`."));
    }
    let mut results = Vec::new();
    for backup in wanted {
        let m = &backup.manifest;
        let total: u64 = m.objects.iter().map(|o| o.plain_bytes).sum();
        let result = verify_with_progress(invocation, &unlocked, &m.id, total);
        // One bad backup must not hide what is wrong with the next.
        if let Err(e) = &result
            && e.kind != crate::error::ErrorKind::Check
        {
            return Err(e.clone());
        }
        if !invocation.json {
            match &result {
                Ok(v) => print(&format!("{}  right: {} bytes read", m.id, v.plain_bytes))?,
                Err(e) => print(&format!("{}  WRONG: {e}", m.id))?,
            }
        }
        results.push((m.id.clone(), result));
    }
    // That they were verified stands in the catalog now.
    let _ = rolled_back(invocation, &unlocked, &Catalog::load(&unlocked)?);
    let all_right = results.iter().all(|(_, r)| r.is_ok());
    if invocation.json {
        let each: Vec<serde_json::Value> = results
            .iter()
            .map(|(id, result)| match result {
                Ok(v) => serde_json::json!({"backup": id, "ok": true, "plain_bytes": v.plain_bytes, "wal": v.wal}),
                Err(e) => serde_json::json!({"backup": id, "ok": false, "error": e.to_json()["error"]}),
            })
            .collect();
        print(&format!("{:#}", serde_json::json!({"ok": all_right, "backups": each})))?;
    }
    Ok(u8::from(!all_right))
}

fn verify_with_progress(invocation: &Invocation, unlocked: &Unlocked, id: &str, total: u64) -> Result<Verified> {
    let out = Foreground::new(invocation);
    let (reporter, begun) = (Reporter::new(&out), Instant::now());
    let result = verify_backup(unlocked, id, &mut |done| {
        reporter.phase(&Phase::bytes("verify", done, Some(total), begun));
        Ok(())
    });
    out.finish();
    result
}
