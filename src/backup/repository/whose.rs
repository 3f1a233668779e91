//! Whose a repository is, by what is stored in it: for when `wal/cluster.json` is lost, damaged or says something else.
//!
//! That file is written by whoever archives first, who holds no secret. The manifests name the cluster as well, and only a holder of the
//! secret can have written those; segments of the log name it in their first bytes.

use std::collections::BTreeSet;
use std::io::Read;

use super::super::catalog::{Catalog, manifest_name};
use super::super::container::{Header, ObjectType};
use super::super::damage::is_damage;
use super::super::store::Existing;
use super::super::wal::WalName;
use super::super::wal::archive::SegmentHeader;
use super::{CLUSTER, Cluster, ClusterFile, Repository, SUFFIX, Unlocked};
use crate::error::{Context, Error, ErrorKind, Result};

/// What to do about the file.
pub(crate) const MEND: &str = "To mend it: breakglass backup repair, with BACKUP_ENCRYPTION_KEY, writes wal/cluster.json anew by what the \
                               backups and the log say. They themselves are as they were.";

/// Sizes that a segment of the log can have, in bytes.
const SIZES: std::ops::RangeInclusive<u32> = 1 << 20..=1 << 30;

/// Bytes of a segment that are read for what it says of itself: its first page's header.
const BEGINNING: u64 = 64;

impl Cluster {
    /// What the file says.
    ///
    /// # Errors
    /// Check when that is nothing that can be.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::check(format!("{CLUSTER} is damaged")).hint(MEND);
        let file: ClusterFile = serde_json::from_slice(bytes).map_err(|e| damaged().why(e))?;
        let digits = &file.system_identifier;
        let system_identifier =
            digits.parse().map_err(|e| damaged().why(format!("system identifier {digits:?}: {e}")))?;
        match file.wal_segment_size.filter(|size| !size.is_power_of_two() || !SIZES.contains(size)) {
            Some(size) => Err(damaged().why(format!("segments of {size} bytes"))),
            None => Ok(Self { system_identifier, wal_segment_size: file.wal_segment_size }),
        }
    }
}

impl Repository {
    /// The clusters that the public headers of stored objects name: of the log's first and last, and of the newest backups.
    fn headers_say(&self) -> BTreeSet<u64> {
        // Who archives may not see the backups, and need not be able to list anything: what cannot be asked says nothing.
        let log = self.store.list("wal/").unwrap_or_default();
        let of_log = || log.iter().filter(|e| e.name.ends_with(SUFFIX));
        let backups = self.store.list("backups/").unwrap_or_default();
        let manifests =
            backups.iter().filter(|e| e.name.split('/').nth(1).is_some_and(|id| manifest_name(id) == e.name));
        let some = of_log().take(1).chain(of_log().rev().take(1)).chain(manifests.rev().take(2));
        let mut found = BTreeSet::new();
        for entry in some {
            let Ok(Some(mut input)) = self.store.open(&entry.name) else { continue };
            // One that is damaged says nothing here, and is found by whoever reads it.
            let Ok(header) = Header::read(&mut input) else { continue };
            if header.spec.repository == self.id && header.spec.system_identifier != 0 {
                found.insert(header.spec.system_identifier);
            }
        }
        found
    }

    /// Why data of this cluster is not stored where the file says `known`, or nothing says anything.
    pub(super) fn not_of(&self, system_identifier: u64, known: Option<u64>) -> Option<Error> {
        let what = |other: u64| {
            Error::refused(format!("storing data of cluster {system_identifier} in the repository of cluster {other}"))
        };
        let said = self.headers_say();
        match known {
            Some(other) if said.contains(&system_identifier) => Some(
                Error::refused(format!("storing data in {:?}", self.store.url()))
                    .why(format!(
                        "{CLUSTER} says cluster {other}, and what is stored here is of cluster {system_identifier}: it was edited, or is damaged"
                    ))
                    .hint(MEND),
            ),
            Some(other) => Some(
                what(other)
                    .why("one repository holds one cluster")
                    .hint("Use another repository for this cluster."),
            ),
            None => said.iter().find(|other| **other != system_identifier).map(|other| {
                what(*other)
                    .why(format!("{CLUSTER} is missing, and what is stored here is of cluster {other}"))
                    .hint("Use another repository for this cluster.")
                    .hint(MEND)
            }),
        }
    }
}

impl Unlocked {
    /// The cluster that the backups of a catalog are of, and with `log` what the first bytes of the archived segments say: the
    /// segments' size, and where no backup names one the cluster as well. None when nothing says anything.
    ///
    /// # Errors
    /// Check when the backups are of several clusters; the repository cannot be read.
    pub fn whose(&self, catalog: &Catalog, log: bool) -> Result<Option<Cluster>> {
        let of = |id: &Option<String>| id.as_ref().and_then(|id| id.parse::<u64>().ok());
        let named: BTreeSet<u64> = catalog.backups.iter().filter_map(|b| of(&b.manifest.system_identifier)).collect();
        if named.len() > 1 {
            let all: Vec<String> = named.iter().map(u64::to_string).collect();
            return Err(Error::check(format!("the backups are of several clusters: {}", all.join(", ")))
                .why("one repository holds one cluster")
                .hint("Find out which one is meant; breakglass backup list --json has the cluster of each backup."));
        }
        let segments = if log { self.segments_say()? } else { Vec::new() };
        let system_identifier = named.first().copied().or(segments.first().map(|c| c.system_identifier));
        Ok(system_identifier.map(|system_identifier| Cluster {
            system_identifier,
            wal_segment_size: segments
                .iter()
                .find(|c| c.system_identifier == system_identifier)
                .and_then(|c| c.wal_segment_size),
        }))
    }

