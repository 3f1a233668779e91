//! A repository: one PostgreSQL cluster's backups and WAL in one place, under one key file.
//!
//! ```text
//! copy.json                          only in a copy: what it follows, and whether it was ever finished
//! repository.json                    public: id, format version, the public key that objects are written for
//! keys/<id>.json                     the identities, sealed (owner only)
//! wal/cluster.json                   the cluster whose WAL this is, set by the first archived segment
//! wal/<timeline>/<log>/<file>.bgo    WAL segments and `.backup` files, by 8 hexadecimal digits of timeline and log
//! wal/history/<file>.bgo             timeline history files
//! backups/<backup>/base.tar.bgo      what a backup holds, and beside it
//! backups/<backup>/manifest.bgo      what it consists of
//! catalog/<number>.bgo               the chain of catalog entries
//! index/<timeline>/<number>.bgo      what was read of 256 segments; index/names.bgo which name belonged to which file
//! ```

mod rebuilt;
mod whose;

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::container::{
    Expect, Identity, ObjectType, Ranged, Reader, Recipient, Spec, Summary, Writer, hex, seal, unhex,
};
use super::damage::is_damage;
use super::keys::{KdfCost, KeyFile, Opener};
use super::rotation::{self, Earlier, WrittenFor};
use super::store::{Access, Committed, Existing, Store, open_place};
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY, Secrets};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::{CleanText, Secret, Time};
pub(crate) use whose::MEND as MEND_CLUSTER;

/// Ending of every sealed object's name.
pub const SUFFIX: &str = ".bgo";
/// Name of the file that makes a folder a repository.
pub(crate) const INFO: &str = "repository.json";
/// Name of the file that says that this is a copy, which follows another place.
pub(crate) const COPY: &str = "copy.json";
/// Name of the file that says whose WAL this is.
pub const CLUSTER: &str = "wal/cluster.json";
const FORMAT: &str = "breakglass repository";
const MAX_INFO: u64 = 1 << 16;
const MAX_KEYS: u64 = 1 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Info {
    format: String,
    version: u32,
    id: String,
    recipient: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Earlier>,
    created_at: Time,
}

/// What [`COPY`] says: written first as unfinished, and once more when all is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyOf {
    /// Id of the repository.
    pub of: String,
    /// Since when.
    pub since: Time,
    /// The key that the repository was written for then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Where the repository was, without options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Not all of it is there yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
}

