//! For which key a repository's objects are written, and how somebody who holds no secret knows that another one rightly took its
//! place: whoever rotates holds the key before, and signs the next one with it.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::container::{Identity, hex, seal, unhex};
use crate::error::{Error, Result};

/// Earlier keys that `repository.json` keeps.
pub(super) const MOST: usize = 100;

/// A key that objects are written for: its X25519 half, and the Ed25519 half that signs the next one. Both are public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFor {
    /// What objects are sealed for.
    pub recipient: [u8; 32],
    /// What its holder signs with; none in a repository made before keys were signed.
    pub signer: Option<[u8; 32]>,
}

/// A key that was followed by another, as `repository.json` has it, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    recipient: String,
    signer: String,
    /// Its signature over the key that followed.
    signed: String,
}

fn signing(identity: &Identity) -> Result<Ed25519KeyPair> {
    let seed = seal::derive(&identity.public(), &identity.secret()[..], &[b"breakglass repository 1 signer"])?;
    Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|e| Error::state("making a signing key").why(e))
}

impl WrittenFor {
    /// The key of this identity.
    ///
    /// # Errors
    /// State when it cannot be derived.
    pub fn of(identity: &Identity) -> Result<Self> {
        let pair = signing(identity)?;
        let signer = <[u8; 32]>::try_from(pair.public_key().as_ref());
        let signer = signer.map_err(|e| Error::state("a signing key of another length").why(e))?;
        Ok(Self { recipient: identity.public(), signer: Some(signer) })
    }

    /// What names it: 32 hexadecimal digits over the repository's id and both halves.
    pub fn id(&self, repository: &[u8; 16]) -> String {
        let mut hash = Sha256::new().chain_update(b"breakglass repository 1 key");
        hash.update(self.message(repository));
        hex(&hash.finalize()[..16])
    }

    fn message(&self, repository: &[u8; 16]) -> Vec<u8> {
        let parts: [&[u8]; 4] = [
            b"breakglass repository 1 rotation",
            repository,
            &self.recipient,
            self.signer.as_ref().map_or(&[][..], |s| &s[..]),
        ];
        parts.concat()
    }
}

impl Earlier {
    fn key(&self) -> Option<WrittenFor> {
        Some(WrittenFor { recipient: unhex(&self.recipient)?, signer: Some(unhex(&self.signer)?) })
    }

    fn followed_by(&self, repository: &[u8; 16], next: &WrittenFor) -> bool {
        let signed = unhex::<32>(&self.signer).zip(unhex::<64>(&self.signed));
        signed.is_some_and(|(signer, signature)| {
            UnparsedPublicKey::new(&ED25519, signer).verify(&next.message(repository), &signature).is_ok()
        })
    }
}

/// Adds to the earlier keys the one of `from`, which `to` follows.
///
/// # Errors
/// State when it cannot be signed.
pub fn follow(earlier: &mut Vec<Earlier>, repository: &[u8; 16], from: &Identity, to: &WrittenFor) -> Result<()> {
    let pair = signing(from)?;
    earlier.push(Earlier {
        recipient: hex(&from.public()),
        signer: hex(pair.public_key().as_ref()),
        signed: hex(pair.sign(&to.message(repository)).as_ref()),
    });
    let over = earlier.len().saturating_sub(MOST);
    earlier.drain(..over);
    Ok(())
}

/// Whether the key `now` is the one that is named by `id`, or follows it, each by the signature of the one before.
pub fn leads_to(id: &str, earlier: &[Earlier], repository: &[u8; 16], now: &WrittenFor) -> bool {
    if now.id(repository) == id {
        return true;
    }
    let mut keys = earlier.iter().map(|e| e.key().map(|key| (e, key)));
    let Some(Some((mut last, _))) = keys.find(|k| k.as_ref().is_some_and(|(_, key)| key.id(repository) == id)) else {
        return false;
    };
    for next in keys {
        match next {
            Some((entry, key)) if last.followed_by(repository, &key) => last = entry,
            _ => return false,
        }
    }
    last.followed_by(repository, now)
}
