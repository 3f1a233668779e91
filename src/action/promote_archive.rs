//! What the archive says of a promotion: before it, whether another recovered instance went into service since this one was
//! built; after it, whether the new timeline arrives without a gap.

use std::time::{Duration, Instant};

use super::Ctx;
use super::target::{Follow, blocking, unlock};
use crate::backup::wal::{Depth, Listing, Segment, Way, format_lsn, path_to};
use crate::config::Backend;
use crate::error::{Error, Result};
use crate::model::target::Identity;
use crate::postgres::Database;
use crate::recovery::archived::archive_now;
use crate::recovery::shadow::Shadow;

/// Two recovered instances of one database in service would both take writes, and archive into one repository. A timeline that
/// neither the one at hand nor the damaged server knows (`known`) is a sign that another is in service.
///
/// # Errors
/// Refused when there is such a timeline and nobody said that it was left (`left`); the repository cannot be read.
pub(super) async fn alone(ctx: &Ctx, s: &Shadow, known: &[&Identity], left: Option<u32>) -> Result<()> {
    if s.backend != Backend::Native {
        return Ok(());
    }
    let ctx = ctx.clone();
    let newest = blocking(move || {
        let (unlocked, _) = unlock(&ctx)?;
        Ok(Listing::read(unlocked.repository())?.timelines().last().copied().unwrap_or(1))
    })
    .await?;
    let seen = known.iter().map(|i| i.timeline).chain([s.timeline, s.along.unwrap_or(0)]).max().unwrap_or(1);
    if newest <= seen || left.is_some_and(|left| left >= newest) {
        return Ok(());
    }
    Err(Error::refused(format!("another instance was put into service already: the archive has timeline {newest}"))
        .why(format!(
            "{:?} was built when there was timeline {seen}, and the damaged server is not known to be on a later one; two would \
             take writes, and what either takes is missing in the other",
            s.root.display()
        ))
        .hint(format!(
            "where timeline {newest} is in service, go on with that one; what it has is told by: breakglass pitr range --timeline {newest}"
        ))
        .hint(format!(
            "where it was given up, and is down and stays down, promote this one with --leave-timeline {newest}; what was \
             written there is left behind"
        )))
}

/// Whether the new timeline reaches the repository: its first segment is switched and waited for, and nothing is missing from
/// where it branched off. Says so, or what is missing.
///
/// # Errors
/// It does not arrive in time, or a segment of it is not there.
pub(super) async fn arrives(ctx: &Ctx, s: &Shadow, at: &Database, timeline: u32, follow: &Follow) -> Result<()> {
    let began = Instant::now();
    let mut c = at.connect().await?;
    let a = archive_now(&mut c, Duration::from_secs(10), follow, &ctx.cancel).await?;
    if s.backend == Backend::Native {
        let (ctx, upto) = (ctx.clone(), a.segment.clone());
        blocking(move || {
            let (unlocked, _) = unlock(&ctx)?;
            let path = path_to(&unlocked, timeline)?;
            let Some(from) = path.iter().rev().find_map(|b| b.ends_at) else { return Ok(()) };
            let listing = Listing::read(unlocked.repository())?;
            let first = Segment::at(timeline, from, listing.segment_size()).to_string();
            let way = Way::along(path, &listing);
            let found = way.check(&unlocked, &first, Some(&upto), Depth::Names, &mut |_| Ok(()))?;
            match found.hole {
                None => Ok(()),
                Some(hole) => Err(Error::check(format!(
                    "the log of timeline {timeline} is not whole: {} to {} is {}",
                    hole.first, hole.last, hole.why
                ))
                .why(format!(
                    "it begins at {}; nothing that is written from now on can be recovered without a new base backup",
                    format_lsn(from)
                ))
                .hint("take one now: breakglass backup create --physical")),
            }
        })
        .await?;
    }
    ctx.out.line(&format!(
        "new timeline archived without a gap up to {} after {} ms",
        a.segment,
        began.elapsed().as_millis()
    ));
    Ok(())
}