impl CopyOf {
    /// What a place says of itself; none when it says nothing that can be understood.
    ///
    /// # Errors
    /// The place cannot be read.
    pub(crate) fn read(store: &dyn Store) -> Result<Option<Self>> {
        Ok(store.get(COPY, MAX_INFO)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
    /// For a repository's copies, from now on.
    pub(crate) fn begun(of: &Repository) -> Self {
        let from = Some(super::anchor::place_of(&of.store.url()));
        Self { of: hex(&of.id), since: now(), key_id: Some(of.key_id()), from, unfinished: true }
    }
    /// Writes it.
    ///
    /// # Errors
    /// The place cannot be written.
    pub(crate) fn write(&self, store: &dyn Store, existing: Existing) -> Result<Committed> {
        let bytes = serde_json::to_vec(self).state(|| format!("writing {COPY}"))?;
        store.put(COPY, Access::Public, &bytes, existing)
    }
    /// What to say to whoever takes it for a repository.
    fn never_finished(&self, place: &str) -> Error {
        let of = CleanText::line(self.of.as_bytes());
        let from = self.from.as_deref().map(|from| CleanText::line(from.as_bytes()));
        let before =
            from.map_or("with BACKUP_DIR of that repository".into(), |f| format!("with BACKUP_DIR={}", f.as_str()));
        Error::check(format!("the copy of a repository in {place:?} was never finished"))
            .why(format!("it is one of repository {}, and copying was broken off", of.as_str()))
            .hint(format!("Go on with it: breakglass backup copy --to {place}, {before}."))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ClusterFile {
    system_identifier: String,
    #[serde(default)]
    wal_segment_size: Option<u32>,
}

/// Whose WAL a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// Bytes per WAL segment, once a segment was archived.
    pub wal_segment_size: Option<u32>,
}

/// How to make a repository.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// Cost of the passphrase derivation.
    pub kdf: KdfCost,
    /// User and group that archive WAL when they are not the ones making the repository (needs root).
    pub wal_owner: Option<(u32, u32)>,
    /// The cluster it is for; otherwise the first archived segment or base backup decides.
    pub system_identifier: Option<u64>,
}

impl InitOptions {
    /// The usual ones. Made by root, the log's folder belongs to the user servers run as (`postgres.run_as`), who archives.
    pub fn archived_by(run_as: Option<&str>) -> Self {
        let user = crate::postgres::user::for_server(run_as).ok().flatten();
        Self { wal_owner: user.map(|u| (u.uid, u.gid)), ..Self::default() }
    }
}

/// An opened repository: enough to archive, list and check for rot, not to read.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    id: [u8; 16],
    key: WrittenFor,
    /// Keys before that one, oldest first.
    earlier: Vec<Earlier>,
    created_at: Time,
    doubt: Option<Arc<Error>>,
    looked_at: bool,
    /// By what is stored, where [`CLUSTER`] cannot be relied on.
    stored: Option<Option<Cluster>>,
}

/// Runs `work` with what the environment holds: the passphrase, else the key of an extra recipient.
fn opened_by<T>(secrets: &Secrets, work: impl FnOnce(Opener<'_>) -> Result<T>) -> Result<T> {
    match (secrets.get(REPOSITORY_KEY), secrets.get(REPOSITORY_IDENTITY)) {
        (Some(key), _) => {
            super::keys::check_passphrase(key)?;
            work(Opener::Passphrase(key))
        }
        (None, Some(text)) => work(Opener::Identity(&super::keys::identity_from_text(text)?)),
        (None, None) => Err(Error::config("the repository's key is not set")
            .hint("set BACKUP_ENCRYPTION_KEY, at least 32 characters, or BACKUP_IDENTITY_FILE")),
    }
}

/// The time now.
pub(crate) fn now() -> Time {
    Time::from_system(SystemTime::now())
}

impl Repository {
    /// Makes a repository in a new or empty place.
    ///
    /// # Errors
    /// Refused when there is a repository or anything else; a usage failure when the passphrase is too short.
    pub fn init(url: &str, passphrase: &Secret, options: &InitOptions) -> Result<Self> {
        let store = open_place(url, false)?;
        super::keys::check_passphrase(passphrase)?;
        let shown = store.url();
        if let Some(name) = store.foreign(&["keys", "wal"])? {
            let error = Error::refused(format!("making a repository in {shown:?}"));
            return Err(if name == INFO || store.size(INFO)?.is_some() {
                error.why("there is one already")
            } else if let Some(copy) = CopyOf::read(&*store)? {
                Error { kind: ErrorKind::Refused, ..copy.never_finished(&shown) }
            } else {
                let error = error.why(format!("the folder is not empty: it holds {name:?}")).hint("Name a new folder.");
                match store.list("keys/")?.is_empty() {
                    true => error,
                    false => rebuilt::with_repair(error),
                }
            });
        }
        let mut id = [0u8; 16];
        seal::random(&mut id)?;
        let created_at = now();
        let (keys, identity) = KeyFile::create(id, passphrase, options.kdf, created_at)?;
        // The key file bears the repository's id, so that of two at the same time none can take the other's keys.
        store.put(&keys_name(&id), Access::Private, &keys.to_bytes()?, Existing::Keep)?;
        let key = WrittenFor::of(&identity)?;
        let repository = Self {
            store: store.clone(),
            id,
            key,
            earlier: Vec::new(),
            created_at,
            doubt: None,
            looked_at: false,
            stored: None,
        };
        store.prepare(options.wal_owner)?;
        if let Some(system_identifier) = options.system_identifier {
            repository.bind_cluster(system_identifier, None)?;
        }
        let bytes = repository.info()?;
        // Written last: without it there is no repository.
        if store.put(INFO, Access::Public, &bytes, Existing::Keep)? == Committed::Kept {
            store.delete(&keys_name(&id))?;
            return Err(
                Error::refused(format!("making a repository in {shown:?}")).why("another one was made there just now")
            );
        }
        Ok(repository)
    }

    /// Whether there is a repository at this URL.
    ///
    /// # Errors
    /// The URL cannot be used, or the place cannot be looked at.
    pub fn exists(url: &str) -> Result<bool> {
        Ok(open_place(url, false)?.get(INFO, MAX_INFO)?.is_some())
    }

    /// Opens a repository. Needs no secret.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_at(open_place(url, false)?)
    }

    /// As [`Repository::open`], for commands that run in a working directory that is not theirs.
    pub fn open_absolute(url: &str) -> Result<Self> {
        Self::open_at(open_place(url, true)?)
    }

    fn open_at(store: Arc<dyn Store>) -> Result<Self> {
        let shown = store.url();
        let advised = |e: Error| {
            e.hint(format!(
                "Put {INFO} back from a copy of the repository (repository.copies) or from a backup of this machine: it holds no \
                 secret, and no command but `backup rotate-key --new-key-pair` changes it."
            ))
            .hint("Backups, log and keys are as they were: remove nothing, and make no new repository here.")
        };
        let advised = |e: Error| rebuilt::with_repair(advised(e));
        let read = store.get(INFO, MAX_INFO);
        let bytes = read.map_err(|e| if is_damage(&e) { advised(e) } else { e })?.ok_or_else(|| {
            if let Ok(Some(copy)) = CopyOf::read(&*store) {
                return copy.never_finished(&shown);
            }
            let error = Error::target(format!("no repository in {shown:?}")).why(format!("there is no {INFO}"));
            let rest = |folder| store.list(folder).is_ok_and(|l| !l.is_empty());
            match rest("keys/") || rest("catalog/") || rest("backups/") {
                true => rebuilt::with_repair(
                    Error::check(format!("the repository in {shown:?} has lost its {INFO}"))
                        .why("keys or backups are there, and nothing says whose")
                        .hint(format!(
                            "Put {INFO} back from a copy of the repository; it holds no secret. Do not make a new one here."
                        )),
                ),
                false => error
                    .hint("Is BACKUP_DIR (or repository.url) right, is the disk mounted?")
                    .hint("If there never was one: `breakglass backup init` makes one."),
            }
        })?;
        let damaged = || advised(Error::check(format!("{INFO} in {shown:?} is damaged")));
        let info: Info = serde_json::from_slice(&bytes).map_err(|e| damaged().why(e))?;
        if info.format != FORMAT || info.version != 1 {
            let error = Error::check(format!("repository of format {:?}, version {}", info.format, info.version))
                .why("this breakglass reads version 1");
            return Err(rebuilt::with_repair(error.hint("Use a newer breakglass, if one made it.")));
        }
        Ok(Self {
            store,
            id: unhex(&info.id).ok_or_else(|| damaged().why("id"))?,
            key: WrittenFor {
                recipient: unhex(&info.recipient).ok_or_else(|| damaged().why("recipient"))?,
                signer: match &info.signer {
                    Some(signer) => Some(unhex(signer).ok_or_else(|| damaged().why("signer"))?),
                    None => None,
                },
            },
            earlier: info.earlier,
            created_at: info.created_at,
            doubt: None,
            looked_at: false,
            stored: None,
        })
    }

    /// The bytes of `repository.json`.
    fn info(&self) -> Result<Vec<u8>> {
        let info = Info {
            format: FORMAT.into(),
            version: 1,
            id: hex(&self.id),
            recipient: hex(&self.key.recipient),
            signer: self.key.signer.map(|s| hex(&s)),
            earlier: self.earlier.clone(),
            created_at: self.created_at,
        };
        let mut bytes = serde_json::to_vec_pretty(&info).state(|| format!("writing {INFO}"))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Unlocks the key file, so that objects can be read.
    ///
    /// # Errors
    /// A usage failure when the passphrase is wrong.
    pub fn unlock(&self, passphrase: &Secret) -> Result<Unlocked> {
        self.unlock_by(Opener::Passphrase(passphrase))
    }

    /// As [`Repository::unlock`], with what the environment holds: the passphrase, else the key of an extra recipient.
    ///
    /// # Errors
    /// Config when it holds neither.
    pub fn unlock_with(&self, secrets: &Secrets) -> Result<Unlocked> {
        opened_by(secrets, |opener| self.unlock_by(opener))
    }

    /// As [`Repository::unlock`], by the passphrase or by the key of an extra recipient.
    pub fn unlock_by(&self, opener: Opener<'_>) -> Result<Unlocked> {
        if let Opener::Passphrase(key) = opener {
            super::keys::check_passphrase(key)?;
        }
        let identities = self.key_file()?.unlock_by(opener)?;
        // An older one than the newest: a rotation was interrupted, and the next one finishes it.
        let written_for =
            identities.iter().find(|i| i.public() == self.key.recipient).map(WrittenFor::of).transpose()?;
        let right = |key: WrittenFor| self.key.signer.is_none() || key == self.key;
        if !written_for.is_some_and(right) {
            let error = Error::check("the public key in repository.json is none of the key file's")
                .why("somebody edited it: objects are being written that this key file cannot open")
                .hint("Compare repository.json with a copy; objects written since then are not trustworthy.");
            return Err(rebuilt::with_repair(error));
        }
        Ok(Unlocked { repository: self.clone(), identities: identities.into() })
    }

    /// The key file.
    pub fn key_file(&self) -> Result<KeyFile> {
        let name = keys_name(&self.id);
        let bytes = self.store.get(&name, MAX_KEYS)?.ok_or_else(|| {
            Error::target(format!("no key file {name:?} in the repository"))
                .hint("Restore it from a copy: without it no object can be read.")
        })?;
        KeyFile::parse(&bytes, &self.id).map_err(|e| match e.kind {
            ErrorKind::Check => e.hint(format!(
                "Put {name} back from a copy of the repository (repository.copies) or of its folder keys: without it no object can be read."
            )),
            _ => e,
        })
    }

    /// Replaces the key file in one step, if it still is the one that was read.
    ///
    /// # Errors
    /// Refused when somebody else changed it meanwhile: their change would be lost.
    pub fn store_key_file(&self, was: &KeyFile, keys: &KeyFile) -> Result<()> {
        let is = |bytes: &[u8]| KeyFile::parse(bytes, &self.id).is_ok_and(|now| now == *was);
        if self.store.swap(&keys_name(&self.id), Access::Private, &is, &keys.to_bytes()?)? {
            return Ok(());
        }
        Err(Error::refused("changing the key file")
            .why("somebody else changed it at the same time")
            .hint("Look at `breakglass backup list`, then do it again."))
    }

    /// Says that objects are written for this identity from now on. It must be in the key file already, as the one must be that
    /// they are written for until now and that signs it.
    ///
    /// # Errors
    /// Check when that one is not among them; the repository cannot be written.
    pub fn write_for(&self, identities: &[Identity], to: &Identity) -> Result<Self> {
        let now = identities.iter().find(|i| i.public() == self.key.recipient);
        let now = now.ok_or_else(|| Error::check(format!("the public key in {INFO} is none of the key file's")))?;
        let mut changed = Self { key: WrittenFor::of(to)?, ..self.clone() };
        rotation::follow(&mut changed.earlier, &self.id, now, &changed.key)?;
        self.store.put(INFO, Access::Public, &changed.info()?, Existing::Replace)?;
        Ok(changed)
    }

    /// What names the key that objects are written for: for those who write without a secret and must not write for a stranger.
    pub fn key_id(&self) -> String {
        self.key.id(&self.id)
    }

    /// Refuses when objects are written for another key than the one that was named, and no signature of its holder leads there.
    ///
    /// # Errors
    /// Refused, naming both.
    pub fn expect_key(&self, id: &str) -> Result<()> {
        if self.follows(id) {
            return Ok(());
        }
        let now = self.key_id();
        Err(Error::refused(format!("writing for key {now} into {:?}", self.store.url()))
            .why(format!("key {id} was named, and nothing signed by its holder says that another one took its place"))
            .hint(format!(
                "Somebody may have put a key of their own into {INFO}, to read what is written from now on: compare it and the \
                 folder keys with a copy. `breakglass doctor`, with BACKUP_ENCRYPTION_KEY, says whether it is the right one."
            ))
            .hint(format!(
                "Nothing was stored; a server keeps its log meanwhile. If the repository was made anew on purpose: name \
                 --key-id {now} where {id} is named, in archive_command or beside `wal receive`."
            )))
    }

    /// Whether objects are written for the key of this id, or for one that follows it by the signatures of its holders.
    pub fn follows(&self, id: &str) -> bool {
        rotation::leads_to(id, &self.earlier, &self.id, &self.key)
    }

    /// The public key that objects are written for.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.recipient
    }

    /// The cluster this repository is for, once known.
    ///
    /// # Errors
    /// Check when the file that says so is damaged, with what mends it; the repository cannot be read.
    pub fn cluster(&self) -> Result<Option<Cluster>> {
        self.stored.map_or_else(|| self.cluster_file(), Ok)
    }

    /// What the file says.
    fn cluster_file(&self) -> Result<Option<Cluster>> {
        self.store.get(CLUSTER, MAX_INFO)?.map(|bytes| Cluster::parse(&bytes)).transpose()
    }

    /// Whether `cluster.json` cannot be relied on, and what is stored says whose it is ([`Unlocked::by_what_is_stored`]).
    pub fn is_by_what_is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// The cluster this repository is for, once known, where that is this one.
    ///
    /// # Errors
    /// Refused when it is for another cluster, or nothing says so but what is stored.
    pub fn of_cluster(&self, system_identifier: u64) -> Result<Option<Cluster>> {
        let known = self.cluster()?;
        let other = match known {
            Some(c) if c.system_identifier == system_identifier => return Ok(known),
            Some(c) => self.not_of(system_identifier, Some(c.system_identifier)),
            // It may have been lost: the next one to archive must not make the repository another cluster's.
            None => self.not_of(system_identifier, None),
        };
        other.map_or(Ok(known), Err)
    }

    /// Says which cluster the repository is for, or checks it. The segment size is added when it was not known.
    ///
    /// # Errors
    /// Refused when it is for another cluster.
    pub fn bind_cluster(&self, system_identifier: u64, wal_segment_size: Option<u32>) -> Result<()> {
        let wanted = Cluster { system_identifier, wal_segment_size };
        let mut known = self.of_cluster(system_identifier)?;
        if known.is_none() {
            if self.put_cluster(wanted, Existing::Keep)? == Committed::Stored {
                return Ok(());
            }
            known = self.of_cluster(system_identifier)?;
        }
        let Some(known) = known else { return Err(Error::state(format!("{CLUSTER} vanished"))) };
        match (known.wal_segment_size, wal_segment_size) {
            (None, Some(_)) => self.put_cluster(wanted, Existing::Replace).map(|_| ()),
            (Some(old), Some(new)) if old != new => {
                Err(Error::refused(format!("archiving WAL segments of {new} bytes"))
                    .why(format!("the repository holds segments of {old} bytes"))
                    .hint("Use another repository after changing the segment size."))
            }
            _ => Ok(()),
        }
    }

    fn put_cluster(&self, cluster: Cluster, existing: Existing) -> Result<Committed> {
        let file = ClusterFile {
            system_identifier: cluster.system_identifier.to_string(),
            wal_segment_size: cluster.wal_segment_size,
        };
        let bytes = serde_json::to_vec(&file).state(|| format!("writing {CLUSTER}"))?;
        self.store.put(CLUSTER, Access::Public, &bytes, existing)
    }

    /// Whether it is a copy that follows another place: what is seen here is not written down here, since the catalogs would
    /// go different ways.
    ///
    /// # Errors
    /// The place cannot be looked at.
    pub fn is_copy(&self) -> Result<bool> {
        Ok(self.store.size(COPY)?.is_some())
    }

    /// From now on it follows no other place; `true` when it did.
    ///
    /// # Errors
    /// The place cannot be written.
    pub fn stop_being_a_copy(&self) -> Result<bool> {
        Ok(self.is_copy()? && self.store.delete(COPY)?)
    }

    /// The repository's id.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }
    /// When it was made.
    pub fn created_at(&self) -> Time {
        self.created_at
    }
    /// Where the objects are.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
    /// The public key that objects are written for; anybody may have it.
    pub fn recipient(&self) -> Recipient {
        Recipient::Public(self.key.recipient)
    }
}

fn keys_name(id: &[u8; 16]) -> String {
    format!("keys/{}.json", hex(id))
}

/// A repository whose objects can be read. Holds the secret keys; zeroized when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Unlocked {
    repository: Repository,
    identities: Arc<[Identity]>,
}

