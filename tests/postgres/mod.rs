//! Server programs, instances, connections, identity, control file, base backup.

mod backup_stream;
mod connect;
mod instance;
mod programs;
