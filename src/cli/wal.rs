//! `breakglass wal archive|fetch|receive|index|status`.
//!
//! A PostgreSQL server runs the first two: in its environment, as its user, in a directory of its choosing. They read
//! neither configuration nor `HOME`, and the exit status of `fetch` decides whether a recovery goes on or promotes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{print, report};
use crate::backup::keys::Opener;
use crate::backup::pinned;
use crate::backup::repository::{MEND_CLUSTER, Repository};
use crate::backup::seen::{self, Known};
use crate::backup::spool::mounted_read_only;
use crate::backup::wal::{self, EXIT_NOT_IN_ARCHIVE, EXIT_STOP_RECOVERY, Fetched};
use crate::backup::wal_service::fetch_from;
use crate::config::settings::DATABASE_PASSWORD;
use crate::config::{Config, Environment};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{CleanText, Secret};
use crate::postgres::{Database, identity};
use crate::recovery::backend::same_cluster;
use crate::recovery::segments::Segments;
use crate::recovery::unheld::{Unheld, unheld};
use crate::recovery::wal_health::{self, ServerWal};

/// The subcommand's name.
pub const NAME: &str = "wal";

/// The definition.
pub fn command() -> Command {
    let repository = || Arg::new("repository").long("repository").value_name("URL").help("The repository: file:///… ");
    let name = || Arg::new("name").value_name("NAME").required(true).help("Name of the WAL file (%f)");
    Command::new(NAME)
        .about("The archive of the write-ahead log")
        .subcommand_required(true)
        .subcommand(
            Command::new("archive")
                .about("Store one WAL file; needs no secret (for archive_command)")
                .after_help(
                    "Returns when the file is durable in the repository. When more files wait in archive_status beside it, the\n\
                     next ones are stored at the same time, so that the calls for them return at once.",
                )
                .arg(repository().required(true))
                .arg(key_id())
                .arg(
                    Arg::new("path")
                        .value_name("PATH")
                        .required(true)
                        .value_parser(value_parser!(PathBuf))
                        .help("The file (%p)"),
                ),
        )
        .subcommand(
            Command::new("fetch")
                .about("Bring one WAL file back (for restore_command)")
                .after_help(
                    "Exit status 1 says that the archive has no such file; 200 says anything else that went wrong,\n\
                     so that PostgreSQL stops instead of taking damage for the end of its log.",
                )
                .arg(repository().required_unless_present("socket").conflicts_with("socket"))
                .arg(
                    Arg::new("socket")
                        .long("socket")
                        .value_name("SOCKET")
                        .value_parser(value_parser!(PathBuf))
                        .help("Ask the recovery worker that listens here; no key is needed"),
                )
                .arg(name())
                .arg(
                    Arg::new("dest")
                        .value_name("DEST")
                        .required(true)
                        .value_parser(value_parser!(PathBuf))
                        .help("Where to put it (%p)"),
                ),
        )
        .subcommand(super::wal_receive::command())
        .subcommand(super::wal_index::command())
        .subcommand(
            Command::new("status")
                .about("What the archive holds, with every hole, and how the server's archiving is doing; exit 1 when something is wrong")
                .after_help(
                    "With a server configured (DATABASE_URL), it is asked, too: lag, failures, slots, time until the disk is full.\n\
                     Exit status 3 says that it does not answer, and that what the repository shows is all right.",
                )
                .arg(repository().env("BACKUP_DIR").default_value("./backups")),
        )
}

/// The key that is archived for, by whoever holds no secret.
pub(super) fn key_id() -> Arg {
    Arg::new("key-id")
        .long("key-id")
        .value_name("ID")
        .help("Store nothing when the repository is written for another key (`wal status` shows its id), unless rotate-key put it there")
}

/// Whether a command line is one whose every failure must stop a recovery.
pub fn is_fetch(args: &[OsString]) -> bool {
    let mut words = args.iter().skip(1).filter(|a| !a.to_string_lossy().starts_with('-'));
    words.next().is_some_and(|a| a == NAME) && words.next().is_some_and(|a| a == "fetch")
}

