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
pub mod cluster_file;
pub mod container;
pub mod copies;
pub mod crash;
pub mod deep;
pub mod distrusted;
pub mod dump_repack;
pub mod faults;
pub mod files;
pub mod full_disk;
pub mod hostile;
pub mod keep;
pub mod keys;
pub mod killed;
pub mod leftover;
pub mod logical;
pub mod mutated;
pub mod mutations;
pub mod new_repository;
pub mod one_damaged;
pub mod parts;
pub mod pinned;
pub mod random_kills;
pub mod range;
pub mod ranged;
pub mod read_back;
pub mod replaced;
pub mod restore;
pub mod rolled_back;
pub mod rotation;
pub mod service;
pub mod stopped;
pub mod table_needs;
pub mod tiers;
pub mod vectors;
pub mod wal;

use breakglass::backup::catalog::{BackupKind, Manifest, ObjectRecord};
use breakglass::backup::keys::KdfCost;
use breakglass::backup::repository::{InitOptions, Repository, Unlocked};
use breakglass::model::{Secret, Time};

pub const PASSPHRASE: &str = "correct horse battery staple, thirty-two and more";

/// A server that nobody asks.
pub const NOBODY: &str = "postgres:///x?user=x";

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

/// The manifest of a backup with nothing in it.
pub fn manifest(id: &str, kind: BackupKind, at: Time) -> Manifest {
    Manifest {
        version: 1,
        id: id.into(),
        kind,
        label: None,
        system_identifier: None,
        postgres_version: None,
        timeline: None,
        start_lsn: None,
        stop_lsn: None,
        wal_segment_size: None,
        database: None,
        dump_version: None,
        part: None,
        tables: None,
        started_at: at,
        finished_at: at,
        objects: Vec::new(),
    }
}

/// Makes it a backup of the repository: with one object, which holds its id.
pub fn add(unlocked: &Unlocked, mut m: Manifest) {
    let name = format!("backups/{}/data.bgo", m.id);
    let (_, summary) = unlocked.write_own(m.kind.object_type(), &name, m.id.as_bytes()).unwrap();
    m.objects.push(ObjectRecord::new(&name, &summary));
    breakglass::backup::catalog::add(unlocked, &m).unwrap();
}

/// The command with an environment of its own: home, state and the repository `repo` are in `d`, where it also runs.
fn alone_in<'c>(c: &'c mut std::process::Command, d: &std::path::Path, repo: &str) -> &'c mut std::process::Command {
    c.env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", d)
        .env("BREAKGLASS_HOME", d.join("state"))
        .env("BACKUP_DIR", d.join(repo))
        .env("BACKUP_ENCRYPTION_KEY", PASSPHRASE)
        .current_dir(d)
}
