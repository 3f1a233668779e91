//! Heads of catalogs, kept outside the repositories: a catalog put back to an earlier state is a whole chain, and only a later
//! head, remembered elsewhere, shows it.
//!
//! One small file per repository in the state directory (`<state>/catalogs/<repository>-<place>.json`); the journal of an incident and the
//! output of `backup create` hold heads as well, which `backup verify --anchor` takes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::catalog::{Catalog, Head, manifest_name};
use super::container::hex;
use super::repository::{Repository, Unlocked, now};
use super::seen;
use super::store::{Access, DirStore, Existing, Store};
use crate::error::{Context, Error, Result};
use crate::model::Time;

/// Name of the folder in the state directory.
pub const FOLDER: &str = "catalogs";
const LIMIT: u64 = 1 << 16;

/// A head that was remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The newest head seen.
    pub head: Head,
    /// When it was seen.
    pub at: Time,
    /// The place it was seen in, without options.
    pub place: String,
    /// The end that was given up for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<LostEnd>,
}

/// An end of a catalog that somebody gave up for lost when he accepted another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEnd {
    /// The head that had been seen.
    pub head: Head,
    /// Number of the first entry of the end that was accepted instead.
    pub from: u64,
}

/// How a catalog stands to what was remembered of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was remembered; now this head is.
    First,
    /// It goes on from what was remembered; now its head is.
    Follows,
    /// It is older than what was remembered, or another one. What was remembered stays.
    RolledBack(Box<Anchor>),
}

/// Where heads are remembered.
#[derive(Debug, Clone)]
pub struct Anchors {
    store: DirStore,
}

impl Anchors {
    /// In the folder [`FOLDER`] of a state directory, which need not be there yet.
    pub fn new(folder: &Path) -> Self {
        Self { store: DirStore::new(folder) }
    }

    /// One for each place a repository is in: a copy may well be behind.
    fn name(unlocked: &Unlocked) -> String {
        file_name(unlocked.repository(), ".json")
    }

    /// What is remembered of a repository.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn known(&self, unlocked: &Unlocked) -> Result<Option<Anchor>> {
        let name = Self::name(unlocked);
        let Some(bytes) = self.store.get(&name, LIMIT)? else { return Ok(None) };
        let path: PathBuf = self.store.root().join(&name);
        let damaged = |e| Error::state(format!("the remembered catalog head {:?} is damaged", path.display())).why(e);
        serde_json::from_slice(&bytes).map(Some).map_err(damaged).map_err(|e| e.hint("Remove the file to begin anew."))
    }

    /// Holds a catalog against what is remembered, and remembers its head when it follows.
    ///
    /// # Errors
    /// The file cannot be read or written; the catalog cannot be read again.
    pub fn look(&self, unlocked: &Unlocked, catalog: &Catalog) -> Result<Standing> {
        let known = self.known(unlocked)?;
        let Some(anchor) = &known else {
            self.remember(unlocked, &catalog.head, None)?;
            return Ok(Standing::First);
        };
        if anchor.head == catalog.head {
            return Ok(Standing::Follows);
        }
        if catalog.holds(&anchor.head) {
            self.remember(unlocked, &catalog.head, known.as_ref())?;
            return Ok(Standing::Follows);
        }
        // Somebody may have gone on, and remembered it, after this catalog was read.
        if anchor.head.seq > catalog.head.seq && Catalog::load(unlocked)?.holds(&anchor.head) {
            return Ok(Standing::Follows);
        }
        Ok(Standing::RolledBack(Box::new(anchor.clone())))
    }

    /// Remembers a head whatever was remembered before: somebody looked and says that it is right. `instead_of` is the one that he
    /// gave up for it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn accept(&self, unlocked: &Unlocked, head: &Head, instead_of: Option<LostEnd>) -> Result<()> {
        let bytes = self.bytes(unlocked, head, instead_of)?;
        self.store.put(&Self::name(unlocked), Access::Private, &bytes, Existing::Replace).map(|_| ())
    }

    fn bytes(&self, unlocked: &Unlocked, head: &Head, instead_of: Option<LostEnd>) -> Result<Vec<u8>> {
        let place = place(unlocked.repository());
        let anchor = Anchor { head: head.clone(), at: now(), place, instead_of };
        serde_json::to_vec(&anchor).state(|| "writing a catalog head".into())
    }

    /// Only over what was seen: another process may have remembered a later one.
    fn remember(&self, unlocked: &Unlocked, head: &Head, seen: Option<&Anchor>) -> Result<()> {
        let given_up = seen.and_then(|anchor| anchor.instead_of.clone());
        let (name, bytes) = (Self::name(unlocked), self.bytes(unlocked, head, given_up)?);
        match seen {
            None => self.store.put(&name, Access::Private, &bytes, Existing::Keep).map(|_| ()),
            Some(seen) => {
                let is = |old: &[u8]| serde_json::from_slice::<Anchor>(old).is_ok_and(|old| old == *seen);
                self.store.swap(&name, Access::Private, &is, &bytes).map(|_| ())
            }
        }
    }
}

