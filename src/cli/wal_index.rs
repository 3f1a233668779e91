//! `breakglass wal index`: reads the archived log once, so that the range, the time axis and names are there at once later.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio_util::sync::CancellationToken;

use super::print;
use crate::action::target::blocking;
use crate::backup::repository::{Repository, Unlocked};
use crate::config::settings::DATABASE_PASSWORD;
use crate::config::{Config, Environment};
use crate::error::{Error, Result};
use crate::model::{CleanText, parse_duration};
use crate::postgres::Database;
use crate::recovery::wal_index::{self, Index, Updated};
use crate::recovery::wal_locate::{NameMap, snapshot};
use crate::recovery::watch::Unwatched;

/// How often the live server is asked for its names while following.
const NAMES_EVERY: Duration = Duration::from_secs(300);

/// The definition.
pub fn command() -> Command {
    Command::new("index")
        .about("Read the archived log once and keep times, commits, suspects and names (needs BACKUP_ENCRYPTION_KEY)")
        .after_help(
            "What was read stays in the repository, sealed like everything else; only segments that are new are read.\n\
             With DATABASE_URL set, the server is asked which table is in which file.",
        )
        .arg(
            Arg::new("repository")
                .long("repository")
                .value_name("URL")
                .help("The repository; as configured by default"),
        )
        .arg(
            Arg::new("follow")
                .long("follow")
                .action(ArgAction::SetTrue)
                .help("Stay, and read what is archived from now on"),
        )
        .arg(
            Arg::new("every")
                .long("every")
                .value_name("DURATION")
                .value_parser(value_parser!(String))
                .default_value("5s")
                .help("With --follow: how often to look"),
        )
}

/// Runs it.
///
/// # Errors
/// The repository cannot be opened, read or written.
pub fn run(matches: &ArgMatches, json: bool) -> Result<u8> {
    let explicit = matches.get_one::<PathBuf>("config").map(PathBuf::as_path);
    let config = Config::load(&Environment::read(), explicit)?;
    let unlocked = unlock(&config, matches.get_one::<String>("repository"))?;
    let server =
        config.settings.database.as_ref().map(|c| Database::of(c, config.secrets.get(DATABASE_PASSWORD).cloned()));
    let every = matches.get_one::<String>("every").map_or("5s", String::as_str);
    let every = parse_duration(every).map_err(Error::usage)?;
    let follow = matches.get_flag("follow");
    match super::stoppable::run(|cancel| rounds(unlocked, server, every, follow, json, cancel))? {
        // Following has no end of its own: to be stopped is to be done.
        (Ok(_) | Err(Error { kind: crate::error::ErrorKind::Interrupted, .. }), Some(_)) if follow => Ok(0),
        (Ok(_), Some(stop)) => Ok(stop.exit_code()),
        (Err(e), stop) => super::stoppable::ended(e, stop, json),
        (done, None) => done,
    }
}

/// The repository named or configured, opened with the secret of the environment.
fn unlock(config: &Config, named: Option<&String>) -> Result<Unlocked> {
    let url = named
        .or(config.settings.repository.as_ref())
        .ok_or_else(|| Error::config("no repository is configured").hint("give --repository, or set BACKUP_DIR"))?;
    Repository::open(url)?.unlock_with(&config.secrets)
}

async fn rounds(
    unlocked: Unlocked,
    server: Option<Database>,
    every: Duration,
    follow: bool,
    json: bool,
    cancel: CancellationToken,
) -> Result<u8> {
    let (work, stop) = (unlocked.clone(), cancel.clone());
    let (mut index, mut names) = blocking(move || Ok((Index::load(&work)?, wal_index::names(&work)?))).await?;
    for problem in &index.problems {
        note(problem);
    }
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(at) = server.as_ref().filter(|_| asked.is_none_or(|t| t.elapsed() >= NAMES_EVERY)) {
            asked = Some(Instant::now());
            match snapshot::update(&mut names, at).await {
                Ok(_) => {
                    let (work, map) = (unlocked.clone(), names.clone());
                    blocking(move || wal_index::keep_names(&work, &map)).await?;
                }
                Err(e) => note(&format!("names are those that the log tells: {}; {}", e.what, e.why)),
            }
        }
        let (work, stop, mut known) = (unlocked.clone(), stop.clone(), std::mem::take(&mut index));
        let map = std::mem::replace(&mut names, NameMap::new());
        let updated: Updated;
        (updated, index, names) = blocking(move || {
            let (updated, names) = wal_index::update(&work, &mut known, map, &Unwatched, &stop)?;
            Ok((updated, known, names))
        })
        .await?;
        if !follow || updated.segments > 0 {
            say(&updated, json)?;
        }
        if !follow {
            return Ok(u8::from(!updated.damaged.is_empty()));
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = cancel.cancelled() => return Ok(0),
        }
    }
}

fn note(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "breakglass: {}", CleanText::line(text.as_bytes()));
}

fn say(updated: &Updated, json: bool) -> Result<()> {
    if json {
        return print(&serde_json::json!(updated).to_string());
    }
    print(&format!("{} segments read, {} known", updated.segments, updated.known))?;
    updated.damaged.iter().try_for_each(|d| print(&format!("  DAMAGED {}", CleanText::line(d.as_bytes()))))
}
