//! Point-in-time recovery: what is reachable, finding the moment, an instance beside the damaged one, verification,
//! promotion, what was lost, and rows brought back without promoting.

pub mod advance;
pub mod archive;
pub mod archived;
pub mod axis;
pub mod backend;
pub mod commits;
pub mod compare;
pub mod deep;
pub mod dump;
pub mod exposure;
pub mod failover;
pub mod health;
pub mod health_checks;
pub mod intruder;
pub mod locate;
pub mod loss;
pub mod origin;
pub mod pages;
pub mod partial;
pub mod pgbackrest;
pub mod predict;
pub mod promote;
pub mod range;
pub mod rebuild;
pub mod receive;
pub mod replay;
pub mod salvage;
pub mod segments;
pub mod sequences;
pub mod shadow;
pub mod supabase;
pub mod tables;
pub mod takeover;
pub mod typed;
pub mod unheld;
pub mod verify;
pub mod wal_health;
pub mod wal_index;
pub mod wal_locate;
pub mod watch;

pub use locate::{Located, locate};
pub use watch::{Phase, Watch};
