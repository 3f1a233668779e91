//! Which base backup a recovery begins with: the newest that fits and whose files are as they should be, as far as they were
//! looked at.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::backup::catalog::Manifest;
use crate::error::{Error, Result};
use crate::recovery::archive::Archive;
use crate::recovery::watch::{Phase, Watch, check_cancel};

/// How closely the files of a base backup are looked at before anything is built from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Look {
    /// Not at all: they are not needed.
    Nothing,
    /// That they are there, are the backup's own, and begin and end as they should: a few small requests.
    #[default]
    Ends,
    /// Every byte.
    Everything,
}

/// Which base backups may be begun with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base {
    /// This one only.
    pub only: Option<String>,
    /// None of these, by what was found before: ids and what is wrong with them.
    pub known: BTreeMap<String, String>,
    /// How closely it is looked at.
    pub look: Look,
}

impl Base {
    /// Any one, and its ends are looked at.
    pub const ANY: Self = Self { only: None, known: BTreeMap::new(), look: Look::Ends };

    pub(super) fn allows(&self, m: &Manifest) -> bool {
        self.only.as_ref().is_none_or(|id| *id == m.id)
    }
}

/// A base backup that would have been begun with, if it were whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Its id.
    pub backup: String,
    /// What is wrong with it.
    pub why: String,
    /// Why that is not on record where the backups are listed; none when it is, or is not to be.
    pub unrecorded: Option<String>,
}

impl PassedOver {
    /// One clause.
    pub fn describe(&self) -> String {
        format!("base backup {} is damaged ({})", self.backup, self.why)
    }
}

/// Base backups that were found damaged on the way.
pub type Found = RefCell<Vec<PassedOver>>;

/// A base backup that is as it should be, and those that were passed over before it.
pub(super) type Whole<'m, T> = (Option<(&'m Manifest, T)>, Vec<PassedOver>);

/// The first of these, the best first, whose files are as they should be; and those before it. What is found of them now goes into
/// `found`, too, also where the end is an error.
///
/// # Errors
/// The archive cannot be read, or stopped on request.
pub(super) fn first_whole<'m, T>(
    store: &dyn Archive,
    candidates: impl Iterator<Item = (&'m Manifest, T)>,
    base: &Base,
    found: Option<&Found>,
    watch: &dyn Watch,
    cancel: &CancellationToken,
) -> Result<Whole<'m, T>> {
    let mut passed = Vec::new();
    for (m, with) in candidates {
        let began = Instant::now();
        let wrong = match (base.look, base.known.get(&m.id)) {
            (Look::Nothing, _) => None,
            (_, Some(known)) => Some(known.clone()),
            (look, None) => store.inspect_backup(m, look == Look::Everything, &mut |done| {
                check_cancel(cancel, "nothing was touched")?;
                watch.phase(&Phase::bytes("base backup", done, Some(m.plain_bytes()), began));
                Ok(())
            })?,
        };
        let Some(why) = wrong else { return Ok((Some((m, with)), passed)) };
        let over = PassedOver { backup: m.id.clone(), why, unrecorded: None };
        if let Some(found) = found.filter(|_| !base.known.contains_key(&m.id)) {
            found.borrow_mut().push(over.clone());
        }
        passed.push(over);
    }
    Ok((None, passed))
}

/// Says with an error which base backups were passed over.
pub(super) fn with_passed(e: Error, passed: &[PassedOver]) -> Error {
    passed.iter().fold(e, |e, p| e.hint(format!("{}; it was passed over", p.describe())))
}

/// No base backup that fits can be begun with: because of what was asked for, or because all are damaged.
pub(super) fn none_whole(e: Error, base: &Base, backups: &[Manifest], passed: &[PassedOver]) -> Error {
    let ids = || backups.iter().map(|m| format!("{} of {}", m.id, m.finished_at)).collect::<Vec<_>>().join(", ");
    let e = match (passed, &base.only) {
        ([], Some(id)) if backups.iter().any(|m| m.id == *id) => {
            e.why(format!("base backup {id} was not complete yet by then")).hint(format!("there are: {}", ids()))
        }
        ([], Some(id)) => {
            e.why(format!("no base backup {id:?} leads to this timeline")).hint(format!("there are: {}", ids()))
        }
        ([], None) => e.why("no base backup was complete by then"),
        (passed, _) => e
            .why(passed.iter().map(PassedOver::describe).collect::<Vec<_>>().join("; "))
            .hint("put the object back from a copy of the repository, let breakglass backup verify read it, and try again")
            .hint("to try one all the same: --backup ID"),
    };
    match base.only {
        Some(_) => e.hint("without --backup the newest that fits is taken"),
        None => e.hint("a dump holds the rows of one moment: breakglass backup list"),
    }
}
