//! `breakglass wal receive`: the log through a replication slot, the unfinished segment every few seconds.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::backup::pinned;
use crate::backup::repository::Repository;
use crate::config::settings::DATABASE_PASSWORD;
use crate::config::{Config, Environment};
use crate::error::{Context, Error, Result};
use crate::model::{CleanText, parse_duration};
use crate::postgres::{Database, Programs};
use crate::recovery::receive::{self, Options};
use crate::recovery::{Phase, Watch};
use crate::runtime::Store;

/// The definition.
pub fn command() -> Command {
    Command::new("receive")
        .about("Stay, and store the server's log as it is written: what can be lost with it is seconds (needs no key)")
        .after_help(
            "Reads through a physical replication slot, which is made when there is none and keeps the log while nothing\n\
             receives: set max_slot_wal_keep_size on the server, and drop the slot when this is given up.\n\
             The role in DATABASE_URL needs REPLICATION. Whole segments are stored as archive_command stores them.",
        )
        .arg(Arg::new("repository").long("repository").value_name("URL").help("The repository; as configured by default"))
        .arg(super::wal::key_id())
        .arg(Arg::new("slot").long("slot").value_name("NAME").default_value("breakglass").help("The replication slot"))
        .arg(
            Arg::new("spool")
                .long("spool")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Folder for what is received and not stored yet; in the state directory by default"),
        )
        .arg(
            Arg::new("every")
                .long("every")
                .value_name("DURATION")
                .default_value("2s")
                .help("How often the unfinished segment is stored"),
        )
}

struct Notes;

impl Watch for Notes {
    fn line(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "breakglass: {}", CleanText::line(text.as_bytes()));
    }
    fn phase(&self, _: &Phase) {}
}

/// Runs it until it is asked to stop, which is its proper end.
///
/// # Errors
/// As [`receive::run`]; when server, repository or programs are not configured.
pub fn run(matches: &ArgMatches) -> Result<u8> {
    let explicit = matches.get_one::<PathBuf>("config").map(PathBuf::as_path);
    let config = Config::load(&Environment::read(), explicit)?;
    let url = matches
        .get_one::<String>("repository")
        .or(config.settings.repository.as_ref())
        .ok_or_else(|| Error::config("no repository is configured").hint("give --repository, or set BACKUP_DIR"))?;
    let repository = Repository::open(url)?;
    if let Some(key) = matches.get_one::<String>("key-id") {
        repository.expect_key(key)?;
    }
    pinned::key(&config.settings.recipients, &repository)?;
    let connection = config.settings.database.as_ref().ok_or_else(|| {
        Error::config("no database is configured").hint("set DATABASE_URL, or target.url in breakglass.toml")
    })?;
    let slot = matches.get_one::<String>("slot").cloned().unwrap_or_default();
    // What PostgreSQL takes (`ReplicationSlotValidateName`).
    if slot.is_empty() || slot.len() > 63 || !slot.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
        return Err(Error::usage(format!("{slot:?} is not the name of a replication slot"))
            .why("lower-case letters, digits and _ only, at most 63"));
    }
    let spool = match matches.get_one::<PathBuf>("spool") {
        Some(dir) => std::path::absolute(dir).usage(|| format!("folder {:?}", dir.display()))?,
        None => Store::open(&config)?.root().join("receive").join(&slot),
    };
    let every = matches.get_one::<String>("every").map_or("2s", String::as_str);
    let options = Options {
        server: Database::of(connection, config.secrets.get(DATABASE_PASSWORD).cloned()),
        slot,
        spool,
        every: parse_duration(every).map_err(Error::usage)?.max(Duration::from_millis(100)),
        programs: Programs::find(config.settings.bin_dir.as_deref(), None)?,
    };
    let (done, _) =
        super::stoppable::run(|cancel| async move { receive::run(&repository, &options, &Notes, &cancel).await })?;
    done.map(|()| 0)
}
