//! Random choices: from a secret seed (what the umpire must keep) or from a plain one (what may be repeated).

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Context, Result};

/// A stream of choices that is a function of its seed: SHA-256 over seed and counter.
pub struct Choices {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl Choices {
    /// From the operating system's randomness. The seed exists only in this value.
    ///
    /// # Errors
    /// `State` when the operating system gives none.
    pub fn secret() -> Result<Self> {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut()).state(|| "the operating system gives no random bytes".into())?;
        Ok(Self { seed, counter: 0 })
    }
    /// From a number and a purpose: the same every time.
    pub fn plain(seed: u64, purpose: u64) -> Self {
        let mut bytes = Zeroizing::new([0u8; 32]);
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&purpose.to_le_bytes());
        Self { seed: bytes, counter: 0 }
    }
    /// A number from 0 to `limit - 1`; 0 when `limit` is 0. The bias of the modulus is below 2⁻³² for the limits used here.
    pub fn below(&mut self, limit: u64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.seed.as_ref());
        hash.update(self.counter.to_le_bytes());
        self.counter += 1;
        let digest = hash.finalize();
        let mut eight = [0u8; 8];
        eight.copy_from_slice(&digest[..8]);
        u64::from_le_bytes(eight).checked_rem(limit).unwrap_or(0)
    }
    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }
    /// One of these; the first when there is only one. None when there are none.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0))
    }
    /// Puts these in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = usize::try_from(self.below(i as u64 + 1)).unwrap_or(0);
            items.swap(i, j);
        }
    }
    /// The seed in hexadecimal. Opened once, when the drill is judged.
    pub fn open(&self) -> String {
        self.seed.iter().map(|b| format!("{b:02x}")).collect()
    }
}
