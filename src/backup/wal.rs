//! The WAL archive: archiving without a secret, fetching, and what is there.

pub mod ahead;
pub mod archive;
pub mod fetch;
pub mod look;
pub mod name;
pub mod range;
pub mod received;

pub use ahead::archive_ahead;
pub use archive::{Archived, archive, archive_command, archive_into};
pub use fetch::{EXIT_NOT_IN_ARCHIVE, EXIT_STOP_RECOVERY, Fetched, fetch};
pub use name::{DEFAULT_SEGMENT_SIZE, Segment, WalName, format_lsn, parse_lsn};
pub use range::{Continuity, Depth, Hole, Listing, TimelineStatus, WalStatus, Way, check_continuity, path_to, status};
pub use received::Received;
