//! A journal record: all events of one command.

use serde::{Deserialize, Serialize};

use super::{Actor, Digest, Event, Seq, Time};

/// One line of a journal. Field order is the format's (docs/formats.md); `hash` is the last member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Format version, 1.
    pub v: u32,
    /// Position, from 1, without gaps.
    pub seq: Seq,
    /// Name of the command that was decided, for people and for idempotence.
    pub command: String,
    /// When it happened, as stated by the actor (a note may be back-dated).
    pub occurred_at: Time,
    /// When it was written.
    pub recorded_at: Time,
    /// Milliseconds of CLOCK_BOOTTIME at writing: durations within one `boot` use these.
    pub up_ms: u64,
    /// Boot id of the machine that wrote it.
    pub boot: String,
    /// Who.
    pub actor: Actor,
    /// What happened; never empty.
    pub events: Vec<Event>,
    /// Hash of the record before; 64 zeros for the first.
    pub prev: Digest,
    /// SHA-256 of the line's own bytes before `,"hash":`.
    pub hash: Digest,
}
