//! The repository: container, keys, catalog, WAL archive.
