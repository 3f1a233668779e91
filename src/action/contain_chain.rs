//! Whether a recovery gets to the segment that a containment had archived: from the newest base backup that can be used, by names.

use std::time::Duration;

use sqlx::postgres::PgConnection;

use super::{Ctx, reach};
use crate::backup::catalog::{BackupKind, Manifest};
use crate::backup::repository::{Repository, Unlocked};
use crate::backup::wal::range::{leads_along, path_to};
use crate::backup::wal::{Depth, Listing, Segment, WalName, Way, status};
use crate::config::Backend;
use crate::config::settings::{REPOSITORY_IDENTITY, REPOSITORY_KEY};
use crate::error::{Error, Result};
use crate::postgres::Lsn;
use crate::recovery::unheld::{elsewhere, unheld};

/// How long a repository may take to answer: whoever contains does not wait for a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why everything up to this segment cannot be recovered from the configured repository, and what can; none when it can be, or when
/// no repository of ours is configured.
pub(super) async fn broken(ctx: &Ctx, c: &mut PgConnection, segment: &str) -> Option<String> {
    if ctx.settings.backend != Backend::Native || ctx.settings.repository.is_none() {
        return None;
    }
    match tokio::time::timeout(PATIENCE, look(ctx, c, segment)).await {
        Ok(Ok(found)) => found,
        Ok(Err(e)) => Some(format!("whether the log leads there is not known: {}: {}", e.what, e.why)),
        Err(_) => Some(format!("whether the log leads there is not known: no answer for {} s", PATIENCE.as_secs())),
    }
}

/// The end of a summary that must not promise what no recovery gets to.
pub(super) fn leads_not(lsn: &str, why: &str) -> String {
    format!("BUT THE LOG DOES NOT LEAD TO {lsn}: {why}")
}

async fn look(ctx: &Ctx, c: &mut PgConnection, segment: &str) -> Result<Option<String>> {
    let repository = reach::repository(ctx)?;
    let sql = "SELECT coalesce(current_setting('archive_command', true), '')";
    let command: String =
        sqlx::query_scalar(sql).fetch_one(&mut *c).await.map_err(|e| crate::postgres::connect::query_error(sql, &e))?;
    let gap = unheld(c, &repository).await?;
    let (name, of) = (segment.to_string(), ctx.clone());
    super::target::blocking(move || {
        if let Some(gap) = gap.filter(|g| g.archives_to.is_some()) {
            return Ok(Some(format!("{}; {}", gap.what(), gap.advice())));
        }
        if let Some(to) = elsewhere(&repository, &command)
            && repository.store().size(&object(&name)?)?.is_none()
        {
            let here = repository.store().url();
            return Ok(Some(format!("archive_command stores the log in {to}, and it is not in {here}")));
        }
        let has_key = [REPOSITORY_KEY, REPOSITORY_IDENTITY].iter().any(|key| of.secrets.get(key).is_some());
        match has_key {
            true => from_backup(&of, &reach::unlocked(&of)?, &name),
            false => by_names(&repository, &name),
        }
    })
    .await
}

fn object(name: &str) -> Result<String> {
    let bad = || Error::state(format!("{name:?} is not the name of a WAL segment"));
    Segment::parse(name).map(|s| WalName::Segment(s).object()).ok_or_else(bad)
}

/// Along the way from each base backup, the newest first, until one leads to the segment.
fn from_backup(ctx: &Ctx, unlocked: &Unlocked, name: &str) -> Result<Option<String>> {
    let bad = || Error::state(format!("{name:?} is not the name of a WAL segment"));
    let goal = Segment::parse(name).ok_or_else(bad)?;
    let listing = Listing::read(unlocked.repository())?;
    let path = path_to(unlocked, goal.timeline)?;
    let way = Way::along(path.clone(), &listing);
    let size = status(unlocked.repository())?.segment_size;
    let mut backups: Vec<(Manifest, Lsn)> = reach::catalog(ctx, unlocked)?
        .backups
        .into_iter()
        .filter(|b| b.damaged.is_none() && b.manifest.kind == BackupKind::Physical)
        .filter(|b| leads_along(&path, &b.manifest))
        .filter_map(|b| Some((b.manifest.start_lsn.as_ref()?.parse().ok()?, b.manifest)))
        .map(|(start, manifest)| (manifest, start))
        .collect();
    backups.sort_by_key(|(m, _)| std::cmp::Reverse(m.started_at));
    let mut hole = None;
    for (manifest, start) in &backups {
        let begin = start.segment(goal.timeline, u64::from(size));
        let run = way.check(unlocked, &begin, Some(name), Depth::Names, &mut |_| Ok(()))?;
        let Some(found) = run.hole else { return Ok(None) };
        hole.get_or_insert_with(|| found.clone());
        let last = run.last.and_then(|l| Lsn::of_segment(&l, u64::from(size))).map(|(_, l)| l.0 + u64::from(size));
        let stop = manifest.stop_lsn.as_ref().and_then(|l| l.parse::<Lsn>().ok());
        if let (Some(end), Some(stop)) = (last, stop)
            && end >= stop.0
        {
            return Ok(Some(format!(
                "{} to {} are missing from the archive; what was committed until {} can be recovered (backup {}), nothing after it. \
                 Take a base backup now: breakglass backup create --physical",
                found.first,
                found.last,
                Lsn(end),
                manifest.id
            )));
        }
    }
    Ok(Some(match hole {
        Some(hole) => format!(
            "{} to {} are missing from the archive, and no base backup is whole without them: nothing can be recovered. Take one now: \
             breakglass backup create --physical",
            hole.first, hole.last
        ),
        None => "no base backup is there that the log leads on from: nothing can be recovered. Take one now: breakglass backup create \
                 --physical"
            .into(),
    }))
}

/// Without a key: whether the segment is there, and all between it and the first of its timeline.
fn by_names(repository: &Repository, name: &str) -> Result<Option<String>> {
    let status = status(repository)?;
    let there = repository.store().size(&object(name)?)?.is_some();
    let of = |s: &str| s.get(..8).map(str::to_string);
    let own = status.timelines.iter().find(|t| of(&t.last) == of(name));
    let newest = own.and_then(|t| t.holes.last());
    Ok(match (there, newest) {
        (true, None) => None,
        (true, Some(hole)) => Some(format!(
            "{} to {} are missing from the archive; only from a base backup taken after them can it be recovered",
            hole.first, hole.last
        )),
        (false, _) => Some(format!(
            "{name} is not in the repository, which ends at {}",
            own.map_or("no segment of its timeline", |t| t.last.as_str())
        )),
    })
}
