//! A repository whose `repository.json` is missing, damaged or edited: read by its key file, and written anew from it.
//!
//! Whoever holds the secret needs nothing that stands in `repository.json`: the key file opens only as the one of its repository and holds
//! every key, and each object proves by itself who wrote it. So what is whole is read, and said; nothing is written before the
//! file is mended, for it is what those trust who write without a secret.

use std::sync::Arc;

use super::super::catalog::Catalog;
use super::super::container::{Identity, hex, unhex};
use super::super::damage::{is_damage, is_unreadable};
use super::super::keys::{KeyFile, Opener};
use super::super::rotation::{self, WrittenFor};
use super::super::store::{Access, Existing, LookedAt, Store, open_place};
use super::{CopyOf, INFO, MAX_KEYS, Repository, Unlocked, keys_name, opened_by};
use crate::config::settings::Secrets;
use crate::error::{Error, ErrorKind, Result};

/// What to do about a file that cannot be relied on.
const REPAIR: &str = "To mend it: breakglass backup repair, with BACKUP_ENCRYPTION_KEY, writes it anew from the key file. Until then \
                      `backup list`, `backup verify`, `backup restore` and `pitr` read on, and nothing is written.";

/// Adds how a repository comes back whose [`INFO`] cannot be relied on.
pub(super) fn with_repair(e: Error) -> Error {
    e.hint(REPAIR)
}

impl Repository {
    /// Opens a repository to read it, and unlocks it. Where `repository.json` cannot be relied on, it is read by the key file:
    /// [`Repository::doubt`] says so then, and nothing can be written.
    ///
    /// # Errors
    /// As [`Repository::open`] and [`Repository::unlock_with`], where the key file does not help either.
    pub fn open_to_read(url: &str, secrets: &Secrets) -> Result<Unlocked> {
        let store = open_place(url, false)?;
        opened_by(secrets, |opener| Self::read_by(store, opener))
    }

    /// As [`Repository::open_to_read`], for commands that run in a working directory that is not theirs.
    ///
    /// # Errors
    /// As [`Repository::open_to_read`].
    pub fn open_to_read_absolute(url: &str, opener: Opener<'_>) -> Result<Unlocked> {
        Self::read_by(open_place(url, true)?, opener)
    }

    fn read_by(store: Arc<dyn Store>, opener: Opener<'_>) -> Result<Unlocked> {
        let error = match Self::unlocked_by(&store, opener)? {
            Ok(unlocked) => return unlocked.with_a_cluster(),
            Err(error) => error,
        };
        let Some(unlocked) = Self::rebuilt(&store, opener)? else { return Err(error) };
        let mut doubt = Error::check(format!("{INFO} in {:?} cannot be relied on", store.url())).why(&error.what);
        if !error.why.is_empty() {
            doubt = doubt.why(&error.why);
        }
        doubt = error.hints.into_iter().filter(|h| h != REPAIR).fold(doubt, Error::hint);
        doubt = doubt.hint(
            "It is read by the key file meanwhile, and everything that is read proves who wrote it. Log that was archived since \
             somebody edited it may be for a key of theirs, and is then no use.",
        );
        let doubt = with_repair(doubt);
        let refused = Error { kind: ErrorKind::Refused, ..doubt.clone() };
        let mut read = unlocked.looked_at(refused);
        read.repository.doubt = Some(Arc::new(doubt));
        Ok(read)
    }

    /// Unlocks what is there. The inner error says that [`INFO`] cannot be relied on.
    fn unlocked_by(store: &Arc<dyn Store>, opener: Opener<'_>) -> Result<Result<Unlocked>> {
        let doubtful = |e: &Error| e.kind == ErrorKind::Check || is_unreadable(e);
        let repository = match Self::open_at(store.clone()) {
            Err(e) if doubtful(&e) => return Ok(Err(e)),
            opened => opened?,
        };
        match repository.unlock_by(opener) {
            Err(e) if doubtful(&e) => Ok(Err(e)),
            // A key file of that id may never have been there.
            Err(e) if e.kind == ErrorKind::Target && store.size(&keys_name(&repository.id))?.is_none() => Ok(Err(e)),
            unlocked => unlocked.map(Ok),
        }
    }

