//! Recovery: finding the moment, the reachable range, the shadow, verification, promotion, salvage.

mod again;
mod base_damage;
mod building;
mod commits;
mod compare;
mod delta;
mod every_segment;
mod limited;
mod locate;
mod lost_end;
mod partial;
mod partial_whole;
mod predict;
mod promote;
mod promoted_alone;
mod raised;
mod random;
mod receive;
mod rolled_back;
mod shadow;
pub mod shop;
mod takeover;
mod targets;
mod timelines;
mod verify;
mod wal_index;
mod wal_status;
