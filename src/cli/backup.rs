//! `breakglass backup init|list|repair|rotate-key|verify`. What takes or restores a backup is an action and comes from the registry.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::act::Foreground;
use super::{Invocation, print, stoppable};
use crate::action::Ctx;
use crate::action::target::Follow;
use crate::backup::anchor::{self, Anchors, LostEnd, head_from_text};
use crate::backup::catalog::{self, Backup, Catalog};
use crate::backup::repository::{InitOptions, Repository, Unlocked};
use crate::backup::seen;
use crate::backup::store::open_place;
use crate::config::Backend;
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{CleanText, Secret};
use crate::recovery::backend::{Native, Recovery, Seen, Verified, Which, open};

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
        .subcommand(
            Command::new("init").about("Make a repository; its key is BACKUP_ENCRYPTION_KEY").arg(repository()).arg(
                Arg::new("new-place")
                    .long("new-place")
                    .action(ArgAction::SetTrue)
                    .help("Although one was there when it was last looked at: it is gone, or was moved"),
            ),
        )
        .subcommand(Command::new("list").about("The backups of a repository, oldest first").arg(repository()))
        .subcommand(super::backup_keys::command().arg(repository()))
        .subcommand(super::backup_repair::command().arg(repository()))
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
    matches!(matches.subcommand_name(), Some("init" | "list" | "repair" | "verify" | "rotate-key"))
}

