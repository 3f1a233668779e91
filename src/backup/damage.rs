//! What verifications found: in the catalog, and on this machine where the catalog cannot be told.
//!
//! The catalog is where it belongs: an entry that only a holder of the key can write, seen from every machine. Whoever may not
//! write there, or looks at a copy (whose catalog speaks of another place), remembers it beside the catalog's head
//! (`<state>/catalogs/<repository>-<place>.found.json`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::anchor;
use super::catalog::{self, Catalog, Change, Damage};
use super::repository::{Repository, Unlocked, now};
use super::store::{Access, DirStore, Existing, Store};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::{CleanText, Time};

const LIMIT: u64 = 1 << 20;
/// Characters of what is written down of an error: one that quotes a whole list must not fill the catalog.
const MOST: usize = 400;

/// Whether an error says that what was read is damaged, or cannot be read for the medium's sake: it concerns that object. Every
/// other failure concerns the repository.
pub fn is_damage(e: &Error) -> bool {
    // A key stanza that was tampered with reads as if no key were there: usage.
    matches!(e.kind, ErrorKind::Check | ErrorKind::Usage) || is_unreadable(e)
}

/// Whether the medium gave something back as unreadable.
pub fn is_unreadable(e: &Error) -> bool {
    use rustix::io::Errno;
    // The number is part of what every error of the system says of itself. A file system that finds its own structures or
    // checksums wrong says so with one of the others.
    let numbers = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::REMOTEIO];
    e.kind == ErrorKind::Target && numbers.iter().any(|n| e.why.contains(&format!("(os error {})", n.raw_os_error())))
}

/// One verification that the catalog was not told of.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    at: Time,
    how: String,
    /// Number of the catalog's last entry then: what a later one says counts more.
    seq: u64,
    /// What is wrong; none when all was right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

type Notes = BTreeMap<String, Note>;

fn file(heads: &Path, repository: &Repository) -> (DirStore, String) {
    (DirStore::new(heads), anchor::file_name(repository, ".found.json"))
}

fn read(heads: &Path, repository: &Repository) -> Result<Notes> {
    let (store, name) = file(heads, repository);
    let Some(bytes) = store.get(&name, LIMIT)? else { return Ok(Notes::new()) };
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::state(format!("what verifications found, {:?}, is damaged", store.root().join(&name).display()))
            .why(e)
            .hint("Remove the file, and verify again.")
    })
}

/// Replaces what is remembered of a backup. Another process may do so for another backup at the same time.
fn remember(heads: &Path, unlocked: &Unlocked, id: &str, note: Option<Note>) -> Result<()> {
    let (store, name) = file(heads, unlocked.repository());
    for _ in 0..100 {
        let was = store.get(&name, LIMIT)?;
        let mut notes: Notes = was.as_deref().and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default();
        match note.clone() {
            Some(note) => notes.insert(id.to_string(), note),
            None => notes.remove(id),
        };
        let bytes = serde_json::to_vec(&notes).state(|| "writing what a verification found".into())?;
        let written = match &was {
            Some(was) if *was == bytes => true,
            Some(was) => store.swap(&name, Access::Private, &|now: &[u8]| now == was.as_slice(), &bytes)?,
            None if notes.is_empty() => true,
            None => store.put(&name, Access::Private, &bytes, Existing::Keep)? == super::store::Committed::Stored,
        };
        if written {
            return Ok(());
        }
    }
    Err(Error::state(format!("{name:?} is being written by others without a pause")).hint("Try again."))
}

/// What verifications from this machine found damaged in a place, and the catalog was not told: the ids of the backups, and in a
/// phrase what. Needs no secret.
///
/// # Errors
/// What is remembered cannot be read.
pub fn noted(heads: &Path, repository: &Repository) -> Result<Vec<(String, String)>> {
    let damage = |(id, n): (String, Note)| Some((id, Damage { at: n.at, how: n.how, why: n.why? }.describe()));
    Ok(read(heads, repository)?.into_iter().filter_map(damage).collect())
}

