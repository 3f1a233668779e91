//! Times as a responder types them: `14:03`, `-10m`, `10 min ago`, `2026-11-20T14:03:00Z`, or nothing for now.

use std::time::Duration;

use crate::model::{Time, parse_duration};

const DAY: Duration = Duration::from_secs(86_400);

/// Reads a time that is not in the future. A time of day is UTC and means the last time it was that late.
///
/// # Errors
/// A sentence that says how a time can be written.
pub fn parse_when(text: &str, now: Time) -> Result<Time, String> {
    let text = text.trim();
    if text.is_empty() || text == "now" {
        return Ok(now);
    }
    let back = text.strip_prefix('-').or_else(|| text.strip_suffix("ago"));
    let time = if let Some(span) = back {
        now.minus(parse_duration(span)?)
    } else if let Some(seconds) = time_of_day(text) {
        let midnight = now.micros() - now.micros().rem_euclid(DAY.as_micros() as i64);
        let today = Time::from_micros(midnight).plus(Duration::from_secs(seconds));
        if today > now { today.minus(DAY) } else { today }
    } else if let Some((date, clock)) = text.split_once(' ').filter(|(d, c)| d.len() == 10 && time_of_day(c).is_some())
    {
        Time::parse(&format!("{date}T{}Z", if clock.len() == 5 { format!("{clock}:00") } else { clock.to_string() }))?
    } else {
        Time::parse(text).map_err(|_| {
            format!("{text:?} is not a time; write 14:03, -10m, 2026-11-20 14:03 (all UTC) or 2026-11-20T14:03:00Z")
        })?
    };
    if time > now {
        return Err(format!("{} is in the future", time.date_hms()));
    }
    Ok(time)
}

/// `14:03` or `14:03:20` as seconds since midnight.
fn time_of_day(text: &str) -> Option<u64> {
    let mut parts = text.split(':');
    let mut next = |limit: u64| parts.next().filter(|p| p.len() == 2)?.parse::<u64>().ok().filter(|n| *n < limit);
    let (h, m) = (next(24)?, next(60)?);
    let s = if text.len() > 5 { next(60)? } else { 0 };
    parts.next().is_none().then_some(h * 3600 + m * 60 + s)
}
