//! Clocks of an incident: durations that survive a step of the wall clock, and the RTO clock.

use std::time::Duration;

use crate::model::Time;

use super::State;

/// A moment as recorded: wall time, and the machine's uptime for durations within one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instant {
    /// When it happened, as stated.
    pub at: Time,
    /// When it was recorded.
    pub recorded: Time,
    /// Milliseconds since boot at recording.
    pub up_ms: u64,
    /// Boot it was recorded in.
    pub boot: String,
}

/// The present, read by the caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Now {
    /// Wall time.
    pub time: Time,
    /// Milliseconds since boot.
    pub up_ms: u64,
    /// This boot.
    pub boot: String,
}

impl Instant {
    /// Time from this moment to `later`: by uptime when both are of one boot and not back-dated, else by wall time.
    pub fn until(&self, later: &Self) -> Duration {
        if self.boot == later.boot && self.at == self.recorded && later.at == later.recorded {
            Duration::from_millis(later.up_ms.saturating_sub(self.up_ms))
        } else {
            later.at.since(self.at)
        }
    }
    /// Time from this moment to the present.
    pub fn elapsed(&self, now: &Now) -> Duration {
        self.until(&Self { at: now.time, recorded: now.time, up_ms: now.up_ms, boot: now.boot.clone() })
    }
}

/// The RTO clock: from impact started to service restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtoClock {
    /// Time on the clock.
    pub elapsed: Duration,
    /// The objective, if there is one.
    pub objective: Option<Duration>,
    /// Whether service is restored and the clock stands.
    pub stopped: bool,
}

impl RtoClock {
    /// Time left to the objective; `None` without one or when it is passed.
    pub fn left(&self) -> Option<Duration> {
        self.objective.and_then(|o| o.checked_sub(self.elapsed))
    }
    /// Whether the objective is passed.
    pub fn missed(&self) -> bool {
        self.objective.is_some_and(|o| self.elapsed > o)
    }
}

impl State {
    /// Where the RTO clock stands. Before an impact is stated it runs from the opening of the incident.
    pub fn rto_clock(&self, now: &Now) -> RtoClock {
        let start = self.impact.as_ref().map_or(self.opened.at, |i| i.at);
        let elapsed = match &self.restored {
            Some(r) => r.at.since(start),
            // Back-dated part by wall time, the rest by uptime, so that a step of the clock does not show.
            None => match &self.impact {
                Some(i) => i.recorded.recorded.since(i.at) + i.recorded.elapsed_from_record(now),
                None => self.opened.elapsed_from_record(now),
            },
        };
        RtoClock { elapsed, objective: self.rto, stopped: self.restored.is_some() }
    }
}

impl Instant {
    /// Time from the recording of this moment to the present, by uptime within one boot.
    pub fn elapsed_from_record(&self, now: &Now) -> Duration {
        if self.boot == now.boot {
            Duration::from_millis(now.up_ms.saturating_sub(self.up_ms))
        } else {
            now.time.since(self.recorded)
        }
    }
}