/// Reads the catalog with what was found from this machine. What cannot be read of that is told through `say`.
///
/// # Errors
/// As [`Catalog::load`].
pub fn load(unlocked: &Unlocked, heads: Option<&PathBuf>, say: &mut dyn FnMut(&str)) -> Result<Catalog> {
    let mut catalog = Catalog::load(unlocked)?;
    let Some(heads) = heads else { return Ok(catalog) };
    let notes = match read(heads, unlocked.repository()) {
        Ok(notes) if notes.is_empty() => return Ok(catalog),
        Ok(notes) => notes,
        Err(e) => {
            say(&e.to_string());
            return Ok(catalog);
        }
    };
    let copy = unlocked.repository().is_copy()?;
    let judged: BTreeMap<&String, u64> = notes.keys().map(|id| (id, catalog.judged(id))).collect();
    for b in &mut catalog.backups {
        let Some((id, note)) = notes.get_key_value(&b.manifest.id) else { continue };
        // The catalog of a copy speaks of another place.
        if !copy && judged.get(id).is_some_and(|seq| *seq > note.seq) {
            continue;
        }
        match &note.why {
            Some(why) => {
                (b.verified_at, b.verified_how, b.proven_at) = (None, None, None);
                b.damaged = Some(Damage { at: note.at, how: note.how.clone(), why: why.clone() });
            }
            None => {
                b.damaged = None;
                (b.verified_at, b.verified_how) = (Some(note.at), Some(note.how.clone()));
                if note.how == catalog::RESTORED {
                    b.proven_at = Some(note.at);
                }
            }
        }
    }
    Ok(catalog)
}

/// Writes down that a backup was found damaged. Gives why the catalog could not be told, where it could not.
pub fn found(unlocked: &Unlocked, heads: Option<&PathBuf>, id: &str, how: &str, error: &Error) -> Option<String> {
    let why = reason(error);
    let change = Change::Damaged { backup: id.into(), how: how.into(), why: why.clone() };
    told(unlocked, heads, id, how, Some(why), catalog::append(unlocked, &change).err())
}

/// What is written down of an error.
pub(super) fn reason(error: &Error) -> String {
    let text = if error.why.is_empty() { error.what.clone() } else { format!("{}: {}", error.what, error.why) };
    CleanText::line(text.replace('\n', " ").as_bytes()).as_str().chars().take(MOST).collect()
}

/// Forgets or replaces what was remembered here of a backup that was found right. `untold` is why the catalog does not say so.
pub fn right(unlocked: &Unlocked, heads: Option<&PathBuf>, id: &str, how: &str, untold: Option<&str>) {
    let untold = untold.map(Error::target);
    let _ = told(unlocked, heads, id, how, None, untold);
}

fn told(
    unlocked: &Unlocked,
    heads: Option<&PathBuf>,
    id: &str,
    how: &str,
    why: Option<String>,
    untold: Option<Error>,
) -> Option<String> {
    let said = |e: Error| if e.why.is_empty() { e.what } else { format!("{}: {}", e.what, e.why) };
    let untold = untold.map(said);
    let Some(heads) = heads else { return untold };
    let here = untold.is_some() || unlocked.repository().is_copy().unwrap_or(false);
    let remembered = || -> Result<()> {
        if why.is_none() {
            let known = read(heads, unlocked.repository()).unwrap_or_default().remove(id);
            let damage = known.and_then(|n| Some(Damage { at: n.at, how: n.how, why: n.why? }));
            if damage.is_some_and(|d| !d.cleared_by(how)) {
                return Ok(());
            }
        }
        let note = match here {
            false => None,
            true => Some(Note { at: now(), how: how.into(), seq: Catalog::load(unlocked)?.head.seq, why: why.clone() }),
        };
        remember(heads, unlocked, id, note)
    };
    match (remembered(), untold) {
        (Ok(()), None) => None,
        (Ok(()), Some(why)) => Some(format!("{why}; it is remembered on this machine only")),
        (Err(e), Some(why)) => Some(format!("{why}; nor can it be remembered here: {}", said(e))),
        (Err(e), None) if here => Some(format!("it cannot be remembered here: {}", said(e))),
        (Err(_), None) => None,
    }
}
