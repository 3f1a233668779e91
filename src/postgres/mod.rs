//! Server programs, live identity, instances, base backup, what a dump needs.

pub mod base_backup;
pub mod client;
pub mod configuration;
pub mod connect;
pub mod control;
pub mod dump_archive;
pub mod dump_repack;
pub mod identity;
pub mod install;
pub mod instance;
pub mod inventory;
pub mod lsn;
pub mod programs;
pub mod running;
pub mod table_needs;
pub mod table_pattern;
pub mod tiers;
pub mod tool_stream;
pub mod user;
pub mod wal;

pub use base_backup::BaseBackup;
pub use client::Client;
pub use connect::Database;
pub use control::Control;
pub use identity::{clock, identity, more_tablespaces};
pub use instance::{Instance, Layout, Stop};
pub use lsn::Lsn;
pub use programs::{FindPrograms, Programs, WhenNeeded};
pub use tool_stream::ToolStream;