/// Runs it.
pub fn run(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    if let Some((name @ ("init" | "repair" | "rotate-key"), m)) = matches.subcommand() {
        super::changes(m, &format!("{NAME} {name}"))?;
    }
    match matches.subcommand() {
        Some(("init", m)) => init(invocation, m),
        Some(("list", m)) => list(invocation, m),
        Some(("repair", m)) => super::backup_repair::repair(invocation, m, &url(invocation, m)?),
        Some(("verify", m)) => verify(invocation, m),
        Some(("rotate-key", m)) => super::backup_keys::rotate(invocation, m, url(invocation, m)?),
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
    let (url, heads) = (url(invocation, matches)?, invocation.config.settings.catalog_heads.as_deref());
    let unlocked = Repository::open_to_read(&url, secrets).map_err(|e| seen::or_elsewhere(&url, heads, e))?;
    Ok(unlocked.looked_at_if(invocation.config.settings.read_only))
}

fn init(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let url = url(invocation, matches)?;
    if let (Some(heads), false) = (&invocation.config.settings.catalog_heads, matches.get_flag("new-place")) {
        still_there(heads, &url)?;
    }
    let options = InitOptions::archived_by(invocation.config.settings.run_as.as_deref());
    let repository = Repository::init(&url, key(invocation)?, &options)?;
    let (id, at) = (crate::backup::container::hex(&repository.id()), repository.store().url());
    if let Some(heads) = &invocation.config.settings.catalog_heads
        && let Err(e) = crate::backup::seen::remember(heads, &repository)
    {
        warn(&format!("which repository is there cannot be remembered on this machine: {}: {}", e.what, e.why));
    }
    if invocation.json {
        print(&format!("{:#}", serde_json::json!({"repository": id, "url": at, "key_id": repository.key_id()})))?;
    } else {
        print(&format!("repository {id} in {at}"))?;
        print(
            "Keep BACKUP_ENCRYPTION_KEY and a copy of the folder `keys` somewhere else: without both, nothing can be read.",
        )?;
    }
    Ok(0)
}

/// Where one is known to have been and nothing is now, a disk is more likely not mounted than a new one meant.
fn still_there(heads: &Path, url: &str) -> Result<()> {
    let store = open_place(url, false)?;
    let at = store.url();
    match seen::at(heads, &at)? {
        // What is left of one is another matter.
        Some(known) if !Repository::exists(url)? && store.list("keys/")?.is_empty() => {
            Err(Error::refused(format!("making a new repository in {at:?}"))
                .why(seen::was_there(&known))
                .hint("Is the disk mounted, is the folder the right one?")
                .hint("If a new one is meant: breakglass backup init --new-place."))
        }
        _ => Ok(()),
    }
}

/// Holds the catalog against its head as it was last seen from here ([`anchor::check`]).
fn rolled_back(invocation: &Invocation, unlocked: &Unlocked, catalog: &Catalog) -> Option<Error> {
    anchor::check(invocation.config.settings.catalog_heads.as_ref(), unlocked, catalog, &mut |line| {
        let _ = writeln!(std::io::stderr(), "{line}");
    })
}

/// Who keeps the backups. `--repository` names one of ours, whoever recovers otherwise.
fn recovery(invocation: &Invocation, matches: &ArgMatches) -> Result<Box<dyn Recovery>> {
    let mut settings = invocation.config.settings.clone();
    if let Some(url) = matches.get_one::<String>("repository") {
        settings.repository = Some(url.clone());
        settings.backend = Backend::Native;
    }
    if settings.backend == Backend::Native {
        // The key is looked at first: asking for it is cheaper than reading a repository that cannot be opened.
        url(invocation, matches)?;
        if invocation.config.secrets.get(REPOSITORY_IDENTITY).is_none() {
            key(invocation)?;
        }
    }
    open(&settings, &invocation.config.secrets, std::env::temp_dir())
}

fn list(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let recovery = recovery(invocation, matches)?;
    let all = stoppable::plainly(recovery.backups())??;
    for warning in &all.warnings {
        let _ = writeln!(std::io::stderr(), "{warning}");
    }
    if invocation.json {
        print(&format!("{:#}", all.json))?;
    } else if all.lines.is_empty() {
        print("no backups")?;
    } else {
        for line in &all.lines {
            print(line)?;
        }
    }
    Ok(u8::from(all.damaged))
}

fn verify(invocation: &Invocation, matches: &ArgMatches) -> Result<u8> {
    let accept = matches.get_flag("accept-catalog");
    if accept {
        super::changes(matches, "backup verify --accept-catalog")?;
    }
    let elsewhere = invocation.config.settings.backend;
    if elsewhere != Backend::Native && matches.get_one::<String>("repository").is_none() {
        let flags = ["deep", "accept-catalog"].into_iter().filter(|f| matches.get_flag(f));
        let named = ["anchor", "pick"].into_iter().filter(|f| matches.contains_id(f));
        if let Some(ours) = flags.chain(named).next() {
            return Err(Error::usage(format!("--{ours} is for a repository of ours"))
                .why(format!("{} keeps the backups", elsewhere.word()))
                .hint("leave it out, or name a repository with --repository"));
        }
        let which = match matches.get_one::<String>("id") {
            Some(id) => Which::One(id.clone()),
            None if matches.get_flag("all") => Which::All,
            None => Which::Newest,
        };
        return report(invocation, recovery(invocation, matches)?, which, &[], false);
    }
    let unlocked = unlocked(invocation, matches)?;
    let mut catalog = Catalog::load(&unlocked)?;
    if accept {
        catalog = accepted(invocation, &unlocked, catalog)?;
    }
    // Said already where it cannot be understood. What is right is not written down on the word of a file that is wrong.
    let other = match unlocked.repository().doubt() {
        Some(_) => None,
        None => unlocked.wrong_cluster(&catalog, true)?,
    };
    other.iter().for_each(|e| warn(&e.to_string()));
    let mis_said = other.is_some();
    let unlocked = match other {
        Some(e) => unlocked.by_what_is_stored(&catalog, e),
        None => unlocked,
    };
    // What is missing from the catalog cannot be verified, and keeps nobody from looking at what is there; the exit code says so
    // in the end.
    let mut wrong = Vec::new();
    if let Some(given) = matches.get_one::<String>("anchor") {
        let head = head_from_text(given)?;
        if !catalog.holds(&head) {
            wrong.push(anchor::rolled_back(&catalog.head, &head, "it does not go through the head that was given"));
        }
    }
    wrong.extend(rolled_back(invocation, &unlocked, &catalog));
    wrong.iter().for_each(|e| warn(&e.to_string()));
    let mut damaged = !wrong.is_empty() || mis_said;
    let unlocked = match wrong.first() {
        // An entry would make another end of it, and bury what is known of the one before.
        Some(e) if catalog.damage().is_none() && unlocked.repository().doubt().is_none() => {
            unlocked.looked_at(Error { kind: ErrorKind::Refused, ..e.clone() })
        }
        _ => unlocked,
    };
    catalog.lost_lines().iter().chain(&catalog.stray_lines()).for_each(|line| warn(line));
    // Whoever names a backup asks about that one.
    damaged |= !catalog.lost.is_empty() && matches.get_one::<String>("id").is_none();
    let wanted: Vec<&Backup> = match matches.get_one::<String>("id") {
        Some(id) => vec![catalog.find(id)?],
        None if matches.get_flag("all") => catalog.backups.iter().collect(),
        None => super::backup_deep::pick(invocation, matches, &catalog)?.into_iter().collect(),
    };
    if (accept || damaged) && wanted.is_empty() {
        // It was rolled back to where there was no backup yet.
        if invocation.json {
            let catalog = wrong.first().map(|e| e.to_json()["error"].clone());
            print(&format!("{:#}", serde_json::json!({"ok": !damaged, "backups": [], "catalog": catalog})))?;
        }
        return Ok(u8::from(damaged));
    }
    if matches.get_flag("deep") {
        return super::backup_deep::verify(invocation, matches, &unlocked, wanted, &wrong, damaged);
    }
    let which = match (matches.get_one::<String>("id"), matches.get_flag("all"), wanted.as_slice()) {
        (Some(id), ..) => Which::One(id.clone()),
        (None, true, _) => Which::All,
        (None, false, [one]) => Which::One(one.manifest.id.clone()),
        _ => Which::Newest,
    };
    let native = Native::of(unlocked, &invocation.config.settings, std::env::temp_dir());
    report(invocation, Box::new(native), which, &wrong, damaged)
}

/// Writes down that the catalog is right as it is, in it and on this machine; gives it as it is then.
fn accepted(invocation: &Invocation, unlocked: &Unlocked, catalog: Catalog) -> Result<Catalog> {
    let heads = invocation.config.settings.catalog_heads.as_ref().map(|folder| Anchors::new(folder));
    // One that cannot be read is replaced below.
    let seen = heads.as_ref().and_then(|h| h.known(unlocked).ok().flatten()).map(|anchor| anchor.head);
    let entered = catalog::accept(unlocked, seen.as_ref())?;
    let now = if entered.is_some() { Catalog::load(unlocked)? } else { catalog };
    match &heads {
        Some(heads) => {
            let lost = seen.clone().filter(|head| !now.holds(head));
            let from = entered.as_ref().map_or(now.head.seq + 1, |entry| entry.seq);
            heads.accept(unlocked, &now.head, lost.map(|head| LostEnd { head, from }))?;
        }
        None if entered.is_some() => {}
        None => return Err(Error::config("there is no state directory to remember the catalog in")),
    }
    let said = match now.accepted.last().filter(|a| entered.as_ref().is_some_and(|head| head.seq == a.seq)) {
        Some(a) => a.describe(),
        None if seen.as_ref().is_some_and(|head| !now.holds(head)) => format!(
            "the catalog is remembered as it is, up to entry {}, on this machine alone: it is a copy, and takes no entries of its own",
            now.head.seq
        ),
        None => {
            format!("the catalog is remembered as it is, up to entry {}; nothing was missing from it", now.head.seq)
        }
    };
    let _ = writeln!(std::io::stderr(), "{said}");
    Ok(now)
}

/// A line on stderr.
pub(super) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "WARNING: {}", CleanText::text(text));
}

