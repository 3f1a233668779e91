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
pub mod files;
pub mod keys;
pub mod logical;
pub mod part;
pub mod repository;
pub mod retention;
pub mod rotation;
pub mod seen;
pub mod spool;
pub mod store;
pub mod wal;
pub mod wal_service;
mod wal_spool;