/// Runs it, without configuration.
pub fn run(matches: &ArgMatches, json: bool) -> Result<u8> {
    let text = |m: &ArgMatches, id: &str| m.get_one::<String>(id).cloned().unwrap_or_default();
    let path = |m: &ArgMatches, id: &str| m.get_one::<PathBuf>(id).cloned().unwrap_or_default();
    if let Some((name @ ("archive" | "receive" | "index"), m)) = matches.subcommand() {
        super::changes(m, &format!("{NAME} {name}"))?;
    }
    match matches.subcommand() {
        Some(("archive", m)) => {
            let url = text(m, "repository");
            let mut key = m.get_one::<String>("key-id").cloned();
            // Nothing but what is named: a server's environment and working directory are not ours.
            if let Some(file) = m.get_one::<PathBuf>("config") {
                let config = Config::load(&Environment::read(), Some(file))?;
                let pinned =
                    pinned::key(&config.settings.recipients, &Repository::open_absolute(&url)?)?.map(String::from);
                key = key.or(pinned);
            }
            wal::archive_ahead(&url, &path(m, "path"), key.as_deref()).map(|_| 0)
        }
        Some(("fetch", m)) => {
            let (name, dest, url) = (text(m, "name"), path(m, "dest"), text(m, "repository"));
            let socket = m.get_one::<PathBuf>("socket").cloned();
            // A panic would exit with 101, which PostgreSQL takes for "no such file".
            let result = std::panic::catch_unwind(|| match &socket {
                Some(socket) => fetch_from(socket, &name, &dest),
                None => fetch_with_key(&url, &name, &dest),
            })
            .unwrap_or_else(|_| Err(Error::state("wal fetch ended by an error in breakglass itself")));
            Ok(match result {
                Ok(Fetched::Restored) => 0,
                Ok(Fetched::NotInArchive) => EXIT_NOT_IN_ARCHIVE,
                Err(error) => {
                    report(&error, json);
                    EXIT_STOP_RECOVERY
                }
            })
        }
        Some(("receive", m)) => super::wal_receive::run(m),
        Some(("index", m)) => super::wal_index::run(m, json),
        Some(("status", m)) => {
            // Asked by a person, not by a server: what is configured counts here.
            let given = m.value_source("repository") != Some(ValueSource::DefaultValue);
            let mut config = Config::load(&Environment::read(), m.get_one::<PathBuf>("config").map(PathBuf::as_path))?;
            config.settings.catalog_heads =
                crate::runtime::Store::open(&config).map(|s| s.root().join(crate::backup::anchor::FOLDER)).ok();
            let configured = config.settings.repository.clone().filter(|_| !given);
            status(&configured.unwrap_or_else(|| text(m, "repository")), &config, json)
        }
        _ => Err(Error::usage("wal needs a subcommand").hint("breakglass wal status")),
    }
}

fn fetch_with_key(url: &str, name: &str, dest: &Path) -> Result<Fetched> {
    let key = std::env::var("BACKUP_ENCRYPTION_KEY").map_err(|e| {
        Error::usage("BACKUP_ENCRYPTION_KEY cannot be used")
            .why(e)
            .hint("Set it for the server, or use --socket with a recovery worker.")
    })?;
    // A recovery goes on by the key file; who started it was told.
    let unlocked = Repository::open_to_read_absolute(url, Opener::Passphrase(&Secret::new(key)))?;
    wal::fetch(&unlocked, name, dest)
}

/// What a server said.
struct Asked {
    server: ServerWal,
    gap: Option<Unheld>,
    /// That the repository is of another cluster.
    stranger: Option<Error>,
}

