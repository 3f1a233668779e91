//! Points in time: UTC, microseconds, RFC 3339 in text.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A point in time in microseconds since the Unix epoch, UTC. Text form: `2026-11-20T14:01:07.000000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(i64);

impl Time {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(us: i64) -> Self {
        Self(us)
    }
    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }
    /// From a system clock reading (the caller reads the clock; this module never does).
    pub fn from_system(t: std::time::SystemTime) -> Self {
        let us = match t.duration_since(std::time::UNIX_EPOCH) {
            Ok(d) => i64::try_from(d.as_micros()).unwrap_or(i64::MAX),
            Err(e) => -i64::try_from(e.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Self(us)
    }
    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
    /// Signed difference `self - other` in milliseconds.
    pub fn diff_ms(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0) / 1000
    }
    /// This time plus `d`.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
    /// This time minus `d`.
    #[must_use]
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
    /// Parses RFC 3339 with a zone (`Z` or an offset). A time without a zone is an error: the caller asks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // A leap second would be taken for the one before it, and no server's log has one.
        let clock = text.split(['T', 't', ' ']).nth(1).unwrap_or_default();
        let second = if clock.contains(':') { clock.split(':').nth(2) } else { clock.get(4..) };
        if second.is_some_and(|s| s.starts_with("60")) {
            return Err(format!(
                "{text:?} is in a second 60, which no server's clock has: say the second before, or the minute after"
            ));
        }
        text.parse::<Timestamp>()
            .map(|t| Self(t.as_microsecond()))
            .map_err(|e| format!("{text:?} is not a time with a zone such as 2026-11-20T14:01:07Z ({e})"))
    }
    /// `14:01:07` in UTC.
    pub fn hms(self) -> String {
        self.strftime("%H:%M:%S")
    }
    /// `2026-11-20 14:01:07` in UTC.
    pub fn date_hms(self) -> String {
        self.strftime("%Y-%m-%d %H:%M:%S")
    }
    /// `20261120T1401Z`, as used in incident and backup ids.
    pub fn compact(self) -> String {
        self.strftime("%Y%m%dT%H%MZ")
    }
    fn strftime(self, format: &str) -> String {
        match Timestamp::from_microsecond(self.0) {
            Ok(t) => t.strftime(format).to_string(),
            Err(_) => format!("@{}us", self.0),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    }
}

impl From<Time> for String {
    fn from(t: Time) -> Self {
        t.to_string()
    }
}

impl TryFrom<String> for Time {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        Self::parse(&s)
    }
}