/// Name of a file that says something of a repository in a place.
pub(super) fn file_name(repository: &Repository, ending: &str) -> String {
    let place = Sha256::digest(place(repository).as_bytes());
    format!("{}-{}{ending}", hex(&repository.id()), hex(&place[..4]))
}

/// Where a repository is, without options: those do not make it another place.
fn place(repository: &Repository) -> String {
    place_of(&repository.store().url())
}

/// A repository's URL without options.
pub(super) fn place_of(url: &str) -> String {
    url.split_once('?').map_or(url, |(place, _)| place).to_string()
}

/// What keeps anybody from writing: `repository.json` cannot be relied on ([`Repository::doubt`]), or what [`went_on`] says.
pub fn check(
    folder: Option<&PathBuf>,
    unlocked: &Unlocked,
    catalog: &Catalog,
    say: &mut dyn FnMut(&str),
) -> Option<Error> {
    let told = went_on(folder, unlocked, catalog, say);
    match (unlocked.repository().doubt().cloned(), told) {
        (Some(doubt), Some(told)) => Some(doubt.hint(told.to_string())),
        (doubt, told) => doubt.or(told),
    }
}

/// Holds a catalog against its head as it was last seen by whoever remembers in `folder`; gives what to say when it was rolled back
/// or entries of it are missing or damaged.
/// A folder that cannot be read or written is told through `say`, and hinders nothing.
pub fn went_on(
    folder: Option<&PathBuf>,
    unlocked: &Unlocked,
    catalog: &Catalog,
    say: &mut dyn FnMut(&str),
) -> Option<Error> {
    // It was opened with its secret: this is its key. That it cannot be remembered hinders nothing.
    if unlocked.repository().doubt().is_none() {
        let _ = folder.map(|f| seen::remember(f, unlocked.repository()));
    }
    // Told first: where entries are missing, what was remembered cannot be held against them.
    if let Some(e) = catalog.damage() {
        return Some(e);
    }
    match Anchors::new(folder?).look(unlocked, catalog) {
        Ok(Standing::RolledBack(anchor)) => Some(missing(&anchor, unlocked, catalog)),
        Ok(Standing::First | Standing::Follows) => None,
        Err(e) => {
            say(&format!("the head of the catalog cannot be remembered: {}: {}", e.what, e.why));
            None
        }
    }
}

/// As [`went_on`], of a catalog that may be damaged: what cannot be read is not held against it, but it must not end before what was
/// seen, nor have another entry there.
pub fn went_back(
    folder: Option<&PathBuf>,
    unlocked: &Unlocked,
    catalog: &Catalog,
    say: &mut dyn FnMut(&str),
) -> Option<Error> {
    if catalog.damage().is_none() {
        return went_on(folder, unlocked, catalog, say);
    }
    let known = Anchors::new(folder?).known(unlocked).ok()??;
    let other = catalog.digest(known.head.seq).is_some_and(|digest| digest != known.head.sha256);
    (other || known.head.seq > catalog.head.seq).then(|| missing(&known, unlocked, catalog))
}

/// [`Anchor::against`], with the backups that no entry names any more.
fn missing(anchor: &Anchor, unlocked: &Unlocked, catalog: &Catalog) -> Error {
    let error = anchor.against(catalog);
    match unnamed(unlocked, catalog) {
        None => error,
        Some(which) => error.why(which),
    }
}

/// Most backups that are named.
const MOST: usize = 5;