impl Unlocked {
    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }
    /// The same repository in another place, opened with the keys of this one.
    ///
    /// # Errors
    /// A check failure when another repository is there.
    pub fn of_copy(&self, copy: Repository) -> Result<Self> {
        match copy.id == self.repository.id {
            true => Ok(Self { repository: copy, identities: self.identities.clone() }),
            false => Err(Error::check(format!("another repository is in {:?}", copy.store.url())).why(hex(&copy.id))),
        }
    }
    /// The keys, oldest first.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }
    /// The recipient that proves the writer held the secret.
    pub fn own_recipient(&self) -> Result<Recipient> {
        self.identities.last().cloned().map(Recipient::Own).ok_or_else(|| Error::state("no identity"))
    }
    /// Opens an object for reading; `None` when there is none of that name.
    pub fn open_object(&self, object: ObjectType, name: &str) -> Result<Option<Reader<Box<dyn std::io::Read + Send>>>> {
        let Some(input) = self.repository.store.open(name)? else { return Ok(None) };
        let expect = Expect { object, repository: self.repository.id, name };
        Reader::open(input, &self.identities, &expect).map(Some).map_err(|e| of_object(e, name))
    }
    /// Opens an object to read parts of it; `None` when there is none of that name. Only objects that a holder of the secret
    /// wrote are read this way.
    ///
    /// # Errors
    /// When it is damaged, another one, or was written by somebody who does not hold the repository's secret.
    pub fn open_ranged(&self, object: ObjectType, name: &str) -> Result<Option<Ranged>> {
        let expect = Expect { object, repository: self.repository.id, name };
        let opened = Ranged::open(&self.repository.store, &self.identities, &expect).map_err(|e| of_object(e, name))?;
        if opened.as_ref().is_some_and(|o| !o.written_by_holder()) {
            return Err(Error::check(format!("{name:?} was not written by a holder of the repository's key")));
        }
        Ok(opened)
    }
    /// Reads a small object whole, at most `limit` plain bytes.
    ///
    /// # Errors
    /// When it is damaged, too large, or was written by somebody who does not hold the repository's secret.
    pub fn read_own(&self, object: ObjectType, name: &str, limit: u64) -> Result<Option<(Vec<u8>, Summary)>> {
        let Some(mut reader) = self.open_object(object, name)? else { return Ok(None) };
        if !reader.written_by_holder() {
            return Err(Error::check(format!("{name:?} was not written by a holder of the repository's key")));
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(&mut reader, limit + 1), &mut bytes)
            .map_err(|e| of_object(super::container::from_io(e, || "reading".into()), name))?;
        if bytes.len() as u64 > limit {
            return Err(Error::check(format!("{name:?} is larger than {limit} bytes")));
        }
        let (_, summary) = reader.finish().map_err(|e| of_object(e, name))?;
        Ok(Some((bytes, summary)))
    }
    /// Writes a small object as a holder of the secret.
    pub fn write_own(&self, object: ObjectType, name: &str, bytes: &[u8]) -> Result<(Committed, Summary)> {
        self.put_own(object, name, bytes, Existing::Keep)
    }
    /// As [`Unlocked::write_own`], in the place of what may be there.
    pub fn replace_own(&self, object: ObjectType, name: &str, bytes: &[u8]) -> Result<()> {
        self.put_own(object, name, bytes, Existing::Replace).map(|_| ())
    }
    fn put_own(
        &self,
        object: ObjectType,
        name: &str,
        bytes: &[u8],
        existing: Existing,
    ) -> Result<(Committed, Summary)> {
        let mut spec = Spec::new(object, self.repository.id, name, now());
        spec.chunk_size = 1 << 16;
        spec.frame_size = 1 << 16;
        spec.system_identifier = self.repository.cluster()?.map_or(0, |c| c.system_identifier);
        let upload = self.repository.store.create(name, Access::Group)?;
        let mut writer = Writer::new(upload, &spec, &[self.own_recipient()?])?;
        std::io::Write::write_all(&mut writer, bytes)
            .map_err(|e| super::container::from_io(e, || format!("writing {name:?}")))?;
        let (upload, summary) = writer.finish()?;
        Ok((upload.commit(existing)?, summary))
    }
}

/// Names the object in an error about its content.
pub(crate) fn of_object(mut error: Error, name: &str) -> Error {
    if !error.what.contains(name) {
        error.what = format!("object {name:?}: {}", error.what);
    }
    error
}
