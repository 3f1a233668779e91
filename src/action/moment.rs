//! The moment of a recovery as a person gives it: before it or after it, with its time zone.

use std::time::Duration;

use super::target::now;
use crate::error::{Error, Result};
use crate::model::target::RecoveryTarget;

/// The moment, one way or the other.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Moment {
    /// Recover to just before this: time:…Z, lsn:0/5A2F118, xid:73114, name:…, latest
    #[arg(long, value_name = "MOMENT")]
    pub(super) to: Option<String>,
    /// Recover to just after this, which is then part of the result; rarely what is wanted
    #[arg(long, value_name = "MOMENT")]
    pub(super) to_after: Option<String>,
}

/// The target a person gave, and whether recovery shall stop after it.
///
/// # Errors
/// Usage: no target, none that can be read, a time without a zone; refused: a time in the future.
pub fn moment(given: &Moment) -> Result<(RecoveryTarget, bool)> {
    let after = given.to_after.is_some();
    let target = parse_target(given.to_after.as_deref().or(given.to.as_deref()).unwrap_or_default())?;
    if after && target == RecoveryTarget::Latest {
        return Err(Error::usage("there is nothing after \"latest\"").hint("all that is archived: --to latest"));
    }
    let now = now();
    if let RecoveryTarget::Time(t) = &target
        && *t > now.plus(Duration::from_secs(60))
    {
        return Err(Error::refused(format!("cannot recover to {target}"))
            .why(format!("it is in the future: here it is {now}"))
            .hint("whether all that is archived can be recovered: breakglass pitr check --to latest"));
    }
    Ok((target, after))
}

fn parse_target(text: &str) -> Result<RecoveryTarget> {
    if text.trim().is_empty() {
        return Err(
            Error::usage("no moment is chosen").hint("find one with breakglass pitr locate, then give it with --to")
        );
    }
    text.parse().map_err(|e: String| {
        let bare = text.trim().strip_prefix("time:").unwrap_or(text.trim());
        let local = bare.parse::<jiff::civil::DateTime>().ok();
        match local {
            Some(at) => without_zone(bare, at),
            None => FORMS.iter().fold(Error::usage("--to cannot be used").why(e), |all, form| all.hint(*form)),
        }
    })
}

/// Every form of a moment, with an example each.
const FORMS: [&str; 5] = [
    "a time, with its zone: --to 2026-11-20T14:01:07Z, or +01:00 in place of Z",
    "a position of the log: --to lsn:0/5A2F118",
    "a transaction, by its id: --to xid:73114",
    "a restore point, by its name: --to name:before_release",
    "all that is archived: --to latest",
];

/// Hours lie between what two people mean by such a time: nothing is guessed.
fn without_zone(text: &str, at: jiff::civil::DateTime) -> Error {
    let zone = jiff::tz::TimeZone::system();
    let mut error = Error::usage(format!("{text:?} does not say in which time zone"))
        .why("hours lie between the answers")
        .hint(format!("if it is UTC: --to {at}Z"));
    let name = zone.iana_name().unwrap_or("of this machine").to_string();
    if let Ok(here) = at.to_zoned(zone)
        && here.offset() != jiff::tz::Offset::UTC
    {
        error = error.hint(format!("if it is the time of this machine ({name}): --to {}", here.timestamp()));
    }
    error.hint("any other: write its offset behind it, such as +02:00")
}
