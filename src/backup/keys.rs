//! The repository's key file: the key pairs that open its objects, sealed under a passphrase and other recipients.
//!
//! A random keyring key seals the identities; it is itself wrapped once by the passphrase (Argon2id) and once per extra
//! recipient. Changing the passphrase or the recipients rewrites this one small file and no object; a new identity is
//! added beside the old ones, which stay to read what was written before.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::container::recipient::{unwrap_public, wrap_public};
use super::container::{Identity, hex, seal, unhex};
use crate::error::{Error, Result};
use crate::model::{Secret, Time};

/// Fewest characters of a passphrase (`BACKUP_ENCRYPTION_KEY`).
pub const MIN_PASSPHRASE: usize = 32;

/// Cost of deriving a key from the passphrase (Argon2id, RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// The work of RFC 9106's second recommendation (64 MiB, 3 passes), in less memory: a whole backup stays below 64 MiB.
    fn default() -> Self {
        Self { memory_kib: 46 * 1024, passes: 4, lanes: 1 }
    }
}

impl KdfCost {
    /// The most a key file may ask for: an edited file must not be able to exhaust the machine.
    pub const CEILING: Self = Self { memory_kib: 1024 * 1024, passes: 64, lanes: 16 };
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ByPassphrase {
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    sealed: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ByRecipient {
    public: String,
    stanza: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SealedIdentity {
    public: String,
    created_at: Time,
    sealed: String,
}

/// The key file as stored (`keys/<repository>.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    format: String,
    version: u32,
    repository: String,
    passphrase: ByPassphrase,
    #[serde(default)]
    recipients: Vec<ByRecipient>,
    /// Oldest first; the last one is written to.
    identities: Vec<SealedIdentity>,
}

const FORMAT: &str = "breakglass keys";

/// What opens a key file.
#[derive(Clone, Copy)]
pub enum Opener<'a> {
    /// The passphrase.
    Passphrase(&'a Secret),
    /// The key of an extra recipient.
    Identity(&'a Identity),
}

impl KeyFile {
    /// A new key file with one new identity.
    ///
    /// # Errors
    /// When the passphrase is shorter than [`MIN_PASSPHRASE`] characters.
    pub fn create(repository: [u8; 16], passphrase: &Secret, cost: KdfCost, now: Time) -> Result<(Self, Identity)> {
        let mut key = Zeroizing::new([0u8; 32]);
        seal::random(key.as_mut())?;
        let identity = Identity::generate()?;
        let file = Self {
            format: FORMAT.into(),
            version: 1,
            repository: hex(&repository),
            passphrase: wrap_by_passphrase(&repository, &key, passphrase, cost)?,
            recipients: Vec::new(),
            identities: vec![seal_identity(&repository, &key, &identity, now)?],
        };
        Ok((file, identity))
    }

    /// Parses a key file and checks its bounds.
    pub fn parse(bytes: &[u8], repository: &[u8; 16]) -> Result<Self> {
        let file: Self = serde_json::from_slice(bytes).map_err(|e| Error::check("the key file is damaged").why(e))?;
        if file.format != FORMAT || file.version != 1 {
            return Err(Error::check(format!("key file of format {:?}, version {}", file.format, file.version))
                .why("this breakglass reads version 1"));
        }
        if file.repository != hex(repository) {
            return Err(Error::check("the key file belongs to another repository").why(file.repository));
        }
        let (p, top) = (&file.passphrase, KdfCost::CEILING);
        if p.kdf != "argon2id" {
            return Err(Error::check(format!("unknown passphrase derivation {:?}", p.kdf)));
        }
        if p.memory_kib > top.memory_kib || p.passes > top.passes || p.lanes > top.lanes {
            return Err(Error::check(format!(
                "the key file asks for {} KiB, {} passes and {} lanes of Argon2id",
                p.memory_kib, p.passes, p.lanes
            ))
            .why(format!("at most {}, {} and {} are allowed", top.memory_kib, top.passes, top.lanes)));
        }
        Ok(file)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::state("writing the key file").why(e))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The identities, oldest first.
    ///
    /// # Errors
    /// A usage failure when the passphrase is not the right one.
    pub fn unlock(&self, passphrase: &Secret) -> Result<Vec<Identity>> {
        self.unlock_by(Opener::Passphrase(passphrase))
    }

    /// The identities, oldest first, by either way.
    pub fn unlock_by(&self, opener: Opener<'_>) -> Result<Vec<Identity>> {
        let key = self.open_by(opener)?;
        self.identities(&key)
    }

    /// The identities, oldest first, by an extra recipient's key.
    pub fn unlock_with(&self, identity: &Identity) -> Result<Vec<Identity>> {
        self.unlock_by(Opener::Identity(identity))
    }

    /// Wraps the keyring key for another public key as well, so that it too opens the repository.
    pub fn add_recipient(&mut self, opener: Opener<'_>, public: [u8; 32]) -> Result<()> {
        let key = self.open_by(opener)?;
        let mut ephemeral = Zeroizing::new([0u8; 32]);
        seal::random(ephemeral.as_mut())?;
        let stanza = wrap_public(*ephemeral, &public, &key, &self.context()?)?;
        self.recipients.retain(|r| r.public != hex(&public));
        self.recipients.push(ByRecipient { public: hex(&public), stanza: hex(&stanza) });
        Ok(())
    }

    /// Replaces the passphrase. Objects are not touched. A copy of the old key file still opens with the old one.
    pub fn change_passphrase(&mut self, opener: Opener<'_>, new: &Secret, cost: KdfCost) -> Result<()> {
        let key = self.open_by(opener)?;
        self.passphrase = wrap_by_passphrase(&self.repository()?, &key, new, cost)?;
        Ok(())
    }

    /// Takes a recipient away. Copies of the key file made before still open for it.
    ///
    /// # Errors
    /// Usage when it is none.
    pub fn remove_recipient(&mut self, public: &[u8; 32]) -> Result<()> {
        let before = self.recipients.len();
        self.recipients.retain(|r| r.public != hex(public));
        if self.recipients.len() == before {
            return Err(Error::usage(format!("{} is not a recipient of the repository", hex(public))));
        }
        Ok(())
    }

    /// Adds a new key pair that is written for from now on; the old ones stay, to read what was written for them.
    pub fn add_identity(&mut self, opener: Opener<'_>, now: Time) -> Result<Identity> {
        let key = self.open_by(opener)?;
        let identity = Identity::generate()?;
        self.identities.push(seal_identity(&self.repository()?, &key, &identity, now)?);
        Ok(identity)
    }

    /// Cost of the passphrase derivation, as the file has it.
    pub fn cost(&self) -> KdfCost {
        let p = &self.passphrase;
        KdfCost { memory_kib: p.memory_kib, passes: p.passes, lanes: p.lanes }
    }

    fn open_by(&self, opener: Opener<'_>) -> Result<Zeroizing<[u8; 32]>> {
        match opener {
            Opener::Passphrase(passphrase) => self.open_by_passphrase(passphrase),
            Opener::Identity(identity) => self.open_by_recipient(identity),
        }
    }

    /// The public keys of the extra recipients.
    pub fn publics(&self) -> impl Iterator<Item = &str> {
        self.recipients.iter().map(|r| r.public.as_str())
    }

    /// Whether the holder of this public key opens it.
    pub fn has_recipient(&self, public: &[u8; 32]) -> bool {
        let public = hex(public);
        self.publics().any(|p| p == public)
    }

    /// When its first identity was made, and the repository with it.
    pub fn created_at(&self) -> Option<Time> {
        self.identities.first().map(|i| i.created_at)
    }

    /// How many extra recipients there are.
    pub fn recipients(&self) -> usize {
        self.recipients.len()
    }

    fn repository(&self) -> Result<[u8; 16]> {
        unhex(&self.repository).ok_or_else(|| Error::check("the key file is damaged").why("repository"))
    }

    fn context(&self) -> Result<[u8; 32]> {
        Ok(Sha256::new()
            .chain_update(b"breakglass keys 1 recipient")
            .chain_update(self.repository()?)
            .finalize()
            .into())
    }

    fn open_by_passphrase(&self, passphrase: &Secret) -> Result<Zeroizing<[u8; 32]>> {
        let p = &self.passphrase;
        let damaged = |what| Error::check("the key file is damaged").why(what);
        let salt = unhex::<16>(&p.salt).ok_or_else(|| damaged("salt"))?;
        let sealed = unhex::<48>(&p.sealed).ok_or_else(|| damaged("sealed"))?;
        let cost = KdfCost { memory_kib: p.memory_kib, passes: p.passes, lanes: p.lanes };
        let key = derive_from_passphrase(&self.repository()?, passphrase, &salt, cost)?;
        seal::open_key(&key, &sealed).map_err(|_| {
            Error::usage("the passphrase does not open this repository")
                .why("it is not the one the repository was created with, or the key file is damaged")
                .hint("Check BACKUP_ENCRYPTION_KEY; surrounding spaces and line ends count. A `backup rotate-key` may have changed it.")
        })
    }

    fn open_by_recipient(&self, identity: &Identity) -> Result<Zeroizing<[u8; 32]>> {
        let context = self.context()?;
        for r in &self.recipients {
            let stanza =
                unhex::<112>(&r.stanza).ok_or_else(|| Error::check("the key file is damaged").why("stanza"))?;
            if let Some(key) = unwrap_public(identity, &stanza, &context) {
                return key;
            }
        }
        Err(Error::usage("this key is not a recipient of the repository"))
    }

    fn identities(&self, key: &[u8; 32]) -> Result<Vec<Identity>> {
        let repository = self.repository()?;
        if self.identities.is_empty() {
            return Err(Error::check("the key file holds no identity"));
        }
        self.identities
            .iter()
            .map(|s| {
                let damaged = || Error::check("an identity of the key file is damaged").why(&s.public);
                let public = unhex::<32>(&s.public).ok_or_else(damaged)?;
                let sealed = unhex::<48>(&s.sealed).ok_or_else(damaged)?;
                let wrapping = identity_key(&repository, key, &public)?;
                let secret = seal::open_key(&wrapping, &sealed).map_err(|_| damaged())?;
                let identity = Identity::from_secret(&secret);
                if identity.public() == public { Ok(identity) } else { Err(damaged()) }
            })
            .collect()
    }
}

/// First word of a recipient's key file.
const IDENTITY_WORD: &str = "BREAKGLASS-IDENTITY-1";

/// A recipient's key as a file holds it: one line.
pub fn identity_to_text(identity: &Identity) -> Secret {
    let secret = Zeroizing::new(hex(&identity.secret()[..]));
    Secret::new(format!("{IDENTITY_WORD} {}\n", secret.as_str()))
}

/// A recipient's key from the text of its file.
///
/// # Errors
/// Usage when it is not one; the text is never quoted.
pub fn identity_from_text(text: &Secret) -> Result<Identity> {
    let bad = || Error::usage("the file named by BACKUP_IDENTITY_FILE does not hold a recipient's key");
    let hex = text.expose().trim().strip_prefix(IDENTITY_WORD).ok_or_else(bad)?.trim();
    let secret = Zeroizing::new(unhex::<32>(hex).ok_or_else(bad)?);
    Ok(Identity::from_secret(&secret))
}

/// Refuses a passphrase that is too short.
pub fn check_passphrase(passphrase: &Secret) -> Result<()> {
    check_passphrase_of("BACKUP_ENCRYPTION_KEY", passphrase)
}

/// As [`check_passphrase`], of one that this variable holds.
///
/// # Errors
/// Usage, naming the variable.
pub fn check_passphrase_of(variable: &str, passphrase: &Secret) -> Result<()> {
    let n = passphrase.expose().chars().count();
    if n < MIN_PASSPHRASE {
        return Err(Error::usage(format!("the repository's key in {variable} has {n} characters"))
            .why(format!("at least {MIN_PASSPHRASE} are needed"))
            .hint(format!("Make one with `openssl rand -base64 33` and set it as {variable}.")));
    }
    Ok(())
}

fn derive_from_passphrase(
    repository: &[u8; 16],
    passphrase: &Secret,
    salt: &[u8; 16],
    cost: KdfCost,
) -> Result<Zeroizing<[u8; 32]>> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .map_err(|e| Error::check("impossible Argon2id parameters").why(e))?;
    let mut slow = Zeroizing::new([0u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.expose().as_bytes(), salt, slow.as_mut())
        .map_err(|e| Error::state("deriving a key from the passphrase").why(e))?;
    seal::derive(salt, slow.as_ref(), &[b"breakglass keys 1 passphrase", repository])
}

fn wrap_by_passphrase(
    repository: &[u8; 16],
    key: &[u8; 32],
    passphrase: &Secret,
    cost: KdfCost,
) -> Result<ByPassphrase> {
    check_passphrase(passphrase)?;
    // The salt is new each time, so the wrapping key is too: its zero nonce is never used twice.
    let mut salt = [0u8; 16];
    seal::random(&mut salt)?;
    let wrapping = derive_from_passphrase(repository, passphrase, &salt, cost)?;
    Ok(ByPassphrase {
        kdf: "argon2id".into(),
        memory_kib: cost.memory_kib,
        passes: cost.passes,
        lanes: cost.lanes,
        salt: hex(&salt),
        sealed: hex(&seal::seal_key(&wrapping, key)?),
    })
}

fn identity_key(repository: &[u8; 16], key: &[u8; 32], public: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
    seal::derive(public, key, &[b"breakglass keys 1 identity", repository])
}

fn seal_identity(repository: &[u8; 16], key: &[u8; 32], identity: &Identity, now: Time) -> Result<SealedIdentity> {
    let wrapping = identity_key(repository, key, &identity.public())?;
    Ok(SealedIdentity {
        public: hex(&identity.public()),
        created_at: now,
        sealed: hex(&seal::seal_key(&wrapping, &identity.secret())?),
    })
}
