//! Who can open an object: recipients to write for, identities to read with.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::seal;
use crate::error::{Error, Result};

/// Somebody an object's file key is wrapped for.
#[derive(Clone)]
pub enum Recipient {
    /// A public key: anybody can write for it, only its holder reads.
    Public([u8; 32]),
    /// A key pair: written by its holder only, so the object is known to come from somebody who holds the secret.
    Own(Identity),
}

impl Recipient {
    pub(super) fn wrap(&self, file_key: &[u8; 32], salt: &[u8; 32], core_hash: &[u8; 32]) -> Result<(u16, Vec<u8>)> {
        match self {
            Self::Public(public) => {
                let mut raw = Zeroizing::new([0u8; 32]);
                seal::random(raw.as_mut())?;
                Ok((STANZA_X25519, wrap_public(*raw, public, file_key, core_hash)?))
            }
            Self::Own(identity) => {
                let key = identity.own_key(salt, core_hash)?;
                let mut body = identity.public.to_vec();
                body.extend(seal::seal_key(&key, file_key)?);
                Ok((STANZA_OWN, body))
            }
        }
    }
}

/// Stanza type: X25519 with an ephemeral key.
pub const STANZA_X25519: u16 = 1;
/// Stanza type: a key derived from the identity's secret; proves that the writer held it.
pub const STANZA_OWN: u16 = 2;

const X25519_BODY: usize = 112;
const OWN_BODY: usize = 80;

/// A key pair that opens objects. Zeroized when dropped; never printed.
#[derive(Clone)]
pub struct Identity {
    public: [u8; 32],
    secret: StaticSecret,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", super::hex(&self.public[..8]))
    }
}

impl Identity {
    /// From the 32 secret bytes.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*secret);
        Self { public: PublicKey::from(&secret).to_bytes(), secret }
    }
    /// A new random key pair.
    pub fn generate() -> Result<Self> {
        let mut raw = Zeroizing::new([0u8; 32]);
        seal::random(raw.as_mut())?;
        Ok(Self::from_secret(&raw))
    }
    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }
    /// The secret bytes, for the one place that seals them into the key file.
    pub(crate) fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }
    fn own_key(&self, salt: &[u8; 32], core_hash: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
        seal::derive(salt, self.secret().as_ref(), &[b"breakglass container 1 own", core_hash])
    }
    /// Opens the file key from one stanza; `None` when the stanza is for somebody else or of another type.
    pub(super) fn unwrap(
        &self,
        kind: u16,
        body: &[u8],
        salt: &[u8; 32],
        core_hash: &[u8; 32],
    ) -> Option<Result<Zeroizing<[u8; 32]>>> {
        let (expected, key_at) = match kind {
            STANZA_X25519 => (X25519_BODY, 64),
            STANZA_OWN => (OWN_BODY, 32),
            _ => return None,
        };
        if body.len() != expected {
            return Some(Err(Error::check(format!("key stanza of type {kind} has {} bytes", body.len()))
                .why(format!("expected {expected}"))));
        }
        if body[..32] != self.public {
            return None;
        }
        let key = if kind == STANZA_X25519 {
            let mut ephemeral = [0u8; 32];
            ephemeral.copy_from_slice(&body[32..64]);
            shared_key(&self.secret, &PublicKey::from(ephemeral), &ephemeral, &self.public, core_hash)
        } else {
            self.own_key(salt, core_hash)
        };
        Some(key.and_then(|key| seal::open_key(&key, &body[key_at..])))
    }
}

fn shared_key(
    secret: &StaticSecret,
    their: &PublicKey,
    ephemeral: &[u8; 32],
    recipient: &[u8; 32],
    core_hash: &[u8; 32],
) -> Result<Zeroizing<[u8; 32]>> {
    let shared = secret.diffie_hellman(their);
    // A point of small order gives a secret that everybody knows (RFC 7748, section 6.1).
    if !shared.was_contributory() {
        return Err(Error::check("an X25519 key of this object or repository is of small order"));
    }
    let mut salt = [0u8; 64];
    salt[..32].copy_from_slice(ephemeral);
    salt[32..].copy_from_slice(recipient);
    seal::derive(&salt, shared.as_bytes(), &[b"breakglass container 1 x25519", core_hash])
}

/// Body of an X25519 stanza; `context` is the core hash (or the context of a key file).
pub(crate) fn wrap_public(
    ephemeral: [u8; 32],
    recipient: &[u8; 32],
    file_key: &[u8; 32],
    context: &[u8; 32],
) -> Result<Vec<u8>> {
    let ephemeral = StaticSecret::from(ephemeral);
    let ephemeral_public = PublicKey::from(&ephemeral).to_bytes();
    let key = shared_key(&ephemeral, &PublicKey::from(*recipient), &ephemeral_public, recipient, context)?;
    let mut body = Vec::with_capacity(X25519_BODY);
    body.extend_from_slice(recipient);
    body.extend_from_slice(&ephemeral_public);
    body.extend(seal::seal_key(&key, file_key)?);
    Ok(body)
}

/// Opens the body of an X25519 stanza outside an object (key files); `None` when it is for somebody else.
pub(crate) fn unwrap_public(
    identity: &Identity,
    body: &[u8],
    context: &[u8; 32],
) -> Option<Result<Zeroizing<[u8; 32]>>> {
    identity.unwrap(STANZA_X25519, body, &[0u8; 32], context)
}
