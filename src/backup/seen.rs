//! Which repository was last seen in which place, and for which key it was written: what this machine knows without any secret.
//!
//! `repository.json` can be replaced by whoever may write there, the archiver reads it, and a place that is empty looks like one that
//! was never used. What was opened with the key once is therefore remembered (`<state>/catalogs/place-<place>.json`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::anchor::place_of;
use super::container::hex;
use super::damage::is_damage;
use super::repository::{INFO, Repository, Unlocked, now};
use super::store::{Access, DirStore, Existing, Store};
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY, Secrets};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::Time;
use crate::plan::shell_words::as_written;

const LIMIT: u64 = 1 << 16;
const PREFIX: &str = "place-";

/// A repository as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its id.
    pub repository: String,
    /// Names the key that it was written for ([`Repository::key_id`]).
    pub key_id: String,
    /// System identifier of its cluster, once it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Where, without options.
    pub place: String,
    /// Since when it is known so.
    pub at: Time,
    /// Whether it was a copy of another place when it was last looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copy: bool,
}

/// A place as it is remembered: without options, and whatever the working directory.
pub fn place(url: &str) -> String {
    let place = place_of(url);
    if place.contains("://") {
        return place;
    }
    std::path::absolute(&place).map_or(place, |p| p.display().to_string())
}

fn name(place: &str) -> String {
    format!("{PREFIX}{}.json", hex(&Sha256::digest(place.as_bytes())[..8]))
}

/// Remembers a repository that was just made, or opened with its secret.
///
/// # Errors
/// The folder cannot be written; the repository cannot be read.
pub fn remember(folder: &Path, repository: &Repository) -> Result<()> {
    let cluster = repository.cluster()?.map(|c| c.system_identifier.to_string());
    let place = place(&repository.store().url());
    let mut seen = Seen {
        repository: hex(&repository.id()),
        key_id: repository.key_id(),
        system_identifier: cluster,
        place,
        at: now(),
        copy: repository.is_copy()?,
    };
    if let Some(known) = read(folder, &name(&seen.place)).ok().flatten() {
        let since = std::mem::replace(&mut seen.at, known.at);
        if known == seen {
            return Ok(());
        }
        seen.at = since;
    }
    let bytes = serde_json::to_vec(&seen).state(|| "remembering a repository".into())?;
    DirStore::new(folder).put(&name(&seen.place), Access::Private, &bytes, Existing::Replace).map(|_| ())
}

fn read(folder: &Path, name: &str) -> Result<Option<Seen>> {
    let Some(bytes) = DirStore::new(folder).get(name, LIMIT)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::state(format!("what was seen of a repository, {:?}, is damaged", folder.join(name).display()))
            .why(e)
            .hint("Remove the file; the next command that opens the repository writes it anew.")
    })
}

/// What was seen in the place of a URL ([`super::store::Store::url`]).
///
/// # Errors
/// The file cannot be read.
pub fn at(folder: &Path, url: &str) -> Result<Option<Seen>> {
    read(folder, &name(&place(url)))
}

/// That one was seen in a place that holds none, in a sentence.
pub fn was_there(seen: &Seen) -> String {
    format!("repository {} was there when it was last looked at, and nothing is there now", seen.repository)
}

/// Every repository that was seen and still can be read of, by place, copies last.
///
/// # Errors
/// The folder cannot be read.
pub fn all(folder: &Path) -> Result<Vec<Seen>> {
    let names = DirStore::new(folder).list("")?;
    let names = names.iter().filter(|e| e.name.starts_with(PREFIX));
    let mut found: Vec<Seen> = names.filter_map(|e| read(folder, &e.name).ok().flatten()).collect();
    found.sort_by(|a, b| (a.copy, &a.place).cmp(&(b.copy, &b.place)));
    Ok(found)
}

/// Where no repository could be opened because there is none: those that this machine knows, named first. A place that is misspelt is
/// likelier than one that was never made.
pub fn or_elsewhere(url: &str, folder: Option<&Path>, mut e: Error) -> Error {
    if e.kind != ErrorKind::Target || !matches!(Repository::exists(url), Ok(false)) {
        return e;
    }
    let known = folder.and_then(|f| all(f).ok()).unwrap_or_default();
    let here = place(url);
    let (gone, others): (Vec<Seen>, Vec<Seen>) = known.into_iter().partition(|s| s.place == here);
    let gone = gone.iter().map(|s| {
        let last = format!("Repository {} was there when it was last looked at", s.repository);
        format!("{last}: is the disk mounted, is the folder the right one?")
    });
    let others = others.iter().take(3).map(|s| {
        let what = if s.copy { "a copy of a repository" } else { "a repository" };
        format!("This machine knows {what} since {}: BACKUP_DIR={}", s.at.date_hms(), s.place)
    });
    e.hints.splice(0..0, gone.chain(others));
    e
}

/// Other places in which this repository was seen.
///
/// # Errors
/// The folder cannot be read.
pub fn copies(folder: &Path, repository: &Repository) -> Result<Vec<String>> {
    let (id, here) = (hex(&repository.id()), place(&repository.store().url()));
    let others = all(folder)?.into_iter().filter(|s| s.repository == id && s.place != here);
    Ok(others.map(|s| s.place).collect())
}