/// The configured server, when there is one; a server that does not answer is said and is no failure of the archive.
fn server(repository: &Repository, archive: &wal::WalStatus, config: &Config) -> Option<Result<Asked>> {
    let at = Database::of(config.settings.database.as_ref()?, config.secrets.get(DATABASE_PASSWORD).cloned());
    let ask = async {
        let mut c = at.connect_read_only(Duration::from_secs(2), Duration::from_secs(30)).await?;
        let mut server = wal_health::ask(&mut c, archive).await?;
        let archived = repository.cluster()?.map(|c| c.system_identifier.to_string());
        let live = identity(&mut c, &at).await?;
        let other = same_cluster(archived.as_deref(), &live).err();
        // It may be the file that is wrong, and not the database.
        let refused = live.system_identifier.parse().ok().and_then(|id| repository.of_cluster(id).err());
        if let Some(e) = refused.filter(|e| e.hints.iter().any(|h| h == MEND_CLUSTER)).or(other) {
            // How far one cluster is ahead of another says nothing.
            server.lag_bytes = None;
            return Ok(Asked { server, gap: None, stranger: Some(e) });
        }
        Ok(Asked { server, gap: unheld(&mut c, repository).await?, stranger: None })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Some(
        runtime
            .map_err(|e| Error::state("the asynchronous runtime cannot be started").why(e))
            .and_then(|r| r.block_on(ask)),
    )
}

fn status(url: &str, config: &Config, json: bool) -> Result<u8> {
    let repository = Repository::open(url)?;
    let status = wal::status(&repository)?;
    let (server, gap, stranger) = match server(&repository, &status, config) {
        Some(Ok(Asked { server, gap, stranger })) => (Some(Ok(server)), gap, stranger),
        Some(Err(e)) => (Some(Err(e)), None, None),
        None => (None, None, None),
    };
    let mut problems: Vec<String> = stranger.iter().map(Error::sentence).collect();
    if let Some(Ok(s)) = &server {
        problems.extend(s.problems());
    }
    problems.extend(gap.iter().map(|g| format!("{}; {}", g.what(), g.advice())));
    problems.extend(status.received.as_ref().and_then(|r| wal_health::silent(r, crate::action::target::now())));
    let (known, unlocked) = seen::judge_open(&repository, config.settings.catalog_heads.as_ref(), &config.secrets);
    let held = Segments::look(&repository, unlocked.as_ref())?;
    problems.extend(held.exchanged_sentence());
    problems.extend(mounted_read_only(&repository.store().url()).filter(|_| !config.settings.read_only));
    if let Known::Stranger(e) = &known {
        problems.push(e.sentence());
    }
    problems.extend(pinned::stranger(&config.settings.recipients, &repository).map(|e| e.sentence()));
    if let Some(Ok(s)) = &server {
        problems.extend(other_key(&repository, s));
    }
    // Asked for and not answered: what it alone knows is not known, and the exit code says so.
    let silent = matches!(&server, Some(Err(_)));
    if json {
        let mut value = serde_json::to_value(&status).map_err(|e| Error::state("printing the status").why(e))?;
        match &server {
            Some(Ok(s)) => value["server"] = serde_json::json!(s),
            Some(Err(e)) => value["server_error"] = e.to_json()["error"].clone(),
            None => {}
        }
        if let Some(gap) = &gap {
            value["not_held"] = serde_json::json!(gap);
        }
        value["unusable"] = serde_json::json!(held.unusable);
        value["tablespace"] = serde_json::json!(held.tablespace);
        value["exchanged"] = held.exchanged.iter().map(|e| e.segment.to_string()).collect();
        value["last_good"] = serde_json::json!(held.before);
        value["segments_not_looked_at"] = held.left.into();
        value["problems"] = serde_json::json!(problems);
        value["key_id"] = repository.key_id().into();
        value["key_known"] = known.describe().into();
        if silent {
            value["not_known"] = NOT_KNOWN.into();
        }
        print(&format!("{value:#}"))?;
    } else {
        print(&format!("written for key {} ({})", repository.key_id(), known.describe()))?;
        if let (Known::Unknown, Some(advice)) = (&known, known.advice()) {
            print(&format!("  {advice}"))?;
        }
        if status.timelines.is_empty() {
            print("no WAL archived")?;
        }
        for t in &status.timelines {
            let at = t.last_archived_at.map_or_else(|| "at an unknown time".into(), |t| format!("archived {t}"));
            print(&format!(
                "timeline {}: {} to {}, {} segments, {} bytes stored, last {at}",
                t.timeline, t.first, t.last, t.segments, t.stored_bytes
            ))?;
            for hole in &t.holes {
                print(&format!("  HOLE {} to {}: {}", hole.first, hole.last, hole.why))?;
            }
            if !t.holes.is_empty() {
                print(BEYOND_A_HOLE)?;
            }
        }
        held.lines().iter().try_for_each(|l| print(CleanText::line(l.as_bytes()).as_str()))?;
        if let Some(r) = &status.received {
            let lsn = match &server {
                Some(Ok(s)) => s.lsn.parse().ok(),
                _ => None,
            };
            let line = wal_health::received_line(r, lsn, crate::action::target::now());
            print(&CleanText::line(line.as_bytes()).to_string())?;
        }
        match &server {
            Some(Ok(s)) => s.lines().iter().try_for_each(|l| print(CleanText::line(l.as_bytes()).as_str()))?,
            Some(Err(e)) => {
                print(&format!("server: {e}"))?;
                print(&format!("  NOT KNOWN without it: {}", NOT_KNOWN.join(", ")))?;
            }
            None => {}
        }
        problems.iter().try_for_each(|p| print(&format!("  PROBLEM {}", CleanText::line(p.as_bytes()))))?;
    }
    let wrong = !problems.is_empty()
        || !held.unusable.is_empty()
        || held.tablespace.is_some()
        || status.timelines.iter().any(|t| !t.holes.is_empty());
    Ok(match (wrong, silent) {
        (true, _) => ErrorKind::Check.exit_code(),
        (false, true) => ErrorKind::Target.exit_code(),
        (false, false) => 0,
    })
}

/// What a hole leaves, and what makes a recovery beyond it possible.
const BEYOND_A_HOLE: &str = "  nothing is recovered across a hole: breakglass pitr range shows up to where and from where it goes; copies of the \
     segments that are found go in with breakglass wal archive; a base backup made now (breakglass backup create --physical) begins behind it";

/// What only the server knows.
const NOT_KNOWN: [&str; 6] = [
    "whether it archives",
    "for which key",
    "how far the archive is behind",
    "failures of the archiver",
    "slots",
    "the time until its disk is full",
];

/// A server that archives here for another key than this repository is written for: its log is not stored.
fn other_key(repository: &Repository, server: &ServerWal) -> Option<String> {
    let id = server.key_id.as_ref()?;
    let to = server.archives_to.as_ref()?;
    let here = Repository::open(to).is_ok_and(|r| r.id() == repository.id() && r.key_id() == repository.key_id());
    (here && !repository.follows(id)).then(|| {
        format!(
            "the server's archive_command is for key {id}, the repository says {}, and nothing signed by the holder of the first \
             leads to the second: the log is not stored; compare repository.json and the folder keys with a copy",
            repository.key_id()
        )
    })
}
