//! The repository: container, keys, store, catalog, WAL archive, base backups.
//!
//! Everything here is synchronous and takes `Read`/`Write` and paths; running PostgreSQL programs is the caller's work.
//! The formats are described byte by byte in `docs/formats.md`, "Repository and container".

pub mod anchor;
pub mod base;
pub mod catalog;
pub mod cleanup;
pub mod cloud;
pub mod container;
pub mod copies;
pub mod damage;
pub mod dates;
pub mod files;
mod kept;
pub mod keys;
pub mod logical;
mod parallel;
pub mod part;
pub mod pinned;
pub mod repository;
pub mod retention;
pub mod rotation;
pub mod seen;
pub mod spool;
pub mod stamp;
pub mod store;
pub mod wal;
pub mod wal_service;
mod wal_spool;

pub use parallel::side_by_side;
