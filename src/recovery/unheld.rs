//! What the server was told is stored, and the repository does not hold: a disk that was rolled back, files that were deleted, or an
//! archive that goes to another place. Nothing is missing by the repository's own word then: it just ends earlier.

use std::path::Path;

use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::backup::repository::Repository;
use crate::backup::seen::option_in;
use crate::backup::wal::{Segment, WalName, WalStatus, status};
use crate::error::Result;
use crate::model::Time;
use crate::postgres::connect::query_error;

/// The end of the archive that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unheld {
    /// The last segment that the server archived, by its own word.
    pub archived: String,
    /// The last segment that the repository holds of that timeline, or of those before it; none when it holds none.
    pub held: Option<String>,
    /// When that was archived.
    pub held_at: Option<Time>,
    /// The first that is missing; the last one is `archived`.
    pub first: String,
    /// How many are missing.
    pub segments: u64,
    /// Where the repository that was asked is.
    pub repository: String,
    /// Where `archive_command` writes to, when that is another place.
    pub archives_to: Option<String>,
}

impl Unheld {
    /// What is wrong, in one sentence.
    pub fn what(&self) -> String {
        let has = match &self.held {
            Some(held) => format!("the repository ends at {held}"),
            None => "the repository holds nothing of its log".to_string(),
        };
        let base = format!("the server's last archived segment is {}, {has}", self.archived);
        if let Some(to) = &self.archives_to {
            return format!(
                "{base}: archive_command stores the log in {to}, and {} is looked at here",
                self.repository
            );
        }
        let since = self.held_at.map_or(String::new(), |t| format!(" since {}", t.date_hms()));
        format!(
            "{base}: {} segments ({} to {}) that the server believes stored are not here, what was committed{since} cannot be recovered",
            self.segments, self.first, self.archived
        )
    }

    /// What to do now.
    pub fn advice(&self) -> String {
        match &self.archives_to {
            Some(to) => format!(
                "name one place in both: BACKUP_DIR={to} (or repository.url) if the log belongs there, else --repository {} in archive_command",
                self.repository
            ),
            None => "take a base backup now: breakglass backup create --physical; then find out who removed them or rolled the disk back. \
                     The server does not archive them again: those that still lie in its pg_wal can be stored by hand (breakglass wal \
                     archive)"
                .into(),
        }
    }
}

/// Where the server's `archive_command` stores to, when it is ours and that is not where this repository is.
pub fn elsewhere(repository: &Repository, command: &str) -> Option<String> {
    let to = option_in(command, "--repository").filter(|_| command.contains("wal archive"))?;
    (place(&to) != place(&repository.store().url())).then_some(to)
}

/// A place in one spelling: links followed, what only this or that caller adds taken off.
fn place(url: &str) -> String {
    let bare = url.split_once('?').map_or(url, |(short, _)| short);
    let path = bare.strip_prefix("file://").unwrap_or(bare);
    if path.contains("://") {
        return path.trim_end_matches('/').to_string();
    }
    Path::new(path).canonicalize().map_or_else(|_| path.trim_end_matches('/').to_string(), |p| p.display().to_string())
}

/// Compares what the server believes archived with what this repository holds, by names alone. None when all is there, when it is
/// another cluster's, or when the server's last one is no segment or one that lies before the repository's end (`pg_stat_archiver`
/// of a server that was recovered).
///
/// # Errors
/// The server does not answer, or the repository cannot be read.
pub async fn unheld(c: &mut PgConnection, repository: &Repository) -> Result<Option<Unheld>> {
    let sql = "SELECT coalesce(a.last_archived_wal, '') AS last, coalesce(current_setting('archive_command', true), '') AS command, \
               CASE WHEN has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') \
               THEN (SELECT system_identifier::text FROM pg_control_system()) END AS id FROM pg_stat_archiver a";
    let row = sqlx::query(sql).fetch_one(&mut *c).await.map_err(|e| query_error(sql, &e))?;
    let (last, command, id): (String, String, Option<String>) = (row.get("last"), row.get("command"), row.get("id"));
    let repository = repository.clone();
    let asked = tokio::task::spawn_blocking(move || look(&repository, &last, &command, id.as_deref())).await;
    asked.map_err(|e| crate::error::Error::state("looking at the repository was stopped").why(e))?
}

fn look(repository: &Repository, last: &str, command: &str, id: Option<&str>) -> Result<Option<Unheld>> {
    let Some(segment) = segment_of(last) else { return Ok(None) };
    // One question where all is well, however much there is.
    if repository.store().size(&WalName::Segment(segment).object())?.is_some() {
        return Ok(None);
    }
    let ours = repository.cluster()?.map(|c| c.system_identifier.to_string());
    // One that was never archived to is nobody's yet, and holds none of it.
    if ours.is_some() && ours.as_deref() != id {
        return Ok(None);
    }
    Ok(behind(segment, &status(repository)?).map(|found| Unheld {
        repository: repository.store().url(),
        archives_to: elsewhere(repository, command),
        ..found
    }))
}

/// The segment that an archived name says is stored. The file of a backup comes after the segment it begins in.
fn segment_of(archived: &str) -> Option<Segment> {
    match archived.get(24..) {
        Some("") => Segment::parse(archived),
        Some(rest) if rest.ends_with(".backup") => Segment::parse(archived.get(..24)?),
        _ => None,
    }
}

fn behind(archived: Segment, status: &WalStatus) -> Option<Unheld> {
    let size = status.segment_size;
    let number = archived.number(size);
    // What is received bit by bit counts, too.
    let received = status.received.as_ref().and_then(|r| Segment::parse(&r.segment));
    if received.is_some_and(|r| r.timeline >= archived.timeline && r.number(size) >= number) {
        return None;
    }
    // Of its own timeline, or, where nothing of that is here, of the newest before it, as far as the two can have in common.
    let own = status.timelines.iter().rfind(|t| t.timeline <= archived.timeline);
    let end = own.and_then(|t| Some((t, Segment::parse(&t.last)?)));
    if end.is_some_and(|(t, last)| t.timeline == archived.timeline && last.number(size) >= number) {
        return None;
    }
    let after = end.map(|(_, last)| last.number(size) + 1).filter(|n| *n <= number).unwrap_or(number);
    Some(Unheld {
        archived: archived.to_string(),
        held: end.map(|(t, _)| t.last.clone()),
        held_at: end.and_then(|(t, _)| t.last_archived_at),
        first: Segment::from_number(archived.timeline, after, size).to_string(),
        segments: number - after + 1,
        repository: String::new(),
        archives_to: None,
    })
}
