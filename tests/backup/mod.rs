//! The repository: container, keys, store, WAL archive, base backups. Real files, real servers, generated damage.

pub mod ahead;
pub mod awkward;
pub mod bad_input;
pub mod base;
pub mod catalog;
pub mod cli;
pub mod cloud;
pub mod cloud_cli;
pub mod cloud_others;
pub mod cloud_pitr;
pub mod cluster;
pub mod container;
pub mod copies;
pub mod crash;
pub mod deep;
pub mod dump_repack;
pub mod files;
pub mod full_disk;
pub mod hostile;
pub mod keep;
pub mod keys;
pub mod killed;
pub mod logical;
pub mod mutated;
pub mod mutations;
pub mod one_damaged;
pub mod random_kills;
pub mod range;
pub mod ranged;
pub mod read_back;
pub mod restore;
pub mod service;
pub mod tiers;
pub mod vectors;
pub mod wal;

use breakglass::backup::keys::KdfCost;
use breakglass::backup::repository::{InitOptions, Repository, Unlocked};
use breakglass::model::Secret;

pub const PASSPHRASE: &str = "correct horse battery staple, thirty-two and more";

/// The cheapest derivation Argon2 allows in earnest: these tests are not about guessing passphrases.
pub const CHEAP: KdfCost = KdfCost { memory_kib: 256, passes: 1, lanes: 1 };

pub fn passphrase() -> Secret {
    Secret::new(PASSPHRASE)
}

/// A new repository in `<dir>/repo`, and its URL.
pub fn repository(dir: &std::path::Path) -> (Repository, Unlocked, String) {
    let url = format!("file://{}", dir.join("repo").display());
    let repository =
        Repository::init(&url, &passphrase(), &InitOptions { kdf: CHEAP, ..InitOptions::default() }).unwrap();
    let unlocked = repository.unlock(&passphrase()).unwrap();
    (repository, unlocked, url)
}
