//! Which backup of a catalog is meant: the newest is the one that was entered last, whatever its date says.

use super::{Backup, BackupKind, Catalog};
use crate::model::Time;

impl Catalog {
    /// The backups of this cluster, as a whole, or of this database as a whole, in the catalog's order; what is not known is not
    /// asked for. Where no database is named and the repository holds files alone, of files.
    pub fn whole<'c, 'w>(
        &'c self,
        system: Option<&'w str>,
        database: Option<&'w str>,
    ) -> impl DoubleEndedIterator<Item = &'c Backup> + use<'c, 'w> {
        let files =
            system.is_none() && database.is_none() && self.backups.iter().all(|b| b.manifest.kind == BackupKind::Files);
        let same = |wanted: Option<&str>, of: &Option<String>| match (wanted, of) {
            (Some(wanted), Some(of)) => wanted == of,
            _ => true,
        };
        self.backups.iter().filter(move |b| {
            let m = &b.manifest;
            files || m.is_whole() && same(system, &m.system_identifier) && same(database, &m.database)
        })
    }

    /// Of those ([`Catalog::whole`]) the one that was restored and found right last, and when.
    pub fn last_proven(&self, system: Option<&str>, database: Option<&str>) -> Option<(&Backup, Time)> {
        self.whole(system, database).filter_map(|b| Some((b, b.proven_at?))).max_by_key(|(_, at)| *at)
    }

    /// Of those ([`Catalog::whole`]) the newest verified one.
    pub fn newest_verified(&self, system: Option<&str>, database: Option<&str>) -> Option<&Backup> {
        self.whole(system, database).rev().find(|b| b.verified_at.is_some())
    }

    /// The newest backup of a kind.
    pub fn newest(&self, kind: BackupKind) -> Option<&Backup> {
        self.backups.iter().rev().find(|b| b.manifest.kind == kind)
    }
}