/// Verifies and says what was found; 1 when something is wrong, with the catalog itself (`wrong`), or `damaged` in it; 3 when all is right
/// and that could not be written down.
fn report(
    invocation: &Invocation,
    recovery: Box<dyn Recovery>,
    which: Which,
    wrong: &[Error],
    damaged: bool,
) -> Result<u8> {
    let json = invocation.json;
    let out = Arc::new(Foreground::new(invocation));
    let config = &invocation.config;
    let follow = Follow::new(&Ctx::new(config.settings.clone(), config.secrets.clone(), out.clone()));
    let shown = out.clone();
    let seen: Seen = Arc::new(move |v: &Verified| {
        shown.finish();
        if !json {
            let line = match &v.result {
                Ok(what) => format!("{}  right: {what}", v.what),
                Err(e) => format!("{}  WRONG: {e}", v.what),
            };
            let _ = print(&line);
        }
    });
    let work = |cancel| async move { recovery.verify(&which, follow, &cancel, seen).await };
    let (results, stop) = stoppable::run(work)?;
    out.finish();
    let results = match results {
        Ok(results) => results,
        Err(e) => return stoppable::ended(e, stop, json),
    };
    if results.is_empty() {
        return Err(Error::check("there is no backup to verify").hint("Take one with `breakglass backup create`."));
    }
    let all_right = results.iter().all(|v| v.result.is_ok()) && !damaged;
    let untold: Vec<&str> = results.iter().filter(|v| v.untold.is_some()).map(|v| v.what.as_str()).collect();
    let recorded = untold.is_empty() || !all_right;
    if !recorded {
        warn(&format!(
            "what was found to be right could not be written down ({}): it is listed as before\n  hint: Make room in the repository, or let \
             this user write there, and verify again. Who only looks asks for no record: --read-only.",
            untold.join(", ")
        ));
    }
    if json {
        let each: Vec<serde_json::Value> = results
            .iter()
            .map(|v| {
                let mut one = match &v.result {
                    Ok(what) => serde_json::json!({"backup": v.what, "ok": true, "seen": what}),
                    Err(e) => serde_json::json!({"backup": v.what, "ok": false, "error": e.to_json()["error"]}),
                };
                if let (Some(one), Some(more)) = (one.as_object_mut(), v.detail.as_object()) {
                    one.extend(more.clone());
                }
                one
            })
            .collect();
        let catalog = wrong.first().map(|e| e.to_json()["error"].clone());
        print(&format!(
            "{:#}",
            serde_json::json!({"ok": all_right, "backups": each, "catalog": catalog, "recorded": untold.is_empty()})
        ))?;
    }
    Ok(match (all_right, recorded) {
        (false, _) => ErrorKind::Check.exit_code(),
        (true, false) => ErrorKind::Target.exit_code(),
        (true, true) => 0,
    })
}
