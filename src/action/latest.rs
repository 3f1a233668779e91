//! Which backup `restore latest` means: the newest whole one of the database that is asked for, and rather one that is right. What
//! was passed over is said.

use std::collections::BTreeSet;

use crate::backup::catalog::{Backup, BackupKind, Catalog};
use crate::error::{Error, Result};
use crate::model::Time;

/// What is known of the restore that is asked for.
pub struct Wanted<'w> {
    /// The database of the settings.
    pub database: Option<&'w str>,
    /// Where to.
    pub into: &'w str,
    /// A database that is there is replaced; of this name, unless another one is meant.
    pub overwrite: bool,
    /// The dump may be of a database of another name.
    pub other_database: bool,
    /// Some files are asked for.
    pub files: bool,
}

/// The backup, and lines that say what it is of and what else there is.
///
/// # Errors
/// Usage when there is no backup; refused when a part would replace a database, or when the backups are of several databases
/// and nothing says which one is meant.
pub fn latest<'c>(catalog: &'c Catalog, wanted: &Wanted<'_>) -> Result<(&'c Backup, Vec<String>)> {
    let newest_first = || catalog.backups.iter().rev();
    let mut all: Vec<&Backup> =
        newest_first().filter(|b| b.manifest.part.is_none() && b.manifest.kind != BackupKind::SchemaOnly).collect();
    if all.is_empty() {
        // A part of a database is never what is meant by the latest, as long as there is a whole one.
        return match newest_first().next() {
            Some(_) if wanted.overwrite => Err(Error::refused("replacing a database by the latest backup")
                .why("no backup here holds a whole database: they are of some tables, or of definitions without rows")
                .hint("Restore one into a new database and copy from there.")),
            Some(part) => Ok((part, vec![format!("latest: {}; it holds no whole database", named(part))])),
            None => catalog.find("latest").map(|b| (b, Vec::new())),
        };
    }
    // Files are no backup of a database: they are meant where a folder is named, or files.
    let folder = wanted.into.contains('/') && !wanted.into.contains("://");
    let kinds = |b: &&Backup| match b.manifest.kind {
        BackupKind::Files => wanted.files || folder,
        _ => !wanted.files,
    };
    if all.iter().any(kinds) {
        all.retain(kinds);
    }
    let of: BTreeSet<&str> = all.iter().filter_map(|b| b.manifest.database.as_deref()).collect();
    let database = which(&of, wanted)?;
    all.retain(|b| b.manifest.database.is_none() || b.manifest.database.as_deref() == database);
    let newest = all.first().copied();
    let right = all.iter().copied().find(|b| b.damaged.is_none());
    let Some(chosen) = right.or(newest) else {
        return catalog.find("latest").map(|b| (b, Vec::new()));
    };
    let mut lines: Vec<String> = Vec::new();
    for b in all.iter().take_while(|b| b.manifest.id != chosen.manifest.id) {
        let damage = b.damage().unwrap_or_default();
        lines.push(format!(
            "WARNING: newer, and passed over: {}: {damage}; name it to restore it all the same",
            named(b)
        ));
    }
    lines.extend(warning(chosen));
    let others: Vec<String> = of.iter().filter(|d| Some(**d) != database).map(|d| format!("{d:?}")).collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!("; there are others here, of database {}", others.join(", ")),
    };
    lines.push(format!("latest: {}{others}", named(chosen)));
    Ok((chosen, lines))
}

/// What to say before a backup is restored that is on record as damaged.
pub fn warning(b: &Backup) -> Option<String> {
    Some(format!("WARNING: {}: {}", named(b), b.damage()?))
}

/// A backup with what it is of and when it was finished.
fn named(b: &Backup) -> String {
    let m = &b.manifest;
    let of = m.database.as_ref().map_or_else(String::new, |d| format!(" of database {d:?}"));
    format!("{}{of}, finished {}", m.id, Time::date_hms(m.finished_at))
}

/// Of the databases that there are dumps of, the one that is meant.
fn which<'d>(of: &BTreeSet<&'d str>, wanted: &Wanted<'_>) -> Result<Option<&'d str>> {
    let known = |name: Option<&str>| of.iter().copied().find(|d| Some(*d) == name);
    if of.len() < 2 {
        return Ok(of.first().copied());
    }
    let names = of.iter().map(|d| format!("{d:?}")).collect::<Vec<_>>().join(", ");
    let asked = |why: String| {
        Error::refused("restoring the latest backup")
            .why(why)
            .hint("Name it: breakglass backup list says which is of which.")
    };
    let into = known(Some(wanted.into));
    if wanted.overwrite && !wanted.other_database {
        return into.map(Some).ok_or_else(|| {
            asked(format!("there are backups of {names}, and none is of {:?}, which would be replaced", wanted.into))
        });
    }
    match (known(wanted.database), into) {
        (Some(one), Some(other)) if one != other => Err(asked(format!(
            "there are backups of {names}: DATABASE_URL (target.url) names {one:?}, and --into {other:?}"
        ))),
        (Some(one), _) | (None, Some(one)) => Ok(Some(one)),
        (None, None) => Err(asked(format!("there are backups of {names}, and nothing says which database is meant"))
            .hint("Or set DATABASE_URL to the database whose backup it is.")),
    }
}
