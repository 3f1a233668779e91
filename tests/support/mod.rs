//! What several test modules need: real PostgreSQL clusters that do not outlive the tests.
#![allow(dead_code)] // each topic uses a part

pub mod archived;
pub mod bucket;
pub mod cluster;
pub mod console;
pub mod other_buckets;
pub mod pty;
pub mod records;