/// Backups that lie in the repository and that no entry names: what a catalog that was put back does not know any more. None when
/// there is none, or they cannot be listed.
fn unnamed(unlocked: &Unlocked, catalog: &Catalog) -> Option<String> {
    let names = unlocked.repository().store().list("backups/").ok()?;
    let known = |id: &str| {
        catalog.removed.contains(id)
            || catalog.backups.iter().any(|b| b.manifest.id == id)
            || catalog.lost.iter().any(|l| l.backup == id)
    };
    let whole = names.iter().filter_map(|e| Some((&e.name, e.name.split('/').nth(1)?)));
    let ids: Vec<&str> =
        whole.filter(|(name, id)| manifest_name(id) == **name && !known(id)).map(|(_, id)| id).collect();
    let shown = ids.get(ids.len().saturating_sub(MOST)..).unwrap_or_default();
    match (shown, ids.len() - shown.len()) {
        ([], _) => None,
        ([one], _) => Some(format!("backup {one} lies there and no entry names it")),
        (all, 0) => Some(format!("backups {} lie there and no entry names them", all.join(", "))),
        (all, n) => Some(format!("backups {} and {n} older ones lie there and no entry names them", all.join(", "))),
    }
}

/// The form in which a head is printed and given: `12:4f2a…`.
pub fn head_to_text(head: &Head) -> String {
    format!("{}:{}", head.seq, head.sha256)
}

/// Reads [`head_to_text`].
///
/// # Errors
/// Usage, saying what the form is.
pub fn head_from_text(text: &str) -> Result<Head> {
    let parts = text.trim().split_once(':').and_then(|(seq, sha256)| Some((seq.parse().ok()?, sha256)));
    match parts {
        Some((seq, sha256)) if sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(Head { seq, sha256: sha256.to_ascii_lowercase() })
        }
        _ => Err(Error::usage(format!("{text:?} is not the head of a catalog"))
            .why("a number, a colon and 64 hexadecimal digits are expected")
            .hint("`breakglass backup list --json` prints it as `head`.")),
    }
}

/// What to say of a catalog that does not go through a head that was kept.
pub fn rolled_back(found: &Head, kept: &Head, whence: &str) -> Error {
    let what = match kept.seq > found.seq {
        true => format!(
            "the catalog was rolled back: it ends at entry {}, and had {} before; entries {} to {} are missing",
            found.seq,
            kept.seq,
            found.seq + 1,
            kept.seq
        ),
        false => format!("the catalog was rewritten: entry {} is not the one it was", kept.seq),
    };
    Error::check(what)
        .why(whence)
        .hint("Backups made since then are missing from it, and what a cleanup would remove cannot be known: put the folders `catalog` and `backups` back from a copy.")
        .hint("If it is known why: breakglass backup verify --accept-catalog.")
}

impl Anchor {
    /// [`rolled_back`] for what was remembered here; where it is the end that was given up for lost, that.
    pub fn against(&self, found: &Catalog) -> Error {
        let seen = format!("its head was seen in {} at {}", self.place, self.at.date_hms());
        match self.instead_of.as_ref().filter(|lost| found.holds(&lost.head)) {
            None => rolled_back(&found.head, &self.head, &seen),
            Some(lost) => came_back(found, &self.head, lost, &seen),
        }
    }
}

/// What to say of a catalog that goes through a head that somebody gave up for lost, and not through the one that he went on from.
fn came_back(found: &Catalog, kept: &Head, lost: &LostEnd, whence: &str) -> Error {
    Error::check(format!(
        "the end of the catalog that was given up for lost is back: entry {}, and it goes up to entry {}",
        lost.head.seq, found.head.seq
    ))
    .why(format!(
        "the newer end, which was accepted instead of it, is missing: entries {} to {} as they were written since; {whence}",
        lost.from, kept.seq
    ))
    .hint(
        "Nothing need be lost: each end names backups that the other does not. Put this one aside as a copy (cp -a the folder, or another prefix of the bucket), and restore from it by naming it: BACKUP_DIR=PLACE breakglass backup list.",
    )
    .hint("To go on with the newer end: put the folders `catalog` and `backups` back as they were after it was accepted.")
    .hint("To go on with this one, and give up what was written since: breakglass backup verify --accept-catalog.")
}