/// What can be said of the key that a repository says it is written for.
#[derive(Debug, Clone)]
pub enum Known {
    /// The secret at hand opens the repository: it is ours.
    Ours,
    /// It is the one that was seen here since then, or follows it by its holder's signature.
    Since(Time),
    /// Nobody here has seen it before.
    Unknown,
    /// It is another one than was seen, or none of the key file's.
    Stranger(Error),
}

impl Known {
    /// In a phrase.
    pub fn describe(&self) -> String {
        match self {
            Self::Ours => "the secret set here opens it".into(),
            Self::Since(at) => format!("as it was seen here on {}", at.date_hms()),
            Self::Unknown => "nobody has seen it from here before".into(),
            Self::Stranger(_) => "NOT the one that is known here".into(),
        }
    }

    /// How to check it, where that is needed before it is named anywhere.
    pub fn advice(&self) -> Option<String> {
        let compare = format!(
            "compare {INFO} and the folder keys with a copy, or ask `breakglass doctor` where BACKUP_ENCRYPTION_KEY is set"
        );
        match self {
            Self::Ours | Self::Since(_) => None,
            Self::Unknown => {
                Some(format!("nothing here says that this key is yours; before you name it anywhere: {compare}"))
            }
            Self::Stranger(_) => Some(format!("name no key that {INFO} gives: {compare}")),
        }
    }
}

/// Holds the key of a repository against what is known here: by the secret, where one is set, else by what was seen.
pub fn judge(repository: &Repository, folder: Option<&PathBuf>, secrets: &Secrets) -> Known {
    judge_open(repository, folder, secrets).0
}

/// As [`judge`], with the repository unlocked where the secret did that.
pub fn judge_open(repository: &Repository, folder: Option<&PathBuf>, secrets: &Secrets) -> (Known, Option<Unlocked>) {
    if [REPOSITORY_KEY, REPOSITORY_IDENTITY].iter().any(|name| secrets.get(name).is_some()) {
        match repository.unlock_with(secrets) {
            Ok(unlocked) => return (Known::Ours, Some(unlocked)),
            Err(e) if e.kind == ErrorKind::Check && is_damage(&e) => return (Known::Stranger(e), None),
            // Another passphrase says nothing of the key.
            Err(_) => {}
        }
    }
    (by_what_was_seen(repository, folder), None)
}

fn by_what_was_seen(repository: &Repository, folder: Option<&PathBuf>) -> Known {
    let Some(seen) = folder.and_then(|f| at(f, &repository.store().url()).ok().flatten()) else {
        return Known::Unknown;
    };
    if repository.follows(&seen.key_id) {
        return Known::Since(seen.at);
    }
    let e = Error::check(format!("{INFO} in {:?} names another key than the one known here", repository.store().url()));
    Known::Stranger(
        e.why(format!(
            "it says {}; here {} was seen on {}, and nothing signed by its holder says that another one took its place",
            repository.key_id(),
            seen.key_id,
            seen.at.date_hms()
        ))
        .hint(format!(
            "Somebody may have put a key of their own there, to read what is written from now on: compare {INFO} and the folder keys \
             with a copy. `breakglass backup repair`, with BACKUP_ENCRYPTION_KEY, writes {INFO} anew from the key file."
        ))
        .hint("If the repository was made anew on purpose: `breakglass backup list` with BACKUP_ENCRYPTION_KEY takes note of it."),
    )
}

/// The word after an option of `wal archive` in an `archive_command`, such as `--key-id`, as the shell reads it.
pub fn option_in(command: &str, option: &str) -> Option<String> {
    let (_, options) = archiving_in(command)?;
    let mut words = options.into_iter();
    while let Some(word) = words.next() {
        match word.strip_prefix(option) {
            Some("") => return words.next(),
            Some(rest) if rest.starts_with('=') => return rest.strip_prefix('=').map(String::from),
            _ => {}
        }
    }
    None
}

/// Whether an `archive_command` says yes to every segment and does nothing: `/bin/true`, `:`, `exit 0`.
pub fn stores_nothing(command: &str) -> bool {
    let nothing = |words: &[String]| match words {
        [] => true,
        [exit] if exit == "exit" => true,
        [exit, code] if exit == "exit" => code == "0",
        [program, ..] => program == ":" || program.rsplit('/').next() == Some("true"),
    };
    let pipelines = as_written(&command.replace("%%", "%"));
    !pipelines.is_empty() && pipelines.iter().all(|p| p.iter().all(|simple| nothing(&simple.words)))
}

/// The program that an `archive_command` calls with `wal archive`, as the shell reads it.
pub fn program_in(command: &str) -> Option<String> {
    archiving_in(command).map(|(program, _)| program)
}

/// The program that is called with `wal archive`, and what it is given. A command that a shell is given as one word (`sh -c '…'`) is
/// looked into.
fn archiving_in(command: &str) -> Option<(String, Vec<String>)> {
    // What PostgreSQL makes of it comes first.
    let commands = || as_written(&command.replace("%%", "%")).into_iter().flatten().map(|simple| simple.words);
    for mut words in commands() {
        let at = words.windows(2).position(|two| two == ["wal", "archive"]);
        if let Some(at) = at.filter(|at| *at > 0) {
            let options = words.split_off(at + 2);
            return words.into_iter().nth(at - 1).map(|program| (program, options));
        }
    }
    commands()
        .flatten()
        .filter(|w| w.len() < command.len() && w.contains(" wal archive"))
        .find_map(|w| archiving_in(&w))
}
