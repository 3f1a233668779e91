//! Records of a journal that is in memory only.

use breakglass::incident::Now;
use breakglass::model::{Actor, Digest, Event, Record, Seq};

/// The next record behind these.
pub fn next(records: &[Record], now: &Now, actor: &Actor, command: &str, events: Vec<Event>) -> Record {
    let seq = records.len() as u64 + 1;
    Record {
        v: 1,
        seq: Seq(seq),
        command: command.into(),
        occurred_at: now.time,
        recorded_at: now.time,
        up_ms: now.up_ms,
        boot: now.boot.clone(),
        actor: actor.clone(),
        events,
        prev: Digest::new("0".repeat(64)),
        hash: Digest::new(format!("{seq:064x}")),
    }
}
