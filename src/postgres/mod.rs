//! Server programs, live identity, instances.
