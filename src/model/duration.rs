//! Durations as people write and read them.

use std::time::Duration;

/// Parses `15m`, `4 hours`, `1h30m`, `90 s`, `2 days`. A bare number is refused: the unit is never guessed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write a number and a unit, such as 90s, 15m, 4h or 2d");
    let lower = text.trim().to_lowercase();
    let mut rest = lower.as_str();
    let mut total = 0f64;
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            _ => return Err(bad()),
        };
        total += number * unit;
        any = true;
        rest = rest[letters..].trim_start();
    }
    if !any || !total.is_finite() || total > 1e10 {
        return Err(bad());
    }
    Ok(Duration::from_millis((total * 1000.0).round() as u64))
}

/// `0:41`, `12:31`, `4:00:00`: minutes and seconds, with hours when there are any.
pub fn format_clock(d: Duration) -> String {
    let s = d.as_secs();
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}