    /// The repository by its key file alone; none when there is none that opens, or the copy that it is was never finished.
    fn rebuilt(store: &Arc<dyn Store>, opener: Opener<'_>) -> Result<Option<Unlocked>> {
        if CopyOf::read(&**store)?.is_some_and(|copy| copy.unfinished) {
            return Ok(None);
        }
        for entry in store.list("keys/")? {
            let name = entry.name.strip_prefix("keys/").and_then(|n| n.strip_suffix(".json"));
            let Some(id) = name.and_then(unhex::<16>) else { continue };
            let Some(bytes) = store.get(&entry.name, MAX_KEYS)? else { continue };
            let opened = KeyFile::parse(&bytes, &id).and_then(|file| Ok((file.unlock_by(opener)?, file)));
            let (identities, file) = match opened {
                Err(e) if is_damage(&e) => continue,
                opened => opened?,
            };
            let (Some(newest), Some(created_at)) = (identities.last(), file.created_at()) else { continue };
            let mut earlier = Vec::new();
            for pair in identities.windows(2) {
                if let [from, to] = pair {
                    rotation::follow(&mut earlier, &id, from, &WrittenFor::of(to)?)?;
                }
            }
            let key = WrittenFor::of(newest)?;
            let repository = Self {
                store: store.clone(),
                id,
                key,
                earlier,
                created_at,
                doubt: None,
                looked_at: false,
                stored: None,
            };
            return Ok(Some(Unlocked { repository, identities: identities.into() }));
        }
        Ok(None)
    }

    /// Writes [`INFO`] anew from the key file where it cannot be relied on. `check` is asked before. Gives the repository as it is then, and
    /// whether it was written.
    ///
    /// # Errors
    /// As [`Repository::open`], where the key file does not help; what `check` says; the repository cannot be written.
    pub fn repair(
        url: &str,
        secrets: &Secrets,
        check: impl FnOnce(&Unlocked) -> Result<()>,
    ) -> Result<(Unlocked, bool)> {
        let store = open_place(url, false)?;
        let mended = opened_by(secrets, |opener| match Self::unlocked_by(&store, opener)? {
            Ok(unlocked) if unlocked.is_followed()? => Ok(Err(unlocked)),
            // Without the signatures of those who rotated, who archives for an earlier key stops.
            Ok(unlocked) => {
                let earlier = signed(&unlocked)?;
                let Unlocked { repository, identities } = unlocked;
                Ok(Ok(Unlocked { repository: Self { earlier, ..repository }, identities }))
            }
            Err(error) => Self::rebuilt(&store, opener)?.map(Ok).ok_or(error),
        })?;
        let mended = match mended {
            Ok(mended) => mended,
            Err(unlocked) => return Ok((unlocked, false)),
        };
        check(&mended)?;
        store.put(INFO, Access::Public, &mended.repository.info()?, Existing::Replace)?;
        Ok((mended, true))
    }

    /// Why it is read by its key file and not written to: what is wrong with [`INFO`].
    pub fn doubt(&self) -> Option<&Error> {
        self.doubt.as_deref()
    }

    /// Whether every change to it is refused ([`Unlocked::looked_at`]).
    pub fn is_looked_at(&self) -> bool {
        self.looked_at
    }
}

/// The signatures from each key to the next, up to the one that is written for.
fn signed(unlocked: &Unlocked) -> Result<Vec<rotation::Earlier>> {
    let mut earlier = Vec::new();
    for pair in unlocked.identities.windows(2) {
        if let [from, to] = pair {
            if from.public() == unlocked.repository.key.recipient {
                break;
            }
            rotation::follow(&mut earlier, &unlocked.repository.id, from, &WrittenFor::of(to)?)?;
        }
    }
    Ok(earlier)
}

impl Unlocked {
    /// The same; read by what is stored where the file that says whose log it is cannot be understood.
    fn with_a_cluster(self) -> Result<Self> {
        let error = match self.repository.cluster() {
            Err(e) if is_damage(&e) => e,
            known => return known.map(|_| self),
        };
        let catalog = Catalog::load(&self)?;
        Ok(self.by_what_is_stored(&catalog, error))
    }

    /// The same, to be read only: every change is refused with `why`.
    #[must_use]
    pub fn looked_at(mut self, why: Error) -> Self {
        self.repository.store = Arc::new(LookedAt::new(self.repository.store, why));
        self.repository.looked_at = true;
        self
    }

    /// As [`Unlocked::looked_at`] where `--read-only` was given.
    #[must_use]
    pub fn looked_at_if(self, read_only: bool) -> Self {
        match read_only {
            true => {
                self.looked_at(Error::refused("writing to the repository").why("nothing is written with --read-only"))
            }
            false => self,
        }
    }

    /// Whether signatures lead from the first key to the one that is written for. Keys of before there were any have none.
    fn is_followed(&self) -> Result<bool> {
        let (repository, first) = (&self.repository, self.identities.first().map(WrittenFor::of).transpose()?);
        let known = self.identities.len() <= rotation::MOST && repository.key.signer.is_some();
        Ok(!known || first.is_none_or(|key| repository.follows(&key.id(&repository.id))))
    }

    /// Whether one of its keys has this id.
    pub fn has_key(&self, id: &str) -> bool {
        let ours = |i: &Identity| WrittenFor::of(i).is_ok_and(|key| key.id(&self.repository.id) == id);
        self.identities.iter().any(ours)
    }

    /// The repository's id, in hexadecimal digits.
    pub fn id(&self) -> String {
        hex(&self.repository.id)
    }
}
