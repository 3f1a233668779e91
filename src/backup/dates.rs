//! Dates that cannot be right. Which backup is the newest is the catalog's order, always; how old one is comes from its date, and a
//! clock that was wrong when it was made gives it another age.

use std::collections::BTreeMap;

use super::catalog::{Backup, Catalog};
use crate::model::{Time, format_clock};

/// Clocks of machines that look after themselves differ by less.
pub const TOLERANCE_MICROS: i64 = 5 * 60 * 1_000_000;

/// The moment up to which a date is no sign of a wrong clock.
pub(super) fn not_after(t: Time) -> Time {
    Time::from_micros(t.micros().saturating_add(TOLERANCE_MICROS))
}

/// Whether the first moment lies before the second, by more than clocks differ.
pub fn before(t: Time, other: Time) -> bool {
    not_after(t) < other
}

/// Why the age of a backup is not known, as a phrase; none when its date can be right.
pub fn doubt(b: &Backup, now: Time) -> Option<String> {
    let at = b.manifest.finished_at;
    if before(now, at) {
        let ahead = format_clock(at.since(now));
        return Some(format!(
            "it is dated {}, {ahead} after now ({}): a clock is or was wrong",
            at.date_hms(),
            now.date_hms()
        ));
    }
    let earlier = b.dated_back?;
    Some(format!(
        "it is dated {}, and what was entered in the catalog before it {}: a clock was wrong",
        at.date_hms(),
        earlier.date_hms()
    ))
}

/// The backups whose age is not known, by their ids, and why.
pub fn doubts(backups: &[Backup], now: Time) -> BTreeMap<&str, String> {
    backups.iter().filter_map(|b| Some((b.manifest.id.as_str(), doubt(b, now)?))).collect()
}

/// One sentence for each backup whose age is not known.
pub fn doubt_lines(backups: &[Backup], now: Time) -> Vec<String> {
    let all = backups.iter().filter_map(|b| Some((b, doubt(b, now)?)));
    all.map(|(b, why)| format!("the age of backup {} is in doubt: {why}", b.manifest.id)).collect()
}

/// That this machine's clock stands before what is entered in a catalog already.
pub fn behind(catalog: &Catalog, now: Time) -> Option<String> {
    let last = catalog.last_at.filter(|last| before(now, *last))?;
    Some(format!(
        "the clock of this machine says {}, and the last entry of the catalog is of {}: one of the two clocks was wrong",
        now.date_hms(),
        last.date_hms()
    ))
}

/// That this machine's clock and a server's differ.
pub fn differs(here: Time, server: Time) -> Option<String> {
    (before(here, server) || before(server, here)).then(|| {
        format!(
            "the clock of this machine says {}, the database's {}: ages of backups are counted by this one",
            here.date_hms(),
            server.date_hms()
        )
    })
}
