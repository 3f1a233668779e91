//! Children: spawn, groups, locks, cancel, bounded reading of output. The only room with unsafe code.

pub mod detach;
pub mod group;
pub mod locks;
pub mod run;
pub mod signals;
pub mod spawn;
pub mod user;

pub use locks::RunLiveness;
pub use run::{Ending, Finished, RunOptions, Stream, capture, capture_blocking, capture_data, run};
pub use spawn::ChildSpec;
pub use user::UnixUser;