    /// What the newest and the oldest archived segment say of themselves, as far as they open.
    fn segments_say(&self) -> Result<Vec<Cluster>> {
        let all: Vec<String> = self
            .repository
            .store
            .list("wal/")?
            .into_iter()
            .filter(|e| matches!(WalName::from_object(&e.name), Some(WalName::Segment(_))))
            .map(|e| e.name)
            .collect();
        let mut out = Vec::new();
        for name in all.last().into_iter().chain(all.first()) {
            let reader = match self.open_object(ObjectType::WalSegment, name) {
                Ok(Some(reader)) => reader,
                Ok(None) => continue,
                Err(e) if is_damage(&e) => continue,
                Err(e) => return Err(e),
            };
            let mut head = Vec::new();
            if reader.take(BEGINNING).read_to_end(&mut head).is_err() {
                continue;
            }
            if let Ok(said) = SegmentHeader::parse(&head, name) {
                out.push(Cluster {
                    system_identifier: said.system_identifier,
                    wal_segment_size: Some(said.segment_size)
                        .filter(|size| size.is_power_of_two() && SIZES.contains(size)),
                });
            }
        }
        Ok(out)
    }

    /// What is wrong with the file that says whose log this is, held against what is stored ([`Unlocked::whose`]).
    ///
    /// # Errors
    /// The repository cannot be read; as [`Unlocked::whose`].
    pub fn wrong_cluster(&self, catalog: &Catalog, log: bool) -> Result<Option<Error>> {
        let file = match self.repository.cluster_file() {
            Err(e) if is_damage(&e) => return Ok(Some(e)),
            file => file?,
        };
        let said = match self.whose(catalog, log) {
            // What of several is right, nobody can say.
            Err(e) if e.kind == ErrorKind::Check => return Ok(Some(e)),
            said => said?,
        };
        let Some(said) = said else { return Ok(None) };
        let sizes = |c: Cluster| c.wal_segment_size.zip(said.wal_segment_size);
        Ok(match file {
            None => Some(
                Error::check(format!("{CLUSTER} is missing"))
                    .why(format!("what is stored here is of cluster {}", said.system_identifier))
                    .hint(MEND),
            ),
            Some(c) if c.system_identifier != said.system_identifier => Some(
                Error::check(format!("{CLUSTER} says cluster {}", c.system_identifier))
                    .why(format!("what is stored here is of cluster {}", said.system_identifier))
                    .hint(MEND),
            ),
            Some(c) if sizes(c).is_some_and(|(file, seen)| file != seen) => Some(
                Error::check(format!("{CLUSTER} says segments of {} bytes", c.wal_segment_size.unwrap_or(0)))
                    .why(format!("those that are archived have {}", said.wal_segment_size.unwrap_or(0)))
                    .hint(MEND),
            ),
            Some(_) => None,
        })
    }

    /// The same, where the file cannot be relied on, by what is stored, and to be read only: every change is refused with `doubt`.
    #[must_use]
    pub fn by_what_is_stored(mut self, catalog: &Catalog, doubt: Error) -> Self {
        let file = self.repository.cluster_file().ok().flatten();
        let size = file.and_then(|c| c.wal_segment_size);
        // Where nothing that is stored says it either, what the file says is all there is.
        self.repository.stored = Some(match self.whose(catalog, true) {
            Ok(Some(said)) => Some(Cluster { wal_segment_size: said.wal_segment_size.or(size), ..said }),
            Ok(None) | Err(_) => file,
        });
        let refused = Error { kind: ErrorKind::Refused, ..doubt.clone() };
        let mut read = self.looked_at(refused);
        read.repository.doubt = Some(std::sync::Arc::new(doubt));
        read
    }

    /// Writes the file anew where it is wrong, or removes it where nothing that is stored names a cluster; gives what was wrong.
    ///
    /// # Errors
    /// As [`Unlocked::wrong_cluster`]; the repository cannot be written.
    pub fn mend_cluster(&self, catalog: &Catalog) -> Result<Option<Error>> {
        let Some(wrong) = self.wrong_cluster(catalog, true)? else { return Ok(None) };
        let size = self.repository.cluster_file().ok().flatten().and_then(|c| c.wal_segment_size);
        match self.whose(catalog, true)? {
            Some(said) => {
                let whole = Cluster { wal_segment_size: said.wal_segment_size.or(size), ..said };
                self.repository.put_cluster(whole, Existing::Replace).map(|_| ())?;
            }
            // The first archived segment writes it again.
            None => self.repository.store.delete(CLUSTER).map(|_| ()).target(|| format!("removing {CLUSTER}"))?,
        }
        Ok(Some(wrong))
    }
}
