//! An archive of base backups and log, wherever it is: what finding the way to a target needs of it.

use crate::backup::base::read_backup;
use crate::backup::catalog::{Catalog, Manifest};
use crate::backup::damage::is_damage;
use crate::backup::part;
use crate::backup::repository::Unlocked;
use crate::backup::wal::range::{Branch, inspect, path_by, reason};
use crate::backup::wal::{DEFAULT_SEGMENT_SIZE, Depth, Listing, Segment, WalName, Way, fetch, received};
use crate::error::Result;
use crate::recovery::wal_index::Index;

/// Base backups and the log that leads on from them.
pub trait Archive: Send + Sync {
    /// Bytes of a segment of the log.
    ///
    /// # Errors
    /// The archive cannot be read.
    fn segment_bytes(&self) -> Result<u32>;

    /// The names of everything archived.
    ///
    /// # Errors
    /// The archive cannot be read.
    fn listing(&self) -> Result<Listing>;

    /// The bytes of a file of the log, proved to be what was archived; none when it is not there.
    ///
    /// # Errors
    /// It is damaged, or the archive cannot be read.
    fn read(&self, name: &WalName) -> Result<Option<Vec<u8>>>;

    /// What is wrong with a segment that is there, if anything. `begun`: only its beginning is there.
    ///
    /// # Errors
    /// The archive cannot be read.
    fn inspect(&self, segment: Segment, begun: bool, depth: Depth) -> Result<Option<String>>;

    /// The bytes of a segment of which only the beginning is there.
    ///
    /// # Errors
    /// As [`Archive::read`].
    fn beginning(&self, segment: Segment) -> Result<Option<Vec<u8>>>;

    /// Every base backup.
    ///
    /// # Errors
    /// The archive cannot be read.
    fn backups(&self) -> Result<Vec<Manifest>>;

    /// What is wrong with the files of a base backup, if anything: as far as their beginnings and ends tell, or, `whole`, in any
    /// byte; `progress` is told the plain bytes read then, and may stop it. As given here they are not looked at.
    ///
    /// # Errors
    /// The archive cannot be read, or stopped.
    fn inspect_backup(
        &self,
        _backup: &Manifest,
        _whole: bool,
        _progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Option<String>> {
        Ok(None)
    }

    /// Whether [`Archive::inspect_backup`] looks at anything.
    fn looks_into_backups(&self) -> bool {
        false
    }

    /// What was read of the log before and kept: nothing, where nobody keeps it.
    ///
    /// # Errors
    /// The archive cannot be read.
    fn index(&self) -> Result<Index> {
        Ok(Index::default())
    }

    /// How many questions at once are worth while.
    fn at_once(&self) -> usize {
        1
    }

    /// The timelines that lead to `timeline`, oldest first, by its history file.
    ///
    /// # Errors
    /// The history is damaged, or missing for a timeline above 1.
    fn path_to(&self, timeline: u32) -> Result<Vec<Branch>> {
        path_by(timeline, &mut |name| self.read(name))
    }

    /// The segments on the way to a timeline.
    ///
    /// # Errors
    /// As [`Archive::path_to`].
    fn way(&self, listing: &Listing, timeline: u32) -> Result<Way> {
        Ok(Way::along(self.path_to(timeline)?, listing))
    }
}

impl Archive for Unlocked {
    fn segment_bytes(&self) -> Result<u32> {
        Ok(self.repository().cluster()?.and_then(|c| c.wal_segment_size).unwrap_or(DEFAULT_SEGMENT_SIZE))
    }
    fn listing(&self) -> Result<Listing> {
        Listing::read(self.repository())
    }
    fn read(&self, name: &WalName) -> Result<Option<Vec<u8>>> {
        fetch::read(self, name)
    }
    fn inspect(&self, segment: Segment, begun: bool, depth: Depth) -> Result<Option<String>> {
        inspect(self, segment, begun, depth)
    }
    fn beginning(&self, segment: Segment) -> Result<Option<Vec<u8>>> {
        received::read(self, segment)
    }
    fn backups(&self) -> Result<Vec<Manifest>> {
        Ok(Catalog::load(self)?.backups.into_iter().map(|b| b.manifest).collect())
    }
    fn inspect_backup(
        &self,
        backup: &Manifest,
        whole: bool,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Option<String>> {
        let looked = match whole {
            true => read_backup(self, &backup.id, progress).map(|_| ()),
            false => part::check_ends(self, backup),
        };
        match looked {
            Err(e) if is_damage(&e) => Ok(Some(reason(&e))),
            looked => looked.map(|()| None),
        }
    }
    fn looks_into_backups(&self) -> bool {
        true
    }
    fn index(&self) -> Result<Index> {
        Index::of(self, &self.listing()?)
    }
    fn at_once(&self) -> usize {
        self.repository().store().at_once()
    }
}
